/**
 * What rte_flow rules cost host and guest, in the card and in its driver, and what a rule's mark saves the switch: the card
 * fills its rings, the clock runs for the host (and a guest), the card sends and each frame is checked. The card's own
 * time isn't counted, so rules in the card cost nothing here, as in a machine; in the driver they do.
 *
 *     npm run bench:rte-flow
 */
import Table from "cli-table3";
import { Nic as NicLayout } from "../assembly/layout.ts";
import { Host, type Nic, type NicOptions } from "../src/host.ts";
import { localMac } from "../src/mac.ts";
import { median } from "../src/median.ts";
import { FrameGenerator } from "../src/ports/generator.ts";
import { lowerQuartile } from "./percentile.ts";

const RING = 256;
/** One in eight of a mapped guest's buffers isn't the card's. */
const FILLED = RING - RING / 8;
const ROUNDS = 300;
/** Cycles of a round: some 100 microseconds, which others on the machine leave alone more often than not. */
const CYCLES = 20;

const WIRE = localMac(0xff, 1);
const FAR = localMac(0xff, 2);

/** What the generator sends: UDP from 198.18.0.1 to port 9 of 198.19.0.1, of 64 flows. */
const ONE = ["ingress pattern eth / ipv4 / udp dst is 9 / end actions count / queue index 1 / end"];
/** That one behind 1000 that don't match, under eight masks: every mask is looked under. */
const MANY = [
  ...Array.from({ length: 1000 }, (_, i) => {
    const pattern = [
      `eth dst is 02:99:00:00:${(i >> 8).toString(16).padStart(2, "0")}:${(i & 255).toString(16).padStart(2, "0")}`,
      `eth / vlan vid is ${i}`,
      `eth / ipv4 dst is 10.0.${i >> 8}.${i & 255}`,
      `eth / ipv4 src spec 10.${i >> 2}.${(i & 3) << 6}.0 src prefix 18`,
      `eth / ipv4 / udp src is ${i}`,
      `eth / ipv4 / tcp dst is ${i}`,
      `eth / ipv6 dst is 2001:db8::${i.toString(16)}`,
      `eth / ipv4 src is 198.18.0.1 dst is 10.1.${i >> 8}.${i & 255} / udp src is ${i} dst is 9`,
    ][i % 8];
    return `ingress pattern ${pattern} / end actions drop / end`;
  }),
  `priority 1 ${ONE}`,
];
const RSS = ["ingress pattern eth / ipv4 / udp / end actions rss queues 0 1 end / end"];

interface Variant {
  name: string;
  /** A guest that swaps addresses, or another card that the frames leave by. */
  to: "vhost" | "iovtee" | "card";
  rules?: readonly string[];
  /** Mark by which the switch sends frames there. */
  mark?: number;
  driver?: boolean;
  size?: number;
}

const VARIANTS: Variant[] = [
  { name: "vhost, no rules", to: "vhost" },
  { name: "vhost, 1 rule in the card", to: "vhost", rules: ONE },
  { name: "vhost, 1 rule in the driver", to: "vhost", rules: ONE, driver: true },
  { name: "vhost, 1001 rules, 8 masks, in the card", to: "vhost", rules: MANY },
  { name: "vhost, 1001 rules, 8 masks, in the driver", to: "vhost", rules: MANY, driver: true },
  { name: "vhost, rss in the card", to: "vhost", rules: RSS },
  { name: "vhost, rss in the driver", to: "vhost", rules: RSS, driver: true },
  { name: "iovtee, no rules", to: "iovtee" },
  {
    name: "iovtee, 1 rule in the card",
    to: "iovtee",
    rules: ["ingress pattern eth / ipv4 / udp dst is 7 / end actions drop / end"],
  },
  {
    name: "iovtee, 1 rule in the driver",
    to: "iovtee",
    rules: ["ingress pattern eth / ipv4 / udp dst is 7 / end actions drop / end"],
    driver: true,
  },
  { name: "card to card, no rules", to: "card" },
  {
    name: "card to card, mark in the card",
    to: "card",
    rules: ["ingress pattern eth / ipv4 / udp / end actions mark id 3 / queue index 0 / end"],
    mark: 3,
  },
  {
    name: "card to card, mark in the driver",
    to: "card",
    rules: ["ingress pattern eth / ipv4 / udp / end actions mark id 3 / queue index 0 / end"],
    mark: 3,
    driver: true,
  },
];

class Rig {
  /** Nanoseconds a packet, by round. */
  readonly ns: number[] = [];

  private constructor(
    readonly name: string,
    readonly host: Host,
    readonly nic: Nic,
    readonly out: Nic,
    readonly generator: FrameGenerator,
  ) {}

  static async create({ name, to, rules = [], mark, driver = false, size = 64 }: Variant): Promise<Rig> {
    const host = await Host.create({ buffers: 1024 + 10 * RING });
    const options: NicOptions = { ring: RING, queues: 4, rssQueues: 2, flowOffload: !driver };
    const nic = host.nic(options);
    const out = to === "card" ? host.nic({ ring: RING }) : nic;
    const guest = to === "card" ? undefined : host.guest({ attach: to, run: "macswap", ring: RING });
    const sw = host.vswitch({ connect: guest ? [nic, guest] : [nic, out] });
    // Only rules lead to the second queue.
    host.core.setU32(nic.address + NicLayout.rssQueues, 1);
    for (const rule of rules) nic.flow.create(rule);
    if (mark !== undefined) sw.forwardMark(mark, out);
    if (!guest) {
      // The far station is known from a frame that it sends.
      const frame = new Uint8Array(60);
      frame.set(
        FAR.split(":").map((byte) => Number.parseInt(byte, 16)),
        6,
      );
      frame.set([2, 0xff, 0xff, 0xff, 0xff, 0xff]);
      out.receive([frame]);
      host.drain();
      nic.transmit();
    }
    const generator = new FrameGenerator(host.core, {
      size,
      to: [guest?.mac ?? FAR],
      from: WIRE,
      flows: 64,
      order: "flow",
    });
    return new Rig(name, host, nic, out, generator);
  }

  warmUp(): void {
    for (const end = performance.now() + 300; performance.now() < end; ) this.#cycle();
  }

  round(): void {
    let time = 0;
    for (let i = 0; i < CYCLES; i++) time += this.#cycle();
    this.ns.push((time * 1e6) / (CYCLES * FILLED));
  }

  /** Milliseconds of host and guest. */
  #cycle(): number {
    const { exports } = this.host.core;
    exports.generate(this.generator.address, this.nic.address, FILLED);
    const start = performance.now();
    this.host.drain();
    const time = performance.now() - start;
    exports.check(this.generator.address, this.out.address, exports.toTransmit(this.out.address));
    return time;
  }

  /** @throws Error when a frame was lost, duplicated, reordered, corrupt or dropped */
  check(): void {
    const { lost, duplicated, reordered, corrupt } = this.generator.check();
    const { ports, nics } = this.host.stats();
    const drops = JSON.stringify([...ports, ...nics].map((one) => one.drops));
    if (lost || duplicated || reordered || corrupt || /\d/.test(drops))
      throw new Error(
        `${this.name}: ${lost} lost, ${duplicated} duplicated, ${reordered} reordered, ${corrupt} corrupt; ${drops}`,
      );
  }
}

const rigs: Rig[] = [];
for (const variant of VARIANTS) rigs.push(await Rig.create(variant));
for (const rig of rigs) rig.warmUp();
for (let round = 0; round < ROUNDS; round++) for (const rig of rigs) rig.round();
const out = new Table({
  head: ["64 B, one thread, burst 32", "ns/pkt (25th percentile, median)", "more than without rules"],
  colAligns: ["left", "right", "right"],
  style: { head: [], border: [], compact: true },
});
let base = 0;
for (const rig of rigs) {
  rig.check();
  const ns = lowerQuartile(rig.ns);
  if (rig.name.endsWith("no rules")) base = ns;
  const more = rig.name.endsWith("no rules") ? "" : `${(ns - base).toFixed(1)} ns`;
  out.push([rig.name, `${ns.toFixed(1)}, ${median(rig.ns).toFixed(1)}`, more]);
}
process.stdout.write(`${out}\n`);
