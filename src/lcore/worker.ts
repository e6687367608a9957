/** A worker's program: attaches to the host's memory and runs one lcore until it is told to stop. */
import { started } from "#platform";
import { Core } from "../core/core.ts";

/** Of one call of the core; then the engine may have faster code for the next. */
const TURNS = 65536;

// Not awaited at the top level: bundlers make scripts of workers that aren't modules.
async function main(): Promise<void> {
  const { start, tell } = await started();
  try {
    const core = await Core.attach(start.memory, start.module);
    tell({ is: "running" });
    for (let begins = true; core.exports.runLcore(start.lcore, TURNS, begins); ) begins = false;
    tell({ is: "stopped" });
  } catch (error) {
    tell({ is: "failed", why: error instanceof Error ? error.message : String(error) });
  }
}

void main();
