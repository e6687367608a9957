/** Starts other programs, and makes sure that they end. */
import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";

/** A program that runs until `stop` is called, or this process exits. */
export interface Running {
  child: ChildProcess;
  /** What it has printed on standard error. */
  errors(): string;
  /** Rejects when it ends by itself, or can't be started. */
  ended: Promise<never>;
  /** Ends it and all that it started. */
  stop(): Promise<void>;
}

export function launch(command: string, args: string[], options: SpawnOptions = {}): Running {
  // A process group of its own: browsers are many processes.
  const child = spawn(command, args, { stdio: ["ignore", "ignore", "pipe"], ...options, detached: true });
  const gone = new Promise<void>((done) => {
    child.once("close", () => done());
    child.once("error", () => done());
  });
  let errors = "";
  child.stderr?.on("data", (some) => {
    errors += some;
  });
  const kill = () => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
    } catch {
      // All of it has ended.
    }
  };
  process.once("exit", kill);
  let stopped = false;
  const ended = new Promise<never>((_, fail) => {
    child.once("error", fail);
    child.once("close", (status, signal) => {
      if (!stopped) fail(new Error(`${command} ended (${signal ?? `status ${status}`})\n${errors}`));
    });
  });
  ended.catch(() => {}); // whoever waits for it hears of it
  return {
    child,
    errors: () => errors,
    ended,
    async stop() {
      stopped = true;
      kill();
      await gone;
      process.removeListener("exit", kill);
    },
  };
}

/** `promise`, or an error after `milliseconds`, or when `signal` comes. */
export async function within<T>(
  milliseconds: number,
  what: string,
  promise: Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const over = new AbortController();
  const late = new Promise<never>((_, fail) => {
    timer = setTimeout(() => fail(new Error(`${what}: no answer in ${milliseconds / 1000} s`)), milliseconds);
    signal?.addEventListener("abort", () => fail(signal.reason), { once: true, signal: over.signal });
    if (signal?.aborted) fail(signal.reason);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
    over.abort();
  }
}
