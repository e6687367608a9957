import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import { Kind, Packet, Ring } from "../assembly/layout.ts";
import { Core } from "../src/core/core.ts";
import { createRing } from "../src/core/ring.ts";

const COUNT = 200_000;

/** Attaches to the memory by itself and sends numbered descriptors through the ring at `ring`. */
const PRODUCER = `
import { workerData } from "node:worker_threads";
const { Core } = await import(workerData.library);
const core = Core.attach(workerData.memory);
const { ring, list, count } = workerData;
for (let sent = 0; sent < count; ) {
  const n = Math.min(32, count - sent);
  for (let i = 0; i < n; i++) core.setU32(list + 16 * i, sent + i);
  sent += core.exports.enqueue(ring, list, n);
}
`;

test("a worker attaches by address, and a ring carries descriptors to this thread in order", async () => {
  const core = Core.create(2 ** 24, true);
  const ring = createRing(core, 256).address;
  const list = core.place(Kind.BYTES, 64 * Packet.SIZE, "burst").address;
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(PRODUCER)}`), {
    workerData: {
      library: new URL("../dist/src/index.js", import.meta.url).href,
      memory: core.memory,
      ring,
      list,
      count: COUNT,
    },
  });
  const failed = once(worker, "error").then(([error]) => {
    throw error;
  });
  const received = (async () => {
    let next = 0;
    while (next < COUNT) {
      const n = core.exports.dequeue(ring, list + 32 * Packet.SIZE, 32);
      for (let i = 0; i < n; i++) {
        const got = core.u32(list + (32 + i) * Packet.SIZE);
        if (got !== next++) throw new Error(`descriptor ${got}, expected ${next - 1}`);
      }
      if (n === 0) await new Promise((resume) => setImmediate(resume));
    }
    return next;
  })();
  expect(await Promise.race([received, failed])).toBe(COUNT);
  expect(core.u32(ring + Ring.head)).toBe(COUNT);
  await worker.terminate();
});

test("a memory without a directory is refused", () => {
  expect(() => Core.attach(new WebAssembly.Memory({ initial: 16, maximum: 16 }))).toThrow(
    /no directory at 65536/,
  );
});
