/** u64 counters in memory, each with one writer. */
export class Count {
  @inline static add(p: usize, n: u64): void {
    store<u64>(p, load<u64>(p) + n);
  }
}
