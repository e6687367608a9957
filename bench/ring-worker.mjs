// One side of bench/ring.ts' ring: on each message runs its loop once, and tells what the consumer took.
import { readFileSync, readlinkSync } from "node:fs";
import { basename } from "node:path";
import { parentPort, workerData } from "node:worker_threads";

const { module, memory, ring, list, side, warm, count } = workerData;
if (parentPort === null) throw new Error("bench/ring-worker.mjs: run by bench/ring.ts");
const port = parentPort;
/** @typedef {(ring: number, list: number, first: number, end: number) => number} Loop */
const { exports } = new WebAssembly.Instance(module, { env: { memory } });
const { produce, consume } = /** @type {{ produce: Loop, consume: Loop }} */ (exports);

/** Nanoseconds that this thread could have run, but another one had its CPU. */
const waited = () => Number(readFileSync("/proc/thread-self/schedstat", "utf8").split(" ")[1]);

let next = 0;
port.on("message", () => {
  const begin = next;
  next = (next + warm + count) | 0;
  const before = waited();
  if (side === "producer") {
    produce(ring, list, begin, next);
    port.postMessage({ waited: waited() - before });
  } else {
    let wrong = consume(ring, list, begin, (begin + warm) | 0);
    const start = performance.now();
    wrong += consume(ring, list, (begin + warm) | 0, next);
    const ns = ((performance.now() - start) * 1e6) / count;
    port.postMessage({ ns, wrong, waited: waited() - before });
  }
});
// Linux knows this thread by this number.
port.postMessage(Number(basename(readlinkSync("/proc/thread-self"))));
