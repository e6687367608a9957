/**
 * The device's side of a virtqueue, whichever its format (layout: `Virtqueue`).
 *
 *     take      the driver's next buffers, checked and translated, as packet descriptors
 *     complete  marks buffers as used
 *     publish   shows them to the driver, with one store, and says whether it wants to be notified
 *
 * What the driver wrote is hostile: each field is read once, into a local, checked, and the local is used.
 * A buffer is taken as { addr: in host memory, len: its bytes, owner, index: buffer id, room: its
 * bytes too, mark: ring descriptors }.
 *
 * The checks are the same for both formats; `SplitDevice` and `PackedDevice` say where the fields are.
 */
import { Count } from "../count";
import { Doorbell } from "../doorbell";
import {
  DescFlag,
  Feature,
  PackedDesc,
  PackedEvent,
  Packet,
  PacketFlag,
  QUEUE_MAX,
  Refusal,
  RING_FLAG_NO_EVENT,
  SplitAvail,
  SplitDesc,
  SplitUsed,
  Virtqueue,
} from "../layout";
import { Desc } from "../packet";
import { Sync } from "../sync";

export class Device {
  /**
   * Makes the queue ready: rings at guest addresses `desc`, `driver`, `device` (2.7, 2.8), `size` descriptors.
   * False, and nothing is changed, when a ring is outside the region, misaligned, or the size isn't allowed.
   */
  static start(vq: usize, desc: u64, driver: u64, device: u64, size: u32, features: u32): bool {
    if (size == 0 || size > <u32>QUEUE_MAX) return false;
    const packed = (features & Feature.PACKED) != 0;
    // 2.7: "Queue Size ... is always a power of 2" for split queues; 2.8 allows any.
    if (!packed && size & (size - 1)) return false;
    const descBytes = size * SplitDesc.SIZE;
    const driverBytes: u32 = packed ? 4 : SplitAvail.ring + 2 * size + 2;
    const deviceBytes: u32 = packed ? 4 : SplitUsed.ring + SplitUsed.ELEMENT * size + 2;
    if (!Device.inside(vq, desc, descBytes, 15)) return false;
    if (!Device.inside(vq, driver, driverBytes, packed ? 3 : 1)) return false;
    if (!Device.inside(vq, device, deviceBytes, 3)) return false;
    const base = load<u32>(vq, Virtqueue.base);
    store<u32>(vq, base + <u32>desc, Virtqueue.desc);
    store<u32>(vq, base + <u32>driver, Virtqueue.driver);
    store<u32>(vq, base + <u32>device, Virtqueue.device);
    store<u32>(vq, size, Virtqueue.size);
    store<u32>(vq, features, Virtqueue.features);
    memory.fill(vq + Virtqueue.avail, 0, Virtqueue.notifications - Virtqueue.avail);
    store<u32>(vq, 1, Virtqueue.availWrap); // 2.8.1: both wrap counters begin with 1
    store<u32>(vq, 1, Virtqueue.usedWrap);
    store<u32>(vq, 0, Virtqueue.broken);
    store<u32>(vq, 1, Virtqueue.ready);
    Device.arm(vq, false);
    return true;
  }

  /**
   * Whether the device wants to be told of available buffers: as long as it polls it doesn't (2.7.10, 2.8.10). With
   * event indices it then names one that has been passed already (2.7.10.2: "MUST set flags to 0"); else the first that
   * it doesn't know of, which isn't the first that it hasn't taken: some may have been left (IOVTee's reserve).
   */
  static arm(vq: usize, on: bool): void {
    const device: usize = load<u32>(vq, Virtqueue.device);
    const features = load<u32>(vq, Virtqueue.features);
    if (features & Feature.PACKED) {
      Sync.store<u16>(device + PackedEvent.flags, <u16>(on ? PackedEvent.ENABLE : PackedEvent.DISABLE));
    } else if (features & Feature.EVENT_IDX) {
      const event = device + SplitUsed.ring + load<u32>(vq, Virtqueue.size) * SplitUsed.ELEMENT;
      Sync.store<u16>(
        event,
        <u16>(on ? load<u32>(vq, Virtqueue.availCache) : load<u32>(vq, Virtqueue.avail) - 1),
      );
    } else Sync.store<u16>(device + SplitUsed.flags, <u16>(on ? 0 : RING_FLAG_NO_EVENT));
  }

  /** Whether the driver has made a buffer available that the device hasn't taken. */
  static isPending(vq: usize): bool {
    const avail = load<u32>(vq, Virtqueue.avail);
    if (!Device.isPacked(vq)) {
      return Sync.load<u16>(load<u32>(vq, Virtqueue.driver) + SplitAvail.idx) != <u16>avail;
    }
    // 2.8.1: AVAIL equals the wrap counter, USED doesn't.
    const flags = <u32>(
      Sync.load<u16>(load<u32>(vq, Virtqueue.desc) + avail * PackedDesc.SIZE + PackedDesc.flags)
    );
    const bits = flags & (DescFlag.AVAIL | DescFlag.USED);
    return bits == <u32>(load<u32>(vq, Virtqueue.availWrap) ? DescFlag.AVAIL : DescFlag.USED);
  }

  /** How far the device has got: what it knows to be available, and what it has taken. */
  static cursor(vq: usize): u64 {
    const known = <u64>(load<u32>(vq, Virtqueue.availCache) & 0xffff);
    const taken = <u64>(load<u32>(vq, Virtqueue.avail) & 0xffff);
    return taken | (known << 16) | ((<u64>load<u32>(vq, Virtqueue.availWrap)) << 32);
  }

  /** The driver is to be told of used buffers, as it asked for. */
  static notify(vq: usize): void {
    Count.add(vq + Virtqueue.notifications, 1);
    Doorbell.ring(load<u32>(vq, Virtqueue.bell));
  }

  static inside(vq: usize, addr: u64, bytes: u32, alignment: u64): bool {
    const limit = <u64>load<u32>(vq, Virtqueue.limit);
    return bytes <= limit && addr <= limit - bytes && (addr & alignment) == 0;
  }

  /**
   * The net header of a received frame: all fields 0 but num_buffers (5.1.6.4). Written only if it isn't there yet, so
   * as not to take the line.
   */
  @inline static netHeader(addr: usize, buffers: u32): void {
    const high = buffers << 16;
    if (load<u64>(addr)) store<u64>(addr, 0);
    if (load<u32>(addr, 8) != high) store<u32>(addr, high, 8);
  }

  /** The driver has set it up, and it isn't broken. */
  @inline static isUsable(vq: usize): bool {
    return load<u32>(vq, Virtqueue.ready) != 0 && !load<u32>(vq, Virtqueue.broken);
  }

  @inline static isPacked(vq: usize): bool {
    return (load<u32>(vq, Virtqueue.features) & Feature.PACKED) != 0;
  }

  static refuse(vq: usize, why: u32): void {
    Count.add(vq + Virtqueue.refused, 1);
    Count.add(vq + Virtqueue.refusals + why * 8, 1);
    if (why >= <u32>Refusal.LOOP) store<u32>(vq, why, Virtqueue.broken);
  }

  /**
   * Refuses the buffer that was taken last, of `descriptors` ring descriptors. In order (2.7.9, 2.8.11) it can't be
   * given back before those taken before it: if there are any, the queue is broken. True if it is to be given back.
   */
  static refuseLast(vq: usize, why: u32, descriptors: u32): bool {
    Device.refuse(vq, why);
    if (
      load<u32>(vq, Virtqueue.features) & Feature.IN_ORDER &&
      load<u32>(vq, Virtqueue.taken) > descriptors
    ) {
      store<u32>(vq, why, Virtqueue.broken);
    }
    return !load<u32>(vq, Virtqueue.broken);
  }

  /**
   * One descriptor's buffer to `to`. Returns Refusal.NONE or why not.
   * Longer buffers than a packet descriptor can say are used up to 65,535 bytes.
   */
  static segment(vq: usize, addr: u64, len: u32, flags: u32, writable: bool, to: usize): u32 {
    if (((flags & DescFlag.WRITE) != 0) != writable) return Refusal.DIRECTION;
    if (!len) return Refusal.TOO_SHORT;
    const limit = <u64>load<u32>(vq, Virtqueue.limit);
    if (<u64>len > limit || addr > limit - len) return Refusal.OUT_OF_REGION;
    if (!writable && len > 0xffff) return Refusal.TOO_LONG;
    const base = load<u32>(vq, Virtqueue.base);
    v128.store(
      to,
      Desc.make(
        base + <u32>addr,
        min<u32>(len, 0xffff),
        PacketFlag.MORE,
        load<u32>(vq, Virtqueue.id),
        0,
        min<u32>(len, 0xffff),
        0,
      ),
    );
    return Refusal.NONE;
  }

  /**
   * An indirect table (2.7.5.3, 2.8.7): `packed` tables are used from the first entry to the last (2.8.7),
   * split ones follow `next`. Returns the segments written to `to`, `room` at most, or -Refusal.
   */
  static indirect(vq: usize, addr: u64, len: u32, writable: bool, to: usize, room: u32, packed: bool): i32 {
    const size = load<u32>(vq, Virtqueue.size);
    const limit = <u64>load<u32>(vq, Virtqueue.limit);
    if (!(load<u32>(vq, Virtqueue.features) & Feature.INDIRECT_DESC)) return -Refusal.INDIRECT;
    if (!len || len % SplitDesc.SIZE || len / SplitDesc.SIZE > size) return -Refusal.INDIRECT;
    if (<u64>len > limit || addr > limit - len) return -Refusal.OUT_OF_REGION;
    const entries = len / SplitDesc.SIZE;
    const table: usize = load<u32>(vq, Virtqueue.base) + <u32>addr;
    let i: u32 = 0;
    let n: u32 = 0;
    while (true) {
      const d = table + i * SplitDesc.SIZE;
      const bufferAddr = load<u64>(d);
      const high = load<u64>(d, 8);
      const flags = packed ? <u32>(high >> 48) : <u32>(high >> 32) & 0xffff;
      // 2.7.5.3.1: one table per descriptor. 2.8.7: in a packed table every flag but WRITE is ignored.
      if (!packed && flags & DescFlag.INDIRECT) return -Refusal.INDIRECT;
      if (n == room) return -Refusal.INDIRECT;
      const refusal = Device.segment(vq, bufferAddr, <u32>high, flags, writable, to + n * Packet.SIZE);
      if (refusal) return -refusal;
      n++;
      if (packed) {
        if (++i == entries) return n;
      } else {
        if (!(flags & DescFlag.NEXT)) return n;
        i = <u32>(high >> 48);
        if (i >= entries) return -Refusal.INDEX;
        if (n == entries) return -Refusal.LOOP;
      }
    }
  }

  /** Writes what identifies the buffer into all its segments, and ends it: the last has no MORE. */
  static finish(to: usize, n: u32, id: u32, descriptors: u32): void {
    for (let i: u32 = 0; i < n; i++) {
      const p = to + i * Packet.SIZE;
      store<u16>(p, id, Packet.index);
      store<u16>(p, descriptors, Packet.mark);
    }
    store<u16>(to + (n - 1) * Packet.SIZE, 0, Packet.flags);
  }

  /** 2.7.10.1, 2.8.10: does a move of an index from `old` to `now` pass `event`? (vring_need_event) */
  @inline static passes(event: u16, now: u16, old: u16): bool {
    return <u16>(now - event - 1) < <u16>(now - old);
  }
}
