/** The core's SPSC ring between two threads on two CPUs, in turn with the same in C, by how near the CPUs are. */
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync } from "node:fs";
import { Worker } from "node:worker_threads";
import Table from "cli-table3";
import { Kind, Packet } from "../assembly/layout.ts";
import { createRing } from "../src/core/ring.ts";
import { Core } from "../src/index.ts";
import { ratio, spread } from "./rig.ts";
import { type Distance, distance, TwoCpus, unfit } from "./two-cpus.ts";

const SLOTS = 1024;
const BURST = 32;
const ROUNDS = 41;
/** Descriptors a run, and before it. */
const COUNT = 5_000_000;
const WARM = 500_000;
const FOLDER = "build/run/bench";

/** Of a run's time, the most that its threads may have waited for their CPUs. */
const MOST_WAITED = 0.05;

interface Run {
  /** Nanoseconds per descriptor. */
  ns: number;
  /** Nanoseconds that its threads waited for their CPUs. */
  waited: number;
}

interface Round {
  ours: Run;
  c: Run;
  /** One-way latency of a cache line in nanoseconds, around both. */
  latency: number[];
}

function distanceOf({ ours, c, latency }: Round): Distance {
  const disturbed = [ours, c].some(({ ns, waited }) => waited > MOST_WAITED * ns * COUNT);
  return disturbed ? "busy" : distance(latency);
}

/** The core with the loops of bench/wasm/ring.ts, by the options of the shared build. */
function loops(): WebAssembly.Module {
  const file = `${FOLDER}/ring.wasm`;
  const asc = ["node_modules/assemblyscript/bin/asc.js", "bench/wasm/ring.ts", "--target", "shared"];
  execFileSync(process.execPath, [...asc, "--outFile", file], { stdio: ["ignore", "ignore", "pipe"] });
  return new WebAssembly.Module(readFileSync(file));
}

/** A worker's next message; what it throws is thrown here. */
async function from<T>(worker: Worker): Promise<T> {
  const [message] = await once(worker, "message");
  return message;
}

async function main(): Promise<string> {
  const why = unfit();
  if (why !== undefined) return `ring between two threads: skipped, ${why}`;
  mkdirSync(FOLDER, { recursive: true });
  const two = new TwoCpus(FOLDER);
  const [first, second] = two.cpus;

  const core = await Core.create(2 ** 20, true);
  const ring = createRing(core, SLOTS).address;
  const module = loops();
  const start = async (side: "producer" | "consumer", cpu: number) => {
    const list = core.place(Kind.BYTES, BURST * Packet.SIZE, side).address;
    const worker = new Worker("./bench/ring-worker.mjs", {
      workerData: { module, memory: core.memory, ring, list, side, warm: WARM, count: COUNT },
    });
    two.pin(await from<number>(worker), cpu);
    return worker;
  };
  const consumer = await start("consumer", first);
  const producer = await start("producer", second);
  const run = async (): Promise<Run> => {
    const ends = Promise.all([from<Run & { wrong: number }>(consumer), from<{ waited: number }>(producer)]);
    for (const worker of [consumer, producer]) worker.postMessage("run");
    const [{ ns, wrong, waited }, other] = await ends;
    if (wrong > 0) throw new Error(`ring: of ${COUNT} descriptors ${wrong} had another number than expected`);
    return { ns, waited: waited + other.waited };
  };

  const rounds: Round[] = [];
  for (let i = 0; i < 3; i++) await run(); // until the engine has compiled the loops for speed
  for (let i = 0; i < ROUNDS; i++) {
    const before = two.latency();
    const ours = await run();
    const between = two.latency();
    const c = two.ring(WARM, COUNT);
    rounds.push({ ours, c, latency: [before, between, two.latency()] });
  }
  await Promise.all([consumer, producer].map((worker) => worker.terminate()));

  const out = new Table({
    head: [
      `ring, CPUs ${two.cpus.join(" and ")}`,
      "rounds",
      "one way ns",
      "ours ns/packet (min-max)",
      "C ns/packet (min-max)",
      "ours : C",
    ],
    colAligns: ["left", "right", "right", "right", "right", "right"],
    style: { head: [], border: [], compact: true },
  });
  for (const name of new Set(rounds.map(distanceOf))) {
    const some = rounds.filter((round) => distanceOf(round) === name);
    const ours = some.map((round) => round.ours.ns);
    const c = some.map((round) => round.c.ns);
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
