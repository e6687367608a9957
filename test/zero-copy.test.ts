/** Zero-copy transmit over vhost: whose buffers the card holds, and when they come back (seed document 000). */
import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import { Guest as GuestLayout, Nic as NicLayout, Packet, TxQueue, Virtqueue } from "../assembly/layout.ts";
import { FrameGenerator, type GuestOptions, Host } from "../src/index.ts";
import {
  BROADCAST,
  CLEAN,
  frame,
  misplaced,
  misplacedInPool,
  numberOf,
  numbers,
  pollSwitch,
  type Rig,
  regionOf,
  rig,
  sent,
  WIRE,
} from "./harness/host.ts";

const zeroCopy: GuestOptions = { attach: "vhost", zeroCopyTx: true };
const copies = (r: Rig) => r.host.stats().ports.map((port) => port.copies);
const lent = (r: Rig, g = 0) => r.core.u32(r.guests[g]!.txVirtqueue + Virtqueue.lent);
const running: Rig[] = [];

afterEach(() => {
  for (const { host } of running.splice(0)) host.stop();
});

function expectAllInPlace(r: Rig): void {
  for (const guest of r.guests) expect(misplaced(r, guest)).toEqual([]);
  expect(misplacedInPool(r)).toEqual([]);
}

/** Bursts through the host; of what comes out the card keeps `late` descriptors until the end. */
function drive(r: Rig, size: number | "imix", bursts: number, late = 0) {
  const { exports } = r.core;
  const to = r.guests.map((guest) => guest.mac);
  const generator = new FrameGenerator(r.core, { size, to, from: WIRE, flows: 8 });
  for (let i = 0; i < bursts; i++) {
    exports.generate(generator.address, r.nic.address, 24);
    r.host.drain();
    const n = exports.toTransmit(r.nic.address) - late;
    if (n > 0) exports.check(generator.address, r.nic.address, n);
  }
  exports.check(generator.address, r.nic.address, exports.toTransmit(r.nic.address));
  return generator.check();
}

describe.each<[string, GuestOptions]>([
  ["split", {}],
  ["split, event index, indirect", { eventIdx: true, indirect: true }],
  ["packed", { packed: true }],
  ["chains", { bufferSize: 512 }],
  ["packed chains", { packed: true, bufferSize: 512 }],
])("over a queue that is %s", (_name, options) => {
  test.each([64, 1514, "imix"] as const)(
    "a frame of %s is copied to the guest, and not from it",
    async (size) => {
      const r = await rig({ ...zeroCopy, ...options }, 2);
      // Of chains the card sends whole frames.
      expect(drive(r, size, 50, options.bufferSize ? 0 : 13)).toMatchObject({
        sent: 1200,
        received: 1200,
        ...CLEAN,
      });
      expect(copies(r)).toEqual([0, 600, 600]);
      r.host.drain();
      expect([lent(r, 0), lent(r, 1)]).toEqual([0, 0]);
      expectAllInPlace(r);
    },
  );
});

test("a buffer is the guest's again when the card has sent it, not sooner", async () => {
  const r = await rig(zeroCopy);
  const used = () => r.core.u32(r.guest.txVirtqueue + Virtqueue.used);
  r.nic.receive(numbers(40).map((i) => frame(r.guest.mac, i)));
  r.host.drain();
  expect([used(), lent(r)]).toEqual([0, 40]);
  const region = regionOf(r.guest);
  const inRegion = (view: Uint8Array) =>
    view.byteOffset >= region.byteOffset && view.byteOffset < region.byteOffset + region.length;
  expect(r.nic.toTransmit().every(inRegion)).toBe(true);
  r.core.exports.transmitted(r.nic.address, 7);
  r.host.drain();
  expect([used(), lent(r)]).toEqual([7, 33]);
  expect(sent(r).map(numberOf)).toEqual(numbers(33, 7));
  r.host.drain();
  expect([used(), lent(r)]).toEqual([40, 0]);
});

test("a guest whose ring is full of what the card holds drops, counted, and goes on when it is sent", async () => {
  const r = await rig({ ...zeroCopy, ring: 32 }, 1, {}, 256);
  for (let i = 0; i < 4; i++) {
    r.nic.receive(numbers(16, 16 * i).map((k) => frame(r.guest.mac, k)));
    r.host.drain();
  }
  expect(r.host.stats().guests[0]?.drops).toEqual({ txFull: 32 });
  expect(sent(r).map(numberOf)).toEqual(numbers(32));
  r.host.drain();
  r.nic.receive([frame(r.guest.mac, 99)]);
  r.host.drain();
  expect(sent(r).map(numberOf)).toEqual([99]);
  expectAllInPlace(r);
});

test("frames for other ports, and for all, are copied; their buffers come back at once", async () => {
  const r = await rig({ ...zeroCopy, run: "l2fwd" }, 2);
  const [first, second] = r.guests;
  first!.nextHop = second!.mac;
  second!.nextHop = BROADCAST;
  r.nic.receive(numbers(5).map((i) => frame(first!.mac, i)));
  r.host.drain();
  // The second one's broadcasts reach the card and the first, which sends them on: until the card is full.
  expect(copies(r)[0]).toBeGreaterThan(0);
  expect([lent(r, 0), lent(r, 1)]).toEqual([0, 0]);
  sent(r);
  expectAllInPlace(r);
});

test.each([
  ["the card and a guest", 1],
  ["the card, a guest, all and nobody", 3],
])("a burst for %s: each frame has one owner", async (_whom, max) => {
  const r = await rig({ ...zeroCopy, nextHop: WIRE }, 3);
  const random = fc.sample(fc.array(fc.integer({ min: 0, max }), { minLength: 20, maxLength: 60 }), {
    numRuns: 30,
    seed: 4,
  });
  const [a, b] = r.guests;
  const ways = [WIRE, b!.mac, BROADCAST, "02:00:00:00:77:77"];
  for (const list of random) {
    // What the guest sends is written to its memory behind its back: bursts of mixed destinations.
    a!.nextHop = WIRE;
    r.nic.receive(list.map((_, i) => frame(a!.mac, i)));
    pollSwitch(r.sw);
    r.core.exports.pollGuest(a!.address);
    const vq = a!.txVirtqueue;
    const table = r.core.u32(vq + Virtqueue.desc);
    const avail = r.core.u32(vq + Virtqueue.driver);
    const next = r.core.u32(vq + Virtqueue.avail);
    list.forEach((way, i) => {
      const id = r.core.u16(avail + 4 + 2 * ((next + i) % 128));
      const at = a!.region + r.core.u32(table + 16 * id) + 12;
      r.core.bytes.set(
        ways[way]!.split(":").map((part) => Number.parseInt(part, 16)),
        at,
      );
    });
    r.host.drain(3);
    r.nic.transmit();
    r.host.drain(3);
    r.nic.transmit();
    r.host.drain();
    expectAllInPlace(r);
  }
});

test.each(["NORMAL", "output:1", "drop"])(
  "with rules that look into a frame, as to %s, what they looked at is copied and sent",
  async (actions) => {
    const host = await Host.create({ memory: 128 * 2 ** 20 });
    const nic = host.nic({ ring: 64 });
    const guests = [0, 1].map(() => host.guest({ ...zeroCopy, ring: 128 }));
    const sw = host.vswitch({ connect: [nic, ...guests], flows: ["priority=0,actions=NORMAL"] });
    const r = { host, core: host.core, nic, guest: guests[0]!, guests, sw };
    const before = drive(r, "imix", 20);
    expect(before).toMatchObject({ sent: 480, received: 480, ...CLEAN });
    expect(copies(r)[0]).toBe(0);
    sw.flows.add(`priority=5,udp,tp_src=1026,dl_dst=${r.guest.mac},actions=${actions}`);
    const lost = actions === "drop" ? 60 : 0;
    expect(drive(r, "imix", 20)).toMatchObject({ sent: 480, received: 480 - lost, ...CLEAN, lost });
    host.drain();
    expectAllInPlace(r);
  },
);

test("a burst with a segment longer than a host buffer is copied", async () => {
  const r = await rig({ ...zeroCopy, bufferSize: 4096 });
  r.nic.receive([frame(r.guest.mac, 1, 3000), frame(r.guest.mac, 2, 100)]);
  r.host.drain();
  expect(copies(r)).toEqual([2, 2]);
  expect(lent(r)).toBe(0);
  expect(sent(r).map((made) => [numberOf(made), made.length])).toEqual([
    [1, 3000],
    [2, 100],
  ]);
  r.host.drain();
  expectAllInPlace(r);
});

describe("a guest that is reset while the card holds its buffers", () => {
  const held = async (options: GuestOptions = {}) => {
    const r = await rig({ ...zeroCopy, ...options });
    r.nic.receive(numbers(40).map((i) => frame(r.guest.mac, i, 200)));
    r.host.drain();
    return r;
  };

  test.each([{}, { packed: true }, { bufferSize: 160 }])(
    "its frames are sent as they were: %j",
    async (options) => {
      const r = await held(options);
      r.core.exports.transmitted(r.nic.address, 4 * (options.bufferSize ? 2 : 1));
      const before = r.nic.toTransmit().map((view) => view.slice());
      r.sw.stop(r.guest);
      // From now on its memory is its own.
      regionOf(r.guest).fill(0xa5);
      expect(sent(r)).toEqual(before);
      r.host.drain();
      expect(regionOf(r.guest).every((byte) => byte === 0xa5)).toBe(true);
      r.sw.start(r.guest);
      expect(lent(r)).toBe(0);
      expect(drive(r, 64, 20)).toMatchObject({ received: 480, ...CLEAN });
      r.host.drain();
      expectAllInPlace(r);
    },
  );

  test("the card has no address in its memory any more", async () => {
    const r = await held();
    r.sw.stop(r.guest);
    const tx = r.core.u32(r.nic.address + NicLayout.tx);
    for (let at = r.core.u32(tx + TxQueue.clean); at !== r.core.u32(tx + TxQueue.next); at++) {
      const d = r.core.u32(tx + TxQueue.ring) + (at & r.core.u32(tx + TxQueue.mask)) * Packet.SIZE;
      expect(r.core.u16(d + Packet.owner)).toBe(r.host.poolId);
      const addr = r.core.u32(d);
      expect(addr < r.guest.region || addr >= r.guest.region + r.guest.regionSize).toBe(true);
    }
  });

  test("without host buffers to save them in it isn't stopped, and told why", async () => {
    const r = await rig(zeroCopy, 1, { buffers: 80 });
    r.nic.receive(numbers(40).map((i) => frame(r.guest.mac, i)));
    r.host.drain();
    expect(() => r.sw.stop(r.guest)).toThrow(/guest0: the card has yet to send 40 of its buffers, expected/);
    expect(r.sw.isRunning(r.guest)).toBe(true);
    expect(sent(r).length).toBe(40);
    r.host.drain();
    r.sw.stop(r.guest);
    expect(r.sw.isRunning(r.guest)).toBe(false);
  });

  test("a queue that broke meanwhile gets nothing back", async () => {
    const r = await held();
    const before = r.core.u32(r.guest.txVirtqueue + Virtqueue.used);
    r.core.setU32(r.guest.txVirtqueue + Virtqueue.broken, 8);
    expect(sent(r).length).toBe(40);
    r.core.exports.cleanTxQueue(r.core.u32(r.nic.address + NicLayout.tx), 0);
    expect(r.core.u32(r.guest.txVirtqueue + Virtqueue.used)).toBe(before);
    expect(lent(r)).toBe(0);
    r.sw.stop(r.guest);
    r.sw.start(r.guest);
    expect(drive(r, 64, 20)).toMatchObject({ received: 480, ...CLEAN });
  });
});

test("a guest rewrites a frame that the card holds: nothing but that frame is another", async () => {
  const r = await rig(zeroCopy);
  r.nic.receive(numbers(3).map((i) => frame(r.guest.mac, i)));
  r.host.drain();
  const views = r.nic.toTransmit();
  const [first, , third] = views.map((view) => view.slice());
  const address = views[1]!.byteOffset;
  // Its descriptor too, which the card doesn't look at.
  regionOf(r.guest).fill(0xff, 0, 128 * 16);
  r.core.bytes.fill(0xee, address, address + 60);
  const got = sent(r);
  expect(got[0]).toEqual(first);
  expect(got[1]).toEqual(new Uint8Array(60).fill(0xee));
  expect(got[2]).toEqual(third);
});

test("a VLAN-aware switch copies: no frame is rewritten into another VLAN", async () => {
  const r = await rig(zeroCopy);
  const { Host } = await import("../src/index.ts");
  const host = await Host.create();
  const nic = host.nic();
  const guest = host.guest(zeroCopy);
  const sw = host.vswitch({ connect: [nic, guest], vlanAware: true });
  sw.vlan(nic, 1);
  sw.vlan(guest, 1);
  nic.receive([frame(guest.mac, 1)]);
  host.drain();
  expect(host.stats().ports.map((port) => port.copies)).toEqual([1, 1]);
  expect(r.core.u32(r.guest.txVirtqueue + Virtqueue.lendsTo)).not.toBe(0);
});

test.each<GuestOptions>([
  { attach: "iovtee", zeroCopyTx: true },
  { attach: "kernel", zeroCopyTx: true },
  { attach: "vhost", zeroCopyTx: true, inOrder: true },
])("%j is refused", async (options) => {
  await expect(rig(options)).rejects.toThrow(
    /^zeroCopyTx: of a guest that is attached by "\w+".*expected "vhost"/,
  );
});

test("on lcores, with frames that stay in the card: nothing is lost, and stop and start under load", async () => {
  const r = await rig(zeroCopy, 2, { shared: true });
  running.push(r);
  await r.host.launch([r.sw, r.guests]);
  let number = 0;
  const back: number[] = [];
  for (let i = 0; i < 60; i++) {
    const some = numbers(16, number).map((k) => frame(r.guests[k % 2]!.mac, k));
    number += 16;
    r.nic.receive(some);
    for (const end = performance.now() + 5000; back.length < number && performance.now() < end; ) {
      if (r.core.exports.toTransmit(r.nic.address) < number - back.length) r.nic.wait(1);
      else {
        if (i % 10 === 9) r.sw.stop(r.guests[0]!);
        back.push(...sent(r).map(numberOf));
        if (i % 10 === 9) r.sw.start(r.guests[0]!);
      }
    }
  }
  expect(back.toSorted((a, b) => a - b)).toEqual(numbers(960));
  // Who was lent something polls until he has it back.
  for (const end = performance.now() + 2000; lent(r, 0) + lent(r, 1) > 0 && performance.now() < end; )
    await new Promise((resume) => setTimeout(resume, 1));
  expect([lent(r, 0), lent(r, 1)]).toEqual([0, 0]);
  expect(r.core.u32(r.guest.address + GuestLayout.bufferCount)).toBeGreaterThan(0);
});
