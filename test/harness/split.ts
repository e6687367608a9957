/** A driver and a device for split virtqueues (virtio 1.2, 2.7), written from the text, for the core to meet. */
import { AVAIL, DESC, type Segment, USED } from "./queue.ts";

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;

export interface Descriptor {
  addr: number | bigint;
  len: number;
  flags: number;
  next: number;
}

export class Descriptors {
  readonly region: DataView;
  constructor(region: DataView) {
    this.region = region;
  }
  write(at: number, d: Descriptor): void {
    this.region.setBigUint64(at, BigInt(d.addr), true);
    this.region.setUint32(at + 8, d.len, true);
    this.region.setUint16(at + 12, d.flags, true);
    this.region.setUint16(at + 14, d.next, true);
  }
  read(at: number): { addr: number; len: number; flags: number; next: number } {
    const u16 = (p: number) => this.region.getUint16(p, true);
    const addr = Number(this.region.getBigUint64(at, true));
    return { addr, len: this.region.getUint32(at + 8, true), flags: u16(at + 12), next: u16(at + 14) };
  }
}

/** Offers buffers as 2.7.13 tells. */
export class SplitDriverModel extends Descriptors {
  readonly size: number;
  avail: number;
  seen: number;
  /** `start`: the value that both indices have. */
  constructor(region: DataView, size: number, start = 0) {
    super(region);
    this.size = size;
    this.avail = start;
    this.seen = start;
    this.publish();
    region.setUint16(USED + 2, start, true);
  }
  /** Descriptor `i` of the table. */
  describe(i: number, { addr, len }: { addr: number | bigint; len: number }, flags = 0, next = 0): void {
    this.write(DESC + 16 * i, { addr, len, flags, next });
  }
  /** A chain through the descriptors `ids`; returns its head. */
  chain(ids: number[], segments: Segment[], writable = false): number {
    for (const [k, segment] of segments.entries()) {
      const last = k + 1 === segments.length;
      this.describe(ids[k]!, segment, (last ? 0 : NEXT) | (writable ? WRITE : 0), last ? 0 : ids[k + 1]!);
    }
    return ids[0]!;
  }
  /** An indirect table at guest address `at`, through its entries in the order `ids`. */
  table(at: number, segments: Segment[], writable = false, ids = segments.map((_, k) => k)): Segment {
    for (const [k, { addr, len }] of segments.entries()) {
      const flags = (k + 1 < segments.length ? NEXT : 0) | (writable ? WRITE : 0);
      this.write(at + 16 * ids[k]!, { addr, len, flags, next: ids[k + 1] ?? 0 });
    }
    return { addr: at, len: 16 * segments.length };
  }
  /** 2.7.13.2 */
  offer(head: number): void {
    this.region.setUint16(AVAIL + 4 + 2 * (this.avail % this.size), head, true);
    this.avail = (this.avail + 1) & 0xffff;
  }
  /** 2.7.13.3 */
  publish(): void {
    this.region.setUint16(AVAIL + 2, this.avail, true);
  }
  usedIndex(): number {
    return this.region.getUint16(USED + 2, true);
  }
  /** 2.7.14 */
  used(): { id: number; len: number }[] {
    const list = [];
    for (; this.seen !== this.usedIndex(); this.seen = (this.seen + 1) & 0xffff)
      list.push(this.element(this.seen));
    return list;
  }
  element(i: number): { id: number; len: number } {
    const at = USED + 4 + 8 * (i % this.size);
    return { id: this.region.getUint32(at, true), len: this.region.getUint32(at + 4, true) };
  }
  setFlags(flags: number): void {
    this.region.setUint16(AVAIL, flags, true);
  }
  setUsedEvent(event: number): void {
    this.region.setUint16(AVAIL + 4 + 2 * this.size, event, true);
  }
}

/** A buffer as the device finds it. */
export interface Found {
  id: number;
  segments: Segment[];
  writable: boolean[];
  /** Raw descriptors, as (index, flags, next). */
  raw: { at: number; flags: number; next: number }[];
  indirect: boolean;
}

/** Uses buffers as 2.7.8 tells. */
export class SplitDeviceModel extends Descriptors {
  readonly size: number;
  seen = 0;
  usedIdx = 0;
  constructor(region: DataView, size: number) {
    super(region);
    this.size = size;
  }
  availIndex(): number {
    return this.region.getUint16(AVAIL + 2, true);
  }
  /** Every buffer made available since the last call. */
  find(): Found[] {
    const list: Found[] = [];
    for (; this.seen !== this.availIndex(); this.seen = (this.seen + 1) & 0xffff)
      list.push(this.walk(this.region.getUint16(AVAIL + 4 + 2 * (this.seen % this.size), true)));
    return list;
  }
  walk(id: number): Found {
    const found: Found = { id, segments: [], writable: [], raw: [], indirect: false };
    let table = DESC;
    for (let i = id; ; ) {
      const d = this.read(table + 16 * i);
      found.raw.push({ at: i, flags: d.flags, next: d.next });
      if (d.flags & INDIRECT) {
        found.indirect = true;
        table = d.addr;
        i = 0;
        continue;
      }
      found.segments.push({ addr: d.addr, len: d.len });
      found.writable.push((d.flags & WRITE) !== 0);
      if (!(d.flags & NEXT)) return found;
      i = d.next;
      if (found.raw.length > 2 * this.size) throw new Error(`the chain at ${id} has a loop`);
    }
  }
  /** One used element that tells of `batch` buffers (2.7.9). */
  use(id: number, len: number, batch = 1): void {
    const at = USED + 4 + 8 * (this.usedIdx % this.size);
    this.region.setUint32(at, id, true);
    this.region.setUint32(at + 4, len, true);
    this.usedIdx = (this.usedIdx + batch) & 0xffff;
  }
  publish(): void {
    this.region.setUint16(USED + 2, this.usedIdx, true);
  }
  setFlags(flags: number): void {
    this.region.setUint16(USED, flags, true);
  }
  setAvailEvent(event: number): void {
    this.region.setUint16(USED + 4 + 8 * this.size, event, true);
  }
}
