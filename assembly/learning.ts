/**
 * Learning bridge (802.1D, 7.7 to 7.9; netmap's VALE): where the frames of a burst go, by destination MAC, and
 * which addresses are behind the port that they came from. Another kind of lookup has this same one function:
 *
 *     classify(switch, port, packets, frames, headers -> destination of each frame)
 *
 * A frame with a mark goes where the NIC's filter said, and isn't read: the guest's core is the first to touch
 * it. Of a burst of such frames one source is learned.
 */

import { Copy } from "./copy";
import { Count } from "./count";
import { Objects } from "./directory";
import { Destination, Drop, FRAME_MIN, MacEntry, Packet, Port, Switch } from "./layout";
import { Macs } from "./mactable";
import { Desc } from "./packet";

export class Learning {
  static classify(sw: usize, port: usize, single: bool, n: u32, frames: u32): void {
    const packets = sw + Switch.packets;
    const ports = load<u32>(sw, Switch.ports);
    const pool = load<u32>(sw, Switch.table);
    // Which VLAN a frame is in only the frame says.
    const trusted: bool = load<u32>(port, Port.trustsMark) && !load<u32>(sw, Switch.vlanAware);
    let sampled = false;
    for (let f: u32 = 0; f < frames; f++) {
      const at: u32 = single ? f : load<u16>(sw + Switch.first + f * 2);
      const p = packets + at * Packet.SIZE;
      const d = v128.load(p);
      const mark = Desc.mark(d);
      const header = sw + Switch.headers + f * 16;
      const len = Desc.len(d);
      let to: u32;
      if (mark && mark <= ports && trusted) {
        to = mark - 1;
        const out: usize = load<u32>(pool + to * 4);
        // Only a frame that will be copied needs its header here.
        if (!sampled || load<u32>(out, Port.takes) != Desc.owner(d)) {
          const h = len >= 16 ? v128.load(Desc.addr(d)) : Copy.header(p, n - at);
          v128.store(header, h);
          if (!sampled) Learning.learn(sw, port, h);
          sampled = true;
        }
      } else {
        const h = len >= 16 ? v128.load(Desc.addr(d)) : Copy.header(p, n - at);
        v128.store(header, h);
        to =
          len < <u32>FRAME_MIN && Desc.bytes(p, Desc.segments(p, n - at)) < <u32>FRAME_MIN
            ? Learning.drop(port, Drop.RUNT)
            : Learning.lookup(sw, port, h, f);
      }
      store<u16>(sw + Switch.destination + f * 2, <u16>to);
    }
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
    // 0x8100 at byte 12; priority-tagged frames (VLAN 0) count as untagged (802.1Q, 6.9.1)
    const tag =
      i16x8.extract_lane_u(h, 6) == 0x0081 ? bswap<u16>(<u16>i16x8.extract_lane_u(h, 7)) & 0xfff : 0;
    return tag ? tag : load<u32>(port, Port.pvid);
  }

  @inline static learn(sw: usize, port: usize, h: v128): bool {
    return Learning.learnKey(sw, port, Macs.key(Learning.source(h), Learning.vlan(sw, port, h)));
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

  @inline static lookup(sw: usize, port: usize, h: v128, f: u32): u32 {
    const vlan = Learning.vlan(sw, port, h);
    if (load<u32>(sw, Switch.vlanAware)) {
      store<u16>(sw + Switch.vid + f * 2, <u16>vlan);
      if (!vlan || !Learning.member(port, vlan)) return Learning.drop(port, Drop.VLAN);
    }
    if (!Learning.learnKey(sw, port, Macs.key(Learning.source(h), vlan)))
      return Learning.drop(port, Drop.SPOOFED);
    const mac = <u64>i64x2.extract_lane(h, 0) & 0xffff_ffff_ffff;
    if (<u32>mac & 1)
      return (mac & 0xf0ff_ffff_ffff) == 0x0000_00c2_8001
        ? Learning.drop(port, Drop.LINK_LOCAL)
        : Destination.FLOOD;
    const e = Macs.find(load<u32>(sw, Switch.macs), Macs.key(mac, vlan));
    if (!e) return Destination.FLOOD;
    const stamp = load<u32>(e, MacEntry.stamp);
    if (stamp != MacEntry.STATIC && Objects.now() - stamp > load<u32>(sw, Switch.ageing))
      return Destination.FLOOD;
    const to = load<u32>(e, MacEntry.value);
    return to == load<u32>(port, Port.index) ? Learning.drop(port, Drop.HAIRPIN) : to;
  }

  @inline static member(port: usize, vlan: u32): bool {
    return ((load<u8>(load<u32>(port, Port.vlans) + (vlan >> 3)) >> (vlan & 7)) & 1) != 0;
  }
}
