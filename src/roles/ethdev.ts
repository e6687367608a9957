/**
 * A guest's vDPDK device as its DPDK application sees it: ethdev's and rte_flow's functions, which the host's side runs.
 * Where that is on another lcore, a call rings for it and waits.
 */
import {
  VdpdkDevice as DeviceLayout,
  Poller,
  RteFlowRefusal,
  VdpdkCall,
  VdpdkControl,
  VdpdkDriver,
  VdpdkStatus,
} from "../../assembly/layout.ts";
import { EthdevError, type EthdevInfo, type EthdevStats, type VdpdkDevice } from "../attach/vdpdk.ts";
import type { HostMemory } from "../core/host-memory.ts";
import { formatMac } from "../mac.ts";
import { formatRule } from "../rte-flow/format.ts";
import type { RteFlowRule } from "../rte-flow/items.ts";
import { parseRule } from "../rte-flow/parse.ts";
import { RteFlowError } from "../rte-flow/words.ts";
import { type RteFlowCount, refused } from "./rte-flow.ts";

/** What a refusal expected of a guest, where that isn't what it expects of the host. */
const EXPECTED: Partial<Record<RteFlowRefusal, string>> = {
  [RteFlowRefusal.QUEUE]: "0, the device's only queue",
  [RteFlowRefusal.MARK]: 'a mark below 32768, and "mark" among the offloads of the receive queue',
  [RteFlowRefusal.BRIDGED]:
    "a card that follows rules itself: its driver sees no frame of a pipe's that is bridged to it",
  [RteFlowRefusal.FULL]: "fewer rules than the device has room for (flows.most of its info)",
  [RteFlowRefusal.FOREIGN]: "a pattern without eth dst, or with the device's own MAC address",
  [RteFlowRefusal.PRIORITY]: "a priority from 0 to 2147483647",
};

/** @throws EthdevError from any call that ends with an error */
export class Ethdev {
  /** @internal Use `guest.ethdev`. */
  constructor(
    readonly host: HostMemory,
    readonly device: VdpdkDevice,
  ) {}

  /** Run-time discovery of what the host's card can do. */
  info(): EthdevInfo {
    return this.device.info(this.#kick);
  }

  stats(): EthdevStats {
    return this.device.stats(this.#kick);
  }

  get mac(): string {
    this.device.run(VdpdkCall.MAC, {}, this.#kick);
    const { core } = this.host;
    return formatMac(core.view.getBigUint64(this.device.memory.region.address + VdpdkControl.results, true));
  }

  /**
   * `rx_queue_stop`, `tx_queue_stop`, while frames move: the queue's buffers are the guest's again.
   * @returns false where the card has frames of it still to send; then this is called again after it has
   */
  stopQueue(which: "rx" | "tx"): boolean {
    const call = which === "rx" ? VdpdkCall.RX_STOP : VdpdkCall.TX_STOP;
    let status = this.device.call(call, {}, this.#kick);
    if (status === VdpdkStatus.AGAIN && which === "rx") {
      // The wire is this thread's: the card ends its DMA and answers.
      const { core } = this.host;
      core.exports.flushNic(core.u32(this.device.device + DeviceLayout.nic));
      status = this.device.call(call, {}, this.#kick);
    }
    if (status === VdpdkStatus.AGAIN) return false;
    if (status) throw new EthdevError(status, `${this.device.memory.name}: ${VdpdkCall[call]}`);
    return true;
  }

  /** `rx_queue_start`, `tx_queue_start` of one that was stopped. */
  startQueue(which: "rx" | "tx"): void {
    this.device.run(which === "rx" ? VdpdkCall.RX_START : VdpdkCall.TX_START, {}, this.#kick);
  }

  /**
   * `rte_flow_create`: a rule of testpmd's, with or without `flow create 0` in front, or an object. It is for frames to the
   * device's own MAC address, whether it says so or not, and comes behind the host's rules.
   * @returns its id
   * @throws RteFlowError with the column of what can't be read, or what the device can't do; then nothing has changed
   * @throws EthdevError where the device has no flow rules
   */
  flowCreate(rule: string | RteFlowRule): number {
    return this.#ask(VdpdkCall.FLOW_CREATE, rule);
  }

  /** `rte_flow_validate`: throws what `flowCreate` would throw, and changes nothing. */
  flowValidate(rule: string | RteFlowRule): void {
    this.#ask(VdpdkCall.FLOW_VALIDATE, rule);
  }

  /** `rte_flow_destroy`. @throws EthdevError (NO_ENTRY) where the device has no such rule; then nothing has changed */
  flowDestroy(id: number): void {
    this.device.run(VdpdkCall.FLOW_DESTROY, { rule: id }, this.#kick);
  }

  /** `rte_flow_flush`: destroys all rules of the device. */
  flowFlush(): void {
    this.device.run(VdpdkCall.FLOW_FLUSH, {}, this.#kick);
  }

  /** `rte_flow_query`: what a rule has matched. @throws EthdevError (NO_ENTRY) where the device has no such rule */
  flowQuery(id: number): RteFlowCount {
    this.device.run(VdpdkCall.FLOW_QUERY, { rule: id }, this.#kick);
    const { hits, bytes } = this.device.flowResult;
    return { hits, bytes };
  }

  /** @returns the rule's id */
  #ask(call: VdpdkCall.FLOW_CREATE | VdpdkCall.FLOW_VALIDATE, rule: string | RteFlowRule): number {
    const { port, rule: parsed } = parseRule(typeof rule === "string" ? rule : formatRule(rule));
    if (port && Number(port.text) !== 0) {
      throw new RteFlowError(port.column, port.text, "0, the number of the guest's only port");
    }
    const status = this.device.call(call, { flow: parsed.input }, this.#kick);
    const { id, refusal } = this.device.flowResult;
    if (status === 0) return id;
    if (status === VdpdkStatus.NOT_SUPPORTED && this.info().flows.most === 0) {
      throw new EthdevError(status, `${this.device.memory.name}: ${VdpdkCall[call]}`);
    }
    throw refused(parsed.words, refusal, EXPECTED[refusal]);
  }

  /** Rings for the device where it is on another lcore; nothing where this thread runs it. */
  get #kick(): (() => void) | undefined {
    const { core, lcore } = this.host;
    const bell = core.u32(this.device.tx + VdpdkDriver.bell);
    if (!bell || core.u32(bell + Poller.lcore) === lcore) return undefined;
    return () => core.exports.ringFor(bell);
  }
}
