/**
 * The network card and its driver (layout: `Nic`, `RxQueue`, `TxQueue`).
 *
 *     wire -> Card.receive: filter, RSS -> DMA into the posted buffer -> DONE -> Pmd.rxBurst -> host
 *     wire <- Card.transmitted <- DMA from the buffer <- Pmd.txBurst <- host
 *
 * `Card` is the hardware: it knows descriptor rings and registers, nothing of pools or guests, and writes
 * wherever a posted descriptor points to. `Pmd` is the poll-mode driver on the host's side.
 *
 * Of a burst of received descriptors the first one's DONE is written last and with release: whoever looks at the
 * ring in order sees none of the burst before all of it, at the price of one atomic store. Sent ones are marked in
 * order, each with release: any tells of those before it.
 */
import { Count } from "./count";
import { Objects } from "./directory";
import { Doorbell } from "./doorbell";
import { Toeplitz } from "./hash";
import {
  FlowKey,
  FRAME_MAX,
  FRAME_MIN,
  FRAME_ROOM,
  Kind,
  MacEntry,
  Nic,
  Offload,
  Packet,
  PacketFlag,
  RTE_FLOW_MARK,
  RteFlowFate,
  RteFlowTable,
  RxQueue,
  TxQueue,
  VDPDK_SEGMENTS,
  VdpdkQueue,
  Virtqueue,
} from "./layout";
import { Macs } from "./mactable";
import { Mempool } from "./mempool";
import { Offloads } from "./offload";
import { Desc } from "./packet";
import { Parse } from "./parse";
import { Rings } from "./ring";
import { Rss } from "./rss";
import { RteFlows } from "./rteflow";
import { Sync } from "./sync";
import { AnyDevice } from "./virtqueue/any-device";
import { Device } from "./virtqueue/device";

/** Descriptors that the driver frees at a time, as the RS threshold of Intel's cards. */
const TX_FREE: u32 = 32;

/** The driver posts buffers when so many descriptors have none, or an eighth of a small ring (DPDK: rx_free_thresh). */
const RX_FREE: u32 = 32;

export class Card {
  @inline static rxQueue(nic: usize, index: u32): usize {
    return load<u32>(load<u32>(nic, Nic.rxTable) + index * 4);
  }

  /**
   * Where a frame goes: queue | mark << 16, or RteFlowFate.DROP. By rte_flow's rules, then by the filters.
   */
  static steer(nic: usize, frame: usize, len: u32): u32 {
    const flows: usize = load<u32>(nic, Nic.flows);
    if (!flows || !load<u32>(flows, RteFlowTable.count)) return Card.filter(nic, frame, len);
    const verdict = RteFlows.decide(flows, frame, len, len);
    if ((verdict & 0xffff) != RteFlowFate.FILTERS) return verdict;
    const filtered = Card.filter(nic, frame, len);
    // A filter's mark stays; and in a mapped guest's memory there is none but that.
    if (filtered >> 16 || load<u32>(Card.rxQueue(nic, filtered), RxQueue.mapping)) return filtered;
    return filtered | (verdict & 0xffff_0000);
  }

  /** Where the filters send a frame. Most exact first: MAC and VLAN, MAC, VLAN; then RSS. */
  static filter(nic: usize, frame: usize, len: u32): u32 {
    const filters: usize = load<u32>(nic, Nic.filters);
    const mac = Parse.mac(frame);
    const type = Parse.be16(frame + 12);
    const tagged = len >= 16 && (type == 0x8100 || type == 0x88a8);
    const vlan: u32 = tagged ? Parse.be16(frame + 14) & 0xfff : 0;
    let hit: usize = 0;
    if (vlan) hit = Macs.find(filters, Macs.key(mac, vlan));
    if (!hit) hit = Macs.find(filters, Macs.key(mac, 0));
    if (!hit && vlan) hit = Macs.find(filters, Macs.key(0, vlan));
    if (!hit) return Card.spread(nic, frame, len);
    const value = load<u32>(hit, MacEntry.value);
    // A driver with rules to follow must see a frame before a guest does.
    const flows: usize = load<u32>(nic, Nic.driverFlows);
    if (!flows || !load<u32>(flows, RteFlowTable.count)) return value;
    if (!load<u32>(Card.rxQueue(nic, value & 0xffff), RxQueue.mapping)) return value;
    return Card.spread(nic, frame, len) | (value & 0xffff_0000);
  }

  /** Queue of what no filter names. */
  @inline static spread(nic: usize, frame: usize, len: u32): u32 {
    if (load<u32>(nic, Nic.rssQueues) <= 1) return 0;
    const entry = Rss.entry(nic, frame, len, nic + Nic.scratch);
    return entry < 0 ? 0 : load<u8>(load<u32>(nic, Nic.rssTable) + entry);
  }

  /**
   * A frame of `len` bytes at `frame` arrives from the wire. True if it was written to a buffer; if not, the
   * counter that says why has been moved. Call `flush` at the end of a burst.
   */
  static receive(nic: usize, frame: usize, len: u32): bool {
    if (!Card.isFrame(nic, len) || !Card.deliver(nic, frame, len)) return false;
    Card.received(nic, len);
    return true;
  }

  /** Neither too short nor too long; counts it otherwise. */
  @inline static isFrame(nic: usize, len: u32): bool {
    if (len >= <u32>FRAME_MIN && len <= <u32>FRAME_MAX) return true;
    Count.add(nic + (len < <u32>FRAME_MIN ? Nic.rxRunt : Nic.rxOversize), 1);
    return false;
  }

  /** The link's counters. */
  @inline static received(nic: usize, len: u32): void {
    Count.add(nic + Nic.rxPackets, 1);
    Count.add(nic + Nic.rxBytes, len);
  }

  /** To the host's queue that rules, filters or the hash name. */
  @inline static deliver(nic: usize, frame: usize, len: u32): bool {
    const steered = Card.steer(nic, frame, len);
    if ((steered & 0xffff) == RteFlowFate.DROP) {
      Count.add(nic + Nic.rxFlowDrop, 1);
      return false;
    }
    const taken = Card.deliverTo(nic, Card.rxQueue(nic, steered & 0xffff), frame, len, steered >> 16);
    if (!(load<u8>(frame) & 1)) return taken;
    return Card.replicate(nic, steered & 0xffff, frame, len) || taken;
  }

  /** A copy of a frame to a group of stations for each other queue that asks for those. True if one got it. */
  static replicate(nic: usize, but: u32, frame: usize, len: u32): bool {
    const n = load<u32>(nic, Nic.rxQueues);
    let taken = false;
    for (let i: u32 = 0; i < n; i++) {
      const q = Card.rxQueue(nic, i);
      if (i == but || !load<u32>(q, RxQueue.groups)) continue;
      if (Card.deliverTo(nic, q, frame, len, 0)) taken = true;
    }
    return taken;
  }

  /** Into queue `q`, with `mark`. */
  @inline static deliverTo(nic: usize, q: usize, frame: usize, len: u32, mark: u32): bool {
    if (!load<u32>(q, RxQueue.running) && !Card.start(q)) {
      Count.add(nic + Nic.rxStopped, 1);
      return false;
    }
    const done = load<u32>(q, RxQueue.offloads)
      ? Card.writeOffloaded(nic, q, frame, len, mark)
      : Card.write(q, frame, len, mark);
    if (!done) {
      Count.add(nic + Nic.rxNoBuffer, 1);
      Count.add(q + RxQueue.noBuffer, 1);
      store<u32>(q, 1, RxQueue.missed);
      return false;
    }
    Count.add(q + RxQueue.packets, 1);
    return true;
  }

  static start(q: usize): bool {
    if (!Sync.load<u32>(q + RxQueue.enabled)) return false;
    Sync.store<u32>(q + RxQueue.running, 1);
    return true;
  }

  /**
   * What the queue asks for besides: what is found of the checksums goes to the flags of the frame's first descriptor, a
   * tag that is taken off to `mark`, the flow's hash to where owner and index are in others, a rule's mark to `room`.
   */
  static writeOffloaded(nic: usize, q: usize, frame: usize, len: u32, mark: u32): bool {
    const offloads = load<u32>(q, RxQueue.offloads);
    const first = load<u32>(q, RxQueue.head);
    let flags: u32 = 0;
    let tci: u32 = 0;
    let hash: u32 = 0;
    if (offloads & Offload.CHECKSUMS) {
      const whole = nic + Nic.scratch;
      v128.store(whole, Desc.make(<u32>frame, len, 0, 0, 0, 0, 0));
      flags = Offloads.verify(whole, len) & Offloads.checksums(offloads);
    }
    if (offloads & Offload.RSS && Parse.flow(frame, len, nic + Nic.scratch)) {
      flags |= PacketFlag.RX_HASH;
      hash = Toeplitz.flow(load<u32>(nic, Nic.rssKey), nic + Nic.scratch, nic + Nic.scratch + FlowKey.SIZE);
    }
    const tagged = (offloads & Offload.VLAN) != 0 && len >= 18 && Parse.be16(frame + 12) == 0x8100;
    if (tagged) {
      flags |= PacketFlag.RX_VLAN;
      tci = Parse.be16(frame + 14);
      // The tag goes away: what is behind it is written behind the addresses.
      if (!Card.write(q, frame + 4, len - 4, tci)) return false;
      const p = load<u32>(q, RxQueue.ring) + (first & load<u32>(q, RxQueue.mask)) * Packet.SIZE;
      memory.copy(load<u32>(p, Packet.addr), frame, 12);
    } else if (!Card.write(q, frame, len, 0)) return false;
    const p = load<u32>(q, RxQueue.ring) + (first & load<u32>(q, RxQueue.mask)) * Packet.SIZE;
    if (offloads & Offload.MARK && mark & RTE_FLOW_MARK) {
      flags |= PacketFlag.RX_MARK;
      store<u16>(p, <u16>(mark & ~RTE_FLOW_MARK), Packet.room);
    }
    store<u16>(p, load<u16>(p, Packet.flags) | <u16>flags, Packet.flags);
    if (flags & PacketFlag.RX_HASH) store<u32>(p, hash, Packet.owner);
    if (flags) Count.add(nic + Nic.offloaded, 1);
    return true;
  }

  /** DMA of one frame over as many posted buffers as it takes; false, and nothing written, if too few. */
  static write(q: usize, frame: usize, len: u32, mark: u32): bool {
    const ring: usize = load<u32>(q, RxQueue.ring);
    const mask = load<u32>(q, RxQueue.mask);
    const offset = load<u32>(q, RxQueue.offset);
    const head = load<u32>(q, RxQueue.head);
    let room: u32 = 0;
    let n: u32 = 0;
    for (; room < len; n++) {
      if (head + n == load<u32>(q, RxQueue.tailCache)) {
        const tail = Sync.load<u32>(q + RxQueue.tail);
        store<u32>(q, tail, RxQueue.tailCache);
        if (head + n == tail) return false;
      }
      room += load<u16>(ring + ((head + n) & mask) * Packet.SIZE, Packet.len) - (n ? 0 : offset);
    }
    for (let i: u32 = 0; i < n; i++) {
      const slot = (head + i) & mask;
      const p = ring + slot * Packet.SIZE;
      const d = v128.load(p);
      const skip = i ? 0 : offset;
      const to = Desc.addr(d) + skip;
      const some = min(len, Desc.len(d) - skip);
      memory.copy(to, frame, some);
      frame += some;
      len -= some;
      let flags: u32 = i + 1 < n ? PacketFlag.MORE : 0;
      if (i) flags |= PacketFlag.REST;
      if (load<u32>(q, RxQueue.pending)) flags |= PacketFlag.DONE;
      else {
        store<u32>(q, 1, RxQueue.pending);
        store<u32>(q, slot, RxQueue.first);
      }
      v128.store(p, Desc.make(to, some, flags, Desc.owner(d), Desc.index(d), Desc.room(d), mark));
    }
    store<u32>(q, head + n, RxQueue.head);
    return true;
  }

  /**
   * Ends a burst: what was received becomes visible; queues that the driver has stopped say so. A driver that waits for
   * it gets an interrupt, also where a frame found no descriptor: it may have buffers by now.
   */
  static flush(nic: usize): void {
    const n = load<u32>(nic, Nic.rxQueues);
    for (let i: u32 = 0; i < n; i++) Card.flushQueue(Card.rxQueue(nic, i));
  }

  static flushQueue(q: usize): void {
    const pending = load<u32>(q, RxQueue.pending);
    if (pending) {
      const p = load<u32>(q, RxQueue.ring) + load<u32>(q, RxQueue.first) * Packet.SIZE;
      Sync.store<u32>(p + Packet.len, load<u32>(p, Packet.len) | ((<u32>PacketFlag.DONE) << 16));
      store<u32>(q, 0, RxQueue.pending);
    }
    if (load<u32>(q, RxQueue.running) && !Sync.load<u32>(q + RxQueue.enabled)) {
      Sync.store<u32>(q + RxQueue.running, 0);
    }
    const missed = load<u32>(q, RxQueue.missed);
    if (!(pending | missed)) return;
    store<u32>(q, 0, RxQueue.missed);
    const armed = Sync.load<u32>(q + RxQueue.armed);
    // The driver may have taken all by now, and wait for the next.
    if (armed && (missed || armed != Card.mask(load<u32>(q, RxQueue.head))))
      Card.interrupt(q, armed, RxQueue.interrupts);
  }

  /** `RxQueue.armed` of a driver that waits for the descriptor `next`. */
  @inline static mask(next: u32): u32 {
    return (next << 1) | 1;
  }

  /** The driver is about to sleep (`on`), and wants an interrupt for what it hasn't taken; or polls again. */
  @inline static arm(q: usize, on: bool): void {
    Sync.store<u32>(q + RxQueue.armed, on ? Card.mask(load<u32>(q, RxQueue.next)) : 0);
  }

  /** Raises the interrupt and masks it, unless somebody else has done so since `armed` was read. */
  @inline static interrupt(q: usize, armed: u32, counter: u32): void {
    if (Sync.cas(q + RxQueue.armed, armed, 0) != armed) return;
    Count.add(q + counter, 1);
    Doorbell.ring(load<u32>(q, RxQueue.bell));
  }

  /**
   * The driver, which has taken all before `RxQueue.next`, wants an interrupt from now on. Interrupts are level-triggered:
   * for what has been received already it is raised at once.
   */
  static unmask(q: usize): void {
    const next = load<u32>(q, RxQueue.next);
    Sync.store<u32>(q + RxQueue.armed, Card.mask(next));
    if (Pmd.received(q)) Card.interrupt(q, Card.mask(next), RxQueue.pended);
  }

  /** Descriptors that the wire is to send; they begin at `TxQueue.head` of `Nic.wire`. */
  static toTransmit(nic: usize): u32 {
    const q: usize = load<u32>(nic, Nic.wire);
    return Sync.load<u32>(q + TxQueue.tail) - load<u32>(q, TxQueue.head);
  }

  @inline static txDescriptor(nic: usize, i: u32): usize {
    return Card.queued(load<u32>(nic, Nic.wire), i);
  }

  /** Descriptor `i` of those that a transmit ring's card has still to send. */
  @inline static queued(q: usize, i: u32): usize {
    const slot = (load<u32>(q, TxQueue.head) + i) & load<u32>(q, TxQueue.mask);
    return load<u32>(q, TxQueue.ring) + slot * Packet.SIZE;
  }

  /**
   * Frame `k` of those that the card makes of the host's frame at queued descriptor `i`, as its flags ask for: to `Nic.assembly`.
   * Returns its bytes; 0 behind the last one, or where the card can't do it.
   */
  static assemble(nic: usize, i: u32, k: u32): u32 {
    const to: usize = load<u32>(nic, Nic.assembly);
    const list = to + FRAME_ROOM;
    const q: usize = load<u32>(nic, Nic.tx);
    const first = v128.load(Card.queued(q, i));
    let n: u32 = 0;
    let bytes: u32 = 0;
    for (let more: u32 = 1; more && n < <u32>VDPDK_SEGMENTS; n++) {
      const d = v128.load(Card.queued(q, i + n));
      v128.store(list + n * Packet.SIZE, d);
      bytes += Desc.len(d);
      more = Desc.flags(d) & PacketFlag.MORE;
    }
    const flags = Desc.flags(first) & PacketFlag.TX_OFFLOADS;
    const mss = Desc.room(first);
    const plan = Offloads.plan(to, list, bytes, flags, mss);
    if (!plan && !k) Count.add(nic + Nic.txMalformed, 1);
    if (k >= (plan & 0xffff)) return 0;
    Count.add(nic + Nic.offloaded, 1);
    return Offloads.frame(to, list, bytes, flags, mss, Desc.mark(first), plan, k);
  }

  /** The first `n` queued descriptors have been sent: sets their DONE, in order, so that each tells of those before it. */
  static transmitted(nic: usize, n: u32): void {
    if (!n) return;
    let frames: u64 = 0;
    let bytes: u64 = 0;
    for (let i: u32 = 0; i < n; i++) {
      const p = Card.txDescriptor(nic, i);
      const word = load<u32>(p, Packet.len);
      bytes += word & 0xffff;
      if (!((word >> 16) & PacketFlag.MORE)) frames++;
      Sync.store<u32>(p + Packet.len, word | ((<u32>PacketFlag.DONE) << 16));
    }
    const q: usize = load<u32>(nic, Nic.wire);
    store<u32>(q, load<u32>(q, TxQueue.head) + n, TxQueue.head);
    Count.add(nic + Nic.txPackets, frames);
    Count.add(nic + Nic.txBytes, bytes);
    Doorbell.ringIfArmed(q + TxQueue.doneArmed, q + TxQueue.doneBell);
  }
}

export class Pmd {
  /**
   * Up to `max` received frames, their descriptors to `to` (room for `room`), whole frames only.
   * Returns the descriptors.
   */
  static rxBurst(q: usize, to: usize, max: u32, room: u32): u32 {
    const ring: usize = load<u32>(q, RxQueue.ring);
    const mask = load<u32>(q, RxQueue.mask);
    const next = load<u32>(q, RxQueue.next);
    const posted = min(load<u32>(q, RxQueue.posted) - next, room);
    // Frames of one segment, up to the ring's end.
    const slot = next & mask;
    let p = ring + slot * Packet.SIZE;
    const first = p;
    for (const end = p + min(min(posted, max), mask + 1 - slot) * Packet.SIZE; p != end; p += Packet.SIZE) {
      const flags = Sync.load<u32>(p + Packet.len) >> 16;
      if (flags != PacketFlag.DONE) break;
      v128.store(to, i16x8.replace_lane(v128.load(p), 3, 0));
      to += Packet.SIZE;
    }
    let whole = <u32>(p - first) / Packet.SIZE;
    max -= whole;
    // Of any number.
    for (let n = whole; n < posted && max; ) {
      const d = ring + ((next + n) & mask) * Packet.SIZE;
      const flags = Sync.load<u32>(d + Packet.len) >> 16;
      if (!(flags & PacketFlag.DONE)) break;
      const more = flags & PacketFlag.MORE;
      v128.store(to, i16x8.replace_lane(v128.load(d), 3, <i16>(flags & ~PacketFlag.DONE)));
      to += Packet.SIZE;
      n++;
      if (more) continue;
      whole = n;
      max--;
    }
    store<u32>(q, next + whole, RxQueue.next);
    return whole;
  }

  /**
   * `rxBurst` of a driver that follows rte_flow's rules itself, since the card can't: what they bring to this queue from
   * others, else what has been received here, less what they drop or bring elsewhere.
   */
  static rxSteered(q: usize, lcore: u32, to: usize, max: u32, room: u32): u32 {
    const brought: usize = load<u32>(q, RxQueue.brought);
    if (!brought) return Pmd.rxBurst(q, to, max, room);
    const some = Rings.dequeueFrames(brought, to, max, room);
    if (some) return some;
    const flows: usize = load<u32>(load<u32>(q, RxQueue.nic), Nic.driverFlows);
    // What is in a mapped guest's memory came before there were rules.
    if (!flows || !load<u32>(flows, RteFlowTable.count) || load<u32>(q, RxQueue.mapping))
      return Pmd.rxBurst(q, to, max, room);
    let n: u32;
    let kept: u32;
    do {
      n = Pmd.rxBurst(q, to, max, room);
      kept = Pmd.follow(flows, q, lcore, to, n);
    } while (n && !kept);
    return kept;
  }

  /** Whether the driver's rules have brought frames to this queue that weren't taken. */
  static hasBrought(q: usize): bool {
    const brought: usize = load<u32>(q, RxQueue.brought);
    return brought != 0 && Rings.count(brought) != 0;
  }

  /** Each of the frames in `n` descriptors to the queue that the rules name. Returns the descriptors that stay. */
  static follow(flows: usize, q: usize, lcore: u32, list: usize, n: u32): u32 {
    const own = load<u32>(q, RxQueue.index);
    const end = list + n * Packet.SIZE;
    let kept = list;
    let begin = list; // of a run of frames with the same fate
    let fate = own;
    let away: u32 = 0;
    for (let p = list; p != end; ) {
      const segments = Desc.segments(p, <u32>(end - p) / Packet.SIZE);
      const bytes = segments == 1 ? <u32>load<u16>(p, Packet.len) : Desc.bytes(p, segments);
      const verdict = RteFlows.decide(flows, load<u32>(p), load<u16>(p, Packet.len), bytes);
      let to = verdict & 0xffff;
      if (to == RteFlowFate.FILTERS) to = own;
      // As in the card: what a filter marked stays so, unless the rule sends the frame elsewhere.
      if ((verdict & 0xffff) != RteFlowFate.FILTERS || !load<u16>(p, Packet.mark)) {
        for (let i: u32 = 0; i < segments; i++)
          store<u16>(p + i * Packet.SIZE, <u16>(verdict >> 16), Packet.mark);
      }
      if (to != fate) {
        kept = Pmd.bring(q, lcore, begin, p, fate, kept);
        begin = p;
        fate = to;
      }
      if (to != own) away++;
      p += segments * Packet.SIZE;
    }
    kept = Pmd.bring(q, lcore, begin, end, fate, kept);
    store<u32>(q, load<u32>(q, RxQueue.away) + away, RxQueue.away);
    return <u32>(kept - list) / Packet.SIZE;
  }

  /** The frames from `begin` to `end` to queue `fate`; those that stay are moved down to `kept`, whose end is returned. */
  static bring(q: usize, lcore: u32, begin: usize, end: usize, fate: u32, kept: usize): usize {
    const n = <u32>(end - begin) / Packet.SIZE;
    if (!n) return kept;
    if (fate == load<u32>(q, RxQueue.index)) {
      if (kept != begin) Desc.copy(kept, begin, n);
      return kept + n * Packet.SIZE;
    }
    const nic: usize = load<u32>(q, RxQueue.nic);
    const pool: usize = load<u32>(q, RxQueue.pool);
    if (fate == RteFlowFate.DROP) {
      Count.add(nic + Nic.rxFlowDrop, Desc.frames(begin, n));
      Mempool.give(pool, lcore, begin, n);
      return kept;
    }
    const other = Card.rxQueue(nic, fate);
    const sent = Rings.enqueueFrames(load<u32>(other, RxQueue.brought), begin, n);
    if (sent < n) {
      const rest = begin + sent * Packet.SIZE;
      Count.add(nic + Nic.rxFlowFull, Desc.frames(rest, n - sent));
      Mempool.give(pool, lcore, rest, n - sent);
    }
    Doorbell.ringIfArmed(other + RxQueue.armed, other + RxQueue.bell);
    return kept;
  }

  /** Frames that `rxSteered` took and didn't return, since this was asked last. */
  static takenAway(q: usize): u32 {
    const away = load<u32>(q, RxQueue.away);
    store<u32>(q, 0, RxQueue.away);
    return away;
  }

  /** Descriptors that the card holds or has finished and the driver hasn't taken. */
  @inline static posted(q: usize): u32 {
    return load<u32>(q, RxQueue.posted) - load<u32>(q, RxQueue.next);
  }

  /** Whether the card has finished a frame that the driver hasn't taken. */
  @inline static received(q: usize): bool {
    const slot = load<u32>(q, RxQueue.next) & load<u32>(q, RxQueue.mask);
    return Pmd.posted(q) != 0 && Pmd.isDone(load<u32>(q, RxQueue.ring) + slot * Packet.SIZE);
  }

  /** Descriptors without a buffer. */
  @inline static rxRoom(q: usize): u32 {
    return load<u32>(q, RxQueue.mask) + 1 - Pmd.posted(q);
  }

  /** Whether so many descriptors have no buffer that posting some pays. */
  @inline static wantsRefill(q: usize): bool {
    const slots = load<u32>(q, RxQueue.mask) + 1;
    return load<u32>(q, RxQueue.enabled) != 0 && Pmd.rxRoom(q) >= min(RX_FREE, (slots + 7) / 8);
  }

  /** Posts `n` empty buffers; the caller has seen that there is room. */
  static post(q: usize, from: usize, n: u32): void {
    const ring: usize = load<u32>(q, RxQueue.ring);
    const mask = load<u32>(q, RxQueue.mask);
    const posted = load<u32>(q, RxQueue.posted);
    const slot = posted & mask;
    const straight = min(n, mask + 1 - slot);
    Desc.copy(ring + slot * Packet.SIZE, from, straight);
    if (straight < n) Desc.copy(ring, from + straight * Packet.SIZE, n - straight);
    Pmd.announce(q, posted + n);
  }

  /** Tells the card that descriptors up to `posted` are there. */
  @inline static announce(q: usize, posted: u32): void {
    store<u32>(q, posted, RxQueue.posted);
    Sync.store<u32>(q + RxQueue.tail, posted);
  }

  /** Fills the ring from its pool, up to `target` posted descriptors. Returns how many were added. */
  static refill(q: usize, lcore: u32, target: u32): u32 {
    const pool: usize = load<u32>(q, RxQueue.pool);
    const have = Pmd.posted(q);
    if (have >= target) return 0;
    const ring: usize = load<u32>(q, RxQueue.ring);
    const mask = load<u32>(q, RxQueue.mask);
    let posted = load<u32>(q, RxQueue.posted);
    let left = target - have;
    let added: u32 = 0;
    while (left) {
      const slot = posted & mask;
      const want = min<u32>(min(left, mask + 1 - slot), 256);
      const got = Mempool.take(pool, lcore, ring + slot * Packet.SIZE, want);
      posted += got;
      left -= got;
      added += got;
      if (got < want) break;
    }
    if (added) Pmd.announce(q, posted);
    return added;
  }

  /**
   * Queues up to `n` descriptors for sending, whole frames only; returns how many fitted.
   * They belong to the card until it has sent them.
   */
  static txBurst(q: usize, lcore: u32, from: usize, n: u32): u32 {
    const ring: usize = load<u32>(q, TxQueue.ring);
    const mask = load<u32>(q, TxQueue.mask);
    if (n > Pmd.txRoom(q, lcore)) {
      Pmd.txCleanAll(q, lcore);
      n = Desc.whole(from, n, Pmd.txVacant(q));
      if (!n) return 0;
    }
    const slot = load<u32>(q, TxQueue.next) & mask;
    const straight = min(n, mask + 1 - slot);
    Desc.copy(ring + slot * Packet.SIZE, from, straight);
    if (straight < n) Desc.copy(ring, from + straight * Packet.SIZE, n - straight);
    Pmd.txAnnounce(q, n);
    return n;
  }

  /** Free descriptors of the transmit ring; some may be sent already that aren't a whole batch. */
  @inline static txRoom(q: usize, lcore: u32): u32 {
    Pmd.txClean(q, lcore);
    return Pmd.txVacant(q);
  }
  @inline static txVacant(q: usize): u32 {
    return load<u32>(q, TxQueue.mask) + 1 - (load<u32>(q, TxQueue.next) - load<u32>(q, TxQueue.clean));
  }

  /** Where the next descriptor goes, and how many stand behind it up to the ring's end. */
  @inline static txSlot(q: usize): usize {
    return (
      load<u32>(q, TxQueue.ring) + (load<u32>(q, TxQueue.next) & load<u32>(q, TxQueue.mask)) * Packet.SIZE
    );
  }
  @inline static txStraight(q: usize): u32 {
    const mask = load<u32>(q, TxQueue.mask);
    return mask + 1 - (load<u32>(q, TxQueue.next) & mask);
  }

  /** The card is to send the next `n` descriptors. */
  @inline static txAnnounce(q: usize, n: u32): void {
    const next = load<u32>(q, TxQueue.next) + n;
    store<u32>(q, next, TxQueue.next);
    Sync.store<u32>(q + TxQueue.tail, next);
    Doorbell.ringIfArmed(q + TxQueue.armed, q + TxQueue.bell);
  }

  /** Frees sent buffers, a burst at a time: its last descriptor tells of all. */
  static txClean(q: usize, lcore: u32): void {
    const ring: usize = load<u32>(q, TxQueue.ring);
    const mask = load<u32>(q, TxQueue.mask);
    const next = load<u32>(q, TxQueue.next);
    let clean = load<u32>(q, TxQueue.clean);
    while (next - clean >= TX_FREE) {
      if (!Pmd.isDone(ring + ((clean + TX_FREE - 1) & mask) * Packet.SIZE)) break;
      clean = Pmd.txFree(ring, mask, clean, TX_FREE, lcore);
    }
    store<u32>(q, clean, TxQueue.clean);
  }

  /** Frees every sent buffer. */
  static txCleanAll(q: usize, lcore: u32): void {
    Pmd.txClean(q, lcore);
    const ring: usize = load<u32>(q, TxQueue.ring);
    const mask = load<u32>(q, TxQueue.mask);
    const next = load<u32>(q, TxQueue.next);
    const clean = load<u32>(q, TxQueue.clean);
    let end = clean;
    while (end != next && Pmd.isDone(ring + (end & mask) * Packet.SIZE)) end++;
    store<u32>(q, Pmd.txFree(ring, mask, clean, end - clean, lcore), TxQueue.clean);
  }

  @inline static isDone(p: usize): bool {
    return ((Sync.load<u32>(p + Packet.len) >> 16) & PacketFlag.DONE) != 0;
  }

  /** A guest's buffers that the card has sent are the guest's again, each when its last segment was sent. */
  static giveBackLent(vq: usize, p: usize, n: u32): void {
    const device = changetype<AnyDevice>(0);
    const usable = Device.isUsable(vq);
    let ended: u32 = 0;
    // Runs of last segments, which most are.
    for (const end = p + n * Packet.SIZE; p != end; ) {
      let run: u32 = 0;
      let d = p;
      for (; d != end && !(load<u16>(d, Packet.flags) & PacketFlag.MORE); d += Packet.SIZE) run++;
      if (usable) device.complete(vq, p, run, false);
      ended += run;
      p = d == end ? end : d + Packet.SIZE;
    }
    store<u32>(vq, load<u32>(vq, Virtqueue.lent) - ended, Virtqueue.lent);
    if (usable) device.publish(vq);
  }

  /** Gives `n` descriptors from `clean` on back to their owners, runs of one owner together. */
  static txFree(ring: usize, mask: u32, clean: u32, n: u32, lcore: u32): u32 {
    while (n) {
      const p = ring + (clean & mask) * Packet.SIZE;
      const owner = load<u16>(p, Packet.owner);
      const straight = min(n, mask + 1 - (clean & mask));
      let last = p;
      const end = p + straight * Packet.SIZE;
      for (const fours = p + (straight & ~3) * Packet.SIZE; last != fours; last += 4 * Packet.SIZE) {
        const one = (load<u16>(last, Packet.owner) ^ owner) | (load<u16>(last, Packet.owner + 16) ^ owner);
        const two =
          (load<u16>(last, Packet.owner + 32) ^ owner) | (load<u16>(last, Packet.owner + 48) ^ owner);
        if (one | two) break;
      }
      while (last != end && load<u16>(last, Packet.owner) == owner) last += Packet.SIZE;
      const run = <u32>(last - p) / Packet.SIZE;
      const kind = Objects.kind(owner);
      if (kind == Kind.POOL) Mempool.give(Objects.addr(owner), lcore, p, run);
      else if (kind == Kind.VIRTQUEUE) Pmd.giveBackLent(Objects.addr(owner), p, run);
      else if (kind == Kind.VDPDK_TX) {
        // A guest's own, in the order in which it sent them: its device gives them back.
        const freed = Objects.addr(owner) + VdpdkQueue.freed;
        store<u32>(freed, load<u32>(freed) + run);
      }
      clean += run;
      n -= run;
    }
    return clean;
  }
}
