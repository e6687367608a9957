/**
 * The driver's side of a virtqueue, whichever its format (layout: `Driver`): what a guest's virtio-net does.
 *
 *     post      makes buffers available: each frame's segments become one buffer
 *     publish   shows them to the device, with one store, and says whether it wants to be notified
 *     used      takes back what the device has used
 *
 * Buffers are the guest's packet descriptors { addr: in memory, index: the guest's number of the buffer }.
 * They wait in the shadow table, found by buffer id, until they are used: the driver believes nothing that
 * stands in shared memory but ids that it finds there, and those it checks.
 */

import { Count } from "../count";
import { Doorbell } from "../doorbell";
import {
  DescFlag,
  Driver,
  DriverMode,
  Feature,
  INDIRECT_ENTRIES,
  PackedDesc,
  PackedEvent,
  Packet,
  PacketFlag,
  RING_FLAG_NO_EVENT,
  SHADOW_LIST,
  SHADOW_REST,
  SplitAvail,
  SplitDesc,
  SplitUsed,
} from "../layout";
import { Desc } from "../packet";
import { Sync } from "../sync";

/** Low half of the packet descriptor of a whole frame in one segment, whose flags are 0: what is less than this. */
export const FLAGGED: u64 = 1 << 48;

export class Drivers {
  @inline static inOrder(drv: usize): bool {
    return (load<u32>(drv, Driver.features) & Feature.IN_ORDER) != 0;
  }

  @inline static shadow(drv: usize, id: u32): usize {
    return load<u32>(drv, Driver.shadow) + id * Packet.SIZE;
  }

  /** A free id: the one freed last, or the next in turn (2.7.9: in order, round the table). */
  @inline static allocId(drv: usize): u32 {
    const left = load<u32>(drv, Driver.freeCount) - 1;
    store<u32>(drv, left, Driver.freeCount);
    if (!Drivers.inOrder(drv)) return load<u16>(load<u32>(drv, Driver.freeIds) + 2 * left);
    const id = load<u32>(drv, Driver.nextId);
    store<u32>(drv, Drivers.following(drv, id), Driver.nextId);
    return id;
  }

  @inline static freeId(drv: usize, id: u32): void {
    const left = load<u32>(drv, Driver.freeCount);
    if (!Drivers.inOrder(drv)) store<u16>(load<u32>(drv, Driver.freeIds) + 2 * left, <u16>id);
    store<u32>(drv, left + 1, Driver.freeCount);
  }

  @inline static following(drv: usize, id: u32): u32 {
    return id + 1 == load<u32>(drv, Driver.size) ? 0 : id + 1;
  }

  /** Is `id` the first id of a buffer that the device has? */
  @inline static outstanding(drv: usize, id: u32): bool {
    if (id >= load<u32>(drv, Driver.size)) return false;
    const shadow = Drivers.shadow(drv, id);
    return load<u32>(shadow, Packet.addr) != 0 && !(load<u16>(shadow, Packet.flags) & SHADOW_REST);
  }

  /**
   * Writes the `n` segments at `from` into the indirect table of `id`, and remembers them in its shadow.
   * Returns the table's address. The formats' entries differ in where flags stand.
   */
  static putIndirect(drv: usize, id: u32, from: usize, n: u32, direction: u32, packed: bool): usize {
    const table: usize = load<u32>(drv, Driver.indirect) + id * INDIRECT_ENTRIES * SplitDesc.SIZE;
    const list: usize = load<u32>(drv, Driver.indirectShadow) + id * INDIRECT_ENTRIES * Packet.SIZE;
    const base = load<u32>(drv, Driver.base);
    Desc.copy(list, from, n);
    for (let i: u32 = 0; i < n; i++) {
      const p = from + i * Packet.SIZE;
      const more: u32 = !packed && i + 1 < n ? 1 : 0; // NEXT; a packed table is used as a whole (2.8.7)
      const e = table + i * SplitDesc.SIZE;
      store<u64>(e, load<u32>(p, Packet.addr) - base);
      store<u32>(e, load<u16>(p, Packet.len), 8);
      const flags = direction | more;
      store<u32>(e, packed ? flags << 16 : flags | ((i + 1) << 16), 12);
    }
    v128.store(Drivers.shadow(drv, id), Desc.make(<u32>list, n, SHADOW_LIST, 0, 0, 0, 0));
    return table;
  }

  /**
   * Takes buffer `id` out of the shadow: its segments to `to`, at most `room` of them. A buffer of one segment
   * that was posted for the device to write has `len` bytes now, but never more than it had room for. Returns how many; 0 and nothing done if there is no room.
   */
  @inline static release(drv: usize, id: u32, len: u32, to: usize, room: u32): u32 {
    const shadow = Drivers.shadow(drv, id);
    const d = v128.load(shadow);
    const flags = Desc.flags(d);
    if (flags) return Drivers.releaseMany(drv, id, to, room);
    if (!room) return 0;
    v128.store(to, i16x8.replace_lane(d, 2, <i16>min(len | load<u32>(drv, Driver.ignored), Desc.len(d))));
    store<u64>(shadow, 0);
    Drivers.freeId(drv, id);
    return 1;
  }

  static releaseMany(drv: usize, id: u32, to: usize, room: u32): u32 {
    const shadow = Drivers.shadow(drv, id);
    if (load<u16>(shadow, Packet.flags) == SHADOW_LIST) {
      const n = <u32>load<u16>(shadow, Packet.len);
      if (n > room) return 0;
      Desc.copy(to, load<u32>(shadow, Packet.addr), n);
      store<u64>(shadow, 0);
      Drivers.freeId(drv, id);
      return n;
    }
    const n = Drivers.chainLength(drv, id);
    if (n > room) return 0;
    for (let i: u32 = 0; i < n; i++) {
      const s = Drivers.shadow(drv, id);
      const d = v128.load(s);
      // In a chain's shadow `mark` is the next id.
      v128.store(to + i * Packet.SIZE, i16x8.replace_lane(d, 3, <i16>(Desc.flags(d) & PacketFlag.MORE)));
      store<u64>(s, 0);
      Drivers.freeId(drv, id);
      id = Desc.mark(d);
    }
    return n;
  }

  /** Ring descriptors that buffer `id` takes: its segments, or one for an indirect table. */
  static chainLength(drv: usize, id: u32): u32 {
    let n: u32 = 1;
    let s = Drivers.shadow(drv, id);
    while (load<u16>(s, Packet.flags) & PacketFlag.MORE) {
      s = Drivers.shadow(drv, load<u16>(s, Packet.mark));
      n++;
    }
    return n;
  }

  /**
   * A driver that polls is about to sleep (`on`), and wants to be told of used buffers until it polls again; one that
   * is notified anyway goes on as it is.
   */
  static arm(drv: usize, on: bool): void {
    if (load<u32>(drv, Driver.mode) == DriverMode.INTERRUPT) return;
    store<u32>(drv, on ? DriverMode.ARMED : DriverMode.POLL, Driver.mode);
    const area: usize = load<u32>(drv, Driver.driver);
    const features = load<u32>(drv, Driver.features);
    if (features & Feature.PACKED) {
      Sync.store<u16>(area + PackedEvent.flags, <u16>(on ? PackedEvent.ENABLE : PackedEvent.DISABLE));
    } else if (features & Feature.EVENT_IDX) {
      const event = area + SplitAvail.ring + load<u32>(drv, Driver.size) * 2;
      Sync.store<u16>(event, <u16>(load<u32>(drv, Driver.lastUsed) - u32(!on)));
    } else Sync.store<u16>(area + SplitAvail.flags, <u16>(on ? 0 : RING_FLAG_NO_EVENT));
  }

  /** Whether the device has used a buffer that the driver hasn't taken back. */
  static isPending(drv: usize): bool {
    const last = load<u32>(drv, Driver.lastUsed);
    if (!(load<u32>(drv, Driver.features) & Feature.PACKED)) {
      return Sync.load<u16>(load<u32>(drv, Driver.device) + SplitUsed.idx) != <u16>last;
    }
    // 2.8.1: AVAIL and USED both equal the wrap counter.
    const bits: u32 = DescFlag.AVAIL | DescFlag.USED;
    const flags = <u32>(
      Sync.load<u16>(load<u32>(drv, Driver.desc) + last * PackedDesc.SIZE + PackedDesc.flags)
    );
    return (flags & bits) == (load<u32>(drv, Driver.usedWrap) ? bits : 0);
  }

  /** How far the driver has got with used buffers. */
  static cursor(drv: usize): u64 {
    return <u64>load<u32>(drv, Driver.lastUsed) | ((<u64>load<u32>(drv, Driver.usedWrap)) << 32);
  }

  /** The device is to be told of available buffers, as it asked for. */
  static kick(drv: usize): void {
    Count.add(drv + Driver.kicks, 1);
    Doorbell.ring(load<u32>(drv, Driver.bell));
  }

  static countBadUsed(drv: usize): void {
    Count.add(drv + Driver.badUsed, 1);
  }
}
