/** The pool of buffers: none is lost, none is in two places. */
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { Pool, PoolCache, RingKind } from "../assembly/layout.ts";
import { Access } from "../src/core/access.ts";
import { initPool, poolBytes } from "../src/core/pool.ts";
import { initRing } from "../src/core/ring.ts";
import { type Functions, instantiate } from "./harness/harness.ts";

const SEED = 20;
const POOL = 0x10000;
const RING = 0x40000;
const LIST = 0x60000;
const BASE = 0x100000;
const ID = 9;
const HEADROOM = 128;
const ROOM = 2048;
const LCORES = 8;

let call: Functions;
let memory: WebAssembly.Memory;
let view: DataView;
beforeAll(async () => {
  ({ call, memory } = await instantiate());
  view = new DataView(memory.buffer);
});

function create(count: number): void {
  new Uint8Array(memory.buffer, 0, BASE).fill(0);
  let slots = 1;
  while (slots < count) slots *= 2;
  const access = new Access(memory);
  initRing(access, RING, slots, RingKind.MPMC);
  initPool(access, POOL, { id: ID, count, base: BASE, headroom: HEADROOM, room: ROOM, ring: RING });
}
/** Numbers of the buffers taken; each descriptor must be as a free buffer's is. */
function take(lcore: number, n: number): number[] {
  const got: number = call.poolTake!(POOL, lcore, LIST, n);
  return Array.from({ length: got }, (_, i) => {
    const at = LIST + 16 * i;
    const u16 = (k: number) => view.getUint16(at + k, true);
    const index = u16(10);
    const address = BASE + index * (HEADROOM + ROOM) + HEADROOM;
    const fields = [view.getUint32(at, true), u16(4), u16(6), u16(8), u16(12), u16(14)];
    if (fields.join() !== [address, ROOM, 0, ID, ROOM, 0].join())
      expect.fail(`buffer ${index} comes as ${fields}`);
    return index;
  });
}
/** Gives buffers back as packets come back: moved, shortened, marked. */
function give(lcore: number, list: number[]): void {
  for (const [i, index] of list.entries()) {
    const at = LIST + 16 * i;
    view.setUint32(at, BASE + index * (HEADROOM + ROOM) + 77, true);
    for (const [k, v] of [64, 1, ID, index, 3, 5].entries()) view.setUint16(at + 4 + 2 * k, v, true);
  }
  call.poolGive!(POOL, lcore, LIST, list.length);
}
const counter = (lcore: number, field: PoolCache) =>
  Number(view.getBigUint64(POOL + Pool.caches + lcore * PoolCache.SIZE + field, true));

describe("mempool", () => {
  it("has one cache for each lcore behind its header", () => {
    expect(poolBytes()).toBe(Pool.caches + LCORES * PoolCache.SIZE);
    expect(PoolCache.SIZE).toBe(PoolCache.slots + PoolCache.CAPACITY * 16);
  });

  it("hands out every buffer once, then counts who finds none", () => {
    for (const count of [1, 2, 255, 256, 257, 1000]) {
      create(count);
      const all: number[] = [];
      for (let i = 0; i < count; i += 100) all.push(...take(0, Math.min(100, count - i)));
      expect([...all].sort((a, b) => a - b)).toEqual(Array.from({ length: count }, (_, i) => i));
      expect(counter(0, PoolCache.failed)).toBe(0);
      expect(take(0, 7)).toEqual([]);
      expect(take(3, 5)).toEqual([]);
      expect([counter(0, PoolCache.failed), counter(3, PoolCache.failed)]).toEqual([7, 5]);
      expect([call.poolOutstanding!(POOL), call.poolAvailable!(POOL)]).toEqual([count, 0]);
    }
  });

  it("gives as many as there are, and counts the rest", () => {
    create(10);
    expect(take(0, 16)).toHaveLength(10);
    expect(counter(0, PoolCache.failed)).toBe(6);
  });

  it("gives the buffer that was freed last first: it is the warmest", () => {
    create(100);
    const list = take(1, 20);
    give(1, list);
    expect(take(1, 1)).toEqual([list[19]]);
  });

  it("lets a buffer go from one lcore's cache to another's by the ring", () => {
    create(2000);
    const list: number[] = [];
    for (let i = 0; i < 20; i++) list.push(...take(0, 100));
    for (let i = 0; i < 20; i++) give(1, list.slice(i * 100, i * 100 + 100));
    const again: number[] = [];
    for (let i = 0; i < 14; i++) again.push(...take(0, 100));
    expect(again).toHaveLength(1400); // the rest lies in the other's cache
    expect(new Set(again).size).toBe(1400);
  });

  it("conserves: available and outstanding are all there are, and none is handed out twice", () => {
    const step = fc.record({
      lcore: fc.integer({ min: 0, max: LCORES - 1 }),
      take: fc.boolean(),
      n: fc.oneof(fc.integer({ min: 0, max: 32 }), fc.integer({ min: 0, max: 256 })),
      at: fc.nat(),
    });
    fc.assert(
      fc.property(
        fc.constantFrom(1, 3, 64, 500, 1000, 4096),
        fc.array(step, { minLength: 20, maxLength: 150, size: "max" }),
        (count, steps) => {
          create(count);
          const out = new Set<number>();
          const failed = new Array(LCORES).fill(0);
          for (const { lcore, take: takes, n, at } of steps) {
            if (takes) {
              const got = take(lcore, n);
              failed[lcore] += n - got.length;
              for (const index of got) {
                if (out.has(index) || index >= count) expect.fail(`buffer ${index} was handed out twice`);
                out.add(index);
              }
            } else {
              const list = [...out];
              const some = list.slice(at % (list.length + 1)).slice(0, n);
              for (const index of some) out.delete(index);
              give(lcore, some);
            }
            expect(call.poolOutstanding!(POOL)).toBe(out.size);
            expect(call.poolAvailable!(POOL)).toBe(count - out.size);
          }
          for (let lcore = 0; lcore < LCORES; lcore++)
            expect(counter(lcore, PoolCache.failed)).toBe(failed[lcore]);
        },
      ),
      { seed: SEED, numRuns: 100 },
    );
  });
});
