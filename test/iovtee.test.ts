/** IOVTee's rules R2 to R11 (docs/design.md), each by its number, and the bugs that DPDK's zero-copy paths had. */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { describe, expect, test } from "vitest";
import {
  DescFlag,
  Driver,
  Guest as GuestLayout,
  HEADROOM,
  MacTable,
  Mapping,
  NetHeader,
  Nic as NicLayout,
  Packet,
  Switch,
  Virtqueue,
} from "../assembly/layout.ts";
import { FrameGenerator, type Guest, type GuestOptions, Host, type HostStats } from "../src/index.ts";
import {
  BROADCAST,
  frame,
  idsOf,
  inCard,
  misplaced,
  misplacedInPool,
  numberOf,
  pollSwitch,
  pring,
  type Rig,
  randomOf,
  regionOf,
  rig,
  sent,
  WIRE,
} from "./harness/host.ts";
import { canary } from "./harness/hostile.ts";

/** A station whose frames the card steers to the first guest's queue by mistake. */
const ASTRAY = "02:00:00:00:00:99";
const FORMATS: [string, GuestOptions][] = [
  ["split", {}],
  ["packed", { packed: true }],
];

/** `bufferSize` that gives the device 512 bytes: in front of them is the headroom, but for the net header's place. */
const OF_512 = 512 + HEADROOM - NetHeader.SIZE;

function numbered(n: number, to: string, length = 60, first = 0): Uint8Array[] {
  return Array.from({ length: n }, (_, i) => frame(to, first + i, length));
}
function allDrops(r: Rig): number {
  const { ports, nics } = r.host.stats();
  return [...ports, ...nics].flatMap(({ drops }) => Object.values(drops)).reduce((a, b) => a + b, 0);
}
/** In what frames differ from those expected, but for their MAC addresses; "" if in nothing. */
function difference(frames: Uint8Array[], expected: Uint8Array[]): string {
  if (frames.length !== expected.length) return `${frames.length} frames, not ${expected.length}`;
  const i = frames.findIndex((one, k) => Buffer.compare(one.subarray(12), expected[k]!.subarray(12)) !== 0);
  return i < 0 ? "" : `frame ${i} of ${frames[i]!.length} bytes, not ${expected[i]!.length}, or changed`;
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
    ["split, frames over several buffers", { onEmpty: "wait", bufferSize: OF_512 }, 6],
    [
      "packed, frames over several buffers, indirect",
      { packed: true, onEmpty: "wait", bufferSize: OF_512, indirect: true },
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
      pollSwitch: () => pollSwitch(r.sw),
      pollGuest: () => r.core.exports.pollGuest(pick(r.guests).address),
      drain: () => r.host.drain(2),
      transmit: () => sent(r),
      remap: () => {
        if (mapped) r.sw.unmap(first);
        else r.sw.map(r.nic, first);
        mapped = !mapped;
      },
    };
    const names = Object.keys(steps) as (keyof typeof steps)[];
    const story: string[] = [];
    for (let i = 0; i < 500; i++) {
      const name = pick([...names, "receive", "receive"] as typeof names);
      steps[name]();
      story.push(name);
      const wrong = [...misplaced(r, first), ...misplaced(r, second), ...misplacedInPool(r)];
      expect(wrong, story.slice(-5).join(", ")).toEqual([]);
    }
    // All ways were gone.
    const [stats] = r.host.stats().mappings;
    expect(Math.min(stats!.hits, stats!.misses)).toBeGreaterThan(30);
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
      expect(held.length).toBeGreaterThanOrEqual(64);
      expect(held.map(({ index }) => index)).toEqual(posted.slice(0, held.length));
      nic.receive(numbered(60, guest.mac));
      pollSwitch(sw);
      pollSwitch(sw);
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
      pollSwitch(r.sw);
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
      pollSwitch(r.sw);
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
      const buffers = r.core.u32(guest.address + GuestLayout.blank) - guest.region;
      region.fill(0xa5, buffers); // the canary: in front of, in, and behind each buffer
      const cards = inCard(r, r.nic.rxQueue(1)).slice(0, 20);
      r.nic.receive(numbered(20, guest.mac, length));
      // The guest rewrites its frame: were the host to copy from elsewhere, or to patch it, it would show.
      for (const { addr } of cards) region[addr - guest.region + NetHeader.SIZE + 20]! ^= 0xff;
      const before = region.slice();
      pollSwitch(r.sw);

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
    region.fill(0xa5, r.core.u32(r.guest.address + GuestLayout.blank) - r.guest.region);
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
      pollSwitch(r.sw);
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
    const mine = inCard(r, r.nic.rxQueue(1)).slice(0, 10);
    r.nic.receive(from);
    const seen = Buffer.from(regionOf(r.guest)).includes(Buffer.alloc(32, 0x77));
    pollSwitch(r.sw);
    return {
      r,
      mine,
      seen,
      left: Buffer.from(regionOf(r.guest)).includes(Buffer.alloc(4, 0x77)),
      stats: r.host.stats(),
    };
  }

  test.each<[string, string, GuestOptions, number]>([
    ["another guest's frame", "02:00:00:00:00:02", {}, 60],
    ["another guest's frame, packed", "02:00:00:00:00:02", { packed: true }, 60],
    ["a frame over several buffers", "02:00:00:00:00:02", { bufferSize: OF_512, onEmpty: "wait" }, 1514],
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
    const { r, mine, stats } = await astray(BROADCAST, {});
    // The guest's own copies lie elsewhere, in buffers that the card didn't have.
    for (const { addr } of mine)
      expect(r.core.bytes.subarray(addr + NetHeader.SIZE, addr + 72)).toEqual(new Uint8Array(60));
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
    ["split, one frame over several buffers", { bufferSize: OF_512, onEmpty: "wait" }],
    ["packed, one frame over several buffers", { packed: true, bufferSize: OF_512, onEmpty: "wait" }],
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
      if (i % 40 === 20) r.sw.unmap(r.guest);
      else pollSwitch(r.sw);
      if (random() < 0.7) r.core.exports.pollGuest(r.guest.address);
      if (i % 40 === 39) {
        r.host.drain();
        r.sw.map(r.nic, r.guest);
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
      r.sw.unmap(r.guest);
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
      r.sw.unmap(r.guest);
      expect(inCard(r, r.nic.rxQueue(1))).toEqual([]);
      expect([...misplaced(r, r.guest), ...misplacedInPool(r)]).toEqual([]);
      r.host.drain();
      expect(sent(r).map(numberOf)).toEqual(Array.from({ length: 12 }, (_, i) => i));
    },
  );

  test("R7: unmapping twice is unmapping once", async () => {
    const r = await rig({});
    r.sw.unmap(r.guest);
    const before = pring(r, r.guest.mapping);
    r.sw.unmap(r.guest);
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
      const areas = r.core.u32(r.guest.address + GuestLayout.blank) - r.guest.region;
      pollSwitch(r.sw);
      expect(changes(before.subarray(0, areas), regionOf(r.guest).subarray(0, areas))).toEqual([]);
      expect(r.host.stats().ports[1]!.drops).toEqual({ down: 20 });
    },
  );

  test.each<[string, GuestOptions]>([
    ["split", {}],
    ["packed", { packed: true }],
    ["the card waits", { onEmpty: "wait" }],
  ])("R7: buffers of before a reset are never used after it (DPDK's bug), %s", async (_, options) => {
    const r = await rig(options);
    const { core, guest, sw, nic } = r;
    nic.receive(numbered(5, guest.mac));
    sw.unmap(guest);
    core.exports.stopVirtqueue(guest.rxVirtqueue);
    core.exports.forgetMapping(guest.mapping);
    // The driver begins anew, with rings elsewhere in its memory and without a buffer in them.
    const features = core.u32(guest.rxVirtqueue + Virtqueue.features);
    const at = [0x10000n, 0x12000n, 0x13000n] as const;
    const region = regionOf(guest).fill(0);
    expect(core.exports.startVirtqueue(guest.rxVirtqueue, ...at, 128, features)).toBe(true);
    const before = region.slice();
    sw.map(nic, guest);
    for (let i = 0; i < 5; i++) {
      nic.receive(numbered(30, guest.mac));
      pollSwitch(sw);
    }
    expect(changes(before, region)).toEqual([]);
    expect(pring(r, guest.mapping)).toEqual([]);
    expect(misplacedInPool(r)).toEqual([]);
  });
});

/** What is behind the guests, in reach of a hostile descriptor. */
const BEHIND = 8 * 2 ** 20;

describe("R8: a bad buffer is refused and counted", () => {
  interface Bad {
    /** Below 0: counted from the region's end. */
    addr?: bigint;
    len?: number;
    flags?: number;
    next?: number;
  }
  /** 50 frames, one by one, to a guest whose third buffer is `bad`. */
  async function third(bad: Bad, options: GuestOptions) {
    const host = await Host.create();
    const { core } = host;
    const nic = host.nic({ ring: 64 });
    const guest = host.guest({ ring: 32, onEmpty: "host", run: "sink", ...options });
    const driver = core.u32(guest.address + GuestLayout.rx);
    const id = options.packed ? 2 : idsOf(guest, guest.rxVirtqueue, driver).available[2]!;
    const d = guest.region + 16 * id;
    if (bad.addr !== undefined)
      core.view.setBigUint64(d, bad.addr < 0n ? BigInt(guest.regionSize) + bad.addr : bad.addr, true);
    if (bad.len !== undefined) core.setU32(d + 8, bad.len);
    const flags = d + (options.packed ? 14 : 12);
    // A packed descriptor's AVAIL and USED say that it is there.
    if (bad.flags !== undefined) core.view.setUint16(flags, bad.flags | (core.u16(flags) & 0x8080), true);
    if (bad.next !== undefined) core.view.setUint16(d + 14, bad.next === -1 ? id : bad.next, true);
    const sw = host.vswitch({ connect: [nic, guest] });
    const r = { host, core, nic, guest, guests: [guest], sw };
    const behind = canary(r.core, BEHIND);
    for (let i = 0; i < 50; i++) {
      nic.receive([frame(guest.mac, i)]);
      host.drain(100);
      for (const { addr, len, owner } of inCard(r, nic.rxQueue(1))) {
        const inside = addr >= guest.region && addr + len <= guest.region + guest.regionSize;
        if (owner === guest.mappingId && !inside)
          throw new Error(`the card was given ${addr}, outside the guest's memory`);
      }
    }
    return { port: host.stats().ports[1]!, intact: behind.intact() };
  }
  const { WRITE, NEXT, INDIRECT } = DescFlag;

  test.each<[string, string, Bad]>([
    ["behind the region", "outOfRegion", { addr: 2n ** 20n }],
    ["partly behind the region", "outOfRegion", { addr: -64n }],
    ["at an address of 64 bits", "outOfRegion", { addr: 2n ** 63n }],
    ["that wraps round", "outOfRegion", { addr: 2n ** 64n - 16n, len: 32 }],
    ["4 GiB long", "outOfRegion", { len: 0xffffffff }],
    ["of no byte", "tooShort", { len: 0 }],
    ["that the device may only read", "direction", { flags: 0 }],
    ["with a table that wasn't agreed on", "indirect", { flags: WRITE | INDIRECT }],
  ])(
    "R8: a buffer %s is refused and counted, costs no frame, and the queue goes on",
    async (_name, why, bad) => {
      for (const [, options] of FORMATS) {
        const { port, intact } = await third(bad, options);
        expect(port.drops).toEqual({ [`refused.${why}`]: 1 });
        expect([port.txPackets, intact]).toEqual([50, true]);
      }
    },
  );

  test.each<[string, Bad]>([
    ["that leaves the region", { addr: 2n ** 30n, len: 32 }],
    ["of half a descriptor", { addr: 0n, len: 24 }],
    ["longer than the queue", { addr: 0n, len: 33 * 16 }],
  ])("R8: an indirect table %s is refused", async (_name, bad) => {
    for (const [, options] of FORMATS) {
      const { port, intact } = await third({ ...bad, flags: INDIRECT }, { ...options, indirect: true });
      expect([port.txPackets, port.drops.noBuffer, intact]).toEqual([50, undefined, true]);
    }
  });

  test.each<[string, string, Bad]>([
    ["bites its own tail", "loop", { flags: WRITE | NEXT, next: -1 }],
    ["leads out of the table", "index", { flags: WRITE | NEXT, next: 32 }],
  ])("R8: a chain that %s breaks the queue until it is reset", async (_name, why, bad) => {
    const { port, intact } = await third(bad, {});
    expect(port.drops).toMatchObject({ [`refused.${why}`]: 1, down: 50 - port.txPackets });
    expect(port.txPackets).toBeLessThan(50);
    expect(intact).toBe(true);
  });

  test.each(FORMATS)(
    "R8: a buffer too small for the card is left to the copying path, %s",
    async (_, options) => {
      const { port } = await third({ len: 71 }, options);
      // 60 bytes and the net header need 72: the frame takes this buffer and the next.
      expect(port).toMatchObject({ txPackets: 50, drops: {} });
    },
  );
});

describe("buffers of two owners", () => {
  test.each(FORMATS)(
    "R3, R10: a frame that begins in the guest's buffers and ends in the host's is copied whole, %s",
    async (_, options) => {
      const host = await Host.create();
      const nic = host.nic({ ring: 64 });
      const guest = host.guest({ ...options, onEmpty: "host", bufferSize: 628, ring: 32 });
      const sw = host.vswitch({ connect: [nic, guest] });
      const r = { host, core: host.core, nic, guest, guests: [guest], sw };
      const back: Uint8Array[] = [];
      let received = 0;
      for (let i = 0; i < 40; i++) {
        received += nic.receive(numbered(12, guest.mac, 1514, i * 12));
        host.drain();
        back.push(...sent(r));
        expect([...misplaced(r, guest), ...misplacedInPool(r)]).toEqual([]);
      }
      const stats = host.stats();
      const full = stats.ports.reduce((n, { drops }) => n + (drops.full ?? 0), 0);
      expect(back.length).toBe(received - full);
      expect(back.length).toBeGreaterThan(100);
      expect(increasing(back.map(numberOf))).toBe(true);
      for (const one of back) {
        expect(one.length).toBe(1514);
        const [same] = numbered(1, guest.mac, 1514, numberOf(one));
        expect(Buffer.compare(one.subarray(12), same!.subarray(12))).toBe(0);
      }
      expect(stats.mappings[0]!.hits).toBeGreaterThan(0);
      expect(stats.mappings[0]!.misses).toBeGreaterThan(0);
      expect(stats.ports[1]!.drops["refused.availJump"]).toBeUndefined();
    },
  );

  test.each(FORMATS)(
    "R5, R10: such a frame for another port arrives there as it came, %s",
    async (_, options) => {
      const host = await Host.create();
      const nic = host.nic({ ring: 64 });
      const guest = host.guest({ ...options, ring: 32, bufferSize: 628, onEmpty: "host", run: "sink" });
      const port = host.port();
      const sw = host.vswitch({ connect: [nic, guest, port] });
      const r = { host, core: host.core, nic, guest, guests: [guest], sw };
      nic.steer(ASTRAY, 0, 1, sw.indexOf(port));
      const random = randomOf(1);
      let number = 0;
      let got = 0;
      for (let i = 0; i < 300; i++) {
        const some = Array.from({ length: 1 + Math.floor(random() * 6) }, () =>
          frame(random() < 0.5 ? guest.mac : ASTRAY, number++, 60 + Math.floor(random() * 3000)),
        );
        nic.receive(some);
        pollSwitch(sw);
        if (random() < 0.3) host.core.exports.pollGuest(guest.address);
        port.take((frames) => {
          for (const one of frames) {
            got++;
            expect(Buffer.compare(one, frame(ASTRAY, numberOf(one), one.length))).toBe(0);
          }
        });
        expect(misplacedInPool(r)).toEqual([]);
      }
      expect(got).toBeGreaterThan(100);
    },
  );

  test("R5: a missed frame of several buffers is one miss", async () => {
    const r = await rig({ bufferSize: 628, mergeable: false, onEmpty: "wait" });
    r.nic.receive([frame(r.guest.mac, 8, 1514)]);
    r.host.drain();
    expect(r.host.stats().ports[1]!.drops).toEqual({ tooLarge: 1 });
    expect(r.host.stats().mappings[0]!.misses).toBe(1);
  });

  test.each(FORMATS)("R8: a buffer that can't be mapped is counted once, %s", async (_, options) => {
    const host = await Host.create({ buffers: 64 });
    const nic = host.nic({ ring: 64 });
    const guest = host.guest({ ...options, ring: 16, onEmpty: "wait", run: "sink" });
    const view = new DataView(host.core.memory.buffer, guest.region, guest.regionSize);
    const third = options.packed ? 2 : view.getUint16(16 * 16 + 4 + 2 * 2, true);
    view.setUint32(16 * third + 8, 20, true); // too short
    host.vswitch({ connect: [nic, guest] });
    for (let i = 0; i < 10; i++) host.core.exports.refillMapping(guest.mapping, 0);
    expect(host.stats().mappings[0]!.unmappable).toBe(1);
  });

  test("R1: a mapping that finds no place in the card's filters changes nothing", async () => {
    const host = await Host.create();
    const nic = host.nic({ ring: 64 });
    const guest = host.guest({});
    const sw = host.vswitch({ connect: [guest] });
    const filters = host.core.u32(nic.address + NicLayout.filters);
    // Whoever has one bucket has all.
    host.core.setU32(filters + MacTable.buckets, 1);
    const taken = ["02:11:00:00:00:01", "02:11:00:00:00:02", "02:11:00:00:00:03", "02:11:00:00:00:04"];
    for (const mac of taken) nic.steer(mac, 0, 0, -1);
    expect(() => sw.connect(nic)).toThrow(/no place left/);
    const r = { host, core: host.core, nic, guest, guests: [guest], sw };
    expect(inCard(r, nic.rxQueue(1))).toEqual([]);
    expect([...misplaced(r, guest), ...misplacedInPool(r)]).toEqual([]);
    nic.unsteer(taken[0]!);
    sw.map(nic, guest);
    nic.receive([frame(guest.mac)]);
    host.drain();
    expect(host.stats().mappings[0]!.hits).toBe(1);
  });

  test.each<[string, (region: DataView, id: number) => void]>([
    ["outside its region", (region, id) => region.setUint32(16 * id + 4, 1, true)],
    ["too small for the card", (region, id) => region.setUint32(16 * id + 8, 20, true)],
  ])('R8: a buffer %s doesn\'t stall a guest whose card waits (onEmpty: "wait")', async (_, spoil) => {
    const host = await Host.create();
    const nic = host.nic({ ring: 64 });
    const guest = host.guest({ ring: 16, onEmpty: "wait", run: "sink" });
    const view = new DataView(host.core.memory.buffer, guest.region, guest.regionSize);
    spoil(view, view.getUint16(16 * 16 + 4 + 2 * 2, true)); // the third that it posted
    host.vswitch({ connect: [nic, guest] });
    for (let i = 0; i < 100; i++) {
      nic.receive([frame(guest.mac, i)]);
      host.drain(100);
    }
    const { ports, nics } = host.stats();
    expect([ports[1]!.txPackets, nics[0]!.drops]).toEqual([100, {}]);
  });

  test('R3: a guest that posts few buffers gets frames (onEmpty: "wait")', async () => {
    const host = await Host.create();
    const nic = host.nic({ ring: 64 });
    const guest = host.guest({ onEmpty: "wait", ring: 256, memory: 65536, run: "sink" }); // 23 buffers
    host.vswitch({ connect: [nic, guest] });
    for (let i = 0; i < 100; i++) {
      nic.receive([frame(guest.mac, i)]);
      host.drain();
    }
    expect(host.stats().guests[0]!.received).toBe(100);
  });

  test("R6: mapping again under load keeps the order", async () => {
    const host = await Host.create();
    const nic = host.nic({ ring: 128 });
    const guest = host.guest({ ring: 128 });
    const sw = host.vswitch({ connect: [nic, guest] });
    const r = { host, core: host.core, nic, guest, guests: [guest], sw };
    sw.unmap(guest);
    nic.receive(numbered(100, guest.mac));
    sw.map(nic, guest);
    nic.receive(numbered(20, guest.mac, 60, 100));
    host.drain();
    expect(sent(r).map(numberOf)).toEqual(Array.from({ length: 120 }, (_, i) => i));
  });
});

describe("R9: the guest changes what it has posted", () => {
  test.each(FORMATS)("R9: the host goes by the descriptor that it checked, %s", async (_, options) => {
    const r = await rig({ ...options, onEmpty: "wait" }, 2);
    const { core, nic, sw, guest } = r;
    const behind = canary(r.core, BEHIND);
    nic.steer(ASTRAY, 0, 1, sw.indexOf(r.guests[1]!));
    const back: Uint8Array[] = [];
    const from: Uint8Array[] = [];
    for (let i = 0; i < 40; i++) {
      const some = numbered(20, guest.mac, 200, i * 20);
      from.push(...some);
      nic.receive(numbered(5, ASTRAY));
      nic.receive(some);
      pollSwitch(sw);
      core.exports.pollGuest(guest.address);
      core.exports.pollGuest(r.guests[1]!.address);
      pollSwitch(sw);
      back.push(...sent(r).filter((one) => one[11] === 1)); // from the first guest
      core.exports.refillMapping(guest.mapping, 0);
      // Now each descriptor that was taken points to what isn't the guest's.
      const rx = core.u32(guest.address + GuestLayout.rx);
      const open = new Set(idsOf(guest, guest.rxVirtqueue, rx).available);
      for (let d = 0; d < 128; d++) {
        if (!open.has(d)) core.setU32(guest.region + 16 * d, behind.at - guest.region + 4096 * d);
      }
    }
    expect(difference(back, from)).toBe("");
    expect(behind.intact()).toBe(true);
    expect(
      r.host
        .stats()
        .ports.slice(1)
        .map(({ drops }) => drops),
    ).toEqual([{}, {}]);
  });

  /** Writes until `control[0]` says stop; `control[1]` counts. `flip`: addresses and lengths of receive descriptors only. */
  const SCRIBBLER = `
    const { memory, control, region, size, flip, packed, seed } = require("node:worker_threads").workerData;
    const words = new Uint32Array(memory.buffer, region, size / 4);
    const masks = [0xffffffff, 0x7fffff, 0xffff, 0x7f, 3, 0];
    let x = seed;
    const next = () => { x ^= x << 13; x ^= x >>> 17; x ^= x << 5; return x >>> 0; };
    while (!Atomics.load(control, 0)) {
      for (let i = 0; i < 64; i++) {
        if (flip) {
          const d = (next() & 127) * 4;
          // Inside, but not where the rings are, or up to 8 MiB behind.
          if (next() & 1) words[d] = next() & 7 ? 0x10000 + (next() & 0x7ffff) : size + (next() & 0x7fffff);
          else words[d + 2] = next() & 0xfff;
        } else if (next() & 3) {
          words[next() % (next() & 1 ? 2048 : words.length)] = next() & masks[next() % masks.length];
        } else {
          // A descriptor that looks as if it could be used.
          const d = (next() & 127) * 4;
          words[d] = next() & 0x7fffff;
          words[d + 1] = 0;
          words[d + 2] = next() & 0xfff;
          words[d + 3] = packed ? 0x00820000 | (next() & 127) : 2;
        }
      }
      Atomics.add(control, 1, 1);
    }`;

  test.each([
    ["R8", "anything", "split", {}],
    ["R8", "anything", "packed", { packed: true }],
    ["R9", "its descriptors", "split", { flip: true }],
    ["R9", "its descriptors", "packed", { packed: true, flip: true }],
  ])(
    "%s: a thread of the guest's that rewrites %s at any time harms only itself, %s",
    async (_rule, _what, _format, { packed = false, flip = false }: { packed?: boolean; flip?: boolean }) => {
      const r = await rig({ packed, indirect: !flip, run: "sink" }, 3, { shared: true }, 512);
      const { core, nic, sw, host } = r;
      const hostile = r.guests[2]!;
      const good = r.guests.slice(0, 2);
      for (const guest of good) core.setU32(guest.address + GuestLayout.run, 1); // macswap
      const behind = canary(r.core, BEHIND);
      const generator = new FrameGenerator(core, {
        size: "imix",
        to: good.map(({ mac }) => mac),
        from: WIRE,
      });
      const control = new Int32Array(new SharedArrayBuffer(16));
      const { region, regionSize } = hostile;
      const workerData = { memory: core.memory, control, region, size: regionSize, flip, packed, seed: 9 };
      const worker = new Worker(SCRIBBLER, { eval: true, workerData });
      await once(worker, "online");
      const features = core.u32(hostile.rxVirtqueue + Virtqueue.features);
      const rings = [hostile.rxVirtqueue, hostile.txVirtqueue].map(
        (vq) =>
          [
            vq,
            ...[Virtqueue.desc, Virtqueue.driver, Virtqueue.device].map((f) =>
              BigInt(core.u32(vq + f) - region),
            ),
          ] as const,
      );
      for (let i = 0; i < 150; i++) {
        nic.receive(numbered(48, hostile.mac, 60 + 9 * i));
        core.exports.generate(generator.address, nic.address, 32);
        for (let turn = 0; turn < 4; turn++) {
          // It has written something since the last turn, between its driver and the host at the latest.
          const seen = Atomics.load(control, 1);
          for (let k = 0; Atomics.load(control, 1) === seen; k++)
            if (k > 1000) Atomics.wait(control, 2, 0, 1);
          host.poll();
        }
        host.drain(20);
        core.exports.check(generator.address, nic.address, core.exports.toTransmit(nic.address));
        // A broken queue would end the test: the guest resets it, under load.
        if (!flip && i % 5 === 4) {
          sw.unmap(hostile);
          core.exports.forgetMapping(hostile.mapping);
          for (const [vq, desc, driver, device] of rings) {
            core.exports.stopVirtqueue(vq as number);
            expect(
              core.exports.startVirtqueue(
                vq as number,
                desc as bigint,
                driver as bigint,
                device as bigint,
                128,
                features,
              ),
            ).toBe(true);
          }
          sw.map(nic, hostile);
        }
      }
      Atomics.store(control, 0, 1);
      await once(worker, "exit");
      expect(behind.intact()).toBe(true);
      const stats: HostStats = host.stats();
      const full = [stats.ports[0]!, stats.ports[1]!, stats.ports[2]!].reduce(
        (n, { drops }) => n + (drops.full ?? 0),
        0,
      );
      const { lost, duplicated, reordered } = generator.check();
      expect({ duplicated, reordered }).toEqual({ duplicated: 0, reordered: 0 });
      expect(lost).toBeLessThanOrEqual(full);
      for (const guest of good) expect(misplaced(r, guest)).toEqual([]);
      expect(misplacedInPool(r)).toEqual([]);
      // The race was one: buffers of the hostile guest's were used, and others were refused.
      const port = stats.ports[3]!;
      expect(port.txPackets).toBeGreaterThan(0);
      expect(Object.keys(port.drops).filter((why) => why.startsWith("refused"))).not.toEqual([]);
    },
  );
});

describe("R10: frames larger than a buffer", () => {
  test.each(
    FORMATS.flatMap(([name, options]) =>
      (["vhost", "iovtee"] as const).flatMap((attach) =>
        [500, 501, 1514, 9000].map((length) => [name, attach, length, options] as const),
      ),
    ),
  )(
    "R10: %s, %s: frames of %i bytes over buffers of 512, exact and in order",
    async (_name, attach, length, options) => {
      const r = await rig({ ...options, attach, bufferSize: OF_512 });
      let number = 0;
      for (let i = 0; i < 60; i++) {
        const from = numbered(2, r.guest.mac, length, number);
        number += 2;
        expect(r.nic.receive(from)).toBe(2);
        r.host.drain();
        expect(difference(sent(r), from)).toBe("");
      }
      const { ports, mappings } = r.host.stats();
      expect(ports[1]).toMatchObject({
        txPackets: 120,
        txBytes: 120 * length,
        copies: attach === "vhost" ? 120 : 0,
      });
      if (attach === "iovtee") expect(mappings[0]).toMatchObject({ hits: 120, misses: 0, hostBuffers: 0 });
      expect([...misplaced(r, r.guest), ...misplacedInPool(r)]).toEqual([]);
    },
  );

  test.each(FORMATS)(
    "R10: bursts beyond what the ring holds lose whole frames only, %s",
    async (_, options) => {
      const r = await rig({ ...options, onEmpty: "wait", bufferSize: OF_512 });
      const random = randomOf(10);
      const from: Uint8Array[] = [];
      const back: Uint8Array[] = [];
      for (let i = 0; i < 100; i++) {
        const some = Array.from({ length: 40 }, (_, k) =>
          frame(r.guest.mac, from.length + k, 60 + Math.floor(random() * 8940)),
        );
        from.push(...some);
        r.nic.receive(some);
        r.host.drain();
        back.push(...sent(r));
      }
      const numbers = back.map(numberOf);
      expect(increasing(numbers)).toBe(true);
      expect(
        difference(
          back,
          numbers.map((n) => from[n]!),
        ),
      ).toBe("");
      expect(from.length - back.length).toBe(allDrops(r));
      expect(back.length).toBeGreaterThan(400);
    },
  );

  test.each(
    FORMATS.flatMap(([name, options]) =>
      (["vhost", "iovtee"] as const).map((attach) => [name, attach, options] as const),
    ),
  )(
    "R10: %s, %s: without mergeable buffers a frame that doesn't fit is dropped and counted",
    async (_name, attach, options) => {
      const r = await rig({ ...options, attach, bufferSize: OF_512, mergeable: false });
      const fitting = numbered(3, r.guest.mac, 500);
      r.nic.receive([
        fitting[0]!,
        frame(r.guest.mac, 7, 501),
        fitting[1]!,
        frame(r.guest.mac, 8, 1514),
        fitting[2]!,
      ]);
      r.host.drain();
      expect(difference(sent(r), fitting)).toBe("");
      expect(r.host.stats().ports[1]!.drops).toEqual({ tooLarge: 2 });
      expect([...misplaced(r, r.guest), ...misplacedInPool(r)]).toEqual([]);
    },
  );
});

describe("R11: 64 guests, each mapped", () => {
  test.each(FORMATS)(
    "R11: each gets its own traffic and nothing of another's, one is stuck, %s",
    async (_, options) => {
      const r = await rig({ ...options, memory: 512 * 1024 }, 64, { memory: 256 * 2 ** 20 }, 256);
      const stuck = r.guests[5]!;
      const returned = new Map(r.guests.map((guest) => [guest, 0]));
      const rounds = 30;
      for (let i = 0; i < rounds; i++) {
        for (const [g, guest] of r.guests.entries())
          r.nic.receive(numbered(7, guest.mac, 60 + g).map((one) => one.fill(g + 1, 20)));
        for (let turn = 0; turn < 3; turn++) {
          pollSwitch(r.sw);
          for (const guest of r.guests) if (guest !== stuck) r.core.exports.pollGuest(guest.address);
          for (const one of sent(r)) {
            const g = one[20]! - 1;
            const guest = r.guests[g]!;
            expect([one.length, one[11]]).toEqual([60 + g, g + 1]); // comes from that guest's address
            returned.set(guest, returned.get(guest)! + 1);
          }
        }
      }
      expect(r.guests.map((guest) => returned.get(guest))).toEqual(
        r.guests.map((guest) => (guest === stuck ? 0 : 7 * rounds)),
      );
      const stats = r.host.stats();
      expect(stats.mappings.map(({ misses }) => misses)).toEqual(Array(64).fill(0));
      expect(stats.guests[5]!.received).toBe(0);
      for (const [g, guest] of r.guests.entries()) {
        const at = (field: number) => r.core.u32(guest.address + field);
        const marks = new Set<number>();
        for (
          let p = at(GuestLayout.blank) + NetHeader.SIZE + 40;
          p < guest.region + guest.regionSize;
          p += at(GuestLayout.bufferSize)
        )
          marks.add(r.core.bytes[p]!);
        marks.delete(0);
        expect([...marks]).toEqual([g + 1]);
        expect(misplaced(r, guest)).toEqual([]);
      }
    },
  );
});

describe("stations of which the switch has read no frame", () => {
  const stations = [1, 2, 3].map((i) => `02:00:00:00:ee:0${i}`);

  /** A card, two guests that swap addresses, and a port. */
  async function switched(options: GuestOptions = {}) {
    const host = await Host.create();
    const nic = host.nic();
    const guests = [1, 2].map(() => host.guest({ attach: "iovtee", run: "macswap", ...options }));
    const port = host.port();
    const sw = host.vswitch({ connect: [nic, ...guests, port] });
    return { host, nic, guests, port, sw };
  }

  /** A frame from each station to the first guest; how many come back to the card, the other guest, and the port. */
  function exchange({ host, nic, guests, port }: Awaited<ReturnType<typeof switched>>) {
    nic.receive(stations.map((from, i) => frame(guests[0]!.mac, i, 60, from)));
    // One turn: what the other guest gets it would send on.
    host.poll();
    host.poll();
    let returned = 0;
    nic.transmit((some) => {
      returned += some.length;
    });
    let leaked = 0;
    port.take((some) => {
      leaked += some.length;
    });
    return { returned, other: host.stats().guests[1]!.received, leaked };
  }

  test("what a mapped guest answers them goes to the card, and to nobody else", async () => {
    expect(exchange(await switched())).toEqual({ returned: 3, other: 0, leaked: 0 });
  });

  test("what comes from the card itself, and for nobody who is known, goes to all", async () => {
    const r = await switched();
    r.nic.receive([frame("02:00:00:00:77:77")]);
    r.host.poll();
    r.port.take((some) => expect(some).toHaveLength(1));
    expect(r.host.stats().guests.map(({ received }) => received)).toEqual([1, 1]);
  });

  test("where every frame is read they are known: unmapped, and over vhost", async () => {
    const r = await switched();
    for (const guest of r.guests) r.sw.unmap(guest);
    expect(r.host.core.u32(r.sw.address + Switch.uplink)).toBe(0);
    expect(exchange(r)).toEqual({ returned: 3, other: 0, leaked: 0 });
    const copied = await switched({ attach: "vhost" });
    expect(copied.host.core.u32(copied.sw.address + Switch.uplink)).toBe(0);
    expect(exchange(copied)).toEqual({ returned: 3, other: 0, leaked: 0 });
  });

  test("with two cards nobody can say behind which they are: to all", async () => {
    const r = await switched();
    r.sw.connect(r.host.nic());
    expect(exchange(r)).toMatchObject({ returned: 3, leaked: 2 });
  });
});
