/** What NICs, guests, switches and ports need of the host that they are in. */
import type { Core } from "./core.ts";

export interface HostMemory {
  /** The core on the host's memory. */
  readonly core: Core;
  /** The pool of the host's buffers: its directory id and its address. */
  readonly poolId: number;
  readonly pool: number;
  /** Address of the calling thread's lcore. */
  readonly lcore: number;
  /**
   * Makes a change to what lcores use, while none of them touches anything; afterwards they poll what is there then.
   * Changes may be nested.
   * @param options `placed`: what they poll stays as it is
   * @throws LcoreError where an lcore doesn't pause
   */
  paused<T>(change: () => T, options?: { placed?: boolean }): T;
  /** Sets the core's clock, by which addresses age and rates are kept. */
  tick(): void;
  /**
   * Has a lookup in WebAssembly ready wherever the host's switches run; called within `paused`.
   * @returns and @throws as `Core.addLookup`
   */
  addLookup(lookup: WebAssembly.Module): { place: number; stateBytes: number };
  /** `check` is called after each poll on the calling thread. */
  afterPoll(check: () => void): void;
  /** There is something to poll: an idle `run()` on this thread goes on at once. */
  wake(): void;
}
