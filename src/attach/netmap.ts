/**
 * A netmap port as a guest's network device: on a switch, which copies (VALE), or at the end of a pipe whose other end the
 * host bridges to a card, so that only slots are swapped (layout: `NetmapRing`, `Bridge`).
 *
 * Guest memory holds from address 0 on the receive ring, the transmit ring, then buffers. Each slot of both rings has one
 * from the start. What a pipe's guest sends and receives changes hands with the host: all buffers are of this one memory,
 * of which the guest's pages are all, so it can read and write what the host has there at the moment; but no other guest's.
 */
import {
  DriverKind,
  Kind,
  Kring,
  NetmapDriver,
  OWNED_BY_GUEST,
  OWNED_BY_HOST,
  PortKind,
  Port as PortLayout,
  TAKES_NOTHING,
} from "../../assembly/layout.ts";
import type { Core } from "../core/core.ts";
import { createKring, initNetmapDriver, netmapRingBytes, startKring } from "../core/netmap.ts";
import { type Buffers, createPoolOver, refillPool } from "../core/pool.ts";
import type { GuestDevice, GuestMemory } from "./device.ts";

export interface NetmapOptions {
  /** The driver asks to be notified instead of polling; default false. */
  interrupts?: boolean;
}

/** Bytes of guest memory that two rings of `ring` slots take. */
export function netmapBytes(ring: number): number {
  return 2 * netmapRingBytes(ring);
}

/** Buffers of a pipe's memory that are the host's: for a card's receive ring, and twice as many to be sent. */
export function pipeBuffers(ring: number): number {
  return 4 * ring;
}

/** What a pipe's device has that a bridge needs. */
export interface PipeEnd {
  /** The pool of the buffers that are the host's: its directory id and its address. */
  readonly poolId: number;
  readonly pool: number;
  /** u8 by buffer: whose it is. */
  readonly owners: number;
}

/** The memory of a pipe with a guest's end: at first its buffers are the guest's, but for those that the host needs. */
function createPipeEnd(core: Core, buffers: Buffers, ring: number, what: string): PipeEnd {
  const guests = Array.from({ length: buffers.count - pipeBuffers(ring) }, (_, i) => i);
  const pool = createPoolOver(core, buffers, new Set(guests), what);
  const owners = core.place(Kind.BYTES, buffers.count, what, pool.id).address;
  core.bytes.fill(OWNED_BY_GUEST, owners, owners + guests.length);
  return { poolId: pool.id, pool: pool.address, owners };
}

export class NetmapDevice implements GuestDevice {
  readonly kind = DriverKind.NETMAP;
  readonly rx: number;
  readonly tx: number;
  readonly port: Readonly<Record<number, number>>;
  /** Host's sides of the guest's receive and transmit rings. */
  readonly rxKring: number;
  readonly txKring: number;
  /** Of a guest that is attached by "pipe". */
  readonly pipe: PipeEnd | undefined;
  readonly #core: Core;
  /** u8 by buffer: whether the guest has it. */
  readonly #held: number;
  readonly #buffers: Buffers;
  readonly #polls: boolean;

  /** @throws RangeError where the memory is full, or the guest's is too small */
  constructor(
    readonly memory: GuestMemory,
    readonly ring: number,
    isPipe: boolean,
    options: NetmapOptions,
  ) {
    const { core, name, region, buffers } = memory;
    const host = isPipe ? pipeBuffers(ring) : 0;
    if (buffers.count < 2 * ring + host) {
      throw new RangeError(
        `memory: ${buffers.count} buffers for ${name}, expected ${2 * ring + host} at least for two rings of ${ring}` +
          (isPipe ? " and a card" : ""),
      );
    }
    this.#core = core;
    this.#buffers = buffers;
    this.#polls = !options.interrupts;
    this.#held = core.place(Kind.BYTES, buffers.count, name, region.id).address;
    if (isPipe) this.pipe = createPipeEnd(core, buffers, ring, name);
    this.rxKring = createKring(core, name, this.pipe?.poolId);
    this.txKring = createKring(core, name, this.pipe?.poolId);
    const driver = () => core.place(Kind.DRIVER, NetmapDriver.SIZE, name, region.id).address;
    this.rx = driver();
    this.tx = driver();
    this.port = {
      [PortLayout.kind]: PortKind.NETMAP,
      [PortLayout.to]: this.rxKring,
      [PortLayout.from]: this.txKring,
      [PortLayout.takes]: TAKES_NOTHING,
    };
  }

  /** Host's sides of its rings. */
  get krings(): readonly number[] {
    return [this.rxKring, this.txKring];
  }

  /** Whether the guest has buffer `index` when it starts: it is in no slot, and not the host's. */
  isFree(index: number): boolean {
    return this.#core.bytes[this.#held + index] === 1;
  }

  start(): void {
    const core = this.#core;
    const { ring, pipe } = this;
    const buffers = this.#buffers;
    const { address } = this.memory.region;
    const mine = this.#guestBuffers();
    const [slots, free] = [mine.slice(0, 2 * ring), mine.slice(2 * ring)];
    core.bytes.fill(0, this.#held, this.#held + buffers.count);
    for (const index of free) core.bytes[this.#held + index] = 1;
    const more = {
      region: { address, bytes: pipe ? 0 : this.memory.regionSize },
      ...(pipe ? { ownership: { owners: pipe.owners, owner: OWNED_BY_GUEST } } : {}),
    };
    for (const transmit of [false, true]) {
      const at = address + (transmit ? netmapRingBytes(ring) : 0);
      const own = transmit ? slots.slice(ring) : slots.slice(0, ring);
      startKring(core, transmit ? this.txKring : this.rxKring, at, ring, transmit, buffers, own, more);
      initNetmapDriver(core, transmit ? this.tx : this.rx, {
        ring: at,
        slots: ring,
        transmit,
        buffers,
        held: this.#held,
        polls: this.#polls,
      });
    }
  }

  /** Numbers of the buffers that aren't the host's: all of them, or those of a pipe that it owns now. */
  #guestBuffers(): number[] {
    const core = this.#core;
    const all = Array.from({ length: this.#buffers.count }, (_, i) => i);
    const { pipe } = this;
    if (!pipe) return all;
    return all.filter((i) => core.bytes[pipe.owners + i] === OWNED_BY_GUEST);
  }

  /**
   * Makes anew of a pipe's buffers as many the guest's as were in the beginning, and the others free, but for those in
   * `inCard`. Nobody uses the rings.
   */
  resetOwners(inCard: ReadonlySet<number>): void {
    const { pipe } = this;
    if (!pipe) return;
    const core = this.#core;
    const { count } = this.#buffers;
    const rest = Array.from({ length: count }, (_, i) => i).filter((i) => !inCard.has(i));
    const guests = rest.slice(0, count - pipeBuffers(this.ring));
    core.bytes.fill(OWNED_BY_HOST, pipe.owners, pipe.owners + count);
    for (const index of guests) core.bytes[pipe.owners + index] = OWNED_BY_GUEST;
    refillPool(core, pipe.pool, new Set([...guests, ...inCard]));
  }

  stop(): void {
    for (const kring of this.krings) this.#core.setU32(kring + Kring.running, 0);
  }

  setBells(guest: number, rx: number, tx: number): void {
    const core = this.#core;
    core.setU32(this.rxKring + Kring.bell, guest);
    core.setU32(this.txKring + Kring.bell, guest);
    core.setU32(this.rx + NetmapDriver.bell, rx);
    core.setU32(this.tx + NetmapDriver.bell, tx);
  }
}
