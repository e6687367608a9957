/**
 * Zero-copy transmit over vhost: the card is given a guest's transmit buffers as they are (`Switching.lend`), and the guest
 * gets them back when the card has sent them (`Pmd.giveBackLent`).
 *
 *     transmit queue -> descriptor of the card, in the guest's memory -> wire
 *            ^------------------ used, when it was sent ---------------'
 *
 * The card's descriptor is the host's: address and length were checked and can't change. What stands in the frame the guest
 * can rewrite until the card has read it, the addresses that the switch decided by and checked too: the wire may see what
 * other ports never do, since they get copies. On a VLAN-aware switch, where that would put a frame into another VLAN, all
 * is copied.
 */
import { Nic as NicLayout, Packet, PacketFlag, Pool, TxQueue, Virtqueue } from "../../assembly/layout.ts";
import type { Core } from "../core/core.ts";
import type { Nic } from "../roles/nic.ts";

/** What is to be known of a guest. */
export interface Lender {
  readonly name: string;
  readonly txVirtqueue: number;
}

/** From now on frames that the guest sends to `nic` are sent from its buffers. */
export function lend(nic: Nic, guest: Lender): void {
  const { core } = nic.host;
  core.setU32(guest.txVirtqueue + Virtqueue.lendsTo, core.u32(nic.address + NicLayout.tx));
}

/**
 * The guest is about to be reset: what the card hasn't sent yet is copied to host buffers, which it sends in their place. When
 * this returns the card has no address in the guest's memory. All lcores pause; the card may go on.
 * @param drop where there are too few buffers the card drops all of it, and counts the frames as malformed
 * @throws RangeError where there are too few and they mustn't be dropped; then nothing has changed
 */
export function takeBackLent(nic: Nic, guest: Lender, { drop = false }: { drop?: boolean } = {}): void {
  const { core } = nic.host;
  if (core.u32(guest.txVirtqueue + Virtqueue.lendsTo) !== core.u32(nic.address + NicLayout.tx)) return;
  takeBack(nic, core.u32(guest.txVirtqueue + Virtqueue.id), guest.name, drop);
  core.setU32(guest.txVirtqueue + Virtqueue.lent, 0);
}

/** The same for all descriptors of `owner`. @throws RangeError as it does */
export function takeBack(nic: Nic, owner: number, name: string, drop: boolean): void {
  const { core, pool } = nic.host;
  const queue = core.u32(nic.address + NicLayout.tx);
  core.exports.cleanTxQueue(queue, 0);
  const [ring, mask] = [core.u32(queue + TxQueue.ring), core.u32(queue + TxQueue.mask)];
  const lent: number[] = [];
  for (let at = core.u32(queue + TxQueue.clean); at !== core.u32(queue + TxQueue.next); at = (at + 1) >>> 0) {
    const descriptor = ring + (at & mask) * Packet.SIZE;
    if (core.u16(descriptor + Packet.owner) === owner) lent.push(descriptor);
  }
  const buffers = nic.scratch;
  const slot = (i: number) => buffers + i * Packet.SIZE;
  const room = core.u32(pool + Pool.room);
  const fits = lent.every((descriptor) => core.u16(descriptor + Packet.len) <= room);
  let got = 0;
  // At most a chunk at a time.
  for (let some = 1; fits && some > 0 && got < lent.length; got += some)
    some = core.exports.takeBuffers(pool, 0, slot(got), lent.length - got);
  if (got < lent.length) {
    core.exports.giveBuffers(pool, 0, buffers, got);
    if (!drop) {
      throw new RangeError(
        `${name}: the card has yet to send ${lent.length} of its buffers, expected as many free host buffers to save them in, not ${got}`,
      );
    }
    for (const descriptor of lent) spoil(core, descriptor, buffers);
  } else for (const [i, descriptor] of lent.entries()) save(core, descriptor, slot(i));
}

/** What the descriptor names is copied to the host buffer at `buffer`, which takes its place. */
function save(core: Core, descriptor: number, buffer: number): void {
  const from = core.u32(descriptor + Packet.addr);
  const to = core.u32(buffer + Packet.addr);
  core.bytes.copyWithin(to, from, from + core.u16(descriptor + Packet.len));
  for (const field of [Packet.owner, Packet.index]) core.setU16(descriptor + field, core.u16(buffer + field));
  // Last, and in one store: the card may read it now.
  core.setU32(descriptor + Packet.addr, to);
}

/** A descriptor that the card has yet to send becomes nobody's, of memory at `place`, and asks for what no card can do. */
function spoil(core: Core, descriptor: number, place: number): void {
  core.setU16(descriptor + Packet.room, 0); // TCP segments of no bytes
  core.setU16(descriptor + Packet.flags, core.u16(descriptor + Packet.flags) | PacketFlag.TX_TSO);
  core.setU16(descriptor + Packet.owner, 0);
  core.setU32(descriptor + Packet.addr, place);
}
