/** A driver and a device for packed virtqueues (virtio 1.2, 2.8), written from the text, for the core to meet. */
import { AVAIL, DESC, type Segment, USED } from "./queue.ts";

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
const AVAILABLE = 0x80;
const IS_USED = 0x8000;

/** The ring's bytes, and a place in it with its wrap counter (2.8.1). */
class Side {
  readonly region: DataView;
  readonly size: number;
  position = 0;
  wrap = true;
  constructor(region: DataView, size: number) {
    this.region = region;
    this.size = size;
  }
  step(n = 1): void {
    this.position += n;
    if (this.position >= this.size) {
      this.position -= this.size;
      this.wrap = !this.wrap;
    }
  }
  read(at: number): { addr: number; len: number; id: number; flags: number } {
    const u16 = (p: number) => this.region.getUint16(p, true);
    const addr = Number(this.region.getBigUint64(at, true));
    return { addr, len: this.region.getUint32(at + 8, true), id: u16(at + 12), flags: u16(at + 14) };
  }
  write(at: number, addr: number | bigint, len: number, id: number, flags: number): void {
    this.region.setBigUint64(at, BigInt(addr), true);
    this.region.setUint32(at + 8, len, true);
    this.region.setUint16(at + 12, id, true);
    this.region.setUint16(at + 14, flags, true);
  }
  /** Event suppression of this side: the mode, and for DESC where (2.8.14). */
  suppress(area: number, mode: number, offset = 0, wrap = false): void {
    this.region.setUint16(area, offset | (wrap ? 0x8000 : 0), true);
    this.region.setUint16(area + 2, mode, true);
  }
}

/** Offers buffers as 2.8.21 tells. */
export class PackedDriverModel extends Side {
  /** Descriptors of each buffer that the device has, by id. */
  readonly held = new Map<number, number>();
  private readonly from: { position: number; wrap: boolean };
  constructor(region: DataView, size: number) {
    super(region, size);
    this.from = { position: 0, wrap: true };
  }
  /** One descriptor, available at once. */
  describe({ addr, len }: { addr: number | bigint; len: number }, id: number, flags = 0): void {
    const state = this.wrap ? AVAILABLE : IS_USED;
    this.write(DESC + 16 * this.position, addr, len, id, flags | state);
    this.step();
  }
  /** A list: the first one's flags are written last, and only the last one's id means something (2.8.6). */
  offer(segments: Segment[], id: number, writable = false): void {
    const first = DESC + 16 * this.position + 14;
    let flags = 0;
    for (const [k, segment] of segments.entries()) {
      const last = k + 1 === segments.length;
      this.describe(segment, last ? id : 0xdead, (last ? 0 : NEXT) | (writable ? WRITE : 0));
      if (k === 0) {
        flags = this.region.getUint16(first, true);
        this.region.setUint16(first, flags ^ AVAILABLE ^ IS_USED, true);
      }
    }
    this.region.setUint16(first, flags, true);
    this.held.set(id, segments.length);
  }
  /** An indirect table: entries follow each other, other flags than WRITE and ids mean nothing (2.8.7). */
  table(at: number, segments: Segment[], writable = false, noise = 0): Segment {
    for (const [k, { addr, len }] of segments.entries())
      this.write(at + 16 * k, addr, len, noise, (noise & ~WRITE) | (writable ? WRITE : 0));
    return { addr: at, len: 16 * segments.length };
  }
  /** 2.8.22 */
  used(): { id: number; len: number; write: boolean }[] {
    const list = [];
    for (;;) {
      const d = this.read(DESC + 16 * this.from.position);
      const state = this.from.wrap ? AVAILABLE | IS_USED : 0;
      const count = this.held.get(d.id);
      if ((d.flags & (AVAILABLE | IS_USED)) !== state || count === undefined) return list;
      this.held.delete(d.id);
      list.push({ id: d.id, len: d.len, write: (d.flags & WRITE) !== 0 });
      this.from.position += count;
      if (this.from.position >= this.size) {
        this.from.position -= this.size;
        this.from.wrap = !this.from.wrap;
      }
    }
  }
  suppression(mode: number, offset = 0, wrap = false): void {
    this.suppress(AVAIL, mode, offset, wrap);
  }
}

export interface FoundList {
  id: number;
  /** Ring descriptors. */
  count: number;
  segments: Segment[];
  writable: boolean[];
  indirect: boolean;
  /** Flags without AVAIL and USED: of the ring's descriptors, then of the table's. */
  flags: number[];
}

/** Uses buffers as 2.8.4 tells. */
export class PackedDeviceModel extends Side {
  private readonly to: { position: number; wrap: boolean } = { position: 0, wrap: true };
  find(): FoundList[] {
    const list: FoundList[] = [];
    for (;;) {
      const state = this.wrap ? AVAILABLE : IS_USED;
      if ((this.read(DESC + 16 * this.position).flags & (AVAILABLE | IS_USED)) !== state) return list;
      const found: FoundList = { id: 0, count: 0, segments: [], writable: [], indirect: false, flags: [] };
      for (let more = true; more; ) {
        const d = this.read(DESC + 16 * this.position);
        const expected = this.wrap ? AVAILABLE : IS_USED;
        if ((d.flags & (AVAILABLE | IS_USED)) !== expected)
          throw new Error(`a list breaks off at ${this.position}`);
        found.flags.push(d.flags & 0x7f7f);
        found.count++;
        found.id = d.id;
        if (d.flags & INDIRECT) {
          found.indirect = true;
          for (let at = d.addr; at < d.addr + d.len; at += 16) this.element(found, this.read(at), true);
        } else this.element(found, d, false);
        more = (d.flags & NEXT) !== 0;
        this.step();
        if (found.count > this.size) throw new Error("a list is longer than the ring");
      }
      list.push(found);
    }
  }
  private element(found: FoundList, d: { addr: number; len: number; flags: number }, inTable: boolean): void {
    found.segments.push({ addr: d.addr, len: d.len });
    found.writable.push((d.flags & WRITE) !== 0);
    if (inTable) found.flags.push(d.flags);
  }
  /** One used descriptor, which tells of `descriptors` of the ring (more than its buffer's: a batch, 2.8.8). */
  use(id: number, len: number, descriptors: number, write = len > 0): void {
    const at = DESC + 16 * this.to.position;
    this.region.setUint32(at + 8, len, true);
    this.region.setUint16(at + 12, id, true);
    const state = this.to.wrap ? AVAILABLE | IS_USED : 0;
    this.region.setUint16(at + 14, state | (write ? WRITE : 0), true);
    this.to.position += descriptors;
    if (this.to.position >= this.size) {
      this.to.position -= this.size;
      this.to.wrap = !this.to.wrap;
    }
  }
  suppression(mode: number, offset = 0, wrap = false): void {
    this.suppress(USED, mode, offset, wrap);
  }
}
