/**
 * After an lcore has died in the middle of its work, with all others stopped: host buffers that it held are found, and what
 * it was writing is set up anew. It can have died between any two writes, so of what only it wrote nothing is believed
 * that isn't published by one store: ring indices, and the card's DONE.
 */
import {
  Directory,
  Entry,
  Kind,
  MacEntry,
  MacTable,
  Nic as NicLayout,
  Packet,
  PacketFlag,
  Port as PortLayout,
  Ring,
  RxQueue,
  Switch as SwitchLayout,
  TxQueue,
  VdpdkQueue,
} from "../../assembly/layout.ts";
import type { Core } from "../core/core.ts";
import { refillPool } from "../core/pool.ts";
import type { FramePort } from "../ports/frame-port.ts";
import type { NetmapBridge } from "../roles/bridge.ts";
import type { Guest } from "../roles/guest.ts";
import type { Nic } from "../roles/nic.ts";
import type { Vmux } from "../roles/vmux.ts";
import type { VSwitch } from "../roles/vswitch.ts";

/** What has to be gone through. */
export interface Recovered {
  readonly core: Core;
  readonly poolId: number;
  readonly pool: number;
  readonly buffers: number;
  readonly nics: readonly Nic[];
  readonly ports: readonly FramePort[];
  readonly switches: readonly VSwitch[];
  readonly bridges: readonly NetmapBridge[];
  readonly vmuxes: readonly Vmux[];
}

/**
 * Makes everything usable that the dead lcore ran: its switches lose what was on the way in them and what they have
 * learned; its guests, and those of its switches, are restarted as by a reset of their devices (virtio 1.2, 2.4.1).
 * @returns host buffers that nobody held any more and that are free again, and the names of the restarted guests
 */
export function recover(
  host: Recovered,
  switches: readonly VSwitch[],
  vmuxes: readonly Vmux[],
  guests: readonly Guest[],
): { buffers: number; guests: string[] } {
  const { core, pool } = host;
  // Cards whose transmit ring one of the dead was at: the others' is as who sends on it has left it.
  const harmed = (nic: Nic) =>
    switches.some((sw) => sw.indexOf(nic) >= 0) || vmuxes.some((vmux) => vmux.nic === nic);
  // A bridge runs with its card's switch; also one that is stopped has buffers that the card sends.
  const bridges = host.bridges.filter(({ nic, guest }) => guests.includes(guest) || harmed(nic));
  const ran = new Set(bridges.filter(({ running }) => running));
  for (const bridge of bridges) bridge.abandon();
  const heldOf = new Map<number, Set<number>>();
  for (const id of [host.poolId, ...bridges.map((bridge) => bridge.poolId)]) heldOf.set(id, new Set());
  const held = heldOf.get(host.poolId) as Set<number>;
  const hold = (descriptor: number) =>
    heldOf.get(core.u16(descriptor + Packet.owner))?.add(core.u16(descriptor + Packet.index));
  /** What the card has sent of a guest's own buffers goes back to it. */
  const sent = (descriptor: number) => {
    const queue = vdpdkQueue(core, core.u16(descriptor + Packet.owner));
    if (queue) core.setU32(queue + VdpdkQueue.freed, core.u32(queue + VdpdkQueue.freed) + 1);
  };
  for (const nic of host.nics) {
    nic.flow.repair();
    holdReceived(core, nic, hold);
    holdSent(core, nic, harmed(nic), hold, sent);
  }
  for (const port of host.ports) for (const ring of [port.toHost, port.fromHost]) holdRing(core, ring, hold);
  for (const sw of host.switches) if (sw.hasFlows) holdRing(core, sw.flows.controller, hold);
  const buffers = core.exports.poolOutstanding(pool) - held.size;
  refillPool(core, pool, held);
  for (const sw of switches) resetSwitch(core, sw);
  for (const bridge of bridges) {
    bridge.reset(heldOf.get(bridge.poolId) as Set<number>);
    if (ran.has(bridge)) bridge.start();
  }
  const restarted = new Map<Guest, VSwitch>();
  for (const sw of host.switches) {
    for (const { of } of sw.ports) {
      if (sw.isRunning(of) && (switches.includes(sw) || guests.includes(of))) restarted.set(of, sw);
    }
  }
  for (const [guest, sw] of restarted) sw.restart(guest);
  const served: Guest[] = [];
  for (const vmux of host.vmuxes) {
    for (const guest of vmux.guests) {
      if (!vmux.isRunning(guest) || !(vmuxes.includes(vmux) || guests.includes(guest))) continue;
      vmux.stop(guest);
      vmux.start(guest);
      served.push(guest);
    }
  }
  // Those at no switch.
  const alone = guests.filter((guest) => guest.device.running);
  for (const guest of alone) guest.reset();
  const all = [...[...ran].map(({ guest }) => guest), ...restarted.keys(), ...served, ...alone];
  return { buffers, guests: all.map((guest) => guest.name) };
}

/** Descriptors that the card has to receive into, or that it has filled and nobody has taken. */
function holdReceived(core: Core, nic: Nic, hold: (descriptor: number) => void): void {
  for (let i = 0; i < core.u32(nic.address + NicLayout.rxQueues); i++) {
    const queue = nic.rxQueue(i);
    const posted = core.u32(queue + RxQueue.posted);
    for (let at = core.u32(queue + RxQueue.next); at !== posted; at = (at + 1) >>> 0) {
      hold(slot(core, queue + RxQueue.ring, queue + RxQueue.mask, at));
    }
    core.setU32(queue + RxQueue.tail, posted);
    const brought = core.u32(queue + RxQueue.brought);
    if (brought) holdRing(core, brought, hold);
  }
}

/**
 * Descriptors that the card has to send. What it has sent of a ring that was `harmed` is free, whether it was being freed or
 * not, and what it hasn't been told of yet it is told now; of any other who sends on it will give all back to their owners.
 */
function holdSent(
  core: Core,
  nic: Nic,
  harmed: boolean,
  hold: (descriptor: number) => void,
  sent: (descriptor: number) => void,
): void {
  const queue = core.u32(nic.address + NicLayout.tx);
  const next = core.u32(queue + TxQueue.next);
  let clean = core.u32(queue + TxQueue.clean);
  for (let at = clean; at !== next; at = (at + 1) >>> 0) {
    const descriptor = slot(core, queue + TxQueue.ring, queue + TxQueue.mask, at);
    if (harmed && core.u16(descriptor + Packet.flags) & PacketFlag.DONE) {
      clean = (at + 1) >>> 0;
      sent(descriptor);
    } else hold(descriptor);
  }
  core.setU32(queue + TxQueue.clean, clean);
  core.setU32(queue + TxQueue.tail, next);
}

/** Address of the transmit queue of a vDPDK device with directory id `id`; 0 where it is none. */
function vdpdkQueue(core: Core, id: number): number {
  const entry = Directory.ADDRESS + Directory.entries + id * Entry.SIZE;
  return core.u32(entry + Entry.kind) === Kind.VDPDK_TX ? core.u32(entry + Entry.addr) : 0;
}

function holdRing(core: Core, ring: number, hold: (descriptor: number) => void): void {
  const head = core.u32(ring + Ring.head);
  const mask = core.u32(ring + Ring.mask);
  for (let at = core.u32(ring + Ring.tail); at !== head; at = (at + 1) >>> 0) {
    hold(ring + Ring.slots + (at & mask) * Packet.SIZE);
  }
}

/** Address of descriptor `at` of the ring whose address and mask stand at `ring` and `mask`. */
function slot(core: Core, ring: number, mask: number, at: number): number {
  return core.u32(ring) + (at & core.u32(mask)) * Packet.SIZE;
}

/** Empties the lists of the burst that it was at, and forgets what it has learned: an entry may be half written. */
function resetSwitch(core: Core, sw: VSwitch): void {
  const lists = sw.address + SwitchLayout.lists;
  core.bytes.fill(0xff, lists, lists + 4 * SwitchLayout.PORTS_MAX);
  core.setU32(sw.address + SwitchLayout.pending, 0);
  for (const { address } of sw.ports) core.setU64(address + PortLayout.lastKey, 0n);
  if (sw.hasFlows) sw.flows.reset();
  const table = core.u32(sw.address + SwitchLayout.macs);
  const entries = core.u32(table + MacTable.buckets) * MacTable.WAYS;
  let used = 0;
  for (let i = 0; i < entries; i++) {
    const entry = table + MacTable.entries + i * MacEntry.SIZE;
    if (core.u32(entry + MacEntry.stamp) === MacEntry.STATIC) used++;
    else core.bytes.fill(0, entry, entry + MacEntry.SIZE);
  }
  core.setU32(table + MacTable.used, used);
}
