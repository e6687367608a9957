import { describe, expect, test } from "vitest";
import { Driver, Guest as GuestLayout, Packet, Virtqueue } from "../assembly/layout.ts";
import { type GuestOptions, Host, type HostStats } from "../src/host.ts";
import { FrameGenerator } from "../src/ports/generator.ts";
import { astray } from "./frames.ts";
import { CLEAN, pollSwitch, type Rig, rig, WIRE } from "./harness/host.ts";

const FORMATS: [string, GuestOptions][] = [
  ["split", {}],
  ["packed", { packed: true }],
  ["split, event index, indirect", { eventIdx: true, indirect: true }],
  ["packed, interrupts", { packed: true, eventIdx: true, interrupts: true }],
];

/** Frames of `size` through the host, `cycles` rings of them; returns what the checker and the host counted. */
function drive(r: Rig, size: number | "imix", cycles: number, each?: (i: number) => void) {
  const { host, nic, guests } = r;
  const generator = new FrameGenerator(host.core, {
    size,
    to: guests.map((g) => g.mac),
    from: WIRE,
    flows: 8,
  });
  for (let i = 0; i < cycles; i++) {
    host.core.exports.generate(generator.address, nic.address, 64);
    host.drain();
    host.core.exports.check(generator.address, nic.address, host.core.exports.toTransmit(nic.address));
    each?.(i);
  }
  return { check: generator.check(), stats: host.stats() };
}

describe.each(FORMATS)("PVP over a %s virtqueue", (_name, options) => {
  test.each([64, 1514, "imix"] as const)("vhost copies each frame of %s twice", async (size) => {
    const r = await rig({ ...options, attach: "vhost" });
    const { check, stats } = drive(r, size, 50);
    expect(check).toMatchObject({ sent: 3200, received: 3200, ...CLEAN });
    expect(stats.ports.reduce((n, port) => n + port.copies, 0)).toBe(6400);
    expect(astray(r.host)).toBe(0);
  });

  test.each([64, 1514, "imix"] as const)(
    "R4: iovtee copies a frame of %s once, on transmit",
    async (size) => {
      const r = await rig({ ...options, attach: "iovtee" });
      const { check, stats } = drive(r, size, 50);
      expect(check).toMatchObject({ sent: 3200, received: 3200, ...CLEAN });
      expect(stats.ports.map((port) => port.copies)).toEqual([3200, 0]);
      expect(stats.mappings[0]).toMatchObject({ hits: 3200, misses: 0 });
      expect(astray(r.host)).toBe(0);
    },
  );

  test.each(["vhost", "iovtee"] as const)("R10: %s merges buffers of 512 bytes", async (attach) => {
    const r = await rig({ ...options, attach, bufferSize: 512 });
    const { check } = drive(r, 1514, 20);
    expect(check.received).toBeGreaterThan(0);
    expect(check).toMatchObject({ duplicated: 0, reordered: 0, corrupt: 0 });
  });
});

test("R1: mapping and unmapping under load loses nothing", async () => {
  const r = await rig({ attach: "iovtee" });
  const { check, stats } = drive(r, 64, 10_000, (i) =>
    i % 2 ? r.sw.map(r.nic, r.guest) : r.sw.unmap(r.guest),
  );
  expect(check).toMatchObject({ sent: 640_000, received: 640_000, ...CLEAN });
  expect(stats.mappings[0]?.hits).toBeGreaterThan(0);
  expect(stats.mappings[0]?.hits).toBeLessThan(640_000);
  expect(astray(r.host)).toBe(0);
});

test("R7: after unmap and reset a poisoned region stays poisoned under load", async () => {
  const r = await rig({ attach: "iovtee" });
  drive(r, 64, 4);
  r.sw.stop(r.guest);
  const { core } = r.host;
  const region = core.bytes.subarray(r.guest.region, r.guest.region + r.guest.regionSize);
  region.fill(0xa5);
  for (let i = 0; i < 20; i++) {
    r.nic.receive(Array.from({ length: 32 }, () => frame(r.guest.mac)));
    pollSwitch(r.sw);
  }
  expect(region.every((byte) => byte === 0xa5)).toBe(true);
  expect(r.host.stats().ports[1]?.drops.down).toBeGreaterThan(0);
});

test.each(["vhost", "iovtee"] as const)(
  "R7: a guest stops and starts again under load, over %s",
  async (attach) => {
    const r = await rig({ attach });
    drive(r, 64, 4);
    r.sw.stop(r.guest);
    r.sw.stop(r.guest);
    r.nic.receive(Array.from({ length: 64 }, () => frame(r.guest.mac)));
    r.host.drain();
    expect(r.host.stats().ports[1]?.drops).toEqual({ down: 64 });
    r.sw.start(r.guest);
    const { check, stats } = drive(r, 64, 1000, (i) => {
      if (i % 10 === 0) r.sw.stop(r.guest);
      if (i % 10 === 0) r.sw.start(r.guest);
    });
    expect(check).toMatchObject({ sent: 64_000, received: 64_000, ...CLEAN });
    if (attach === "iovtee") expect(stats.mappings[0]?.hits).toBeGreaterThan(60_000);
    expect(astray(r.host)).toBe(0);
  },
);

test("a guest that is stopped doesn't run: what is in its queues is gone", async () => {
  const { host, nic, guest, sw } = await rig({});
  nic.receive([frame(guest.mac), frame(guest.mac)]);
  pollSwitch(sw);
  sw.stop(guest);
  host.drain();
  expect(host.stats().guests[0]).toMatchObject({ received: 0, transmitted: 0 });
  sw.start(guest);
  nic.receive([frame(guest.mac)]);
  host.drain();
  expect(host.stats().guests[0]).toMatchObject({ received: 1, transmitted: 1 });
  expect(nic.transmit()).toBe(1);
});

test("a card that ran dry because the pool was empty receives again when buffers come back", async () => {
  const host = await Host.create({ buffers: 65 });
  const nic = host.nic({ ring: 64 });
  const port = host.port();
  host.vswitch({ connect: [nic, port] });
  const station = "02:00:00:00:00:99";
  const hello = frame(WIRE);
  hello[11] = 0x99;
  hello[10] = 0;
  expect(port.push([hello])).toBe(1); // so that the switch learns where the station is
  host.drain();
  const burst = Array.from({ length: 64 }, () => frame(station));
  expect(nic.receive(burst)).toBe(64);
  host.drain();
  expect(nic.receive(burst)).toBe(1);
  host.drain(); // now all buffers wait at the port
  expect(nic.receive(burst)).toBe(0);
  host.drain();
  expect(port.take(() => {})).toBe(65);
  host.drain();
  expect(nic.receive(burst)).toBe(64);
});

test("R5: a frame for another that landed in a mapped buffer is wiped before the guest gets the buffer again", async () => {
  const r = await rig({ attach: "iovtee" }, 2);
  const [first, second] = r.guests;
  if (!first || !second) throw new Error("two guests");
  // The card is told to steer the second guest's frames to the first one's queue: a misprogrammed filter.
  r.nic.steer(second.mac, 0, 1, 1 + r.sw.indexOf(second) - 1);
  const secret = frame(second.mac, 0x77);
  r.nic.receive([secret]);
  r.host.drain();
  const region = r.host.core.bytes.subarray(first.region, first.region + first.regionSize);
  expect(Buffer.from(region).includes(Buffer.alloc(8, 0x77))).toBe(false);
  expect(r.host.stats().mappings[0]).toMatchObject({ misses: 1, scrubbedBytes: 60 });
  let back = 0;
  r.nic.transmit((frames) => {
    back += frames.length;
  });
  expect(back).toBe(1);
});

test("R3: a guest that posts nothing gets nothing, and the card counts it", async () => {
  const r = await rig({ attach: "iovtee", onEmpty: "wait", ring: 16 });
  r.nic.receive(Array.from({ length: 64 }, () => frame(r.guest.mac)));
  expect(r.host.stats().nics[0]?.drops.rxNoBuffer).toBe(50);
});

test("R11: 64 guests have traffic of their own, and one that is stuck stalls nobody", async () => {
  const r = await rig({ attach: "iovtee", ring: 128, memory: 512 * 1024 }, 64);
  const { check } = drive(r, 64, 40);
  expect(check).toMatchObject({ received: 2560, ...CLEAN });
  const stuck = r.guests[5];
  if (!stuck) throw new Error("64 guests");
  r.host.core.setU32(stuck.rxVirtqueue + Virtqueue.broken, 8);
  const after = drive(r, 64, 40);
  expect(after.check.received).toBe(2560 - 40);
});

test("R12: guest to guest is one copy", async () => {
  const host = await Host.create();
  const nic = host.nic();
  const second = "02:00:00:00:00:02";
  const a = host.guest({ attach: "iovtee", nextHop: second });
  const b = host.guest({ attach: "vhost", mac: second, nextHop: WIRE });
  host.vswitch({ connect: [nic, a, b] });
  nic.receive([frame(a.mac)]);
  host.drain();
  expect(host.stats().ports.map((port) => port.copies)).toEqual([1, 0, 1]);
});

test("a broadcast reaches every port but its own", async () => {
  const r = await rig({ attach: "vhost", run: "sink" }, 8);
  r.nic.receive([frame("ff:ff:ff:ff:ff:ff")]);
  r.host.drain();
  expect(r.host.stats().guests.map((guest) => guest.received)).toEqual(Array(8).fill(1));
  expect(astray(r.host)).toBe(0);
});

test("1,000 guests of 256 KiB in one host", async () => {
  const host = await Host.create({ memory: 512 * 2 ** 20, buffers: 8192 });
  const nic = host.nic({ ring: 64, queues: 1001 });
  const guests = Array.from({ length: 1000 }, () => host.guest({ ring: 32, memory: 256 * 1024 }));
  host.vswitch({ connect: [nic, ...guests] });
  for (const guest of guests) {
    nic.receive([frame(guest.mac)]);
    host.drain();
    nic.transmit();
  }
  expect(host.stats().guests.every((guest) => guest.received === 1)).toBe(true);
});

test("a port for JavaScript: frames in and out without losing one", async () => {
  const host = await Host.create();
  const [a, b] = [host.port(), host.port()];
  host.vswitch({ connect: [a, b] });
  const sent = frame("02:00:00:00:00:99", 3);
  expect(a.push([sent, sent])).toBe(2);
  host.drain();
  const got: Uint8Array[] = [];
  expect(b.take((frames) => got.push(...frames.map((one) => one.slice())))).toBe(2);
  expect(got[0]).toEqual(sent);
  expect(astray(host)).toBe(0);
  expect(host.stats().pool.outstanding).toBe(0);
  expect(() => a.push([new Uint8Array(3000)])).toThrow(/3000 bytes, expected 14 to 2048/);
});

test("VLANs: an access port gets its own, untagged; others nothing", async () => {
  const host = await Host.create();
  const [trunk, five, six] = [host.port(), host.port(), host.port()];
  const sw = host.vswitch({ connect: [trunk, five, six], vlanAware: true });
  sw.vlan(trunk, 0, [5, 6]);
  sw.vlan(five, 5);
  sw.vlan(six, 6);
  const plain = frame("ff:ff:ff:ff:ff:ff", 9);
  const tagged = Uint8Array.from([...plain.subarray(0, 12), 0x81, 0, 0, 5, ...plain.subarray(12)]);
  trunk.push([tagged]);
  host.drain();
  const got: Uint8Array[] = [];
  five.take((frames) => got.push(...frames.map((one) => one.slice())));
  expect(got).toEqual([plain]);
  expect(six.take(() => {})).toBe(0);
  five.push([plain]);
  host.drain();
  const up: Uint8Array[] = [];
  trunk.take((frames) => up.push(...frames.map((one) => one.slice())));
  expect(up).toEqual([tagged]);
  expect(astray(host)).toBe(0);
});

test("the packet descriptor is 16 bytes", () => expect(Packet.SIZE).toBe(16));

/** An IPv4 frame of 60 bytes to `mac`, filled with `fill`. */
function frame(mac: string, fill = 1): Uint8Array {
  const made = new Uint8Array(60).fill(fill);
  made.set(mac.split(":").map((part) => Number.parseInt(part, 16)));
  made.set([2, 0, 0, 0, 0xff, 1, 8, 0], 6);
  return made;
}

test("a guest counts frames, not buffers", async () => {
  const r = await rig({ bufferSize: 628 });
  r.nic.receive([Uint8Array.from({ length: 1514 }, (_, i) => frame(r.guest.mac)[i] ?? 0)]);
  r.host.drain();
  expect(r.host.stats().guests[0]).toMatchObject({ received: 1, transmitted: 1 });
});

test("a guest that is connected later is served, and mapped", async () => {
  const host = await Host.create();
  const nic = host.nic();
  const sw = host.vswitch({ connect: [nic] });
  const guest = host.guest({ attach: "iovtee" });
  sw.connect(guest);
  nic.receive([frame(guest.mac)]);
  host.drain();
  expect(nic.transmit()).toBe(1);
  expect(host.stats().mappings[0]?.hits).toBe(1);
});

test("a switch that couldn't be made moves no frames, and leaves its guests to another", async () => {
  const host = await Host.create();
  const nic = host.nic({ queues: 2 });
  const guests = [host.guest(), host.guest(), host.guest()];
  expect(() => host.vswitch({ connect: [nic, ...guests] })).toThrow(/2 receive queues already/);
  const [first] = guests as [(typeof guests)[0]];
  host.vswitch({ connect: [nic, first] });
  nic.receive([frame(first.mac)]);
  host.drain();
  expect(host.stats().ports.map((port) => port.txPackets)).toEqual([1, 1]);
  expect(host.stats().mappings[0]?.hits).toBe(1);
});

test("guests are mapped to a card that is connected after them", async () => {
  const host = await Host.create();
  const guest = host.guest({ attach: "iovtee" });
  const sw = host.vswitch({ connect: [guest] });
  const nic = host.nic();
  sw.connect(nic);
  nic.receive([frame(guest.mac)]);
  host.drain();
  expect(host.stats().mappings[0]?.hits).toBe(1);
});

test.each([25, 65536, 70000, 1.5])("a bufferSize of %d is refused", async (bufferSize) => {
  const host = await Host.create();
  expect(() => host.guest({ bufferSize })).toThrow(`bufferSize: ${bufferSize}, expected 26 to 65535`);
});

test.each(["vhost", "iovtee"] as const)(
  "drain ends where a guest posts bad buffers only, over %s",
  async (attach) => {
    const host = await Host.create();
    const nic = host.nic();
    const guest = host.guest({ attach, ring: 16, onEmpty: "wait" });
    // What it posts from now on is 16 MiB beyond its memory.
    const driver = host.core.u32(guest.address + GuestLayout.rx);
    host.core.setU32(driver + Driver.base, guest.region - 2 ** 24);
    host.vswitch({ connect: [nic, guest] });
    for (let i = 0; i < 100; i++) {
      nic.receive([frame(guest.mac)]);
      expect(host.drain()).toBeLessThan(100);
    }
    expect(host.stats().guests[0]?.received).toBeLessThan(100);
    expect(host.stats().ports[1]?.drops["refused.outOfRegion"]).toBeGreaterThan(0);
  },
);

test("a buffer that comes back unused costs no frame behind it, whatever stands in it", async () => {
  const host = await Host.create();
  const nic = host.nic();
  const guest = host.guest({ ring: 16, attach: "vhost", run: "sink" });
  host.vswitch({ connect: [nic, guest] });
  const view = new DataView(host.core.memory.buffer, guest.region, guest.regionSize);
  const first = 16 * view.getUint16(16 * 16 + 4, true);
  view.setUint16(first + 12, 0, true); // the device's to read: refused
  view.setUint16(view.getUint32(first, true) + 10, 3, true); // num_buffers of a frame that it had before
  nic.receive([1, 2, 3].map((fill) => frame(guest.mac, fill)));
  host.drain();
  const { ports, guests } = host.stats();
  expect(ports[1]?.txPackets).toBeGreaterThan(1);
  expect(guests[0]?.received).toBe(ports[1]?.txPackets);
});

test("2.7.9: a bad buffer behind others that are in use breaks an in-order queue, for it can't be given back", async () => {
  const host = await Host.create();
  const nic = host.nic();
  const guest = host.guest({ ring: 16, attach: "vhost", inOrder: true, bufferSize: 628, run: "sink" });
  const view = new DataView(host.core.memory.buffer, guest.region, guest.regionSize);
  view.setUint16(16 * view.getUint16(16 * 16 + 4 + 2, true) + 12, 0, true); // the second that it posted
  host.vswitch({ connect: [nic, guest] });
  nic.receive([Uint8Array.from({ length: 800 }, (_, i) => frame(guest.mac)[i] ?? 0)]);
  host.drain();
  expect(host.core.u32(guest.rxVirtqueue + Virtqueue.broken)).toBeGreaterThan(0);
  expect(host.core.u16(host.core.u32(guest.rxVirtqueue + Virtqueue.device) + 2)).toBe(0); // nothing used
});

describe("stats() tells where the receive buffers are", () => {
  const buffers = ({ nics, guests, mappings }: HostStats) => ({
    card: nics[0]!.buffers,
    guest: guests[0]!.posted,
    ...(mappings[0] ? { mapped: mappings[0].buffers } : {}),
  });

  test("over vhost: the card has the host's, the guest's wait for copies", async () => {
    const { host, nic, guest } = await rig({ attach: "vhost" });
    expect(buffers(host.stats())).toEqual({ card: 64, guest: 128 });
    nic.receive(Array.from({ length: 10 }, () => frame(guest.mac)));
    expect(buffers(host.stats())).toEqual({ card: 54, guest: 128 });
    host.drain();
    expect(buffers(host.stats())).toEqual({ card: 64, guest: 128 });
  });

  test("over iovtee: the card has the guest's, in a queue of its own, until it is unmapped", async () => {
    const { host, nic, guest, sw } = await rig({ attach: "iovtee" });
    host.drain();
    expect(buffers(host.stats())).toEqual({ card: 64, mapped: 64, guest: 128 });
    nic.receive(Array.from({ length: 10 }, () => frame(guest.mac)));
    expect(buffers(host.stats())).toEqual({ card: 64, mapped: 54, guest: 128 });
    host.drain();
    expect(buffers(host.stats())).toEqual({ card: 64, mapped: 64, guest: 128 });
    sw.unmap(guest);
    expect(buffers(host.stats())).toEqual({ card: 64, mapped: 0, guest: 128 });
  });

  test("a guest with fewer buffers than its ring has entries posts those that aren't being sent", async () => {
    const { host, nic, guest, sw } = await rig({ attach: "vhost", memory: 128 * 1024 });
    const all = host.core.u32(guest.address + GuestLayout.bufferCount);
    expect(all).toBeLessThan(128);
    expect(host.stats().guests[0]!.posted).toBe(all);
    nic.receive(Array.from({ length: 10 }, () => frame(guest.mac)));
    host.core.exports.pollPort(sw.address, sw.ports[0]!.address);
    host.core.exports.pollGuest(guest.address);
    expect(host.stats().guests[0]!.posted).toBe(all - 10);
  });
});

test.each([0, 20])(
  "a run that was stopped ends, though the host is run again at once, after %d ms",
  async (ms) => {
    const host = await Host.create();
    const wait = (some: number) => new Promise((resolve) => setTimeout(resolve, some));
    let runs = 2;
    const first = host.run().then(() => --runs);
    await wait(ms);
    host.stop();
    const second = host.run().then(() => --runs);
    await wait(50);
    expect(runs).toBe(1);
    host.stop();
    await Promise.all([first, second]);
  },
);
