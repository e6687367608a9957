/**
 * When zero-copy transmit over vhost wins, and when it loses (Kawashima, IEEE TNSM 18(1), 2021, leaves it out because it
 * lowered throughput): the guest's ring against how long a packet stays in the card's transmit queue.
 *
 * The wire offers a burst of 32 a turn; the card sends a burst when it has been in its queue for `delay` turns. Only host
 * and guest are timed, 16 turns together, of which a round's 25th percentile counts. Both ways take turns, round by round.
 */
import Table from "cli-table3";
import { Host, type Nic } from "../src/host.ts";
import { localMac } from "../src/mac.ts";
import { median } from "../src/median.ts";
import { FrameGenerator } from "../src/ports/generator.ts";
import { lowerQuartile } from "./percentile.ts";

const BURST = 32;
const TURNS = 512;
const TOGETHER = 16;
const ROUNDS = 9;
const RINGS = [64, 128, 256, 512, 1024];
const DELAYS = [0, 1, 2, 4, 8, 16, 32];
/** Holds the longest delay, so that only the guest's ring can be too small. */
const CARD_RING = 1024;

class Lane {
  /** Delivered, in millions a second of host and guest, a round; and the part that didn't come back. */
  readonly mpps: number[] = [];
  lost = 0;
  offered = 0;

  private constructor(
    readonly host: Host,
    readonly nic: Nic,
    readonly generator: FrameGenerator,
    readonly delay: number,
  ) {}

  static async create(size: number, ring: number, delay: number, zeroCopyTx: boolean): Promise<Lane> {
    const host = await Host.create();
    const nic = host.nic({ ring: CARD_RING });
    const guest = host.guest({ attach: "vhost", ring, zeroCopyTx });
    host.vswitch({ connect: [nic, guest] });
    const generator = new FrameGenerator(host.core, {
      size,
      to: [guest.mac],
      from: localMac(0xff, 1),
      flows: 64,
    });
    return new Lane(host, nic, generator, delay);
  }

  round(turns: number): void {
    const { exports } = this.host.core;
    const [generator, nic] = [this.generator.address, this.nic.address];
    const before = this.generator.check();
    /** Frames that each of the last turns queued: what is older than `delay` turns is sent. */
    const queued: number[] = [];
    const times: number[] = [];
    let time = 0;
    let waiting = 0;
    for (let turn = 0; turn < turns; turn++) {
      exports.generate(generator, nic, BURST);
      const start = performance.now();
      this.host.drain();
      time += performance.now() - start;
      if (turn % TOGETHER === TOGETHER - 1) {
        times.push(time);
        time = 0;
      }
      queued.push(exports.toTransmit(nic) - waiting);
      waiting += queued.at(-1) as number;
      if (queued.length <= this.delay) continue;
      const sent = queued.shift() as number;
      exports.check(generator, nic, sent);
      waiting -= sent;
    }
    exports.check(generator, nic, waiting);
    const after = this.generator.check();
    const ms = lowerQuartile(times);
    this.mpps.push(((after.received - before.received) / turns / ms / 1000) * TOGETHER);
    this.lost += after.lost - before.lost;
    this.offered += turns * BURST;
  }

  /** @throws Error where a frame came twice, in disorder or changed, or is lost and isn't counted */
  check(): void {
    const { duplicated, reordered, corrupt, lost } = this.generator.check();
    const { guests, ports } = this.host.stats();
    const dropped = [...guests, ...ports].flatMap(({ drops }) => Object.values(drops));
    const counted = dropped.reduce((sum, n) => sum + n, 0);
    if (duplicated + reordered + corrupt > 0 || lost !== counted) {
      throw new Error(
        `${duplicated} duplicated, ${reordered} reordered, ${corrupt} corrupt, ${lost} lost, ${counted} dropped`,
      );
    }
  }
}

for (const size of [64, 1514]) {
  const out = new Table({
    head: ["guest's ring", "", ...DELAYS.map((delay) => `${delay} bursts`)],
    colAligns: ["right", "left", ...DELAYS.map(() => "right" as const)],
    style: { head: [], border: [], compact: true },
  });
  for (const ring of RINGS) {
    const cells = { copied: [] as string[], lent: [] as string[], ratio: [] as string[] };
    for (const delay of DELAYS) {
      const copied = await Lane.create(size, ring, delay, false);
      const lent = await Lane.create(size, ring, delay, true);
      for (const end = performance.now() + 100; performance.now() < end; )
        for (const lane of [copied, lent]) lane.round(20);
      for (const lane of [copied, lent]) {
        lane.mpps.length = 0;
        lane.lost = 0;
        lane.offered = 0;
      }
      for (let round = 0; round < ROUNDS; round++) for (const lane of [copied, lent]) lane.round(TURNS);
      for (const lane of [copied, lent]) lane.check();
      const told = ({ mpps, lost, offered }: Lane) =>
        `${median(mpps).toFixed(1)}${lost > 0 ? ` (-${((100 * lost) / offered).toFixed(0)} %)` : ""}`;
      cells.copied.push(told(copied));
      cells.lent.push(told(lent));
      const ratios = lent.mpps.map((mpps, i) => mpps / (copied.mpps[i] as number));
      cells.ratio.push(`x ${median(ratios).toFixed(2)}`);
    }
    out.push(
      [String(ring), "copied", ...cells.copied],
      ["", "zero-copy", ...cells.lent],
      ["", "", ...cells.ratio],
    );
  }
  console.log(`\n${size} B: delivered Mpps (and what was dropped because the guest's transmit ring was full), by how long a
packet stays in the card's queue`);
  console.log(out.toString());
}
