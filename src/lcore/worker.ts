/** A worker's program: attaches to the host's memory and runs one lcore until it is told to stop. */
import { started } from "#platform";
import { Core } from "../core/core.ts";

const { start, tell } = await started();
try {
  const core = await Core.attach(start.memory, start.module);
  tell({ is: "running" });
  core.exports.runLcore(start.lcore);
  tell({ is: "stopped" });
} catch (error) {
  tell({ is: "failed", why: error instanceof Error ? error.message : String(error) });
}
