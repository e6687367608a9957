/**
 * Learning bridge (802.1D, 7.7 to 7.9; netmap's VALE): where the frames of a burst go, by destination MAC, and
 * which addresses are behind the port that they came from. Another kind of lookup has this same one function:
 *
 *     classify(switch, port, n descriptors in Switch.packets) -> the frames; Switch.common and .alike of the burst;
 *         Switch.destination and .headers of each frame, unless .common says it all (frames nobody read: no headers)
 *
 * A frame with a mark goes where the NIC's filter said, and isn't read: the guest's core is the first to touch
 * it. Of a burst of such frames one source is learned, and checked (docs/design.md).
 */

import { Copy } from "./copy";
import { Count } from "./count";
import { Objects } from "./directory";
import {
  Destination,
  Drop,
  FRAME_MAX,
  FRAME_MIN,
  Kind,
  Lookup,
  MacEntry,
  Packet,
  PacketFlag,
  Port,
  RTE_FLOW_MARK,
  Switch,
} from "./layout";
import { Macs } from "./mactable";
import { Desc, OWNER_AND_MARK } from "./packet";

/** Of `Learning.read`: the whole burst is between the same two stations, with the same mark. */
const ONE_WAY: u32 = 0x10000;

/**
 * The innermost loops make no call: what needs one ends the loop, is dealt with, and the loop begins anew. An
 * engine keeps nothing in registers over a call, not even over one that is hardly ever made.
 */
export class Learning {
  /**
   * Where the `n` descriptors in `Switch.packets` go: a destination for each frame, and the burst's summary
   * (`Switch.common`, `Switch.alike`). Returns the frames.
   */
  static classify(sw: usize, port: usize, n: u32): u32 {
    store<u32>(sw, 0, Switch.alike);
    store<u32>(sw, Destination.MIXED, Switch.common);
    // Which VLAN a frame is in only the frame says.
    if (load<u32>(sw, Switch.vlanAware)) return Learning.classifyRest(sw, port, 0, n);
    const trusted = load<u32>(port, Port.trustsMark) != 0;
    const packets = sw + Switch.packets;
    if (trusted && load<u16>(packets, Packet.mark)) {
      const sameWay = Learning.classifyMapped(sw, port, n);
      if (sameWay) return sameWay;
    }
    const plain = Learning.read(sw, port, n);
    const f = plain & 0xffff;
    if (plain & ONE_WAY) {
      const h = v128.load(sw + Switch.headers);
      const mark: u32 = trusted ? load<u16>(packets, Packet.mark) : 0;
      const to = Learning.oneByOne(sw, port, h, mark, 0);
      // What is dropped is counted one by one.
      if (to != Destination.DROP) {
        if (to < <u32>Destination.MIXED) store<u32>(sw, to, Switch.common);
        else for (let i: u32 = 0; i < n; i++) store<u16>(sw + Switch.destination + i * 2, <u16>to);
        return n;
      }
      store<u16>(sw + Switch.destination, <u16>to);
      Learning.lookupEach(sw, port, trusted, 1, n);
      return n;
    }
    Learning.lookupEach(sw, port, trusted, 0, f);
    return f == n ? n : Learning.classifyRest(sw, port, f, n);
  }

  /**
   * Headers of the whole frames of one segment in front of the burst, before any is looked at: so their lines are on the
   * way side by side. Returns how many, with ONE_WAY where it holds; `Switch.alike` of the burst.
   */
  static read(sw: usize, port: usize, n: u32): u32 {
    const packets = sw + Switch.packets;
    const kind = load<u64>(packets, Packet.owner) & OWNER_AND_MARK;
    const end = packets + n * Packet.SIZE;
    if (Learning.isUnusual(load<u32>(packets, Packet.len))) return 0;
    const same = v128.load(load<u32>(packets));
    let differ = i64x2.splat(0);
    let others: u64 = 0;
    let bytes: u32 = 0;
    let lengths: u32 = 0;
    let p = packets;
    for (; p != end; p += Packet.SIZE) {
      const word = load<u32>(p, Packet.len);
      if (Learning.isUnusual(word)) break;
      const h = v128.load(load<u32>(p));
      v128.store(p, h, Switch.headers - Switch.packets);
      differ = v128.or(differ, v128.xor(h, same));
      others |= (load<u64>(p, Packet.owner) & OWNER_AND_MARK) ^ kind;
      bytes += word;
      lengths |= word;
    }
    Count.add(port + Port.rxBytes, bytes);
    const f = <u32>(p - packets) / Packet.SIZE;
    if (f != n) return f;
    store<u32>(sw, <u16>others ? 0 : lengths, Switch.alike);
    const stations = i64x2.extract_lane(differ, 0) | i32x4.extract_lane(differ, 2);
    return stations | others ? f : f | ONE_WAY;
  }

  /** Destinations of the frames from number `f` to before `end`, whose headers are read. */
  static lookupEach(sw: usize, port: usize, trusted: bool, f: u32, end: u32): void {
    const macs: usize = load<u32>(sw, Switch.macs);
    const now = Objects.now();
    const ageing = load<u32>(sw, Switch.ageing);
    // An entry's value and stamp, of a source that is where it was, in this second or for good.
    const here = <u64>load<u32>(port, Port.index) | ((<u64>now) << 32);
    const fixed = here | 0xffff_ffff_0000_0000;
    const marks: u32 = trusted ? 0xffff : 0;
    const last = sw + Switch.headers + end * 16;
    let known: u64 = 0;
    let header = sw + Switch.headers + f * 16;
    let at = sw + Switch.destination + f * 2;
    while (header != last) {
      // Known stations, without a call.
      for (; header != last; header += 16, at += 2) {
        if (load<u16>(header - (Switch.headers - Switch.packets), Packet.mark) & marks) break;
        const low = load<u64>(header);
        const source = Macs.key((low >> 48) | ((<u64>load<u32>(header, 8)) << 16), 0);
        if (source != known) {
          const s = Macs.find(macs, source);
          if (!s) break;
          const seen = load<u64>(s, MacEntry.value);
          if (seen != here && seen != fixed) break;
          known = source;
        }
        const e = Macs.find(macs, Macs.key(low & 0xffff_ffff_ffff, 0));
        if (!e) break;
        const to = load<u32>(e, MacEntry.value);
        if (to == <u32>here) break;
        const stamp = load<u32>(e, MacEntry.stamp);
        if (now - stamp > ageing && stamp != MacEntry.STATIC) break;
        store<u16>(at, <u16>to);
      }
      if (header == last) break;
      const i = <u32>(at - sw - Switch.destination) / 2;
      const mark = <u32>load<u16>(sw + Switch.packets + i * Packet.SIZE, Packet.mark) & marks;
      store<u16>(at, <u16>Learning.oneByOne(sw, port, v128.load(header), mark, i));
      header += 16;
      at += 2;
    }
  }

  /** Where frame `f` goes, by its mark if it has one. */
  static oneByOne(sw: usize, port: usize, h: v128, mark: u32, f: u32): u32 {
    const known: u32 = mark ? Learning.marked(sw, mark) : 0;
    if (known) return Learning.steered(sw, port, h, known);
    return Learning.lookup(sw, port, h, f);
  }

  /** `len` and `flags` of what isn't one whole segment with a header of 16 bytes, or is longer than any frame. */
  @inline static isUnusual(word: u32): bool {
    return word - 16 > <u32>FRAME_MAX - 16;
  }

  /**
   * All `n` descriptors are whole frames that the NIC's filter sent to one port, and that port takes their buffers
   * as they are: nobody needs to read them. Returns the frames, or 0 if it isn't so.
   */
  static classifyMapped(sw: usize, port: usize, n: u32): u32 {
    const packets = sw + Switch.packets;
    const kind = load<u64>(packets, Packet.owner) & OWNER_AND_MARK;
    const known = Learning.marked(sw, <u32>(kind >> 48));
    if (!known) return 0;
    const out: usize = load<u32>(load<u32>(sw, Switch.table) + (known - 1) * 4);
    if (load<u32>(out, Port.takes) != <u32>(<u16>kind) || Learning.isUnusual(load<u32>(packets, Packet.len)))
      return 0;
    let bytes: u32 = 0;
    let p = packets;
    for (const end = p + n * Packet.SIZE; p != end; p += Packet.SIZE) {
      const word = load<u32>(p, Packet.len);
      if (word > 0xffff) return 0;
      if ((load<u64>(p, Packet.owner) & OWNER_AND_MARK) != kind) return 0;
      bytes += word;
    }
    // A burst that begins with a spoofed frame is read, and dropped one by one.
    if (!Learning.learn(sw, port, v128.load(load<u32>(packets)))) return 0;
    Count.add(port + Port.rxBytes, bytes);
    store<u32>(sw, 0xffff, Switch.alike);
    store<u32>(sw, known - 1, Switch.common);
    return n;
  }

  /** Frames from number `f` on, whatever they are; those before are of one segment each. */
  static classifyRest(sw: usize, port: usize, f: u32, n: u32): u32 {
    const packets = sw + Switch.packets;
    const frames = Learning.index(sw, n);
    const trusted = load<u32>(port, Port.trustsMark) && !load<u32>(sw, Switch.vlanAware);
    let bytes: u32 = 0;
    for (; f < frames; f++) {
      const at = <u32>load<u16>(sw + Switch.first + f * 2);
      const p = packets + at * Packet.SIZE;
      const segments = <u32>load<u16>(sw + Switch.first + f * 2 + 2) - at;
      const h = Copy.header(p, segments);
      v128.store(sw + Switch.headers + f * 16, h);
      const len = Desc.bytes(p, segments);
      const mark = <u32>load<u16>(p, Packet.mark);
      bytes += len;
      let to: u32;
      const flags = load<u16>(p, Packet.flags);
      if (flags & PacketFlag.NO_LEARN) store<u16>(p, flags & ~PacketFlag.NO_LEARN, Packet.flags);
      if (Learning.isRunt(sw, h, len)) to = Learning.drop(port, Drop.RUNT);
      else if (flags & PacketFlag.NO_LEARN) to = Learning.lookupOnly(sw, port, h, f);
      else if (trusted && mark && Learning.marked(sw, mark))
        to = Learning.steered(sw, port, h, Learning.marked(sw, mark));
      else to = Learning.lookup(sw, port, h, f);
      store<u16>(sw + Switch.destination + f * 2, <u16>to);
    }
    Count.add(port + Port.rxBytes, bytes);
    return frames;
  }

  /** Without an Ethernet header; on a VLAN-aware switch, where a tag can be taken off, without one behind it. */
  @inline static isRunt(sw: usize, h: v128, len: u32): bool {
    const tagged = load<u32>(sw, Switch.vlanAware) && Learning.isTagged(h);
    return len < <u32>FRAME_MIN + (tagged ? 4 : 0);
  }

  /** Where each frame begins, to `Switch.first`. Returns the frames. */
  static index(sw: usize, n: u32): u32 {
    let f: u32 = 0;
    for (let i: u32 = 0; i < n; f++) {
      store<u16>(sw + Switch.first + f * 2, <u16>i);
      i += Desc.segments(sw + Switch.packets + i * Packet.SIZE, n - i);
    }
    store<u16>(sw + Switch.first + f * 2, <u16>n);
    return f;
  }

  @inline static drop(port: usize, why: u32): u32 {
    Count.add(port + Port.drops + why * 8, 1);
    return Destination.DROP;
  }

  /** Source: bytes 6 to 11 of the header. */
  @inline static source(h: v128): u64 {
    return (<u64>i64x2.extract_lane(h, 0) >> 48) | ((<u64>i64x2.extract_lane(h, 1) & 0xffff_ffff) << 16);
  }

  /** The VLAN that a frame is in: its tag's, or the port's own; 0 on a switch that takes no notice of VLANs. */
  @inline static vlan(sw: usize, port: usize, h: v128): u32 {
    if (!load<u32>(sw, Switch.vlanAware)) return 0;
    // Priority-tagged frames (VLAN 0) count as untagged (802.1Q, 6.9.1).
    const tag = Learning.isTagged(h) ? Learning.tag(h) & 0xfff : 0;
    return tag ? tag : load<u32>(port, Port.pvid);
  }

  /** 0x8100 at byte 12. */
  @inline static isTagged(h: v128): bool {
    return i16x8.extract_lane_u(h, 6) == 0x0081;
  }

  /** Priority and VLAN of a tagged frame. */
  @inline static tag(h: v128): u32 {
    return bswap<u16>(<u16>i16x8.extract_lane_u(h, 7));
  }

  static learn(sw: usize, port: usize, h: v128): bool {
    return Learning.learnKey(sw, port, Macs.key(Learning.source(h), Learning.vlan(sw, port, h)));
  }

  /** 1 + the port that a mark other than 0 names: a filter's itself, a rule's by what `Switch.marks` says; 0 for none. */
  @inline static marked(sw: usize, mark: u32): u32 {
    if (mark < <u32>RTE_FLOW_MARK) return mark <= load<u32>(sw, Switch.ports) ? mark : 0;
    const marks: usize = load<u32>(sw, Switch.marks);
    return marks ? load<u16>(marks + (mark - RTE_FLOW_MARK) * 2) : 0;
  }

  /** Where a frame with a mark goes; its source is learned, or it is dropped. */
  @inline static steered(sw: usize, port: usize, h: v128, known: u32): u32 {
    return Learning.learn(sw, port, h) ? known - 1 : Learning.drop(port, Drop.SPOOFED);
  }

  /** False if the source is a static address of another port. Group addresses are not learned. */
  @inline static learnKey(sw: usize, port: usize, key: u64): bool {
    const now = Objects.now();
    if (key == load<u64>(port, Port.lastKey) && now == load<u32>(port, Port.lastSecond)) return true;
    return Learning.learnNew(sw, port, key, now);
  }

  static learnNew(sw: usize, port: usize, key: u64, now: u32): bool {
    if (<u32>key & 1) return true;
    const macs: usize = load<u32>(sw, Switch.macs);
    const index = load<u32>(port, Port.index);
    const e = Macs.find(macs, key);
    if (e) {
      const moved = load<u32>(e, MacEntry.value) != index;
      if (load<u32>(e, MacEntry.stamp) == MacEntry.STATIC) {
        if (moved) return false;
      } else {
        if (!load<u32>(port, Port.learning)) return true;
        if (moved) {
          // Whoever had learned it last must look it up again, and so must the port that it left.
          const left: usize = load<u32>(load<u32>(sw, Switch.table) + load<u32>(e, MacEntry.value) * 4);
          if (left) store<u64>(left, 0, Port.lastKey);
          store<u32>(e, index, MacEntry.value);
        }
        store<u32>(e, now, MacEntry.stamp);
      }
    } else {
      if (!load<u32>(port, Port.learning)) return true;
      Macs.insert(macs, key, index, now);
    }
    store<u64>(port, key, Port.lastKey);
    store<u32>(port, now, Port.lastSecond);
    return true;
  }

  static lookup(sw: usize, port: usize, h: v128, f: u32): u32 {
    const vlan = Learning.vlan(sw, port, h);
    if (load<u32>(sw, Switch.vlanAware) && !Learning.isIn(sw, port, vlan, f))
      return Learning.drop(port, Drop.VLAN);
    if (!Learning.learnKey(sw, port, Macs.key(Learning.source(h), vlan)))
      return Learning.drop(port, Drop.SPOOFED);
    return Learning.find(sw, port, h, vlan);
  }

  /** The same for a frame whose source isn't to be learned (NO_LEARN); a static one is checked all the same. */
  static lookupOnly(sw: usize, port: usize, h: v128, f: u32): u32 {
    const vlan = Learning.vlan(sw, port, h);
    if (load<u32>(sw, Switch.vlanAware) && !Learning.isIn(sw, port, vlan, f))
      return Learning.drop(port, Drop.VLAN);
    const e = Macs.find(load<u32>(sw, Switch.macs), Macs.key(Learning.source(h), vlan));
    if (e && load<u32>(e, MacEntry.stamp) == MacEntry.STATIC) {
      if (load<u32>(e, MacEntry.value) != load<u32>(port, Port.index))
        return Learning.drop(port, Drop.SPOOFED);
    }
    return Learning.find(sw, port, h, vlan);
  }

  /** Where frame `f` is in a VLAN that its port is in; notes it in `Switch.vid`. */
  static isIn(sw: usize, port: usize, vlan: u32, f: u32): bool {
    store<u16>(sw + Switch.vid + f * 2, <u16>vlan);
    return vlan != 0 && Learning.member(port, vlan) && !Learning.isForged(sw, vlan, f);
  }

  /** By destination: the port behind which it was seen, or all. */
  static find(sw: usize, port: usize, h: v128, vlan: u32): u32 {
    const mac = <u64>i64x2.extract_lane(h, 0) & 0xffff_ffff_ffff;
    if (<u32>mac & 1) {
      // A bridge keeps them to the link (802.1D, 7.12.6); VALE knows broadcasts only.
      const keeps = (mac & 0xf0ff_ffff_ffff) == 0x0000_00c2_8001 && !load<u32>(sw, Switch.vale);
      return keeps ? Learning.drop(port, Drop.LINK_LOCAL) : Destination.FLOOD;
    }
    const e = Macs.find(load<u32>(sw, Switch.macs), Macs.key(mac, vlan));
    if (!e) return Learning.unknown(sw, port);
    const stamp = load<u32>(e, MacEntry.stamp);
    if (stamp != MacEntry.STATIC && Objects.now() - stamp > load<u32>(sw, Switch.ageing))
      return Learning.unknown(sw, port);
    const to = load<u32>(e, MacEntry.value);
    return to == load<u32>(port, Port.index) ? Learning.drop(port, Drop.HAIRPIN) : to;
  }

  /**
   * Where to look for a station that isn't known: everywhere, but behind a card of which not every frame is read, so that who
   * sends through it isn't always learned, there first.
   */
  static unknown(sw: usize, port: usize): u32 {
    const uplink = load<u32>(sw, Switch.uplink);
    if (!uplink || uplink - 1 == load<u32>(port, Port.index)) return Destination.FLOOD;
    const reads = load<u32>(sw, Switch.vlanAware) || load<u32>(sw, Switch.lookup) != Lookup.LEARNING;
    return reads ? <u32>Destination.FLOOD : uplink - 1;
  }

  /**
   * A frame that the card wrote to a mapped guest's memory can have been rewritten by that guest before it was read. So
   * it isn't believed to be in a VLAN that the guest, which the card's mark names, isn't in itself.
   */
  static isForged(sw: usize, vlan: u32, f: u32): bool {
    const p = sw + Switch.packets + <u32>load<u16>(sw + Switch.first + f * 2) * Packet.SIZE;
    if (Objects.kind(load<u16>(p, Packet.owner)) != Kind.MAPPING) return false;
    const mark = <u32>load<u16>(p, Packet.mark);
    return (
      mark - 1 >= load<u32>(sw, Switch.ports) ||
      !Learning.member(load<u32>(load<u32>(sw, Switch.table) + (mark - 1) * 4), vlan)
    );
  }

  @inline static member(port: usize, vlan: u32): bool {
    return ((load<u8>(load<u32>(port, Port.vlans) + (vlan >> 3)) >> (vlan & 7)) & 1) != 0;
  }
}
