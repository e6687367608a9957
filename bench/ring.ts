/**
 * The core's SPSC ring between two threads on two CPUs, in turn with the same in C. How near two virtual CPUs are
 * changes while a test runs, and the ring's speed with it: so the way between them is measured before and after
 * each run, and rounds are compared only with rounds of the same distance.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync } from "node:fs";
import { Worker } from "node:worker_threads";
import Table from "cli-table3";
import { Kind, Packet } from "../assembly/layout.ts";
import { createRing } from "../src/core/ring.ts";
import { Core } from "../src/index.ts";
import { compile } from "./native.ts";
import { ratio, spread } from "./rig.ts";

const SLOTS = 1024;
const BURST = 32;
const ROUNDS = 41;
/** Descriptors a run, and before it. */
const COUNT = 5_000_000;
const WARM = 500_000;
const FOLDER = "build/run/bench";

interface Round {
  ours: number;
  c: number;
  /** One-way latency of a cache line in nanoseconds, around both. */
  latency: number[];
}

/** As far as two virtual CPUs have been seen apart: hyperthreads, one die, two; or one of them was busy otherwise. */
function distance(latency: number[]): string {
  const classes = latency.map((ns) =>
    ns < 30 ? "siblings" : ns < 120 ? "near" : ns < 1000 ? "far" : "busy",
  );
  return classes.every((one) => one === classes[0]) ? (classes[0] as string) : "mixed";
}

/** The CPUs that this process may use: "0-1,4" is 0, 1, 4. */
function allowedCpus(): number[] {
  const list = /^Cpus_allowed_list:\s*(\S+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "";
  return list.split(",").flatMap((range) => {
    const [from = 0, to = from] = range.split("-").map(Number);
    return Array.from({ length: to - from + 1 }, (_, i) => from + i);
  });
}

/** The core with the loops of bench/wasm/ring.ts, by the options of the shared build. */
function loops(): WebAssembly.Module {
  const file = `${FOLDER}/ring.wasm`;
  const asc = ["node_modules/assemblyscript/bin/asc.js", "bench/wasm/ring.ts", "--target", "shared"];
  mkdirSync(FOLDER, { recursive: true });
  execFileSync(process.execPath, [...asc, "--outFile", file], { stdio: ["ignore", "ignore", "pipe"] });
  return new WebAssembly.Module(readFileSync(file));
}

/** A worker's next message; what it throws is thrown here. */
async function from<T>(worker: Worker): Promise<T> {
  const [message] = await once(worker, "message");
  return message;
}

async function main(): Promise<string> {
  if (process.platform !== "linux" || process.arch !== "x64" || spawnSync("gcc", ["--version"]).error)
    return "ring between two threads: skipped, it needs gcc, and Linux on x86-64";
  const cpus = allowedCpus().slice(0, 2).map(String);
  if (cpus.length < 2) return "ring between two threads: skipped, there is one CPU";
  mkdirSync(FOLDER, { recursive: true });
  const program = compile(FOLDER, "bench/native/xring.c", "xring", ["-pthread"]);
  const inC = (...args: unknown[]) => Number(execFileSync(program, args.map(String), { encoding: "utf8" }));

  const core = Core.create(2 ** 20, true);
  const ring = createRing(core, SLOTS).address;
  const module = loops();
  const start = async (side: "producer" | "consumer", cpu: string) => {
    const list = core.place(Kind.BYTES, BURST * Packet.SIZE, side).address;
    const worker = new Worker("./bench/ring-worker.mjs", {
      workerData: { module, memory: core.memory, ring, list, side, warm: WARM, count: COUNT },
    });
    inC("pin", await from<number>(worker), cpu);
    return worker;
  };
  const consumer = await start("consumer", cpus[0] as string);
  const producer = await start("producer", cpus[1] as string);
  const ours = async () => {
    const ends = Promise.all([from<{ ns: number; wrong: number }>(consumer), from(producer)]);
    for (const worker of [consumer, producer]) worker.postMessage("run");
    const [{ ns, wrong }] = await ends;
    if (wrong > 0) throw new Error(`ring: of ${COUNT} descriptors ${wrong} had another number than expected`);
    return ns;
  };

  const probe = () => inC("probe", ...cpus);
  const rounds: Round[] = [];
  for (let i = 0; i < 3; i++) await ours(); // until the engine has compiled the loops for speed
  for (let i = 0; i < ROUNDS; i++) {
    const before = probe();
    const ns = await ours();
    const between = probe();
    const c = inC("run", ...cpus, WARM, COUNT);
    rounds.push({ ours: ns, c, latency: [before, between, probe()] });
  }
  await Promise.all([consumer, producer].map((worker) => worker.terminate()));

  const out = new Table({
    head: [
      `ring, CPUs ${cpus.join(" and ")}`,
      "rounds",
      "one way ns",
      "ours ns/packet (min-max)",
      "C ns/packet (min-max)",
      "ours : C",
    ],
    colAligns: ["left", "right", "right", "right", "right", "right"],
    style: { head: [], border: [], compact: true },
  });
  for (const name of new Set(rounds.map((round) => distance(round.latency)))) {
    const some = rounds.filter((round) => distance(round.latency) === name);
    const ours = some.map((round) => round.ours);
    const c = some.map((round) => round.c);
    out.push([
      name,
      some.length,
      spread(some.flatMap((round) => round.latency)),
      spread(ours),
      spread(c),
      ratio(ours, c).toFixed(2),
    ]);
  }
  return out.toString();
}

console.log(await main());
