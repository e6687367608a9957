/**
 * A virtio-net device (virtio 1.2, 5.1): what a guest has that is attached by vhost, where the host copies, or by IOVTee,
 * where a card's receive queue can be mapped to it.
 */
import {
  Driver,
  DriverKind,
  Feature,
  INDIRECT_ENTRIES,
  Kind,
  NetHeader,
  PortKind,
  Port as PortLayout,
  SplitDesc,
  TAKES_NOTHING,
  Virtqueue,
} from "../../assembly/layout.ts";
import type { Core } from "../core/core.ts";
import { createVirtqueue, driverBytes, initDriver, initTake, queueAreas } from "../core/virtqueue.ts";
import type { GuestDevice, GuestMemory } from "./device.ts";
import { createMapping, type MappingOptions, SMALLEST } from "./iovtee.ts";

export interface VirtioOptions extends MappingOptions {
  packed?: boolean;
  mergeable?: boolean;
  indirect?: boolean;
  eventIdx?: boolean;
  /** VIRTIO_F_IN_ORDER; not with "iovtee", which uses buffers as frames come. */
  inOrder?: boolean;
  /** The driver asks to be notified instead of polling; default false. */
  interrupts?: boolean;
}

/** Bytes of guest memory that two queues of `ring` descriptors take, with their indirect tables. */
export function virtioBytes(ring: number, { indirect }: VirtioOptions): number {
  return 2 * queueAreas(ring).bytes + (indirect ? ring * INDIRECT_ENTRIES * SplitDesc.SIZE : 0);
}

/** Guest memory holds from address 0 on the receive queue, the transmit queue, indirect tables. */
export class VirtioDevice implements GuestDevice {
  readonly kind: DriverKind;
  readonly rx: number;
  readonly tx: number;
  readonly port: Readonly<Record<number, number>>;
  /** Device's sides of the receive and transmit queues. */
  readonly rxVirtqueue: number;
  readonly txVirtqueue: number;
  /** The mapping's directory id and address; 0 over vhost. */
  readonly mappingId: number = 0;
  readonly mapping: number = 0;
  readonly #core: Core;
  readonly #features: number;
  readonly #polls: boolean;

  /**
   * @param mapped whether it has an IOVTee mapping
   * @throws RangeError for features that exclude each other, and where the memory is full
   */
  constructor(
    readonly memory: GuestMemory,
    readonly ring: number,
    mapped: boolean,
    options: VirtioOptions,
  ) {
    const { core, name, region, regionSize } = memory;
    if (mapped && options.inOrder) {
      throw new RangeError(
        'inOrder: not with attach "iovtee", which uses buffers in the order in which frames come',
      );
    }
    this.#core = core;
    this.#features = featuresOf(options);
    this.#polls = !options.interrupts;
    this.kind = options.packed ? DriverKind.PACKED : DriverKind.SPLIT;
    const rx = createVirtqueue(core, region, regionSize, name);
    const tx = createVirtqueue(core, region, regionSize, name);
    this.rxVirtqueue = rx.address;
    this.txVirtqueue = tx.address;
    if (mapped) {
      const mapping = createMapping(core, rx.address, ring, options, name);
      this.mappingId = mapping.id;
      this.mapping = mapping.address;
      initTake(core, rx.address, { writable: true, least: SMALLEST, owner: mapping.id });
    } else initTake(core, rx.address, { writable: true, owner: rx.id });
    initTake(core, tx.address, { writable: false, skip: NetHeader.SIZE, owner: tx.id });
    const driver = (indirect: boolean) =>
      core.place(Kind.DRIVER, driverBytes(ring, indirect), name, region.id).address;
    this.rx = driver(false);
    this.tx = driver(options.indirect ?? false);
    this.port = {
      [PortLayout.kind]: PortKind.VHOST,
      [PortLayout.to]: this.rxVirtqueue,
      [PortLayout.from]: this.txVirtqueue,
      [PortLayout.mapping]: this.mapping,
      [PortLayout.takes]: mapped ? this.mappingId : TAKES_NOTHING,
    };
  }

  start(): void {
    const queue = queueAreas(this.ring).bytes;
    const indirect = this.#features & Feature.INDIRECT_DESC ? this.memory.region.address + 2 * queue : 0;
    this.#startQueue(this.rx, this.rxVirtqueue, 0, 0);
    this.#startQueue(this.tx, this.txVirtqueue, queue, indirect);
  }

  /** Both sides of a queue at guest address `at`; `indirect`: address of its indirect tables, or 0. */
  #startQueue(driver: number, virtqueue: number, at: number, indirect: number): void {
    const core = this.#core;
    const { name, region } = this.memory;
    const areas = queueAreas(this.ring);
    const base = region.address;
    core.bytes.fill(0, base + at, base + at + areas.bytes);
    initDriver(core, driver, {
      desc: base + at,
      driver: base + at + areas.driver,
      device: base + at + areas.device,
      size: this.ring,
      features: this.#features,
      base,
      polls: this.#polls,
      indirect,
    });
    const [desc, avail, used] = [at, at + areas.driver, at + areas.device].map(BigInt) as [
      bigint,
      bigint,
      bigint,
    ];
    if (!core.exports.startVirtqueue(virtqueue, desc, avail, used, this.ring, this.#features)) {
      throw new RangeError(`${name}: the device refuses a queue of ${this.ring} at guest address ${at}`);
    }
  }

  setBells(guest: number, rx: number, tx: number): void {
    const core = this.#core;
    core.setU32(this.rxVirtqueue + Virtqueue.bell, guest);
    core.setU32(this.txVirtqueue + Virtqueue.bell, guest);
    core.setU32(this.rx + Driver.bell, rx);
    core.setU32(this.tx + Driver.bell, tx);
  }

  /** The driver resets the device (virtio 1.2, 2.4.1). */
  stop(): void {
    const { exports } = this.#core;
    exports.stopVirtqueue(this.rxVirtqueue);
    exports.stopVirtqueue(this.txVirtqueue);
    if (this.mapping) exports.forgetMapping(this.mapping);
  }
}

/** Bits of `Feature` that the options ask for. */
function featuresOf(options: VirtioOptions): number {
  return (
    (options.packed ? Feature.PACKED : 0) |
    ((options.mergeable ?? true) ? Feature.MRG_RXBUF : 0) |
    (options.indirect ? Feature.INDIRECT_DESC : 0) |
    (options.eventIdx ? Feature.EVENT_IDX : 0) |
    (options.inOrder ? Feature.IN_ORDER : 0)
  );
}
