/**
 * The flow table as a switch's lookup (layout: `FlowTable`), after Open vSwitch: the same function as the learning
 * bridge's (`Learning.classify`). A frame's flow is found by the hash of its key in a cache, else among the megaflows, else
 * by going through the rules.
 *
 * What a guest can still change is looked at in a copy of its head, and what is delivered then has that head: unless
 * no rule looks beyond the first 16 bytes, which are read once anyway (`Switch.headers`).
 */
import { Copy } from "../copy";
import { Count } from "../count";
import { Objects } from "../directory";
import {
  Destination,
  Drop,
  FLOW_HEAD,
  FlowExact,
  FlowPlace,
  FlowTable,
  Kind,
  Megaflow,
  Packet,
  Port,
  Switch,
} from "../layout";
import { Learning } from "../learning";
import { Desc } from "../packet";
import { Hash } from "./classifier";
import { Key } from "./key";
import { Megaflows } from "./megaflow";
import { Translation } from "./translate";

export class Flows {
  /** Where the `n` descriptors in `Switch.packets` go. Returns the frames. */
  static classify(sw: usize, port: usize, n: u32): u32 {
    store<u32>(sw, 0, Switch.alike);
    store<u32>(sw, Destination.MIXED, Switch.common);
    if (load<u32>(sw, Switch.vlanAware)) return Flows.classifyRest(sw, port, 0, n, false);
    const t: usize = load<u32>(sw, Switch.flows);
    const packets = sw + Switch.packets;
    const end = packets + n * Packet.SIZE;
    const owner = <u32>load<u16>(packets, Packet.owner);
    const deep = load<u32>(t, FlowTable.deep);
    const kind = Objects.kind(owner);
    let oneOwner = true;
    let listed = false;
    for (let p = packets; ; p += Packet.SIZE) {
      if (!deep) p = Flows.runShallow(sw, t, port, p, end, owner);
      else if (kind == Kind.POOL) p = Flows.runDeep(sw, t, port, p, end, owner);
      else p = Flows.runGuests(sw, t, port, p, end, owner, kind);
      if (p == end) break;
      const f = <u32>(p - packets) / Packet.SIZE;
      const word = load<u32>(p, Packet.len);
      if (word >> 16) return Flows.classifyRest(sw, port, f, n, listed);
      Count.add(port + Port.rxBytes, word);
      store<u32>(sw, load<u32>(sw, Switch.alike) | word, Switch.alike);
      if (load<u16>(p, Packet.owner) != owner) oneOwner = false;
      if (Flows.one(sw, port, t, p, 1, f) == Destination.ACTIONS) listed = true;
    }
    if (!oneOwner) store<u32>(sw, 0, Switch.alike);
    store<u32>(sw, listed ? Destination.ACTIONS : Flows.common(sw, n), Switch.common);
    return n;
  }

  /** The destination of all `n` frames, or Destination.MIXED. */
  static common(sw: usize, n: u32): u32 {
    const to = load<u16>(sw, Switch.destination);
    const all = i16x8.splat(to);
    let at = sw + Switch.destination;
    for (const end = at + (n >> 3) * 16; at != end; at += 16)
      if (v128.any_true(v128.xor(v128.load(at), all))) return Destination.MIXED;
    for (const end = sw + Switch.destination + n * 2; at != end; at += 2)
      if (load<u16>(at) != to) return Destination.MIXED;
    return to;
  }

  /** Frames from number `f` on, whatever they are; those before are of one segment each, some with lists of actions. */
  static classifyRest(sw: usize, port: usize, f: u32, n: u32, listed: bool): u32 {
    const t: usize = load<u32>(sw, Switch.flows);
    const frames = Learning.index(sw, n);
    store<u32>(sw, 0, Switch.alike);
    for (; f < frames; f++) {
      const at = <u32>load<u16>(sw + Switch.first + f * 2);
      const p = sw + Switch.packets + at * Packet.SIZE;
      const segments = <u32>load<u16>(sw + Switch.first + f * 2 + 2) - at;
      Count.add(port + Port.rxBytes, Desc.bytes(p, segments));
      if (Flows.one(sw, port, t, p, segments, f) == Destination.ACTIONS) listed = true;
    }
    store<u32>(sw, listed ? Destination.ACTIONS : Destination.MIXED, Switch.common);
    return frames;
  }

  // The three that follow: frames in front whose flow `FlowExact` tells, and which go to one port, or to all, are dealt with;
  // each returns where it stopped. No call in their loops (docs/design.md).

  /** Where no rule looks beyond the first 16 bytes of a frame. */
  static runShallow(sw: usize, t: usize, port: usize, p: usize, end: usize, owner: u32): usize {
    const generation = load<u32>(t, FlowTable.generation);
    const inPort = Flows.inPort(port);
    let headers = sw + Switch.headers + (p - (sw + Switch.packets));
    let destination = sw + Switch.destination + (p - (sw + Switch.packets)) / 8;
    let bytes: u32 = 0;
    let lengths: u32 = 0;
    let entry: usize = 0;
    for (; p != end; p += Packet.SIZE) {
      const word = load<u32>(p, Packet.len);
      if (Learning.isUnusual(word) || load<u16>(p, Packet.owner) != owner) break;
      const h = v128.load(load<u32>(p));
      const k0 = v128.or(v128.and(h, v128.load(t, FlowTable.plain)), inPort);
      // Frames between the same two stations are of one flow.
      if (!entry || v128.any_true(v128.xor(v128.load(entry), k0))) {
        const type = <u32>i16x8.extract_lane_u(h, 6);
        if (type == 0x0081 || type == 0xa888 || (type & 0xff) < 6) break;
        entry = Flows.exact(t, k0, i64x2.splat(0), i64x2.splat(0));
        if (v128.any_true(v128.xor(v128.load(entry), k0))) break;
        if (load<u32>(entry, FlowExact.generation) != generation) break;
      }
      const to = load<u32>(entry, FlowExact.to);
      if (to >= <u32>Destination.ACTIONS && to != Destination.FLOOD) break;
      Flows.count(load<u32>(entry, FlowExact.flow), word);
      v128.store(headers, h);
      store<u16>(destination, <u16>to);
      headers += 16;
      destination += 2;
      bytes += word;
      lengths |= word;
    }
    Count.add(port + Port.rxBytes, bytes);
    store<u32>(sw, load<u32>(sw, Switch.alike) | lengths, Switch.alike);
    return p;
  }

  /** Frames in host buffers, where rules look further. */
  static runDeep(sw: usize, t: usize, port: usize, p: usize, end: usize, owner: u32): usize {
    const generation = load<u32>(t, FlowTable.generation);
    const inPort = Flows.inPort(port);
    let headers = sw + Switch.headers + (p - (sw + Switch.packets));
    let destination = sw + Switch.destination + (p - (sw + Switch.packets)) / 8;
    let bytes: u32 = 0;
    let lengths: u32 = 0;
    for (; p != end; p += Packet.SIZE) {
      const word = load<u32>(p, Packet.len);
      if (Learning.isUnusual(word) || load<u16>(p, Packet.owner) != owner) break;
      const frame: usize = load<u32>(p);
      const h = v128.load(frame);
      const ip = v128.load(frame, 14);
      if (!Flows.isPlain(ip, word)) break;
      const k0 = v128.or(v128.and(h, v128.load(t, FlowTable.plain)), inPort);
      const k1 = v128.and(ip, v128.load(t, FlowTable.plain + 16));
      const k2 = Flows.ports(t, v128.load(frame, 30), load<u16>(frame, 46), ip);
      const entry = Flows.exact(t, k0, k1, k2);
      if (Flows.differs(entry, k0, k1, k2) || load<u32>(entry, FlowExact.generation) != generation) break;
      const to = load<u32>(entry, FlowExact.to);
      if (to >= <u32>Destination.ACTIONS && to != Destination.FLOOD) break;
      Flows.count(load<u32>(entry, FlowExact.flow), word);
      v128.store(headers, h);
      store<u16>(destination, <u16>to);
      headers += 16;
      destination += 2;
      bytes += word;
      lengths |= word;
    }
    Count.add(port + Port.rxBytes, bytes);
    store<u32>(sw, load<u32>(sw, Switch.alike) | lengths, Switch.alike);
    return p;
  }

  /**
   * The same for frames in a guest's buffers. Those that go elsewhere, of up to 64 bytes, are copied, with what was looked
   * at as it was then; it is loaded once and not looked at in the copy, where loads would wait for the stores.
   */
  static runGuests(sw: usize, t: usize, port: usize, p: usize, end: usize, owner: u32, kind: u32): usize {
    const generation = load<u32>(t, FlowTable.generation);
    const inPort = Flows.inPort(port);
    const mapped = kind == Kind.MAPPING;
    const begun = p - (sw + Switch.packets);
    let place =
      load<u32>(t, FlowTable.places) + <u32>begun * (FlowPlace.SIZE / Packet.SIZE) + FlowPlace.HEADROOM;
    let headers = sw + Switch.headers + begun;
    let destination = sw + Switch.destination + begun / 8;
    let bytes: u32 = 0;
    let lengths: u32 = 0;
    for (; p != end; p += Packet.SIZE, place += FlowPlace.SIZE) {
      const word = load<u32>(p, Packet.len);
      if (Learning.isUnusual(word) || load<u16>(p, Packet.owner) != owner) break;
      if (word < 48 || (word > 64 && !mapped)) break;
      const frame: usize = load<u32>(p);
      const ip = v128.load(frame, 14);
      // Bytes 14 and 15 are in both.
      const h = i16x8.replace_lane(v128.load(frame), 7, i16x8.extract_lane_s(ip, 0));
      const rest = v128.load(frame, 30);
      const flags = load<u16>(frame, 46);
      if (!Flows.isPlain(ip, word)) break;
      const k0 = v128.or(v128.and(h, v128.load(t, FlowTable.plain)), inPort);
      const k1 = v128.and(ip, v128.load(t, FlowTable.plain + 16));
      const k2 = Flows.ports(t, rest, flags, ip);
      const entry = Flows.exact(t, k0, k1, k2);
      if (Flows.differs(entry, k0, k1, k2) || load<u32>(entry, FlowExact.generation) != generation) break;
      const to = load<u32>(entry, FlowExact.to);
      if (to >= <u32>Destination.ACTIONS && to != Destination.FLOOD) break;
      if (mapped) {
        if (!Flows.handsOver(sw, to, owner)) break;
      } else {
        v128.store(place + word - 16, v128.load(frame + word - 16));
        store<u16>(place, flags, 46);
        v128.store(place, rest, 30);
        v128.store(place, ip, 14);
        v128.store(place, h);
        store<u32>(p, <u32>place);
      }
      Flows.count(load<u32>(entry, FlowExact.flow), word);
      v128.store(headers, h);
      store<u16>(destination, <u16>to);
      headers += 16;
      destination += 2;
      bytes += word;
      lengths |= word;
    }
    Count.add(port + Port.rxBytes, bytes);
    store<u32>(sw, load<u32>(sw, Switch.alike) | lengths, Switch.alike);
    return p;
  }

  /** The port's number where a frame's bytes 14 and 15 would stand. */
  @inline static inPort(port: usize): v128 {
    return i16x8.replace_lane(i64x2.splat(0), 7, <i16>load<u32>(port, Port.index));
  }

  /**
   * Whether all lengths are right of a frame of `len` bytes that has `ip` behind its first 14, if it is TCP or UDP over
   * IPv4 without options: which `FlowExact` tells.
   */
  @inline static isPlain(ip: v128, len: u32): bool {
    const total = ((<u32>i8x16.extract_lane_u(ip, 2)) << 8) | <u32>i8x16.extract_lane_u(ip, 3);
    const protocol = <u32>i8x16.extract_lane_u(ip, 9);
    const least: u32 = protocol == 17 ? 28 : protocol == 6 ? 40 : 0xffff;
    return !(u32(total + 14 > len) | u32(total < least));
  }

  /** What counts of a frame's bytes 30 to 43, with TCP's flags behind them. */
  @inline static ports(t: usize, rest: v128, flags: u16, ip: v128): v128 {
    const last: u16 = i8x16.extract_lane_u(ip, 9) == 6 ? flags : 0;
    return v128.and(i16x8.replace_lane(rest, 7, <i16>last), v128.load(t, FlowTable.plain + 32));
  }

  /** Where a frame's entry is, if there is one. */
  @inline static exact(t: usize, k0: v128, k1: v128, k2: v128): usize {
    const h = Hash.wide(t, k0, k1, k2);
    return load<u32>(t, FlowTable.exact) + (<u32>(h >> 46) & ((FlowExact.COUNT - 1) * FlowExact.SIZE));
  }

  @inline static differs(entry: usize, k0: v128, k1: v128, k2: v128): bool {
    return v128.any_true(
      v128.or(
        v128.or(v128.xor(v128.load(entry), k0), v128.xor(v128.load(entry, 16), k1)),
        v128.xor(v128.load(entry, 32), k2),
      ),
    );
  }

  /** Keeps the flow of the frame of `len` bytes at `frame`, at least 16 of them, if it is a plain one. */
  static keep(t: usize, port: usize, frame: usize, len: u32, flow: usize): void {
    const h = v128.load(frame);
    const type = <u32>i16x8.extract_lane_u(h, 6);
    if (type == 0x0081 || type == 0xa888 || (type & 0xff) < 6) return;
    const k0 = v128.or(v128.and(h, v128.load(t, FlowTable.plain)), Flows.inPort(port));
    let k1 = i64x2.splat(0);
    let k2 = k1;
    if (load<u32>(t, FlowTable.deep)) {
      if (type != 0x0008 || len < 42) return;
      const ip = v128.load(frame, 14);
      if (i8x16.extract_lane_u(ip, 0) != 0x45 || <u32>i16x8.extract_lane_u(ip, 3) & 0xff3f) return;
      if (!Flows.isPlain(ip, len)) return;
      k1 = v128.and(ip, v128.load(t, FlowTable.plain + 16));
      k2 = Flows.ports(t, v128.load(frame, 30), load<u16>(frame, 46), ip);
    }
    const entry = Flows.exact(t, k0, k1, k2);
    v128.store(entry, k0);
    v128.store(entry, k1, 16);
    v128.store(entry, k2, 32);
    store<u32>(entry, <u32>flow, FlowExact.flow);
    store<u32>(entry, load<u32>(t, FlowTable.generation), FlowExact.generation);
    store<u32>(entry, load<u32>(flow, Megaflow.to), FlowExact.to);
  }

  @inline static count(flow: usize, bytes: u32): void {
    Count.add(flow + Megaflow.packets, 1);
    Count.add(flow + Megaflow.bytes, bytes);
  }

  /** Whether port `to` takes buffers of `owner` as they are, so that what a guest makes of them is its own affair. */
  @inline static handsOver(sw: usize, to: u32, owner: u32): bool {
    if (to >= <u32>Destination.ACTIONS) return false;
    return load<u32>(load<u32>(load<u32>(sw, Switch.table) + to * 4), Port.takes) == owner;
  }

  /** The flow that the cache has for a key under `FlowTable.union`, or 0. */
  @inline static find(t: usize, k0: v128, k1: v128, k2: v128, k3: v128): usize {
    const h = Hash.of(t, k0, k1, k2, k3, 0);
    const slot = load<u32>(t, FlowTable.cache) + (h & load<u32>(t, FlowTable.cacheMask)) * 8;
    const entry = load<u64>(slot);
    if (<u32>entry != h) return 0;
    const flow = <usize>(entry >> 32);
    const a = v128.xor(v128.and(k0, v128.load(flow, Megaflow.mask)), v128.load(flow));
    const b = v128.xor(v128.and(k1, v128.load(flow, Megaflow.mask + 16)), v128.load(flow, 16));
    const c = v128.xor(v128.and(k2, v128.load(flow, Megaflow.mask + 32)), v128.load(flow, 32));
    const d = v128.xor(v128.and(k3, v128.load(flow, Megaflow.mask + 48)), v128.load(flow, 48));
    if (v128.any_true(v128.or(v128.or(a, b), v128.or(c, d)))) return 0;
    return Megaflows.isCurrent(t, flow) ? flow : 0;
  }

  /** One frame of any kind, number `f` of the burst: its destination, and its header, to `Switch`. Returns the destination. */
  static one(sw: usize, port: usize, t: usize, p: usize, segments: u32, f: u32): u32 {
    const len = Desc.bytes(p, segments);
    const host = Objects.kind(load<u16>(p, Packet.owner)) == Kind.POOL;
    const place: usize = load<u32>(t, FlowTable.places) + f * FlowPlace.SIZE + FlowPlace.HEADROOM;
    let frame: usize = load<u32>(p);
    let have: u32 = min(len, FLOW_HEAD);
    if (!host || segments > 1 || len < 16) {
      frame = place;
      v128.store(place, i64x2.splat(0));
      Flows.copy(place, p, 0, have);
    }
    const h = v128.load(frame);
    v128.store(sw + Switch.headers + f * 16, h);
    store<u16>(sw + Switch.vid + f * 2, 0);
    let to: u32 = Destination.DROP;
    const tagged = load<u32>(sw, Switch.vlanAware) && Learning.isTagged(h);
    // As in the learning bridge: with its tag taken off it would be too short.
    if (len < <u32>(tagged ? 18 : 14)) Learning.drop(port, Drop.RUNT);
    else {
      Key.extract(frame, have, len, load<u32>(port, Port.index), t + FlowTable.key);
      const flow = Flows.flowOf(sw, t, port);
      if (have >= 16) Flows.keep(t, port, frame, len, flow);
      Flows.count(flow, len);
      to = load<u32>(flow, Megaflow.to);
      if (to == Destination.DROP) Learning.drop(port, load<u32>(flow, Megaflow.why));
      if (to == Destination.NORMAL) to = Flows.normal(sw, port, h, f, load<u16>(p, Packet.mark));
      if (to != Destination.DROP) {
        const type = load<u16>(frame, 12);
        const exposed = !host && (load<u32>(t, FlowTable.deep) != 0 || type == 0x0081 || type == 0xa888);
        if (to != Destination.ACTIONS && exposed && !Flows.isOwn(sw, to, p, segments)) {
          // What was looked at is what is delivered.
          if (segments == 1 && Objects.kind(load<u16>(p, Packet.owner)) == Kind.VIRTQUEUE) {
            if (len > have) Flows.copyRest(port, place, p, 1, have, len);
            store<u32>(p, <u32>place);
          } else to = Destination.ACTIONS;
        }
        if (to == Destination.ACTIONS) {
          if (frame != place) have = 0;
          if (len > have) Flows.copyRest(port, place, p, segments, have, len);
          store<u32>(t + f * 4, <u32>flow, FlowTable.flows);
          store<u32>(t + f * 4, len, FlowTable.lengths);
        }
      }
    }
    store<u16>(sw + Switch.destination + f * 2, <u16>to);
    return to;
  }

  /** The learning bridge's answer. */
  static normal(sw: usize, port: usize, h: v128, f: u32, mark: u32): u32 {
    if (mark && load<u32>(port, Port.trustsMark) && !load<u32>(sw, Switch.vlanAware)) {
      const known = Learning.marked(sw, mark);
      if (known) return Learning.steered(sw, port, h, known);
    }
    return Learning.lookup(sw, port, h, f);
  }

  /** All buffers of a frame are such as port `to` takes. */
  static isOwn(sw: usize, to: u32, p: usize, segments: u32): bool {
    const owner = load<u16>(p, Packet.owner);
    return Flows.handsOver(sw, to, owner) && Desc.owned(p, segments, owner) == segments;
  }

  /** Bytes `from` to `end` of a frame to the same place behind `to`. */
  static copy(to: usize, p: usize, from: u32, end: u32): void {
    for (let at: u32 = 0; at < end; p += Packet.SIZE) {
      const n = <u32>load<u16>(p, Packet.len);
      const skip = from > at ? min(from - at, n) : 0;
      const some = min(n, end - at);
      if (some > skip) Copy.bytes(to + at + skip, load<u32>(p) + skip, some - skip);
      at += n;
    }
  }

  /** The rest of a frame, for a copy that is the switch's own. */
  static copyRest(port: usize, to: usize, p: usize, segments: u32, have: u32, len: u32): void {
    Flows.copy(to, p, have, len);
    Count.add(port + Port.copies, 1);
    Count.add(port + Port.copiedBytes, len);
  }

  /** The flow of the key at `FlowTable.key`, which is put under the mask of all rules. */
  static flowOf(sw: usize, t: usize, port: usize): usize {
    const key = t + FlowTable.key;
    const k0 = v128.and(v128.load(key), v128.load(t, FlowTable.union));
    const k1 = v128.and(v128.load(key, 16), v128.load(t, FlowTable.union + 16));
    const k2 = v128.and(v128.load(key, 32), v128.load(t, FlowTable.union + 32));
    const k3 = v128.and(v128.load(key, 48), v128.load(t, FlowTable.union + 48));
    let flow = Flows.find(t, k0, k1, k2, k3);
    if (flow) return flow;
    v128.store(key, k0);
    v128.store(key, k1, 16);
    v128.store(key, k2, 32);
    v128.store(key, k3, 48);
    const shared = Megaflows.isWorthwhile(t);
    if (shared) {
      flow = Megaflows.lookup(t, key);
      Megaflows.learn(t, flow != 0);
    }
    if (flow) Count.add(t + FlowTable.megaflowHits, 1);
    else {
      Count.add(t + FlowTable.misses, 1);
      flow = Translation.run(sw, t, port, shared);
    }
    const h = Hash.of(t, k0, k1, k2, k3, 0);
    const slot = load<u32>(t, FlowTable.cache) + (h & load<u32>(t, FlowTable.cacheMask)) * 8;
    store<u64>(slot, <u64>h | ((<u64>flow) << 32));
    return flow;
  }
}
