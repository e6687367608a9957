/**
 * The card's side of a function that a guest owns (layout: `PciFunction`, `FunctionRing`): a VF, or with passthrough the
 * whole port. Its rings lie in the guest's memory.
 *
 *     deliver   a frame -> IOMMU -> the guest's posted buffers -> DONE
 *     read      the guest's next frame -> IOMMU -> the card's packet buffer; then `sent` sets DONE
 *
 * Nothing that stands in the guest's memory is believed: each descriptor and the tail register are read once, checked,
 * and used from the local. What doesn't hold stops that ring until the guest's driver resets it, as the malicious driver
 * detection of ixgbe and i40e does, and is counted by reason (layout: `Fault`).
 */
import { Count } from "./count";
import { Doorbell } from "./doorbell";
import { Iommus } from "./iommu";
import {
  Fault,
  FRAME_MAX,
  FUNCTION_BUFFER_MIN,
  FUNCTION_SEGMENTS,
  FunctionDrop,
  FunctionRing,
  IoAccess,
  Packet,
  PacketFlag,
  PciFunction,
} from "./layout";
import { Desc } from "./packet";
import { Sync } from "./sync";

/** A tag, and what stands before it in a frame. */
const TAG: u32 = 4;
const ADDRESSES: u32 = 12;

/** An entry of `PciFunction.segments`. */
const ENTRY: u32 = 12;

export class PciFunctions {
  static drop(f: usize, why: FunctionDrop): bool {
    Count.add(f + PciFunction.drops + why * 8, 1);
    return false;
  }

  /** Stops a ring. */
  static stop(f: usize, q: usize, why: Fault): void {
    store<u32>(q, 0, FunctionRing.running);
    store<u32>(q, why, FunctionRing.broken);
    Count.add(f + PciFunction.faults + why * 8, 1);
  }

  /** Stops a ring for an access that the IOMMU refused. */
  static refuse(f: usize, q: usize, addr: u32, len: u32): void {
    PciFunctions.stop(f, q, Iommus.fault(load<u32>(f, PciFunction.iommu), addr, len));
  }

  /** Descriptors that the guest has posted behind the card's head; none, and the ring stopped, if it has no so many. */
  @inline static posted(f: usize, q: usize): u32 {
    const posted = Sync.load<u32>(q + FunctionRing.tail) - load<u32>(q, FunctionRing.head);
    if (posted <= load<u32>(q, FunctionRing.mask) + 1) return posted;
    PciFunctions.stop(f, q, Fault.TAIL);
    return 0;
  }

  /** Where in memory the descriptor `i` behind the card's head is; 0, and the ring stopped, if the IOMMU refuses. */
  @inline static descriptor(f: usize, q: usize, i: u32): usize {
    const slot = (load<u32>(q, FunctionRing.head) + i) & load<u32>(q, FunctionRing.mask);
    const addr = load<u32>(q, FunctionRing.ring) + slot * Packet.SIZE;
    const p = Iommus.reach(
      load<u32>(f, PciFunction.iommu),
      addr,
      Packet.SIZE,
      IoAccess.READ | IoAccess.WRITE,
    );
    if (!p) PciFunctions.refuse(f, q, addr, Packet.SIZE);
    return p;
  }

  /**
   * Writes a frame of `len` bytes to the guest's buffers; without its VLAN tag if `strip`. False if it couldn't be: then
   * the counter that says why has been moved. Call `flush` at the end of a burst.
   */
  static deliver(f: usize, frame: usize, len: u32, strip: bool): bool {
    const q = f + PciFunction.rx;
    if (!load<u32>(f, PciFunction.up) || !load<u32>(q, FunctionRing.running)) {
      return PciFunctions.drop(f, FunctionDrop.STOPPED);
    }
    const bytes = strip ? len - TAG : len;
    const n = PciFunctions.collect(f, q, bytes);
    if (!n) return false;
    let from = frame;
    let left = bytes;
    for (let i: u32 = 0; i < n; i++) {
      const entry = f + PciFunction.segments + i * ENTRY;
      const to: usize = load<u32>(entry);
      const some = min(left, load<u32>(entry, 4));
      if (strip && !i) {
        memory.copy(to, from, ADDRESSES);
        memory.copy(to + ADDRESSES, from + ADDRESSES + TAG, some - ADDRESSES);
        from += TAG;
      } else memory.copy(to, from, some);
      from += some;
      left -= some;
      PciFunctions.writeBack(q, load<u32>(entry, 8), some, i, n);
    }
    store<u32>(q, load<u32>(q, FunctionRing.head) + n, FunctionRing.head);
    Count.add(f + PciFunction.rxPackets, 1);
    Count.add(f + PciFunction.rxBytes, bytes);
    return true;
  }

  /** Checks posted buffers for `bytes` into `PciFunction.segments`. Returns how many; 0 if there are too few, or bad ones. */
  static collect(f: usize, q: usize, bytes: u32): u32 {
    const domain: usize = load<u32>(f, PciFunction.iommu);
    const posted = PciFunctions.posted(f, q);
    let room: u32 = 0;
    let n: u32 = 0;
    for (; room < bytes; n++) {
      if (n == FUNCTION_SEGMENTS) {
        PciFunctions.drop(f, FunctionDrop.OVERSIZE);
        return 0;
      }
      if (n == posted) {
        const running = load<u32>(q, FunctionRing.running);
        PciFunctions.drop(f, running ? FunctionDrop.NO_BUFFER : FunctionDrop.STOPPED);
        return 0;
      }
      const p = PciFunctions.descriptor(f, q, n);
      const d = p ? v128.load(p) : i64x2.splat(0);
      const addr = Desc.addr(d);
      const len = Desc.len(d);
      let to: usize = 0;
      if (p && len < <u32>FUNCTION_BUFFER_MIN) PciFunctions.stop(f, q, Fault.LENGTH);
      else if (p) {
        to = Iommus.reach(domain, addr, len, IoAccess.WRITE);
        if (!to) PciFunctions.refuse(f, q, addr, len);
      }
      if (!to) {
        PciFunctions.drop(f, FunctionDrop.STOPPED);
        return 0;
      }
      const entry = f + PciFunction.segments + n * ENTRY;
      store<u32>(entry, <u32>to);
      store<u32>(entry, len, 4);
      store<u32>(entry, <u32>p, 8);
      room += len;
    }
    return n;
  }

  /** Descriptor `i` of a frame's `n` holds `len` bytes. Of a burst the first one's DONE is written by `flush`. */
  @inline static writeBack(q: usize, p: usize, len: u32, i: u32, n: u32): void {
    const flags: u32 = (i + 1 < n ? PacketFlag.MORE : 0) | (i ? PacketFlag.REST : 0);
    const word = len | ((flags | PacketFlag.DONE) << 16);
    if (load<u32>(q, FunctionRing.first)) Sync.store<u32>(p + Packet.len, word);
    else {
      store<u32>(q, <u32>p, FunctionRing.first);
      store<u32>(q, word, FunctionRing.firstWord);
    }
  }

  /**
   * Reads the guest's next frame to `to`, which has room for the longest. Returns its bytes; 0 if it has sent no whole one.
   */
  static read(f: usize, to: usize): u32 {
    const q = f + PciFunction.tx;
    if (!load<u32>(f, PciFunction.up) || !load<u32>(q, FunctionRing.running)) return 0;
    const domain: usize = load<u32>(f, PciFunction.iommu);
    const posted = PciFunctions.posted(f, q);
    let bytes: u32 = 0;
    for (let n: u32 = 0; n < posted; ) {
      if (n == FUNCTION_SEGMENTS) {
        PciFunctions.stop(f, q, Fault.CHAIN);
        return 0;
      }
      const p = PciFunctions.descriptor(f, q, n);
      if (!p) return 0;
      const d = v128.load(p);
      const len = Desc.len(d);
      if (!len || bytes + len > <u32>FRAME_MAX) {
        PciFunctions.stop(f, q, Fault.LENGTH);
        return 0;
      }
      const from = Iommus.reach(domain, Desc.addr(d), len, IoAccess.READ);
      if (!from) {
        PciFunctions.refuse(f, q, Desc.addr(d), len);
        return 0;
      }
      memory.copy(to + bytes, from, len);
      bytes += len;
      n++;
      if (Desc.flags(d) & PacketFlag.MORE) continue;
      store<u32>(f, n, PciFunction.taken);
      return bytes;
    }
    return 0;
  }

  /** The frame that was read last is the card's now: its buffers are the guest's again, in order. */
  static sent(f: usize): void {
    const q = f + PciFunction.tx;
    const taken = load<u32>(f, PciFunction.taken);
    for (let i: u32 = 0; i < taken; i++) {
      const p = PciFunctions.descriptor(f, q, i);
      if (p) Sync.store<u16>(p + Packet.flags, <u16>PacketFlag.DONE);
    }
    store<u32>(q, load<u32>(q, FunctionRing.head) + taken, FunctionRing.head);
    store<u32>(q, 1, FunctionRing.sent);
  }

  /** Ends a burst: what was received becomes visible. A driver that sleeps gets an interrupt for that and for what was sent. */
  static flush(f: usize): void {
    const rx = f + PciFunction.rx;
    const first: usize = load<u32>(rx, FunctionRing.first);
    if (first) {
      Sync.store<u32>(first + Packet.len, load<u32>(rx, FunctionRing.firstWord));
      store<u32>(rx, 0, FunctionRing.first);
      PciFunctions.interrupt(f, rx);
    }
    const tx = f + PciFunction.tx;
    if (!load<u32>(tx, FunctionRing.sent)) return;
    store<u32>(tx, 0, FunctionRing.sent);
    PciFunctions.interrupt(f, tx);
  }

  @inline static interrupt(f: usize, q: usize): void {
    if (!Sync.load<u32>(q + FunctionRing.armed)) return;
    Count.add(f + PciFunction.interrupts, 1);
    Doorbell.ring(load<u32>(q, FunctionRing.bell));
  }
}
