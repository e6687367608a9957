/**
 * A vDPDK device at a port of the switch: frames are copied, as over vhost. What the guest sends stays in its buffers until
 * the switch has copied it to where it goes.
 */
import { Count } from "../count";
import {
  Drop,
  FRAME_MAX,
  FRAME_MIN,
  Packet,
  Port,
  VDPDK_SEGMENTS,
  VdpdkQueue,
  VdpdkRefusal,
} from "../layout";
import { Desc } from "../packet";
import { VdpdkDevices } from "./device";
import { VdpdkQueues } from "./queue";
import { VdpdkRx } from "./rx";
import { VdpdkTx } from "./tx";

export class VdpdkPort {
  /** Up to `max` frames that the guest sends, to `to` (room for `room` descriptors). Returns the descriptors. */
  static rx(port: usize, to: usize, max: u32, room: u32): u32 {
    const q: usize = load<u32>(port, Port.from);
    VdpdkDevices.serve(load<u32>(q, VdpdkQueue.device));
    let n: u32 = 0;
    for (; max && room - n >= <u32>VDPDK_SEGMENTS && VdpdkQueues.runs(q); max--) {
      const list = to + n * Packet.SIZE;
      const segments = VdpdkTx.front(q, list);
      if (!segments) break;
      const bytes = Desc.bytes(list, segments);
      if (bytes < <u32>FRAME_MIN || bytes > <u32>FRAME_MAX) {
        VdpdkQueues.refuse(q, VdpdkRefusal.LENGTH);
        break;
      }
      if (VdpdkTx.asked(q) & ~load<u32>(q, VdpdkQueue.offloads)) {
        VdpdkQueues.refuse(q, VdpdkRefusal.OFFLOAD);
        break;
      }
      store<u32>(q, load<u32>(q, VdpdkQueue.next) + segments, VdpdkQueue.next);
      VdpdkTx.count(q, 1, bytes);
      n += segments;
    }
    return n;
  }

  /** The switch has done with the `n` descriptors taken first. */
  static giveBack(q: usize, n: u32): void {
    store<u32>(q, load<u32>(q, VdpdkQueue.freed) + n, VdpdkQueue.freed);
    VdpdkTx.complete(q);
  }

  /** `frames` frames (`n` descriptors) to the guest. */
  static tx(port: usize, from: usize, n: u32, frames: u32, headers: usize, spare: usize): void {
    const q: usize = load<u32>(port, Port.to);
    const packets = load<u64>(q, VdpdkQueue.packets);
    const bytes = load<u64>(q, VdpdkQueue.bytes);
    const full = load<u64>(q, VdpdkQueue.droppedFull);
    VdpdkRx.copy(q, from, n, headers, spare);
    const got = load<u64>(q, VdpdkQueue.packets) - packets;
    const some = load<u64>(q, VdpdkQueue.bytes) - bytes;
    const lost = load<u64>(q, VdpdkQueue.droppedFull) - full;
    Count.add(port + Port.txPackets, got);
    Count.add(port + Port.txBytes, some);
    Count.add(port + Port.copies, got);
    Count.add(port + Port.copiedBytes, some);
    Count.add(port + Port.drops + Drop.FULL * 8, lost);
    Count.add(port + Port.drops + Drop.DOWN * 8, frames - got - lost);
  }
}
