/** A hostile guest: another thread that writes garbage over its queues while the host uses them. */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { queueAreas } from "../../src/core/virtqueue.ts";
import type { Guest } from "../../src/index.ts";

const PROGRAM = `
  const { workerData: { buffer, region, bytes, seed, stop } } = require("node:worker_threads");
  const words = new Uint32Array(buffer, region, bytes / 4);
  const halves = new Uint16Array(buffer, region, bytes / 2);
  let state = seed;
  const below = (n) => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) % n;
  while (Atomics.wait(stop, 0, 0, below(3)) === "timed-out") {
    for (let i = below(256); i > 0; i--) {
      // Any number, one that an address or a length may be, or an index that moves a little.
      if (below(2)) words[below(words.length)] = below(2 ** 32) % (below(2) ? 2 ** 32 : 4096);
      else halves[below(halves.length)] += below(5);
    }
  }`;

/** Writes over both virtqueues of `guest`, every millisecond or two, until it is stopped. */
export function scribble(guest: Guest, seed: number): { stop(): Promise<void> } {
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const bytes = 2 * queueAreas(guest.ring).bytes;
  const { buffer } = guest.host.core.memory;
  const workerData = { buffer, region: guest.region, bytes, seed, stop };
  const worker = new Worker(PROGRAM, { eval: true, workerData });
  const ended = once(worker, "exit");
  return {
    async stop() {
      Atomics.store(stop, 0, 1);
      Atomics.notify(stop, 0);
      await ended;
    },
  };
}
