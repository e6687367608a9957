/** Makes mempools (layout: `Pool`, `PoolCache`). The core's `takeBuffers` and `giveBuffers` move buffers. */
import { HEADROOM, Kind, LCORES_MAX, Pool, PoolCache, Ring, RingKind } from "../../assembly/layout.ts";
import type { Access } from "./access.ts";
import type { Core, Placed } from "./core.ts";
import { writePacket } from "./packet.ts";
import { createRing, fillRing } from "./ring.ts";

/** Equal buffers of one memory: number i is `stride * i` behind `address`, and has room for `room` bytes. */
export interface Buffers {
  readonly address: number;
  readonly stride: number;
  readonly room: number;
  readonly count: number;
}

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
  const { pool, ring } = placePool(core, count, "pool");
  const base = core.place(Kind.BYTES, count * (HEADROOM + room), "pool", pool.id).address;
  initPool(core, pool.address, { id: pool.id, count, base, headroom: HEADROOM, room, ring });
  return pool;
}

/**
 * A pool over buffers that are there already, of which those numbered in `held` are out.
 * @throws RangeError where the memory is full
 */
export function createPoolOver(
  core: Core,
  buffers: Buffers,
  held: ReadonlySet<number>,
  what: string,
): Placed {
  const { address, stride, room, count } = buffers;
  const { pool, ring } = placePool(core, count, what);
  const headroom = stride - room;
  initPool(core, pool.address, { id: pool.id, count, base: address - headroom, headroom, room, ring });
  refillPool(core, pool.address, held);
  return pool;
}

/** Memory for a pool of `count` buffers, and an empty ring that holds them all. */
function placePool(core: Core, count: number, what: string): { pool: Placed; ring: number } {
  const pool = core.place(Kind.POOL, poolBytes(), what);
  let slots = 2;
  while (slots < count) slots *= 2;
  return {
    pool,
    ring: createRing(core, slots, { kind: RingKind.MPMC, what, parent: pool.id }).address,
  };
}

/**
 * Sets a pool up anew, but for the buffers whose numbers are `held`: those are out, all others are free. When no lcore
 * runs.
 */
export function refillPool(core: Core, pool: number, held: ReadonlySet<number>): void {
  const free = Array.from({ length: core.u32(pool + Pool.count) }, (_, i) => i).filter((i) => !held.has(i));
  const [base, room] = [core.u32(pool + Pool.blank), core.u32(pool + Pool.room)];
  const [id, stride] = [core.u32(pool + Pool.id), core.u32(pool + Pool.stride)];
  for (let lcore = 0; lcore < LCORES_MAX; lcore++) {
    const cache = pool + Pool.caches + lcore * PoolCache.SIZE;
    core.setU32(cache + PoolCache.length, 0);
    core.setU64(cache + PoolCache.allocated, lcore === 0 ? BigInt(held.size) : 0n);
    core.setU64(cache + PoolCache.freed, 0n);
  }
  const ring = core.u32(pool + Pool.ring);
  core.setFields(ring, { [Ring.head]: 0, [Ring.headDone]: 0, [Ring.tail]: 0, [Ring.tailDone]: 0 });
  fillRing(core, ring, free.length, (slot, i) => {
    const index = free[i] as number;
    writePacket(core, slot, { addr: base + index * stride, len: room, owner: id, index });
  });
}

/**
 * Puts what lies in the caches of all lcores back into the ring, where every lcore finds it: when no lcore runs, so that
 * none keeps buffers that it will never use.
 */
export function emptyCaches(core: Core, pool: number): void {
  for (let lcore = 0; lcore < LCORES_MAX; lcore++) {
    const cache = pool + Pool.caches + lcore * PoolCache.SIZE;
    const length = core.u32(cache + PoolCache.length);
    if (length > 0) core.exports.enqueue(core.u32(pool + Pool.ring), cache + PoolCache.slots, length);
    core.setU32(cache + PoolCache.length, 0);
  }
}
