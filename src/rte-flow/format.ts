/** rte_flow rules as testpmd's text: from an object, or from what the card has (layout: `RteFlow`). */
import { RteFlow, RteFlowAction, RteFlowKey } from "../../assembly/layout.ts";
import { ipv4Text, ipv6Text } from "../ip.ts";
import { macText } from "../mac.ts";
import {
  type RteFlowAction as Action,
  type Field,
  ITEMS,
  type ItemName,
  prefixBytes,
  type RteFlowRule,
  type RteFlowValue,
} from "./items.ts";

/** A rule that was written as an object: `ingress pattern ... / end actions ... / end`. */
export function formatRule(rule: RteFlowRule): string {
  const items = rule.pattern.map(({ item, ...fields }) =>
    [item, ...Object.entries(fields).map(([name, value]) => given(name, value))].join(" "),
  );
  return line(rule.priority ?? 0, items, rule.actions.map(action));
}

function given(name: string, value: RteFlowValue): string {
  if (typeof value === "object") {
    const { spec, mask, prefix } = value;
    const under =
      mask !== undefined ? ` ${name} mask ${mask}` : prefix !== undefined ? ` ${name} prefix ${prefix}` : "";
    return `${name} spec ${spec}${under}`;
  }
  const [address, bits] = String(value).split("/");
  return bits === undefined ? `${name} is ${value}` : `${name} spec ${address} ${name} prefix ${bits}`;
}

function action(one: Action): string {
  if (one.action === "queue") return `queue index ${one.index}`;
  if (one.action === "mark") return `mark id ${one.id}`;
  if (one.action === "rss" && one.queues) return `rss queues ${one.queues.join(" ")} end`;
  return one.action;
}

function line(priority: number, items: readonly string[], actions: readonly string[]): string {
  const list = (words: readonly string[]) => [...words, "end"].join(" / ");
  return `${priority ? `priority ${priority} ` : ""}ingress pattern ${list(items)} actions ${list(actions)}`;
}

/** A rule as the card has it, from its `RteFlow`. What `parseRule` makes of the text is the same rule. */
export function formatInput(input: Uint8Array): string {
  const view = new DataView(input.buffer, input.byteOffset);
  const bits = view.getUint32(RteFlow.actions, true);
  const actions: string[] = [];
  if (bits & RteFlowAction.MARK) actions.push(`mark id ${view.getUint32(RteFlow.markId, true)}`);
  if (bits & RteFlowAction.COUNT) actions.push("count");
  if (bits & RteFlowAction.QUEUE) actions.push(`queue index ${view.getUint32(RteFlow.queue, true)}`);
  if (bits & RteFlowAction.RSS) {
    const n = view.getUint32(RteFlow.queueCount, true);
    const queues = Array.from({ length: n }, (_, i) => view.getUint16(RteFlow.queues + 2 * i, true));
    actions.push(n > 0 ? `rss queues ${queues.join(" ")} end` : "rss");
  }
  if (bits & RteFlowAction.DROP) actions.push("drop");
  if (bits & RteFlowAction.PASSTHRU) actions.push("passthru");
  return line(view.getUint32(RteFlow.priority, true), pattern(input), actions);
}

function pattern(input: Uint8Array): string[] {
  const spec = (offset: number, bytes = 1) =>
    input.subarray(RteFlow.spec + offset, RteFlow.spec + offset + bytes);
  const mask = (offset: number, bytes = 1) =>
    input.subarray(RteFlow.mask + offset, RteFlow.mask + offset + bytes);
  const byte = (offset: number) => (mask(offset)[0] ? (spec(offset)[0] as number) : 0);
  const tags = byte(RteFlowKey.tags) & 2 ? 2 : byte(RteFlowKey.tags) & 1;
  const ip = byte(RteFlowKey.ip);
  const l4 = byte(RteFlowKey.l4);
  /** An item with those of its fields that have a mask; `moved`: fields that stand elsewhere. */
  const item = (name: ItemName, moved: Record<string, number> = {}, leftOut: readonly string[] = []) => {
    const words = Object.entries<Field>(ITEMS[name]).flatMap(([of, field]) => {
      const offset = moved[of] ?? field.offset;
      const [s, m] = [spec(offset, field.bytes), mask(offset, field.bytes)];
      return leftOut.includes(of) ? [] : matched(of, field, s, m);
    });
    return [name, ...words].join(" ");
  };
  const items = [
    // A tag that an item names needs no has_vlan; the whole tci is its three parts.
    item("eth", tags ? { type: RteFlowKey.tpid } : {}, tags ? ["has_vlan"] : []),
  ];
  if (tags > 0) items.push(item("vlan", tags > 1 ? { inner_type: RteFlowKey.tpid2 } : {}, ["tci"]));
  if (tags > 1) {
    const { tci2 } = RteFlowKey;
    items.push(item("vlan", { pcp: tci2, dei: tci2, vid: tci2 }, ["tci"]));
  }
  if (ip) items.push(item(ip === 4 ? "ipv4" : "ipv6"));
  else if (l4) items.push("any");
  if (l4) items.push(item(l4 === 6 ? "tcp" : "udp"));
  return items;
}

/** "dst is 53", or nothing where the mask is 0. */
function matched(name: string, field: Field, spec: Uint8Array, mask: Uint8Array): string[] {
  const all = prefixBytes(field);
  const under = mask.map((byte, i) => byte & (all[i] as number));
  const value = text(
    field,
    spec.map((byte, i) => byte & (all[i] as number)),
  );
  if (under.every((byte) => byte === 0)) return [];
  if (same(under, all)) return [`${name} is ${value}`];
  const isAddress = field.kind === "ipv4" || field.kind === "ipv6";
  const length = under.reduce((n, byte) => n + byte.toString(2).replaceAll("0", "").length, 0);
  return isAddress && same(under, prefixBytes(field, length))
    ? [`${name} spec ${value} ${name} prefix ${length}`]
    : [`${name} spec ${value} ${name} mask ${text({ ...field, hex: true }, under)}`];
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return a.every((byte, i) => byte === b[i]);
}

function text(field: Field, bytes: Uint8Array): string {
  if (field.kind === "mac") return macText(bytes);
  if (field.kind === "ipv4") return ipv4Text(bytes);
  if (field.kind === "ipv6") return ipv6Text(bytes);
  const number = bytes.reduce((n, byte) => n * 256 + byte, 0) / 2 ** field.shift;
  return field.hex ? `0x${number.toString(16)}` : String(number);
}
