/**
 * The fields that rules match and set, under ovs-ofctl's names (ovs-fields(7)), and where they stand in a key (layout:
 * `FlowMatch`).
 */
import { FlowField, FlowMatch } from "../../assembly/layout.ts";
import { ipv4Bytes, ipv4Text, ipv6Bytes, ipv6Text, prefixMask } from "../ip.ts";
import { macBytes, macText } from "../mac.ts";

/** A key and its mask: FlowMatch.SIZE bytes each; what isn't masked is 0. */
export interface Match {
  readonly key: Uint8Array;
  readonly mask: Uint8Array;
}

/** A value under a mask, as bytes in network order. */
export interface Masked {
  readonly value: Uint8Array;
  readonly mask: Uint8Array;
}

/** What a frame must be for a field to mean something: EtherTypes, and IP protocols. */
export interface Needs {
  readonly types: readonly number[];
  readonly protocols?: readonly number[];
  /** How rules say it: "ip", "tcp". */
  readonly says: string;
}

export interface Field {
  readonly name: string;
  readonly at: number;
  readonly bytes: number;
  /** @returns nothing for what can't be read */
  readonly parse: (text: string) => Masked | undefined;
  /** What is expected, where it can't be. */
  readonly expected: string;
  readonly needs?: Needs;
  /** What a SET of it is; fields without are matched only. */
  readonly sets?: FlowField;
}

export const IPV4 = 0x0800;
export const ARP = 0x0806;
export const IPV6 = 0x86dd;

const IP: Needs = { types: [IPV4, IPV6], says: "ip or ipv6" };
const IP_OR_ARP: Needs = { types: [IPV4, IPV6, ARP], says: "ip, ipv6 or arp" };

const V4_OR_ARP: Needs = { types: [IPV4, ARP], says: "ip or arp" };
const V6: Needs = { types: [IPV6], says: "ipv6" };
const OF_ARP: Needs = { types: [ARP], says: "arp" };
const PORTS: Needs = { types: [IPV4, IPV6], protocols: [6, 17, 132], says: "tcp, udp or sctp (or tcp6 ...)" };
const TCP: Needs = { types: [IPV4, IPV6], protocols: [6], says: "tcp or tcp6" };
const UDP: Needs = { types: [IPV4, IPV6], protocols: [17], says: "udp or udp6" };
const SCTP: Needs = { types: [IPV4, IPV6], protocols: [132], says: "sctp or sctp6" };
const ICMP: Needs = { types: [IPV4], protocols: [1], says: "icmp" };
const ICMPV6: Needs = { types: [IPV6], protocols: [58], says: "icmp6" };

/** Words that stand for an EtherType, and an IP protocol. */
export const SHORTHANDS: Readonly<Record<string, readonly [type: number, protocol?: number]>> = {
  ip: [IPV4],
  ipv4: [IPV4],
  icmp: [IPV4, 1],
  tcp: [IPV4, 6],
  udp: [IPV4, 17],
  sctp: [IPV4, 132],
  ipv6: [IPV6],
  ip6: [IPV6],
  tcp6: [IPV6, 6],
  udp6: [IPV6, 17],
  sctp6: [IPV6, 132],
  icmp6: [IPV6, 58],
  arp: [ARP],
};

/** `text` as a whole number from 0 to `most`, decimal or 0x. */
export function wholeNumber(text: string, most: number): number | undefined {
  if (!/^(?:\d+|0[xX][\da-fA-F]+)$/.test(text)) return undefined;
  const n = Number(text);
  return n <= most ? n : undefined;
}

const be = (n: number, bytes: number): Uint8Array =>
  bytes === 1 ? Uint8Array.of(n) : Uint8Array.of(n >> 8, n & 255);
const ones = (bytes: number): Uint8Array => new Uint8Array(bytes).fill(255);

/** A number, or with `masks` number/mask. */
function number(bytes: number, masks = false, most = bytes === 1 ? 255 : 65535) {
  const all = bytes === 1 ? 255 : 65535;
  return (text: string): Masked | undefined => {
    const [left = "", right, more] = text.split("/");
    const value = wholeNumber(left, most);
    const mask = right === undefined ? all : masks ? wholeNumber(right, all) : undefined;
    if (value === undefined || mask === undefined || more !== undefined) return undefined;
    return { value: be(value & mask, bytes), mask: be(mask, bytes) };
  };
}

function mac(text: string): Masked | undefined {
  const parts = text.split("/");
  if (parts.length > 2) return undefined;
  const read = parts.map(macBytes);
  const [value, mask = ones(6)] = read;
  if (!value || read.includes(undefined)) return undefined;
  return { value: value.map((byte, i) => byte & (mask[i] as number)), mask };
}

/** An address, or address/length, or address/mask. */
function address(bytes: (text: string) => Uint8Array | undefined, size: number) {
  return (text: string): Masked | undefined => {
    const [left = "", right, more] = text.split("/");
    const value = bytes(left);
    const length = right === undefined ? 8 * size : wholeNumber(right, 8 * size);
    const mask = length === undefined ? bytes(right as string) : prefixMask(length, size);
    if (!value || !mask || more !== undefined) return undefined;
    for (let i = 0; i < size; i++) value[i] = (value[i] as number) & (mask[i] as number);
    return { value, mask };
  };
}

/** 13 bits: a VLAN with the bit that says that there is a tag. */
const PRESENT = 0x1000;

function vlan(text: string): Masked | undefined {
  if (wholeNumber(text, 0xffff) === 0xffff) return { value: be(0, 2), mask: be(0xffff, 2) };
  const n = wholeNumber(text, 4095);
  return n === undefined ? undefined : { value: be(PRESENT | n, 2), mask: be(0x1fff, 2) };
}

/** OpenFlow's: with the present bit, or plain; with a mask as it stands. */
function vlanVid(text: string): Masked | undefined {
  if (text.includes("/")) return number(2, true, 0x1fff)(text);
  const n = wholeNumber(text, 0x1fff);
  if (n === undefined || n === PRESENT) return undefined;
  return { value: be(PRESENT | n, 2), mask: be(0x1fff, 2) };
}

function vlanPcp(text: string): Masked | undefined {
  const n = wholeNumber(text, 7);
  return n === undefined ? undefined : { value: be(PRESENT | (n << 13), 2), mask: be(0xf000, 2) };
}

/** A number of some bits of a byte, from bit `shift` on; `most` as it is written. */
function bits(mask: number, shift: number, most: number) {
  return (text: string): Masked | undefined => {
    const n = wholeNumber(text, most);
    if (n === undefined || (n << shift) & ~mask) return undefined;
    return { value: Uint8Array.of(n << shift), mask: Uint8Array.of(mask) };
  };
}

/** Value and mask of FlowFragment. */
export const FRAGMENTS: Readonly<Record<string, readonly [value: number, mask: number]>> = {
  no: [0, 3],
  yes: [1, 1],
  first: [1, 3],
  later: [3, 3],
  not_later: [0, 2],
};

function fragment(text: string): Masked | undefined {
  const found = Object.hasOwn(FRAGMENTS, text) ? FRAGMENTS[text] : undefined;
  return found && { value: Uint8Array.of(found[0]), mask: Uint8Array.of(found[1]) };
}

const TCP_FLAGS = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns"];

function tcpFlags(text: string): Masked | undefined {
  if (/^\d/.test(text)) return number(2, true, 0xfff)(text);
  let value = 0;
  let mask = 0;
  let read = 0;
  for (const [all, sign, name = ""] of text.matchAll(/([+-])([a-z]+)/g)) {
    const bit = TCP_FLAGS.indexOf(name);
    if (bit < 0) return undefined;
    mask |= 1 << bit;
    if (sign === "+") value |= 1 << bit;
    read += all.length;
  }
  return mask && read === text.length ? { value: be(value, 2), mask: be(mask, 2) } : undefined;
}

const A_MAC = "a MAC address, as in 02:00:00:00:00:01, or with a mask behind /";
const AN_IP = "an IPv4 address, as in 10.0.0.1, 10.0.0.0/8 or 10.0.0.0/255.0.0.0";
const AN_IP6 = "an IPv6 address, as in 2001:db8::1 or 2001:db8::/32";
const A_BYTE = "a number from 0 to 255";
const A_PORT = "a port from 0 to 65535, or with a mask behind /";

/** Type and code of ICMP stand in the low bytes of the ports' place. */
const low = (at: FlowMatch): number => at + 1;

const LIST: readonly (Field & { aliases?: readonly string[] })[] = [
  {
    name: "dl_src",
    aliases: ["eth_src"],
    at: FlowMatch.dlSrc,
    bytes: 6,
    parse: mac,
    expected: A_MAC,
    sets: FlowField.ETHERNET,
  },
  {
    name: "dl_dst",
    aliases: ["eth_dst"],
    at: FlowMatch.dlDst,
    bytes: 6,
    parse: mac,
    expected: A_MAC,
    sets: FlowField.ETHERNET,
  },
  {
    name: "dl_type",
    aliases: ["eth_type"],
    at: FlowMatch.dlType,
    bytes: 2,
    parse: number(2),
    expected: "an EtherType, as in 0x0800",
  },
  {
    name: "dl_vlan",
    at: FlowMatch.vlanTci,
    bytes: 2,
    parse: vlan,
    expected: "a VLAN from 0 to 4095, or 0xffff for none",
  },
  {
    name: "vlan_vid",
    at: FlowMatch.vlanTci,
    bytes: 2,
    parse: vlanVid,
    expected: "a VLAN from 0 to 4095, or one with 0x1000 added, or a value with a mask behind /",
    sets: FlowField.VLAN,
  },
  {
    name: "dl_vlan_pcp",
    aliases: ["vlan_pcp"],
    at: FlowMatch.vlanTci,
    bytes: 2,
    parse: vlanPcp,
    expected: "a priority from 0 to 7",
    sets: FlowField.VLAN,
  },
  {
    name: "vlan_tci",
    at: FlowMatch.vlanTci,
    bytes: 2,
    parse: number(2, true),
    expected: "16 bits, as in 0x1005 or 0x1000/0x1000",
  },
  {
    name: "nw_src",
    aliases: ["ip_src"],
    at: FlowMatch.nwSrc,
    bytes: 4,
    parse: address(ipv4Bytes, 4),
    expected: AN_IP,
    needs: V4_OR_ARP,
    sets: FlowField.IPV4,
  },
  {
    name: "nw_dst",
    aliases: ["ip_dst"],
    at: FlowMatch.nwDst,
    bytes: 4,
    parse: address(ipv4Bytes, 4),
    expected: AN_IP,
    needs: V4_OR_ARP,
    sets: FlowField.IPV4,
  },
  {
    name: "ipv6_src",
    at: FlowMatch.ipv6Src,
    bytes: 16,
    parse: address(ipv6Bytes, 16),
    expected: AN_IP6,
    needs: V6,
    sets: FlowField.IPV6,
  },
  {
    name: "ipv6_dst",
    at: FlowMatch.ipv6Dst,
    bytes: 16,
    parse: address(ipv6Bytes, 16),
    expected: AN_IP6,
    needs: V6,
    sets: FlowField.IPV6,
  },
  {
    name: "nw_proto",
    aliases: ["ip_proto"],
    at: FlowMatch.nwProto,
    bytes: 1,
    parse: number(1),
    expected: A_BYTE,
    needs: IP_OR_ARP,
  },
  {
    name: "nw_tos",
    at: FlowMatch.nwTos,
    bytes: 1,
    parse: bits(0xfc, 0, 252),
    expected: "a number from 0 to 252 whose two lowest bits are 0",
    needs: IP,
    sets: FlowField.IP,
  },
  {
    name: "ip_dscp",
    at: FlowMatch.nwTos,
    bytes: 1,
    parse: bits(0xfc, 2, 63),
    expected: "a number from 0 to 63",
    needs: IP,
    sets: FlowField.IP,
  },
  {
    name: "nw_ecn",
    aliases: ["ip_ecn"],
    at: FlowMatch.nwTos,
    bytes: 1,
    parse: bits(3, 0, 3),
    expected: "a number from 0 to 3",
    needs: IP,
    sets: FlowField.IP,
  },
  {
    name: "nw_ttl",
    at: FlowMatch.nwTtl,
    bytes: 1,
    parse: number(1),
    expected: A_BYTE,
    needs: IP,
    sets: FlowField.IP,
  },
  {
    name: "nw_frag",
    aliases: ["ip_frag"],
    at: FlowMatch.nwFrag,
    bytes: 1,
    parse: fragment,
    expected: Object.keys(FRAGMENTS).join(", "),
    needs: IP,
  },
  {
    name: "tcp_flags",
    at: FlowMatch.tcpFlags,
    bytes: 2,
    parse: tcpFlags,
    expected: `flags of ${TCP_FLAGS.join(", ")}, as in +syn-ack, or a number up to 0xfff`,
    needs: TCP,
  },
  {
    name: "tp_src",
    at: FlowMatch.tpSrc,
    bytes: 2,
    parse: number(2, true),
    expected: A_PORT,
    needs: PORTS,
    sets: FlowField.PORTS,
  },
  {
    name: "tp_dst",
    at: FlowMatch.tpDst,
    bytes: 2,
    parse: number(2, true),
    expected: A_PORT,
    needs: PORTS,
    sets: FlowField.PORTS,
  },
  {
    name: "tcp_src",
    at: FlowMatch.tpSrc,
    bytes: 2,
    parse: number(2, true),
    expected: A_PORT,
    needs: TCP,
    sets: FlowField.PORTS,
  },
  {
    name: "tcp_dst",
    at: FlowMatch.tpDst,
    bytes: 2,
    parse: number(2, true),
    expected: A_PORT,
    needs: TCP,
    sets: FlowField.PORTS,
  },
  {
    name: "udp_src",
    at: FlowMatch.tpSrc,
    bytes: 2,
    parse: number(2, true),
    expected: A_PORT,
    needs: UDP,
    sets: FlowField.PORTS,
  },
  {
    name: "udp_dst",
    at: FlowMatch.tpDst,
    bytes: 2,
    parse: number(2, true),
    expected: A_PORT,
    needs: UDP,
    sets: FlowField.PORTS,
  },
  { name: "sctp_src", at: FlowMatch.tpSrc, bytes: 2, parse: number(2, true), expected: A_PORT, needs: SCTP },
  { name: "sctp_dst", at: FlowMatch.tpDst, bytes: 2, parse: number(2, true), expected: A_PORT, needs: SCTP },
  {
    name: "icmp_type",
    at: low(FlowMatch.tpSrc),
    bytes: 1,
    parse: number(1),
    expected: A_BYTE,
    needs: ICMP,
    sets: FlowField.ICMP,
  },
  {
    name: "icmp_code",
    at: low(FlowMatch.tpDst),
    bytes: 1,
    parse: number(1),
    expected: A_BYTE,
    needs: ICMP,
    sets: FlowField.ICMP,
  },
  {
    name: "icmpv6_type",
    at: low(FlowMatch.tpSrc),
    bytes: 1,
    parse: number(1),
    expected: A_BYTE,
    needs: ICMPV6,
    sets: FlowField.ICMPV6,
  },
  {
    name: "icmpv6_code",
    at: low(FlowMatch.tpDst),
    bytes: 1,
    parse: number(1),
    expected: A_BYTE,
    needs: ICMPV6,
    sets: FlowField.ICMPV6,
  },
  {
    name: "arp_op",
    at: FlowMatch.nwProto,
    bytes: 1,
    parse: number(1),
    expected: A_BYTE,
    needs: OF_ARP,
    sets: FlowField.ARP,
  },
  {
    name: "arp_spa",
    at: FlowMatch.nwSrc,
    bytes: 4,
    parse: address(ipv4Bytes, 4),
    expected: AN_IP,
    needs: OF_ARP,
    sets: FlowField.ARP,
  },
  {
    name: "arp_tpa",
    at: FlowMatch.nwDst,
    bytes: 4,
    parse: address(ipv4Bytes, 4),
    expected: AN_IP,
    needs: OF_ARP,
    sets: FlowField.ARP,
  },
  {
    name: "arp_sha",
    at: FlowMatch.arpSha,
    bytes: 6,
    parse: mac,
    expected: A_MAC,
    needs: OF_ARP,
    sets: FlowField.ARP,
  },
  {
    name: "arp_tha",
    at: FlowMatch.arpTha,
    bytes: 6,
    parse: mac,
    expected: A_MAC,
    needs: OF_ARP,
    sets: FlowField.ARP,
  },
];

/** By name and by alias; but for `in_port`, which may be a name. */
export const FIELDS: ReadonlyMap<string, Field> = new Map(
  LIST.flatMap((field) => [field.name, ...(field.aliases ?? [])].map((name) => [name, field])),
);

/** What is exactly matched of a number, or nothing. */
function exact(match: Match, at: number, bytes: number): number | undefined {
  let n = 0;
  for (let i = at; i < at + bytes; i++) {
    if (match.mask[i] !== 255) return undefined;
    n = n * 256 + (match.key[i] as number);
  }
  return n;
}

export const typeOf = (match: Match): number | undefined => exact(match, FlowMatch.dlType, 2);
const protocolOf = (match: Match): number | undefined => exact(match, FlowMatch.nwProto, 1);

/** Whether all frames that match are what a field needs. */
export function has(match: Match, { types, protocols }: Needs): boolean {
  const type = typeOf(match);
  if (type === undefined || !types.includes(type)) return false;
  return protocols === undefined || protocols.includes(protocolOf(match) ?? -1);
}

const hex = (n: number, digits = 1): string => `0x${n.toString(16).padStart(digits, "0")}`;
const slice = (bytes: Uint8Array, at: number, n: number): Uint8Array => bytes.subarray(at, at + n);
const u16 = (bytes: Uint8Array, at: number): number =>
  ((bytes[at] as number) << 8) | (bytes[at + 1] as number);

/** An address with its mask: /length where it is one, nothing where it is all. */
function masked(value: Uint8Array, mask: Uint8Array, text: (bytes: Uint8Array) => string): string {
  let length = 0;
  while (length < 8 * mask.length && (mask[length >> 3] as number) & (0x80 >> (length & 7))) length++;
  if (length === 8 * mask.length) return text(value);
  const plain = prefixMask(length, mask.length).every((byte, i) => byte === mask[i]);
  return `${text(value)}/${plain ? length : text(mask)}`;
}

/** A match in ovs-ofctl's words, the shortest way; "" for all frames. */
export function formatMatch(match: Match): string {
  const { key, mask } = match;
  const words: string[] = [];
  const add = (name: string, value: string | number) => words.push(`${name}=${value}`);
  const all = (at: number, n: number) => slice(mask, at, n).every((byte) => byte === 255);
  const some = (at: number, n: number) => slice(mask, at, n).some((byte) => byte !== 0);
  const type = typeOf(match);
  const protocol = protocolOf(match);
  const shorthand = type === undefined ? undefined : shortest(type, protocol);
  if (shorthand) words.push(shorthand.name);
  if (some(FlowMatch.inPort, 2))
    add("in_port", (key[FlowMatch.inPort] as number) | ((key[FlowMatch.inPort + 1] as number) << 8));
  vlanWords(u16(key, FlowMatch.vlanTci), u16(mask, FlowMatch.vlanTci), add);
  for (const [name, at] of [
    ["dl_src", FlowMatch.dlSrc],
    ["dl_dst", FlowMatch.dlDst],
  ] as const) {
    if (some(at, 6))
      add(name, macText(slice(key, at, 6)) + (all(at, 6) ? "" : `/${macText(slice(mask, at, 6))}`));
  }
  if (type !== undefined && !shorthand) add("dl_type", hex(type, 4));
  if (type === IPV6) {
    for (const [name, at] of [
      ["ipv6_src", FlowMatch.ipv6Src],
      ["ipv6_dst", FlowMatch.ipv6Dst],
    ] as const)
      if (some(at, 16)) add(name, masked(slice(key, at, 16), slice(mask, at, 16), ipv6Text));
  } else {
    const names = type === ARP ? ["arp_spa", "arp_tpa"] : ["nw_src", "nw_dst"];
    for (const [i, at] of [FlowMatch.nwSrc, FlowMatch.nwDst].entries())
      if (some(at, 4)) add(names[i] as string, masked(slice(key, at, 4), slice(mask, at, 4), ipv4Text));
  }
  if (type === ARP) {
    for (const [name, at] of [
      ["arp_sha", FlowMatch.arpSha],
      ["arp_tha", FlowMatch.arpTha],
    ] as const)
      if (some(at, 6))
        add(name, macText(slice(key, at, 6)) + (all(at, 6) ? "" : `/${macText(slice(mask, at, 6))}`));
  }
  if (protocol !== undefined && !shorthand?.protocol) add(type === ARP ? "arp_op" : "nw_proto", protocol);
  if (some(FlowMatch.nwTos, 1)) {
    const tos = key[FlowMatch.nwTos] as number;
    const bits = mask[FlowMatch.nwTos] as number;
    if (bits & 0xfc) add("nw_tos", tos & 0xfc);
    if (bits & 3) add("nw_ecn", tos & 3);
  }
  if (some(FlowMatch.nwTtl, 1)) add("nw_ttl", key[FlowMatch.nwTtl] as number);
  const fragment = Object.entries(FRAGMENTS).find(
    ([, [value, bits]]) => mask[FlowMatch.nwFrag] === bits && key[FlowMatch.nwFrag] === value,
  );
  if (some(FlowMatch.nwFrag, 1) && fragment) add("nw_frag", fragment[0]);
  const icmp = type === IPV6 && protocol === 58 ? "icmpv6" : "icmp";
  if (protocol === 1 || protocol === 58) {
    if (some(FlowMatch.tpSrc, 2)) add(`${icmp}_type`, key[FlowMatch.tpSrc + 1] as number);
    if (some(FlowMatch.tpDst, 2)) add(`${icmp}_code`, key[FlowMatch.tpDst + 1] as number);
  } else {
    for (const [name, at] of [
      ["tp_src", FlowMatch.tpSrc],
      ["tp_dst", FlowMatch.tpDst],
    ] as const)
      if (some(at, 2))
        add(name, all(at, 2) ? u16(key, at) : `${hex(u16(key, at), 4)}/${hex(u16(mask, at), 4)}`);
  }
  if (some(FlowMatch.tcpFlags, 2)) {
    const flags = u16(key, FlowMatch.tcpFlags);
    const bits = u16(mask, FlowMatch.tcpFlags);
    const named = TCP_FLAGS.flatMap((name, bit) =>
      bits & (1 << bit) ? [(flags & (1 << bit) ? "+" : "-") + name] : [],
    );
    add("tcp_flags", bits < 1 << TCP_FLAGS.length ? named.join("") : `${hex(flags)}/${hex(bits)}`);
  }
  return words.join(",");
}

function vlanWords(tci: number, mask: number, add: (name: string, value: string | number) => void): void {
  if (mask === 0) return;
  if (mask === 0xffff && tci === 0) add("dl_vlan", "0xffff");
  else if (
    tci & mask & PRESENT &&
    (mask & 0x0fff) % 0x0fff === 0 &&
    (mask & 0xe000) % 0xe000 === 0 &&
    mask !== PRESENT
  ) {
    if (mask & 0x0fff) add("dl_vlan", tci & 0x0fff);
    if (mask & 0xe000) add("dl_vlan_pcp", tci >> 13);
  } else add("vlan_tci", `${hex(tci, 4)}/${hex(mask, 4)}`);
}

/** The word for a type and, where there is one, the protocol too. */
function shortest(
  type: number,
  protocol: number | undefined,
): { name: string; protocol: boolean } | undefined {
  const entries = Object.entries(SHORTHANDS);
  const whole = entries.find(([, [t, p]]) => t === type && p !== undefined && p === protocol);
  const found = whole ?? entries.find(([, [t, p]]) => t === type && p === undefined);
  return found && { name: found[0], protocol: whole !== undefined };
}
