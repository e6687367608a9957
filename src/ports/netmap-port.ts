/**
 * A netmap port for JavaScript (netmap.h): rings of slots, buffers by number, one call for a batch. It is a port of a
 * switch, or one end of a pipe.
 *
 *     const { tx } = port;
 *     for (const frame of frames.slice(0, tx.space)) {
 *       tx.buffer(tx.head).set(frame);
 *       tx.slot(tx.head).len = frame.length;
 *       tx.head = tx.cur = tx.next(tx.head);
 *     }
 *     port.txsync();
 */
import {
  FRAME_MAX,
  FRAME_MIN,
  Kind,
  Kring,
  LINE,
  NETMAP_FIRST,
  PortKind,
  Port as PortLayout,
  NetmapRing as RingLayout,
  NetmapSlot as SlotLayout,
  TAKES_NOTHING,
} from "../../assembly/layout.ts";
import { align } from "../core/access.ts";
import type { Core } from "../core/core.ts";
import type { HostMemory } from "../core/host-memory.ts";
import { createKring, netmapRingBytes, type Ownership, startKring } from "../core/netmap.ts";
import type { Buffers } from "../core/pool.ts";
import { integer, powerOfTwo } from "../options.ts";
import type { FramePort } from "./frame-port.ts";

export interface NetmapOptions {
  /** Slots in each ring, a power of two up to 4096; default 256. One of them is always the host's. */
  ring?: number;
  /** Bytes of a buffer; default 2048. A longer frame takes several slots (`NS.MOREFRAG`). */
  bufferSize?: number;
  /**
   * The host's own stack behind a port on a switch: it gets received frames whose slots are given back with `NS.FORWARD`,
   * and what it pushes goes out of this port. It is connected nowhere else.
   */
  stack?: FramePort;
  /** Buffers besides those in the slots: `NetmapPort.extra`; default 0. */
  extra?: number;
}

/** Flags of a slot, NS_* in netmap.h. */
export const NS = {
  /** `bufIdx` was changed. */
  BUF_CHANGED: 1,
  /** Notify when this has been sent. */
  REPORT: 2,
  /** Received: hand it on to the host's own stack. */
  FORWARD: 4,
  /** The switch isn't to learn its source. */
  NO_LEARN: 8,
  /** The frame is at `ptr`, in the port's memory, not in the buffer. */
  INDIRECT: 16,
  /** The next slot continues this frame: at most 64 slots. */
  MOREFRAG: 32,
} as const;

/** A slot: a view of it in the ring. */
export class NetmapSlot {
  /** @internal */
  constructor(
    readonly core: Core,
    readonly address: number,
  ) {}

  /** Number of its buffer. To move a frame without a copy exchange the numbers of two slots, and say so in their flags. */
  get bufIdx(): number {
    return this.core.u32(this.address + SlotLayout.bufIdx);
  }
  set bufIdx(index: number) {
    this.core.setU32(this.address + SlotLayout.bufIdx, index);
  }
  get len(): number {
    return this.core.u16(this.address + SlotLayout.len);
  }
  set len(bytes: number) {
    this.core.setU16(this.address + SlotLayout.len, bytes);
  }
  /** `NS` */
  get flags(): number {
    return this.core.u16(this.address + SlotLayout.flags);
  }
  set flags(flags: number) {
    this.core.setU16(this.address + SlotLayout.flags, flags);
  }
  /** With `NS.INDIRECT`: where the frame is, in bytes from `NetmapPort.memory`'s begin. */
  get ptr(): bigint {
    return this.core.view.getBigUint64(this.address + SlotLayout.ptr, true);
  }
  set ptr(address: bigint) {
    this.core.setU64(this.address + SlotLayout.ptr, address);
  }
}

/**
 * A ring as its user sees it. The slots from `head` up to before `tail` are yours: frames that were received, or room for
 * frames to send. Set `head` behind those that you have done with, `cur` behind those that you have looked at, and sync.
 */
export class NetmapRing {
  head = 0;
  cur = 0;
  readonly #core: Core;
  readonly #words: Int32Array;
  readonly #slots: readonly NetmapSlot[];
  #tail = 0;

  /** @internal */
  constructor(
    core: Core,
    /** Address of the ring that both sides share, and of the host's side. */
    readonly address: number,
    readonly kring: number,
    readonly numSlots: number,
    readonly buffers: Buffers,
  ) {
    this.#core = core;
    this.#words = new Int32Array(core.memory.buffer);
    this.#slots = Array.from(
      { length: numSlots },
      (_, i) => new NetmapSlot(core, address + RingLayout.slots + i * SlotLayout.SIZE),
    );
    this.#tail = this.#load(RingLayout.hwtail);
  }

  /** First slot that is the host's, as the last sync found it. */
  get tail(): number {
    return this.#tail;
  }
  /** Slots that are yours. */
  get space(): number {
    return (this.#tail - this.head + this.numSlots) % this.numSlots;
  }
  /** The slot behind slot `i`. */
  next(i: number): number {
    return i + 1 === this.numSlots ? 0 : i + 1;
  }
  /** @throws RangeError for a slot that there isn't */
  slot(i: number): NetmapSlot {
    const slot = this.#slots[i];
    if (!slot) throw new RangeError(`slot ${i}, expected 0 to ${this.numSlots - 1}`);
    return slot;
  }
  /**
   * The whole buffer of slot `i`, a view of the memory.
   * @throws RangeError for a slot that there isn't, and one with the number of no buffer
   */
  buffer(i: number): Uint8Array {
    const { address, stride, room, count } = this.buffers;
    const { bufIdx } = this.slot(i);
    if (bufIdx < NETMAP_FIRST || bufIdx - NETMAP_FIRST >= count) {
      throw new RangeError(
        `slot ${i}: buffer ${bufIdx}, expected ${NETMAP_FIRST} to ${NETMAP_FIRST + count - 1}`,
      );
    }
    const at = address + (bufIdx - NETMAP_FIRST) * stride;
    return this.#core.bytes.subarray(at, at + room);
  }

  /** @internal Publishes `head` and `cur`; whether the host wants to be told of it. */
  handOver(): boolean {
    Atomics.store(this.#words, (this.address + RingLayout.cur) >> 2, this.cur);
    Atomics.store(this.#words, (this.address + RingLayout.head) >> 2, this.head);
    return this.#load(RingLayout.hostNeedKick) !== 0;
  }

  /** @internal Takes note of what the host gave back, and of indices that it has put right. */
  takeNote(): void {
    this.#tail = this.#load(RingLayout.hwtail);
    this.head = this.#load(RingLayout.head);
    this.cur = this.#load(RingLayout.cur);
  }

  #load(field: RingLayout): number {
    return Atomics.load(this.#words, (this.address + field) >> 2);
  }
}

/** A pair of rings, on a switch or at the end of a pipe. */
export class NetmapPort {
  readonly tx: NetmapRing;
  readonly rx: NetmapRing;
  /** Numbers of the buffers that are in no slot: yours to put into one. */
  readonly extra: readonly number[];
  /** The port's memory: rings, then buffers; `NetmapSlot.ptr` counts from its begin. */
  readonly memory: Uint8Array;
  /** The host's own stack behind it. */
  readonly stack: FramePort | undefined;
  #peer: NetmapPort | undefined;

  /** @internal Use `host.netmap()` or `host.netmapPipe()`. */
  constructor(
    readonly host: HostMemory,
    readonly name: string,
    memory: NetmapMemory,
    /** 0, or 1 for the second end of a pipe. */
    end: number,
    stack?: FramePort,
  ) {
    const { core } = host;
    this.stack = stack;
    const { ring, buffers, extra, ownership } = memory;
    const at = memory.address + 2 * end * netmapRingBytes(ring);
    const numbers = Array.from({ length: 2 * ring + extra }, (_, i) => end * (2 * ring + extra) + i);
    const region = { address: memory.address, bytes: ownership ? 0 : memory.bytes };
    const mine: { ownership?: Ownership } = ownership
      ? { ownership: { owners: ownership, owner: end + 1 } }
      : {};
    const make = (transmit: boolean): NetmapRing => {
      const kring = createKring(core, name);
      const address = at + (transmit ? netmapRingBytes(ring) : 0);
      const own = numbers.slice(transmit ? ring : 0, transmit ? 2 * ring : ring);
      startKring(core, kring, address, ring, transmit, buffers, own, { region, ...mine });
      return new NetmapRing(core, address, kring, ring, buffers);
    };
    this.rx = make(false);
    this.tx = make(true);
    if (stack) {
      core.setFields(this.rx.kring, { [Kring.toStack]: stack.fromHost, [Kring.fromStack]: stack.toHost });
    }
    this.extra = numbers.slice(2 * ring).map((index) => index + NETMAP_FIRST);
    if (ownership) for (const index of numbers.slice(2 * ring)) core.bytes[ownership + index] = end + 1;
    this.memory = core.bytes.subarray(memory.address, memory.address + memory.bytes);
  }

  /** @internal Both are the ends of one pipe. */
  static join(a: NetmapPort, b: NetmapPort): void {
    a.#peer = b;
    b.#peer = a;
  }

  /** The other end of a pipe; nothing where it is no pipe's. */
  get peer(): NetmapPort | undefined {
    return this.#peer;
  }

  /**
   * Sends what stands before `tx.head`. A pipe's slots are swapped into the other end's receive ring at once, as far as that
   * has room; a switch takes them at its next turn.
   * @returns slots of `tx` that are yours now
   */
  txsync(): number {
    const wanted = this.tx.handOver();
    if (this.#peer) this.host.core.exports.syncPipe(this.tx.kring, this.#peer.rx.kring);
    else if (wanted) this.host.core.exports.ringFor(this.#bell);
    this.host.wake();
    this.tx.takeNote();
    return this.tx.space;
  }

  /**
   * Gives back the slots before `rx.head`, and looks what has come.
   * @returns slots of `rx` that are yours now
   */
  rxsync(): number {
    if (this.rx.handOver()) this.host.core.exports.ringFor(this.#bell);
    if (this.stack) this.host.wake();
    this.rx.takeNote();
    return this.rx.space;
  }

  /** @internal The switch port's fields (layout: `Port`). */
  get port(): Readonly<Record<number, number>> {
    return {
      [PortLayout.kind]: PortKind.NETMAP,
      [PortLayout.to]: this.rx.kring,
      [PortLayout.from]: this.tx.kring,
      [PortLayout.takes]: TAKES_NOTHING,
    };
  }

  /** @internal The poller that is rung for when there is something to send. */
  set bell(poller: number) {
    this.#bell = poller;
  }
  #bell = 0;

  /** Host's sides of its rings. */
  get krings(): readonly number[] {
    return [this.rx.kring, this.tx.kring];
  }
}

/** The memory of a port, or of both ends of a pipe: rings, then buffers. */
export interface NetmapMemory {
  readonly address: number;
  readonly bytes: number;
  readonly ring: number;
  readonly extra: number;
  readonly buffers: Buffers;
  /** Of a pipe: u8 by buffer, which end owns it, 1 or 2; else 0. */
  readonly ownership: number;
}

/**
 * @param ends 1, or 2 for a pipe
 * @throws RangeError for an option out of range, and naming `what` where the memory is full
 */
export function createNetmapMemory(
  core: Core,
  ends: number,
  options: NetmapOptions,
  what: string,
): NetmapMemory {
  const ring = powerOfTwo("ring", options.ring ?? 256, 4096, 2);
  const room = integer("bufferSize", options.bufferSize ?? 2048, FRAME_MIN, FRAME_MAX);
  const extra = integer("extra", options.extra ?? 0, 0, 16384);
  const count = ends * (2 * ring + extra);
  const first = 2 * ends * netmapRingBytes(ring);
  const stride = align(room, LINE);
  const bytes = first + count * stride;
  const { id, address } = core.place(Kind.BYTES, bytes, what);
  const ownership = ends > 1 ? core.place(Kind.BYTES, count, what, id).address : 0;
  const buffers = { address: address + first, stride, room, count };
  return { address, bytes, ring, extra, buffers, ownership };
}
