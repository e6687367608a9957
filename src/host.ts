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
import { pause, sharedMemory } from "#platform";
import { BUFFER_ROOM, Directory, LCORES_MAX } from "../assembly/layout.ts";
import { Core } from "./core/core.ts";
import { createLcore } from "./core/lcore.ts";
import { createPool, emptyCaches } from "./core/pool.ts";
import { type LcoreError, WorkerLcore } from "./lcore/lcore.ts";
import { place, type Role } from "./lcore/placement.ts";
import { recover } from "./lcore/recover.ts";
import { integer } from "./options.ts";
import { FramePort } from "./ports/frame-port.ts";
import { createNetmapMemory, type NetmapOptions, NetmapPort } from "./ports/netmap-port.ts";
import { NetmapBridge } from "./roles/bridge.ts";
import { Guest, type GuestOptions } from "./roles/guest.ts";
import { Nic, type NicOptions } from "./roles/nic.ts";
import { Vmux, type VmuxOptions } from "./roles/vmux.ts";
import { VSwitch, type VSwitchOptions } from "./roles/vswitch.ts";
import { type Counted, type HostStats, readStats } from "./stats.ts";

export { DROP, FLOOD, LookupBurst, type LookupFunction, NORMAL } from "./core/lookup.ts";
export type { FlowStats, PacketIn, PacketInInfo } from "./flows/flows.ts";
export { Flows } from "./flows/flows.ts";
export type { Trace } from "./flows/trace.ts";
export { LcoreError, WorkerLcore } from "./lcore/lcore.ts";
export type { Role } from "./lcore/placement.ts";
export { FramePort } from "./ports/frame-port.ts";
export { type NetmapOptions, NetmapPort, NetmapRing, NetmapSlot, NS } from "./ports/netmap-port.ts";
export { NetmapBridge } from "./roles/bridge.ts";
export { Ethdev } from "./roles/ethdev.ts";
export { type Attach, type FunctionName, Guest, type GuestOptions } from "./roles/guest.ts";
export { Nic, type NicModeName, type NicOptions } from "./roles/nic.ts";
export { Iommu, PciFunction, type VfOptions } from "./roles/pci-function.ts";
export { Vmux, type VmuxOptions } from "./roles/vmux.ts";
export { type Connectable, type Lookup, VSwitch, type VSwitchOptions } from "./roles/vswitch.ts";
export type { HostStats, PortStats } from "./stats.ts";

export interface HostOptions {
  /** Bytes of the host's memory; default 64 MiB. Pages that are never touched cost nothing. */
  memory?: number;
  /**
   * A shared memory, so that other threads can attach; default false. Its index stores cost about 5 ns each. Where there
   * is none (a page without COOP/COEP headers, a Worker of Cloudflare's) the host has one for one thread, and says so
   * once: `console.warn`.
   */
  shared?: boolean;
  /** Milliseconds since any moment, by which addresses age and rates are kept; default `performance.now`. */
  clock?: () => number;
  /** Host buffers of 2048 bytes; default 4096, at most 65535. */
  buffers?: number;
}

export interface RunOptions {
  /**
   * What runs on workers: a list of switches and guests for each. What is in none stays on the calling thread, and so
   * does a NIC's wire. Needs shared memory; where there is none all stays on that thread. At most 7.
   */
  lcores?: readonly (Role | readonly Role[])[];
}

/** Seconds of the core's clock are counted by this thread; so often, in milliseconds. */
const TICK_MS = 250;
/** Longest time between two turns of an idle host on the calling thread, in milliseconds. */
const IDLE_MS = 16;

/** One memory, and the NICs, guests and switches in it. */
export class Host implements Counted {
  readonly core: Core;
  readonly poolId: number;
  readonly pool: number;
  /** Address of the calling thread's lcore. */
  readonly lcore: number;
  /** Those on workers, while they run. */
  lcores: readonly WorkerLcore[] = [];
  readonly nics: Nic[] = [];
  readonly guests: Guest[] = [];
  readonly switches: VSwitch[] = [];
  readonly bridges: NetmapBridge[] = [];
  /** What serves guests' vDPDK devices from cards. */
  readonly vmuxes: Vmux[] = [];
  readonly ports: FramePort[] = [];
  readonly buffers: number;
  /** Whether its memory is shared: whether it can have lcores on workers. */
  readonly shared: boolean;
  /** Shared memory was asked for, and there is none: what is placed on workers stays on this thread. */
  readonly #alone: boolean;
  /** Addresses of all lcores there ever were; number 0 is the calling thread's. */
  readonly #lcores: number[];
  #placed = new Map<Role, number>();
  readonly #checks: (() => void)[] = [];
  #changing = 0;
  #netmaps = 0;
  /** The run from `launch()` to `stop()`, if there is one; each is another object. */
  #current: object | undefined;
  #wake: () => void = () => {};
  readonly #clock: () => number;
  readonly #start: number;

  private constructor(options: HostOptions, core: Core, shared: boolean) {
    this.core = core;
    this.#clock = options.clock ?? (() => performance.now());
    this.#start = this.#clock();
    this.shared = shared;
    this.#alone = (options.shared ?? false) && !shared;
    this.buffers = integer("buffers", options.buffers ?? 4096, 1, 65535);
    const pool = createPool(this.core, this.buffers, BUFFER_ROOM);
    this.poolId = pool.id;
    this.pool = pool.address;
    this.lcore = createLcore(this.core, 0);
    this.#lcores = [this.lcore];
  }

  /**
   * @throws RangeError for an option out of range
   */
  static async create(options: HostOptions = {}): Promise<Host> {
    const shared = (options.shared ?? false) && canShare();
    return new Host(options, await Core.create(options.memory ?? 64 * 1024 * 1024, shared), shared);
  }

  nic(options: NicOptions = {}): Nic {
    const nic = new Nic(this, `nic${this.nics.length}`, options);
    this.nics.push(nic);
    return nic;
  }

  guest(options: GuestOptions = {}): Guest {
    const guest = new Guest(this, `guest${this.guests.length}`, this.guests.length, options);
    this.guests.push(guest);
    // One that bypasses the switch is polled from now on.
    if (!guest.device.port) this.paused(() => {});
    return guest;
  }

  /** A switch port whose other end is JavaScript. */
  port(): FramePort {
    const port = new FramePort(this, `port${this.ports.length}`);
    this.ports.push(port);
    return port;
  }

  /**
   * Bridges a card to a guest that is attached by "pipe": frames for its MAC address go to it, and what it sends goes to the
   * wire, past any switch, without a copy. On lcores it runs with the card's switch.
   * @throws RangeError for a guest that is attached otherwise or bridged already, and where the memory or the card's queues
   *   or filters are full
   */
  bridge(nic: Nic, guest: Guest): NetmapBridge {
    return this.paused(() => {
      const bridge = new NetmapBridge(this, `bridge${this.bridges.length}`, nic, guest);
      this.bridges.push(bridge);
      return bridge;
    });
  }

  /**
   * A netmap port for JavaScript, to be connected to a switch.
   * @throws RangeError for an option out of range, and where the memory is full
   */
  netmap(options: NetmapOptions = {}): NetmapPort {
    const name = `netmap${this.#netmaps++}`;
    return new NetmapPort(this, name, createNetmapMemory(this.core, 1, options, name), 0, options.stack);
  }

  /**
   * A netmap pipe: what one end sends the other receives, in the same buffers.
   * @returns both ends, with as many buffers each
   * @throws RangeError for an option out of range, and where the memory is full
   */
  netmapPipe(options: Omit<NetmapOptions, "stack"> = {}): [NetmapPort, NetmapPort] {
    const name = `netmap${this.#netmaps++}`;
    const memory = createNetmapMemory(this.core, 2, options, name);
    const ends: [NetmapPort, NetmapPort] = [
      new NetmapPort(this, `${name}{`, memory, 0),
      new NetmapPort(this, `${name}}`, memory, 1),
    ];
    NetmapPort.join(...ends);
    return ends;
  }

  /** Connects NICs, guests and ports; guests attached by "iovtee" are mapped to the first NIC among them. */
  vswitch(options: VSwitchOptions): VSwitch {
    return this.paused(() => {
      const sw = new VSwitch(this, `switch${this.switches.length}`, options);
      this.switches.push(sw);
      return sw;
    });
  }

  /** Serves guests' vDPDK devices (attach "vdpdk") from a card, without a switch. */
  vmux(options: VmuxOptions): Vmux {
    return this.paused(() => {
      const vmux = new Vmux(this, `vmux${this.vmuxes.length}`, options);
      this.vmuxes.push(vmux);
      return vmux;
    });
  }

  paused<T>(change: () => T, { placed = false }: { placed?: boolean } = {}): T {
    this.core.refuseInLookup();
    if (this.#changing++ === 0) {
      for (const lcore of this.lcores) lcore.pause();
    }
    let atRest = false;
    try {
      for (const lcore of this.lcores) lcore.parked();
      atRest = true;
      return change();
    } finally {
      if (--this.#changing === 0) {
        try {
          // Not under one that didn't pause: nothing was changed then.
          if (atRest && !placed) place(this, this.#lcores, this.#placed);
        } finally {
          for (const lcore of this.lcores) lcore.resume();
        }
      }
    }
  }

  afterPoll(check: () => void): void {
    this.#checks.push(check);
  }

  /**
   * One turn of every switch and guest.
   * @returns frames moved
   * @throws what a lookup threw: its burst was dropped, and counted as `lookupFailed`
   */
  poll(): number {
    return this.drain(1);
  }

  /** Turns until one moves nothing, at most `turns`. @returns frames moved @throws as `poll` does */
  drain(turns = 1_000_000): number {
    this.core.refuseInLookup();
    this.tick();
    try {
      return this.core.exports.drainLcore(this.lcore, turns);
    } catch (error) {
      this.core.exports.abandonBursts(this.lcore);
      throw error;
    } finally {
      for (const check of this.#checks) check();
    }
  }

  /**
   * Polls until `stop()`; between turns other tasks of this thread have theirs. With `lcores`, what they name runs on
   * workers meanwhile. As long as they run they keep the process alive.
   * @throws LcoreError where one of them died: then all have been stopped, and the host can be run again
   */
  async run(options: RunOptions = {}): Promise<void> {
    const launched = this.launch(options.lcores ?? []);
    const own = this.#current;
    const { done } = await launched;
    // Once stopped the host may run anew before this one's turn comes.
    for (let idle = 0; this.#current === own; ) {
      idle = this.drain(64) > 0 ? 0 : Math.min(IDLE_MS, 2 * idle + 1);
      await (idle === 0 ? pause() : this.#idle(idle));
    }
    await done;
  }

  /**
   * Starts workers that run what `lcores` names, until `stop()`; what is in none of the lists is left to this thread, by
   * `poll()`. Objects may be connected, mapped, stopped and started meanwhile: the lcores pause for that.
   * @returns resolves when all of them run, to what tells when all of them have stopped
   * @throws RangeError for what can't be placed so; LcoreError where a worker doesn't start
   */
  async launch(lcores: readonly (Role | readonly Role[])[]): Promise<{ done: Promise<void> }> {
    if (this.#current) throw new Error("host: runs already, expected stop() first");
    if (this.lcores.length > 0) {
      throw new Error("host: its lcores haven't stopped yet, expected the end of run() or `done` first");
    }
    const lists = lcores.map((roles) => (Array.isArray(roles) ? roles : [roles]) as readonly Role[]);
    this.#checkPlaces(lists);
    if (this.#alone) lists.length = 0;
    while (this.#lcores.length <= lists.length)
      this.#lcores.push(createLcore(this.core, this.#lcores.length));
    const placed = new Map(lists.flatMap((roles, i) => roles.map((role) => [role, i + 1] as const)));
    place(this, this.#lcores, placed);
    this.#placed = placed;
    this.#current = {};
    this.#emptyCaches();
    // From here on they may be paused, stopped, or die, whether they run already or not.
    this.lcores = lists.map((roles, i) => {
      const name = `lcore${i + 1} (${roles.map((role) => role.name).join(", ")})`;
      return new WorkerLcore(this.core, name, this.#lcores[i + 1] as number);
    });
    const done = this.#watch();
    done.catch(() => {}); // the caller hears of it where it waits
    try {
      await Promise.all(this.lcores.map((lcore) => lcore.running));
    } catch (error) {
      await done.catch(() => {});
      throw error;
    }
    return { done };
  }

  /** Waits until all lcores have stopped; as soon as one fails the others are stopped. */
  async #watch(): Promise<void> {
    const { lcores } = this;
    if (lcores.length === 0) return;
    const clock = setInterval(() => this.tick(), TICK_MS);
    const died = new Map<WorkerLcore, LcoreError>();
    await Promise.all(
      lcores.map(async (lcore) => {
        const error = await lcore.ended;
        if (error) died.set(lcore, error);
        this.stop();
      }),
    );
    clearInterval(clock);
    this.lcores = [];
    // One that had something in hand may have left it half done.
    const harmed = [...died.keys()].filter((lcore) => !lcore.atRest);
    if (harmed.length > 0) this.#recover(harmed, [...died.values()]);
    this.#emptyCaches();
    this.#placed.clear();
    place(this, this.#lcores, this.#placed);
    const [error] = died.values();
    if (error) throw error;
  }

  /** No lcore keeps buffers in a cache that it may not have use for any more. */
  #emptyCaches(): void {
    for (const pool of [this.pool, ...this.bridges.map((bridge) => bridge.pool)])
      emptyCaches(this.core, pool);
  }

  #recover(dead: WorkerLcore[], errors: LcoreError[]): void {
    const roles = [...this.#placed].filter(([, i]) =>
      dead.some(({ address }) => address === this.#lcores[i]),
    );
    const switches = this.switches.filter((sw) => roles.some(([role]) => role === sw));
    const vmuxes = this.vmuxes.filter((vmux) => roles.some(([role]) => role === vmux));
    const guests = this.guests.filter((guest) => roles.some(([role]) => role === guest));
    const recovered = recover(this, switches, vmuxes, guests);
    for (const error of errors) error.recovered = recovered;
  }

  #checkPlaces(lists: readonly (readonly Role[])[]): void {
    if (lists.length >= LCORES_MAX) {
      throw new RangeError(`lcores: ${lists.length}, expected ${LCORES_MAX - 1} at most`);
    }
    const all = lists.flat();
    for (const role of all) {
      if (all.indexOf(role) !== all.lastIndexOf(role)) {
        throw new RangeError(`lcores: ${role.name} on two of them, expected one`);
      }
    }
    if (this.#alone) return;
    for (const role of all) if (role instanceof VSwitch) role.checkAway();
    if (lists.length > 0 && !this.shared) {
      throw new RangeError("lcores: the host's memory isn't shared, expected Host.create({ shared: true })");
    }
  }

  /** Ends `run()`, and the lcores on workers; what `run()` or `launch()` gave tells when that has happened. */
  stop(): void {
    this.#current = undefined;
    this.wake();
    for (const lcore of this.lcores) void lcore.stop();
  }

  addLookup(lookup: WebAssembly.Module): { place: number; stateBytes: number } {
    const known = this.core.lookupModules.length;
    const added = this.core.addLookup(lookup);
    if (this.core.lookupModules.length > known) for (const lcore of this.lcores) lcore.addLookup(lookup);
    return added;
  }

  wake(): void {
    this.#wake();
  }

  /** Until there is something to poll, at most so many milliseconds. */
  #idle(milliseconds: number): Promise<void> {
    return new Promise((awake) => {
      const timer = setTimeout(awake, milliseconds);
      this.#wake = () => {
        clearTimeout(timer);
        awake();
      };
    });
  }

  tick(): void {
    const ms = this.#clock() - this.#start;
    this.core.setU32(Directory.ADDRESS + Directory.clock, (ms / 1000) >>> 0);
    this.core.setU32(Directory.ADDRESS + Directory.micros, Math.floor(ms * 1000) % 2 ** 32);
  }

  /** All counters as they are now. */
  stats(): HostStats {
    return readStats(this);
  }
}

let warned = false;

/** Whether memory can be shared here; says why not, the first time. */
function canShare(): boolean {
  const { available, why } = sharedMemory();
  if (!available && !warned) console.warn(`iovtee: no shared memory, so all runs on one thread: ${why}`);
  warned ||= !available;
  return available;
}
