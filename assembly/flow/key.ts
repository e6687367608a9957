/**
 * The key of a frame (layout: `FlowMatch`): what rules can look at, read from its head. A header that isn't whole, or
 * that says of itself what can't be, isn't there: its fields are 0, and so are those behind it.
 */
import { FlowFragment, FlowMatch } from "../layout";
import { Parse } from "../parse";

/** Protocol numbers. */
const ICMP: u32 = 1;
const TCP: u32 = 6;
const UDP: u32 = 17;
const ICMPV6: u32 = 58;
const SCTP: u32 = 132;

/** IPv6 extension headers that are gone through. */
const EXTENSIONS = 8;

export class Key {
  /**
   * Of a frame of `len` bytes whose first `have` lie at `frame`, to `key` (FlowMatch.WITH_OFFSETS bytes).
   */
  static extract(frame: usize, have: u32, len: u32, inPort: u32, key: usize): void {
    for (let i: usize = 0; i < <usize>FlowMatch.WITH_OFFSETS; i += 16) v128.store(key + i, i64x2.splat(0));
    store<u16>(key, <u16>inPort, FlowMatch.inPort);
    if (have < 14) return;
    store<u64>(key, load<u64>(frame));
    store<u32>(key, load<u32>(frame, 8), 8);
    let at: u32 = 12;
    let type = Parse.be16(frame + at);
    for (let tag: usize = 0; tag < 2 && (type == 0x8100 || type == 0x88a8) && at + 6 <= have; tag++) {
      const tci = load<u16>(frame + at, 2) | 0x10;
      store<u16>(key + (tag ? FlowMatch.vlanInner : FlowMatch.vlanTci), tci);
      at += 4;
      type = Parse.be16(frame + at);
    }
    at += 2;
    if (type < 0x600) type = 0x5ff;
    store<u16>(key, bswap<u16>(<u16>type), FlowMatch.dlType);
    if (type == 0x0800) Key.ipv4(frame, at, have, len, key);
    else if (type == 0x86dd) Key.ipv6(frame, at, have, len, key);
    else if (type == 0x0806) Key.arp(frame, at, have, key);
  }

  static ipv4(frame: usize, at: u32, have: u32, len: u32, key: usize): void {
    if (have - at < 20) return;
    const ip = frame + at;
    const first = <u32>load<u8>(ip);
    const header = (first & 15) * 4;
    const total = Parse.be16(ip + 2);
    if (first >> 4 != 4 || header < 20 || header > total || total > len - at) return;
    const protocol = <u32>load<u8>(ip, 9);
    store<u64>(key, load<u64>(ip, 12), FlowMatch.nwSrc);
    store<u8>(key, load<u8>(ip, 1), FlowMatch.nwTos);
    store<u8>(key, load<u8>(ip, 8), FlowMatch.nwTtl);
    store<u8>(key, <u8>protocol, FlowMatch.nwProto);
    store<u16>(key, <u16>at, FlowMatch.l3);
    const fragment = Parse.be16(ip + 6) & 0x3fff;
    const later = (fragment & 0x1fff) != 0;
    if (fragment) store<u8>(key, FlowFragment.ANY | (later ? FlowFragment.LATER : 0), FlowMatch.nwFrag);
    if (!later) Key.transport(frame, at + header, min(have, at + total), protocol, key);
  }

  static ipv6(frame: usize, at: u32, have: u32, len: u32, key: usize): void {
    if (have - at < 40) return;
    const ip = frame + at;
    const end = at + 40 + Parse.be16(ip + 4);
    if (load<u8>(ip) >> 4 != 6 || end > len) return;
    v128.store(key, v128.load(ip, 8), FlowMatch.ipv6Src);
    v128.store(key, v128.load(ip, 24), FlowMatch.ipv6Dst);
    store<u8>(key, <u8>(Parse.be16(ip) >> 4), FlowMatch.nwTos);
    store<u8>(key, load<u8>(ip, 7), FlowMatch.nwTtl);
    store<u16>(key, <u16>at, FlowMatch.l3);
    have = min(have, end);
    let next = <u32>load<u8>(ip, 6);
    let later = false;
    at += 40;
    // RFC 8200, 4: hop-by-hop 0, routing 43, fragment 44, destination options 60; authentication 51 (RFC 4302).
    for (let n = 0; next == 0 || next == 43 || next == 44 || next == 60 || next == 51; n++) {
      // A later fragment doesn't hold the headers that it names.
      if (later || n == EXTENSIONS || at + 8 > have) {
        later = true;
        break;
      }
      const header = frame + at;
      const units = <u32>load<u8>(header, 1);
      if (next == 44) {
        later = (Parse.be16(header + 2) & 0xfff8) != 0;
        // Offset 0 and no more to come: a fragment that is all of it (RFC 6946).
        if (Parse.be16(header + 2) & 0xfff9)
          store<u8>(key, FlowFragment.ANY | (later ? FlowFragment.LATER : 0), FlowMatch.nwFrag);
      }
      at += next == 44 ? 8 : next == 51 ? (units + 2) * 4 : (units + 1) * 8;
      next = load<u8>(header);
    }
    store<u8>(key, <u8>next, FlowMatch.nwProto);
    if (!later) Key.transport(frame, at, have, next, key);
  }

  static transport(frame: usize, at: u32, end: u32, protocol: u32, key: usize): void {
    if (at > end) return;
    const left = end - at;
    const l4 = frame + at;
    let ports: u32 = 0;
    if (protocol == TCP && left >= 20) {
      ports = load<u32>(l4);
      store<u16>(key, load<u16>(l4, 12) & 0xff0f, FlowMatch.tcpFlags);
    } else if ((protocol == UDP && left >= 8) || (protocol == SCTP && left >= 12)) ports = load<u32>(l4);
    else if ((protocol == ICMP || protocol == ICMPV6) && left >= 8)
      ports = ((<u32>load<u8>(l4)) << 8) | ((<u32>load<u8>(l4, 1)) << 24);
    else return;
    store<u32>(key, ports, FlowMatch.tpSrc);
    store<u16>(key, <u16>at, FlowMatch.l4);
  }

  /** Of Ethernet and IPv4 (RFC 826). */
  static arp(frame: usize, at: u32, have: u32, key: usize): void {
    if (have - at < 28) return;
    const arp = frame + at;
    if ((load<u64>(arp) & 0xffff_ffff_ffff) != 0x0406_0008_0100) return;
    const operation = Parse.be16(arp + 6);
    if (operation < 256) store<u8>(key, <u8>operation, FlowMatch.nwProto);
    store<u32>(key, load<u32>(arp, 14), FlowMatch.nwSrc);
    store<u32>(key, load<u32>(arp, 24), FlowMatch.nwDst);
    memory.copy(key + FlowMatch.arpSha, arp + 8, 6);
    memory.copy(key + FlowMatch.arpTha, arp + 18, 6);
    store<u16>(key, <u16>at, FlowMatch.l3);
  }
}
