/** Packed virtqueue, driver side (virtio 1.2, 2.8.21, 2.8.22). The verbs are told in `driver.ts`. */
import {
  DescFlag,
  Driver,
  DriverMode,
  Feature,
  INDIRECT_ENTRIES,
  NetHeader,
  PackedDesc,
  PackedEvent,
  Packet,
  PacketFlag,
  SHADOW_REST,
} from "../layout";
import { Desc } from "../packet";
import { Sync } from "../sync";
import { Device } from "./device";
import { Drivers, FLAGGED } from "./driver";

const AVAIL_USED: u32 = DescFlag.AVAIL | DescFlag.USED;

@final
@unmanaged
export class PackedDriver {
  /** Bytes of the net header in front of each frame. */
  @inline header(): u32 {
    return NetHeader.SIZE;
  }

  /** Free descriptors. */
  @inline room(drv: usize): u32 {
    return load<u32>(drv, Driver.freeCount);
  }

  /** As `SplitDriver.post`. The burst's first descriptor gets its flags in `publish`. */
  post(drv: usize, from: usize, n: u32, writable: bool): u32 {
    store<u32>(drv, writable ? 0 : u32.MAX_VALUE, Driver.ignored);
    const base = load<u32>(drv, Driver.base);
    const direction: u32 = writable ? DescFlag.WRITE : 0;
    let done: u32 = 0;
    while (done < n) {
      const p = from + done * Packet.SIZE;
      const d = v128.load(p);
      if (!(Desc.flags(d) & PacketFlag.MORE)) {
        const some = PackedDriver.postSingles(drv, p, n - done, direction);
        done += some;
        if (some) continue;
        if (!load<u32>(drv, Driver.freeCount)) break;
        const id = Drivers.allocId(drv);
        v128.store(Drivers.shadow(drv, id), d);
        PackedDriver.put(drv, Desc.addr(d) - base, Desc.len(d), id, direction);
        done++;
      } else {
        const segments = Desc.segments(p, n - done);
        if (!PackedDriver.postMany(drv, p, segments, direction)) break;
        done += segments;
      }
    }
    return done;
  }

  /**
   * Frames of one segment, without a call in the loop: behind the first of a burst, up to the ring's end, where ids are
   * not handed out in turn. Returns how many.
   */
  static postSingles(drv: usize, from: usize, n: u32, direction: u32): u32 {
    const pending = load<u32>(drv, Driver.pending);
    if (!pending || Drivers.inOrder(drv)) return 0;
    const position = load<u32>(drv, Driver.avail);
    const wrap = load<u32>(drv, Driver.availWrap);
    const size = load<u32>(drv, Driver.size);
    const free = load<u32>(drv, Driver.freeCount);
    const base = load<u32>(drv, Driver.base);
    const shadow: usize = load<u32>(drv, Driver.shadow);
    const flags = (<u64>(direction | (wrap ? <u32>DescFlag.AVAIL : <u32>DescFlag.USED))) << 48;
    let ids: usize = load<u32>(drv, Driver.freeIds) + free * 2;
    let d: usize = load<u32>(drv, Driver.desc) + position * PackedDesc.SIZE;
    const first = d;
    for (
      const end = d + min(min(free, size - position), n) * PackedDesc.SIZE;
      d != end;
      d += PackedDesc.SIZE
    ) {
      const low = load<u64>(from);
      if (low >= FLAGGED) break;
      ids -= 2;
      const id = <u32>load<u16>(ids);
      store<u64>(d, <u32>low - base);
      store<u64>(d, (low >> 32) | ((<u64>id) << 32) | flags, PackedDesc.len);
      v128.store(shadow + id * Packet.SIZE, v128.load(from));
      from += Packet.SIZE;
    }
    const done = <u32>(d - first) / PackedDesc.SIZE;
    store<u32>(drv, pending + done, Driver.pending);
    store<u32>(drv, free - done, Driver.freeCount);
    const ends = position + done == size;
    store<u32>(drv, ends ? 0 : position + done, Driver.avail);
    store<u32>(drv, wrap ^ u32(ends), Driver.availWrap);
    return done;
  }

  /** A frame of several segments: an indirect table if it fits one, else a list of descriptors (2.8.6). */
  static postMany(drv: usize, from: usize, n: u32, direction: u32): bool {
    const base = load<u32>(drv, Driver.base);
    if (load<u32>(drv, Driver.indirect) && n <= min<u32>(INDIRECT_ENTRIES, load<u32>(drv, Driver.size))) {
      if (!load<u32>(drv, Driver.freeCount)) return false;
      const id = Drivers.allocId(drv);
      const list = Drivers.putIndirect(drv, id, from, n, direction, true);
      PackedDriver.put(drv, <u32>list - base, n * PackedDesc.SIZE, id, DescFlag.INDIRECT);
      return true;
    }
    if (load<u32>(drv, Driver.freeCount) < n) return false;
    const head = Drivers.allocId(drv);
    let id = head;
    for (let i: u32 = 0; i < n; i++) {
      const p = from + i * Packet.SIZE;
      const last = i + 1 == n;
      const next = last ? 0 : Drivers.allocId(drv);
      const shadow = Drivers.shadow(drv, id);
      v128.store(shadow, v128.load(p));
      store<u16>(shadow, (last ? 0 : PacketFlag.MORE) | (i ? SHADOW_REST : 0), Packet.flags);
      store<u16>(shadow, <u16>next, Packet.mark);
      const flags = direction | (last ? 0 : <u32>DescFlag.NEXT);
      PackedDriver.put(drv, load<u32>(p, Packet.addr) - base, load<u16>(p, Packet.len), head, flags);
      id = next;
    }
    return true;
  }

  /** Writes one descriptor at the next position (2.8.21.1). */
  @inline static put(drv: usize, addr: u32, len: u32, id: u32, direction: u32): void {
    const position = load<u32>(drv, Driver.avail);
    const wrap = load<u32>(drv, Driver.availWrap);
    const flags = direction | (wrap ? <u32>DescFlag.AVAIL : <u32>DescFlag.USED);
    const d = load<u32>(drv, Driver.desc) + position * PackedDesc.SIZE;
    const pending = load<u32>(drv, Driver.pending);
    store<u64>(d, addr);
    if (pending) store<u64>(d, <u64>len | ((<u64>(id | (flags << 16))) << 32), PackedDesc.len);
    else {
      store<u32>(d, len, PackedDesc.len);
      store<u16>(d, <u16>id, PackedDesc.id);
      store<u32>(drv, position, Driver.published);
      store<u32>(drv, flags, Driver.headFlags);
    }
    store<u32>(drv, pending + 1, Driver.pending);
    if (position + 1 == load<u32>(drv, Driver.size)) {
      store<u32>(drv, 0, Driver.avail);
      store<u32>(drv, wrap ^ 1, Driver.availWrap);
    } else store<u32>(drv, position + 1, Driver.avail);
  }

  /** Shows what was posted to the device (2.8.21.2); true if it is to be notified (2.8.21.3). */
  publish(drv: usize): bool {
    const moved = load<u32>(drv, Driver.pending);
    if (!moved) return false;
    const first = load<u32>(drv, Driver.desc) + load<u32>(drv, Driver.published) * PackedDesc.SIZE;
    Sync.store<u16>(first + PackedDesc.flags, <u16>load<u32>(drv, Driver.headFlags));
    store<u32>(drv, 0, Driver.pending);
    const suppression = Sync.load<u32>(load<u32>(drv, Driver.device));
    const mode = (suppression >> 16) & 3;
    let notify: bool = mode == PackedEvent.ENABLE;
    if (mode == PackedEvent.DESC && load<u32>(drv, Driver.features) & Feature.EVENT_IDX) {
      const avail = load<u32>(drv, Driver.avail);
      let event = suppression & 0x7fff;
      if (((suppression >> 15) & 1) != load<u32>(drv, Driver.availWrap)) event -= load<u32>(drv, Driver.size);
      notify = Device.passes(<u16>event, <u16>avail, <u16>(avail - moved));
    }
    if (notify) Drivers.kick(drv);
    return notify;
  }

  /** As `SplitDriver.used`. */
  used(drv: usize, to: usize, max: u32): u32 {
    const ring: usize = load<u32>(drv, Driver.desc);
    const size = load<u32>(drv, Driver.size);
    const inOrder = Drivers.inOrder(drv);
    let position = load<u32>(drv, Driver.lastUsed);
    let wrap = load<u32>(drv, Driver.usedWrap);
    let n: u32 = 0;
    while (n < max) {
      if (!inOrder) {
        const some = PackedDriver.usedSingles(drv, position, wrap, to + n * Packet.SIZE, max - n);
        n += some;
        position += some;
        if (position == size) {
          position = 0;
          wrap ^= 1;
          continue;
        }
        if (n == max) break;
      }
      const d = ring + position * PackedDesc.SIZE;
      const inBatch = inOrder && load<u32>(drv, Driver.inBatch);
      let element: u64;
      if (inBatch) element = load<u64>(drv, Driver.batch);
      else {
        const flags = <u32>Sync.load<u16>(d + PackedDesc.flags) & AVAIL_USED;
        if (flags != (wrap ? AVAIL_USED : 0)) break;
        element = load<u64>(d, PackedDesc.len);
      }
      const told = <u32>(element >> 32) & 0xffff;
      let id = told;
      let len = <u32>element;
      if (!Drivers.outstanding(drv, told)) {
        // Where the next one stands isn't known: go on at the next descriptor.
        Drivers.countBadUsed(drv);
        if (++position == size) {
          position = 0;
          wrap ^= 1;
        }
        continue;
      }
      if (inOrder && told != load<u32>(drv, Driver.oldest)) {
        id = load<u32>(drv, Driver.oldest);
        len = u32.MAX_VALUE;
      }
      const descriptors = Drivers.chainLength(drv, id);
      let after = id;
      if (inOrder) for (let k: u32 = 0; k < descriptors; k++) after = Drivers.following(drv, after);
      const some = Drivers.release(drv, id, len, to + n * Packet.SIZE, max - n);
      if (!some) break;
      if (inOrder) {
        store<u32>(drv, after, Driver.oldest);
        store<u64>(drv, element, Driver.batch);
        store<u32>(drv, id != told ? 1 : 0, Driver.inBatch);
      }
      n += some;
      position += descriptors;
      if (position >= size) {
        position -= size;
        wrap ^= 1;
      }
    }
    store<u32>(drv, position, Driver.lastUsed);
    store<u32>(drv, wrap, Driver.usedWrap);
    if (
      load<u32>(drv, Driver.features) & Feature.EVENT_IDX &&
      load<u32>(drv, Driver.mode) != DriverMode.POLL
    ) {
      // 2.8.10: notify when the descriptor at this position and wrap counter is used.
      const event = position | (wrap << 15) | ((<u32>PackedEvent.DESC) << 16);
      Sync.store<u32>(load<u32>(drv, Driver.driver), event);
    }
    return n;
  }

  /**
   * Used buffers of one segment, without a call in the loop: from `position` to the ring's end. Returns how many.
   */
  static usedSingles(drv: usize, position: u32, wrap: u32, to: usize, max: u32): u32 {
    const size = load<u32>(drv, Driver.size);
    const shadow: usize = load<u32>(drv, Driver.shadow);
    const ignored = load<u32>(drv, Driver.ignored);
    const free = load<u32>(drv, Driver.freeCount);
    const wanted: u32 = wrap ? AVAIL_USED : 0;
    let ids: usize = load<u32>(drv, Driver.freeIds) + free * 2;
    let d: usize = load<u32>(drv, Driver.desc) + position * PackedDesc.SIZE;
    const first = d;
    for (const end = d + min(max, size - position) * PackedDesc.SIZE; d != end; d += PackedDesc.SIZE) {
      if ((<u32>Sync.load<u16>(d + PackedDesc.flags) & AVAIL_USED) != wanted) break;
      const id = <u32>load<u16>(d, PackedDesc.id);
      if (id >= size) break;
      const s = shadow + id * Packet.SIZE;
      const low = load<u64>(s);
      if (low - 1 >= FLAGGED - 1) break;
      const len = min(load<u32>(d, PackedDesc.len) | ignored, <u32>(low >> 32));
      v128.store(to, i16x8.replace_lane(v128.load(s), 2, <i16>len));
      store<u64>(s, 0);
      store<u16>(ids, <u16>id);
      ids += 2;
      to += Packet.SIZE;
    }
    const done = <u32>(d - first) / PackedDesc.SIZE;
    store<u32>(drv, free + done, Driver.freeCount);
    return done;
  }
}
