/**
 * vDPDK, the device as a whole (layout: `VdpdkDevice`, `VdpdkControl`): the guest's ethdev calls, and what serves the
 * devices of a card (layout: `Vdpdk`).
 *
 * A call's arguments stand in the guest's control page: each is read once and checked. Whatever they are, the call ends
 * with a status.
 */
import { Copy } from "../copy";
import { Count } from "../count";
import { Objects } from "../directory";
import {
  BURST_DESCRIPTORS,
  FRAME_MAX,
  Kind,
  MacEntry,
  Nic,
  Offload,
  Packet,
  PacketFlag,
  QUEUE_MAX,
  RSS_TABLE_SIZE,
  RxQueue,
  TxQueue,
  VDPDK_SEGMENTS,
  Vdpdk,
  VdpdkCall,
  VdpdkControl,
  VdpdkDesc,
  VdpdkDevice,
  VdpdkInfo,
  VdpdkQueue,
  VdpdkState,
  VdpdkStats,
  VdpdkStatus,
} from "../layout";
import { Macs } from "../mactable";
import { Mempool } from "../mempool";
import { Card, Pmd } from "../nic";
import { Desc } from "../packet";
import { Parse } from "../parse";
import { Sync } from "../sync";
import { VdpdkFlows } from "./flow";
import { VDPDK_BURST, VdpdkQueues } from "./queue";
import { VdpdkRx } from "./rx";
import { VdpdkTx } from "./tx";

/** Ethernet header and two tags: what a frame is longer than the MTU. */
const OVERHEAD: u32 = 22;
/** Fewest descriptors of a ring. */
const RING_MIN: u32 = 8;
/** Offloads of each direction, and those that the host does where the card can't. */
const RX_OFFLOADS: u32 =
  Offload.CHECKSUMS | Offload.VLAN | Offload.RSS | Offload.MULTI_SEGMENT | Offload.MARK;
const TX_OFFLOADS: u32 = Offload.CHECKSUMS | Offload.VLAN | Offload.TSO | Offload.MULTI_SEGMENT;
const EMULATED: u32 = Offload.CHECKSUMS | Offload.VLAN | Offload.TSO;

export class VdpdkDevices {
  /** Runs the call that the control page asks for; its status is there when this returns, and is returned. */
  static call(dev: usize): i32 {
    const control: usize = load<u32>(dev, VdpdkDevice.control);
    const status = VdpdkDevices.dispatch(dev, control, load<u32>(control, VdpdkControl.call));
    Count.add(dev + VdpdkDevice.calls, 1);
    if (status) Count.add(dev + VdpdkDevice.failed, 1);
    store<i32>(control, status, VdpdkControl.status);
    return status;
  }

  /** A guest on another thread has asked for a call. */
  static serve(dev: usize): bool {
    const control: usize = load<u32>(dev, VdpdkDevice.control);
    const request = Sync.load<u32>(control + VdpdkControl.request);
    if (request == load<u32>(dev, VdpdkDevice.served)) return false;
    store<u32>(dev, request, VdpdkDevice.served);
    VdpdkDevices.call(dev);
    Sync.store<u32>(control + VdpdkControl.answered, request);
    if (ASC_FEATURE_THREADS) atomic.notify(control + VdpdkControl.answered, 1);
    return true;
  }

  static dispatch(dev: usize, control: usize, call: u32): i32 {
    const results = control + VdpdkControl.results;
    if (call == VdpdkCall.INFO) return VdpdkDevices.info(dev, results);
    if (call == VdpdkCall.MAC) {
      store<u64>(results, load<u64>(dev, VdpdkDevice.mac));
      return VdpdkStatus.OK;
    }
    if (call == VdpdkCall.STATS) return VdpdkDevices.stats(dev, results);
    if (call == VdpdkCall.FLOW_CREATE || call == VdpdkCall.FLOW_DESTROY)
      return VdpdkFlows.call(dev, control, call);
    if (call >= <u32>VdpdkCall.FLOW_VALIDATE && call <= <u32>VdpdkCall.FLOW_QUERY)
      return VdpdkFlows.call(dev, control, call);
    if (call < <u32>VdpdkCall.RX_SETUP || call > <u32>VdpdkCall.TX_STOP) return VdpdkStatus.UNKNOWN_CALL;
    if (load<u32>(control, VdpdkControl.queue)) return VdpdkStatus.INVALID;
    const receives = call < <u32>VdpdkCall.TX_SETUP;
    const q: usize = receives ? load<u32>(dev, VdpdkDevice.rx) : load<u32>(dev, VdpdkDevice.tx);
    if (call == VdpdkCall.RX_SETUP || call == VdpdkCall.TX_SETUP) return VdpdkDevices.setUp(control, q);
    if (call == VdpdkCall.RX_START || call == VdpdkCall.TX_START) return VdpdkDevices.start(q);
    return call == VdpdkCall.RX_STOP ? VdpdkDevices.stopRx(q) : VdpdkDevices.stopTx(q);
  }

  /**
   * Offloads that the card of queue `q` does by itself. Without a queue of its own the host does what is done, but for
   * marks, which stay with the frame.
   */
  static native(q: usize): u32 {
    const dev: usize = load<u32>(q, VdpdkQueue.device);
    const marks: u32 = VdpdkFlows.inCard(dev) ? Offload.MARK : 0;
    if (!load<u32>(q, VdpdkQueue.card)) return Offload.MULTI_SEGMENT | marks;
    return load<u32>(load<u32>(dev, VdpdkDevice.nic), Nic.offloads) | marks;
  }

  /** What can be asked for: what the card does, and what the host does in its place. A switch's frames go as they are. */
  static offered(q: usize): u32 {
    const receives = VdpdkDevices.receives(q);
    const marks: u32 = VdpdkFlows.table(load<u32>(q, VdpdkQueue.device)) ? Offload.MARK : 0;
    const emulated = receives || load<u32>(q, VdpdkQueue.card) ? EMULATED | marks : 0;
    return (VdpdkDevices.native(q) | emulated) & (receives ? RX_OFFLOADS : TX_OFFLOADS);
  }

  static info(dev: usize, to: usize): i32 {
    const rx: usize = load<u32>(dev, VdpdkDevice.rx);
    const tx: usize = load<u32>(dev, VdpdkDevice.tx);
    store<u32>(to, <u32>FRAME_MAX - OVERHEAD, VdpdkInfo.mtu);
    store<u32>(to, 1, VdpdkInfo.rxQueues);
    store<u32>(to, 1, VdpdkInfo.txQueues);
    store<u32>(to, QUEUE_MAX, VdpdkInfo.ringMax);
    store<u32>(to, RING_MIN, VdpdkInfo.ringMin);
    store<u32>(to, VdpdkDevices.offered(rx), VdpdkInfo.rxOffloads);
    store<u32>(to, VdpdkDevices.offered(tx), VdpdkInfo.txOffloads);
    store<u32>(to, VdpdkDevices.native(rx) & RX_OFFLOADS, VdpdkInfo.rxNative);
    store<u32>(to, VdpdkDevices.native(tx) & TX_OFFLOADS, VdpdkInfo.txNative);
    store<u32>(to, VdpdkDevices.native(rx) & Offload.RSS ? RSS_TABLE_SIZE : 0, VdpdkInfo.rssTable);
    store<u32>(to, VDPDK_SEGMENTS, VdpdkInfo.segments);
    store<u32>(to, VdpdkFlows.table(dev) ? load<u32>(dev, VdpdkDevice.flows) : 0, VdpdkInfo.flows);
    store<u32>(to, u32(VdpdkFlows.inCard(dev)), VdpdkInfo.flowsNative);
    return VdpdkStatus.OK;
  }

  static stats(dev: usize, to: usize): i32 {
    const rx: usize = load<u32>(dev, VdpdkDevice.rx);
    const tx: usize = load<u32>(dev, VdpdkDevice.tx);
    const card: usize = load<u32>(rx, VdpdkQueue.card);
    const missed = card ? load<u64>(card, RxQueue.noBuffer) : load<u64>(rx, VdpdkQueue.droppedFull);
    store<u64>(to, load<u64>(rx, VdpdkQueue.packets), VdpdkStats.rxPackets);
    store<u64>(to, load<u64>(rx, VdpdkQueue.bytes), VdpdkStats.rxBytes);
    store<u64>(to, missed, VdpdkStats.rxMissed);
    store<u64>(to, load<u64>(tx, VdpdkQueue.packets), VdpdkStats.txPackets);
    store<u64>(to, load<u64>(tx, VdpdkQueue.bytes), VdpdkStats.txBytes);
    store<u64>(
      to,
      load<u64>(rx, VdpdkQueue.emulated) + load<u64>(tx, VdpdkQueue.emulated),
      VdpdkStats.emulated,
    );
    return VdpdkStatus.OK;
  }

  /** A ring for a queue that holds none of the guest's buffers. */
  static setUp(control: usize, q: usize): i32 {
    const state = load<u32>(q, VdpdkQueue.state);
    if (state == VdpdkState.RUNNING || state == VdpdkState.STOPPING) return VdpdkStatus.BUSY;
    const ring = load<u64>(control, VdpdkControl.ring);
    const size = load<u32>(control, VdpdkControl.size);
    const offloads = load<u32>(control, VdpdkControl.offloads);
    if (size < RING_MIN || size > <u32>QUEUE_MAX || size & (size - 1)) return VdpdkStatus.INVALID;
    const limit = <u64>load<u32>(q, VdpdkQueue.limit);
    if (ring & (VdpdkDesc.SIZE - 1)) return VdpdkStatus.INVALID;
    const bytes = size * VdpdkDesc.SIZE;
    if (bytes > limit || ring > limit - bytes) return VdpdkStatus.FAULT;
    if (offloads & ~VdpdkDevices.offered(q)) return VdpdkStatus.NOT_SUPPORTED;
    store<u32>(q, load<u32>(q, VdpdkQueue.base) + <u32>ring, VdpdkQueue.ring);
    store<u32>(q, size - 1, VdpdkQueue.mask);
    store<u32>(q, offloads, VdpdkQueue.offloads);
    store<u32>(q, offloads & ~VdpdkDevices.native(q), VdpdkQueue.emulates);
    VdpdkDevices.forget(q);
    store<u32>(q, 0, VdpdkQueue.broken);
    store<u32>(q, VdpdkState.STOPPED, VdpdkQueue.state);
    return VdpdkStatus.OK;
  }

  /** The queue begins anew. What the card still has to send of before isn't counted as sent. */
  static forget(q: usize): void {
    const outstanding =
      load<u32>(q, VdpdkQueue.next) - load<u32>(q, VdpdkQueue.done) - load<u32>(q, VdpdkQueue.copied);
    store<u32>(q, load<u32>(q, VdpdkQueue.freed) - outstanding, VdpdkQueue.freed);
    store<u32>(q, 0, VdpdkQueue.next);
    store<u32>(q, 0, VdpdkQueue.done);
    store<u32>(q, 0, VdpdkQueue.copied);
    memory.fill(q + VdpdkQueue.marks, 0, QUEUE_MAX);
  }

  static start(q: usize): i32 {
    if (load<u32>(q, VdpdkQueue.state) != VdpdkState.STOPPED || load<u32>(q, VdpdkQueue.broken)) {
      return VdpdkStatus.BUSY;
    }
    store<u32>(q, VdpdkState.RUNNING, VdpdkQueue.state);
    const card: usize = load<u32>(q, VdpdkQueue.card);
    if (!card || !VdpdkDevices.receives(q)) return VdpdkStatus.OK;
    store<u32>(card, load<u32>(q, VdpdkQueue.offloads) & VdpdkDevices.native(q), RxQueue.offloads);
    VdpdkRx.refill(card, q);
    if (!load<u32>(q, VdpdkQueue.broken)) Sync.store<u32>(card + RxQueue.enabled, 1);
    return VdpdkStatus.OK;
  }

  @inline static receives(q: usize): bool {
    return Objects.kind(load<u32>(q, VdpdkQueue.id)) == Kind.VDPDK_RX;
  }

  /**
   * Nothing more is received. The guest's buffers are its own again when the card has answered that it writes to none; what
   * it has written until then is received.
   */
  static stopRx(q: usize): i32 {
    const state = load<u32>(q, VdpdkQueue.state);
    if (state != VdpdkState.RUNNING && state != VdpdkState.STOPPING) return VdpdkStatus.BUSY;
    const card: usize = load<u32>(q, VdpdkQueue.card);
    if (card) {
      Sync.store<u32>(card + RxQueue.enabled, 0);
      store<u32>(q, VdpdkState.STOPPING, VdpdkQueue.state);
      if (Sync.load<u32>(card + RxQueue.running)) return VdpdkStatus.AGAIN;
      VdpdkDevices.takeBack(card, q);
    }
    store<u32>(q, VdpdkState.STOPPED, VdpdkQueue.state);
    return VdpdkStatus.OK;
  }

  /** What the card had of the guest's buffers, when it writes to none any more. */
  static takeBack(card: usize, q: usize): void {
    if (!load<u32>(q, VdpdkQueue.broken)) {
      store<u32>(q, VdpdkState.RUNNING, VdpdkQueue.state);
      VdpdkRx.drain(load<u32>(load<u32>(q, VdpdkQueue.device), VdpdkDevice.vmux), card, q);
      const done = load<u32>(q, VdpdkQueue.done);
      const n = load<u32>(q, VdpdkQueue.next) - done;
      if (n && !load<u32>(q, VdpdkQueue.broken)) VdpdkRx.returnEmpty(q, done, n);
    }
    VdpdkDevices.resetCard(card, q);
    store<u32>(q, load<u32>(q, VdpdkQueue.next), VdpdkQueue.done);
    VdpdkQueues.tell(q);
  }

  /** The card's queue is empty; what it had received of an ended one is lost. */
  static resetCard(card: usize, q: usize): void {
    const next = load<u32>(card, RxQueue.next);
    const head = load<u32>(card, RxQueue.head);
    let lost: u32 = 0;
    for (let at = next; at != head; at++) {
      const p = load<u32>(card, RxQueue.ring) + (at & load<u32>(card, RxQueue.mask)) * Packet.SIZE;
      if (!(load<u16>(p, Packet.flags) & PacketFlag.MORE)) lost++;
    }
    Count.add(q + VdpdkQueue.droppedDown, lost);
    store<u32>(card, next, RxQueue.posted);
    store<u32>(card, next, RxQueue.head);
    store<u32>(card, next, RxQueue.tailCache);
    store<u32>(card, next, RxQueue.tail);
  }

  /** Nothing more is sent. The guest's buffers are its own again when the card has sent what it had. */
  static stopTx(q: usize): i32 {
    const state = load<u32>(q, VdpdkQueue.state);
    if (state != VdpdkState.RUNNING && state != VdpdkState.STOPPING) return VdpdkStatus.BUSY;
    store<u32>(q, VdpdkState.STOPPING, VdpdkQueue.state);
    const card: usize = load<u32>(q, VdpdkQueue.card);
    if (card) {
      const v: usize = load<u32>(load<u32>(q, VdpdkQueue.device), VdpdkDevice.vmux);
      Pmd.txCleanAll(card, load<u32>(v, Vdpdk.lcore));
    }
    VdpdkTx.complete(q);
    if (load<u32>(q, VdpdkQueue.next) != load<u32>(q, VdpdkQueue.done)) return VdpdkStatus.AGAIN;
    store<u32>(q, VdpdkState.STOPPED, VdpdkQueue.state);
    return VdpdkStatus.OK;
  }

  /**
   * The guest is reset or gone: its queues have no ring any more, and no byte of its memory is written. The card has been
   * made to answer.
   */
  static reset(dev: usize): void {
    const rx: usize = load<u32>(dev, VdpdkDevice.rx);
    const tx: usize = load<u32>(dev, VdpdkDevice.tx);
    const card: usize = load<u32>(rx, VdpdkQueue.card);
    if (card) VdpdkDevices.resetCard(card, rx);
    VdpdkFlows.reset(dev);
    VdpdkDevices.forget(rx);
    store<u32>(rx, 0, VdpdkQueue.freed);
    VdpdkDevices.forget(tx);
    store<u32>(rx, VdpdkState.EMPTY, VdpdkQueue.state);
    store<u32>(tx, VdpdkState.EMPTY, VdpdkQueue.state);
  }
}

export class Vmux {
  @inline static device(v: usize, i: u32): usize {
    return load<u32>(load<u32>(v, Vdpdk.table) + i * 4);
  }

  /** One turn of a guest's transmit ring, and of its calls. */
  static pollTx(v: usize, q: usize): u32 {
    const served = VdpdkDevices.serve(load<u32>(q, VdpdkQueue.device));
    return VdpdkTx.poll(v, q) + u32(served);
  }

  /**
   * One turn of the card's queue whose frames are for several guests: sorted here, by what the card's filter said, and
   * copied. Those to a group of stations go to each guest whose frames are copied; the card itself gives the others theirs.
   */
  static poll(v: usize): u32 {
    const q: usize = load<u32>(v, Vdpdk.shared);
    const frames = Pmd.received(q) || Pmd.hasBrought(q) ? Vmux.receive(v, q) : 0;
    if (!frames) Vmux.complete(v);
    if (Pmd.wantsRefill(q)) Pmd.refill(q, load<u32>(v, Vdpdk.lcore), load<u32>(q, RxQueue.mask) + 1);
    return frames;
  }

  /** A burst of the shared queue. Returns its frames, those too that rules took away. */
  static receive(v: usize, q: usize): u32 {
    const list = v + Vdpdk.burst;
    const n = Pmd.rxSteered(q, load<u32>(v, Vdpdk.lcore), list, VDPDK_BURST, BURST_DESCRIPTORS);
    let frames: u32 = 0;
    for (let i: u32 = 0; i < n; frames++) {
      const p = list + i * Packet.SIZE;
      const segments = Desc.segments(p, n - i);
      v128.store(v + Vdpdk.headers + frames * 16, Copy.header(p, segments));
      i += segments;
    }
    if (n) Vmux.sort(v, list, n);
    Count.add(v + Vdpdk.packets, frames);
    return frames + Pmd.takenAway(q);
  }

  /** What the card has sent goes back to its guests also where their own pollers sleep. */
  static complete(v: usize): void {
    const card: usize = load<u32>(load<u32>(v, Vdpdk.nic), Nic.tx);
    const clean = load<u32>(card, TxQueue.clean);
    if (clean == load<u32>(card, TxQueue.next)) return;
    Pmd.txCleanAll(card, load<u32>(v, Vdpdk.lcore));
    if (load<u32>(card, TxQueue.clean) == clean) return;
    const devices = load<u32>(v, Vdpdk.devices);
    for (let i: u32 = 0; i < devices; i++) VdpdkTx.complete(load<u32>(Vmux.device(v, i), VdpdkDevice.tx));
  }

  /** Runs of frames with the same mark to their guest; then all buffers back to the pool. */
  static sort(v: usize, list: usize, n: u32): void {
    const devices = load<u32>(v, Vdpdk.devices);
    let headers = v + Vdpdk.headers;
    for (let i: u32 = 0; i < n; ) {
      const p = list + i * Packet.SIZE;
      const mark = <u32>load<u16>(p, Packet.mark);
      const group = load<u8>(headers) & 1;
      let run: u32 = 0;
      let frames: u32 = 0;
      while (i + run < n) {
        const next = p + run * Packet.SIZE;
        if (load<u16>(next, Packet.mark) != mark || (load<u8>(headers + frames * 16) & 1) != group) break;
        run += Desc.segments(next, n - i - run);
        frames++;
        // A flow rule's mark, or none, doesn't say whose the next one is.
        if (mark - 1 >= devices) break;
      }
      const whose = mark - 1 < devices || group ? mark : Vmux.named(v, headers);
      if (whose - 1 < devices) Vmux.deliver(v, whose - 1, p, run, headers);
      else if (group) for (let k: u32 = 0; k < devices; k++) Vmux.deliver(v, k, p, run, headers);
      else Count.add(v + Vdpdk.unwanted, frames);
      i += run;
      headers += frames * 16;
    }
    Mempool.give(load<u32>(v, Vdpdk.pool), load<u32>(v, Vdpdk.lcore), list, n);
  }

  /** The mark that the card's filter has for a frame whose header stands at `header`; 0 where it has none. */
  static named(v: usize, header: usize): u32 {
    const filters: usize = load<u32>(load<u32>(v, Vdpdk.nic), Nic.filters);
    const filter = Macs.find(filters, Macs.key(Parse.mac(header), 0));
    return filter ? load<u32>(filter, MacEntry.value) >> 16 : 0;
  }

  /** To device `i`, unless the card does that. */
  static deliver(v: usize, i: u32, from: usize, n: u32, headers: usize): void {
    const rx: usize = load<u32>(Vmux.device(v, i), VdpdkDevice.rx);
    if (!load<u32>(rx, VdpdkQueue.card)) VdpdkRx.copy(rx, from, n, headers, v + Vdpdk.spare);
  }

  /** A poller is about to sleep (`on`), or polls again. */
  static armShared(v: usize, on: bool): void {
    Card.arm(load<u32>(v, Vdpdk.shared), on);
    Sync.store<u32>(load<u32>(load<u32>(v, Vdpdk.nic), Nic.tx) + TxQueue.doneArmed, u32(on));
  }
  static armRx(q: usize, on: bool): void {
    const card: usize = load<u32>(q, VdpdkQueue.card);
    if (card) Card.arm(card, on);
    VdpdkQueues.arm(q, on);
  }
}
