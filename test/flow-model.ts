/**
 * A flow table that is slow and obviously right, built from the standards: frames are read into named fields, every rule is
 * held against them, and changed frames get their checksums anew. Nothing here is shared with the core.
 */
import { internetChecksum } from "./frames.ts";

/** Fields of a frame under ovs-ofctl's names; what it hasn't got isn't there. MAC addresses and IPs as hex. */
export type Fields = Record<string, number | string>;

const be16 = (b: Uint8Array, at: number): number => (b[at] as number) * 256 + (b[at + 1] as number);
const hex = (b: Uint8Array, at: number, n: number): string =>
  Buffer.from(b.subarray(at, at + n)).toString("hex");

/** Where the headers of a frame are. */
export interface Headers {
  fields: Fields;
  /** Offsets, where there is such a header, and it is whole. */
  l3?: number;
  l4?: number;
  /** End of what IP says it carries. */
  end?: number;
}

/** Of a head of 256 bytes, as the core does: what lies behind is only counted. */
export function read(frame: Uint8Array, inPort: number): Headers {
  const seen = frame.subarray(0, 256);
  const fields: Fields = { in_port: inPort, dl_dst: hex(seen, 0, 6), dl_src: hex(seen, 6, 6) };
  let at = 12;
  const tags: number[] = [];
  while (tags.length < 2 && [0x8100, 0x88a8].includes(be16(seen, at)) && seen.length >= at + 6) {
    tags.push(be16(seen, at + 2));
    at += 4;
  }
  fields.tci = tags.length ? (tags[0] as number) | 0x1000 : 0;
  fields.inner = tags.length > 1 ? (tags[1] as number) | 0x1000 : 0;
  const type = be16(seen, at);
  fields.dl_type = type < 0x600 ? 0x5ff : type;
  at += 2;
  const headers: Headers = { fields };
  if (type === 0x0800) readIpv4(seen, frame.length, at, headers);
  if (type === 0x86dd) readIpv6(seen, frame.length, at, headers);
  if (type === 0x0806) readArp(seen, at, headers);
  return headers;
}

function readIpv4(b: Uint8Array, length: number, at: number, headers: Headers): void {
  if (b.length < at + 20) return;
  const words = (b[at] as number) & 15;
  const total = be16(b, at + 2);
  if ((b[at] as number) >> 4 !== 4 || words < 5 || words * 4 > total || at + total > length) return;
  const { fields } = headers;
  headers.l3 = at;
  headers.end = at + total;
  fields.nw_src = hex(b, at + 12, 4);
  fields.nw_dst = hex(b, at + 16, 4);
  fields.nw_tos = b[at + 1] as number;
  fields.nw_ttl = b[at + 8] as number;
  fields.nw_proto = b[at + 9] as number;
  const fragment = be16(b, at + 6);
  const later = (fragment & 0x1fff) !== 0;
  fields.nw_frag = later ? 3 : fragment & 0x2000 ? 1 : 0;
  if (!later) readTransport(b.subarray(0, at + total), at + 4 * words, headers);
}

function readIpv6(b: Uint8Array, length: number, at: number, headers: Headers): void {
  if (b.length < at + 40 || (b[at] as number) >> 4 !== 6) return;
  const end = at + 40 + be16(b, at + 4);
  if (end > length) return;
  const { fields } = headers;
  const seen = b.subarray(0, end);
  headers.l3 = at;
  headers.end = end;
  fields.ipv6_src = hex(b, at + 8, 16);
  fields.ipv6_dst = hex(b, at + 24, 16);
  fields.nw_tos = (be16(b, at) >> 4) & 255;
  fields.nw_ttl = b[at + 7] as number;
  fields.nw_frag = 0;
  let next = b[at + 6] as number;
  let header = at + 40;
  let stop = false;
  for (let n = 0; [0, 43, 44, 60, 51].includes(next) && !stop; n++) {
    if (n === 8 || header + 8 > seen.length || fields.nw_frag === 3) {
      stop = true;
      break;
    }
    const kind = next;
    const units = seen[header + 1] as number;
    next = seen[header] as number;
    if (kind === 44) {
      const word = be16(seen, header + 2);
      fields.nw_frag = word & 0xfff8 ? 3 : word & 1 ? 1 : 0;
    }
    header += kind === 44 ? 8 : kind === 51 ? (units + 2) * 4 : (units + 1) * 8;
  }
  fields.nw_proto = next;
  if (!stop && fields.nw_frag !== 3) readTransport(seen, header, headers);
}

function readTransport(b: Uint8Array, at: number, headers: Headers): void {
  const { fields } = headers;
  const least: Record<number, number> = { 6: 20, 17: 8, 132: 12, 1: 8, 58: 8 };
  const n = least[fields.nw_proto as number];
  if (n === undefined || at + n > b.length) return;
  headers.l4 = at;
  if (fields.nw_proto === 1 || fields.nw_proto === 58) {
    fields.tp_src = b[at] as number;
    fields.tp_dst = b[at + 1] as number;
  } else {
    fields.tp_src = be16(b, at);
    fields.tp_dst = be16(b, at + 2);
  }
  if (fields.nw_proto === 6) fields.tcp_flags = be16(b, at + 12) & 0xfff;
}

function readArp(b: Uint8Array, at: number, headers: Headers): void {
  if (b.length < at + 28 || hex(b, at, 6) !== "000108000604") return;
  const { fields } = headers;
  headers.l3 = at;
  fields.nw_proto = be16(b, at + 6) < 256 ? be16(b, at + 6) : 0;
  fields.nw_src = hex(b, at + 14, 4);
  fields.nw_dst = hex(b, at + 24, 4);
  fields.arp_sha = hex(b, at + 8, 6);
  fields.arp_tha = hex(b, at + 18, 6);
}

/** One condition of a rule: how it is written, and whether a frame's fields meet it. */
export interface Condition {
  text: string;
  holds: (fields: Fields) => boolean;
}

export type ModelAction =
  | { text: string; kind: "output"; port: number }
  | { text: string; kind: "flood" | "stripVlan" }
  | { text: string; kind: "resubmit"; table: number; port?: number }
  | { text: string; kind: "pushVlan"; type: number }
  | { text: string; kind: "vlan"; vid: number }
  | {
      text: string;
      kind: "set";
      field:
        | "dl_src"
        | "dl_dst"
        | "nw_src"
        | "nw_dst"
        | "tp_src"
        | "tp_dst"
        | "nw_tos"
        | "nw_ttl"
        | "ipv6_dst";
      bytes: number[];
    };

export interface ModelRule {
  table: number;
  priority: number;
  conditions: Condition[];
  actions: ModelAction[];
  packets: number;
  bytes: number;
}

export const ruleText = ({ table, priority, conditions, actions }: ModelRule): string =>
  [
    `table=${table},priority=${priority}`,
    ...conditions.map(({ text }) => text),
    `actions=${actions.length ? actions.map(({ text }) => text).join(",") : "drop"}`,
  ].join(",");

const LOOKUPS = 16;
const ACTIONS = 32;

/** A frame from port `inPort`: what arrives at each of `ports` ports. Counts at the rules that were hit. */
export function forward(
  rules: readonly ModelRule[],
  frame: Uint8Array,
  inPort: number,
  ports: number,
): Uint8Array[][] {
  const out: Uint8Array[][] = Array.from({ length: ports }, () => []);
  const hit: ModelRule[] = [];
  let now = frame;
  let actions = 0;
  let stopped = false; // by a third tag
  const send = (to: number) => {
    if (to !== inPort && to < ports) out[to]?.push(now);
  };
  const walk = (table: number, as: number): boolean => {
    const { fields } = read(now, as);
    const candidates = rules.filter(
      (rule) => rule.table === table && rule.conditions.every(({ holds }) => holds(fields)),
    );
    const most = Math.max(...candidates.map(({ priority }) => priority));
    const rule = candidates.find(({ priority }) => priority === most);
    if (!rule) return true;
    if (hit.length === LOOKUPS) return false;
    hit.push(rule);
    for (const action of rule.actions) {
      if (action.kind === "resubmit") {
        if (!walk(action.table, action.port ?? as)) return false;
        continue;
      }
      if (actions++ === ACTIONS) return false;
      if (action.kind === "output") send(action.port);
      else if (action.kind === "flood") for (let to = 0; to < ports; to++) send(to);
      else {
        if (action.kind === "pushVlan" && read(now, 0).fields.inner !== 0) {
          stopped = true;
          return false;
        }
        now = changed(now, action);
      }
    }
    return true;
  };
  const whole = walk(0, inPort) || stopped;
  for (const rule of hit) {
    rule.packets++;
    rule.bytes += frame.length;
  }
  return whole ? out : out.map(() => []);
}

/** The frame after an action, with its checksums computed anew where they were right before. */
export function changed(frame: Uint8Array, action: ModelAction): Uint8Array {
  const tagged = [0x8100, 0x88a8].includes(be16(frame, 12)) && frame.length >= 18;
  const withTag = (type: number, tci: number) =>
    Uint8Array.from([
      ...frame.subarray(0, 12),
      type >> 8,
      type & 255,
      tci >> 8,
      tci & 255,
      ...frame.subarray(12),
    ]);
  if (action.kind === "pushVlan") return withTag(action.type, 0);
  if (action.kind === "stripVlan")
    return tagged ? Uint8Array.from([...frame.subarray(0, 12), ...frame.subarray(16)]) : frame;
  if (action.kind === "vlan") {
    if (!tagged) return withTag(0x8100, action.vid);
    const made = frame.slice();
    made.set([((made[14] as number) & 0xf0) | (action.vid >> 8), action.vid & 255], 14);
    return made;
  }
  if (action.kind !== "set") throw new Error(action.kind);
  const made = frame.slice();
  const { fields, l3 = 0, l4 = 0 } = read(frame, 0);
  const v4 = fields.dl_type === 0x0800 && l3 > 0;
  const v6 = fields.dl_type === 0x86dd && l3 > 0;
  const ports = l4 > 0 && (fields.nw_proto === 6 || fields.nw_proto === 17);
  const put = (at: number) => made.set(action.bytes, at);
  if (action.field === "dl_dst") put(0);
  else if (action.field === "dl_src") put(6);
  else if (action.field === "nw_src" && v4) put(l3 + 12);
  else if (action.field === "nw_dst" && v4) put(l3 + 16);
  else if (action.field === "ipv6_dst" && v6) put(l3 + 24);
  else if (action.field === "tp_src" && ports) put(l4);
  else if (action.field === "tp_dst" && ports) put(l4 + 2);
  else if (action.field === "nw_ttl" && v4) put(l3 + 8);
  else if (action.field === "nw_ttl" && v6) put(l3 + 7);
  else if (action.field === "nw_tos" && v4)
    made[l3 + 1] = ((made[l3 + 1] as number) & 3) | (action.bytes[0] as number);
  else if (action.field === "nw_tos" && v6) {
    const word = (be16(made, l3) & ~0x0fc0) | ((action.bytes[0] as number) << 4);
    made.set([word >> 8, word & 255], l3);
  }
  restore(frame, made);
  return made;
}

/** Makes checksums that were right in `before` right in `after`, and those that were wrong wrong by as much. */
function restore(before: Uint8Array, after: Uint8Array): void {
  const { fields, l3 } = read(before, 0);
  if (l3 === undefined) return;
  if (fields.dl_type === 0x0800) {
    const n = ((before[l3] as number) & 15) * 4;
    mend(before, after, l3 + 10, (frame) => frame.subarray(l3, l3 + n));
  }
  const at = checksumAt(before);
  if (at === undefined || (fields.nw_proto === 17 && be16(before, at) === 0)) return;
  mend(before, after, at, covered);
  if (fields.nw_proto === 17 && be16(after, at) === 0) after.set([255, 255], at);
}

/** The checksum at `at`, over what `part` gives of a frame. */
function mend(
  before: Uint8Array,
  after: Uint8Array,
  at: number,
  part: (frame: Uint8Array) => Uint8Array,
): void {
  const right = (frame: Uint8Array) => {
    const blank = frame.slice();
    blank.set([0, 0], at);
    return internetChecksum(part(blank));
  };
  const wrongBy = be16(before, at) - right(before);
  const sum = (right(after) + wrongBy + 2 * 0xffff) % 0xffff;
  const made = wrongBy === 0 ? right(after) : sum;
  after.set([made >> 8, made & 255], at);
}

/** Where the checksum of what is behind IP stands. */
function checksumAt(frame: Uint8Array): number | undefined {
  const { fields, l4 } = read(frame, 0);
  if (l4 === undefined) return undefined;
  return { 6: l4 + 16, 17: l4 + 6, 58: l4 + 2, 1: l4 + 2 }[fields.nw_proto as number];
}

/** What that checksum is over: pseudo-header, header and payload (RFC 768, 9293, 8200). */
function covered(frame: Uint8Array): Uint8Array {
  const { fields, l3 = 0, l4 = 0, end = 0 } = read(frame, 0);
  const payload = frame.subarray(l4, end);
  const addresses =
    fields.dl_type === 0x0800 ? frame.subarray(l3 + 12, l3 + 20) : frame.subarray(l3 + 8, l3 + 40);
  const pseudo =
    fields.nw_proto === 1
      ? []
      : [...addresses, 0, fields.nw_proto as number, payload.length >> 8, payload.length & 255];
  return Uint8Array.from([...pseudo, ...payload]);
}

/** Writes the checksum of what is behind IP. */
export function seal(frame: Uint8Array): Uint8Array {
  const at = checksumAt(frame);
  if (at === undefined) return frame;
  frame.set([0, 0], at);
  const sum = internetChecksum(covered(frame));
  const { nw_proto } = read(frame, 0).fields;
  frame.set(nw_proto === 17 && sum === 0 ? [255, 255] : [sum >> 8, sum & 255], at);
  return frame;
}
