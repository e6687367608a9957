/**
 * Latency against offered load: each frame's time from the wire through NIC, switch and guest and back to the wire.
 *
 * The wire is paced by a clock, not by what comes back. A frame's time counts from when it was due, also where the wire
 * was late with it: what waits before the card has waited as well ("coordinated omission" leaves that out). The clock is
 * read once a turn; frames that are due are sent together, and those that have come back came at that time.
 */
import { runtime, sharedMemory } from "#platform";
import { Generated, Generator, Lcore, Nic, Packet, PacketFlag, TxQueue } from "../assembly/layout.ts";
import { integer } from "./options.ts";
import { FrameGenerator, type FrameSize } from "./ports/generator.ts";
import {
  type Checked,
  checked,
  type LeftOut,
  ON_PURPOSE,
  type PvpOptions,
  type PvpReport,
  type Row,
  rowsOf,
} from "./pvp.ts";
import { Testbed, WIRE_MAC } from "./testbed.ts";

/** Where times are counted, in nanoseconds: what `hdr-histogram-js` makes, or any that has these. */
export interface Histogram {
  recordValue(nanoseconds: number): void;
  getValueAtPercentile(percentile: number): number;
  readonly maxValue: number;
  readonly mean: number;
}

export interface LatencyOptions
  extends Pick<
    PvpOptions,
    | "attach"
    | "size"
    | "burst"
    | "ring"
    | "chain"
    | "guests"
    | "function"
    | "lcores"
    | "rules"
    | "lookup"
    | "flows"
    | "seed"
    | "signal"
    | "onProgress"
  > {
  /** Makes an empty histogram; there is one for each run. */
  histogram: () => Histogram;
  /** Frames offered a second, in a run each; default 10,000, 100,000 and 1,000,000. */
  load?: number[];
  /** Frames of a run; default: those of 5 seconds, at least 1000. Of 10,000 ten are above the 99.9th percentile. */
  packets?: number;
  /** Milliseconds of processor time that the program has taken so far, where the platform tells. */
  cpuTime?: () => number;
}

/** An attachment at a frame size and a load. Times are microseconds; NaN where no frame came back. */
export interface LatencyRun {
  /** An attachment, or those of a chain, joined by commas. */
  attach: string;
  frame: FrameSize;
  /** Frames offered a second. */
  load: number;
  sent: number;
  received: number;
  /** Sent, not received, and not dropped on purpose by the guest's function. */
  lost: number;
  duplicated: number;
  reordered: number;
  corrupt: number;
  /** Where frames were lost, by reason. */
  drops: Record<string, number>;
  p50: number;
  p99: number;
  p999: number;
  max: number;
  mean: number;
  /** Percentile and time, ascending; no further than there are frames for. */
  percentiles: [number, number][];
  /** How often lcores on workers went to sleep, for each frame. */
  sleepsPerPacket: number;
  /** Cores that the program kept busy, the wire's among them; NaN where the platform doesn't tell. */
  cpu: number;
}

export interface LatencyReport {
  runtime: PvpReport["runtime"];
  command: "latency";
  /** What each thread runs. */
  lcores: string[];
  runs: LatencyRun[];
  /** As in `PvpReport`. */
  leftOut?: LeftOut[];
  interrupted?: boolean;
}

const LOADS = [10_000, 100_000, 1_000_000];
const SECONDS = 5;
const LEAST_PACKETS = 1000;
/** How long an attachment has its turn. Meanwhile this thread does nothing else: a pause would be measured too. */
const ROUND_MS = 400;
const WARM_UP_MS = 300;
/** How many times its load a wire sends that was late. */
const CATCH_UP = 2;
/**
 * Between two turns: for lcores of the attachment before to fall asleep, and for others on this machine (Linux takes a
 * twentieth of each second from what has real-time priority, and would take it from the turns).
 */
const REST_MS = 40;
/** Readings within which a clock moves that can time anything. */
const CLOCK_READINGS = 1_000_000;
/** When nothing has come back for so long, what is still on its way counts as lost. */
const STALL_MS = 200;
const PERCENTILES = [0, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 99.995, 99.999];

/**
 * Runs each attachment at each frame size and load, attachments in turn.
 * @throws RangeError for an option out of range, RuleError for the firewall's rules, Error where the clock stands still
 *   while a program runs (a deployed Worker)
 */
export async function latency(options: LatencyOptions): Promise<LatencyReport> {
  const { histogram, load = LOADS, packets, cpuTime, ...shared } = options;
  const o = checked({ ...shared, size: shared.size ?? [64] });
  for (const one of load) integer("load", one, 1, 100_000_000);
  if (packets !== undefined) integer("packets", packets, 1, 2 ** 31);
  if (!clockMoves())
    throw new Error("latency: the clock stands still while a program runs, nothing can be timed");
  const threads = o.lcores && sharedMemory().available ? o.lcores : undefined;
  const report: LatencyReport = {
    runtime: { ...runtime(), memory: threads ? "shared" : "unshared" },
    command: "latency",
    lcores: threads ?? ["nic+host+guest"],
    runs: [],
  };
  const rounds = load.map((one) => {
    const frames = packets ?? Math.max(LEAST_PACKETS, one * SECONDS);
    const each = Math.ceil((one * ROUND_MS) / 1000);
    return Array.from({ length: Math.ceil(frames / each) }, (_, i) => Math.min(each, frames - i * each));
  });
  const { rows, leftOut } = rowsOf(o);
  if (leftOut.length > 0) report.leftOut = leftOut;
  const total = o.size.length * rows.length * rounds.flat().length;
  let done = 0;
  for (const frame of o.size) {
    const rigs: Rig[] = [];
    for (const row of rows) rigs.push(await Rig.create(row, frame, o));
    for (const rig of rigs) rig.warmUp();
    for (const [i, one] of load.entries()) {
      const frames = rounds[i] as number[];
      const runs = rigs.map((rig) => new Run(rig, one, Math.max(...frames), histogram(), cpuTime));
      for (const n of frames) {
        for (const run of runs) {
          await new Promise((resume) => setTimeout(resume, REST_MS));
          if (o.signal?.aborted) break;
          run.round(n);
          o.onProgress?.(++done, total, `${run.rig.attach} ${frame}, ${one}/s`);
        }
      }
      report.runs.push(...runs.filter((run) => run.sent > 0).map((run) => run.row()));
    }
    for (const rig of rigs) await rig.bed.close();
  }
  if (o.signal?.aborted) report.interrupted = true;
  return report;
}

function clockMoves(): boolean {
  const start = performance.now();
  for (let i = 0; i < CLOCK_READINGS; i++) if (performance.now() !== start) return true;
  return false;
}

/** One attachment at one frame size. */
class Rig {
  /** Frames that came back whole, but so late that the checker knows nothing of them and takes them for corrupt. */
  late = 0;

  private constructor(
    readonly attach: string,
    readonly frame: FrameSize,
    readonly burst: number,
    readonly bed: Testbed,
    readonly generator: FrameGenerator,
  ) {}

  static async create(row: Row, frame: FrameSize, o: Checked): Promise<Rig> {
    const bed = await Testbed.create(row.attachments, o);
    const to = bed.heads.map(({ mac }) => mac);
    const { core } = bed.host;
    const generator = new FrameGenerator(core, { size: frame, to, from: WIRE_MAC, seed: o.seed, flows: 64 });
    await bed.launch();
    return new Rig(row.name, frame, o.burst, bed, generator);
  }

  /** Until the engine has compiled for speed what runs here. */
  warmUp(): void {
    const times = new Float64Array(10_000);
    for (const end = performance.now() + WARM_UP_MS; performance.now() < end; ) this.offer(1_000_000, times);
  }

  /**
   * Sends as many frames as `times` has room for, `load` a second, and writes there how long each was under way, in
   * milliseconds: NaN for those that don't come back.
   * @returns milliseconds that all took
   */
  offer(load: number, times: Float64Array): number {
    times.fill(Number.NaN);
    const n = times.length;
    const { host, nic } = this.bed;
    const { exports } = host.core;
    const gen = this.generator.address;
    const first = host.core.u32(gen + Generator.seq);
    const interval = 1000 / load;
    host.poll(); // ages what the switch has learned
    const start = performance.now();
    let now = start;
    let last = start;
    let heard = start;
    let sent = 0;
    let back = 0;
    let may = this.burst;
    while (sent < n || (back < sent && now - heard < STALL_MS)) {
      now = performance.now();
      const came = this.#takeBack(first, sent, now - start, interval, times);
      back += came;
      // A wire that was late catches up at twice its rate: all at once would overrun the card's ring.
      may = Math.min(this.burst, may + (CATCH_UP * (now - last)) / interval);
      last = now;
      const due = Math.min(n, Math.floor((now - start) / interval) + 1);
      const some = Math.min(due - sent, Math.floor(may));
      if (some > 0) {
        // What the card has no buffer for doesn't come back.
        back += some - exports.generate(gen, nic.address, some);
        sent += some;
        may -= some;
      }
      if (came > 0 || some > 0) heard = now;
      exports.pollLcore(host.lcore);
    }
    return now - start;
  }

  /** Notes when those of the frames from `first` on came that the card sends now, and has them checked. @returns how many */
  #takeBack(first: number, sent: number, now: number, interval: number, times: Float64Array): number {
    const { host, nic } = this.bed;
    const { core } = host;
    const n = core.exports.toTransmit(nic.address);
    if (n === 0) return 0;
    const queue = core.u32(nic.address + Nic.wire);
    const ring = core.u32(queue + TxQueue.ring);
    const mask = core.u32(queue + TxQueue.mask);
    const head = core.u32(queue + TxQueue.head);
    let came = 0;
    let begins = true;
    for (let i = 0; i < n; i++) {
      const p = ring + ((head + i) & mask) * Packet.SIZE;
      if (begins) {
        const frame = core.u32(p + Packet.addr);
        const seq = core.view.getUint32(frame + Generated.seq);
        // What isn't as it was sent has no time: the checker counts it. Nor has what is late from the round before.
        const whole = (seq ^ core.view.getUint32(frame + Generated.seqComplement)) === -1;
        const number = (seq - first) >>> 0;
        if (whole && number < sent) {
          times[number] = now - number * interval;
          if (sent - number > Generator.WINDOW) this.late++;
          came++;
        }
      }
      begins = (core.u16(p + Packet.flags) & PacketFlag.MORE) === 0;
    }
    core.exports.check(this.generator.address, nic.address, n);
    return came;
  }
}

/** A rig at one load, and what it has counted there. */
class Run {
  sent = 0;
  #time = 0;
  #cpu = 0;
  readonly #times: Float64Array;
  readonly #before: Counts;

  /** @param most frames of a round */
  constructor(
    readonly rig: Rig,
    readonly load: number,
    most: number,
    readonly histogram: Histogram,
    readonly cpuTime: (() => number) | undefined,
  ) {
    this.#times = new Float64Array(most);
    this.#before = counts(rig);
  }

  round(n: number): void {
    const cpu = this.cpuTime?.() ?? Number.NaN;
    const times = this.#times.subarray(0, n);
    this.#time += this.rig.offer(this.load, times);
    this.#cpu += (this.cpuTime?.() ?? Number.NaN) - cpu;
    this.sent += n;
    for (const time of times) if (time >= 0) this.histogram.recordValue(Math.round(time * 1e6));
  }

  row(): LatencyRun {
    const { rig, load, histogram, sent } = this;
    const after = counts(rig);
    const since = (key: "received" | "lost" | "duplicated" | "reordered" | "corrupt" | "late" | "sleeps") =>
      after[key] - this.#before[key];
    const drops = Object.entries(after.drops)
      .map(([reason, n]): [string, number] => [reason, n - (this.#before.drops[reason] ?? 0)])
      .filter(([, n]) => n > 0);
    const received = since("received");
    const at = (percentile: number) =>
      received > 0 ? histogram.getValueAtPercentile(percentile) / 1000 : Number.NaN;
    const percentiles = PERCENTILES.filter((one) => received * (1 - one / 100) >= 1);
    const dropped = Object.fromEntries(drops);
    return {
      attach: rig.attach,
      frame: rig.frame,
      load,
      sent,
      received,
      lost: ON_PURPOSE.reduce((lost, reason) => lost - (dropped[reason] ?? 0), since("lost") - since("late")),
      duplicated: since("duplicated"),
      reordered: since("reordered"),
      corrupt: since("corrupt") - since("late"),
      drops: dropped,
      p50: at(50),
      p99: at(99),
      p999: at(99.9),
      max: at(100),
      mean: received > 0 ? histogram.mean / 1000 : Number.NaN,
      percentiles: [...percentiles, 100].map((one) => [one, at(one)]),
      sleepsPerPacket: since("sleeps") / sent,
      cpu: this.#cpu / this.#time,
    };
  }
}

type Counts = ReturnType<typeof counts>;

function counts({ bed, generator, late }: Rig) {
  const { host } = bed;
  const sleeps = host.lcores.reduce((n, { address }) => n + host.core.counter(address + Lcore.sleeps), 0);
  return { ...generator.check(), late, sleeps, drops: bed.drops() };
}
