/**
 * Mempool: equal buffers in host memory (layout: `Pool`, `PoolCache`). Each lcore has a cache, the last freed
 * buffer on top because it is the warmest; behind the caches one MPMC ring, a chunk at a time (as
 * DPDK's rte_mempool does).
 *
 * Invariant: buffers = free in caches + free in the ring + (allocated - freed).
 */
import { Count } from "./count";
import { LCORES_MAX, Packet, Pool, PoolCache } from "./layout";
import { Desc } from "./packet";
import { Rings } from "./ring";

export class Mempool {
  @inline static cache(pool: usize, lcore: u32): usize {
    return pool + Pool.caches + lcore * PoolCache.SIZE;
  }

  /** Up to `n` free buffers to `to`, at most a chunk; returns how many. */
  static take(pool: usize, lcore: u32, to: usize, n: u32): u32 {
    const cache = Mempool.cache(pool, lcore);
    let length = load<u32>(cache, PoolCache.length);
    n = min<u32>(n, PoolCache.CHUNK);
    if (length < n) {
      const slots = cache + PoolCache.slots;
      length += Rings.dequeueBurst(load<u32>(pool, Pool.ring), slots + length * Packet.SIZE, PoolCache.CHUNK);
      if (length < n) {
        Count.add(cache + PoolCache.failed, n - length);
        n = length;
      }
    }
    length -= n;
    store<u32>(cache, length, PoolCache.length);
    Count.add(cache + PoolCache.allocated, n);
    Desc.copy(to, cache + PoolCache.slots + length * Packet.SIZE, n);
    return n;
  }

  /** Gives back `n` buffers of this pool, as restored descriptors. */
  static give(pool: usize, lcore: u32, from: usize, n: u32): void {
    const cache = Mempool.cache(pool, lcore);
    const slots = cache + PoolCache.slots;
    let length = load<u32>(cache, PoolCache.length);
    Count.add(cache + PoolCache.freed, n);
    while (n) {
      if (length == PoolCache.CAPACITY) {
        // The coldest go: those at the bottom.
        Rings.enqueueBulk(load<u32>(pool, Pool.ring), slots, PoolCache.CHUNK);
        length -= PoolCache.CHUNK;
        memory.copy(slots, slots + PoolCache.CHUNK * Packet.SIZE, length * Packet.SIZE);
      }
      const some = min<u32>(n, PoolCache.CAPACITY - length);
      const stride = load<u32>(pool, Pool.stride);
      const blank = v128.load(pool, Pool.blank);
      const base = load<u32>(pool, Pool.blank);
      let to = slots + length * Packet.SIZE;
      for (const end = to + some * Packet.SIZE; to != end; to += Packet.SIZE) {
        const index = load<u16>(from, Packet.index);
        v128.store(to, i16x8.replace_lane(i32x4.replace_lane(blank, 0, base + index * stride), 5, index));
        from += Packet.SIZE;
      }
      length += some;
      n -= some;
    }
    store<u32>(cache, length, PoolCache.length);
  }

  /** Buffers that are out: allocated and not freed, over all lcores. */
  static outstanding(pool: usize): u32 {
    let sum: u64 = 0;
    for (let lcore: u32 = 0; lcore < <u32>LCORES_MAX; lcore++) {
      const cache = Mempool.cache(pool, lcore);
      sum += load<u64>(cache, PoolCache.allocated) - load<u64>(cache, PoolCache.freed);
    }
    return <u32>sum;
  }

  /** Buffers that lie in the caches and in the ring. */
  static available(pool: usize): u32 {
    let sum = Rings.count(load<u32>(pool, Pool.ring));
    for (let lcore: u32 = 0; lcore < <u32>LCORES_MAX; lcore++) {
      sum += load<u32>(Mempool.cache(pool, lcore), PoolCache.length);
    }
    return sum;
  }
}
