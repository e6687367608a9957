/** The report of a run as a table for people. */
import Table from "cli-table3";
import type { PvpReport } from "../pvp.ts";
import { type BenchReport, type Checks, NOISY, spread } from "./bench.ts";

const fixed = (n: number, digits: number) => (Number.isFinite(n) ? n.toFixed(digits) : "-");

function gain(fraction: number | null): string {
  if (fraction === null) return "";
  return `${fraction < 0 ? "-" : "+"}${fixed(Math.abs(fraction) * 100, 0)} %`;
}

export function table(report: PvpReport): string {
  const out = new Table({
    head: [
      "attach",
      "frame",
      "Mpps (min-max)",
      "ns/pkt",
      "Gbit/s",
      "copies/pkt",
      "bytes/pkt",
      "notif/pkt",
      "polls/pkt",
      "gain",
    ],
    colAligns: ["left", "right", "right", "right", "right", "right", "right", "right", "right", "right"],
    style: { head: [], border: [], compact: true },
  });
  for (const run of report.runs) {
    out.push([
      run.attach,
      String(run.frame),
      `${fixed(run.mpps, 2)} (${fixed(run.mppsMin, 2)}-${fixed(run.mppsMax, 2)})`,
      fixed(run.nsPerPacket, 1),
      fixed(run.gbps, 1),
      fixed(run.copiesPerPacket, 2),
      fixed(run.bytesCopiedPerPacket, 0),
      fixed(run.notificationsPerPacket, 3),
      fixed(run.pollsPerPacket, 3),
      gain(run.gainVsVhost),
    ]);
  }
  return out.toString();
}

/** All runtimes' runs in one table; a rate against Node's where Node was measured. */
export function benchTable(report: BenchReport): string {
  const out = new Table({
    head: ["runtime", "attach", "frame", "Mpps (min-max)", "ns/pkt", "vs node", "gain", "lost"],
    colAligns: ["left", "left", "right", "right", "right", "right", "right", "right"],
    style: { head: [], border: [], compact: true },
  });
  for (const { name, version, report: measured } of report.runtimes) {
    for (const run of measured?.runs ?? []) {
      out.push([
        `${name} ${version}`,
        run.attach,
        String(run.frame),
        `${fixed(run.mpps, 2)} (${fixed(run.mppsMin, 2)}-${fixed(run.mppsMax, 2)})`,
        fixed(run.nsPerPacket, 1),
        run.ratioToNode === null ? "" : fixed(run.ratioToNode, 2),
        gain(run.gainVsVhost),
        String(run.lost),
      ]);
    }
  }
  return out.toString();
}

/** What the card's rte_flow rules matched in each run. */
export function flowLines({ runs }: PvpReport): string[] {
  return runs.flatMap(({ attach, frame, flows = [] }) =>
    flows.map(
      ({ id, hits, rule }) =>
        `${attach} ${frame}: rule #${id}, ${hits.toLocaleString("en-US")} packets: ${rule}`,
    ),
  );
}

/** A line that says so where the rounds differ so much that something else must have used the machine. */
export function disturbed(runs: Parameters<typeof spread>[0]): string[] {
  const factor = spread(runs);
  if (!(factor > NOISY)) return [];
  return [
    `between slowest and fastest round lies a factor of ${fixed(factor, 1)} (the median over all runs): the machine is busy`,
  ];
}

/** What was asked for and couldn't be run so. */
export function leftOutLines({ leftOut = [] }: Pick<PvpReport, "leftOut">): string[] {
  return leftOut.map(({ attach, why }) => `left out: ${attach} (${why})`);
}

/** How many packets were checked, and what was wrong with them; then what was dropped, and why. */
export function verdict({ runs }: { runs: (Checks & { packets: number })[] }): string {
  const sum = (key: "packets" | "lost" | "duplicated" | "reordered" | "corrupt") =>
    runs.reduce((n, run) => n + run[key], 0).toLocaleString("en-US");
  const drops: Record<string, number> = {};
  for (const run of runs) {
    for (const [reason, n] of Object.entries(run.drops)) drops[reason] = (drops[reason] ?? 0) + n;
  }
  const reasons = Object.entries(drops).map(([reason, n]) => `${reason} ${n.toLocaleString("en-US")}`);
  const line = `${sum("packets")} packets checked: ${sum("lost")} lost, ${sum("duplicated")} duplicated, ${sum("reordered")} reordered, ${sum("corrupt")} corrupt`;
  return reasons.length > 0 ? `${line}\ndropped: ${reasons.join(", ")}` : line;
}
