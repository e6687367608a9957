/**
 * Rings of packet descriptors (layout: `Ring`). Free-running u32 indices on lines of their own; each side
 * keeps a copy of the other's index and looks again only when that says full or empty.
 * `burst` moves what it can, `bulk` all or nothing; one index store for either.
 *
 * SPSC: one producer, one consumer. MPMC: any number of both, by DPDK's rte_ring algorithm (rte_ring,
 * "Multiple Producers Enqueue"): reserve with a compare-and-swap of `head`, write, then publish in order.
 */
import { Packet, PacketFlag, Ring, RingKind } from "./layout";
import { Desc } from "./packet";
import { Sync } from "./sync";

/** Looks at another's index, of about a nanosecond each. */
const PATIENCE: u32 = 1_000_000_000;

export class Rings {
  /** Descriptors in the ring, as far as both sides have published. */
  static count(ring: usize): u32 {
    const mpmc = load<u32>(ring, Ring.kind) == RingKind.MPMC;
    const head = Sync.load<u32>(ring + (mpmc ? Ring.headDone : Ring.head));
    return head - Sync.load<u32>(ring + (mpmc ? Ring.tailDone : Ring.tail));
  }

  /** Up to `n` descriptors into the ring; returns how many. */
  @inline static enqueueBurst(ring: usize, from: usize, n: u32): u32 {
    return Rings.enqueue(ring, from, n, false);
  }
  /** The frames in front that fit, none of them in part; returns their descriptors. The caller is the only producer. */
  static enqueueFrames(ring: usize, from: usize, n: u32): u32 {
    if (Rings.enqueueBulk(ring, from, n)) return n;
    const room = load<u32>(ring, Ring.mask) + 1 - Rings.count(ring);
    return Rings.enqueueBulk(ring, from, Desc.whole(from, n, room));
  }
  /** All `n` descriptors or none. */
  @inline static enqueueBulk(ring: usize, from: usize, n: u32): u32 {
    return Rings.enqueue(ring, from, n, true);
  }
  /** Up to `n` descriptors out of the ring; returns how many. */
  @inline static dequeueBurst(ring: usize, to: usize, n: u32): u32 {
    return Rings.dequeue(ring, to, n, false);
  }
  /** Up to `max` frames, whole ones only, in up to `room` descriptors; returns these. The caller is the only consumer. */
  static dequeueFrames(ring: usize, to: usize, max: u32, room: u32): u32 {
    const tail = load<u32>(ring, Ring.tail);
    const have = min(Sync.load<u32>(ring + Ring.head) - tail, room);
    let n: u32 = 0;
    for (let i: u32 = 0; i < have && max; i++) {
      const p = ring + Ring.slots + ((tail + i) & load<u32>(ring, Ring.mask)) * Packet.SIZE;
      if (load<u16>(p, Packet.flags) & PacketFlag.MORE) continue;
      n = i + 1;
      max--;
    }
    return Rings.dequeueBurst(ring, to, n);
  }
  /** All `n` descriptors or none. */
  @inline static dequeueBulk(ring: usize, to: usize, n: u32): u32 {
    return Rings.dequeue(ring, to, n, true);
  }

  /**
   * Where the only producer may write the next `n` descriptors itself, one behind the other; then it calls `publish`. 0 where
   * they don't fit, or not in one piece.
   */
  static reserve(ring: usize, n: u32): usize {
    if (load<u32>(ring, Ring.kind) == RingKind.MPMC) return 0;
    const mask = load<u32>(ring, Ring.mask);
    const head = load<u32>(ring, Ring.head);
    const at = head & mask;
    if (mask + 1 - at < n) return 0;
    if (mask + 1 - (head - load<u32>(ring, Ring.tailCache)) < n) {
      const tail = Sync.load<u32>(ring + Ring.tail);
      store<u32>(ring, tail, Ring.tailCache);
      if (mask + 1 - (head - tail) < n) return 0;
    }
    return ring + Ring.slots + at * Packet.SIZE;
  }
  /** `n` descriptors that were written where `reserve` said. */
  @inline static publish(ring: usize, n: u32): void {
    Sync.store<u32>(ring + Ring.head, load<u32>(ring, Ring.head) + n);
  }

  static enqueue(ring: usize, from: usize, n: u32, all: bool): u32 {
    const mask = load<u32>(ring, Ring.mask);
    if (load<u32>(ring, Ring.kind) == RingKind.MPMC) return Rings.enqueueShared(ring, from, n, all);
    const head = load<u32>(ring, Ring.head);
    let room = mask + 1 - (head - load<u32>(ring, Ring.tailCache));
    if (room < n) {
      const tail = Sync.load<u32>(ring + Ring.tail);
      store<u32>(ring, tail, Ring.tailCache);
      room = mask + 1 - (head - tail);
      if (room < n) {
        if (all || !room) return 0;
        n = room;
      }
    }
    Rings.put(ring, head, mask, from, n);
    Sync.store<u32>(ring + Ring.head, head + n);
    return n;
  }

  static dequeue(ring: usize, to: usize, n: u32, all: bool): u32 {
    const mask = load<u32>(ring, Ring.mask);
    if (load<u32>(ring, Ring.kind) == RingKind.MPMC) return Rings.dequeueShared(ring, to, n, all);
    const tail = load<u32>(ring, Ring.tail);
    let have = load<u32>(ring, Ring.headCache) - tail;
    if (have < n) {
      const head = Sync.load<u32>(ring + Ring.head);
      store<u32>(ring, head, Ring.headCache);
      have = head - tail;
      if (have < n) {
        if (all || !have) return 0;
        n = have;
      }
    }
    Rings.get(ring, tail, mask, to, n);
    Sync.store<u32>(ring + Ring.tail, tail + n);
    return n;
  }

  static enqueueShared(ring: usize, from: usize, n: u32, all: bool): u32 {
    const mask = load<u32>(ring, Ring.mask);
    let head: u32;
    let take: u32;
    do {
      head = Sync.load<u32>(ring + Ring.head);
      const room = mask + 1 - (head - Sync.load<u32>(ring + Ring.tailDone));
      take = n;
      if (room < n) {
        if (all || !room) return 0;
        take = room;
      }
    } while (Sync.cas(ring + Ring.head, head, head + take) != head);
    Rings.put(ring, head, mask, from, take);
    Rings.awaitTurn(ring + Ring.headDone, head);
    Sync.store<u32>(ring + Ring.headDone, head + take);
    return take;
  }

  static dequeueShared(ring: usize, to: usize, n: u32, all: bool): u32 {
    const mask = load<u32>(ring, Ring.mask);
    let tail: u32;
    let take: u32;
    do {
      tail = Sync.load<u32>(ring + Ring.tail);
      const have = Sync.load<u32>(ring + Ring.headDone) - tail;
      take = n;
      if (have < n) {
        if (all || !have) return 0;
        take = have;
      }
    } while (Sync.cas(ring + Ring.tail, tail, tail + take) != tail);
    Rings.get(ring, tail, mask, to, take);
    Rings.awaitTurn(ring + Ring.tailDone, tail);
    Sync.store<u32>(ring + Ring.tailDone, tail + take);
    return take;
  }

  /**
   * Until those who reserved before us have published: a few copies, unless their thread isn't running just now. One that
   * has died never does; whoever waits for it for about a second traps, lest it hang for ever.
   */
  static awaitTurn(done: usize, turn: u32): void {
    if (!ASC_FEATURE_THREADS) return;
    for (let looks: u32 = 0; Sync.load<u32>(done) != turn; looks++) if (looks == PATIENCE) unreachable();
  }

  static put(ring: usize, at: u32, mask: u32, from: usize, n: u32): void {
    const i = at & mask;
    const straight = min(n, mask + 1 - i);
    Desc.copy(ring + Ring.slots + i * Packet.SIZE, from, straight);
    if (straight < n) Desc.copy(ring + Ring.slots, from + straight * Packet.SIZE, n - straight);
  }

  static get(ring: usize, at: u32, mask: u32, to: usize, n: u32): void {
    const i = at & mask;
    const straight = min(n, mask + 1 - i);
    Desc.copy(to, ring + Ring.slots + i * Packet.SIZE, straight);
    if (straight < n) Desc.copy(to + straight * Packet.SIZE, ring + Ring.slots, n - straight);
  }
}
