/**
 * Latency from idle, in turn with what waking a thread costs on this machine in C: at 100 frames a second each finds the
 * guest's lcore asleep. What is above a futex's wake is ours.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import Table from "cli-table3";
import { measureLatency } from "../src/cli/latency.ts";
import type { Attach } from "../src/index.ts";
import { compile } from "./native.ts";
import { ratio, spread } from "./rig.ts";
import { unfit } from "./two-cpus.ts";

const LOAD = 100;
const PACKETS = 200;
const ROUNDS = 9;
const FOLDER = "build/run/bench";
const ATTACHMENTS: Attach[] = ["vhost", "iovtee"];

async function main(): Promise<string> {
  const why = unfit();
  if (why !== undefined) return `latency from idle: skipped, ${why}`;
  mkdirSync(FOLDER, { recursive: true });
  const program = compile(FOLDER, "bench/native/wake.c", "wake", ["-pthread"]);
  const c: number[] = [];
  const ours = ATTACHMENTS.map((attach) => ({ attach, median: [] as number[], sleeps: [] as number[] }));
  for (let round = 0; round < ROUNDS; round++) {
    c.push(Number(execFileSync(program, [String(PACKETS), String(LOAD)], { encoding: "utf8" })));
    const { runs } = await measureLatency({
      attach: ATTACHMENTS,
      size: [64],
      load: [LOAD],
      packets: PACKETS,
      lcores: ["nic+host", "guest"],
    });
    for (const run of runs) {
      if (run.lost || run.duplicated || run.reordered || run.corrupt) {
        throw new Error(`${run.attach}: of ${run.sent} frames ${run.received} came back whole and in order`);
      }
      const one = ours.find(({ attach }) => attach === run.attach);
      one?.median.push(run.p50);
      one?.sleeps.push(run.sleepsPerPacket);
    }
  }
  const out = new Table({
    head: ["from idle, 64 B", "median µs (min-max)", "times a futex", "sleeps/pkt"],
    colAligns: ["left", "right", "right", "right"],
    style: { head: [], border: [], compact: true },
  });
  out.push(["futex, in C", spread(c), "", ""]);
  for (const { attach, median, sleeps } of ours) {
    const asleep = Math.min(...sleeps);
    out.push([attach, spread(median), ratio(median, c).toFixed(2), asleep.toFixed(2)]);
  }
  return out.toString();
}

console.log(await main());
