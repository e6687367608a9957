/**
 * What a platform gives. Each of node.ts, browser.ts and workerd.ts exports all of it, and the package imports it as
 * `#platform`: the `imports` of package.json choose by the conditions that every runtime and bundler sets.
 */
export interface Platform {
  /** The compiled core: the shared build or the one for one thread. Compiled once. */
  loadCore(shared: boolean): Promise<WebAssembly.Module>;
  runtime(): Runtime;
  sharedMemory(): SharedMemory;
  /** Lets the thread's other tasks have their turn. */
  pause(): Promise<void>;
  /**
   * Starts a thread that runs an lcore (src/lcore/worker.ts).
   * @param told its messages
   * @param ended it is gone; `why` where it ended by an error that it couldn't tell
   */
  startThread(
    start: ThreadStart,
    told: (message: ThreadMessage) => void,
    ended: (why?: string) => void,
  ): Thread;
  /** In such a thread: what it was started with, how it tells, and the next lookup that was posted to it. */
  started(): Promise<Started>;
  /** Files, where the platform has them. */
  readonly files: Files | undefined;
}

/** Where the package runs. */
export interface Runtime {
  name: "node" | "deno" | "bun" | "chromium" | "firefox" | "browser" | "workerd";
  /** Empty where the platform doesn't tell. */
  version: string;
  cpu?: string;
  /** Logical processors. */
  cores?: number;
}

/** What a thread is started with. */
export interface ThreadStart {
  memory: WebAssembly.Memory;
  module: WebAssembly.Module;
  /** Lookups of the host's switches, in their order. */
  lookups: readonly WebAssembly.Module[];
  /** Address of the lcore that it runs. */
  lcore: number;
}

/** What a thread finds when it starts. */
export interface Started {
  start: ThreadStart;
  tell: (message: ThreadMessage) => void;
  nextLookup: () => Promise<WebAssembly.Module>;
}

/** What a thread tells: that it runs, that it has stopped as it was told, or why it failed. */
export type ThreadMessage = { is: "running" } | { is: "stopped" } | { is: "failed"; why: string };

/** A thread, seen from the one that started it. */
export interface Thread {
  /** Another lookup: its `nextLookup` gives it. */
  post(lookup: WebAssembly.Module): void;
  /** Ends it, wherever it is; resolves when it touches nothing any more. */
  terminate(): Promise<void>;
}

/** Whether a memory can be shared between threads. */
export interface SharedMemory {
  available: boolean;
  /** Why not, and what would change it: the end of a sentence. */
  why?: string;
}

/** The calls of `node:fs` that capture files need. */
export interface Files {
  openSync(path: string, flags: "r" | "w"): number;
  readSync(file: number, to: Uint8Array, offset: number, length: number, position: null): number;
  writeSync(file: number, from: Uint8Array, offset: number, length: number): number;
  ftruncateSync(file: number, length: number): void;
  closeSync(file: number): void;
}

/** Values in the order in which they came, for who comes for one sooner or later. */
export class Inbox<T> {
  readonly #values: T[] = [];
  #waiting: ((value: T) => void) | undefined;

  put(value: T): void {
    if (this.#waiting) this.#waiting(value);
    else this.#values.push(value);
    this.#waiting = undefined;
  }

  next(): Promise<T> {
    const [value] = this.#values.splice(0, 1);
    if (value !== undefined) return Promise.resolve(value);
    return new Promise((resolve) => {
      this.#waiting = resolve;
    });
  }
}

/** `compile`, called once for each build; once more where it failed. */
export function compileOnce(
  compile: (shared: boolean) => Promise<WebAssembly.Module>,
): (shared: boolean) => Promise<WebAssembly.Module> {
  const modules = new Map<boolean, Promise<WebAssembly.Module>>();
  return (shared) => {
    let module = modules.get(shared);
    if (!module) {
      module = compile(shared);
      modules.set(shared, module);
      module.catch(() => modules.delete(shared));
    }
    return module;
  };
}
