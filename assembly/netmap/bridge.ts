/**
 * A bridge between a card and a netmap pipe's end (layout: `Bridge`), as netmap's program of that name: it moves no byte,
 * but swaps buffers between the card's descriptors and the slots. All lie in one memory, the guest's.
 *
 * A buffer has one owner: the guest (`Kring.owners`), or the host, which has it in a descriptor of the card's or in the
 * pool. A guest that writes any numbers it likes into its slots gets no buffer that isn't its own, and gives none away
 * twice. What it changes in a buffer that the card is to send are its own frames.
 */
import { Count } from "../count";
import {
  Bridge,
  Drop,
  FRAME_MIN,
  Kring,
  NETMAP_FIRST,
  NETMAP_FRAGMENTS,
  NetmapRing,
  NetmapSlot,
  OWNED_BY_GUEST,
  OWNED_BY_HOST,
  Packet,
  PacketFlag,
  Pool,
  Port,
  RxQueue,
  SlotFlag,
} from "../layout";
import { Mempool } from "../mempool";
import { Card, Pmd } from "../nic";
import { Desc } from "../packet";
import { Sync } from "../sync";
import { Krings } from "./kring";

export class Bridges {
  /** A burst each way. Returns the frames moved. */
  static poll(b: usize): u32 {
    if (!load<u32>(load<u32>(b, Bridge.rx), Kring.running)) return 0;
    return Bridges.receive(b) + Bridges.send(b);
  }

  /** From the card to the guest. What finds no slot waits in the card's ring. Returns the frames. */
  static receive(b: usize): u32 {
    const q: usize = load<u32>(b, Bridge.queue);
    const k: usize = load<u32>(b, Bridge.rx);
    const port: usize = load<u32>(b, Bridge.port);
    let left = load<u32>(b, Bridge.burst);
    let room = Krings.toFill(k);
    let at = load<u32>(k, Kring.hwtail);
    let bytes: u64 = 0;
    const begin = at;
    let moved: u32 = 0;
    while (left && room) {
      const some = Bridges.swapIn(b, q, k, at, min(left, room));
      const n = <u32>(some >> 32);
      bytes += <u32>some;
      moved += n;
      left -= n;
      at += n;
      room -= n;
      if (!left || !room) break;
      const one = Bridges.receiveOne(b, q, k, at, room);
      if (!one) break;
      at += one & 0xffff;
      room -= one & 0xffff;
      left--;
      moved += (one >> 16) & 1;
      bytes += load<u32>(b, Bridge.bytes);
    }
    if (moved) {
      Count.add(port + Port.txPackets, moved);
      Count.add(port + Port.txBytes, bytes);
    }
    if (at != begin) Krings.filled(k, at);
    const posted = load<u32>(q, RxQueue.posted);
    if (posted != load<u32>(q, RxQueue.tail)) Pmd.announce(q, posted);
    if (Pmd.wantsRefill(q)) Pmd.refill(q, load<u32>(b, Bridge.lcore), load<u32>(q, RxQueue.mask) + 1);
    return moved;
  }

  /**
   * Up to `max` received frames of one segment to slots from `at` on, and their buffers to the card, as long as neither
   * ring ends. Returns the frames << 32 | their bytes.
   */
  @inline static swapIn(b: usize, q: usize, k: usize, at: u32, max: u32): u64 {
    const mask = load<u32>(k, Kring.mask);
    const cardMask = load<u32>(q, RxQueue.mask);
    const next = load<u32>(q, RxQueue.next);
    const posted = load<u32>(q, RxQueue.posted);
    const ring: usize = load<u32>(q, RxQueue.ring);
    const pool: usize = load<u32>(b, Bridge.pool);
    const owners: usize = load<u32>(k, Kring.owners);
    const blank = v128.load(pool, Pool.blank);
    let slot = load<u32>(k, Kring.ring) + NetmapRing.slots + (at & mask) * NetmapSlot.SIZE;
    let p = ring + (next & cardMask) * Packet.SIZE;
    let to = ring + (posted & cardMask) * Packet.SIZE;
    const first = p;
    const straight = min(
      min(mask + 1 - (at & mask), cardMask + 1 - (next & cardMask)),
      min(cardMask + 1 - (posted & cardMask), min(max, posted - next)),
    );
    let bytes: u32 = 0;
    for (const end = p + straight * Packet.SIZE; p != end; p += Packet.SIZE) {
      const word = Sync.load<u32>(p + Packet.len);
      if (word >> 16 != PacketFlag.DONE) break;
      const empty = load<u32>(slot) - NETMAP_FIRST;
      if (empty >= load<u32>(k, Kring.count)) break;
      if (load<u8>(owners + empty) != OWNED_BY_GUEST) break;
      const filled = <u32>load<u16>(p, Packet.index);
      const len = word & 0xffff;
      store<u8>(owners + empty, OWNED_BY_HOST);
      store<u8>(owners + filled, OWNED_BY_GUEST);
      v128.store(slot, Krings.filledSlot(filled, len));
      const addr = load<u32>(pool, Pool.blank) + empty * load<u32>(pool, Pool.stride);
      v128.store(to, i16x8.replace_lane(i32x4.replace_lane(blank, 0, addr), 5, <u16>empty));
      to += Packet.SIZE;
      slot += NetmapSlot.SIZE;
      bytes += len;
    }
    const n = <u32>(p - first) / Packet.SIZE;
    store<u32>(q, next + n, RxQueue.next);
    store<u32>(q, posted + n, RxQueue.posted);
    return ((<u64>n) << 32) | bytes;
  }

  /**
   * The next received frame, whatever it is. Returns slots that were filled, or handed back because they had no buffer;
   * with bit 16 if the frame was delivered, its bytes to `Bridge.bytes`; with bit 17 if it was dropped; 0: it has to wait.
   */
  static receiveOne(b: usize, q: usize, k: usize, at: u32, room: u32): u32 {
    store<u32>(b, 0, Bridge.bytes);
    const ring: usize = load<u32>(q, RxQueue.ring);
    const mask = load<u32>(q, RxQueue.mask);
    const next = load<u32>(q, RxQueue.next);
    const posted = Pmd.posted(q);
    let n: u32 = 0;
    let more: u32 = 1;
    while (more) {
      if (n == posted) return 0;
      const word = Sync.load<u32>(ring + ((next + n++) & mask) * Packet.SIZE + Packet.len);
      if (!((word >> 16) & PacketFlag.DONE)) return 0;
      more = (word >> 16) & PacketFlag.MORE;
    }
    const list = b + Bridge.scratch;
    const pool: usize = load<u32>(b, Bridge.pool);
    if (n > min<u32>(NETMAP_FRAGMENTS, load<u32>(k, Kring.mask))) {
      // More slots than a frame may have: none of it can be delivered.
      for (let i: u32 = 0; i < n; i++) {
        Mempool.give(pool, load<u32>(b, Bridge.lcore), ring + ((next + i) & mask) * Packet.SIZE, 1);
      }
      store<u32>(q, next + n, RxQueue.next);
      Count.add(load<u32>(b, Bridge.port) + Port.drops + Drop.TOO_LARGE * 8, 1);
      return 1 << 17;
    }
    if (n > room) return 0;
    const reserved = Krings.reserve(k, at, n, list, OWNED_BY_HOST);
    if (reserved != n) return reserved >> 16;
    let bytes: u32 = 0;
    for (let i: u32 = 0; i < n; i++) {
      const p = ring + ((next + i) & mask) * Packet.SIZE;
      const len = <u32>load<u16>(p, Packet.len);
      const filled = <u32>load<u16>(p, Packet.index);
      const flags: u32 = i + 1 < n ? SlotFlag.MOREFRAG : 0;
      store<u8>(load<u32>(k, Kring.owners) + filled, OWNED_BY_GUEST);
      v128.store(Krings.slot(k, at + i), Krings.filledSlot(filled, len | (flags << 16)));
      bytes += len;
    }
    store<u32>(q, next + n, RxQueue.next);
    Mempool.give(pool, load<u32>(b, Bridge.lcore), list, n);
    store<u32>(b, bytes, Bridge.bytes);
    return n | (1 << 16);
  }

  /** From the guest to the card. What finds no room waits in its ring. Returns the frames. */
  static send(b: usize): u32 {
    const q: usize = load<u32>(b, Bridge.txQueue);
    const k: usize = load<u32>(b, Bridge.tx);
    const pool: usize = load<u32>(b, Bridge.pool);
    const lcore = load<u32>(b, Bridge.lcore);
    const port: usize = load<u32>(b, Bridge.port);
    const list = b + Bridge.scratch;
    Krings.prologue(k);
    const mask = load<u32>(k, Kring.mask);
    let left = load<u32>(b, Bridge.burst);
    let have = Krings.toSend(k);
    let at = load<u32>(k, Kring.hwcur);
    let bytes: u64 = 0;
    let moved: u32 = 0;
    store<u32>(b, 0, Bridge.blocked);
    while (left && have) {
      const most = min(min(left, have), mask + 1 - at);
      if (Pmd.txRoom(q, lcore) < most) Pmd.txCleanAll(q, lcore);
      const n = min(min(most, Pmd.txVacant(q)), Pmd.txStraight(q));
      let got: u32 = n ? Mempool.take(pool, lcore, list, n) : 0;
      if (n && !got) {
        // What the card has sent is enough to go on with, also if it isn't a whole batch.
        Pmd.txCleanAll(q, lcore);
        got = Mempool.take(pool, lcore, list, n);
      }
      if (!got) {
        store<u32>(b, 1, Bridge.blocked);
        break;
      }
      const some = load<u32>(k, Kring.skipping) ? 0 : Bridges.swapOut(k, at, list, got, Pmd.txSlot(q));
      const swapped = <u32>(some >> 32);
      if (swapped) Pmd.txAnnounce(q, swapped);
      at = (at + swapped) & mask;
      have -= swapped;
      left -= swapped;
      moved += swapped;
      bytes += <u32>some;
      if (swapped == got) continue;
      Mempool.give(pool, lcore, list + swapped * Packet.SIZE, got - swapped);
      const one = Bridges.sendOne(b, q, k, at, have);
      if (!one) break;
      at = (at + (one >> 16)) & mask;
      have -= one >> 16;
      left--;
      if (!(one & 0xffff)) continue;
      moved++;
      bytes += one & 0xffff;
    }
    if (moved) {
      Count.add(port + Port.rxPackets, moved);
      Count.add(port + Port.rxBytes, bytes);
    }
    Krings.sent(k, at);
    return moved;
  }

  /**
   * Up to `n` frames of one slot each, from `at` on, to the descriptors at `to`; the slots get the buffers at `list`. Returns
   * the frames << 32 | their bytes. The ring must not end before.
   */
  @inline static swapOut(k: usize, at: u32, list: usize, n: u32, to: usize): u64 {
    const owners: usize = load<u32>(k, Kring.owners);
    let slot = Krings.slot(k, at);
    const first = list;
    let bytes: u32 = 0;
    for (const end = list + n * Packet.SIZE; list != end; list += Packet.SIZE) {
      const s = v128.load(slot);
      const buffer = <u32>i32x4.extract_lane(s, 0) - NETMAP_FIRST;
      const word = Krings.plain(i32x4.extract_lane(s, 1));
      if (buffer >= load<u32>(k, Kring.count)) break;
      if (u32(word - FRAME_MIN > load<u32>(k, Kring.room) - FRAME_MIN)) break;
      if (load<u8>(owners + buffer) != OWNED_BY_GUEST) break;
      const empty = <u32>load<u16>(list, Packet.index);
      store<u8>(owners + buffer, OWNED_BY_HOST);
      store<u8>(owners + empty, OWNED_BY_GUEST);
      const addr = load<u32>(k, Kring.base) + buffer * load<u32>(k, Kring.stride);
      const d = i32x4.replace_lane(v128.load(k, Kring.blank), 0, addr);
      v128.store(to, i16x8.replace_lane(i32x4.replace_lane(d, 1, word), 5, <u16>buffer));
      v128.store(slot, Krings.filledSlot(empty, 0));
      to += Packet.SIZE;
      slot += NetmapSlot.SIZE;
      bytes += word;
    }
    return ((<u64>(list - first) / Packet.SIZE) << 32) | bytes;
  }

  /**
   * The frame at slot `at` of `have`, whatever it is. Returns the slots that it took << 16 | its bytes: none if it was
   * refused; 0 if it has to wait.
   */
  static sendOne(b: usize, q: usize, k: usize, at: u32, have: u32): u32 {
    const list = k + Kring.scratch;
    const taken = Krings.take(k, at, have, list);
    const n = taken & 0xffff;
    if (!n) return taken;
    const bytes = Desc.bytes(list, n);
    if (bytes < <u32>FRAME_MIN) {
      Count.add(load<u32>(b, Bridge.port) + Port.drops + Drop.RUNT * 8, 1);
      return taken & 0xffff_0000;
    }
    const pool: usize = load<u32>(b, Bridge.pool);
    const lcore = load<u32>(b, Bridge.lcore);
    const empty = b + Bridge.scratch;
    if (Pmd.txVacant(q) < n || Mempool.available(pool) < n) Pmd.txCleanAll(q, lcore);
    const got: u32 = Pmd.txVacant(q) < n ? 0 : Mempool.take(pool, lcore, empty, n);
    if (got < n || !Krings.own(k, list, n, OWNED_BY_HOST)) {
      Mempool.give(pool, lcore, empty, got);
      if (got == n) return taken & 0xffff_0000;
      store<u32>(b, 1, Bridge.blocked);
      return 0;
    }
    for (let i: u32 = 0; i < n; i++) {
      const buffer = <u32>load<u16>(empty + i * Packet.SIZE, Packet.index);
      store<u8>(load<u32>(k, Kring.owners) + buffer, OWNED_BY_GUEST);
      v128.store(Krings.slot(k, at + i), Krings.filledSlot(buffer, 0));
    }
    Pmd.txBurst(q, lcore, list, n);
    return (taken & 0xffff_0000) | bytes;
  }

  /**
   * The card's receive queue, which doesn't run, gives all its buffers back: the host's, they go to the pool. Frames that it
   * has received are dropped.
   */
  static reclaim(b: usize): void {
    const q: usize = load<u32>(b, Bridge.queue);
    const next = load<u32>(q, RxQueue.next);
    for (let at = load<u32>(q, RxQueue.posted); at != next; ) {
      const p = load<u32>(q, RxQueue.ring) + (--at & load<u32>(q, RxQueue.mask)) * Packet.SIZE;
      if (Pmd.isDone(p) && !(load<u16>(p, Packet.flags) & PacketFlag.MORE))
        Count.add(load<u32>(b, Bridge.port) + Port.drops + Drop.DOWN * 8, 1);
      Mempool.give(load<u32>(b, Bridge.pool), load<u32>(b, Bridge.lcore), p, 1);
    }
    store<u32>(q, next, RxQueue.posted);
    store<u32>(q, next, RxQueue.head);
    store<u32>(q, next, RxQueue.tailCache);
    store<u32>(q, next, RxQueue.tail);
  }

  /** It is about to sleep (`on`): it wants to be told of received frames, of slots to send, and of slots to receive into. */
  static arm(b: usize, on: bool): void {
    Card.arm(load<u32>(b, Bridge.queue), on);
    Krings.arm(load<u32>(b, Bridge.rx), on);
    Krings.arm(load<u32>(b, Bridge.tx), on);
  }
}
