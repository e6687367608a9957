/**
 * vDPDK, the guest's side (layout: `VdpdkDriver`, `VdpdkDesc`): a poll-mode driver of a ring whose descriptors say
 * themselves whose they are.
 *
 * A received frame is taken only where there is a free buffer to take its place, in the same descriptor: so the device
 * never runs out of buffers because the guest is slow to post. Sent buffers are taken back lazily, when half of the ring
 * is full or free buffers run short. `shadow` has each descriptor's buffer as the guest knows it, as "sw_ring" of DPDK's
 * drivers does: of what stands in shared memory only lengths, flags and what is known of a frame are looked at.
 */
import { Count } from "../count";
import { Doorbell } from "../doorbell";
import { Guest, Offload, Packet, PacketFlag, VdpdkDesc, VdpdkDriver, VdpdkFlag } from "../layout";
import { Desc } from "../packet";
import { Sync } from "../sync";

const AVAIL: u32 = (<u32>VdpdkFlag.AVAIL) << 16;
const NEXT: u32 = (<u32>VdpdkFlag.NEXT) << 16;
/** Received: checksums that are wrong. */
const BAD: u32 = PacketFlag.RX_IPV4_BAD | PacketFlag.RX_L4_BAD;
/** Fewer free buffers than this, and sent ones are taken back at once. */
const SCARCE: u32 = 64;

export class VdpdkRing {
  @inline static descriptor(drv: usize, i: u32): usize {
    return load<u32>(drv, VdpdkDriver.ring) + (i & load<u32>(drv, VdpdkDriver.mask)) * VdpdkDesc.SIZE;
  }

  @inline static shadow(drv: usize, i: u32): usize {
    return load<u32>(drv, VdpdkDriver.shadow) + (i & load<u32>(drv, VdpdkDriver.mask)) * Packet.SIZE;
  }

  /** The burst's first descriptor, written but for AVAIL, waits until the others stand. */
  @inline static hold(drv: usize, d: usize): void {
    store<u32>(drv, <u32>d, VdpdkDriver.first);
  }

  /** Shows what was posted to the device, with one store; true if that wants to be told. */
  static publish(drv: usize): bool {
    const first: usize = load<u32>(drv, VdpdkDriver.first);
    if (!first) return false;
    store<u32>(drv, 0, VdpdkDriver.first);
    Sync.store<u32>(first + VdpdkDesc.len, load<u32>(first, VdpdkDesc.len) | AVAIL);
    if (!Sync.load<u32>(load<u32>(drv, VdpdkDriver.wantsSignal))) return false;
    Count.add(drv + VdpdkDriver.kicks, 1);
    Doorbell.ring(load<u32>(drv, VdpdkDriver.bell));
    return true;
  }

  @inline static room(drv: usize): u32 {
    return (
      load<u32>(drv, VdpdkDriver.mask) +
      1 -
      (load<u32>(drv, VdpdkDriver.next) - load<u32>(drv, VdpdkDriver.done))
    );
  }

  static arm(drv: usize, on: bool): void {
    Sync.store<u32>(load<u32>(drv, VdpdkDriver.wantsInterrupt), u32(on));
  }
}

@final
@unmanaged
export class VdpdkPmd {
  @inline header(): u32 {
    return 0;
  }

  /** Received frames, or sent buffers: the driver of the guest's transmit queue takes those back. */
  used(drv: usize, to: usize, max: u32): u32 {
    const g: usize = load<u32>(drv, VdpdkDriver.guest);
    return load<u32>(g, Guest.tx) == <u32>drv
      ? VdpdkPmd.sent(drv, g, to, max)
      : VdpdkPmd.received(drv, g, to, max);
  }

  /** Sent buffers, in the order in which they were posted. */
  static sent(drv: usize, g: usize, to: usize, max: u32): u32 {
    const mask = load<u32>(drv, VdpdkDriver.mask);
    const done = load<u32>(drv, VdpdkDriver.done);
    let left = load<u32>(drv, VdpdkDriver.next) - done;
    if (left <= mask / 2 && load<u32>(g, Guest.freeCount) >= SCARCE) return 0;
    // What isn't shown yet says the same as what was sent.
    const held: usize = load<u32>(drv, VdpdkDriver.first);
    if (held) left = (<u32>(held - load<u32>(drv, VdpdkDriver.ring)) / VdpdkDesc.SIZE - done) & mask;
    const most = min(left, max);
    let n: u32 = 0;
    while (n < most) {
      const slot = (done + n) & mask;
      const straight = min(most - n, mask + 1 - slot);
      const some = VdpdkPmd.free(load<u32>(drv, VdpdkDriver.ring) + slot * VdpdkDesc.SIZE, straight);
      Desc.copy(to + n * Packet.SIZE, load<u32>(drv, VdpdkDriver.shadow) + slot * Packet.SIZE, some);
      n += some;
      if (some < straight) break;
    }
    store<u32>(drv, done + n, VdpdkDriver.done);
    return n;
  }

  /** Of the `n` descriptors at `first`, how many from the front are the guest's. */
  @inline static free(first: usize, n: u32): u32 {
    const end = first + n * VdpdkDesc.SIZE;
    let d = first;
    for (const fours = first + (n & ~3) * VdpdkDesc.SIZE; d != fours; d += 4 * VdpdkDesc.SIZE) {
      const one = Sync.load<u32>(d + VdpdkDesc.len) | Sync.load<u32>(d + VdpdkDesc.SIZE + VdpdkDesc.len);
      const two =
        Sync.load<u32>(d + 2 * VdpdkDesc.SIZE + VdpdkDesc.len) |
        Sync.load<u32>(d + 3 * VdpdkDesc.SIZE + VdpdkDesc.len);
      if ((one | two) & AVAIL) break;
    }
    while (d != end && !(Sync.load<u32>(d + VdpdkDesc.len) & AVAIL)) d += VdpdkDesc.SIZE;
    return <u32>(d - first) / VdpdkDesc.SIZE;
  }

  /** What a descriptor says of the empty or whole frame's buffer at the packet descriptor `p`, but for AVAIL. */
  @inline static words(p: v128, region: v128): v128 {
    return i32x4.sub(v128.shuffle<i32>(p, i32x4.splat(0), 0, 4, 1, 4), region);
  }

  /** Received frames, whole ones; each buffer's place in the ring gets a free one. */
  static received(drv: usize, g: usize, to: usize, max: u32): u32 {
    const mask = load<u32>(drv, VdpdkDriver.mask);
    const base = i32x4.replace_lane(i32x4.splat(0), 0, load<u32>(g, Guest.region));
    const room = <u32>load<u16>(g, Guest.blank + Packet.len);
    const pool: usize = load<u32>(g, Guest.free);
    let free = pool + load<u32>(g, Guest.freeCount) * Packet.SIZE;
    const begin = to;
    const done = load<u32>(drv, VdpdkDriver.done);
    const next = load<u32>(drv, VdpdkDriver.next);
    let n = min(max, load<u32>(g, Guest.freeCount));
    // The first of what isn't shown yet waits.
    const held = load<u32>(drv, VdpdkDriver.first);
    const shown = i32x4.replace_lane(i32x4.splat(0), 2, AVAIL);
    let avail = held ? shown : i32x4.splat(0);
    let at = done;
    while (n && at != next) {
      const slot = at & mask;
      const straight = min(min(n, next - at), mask + 1 - slot);
      let d: usize = load<u32>(drv, VdpdkDriver.ring) + slot * VdpdkDesc.SIZE;
      const shadow = <usize>load<u32>(drv, VdpdkDriver.shadow) + slot * Packet.SIZE - to;
      const stop = to + straight * Packet.SIZE;
      for (; to != stop; to += Packet.SIZE, d += VdpdkDesc.SIZE) {
        const word = Sync.load<u64>(d + VdpdkDesc.len);
        // One segment, with nothing that the device has to say of it, and not one that comes back empty.
        if (word - 1 > 0xfffe) break;
        v128.store(to, i16x8.replace_lane(v128.load(to + shadow), 2, <i16>min(<u32>word, room)));
        free -= Packet.SIZE;
        const fresh = v128.load(free);
        v128.store(to + shadow, fresh);
        v128.store(d, v128.or(VdpdkPmd.words(fresh, base), avail));
        avail = shown;
      }
      const some = straight - <u32>(stop - to) / Packet.SIZE;
      at += some;
      n -= some;
      if (to == stop) continue;
      if (!load<u32>(d, VdpdkDesc.len)) {
        // It comes back empty from a queue that was stopped: posted again.
        store<u32>(d, room | i32x4.extract_lane(avail, 2), VdpdkDesc.len);
        avail = shown;
        at++;
        continue;
      }
      // A frame of several segments, or one of which more is known.
      const segments = VdpdkPmd.receivedMany(drv, g, at, to, min(n, next - at), free);
      if (!segments) break;
      store<u32>(d, room | i32x4.extract_lane(avail, 2), VdpdkDesc.len);
      avail = shown;
      free -= segments * Packet.SIZE;
      to += segments * Packet.SIZE;
      at += segments;
      n -= segments;
    }
    if (at != done) {
      store<u32>(g, <u32>(free - pool) / Packet.SIZE, Guest.freeCount);
      store<u32>(drv, at, VdpdkDriver.done);
      store<u32>(drv, next + at - done, VdpdkDriver.next);
      if (!held) VdpdkRing.hold(drv, VdpdkRing.descriptor(drv, done));
      VdpdkRing.publish(drv);
    }
    return <u32>(to - begin) / Packet.SIZE;
  }

  /**
   * The frame that begins at descriptor `at`, of `most` segments, to `to`; free buffers from the top of the list down to
   * its place. The first descriptor's len and flags are left to the caller. Returns the segments; 0, and nothing done,
   * where it isn't there or isn't whole.
   */
  static receivedMany(drv: usize, g: usize, at: u32, to: usize, most: u32, free: usize): u32 {
    let n: u32 = 0;
    for (let more: u32 = 1; more; n++) {
      if (n == most) return 0;
      const d = VdpdkRing.descriptor(drv, at + n);
      const word = Sync.load<u32>(d + VdpdkDesc.len);
      if (word & AVAIL) return 0;
      more = word & NEXT;
    }
    const room = <u32>load<u16>(g, Guest.blank + Packet.len);
    const region = load<u32>(g, Guest.region);
    for (let i: u32 = 0; i < n; i++) {
      const d = VdpdkRing.descriptor(drv, at + i);
      const word = load<u32>(d, VdpdkDesc.len);
      const shadow = VdpdkRing.shadow(drv, at + i);
      const p = to + i * Packet.SIZE;
      v128.store(p, v128.load(shadow));
      store<u16>(p, <u16>min(word & 0xffff, room), Packet.len);
      if (i + 1 < n) store<u16>(p, PacketFlag.MORE, Packet.flags);
      if (!i) {
        const known = load<u32>(d, VdpdkDesc.offload);
        if (known & BAD) Count.add(drv + VdpdkDriver.badChecksums, 1);
        // A tag that was taken off is put on again where the frame is sent.
        if (known & PacketFlag.RX_VLAN) {
          store<u16>(p, Offload.VLAN, Packet.owner);
          store<u16>(p, load<u16>(d, VdpdkDesc.tci), Packet.mark);
        }
      }
      free -= Packet.SIZE;
      v128.store(shadow, v128.load(free));
      store<u64>(d, load<u32>(free) - region);
      store<u32>(d, 0, VdpdkDesc.offload);
      if (i) store<u32>(d, room | AVAIL, VdpdkDesc.len);
    }
    return n;
  }

  room(drv: usize): u32 {
    return VdpdkRing.room(drv);
  }

  post(drv: usize, from: usize, n: u32, writable: bool): u32 {
    const mask = load<u32>(drv, VdpdkDriver.mask);
    const next = load<u32>(drv, VdpdkDriver.next);
    const region = load<u32>(load<u32>(drv, VdpdkDriver.guest), Guest.region);
    const base = i32x4.replace_lane(i32x4.splat(0), 0, region);
    const asked = writable ? 0 : load<u32>(drv, VdpdkDriver.offloads);
    const shown = i32x4.replace_lane(i32x4.replace_lane(i32x4.splat(0), 2, AVAIL), 3, asked);
    n = Desc.whole(from, n, VdpdkRing.room(drv));
    if (!n) return 0;
    for (let at = next; at != next + n; ) {
      // The first of what isn't shown yet waits; and of the others those that aren't alike go one by one.
      if (!load<u32>(drv, VdpdkDriver.first) || load<u32>(from, Packet.flags)) {
        VdpdkPmd.postOne(drv, at++, from, region, asked);
        from += Packet.SIZE;
        continue;
      }
      const slot = at & mask;
      const shadow = <usize>load<u32>(drv, VdpdkDriver.shadow) + slot * Packet.SIZE - from;
      let d: usize = load<u32>(drv, VdpdkDriver.ring) + slot * VdpdkDesc.SIZE;
      const begin = from;
      const stop = from + min(next + n - at, mask + 1 - slot) * Packet.SIZE;
      for (; from != stop; from += Packet.SIZE, d += VdpdkDesc.SIZE) {
        if (load<u32>(from, Packet.flags)) break;
        const p = v128.load(from);
        v128.store(from + shadow, p);
        v128.store(d, v128.or(VdpdkPmd.words(p, base), shown));
      }
      at += <u32>(from - begin) / Packet.SIZE;
    }
    store<u32>(drv, next + n, VdpdkDriver.next);
    return n;
  }

  /** Any one segment, to descriptor `at`: with a tag that is put on (`owner`, `mark`), or continued in the next one. */
  static postOne(drv: usize, at: u32, from: usize, region: u32, asked: u32): void {
    const d = VdpdkRing.descriptor(drv, at);
    v128.store(VdpdkRing.shadow(drv, at), v128.load(from));
    store<u64>(d, load<u32>(from) - region);
    store<u32>(d, asked | load<u16>(from, Packet.owner), VdpdkDesc.offload);
    store<u16>(d, load<u16>(from, Packet.mark), VdpdkDesc.tci);
    const next = load<u16>(from, Packet.flags) & PacketFlag.MORE ? NEXT : 0;
    const avail = load<u32>(drv, VdpdkDriver.first) ? AVAIL : 0;
    store<u32>(d, load<u16>(from, Packet.len) | next | avail, VdpdkDesc.len);
    if (!avail) VdpdkRing.hold(drv, d);
  }

  publish(drv: usize): bool {
    return VdpdkRing.publish(drv);
  }
}
