/** A worker's program: attaches to the host's memory and runs one lcore until it is told to stop. */
import { parentPort, workerData } from "node:worker_threads";
import { Core } from "../core/core.ts";
import type { ThreadMessage, ThreadStart } from "./thread.ts";

const tell = (message: ThreadMessage) => parentPort?.postMessage(message);

try {
  const { memory, lcore } = workerData as ThreadStart;
  const core = Core.attach(memory);
  tell({ is: "running" });
  core.exports.runLcore(lcore);
  tell({ is: "stopped" });
} catch (error) {
  tell({ is: "failed", why: error instanceof Error ? error.message : String(error) });
}
