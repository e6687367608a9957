/** workerd (Cloudflare Workers): no threads, no files, and code is compiled only when the worker is deployed. */
import module from "./iovtee.wasm";
import type { Files, Runtime, SharedMemory } from "./platform.ts";

export async function loadCore(shared: boolean): Promise<WebAssembly.Module> {
  if (shared) throw new Error(`the core for shared memory can't be loaded: ${WHY}`);
  return module;
}

export function runtime(): Runtime {
  return { name: "workerd", version: "" };
}

const WHY = "a Worker has one thread, nothing changes that";

export function sharedMemory(): SharedMemory {
  return { available: false, why: WHY };
}

/** Not `setTimeout`, after which `performance.now` stands still (workerd 1.20250718). */
export function pause(): Promise<void> {
  return scheduler.wait(1);
}

/** Of workerd's own: https://developers.cloudflare.com/workers/runtime-apis/scheduler/ */
declare const scheduler: { wait(milliseconds: number): Promise<void> };

export function startThread(): never {
  throw new Error(`no thread can be started: ${WHY}`);
}

export function started(): never {
  throw new Error(`this isn't a thread that was started: ${WHY}`);
}

export const files: Files | undefined = undefined;
