/** rte_flow rules of a card (layout: `RteFlowTable`), as text of testpmd's or as objects. */
import { Kind, Nic as NicLayout, RteFlow, RteFlowRefusal, RteFlowTable } from "../../assembly/layout.ts";
import type { HostMemory } from "../core/host-memory.ts";
import { formatInput, formatRule } from "../rte-flow/format.ts";
import type { RteFlowRule } from "../rte-flow/items.ts";
import { type ParsedRule, parseCommand, parseRule } from "../rte-flow/parse.ts";
import { RteFlowError, type Word } from "../rte-flow/words.ts";

/** Frames that a rule matched, and their bytes without FCS. */
export interface RteFlowCount {
  hits: number;
  bytes: number;
}

export interface RteFlowEntry extends RteFlowCount {
  id: number;
  priority: number;
  /** `ingress pattern ... / end actions ... / end`. */
  rule: string;
  /** The guest that made it, by a vDPDK device. */
  guest?: string;
}

/** What a refusal expected, behind the word that it is about. */
const EXPECTED: Partial<Record<RteFlowRefusal, string>> = {
  [RteFlowRefusal.GROUP]: "group 0",
  [RteFlowRefusal.ATTRIBUTES]: "ingress alone",
  [RteFlowRefusal.ACTIONS]: "one action, and one of queue, rss, drop and passthru at most",
  [RteFlowRefusal.QUEUE]: "a receive queue that the card has",
  [RteFlowRefusal.MAPPED]:
    "another queue, or a pattern with the guest's own eth dst: this is a mapped guest's memory",
  [RteFlowRefusal.MARK]:
    "no mark of a rule's with the queue of a mapped guest, whose frames the filter marks",
  [RteFlowRefusal.BRIDGED]:
    "a card that follows rules itself (flowOffload): its driver sees no frame of a pipe's that is bridged to it",
  [RteFlowRefusal.EXISTS]: "another pattern or priority: there is a rule with these",
  [RteFlowRefusal.FULL]: `fewer rules, or "flowRules" to be larger`,
  [RteFlowRefusal.MASKS]: `${RteFlowTable.MASKS_MAX} different masks at most`,
};

/**
 * The rules of one card. Of those that match a frame the one with the lowest priority wins, of equal ones the first that
 * was made; the card's own filters and RSS come behind. A card without such a filter (`flowOffload: false`) has its
 * driver follow them, at a price.
 */
export class NicFlow {
  #table = 0;
  /** Where a rule is put for the core to read. */
  #staging = 0;
  /** @internal Hands on all that the card has received: a change mustn't let frames overtake others of their flow. */
  settle: () => void = () => {};
  /**
   * @internal The driver begins or ends to follow rules. Until it ends no guest's memory may be mapped: the driver must see
   * a frame before a guest does.
   */
  driven: (on: boolean) => void = () => {};

  /** @internal Use `nic.flow`. */
  constructor(
    private readonly host: HostMemory,
    private readonly nic: { readonly name: string; readonly address: number },
    /** Most rules. */
    readonly capacity: number,
    /** Whether the card follows them; else its driver does. */
    readonly offload: boolean,
  ) {}

  /**
   * Address of the table, for who makes rules in the core (`createFlow`): it is made when it is asked for first.
   * @throws RangeError where the memory is full
   */
  get table(): number {
    if (this.#table) return this.#table;
    const { core } = this.host;
    const { nic, capacity } = this;
    const buckets = 2 * capacity;
    const rules = Math.ceil((RteFlowTable.SIZE + 2 * buckets) / 64) * 64;
    const staging = rules + capacity * RteFlow.SIZE;
    const { id, address } = core.place(Kind.RTE_FLOW_TABLE, staging + RteFlow.INPUT, `flow of ${nic.name}`);
    core.setFields(address, {
      [RteFlowTable.id]: id,
      [RteFlowTable.nic]: nic.address,
      [RteFlowTable.capacity]: capacity,
      [RteFlowTable.buckets]: address + RteFlowTable.SIZE,
      [RteFlowTable.bucketMask]: buckets - 1,
      [RteFlowTable.rules]: address + rules,
    });
    core.exports.flushFlows(address);
    core.setU32(nic.address + (this.offload ? NicLayout.flows : NicLayout.driverFlows), address);
    this.#staging = address + staging;
    this.#table = address;
    return address;
  }

  /**
   * Makes a rule: `flow create 0 ingress pattern ...`, the same from `ingress` on, or an object.
   * @returns its id
   * @throws RteFlowError with the column of what can't be read, or what the card can't do; then nothing has changed
   */
  create(rule: string | RteFlowRule): number {
    const parsed = this.#parse(rule);
    return this.#change(() => this.#ask(parsed, this.host.core.exports.createFlow));
  }

  /** Throws what `create` would throw, and changes nothing. */
  validate(rule: string | RteFlowRule): void {
    this.#ask(this.#parse(rule), this.host.core.exports.validateFlow);
  }

  /** @throws RangeError where there is no such rule; then the others are as they were */
  destroy(id: number): void {
    this.#find(id);
    this.#change(() => this.host.core.exports.destroyFlow(this.table, id));
  }

  /** Destroys all rules. */
  flush(): void {
    if (this.#table) this.#change(() => this.host.core.exports.flushFlows(this.table));
  }

  /** All rules, in the order in which they were made. */
  list(): RteFlowEntry[] {
    const { core } = this.host;
    if (!this.#table) return [];
    const first = core.u32(this.#table + RteFlowTable.rules);
    return Array.from({ length: this.capacity }, (_, i) => first + i * RteFlow.SIZE)
      .filter((at) => core.u32(at + RteFlow.used))
      .map((at) => ({
        id: core.u32(at + RteFlow.id),
        priority: core.u32(at + RteFlow.priority),
        rule: formatInput(core.bytes.slice(at, at + RteFlow.INPUT)),
        hits: core.counter(at + RteFlow.hits),
        bytes: core.counter(at + RteFlow.bytes),
        ...this.#maker(core.u32(at + RteFlow.maker)),
      }))
      .sort((a, b) => a.id - b.id);
  }

  /** What a rule has matched, whether it has a `count` or not. @throws RangeError where there is no such rule */
  query(id: number): RteFlowCount {
    const { hits, bytes } = this.#find(id);
    return { hits, bytes };
  }

  /**
   * Runs a line of testpmd's: create, validate, destroy, flush, list or query.
   * @returns what testpmd prints
   * @throws RteFlowError, RangeError as the methods above
   */
  run(line: string): string {
    const command = parseCommand(line);
    this.#checkPort(command.port);
    switch (command.command) {
      case "create":
        return `Flow rule #${this.#change(() => this.#ask(command.rule, this.host.core.exports.createFlow))} created`;
      case "validate":
        this.#ask(command.rule, this.host.core.exports.validateFlow);
        return "Flow rule validated";
      case "destroy":
        for (const id of command.rules) this.#find(id);
        for (const id of command.rules) this.destroy(id);
        return command.rules.map((id) => `Flow rule #${id} destroyed`).join("\n");
      case "flush":
        this.flush();
        return "";
      case "list":
        return [
          "ID\tPrio\tRule",
          ...this.list().map((one) => `${one.id}\t${one.priority}\t${one.rule}`),
        ].join("\n");
      case "query": {
        const { hits, bytes } = this.query(command.rule);
        return `COUNT:\n hits_set: 1\n bytes_set: 1\n hits: ${hits}\n bytes: ${bytes}`;
      }
    }
  }

  /**
   * Runs lines of testpmd's, one after the other; empty ones and comments (#) are nothing.
   * @returns what testpmd prints, for each line
   * @throws RteFlowError that names the line too; those before it have been run
   */
  runLines(text: string): string[] {
    return text.split(/\r?\n/).flatMap((line, i) => {
      if (/^\s*(#|$)/.test(line)) return [];
      try {
        return [this.run(line)];
      } catch (error) {
        throw error instanceof RteFlowError ? error.at(i + 1) : error;
      }
    });
  }

  /** Set by who lets guests make rules: names of their devices, by directory id. */
  readonly makers = new Map<number, string>();

  #maker(id: number): { guest?: string } {
    const guest = this.makers.get(id);
    return guest === undefined ? {} : { guest };
  }

  #find(id: number): RteFlowEntry {
    const found = this.list().find((rule) => rule.id === id);
    if (!found) throw new RangeError(`flow: rule ${id}, expected one of ${this.nic.name}'s`);
    return found;
  }

  /** @internal After an lcore has died that may have been changing the table. */
  repair(): void {
    if (this.#table) this.host.core.exports.repairFlows(this.#table);
  }

  /** @internal Whether the driver has rules to follow. */
  get isDriven(): boolean {
    return !this.offload && this.#table !== 0 && this.host.core.u32(this.#table + RteFlowTable.count) > 0;
  }

  /** While no lcore touches anything, and with all handed on that came before. */
  #change<T>(change: () => T): T {
    return this.host.paused(() => {
      this.settle();
      const before = this.isDriven;
      try {
        return change();
      } finally {
        if (this.isDriven !== before) this.driven(!before);
      }
    });
  }

  #parse(rule: string | RteFlowRule): ParsedRule {
    const { port, rule: parsed } = parseRule(typeof rule === "string" ? rule : formatRule(rule));
    if (port) this.#checkPort(port);
    return parsed;
  }

  #checkPort(port: Word): void {
    const own = this.nic.name.replace(/\D/g, "");
    if (Number(port.text) !== Number(own)) {
      throw new RteFlowError(port.column, port.text, `${own}, the number of ${this.nic.name}`);
    }
  }

  /** @returns the rule's id */
  #ask({ input, words }: ParsedRule, ask: (table: number, from: number) => number): number {
    const { table } = this;
    this.host.core.bytes.set(input, this.#staging);
    const made = ask(table, this.#staging);
    if (made >= 0) return made;
    throw refused(words, -made as RteFlowRefusal);
  }
}

/** A rule that was read and refused: at the word that it is about, or where its pattern begins. */
export function refused(
  words: ParsedRule["words"],
  refusal: RteFlowRefusal,
  expected = EXPECTED[refusal] ?? "another rule",
): RteFlowError {
  const { text, column } = words[refusal] ?? words[RteFlowRefusal.EXISTS] ?? { text: "", column: 1 };
  return new RteFlowError(column, text, expected);
}
