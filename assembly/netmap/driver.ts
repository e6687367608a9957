/**
 * A guest's driver of a netmap port (layout: `NetmapDriver`). Each slot has a buffer: what is received is taken out of its
 * slot by its number, and another one's number put in; so the guest moves frames from its receive to its transmit ring
 * without a copy. The verbs are told in `guest.ts`.
 *
 * Two notes of its own keep it from believing what stands in the ring: how far it has got, and which buffers it has.
 */
import { Count } from "../count";
import { Doorbell } from "../doorbell";
import {
  DriverMode,
  NETMAP_FIRST,
  NetmapRing,
  NetmapSlot,
  Packet,
  PacketFlag,
  SlotFlag,
  NetmapDriver as State,
} from "../layout";
import { Desc } from "../packet";
import { Sync } from "../sync";

@final
@unmanaged
export class NetmapDriver {
  /** A frame begins where its buffer does. */
  @inline header(): u32 {
    return 0;
  }

  /** Slots that can be posted into. */
  @inline room(drv: usize): u32 {
    return load<u32>(drv, State.freeCount);
  }

  /**
   * Takes the buffers out of up to `max` slots that the host has given back, and of so many more as the last frame has.
   * A slot that names no buffer, or one that the guest has already, is counted and passed over.
   */
  used(drv: usize, to: usize, max: u32): u32 {
    const ring: usize = load<u32>(drv, State.ring);
    const mask = load<u32>(drv, State.size) - 1;
    const begin = to;
    const first = load<u32>(drv, State.cur);
    const have = (Sync.load<u32>(ring + NetmapRing.hwtail) - first) & mask;
    const held: usize = load<u32>(drv, State.held);
    let n: u32 = 0;
    let more: u32 = 0;
    for (; n < have && (n < max || more); n++) {
      const s = v128.load(ring + NetmapRing.slots + ((first + n) & mask) * NetmapSlot.SIZE);
      const buffer = <u32>i32x4.extract_lane(s, 0) - NETMAP_FIRST;
      const word = <u32>i32x4.extract_lane(s, 1);
      if (buffer >= load<u32>(drv, State.count) || load<u8>(held + buffer)) {
        Count.add(drv + State.badSlots, 1);
        continue;
      }
      store<u8>(held + buffer, 1);
      const len = min(word & 0xffff, load<u32>(drv, State.room));
      more = word & load<u32>(drv, State.flags) ? PacketFlag.MORE : 0;
      const addr = load<u32>(drv, State.base) + buffer * load<u32>(drv, State.stride);
      v128.store(to, Desc.make(addr, len, more, 0, buffer, 0, 0));
      to += Packet.SIZE;
    }
    // The host publishes whole frames: what ends otherwise was written by somebody else.
    if (more) store<u16>(to - Packet.SIZE, 0, Packet.flags);
    store<u32>(drv, (first + n) & mask, State.cur);
    store<u32>(drv, load<u32>(drv, State.freeCount) + n, State.freeCount);
    return <u32>(to - begin) / Packet.SIZE;
  }

  /**
   * Puts the frames at `from` (`n` segments), or empty buffers (`writable`), into slots. Returns the segments that had
   * room: whole frames.
   */
  post(drv: usize, from: usize, n: u32, writable: bool): u32 {
    const slots: usize = load<u32>(drv, State.ring) + NetmapRing.slots;
    const mask = load<u32>(drv, State.size) - 1;
    const free = load<u32>(drv, State.freeCount);
    const held: usize = load<u32>(drv, State.held);
    let head = load<u32>(drv, State.head);
    n = Desc.whole(from, n, free);
    for (const end = from + n * Packet.SIZE; from != end; from += Packet.SIZE) {
      const word = load<u32>(from, Packet.len);
      const buffer = <u32>load<u16>(from, Packet.index);
      const flags: u32 = SlotFlag.BUF_CHANGED | ((word >> 16) & PacketFlag.MORE ? SlotFlag.MOREFRAG : 0);
      const low =
        <u64>(buffer + NETMAP_FIRST) | ((<u64>(writable ? 0 : (word & 0xffff) | (flags << 16))) << 32);
      v128.store(slots + (head & mask) * NetmapSlot.SIZE, i64x2.replace_lane(i64x2.splat(0), 0, low));
      store<u8>(held + buffer, 0);
      head++;
    }
    store<u32>(drv, head & mask, State.head);
    store<u32>(drv, free - n, State.freeCount);
    return n;
  }

  /** Hands the slots over that were posted into; true if the host is to be told, which it is then. */
  publish(drv: usize): bool {
    const ring: usize = load<u32>(drv, State.ring);
    const head = load<u32>(drv, State.head);
    if (head == load<u32>(drv, State.published)) return false;
    store<u32>(drv, head, State.published);
    store<u32>(ring, load<u32>(drv, State.cur), NetmapRing.cur);
    Sync.store<u32>(ring + NetmapRing.head, head);
    if (!Sync.load<u32>(ring + NetmapRing.hostNeedKick)) return false;
    Count.add(drv + State.kicks, 1);
    Doorbell.ring(load<u32>(drv, State.bell));
    return true;
  }

  /** It is about to sleep (`on`), and wants to be told of slots that come back, or polls again. */
  static arm(drv: usize, on: bool): void {
    if (load<u32>(drv, State.mode) == DriverMode.INTERRUPT) return;
    Sync.store<u32>(load<u32>(drv, State.ring) + NetmapRing.needKick, u32(on));
  }
}
