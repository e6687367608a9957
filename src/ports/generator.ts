/** Wire of generated frames that are checked when they come back (layout: `Generator`). */
import { FRAME_ROOM, Generated, Generator, Kind } from "../../assembly/layout.ts";
import type { Core } from "../core/core.ts";
import { parseMac } from "../mac.ts";

/** A frame's size on the wire, FCS included; "imix": 64, 594 and 1518 bytes, 7:4:1. */
export type FrameSize = number | "imix";

export interface GeneratorOptions {
  size: FrameSize;
  /** MAC addresses that frames go to, in turn. */
  to: string[];
  from?: string;
  /** UDP flows, told apart by source port; 1 to 64512. */
  flows?: number;
  /** What must come back in order: all for one destination, the default, or only those of one flow to it. */
  order?: "destination" | "flow";
  seed?: number;
}

/** IMIX: seven of 64, four of 594, one of 1518 bytes. */
const IMIX = [64, 64, 64, 64, 64, 64, 64, 594, 594, 594, 594, 1518];

/**
 * Bytes of a frame in memory. Sizes count the 4-byte FCS, which isn't stored, as RFC 2544 does; but for 1514,
 * which the IOVTee paper counts without.
 */
function bytesInMemory(size: number): number {
  return size === 1514 ? 1514 : size - 4;
}

/** Mean bytes in memory of a size. */
export function meanBytes(size: FrameSize): number {
  const sizes = size === "imix" ? IMIX : [size];
  return sizes.reduce((sum, one) => sum + bytesInMemory(one), 0) / sizes.length;
}

export class FrameGenerator {
  readonly address: number;

  constructor(
    private readonly core: Core,
    options: GeneratorOptions,
  ) {
    const sizes = options.size === "imix" ? [...new Set(IMIX)] : [options.size];
    for (const size of sizes) {
      if (!Number.isInteger(size) || size < 64 || size > 9022) {
        throw new RangeError(`size: ${size}, expected "imix" or 64 to 9022 bytes on the wire`);
      }
    }
    const mix = options.size === "imix" ? shuffle(IMIX, options.seed ?? 1) : [options.size];
    const { to, flows = 1, from = "02:00:00:00:ff:01" } = options;
    const { id, address } = core.place(Kind.GENERATOR, Generator.SIZE, "generator");
    this.address = address;
    const place = (bytes: number) => core.place(Kind.BYTES, bytes, "generator", id).address;
    const tables = place(8 * sizes.length);
    const templates = place((sizes.length + 1) * FRAME_ROOM);
    const order = place(mix.length);
    const destinations = place(8 * to.length);
    // The least common multiple: frames so far apart are of one flow and to one destination.
    const orders = options.order === "flow" ? (to.length / divisor(to.length, flows)) * flows : to.length;
    core.setFields(address, {
      [Generator.id]: id,
      [Generator.sizes]: sizes.length,
      [Generator.templates]: tables,
      [Generator.lengths]: tables + 4 * sizes.length,
      [Generator.scratch]: templates + sizes.length * FRAME_ROOM,
      [Generator.mix]: order,
      [Generator.mixLength]: mix.length,
      [Generator.destinations]: destinations,
      [Generator.expected]: place(4 * orders),
      [Generator.orders]: orders,
      [Generator.destinationCount]: to.length,
      [Generator.flows]: flows,
      [Generator.seen]: place(Generator.WINDOW),
    });
    sizes.forEach((size, i) => {
      const length = bytesInMemory(size);
      core.setU32(tables + 4 * i, templates + i * FRAME_ROOM);
      core.setU32(tables + 4 * (sizes.length + i), length);
      core.bytes.set(template(length, from), templates + i * FRAME_ROOM);
    });
    core.bytes.set(
      mix.map((size) => sizes.indexOf(size)),
      order,
    );
    for (const [i, mac] of to.entries()) core.setU64(destinations + 8 * i, parseMac(mac));
  }

  /** Lost, duplicated, reordered and corrupt so far; `lost` counts what was sent and hasn't come back. */
  check(): {
    sent: number;
    received: number;
    lost: number;
    duplicated: number;
    reordered: number;
    corrupt: number;
  } {
    const count = (field: number) => this.core.counter(this.address + field);
    const [sent, received] = [count(Generator.sent), count(Generator.received)];
    const [duplicated, corrupt] = [count(Generator.duplicated), count(Generator.corrupt)];
    const lost = sent - (received - duplicated - corrupt);
    return { sent, received, lost, duplicated, reordered: count(Generator.reordered), corrupt };
  }
}

/** Greatest common divisor. */
function divisor(a: number, b: number): number {
  return b === 0 ? a : divisor(b, a % b);
}

/** Ethernet, IPv4 and UDP with right checksums, and a pattern; number and flow are 0, their complements ones. */
function template(length: number, from: string): Uint8Array {
  const frame = new Uint8Array(length);
  const view = new DataView(frame.buffer);
  view.setBigUint64(6, parseMac(from), true);
  view.setUint16(12, 0x0800);
  frame.set([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17], 14);
  view.setUint16(16, length - 14);
  frame.set([198, 18, 0, 1, 198, 19, 0, 1], 26); // RFC 2544, C.2.2: addresses for benchmarks
  view.setUint16(24, checksum(frame.subarray(14, 34), 0));
  view.setUint16(Generated.sourcePort, 1024);
  view.setUint16(36, 9);
  view.setUint16(38, length - 34);
  view.setUint32(Generated.seqComplement, 0xffffffff);
  view.setUint16(Generated.portComplement, ~1024 & 0xffff);
  for (let i = Generated.pattern; i < length; i++) frame[i] = i & 0xff;
  const pseudo = sum(frame.subarray(26, 34)) + 17 + (length - 34);
  view.setUint16(40, checksum(frame.subarray(34), pseudo) || 0xffff);
  return frame;
}

function sum(bytes: Uint8Array): number {
  let total = 0;
  for (let i = 0; i < bytes.length; i++) total += (bytes[i] ?? 0) << (i & 1 ? 0 : 8);
  return total;
}

function checksum(bytes: Uint8Array, start: number): number {
  let total = start + sum(bytes);
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
  return ~total & 0xffff;
}

/** The same order for the same seed (mulberry32, Fisher-Yates). */
function shuffle(items: number[], seed: number): number[] {
  const out = [...items];
  let state = seed >>> 0;
  const random = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  for (let i = out.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [out[i], out[j]] = [out[j] as number, out[i] as number];
  }
  return out;
}
