/** vDPDK, the device's side: what its receive and transmit queues have in common (layout: `VdpdkQueue`). */
import { Count } from "../count";
import { Objects } from "../directory";
import { Doorbell } from "../doorbell";
import { Kind, RxQueue, VdpdkDesc, VdpdkFlag, VdpdkQueue, VdpdkRefusal, VdpdkState } from "../layout";
import { Sync } from "../sync";

const AVAIL: u32 = (<u32>VdpdkFlag.AVAIL) << 16;
/** Flags of a descriptor whose buffer the card has. */
export const HELD: u32 = VdpdkFlag.AVAIL | VdpdkFlag.ATTACHED;
/** Frames that are moved in one turn, as in vMux. */
export const VDPDK_BURST: u32 = 128;

export class VdpdkQueues {
  @inline static descriptor(q: usize, i: u32): usize {
    return load<u32>(q, VdpdkQueue.ring) + (i & load<u32>(q, VdpdkQueue.mask)) * VdpdkDesc.SIZE;
  }

  /** It may take from the guest. */
  @inline static runs(q: usize): bool {
    return load<u32>(q, VdpdkQueue.state) == VdpdkState.RUNNING && !load<u32>(q, VdpdkQueue.broken);
  }

  /** Descriptors that the device may hold besides those that it does. */
  @inline static window(q: usize): u32 {
    return (
      load<u32>(q, VdpdkQueue.mask) + 1 - (load<u32>(q, VdpdkQueue.next) - load<u32>(q, VdpdkQueue.done))
    );
  }

  /** What the guest did ends this queue: nothing more is taken from it or written to it until it is set up anew. */
  static refuse(q: usize, why: u32): void {
    Count.add(q + VdpdkQueue.refusals + why * 8, 1);
    store<u32>(q, why, VdpdkQueue.broken);
    const card: usize = load<u32>(q, VdpdkQueue.card);
    if (card && Objects.kind(load<u32>(q, VdpdkQueue.id)) == Kind.VDPDK_RX) {
      Sync.store<u32>(card + RxQueue.enabled, 0);
    }
  }

  /** The guest has got descriptors back: tells it where it wants to be told. */
  static tell(q: usize): void {
    if (!Sync.load<u32>(load<u32>(q, VdpdkQueue.wantsInterrupt))) return;
    Count.add(q + VdpdkQueue.notifications, 1);
    Doorbell.ring(load<u32>(q, VdpdkQueue.bell));
  }

  /** Asks the guest for a signal, or, where it polls, for none. */
  @inline static arm(q: usize, on: bool): void {
    Sync.store<u32>(load<u32>(q, VdpdkQueue.wantsSignal), u32(on));
  }

  /**
   * The `n` descriptors from `from` on are the guest's again, with no byte in them: the first last. False where one wasn't
   * the device's any more.
   */
  static giveBack(q: usize, from: u32, n: u32): bool {
    const mask = load<u32>(q, VdpdkQueue.mask);
    const ring: usize = load<u32>(q, VdpdkQueue.ring);
    const first = ring + (from & mask) * VdpdkDesc.SIZE;
    let held = load<u32>(first, VdpdkDesc.len) & AVAIL;
    for (let i: u32 = 1; i < n && held; ) {
      const slot = (from + i) & mask;
      let d = ring + slot * VdpdkDesc.SIZE;
      const begin = d;
      const straight = min(n - i, mask + 1 - slot);
      for (const fours = d + (straight & ~3) * VdpdkDesc.SIZE; d != fours; d += 4 * VdpdkDesc.SIZE) {
        const one = load<u16>(d, VdpdkDesc.flags) & load<u16>(d, VdpdkDesc.flags + 32);
        const two = load<u16>(d, VdpdkDesc.flags + 64) & load<u16>(d, VdpdkDesc.flags + 96);
        if (!(one & two & VdpdkFlag.AVAIL)) break;
        store<u16>(d, 0, VdpdkDesc.flags);
        store<u16>(d, 0, VdpdkDesc.flags + 32);
        store<u16>(d, 0, VdpdkDesc.flags + 64);
        store<u16>(d, 0, VdpdkDesc.flags + 96);
      }
      for (const end = begin + straight * VdpdkDesc.SIZE; d != end; d += VdpdkDesc.SIZE) {
        held = <u32>load<u16>(d, VdpdkDesc.flags) & VdpdkFlag.AVAIL;
        if (!held) break;
        store<u16>(d, 0, VdpdkDesc.flags);
      }
      i += <u32>(d - begin) / VdpdkDesc.SIZE;
    }
    if (!held) {
      VdpdkQueues.refuse(q, VdpdkRefusal.STALE);
      return false;
    }
    Sync.store<u32>(first + VdpdkDesc.len, load<u32>(first, VdpdkDesc.len) & 0xffff);
    return true;
  }
}
