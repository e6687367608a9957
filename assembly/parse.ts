import { FlowKey } from "./layout";

/** A protocol number for what has no ports, "no next header" (RFC 8200, 4.7). */
const NONE: u32 = 59;

/**
 * Where a frame's fields are: Ethernet, up to two VLAN tags, IPv4, IPv6 and its extension headers, ports.
 * Works on one contiguous run of bytes and never reads past it.
 */
export class Parse {
  static readonly CUT: u32 = 0x100;
  static readonly LATER: u32 = 0x200;

  /** A u16 in network order. */
  @inline static be16(p: usize): u32 {
    return bswap<u16>(load<u16>(p));
  }
  @inline static be32(p: usize): u32 {
    return bswap<u32>(load<u32>(p));
  }

  /** The 48 bits of a MAC address, its first byte lowest. 8 bytes must be readable. */
  @inline static mac(p: usize): u64 {
    return load<u64>(p) & 0xffff_ffff_ffff;
  }

  /** Offset of the EtherType behind any VLAN tags (0x8100, 0x88a8), or 0 if the frame ends before. */
  static etherType(frame: usize, len: u32): u32 {
    let at: u32 = 12;
    for (let tags = 0; tags < 3; tags++) {
      if (at + 2 > len) return 0;
      const type = Parse.be16(frame + at);
      if (type != 0x8100 && type != 0x88a8) return at;
      at += 4;
    }
    return 0;
  }

  /** The flow that a frame belongs to, into `key` (layout: `FlowKey`). False when it isn't IP. */
  static flow(frame: usize, len: u32, key: usize): bool {
    v128.store(key, i64x2.splat(0));
    v128.store(key, i64x2.splat(0), FlowKey.destination);
    store<u64>(key, 0, FlowKey.sourcePort);
    const at = Parse.etherType(frame, len);
    if (!at) return false;
    const type = Parse.be16(frame + at);
    const ip = frame + at + 2;
    const left = len - at - 2;
    if (type == 0x0800) return Parse.ipv4(ip, left, key);
    if (type == 0x86dd) return Parse.ipv6(ip, left, key);
    store<u8>(key, 1, FlowKey.whole);
    return false;
  }

  /** Bytes of the IPv4 header at `ip`, of which `left` bytes are there; 0 if it isn't one, or isn't whole. */
  @inline static ipv4Header(ip: usize, left: u32): u32 {
    if (left < 20) return 0;
    const first = <u32>load<u8>(ip);
    const header = (first & 15) * 4;
    return first >> 4 == 4 && header >= 20 && header <= left ? header : 0;
  }

  static ipv4(ip: usize, left: u32, key: usize): bool {
    const header = Parse.ipv4Header(ip, left);
    if (!header) return false;
    store<u32>(key, load<u32>(ip, 12));
    store<u32>(key, load<u32>(ip, 16), FlowKey.destination);
    const protocol = load<u8>(ip, 9);
    store<u8>(key, protocol, FlowKey.protocol);
    store<u8>(key, 4, FlowKey.family);
    Parse.ports(ip + header, left - header, Parse.be16(ip + 6) & 0x1fff ? NONE : protocol, key);
    return true;
  }

  static ipv6(ip: usize, left: u32, key: usize): bool {
    if (left < 40 || load<u8>(ip) >> 4 != 6) return false;
    v128.store(key, v128.load(ip, 8));
    v128.store(key, v128.load(ip, 24), 16);
    store<u8>(key, 6, FlowKey.family);
    const upper = Parse.upper(ip, left);
    store<u8>(key, <u8>upper, FlowKey.protocol);
    const at = upper >> 16;
    if (!(upper & Parse.CUT)) Parse.ports(ip + at, left - at, upper & Parse.LATER ? NONE : upper & 0xff, key);
    return true;
  }

  /**
   * What is behind an IPv6 header and its extension headers: protocol | offset << 16, and the flags CUT, where they don't
   * end in the frame's `left` bytes, and LATER, in a later fragment.
   */
  static upper(ip: usize, left: u32): u32 {
    let next = <u32>load<u8>(ip, 6);
    let at: u32 = 40;
    let later = false;
    // RFC 8200, 4: hop-by-hop 0, routing 43, fragment 44, destination options 60, authentication 51 (RFC 4302).
    for (let hops = 0; next == 0 || next == 43 || next == 44 || next == 60 || next == 51; hops++) {
      // A later fragment doesn't hold the extension headers that it names: they are in the first.
      if (later || hops == 8 || at + 8 > left) return next | Parse.CUT;
      const header = ip + at;
      const units = <u32>load<u8>(header, 1);
      later = next == 44 && (Parse.be16(header + 2) & 0xfff8) != 0;
      at += next == 44 ? 8 : next == 51 ? (units + 2) * 4 : (units + 1) * 8;
      next = load<u8>(header);
    }
    return next | (at << 16) | (at > left ? Parse.CUT : 0) | (later ? Parse.LATER : 0);
  }

  /** TCP 6, UDP 17, UDP-Lite 136, SCTP 132 begin with two ports. The frame is whole if they are there. */
  static ports(l4: usize, left: u32, protocol: u32, key: usize): void {
    const has = protocol == 6 || protocol == 17 || protocol == 132 || protocol == 136;
    if (has && left < 4) return;
    if (has) store<u32>(key, load<u32>(l4), FlowKey.sourcePort);
    store<u8>(key, 1, FlowKey.whole);
  }
}
