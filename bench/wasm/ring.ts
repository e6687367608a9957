/**
 * The two sides of a ring, each for a thread of its own: the loops of bench/native/xring.c over the core's ring.
 * A descriptor carries its number in the packet's address.
 */
import { Packet } from "../../assembly/layout";
import { Rings } from "../../assembly/ring";

const BURST: u32 = 32;

/** Sends the descriptors numbered from `first` to before `end`; `list` holds a burst. */
export function produce(ring: usize, list: usize, first: u32, end: u32): void {
  while (first != end) {
    const n = min(BURST, end - first);
    for (let i: u32 = 0; i < n; i++) v128.store(list + i * Packet.SIZE, i32x4(first + i, 0, 0, 0));
    for (let sent: u32 = 0; sent < n; ) sent += Rings.enqueueBurst(ring, list + sent * Packet.SIZE, n - sent);
    first += n;
  }
}

/** Receives those; returns how many had another number than expected. */
export function consume(ring: usize, list: usize, first: u32, end: u32): u32 {
  let wrong: u32 = 0;
  while (first != end) {
    const n = Rings.dequeueBurst(ring, list, min(BURST, end - first));
    for (let i: u32 = 0; i < n; i++)
      wrong += u32(load<u32>(list + i * Packet.SIZE, Packet.addr) != first + i);
    first += n;
  }
  return wrong;
}
