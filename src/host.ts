/**
 * A host: one memory, and the NICs, guests and switch in it.
 *
 *     const host = await Host.create();
 *     const nic = host.nic();
 *     const guest = host.guest({ attach: "iovtee", run: "macswap" });
 *     const sw = host.vswitch({ connect: [nic, guest] });
 *     nic.receive([frame]);
 *     host.poll();
 *     nic.transmit((frames) => ...);
 */
import {
  BUFFER_ROOM,
  Directory,
  Drop,
  Feature,
  FRAME_MAX,
  GuestFunction,
  Guest as GuestLayout,
  HEADROOM,
  Kind,
  Mapping,
  NetHeader,
  Nic as NicLayout,
  OnEmpty,
  PAGE,
  Packet,
  PacketFlag,
  PortKind,
  Port as PortLayout,
  QUEUE_MAX,
  Refusal,
  Ring,
  Rule,
  RxQueue,
  Switch as SwitchLayout,
  TxQueue,
  Virtqueue,
} from "../assembly/layout.ts";
import { Core } from "./core/core.ts";
import { localMac, parseMac } from "./mac.ts";
import type { FirewallRule } from "./rules.ts";

export type Attach = "vhost" | "iovtee";
export type FunctionName = "macswap" | "l2fwd" | "echo" | "firewall" | "sink";

export interface HostOptions {
  /** Bytes of the host's memory; default 64 MiB. Pages that are never touched cost nothing. */
  memory?: number;
  /** A shared memory, so that other threads can attach; default false. Its index stores cost about 5 ns each. */
  shared?: boolean;
  /** Host buffers of 2048 bytes; default 4096, at most 65535. */
  buffers?: number;
}

export interface NicOptions {
  /** Descriptors in each receive and transmit ring, a power of two; default 256. */
  ring?: number;
  /** Most receive queues; queue 0 serves what no guest is mapped to. Default 64. */
  queues?: number;
}

export interface GuestOptions {
  attach?: Attach;
  run?: FunctionName;
  /** Default "02:00:00:00:xx:xx", numbered. */
  mac?: string;
  /** Descriptors in each virtqueue, a power of two up to 1024; default 256. */
  ring?: number;
  /** Bytes of the guest's memory, whole pages of 64 KiB; default what its rings and buffers take. */
  memory?: number;
  packed?: boolean;
  mergeable?: boolean;
  indirect?: boolean;
  eventIdx?: boolean;
  /** VIRTIO_F_IN_ORDER; not with "iovtee", which uses buffers as frames come. */
  inOrder?: boolean;
  /** The driver asks to be notified instead of polling; default false. */
  interrupts?: boolean;
  /** Bytes of one buffer of the guest's, headroom included; default 2176. */
  bufferSize?: number;
  /** MAC address that every frame is sent on to: the next guest of a chain. */
  nextHop?: string;
  ipv4?: string;
  rules?: FirewallRule[];
  /** IOVTee: what the NIC gets when the guest has posted no buffer; default "host". */
  onEmpty?: "host" | "wait";
  /** IOVTee: wipe what a missed frame left in the guest's buffer; default true. */
  scrub?: boolean;
}

export interface VSwitchOptions {
  connect: (Nic | Guest | FramePort)[];
  /** Frames taken from a port at a time, 1 to 256; default 32. */
  burst?: number;
  /** Entries of the MAC table, a power of two; default 4096, more for more than 64 ports. */
  macs?: number;
  /** Seconds after which a learned address is forgotten; default 300 (802.1D). */
  ageing?: number;
  /** Take notice of 802.1Q tags; ports are then set up with `VSwitch.vlan`. */
  vlanAware?: boolean;
}

/** Counters of one port, since the host began. `drops` has only the reasons that occurred. */
export interface PortStats {
  name: string;
  rxPackets: number;
  rxBytes: number;
  txPackets: number;
  txBytes: number;
  /** Copies of frames that the host made to deliver to this port, and their bytes. */
  copies: number;
  copiedBytes: number;
  /** Notifications (interrupts) sent to the guest. */
  notifications: number;
  drops: Record<string, number>;
}

export interface HostStats {
  ports: PortStats[];
  nics: {
    rxPackets: number;
    rxBytes: number;
    txPackets: number;
    txBytes: number;
    drops: Record<string, number>;
  }[];
  guests: { name: string; received: number; transmitted: number; drops: Record<string, number> }[];
  mappings: {
    guest: string;
    hits: number;
    misses: number;
    hostBuffers: number;
    unmappable: number;
    scrubbedBytes: number;
  }[];
  /** `buffers` = `available` + `outstanding`, always. */
  pool: { buffers: number; available: number; outstanding: number };
}

const FUNCTIONS: Record<FunctionName, number> = {
  sink: GuestFunction.SINK,
  macswap: GuestFunction.MACSWAP,
  l2fwd: GuestFunction.L2FWD,
  echo: GuestFunction.ECHO,
  firewall: GuestFunction.FIREWALL,
};
const DROPS: [keyof typeof Drop, string][] = [
  ["FULL", "full"],
  ["NO_BUFFER", "noBuffer"],
  ["TOO_LARGE", "tooLarge"],
  ["RUNT", "runt"],
  ["HAIRPIN", "hairpin"],
  ["VLAN", "vlan"],
  ["LINK_LOCAL", "linkLocal"],
  ["DOWN", "down"],
  ["SPOOFED", "spoofed"],
];
const REFUSALS: [keyof typeof Refusal, string][] = [
  ["OUT_OF_REGION", "outOfRegion"],
  ["DIRECTION", "direction"],
  ["TOO_SHORT", "tooShort"],
  ["TOO_LONG", "tooLong"],
  ["INDIRECT", "indirect"],
  ["LOOP", "loop"],
  ["INDEX", "index"],
  ["AVAIL_JUMP", "availJump"],
];

function powerOfTwo(name: string, value: number, most: number): number {
  if (!Number.isInteger(value) || value < 1 || value > most || value & (value - 1)) {
    throw new RangeError(`${name}: ${value}, expected a power of two up to ${most}`);
  }
  return value;
}

/** Entries of a MAC table in which `addresses` static ones find a place: four share a bucket. */
function tableFor(addresses: number): number {
  return Math.min(65536, Math.max(4096, 2 ** Math.ceil(Math.log2(addresses * 64))));
}

/** The entries whose counter isn't 0. */
function counted(entries: [string, number][]): Record<string, number> {
  return Object.fromEntries(entries.filter(([, n]) => n > 0));
}

/** A network card. Its wire is JavaScript, or a `FrameGenerator`. */
export class Nic {
  readonly address: number;
  readonly #staging: number;
  static readonly STAGED = 256;

  /** @internal Use `host.nic()`. */
  constructor(
    readonly host: Host,
    readonly name: string,
    readonly ring: number,
    queues: number,
  ) {
    const { core } = host;
    this.address = core.made(
      core.exports.createNic(queues, ring, ring * 2, tableFor(queues), host.poolId),
      "NIC",
    );
    const staging = Nic.STAGED * Packet.SIZE;
    this.#staging = core.made(
      core.exports.alloc(Kind.BYTES, staging + Nic.STAGED * 9088, 64, 0),
      "NIC's wire",
    );
  }

  /** Address of receive queue `index`. */
  rxQueue(index: number): number {
    return this.host.core.u32(this.host.core.u32(this.address + NicLayout.rxTable) + 4 * index);
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
        const to = this.#staging + Nic.STAGED * Packet.SIZE + i * 9088;
        const length = Math.min(frame.length, FRAME_MAX + 1); // one more than allowed: the card counts it
        core.bytes.set(frame.length > length ? frame.subarray(0, length) : frame, to);
        core.setU32(this.#staging + i * Packet.SIZE, to);
        core.setU32(this.#staging + i * Packet.SIZE + Packet.len, length);
      });
      taken += core.exports.receive(this.address, this.#staging, some.length);
    }
    return taken;
  }

  /**
   * What the card has been given to send: views of the host's memory. A frame of several segments is put together
   * in a copy.
   */
  toTransmit(): Uint8Array[] {
    const { core } = this.host;
    const n = core.exports.toTransmit(this.address);
    const first = core.u32(this.address + NicLayout.tx);
    const ring = core.u32(first + TxQueue.ring);
    const mask = core.u32(first + TxQueue.mask);
    const head = core.u32(first + TxQueue.head);
    return framesAt(core, n, (i) => ring + ((head + i) & mask) * Packet.SIZE);
  }

  /**
   * Sends all of it: to `sink`, whose views are valid only during the call.
   * @returns how many frames were sent
   */
  transmit(sink?: (frames: Uint8Array[]) => void): number {
    const { core } = this.host;
    const n = core.exports.toTransmit(this.address);
    const frames = this.toTransmit();
    if (frames.length > 0) sink?.(frames);
    core.exports.transmitted(this.address, n);
    return frames.length;
  }

  /** Frames for `mac` (and `vlan`, 0 for any) go to receive queue `queue`; the switch is told port `port`. */
  steer(mac: string, vlan: number, queue: number, port: number): void {
    const { core } = this.host;
    const filters = core.u32(this.address + NicLayout.filters);
    if (!core.exports.setMac(filters, parseMac(mac), vlan, queue | ((port + 1) << 16))) {
      throw new RangeError(`filter for ${mac}: the card has no place left for it`);
    }
  }

  unsteer(mac: string, vlan = 0): void {
    const { core } = this.host;
    core.exports.removeMac(core.u32(this.address + NicLayout.filters), parseMac(mac), vlan);
  }
}

/** The frames of `n` descriptors, the i-th of them at address `at(i)`. */
function framesAt(core: Core, n: number, at: (i: number) => number): Uint8Array[] {
  const frames: Uint8Array[] = [];
  let parts: Uint8Array[] = [];
  for (let i = 0; i < n; i++) {
    const p = at(i);
    const addr = core.u32(p);
    parts.push(core.bytes.subarray(addr, addr + core.u16(p + Packet.len)));
    if (core.u16(p + Packet.flags) & PacketFlag.MORE) continue;
    frames.push(parts.length === 1 ? (parts[0] as Uint8Array) : join(parts));
    parts = [];
  }
  return frames;
}

function join(parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** A guest: a region of memory, a virtio-net driver and a network function. */
export class Guest {
  readonly address: number;
  readonly attach: Attach;
  readonly mac: string;
  readonly region: number;
  readonly regionSize: number;
  /** Device's sides of the guest's receive and transmit queues. */
  readonly rxVirtqueue: number;
  readonly txVirtqueue: number;
  readonly ring: number;
  readonly mappingId: number = 0;
  readonly mapping: number = 0;

  /** @internal Use `host.guest()`. */
  constructor(
    readonly host: Host,
    readonly name: string,
    index: number,
    options: GuestOptions,
  ) {
    const { core } = host;
    const { exports } = core;
    this.attach = options.attach ?? "iovtee";
    this.mac = options.mac ?? localMac(0, index + 1);
    this.ring = powerOfTwo("ring", options.ring ?? 256, QUEUE_MAX);
    if (this.attach === "iovtee" && options.inOrder) {
      throw new RangeError(
        'inOrder: not with attach "iovtee", which uses buffers in the order in which frames come',
      );
    }
    const bufferSize = options.bufferSize ?? HEADROOM + BUFFER_ROOM;
    const features =
      (options.packed ? Feature.PACKED : 0) |
      ((options.mergeable ?? true) ? Feature.MRG_RXBUF : 0) |
      (options.indirect ? Feature.INDIRECT_DESC : 0) |
      (options.eventIdx ? Feature.EVENT_IDX : 0) |
      (options.inOrder ? Feature.IN_ORDER : 0);
    const wanted = this.ring * (64 + (options.indirect ? 128 : 0) + 2 * bufferSize) + 64 * bufferSize;
    this.regionSize = Math.ceil((options.memory ?? wanted) / PAGE) * PAGE;
    const regionId = exports.alloc(Kind.REGION, this.regionSize, PAGE, 0);
    this.region = core.made(regionId, name);
    core.name(regionId, name);
    this.rxVirtqueue = core.made(exports.createVirtqueue(regionId), name);
    this.txVirtqueue = core.made(exports.createVirtqueue(regionId), name);
    if (this.attach === "iovtee") {
      const onEmpty = options.onEmpty === "wait" ? OnEmpty.WAIT : OnEmpty.HOST;
      const scrub = (options.scrub ?? true) ? 1 : 0;
      this.mappingId = exports.createMapping(this.rxVirtqueue, this.ring, onEmpty, scrub);
      this.mapping = core.made(this.mappingId, name);
    }
    // The net header ends where the frame begins, on a cache line of its own.
    const headroom = bufferSize >= HEADROOM + 64 ? HEADROOM : NetHeader.SIZE;
    this.address = core.made(
      exports.createGuest(
        regionId,
        this.rxVirtqueue,
        this.txVirtqueue,
        this.ring,
        features,
        options.interrupts ? 0 : 1,
        headroom,
        bufferSize,
      ),
      `${name} (${this.regionSize} bytes, ring of ${this.ring})`,
    );
    core.setU32(this.address + GuestLayout.run, FUNCTIONS[options.run ?? "macswap"]);
    core.view.setBigUint64(this.address + GuestLayout.mac, parseMac(this.mac), true);
    if (options.nextHop) this.nextHop = options.nextHop;
    if (options.ipv4) core.bytes.set(options.ipv4.split(".").map(Number), this.address + GuestLayout.ipv4);
    if (options.rules) this.#setRules(options.rules);
  }

  set nextHop(mac: string) {
    this.host.core.view.setBigUint64(this.address + GuestLayout.nextHop, parseMac(mac), true);
  }

  #setRules(rules: FirewallRule[]): void {
    const { core } = this.host;
    const table = core.exports.createRules(this.address, rules.length);
    rules.forEach((rule, i) => {
      const at = table + i * Rule.SIZE;
      core.bytes[at + Rule.family] = rule.family;
      core.bytes[at + Rule.protocol] = rule.protocol;
      core.bytes[at + Rule.allow] = rule.allow ? 1 : 0;
      core.view.setUint16(at + Rule.sourcePortLow, rule.sourcePorts[0], true);
      core.view.setUint16(at + Rule.sourcePortHigh, rule.sourcePorts[1], true);
      core.view.setUint16(at + Rule.destinationPortLow, rule.destinationPorts[0], true);
      core.view.setUint16(at + Rule.destinationPortHigh, rule.destinationPorts[1], true);
      core.bytes.set(rule.source, at + Rule.source);
      core.bytes.set(rule.sourceMask, at + Rule.sourceMask);
      core.bytes.set(rule.destination, at + Rule.destination);
      core.bytes.set(rule.destinationMask, at + Rule.destinationMask);
    });
  }
}

/** A switch port whose other end is JavaScript: an emulator's network card, say. */
export class FramePort {
  readonly toHost: number;
  readonly fromHost: number;
  readonly #list: number;
  static readonly SLOTS = 512;

  /** @internal Use `host.port()`. */
  constructor(
    readonly host: Host,
    readonly name: string,
  ) {
    const { core } = host;
    this.toHost = core.made(core.exports.createRing(FramePort.SLOTS, 0), name);
    this.fromHost = core.made(core.exports.createRing(FramePort.SLOTS, 0), name);
    this.#list = core.made(core.exports.alloc(Kind.BYTES, FramePort.SLOTS * Packet.SIZE, 64, 0), name);
  }

  /**
   * Frames into the switch; each is copied into a host buffer.
   * @returns how many were taken: fewer when the ring or the pool is full (nothing is dropped, try again)
   * @throws RangeError for a frame that is shorter than 14 bytes or longer than a host buffer (2048)
   */
  push(frames: readonly Uint8Array[]): number {
    return this.pushWith(
      frames.map((frame) => frame.length),
      (view, i) => view.set(frames[i] as Uint8Array),
    );
  }

  /** The same without a copy: `write` fills the host buffer of frame `i`, which is `lengths[i]` bytes long. */
  pushWith(lengths: readonly number[], write: (view: Uint8Array, i: number) => void): number {
    const { core, pool } = this.host;
    for (const length of lengths) {
      if (!(length >= 14 && length <= BUFFER_ROOM)) {
        throw new RangeError(`frame of ${length} bytes, expected 14 to ${BUFFER_ROOM}`);
      }
    }
    const room = FramePort.SLOTS - (core.u32(this.toHost + Ring.head) - core.u32(this.toHost + Ring.tail));
    const n = core.exports.takeBuffers(pool, 0, this.#list, Math.min(lengths.length, room));
    for (let i = 0; i < n; i++) {
      const p = this.#list + i * Packet.SIZE;
      const length = lengths[i] as number;
      const addr = core.u32(p);
      write(core.bytes.subarray(addr, addr + length), i);
      core.view.setUint16(p + Packet.len, length, true);
    }
    return core.exports.enqueue(this.toHost, this.#list, n);
  }

  /**
   * Frames that the switch sent here, up to `max`, to `sink`: views of the host's memory, valid during the call.
   * @returns how many
   */
  take(sink: (frames: Uint8Array[]) => void, max = 256): number {
    const { core, pool } = this.host;
    const n = core.exports.dequeue(this.fromHost, this.#list, Math.min(max, FramePort.SLOTS));
    const frames = framesAt(core, n, (i) => this.#list + i * Packet.SIZE);
    if (frames.length > 0) sink(frames);
    core.exports.giveBuffers(pool, 0, this.#list, n);
    return frames.length;
  }
}

/** The switch: a learning bridge. */
export class VSwitch {
  readonly address: number;
  readonly ports: { name: string; address: number; of: Nic | Guest | FramePort }[] = [];

  /** @internal Use `host.vswitch()`. */
  constructor(
    readonly host: Host,
    options: VSwitchOptions,
  ) {
    const { core } = host;
    const burst = options.burst ?? 32;
    if (!Number.isInteger(burst) || burst < 1 || burst > 256) {
      throw new RangeError(`burst: ${burst}, expected 1 to 256`);
    }
    this.address = core.made(
      core.exports.createSwitch(
        powerOfTwo("macs", options.macs ?? tableFor(options.connect.length), 65536),
        burst,
        options.ageing ?? 300,
        host.poolId,
      ),
      "switch",
    );
    if (options.vlanAware) core.setU32(this.address + SwitchLayout.vlanAware, 1);
    for (const one of options.connect) this.connect(one);
    for (const { of } of this.ports)
      if (of instanceof Guest) core.setU32(of.address + GuestLayout.burst, burst);
  }

  /** Connects one more; a guest attached by "iovtee" is mapped to a queue of the first NIC that is connected. */
  connect(of: Nic | Guest | FramePort): void {
    const { core } = this.host;
    const { exports } = core;
    const index = this.ports.length;
    let id: number;
    if (of instanceof Nic) id = exports.createPort(this.address, PortKind.NIC, of.address, 0, 0);
    else if (of instanceof Guest) {
      id = exports.createPort(this.address, PortKind.VHOST, of.rxVirtqueue, of.txVirtqueue, of.mapping);
    } else id = exports.createPort(this.address, PortKind.RING, of.fromHost, of.toHost, 0);
    const address = core.made(id, `port of ${of.name}`);
    core.name(id, of.name);
    this.ports.push({ name: of.name, address, of });
    if (of instanceof Guest) {
      if (!exports.setMac(core.u32(this.address + SwitchLayout.macs), parseMac(of.mac), 0, index)) {
        throw new RangeError(`macs: no place for ${of.mac} of ${of.name}, expected a larger table`);
      }
    }
  }

  /** Number of the port that `of` is connected to. */
  indexOf(of: Nic | Guest | FramePort): number {
    return this.ports.findIndex((port) => port.of === of);
  }

  /**
   * Maps a receive queue of `nic` to the guest's receive virtqueue (IOVTee, R1): a queue of its own, to which the
   * card's filter steers the guest's MAC address.
   */
  map(nic: Nic, guest: Guest): void {
    const { core } = this.host;
    if (!guest.mapping) throw new RangeError(`${guest.name}: attached by ${guest.attach}, expected "iovtee"`);
    core.made(
      core.exports.createRxQueue(nic.address, nic.ring, this.host.poolId, guest.mappingId),
      "receive queue",
    );
    const queue = core.u32(nic.address + NicLayout.rxQueues) - 1;
    core.exports.fillMapping(guest.mapping);
    core.exports.refillMapping(guest.mapping, 0);
    nic.steer(guest.mac, 0, queue, this.indexOf(guest));
  }

  /**
   * Undoes `map` (R7): when it returns, the card writes nothing more into the guest's memory. Frames that were
   * received are delivered; the guest's buffers are used by the copying path from then on.
   */
  unmap(nic: Nic, guest: Guest): void {
    const { core } = this.host;
    const queue = core.u32(guest.mapping + Mapping.queue);
    nic.unsteer(guest.mac);
    core.setU32(queue + RxQueue.enabled, 0);
    core.exports.flushNic(nic.address); // the card ends its DMA and answers
    const port = this.ports[this.indexOf(nic)];
    if (port) while (core.exports.pollPort(this.address, port.address) > 0) {}
    core.exports.reclaimMapping(guest.mapping, 0);
  }

  /** Maps again what `unmap` undid. */
  remap(nic: Nic, guest: Guest): void {
    const { core } = this.host;
    const queue = core.u32(guest.mapping + Mapping.queue);
    core.setU32(queue + RxQueue.enabled, 1);
    core.exports.fillMapping(guest.mapping);
    core.exports.refillMapping(guest.mapping, 0);
    nic.steer(guest.mac, 0, core.u32(queue + RxQueue.index), this.indexOf(guest));
  }

  /** VLANs of a port: `pvid` for untagged frames, and what else it is in. Only on a VLAN-aware switch. */
  vlan(of: Nic | Guest | FramePort, pvid: number, tagged: number[] = []): void {
    const { core } = this.host;
    const port = this.ports[this.indexOf(of)];
    if (!port) throw new RangeError(`${of.name}: not connected to this switch`);
    for (const vlan of [...(pvid ? [pvid] : []), ...tagged]) {
      if (!Number.isInteger(vlan) || vlan < 1 || vlan > 4094)
        throw new RangeError(`VLAN ${vlan}, expected 1 to 4094`);
    }
    let bitmap = core.u32(port.address + PortLayout.vlans);
    if (!bitmap) {
      bitmap = core.made(core.exports.alloc(Kind.BYTES, 512, 64, 0), "VLAN bitmap");
      core.setU32(port.address + PortLayout.vlans, bitmap);
    }
    core.bytes.fill(0, bitmap, bitmap + 512);
    for (const vlan of [pvid, ...tagged]) {
      if (vlan)
        core.bytes[bitmap + (vlan >> 3)] = (core.bytes[bitmap + (vlan >> 3)] ?? 0) | (1 << (vlan & 7));
    }
    core.setU32(port.address + PortLayout.pvid, pvid);
    if (of instanceof Guest) {
      core.exports.setMac(
        core.u32(this.address + SwitchLayout.macs),
        parseMac(of.mac),
        pvid,
        this.indexOf(of),
      );
    }
  }
}

export class Host {
  readonly core: Core;
  readonly poolId: number;
  readonly pool: number;
  readonly lcore: number;
  readonly nics: Nic[] = [];
  readonly guests: Guest[] = [];
  readonly switches: VSwitch[] = [];
  readonly buffers: number;
  #ports = 0;
  #stopped = false;
  readonly #start = performance.now();

  private constructor(options: HostOptions) {
    this.core = Core.create(options.memory ?? 64 * 1024 * 1024, options.shared ?? false);
    this.buffers = options.buffers ?? 4096;
    if (!Number.isInteger(this.buffers) || this.buffers < 1 || this.buffers > 65535) {
      throw new RangeError(`buffers: ${this.buffers}, expected 1 to 65535`);
    }
    this.poolId = this.core.exports.createPool(this.buffers, BUFFER_ROOM);
    this.pool = this.core.made(this.poolId, "pool");
    this.lcore = this.core.made(this.core.exports.createLcore(), "lcore");
  }

  /**
   * @throws RangeError for an option out of range
   */
  static async create(options: HostOptions = {}): Promise<Host> {
    return new Host(options);
  }

  nic(options: NicOptions = {}): Nic {
    const nic = new Nic(
      this,
      `nic${this.nics.length}`,
      powerOfTwo("ring", options.ring ?? 256, 4096),
      options.queues ?? 64,
    );
    this.nics.push(nic);
    return nic;
  }

  guest(options: GuestOptions = {}): Guest {
    const guest = new Guest(this, `guest${this.guests.length}`, this.guests.length, options);
    this.guests.push(guest);
    return guest;
  }

  /** A switch port whose other end is JavaScript. */
  port(): FramePort {
    return new FramePort(this, `port${this.#ports++}`);
  }

  /** Connects NICs, guests and ports; guests attached by "iovtee" are mapped to the first NIC among them. */
  vswitch(options: VSwitchOptions): VSwitch {
    const sw = new VSwitch(this, options);
    this.switches.push(sw);
    this.core.exports.addPoller(this.lcore, Kind.SWITCH, sw.address);
    const nic = options.connect.find((one) => one instanceof Nic) as Nic | undefined;
    for (const one of options.connect) {
      if (!(one instanceof Guest)) continue;
      this.core.exports.addPoller(this.lcore, Kind.GUEST, one.address);
      if (one.mapping && nic) sw.map(nic, one);
    }
    return sw;
  }

  /** One turn of every switch and guest. @returns frames moved */
  poll(): number {
    this.#tick();
    return this.core.exports.pollLcore(this.lcore);
  }

  /** Turns until one moves nothing, at most `turns`. @returns frames moved */
  drain(turns = 1_000_000): number {
    this.#tick();
    return this.core.exports.drainLcore(this.lcore, turns);
  }

  /** Polls until `stop()`; between turns other tasks of this thread have theirs. */
  async run(): Promise<void> {
    this.#stopped = false;
    while (!this.#stopped) {
      this.drain(64);
      await new Promise((done) => setTimeout(done, 0));
    }
  }

  stop(): void {
    this.#stopped = true;
  }

  #tick(): void {
    this.core.setU32(Directory.ADDRESS + Directory.clock, ((performance.now() - this.#start) / 1000) >>> 0);
  }

  stats(): HostStats {
    const { core } = this;
    const count = (address: number) => core.counter(address);
    const ports = this.switches.flatMap((sw) =>
      sw.ports.map(({ name, address, of }): PortStats => {
        const queues = of instanceof Guest ? [of.rxVirtqueue, of.txVirtqueue] : [];
        const refused = REFUSALS.map(([key, label]): [string, number] => [
          `refused.${label}`,
          queues.reduce((n, vq) => n + count(vq + Virtqueue.refusals + 8 * Refusal[key]), 0),
        ]);
        const dropped = DROPS.map(([key, label]): [string, number] => [
          label,
          count(address + PortLayout.drops + 8 * Drop[key]),
        ]);
        return {
          name,
          rxPackets: count(address + PortLayout.rxPackets),
          rxBytes: count(address + PortLayout.rxBytes),
          txPackets: count(address + PortLayout.txPackets),
          txBytes: count(address + PortLayout.txBytes),
          copies: count(address + PortLayout.copies),
          copiedBytes: count(address + PortLayout.copiedBytes),
          notifications: queues.reduce((n, vq) => n + count(vq + Virtqueue.notifications), 0),
          drops: counted([...dropped, ...refused]),
        };
      }),
    );
    const nics = this.nics.map(({ address }) => ({
      rxPackets: count(address + NicLayout.rxPackets),
      rxBytes: count(address + NicLayout.rxBytes),
      txPackets: count(address + NicLayout.txPackets),
      txBytes: count(address + NicLayout.txBytes),
      drops: counted([
        ["rxNoBuffer", count(address + NicLayout.rxNoBuffer)],
        ["rxOversize", count(address + NicLayout.rxOversize)],
        ["rxRunt", count(address + NicLayout.rxRunt)],
        ["rxStopped", count(address + NicLayout.rxStopped)],
      ]),
    }));
    const guests = this.guests.map(({ name, address }) => ({
      name,
      received: count(address + GuestLayout.received),
      transmitted: count(address + GuestLayout.transmitted),
      drops: counted([
        ["function", count(address + GuestLayout.droppedByFunction)],
        ["txFull", count(address + GuestLayout.droppedTxFull)],
        ["malformed", count(address + GuestLayout.droppedMalformed)],
      ]),
    }));
    const mappings = this.guests
      .filter((guest) => guest.mapping)
      .map(({ name, mapping }) => ({
        guest: name,
        hits: count(mapping + Mapping.hits),
        misses: count(mapping + Mapping.misses),
        hostBuffers: count(mapping + Mapping.hostBuffers),
        unmappable: count(mapping + Mapping.unmappable),
        scrubbedBytes: count(mapping + Mapping.scrubbedBytes),
      }));
    const pool = {
      buffers: this.buffers,
      available: core.exports.poolAvailable(this.pool),
      outstanding: core.exports.poolOutstanding(this.pool),
    };
    return { ports, nics, guests, mappings, pool };
  }
}
