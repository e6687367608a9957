/**
 * IOVTee: a receive queue of the NIC mapped to a guest's receive virtqueue (layout: `Mapping`). The card writes
 * into the guest's buffers; a frame goes from one to the other without a copy. R1 to R12 are the rules that
 * docs/design.md lists.
 */
import { Kind, Mapping, NetHeader, OnEmpty, Packet, RxQueue } from "../../assembly/layout.ts";
import type { Core, Placed } from "../core/core.ts";
import type { Nic } from "../roles/nic.ts";

export interface MappingOptions {
  /** IOVTee: what the NIC gets when the guest has posted no buffer; default "host". */
  onEmpty?: "host" | "wait";
  /** IOVTee: wipe what a missed frame left in the guest's buffer; default true. */
  scrub?: boolean;
}

/** What is to be known of a guest: its name, its MAC address, and its mapping's address. */
export interface Mapped {
  readonly name: string;
  readonly mac: string;
  readonly attach: string;
  readonly mapping: number;
}

/**
 * A mapping over a guest's receive virtqueue; no queue of a NIC belongs to it yet.
 * @param virtqueue address of the device's side
 * @param size its descriptors, a power of two
 * @throws RangeError naming `what` where the memory is full
 */
export function createMapping(
  core: Core,
  virtqueue: number,
  size: number,
  options: MappingOptions,
  what: string,
): Placed {
  // The PRing, and each buffer as it was posted.
  const mapping = core.place(Kind.MAPPING, Mapping.pring + 2 * size * Packet.SIZE, what);
  core.setFields(mapping.address, {
    [Mapping.id]: mapping.id,
    [Mapping.virtqueue]: virtqueue,
    [Mapping.mask]: size - 1,
    [Mapping.onEmpty]: options.onEmpty === "wait" ? OnEmpty.WAIT : OnEmpty.HOST,
    [Mapping.scrub]: (options.scrub ?? true) ? 1 : 0,
  });
  return mapping;
}

/**
 * Maps a new receive queue of `nic` to the guest, which is at switch port `port`: the card's filter steers the
 * guest's MAC address to that queue (R1), and its descriptors are the guest's buffers (R2).
 * @throws RangeError for a guest that is attached otherwise, or where memory or filters are full
 */
export function map(nic: Nic, guest: Mapped, port: number): void {
  if (!guest.mapping) throw new RangeError(`${guest.name}: attached by ${guest.attach}, expected "iovtee"`);
  const queue = nic.addMappedQueue(guest.mapping, NetHeader.SIZE);
  nic.host.core.setFields(guest.mapping, { [Mapping.queue]: nic.rxQueue(queue), [Mapping.active]: 1 });
  feed(nic, guest, queue, port);
}

/**
 * Undoes `map` (R7): when it returns, the card writes nothing more into the guest's memory, and the guest's buffers
 * are used by the copying path.
 * @param deliver hands on all frames that the card has received
 */
export function unmap(nic: Nic, guest: Mapped, deliver: () => void): void {
  const { core } = nic.host;
  const queue = core.u32(guest.mapping + Mapping.queue);
  nic.unsteer(guest.mac);
  core.setU32(queue + RxQueue.enabled, 0);
  core.exports.flushNic(nic.address); // the card ends its DMA and answers
  deliver();
  core.exports.reclaimMapping(guest.mapping, 0);
}

/** Maps again what `unmap` undid. */
export function remap(nic: Nic, guest: Mapped, port: number): void {
  const { core } = nic.host;
  const queue = core.u32(guest.mapping + Mapping.queue);
  core.setU32(queue + RxQueue.enabled, 1);
  feed(nic, guest, core.u32(queue + RxQueue.index), port);
}

/** Posts the guest's buffers to receive queue `queue`, then steers its frames there. */
function feed(nic: Nic, guest: Mapped, queue: number, port: number): void {
  const { exports } = nic.host.core;
  exports.fillMapping(guest.mapping);
  exports.refillMapping(guest.mapping, 0);
  nic.steer(guest.mac, 0, queue, port);
}
