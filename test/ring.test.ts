/** Rings of packet descriptors, against an array. */
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { Ring, RingKind } from "../assembly/layout.ts";
import { Access } from "../src/core/access.ts";
import { initRing } from "../src/core/ring.ts";
import { type Functions, instantiate } from "./harness/harness.ts";

const SEED = 20;
const RING = 0x10000;
const FROM = 0x20000;
const TO = 0x30000;
const SIZES = [1, 2, 4, 8, 16, 32, 64];

let call: Functions;
let access: Access;
let words: Uint32Array;
beforeAll(async () => {
  const harness = await instantiate();
  call = harness.call;
  access = new Access(harness.memory);
  words = new Uint32Array(harness.memory.buffer, 0, 0x40000 / 4);
});

/** An empty ring whose free-running indices are all at `start`. */
function create(size: number, kind: RingKind, start = 0): void {
  words.fill(0);
  initRing(access, RING, size, kind);
  for (const field of [Ring.head, Ring.headDone, Ring.tail, Ring.tailDone]) words[(RING + field) / 4] = start;
}
let next = 1;
/** Numbers put in: each descriptor is told by all of its four words. */
function put(n: number, bulk: boolean): { list: number[]; done: number } {
  const list = Array.from({ length: n }, () => next++);
  for (const [i, k] of list.entries()) words.set([k, k ^ 0x5555, k * 3, ~k], FROM / 4 + 4 * i);
  return { list, done: call.enqueue!(RING, FROM, n, bulk) };
}
function get(n: number, bulk: boolean): number[] {
  words.fill(0xeeeeeeee, TO / 4, TO / 4 + 4 * (n + 1));
  const done: number = call.dequeue!(RING, TO, n, bulk);
  if (words[TO / 4 + 4 * done] !== 0xeeeeeeee) expect.fail("more was written than was taken");
  return Array.from({ length: done }, (_, i) => {
    const [a = 0, b, c, d] = words.subarray(TO / 4 + 4 * i, TO / 4 + 4 * i + 4);
    if (b !== (a ^ 0x5555) >>> 0 || c !== (a * 3) >>> 0 || d !== ~a >>> 0)
      expect.fail(`descriptor ${a} is torn`);
    return a;
  });
}

it("doesn't wait for ever for one that died between reserving and publishing", () => {
  create(8, RingKind.MPMC);
  put(4, true);
  words[(RING + Ring.head) / 4]! += 1; // another producer's reservation
  expect(() => put(1, true)).toThrow("unreachable");
  words[(RING + Ring.tail) / 4]! += 1; // another consumer's
  expect(() => get(1, true)).toThrow("unreachable");
});

describe.each([
  ["SPSC", RingKind.SPSC],
  ["MPMC", RingKind.MPMC],
] as const)("ring, %s", (_name, kind) => {
  it.each([
    ["burst: moves what it can", false],
    ["bulk: moves all or nothing", true],
  ] as const)(
    "%s, at every size, every burst, every fill, and over the wrap of its u32 indices",
    (_mode, bulk) => {
      for (const size of SIZES)
        for (const back of [0, 1, 2, 3, size, size + 1, 2 * size + 1]) {
          create(size, kind, (2 ** 32 - back) >>> 0);
          const model: number[] = [];
          for (let burst = 1; burst <= size + 1; burst++)
            for (let round = 0; round < 6; round++) {
              const room = size - model.length;
              const { list, done } = put(burst, bulk);
              const fits = bulk ? (burst <= room ? burst : 0) : Math.min(burst, room);
              if (done !== fits) expect.fail(`size ${size}: ${done} of ${burst} into ${room}`);
              model.push(...list.slice(0, done));
              if (call.ringCount!(RING) !== model.length) expect.fail("wrong count");
              if (round % 2 === 0) continue; // fuller, so that bursts of all sizes meet all fills
              const there = bulk ? (burst <= model.length ? burst : 0) : Math.min(burst, model.length);
              expect(get(burst, bulk)).toEqual(model.splice(0, there));
            }
          expect(get(model.length, true)).toEqual(model);
          expect(call.ringCount!(RING)).toBe(0);
        }
    },
  );

  it("gives nothing when it is empty, takes nothing when it is full, and moves none of 0", () => {
    create(4, kind);
    expect([get(1, false), get(1, true), get(0, false)]).toEqual([[], [], []]);
    expect(put(4, true).done).toBe(4);
    expect([put(1, false).done, put(1, true).done, put(0, false).done, put(0, true).done]).toEqual([
      0, 0, 0, 0,
    ]);
  });

  it("is first in, first out under any sequence, burst and bulk mixed", () => {
    const step = fc.record({ put: fc.boolean(), bulk: fc.boolean(), n: fc.integer({ min: 0, max: 40 }) });
    const start = fc.integer({ min: 0, max: 80 }).map((n) => (2 ** 32 - n) >>> 0);
    fc.assert(
      fc.property(
        fc.constantFrom(...SIZES),
        start,
        fc.array(step, { maxLength: 200, size: "max" }),
        (size, at, steps) => {
          create(size, kind, at);
          const model: number[] = [];
          for (const { put: isPut, bulk, n } of steps)
            if (isPut) {
              const { list, done } = put(n, bulk);
              const room = size - model.length;
              expect(done).toBe(n <= room ? n : bulk ? 0 : room);
              model.push(...list.slice(0, done));
            } else
              expect(get(n, bulk)).toEqual(model.splice(0, n <= model.length ? n : bulk ? 0 : model.length));
        },
      ),
      { seed: SEED, numRuns: 150 },
    );
  });

  it("writes nothing behind its last slot", () => {
    for (const size of SIZES) {
      create(size, kind, 2 ** 32 - 3);
      const end = (RING + Ring.slots) / 4 + 4 * size;
      words.fill(0xeeeeeeee, end, end + 64);
      for (let i = 0; i < 3 * size; i++) {
        put(size, false);
        get(1 + (i % size), false);
      }
      expect(words.subarray(end, end + 64).every((word) => word === 0xeeeeeeee)).toBe(true);
    }
  });
});
