/** The network card (layout: `Nic`, `RxQueue`, `TxQueue`): its wire side, for JavaScript, and its filters. */
import {
  BURST_MAX,
  FRAME_MAX,
  FRAME_ROOM,
  PciFunction as FunctionLayout,
  Kind,
  Lcore,
  Nic as NicLayout,
  NicMode,
  Packet,
  PacketFlag,
  RSS_TABLE_SIZE,
  RxQueue,
  Switch as SwitchLayout,
  TxQueue,
  VDPDK_SEGMENTS,
} from "../../assembly/layout.ts";
import type { HostMemory } from "../core/host-memory.ts";
import { createMacTable, entriesFor } from "../core/mac-table.ts";
import { framesAt } from "../core/packet.ts";
import { createRing } from "../core/ring.ts";
import { localMac, parseMac } from "../mac.ts";
import { type OffloadName, offloadBits } from "../offloads.ts";
import { integer, powerOfTwo } from "../options.ts";
import { EmbeddedSwitch, LIMITS, type PciFunction, type VfOptions } from "./pci-function.ts";
import { NicFlow } from "./rte-flow.ts";

/** How a card's receive queues are served. */
export type NicModeName = "poll" | "interrupt" | "adaptive";

export interface NicOptions {
  /**
   * "poll": without end, until an lcore finds nothing for long; "interrupt": `budget` frames for each interrupt, then it is
   * unmasked again; "adaptive": polled under load, after 300 empty polls left until an interrupt (DPDK's l3fwd-power).
   * Default "poll"; a guest that is attached by "kernel" makes it "interrupt" for frames that no filter names.
   */
  mode?: NicModeName;
  /** Frames taken from a receive queue at a time, or for one interrupt (NAPI's weight), 1 to 256; default the switch's burst. */
  budget?: number;
  /** Descriptors in each receive and transmit ring, a power of two; default 256. */
  ring?: number;
  /**
   * The same for the receive ring of one guest's own, mapped or by VMDq; default `ring`. A mapped one can use no more than
   * the guest's has.
   */
  mappedRing?: number;
  /** Most receive queues, up to 1024; default 64. A guest that is mapped has one of its own. */
  queues?: number;
  /**
   * Receive queues that share what no filter names, by the RSS hash of a frame's flow, 1 to 128; default 1. Frames
   * that aren't IP go to queue 0.
   */
  rssQueues?: number;
  /** Most virtual functions, up to 256; default 64. */
  vfs?: number;
  /** Bytes of the packet buffer that frames of its functions wait in for the wire; default 1 MiB. */
  packetBuffer?: number;
  /**
   * What the card does to frames by itself, in its own time, for guests that ask for it (attach "vdpdk"), beside RSS and
   * frames of several buffers, which it always can; default nothing.
   */
  offloads?: readonly OffloadName[];
  /** Toeplitz key of the RSS hash, 40 bytes; default Microsoft's, which its test vectors are for. */
  rssKey?: Uint8Array;
  /**
   * Whether the card follows rte_flow's rules (`Nic.flow`); default true. Else its driver does, which has to read each
   * frame: while there are rules, guests attached by "iovtee" get copies.
   */
  flowOffload?: boolean;
  /** Most rules, a power of two up to 16384; default 1024. */
  flowRules?: number;
}

const MODES: Record<NicModeName, NicMode> = {
  poll: NicMode.POLL,
  interrupt: NicMode.INTERRUPT,
  adaptive: NicMode.ADAPTIVE,
};

/** The key of the verification suite of "RSS hashing types" (Microsoft, NDIS), as most drivers have it. */
// biome-ignore format: rows of ten
const RSS_KEY = Uint8Array.of(
  0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67,
  0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
  0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
  0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
);

/** A network card. Its wire is JavaScript, or a `FrameGenerator`. */
export class Nic {
  readonly address: number;
  /** Descriptors in each receive ring; the transmit ring has twice as many. */
  readonly ring: number;
  /** Where frames wait for the card: descriptors, then the frames. */
  readonly #staging: number;
  readonly #queues: number;
  readonly #mappedRing: number;
  /** As asked for. */
  readonly #mode: NicModeName | undefined;
  readonly #budget: number | undefined;
  readonly #vfs: number;
  readonly #packetBuffer: number;
  /** Made when the first guest is to own a function of the card. */
  #embedded: EmbeddedSwitch | undefined;
  /** The port as a function, where a guest has it all. */
  #port: PciFunction | undefined;
  /** @internal Name of the switch that it is connected to. */
  connectedTo: string | undefined;
  readonly #flowOffload: boolean;
  /** Rules that name a frame's queue and mark by what its headers say, or drop it. */
  readonly flow: NicFlow;
  static readonly STAGED = 256;

  /** @internal Use `host.nic()`. */
  constructor(
    readonly host: HostMemory,
    readonly name: string,
    options: NicOptions,
  ) {
    const { core } = host;
    this.ring = powerOfTwo("ring", options.ring ?? 256, 4096);
    this.#mappedRing = powerOfTwo("mappedRing", options.mappedRing ?? this.ring, 4096);
    this.#vfs = integer("vfs", options.vfs ?? 64, 0, LIMITS.functions);
    this.#packetBuffer = integer(
      "packetBuffer",
      options.packetBuffer ?? 2 ** 20,
      LIMITS.packetBuffer,
      2 ** 30,
    );
    const queues = integer("queues", options.queues ?? 64, 1, 1024);
    const rssQueues = integer("rssQueues", options.rssQueues ?? 1, 1, Math.min(queues, RSS_TABLE_SIZE));
    if (options.mode !== undefined && MODES[options.mode] === undefined) {
      throw new RangeError(`mode: "${options.mode}", expected "poll", "interrupt" or "adaptive"`);
    }
    this.#mode = options.mode;
    if (options.budget !== undefined) this.#budget = integer("budget", options.budget, 1, BURST_MAX);
    const rssKey = options.rssKey ?? RSS_KEY;
    if (rssKey.length !== RSS_KEY.length) {
      throw new RangeError(`rssKey: ${rssKey.length} bytes, expected ${RSS_KEY.length}`);
    }
    const { id, address } = core.place(Kind.NIC, NicLayout.SIZE, name);
    const rss = core.place(Kind.BYTES, RSS_TABLE_SIZE + rssKey.length, name, id).address;
    for (let i = 0; i < RSS_TABLE_SIZE; i++) core.bytes[rss + i] = i % rssQueues;
    core.bytes.set(rssKey, rss + RSS_TABLE_SIZE);
    this.address = address;
    this.#queues = queues;
    this.#flowOffload = options.flowOffload ?? true;
    const rules = powerOfTwo("flowRules", options.flowRules ?? 1024, 16384);
    this.flow = new NicFlow(host, this, rules, this.#flowOffload);
    core.setFields(address, {
      [NicLayout.id]: id,
      [NicLayout.rxTable]: core.place(Kind.BYTES, 4 * queues, name, id).address,
      [NicLayout.filters]: createMacTable(core, entriesFor(queues), name, id),
      [NicLayout.rssQueues]: rssQueues,
      [NicLayout.rssTable]: rss,
      [NicLayout.rssKey]: rss + RSS_TABLE_SIZE,
      [NicLayout.offloads]: offloadBits([...(options.offloads ?? []), "rss", "multiSegment"]),
    });
    // What is changed before it's sent: one frame, and the descriptors that it is made of.
    const assembly = FRAME_ROOM + VDPDK_SEGMENTS * Packet.SIZE;
    core.setU32(address + NicLayout.assembly, core.place(Kind.BYTES, assembly, name, id).address);
    this.#addTxQueue(2 * this.ring);
    for (let i = 0; i < rssQueues; i++) {
      core.exports.refillRxQueue(this.#addRxQueue(this.ring, { [RxQueue.enabled]: 1 }), 0);
    }
    this.#staging = core.place(Kind.BYTES, Nic.STAGED * (Packet.SIZE + FRAME_ROOM), name).address;
  }

  #addTxQueue(ring: number): void {
    const { core } = this.host;
    const { id, address } = core.place(Kind.TX_QUEUE, TxQueue.SIZE, this.name, this.#id);
    core.setFields(address, {
      [TxQueue.id]: id,
      [TxQueue.ring]: core.place(Kind.BYTES, ring * Packet.SIZE, this.name, id).address,
      [TxQueue.mask]: ring - 1,
    });
    core.setFields(this.address, { [NicLayout.tx]: address, [NicLayout.wire]: address });
  }

  /**
   * One more receive queue of `ring` descriptors, without buffers yet; `fields`: what `RxQueue` holds besides.
   * @returns its address
   */
  #addRxQueue(ring: number, fields: Readonly<Record<number, number>>): number {
    const { core, pool } = this.host;
    const index = core.u32(this.address + NicLayout.rxQueues);
    if (index === this.#queues) {
      throw new RangeError(`${this.name}: ${index} receive queues already, expected "queues" to be larger`);
    }
    const { id, address } = core.place(Kind.RX_QUEUE, RxQueue.SIZE, this.name, this.#id);
    core.setFields(address, {
      [RxQueue.id]: id,
      [RxQueue.ring]: core.place(Kind.BYTES, ring * Packet.SIZE, this.name, id).address,
      [RxQueue.mask]: ring - 1,
      [RxQueue.nic]: this.address,
      [RxQueue.pool]: pool,
      [RxQueue.index]: index,
      [RxQueue.mode]: MODES[this.#mode ?? "poll"],
      [RxQueue.budget]: this.#budget ?? 0,
      ...fields,
    });
    if (!this.#flowOffload) {
      // What the driver's rules bring here: as much as comes in on a few queues while this one isn't polled.
      const brought = createRing(core, 4 * this.ring, { what: this.name, parent: id });
      core.setU32(address + RxQueue.brought, brought.address);
    }
    core.setU32(core.u32(this.address + NicLayout.rxTable) + 4 * index, address);
    core.setU32(this.address + NicLayout.rxQueues, index + 1);
    return address;
  }

  get #id(): number {
    return this.host.core.u32(this.address + NicLayout.id);
  }

  /** Address of receive queue `index`. */
  rxQueue(index: number): number {
    const { core } = this.host;
    return core.u32(core.u32(this.address + NicLayout.rxTable) + 4 * index);
  }

  /**
   * @internal One more receive queue, of host buffers, for one guest: interrupt-driven, `burst` frames for each interrupt,
   * unless the card's options say otherwise.
   * @returns its address
   * @throws RangeError where there are as many as there may be, or the memory is full
   */
  addSortedQueue(burst: number): number {
    const queue = this.#addRxQueue(this.#mappedRing, {
      [RxQueue.enabled]: 1,
      [RxQueue.mode]: MODES[this.#mode ?? "interrupt"],
      [RxQueue.budget]: this.#budget ?? burst,
    });
    this.host.core.exports.refillRxQueue(queue, 0);
    return queue;
  }

  /**
   * @internal The receive queues for what no filter names are interrupt-driven from now on, `napi` frames for each
   * interrupt, unless the card's options say otherwise.
   * @throws RangeError where another guest of the same card needs another number
   */
  interruptDriven(napi: number, guest: string): void {
    const { core } = this.host;
    for (let i = 0; i < core.u32(this.address + NicLayout.rssQueues); i++) {
      const queue = this.rxQueue(i);
      if (this.#mode === undefined) core.setU32(queue + RxQueue.mode, NicMode.INTERRUPT);
      if (this.#budget !== undefined) continue;
      const budget = core.u32(queue + RxQueue.budget);
      if (budget !== 0 && budget !== napi) {
        throw new RangeError(
          `napi: ${napi} of ${guest}, expected ${budget} as of the other guests of ${this.name} that are attached by "kernel"`,
        );
      }
      core.setU32(queue + RxQueue.budget, napi);
    }
  }

  /**
   * @internal One more receive queue, whose buffers are those of the IOVTee mapping at `mapping`: in front of a
   * frame the card leaves `offset` bytes free.
   * @returns its address
   * @throws RangeError where there are as many as there may be, or the memory is full
   */
  addMappedQueue(mapping: number, offset: number): number {
    return this.#addRxQueue(this.#mappedRing, { [RxQueue.mapping]: mapping, [RxQueue.offset]: offset });
  }

  /** Virtual functions that there are. */
  get vfs(): readonly PciFunction[] {
    return this.#port ? [] : (this.#embedded?.functions ?? []);
  }

  /**
   * A virtual function more, while the card runs: for a guest that is attached by "sriov". The card's own switch sorts to it
   * by MAC address and VLAN; frames for no function go to the host's queues as before.
   * @throws RangeError where the card has as many as it can, for options out of range, for a port that a guest has as a whole,
   *   and where the memory is full
   */
  createVf(options: VfOptions = {}): PciFunction {
    this.#notPassedThrough();
    const embedded = this.#embed();
    const vf = embedded.add((index) => `${this.name}.vf${index - 1}`);
    try {
      vf.set({ mac: localMac(1, vf.index), spoofCheck: true, link: true, ...options });
    } catch (error) {
      embedded.remove(vf);
      vf.destroy();
      throw error;
    }
    return vf;
  }

  /**
   * Takes a virtual function away, while the card runs. What was in its rings is gone with it, and the guest that had it is
   * without a network from now on.
   * @throws RangeError for one that this card hasn't
   */
  destroyVf(vf: PciFunction): void {
    if (!this.vfs.includes(vf)) throw new RangeError(`${vf.name}: no function of ${this.name}`);
    this.host.paused(() => {
      vf.stop();
      this.#embedded?.remove(vf);
      vf.destroy();
    });
  }

  /**
   * @internal The whole port as a function, for a guest with passthrough.
   * @throws RangeError where it is a guest's already, has virtual functions, or is connected to a switch
   */
  passThrough(): PciFunction {
    this.#notPassedThrough();
    if (this.vfs.length > 0) {
      throw new RangeError(
        `${this.name}: has ${this.vfs.length} virtual functions, expected none for "passthrough"`,
      );
    }
    if (this.connectedTo) {
      throw new RangeError(
        `${this.name}: connected to ${this.connectedTo}, expected a card of the guest's own for "passthrough"`,
      );
    }
    const embedded = this.#embed();
    const port = embedded.add(() => this.name);
    this.host.core.setU32(port.address + FunctionLayout.up, 1);
    embedded.own(port);
    this.#port = port;
    return port;
  }

  /** @internal @throws RangeError where a guest has the whole port */
  connect(to: string | undefined): void {
    if (to) this.#notPassedThrough();
    this.connectedTo = to;
  }

  #notPassedThrough(): void {
    if (!this.#port) return;
    throw new RangeError(
      `${this.name}: its port is ${this.#port.guest}'s by "passthrough", expected another card, or "sriov" to share one`,
    );
  }

  #embed(): EmbeddedSwitch {
    const { core } = this.host;
    this.#embedded ??= new EmbeddedSwitch(core, this.address, this.name, this.#vfs, this.#packetBuffer);
    return this.#embedded;
  }

  /** Of a card with functions: copies that it made from one of them to another, inside itself, and their bytes. */
  get cardCopies(): { cardCopies: number; cardCopiedBytes: number } | undefined {
    return this.#embedded?.copies;
  }

  /** Its functions that guests own, the whole port too. */
  get functions(): readonly PciFunction[] {
    return this.#embedded?.functions ?? [];
  }

  /** @internal Where a descriptor can be put while something is set up. */
  get scratch(): number {
    return this.#staging;
  }

  /**
   * @internal A receive queue for a bridge: it has as many descriptors as the card's others, `most` at most, and gets its
   * buffers from `pool`.
   * @returns its address
   */
  addBridgedQueue(bridge: number, pool: number, most: number): number {
    return this.#addRxQueue(Math.min(this.ring, most), { [RxQueue.bridge]: bridge, [RxQueue.pool]: pool });
  }

  /**
   * @internal One more receive queue, of `ring` descriptors, for a guest's buffers alone; frames to groups are copied to it
   * by the card.
   * @returns its address
   * @throws RangeError as `addMappedQueue` does
   */
  addGuestQueue(ring: number): number {
    return this.#addRxQueue(ring, { [RxQueue.groups]: 1, [RxQueue.guest]: 1 });
  }

  /**
   * Frames arrive from the wire: Ethernet from the destination MAC on, without FCS. They are copied.
   * @returns how many the card had buffers for; the others are counted in `stats()`
   */
  receive(frames: readonly Uint8Array[]): number {
    const { core } = this.host;
    let taken = 0;
    for (let start = 0; start < frames.length; start += Nic.STAGED) {
      const some = frames.slice(start, start + Nic.STAGED);
      some.forEach((frame, i) => {
        const p = this.#staging + i * Packet.SIZE;
        const to = this.#staging + Nic.STAGED * Packet.SIZE + i * FRAME_ROOM;
        const length = Math.min(frame.length, FRAME_MAX + 1); // one more than allowed: the card counts it
        core.bytes.set(frame.length > length ? frame.subarray(0, length) : frame, to);
        core.setU32(p + Packet.addr, to);
        core.setU32(p + Packet.len, length);
      });
      taken += core.exports.receive(this.address, this.#staging, some.length);
    }
    this.host.wake();
    return taken;
  }

  /**
   * What the card has to send: views of the host's memory. A frame of several segments is put together in a copy. A card
   * with functions reads what they send as far as its packet buffer has room, and hands on what is for others of them.
   */
  toTransmit(): Uint8Array[] {
    this.host.tick();
    return this.#queued(this.host.core.exports.toTransmit(this.address));
  }

  /** The first `n` descriptors that are for the wire, as frames. */
  #queued(n: number): Uint8Array[] {
    const { core } = this.host;
    const queue = core.u32(this.address + NicLayout.wire);
    const ring = core.u32(queue + TxQueue.ring);
    const mask = core.u32(queue + TxQueue.mask);
    const head = core.u32(queue + TxQueue.head);
    const at = (i: number) => ring + ((head + i) & mask) * Packet.SIZE;
    const plain: Uint8Array[] = [];
    let first = 0;
    for (let i = 0; i < n; i++) {
      if (!(core.u16(at(i) + Packet.flags) & PacketFlag.TX_OFFLOADS)) continue;
      plain.push(...framesAt(core, i - first, (k) => at(first + k)), ...this.#assembled(i));
      while (core.u16(at(i) + Packet.flags) & PacketFlag.MORE) i++;
      first = i + 1;
    }
    return [...plain, ...framesAt(core, n - first, (k) => at(first + k))];
  }

  /** Copies of the frames that the card makes of the one at its queued descriptor `i`. */
  #assembled(i: number): Uint8Array[] {
    const { core } = this.host;
    const at = core.u32(this.address + NicLayout.assembly);
    const frames: Uint8Array[] = [];
    for (let k = 0; ; k++) {
      const bytes = core.exports.assemble(this.address, i, k);
      if (bytes === 0) return frames;
      frames.push(core.bytes.slice(at, at + bytes));
    }
  }

  /**
   * Sends what `toTransmit` says: to `sink`, whose views are valid only during the call.
   * @returns how many frames were sent
   */
  transmit(sink?: (frames: Uint8Array[]) => void): number {
    const { core } = this.host;
    this.host.tick();
    const n = core.exports.toTransmit(this.address);
    const frames = this.#queued(n);
    if (frames.length > 0) sink?.(frames);
    core.exports.transmitted(this.address, n);
    return frames.length;
  }

  /**
   * Sleeps until the card has something to send, or this thread is rung for otherwise: for a host whose switch runs on a
   * worker, and whose guests do. Not on a browser's main thread, which must not block.
   * @returns whether the card has something to send: not so after `timeout` milliseconds, or where a guest that is left to
   *   this thread has work (then `host.poll()` is due)
   * @throws TypeError where this thread must not block
   */
  wait(timeout = Number.POSITIVE_INFINITY): boolean {
    const { core, lcore } = this.host;
    const words = new Int32Array(core.memory.buffer);
    const at = (address: number) => address >> 2;
    const armed = at(core.u32(this.address + NicLayout.tx) + TxQueue.armed);
    const end = performance.now() + timeout;
    // As assembly/doorbell.ts says: ask, look once more, sleep unless the doorbell has moved.
    const seen = Atomics.load(words, at(lcore + Lcore.doorbell));
    Atomics.store(words, armed, 1);
    Atomics.store(words, at(lcore + Lcore.asleep), 1);
    try {
      let left = timeout;
      // Frames over a function's rate are due when time has passed: nobody rings for that.
      const slice = this.functions.some(({ rate }) => rate > 0) ? 1 : Number.POSITIVE_INFINITY;
      while (core.exports.toTransmit(this.address) === 0 && left > 0) {
        Atomics.wait(words, at(lcore + Lcore.doorbell), seen, Math.min(left, slice));
        this.host.tick();
        left = Atomics.load(words, at(lcore + Lcore.doorbell)) === seen ? end - performance.now() : 0;
      }
    } finally {
      Atomics.store(words, at(lcore + Lcore.asleep), 0);
      Atomics.store(words, armed, 0);
    }
    return core.exports.toTransmit(this.address) > 0;
  }

  /**
   * Frames for `mac` (and `vlan`, 0 for any) go to receive queue `queue`; the switch is told port `port`.
   * @throws RangeError for a queue that there isn't, and where the card has no place for one more filter
   */
  steer(mac: string, vlan: number, queue: number, port: number): void {
    const { core } = this.host;
    integer("queue", queue, 0, core.u32(this.address + NicLayout.rxQueues) - 1);
    integer("port", port, -1, SwitchLayout.PORTS_MAX - 1);
    const filters = core.u32(this.address + NicLayout.filters);
    if (!core.exports.setMac(filters, parseMac(mac), vlan, queue | ((port + 1) << 16))) {
      throw new RangeError(`filter for ${mac}: the card has no place left for it`);
    }
  }

  /** Undoes `steer`: such frames go to queue 0 again. */
  unsteer(mac: string, vlan = 0): void {
    const { core } = this.host;
    core.exports.removeMac(core.u32(this.address + NicLayout.filters), parseMac(mac), vlan);
  }
}
