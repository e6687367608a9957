/**
 * IOVTee: a NIC receive queue mapped to a guest's virtqueue (layout: `Mapping`), after Kawashima, "Software
 * Physical/Virtual Rx Queue Mapping Toward High-Performance Containerized Networking", IEEE TNSM 18(1), 2021.
 *
 *     avail ring --fill--> PRing --refill--> NIC descriptor --DMA--> in flight --hit--> used ring
 *                            ^------------------ miss (wiped) -----------'
 *
 * A split ring's buffers go straight from the avail ring to the NIC, but for what was missed or stands in the way.
 * The NIC writes into the guest's memory; the host touches no byte of a frame that goes to the mapped guest.
 * Everything but the card's own part runs on one lcore, so the PRing needs no atomics.
 */
import { Count } from "./count";
import {
  Mapping,
  NetHeader,
  OnEmpty,
  Packet,
  PacketFlag,
  QUEUE_MAX,
  RxQueue,
  SplitUsed,
  Virtqueue,
} from "./layout";
import { Mempool } from "./mempool";
import { Pmd } from "./nic";
import { Desc, OWNER_AND_MARK } from "./packet";
import { Sync } from "./sync";
import { AnyDevice } from "./virtqueue/any-device";
import { Device } from "./virtqueue/device";
import { SplitDevice } from "./virtqueue/split-device";

/**
 * Of the buffers that the guest has posted, one in so many is kept from the card, for frames that don't come through the
 * mapped queue: broadcasts, other guests' frames. Without it the card would hold all, and those would find none.
 */
const RESERVE: u32 = 8;

export class Mappings {
  @inline static slot(m: usize, i: u32): usize {
    return m + Mapping.pring + (i & load<u32>(m, Mapping.mask)) * Packet.SIZE;
  }
  /** Where the segments of a buffer are put that is looked at: behind the PRing. */
  @inline static spare(m: usize): usize {
    return m + Mapping.pring + (load<u32>(m, Mapping.mask) + 1) * Packet.SIZE;
  }

  /**
   * Takes buffers from the avail ring to the PRing (R2), in order. If more are needed (`all`), what isn't a plain
   * descriptor is looked at too: a bad buffer is refused (R8). Returns whether there is one that the card can't be
   * given: the copying path takes any.
   */
  static fill(m: usize, all: bool): bool {
    const vq: usize = load<u32>(m, Mapping.virtqueue);
    if (!Device.isUsable(vq)) return false;
    const device = changetype<AnyDevice>(0);
    const mask = load<u32>(m, Mapping.mask);
    let tail = load<u32>(m, Mapping.tail);
    let room = mask + 1 - (tail - load<u32>(m, Mapping.head));
    let blocked = false;
    let patience = mask + 1; // as Vhost.rx
    while (room && !load<u32>(vq, Virtqueue.broken)) {
      const run = min(room, mask + 1 - (tail & mask));
      const to = Mappings.slot(m, tail);
      const n = device.take(vq, to, run);
      tail += n;
      room -= n;
      if (n == run) continue;
      if (!all) break;
      const one = Mappings.spare(m);
      const segments = device.takeChain(vq, one, true);
      if (!segments) break;
      if (segments < 0) {
        if (!--patience) break;
        continue;
      }
      if (segments == 1 && load<u16>(one, Packet.len) >= <u16>load<u32>(vq, Virtqueue.least)) {
        store<u16>(one, load<u16>(m, Mapping.id), Packet.owner);
        v128.store(Mappings.slot(m, tail++), v128.load(one));
        room--;
        continue;
      }
      device.untake(vq, one, 1);
      blocked = true;
      break;
    }
    if (tail != load<u32>(m, Mapping.tail)) store<u32>(m, 0, Mapping.blocked);
    if (blocked && !load<u32>(m, Mapping.blocked)) {
      Count.add(m + Mapping.unmappable, 1);
      store<u32>(m, 1, Mapping.blocked);
    }
    store<u32>(m, tail, Mapping.tail);
    return blocked;
  }

  /**
   * Gives the card the guest's buffers (R2), the oldest first, but for the reserve. With few descriptors left, host
   * buffers keep the queue going if `onEmpty` is "host" (R3); not sooner, since each of them costs a copy, and not more
   * than the reserve, which they are copied into: else a guest that was slow for a moment would lose frames. So they do
   * when a buffer stands in the way that only the copying path takes: else it would never get a frame.
   */
  static refill(m: usize, lcore: u32): void {
    const q: usize = load<u32>(m, Mapping.queue);
    const vq: usize = load<u32>(m, Mapping.virtqueue);
    const low = (load<u32>(q, RxQueue.mask) + 1) / RESERVE;
    // The reserve is what the guest posted last. How many are available a packed ring doesn't tell: all go through
    // the PRing, and stay there; of a split ring only those that were missed do.
    let available: u32 = 0;
    if (Device.isPacked(vq)) Mappings.fill(m, false);
    else if (Device.isUsable(vq)) available = SplitDevice.available(vq, QUEUE_MAX);
    const reserve = (load<u32>(vq, Virtqueue.taken) + available) / RESERVE;
    Mappings.post(m, q, available < reserve ? reserve - available : 0);
    if (available > reserve) Mappings.postStraight(vq, q, available - reserve);
    if (Pmd.posted(q) >= low) return;
    const blocked = Mappings.fill(m, true);
    Mappings.post(m, q, load<u32>(vq, Virtqueue.taken) / RESERVE);
    if (blocked || load<u32>(m, Mapping.onEmpty) == OnEmpty.HOST) {
      Count.add(m + Mapping.hostBuffers, Pmd.refill(q, lcore, low));
    }
  }

  /** Posts what the PRing has, but for `kept`. */
  static post(m: usize, q: usize, kept: u32): void {
    const mask = load<u32>(m, Mapping.mask);
    let head = load<u32>(m, Mapping.head);
    const held = load<u32>(m, Mapping.tail) - head;
    let n = held > kept ? min(held - kept, Pmd.rxRoom(q)) : 0;
    while (n) {
      const run = min(n, mask + 1 - (head & mask));
      Pmd.post(q, Mappings.slot(m, head), run);
      head += run;
      n -= run;
    }
    store<u32>(m, head, Mapping.head);
  }

  /** Up to `n` plain buffers from the avail ring into the card's. */
  static postStraight(vq: usize, q: usize, n: u32): void {
    const mask = load<u32>(q, RxQueue.mask);
    let posted = load<u32>(q, RxQueue.posted);
    n = min(n, Pmd.rxRoom(q));
    while (n) {
      const slot = posted & mask;
      const run = min(n, mask + 1 - slot);
      const got = changetype<SplitDevice>(0).take(vq, load<u32>(q, RxQueue.ring) + slot * Packet.SIZE, run);
      posted += got;
      n -= run;
      if (got < run) break;
    }
    Pmd.announce(q, posted);
  }

  /** Buffers for the copying path: those taken from the guest first are used first. */
  static take(m: usize, to: usize, max: u32): u32 {
    const head = load<u32>(m, Mapping.head);
    const n = min(load<u32>(m, Mapping.tail) - head, max);
    for (let i: u32 = 0; i < n; i++) {
      v128.store(to + i * Packet.SIZE, v128.load(Mappings.slot(m, head + i)));
    }
    store<u32>(m, head + n, Mapping.head);
    return n;
  }

  @inline static untake(m: usize, n: u32): void {
    store<u32>(m, load<u32>(m, Mapping.head) - n, Mapping.head);
  }

  /**
   * Hits (R4) in one pass, from the card's descriptors to a split queue's used ring: up to `max` frames, as long as each is
   * whole and of this `kind` (owner and mark of its descriptor), and neither ring ends. They are to be published.
   * Returns the frames << 32 | their bytes.
   */
  static pass(q: usize, vq: usize, kind: u64, max: u32): u64 {
    const next = load<u32>(q, RxQueue.next);
    const mask = load<u32>(q, RxQueue.mask);
    const used = load<u32>(vq, Virtqueue.used);
    const usedMask = load<u32>(vq, Virtqueue.size) - 1;
    let element: usize =
      load<u32>(vq, Virtqueue.device) + SplitUsed.ring + (used & usedMask) * SplitUsed.ELEMENT;
    let p: usize = load<u32>(q, RxQueue.ring) + (next & mask) * Packet.SIZE;
    const first = p;
    let bytes: u32 = 0;
    for (const end = p + Mappings.straight(q, vq, max) * Packet.SIZE; p != end; p += Packet.SIZE) {
      const word = Sync.load<u32>(p + Packet.len);
      if (word >> 16 != PacketFlag.DONE) break;
      if ((load<u64>(p, Packet.owner) & OWNER_AND_MARK) != kind) break;
      const len = word & 0xffff;
      // Written without a look: to read what the guest's core wrote last takes longer.
      const header: usize = load<u32>(p) - NetHeader.SIZE;
      store<u64>(header, 0);
      store<u32>(header, 1 << 16, 8);
      store<u64>(element, <u64>load<u16>(p, Packet.index) | ((<u64>(len + NetHeader.SIZE)) << 32));
      element += SplitUsed.ELEMENT;
      bytes += len;
    }
    const n = <u32>(p - first) / Packet.SIZE;
    store<u32>(q, next + n, RxQueue.next);
    store<u32>(vq, used + n, Virtqueue.used);
    store<u32>(vq, load<u32>(vq, Virtqueue.taken) - n, Virtqueue.taken);
    return ((<u64>n) << 32) | bytes;
  }

  /** Up to `max` posted descriptors before the end of either ring. */
  @inline static straight(q: usize, vq: usize, max: u32): u32 {
    const mask = load<u32>(q, RxQueue.mask);
    const usedMask = load<u32>(vq, Virtqueue.size) - 1;
    return min(
      min(Pmd.posted(q), max),
      min(
        mask + 1 - (load<u32>(q, RxQueue.next) & mask),
        usedMask + 1 - (load<u32>(vq, Virtqueue.used) & usedMask),
      ),
    );
  }

  @inline static countHits(m: usize, n: u32): void {
    Count.add(m + Mapping.hits, n);
  }

  /**
   * Miss (R5): `n` segments that went elsewhere. What the card wrote is wiped, then the buffers are empty again.
   */
  static giveBack(m: usize, from: usize, n: u32): void {
    let first = true;
    let tail = load<u32>(m, Mapping.tail);
    for (let i: u32 = 0; i < n; i++) {
      const p = from + i * Packet.SIZE;
      const len = load<u16>(p, Packet.len);
      if (first) Count.add(m + Mapping.misses, 1);
      if (load<u32>(m, Mapping.scrub)) {
        memory.fill(load<u32>(p, Packet.addr), 0, len);
        Count.add(m + Mapping.scrubbedBytes, len);
      }
      const d = v128.load(p);
      const more = Desc.flags(d);
      // In front of a frame, not of its rest, the card left room for the net header.
      const before: u32 = more & PacketFlag.REST ? 0 : NetHeader.SIZE;
      const empty = Desc.make(
        Desc.addr(d) - before,
        Desc.room(d),
        0,
        Desc.owner(d),
        Desc.index(d),
        Desc.room(d),
        1,
      );
      v128.store(Mappings.slot(m, tail++), empty);
      first = !(more & PacketFlag.MORE);
    }
    store<u32>(m, tail, Mapping.tail);
  }

  /**
   * Second half of unmapping (R7), when the card has answered that no DMA is under way and what it had received
   * has been taken: posted descriptors come back, guest buffers to the front of the PRing, others to their pool.
   */
  static reclaim(m: usize, lcore: u32): void {
    const q: usize = load<u32>(m, Mapping.queue);
    const ring: usize = load<u32>(q, RxQueue.ring);
    const mask = load<u32>(q, RxQueue.mask);
    const id = load<u32>(m, Mapping.id);
    const next = load<u32>(q, RxQueue.next);
    let head = load<u32>(m, Mapping.head);
    for (let at = load<u32>(q, RxQueue.posted); at != next; ) {
      const p = ring + (--at & mask) * Packet.SIZE;
      if (load<u16>(p, Packet.owner) == id) v128.store(Mappings.slot(m, --head), v128.load(p));
      else Mempool.give(load<u32>(q, RxQueue.pool), lcore, p, 1);
    }
    store<u32>(m, head, Mapping.head);
    store<u32>(q, next, RxQueue.posted);
    store<u32>(q, next, RxQueue.head);
    store<u32>(q, next, RxQueue.tailCache);
    store<u32>(q, next, RxQueue.tail);
  }

  /** The driver has reset the queue: its buffers are the guest's again. */
  static forget(m: usize): void {
    store<u32>(m, load<u32>(m, Mapping.tail), Mapping.head);
  }
}
