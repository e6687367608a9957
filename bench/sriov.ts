/**
 * SR-IOV against passthrough: N guests at virtual functions of one card, and N guests with a card each, cycle by cycle in
 * turn. As in src/pvp.ts the cards fill rings, the clock runs for the guests alone, the cards send, and each frame is
 * checked. What the two differ by is the cards' work, which isn't counted, and what that leaves in the caches.
 */
import Table from "cli-table3";
import { Host, type Nic } from "../src/index.ts";
import { localMac } from "../src/mac.ts";
import { FrameGenerator } from "../src/ports/generator.ts";
import { lowerQuartile } from "./percentile.ts";

const BURST = 32;
/** Least frames of a cycle, in bursts: what the clock takes to be read isn't to count. */
const LEAST_BURSTS = 7;
const WARM_UP_MS = 300;
const MEASURE_MS = 1500;
const GUESTS = [1, 2, 4, 8, 16, 32, 64];
const SIZES = [64, 1514];
const LIMIT = 0.95;

class Rig {
  readonly ns: number[] = [];
  readonly #turns: number;

  private constructor(
    readonly host: Host,
    /** A card, and the frames for its guests. */
    readonly wires: readonly { nic: Nic; generator: FrameGenerator }[],
    readonly guests: number,
    ring: number,
  ) {
    this.#turns = Math.min(Math.ceil(LEAST_BURSTS / guests), Math.floor((ring * 7) / 8 / BURST));
  }

  static async create(
    attach: "passthrough" | "sriov",
    guests: number,
    size: number,
    ring: number,
  ): Promise<Rig> {
    const host = await Host.create({ memory: 2 ** 20 * (32 + guests * 8), buffers: 8192 });
    const cards = attach === "sriov" ? 1 : guests;
    const wires = Array.from({ length: cards }, () => {
      const each = guests / cards;
      // The host's own queues of the cards are not used.
      const nic = host.nic({ ring: 32, packetBuffer: 2 ** 16 + each * BURST * LEAST_BURSTS * 1664 });
      const to = Array.from({ length: each }, () => host.guest({ attach, nic, ring, burst: BURST }).mac);
      const generator = new FrameGenerator(host.core, { size, to, from: localMac(0xff, 1), flows: 64 });
      return { nic, generator };
    });
    return new Rig(host, wires, guests, ring);
  }

  warmUp(): void {
    for (const end = performance.now() + WARM_UP_MS; performance.now() < end; ) this.cycle();
    this.ns.length = 0;
  }

  cycle(): void {
    const { exports } = this.host.core;
    // Frames for the guests in turn: from one wire, or from one wire each.
    const each = this.wires.length === 1 ? BURST * this.guests * this.#turns : 1;
    for (let left = BURST * this.guests * this.#turns; left > 0; left -= each * this.wires.length) {
      for (const { nic, generator } of this.wires) exports.generate(generator.address, nic.address, each);
    }
    const start = performance.now();
    exports.drainLcore(this.host.lcore, this.#turns);
    const time = performance.now() - start;
    for (const { nic, generator } of this.wires) {
      exports.check(generator.address, nic.address, exports.toTransmit(nic.address));
    }
    this.ns.push((time * 1e6) / (BURST * this.guests * this.#turns));
  }

  /** @throws Error when a frame was lost, duplicated, reordered, corrupt or dropped, a ring stopped, or anybody notified */
  check(): void {
    for (const { generator } of this.wires) {
      const { lost, duplicated, reordered, corrupt } = generator.check();
      if (lost || duplicated || reordered || corrupt) throw new Error(JSON.stringify(generator.check()));
    }
    for (const { drops, faults, notifications } of this.host.stats().functions) {
      if (notifications || Object.keys({ ...drops, ...faults }).length > 0) {
        throw new Error(JSON.stringify({ drops, faults, notifications }));
      }
    }
  }
}

const out = new Table({
  head: ["guests", "frame", "ring", "passthrough ns/pkt", "sriov ns/pkt", "sriov, of passthrough"],
  colAligns: ["right", "right", "right", "right", "right", "right"],
  style: { head: [], border: [], compact: true },
});
let least = Number.POSITIVE_INFINITY;
for (const ring of [256, 64]) {
  for (const size of SIZES) {
    for (const guests of GUESTS) {
      const [passthrough, sriov] = [
        await Rig.create("passthrough", guests, size, ring),
        await Rig.create("sriov", guests, size, ring),
      ];
      for (const rig of [passthrough, sriov]) rig.warmUp();
      for (const end = performance.now() + MEASURE_MS; performance.now() < end; ) {
        passthrough.cycle();
        sriov.cycle();
      }
      for (const rig of [passthrough, sriov]) rig.check();
      const [a, b] = [lowerQuartile(passthrough.ns), lowerQuartile(sriov.ns)];
      least = Math.min(least, a / b);
      out.push(
        [guests, size, ring, a.toFixed(2), b.toFixed(2), `${((100 * a) / b).toFixed(1)} %`].map(String),
      );
    }
  }
}
console.log(out.toString());
console.log(`least: ${(least * 100).toFixed(1)} % of passthrough, wanted ${LIMIT * 100} %`);
process.exitCode = least >= LIMIT ? 0 : 1;
