/**
 * vDPDK, the device's side of a guest's receive ring. Either a queue of the card is the guest's own, and the card writes
 * into the guest's buffers (zero-copy), or frames of a queue for several guests are copied into them.
 */
import { Copy } from "../copy";
import { Count } from "../count";
import {
  Offload,
  Packet,
  PacketFlag,
  RTE_FLOW_MARK,
  RxQueue,
  VDPDK_BUFFER_MIN,
  VDPDK_SEGMENTS,
  Vdpdk,
  VdpdkDesc,
  VdpdkFlag,
  VdpdkQueue,
  VdpdkRefusal,
} from "../layout";
import { Pmd } from "../nic";
import { Offloads } from "../offload";
import { Desc } from "../packet";
import { Parse } from "../parse";
import { Sync } from "../sync";
import { HELD, VDPDK_BURST, VdpdkQueues } from "./queue";

/** One segment, received whole. */
const DONE: u32 = PacketFlag.DONE;
const DONES: u32 = DONE << 16;
/** `len` and flags of a buffer to receive into, less the length. */
const AVAIL: u32 = (<u32>VdpdkFlag.AVAIL) << 16;
const RANGE: u64 = 0xffff - VDPDK_BUFFER_MIN;

export class VdpdkRx {
  /** One turn of a queue of the card's that is the guest's own. Returns the frames received. */
  static poll(v: usize, q: usize): u32 {
    const card: usize = load<u32>(q, VdpdkQueue.card);
    if (!card || !VdpdkQueues.runs(q)) return 0;
    let frames: u32 = 0;
    while (frames < VDPDK_BURST && Pmd.received(card) && VdpdkQueues.runs(q)) {
      let some = VdpdkRx.handOver(card, q, VDPDK_BURST - frames);
      if (!some) some = VdpdkRx.handOverOne(v, card, q);
      if (!some) break;
      frames += some;
    }
    if (frames) VdpdkQueues.tell(q);
    if (Pmd.wantsRefill(card)) VdpdkRx.refill(card, q);
    return frames;
  }

  /** Everything that the card has written. */
  static drain(v: usize, card: usize, q: usize): void {
    while (
      VdpdkQueues.runs(q) &&
      (VdpdkRx.handOver(card, q, VDPDK_BURST) || VdpdkRx.handOverOne(v, card, q))
    ) {}
  }

  /** The `n` buffers from descriptor `from` on, which nothing was written to, are the guest's again. */
  static returnEmpty(q: usize, from: u32, n: u32): void {
    for (let i = n; i--; ) {
      const d = VdpdkQueues.descriptor(q, from + i);
      store<u32>(d, 0, VdpdkDesc.offload);
      Sync.store<u32>(d + VdpdkDesc.len, 0);
    }
  }

  /** Up to `max` frames of one segment, of which nothing more is to be told, that the card has written. */
  static handOver(card: usize, q: usize, max: u32): u32 {
    if (load<u32>(q, VdpdkQueue.offloads) || !Pmd.posted(card)) return 0;
    const mask = load<u32>(q, VdpdkQueue.mask);
    const done = load<u32>(q, VdpdkQueue.done);
    const slot = done & mask;
    const cardMask = load<u32>(card, RxQueue.mask);
    const next = load<u32>(card, RxQueue.next);
    let p: usize = load<u32>(card, RxQueue.ring) + (next & cardMask) * Packet.SIZE;
    let d: usize = load<u32>(q, VdpdkQueue.ring) + slot * VdpdkDesc.SIZE;
    const first = d;
    const firstWord = Sync.load<u32>(p + Packet.len);
    if (firstWord >> 16 != DONE || load<u16>(d, VdpdkDesc.flags) != HELD) return 0;
    const straight = min(min(mask + 1 - slot, cardMask + 1 - (next & cardMask)), min(Pmd.posted(card), max));
    const end = d + straight * VdpdkDesc.SIZE;
    let bytes = firstWord & 0xffff;
    p += Packet.SIZE;
    d += VdpdkDesc.SIZE;
    // Two at a time; what is unusual of either goes alone.
    for (const pairs = d + ((straight - 1) & ~1) * VdpdkDesc.SIZE; d != pairs; ) {
      const a = Sync.load<u32>(p + Packet.len) ^ DONES;
      if (a >> 16) break;
      if (load<u16>(d, VdpdkDesc.flags) != HELD) break;
      const b = Sync.load<u32>(p + Packet.SIZE + Packet.len) ^ DONES;
      if (b >> 16) break;
      if (load<u16>(d, VdpdkDesc.SIZE + VdpdkDesc.flags) != HELD) break;
      store<u64>(d, <u64>a, VdpdkDesc.len);
      store<u64>(d, <u64>b, VdpdkDesc.SIZE + VdpdkDesc.len);
      bytes += a + b;
      p += 2 * Packet.SIZE;
      d += 2 * VdpdkDesc.SIZE;
    }
    for (; d != end; p += Packet.SIZE, d += VdpdkDesc.SIZE) {
      const word = Sync.load<u32>(p + Packet.len);
      if (word >> 16 != DONE) break;
      if (load<u16>(d, VdpdkDesc.flags) != HELD) break;
      store<u64>(d, <u64>(word & 0xffff), VdpdkDesc.len);
      bytes += word & 0xffff;
    }
    store<u32>(first, 0, VdpdkDesc.offload);
    Sync.store<u32>(first + VdpdkDesc.len, firstWord & 0xffff);
    const n = <u32>(d - first) / VdpdkDesc.SIZE;
    store<u32>(q, done + n, VdpdkQueue.done);
    store<u32>(card, next + n, RxQueue.next);
    VdpdkRx.count(q, n, bytes);
    return n;
  }

  /** One frame of any kind. Returns 1; 0 where there is none, or where the queue was ended for it. */
  static handOverOne(v: usize, card: usize, q: usize): u32 {
    const list = v + Vdpdk.burst;
    const n = Pmd.rxBurst(card, list, 1, VDPDK_SEGMENTS);
    if (!n) return 0;
    const done = load<u32>(q, VdpdkQueue.done);
    for (let i: u32 = 0; i < n; i++) {
      if (load<u16>(VdpdkQueues.descriptor(q, done + i), VdpdkDesc.flags) != HELD) {
        // The frame is lost with its queue.
        Count.add(q + VdpdkQueue.droppedDown, 1);
        VdpdkQueues.refuse(q, VdpdkRefusal.STALE);
        return 0;
      }
    }
    VdpdkRx.count(q, 1, Desc.bytes(list, n));
    const flags = <u32>load<u16>(list, Packet.flags);
    let known = flags & PacketFlag.RX_OFFLOADS;
    let tci = <u32>load<u16>(list, Packet.mark);
    const d = VdpdkQueues.descriptor(q, done);
    if (flags & PacketFlag.RX_HASH) store<u32>(d, load<u32>(list, Packet.owner), VdpdkDesc.hash);
    if (flags & PacketFlag.RX_MARK) store<u16>(d, load<u16>(list, Packet.room), VdpdkDesc.mss);
    if (load<u32>(q, VdpdkQueue.emulates)) {
      const found = VdpdkRx.emulate(q, list, n);
      known |= found & 0xffff;
      if (found & PacketFlag.RX_VLAN) tci = found >> 16;
    }
    store<u16>(d, <u16>tci, VdpdkDesc.tci);
    store<u32>(d, known, VdpdkDesc.offload);
    for (let i = n; i--; ) {
      const p = VdpdkQueues.descriptor(q, done + i);
      const more: u32 = i + 1 < n ? (<u32>VdpdkFlag.NEXT) << 16 : 0;
      if (i) store<u32>(p, 0, VdpdkDesc.offload);
      Sync.store<u32>(p + VdpdkDesc.len, <u32>load<u16>(list + i * Packet.SIZE, Packet.len) | more);
    }
    store<u32>(q, done + n, VdpdkQueue.done);
    return 1;
  }

  /**
   * What the guest asks for and the card doesn't do, on a frame that lies in the guest's `n` segments at `list`, whose
   * lengths may change: bits of PacketFlag.RX_OFFLOADS | VLAN tag << 16.
   */
  static emulate(q: usize, list: usize, n: u32): u32 {
    const emulates = load<u32>(q, VdpdkQueue.emulates);
    const bytes = Desc.bytes(list, n);
    let known: u32 = 0;
    if (emulates & Offload.CHECKSUMS) known = Offloads.verify(list, bytes) & Offloads.checksums(emulates);
    const frame: usize = load<u32>(list, Packet.addr);
    const len = <u32>load<u16>(list, Packet.len);
    if (emulates & Offload.VLAN && len >= 18 && Parse.be16(frame + 12) == 0x8100) {
      known |= PacketFlag.RX_VLAN | (Parse.be16(frame + 14) << 16);
      memory.copy(frame + 12, frame + 16, len - 16);
      store<u16>(list, <u16>(len - 4), Packet.len);
    }
    Count.add(q + VdpdkQueue.emulated, 1);
    Count.add(q + VdpdkQueue.emulatedBytes, bytes);
    return known;
  }

  /** As `refill`, of a queue in whatever state. */
  static fill(q: usize): void {
    const card: usize = load<u32>(q, VdpdkQueue.card);
    if (card && VdpdkQueues.runs(q)) VdpdkRx.refill(card, q);
  }

  /** Gives the card the buffers that the guest has posted, oldest first. */
  static refill(card: usize, q: usize): void {
    const mask = load<u32>(q, VdpdkQueue.mask);
    const cardMask = load<u32>(card, RxQueue.mask);
    const base = load<u32>(q, VdpdkQueue.base);
    const limit = <u64>load<u32>(q, VdpdkQueue.limit);
    const id = <u64>load<u32>(q, VdpdkQueue.id);
    let posted = load<u32>(card, RxQueue.posted);
    let next = load<u32>(q, VdpdkQueue.next);
    let n = min(Pmd.rxRoom(card), VdpdkQueues.window(q));
    while (n) {
      const straight = min(n, min(mask + 1 - (next & mask), cardMask + 1 - (posted & cardMask)));
      let d: usize = load<u32>(q, VdpdkQueue.ring) + (next & mask) * VdpdkDesc.SIZE;
      let p: usize = load<u32>(card, RxQueue.ring) + (posted & cardMask) * Packet.SIZE;
      const begin = p;
      const end = p + straight * Packet.SIZE;
      // Two at a time; what is unusual of either ends it.
      for (const pairs = p + (straight & ~1) * Packet.SIZE; p != pairs; ) {
        // With other flags it is no length.
        const a = <u64>(Sync.load<u32>(d + VdpdkDesc.len) ^ AVAIL);
        if (a - VDPDK_BUFFER_MIN > RANGE) break;
        const to = load<u64>(d);
        if (to > limit - a) break;
        const b = <u64>(Sync.load<u32>(d + VdpdkDesc.SIZE + VdpdkDesc.len) ^ AVAIL);
        if (b - VDPDK_BUFFER_MIN > RANGE) break;
        const next = load<u64>(d, VdpdkDesc.SIZE);
        if (next > limit - b) break;
        store<u64>(p, (to + base) | (a << 32));
        store<u64>(p, id | (a << 32), Packet.owner);
        store<u64>(p, (next + base) | (b << 32), Packet.SIZE);
        store<u64>(p, id | (b << 32), Packet.SIZE + Packet.owner);
        store<u16>(d, <u16>HELD, VdpdkDesc.flags);
        store<u16>(d, <u16>HELD, VdpdkDesc.SIZE + VdpdkDesc.flags);
        p += 2 * Packet.SIZE;
        d += 2 * VdpdkDesc.SIZE;
      }
      for (; p != end; p += Packet.SIZE, d += VdpdkDesc.SIZE) {
        const len = <u64>(Sync.load<u32>(d + VdpdkDesc.len) ^ AVAIL);
        if (len - VDPDK_BUFFER_MIN > RANGE) break;
        const addr = load<u64>(d);
        if (addr > limit - len) break;
        store<u64>(p, (addr + base) | (len << 32));
        store<u64>(p, id | (len << 32), Packet.owner);
        store<u16>(d, <u16>HELD, VdpdkDesc.flags);
      }
      const some = <u32>(p - begin) / Packet.SIZE;
      posted += some;
      next += some;
      n -= some;
      if (p == end) continue;
      VdpdkRx.check(q, d);
      break;
    }
    store<u32>(q, next, VdpdkQueue.next);
    if (posted != load<u32>(card, RxQueue.posted)) Pmd.announce(card, posted);
  }

  /** The guest's buffer at descriptor `d` wasn't taken: where it isn't just missing it ends the queue. */
  static check(q: usize, d: usize): bool {
    const word = Sync.load<u32>(d + VdpdkDesc.len);
    if (!((word >> 16) & VdpdkFlag.AVAIL)) return true;
    const len = word & 0xffff;
    let why: u32 = VdpdkRefusal.NONE;
    if (word >> 16 != VdpdkFlag.AVAIL) why = VdpdkRefusal.STALE;
    else if (len < <u32>VDPDK_BUFFER_MIN) why = VdpdkRefusal.LENGTH;
    else if (load<u64>(d) > <u64>load<u32>(q, VdpdkQueue.limit) - len) why = VdpdkRefusal.OUT_OF_REGION;
    // It has come just now.
    if (!why) return true;
    VdpdkQueues.refuse(q, why);
    return false;
  }

  /**
   * Copies the frames in `n` descriptors at `from` into the guest's buffers, each into as many as it takes; `headers`: the
   * first 16 bytes of each; `spare`: room for BURST_DESCRIPTORS. Those that find no room are dropped, counted.
   */
  static copy(q: usize, from: usize, n: u32, headers: usize, spare: usize): void {
    const all = from + n * Packet.SIZE;
    let copied: u32 = 0;
    while (from != all) {
      const left = <u32>(all - from) / Packet.SIZE;
      if (!VdpdkQueues.runs(q)) {
        Count.add(q + VdpdkQueue.droppedDown, Desc.frames(from, left));
        break;
      }
      let segments = VdpdkRx.copyBurst(q, from, left, headers, spare);
      let frames = segments;
      if (!segments) {
        segments = Desc.segments(from, left);
        frames = 1;
        if (VdpdkRx.copyOne(q, from, segments, v128.load(headers), spare)) copied++;
        else Count.add(q + (VdpdkQueues.runs(q) ? VdpdkQueue.droppedFull : VdpdkQueue.droppedDown), 1);
      } else copied += frames;
      from += segments * Packet.SIZE;
      headers += frames * 16;
    }
    if (copied) VdpdkQueues.tell(q);
  }

  /** Up to `most` frames that each fill no more than one buffer, of which nothing more is to be told. Returns how many. */
  static copyBurst(q: usize, from: usize, most: u32, headers: usize, spare: usize): u32 {
    if (load<u32>(q, VdpdkQueue.offloads)) return 0;
    const mask = load<u32>(q, VdpdkQueue.mask);
    const next = load<u32>(q, VdpdkQueue.next);
    const slot = next & mask;
    const base = load<u32>(q, VdpdkQueue.base);
    const limit = <u64>load<u32>(q, VdpdkQueue.limit);
    let d: usize = load<u32>(q, VdpdkQueue.ring) + slot * VdpdkDesc.SIZE;
    const first = d;
    let p = from;
    const toSpare = spare - from;
    for (
      const end = p + min(most, mask + 1 - slot) * Packet.SIZE;
      p != end;
      p += Packet.SIZE, d += VdpdkDesc.SIZE
    ) {
      const frame = load<u32>(p, Packet.len);
      if ((frame >> 16) & (PacketFlag.MORE | PacketFlag.REST)) break;
      const word = Sync.load<u32>(d + VdpdkDesc.len);
      if (word >> 16 != VdpdkFlag.AVAIL) break;
      const room = word & 0xffff;
      if (room < max<u32>(VDPDK_BUFFER_MIN, frame & 0xffff)) break;
      const addr = load<u64>(d);
      if (addr > limit - room) break;
      store<u32>(p + toSpare, <u32>addr + base);
    }
    const n = <u32>(p - from) / Packet.SIZE;
    if (!n) return 0;
    const bytes = Copy.frames(spare, 0, from, n, headers);
    for (let i: u32 = 1; i < n; i++) {
      store<u64>(
        first + i * VdpdkDesc.SIZE,
        <u64>load<u16>(from + i * Packet.SIZE, Packet.len),
        VdpdkDesc.len,
      );
    }
    store<u32>(first, 0, VdpdkDesc.offload);
    Sync.store<u32>(first + VdpdkDesc.len, load<u16>(from, Packet.len));
    VdpdkRx.countCopies(q, n, n, bytes);
    return n;
  }

  /** One frame of `segments` segments, with what is to be told of it. False where it found no room. */
  static copyOne(q: usize, from: usize, segments: u32, header: v128, spare: usize): bool {
    const bytes = Desc.bytes(from, segments);
    const k = VdpdkRx.buffers(q, spare, bytes);
    if (!k) return false;
    Copy.scatter(spare, 0, from, bytes, header);
    VdpdkRx.lengths(spare, k, bytes);
    const next = load<u32>(q, VdpdkQueue.next);
    const d = VdpdkQueues.descriptor(q, next);
    let known: u32 = 0;
    if (load<u32>(q, VdpdkQueue.emulates)) {
      const found = VdpdkRx.emulate(q, spare, k);
      known = found & 0xffff;
      store<u16>(d, <u16>(found >> 16), VdpdkDesc.tci);
    }
    const mark = <u32>load<u16>(from, Packet.mark);
    if (load<u32>(q, VdpdkQueue.offloads) & Offload.MARK && mark & RTE_FLOW_MARK) {
      known |= PacketFlag.RX_MARK;
      store<u16>(d, <u16>(mark & ~RTE_FLOW_MARK), VdpdkDesc.mss);
    }
    for (let i = k; i--; ) {
      const p = VdpdkQueues.descriptor(q, next + i);
      const more: u32 = i + 1 < k ? (<u32>VdpdkFlag.NEXT) << 16 : 0;
      store<u32>(p, i ? 0 : known, VdpdkDesc.offload);
      Sync.store<u32>(p + VdpdkDesc.len, <u32>load<u16>(spare + i * Packet.SIZE, Packet.len) | more);
    }
    VdpdkRx.countCopies(q, k, 1, bytes);
    return true;
  }

  /** `frames` frames in the next `n` descriptors are the guest's. */
  @inline static countCopies(q: usize, n: u32, frames: u32, bytes: u32): void {
    const next = load<u32>(q, VdpdkQueue.next) + n;
    store<u32>(q, next, VdpdkQueue.next);
    store<u32>(q, next, VdpdkQueue.done);
    VdpdkRx.count(q, frames, bytes);
    Count.add(q + VdpdkQueue.copies, frames);
    Count.add(q + VdpdkQueue.copiedBytes, bytes);
  }

  /** The guest's next buffers, as many as `bytes` take, to `to`; 0 where it has too few, or the queue was ended for one. */
  static buffers(q: usize, to: usize, bytes: u32): u32 {
    const next = load<u32>(q, VdpdkQueue.next);
    const base = load<u32>(q, VdpdkQueue.base);
    const most = min<u32>(load<u32>(q, VdpdkQueue.mask) + 1, VDPDK_SEGMENTS);
    let room: u32 = 0;
    let n: u32 = 0;
    for (; room < bytes; n++) {
      const d = VdpdkQueues.descriptor(q, next + n);
      if (n == most) return 0;
      const word = Sync.load<u32>(d + VdpdkDesc.len);
      const len = word & 0xffff;
      const addr = load<u64>(d);
      if (
        word >> 16 != VdpdkFlag.AVAIL ||
        len < <u32>VDPDK_BUFFER_MIN ||
        addr > <u64>load<u32>(q, VdpdkQueue.limit) - len
      ) {
        VdpdkRx.check(q, d);
        return 0;
      }
      v128.store(to + n * Packet.SIZE, Desc.make(<u32>addr + base, len, 0, 0, 0, 0, 0));
      room += len;
    }
    return n;
  }

  /** `bytes` stand in the `n` buffers at `list`, each but the last one full. */
  static lengths(list: usize, n: u32, bytes: u32): void {
    for (const end = list + n * Packet.SIZE; list != end; list += Packet.SIZE) {
      const some = min(bytes, <u32>load<u16>(list, Packet.len));
      store<u16>(list, <u16>some, Packet.len);
      bytes -= some;
    }
  }

  @inline static count(q: usize, frames: u32, bytes: u32): void {
    Count.add(q + VdpdkQueue.packets, frames);
    Count.add(q + VdpdkQueue.bytes, bytes);
  }
}
