/**
 * A function of a card in a guest: a VF (SR-IOV), or the whole port (passthrough). The card writes and reads the guest's
 * buffers by itself, through the IOMMU; neither host nor switch touches a frame.
 */
import { Driver, DriverKind, Kind, LINE, Packet } from "../../assembly/layout.ts";
import { align } from "../core/access.ts";
import type { Core } from "../core/core.ts";
import type { PciFunction } from "../roles/pci-function.ts";
import type { GuestDevice, GuestMemory } from "./device.ts";

/** Bytes of guest memory that two rings of `ring` descriptors take. */
export function nativeBytes(ring: number): number {
  return 2 * align(ring * Packet.SIZE, LINE);
}

/** Guest memory holds from address 0 on the receive ring and the transmit ring. */
export class NativeDevice implements GuestDevice {
  readonly kind = DriverKind.NATIVE;
  readonly rx: number;
  readonly tx: number;
  readonly #core: Core;
  #running = false;

  /**
   * @throws RangeError for a function that another guest has, and where the memory is full
   */
  constructor(
    readonly memory: GuestMemory,
    readonly ring: number,
    readonly pciFunction: PciFunction,
  ) {
    const { core, name, region, regionSize } = memory;
    this.#core = core;
    pciFunction.give(name, region.address, regionSize);
    const bytes = Driver.SIZE + ring * Packet.SIZE;
    this.rx = core.place(Kind.DRIVER, bytes, name, region.id).address;
    this.tx = core.place(Kind.DRIVER, bytes, name, region.id).address;
  }

  get running(): boolean {
    return this.#running && !this.pciFunction.gone;
  }

  start(): void {
    const { ring: size, pciFunction } = this;
    const tx = nativeBytes(size) / 2;
    pciFunction.start({ address: 0, size }, { address: tx, size });
    this.#startDriver(this.rx, 0, pciFunction.rx, {});
    // What the card says of a sent buffer's length is nothing.
    this.#startDriver(this.tx, tx, pciFunction.tx, {
      [Driver.ignored]: 0xffffffff,
      [Driver.card]: pciFunction.card,
    });
    this.#running = true;
  }

  /** The driver of the ring at guest address `at`, with the registers at `device`. */
  #startDriver(driver: number, at: number, device: number, fields: Readonly<Record<number, number>>): void {
    const core = this.#core;
    const base = this.memory.region.address;
    const shadow = driver + Driver.SIZE;
    core.bytes.fill(0, base + at, base + at + this.ring * Packet.SIZE);
    core.bytes.fill(0, driver, shadow + this.ring * Packet.SIZE);
    core.setFields(driver, {
      [Driver.desc]: base + at,
      [Driver.device]: device,
      [Driver.size]: this.ring,
      [Driver.base]: base,
      [Driver.freeCount]: this.ring,
      [Driver.shadow]: shadow,
      ...fields,
    });
  }

  stop(): void {
    this.pciFunction.stop();
    this.#running = false;
  }

  ringFor(poller: number): void {
    this.pciFunction.bell = poller;
  }
}
