/**
 * What a frame costs in a netmap pipe, by its length, on one thread; and in PVP over netmap and pipe beside vhost. In the
 * pipe both users are in the time: one numbers each frame and sends it, the other checks the number. Cycles are short and
 * many, the lengths in turn, so that most are left alone by whoever else uses the machine: the 25th percentile counts.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import Table from "cli-table3";
import { Host, pvp } from "../src/index.ts";
import { lowerQuartile, percentile } from "./percentile.ts";

const SIZES = [64, 512, 1514, 4096, 9000];
const CYCLES = 4000;
/** Frames in a cycle. */
const FRAMES = 2048;
const FOLDER = "build/run/bench";

/** The users' loops, by the options of the build for one thread. */
function loops(memory: WebAssembly.Memory) {
  mkdirSync(FOLDER, { recursive: true });
  const file = `${FOLDER}/netmap.wasm`;
  const asc = ["node_modules/assemblyscript/bin/asc.js", "bench/wasm/netmap.ts", "--target", "single"];
  execFileSync(process.execPath, [...asc, "--outFile", file], { stdio: ["ignore", "ignore", "pipe"] });
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(readFileSync(file)), {
    env: { memory, lookup: () => 0 },
  });
  return exports.run as (t: number, r: number, n: number, len: number, first: number) => number;
}

/** Nanoseconds a frame, cycle by cycle, for each length. */
async function pipe(): Promise<number[][]> {
  const host = await Host.create();
  const [a, b] = host.netmapPipe({ ring: 256, bufferSize: 9022 });
  const run = loops(host.core.memory);
  const ns: number[][] = SIZES.map(() => []);
  let first = 0;
  for (let cycle = -500; cycle < CYCLES; cycle++) {
    SIZES.forEach((size, i) => {
      const start = performance.now();
      const wrong = run(a.tx.kring, b.rx.kring, FRAMES, size - 4, first);
      const time = performance.now() - start;
      if (wrong > 0) throw new Error(`pipe, ${size} B: of ${FRAMES} frames ${wrong} were lost or wrong`);
      first = (first + FRAMES) >>> 0;
      // Until the engine has compiled the loops for speed nothing counts.
      if (cycle >= 0) ns[i]?.push((time * 1e6) / FRAMES);
    });
  }
  return ns;
}

const ns = await pipe();
const table = new Table({
  head: ["pipe, frame", "ns/packet", "10th percentile", "median", "of 64 B's"],
  colAligns: ["right", "right", "right", "right", "right"],
  style: { head: [], border: [], compact: true },
});
const quarter = ns.map(lowerQuartile);
SIZES.forEach((size, i) => {
  const values = ns[i] as number[];
  table.push([
    size,
    (quarter[i] as number).toFixed(2),
    percentile(values, 0.1).toFixed(2),
    percentile(values, 0.5).toFixed(2),
    ((quarter[i] as number) / (quarter[0] as number)).toFixed(3),
  ]);
});
console.log(table.toString());
const spread = Math.max(...quarter) / Math.min(...quarter) - 1;
console.log(`spread over lengths ${(100 * spread).toFixed(1)} %`);

const report = await pvp({
  attach: ["vhost", "netmap", "pipe"],
  size: [64, 1514],
  packets: 50_000,
  repeat: 15,
});
const rates = new Table({
  head: ["PVP", "frame", "ns/packet", "copies", "vhost's throughput"],
  colAligns: ["left", "right", "right", "right", "right"],
  style: { head: [], border: [], compact: true },
});
for (const { attach, frame, nsPerPacket, copiesPerPacket, gainVsVhost, lost, corrupt } of report.runs) {
  if (lost || corrupt) throw new Error(`${attach} ${frame}: ${lost} lost, ${corrupt} corrupt`);
  const gain = gainVsVhost === null ? "1.00" : (1 + gainVsVhost).toFixed(2);
  rates.push([attach, frame, nsPerPacket.toFixed(1), copiesPerPacket.toFixed(2), gain]);
}
console.log(rates.toString());
