/** What rte_flow's items can match, by testpmd's names, and where that stands in a rule (layout: `RteFlowKey`). */
import { RteFlowKey } from "../../assembly/layout.ts";
import { prefixMask } from "../ip.ts";

export interface Field {
  readonly kind: "mac" | "ipv4" | "ipv6" | "number";
  /** Its first byte in RteFlowKey, and how many there are; of a number the bits in them, and those to its right. */
  readonly offset: number;
  readonly bytes: number;
  readonly bits: number;
  readonly shift: number;
  /** A spec alone means all of it, as by rte_flow's default masks; others need a mask. */
  readonly whole: boolean;
  /** Written in hexadecimal. */
  readonly hex: boolean;
}

const field = (kind: Field["kind"], offset: number, bytes: number, more: Partial<Field> = {}): Field => {
  return { kind, offset, bytes, bits: 8 * bytes, shift: 0, whole: false, hex: false, ...more };
};
const whole = { whole: true };
const hex = { hex: true };
const etherType = field("number", RteFlowKey.type, 2, hex);
const ports = {
  src: field("number", RteFlowKey.sourcePort, 2, whole),
  dst: field("number", RteFlowKey.destinationPort, 2, whole),
};
const { tci, proto, tos, ttl, tags, label, fragment, tcpFlags } = RteFlowKey;

/**
 * Fields by item and name. Of two VLAN tags these are the first one's; an EtherType is the one behind all tags: what
 * depends on the items around it `compile` moves.
 */
export const ITEMS = {
  eth: {
    dst: field("mac", RteFlowKey.dst, 6, whole),
    src: field("mac", RteFlowKey.src, 6, whole),
    type: etherType,
    has_vlan: field("number", tags, 1, { bits: 1 }),
  },
  vlan: {
    pcp: field("number", tci, 2, { bits: 3, shift: 13 }),
    dei: field("number", tci, 2, { bits: 1, shift: 12 }),
    vid: field("number", tci, 2, { bits: 12, whole: true }),
    tci: field("number", tci, 2, hex),
    inner_type: etherType,
  },
  ipv4: {
    tos: field("number", tos, 1),
    fragment_offset: field("number", fragment, 2, hex),
    ttl: field("number", ttl, 1),
    proto: field("number", proto, 1),
    src: field("ipv4", RteFlowKey.source, 4, whole),
    dst: field("ipv4", RteFlowKey.destination, 4, whole),
  },
  ipv6: {
    tc: field("number", tos, 1),
    flow: field("number", label, 4, { bits: 20 }),
    proto: field("number", proto, 1),
    hop: field("number", ttl, 1),
    src: field("ipv6", RteFlowKey.source, 16, whole),
    dst: field("ipv6", RteFlowKey.destination, 16, whole),
  },
  tcp: { ...ports, flags: field("number", tcpFlags, 1, hex) },
  udp: ports,
  any: {},
  void: {},
} satisfies Record<string, Record<string, Field>>;

export type ItemName = keyof typeof ITEMS;

/** "is": one value for the whole field; or a value under a mask, or under the first `prefix` bits. */
export type RteFlowValue =
  | number
  | string
  | { readonly spec: number | string; readonly mask?: number | string; readonly prefix?: number };

/** A header that a frame must have, and what its fields must be, by testpmd's names: `{ item: "udp", dst: 53 }`. */
export type RteFlowItem = {
  [Name in ItemName]: { readonly item: Name } & {
    readonly [F in keyof (typeof ITEMS)[Name]]?: RteFlowValue;
  };
}[ItemName];

export type RteFlowAction =
  | { readonly action: "queue"; readonly index: number }
  /** `queues`: up to 64; without: those of the card's own RSS. */
  | { readonly action: "rss"; readonly queues?: readonly number[] }
  | { readonly action: "mark"; readonly id: number }
  | { readonly action: "drop" | "count" | "passthru" };

/** A rule as an object; the same as text: `ingress pattern eth / ipv4 dst is 10.0.0.1 / end actions queue index 2 / end`. */
export interface RteFlowRule {
  /** 0, the default, comes first. */
  readonly priority?: number;
  readonly pattern: readonly RteFlowItem[];
  readonly actions: readonly RteFlowAction[];
}

/** The bytes of a number as they stand in a field. */
export function numberBytes({ bytes, shift }: Field, value: number): Uint8Array {
  const shifted = value * 2 ** shift;
  return Uint8Array.from({ length: bytes }, (_, i) => Math.floor(shifted / 2 ** (8 * (bytes - 1 - i))) & 255);
}

/** A field's first `length` bits, or all of its bits. */
export function prefixBytes(of: Field, length = of.bits): Uint8Array {
  if (of.kind === "number") return numberBytes(of, 2 ** of.bits - 2 ** (of.bits - length));
  return prefixMask(length, of.bytes);
}
