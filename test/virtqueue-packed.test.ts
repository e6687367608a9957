/** Packed virtqueues, both sides, statement by statement (virtio 1.2, 2.8). */
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { Driver, Feature, Refusal, Virtqueue } from "../assembly/layout.ts";
import { instantiate } from "./harness/harness.ts";
import { PackedDeviceModel, PackedDriverModel } from "./harness/packed.ts";
import {
  AVAIL,
  BASE,
  BUFFERS,
  DESC,
  DRV,
  frames,
  ID,
  LIMIT,
  Queue,
  type Segment,
  segment,
  TABLES,
  USED,
  where,
} from "./harness/queue.ts";

const SEED = 20;
const { EVENT_IDX, INDIRECT_DESC, IN_ORDER, PACKED } = Feature;
const SIZES = [1, 2, 3, 4, 5, 7, 8, 13, 31, 64, 100, 255, 256, 1000, 1023, 1024];
const ENABLE = 0;
const DISABLE = 1;
const EVENT = 2;

let q: Queue;
beforeAll(async () => {
  q = new Queue(await instantiate());
});

function device(size: number, features = 0): PackedDriverModel {
  expect(q.start(size, features | PACKED)).toBe(true);
  return new PackedDriverModel(q.region, size);
}
function driver(size: number, features = 0, options = {}): PackedDeviceModel {
  q.init(size, features | PACKED, options);
  return new PackedDeviceModel(q.region, size);
}
const list = (n: number, from = 0) => Array.from({ length: n }, (_, i) => segment(from + i));
/** Buffers through the queue until its position is `n` further on. */
function advanceDevice(guest: PackedDriverModel, n: number): void {
  for (let i = 0; i < n; i++) {
    guest.offer([segment(i)], 0);
    q.complete(q.take(1));
    q.devicePublish();
    guest.used();
  }
}
function advanceDriver(dev: PackedDeviceModel, n: number): void {
  for (let i = 0; i < n; i++) {
    q.post([[segment(i)]]);
    q.driverPublish();
    for (const found of dev.find()) dev.use(found.id, 0, 1);
    q.used();
  }
}

describe("packed virtqueue, device", () => {
  it("2.8.10.1 has any size from 1 to 1024, at multiples of 16, 4 and 4", () => {
    for (let size = 0; size <= 1100; size++) expect(q.start(size, PACKED)).toBe(size >= 1 && size <= 1024);
    for (let off = 0; off < 16; off++) {
      expect(q.start(7, PACKED, DESC + off)).toBe(off === 0);
      expect(q.start(7, PACKED, DESC, AVAIL + off)).toBe(off % 4 === 0);
      expect(q.start(7, PACKED, DESC, AVAIL, USED + off)).toBe(off % 4 === 0);
    }
    expect(q.start(7, PACKED, LIMIT - 7 * 16)).toBe(true);
    expect(q.start(7, PACKED, LIMIT - 6 * 16)).toBe(false);
    expect(q.start(7, PACKED, DESC, LIMIT - 4, LIMIT - 4)).toBe(true);
    expect(q.start(7, PACKED, DESC, LIMIT)).toBe(false);
    expect(q.start(7, PACKED, DESC, AVAIL, LIMIT)).toBe(false);
  });

  it("2.8.1 follows the wrap counters through many laps, at every size", () => {
    for (const size of SIZES) {
      const guest = device(size);
      let n = 0;
      for (let lap = 0; lap < 5; lap++)
        for (const burst of [size, 1, Math.ceil(size / 2)]) {
          for (let i = 0; i < burst; i++) guest.offer([segment(n + i)], (n + i) % size, true);
          const got = q.take(burst + 3, true);
          expect(where(got)).toEqual(list(burst, n));
          q.complete(got, true);
          q.devicePublish();
          expect(guest.used()).toEqual(got.map((d) => ({ id: d.index, len: d.len, write: true })));
          n += burst;
        }
      expect(q.refused()).toBe(0);
    }
  });

  it("2.8.15 uses no descriptor unless AVAIL differs from USED and equals the wrap counter", () => {
    for (const second of [false, true])
      for (let state = 0; state < 4; state++) {
        const guest = device(4);
        if (second) advanceDevice(guest, 4);
        const flags = (state & 1 ? 0x80 : 0) | (state & 2 ? 0x8000 : 0);
        guest.write(DESC, BUFFERS, 64, 1, flags);
        const available = flags === (second ? 0x8000 : 0x80);
        expect(q.take(4)).toHaveLength(available ? 1 : 0);
        if (!available) expect(q.takeChain()).toEqual([]);
      }
  });

  it("2.8.12 starts with descriptors in the ring's order", () => {
    const guest = device(7);
    for (const id of [6, 2, 0, 5]) guest.offer([segment(id)], id);
    expect(q.take(7).map((d) => d.index)).toEqual([6, 2, 0, 5]);
  });

  it("2.8.12 writes used descriptors in the order of completion, each behind the one before", () => {
    const guest = device(7);
    for (let i = 0; i < 6; i++) guest.offer([segment(i)], i);
    const got = q.take(6);
    const order = [3, 0, 5, 1];
    for (const i of order) q.complete([got[i]!]);
    q.devicePublish();
    expect(guest.used().map((d) => d.id)).toEqual(order);
  });

  it("2.8.9 shows nothing of a burst before publish, which writes the first one's flags", () => {
    const guest = device(8);
    for (let i = 0; i < 5; i++) guest.offer([segment(i)], i, true);
    const got = q.take(5, true);
    q.complete(got.slice(0, 2), true);
    q.complete(got.slice(2), true);
    expect(guest.used()).toEqual([]);
    expect(guest.read(DESC).flags & 0x8080).toBe(0x80);
    q.devicePublish();
    expect(guest.used().map((d) => d.id)).toEqual([0, 1, 2, 3, 4]);
  });

  it("2.8.15 changes no descriptor after it was made used, and writes to nothing but used descriptors", () => {
    const guest = device(8);
    for (let i = 0; i < 8; i++) guest.offer([segment(i)], i);
    const got = q.take(8);
    q.complete(got.slice(0, 3));
    q.devicePublish();
    const before = q.bytes.slice(BASE, BASE + 3 * 16);
    const rest = Buffer.from(q.bytes.slice(BASE + 8 * 16, BASE + LIMIT));
    q.complete(got.slice(3));
    q.devicePublish();
    expect(q.bytes.slice(BASE, BASE + 3 * 16)).toEqual(before);
    expect(rest.equals(q.bytes.subarray(BASE + 8 * 16, BASE + LIMIT))).toBe(true);
  });

  it("2.8.3 sets WRITE in a used descriptor when it wrote, 2.8.4 with the bytes written", () => {
    const guest = device(8);
    for (let i = 0; i < 4; i++) guest.offer([segment(i)], i, true);
    const got = q.take(4, true);
    q.complete(got.slice(0, 1), true);
    q.complete(got.slice(1, 2), false);
    q.complete([{ ...got[2]!, len: 0 }, got[3]!], true);
    q.devicePublish();
    expect(guest.used()).toEqual([
      { id: 0, len: got[0]!.len, write: true },
      { id: 1, len: 0, write: false },
      { id: 2, len: 0, write: false },
      { id: 3, len: got[3]!.len, write: true },
    ]);
  });

  it("2.8.18 takes a list in its order, with the id of the last one (2.8.6), over the ring's end, at every size", () => {
    for (const size of SIZES.filter((n) => n <= 256))
      for (const writable of [false, true]) {
        const guest = device(size);
        for (let round = 0; round < 8; round++) {
          const n = round % 2 ? size : Math.ceil(size / 2);
          guest.offer(list(n), round, writable);
          const got = q.takeChain(writable);
          if (!Array.isArray(got)) return expect.fail(`refused: ${got}`);
          expect(where(got)).toEqual(list(n));
          expect(got.map((d) => d.flags)).toEqual(list(n).map((_, i) => (i + 1 < n ? 1 : 0)));
          expect(got.every((d) => d.owner === ID && d.index === round && d.mark === n)).toBe(true);
          q.complete(got.slice(0, 1), true);
          q.devicePublish();
          expect(guest.used()).toEqual([{ id: round, len: got[0]!.len, write: true }]);
        }
      }
  });

  it("2.8.17 hands back, whole and unused, a list whose elements go the other way", () => {
    const guest = device(7);
    guest.offer(list(3), 4, true);
    expect(q.takeChain(false)).toBe(Refusal.DIRECTION);
    expect(guest.used()).toEqual([{ id: 4, len: 0, write: false }]);
    guest.offer([segment(9)], 5);
    expect(where(q.take(1))).toEqual([segment(9)]);
    expect([q.refusals(Refusal.DIRECTION), q.vq(Virtqueue.broken)]).toEqual([1, 0]);
  });

  it("2.8.7 takes an indirect table from first to last, ignoring ids and every flag but WRITE", () => {
    for (const writable of [false, true])
      for (const noise of [0, 0xffff]) {
        const guest = device(7, INDIRECT_DESC);
        guest.describe(guest.table(TABLES, list(7), writable, noise), 3, 4);
        const got = q.takeChain(writable);
        if (!Array.isArray(got)) return expect.fail(`refused: ${got}`);
        expect(where(got)).toEqual(list(7));
        expect(got[6]!).toMatchObject({ index: 3, mark: 1, flags: 0 });
      }
  });

  it("2.8.7 ignores WRITE in the descriptor that refers to an indirect table", () => {
    for (const writable of [false, true])
      for (const flag of [0, 2]) {
        const guest = device(4, INDIRECT_DESC);
        guest.describe(guest.table(TABLES, list(2), writable), 0, 4 | flag);
        expect(q.takeChain(writable)).toHaveLength(2);
      }
  });

  it("2.8.10 notifies always with ENABLE, never with DISABLE, and never with what isn't valid", () => {
    for (const [mode, features, notifies] of [
      [ENABLE, 0, true],
      [ENABLE, EVENT_IDX, true],
      [DISABLE, 0, false],
      [DISABLE, EVENT_IDX, false],
      [EVENT, 0, false],
      [3, EVENT_IDX, false],
    ] as const) {
      const guest = device(5, features);
      guest.suppression(mode);
      guest.offer([segment(0)], 0);
      q.complete(q.take(1));
      expect(q.devicePublish(), `mode ${mode}`).toBe(notifies);
    }
  });

  it("2.8.10 with EVENT_IDX notifies exactly when the descriptor at that place and wrap counter is used", () => {
    for (const size of [1, 2, 3, 7, 8, 13])
      for (let begin = 0; begin < 2 * size; begin++)
        for (let burst = 1; burst <= size; burst++) {
          // Places are counted over two laps: `begin` .. `begin + burst - 1` become used.
          for (let ahead = -Math.min(begin, size - 1); ahead < size; ahead++) {
            const guest = device(size, EVENT_IDX);
            guest.suppression(DISABLE);
            advanceDevice(guest, begin);
            const place = begin + ahead;
            guest.suppression(EVENT, place % size, Math.floor(place / size) % 2 === 0);
            for (let i = 0; i < burst; i++) guest.offer([segment(i)], i);
            q.complete(q.take(burst));
            if (q.devicePublish() !== (ahead >= 0 && ahead < burst))
              expect.fail(`size ${size}: from ${begin}, ${burst} used, event ${ahead} ahead`);
          }
        }
  });

  it("2.8.10 asks for no available buffer notifications: it polls", () => {
    device(5);
    expect([q.region.getUint16(USED, true), q.region.getUint16(USED + 2, true)]).toEqual([0, DISABLE]);
  });

  it("handles spurious notifications: nothing to take is nothing taken", () => {
    device(5);
    expect([q.take(5), q.takeChain(), q.devicePublish(), q.refused()]).toEqual([[], [], false, 0]);
  });

  it("stops a burst before the first buffer that isn't one plain descriptor, and goes on behind it", () => {
    const guest = device(7);
    guest.offer([segment(0)], 0);
    guest.offer(list(2), 1);
    guest.offer([segment(3)], 2);
    expect(q.take(7).map((d) => d.index)).toEqual([0]);
    expect(q.takeChain()).toHaveLength(2);
    expect(q.take(7).map((d) => d.index)).toEqual([2]);
    expect(q.vq(Virtqueue.taken)).toBe(4);
  });

  it("gives the same buffers again after untake, over the ring's end too", () => {
    for (const size of [1, 3, 7, 8])
      for (let begin = 0; begin < 2 * size; begin++) {
        const guest = device(size);
        advanceDevice(guest, begin);
        for (let i = 0; i < size; i++) guest.offer([segment(i)], i);
        const first = q.take(size);
        for (let keep = 0; keep <= size; keep++) {
          q.untake(first.slice(keep));
          expect(q.vq(Virtqueue.taken)).toBe(keep);
          expect(q.take(size)).toEqual(first.slice(keep));
        }
      }
  });

  it("gives a whole list again after untake", () => {
    const guest = device(7);
    advanceDevice(guest, 5);
    guest.offer(list(4), 1);
    const first = q.takeChain() as { mark: number }[];
    q.untake([first[0]] as never);
    expect(q.takeChain()).toEqual(first);
    expect(q.vq(Virtqueue.taken)).toBe(4);
  });
});

describe("packed virtqueue, driver", () => {
  it("2.8.21.1 writes address, length, id and flags of each buffer, at every size, over many laps", () => {
    for (const size of SIZES)
      for (const writable of [false, true]) {
        const dev = driver(size);
        for (const burst of [size + 2, 1, Math.ceil(size / 2), size]) {
          const n = Math.min(burst, size);
          expect(q.post(frames(burst), writable)).toBe(n);
          expect(dev.find()).toEqual([]);
          q.driverPublish();
          expect(q.driverPublish()).toBe(false);
          const found = dev.find();
          expect(found.map((f) => f.segments[0])).toEqual(list(n));
          expect(found.every((f) => f.writable[0] === writable && f.flags[0] === (writable ? 2 : 0))).toBe(
            true,
          );
          expect(new Set(found.map((f) => f.id)).size).toBe(n);
          for (const f of found) dev.use(f.id, 0, 1);
          expect(q.used()).toHaveLength(n);
        }
      }
  });

  it("2.8.16 changes no descriptor that the device hasn't used", () => {
    const dev = driver(7);
    q.post(frames(7));
    q.driverPublish();
    const before = q.bytes.slice(BASE, BASE + 7 * 16);
    expect(q.post(frames(3))).toBe(0);
    q.driverPublish();
    expect(q.bytes.slice(BASE, BASE + 7 * 16)).toEqual(before);
    for (const f of dev.find().slice(0, 2)) dev.use(f.id, 0, 1);
    q.used();
    expect(q.post(frames(3))).toBe(2);
    expect(q.bytes.slice(BASE + 2 * 16, BASE + 7 * 16)).toEqual(before.slice(2 * 16));
  });

  it("2.8.17 makes the first descriptor of a list available last, and no list longer than the ring", () => {
    const dev = driver(7);
    expect(q.post([list(8)])).toBe(0);
    expect(q.post([list(7)])).toBe(7);
    expect(dev.find()).toEqual([]);
    q.driverPublish();
    expect(dev.find()).toMatchObject([{ count: 7, segments: list(7), flags: [1, 1, 1, 1, 1, 1, 0] }]);
  });

  it("2.8.17 begins no list that doesn't fit as a whole", () => {
    const dev = driver(7);
    expect(q.post([list(5), list(3)])).toBe(5);
    q.driverPublish();
    expect(dev.find()).toHaveLength(1);
  });

  it("2.8.19 uses no indirect table unless INDIRECT_DESC was negotiated", () => {
    const dev = driver(8, 0, { indirect: true });
    q.post([list(2)]);
    q.driverPublish();
    expect(dev.find()).toMatchObject([{ indirect: false, segments: list(2) }]);
  });

  it("2.8.19 sets no flag but WRITE in an indirect table, and none is joined with NEXT", () => {
    for (const writable of [false, true]) {
      const dev = driver(9, INDIRECT_DESC, { indirect: true });
      expect(q.post([list(8), list(3)], writable)).toBe(11);
      q.driverPublish();
      const found = dev.find();
      expect(found).toMatchObject([
        { segments: list(8), count: 1 },
        { segments: list(3), count: 1 },
      ]);
      for (const { flags } of found) {
        expect(flags[0]).toBe(4);
        expect(flags.slice(1).every((f) => f === (writable ? 2 : 0))).toBe(true);
      }
    }
  });

  it("2.8.19 makes no table longer than the ring", () => {
    driver(5, INDIRECT_DESC, { indirect: true });
    expect(q.post([list(6)])).toBe(0);
    expect(q.post([list(5)])).toBe(5);
  });

  it("2.8.8 takes a batch told by one used descriptor, lists and tables included", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(0, INDIRECT_DESC),
        fc.array(fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 4 }), { maxLength: 30 }),
        (features, batches) => {
          const dev = driver(13, IN_ORDER | features, { indirect: true });
          for (const batch of batches) {
            const sent = batch.map((n) => list(n, n));
            expect(q.post(sent)).toBe(sent.flat().length);
            q.driverPublish();
            const found = dev.find();
            dev.use(
              found.at(-1)!.id,
              0,
              found.reduce((sum, f) => sum + f.count, 0),
            );
            const got = [...q.used(4), ...q.used(4), ...q.used()];
            expect(where(got)).toEqual(sent.flat());
          }
        },
      ),
      { seed: SEED, numRuns: 60 },
    );
  });

  it("2.8.8 takes what was skipped as used completely, the last one as long as it says", () => {
    const dev = driver(7, IN_ORDER);
    for (let round = 0; round < 10; round++) {
      q.post(frames(5), true);
      q.driverPublish();
      dev.use(dev.find()[4]!.id, round, 5, true);
      expect(q.used().map((d) => d.len)).toEqual([60, 61, 62, 63, round]);
    }
  });

  it("2.8.4 a received buffer is as long as the device wrote, 0 included, and never longer than it was posted", () => {
    const dev = driver(7);
    q.post(frames(6), true);
    q.driverPublish();
    const lens = [0, 1, 59, 70_000, 65_536, 0xffffffff];
    for (const [i, f] of dev.find().entries()) dev.use(f.id, lens[i]!, 1, true);
    expect(q.used().map((d) => d.len)).toEqual([0, 1, 59, 63, 64, 65]);
  });

  it("2.8.6 ignores NEXT in used descriptors", () => {
    const dev = driver(5);
    q.post(frames(2));
    q.driverPublish();
    for (const f of dev.find()) dev.use(f.id, 0, 1);
    for (const at of [14, 30]) q.region.setUint16(at, q.region.getUint16(at, true) | 1, true);
    expect(q.used()).toHaveLength(2);
  });

  it("2.8.22 takes buffers back in whatever order they were used, lists by their number of descriptors", () => {
    const dev = driver(13);
    for (let round = 0; round < 20; round++) {
      const sent = [list(3), list(1, 10), list(4, 20), list(2, 30)];
      expect(q.post(sent)).toBe(10);
      q.driverPublish();
      const found = dev.find();
      for (const i of [2, 0, 3, 1]) dev.use(found[i]!.id, 0, found[i]!.count);
      expect(where(q.used())).toEqual([2, 0, 3, 1].flatMap((i) => sent[i]!));
    }
  });

  it("2.8.10 sets its own suppression: DISABLE when it polls, else ENABLE, and with EVENT_IDX the next place", () => {
    for (const [features, polls, mode] of [
      [0, true, DISABLE],
      [0, false, ENABLE],
      [EVENT_IDX, true, DISABLE],
      [EVENT_IDX, false, EVENT],
    ] as const) {
      const dev = driver(5, features, { polls });
      advanceDriver(dev, 7);
      expect(q.region.getUint16(AVAIL + 2, true)).toBe(mode);
      if (mode === EVENT) expect(q.region.getUint16(AVAIL, true)).toBe(2); // second lap: wrap counter 0
    }
  });

  it("2.8.10 notifies always with ENABLE, never with DISABLE, and never with what isn't valid", () => {
    for (const [mode, features, notifies] of [
      [ENABLE, 0, true],
      [DISABLE, EVENT_IDX, false],
      [EVENT, 0, false],
      [3, EVENT_IDX, false],
    ] as const) {
      const dev = driver(5, features);
      dev.suppression(mode);
      q.post(frames(2));
      expect(q.driverPublish(), `mode ${mode}`).toBe(notifies);
    }
  });

  it("2.8.10 with EVENT_IDX notifies exactly when the descriptor at that place and wrap counter is available", () => {
    for (const size of [1, 2, 3, 7, 8])
      for (let begin = 0; begin < 2 * size; begin++)
        for (let burst = 1; burst <= size; burst++)
          for (let ahead = -Math.min(begin, size - 1); ahead < size; ahead++) {
            const dev = driver(size, EVENT_IDX);
            dev.suppression(DISABLE);
            advanceDriver(dev, begin);
            const place = begin + ahead;
            dev.suppression(EVENT, place % size, Math.floor(place / size) % 2 === 0);
            q.post(frames(burst));
            if (q.driverPublish() !== (ahead >= 0 && ahead < burst))
              expect.fail(`size ${size}: from ${begin}, ${burst} posted, event ${ahead} ahead`);
          }
  });

  it("counts used descriptors that name no outstanding buffer, and never hangs over them", () => {
    for (const features of [0, IN_ORDER])
      for (const id of [1, 2, 7, 65535]) {
        const dev = driver(7, features);
        q.post([list(3), [segment(9)]]);
        q.driverPublish();
        const [first] = dev.find();
        // Ids 1 and 2 past the head are the middle of the list.
        dev.use(id < 3 ? (features ? first!.id + id : first!.id - id) : id, 0, 1);
        expect(q.used()).toEqual([]);
        expect(q.host.getUint32(DRV + Driver.badUsed, true)).toBe(1);
      }
  });
});

describe("packed virtqueue, driver and device", () => {
  it("carries every frame once, in order, at every size", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(1, 2, 3, 5, 7, 8, 13, 64, 100),
        fc.constantFrom(0, EVENT_IDX, INDIRECT_DESC, IN_ORDER, INDIRECT_DESC | IN_ORDER | EVENT_IDX),
        fc.boolean(),
        fc.array(fc.array(fc.integer({ min: 1, max: 9 }), { maxLength: 12 }), { maxLength: 25 }),
        (size, bits, writable, bursts) => {
          expect(q.start(size, bits | PACKED)).toBe(true);
          q.attach(size, bits | PACKED, { indirect: true });
          let sent = 0;
          for (const burst of bursts) {
            const all = burst
              .filter((n) => n <= size)
              .map((n) => Array.from({ length: n }, () => segment(sent++)));
            const posted = q.post(all, writable);
            q.driverPublish();
            const want = all.flat().slice(0, posted);
            const taken: Segment[] = [];
            for (;;) {
              const plain = q.take(32, writable);
              const got = plain.length ? plain : q.takeChain(writable);
              if (!Array.isArray(got)) return expect.fail(`refused: ${got}`);
              if (!got.length) break;
              taken.push(...where(got));
              q.complete(plain.length ? plain : got.slice(0, 1), false);
              q.devicePublish();
            }
            expect(taken).toEqual(want);
            expect(q.used().map(({ addr }) => addr - BASE)).toEqual(want.map(({ addr }) => addr));
          }
        },
      ),
      { seed: SEED, numRuns: 150 },
    );
  });
});
