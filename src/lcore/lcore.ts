/**
 * An lcore on a worker, seen from the thread that controls it: it is started, paused while something is set up, stopped,
 * or killed. It runs in the core (assembly/lcore.ts); the two meet in the lcore's second line (layout: `Lcore`).
 */
import { startThread } from "#platform";
import { Lcore, LcoreCommand } from "../../assembly/layout.ts";
import type { Core } from "../core/core.ts";
import type { Thread, ThreadMessage } from "../platform/platform.ts";

/** How long an lcore may take to see that it is to pause or to stop; a turn takes microseconds. */
const ANSWER_MS = 1000;
const STOP_MS = 50;

/** An lcore ended by itself, didn't answer, or was killed. The others were stopped. */
export class LcoreError extends Error {
  override readonly name = "LcoreError";
  /**
   * What was done about what it held: host buffers that were found and are free again, and guests that were restarted,
   * with the frames lost that were on their way.
   */
  recovered: { buffers: number; guests: string[] } = { buffers: 0, guests: [] };
  constructor(
    /** The lcore's name: its number and what ran on it. */
    readonly lcore: string,
    why: string,
  ) {
    super(`${lcore}: ${why}`);
  }
}

/** An lcore on a worker. */
export class WorkerLcore {
  /** Resolves when its thread is gone: with why it failed, or with nothing where it stopped as it was told. */
  readonly ended: Promise<LcoreError | undefined>;
  #end: (error?: LcoreError) => void = () => {};
  #thread: Thread | undefined;
  #gone = false;
  #stopped = false;
  #why: string | undefined;

  private constructor(
    readonly core: Core,
    readonly name: string,
    readonly address: number,
  ) {
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  /**
   * Starts a worker that runs the lcore at `address`; resolves when it runs.
   * @throws LcoreError where it doesn't come to that
   */
  static async start(core: Core, name: string, address: number): Promise<WorkerLcore> {
    const lcore = new WorkerLcore(core, name, address);
    lcore.#command(LcoreCommand.RUN);
    core.setFields(address, { [Lcore.asleep]: 0, [Lcore.parked]: 0 });
    await new Promise<void>((resolve, reject) => {
      lcore.ended.then((error) => reject(error ?? new LcoreError(name, "ended before it ran")));
      lcore.#thread = startThread(
        { memory: core.memory, module: core.module, lcore: address },
        (message) => {
          if (message.is === "running") resolve();
          else void lcore.#finish(message);
        },
        (why) => lcore.#ends(why),
      );
    });
    return lcore;
  }

  /** Its thread is gone. */
  get gone(): boolean {
    return this.#gone;
  }

  /** Asks it to pause; `parked` waits until it does. */
  pause(): void {
    this.#command(LcoreCommand.PAUSE);
  }

  /**
   * Waits until it touches nothing.
   * @throws LcoreError where it doesn't answer within a second
   */
  parked(): void {
    const words = new Int32Array(this.core.memory.buffer);
    const at = (this.address + Lcore.parked) >> 2;
    const end = performance.now() + ANSWER_MS;
    while (!this.#gone && Atomics.load(words, at) === 0) {
      if (performance.now() > end) throw new LcoreError(this.name, `doesn't answer within ${ANSWER_MS} ms`);
      waitBriefly(words, at);
    }
  }

  resume(): void {
    this.#command(LcoreCommand.RUN);
  }

  /**
   * Stops it: by asking, or, where it doesn't answer, by ending its thread.
   * @returns why it had to be ended, or failed before
   */
  async stop(): Promise<LcoreError | undefined> {
    this.#command(LcoreCommand.STOP);
    const late = new Promise<void>((resolve) => setTimeout(resolve, STOP_MS));
    await Promise.race([this.ended, late]);
    if (!this.#gone) await this.kill(`didn't stop within ${STOP_MS} ms`);
    return this.ended;
  }

  /** Ends its thread wherever it is: for one that hangs, and for tests. What it was at is lost; see `LcoreError`. */
  async kill(why = "killed"): Promise<void> {
    this.#why = why;
    await this.#thread?.terminate();
    this.#ends();
  }

  /** It has run to its end, or to an error: nothing is left of its thread but to be cleared away. */
  async #finish(message: ThreadMessage): Promise<void> {
    if (message.is === "failed") this.#why = message.why;
    else this.#stopped = true;
    await this.#thread?.terminate();
    this.#ends();
  }

  #ends(why?: string): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#end(this.#stopped ? undefined : new LcoreError(this.name, this.#why ?? why ?? "its worker ended"));
  }

  /** Written where the lcore looks, and the lcore woken, whatever it waits for. */
  #command(command: LcoreCommand): void {
    const words = new Int32Array(this.core.memory.buffer);
    const at = (offset: number) => (this.address + offset) >> 2;
    Atomics.store(words, at(Lcore.command), command);
    Atomics.notify(words, at(Lcore.command));
    Atomics.add(words, at(Lcore.doorbell), 1);
    Atomics.notify(words, at(Lcore.doorbell));
  }
}

/** Gives the other thread time, where this one may wait; a browser's main thread may not. */
function waitBriefly(words: Int32Array, at: number): void {
  try {
    Atomics.wait(words, at, 0, 1);
  } catch {
    // Looked at again at once.
  }
}
