/** An lcore: its pollers, run to completion one after the other (layout: `Lcore`). */
import { Guests } from "./guest";
import { Kind, Lcore } from "./layout";
import { Switching } from "./switch";

export class Lcores {
  /** One turn of every poller. Returns the frames moved. */
  static poll(lcore: usize): u32 {
    const n = load<u32>(lcore, Lcore.count);
    let moved: u32 = 0;
    for (let i: u32 = 0; i < n; i++) {
      const p = lcore + Lcore.pollers + i * Lcore.POLLER;
      const addr: usize = load<u32>(p, 4);
      moved += load<u32>(p) == Kind.SWITCH ? Switching.poll(addr) : Guests.poll(addr);
    }
    return moved;
  }

  /** Turns until one moves nothing, at most `turns`. Returns the frames moved. */
  static drain(lcore: usize, turns: u32): u32 {
    let moved: u32 = 0;
    while (turns--) {
      const some = Lcores.poll(lcore);
      if (!some) break;
      moved += some;
    }
    return moved;
  }

  static add(lcore: usize, kind: u32, addr: u32): bool {
    const n = load<u32>(lcore, Lcore.count);
    if (n == Lcore.POLLERS_MAX) return false;
    const p = lcore + Lcore.pollers + n * Lcore.POLLER;
    store<u32>(p, kind);
    store<u32>(p, addr, 4);
    store<u32>(lcore, n + 1, Lcore.count);
    return true;
  }
}
