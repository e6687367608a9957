/** Split virtqueue, driver side (virtio 1.2, 2.7.13, 2.7.14). The verbs are told in `driver.ts`. */
import { Count } from "../count";
import {
  DescFlag,
  Driver,
  Feature,
  INDIRECT_ENTRIES,
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
import { Drivers } from "./driver";

@final
@unmanaged
export class SplitDriver {
  /**
   * Makes the frames at `from` (`n` segments) available, each as one buffer. Returns the segments posted:
   * whole frames, as many as there are free descriptors for.
   */
  post(drv: usize, from: usize, n: u32, writable: bool): u32 {
    store<u32>(drv, writable ? 1 : 0, Driver.writable);
    const table: usize = load<u32>(drv, Driver.desc);
    const ring = load<u32>(drv, Driver.driver) + SplitAvail.ring;
    const mask = load<u32>(drv, Driver.size) - 1;
    const base = load<u32>(drv, Driver.base);
    const direction: u32 = writable ? DescFlag.WRITE : 0;
    let avail = load<u32>(drv, Driver.avail);
    let done: u32 = 0;
    while (done < n) {
      const p = from + done * Packet.SIZE;
      const d = v128.load(p);
      let head: u32;
      if (!(Desc.flags(d) & PacketFlag.MORE)) {
        if (!load<u32>(drv, Driver.freeCount)) break;
        head = Drivers.allocId(drv);
        const high = <u64>Desc.len(d) | ((<u64>direction) << 32);
        v128.store(
          table + head * SplitDesc.SIZE,
          i64x2.replace_lane(i64x2.splat(Desc.addr(d) - base), 1, high),
        );
        v128.store(Drivers.shadow(drv, head), d);
        done++;
      } else {
        const segments = Desc.segments(p, n - done);
        const id = SplitDriver.postMany(drv, p, segments, direction);
        if (id < 0) break;
        head = id;
        done += segments;
      }
      store<u16>(ring + (avail & mask) * 2, <u16>head);
      avail++;
    }
    store<u32>(drv, avail, Driver.avail);
    return done;
  }

  /** A frame of several segments: an indirect table if it fits one, else a chain (2.7.5). Its head, or -1. */
  static postMany(drv: usize, from: usize, n: u32, direction: u32): i32 {
    const table: usize = load<u32>(drv, Driver.desc);
    const base = load<u32>(drv, Driver.base);
    if (load<u32>(drv, Driver.indirect) && n <= min<u32>(INDIRECT_ENTRIES, load<u32>(drv, Driver.size))) {
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
    if (notify) Count.add(drv + Driver.kicks, 1);
    return notify;
  }

  /**
   * Up to `max` segments of buffers that the device has used, to `to`; a received buffer's `len` is what the
   * device wrote. An entry that names no outstanding buffer is counted and passed over.
   */
  used(drv: usize, to: usize, max: u32): u32 {
    const device: usize = load<u32>(drv, Driver.device);
    const mask = load<u32>(drv, Driver.size) - 1;
    const inOrder = Drivers.inOrder(drv);
    let last = load<u32>(drv, Driver.lastUsed);
    let left = <u32>(<u16>(Sync.load<u16>(device + SplitUsed.idx) - last));
    if (!left) return 0;
    let n: u32 = 0;
    while (left) {
      const inBatch = inOrder && load<u32>(drv, Driver.inBatch);
      const element = inBatch
        ? load<u64>(drv, Driver.batch)
        : load<u64>(device + SplitUsed.ring + (last & mask) * SplitUsed.ELEMENT);
      let id = <u32>element;
      let len = <u32>(element >> 32);
      if (!Drivers.outstanding(drv, id)) {
        Drivers.countBadUsed(drv);
        last++;
        left--;
        continue;
      }
      if (inOrder && id != load<u32>(drv, Driver.oldest)) {
        // 2.7.9: a batch, told by its last buffer; those before it were used completely.
        id = load<u32>(drv, Driver.oldest);
        len = u32.MAX_VALUE;
      }
      let after = id;
      if (inOrder) for (let k = Drivers.chainLength(drv, id); k; k--) after = Drivers.following(drv, after);
      const some = Drivers.release(drv, id, len, to + n * Packet.SIZE, max - n);
      if (!some) break;
      if (inOrder) {
        store<u32>(drv, after, Driver.oldest);
        store<u64>(drv, element, Driver.batch);
        store<u32>(drv, id != <u32>element ? 1 : 0, Driver.inBatch);
      }
      n += some;
      last++;
      left--;
    }
    store<u32>(drv, last, Driver.lastUsed);
    if (load<u32>(drv, Driver.features) & Feature.EVENT_IDX) {
      // Polling: an event index that was passed already. Else: notify at the next used buffer.
      const event = load<u32>(drv, Driver.polls) ? last - 1 : last;
      Sync.store<u16>(load<u32>(drv, Driver.driver) + SplitAvail.ring + (mask + 1) * 2, <u16>event);
    }
    return n;
  }
}
