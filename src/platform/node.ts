/** Node, and what takes packages as Node does: Deno and Bun. */
import * as fs from "node:fs";
import { cpus } from "node:os";
import { parentPort, Worker, workerData } from "node:worker_threads";
import {
  compileOnce,
  type Files,
  Inbox,
  type Runtime,
  type SharedMemory,
  type Started,
  type Thread,
  type ThreadMessage,
  type ThreadStart,
} from "./platform.ts";

export const loadCore = /* @__PURE__ */ compileOnce(async (shared) => {
  const url = new URL(shared ? "./iovtee.shared.wasm" : "./iovtee.wasm", import.meta.url);
  return new WebAssembly.Module(fs.readFileSync(url));
});

export function runtime(): Runtime {
  return { ...nameAndVersion(), ...processors() };
}

function nameAndVersion(): Pick<Runtime, "name" | "version"> {
  const { Deno } = globalThis as { Deno?: { version: { deno: string } } };
  if (Deno) return { name: "deno", version: Deno.version.deno };
  const { bun, node } = process.versions;
  return bun ? { name: "bun", version: bun } : { name: "node", version: node };
}

function processors(): Pick<Runtime, "cpu" | "cores"> {
  try {
    const all = cpus();
    return { cpu: all[0]?.model ?? "", cores: all.length };
  } catch {
    return {}; // Deno without --allow-sys
  }
}

export function sharedMemory(): SharedMemory {
  return { available: true };
}

export function pause(): Promise<void> {
  return new Promise((resume) => setImmediate(resume));
}

export function startThread(
  start: ThreadStart,
  told: (message: ThreadMessage) => void,
  ended: (why?: string) => void,
): Thread {
  // Of what Node was started with, which workers get too, this is refused for a program in a file.
  const execArgv = process.execArgv.filter((arg) => !arg.startsWith("--input-type"));
  const worker = new Worker(new URL("../lcore/worker.js", import.meta.url), { workerData: start, execArgv });
  let why: string | undefined;
  worker.on("message", told);
  worker.on("error", (error) => {
    why = error instanceof Error ? error.message : String(error);
  });
  worker.on("exit", (code) =>
    ended(why ?? (code === 0 ? undefined : `its worker ended with exit code ${code}`)),
  );
  return {
    post: (lookup) => worker.postMessage(lookup),
    terminate: async () => {
      await worker.terminate();
    },
  };
}

export async function started(): Promise<Started> {
  const lookups = new Inbox<WebAssembly.Module>();
  parentPort?.on("message", (lookup) => lookups.put(lookup));
  return {
    start: workerData as ThreadStart,
    tell: (message) => parentPort?.postMessage(message),
    nextLookup: () => lookups.next(),
  };
}

export const files: Files | undefined = fs;
