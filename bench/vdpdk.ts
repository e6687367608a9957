/**
 * vDPDK against passthrough: the same guest, cycle by cycle in turn. As in src/pvp.ts the card fills its ring, the clock runs
 * for host and guest, the card sends, and each frame is checked.
 *
 * Over vDPDK the host has work besides the guest's. On one thread both add up; with an lcore each, as vMux runs, the slower
 * one decides. So the two are timed one after the other, each with a whole ring of frames: what cores cost that fetch each
 * other's lines isn't in it (`iovtee pvp --attach passthrough,vdpdk --lcores nic+host,guest` has that).
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

  cycle(): void {
    const { exports } = this.at.core;
    exports.generate(this.generator.address, this.nic.address, FILLED);
    const times = [0, 0, 0, 0].map(() => 0);
    times[0] = performance.now();
    if (this.hostLcore) exports.drainLcore(this.hostLcore, 100);
    times[1] = performance.now();
    exports.drainLcore(this.guestLcore, 100);
    times[2] = performance.now();
    if (this.hostLcore) exports.drainLcore(this.hostLcore, 100);
    times[3] = performance.now();
    exports.check(this.generator.address, this.nic.address, exports.toTransmit(this.nic.address));
    const [a, b, c, d] = times as [number, number, number, number];
    this.host.push(((b - a + d - c) * 1e6) / FILLED);
    this.guest.push(((c - b) * 1e6) / FILLED);
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
console.log(
  `least, an lcore each: ${(least * 100).toFixed(1)} % of passthrough, wanted ${LIMIT * 100} % (vMux: 99.7 %)`,
);
process.exitCode = least >= LIMIT ? 0 : 1;
