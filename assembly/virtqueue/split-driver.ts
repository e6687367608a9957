/** Split virtqueue, driver side (virtio 1.2, 2.7.13, 2.7.14). The verbs are told in `driver.ts`. */
import {
  DescFlag,
  Driver,
  DriverMode,
  Feature,
  INDIRECT_ENTRIES,
  NetHeader,
  Packet,
  PacketFlag,
  RING_FLAG_NO_EVENT,
  SHADOW_REST,
  SplitAvail,
  SplitDesc,
  SplitUsed,
} from "../layout";
import { Desc } from "../packet";
import { Sync } from "../sync";
import { Device } from "./device";
import { Drivers, FLAGGED } from "./driver";

@final
@unmanaged
export class SplitDriver {
  /** Bytes of the net header in front of each frame. */
  @inline header(): u32 {
    return NetHeader.SIZE;
  }

  /** Free descriptors. */
  @inline room(drv: usize): u32 {
    return load<u32>(drv, Driver.freeCount);
  }

  /**
   * Makes the frames at `from` (`n` segments) available, each as one buffer. Returns the segments posted:
   * whole frames, as many as there are free descriptors for.
   */
  post(drv: usize, from: usize, n: u32, writable: bool): u32 {
    store<u32>(drv, writable ? 0 : u32.MAX_VALUE, Driver.ignored);
    const table: usize = load<u32>(drv, Driver.desc);
    const ring = load<u32>(drv, Driver.driver) + SplitAvail.ring;
    const mask = load<u32>(drv, Driver.size) - 1;
    const base = load<u32>(drv, Driver.base);
    const shadow: usize = load<u32>(drv, Driver.shadow);
    const freeIds: usize = load<u32>(drv, Driver.freeIds);
    const inOrder = Drivers.inOrder(drv);
    const direction = (<u64>(writable ? DescFlag.WRITE : 0)) << 32;
    let free = load<u32>(drv, Driver.freeCount);
    let avail = load<u32>(drv, Driver.avail);
    const begin = from;
    const end = from + n * Packet.SIZE;
    while (from != end) {
      // Frames of one segment, without a call; ids are handed out in turn under IN_ORDER, else the last freed first.
      const slot = avail & mask;
      const run = min(min(free, mask + 1 - slot), <u32>(end - from) / Packet.SIZE);
      let entry = ring + slot * 2;
      let ids = freeIds + free * 2;
      for (const stop = inOrder ? entry : entry + run * 2; entry != stop; entry += 2) {
        const low = load<u64>(from);
        if (low >= FLAGGED) break;
        ids -= 2;
        const head = <u32>load<u16>(ids);
        const d = table + head * SplitDesc.SIZE;
        store<u64>(d, <u32>low - base);
        store<u64>(d, (low >> 32) | direction, SplitDesc.len);
        v128.store(shadow + head * Packet.SIZE, v128.load(from));
        store<u16>(entry, <u16>head);
        from += Packet.SIZE;
      }
      avail += <u32>(entry - ring) / 2 - slot;
      free = <u32>(ids - freeIds) / 2;
      if (from == end) break;
      if (!inOrder && free && load<u64>(from) < FLAGGED) continue; // the ring's end
      const segments = Desc.segments(from, <u32>(end - from) / Packet.SIZE);
      store<u32>(drv, free, Driver.freeCount);
      const id = SplitDriver.postMany(drv, from, segments, <u32>(direction >> 32));
      if (id < 0) break;
      free = load<u32>(drv, Driver.freeCount);
      store<u16>(ring + (avail++ & mask) * 2, <u16>id);
      from += segments * Packet.SIZE;
    }
    store<u32>(drv, free, Driver.freeCount);
    store<u32>(drv, avail, Driver.avail);
    return <u32>(from - begin) / Packet.SIZE;
  }

  /** A frame of several segments: an indirect table if it fits one, else a chain (2.7.5). Its head, or -1. */
  static postMany(drv: usize, from: usize, n: u32, direction: u32): i32 {
    const table: usize = load<u32>(drv, Driver.desc);
    const base = load<u32>(drv, Driver.base);
    if (
      n > 1 &&
      load<u32>(drv, Driver.indirect) &&
      n <= min<u32>(INDIRECT_ENTRIES, load<u32>(drv, Driver.size))
    ) {
      if (!load<u32>(drv, Driver.freeCount)) return -1;
      const id = Drivers.allocId(drv);
      const list = Drivers.putIndirect(drv, id, from, n, direction, false);
      const d = table + id * SplitDesc.SIZE;
      store<u64>(d, list - base);
      store<u64>(d, <u64>(n * SplitDesc.SIZE) | ((<u64>DescFlag.INDIRECT) << 32), 8);
      return id;
    }
    if (load<u32>(drv, Driver.freeCount) < n) return -1;
    const head = Drivers.allocId(drv);
    let id = head;
    for (let i: u32 = 0; i < n; i++) {
      const p = from + i * Packet.SIZE;
      const last = i + 1 == n;
      const next = last ? 0 : Drivers.allocId(drv);
      const flags = direction | (last ? 0 : <u32>DescFlag.NEXT);
      const d = table + id * SplitDesc.SIZE;
      store<u64>(d, load<u32>(p, Packet.addr) - base);
      store<u64>(d, <u64>load<u16>(p, Packet.len) | ((<u64>(flags | (next << 16))) << 32), 8);
      const shadow = Drivers.shadow(drv, id);
      v128.store(shadow, v128.load(p));
      store<u16>(shadow, (last ? 0 : PacketFlag.MORE) | (i ? SHADOW_REST : 0), Packet.flags);
      store<u16>(shadow, <u16>next, Packet.mark);
      id = next;
    }
    return head;
  }

  /** Shows what was posted to the device (2.7.13.3); true if it is to be notified (2.7.13.4). */
  publish(drv: usize): bool {
    const avail = load<u32>(drv, Driver.avail);
    const old = load<u32>(drv, Driver.published);
    if (avail == old) return false;
    Sync.store<u16>(load<u32>(drv, Driver.driver) + SplitAvail.idx, <u16>avail);
    store<u32>(drv, avail, Driver.published);
    const device: usize = load<u32>(drv, Driver.device);
    let notify: bool;
    if (load<u32>(drv, Driver.features) & Feature.EVENT_IDX) {
      const event = Sync.load<u16>(device + SplitUsed.ring + load<u32>(drv, Driver.size) * SplitUsed.ELEMENT);
      notify = Device.passes(event, <u16>avail, <u16>old);
    } else notify = (Sync.load<u16>(device + SplitUsed.flags) & RING_FLAG_NO_EVENT) == 0;
    if (notify) Drivers.kick(drv);
    return notify;
  }

  /**
   * Up to `max` segments of buffers that the device has used, to `to`; a received buffer's `len` is what the
   * device wrote. An entry that names no outstanding buffer is counted and passed over.
   */
  used(drv: usize, to: usize, max: u32): u32 {
    const device: usize = load<u32>(drv, Driver.device);
    const mask = load<u32>(drv, Driver.size) - 1;
    const last = load<u32>(drv, Driver.lastUsed);
    const left = <u32>(<u16>(Sync.load<u16>(device + SplitUsed.idx) - last));
    if (!left) return 0;
    const n = Drivers.inOrder(drv)
      ? SplitDriver.usedInOrder(drv, to, max, left)
      : SplitDriver.usedAnyOrder(drv, to, max, left);
    if (load<u32>(drv, Driver.features) & Feature.EVENT_IDX) {
      const now = load<u32>(drv, Driver.lastUsed);
      // Polling: an event index that was passed already. Else: notify at the next used buffer.
      const event = load<u32>(drv, Driver.mode) == DriverMode.POLL ? now - 1 : now;
      Sync.store<u16>(load<u32>(drv, Driver.driver) + SplitAvail.ring + (mask + 1) * 2, <u16>event);
    }
    return n;
  }

  @inline static usedAnyOrder(drv: usize, to: usize, max: u32, left: u32): u32 {
    const ring: usize = load<u32>(drv, Driver.device) + SplitUsed.ring;
    const mask = load<u32>(drv, Driver.size) - 1;
    const shadow: usize = load<u32>(drv, Driver.shadow);
    const freeIds: usize = load<u32>(drv, Driver.freeIds);
    const ignored = <u64>load<u32>(drv, Driver.ignored);
    let ids = freeIds + load<u32>(drv, Driver.freeCount) * 2;
    let last = load<u32>(drv, Driver.lastUsed);
    const begin = to;
    const end = to + max * Packet.SIZE;
    while (left && to != end) {
      // Buffers of one segment, without a call, up to the ring's end.
      let element = ring + (last & mask) * SplitUsed.ELEMENT;
      const first = element;
      const run = min(min(left, mask + 1 - (last & mask)), <u32>(end - to) / Packet.SIZE);
      for (const stop = element + run * SplitUsed.ELEMENT; element != stop; element += SplitUsed.ELEMENT) {
        const used = load<u64>(element);
        if (<u32>used > mask) break;
        const s = shadow + <u32>used * Packet.SIZE;
        const low = load<u64>(s);
        if (low - 1 >= FLAGGED - 1) break;
        const len = min((used >> 32) | ignored, low >> 32);
        v128.store(to, i16x8.replace_lane(v128.load(s), 2, <i16>len));
        store<u64>(s, 0);
        store<u16>(ids, <u16>used);
        ids += 2;
        to += Packet.SIZE;
      }
      const done = <u32>(element - first) / SplitUsed.ELEMENT;
      last += done;
      left -= done;
      if (done == run) continue;
      const id = load<u32>(element);
      if (Drivers.outstanding(drv, id)) {
        store<u32>(drv, <u32>(ids - freeIds) / 2, Driver.freeCount);
        const some = Drivers.releaseMany(drv, id, to, <u32>(end - to) / Packet.SIZE);
        if (!some) break;
        ids = freeIds + load<u32>(drv, Driver.freeCount) * 2;
        to += some * Packet.SIZE;
      } else Drivers.countBadUsed(drv);
      last++;
      left--;
    }
    store<u32>(drv, <u32>(ids - freeIds) / 2, Driver.freeCount);
    store<u32>(drv, last, Driver.lastUsed);
    return <u32>(to - begin) / Packet.SIZE;
  }

  /** 2.7.9: a used element may tell of a batch by its last buffer; those before it were used completely. */
  static usedInOrder(drv: usize, to: usize, max: u32, left: u32): u32 {
    const ring: usize = load<u32>(drv, Driver.device) + SplitUsed.ring;
    const mask = load<u32>(drv, Driver.size) - 1;
    let last = load<u32>(drv, Driver.lastUsed);
    let n: u32 = 0;
    for (; left; left--, last++) {
      const element = load<u32>(drv, Driver.inBatch)
        ? load<u64>(drv, Driver.batch)
        : load<u64>(ring + (last & mask) * SplitUsed.ELEMENT);
      if (!Drivers.outstanding(drv, <u32>element)) {
        Drivers.countBadUsed(drv);
        continue;
      }
      const id = load<u32>(drv, Driver.oldest);
      const ends = id == <u32>element;
      let after = id;
      for (let k = Drivers.chainLength(drv, id); k; k--) after = Drivers.following(drv, after);
      const len = ends ? <u32>(element >> 32) : u32.MAX_VALUE;
      const some = Drivers.release(drv, id, len, to + n * Packet.SIZE, max - n);
      if (!some) break;
      store<u32>(drv, after, Driver.oldest);
      store<u64>(drv, element, Driver.batch);
      store<u32>(drv, ends ? 0 : 1, Driver.inBatch);
      n += some;
    }
    store<u32>(drv, last, Driver.lastUsed);
    return n;
  }
}
