/**
 * testpmd's `flow` commands (DPDK, "Testpmd Runtime Functions", Flow rules management):
 *
 *     flow create|validate PORT [group 0] [priority N] ingress pattern ITEM / ... / end actions ACTION / ... / end
 *     flow destroy PORT rule ID [rule ID ...]
 *     flow flush PORT
 *     flow list PORT
 *     flow query PORT ID count
 *
 * ITEM: eth, vlan (up to two), ipv4, ipv6, udp, tcp in the order of a frame's headers, any, void, each with
 * `FIELD is|spec|mask VALUE` and `FIELD prefix BITS`. Tags that no item names are looked through. ACTION: queue index N,
 * rss [queues N ... end], mark id N, drop, count, passthru, void.
 */
import {
  RTE_FLOW_MARK,
  RTE_FLOW_QUEUES,
  RteFlow,
  RteFlowAction,
  RteFlowAttribute,
  RteFlowKey,
  RteFlowRefusal,
} from "../../assembly/layout.ts";
import { ipv4Bytes, ipv6Bytes } from "../ip.ts";
import { macBytes } from "../mac.ts";
import { type Field, ITEMS, type ItemName, numberBytes, prefixBytes } from "./items.ts";
import { listed, type Word, Words } from "./words.ts";

/** A rule as the card takes it. */
export interface ParsedRule {
  /** `RteFlow`, up to INPUT. */
  readonly input: Uint8Array;
  /** The word that a refusal is about. */
  readonly words: Readonly<Partial<Record<RteFlowRefusal, Word>>>;
}

export type RteFlowCommand =
  | { command: "create" | "validate"; port: Word; rule: ParsedRule }
  | { command: "destroy"; port: Word; rules: number[] }
  | { command: "flush" | "list"; port: Word }
  | { command: "query"; port: Word; rule: number };

const COMMANDS = ["create", "validate", "destroy", "flush", "list", "query"] as const;
const PARAMETERS = ["is", "spec", "mask", "prefix"] as const;
const ACTIONS = ["queue", "rss", "mark", "drop", "count", "passthru", "void"] as const;
const U32 = 0xffff_ffff;

/** @throws RteFlowError */
export function parseCommand(line: string): RteFlowCommand {
  const words = new Words(line);
  words.oneOf(["flow"]);
  const command = words.oneOf(COMMANDS);
  const port = words.next;
  words.number(U32, "a port's number");
  if (command === "create" || command === "validate") return { command, port, rule: rule(words) };
  if (command === "flush" || command === "list") {
    words.end();
    return { command, port };
  }
  if (command === "query") {
    const id = words.number(U32, "a rule's number");
    words.oneOf(["count"]);
    words.end();
    return { command, port, rule: id };
  }
  const rules: number[] = [];
  do {
    words.oneOf(["rule"]);
    rules.push(words.number(U32, "a rule's number"));
  } while (words.next.text);
  return { command, port, rules };
}

/**
 * A rule with or without `flow create PORT` in front.
 * @throws RteFlowError
 */
export function parseRule(line: string): { port?: Word; rule: ParsedRule } {
  const words = new Words(line);
  if (!words.skip("flow")) return { rule: rule(words) };
  words.oneOf(["create", "validate"]);
  const port = words.next;
  words.number(U32, "a port's number");
  return { port, rule: rule(words) };
}

function rule(words: Words): ParsedRule {
  const input = new Uint8Array(RteFlow.INPUT);
  const view = new DataView(input.buffer);
  const found: Partial<Record<RteFlowRefusal, Word>> = {};
  let ingress = false;
  while (!words.skip("pattern")) {
    const attribute = words.oneOf(
      ["group", "priority", "ingress"],
      ingress
        ? '"group", "priority" or "pattern"'
        : '"group", "priority" or "ingress": the card has rules for nothing else',
    );
    if (attribute === "ingress") ingress = true;
    else if (attribute === "priority") view.setUint32(RteFlow.priority, words.number(U32), true);
    else if (words.number(U32) !== 0) words.fail("group 0, the card has no other", words.last);
    if (!ingress && words.next.text === "pattern") words.fail('"ingress" before the pattern');
  }
  if (!ingress) words.fail('"ingress" before the pattern', words.last);
  view.setUint32(RteFlow.attributes, RteFlowAttribute.INGRESS, true);
  found[RteFlowRefusal.EXISTS] = words.next;
  found[RteFlowRefusal.FULL] = words.next;
  found[RteFlowRefusal.MASKS] = words.next;
  found[RteFlowRefusal.BRIDGED] = words.next;
  compile(words, items(words), input);
  words.oneOf(["actions"]);
  actions(words, view, found);
  words.end();
  return { input, words: found };
}

/** A field's value and mask, and where they stand. */
interface Match {
  readonly field: Field;
  readonly name: string;
  readonly word: Word;
  spec?: Uint8Array;
  mask?: Uint8Array;
}

interface Item {
  readonly name: ItemName;
  readonly word: Word;
  readonly matches: Match[];
}

/** Items that may follow. */
function following(items: readonly Item[]): ItemName[] {
  const names = items.map((item) => item.name).filter((name) => name !== "void");
  const last = names[names.length - 1];
  if (last === "udp" || last === "tcp") return ["void"];
  if (last === "ipv4" || last === "ipv6" || last === "any") return ["udp", "tcp", "void"];
  const tags = names.filter((name) => name === "vlan").length;
  return [
    ...(last ? [] : ["eth" as const]),
    ...(tags < 2 ? ["vlan" as const] : []),
    "ipv4",
    "ipv6",
    "any",
    "void",
  ];
}

/** From behind "pattern" to behind "end". */
function items(words: Words): Item[] {
  const list: Item[] = [];
  while (!words.skip("end")) {
    const allowed = following(list);
    const word = words.next;
    const behind = list.filter((item) => item.name !== "void").at(-1);
    const expected = listed([...allowed, "end"]) + (behind ? ` behind ${behind.name}` : "");
    const name = words.oneOf(allowed, expected);
    list.push({ name, word, matches: matches(words, name) });
    words.oneOf(["/"], listed([...Object.keys(ITEMS[name]), '"/"']));
  }
  return list;
}

function matches(words: Words, item: ItemName): Match[] {
  const fields: Record<string, Field> = ITEMS[item];
  const found = new Map<string, Match & { specWord?: Word; maskWord?: Word }>();
  while (words.next.text !== "/") {
    const word = words.next;
    const name = words.oneOf(Object.keys(fields), listed([...Object.keys(fields), '"/"']));
    const field = fields[name] as Field;
    const match = found.get(name) ?? { field, name, word };
    found.set(name, match);
    const at = words.next;
    if (at.text === "last")
      words.fail(
        `${listed(PARAMETERS)}: the card has no ranges, write a rule for each "spec" under a "prefix" that one is made of`,
      );
    const parameter = words.oneOf(PARAMETERS);
    const spec = parameter === "is" || parameter === "spec";
    if ((spec && match.spec) || (parameter !== "spec" && match.mask)) words.fail(`it once for ${name}`, at);
    if (spec) {
      match.spec = value(words, field);
      match.specWord = at;
    }
    if (parameter === "is") match.mask = prefixBytes(field);
    else if (parameter === "mask") match.mask = value(words, field);
    else if (parameter === "prefix") match.mask = prefixBytes(field, words.number(field.bits, "a length"));
    if (!spec) match.maskWord = at;
  }
  // rte_flow has one mask for an item: without any it is the default one, with one a field's own is 0 unless it is given.
  const masked = [...found.values()].some((match) => match.mask);
  for (const match of found.values()) {
    const { field, name, specWord, maskWord } = match;
    if (!match.spec) words.fail(`"${name} spec" besides`, maskWord);
    if (match.mask) continue;
    if (masked || !field.whole) words.fail(`"${name} mask" or "${name} prefix" besides, or "is"`, specWord);
    match.mask = prefixBytes(field);
  }
  return [...found.values()];
}

function value(words: Words, field: Field): Uint8Array {
  if (field.kind === "number") return numberBytes(field, words.number(2 ** field.bits - 1));
  const { text } = words.next;
  const read = { mac: macBytes, ipv4: ipv4Bytes, ipv6: ipv6Bytes };
  const bytes = read[field.kind](text);
  const example = {
    mac: "a MAC address as 02:00:00:00:00:01",
    ipv4: "an IPv4 address as 10.0.0.1",
    ipv6: "an IPv6 address as 2001:db8::1",
  };
  if (!bytes) words.fail(example[field.kind]);
  words.take();
  return bytes;
}

/** The items as spec and mask. */
function compile(words: Words, list: readonly Item[], input: Uint8Array): void {
  const headers = list.filter((item) => item.name !== "void");
  const set = (offset: number, spec: Uint8Array, mask: Uint8Array, expected: string, word: Word) => {
    for (let i = 0; i < mask.length; i++) {
      const at = RteFlow.spec + offset + i;
      const under = RteFlow.mask + offset + i;
      const [s, m] = [(spec[i] as number) & (mask[i] as number), mask[i] as number];
      // What two words say of the same bits must agree: else no frame could match.
      const both = m & (input[under] as number);
      if ((s ^ (input[at] as number)) & both) words.fail(expected, word);
      input[at] = (input[at] as number) | s;
      input[under] = (input[under] as number) | m;
    }
  };
  const byte = (offset: number, n: number, mask: number, word: Word) =>
    set(offset, Uint8Array.of(n), Uint8Array.of(mask), "an item that fits has_vlan before it", word);
  let tags = 0;
  headers.forEach(({ name, word, matches }, i) => {
    const tagged = headers[i + 1]?.name === "vlan";
    const second = tags === 1;
    for (const { field, word: at, spec, mask } of matches) {
      let { offset } = field;
      if (offset === RteFlowKey.type && tagged) offset = name === "eth" ? RteFlowKey.tpid : RteFlowKey.tpid2;
      if (offset === RteFlowKey.tci && second) offset = RteFlowKey.tci2;
      set(offset, spec as Uint8Array, mask as Uint8Array, "what the fields before it allow", at);
    }
    if (name === "vlan") {
      tags++;
      byte(RteFlowKey.tags, tags === 2 ? 3 : 1, tags === 2 ? 3 : 1, word);
    }
    if (name === "ipv4" || name === "ipv6") {
      byte(RteFlowKey.ip, name === "ipv4" ? 4 : 6, 255, word);
      const type = name === "ipv4" ? [0x08, 0x00] : [0x86, 0xdd];
      agree(words, input, RteFlowKey.type, type, "an item that has the EtherType before it", word);
    }
    if (name === "udp" || name === "tcp") {
      const protocol = name === "udp" ? 17 : 6;
      byte(RteFlowKey.l4, protocol, 255, word);
      // IPv6's next header may be an extension.
      if (headers[i - 1]?.name === "ipv4")
        agree(words, input, RteFlowKey.proto, [protocol], "an item that has the protocol before it", word);
    }
  });
}

/** What the item at `word` implies agrees with what was said of it before. */
function agree(
  words: Words,
  input: Uint8Array,
  offset: number,
  bytes: readonly number[],
  expected: string,
  word: Word,
): void {
  bytes.forEach((byte, i) => {
    const differ = (input[RteFlow.spec + offset + i] as number) ^ byte;
    if (differ & (input[RteFlow.mask + offset + i] as number)) words.fail(expected, word);
  });
}

/** From behind "actions" to behind "end". */
function actions(words: Words, view: DataView, found: Partial<Record<RteFlowRefusal, Word>>): void {
  const taken = new Set<string>();
  let bits = 0;
  let fate = "";
  while (words.next.text !== "end" || taken.size === 0) {
    const word = words.next;
    const name = words.oneOf(ACTIONS, listed(taken.size === 0 ? ACTIONS : [...ACTIONS, "end"]));
    if (name !== "void" && taken.has(name)) words.fail(`"${name}" once`, word);
    const isFate = name === "queue" || name === "rss" || name === "drop" || name === "passthru";
    if (isFate && fate) words.fail(`one of queue, rss, drop and passthru: "${fate}" is before it`, word);
    if (isFate) fate = name;
    if (name !== "void") taken.add(name);
    bits |= action(words, name, view, found);
    words.oneOf(["/"]);
  }
  words.oneOf(["end"]);
  view.setUint32(RteFlow.actions, bits, true);
}

function action(
  words: Words,
  name: (typeof ACTIONS)[number],
  view: DataView,
  found: Partial<Record<RteFlowRefusal, Word>>,
): number {
  switch (name) {
    case "queue":
      words.oneOf(["index"]);
      found[RteFlowRefusal.QUEUE] = found[RteFlowRefusal.MAPPED] = words.next;
      view.setUint32(RteFlow.queue, words.number(0xffff), true);
      return RteFlowAction.QUEUE;
    case "rss":
      found[RteFlowRefusal.QUEUE] = found[RteFlowRefusal.MAPPED] = words.next;
      if (words.skip("queues")) view.setUint32(RteFlow.queueCount, queues(words, view), true);
      return RteFlowAction.RSS;
    case "mark":
      words.oneOf(["id"]);
      found[RteFlowRefusal.MARK] = words.next;
      view.setUint32(RteFlow.markId, words.number(RTE_FLOW_MARK - 1), true);
      return RteFlowAction.MARK;
    case "drop":
      return RteFlowAction.DROP;
    case "count":
      return RteFlowAction.COUNT;
    case "passthru":
      return RteFlowAction.PASSTHRU;
    case "void":
      return 0;
  }
}

function queues(words: Words, view: DataView): number {
  let n = 0;
  do {
    if (n === RTE_FLOW_QUEUES) words.fail(`"end": the card takes ${RTE_FLOW_QUEUES} queues at most`);
    view.setUint16(RteFlow.queues + 2 * n++, words.number(0xffff, "a queue's number"), true);
  } while (!words.skip("end"));
  return n;
}
