/**
 * vDPDK, the device's side of a guest's transmit ring. Frames go to the card from where they lie (zero-copy: the guest's
 * buffers are the card's until it has sent them) or by way of host buffers. What the guest asks for and the card can't do is
 * done here, on a copy, and counted.
 */
import { Copy } from "../copy";
import { Count } from "../count";
import {
  FRAME_MAX,
  FRAME_MIN,
  Offload,
  Packet,
  PacketFlag,
  Pool,
  TxQueue,
  VDPDK_SEGMENTS,
  Vdpdk,
  VdpdkDesc,
  VdpdkFlag,
  VdpdkQueue,
  VdpdkRefusal,
} from "../layout";
import { Mempool } from "../mempool";
import { Pmd } from "../nic";
import { Offloads } from "../offload";
import { Desc } from "../packet";
import { Sync } from "../sync";
import { HELD, VDPDK_BURST, VdpdkQueues } from "./queue";

/** Longest frame that TSO cuts, in bytes: what fits an IPv4 datagram, and its Ethernet header. */
const TSO_MAX: u32 = 65535;
/** `len`, flags and offload of a whole frame with nothing to be done, less the length. */
const AVAIL: u64 = (<u64>VdpdkFlag.AVAIL) << 16;
const RANGE: u64 = FRAME_MAX - FRAME_MIN;

export class VdpdkTx {
  /** One turn: gives back what was sent, then takes a burst. Returns the frames taken. */
  static poll(v: usize, q: usize): u32 {
    const card: usize = load<u32>(q, VdpdkQueue.card);
    if (!card) return 0;
    const lcore = load<u32>(v, Vdpdk.lcore);
    if (VdpdkTx.waits(q) && Pmd.txRoom(card, lcore) < VDPDK_BURST) Pmd.txCleanAll(card, lcore);
    VdpdkTx.complete(q);
    let frames: u32 = 0;
    while (frames < VDPDK_BURST && VdpdkTx.waits(q)) {
      const most = min(min(VDPDK_BURST - frames, VdpdkQueues.window(q)), Pmd.txVacant(card));
      let some = load<u32>(q, VdpdkQueue.zeroCopy)
        ? VdpdkTx.send(card, q, most)
        : VdpdkTx.copy(v, card, q, most);
      // What is in front now is no frame that goes as it is.
      if (!some) some = VdpdkTx.takeOne(v, card, q);
      if (!some) break;
      frames += some;
    }
    if (!frames && load<u32>(q, VdpdkQueue.next) != load<u32>(q, VdpdkQueue.done)) {
      Pmd.txCleanAll(card, lcore);
      VdpdkTx.complete(q);
    } else if (load<u32>(q, VdpdkQueue.copied)) VdpdkTx.complete(q);
    return frames;
  }

  /** Whether the guest has something to send that may be taken. */
  @inline static waits(q: usize): bool {
    if (!VdpdkQueues.runs(q) || !VdpdkQueues.window(q)) return false;
    const d = VdpdkQueues.descriptor(q, load<u32>(q, VdpdkQueue.next));
    return ((Sync.load<u32>(d + VdpdkDesc.len) >> 16) & VdpdkFlag.AVAIL) != 0;
  }

  /** Gives back, in the ring's order, what the card has sent and what was copied. */
  static complete(q: usize): void {
    const freed = load<i32>(q, VdpdkQueue.freed);
    let copied = load<u32>(q, VdpdkQueue.copied);
    if (freed <= 0 && !copied) return;
    const done = load<u32>(q, VdpdkQueue.done);
    const left = load<u32>(q, VdpdkQueue.next) - done;
    let sent: i32 = 0;
    let n: u32 = 0;
    if (!copied) n = sent = freed;
    else {
      const mask = load<u32>(q, VdpdkQueue.mask);
      for (; n < left; n++) {
        const mark = q + VdpdkQueue.marks + ((done + n) & mask);
        if (load<u8>(mark)) {
          store<u8>(mark, 0);
          copied--;
        } else if (sent < freed) sent++;
        else break;
      }
      store<u32>(q, copied, VdpdkQueue.copied);
    }
    store<i32>(q, freed - sent, VdpdkQueue.freed);
    store<u32>(q, done + n, VdpdkQueue.done);
    if (!n || load<u32>(q, VdpdkQueue.broken)) return;
    if (VdpdkQueues.giveBack(q, done, n)) VdpdkQueues.tell(q);
  }

  /** Zero-copy, up to `max` plain frames: their descriptors to the card's ring, with addresses of the host's memory. */
  static send(card: usize, q: usize, max: u32): u32 {
    const mask = load<u32>(q, VdpdkQueue.mask);
    const next = load<u32>(q, VdpdkQueue.next);
    const slot = next & mask;
    const base = load<u32>(q, VdpdkQueue.base);
    const limit = <u64>load<u32>(q, VdpdkQueue.limit);
    const owner = <u64>load<u32>(q, VdpdkQueue.id);
    let d: usize = load<u32>(q, VdpdkQueue.ring) + slot * VdpdkDesc.SIZE;
    let to = Pmd.txSlot(card);
    const begin = to;
    let bytes: u32 = 0;
    const straight = min(min(max, mask + 1 - slot), Pmd.txStraight(card));
    const end = to + straight * Packet.SIZE;
    // Two at a time; what is unusual of either goes alone. Each check stands before the next load: see docs/design.md.
    for (const pairs = to + (straight & ~1) * Packet.SIZE; to != pairs; ) {
      // With other flags, or an offload, it is no length.
      const a = Sync.load<u64>(d + VdpdkDesc.len) ^ AVAIL;
      if (a - FRAME_MIN > RANGE) break;
      const from = load<u64>(d);
      if (from > limit - a) break;
      const b = Sync.load<u64>(d + VdpdkDesc.SIZE + VdpdkDesc.len) ^ AVAIL;
      if (b - FRAME_MIN > RANGE) break;
      const next = load<u64>(d, VdpdkDesc.SIZE);
      if (next > limit - b) break;
      store<u64>(to, (from + base) | (a << 32));
      store<u64>(to, owner, Packet.owner);
      store<u64>(to, (next + base) | (b << 32), Packet.SIZE);
      store<u64>(to, owner, Packet.SIZE + Packet.owner);
      store<u16>(d, <u16>HELD, VdpdkDesc.flags);
      store<u16>(d, <u16>HELD, VdpdkDesc.SIZE + VdpdkDesc.flags);
      bytes += <u32>(a + b);
      to += 2 * Packet.SIZE;
      d += 2 * VdpdkDesc.SIZE;
    }
    for (; to != end; to += Packet.SIZE, d += VdpdkDesc.SIZE) {
      const len = Sync.load<u64>(d + VdpdkDesc.len) ^ AVAIL;
      if (len - FRAME_MIN > RANGE) break;
      const addr = load<u64>(d);
      if (addr > limit - len) break;
      store<u64>(to, (addr + base) | (len << 32));
      store<u64>(to, owner, Packet.owner);
      store<u16>(d, <u16>HELD, VdpdkDesc.flags);
      bytes += <u32>len;
    }
    const n = <u32>(to - begin) / Packet.SIZE;
    if (!n) return 0;
    store<u32>(q, next + n, VdpdkQueue.next);
    Pmd.txAnnounce(card, n);
    VdpdkTx.count(q, n, bytes);
    return n;
  }

  /** Up to `max` plain frames into host buffers; their own are the guest's again at once. */
  static copy(v: usize, card: usize, q: usize, max: u32): u32 {
    const pool: usize = load<u32>(v, Vdpdk.pool);
    const mask = load<u32>(q, VdpdkQueue.mask);
    const next = load<u32>(q, VdpdkQueue.next);
    const slot = next & mask;
    const base = load<u32>(q, VdpdkQueue.base);
    const limit = <u64>load<u32>(q, VdpdkQueue.limit);
    const range = min(load<u32>(pool, Pool.room), <u32>FRAME_MAX) - 16;
    let d: usize = load<u32>(q, VdpdkQueue.ring) + slot * VdpdkDesc.SIZE;
    let list = v + Vdpdk.burst;
    const begin = list;
    const straight = min(min(max, mask + 1 - slot), Pmd.txStraight(card));
    for (const end = list + straight * Packet.SIZE; list != end; list += Packet.SIZE, d += VdpdkDesc.SIZE) {
      const word = Sync.load<u64>(d + VdpdkDesc.len);
      if (word >> 16 != VdpdkFlag.AVAIL) break;
      const len = <u32>word & 0xffff;
      if (len - 16 > range) break;
      const addr = load<u64>(d);
      if (addr > limit - len) break;
      v128.store(list, Desc.make(<u32>addr + base, len, 0, 0, 0, 0, 0));
      v128.store(list + (Vdpdk.headers - Vdpdk.burst), v128.load(<u32>addr + base));
    }
    const n = <u32>(list - begin) / Packet.SIZE;
    if (!n) return 0;
    const to = Pmd.txSlot(card);
    const got = Mempool.take(pool, load<u32>(v, Vdpdk.lcore), to, n);
    if (!got) return 0;
    const bytes = Copy.frames(to, 0, begin, got, v + Vdpdk.headers);
    Pmd.txAnnounce(card, got);
    VdpdkTx.count(q, got, bytes);
    VdpdkTx.countCopies(q, got, bytes);
    VdpdkTx.copiedOut(q, got);
    return got;
  }

  /** The `n` descriptors in front are not needed any more. */
  static copiedOut(q: usize, n: u32): void {
    const next = load<u32>(q, VdpdkQueue.next);
    store<u32>(q, next + n, VdpdkQueue.next);
    if (load<u32>(q, VdpdkQueue.done) == next) {
      store<u32>(q, next + n, VdpdkQueue.done);
      if (VdpdkQueues.giveBack(q, next, n)) VdpdkQueues.tell(q);
      return;
    }
    const mask = load<u32>(q, VdpdkQueue.mask);
    for (let i: u32 = 0; i < n; i++) store<u8>(q + VdpdkQueue.marks + ((next + i) & mask), 1);
    store<u32>(q, load<u32>(q, VdpdkQueue.copied) + n, VdpdkQueue.copied);
  }

  /**
   * The frame in front, whatever it is, to `list` (room for VDPDK_SEGMENTS). Returns its segments; 0 where there is none
   * or its queue was ended for it.
   */
  static front(q: usize, list: usize): u32 {
    const window = VdpdkQueues.window(q);
    const next = load<u32>(q, VdpdkQueue.next);
    const base = load<u32>(q, VdpdkQueue.base);
    const limit = <u64>load<u32>(q, VdpdkQueue.limit);
    const id = load<u32>(q, VdpdkQueue.id);
    let n: u32 = 0;
    for (let more: u32 = 1; more; n++) {
      if (n == window && window <= load<u32>(q, VdpdkQueue.mask)) return 0;
      if (n == window || n == <u32>VDPDK_SEGMENTS) return VdpdkTx.refused(q, VdpdkRefusal.CHAIN);
      const d = VdpdkQueues.descriptor(q, next + n);
      const word = Sync.load<u32>(d + VdpdkDesc.len);
      const flags = word >> 16;
      if (!(flags & VdpdkFlag.AVAIL)) return 0;
      if (flags & VdpdkFlag.ATTACHED) return VdpdkTx.refused(q, VdpdkRefusal.STALE);
      const len = word & 0xffff;
      const addr = load<u64>(d);
      if (!len) return VdpdkTx.refused(q, VdpdkRefusal.LENGTH);
      if (addr > limit - len) return VdpdkTx.refused(q, VdpdkRefusal.OUT_OF_REGION);
      more = flags & VdpdkFlag.NEXT;
      const flag: u32 = more ? PacketFlag.MORE : 0;
      v128.store(list + n * Packet.SIZE, Desc.make(<u32>addr + base, len, flag, id, 0, 0, 0));
    }
    return n;
  }

  /** Offloads that the frame in front is to be sent with. */
  @inline static asked(q: usize): u32 {
    return load<u32>(VdpdkQueues.descriptor(q, load<u32>(q, VdpdkQueue.next)), VdpdkDesc.offload);
  }

  static refused(q: usize, why: u32): u32 {
    VdpdkQueues.refuse(q, why);
    return 0;
  }

  /** One frame of any kind: several segments, offloads. Returns 1 if it was taken, 0 if not: then it is asked again. */
  static takeOne(v: usize, card: usize, q: usize): u32 {
    const list = v + Vdpdk.burst;
    const n = VdpdkTx.front(q, list);
    if (!n) return 0;
    const bytes = Desc.bytes(list, n);
    const d = VdpdkQueues.descriptor(q, load<u32>(q, VdpdkQueue.next));
    const wants = load<u32>(d, VdpdkDesc.offload);
    const more = load<u32>(d, VdpdkDesc.tci);
    const tci = more & 0xffff;
    const mss = more >> 16;
    if (wants & ~load<u32>(q, VdpdkQueue.offloads)) return VdpdkTx.refused(q, VdpdkRefusal.OFFLOAD);
    const most = wants & Offload.TSO ? TSO_MAX : <u32>FRAME_MAX - (wants & Offload.VLAN ? 4 : 0);
    if (bytes < <u32>FRAME_MIN || bytes > most) return VdpdkTx.refused(q, VdpdkRefusal.LENGTH);
    const flags = VdpdkTx.flags(wants);
    if (wants & load<u32>(q, VdpdkQueue.emulates))
      return VdpdkTx.emulate(v, card, q, list, n, bytes, flags, mss, tci);
    const lcore = load<u32>(v, Vdpdk.lcore);
    if (!load<u32>(q, VdpdkQueue.zeroCopy)) {
      const spare = v + Vdpdk.spare;
      const buffers = VdpdkTx.toHost(v, card, list, bytes, Copy.header(list, n), spare);
      if (!buffers) return 0;
      VdpdkTx.ask(spare, flags, mss, tci);
      Pmd.txBurst(card, lcore, spare, buffers);
      VdpdkTx.count(q, 1, bytes);
      VdpdkTx.countCopies(q, 1, bytes);
      VdpdkTx.copiedOut(q, n);
      return 1;
    }
    if (Pmd.txVacant(card) < n) return 0;
    VdpdkTx.ask(list, flags, mss, tci);
    Pmd.txBurst(card, lcore, list, n);
    const next = load<u32>(q, VdpdkQueue.next);
    for (let i: u32 = 0; i < n; i++) {
      store<u16>(VdpdkQueues.descriptor(q, next + i), <u16>HELD, VdpdkDesc.flags);
    }
    store<u32>(q, next + n, VdpdkQueue.next);
    VdpdkTx.count(q, 1, bytes);
    return 1;
  }

  /** Bits of `Offload` as the card is asked for them. */
  @inline static flags(wants: u32): u32 {
    let flags: u32 = 0;
    if (wants & Offload.IPV4_CHECKSUM) flags |= PacketFlag.TX_IPV4_CHECKSUM;
    if (wants & (Offload.UDP_CHECKSUM | Offload.TCP_CHECKSUM)) flags |= PacketFlag.TX_L4_CHECKSUM;
    if (wants & Offload.TSO) flags |= PacketFlag.TX_TSO;
    if (wants & Offload.VLAN) flags |= PacketFlag.TX_VLAN;
    return flags;
  }

  /** In a frame's first descriptor: what the card is to do. */
  @inline static ask(p: usize, flags: u32, mss: u32, tci: u32): void {
    store<u16>(p, load<u16>(p, Packet.flags) | <u16>flags, Packet.flags);
    store<u16>(p, <u16>mss, Packet.room);
    store<u16>(p, <u16>tci, Packet.mark);
  }

  /** A frame to fresh host buffers at `to`: how many, or 0 where there are too few, of them or of the card's descriptors. */
  static toHost(v: usize, card: usize, from: usize, bytes: u32, header: v128, to: usize): u32 {
    const pool: usize = load<u32>(v, Vdpdk.pool);
    const lcore = load<u32>(v, Vdpdk.lcore);
    const room = load<u32>(pool, Pool.room);
    const n = (bytes + room - 1) / room;
    if (Pmd.txVacant(card) < n) return 0;
    const got = Mempool.take(pool, lcore, to, n);
    if (got < n) {
      Mempool.give(pool, lcore, to, got);
      return 0;
    }
    Copy.scatter(to, 0, from, bytes, header);
    for (let i: u32 = 0; i < n; i++) {
      store<u16>(to + i * Packet.SIZE, <u16>min(room, bytes - i * room), Packet.len);
      store<u16>(to + i * Packet.SIZE, i + 1 < n ? PacketFlag.MORE : 0, Packet.flags);
    }
    return n;
  }

  /**
   * What the card can't do: the frames that this one becomes, each put together here and sent from host buffers. Those that
   * find none are dropped, counted.
   */
  static emulate(
    v: usize,
    card: usize,
    q: usize,
    list: usize,
    n: u32,
    bytes: u32,
    flags: u32,
    mss: u32,
    tci: u32,
  ): u32 {
    const lcore = load<u32>(v, Vdpdk.lcore);
    const frame = v + Vdpdk.frame;
    const plan = Offloads.plan(frame, list, bytes, flags, mss);
    const frames = plan & 0xffff;
    if (!frames) return VdpdkTx.refused(q, VdpdkRefusal.OFFLOAD);
    const room = load<u32>(load<u32>(v, Vdpdk.pool), Pool.room);
    const longest = (plan >> 16 ? (plan >> 16) + mss : bytes) + 4;
    const buffers = ((longest + room - 1) / room) * frames;
    // All at once, or later; more than the ring has never fit.
    if (Pmd.txVacant(card) < min(buffers, load<u32>(card, TxQueue.mask) + 1)) return 0;
    const spare = v + Vdpdk.spare;
    let copied: u32 = 0;
    let k: u32 = 0;
    for (; k < frames; k++) {
      const len = Offloads.frame(frame, list, bytes, flags, mss, tci, plan, k);
      v128.store(list + VDPDK_SEGMENTS * Packet.SIZE, Desc.make(<u32>frame, len, 0, 0, 0, 0, 0));
      const whole = list + VDPDK_SEGMENTS * Packet.SIZE;
      const used = VdpdkTx.toHost(v, card, whole, len, v128.load(frame), spare);
      if (!used) break;
      Pmd.txBurst(card, lcore, spare, used);
      copied += len;
    }
    if (k < frames) Count.add(q + VdpdkQueue.droppedNoBuffer, frames - k);
    VdpdkTx.count(q, 1, bytes);
    VdpdkTx.countCopies(q, k, copied);
    Count.add(q + VdpdkQueue.emulated, 1);
    Count.add(q + VdpdkQueue.emulatedBytes, bytes);
    VdpdkTx.copiedOut(q, n);
    return 1;
  }

  @inline static count(q: usize, frames: u32, bytes: u32): void {
    Count.add(q + VdpdkQueue.packets, frames);
    Count.add(q + VdpdkQueue.bytes, bytes);
  }
  @inline static countCopies(q: usize, copies: u32, bytes: u32): void {
    Count.add(q + VdpdkQueue.copies, copies);
    Count.add(q + VdpdkQueue.copiedBytes, bytes);
  }
}
