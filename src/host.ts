/**
 * A host: one memory, and the NICs, guests and switch in it.
 *
 *     const host = await Host.create();
 *     const nic = host.nic();
 *     const guest = host.guest({ attach: "iovtee", run: "macswap" });
 *     const sw = host.vswitch({ connect: [nic, guest] });
 *     nic.receive([frame]);
 *     host.poll();
 *     nic.transmit((frames) => ...);
 */
import { BUFFER_ROOM, Directory } from "../assembly/layout.ts";
import { Core } from "./core/core.ts";
import { createLcore } from "./core/lcore.ts";
import { createPool } from "./core/pool.ts";
import { integer } from "./options.ts";
import { FramePort } from "./ports/frame-port.ts";
import { Guest, type GuestOptions } from "./roles/guest.ts";
import { Nic, type NicOptions } from "./roles/nic.ts";
import { VSwitch, type VSwitchOptions } from "./roles/vswitch.ts";
import { type Counted, type HostStats, readStats } from "./stats.ts";

export { FramePort } from "./ports/frame-port.ts";
export { type Attach, type FunctionName, Guest, type GuestOptions } from "./roles/guest.ts";
export { Nic, type NicOptions } from "./roles/nic.ts";
export { VSwitch, type VSwitchOptions } from "./roles/vswitch.ts";
export type { HostStats, PortStats } from "./stats.ts";

export interface HostOptions {
  /** Bytes of the host's memory; default 64 MiB. Pages that are never touched cost nothing. */
  memory?: number;
  /** A shared memory, so that other threads can attach; default false. Its index stores cost about 5 ns each. */
  shared?: boolean;
  /** Host buffers of 2048 bytes; default 4096, at most 65535. */
  buffers?: number;
}

/** One memory, and the NICs, guests and switches in it. */
export class Host implements Counted {
  readonly core: Core;
  readonly poolId: number;
  readonly pool: number;
  readonly lcore: number;
  readonly nics: Nic[] = [];
  readonly guests: Guest[] = [];
  readonly switches: VSwitch[] = [];
  readonly buffers: number;
  #ports = 0;
  #stopped = false;
  readonly #start = performance.now();

  private constructor(options: HostOptions) {
    this.core = Core.create(options.memory ?? 64 * 1024 * 1024, options.shared ?? false);
    this.buffers = integer("buffers", options.buffers ?? 4096, 1, 65535);
    const pool = createPool(this.core, this.buffers, BUFFER_ROOM);
    this.poolId = pool.id;
    this.pool = pool.address;
    this.lcore = createLcore(this.core);
  }

  /**
   * @throws RangeError for an option out of range
   */
  static async create(options: HostOptions = {}): Promise<Host> {
    return new Host(options);
  }

  nic(options: NicOptions = {}): Nic {
    const nic = new Nic(this, `nic${this.nics.length}`, options);
    this.nics.push(nic);
    return nic;
  }

  guest(options: GuestOptions = {}): Guest {
    const guest = new Guest(this, `guest${this.guests.length}`, this.guests.length, options);
    this.guests.push(guest);
    return guest;
  }

  /** A switch port whose other end is JavaScript. */
  port(): FramePort {
    return new FramePort(this, `port${this.#ports++}`);
  }

  /** Connects NICs, guests and ports; guests attached by "iovtee" are mapped to the first NIC among them. */
  vswitch(options: VSwitchOptions): VSwitch {
    const sw = new VSwitch(this, options);
    this.switches.push(sw);
    return sw;
  }

  /** One turn of every switch and guest. @returns frames moved */
  poll(): number {
    this.#tick();
    return this.core.exports.pollLcore(this.lcore);
  }

  /** Turns until one moves nothing, at most `turns`. @returns frames moved */
  drain(turns = 1_000_000): number {
    this.#tick();
    return this.core.exports.drainLcore(this.lcore, turns);
  }

  /** Polls until `stop()`; between turns other tasks of this thread have theirs. */
  async run(): Promise<void> {
    this.#stopped = false;
    while (!this.#stopped) {
      this.drain(64);
      await new Promise((done) => setTimeout(done, 0));
    }
  }

  stop(): void {
    this.#stopped = true;
  }

  #tick(): void {
    this.core.setU32(Directory.ADDRESS + Directory.clock, ((performance.now() - this.#start) / 1000) >>> 0);
  }

  /** All counters as they are now. */
  stats(): HostStats {
    return readStats(this);
  }
}
