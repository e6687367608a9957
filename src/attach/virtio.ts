/**
 * A virtio-net device (virtio 1.2, 5.1): what a guest has that is attached by vhost or by the kernel, where the host copies,
 * or by IOVTee, where a card's receive queue can be mapped to it.
 */
import {
  BURST_MAX,
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
import { integer } from "../options.ts";
import type { GuestDevice, GuestMemory } from "./device.ts";
import { createMapping, type MappingOptions, SMALLEST } from "./iovtee.ts";
import { TAP_BURST } from "./kernel.ts";
import type { Attach } from "./names.ts";

export interface VirtioOptions extends MappingOptions {
  packed?: boolean;
  mergeable?: boolean;
  indirect?: boolean;
  eventIdx?: boolean;
  /** VIRTIO_F_IN_ORDER; not with "iovtee", which uses buffers as frames come. */
  inOrder?: boolean;
  /** The driver asks to be notified instead of polling; default false. */
  interrupts?: boolean;
  /** Attached by "kernel": packets that host and guest take for one interrupt (NAPI's weight), 1 to 256; default 1. */
  napi?: number;
  /**
   * Attached by "vhost": its transmit buffers are given to the card as they are, and come back when the card has sent them
   * (0 copies; frames for other ports, and all on a VLAN-aware switch, are copied). Until then the guest, which may rewrite
   * the frame, has no use of them. Default false.
   */
  zeroCopyTx?: boolean;
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
  /** Packets that it takes for one interrupt; 0 where it polls. */
  readonly napi: number;
  readonly #core: Core;
  readonly #features: number;
  readonly #polls: boolean;
  /** Its transmit buffers are given to the card as they are. */
  readonly zeroCopyTx: boolean;

  /**
   * @throws RangeError for features that exclude each other or the attachment, and where the memory is full
   */
  constructor(
    readonly memory: GuestMemory,
    readonly ring: number,
    attach: Attach,
    options: VirtioOptions,
  ) {
    const { core, name, region, regionSize } = memory;
    const mapped = attach === "iovtee";
    if (options.napi !== undefined && attach !== "kernel") {
      throw new RangeError(`napi: of a guest that is attached by "${attach}", expected "kernel"`);
    }
    this.napi = attach === "kernel" ? integer("napi", options.napi ?? 1, 1, BURST_MAX) : 0;
    if (options.zeroCopyTx && (attach !== "vhost" || options.inOrder)) {
      throw new RangeError(
        `zeroCopyTx: of a guest that is attached by "${attach}"${options.inOrder ? ", in order" : ""}, expected "vhost", and buffers used in the order in which the card sends`,
      );
    }
    if (mapped && options.inOrder) {
      throw new RangeError(
        'inOrder: not with attach "iovtee", which uses buffers in the order in which frames come',
      );
    }
    this.zeroCopyTx = options.zeroCopyTx ?? false;
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
      [PortLayout.burst]: this.napi ? TAP_BURST : 0,
    };
  }

  start(): void {
    const queue = queueAreas(this.ring).bytes;
    const indirect = this.#features & Feature.INDIRECT_DESC ? this.memory.region.address + 2 * queue : 0;
    // Sent buffers are taken back when something is received: over the kernel nobody is interrupted for them.
    this.#startQueue(this.rx, this.rxVirtqueue, 0, 0, this.#polls && !this.napi);
    this.#startQueue(this.tx, this.txVirtqueue, queue, indirect, this.#polls);
  }

  /**
   * Both sides of a queue at guest address `at`; `indirect`: address of its indirect tables, or 0; `polls`: the driver asks
   * for no interrupts.
   */
  #startQueue(driver: number, virtqueue: number, at: number, indirect: number, polls: boolean): void {
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
      polls,
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
