/**
 * How one side's writes become visible to the other. In the shared build these are WebAssembly's atomics,
 * all sequentially consistent; in the single-threaded build they are plain accesses.
 *
 * A store costs about 4.7 ns, a load 0.4 ns: so there is one store for each burst, none for each packet.
 * A store followed by a load from another address keeps that order; `atomic.fence()` is not needed (and
 * not usable: the optimiser deletes it).
 */
export class Sync {
  /** Acquire: what the other side wrote before its `store` of this value is visible after this. */
  @inline static load<T>(p: usize): T {
    if (ASC_FEATURE_THREADS) return atomic.load<T>(p);
    return load<T>(p);
  }

  /** Release: what was written before is visible to whoever loads this value. */
  @inline static store<T>(p: usize, value: T): void {
    if (ASC_FEATURE_THREADS) atomic.store<T>(p, value);
    else store<T>(p, value);
  }

  /** Compare and swap; gives the value that was there. On one thread that is the expected one, as was just seen. */
  @inline static cas(p: usize, expected: u32, value: u32): u32 {
    if (ASC_FEATURE_THREADS) return atomic.cmpxchg<u32>(p, expected, value);
    store<u32>(p, value);
    return expected;
  }

  /** Swaps; gives the value that was there. */
  @inline static exchange(p: usize, value: u32): u32 {
    if (ASC_FEATURE_THREADS) return atomic.xchg<u32>(p, value);
    const before = load<u32>(p);
    store<u32>(p, value);
    return before;
  }

  @inline static or(p: usize, bits: u32): void {
    if (ASC_FEATURE_THREADS) atomic.or<u32>(p, bits);
    else store<u32>(p, load<u32>(p) | bits);
  }

  @inline static add(p: usize, n: u32): void {
    if (ASC_FEATURE_THREADS) atomic.add<u32>(p, n);
    else store<u32>(p, load<u32>(p) + n);
  }
}
