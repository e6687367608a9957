/** Lookups of the user's own: who says where the frames of a burst go (assembly/external.ts, docs/lookup.md). */
import { BURST_MAX, Destination, Packet, Switch } from "../../assembly/layout.ts";
import type { Access } from "./access.ts";
import { joined } from "./packet.ts";

/** A destination: every port but the one that the frame came in by. */
export const FLOOD = Destination.FLOOD;
/** A destination: nowhere. */
export const DROP = Destination.DROP;

/** A destination: what the learning bridge says, which also learns the frame's source, and checks it. */
export const NORMAL = Destination.NORMAL;

/** A lookup in JavaScript: called once for each burst, it writes `burst.destinations`. */
export type LookupFunction = (burst: LookupBurst) => void;

/**
 * A burst, as a lookup in JavaScript is given it: views of the host's memory, the same object for each burst of a switch,
 * valid while the lookup is running. Everything but `destinations` is to be read only.
 */
export class LookupBurst {
  /** Frames in it, 1 to 256. What stands behind them in the views is left from other bursts. */
  length = 0;
  /** Number of the port that they came in by. */
  port = 0;
  /** The first 16 bytes of frame i, from 16 * i on, as they will be delivered; 0 for what it doesn't have. */
  readonly headers: Uint8Array;
  /** The same as words of four bytes, the first one lowest: frame i's from 4 * i on. */
  readonly words: Int32Array;
  /** Where frame i goes: a port's number, FLOOD, DROP or NORMAL. Frames that nothing is written for are dropped. */
  readonly destinations: Uint16Array;
  readonly #access: Access;
  readonly #switch: number;

  /** @internal */
  constructor(access: Access, sw: number) {
    this.#access = access;
    this.#switch = sw;
    const { buffer } = access.memory;
    this.headers = new Uint8Array(buffer, sw + Switch.headers, 16 * BURST_MAX);
    this.words = new Int32Array(buffer, sw + Switch.headers, 4 * BURST_MAX);
    this.destinations = new Uint16Array(buffer, sw + Switch.destination, BURST_MAX);
  }

  /** Bytes of frame i, without FCS. */
  frameLength(i: number): number {
    let bytes = 0;
    for (const at of this.#segments(i)) bytes += this.#access.u16(at + Packet.len);
    return bytes;
  }

  /** What the card's filter said of frame i: 1 + the number of the port that it is for, or 0. */
  mark(i: number): number {
    return this.#access.u16((this.#segments(i)[0] as number) + Packet.mark);
  }

  /**
   * Frame i: a view of the memory, or a copy where it lies in several buffers. In a guest's buffers the guest can change it
   * at any time, but for the first 16 bytes, which are delivered as they stand in `headers`.
   */
  frame(i: number): Uint8Array {
    const { bytes } = this.#access;
    const parts = this.#segments(i).map((at) => {
      const addr = this.#access.u32(at + Packet.addr);
      return bytes.subarray(addr, addr + this.#access.u16(at + Packet.len));
    });
    return joined(parts);
  }

  /** Addresses of frame i's descriptors. */
  #segments(i: number): number[] {
    if (!(i >= 0 && i < this.length)) throw new RangeError(`frame ${i}, expected 0 to ${this.length - 1}`);
    const [first, end] = [i, i + 1].map((f) => this.#access.u16(this.#switch + Switch.first + 2 * f));
    const packets = this.#switch + Switch.packets;
    return Array.from({ length: (end as number) - (first as number) }, (_, k) => {
      return packets + ((first as number) + k) * Packet.SIZE;
    });
  }
}

/** Imports and exports that a lookup's module must have, and nothing else of the former. */
const EXPECTED = 'expected to import "env.memory" only and to export the function "lookup"';

/** @throws RangeError for a module that isn't a lookup by its names */
export function checkLookupModule(module: WebAssembly.Module): void {
  const { Module } = WebAssembly;
  const other = Module.imports(module).find(({ module: from, name }) => `${from}.${name}` !== "env.memory");
  if (other) throw new RangeError(`lookup: imports "${other.module}.${other.name}", ${EXPECTED}`);
  if (!Module.exports(module).some(({ name, kind }) => name === "lookup" && kind === "function")) {
    const names = Module.exports(module).map(({ name }) => `"${name}"`);
    throw new RangeError(`lookup: exports ${names.join(", ") || "nothing"}, ${EXPECTED}`);
  }
}
