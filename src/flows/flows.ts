/** A switch's flow table, as its user sees it: rules in ovs-ofctl's syntax, and frames for the controller. */
import { FLOW_HEAD, FlowMatch, Kind, Packet, PacketInReason, Ring } from "../../assembly/layout.ts";
import type { HostMemory } from "../core/host-memory.ts";
import { integer } from "../options.ts";
import { formatMatch, type Match } from "./fields.ts";
import {
  formatRule,
  identity,
  inOrder,
  isSelected,
  type PortNames,
  parseFlows,
  parseMatch,
  parseSelection,
  type Rule,
} from "./rule.ts";
import { type Entry, FlowTable } from "./table.ts";
import { formatTrace, type Trace, trace } from "./trace.ts";

/** Where a frame for the controller comes from. */
export interface PacketInInfo {
  /** Number of the port where it came in. */
  inPort: number;
  /** "noMatch" where the rule says so: `controller(reason=no_match)`. */
  reason: "action" | "noMatch";
  table: number;
  /** Bytes of the whole frame: it is cut at `max_len`, and at 2048. */
  length: number;
}

/** @param frame a view of the host's memory, valid during the call */
export type PacketIn = (frame: Uint8Array, info: PacketInInfo) => void;

/** A rule and what it has counted since it was added. */
export interface FlowStats {
  /** As ovs-ofctl's dump-flows writes it. */
  text: string;
  table: number;
  priority: number;
  cookie: bigint;
  packets: number;
  bytes: number;
}

/** Rules that a table holds unless more are asked for, and the most. */
const RULES = 16384;
const RULES_MAX = 65534;
/** Frames given to the controller in one go. */
const AT_A_TIME = 64;

export class Flows {
  readonly #table: FlowTable;
  /** Descriptors that are taken from the ring; behind them a key, then a frame's head. */
  readonly #scratch: number;
  #delivering = false;
  /** Called for each frame that a rule sends to the controller, after a poll on the calling thread. */
  onPacketIn: PacketIn | undefined;

  /** @internal Use `host.vswitch({ flows })`. */
  constructor(
    readonly host: HostMemory,
    readonly ports: PortNames,
    rules: number = RULES,
  ) {
    this.#table = new FlowTable(host.core, integer("rules", rules, 1, RULES_MAX));
    const bytes = AT_A_TIME * Packet.SIZE + FlowMatch.WITH_OFFSETS + FLOW_HEAD;
    this.#scratch = host.core.place(Kind.BYTES, bytes, "flow table").address;
  }

  /** Address of the core's table. */
  get address(): number {
    return this.#table.address;
  }

  /** Address of the ring of frames for the controller. */
  get controller(): number {
    return this.#table.controller;
  }

  /**
   * Adds rules, one a line or an element. One with the same table, priority and match as another replaces it.
   * @throws RuleError with line and column for what can't be read, RangeError where there is no room; then nothing has
   *   changed
   */
  add(text: string | readonly string[]): void {
    const rules = parseFlows(text, this.ports);
    this.host.paused(() => this.#table.add(rules), { placed: true });
  }

  /**
   * Deletes the rules whose match is `match` or narrower, of the table and cookie that it names, of all where it names
   * none; "" is all rules. `strict`: only the rule with exactly this match and priority.
   * @returns how many
   * @throws RuleError with the column
   */
  delete(match = "", { strict = false }: { strict?: boolean } = {}): number {
    const names = select(this.#rules(), match, { strict, ports: this.ports });
    this.host.paused(() => this.#table.remove(names), { placed: true });
    return names.length;
  }

  /** The rules by table and priority, with what they have counted. */
  dump(): FlowStats[] {
    // What cached flows have counted is given to their rules.
    this.host.paused(() => this.host.core.exports.countFlows(this.address), { placed: true });
    const entries = [...this.#table.entries.values()].sort((a, b) => inOrder(a.rule, b.rule));
    return entries.map((entry) => this.#stats(entry));
  }

  #stats(entry: Entry): FlowStats {
    const { rule } = entry;
    const counts = this.#table.counts(entry);
    const { table, priority, cookie } = rule;
    return { text: formatRule(rule, counts), table, priority, cookie, ...counts };
  }

  #rules(): Rule[] {
    return [...this.#table.entries.values()].map(({ rule }) => rule);
  }

  /**
   * What the rules make of a frame, or of one that is told by a match as rules have it ("tcp,nw_dst=10.0.0.1"): which rule
   * of which table is hit, and all actions. No frame is moved, nothing counted.
   * @param inPort number or name of the port; default that of the match, or 0
   * @throws RuleError with the column; RangeError for a port that isn't there
   */
  trace(what: Uint8Array | string, inPort?: number | string): Trace & { text: string } {
    const port = typeof inPort === "string" ? this.ports(inPort) : inPort;
    if (inPort !== undefined && (port === undefined || !(port >= 0 && port < 2048)))
      throw new RangeError(`inPort: ${inPort}, expected the number or name of a port`);
    const key = typeof what === "string" ? parseMatch(what, this.ports).key.slice() : this.#key(what);
    if (port !== undefined) key.set([port & 255, port >> 8], FlowMatch.inPort);
    const traced = trace(this.#rules(), key);
    return { ...traced, text: formatTrace(traced) };
  }

  /** A frame's key, as the core reads it. */
  #key(frame: Uint8Array): Uint8Array {
    const { core } = this.host;
    const key = this.#scratch + AT_A_TIME * Packet.SIZE;
    const head = frame.subarray(0, FLOW_HEAD);
    core.bytes.set(head, key + FlowMatch.WITH_OFFSETS);
    core.exports.extractKey(key + FlowMatch.WITH_OFFSETS, head.length, frame.length, 0, key);
    return core.bytes.slice(key, key + FlowMatch.SIZE);
  }

  /** @internal Ports have changed: where cached flows go may have too. */
  invalidate(): void {
    this.host.core.exports.invalidateFlows(this.address);
  }

  /** @internal After an lcore died in it. */
  reset(): void {
    this.#table.recover();
  }

  /** @internal Frames for the controller, to `onPacketIn`; without one they wait, and those that find no place are dropped. */
  deliver(): void {
    const { core, pool } = this.host;
    if (!this.onPacketIn || this.#delivering) return;
    const there = () => core.u32(this.controller + Ring.head) !== core.u32(this.controller + Ring.tail);
    this.#delivering = true;
    try {
      while (there()) {
        const n = core.exports.dequeue(this.controller, this.#scratch, AT_A_TIME);
        if (n === 0) break;
        try {
          for (let i = 0; i < n; i++) this.#give(this.#scratch + i * Packet.SIZE);
        } finally {
          core.exports.giveBuffers(pool, 0, this.#scratch, n);
        }
      }
    } finally {
      this.#delivering = false;
    }
  }

  #give(p: number): void {
    const { core } = this.host;
    const addr = core.u32(p);
    const flags = core.u16(p + Packet.flags);
    this.onPacketIn?.(core.bytes.subarray(addr, addr + core.u16(p + Packet.len)), {
      inPort: core.u16(p + Packet.mark),
      reason: (flags & 255) === PacketInReason.NO_MATCH ? "noMatch" : "action",
      table: flags >> 8,
      length: core.u16(p + Packet.room),
    });
  }
}

/**
 * Identities of the rules that `match` means, as `Flows.delete` has it.
 * @throws RuleError with the column
 */
export function select(
  rules: readonly Rule[],
  match: string,
  { strict, ports }: { strict: boolean; ports: PortNames },
): string[] {
  const selection = parseSelection(match, ports);
  const chosen = rules.filter((rule) => isSelected(rule, selection));
  const exactly = (rule: Rule) =>
    same(rule.match, selection.match) && rule.priority === (selection.priority ?? rule.priority);
  const wanted =
    selection.priority !== undefined && !strict
      ? chosen.filter(({ priority }) => priority === selection.priority)
      : chosen;
  return (strict ? wanted.filter(exactly) : wanted).map(identity);
}

const same = (a: Match, b: Match): boolean =>
  formatMatch(a) === formatMatch(b) && a.mask.every((bits, i) => bits === b.mask[i]);
