/**
 * Rules in ovs-ofctl's syntax (ovs-ofctl(8), "Flow Syntax"; ovs-actions(7)), one a line, `#` begins a comment:
 *
 *     table=0,priority=10,in_port=1,dl_vlan=5,ip,nw_dst=10.0.0.0/8,actions=strip_vlan,output:2
 */
import { FLOW_ACTIONS, FlowField, FlowMatch } from "../../assembly/layout.ts";
import { RuleError } from "../rules.ts";
import {
  ARP,
  FIELDS,
  type Field,
  formatMatch,
  has,
  type Masked,
  type Match,
  type Needs,
  SHORTHANDS,
  typeOf,
  wholeNumber,
} from "./fields.ts";

export type Action =
  | { kind: "output"; port: number }
  | { kind: "inPort" | "flood" | "normal" | "stripVlan" }
  | { kind: "controller"; maxBytes: number; reason: "action" | "noMatch" }
  | { kind: "resubmit"; port: number | undefined; table: number }
  | { kind: "pushVlan"; type: number }
  | { kind: "set"; field: FlowField; at: number; value: Uint8Array; mask: Uint8Array; text: string };

export interface Rule {
  readonly table: number;
  readonly priority: number;
  readonly cookie: bigint;
  readonly match: Match;
  /** None: drop. */
  readonly actions: readonly Action[];
}

/** What is deleted: all rules whose match is this one or narrower. */
export interface Selection {
  readonly match: Match;
  /** Without: any. */
  readonly table?: number;
  readonly priority?: number;
  readonly cookie?: { readonly value: bigint; readonly mask: bigint };
}

/** Number of the port that a rule calls by a name. */
export type PortNames = (name: string) => number | undefined;

/** As ovs-ofctl(8) has it. */
const DEFAULT_PRIORITY = 32768;
/** Tables 0 to 254 (OpenFlow's 255 is all of them). */
const TABLE_MAX = 254;
const PORT_MAX = 2047;
const A_PORT = `a port from 0 to ${PORT_MAX}, or the name of what is connected`;
const A_TABLE = `a table from 0 to ${TABLE_MAX}`;

/** What a dump says of a rule, and a rule may say too: not looked at. */
const COUNTED = new Set(["n_packets", "n_bytes", "duration", "idle_age"]);

const noPorts: PortNames = () => undefined;

/** @throws RuleError */
export function parseFlows(text: string | readonly string[], ports: PortNames = noPorts): Rule[] {
  const rules: Rule[] = [];
  linesOf(text).forEach((line, i) => {
    if (isBlank(line)) return;
    rules.push(new Parser(line, i + 1, ports).rule());
  });
  return rules;
}

/** Lines without their comments. */
export function linesOf(text: string | readonly string[]): string[] {
  const lines = typeof text === "string" ? text.split(/\r?\n/) : [...text];
  return lines.map((line) => line.replace(/#.*/, ""));
}

export const isBlank = (line: string): boolean => !/\S/.test(line);

/** @throws RuleError */
export function parseSelection(text: string, ports: PortNames = noPorts): Selection {
  return new Parser(text, 1, ports).selection();
}

/** @throws RuleError */
export function parseMatch(text: string, ports: PortNames = noPorts): Match {
  const parser = new Parser(text, 1, ports);
  const { table, priority, cookie, match } = parser.selection();
  if (table !== undefined || priority !== undefined || cookie !== undefined)
    parser.fail(0, "fields of a frame only");
  return match;
}

class Parser {
  #at = 0;
  readonly match: Match = { key: new Uint8Array(FlowMatch.SIZE), mask: new Uint8Array(FlowMatch.SIZE) };
  /** Fields that were given, and where they need something else. */
  readonly #given = new Set<string>();
  readonly #needs: { at: number; needs: Needs }[] = [];
  table: number | undefined;
  priority: number | undefined;
  cookie: { value: bigint; mask: bigint } | undefined;

  constructor(
    readonly text: string,
    readonly line: number,
    readonly ports: PortNames,
  ) {}

  /** The word at `at` isn't what was expected. */
  fail(at: number, expected: string, end = this.#wordEnd(at)): never {
    throw new RuleError(this.line, at + 1, this.text.slice(at, end).trimEnd(), expected);
  }

  #wordEnd(at: number): number {
    const end = this.text.slice(at).search(/[\s,]/);
    return end < 0 ? this.text.length : at + Math.max(end, 1);
  }

  rule(): Rule {
    this.#fields(true);
    if (this.#at === this.text.length) this.fail(this.#at, '"actions=" and what is to be done');
    const actions = this.#actions();
    if (this.cookie && this.cookie.mask !== ALL_BITS) this.fail(0, "a cookie without a mask");
    return {
      table: this.table ?? 0,
      priority: this.priority ?? DEFAULT_PRIORITY,
      cookie: this.cookie?.value ?? 0n,
      match: this.match,
      actions,
    };
  }

  selection(): Selection {
    this.#fields(false);
    return {
      match: this.match,
      ...(this.table === undefined ? {} : { table: this.table }),
      ...(this.priority === undefined ? {} : { priority: this.priority }),
      ...(this.cookie === undefined ? {} : { cookie: this.cookie }),
    };
  }

  /** Up to "actions=", or to the end where there may be none. */
  #fields(mayAct: boolean): void {
    const word = /[\s,]*(?:([a-z_\d]+)(=?)([^,\s]*))?/gy;
    for (;;) {
      const begin = word.lastIndex;
      const found = word.exec(this.text) as RegExpExecArray;
      const [all, name, equals, value = ""] = found;
      this.#at = begin + all.length;
      if (name === undefined) {
        if (this.#at < this.text.length) this.fail(this.#at, "a field, as in in_port=1 or tcp");
        break;
      }
      const at = begin + all.length - name.length - (equals as string).length - value.length;
      const valueAt = at + name.length + 1;
      if ((name === "actions" || name === "action") && equals && mayAct) {
        this.#at = valueAt;
        break;
      }
      this.#word(name, at, equals ? value : undefined, equals ? valueAt : at + name.length);
    }
    for (const { at, needs } of this.#needs) {
      if (!has(this.match, needs)) this.fail(at, `"${needs.says}" in the rule, which this needs`);
    }
  }

  #word(name: string, at: number, value: string | undefined, valueAt: number): void {
    const shorthand = Object.hasOwn(SHORTHANDS, name) ? SHORTHANDS[name] : undefined;
    if (shorthand && value === undefined) {
      const [type, protocol] = shorthand;
      this.#set("dl_type", FlowMatch.dlType, { value: Uint8Array.of(type >> 8, type & 255), mask: BOTH }, at);
      if (protocol !== undefined)
        this.#set("nw_proto", FlowMatch.nwProto, { value: Uint8Array.of(protocol), mask: ONE }, at);
      return;
    }
    const field = FIELDS.get(name);
    const known = field || name === "in_port" || OPTIONS.has(name) || COUNTED.has(name);
    if (!known || (shorthand && value !== undefined))
      this.fail(at, "a field, as in in_port=1 or tcp", valueAt - (value === undefined ? 0 : 1));
    if (value === undefined) this.fail(valueAt, `"=" and a value of ${name}`);
    if (COUNTED.has(name)) return;
    if (field) {
      const masked = field.parse(value);
      if (!masked) this.#bad(valueAt, value, field.expected);
      this.#set(field.name, field.at, masked, at);
      if (field.needs) this.#needs.push({ at, needs: field.needs });
    } else if (name === "in_port") {
      const port = this.#port(value) ?? this.#bad(valueAt, value, A_PORT);
      this.#set(name, FlowMatch.inPort, { value: Uint8Array.of(port & 255, port >> 8), mask: BOTH }, at);
    } else if (name === "table")
      this.table = wholeNumber(value, TABLE_MAX) ?? this.#bad(valueAt, value, A_TABLE);
    else if (name === "priority")
      this.priority = wholeNumber(value, 65535) ?? this.#bad(valueAt, value, "a priority from 0 to 65535");
    else
      this.cookie =
        cookieOf(value) ?? this.#bad(valueAt, value, "64 bits, as in 0x1, or with a mask behind /");
  }

  #bad(at: number, value: string, expected: string): never {
    return this.fail(at, expected, at + value.length);
  }

  #port(text: string): number | undefined {
    return wholeNumber(text, PORT_MAX) ?? (/^\d/.test(text) ? undefined : this.ports(text));
  }

  /** What of a match has been said already must not be said otherwise. */
  #set(name: string, start: number, { value, mask }: Masked, at: number): void {
    const { key } = this.match;
    const set = this.match.mask;
    const given = this.#given.has(name);
    for (let i = 0; i < value.length; i++) {
      const byte = value[i] as number;
      const both = (set[start + i] as number) & (mask[i] as number);
      if (((key[start + i] as number) ^ byte) & both || (given && both))
        this.fail(at, `${name} once, and nothing that contradicts it`);
      key[start + i] = (key[start + i] as number) | byte;
      set[start + i] = (set[start + i] as number) | (mask[i] as number);
    }
    this.#given.add(name);
  }

  #actions(): Action[] {
    const actions: Action[] = [];
    const begin = this.#at;
    let dropAt = -1;
    for (const { at, text } of split(this.text, begin)) {
      if (text === "drop") dropAt = at;
      else actions.push(...this.#action(text, at));
      if (actions.length > FLOW_ACTIONS) this.fail(at, `at most ${FLOW_ACTIONS} actions`);
    }
    if (dropAt >= 0 && actions.length > 0) this.fail(dropAt, "drop alone, without other actions", dropAt + 4);
    return actions;
  }

  #action(text: string, at: number): Action[] {
    const [, name = "", separator = "", rest = ""] = /^([A-Za-z_]+)?([:(]?)(.*)$/.exec(
      text,
    ) as RegExpExecArray;
    const argAt = at + name.length + separator.length;
    const end = at + text.length;
    const arg = separator === "(" && rest.endsWith(")") ? rest.slice(0, -1) : rest;
    const bad = (expected: string): never => this.fail(argAt, expected, end);
    const port = (one: string) => this.#port(one) ?? bad(A_PORT);
    const table = (one: string) => wholeNumber(one, TABLE_MAX) ?? bad(A_TABLE);
    const lower = name.toLowerCase();
    if (lower === "controller") return [this.#controller(separator, arg, bad)];
    if (PLAIN.has(lower) && !text.slice(name.length))
      return [{ kind: PLAIN.get(lower) as "inPort" | "flood" | "normal" | "stripVlan" }];
    if (!ARGUED.has(name)) {
      // A number, or a port's name, alone: output to it.
      const alone = this.#port(text);
      if (alone !== undefined) return [{ kind: "output", port: alone }];
      this.fail(at, `an action: ${[...PLAIN.keys(), "drop", "controller", ...ARGUED].join(", ")}`, end);
    }
    if (!separator) this.fail(end, `":" and what ${name} is to use`);
    if (name === "output") {
      const to = arg.toLowerCase();
      return to === "in_port" ? [{ kind: "inPort" }] : [{ kind: "output", port: port(arg) }];
    }
    if (name === "goto_table") return [{ kind: "resubmit", port: undefined, table: table(arg) }];
    if (name === "resubmit") {
      if (separator === ":") return [{ kind: "resubmit", port: port(arg), table: this.table ?? 0 }];
      const [from = "", to, more] = arg.split(",").map((one) => one.trim());
      if (!rest.endsWith(")") || to === undefined || more !== undefined)
        bad("a port and a table in (), as in (,1)");
      return [
        {
          kind: "resubmit",
          port: from === "" ? undefined : port(from),
          table: to === "" ? (this.table ?? 0) : table(to as string),
        },
      ];
    }
    if (name === "push_vlan") {
      const type = wholeNumber(arg, 0xffff);
      return type === 0x8100 || type === 0x88a8 ? [{ kind: "pushVlan", type }] : bad("0x8100 or 0x88a8");
    }
    if (name === "set_field") {
      const arrow = arg.lastIndexOf("->");
      if (arrow < 0) bad('a value, "->" and a field, as in 10.0.0.1->ip_dst');
      const field = FIELDS.get(arg.slice(arrow + 2));
      if (field?.sets === undefined)
        this.fail(argAt + arrow + 2, `a field that can be set: ${SETTABLE.join(", ")}`, end);
      return [this.#setTo(field, arg.slice(0, arrow), argAt, at, false)];
    }
    return [this.#setTo(FIELDS.get(MODS[name] as string) as Field, arg, argAt, at, true)];
  }

  #controller(separator: string, arg: string, bad: (expected: string) => never): Action {
    let maxBytes: number | undefined = 65535;
    let reason: "action" | "noMatch" = "action";
    if (separator === ":") maxBytes = wholeNumber(arg, 65535);
    else if (separator === "(") {
      for (const word of arg.split(",")) {
        const [key = "", value = ""] = word.trim().split("=");
        if (key === "max_len") maxBytes = wholeNumber(value, 65535);
        else if (key === "reason" && value in REASONS) reason = REASONS[value] as "action" | "noMatch";
        else bad("max_len=BYTES or reason=action or reason=no_match");
      }
    }
    return { kind: "controller", maxBytes: maxBytes ?? bad("bytes from 0 to 65535"), reason };
  }

  #setTo(field: Field, text: string, valueAt: number, at: number, mod: boolean): Action {
    const parsed = field.parse(text);
    if (!parsed) return this.#bad(valueAt, text, field.expected);
    if (field.needs && !has(this.match, field.needs))
      this.fail(at, `"${field.needs.says}" in the rule, which this needs`);
    if (field.name === "vlan_vid" && mod && wholeNumber(text, 4095) === undefined)
      this.#bad(valueAt, text, "a VLAN from 0 to 4095");
    // Of ARP packets the same fields stand elsewhere.
    const arp = field.sets === FlowField.IPV4 && typeOf(this.match) === ARP;
    const vlan = field.at === FlowMatch.vlanTci;
    let { value, mask } = parsed;
    let sets = arp ? FlowField.ARP : (field.sets as FlowField);
    if (vlan) {
      // Whether there is a tag isn't set.
      value = Uint8Array.of((value[0] as number) & 0xef, value[1] as number);
      mask = Uint8Array.of((mask[0] as number) & 0xef, mask[1] as number);
      if (mod) sets = FlowField.VLAN_OR_PUSH;
    }
    return { kind: "set", field: sets, at: field.at, value, mask, text: setText(field, text, mod) };
  }
}

const ALL_BITS = 0xffff_ffff_ffff_ffffn;
const BOTH = Uint8Array.of(255, 255);
const ONE = Uint8Array.of(255);
const OPTIONS = new Set(["table", "priority", "cookie"]);
const PLAIN: ReadonlyMap<string, string> = new Map([
  ["normal", "normal"],
  ["flood", "flood"],
  ["all", "flood"],
  ["in_port", "inPort"],
  ["strip_vlan", "stripVlan"],
  ["pop_vlan", "stripVlan"],
]);
const MODS: Readonly<Record<string, string>> = {
  mod_dl_src: "dl_src",
  mod_dl_dst: "dl_dst",
  mod_nw_src: "nw_src",
  mod_nw_dst: "nw_dst",
  mod_nw_tos: "nw_tos",
  mod_nw_ttl: "nw_ttl",
  mod_tp_src: "tp_src",
  mod_tp_dst: "tp_dst",
  mod_vlan_vid: "vlan_vid",
  mod_vlan_pcp: "vlan_pcp",
};
const ARGUED = new Set(["output", "resubmit", "goto_table", "push_vlan", "set_field", ...Object.keys(MODS)]);
const SETTABLE = [...FIELDS].filter(([, field]) => field.sets !== undefined).map(([name]) => name);
const REASONS: Readonly<Record<string, "action" | "noMatch">> = { action: "action", no_match: "noMatch" };

function cookieOf(text: string): { value: bigint; mask: bigint } | undefined {
  const parts = text.split("/");
  if (parts.length > 2 || !parts.every((part) => /^(?:\d+|0x[\da-f]+|-1)$/i.test(part))) return undefined;
  const [value = 0n, mask = ALL_BITS] = parts.map((part) => (part === "-1" ? ALL_BITS : BigInt(part)));
  return value <= ALL_BITS && mask <= ALL_BITS ? { value: value & mask, mask } : undefined;
}

/** What stands between commas that are in no parentheses. */
function split(line: string, begin: number): { at: number; text: string }[] {
  const parts: { at: number; text: string }[] = [];
  let depth = 0;
  let from = begin;
  for (let i = begin; i <= line.length; i++) {
    const c = line[i];
    if (c === "(") depth++;
    else if (c === ")") depth--;
    else if (c === undefined || (c === "," && depth <= 0)) {
      const text = line.slice(from, i);
      const skipped = text.length - text.trimStart().length;
      if (c === undefined ? text.trim() || parts.length === 0 : true)
        parts.push({ at: from + skipped, text: text.trim() });
      from = i + 1;
    }
  }
  return parts.length === 1 && parts[0]?.text === "" ? [] : parts;
}

/** How an action that sets a field is written in a dump. */
function setText(field: Field, text: string, mod: boolean): string {
  if (!mod) return `set_field:${text}->${field.name}`;
  const name = Object.entries(MODS).find(([, of]) => FIELDS.get(of) === field)?.[0];
  return `${name}:${text}`;
}

function formatAction(action: Action): string {
  switch (action.kind) {
    case "output":
      return `output:${action.port}`;
    case "inPort":
      return "IN_PORT";
    case "flood":
      return "FLOOD";
    case "normal":
      return "NORMAL";
    case "stripVlan":
      return "strip_vlan";
    case "pushVlan":
      return `push_vlan:0x${action.type.toString(16)}`;
    case "controller":
      return action.reason === "noMatch"
        ? `controller(max_len=${action.maxBytes},reason=no_match)`
        : `CONTROLLER:${action.maxBytes}`;
    case "resubmit":
      return `resubmit(${action.port ?? ""},${action.table})`;
    case "set":
      return action.text;
  }
}

export const formatActions = (actions: readonly Action[]): string =>
  actions.length === 0 ? "drop" : actions.map(formatAction).join(",");

/** As ovs-ofctl's dump-flows writes it; with counters where there are any. */
export function formatRule(rule: Rule, counts?: { packets: number; bytes: number }): string {
  const fields = formatMatch(rule.match);
  const cookie = rule.cookie || counts ? `cookie=0x${rule.cookie.toString(16)}, ` : "";
  const counters = counts ? `n_packets=${counts.packets}, n_bytes=${counts.bytes}, ` : "";
  const match = `priority=${rule.priority}${fields && `,${fields}`}`;
  return `${cookie}table=${rule.table}, ${counters}${match} actions=${formatActions(rule.actions)}`;
}

/** Where a rule stands in a dump: by table, the highest priority first. */
export const inOrder = (a: Rule, b: Rule): number => a.table - b.table || b.priority - a.priority;

/** Rules with the same table, priority and match are the same: the later one replaces the other. */
export function identity({ table, priority, match }: Pick<Rule, "table" | "priority" | "match">): string {
  // "/" is odd, so it is no place: here the key ends.
  return `${table},${priority},${bytesAsText(match.key)}/${bytesAsText(match.mask)}`;
}

/** Bytes as a string, to be a key of a map: the place of each two that aren't 0, which few are, and the two. */
export function bytesAsText(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += 2) {
    const two = (bytes[at] as number) | ((bytes[at + 1] as number) << 8);
    if (two !== 0) text += String.fromCharCode(at, two);
  }
  return text;
}

/** Whether all frames that match `rule` match `selection` too, and it is in the table and has the cookie asked for. */
export function isSelected(rule: Rule, { match, table, cookie }: Selection): boolean {
  if (table !== undefined && rule.table !== table) return false;
  if (cookie && (rule.cookie & cookie.mask) !== cookie.value) return false;
  return match.mask.every(
    (bits, i) =>
      (bits & ~(rule.match.mask[i] as number)) === 0 &&
      (((rule.match.key[i] as number) ^ (match.key[i] as number)) & bits) === 0,
  );
}
