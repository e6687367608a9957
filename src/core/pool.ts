/** Makes mempools (layout: `Pool`, `PoolCache`). The core's `takeBuffers` and `giveBuffers` move buffers. */
import { HEADROOM, Kind, LCORES_MAX, Pool, PoolCache, RingKind } from "../../assembly/layout.ts";
import type { Access } from "./access.ts";
import type { Core, Placed } from "./core.ts";
import { writePacket } from "./packet.ts";
import { createRing, fillRing } from "./ring.ts";

/** The header and a cache for each lcore; buffers and ring stand elsewhere. */
export function poolBytes(): number {
  return Pool.caches + LCORES_MAX * PoolCache.SIZE;
}

/**
 * A pool at `address`, where the memory is zero; all its buffers lie in the ring at `ring`, which is empty.
 * @param fields `base`: the first buffer's address. A buffer has `room` bytes for a frame behind `headroom` others.
 */
export function initPool(
  access: Access,
  address: number,
  fields: { id: number; count: number; base: number; headroom: number; room: number; ring: number },
): void {
  const { id, count, base, headroom, room, ring } = fields;
  const stride = headroom + room;
  access.setFields(address, {
    [Pool.id]: id,
    [Pool.count]: count,
    [Pool.stride]: stride,
    [Pool.room]: room,
    [Pool.ring]: ring,
  });
  writePacket(access, address + Pool.blank, { addr: base + headroom, len: room, owner: id, index: 0 });
  fillRing(access, ring, count, (slot, index) => {
    writePacket(access, slot, { addr: base + index * stride + headroom, len: room, owner: id, index });
  });
}

/**
 * A pool of `count` buffers, each of `room` bytes behind HEADROOM.
 * @throws RangeError where the memory is full
 */
export function createPool(core: Core, count: number, room: number): Placed {
  const pool = core.place(Kind.POOL, poolBytes(), "pool");
  let slots = 2;
  while (slots < count) slots *= 2;
  const ring = createRing(core, slots, { kind: RingKind.MPMC, what: "pool", parent: pool.id });
  const buffers = core.place(Kind.BYTES, count * (HEADROOM + room), "pool", pool.id);
  initPool(core, pool.address, {
    id: pool.id,
    count,
    base: buffers.address,
    headroom: HEADROOM,
    room,
    ring: ring.address,
  });
  return pool;
}
