/** Makes netmap rings (layout: `NetmapRing`, `Kring`, `NetmapDriver`). The core's ports, pipes and bridges move them. */
import {
  DriverMode,
  FRAME_MAX,
  Kind,
  Kring,
  NETMAP_FIRST,
  NetmapDriver,
  NetmapRing,
  NetmapSlot,
  SlotFlag,
} from "../../assembly/layout.ts";
import type { Access } from "./access.ts";
import type { Core } from "./core.ts";
import { writePacket } from "./packet.ts";
import type { Buffers } from "./pool.ts";

/** Whose the buffers of a memory are that has several owners: where that is noted, and whose a ring is. */
export interface Ownership {
  readonly owners: number;
  readonly owner: number;
}

export function netmapRingBytes(slots: number): number {
  return NetmapRing.slots + slots * NetmapSlot.SIZE;
}

/**
 * The host's side of a ring that isn't started yet.
 * @param owner directory id of who gets its buffers back; 0: this ring
 * @returns its address
 * @throws RangeError naming `what` where the memory is full
 */
export function createKring(core: Core, what: string, owner = 0): number {
  const { id, address } = core.place(Kind.NETMAP_RING, Kring.SIZE, what);
  core.setU32(address + Kring.id, id);
  writePacket(core, address + Kring.blank, { addr: 0, len: 0, owner: owner || id, index: 0 });
  return address;
}

/**
 * Starts a ring at `ring`, with buffer `own[i]` in its slot i: of a transmit ring the user has all slots but one, of a receive ring
 * the host has. Counters go on.
 * @param region the guest's memory that indirect buffers lie in
 */
export function startKring(
  core: Core,
  kring: number,
  ring: number,
  slots: number,
  transmit: boolean,
  buffers: Buffers,
  own: readonly number[],
  { region, ownership }: { region?: { address: number; bytes: number }; ownership?: Ownership } = {},
): void {
  core.bytes.fill(0, ring, ring + netmapRingBytes(slots));
  own.forEach((index, i) => {
    core.setU32(ring + NetmapRing.slots + i * NetmapSlot.SIZE, NETMAP_FIRST + index);
    if (ownership) core.bytes[ownership.owners + index] = ownership.owner;
  });
  const hwtail = transmit ? slots - 1 : 0;
  core.setU32(ring + NetmapRing.hwtail, hwtail);
  core.setFields(kring, {
    [Kring.ring]: ring,
    [Kring.mask]: slots - 1,
    [Kring.base]: buffers.address,
    [Kring.stride]: buffers.stride,
    [Kring.room]: Math.min(buffers.room, FRAME_MAX),
    [Kring.count]: buffers.count,
    [Kring.region]: region?.address ?? 0,
    [Kring.regionSize]: region?.bytes ?? 0,
    [Kring.owners]: ownership?.owners ?? 0,
    [Kring.owner]: ownership?.owner ?? 0,
    [Kring.rhead]: 0,
    [Kring.hwcur]: 0,
    [Kring.hwtail]: hwtail,
    [Kring.skipping]: 0,
    [Kring.report]: 0,
    [Kring.taken]: 0,
    [Kring.running]: 1,
  });
}

/**
 * A guest's driver of the ring at `ring`, as `startKring` leaves it.
 * @param held where it notes which buffers it has, u8 each, both rings' drivers at the same place
 */
export function initNetmapDriver(
  access: Access,
  driver: number,
  fields: { ring: number; slots: number; transmit: boolean; buffers: Buffers; held: number; polls: boolean },
): void {
  const { ring, slots, transmit, buffers, held, polls } = fields;
  access.setFields(driver, {
    [NetmapDriver.ring]: ring,
    [NetmapDriver.held]: held,
    [NetmapDriver.size]: slots,
    [NetmapDriver.flags]: transmit ? 0 : SlotFlag.MOREFRAG << 16,
    [NetmapDriver.base]: buffers.address,
    [NetmapDriver.stride]: buffers.stride,
    [NetmapDriver.room]: buffers.room,
    [NetmapDriver.count]: buffers.count,
    [NetmapDriver.mode]: polls ? DriverMode.POLL : DriverMode.INTERRUPT,
    [NetmapDriver.head]: 0,
    [NetmapDriver.cur]: 0,
    [NetmapDriver.freeCount]: 0,
    [NetmapDriver.published]: 0,
  });
  access.setU32(ring + NetmapRing.needKick, polls ? 0 : 1);
}
