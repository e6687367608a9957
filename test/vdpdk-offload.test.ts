/**
 * Offloads over vDPDK: what the card does by itself, and what the host does in its place, against a slow reference in
 * TypeScript; and the table of vMux' talk: a feature of both, of the guest alone, of the card alone.
 */
import { describe, expect, test } from "vitest";
import { Offload, PacketFlag } from "../assembly/layout.ts";
import { Host, type NicOptions } from "../src/index.ts";
import { type OffloadName, offloadBits } from "../src/offloads.ts";
import {
  astray,
  be16,
  ether,
  IPV4,
  IPV6,
  internetChecksum,
  ipBytes,
  ipv4,
  ipv6,
  sent,
  TCP,
  tagged,
  UDP,
  WIRE,
} from "./frames.ts";
import { RawGuest } from "./harness/vdpdk.ts";

const ALL: readonly OffloadName[] = ["ipv4Checksum", "udpChecksum", "tcpChecksum", "tso", "vlan"];
const FLOW = { from: "10.0.0.1", to: "10.0.0.2" };
const FLOW6 = { from: "2001:db8:0:0:0:0:0:1", to: "2001:db8:0:0:0:0:0:2" };

async function rig(card: NicOptions, offloads: { rx?: number; tx?: number }, zeroCopy = true) {
  const host = await Host.create({ memory: 64 * 2 ** 20 });
  const nic = host.nic({ ring: 128, queues: 4, ...card });
  const vdpdk = { zeroCopyRx: zeroCopy, zeroCopyTx: zeroCopy };
  const guest = host.guest({ attach: "vdpdk", ring: 64, memory: 2 ** 20, vdpdk });
  host.vmux({ nic, guests: [guest] });
  // What the host sends then goes through the card's own switch.
  if (card.vfs) nic.createVf();
  return { host, nic, guest, raw: new RawGuest(host, guest, 32, offloads) };
}
type Rig = Awaited<ReturnType<typeof rig>>;

const payload = (n: number) => Uint8Array.from({ length: n }, (_, i) => (i * 7 + 3) & 255);

/** Sum of RFC 768's and RFC 8200's pseudo-header, and what is behind it. */
function l4Checksum(from: string, to: string, protocol: number, l4: readonly number[]): number {
  const long = from.includes(":");
  const length = long ? [0, 0, ...be16(l4.length), 0, 0, 0, protocol] : [0, protocol, ...be16(l4.length)];
  return internetChecksum([...ipBytes(from), ...ipBytes(to), ...length, ...l4]);
}

interface L4 {
  protocol: number;
  flow: { from: string; to: string };
  bytes: number;
  /** Of TCP. */
  seq?: number;
  flags?: number;
}

/** A frame with right checksums, or, as who wants them filled in leaves it, with none. */
function l4Frame(
  to: string,
  from: string,
  { protocol, flow, bytes, seq = 1, flags = 0x10 }: L4,
  filled = true,
) {
  const data = [...payload(bytes)];
  const be32 = (n: number) => [...be16(n >>> 16), ...be16(n & 0xffff)];
  const header =
    protocol === UDP
      ? [...be16(1000), ...be16(2000), ...be16(8 + bytes), 0, 0]
      : [...be16(1000), ...be16(2000), ...be32(seq), ...be32(9), 0x50, flags, ...be16(500), 0, 0, 0, 0];
  const at = protocol === UDP ? 6 : 16;
  const sum = l4Checksum(flow.from, flow.to, protocol, [...header, ...data]);
  if (filled) header.splice(at, 2, ...be16(sum || 0xffff));
  const long = flow.from.includes(":");
  const ip = long
    ? ipv6({ ...flow, next: protocol }, [...header, ...data])
    : ipv4({ ...flow, protocol }, [...header, ...data]);
  if (!long && !filled) ip.splice(10, 2, 0, 0);
  return ether(to, from, long ? IPV6 : IPV4, ip);
}

const KINDS: [string, L4][] = [
  ["UDP over IPv4", { protocol: UDP, flow: FLOW, bytes: 200 }],
  ["UDP over IPv4, an odd length", { protocol: UDP, flow: FLOW, bytes: 33 }],
  ["TCP over IPv4", { protocol: TCP, flow: FLOW, bytes: 1000 }],
  ["UDP over IPv6", { protocol: UDP, flow: FLOW6, bytes: 77 }],
  ["TCP over IPv6, no payload", { protocol: TCP, flow: FLOW6, bytes: 0 }],
];

const L3 = Offload.IPV4_CHECKSUM;
const L4_ALL = Offload.UDP_CHECKSUM | Offload.TCP_CHECKSUM;

/** Who does it: the card, where it can, and else the host. */
const WHO: [string, NicOptions, boolean][] = [
  ["the card", { offloads: ALL }, true],
  ["the card, of a copy", { offloads: ALL }, false],
  ["the card, which has virtual functions", { offloads: ALL, vfs: 1 }, true],
  ["the host", {}, true],
  ["the host, in buffers that it copies to", {}, false],
];

const stats = (r: Rig) => {
  const port = r.host.stats().ports.find(({ name }) => name === r.guest.name);
  return { emulated: port?.emulated ?? 0, bytes: port?.emulatedBytes ?? 0, drops: port?.drops };
};

describe.each(WHO)("%s", (who, card, zeroCopy) => {
  const native = who.startsWith("the card");

  test.each(KINDS)("fills in checksums of %s", async (_, kind) => {
    const r = await rig(card, { tx: L3 | L4_ALL }, zeroCopy);
    const whole = l4Frame(WIRE, r.guest.mac, kind);
    for (const most of [2048, 120, 95]) {
      r.raw.send(l4Frame(WIRE, r.guest.mac, kind, false), { offload: L3 | L4_ALL }, most);
      r.host.drain();
      expect(sent(r.nic)).toEqual([whole]);
      r.host.drain();
      r.raw.sent();
    }
    expect(r.raw.txDone).toBe(r.raw.txNext);
    expect(stats(r)).toEqual({ emulated: native ? 0 : 3, bytes: native ? 0 : 3 * whole.length, drops: {} });
    expect(r.host.stats().nics[0]?.offloaded).toBe(native ? 3 : 0);
    expect(astray(r.host)).toBe(0);
  });

  test("cuts TCP into segments", async () => {
    const r = await rig(card, { tx: L3 | L4_ALL | Offload.TSO }, zeroCopy);
    // FIN, PSH, ACK, CWR: the first and the last have some of them only.
    const kind = { protocol: TCP, flow: FLOW, bytes: 5000, seq: 0xffff_ff00, flags: 0x99 };
    r.raw.send(
      l4Frame(WIRE, r.guest.mac, kind, false),
      { offload: Offload.TSO | L3 | L4_ALL, mss: 1460 },
      1000,
    );
    r.host.drain();
    const data = payload(5000);
    const frames = sent(r.nic);
    expect(frames.map((frame) => frame.length)).toEqual([1514, 1514, 1514, 54 + 620]);
    frames.forEach((frame, k) => {
      const tcp = [...frame.subarray(34)];
      expect(internetChecksum(frame.subarray(14, 34))).toBe(0);
      expect(l4Checksum(FLOW.from, FLOW.to, TCP, tcp)).toBe(0);
      const view = new DataView(frame.buffer, frame.byteOffset);
      expect(view.getUint16(16)).toBe(frame.length - 14);
      expect(view.getUint16(18)).toBe(0x1234 + k);
      expect(view.getUint32(38)).toBe((0xffff_ff00 + k * 1460) >>> 0);
      expect(frame[47]).toBe(k === 0 ? 0x90 : k === 3 ? 0x19 : 0x10);
      expect(frame.subarray(54)).toEqual(data.subarray(k * 1460, k * 1460 + 1460));
    });
    r.host.drain();
    expect(r.raw.sent()).toBe(6);
    expect(stats(r)).toMatchObject({ emulated: native ? 0 : 1, drops: {} });
    expect(astray(r.host)).toBe(0);
  });

  test("puts a VLAN tag on what is sent, and takes it off what is received", async () => {
    const r = await rig(card, { rx: Offload.VLAN, tx: Offload.VLAN }, zeroCopy);
    const out = l4Frame(WIRE, r.guest.mac, KINDS[0]?.[1] as L4);
    r.raw.send(out, { offload: Offload.VLAN, tci: 0x6123 });
    r.raw.post(8);
    r.host.drain();
    expect(sent(r.nic)).toEqual([tagged(out, 0x6123)]);
    const back = l4Frame(r.guest.mac, WIRE, KINDS[0]?.[1] as L4);
    r.nic.receive([tagged(back, 0x2005), back, tagged(tagged(back, 7), 9)]);
    r.host.drain();
    const got = [r.raw.receive(), r.raw.receive(), r.raw.receive()];
    expect(got.map((one) => one?.frame)).toEqual([back, back, tagged(back, 7)]);
    expect(got.map((one) => (one?.first.offload ?? 0) & PacketFlag.RX_VLAN)).toEqual([2048, 0, 2048]);
    expect([got[0]?.first.tci, got[2]?.first.tci]).toEqual([0x2005, 9]);
    expect(astray(r.host)).toBe(0);
  });

  test.each(KINDS)("tells whether checksums of %s are right", async (_, kind) => {
    const r = await rig(card, { rx: L3 | L4_ALL }, zeroCopy);
    r.raw.post(16, 128);
    r.host.drain();
    const good = l4Frame(r.guest.mac, WIRE, kind);
    const badL4 = good.slice();
    badL4[badL4.length - 1] = (badL4[badL4.length - 1] as number) ^ 1;
    const badL3 = good.slice();
    badL3[22] = (badL3[22] as number) ^ 1; // time to live
    const padded = Uint8Array.from([...good, 1, 2, 3]);
    const long = kind.flow === FLOW6;
    const [l3, l3Bad] = long ? [0, 0] : [PacketFlag.RX_IPV4_GOOD, PacketFlag.RX_IPV4_BAD];
    const { RX_L4_GOOD, RX_L4_BAD } = PacketFlag;
    const cases: [Uint8Array, number][] = [
      [good, l3 | RX_L4_GOOD],
      [badL4, l3 | RX_L4_BAD],
      [padded, l3 | RX_L4_GOOD],
      ...(long ? [] : ([[badL3, l3Bad | RX_L4_GOOD]] as [Uint8Array, number][])),
    ];
    for (const [frame, known] of cases) {
      r.nic.receive([frame]);
      r.host.drain();
      const got = r.raw.receive();
      expect(got?.frame).toEqual(frame);
      expect(got?.first.offload).toBe(known);
      r.raw.post(16 - (r.raw.rxNext - r.raw.rxDone), 128);
      r.host.drain();
    }
    expect(stats(r).emulated).toBe(native && zeroCopy ? 0 : cases.length);
    expect(astray(r.host)).toBe(0);
  });
});

test("what has no checksum is not said to be right or wrong", async () => {
  for (const card of [{ offloads: ALL }, {}]) {
    const r = await rig(card, { rx: L3 | L4_ALL });
    r.raw.post(8);
    r.host.drain();
    const udp = l4Frame(r.guest.mac, WIRE, { protocol: UDP, flow: FLOW, bytes: 20 }, false);
    const fixed = udp.slice();
    const sum = internetChecksum([...udp.subarray(14, 34)]);
    fixed.set(be16(sum), 24);
    const arp = ether(r.guest.mac, WIRE, 0x0806, payload(46));
    const fragment = ether(
      r.guest.mac,
      WIRE,
      IPV4,
      ipv4({ ...FLOW, protocol: UDP, fragment: 0x2000 }, payload(40)),
    );
    r.nic.receive([fixed, arp, fragment]);
    r.host.drain();
    const known = [r.raw.receive(), r.raw.receive(), r.raw.receive()].map((got) => got?.first.offload);
    expect(known).toEqual([PacketFlag.RX_IPV4_GOOD, 0, PacketFlag.RX_IPV4_GOOD]);
  }
});

test("RSS: the card tells the hash of each frame's flow", async () => {
  const r = await rig({}, { rx: Offload.RSS });
  r.raw.post(8);
  r.host.drain();
  const flow = { from: "66.9.149.187", to: "161.142.100.80" };
  // The first of Microsoft's test vectors: ports 2794 and 1766.
  const frame = l4Frame(r.guest.mac, WIRE, { protocol: TCP, flow, bytes: 10 });
  frame.set([...be16(2794), ...be16(1766)], 34);
  r.nic.receive([frame]);
  r.host.drain();
  const got = r.raw.receive();
  expect(got?.first.offload).toBe(PacketFlag.RX_HASH);
  expect(got?.first.hash).toBe(0x51ccc178);
  expect(stats(r).emulated).toBe(0);
});

describe("an offload that can't be done ends the queue that asks for it", () => {
  test.each([
    ["TSO of what isn't TCP", { offload: Offload.TSO, mss: 1000 }, KINDS[0]?.[1] as L4],
    ["TSO to segments of no length", { offload: Offload.TSO, mss: 0 }, KINDS[2]?.[1] as L4],
  ])("%s", async (_, ask, kind) => {
    const r = await rig({}, { tx: Offload.TSO });
    r.raw.send(l4Frame(WIRE, r.guest.mac, kind), ask);
    r.host.drain();
    expect(stats(r).drops).toEqual({ "refused.offload": 1 });
    expect(r.nic.transmit()).toBe(0);
    expect(astray(r.host)).toBe(0);
  });

  test("where the card does it, the card drops the frame and counts it", async () => {
    const r = await rig({ offloads: ALL }, { tx: Offload.TSO });
    r.raw.send(l4Frame(WIRE, r.guest.mac, KINDS[0]?.[1] as L4), { offload: Offload.TSO, mss: 1000 });
    r.host.drain();
    expect(r.nic.transmit()).toBe(0);
    expect(r.host.stats().nics[0]?.drops).toEqual({ txMalformed: 1 });
    r.host.drain();
    expect(r.raw.sent()).toBe(1);
  });
});

describe("the feature table", () => {
  const feature = offloadBits(["udpChecksum"]);
  const run = async (card: NicOptions, asked: boolean) => {
    const r = await rig(card, asked ? { tx: feature } : {});
    const frame = l4Frame(WIRE, r.guest.mac, KINDS[0]?.[1] as L4);
    r.raw.send(frame, asked ? { offload: feature } : {});
    r.host.drain();
    expect(sent(r.nic)).toEqual([frame]);
    const info = r.guest.ethdev?.info();
    return {
      emulated: stats(r).emulated,
      offloaded: r.host.stats().nics[0]?.offloaded,
      offered: info?.txOffloads.includes("udpChecksum"),
      native: info?.native.tx.includes("udpChecksum"),
    };
  };

  test("card and guest: it is used", async () => {
    const used = { emulated: 0, offloaded: 1, offered: true, native: true };
    expect(await run({ offloads: ["udpChecksum"] }, true)).toEqual(used);
  });
  test("the guest alone: it is emulated, at a price", async () => {
    expect(await run({}, true)).toEqual({ emulated: 1, offloaded: 0, offered: true, native: false });
  });
  test("the card alone: it isn't lost, the guest is told of it", async () => {
    const told = { emulated: 0, offloaded: 0, offered: true, native: true };
    expect(await run({ offloads: ["udpChecksum"] }, false)).toEqual(told);
  });

  /** The same of flow rules, whose price is a copy and a look of the host's at each frame. */
  const runFlow = async (card: NicOptions, asked: boolean) => {
    const r = await rig(card, {});
    const { ethdev } = r.guest;
    if (asked) ethdev?.flowCreate("ingress pattern eth / ipv4 / udp dst is 2000 / end actions drop / end");
    r.raw.post(8);
    r.host.drain();
    const kinds = [KINDS[0], KINDS[2]].map((kind) => kind?.[1] as L4);
    r.nic.receive(kinds.map((kind) => l4Frame(r.guest.mac, WIRE, kind)));
    r.host.drain();
    let received = 0;
    while (r.raw.receive()) received++;
    const { most, native } = ethdev?.info().flows ?? {};
    const copies = r.host.stats().ports.find(({ name }) => name === r.guest.name)?.copies;
    return { received, copies, offered: most !== 0, native };
  };

  test("flow rules, card and guest: the card drops the frame", async () => {
    expect(await runFlow({}, true)).toEqual({ received: 1, copies: 0, offered: true, native: true });
  });
  test("flow rules, the guest alone: the driver drops it, and copies what it has let pass", async () => {
    const emulated = { received: 1, copies: 1, offered: true, native: false };
    expect(await runFlow({ flowOffload: false }, true)).toEqual(emulated);
  });
  test("flow rules, the card alone: the guest is told of them", async () => {
    expect(await runFlow({}, false)).toEqual({ received: 2, copies: 0, offered: true, native: true });
  });
});
