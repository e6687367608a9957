/** Guests that are attached by netmap and by pipe: what it costs, whose each buffer is, and what a hostile one can do. */
import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import {
  Bridge,
  Guest as GuestLayout,
  Kind,
  Kring,
  Lcore,
  NetmapDriver,
  NetmapRing,
  NetmapSlot,
  OWNED_BY_GUEST,
  RxQueue,
  TxQueue,
} from "../assembly/layout.ts";
import { type GuestOptions, Host, LcoreError } from "../src/index.ts";
import { FrameGenerator } from "../src/ports/generator.ts";
import { indices, misplaced } from "./harness/accountant.ts";
import { BROADCAST, frame, misplacedInPool, numberOf, sent, WIRE } from "./harness/host.ts";

/** A card and one guest, by "netmap" on a switch or by "pipe" on a bridge. */
async function rig(attach: "netmap" | "pipe", options: GuestOptions = {}, shared = false) {
  const host = await Host.create({ memory: 64 * 2 ** 20, shared });
  const nic = host.nic({ ring: 64, queues: 4 });
  const guest = host.guest({ attach, ring: 64, ...options });
  const sw = host.vswitch({ connect: attach === "netmap" ? [nic, guest] : [nic] });
  const bridge = attach === "pipe" ? host.bridge(nic, guest) : undefined;
  return { host, core: host.core, nic, guest, guests: [guest], sw, bridge };
}
type Netmaps = Awaited<ReturnType<typeof rig>>;

const ofGuest = ({ host, guest }: Netmaps) => host.stats().ports.find(({ name }) => name === guest.name)!;

const wrongIn = (r: Netmaps) => [...misplaced(r.host, r.nic, r.guest), ...misplacedInPool(r)];

/** Sends `n` frames of `length` bytes to the guest, and gives what comes back. */
function through(r: Netmaps, n: number, length = 60, first = 0): Uint8Array[] {
  r.nic.receive(Array.from({ length: n }, (_, i) => frame(r.guest.mac, first + i, length)));
  r.host.drain();
  return sent(r);
}

describe.each([
  ["netmap", 1],
  ["pipe", 0],
] as const)("by %s", (attach, copies) => {
  test.each([60, 61, 64, 1514, 2000, 2049, 4096, 9022])(
    `frames of %i bytes go to the guest and back, copied ${copies} times each way`,
    async (length) => {
      const r = await rig(attach);
      for (let round = 0; round < 40; round++) {
        const n = length > 2048 ? 10 : 50;
        const back = through(r, n, length, round * n);
        expect(back.map(numberOf)).toEqual(Array.from({ length: n }, (_, i) => round * n + i));
        expect(back[n - 1]!.subarray(12)).toEqual(frame(r.guest.mac, round * n + n - 1, length).subarray(12));
      }
      const { ports, guests } = r.host.stats();
      const frames = guests[0]!.received;
      expect(ports.reduce((sum, port) => sum + port.copies, 0)).toBe(2 * copies * frames);
      expect(ofGuest(r)).toMatchObject({ rxPackets: frames, txPackets: frames, notifications: 0, drops: {} });
      expect(ofGuest(r).txBytes).toBe(frames * length);
      expect(wrongIn(r)).toEqual([]);
    },
  );

  test("a guest that wants to be notified is, once a sync at most", async () => {
    const r = await rig(attach, { interrupts: true });
    for (let i = 0; i < 10; i++) expect(through(r, 32).length).toBe(32);
    const syncs = r.guest.netmap!.krings.map((kring) => r.core.counter(kring + Kring.syncs));
    const { notifications } = ofGuest(r);
    expect(notifications).toBe(syncs[0]! + syncs[1]!);
    // One each way for a burst of 32.
    expect(notifications).toBe(20);
  });

  test("what doesn't fit waits or is dropped, with a reason, and no buffer is lost", async () => {
    const r = await rig(attach);
    for (let i = 0; i < 200; i++) {
      r.nic.receive(Array.from({ length: 64 }, (_, n) => frame(r.guest.mac, n, n % 7 ? 60 : 5000)));
      // The card sends only now and then: its ring and the guest's fill up.
      r.host.poll();
      if (i % 50 === 0) sent(r);
    }
    r.host.drain();
    for (let i = 0; i < 10; i++) {
      sent(r);
      r.host.drain();
    }
    expect(wrongIn(r)).toEqual([]);
    const { nics, guests, ports } = r.host.stats();
    const lost = [...nics, ...guests, ...ports].flatMap(({ drops }) => Object.values(drops));
    expect(lost.reduce((a, b) => a + b, 0)).toBe(200 * 64 - nics[0]!.txPackets);
    expect(through(r, 32).length).toBe(32);
  });

  test("a guest stops and starts under load, and nothing is written to its memory in between", async () => {
    const r = await rig(attach);
    const { host, guest, sw, bridge, core } = r;
    for (let i = 0; i < 20; i++) {
      expect(through(r, 40).length).toBe(40);
      r.nic.receive(Array.from({ length: 40 }, (_, n) => frame(guest.mac, n)));
      host.poll();
      if (bridge) bridge.stop();
      else sw.stop(guest);
      const region = core.bytes.subarray(guest.region, guest.region + guest.regionSize);
      const before = region.slice();
      r.nic.receive(Array.from({ length: 40 }, (_, n) => frame(guest.mac, n)));
      host.drain();
      expect(Buffer.compare(before, region)).toBe(0);
      if (bridge) bridge.start();
      else sw.start(guest);
      host.drain();
      sent(r);
      host.drain();
      expect(wrongIn(r)).toEqual([]);
    }
  });

  test("a hostile guest harms only itself", async () => {
    const scribble = fc.array(
      fc.record({
        // Rings take 2 * 2176 bytes; the rest anywhere.
        at: fc.oneof({ weight: 3, arbitrary: fc.nat({ max: 4400 }) }, { weight: 1, arbitrary: fc.nat() }),
        bytes: fc.uint8Array({ minLength: 1, maxLength: 40 }),
      }),
      { maxLength: 10 },
    );
    const slot = fc.record({
      transmit: fc.boolean(),
      at: fc.nat({ max: 127 }),
      // Its own, the host's, none.
      bufIdx: fc.oneof(fc.nat({ max: 1000 }), fc.constantFrom(0, 1, 2 ** 31, 2 ** 32 - 1)),
    });
    const head = fc.record({ transmit: fc.boolean(), head: fc.nat({ max: 130 }) });
    const round = fc.tuple(scribble, fc.array(slot, { maxLength: 40 }), fc.array(head, { maxLength: 2 }));
    await fc.assert(
      fc.asyncProperty(fc.array(round, { minLength: 1, maxLength: 12 }), async (rounds) => {
        const host = await Host.create({ memory: 48 * 2 ** 20 });
        const { core } = host;
        const nic = host.nic({ ring: 512, queues: 8 });
        const options = { attach, ring: 128 };
        const [good, hostile, other] = [host.guest(options), host.guest(options), host.guest(options)];
        const third = host.guest({ attach: "vhost", ring: 128 });
        const canary = core.made(core.exports.alloc(Kind.BYTES, 2 ** 22, 64, 0), "canary");
        core.bytes.fill(0x5a, canary, canary + 2 ** 22);
        const mine = [good, hostile, other];
        host.vswitch({ connect: [nic, third, ...(attach === "netmap" ? mine : [])] });
        const bridges = attach === "pipe" ? mine.map((guest) => host.bridge(nic, guest)) : [];
        const to = [good.mac, other.mac, third.mac];
        const generator = new FrameGenerator(core, { size: "imix", to, from: WIRE });
        const ringOf = ({ transmit }: { transmit: boolean }) =>
          core.u32((transmit ? hostile.device.tx : hostile.device.rx) + NetmapDriver.ring);
        for (const [writes, slots, heads] of rounds) {
          nic.receive(Array.from({ length: 24 }, (_, i) => frame(hostile.mac, i)));
          host.poll();
          for (const { at, bytes } of writes)
            core.bytes.set(bytes, hostile.region + (at % (hostile.regionSize - 64)));
          for (const one of slots)
            core.setU32(ringOf(one) + NetmapRing.slots + one.at * NetmapSlot.SIZE, one.bufIdx);
          // On a switch that sends old frames, with source addresses that the switch learns at its port: not ours to forbid.
          for (const one of attach === "pipe" ? heads : [])
            for (const field of [NetmapRing.head, NetmapRing.cur]) core.setU32(ringOf(one) + field, one.head);
          host.drain(1000);
          core.exports.generate(generator.address, nic.address, 33);
          host.drain(1000);
          core.exports.check(generator.address, nic.address, core.exports.toTransmit(nic.address));
        }
        // What the hostile guest sends is counted as corrupt: it carries no number of ours.
        expect(generator.check()).toMatchObject({
          sent: 33 * rounds.length,
          lost: 0,
          duplicated: 0,
          reordered: 0,
        });
        expect(core.bytes.subarray(canary, canary + 2 ** 22).every((byte) => byte === 0x5a)).toBe(true);
        const { pool } = host.stats();
        expect(pool.available + pool.outstanding).toBe(pool.buffers);
        for (const [_i, guest] of mine.entries())
          if (guest !== hostile) expect(misplaced(host, nic, guest)).toEqual([]);
        // Nobody has two owners, whatever the guest did: the host's count of its memory is right.
        const bridge = bridges[1];
        if (!bridge) return;
        const owners = core.u32(hostile.netmap!.rxKring + Kring.owners);
        const count = core.u32(hostile.address + GuestLayout.bufferCount);
        const own = core.bytes.subarray(owners, owners + count).filter((one) => one === OWNED_BY_GUEST);
        expect(own.length).toBe(count - 4 * 128);
        const q = (field: RxQueue) => core.u32(bridge.queue + field);
        const inQueue = (q(RxQueue.posted) - q(RxQueue.next)) >>> 0;
        const available = core.exports.poolAvailable(bridge.pool);
        const tx = core.u32(bridge.address + Bridge.txQueue);
        const inTx = indices(
          host,
          core.u32(tx + TxQueue.ring),
          core.u32(tx + TxQueue.mask),
          core.u32(tx + TxQueue.clean),
          core.u32(tx + TxQueue.next),
          bridge.poolId,
        ).length;
        expect(inQueue + available + inTx).toBe(4 * 128);
      }),
      { seed: 20, numRuns: 12 },
    );
  });
});

test("on a switch a netmap guest gets broadcasts, frames of other guests, and those of frame ports", async () => {
  const host = await Host.create({ memory: 64 * 2 ** 20 });
  const guests = [host.guest({ attach: "netmap" }), host.guest({ attach: "vhost" })];
  const port = host.port();
  host.vswitch({ connect: [...guests, port] });
  port.push([frame(BROADCAST, 1), ...guests.map((guest) => frame(guest.mac, 2))]);
  host.drain();
  expect(host.stats().guests.map(({ received }) => received)).toEqual([2, 2]);
  expect(port.take(() => {})).toBeGreaterThan(2);
});

test("frames that the card has received for a pipe's guest that is stopped are dropped, and counted", async () => {
  const r = await rig("pipe");
  r.nic.receive(Array.from({ length: 5 }, (_, i) => frame(r.guest.mac, i)));
  r.nic.receive([frame(r.guest.mac, 5, 5000)]); // over several buffers
  r.bridge?.stop();
  expect(ofGuest(r).drops).toEqual({ down: 6 });
  r.bridge?.start();
  expect(through(r, 20)).toHaveLength(20);
  expect(ofGuest(r).drops).toEqual({ down: 6 });
  expect(wrongIn(r)).toEqual([]);
});

describe("bad set-up", () => {
  test("a bridge for a guest that is attached otherwise, or bridged already; a pipe's memory that is too small", async () => {
    const host = await Host.create({ memory: 64 * 2 ** 20 });
    const nic = host.nic();
    const [vhost, pipe] = [host.guest({ attach: "vhost" }), host.guest({ attach: "pipe" })];
    expect(() => host.bridge(nic, vhost)).toThrow('guest0: attached by vhost, expected "pipe" for a bridge');
    host.bridge(nic, pipe);
    expect(() => host.bridge(nic, pipe)).toThrow(
      "guest1: connected to bridge0 already, expected to one bridge, once",
    );
    expect(() => host.vswitch({ connect: [nic, pipe] })).toThrow("guest1: connected to bridge0 already");
    expect(() => host.guest({ attach: "pipe", memory: 2 ** 20 })).toThrow(
      "expected 1536 at least for two rings of 256 and a card",
    );
  });
});

describe.each(["netmap", "pipe"] as const)("by %s on lcores", (attach) => {
  const running: Host[] = [];
  afterEach(() => {
    for (const host of running.splice(0)) host.stop();
  });
  /** Switch and guest on workers of their own; a bridge runs with the switch. */
  async function launched() {
    const r = await rig(attach, {}, true);
    running.push(r.host);
    const { done } = await r.host.launch([r.sw, r.guest]);
    return { ...r, done };
  }
  /** Sends `n` frames, a few at a time, and gives the numbers of those that come back. */
  function roundTrips(r: Netmaps, n: number, some: number): number[] {
    const back: number[] = [];
    for (let i = 0; i < n; i += some) {
      r.nic.receive(Array.from({ length: some }, (_, k) => frame(r.guest.mac, i + k)));
      const end = performance.now() + 5000;
      for (let got = 0; got < some && performance.now() < end; )
        if (r.nic.wait(100)) got += r.nic.transmit((frames) => back.push(...frames.map(numberOf)));
    }
    return back;
  }
  const numbers = (n: number) => Array.from({ length: n }, (_, i) => i);
  const sleeps = ({ host, core }: Netmaps) =>
    host.lcores.map(({ address }) => core.counter(address + Lcore.sleeps));

  test("frames go there and back, each once, in order", async () => {
    const r = await launched();
    expect(roundTrips(r, 2000, 20)).toEqual(numbers(2000));
    r.host.stop();
    await r.done;
    expect(wrongIn(r)).toEqual([]);
  });

  test("asleep before each frame, nobody misses one; a sync costs one notification at most", async () => {
    const r = await launched();
    for (const { address } of r.host.lcores) r.core.setU32(address + Lcore.patience, 1);
    const isAsleep = () => r.host.lcores.every(({ address }) => r.core.u32(address + Lcore.asleep) === 1);
    for (let i = 0; i < 200; i++) {
      for (const end = performance.now() + 5000; !isAsleep() && performance.now() < end; ) {}
      expect(roundTrips(r, 1, 1)).toEqual([0]);
    }
    for (const n of sleeps(r)) expect(n).toBeGreaterThanOrEqual(200);
    r.host.stop();
    await r.done;
    const syncs = r.guest.netmap!.krings.map((kring) => r.core.counter(kring + Kring.syncs));
    const { notifications } = ofGuest(r);
    expect(notifications).toBeGreaterThanOrEqual(200);
    expect(notifications).toBeLessThanOrEqual(syncs[0]! + syncs[1]!);
    expect(wrongIn(r)).toEqual([]);
  });

  test.each([0, 1])("lcore %i is killed under load: no buffer is lost, and all goes on", async (which) => {
    const r = await launched();
    for (let i = 0; i < 3; i++) {
      const load = setInterval(() => {
        r.nic.receive(Array.from({ length: 32 }, (_, k) => frame(r.guest.mac, k)));
        r.nic.transmit();
      }, 1);
      await new Promise((resume) => setTimeout(resume, 20));
      await r.host.lcores[which]?.kill();
      const error: unknown = await r.done.catch((reason) => reason);
      clearInterval(load);
      expect(error).toBeInstanceOf(LcoreError);
      expect((error as LcoreError).recovered?.guests).toEqual([r.guest.name]);
      r.host.drain();
      for (let k = 0; k < 4; k++) {
        sent(r);
        r.host.drain();
      }
      expect(wrongIn(r)).toEqual([]);
      expect(through(r, 32).length).toBe(32);
      if (i < 2) r.done = (await r.host.launch([r.sw, r.guest])).done;
    }
  });
});

test("a netmap port of JavaScript wakes a switch that sleeps on a worker, and gets what it sends", async () => {
  const host = await Host.create({ shared: true });
  const [a, b] = [host.netmap(), host.netmap()];
  const sw = host.vswitch({ connect: [a, b] });
  const { done } = await host.launch([sw]);
  for (const { address } of host.lcores) host.core.setU32(address + Lcore.patience, 1);
  for (let i = 0; i < 100; i++) {
    a.tx.buffer(a.tx.head).set(frame(BROADCAST, i));
    a.tx.slot(a.tx.head).len = 60;
    a.tx.head = a.tx.cur = a.tx.next(a.tx.head);
    a.txsync();
    for (const end = performance.now() + 5000; b.rxsync() === 0 && performance.now() < end; ) {}
    expect(numberOf(b.rx.buffer(b.rx.head).subarray(0, 60))).toBe(i);
    b.rx.head = b.rx.cur = b.rx.next(b.rx.head);
  }
  host.stop();
  await done;
});
