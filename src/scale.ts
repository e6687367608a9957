/**
 * Throughput against the number of guests, all on one switch and one card.
 *
 * The wire offers a burst for each busy guest a turn, which is as much as a switch takes in a turn: what it or a guest
 * doesn't keep up with is dropped, and shows in that guest's share. All is on one thread; the card is hardware, as in
 * src/pvp.ts: its time isn't counted.
 */
import { pause, runtime } from "#platform";
import { FunctionRing, Mapping, RxQueue } from "../assembly/layout.ts";
import { NativeDevice } from "./attach/native.ts";
import type { Attach, Guest } from "./host.ts";
import { median } from "./median.ts";
import { integer } from "./options.ts";
import { FrameGenerator, type FrameSize } from "./ports/generator.ts";
import { type Checked, checked, type PvpOptions, type PvpReport } from "./pvp.ts";
import { Testbed, WIRE_MAC } from "./testbed.ts";

export interface ScaleOptions
  extends Pick<
    PvpOptions,
    "attach" | "burst" | "ring" | "function" | "lookup" | "repeat" | "seed" | "signal" | "onProgress"
  > {
  /** Numbers of guests; default 1, 2, 4, 8, 16, 32 and 64. */
  guests?: number[];
  /** How many of them have traffic; default: all. */
  busy?: number;
  /** Default 64. */
  size?: FrameSize;
  /** As in `LatencyOptions`. */
  cpuTime?: () => number;
}

/** An attachment with so many guests. Rates are medians over short stretches of time. */
export interface ScaleRun {
  attach: Attach;
  guests: number;
  /** Those that had traffic. */
  busy: number;
  /** All guests together. */
  mpps: number;
  /** Each busy guest. */
  perGuest: number[];
  /** Jain's fairness index of these: 1 when all get the same, 1 / busy when one gets all. */
  jain: number;
  /** Cores kept busy; NaN where the platform doesn't tell. */
  cpu: number;
  packets: number;
  /** Sent, not received, and dropped nowhere. */
  lost: number;
  duplicated: number;
  reordered: number;
  corrupt: number;
  /** What was more than could be taken, by reason. */
  drops: Record<string, number>;
}

export interface ScaleReport {
  runtime: PvpReport["runtime"];
  command: "scale";
  /** What each thread runs. */
  lcores: string[];
  /** Threads that do so. */
  cores: number;
  runs: ScaleRun[];
  interrupted?: boolean;
}

const GUESTS = [1, 2, 4, 8, 16, 32, 64];
/** Least frames of a cycle, in bursts: what the clock takes to be read isn't to count. */
const LEAST_BURSTS = 7;
/** Longest ring of a card. */
const CARD_RING_MAX = 4096;
const WARM_UP_MS = 200;
const ROUND_MS = 100;
/** A stretch of time that gives one rate; most of them have no other program in them. */
const STRETCH_MS = 1;
/** When nothing has come back for so long, nothing is on its way any more. */
const STALL_MS = 100;

/**
 * Runs each attachment with each number of guests, all in turn, round by round.
 * @throws RangeError for an option out of range
 */
export async function scale(options: ScaleOptions): Promise<ScaleReport> {
  const { guests = GUESTS, busy = Number.POSITIVE_INFINITY, size = 64, cpuTime, ...shared } = options;
  const o = checked({ ...shared, size: [size] });
  for (const one of guests) integer("guests", one, 1, 1000);
  if (options.busy !== undefined) integer("busy", busy, 1, 1000);
  const lcores = ["nic+host+guest"];
  const report: ScaleReport = {
    runtime: { ...runtime(), memory: "unshared" },
    command: "scale",
    lcores,
    cores: lcores.length,
    runs: [],
  };
  const rigs: Rig[] = [];
  // A card's port is one guest's: beside others, passthrough is measured with one.
  const fits = (attach: Attach, n: number) => n === 1 || attach !== "passthrough" || o.attach.length === 1;
  for (const attach of o.attach)
    for (const one of guests.filter((n) => fits(attach, n)))
      rigs.push(await Rig.create(attach, one, Math.min(busy, one), size, o));
  for (const rig of rigs) rig.warmUp();
  for (let round = 0; round < o.repeat; round++) {
    for (const [i, rig] of rigs.entries()) {
      await pause();
      if (o.signal?.aborted) break;
      rig.round(cpuTime);
      const what = `${rig.attach}, ${rig.bed.guests.length} guests`;
      o.onProgress?.(round * rigs.length + i + 1, o.repeat * rigs.length, what);
    }
  }
  for (const rig of rigs) {
    rig.finish();
    if (rig.measured) report.runs.push(rig.row());
    await rig.bed.close();
  }
  if (o.signal?.aborted) report.interrupted = true;
  return report;
}

/** One attachment with so many guests: a host of its own, and its figures so far. */
class Rig {
  /** Mpps of each stretch of time. */
  readonly #mpps: number[] = [];
  /** Turns of a cycle, and frames that are offered for it. */
  readonly #turns: number;
  readonly #frames: number;
  /** Where the head and the tail of the card's receive rings that get frames stand. */
  readonly #rings: readonly { head: number; tail: number }[];
  #sentBefore: number[] = [];
  #time = 0;
  #cpu = 0;

  private constructor(
    readonly attach: Attach,
    readonly busy: number,
    readonly bed: Testbed,
    readonly generator: FrameGenerator,
    burst: number,
  ) {
    this.#turns = Math.ceil(LEAST_BURSTS / busy);
    this.#frames = burst * busy * this.#turns;
    const { nic, guests, host } = bed;
    const queueOf = ({ mapping, device }: Guest) => {
      if (device instanceof NativeDevice) {
        const { rx } = device.pciFunction;
        return { head: rx + FunctionRing.head, tail: rx + FunctionRing.tail };
      }
      const queue = mapping ? host.core.u32(mapping + Mapping.queue) : nic.rxQueue(0);
      return { head: queue + RxQueue.head, tail: queue + RxQueue.tail };
    };
    const rings = new Map(guests.slice(0, busy).map((guest) => [queueOf(guest).head, queueOf(guest)]));
    this.#rings = [...rings.values()];
  }

  static async create(
    attach: Attach,
    guests: number,
    busy: number,
    size: FrameSize,
    o: Checked,
  ): Promise<Rig> {
    // An eighth more than is offered for a cycle.
    const offered = o.burst * Math.max(busy, LEAST_BURSTS);
    const cardRing = Math.min(CARD_RING_MAX, 2 ** Math.ceil(Math.log2((offered * 8) / 7)));
    const bed = await Testbed.create([attach], { ...o, guests, cardRing });
    const to = bed.guests.slice(0, busy).map(({ mac }) => mac);
    const generator = new FrameGenerator(bed.host.core, {
      size,
      to,
      from: WIRE_MAC,
      seed: o.seed,
      flows: 64,
    });
    await bed.launch();
    return new Rig(attach, busy, bed, generator, o.burst);
  }

  get measured(): boolean {
    return this.#mpps.length > 0;
  }

  /** Until the engine has compiled for speed what runs here. */
  warmUp(): void {
    for (const end = performance.now() + WARM_UP_MS; performance.now() < end; ) this.#cycle();
    this.#sentBefore = this.#sent();
  }

  round(cpuTime: (() => number) | undefined): void {
    const cpu = cpuTime?.() ?? Number.NaN;
    const start = performance.now();
    let now = start;
    let frames = 0;
    let time = 0;
    while (now - start < ROUND_MS) {
      const cycle = this.#cycle();
      now = performance.now();
      frames += cycle.frames;
      time += cycle.time;
      if (time < STRETCH_MS) continue;
      this.#mpps.push(frames / time / 1000);
      frames = 0;
      time = 0;
    }
    // On a busy machine a round may be shorter than a stretch.
    if (time > 0 && this.#mpps.length === 0) this.#mpps.push(frames / time / 1000);
    this.#time += now - start;
    this.#cpu += (cpuTime?.() ?? Number.NaN) - cpu;
  }

  /** Offers frames, lets host and guests have their turns, and checks what has come. Times the turns, in milliseconds. */
  #cycle(): { frames: number; time: number } {
    const { host, nic } = this.bed;
    const { exports } = host.core;
    exports.generate(this.generator.address, nic.address, Math.min(this.#frames, this.#room()));
    const start = performance.now();
    exports.drainLcore(host.lcore, this.#turns);
    const time = performance.now() - start;
    const frames = exports.check(this.generator.address, nic.address, exports.toTransmit(nic.address));
    return { frames, time };
  }

  /** Descriptors that the card has to receive into. */
  #room(): number {
    const { core } = this.bed.host;
    return this.#rings.reduce((sum, { head, tail }) => sum + ((core.u32(tail) - core.u32(head)) >>> 0), 0);
  }

  /** Handles what is still on its way, until nothing has come back for a while. */
  finish(): void {
    const { host, nic } = this.bed;
    const { exports } = host.core;
    for (let end = performance.now() + STALL_MS; performance.now() < end; ) {
      exports.drainLcore(host.lcore, this.#turns);
      const n = exports.toTransmit(nic.address);
      if (exports.check(this.generator.address, nic.address, n) > 0) end = performance.now() + STALL_MS;
    }
  }

  /** Frames that each busy guest has sent so far. */
  #sent(): number[] {
    return this.bed.host
      .stats()
      .guests.slice(0, this.busy)
      .map(({ transmitted }) => transmitted);
  }

  row(): ScaleRun {
    const { attach, busy, bed, generator } = this;
    const { sent, received, lost, ...checks } = generator.check();
    const drops = bed.drops();
    const dropped = Object.values(drops).reduce((sum, n) => sum + n, 0);
    const shares = this.#sent().map((n, i) => n - (this.#sentBefore[i] ?? 0));
    const total = shares.reduce((sum, n) => sum + n, 0);
    const squares = shares.reduce((sum, n) => sum + n * n, 0);
    const mpps = median(this.#mpps);
    return {
      attach,
      guests: bed.guests.length,
      busy,
      mpps,
      perGuest: shares.map((n) => (mpps * n) / total),
      jain: (total * total) / (busy * squares),
      cpu: this.#cpu / this.#time,
      packets: sent,
      lost: lost - dropped,
      ...checks,
      drops,
    };
  }
}
