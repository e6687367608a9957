/** Split virtqueues, both sides, statement by statement (virtio 1.2, 2.7). */
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { Driver, Feature, Refusal, Virtqueue } from "../assembly/layout.ts";
import { instantiate } from "./harness/harness.ts";
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
import { SplitDeviceModel, SplitDriverModel } from "./harness/split.ts";

const SEED = 20;
const { EVENT_IDX, INDIRECT_DESC, IN_ORDER } = Feature;
const SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
/** Where the u16 indices begin, so that they wrap soon. */
const STARTS = [0, 65535, 65534, 65500, 64511];

let q: Queue;
beforeAll(async () => {
  q = new Queue(await instantiate());
});

/** The device's side, and a model of the driver; both indices begin at `start`. */
function device(size: number, features = 0, start = 0): SplitDriverModel {
  expect(q.start(size, features)).toBe(true);
  for (const field of [Virtqueue.avail, Virtqueue.availCache, Virtqueue.used, Virtqueue.published])
    q.set(field, start);
  return new SplitDriverModel(q.region, size, start);
}
/** The driver's side, and a model of the device. */
function driver(size: number, features = 0, options = {}): SplitDeviceModel {
  q.init(size, features, options);
  return new SplitDeviceModel(q.region, size);
}
/** Offers plain one-descriptor buffers 0 .. n-1. */
function offerPlain(guest: SplitDriverModel, n: number, writable = false): void {
  for (let i = 0; i < n; i++) guest.offer(guest.chain([i], [segment(i)], writable));
  guest.publish();
}
const bytesAt = (from: number, n: number) => q.bytes.slice(BASE + from, BASE + from + n);

describe("split virtqueue, device", () => {
  it("2.7 has a queue size that is a power of 2, from 1 to 1024", () => {
    for (let size = 0; size <= 1100; size++) expect(q.start(size), `size ${size}`).toBe(SIZES.includes(size));
    for (const size of [2048, 32768, 65536, 0x80000000, 0xffffffff]) expect(q.start(size)).toBe(false);
  });

  it("2.7.1 has parts at multiples of 16, 2 and 4", () => {
    for (let off = 0; off < 16; off++) {
      expect(q.start(8, 0, DESC + off)).toBe(off === 0);
      expect(q.start(8, 0, DESC, AVAIL + off)).toBe(off % 2 === 0);
      expect(q.start(8, 0, DESC, AVAIL, USED + off)).toBe(off % 4 === 0);
    }
  });

  it("2.7 has each part wholly in the guest's region", () => {
    expect(q.start(8, 0, LIMIT - 8 * 16)).toBe(true);
    expect(q.start(8, 0, LIMIT - 7 * 16)).toBe(false);
    expect(q.start(8, 0, DESC, LIMIT - (6 + 2 * 8))).toBe(true);
    expect(q.start(8, 0, DESC, LIMIT - (6 + 2 * 8) + 2)).toBe(false);
    expect(q.start(8, 0, DESC, AVAIL, LIMIT - 72)).toBe(true); // 6 + 8 * 8, and aligned to 4
    expect(q.start(8, 0, DESC, AVAIL, LIMIT - 68)).toBe(false);
    const start = (desc: bigint) => Boolean(q.call.deviceStart!(0x10000, desc, 0x4000n, 0x5000n, 8, 0));
    for (const desc of [2n ** 32n, 2n ** 63n, 2n ** 64n - 16n, BigInt(LIMIT)])
      expect(start(desc)).toBe(false);
  });

  it("2.7.4.1 makes no assumption about framing: any split of any bytes arrives", () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            addr: fc.integer({ min: 0, max: LIMIT - 65535 }),
            len: fc.integer({ min: 1, max: 65535 }),
          }),
          {
            minLength: 1,
            maxLength: 16,
          },
        ),
        fc.boolean(),
        (segments, writable) => {
          const guest = device(16);
          guest.offer(
            guest.chain([3, 2, 5, 0, 1, 4, 9, 15, 14, 13, 6, 7, 8, 10, 11, 12], segments, writable),
          );
          guest.publish();
          const got = q.takeChain(writable);
          expect(got).toBeInstanceOf(Array);
          if (!Array.isArray(got)) return;
          expect(where(got)).toEqual(segments);
          expect(got.map((d) => d.flags)).toEqual(segments.map((_, i) => (i + 1 < segments.length ? 1 : 0)));
          expect(got.every((d) => d.owner === ID && d.index === 3 && d.mark === 1)).toBe(true);
        },
      ),
      { seed: SEED, numRuns: 60 },
    );
  });

  it("2.7.4.2 takes no chain whose elements go the other way, and hands it back unused", () => {
    for (const writable of [false, true]) {
      const guest = device(8);
      guest.describe(0, segment(0), 1 | (writable ? 2 : 0), 1);
      guest.describe(1, segment(1), writable ? 0 : 2);
      guest.offer(0);
      guest.publish();
      expect(q.takeChain(writable)).toBe(Refusal.DIRECTION);
      expect(q.refusals(Refusal.DIRECTION)).toBe(1);
      expect(guest.used()).toEqual([{ id: 0, len: 0 }]);
      expect(q.vq(Virtqueue.broken)).toBe(0);
    }
  });

  it("2.7.5 takes chains as long as the queue, at every size", () => {
    for (const size of SIZES) {
      const guest = device(size);
      const ids = Array.from({ length: size }, (_, i) => size - 1 - i);
      guest.offer(guest.chain(ids, ids.map(segment)));
      guest.publish();
      const got = q.takeChain();
      expect(Array.isArray(got) && where(got)).toEqual(ids.map(segment));
    }
  });

  it("2.7.5.1 writes neither to the descriptor table nor to the available ring (2.7.6) nor to readable buffers", () => {
    const guest = device(8);
    offerPlain(guest, 8);
    const before = bytesAt(0, USED);
    const buffers = bytesAt(BUFFERS, 0x10000);
    q.complete(q.take(8));
    q.devicePublish();
    expect(guest.used()).toHaveLength(8);
    expect(bytesAt(0, USED)).toEqual(before);
    expect(bytesAt(BUFFERS, 0x10000)).toEqual(buffers);
  });

  it("2.7.5.3 follows `next` through an indirect table, up to as many entries as the queue has", () => {
    const guest = device(8, INDIRECT_DESC);
    const list = Array.from({ length: 8 }, (_, i) => segment(i));
    guest.describe(2, guest.table(TABLES + 8, list, true, [0, 7, 1, 6, 2, 5, 3, 4]), 4);
    guest.offer(2);
    guest.publish();
    const got = q.takeChain(true);
    expect(Array.isArray(got) && where(got)).toEqual(list);
  });

  it("2.7.5.3.2 ignores WRITE in the descriptor that refers to an indirect table", () => {
    for (const writable of [false, true])
      for (const flag of [0, 2]) {
        const guest = device(8, INDIRECT_DESC);
        guest.describe(0, guest.table(TABLES, [segment(0), segment(1)], writable), 4 | flag);
        guest.offer(0);
        guest.publish();
        const got = q.takeChain(writable);
        expect(Array.isArray(got) && where(got)).toEqual([segment(0), segment(1)]);
      }
  });

  it("2.7.5.3.2 takes zero or more chained descriptors followed by one that refers to a table", () => {
    for (let chained = 0; chained < 8; chained++) {
      const guest = device(8, INDIRECT_DESC);
      const list = Array.from({ length: 8 }, (_, i) => segment(i));
      for (let i = 0; i < chained; i++) guest.describe(i, list[i]!, 1, i + 1);
      guest.describe(chained, guest.table(TABLES, list.slice(chained)), 4);
      guest.offer(0);
      guest.publish();
      const got = q.takeChain();
      expect(Array.isArray(got) && where(got)).toEqual(list);
    }
  });

  it("2.7.6 reads the available ring modulo the queue size, over the wrap of idx, at every size", () => {
    for (const size of SIZES)
      for (const start of STARTS) {
        const guest = device(size, 0, start);
        for (let round = 0; round < 3; round++) {
          offerPlain(guest, size, true);
          const got = q.take(size + 5, true);
          expect(got.map((d) => d.index)).toEqual(Array.from({ length: size }, (_, i) => i));
          expect(q.take(1, true)).toEqual([]);
          q.complete(got, true);
          q.devicePublish();
          expect(guest.used()).toEqual(got.map((d) => ({ id: d.index, len: d.len })));
        }
        expect(q.refused()).toBe(0);
      }
  });

  it("2.7.6 passes every value of idx in one run", () => {
    const guest = device(64);
    offerPlain(guest, 64);
    for (let n = 0; n < 66_000; n += 60) {
      if (n) {
        for (let i = 0; i < 60; i++) guest.offer((n + i + 4) % 64);
        guest.publish();
      }
      const got = q.take(60);
      expect(got.map((d) => d.index)).toEqual(Array.from({ length: 60 }, (_, i) => (n + i) % 64));
      q.complete(got);
      q.devicePublish();
    }
    expect(q.refused()).toBe(0);
  });

  it("2.7.6 sees nothing that idx doesn't cover yet", () => {
    const guest = device(8);
    guest.offer(guest.chain([0], [segment(0)]));
    expect(q.take(8)).toEqual([]);
    expect(q.takeChain()).toEqual([]);
    guest.publish();
    expect(q.take(8)).toHaveLength(1);
  });

  it("2.7.7.2 without EVENT_IDX notifies exactly when flags is 0, whatever used_event says", () => {
    for (const flags of [0, 1])
      for (const event of [0, 1, 2, 7, 65535]) {
        const guest = device(8);
        offerPlain(guest, 4);
        guest.setFlags(flags);
        guest.setUsedEvent(event);
        q.complete(q.take(4));
        expect(q.devicePublish()).toBe(flags === 0);
      }
  });

  it("2.7.7.2 with EVENT_IDX notifies exactly when the entry at used_event is written, whatever flags says", () => {
    for (const start of STARTS)
      for (const burst of [1, 3, 8])
        for (let off = -10; off <= 10; off++)
          for (const flags of [0, 1]) {
            const guest = device(8, EVENT_IDX, start);
            offerPlain(guest, burst);
            guest.setFlags(flags);
            guest.setUsedEvent((start + off) & 0xffff);
            q.complete(q.take(burst));
            expect(q.devicePublish(), `start ${start}, burst ${burst}, event ${off}`).toBe(
              off >= 0 && off < burst,
            );
          }
  });

  it("2.7.8.2 writes id and len before idx, which moves once for the burst", () => {
    const guest = device(8);
    offerPlain(guest, 5, true);
    const got = q.take(5, true);
    q.complete(got, true);
    expect(guest.usedIndex()).toBe(0);
    for (const [i, d] of got.entries()) expect(guest.element(i)).toEqual({ id: d.index, len: d.len });
    q.devicePublish();
    expect(guest.usedIndex()).toBe(5);
  });

  it("2.7.8 names a chain by its head, in one element, with the bytes written", () => {
    const guest = device(8);
    guest.offer(guest.chain([6, 1, 3], [segment(0), segment(1), segment(2)], true));
    guest.publish();
    const got = q.takeChain(true);
    if (!Array.isArray(got)) throw new Error(`refused: ${got}`);
    q.complete([{ ...got[0]!, len: 1234 }], true);
    q.devicePublish();
    expect(guest.used()).toEqual([{ id: 6, len: 1234 }]);
  });

  it("2.7.8 tells of len 0 for a buffer that it only read", () => {
    const guest = device(8);
    offerPlain(guest, 3);
    q.complete(q.take(3), false);
    q.devicePublish();
    expect(guest.used().map((e) => e.len)).toEqual([0, 0, 0]);
  });

  it("2.7.9 takes buffers in the order in which they were made available", () => {
    const guest = device(16, IN_ORDER);
    const order = [5, 0, 15, 3, 9];
    for (const id of order) guest.offer(guest.chain([id], [segment(id)]));
    guest.publish();
    expect(q.take(16).map((d) => d.index)).toEqual(order);
  });

  it("2.7.10.2 without EVENT_IDX sets flags to 1: it polls; with EVENT_IDX flags is 0 and avail_event far off", () => {
    const guest = device(8);
    expect(guest.region.getUint16(USED, true)).toBe(1);
    device(8, EVENT_IDX);
    expect(guest.region.getUint16(USED, true)).toBe(0);
    expect(guest.region.getUint16(USED + 4 + 8 * 8, true)).toBe(65535);
  });

  it("2.7.10.2 handles spurious notifications: nothing to take is nothing taken", () => {
    device(8);
    for (let i = 0; i < 3; i++) {
      expect(q.take(8)).toEqual([]);
      expect(q.takeChain()).toEqual([]);
      expect(q.devicePublish()).toBe(false);
    }
    expect(q.refused()).toBe(0);
  });

  it("stops a burst before the first buffer that isn't one plain descriptor, and goes on behind it", () => {
    const guest = device(8);
    guest.offer(guest.chain([0], [segment(0)]));
    guest.offer(guest.chain([1, 2], [segment(1), segment(2)]));
    guest.offer(guest.chain([3], [segment(3)]));
    guest.publish();
    expect(q.take(8).map((d) => d.index)).toEqual([0]);
    expect(q.takeChain()).toHaveLength(2);
    expect(q.take(8).map((d) => d.index)).toEqual([3]);
  });

  it("gives the same buffers again after untake", () => {
    for (const start of STARTS) {
      const guest = device(8, 0, start);
      offerPlain(guest, 8);
      const first = q.take(8);
      q.untake(first.slice(3));
      expect(q.vq(Virtqueue.taken)).toBe(3);
      expect(q.take(8)).toEqual(first.slice(3));
    }
  });

  it("counts `taken` as the buffers that the driver is without", () => {
    const guest = device(8);
    offerPlain(guest, 8);
    const got = q.take(6);
    expect(q.vq(Virtqueue.taken)).toBe(6);
    q.complete(got.slice(0, 2));
    expect(q.vq(Virtqueue.taken)).toBe(4);
  });
});

describe("split virtqueue, driver", () => {
  it("2.7.5.2 gives out no descriptor again before its buffer was used, and makes no loops", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(0, IN_ORDER),
        fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 60 }),
        (features, lengths) => {
          const dev = driver(16, features);
          const held: number[][] = [];
          for (const n of lengths) {
            const frame = Array.from({ length: n }, (_, i) => segment(i));
            while (q.post([frame]) === 0) {
              const [oldest] = held.splice(features ? 0 : Math.floor(held.length / 2), 1);
              dev.use(oldest![0]!, 0);
              dev.publish();
              expect(q.used()).toHaveLength(oldest!.length);
            }
            q.driverPublish();
            const found = dev.find();
            expect(found).toHaveLength(1);
            expect(found[0]!.segments).toEqual(frame);
            const ids = found[0]!.raw.map((d) => d.at);
            for (const id of ids) expect(held.flat()).not.toContain(id);
            expect(new Set(ids).size).toBe(n);
            held.push(ids);
          }
        },
      ),
      { seed: SEED, numRuns: 40 },
    );
  });

  it("2.7.5.2 in order: `next` is x + 1, and 0 behind the last descriptor of the table", () => {
    const dev = driver(8, IN_ORDER);
    let expected = 0;
    for (let round = 0; round < 20; round++) {
      expect(q.post([[segment(0), segment(1), segment(2)]])).toBe(3);
      q.driverPublish();
      const [found] = dev.find();
      for (const d of found!.raw) {
        expect(d.at).toBe(expected);
        expected = (expected + 1) % 8;
        if (d.flags & 1) expect(d.next).toBe(expected);
      }
      dev.use(found!.id, 0);
      dev.publish();
      expect(q.used()).toHaveLength(3);
    }
  });

  it("2.7.5.3.1 uses no indirect table unless INDIRECT_DESC was negotiated", () => {
    const dev = driver(8, 0, { indirect: true });
    q.post([[segment(0), segment(1)]]);
    q.driverPublish();
    expect(dev.find()[0]).toMatchObject({ indirect: false, segments: [segment(0), segment(1)] });
  });

  it("2.7.5.3.1 puts a frame into one table: no INDIRECT within it, none with NEXT, `next` sequential", () => {
    for (const writable of [false, true]) {
      const dev = driver(8, INDIRECT_DESC, { indirect: true });
      const frame = Array.from({ length: 8 }, (_, i) => segment(i));
      expect(q.post([frame, frame], writable)).toBe(16);
      q.driverPublish();
      for (const found of dev.find()) {
        expect(found.segments).toEqual(frame);
        expect(found.writable).toEqual(frame.map(() => writable));
        expect(found.raw[0]!.flags & 5).toBe(4);
        expect(found.raw.slice(1).map((d) => d.flags & 4)).toEqual(frame.map(() => 0));
        expect(found.raw.slice(1).map((d) => d.at)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
      }
    }
  });

  it("2.7.5.3.1 makes no chain longer than the queue, indirect ones included", () => {
    for (const features of [0, INDIRECT_DESC]) {
      const dev = driver(4, features, { indirect: true });
      const frame = (n: number) => Array.from({ length: n }, (_, i) => segment(i));
      expect(q.post([frame(5)])).toBe(0);
      expect(q.post([frame(4)])).toBe(4);
      q.driverPublish();
      expect(dev.find()).toHaveLength(1);
    }
  });

  it("2.7.6.1 never moves idx back, and 2.7.13.3 moves it in publish only", () => {
    const dev = driver(8);
    for (let round = 0, idx = 0; round < 9000; round++) {
      const n = 1 + (round % 8);
      expect(q.post(frames(n))).toBe(n);
      expect(dev.availIndex()).toBe(idx);
      q.driverPublish();
      idx = (idx + n) & 0xffff;
      expect(dev.availIndex()).toBe(idx);
      for (const { id } of dev.find()) dev.use(id, 0);
      dev.publish();
      expect(q.used()).toHaveLength(n);
    }
  });

  it("2.7.7.1 without EVENT_IDX sets flags to 1 when it polls and else to 0; with it always to 0", () => {
    for (const features of [0, EVENT_IDX])
      for (const polls of [false, true]) {
        driver(8, features, { polls });
        expect(q.region.getUint16(AVAIL, true)).toBe(polls && !features ? 1 : 0);
      }
  });

  it("2.7.7.1 with EVENT_IDX asks for the next used buffer, or when it polls for one that is past", () => {
    for (const polls of [false, true]) {
      const dev = driver(8, EVENT_IDX, { polls });
      const event = () => q.region.getUint16(AVAIL + 4 + 2 * 8, true);
      expect(event()).toBe(polls ? 65535 : 0);
      q.post(frames(3));
      q.driverPublish();
      for (const { id } of dev.find()) dev.use(id, 0);
      dev.publish();
      q.used();
      expect(event()).toBe(polls ? 2 : 3);
    }
  });

  it("2.7.7.1 handles spurious notifications: nothing used is nothing taken back", () => {
    driver(8);
    expect(q.used()).toEqual([]);
    q.post(frames(3));
    q.driverPublish();
    expect(q.used()).toEqual([]);
  });

  it("2.7.8.3 a received buffer is as long as the device wrote, 0 included", () => {
    const dev = driver(8);
    q.post(frames(8), true);
    q.driverPublish();
    const found = dev.find();
    for (const [i, { id }] of found.entries()) dev.use(id, i);
    dev.publish();
    expect(q.used().map((d) => d.len)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });

  it("2.7.8.3 a received buffer is never longer than it was posted, whatever len says", () => {
    const dev = driver(8);
    q.post(frames(4), true);
    q.driverPublish();
    const lens = [70_000, 65_536, 0xffffffff, 500];
    for (const [i, { id }] of dev.find().entries()) dev.use(id, lens[i]!);
    dev.publish();
    expect(q.used().map((d) => d.len)).toEqual(frames(4).map(([s]) => s!.len));
  });

  it("2.7.9 takes a batch told by one used element: all before its last buffer were used completely", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 8 }), { minLength: 1, maxLength: 40 }),
        fc.boolean(),
        (batches, writable) => {
          const dev = driver(8, IN_ORDER);
          let index = 0;
          for (const n of batches) {
            expect(q.post(frames(n), writable, index)).toBe(n);
            q.driverPublish();
            const found = dev.find();
            dev.use(found[n - 1]!.id, writable ? 33 : 0, n);
            dev.publish();
            const got = [...q.used(3), ...q.used()]; // a batch may be taken back in parts
            expect(got.map((d) => d.index)).toEqual(Array.from({ length: n }, (_, i) => index + i));
            const posted = frames(n).map(([s]) => s!.len);
            expect(got.map((d) => d.len)).toEqual(writable ? [...posted.slice(0, -1), 33] : posted);
            index += n;
          }
        },
      ),
      { seed: SEED, numRuns: 40 },
    );
  });

  it("2.7.9 takes a batch of chains of different lengths", () => {
    const dev = driver(16, IN_ORDER);
    for (let round = 0; round < 30; round++) {
      const list = [[segment(0)], [segment(1), segment(2), segment(3)], [segment(4), segment(5)]];
      expect(q.post(list)).toBe(6);
      q.driverPublish();
      dev.use(dev.find()[2]!.id, 0, 3);
      dev.publish();
      expect(where(q.used())).toEqual(list.flat());
    }
  });

  it("2.7.10.1 without EVENT_IDX notifies exactly when flags is 0, whatever avail_event says", () => {
    for (const flags of [0, 1])
      for (const event of [0, 1, 2, 7, 65535]) {
        const dev = driver(8);
        dev.setFlags(flags);
        dev.setAvailEvent(event);
        q.post(frames(4));
        expect(q.driverPublish()).toBe(flags === 0);
      }
  });

  it("2.7.10.1 with EVENT_IDX notifies exactly when the entry at avail_event is written, whatever flags says", () => {
    const dev = driver(8, EVENT_IDX);
    let idx = 0;
    for (let round = 0; round < 30_000; round++) {
      const n = 1 + (round % 8);
      const off = (round % 19) - 9;
      dev.setFlags(round & 1);
      dev.setAvailEvent((idx + off) & 0xffff);
      q.post(frames(n));
      if (q.driverPublish() !== (off >= 0 && off < n))
        expect.fail(`idx ${idx}, ${n} posted, event ${off} ahead`);
      idx = (idx + n) & 0xffff;
      for (const { id } of dev.find()) dev.use(id, 0);
      dev.publish();
      q.used();
    }
  });

  it("2.7.13.1 writes address, length and WRITE of each buffer; 2.7.13.2 the heads in order", () => {
    for (const size of SIZES)
      for (const writable of [false, true]) {
        const dev = driver(size);
        expect(q.post(frames(size + 3), writable)).toBe(size);
        q.driverPublish();
        const found = dev.find();
        expect(found.flatMap((f) => f.segments)).toEqual(frames(size).flat());
        expect(found.every((f) => f.writable[0] === writable)).toBe(true);
        expect(q.driverPublish()).toBe(false);
      }
  });

  it("2.7.14 takes buffers back in whatever order they were used", () => {
    const dev = driver(8);
    q.post(frames(8));
    q.driverPublish();
    const found = dev.find();
    const order = [3, 7, 0, 1, 6, 2, 5, 4];
    for (const i of order) dev.use(found[i]!.id, 0);
    dev.publish();
    expect(q.used(5).map((d) => d.index)).toEqual(order.slice(0, 5));
    expect(q.used().map((d) => d.index)).toEqual(order.slice(5));
  });

  it("counts and passes over used elements that name no outstanding buffer, the middle of a chain included", () => {
    for (const features of [0, IN_ORDER]) {
      const dev = driver(16, features);
      q.post([[segment(0), segment(1), segment(2)], [segment(3)]]);
      q.driverPublish();
      const [chain, single] = dev.find();
      for (const id of [chain!.raw[1]!.at, chain!.raw[2]!.at, 16, 65535, 0x10000 + chain!.id, 0xffffffff])
        dev.use(id, 0);
      dev.use(chain!.id, 0);
      dev.use(single!.id, 0);
      dev.use(single!.id, 0);
      dev.publish();
      expect(where(q.used())).toEqual([segment(0), segment(1), segment(2), segment(3)]);
      expect(q.host.getUint32(DRV + Driver.badUsed, true)).toBe(7);
      expect(q.post(frames(16))).toBe(16);
    }
  });
});

describe("split virtqueue, driver and device", () => {
  const features = fc.constantFrom(
    0,
    EVENT_IDX,
    INDIRECT_DESC,
    IN_ORDER,
    INDIRECT_DESC | IN_ORDER | EVENT_IDX,
  );
  it("carries every frame once, in order, at every size", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...SIZES.slice(0, 8)),
        features,
        fc.boolean(),
        fc.array(fc.array(fc.integer({ min: 1, max: 9 }), { maxLength: 12 }), { maxLength: 25 }),
        (size, bits, writable, bursts) => {
          expect(q.start(size, bits)).toBe(true);
          q.attach(size, bits, { indirect: true });
          let sent = 0;
          const pending: Segment[][] = [];
          for (const burst of bursts) {
            const list = burst
              .filter((n) => n <= size)
              .map((n) => Array.from({ length: n }, () => segment(sent++)));
            const posted = q.post(list, writable);
            q.driverPublish();
            for (let n = 0, i = 0; n < posted; n += list[i++]!.length) pending.push(list[i]!);
            const taken: Segment[] = [];
            const want = [];
            for (;;) {
              const plain = q.take(32, writable);
              const got = plain.length ? plain : q.takeChain(writable);
              if (!Array.isArray(got)) return expect.fail(`refused: ${got}`);
              if (!got.length) break;
              taken.push(...where(got));
              q.complete(plain.length ? plain : got.slice(0, 1), false);
              q.devicePublish();
            }
            while (pending.length) want.push(...pending.shift()!);
            expect(taken).toEqual(want);
            expect(q.used().map(({ addr }) => addr - BASE)).toEqual(want.map(({ addr }) => addr));
          }
        },
      ),
      { seed: SEED, numRuns: 150 },
    );
  });
});
