/** What `iovtee bench` measures: one document, which `--json` writes and the table and the page show. */
import type { LatencyReport } from "../latency.ts";
import { median } from "../median.ts";
import type { PvpReport, PvpRun } from "../pvp.ts";
import type { ScaleReport } from "../scale.ts";

/** Frames over one attachment at one size, and how that compares with Node. */
export interface BenchRun extends PvpRun {
  /**
   * Times the rate in the first Node of the report, the median over the passes; `null` for that Node itself, and
   * where no Node was measured.
   */
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

/** The runtimes that weren't found, those together that are installed by the same command. */
export function missing({ runtimes }: BenchReport): { names: string[]; howToInstall: string }[] {
  const names = new Map<string, string[]>();
  for (const { name, version, available, howToInstall = "" } of runtimes) {
    if (!available)
      names.set(howToInstall, [...(names.get(howToInstall) ?? []), `${name} ${version}`.trim()]);
  }
  return [...names].map(([howToInstall, of]) => ({ names: of, howToInstall }));
}

/** More than this between a run's slowest and fastest round, and the machine was doing something else as well. */
export const NOISY = 1.5;

/** Fastest over slowest round, the median over all runs: how much the figures moved. NaN where nothing was measured. */
export function spread(runs: readonly Pick<PvpRun, "mppsMin" | "mppsMax">[]): number {
  return median(numbers(runs.map((run) => (run.mppsMin ? run.mppsMax / run.mppsMin : Number.NaN))));
}

/** What is checked of every frame. */
export type Checks = Pick<PvpRun, "lost" | "duplicated" | "reordered" | "corrupt" | "drops">;

/** Did every frame come back once, in order and whole? */
export function isClean(run: Checks): boolean {
  return run.lost === 0 && run.duplicated === 0 && run.reordered === 0 && run.corrupt === 0;
}

/**
 * One report of several passes over the same attachments and sizes: medians of the figures, sums of the counts.
 * `node` has Node's passes, at the same places; a pass is compared with the one of Node next to it in time.
 * Where no clock moved, rates are NaN: null in JSON.
 */
export function merge(passes: PvpReport[], node?: PvpReport[]): NonNullable<BenchRuntime["report"]> {
  const [first] = passes;
  if (first === undefined) throw new RangeError("no pass to merge");
  const keys = new Map(passes.flatMap((pass) => pass.runs.map((run) => [key(run), run] as const)));
  const runs = [...keys.keys()].map((which) => {
    const ofPasses = passes.map((pass) => pass.runs.find((run) => key(run) === which));
    const ofNode = node?.map((pass) => pass.runs.find((run) => key(run) === which));
    const ratios = numbers(ofPasses.map((run, i) => ratio(run, ofNode?.[i])));
    const measured = ofPasses.filter((run) => run !== undefined);
    return {
      ...mergeRuns(measured),
      ratioToNode: node === passes || ratios.length === 0 ? null : median(ratios),
    };
  });
  return { runtime: first.runtime, command: first.command, runs };
}

/** NaN where one of them has no rate. */
const ratio = (run: PvpRun | undefined, node: PvpRun | undefined) =>
  run?.mpps && node?.mpps ? run.mpps / node.mpps : Number.NaN;

const key = (run: PvpRun) => `${run.attach} ${run.frame}`;

function mergeRuns(runs: PvpRun[]): PvpRun {
  const of = (field: keyof PvpRun) => numbers(runs.map((run) => run[field]));
  const sum = (field: keyof PvpRun) => of(field).reduce((a, b) => a + b, 0);
  const gains = of("gainVsVhost");
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
    mppsMin: of("mppsMin").reduce((least, one) => Math.min(least, one), mpps),
    mppsMax: of("mppsMax").reduce((most, one) => Math.max(most, one), mpps),
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

/** Those that are a number: a rate isn't one where the clock stood still. */
const numbers = (values: unknown[]) => values.filter((value): value is number => Number.isFinite(value));

/** NaN where there are no values. */
