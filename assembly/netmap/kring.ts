/**
 * The host's side of a netmap ring (layout: `NetmapRing`, `NetmapSlot`, `Kring`; netmap.c, "netmap_txsync/rxsync
 * prologue", netmap_kloop.c "control block").
 *
 *     prologue   takes note of what the user handed over since, and puts indices right that break the rules
 *     publish    gives slots to the user, with one store, and notifies it if it wants that
 *
 * The user is a guest: whatever it can write is read once, and checked before it is used. Each side asks for a kick only
 * when it is about to sleep, and looks once more after it has asked (test/netmap-doorbell.test.ts).
 */
import { Count } from "../count";
import { Doorbell } from "../doorbell";
import {
  FRAME_MAX,
  Kring,
  NETMAP_FIRST,
  NETMAP_FRAGMENTS,
  NetmapRing,
  NetmapSlot,
  Packet,
  PacketFlag,
  SlotFlag,
  SlotRefusal,
} from "../layout";
import { Sync } from "../sync";

/** Flags with which a slot is still a plain frame in its buffer: who reads it as len | flags << 16. */
const HARMLESS: u32 = (SlotFlag.BUF_CHANGED | SlotFlag.FORWARD) << 16;

export class Krings {
  @inline static slot(k: usize, i: u32): usize {
    return load<u32>(k, Kring.ring) + NetmapRing.slots + (i & load<u32>(k, Kring.mask)) * NetmapSlot.SIZE;
  }

  /** `len` and flags of a slot that holds a whole frame, in its buffer, with nothing else to be said of it. */
  @inline static plain(word: u32): u32 {
    return word & ~HARMLESS;
  }

  @inline static refuse(k: usize, why: u32): void {
    Count.add(k + Kring.refusals + why * 8, 1);
  }

  /**
   * Takes note of the user's indices. hwcur <= rhead <= head <= cur <= hwtail, round the ring: what breaks that is counted,
   * and the user's indices become what they were (netmap.c, "nm_txsync_prologue", "netmap_ring_reinit").
   */
  static prologue(k: usize): void {
    const ring: usize = load<u32>(k, Kring.ring);
    const mask = load<u32>(k, Kring.mask);
    const head = Sync.load<u32>(ring + NetmapRing.head);
    const cur = load<u32>(ring, NetmapRing.cur);
    const rhead = load<u32>(k, Kring.rhead);
    const owned = (load<u32>(k, Kring.hwtail) - rhead) & mask;
    const given = (head - rhead) & mask;
    const seen = (cur - rhead) & mask;
    if ((head | cur) > mask || seen > owned || given > seen) {
      Count.add(k + Kring.reinits, 1);
      store<u32>(ring, rhead, NetmapRing.cur);
      Sync.store<u32>(ring + NetmapRing.head, rhead);
    } else store<u32>(k, head, Kring.rhead);
  }

  /** Slots of a transmit ring that the user has handed over and that weren't taken. */
  @inline static toSend(k: usize): u32 {
    return (load<u32>(k, Kring.rhead) - load<u32>(k, Kring.hwcur)) & load<u32>(k, Kring.mask);
  }

  /** Slots of a receive ring that can be filled: all that the user has given back, and were looked at, but one. */
  static toFill(k: usize): u32 {
    Krings.prologue(k);
    if (!load<u32>(k, Kring.toStack)) store<u32>(k, load<u32>(k, Kring.rhead), Kring.hwcur);
    return (load<u32>(k, Kring.hwcur) - 1 - load<u32>(k, Kring.hwtail)) & load<u32>(k, Kring.mask);
  }

  /** Of a transmit ring the slots before `hwcur` are taken: all of them are the user's again. */
  static sent(k: usize, hwcur: u32): void {
    if (hwcur != load<u32>(k, Kring.hwcur)) Krings.publish(k, hwcur, hwcur - 1);
  }

  /** Of a receive ring the slots before `hwtail` are filled. */
  static filled(k: usize, hwtail: u32): void {
    Krings.publish(k, load<u32>(k, Kring.hwcur), hwtail);
  }

  static publish(k: usize, hwcur: u32, hwtail: u32): void {
    const ring: usize = load<u32>(k, Kring.ring);
    const mask = load<u32>(k, Kring.mask);
    store<u32>(k, hwcur & mask, Kring.hwcur);
    store<u32>(k, hwtail & mask, Kring.hwtail);
    store<u32>(ring, hwcur & mask, NetmapRing.hwcur);
    Sync.store<u32>(ring + NetmapRing.hwtail, hwtail & mask);
    Count.add(k + Kring.syncs, 1);
    if (Sync.load<u32>(ring + NetmapRing.needKick) || load<u32>(k, Kring.report)) Krings.notify(k);
  }

  static notify(k: usize): void {
    store<u32>(k, 0, Kring.report);
    Count.add(k + Kring.notifications, 1);
    Doorbell.ring(load<u32>(k, Kring.bell));
  }

  /** The host is about to sleep (`on`), and wants to be told of slots that are handed over, or polls again. */
  static arm(k: usize, on: bool): void {
    // Of a guest that is stopped nothing is written.
    if (!load<u32>(k, Kring.running)) return;
    Sync.store<u32>(load<u32>(k, Kring.ring) + NetmapRing.hostNeedKick, u32(on));
  }

  /**
   * The frame that begins at slot `at`, of `have` that were handed over, whatever it is: its segments to `to`. Returns its
   * slots << 16 | segments; no segments if it was refused, no slots if its end isn't there yet.
   */
  static take(k: usize, at: u32, have: u32, to: usize): u32 {
    // A frame that fills the ring will never end.
    const most = min<u32>(NETMAP_FRAGMENTS, load<u32>(k, Kring.mask));
    const skipping = load<u32>(k, Kring.skipping) != 0;
    let why: u32 = SlotRefusal.COUNT;
    let bytes: u32 = 0;
    let report: u32 = 0;
    let n: u32 = 0;
    let ends = false;
    while (n < have && !ends) {
      const s = v128.load(Krings.slot(k, at + n));
      const flags = <u32>i16x8.extract_lane_u(s, 3);
      if (n < most && why == SlotRefusal.COUNT) why = Krings.segment(k, s, n == 0, to + n * Packet.SIZE);
      bytes += i16x8.extract_lane_u(s, 2);
      report |= flags & SlotFlag.REPORT;
      n++;
      ends = !(flags & SlotFlag.MOREFRAG);
    }
    const tooMany = n > most || (!ends && n == most && n == load<u32>(k, Kring.mask));
    if (!ends && !tooMany && !skipping) return 0;
    if (report) store<u32>(k, 1, Kring.report);
    store<u32>(k, u32(!ends), Kring.skipping);
    if (skipping) return n << 16;
    if (tooMany) why = SlotRefusal.FRAGMENTS;
    else if (why == SlotRefusal.COUNT && bytes > <u32>FRAME_MAX) why = SlotRefusal.LENGTH;
    if (why == SlotRefusal.COUNT) return (n << 16) | n;
    Krings.refuse(k, why);
    return n << 16;
  }

  /** One slot to the packet descriptor at `to`; why it can't be used, or SlotRefusal.COUNT if it can. */
  static segment(k: usize, s: v128, first: bool, to: usize): u32 {
    const len = <u32>i16x8.extract_lane_u(s, 2);
    const flags = <u32>i16x8.extract_lane_u(s, 3);
    const buffer = i32x4.extract_lane(s, 0) - NETMAP_FIRST;
    if (<u32>buffer >= load<u32>(k, Kring.count)) return SlotRefusal.INDEX;
    let addr = load<u32>(k, Kring.base) + buffer * load<u32>(k, Kring.stride);
    if (flags & SlotFlag.INDIRECT) {
      const at = <u64>i64x2.extract_lane(s, 1);
      const size = load<u32>(k, Kring.regionSize);
      if (at > <u64>size || len > size - <u32>at) return SlotRefusal.INDIRECT;
      addr = load<u32>(k, Kring.region) + <u32>at;
    } else if (len > load<u32>(k, Kring.room)) return SlotRefusal.LENGTH;
    if (!len) return SlotRefusal.LENGTH;
    let more: u32 = flags & SlotFlag.MOREFRAG ? PacketFlag.MORE : 0;
    if (first && flags & SlotFlag.NO_LEARN) more |= PacketFlag.NO_LEARN;
    const d = i32x4.replace_lane(v128.load(k, Kring.blank), 0, addr);
    v128.store(to, i16x8.replace_lane(i32x4.replace_lane(d, 1, len | (more << 16)), 5, <u16>buffer));
    return SlotRefusal.COUNT;
  }

  /** A slot with this buffer; `word`: len | flags << 16. Who finds it sees that its buffer is another one. */
  @inline static filledSlot(buffer: u32, word: u32): v128 {
    const low = <u64>(buffer + NETMAP_FIRST) | ((<u64>(word | (SlotFlag.BUF_CHANGED << 16))) << 32);
    return i64x2.replace_lane(i64x2.splat(0), 0, low);
  }

  /** A slot of the user's whose buffer can't be filled is handed back with nothing in it. */
  static skip(k: usize, slot: usize, why: u32): void {
    Krings.refuse(k, why);
    store<u32>(slot, 0, NetmapSlot.len);
  }

  /**
   * Of a memory that has several owners: the `n` buffers at `list` were this ring's user's, and are `owner`'s from now on.
   * If one isn't, or stands there twice, all stay whose they were, and it is counted.
   */
  static own(k: usize, list: usize, n: u32, owner: u32): bool {
    const owners: usize = load<u32>(k, Kring.owners);
    const mine = load<u32>(k, Kring.owner);
    for (let i: u32 = 0; i < n; i++) {
      const at = owners + load<u16>(list + i * Packet.SIZE, Packet.index);
      if (load<u8>(at) == mine) {
        store<u8>(at, <u8>owner);
        continue;
      }
      Krings.release(k, list, i);
      Krings.refuse(k, SlotRefusal.OWNER);
      return false;
    }
    return true;
  }

  /** The `n` buffers at `list` are this ring's user's. */
  static release(k: usize, list: usize, n: u32): void {
    const owners: usize = load<u32>(k, Kring.owners);
    const mine = load<u32>(k, Kring.owner);
    for (let i: u32 = 0; i < n; i++)
      store<u8>(owners + load<u16>(list + i * Packet.SIZE, Packet.index), <u8>mine);
  }

  /**
   * The buffers of `n` slots of a receive ring, from `at` on, are `owner`'s from now on; their descriptors to `to`. Returns
   * `n`. If a slot has none of the user's buffers it is handed back empty, and so are those before it, since a frame stands
   * in slots side by side; returns how many << 16, and all stay whose they were.
   */
  static reserve(k: usize, at: u32, n: u32, to: usize, owner: u32): u32 {
    const owners: usize = load<u32>(k, Kring.owners);
    const mine = load<u32>(k, Kring.owner);
    for (let i: u32 = 0; i < n; i++) {
      const buffer = load<u32>(Krings.slot(k, at + i)) - NETMAP_FIRST;
      if (buffer < load<u32>(k, Kring.count) && load<u8>(owners + buffer) == mine) {
        store<u8>(owners + buffer, <u8>owner);
        store<u16>(to + i * Packet.SIZE, <u16>buffer, Packet.index);
        continue;
      }
      Krings.release(k, to, i);
      Krings.refuse(k, buffer < load<u32>(k, Kring.count) ? SlotRefusal.OWNER : SlotRefusal.INDEX);
      for (let j: u32 = 0; j <= i; j++) store<u32>(Krings.slot(k, at + j), 0, NetmapSlot.len);
      return (i + 1) << 16;
    }
    return n;
  }
}
