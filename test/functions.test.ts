/** Guests' network functions, by the frames that go in and come back. */
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { Guest as GuestLayout, Rule } from "../assembly/layout.ts";
import { type GuestOptions, Host, parseRules, readCapture } from "../src/index.ts";
import * as frames from "./frames.ts";
import {
  ARP,
  BROADCAST,
  be16,
  ether,
  ICMP,
  ICMPV6,
  IPV4,
  IPV6,
  ipv4,
  ipv6,
  macBytes,
  ports,
  TCP,
  UDP,
} from "./frames.ts";

const ME = "02:00:00:00:00:01"; // the first guest's by default
const PEER = "02:00:00:00:ff:01";
const NEXT = "02:00:00:00:ff:02";
const MY_IP = "10.0.0.1";
const PEER_IP = "10.0.0.9";
const MY_IP6 = "2001:db8:0:0:0:0:0:1";
const PEER_IP6 = "2001:db8:0:0:0:0:0:9";

/** A guest behind a port; `answers`: what comes back for some frames. */
async function rig(options: GuestOptions) {
  const host = await Host.create();
  const port = host.port();
  const guest = host.guest({ attach: "vhost", ...options });
  host.vswitch({ connect: [port, guest] });
  const answers = (...some: Uint8Array[]) => {
    expect(port.push(some)).toBe(some.length);
    host.drain();
    return frames.taken(port);
  };
  const stats = () => host.stats().guests[0]!;
  return { host, port, guest, answers, stats };
}

const counting = (n: number) => Array.from({ length: n }, (_, i) => i & 255);
const exchanged = (frame: Uint8Array) =>
  Uint8Array.from([...frame.subarray(6, 12), ...frame.subarray(0, 6), ...frame.subarray(12)]);
const GROUP = "01:00:5e:00:00:01";
const readdressed = (frame: Uint8Array, to: string, from: string) =>
  Uint8Array.from([...macBytes(to), ...macBytes(from), ...frame.subarray(12)]);

describe("macswap", () => {
  test.each([14, 15, 60, 1514, 2048])("%i bytes come back with the addresses exchanged", async (size) => {
    const { answers } = await rig({ run: "macswap" });
    const frame = ether(ME, PEER, 0x88b5, counting(size - 14));
    expect(answers(frame)).toEqual([exchanged(frame)]);
  });

  test("a frame over several merged buffers comes back whole", async () => {
    const { answers } = await rig({ run: "macswap", bufferSize: 512 });
    const frame = ether(ME, PEER, 0x88b5, counting(2000));
    expect(answers(frame)).toEqual([exchanged(frame)]);
  });

  test.each(["vhost", "iovtee"] as const)("each frame of a real capture, over %s", async (attach) => {
    const host = await Host.create();
    const nic = host.nic();
    const guest = host.guest({ attach, run: "macswap" });
    host.vswitch({ connect: [nic, guest] });
    let n = 0;
    for (const { data } of readCapture(
      fileURLToPath(new URL("../captures/sample.pcapng", import.meta.url)),
    )) {
      const frame = readdressed(data, guest.mac, PEER);
      nic.receive([frame]);
      host.drain();
      expect(frames.sent(nic).map((one) => Buffer.compare(one, exchanged(frame)))).toEqual([0]);
      n++;
    }
    expect(n).toBeGreaterThan(100);
  });
});

describe("l2fwd", () => {
  const frame = ether(ME, PEER, 0x88b5, counting(46));

  test("without a next hop a frame goes back to its sender, from the guest's own address", async () => {
    const { answers } = await rig({ run: "l2fwd" });
    expect(answers(frame)).toEqual([readdressed(frame, PEER, ME)]);
    // Sent to all: the answer is not from "all".
    expect(answers(readdressed(frame, BROADCAST, PEER))).toEqual([readdressed(frame, PEER, ME)]);
  });

  test.each(["l2fwd", "macswap"] as const)("%s with a next hop: there, from the guest", async (run) => {
    const host = await Host.create();
    const [port, next] = [host.port(), host.port()];
    const guest = host.guest({ attach: "vhost", run, nextHop: NEXT });
    host.vswitch({ connect: [port, next, guest] });
    next.push([ether(PEER, NEXT, 0x88b5)]); // the switch learns where it is
    port.push([frame]);
    host.drain();
    frames.taken(port);
    expect(frames.taken(next)).toEqual([readdressed(frame, NEXT, ME)]);
    guest.nextHop = PEER;
    port.push([frame]);
    host.drain();
    expect(frames.taken(next)).toEqual([]);
    expect(frames.taken(port)).toEqual([readdressed(frame, PEER, ME)]);
  });
});

test("sink: takes all and sends nothing, for longer than its ring", async () => {
  const { answers, stats } = await rig({ run: "sink", ring: 16 });
  // More than it has buffers in all: each must have come back.
  const ten = Array(10).fill(ether(ME, PEER, 0x88b5, counting(46)));
  for (let i = 0; i < 50; i++) expect(answers(...ten)).toEqual([]);
  expect(stats()).toMatchObject({ received: 500, transmitted: 0, drops: { function: 500 } });
});

interface Arp {
  hardware?: number;
  protocol?: number;
  sizes?: number[];
  operation?: number;
  target?: string;
}
/** RFC 826: who has `target`? */
const arp = ({ hardware = 1, protocol = IPV4, sizes = [6, 4], operation = 1, target = MY_IP }: Arp = {}) => [
  ...be16(hardware),
  ...be16(protocol),
  ...sizes,
  ...be16(operation),
  ...macBytes(PEER),
  ...frames.ipBytes(PEER_IP),
  ...macBytes("00:00:00:00:00:00"),
  ...frames.ipBytes(target),
];

describe("echo: ARP", () => {
  const request = ether(BROADCAST, PEER, ARP, [...arp(), ...Array(18).fill(0)]);
  const reply = ether(PEER, ME, ARP, [
    ...[0, 1, 8, 0, 6, 4, 0, 2],
    ...macBytes(ME),
    ...frames.ipBytes(MY_IP),
    ...macBytes(PEER),
    ...frames.ipBytes(PEER_IP),
    ...Array(18).fill(0),
  ]);

  test("a request is answered with the guest's address, to whoever asked", async () => {
    const { answers } = await rig({ run: "echo", ipv4: MY_IP });
    expect(answers(request)).toEqual([reply]);
    expect(answers(readdressed(request, ME, PEER))).toEqual([reply]); // asked again, not by broadcast
  });

  test("the answer keeps the request's VLAN tag", async () => {
    const { answers } = await rig({ run: "echo", ipv4: MY_IP });
    expect(answers(frames.tagged(request, 7))).toEqual([frames.tagged(reply, 7)]);
  });

  test("a guest without an address of its own answers for every one", async () => {
    const { answers } = await rig({ run: "echo" });
    expect(answers(request)).toEqual([reply]);
    expect(answers(ether(BROADCAST, PEER, ARP, arp().slice(0, 27)))).toEqual([]); // but not for part of one
  });

  test.each([
    ["for another address", arp({ target: "10.0.0.2" })],
    ["a reply", arp({ operation: 2 })],
    ["RARP", arp({ operation: 3 })],
    ["not Ethernet", arp({ hardware: 6 })],
    ["not IPv4", arp({ protocol: IPV6 })],
    ["other sizes", arp({ sizes: [8, 4] })],
    ["cut off", arp().slice(0, 27)],
    ["empty", []],
  ])("not answered: %s", async (_name, payload) => {
    const { answers, stats } = await rig({ run: "echo", ipv4: MY_IP });
    expect(answers(ether(BROADCAST, PEER, ARP, payload))).toEqual([]);
    expect(stats()).toMatchObject({ received: 1, transmitted: 0, drops: { function: 1 } });
  });

  test.each([
    ["flooded, for another station", readdressed(request, NEXT, PEER)],
    ["from a group address", readdressed(request, BROADCAST, GROUP)],
  ])("not answered: %s", async (_name, frame) => {
    const { answers, stats } = await rig({ run: "echo", ipv4: MY_IP });
    expect(answers(frame)).toEqual([]);
    expect(stats()).toMatchObject({ received: 1, transmitted: 0, drops: { function: 1 } });
  });
});

/** An ICMP message with a right checksum; `pseudo`: what ICMPv6 adds to it (RFC 4443, 2.3). */
function icmp(type: number, id: number, data: number[], code = 0, pseudo: number[] = []): number[] {
  const message = [type, code, 0, 0, ...be16(id), ...be16(1), ...data];
  message.splice(2, 2, ...be16(frames.internetChecksum([...pseudo, ...message])));
  return message;
}
const pseudo6 = (from: string, to: string, length: number) => [
  ...frames.ipBytes(from),
  ...frames.ipBytes(to),
  ...[0, 0, ...be16(length), 0, 0, 0, ICMPV6],
];

/** Its header checksum over as many words as the header says that it has, so that it's only wrong in what it says. */
function summed(frame: Uint8Array): Uint8Array {
  const [made, words] = [frame.slice(), frame[14]! & 15];
  made.set([0, 0], 24);
  made.set(be16(frames.internetChecksum(made.subarray(14, 14 + 4 * words))), 24);
  return made;
}

describe("echo: ICMP", () => {
  const header = { from: PEER_IP, to: MY_IP, protocol: ICMP };
  const ping = (id: number, data: number[], more = {}) =>
    summed(ether(ME, PEER, IPV4, ipv4({ ...header, ...more }, icmp(8, id, data))));
  const pong = (id: number, data: number[], more = {}) =>
    ether(PEER, ME, IPV4, ipv4({ from: MY_IP, to: PEER_IP, protocol: ICMP, ...more }, icmp(0, id, data)));

  test.each([0, 1, 2, 31, 56, 1472])("a request with %i bytes of data is answered", async (size) => {
    const { answers } = await rig({ run: "echo", ipv4: MY_IP });
    const [answer] = answers(ping(77, counting(size)));
    expect(answer).toEqual(pong(77, counting(size)));
    // Once more, by sums over what came: 0 where a checksum is right.
    expect(frames.internetChecksum(answer!.subarray(14, 34))).toBe(0);
    expect(frames.internetChecksum(answer!.subarray(34))).toBe(0);
  });

  test("the checksum is right for every carry", async () => {
    const { answers } = await rig({ run: "echo", ipv4: MY_IP });
    // The checksum of a request without data is the complement of 0x0801 + id: ids around every edge.
    const edges = [0, 0xf7fe, 0x07fe, 0x0800, 0xefff, 0xffff, 0x8000];
    const ids = edges.flatMap((edge) => [-2, -1, 0, 1, 2].map((d) => (edge + d) & 0xffff));
    const got = answers(...ids.map((id) => ping(id, [])));
    expect(got).toEqual(ids.map((id) => pong(id, []))); // 0 where that is the sum, never 0xffff (RFC 1624, 3)
    expect(got.map((one) => frames.internetChecksum(one.subarray(34)))).toEqual(ids.map(() => 0));
  });

  test("an answer of zeros only has the checksum 0xffff, which 0 doesn't stand for", async () => {
    const { answers } = await rig({ run: "echo", ipv4: MY_IP });
    const zeros = (type: number, sum: number) => [type, 0, ...be16(sum), ...Array(12).fill(0)];
    const padding = [1, 2]; // not part of it
    const request = ether(ME, PEER, IPV4, [...ipv4(header, zeros(8, 0xf7ff)), ...padding]);
    const back = { from: MY_IP, to: PEER_IP, protocol: ICMP };
    expect(answers(request)).toEqual([ether(PEER, ME, IPV4, [...ipv4(back, zeros(0, 0xffff)), ...padding])]);
  });

  test("options in the header, a VLAN tag and padding are no hindrance", async () => {
    const { answers } = await rig({ run: "echo", ipv4: MY_IP });
    const options = { options: [1, 1, 1, 0] };
    expect(answers(ping(5, [1, 2], options))).toEqual([pong(5, [1, 2], options)]);
    expect(answers(frames.tagged(ping(5, [1, 2]), 0x6007))).toEqual([frames.tagged(pong(5, [1, 2]), 0x6007)]);
    const padding = Array(18).fill(0);
    expect(answers(Uint8Array.from([...ping(5, []), ...padding]))).toEqual([
      Uint8Array.from([...pong(5, []), ...padding]),
    ]);
  });

  test.each([
    ["for another address", ping(1, [], { to: "10.0.0.2" })],
    ["the first fragment", ping(1, counting(64), { fragment: 0x2000 })],
    ["a later fragment", ping(1, counting(64), { fragment: 8 })],
    ["not ICMP", ping(1, [], { protocol: UDP })],
    ["an echo reply", ether(ME, PEER, IPV4, ipv4(header, icmp(0, 1, [])))],
    ["a timestamp request", ether(ME, PEER, IPV4, ipv4(header, icmp(13, 1, [])))],
    ["version 6", ping(1, [], { version: 6 })],
    ["a header of 4 words", ping(1, [], { headerWords: 4 })],
    // Where ICMP would begin, there stands the type of a request.
    ["a header that leaves no room for ICMP", ping(0x0800, [], { headerWords: 6 })],
    ["a header longer than the frame", ping(1, [], { headerWords: 15 })],
    ["cut off in the ICMP header", ping(1, []).subarray(0, 14 + 27)],
    ["cut off in the IP header", ping(1, []).subarray(0, 14 + 19)],
    ["nothing behind the Ethernet header", ping(1, []).subarray(0, 14)],
    ["cut off in a VLAN tag", frames.tagged(ping(1, []), 7).subarray(0, 17)],
    ["flooded, for another station", readdressed(ping(1, []), NEXT, PEER)],
    ["for its address, in a frame to all (RFC 1122, 3.3.6)", readdressed(ping(1, []), BROADCAST, PEER)],
    ["from a group's MAC address", readdressed(ping(1, []), ME, GROUP)],
    ["from a multicast address", ping(1, [], { from: "224.0.0.1" })],
    ["from the broadcast address", ping(1, [], { from: "255.255.255.255" })],
    ["a total length beyond the frame", ping(1, [], { totalLength: 29 })],
    ["a total length that leaves no room for ICMP", ping(1, [], { totalLength: 27 })],
    ["a total length that options leave no room in", ping(1, [], { options: [1, 1, 1, 0], totalLength: 31 })],
    ["a wrong header checksum", ping(1, []).map((byte, i) => (i === 22 ? byte - 1 : byte))], // TTL
    [
      "a wrong checksum over options",
      ping(1, [], { options: [1, 1, 1, 0] }).map((byte, i) => (i === 37 ? 1 : byte)),
    ],
  ])("not answered: %s", async (_name, frame) => {
    const { answers, stats } = await rig({ run: "echo", ipv4: MY_IP });
    expect(answers(frame)).toEqual([]);
    expect(stats()).toMatchObject({ received: 1, transmitted: 0, drops: { function: 1 } });
    expect(answers(ping(2, []))).toEqual([pong(2, [])]); // and goes on
  });

  test("a guest without an address of its own answers for every one, but for no group (RFC 1122, 3.2.1.3)", async () => {
    const { answers } = await rig({ run: "echo" });
    for (const to of ["10.0.0.2", "223.255.255.255"])
      expect(answers(ping(1, [], { to }))).toEqual([pong(1, [], { from: to })]);
    expect(answers(readdressed(ping(1, [], { to: "224.0.0.1" }), GROUP, PEER))).toEqual([]);
    expect(answers(readdressed(ping(1, [], { to: "255.255.255.255" }), BROADCAST, PEER))).toEqual([]);
  });

  test("not answered: a header of 4 words, in whose address a request seems to begin", async () => {
    const { answers } = await rig({ run: "echo", ipv4: "8.0.0.1" });
    expect(answers(ping(1, [], { to: "8.0.0.1", headerWords: 4 }))).toEqual([]);
  });

  test("what it doesn't answer costs it no buffer", async () => {
    const { answers } = await rig({ run: "echo", ipv4: MY_IP, ring: 16 });
    for (let i = 0; i < 300; i++)
      expect(answers(ping(i, [], { to: "10.0.0.2" }), ping(i, []))).toEqual([pong(i, [])]);
  });
});

describe("echo: ICMPv6", () => {
  const message = (type: number, id: number, data: number[], from: string, to: string) =>
    ipv6({ from, to, next: ICMPV6 }, icmp(type, id, data, 0, pseudo6(from, to, 8 + data.length)));
  const ping = (id: number, data: number[], to = MY_IP6) =>
    ether(ME, PEER, IPV6, message(128, id, data, PEER_IP6, to));
  const pong = (id: number, data: number[]) =>
    ether(PEER, ME, IPV6, message(129, id, data, MY_IP6, PEER_IP6));
  const wrong = (what: { from?: string; version?: number; payloadLength?: number }) => {
    const header = { from: PEER_IP6, to: MY_IP6, next: ICMPV6, ...what };
    return ether(ME, PEER, IPV6, ipv6(header, icmp(128, 1, [], 0, pseudo6(header.from, MY_IP6, 8))));
  };

  test.each([0, 1, 56, 1452])("a request with %i bytes of data is answered", async (size) => {
    const { answers } = await rig({ run: "echo" });
    const [answer] = answers(ping(77, counting(size)));
    expect(answer).toEqual(pong(77, counting(size)));
    const sum = [...pseudo6(MY_IP6, PEER_IP6, 8 + size), ...answer!.subarray(54)];
    expect(frames.internetChecksum(sum)).toBe(0);
  });

  test("padding is no hindrance, and comes back", async () => {
    const { answers } = await rig({ run: "echo" });
    const padded = (frame: Uint8Array) => Uint8Array.from([...frame, 0, 0, 0]);
    expect(answers(padded(ping(5, [1, 2])))).toEqual([padded(pong(5, [1, 2]))]);
  });

  test("the checksum is right for every borrow", async () => {
    const { answers } = await rig({ run: "echo" });
    const request = ping(0, []);
    const checksum = (request[56]! << 8) | request[57]!;
    // An id that is larger by n makes the checksum smaller by n: those around 0, 0x100 and 0xffff.
    const ids = [0, 0xff, 0x100, 0x101, 0xfffe, 0xffff].flatMap((edge) =>
      [-1, 0, 1].map((d) => (checksum - edge + d) & 0xffff),
    );
    expect(answers(...ids.map((id) => ping(id, [])))).toEqual(ids.map((id) => pong(id, [])));
  });

  test.each([
    ["to a multicast address", ping(1, [], "ff02:0:0:0:0:0:0:1")],
    ["an echo reply", ether(ME, PEER, IPV6, message(129, 1, [], PEER_IP6, MY_IP6))],
    ["a neighbour solicitation", ether(ME, PEER, IPV6, message(135, 1, counting(16), PEER_IP6, MY_IP6))],
    [
      "not ICMPv6",
      ether(ME, PEER, IPV6, ipv6({ from: PEER_IP6, to: MY_IP6, next: UDP }, [128, 0, 0, 0, 0, 0, 0, 0])),
    ],
    [
      "behind a hop-by-hop header",
      ether(
        ME,
        PEER,
        IPV6,
        ipv6({ from: PEER_IP6, to: MY_IP6, next: 0 }, [58, 0, 1, 4, 0, 0, 0, 0, ...icmp(128, 1, [])]),
      ),
    ],
    ["cut off in the ICMPv6 header", ping(1, []).subarray(0, 14 + 47)],
    ["cut off in the IPv6 header", ping(1, []).subarray(0, 14 + 39)],
    ["flooded, for another station", readdressed(ping(1, []), NEXT, PEER)],
    ["for its address, in a frame to all (RFC 1122, 3.3.6)", readdressed(ping(1, []), BROADCAST, PEER)],
    ["from a group's MAC address", readdressed(ping(1, []), ME, GROUP)],
    ["from a multicast address", wrong({ from: "ff02:0:0:0:0:0:0:1" })],
    ["version 4", wrong({ version: 4 })],
    ["a payload length beyond the frame", wrong({ payloadLength: 9 })],
    ["a payload length that leaves no room for ICMPv6", wrong({ payloadLength: 7 })],
  ])("not answered: %s", async (_name, frame) => {
    const { answers, stats } = await rig({ run: "echo" });
    expect(answers(frame)).toEqual([]);
    expect(stats().drops).toEqual({ function: 1 });
  });
});

test("echo answers no other protocol", async () => {
  const { answers, stats } = await rig({ run: "echo" });
  expect(
    answers(ether(ME, PEER, 0x88b5, counting(46)), ether(BROADCAST, PEER, 0x8847, counting(46))),
  ).toEqual([]);
  expect(stats()).toMatchObject({ received: 2, drops: { function: 2 } });
});

describe("firewall", () => {
  interface Flow {
    from?: string;
    to?: string;
    protocol?: number;
    ports?: [number, number];
  }
  const v4 = ({ from = "10.0.0.9", to = "192.0.2.1", protocol = TCP, ports: p = [1024, 80] }: Flow = {}) =>
    ether(ME, PEER, IPV4, ipv4({ from, to, protocol }, ports(...p)));
  const v6 = ({
    from = "2001:db8:0:0:0:0:0:9",
    to = "2001:db8:1:0:0:0:0:1",
    protocol = TCP,
    ports: p = [1024, 80],
  }: Flow = {}) => ether(ME, PEER, IPV6, ipv6({ from, to, next: protocol }, ports(...p)));

  /** Which of the frames come back, their addresses exchanged. */
  async function allowed(rules: string, ...some: Uint8Array[]): Promise<boolean[]> {
    const { answers, stats } = await rig({ run: "firewall", rules: parseRules(rules) });
    const result = some.map((frame) => {
      const back = answers(frame);
      expect(back).toEqual(back.length ? [exchanged(frame)] : []);
      return back.length === 1;
    });
    const denied = result.filter((one) => !one).length;
    expect(stats()).toMatchObject({ received: some.length, drops: denied ? { function: denied } : {} });
    return result;
  }

  test("without a rule that matches: denied, or the default", async () => {
    const all = [v4(), v6(), ether(ME, PEER, ARP, arp())];
    expect(await allowed("", ...all)).toEqual([false, false, false]);
    expect(await allowed("allow udp", ...all)).toEqual([false, false, false]);
    expect(await allowed("deny udp\ndefault allow", ...all)).toEqual([true, true, true]);
  });

  test("the first rule that matches decides", async () => {
    expect(await allowed("allow tcp\ndeny tcp from 10.0.0.9", v4())).toEqual([true]);
    expect(await allowed("deny tcp from 10.0.0.9\nallow tcp", v4(), v4({ from: "10.0.0.8" }))).toEqual([
      false,
      true,
    ]);
    expect(await allowed("deny udp\ndeny icmp\nallow tcp\ndefault deny", v4())).toEqual([true]);
  });

  test("a range of ports includes both ends, the source's and the destination's", async () => {
    const to = (port: number) => v4({ ports: [9, port] });
    const from = (port: number) => v4({ ports: [port, 9] });
    const ends = [79, 80, 443, 444];
    const rule = "allow tcp to 192.0.2.1 port 80-443";
    expect(await allowed(rule, ...ends.map(to))).toEqual([false, true, true, false]);
    expect(await allowed(rule, ...ends.map(from))).toEqual([false, false, false, false]);
    expect(await allowed("allow tcp from 10.0.0.9 port 80-443", ...ends.map(from))).toEqual([
      false,
      true,
      true,
      false,
    ]);
    expect(
      await allowed("allow udp to 192.0.2.1 port 65535", v4({ protocol: UDP, ports: [1, 65535] })),
    ).toEqual([true]);
  });

  test("IPv4 addresses under their prefix", async () => {
    const from = (address: string) => v4({ from: address });
    const near = ["10.0.0.0", "10.0.0.127", "10.0.0.128", "10.0.1.0", "11.0.0.0"].map(from);
    expect(await allowed("allow ip from 10.0.0.0/25", ...near)).toEqual([true, true, false, false, false]);
    expect(await allowed("allow ip from 10.0.0.0/8", ...near)).toEqual([true, true, true, true, false]);
    expect(await allowed("allow ip from 10.0.0.127", ...near)).toEqual([false, true, false, false, false]);
    expect(
      await allowed(
        "allow ip to 192.0.2.1",
        v4(),
        v4({ to: "192.0.2.2" }),
        v4({ from: "192.0.2.1", to: "10.0.0.9" }),
      ),
    ).toEqual([true, false, false]);
  });

  test("IPv6 addresses under their prefix", async () => {
    const to = (address: string) => v6({ to: address });
    const near = [
      "2001:db8:1:0:0:0:0:1",
      "2001:db8:1:0:0:0:0:2",
      "2001:db8:8000:0:0:0:0:1",
      "2001:db9:0:0:0:0:0:1",
    ].map(to);
    expect(await allowed("allow tcp to 2001:db8::/32 port 80", ...near)).toEqual([true, true, true, false]);
    expect(await allowed("allow tcp to 2001:db8::/33 port 80", ...near)).toEqual([true, true, false, false]);
    expect(await allowed("allow tcp to 2001:db8:1::1", ...near)).toEqual([true, false, false, false]);
  });

  test("a rule for one family isn't one for the other", async () => {
    const both = [v4(), v6()];
    expect(await allowed("allow ip", ...both)).toEqual([true, false]);
    expect(await allowed("allow ip6", ...both)).toEqual([false, true]);
    expect(await allowed("allow tcp from 0.0.0.0/0", ...both)).toEqual([true, false]);
    expect(await allowed("allow tcp from ::/0", ...both)).toEqual([false, true]);
    expect(await allowed("allow tcp", ...both)).toEqual([true, true]);
  });

  test("protocols by name and by number", async () => {
    const all = [TCP, UDP, ICMP, 132].map((protocol) => v4({ protocol }));
    expect(await allowed("allow tcp", ...all)).toEqual([true, false, false, false]);
    expect(await allowed("allow udp", ...all)).toEqual([false, true, false, false]);
    expect(await allowed("allow icmp", ...all)).toEqual([false, false, true, false]);
    expect(await allowed("allow 132", ...all)).toEqual([false, false, false, true]);
    expect(await allowed("allow icmpv6", v6({ protocol: ICMPV6 }), v6(), v4({ protocol: ICMPV6 }))).toEqual([
      true,
      false,
      false,
    ]);
  });

  test("looks behind one and two VLAN tags", async () => {
    const both = (frame: Uint8Array) => [frames.tagged(frame, 5), frames.tagged(frames.tagged(frame, 5), 6)];
    const rules = "allow tcp to 192.0.2.1 port 80\nallow tcp to 2001:db8::/32 port 80";
    expect(await allowed(rules, ...both(v4()), ...both(v6()))).toEqual([true, true, true, true]);
    expect(await allowed(rules, ...both(v4({ ports: [80, 81] })))).toEqual([false, false]);
  });

  test("what isn't IP meets only rules that ask for nothing of IP", async () => {
    const request = ether(BROADCAST, PEER, ARP, arp());
    expect(await allowed("allow ip\nallow ip6\nallow tcp\nallow from 0.0.0.0/0", request)).toEqual([false]);
    expect(await allowed("deny ip\ndeny ip6\ndeny tcp\nallow", request)).toEqual([true]);
  });

  test("a later fragment has no ports, whatever its first bytes look like", async () => {
    const fragment = ether(
      ME,
      PEER,
      IPV4,
      ipv4({ from: PEER_IP, to: "192.0.2.1", protocol: UDP, fragment: 1 }, ports(53, 53)),
    );
    const first = ether(
      ME,
      PEER,
      IPV4,
      ipv4({ from: PEER_IP, to: "192.0.2.1", protocol: UDP, fragment: 0x2000 }, ports(53, 53)),
    );
    expect(await allowed("allow udp to 192.0.2.1 port 53", first, fragment)).toEqual([true, false]);
  });

  test("ports behind IPv6 extension headers and IPv4 options are found", async () => {
    const extended = ipv6({ from: PEER_IP6, to: "2001:db8:1:0:0:0:0:1", next: 0 }, [
      60,
      0,
      1,
      4,
      0,
      0,
      0,
      0,
      TCP,
      0,
      1,
      4,
      0,
      0,
      0,
      0,
      ...ports(9, 80),
    ]);
    const optioned = ipv4(
      { from: PEER_IP, to: "192.0.2.1", protocol: TCP, options: [1, 1, 1, 0, 1, 1, 1, 0] },
      ports(9, 80),
    );
    const both = [ether(ME, PEER, IPV6, extended), ether(ME, PEER, IPV4, optioned)];
    const rules = (port: number) => `allow tcp to ::/0 port ${port}\nallow tcp to 0.0.0.0/0 port ${port}`;
    expect(await allowed(rules(80), ...both)).toEqual([true, true]);
    expect(await allowed(rules(81), ...both)).toEqual([false, false]);
  });

  describe("what can't be read up to its ports meets no rule, and is dropped", () => {
    const TO = "2001:db8:1:0:0:0:0:1";
    const extended = (next: number, ...rest: number[]) =>
      ether(ME, PEER, IPV6, ipv6({ from: PEER_IP6, to: TO, next }, rest));
    /** An extension header of 8 bytes, and a fragment header. */
    const option = (next: number) => [next, 0, 1, 4, 0, 0, 0, 0];
    const fragment = (next: number, offset: number, more = 1) => [
      next,
      0,
      ...be16((offset << 3) | more),
      0,
      0,
      0,
      1,
    ];
    const options = (n: number, next: number) =>
      Array.from({ length: n }, (_, i) => option(i + 1 < n ? 60 : next)).flat();
    const behind = (n: number) => extended(60, ...options(n, TCP), ...ports(9, 22));
    const tags = (n: number, frame: Uint8Array): Uint8Array =>
      n ? tags(n - 1, frames.tagged(frame, n)) : frame;
    const first = (frame: Uint8Array, n: number) => frame.subarray(0, n);
    const old = (header: object) =>
      ether(ME, PEER, IPV4, ipv4({ from: PEER_IP, to: "192.0.2.1", protocol: TCP, ...header }, ports(9, 22)));

    test.each<[string, Uint8Array, whole: boolean]>([
      ["a port behind eight extension headers", behind(8), true],
      ["nine extension headers", behind(9), false],
      ["forty of them", behind(40), false],
      ["two VLAN tags", tags(2, v4()), true],
      ["three VLAN tags", tags(3, v4()), false],
      ["three VLAN tags before IPv6", tags(3, v6()), false],
      ["three VLAN tags before what isn't IP", tags(3, ether(ME, PEER, ARP, arp())), false],
      ["cut off in a VLAN tag", first(tags(1, v4()), 16), false],
      ["IPv4 with ports and no more", first(v4(), 14 + 24), true],
      ["IPv4 cut off in its ports", first(v4(), 14 + 23), false],
      ["IPv4 cut off before its ports", first(v4(), 14 + 20), false],
      ["IPv4 cut off in its header", first(v4(), 14 + 19), false],
      ["a first fragment without ports", first(old({ fragment: 0x2000 }), 14 + 20), false],
      ["a later fragment", first(old({ fragment: 1 }), 14 + 20), true],
      ["IPv4 in name only", old({ version: 6 }), false],
      ["an IPv4 header of 4 words", old({ headerWords: 4 }), false],
      ["an IPv4 header longer than the frame", old({ headerWords: 15 }), false],
      ["ICMP, which has no ports, cut off", first(v4({ protocol: ICMP }), 14 + 20), true],
      ["IPv6 with ports and no more", first(v6(), 14 + 44), true],
      ["IPv6 cut off in its ports", first(v6(), 14 + 43), false],
      ["IPv6 cut off before its ports", first(v6(), 14 + 40), false],
      ["IPv6 cut off in its header", first(v6(), 14 + 39), false],
      [
        "IPv6 in name only",
        ether(ME, PEER, IPV6, ipv6({ from: PEER_IP6, to: TO, next: TCP, version: 4 }, ports(9, 22))),
        false,
      ],
      ["ICMPv6 cut off", extended(ICMPV6), true],
      ["an extension header cut off", first(extended(60, ...option(ICMPV6)), 14 + 47), false],
      ["none where one should be", extended(60), false],
      ["an extension header longer than the frame", extended(60, ICMPV6, 1, 1, 4, 0, 0, 0, 0), false],
      ["an extension header up to the frame's end", extended(60, ICMPV6, 0, 1, 4, 0, 0, 0, 0), true],
      ["a first IPv6 fragment with ports", extended(44, ...fragment(TCP, 0), ...ports(9, 22)), true],
      ["a first IPv6 fragment without ports", extended(44, ...fragment(TCP, 0)), false],
      ["a later IPv6 fragment", extended(44, ...fragment(TCP, 1), 1, 2, 3), true],
      [
        "a later IPv6 fragment of who knows what",
        extended(44, ...fragment(60, 1), ...option(UDP), ...ports(9, 22)),
        false,
      ],
      ["what isn't IP", ether(ME, PEER, ARP, arp()), true],
    ])("%s", async (_name, frame, whole) => {
      expect(await allowed("default allow", frame)).toEqual([whole]);
      expect(await allowed("allow", frame)).toEqual([whole]);
      expect(await allowed("deny udp\nallow ip\nallow ip6\nallow 60\ndefault allow", frame)).toEqual([whole]);
    });

    test("so a rule that denies isn't got round", async () => {
      const rules = "deny tcp to ::/0 port 22\ndeny tcp to 0.0.0.0/0 port 80\ndefault allow";
      const all = [behind(8), behind(9), tags(2, v4()), tags(3, v4()), first(v4(), 14 + 23)];
      expect(await allowed(rules, ...all)).toEqual(all.map(() => false));
    });
  });

  test("each rule counts the frames that it decided", async () => {
    const r = await rig({ run: "firewall", rules: parseRules("deny udp\nallow tcp\ndefault deny") });
    r.answers(v4(), v4(), v4({ protocol: UDP }), v6(), v4({ protocol: ICMP }));
    const table = r.host.core.u32(r.guest.address + GuestLayout.table);
    const hits = [0, 1, 2].map((i) => r.host.core.counter(table + i * Rule.SIZE + Rule.hits));
    expect(hits).toEqual([1, 3, 1]);
  });
});
