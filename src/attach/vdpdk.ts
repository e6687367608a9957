/**
 * A vDPDK device: the DPDK interface of the host's card, in a guest (vMux). The guest calls its ethdev functions by way of a
 * control page, and finds out what the card can do; frames go through rings whose descriptors say themselves whose they are.
 */
import {
  VdpdkDevice as DeviceLayout,
  DriverKind,
  Kind,
  Offload,
  Packet,
  PortKind,
  Port as PortLayout,
  QUEUE_MAX,
  type RteFlowRefusal,
  RteFlowTable,
  RxQueue,
  TAKES_NOTHING,
  VdpdkCall,
  VdpdkControl,
  VdpdkDesc,
  VdpdkDriver,
  VdpdkFlowResult,
  VdpdkInfo,
  VdpdkQueue,
  VdpdkStats,
  VdpdkStatus,
} from "../../assembly/layout.ts";
import type { Core } from "../core/core.ts";
import { parseMac } from "../mac.ts";
import { type OffloadName, offloadBits, offloadNames } from "../offloads.ts";
import { integer } from "../options.ts";
import type { GuestDevice, GuestMemory } from "./device.ts";

export interface VdpdkOptions {
  vdpdk?: {
    /** The card writes into the guest's buffers, by a queue of its own; default true. Else the host copies. */
    zeroCopyRx?: boolean;
    /** The card reads the guest's buffers; default true. Else the host copies. */
    zeroCopyTx?: boolean;
    /** Offloads that the guest's driver asks for, of those that its device has; default none. */
    offloads?: readonly OffloadName[];
    /** Flow rules that it may have at a time, up to 128; default its share of 64 among the guests of the card. */
    flows?: number;
  };
}

/** What the device says of itself: ethdev's `dev_info`. */
export interface EthdevInfo {
  mtu: number;
  rxQueues: number;
  txQueues: number;
  ring: { least: number; most: number };
  /** What can be asked for. */
  rxOffloads: OffloadName[];
  txOffloads: OffloadName[];
  /** Those of them that the card does by itself; the others the host does, which takes its time. */
  native: { rx: OffloadName[]; tx: OffloadName[] };
  /** Entries of the table of RSS; 0 where the card has none. */
  rssTable: number;
  /** Most buffers of one sent frame. */
  segments: number;
  /** Flow rules that it may have at a time, 0 for none, and whether the card follows them; else the host does, on copies. */
  flows: { most: number; native: boolean };
}

export interface EthdevStats {
  rxPackets: number;
  rxBytes: number;
  /** Frames for which the guest had posted too few buffers. */
  rxMissed: number;
  txPackets: number;
  txBytes: number;
  /** Frames that the host changed or checked because the card can't. */
  emulated: number;
}

/** A call ended with a status other than 0. */
export class EthdevError extends Error {
  override readonly name = "EthdevError";
  constructor(
    /** `VdpdkStatus`: a negative error number. */
    readonly status: number,
    what: string,
  ) {
    super(`${what}: ${VdpdkStatus[status] ?? status}`);
  }
}

/** What can be passed to a call; fields of the control page. */
export interface CallArguments {
  queue?: number;
  ring?: bigint;
  size?: number;
  offloads?: number;
  /** Number of a flow rule. */
  rule?: number;
  /** A flow rule, as in `RteFlow` up to INPUT. */
  flow?: Uint8Array;
}

/** How long a call may take on another thread before it counts as unanswered, in milliseconds. */
const ANSWER_MS = 1000;

/** Bytes of guest memory: the control page and two rings. */
export function vdpdkBytes(ring: number): number {
  return VdpdkControl.SIZE + 2 * ring * VdpdkDesc.SIZE;
}

/** Guest memory holds from address 0 on the control page, the receive ring, the transmit ring. */
export class VdpdkDevice implements GuestDevice {
  readonly kind = DriverKind.VDPDK;
  readonly rx: number;
  readonly tx: number;
  /** Device's side: its address, and its queues'. */
  readonly device: number;
  readonly rxQueue: number;
  readonly txQueue: number;
  readonly zeroCopyRx: boolean;
  readonly zeroCopyTx: boolean;
  /** Flow rules that it may have, where that was said. */
  readonly flows: number | undefined;
  readonly #core: Core;
  readonly #offloads: number;
  #requests = 0;

  /** @throws RangeError for a ring that is too short, an offload that there isn't, and where the memory is full */
  constructor(
    readonly memory: GuestMemory,
    readonly ring: number,
    mac: string,
    { vdpdk = {} }: VdpdkOptions,
  ) {
    const { core, name, region, regionSize } = memory;
    if (ring < 8) throw new RangeError(`ring: ${ring}, expected 8 to ${QUEUE_MAX} with attach "vdpdk"`);
    this.#core = core;
    this.#offloads = offloadBits(vdpdk.offloads ?? []);
    this.zeroCopyRx = vdpdk.zeroCopyRx ?? true;
    this.zeroCopyTx = vdpdk.zeroCopyTx ?? true;
    if (vdpdk.flows !== undefined) {
      this.flows = integer("flows", vdpdk.flows, 0, RteFlowTable.MASKS_MAX);
    }
    const device = core.place(Kind.VDPDK_DEVICE, DeviceLayout.SIZE, name, region.id);
    this.device = device.address;
    const control = region.address;
    const queue = (kind: Kind, interrupt: number, signal: number) => {
      const { id, address } = core.place(kind, VdpdkQueue.SIZE, name, device.id);
      core.setFields(address, {
        [VdpdkQueue.id]: id,
        [VdpdkQueue.device]: this.device,
        [VdpdkQueue.base]: region.address,
        [VdpdkQueue.limit]: regionSize,
        [VdpdkQueue.wantsInterrupt]: control + interrupt,
        [VdpdkQueue.wantsSignal]: control + signal,
      });
      return address;
    };
    this.rxQueue = queue(Kind.VDPDK_RX, VdpdkControl.rxWantsInterrupt, VdpdkControl.rxWantsSignal);
    this.txQueue = queue(Kind.VDPDK_TX, VdpdkControl.txWantsInterrupt, VdpdkControl.txWantsSignal);
    core.setFields(this.device, {
      [DeviceLayout.id]: device.id,
      [DeviceLayout.base]: region.address,
      [DeviceLayout.limit]: regionSize,
      [DeviceLayout.control]: control,
      [DeviceLayout.rx]: this.rxQueue,
      [DeviceLayout.tx]: this.txQueue,
    });
    core.setU64(this.device + DeviceLayout.mac, parseMac(mac));
    const driver = () => {
      const { id, address } = core.place(Kind.DRIVER, VdpdkDriver.SIZE, name, region.id);
      core.setU32(address + VdpdkDriver.shadow, core.place(Kind.BYTES, ring * Packet.SIZE, name, id).address);
      return address;
    };
    this.rx = driver();
    this.tx = driver();
  }

  /** A card serves it: it bypasses a switch. */
  get bound(): boolean {
    return this.#core.u32(this.device + DeviceLayout.vmux) !== 0;
  }

  get port(): Readonly<Record<number, number>> | undefined {
    if (this.bound) return undefined;
    return {
      [PortLayout.kind]: PortKind.VDPDK,
      [PortLayout.to]: this.rxQueue,
      [PortLayout.from]: this.txQueue,
      [PortLayout.takes]: TAKES_NOTHING,
    };
  }

  /** Buffers that the guest has posted to receive into and hasn't got back. */
  posted(): number {
    return (this.#core.u32(this.rx + VdpdkDriver.next) - this.#core.u32(this.rx + VdpdkDriver.done)) >>> 0;
  }

  /** The guest's driver starts as DPDK's does: it asks what there is, sets both queues up and starts them. */
  start(): void {
    const core = this.#core;
    const { memory, ring } = this;
    const base = memory.region.address;
    core.bytes.fill(0, base, base + vdpdkBytes(ring));
    core.setU32(this.device + DeviceLayout.served, 0);
    this.#requests = 0;
    const info = this.info();
    const asked = (names: readonly OffloadName[]) => this.#offloads & offloadBits(names);
    const [rx, tx] = [asked(info.rxOffloads), asked(info.txOffloads)];
    const missing = this.#offloads & ~(rx | tx);
    if (missing) {
      const all = [...new Set([...info.rxOffloads, ...info.txOffloads])].join(", ");
      throw new RangeError(
        `offloads: ${offloadNames(missing).join(", ")} of ${memory.name}, expected some of ${all}`,
      );
    }
    this.#start("rx", rx);
    this.#start("tx", tx);
  }

  /** Sets a queue up and starts it; its driver begins with an empty ring. */
  #start(which: "rx" | "tx", offloads: number): void {
    const core = this.#core;
    const { ring } = this;
    const base = this.memory.region.address;
    const receives = which === "rx";
    const at = VdpdkControl.SIZE + (receives ? 0 : ring * VdpdkDesc.SIZE);
    this.run(receives ? VdpdkCall.RX_SETUP : VdpdkCall.TX_SETUP, { ring: BigInt(at), size: ring, offloads });
    // What each frame is sent with; a tag, and TCP's segmentation, are asked for frame by frame.
    const each = Offload.IPV4_CHECKSUM | Offload.UDP_CHECKSUM | Offload.TCP_CHECKSUM;
    core.setFields(receives ? this.rx : this.tx, {
      [VdpdkDriver.ring]: base + at,
      [VdpdkDriver.mask]: ring - 1,
      [VdpdkDriver.next]: 0,
      [VdpdkDriver.done]: 0,
      [VdpdkDriver.first]: 0,
      [VdpdkDriver.offloads]: receives ? 0 : offloads & each,
      [VdpdkDriver.wantsInterrupt]:
        base + (receives ? VdpdkControl.rxWantsInterrupt : VdpdkControl.txWantsInterrupt),
      [VdpdkDriver.wantsSignal]: base + (receives ? VdpdkControl.rxWantsSignal : VdpdkControl.txWantsSignal),
    });
    this.run(receives ? VdpdkCall.RX_START : VdpdkCall.TX_START);
  }

  /** The device is reset: the card ends its DMA and answers. */
  stop(): void {
    const core = this.#core;
    const own = core.u32(this.rxQueue + VdpdkQueue.card);
    if (own) {
      core.setU32(own + RxQueue.enabled, 0);
      core.exports.flushNic(core.u32(this.device + DeviceLayout.nic));
    }
    core.exports.resetVdpdk(this.device);
  }

  /** @internal The guest at `address` drives it. */
  set guest(address: number) {
    for (const driver of [this.rx, this.tx]) this.#core.setU32(driver + VdpdkDriver.guest, address);
  }

  /**
   * An ethdev call, as a guest makes it: arguments into the control page, then one access that the device traps.
   * @param kick where the device runs on another thread: rings for it; then this waits for the answer
   * @returns the call's status, 0 or a negative error number
   * @throws Error where the device doesn't answer within a second; TypeError where this thread must not block
   */
  call(call: number, args: CallArguments = {}, kick?: () => void): number {
    const core = this.#core;
    const control = this.memory.region.address;
    core.setFields(control, {
      [VdpdkControl.call]: call,
      [VdpdkControl.queue]: args.queue ?? 0,
      [VdpdkControl.size]: args.size ?? 0,
      [VdpdkControl.offloads]: args.offloads ?? 0,
      [VdpdkControl.rule]: args.rule ?? 0,
    });
    if (args.flow) core.bytes.set(args.flow, control + VdpdkControl.flow);
    core.setU64(control + VdpdkControl.ring, args.ring ?? 0n);
    if (!kick) return core.exports.callVdpdk(this.device);
    const words = new Int32Array(core.memory.buffer);
    const answered = (control + VdpdkControl.answered) >> 2;
    const request = ++this.#requests;
    Atomics.store(words, (control + VdpdkControl.request) >> 2, request);
    kick();
    for (const end = performance.now() + ANSWER_MS; Atomics.load(words, answered) !== request; ) {
      if (performance.now() > end) {
        throw new Error(`${this.memory.name}: its device doesn't answer within ${ANSWER_MS} ms`);
      }
      Atomics.wait(words, answered, Atomics.load(words, answered), 1);
    }
    return core.view.getInt32(control + VdpdkControl.status, true);
  }

  /** The same, for a call that has to succeed. @throws EthdevError */
  run(call: VdpdkCall, args: CallArguments = {}, kick?: () => void): void {
    const status = this.call(call, args, kick);
    if (status) throw new EthdevError(status, `${this.memory.name}: ${VdpdkCall[call]}`);
  }

  info(kick?: () => void): EthdevInfo {
    this.run(VdpdkCall.INFO, {}, kick);
    const at = (field: VdpdkInfo) => this.#result(field);
    return {
      mtu: at(VdpdkInfo.mtu),
      rxQueues: at(VdpdkInfo.rxQueues),
      txQueues: at(VdpdkInfo.txQueues),
      ring: { least: at(VdpdkInfo.ringMin), most: at(VdpdkInfo.ringMax) },
      rxOffloads: offloadNames(at(VdpdkInfo.rxOffloads)),
      txOffloads: offloadNames(at(VdpdkInfo.txOffloads)),
      native: { rx: offloadNames(at(VdpdkInfo.rxNative)), tx: offloadNames(at(VdpdkInfo.txNative)) },
      rssTable: at(VdpdkInfo.rssTable),
      segments: at(VdpdkInfo.segments),
      flows: { most: at(VdpdkInfo.flows), native: at(VdpdkInfo.flowsNative) === 1 },
    };
  }

  stats(kick?: () => void): EthdevStats {
    this.run(VdpdkCall.STATS, {}, kick);
    const at = (field: VdpdkStats) =>
      this.#core.counter(this.memory.region.address + VdpdkControl.results + field);
    return {
      rxPackets: at(VdpdkStats.rxPackets),
      rxBytes: at(VdpdkStats.rxBytes),
      rxMissed: at(VdpdkStats.rxMissed),
      txPackets: at(VdpdkStats.txPackets),
      txBytes: at(VdpdkStats.txBytes),
      emulated: at(VdpdkStats.emulated),
    };
  }

  /** What a flow call has left. */
  get flowResult(): { id: number; refusal: RteFlowRefusal; hits: number; bytes: number } {
    const count = (field: VdpdkFlowResult) =>
      this.#core.counter(this.memory.region.address + VdpdkControl.results + field);
    return {
      id: this.#result(VdpdkFlowResult.id),
      refusal: this.#result(VdpdkFlowResult.refusal),
      hits: count(VdpdkFlowResult.hits),
      bytes: count(VdpdkFlowResult.bytes),
    };
  }

  #result(field: number): number {
    return this.#core.u32(this.memory.region.address + VdpdkControl.results + field);
  }
}
