/** A guest (layout: `Guest`): a region of memory, a virtio-net driver and a network function. */
import {
  BUFFER_ROOM,
  Feature,
  FRAME_MIN,
  GuestFunction,
  Guest as GuestLayout,
  HEADROOM,
  INDIRECT_ENTRIES,
  Kind,
  LINE,
  NetHeader,
  PAGE,
  Packet,
  QUEUE_MAX,
  Rule,
  SplitDesc,
} from "../../assembly/layout.ts";
import { createMapping, type MappingOptions, SMALLEST } from "../attach/iovtee.ts";
import type { HostMemory } from "../core/host-memory.ts";
import { writePacket } from "../core/packet.ts";
import { createVirtqueue, driverBytes, initDriver, initTake, queueAreas } from "../core/virtqueue.ts";
import { localMac, parseMac } from "../mac.ts";
import { integer, powerOfTwo } from "../options.ts";
import type { FirewallRule } from "../rules.ts";

export type Attach = "vhost" | "iovtee";
export type FunctionName = "macswap" | "l2fwd" | "echo" | "firewall" | "sink";

export interface GuestOptions extends MappingOptions {
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
}

const FUNCTIONS: Record<FunctionName, GuestFunction> = {
  sink: GuestFunction.SINK,
  macswap: GuestFunction.MACSWAP,
  l2fwd: GuestFunction.L2FWD,
  echo: GuestFunction.ECHO,
  firewall: GuestFunction.FIREWALL,
};

/** A guest: a region of memory, a virtio-net driver and a network function. */
export class Guest {
  readonly address: number;
  readonly attach: Attach;
  readonly mac: string;
  /** Address and bytes of its memory: guest address 0 is `region`. */
  readonly region: number;
  readonly regionSize: number;
  /** Device's sides of the guest's receive and transmit queues. */
  readonly rxVirtqueue: number;
  readonly txVirtqueue: number;
  readonly ring: number;
  /** Its mapping's directory id and address; 0 unless attached by "iovtee". */
  readonly mappingId: number = 0;
  readonly mapping: number = 0;
  readonly #features: number;
  readonly #polls: boolean;

  /** @internal Use `host.guest()`. */
  constructor(
    readonly host: HostMemory,
    readonly name: string,
    index: number,
    options: GuestOptions,
  ) {
    const { core } = host;
    this.attach = options.attach ?? "iovtee";
    this.mac = options.mac ?? localMac(0, index + 1);
    this.ring = powerOfTwo("ring", options.ring ?? 256, QUEUE_MAX);
    if (this.attach === "iovtee" && options.inOrder) {
      throw new RangeError(
        'inOrder: not with attach "iovtee", which uses buffers in the order in which frames come',
      );
    }
    const least = NetHeader.SIZE + FRAME_MIN;
    const bufferSize = integer("bufferSize", options.bufferSize ?? HEADROOM + BUFFER_ROOM, least, 65535);
    const wanted = this.ring * (64 + (options.indirect ? 128 : 0) + 2 * bufferSize) + 64 * bufferSize;
    this.regionSize = Math.ceil((options.memory ?? wanted) / PAGE) * PAGE;
    const region = core.place(Kind.REGION, this.regionSize, name, 0, PAGE);
    this.region = region.address;
    core.name(region.id, name);
    const rx = createVirtqueue(core, region, this.regionSize, name);
    const tx = createVirtqueue(core, region, this.regionSize, name);
    this.rxVirtqueue = rx.address;
    this.txVirtqueue = tx.address;
    if (this.attach === "iovtee") {
      const mapping = createMapping(core, rx.address, this.ring, options, name);
      this.mappingId = mapping.id;
      this.mapping = mapping.address;
    }
    if (this.mappingId)
      initTake(core, rx.address, { writable: true, least: SMALLEST, owner: this.mappingId });
    else initTake(core, rx.address, { writable: true, owner: rx.id });
    initTake(core, tx.address, { writable: false, skip: NetHeader.SIZE, owner: tx.id });
    const guest = core.place(Kind.GUEST, GuestLayout.SIZE, name, region.id);
    this.address = guest.address;
    this.#features = featuresOf(options);
    const indirect = options.indirect ?? false;
    const first = this.#tables + (indirect ? this.ring * INDIRECT_ENTRIES * SplitDesc.SIZE : 0);
    const buffers = Math.min(65535, Math.floor((this.regionSize - first) / bufferSize));
    if (buffers < 1) {
      throw new RangeError(
        `memory: ${this.regionSize} bytes for ${name}, expected ${first + bufferSize} at least for a ring of ${this.ring}`,
      );
    }
    const place = (kind: Kind, bytes: number) => core.place(kind, bytes, name, guest.id).address;
    core.setFields(this.address, {
      [GuestLayout.id]: guest.id,
      [GuestLayout.region]: this.region,
      [GuestLayout.regionSize]: this.regionSize,
      [GuestLayout.rx]: place(Kind.DRIVER, driverBytes(this.ring, false)),
      [GuestLayout.tx]: place(Kind.DRIVER, driverBytes(this.ring, indirect)),
      [GuestLayout.free]: place(Kind.BYTES, buffers * Packet.SIZE),
      [GuestLayout.bufferCount]: buffers,
      [GuestLayout.bufferSize]: bufferSize,
      [GuestLayout.burst]: 32,
    });
    // The net header ends where the frame begins, on a cache line of its own.
    const before = bufferSize >= HEADROOM + LINE ? HEADROOM - NetHeader.SIZE : 0;
    const addr = this.region + first + before;
    writePacket(core, this.address + GuestLayout.blank, { addr, len: bufferSize - before, index: 0 });
    this.#polls = !options.interrupts;
    this.start();
    core.setU32(this.address + GuestLayout.run, FUNCTIONS[options.run ?? "macswap"]);
    core.setU64(this.address + GuestLayout.mac, parseMac(this.mac));
    if (options.nextHop) this.nextHop = options.nextHop;
    if (options.ipv4) core.bytes.set(options.ipv4.split(".").map(Number), this.address + GuestLayout.ipv4);
    if (options.rules) this.#setRules(options.rules);
  }

  /** Guest address of the indirect tables, behind both queues. */
  get #tables(): number {
    return 2 * queueAreas(this.ring).bytes;
  }

  /**
   * @internal Use `VSwitch.start()`. The driver starts: all buffers are free, both queues are empty and ready, and
   * the first buffers are posted. Guest memory holds from address 0 on the receive queue, the transmit queue,
   * indirect tables, buffers.
   */
  start(): void {
    const { core } = this.host;
    const at = (field: number) => core.u32(this.address + field);
    const count = at(GuestLayout.bufferCount);
    const [addr, len] = [at(GuestLayout.blank), core.u16(this.address + GuestLayout.blank + Packet.len)];
    for (let i = 0; i < count; i++) {
      const index = count - 1 - i; // the last is taken first
      writePacket(core, at(GuestLayout.free) + i * Packet.SIZE, {
        addr: addr + index * at(GuestLayout.bufferSize),
        len,
        index,
      });
    }
    core.setU32(this.address + GuestLayout.freeCount, count);
    const queue = queueAreas(this.ring).bytes;
    const indirect = this.#features & Feature.INDIRECT_DESC ? this.region + this.#tables : 0;
    this.#startQueue(at(GuestLayout.rx), this.rxVirtqueue, 0, 0);
    this.#startQueue(at(GuestLayout.tx), this.txVirtqueue, queue, indirect);
    core.exports.pollGuest(this.address);
  }

  /** Both sides of a queue at guest address `at`; `indirect`: address of its indirect tables, or 0. */
  #startQueue(driver: number, virtqueue: number, at: number, indirect: number): void {
    const { region } = this;
    const { core } = this.host;
    const areas = queueAreas(this.ring);
    core.bytes.fill(0, region + at, region + at + areas.bytes);
    initDriver(core, driver, {
      desc: region + at,
      driver: region + at + areas.driver,
      device: region + at + areas.device,
      size: this.ring,
      features: this.#features,
      base: region,
      polls: this.#polls,
      indirect,
    });
    const [desc, avail, used] = [at, at + areas.driver, at + areas.device].map(BigInt) as [
      bigint,
      bigint,
      bigint,
    ];
    if (!core.exports.startVirtqueue(virtqueue, desc, avail, used, this.ring, this.#features)) {
      throw new RangeError(`${this.name}: the device refuses a queue of ${this.ring} at guest address ${at}`);
    }
  }

  /**
   * @internal Use `VSwitch.stop()`. The driver resets the device (virtio 1.2, 2.4.1): no byte is written for it any
   * more, and all buffers are the guest's.
   */
  stop(): void {
    const { exports } = this.host.core;
    exports.stopVirtqueue(this.rxVirtqueue);
    exports.stopVirtqueue(this.txVirtqueue);
    if (this.mapping) exports.forgetMapping(this.mapping);
  }

  /** MAC address that every frame is sent on to. */
  set nextHop(mac: string) {
    this.host.core.setU64(this.address + GuestLayout.nextHop, parseMac(mac));
  }

  #setRules(rules: FirewallRule[]): void {
    const { core } = this.host;
    const bytes = Math.max(1, rules.length) * Rule.SIZE;
    const table = core.place(Kind.BYTES, bytes, this.name, core.u32(this.address)).address;
    core.setFields(this.address, { [GuestLayout.table]: table, [GuestLayout.tableLength]: rules.length });
    rules.forEach((rule, i) => {
      const at = table + i * Rule.SIZE;
      core.bytes[at + Rule.family] = rule.family;
      core.bytes[at + Rule.protocol] = rule.protocol;
      core.bytes[at + Rule.allow] = rule.allow ? 1 : 0;
      core.setU16(at + Rule.sourcePortLow, rule.sourcePorts[0]);
      core.setU16(at + Rule.sourcePortHigh, rule.sourcePorts[1]);
      core.setU16(at + Rule.destinationPortLow, rule.destinationPorts[0]);
      core.setU16(at + Rule.destinationPortHigh, rule.destinationPorts[1]);
      core.bytes.set(rule.source, at + Rule.source);
      core.bytes.set(rule.sourceMask, at + Rule.sourceMask);
      core.bytes.set(rule.destination, at + Rule.destination);
      core.bytes.set(rule.destinationMask, at + Rule.destinationMask);
    });
  }
}

/** Bits of `Feature` that the options ask for. */
function featuresOf(options: GuestOptions): number {
  return (
    (options.packed ? Feature.PACKED : 0) |
    ((options.mergeable ?? true) ? Feature.MRG_RXBUF : 0) |
    (options.indirect ? Feature.INDIRECT_DESC : 0) |
    (options.eventIdx ? Feature.EVENT_IDX : 0) |
    (options.inOrder ? Feature.IN_ORDER : 0)
  );
}
