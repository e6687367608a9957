import { describe, expect, test } from "vitest";
import { Driver, Guest as GuestLayout, Mapping, NetHeader, Packet, Virtqueue } from "../assembly/layout.ts";
import { type Guest, type GuestOptions, Host } from "../src/index.ts";
import {
  BROADCAST,
  frame,
  idsOf,
  inCard,
  misplaced,
  misplacedInPool,
  numberOf,
  pring,
  type Rig,
  randomOf,
  regionOf,
  rig,
  sent,
} from "./harness/host.ts";

/** A station whose frames the card steers to the first guest's queue by mistake. */
const ASTRAY = "02:00:00:00:00:99";
const FORMATS: [string, GuestOptions][] = [
  ["split", {}],
  ["packed", { packed: true }],
];

function numbered(n: number, to: string, length = 60, first = 0): Uint8Array[] {
  return Array.from({ length: n }, (_, i) => frame(to, first + i, length));
}
function allDrops(r: Rig): number {
  const { ports, nics } = r.host.stats();
  return [...ports, ...nics].flatMap(({ drops }) => Object.values(drops)).reduce((a, b) => a + b, 0);
}
function increasing(numbers: number[]): boolean {
  return numbers.every((n, i) => i === 0 || n > numbers[i - 1]!);
}
/** Where the guest finds the frames that it hasn't looked at yet: address of each buffer's first byte. */
function usedAddresses(r: Rig, guest: Guest): number[] {
  const driver = r.core.u32(guest.address + GuestLayout.rx);
  const shadow = r.core.u32(driver + Driver.shadow);
  return idsOf(guest, guest.rxVirtqueue, driver).used.map((id) => r.core.u32(shadow + Packet.SIZE * id));
}
/** Ranges [from, to) of the region in which it differs from what it was. */
function changes(before: Uint8Array, now: Uint8Array): [number, number][] {
  const list: [number, number][] = [];
  for (let i = 0; i < now.length; i++) {
    if (before[i] === now[i]) continue;
    const last = list.at(-1);
    if (last && last[1] === i) last[1]++;
    else list.push([i, i + 1]);
  }
  return list;
}

describe("R2: each buffer is at one place at any time", () => {
  test.each<[string, GuestOptions, number]>([
    ["split, host buffers when empty", { onEmpty: "host" }, 1],
    ["split, the card waits when empty", { onEmpty: "wait" }, 2],
    ["packed, host buffers when empty", { packed: true, onEmpty: "host" }, 3],
    ["packed, the card waits when empty", { packed: true, onEmpty: "wait" }, 4],
    ["split, few buffers", { ring: 16 }, 5],
    ["split, frames over several buffers", { onEmpty: "wait", bufferSize: 512 }, 6],
    [
      "packed, frames over several buffers, indirect",
      { packed: true, onEmpty: "wait", bufferSize: 512, indirect: true },
      7,
    ],
  ])("R2: under random load, %s", async (_name, options, seed) => {
    const r = await rig(options, 2, { buffers: 512 });
    const [first, second] = r.guests as [Guest, Guest];
    r.nic.steer(ASTRAY, 0, 1, r.sw.indexOf(second)); // what lands in a mapped buffer and goes elsewhere
    const random = randomOf(seed);
    const pick = <T>(list: T[]) => list[Math.floor(random() * list.length)]!;
    let mapped = true;
    const steps = {
      receive: () =>
        r.nic.receive(
          Array.from({ length: 1 + Math.floor(random() * 40) }, (_, i) =>
            frame(
              pick([first.mac, first.mac, second.mac, ASTRAY, BROADCAST]),
              i,
              60 + Math.floor(random() * 1400),
            ),
          ),
        ),
      pollSwitch: () => r.core.exports.pollSwitch(r.sw.address),
      pollGuest: () => r.core.exports.pollGuest(pick(r.guests).address),
      drain: () => r.host.drain(2),
      transmit: () => sent(r),
      remap: () => {
        if (mapped) r.sw.unmap(r.nic, first);
        else r.sw.remap(r.nic, first);
        mapped = !mapped;
      },
    };
    const names = Object.keys(steps) as (keyof typeof steps)[];
    const story: string[] = [];
    for (let i = 0; i < 800; i++) {
      const name = pick([...names, "receive", "receive"] as typeof names);
      steps[name]();
      story.push(name);
      const wrong = [...misplaced(r, first), ...misplaced(r, second), ...misplacedInPool(r)];
      expect(wrong, story.slice(-5).join(", ")).toEqual([]);
    }
    // All ways were gone.
    const [stats] = r.host.stats().mappings;
    expect(Math.min(stats!.hits, stats!.misses)).toBeGreaterThan(50);
  });

  test.each(FORMATS)(
    "R2: the guest's buffers are used in the order in which it posted them, %s",
    async (_, options) => {
      const host = await Host.create();
      const nic = host.nic({ ring: 64 });
      const guest = host.guest({ ring: 128, run: "sink", ...options });
      const posted = idsOf(guest, guest.rxVirtqueue, host.core.u32(guest.address + GuestLayout.rx)).available;
      const sw = host.vswitch({ connect: [nic, guest] });
      const r = { host, core: host.core, nic, guest, guests: [guest], sw };
      expect(posted.length).toBe(128);
      const held = [...inCard(r, host.core.u32(guest.mapping + Mapping.queue)), ...pring(r, guest.mapping)];
      expect(held.map(({ index }) => index)).toEqual(posted);
      nic.receive(numbered(60, guest.mac));
      host.core.exports.pollSwitch(sw.address);
      host.core.exports.pollSwitch(sw.address);
      const { used } = idsOf(guest, guest.rxVirtqueue, host.core.u32(guest.address + GuestLayout.rx));
      expect(used).toEqual(posted.slice(0, 60));
    },
  );

  test.each(FORMATS)(
    "R2: a buffer that was missed goes back to the PRing as it was posted, %s",
    async (_, options) => {
      const r = await rig(options, 2);
      r.nic.steer(ASTRAY, 0, 1, r.sw.indexOf(r.guests[1]!));
      const before = new Map(inCard(r, r.nic.rxQueue(1)).map(({ index, addr }) => [index, addr]));
      r.nic.receive(numbered(5, ASTRAY));
      r.core.exports.pollSwitch(r.sw.address);
      const back = pring(r, r.guest.mapping).slice(-5);
      expect(back.map(({ addr, index }) => before.get(index) === addr)).toEqual(Array(5).fill(true));
    },
  );
});

describe("R3: the guest has posted no buffer", () => {
  /** A guest that gets a turn only now and then, and each time 50 frames have come. */
  async function slow(options: GuestOptions) {
    const r = await rig({ ring: 64, ...options });
    const numbers: number[] = [];
    for (let i = 0; i < 120; i++) {
      r.nic.receive(numbered(50, r.guest.mac, 60, i * 50));
      r.core.exports.pollSwitch(r.sw.address);
      if (i % 3 === 0) r.core.exports.pollGuest(r.guest.address);
      numbers.push(...sent(r).map(numberOf));
    }
    r.host.drain();
    numbers.push(...sent(r).map(numberOf));
    return { r, numbers, stats: r.host.stats() };
  }

  test.each(FORMATS)(
    "R3: host buffers keep the queue going, and order is kept over both kinds, %s",
    async (_, options) => {
      const { r, numbers, stats } = await slow({ ...options, onEmpty: "host" });
      expect(increasing(numbers)).toBe(true);
      expect(numbers.length).toBe(120 * 50 - allDrops(r));
      expect(stats.mappings[0]!.hostBuffers).toBeGreaterThan(100);
      // Some frames were copied, others were not.
      expect(stats.ports[1]!.copies).toBeGreaterThan(0);
      expect(stats.mappings[0]!.hits).toBeGreaterThan(100);
      expect(stats.mappings[0]!.hits + stats.ports[1]!.copies).toBe(numbers.length);
    },
  );

  test.each(FORMATS)(
    "R3: the card waits for the guest, and what it drops is counted as rxNoBuffer, %s",
    async (_, options) => {
      const { numbers, stats } = await slow({ ...options, onEmpty: "wait" });
      expect(increasing(numbers)).toBe(true);
      expect(stats.mappings[0]).toMatchObject({ hostBuffers: 0, hits: numbers.length });
      expect(stats.ports[1]!.copies).toBe(0);
      expect(stats.nics[0]!.drops).toEqual({ rxNoBuffer: 120 * 50 - numbers.length });
      expect(numbers.length).toBeGreaterThan(500);
    },
  );
});

describe("R4: a frame in a mapped buffer isn't copied", () => {
  test.each(
    FORMATS.flatMap(([name, options]) => [60, 1514].map((length) => [name, length, options] as const)),
  )(
    "R4: %s, %i bytes: the host writes the net header and the used ring, and nothing else",
    async (_name, length, options) => {
      const r = await rig(options);
      const { guest } = r;
      const region = regionOf(guest);
      const buffers = r.core.u32(guest.address + GuestLayout.buffers) - guest.region;
      region.fill(0xa5, buffers); // the canary: in front of, in, and behind each buffer
      const cards = inCard(r, r.nic.rxQueue(1)).slice(0, 20);
      r.nic.receive(numbered(20, guest.mac, length));
      // The guest rewrites its frame: were the host to copy from elsewhere, or to patch it, it would show.
      for (const { addr } of cards) region[addr - guest.region + NetHeader.SIZE + 20]! ^= 0xff;
      const before = region.slice();
      r.core.exports.pollSwitch(r.sw.address);

      expect(usedAddresses(r, guest)).toEqual(cards.map(({ addr }) => addr));
      const written = changes(before, region).filter(([from]) => from >= buffers);
      const headers = cards.map(({ addr }) => addr - guest.region).sort((a, b) => a - b);
      expect(written).toEqual(headers.map((at) => [at, at + NetHeader.SIZE]));
      const { ports, mappings } = r.host.stats();
      expect(ports[1]).toMatchObject({ copies: 0, copiedBytes: 0, txPackets: 20, txBytes: 20 * length });
      expect(mappings[0]).toMatchObject({ hits: 20, misses: 0, scrubbedBytes: 0 });
    },
  );

  test.each(FORMATS)("R4: the card's DMA touches the frame's bytes only, %s", async (_, options) => {
    const r = await rig({ ...options, onEmpty: "wait" });
    const region = regionOf(r.guest);
    region.fill(0xa5, r.core.u32(r.guest.address + GuestLayout.buffers) - r.guest.region);
    const before = region.slice();
    const [first] = inCard(r, r.nic.rxQueue(1));
    r.nic.receive([new Uint8Array(777).fill(0x5a).map((byte, i) => frame(r.guest.mac)[i] ?? byte)]);
    const at = first!.addr - r.guest.region + NetHeader.SIZE;
    const [range, ...more] = changes(before, region);
    expect(more).toEqual([]);
    expect(range).toEqual([at, at + 777]);
  });
});

describe("R5: what isn't for the mapped guest is copied, and wiped", () => {
  test.each(FORMATS)(
    "R5: a broadcast reaches each mapped guest in a copy of its own, %s",
    async (_, options) => {
      const r = await rig({ ...options, run: "macswap" }, 4);
      const from = numbered(3, BROADCAST, 400);
      r.nic.receive(from);
      r.core.exports.pollSwitch(r.sw.address);
      for (const guest of r.guests) {
        const frames = usedAddresses(r, guest).map((addr) =>
          r.core.bytes.slice(addr + NetHeader.SIZE, addr + NetHeader.SIZE + 400),
        );
        expect(frames).toEqual(from);
        expect(misplaced(r, guest)).toEqual([]);
      }
      expect(
        r.host
          .stats()
          .ports.slice(1)
          .map((port) => port.copies),
      ).toEqual([3, 3, 3, 3]);
    },
  );

  /** The first guest's queue gets the frames of `mac`; the card says nothing of where they go. */
  async function astray(mac: string, options: GuestOptions, length = 60) {
    const r = await rig({ run: "sink", ...options }, 3);
    r.nic.steer(mac, 0, 1, -1);
    const from = numbered(10, mac, length).map((one) => one.fill(0x77, 20));
    r.nic.receive(from);
    const seen = Buffer.from(regionOf(r.guest)).includes(Buffer.alloc(32, 0x77));
    r.core.exports.pollSwitch(r.sw.address);
    return {
      r,
      seen,
      left: Buffer.from(regionOf(r.guest)).includes(Buffer.alloc(4, 0x77)),
      stats: r.host.stats(),
    };
  }

  test.each<[string, string, GuestOptions, number]>([
    ["another guest's frame", "02:00:00:00:00:02", {}, 60],
    ["another guest's frame, packed", "02:00:00:00:00:02", { packed: true }, 60],
    ["a frame over several buffers", "02:00:00:00:00:02", { bufferSize: 512, onEmpty: "wait" }, 1514],
    ["a frame that the switch drops", "01:80:c2:00:00:03", {}, 60],
  ])(
    "R5: %s is wiped from the mapped buffers before they are posted again",
    async (_name, mac, options, length) => {
      const { r, seen, left, stats } = await astray(mac, options, length);
      expect([seen, left]).toEqual([true, false]);
      expect(stats.mappings[0]).toMatchObject({ hits: 0, misses: 10, scrubbedBytes: 10 * length });
      expect(idsOf(r.guest, r.guest.rxVirtqueue, r.core.u32(r.guest.address + GuestLayout.rx)).used).toEqual(
        [],
      );
      expect(misplaced(r, r.guest)).toEqual([]);
      expect(stats.guests[1]!.received).toBe(0);
      r.host.drain();
      const arrived = r.host.stats().guests[1]!.received;
      expect(arrived).toBe(mac.startsWith("01") ? 0 : 10);
    },
  );

  test("R5: a broadcast in a mapped buffer is copied to all, the mapped guest included, then wiped", async () => {
    const { r, stats } = await astray(BROADCAST, {});
    expect(stats.mappings[0]).toMatchObject({ hits: 0, misses: 10, scrubbedBytes: 600 });
    r.host.drain();
    expect(r.host.stats().guests.map((guest) => guest.received)).toEqual([10, 10, 10]);
    expect(misplaced(r, r.guest)).toEqual([]);
  });

  test("R5: without scrub nothing is wiped, and the miss is still counted", async () => {
    const { left, stats } = await astray("02:00:00:00:00:02", { scrub: false });
    expect(left).toBe(true);
    expect(stats.mappings[0]).toMatchObject({ misses: 10, scrubbedBytes: 0 });
  });
});

describe("R6: frames of one queue reach the guest in wire order", () => {
  test.each<[string, GuestOptions]>([
    ["split", {}],
    ["packed", { packed: true }],
    ["split, one frame over several buffers", { bufferSize: 512, onEmpty: "wait" }],
    ["packed, one frame over several buffers", { packed: true, bufferSize: 512, onEmpty: "wait" }],
  ])("R6: sizes and turns at random, unmapped in between, %s", async (_name, options) => {
    const r = await rig({ ring: 64, ...options });
    const random = randomOf(61);
    const numbers: number[] = [];
    let number = 0;
    for (let i = 0; i < 400; i++) {
      const some = Array.from({ length: Math.floor(random() * 30) }, () =>
        frame(r.guest.mac, number++, 60 + Math.floor(random() * random() * 1454)),
      );
      r.nic.receive(some);
      // Unmapping delivers what was received; what comes then takes the copying path, behind it.
      if (i % 40 === 20) r.sw.unmap(r.nic, r.guest);
      else r.core.exports.pollSwitch(r.sw.address);
      if (random() < 0.7) r.core.exports.pollGuest(r.guest.address);
      if (i % 40 === 39) {
        r.host.drain();
        r.sw.remap(r.nic, r.guest);
      }
      numbers.push(...sent(r).map(numberOf));
    }
    r.host.drain();
    numbers.push(...sent(r).map(numberOf));
    expect(increasing(numbers)).toBe(true);
    expect(numbers.length).toBe(number - allDrops(r));
    expect(numbers.length).toBeGreaterThan(number / 3);
  });
});

describe("R7: unmapping", () => {
  test.each(FORMATS)(
    "R7: afterwards the card writes nothing into the guest's memory, %s",
    async (_, options) => {
      const r = await rig(options);
      r.nic.receive(numbered(40, r.guest.mac));
      r.sw.unmap(r.nic, r.guest);
      const poisoned = regionOf(r.guest).fill(0xa5).slice();
      for (let i = 0; i < 20; i++) r.nic.receive(numbered(64, r.guest.mac, 1514));
      expect(changes(poisoned, regionOf(r.guest))).toEqual([]);
      // The card took some: they went to buffers of the host's.
      expect(r.host.stats().nics[0]!.rxPackets).toBe(40 + 64);
    },
  );

  test.each<[string, GuestOptions]>([
    ["split", {}],
    ["packed", { packed: true }],
    ["host buffers in the ring", { ring: 16, onEmpty: "host" }],
  ])(
    "R7: what the card had received is delivered, and what it held comes back, %s",
    async (_name, options) => {
      const r = await rig(options);
      r.nic.receive(numbered(12, r.guest.mac));
      r.sw.unmap(r.nic, r.guest);
      expect(inCard(r, r.nic.rxQueue(1))).toEqual([]);
      expect([...misplaced(r, r.guest), ...misplacedInPool(r)]).toEqual([]);
      r.host.drain();
      expect(sent(r).map(numberOf)).toEqual(Array.from({ length: 12 }, (_, i) => i));
    },
  );

  test("R7: unmapping twice is unmapping once", async () => {
    const r = await rig({});
    r.sw.unmap(r.nic, r.guest);
    const before = pring(r, r.guest.mapping);
    r.sw.unmap(r.nic, r.guest);
    expect(pring(r, r.guest.mapping)).toEqual(before);
    expect([...misplaced(r, r.guest), ...misplacedInPool(r)]).toEqual([]);
  });

  test.each(FORMATS)(
    "R7: a buffer of a stopped queue is not completed (DPDK's bug), %s",
    async (_, options) => {
      const r = await rig(options);
      r.nic.receive(numbered(20, r.guest.mac));
      r.core.exports.stopVirtqueue(r.guest.rxVirtqueue);
      const before = regionOf(r.guest).slice();
      const areas = r.core.u32(r.guest.address + GuestLayout.buffers) - r.guest.region;
      r.core.exports.pollSwitch(r.sw.address);
      expect(changes(before.subarray(0, areas), regionOf(r.guest).subarray(0, areas))).toEqual([]);
      expect(r.host.stats().ports[1]!.drops).toEqual({ down: 20 });
    },
  );

  test.each(FORMATS)(
    "R7: buffers of before a reset are never used after it (DPDK's bug), %s",
    async (_, options) => {
      const r = await rig(options);
      const { core, guest, sw, nic } = r;
      nic.receive(numbered(5, guest.mac));
      sw.unmap(nic, guest);
      core.exports.stopVirtqueue(guest.rxVirtqueue);
      core.exports.forgetMapping(guest.mapping);
      // The driver begins anew, with rings elsewhere in its memory and without a buffer in them.
      const features = core.u32(guest.rxVirtqueue + Virtqueue.features);
      const at = [0x10000n, 0x12000n, 0x13000n] as const;
      const region = regionOf(guest).fill(0);
      expect(core.exports.startVirtqueue(guest.rxVirtqueue, ...at, 128, features)).toBe(true);
      const before = region.slice();
      sw.remap(nic, guest);
      for (let i = 0; i < 5; i++) {
        nic.receive(numbered(30, guest.mac));
        core.exports.pollSwitch(sw.address);
      }
      expect(changes(before, region)).toEqual([]);
      expect(pring(r, guest.mapping)).toEqual([]);
      expect(misplacedInPool(r)).toEqual([]);
    },
  );
});
