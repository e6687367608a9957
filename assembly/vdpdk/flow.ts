/**
 * vDPDK, a guest's flow rules: rte_flow by forwarded calls (layout: `VdpdkControl.flow`, `VdpdkFlowResult`).
 *
 * What the guest asks for is copied out of its memory once and confined there: to frames for its own MAC address, to its own
 * queues, and behind all rules of the host's. Then it is a rule of the card's table like any other, with its maker noted.
 */
import {
  Nic,
  Offload,
  RTE_FLOW_GUESTS,
  RTE_FLOW_QUEUES,
  RteFlow,
  RteFlowAction,
  RteFlowKey,
  RteFlowRefusal,
  RxQueue,
  Vdpdk,
  VdpdkCall,
  VdpdkControl,
  VdpdkDevice,
  VdpdkFlowResult,
  VdpdkQueue,
  VdpdkStatus,
} from "../layout";
import { RteFlows } from "../rteflow";

const MAC_BITS: u64 = 0xffff_ffff_ffff;
const TO_QUEUES: u32 = RteFlowAction.QUEUE | RteFlowAction.RSS;
const FATES: u32 = TO_QUEUES | RteFlowAction.DROP | RteFlowAction.PASSTHRU;

export class VdpdkFlows {
  /** The card's rules, in the card or in its driver; 0 where the guest may have none. */
  static table(dev: usize): usize {
    const nic: usize = load<u32>(dev, VdpdkDevice.nic);
    if (!nic || !load<u32>(dev, VdpdkDevice.flows)) return 0;
    const inCard = load<u32>(nic, Nic.flows);
    return inCard ? inCard : load<u32>(nic, Nic.driverFlows);
  }

  /** Whether the card itself follows the guest's rules. */
  static inCard(dev: usize): bool {
    const t = VdpdkFlows.table(dev);
    return t != 0 && t == load<u32>(load<u32>(dev, VdpdkDevice.nic), Nic.flows);
  }

  /** One of the flow calls; returns its status. */
  static call(dev: usize, control: usize, call: u32): i32 {
    const t = VdpdkFlows.table(dev);
    if (!t) return VdpdkStatus.NOT_SUPPORTED;
    const maker = load<u32>(dev, VdpdkDevice.id);
    const results = control + VdpdkControl.results;
    let refusal: i32 = RteFlowRefusal.NONE;
    if (call == VdpdkCall.FLOW_FLUSH) RteFlows.flushOf(t, maker);
    else if (call == VdpdkCall.FLOW_DESTROY) {
      if (!RteFlows.destroy(t, load<u32>(control, VdpdkControl.rule), maker))
        refusal = RteFlowRefusal.UNKNOWN;
    } else if (call == VdpdkCall.FLOW_QUERY) {
      const id = load<u32>(control, VdpdkControl.rule);
      if (!RteFlows.query(t, id, maker, results + VdpdkFlowResult.hits)) refusal = RteFlowRefusal.UNKNOWN;
    } else {
      const made = VdpdkFlows.create(t, dev, control + VdpdkControl.flow, call == VdpdkCall.FLOW_VALIDATE);
      if (made < 0) refusal = -made;
      else store<u32>(results, made, VdpdkFlowResult.id);
    }
    store<u32>(results, refusal, VdpdkFlowResult.refusal);
    return VdpdkFlows.status(refusal);
  }

  /** As `RteFlows.create`, of what stands in the guest's memory at `from`. */
  static create(t: usize, dev: usize, from: usize, only: bool): i32 {
    const rule: usize = <usize>load<u32>(dev, VdpdkDevice.vmux) + Vdpdk.frame;
    memory.copy(rule, from, RteFlow.INPUT);
    const refusal = VdpdkFlows.confine(dev, rule);
    if (refusal) return -refusal;
    const maker = load<u32>(dev, VdpdkDevice.id);
    if (RteFlows.madeBy(t, maker) >= load<u32>(dev, VdpdkDevice.flows)) return -RteFlowRefusal.FULL;
    return RteFlows.create(t, rule, only, maker);
  }

  /** Makes a rule of the card's of a guest's, or says why not. What is wrong with it otherwise the table says. */
  static confine(dev: usize, rule: usize): i32 {
    const mac = load<u64>(dev, VdpdkDevice.mac);
    const spec = load<u64>(rule, RteFlow.spec + RteFlowKey.dst);
    const mask = load<u64>(rule, RteFlow.mask + RteFlowKey.dst);
    if ((spec ^ mac) & mask & MAC_BITS) return RteFlowRefusal.FOREIGN;
    store<u64>(rule, (spec & ~MAC_BITS) | mac, RteFlow.spec + RteFlowKey.dst);
    store<u64>(rule, mask | MAC_BITS, RteFlow.mask + RteFlowKey.dst);
    const priority = load<u32>(rule, RteFlow.priority);
    if (priority >= <u32>RTE_FLOW_GUESTS) return RteFlowRefusal.PRIORITY;
    store<u32>(rule, priority + <u32>RTE_FLOW_GUESTS, RteFlow.priority);
    const actions = load<u32>(rule, RteFlow.actions);
    if (!actions || popcnt<u32>(actions & FATES) > 1) return RteFlowRefusal.ACTIONS;
    const rx: usize = load<u32>(dev, VdpdkDevice.rx);
    if (actions & RteFlowAction.MARK && !(load<u32>(rx, VdpdkQueue.offloads) & Offload.MARK))
      return RteFlowRefusal.MARK;
    if (!VdpdkFlows.ownQueues(rule, actions)) return RteFlowRefusal.QUEUE;
    if (actions & RteFlowAction.DROP) return RteFlowRefusal.NONE;
    // Where its frames go in any case. The filter that says so would put its own mark in the place of the rule's.
    const own: usize = load<u32>(rx, VdpdkQueue.card);
    const card: usize = own ? own : load<u32>(load<u32>(dev, VdpdkDevice.vmux), Vdpdk.shared);
    store<u32>(rule, (actions & ~FATES) | RteFlowAction.QUEUE, RteFlow.actions);
    store<u32>(rule, load<u32>(card, RxQueue.index), RteFlow.queue);
    return RteFlowRefusal.NONE;
  }

  /** Whether a rule names no queue but the guest's one, its 0. */
  static ownQueues(rule: usize, actions: u32): bool {
    if (actions & RteFlowAction.QUEUE) return load<u32>(rule, RteFlow.queue) == 0;
    if (!(actions & RteFlowAction.RSS)) return true;
    const n = load<u32>(rule, RteFlow.queueCount);
    if (n > <u32>RTE_FLOW_QUEUES) return false;
    for (let i: u32 = 0; i < n; i++) if (load<u16>(rule + i * 2, RteFlow.queues)) return false;
    return true;
  }

  /** Status of a call that ends with `refusal`. */
  static status(refusal: i32): i32 {
    switch (refusal) {
      case RteFlowRefusal.NONE:
        return VdpdkStatus.OK;
      case RteFlowRefusal.FOREIGN:
        return VdpdkStatus.NOT_PERMITTED;
      case RteFlowRefusal.UNKNOWN:
        return VdpdkStatus.NO_ENTRY;
      case RteFlowRefusal.EXISTS:
        return VdpdkStatus.EXISTS;
      case RteFlowRefusal.FULL:
      case RteFlowRefusal.MASKS:
        return VdpdkStatus.NO_SPACE;
      case RteFlowRefusal.QUEUE:
      case RteFlowRefusal.PRIORITY:
        return VdpdkStatus.INVALID;
      default:
        return VdpdkStatus.NOT_SUPPORTED;
    }
  }

  /** The guest is reset or gone, and so are its rules. */
  static reset(dev: usize): void {
    const t = VdpdkFlows.table(dev);
    if (t) RteFlows.flushOf(t, load<u32>(dev, VdpdkDevice.id));
  }
}
