/**
 * Messages from one thread to another, as the channel, ringbuf.js and postMessage pass them: how many a second, and how
 * long one and its answer take (median). All ways take turns; both threads have a core of their own.
 */
import { Worker } from "node:worker_threads";
import Table from "cli-table3";
import { RingBuffer } from "ringbuf.js";
import { channel } from "../src/channel.ts";
import { median } from "../src/median.ts";

const WAYS = ["channel", "channel, bursts", "ringbuf.js", "postMessage", "postMessage, transferred"] as const;
type Way = (typeof WAYS)[number];
const SIZES = [64, 1024, 65536];
const BURST = 32;
const ROUNDS = 5;
/** Bytes of each ring. */
const RING = 2 ** 20;
const ANSWERS = 3000;
/** Some ways take a hundred times as long as others. */
const isSlow = (way: Way, size: number) => way.startsWith("postMessage") || size > 1024;
const floodOf = (way: Way, size: number) => (size > 1024 ? 3_000 : isSlow(way, size) ? 20_000 : 200_000);
/** Messages before those that count, until the engines of both threads have compiled what they run for speed. */
const warmUpOf = (way: Way, size: number) => (isSlow(way, size) ? 1_000 : 30_000);

/** A worker's end; what it throws is thrown here. */
const ended = (worker: Worker) =>
  new Promise<void>((done, fail) => {
    worker.on("error", fail);
    worker.on("exit", () => done());
  });

interface Run {
  worker: Worker;
  /** Waits for the next message and looks at it. */
  next(): Promise<void> | void;
  /** Sends one. */
  ask(): void;
}

function start(way: Way, what: "flood" | "answer", size: number, count: number): Run {
  const message = new Uint8Array(size);
  const data = { way, what, size, count, burst: BURST };
  const run = (to: unknown, from: unknown) =>
    new Worker("./bench/channel-worker.mjs", { workerData: { ...data, to, from } });
  const check = (one: Uint8Array) => {
    if (one.length !== size) throw new Error(`${way}: ${one.length} bytes, expected ${size}`);
  };
  if (way.startsWith("channel")) {
    const [to, from] = [channel({ bytes: RING }), channel({ bytes: RING })];
    let waiting = 0;
    return {
      worker: run(to.handle, from.handle),
      next() {
        if (waiting > 0) waiting--;
        else {
          let got = 0;
          while (!got) got = to.receiveMany((some) => some.forEach(check));
          waiting = got - 1;
        }
      },
      ask: () => void from.send(message),
    };
  }
  if (way === "ringbuf.js") {
    const [toBuffer, fromBuffer] = [RING, RING].map((bytes) =>
      RingBuffer.getStorageForCapacity(bytes, Uint8Array),
    ) as [SharedArrayBuffer, SharedArrayBuffer];
    const to = new RingBuffer(toBuffer, Uint8Array);
    const from = new RingBuffer(fromBuffer, Uint8Array);
    const got = new Uint8Array(size);
    return {
      worker: run(toBuffer, fromBuffer),
      next() {
        while (to.availableRead() < size) {}
        to.pop(got);
        check(got);
      },
      ask: () => void from.push(message),
    };
  }
  const worker = run(undefined, undefined);
  const arrived: Uint8Array[] = [];
  let resume: (() => void) | undefined;
  worker.on("message", (one: Uint8Array) => {
    arrived.push(one);
    resume?.();
  });
  return {
    worker,
    async next() {
      if (arrived.length === 0) await new Promise<void>((done) => (resume = done));
      check(arrived.shift() as Uint8Array);
    },
    ask() {
      const one = way === "postMessage, transferred" ? new Uint8Array(size) : message;
      worker.postMessage(one, way === "postMessage, transferred" ? [one.buffer as ArrayBuffer] : []);
    },
  };
}

/** Messages a second. */
async function flood(way: Way, size: number): Promise<number> {
  const warm = warmUpOf(way, size);
  const count = warm + floodOf(way, size);
  const run = start(way, "flood", size, count);
  const end = ended(run.worker);
  let begin = 0;
  for (let i = 0; i < count; i++) {
    if (i === warm) begin = performance.now();
    const later = run.next();
    if (later) await later;
  }
  const seconds = (performance.now() - begin) / 1000;
  await end;
  return (count - warm) / seconds;
}

/** Microseconds from a message to its answer, median. */
async function answer(way: Way, size: number): Promise<number> {
  const count = warmUpOf(way, size) + ANSWERS;
  const run = start(way, "answer", size, count);
  const end = ended(run.worker);
  const times: number[] = [];
  for (let i = 0; i < count; i++) {
    const begin = performance.now();
    run.ask();
    const later = run.next();
    if (later) await later;
    times.push(performance.now() - begin);
  }
  await end;
  return median(times.slice(-ANSWERS)) * 1000;
}

const out = new Table({
  head: ["bytes", "way", "messages/s (min-max)", "there and back, p50"],
  colAligns: ["right", "left", "right", "right"],
  style: { head: [], border: [], compact: true },
});
const million = (n: number) => (n / 1e6).toFixed(n < 1e5 ? 3 : 2);
for (const size of SIZES) {
  const floods = new Map<Way, number[]>(WAYS.map((way) => [way, []]));
  const answers = new Map<Way, number[]>(WAYS.map((way) => [way, []]));
  for (let round = 0; round < ROUNDS; round++) {
    for (const way of WAYS) {
      floods.get(way)?.push(await flood(way, size));
      answers.get(way)?.push(await answer(way, size));
    }
  }
  for (const way of WAYS) {
    const rates = floods.get(way) as number[];
    out.push([
      String(size),
      way,
      `${million(median(rates))} M (${million(Math.min(...rates))}-${million(Math.max(...rates))})`,
      `${median(answers.get(way) as number[]).toFixed(2)} µs`,
    ]);
  }
}
console.log(out.toString());
