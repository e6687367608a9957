/**
 * The main job: PVP (physical, virtual, physical). Frames from the wire through NIC, switch, guest, switch and
 * NIC back to the wire, over each attachment, checked one by one.
 *
 * The NIC is hardware: it fills a whole ring, then the clock starts, host and guests handle the ring, the clock
 * stops, and the NIC sends. Attachments take turns, round by round, and their gain is the median of the rounds'
 * ratios.
 */
import { pause, runtime, sharedMemory } from "#platform";
import { FRAME_MAX, FRAME_MIN } from "../assembly/layout.ts";
import { parseFlows } from "./flows/rule.ts";
import type { Attach, FunctionName, Guest, Host, Nic } from "./host.ts";
import { macBytes } from "./mac.ts";
import { median } from "./median.ts";
import { type CapturedFrame, CaptureError, framesOf } from "./ports/capture.ts";
import { CaptureWriter, readCapture } from "./ports/capture-file.ts";
import { FrameGenerator, type FrameSize, meanBytes } from "./ports/generator.ts";
import { parseLcores, room, settle } from "./pvp-lcores.ts";
import type { RteFlowEntry } from "./roles/rte-flow.ts";
import { parseRules } from "./rules.ts";
import { type LookupSource, portNamed, refusal, Testbed, type TestbedSetup, WIRE_MAC } from "./testbed.ts";

export interface PvpOptions extends TestbedSetup {
  attach?: Attach[];
  /** Frame sizes on the wire; see `FrameSize`. Ignored with `capture`. */
  size?: FrameSize[];
  /** Capture that plays the wire: a file, or its bytes. Destination MACs are rewritten to the guests'. */
  capture?: string | Uint8Array;
  /** Capture file of what the NIC sends in the first measured round of the first run. */
  out?: string;
  /** Frames a round; default 200,000, or one pass of the capture. */
  packets?: number;
  burst?: number;
  ring?: number;
  /**
   * Guests in a row: how many, of which the first is attached by `attach` and the others by vhost; or the attachments of
   * all of them, which are then the one row of the table.
   */
  chain?: number | readonly Attach[];
  /** Guests side by side, each with traffic of its own. */
  guests?: number;
  function?: FunctionName;
  /** Measured rounds; default 7. */
  repeat?: number;
  seed?: number;
  signal?: AbortSignal;
  onProgress?: (done: number, total: number, what: string) => void;
}

/**
 * One row: an attachment at a frame size. Figures are medians over the rounds, counts are sums. Where the clock doesn't
 * move while a program runs (a deployed Worker), what is a rate or a time is NaN: null in JSON.
 */
export interface PvpRun {
  /** An attachment, or those of a chain, joined by commas. */
  attach: string;
  frame: number | string;
  packets: number;
  mpps: number;
  mppsMin: number;
  mppsMax: number;
  nsPerPacket: number;
  gbps: number;
  copiesPerPacket: number;
  bytesCopiedPerPacket: number;
  /** Interrupts that the card raised on the host, and notifications (interrupts) of the guests. */
  notificationsPerPacket: number;
  /** Of those the card's. */
  interruptsPerPacket: number;
  /** Polls of the card's receive queues, those of interrupt handlers among them. */
  pollsPerPacket: number;
  /** Fraction: 0.98 is +98 %. */
  gainVsVhost: number | null;
  lost: number;
  duplicated: number;
  reordered: number;
  corrupt: number;
  drops: Record<string, number>;
  /** The card's rte_flow rules, and what they matched in the measured rounds. */
  flows?: RteFlowEntry[];
}

export interface PvpReport {
  runtime: { name: string; version: string; cpu?: string; cores?: number; memory: "shared" | "unshared" };
  command: "pvp";
  /** As asked for; without: one thread. */
  lcores?: string[];
  runs: PvpRun[];
  /** Attachments that can't be run so, with the reason, where others can. */
  leftOut?: LeftOut[];
  interrupted?: boolean;
}

export interface LeftOut {
  attach: string;
  why: string;
}

interface Tally {
  lost: number;
  duplicated: number;
  reordered: number;
  corrupt: number;
}

/** Where a run's frames come from and are checked. */
interface Wire {
  /** Fills the NIC with up to `n` frames; 0 at the end of a round. */
  fill(n: number): number;
  /** Takes and checks what the NIC sends. */
  drain(): void;
  /** A new round begins. */
  rewind(): void;
  tally(): Tally;
  /** Mean bytes of a frame in memory. */
  bytes(): number;
  /** Timestamp for the frames that are sent now, in ns. */
  now(): bigint;
}

const DEFAULT_PACKETS = 200_000;

/**
 * @throws RangeError for an option out of range, RuleError for the firewall's rules, CaptureError for a capture
 * that can't be read; when it breaks in the middle, the frames before that have been run and the error's
 * `report` has their figures.
 */
export async function pvp(options: PvpOptions): Promise<PvpReport> {
  const o = checked(options);
  const frames = o.capture === undefined ? o.size : [nameOf(o.capture)];
  const report: PvpReport = {
    runtime: { ...runtime(), memory: o.lcores && sharedMemory().available ? "shared" : "unshared" },
    command: "pvp",
    ...(o.lcores ? { lcores: o.lcores } : {}),
    runs: [],
  };
  const { rows, leftOut } = rowsOf(o);
  if (leftOut.length > 0) report.leftOut = leftOut;
  const total = frames.length * rows.length * o.repeat;
  let done = 0;
  let broken: CaptureError | undefined;
  const writer = o.out === undefined ? undefined : new CaptureWriter(o.out);
  try {
    for (const frame of frames) {
      const rigs: Rig[] = [];
      for (const row of rows) rigs.push(await Rig.create(row, frame, o));
      for (const rig of rigs) await rig.warmUp(o.signal);
      for (let round = 0; round < o.repeat && !o.signal?.aborted; round++) {
        for (const rig of rigs) {
          const record = round === 0 && rig === rigs[0] && frame === frames[0] ? writer : undefined;
          await rig.round(o.signal, record);
          o.onProgress?.(++done, total, `${rig.attach} ${frame}`);
          if (o.signal?.aborted) break;
        }
      }
      const vhost = rigs.find((rig) => rig.attach === "vhost");
      for (const rig of rigs) if (rig.packets > 0) report.runs.push(rig.row(vhost));
      broken ??= rigs.map((rig) => rig.broken).find((error) => error !== undefined);
      for (const rig of rigs) await rig.bed.close();
      if (o.signal?.aborted) break;
    }
  } finally {
    writer?.close();
  }
  if (o.signal?.aborted) report.interrupted = true;
  if (broken) throw Object.assign(broken, { report });
  return report;
}

/** @internal What is compared: each with the attachments of its guests in a row. */
export interface Row {
  name: string;
  attachments: readonly Attach[];
}

/**
 * One for each attachment, or one for a chain of named ones.
 * @internal
 * @throws RangeError where none of them can be run so; otherwise those that can't are left out
 */
export function rowsOf({ attach, chain, ...o }: Pick<Checked, "attach" | "chain" | "guests" | "flow">): {
  rows: Row[];
  leftOut: LeftOut[];
} {
  const rest = Array<Attach>(typeof chain === "number" ? chain - 1 : 0).fill("vhost");
  const all: Row[] =
    typeof chain === "number"
      ? attach.map((name) => ({ name, attachments: [name, ...rest] }))
      : [{ name: chain.join(","), attachments: chain }];
  const leftOut = all.flatMap(({ name, attachments }) => {
    const why = refusal(attachments, o);
    return why === undefined ? [] : [{ attach: name, why }];
  });
  if (leftOut.length === all.length) throw new RangeError(leftOut[0]?.why ?? "attach: none, expected one");
  return { rows: all.filter(({ name }) => leftOut.every(({ attach }) => attach !== name)), leftOut };
}

/** @internal `PvpOptions` with the defaults filled in. */
export type Checked = Required<Omit<PvpOptions, Optional>> & Pick<PvpOptions, Optional>;
type Optional =
  | "capture"
  | "out"
  | "packets"
  | "rules"
  | "flow"
  | "flows"
  | "lcores"
  | "nicMode"
  | "napi"
  | "zeroCopyTx"
  | "signal"
  | "onProgress";

/**
 * The options with their defaults.
 * @internal
 * @throws RangeError, RuleError as `pvp` does.
 */
export function checked(options: PvpOptions): Checked {
  const whole = (name: string, value: number, least: number, most: number) => {
    if (!Number.isInteger(value) || value < least || value > most) {
      throw new RangeError(`${name}: ${value}, expected a whole number from ${least} to ${most}`);
    }
    return value;
  };
  const o = {
    attach: ["vhost", "iovtee"] as Attach[],
    size: [64, 1514, "imix"] as FrameSize[],
    function: "macswap" as FunctionName,
    lookup: "learning" as LookupSource,
    flowOffload: true,
    ...Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)),
  } as Checked;
  o.burst = whole("burst", options.burst ?? 32, 1, 256);
  o.ring = whole("ring", options.ring ?? 256, 2, 1024);
  if (o.ring & (o.ring - 1)) throw new RangeError(`ring: ${o.ring}, expected a power of two from 2 to 1024`);
  const { chain = 1 } = options;
  const length = whole("chain", typeof chain === "number" ? chain : chain.length, 1, 64);
  o.chain = chain;
  o.guests = whole("guests", options.guests ?? 1, 1, 1000);
  if (length * o.guests > 1000)
    throw new RangeError(`guests: ${length * o.guests} in all, expected at most 1000`);
  o.repeat = whole("repeat", options.repeat ?? 7, 1, 1000);
  o.queues = whole("queues", options.queues ?? 1, 1, 64);
  if (o.queues > 1 && o.capture !== undefined) {
    throw new RangeError(`queues: ${o.queues} with a capture, whose order is checked, expected 1`);
  }
  o.seed = whole("seed", options.seed ?? 1, 0, 0xffffffff);
  if (options.napi !== undefined) whole("napi", options.napi, 1, 256);
  if (options.packets !== undefined) whole("packets", options.packets, 1, 2 ** 40);
  for (const size of o.size) if (size !== "imix") whole("size", size, 64, FRAME_MAX + 4);
  if (o.lcores) parseLcores(o.lcores);
  if (o.flows !== undefined && o.lookup !== "flows")
    throw new RangeError(`flows: rules for lookup "${o.lookup}", expected lookup "flows"`);
  if (o.flows !== undefined) parseFlows(o.flows, portNamed);
  if (o.function === "firewall") parseRules(o.rules ?? "");
  return o;
}

/** Drops by the guest's function or by a rule, of the card's or of the switch's: such a frame isn't lost. */
export const ON_PURPOSE = ["function", "rxFlowDrop", "flow"];

/** One attachment at one frame size: a host of its own, and its figures so far. */
class Rig {
  readonly mpps: number[] = [];
  packets = 0;
  broken: CaptureError | undefined;
  #copies = 0;
  #copiedBytes = 0;
  #notifications = 0;
  #interrupts = 0;
  #polls = 0;
  /** The card's rules, and what had been dropped, before the first round. */
  #flows: RteFlowEntry[] = [];
  #dropsBefore: Record<string, number> = {};

  private constructor(
    readonly attach: string,
    readonly frame: FrameSize | string,
    readonly o: Checked,
    readonly bed: Testbed,
    readonly wire: Wire,
  ) {}

  static async create(row: Row, frame: FrameSize | string, o: Checked): Promise<Rig> {
    const bed = await Testbed.create(row.attachments, o);
    const to = bed.heads.map((guest) => guest.mac);
    const wire =
      o.capture === undefined
        ? new GeneratorWire(bed.host, bed.nic, frame as FrameSize, to, o)
        : new CaptureWire(bed.host, bed.nic, o.capture, bed, o);
    await bed.launch();
    return new Rig(row.name, frame, o, bed, wire);
  }

  /** Until the engine has compiled the core for speed. */
  async warmUp(signal: AbortSignal | undefined): Promise<void> {
    const end = performance.now() + 150;
    while (performance.now() < end && !signal?.aborted) {
      this.wire.rewind();
      let cycles = 0;
      try {
        while (cycles++ < 100 && this.#cycle() > 0) {}
      } catch (error) {
        // A capture that breaks: the measured rounds tell of it.
        if (!(error instanceof CaptureError)) throw error;
        break;
      }
      if (cycles === 1) break;
      await pause();
    }
    const counts = this.#counts();
    this.#copies -= counts.copies;
    this.#copiedBytes -= counts.copiedBytes;
    this.#notifications -= counts.notifications;
    this.#interrupts -= counts.interrupts;
    this.#polls -= counts.polls;
    this.#flows = this.bed.nic.flow.list();
    this.#dropsBefore = counts.drops;
  }

  /** Fills the card, times host and guests, empties the card. Returns the frames, 0 at the end of the round. */
  #cycle(writer?: CaptureWriter): number {
    // One in eight of a mapped guest's buffers isn't the card's.
    const most = this.o.ring - (this.o.ring >> 3) || 1;
    const { host, nic, places } = this.bed;
    const n = Math.min(most, places ? room(host, nic, this.bed.guests, this.bed.heads) : most);
    // A card with an lcore of its own works while the others do: the clock runs for it too.
    const apart = places?.here.size === 1;
    const before = this.#droppedBefore;
    const filling = performance.now();
    const frames = this.wire.fill(n);
    if (frames === 0) return 0;
    if (!places || places.workers.length === 0) this.#time += this.bed.drain();
    else {
      const start = apart ? filling : performance.now();
      if (!settle(host, nic, frames, () => this.#dropped() - before)) this.#droppedBefore = this.#dropped();
      this.#time += performance.now() - start;
    }
    writer?.write(nic.toTransmit(), this.wire.now());
    this.wire.drain();
    return frames;
  }
  /** Milliseconds that host and guests took in this round. */
  #time = 0;
  #droppedBefore = 0;

  /** Frames dropped so far, wherever and for whatever reason. */
  #dropped(): number {
    return Object.values(this.bed.drops()).reduce((sum, n) => sum + n, 0);
  }

  async round(signal: AbortSignal | undefined, writer: CaptureWriter | undefined): Promise<void> {
    let frames = 0;
    this.#time = 0;
    let yielded = performance.now();
    this.wire.rewind();
    try {
      while (!signal?.aborted) {
        const some = this.#cycle(writer);
        if (some === 0) break;
        frames += some;
        if (performance.now() - yielded > 20) {
          await pause();
          yielded = performance.now();
        }
      }
    } catch (error) {
      if (!(error instanceof CaptureError)) throw error;
      this.broken = error;
    }
    if (frames === 0) return;
    this.packets += frames;
    this.mpps.push(this.#time > 0 ? frames / this.#time / 1000 : Number.NaN);
  }

  #counts() {
    const { ports, functions, nics } = this.bed.host.stats();
    const add = (key: "copies" | "copiedBytes") => ports.reduce((n, port) => n + port[key], 0);
    const ofCards = (key: "interrupts" | "polls") => nics.reduce((n, nic) => n + nic[key], 0);
    return {
      copies: add("copies"),
      copiedBytes: add("copiedBytes"),
      notifications: [...ports, ...functions].reduce((n, one) => n + one.notifications, 0),
      interrupts: ofCards("interrupts"),
      polls: ofCards("polls"),
      drops: this.bed.drops(),
    };
  }

  /** The card's rules with what they have matched since the first round. */
  #matched(): RteFlowEntry[] {
    return this.bed.nic.flow.list().map((rule, i) => {
      const { hits = 0, bytes = 0 } = this.#flows[i] ?? {};
      return { ...rule, hits: rule.hits - hits, bytes: rule.bytes - bytes };
    });
  }

  /** What was dropped on purpose since the first round; of anything else a frame counts that was lost before, too. */
  #drops(all: Record<string, number>): Record<string, number> {
    const drops = { ...all };
    for (const reason of ON_PURPOSE) {
      const n = (all[reason] ?? 0) - (this.#dropsBefore[reason] ?? 0);
      if (n > 0) drops[reason] = n;
      else delete drops[reason];
    }
    return drops;
  }

  row(vhost: Rig | undefined): PvpRun {
    const counts = this.#counts();
    const per = (n: number) => n / this.packets;
    const interrupts = this.#interrupts + counts.interrupts;
    const mpps = median(this.mpps);
    const bytes = this.wire.bytes();
    const wireBytes = this.frame === 1514 ? 1518 : bytes + 4;
    const tally = this.wire.tally();
    const gain =
      vhost && vhost !== this
        ? median(this.mpps.map((value, i) => value / (vhost.mpps[i] ?? value))) - 1
        : null;
    return {
      attach: this.attach,
      frame: this.frame,
      packets: this.packets,
      mpps,
      mppsMin: Math.min(...this.mpps),
      mppsMax: Math.max(...this.mpps),
      nsPerPacket: 1000 / mpps,
      gbps: (mpps * wireBytes * 8) / 1000,
      copiesPerPacket: per(this.#copies + counts.copies),
      bytesCopiedPerPacket: per(this.#copiedBytes + counts.copiedBytes),
      notificationsPerPacket: per(this.#notifications + counts.notifications + interrupts),
      interruptsPerPacket: per(interrupts),
      pollsPerPacket: per(this.#polls + counts.polls),
      gainVsVhost: gain,
      ...tally,
      lost: ON_PURPOSE.reduce((lost, reason) => lost - (counts.drops[reason] ?? 0), tally.lost),
      drops: this.#drops(counts.drops),
      ...(this.#flows.length > 0 ? { flows: this.#matched() } : {}),
    };
  }
}

/** What the report calls a capture. */
function nameOf(capture: string | Uint8Array): string {
  return typeof capture === "string" ? capture.replace(/^.*[/\\]/, "") : "capture";
}

class GeneratorWire implements Wire {
  readonly #generator: FrameGenerator;
  readonly #size: FrameSize;
  #left = 0;
  #sent = 0;

  constructor(
    readonly host: Host,
    readonly nic: Nic,
    size: FrameSize,
    to: string[],
    readonly o: Checked,
  ) {
    this.#size = size;
    this.#generator = new FrameGenerator(host.core, {
      size,
      to,
      from: WIRE_MAC,
      seed: o.seed,
      flows: 64,
      // Several queues keep the order of a flow, as RSS has it.
      order: o.queues > 1 ? "flow" : "destination",
    });
  }
  rewind(): void {
    this.#left = this.o.packets ?? DEFAULT_PACKETS;
  }
  fill(n: number): number {
    const want = Math.min(n, this.#left);
    this.#left -= want;
    this.#sent += want;
    if (want > 0) this.host.core.exports.generate(this.#generator.address, this.nic.address, want);
    return want;
  }
  drain(): void {
    const { exports } = this.host.core;
    exports.check(this.#generator.address, this.nic.address, exports.toTransmit(this.nic.address));
  }
  tally(): Tally {
    const { lost, duplicated, reordered, corrupt } = this.#generator.check();
    return { lost, duplicated, reordered, corrupt };
  }
  bytes(): number {
    return meanBytes(this.#size);
  }
  now(): bigint {
    return BigInt(this.#sent) * 1000n;
  }
}

/**
 * A capture as the wire. A captured frame has no number, so what comes back of a row of guests is held against what was
 * sent to it in the same cycle, in order: equal from the EtherType on. A frame that is found further ahead means that those
 * between were lost or dropped by the guest's function; one that is found behind is duplicated or reordered.
 */
class CaptureWire implements Wire {
  #frames: Generator<CapturedFrame> | undefined;
  #left = 0;
  #failed: unknown;
  /** Row by row. */
  #expected: Uint8Array[][] = [];
  #sent = 0;
  #bytes = 0;
  #timestamp = 0n;
  /** MAC addresses of the first guest of each row, and of the last, from which frames come back. */
  readonly #to: readonly Uint8Array[];
  readonly #from: readonly Uint8Array[];
  readonly #tally: Tally = { lost: 0, duplicated: 0, reordered: 0, corrupt: 0 };

  constructor(
    readonly host: Host,
    readonly nic: Nic,
    readonly capture: string | Uint8Array,
    bed: Testbed,
    readonly o: Checked,
  ) {
    this.#to = bed.heads.map(bytesOf);
    const row = bed.guests.length / bed.heads.length;
    this.#from = bed.heads.map((_, i) => bytesOf(bed.guests[(i + 1) * row - 1] as Guest));
  }

  rewind(): void {
    this.#left = this.o.packets ?? Number.POSITIVE_INFINITY;
    this.#failed = undefined;
    this.#frames = undefined;
  }

  fill(n: number): number {
    if (this.#failed) throw this.#failed;
    const burst: Uint8Array[] = [];
    this.#expected = this.#to.map(() => []);
    while (burst.length < Math.min(n, this.#left)) {
      this.#frames ??= this.#read();
      let next: IteratorResult<CapturedFrame>;
      try {
        next = this.#frames.next();
      } catch (error) {
        if (burst.length > 0) {
          // The frames before the break are run first; the next call meets the error.
          this.#failed = error;
          break;
        }
        throw error;
      }
      if (next.done) {
        this.#frames = undefined;
        // One pass, unless a number of packets was asked for; an empty file has no second one.
        if (this.o.packets === undefined || (burst.length === 0 && this.#sent === 0)) {
          this.#left = burst.length;
          break;
        }
        continue;
      }
      const frame = next.value.data.slice();
      this.#timestamp = next.value.timestamp;
      const row = this.#sent++ % this.#to.length;
      frame.set((this.#to[row] as Uint8Array).subarray(0, frame.length));
      burst.push(frame);
      if (frame.length >= FRAME_MIN && frame.length <= FRAME_MAX) this.#expected[row]?.push(frame);
    }
    this.#left -= burst.length;
    this.nic.receive(burst);
    for (const frame of burst) this.#bytes += frame.length;
    return burst.length;
  }

  #read(): Generator<CapturedFrame> {
    const { capture } = this;
    return typeof capture === "string" ? readCapture(capture) : framesOf("capture", [capture]);
  }

  drain(): void {
    const rows = this.#expected.map((expected) => ({ expected, seen: new Set<number>(), next: 0 }));
    this.nic.transmit((frames) => {
      for (const frame of frames) {
        const row = rows[this.#rowOf(frame)];
        if (row) this.#hold(frame, row);
        else this.#tally.corrupt++;
      }
    });
    for (const { expected, seen } of rows) this.#tally.lost += expected.length - seen.size;
  }

  /** By its source; -1 for nobody's. */
  #rowOf(frame: Uint8Array): number {
    if (this.#from.length === 1) return 0;
    return this.#from.findIndex((mac) => mac.every((byte, i) => frame[6 + i] === byte));
  }

  #hold(frame: Uint8Array, row: { expected: Uint8Array[]; seen: Set<number>; next: number }): void {
    const { expected, seen } = row;
    let at = row.next;
    while (at < expected.length && !sameFrom12(frame, expected[at] as Uint8Array)) at++;
    if (at < expected.length) {
      seen.add(at);
      row.next = at + 1;
      return;
    }
    at = expected.findIndex((one) => sameFrom12(frame, one));
    if (at < 0) this.#tally.corrupt++;
    else if (seen.has(at)) this.#tally.duplicated++;
    else {
      seen.add(at);
      this.#tally.reordered++;
    }
  }

  tally(): Tally {
    return this.#tally;
  }
  bytes(): number {
    return this.#sent ? this.#bytes / this.#sent : 0;
  }
  now(): bigint {
    return this.#timestamp;
  }
}

const bytesOf = ({ mac }: Guest) => macBytes(mac) as Uint8Array;

function sameFrom12(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 12; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
