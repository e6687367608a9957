/** What NICs, guests, switches and ports need of the host that they are in. */
import type { Core } from "./core.ts";

export interface HostMemory {
  /** The core on the host's memory. */
  readonly core: Core;
  /** The pool of the host's buffers: its directory id and its address. */
  readonly poolId: number;
  readonly pool: number;
  /** Address of the lcore that polls switches and guests. */
  readonly lcore: number;
}
