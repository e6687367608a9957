/**
 * A netmap pipe (netmap_pipe.c): what one end sends, the other receives in the same buffer. Both ends own buffers of one
 * memory; a sent slot is swapped with an empty one of the receive ring, so that each buffer stays in one slot. What it
 * costs doesn't depend on how long frames are.
 *
 *     transmit ring of one end [A B C . .]      receive ring of the other [x y z . .]
 *                              [x y z . .]  <->                           [A B C . .]
 *
 * Only whole frames are published. A ring that is full isn't waited for: what wasn't moved is moved by the next sync.
 */
import {
  Kring,
  NETMAP_FIRST,
  NetmapRing,
  NetmapSlot,
  OWNED_BY_HOST,
  Packet,
  PacketFlag,
  SlotFlag,
} from "../layout";
import { Krings } from "./kring";

export class Pipes {
  /** Moves what has been handed over to transmit ring `t` to receive ring `r`. Returns the slots that it took. */
  static txsync(t: usize, r: usize): u32 {
    if (!load<u32>(t, Kring.running) || !load<u32>(r, Kring.running)) return 0;
    Krings.prologue(t);
    const mask = load<u32>(t, Kring.mask);
    const rmask = load<u32>(r, Kring.mask);
    const slots: usize = load<u32>(t, Kring.ring) + NetmapRing.slots;
    const rslots: usize = load<u32>(r, Kring.ring) + NetmapRing.slots;
    const begin = load<u32>(t, Kring.hwcur);
    let have = Krings.toSend(t);
    let room = Krings.toFill(r);
    let at = begin;
    let to = load<u32>(r, Kring.hwtail);
    while (have && room) {
      const straight = min(min(have, room), min(mask + 1 - at, rmask + 1 - to));
      let p = slots + at * NetmapSlot.SIZE;
      let q = rslots + to * NetmapSlot.SIZE;
      const first = p;
      const end = load<u32>(t, Kring.skipping) ? p : p + straight * NetmapSlot.SIZE;
      for (; p != end; p += NetmapSlot.SIZE, q += NetmapSlot.SIZE) {
        const s = v128.load(p);
        const e = v128.load(q);
        const sent = <u32>i32x4.extract_lane(s, 0) - NETMAP_FIRST;
        const empty = <u32>i32x4.extract_lane(e, 0) - NETMAP_FIRST;
        const word = Krings.plain(i32x4.extract_lane(s, 1));
        const count = load<u32>(t, Kring.count);
        if (u32(sent >= count) | u32(empty >= count) | u32(word - 1 >= load<u32>(t, Kring.room))) break;
        const owners: usize = load<u32>(t, Kring.owners);
        const owner = load<u32>(t, Kring.owner);
        const other = load<u32>(r, Kring.owner);
        if (u32(load<u8>(owners + sent) != owner) | u32(load<u8>(owners + empty) != other)) break;
        store<u8>(owners + sent, <u8>other);
        store<u8>(owners + empty, <u8>owner);
        v128.store(q, Krings.filledSlot(sent, word));
        v128.store(p, Krings.filledSlot(empty, 0));
      }
      const n = <u32>(p - first) / NetmapSlot.SIZE;
      at = (at + n) & mask;
      to = (to + n) & rmask;
      have -= n;
      room -= n;
      if (n == straight) continue;
      const moved = Pipes.moveOne(t, at, have, r, to, room);
      if (!moved) break;
      at = (at + (moved >> 16)) & mask;
      have -= moved >> 16;
      to = (to + (moved & 0xffff)) & rmask;
      room -= moved & 0xffff;
    }
    if (to != load<u32>(r, Kring.hwtail)) Krings.filled(r, to);
    Krings.sent(t, at);
    return (at - begin) & mask;
  }

  /**
   * The frame at slot `at`, whatever it is. Returns the slots that it took << 16 | slots filled: neither if it has to wait,
   * for its end or for room.
   */
  static moveOne(t: usize, at: u32, have: u32, r: usize, to: u32, room: u32): u32 {
    const list = t + Kring.scratch;
    const taken = Krings.take(t, at, have, list);
    const n = taken & 0xffff;
    if (!n) return taken;
    if (n > room) return 0;
    // Until the swap they are nobody's: else one end could name a buffer that the other is just giving away.
    const empty = list + n * Packet.SIZE;
    const reserved = Krings.reserve(r, to, n, empty, OWNED_BY_HOST);
    if (reserved != n) return reserved >> 16;
    if (!Krings.own(t, list, n, OWNED_BY_HOST)) {
      Krings.release(r, empty, n);
      return taken & 0xffff_0000;
    }
    Krings.release(r, list, n);
    Krings.release(t, empty, n);
    for (let i: u32 = 0; i < n; i++) {
      const p = list + i * Packet.SIZE;
      const word = load<u32>(p, Packet.len);
      const more: u32 = (word >> 16) & PacketFlag.MORE ? SlotFlag.MOREFRAG << 16 : 0;
      v128.store(
        Krings.slot(r, to + i),
        Krings.filledSlot(load<u16>(p, Packet.index), (word & 0xffff) | more),
      );
      const back = load<u16>(empty + i * Packet.SIZE, Packet.index);
      v128.store(Krings.slot(t, at + i), Krings.filledSlot(back, 0));
    }
    return taken;
  }
}
