/**
 * Packed virtqueue, device side (virtio 1.2, 2.8). The three verbs are told in `device.ts`.
 * One ring, in which the driver's descriptors are overwritten by used ones; AVAIL and USED flags are compared
 * with wrap counters (2.8.1). Of a burst of used descriptors the first one's flags are written last: a driver
 * that goes through the ring in order sees none of the burst before all of it.
 */
import { DescFlag, Feature, NetHeader, PackedDesc, PackedEvent, Packet, Refusal, Virtqueue } from "../layout";
import { Desc } from "../packet";
import { Sync } from "../sync";
import { Device } from "./device";

const AVAIL_USED: u32 = DescFlag.AVAIL | DescFlag.USED;

@final
@unmanaged
export class PackedDevice {
  /** 2.8.1: available when AVAIL differs from USED and equals the driver's wrap counter. */
  @inline isAvailable(desc: usize, wrap: u32): bool {
    const flags = <u32>Sync.load<u16>(desc + PackedDesc.flags) & AVAIL_USED;
    return flags == (wrap ? <u32>DescFlag.AVAIL : <u32>DescFlag.USED);
  }

  /** As `SplitDevice.take`. */
  take(vq: usize, to: usize, max: u32): u32 {
    const desc: usize = load<u32>(vq, Virtqueue.desc);
    const size = load<u32>(vq, Virtqueue.size);
    const limit = <u64>load<u32>(vq, Virtqueue.limit);
    const skip = load<u32>(vq, Virtqueue.skip);
    const base = load<u32>(vq, Virtqueue.base);
    const blank = v128.load(vq, Virtqueue.blank);
    const direction = load<u32>(vq, Virtqueue.direction);
    const least = load<u32>(vq, Virtqueue.least);
    const range = load<u32>(vq, Virtqueue.range);
    const taken = load<u32>(vq, Virtqueue.taken);
    let position = load<u32>(vq, Virtqueue.avail);
    let wrap = load<u32>(vq, Virtqueue.availWrap);
    let available: u32 = wrap ? DescFlag.AVAIL : DescFlag.USED;
    const room = min(max, size - min(taken, size));
    let i: u32 = 0;
    for (; i < room; i++) {
      const p = desc + position * PackedDesc.SIZE;
      const flags = <u32>Sync.load<u16>(p + PackedDesc.flags);
      if ((flags & AVAIL_USED) != available) break;
      const addr = load<u64>(p);
      const rest = load<u64>(p, PackedDesc.len);
      const len = <u32>rest;
      if ((flags & ~AVAIL_USED) != direction) break;
      if (len - least > range) break;
      if (addr > limit - len) break;
      const at = i16x8.replace_lane(i32x4.replace_lane(blank, 0, base + <u32>addr + skip), 6, <i16>len);
      v128.store(to, i16x8.replace_lane(i16x8.replace_lane(at, 2, <i16>(len - skip)), 5, <i16>(rest >> 32)));
      to += Packet.SIZE;
      if (++position == size) {
        position = 0;
        wrap ^= 1;
        available ^= AVAIL_USED;
      }
    }
    store<u32>(vq, position, Virtqueue.avail);
    store<u32>(vq, wrap, Virtqueue.availWrap);
    store<u32>(vq, taken + i, Virtqueue.taken);
    if (i == room && i < max && this.isAvailable(desc + position * PackedDesc.SIZE, wrap)) {
      Device.refuse(vq, Refusal.AVAIL_JUMP);
    }
    return i;
  }

  /** As `SplitDevice.takeChain`; a list is consecutive descriptors, the last one has the buffer id (2.8.6). */
  takeChain(vq: usize, to: usize, writable: bool): i32 {
    const table: usize = load<u32>(vq, Virtqueue.desc);
    const size = load<u32>(vq, Virtqueue.size);
    const taken = load<u32>(vq, Virtqueue.taken);
    let position = load<u32>(vq, Virtqueue.avail);
    let wrap = load<u32>(vq, Virtqueue.availWrap);
    if (!this.isAvailable(table + position * PackedDesc.SIZE, wrap)) return 0;
    if (taken >= size) {
      Device.refuse(vq, Refusal.AVAIL_JUMP);
      return -Refusal.AVAIL_JUMP;
    }
    // A bad segment doesn't end the walk: only at the list's end are its id and its length known.
    let n: i32 = 0;
    let refusal: u32 = 0;
    let descriptors: u32 = 0;
    let id: u32 = 0;
    while (true) {
      const d = table + position * PackedDesc.SIZE;
      const addr = load<u64>(d);
      const high = load<u64>(d, 8);
      const flags = <u32>(high >> 48);
      id = <u32>(high >> 32) & 0xffff;
      descriptors++;
      if (++position == size) {
        position = 0;
        wrap ^= 1;
      }
      const more = (flags & DescFlag.NEXT) != 0;
      if (!refusal) {
        if (flags & DescFlag.INDIRECT) {
          // 2.8.19: an indirect descriptor is never part of a list.
          const segments =
            descriptors > 1 || more
              ? -Refusal.INDIRECT
              : Device.indirect(vq, addr, <u32>high, writable, to, size, true);
          if (segments < 0) refusal = -segments;
          else n = segments;
        } else {
          refusal = Device.segment(vq, addr, <u32>high, flags, writable, to + n * Packet.SIZE);
          n++;
        }
      }
      if (!more) break;
      if (taken + descriptors >= size) {
        Device.refuse(vq, Refusal.LOOP);
        return -Refusal.LOOP;
      }
    }
    store<u32>(vq, position, Virtqueue.avail);
    store<u32>(vq, wrap, Virtqueue.availWrap);
    store<u32>(vq, taken + descriptors, Virtqueue.taken);
    if (!refusal) {
      Device.finish(to, n, id, descriptors);
      return n;
    }
    if (Device.refuseLast(vq, refusal, descriptors)) {
      v128.store(to, Desc.make(0, 0, 0, 0, id, 0, descriptors));
      this.complete(vq, to, 1, false);
      this.publish(vq);
    }
    return -(<i32>refusal);
  }

  /** Undoes the last takes: the `n` buffers at `from` are available again. */
  untake(vq: usize, from: usize, n: u32): void {
    let descriptors: u32 = 0;
    for (let i: u32 = 0; i < n; i++) descriptors += load<u16>(from + i * Packet.SIZE, Packet.mark);
    let position = load<u32>(vq, Virtqueue.avail);
    if (position < descriptors) {
      position += load<u32>(vq, Virtqueue.size);
      store<u32>(vq, load<u32>(vq, Virtqueue.availWrap) ^ 1, Virtqueue.availWrap);
    }
    store<u32>(vq, position - descriptors, Virtqueue.avail);
    store<u32>(vq, load<u32>(vq, Virtqueue.taken) - descriptors, Virtqueue.taken);
  }

  /**
   * As `SplitDevice.complete`: a used descriptor for each buffer (2.8.4), and as many skipped as the buffer took.
   * The first one's flags wait for `publish`. `mapped`: each is a frame in one buffer of one descriptor, and the net
   * header stands in front of it uncounted.
   */
  complete(vq: usize, from: usize, n: u32, written: bool, mapped: bool = false): void {
    const ring: usize = load<u32>(vq, Virtqueue.desc);
    const size = load<u32>(vq, Virtqueue.size);
    let position = load<u32>(vq, Virtqueue.used);
    let wrap = load<u32>(vq, Virtqueue.usedWrap);
    let pending = load<u32>(vq, Virtqueue.pending);
    const header: u32 = mapped ? NetHeader.SIZE : 0;
    let given: u32 = 0;
    for (let i: u32 = 0; i < n; i++) {
      const len = written ? <u32>load<u16>(from, Packet.len) + header : 0;
      const id = load<u16>(from, Packet.index);
      const descriptors = mapped ? 1 : <u32>load<u16>(from, Packet.mark);
      const flags = (wrap ? AVAIL_USED : 0) | (len ? <u32>DescFlag.WRITE : 0);
      const d = ring + position * PackedDesc.SIZE;
      if (!(pending + given)) {
        store<u32>(d, len, PackedDesc.len);
        store<u16>(d, id, PackedDesc.id);
        store<u32>(vq, position, Virtqueue.published);
        store<u32>(vq, flags, Virtqueue.pendingFlags);
      } else store<u64>(d, <u64>len | ((<u64>(<u32>id | (flags << 16))) << 32), PackedDesc.len);
      given += descriptors;
      position += descriptors;
      if (position >= size) {
        position -= size;
        wrap ^= 1;
      }
      from += Packet.SIZE;
    }
    store<u32>(vq, position, Virtqueue.used);
    store<u32>(vq, wrap, Virtqueue.usedWrap);
    store<u32>(vq, pending + given, Virtqueue.pending);
    store<u32>(vq, load<u32>(vq, Virtqueue.taken) - given, Virtqueue.taken);
  }

  /** As `SplitDevice.handOver`. */
  handOver(vq: usize, from: usize, n: u32): u32 {
    for (let p = from, end = from + n * Packet.SIZE; p != end; p += Packet.SIZE) {
      Device.netHeader(load<u32>(p) - NetHeader.SIZE, 1);
    }
    this.complete(vq, from, n, true, true);
    return Desc.bytes(from, n);
  }

  /** Shows the completed buffers to the driver; true if it is to be notified (2.8.10). */
  publish(vq: usize): bool {
    const moved = load<u32>(vq, Virtqueue.pending);
    if (!moved) return false;
    const first = load<u32>(vq, Virtqueue.desc) + load<u32>(vq, Virtqueue.published) * PackedDesc.SIZE;
    Sync.store<u16>(first + PackedDesc.flags, <u16>load<u32>(vq, Virtqueue.pendingFlags));
    store<u32>(vq, 0, Virtqueue.pending);
    const suppression = Sync.load<u32>(load<u32>(vq, Virtqueue.driver));
    const mode = (suppression >> 16) & 3;
    let notify: bool = mode == PackedEvent.ENABLE;
    if (mode == PackedEvent.DESC && load<u32>(vq, Virtqueue.features) & Feature.EVENT_IDX) {
      const used = load<u32>(vq, Virtqueue.used);
      let event = suppression & 0x7fff;
      if (((suppression >> 15) & 1) != load<u32>(vq, Virtqueue.usedWrap))
        event -= load<u32>(vq, Virtqueue.size);
      notify = Device.passes(<u16>event, <u16>used, <u16>(used - moved));
    }
    if (notify) Device.notify(vq);
    return notify;
  }
}
