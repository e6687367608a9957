/** A flow table in the core's memory (layout: `FlowTable`): its rules are written here, and looked up there. */
import {
  BURST_MAX,
  FLOW_ACTIONS,
  FLOW_COPY,
  FLOW_SAME,
  FlowAction,
  FlowActionKind,
  FlowExact,
  FlowField,
  FlowMask,
  FlowMatch,
  FlowPlace,
  FlowRule,
  FlowSieve,
  Kind,
  FlowTable as Layout,
  Megaflow,
  PacketInReason,
} from "../../assembly/layout.ts";
import type { Core } from "../core/core.ts";
import { createRing } from "../core/ring.ts";
import { type Action, bytesAsText, formatActions, identity, type Rule } from "./rule.ts";

/** Flows that are cached, masks of rules, and frames that wait for the controller. */
const MEGAFLOWS = 4096;
const CACHE = 8192;
const MASKS = 1024;
const WAITING = 256;
const TABLES = 256;
/** Actions that a table can hold, for each rule that it can: most rules have one, and share it with others. */
const ACTIONS_PER_RULE = 2;

/** Odd numbers without a pattern. */
const FACTORS = [
  0x2545f491, 0x4f6cdd1d, 0x51ed2701, 0x6c8e9cf5, 0x7feb352d, 0x2c1b3c6d, 0x297a2d39, 0x1b56c4e9, 0x3c6ef373,
  0x5851f42d, 0x14057b7f, 0x0da3e39d, 0x27d4eb2f, 0x165667b1, 0x31848bab, 0x4cf5ad43,
];

const ACTIONS = {
  inPort: FlowActionKind.IN_PORT,
  flood: FlowActionKind.FLOOD,
  normal: FlowActionKind.NORMAL,
  stripVlan: FlowActionKind.STRIP_VLAN,
} as const;

/** A rule in the table. */
export interface Entry {
  readonly rule: Rule;
  readonly address: number;
  readonly list: ActionList;
  readonly mask: RuleMask;
}

/** A rule to be added, with the names that it, its mask and its actions are found by. */
interface Named {
  readonly rule: Rule;
  readonly name: string;
  readonly mask: string;
  readonly list: string;
}

/** A list of actions, which all rules that say the same share. */
interface ActionList {
  readonly name: string;
  readonly address: number;
  readonly actions: readonly Action[];
  users: number;
}

/** A sieve (layout: `FlowSieve`), with how many masks use it; its number is its place. */
interface Sieve {
  at: number;
  mask: number;
  users: number;
}

/** Words of a key that tell rules apart: MAC addresses, ports, IP addresses; and how many of a mask's have a sieve. */
const SIEVED = [0, 4, 8, 24, 32, 36, 40, 44, 48, 52, 56, 60];
const SIEVES_PER_MASK = 3;
/** Bits of a word that few rules would share. */
const SIEVED_BITS = 8;

/** A mask of a table, with how many rules there are under it and the highest of their priorities. */
interface RuleMask {
  readonly name: string;
  readonly address: number;
  readonly table: number;
  readonly bits: Uint8Array;
  readonly sieves: readonly Sieve[];
  rules: number;
  priority: number;
}

export class FlowTable {
  readonly address: number;
  /** Ring of frames for the controller. */
  readonly controller: number;
  readonly entries = new Map<string, Entry>();
  readonly #lists = new Map<string, ActionList>();
  readonly #masks = new Map<string, RuleMask>();
  readonly #rules: number;
  readonly #actions: number;
  readonly #masksAt: number;
  readonly #freeRules: number[] = [];
  readonly #freeMasks: number[] = [];
  /** By length. */
  readonly #freeActions = new Map<number, number[]>();
  #rulesUsed = 0;
  #masksUsed = 0;
  #actionsUsed = 0;
  #order = 0;
  #resubmitting = 0;
  /** Slots of the index that can't be used, and rules that are gone but not from the sieves. */
  #lost = 0;
  #stale = 0;
  readonly #sieves: Sieve[] = Array.from({ length: FlowSieve.COUNT }, () => ({ at: 0, mask: 0, users: 0 }));
  /** What follows from masks and actions has to be worked out anew. */
  #changed = true;
  readonly #changing = new Map<Place, number>();

  /** @throws RangeError where the memory is full */
  constructor(
    readonly core: Core,
    readonly capacity: number,
  ) {
    const { id, address } = core.place(Kind.FLOW_TABLE, Layout.SIZE, "flow table");
    const place = (bytes: number) => core.place(Kind.BYTES, bytes, "flow table", id).address;
    let buckets = 16;
    while (buckets < capacity) buckets *= 2;
    this.address = address;
    this.#rules = place(capacity * FlowRule.SIZE);
    this.#actions = place(ACTIONS_PER_RULE * capacity * FlowAction.SIZE);
    this.#masksAt = place(MASKS * FlowMask.SIZE);
    this.controller = createRing(core, WAITING, { what: "flow table", parent: id }).address;
    const megaflowMasks = place(Layout.MASKS_MAX * FlowMask.SIZE);
    for (let i = 0; i < Layout.MASKS_MAX; i++)
      core.setU32(megaflowMasks + i * FlowMask.SIZE + FlowMask.seed, seed(i));
    core.setFields(address, {
      [Layout.id]: id,
      [Layout.generation]: 1,
      [Layout.worth]: 65536,
      [Layout.rules]: this.#rules,
      [Layout.index]: place(16 * buckets),
      [Layout.indexMask]: buckets - 1,
      [Layout.masks]: place(4 * MASKS),
      [Layout.tables]: place(4 * TABLES),
      [Layout.cache]: place(8 * CACHE),
      [Layout.cacheMask]: CACHE - 1,
      [Layout.exact]: place(2 * FlowExact.COUNT * FlowExact.SIZE),
      [Layout.exactMask]: (FlowExact.FEWEST - 1) * FlowExact.SIZE,
      [Layout.megaflows]: place(MEGAFLOWS * Megaflow.SIZE),
      [Layout.megaflowMask]: MEGAFLOWS - 1,
      [Layout.buckets]: place(16 * MEGAFLOWS),
      [Layout.bucketMask]: MEGAFLOWS - 1,
      [Layout.megaflowMasks]: megaflowMasks,
      [Layout.maskOrder]: place(4 * Layout.MASKS_MAX),
      [Layout.ahead]: place(8 * Layout.AHEAD * Layout.AHEAD_EACH + 4),
      [Layout.sieves]: place(FlowSieve.COUNT * FlowSieve.SIZE),
      [Layout.controller]: this.controller,
      [Layout.places]: place(BURST_MAX * FlowPlace.SIZE),
      [Layout.copies]: place(BURST_MAX * FLOW_COPY),
    });
    FACTORS.forEach((factor, i) => {
      core.setU32(address + Layout.factors + 4 * i, factor);
    });
    for (let i = 0; i < FlowSieve.COUNT; i++)
      core.setU32(this.#sieveAt(i) + FlowSieve.bits, place(FlowSieve.BITS / 8));
    this.#conclude();
  }

  /**
   * Adds rules; one that is there already, with the same table, priority and match, is replaced, and counts anew. While no
   * lcore touches the table.
   * @throws RangeError where there is no room; then nothing has changed
   */
  add(rules: readonly Rule[]): void {
    const all = rules.map((rule) => ({
      rule,
      name: identity(rule),
      mask: maskName(rule.table, rule.match.mask),
      list: listName(rule),
    }));
    this.#checkRoom(all);
    this.core.exports.invalidateFlows(this.address);
    for (const one of all) {
      const old = this.entries.get(one.name);
      if (old) this.#remove(one.name, old);
      this.entries.set(one.name, this.#insert(one));
    }
    this.#conclude();
  }

  /** Removes the rules with these identities. While no lcore touches the table. */
  remove(names: readonly string[]): void {
    this.core.exports.invalidateFlows(this.address);
    for (const name of names) {
      const entry = this.entries.get(name);
      if (entry) this.#remove(name, entry);
    }
    this.#changed = true;
    for (const mask of this.#masks.values()) mask.priority = 0;
    for (const { rule, mask } of this.entries.values())
      mask.priority = Math.max(mask.priority, rule.priority);
    this.#conclude();
  }

  /** After an lcore died in it: nothing that was cached is believed, nor counted, and the masks are in an order again. */
  recover(): void {
    const { core, address } = this;
    core.setU32(address + Layout.first, core.u32(address + Layout.next));
    core.exports.invalidateFlows(address);
    this.#changed = true;
    this.#conclude();
  }

  /** What a rule has counted, since it was added; `countFlows` must have been called. */
  counts({ address }: Entry): { packets: number; bytes: number } {
    const { core } = this;
    return {
      packets: core.counter(address + FlowRule.packets),
      bytes: core.counter(address + FlowRule.bytes),
    };
  }

  #checkRoom(rules: readonly Named[]): void {
    // A few fit even if nothing of them is there yet.
    const { length } = rules;
    if (
      this.entries.size + length <= this.capacity &&
      this.#masks.size + length <= MASKS &&
      this.#actionsUsed + length * FLOW_ACTIONS <= ACTIONS_PER_RULE * this.capacity
    )
      return;
    const names = new Set<string>();
    const masks = new Set<string>();
    const lists = new Map<string, number>();
    for (const { rule, name, mask, list } of rules) {
      if (!this.entries.has(name)) names.add(name);
      if (!this.#masks.has(mask)) masks.add(mask);
      if (!this.#lists.has(list)) lists.set(list, rule.actions.length);
    }
    const count = this.entries.size + names.size;
    if (count > this.capacity) {
      throw new RangeError(
        `flows: ${count} rules, expected at most ${this.capacity}, or vswitch({ rules }) with more`,
      );
    }
    if (this.#masks.size + masks.size > MASKS)
      throw new RangeError(`flows: ${this.#masks.size + masks.size} masks, expected at most ${MASKS}`);
    let actions = this.#actionsUsed;
    for (const length of lists.values()) actions += length;
    const most = ACTIONS_PER_RULE * this.capacity;
    if (actions > most) throw new RangeError(`flows: ${actions} different actions, expected at most ${most}`);
  }

  #insert({ rule, mask: maskNamed, list: listNamed }: Named): Entry {
    const { core } = this;
    const number = this.#freeRules.pop() ?? this.#rulesUsed++;
    const address = this.#rules + number * FlowRule.SIZE;
    const list = this.#list(rule, listNamed);
    const mask = this.#mask(rule, maskNamed);
    core.bytes.fill(0, address, address + FlowRule.SIZE);
    core.bytes.set(rule.match.key, address);
    core.setU32(address + FlowRule.priority, rule.priority);
    core.setU32(address + FlowRule.order, this.#order++);
    core.setU32(address + FlowRule.mask, mask.address);
    core.setU32(address + FlowRule.actions, list.address);
    core.setU32(address + FlowRule.actionCount, list.actions.length);
    core.exports.insertFlowRule(this.address, address);
    mask.rules++;
    if (rule.priority > mask.priority) {
      mask.priority = rule.priority;
      this.#changed = true;
    }
    list.users++;
    return { rule, address, list, mask };
  }

  #remove(name: string, { address, list, mask }: Entry): void {
    if (this.core.exports.removeFlowRule(this.address, address)) this.#lost++;
    this.entries.delete(name);
    this.#freeRules.push((address - this.#rules) / FlowRule.SIZE);
    if (--list.users === 0) {
      this.#lists.delete(list.name);
      const free = this.#freeActions.get(list.actions.length) ?? [];
      this.#freeActions.set(list.actions.length, free);
      free.push(list.address);
      this.#look(list, -1);
    }
    this.#stale++;
    if (--mask.rules === 0) {
      for (const sieve of mask.sieves) sieve.users--;
      this.#masks.delete(mask.name);
      this.#freeMasks.push(mask.address);
    }
  }

  #list(rule: Rule, name: string): ActionList {
    const found = this.#lists.get(name);
    if (found) return found;
    const { length } = rule.actions;
    let address = this.#freeActions.get(length)?.pop();
    if (address === undefined) {
      address = this.#actions + this.#actionsUsed * FlowAction.SIZE;
      this.#actionsUsed += length;
    }
    for (const [i, action] of rule.actions.entries())
      this.#write(address + i * FlowAction.SIZE, action, rule.table);
    const list = { name, address, actions: rule.actions, users: 0 };
    this.#lists.set(name, list);
    this.#look(list, 1);
    return list;
  }

  #write(address: number, action: Action, table: number): void {
    const { core } = this;
    core.bytes.fill(0, address, address + FlowAction.SIZE);
    switch (action.kind) {
      case "output":
        core.setFields(address, { [FlowAction.kind]: FlowActionKind.OUTPUT, [FlowAction.port]: action.port });
        break;
      case "resubmit":
        core.setFields(address, {
          [FlowAction.kind]: FlowActionKind.RESUBMIT,
          [FlowAction.port]: action.port ?? FLOW_SAME,
          [FlowAction.argument]: action.table,
        });
        break;
      case "controller":
        core.setFields(address, {
          [FlowAction.kind]: FlowActionKind.CONTROLLER,
          [FlowAction.port]: action.maxBytes,
          [FlowAction.argument]: action.reason === "action" ? PacketInReason.ACTION : PacketInReason.NO_MATCH,
          [FlowAction.at]: table,
        });
        break;
      case "pushVlan":
        core.setFields(address, {
          [FlowAction.kind]: FlowActionKind.PUSH_VLAN,
          [FlowAction.argument]: action.type,
        });
        break;
      case "set":
        core.setFields(address, {
          [FlowAction.kind]: FlowActionKind.SET,
          [FlowAction.argument]: action.field,
          [FlowAction.at]: action.at | (action.value.length << 16),
        });
        core.bytes.set(action.value, address + FlowAction.value);
        core.bytes.set(action.mask, address + FlowAction.mask);
        break;
      default:
        core.setU32(address, ACTIONS[action.kind]);
    }
  }

  #mask({ table, match }: Rule, name: string): RuleMask {
    const found = this.#masks.get(name);
    if (found) return found;
    const { core } = this;
    const address = this.#freeMasks.pop() ?? this.#masksAt + this.#masksUsed++ * FlowMask.SIZE;
    core.bytes.fill(0, address, address + FlowMask.SIZE);
    core.bytes.set(match.mask, address);
    core.setU32(address + FlowMask.seed, seed((address - this.#masksAt) / FlowMask.SIZE));
    core.setU32(address + FlowMask.table, table);
    const sieves = this.#sievesFor(match.mask);
    const numbers = sieves.reduce((bits, sieve) => bits | (1 << this.#sieves.indexOf(sieve)), 0);
    core.setU32(address + FlowMask.sieves, numbers);
    const mask = { name, address, table, bits: match.mask, sieves, rules: 0, priority: 0 };
    this.#masks.set(name, mask);
    this.#changed = true;
    return mask;
  }

  #sieveAt(number: number): number {
    return this.core.u32(this.address + Layout.sieves) + number * FlowSieve.SIZE;
  }

  /** Sieves for the words of a mask that have the most bits; fewer where all others are in use. */
  #sievesFor(mask: Uint8Array): Sieve[] {
    const { core } = this;
    const word = (at: number) => new DataView(mask.buffer, mask.byteOffset).getUint32(at, true);
    const words = SIEVED.filter((at) => ones(word(at)) >= SIEVED_BITS).sort(
      (a, b) => ones(word(b)) - ones(word(a)),
    );
    const chosen: Sieve[] = [];
    for (const at of words.slice(0, SIEVES_PER_MASK)) {
      const used = (sieve: Sieve) => sieve.users > 0 && sieve.at === at && sieve.mask === word(at);
      let number = this.#sieves.findIndex(used);
      if (number < 0) {
        number = this.#sieves.findIndex(({ users }) => users === 0);
        if (number < 0) break;
        const address = this.#sieveAt(number);
        const bits = core.u32(address + FlowSieve.bits);
        core.bytes.fill(0, bits, bits + FlowSieve.BITS / 8);
        Object.assign(this.#sieves[number] as Sieve, { at, mask: word(at) });
        core.setFields(address, { [FlowSieve.at]: at, [FlowSieve.mask]: word(at) });
        const count = core.u32(this.address + Layout.sieveCount);
        core.setU32(this.address + Layout.sieveCount, Math.max(count, number + 1));
      }
      const sieve = this.#sieves[number] as Sieve;
      sieve.users++;
      chosen.push(sieve);
    }
    return chosen;
  }

  /** Counts the lists of actions (`by` 1 or -1) after which a frame is looked up again, and those that change it. */
  #look({ actions }: ActionList, by: number): void {
    this.#changed = true;
    if (actions.some(({ kind }) => kind === "resubmit")) this.#resubmitting += by;
    for (const field of changed(actions)) this.#changing.set(field, (this.#changing.get(field) ?? 0) + by);
  }

  /** Inserts all rules into an empty index, and empty sieves. */
  #rebuild(): void {
    const { core, address } = this;
    for (let i = 0; i < FlowSieve.COUNT; i++) {
      const bits = core.u32(this.#sieveAt(i) + FlowSieve.bits);
      core.bytes.fill(0, bits, bits + FlowSieve.BITS / 8);
    }
    const index = core.u32(address + Layout.index);
    core.bytes.fill(0, index, index + 16 * (core.u32(address + Layout.indexMask) + 1));
    for (const entry of this.entries.values()) core.exports.insertFlowRule(address, entry.address);
    this.#lost = 0;
    this.#stale = 0;
  }

  /** What follows from the rules: the order of the masks, and what of a frame is looked at. */
  #conclude(): void {
    if (this.#lost > this.capacity / 8 || this.#stale > this.capacity / 2) this.#rebuild();
    if (!this.#changed) return;
    this.#changed = false;
    const { core, address } = this;
    const union = new Uint8Array(FlowMatch.SIZE);
    const look = (at: number, bytes: number) => union.fill(255, at, at + bytes);
    look(FlowMatch.inPort, 2);
    for (const { bits } of this.#masks.values()) {
      for (const [i, byte] of bits.entries()) union[i] = (union[i] as number) | byte;
    }
    // What a changed frame hits depends on whether there was what was to be changed.
    if (this.#resubmitting > 0) {
      for (const [[at, bytes], lists] of this.#changing) if (lists > 0) look(at, bytes);
    }
    core.bytes.set(union, address + Layout.union);
    const deep = union.some((byte, i) => byte !== 0 && !isInFirstBytes(i));
    const flags = union[FlowMatch.tcpFlags] || union[FlowMatch.tcpFlags + 1];
    core.setU32(address + Layout.deep, deep ? (flags ? 2 : 1) : 0);
    core.bytes.set(plainMask(union, deep), address + Layout.plain);

    const hits = (mask: RuleMask) => core.u32(mask.address + FlowMask.hits);
    const masks = [...this.#masks.values()].sort(
      (a, b) => a.table - b.table || b.priority - a.priority || hits(b) - hits(a),
    );
    const tables = core.u32(address + Layout.tables);
    core.bytes.fill(0, tables, tables + 4 * TABLES);
    for (const [i, { address: mask, priority, table }] of masks.entries()) {
      core.setU32(mask + FlowMask.priority, priority);
      core.setU32(core.u32(address + Layout.masks) + 4 * i, mask);
      const range = core.u32(tables + 4 * table) || i;
      core.setU32(tables + 4 * table, (range & 0xffff) | ((i + 1) << 16));
    }
  }
}

/** A field by its place in a key and its bytes. */
type Place = readonly [at: number, bytes: number];
const TAG: Place = [FlowMatch.vlanTci, 2];
const INNER: Place = [FlowMatch.vlanInner, 2];
const TYPE: Place = [FlowMatch.dlType, 2];
const PROTOCOL: Place = [FlowMatch.nwProto, 1];

/** What decides whether these actions change a frame. */
function changed(actions: readonly Action[]): Place[] {
  return actions.flatMap((action) => {
    if (action.kind === "pushVlan" || action.kind === "stripVlan") return [TAG, INNER];
    if (action.kind !== "set" || action.field === FlowField.ETHERNET) return [];
    return action.at === FlowMatch.vlanTci ? [TAG, INNER] : [TYPE, PROTOCOL];
  });
}

/** What the first 16 bytes of an untagged frame tell, and its port. */
const isInFirstBytes = (at: number): boolean =>
  at < FlowMatch.nwTos || at === FlowMatch.vlanInner || at === FlowMatch.vlanInner + 1;

/** `FlowTable.plain`: where what counts stands in a plain frame, and what makes it one. */
function plainMask(union: Uint8Array, deep: boolean): Uint8Array {
  const mask = new Uint8Array(64);
  const put = (to: number, at: number, bytes: number) => mask.set(union.subarray(at, at + bytes), to);
  put(0, FlowMatch.dlDst, 12);
  mask.set([255, 255], 12); // EtherType
  if (!deep) return mask;
  mask[14] = 255; // version and header length
  put(15, FlowMatch.nwTos, 1);
  mask.set([0x3f, 255], 20); // fragment
  put(22, FlowMatch.nwTtl, 1);
  mask[23] = 255; // protocol
  put(26, FlowMatch.nwSrc, 4);
  put(30, FlowMatch.nwDst, 4);
  put(34, FlowMatch.tpSrc, 4);
  mask.copyWithin(48, 32, 48);
  put(48 + 46 - 32, FlowMatch.tcpFlags, 2);
  return mask;
}

/** How many bits of a word are 1. */
function ones(word: number): number {
  let n = 0;
  for (let left = word; left; left &= left - 1) n++;
  return n;
}

const seed = (i: number): number => Math.imul(i + 1, 0x9e3779b1) >>> 0;
const maskName = (table: number, mask: Uint8Array): string => `${table},${bytesAsText(mask)}`;
/** The table is told to the controller, and is a `resubmit`'s where none is named. */
const listName = (rule: Rule): string => {
  let table = "";
  let fields = "";
  for (const action of rule.actions) {
    if (action.kind === "controller") table = `${rule.table}`;
    else if (action.kind === "set") fields += action.field;
  }
  return `${table} ${fields} ${formatActions(rule.actions)}`;
};
