/**
 * IOVTee: a receive queue of the NIC mapped to a guest's receive virtqueue (layout: `Mapping`). The card writes
 * into the guest's buffers; a frame goes from one to the other without a copy. R1 to R12 are the rules that
 * docs/design.md lists.
 */
import { Kind, Mapping, NetHeader, OnEmpty, Packet, RxQueue } from "../../assembly/layout.ts";
import type { Core, Placed } from "../core/core.ts";
import { parseMac } from "../mac.ts";
import type { Nic } from "../roles/nic.ts";

/** Bytes of the smallest buffer that is mapped: the net header and a minimal frame. */
export const SMALLEST = NetHeader.SIZE + 60;

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
  // The PRing, and the segments of a buffer that is looked at.
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
 * Maps a receive queue of `nic` to the guest, which is at switch port `port`: its descriptors are the guest's
 * buffers (R2), and the card's filter steers the guest's MAC address to it (R1). It is made at the first time.
 * @param deliver hands on all frames that the card has received
 * @throws RangeError for a guest that is attached otherwise or mapped already, or where memory or filters are full
 */
export function map(nic: Nic, guest: Mapped, port: number, deliver: () => void): void {
  const { core } = nic.host;
  if (!guest.mapping) throw new RangeError(`${guest.name}: attached by ${guest.attach}, expected "iovtee"`);
  const old = core.u32(guest.mapping + Mapping.queue);
  if (old && (core.u32(old + RxQueue.enabled) || core.u32(old + RxQueue.nic) !== nic.address)) {
    throw new RangeError(`${guest.name}: mapped already, expected one card and one mapping for each guest`);
  }
  const queue = old || nic.addMappedQueue(guest.mapping, NetHeader.SIZE);
  core.setU32(guest.mapping + Mapping.queue, queue);
  core.setU64(guest.mapping + Mapping.mac, parseMac(guest.mac));
  deliver(); // what came another way until now must not be overtaken (R6)
  core.setU32(queue + RxQueue.enabled, 1);
  core.exports.refillMapping(guest.mapping, 0);
  try {
    nic.steer(guest.mac, 0, core.u32(queue + RxQueue.index), port);
  } catch (error) {
    takeBack(nic, guest, queue);
    throw error;
  }
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
  takeBack(nic, guest, queue, deliver);
}

/** Stops receive queue `queue`, hands on what it received, and takes the guest's buffers back from the card. */
function takeBack(nic: Nic, guest: Mapped, queue: number, deliver?: () => void): void {
  const { core } = nic.host;
  core.setU32(queue + RxQueue.enabled, 0);
  core.exports.flushNic(nic.address); // the card ends its DMA and answers
  deliver?.();
  core.exports.reclaimMapping(guest.mapping, 0);
}
