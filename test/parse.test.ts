/** Where a frame's fields are, and that nothing is read behind its end. */
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { type Functions, instantiate } from "./harness/harness.ts";

const SEED = 20;
const KEY = 0x1000;

let call: Functions;
let bytes: Uint8Array;
beforeAll(async () => {
  const harness = await instantiate();
  call = harness.call;
  bytes = new Uint8Array(harness.memory.buffer);
});

const be16 = (n: number) => [n >> 8, n & 255];
const MACS = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
const eth = (type: number, payload: number[], tags: number[] = []) => [
  ...MACS,
  ...tags.flatMap((tag) => [...be16(tag), 0, 7]),
  ...be16(type),
  ...payload,
];
const FROM4 = [10, 1, 2, 3];
const TO4 = [192, 168, 9, 8];
const FROM6 = [0xfd, ...Array(14).fill(1), 2];
const TO6 = [0xfe, 0x80, ...Array(13).fill(3), 4];
const PORTS = [...be16(1234), ...be16(53)];
interface Ipv4Options {
  options?: number;
  fragment?: number;
  version?: number;
  ihl?: number;
}
function ipv4(
  protocol: number,
  payload: number[],
  { options = 0, fragment = 0, version = 4, ihl = 5 + options }: Ipv4Options = {},
) {
  const header: number[] = [
    (version << 4) | ihl,
    0,
    0,
    0,
    0,
    0,
    ...be16(fragment),
    64,
    protocol,
    0,
    0,
    ...FROM4,
    ...TO4,
  ];
  return [...header, ...Array(4 * options).fill(1), ...payload];
}
const ipv6 = (next: number, payload: number[], version = 6) => [
  version << 4,
  0,
  0,
  0,
  0,
  0,
  next,
  64,
  ...FROM6,
  ...TO6,
  ...payload,
];

interface Flow {
  source: number[];
  destination: number[];
  ports: number[];
  protocol: number;
  family: number;
}
/** Of a frame whose last byte is memory's last: a read behind it would trap. */
function flow(frame: number[], len = frame.length): Flow | undefined {
  const at = bytes.length - len;
  bytes.set(frame.slice(0, len), at);
  bytes.fill(0xee, KEY - 16, KEY + 56);
  const found = Boolean(call.flow!(at, len, KEY));
  expect(
    [...bytes.subarray(KEY - 16, KEY), ...bytes.subarray(KEY + 40, KEY + 56)].every((b) => b === 0xee),
  ).toBe(true);
  if (!found) return undefined;
  const part = (from: number, to: number) => [...bytes.subarray(KEY + from, KEY + to)];
  return {
    source: part(0, 16),
    destination: part(16, 32),
    ports: part(32, 36),
    protocol: bytes[KEY + 36]!,
    family: bytes[KEY + 37]!,
  };
}
const pad = (list: number[]) => [...list, ...Array(16 - list.length).fill(0)];
const flow4 = (protocol: number, ports = [0, 0, 0, 0]): Flow => ({
  source: pad(FROM4),
  destination: pad(TO4),
  ports,
  protocol,
  family: 4,
});
const flow6 = (protocol: number, ports = [0, 0, 0, 0]): Flow => ({
  source: FROM6,
  destination: TO6,
  ports,
  protocol,
  family: 6,
});
function etherType(frame: number[], len = frame.length): number {
  const at = bytes.length - len;
  bytes.set(frame.slice(0, len), at);
  return call.etherType!(at, len);
}

describe("parse", () => {
  it("a MAC address's first byte is the lowest", () => {
    bytes.set([1, 2, 3, 4, 5, 6, 7, 8], KEY);
    expect(call.mac!(KEY)).toBe(0x060504030201n);
  });

  it("finds the EtherType behind none, one or two VLAN tags, and no third", () => {
    for (const tag of [0x8100, 0x88a8]) {
      expect(etherType(eth(0x0800, []))).toBe(12);
      expect(etherType(eth(0x0800, [], [tag]))).toBe(16);
      expect(etherType(eth(0x0800, [], [0x88a8, tag]))).toBe(20);
      expect(etherType(eth(0x0800, [], [0x88a8, 0x8100, tag]))).toBe(0);
    }
  });

  it("finds no EtherType in a frame that ends before it", () => {
    const frame = eth(0x0800, [], [0x8100, 0x8100]);
    for (let n = 0; n < frame.length; n++) expect(etherType(frame, n)).toBe(0);
  });

  it("IPv4: addresses and protocol, ports of TCP, UDP, SCTP and UDP-Lite only", () => {
    for (let protocol = 0; protocol < 256; protocol++) {
      const has = [6, 17, 132, 136].includes(protocol);
      expect(flow(eth(0x0800, ipv4(protocol, PORTS)))).toEqual(flow4(protocol, has ? PORTS : undefined));
    }
  });

  it("IPv4: ports stand behind the options, and the tags", () => {
    for (let options = 0; options <= 10; options++)
      expect(flow(eth(0x0800, ipv4(17, PORTS, { options }), [0x88a8, 0x8100]))).toEqual(flow4(17, PORTS));
  });

  it("IPv4: the first fragment has ports, a later one hasn't", () => {
    expect(flow(eth(0x0800, ipv4(17, PORTS, { fragment: 0x2000 })))).toEqual(flow4(17, PORTS));
    expect(flow(eth(0x0800, ipv4(17, PORTS, { fragment: 0x4000 })))).toEqual(flow4(17, PORTS));
    for (const fragment of [1, 0x2001, 0x1fff])
      expect(flow(eth(0x0800, ipv4(17, PORTS, { fragment })))).toEqual(flow4(17));
  });

  it("IPv4: no flow with a wrong version, or a header that is too short or longer than the frame", () => {
    for (const version of [0, 5, 6, 15])
      expect(flow(eth(0x0800, ipv4(6, PORTS, { version })))).toBeUndefined();
    for (const ihl of [0, 1, 4, 7, 15]) expect(flow(eth(0x0800, ipv4(6, PORTS, { ihl })))).toBeUndefined();
    expect(flow(eth(0x0800, ipv4(6, PORTS, { ihl: 6 })))).toEqual(flow4(6)); // no room for ports is left
  });

  it("IPv6: addresses, next header, ports", () => {
    for (const next of [6, 17, 132, 136])
      expect(flow(eth(0x86dd, ipv6(next, PORTS)))).toEqual(flow6(next, PORTS));
    for (const next of [1, 50, 58, 59]) expect(flow(eth(0x86dd, ipv6(next, PORTS)))).toEqual(flow6(next));
    for (const version of [0, 4, 5, 7]) expect(flow(eth(0x86dd, ipv6(17, PORTS, version)))).toBeUndefined();
  });

  it("IPv6: ports stand behind extension headers, each by its own measure of length", () => {
    const plain = (next: number, units: number) => [next, units, ...Array(6 + 8 * units).fill(9)];
    const authentication = (next: number, units: number) => [
      next,
      units,
      ...Array((units + 2) * 4 - 2).fill(9),
    ];
    for (const first of [0, 43, 60])
      for (const units of [0, 1, 5])
        expect(flow(eth(0x86dd, ipv6(first, [...plain(17, units), ...PORTS])))).toEqual(flow6(17, PORTS));
    for (const units of [1, 4])
      expect(flow(eth(0x86dd, ipv6(51, [...authentication(6, units), ...PORTS])))).toEqual(flow6(6, PORTS));
    const chain = [
      ...plain(60, 1),
      ...plain(43, 0),
      ...plain(44, 2),
      51,
      0,
      0,
      1,
      0,
      0,
      0,
      1,
      ...authentication(17, 4),
    ];
    expect(flow(eth(0x86dd, ipv6(0, [...chain, ...PORTS])))).toEqual(flow6(17, PORTS));
  });

  it("IPv6: the first fragment has ports, a later one hasn't", () => {
    const fragment = (offset: number) => [17, 0xff, ...be16(offset << 3), 1, 2, 3, 4, ...PORTS];
    expect(flow(eth(0x86dd, ipv6(44, fragment(0))))).toEqual(flow6(17, PORTS));
    for (const offset of [1, 0x1fff])
      expect(flow(eth(0x86dd, ipv6(44, fragment(offset))))).toEqual(flow6(17));
  });

  it("gives up on an endless row of extension headers", () => {
    const row = Array.from({ length: 40 }, () => [60, 0, 0, 0, 0, 0, 0, 0]).flat();
    expect(flow(eth(0x86dd, ipv6(60, row)))).toEqual(flow6(60));
  });

  it("finds no flow in what isn't IP", () => {
    for (const type of [0x0806, 0x88cc, 0, 0xffff, 46])
      expect(flow(eth(type, ipv4(6, PORTS)))).toBeUndefined();
  });

  it("reads nothing behind a frame that is cut anywhere, and takes no ports that aren't there", () => {
    const v4 = eth(0x0800, ipv4(6, PORTS, { options: 2 }), [0x8100]);
    const v6 = eth(0x86dd, ipv6(0, [60, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0, ...PORTS]));
    for (const [frame, header] of [
      [v4, 18 + 28],
      [v6, 14 + 40],
    ] as const)
      for (let n = 0; n <= frame.length; n++) {
        const found = flow(frame, n);
        expect(found !== undefined).toBe(n >= header);
        if (found) expect(found.ports).toEqual(n === frame.length ? PORTS : [0, 0, 0, 0]);
      }
  });

  it("reads nothing behind any frame at all", () => {
    const type = fc.constantFrom([8, 0], [0x86, 0xdd], [0x81, 0, 0, 1, 8, 0], [0x88, 0xa8, 0, 1, 0x86, 0xdd]);
    const first = fc.constantFrom(0x45, 0x46, 0x4f, 0x60);
    const rest = fc.array(fc.constantFrom(0, 6, 17, 43, 44, 51, 60, 255, 1, 2, 200), {
      maxLength: 120,
      size: "max",
    });
    fc.assert(
      fc.property(type, first, rest, (t, f, r) => void flow([...MACS, ...t, f, ...r])),
      { seed: SEED, numRuns: 3000 },
    );
  });
});
