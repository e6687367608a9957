/** Frames for tests, built byte by byte from the RFCs: nothing here is shared with the core. */
import { Nic as NicLayout, Packet, RxQueue, TxQueue } from "../assembly/layout.ts";
import type { FramePort, Host, Nic } from "../src/index.ts";

/** The station at the far end of the wire. */
export const WIRE = "02:00:00:00:ff:01";
export const BROADCAST = "ff:ff:ff:ff:ff:ff";
export const ARP = 0x0806;
export const IPV4 = 0x0800;
export const IPV6 = 0x86dd;
export const ICMP = 1;
export const TCP = 6;
export const UDP = 17;
export const ICMPV6 = 58;

type Bytes = readonly number[] | Uint8Array;

export const be16 = (n: number): number[] => [(n >> 8) & 255, n & 255];
export const macBytes = (mac: string): number[] => mac.split(":").map((part) => Number.parseInt(part, 16));
/** "10.0.0.1", or a full IPv6 address: eight groups. */
export const ipBytes = (ip: string): number[] =>
  ip.includes(":")
    ? ip.split(":").flatMap((group) => be16(Number.parseInt(group, 16)))
    : ip.split(".").map(Number);

/** An Ethernet frame; `tags`: VLAN tags, outermost first, each the 16 bits behind 0x8100. */
export function ether(
  to: string,
  from: string,
  type: number,
  payload: Bytes = [],
  tags: number[] = [],
): Uint8Array {
  const tagged = tags.flatMap((tag) => [0x81, 0, ...be16(tag)]);
  return Uint8Array.from([...macBytes(to), ...macBytes(from), ...tagged, ...be16(type), ...payload]);
}

/** An Ethernet frame of `size` bytes that no protocol knows (802: 0x88b5 is for experiments). */
export function frame(to: string, from: string, size = 60, fill = 0x33): Uint8Array {
  return ether(to, from, 0x88b5, Array(size - 14).fill(fill));
}

/** The same frame with a VLAN tag. */
export function tagged(frame: Uint8Array, tag: number): Uint8Array {
  return Uint8Array.from([...frame.subarray(0, 12), 0x81, 0, ...be16(tag), ...frame.subarray(12)]);
}

export interface Ipv4Header {
  from: string;
  to: string;
  protocol: number;
  /** Flags and fragment offset. */
  fragment?: number;
  /** What the header says where it isn't the truth. */
  version?: number;
  headerWords?: number;
  totalLength?: number;
  /** Bytes of options, a multiple of 4. */
  options?: number[];
}

/** RFC 791, with a right header checksum. */
export function ipv4(header: Ipv4Header, payload: Bytes): number[] {
  const options = header.options ?? [];
  const words = header.headerWords ?? 5 + options.length / 4;
  const total = header.totalLength ?? 20 + options.length + payload.length;
  const bytes = [
    ((header.version ?? 4) << 4) | words,
    0,
    ...be16(total),
    ...[0x12, 0x34],
    ...be16(header.fragment ?? 0),
    ...[64, header.protocol, 0, 0],
    ...ipBytes(header.from),
    ...ipBytes(header.to),
    ...options,
  ];
  bytes.splice(10, 2, ...be16(internetChecksum(bytes)));
  return [...bytes, ...payload];
}

export interface Ipv6Header {
  from: string;
  to: string;
  next: number;
  version?: number;
  payloadLength?: number;
}

/** RFC 8200. */
export function ipv6(header: Ipv6Header, payload: Bytes): number[] {
  return [
    (header.version ?? 6) << 4,
    ...[0, 0, 0],
    ...be16(header.payloadLength ?? payload.length),
    ...[header.next, 64],
    ...ipBytes(header.from),
    ...ipBytes(header.to),
    ...payload,
  ];
}

/** Two ports and a little more: enough of TCP or UDP for whoever only looks at ports. */
export const ports = (from: number, to: number): number[] => [
  ...be16(from),
  ...be16(to),
  ...Array(16).fill(0),
];

/** What stands in a header whose checksum field reads 0; 0 over bytes whose checksum is right (RFC 1071). */
export function internetChecksum(bytes: Bytes): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += (bytes[i] as number) * 256 + (bytes[i + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return 0xffff - sum;
}

/** `frame` with its number in the last four bytes. */
export function numbered(frame: Uint8Array, n: number): Uint8Array {
  const made = frame.slice();
  new DataView(made.buffer).setUint32(made.length - 4, n);
  return made;
}
export const numberOf = (frame: Uint8Array): number =>
  new DataView(frame.buffer, frame.byteOffset).getUint32(frame.length - 4);

/** Copies of all that the switch sent to a port. */
export function taken(port: FramePort): Uint8Array[] {
  const all: Uint8Array[] = [];
  while (port.take((frames) => all.push(...frames.map((frame) => frame.slice()))) > 0);
  return all;
}

/** Copies of all that a card sends. */
export function sent(nic: Nic): Uint8Array[] {
  const all: Uint8Array[] = [];
  nic.transmit((frames) => all.push(...frames.map((frame) => frame.slice())));
  return all;
}

/** Host buffers that are out, less those that stand in the cards' rings: 0 unless some are on their way or lost. */
export function astray(host: Host): number {
  const { core } = host;
  const inRing = (ring: number, mask: number, from: number, to: number) => {
    let n = 0;
    for (let i = from; i !== to; i = (i + 1) >>> 0) {
      if (core.u16(ring + (i & mask) * Packet.SIZE + Packet.owner) === host.poolId) n++;
    }
    return n;
  };
  let held = 0;
  for (const nic of host.nics) {
    for (let i = 0; i < core.u32(nic.address + NicLayout.rxQueues); i++) {
      const at = (field: RxQueue) => core.u32(nic.rxQueue(i) + field);
      held += inRing(at(RxQueue.ring), at(RxQueue.mask), at(RxQueue.next), at(RxQueue.posted));
    }
    const at = (field: TxQueue) => core.u32(core.u32(nic.address + NicLayout.tx) + field);
    held += inRing(at(TxQueue.ring), at(TxQueue.mask), at(TxQueue.clean), at(TxQueue.next));
  }
  return host.stats().pool.outstanding - held;
}
