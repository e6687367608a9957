/**
 * PVP for what the command has no option for: either build of the core, and the NIC's mark believed or not. Timed as
 * in src/pvp.ts: the card fills its ring, the clock runs for host and guest, the card sends and each frame is checked.
 */
import { Port } from "../assembly/layout.ts";
import { type Attach, Host, type Nic } from "../src/host.ts";
import { localMac } from "../src/mac.ts";
import { median } from "../src/median.ts";
import { FrameGenerator } from "../src/ports/generator.ts";

const RING = 256;
/** One in eight of a mapped guest's buffers isn't the card's. */
const FILLED = RING - RING / 8;

export interface RigOptions {
  attach: Attach;
  size: number;
  /** The build for several threads, whose index stores are sequentially consistent; default false. */
  shared?: boolean;
  /** Packed virtqueues; default split ones. */
  packed?: boolean;
  /** The card's filter names the frame's port and the switch believes it; default: over IOVTee only, as `Host` does. */
  mark?: boolean;
  /** The guest's MAC address; default: any. */
  mac?: string;
  /** Rules of a flow table, in place of learning. */
  flows?: string[];
}

/** One host and what it took, round by round. */
export class Rig {
  /** Nanoseconds a packet, a round. */
  readonly ns: number[] = [];

  private constructor(
    readonly options: RigOptions,
    readonly host: Host,
    readonly nic: Nic,
    readonly generator: FrameGenerator,
  ) {}

  static async create(options: RigOptions): Promise<Rig> {
    const { attach, size, shared = false, packed = false, mark = attach === "iovtee" } = options;
    const host = await Host.create({ shared, buffers: 1024 + 4 * RING });
    const nic = host.nic({ ring: RING, queues: 2 });
    const { flows, mac: address } = options;
    const guest = host.guest({
      attach,
      run: "macswap",
      ring: RING,
      packed,
      ...(address ? { mac: address } : {}),
    });
    const sw = host.vswitch({ connect: [nic, guest], ...(flows ? { flows } : {}) });
    if (attach === "vhost" && mark) nic.steer(guest.mac, 0, 0, sw.indexOf(guest));
    const port = sw.ports[sw.indexOf(nic)];
    if (!port) throw new Error("the NIC has no port");
    host.core.setU32(port.address + Port.trustsMark, mark ? 1 : 0);
    const from = localMac(0xff, 1);
    const generator = new FrameGenerator(host.core, { size, to: [guest.mac], from, flows: 64 });
    return new Rig(options, host, nic, generator);
  }

  /** Until the engine has compiled the core for speed. */
  warmUp(): void {
    for (const end = performance.now() + 150; performance.now() < end; ) this.#run(100 * FILLED);
  }

  /** Runs and times `packets` frames. */
  round(packets: number): number {
    const ns = this.#run(packets);
    this.ns.push(ns);
    return ns;
  }

  #run(packets: number): number {
    const { exports } = this.host.core;
    let time = 0;
    for (let left = packets; left > 0; ) {
      const n = Math.min(left, FILLED);
      exports.generate(this.generator.address, this.nic.address, n);
      const start = performance.now();
      this.host.drain();
      time += performance.now() - start;
      exports.check(this.generator.address, this.nic.address, exports.toTransmit(this.nic.address));
      left -= n;
    }
    return (time * 1e6) / packets;
  }

  /**
   * Host copies per packet.
   * @throws Error when a frame was lost, duplicated, reordered, corrupt or dropped, or came by another way than meant
   */
  check(): number {
    const { attach, size } = this.options;
    const { sent, lost, duplicated, reordered, corrupt } = this.generator.check();
    const { ports, mappings } = this.host.stats();
    const drops = ports.flatMap((port) => Object.keys(port.drops));
    const hits = mappings.reduce((n, mapping) => n + mapping.hits, 0);
    if (
      lost ||
      duplicated ||
      reordered ||
      corrupt ||
      drops.length ||
      hits !== (attach === "iovtee" ? sent : 0)
    ) {
      throw new Error(
        `${attach} ${size}: of ${sent} frames ${lost} lost, ${duplicated} duplicated, ${reordered} reordered, ` +
          `${corrupt} corrupt, ${hits} by mapping; dropped: ${drops.join(", ") || "none"}`,
      );
    }
    return ports.reduce((n, port) => n + port.copies, 0) / sent;
  }
}

/**
 * Many short rounds: where others use the machine too, most of them are left alone, and the median is of those.
 */
export const ROUNDS = 41;
export const PACKETS = 50_000;

/** Median, least and most: "39.5 (37.9-41.0)". */
export function spread(ns: number[]): string {
  return `${median(ns).toFixed(1)} (${Math.min(...ns).toFixed(1)}-${Math.max(...ns).toFixed(1)})`;
}

/** Median of the rounds' ratios a : b. */
export function ratio(a: number[], b: number[]): number {
  return median(a.map((value, i) => value / (b[i] as number)));
}

/** How much faster than `base`, as a median of the rounds' ratios: "+98 %". */
export function gain(base: number[], ns: number[]): string {
  const percent = Math.round((ratio(base, ns) - 1) * 100);
  return `${percent < 0 ? "" : "+"}${percent} %`;
}
