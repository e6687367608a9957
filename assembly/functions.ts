/**
 * Network functions: what a guest does with a frame (layout: `GuestFunction`, `Rule`).
 * Each works in place on one frame's first segment and returns the length to send, 0 to drop it.
 */
import { Checksum } from "./checksum";
import { Count } from "./count";
import { FlowKey, Guest, GuestFunction, Rule } from "./layout";
import { Parse } from "./parse";

export class Functions {
  @inline static run(g: usize, which: u32, frame: usize, len: u32, whole: bool): u32 {
    if (which == GuestFunction.MACSWAP) return Functions.macswap(frame, len);
    if (which == GuestFunction.SINK) return 0;
    if (which == GuestFunction.L2FWD)
      return Functions.forward(frame, len, load<u64>(g, Guest.mac), Parse.mac(frame + 6));
    if (which == GuestFunction.FIREWALL) return Functions.firewall(g, frame, len);
    return whole ? Functions.echo(g, frame, len) : 0;
  }

  /** Destination and source change places. */
  @inline static macswap(frame: usize, len: u32): u32 {
    const h = v128.load(frame);
    v128.store(frame, i8x16.shuffle(h, h, 6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5, 12, 13, 14, 15));
    return len;
  }

  /** From `mac`, to `next`. */
  @inline static forward(frame: usize, len: u32, mac: u64, next: u64): u32 {
    store<u64>(frame, next | (mac << 48));
    store<u32>(frame, <u32>(mac >> 16), 8);
    return len;
  }

  /**
   * The first rule that matches decides; without one the frame is dropped. Allowed frames go back where they came from.
   *
   * A frame that can't be read up to its ports meets no rule and is dropped: none would see what it denies. These have
   * headers that are cut off (or go on in the frame's next buffer) or wrong about themselves, more than eight IPv6
   * extension headers, or more than two VLAN tags. What isn't IP is matched by rules that ask for nothing of IP.
   */
  static firewall(g: usize, frame: usize, len: u32): u32 {
    const rules: usize = load<u32>(g, Guest.table);
    const n = load<u32>(g, Guest.tableLength);
    const key = g + Guest.flow;
    Parse.flow(frame, len, key);
    if (!load<u8>(key, FlowKey.whole)) return 0;
    for (let i: u32 = 0; i < n; i++) {
      const rule = rules + i * Rule.SIZE;
      if (!Functions.matches(rule, key)) continue;
      Count.add(rule + Rule.hits, 1);
      return load<u8>(rule, Rule.allow) ? Functions.macswap(frame, len) : 0;
    }
    return 0;
  }

  static matches(rule: usize, key: usize): bool {
    const family = load<u8>(rule, Rule.family);
    const protocol = load<u8>(rule, Rule.protocol);
    if (family && family != load<u8>(key, FlowKey.family)) return false;
    if (protocol && protocol != load<u8>(key, FlowKey.protocol)) return false;
    if (!Functions.under(v128.load(key), v128.load(rule, Rule.source), v128.load(rule, Rule.sourceMask)))
      return false;
    const destinationMask = v128.load(rule, Rule.destinationMask);
    if (
      !Functions.under(
        v128.load(key, FlowKey.destination),
        v128.load(rule, Rule.destination),
        destinationMask,
      )
    )
      return false;
    const sourcePort = Parse.be16(key + FlowKey.sourcePort);
    const destinationPort = Parse.be16(key + FlowKey.destinationPort);
    return (
      sourcePort >= load<u16>(rule, Rule.sourcePortLow) &&
      sourcePort <= load<u16>(rule, Rule.sourcePortHigh) &&
      destinationPort >= load<u16>(rule, Rule.destinationPortLow) &&
      destinationPort <= load<u16>(rule, Rule.destinationPortHigh)
    );
  }

  @inline static under(value: v128, wanted: v128, mask: v128): bool {
    return !v128.any_true(v128.and(v128.xor(value, wanted), mask));
  }

  /**
   * Answers ARP requests (RFC 826) and ICMP and ICMPv6 echo requests (RFC 792, RFC 4443); drops the rest, and what
   * was flooded for another station or says that it comes from a group.
   */
  static echo(g: usize, frame: usize, len: u32): u32 {
    const mac = load<u64>(g, Guest.mac);
    const to = Parse.mac(frame);
    if ((to != mac && !(to & 1)) || load<u8>(frame, 6) & 1) return 0;
    const at = Parse.etherType(frame, len);
    if (!at) return 0;
    const type = Parse.be16(frame + at);
    const l3 = frame + at + 2;
    const left = len - at - 2;
    let answer: bool = false;
    if (type == 0x0806) answer = Functions.arp(g, l3, left, mac);
    // No frame to a group may carry an IP packet to one station (RFC 1122, 3.3.6).
    else if (type == 0x0800 && to == mac) answer = Functions.echo4(g, l3, left);
    else if (type == 0x86dd && to == mac) answer = Functions.echo6(l3, left);
    return answer ? Functions.forward(frame, len, mac, Parse.mac(frame + 6)) : 0;
  }

  static arp(g: usize, l3: usize, left: u32, mac: u64): bool {
    // Ethernet, IPv4, request
    if (left < 28 || load<u64>(l3) != 0x0100_0406_0008_0100) return false;
    const asked = load<u32>(l3, 24);
    const mine = load<u32>(g, Guest.ipv4);
    if (mine && mine != asked) return false;
    store<u8>(l3, 2, 7);
    const asker = Parse.mac(l3 + 8);
    const askerIp = load<u32>(l3, 14);
    store<u32>(l3, <u32>mac, 8);
    store<u16>(l3, <u16>(mac >> 32), 12);
    store<u32>(l3, asked, 14);
    store<u32>(l3, <u32>asker, 18);
    store<u16>(l3, <u16>(asker >> 32), 22);
    store<u32>(l3, askerIp, 24);
    return true;
  }

  static echo4(g: usize, ip: usize, left: u32): bool {
    if (left < 28) return false;
    const header = <u32>(load<u8>(ip) & 15) * 4;
    const total = Parse.be16(ip + 2);
    const fragment = Parse.be16(ip + 6) & 0x3fff;
    if (load<u8>(ip) >> 4 != 4 || header < 20 || header + 8 > total || total > left) return false;
    if (load<u8>(ip, 9) != 1 || fragment || Checksum.of(ip, header)) return false;
    // No group, nor broadcast, may be an answer's source or be sent one (RFC 1122, 3.2.1.3).
    if (max<u32>(load<u8>(ip, 12), load<u8>(ip, 16)) >= 224) return false;
    const mine = load<u32>(g, Guest.ipv4);
    const source = load<u32>(ip, 12);
    const destination = load<u32>(ip, 16);
    const icmp = ip + header;
    if ((mine && mine != destination) || load<u8>(icmp) != 8) return false;
    store<u32>(ip, destination, 12);
    store<u32>(ip, source, 16);
    store<u8>(icmp, 0);
    Functions.adjust(icmp + 2, 0xffff - 0x0800);
    // The sum of zeros only is 0, that of anything else 0xffff: the update can't tell them apart.
    if (!load<u16>(icmp, 2) && Checksum.of(icmp, total - header) == 0xffff) Checksum.put(icmp + 2, 0xffff);
    return true;
  }

  static echo6(ip: usize, left: u32): bool {
    if (left < 48 || load<u8>(ip) >> 4 != 6 || load<u8>(ip, 6) != 58 || load<u8>(ip, 40) != 128) return false;
    const payload = Parse.be16(ip + 4);
    if (payload < 8 || payload > left - 40) return false;
    // A multicast destination can't be the answer's source (RFC 4443, 4.2), nor any source (RFC 4291, 2.7).
    if (max<u32>(load<u8>(ip, 8), load<u8>(ip, 24)) == 0xff) return false;
    const source = v128.load(ip, 8);
    v128.store(ip, v128.load(ip, 24), 8);
    v128.store(ip, source, 24);
    store<u8>(ip, 129, 40);
    Functions.adjust(ip + 42, 0x8100 - 0x8000);
    return true;
  }

  /** A checksum over data whose one's complement sum grew by `by` (RFC 1624, eqn. 3). */
  static adjust(p: usize, by: u32): void {
    Checksum.put(p, Checksum.finish((Parse.be16(p) ^ 0xffff) + by));
  }
}
