/**
 * Benchmarks: how long the core takes to start, the ring and the mempool, then PVP over both attachments, and what the NIC's mark and the mapping give;
 * with --native also the ring and PVP in C, in turn with ours. Absolute times vary with the machine: compare within
 * one run.
 */
import { readFileSync } from "node:fs";
import Benchmark from "benchmark";
import { BUFFER_ROOM, Kind, Packet } from "../assembly/layout.ts";
import { createPool } from "../src/core/pool.ts";
import { createRing } from "../src/core/ring.ts";
import { Core, pvp } from "../src/index.ts";
import { median } from "../src/median.ts";
import { table, verdict } from "../src/report/table.ts";
import { ablation } from "./ablation.ts";
import { native } from "./native.ts";

const BURST = 32;

/** A ring of 1024 slots, and a burst through it. */
function ring(core: Core): () => void {
  const { exports } = core;
  const at = createRing(core, 1024).address;
  const list = core.place(Kind.BYTES, BURST * Packet.SIZE, "burst").address;
  return () => {
    exports.enqueue(at, list, BURST);
    exports.dequeue(at, list, BURST);
  };
}

function pool(core: Core): () => void {
  const { exports } = core;
  const at = createPool(core, 1024, BUFFER_ROOM).address;
  const list = core.place(Kind.BYTES, BURST * Packet.SIZE, "burst").address;
  return () => exports.giveBuffers(at, 0, list, exports.takeBuffers(at, 0, list, BURST));
}

/** Both builds of the core: compiled and instantiated, in milliseconds. */
function starts(): string {
  return ["iovtee.wasm", "iovtee.shared.wasm"]
    .map((name) => {
      const bytes = readFileSync(`dist/src/platform/${name}`);
      const shared = name.includes("shared");
      const times = Array.from({ length: 21 }, (_, i) => {
        // A custom section of its own, or the engine would know the module from last time.
        const fresh = Buffer.concat([bytes, Buffer.of(0, 2, 0, i)]);
        const memory = new WebAssembly.Memory({ initial: 16, maximum: 16, shared });
        const start = performance.now();
        new WebAssembly.Instance(new WebAssembly.Module(fresh), { env: { memory, lookup: () => {} } });
        return performance.now() - start;
      });
      return `${name}: ${bytes.length} bytes, compiled and instantiated in ${median(times).toFixed(2)} ms`;
    })
    .join("\n");
}

console.log(starts());
new Benchmark.Suite()
  .add("ring, one thread's build: burst of 32 in and out", ring(await Core.create(2 ** 24, false)))
  .add("ring, shared build: burst of 32 in and out", ring(await Core.create(2 ** 24, true)))
  .add("mempool: burst of 32 taken and given back", pool(await Core.create(2 ** 24, false)))
  .on("cycle", (event: Benchmark.Event) => {
    const ns = (event.target.stats?.mean ?? 0) * 1e9;
    console.log(`${event.target.name}: ${(ns / BURST).toFixed(2)} ns a packet`);
  })
  .run();

const report = await pvp({});
console.log(`${table(report)}\n${verdict(report)}`);
console.log(await ablation());
if (process.argv.includes("--native")) console.log(await native(ring(await Core.create(2 ** 24, true))));
