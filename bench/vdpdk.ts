/**
 * vDPDK against passthrough: the same guest, cycle by cycle in turn. As in src/pvp.ts the card fills its ring, the clock runs
 * for host and guest, the card sends, and each frame is checked.
 *
 * Over vDPDK the host has work besides the guest's. On one thread both add up; with an lcore each, as vMux runs, the slower
 * one decides. So the two are timed one after the other, each with a whole ring of frames: what cores cost that fetch each
 * other's lines isn't in it (`iovtee pvp --attach passthrough,vdpdk --lcores nic+host,guest` has that).
 *
 * The first table is raw: the card has always a ring full of frames. In the second the card's line is the limit, as in
 * vMux' plots (its test configuration offers 10 and 40 Mpps): frames come at the line's rate by a clock that runs with the
 * lcores' work and, where they have none, on to the next burst. What finds no descriptor then is lost.
 */
import Table from "cli-table3";
import { Kind } from "../assembly/layout.ts";
import { createLcore, setPollers } from "../src/core/lcore.ts";
import { type Guest, type GuestOptions, Host, type Nic } from "../src/index.ts";
import { localMac } from "../src/mac.ts";
import { FrameGenerator } from "../src/ports/generator.ts";
import { lowerQuartile } from "./percentile.ts";

const RING = 256;
const FILLED = RING - RING / 8;
const WARM_UP_MS = 400;
const MEASURE_MS = 2000;
const SIZES = [64, 1514];
/**
 * Of the card's line, in Gbit/s, none so fast that passthrough can't fill it; and what a frame takes of it besides:
 * preamble, start and gap, in bytes.
 */
const LINES = [10, 25, 40];
const GAP = 20;
/** Frames that have come when the card is looked at: as many as vMux takes at a time. */
const BURST = 128;
/** Looks of a sample: some in which a full ring empties where the line is slow enough, those that count; and samples. */
const LOOKS = { first: 40, counted: 40 };
const SAMPLES = 200;
const LIMIT = 0.95;

class Rig {
  readonly host: number[] = [];
  readonly guest: number[] = [];

  private constructor(
    readonly name: string,
    readonly at: Host,
    readonly nic: Nic,
    readonly generator: FrameGenerator,
    /** Lcores of the host's pollers, or 0, and of the guest. */
    readonly hostLcore: number,
    readonly guestLcore: number,
  ) {}

  static async create(name: string, size: number, options: GuestOptions): Promise<Rig> {
    const at = await Host.create({ buffers: 4096 });
    const nic = at.nic({ ring: RING, packetBuffer: 2 ** 21 });
    const native = options.attach === "passthrough";
    const guest = at.guest({ ...options, ring: RING, ...(native ? { nic } : {}) });
    let hostLcore = 0;
    if (!native) {
      const vmux = at.vmux({ nic, guests: [guest] });
      hostLcore = createLcore(at.core, 0);
      setPollers(at.core, hostLcore, Rig.#hostPollers(guest, vmux.address));
      at.core.exports.beginLcore(hostLcore);
    }
    const guestLcore = createLcore(at.core, 0);
    setPollers(at.core, guestLcore, [{ kind: Kind.GUEST, address: guest.address, owner: 0 }]);
    at.core.exports.beginLcore(guestLcore);
    const from = localMac(0xff, 1);
    const generator = new FrameGenerator(at.core, { size, to: [guest.mac], from, flows: 64 });
    return new Rig(name, at, nic, generator, hostLcore, guestLcore);
  }

  static #hostPollers(guest: Guest, vmux: number) {
    const { rxQueue, txQueue, zeroCopyRx } = guest.vdpdk as NonNullable<Guest["vdpdk"]>;
    return [
      { kind: Kind.VDPDK as const, address: vmux, owner: 0 },
      ...(zeroCopyRx ? [{ kind: Kind.VDPDK_RX as const, address: rxQueue, owner: vmux }] : []),
      { kind: Kind.VDPDK_TX as const, address: txQueue, owner: vmux },
    ];
  }

  /** A cycle with a ring full of frames. */
  cycle(): void {
    const { host, guest } = this.#turn(FILLED);
    this.host.push((host * 1e6) / FILLED);
    this.guest.push((guest * 1e6) / FILLED);
  }

  /** `n` frames come, as many as there are descriptors for, and are sent: how many, and milliseconds of host and guest. */
  #turn(n: number): { frames: number; host: number; guest: number } {
    const { exports } = this.at.core;
    exports.generate(this.generator.address, this.nic.address, n);
    const times = [0, 0, 0, 0].map(() => 0);
    times[0] = performance.now();
    if (this.hostLcore) exports.drainLcore(this.hostLcore, 100);
    times[1] = performance.now();
    exports.drainLcore(this.guestLcore, 100);
    times[2] = performance.now();
    if (this.hostLcore) exports.drainLcore(this.hostLcore, 100);
    times[3] = performance.now();
    const toTransmit = exports.toTransmit(this.nic.address);
    const frames = exports.check(this.generator.address, this.nic.address, toTransmit);
    const [a, b, c, d] = times as [number, number, number, number];
    return { frames, host: b - a + d - c, guest: c - b };
  }

  /** A sample at `rate` frames a millisecond: the share of them that is lost, and of its time that the lcores work. */
  atRate(rate: number, apart: boolean): { lost: number; busy: number } {
    const at = { now: FILLED / rate, came: 0, sent: 0, worked: 0 };
    let from = { ...at };
    for (let look = 0; look < LOOKS.first + LOOKS.counted; look++) {
      if (look === LOOKS.first) from = { ...at };
      at.now = Math.max(at.now, (at.came + BURST) / rate);
      const due = Math.floor(at.now * rate + 0.5) - at.came;
      const { frames, host, guest } = this.#turn(due);
      const took = apart ? Math.max(host, guest) : host + guest;
      at.came += due;
      at.sent += frames;
      at.worked += took;
      at.now += took;
    }
    return {
      lost: 1 - (at.sent - from.sent) / (at.came - from.came),
      busy: (at.worked - from.worked) / (at.now - from.now),
    };
  }

  warmUp(): void {
    for (const end = performance.now() + WARM_UP_MS; performance.now() < end; ) this.cycle();
    this.host.length = 0;
    this.guest.length = 0;
  }

  /** @throws Error when a frame was lost, duplicated, reordered, corrupt or dropped */
  check(): void {
    const { lost, duplicated, reordered, corrupt } = this.generator.check();
    const { ports, guests, functions } = this.at.stats();
    const drops = Object.assign({}, ...[...ports, ...guests, ...functions].map((one) => one.drops));
    if (lost || duplicated || reordered || corrupt || Object.keys(drops).length > 0) {
      throw new Error(`${this.name}: ${JSON.stringify({ ...this.generator.check(), drops })}`);
    }
  }

  get copies(): number {
    return this.at.stats().ports.reduce((n, port) => n + port.copies, 0) / this.generator.check().sent;
  }
}

const out = new Table({
  head: [
    "frame",
    "attach",
    "copies",
    "guest ns/pkt",
    "host ns/pkt",
    "one thread, of passthrough",
    "an lcore each",
  ],
  colAligns: ["right", "left", "right", "right", "right", "right", "right"],
  style: { head: [], border: [], compact: true },
});
let least = Number.POSITIVE_INFINITY;
for (const size of SIZES) {
  const rigs = [
    await Rig.create("passthrough", size, { attach: "passthrough" }),
    await Rig.create("vdpdk", size, { attach: "vdpdk" }),
    await Rig.create("vdpdk, Rx copied", size, { attach: "vdpdk", vdpdk: { zeroCopyRx: false } }),
    await Rig.create("vdpdk, Tx copied", size, { attach: "vdpdk", vdpdk: { zeroCopyTx: false } }),
  ];
  for (const rig of rigs) rig.warmUp();
  for (const end = performance.now() + MEASURE_MS * rigs.length; performance.now() < end; ) {
    for (const rig of rigs) rig.cycle();
  }
  for (const rig of rigs) rig.check();
  const base = lowerQuartile((rigs[0] as Rig).guest);
  for (const rig of rigs) {
    const [guest, host] = [lowerQuartile(rig.guest), rig.hostLcore ? lowerQuartile(rig.host) : 0];
    const each = base / Math.max(guest, host);
    if (rig.name === "vdpdk") least = Math.min(least, each);
    const percent = (n: number) => `${(100 * n).toFixed(1)} %`;
    out.push(
      [
        size,
        rig.name,
        rig.copies.toFixed(0),
        guest.toFixed(2),
        host.toFixed(2),
        percent(base / (guest + host)),
        percent(each),
      ].map(String),
    );
  }
}
console.log(out.toString());

const lines = new Table({
  head: [
    "line",
    "frame",
    "Mpps",
    "passthrough (busy)",
    "vdpdk, one thread (busy)",
    "vdpdk, an lcore each (busy)",
    "of passthrough",
  ],
  colAligns: ["right", "right", "right", "right", "right", "right", "right"],
  style: { head: [], border: [], compact: true },
});
for (const size of SIZES) {
  const rigs = [
    await Rig.create("passthrough", size, { attach: "passthrough" }),
    await Rig.create("vdpdk", size, { attach: "vdpdk" }),
  ] as const;
  const [passthrough, vdpdk] = rigs;
  for (const rig of rigs) rig.warmUp();
  for (const line of LINES) {
    const rate = (line * 1e6) / (8 * (size + GAP));
    const ways = [
      () => passthrough.atRate(rate, false),
      ...[false, true].map((apart) => () => vdpdk.atRate(rate, apart)),
    ];
    const samples = ways.map((): { lost: number; busy: number }[] => []);
    for (let i = 0; i < SAMPLES; i++) for (const [k, way] of ways.entries()) samples[k]?.push(way());
    const carried = samples.map((some) => 1 - lowerQuartile(some.map(({ lost }) => lost)));
    const busy = samples.map((some) => lowerQuartile(some.map((sample) => sample.busy)));
    const cells = carried.map(
      (share, k) => `${(100 * share).toFixed(1)} % (${((busy[k] as number) * 100).toFixed(0)} %)`,
    );
    const [base, one, each] = carried as [number, number, number];
    lines.push([
      `${line} GbE`,
      `${size}`,
      (rate / 1000).toFixed(2),
      ...cells,
      `${((100 * one) / base).toFixed(1)} %, ${((100 * each) / base).toFixed(1)} %`,
    ]);
  }
}
console.log(`\nThe line is the limit: the share of its frames that is carried, and of the time that lcores work
(25th percentile of what ${SAMPLES} samples lost and worked)`);
console.log(lines.toString());
console.log(
  `raw, an lcore each: at least ${(least * 100).toFixed(1)} % of passthrough, wanted ${LIMIT * 100} % (vMux, a card's line the limit: 99.7 %)`,
);
process.exitCode = least >= LIMIT ? 0 : 1;
