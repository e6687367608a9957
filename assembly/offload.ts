/**
 * What a card, or the host in its place, does to frames beside moving them (layout: `Offload`): checksums of IPv4, UDP
 * and TCP, VLAN tags, and TCP's segmentation. Frames are lists of packet descriptors; headers stand in the first segment.
 */
import { Checksum } from "./checksum";
import { Copy } from "./copy";
import { FRAME_MAX, Offload, Packet, PacketFlag } from "./layout";
import { Parse } from "./parse";

const TCP: u32 = 6;
const UDP: u32 = 17;
const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86dd;
/** Most bytes of headers: Ethernet, two tags, IPv4 and TCP with all their options; rounded up. */
const HEADERS_MAX: u32 = 160;
/** Smallest payload of a segment that TSO makes: what RFC 879 leaves of the smallest datagram that every link carries. */
const MSS_MIN: u32 = 28;

export class Offloads {
  /**
   * Where the headers of the `len` bytes at `p` are: offset of the IP header | bytes of it << 16 | protocol << 32 |
   * version << 40. Protocol 0 where it isn't UDP or TCP, or a fragment; 0 where it isn't IP. `len` are those at hand.
   */
  static headers(p: usize, len: u32): u64 {
    const type = Parse.etherType(p, len);
    if (!type) return 0;
    const at = type + 2;
    const ip = p + at;
    const left = len - at;
    const ethertype = Parse.be16(p + type);
    if (ethertype == IPV4) {
      const bytes = Parse.ipv4Header(ip, left);
      if (!bytes) return 0;
      const fragment = Parse.be16(ip + 6) & 0x3fff;
      return Offloads.packed(at, bytes, fragment ? 0 : load<u8>(ip, 9), 4);
    }
    if (ethertype != IPV6 || left < 40 || load<u8>(ip) >> 4 != 6) return 0;
    return Offloads.packed(at, 40, load<u8>(ip, 6), 6);
  }

  @inline static packed(at: u32, bytes: u32, protocol: u32, version: u32): u64 {
    const known: u32 = protocol == TCP || protocol == UDP ? protocol : 0;
    return <u64>(at | (bytes << 16)) | ((<u64>(known | (version << 8))) << 32);
  }

  /** Bytes from the IP header on that the header says there are; what is behind is the link's padding. */
  @inline static datagram(ip: usize, version: u32): u32 {
    return version == 4 ? Parse.be16(ip + 2) : 40 + Parse.be16(ip + 4);
  }

  @inline static pseudo(ip: usize, version: u32, protocol: u32, bytes: u32): u64 {
    return version == 4
      ? Checksum.pseudo(ip + 12, ip + 16, 4, protocol, bytes)
      : Checksum.pseudo(ip + 8, ip + 24, 16, protocol, bytes);
  }

  /** Sum of `n` bytes of the frame of the segments at `list` from byte `at` on; they are there. */
  static sum(sum: u64, list: usize, at: u32, n: u32): u64 {
    let odd = false;
    while (n) {
      const len = <u32>load<u16>(list, Packet.len);
      if (at >= len) at -= len;
      else {
        const some = min(n, len - at);
        const part = Checksum.add(0, load<u32>(list, Packet.addr) + at, some);
        // Behind an odd number of bytes high and low ones have changed places.
        sum += odd ? <u64>bswap<u16>(<u16>(Checksum.finish(part) ^ 0xffff)) : part;
        odd = odd != ((some & 1) != 0);
        n -= some;
        at = 0;
      }
      list += Packet.SIZE;
    }
    return sum;
  }

  /** Of what `verify` finds, what these `offloads` ask for. */
  @inline static checksums(offloads: u32): u32 {
    const l3: u32 = offloads & Offload.IPV4_CHECKSUM ? PacketFlag.RX_IPV4_GOOD | PacketFlag.RX_IPV4_BAD : 0;
    const l4 = offloads & (Offload.UDP_CHECKSUM | Offload.TCP_CHECKSUM);
    return l3 | (l4 ? PacketFlag.RX_L4_GOOD | PacketFlag.RX_L4_BAD : 0);
  }

  /** What is found of a received frame's checksums: bits of PacketFlag, none where there is no checksum. */
  static verify(list: usize, bytes: u32): u32 {
    const first: usize = load<u32>(list, Packet.addr);
    const where = Offloads.headers(first, load<u16>(list, Packet.len));
    if (!where) return 0;
    const at = <u32>where & 0xffff;
    const l3 = <u32>where >> 16;
    const version = <u32>(where >> 40);
    const protocol = <u32>(where >> 32) & 0xff;
    const ip = first + at;
    let found: u32 = 0;
    if (version == 4) found = Checksum.of(ip, l3) ? PacketFlag.RX_IPV4_BAD : PacketFlag.RX_IPV4_GOOD;
    if (!protocol) return found;
    const total = Offloads.datagram(ip, version);
    const shortest: u32 = protocol == TCP ? 20 : 8;
    if (total > bytes - at || total < l3 + shortest) return found | PacketFlag.RX_L4_BAD;
    // A UDP datagram over IPv4 may have none (RFC 768).
    const end = at + l3 + shortest;
    if (protocol == UDP && version == 4) {
      if (<u32>load<u16>(list, Packet.len) < end) return found;
      if (!load<u16>(ip + l3, 6)) return found;
    }
    const l4 = total - l3;
    const sum = Offloads.sum(Offloads.pseudo(ip, version, protocol, l4), list, at + l3, l4);
    return found | (Checksum.finish(sum) ? PacketFlag.RX_L4_BAD : PacketFlag.RX_L4_GOOD);
  }

  /** `n` bytes of the frame at `list` from byte `at` on, side by side to `to`. */
  static gather(to: usize, list: usize, at: u32, n: u32): void {
    while (n) {
      const len = <u32>load<u16>(list, Packet.len);
      if (at >= len) at -= len;
      else {
        const some = min(n, len - at);
        Copy.bytes(to, load<u32>(list, Packet.addr) + at, some);
        to += some;
        n -= some;
        at = 0;
      }
      list += Packet.SIZE;
    }
  }

  /**
   * How many frames a frame becomes that is sent as `flags` (PacketFlag.TX_) ask for: frames | bytes of its headers << 16.
   * 0 where it can't be done: no TCP to cut, or frames that are too long. `scratch`: room for the headers.
   */
  static plan(scratch: usize, list: usize, bytes: u32, flags: u32, mss: u32): u32 {
    const tag: u32 = flags & PacketFlag.TX_VLAN ? 4 : 0;
    if (!(flags & PacketFlag.TX_TSO)) return bytes + tag > <u32>FRAME_MAX ? 0 : 1;
    const some = min(bytes, HEADERS_MAX);
    Offloads.gather(scratch, list, 0, some);
    const where = Offloads.headers(scratch, some);
    const protocol = <u32>(where >> 32) & 0xff;
    const l4 = (<u32>where & 0xffff) + (<u32>where >> 16);
    if (protocol != TCP || l4 + 20 > some) return 0;
    const header = l4 + <u32>(load<u8>(scratch + l4, 12) >> 4) * 4;
    if (header < l4 + 20 || header >= bytes || header > some) return 0;
    if (mss < MSS_MIN || header + mss + tag > <u32>FRAME_MAX) return 0;
    return ((bytes - header + mss - 1) / mss) | (header << 16);
  }

  /**
   * Frame `k` of those of `plan`, side by side to `to`, as `flags` ask for; `tci`: the VLAN tag. Returns its bytes.
   */
  static frame(to: usize, list: usize, bytes: u32, flags: u32, mss: u32, tci: u32, plan: u32, k: u32): u32 {
    const header = plan >> 16;
    let shift: u32 = 0;
    if (flags & PacketFlag.TX_VLAN) {
      Offloads.gather(to, list, 0, 12);
      store<u16>(to, 0x0081, 12);
      store<u16>(to, bswap<u16>(<u16>tci), 14);
      shift = 4;
    }
    let len = bytes;
    const start: u32 = shift ? 12 : 0;
    if (!header) Offloads.gather(to + start + shift, list, start, bytes - start);
    else {
      const done = k * mss;
      const payload = min(mss, bytes - header - done);
      Offloads.gather(to + start + shift, list, start, header - start);
      Offloads.gather(to + header + shift, list, header + done, payload);
      len = header + payload;
      Offloads.cut(to, len + shift, done, k, done + payload == bytes - header);
      // Each segment's checksums are its own.
      flags |= PacketFlag.TX_IPV4_CHECKSUM | PacketFlag.TX_L4_CHECKSUM;
    }
    len += shift;
    if (flags & (PacketFlag.TX_IPV4_CHECKSUM | PacketFlag.TX_L4_CHECKSUM)) Offloads.fill(to, len, flags);
    return len;
  }

  /** The headers of segment `k` of TCP, whose payload begins at `done` of the whole: lengths, numbers, flags. */
  static cut(frame: usize, len: u32, done: u32, k: u32, last: bool): void {
    const where = Offloads.headers(frame, len);
    const at = <u32>where & 0xffff;
    const l3 = <u32>where >> 16;
    // Its owner may have changed it since it was planned.
    if ((<u32>(where >> 32) & 0xff) != TCP || at + l3 + 20 > len) return;
    const ip = frame + at;
    if (where >> 40 == 4) {
      Checksum.put(ip + 2, len - at);
      Checksum.put(ip + 4, Parse.be16(ip + 4) + k);
    } else Checksum.put(ip + 4, len - at - 40);
    const tcp = ip + l3;
    store<u32>(tcp, bswap<u32>(Parse.be32(tcp + 4) + done), 4);
    // FIN and PSH belong to the last segment (RFC 9293, 3.8.2), CWR to the first (RFC 3168, 6.1.2).
    let bits = <u32>load<u8>(tcp, 13);
    if (!last) bits &= ~(<u32>0x09);
    if (k) bits &= ~(<u32>0x80);
    store<u8>(tcp, <u8>bits, 13);
  }

  /** Writes the checksums that `flags` ask for to the frame at `frame`; what isn't IP, UDP or TCP stays as it is. */
  static fill(frame: usize, len: u32, flags: u32): void {
    const where = Offloads.headers(frame, len);
    if (!where) return;
    const at = <u32>where & 0xffff;
    const l3 = <u32>where >> 16;
    const version = <u32>(where >> 40);
    const protocol = <u32>(where >> 32) & 0xff;
    const ip = frame + at;
    if (version == 4 && flags & PacketFlag.TX_IPV4_CHECKSUM) {
      store<u16>(ip, 0, 10);
      Checksum.put(ip + 10, Checksum.of(ip, l3));
    }
    if (!protocol || !(flags & PacketFlag.TX_L4_CHECKSUM)) return;
    const total = Offloads.datagram(ip, version);
    const shortest: u32 = protocol == TCP ? 20 : 8;
    if (total > len - at || total < l3 + shortest) return;
    const l4 = ip + l3;
    const field = l4 + (protocol == TCP ? 16 : 6);
    store<u16>(field, 0);
    const sum = Checksum.add(Offloads.pseudo(ip, version, protocol, total - l3), l4, total - l3);
    const value = Checksum.finish(sum);
    // Of UDP 0 would mean that there is none (RFC 768).
    Checksum.put(field, protocol == UDP && !value ? 0xffff : value);
  }
}
