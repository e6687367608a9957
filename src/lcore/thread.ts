/** Threads of whatever kind the runtime has: Node's worker_threads, else Web Workers (browsers, Deno, Bun). */

/** What a thread is started with. */
export interface ThreadStart {
  memory: WebAssembly.Memory;
  /** Address of the lcore that it runs. */
  lcore: number;
}

/** What it tells: that it runs, that it has stopped as it was told, or why it failed. */
export type ThreadMessage = { is: "running" } | { is: "stopped" } | { is: "failed"; why: string };

/** A thread, seen from the one that started it. */
export interface Thread {
  /** Ends it, wherever it is; resolves when it touches nothing any more. */
  terminate(): Promise<void>;
}

/**
 * Starts a thread that runs an lcore.
 * @param told its messages
 * @param ended it is gone; `why` where it ended by an error that it couldn't tell
 */
export async function startThread(
  start: ThreadStart,
  told: (message: ThreadMessage) => void,
  ended: (why?: string) => void,
): Promise<Thread> {
  const { Worker } = await import("node:worker_threads");
  const worker = new Worker(new URL("./worker.js", import.meta.url), { workerData: start });
  let why: string | undefined;
  worker.on("message", told);
  worker.on("error", (error) => {
    why = error instanceof Error ? error.message : String(error);
  });
  worker.on("exit", (code) => ended(why ?? (code === 0 ? undefined : `exit code ${code}`)));
  return {
    terminate: async () => {
      await worker.terminate();
    },
  };
}
