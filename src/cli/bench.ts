/** `iovtee bench`: the main job in every runtime that is found, in turn. */
import { cpus } from "node:os";
import type { PvpOptions, PvpReport } from "../index.ts";
import { checked } from "../pvp.ts";
import { type BenchReport, isClean, merge } from "../report/bench.ts";
import type { Found } from "../runtimes/index.ts";

/** Rounds that a runtime measures before it is the next one's turn. */
const ROUNDS = 3;
/** Milliseconds that a turn may take, to begin with and for each frame: the slowest runtime takes a tenth. */
const TIMEOUT = 120_000;
const TIMEOUT_FRAME = 0.005;

export interface BenchOptions extends Pick<PvpOptions, "attach" | "size" | "packets"> {
  /** Passes over all runtimes. */
  repeat: number;
  signal: AbortSignal;
  onProgress: (done: number, total: number, what: string) => void;
}

/** What of a runtime is needed here. */
export type Runtime = Pick<Found, "version" | "available" | "install" | "run"> & { name: string };

/** A runtime that is there, and what it has measured so far. */
interface Turn {
  runtime: Runtime;
  passes: PvpReport[];
  error?: string;
}

/**
 * Short passes over all runtimes: what slows the machine down for a while slows all of them down. A runtime that
 * fails is left out from there on, and the report tells why. The first Node is the one that others are compared with.
 */
export async function bench(found: Runtime[], options: BenchOptions): Promise<BenchReport> {
  const { repeat, signal, onProgress, ...job } = options;
  const { attach, size, packets = 0 } = checked({ ...job, repeat });
  const timeout = TIMEOUT + packets * ROUNDS * attach.length * size.length * TIMEOUT_FRAME;
  // Browsers and Workers aren't told all of it.
  const machine = { cpu: cpus()[0]?.model ?? "", cores: cpus().length };
  const date = new Date().toISOString();
  const turns = found.filter((one) => one.available).map((runtime): Turn => ({ runtime, passes: [] }));
  const total = repeat * turns.length;
  let done = 0;
  for (let pass = 0; pass < repeat; pass++) {
    // To and fro, so that a machine that gets faster or slower favours none.
    for (const turn of pass % 2 === 0 ? turns : turns.toReversed()) {
      if (signal.aborted) break;
      onProgress(done++, total, `${turn.runtime.name} ${turn.runtime.version}`);
      if (turn.error !== undefined) continue;
      try {
        const report = await turn.runtime.run({ options: { ...job, repeat: ROUNDS }, timeout, signal });
        turn.passes.push({ ...report, runtime: { ...machine, ...report.runtime } });
      } catch (error) {
        if (!signal.aborted) turn.error = error instanceof Error ? error.message : String(error);
      }
    }
  }
  const node = turns.find(({ runtime }) => runtime.name === "node")?.passes;
  const runtimes = found.map((runtime) => {
    const { name, version, available, install } = runtime;
    const turn = turns.find((one) => one.runtime === runtime);
    return {
      name,
      version,
      available,
      ...(available || install === undefined ? {} : { howToInstall: install }),
      ...(turn && turn.passes.length > 0 ? { report: merge(turn.passes, node) } : {}),
      ...(turn?.error === undefined ? {} : { error: turn.error }),
    };
  });
  return { command: "bench", date, runtimes, ...(signal.aborted ? { interrupted: true } : {}) };
}

/** Did every runtime that is there measure, and did every frame come back? */
export function isSound({ runtimes }: BenchReport): boolean {
  return runtimes.every(({ report, error }) => error === undefined && (report?.runs ?? []).every(isClean));
}
