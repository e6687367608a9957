/** SR-IOV and passthrough: what the card's embedded switch does with a frame, its functions, and their guests. */
import { afterEach, describe, expect, test } from "vitest";
import { Driver, Fault, FunctionRing, Guest as GuestLayout, Lcore } from "../assembly/layout.ts";
import { Host, type HostOptions, LcoreError, pvp, type VfOptions } from "../src/index.ts";
import { FrameGenerator } from "../src/ports/generator.ts";
import { BROADCAST, ether, frame, tagged, taken, WIRE } from "./frames.ts";
import { FunctionDriver } from "./harness/function-driver.ts";
import { CLEAN } from "./harness/host.ts";

const HOST = "02:00:00:00:ee:01";
const GROUP = "01:00:5e:00:00:01";
const mac = (i: number) => `02:00:00:00:0a:0${i}`;

/** A card whose own queues a switch takes from, for a port of JavaScript; functions with drivers, numbered from 0. */
async function rig(vfs: VfOptions[], more: HostOptions = {}) {
  const host = await Host.create(more);
  const nic = host.nic({ ring: 64 });
  const port = host.port();
  host.vswitch({ connect: [nic, port] });
  const drivers = vfs.map(
    (options, i) => new FunctionDriver(host, nic.createVf({ mac: mac(i), ...options })),
  );
  /** Where frames came out since it was last called: numbers of functions, "wire", "host"; and the frames. */
  const out = () => {
    const frames: Record<string, Uint8Array[]> = {};
    const wire: Uint8Array[] = [];
    nic.transmit((some) => {
      for (const frame of some) wire.push(frame.slice());
    });
    host.drain();
    if (wire.length > 0) frames.wire = wire;
    drivers.forEach((driver, i) => {
      const got = driver.take();
      if (got.length > 0) frames[i] = got;
    });
    const hosts = taken(port);
    if (hosts.length > 0) frames.host = hosts;
    return frames;
  };
  const stats = (i: number) => host.stats().functions[i]!;
  return { host, nic, port, drivers, out, stats };
}
type Rig = Awaited<ReturnType<typeof rig>>;

/** A frame from the wire or a function: where it came out, and what it was there. */
function sent(r: Rig, from: "wire" | number, what: Uint8Array): Record<string, Uint8Array> {
  if (from === "wire") r.nic.receive([what]);
  else r.drivers[from]?.send([what]);
  return Object.fromEntries(Object.entries(r.out()).map(([where, frames]) => [where, frames[0]!]));
}

describe("the embedded switch", () => {
  /** VLAN 10: functions 0 and 1; 20: function 2; untagged: 3, which may tag with 10 itself; 4 is untagged. */
  const vfs: VfOptions[] = [{ vlan: 10 }, { vlan: 10 }, { vlan: 20 }, { vlans: [10] }, {}];
  const plain = (to: string, from: string) => frame(to, from);
  const in10 = (to: string, from: string) => tagged(frame(to, from), 10);

  test.each<[string, "wire" | number, Uint8Array, Record<string, Uint8Array>]>([
    ["wire: by MAC address and VLAN, tag off", "wire", in10(mac(0), WIRE), { 0: plain(mac(0), WIRE) }],
    ["wire: by MAC address, untagged", "wire", plain(mac(4), WIRE), { 4: plain(mac(4), WIRE) }],
    ["wire: tag stays where the guest tags", "wire", in10(mac(3), WIRE), { 3: in10(mac(3), WIRE) }],
    [
      "wire: untagged for a function in a VLAN is the host's",
      "wire",
      plain(mac(0), WIRE),
      { host: plain(mac(0), WIRE) },
    ],
    ["wire: another VLAN is the host's", "wire", in10(mac(2), WIRE), { host: in10(mac(2), WIRE) }],
    ["wire: what is no function's is the host's", "wire", plain(HOST, WIRE), { host: plain(HOST, WIRE) }],
    ["function to wire, tag on", 0, plain(WIRE, mac(0)), { wire: in10(WIRE, mac(0)) }],
    ["function to wire, no VLAN", 4, plain(WIRE, mac(4)), { wire: plain(WIRE, mac(4)) }],
    ["function to wire, tagged by the guest", 3, in10(WIRE, mac(3)), { wire: in10(WIRE, mac(3)) }],
    ["function to function inside the card", 0, plain(mac(1), mac(0)), { 1: plain(mac(1), mac(0)) }],
    ["function to one that tags itself", 0, plain(mac(3), mac(0)), { 3: in10(mac(3), mac(0)) }],
    ["function to one of another VLAN: out", 0, plain(mac(2), mac(0)), { wire: in10(mac(2), mac(0)) }],
    ["untagged function to one in a VLAN: out", 4, plain(mac(0), mac(4)), { wire: plain(mac(0), mac(4)) }],
    [
      "broadcast of the wire, in a VLAN",
      "wire",
      in10(BROADCAST, WIRE),
      {
        0: plain(BROADCAST, WIRE),
        1: plain(BROADCAST, WIRE),
        3: in10(BROADCAST, WIRE),
        host: in10(BROADCAST, WIRE),
      },
    ],
    [
      "broadcast of the wire, untagged",
      "wire",
      plain(BROADCAST, WIRE),
      { 3: plain(BROADCAST, WIRE), 4: plain(BROADCAST, WIRE), host: plain(BROADCAST, WIRE) },
    ],
    [
      "broadcast of a function",
      0,
      plain(BROADCAST, mac(0)),
      {
        1: plain(BROADCAST, mac(0)),
        3: in10(BROADCAST, mac(0)),
        host: in10(BROADCAST, mac(0)),
        wire: in10(BROADCAST, mac(0)),
      },
    ],
    ["multicast: for who asked, which is none", "wire", plain(GROUP, WIRE), { host: plain(GROUP, WIRE) }],
  ])("%s", async (_what, from, what, expected) => {
    expect(sent(await rig(vfs), from, what)).toEqual(expected);
  });

  test.each<[string, number, Uint8Array, string]>([
    ["another source address", 4, frame(WIRE, mac(3)), "spoofed"],
    ["a tag where the card tags", 0, tagged(frame(WIRE, mac(0)), 10), "vlan"],
    ["a tag of a VLAN that it isn't in", 3, tagged(frame(WIRE, mac(3)), 20), "vlan"],
    ["a tag without any VLAN", 4, tagged(frame(WIRE, mac(4)), 10), "vlan"],
    ["itself", 4, frame(mac(4), mac(4)), "hairpin"],
    ["a bridge's own protocols, as pause frames are", 4, frame("01:80:c2:00:00:01", mac(4)), "linkLocal"],
    ["less than an Ethernet header", 4, frame(WIRE, mac(4)).subarray(0, 13), "runt"],
  ])("a function's frame with or to %s is dropped and counted", async (_what, from, what, reason) => {
    const r = await rig(vfs);
    expect(sent(r, from, what)).toEqual({});
    expect(r.stats(from).drops).toEqual({ [reason]: 1 });
    expect(r.drivers[from]?.sent).toBe(1); // its buffer is the guest's again
  });

  test("what the host sends goes to functions too, and the host's filters name what functions send to it", async () => {
    const r = await rig([{}, {}]);
    // The port's frames have to go out at the card: it has learned that stations are there.
    r.nic.receive([frame(BROADCAST, WIRE)]);
    r.out();
    r.port.push([frame(mac(1), HOST), frame(WIRE, HOST), frame(BROADCAST, HOST)]);
    r.host.drain();
    expect(r.out()).toEqual({
      0: [frame(BROADCAST, HOST)],
      1: [frame(mac(1), HOST), frame(BROADCAST, HOST)],
      wire: [frame(WIRE, HOST), frame(BROADCAST, HOST)],
    });
    expect(sent(r, 0, frame(HOST, mac(0)))).toEqual({ wire: frame(HOST, mac(0)) });
    r.nic.steer(HOST, 0, 0, -1);
    expect(sent(r, 0, frame(HOST, mac(0)))).toEqual({ host: frame(HOST, mac(0)) });
  });

  test("copies inside the card are counted, and aren't the host's", async () => {
    const r = await rig([{}, {}, {}]);
    r.nic.receive([frame(mac(0), WIRE), frame(BROADCAST, WIRE)]);
    r.out();
    expect(r.host.stats().nics[0]).toMatchObject({ cardCopies: 0, cardCopiedBytes: 0 });
    sent(r, 0, frame(mac(1), mac(0), 100));
    sent(r, 0, frame(BROADCAST, mac(0), 60)); // two functions and the host
    expect(r.host.stats().nics[0]).toMatchObject({ cardCopies: 4, cardCopiedBytes: 100 + 3 * 60 });
  });

  test("frames of several segments, both ways", async () => {
    const r = await rig([{ vlan: 7 }, { vlan: 7 }]);
    const long = ether(
      mac(1),
      mac(0),
      0x88b5,
      Array.from({ length: 8986 }, (_, i) => i & 255),
    );
    r.drivers[0]?.send([long], 8);
    expect(r.out()).toEqual({ 1: [long] });
    const fromWire = tagged(
      ether(
        mac(1),
        WIRE,
        0x88b5,
        Array.from({ length: 5000 }, (_, i) => i & 255),
      ),
      7,
    );
    r.nic.receive([fromWire]);
    expect(r.out()).toEqual({
      1: [
        ether(
          mac(1),
          WIRE,
          0x88b5,
          Array.from({ length: 5000 }, (_, i) => i & 255),
        ),
      ],
    });
  });

  test("each sends in its turn, so many bytes; none waits for one that has more", async () => {
    const r = await rig([{}, {}]);
    r.drivers[0]?.send(Array.from({ length: 60 }, () => frame(WIRE, mac(0), 1514)));
    r.drivers[1]?.send(Array.from({ length: 60 }, () => frame(WIRE, mac(1), 60)));
    const order = r.out().wire!.map((one) => one[11]);
    expect(order).toHaveLength(120);
    // 9088 bytes are six or seven long frames; all sixty short ones are in the first turn.
    const longBefore = order.slice(0, order.lastIndexOf(1)).filter((from) => from === 0).length;
    expect(longBefore).toBeLessThanOrEqual(7);
    expect(r.stats(0).txPackets).toBe(60);
  });

  test("the packet buffer's end, and a full one: frames wait in the rings, in order, and none is written behind it", async () => {
    const host = await Host.create();
    const { core } = host;
    const nic = host.nic({ packetBuffer: 40_000 });
    const vf = nic.createVf({ mac: mac(0) });
    const driver = new FunctionDriver(host, vf);
    const made = (n: number) => frame(WIRE, mac(0), 60 + ((n * 97) % 1400), n & 255);
    const queued = () => core.u32(vf.tx + FunctionRing.tail) - core.u32(vf.tx + FunctionRing.head);
    let expected = 0;
    let next = 0;
    for (let round = 0; round < 200; round++) {
      driver.send(Array.from({ length: Math.min(64 - queued(), 20) }, () => made(next++)));
      // Some of those that wait go out: the rest stays where it is.
      const waiting = nic.toTransmit();
      const n = Math.min(waiting.length, 5 + (round % 31));
      const wrong = waiting.slice(0, n).filter((one) => Buffer.compare(one, made(expected++)) !== 0);
      expect(wrong).toEqual([]);
      core.exports.transmitted(nic.address, n);
    }
    expect(expected).toBeGreaterThan(1000);
    // Behind the buffer stands the function itself.
    expect(vf).toMatchObject({ link: true, spoofCheck: true, rate: 0, promiscuous: false });
    expect(host.stats().functions).toMatchObject([{ txPackets: next - queued(), drops: {}, faults: {} }]);
  });
});

describe("what the host sets of a function", () => {
  test("spoof check off: any source address", async () => {
    const r = await rig([{ spoofCheck: false }]);
    expect(sent(r, 0, frame(WIRE, HOST))).toEqual({ wire: frame(WIRE, HOST) });
    r.drivers[0]?.vf.set({ spoofCheck: true });
    expect(sent(r, 0, frame(WIRE, HOST))).toEqual({});
  });

  test("trust: promiscuous gets copies of its VLAN's frames, allMulticast groups; without it they are refused", async () => {
    const r = await rig([{ trust: true }, {}, { vlan: 5, trust: true }]);
    const [trusted, other, elsewhere] = r.drivers.map(({ vf }) => vf);
    expect(() => {
      other!.promiscuous = true;
    }).toThrow(new RangeError("promiscuous: nic0.vf1 isn't trusted, expected trust: true"));
    expect(() => {
      other!.allMulticast = true;
    }).toThrow(RangeError);
    trusted!.allMulticast = true;
    expect(Object.keys(sent(r, "wire", frame(GROUP, WIRE)))).toEqual(["0", "host"]);
    trusted!.promiscuous = true;
    elsewhere!.promiscuous = true;
    expect(Object.keys(sent(r, "wire", frame(mac(1), WIRE)))).toEqual(["0", "1"]);
    r.nic.receive([frame(mac(0), WIRE)]);
    expect(r.out()).toEqual({ 0: [frame(mac(0), WIRE)] }); // its own once
    expect(Object.keys(sent(r, 1, frame(WIRE, mac(1))))).toEqual(["0", "wire"]);
    expect(Object.keys(sent(r, "wire", frame(HOST, WIRE)))).toEqual(["0", "host"]);
    trusted!.set({ trust: false });
    expect([trusted!.promiscuous, trusted!.allMulticast]).toEqual([false, false]);
    expect(Object.keys(sent(r, "wire", frame(mac(1), WIRE)))).toEqual(["1"]);
  });

  test("rate: over it frames wait in the guest's ring, and none is lost", async () => {
    let now = 0;
    const r = await rig([{ rate: 8 }, {}], { clock: () => now }); // 8 Mbit/s are a byte a microsecond
    const [limited, free] = r.drivers;
    limited?.send(Array.from({ length: 60 }, () => frame(WIRE, mac(0), 1000)));
    free?.send(Array.from({ length: 40 }, () => frame(WIRE, mac(1), 1000)));
    let from: (number | undefined)[] = [];
    const transmit = () => {
      from = [];
      r.nic.transmit((some) => {
        from = some.map((one) => one[11]);
      });
      return from.filter((one) => one === 0).length;
    };
    expect(transmit()).toBe(0); // a new one has saved up nothing
    expect(from.filter((one) => one === 1)).toHaveLength(40);
    now = 1;
    expect(transmit()).toBe(1);
    let passed = 1;
    for (let ms = 2; ms <= 30; ms++) {
      now = ms;
      passed += transmit();
      expect(Math.abs(passed - ms)).toBeLessThanOrEqual(1);
    }
    expect(limited?.sent).toBe(passed);
    // What wasn't used for long isn't all saved: one of the longest frames.
    now = 100_000;
    expect(transmit()).toBe(10);
    limited?.vf.set({ rate: 0 });
    transmit();
    expect(limited?.sent).toBe(60);
    expect(r.stats(0).drops).toEqual({});
  });

  test("link down: it gets nothing, and what it sends waits", async () => {
    const r = await rig([{ link: false }]);
    expect(sent(r, "wire", frame(mac(0), WIRE))).toEqual({});
    expect(r.stats(0).drops).toEqual({ down: 1 });
    expect(sent(r, 0, frame(WIRE, mac(0)))).toEqual({});
    r.drivers[0]?.vf.set({ link: true });
    expect(Object.keys(r.out())).toEqual(["wire"]);
    expect(Object.keys(sent(r, "wire", frame(mac(0), WIRE)))).toEqual(["0"]);
  });

  test("MAC address and VLAN, while frames pass", async () => {
    const r = await rig([{}, {}]);
    const vf = r.drivers[0]!.vf;
    vf.set({ mac: mac(7), vlan: 9 });
    expect(Object.keys(sent(r, "wire", frame(mac(0), WIRE)))).toEqual(["host"]);
    expect(Object.keys(sent(r, "wire", tagged(frame(mac(7), WIRE), 9)))).toEqual(["0"]);
    expect(sent(r, 0, frame(WIRE, mac(7)))).toEqual({ wire: tagged(frame(WIRE, mac(7)), 9) });
  });

  test("in all VLANs: what is for it keeps its tag, and so does what it sends, until it is in none again", async () => {
    const r = await rig([{ vlans: "all" }, { vlan: 10 }, {}]);
    const in10 = (to: string, from: string) => tagged(frame(to, from), 10);
    for (const vlan of [1, 10, 4094]) {
      const what = tagged(frame(mac(0), WIRE), vlan);
      expect(sent(r, "wire", what)).toEqual({ 0: what });
    }
    expect(sent(r, "wire", frame(mac(0), WIRE))).toEqual({ 0: frame(mac(0), WIRE) });
    expect(sent(r, "wire", in10(mac(2), WIRE))).toEqual({ host: in10(mac(2), WIRE) });
    expect(Object.keys(sent(r, "wire", in10(BROADCAST, WIRE)))).toEqual(["0", "1", "host"]);
    expect(sent(r, 1, frame(mac(0), mac(1)))).toEqual({ 0: in10(mac(0), mac(1)) });
    expect(sent(r, 0, in10(mac(1), mac(0)))).toEqual({ 1: frame(mac(1), mac(0)) });
    r.drivers[0]!.vf.set({ vlans: [] });
    expect(r.drivers[0]!.vf.vlans).toEqual([]);
    expect(sent(r, "wire", in10(mac(0), WIRE))).toEqual({ host: in10(mac(0), WIRE) });
  });

  test.each<[string, VfOptions, string]>([
    ["VLAN 4096", { vlan: 4096 }, "VLAN 4096 of nic0.vf1, expected 1 to 4094"],
    ["VLAN 4095", { vlans: [4095] }, "VLAN 4095 of nic0.vf1, expected 1 to 4094"],
    [
      "both kinds of VLANs",
      { vlan: 5, vlans: [6] },
      "vlans: 6 of nic0.vf1 with the port VLAN 5, expected either",
    ],
    [
      "a VLAN and all VLANs",
      { vlan: 5, vlans: "all" },
      "vlans: all of nic0.vf1 with the port VLAN 5, expected either",
    ],
    ["a rate that no card has", { rate: 100_001 }, "rate: 100001, expected 0 to 100000"],
    ["a group's address", { mac: GROUP }, `mac: ${GROUP}, expected the address of one station`],
    ["another's address", { mac: mac(0) }, `mac: ${mac(0)} is that of nic0.vf0, expected one of its own`],
    [
      "what is no address",
      { mac: "no" },
      'MAC address "no", expected six hexadecimal bytes as in 02:00:00:00:00:01',
    ],
  ])("%s is refused, and nothing has changed", async (_what, options, message) => {
    const r = await rig([{}, {}]);
    expect(() => r.drivers[1]!.vf.set(options)).toThrow(new RangeError(message));
    expect(Object.keys(sent(r, "wire", frame(mac(1), WIRE)))).toEqual(["1"]);
    const made = r.nic.vfs.length;
    expect(() => r.nic.createVf({ ...options, ...(options.mac ? {} : { mac: mac(5) }) })).toThrow(RangeError);
    expect(r.nic.vfs).toHaveLength(made);
  });

  test("the same address in two VLANs is two stations'", async () => {
    const r = await rig([{ vlan: 1 }, { vlan: 2, mac: mac(0) }]);
    expect(Object.keys(sent(r, "wire", tagged(frame(mac(0), WIRE), 1)))).toEqual(["0"]);
    expect(Object.keys(sent(r, "wire", tagged(frame(mac(0), WIRE), 2)))).toEqual(["1"]);
  });
});

describe("the IOMMU", () => {
  /** Sends and receives a frame; what stopped either ring. */
  const used = (r: Rig) => {
    const driver = r.drivers[0]!;
    driver.send([frame(WIRE, mac(0))]);
    r.nic.receive([frame(mac(0), WIRE)]);
    const out = r.out();
    return {
      rx: driver.broken(driver.vf.rx),
      tx: driver.broken(driver.vf.tx),
      out: Object.keys(out),
      faults: r.stats(0).faults,
    };
  };

  test("reaches all of the guest's memory, from the beginning", async () => {
    expect(used(await rig([{}]))).toEqual({ rx: 0, tx: 0, out: ["0", "wire"], faults: {} });
  });

  test.each<[string, (driver: FunctionDriver) => void, Partial<ReturnType<typeof used>>]>([
    [
      "an unmapped transmit ring",
      ({ vf, txRing }) => vf.iommu?.unmap(txRing, 4096),
      { tx: Fault.UNMAPPED, rx: 0, out: ["0"], faults: { unmapped: 1 } },
    ],
    [
      "a receive ring that may only be read",
      ({ vf, rxRing }) => vf.iommu?.map(rxRing, 4096, "r"),
      { rx: Fault.UNMAPPED, tx: 0, out: ["wire"], faults: { unmapped: 1 } },
    ],
    [
      "buffers that may only be read",
      ({ vf, txRing, bytes }) => vf.iommu?.map(2 * txRing, bytes - 2 * txRing, "r"),
      { rx: Fault.UNMAPPED, tx: 0, out: ["wire"], faults: { unmapped: 1 } },
    ],
    [
      "buffers that may only be written",
      ({ vf, txRing, bytes }) => vf.iommu?.map(2 * txRing, bytes - 2 * txRing, "w"),
      { tx: Fault.UNMAPPED, rx: 0, out: ["0"], faults: { unmapped: 1 } },
    ],
    [
      "a receive buffer behind the guest's memory",
      (driver) => driver.post(0, driver.bytes - 2047, 2048),
      { rx: Fault.ADDRESS, tx: 0, out: ["wire"], faults: { address: 1 } },
    ],
    [
      "an address that runs over",
      (driver) => driver.post(0, 0xffff_ff00, 2048),
      { rx: Fault.ADDRESS, tx: 0, out: ["wire"], faults: { address: 1 } },
    ],
  ])("%s stops that ring, counted; the other goes on", async (_what, change, expected) => {
    const r = await rig([{}, {}]);
    change(r.drivers[0]!);
    expect(used(r)).toMatchObject(expected);
    // Nobody else notices, and after a reset all is well.
    expect(sent(r, 1, frame(WIRE, mac(1)))).toHaveProperty("wire");
    const { vf, bytes } = r.drivers[0]!;
    vf.iommu?.map(0, bytes);
    r.drivers[0]!.start();
    expect(used(r)).toMatchObject({ rx: 0, tx: 0, out: ["0", "wire"] });
  });

  test.each<[string, (driver: FunctionDriver) => void, string, Record<string, number>]>([
    ["no length", (d) => d.post(0, 8192, 0, d.txRing), "tx", { length: 1 }],
    [
      "a frame longer than any",
      (d) => {
        for (let i = 0; i < 3; i++) d.post(i, 8192, 4000, d.txRing, i < 2 ? 1 : 0);
      },
      "tx",
      { length: 1 },
    ],
    [
      "a chain without end",
      (d) => {
        for (let i = 0; i < 64; i++) d.post(i, 8192, 1, d.txRing, 1);
      },
      "tx",
      { chain: 1 },
    ],
    ["a receive buffer that is too short", (d) => d.post(0, 8192, 63), "rx", { length: 1 }],
  ])("%s stops the ring", async (_what, change, ring, faults) => {
    const r = await rig([{}]);
    const driver = r.drivers[0]!;
    change(driver);
    driver.transmitTail = ring === "tx" ? 64 : 0;
    r.nic.receive([frame(mac(0), WIRE)]);
    r.out();
    expect(r.stats(0)).toMatchObject({ faults, txPackets: 0 });
    expect(driver.broken(ring === "tx" ? driver.vf.tx : driver.vf.rx)).not.toBe(0);
  });

  test.each([65, 0xffff_ffff, 0x8000_0000])("a tail register of %i stops the ring", async (tail) => {
    const r = await rig([{}]);
    r.drivers[0]!.transmitTail = tail;
    r.drivers[0]!.receiveTail = tail;
    r.nic.receive([frame(mac(0), WIRE)]);
    r.nic.transmit();
    expect(r.stats(0).faults).toEqual({ tail: 2 });
  });

  test("a region that the guest hasn't is refused when it is mapped, or a ring set up in it", async () => {
    const r = await rig([{}]);
    const { vf, bytes } = r.drivers[0]!;
    expect(() => vf.iommu?.map(bytes - 4096, 8192)).toThrow(
      new RangeError(
        `nic0.vf0: 8192 bytes at guest address ${bytes - 4096}, expected a region of the guest's ${bytes}`,
      ),
    );
    expect(() => vf.iommu?.map(1, 4096)).toThrow(
      new RangeError("nic0.vf0: 4096 bytes at guest address 1, expected whole pages of 4096"),
    );
    expect(() => vf.start({ address: bytes, size: 64 }, { address: 0, size: 64 })).toThrow(
      new RangeError(
        `nic0.vf0: a ring of 64 at guest address ${bytes}, expected it in the guest's ${bytes} bytes`,
      ),
    );
  });
});

describe("guests", () => {
  const hosts: Host[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.stop();
  });
  const create = async (options: HostOptions = {}) => {
    const host = await Host.create({ memory: 128 * 2 ** 20, ...options });
    hosts.push(host);
    return host;
  };
  /** Frames for `to`, there and back. */
  const generate = (host: Host, nic: ReturnType<Host["nic"]>, to: string[], rounds = 20, n = 64) => {
    const generator = new FrameGenerator(host.core, { size: "imix", to, from: WIRE });
    const { exports } = host.core;
    const cycle = () => {
      exports.generate(generator.address, nic.address, n);
      host.drain();
      exports.check(generator.address, nic.address, exports.toTransmit(nic.address));
    };
    for (let i = 0; i < rounds; i++) cycle();
    return { generator, cycle };
  };

  test("passthrough: all of the port's frames are the guest's, with no copy by the host and no notification", async () => {
    const host = await create();
    const nic = host.nic();
    const guest = host.guest({ attach: "passthrough", nic, ring: 64 });
    // Wherever they are for: the port is its own.
    const { generator } = generate(host, nic, [guest.mac, HOST]);
    expect(generator.check()).toEqual({ sent: 1280, received: 1280, ...CLEAN });
    const { functions, ports, pool, nics } = host.stats();
    expect(functions).toMatchObject([
      { guest: "guest0", rxPackets: 1280, txPackets: 1280, notifications: 0, drops: {} },
    ]);
    expect(ports).toEqual([]);
    expect(nics).toMatchObject([{ rxPackets: 1280, txPackets: 1280, cardCopies: 0 }]);
    // The card's own queue has its buffers as before, none was used.
    expect(pool.outstanding).toBe(nics[0]!.buffers);
  });

  test("passthrough: a port is one guest's, and can't be shared with a switch or virtual functions", async () => {
    const host = await create();
    const nic = host.nic();
    host.guest({ attach: "passthrough", nic });
    const theirs = `nic0: its port is guest0's by "passthrough", expected another card, or "sriov" to share one`;
    expect(() => host.guest({ attach: "passthrough", nic })).toThrow(new RangeError(theirs));
    expect(() => host.guest({ attach: "sriov", nic })).toThrow(new RangeError(theirs));
    expect(() => nic.createVf()).toThrow(new RangeError(theirs));
    expect(() => host.vswitch({ connect: [nic] })).toThrow(new RangeError(theirs));
    expect(host.guests).toHaveLength(1);

    const shared = host.nic();
    host.vswitch({ connect: [shared] });
    expect(() => host.guest({ attach: "passthrough", nic: shared })).toThrow(
      new RangeError(`nic1: connected to switch0, expected a card of the guest's own for "passthrough"`),
    );
    const split = host.nic();
    split.createVf();
    expect(() => host.guest({ attach: "passthrough", nic: split })).toThrow(
      new RangeError(`nic2: has 1 virtual functions, expected none for "passthrough"`),
    );
    expect(() => host.guest({ attach: "passthrough" })).toThrow(
      new RangeError(`attach: "passthrough" with no card, expected nic: the guest's card`),
    );
  });

  test("sriov: errors name what was wrong before anything starts", async () => {
    const host = await create();
    const nic = host.nic({ vfs: 2 });
    const guest = host.guest({ attach: "sriov", nic });
    const [vf] = nic.vfs;
    expect(vf).toMatchObject({ name: "nic0.vf0", mac: guest.mac, guest: "guest0" });
    expect(() => host.guest({ attach: "sriov", vf: vf! })).toThrow(
      new RangeError("nic0.vf0: is guest0's already, expected one guest for each function"),
    );
    const own = nic.createVf({ mac: mac(3) });
    expect(() => nic.createVf()).toThrow(
      new RangeError("nic0: 2 virtual functions already, expected at most as many"),
    );
    expect(() => host.guest({ attach: "sriov", vf: own, mac: mac(4) })).toThrow(
      new RangeError(`mac: ${mac(4)}, expected ${mac(3)} as nic0.vf1 has it`),
    );
    expect(() => host.guest({ attach: "sriov" })).toThrow(
      new RangeError(`attach: "sriov" with no card, expected nic or vf: a card or its function`),
    );
    expect(() => host.guest({ attach: "sriov", vf: own, bufferSize: 63 })).toThrow(
      new RangeError("bufferSize: 63, expected 64 to 65535"),
    );
    expect(() => host.vswitch({ connect: [guest] })).toThrow(
      new RangeError("guest0: attached by sriov, which bypasses a switch, expected no connection to one"),
    );
    nic.destroyVf(own);
    expect(() => nic.destroyVf(own)).toThrow(new RangeError("nic0.vf1: no function of nic0"));
    expect(() => host.guest({ attach: "sriov", vf: own })).toThrow(
      new RangeError("nic0.vf1: destroyed, expected a function that there is"),
    );
  });

  test.each([1, 2, 64])("sriov: %i guests, each frame there and back, no copy by the host", async (n) => {
    const host = await create();
    const nic = host.nic({ packetBuffer: 4 * 2 ** 20 });
    const guests = Array.from({ length: n }, () => host.guest({ attach: "sriov", nic, ring: 64 }));
    const { generator } = generate(
      host,
      nic,
      guests.map((guest) => guest.mac),
      20,
      64,
    );
    expect(generator.check()).toMatchObject({
      sent: 1280,
      received: 1280,
      lost: 0,
      duplicated: 0,
      corrupt: 0,
      reordered: 0,
    });
    const { functions, ports, nics } = host.stats();
    expect(functions).toHaveLength(n);
    expect(functions.reduce((sum, one) => sum + one.rxPackets, 0)).toBe(1280);
    expect(
      functions.every(({ notifications, txPackets, rxPackets }) => !notifications && txPackets === rxPackets),
    ).toBe(true);
    expect(ports).toEqual([]);
    expect(nics[0]).toMatchObject({ cardCopies: 0 });
  });

  test("frames over several of a guest's buffers", async () => {
    const host = await create();
    const nic = host.nic({ packetBuffer: 2 ** 20 });
    const guest = host.guest({ attach: "sriov", nic, bufferSize: 1700, ring: 64 });
    const generator = new FrameGenerator(host.core, { size: 9022, to: [guest.mac], from: WIRE });
    const { exports } = host.core;
    for (let i = 0; i < 50; i++) {
      exports.generate(generator.address, nic.address, 9); // 9018 bytes are six buffers of 1572
      host.drain();
      exports.check(generator.address, nic.address, exports.toTransmit(nic.address));
    }
    expect(generator.check()).toEqual({ sent: 450, received: 450, ...CLEAN });
  });

  test.each([1, 2, 4, 8, 256])("a ring of %i descriptors, and of burst 1", async (ring) => {
    const host = await create();
    const nic = host.nic();
    const guest = host.guest({ attach: "sriov", nic, ring, burst: 1 });
    const { generator } = generate(host, nic, [guest.mac], 300, ring);
    expect(generator.check()).toMatchObject({ sent: 300 * ring, received: 300 * ring, ...CLEAN });
  });

  test("guests in a row inside the card, and the host's vhost guest beside them", async () => {
    const host = await create();
    const nic = host.nic();
    const beside = host.guest({ attach: "vhost" });
    host.vswitch({ connect: [nic, beside] });
    const second = host.guest({ attach: "sriov", nic, nextHop: WIRE });
    const first = host.guest({ attach: "sriov", nic, nextHop: second.mac });
    const generator = new FrameGenerator(host.core, { size: 64, to: [first.mac, beside.mac], from: WIRE });
    const { exports } = host.core;
    for (let i = 0; i < 50; i++) {
      exports.generate(generator.address, nic.address, 32);
      while (host.drain() > 0) exports.toTransmit(nic.address);
      exports.check(generator.address, nic.address, exports.toTransmit(nic.address));
    }
    expect(generator.check()).toEqual({ sent: 1600, received: 1600, ...CLEAN });
    expect(host.stats().nics[0]).toMatchObject({ cardCopies: 800 });
  });

  test("functions come and go under load: the others lose nothing", async () => {
    const host = await create({ memory: 512 * 2 ** 20 });
    const nic = host.nic({ vfs: 8 });
    const guests = [0, 1].map(() => host.guest({ attach: "sriov", nic, ring: 64 }));
    const { generator, cycle } = generate(
      host,
      nic,
      guests.map((guest) => guest.mac),
    );
    for (let i = 0; i < 200; i++) {
      const passing = host.guest({ attach: "sriov", nic, ring: 16, mac: mac(1 + (i % 5)) });
      nic.receive([frame(passing.mac, WIRE), frame(BROADCAST, WIRE)]);
      cycle(); // what it and the others send of those carries no number of ours
      nic.receive([frame(passing.mac, WIRE)]);
      if (i % 2) host.drain(); // half of them have frames in their rings when they go
      nic.destroyVf(nic.vfs.find(({ guest }) => guest === passing.name)!);
      expect(passing.device.running).toBe(false);
      cycle();
    }
    expect(generator.check()).toMatchObject({ lost: 0, duplicated: 0, reordered: 0 });
    expect(nic.vfs).toHaveLength(2);
    // A broadcast whose addresses a guest has swapped says that it is from everybody.
    for (const { drops, faults } of host.stats().functions)
      expect({ drops, faults }).toEqual({ drops: { spoofed: 200 }, faults: {} });
  });

  test("a guest whose ring was stopped resets its device, and goes on", async () => {
    const host = await create();
    const nic = host.nic();
    const guest = host.guest({ attach: "sriov", nic, ring: 64 });
    nic.vfs[0]!.iommu?.unmap(0, 4096);
    nic.receive([frame(guest.mac, WIRE)]);
    expect(host.stats().functions[0]?.faults).toEqual({ unmapped: 1 });
    nic.vfs[0]!.iommu?.map(0, 4096);
    guest.reset();
    expect(generate(host, nic, [guest.mac]).generator.check()).toMatchObject(CLEAN);
    nic.destroyVf(nic.vfs[0]!);
    expect(() => guest.reset()).toThrow(
      new RangeError("nic0.vf0: destroyed, expected a function that there is"),
    );
  });

  test("no buffer is lost: what the guest has, its rings have, and nobody else", async () => {
    const host = await create();
    const nic = host.nic();
    const guest = host.guest({ attach: "sriov", nic, ring: 64 });
    generate(host, nic, [guest.mac], 33, 37);
    const { core } = host;
    const at = (field: GuestLayout) => core.u32(guest.address + field);
    const [posted] = host.stats().guests.map((one) => one.posted);
    const tx = core.u32(at(GuestLayout.tx) + Driver.size) - core.u32(at(GuestLayout.tx) + Driver.freeCount);
    expect(at(GuestLayout.freeCount) + posted! + tx).toBe(at(GuestLayout.bufferCount));
    expect(posted).toBe(64);
  });

  test("on an lcore of their own, asleep until the card interrupts them", async () => {
    const host = await create({ shared: true });
    const nic = host.nic();
    const guests = [0, 1].map(() => host.guest({ attach: "sriov", nic, ring: 64 }));
    const { done } = await host.launch(guests);
    const generator = new FrameGenerator(host.core, {
      size: 64,
      to: guests.map((guest) => guest.mac),
      from: WIRE,
    });
    const { exports } = host.core;
    for (let round = 0; round < 30; round++) {
      const asleep = () => host.lcores.every(({ address }) => host.core.u32(address + Lcore.asleep) === 1);
      for (const end = performance.now() + 5000; !asleep() && performance.now() < end; ) {
        await new Promise((resume) => setTimeout(resume, 1));
      }
      exports.generate(generator.address, nic.address, 40);
      for (let back = 0; back < 40; ) {
        expect(nic.wait(5000)).toBe(true);
        back += exports.check(generator.address, nic.address, exports.toTransmit(nic.address));
      }
    }
    expect(generator.check()).toEqual({ sent: 1200, received: 1200, ...CLEAN });
    for (const one of host.stats().functions) expect(one.notifications).toBeGreaterThan(0);
    // One more comes while they run, and one goes.
    const late = host.guest({ attach: "sriov", nic, ring: 64 });
    nic.destroyVf(nic.vfs[0]!);
    nic.receive([frame(late.mac, WIRE), frame(guests[1]!.mac, WIRE)]);
    let back = 0;
    for (const end = performance.now() + 5000; back < 2 && performance.now() < end; ) {
      host.poll(); // the late one is this thread's
      back += nic.transmit();
    }
    expect(back).toBe(2);
    host.stop();
    await done;
  });

  test("an lcore that is killed: its guests are restarted, and get what comes from then on", async () => {
    const host = await create({ shared: true });
    const nic = host.nic();
    const guests = [0, 1].map(() => host.guest({ attach: "sriov", nic, ring: 64 }));
    for (let round = 0; round < 3; round++) {
      const { done } = await host.launch(guests);
      for (let i = 0; i < 50; i++) {
        nic.receive(Array.from({ length: 16 }, (_, k) => frame(guests[k % 2]!.mac, WIRE)));
        nic.transmit();
      }
      await host.lcores[0]?.kill();
      const error = await done.catch((one) => one);
      expect(error).toBeInstanceOf(LcoreError);
      // The other too, where it was slow to stop.
      expect(error.recovered.guests).toContain("guest0");
      while (host.drain() > 0 || nic.transmit() > 0) {} // what the other still had
      nic.receive(guests.map((guest) => frame(guest.mac, WIRE)));
      host.drain();
      expect(nic.transmit()).toBe(2);
    }
  });

  test("pvp: no copy and no notification, each frame checked; on one thread and on lcores; a port for one guest", async () => {
    const options = { attach: ["passthrough", "sriov"], packets: 5000, repeat: 1 } as const;
    const exact = {
      ...{ copiesPerPacket: 0, bytesCopiedPerPacket: 0, notificationsPerPacket: 0 },
      ...{ lost: 0, duplicated: 0, reordered: 0, corrupt: 0, drops: {} },
    };
    const { runs } = await pvp({ ...options, attach: [...options.attach], size: [64, "imix", 2000] });
    expect(runs).toHaveLength(6);
    for (const run of runs) expect(run).toMatchObject({ packets: 5000, ...exact });
    const many = await pvp({ attach: ["sriov"], guests: 64, size: [64], packets: 5000, repeat: 1 });
    expect(many.runs).toMatchObject([{ packets: 5000, ...exact }]);
    const inRow = await pvp({ chain: ["sriov", "sriov"], size: [64], packets: 5000, repeat: 1 });
    expect(inRow.runs).toMatchObject([{ attach: "sriov,sriov", packets: 5000, ...exact }]);
    const { notificationsPerPacket: _, ...checked } = exact; // guests may fall asleep
    const lcores = await pvp({
      ...options,
      attach: [...options.attach],
      size: [64],
      lcores: ["nic+host", "guest"],
    });
    for (const run of lcores.runs) expect(run).toMatchObject({ packets: 5000, ...checked });
    await expect(pvp({ attach: ["passthrough"], guests: 2 })).rejects.toThrow(
      "attach: 2 guests by passthrough, expected 1, the owner of the card's port, or sriov for more",
    );
    await expect(pvp({ attach: ["sriov"], guests: 257 })).rejects.toThrow(
      "nic0: 256 virtual functions already, expected at most as many",
    );
    await expect(pvp({ chain: ["sriov", "vhost"] })).rejects.toThrow(
      "chain: sriov,vhost, expected passthrough and sriov not beside what is connected by the switch",
    );
  });
});
