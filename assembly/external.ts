/**
 * A lookup of the user's own (Lookup.EXTERNAL): one call for each burst says where its frames go. In WebAssembly it is
 * an instance on the same memory, called through the core's table; in JavaScript it is the function that the core imports.
 *
 *     read: headers, lengths, VLANs -> | call | -> settle: what may not be done is dropped, and why is counted
 *
 * What it gets (docs/lookup.md): its state, the number of the port, the number of frames, and the addresses of
 *
 *     packets       descriptors (layout: `Packet`)
 *     first         u16[frames + 1]: frame f is packets[first[f]] up to before packets[first[f + 1]]
 *     headers       16 bytes a frame: its first ones, as they will be delivered; 0 where it is shorter
 *     destinations  u16[frames]: to be written: a port's number, or Destination.FLOOD, DROP or NORMAL
 *
 * When it throws or traps, the burst is still `Switch.pending`, and `Switching.abandon` drops it.
 */
import { Copy } from "./copy";
import { Count } from "./count";
import { lookup } from "./env";
import { Destination, Drop, Packet, PacketFlag, Port, Switch } from "./layout";
import { Learning } from "./learning";
import { Desc } from "./packet";

/**
 * `Switch.next`, while a burst is looked up, of a frame that may go on, and of one whose source isn't to be learned; of one
 * that isn't to go on, 1 + its Drop.
 */
const ALLOWED: u32 = 0;
const NOT_LEARNED: u32 = 0x100;

export class External {
  /** As `Learning.classify`. */
  static classify(sw: usize, port: usize, n: u32): u32 {
    const aware = load<u32>(sw, Switch.vlanAware) != 0;
    store<u32>(sw, 0, Switch.alike);
    const plain = aware ? 0 : Learning.read(sw, port, n) & 0xffff;
    let frames = n;
    if (plain == n) External.indexPlain(sw, n);
    else frames = External.readRest(sw, port, plain, n);
    const at = load<u32>(sw, Switch.external);
    const destinations = sw + Switch.destination;
    // What it doesn't write is dropped.
    for (let i: u32 = 0; i < frames; i += 8) v128.store(destinations + i * 2, i64x2.splat(-1));
    store<u32>(sw, n, Switch.pendingLength);
    store<u32>(sw, <u32>port, Switch.pending);
    External.call(
      at,
      at ? <usize>load<u32>(sw, Switch.externalState) : sw,
      load<u32>(port, Port.index),
      frames,
      sw + Switch.packets,
      sw + Switch.first,
      sw + Switch.headers,
      destinations,
    );
    store<u32>(sw, 0, Switch.pending);
    if (plain == n) External.settle(sw, port, frames);
    else External.settleRest(sw, port, frames);
    return frames;
  }

  /** `at`: its place in the table, or 0 for JavaScript, whose `state` is the switch. */
  @inline static call(
    at: u32,
    state: usize,
    port: u32,
    frames: u32,
    packets: usize,
    first: usize,
    headers: usize,
    destinations: usize,
  ): void {
    if (at) call_indirect<void>(at, state, port, frames, packets, first, headers, destinations);
    else lookup(state, port, frames);
  }

  /** Each frame is one descriptor. */
  static indexPlain(sw: usize, n: u32): void {
    let numbers = i16x8(0, 1, 2, 3, 4, 5, 6, 7);
    for (let i: u32 = 0; i < n; i += 8) {
      v128.store(sw + Switch.first + i * 2, numbers);
      numbers = i16x8.add(numbers, i16x8.splat(8));
    }
    store<u16>(sw + Switch.first + n * 2, <u16>n);
  }

  /** Frames from number `f` on, whatever they are, and for each of the burst whether it may go on. Returns the frames. */
  static readRest(sw: usize, port: usize, f: u32, n: u32): u32 {
    const aware = load<u32>(sw, Switch.vlanAware) != 0;
    const frames = Learning.index(sw, n);
    for (let i: u32 = 0; i < f; i++) store<u16>(sw + Switch.next + i * 2, <u16>ALLOWED);
    let bytes: u32 = 0;
    for (; f < frames; f++) {
      const at = <u32>load<u16>(sw + Switch.first + f * 2);
      const p = sw + Switch.packets + at * Packet.SIZE;
      const segments = <u32>load<u16>(sw + Switch.first + f * 2 + 2) - at;
      const h = Copy.header(p, segments);
      v128.store(sw + Switch.headers + f * 16, h);
      const flags = load<u16>(p, Packet.flags);
      if (flags & PacketFlag.NO_LEARN) store<u16>(p, flags & ~PacketFlag.NO_LEARN, Packet.flags);
      const len = Desc.bytes(p, segments);
      bytes += len;
      let refused = flags & PacketFlag.NO_LEARN ? NOT_LEARNED : ALLOWED;
      if (Learning.isRunt(sw, h, len)) refused = 1 + Drop.RUNT;
      else if (aware && !Learning.isIn(sw, port, Learning.vlan(sw, port, h), f)) refused = 1 + Drop.VLAN;
      store<u16>(sw + Switch.next + f * 2, <u16>refused);
    }
    Count.add(port + Port.rxBytes, bytes);
    return frames;
  }

  /** What the lookup wrote, checked. All that go one way: `Switch.common`. */
  static settle(sw: usize, port: usize, frames: u32): void {
    const ports = load<u32>(sw, Switch.ports);
    const from = load<u32>(port, Port.index);
    const begin = sw + Switch.destination;
    const end = begin + frames * 2;
    const common = <u32>load<u16>(begin);
    let differ: u32 = 0;
    for (let at = begin; at != end; ) {
      for (; at != end; at += 2) {
        const to = <u32>load<u16>(at);
        if (to >= ports) break;
        if (to == from) break;
        differ |= to ^ common;
      }
      if (at == end) break;
      const to = External.allowed(sw, port, <u32>(at - begin) / 2, ALLOWED);
      store<u16>(at, <u16>to);
      differ = 1;
      at += 2;
    }
    const one = !differ && load<u32>(sw, Switch.alike);
    store<u32>(sw, one ? common : Destination.MIXED, Switch.common);
  }

  /** The same for a burst of which `readRest` refused some. */
  static settleRest(sw: usize, port: usize, frames: u32): void {
    for (let f: u32 = 0; f < frames; f++) {
      const to = External.allowed(sw, port, f, load<u16>(sw + Switch.next + f * 2));
      store<u16>(sw + Switch.destination + f * 2, <u16>to);
    }
    store<u32>(sw, Destination.MIXED, Switch.common);
  }

  /** Where frame `f` really goes, for all that the lookup said; what is dropped is counted. */
  static allowed(sw: usize, port: usize, f: u32, refused: u32): u32 {
    if (refused != ALLOWED && refused != NOT_LEARNED) return Learning.drop(port, refused - 1);
    const to = <u32>load<u16>(sw + Switch.destination + f * 2);
    if (to == Destination.FLOOD) return to;
    if (to == Destination.DROP) return Learning.drop(port, Drop.LOOKUP);
    if (to == Destination.NORMAL) {
      const h = v128.load(sw + Switch.headers + f * 16);
      return refused ? Learning.lookupOnly(sw, port, h, f) : Learning.lookup(sw, port, h, f);
    }
    if (to >= load<u32>(sw, Switch.ports)) return Learning.drop(port, Drop.NO_PORT);
    return to == load<u32>(port, Port.index) ? Learning.drop(port, Drop.HAIRPIN) : to;
  }
}
