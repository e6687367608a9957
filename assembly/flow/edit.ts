/**
 * Changes of a frame in memory that is the switch's own (`FlowTable.work`). A header that the frame hasn't got isn't
 * changed; checksums that were right stay so (RFC 1624).
 */
import { Checksum } from "../checksum";
import {
  FLOW_HEAD,
  FlowAction,
  FlowActionKind,
  FlowField,
  FlowMatch,
  FlowTable,
  FRAME_MAX,
  Packet,
} from "../layout";
import { Parse } from "../parse";
import { Key } from "./key";
import { Translation } from "./translate";

export class Edit {
  /**
   * One action on the frame. False for a third tag, and for one that would make it longer
   * than any frame may be.
   */
  static apply(t: usize, action: usize): bool {
    const kind = load<u32>(action);
    if (kind == FlowActionKind.PUSH_VLAN)
      return Edit.push(t, bswap<u16>(<u16>load<u32>(action, FlowAction.argument)));
    if (kind == FlowActionKind.STRIP_VLAN) {
      Edit.strip(t);
      return true;
    }
    const field = load<u32>(action, FlowAction.argument);
    if (field == FlowField.VLAN_OR_PUSH && !Edit.isTagged(t) && !Edit.push(t, 0x0081)) return false;
    Edit.set(t, action, field);
    return true;
  }

  /** Whether the frame has a whole tag. */
  static isTagged(t: usize): bool {
    const work = t + FlowTable.work;
    const type = load<u16>(load<u32>(work), 12);
    return (type == 0x0081 || type == 0xa888) && load<u16>(work, Packet.len) >= 18;
  }

  /** The frame's addresses by so many bytes forward or, with a minus, back; it gets shorter or longer by them. */
  static moveAddresses(work: usize, by: i32): usize {
    const frame: usize = load<u32>(work);
    const to = frame + by;
    const low = load<u64>(frame);
    const high = load<u32>(frame, 8);
    store<u64>(to, low);
    store<u32>(to, high, 8);
    store<u32>(work, <u32>to);
    store<u16>(work, load<u16>(work, Packet.len) - <u16>by, Packet.len);
    return to;
  }

  static push(t: usize, tpid: u16): bool {
    const work = t + FlowTable.work;
    if (<u32>load<u16>(work, Packet.len) + 4 > <u32>FRAME_MAX) return false;
    if (Edit.isTagged(t)) {
      const inner = load<u16>(load<u32>(work), 16);
      if ((inner == 0x0081 || inner == 0xa888) && load<u16>(work, Packet.len) >= 22) return false;
    }
    const frame = Edit.moveAddresses(work, -4);
    store<u16>(frame, tpid, 12);
    store<u16>(frame, 0, 14);
    return true;
  }

  static strip(t: usize): void {
    if (Edit.isTagged(t)) Edit.moveAddresses(t + FlowTable.work, 4);
  }

  static set(t: usize, action: usize, field: u32): void {
    const work = t + FlowTable.work;
    const frame: usize = load<u32>(work);
    const len = <u32>load<u16>(work, Packet.len);
    const at = <u32>load<u16>(action, FlowAction.at);
    if (field == FlowField.ETHERNET) {
      Edit.write(frame + at, action, 0);
      return;
    }
    const key = t + FlowTable.edited;
    Key.extract(frame, min(len, FLOW_HEAD), len, 0, key);
    if (!Translation.applies(key, field)) return;
    const l3 = frame + load<u16>(key, FlowMatch.l3);
    const l4 = load<u16>(key, FlowMatch.l4) ? frame + load<u16>(key, FlowMatch.l4) : 0;
    if (field == FlowField.VLAN || field == FlowField.VLAN_OR_PUSH) Edit.write(frame + 14, action, 0);
    else if (l3 == frame)
      return; // no whole header
    else if (field == FlowField.ARP) Edit.write(l3 + Edit.inArp(at), action, 0);
    else if (field == FlowField.IP) Edit.setIp(l3, action, at);
    else if (field == FlowField.IPV4) {
      const grown = Edit.write(l3 + (at == FlowMatch.nwSrc ? 12 : 16), action, 0);
      Edit.adjust(l3 + 10, grown);
      Edit.adjustTransport(key, l4, grown, true);
    } else if (field == FlowField.IPV6) {
      Edit.adjustTransport(key, l4, Edit.write(l3 + (at == FlowMatch.ipv6Src ? 8 : 24), action, 0), true);
    } else if (l4) {
      // Ports; and of ICMP type and code, which are the low bytes of what stands in their place.
      const where: u32 = field == FlowField.PORTS ? at - FlowMatch.tpSrc : (at - FlowMatch.tpSrc) >> 1;
      Edit.adjustTransport(key, l4, Edit.write(l4 + where, action, where), false);
    }
  }

  /** Where a field of a key is in an ARP packet. */
  static inArp(at: u32): u32 {
    if (at == FlowMatch.nwProto) return 7;
    if (at == FlowMatch.nwSrc) return 14;
    if (at == FlowMatch.nwDst) return 24;
    return at == FlowMatch.arpSha ? 8 : 18;
  }

  /** Type of service (traffic class), or time to live (hop limit). */
  static setIp(l3: usize, action: usize, at: u32): void {
    if (load<u8>(l3) >> 4 == 4) {
      const where: u32 = at == FlowMatch.nwTos ? 1 : 8;
      Edit.adjust(l3 + 10, Edit.write(l3 + where, action, where));
    } else if (at == FlowMatch.nwTtl) Edit.write(l3 + 7, action, 0);
    else {
      const mask = (<u32>load<u8>(action, FlowAction.mask)) << 4;
      const value = (<u32>load<u8>(action, FlowAction.value)) << 4;
      Checksum.put(l3, (Parse.be16(l3) & ~mask) | (value & mask));
    }
  }

  /**
   * Writes the action's bytes under their mask. Returns by how much the one's complement sum of 16-bit words grew, where
   * the first byte is the low one of its word if `odd` is.
   */
  static write(to: usize, action: usize, odd: u32): u32 {
    const n = <u32>load<u16>(action, FlowAction.bytes);
    let grown: u32 = 0;
    for (let i: u32 = 0; i < n; i++) {
      const old = <u32>load<u8>(to + i);
      const mask = <u32>load<u8>(action + i, FlowAction.mask);
      const made = (old & ~mask) | (<u32>load<u8>(action + i, FlowAction.value) & mask);
      store<u8>(to + i, <u8>made);
      const shift: u32 = (odd + i) & 1 ? 0 : 8;
      grown += (made << shift) + (0xffff - (old << shift));
    }
    return grown;
  }

  /** A checksum over what grew so. */
  static adjust(p: usize, grown: u32): void {
    Checksum.put(p, Checksum.finish(<u64>(Parse.be16(p) ^ 0xffff) + grown));
  }

  /** The checksum of what is behind IP; `pseudo`: what changed is in its pseudo-header only. */
  static adjustTransport(key: usize, l4: usize, grown: u32, pseudo: bool): void {
    if (!l4) return;
    const protocol = load<u8>(key, FlowMatch.nwProto);
    if (protocol == 6) Edit.adjust(l4 + 16, grown);
    else if (protocol == 17) {
      // RFC 768: 0 is none, and one that comes out as 0 is sent as all ones.
      if (!load<u16>(l4, 6)) return;
      Edit.adjust(l4 + 6, grown);
      if (!load<u16>(l4, 6)) store<u16>(l4, 0xffff, 6);
    } else if (protocol == 58 || (protocol == 1 && !pseudo)) Edit.adjust(l4 + 2, grown);
  }
}
