/** An lcore: its pollers, run to completion one after the other (layout: `Lcore`). */
import { Guests } from "./guest";
import { Kind, Lcore, Poller } from "./layout";
import { Switching } from "./switch";

export class Lcores {
  /** One turn of every poller. Returns the frames moved. */
  static poll(lcore: usize): u32 {
    const n = load<u32>(lcore, Lcore.count);
    let moved: u32 = 0;
    for (let i: u32 = 0; i < n; i++) {
      const p = lcore + Lcore.pollers + i * Poller.SIZE;
      const addr: usize = load<u32>(p, Poller.addr);
      moved += load<u32>(p, Poller.kind) == Kind.SWITCH ? Switching.poll(addr) : Guests.poll(addr);
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
}
