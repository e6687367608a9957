/**
 * An lcore on a worker, seen from the thread that controls it: it is started, paused while something is set up, stopped,
 * or killed. It runs in the core (assembly/lcore.ts); the two meet in the lcore's second line (layout: `Lcore`).
 */
import { startThread } from "#platform";
import { Lcore, LcoreCommand, LcoreParked } from "../../assembly/layout.ts";
import type { Core } from "../core/core.ts";
import type { Thread, ThreadMessage } from "../platform/platform.ts";

/**
 * How long an lcore may take to see that it is to pause or to stop. A turn takes microseconds, but a thread that others keep from
 * its CPU is no dead one: it may wait for some tens of milliseconds.
 */
const ANSWER_MS = 1000;
const STOP_MS = 250;
/** A killed lcore that has made no turn for so long makes none any more. */
const STILL_MS = 20;

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
  /** Resolves when it runs, or was stopped before; rejects with an LcoreError where it doesn't come to that. */
  readonly running: Promise<void>;
  /** Resolves when its thread is gone: with why it failed, or with nothing where it stopped as it was told. */
  readonly ended: Promise<LcoreError | undefined>;
  #end: (error?: LcoreError) => void = () => {};
  #thread: Thread | undefined;
  #gone = false;
  #error: LcoreError | undefined;
  #paused = false;
  #stopping = false;
  #stopped = false;
  #why: string | undefined;

  /**
   * @internal Use `Host.launch()`. Starts a worker that runs the lcore at `address`; `running` tells when it does. It can be
   * paused and stopped at once.
   */
  constructor(
    readonly core: Core,
    /** Its number and what it runs. */
    readonly name: string,
    readonly address: number,
  ) {
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    // It touches nothing before it has looked at its command.
    core.setFields(address, {
      [Lcore.asleep]: 0,
      [Lcore.parked]: LcoreParked.YES,
      [Lcore.lookups]: core.lookupModules.length,
    });
    this.#command(LcoreCommand.RUN);
    this.running = new Promise((resolve, reject) => {
      this.ended.then((error) => (error ? reject(error) : resolve()));
      try {
        this.#thread = startThread(
          { memory: core.memory, module: core.module, lookups: core.lookupModules, lcore: address },
          (message) => {
            if (message.is === "running") resolve();
            else void this.#finish(message);
          },
          (why) => this.#ends(why),
        );
      } catch (error) {
        this.#ends(String(error));
      }
    });
  }

  /** Its thread is gone. */
  get gone(): boolean {
    return this.#gone;
  }

  /** It is at rest: it touches nothing, and where its thread is gone it has left nothing half done. */
  get atRest(): boolean {
    return this.#parked() === LcoreParked.YES;
  }

  /** Asks it to pause; `parked` waits until it does. */
  pause(): void {
    this.#paused = true;
    if (!this.#stopping) this.#command(LcoreCommand.PAUSE);
  }

  /**
   * Waits until it touches nothing.
   * @throws LcoreError where it has failed, or doesn't answer within a second
   */
  parked(): void {
    const end = performance.now() + ANSWER_MS;
    while (!this.atRest) {
      if (this.#error) throw this.#error;
      if (this.#parked() === LcoreParked.FAILED) throw new LcoreError(this.name, "has failed");
      if (performance.now() > end) throw new LcoreError(this.name, `doesn't answer within ${ANSWER_MS} ms`);
      waitBriefly(new Int32Array(this.core.memory.buffer), (this.address + Lcore.parked) >> 2);
    }
  }

  /** While it is paused: another lookup, the last of `core.lookupModules`, which it loads when it goes on. */
  addLookup(lookup: WebAssembly.Module): void {
    this.#thread?.post(lookup);
    this.core.setU32(this.address + Lcore.lookups, this.core.lookupModules.length);
  }

  /** Ends a pause. One that is to stop does so now. */
  resume(): void {
    this.#paused = false;
    this.#command(this.#stopping ? LcoreCommand.STOP : LcoreCommand.RUN);
  }

  /**
   * Stops it: by asking, when it isn't paused any more, or, where it doesn't answer, by ending its thread.
   * @returns why it had to be ended, or failed before
   */
  async stop(): Promise<LcoreError | undefined> {
    this.#stopping = true;
    if (!this.#paused) this.#command(LcoreCommand.STOP);
    const late = new Promise<void>((resolve) => setTimeout(resolve, STOP_MS));
    await Promise.race([this.ended, late]);
    // One that is at rest stays so: it hasn't begun, or its thread is only slow to go. One that has failed says why.
    if (this.atRest) this.#stopped = true;
    if (!this.#gone && this.#parked() !== LcoreParked.FAILED) {
      await this.kill(`didn't stop within ${STOP_MS} ms`);
    }
    return this.ended;
  }

  /** Ends its thread wherever it is: for one that hangs, and for tests. What it was at is lost; see `LcoreError`. */
  async kill(why = "killed"): Promise<void> {
    this.#why = why;
    await this.#thread?.terminate();
    await this.#still();
    this.#ends();
  }

  /** It has run to its end, or to an error: nothing is left of its thread but to be cleared away. */
  async #finish(message: ThreadMessage): Promise<void> {
    if (message.is === "failed") this.#why = message.why;
    this.#stopped = message.is === "stopped";
    await this.#thread?.terminate();
    this.#ends();
  }

  /** Until it makes no turn any more: Deno says that a thread has ended before it has. */
  async #still(): Promise<void> {
    const turns = () => this.core.counter(this.address + Lcore.turns);
    for (let before = -1; before !== turns(); ) {
      before = turns();
      await new Promise((resume) => setTimeout(resume, STILL_MS));
    }
  }

  #ends(why?: string): void {
    if (this.#gone) return;
    this.#gone = true;
    if (!this.#stopped) this.#error = new LcoreError(this.name, this.#why ?? why ?? "its worker ended");
    this.#end(this.#error);
  }

  #parked(): LcoreParked {
    return Atomics.load(new Int32Array(this.core.memory.buffer), (this.address + Lcore.parked) >> 2);
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
