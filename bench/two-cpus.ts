/**
 * Two CPUs, and how near they are: the way between two virtual CPUs changes while a test runs, and the speed of all
 * that goes over it by several times. So it is measured before and after each run, and runs are compared only with
 * runs at the same distance.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { compile } from "./native.ts";

/** Why nothing can be measured on two CPUs here; undefined where it can. */
export function unfit(): string | undefined {
  if (process.platform !== "linux" || process.arch !== "x64") return "it needs Linux on x86-64";
  if (spawnSync("gcc", ["--version"]).error) return "there is no gcc";
  if (allowedCpus().length < 2) return "there is one CPU";
  return undefined;
}

/** The first two CPUs that this process may use. */
export class TwoCpus {
  readonly cpus = allowedCpus().slice(0, 2) as [number, number];
  readonly #program: string;

  /** Compiles bench/native/xring.c into `folder`. */
  constructor(folder: string) {
    this.#program = compile(folder, "bench/native/xring.c", "xring", ["-pthread"]);
  }

  /** One-way latency of a cache line between them, in nanoseconds. */
  latency(): number {
    return Number(this.#run("probe", ...this.cpus));
  }

  /** Puts a thread of this process on one of them. */
  pin(thread: number, cpu: number): void {
    this.#run("pin", thread, cpu);
  }

  /**
   * The ring in C between them: nanoseconds per descriptor over `count`, after `warm` others, and how many nanoseconds
   * its threads waited for their CPUs.
   */
  ring(warm: number, count: number): { ns: number; waited: number } {
    const [ns = Number.NaN, waited = 0] = this.#run("run", ...this.cpus, warm, count)
      .split(" ")
      .map(Number);
    return { ns, waited };
  }

  #run(...args: unknown[]): string {
    return execFileSync(this.#program, args.map(String), { encoding: "utf8" });
  }
}

/** Of latencies around a run: hyperthreads of one core, near, far, changing, or one of the CPUs was busy otherwise. */
export type Distance = "siblings" | "near" | "far" | "busy" | "mixed";

export function distance(latencies: number[]): Distance {
  const each = latencies.map((ns) => (ns < 30 ? "siblings" : ns < 120 ? "near" : ns < 1000 ? "far" : "busy"));
  return each.every((one) => one === each[0]) && each[0] !== undefined ? each[0] : "mixed";
}

/** "0-1,4" is 0, 1, 4. */
function allowedCpus(): number[] {
  const list = /^Cpus_allowed_list:\s*(\S+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1] ?? "";
  return list.split(",").flatMap((range) => {
    const [from = 0, to = from] = range.split("-").map(Number);
    return Array.from({ length: to - from + 1 }, (_, i) => from + i);
  });
}
