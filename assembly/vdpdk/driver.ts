/**
 * vDPDK, the guest's side (layout: `VdpdkDriver`, `VdpdkDesc`): a poll-mode driver of a ring whose descriptors say
 * themselves whose they are.
 *
 * A received frame is taken only where there is a free buffer to take its place, in the same descriptor: so the device
 * never runs out of buffers because the guest is slow to post. Sent buffers are taken back lazily, when half of the ring
 * is full or free buffers run short.
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
    const left = load<u32>(drv, VdpdkDriver.next) - done;
    if (left <= mask / 2 && load<u32>(g, Guest.freeCount) >= SCARCE) return 0;
    const buffers = load<u32>(g, Guest.bufferCount);
    let n = min(left, max);
    // The first of what isn't shown yet doesn't say that it is the device's.
    const held = load<u32>(drv, VdpdkDriver.first);
    if (held) n = min(n, ((held - load<u32>(drv, VdpdkDriver.ring)) / VdpdkDesc.SIZE - done) & mask);
    const begin = to;
    while (n) {
      const slot = (done + <u32>(to - begin) / Packet.SIZE) & mask;
      const straight = min(n, mask + 1 - slot);
      let d: usize = load<u32>(drv, VdpdkDriver.ring) + slot * VdpdkDesc.SIZE;
      const stop = to + straight * Packet.SIZE;
      for (; to != stop; to += Packet.SIZE, d += VdpdkDesc.SIZE) {
        if (Sync.load<u32>(d + VdpdkDesc.len) & AVAIL) break;
        const index = load<u64>(d, VdpdkDesc.cookie);
        if (index >= buffers) break;
        store<u16>(to, <u16>index, Packet.index);
      }
      if (to != stop) break;
      n -= straight;
    }
    const some = <u32>(to - begin) / Packet.SIZE;
    store<u32>(drv, done + some, VdpdkDriver.done);
    return some;
  }

  /** Received frames, whole ones; each buffer's place in the ring gets a free one. */
  static received(drv: usize, g: usize, to: usize, max: u32): u32 {
    const mask = load<u32>(drv, VdpdkDriver.mask);
    const region = load<u32>(g, Guest.region);
    const size = load<u32>(g, Guest.bufferSize);
    const buffers = load<u32>(g, Guest.bufferCount);
    const blank = v128.load(g, Guest.blank);
    const base = load<u32>(g, Guest.blank);
    const room = <u32>load<u16>(g, Guest.blank + Packet.len);
    const pool: usize = load<u32>(g, Guest.free);
    let free = pool + load<u32>(g, Guest.freeCount) * Packet.SIZE;
    const begin = to;
    const done = load<u32>(drv, VdpdkDriver.done);
    const next = load<u32>(drv, VdpdkDriver.next);
    let n = min(max, load<u32>(g, Guest.freeCount));
    // The first of what isn't shown yet waits.
    const held = load<u32>(drv, VdpdkDriver.first);
    let avail: u32 = held ? AVAIL : 0;
    let at = done;
    while (n && at != next) {
      const slot = at & mask;
      const straight = min(min(n, next - at), mask + 1 - slot);
      let d: usize = load<u32>(drv, VdpdkDriver.ring) + slot * VdpdkDesc.SIZE;
      const stop = to + straight * Packet.SIZE;
      for (; to != stop; to += Packet.SIZE, d += VdpdkDesc.SIZE) {
        const word = Sync.load<u64>(d + VdpdkDesc.len);
        // One segment, with nothing that the device has to say of it, and not one that comes back empty.
        if (word - 1 > 0xfffe) break;
        const index = load<u64>(d, VdpdkDesc.cookie);
        if (index >= buffers) break;
        const got = min(<u32>word, room);
        const filled = i32x4.replace_lane(blank, 0, base + <u32>index * size);
        v128.store(to, i16x8.replace_lane(i16x8.replace_lane(filled, 2, <i16>got), 5, <i16>index));
        free -= Packet.SIZE;
        store<u64>(d, load<u32>(free) - region);
        store<u64>(d, <u64>load<u16>(free, Packet.index), VdpdkDesc.cookie);
        store<u64>(d, load<u16>(free, Packet.len) | avail, VdpdkDesc.len);
        avail = AVAIL;
      }
      const some = straight - <u32>(stop - to) / Packet.SIZE;
      at += some;
      n -= some;
      if (to == stop) continue;
      if (!load<u32>(d, VdpdkDesc.len)) {
        // It comes back empty from a queue that was stopped: posted again.
        store<u32>(d, room | avail, VdpdkDesc.len);
        avail = AVAIL;
        at++;
        continue;
      }
      // A frame of several segments, or one of which more is known.
      const segments = VdpdkPmd.receivedMany(drv, g, at, to, min(n, next - at), free);
      if (!segments) break;
      store<u32>(d, load<u16>(free - Packet.SIZE, Packet.len) | avail, VdpdkDesc.len);
      avail = AVAIL;
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
    const buffers = load<u32>(g, Guest.bufferCount);
    let n: u32 = 0;
    for (let more: u32 = 1; more; n++) {
      if (n == most) return 0;
      const d = VdpdkRing.descriptor(drv, at + n);
      const word = Sync.load<u32>(d + VdpdkDesc.len);
      if (word & AVAIL) return 0;
      if (load<u64>(d, VdpdkDesc.cookie) >= buffers) {
        Count.add(drv + VdpdkDriver.badCookies, 1);
        return 0;
      }
      more = word & NEXT;
    }
    const size = load<u32>(g, Guest.bufferSize);
    const blank = v128.load(g, Guest.blank);
    const base = load<u32>(g, Guest.blank);
    const room = <u32>load<u16>(g, Guest.blank + Packet.len);
    const region = load<u32>(g, Guest.region);
    for (let i: u32 = 0; i < n; i++) {
      const d = VdpdkRing.descriptor(drv, at + i);
      const word = load<u32>(d, VdpdkDesc.len);
      const index = load<u16>(d, VdpdkDesc.cookie);
      const p = to + i * Packet.SIZE;
      v128.store(p, i16x8.replace_lane(i32x4.replace_lane(blank, 0, base + index * size), 5, index));
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
      store<u64>(d, load<u32>(free) - region);
      store<u64>(d, <u64>load<u16>(free, Packet.index), VdpdkDesc.cookie);
      store<u32>(d, 0, VdpdkDesc.offload);
      if (i) store<u32>(d, load<u16>(free, Packet.len) | AVAIL, VdpdkDesc.len);
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
    const asked = writable ? 0 : (<u64>load<u32>(drv, VdpdkDriver.offloads)) << 32;
    n = Desc.whole(from, n, VdpdkRing.room(drv));
    if (!n) return 0;
    // The first of what isn't shown yet waits.
    let avail: u32 = load<u32>(drv, VdpdkDriver.first) ? AVAIL : 0;
    const held = avail;
    const ring: usize = load<u32>(drv, VdpdkDriver.ring);
    let d: usize = ring + (next & mask) * VdpdkDesc.SIZE;
    const first = d;
    for (let left = n; left; ) {
      const straight = min(left, mask + 1 - <u32>(d - ring) / VdpdkDesc.SIZE);
      for (const stop = d + straight * VdpdkDesc.SIZE; d != stop; d += VdpdkDesc.SIZE, from += Packet.SIZE) {
        const low = load<u64>(from);
        const high = load<u64>(from, Packet.owner);
        const owner = high & 0xffff;
        // MORE and NEXT mean the same, two bits apart.
        const word = ((low >> 32) & 0xffff) | avail | ((low >> 30) & NEXT) | asked | (owner << 32);
        store<u64>(d, <u64>(<u32>low - region));
        store<u64>(d, (high >> 16) & 0xffff, VdpdkDesc.cookie);
        if (owner) store<u16>(d, <u16>(high >> 48), VdpdkDesc.tci);
        store<u64>(d, word, VdpdkDesc.len);
        avail = AVAIL;
      }
      left -= straight;
      d = ring;
    }
    if (!held) VdpdkRing.hold(drv, first);
    store<u32>(drv, next + n, VdpdkDriver.next);
    return n;
  }

  publish(drv: usize): bool {
    return VdpdkRing.publish(drv);
  }
}
