/** The card: where its filters and RSS send a frame, what it drops and counts, and its rings. */
import { describe, expect, test } from "vitest";
import { Nic as NicLayout, RxQueue } from "../assembly/layout.ts";
import { type Guest, Host, type NicOptions } from "../src/index.ts";
import * as frames from "./frames.ts";
import { WIRE } from "./frames.ts";

const ME = "02:00:00:00:aa:01";
const OTHER = "02:00:00:00:aa:02";

/** A card with `queues` receive queues of host buffers; a switch sends all to a port, whence frames can go back. */
async function rig({ queues = 1, ...options }: NicOptions = {}) {
  const host = await Host.create();
  const nic = host.nic({ ring: 64, ...options, queues, rssQueues: queues });
  const { core } = host;
  core.setU32(nic.address + NicLayout.rssQueues, 1); // all the queues, but only filters lead there
  const port = host.port();
  const sw = host.vswitch({ connect: [nic, port] });
  const link = () => host.stats().nics[0]!;
  return { host, core, nic, port, sw, link };
}
type Rig = Awaited<ReturnType<typeof rig>>;

/** RSS over queues 0 to n - 1; `entry` fills the indirection table. */
function spread({ core, nic }: Rig, n: number, entry = (i: number) => i % n): void {
  core.setU32(nic.address + NicLayout.rssQueues, n);
  core.bytes.set(
    Array.from({ length: 128 }, (_, i) => entry(i)),
    core.u32(nic.address + NicLayout.rssTable),
  );
}

/** The queues that `some` went to, one by one. */
function queuesOf({ core, nic, host }: Rig, some: Uint8Array[]): number[] {
  const n = core.u32(nic.address + NicLayout.rxQueues);
  const counts = () => Array.from({ length: n }, (_, i) => core.counter(nic.rxQueue(i) + RxQueue.packets));
  return some.map((frame) => {
    const before = counts();
    nic.receive([frame]);
    host.drain();
    host.switches[0]?.ports.forEach(({ of }) => {
      if ("take" in of) frames.taken(of);
    });
    return counts().findIndex((count, i) => count > (before[i] as number));
  });
}
const queueOf = (r: Rig, frame: Uint8Array) => queuesOf(r, [frame])[0];

const plain = (size = 60, to = ME) => frames.frame(to, WIRE, size, 1);
const flow4 = (from: string, fromPort: number, to: string, toPort: number) =>
  frames.ether(
    ME,
    WIRE,
    frames.IPV4,
    frames.ipv4({ from, to, protocol: frames.TCP }, frames.ports(fromPort, toPort)),
  );
const flow6 = (from: string, fromPort: number, to: string, toPort: number) =>
  frames.ether(
    ME,
    WIRE,
    frames.IPV6,
    frames.ipv6({ from, to, next: frames.TCP }, frames.ports(fromPort, toPort)),
  );

describe("RSS", () => {
  test("`rssQueues` spreads flows, and `rssKey` decides how", async () => {
    const flows = Array.from({ length: 64 }, (_, i) => flow4("10.0.0.1", 1024 + i, "10.0.0.2", 80));
    const queues = async (options: NicOptions) => {
      const host = await Host.create();
      const nic = host.nic({ ring: 64, ...options });
      const port = host.port();
      host.vswitch({ connect: [nic, port] });
      return queuesOf({ host, nic, core: host.core } as Rig, flows);
    };
    const four = await queues({ rssQueues: 4 });
    expect(new Set(four)).toEqual(new Set([0, 1, 2, 3]));
    expect(await queues({ rssQueues: 4, rssKey: new Uint8Array(40).fill(0x6d) })).not.toEqual(four);
    expect(new Set(await queues({}))).toEqual(new Set([0]));
    await expect(queues({ rssQueues: 65 })).rejects.toThrow("rssQueues: 65, expected 1 to 64");
    await expect(queues({ rssKey: new Uint8Array(52) })).rejects.toThrow("rssKey: 52 bytes, expected 40");
  });

  // The hashes of Microsoft's "Verifying the RSS Hash Calculation".
  test.each([
    [flow4("66.9.149.187", 2794, "161.142.100.80", 1766), 0x51ccc178],
    [flow4("199.92.111.2", 14230, "65.69.140.83", 4739), 0xc626b0ea],
    [flow4("24.19.198.95", 12898, "12.22.207.184", 38024), 0x5c2b394a],
    [flow4("38.27.205.30", 48228, "209.142.163.6", 2217), 0xafc7327f],
    [flow4("153.39.163.191", 44251, "202.188.127.2", 1303), 0x10e828a2],
    [flow6("3ffe:2501:200:1fff:0:0:0:7", 2794, "3ffe:2501:200:3:0:0:0:1", 1766), 0x40207d3d],
  ])("the low seven bits of the hash of flow %# name the entry of the table", async (frame, hash) => {
    const r = await rig({ queues: 3 });
    spread(r, 2, (i) => (i === hash % 128 ? 1 : 2));
    expect(queueOf(r, frame)).toBe(1);
    expect(queueOf(r, frames.tagged(frame, 7))).toBe(1);
  });

  test("1,024 flows spread evenly over four queues, and each keeps to its own", async () => {
    const r = await rig({ queues: 4 });
    spread(r, 4);
    const flows = Array.from({ length: 1024 }, (_, i) => flow4(`10.0.${i >> 4}.1`, 1024 + i, "10.9.9.9", 80));
    const first = queuesOf(r, flows);
    for (let q = 0; q < 4; q++) {
      const share = first.filter((one) => one === q).length;
      expect(share).toBeGreaterThan(205); // 256 but for a fifth
      expect(share).toBeLessThan(307);
    }
    expect(queuesOf(r, flows)).toEqual(first);
  });

  test("what isn't IP goes to queue 0", async () => {
    const r = await rig({ queues: 2 });
    spread(r, 2, () => 1);
    const cut = flow4("10.0.0.1", 1, "10.0.0.2", 2).subarray(0, 14 + 19);
    expect(queuesOf(r, [plain(), frames.ether(ME, WIRE, frames.ARP), cut])).toEqual([0, 0, 0]);
    expect(queueOf(r, flow4("10.0.0.1", 1, "10.0.0.2", 2))).toBe(1);
  });
});

describe("filters", () => {
  test("a MAC address goes to its queue, RSS or not, and with any tag", async () => {
    const r = await rig({ queues: 3 });
    spread(r, 2, () => 1);
    r.nic.steer(ME, 0, 2, 1);
    const frame = flow4("10.0.0.1", 1, "10.0.0.2", 2);
    expect(queuesOf(r, [frame, frames.tagged(frame, 5)])).toEqual([2, 2]);
    frame.set(frames.macBytes(OTHER));
    expect(queueOf(r, frame)).toBe(1);
  });

  test("most exact first: MAC and VLAN, then MAC, then VLAN", async () => {
    const r = await rig({ queues: 4 });
    r.nic.steer(ME, 5, 1, 1);
    r.nic.steer(ME, 0, 2, 1);
    r.nic.steer("00:00:00:00:00:00", 5, 3, 1);
    r.nic.steer("00:00:00:00:00:00", 6, 3, 1);
    const [mine, others] = [plain(), plain(60, OTHER)];
    expect(queueOf(r, frames.tagged(mine, 5))).toBe(1);
    expect(queueOf(r, frames.tagged(mine, 6))).toBe(2);
    expect(queueOf(r, mine)).toBe(2);
    expect(queueOf(r, frames.tagged(others, 5))).toBe(3);
    expect(queueOf(r, frames.tagged(others, 7))).toBe(0);
    expect(queueOf(r, others)).toBe(0);
  });

  test("a filter for a VLAN takes no untagged and no priority-tagged frame, and any priority", async () => {
    const r = await rig({ queues: 2 });
    r.nic.steer(ME, 5, 1, 1);
    const frame = plain();
    expect(queuesOf(r, [frame, frames.tagged(frame, 0), frames.tagged(frame, 0xe005)])).toEqual([0, 0, 1]);
    const service = frames.tagged(frame, 5);
    service.set([0x88, 0xa8], 12); // 802.1ad
    expect(queueOf(r, service)).toBe(1);
    // Ends behind 0x8100: there is no VLAN to read.
    expect(queueOf(r, service.subarray(0, 14))).toBe(0);
  });

  test("a filter that is removed steers no more, and the others stay", async () => {
    const r = await rig({ queues: 3 });
    r.nic.steer(ME, 0, 1, 1);
    r.nic.steer(ME, 5, 2, 1);
    r.nic.unsteer(ME);
    expect(queuesOf(r, [plain(), frames.tagged(plain(), 5)])).toEqual([0, 2]);
    r.nic.unsteer(ME, 5);
    r.nic.unsteer(ME, 5); // not there any more
    expect(queueOf(r, frames.tagged(plain(), 5))).toBe(0);
  });

  test("a filter that is set again steers to the new queue", async () => {
    const r = await rig({ queues: 3 });
    r.nic.steer(ME, 0, 1, 1);
    r.nic.steer(ME, 0, 2, 1);
    expect(queueOf(r, plain())).toBe(2);
  });

  test("the switch sends a steered frame to the port that the filter names", async () => {
    const host = await Host.create();
    const nic = host.nic();
    const [a, b] = [host.port(), host.port()];
    const sw = host.vswitch({ connect: [nic, a, b] });
    nic.steer(ME, 0, 0, sw.indexOf(b));
    nic.receive([plain()]);
    host.drain();
    expect(frames.taken(a)).toEqual([]);
    expect(frames.taken(b)).toEqual([plain()]);
  });

  test("a card whose filters are full says so and keeps those it has", async () => {
    const r = await rig({ queues: 2 });
    const mac = (i: number) =>
      `02:00:00:${[i >> 16, i >> 8, i].map((n) => (n & 255).toString(16).padStart(2, "0")).join(":")}`;
    let n = 0;
    const fill = () => {
      for (; n < 100_000; n++) r.nic.steer(mac(n), 0, 1, 1);
    };
    expect(fill).toThrow(/no place left/);
    expect(queueOf(r, plain(60, mac(n)))).toBe(0);
    const all = Array.from({ length: n }, (_, i) => plain(60, mac(i)));
    expect(queuesOf(r, all).every((queue) => queue === 1)).toBe(true);
  });
});

describe("queues", () => {
  const guests = (host: Host, n: number) =>
    Array.from({ length: n }, () => host.guest({ ring: 16, attach: "iovtee" }));

  test("one guest more than the card has queues for is refused", async () => {
    const host = await Host.create();
    const nic = host.nic({ ring: 16, queues: 3 }); // one for what no filter names
    expect(() => host.vswitch({ connect: [nic, ...guests(host, 3)] })).toThrow(
      new RangeError('nic0: 3 receive queues already, expected "queues" to be larger'),
    );
  });

  test("who is refused at the last queue takes nothing from the others", async () => {
    const host = await Host.create();
    const nic = host.nic({ ring: 16, queues: 2 });
    const [mapped, late] = guests(host, 2) as [Guest, Guest];
    const sw = host.vswitch({ connect: [nic, mapped] });
    expect(() => sw.connect(late)).toThrow(/2 receive queues already/);
    for (let i = 0; i < 2; i++) {
      expect(() => sw.map(nic, late)).toThrow(/2 receive queues already/);
      nic.receive([plain(60, mapped.mac)]);
      host.drain();
      expect(nic.transmit()).toBe(1);
    }
    expect(host.stats().guests).toMatchObject([{ received: 2 }, { received: 0 }]);
  });

  test.each([0, -1, 1025, 1.5, Number.NaN])("%d queues are refused", async (queues) => {
    const host = await Host.create();
    expect(() => host.nic({ queues })).toThrow(new RangeError(`queues: ${queues}, expected 1 to 1024`));
  });
});

describe("drops", () => {
  test("no buffer: what is beyond the ring is counted, and what was posted arrives", async () => {
    const r = await rig({ ring: 16 });
    expect(r.nic.receive(Array(20).fill(plain()))).toBe(16);
    expect(r.link()).toMatchObject({ rxPackets: 16, rxBytes: 960, drops: { rxNoBuffer: 4 } });
    expect(r.core.counter(r.nic.rxQueue(0) + RxQueue.noBuffer)).toBe(4);
    r.host.drain();
    expect(frames.taken(r.port)).toHaveLength(16);
    expect(r.nic.receive([plain()])).toBe(1);
    expect(r.link().drops).toEqual({ rxNoBuffer: 4 });
  });

  test("a frame that needs more buffers than there are takes none of them", async () => {
    const r = await rig({ ring: 4 });
    const big = plain(9000); // five buffers of 2048 bytes
    expect(r.nic.receive([big, plain(2048), plain(2048), plain(4097), plain(2049)])).toBe(3);
    expect(r.link().drops).toEqual({ rxNoBuffer: 2 });
    r.host.drain();
    expect(frames.taken(r.port)).toEqual([plain(2048), plain(2048), plain(2049)]);
  });

  test("oversize: 9022 bytes pass, one more doesn't", async () => {
    const r = await rig();
    const longest = frames.numbered(plain(9022), 7);
    expect(r.nic.receive([longest, plain(9023), plain(60_000)])).toBe(1);
    expect(r.link()).toMatchObject({ rxPackets: 1, rxBytes: 9022, drops: { rxOversize: 2 } });
    r.host.drain();
    expect(frames.taken(r.port)).toEqual([longest]);
  });

  test("runt: 14 bytes pass, one less doesn't", async () => {
    const r = await rig();
    const shortest = plain(14);
    expect(r.nic.receive([shortest, shortest.subarray(0, 13), new Uint8Array(0)])).toBe(1);
    expect(r.link()).toMatchObject({ rxPackets: 1, rxBytes: 14, drops: { rxRunt: 2 } });
    r.host.drain();
    expect(frames.taken(r.port)).toEqual([shortest]);
  });

  test("a stopped queue takes nothing until it is started again", async () => {
    const r = await rig({ queues: 2 });
    const q = r.nic.rxQueue(1);
    r.nic.steer(ME, 0, 1, 1);
    expect(queueOf(r, plain())).toBe(1);
    r.core.setU32(q + RxQueue.enabled, 0);
    r.core.exports.flushNic(r.nic.address);
    expect(r.core.u32(q + RxQueue.running)).toBe(0);
    expect(r.nic.receive([plain(), plain(), plain(60, OTHER)])).toBe(1);
    expect(r.link().drops).toEqual({ rxStopped: 2 });
    r.core.setU32(q + RxQueue.enabled, 1);
    expect(queueOf(r, plain())).toBe(1);
    expect(r.link().drops).toEqual({ rxStopped: 2 });
  });

  test("a full transmit ring: the switch counts what it couldn't queue, and loses no buffer", async () => {
    const r = await rig({ ring: 16 }); // its transmit ring has 32
    r.port.push(Array.from({ length: 40 }, (_, i) => frames.numbered(plain(), i)));
    r.host.drain();
    expect(r.host.stats().ports[0]).toMatchObject({ txPackets: 32, drops: { full: 8 } });
    expect(frames.sent(r.nic).map(frames.numberOf)).toEqual(Array.from({ length: 32 }, (_, i) => i));
    r.port.push([plain()]);
    r.host.drain();
    expect(frames.sent(r.nic)).toEqual([plain()]);
    expect(frames.astray(r.host)).toBe(0);
  });
});

test("the link's counters are exact in packets and bytes, both ways", async () => {
  const r = await rig();
  const sizes = [14, 15, 60, 61, 257, 1514, 2048];
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  r.nic.receive(sizes.map((size) => plain(size)));
  r.host.drain();
  expect(frames.taken(r.port)).toEqual(sizes.map((size) => plain(size)));
  r.port.push(sizes.map((size) => plain(size, OTHER)));
  r.host.drain();
  expect(r.link()).toMatchObject({ rxPackets: 7, rxBytes: bytes, txPackets: 0, txBytes: 0 }); // not sent yet
  expect(frames.sent(r.nic)).toEqual(sizes.map((size) => plain(size, OTHER)));
  const buffers = 64 - 7; // the ring is refilled by more at a time
  expect(r.link()).toEqual({
    offloaded: 0,
    rxPackets: 7,
    rxBytes: bytes,
    txPackets: 7,
    txBytes: bytes,
    buffers,
    interrupts: 0,
    polls: 4, // each of the two `drain` ends with a turn that finds nothing
    drops: {},
  });
});

test("a frame over several buffers is one packet", async () => {
  const host = await Host.create();
  const [one, two] = [host.nic(), host.nic()];
  host.vswitch({ connect: [one, two] });
  const big = frames.numbered(plain(9000), 3);
  one.receive([big]);
  host.drain();
  expect(frames.sent(two)).toEqual([big]);
  expect(host.stats().nics).toMatchObject([
    { rxPackets: 1, rxBytes: 9000 },
    { txPackets: 1, txBytes: 9000 },
  ]);
});

describe("rings", () => {
  test.each([1, 5, 16])("received in bursts of %i, ten rings of frames keep their order", async (burst) => {
    const r = await rig({ ring: 16 });
    const got: number[] = [];
    for (let n = 0; n < 160; n += burst) {
      r.nic.receive(Array.from({ length: burst }, (_, i) => frames.numbered(plain(), n + i)));
      r.host.drain();
      got.push(...frames.taken(r.port).map(frames.numberOf));
    }
    expect(got).toEqual(Array.from({ length: Math.ceil(160 / burst) * burst }, (_, i) => i));
    expect(frames.astray(r.host)).toBe(0);
  });

  test.each([
    [32, 1],
    [32, 7],
    [32, 32],
    [16, 7],
    [16, 32],
    [8, 1],
    [8, 16],
    [1, 2],
  ])("a ring of %i, sent in bursts of %i: ten rings of frames keep their order", async (ring, burst) => {
    // The transmit ring has twice as many. Whatever was sent has left room for the next burst.
    const r = await rig({ ring });
    const got: number[] = [];
    for (let n = 0; n < 20 * ring; n += burst) {
      r.port.push(Array.from({ length: burst }, (_, i) => frames.numbered(plain(), n + i)));
      r.host.drain();
      got.push(...frames.sent(r.nic).map(frames.numberOf));
    }
    expect(got).toEqual(Array.from({ length: Math.ceil((20 * ring) / burst) * burst }, (_, i) => i));
    expect(r.host.stats().ports[0]!.drops).toEqual({});
    expect(frames.astray(r.host)).toBe(0);
  });

  test("a frame of five buffers finds room in a transmit ring of which all was sent", async () => {
    const host = await Host.create();
    const [one, two] = [host.nic(), host.nic({ ring: 4 })]; // its transmit ring has 8
    host.vswitch({ connect: [one, two] });
    for (let i = 0; i < 20; i++) {
      const big = frames.numbered(plain(9000), i);
      one.receive([big]);
      host.drain();
      expect(frames.sent(two).map((got) => Buffer.compare(got, big))).toEqual([0]);
    }
    expect(frames.astray(host)).toBe(0);
  });

  test("frames of one to five buffers wrap around the ring whole", async () => {
    const r = await rig({ ring: 16 });
    for (let i = 0; i < 100; i++) {
      const frame = frames.numbered(plain(60 + ((i * 1999) % 8962)), i);
      expect(r.nic.receive([frame])).toBe(1);
      r.host.drain();
      expect(frames.taken(r.port).map((one) => Buffer.compare(one, frame))).toEqual([0]);
    }
    expect(frames.astray(r.host)).toBe(0);
  });

  test("a sent buffer stays the card's until the card has sent it", async () => {
    const r = await rig({ ring: 16 });
    r.port.push(Array.from({ length: 32 }, (_, i) => frames.numbered(plain(), i)));
    r.host.drain();
    const views = r.nic.toTransmit();
    r.nic.receive(Array(16).fill(plain())); // would take free buffers
    r.host.drain();
    expect(views.map(frames.numberOf)).toEqual(Array.from({ length: 32 }, (_, i) => i));
    expect(r.link().txPackets).toBe(0);
    expect(r.nic.transmit()).toBe(32);
    expect(r.nic.transmit()).toBe(0);
    expect(r.link().txPackets).toBe(32);
  });
});
