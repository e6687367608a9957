/**
 * A guest's vDPDK device as its DPDK application sees it: ethdev's functions, which the host's side runs. Where that is on
 * another lcore, a call rings for it and waits.
 */
import {
  VdpdkDevice as DeviceLayout,
  Poller,
  VdpdkCall,
  VdpdkControl,
  VdpdkDriver,
  VdpdkStatus,
} from "../../assembly/layout.ts";
import { EthdevError, type EthdevInfo, type EthdevStats, type VdpdkDevice } from "../attach/vdpdk.ts";
import type { HostMemory } from "../core/host-memory.ts";
import { formatMac } from "../mac.ts";

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

  /** Rings for the device where it is on another lcore; nothing where this thread runs it. */
  get #kick(): (() => void) | undefined {
    const { core, lcore } = this.host;
    const bell = core.u32(this.device.tx + VdpdkDriver.bell);
    if (!bell || core.u32(bell + Poller.lcore) === lcore) return undefined;
    return () => core.exports.ringFor(bell);
  }
}
