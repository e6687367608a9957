/** vDPDK (vMux): calls, rings, zero-copy and copied, several guests, at a switch. Facts: vmuxIO's sources. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  VdpdkCall,
  VdpdkControl,
  VdpdkDriver,
  VdpdkFlag,
  VdpdkQueue,
  VdpdkStatus,
} from "../assembly/layout.ts";
import { type Guest, type GuestOptions, Host, type NicOptions } from "../src/index.ts";
import { FrameGenerator, type FrameSize } from "../src/ports/generator.ts";
import { astray, BROADCAST, ether, IPV4, numbered, numberOf, sent, WIRE } from "./frames.ts";
import { misplaced } from "./harness/accountant.ts";
import { CLEAN, pollSwitch } from "./harness/host.ts";
import { RawGuest } from "./harness/vdpdk.ts";

const MODES = [
  { zeroCopyRx: true, zeroCopyTx: true },
  { zeroCopyRx: true, zeroCopyTx: false },
  { zeroCopyRx: false, zeroCopyTx: true },
  { zeroCopyRx: false, zeroCopyTx: false },
] as const;

async function rig(options: GuestOptions = {}, guests = 1, card: NicOptions = {}) {
  const host = await Host.create({ memory: 256 * 2 ** 20 });
  const nic = host.nic({ ring: 64, queues: guests + 1, ...card });
  const made = Array.from({ length: guests }, () => host.guest({ ring: 128, attach: "vdpdk", ...options }));
  const vmux = host.vmux({ nic, guests: made });
  return { host, nic, vmux, guest: made[0] as Guest, guests: made };
}

interface Driven {
  host: Host;
  nic: ReturnType<Host["nic"]>;
  guests: readonly Guest[];
}

/** Frames of `size` through the host, `cycles` rings of `burst`; what the checker counted. */
function drive(r: Driven, size: FrameSize, cycles: number, each?: (i: number) => void, burst = 64) {
  const { host, nic, guests } = r;
  const to = guests.map((guest) => guest.mac);
  const generator = new FrameGenerator(host.core, { size, to, from: WIRE, flows: 8 });
  const { exports } = host.core;
  // In the last cycles what had to wait for the card is sent.
  for (let i = 0; i < cycles + 10; i++) {
    exports.generate(generator.address, nic.address, i < cycles ? burst : 0);
    host.drain();
    exports.check(generator.address, nic.address, exports.toTransmit(nic.address));
    if (i < cycles) each?.(i);
  }
  return generator.check();
}

const portOf = (r: { host: Host }, name: string) => r.host.stats().ports.find((port) => port.name === name);
const frame = (to: string, n = 0) => numbered(ether(to, WIRE, IPV4, new Uint8Array(50)), n);

describe.each(MODES)("PVP, $zeroCopyRx/$zeroCopyTx", (vdpdk) => {
  const copies = Number(!vdpdk.zeroCopyRx) + Number(!vdpdk.zeroCopyTx);

  test.each([64, 1514, "imix"] as const)(
    "frames of %s come back, copied as often as was asked for",
    async (size) => {
      const r = await rig({ vdpdk });
      expect(drive(r, size, 50)).toMatchObject({ sent: 3200, received: 3200, ...CLEAN });
      expect(portOf(r, "guest0")).toMatchObject({
        copies: 3200 * copies,
        notifications: 0,
        emulated: 0,
        drops: {},
      });
      expect(astray(r.host)).toBe(0);
    },
  );

  test.each([512, 64])("frames over several buffers of %d bytes", async (bufferSize) => {
    const r = await rig({ vdpdk, bufferSize });
    expect(drive(r, "imix", 50, undefined, 4)).toMatchObject({ sent: 200, received: 200, ...CLEAN });
    expect(astray(r.host)).toBe(0);
  });

  test("the longest frames", async () => {
    const r = await rig({ vdpdk });
    expect(drive(r, 9022, 50, undefined, 8)).toMatchObject({ sent: 400, received: 400, ...CLEAN });
    expect(astray(r.host)).toBe(0);
  });

  test("rings of 8 descriptors", async () => {
    const r = await rig({ vdpdk, ring: 8 });
    expect(drive(r, 64, 200, undefined, 6)).toMatchObject({ sent: 1200, received: 1200, ...CLEAN });
    expect(astray(r.host)).toBe(0);
  });

  test("more than fits is dropped, with its reason, and nothing else", async () => {
    const r = await rig({ vdpdk }, 1, { ring: 16 });
    const { received, lost, duplicated, reordered, corrupt } = drive(r, 64, 20, undefined, 256);
    const { nics, guests } = r.host.stats();
    const drops = [nics[0], guests[0], ...r.host.stats().ports].flatMap((part) =>
      Object.values(part?.drops ?? {}),
    );
    expect({ duplicated, reordered, corrupt }).toEqual({ duplicated: 0, reordered: 0, corrupt: 0 });
    expect(lost).toBeGreaterThan(0);
    expect(received + drops.reduce((a, b) => a + b, 0)).toBe(20 * 256);
    expect(astray(r.host)).toBe(0);
  });

  test("a queue is stopped and started under load: what arrives meanwhile is dropped and counted", async () => {
    const r = await rig({ vdpdk });
    const { ethdev } = r.guest;
    let stops = 0;
    const check = drive(r, 64, 300, (i) => {
      if (i % 3 === 1) stops += Number(ethdev?.stopQueue("rx")) + Number(ethdev?.stopQueue("tx"));
      if (i % 3 === 2) for (const which of ["rx", "tx"] as const) ethdev?.startQueue(which);
    });
    expect(stops).toBe(200);
    expect(check).toMatchObject({ duplicated: 0, reordered: 0, corrupt: 0 });
    const drops = portOf(r, "guest0")?.drops.down ?? 0;
    expect(check.lost).toBe(drops + (r.host.stats().nics[0]?.drops.rxStopped ?? 0));
    expect(check.lost).toBe(100 * 64);
    expect(astray(r.host)).toBe(0);
  });

  test("a guest stops and starts again under load", async () => {
    const r = await rig({ vdpdk });
    const check = drive(r, 64, 300, (i) => {
      if (i % 10 === 0) r.vmux.stop(r.guest);
      if (i % 10 === 0) r.vmux.start(r.guest);
    });
    expect(check).toMatchObject({ sent: 19_200, received: 19_200, ...CLEAN });
    expect(astray(r.host)).toBe(0);
  });

  test("a guest that is reset while the card has frames of it", async () => {
    const r = await rig({ vdpdk });
    for (let i = 0; i < 50; i++) {
      r.nic.receive(Array.from({ length: 40 }, (_, n) => frame(r.guest.mac, n)));
      r.host.drain();
      r.vmux.stop(r.guest);
      r.vmux.start(r.guest);
      // What comes now is written over what the guest has sent, but for what the card has still to send.
      r.nic.receive(Array.from({ length: 40 }, () => frame(r.guest.mac, 99)));
      expect(sent(r.nic).map(numberOf)).toEqual(Array.from({ length: 40 }, (_, n) => n));
      r.host.drain();
      expect(sent(r.nic)).toHaveLength(40);
    }
    expect(drive(r, 64, 50)).toMatchObject({ sent: 3200, received: 3200, ...CLEAN });
    expect(astray(r.host)).toBe(0);
  });
});

test("after a reset no byte of the guest's memory is written", async () => {
  const r = await rig();
  drive(r, 64, 4);
  r.vmux.stop(r.guest);
  const region = r.host.core.bytes.subarray(r.guest.region, r.guest.region + r.guest.regionSize);
  region.fill(0xa5);
  for (let i = 0; i < 20; i++) {
    r.nic.receive(Array.from({ length: 32 }, () => frame(r.guest.mac)));
    r.host.poll();
  }
  expect(region.every((byte) => byte === 0xa5)).toBe(true);
  expect(r.host.stats().nics[0]?.drops.rxStopped).toBe(640);
});

describe("several guests", () => {
  async function mixed() {
    const host = await Host.create({ memory: 128 * 2 ** 20 });
    const nic = host.nic({ ring: 64, queues: 4 });
    const guests = MODES.map((vdpdk) => host.guest({ attach: "vdpdk", ring: 64, vdpdk }));
    const vmux = host.vmux({ nic, guests });
    return { host, nic, guests, vmux };
  }

  test("each gets its own frames, whatever is copied", async () => {
    const r = await mixed();
    expect(drive(r, "imix", 200)).toMatchObject({ sent: 12_800, received: 12_800, ...CLEAN });
    for (const { received } of r.host.stats().guests) expect(received).toBe(3200);
    expect(r.host.stats().ports.map(({ copies }) => copies)).toEqual([0, 0, 3200, 3200, 6400]);
    expect(astray(r.host)).toBe(0);
  });

  test("a frame to a group reaches each; one that is nobody's is counted", async () => {
    const r = await mixed();
    r.nic.receive([frame(BROADCAST, 1), frame("02:00:00:00:00:77", 2), frame("33:33:00:00:00:01", 3)]);
    r.host.drain();
    expect(sent(r.nic).map(numberOf).sort()).toEqual([1, 1, 1, 1, 3, 3, 3, 3]);
    expect(portOf(r, "vmux0")?.drops).toEqual({ unwanted: 1 });
    expect(astray(r.host)).toBe(0);
  });

  test("one that is stopped takes nothing from the others", async () => {
    const r = await mixed();
    for (const guest of r.guests.slice(1)) r.vmux.stop(guest);
    drive(r, 64, 50);
    expect(r.host.stats().guests.map(({ received }) => received)).toEqual([800, 0, 0, 0]);
    expect(astray(r.host)).toBe(0);
  });

  test("errors that name what is wrong", async () => {
    const r = await mixed();
    const { host, nic, guests } = r;
    const one = guests[0] as Guest;
    expect(() => host.vmux({ nic, guests: [] })).toThrow(
      "nic0: connected to vmux0 already, expected to none",
    );
    const other = host.nic();
    expect(() => host.vmux({ nic: other, guests: [one] })).toThrow("guest0: connected to vmux0 already");
    expect(() => host.vswitch({ connect: [nic] })).toThrow("nic0: connected to vmux0 already");
    expect(() => host.vswitch({ connect: [other, one] })).toThrow("connected to vmux0 already");
    const plain = host.guest({ attach: "vhost" });
    expect(() => host.vmux({ nic: other, guests: [plain] })).toThrow(
      'guest4: attached by vhost, expected "vdpdk"',
    );
    const twins = [0, 1].map(() => host.guest({ attach: "vdpdk", mac: "02:00:00:00:00:55" }));
    expect(() => host.vmux({ nic: other, guests: twins })).toThrow("mac: 02:00:00:00:00:55 of guest6");
    expect(() => host.guest({ attach: "vdpdk", ring: 4 })).toThrow("ring: 4, expected 8 to 1024");
    const bad = ["jumbo"] as unknown as ["tso"];
    expect(() => host.guest({ attach: "vdpdk", vdpdk: { offloads: bad } })).toThrow(
      'offloads: "jumbo", expected',
    );
  });
});

test.each([64, 1514, "imix"] as const)("at a switch, frames of %s are copied in and out", async (size) => {
  const host = await Host.create({ memory: 64 * 2 ** 20 });
  const nic = host.nic({ ring: 64 });
  const guests = (["vdpdk", "vhost", "vdpdk", "iovtee"] as const).map((attach) =>
    host.guest({ attach, ring: 64 }),
  );
  host.vswitch({ connect: [nic, ...guests] });
  const r = { host, nic, guests };
  expect(drive(r, size, 100)).toMatchObject({ sent: 6400, received: 6400, ...CLEAN });
  expect(host.stats().ports.map(({ copies }) => copies)).toEqual([6400, 1600, 1600, 1600, 0]);
  expect(astray(host)).toBe(0);
  nic.receive([frame(BROADCAST, 9)]);
  host.drain();
  // Each guest swaps the addresses of its copy: they are sent on to the station that it came from.
  expect(sent(nic).map(numberOf)).toEqual([9, 9, 9, 9]);
});

test("a guest takes back what was sent, and nothing that it hasn't even shown", async () => {
  const host = await Host.create({ memory: 64 * 2 ** 20 });
  const nic = host.nic({ ring: 256 });
  const guest = host.guest({ attach: "vdpdk", ring: 64 });
  const sw = host.vswitch({ connect: [nic, guest], burst: 64 });
  const { core } = host;
  const { tx, txQueue } = guest.vdpdk!;
  // The five stay in the ring; the 64 find too little room, until these are taken back in the middle of the burst.
  for (const n of [5, 64, 5, 64]) {
    nic.receive(Array.from({ length: n }, (_, i) => frame(guest.mac, i)));
    pollSwitch(sw);
    core.exports.pollGuest(guest.address);
    expect(core.u32(tx + VdpdkDriver.done)).toBeLessThanOrEqual(core.u32(txQueue + VdpdkQueue.done));
    pollSwitch(sw);
    expect(sent(nic).map(numberOf)).toEqual(Array.from({ length: n }, (_, i) => i));
    expect(misplaced(host, nic, guest)).toEqual([]);
  }
});

describe("ethdev calls", () => {
  test("discovery tells what the card can do, and what the host does in its place", async () => {
    const r = await rig({}, 1, { offloads: ["ipv4Checksum", "vlan"] });
    expect(r.guest.ethdev?.info()).toEqual({
      mtu: 9000,
      rxQueues: 1,
      txQueues: 1,
      ring: { least: 8, most: 1024 },
      rxOffloads: ["ipv4Checksum", "udpChecksum", "tcpChecksum", "vlan", "rss", "multiSegment", "mark"],
      txOffloads: ["ipv4Checksum", "udpChecksum", "tcpChecksum", "tso", "vlan", "multiSegment"],
      native: {
        rx: ["ipv4Checksum", "vlan", "rss", "multiSegment", "mark"],
        tx: ["ipv4Checksum", "vlan", "multiSegment"],
      },
      rssTable: 128,
      segments: 64,
      flows: { most: 64, native: true },
    });
    expect(r.guest.ethdev?.mac).toBe(r.guest.mac);
  });

  test("stats are the device's own", async () => {
    const r = await rig();
    drive(r, 64, 10);
    expect(r.guest.ethdev?.stats()).toEqual({
      rxPackets: 640,
      rxBytes: 640 * 60,
      rxMissed: 0,
      txPackets: 640,
      txBytes: 640 * 60,
      emulated: 0,
    });
  });

  test("each wrong call ends with its status", async () => {
    const r = await rig();
    const device = r.guest.device as NonNullable<Guest["vdpdk"]>;
    const { call } = { call: device.call.bind(device) };
    expect(call(0)).toBe(VdpdkStatus.UNKNOWN_CALL);
    expect(call(99)).toBe(VdpdkStatus.UNKNOWN_CALL);
    expect(call(VdpdkCall.RX_START)).toBe(VdpdkStatus.BUSY);
    expect(call(VdpdkCall.RX_SETUP, { ring: 0n, size: 8 })).toBe(VdpdkStatus.BUSY);
    expect(call(VdpdkCall.RX_STOP, { queue: 1 })).toBe(VdpdkStatus.INVALID);
    expect(call(VdpdkCall.FLOW_CREATE)).toBe(VdpdkStatus.NOT_SUPPORTED);
    expect(call(VdpdkCall.FLOW_DESTROY)).toBe(VdpdkStatus.NO_ENTRY);
    expect(call(VdpdkCall.FLOW_QUERY)).toBe(VdpdkStatus.NO_ENTRY);
    expect(call(VdpdkCall.FLOW_FLUSH)).toBe(VdpdkStatus.OK);
    expect(r.guest.ethdev?.stopQueue("tx")).toBe(true);
    expect(call(VdpdkCall.TX_STOP)).toBe(VdpdkStatus.BUSY);
    const setUp = (args: object) => call(VdpdkCall.TX_SETUP, { ring: 4096n, size: 64, ...args });
    for (const size of [0, 4, 12, 2048, 0xffffffff]) expect(setUp({ size })).toBe(VdpdkStatus.INVALID);
    expect(setUp({ ring: 4112n })).toBe(VdpdkStatus.INVALID);
    const end = BigInt(r.guest.regionSize);
    for (const ring of [end, end - 2016n, 2n ** 64n - 32n]) expect(setUp({ ring })).toBe(VdpdkStatus.FAULT);
    expect(setUp({ ring: end - 2048n })).toBe(VdpdkStatus.OK);
    for (const offloads of [32, 128, 0xffffffff]) expect(setUp({ offloads })).toBe(VdpdkStatus.NOT_SUPPORTED);
    expect(call(VdpdkCall.TX_START)).toBe(VdpdkStatus.OK);
  });

  test("nonsense in the control page never traps, and never reaches another guest", async () => {
    const r = await rig({}, 2);
    const { core } = r.host;
    const device = r.guest.device as NonNullable<Guest["vdpdk"]>;
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 128, maxLength: 128 }),
        fc.integer({ min: 0, max: 16 }),
        (page, call) => {
          core.bytes.set(page, r.guest.region);
          core.setU32(r.guest.region + VdpdkControl.queue, page[0] === 0 ? 1 : 0);
          core.setU32(r.guest.region + VdpdkControl.call, call);
          const status = core.exports.callVdpdk(device.device);
          expect(VdpdkStatus[status]).toBeDefined();
          r.nic.receive([frame(r.guest.mac), frame((r.guests[1] as Guest).mac)]);
          r.host.drain();
          r.nic.transmit();
        },
      ),
      { numRuns: 2000, seed: 7 },
    );
    expect(r.host.stats().guests[1]).toMatchObject({ received: 2000, transmitted: 2000, drops: {} });
    expect(astray(r.host)).toBe(0);
  });
});

describe("rings", () => {
  test("descriptors keep address and cookie; AVAIL alone changes hands", async () => {
    const r = await rig({ memory: 2 ** 20 });
    const raw = new RawGuest(r.host, r.guest, 16);
    raw.post(10);
    r.host.drain();
    expect(raw.read(raw.rxRing, 0).flags).toBe(VdpdkFlag.AVAIL | VdpdkFlag.ATTACHED);
    r.nic.receive([frame(r.guest.mac, 1), frame(r.guest.mac, 2)]);
    r.host.drain();
    expect(raw.read(raw.rxRing, 1)).toMatchObject({
      addr: BigInt(raw.buffer(1)),
      len: 64,
      flags: 0,
      cookie: 1n,
    });
    expect(raw.read(raw.rxRing, 2).flags).toBe(VdpdkFlag.AVAIL | VdpdkFlag.ATTACHED);
    expect([raw.receive(), raw.receive()].map((got) => numberOf(got?.frame as Uint8Array))).toEqual([1, 2]);
    raw.send(frame(WIRE, 5));
    r.host.drain();
    expect(raw.read(raw.txRing, 0).flags).toBe(VdpdkFlag.AVAIL | VdpdkFlag.ATTACHED);
    expect(sent(r.nic).map(numberOf)).toEqual([5]);
    r.host.drain();
    expect(raw.read(raw.txRing, 0)).toMatchObject({
      addr: BigInt(raw.buffer(16)),
      len: 64,
      flags: 0,
      cookie: 0n,
    });
  });

  test.each(MODES)("against a model, step by step: %o", async (vdpdk) => {
    const r = await rig({ memory: 2 ** 20, vdpdk }, 1, { ring: 16 });
    const raw = new RawGuest(r.host, r.guest, 16);
    const step = fc.oneof(
      fc.record({ do: fc.constant("post" as const), n: fc.integer({ min: 1, max: 6 }) }),
      fc.record({ do: fc.constant("wire" as const), n: fc.integer({ min: 1, max: 6 }) }),
      fc.record({ do: fc.constant("send" as const), n: fc.integer({ min: 1, max: 6 }) }),
      fc.record({ do: fc.constant("transmit" as const), n: fc.constant(0) }),
      fc.record({ do: fc.constant("poll" as const), n: fc.constant(0) }),
    );
    let number = 0;
    let lost = 0;
    const onWay: number[] = [];
    const sending: number[] = [];
    fc.assert(
      fc.property(fc.array(step, { minLength: 20, maxLength: 60 }), (steps) => {
        for (const { do: what, n } of steps) {
          if (what === "post") raw.post(Math.min(n, raw.size - (raw.rxNext - raw.rxDone)));
          if (what === "poll") r.host.poll();
          if (what === "wire") {
            for (let i = 0; i < n; i++) {
              if (r.nic.receive([frame(r.guest.mac, number)])) onWay.push(number);
              number++;
            }
          }
          if (what === "send") {
            // Three segments are the most.
            for (let i = 0; i < n && raw.txNext - raw.txDone + 3 <= raw.size; i++) {
              raw.send(frame(WIRE, number), {}, i % 2 ? 30 : 2048);
              sending.push(number++);
            }
          }
          if (what === "transmit") {
            for (const got of sent(r.nic).map(numberOf)) expect(got).toBe(sending.shift());
          }
          raw.sent();
          for (let got = raw.receive(); got; got = raw.receive()) {
            // What the host drops for want of the guest's buffers, where it copies, is missing in between.
            let next = onWay.shift();
            for (; next !== undefined && next !== numberOf(got.frame); next = onWay.shift()) lost++;
            expect(next).toBe(numberOf(got.frame));
          }
        }
      }),
      { numRuns: 200, seed: 3 },
    );
    r.host.drain();
    for (const got of sent(r.nic).map(numberOf)) expect(got).toBe(sending.shift());
    r.host.drain();
    for (const got of sent(r.nic).map(numberOf)) expect(got).toBe(sending.shift());
    r.host.drain();
    for (let got = raw.receive(); got; got = raw.receive()) {
      while (onWay.length > 0 && onWay[0] !== numberOf(got.frame)) {
        onWay.shift();
        lost++;
      }
      onWay.shift();
    }
    raw.sent();
    expect(sending).toEqual([]);
    expect(raw.txDone).toBe(raw.txNext);
    expect(lost + onWay.length).toBe(portOf(r, "guest0")?.drops.full ?? 0);
    expect(astray(r.host)).toBe(0);
  });
});
