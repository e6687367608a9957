/**
 * The packet descriptor as a value (layout: `Packet`). Always stored and loaded as one v128: two 8-byte
 * stores followed by a 16-byte load would stall on store forwarding.
 */
import { Packet, PacketFlag } from "./layout";

/** Of a packet descriptor's high half: owner and mark. */
export const OWNER_AND_MARK: u64 = 0xffff_0000_0000_ffff;

export class Desc {
  @inline static make(addr: u32, len: u32, flags: u32, owner: u32, index: u32, room: u32, mark: u32): v128 {
    const low = <u64>addr | ((<u64>len) << 32) | ((<u64>flags) << 48);
    const high = <u64>(owner | (index << 16)) | ((<u64>(room | (mark << 16))) << 32);
    return i64x2.replace_lane(i64x2.splat(low), 1, high);
  }
  @inline static addr(d: v128): u32 {
    return i32x4.extract_lane(d, 0);
  }
  @inline static len(d: v128): u32 {
    return i16x8.extract_lane_u(d, 2);
  }
  @inline static flags(d: v128): u32 {
    return i16x8.extract_lane_u(d, 3);
  }
  @inline static owner(d: v128): u32 {
    return i16x8.extract_lane_u(d, 4);
  }
  @inline static index(d: v128): u32 {
    return i16x8.extract_lane_u(d, 5);
  }
  @inline static room(d: v128): u32 {
    return i16x8.extract_lane_u(d, 6);
  }
  @inline static mark(d: v128): u32 {
    return i16x8.extract_lane_u(d, 7);
  }

  /** Segments of the frame that begins at `p`: 1 for nearly all. At most `limit`. */
  @inline static segments(p: usize, limit: u32): u32 {
    let n: u32 = 1;
    while (n < limit && load<u16>(p, Packet.flags) & PacketFlag.MORE) {
      p += Packet.SIZE;
      n++;
    }
    return n;
  }

  /** How many of the `n` descriptors from `p` on fit `room`, whole frames only. */
  static whole(p: usize, n: u32, room: u32): u32 {
    if (n <= room) return n;
    while (room && load<u16>(p + (room - 1) * Packet.SIZE, Packet.flags) & PacketFlag.MORE) room--;
    return room;
  }

  /** How many of `n` segments from `p` on are `owner`'s. */
  static owned(p: usize, n: u32, owner: u32): u32 {
    let owned: u32 = 0;
    for (let i: u32 = 0; i < n; i++) owned += u32(load<u16>(p + i * Packet.SIZE, Packet.owner) == owner);
    return owned;
  }

  /** Frames that end among `n` segments from `p` on. */
  static frames(p: usize, n: u32): u32 {
    let frames: u32 = 0;
    for (let i: u32 = 0; i < n; i++)
      frames += ~load<u16>(p + i * Packet.SIZE, Packet.flags) & PacketFlag.MORE;
    return frames;
  }

  /** Bytes in `n` segments from `p` on. */
  @inline static bytes(p: usize, n: u32): u32 {
    let sum: u32 = 0;
    for (let i: u32 = 0; i < n; i++) sum += load<u16>(p + i * Packet.SIZE, Packet.len);
    return sum;
  }

  /**
   * Copies `n` descriptors, each as one v128: `memory.copy` reads wider than the stores that are still on their way to
   * the cache, and waits for them.
   */
  static copy(to: usize, from: usize, n: u32): void {
    const end = from + n * Packet.SIZE;
    // A line's worth at a time.
    for (const lines = from + (n & ~3) * Packet.SIZE; from != lines; ) {
      const a = v128.load(from);
      const b = v128.load(from, 16);
      const c = v128.load(from, 32);
      const d = v128.load(from, 48);
      v128.store(to, a);
      v128.store(to, b, 16);
      v128.store(to, c, 32);
      v128.store(to, d, 48);
      from += 4 * Packet.SIZE;
      to += 4 * Packet.SIZE;
    }
    for (; from != end; from += Packet.SIZE, to += Packet.SIZE) v128.store(to, v128.load(from));
  }
}
