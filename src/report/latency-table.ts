/** Latencies as a table for people. */
import Table from "cli-table3";
import type { LatencyReport, LatencyRun } from "../latency.ts";

/** Frames that are to be slower than a percentile for it to say something. */
const ENOUGH = 10;

/** Microseconds, to three digits that count. */
const micros = (n: number) => (Number.isFinite(n) ? n.toFixed(n >= 100 ? 0 : n >= 10 ? 1 : 2) : "-");

function loadName(load: number): string {
  if (load >= 1e6) return `${load / 1e6}M`;
  return load >= 1e3 ? `${load / 1e3}k` : String(load);
}

export function latencyTable({ runs }: LatencyReport): string {
  const out = new Table({
    head: [
      "attach",
      "frame",
      "load",
      "p50 µs",
      "p99",
      "p99.9",
      "max",
      "mean",
      "lost",
      "sleeps/pkt",
      "cores busy",
    ],
    colAligns: ["left", ...Array.from({ length: 10 }, () => "right" as const)],
    style: { head: [], border: [], compact: true },
  });
  for (const run of runs) {
    out.push([
      run.attach,
      String(run.frame),
      loadName(run.load),
      ...[run.p50, run.p99, run.p999, run.max, run.mean].map(micros),
      run.lost.toLocaleString("en-US"),
      run.sleepsPerPacket.toFixed(2),
      Number.isFinite(run.cpu) ? run.cpu.toFixed(2) : "-",
    ]);
  }
  return out.toString();
}

/** On how many frames the figures of a load rest, where these are few for its highest percentiles. */
export function fewFrames({ runs }: LatencyReport): string[] {
  const few = runs.filter(({ received }) => received < 1000 * ENOUGH);
  const byLoad = new Map(few.map((run: LatencyRun) => [run.load, run.received]));
  return [...byLoad].map(
    ([load, n]) =>
      `${loadName(load)}: of ${n.toLocaleString("en-US")} frames ${Math.floor(n / 1000)} are above p99.9`,
  );
}
