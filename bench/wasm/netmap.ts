/**
 * Both users of a netmap pipe on one thread: one numbers its frames and sends them, the other looks at the numbers and
 * gives the slots back. No byte of a frame is copied.
 */
import { Kring, NETMAP_FIRST, NetmapRing, NetmapSlot } from "../../assembly/layout";
import { Pipes } from "../../assembly/netmap/pipe";

/** Frames handed over at a time. */
const BURST: u32 = 32;

class Slots {
  /** Address of the buffer in slot `i`. */
  @inline static buffer(k: usize, i: u32): usize {
    const slot: usize = load<u32>(k, Kring.ring) + NetmapRing.slots + i * NetmapSlot.SIZE;
    return load<u32>(k, Kring.base) + (load<u32>(slot) - NETMAP_FIRST) * load<u32>(k, Kring.stride);
  }
}

/**
 * `n` frames of `len` bytes, numbered from `first`, from transmit ring `t` to receive ring `r`. Returns how many came with
 * another number or length than they were sent with, or not at all.
 */
export function run(t: usize, r: usize, n: u32, len: u32, first: u32): u32 {
  const tx: usize = load<u32>(t, Kring.ring);
  const rx: usize = load<u32>(r, Kring.ring);
  const mask = load<u32>(t, Kring.mask);
  let head = load<u32>(tx, NetmapRing.head);
  let next = load<u32>(rx, NetmapRing.head);
  let sent = first;
  let seen = first;
  let wrong: u32 = 0;
  for (const end = first + n; seen != end; ) {
    const some = min(BURST, end - sent);
    for (let i: u32 = 0; i < some; i++) {
      store<u32>(Slots.buffer(t, head), sent++);
      store<u32>(tx + NetmapRing.slots + head * NetmapSlot.SIZE, len, NetmapSlot.len);
      head = (head + 1) & mask;
    }
    store<u32>(tx, head, NetmapRing.cur);
    store<u32>(tx, head, NetmapRing.head);
    Pipes.txsync(t, r);
    const tail = load<u32>(rx, NetmapRing.hwtail);
    if (next == tail) return wrong + (end - seen);
    while (next != tail) {
      const slot = rx + NetmapRing.slots + next * NetmapSlot.SIZE;
      wrong += u32(
        u32(load<u32>(Slots.buffer(r, next)) != seen++) | u32(load<u16>(slot, NetmapSlot.len) != <u16>len),
      );
      next = (next + 1) & mask;
    }
    store<u32>(rx, next, NetmapRing.cur);
    store<u32>(rx, next, NetmapRing.head);
  }
  return wrong;
}
