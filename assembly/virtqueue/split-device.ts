/**
 * Split virtqueue, device side (virtio 1.2, 2.7). The three verbs are told in `device.ts`.
 *
 *     avail ring --take--> (buffers in flight) --complete--> used ring --publish--> used.idx
 */
import {
  DescFlag,
  Feature,
  NetHeader,
  Packet,
  Refusal,
  RING_FLAG_NO_EVENT,
  SplitAvail,
  SplitDesc,
  SplitUsed,
  Virtqueue,
} from "../layout";
import { Desc } from "../packet";
import { Sync } from "../sync";
import { Device } from "./device";

@final
@unmanaged
export class SplitDevice {
  /**
   * Buffers that are available, as far as is known once `want` are.
   * The driver can't have more outstanding than there are descriptors: an index that says so breaks the queue.
   */
  static available(vq: usize, want: u32): u32 {
    const next = load<u32>(vq, Virtqueue.avail);
    const known = <u32>(<u16>(load<u32>(vq, Virtqueue.availCache) - next));
    if (known >= want) return known;
    const idx = <u32>Sync.load<u16>(load<u32>(vq, Virtqueue.driver) + SplitAvail.idx);
    const n = <u32>(<u16>(idx - next));
    if (n + load<u32>(vq, Virtqueue.taken) > load<u32>(vq, Virtqueue.size)) {
      Device.refuse(vq, Refusal.AVAIL_JUMP);
      return 0;
    }
    store<u32>(vq, idx, Virtqueue.availCache);
    return n;
  }

  /**
   * Up to `max` buffers that are one plain descriptor each, of the kind that this queue takes (`Virtqueue.direction`
   * and what follows it); stops before the first that isn't, which is left to `takeChain`.
   */
  take(vq: usize, to: usize, max: u32): u32 {
    const n = min(SplitDevice.available(vq, max), max);
    if (!n) return 0;
    const ring = load<u32>(vq, Virtqueue.driver) + SplitAvail.ring;
    const desc: usize = load<u32>(vq, Virtqueue.desc);
    const mask = load<u32>(vq, Virtqueue.size) - 1;
    const limit = <u64>load<u32>(vq, Virtqueue.limit);
    const skip = load<u32>(vq, Virtqueue.skip);
    const base = load<u32>(vq, Virtqueue.base);
    const blank = v128.load(vq, Virtqueue.blank);
    const direction = load<u32>(vq, Virtqueue.direction);
    const least = load<u32>(vq, Virtqueue.least);
    const range = load<u32>(vq, Virtqueue.range);
    const next = load<u32>(vq, Virtqueue.avail);
    const begin = to;
    let left = n;
    let slot = next & mask;
    while (left) {
      // Up to the ring's end. Each field is read once: the driver may change it at any time.
      const run = min(left, mask + 1 - slot);
      let p = ring + slot * 2;
      for (const end = p + run * 2; p != end; p += 2) {
        const head = <u32>load<u16>(p);
        if (head > mask) break;
        const d = desc + head * SplitDesc.SIZE;
        if (load<u16>(d, SplitDesc.flags) != direction) break;
        const len = load<u32>(d, SplitDesc.len);
        if (len - least > range) break;
        const addr = load<u64>(d);
        if (addr > limit - len) break;
        const at = i16x8.replace_lane(i32x4.replace_lane(blank, 0, base + <u32>addr + skip), 6, <i16>len);
        v128.store(to, i16x8.replace_lane(i16x8.replace_lane(at, 2, <i16>(len - skip)), 5, <i16>head));
        to += Packet.SIZE;
      }
      const done = <u32>(p - ring) / 2 - slot;
      if (done < run) break;
      left -= run;
      slot = 0;
    }
    const taken = <u32>(to - begin) / Packet.SIZE;
    store<u32>(vq, next + taken, Virtqueue.avail);
    store<u32>(vq, load<u32>(vq, Virtqueue.taken) + taken, Virtqueue.taken);
    return taken;
  }

  /**
   * The next buffer, whatever it is made of (2.7.5): chained, indirect, or a chain that ends in an indirect
   * table. Returns its segments (at most the queue's size), 0 when there is none, or -Refusal: then it has
   * been counted and handed back unused, or the queue is broken.
   */
  takeChain(vq: usize, to: usize, writable: bool): i32 {
    if (!SplitDevice.available(vq, 1)) return 0;
    const size = load<u32>(vq, Virtqueue.size);
    const next = load<u32>(vq, Virtqueue.avail);
    const head = <u32>load<u16>(load<u32>(vq, Virtqueue.driver) + SplitAvail.ring + (next & (size - 1)) * 2);
    if (head >= size) {
      Device.refuse(vq, Refusal.INDEX);
      return -Refusal.INDEX;
    }
    store<u32>(vq, next + 1, Virtqueue.avail);
    store<u32>(vq, load<u32>(vq, Virtqueue.taken) + 1, Virtqueue.taken);
    const n = SplitDevice.walk(vq, head, size, to, writable);
    if (n > 0) {
      Device.finish(to, n, head, 1);
      return n;
    }
    if (Device.refuseLast(vq, -n, 1)) {
      v128.store(to, Desc.make(0, 0, 0, 0, head, 0, 1));
      this.complete(vq, to, 1, false);
      this.publish(vq);
    }
    return n;
  }

  static walk(vq: usize, head: u32, size: u32, to: usize, writable: bool): i32 {
    const table: usize = load<u32>(vq, Virtqueue.desc);
    let i = head;
    let n: u32 = 0;
    while (true) {
      const d = table + i * SplitDesc.SIZE;
      const addr = load<u64>(d);
      const high = load<u64>(d, 8);
      const flags = <u32>(high >> 32) & 0xffff;
      if (flags & DescFlag.INDIRECT) {
        if (flags & DescFlag.NEXT) return -Refusal.INDIRECT;
        const more = Device.indirect(vq, addr, <u32>high, writable, to + n * Packet.SIZE, size - n, false);
        return more < 0 ? more : n + more;
      }
      const refusal = Device.segment(vq, addr, <u32>high, flags, writable, to + n * Packet.SIZE);
      if (refusal) return -refusal;
      n++;
      if (!(flags & DescFlag.NEXT)) return n;
      if (n == size) return -Refusal.LOOP;
      i = <u32>(high >> 48);
      if (i >= size) return -Refusal.INDEX;
    }
  }

  /** Undoes the last takes: `n` buffers (not segments) are available again. */
  untake(vq: usize, from: usize, n: u32): void {
    store<u32>(vq, load<u32>(vq, Virtqueue.avail) - n, Virtqueue.avail);
    store<u32>(vq, load<u32>(vq, Virtqueue.taken) - n, Virtqueue.taken);
  }

  /**
   * Puts `n` buffers on the used ring (2.7.8); `len` of each is the bytes written to it when `written`.
   * The driver doesn't see them before `publish`.
   */
  complete(vq: usize, from: usize, n: u32, written: bool): void {
    if (!n) return;
    const ring = load<u32>(vq, Virtqueue.device) + SplitUsed.ring;
    const mask = load<u32>(vq, Virtqueue.size) - 1;
    const used = load<u32>(vq, Virtqueue.used);
    const counted: u64 = written ? 0xffff : 0;
    let slot = used & mask;
    for (let left = n; left; slot = 0) {
      const run = min(left, mask + 1 - slot);
      let element = ring + slot * SplitUsed.ELEMENT;
      for (const end = element + run * SplitUsed.ELEMENT; element != end; element += SplitUsed.ELEMENT) {
        const len = <u64>load<u16>(from, Packet.len) & counted;
        store<u64>(element, <u64>load<u16>(from, Packet.index) | (len << 32));
        from += Packet.SIZE;
      }
      left -= run;
    }
    store<u32>(vq, used + n, Virtqueue.used);
    store<u32>(vq, load<u32>(vq, Virtqueue.taken) - n, Virtqueue.taken);
  }

  /**
   * Puts `n` frames on the used ring that lie in buffers of this queue, one each, with room for the net header in
   * front, which is written. Returns the frames' bytes.
   */
  handOver(vq: usize, from: usize, n: u32): u32 {
    const ring = load<u32>(vq, Virtqueue.device) + SplitUsed.ring;
    const mask = load<u32>(vq, Virtqueue.size) - 1;
    const used = load<u32>(vq, Virtqueue.used);
    let bytes: u32 = 0;
    let slot = used & mask;
    for (let left = n; left; slot = 0) {
      const run = min(left, mask + 1 - slot);
      let element = ring + slot * SplitUsed.ELEMENT;
      for (const end = element + run * SplitUsed.ELEMENT; element != end; element += SplitUsed.ELEMENT) {
        const len = <u32>load<u16>(from, Packet.len);
        Device.netHeader(load<u32>(from) - NetHeader.SIZE, 1);
        store<u64>(element, <u64>load<u16>(from, Packet.index) | ((<u64>(len + NetHeader.SIZE)) << 32));
        bytes += len;
        from += Packet.SIZE;
      }
      left -= run;
    }
    store<u32>(vq, used + n, Virtqueue.used);
    store<u32>(vq, load<u32>(vq, Virtqueue.taken) - n, Virtqueue.taken);
    return bytes;
  }

  /** Shows the completed buffers to the driver; true if it is to be notified (2.7.7.2). */
  publish(vq: usize): bool {
    const used = load<u32>(vq, Virtqueue.used);
    const old = load<u32>(vq, Virtqueue.published);
    if (used == old) return false;
    Sync.store<u16>(load<u32>(vq, Virtqueue.device) + SplitUsed.idx, <u16>used);
    store<u32>(vq, used, Virtqueue.published);
    const driver: usize = load<u32>(vq, Virtqueue.driver);
    let notify: bool;
    if (load<u32>(vq, Virtqueue.features) & Feature.EVENT_IDX) {
      const event = Sync.load<u16>(driver + SplitAvail.ring + load<u32>(vq, Virtqueue.size) * 2);
      notify = Device.passes(event, <u16>used, <u16>old);
    } else notify = (Sync.load<u16>(driver + SplitAvail.flags) & RING_FLAG_NO_EVENT) == 0;
    if (notify) Device.notify(vq);
    return notify;
  }
}
