/**
 * The switch (layout: `Switch`, `Port`), after netmap's VALE: a burst is classified as a whole, then moved, one
 * destination at a time.
 *
 *     port.rx -> | classify: destination of each frame | -> deliver, port by port -> release what was copied
 *
 * A frame is handed over where the destination can take the buffer itself (`Port.takes`), and copied anywhere
 * else; a full destination drops, counted, and never makes others wait.
 */
import { Copy } from "./copy";
import { Count } from "./count";
import { Objects } from "./directory";
import { External } from "./external";
import { Edit } from "./flow/edit";
import { Flows } from "./flow/flows";
import { PacketIn } from "./flow/packet-in";
import { Mappings } from "./iovtee";
import {
  BURST_DESCRIPTORS,
  BURST_MAX,
  Destination,
  Drop,
  FlowAction,
  FlowActionKind,
  FlowPlace,
  FlowTable,
  Kind,
  Kring,
  Lookup,
  Mapping,
  Megaflow,
  NetmapSlot,
  Nic,
  Packet,
  PacketFlag,
  Pool,
  Port,
  PortKind,
  RxQueue,
  SlotFlag,
  Switch,
  Virtqueue,
} from "./layout";
import { Learning } from "./learning";
import { Mempool } from "./mempool";
import { Krings } from "./netmap/kring";
import { NetmapPorts } from "./netmap/port";
import { Card, Pmd } from "./nic";
import { Desc, OWNER_AND_MARK } from "./packet";
import { Rings } from "./ring";
import { VdpdkPort } from "./vdpdk/port";
import { Vhost } from "./vhost";
import { AnyDevice } from "./virtqueue/any-device";
import { Device } from "./virtqueue/device";
import { PackedDevice } from "./virtqueue/packed-device";
import { SplitDevice } from "./virtqueue/split-device";

/** End of a list in `Switch.next`. */
const END: u32 = 0xffff;

export class Switching {
  /** One burst from a port (from each queue of a NIC). Returns the frames moved. */
  static pollPort(sw: usize, port: usize): u32 {
    if (!load<u32>(port, Port.up)) return 0;
    if (load<u32>(sw, Switch.pending)) Switching.abandon(sw);
    const kind = load<u32>(port, Port.kind);
    const own = load<u32>(port, Port.burst);
    const burst = own ? own : load<u32>(sw, Switch.burst);
    const to = sw + Switch.packets;
    if (kind == PortKind.NIC) return Switching.pollNic(sw, port);
    if (kind == PortKind.NETMAP) return Switching.pollNetmap(sw, port, to, burst);
    let n: u32 = 0;
    if (kind == PortKind.VHOST) {
      const vq: usize = load<u32>(port, Port.from);
      if (load<u32>(vq, Virtqueue.lent))
        Pmd.txCleanAll(load<u32>(vq, Virtqueue.lendsTo), load<u32>(sw, Switch.lcore));
      n = Device.isPacked(vq)
        ? Vhost.rx<PackedDevice>(port, to, burst, BURST_DESCRIPTORS)
        : Vhost.rx<SplitDevice>(port, to, burst, BURST_DESCRIPTORS);
    } else if (kind == PortKind.VDPDK) {
      n = VdpdkPort.rx(port, to, burst, BURST_DESCRIPTORS);
    } else if (kind == PortKind.RING) {
      n = Rings.dequeueBurst(load<u32>(port, Port.from), to, burst);
    }
    return n ? Switching.process(sw, port, n) : 0;
  }

  static pollNetmap(sw: usize, port: usize, to: usize, burst: u32): u32 {
    const n = NetmapPorts.rx(port, to, burst, BURST_DESCRIPTORS);
    const moved = n ? Switching.process(sw, port, n) : 0;
    NetmapPorts.sent(port);
    const k: usize = load<u32>(port, Port.to);
    if (!load<u32>(k, Kring.toStack)) return moved;
    Switching.forwardToStack(sw, port, k);
    const sent = Rings.dequeueBurst(load<u32>(k, Kring.fromStack), to, burst);
    return moved + (sent ? Switching.process(sw, port, sent) : 0);
  }

  /** What a netmap port's user has given back marked FORWARD goes to the host's own stack (netmap.c, "host rings"). */
  static forwardToStack(sw: usize, port: usize, k: usize): void {
    Krings.prologue(k);
    const mask = load<u32>(k, Kring.mask);
    const head = load<u32>(k, Kring.rhead);
    const list = sw + Switch.packets;
    const spare = sw + Switch.spare;
    let at = load<u32>(k, Kring.hwcur);
    while (at != head) {
      if (!(load<u16>(Krings.slot(k, at), NetmapSlot.flags) & SlotFlag.FORWARD)) {
        at = (at + 1) & mask;
        continue;
      }
      const taken = Krings.take(k, at, (head - at) & mask, list);
      if (!taken) break;
      at = (at + (taken >> 16)) & mask;
      const segments = taken & 0xffff;
      if (!segments) continue;
      const got = Switching.copyToHost(sw, port, list, segments, Copy.header(list, segments), spare);
      if (got && Rings.enqueueFrames(load<u32>(k, Kring.toStack), spare, got)) {
        Count.add(k + Kring.forwarded, 1);
        continue;
      }
      Count.add(k + Kring.forwardDrops, 1);
      Switching.release(sw, spare, got, 0);
    }
    store<u32>(k, at, Kring.hwcur);
  }

  static pollNic(sw: usize, port: usize): u32 {
    const nic: usize = load<u32>(port, Port.to);
    const queues = load<u32>(nic, Nic.rxQueues);
    let moved: u32 = 0;
    for (let i: u32 = 0; i < queues; i++) {
      const q = Card.rxQueue(nic, i);
      if (!load<u32>(q, RxQueue.bridge)) moved += Switching.pollQueue(sw, port, q);
    }
    return moved;
  }

  /** One burst from receive queue `q` of the card at `port`. Returns the frames moved. */
  static pollQueue(sw: usize, port: usize, q: usize): u32 {
    if (load<u32>(sw, Switch.pending)) Switching.abandon(sw);
    Count.add(q + RxQueue.polls, 1);
    const budget = load<u32>(q, RxQueue.budget);
    const burst = budget ? budget : load<u32>(sw, Switch.burst);
    const to = sw + Switch.packets;
    const mapping: usize = load<u32>(q, RxQueue.mapping);
    let moved = mapping ? Switching.passMapped(sw, port, q, mapping, burst) : 0;
    // What isn't one guest's is for all: a burst for each, sorted together.
    let left = burst * (mapping || budget ? 1 : max<u32>(load<u32>(sw, Switch.ports), 2) - 1) - moved;
    for (let n: u32 = 1; n && left; ) {
      const some = min(left, <u32>BURST_MAX);
      n = Pmd.rxSteered(q, load<u32>(sw, Switch.lcore), to, some, BURST_DESCRIPTORS);
      if (n) moved += Switching.process(sw, port, n);
      left -= some;
    }
    moved += Pmd.takenAway(q);
    if (Pmd.wantsRefill(q)) {
      if (mapping) Mappings.refill(mapping, load<u32>(sw, Switch.lcore));
      else Pmd.refill(q, load<u32>(sw, Switch.lcore), load<u32>(q, RxQueue.mask) + 1);
    }
    return moved;
  }

  /**
   * Of a mapped queue's burst the frames in front that the card's filter marked for the mapped guest and that lie in its
   * own buffers: to the guest, as `process` would do it, but in one pass; by a flow table in two. Returns how many.
   */
  static passMapped(sw: usize, port: usize, q: usize, mapping: usize, burst: u32): u32 {
    if (!Pmd.posted(q)) return 0;
    const slot = load<u32>(q, RxQueue.next) & load<u32>(q, RxQueue.mask);
    const p: usize = load<u32>(q, RxQueue.ring) + slot * Packet.SIZE;
    if (!Pmd.isDone(p)) return 0;
    const kind = load<u64>(p, Packet.owner) & OWNER_AND_MARK;
    const mark = <u32>(kind >> 48);
    if (!mark || mark > load<u32>(sw, Switch.ports)) return 0;
    // Another lookup sees every frame.
    const lookup = load<u32>(sw, Switch.lookup);
    if (lookup == Lookup.EXTERNAL || load<u32>(sw, Switch.vlanAware)) return 0;
    const out = Switching.port(sw, mark - 1);
    const vq: usize = load<u32>(mapping, Mapping.virtqueue);
    if (<usize>load<u32>(out, Port.to) != vq || load<u32>(out, Port.takes) != <u32>(<u16>kind)) return 0;
    if (!Device.isUsable(vq) || Device.isPacked(vq)) return 0;
    if (lookup == Lookup.FLOWS) {
      burst = Flows.ahead(sw, port, p, Mappings.straight(q, vq, burst), kind, mark - 1);
      if (!burst) return 0;
    } else {
      // What is spoofed is dropped frame by frame.
      if (!load<u32>(port, Port.trustsMark) || !Learning.learn(sw, port, v128.load(load<u32>(p)))) return 0;
    }
    const passed = Mappings.pass(q, vq, kind, burst);
    const n = passed >> 32;
    const bytes = <u64>(<u32>passed);
    changetype<SplitDevice>(0).publish(vq);
    Mappings.countHits(mapping, <u32>n);
    Count.add(port + Port.rxPackets, n);
    Count.add(port + Port.rxBytes, bytes);
    Count.add(out + Port.txPackets, n);
    Count.add(out + Port.txBytes, bytes);
    return <u32>n;
  }

  /** The `n` descriptors in the switch's scratch came in at `port`. Returns the frames. */
  static process(sw: usize, port: usize, n: u32): u32 {
    const packets = sw + Switch.packets;
    store<u32>(sw, Switching.lenderOf(load<u16>(packets, Packet.owner)), Switch.lender);
    const frames =
      load<u32>(sw, Switch.lookup) == Lookup.FLOWS
        ? Flows.classify(sw, port, n)
        : load<u32>(sw, Switch.lookup) == Lookup.EXTERNAL
          ? External.classify(sw, port, n)
          : Learning.classify(sw, port, n);
    Count.add(port + Port.rxPackets, frames);
    const to = load<u32>(sw, Switch.common);
    if (to < <u32>Destination.ACTIONS) {
      const out = Switching.port(sw, to);
      const alike = load<u32>(sw, Switch.alike);
      Switching.deliver(sw, out, packets, n, frames, sw + Switch.headers, sw + Switch.spare, alike);
      const takes = Switching.takesOf(sw, out);
      if (!alike) Switching.release(sw, packets, n, takes);
      else {
        const owner = <u32>load<u16>(packets, Packet.owner);
        if (owner != takes) Switching.giveBack(sw, owner, packets, n);
      }
    } else {
      const aware = load<u32>(sw, Switch.vlanAware) != 0;
      const alike = load<u32>(sw, Switch.alike);
      const listed = to == Destination.ACTIONS;
      if (!aware && !listed && alike && Switching.forwardAlike(sw, frames, alike)) return frames;
      if (frames == n) Learning.index(sw, n);
      if (aware || listed) Switching.forwardEach(sw, port, frames);
      else Switching.forward(sw, port, frames);
    }
    return frames;
  }

  /** The burst that was with a lookup when it threw or trapped goes back to its owners, and counts as dropped. */
  static abandon(sw: usize): bool {
    const port: usize = load<u32>(sw, Switch.pending);
    if (!port) return false;
    store<u32>(sw, 0, Switch.pending);
    const packets = sw + Switch.packets;
    const n = load<u32>(sw, Switch.pendingLength);
    const frames = Desc.frames(packets, n);
    Count.add(port + Port.rxPackets, frames);
    Count.add(port + Port.drops + Drop.LOOKUP_FAILED * 8, frames);
    Switching.release(sw, packets, n, 0);
    return true;
  }

  /** Of a burst that begins with a buffer of `owner`: that owner if it lends its buffers to a card, else 0. */
  @inline static lenderOf(owner: u32): u32 {
    if (Objects.kind(owner) != Kind.VIRTQUEUE) return 0;
    return load<u32>(Objects.addr(owner), Virtqueue.lendsTo) ? owner : 0;
  }

  /**
   * The owner whose buffers of this burst `out` takes as they are: what it gets it hands on, or gives back if it can't. A
   * burst has one owner that lends, since a guest's port has no other.
   */
  @inline static takesOf(sw: usize, out: usize): u32 {
    const lender = load<u32>(sw, Switch.lender);
    if (lender && load<u32>(out, Port.kind) == PortKind.NIC) {
      const tx = load<u32>(load<u32>(out, Port.to), Nic.tx);
      if (load<u32>(Objects.addr(lender), Virtqueue.lendsTo) == tx) return lender;
    }
    return load<u32>(out, Port.takes);
  }

  @inline static port(sw: usize, index: u32): usize {
    return load<u32>(load<u32>(sw, Switch.table) + index * 4);
  }

  /**
   * Second pass over whole frames of one owner: sorted by destination (counting sort), then one delivery each. False, and
   * nothing is done, where one of them is for all.
   */
  static forwardAlike(sw: usize, frames: u32, alike: u32): bool {
    const lists = sw + Switch.lists;
    const destinations = sw + Switch.destination;
    const end = destinations + frames * 2;
    let touched: u32 = 0;
    let flood = false;
    // In place of a list its number of frames less one, so that an empty one needs no look.
    for (let at = destinations; at != end; at += 2) {
      const to = <u32>load<u16>(at);
      if (to >= <u32>Destination.FLOOD) {
        flood = flood || to == Destination.FLOOD;
        continue;
      }
      const list = lists + to * 4;
      const before = load<u32>(list);
      store<u16>(sw + Switch.touched + touched * 2, <u16>to);
      touched += u32(before == 0xffff_ffff);
      store<u32>(list, before + 1);
    }
    let begin = sw + Switch.out;
    for (let t: u32 = 0; t < touched; t++) {
      const list = lists + <u32>load<u16>(sw + Switch.touched + t * 2) * 4;
      const n = load<u32>(list) + 1;
      store<u32>(list, flood ? 0xffff_ffff : <u32>begin);
      begin += n * Packet.SIZE;
    }
    if (flood) return false;
    // From here on where each list goes on.
    const toHeader = sw + Switch.headers - (sw + Switch.packets);
    const toOutHeader = sw + Switch.outHeaders - (sw + Switch.out);
    let p = sw + Switch.packets;
    for (let at = destinations; at != end; at += 2, p += Packet.SIZE) {
      const to = <u32>load<u16>(at);
      if (to >= <u32>Destination.FLOOD) continue;
      const place: usize = load<u32>(lists + to * 4);
      v128.store(place, v128.load(p));
      v128.store(place + toOutHeader, v128.load(p + toHeader));
      store<u32>(lists + to * 4, <u32>place + Packet.SIZE);
    }
    const owner = <u32>load<u16>(sw + Switch.packets, Packet.owner);
    let taken = false;
    begin = sw + Switch.out;
    for (let t: u32 = 0; t < touched; t++) {
      const to = <u32>load<u16>(sw + Switch.touched + t * 2);
      const next: usize = load<u32>(lists + to * 4);
      Switching.clear(lists, to);
      const n = <u32>(next - begin) / Packet.SIZE;
      const out = Switching.port(sw, to);
      taken = taken || Switching.takesOf(sw, out) == owner;
      Switching.deliver(sw, out, begin, n, n, begin + toOutHeader, sw + Switch.spare, alike);
      begin = next;
    }
    if (taken) {
      Learning.index(sw, frames);
      Switching.releaseFrames(sw, frames);
    } else Switching.giveBack(sw, owner, sw + Switch.packets, frames);
    return true;
  }

  /** Second pass: a list of frames for each destination, in order; then one delivery each. */
  static forward(sw: usize, port: usize, frames: u32): void {
    const lists = sw + Switch.lists;
    let touched: u32 = 0;
    let flooded: u32 = 0;
    for (let f: u32 = 0; f < frames; f++) {
      const to = <u32>load<u16>(sw + Switch.destination + f * 2);
      if (to >= <u32>Destination.FLOOD) {
        flooded += u32(to == Destination.FLOOD);
        continue;
      }
      const list = lists + to * 4;
      store<u16>(sw + Switch.next + f * 2, <u16>END);
      if (load<u32>(list) == 0xffff_ffff) {
        store<u16>(sw + Switch.touched + touched * 2, <u16>to);
        touched++;
        store<u16>(list, <u16>f);
      } else store<u16>(sw + Switch.next + <u32>load<u16>(list, 2) * 2, <u16>f);
      store<u16>(list, <u16>f, 2);
    }
    if (flooded) {
      // Every port gets frames: those for itself and those for all, in their order.
      const ports = load<u32>(sw, Switch.ports);
      const from = load<u32>(port, Port.index);
      let reached = false;
      for (let to: u32 = 0; to < ports; to++) {
        const out = Switching.port(sw, to);
        if (!load<u32>(out, Port.up)) continue;
        reached = reached || to != from;
        let some: u32 = 0;
        for (let f: u32 = 0; f < frames; f++) {
          const d = <u32>load<u16>(sw + Switch.destination + f * 2);
          if (d == to || (d == Destination.FLOOD && to != from)) some = Switching.gather(sw, f, some);
        }
        Switching.deliverGathered(sw, out, some);
      }
      if (!reached) Count.add(port + Port.drops + Drop.NO_EGRESS_PORT * 8, flooded);
      for (let t: u32 = 0; t < touched; t++) Switching.clear(lists, load<u16>(sw + Switch.touched + t * 2));
    } else {
      for (let t: u32 = 0; t < touched; t++) {
        const to = <u32>load<u16>(sw + Switch.touched + t * 2);
        let some: u32 = 0;
        for (let f = <u32>load<u16>(lists + to * 4); f != END; f = load<u16>(sw + Switch.next + f * 2)) {
          some = Switching.gather(sw, f, some);
        }
        Switching.clear(lists, to);
        Switching.deliverGathered(sw, Switching.port(sw, to), some);
      }
    }
    Switching.releaseFrames(sw, frames);
  }

  @inline static clear(lists: usize, to: u32): void {
    store<u32>(lists + to * 4, 0xffff_ffff);
  }

  /** Frame `f` behind the `at` descriptors (low half) and frames (high half) gathered so far. */
  static gather(sw: usize, f: u32, at: u32): u32 {
    const first = <u32>load<u16>(sw + Switch.first + f * 2);
    const segments = <u32>load<u16>(sw + Switch.first + f * 2 + 2) - first;
    const frame = at >> 16;
    const to = sw + Switch.out + (at & 0xffff) * Packet.SIZE;
    Desc.copy(to, sw + Switch.packets + first * Packet.SIZE, segments);
    // A frame for several ports belongs to none of them: it is copied to each.
    if (load<u16>(sw + Switch.destination + f * 2) == <u16>Destination.FLOOD) {
      for (let i: u32 = 0; i < segments; i++) store<u16>(to + i * Packet.SIZE, 0, Packet.owner);
    }
    v128.store(sw + Switch.outHeaders + frame * 16, v128.load(sw + Switch.headers + f * 16));
    return at + segments + 0x10000;
  }

  static deliverGathered(sw: usize, out: usize, some: u32): void {
    if (!some) return;
    Switching.deliver(
      sw,
      out,
      sw + Switch.out,
      some & 0xffff,
      some >> 16,
      sw + Switch.outHeaders,
      sw + Switch.spare,
      0,
    );
  }

  /** Gives back what no destination took, a run of one owner's at a time. */
  static releaseFrames(sw: usize, frames: u32): void {
    let p = sw + Switch.packets;
    let begin = p;
    let run: u32 = 0; // whose they are; 0 for what was taken
    for (let f: u32 = 0; f < frames; f++) {
      const to = <u32>load<u16>(sw + Switch.destination + f * 2);
      const takes: u32 = to < <u32>Destination.FLOOD ? Switching.takesOf(sw, Switching.port(sw, to)) : 0;
      const end = sw + Switch.packets + <u32>load<u16>(sw + Switch.first + f * 2 + 2) * Packet.SIZE;
      for (; p != end; p += Packet.SIZE) {
        const owner = <u32>load<u16>(p, Packet.owner);
        const left: u32 = owner == takes ? 0 : owner;
        if (left == run) continue;
        if (run) Switching.giveBack(sw, run, begin, <u32>(p - begin) / Packet.SIZE);
        run = left;
        begin = p;
      }
    }
    if (run) Switching.giveBack(sw, run, begin, <u32>(p - begin) / Packet.SIZE);
  }

  /**
   * Frame by frame: on a VLAN-aware switch, since a tag may have to be put on or taken off (802.1Q, 8.1), which is done
   * on a copy in host memory; and where flows have lists of actions, so that frames stay in their order.
   */
  static forwardEach(sw: usize, port: usize, frames: u32): void {
    const aware = load<u32>(sw, Switch.vlanAware);
    for (let f: u32 = 0; f < frames; f++) {
      const d = <u32>load<u16>(sw + Switch.destination + f * 2);
      const first = <u32>load<u16>(sw + Switch.first + f * 2);
      const segments = <u32>load<u16>(sw + Switch.first + f * 2 + 2) - first;
      let takes: u32 = 0;
      if (d == Destination.ACTIONS) Switching.act(sw, port, f);
      else if (d != Destination.DROP) {
        // Of a flow whose rule says where the frame goes the VLAN doesn't matter: 0.
        const vlan: u32 = aware ? load<u16>(sw + Switch.vid + f * 2) : 0;
        const from = sw + Switch.packets + first * Packet.SIZE;
        takes = Switching.sendTo(sw, port, d, vlan, from, segments, v128.load(sw + Switch.headers + f * 16));
      }
      Switching.release(sw, sw + Switch.packets + first * Packet.SIZE, segments, takes);
    }
  }

  /**
   * One frame of a VLAN (0: of any) to a port, or to all but the one where it came in. Returns whose buffers were taken,
   * or 0: what was retagged or flooded was copied.
   */
  static sendTo(sw: usize, port: usize, d: u32, vlan: u32, from: usize, segments: u32, header: v128): u32 {
    const flood = d == Destination.FLOOD;
    let reached = false;
    const end = flood ? load<u32>(sw, Switch.ports) : d + 1;
    let takes: u32 = 0;
    for (let to: u32 = flood ? 0 : d; to < end; to++) {
      const out = Switching.port(sw, to);
      if ((flood && to == load<u32>(port, Port.index)) || !load<u32>(out, Port.up)) continue;
      if (vlan && !Learning.member(out, vlan)) {
        if (!flood) Count.add(out + Port.drops + Drop.VLAN * 8, 1);
        continue;
      }
      reached = true;
      Desc.copy(sw + Switch.out, from, segments);
      // A frame for several ports belongs to none of them: it is copied to each.
      if (flood)
        for (let i: u32 = 0; i < segments; i++)
          store<u16>(sw + Switch.out + i * Packet.SIZE, 0, Packet.owner);
      v128.store(sw + Switch.outHeaders, header);
      if (vlan && !Switching.taggedFor(out, vlan, header)) Switching.deliverRetagged(sw, out, segments, vlan);
      else {
        Switching.deliverGathered(sw, out, segments + 0x10000);
        if (!flood) takes = load<u32>(out, Port.takes);
      }
    }
    if (flood && !reached) Count.add(port + Port.drops + Drop.NO_EGRESS_PORT * 8, 1);
    return takes;
  }

  /**
   * The actions of frame `f`'s flow, in their order, on the copy of it in its place (`FlowTable.places`): what is sent is
   * copied from there.
   */
  static act(sw: usize, port: usize, f: u32): void {
    const t: usize = load<u32>(sw, Switch.flows);
    const flow: usize = load<u32>(t + f * 4, FlowTable.flows);
    const work = t + FlowTable.work;
    const place: usize = load<u32>(t, FlowTable.places) + f * FlowPlace.SIZE + FlowPlace.HEADROOM;
    const inPort = load<u32>(port, Port.index);
    v128.store(work, i64x2.splat(0));
    store<u32>(work, <u32>place);
    store<u16>(work, <u16>load<u32>(t + f * 4, FlowTable.lengths), Packet.len);
    const count = load<u32>(flow, Megaflow.actionCount);
    for (let i: u32 = 0; i < count; i++) {
      const action: usize = load<u32>(flow + i * 4, Megaflow.actions);
      const kind = load<u32>(action);
      const header = v128.load(load<u32>(work));
      let to: u32 = Destination.DROP;
      let vlan: u32 = 0;
      if (kind > <u32>FlowActionKind.RESUBMIT) {
        if (Edit.apply(t, action)) continue;
        Learning.drop(port, Drop.TOO_LARGE);
        return;
      }
      if (kind == FlowActionKind.CONTROLLER) PacketIn.send(sw, t, port, action, sw + Switch.spare);
      else if (kind == FlowActionKind.FLOOD) to = Destination.FLOOD;
      else if (kind == FlowActionKind.IN_PORT) to = inPort;
      else if (kind == FlowActionKind.OUTPUT) {
        to = load<u32>(action, FlowAction.port);
        const back = to == inPort;
        if (back || to >= load<u32>(sw, Switch.ports))
          to = Learning.drop(port, back ? Drop.HAIRPIN : Drop.DOWN);
      } else {
        // What is left of it may end in its tag.
        to = Learning.isRunt(sw, header, load<u16>(work, Packet.len))
          ? Learning.drop(port, Drop.RUNT)
          : Learning.lookup(sw, port, header, f);
        if (load<u32>(sw, Switch.vlanAware)) vlan = load<u16>(sw + Switch.vid + f * 2);
      }
      if (to != Destination.DROP) Switching.sendTo(sw, port, to, vlan, work, 1, header);
    }
  }

  /** Whether `out` wants a frame of this VLAN as it is: untagged in its own, else with the VLAN's number in the tag. */
  static taggedFor(out: usize, vlan: u32, header: v128): bool {
    const tagged = Learning.isTagged(header);
    return load<u32>(out, Port.pvid) == vlan ? !tagged : tagged && (Learning.tag(header) & 0xfff) == vlan;
  }

  /**
   * The gathered frame to `out` from a copy with the tag put on or taken off, or with the VLAN's number in a tag that
   * had only a priority (802.1Q, 6.9.2).
   */
  static deliverRetagged(sw: usize, out: usize, segments: u32, vlan: u32): void {
    const list = sw + Switch.spare;
    const header = v128.load(sw + Switch.outHeaders);
    const n = Switching.copyToHost(sw, out, sw + Switch.out, segments, header, list);
    if (!n) return;
    const tagged = Learning.isTagged(header);
    const wanted = load<u32>(out, Port.pvid) != vlan;
    const longer: u32 = (wanted ? 4 : 0) - (tagged ? 4 : 0);
    const moved = load<u32>(list, Packet.addr) - longer;
    store<u64>(moved, i64x2.extract_lane(header, 0));
    store<u32>(moved, i32x4.extract_lane(header, 2), 8);
    if (wanted) {
      store<u16>(moved, 0x0081, 12);
      store<u16>(moved, bswap<u16>(<u16>(vlan | (tagged ? Learning.tag(header) & 0xf000 : 0))), 14);
    }
    store<u32>(list, moved, Packet.addr);
    store<u16>(list, load<u16>(list, Packet.len) + <u16>longer, Packet.len);
    Desc.copy(sw + Switch.out, list, n);
    v128.store(sw + Switch.outHeaders, v128.load(moved));
    Switching.deliver(sw, out, sw + Switch.out, n, 1, sw + Switch.outHeaders, list, 0);
    Switching.release(sw, sw + Switch.out, n, load<u32>(out, Port.takes));
  }

  /** A frame of any number of segments to fresh host buffers at `to`; their number, or 0 (counted) if there are too few. */
  static copyToHost(sw: usize, out: usize, from: usize, segments: u32, header: v128, to: usize): u32 {
    const pool: usize = load<u32>(sw, Switch.pool);
    const room = load<u32>(pool, Pool.room);
    const bytes = Desc.bytes(from, segments);
    const n = (bytes + room - 1) / room;
    const got = Mempool.take(pool, load<u32>(sw, Switch.lcore), to, n);
    if (got < n) {
      Mempool.give(pool, load<u32>(sw, Switch.lcore), to, got);
      Count.add(out + Port.drops + Drop.NO_BUFFER * 8, 1);
      return 0;
    }
    Copy.scatter(to, 0, from, bytes, header);
    for (let i: u32 = 0; i < n; i++) {
      store<u16>(to + i * Packet.SIZE, <u16>min(room, bytes - i * room), Packet.len);
      store<u16>(to + i * Packet.SIZE, i + 1 < n ? PacketFlag.MORE : 0, Packet.flags);
    }
    Count.add(out + Port.copies, 1);
    Count.add(out + Port.copiedBytes, bytes);
    return n;
  }

  static deliver(
    sw: usize,
    out: usize,
    from: usize,
    n: u32,
    frames: u32,
    headers: usize,
    spare: usize,
    alike: u32,
  ): void {
    const kind = load<u32>(out, Port.kind);
    if (kind == PortKind.VHOST) {
      if (Device.isPacked(load<u32>(out, Port.to)))
        Vhost.tx<PackedDevice>(out, from, n, frames, headers, spare, alike);
      else Vhost.tx<SplitDevice>(out, from, n, frames, headers, spare, alike);
    } else if (kind == PortKind.NETMAP) NetmapPorts.tx(out, from, n, frames, headers, spare, alike);
    else if (kind == PortKind.VDPDK) VdpdkPort.tx(out, from, n, frames, headers, spare);
    else Switching.send(sw, out, kind, from, n, headers, spare, alike);
  }

  /** To a NIC or a ring: host buffers are handed over, anything else is copied into host buffers first. */
  static send(
    sw: usize,
    out: usize,
    kind: u32,
    from: usize,
    n: u32,
    headers: usize,
    spare: usize,
    alike: u32,
  ): void {
    const takes = Switching.takesOf(sw, out);
    const lends = takes != load<u32>(out, Port.takes);
    const room = load<u32>(load<u32>(sw, Switch.pool), Pool.room);
    const lcore = load<u32>(sw, Switch.lcore);
    for (let i: u32 = 0; i < n; ) {
      const p = from + i * Packet.SIZE;
      const own = load<u16>(p, Packet.owner) == takes;
      // A run of frames that are treated alike: in host buffers, however many, or single segments to be copied.
      let run: u32 = 0;
      let frames: u32 = 0;
      if (alike && (own || alike <= room)) run = n;
      else
        while (i + run < n) {
          const q = p + run * Packet.SIZE;
          const segments = Desc.segments(q, n - i - run);
          if (Desc.owned(q, segments, takes) != (own ? segments : 0)) break;
          if (!own && (segments > 1 || load<u16>(q, Packet.len) > <u16>room)) break;
          frames++;
          run += segments;
        }
      if (!run) {
        frames = 1;
        run = Desc.segments(p, n - i);
        const got = Switching.copyToHost(sw, out, p, run, v128.load(headers), spare);
        if (got) Switching.enqueue(sw, out, kind, lcore, spare, got);
        // Of a frame in buffers of two owners, those that this port takes weren't taken.
        for (let k: u32 = 0; k < run; k++) {
          const q = p + k * Packet.SIZE;
          if (load<u16>(q, Packet.owner) == takes) Switching.giveBack(sw, takes, q, 1);
        }
      } else if (own && lends) Switching.lend(sw, out, kind, p, run, headers, spare);
      else if (own) Switching.enqueue(sw, out, kind, lcore, p, run);
      else Switching.sendCopies(sw, out, kind, p, run, headers, spare);
      headers += frames * 16;
      i += run;
    }
  }

  /**
   * Zero-copy transmit: whole frames, `n` segments, to the card in the buffers of the guest that sent them. They are the
   * guest's again when the card has sent them (`Pmd.giveBackLent`). Where a segment doesn't fit a host buffer all are
   * copied: it couldn't be saved in one if the guest were reset.
   */
  static lend(sw: usize, out: usize, kind: u32, from: usize, n: u32, headers: usize, spare: usize): void {
    const lcore = load<u32>(sw, Switch.lcore);
    const room = load<u32>(load<u32>(sw, Switch.pool), Pool.room);
    let longest: u32 = 0;
    for (let i: u32 = 0; i < n; i++)
      longest = max(longest, <u32>load<u16>(from + i * Packet.SIZE, Packet.len));
    if (longest <= room) {
      const vq = Objects.addr(load<u16>(from, Packet.owner));
      const sent = Switching.enqueue(sw, out, kind, lcore, from, n);
      store<u32>(vq, load<u32>(vq, Virtqueue.lent) + Desc.frames(from, sent), Virtqueue.lent);
      return;
    }
    for (let i: u32 = 0; i < n; headers += 16) {
      const p = from + i * Packet.SIZE;
      const segments = Desc.segments(p, n - i);
      const got = Switching.copyToHost(sw, out, p, segments, v128.load(headers), spare);
      if (got) Switching.enqueue(sw, out, kind, lcore, spare, got);
      Switching.giveBack(sw, load<u16>(p, Packet.owner), p, segments);
      i += segments;
    }
  }

  /** `n` frames of one segment, each to fit a host buffer. */
  @inline static sendCopies(
    sw: usize,
    out: usize,
    kind: u32,
    from: usize,
    n: u32,
    headers: usize,
    spare: usize,
  ): void {
    const pool: usize = load<u32>(sw, Switch.pool);
    const lcore = load<u32>(sw, Switch.lcore);
    // Straight into the card's ring, or the other one, where they fit: the descriptors are written once.
    let q: usize = 0;
    let to: usize = 0;
    if (kind == PortKind.NIC) {
      q = load<u32>(load<u32>(out, Port.to), Nic.tx);
      if (Pmd.txRoom(q, lcore) >= n && Pmd.txStraight(q) >= n) to = Pmd.txSlot(q);
    } else {
      q = load<u32>(out, Port.to);
      to = Rings.reserve(q, n);
    }
    const list = to ? to : spare;
    const got = Mempool.take(pool, lcore, list, n);
    if (got < n) Count.add(out + Port.drops + Drop.NO_BUFFER * 8, n - got);
    const bytes = Copy.frames(list, 0, from, got, headers);
    Count.add(out + Port.copies, got);
    Count.add(out + Port.copiedBytes, bytes);
    if (!to) {
      Switching.enqueue(sw, out, kind, lcore, spare, got);
      return;
    }
    if (kind == PortKind.NIC) Pmd.txAnnounce(q, got);
    else Rings.publish(q, got);
    Count.add(out + Port.txPackets, got);
    Count.add(out + Port.txBytes, bytes);
  }

  /** Buffers into the NIC's transmit ring or a ring; what doesn't fit is freed and counted. Returns what did. */
  static enqueue(sw: usize, out: usize, kind: u32, lcore: u32, from: usize, n: u32): u32 {
    const sent =
      kind == PortKind.NIC
        ? Pmd.txBurst(load<u32>(load<u32>(out, Port.to), Nic.tx), lcore, from, n)
        : Rings.enqueueFrames(load<u32>(out, Port.to), from, n);
    let bytes: u32 = 0;
    let more: u32 = 0;
    for (let i: u32 = 0; i < sent; i++) {
      const word = load<u32>(from + i * Packet.SIZE, Packet.len);
      bytes += word & 0xffff;
      more += (word >> 16) & PacketFlag.MORE;
    }
    Count.add(out + Port.txPackets, sent - more);
    Count.add(out + Port.txBytes, bytes);
    if (sent < n) Switching.overflow(sw, out, from + sent * Packet.SIZE, n - sent);
    return sent;
  }

  static overflow(sw: usize, out: usize, from: usize, n: u32): void {
    Count.add(out + Port.drops + Drop.FULL * 8, Desc.frames(from, n));
    Switching.release(sw, from, n, 0);
  }

  /** Gives `n` descriptors back to their owners, but for those of `taken`, which a destination has. */
  static release(sw: usize, from: usize, n: u32, taken: u32): void {
    for (let i: u32 = 0; i < n; ) {
      const p = from + i * Packet.SIZE;
      const owner = <u32>load<u16>(p, Packet.owner);
      let run: u32 = 1;
      while (i + run < n && load<u16>(p + run * Packet.SIZE, Packet.owner) == owner) run++;
      if (owner != taken) Switching.giveBack(sw, owner, p, run);
      i += run;
    }
  }

  static giveBack(sw: usize, owner: u32, p: usize, n: u32): void {
    const kind = Objects.kind(owner);
    const addr = Objects.addr(owner);
    if (kind == Kind.POOL) Mempool.give(addr, load<u32>(sw, Switch.lcore), p, n);
    else if (kind == Kind.MAPPING) Mappings.giveBack(addr, p, n);
    else if (kind == Kind.VDPDK_TX) VdpdkPort.giveBack(addr, n);
    else if (kind == Kind.VIRTQUEUE) {
      if (Device.isUsable(addr)) Switching.complete(addr, p, n);
    }
  }

  /** A guest's sent buffers go back to it, in the order in which it sent them. */
  static complete(vq: usize, p: usize, n: u32): void {
    const device = changetype<AnyDevice>(0);
    let plain: u32 = 0;
    for (let i: u32 = 0; i < n; i++) plain |= load<u16>(p + i * Packet.SIZE, Packet.flags);
    if (!(plain & PacketFlag.MORE)) device.complete(vq, p, n, false);
    else {
      for (let i: u32 = 0; i < n; i += Desc.segments(p + i * Packet.SIZE, n - i)) {
        device.complete(vq, p + i * Packet.SIZE, 1, false);
      }
    }
    device.publish(vq);
  }
}
