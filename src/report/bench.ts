/** What `iovtee bench` measures: one document, which `--json` writes and the table and the page show. */
import type { PvpReport, PvpRun } from "../pvp.ts";

/** Frames through one runtime and attachment at one size, and how that compares with Node. */
export interface BenchRun extends PvpRun {
  /** Times Node's rate, the median over the passes; `null` for Node itself, and where Node was not measured. */
  ratioToNode: number | null;
}

/** A runtime that was looked for, and what was measured in it. */
export interface BenchRuntime {
  name: string;
  version: string;
  available: boolean;
  /** For a runtime that isn't there. */
  howToInstall?: string;
  report?: Pick<PvpReport, "runtime" | "command"> & { runs: BenchRun[] };
  /** Why there is no report, or only one of the passes before. */
  error?: string;
}

/** Times from wire to wire, against the load offered. */
export interface LatencyReport {
  runtime: PvpReport["runtime"];
  command: "latency";
  /** What each thread runs. */
  lcores: string[];
  runs: LatencyRun[];
}

export interface LatencyRun {
  attach: string;
  frame: number | string;
  /** Frames offered a second. */
  load: number;
  sent: number;
  received: number;
  lost: number;
  /** Microseconds, as all that follow. */
  p50: number;
  p99: number;
  p999: number;
  max: number;
  mean: number;
  /** Percentile and microseconds, ascending. */
  percentiles: [number, number][];
}

/** Throughput against the number of guests. */
export interface ScaleReport {
  runtime: PvpReport["runtime"];
  command: "scale";
  /** What each thread runs. */
  lcores: string[];
  /** Cores used. */
  cores: number;
  runs: ScaleRun[];
}

export interface ScaleRun {
  attach: string;
  guests: number;
  /** All guests together. */
  mpps: number;
  perGuest: number[];
  /** Jain's fairness index: 1 when all guests get the same, 1 / guests when one gets all. */
  jain: number;
  /** Cores kept busy. */
  cpu: number;
}

export interface BenchReport {
  command: "bench";
  /** ISO 8601, when the measuring began. */
  date?: string;
  runtimes: BenchRuntime[];
  latency?: LatencyReport;
  scale?: ScaleReport;
  /** Ctrl-C came: the figures are of what ran before. */
  interrupted?: true;
}

/** Did every frame come back once, in order and whole? */
export function isClean(run: PvpRun): boolean {
  return run.lost === 0 && run.duplicated === 0 && run.reordered === 0 && run.corrupt === 0;
}

/**
 * One report of several passes over the same attachments and sizes: medians of the figures, sums of the counts.
 * `node` has Node's passes, at the same places; a pass is compared with the one of Node next to it in time.
 */
export function merge(passes: PvpReport[], node?: PvpReport[]): NonNullable<BenchRuntime["report"]> {
  const [first] = passes;
  if (first === undefined) throw new RangeError("no pass to merge");
  const keys = new Map(passes.flatMap((pass) => pass.runs.map((run) => [key(run), run] as const)));
  const runs = [...keys.keys()].map((which) => {
    const ofPasses = passes.map((pass) => pass.runs.find((run) => key(run) === which));
    const ofNode = node?.map((pass) => pass.runs.find((run) => key(run) === which));
    const ratios = ofPasses.flatMap((run, i) => {
      const beside = ofNode?.[i];
      return run && beside ? [run.mpps / beside.mpps] : [];
    });
    const measured = ofPasses.filter((run) => run !== undefined);
    return { ...mergeRuns(measured), ratioToNode: node === passes || !ratios.length ? null : median(ratios) };
  });
  return { runtime: first.runtime, command: first.command, runs };
}

const key = (run: PvpRun) => `${run.attach} ${run.frame}`;

function mergeRuns(runs: PvpRun[]): PvpRun {
  const of = (field: keyof PvpRun) => runs.map((run) => run[field] as number);
  const sum = (field: keyof PvpRun) => of(field).reduce((a, b) => a + b, 0);
  const gains = of("gainVsVhost").filter((gain) => gain !== null);
  const packets = sum("packets");
  const perPacket = (field: keyof PvpRun) =>
    runs.reduce((n, run) => n + (run[field] as number) * run.packets, 0) / packets;
  const drops: Record<string, number> = {};
  for (const run of runs) {
    for (const [reason, n] of Object.entries(run.drops)) drops[reason] = (drops[reason] ?? 0) + n;
  }
  const mpps = median(of("mpps"));
  return {
    ...(runs[0] as PvpRun),
    packets,
    mpps,
    mppsMin: Math.min(...of("mppsMin")),
    mppsMax: Math.max(...of("mppsMax")),
    nsPerPacket: 1000 / mpps,
    gbps: median(of("gbps")),
    copiesPerPacket: perPacket("copiesPerPacket"),
    bytesCopiedPerPacket: perPacket("bytesCopiedPerPacket"),
    notificationsPerPacket: perPacket("notificationsPerPacket"),
    gainVsVhost: gains.length > 0 ? median(gains) : null,
    lost: sum("lost"),
    duplicated: sum("duplicated"),
    reordered: sum("reordered"),
    corrupt: sum("corrupt"),
    drops,
  };
}

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2
    ? (sorted[half] as number)
    : ((sorted[half - 1] as number) + (sorted[half] as number)) / 2;
}
