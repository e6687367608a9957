/**
 * One virtqueue in the harness's memory, and both sides of the core on it. The models of the other side
 * (`split.ts`, `packed.ts`) see the guest's region only, through `region`, by guest addresses.
 *
 *     VQ | DRV | OUT (packets that come out) | IN (packets that go in) | region: DESC AVAIL USED TABLES BUFFERS
 */
import { Feature, type Refusal, Virtqueue } from "../../assembly/layout.ts";
import { Access } from "../../src/core/access.ts";
import { initDriver, initTake } from "../../src/core/virtqueue.ts";
import type { Functions, Harness } from "./harness.ts";

export const VQ = 0x10000;
export const DRV = 0x20000;
export const OUT = 0x60000;
export const IN = 0x80000;
export const BASE = 0x100000;
export const LIMIT = 0x100000;

/** Guest addresses. */
export const DESC = 0;
export const AVAIL = 0x4000;
export const USED = 0x5000;
export const TABLES = 0x8000;
export const BUFFERS = 0x30000;

/** The queue's directory id, which every taken packet carries as its owner. */
export const ID = 77;

export interface Segment {
  addr: number;
  len: number;
}
export interface PacketFields extends Segment {
  flags: number;
  owner: number;
  index: number;
  mark: number;
}

export class Queue {
  readonly call: Functions;
  readonly access: Access;
  readonly bytes: Uint8Array;
  readonly host: DataView;
  /** The guest's region: offset 0 is guest address 0. */
  readonly region: DataView;
  packed = false;
  size = 0;

  constructor({ call, memory }: Harness) {
    this.call = call;
    this.access = new Access(memory);
    this.bytes = new Uint8Array(memory.buffer, 0, BASE + 2 * LIMIT);
    this.host = new DataView(memory.buffer, 0, BASE + 2 * LIMIT);
    this.region = new DataView(memory.buffer, BASE, LIMIT);
  }

  /** Fresh memory; the device's side is started unless the queue can't be. */
  start(size: number, features = 0, desc = DESC, avail = AVAIL, used = USED): boolean {
    this.bytes.fill(0);
    this.packed = (features & Feature.PACKED) !== 0;
    this.size = size;
    this.host.setUint32(VQ + Virtqueue.id, ID, true);
    this.host.setUint32(VQ + Virtqueue.base, BASE, true);
    this.host.setUint32(VQ + Virtqueue.limit, LIMIT, true);
    return Boolean(this.call.deviceStart!(VQ, BigInt(desc), BigInt(avail), BigInt(used), size, features));
  }

  /** Fresh memory with the driver's side, and no device. */
  init(size: number, features = 0, { polls = false, indirect = false } = {}): void {
    this.bytes.fill(0);
    this.attach(size, features, { polls, indirect });
  }

  /** The driver's side, on the memory as it is. */
  attach(size: number, features = 0, { polls = false, indirect = false } = {}): void {
    this.packed = (features & Feature.PACKED) !== 0;
    this.size = size;
    initDriver(this.access, DRV, {
      desc: BASE + DESC,
      driver: BASE + AVAIL,
      device: BASE + USED,
      size,
      features,
      base: BASE,
      polls,
      indirect: indirect ? BASE + TABLES : 0,
    });
  }

  take(max: number, writable = false): PacketFields[] {
    initTake(this.access, VQ, { writable, owner: ID });
    return this.packets(OUT, this.call.take!(this.packed, VQ, OUT, max));
  }
  /** The segments, or the Refusal. */
  takeChain(writable = false): PacketFields[] | Refusal {
    const n: number = this.call.takeChain!(this.packed, VQ, OUT, writable);
    return n < 0 ? -n : this.packets(OUT, n);
  }
  untake(list: PacketFields[]): void {
    this.put(IN, list);
    this.call.untake!(this.packed, VQ, IN, list.length);
  }
  complete(list: PacketFields[], written = false): void {
    this.put(IN, list);
    this.call.complete!(this.packed, VQ, IN, list.length, written);
  }
  devicePublish(): boolean {
    return Boolean(this.call.devicePublish!(this.packed, VQ));
  }

  /** Frames as lists of segments, by guest address; buffer numbers count from `index`. Segments posted. */
  post(frames: Segment[][], writable = false, index = 0): number {
    const list = frames.flatMap((frame) =>
      frame.map((s, i) => ({
        addr: BASE + s.addr,
        len: s.len,
        flags: i + 1 < frame.length ? 1 : 0,
        owner: 5,
        index: index++,
        mark: 0,
      })),
    );
    this.put(IN, list);
    return this.call.post!(this.packed, DRV, IN, list.length, writable);
  }
  driverPublish(): boolean {
    return Boolean(this.call.driverPublish!(this.packed, DRV));
  }
  used(max = 1024): PacketFields[] {
    return this.packets(OUT, this.call.used!(this.packed, DRV, OUT, max));
  }

  packets(at: number, n: number): PacketFields[] {
    const u16 = (p: number) => this.host.getUint16(p, true);
    return Array.from({ length: n }, (_, i) => {
      const p = at + i * 16;
      const addr = this.host.getUint32(p, true);
      return {
        addr,
        len: u16(p + 4),
        flags: u16(p + 6),
        owner: u16(p + 8),
        index: u16(p + 10),
        mark: u16(p + 14),
      };
    });
  }
  put(at: number, list: PacketFields[]): void {
    for (const [i, d] of list.entries()) {
      const p = at + i * 16;
      this.host.setUint32(p, d.addr, true);
      for (const [k, v] of [d.len, d.flags, d.owner, d.index, 0, d.mark].entries())
        this.host.setUint16(p + 4 + 2 * k, v, true);
    }
  }

  /** A field of the device's structure. */
  vq(field: Virtqueue): number {
    return this.host.getUint32(VQ + field, true);
  }
  set(field: Virtqueue, value: number): void {
    this.host.setUint32(VQ + field, value, true);
  }
  refusals(why: Refusal): number {
    return Number(this.host.getBigUint64(VQ + Virtqueue.refusals + why * 8, true));
  }
  refused(): number {
    return Number(this.host.getBigUint64(VQ + Virtqueue.refused, true));
  }
}

/** `n` one-segment frames of different lengths, each in a place of its own. */
export function frames(n: number, from = 0): Segment[][] {
  return Array.from({ length: n }, (_, i) => [segment(from + i)]);
}
export function segment(i: number): Segment {
  return { addr: BUFFERS + (i % 1024) * 512, len: 60 + (i % 400) };
}
/** What a list of taken packets says of the guest's buffers. */
export function where(list: PacketFields[]): Segment[] {
  return list.map(({ addr, len }) => ({ addr: addr - BASE, len }));
}
