/** What rte_flow rules do, slowly and plainly: nothing here is shared with the core or with the parser. */
import type { RteFlowRule, RteFlowValue } from "../src/index.ts";

/** A frame's headers, as far as they are whole: each a list of named numbers. */
interface Headers {
  eth: Record<string, bigint>;
  tags: { tpid: bigint; tci: bigint }[];
  type: bigint;
  ip?: { version: 4 | 6 } & Record<string, bigint | 4 | 6>;
  l4?: { protocol: 6 | 17; src: bigint; dst: bigint; flags: bigint };
}

const number = (frame: Uint8Array, at: number, bytes: number): bigint => {
  let n = 0n;
  for (let i = 0; i < bytes; i++) n = n * 256n + BigInt(frame[at + i] as number);
  return n;
};

/** The card looks at the first 512 bytes. */
export function headers(whole: Uint8Array): Headers {
  const frame = whole.subarray(0, 512);
  const tags: Headers["tags"] = [];
  let at = 12;
  for (; tags.length < 2; at += 4) {
    const type = number(frame, at, 2);
    if ((type !== 0x8100n && type !== 0x88a8n) || frame.length < at + 6) break;
    tags.push({ tpid: type, tci: number(frame, at + 2, 2) });
  }
  const type = number(frame, at, 2);
  const found: Headers = { eth: { dst: number(frame, 0, 6), src: number(frame, 6, 6) }, tags, type };
  const l3 = frame.subarray(at + 2);
  if (type === 0x0800n) ipv4(l3, found);
  if (type === 0x86ddn) ipv6(l3, found);
  return found;
}

function ipv4(l3: Uint8Array, found: Headers): void {
  if (l3.length < 20) return;
  const first = l3[0] as number;
  const length = (first % 16) * 4;
  if (first >> 4 !== 4 || length < 20 || length > l3.length) return;
  found.ip = {
    version: 4,
    tos: number(l3, 1, 1),
    fragment_offset: number(l3, 6, 2),
    ttl: number(l3, 8, 1),
    proto: number(l3, 9, 1),
    src: number(l3, 12, 4),
    dst: number(l3, 16, 4),
  };
  if (number(l3, 6, 2) % 8192n === 0n) upper(l3.subarray(length), Number(found.ip.proto), found);
}

function ipv6(l3: Uint8Array, found: Headers): void {
  if (l3.length < 40 || (l3[0] as number) >> 4 !== 6) return;
  const first = number(l3, 0, 4);
  found.ip = {
    version: 6,
    tc: (first >> 20n) & 255n,
    flow: first & 0xfffffn,
    proto: number(l3, 6, 1),
    hop: number(l3, 7, 1),
    src: number(l3, 8, 16),
    dst: number(l3, 24, 16),
  };
  let next = l3[6] as number;
  let at = 40;
  for (let hops = 0; [0, 43, 44, 51, 60].includes(next); hops++) {
    if (hops === 8 || at + 8 > l3.length) return;
    if (next === 44 && number(l3, at + 2, 2) >> 3n !== 0n) return;
    const units = l3[at + 1] as number;
    const bytes = next === 44 ? 8 : next === 51 ? 4 * units + 8 : 8 * units + 8;
    next = l3[at] as number;
    at += bytes;
  }
  if (at <= l3.length) upper(l3.subarray(at), next, found);
}

function upper(l4: Uint8Array, protocol: number, found: Headers): void {
  if (!((protocol === 17 && l4.length >= 8) || (protocol === 6 && l4.length >= 20))) return;
  const flags = protocol === 6 ? number(l4, 13, 1) : 0n;
  found.l4 = { protocol, src: number(l4, 0, 2), dst: number(l4, 2, 2), flags };
}

/** A field's width in bits, by item and name. */
const WIDTHS: Record<string, number> = {
  "eth.dst": 48,
  "eth.src": 48,
  "eth.has_vlan": 1,
  "vlan.pcp": 3,
  "vlan.dei": 1,
  "vlan.vid": 12,
  "ipv4.tos": 8,
  "ipv4.ttl": 8,
  "ipv4.proto": 8,
  "ipv4.src": 32,
  "ipv4.dst": 32,
  "ipv6.tc": 8,
  "ipv6.flow": 20,
  "ipv6.proto": 8,
  "ipv6.hop": 8,
  "ipv6.src": 128,
  "ipv6.dst": 128,
  "tcp.flags": 8,
};

/** "10.0.0.1", "02:...", "1:2:...:8" (all eight groups) or a number. */
function asNumber(text: string | number): bigint {
  if (typeof text === "number") return BigInt(text);
  if (/^(0x)?[0-9a-f]+$/.test(text) && !text.includes(":")) return BigInt(text);
  if (text.includes(".")) return text.split(".").reduce((n, part) => n * 256n + BigInt(part), 0n);
  const parts = text.split(":");
  return parts.reduce((n, part) => n * (parts.length === 6 ? 256n : 65536n) + BigInt(`0x${part}`), 0n);
}

function fits(width: number, wanted: RteFlowValue, value: bigint): boolean {
  if (typeof wanted !== "object") return asNumber(wanted) === value;
  const all = (1n << BigInt(width)) - 1n;
  const mask =
    wanted.prefix !== undefined
      ? all ^ (all >> BigInt(wanted.prefix))
      : wanted.mask !== undefined
        ? asNumber(wanted.mask)
        : all;
  return (asNumber(wanted.spec) & mask) === (value & mask);
}

export function matches(rule: RteFlowRule, h: Headers): boolean {
  const items = rule.pattern.filter(({ item }) => item !== "void");
  let tag = 0;
  return items.every(({ item, ...fields }, i) => {
    const nextIsTag = items[i + 1]?.item === "vlan";
    let values: Record<string, bigint> = {};
    if (item === "eth") {
      const type = nextIsTag ? (h.tags[0]?.tpid ?? 0n) : h.type;
      values = { ...h.eth, type, has_vlan: h.tags.length > 0 ? 1n : 0n };
    } else if (item === "vlan") {
      const here = h.tags[tag++];
      if (!here) return false;
      const { tci } = here;
      const inner = nextIsTag ? (h.tags[tag]?.tpid ?? 0n) : h.type;
      values = { tci, pcp: tci >> 13n, dei: (tci >> 12n) & 1n, vid: tci & 0xfffn, inner_type: inner };
    } else if (item === "ipv4" || item === "ipv6") {
      if (h.ip?.version !== (item === "ipv4" ? 4 : 6)) return false;
      values = h.ip as unknown as Record<string, bigint>;
    } else if (item === "udp" || item === "tcp") {
      if (h.l4?.protocol !== (item === "udp" ? 17 : 6)) return false;
      values = h.l4 as unknown as Record<string, bigint>;
    }
    return Object.entries(fields as Record<string, RteFlowValue>).every(([name, wanted]) =>
      fits(WIDTHS[`${item}.${name}`] ?? 16, wanted, values[name] as bigint),
    );
  });
}

/** The rule that a frame meets: the lowest priority, then the first; its place in the list, or -1. */
export function meets(rules: readonly RteFlowRule[], frame: Uint8Array): number {
  const h = headers(frame);
  let best = -1;
  rules.forEach((rule, i) => {
    if (!matches(rule, h)) return;
    if (best < 0 || (rule.priority ?? 0) < (rules[best]?.priority ?? 0)) best = i;
  });
  return best;
}
