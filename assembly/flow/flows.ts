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
    const owner = load<u16>(packets, Packet.owner);
    const deep = load<u32>(t, FlowTable.deep) != 0;
    const kind = Objects.kind(owner);
    const guests = kind != Kind.POOL;
    const mapped = kind == Kind.MAPPING;
    const inPort = i16x8.replace_lane(i64x2.splat(0), 0, <i16>load<u32>(port, Port.index));
    let p = packets;
    let common: u32 = Destination.MIXED;
    let oneOwner = true;
    let listed = false;
    let lengths: u32 = 0;
    let bytes: u32 = 0;
    while (p != end) {
      // Frames whose flow is cached and goes to one port, or to all. No call: see docs/design.md.
      if (deep) {
        let place =
          load<u32>(t, FlowTable.places) +
          <u32>(p - packets) * (FlowPlace.SIZE / Packet.SIZE) +
          FlowPlace.HEADROOM;
        for (; p != end; p += Packet.SIZE, place += FlowPlace.SIZE) {
          const word = load<u32>(p, Packet.len);
          if (Learning.isUnusual(word) || load<u16>(p, Packet.owner) != owner) break;
          let frame: usize = load<u32>(p);
          if (guests) {
            if (word < 32 || (word > 64 && !mapped)) break;
            Flows.copyShort(place, frame, min<u32>(word, 64));
            frame = place;
          }
          const h = v128.load(frame);
          const flow = Flows.cachedDeep(t, frame, word, h, inPort);
          if (!flow) break;
          const to = load<u32>(flow, Megaflow.to);
          if (to >= <u32>Destination.ACTIONS && to != Destination.FLOOD) break;
          if (guests && !Flows.handsOver(sw, to, owner)) {
            if (mapped) break;
            store<u32>(p, <u32>frame);
          }
          Flows.count(flow, word);
          const f = <u32>(p - packets) / Packet.SIZE;
          v128.store(sw + Switch.headers + f * 16, h);
          store<u16>(sw + Switch.destination + f * 2, <u16>to);
          common = p == packets || to == common ? to : Destination.MIXED;
          lengths |= word;
          bytes += word;
        }
      } else {
        let low: u64 = 0;
        let high: u64 = 0;
        let flow: usize = 0;
        for (; p != end; p += Packet.SIZE) {
          const word = load<u32>(p, Packet.len);
          if (Learning.isUnusual(word) || load<u16>(p, Packet.owner) != owner) break;
          const h = v128.load(load<u32>(p));
          // Frames between the same two stations are of one flow.
          if (
            !flow ||
            <u64>i64x2.extract_lane(h, 0) != low ||
            (<u64>i64x2.extract_lane(h, 1)) << 16 != high
          ) {
            flow = Flows.cached(t, h, inPort);
            if (!flow) break;
            low = i64x2.extract_lane(h, 0);
            high = (<u64>i64x2.extract_lane(h, 1)) << 16;
          }
          const to = load<u32>(flow, Megaflow.to);
          if (to >= <u32>Destination.ACTIONS && to != Destination.FLOOD) break;
          Flows.count(flow, word);
          const f = <u32>(p - packets) / Packet.SIZE;
          v128.store(sw + Switch.headers + f * 16, h);
          store<u16>(sw + Switch.destination + f * 2, <u16>to);
          common = p == packets || to == common ? to : Destination.MIXED;
          lengths |= word;
          bytes += word;
        }
      }
      if (p == end) break;
      const word = load<u32>(p, Packet.len);
      const f = <u32>(p - packets) / Packet.SIZE;
      if (word >> 16) {
        Count.add(port + Port.rxBytes, bytes);
        return Flows.classifyRest(sw, port, f, n, listed);
      }
      if (load<u16>(p, Packet.owner) != owner) oneOwner = false;
      const to = Flows.one(sw, port, t, p, 1, f);
      listed = listed || to == Destination.ACTIONS;
      common = p == packets || to == common ? to : Destination.MIXED;
      lengths |= word;
      bytes += word;
      p += Packet.SIZE;
    }
    Count.add(port + Port.rxBytes, bytes);
    if (listed) common = Destination.ACTIONS;
    store<u32>(sw, common, Switch.common);
    store<u32>(sw, oneOwner ? lengths : 0, Switch.alike);
    return n;
  }

  /** Frames from number `f` on, whatever they are; those before are of one segment each, some with lists of actions. */
  static classifyRest(sw: usize, port: usize, f: u32, n: u32, listed: bool): u32 {
    const t: usize = load<u32>(sw, Switch.flows);
    const frames = Learning.index(sw, n);
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

  /** 32 to 64 bytes. */
  @inline static copyShort(to: usize, from: usize, n: u32): void {
    const a = v128.load(from);
    const b = v128.load(from, 16);
    const c = v128.load(from + n - 32);
    const d = v128.load(from + n - 32, 16);
    v128.store(to, a);
    v128.store(to, b, 16);
    v128.store(to + n - 32, c);
    v128.store(to + n - 32, d, 16);
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

  /** The cached flow of a frame by its first 16 bytes `h`, where no rule looks further; 0 if none is, or it has a tag or no type. */
  @inline static cached(t: usize, h: v128, inPort: v128): usize {
    const type = <u32>i16x8.extract_lane_u(h, 6);
    if (type == 0x0081 || type == 0xa888 || (type & 0xff) < 6) return 0;
    const k0 = v128.and(i16x8.replace_lane(h, 7, 0), v128.load(t, FlowTable.union));
    const none = i64x2.splat(0);
    return Flows.find(t, k0, inPort, none, none);
  }

  /**
   * The cached flow of the `len` bytes at `frame`, of which the first 16 are `h`; 0 if there is none, or if it isn't TCP
   * or UDP over IPv4 without tags, options and fragments.
   */
  @inline static cachedDeep(t: usize, frame: usize, len: u32, h: v128, inPort: v128): usize {
    const begin = load<u64>(frame, 14);
    const rest = v128.load(frame, 22); // from the time to live to the destination port
    const protocol = <u32>i8x16.extract_lane_u(rest, 1);
    const least: u32 = protocol == 17 ? 28 : protocol == 6 ? 40 : 0xffff;
    const total = <u32>bswap<u16>(<u16>(begin >> 16));
    const odd =
      (<u32>i16x8.extract_lane_u(h, 6) ^ 0x0008) |
      (<u32>(<u8>begin) ^ 0x45) |
      (<u32>(begin >> 48) & 0xff3f) |
      u32(total + 14 > len) |
      u32(total < least);
    if (odd) return 0;
    const k0 = v128.and(i16x8.replace_lane(h, 7, 0), v128.load(t, FlowTable.union));
    // Port, type of service, time to live, protocol; no fragment; flags; ports.
    const tos = i64x2.splat(<i64>begin);
    let k1 = i8x16.shuffle(rest, tos, 0, 0, 17, 0, 1, 0, 0, 0, 12, 13, 14, 15, 0, 0, 0, 0);
    k1 = v128.and(k1, i8x16(0, 0, -1, -1, -1, 0, 0, 0, -1, -1, -1, -1, 0, 0, 0, 0));
    if (protocol == 6) k1 = i16x8.replace_lane(k1, 3, <i16>(load<u16>(frame, 46) & 0xff0f));
    k1 = v128.and(v128.or(k1, inPort), v128.load(t, FlowTable.union + 16));
    const none = i64x2.splat(0);
    const k2 = v128.and(
      i8x16.shuffle(rest, none, 4, 5, 6, 7, 8, 9, 10, 11, 16, 16, 16, 16, 16, 16, 16, 16),
      v128.load(t, FlowTable.union + 32),
    );
    return Flows.find(t, k0, k1, k2, none);
  }

  /** The flow that the cache has for a key under `FlowTable.union`, or 0. */
  @inline static find(t: usize, k0: v128, k1: v128, k2: v128, k3: v128): usize {
    const h = Hash.of(k0, k1, k2, k3, 0);
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
    const known = mark && mark <= load<u32>(sw, Switch.ports);
    if (known && load<u32>(port, Port.trustsMark) && !load<u32>(sw, Switch.vlanAware))
      return Learning.steered(sw, port, h, mark);
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
    flow = Megaflows.lookup(t, key);
    if (flow) Count.add(t + FlowTable.megaflowHits, 1);
    else {
      Count.add(t + FlowTable.misses, 1);
      flow = Translation.run(sw, t, port);
    }
    const h = Hash.of(k0, k1, k2, k3, 0);
    const slot = load<u32>(t, FlowTable.cache) + (h & load<u32>(t, FlowTable.cacheMask)) * 8;
    store<u64>(slot, <u64>h | ((<u64>flow) << 32));
    return flow;
  }
}
