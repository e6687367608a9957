/**
 * IOVTee: a NIC receive queue mapped to a guest's virtqueue (layout: `Mapping`), after Kawashima, "Software
 * Physical/Virtual Rx Queue Mapping Toward High-Performance Containerized Networking", IEEE TNSM 18(1), 2021.
 *
 *     avail ring --fill--> PRing --refill--> NIC descriptor --DMA--> in flight --hit--> used ring
 *                            ^------------------ miss (wiped) -----------'
 *
 * The NIC writes into the guest's memory; the host touches no byte of a frame that goes to the mapped guest.
 * Everything but the card's own part runs on one lcore, so the PRing needs no atomics.
 */
import { Count } from "./count";
import { Feature, Mapping, NetHeader, OnEmpty, Packet, PacketFlag, RxQueue, Virtqueue } from "./layout";
import { Mempool } from "./mempool";
import { Pmd } from "./nic";
import { Desc } from "./packet";
import { PackedDevice } from "./virtqueue/packed-device";
import { SplitDevice } from "./virtqueue/split-device";

/** Smallest buffer that is mapped: the net header and a minimal frame. */
const SMALLEST: u32 = NetHeader.SIZE + 60;

/**
 * One buffer in so many stays in the PRing, for frames that don't come through the mapped queue: broadcasts, other
 * guests' frames. Without it the card would hold all buffers, and those frames would find none.
 */
const RESERVE: u32 = 8;

export class Mappings {
  @inline static count(m: usize): u32 {
    return load<u32>(m, Mapping.tail) - load<u32>(m, Mapping.head);
  }
  @inline static slot(m: usize, i: u32): usize {
    return m + Mapping.pring + (i & load<u32>(m, Mapping.mask)) * Packet.SIZE;
  }
  /** The buffer `id` as it was posted: behind the PRing, found by its id. */
  @inline static posted(m: usize, id: u32): usize {
    return m + Mapping.pring + (load<u32>(m, Mapping.mask) + 1 + id) * Packet.SIZE;
  }

  /**
   * Takes buffers from the avail ring to `to` (R2), at most `max`: those that the card can be given. Another is left
   * to the copying path, which takes any. Returns how many.
   */
  static fill(m: usize, to: usize, max: u32): u32 {
    const vq: usize = load<u32>(m, Mapping.virtqueue);
    if (!max || !load<u32>(vq, Virtqueue.ready) || load<u32>(vq, Virtqueue.broken)) return 0;
    return load<u32>(vq, Virtqueue.features) & Feature.PACKED
      ? Mappings.fillFrom<PackedDevice>(m, vq, to, max)
      : Mappings.fillFrom<SplitDevice>(m, vq, to, max);
  }

  @inline static fillFrom<D extends SplitDevice>(m: usize, vq: usize, to: usize, max: u32): u32 {
    const device = changetype<D>(0);
    const n = device.take(vq, to, max);
    const good = Mappings.remember(m, to, n, load<u32>(m, Mapping.mask));
    if (good < n) {
      device.untake(vq, to + good * Packet.SIZE, n - good);
      Count.add(m + Mapping.unmappable, 1);
    }
    return good;
  }

  /** Remembers each of these `n` buffers as it is. Stops before one that is too small. */
  @inline static remember(m: usize, p: usize, n: u32, mask: u32): u32 {
    const posted = Mappings.posted(m, 0);
    let i: u32 = 0;
    for (; i < n; i++) {
      const d = v128.load(p);
      const index = Desc.index(d);
      if (Desc.len(d) < SMALLEST || index > mask) break;
      v128.store(posted + index * Packet.SIZE, d);
      p += Packet.SIZE;
    }
    return i;
  }

  /**
   * Gives the card the guest's buffers (R2): the PRing is kept at its reserve, what is above goes to the card, then
   * what the guest has posted since goes there straight. With few descriptors left, host buffers keep the
   * queue going if `onEmpty` is "host" (R3); not sooner, since each of them costs a copy.
   */
  static refill(m: usize, lcore: u32): void {
    const q: usize = load<u32>(m, Mapping.queue);
    const slots = load<u32>(q, RxQueue.mask) + 1;
    const mask = load<u32>(m, Mapping.mask);
    const kept = (mask + 1) / RESERVE;
    let head = load<u32>(m, Mapping.head);
    let tail = load<u32>(m, Mapping.tail);
    while (tail - head < kept) {
      const run = min(kept - (tail - head), mask + 1 - (tail & mask));
      const n = Mappings.fill(m, Mappings.slot(m, tail), run);
      tail += n;
      if (n < run) break;
    }
    store<u32>(m, tail, Mapping.tail);
    let room = slots - Pmd.posted(q);
    while (room && tail - head > kept) {
      const run = min(min(tail - head - kept, room), mask + 1 - (head & mask));
      Pmd.post(q, Mappings.slot(m, head), run);
      head += run;
      room -= run;
    }
    store<u32>(m, head, Mapping.head);
    if (tail - head == kept) Mappings.post(m, q, room);
    const low = slots / 4;
    if (load<u32>(m, Mapping.onEmpty) == OnEmpty.HOST && Pmd.posted(q) < low) {
      Count.add(m + Mapping.hostBuffers, Pmd.refill(q, lcore, low));
    }
  }

  /** Up to `room` of the guest's buffers straight into the card's ring. */
  @inline static post(m: usize, q: usize, room: u32): void {
    const ring: usize = load<u32>(q, RxQueue.ring);
    const mask = load<u32>(q, RxQueue.mask);
    let posted = load<u32>(q, RxQueue.posted);
    while (room) {
      const slot = posted & mask;
      const run = min(room, mask + 1 - slot);
      const n = Mappings.fill(m, ring + slot * Packet.SIZE, run);
      posted += n;
      room -= n;
      if (n < run) break;
    }
    Pmd.announce(q, posted);
  }

  /** Buffers for the copying path: those taken from the guest first are used first. */
  static take(m: usize, to: usize, max: u32): u32 {
    const head = load<u32>(m, Mapping.head);
    const n = min(load<u32>(m, Mapping.tail) - head, max);
    for (let i: u32 = 0; i < n; i++) {
      v128.store(to + i * Packet.SIZE, i16x8.replace_lane(v128.load(Mappings.slot(m, head + i)), 7, 1));
    }
    store<u32>(m, head + n, Mapping.head);
    return n;
  }

  @inline static untake(m: usize, n: u32): void {
    store<u32>(m, load<u32>(m, Mapping.head) - n, Mapping.head);
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
      v128.store(Mappings.slot(m, tail++), v128.load(Mappings.posted(m, load<u16>(p, Packet.index))));
      first = !(load<u16>(p, Packet.flags) & PacketFlag.MORE);
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
