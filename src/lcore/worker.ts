/** A worker's program: attaches to the host's memory and runs one lcore until it is told to stop. */
import { started } from "#platform";
import { Lcore, LcoreParked } from "../../assembly/layout.ts";
import { Core } from "../core/core.ts";

/** Of one call of the core; then the engine may have faster code for the next. */
const TURNS = 65536;

// Not awaited at the top level: bundlers make scripts of workers that aren't modules.
async function main(): Promise<void> {
  const { start, tell, nextLookup } = await started();
  try {
    const core = await Core.attach(start.memory, start.module);
    const load = (lookup: WebAssembly.Module) => {
      core.addLookup(lookup);
      core.setU32(start.lcore + Lcore.lookupsLoaded, core.lookupModules.length);
    };
    core.setU32(start.lcore + Lcore.lookupsLoaded, 0);
    for (const lookup of start.lookups) load(lookup);
    try {
      let goesOn = core.exports.runLcore(start.lcore, 0, true);
      tell({ is: "running" });
      while (goesOn) {
        // It comes back early where there is one more.
        const missing = core.u32(start.lcore + Lcore.lookups) - core.lookupModules.length;
        for (let i = 0; i < missing; i++) load(await nextLookup());
        goesOn = core.exports.runLcore(start.lcore, TURNS, false);
      }
    } catch (error) {
      // Whoever waits for it to pause may be unable to hear of it now. Where it was a lookup that trapped, nothing is half
      // done.
      const words = new Int32Array(start.memory.buffer);
      const at = (start.lcore + Lcore.parked) >> 2;
      const atRest = core.exports.abandonBursts(start.lcore);
      Atomics.store(words, at, atRest ? LcoreParked.YES : LcoreParked.FAILED);
      Atomics.notify(words, at);
      throw error;
    }
    tell({ is: "stopped" });
  } catch (error) {
    tell({ is: "failed", why: error instanceof Error ? error.message : String(error) });
  }
}

void main();
