/**
 * Copying frames. `memory.copy` of 64 bytes costs 3.0 ns and four v128 pairs 1.4 ns; from 256 bytes on
 * `memory.copy` wins. Nothing is read or written outside [from, from + n) and [to, to + n).
 */

import { Packet } from "./layout";

/** Up to so many bytes 16-byte moves are faster than the call behind `memory.copy`. */
const SHORT: u32 = 256;

export class Copy {
  /** `n` bytes, 16 at least. The last 16 overlap what is before them. */
  static atLeast16(to: usize, from: usize, n: u32): void {
    if (n > SHORT) {
      memory.copy(to, from, n);
      return;
    }
    const last = n - 16;
    for (let i: u32 = 0; i < last; i += 16) v128.store(to + i, v128.load(from + i));
    v128.store(to + last, v128.load(from + last));
  }

  /** Any `n`. */
  static bytes(to: usize, from: usize, n: u32): void {
    if (n >= 16) Copy.atLeast16(to, from, n);
    else for (let i: u32 = 0; i < n; i++) store<u8>(to + i, load<u8>(from + i));
  }

  /**
   * `n` frames of one segment, from the descriptors at `from` into the buffers of those at `to`, behind `skip` free
   * bytes; each fits. The first 16 bytes of each are taken from `headers`: its owner may have changed them in the
   * meantime, and what is delivered must be what was checked. Writes the new lengths to `to`. Returns the bytes.
   */
  static frames(to: usize, skip: u32, from: usize, n: u32, headers: usize): u32 {
    // All three lists have steps of 16 bytes: one pointer, and how far away the others are.
    const toTarget = to - from;
    const toHeader = headers - from;
    let bytes: u32 = 0;
    for (const end = from + n * Packet.SIZE; from != end; ) {
      // Those of up to 64 bytes, without a call or a loop. The header is written last, over what is before `last`.
      for (; from != end; from += Packet.SIZE) {
        const len = <u32>load<u16>(from, Packet.len);
        if (len - 32 > 32) break;
        const source: usize = load<u32>(from);
        const target: usize = load<u32>(from + toTarget) + skip;
        const last = len - 32;
        const middle = v128.load(source, 16);
        v128.store(target + last, v128.load(source + last));
        v128.store(target + last, v128.load(source + last, 16), 16);
        v128.store(target, middle, 16);
        v128.store(target, v128.load(from + toHeader));
        store<u16>(from + toTarget, <u16>(len + skip), Packet.len);
        bytes += len;
      }
      if (from == end) break;
      const len = <u32>load<u16>(from, Packet.len);
      Copy.frame(load<u32>(from + toTarget) + skip, load<u32>(from), len, v128.load(from + toHeader));
      store<u16>(from + toTarget, <u16>(len + skip), Packet.len);
      bytes += len;
      from += Packet.SIZE;
    }
    return bytes;
  }

  /**
   * A frame of `n` bytes whose first 16 are `header`, the bytes that the switch decided by: its owner may
   * have changed them in the meantime, and what is delivered must be what was checked.
   */
  static frame(to: usize, from: usize, n: u32, header: v128): void {
    if (n >= 32) {
      v128.store(to, header);
      Copy.atLeast16(to + 16, from + 16, n - 16);
    } else Copy.shortFrame(to, from, n, header);
  }

  static shortFrame(to: usize, from: usize, n: u32, header: v128): void {
    let low = i64x2.extract_lane(header, 0);
    for (let i: u32 = 0; i < n; i++) {
      if (i == 8) low = i64x2.extract_lane(header, 1);
      if (i < 16) {
        store<u8>(to + i, <u8>low);
        low >>= 8;
      } else store<u8>(to + i, load<u8>(from + i));
    }
  }

  /** The first 16 bytes of a frame of `segments` segments; what it doesn't have reads as 0. */
  static header(p: usize, segments: u32): v128 {
    const first = load<u16>(p, Packet.len);
    if (first >= 16) return v128.load(load<u32>(p, Packet.addr));
    let low: u64 = 0;
    let high: u64 = 0;
    let at: u32 = 0;
    for (let s: u32 = 0; s < segments && at < 16; s++) {
      const from = load<u32>(p + s * Packet.SIZE, Packet.addr);
      const n = load<u16>(p + s * Packet.SIZE, Packet.len);
      for (let i: u32 = 0; i < n && at < 16; i++, at++) {
        const byte = <u64>load<u8>(from + i);
        if (at < 8) low |= byte << (at * 8);
        else high |= byte << ((at - 8) * 8);
      }
    }
    return i64x2.replace_lane(i64x2.splat(low), 1, high);
  }

  /**
   * Between two lists of segments: the frame `from` (first 16 bytes taken from `header`), `bytes` long, into
   * the buffers `to`, from byte `skip` of the first on. The caller has checked that it fits.
   * Returns how many of the buffers were used.
   */
  static scatter(to: usize, skip: u32, from: usize, bytes: u32, header: v128): u32 {
    let used: u32 = 1;
    let d = load<u32>(to, Packet.addr) + skip;
    let room = <u32>load<u16>(to, Packet.len) - skip;
    let s = load<u32>(from, Packet.addr);
    let have = <u32>load<u16>(from, Packet.len);
    let at: u32 = 0;
    while (at < bytes) {
      while (!room) {
        to += Packet.SIZE;
        d = load<u32>(to, Packet.addr);
        room = load<u16>(to, Packet.len);
        used++;
      }
      while (!have) {
        from += Packet.SIZE;
        s = load<u32>(from, Packet.addr);
        have = load<u16>(from, Packet.len);
      }
      let n = min(min(room, have), bytes - at);
      if (at < 16) {
        n = min(n, 16 - at);
        for (let i: u32 = 0; i < n; i++) {
          const k = at + i;
          const half = k < 8 ? i64x2.extract_lane(header, 0) : i64x2.extract_lane(header, 1);
          store<u8>(d + i, <u8>(half >> ((k & 7) * 8)));
        }
      } else Copy.bytes(d, s, n);
      d += n;
      s += n;
      room -= n;
      have -= n;
      at += n;
    }
    return used;
  }
}
