/**
 * A netmap port of the switch: VALE's (netmap_vale.c), with one copy for each hop through it.
 *
 *     rx   the user's transmit ring -> frames. They stay in its buffers until the switch has copied them to where they
 *          go: when all have gone, their slots are the user's again (`sent`).
 *     tx   frames -> buffers of the user's receive ring, in one batch
 *
 * As over vhost a frame can be changed by its owner at any time: its first 16 bytes are read once and written to every
 * copy.
 */
import { Copy } from "../copy";
import { Count } from "../count";
import {
  Drop,
  Kring,
  NETMAP_FIRST,
  NETMAP_FRAGMENTS,
  NetmapRing,
  NetmapSlot,
  Packet,
  Port,
  SlotFlag,
  SlotRefusal,
} from "../layout";
import { Desc } from "../packet";
import { Krings } from "./kring";

export class NetmapPorts {
  /** Up to `max` frames that the user sends, to `to` (room for `room` descriptors). Returns the descriptors. */
  static rx(port: usize, to: usize, max: u32, room: u32): u32 {
    const k: usize = load<u32>(port, Port.from);
    if (!load<u32>(k, Kring.running)) return 0;
    // A burst that a lookup failed on was dropped, and is over.
    Krings.sent(k, load<u32>(k, Kring.taken));
    Krings.prologue(k);
    const mask = load<u32>(k, Kring.mask);
    const head = load<u32>(k, Kring.rhead);
    const slots: usize = load<u32>(k, Kring.ring) + NetmapRing.slots;
    const begin = to;
    let at = load<u32>(k, Kring.hwcur);
    // What is refused takes time too: no more than the ring's worth of it.
    while (max && at != head) {
      const straight = min(min((head - at) & mask, mask + 1 - at), max);
      let p = slots + at * NetmapSlot.SIZE;
      const first = p;
      const end = load<u32>(k, Kring.skipping) ? p : p + straight * NetmapSlot.SIZE;
      for (; p != end; p += NetmapSlot.SIZE) {
        const s = v128.load(p);
        const buffer = <u32>i32x4.extract_lane(s, 0) - NETMAP_FIRST;
        const word = Krings.plain(i32x4.extract_lane(s, 1));
        if (u32(buffer >= load<u32>(k, Kring.count)) | u32(word - 1 >= load<u32>(k, Kring.room))) break;
        const d = i32x4.replace_lane(
          v128.load(k, Kring.blank),
          0,
          load<u32>(k, Kring.base) + buffer * load<u32>(k, Kring.stride),
        );
        v128.store(to, i32x4.replace_lane(d, 1, word));
        to += Packet.SIZE;
      }
      const n = <u32>(p - first) / NetmapSlot.SIZE;
      at = (at + n) & mask;
      max -= n;
      if (n == straight) continue;
      if (room - <u32>(to - begin) / Packet.SIZE < <u32>NETMAP_FRAGMENTS) break;
      const taken = Krings.take(k, at, (head - at) & mask, to);
      if (!taken) break;
      at = (at + (taken >> 16)) & mask;
      to += (taken & 0xffff) * Packet.SIZE;
      max--;
    }
    store<u32>(k, at, Kring.taken);
    return <u32>(to - begin) / Packet.SIZE;
  }

  /** What `rx` gave has gone where it went. */
  static sent(port: usize): void {
    const k: usize = load<u32>(port, Port.from);
    Krings.sent(k, load<u32>(k, Kring.taken));
  }

  /** `frames` frames (`n` descriptors) to the user; `headers`: the first 16 bytes of each; `spare`: room for buffers. */
  static tx(port: usize, from: usize, n: u32, frames: u32, headers: usize, spare: usize, alike: u32): void {
    const k: usize = load<u32>(port, Port.to);
    if (!load<u32>(k, Kring.running)) {
      Count.add(port + Port.drops + Drop.DOWN * 8, frames);
      return;
    }
    let left = Krings.toFill(k);
    let at = load<u32>(k, Kring.hwtail);
    while (n && left) {
      // Those of one segment that fit a buffer, then one of any other kind.
      const room = load<u32>(k, Kring.room);
      let run: u32 = n;
      if (!alike || alike > room) {
        run = 0;
        while (run < n && load<u32>(from + run * Packet.SIZE, Packet.len) <= room) run++;
      }
      let used: u32;
      let segments: u32;
      if (run) {
        const got = NetmapPorts.buffers(k, at, left, spare, run);
        used = got >> 16;
        segments = got & 0xffff;
        NetmapPorts.copyRun(port, k, from, segments, headers, spare);
        frames -= segments;
        headers += segments * 16;
      } else {
        segments = Desc.segments(from, n);
        used = NetmapPorts.copyOne(port, k, at, left, from, segments, v128.load(headers), spare);
        frames--;
        headers += 16;
      }
      at += used;
      left -= used;
      from += segments * Packet.SIZE;
      n -= segments;
    }
    if (frames) Count.add(port + Port.drops + Drop.FULL * 8, frames);
    if ((at & load<u32>(k, Kring.mask)) != load<u32>(k, Kring.hwtail)) Krings.filled(k, at);
  }

  /**
   * Buffers of up to `n` slots from `at` on, of `left` that can be filled, to `to`, with the slot's address behind each.
   * Slots that name none are handed back empty. Returns the slots << 16 | buffers.
   */
  @inline static buffers(k: usize, at: u32, left: u32, to: usize, n: u32): u32 {
    const slots: usize = load<u32>(k, Kring.ring) + NetmapRing.slots;
    const mask = load<u32>(k, Kring.mask);
    const begin = to;
    const end = to + n * Packet.SIZE;
    let used: u32 = 0;
    for (; used < left && to != end; used++) {
      const slot = slots + ((at + used) & mask) * NetmapSlot.SIZE;
      const buffer = load<u32>(slot) - NETMAP_FIRST;
      if (buffer >= load<u32>(k, Kring.count)) {
        Krings.skip(k, slot, SlotRefusal.INDEX);
        continue;
      }
      store<u32>(to, load<u32>(k, Kring.base) + buffer * load<u32>(k, Kring.stride));
      store<u32>(to, <u32>slot, Packet.owner);
      to += Packet.SIZE;
    }
    return (used << 16) | (<u32>(to - begin) / Packet.SIZE);
  }

  /** `n` frames of one segment into as many buffers, and what they are to their slots. */
  @inline static copyRun(port: usize, k: usize, from: usize, n: u32, headers: usize, to: usize): void {
    const bytes = Copy.frames(to, 0, from, n, headers);
    for (const end = to + n * Packet.SIZE; to != end; to += Packet.SIZE) {
      store<u32>(load<u32>(to, Packet.owner), load<u16>(to, Packet.len), NetmapSlot.len);
    }
    NetmapPorts.count(port, n, bytes);
  }

  /** A frame over as many slots as it takes. Returns those that were used: none, and it is counted, if it doesn't fit. */
  static copyOne(
    port: usize,
    k: usize,
    at: u32,
    left: u32,
    from: usize,
    segments: u32,
    header: v128,
    spare: usize,
  ): u32 {
    const room = load<u32>(k, Kring.room);
    const bytes = Desc.bytes(from, segments);
    const n = (bytes + room - 1) / room;
    if (n > min<u32>(NETMAP_FRAGMENTS, load<u32>(k, Kring.mask))) {
      Count.add(port + Port.drops + Drop.TOO_LARGE * 8, 1);
      return 0;
    }
    const got = NetmapPorts.buffers(k, at, left, spare, n);
    if ((got & 0xffff) < n) {
      Count.add(port + Port.drops + Drop.FULL * 8, 1);
      // Only slots of no use may have been passed over: the others are filled by the next frame that fits.
      return got & 0xffff ? 0 : got >> 16;
    }
    for (let i: u32 = 0; i < n; i++) {
      const len = min(room, bytes - i * room);
      const flags: u32 = i + 1 < n ? SlotFlag.MOREFRAG : 0;
      const p = spare + i * Packet.SIZE;
      store<u32>(p, len, Packet.len);
      store<u32>(load<u32>(p, Packet.owner), len | (flags << 16), NetmapSlot.len);
    }
    Copy.scatter(spare, 0, from, bytes, header);
    NetmapPorts.count(port, 1, bytes);
    return got >> 16;
  }

  @inline static count(port: usize, frames: u32, bytes: u64): void {
    Count.add(port + Port.txPackets, frames);
    Count.add(port + Port.txBytes, bytes);
    Count.add(port + Port.copies, frames);
    Count.add(port + Port.copiedBytes, bytes);
  }
}
