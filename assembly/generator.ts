/**
 * The far end of the wire: makes frames and checks those that come back (layout: `Generator`, `Generated`).
 * What it counts is what a run is judged by: each frame comes back once, in order, unchanged but for its
 * MAC addresses, or it is counted as lost, duplicated, reordered or corrupt.
 */
import { Count } from "./count";
import { Generated, Generator, Nic, Packet, PacketFlag } from "./layout";
import { Card } from "./nic";
import { Parse } from "./parse";
import { Wire } from "./wire";

export class Gen {
  /** Sends `n` frames to the NIC as one burst; returns how many it took. */
  static send(gen: usize, nic: usize, n: u32): u32 {
    let taken: u32 = 0;
    for (let i: u32 = 0; i < n; i++) if (Gen.sendOne(gen, nic)) taken++;
    Wire.flush(nic);
    return taken;
  }

  @inline static size(gen: usize, seq: u32): u32 {
    return load<u8>(load<u32>(gen, Generator.mix) + (seq % load<u32>(gen, Generator.mixLength)));
  }
  @inline static template(gen: usize, size: u32): usize {
    return load<u32>(load<u32>(gen, Generator.templates) + size * 4);
  }
  @inline static length(gen: usize, size: u32): u32 {
    return load<u32>(load<u32>(gen, Generator.lengths) + size * 4);
  }

  static sendOne(gen: usize, nic: usize): bool {
    const seq = load<u32>(gen, Generator.seq);
    const size = Gen.size(gen, seq);
    const frame = Gen.template(gen, size);
    const len = Gen.length(gen, size);
    const to = load<u64>(
      load<u32>(gen, Generator.destinations) + (seq % load<u32>(gen, Generator.destinationCount)) * 8,
    );
    const flow = seq % load<u32>(gen, Generator.flows);
    store<u32>(frame, <u32>to);
    store<u16>(frame, <u16>(to >> 32), 4);
    // A port number beside its complement leaves the UDP checksum as it is, as the sequence number does.
    store<u16>(frame, bswap<u16>(<u16>(1024 + flow)), Generated.sourcePort);
    store<u32>(frame, bswap<u32>(seq), Generated.seq);
    store<u32>(frame, bswap<u32>(~seq), Generated.seqComplement);
    store<u16>(frame, ~bswap<u16>(<u16>(1024 + flow)), Generated.portComplement);
    store<u32>(gen, seq + 1, Generator.seq);
    store<u8>(load<u32>(gen, Generator.seen) + (seq & (Generator.WINDOW - 1)), 0);
    Count.add(gen + Generator.sent, 1);
    Count.add(gen + Generator.sentBytes, len);
    return Wire.receive(nic, frame, len);
  }

  /** Takes and checks the first `n` descriptors that the NIC is to send, whole frames; returns the frames. */
  static drain(gen: usize, nic: usize, n: u32): u32 {
    let frames: u32 = 0;
    let i: u32 = 0;
    while (i < n) {
      const p = Card.txDescriptor(nic, i);
      let frame: usize = load<u32>(p, Packet.addr);
      let len = <u32>load<u16>(p, Packet.len);
      if (load<u16>(p, Packet.flags) & PacketFlag.TX_OFFLOADS) {
        for (let k: u32 = 0; ; k++, frames++) {
          len = Card.assemble(nic, i, k);
          if (!len) break;
          Gen.check(gen, load<u32>(nic, Nic.assembly), len);
        }
        while (load<u16>(Card.txDescriptor(nic, i++), Packet.flags) & PacketFlag.MORE) {}
        continue;
      }
      i++;
      if (load<u16>(p, Packet.flags) & PacketFlag.MORE) {
        const scratch: usize = load<u32>(gen, Generator.scratch);
        memory.copy(scratch, frame, len);
        let more = true;
        while (more) {
          const s = Card.txDescriptor(nic, i++);
          const some = <u32>load<u16>(s, Packet.len);
          memory.copy(scratch + len, load<u32>(s, Packet.addr), some);
          len += some;
          more = (load<u16>(s, Packet.flags) & PacketFlag.MORE) != 0;
        }
        frame = scratch;
      }
      Gen.check(gen, frame, len);
      frames++;
    }
    Card.transmitted(nic, n);
    return frames;
  }

  static check(gen: usize, frame: usize, len: u32): void {
    Count.add(gen + Generator.received, 1);
    Count.add(gen + Generator.receivedBytes, len);
    if (!Gen.intact(gen, frame, len)) {
      Count.add(gen + Generator.corrupt, 1);
      return;
    }
    const seq = Parse.be32(frame + Generated.seq);
    const seen = load<u32>(gen, Generator.seen) + (seq & (Generator.WINDOW - 1));
    if (load<u8>(seen)) {
      Count.add(gen + Generator.duplicated, 1);
      return;
    }
    store<u8>(seen, 1);
    const expected = load<u32>(gen, Generator.expected) + (seq % load<u32>(gen, Generator.orders)) * 4;
    if (<i32>(seq - load<u32>(expected)) < 0) Count.add(gen + Generator.reordered, 1);
    else store<u32>(expected, seq + 1);
  }

  /** Is it a frame of ours, of the right length, with every byte from the EtherType on as it was sent? */
  static intact(gen: usize, frame: usize, len: u32): bool {
    if (len < <u32>Generated.MIN) return false;
    const seq = load<u32>(frame, Generated.seq);
    if (~seq != load<u32>(frame, Generated.seqComplement)) return false;
    const number = bswap<u32>(seq);
    const behind = load<u32>(gen, Generator.seq) - number;
    if (behind == 0 || behind > <u32>Generator.WINDOW) return false;
    const size = Gen.size(gen, number);
    if (len != Gen.length(gen, size)) return false;
    const template = Gen.template(gen, size);
    const flow = number % load<u32>(gen, Generator.flows);
    if (Parse.be16(frame + Generated.sourcePort) != ((1024 + flow) & 0xffff)) return false;
    if (load<u16>(frame, Generated.portComplement) != (~load<u16>(frame, Generated.sourcePort) & 0xffff))
      return false;
    return (
      Gen.same(frame, template, Generated.etherType, Generated.sourcePort) &&
      Gen.same(frame, template, Generated.sourcePort + 2, Generated.seq) &&
      Gen.same(frame, template, Generated.pattern, len)
    );
  }

  static same(a: usize, b: usize, from: u32, to: u32): bool {
    let i = from;
    for (; i + 16 <= to; i += 16) {
      if (v128.any_true(v128.xor(v128.load(a + i), v128.load(b + i)))) return false;
    }
    for (; i < to; i++) if (load<u8>(a + i) != load<u8>(b + i)) return false;
    return true;
  }
}
