/**
 * A guest: its network driver and the loop around its network function (layout: `Guest`).
 *
 *     receive queue --used--> frames --function--> transmit queue
 *          ^------ free buffers (LIFO) <--- used ------'
 *
 * A received buffer is sent from where it lies. The guest knows of no host: only of its two queues, whatever they are;
 * of those of virtio-net each frame has a net header in front.
 */
import { Count } from "./count";
import { Functions } from "./functions";
import {
  BURST_DESCRIPTORS,
  DriverKind,
  FRAME_MIN,
  Guest,
  GuestFunction,
  NetHeader,
  Packet,
  PacketFlag,
} from "./layout";
import { NativeDriver } from "./native-driver";
import { NetmapDriver } from "./netmap/driver";
import { Desc } from "./packet";
import { VdpdkPmd, VdpdkRing } from "./vdpdk/driver";
import { Drivers } from "./virtqueue/driver";
import { PackedDriver } from "./virtqueue/packed-driver";
import { SplitDriver } from "./virtqueue/split-driver";

/** The driver of a receive or transmit queue: `drv` is where its state is. */
interface PacketDriver {
  /** Bytes in front of a frame in its first buffer: virtio's net header, or none. */
  header(): u32;
  /**
   * Up to `max` segments of received frames, or of sent ones, to `to`. A received segment's `len` is what was written; of
   * a frame over several, without a net header that tells how many, each but the last has PacketFlag.MORE.
   */
  used(drv: usize, to: usize, max: u32): u32;
  /** Segments that can be queued now. */
  room(drv: usize): u32;
  /** Queues the frames at `from` (`n` segments), or empty buffers (`writable`). Returns the segments queued: whole frames. */
  post(drv: usize, from: usize, n: u32, writable: bool): u32;
  /** Shows what was queued to the other side; true if that was notified. */
  publish(drv: usize): bool;
}

export class Guests {
  /** One turn: reclaim, receive, run the function, send, post empty buffers. Returns the frames received. */
  static poll(g: usize): u32 {
    const kind = load<u32>(g, Guest.driver);
    if (kind == DriverKind.NATIVE) return Guests.turn<NativeDriver>(g);
    if (kind == DriverKind.NETMAP) return Guests.turn<NetmapDriver>(g);
    if (kind == DriverKind.VDPDK) return Guests.turn<VdpdkPmd>(g);
    return kind == DriverKind.PACKED ? Guests.turn<PackedDriver>(g) : Guests.turn<SplitDriver>(g);
  }

  /** It is about to sleep (`on`), or polls again. Its sent buffers are what it receives into: it is told of them too. */
  static arm(g: usize, on: bool): void {
    const rx: usize = load<u32>(g, Guest.rx);
    const tx: usize = load<u32>(g, Guest.tx);
    const kind = load<u32>(g, Guest.driver);
    if (kind == DriverKind.NATIVE) {
      NativeDriver.arm(rx, on);
      NativeDriver.arm(tx, on);
    } else if (kind == DriverKind.NETMAP) {
      NetmapDriver.arm(rx, on);
      NetmapDriver.arm(tx, on);
    } else if (kind == DriverKind.VDPDK) {
      VdpdkRing.arm(rx, on);
      VdpdkRing.arm(tx, on);
    } else {
      Drivers.arm(rx, on);
      Drivers.arm(tx, on);
    }
  }

  /** How far it has got in its queues, as a number that changes when it gets a little further in one, or both. */
  static cursor(g: usize): u64 {
    // A driver that looks at whose descriptors are asks for nothing that depends on how far it is.
    if (load<u32>(g, Guest.driver) == DriverKind.VDPDK) return 0;
    return (
      Drivers.cursor(load<u32>(g, Guest.rx)) * 0x9e37_79b9_7f4a_7c15 + Drivers.cursor(load<u32>(g, Guest.tx))
    );
  }

  static turn<D extends PacketDriver>(g: usize): u32 {
    const driver = changetype<D>(0);
    const rx: usize = load<u32>(g, Guest.rx);
    const tx: usize = load<u32>(g, Guest.tx);
    const list = g + Guest.scratch;
    const before = load<u32>(g, Guest.received);
    Guests.give(g, list, driver.used(tx, list, BURST_DESCRIPTORS));
    let n = driver.used(rx, list, load<u32>(g, Guest.burst));
    if (n) {
      const swapped = Guests.swap<D>(g, list, n);
      if (swapped < n) {
        const end = list + n * Packet.SIZE;
        const missing = Guests.missing<D>(list + swapped * Packet.SIZE, end);
        if (missing) n += driver.used(rx, end, min(missing, <u32>BURST_DESCRIPTORS - n));
      }
      const send = swapped < n ? Guests.process<D>(g, list, swapped, n) : n;
      let posted = driver.post(tx, list, send, false);
      if (posted < send) {
        // The device may have sent some since this turn began.
        const spare = list + n * Packet.SIZE;
        Guests.give(g, spare, driver.used(tx, spare, <u32>BURST_DESCRIPTORS - n));
        posted += driver.post(tx, list + posted * Packet.SIZE, send - posted, false);
      }
      const frames = swapped < n ? Desc.frames(list, posted) : posted;
      if (posted < send) {
        const left = list + posted * Packet.SIZE;
        Count.add(g + Guest.droppedTxFull, Desc.frames(left, send - posted));
        Guests.give(g, left, send - posted);
      }
      Count.add(g + Guest.transmitted, frames);
      driver.publish(tx);
    }
    // All free buffers go to the device, the warmest last: it is the last that it will fill.
    const free = load<u32>(g, Guest.freeCount);
    const want = min(free, driver.room(rx));
    if (want) {
      const from = load<u32>(g, Guest.free) + (free - want) * Packet.SIZE;
      store<u32>(g, free - driver.post(rx, from, want, true), Guest.freeCount);
      driver.publish(rx);
    }
    return load<u32>(g, Guest.received) - before;
  }

  /**
   * The commonest function, without a call in its loop: frames of one buffer get their MAC addresses swapped and
   * their net header cleared. Returns how many from the front; what is behind is left to `process`.
   */
  @inline static swap<D extends PacketDriver>(g: usize, list: usize, n: u32): u32 {
    if (load<u32>(g, Guest.run) != GuestFunction.MACSWAP || load<u64>(g, Guest.nextHop)) return 0;
    const header = changetype<D>(0).header();
    const shortest = header + FRAME_MIN;
    const range = load<u32>(g, Guest.bufferSize) - shortest;
    let p = list;
    for (const end = list + n * Packet.SIZE; p != end; p += Packet.SIZE) {
      // With flags in its upper half: of more than one segment.
      if (load<u32>(p, Packet.len) - shortest > range) break;
      const addr: usize = load<u32>(p);
      if (header && load<u16>(addr, NetHeader.numBuffers) > 1) break;
      Functions.macswap(addr + header, 0);
      if (header) Guests.clearHeader(addr);
    }
    const swapped = <u32>(p - list) / Packet.SIZE;
    Count.add(g + Guest.received, swapped);
    return swapped;
  }

  /** 5.1.6.2.1: num_buffers is 0; no offload is asked for. */
  @inline static clearHeader(addr: usize): void {
    store<u64>(addr, 0);
    store<u32>(addr, 0, 8);
  }

  /**
   * Buffers that the frame takes which begins in the one at `p`, of those up to `end` (5.1.6.4 `num_buffers`: it may be
   * more). One that came back without its net header is no frame: what stands in it is an old one.
   */
  @inline static buffers<D extends PacketDriver>(p: usize, end: usize): u32 {
    if (!changetype<D>(0).header()) return Desc.segments(p, <u32>(end - p) / Packet.SIZE);
    if (load<u16>(p, Packet.len) < <u16>NetHeader.SIZE) return 1;
    return max<u32>(load<u16>(load<u32>(p, Packet.addr), NetHeader.numBuffers), 1);
  }

  /** Buffers of the last frame that are not among those from `list` to `end`. */
  @inline static missing<D extends PacketDriver>(list: usize, end: usize): u32 {
    while (list < end) list += Guests.buffers<D>(list, end) * Packet.SIZE;
    return <u32>(list - end) / Packet.SIZE;
  }

  /**
   * Received buffers from number `i` on to frames, through the function; what is to be sent is moved to the front
   * of `list`, behind the `i` frames there, net headers in front. Returns the segments to send.
   */
  static process<D extends PacketDriver>(g: usize, list: usize, i: u32, n: u32): u32 {
    const header = changetype<D>(0).header();
    const which = load<u32>(g, Guest.run);
    const nextHop = load<u64>(g, Guest.nextHop);
    const mac = load<u64>(g, Guest.mac);
    const room = load<u32>(g, Guest.bufferSize);
    let out = i;
    let received: u32 = 0;
    while (i < n) {
      const p = list + i * Packet.SIZE;
      const d = v128.load(p);
      const addr: usize = Desc.addr(d);
      const len = Desc.len(d);
      const buffers = Guests.buffers<D>(p, list + n * Packet.SIZE);
      if (i + buffers > n || len > room || len < header + FRAME_MIN) {
        Count.add(g + Guest.droppedMalformed, 1);
        Guests.give(g, p, min(buffers, n - i));
        i += buffers;
        continue;
      }
      received++;
      const frame = addr + header;
      const sent = Functions.run(g, which, frame, len - header, buffers == 1);
      if (!sent) {
        Count.add(g + Guest.droppedByFunction, 1);
        Guests.give(g, p, buffers);
      } else {
        if (nextHop) Functions.forward(frame, sent, mac, nextHop);
        if (header) Guests.clearHeader(addr);
        if (buffers == 1) {
          v128.store(list + out * Packet.SIZE, i16x8.replace_lane(d, 2, <i16>(sent + header)));
          out++;
        } else {
          for (let k: u32 = 0; k < buffers; k++) {
            const flags = <i16>(k + 1 < buffers ? PacketFlag.MORE : 0);
            v128.store(
              list + out * Packet.SIZE,
              i16x8.replace_lane(v128.load(p + k * Packet.SIZE), 3, flags),
            );
            out++;
          }
        }
      }
      i += buffers;
    }
    Count.add(g + Guest.received, received);
    return out;
  }

  /** `n` buffers are free again, each as it was. */
  static give(g: usize, from: usize, n: u32): void {
    if (!n) return;
    const size = load<u32>(g, Guest.bufferSize);
    const blank = v128.load(g, Guest.blank);
    const base = load<u32>(g, Guest.blank);
    const count = load<u32>(g, Guest.freeCount);
    let to: usize = load<u32>(g, Guest.free) + count * Packet.SIZE;
    for (const end = to + n * Packet.SIZE; to != end; to += Packet.SIZE) {
      const index = load<u16>(from, Packet.index);
      v128.store(to, i16x8.replace_lane(i32x4.replace_lane(blank, 0, base + index * size), 5, index));
      from += Packet.SIZE;
    }
    store<u32>(g, count + n, Guest.freeCount);
  }
}
