import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import { Kind, Packet, Refusal, Ring, Virtqueue } from "../assembly/layout.ts";
import { Core } from "../src/core/core.ts";
import { createRing } from "../src/core/ring.ts";
import { Host } from "../src/host.ts";
import { pollSwitch } from "./harness/host.ts";

const COUNT = 200_000;

/** Attaches to the memory by itself and sends numbered descriptors through the ring at `ring`. */
const PRODUCER = `
import { workerData } from "node:worker_threads";
const { Core } = await import(workerData.library);
const core = await Core.attach(workerData.memory);
const { ring, list, count } = workerData;
for (let sent = 0; sent < count; ) {
  const n = Math.min(32, count - sent);
  for (let i = 0; i < n; i++) core.setU32(list + 16 * i, sent + i);
  sent += core.exports.enqueue(ring, list, n);
}
`;

test("a worker attaches by address, and a ring carries descriptors to this thread in order", async () => {
  const core = await Core.create(2 ** 24, true);
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

test("a memory without a directory is refused", async () => {
  const memory = new WebAssembly.Memory({ initial: 16, maximum: 16 });
  await expect(Core.attach(memory)).rejects.toThrow(/no directory at 65536/);
});

/** Posts bad buffers as fast as the device refuses them, until `control[0]` says stop. */
const FLOODER = `
const { memory, control, avail, used, ring } = require("node:worker_threads").workerData;
const words = new Uint16Array(memory.buffer);
while (!Atomics.load(control, 0)) {
  for (let i = 0; i < 1000; i++) Atomics.store(words, avail >> 1, Atomics.load(words, used >> 1) + ring);
  Atomics.store(control, 1, 1);
}
`;

test.each([
  ["what it sends", false],
  ["what it receives into", true],
])("one turn ends though a thread of the guest's posts bad buffers all the time, %s", async (_, receive) => {
  const ring = 1024;
  const host = await Host.create({ shared: true });
  const nic = host.nic({ ring: 64 });
  const guest = host.guest({
    ring,
    attach: receive ? "iovtee" : "vhost",
    run: "sink",
    onEmpty: "wait",
    memory: 2 ** 20,
  });
  const { core } = host;
  const vq = receive ? guest.rxVirtqueue : guest.txVirtqueue;
  const at = (field: Virtqueue) => core.u32(vq + field);
  // Each entry names descriptor 0, which has the wrong direction.
  for (let i = 0; i < ring; i++) core.setU16(at(Virtqueue.driver) + 4 + 2 * i, 0);
  core.setU32(at(Virtqueue.desc), 0x20000);
  core.setU32(at(Virtqueue.desc) + 8, 2000);
  core.setU16(at(Virtqueue.desc) + 12, receive ? 0 : 2);
  const control = new Int32Array(new SharedArrayBuffer(8));
  const worker = new Worker(FLOODER, {
    eval: true,
    workerData: {
      memory: core.memory,
      control,
      avail: at(Virtqueue.driver) + 2,
      used: at(Virtqueue.device) + 2,
      ring,
    },
  });
  while (!Atomics.load(control, 1)) Atomics.wait(control, 1, 0, 1);
  const sw = host.vswitch({ connect: [nic, guest] });
  const refused = () => core.counter(vq + Virtqueue.refusals + 8 * Refusal.DIRECTION);
  let most = 0;
  for (const end = performance.now() + 500; performance.now() < end; ) {
    const before = refused();
    pollSwitch(sw);
    most = Math.max(most, refused() - before);
  }
  Atomics.store(control, 0, 1);
  await once(worker, "exit");
  expect(refused()).toBeGreaterThan(ring);
  expect(most).toBeLessThanOrEqual(ring);
});
