/** Packet descriptors (layout: `Packet`): written, and read as the frames that they describe. */
import { Packet, PacketFlag } from "../../assembly/layout.ts";
import type { Access } from "./access.ts";

/** An empty buffer's descriptor at `address`: `len` bytes of room at `addr`. */
export function writePacket(
  access: Access,
  address: number,
  { addr, len, owner = 0, index }: { addr: number; len: number; owner?: number; index: number },
): void {
  access.bytes.fill(0, address, address + Packet.SIZE);
  access.setU32(address + Packet.addr, addr);
  access.setU16(address + Packet.len, len);
  access.setU16(address + Packet.owner, owner);
  access.setU16(address + Packet.index, index);
  access.setU16(address + Packet.room, len);
}

/**
 * The frames of `n` descriptors, the i-th of them at address `at(i)`: views of the memory. A frame of several
 * segments is put together in a copy.
 */
export function framesAt(access: Access, n: number, at: (i: number) => number): Uint8Array[] {
  const frames: Uint8Array[] = [];
  let parts: Uint8Array[] = [];
  for (let i = 0; i < n; i++) {
    const p = at(i);
    const addr = access.u32(p);
    parts.push(access.bytes.subarray(addr, addr + access.u16(p + Packet.len)));
    if (access.u16(p + Packet.flags) & PacketFlag.MORE) continue;
    frames.push(joined(parts));
    parts = [];
  }
  return frames;
}

/** The one part itself, or a copy of all. */
export function joined(parts: readonly Uint8Array[]): Uint8Array {
  if (parts.length === 1) return parts[0] as Uint8Array;
  const whole = new Uint8Array(parts.reduce((n, part) => n + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
