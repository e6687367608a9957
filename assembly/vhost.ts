/**
 * vhost: the host's side of a guest's virtio-net device (virtio 1.2, 5.1), with a copy each way.
 *
 *     rx   guest's transmit queue -> frames. They stay in the guest's buffers ("borrowed") until the switch has
 *          copied them to where they go: so a frame is copied once, also from guest to guest.
 *     tx   frames -> the guest's receive queue: copied into its buffers, or, over IOVTee, already there.
 *
 * A borrowed frame can be changed by the guest at any time: what decides its way (its first 16 bytes) is read
 * once and written to every copy (`Copy.frames`, `Copy.scatter`).
 */
import { Copy } from "./copy";
import { Count } from "./count";
import { Mappings } from "./iovtee";
import {
  Drop,
  Feature,
  FRAME_MAX,
  FRAME_MIN,
  NetHeader,
  Packet,
  PacketFlag,
  Port,
  QUEUE_MAX,
  Refusal,
  Virtqueue,
} from "./layout";
import { Desc } from "./packet";
import { AnyDevice } from "./virtqueue/any-device";
import { Device } from "./virtqueue/device";
import { PackedDevice } from "./virtqueue/packed-device";
import { SplitDevice } from "./virtqueue/split-device";

export class Vhost {
  /** Up to `max` frames that the guest sends, to `to` (room for `room` descriptors). Returns the descriptors. */
  static rx<D extends SplitDevice>(port: usize, to: usize, max: u32, room: u32): u32 {
    const device = changetype<D>(0);
    const vq: usize = load<u32>(port, Port.from);
    if (!load<u32>(vq, Virtqueue.ready)) return 0;
    let patience = load<u32>(vq, Virtqueue.size);
    let n: u32 = 0;
    let frames: u32 = 0;
    while (frames < max && !load<u32>(vq, Virtqueue.broken)) {
      const list = to + n * Packet.SIZE;
      const some = device.take(vq, list, min(max - frames, room - n));
      n += some;
      frames += some;
      if (frames == max || room - n < <u32>QUEUE_MAX) break;
      // 2.7.9: in order means that a refused buffer may only be given back behind those before it.
      if (n && load<u32>(vq, Virtqueue.features) & Feature.IN_ORDER) break;
      const chain = to + n * Packet.SIZE;
      const segments = device.takeChain(vq, chain, false);
      if (segments == 0) break;
      if (segments < 0) {
        // A guest that posts bad buffers as fast as they are refused gets no more than its ring's worth of time.
        if (!--patience) break;
        continue;
      }
      n += Vhost.stripHeader(vq, chain, segments);
      frames++;
    }
    return n;
  }

  /** Takes the net header off a frame of several segments, wherever it ends. Returns the segments left. */
  static stripHeader(vq: usize, list: usize, segments: u32): u32 {
    const bytes = Desc.bytes(list, segments);
    const short = bytes < <u32>NetHeader.SIZE + FRAME_MIN;
    if (short || bytes > <u32>NetHeader.SIZE + FRAME_MAX) {
      Device.refuse(vq, short ? Refusal.TOO_SHORT : Refusal.TOO_LONG);
      store<u16>(list, 0, Packet.len);
      store<u16>(list, 0, Packet.flags);
      return 1;
    }
    let skip: u32 = NetHeader.SIZE;
    let gone: u32 = 0;
    while (load<u16>(list + gone * Packet.SIZE, Packet.len) <= skip) {
      skip -= load<u16>(list + gone * Packet.SIZE, Packet.len);
      gone++;
    }
    const left = segments - gone;
    if (gone) memory.copy(list, list + gone * Packet.SIZE, left * Packet.SIZE);
    store<u32>(list, load<u32>(list, Packet.addr) + skip, Packet.addr);
    store<u16>(list, load<u16>(list, Packet.len) - <u16>skip, Packet.len);
    return left;
  }

  /**
   * `frames` frames (`n` descriptors) to the guest; `headers`: the first 16 bytes of each; `spare`: room for
   * buffers. Frames that lie in this guest's own mapped buffers are handed over, others are copied.
   */
  static tx<D extends SplitDevice>(
    port: usize,
    from: usize,
    n: u32,
    frames: u32,
    headers: usize,
    spare: usize,
    alike: u32,
  ): void {
    const vq: usize = load<u32>(port, Port.to);
    if (!Device.isUsable(vq)) {
      Count.add(port + Port.drops + Drop.DOWN * 8, frames);
      Vhost.giveBackMapped(port, from, n);
      return;
    }
    if (!alike) Vhost.txRuns(port, vq, from, n, frames, headers, spare);
    else if (load<u16>(from, Packet.owner) == load<u32>(port, Port.takes)) {
      Vhost.handOver<D>(port, vq, from, n);
    } else Vhost.copyRun<D>(port, vq, from, n, headers, spare);
    changetype<D>(0).publish(vq);
  }

  /** Frames of any kind: runs of those that are treated alike. */
  static txRuns(
    port: usize,
    vq: usize,
    from: usize,
    n: u32,
    frames: u32,
    headers: usize,
    spare: usize,
  ): void {
    const takes = load<u32>(port, Port.takes);
    let i: u32 = 0;
    for (let f: u32 = 0; f < frames; ) {
      const p = from + i * Packet.SIZE;
      const mapped = load<u16>(p, Packet.owner) == takes;
      const header = headers + f * 16;
      let run: u32 = 0;
      while (f + run < frames) {
        const q = p + run * Packet.SIZE;
        if ((load<u16>(q, Packet.owner) == takes) != mapped) break;
        if (load<u16>(q, Packet.flags) & PacketFlag.MORE) break;
        run++;
      }
      if (run) {
        const packed = Device.isPacked(vq);
        if (mapped && packed) Vhost.handOver<PackedDevice>(port, vq, p, run);
        else if (mapped) Vhost.handOver<SplitDevice>(port, vq, p, run);
        else if (packed) Vhost.copyRun<PackedDevice>(port, vq, p, run, header, spare);
        else Vhost.copyRun<SplitDevice>(port, vq, p, run, header, spare);
        i += run;
        f += run;
        continue;
      }
      const segments = Desc.segments(p, n - i);
      const own = Desc.owned(p, segments, takes);
      if (own < segments) {
        Vhost.copyOne(port, vq, p, segments, header, spare);
        if (own) Vhost.giveBackMapped(port, p, segments); // begun in the guest's buffers and ended in the host's
      } else if (load<u32>(vq, Virtqueue.features) & Feature.MRG_RXBUF)
        Vhost.handOverMany(port, vq, p, segments, spare);
      else {
        Count.add(port + Port.drops + Drop.TOO_LARGE * 8, 1);
        Vhost.giveBackMapped(port, p, segments);
      }
      i += segments;
      f++;
    }
  }

  /** Those of `n` segments that are the guest's own go back to its PRing. */
  static giveBackMapped(port: usize, from: usize, n: u32): void {
    const takes = load<u32>(port, Port.takes);
    for (let i: u32 = 0; i < n; i++) {
      const p = from + i * Packet.SIZE;
      let run: u32 = 0;
      while (i + run < n && load<u16>(p + run * Packet.SIZE, Packet.owner) == takes) run++;
      if (run) Mappings.giveBack(load<u32>(port, Port.mapping), p, run);
      i += run;
    }
  }

  /** IOVTee hit (R4): the frame lies where the guest wants it; only the header and the used ring are written. */
  @inline static handOver<D extends SplitDevice>(port: usize, vq: usize, from: usize, n: u32): void {
    const bytes = changetype<D>(0).handOver(vq, from, n);
    Mappings.countHits(load<u32>(port, Port.mapping), n);
    Count.add(port + Port.txPackets, n);
    Count.add(port + Port.txBytes, bytes);
  }

  /** The same for a frame over several mapped buffers (R10). */
  static handOverMany(port: usize, vq: usize, from: usize, segments: u32, spare: usize): void {
    Device.netHeader(load<u32>(from, Packet.addr) - NetHeader.SIZE, segments);
    for (let i: u32 = 0; i < segments; i++) {
      const d = v128.load(from + i * Packet.SIZE);
      const len = Desc.len(d) + (i ? 0 : <u32>NetHeader.SIZE);
      v128.store(spare + i * Packet.SIZE, i16x8.replace_lane(i16x8.replace_lane(d, 2, <i16>len), 7, 1));
    }
    changetype<AnyDevice>(0).complete(vq, spare, segments, true);
    Mappings.countHits(load<u32>(port, Port.mapping), 1);
    Count.add(port + Port.txPackets, 1);
    Count.add(port + Port.txBytes, Desc.bytes(from, segments));
  }

  /** Copies frames of one segment: into plain buffers while there are any, else into whatever there is. */
  static copyRun<D extends SplitDevice>(
    port: usize,
    vq: usize,
    from: usize,
    n: u32,
    headers: usize,
    spare: usize,
  ): void {
    while (n) {
      const done = Vhost.copySingles<D>(port, vq, from, n, headers, spare);
      if (done == n) return;
      Vhost.copyOne(port, vq, from + done * Packet.SIZE, 1, headers + done * 16, spare);
      n -= done + 1;
      from += (done + 1) * Packet.SIZE;
      headers += (done + 1) * 16;
    }
  }

  /** Copies frames into plain buffers; returns how many, short of the first that needs more. */
  @inline static copySingles<D extends SplitDevice>(
    port: usize,
    vq: usize,
    from: usize,
    n: u32,
    headers: usize,
    spare: usize,
  ): u32 {
    const device = changetype<D>(0);
    const mapping: usize = load<u32>(port, Port.mapping);
    const parked = mapping ? Mappings.take(mapping, spare, n) : 0;
    const got = parked == n ? n : parked + device.take(vq, spare + parked * Packet.SIZE, n - parked);
    const fit = Vhost.writeHeaders(spare, from, got);
    const bytes = Copy.frames(spare, NetHeader.SIZE, from, fit, headers);
    device.complete(vq, spare, fit, true);
    if (fit < got) {
      const kept = max(fit, parked);
      device.untake(vq, spare + kept * Packet.SIZE, got - kept);
      if (fit < parked) Mappings.untake(mapping, parked - fit);
    }
    Count.add(port + Port.txPackets, fit);
    Count.add(port + Port.txBytes, bytes);
    Count.add(port + Port.copies, fit);
    Count.add(port + Port.copiedBytes, bytes);
    return fit;
  }

  /** Net headers into the buffers at `to`, as far as the frames at `from` fit them; returns how many do. */
  @inline static writeHeaders(to: usize, from: usize, n: u32): u32 {
    let i: u32 = 0;
    for (; i < n; i++) {
      const d = load<u64>(to);
      if (<u32>load<u16>(from, Packet.len) + NetHeader.SIZE > <u32>(d >> 32)) break;
      store<u64>(<usize>(<u32>d), 0);
      store<u32>(<usize>(<u32>d), 1 << 16, 8);
      to += Packet.SIZE;
      from += Packet.SIZE;
    }
    return i;
  }

  /**
   * One frame into whatever buffers the guest has: chains, indirect tables, several of them if they may be
   * merged (5.1.6.4.1). Nothing is used unless it fits.
   */
  static copyOne(port: usize, vq: usize, from: usize, segments: u32, header: usize, spare: usize): void {
    const device = changetype<AnyDevice>(0);
    const mapping: usize = load<u32>(port, Port.mapping);
    const bytes = Desc.bytes(from, segments);
    const need = bytes + NetHeader.SIZE;
    const merge = load<u32>(vq, Virtqueue.features) & Feature.MRG_RXBUF;
    let room: u32 = 0;
    let n: u32 = 0;
    let buffers: u32 = 0;
    let parked: u32 = 0;
    let why: i32 = -1;
    while (room < need) {
      if (buffers && !merge) {
        why = Drop.TOO_LARGE;
        break;
      }
      const p = spare + n * Packet.SIZE;
      let some: i32 = mapping && buffers == parked ? Mappings.take(mapping, p, 1) : 0;
      if (some) parked++;
      else some = n > <u32>QUEUE_MAX / 2 ? 0 : device.takeChain(vq, p, true);
      if (some <= 0) {
        why = some == 0 ? Drop.FULL : Drop.NO_BUFFER;
        break;
      }
      room += Desc.bytes(p, some);
      n += some;
      buffers++;
    }
    if (why >= 0) {
      Count.add(port + Port.drops + why * 8, 1);
      Vhost.undo(port, vq, spare, n, buffers, parked, why == Drop.NO_BUFFER);
      return;
    }
    const at = Vhost.scatterHeader(spare, buffers);
    Copy.scatter(spare + (at >> 16) * Packet.SIZE, at & 0xffff, from, bytes, v128.load(header));
    let left = need;
    for (let p = spare; buffers; buffers--) {
      const k = Desc.segments(p, n);
      const written = min(left, Desc.bytes(p, k));
      left -= written;
      store<u16>(p, <u16>written, Packet.len);
      device.complete(vq, p, 1, true);
      p += k * Packet.SIZE;
    }
    Count.add(port + Port.txPackets, 1);
    Count.add(port + Port.txBytes, bytes);
    Count.add(port + Port.copies, 1);
    Count.add(port + Port.copiedBytes, bytes);
  }

  /** Puts buffers back that a frame didn't fit in. Behind a refused buffer the ring can't be wound back: they are returned unused. */
  static undo(port: usize, vq: usize, spare: usize, n: u32, buffers: u32, parked: u32, refused: bool): void {
    const device = changetype<AnyDevice>(0);
    const mapping: usize = load<u32>(port, Port.mapping);
    if (parked) Mappings.untake(mapping, parked);
    let p = spare + parked * Packet.SIZE;
    if (load<u32>(vq, Virtqueue.broken)) return;
    // One descriptor for each buffer, in front: what `untake` and `complete` go by.
    const firsts = spare + n * Packet.SIZE;
    for (let i: u32 = parked; i < buffers; i++) {
      v128.store(firsts + (i - parked) * Packet.SIZE, v128.load(p));
      p += Desc.segments(p, n) * Packet.SIZE;
    }
    if (refused) device.complete(vq, firsts, buffers - parked, false);
    else device.untake(vq, firsts, buffers - parked);
  }

  /** The net header over as many segments as it takes; returns segment << 16 | offset of what follows. */
  static scatterHeader(list: usize, buffers: u32): u32 {
    let at: u32 = 0;
    let segment: u32 = 0;
    let offset: u32 = 0;
    while (at < <u32>NetHeader.SIZE) {
      const p = list + segment * Packet.SIZE;
      if (offset == load<u16>(p, Packet.len)) {
        segment++;
        offset = 0;
        continue;
      }
      const byte = at == NetHeader.numBuffers ? buffers : at == NetHeader.numBuffers + 1 ? buffers >> 8 : 0;
      store<u8>(load<u32>(p, Packet.addr) + offset, <u8>byte);
      offset++;
      at++;
    }
    return (segment << 16) | offset;
  }
}
