/**
 * Makes both sides of a virtqueue: the device's (layout: `Virtqueue`), which the core's `startVirtqueue` makes
 * ready, and the guest driver's (layout: `Driver`).
 */
import {
  DescFlag,
  Driver,
  DriverMode,
  Feature,
  FRAME_MAX,
  FRAME_MIN,
  INDIRECT_ENTRIES,
  Kind,
  LINE,
  PackedEvent,
  Packet,
  RING_FLAG_NO_EVENT,
  SplitAvail,
  SplitDesc,
  SplitUsed,
  Virtqueue,
} from "../../assembly/layout.ts";
import { type Access, align } from "./access.ts";
import type { Core, Placed } from "./core.ts";

/**
 * The device's side of a virtqueue of the guest in `region`, a region of `bytes` bytes. Not ready yet; what its
 * buffers are `initTake` says.
 * @throws RangeError naming `what` where the memory is full
 */
export function createVirtqueue(core: Core, region: Placed, bytes: number, what: string): Placed {
  const virtqueue = core.place(Kind.VIRTQUEUE, Virtqueue.SIZE, what, region.id);
  core.setFields(virtqueue.address, {
    [Virtqueue.id]: virtqueue.id,
    [Virtqueue.base]: region.address,
    [Virtqueue.limit]: bytes,
  });
  return virtqueue;
}

/** What the host is to make of a queue's plain buffers. */
export interface TakeFields {
  /** The device writes into them. */
  writable: boolean;
  /** Bytes in front that are left out: a net header that the device reads. Then the rest is a frame. */
  skip?: number;
  /** Bytes of the smallest that is taken as it is; default: what holds a frame, or one byte. */
  least?: number;
  /** Directory id that taken buffers carry as their owner. */
  owner: number;
}

/** Says what the buffers of the queue at `address` are, and what they are taken as. */
export function initTake(access: Access, address: number, fields: TakeFields): void {
  const { writable, skip = 0, owner, least = skip ? skip + FRAME_MIN : 1 } = fields;
  access.setFields(address, {
    [Virtqueue.direction]: writable ? DescFlag.WRITE : 0,
    [Virtqueue.least]: least,
    [Virtqueue.range]: (skip ? skip + FRAME_MAX : 0xffff) - least,
    [Virtqueue.skip]: skip,
  });
  access.setU16(address + Virtqueue.blank + Packet.owner, owner);
  access.setU16(address + Virtqueue.blank + Packet.mark, 1);
}

/**
 * Where a queue's three areas are, from its start: descriptors at 0, then the driver's and the device's area, each
 * on a line of its own; `bytes` in all. There is room for either format.
 */
export function queueAreas(size: number): { driver: number; device: number; bytes: number } {
  const driver = align(size * SplitDesc.SIZE, LINE);
  const device = driver + align(SplitAvail.ring + 2 * size + 2, LINE);
  return { driver, device, bytes: device + align(SplitUsed.ring + SplitUsed.ELEMENT * size + 2, LINE) };
}

function shadowOffset(size: number): number {
  return align(Driver.SIZE + 2 * size, LINE);
}

/** Private memory of a driver of a queue of `size` descriptors, in bytes; `indirect`: with indirect tables. */
export function driverBytes(size: number, indirect: boolean): number {
  return shadowOffset(size) + Packet.SIZE * size * (indirect ? 1 + INDIRECT_ENTRIES : 1);
}

export interface DriverFields {
  /** Addresses in memory (not guest addresses) of the queue's three areas, which are zero. */
  desc: number;
  driver: number;
  device: number;
  /** Descriptors in the ring. */
  size: number;
  /** Bits of `Feature`. */
  features: number;
  /** Start of the guest's region. */
  base: number;
  /** It asks for no interrupts. */
  polls: boolean;
  /** Address of size * INDIRECT_ENTRIES descriptors in the region, or 0. */
  indirect: number;
}

/** A driver at `address`, in `driverBytes` bytes. */
export function initDriver(access: Access, address: number, fields: DriverFields): void {
  const { driver, size, features, polls } = fields;
  access.bytes.fill(0, address, address + driverBytes(size, fields.indirect !== 0));
  const freeIds = address + Driver.SIZE;
  const shadow = address + shadowOffset(size);
  access.setFields(address, {
    [Driver.desc]: fields.desc,
    [Driver.driver]: driver,
    [Driver.device]: fields.device,
    [Driver.size]: size,
    [Driver.features]: features,
    [Driver.base]: fields.base,
    [Driver.mode]: polls ? DriverMode.POLL : DriverMode.INTERRUPT,
    [Driver.availWrap]: 1, // 2.8.1: both wrap counters begin with 1
    [Driver.usedWrap]: 1,
    [Driver.freeIds]: freeIds,
    [Driver.freeCount]: size,
    [Driver.shadow]: shadow,
    [Driver.indirect]: features & Feature.INDIRECT_DESC ? fields.indirect : 0, // 2.7.5.3.1, 2.8.19
    [Driver.indirectShadow]: shadow + Packet.SIZE * size,
  });
  for (let i = 0; i < size; i++) access.setU16(freeIds + 2 * i, size - 1 - i);
  if (features & Feature.PACKED) {
    access.setU16(driver + PackedEvent.flags, polls ? PackedEvent.DISABLE : PackedEvent.ENABLE);
  } else if (features & Feature.EVENT_IDX) {
    access.setU16(driver + SplitAvail.ring + 2 * size, polls ? 0xffff : 0);
  } else access.setU16(driver + SplitAvail.flags, polls ? RING_FLAG_NO_EVENT : 0);
}
