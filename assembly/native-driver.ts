/**
 * A guest's poll-mode driver of a card's own rings (layout: `Driver`, `FunctionRing`): what it has for a VF, or for a whole
 * port. Descriptors are the card's, with guest addresses; `shadow` has each as the guest knows it, as "sw_ring" of DPDK's
 * drivers does, so that of what stands in shared memory only DONE, MORE and a length are looked at.
 *
 * Of a burst of received descriptors the first one's DONE is written last; sent ones are marked in order (assembly/nic.ts).
 */
import { Doorbell } from "./doorbell";
import { Driver, FUNCTION_SEGMENTS, FunctionRing, Packet, PacketFlag, TxQueue } from "./layout";
import { Desc } from "./packet";
import { Sync } from "./sync";

/** Sent descriptors that are taken back at a time: a quarter of a small ring, or as the RS threshold of Intel's cards. */
const TX_FREE: u32 = 32;

@final
@unmanaged
export class NativeDriver {
  header(): u32 {
    return 0;
  }

  @inline room(drv: usize): u32 {
    return load<u32>(drv, Driver.freeCount);
  }

  /** Queues what is at `from`: whole frames, as many as there are free descriptors for. Returns the segments. */
  post(drv: usize, from: usize, n: u32, _writable: bool): u32 {
    const ring: usize = load<u32>(drv, Driver.desc);
    const mask = load<u32>(drv, Driver.size) - 1;
    const free = load<u32>(drv, Driver.freeCount);
    const shadow = <usize>load<u32>(drv, Driver.shadow) - ring;
    const base = i32x4.replace_lane(i32x4.splat(0), 0, load<u32>(drv, Driver.base));
    n = Desc.whole(from, n, free);
    let avail = load<u32>(drv, Driver.avail);
    store<u32>(drv, free - n, Driver.freeCount);
    store<u32>(drv, avail + n, Driver.avail);
    for (let left = n; left; ) {
      const slot = avail & mask;
      const straight = min(left, mask + 1 - slot);
      let p = ring + slot * Packet.SIZE;
      for (const end = p + straight * Packet.SIZE; p != end; p += Packet.SIZE) {
        const d = v128.load(from);
        v128.store(p + shadow, d);
        v128.store(p, i32x4.sub(d, base));
        from += Packet.SIZE;
      }
      avail += straight;
      left -= straight;
    }
    return n;
  }

  /** Writes the tail register. The card is told of it by that: nobody is notified, unless the card's own thread sleeps. */
  publish(drv: usize): bool {
    const avail = load<u32>(drv, Driver.avail);
    if (avail == load<u32>(drv, Driver.published)) return false;
    Sync.store<u32>(load<u32>(drv, Driver.device) + FunctionRing.tail, avail);
    store<u32>(drv, avail, Driver.published);
    const card: usize = load<u32>(drv, Driver.card);
    if (card) Doorbell.ringIfArmed(card + TxQueue.armed, card + TxQueue.bell);
    return false;
  }

  /** Up to `max` received frames, whole ones only, or sent segments. */
  used(drv: usize, to: usize, max: u32): u32 {
    const out = load<u32>(drv, Driver.size) - load<u32>(drv, Driver.freeCount);
    const n = load<u32>(drv, Driver.ignored)
      ? NativeDriver.sent(drv, to, min(max, out))
      : NativeDriver.received(drv, to, max, out);
    store<u32>(drv, load<u32>(drv, Driver.freeCount) + n, Driver.freeCount);
    store<u32>(drv, load<u32>(drv, Driver.lastUsed) + n, Driver.lastUsed);
    return n;
  }

  /** Of the `out` descriptors that the card has. */
  @inline static received(drv: usize, to: usize, max: u32, out: u32): u32 {
    const ring: usize = load<u32>(drv, Driver.desc);
    const mask = load<u32>(drv, Driver.size) - 1;
    const shadow = <usize>load<u32>(drv, Driver.shadow) - ring;
    const next = load<u32>(drv, Driver.lastUsed);
    // Frames of one segment, up to the ring's end.
    const slot = next & mask;
    let p = ring + slot * Packet.SIZE;
    const first = p;
    for (const end = p + min(min(out, max), mask + 1 - slot) * Packet.SIZE; p != end; p += Packet.SIZE) {
      const word = Sync.load<u32>(p + Packet.len);
      if (word >> 16 != PacketFlag.DONE) break;
      const d = v128.load(p + shadow);
      v128.store(to, i16x8.replace_lane(d, 2, <i16>min(word & 0xffff, Desc.len(d))));
      to += Packet.SIZE;
    }
    let n = <u32>(p - first) / Packet.SIZE;
    // Of any number.
    for (let frames = n; frames < max; frames++) {
      const segments = NativeDriver.segments(ring, mask, next + n, out - n);
      if (!segments) break;
      for (let i: u32 = 0; i < segments; i++) {
        p = ring + ((next + n + i) & mask) * Packet.SIZE;
        const d = i16x8.replace_lane(v128.load(p + shadow), 3, i16(i + 1 < segments));
        v128.store(to, i16x8.replace_lane(d, 2, <i16>min(<u32>load<u16>(p, Packet.len), Desc.len(d))));
        to += Packet.SIZE;
      }
      n += segments;
    }
    return n;
  }

  /** Segments of the frame that begins at descriptor `at`, of which there are `out`; 0 if it isn't there as a whole. */
  static segments(ring: usize, mask: u32, at: u32, out: u32): u32 {
    let n: u32 = 0;
    while (n < out) {
      const flags = Sync.load<u16>(ring + ((at + n) & mask) * Packet.SIZE + Packet.flags);
      if (!(flags & PacketFlag.DONE)) return 0;
      n++;
      if (!(flags & PacketFlag.MORE) || n == FUNCTION_SEGMENTS) return n;
    }
    return 0;
  }

  /** At most `most`: a batch at a time, whose last descriptor tells of all; one by one where there is no whole batch. */
  @inline static sent(drv: usize, to: usize, most: u32): u32 {
    const ring: usize = load<u32>(drv, Driver.desc);
    const size = load<u32>(drv, Driver.size);
    const clean = load<u32>(drv, Driver.lastUsed);
    const batch = min(TX_FREE, (size + 3) / 4);
    let n: u32 = 0;
    while (n + batch <= most && NativeDriver.isDone(ring, size - 1, clean + n + batch - 1)) n += batch;
    if (!n) while (n < most && NativeDriver.isDone(ring, size - 1, clean + n)) n++;
    const shadow: usize = load<u32>(drv, Driver.shadow);
    const slot = clean & (size - 1);
    const straight = min(n, size - slot);
    Desc.copy(to, shadow + slot * Packet.SIZE, straight);
    if (straight < n) Desc.copy(to + straight * Packet.SIZE, shadow, n - straight);
    return n;
  }

  @inline static isDone(ring: usize, mask: u32, at: u32): bool {
    return (Sync.load<u16>(ring + (at & mask) * Packet.SIZE + Packet.flags) & PacketFlag.DONE) != 0;
  }

  /** The driver is about to sleep (`on`), and wants an interrupt; or it polls again. */
  static arm(drv: usize, on: bool): void {
    Sync.store<u32>(load<u32>(drv, Driver.device) + FunctionRing.armed, u32(on));
  }
}
