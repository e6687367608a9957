/**
 * Benchmarks: the ring and the mempool, then PVP over both attachments; with --native also the ring in C, in turn
 * with ours. Absolute times vary with the machine: compare within one run.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Benchmark from "benchmark";
import { BUFFER_ROOM, Kind, Packet } from "../assembly/layout.ts";
import { createPool } from "../src/core/pool.ts";
import { createRing } from "../src/core/ring.ts";
import { Core, pvp } from "../src/index.ts";
import { table, verdict } from "../src/report/table.ts";

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

const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1] as number;

new Benchmark.Suite()
  .add("ring, one thread's build: burst of 32 in and out", ring(Core.create(2 ** 24, false)))
  .add("ring, shared build: burst of 32 in and out", ring(Core.create(2 ** 24, true)))
  .add("mempool: burst of 32 taken and given back", pool(Core.create(2 ** 24, false)))
  .on("cycle", (event: Benchmark.Event) => {
    const ns = (event.target.stats?.mean ?? 0) * 1e9;
    console.log(`${event.target.name}: ${(ns / BURST).toFixed(2)} ns a packet`);
  })
  .run();

if (process.argv.includes("--native")) native();

const report = await pvp({});
console.log(`${table(report)}\n${verdict(report)}`);

/** The ring in C and in WebAssembly (shared build), turn by turn, seven rounds. */
function native(): void {
  if (spawnSync("gcc", ["--version"]).error) {
    console.log("native: skipped, there is no gcc");
    return;
  }
  const program = join(mkdtempSync(join(tmpdir(), "iovtee-bench-")), "ring");
  execFileSync("gcc", ["-O3", "-march=native", "-std=gnu11", "-o", program, "bench/native/ring.c"]);
  const burst = ring(Core.create(2 ** 24, true));
  const rounds = Array.from({ length: 7 }, () => {
    const start = performance.now();
    const count = 1_000_000;
    for (let i = 0; i < count; i++) burst();
    const ours = ((performance.now() - start) * 1e6) / (count * BURST);
    return { ours, c: Number(execFileSync(program, { encoding: "utf8" })) };
  });
  const ratio = median(rounds.map(({ ours, c }) => ours / c));
  const [ours, c] = [median(rounds.map((r) => r.ours)), median(rounds.map((r) => r.c))];
  console.log(
    `ring, shared build: ${ours.toFixed(2)} ns, in C ${c.toFixed(2)} ns a packet: ${ratio.toFixed(2)} times C`,
  );
}
