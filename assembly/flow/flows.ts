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
  FLOW_COPY,
  FLOW_HEAD,
  FlowExact,
  FlowPlace,
  FlowTable,
  FRAME_MAX,
  Kind,
  Megaflow,
  Packet,
  PacketFlag,
  Port,
  Switch,
} from "../layout";
import { Learning } from "../learning";
import { Desc, OWNER_AND_MARK } from "../packet";
import { Sync } from "../sync";
import { Classifier, Hash } from "./classifier";
import { Key } from "./key";
import { Megaflows } from "./megaflow";
import { Translation } from "./translate";

/** Where the frames lie that `Flows.run` is for. */
enum Place {
  /** In host buffers. */
  HOST,
  /**
   * In a guest's buffers: those of up to FLOW_COPY bytes are copied, with what was looked at as it was then. It is loaded once
   * and not looked at in the copy, where loads would wait for the stores.
   */
  GUEST,
  /** In a guest's buffers that its port takes as they are. */
  MAPPED,
  /** The same, and their descriptors are still in the card's ring. */
  RING,
}

export class Flows {
  /** Where the `n` descriptors in `Switch.packets` go. Returns the frames. */
  static classify(sw: usize, port: usize, n: u32): u32 {
    store<u32>(sw, 0, Switch.alike);
    store<u32>(sw, Destination.MIXED, Switch.common);
    const t: usize = load<u32>(sw, Switch.flows);
    Flows.stamp(t, port);
    if (load<u32>(sw, Switch.vlanAware)) return Flows.classifyRest(sw, port, 0, n, false);
    const packets = sw + Switch.packets;
    const end = packets + n * Packet.SIZE;
    const owner = <u32>load<u16>(packets, Packet.owner);
    const deep = load<u32>(t, FlowTable.deep);
    const kind = Objects.kind(owner);
    if (deep && kind == Kind.VIRTQUEUE) Flows.keepsNone(sw);
    let oneOwner = true;
    let listed = false;
    let seen = packets;
    for (let p = packets; ; p += Packet.SIZE) {
      if (!deep) p = Flows.runShallow(sw, t, port, p, end, owner);
      else if (kind == Kind.POOL) p = Flows.runDeep(sw, t, port, p, end, owner);
      else if (kind == Kind.MAPPING) p = Flows.runMapped(sw, t, port, p, end, owner);
      else p = Flows.runGuests(sw, t, port, p, end, owner);
      if (p == end) break;
      const f = <u32>(p - packets) / Packet.SIZE;
      const word = load<u32>(p, Packet.len);
      if (word >> 16) return Flows.classifyRest(sw, port, f, n, listed);
      Count.add(port + Port.rxBytes, word);
      store<u32>(sw, load<u32>(sw, Switch.alike) | word, Switch.alike);
      if (load<u16>(p, Packet.owner) != owner) oneOwner = false;
      if (p >= seen && kind == Kind.POOL && !Megaflows.areShared(t)) {
        seen = min(end, p + FlowTable.AHEAD * Packet.SIZE);
        Flows.readAhead(t, port, p, seen);
      }
      if (Flows.one(sw, port, t, p, 1, f) == Destination.ACTIONS) listed = true;
    }
    if (!oneOwner) store<u32>(sw, 0, Switch.alike);
    store<u32>(sw, listed ? Destination.ACTIONS : Flows.common(sw, n), Switch.common);
    return n;
  }

  /**
   * Where each frame is a new flow, what it takes are looks into memory that isn't in the processor's cache: those of all
   * frames from `p` to `end`, in host buffers, are made side by side here, and each is dealt with afterwards.
   */
  static readAhead(t: usize, port: usize, p: usize, end: usize): void {
    const key = t + FlowTable.edited;
    const inPort = load<u32>(port, Port.index);
    const list: usize = load<u32>(t, FlowTable.ahead);
    let to = list;
    for (; p != end; p += Packet.SIZE) {
      const len = load<u32>(p, Packet.len);
      if (Learning.isUnusual(len)) continue;
      Key.extract(load<u32>(p), min(len, FLOW_HEAD), len, inPort, key);
      to = Classifier.foresee(t, key, to);
    }
    Classifier.readAhead(t, list, to);
  }

  /** `FlowTable.stamp` for frames from `port`. */
  static stamp(t: usize, port: usize): void {
    const generation = load<u32>(t, FlowTable.generation);
    const front = load<u32>(port, Port.index) | (generation << 16);
    v128.store(
      t,
      i16x8.replace_lane(i32x4.replace_lane(i64x2.splat(0), 0, front), 4, <i16>(generation >> 16)),
      FlowTable.stamp,
    );
  }

  /** Frames of a guest that lends its buffers to a card are delivered from copies, which are only there as long as the burst is. */
  @inline static keepsNone(sw: usize): void {
    store<u32>(sw, 0, Switch.lender);
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

  /**
   * Of the frames from `p` on, in a card's ring, those in front that are received, of this `kind` (owner and mark), and
   * that go to port `to` by flows that `FlowExact` tells. They are counted there; returns how many.
   */
  static ahead(sw: usize, port: usize, p: usize, n: u32, kind: u64, to: u32): u32 {
    const t: usize = load<u32>(sw, Switch.flows);
    Flows.stamp(t, port);
    const end = p + n * Packet.SIZE;
    const stop = load<u32>(t, FlowTable.deep)
      ? Flows.run(sw, t, port, p, end, kind, true, Place.RING, to)
      : Flows.run(sw, t, port, p, end, kind, false, Place.RING, to);
    return <u32>(stop - p) / Packet.SIZE;
  }

  static runShallow(sw: usize, t: usize, port: usize, p: usize, end: usize, owner: u32): usize {
    return Flows.run(sw, t, port, p, end, owner, false, Place.HOST, 0);
  }

  static runDeep(sw: usize, t: usize, port: usize, p: usize, end: usize, owner: u32): usize {
    return Flows.run(sw, t, port, p, end, owner, true, Place.HOST, 0);
  }

  static runGuests(sw: usize, t: usize, port: usize, p: usize, end: usize, owner: u32): usize {
    return Flows.run(sw, t, port, p, end, owner, true, Place.GUEST, 0);
  }

  static runMapped(sw: usize, t: usize, port: usize, p: usize, end: usize, owner: u32): usize {
    return Flows.run(sw, t, port, p, end, owner, true, Place.MAPPED, 0);
  }

  /**
   * Frames in front whose flow `FlowExact` tells, and which go to one port, or to all, are dealt with. Returns where it stopped.
   * No call in its loop (docs/design.md): it is compiled into each of its callers, for their `deep` and `place`.
   *
   * @param kind whose all of them are, and in a card's ring their mark
   * @param deep whether rules look beyond a frame's first 16 bytes
   * @param to in a card's ring: the port where all go
   */
  @inline static run(
    sw: usize,
    t: usize,
    port: usize,
    p: usize,
    end: usize,
    kind: u64,
    deep: bool,
    place: Place,
    to: u32,
  ): usize {
    const m0 = v128.load(t, FlowTable.plain);
    const m1 = v128.load(t, FlowTable.plain + 16);
    const m2 = v128.load(t, FlowTable.plain + 32);
    const stamp = v128.load(t, FlowTable.stamp);
    const begun = p - (sw + Switch.packets);
    let copy = load<u32>(t, FlowTable.copies) + <u32>begun * (FLOW_COPY / Packet.SIZE);
    let destination = sw + Switch.destination + begun / 8;
    let bytes: u32 = 0;
    let lengths: u32 = 0;
    let entry: usize = 0;
    const sets = load<u32>(t, FlowTable.exactMask);
    // With TCP's header, if that is looked at.
    const shortest: u32 = deep ? 54 : 16;
    const flags = deep && load<u32>(t, FlowTable.deep) > 1;
    const usual = (kind << 48) | ((<u64>shortest) << 16);
    for (; p != end; p += Packet.SIZE) {
      let word: u32;
      if (place == Place.RING) {
        word = Sync.load<u32>(p + Packet.len) ^ (PacketFlag.DONE << 16);
        if ((load<u64>(p, Packet.owner) & OWNER_AND_MARK) != kind) break;
        if (word - shortest > <u32>FRAME_MAX - shortest) break;
      } else {
        // Length, flags and owner in one look.
        const three = load<u64>(p, Packet.len) << 16;
        if (three - usual > (<u64>(<u32>FRAME_MAX - shortest)) << 16) break;
        word = <u32>(three >> 16);
      }
      if (place == Place.GUEST) if (word > <u32>FLOW_COPY) break;
      const frame: usize = load<u32>(p);
      const a = v128.load(frame);
      const k0 = v128.and(a, m0);
      if (!deep) {
        // Frames between the same two stations are of one flow.
        if (!entry || v128.any_true(v128.xor(v128.load(entry), k0))) {
          const type = <u32>i16x8.extract_lane_u(a, 6);
          if (type == 0x0081 || type == 0xa888 || (type & 0xff) < 6) break;
          entry = Flows.exact(t, sets, k0, stamp, i64x2.splat(0));
          if (!Flows.is(entry, k0, stamp, i64x2.splat(0))) {
            entry += FlowExact.SECOND;
            if (!Flows.is(entry, k0, stamp, i64x2.splat(0))) break;
          }
          if (Flows.isOld(t, entry)) break;
        }
      } else {
        const b = v128.load(frame, 16);
        const c = v128.load(frame, 32);
        const k1 = v128.or(v128.and(b, m1), stamp);
        let m = m2;
        if (flags) m = Flows.maskOf(t, b);
        const k2 = v128.and(c, m);
        entry = Flows.exact(t, sets, k0, k1, k2);
        if (!Flows.is(entry, k0, k1, k2)) {
          entry += FlowExact.SECOND;
          if (!Flows.is(entry, k0, k1, k2)) break;
        }
        if (Flows.isOld(t, entry)) break;
        const total =
          place == Place.HOST ? ((<u32>load<u8>(frame, 16)) << 8) | <u32>load<u8>(frame, 17) : Flows.total(b);
        // Neither below the least nor more than there is.
        const least = load<u32>(entry, FlowExact.least);
        if (total - least > word - 14 - least) break;
        if (place == Place.MAPPED) if (!Flows.handsOver(sw, load<u32>(entry, FlowExact.to), <u32>kind)) break;
        if (place == Place.GUEST) {
          v128.store(copy + word - 16, v128.load(frame + word - 16));
          v128.store(copy, a);
          v128.store(copy, b, 16);
          v128.store(copy, c, 32);
          store<u32>(p, <u32>copy);
          copy += FLOW_COPY;
        }
      }
      const its = load<u32>(entry, FlowExact.to);
      if (place == Place.RING) {
        if (its != to) break;
      } else {
        v128.store(p, a, Switch.headers - Switch.packets);
        store<u16>(destination, <u16>its);
        destination += 2;
        bytes += word;
        lengths |= word;
      }
      Flows.count(load<u32>(entry, FlowExact.flow), word);
    }
    if (place != Place.RING) {
      Count.add(port + Port.rxBytes, bytes);
      store<u32>(sw, load<u32>(sw, Switch.alike) | lengths, Switch.alike);
    }
    return p;
  }

  /** What counts of a plain frame's bytes 32 to 47: of TCP, whose number is even, other bits than of UDP. */
  @inline static maskOf(t: usize, b: v128): v128 {
    const tcp: usize = (~(<u32>i8x16.extract_lane_u(b, 7)) & 1) << 4;
    return v128.load(t + tcp, FlowTable.plain + 32);
  }

  /** Where a frame's entry is, if it is a first one. */
  @inline static exact(t: usize, sets: u32, k0: v128, k1: v128, k2: v128): usize {
    const sum = v128.xor(v128.xor(k0, k1), k2);
    const h =
      (<u64>i64x2.extract_lane(sum, 0) * 0x9e3779b97f4a7c15 + <u64>i64x2.extract_lane(sum, 1)) *
      0x9e3779b97f4a7c15;
    return load<u32>(t, FlowTable.exact) + (<u32>(h >> 46) & sets);
  }

  @inline static is(entry: usize, k0: v128, k1: v128, k2: v128): bool {
    const a = i8x16.eq(v128.load(entry), k0);
    const b = i8x16.eq(v128.load(entry, 16), k1);
    const c = i8x16.eq(v128.load(entry, 32), k2);
    return i8x16.bitmask(v128.and(v128.and(a, b), c)) == 0xffff;
  }

  /** Whether an entry's flow isn't there any more. */
  @inline static isOld(t: usize, entry: usize): bool {
    return <i32>(load<u32>(entry, FlowExact.serial) - load<u32>(t, FlowTable.first)) < 0;
  }

  /** IP's total length, of a frame's bytes 16 to 31. */
  @inline static total(b: v128): u32 {
    return ((<u32>i8x16.extract_lane_u(b, 0)) << 8) | <u32>i8x16.extract_lane_u(b, 1);
  }

  /**
   * Keeps the flow of the frame of `len` bytes at `frame`, at least 16 of them, if it is a plain one and goes to one
   * port, or to all.
   */
  static keep(t: usize, frame: usize, len: u32, flow: usize): void {
    const to = load<u32>(flow, Megaflow.to);
    if (to >= <u32>Destination.ACTIONS && to != Destination.FLOOD) return;
    const a = v128.load(frame);
    const type = <u32>i16x8.extract_lane_u(a, 6);
    if (type == 0x0081 || type == 0xa888 || (type & 0xff) < 6) return;
    const k0 = v128.and(a, v128.load(t, FlowTable.plain));
    let k1 = v128.load(t, FlowTable.stamp);
    let k2 = i64x2.splat(0);
    let least: u32 = 0;
    if (load<u32>(t, FlowTable.deep)) {
      if (type != 0x0008 || len < 42) return;
      const b = v128.load(frame, 16);
      const protocol = <u32>i8x16.extract_lane_u(b, 7);
      if (load<u8>(frame, 14) != 0x45 || load<u16>(frame, 20) & 0xff3f) return;
      if (protocol != 6 && protocol != 17) return;
      least = protocol == 6 ? 40 : 28;
      const total = Flows.total(b);
      if (total < least || total + 14 > len) return;
      k1 = v128.or(v128.and(b, v128.load(t, FlowTable.plain + 16)), k1);
      k2 = v128.and(v128.load(frame, 32), Flows.maskOf(t, b));
    }
    const sets = load<u32>(t, FlowTable.exactMask);
    let entry = Flows.exact(t, sets, k0, k1, k2);
    if (!Flows.is(entry, k0, k1, k2)) {
      const second = entry + FlowExact.SECOND;
      const next = load<u32>(t, FlowTable.next);
      const older = next - load<u32>(second, FlowExact.serial) > next - load<u32>(entry, FlowExact.serial);
      if (older || Flows.is(second, k0, k1, k2)) entry = second;
      const used = load<u32>(entry, FlowExact.flow) && !Flows.isOld(t, entry);
      // Where each frame is a new flow a larger table would only take more room in the processor's cache.
      if (used && Megaflows.areShared(t) && !Flows.is(entry, k0, k1, k2)) Flows.lose(t);
    }
    v128.store(entry, k0);
    v128.store(entry, k1, 16);
    v128.store(entry, k2, 32);
    store<u32>(entry, <u32>flow, FlowExact.flow);
    store<u32>(entry, load<u32>(flow, Megaflow.serial), FlowExact.serial);
    store<u32>(entry, to, FlowExact.to);
    store<u32>(entry, least, FlowExact.least);
  }

  /** An entry gives its place to another one. When that happens often the table gets larger; it is found anew what is in it. */
  static lose(t: usize): void {
    const lost = load<u32>(t, FlowTable.exactLost) + 1;
    const mask = load<u32>(t, FlowTable.exactMask);
    const grow = lost == 16 && mask < <u32>(FlowExact.COUNT - 1) * FlowExact.SIZE;
    if (grow) store<u32>(t, mask * 2 + FlowExact.SIZE, FlowTable.exactMask);
    store<u32>(t, grow ? 0 : lost & 15, FlowTable.exactLost);
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
    const flow = <usize>(entry >> 32);
    if (<u32>entry != h || !flow) return 0;
    const mask: usize = load<u32>(flow, Megaflow.mask);
    const a = v128.xor(v128.and(k0, v128.load(mask)), v128.load(flow));
    const b = v128.xor(v128.and(k1, v128.load(mask, 16)), v128.load(flow, 16));
    const c = v128.xor(v128.and(k2, v128.load(mask, 32)), v128.load(flow, 32));
    const d = v128.xor(v128.and(k3, v128.load(mask, 48)), v128.load(flow, 48));
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
      const flow = Flows.flowOf(sw, t, port, frame, have, len);
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
            Flows.keepsNone(sw);
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

  /**
   * The flow of the key at `FlowTable.key`, which is put under the mask of all rules; it counts the frame, of `len` bytes
   * and with `have` of them at `frame`.
   */
  static flowOf(sw: usize, t: usize, port: usize, frame: usize, have: u32, len: u32): usize {
    const key = t + FlowTable.key;
    const k0 = v128.and(v128.load(key), v128.load(t, FlowTable.union));
    const k1 = v128.and(v128.load(key, 16), v128.load(t, FlowTable.union + 16));
    const k2 = v128.and(v128.load(key, 32), v128.load(t, FlowTable.union + 32));
    const k3 = v128.and(v128.load(key, 48), v128.load(t, FlowTable.union + 48));
    let flow = Flows.find(t, k0, k1, k2, k3);
    if (flow) {
      if (have >= 16) Flows.keep(t, frame, len, flow);
      Flows.count(flow, len);
      return flow;
    }
    v128.store(key, k0);
    v128.store(key, k1, 16);
    v128.store(key, k2, 32);
    v128.store(key, k3, 48);
    const shared = Megaflows.isWorthwhile(t);
    if (shared) {
      flow = Megaflows.lookup(t, key);
      Megaflows.learn(t, flow != 0);
    }
    if (flow) {
      Count.add(t + FlowTable.megaflowHits, 1);
      Flows.count(flow, len);
    } else {
      Count.add(t + FlowTable.misses, 1);
      flow = Translation.run(sw, t, port, shared);
      // Its rules have just been looked at; later they are further away.
      Megaflows.charge(flow, 1, len);
    }
    // Where each frame is a new flow, one has an entry of its own when it comes again.
    if (shared && have >= 16) Flows.keep(t, frame, len, flow);
    const h = Hash.of(t, k0, k1, k2, k3, 0);
    const slot = load<u32>(t, FlowTable.cache) + (h & load<u32>(t, FlowTable.cacheMask)) * 8;
    store<u64>(slot, <u64>h | ((<u64>flow) << 32));
    return flow;
  }
}
