/**
 * What the rules make of a frame, table by table: the highest priority that matches, by looking at every rule. The core's
 * answer is the same (test/flows.test.ts), by other ways.
 */
import { FLOW_ACTIONS, FLOW_LOOKUPS, FlowField, FlowMatch } from "../../assembly/layout.ts";
import { ARP, formatMatch, IPV4, IPV6, type Match } from "./fields.ts";
import { type Action, formatActions, formatRule, type Rule } from "./rule.ts";

export interface Trace {
  /** What the frame is told by. */
  readonly flow: string;
  /** Lookups in their order. */
  readonly steps: readonly { readonly table: number; readonly rule: Rule | undefined }[];
  /** All that is done; nothing where the frame is dropped. */
  readonly actions: readonly Action[];
  /** More lookups or actions than there may be: the frame is dropped. */
  readonly tooDeep: boolean;
}

/** @param rules in the order in which they were added */
export function trace(rules: readonly Rule[], key: Uint8Array): Trace {
  const steps: { table: number; rule: Rule | undefined }[] = [];
  const actions: Action[] = [];
  const edited = key.slice(0, FlowMatch.SIZE);
  let hits = 0;
  let tooDeep = false;
  const apply = (table: number): boolean => {
    const rule = highest(rules, table, edited);
    steps.push({ table, rule });
    if (!rule) return true;
    tooDeep = hits++ === FLOW_LOOKUPS;
    if (tooDeep) return false;
    for (const action of rule.actions) {
      if (action.kind === "resubmit") {
        const port = edited.slice(FlowMatch.inPort, FlowMatch.inPort + 2);
        if (action.port !== undefined) edited.set([action.port & 255, action.port >> 8], FlowMatch.inPort);
        if (!apply(action.table)) return false;
        edited.set(port, FlowMatch.inPort);
        continue;
      }
      tooDeep = actions.push(action) > FLOW_ACTIONS;
      // A frame gets no third tag: it is dropped.
      if (tooDeep || (action.kind === "pushVlan" && u16(edited, FlowMatch.vlanInner) !== 0)) return false;
      edit(edited, action);
    }
    return true;
  };
  apply(0);
  return { flow: describe(key), steps, actions: tooDeep ? [] : actions, tooDeep };
}

function highest(rules: readonly Rule[], table: number, key: Uint8Array): Rule | undefined {
  let best: Rule | undefined;
  for (const rule of rules) {
    if (rule.table === table && matches(rule.match, key) && !(best && best.priority >= rule.priority))
      best = rule;
  }
  return best;
}

export function matches({ key: wanted, mask }: Match, key: Uint8Array): boolean {
  return mask.every((bits, i) => (((key[i] as number) ^ (wanted[i] as number)) & bits) === 0);
}

const u16 = (bytes: Uint8Array, at: number): number =>
  ((bytes[at] as number) << 8) | (bytes[at + 1] as number);

/** What an action makes of a key. */
function edit(key: Uint8Array, action: Action): void {
  const tci = key.slice(FlowMatch.vlanTci, FlowMatch.vlanTci + 2);
  if (action.kind === "pushVlan") {
    key.set(tci, FlowMatch.vlanInner);
    key.set([0x10, 0], FlowMatch.vlanTci);
  } else if (action.kind === "stripVlan") {
    key.copyWithin(FlowMatch.vlanTci, FlowMatch.vlanInner, FlowMatch.vlanInner + 2);
    key.fill(0, FlowMatch.vlanInner, FlowMatch.vlanInner + 2);
  } else if (action.kind === "set") {
    if (action.field === FlowField.VLAN_OR_PUSH && u16(tci, 0) === 0) key.set([0x10, 0], FlowMatch.vlanTci);
    if (!applies(key, action.field)) return;
    action.value.forEach((byte, i) => {
      const mask = action.mask[i] as number;
      key[action.at + i] = ((key[action.at + i] as number) & ~mask) | (byte & mask);
    });
  }
}

function applies(key: Uint8Array, field: FlowField): boolean {
  const type = u16(key, FlowMatch.dlType);
  const protocol = key[FlowMatch.nwProto] as number;
  const ip = type === IPV4 || type === IPV6;
  switch (field) {
    case FlowField.ETHERNET:
      return true;
    case FlowField.VLAN:
    case FlowField.VLAN_OR_PUSH:
      return u16(key, FlowMatch.vlanTci) !== 0;
    case FlowField.ARP:
      return type === ARP;
    case FlowField.IP:
      return ip;
    case FlowField.IPV4:
      return type === IPV4;
    case FlowField.IPV6:
      return type === IPV6;
    case FlowField.PORTS:
      return ip && (protocol === 6 || protocol === 17);
    case FlowField.ICMP:
      return type === IPV4 && protocol === 1;
    case FlowField.ICMPV6:
      return type === IPV6 && protocol === 58;
  }
}

/** All that a key says, as a match. */
export function describe(key: Uint8Array): string {
  const mask = new Uint8Array(FlowMatch.SIZE);
  const all = (at: number, bytes: number) => mask.fill(255, at, at + bytes);
  const type = u16(key, FlowMatch.dlType);
  all(FlowMatch.dlDst, 14);
  all(FlowMatch.inPort, 2);
  if (u16(key, FlowMatch.vlanTci)) all(FlowMatch.vlanTci, 2);
  if (type === ARP) all(FlowMatch.nwProto, 1);
  if (type === ARP || type === IPV4) all(FlowMatch.nwSrc, 8);
  if (type === ARP) all(FlowMatch.arpSha, 12);
  if (type === IPV6) all(FlowMatch.ipv6Src, 32);
  if (type === IPV4 || type === IPV6) {
    all(FlowMatch.nwTos, 3);
    if (key[FlowMatch.nwFrag]) mask[FlowMatch.nwFrag] = 3;
    const protocol = key[FlowMatch.nwProto] as number;
    if ([1, 6, 17, 58, 132].includes(protocol) && !((key[FlowMatch.nwFrag] as number) & 2))
      all(FlowMatch.tpSrc, 4);
    if (protocol === 6) mask.set([0x0f, 0xff], FlowMatch.tcpFlags);
  }
  return formatMatch({ key: key.slice(0, FlowMatch.SIZE), mask });
}

/** A trace as text, a lookup a line. */
export function formatTrace({ flow, steps, actions, tooDeep }: Trace): string {
  const lines = steps.map(
    ({ table, rule }) => `  ${rule ? formatRule(rule) : `table=${table}: no rule matches`}`,
  );
  const what = tooDeep ? "drop (too many lookups or actions)" : formatActions(actions);
  return [`flow: ${flow}`, ...lines, `actions: ${what}`].join("\n");
}
