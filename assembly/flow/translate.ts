/**
 * From a key to a flow: the tables are gone through as the rules say, and what is to be done with frames of this flow is
 * written down as one list.
 */
import { Count } from "../count";
import {
  Destination,
  Drop,
  FLOW_ACTIONS,
  FLOW_LOOKUPS,
  FLOW_SAME,
  FlowAction,
  FlowActionKind,
  FlowField,
  FlowMatch,
  FlowRule,
  FlowTable,
  Megaflow,
  Port,
  Switch,
} from "../layout";
import { Classifier } from "./classifier";
import { Megaflows } from "./megaflow";

/** How far going through the tables got: to the end, to where the frame is dropped, or too far. */
enum Outcome {
  WHOLE,
  STOPPED,
  TOO_DEEP,
}

export class Translation {
  /** Makes the flow of the key at `FlowTable.key`, of a frame that came in at `port`; `shared`: others are to find it. */
  static run(sw: usize, t: usize, port: usize, shared: bool): usize {
    const flow = Megaflows.make(t);
    const key = t + FlowTable.key;
    const edited = t + FlowTable.edited;
    const consulted = t + FlowTable.consulted;
    for (let i: usize = 0; i < <usize>FlowMatch.SIZE; i += 16) {
      v128.store(edited + i, v128.load(key + i));
      v128.store(consulted + i, i64x2.splat(0));
    }
    // Whether it would go back where it came from always counts.
    store<u16>(consulted, 0xffff, FlowMatch.inPort);
    const outcome = Translation.apply(t, flow, 0);
    Translation.conclude(sw, t, flow, port, outcome != Outcome.TOO_DEEP);
    if (shared) Megaflows.publish(t, flow, key);
    else Megaflows.write(flow, key, t + FlowTable.union);
    return flow;
  }

  /** Appends what `table` says of the key at `FlowTable.edited`. */
  static apply(t: usize, flow: usize, table: u32): Outcome {
    const edited = t + FlowTable.edited;
    const rule = Classifier.lookup(t, edited, table);
    if (!rule) return Outcome.WHOLE;
    const rules = load<u32>(flow, Megaflow.ruleCount);
    if (rules == FLOW_LOOKUPS) return Outcome.TOO_DEEP;
    store<u32>(flow + rules * 4, <u32>rule, Megaflow.rules);
    store<u32>(flow, rules + 1, Megaflow.ruleCount);
    let action: usize = load<u32>(rule, FlowRule.actions);
    for (let n = load<u32>(rule, FlowRule.actionCount); n; n--, action += FlowAction.SIZE) {
      const kind = load<u32>(action);
      if (kind == FlowActionKind.RESUBMIT) {
        const port = load<u16>(edited, FlowMatch.inPort);
        const as = load<u32>(action, FlowAction.port);
        if (as != FLOW_SAME) store<u16>(edited, <u16>as, FlowMatch.inPort);
        const outcome = Translation.apply(t, flow, load<u32>(action, FlowAction.argument));
        if (outcome != Outcome.WHOLE) return outcome;
        store<u16>(edited, port, FlowMatch.inPort);
        continue;
      }
      const actions = load<u32>(flow, Megaflow.actionCount);
      if (actions == FLOW_ACTIONS) return Outcome.TOO_DEEP;
      store<u32>(flow + actions * 4, <u32>action, Megaflow.actions);
      store<u32>(flow, actions + 1, Megaflow.actionCount);
      Translation.consult(t + FlowTable.consulted, action, kind);
      // A third tag: the frame goes no further (`Edit.push`).
      if (kind == FlowActionKind.PUSH_VLAN && load<u16>(edited, FlowMatch.vlanInner)) return Outcome.STOPPED;
      Translation.edit(edited, action, kind);
    }
    return Outcome.WHOLE;
  }

  /** What follows a change depends on whether there is what is to be changed. */
  static consult(consulted: usize, action: usize, kind: u32): void {
    if (kind < <u32>FlowActionKind.SET) return;
    const field = load<u32>(action, FlowAction.argument);
    if (kind != FlowActionKind.SET || field == FlowField.VLAN || field == FlowField.VLAN_OR_PUSH) {
      store<u16>(consulted, 0xffff, FlowMatch.vlanTci);
      store<u16>(consulted, 0xffff, FlowMatch.vlanInner);
    } else if (field != FlowField.ETHERNET) {
      store<u16>(consulted, 0xffff, FlowMatch.dlType);
      store<u8>(consulted, 0xff, FlowMatch.nwProto);
    }
  }

  /** What an action makes of a key. */
  static edit(key: usize, action: usize, kind: u32): void {
    const tci = load<u16>(key, FlowMatch.vlanTci);
    if (kind == FlowActionKind.PUSH_VLAN) {
      store<u16>(key, tci, FlowMatch.vlanInner);
      store<u16>(key, 0x10, FlowMatch.vlanTci);
    } else if (kind == FlowActionKind.STRIP_VLAN) {
      store<u16>(key, load<u16>(key, FlowMatch.vlanInner), FlowMatch.vlanTci);
      store<u16>(key, 0, FlowMatch.vlanInner);
    } else if (kind == FlowActionKind.SET) {
      const field = load<u32>(action, FlowAction.argument);
      if (field == FlowField.VLAN_OR_PUSH && !tci) store<u16>(key, 0x10, FlowMatch.vlanTci);
      if (!Translation.applies(key, field)) return;
      const at = key + load<u16>(action, FlowAction.at);
      const bytes = <u32>load<u16>(action, FlowAction.bytes);
      for (let i: u32 = 0; i < bytes; i++) {
        const mask = load<u8>(action + i, FlowAction.mask);
        store<u8>(at + i, (load<u8>(at + i) & ~mask) | (load<u8>(action + i, FlowAction.value) & mask));
      }
    }
  }

  /** Whether a frame with this key has what is to be set. */
  static applies(key: usize, field: u32): bool {
    if (field == FlowField.ETHERNET) return true;
    if (field == FlowField.VLAN || field == FlowField.VLAN_OR_PUSH)
      return load<u16>(key, FlowMatch.vlanTci) != 0;
    const type = load<u16>(key, FlowMatch.dlType);
    const protocol = load<u8>(key, FlowMatch.nwProto);
    if (field == FlowField.ARP) return type == 0x0608;
    if (type == 0x0008) {
      if (field == FlowField.IP || field == FlowField.IPV4) return true;
      return field == FlowField.PORTS
        ? protocol == 6 || protocol == 17
        : field == FlowField.ICMP && protocol == 1;
    }
    if (type != 0xdd86) return false;
    if (field == FlowField.IP || field == FlowField.IPV6) return true;
    return field == FlowField.PORTS
      ? protocol == 6 || protocol == 17
      : field == FlowField.ICMPV6 && protocol == 58;
  }

  /** Where the flow's frames go: one port, if that is all. */
  static conclude(sw: usize, t: usize, flow: usize, port: usize, whole: bool): void {
    store<u32>(flow, Drop.FLOW, Megaflow.why);
    const count = load<u32>(flow, Megaflow.actionCount);
    let to: u32 = Destination.DROP;
    if (!whole) {
      Count.add(t + FlowTable.tooDeep, 1);
      store<u32>(flow, 0, Megaflow.actionCount);
    } else if (count == 1) {
      const action: usize = load<u32>(flow, Megaflow.actions);
      const kind = load<u32>(action);
      if (kind == FlowActionKind.OUTPUT) {
        to = load<u32>(action, FlowAction.port);
        const back = to == load<u32>(port, Port.index);
        if (back || to >= load<u32>(sw, Switch.ports)) {
          to = Destination.DROP;
          store<u32>(flow, back ? Drop.HAIRPIN : Drop.DOWN, Megaflow.why);
        }
      } else if (kind == FlowActionKind.IN_PORT) to = load<u32>(port, Port.index);
      else if (kind == FlowActionKind.FLOOD) to = Destination.FLOOD;
      else if (kind == FlowActionKind.NORMAL) to = Destination.NORMAL;
      else if (kind == FlowActionKind.CONTROLLER) to = Destination.ACTIONS;
    } else {
      for (let i: u32 = 0; i < count; i++) {
        const kind = load<u32>(load<u32>(flow + i * 4, Megaflow.actions));
        // Changes that nobody gets are none.
        if (kind <= <u32>FlowActionKind.CONTROLLER) to = Destination.ACTIONS;
      }
    }
    store<u32>(flow, to, Megaflow.to);
  }
}
