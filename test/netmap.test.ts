/** netmap ports and pipes for JavaScript: slots, ring rules, flags (netmap.h; netmap_pipe.c; netmap_vale.c). */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  Kring,
  NETMAP_FIRST,
  NetmapRing as RingLayout,
  NetmapSlot as SlotLayout,
  SlotRefusal,
} from "../assembly/layout.ts";
import { Host, type NetmapPort, NS, type VSwitch } from "../src/index.ts";
import { BROADCAST, frame } from "./harness/host.ts";
import { type Memory, Ring, txsync } from "./harness/netmap-model.ts";

const A = "02:00:00:00:01:0a";
const B = "02:00:00:00:01:0b";

/** Puts frames into slots of `port`'s transmit ring, with `flags` each, and syncs. */
function send(port: NetmapPort, frames: readonly Uint8Array[], flags = 0): void {
  const { tx } = port;
  for (const one of frames) {
    tx.buffer(tx.head).set(one);
    Object.assign(tx.slot(tx.head), { len: one.length, flags });
    tx.head = tx.cur = tx.next(tx.head);
  }
  port.txsync();
}

/** What has come, slot by slot; the slots are given back. */
function received(port: NetmapPort): Uint8Array[] {
  port.rxsync();
  const { rx } = port;
  const got: Uint8Array[] = [];
  for (; rx.head !== rx.tail; rx.head = rx.cur = rx.next(rx.head))
    got.push(rx.buffer(rx.head).slice(0, rx.slot(rx.head).len));
  port.rxsync();
  return got;
}

const refusals = (host: Host, kring: number) =>
  Array.from({ length: SlotRefusal.COUNT }, (_, why) => host.core.counter(kring + Kring.refusals + 8 * why));
const refused = (why: SlotRefusal) =>
  Array.from({ length: SlotRefusal.COUNT }, (_, i) => (i === why ? 1 : 0));

describe("a pipe", () => {
  test("gives the other end the buffer, not a copy, and gets an empty one for it", async () => {
    const host = await Host.create();
    const [a, b] = host.netmapPipe({ ring: 8 });
    const [sent, empty] = [a.tx.slot(0).bufIdx, b.rx.slot(0).bufIdx];
    send(a, [frame(B, 1)]);
    expect([a.tx.slot(0).bufIdx, b.rx.slot(0).bufIdx]).toEqual([empty, sent]);
    expect(received(b)).toEqual([frame(B, 1)]);
    send(b, [frame(A, 2), frame(A, 3)]);
    expect(received(a)).toEqual([frame(A, 2), frame(A, 3)]);
  });

  test("holds one slot less than it has, and goes on when some are given back", async () => {
    const host = await Host.create();
    const [a, b] = host.netmapPipe({ ring: 8 });
    expect([a.tx.space, b.rxsync()]).toEqual([7, 0]);
    const frames = Array.from({ length: 9 }, (_, i) => frame(B, i));
    send(a, frames.slice(0, 7));
    expect(a.tx.space).toBe(7);
    send(a, frames.slice(7));
    // Two wait in the transmit ring: nothing is dropped.
    expect(a.tx.space).toBe(5);
    expect(received(b)).toEqual(frames.slice(0, 7));
    a.txsync();
    expect(received(b)).toEqual(frames.slice(7));
    expect(a.txsync()).toBe(7);
  });

  test("publishes whole frames only, of up to 64 slots", async () => {
    const host = await Host.create();
    const [a, b] = host.netmapPipe({ ring: 128, bufferSize: 64 });
    const parts = (n: number) => Array.from({ length: n }, (_, i) => new Uint8Array(64).fill(i));
    send(a, parts(63), NS.MOREFRAG);
    expect(b.rxsync()).toBe(0);
    send(a, parts(1));
    expect(b.rxsync()).toBe(64);
    expect(b.rx.slot(0).flags & NS.MOREFRAG).toBe(NS.MOREFRAG);
    expect(b.rx.slot(63).flags & NS.MOREFRAG).toBe(0);
    expect(received(b).length).toBe(64);
    // The 65th is refused with all that it continues; what follows isn't.
    send(a, parts(64), NS.MOREFRAG);
    send(a, parts(1));
    send(a, [frame(B, 7)]);
    expect(received(b)).toEqual([frame(B, 7)]);
    expect(refusals(host, a.tx.kring)).toEqual(refused(SlotRefusal.FRAGMENTS));
    // A frame without end is refused once, as far as it goes.
    send(a, parts(65), NS.MOREFRAG);
    send(a, parts(30), NS.MOREFRAG);
    send(a, parts(1));
    send(a, [frame(B, 8)]);
    expect(received(b)).toEqual([frame(B, 8)]);
    expect(host.core.counter(a.tx.kring + Kring.refusals + 8 * SlotRefusal.FRAGMENTS)).toBe(2);
  });

  test("whatever its users write, moves what the slow model says, and each buffer stays in one slot", async () => {
    const host = await Host.create({ memory: 2 ** 25 });
    const index = fc.oneof(
      { weight: 1, arbitrary: fc.nat({ max: 40 }) },
      { weight: 1, arbitrary: fc.constantFrom(0, 1, 2 ** 31, 2 ** 32 - 1) },
    );
    const slot = fc.record({
      at: fc.nat({ max: 7 }),
      bufIdx: fc.oneof({ weight: 4, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: index }),
      len: fc.oneof(
        { weight: 6, arbitrary: fc.integer({ min: 1, max: 128 }) },
        { weight: 1, arbitrary: fc.constantFrom(0, 129, 65535) },
      ),
      flags: fc.oneof(
        { weight: 5, arbitrary: fc.constant(0) },
        { weight: 3, arbitrary: fc.constant(NS.MOREFRAG) },
        { weight: 1, arbitrary: fc.nat({ max: 63 }) },
      ),
    });
    const advance = fc.oneof(
      { weight: 20, arbitrary: fc.nat({ max: 7 }) },
      { weight: 1, arbitrary: fc.constantFrom(8, 2 ** 31, 2 ** 32 - 1) },
    );
    const step = fc.record({
      slots: fc.array(fc.record({ transmit: fc.boolean(), slot }), { maxLength: 6 }),
      head: fc.tuple(advance, advance),
      cur: fc.tuple(fc.nat({ max: 9 }), fc.nat({ max: 9 })),
    });
    let reached = 0;
    await fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 40 }), (steps) => {
        const [a, b] = host.netmapPipe({ ring: 8, bufferSize: 128 });
        const { core } = host;
        const [t, r] = [a.tx, b.rx];
        const read = ({ address }: typeof t) =>
          Array.from({ length: 8 }, (_, i) => {
            const s = address + RingLayout.slots + i * SlotLayout.SIZE;
            const word = core.u32(s + SlotLayout.len);
            const ptr = core.u32(s + SlotLayout.ptr);
            return { bufIdx: core.u32(s), len: word & 0xffff, flags: word >>> 16, ptr };
          });
        const owners = Array.from({ length: 32 }, (_, i) => (i < 16 ? 1 : 2));
        const memory: Memory = { owners, room: 128 };
        const model = { t: new Ring(read(t), 1, 7), r: new Ring(read(r), 2, 0) };
        for (const { slots, head, cur } of steps) {
          for (const one of slots) {
            const ring = one.transmit ? t : r;
            const s = (one.transmit ? model.t : model.r).slots[one.slot.at]!;
            const { bufIdx, len, flags } = one.slot;
            Object.assign(s, { bufIdx: bufIdx ?? s.bufIdx, len, flags, ptr: 0 });
            Object.assign(ring.slot(one.slot.at), { bufIdx: s.bufIdx, len, flags, ptr: 0n });
          }
          [model.t, model.r].forEach((ring, i) => {
            // As a rule as many slots as there are, or fewer; else any number.
            const owned = (ring.hwtail - ring.rhead + 8) % 8;
            const to = head[i]! > 7 ? head[i]! : (ring.rhead + Math.min(head[i]!, owned)) % 8;
            ring.head = to;
            ring.cur = to > 7 ? to : (to + (cur[i] === 9 ? 5 : 0)) % 8;
            const { address } = i ? r : t;
            core.setU32(address + RingLayout.head, ring.head);
            core.setU32(address + RingLayout.cur, ring.cur);
          });
          core.exports.syncPipe(t.kring, r.kring);
          txsync(model.t, model.r, memory);
          for (const [ring, it] of [
            [t, model.t],
            [r, model.r],
          ] as const) {
            expect(core.u32(ring.address + RingLayout.head)).toBe(it.head);
            expect(core.u32(ring.address + RingLayout.hwtail)).toBe(it.hwtail);
            expect(core.counter(ring.kring + Kring.reinits)).toBe(it.reinits);
            expect(refusals(host, ring.kring)).toEqual(it.refusals);
            expect(read(ring)).toEqual(it.slots);
          }
          const table = core.u32(t.kring + Kring.owners);
          expect([...core.bytes.subarray(table, table + 32)]).toEqual(owners);
          // As many as in the beginning are each end's.
          expect(owners.filter((owner) => owner === 1).length).toBe(16);
        }
        reached += core.counter(r.kring + Kring.syncs);
      }),
      { seed: 7, numRuns: 300 },
    );
    expect(reached).toBeGreaterThan(400);
  });
});

/** Two netmap ports on one switch; what `a` and `b` have sent is learned. */
async function onSwitch(options = {}): Promise<{ host: Host; sw: VSwitch; a: NetmapPort; b: NetmapPort }> {
  const host = await Host.create();
  const [a, b] = [host.netmap({ ring: 64, ...options }), host.netmap({ ring: 64, ...options })];
  const sw = host.vswitch({ connect: [a, b] });
  send(a, [frame(BROADCAST, 0, 60, A)]);
  send(b, [frame(BROADCAST, 0, 60, B)]);
  host.drain();
  expect([received(a).length, received(b).length]).toEqual([1, 1]);
  return { host, sw, a, b };
}
const statsOf = (host: Host, { name }: NetmapPort) => host.stats().ports.find((port) => port.name === name)!;

describe("a port of the switch", () => {
  test("copies each frame once a hop, whole, also over several slots", async () => {
    const { host, a, b } = await onSwitch();
    const copies = statsOf(host, b).copies;
    const frames = [60, 61, 1514, 2048].map((length, i) => frame(B, i, length, A));
    send(a, frames);
    host.drain();
    expect(received(b)).toEqual(frames);
    expect(statsOf(host, b).copies - copies).toBe(4);
    const long = frame(B, 9, 6000, A);
    send(a, [long.slice(0, 2048), long.slice(2048, 2050)], NS.MOREFRAG);
    host.drain();
    expect(b.rxsync()).toBe(0);
    send(a, [long.slice(2050, 4000)], NS.MOREFRAG);
    send(a, [long.slice(4000)]);
    host.drain();
    expect(b.rxsync()).toBe(3);
    expect([0, 1, 2].map((i) => b.rx.slot((b.rx.head + i) % 64).flags & NS.MOREFRAG)).toEqual([32, 32, 0]);
    expect(Buffer.concat(received(b))).toEqual(Buffer.from(long));
  });

  test("drops what finds no slot, and never waits", async () => {
    const { host, a, b } = await onSwitch();
    for (let i = 0; i < 2; i++) {
      send(
        a,
        Array.from({ length: 50 }, (_, n) => frame(B, 50 * i + n, 60, A)),
      );
      host.drain();
    }
    expect(statsOf(host, b).drops).toEqual({ full: 37 });
    expect(received(b).map((one) => one[17])).toEqual(Array.from({ length: 63 }, (_, i) => i));
  });

  test("drops frames of under 14 bytes, and refuses empty ones and those longer than their buffer", async () => {
    const { host, a, b } = await onSwitch();
    send(a, [frame(B, 1, 60, A).slice(0, 13), new Uint8Array(0), frame(B, 2, 60, A)]);
    a.tx.slot(a.tx.head).len = 2049;
    a.tx.head = a.tx.cur = a.tx.next(a.tx.head);
    a.txsync();
    host.drain();
    expect(received(b)).toEqual([frame(B, 2, 60, A)]);
    expect(statsOf(host, a).drops).toEqual({ runt: 1, "refused.length": 2 });
  });

  test("neither reads nor writes buffers that there aren't", async () => {
    const { host, a, b } = await onSwitch();
    const numbers = [0, 1, NETMAP_FIRST + 128, 2 ** 31, 2 ** 32 - 1];
    for (const bufIdx of numbers) {
      Object.assign(a.tx.slot(a.tx.head), { bufIdx, len: 60 });
      a.tx.head = a.tx.cur = a.tx.next(a.tx.head);
    }
    send(a, [frame(B, 1, 60, A)]);
    host.drain();
    expect(received(b)).toEqual([frame(B, 1, 60, A)]);
    expect(statsOf(host, a).drops).toEqual({ "refused.bufIdx": 5 });
    // Empty slots with such numbers come back as they are, and frames go into the next ones.
    const at = b.rx.tail;
    numbers.forEach((bufIdx, i) => {
      b.rx.slot((at + 2 * i) % 64).bufIdx = bufIdx;
    });
    const frames = Array.from({ length: 8 }, (_, i) => frame(B, i, 60 + i, A));
    send(a, frames);
    host.drain();
    b.rxsync();
    const slots = Array.from({ length: b.rx.space }, (_, i) => (at + i) % 64);
    expect(slots.map((i) => b.rx.slot(i).len)).toEqual([0, 60, 0, 61, 0, 62, 0, 63, 0, 64, 65, 66, 67]);
    const full = slots.filter((i) => b.rx.slot(i).len > 0);
    expect(full.map((i) => b.rx.buffer(i).slice(0, b.rx.slot(i).len))).toEqual(frames);
    expect(statsOf(host, b).drops).toEqual({ "refused.bufIdx": 5 });
    expect(() => b.rx.buffer(at)).toThrow("buffer 0, expected 2 to 129");
  });

  test("sends an indirect buffer from where it is, inside its memory only", async () => {
    const { host, a, b } = await onSwitch();
    const one = frame(B, 5, 100, A);
    const at = a.memory.length - 100;
    a.memory.set(one, at);
    for (const ptr of [BigInt(at), BigInt(at + 1), 2n ** 32n, 2n ** 64n - 1n, BigInt(a.memory.length)]) {
      Object.assign(a.tx.slot(a.tx.head), { len: 100, flags: NS.INDIRECT, ptr });
      a.tx.head = a.tx.cur = a.tx.next(a.tx.head);
    }
    a.txsync();
    host.drain();
    expect(received(b)).toEqual([one]);
    expect(statsOf(host, a).drops).toEqual({ "refused.indirectPtr": 4 });
  });

  test("doesn't learn from a frame with NO_LEARN", async () => {
    const { host, a, b } = await onSwitch();
    const c = host.netmap();
    host.switches[0]?.connect(c);
    const moved = "02:00:00:00:01:0c";
    send(a, [frame(B, 1, 60, moved)], NS.NO_LEARN);
    host.drain();
    expect(received(b).length).toBe(1);
    // Nobody knows where it is: all get it.
    send(b, [frame(moved, 2, 60, B)]);
    host.drain();
    expect([received(a).length, received(c).length]).toEqual([1, 1]);
    send(a, [frame(B, 3, 60, moved)]);
    send(b, [frame(moved, 4, 60, B)]);
    host.drain();
    expect([received(a).length, received(b).length, received(c).length]).toEqual([1, 1, 0]);
  });

  test.each([
    ["outside the ring", 64, 64],
    ["anywhere", 2 ** 32 - 1, 0],
    ["no further than head", 3, 2],
  ])("sets right what is %s, and counts it", async (_, head, cur) => {
    const { host, a, b } = await onSwitch({ ring: 64 });
    Object.assign(a.tx, { head, cur });
    a.tx.handOver();
    host.drain();
    a.tx.takeNote();
    expect(statsOf(host, a).reinits).toBe(1);
    expect([a.tx.head, a.tx.cur, a.tx.space]).toEqual([1, 1, 63]);
    send(a, [frame(B, 1, 60, A)]);
    host.drain();
    expect(received(b)).toEqual([frame(B, 1, 60, A)]);
  });

  test("gives to the host's own stack what is marked FORWARD, and sends what that pushes", async () => {
    const host = await Host.create();
    const stack = host.port();
    const [a, b] = [host.netmap({ stack }), host.netmap()];
    host.vswitch({ connect: [a, b] });
    expect(() => host.vswitch({ connect: [stack] })).toThrow("connected to switch0 already");
    const frames = [1, 2, 3].map((i) => frame(BROADCAST, i, 60 + i, B));
    send(b, frames);
    host.drain();
    a.rxsync();
    a.rx.slot(0).flags = NS.FORWARD;
    a.rx.slot(2).flags = NS.FORWARD;
    a.rx.head = a.rx.cur = a.rx.tail;
    a.rxsync();
    host.drain();
    const got: Uint8Array[] = [];
    stack.take((some) => got.push(...some.map((one) => one.slice())));
    expect(got).toEqual([frames[0], frames[2]]);
    stack.push([frame(B, 9, 60, A)]);
    host.drain();
    expect(received(b)).toEqual([frame(B, 9, 60, A)]);
    // Its slots are filled again once they were looked at.
    for (let i = 0; i < 600; i += 100) {
      send(
        b,
        Array.from({ length: 100 }, (_, n) => frame(A, i + n, 60, B)),
      );
      host.drain();
      expect(received(a).length).toBe(100);
      host.drain();
    }
    const { pool } = host.stats();
    expect(pool.outstanding).toBe(0);
  });
});

describe("bad options", () => {
  test.each([
    [{ ring: 100 }, "ring: 100, expected a power of two from 2 to 4096"],
    [{ bufferSize: 13 }, "bufferSize: 13, expected 14 to 9022"],
    [{ extra: -1 }, "extra: -1, expected 0 to 16384"],
  ])("%o", async (options, message) => {
    const host = await Host.create();
    expect(() => host.netmap(options)).toThrow(new RangeError(message));
    expect(() => host.netmapPipe(options)).toThrow(new RangeError(message));
  });

  test("a pipe's end on a switch", async () => {
    const host = await Host.create();
    const [a] = host.netmapPipe();
    expect(() => host.vswitch({ connect: [a] })).toThrow(
      "netmap0{: one end of a pipe, expected a port of its own for a switch",
    );
  });
});
