/** Makes rings of packet descriptors (layout: `Ring`). The core's `enqueue` and `dequeue` move them. */
import { Kind, Packet, Ring, RingKind } from "../../assembly/layout.ts";
import { powerOfTwo } from "../options.ts";
import type { Access } from "./access.ts";
import type { Core, Placed } from "./core.ts";

export function ringBytes(slots: number): number {
  return Ring.slots + slots * Packet.SIZE;
}

/** An empty ring at `address`, where the memory is zero; `slots` is a power of two. */
export function initRing(access: Access, address: number, slots: number, kind: RingKind): void {
  access.setFields(address, { [Ring.mask]: slots - 1, [Ring.kind]: kind });
}

/** Puts `n` descriptors into an empty ring that nobody else uses yet: `write` writes the i-th. */
export function fillRing(
  access: Access,
  ring: number,
  n: number,
  write: (address: number, i: number) => void,
): void {
  for (let i = 0; i < n; i++) write(ring + Ring.slots + i * Packet.SIZE, i);
  access.setU32(ring + Ring.head, n);
  if (access.u32(ring + Ring.kind) === RingKind.MPMC) access.setU32(ring + Ring.headDone, n);
}

/**
 * A ring of descriptors.
 * @param slots how many it holds, a power of two
 * @throws RangeError for `slots`, or naming `what` where the memory is full
 */
export function createRing(
  core: Core,
  slots: number,
  {
    kind = RingKind.SPSC,
    what = "ring",
    parent = 0,
  }: { kind?: RingKind; what?: string; parent?: number } = {},
): Placed {
  powerOfTwo("slots", slots, 2 ** 24);
  const ring = core.place(Kind.RING, ringBytes(slots), what, parent);
  initRing(core, ring.address, slots, kind);
  return ring;
}
