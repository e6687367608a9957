/**
 * A card's embedded switch (layout: `Veb`): the functions that guests own, the host's own queues, and the wire.
 *
 *     wire ------> receive --+--> function's receive ring     by MAC address and VLAN
 *                            +--> host's receive queues       what is no function's
 *     function --> read -----+--> another function, or the host's queues
 *     host ------> read -----+--> packet buffer --> wire
 *
 * A frame of a function is checked where it comes in: source address, VLAN, rate. Where the function has a port VLAN the
 * card adds the tag there, and takes it off where the frame is delivered. Frames to a group go to all functions that are
 * in their VLAN, to the host and to the wire; but for broadcasts only to functions that have asked for them and are trusted.
 *
 * Functions and the host send in turn, some bytes each (surplus round robin). Over its rate a function's frames wait in its
 * ring, as in the queues of ixgbe and i40e.
 */
import { Count } from "./count";
import { Doorbell } from "./doorbell";
import {
  Directory,
  FRAME_MAX,
  FRAME_MIN,
  FRAME_ROOM,
  FunctionDrop,
  LINE,
  MacEntry,
  Nic,
  Packet,
  PacketFlag,
  PciFunction,
  TxQueue,
  Veb,
} from "./layout";
import { Macs } from "./mactable";
import { Card } from "./nic";
import { Desc } from "./packet";
import { Parse } from "./parse";
import { PciFunctions } from "./pcifunction";
import { Sync } from "./sync";

/** Bytes that each may send in its turn: more than the longest frame, so that each turn moves one. */
const QUANTUM: i32 = FRAME_ROOM;
/** Most frames that are read at a time: guests on other threads may go on sending to each other for ever. */
const FRAMES: u32 = 16384;
/** Bytes in front of a frame in the packet buffer, in which a tag finds room. */
const BEFORE: u32 = 16;
/** Bits that a function may save up while it sends nothing: a millisecond's at its rate, or the longest frame. */
const SAVED_US: u64 = 1000;

const BROADCAST: u64 = 0xffff_ffff_ffff;
/** 01-80-C2-00-00-0x, its last four bits left out; a MAC address's first byte is lowest. */
const LINK_LOCAL: u64 = 0x0000_00c2_8001;
const LINK_LOCAL_MASK: u64 = 0xf0ff_ffff_ffff;

/** What became of a frame at the functions: whether one got it, and whether it is for others as well. */
const TAKEN: u32 = 1;
const GOES_ON: u32 = 2;

/** In place of a frame's length: there is none to send now; or there may be one, and no room for it. */
const NOTHING: i32 = 0;
const FULL: i32 = -1;

export class Vebs {
  @inline static func(veb: usize, i: u32): usize {
    return load<u32>(load<u32>(veb, Veb.table) + i * 4);
  }

  /** VLAN of a frame; 0 where it has none. */
  @inline static vlan(frame: usize, len: u32): u32 {
    return Vebs.tagged(frame, len) ? Parse.be16(frame + 14) & 0xfff : 0;
  }
  @inline static tagged(frame: usize, len: u32): bool {
    const type = Parse.be16(frame + 12);
    return len >= 18 && (type == 0x8100 || type == 0x88a8);
  }

  /** Is the function in this VLAN? */
  @inline static isIn(f: usize, vlan: u32): bool {
    const own = load<u32>(f, PciFunction.vlan);
    if (own) return own == vlan;
    if (!vlan) return true;
    const vlans: usize = load<u32>(f, PciFunction.vlans);
    return vlans != 0 && ((load<u8>(vlans + (vlan >> 3)) >> (vlan & 7)) & 1) != 0;
  }

  /** A frame of `len` bytes arrives from the wire. True if anybody got it. */
  static receive(nic: usize, veb: usize, frame: usize, len: u32): bool {
    if (!Card.isFrame(nic, len)) return false;
    const owner: usize = load<u32>(veb, Veb.owner);
    let taken: bool;
    if (owner) taken = PciFunctions.deliver(owner, frame, len, false);
    else {
      const done = Vebs.toFunctions(veb, 0, frame, len);
      taken = (done & TAKEN) != 0;
      if (done & GOES_ON && Card.deliver(nic, frame, len)) taken = true;
    }
    if (taken) Card.received(nic, len);
    return taken;
  }

  /** To each function that gets it but `from`: a function's address, the card's for the host, 0 for the wire. */
  static toFunctions(veb: usize, from: usize, frame: usize, len: u32): u32 {
    const mac = Parse.mac(frame);
    const vlan = Vebs.vlan(frame, len);
    if (mac & 1) return Vebs.toGroup(veb, from, frame, len, mac, vlan) | GOES_ON;
    const f = Vebs.holder(veb, mac, vlan);
    let done: u32 = f ? 0 : GOES_ON;
    if (load<u32>(veb, Veb.promiscuous)) done |= Vebs.toPromiscuous(veb, from, f, frame, len, vlan);
    if (!f) return done;
    if (f != from) return done | Vebs.to(veb, f, from, frame, len);
    PciFunctions.drop(f, FunctionDrop.HAIRPIN);
    return done;
  }

  /** Whose the address is in this VLAN: a function's, or 0. */
  @inline static holder(veb: usize, mac: u64, vlan: u32): usize {
    const macs: usize = load<u32>(veb, Veb.macs);
    let hit = Macs.find(macs, Macs.key(mac, vlan));
    if (hit) return Vebs.func(veb, load<u32>(hit, MacEntry.value));
    if (!vlan) return 0;
    // One that is in all VLANs has no entry for each.
    hit = Macs.find(macs, Macs.key(mac, 0));
    const f = hit ? Vebs.func(veb, load<u32>(hit, MacEntry.value)) : 0;
    return f && Vebs.isIn(f, vlan) ? f : 0;
  }

  static toGroup(veb: usize, from: usize, frame: usize, len: u32, mac: u64, vlan: u32): u32 {
    const all = mac == BROADCAST;
    const count = load<u32>(veb, Veb.count);
    let done: u32 = 0;
    for (let i: u32 = 1; i <= count; i++) {
      const f = Vebs.func(veb, i);
      if (!f || f == from || !Vebs.isIn(f, vlan)) continue;
      if (!all && !(load<u32>(f, PciFunction.allMulticast) | load<u32>(f, PciFunction.promiscuous))) continue;
      done |= Vebs.to(veb, f, from, frame, len);
    }
    return done;
  }

  /** Copies for functions that are promiscuous, but `from` and `but`, whose frame it is. */
  static toPromiscuous(veb: usize, from: usize, but: usize, frame: usize, len: u32, vlan: u32): u32 {
    const count = load<u32>(veb, Veb.count);
    let done: u32 = 0;
    for (let i: u32 = 1; i <= count; i++) {
      const f = Vebs.func(veb, i);
      if (!f || f == from || f == but || !load<u32>(f, PciFunction.promiscuous)) continue;
      if (Vebs.isIn(f, vlan)) done |= Vebs.to(veb, f, from, frame, len);
    }
    return done;
  }

  static to(veb: usize, f: usize, from: usize, frame: usize, len: u32): u32 {
    if (!PciFunctions.deliver(f, frame, len, load<u32>(f, PciFunction.vlan) != 0)) return 0;
    if (from) Vebs.copied(veb, len);
    return TAKEN;
  }

  static copied(veb: usize, len: u32): void {
    Count.add(veb + Veb.copies, 1);
    Count.add(veb + Veb.copiedBytes, len);
  }

  /**
   * Reads what functions and the host have to send, in turn, and hands it on: what is for the wire waits in the packet
   * buffer, as long as there is room.
   */
  static read(nic: usize, veb: usize): void {
    const count = load<u32>(veb, Veb.count);
    let turn = min(load<u32>(veb, Veb.turn), count);
    let idle: u32 = 0;
    let left: i32 = FRAMES;
    const host: usize = load<u32>(nic, Nic.tx);
    const head = load<u32>(host, TxQueue.head);
    while (idle <= count && left > 0) {
      const n = Vebs.readTurn(nic, veb, turn ? Vebs.func(veb, turn) : nic);
      if (n == FULL) break;
      turn = turn == count ? 0 : turn + 1;
      idle = n ? 0 : idle + 1;
      left -= n;
    }
    store<u32>(veb, turn, Veb.turn);
    Vebs.flush(nic, veb);
    if (load<u32>(host, TxQueue.head) != head)
      Doorbell.ringIfArmed(host + TxQueue.doneArmed, host + TxQueue.doneBell);
  }

  /** A turn of a function, or of the host's queue (`from`: the card). Returns its frames. */
  static readTurn(nic: usize, veb: usize, from: usize): i32 {
    if (!from) return NOTHING;
    const deficit = from == nic ? veb + Veb.deficit : from + PciFunction.deficit;
    const tokens = from != nic && load<u32>(from, PciFunction.rate) ? from + PciFunction.tokens : 0;
    if (tokens) Vebs.grant(from);
    let left = load<i32>(deficit);
    if (left <= 0) left += QUANTUM;
    let n: i32 = 0;
    while (left > 0 && (!tokens || load<i64>(tokens) > 0)) {
      const to = Vebs.place(veb, load<u32>(nic, Nic.wire));
      const len = !to ? FULL : from == nic ? Vebs.readHost(nic, veb, to) : <i32>PciFunctions.read(from, to);
      if (len == FULL) {
        store<i32>(deficit, left);
        return FULL;
      }
      // Who has nothing more keeps nothing for later.
      if (len == NOTHING) left = 0;
      else {
        n++;
        left -= len;
        if (tokens) store<i64>(tokens, load<i64>(tokens) - len * 8);
        if (from == nic) Vebs.forward(nic, veb, nic, to, len);
        else Vebs.fromFunction(nic, veb, from, to, len);
      }
    }
    store<i32>(deficit, left);
    return n;
  }

  /** Bits by the function's rate, for the time since it was granted some last. */
  static grant(f: usize): void {
    const now = load<u32>(Directory.ADDRESS, Directory.micros);
    const passed = now - load<u32>(f, PciFunction.granted);
    const rate = <u64>load<u32>(f, PciFunction.rate);
    const most = max<i64>(rate * SAVED_US, FRAME_MAX * 8);
    const tokens = load<i64>(f, PciFunction.tokens) + <i64>(rate * passed);
    store<u32>(f, now, PciFunction.granted);
    store<i64>(f, min(tokens, most), PciFunction.tokens);
  }

  /** Where the next frame is read to; 0 where the packet buffer has no room for the longest. */
  static place(veb: usize, wire: usize): usize {
    const head = load<u32>(wire, TxQueue.head);
    const tail = load<u32>(wire, TxQueue.tail);
    const mask = load<u32>(wire, TxQueue.mask);
    const buffer = load<u32>(veb, Veb.buffer);
    let at = load<u32>(veb, Veb.bufferNext);
    if (head == tail) at = 0;
    else {
      if (tail - head > mask) return 0;
      const oldest =
        load<u32>(load<u32>(wire, TxQueue.ring) + (head & mask) * Packet.SIZE, Packet.addr) - buffer;
      if (at > oldest && load<u32>(veb, Veb.bufferBytes) - at < <u32>FRAME_ROOM) at = 0;
      if (at <= oldest && oldest - at < <u32>FRAME_ROOM + LINE) return 0;
    }
    store<u32>(veb, at, Veb.bufferNext);
    return buffer + at + BEFORE;
  }

  /** What `forward` doesn't give to others waits for the wire, where it was read to. */
  static enqueue(veb: usize, wire: usize, frame: usize, len: u32): void {
    const tail = load<u32>(wire, TxQueue.tail);
    const slot = tail & load<u32>(wire, TxQueue.mask);
    v128.store(load<u32>(wire, TxQueue.ring) + slot * Packet.SIZE, Desc.make(<u32>frame, len, 0, 0, 0, 0, 0));
    store<u32>(wire, tail + 1, TxQueue.tail);
    const end = <u32>frame + len - load<u32>(veb, Veb.buffer);
    store<u32>(veb, (end + LINE - 1) & ~(LINE - 1), Veb.bufferNext);
  }

  /**
   * The host's next frame, whole, to `to`; its buffers are the host's again. Of one that asks for offloads each frame that the
   * card makes of it, in turn. Returns its bytes.
   */
  static readHost(nic: usize, veb: usize, to: usize): i32 {
    const q: usize = load<u32>(nic, Nic.tx);
    while (Sync.load<u32>(q + TxQueue.tail) != load<u32>(q, TxQueue.head)) {
      if (!(load<u16>(Card.queued(q, 0), Packet.flags) & PacketFlag.TX_OFFLOADS)) return Vebs.takeHost(q, to);
      const made = load<u32>(veb, Veb.made);
      const len = Card.assemble(nic, 0, made);
      if (len) {
        memory.copy(to, load<u32>(nic, Nic.assembly), len);
        store<u32>(veb, made + 1, Veb.made);
        return len;
      }
      store<u32>(veb, 0, Veb.made);
      Vebs.takeHost(q, 0);
    }
    return NOTHING;
  }

  /** The frame in front of the host's ring is sent: its bytes to `to`, if that isn't 0. Returns how many. */
  static takeHost(q: usize, to: usize): i32 {
    let bytes: u32 = 0;
    let n: u32 = 0;
    for (let more: u32 = 1; more; n++) {
      const p = Card.queued(q, n);
      const word = load<u32>(p, Packet.len);
      if (to) memory.copy(to + bytes, load<u32>(p, Packet.addr), word & 0xffff);
      bytes += word & 0xffff;
      more = (word >> 16) & PacketFlag.MORE;
      Sync.store<u32>(p + Packet.len, word | ((<u32>PacketFlag.DONE) << 16));
    }
    store<u32>(q, load<u32>(q, TxQueue.head) + n, TxQueue.head);
    return bytes;
  }

  /** A frame of a function, which has been read to `frame`: checked, tagged, and handed on. */
  static fromFunction(nic: usize, veb: usize, f: usize, frame: usize, len: u32): void {
    PciFunctions.sent(f);
    if (len < <u32>FRAME_MIN) {
      PciFunctions.drop(f, FunctionDrop.RUNT);
      return;
    }
    Count.add(f + PciFunction.txPackets, 1);
    Count.add(f + PciFunction.txBytes, len);
    if (f == load<u32>(veb, Veb.owner)) {
      Vebs.enqueue(veb, load<u32>(nic, Nic.wire), frame, len);
      return;
    }
    const why = Vebs.refused(f, frame, len);
    if (why != FunctionDrop.COUNT) {
      PciFunctions.drop(f, why);
      return;
    }
    const vlan = load<u32>(f, PciFunction.vlan);
    if (vlan) {
      const macs = load<u64>(frame);
      const rest = load<u32>(frame, 8);
      frame -= 4;
      len += 4;
      store<u64>(frame, macs);
      store<u32>(frame, rest, 8);
      store<u32>(frame, 0x81 | ((<u32>bswap<u16>(<u16>vlan)) << 16), 12);
    }
    Vebs.forward(nic, veb, f, frame, len);
  }

  /** Why a function may not send this; FunctionDrop.COUNT where it may. */
  static refused(f: usize, frame: usize, len: u32): FunctionDrop {
    if ((Parse.mac(frame) & LINK_LOCAL_MASK) == LINK_LOCAL) return FunctionDrop.LINK_LOCAL;
    if (load<u32>(f, PciFunction.spoofCheck) && Parse.mac(frame + 6) != load<u64>(f, PciFunction.mac)) {
      return FunctionDrop.SPOOFED;
    }
    const tagged = Vebs.tagged(frame, len);
    if (!load<u32>(f, PciFunction.vlan)) {
      return Vebs.isIn(f, Vebs.vlan(frame, len)) ? FunctionDrop.COUNT : FunctionDrop.VLAN;
    }
    if (tagged) return FunctionDrop.VLAN;
    return len + 4 > <u32>FRAME_MAX ? FunctionDrop.OVERSIZE : FunctionDrop.COUNT;
  }

  /** To functions, the host's queues and the wire. */
  static forward(nic: usize, veb: usize, from: usize, frame: usize, len: u32): void {
    if (!(Vebs.toFunctions(veb, from, frame, len) & GOES_ON)) return;
    if (from != nic) {
      const group = load<u8>(frame) & 1;
      if (group || Vebs.isHosts(nic, frame, len)) {
        if (Card.deliver(nic, frame, len)) Vebs.copied(veb, len);
        if (!group) return;
      }
    }
    Vebs.enqueue(veb, load<u32>(nic, Nic.wire), frame, len);
  }

  /** Do the card's filters name a queue of the host's for its address? */
  @inline static isHosts(nic: usize, frame: usize, len: u32): bool {
    const filters: usize = load<u32>(nic, Nic.filters);
    const mac = Parse.mac(frame);
    if (Macs.find(filters, Macs.key(mac, 0))) return true;
    const vlan = Vebs.vlan(frame, len);
    return vlan != 0 && Macs.find(filters, Macs.key(mac, vlan)) != 0;
  }

  /** Ends a burst. */
  static flush(nic: usize, veb: usize): void {
    const count = load<u32>(veb, Veb.count);
    for (let i: u32 = 1; i <= count; i++) {
      const f = Vebs.func(veb, i);
      if (f) PciFunctions.flush(f);
    }
    Card.flush(nic);
  }
}
