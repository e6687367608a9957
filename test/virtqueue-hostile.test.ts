/**
 * A guest that writes anything anywhere in its region between any two operations of the device: the device
 * never hangs, yields nothing outside the region, writes nothing outside the region, its own structure and
 * the room that it was given, and counts every refusal.
 */
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { Feature, Refusal, Virtqueue } from "../assembly/layout.ts";
import { instantiate } from "./harness/harness.ts";
import { PackedDriverModel } from "./harness/packed.ts";
import {
  AVAIL,
  BASE,
  BUFFERS,
  DESC,
  ID,
  IN,
  LIMIT,
  OUT,
  type PacketFields,
  Queue,
  segment,
  TABLES,
  USED,
  VQ,
} from "./harness/queue.ts";
import { SplitDriverModel } from "./harness/split.ts";

const SEED = 20;
const { EVENT_IDX, INDIRECT_DESC, PACKED } = Feature;
/** The region that the property tests give the guest. */
const REGION = 0x20000;
const CANARY = 0xa5;

let q: Queue;
beforeAll(async () => {
  q = new Queue(await instantiate());
});

/** All that the device may not write to, when a taken buffer has at most `size` segments. */
function fences(size: number, limit: number): Uint8Array[] {
  const between = [
    0,
    VQ,
    VQ + Virtqueue.SIZE,
    OUT,
    OUT + 16 * size,
    IN,
    IN + 0x4000,
    BASE,
    BASE + limit,
    BASE + LIMIT + 0x10000,
  ];
  return [0, 2, 4, 6, 8].map((i) => q.bytes.subarray(between[i], between[i + 1]));
}
function intact(list: Uint8Array[]): boolean {
  return list.every((bytes) => Buffer.compare(bytes, untouched.subarray(0, bytes.length)) === 0);
}
const untouched = Buffer.alloc(0x200000, CANARY);

function check(list: PacketFields[] | Refusal, size: number, limit: number): void {
  if (!Array.isArray(list)) return;
  if (list.length > size) expect.fail(`${list.length} segments from a queue of ${size}`);
  for (const { addr, len, owner } of list)
    if (addr < BASE || addr + len > BASE + limit || len === 0 || owner !== ID)
      expect.fail(`a segment of ${len} bytes at ${addr - BASE} of a region of ${limit}`);
}
function checkCounters(size: number): void {
  if (q.vq(Virtqueue.taken) > size) expect.fail(`${q.vq(Virtqueue.taken)} of ${size} taken`);
  let sum = 0;
  for (let why = 1; why < Refusal.COUNT; why++) sum += q.refusals(why);
  if (sum !== q.refused()) expect.fail(`${q.refused()} refused, ${sum} by reason`);
}

// What the guest may write.
const address = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 0, max: REGION - 2000 }).map(BigInt) },
  fc.integer({ min: -300, max: 20 }).map((n) => BigInt(REGION + n)),
  fc.constantFrom(2n ** 32n - 1n, 2n ** 32n, 2n ** 63n, 2n ** 64n - 1n, 2n ** 64n - 64n, 0n, 2n ** 32n + 64n),
);
const length = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 1, max: 2000 }) },
  fc.integer({ min: 0, max: 20 }).map((n) => 16 * n),
  fc.constantFrom(0, 1, 65535, 65536, 65537, 0x7fffffff, 0x80000000, 0xffffffff),
);
const small = fc.oneof(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 0, max: 65535 }));
/** AVAIL and USED of a packed descriptor; null: as they have to be for the device to see it. */
const state = fc.oneof(
  { weight: 4, arbitrary: fc.constant(null) },
  { weight: 1, arbitrary: fc.constantFrom(0, 0x80, 0x8000, 0x8080) },
);
/** Counted from where the device is, or anywhere. */
const place = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 0, max: 3 }) },
  { weight: 1, arbitrary: small },
);
const flags = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(0, 1, 2, 3, 4, 6) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 65535 }) },
);
const write = fc.oneof(
  fc.record({
    kind: fc.constant("descriptor" as const),
    table: fc.constantFrom(DESC, DESC, TABLES),
    i: fc.oneof(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 20 })),
    addr: address,
    len: length,
    flags,
    state,
    next: small,
  }),
  fc.record({ kind: fc.constant("avail" as const), i: fc.integer({ min: 0, max: 20 }), value: small }),
  fc.record({ kind: fc.constant("idx" as const), step: place }),
  fc.record({
    kind: fc.constant("table" as const),
    i: fc.integer({ min: 0, max: 20 }),
    entries: fc.integer({ min: 0, max: 18 }),
    state,
  }),
  fc.record({
    kind: fc.constant("noise" as const),
    at: fc.integer({ min: 0, max: REGION - 64 }),
    bytes: fc.uint8Array({ minLength: 1, maxLength: 64 }),
  }),
);
const operation = fc.oneof(
  fc.record({
    kind: fc.constant("take" as const),
    max: fc.integer({ min: 0, max: 32 }),
    back: fc.integer({ min: 0, max: 3 }),
  }),
  fc.record({ kind: fc.constant("chain" as const), back: fc.boolean() }),
  fc.record({
    kind: fc.constant("complete" as const),
    n: fc.integer({ min: 0, max: 20 }),
    written: fc.boolean(),
  }),
  fc.record({ kind: fc.constant("publish" as const) }),
);
type Step =
  | (typeof write extends fc.Arbitrary<infer T> ? T : never)
  | (typeof operation extends fc.Arbitrary<infer T> ? T : never);

function guestWrites(step: Step): void {
  const put = (
    table: number,
    i: number,
    addr: bigint,
    len: number,
    flags: number,
    id: number,
    state: number | null,
  ) => {
    let at = table + 16 * i;
    let wrap = q.vq(Virtqueue.availWrap);
    if (q.packed && table === DESC) {
      const position = q.vq(Virtqueue.avail) + (i % q.size);
      at = DESC + 16 * (position % q.size);
      if (position >= q.size) wrap ^= 1;
    }
    q.region.setBigUint64(at, addr, true);
    q.region.setUint32(at + 8, len, true);
    q.region.setUint16(at + 12, q.packed ? id : flags, true);
    q.region.setUint16(at + 14, q.packed ? (flags & 0x7f7f) | (state ?? (wrap ? 0x80 : 0x8000)) : id, true);
  };
  if (step.kind === "descriptor") {
    put(step.table, step.i, step.addr, step.len, step.flags, step.next, step.state);
  } else if (step.kind === "table") {
    put(DESC, step.i, BigInt(TABLES), 16 * step.entries, 4, step.i, step.state);
  } else if (step.kind === "avail") q.region.setUint16(AVAIL + 4 + 2 * step.i, step.value, true);
  else if (step.kind === "idx") q.region.setUint16(AVAIL + 2, q.vq(Virtqueue.avail) + step.step, true);
  else if (step.kind === "noise") new Uint8Array(q.region.buffer, BASE, REGION).set(step.bytes, step.at);
}

/** Runs the steps; the host goes on over a broken queue, which it needn't: nothing may break even then. */
function run(size: number, features: number, parts: number[], writable: boolean, steps: Step[]): void {
  q.start(1);
  q.bytes.fill(CANARY);
  q.bytes.fill(0, VQ, VQ + Virtqueue.SIZE);
  q.bytes.fill(0, BASE, BASE + REGION);
  for (const [field, value] of [
    [Virtqueue.id, ID],
    [Virtqueue.base, BASE],
    [Virtqueue.limit, REGION],
  ] as const)
    q.set(field, value);
  q.packed = (features & PACKED) !== 0;
  q.size = size;
  const [desc, avail, used] = parts.map(BigInt);
  if (!q.call.deviceStart!(VQ, desc, avail, used, size, features)) expect.fail("doesn't start");
  const fence = fences(size, REGION);
  const held: PacketFields[] = [];
  for (const step of steps) {
    guestWrites(step);
    const refused = q.refused();
    if (step.kind === "take") {
      const got = q.take(step.max, writable);
      if (got.length > step.max) expect.fail(`${got.length} buffers instead of ${step.max}`);
      check(got, size, REGION);
      const back = Math.min(step.back, got.length);
      if (back) q.untake(got.splice(got.length - back));
      held.push(...got);
    } else if (step.kind === "chain") {
      const got = q.takeChain(writable);
      check(got, size, REGION);
      if (!Array.isArray(got)) expect(q.refused()).toBe(refused + 1);
      else if (got.length && step.back) q.untake(got.slice(0, 1));
      else held.push(...got.slice(0, 1));
    } else if (step.kind === "complete") q.complete(held.splice(0, step.n), step.written);
    else if (step.kind === "publish") q.devicePublish();
    else continue;
    checkCounters(size);
  }
  if (!intact(fence)) expect.fail("bytes outside the region were written");
}

describe.each([
  ["split", 0, [1, 2, 8, 16]],
  ["packed", PACKED, [1, 3, 7, 8, 16]],
] as const)("a hostile guest, %s", (_name, format, sizes) => {
  const steps = fc.array(fc.oneof({ weight: 3, arbitrary: write }, { weight: 2, arbitrary: operation }), {
    maxLength: 120,
    size: "max",
  });
  const bits = fc.constantFrom(0, INDIRECT_DESC, INDIRECT_DESC, EVENT_IDX | INDIRECT_DESC);

  it("that writes descriptors, indices and noise is held to its region", () => {
    const reasons = new Set<number>();
    fc.assert(
      fc.property(fc.constantFrom(...sizes), bits, fc.boolean(), steps, (size, features, writable, list) => {
        run(size, format | features, [DESC, AVAIL, USED], writable, list as Step[]);
        for (let why = 1; why < Refusal.COUNT; why++) if (q.refusals(why)) reasons.add(why);
      }),
      { seed: SEED, numRuns: 4000 },
    );
    // The property is worth as much as the paths that it came by.
    const all = [1, 2, 3, 4, 5, 6, 7, 8].filter((why) => !(format && why === Refusal.INDEX));
    expect([...reasons].sort()).toEqual(all);
  });

  it("whose parts of the queue overlap is held to its region", () => {
    const at = fc.integer({ min: 0, max: 40 }).map((n) => n * 16);
    fc.assert(
      fc.property(
        fc.constantFrom(...sizes),
        bits,
        fc.tuple(at, at, at),
        fc.boolean(),
        steps,
        (size, f, parts, writable, list) => run(size, format | f, parts, writable, list as Step[]),
      ),
      { seed: SEED, numRuns: 2000 },
    );
  });

  /** Offers one buffer: a ring descriptor, and entries of the table at TABLES. */
  function offer(features: number, d: { addr: bigint | number; len: number }, flags = 0, size = 8): void {
    expect(q.start(size, format | features)).toBe(true);
    if (format) new PackedDriverModel(q.region, size).describe(d, 0, flags);
    else {
      const guest = new SplitDriverModel(q.region, size);
      guest.describe(0, d, flags, 1);
      guest.offer(0);
      guest.publish();
    }
  }
  /** Is refused for this reason, by both ways of taking, and handed back or the queue stopped. */
  function expectRefusal(why: Refusal, writable = false): void {
    expect(q.take(8, writable)).toEqual([]);
    expect(q.takeChain(writable)).toBe(why);
    expect([q.refusals(why), q.refused()]).toEqual([1, 1]);
    expect(q.vq(Virtqueue.broken)).toBe(why >= Refusal.LOOP ? why : 0);
    if (why >= Refusal.LOOP) return;
    expect(q.vq(Virtqueue.taken)).toBe(0);
    if (format) expect(q.region.getUint16(DESC + 14, true)).toBe(0x8080);
    else expect([q.region.getUint16(USED + 2, true), q.region.getUint32(USED + 8, true)]).toEqual([1, 0]);
  }
  function entry(i: number, addr: bigint | number, len: number, flags: number, next = i + 1): void {
    const at = TABLES + 16 * i;
    q.region.setBigUint64(at, BigInt(addr), true);
    q.region.setUint32(at + 8, len, true);
    q.region.setUint16(at + 12, format ? 0 : flags, true);
    q.region.setUint16(at + 14, format ? flags : next, true);
  }

  it("whose address and length overflow 32 or 64 bits, or leave the region by a byte", () => {
    for (const [addr, len] of [
      [LIMIT, 1],
      [LIMIT - 63, 64],
      [2n ** 32n - 1n, 64],
      [2n ** 32n, 64],
      [2n ** 32n + 64n, 64],
      [2n ** 64n - 64n, 64],
      [2n ** 64n - 1n, 64],
      [2n ** 63n, 64],
      [0, LIMIT + 1],
      [64, 0xffffffff],
      [2n ** 64n - 0xffffffffn, 0xffffffff],
    ] as const) {
      for (const writable of [false, true]) {
        offer(0, { addr, len }, writable ? 2 : 0);
        expectRefusal(Refusal.OUT_OF_REGION, writable);
        offer(INDIRECT_DESC, { addr: TABLES, len: 16 }, 4);
        entry(0, addr, len, writable ? 2 : 0);
        expectRefusal(Refusal.OUT_OF_REGION, writable);
      }
    }
    offer(0, { addr: LIMIT - 64, len: 64 });
    expect(q.take(1)).toHaveLength(1);
  });

  it("whose buffer is empty, or too long to be read", () => {
    offer(0, { addr: BUFFERS, len: 0 });
    expectRefusal(Refusal.TOO_SHORT);
    offer(0, { addr: 0, len: 65536 });
    expectRefusal(Refusal.TOO_LONG);
    offer(0, { addr: 0, len: 65536 }, 2);
    expect(q.takeChain(true)).toMatchObject([{ addr: BASE, len: 65535 }]); // used as far as it goes
  });

  it("whose buffer goes the wrong way", () => {
    offer(0, segment(0), 2);
    expectRefusal(Refusal.DIRECTION, false);
    offer(0, segment(0), 0);
    expectRefusal(Refusal.DIRECTION, true);
  });

  it("whose indirect table is not negotiated, empty, odd, longer than the queue, or joined with NEXT", () => {
    offer(0, { addr: TABLES, len: 16 }, 4);
    expectRefusal(Refusal.INDIRECT);
    for (const len of [0, 1, 15, 17, 8 * 16 + 1, 9 * 16, 0xfffffff0, 0xffffffff]) {
      offer(INDIRECT_DESC, { addr: TABLES, len }, 4);
      expectRefusal(Refusal.INDIRECT);
    }
    if (format) {
      expect(q.start(8, format | INDIRECT_DESC)).toBe(true);
      const guest = new PackedDriverModel(q.region, 8);
      for (const flags of [5, 0]) guest.describe({ addr: TABLES, len: 16 }, 0, flags);
    } else offer(INDIRECT_DESC, { addr: TABLES, len: 16 }, 5);
    entry(0, BUFFERS, 64, 0);
    expectRefusal(Refusal.INDIRECT);
  });

  it("whose indirect table is outside the region", () => {
    for (const addr of [LIMIT, LIMIT - 31, 2n ** 32n, 2n ** 64n - 32n, 2n ** 64n - 1n]) {
      offer(INDIRECT_DESC, { addr, len: 32 }, 4);
      expectRefusal(Refusal.OUT_OF_REGION);
    }
  });

  it("that was refused or stopped works again after a reset", () => {
    offer(0, { addr: LIMIT, len: 1 });
    expectRefusal(Refusal.OUT_OF_REGION);
    q.set(Virtqueue.broken, Refusal.LOOP);
    offer(0, segment(0));
    expect([q.take(8).length, q.vq(Virtqueue.broken)]).toEqual([1, 0]);
  });

  if (format) {
    it("whose list doesn't end within the ring", () => {
      expect(q.start(7, PACKED)).toBe(true);
      const guest = new PackedDriverModel(q.region, 7);
      for (let i = 0; i < 7; i++) guest.describe(segment(i), i, 1);
      expectRefusal(Refusal.LOOP);
    });

    it("that makes more available than the ring holds, while the device has them all", () => {
      expect(q.start(7, PACKED)).toBe(true);
      const guest = new PackedDriverModel(q.region, 7);
      for (let i = 0; i < 8; i++) guest.describe(segment(i), i);
      for (let i = 0; i < 7; i++) q.region.setUint16(DESC + 16 * i + 14, 0x80, true);
      expect(q.take(7)).toHaveLength(7);
      q.region.setUint16(DESC + 14, 0x8000, true); // the second lap's flags
      expect(q.take(7)).toEqual([]);
      expect(q.takeChain()).toBe(Refusal.AVAIL_JUMP);
      expect(q.refusals(Refusal.AVAIL_JUMP)).toBe(2);
      expect(q.vq(Virtqueue.taken)).toBe(7);
    });
  } else {
    it("whose chain loops, in the ring or in an indirect table", () => {
      for (const next of [0, 1, 2]) {
        expect(q.start(8)).toBe(true);
        const guest = new SplitDriverModel(q.region, 8);
        for (let i = 0; i < 3; i++) guest.describe(i, segment(i), 1, i < 2 ? i + 1 : next);
        guest.offer(0);
        guest.publish();
        expectRefusal(Refusal.LOOP);
        offer(INDIRECT_DESC, { addr: TABLES, len: 48 }, 4);
        for (let i = 0; i < 3; i++) entry(i, BUFFERS, 64, 1, i < 2 ? i + 1 : next);
        expectRefusal(Refusal.LOOP);
      }
    });

    it("whose head or next is outside the table", () => {
      for (const bad of [8, 9, 32768, 65535]) {
        expect(q.start(8)).toBe(true);
        const guest = new SplitDriverModel(q.region, 8);
        guest.describe(0, segment(0), 1, bad);
        guest.offer(0);
        guest.publish();
        expectRefusal(Refusal.INDEX);
        expect(q.start(8)).toBe(true);
        guest.avail = 0;
        if (bad < 16) guest.describe(bad, segment(0)); // what stands behind the table would do
        guest.offer(bad);
        guest.publish();
        expectRefusal(Refusal.INDEX);
        offer(INDIRECT_DESC, { addr: TABLES, len: 32 }, 4);
        entry(0, BUFFERS, 64, 1, bad);
        expectRefusal(Refusal.INDEX);
      }
    });

    it("whose indirect table holds another", () => {
      offer(INDIRECT_DESC, { addr: TABLES, len: 32 }, 4);
      entry(0, BUFFERS, 64, 1, 1);
      entry(1, TABLES, 16, 4);
      expectRefusal(Refusal.INDIRECT);
    });

    it("whose chain and table are longer together than the queue: nothing is written behind its room", () => {
      expect(q.start(8, INDIRECT_DESC)).toBe(true);
      const guest = new SplitDriverModel(q.region, 8);
      for (let i = 0; i < 7; i++) guest.describe(i, segment(i), 1, i + 1);
      guest.describe(7, { addr: TABLES, len: 8 * 16 }, 4);
      for (let i = 0; i < 8; i++) entry(i, BUFFERS, 64, i < 7 ? 1 : 0);
      guest.offer(0);
      guest.publish();
      q.bytes.fill(CANARY, OUT + 8 * 16, IN);
      expectRefusal(Refusal.INDIRECT);
      expect(q.bytes.subarray(OUT + 8 * 16, IN).every((byte) => byte === CANARY)).toBe(true);
    });

    it("whose avail index jumps by more than the queue holds, whatever the index is", () => {
      for (const jump of [9, 10, 100, 32768, 65535])
        for (let taken = 0; taken <= 8; taken += 4) {
          expect(q.start(8)).toBe(true);
          const guest = new SplitDriverModel(q.region, 8);
          for (let i = 0; i < 8; i++) guest.describe(i, segment(i));
          for (let i = 0; i < taken; i++) guest.offer(i);
          guest.publish();
          expect(q.take(taken)).toHaveLength(taken);
          q.region.setUint16(AVAIL + 2, taken + jump, true);
          expect(q.take(1)).toEqual([]);
          expect([q.refusals(Refusal.AVAIL_JUMP), q.vq(Virtqueue.broken)]).toEqual([1, Refusal.AVAIL_JUMP]);
          expect(q.vq(Virtqueue.taken)).toBe(taken);
        }
    });
  }
});
