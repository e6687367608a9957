/**
 * How a thread wakes another that sleeps (layout: `Lcore`, `Poller`).
 *
 * Whoever has work for a poller rings for it, but only if the poller has asked for that, which it does when it finds
 * nothing more to do. Both sides write first and then look at what the other wrote, in one order that all threads
 * agree on, so that at least one of them sees the other and no wake-up is lost:
 *
 *     poller:  arm;             look for work once more;    set asleep;  wait unless the doorbell has moved
 *     other:   publish work;    armed? ->                   set signal;  move the doorbell;  asleep? -> notify
 *
 * test/doorbell.test.ts goes through all interleavings of it.
 */
import { Lcore, Poller } from "./layout";
import { Sync } from "./sync";

export class Doorbell {
  /** Rings for `poller` (0: for nobody). */
  static ring(poller: usize): void {
    if (!poller) return;
    const lcore: usize = load<u32>(poller, Poller.lcore);
    const number = <u32>(poller - lcore - Lcore.pollers) / Poller.SIZE;
    Sync.or(lcore + Lcore.signals + (number >> 5) * 4, 1 << (number & 31));
    Sync.add(lcore + Lcore.doorbell, 1);
    if (ASC_FEATURE_THREADS && Sync.load<u32>(lcore + Lcore.asleep)) atomic.notify(lcore + Lcore.doorbell, 1);
  }

  /** Rings for the poller at `bell` if the flag at `armed` is set. */
  @inline static ringIfArmed(armed: usize, bell: usize): void {
    if (Sync.load<u32>(armed)) Doorbell.ring(load<u32>(bell));
  }
}
