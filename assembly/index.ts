/**
 * What the core exports: set-up, and calls that move a whole burst. Objects are named by their address, but
 * where an `id` is said. There is no state here: any instance on the same memory can make any of these calls.
 */
import { Objects } from "./directory";
import { Doorbell } from "./doorbell";
import { External } from "./external";
import { Classifier } from "./flow/classifier";
import { Key } from "./flow/key";
import { Megaflows } from "./flow/megaflow";
import { Gen } from "./generator";
import { Guests } from "./guest";
import { Mappings } from "./iovtee";
import { Ring, RxQueue, Virtqueue } from "./layout";
import { Lcores } from "./lcore";
import { Macs } from "./mactable";
import { Mempool } from "./mempool";
import { Bridges } from "./netmap/bridge";
import { Pipes } from "./netmap/pipe";
import { Card, Pmd } from "./nic";
import { Rings } from "./ring";
import { RteFlows } from "./rteflow";
import { Switching } from "./switch";
import { VdpdkDevices } from "./vdpdk/device";
import { VdpdkRx } from "./vdpdk/rx";
import { Device } from "./virtqueue/device";
import { Wire } from "./wire";

// Set-up. Objects are allocated here and written by the host (src/core, src/roles), at the offsets of layout.ts.

export function init(bytes: u32): void {
  Objects.init(bytes);
}
/** Zeros in the directory; returns the object's id, 0 when there is no memory left. */
export function alloc(kind: u32, size: u32, alignment: u32, parent: u32): u32 {
  return Objects.alloc(kind, size, alignment, parent);
}
export function free(id: u32): void {
  Objects.free(id);
}
/** Static entry: of a switch (value: port) or of a NIC's filters (value: queue | mark << 16). */
export function setMac(table: usize, mac: u64, vlan: u32, value: u32): bool {
  return Macs.set(table, Macs.key(mac, vlan), value);
}
export function removeMac(table: usize, mac: u64, vlan: u32): void {
  Macs.remove(table, Macs.key(mac, vlan));
}
/** A rule of rte_flow from what stands at `from` (`RteFlow`); its id, or a RteFlowRefusal below 0. */
export function createFlow(table: usize, from: usize): i32 {
  return RteFlows.create(table, from, false, 0);
}
/** Whether it could be made: 0, or a RteFlowRefusal below 0. */
export function validateFlow(table: usize, from: usize): i32 {
  return RteFlows.create(table, from, true, 0);
}
export function destroyFlow(table: usize, id: u32): bool {
  return RteFlows.destroy(table, id, 0);
}
/** Takes all rules out of a table, or sets it up. */
export function flushFlows(table: usize): void {
  RteFlows.flush(table);
}
/** A table is whole again after an lcore has died that may have been changing it; nobody else uses it. */
export function repairFlows(table: usize): void {
  RteFlows.repair(table);
}
/** Rings at guest addresses, as a driver that isn't ours sets them up (2.1 "Device Status", DRIVER_OK). */
export function startVirtqueue(
  vq: usize,
  desc: u64,
  driver: u64,
  device: u64,
  size: u32,
  features: u32,
): bool {
  return Device.start(vq, desc, driver, device, size, features);
}
/** The driver resets the queue: from now on no byte is written for it. */
export function stopVirtqueue(vq: usize): void {
  store<u32>(vq, 0, Virtqueue.ready);
}

/** The calling thread's lcore begins with the pollers that it has now. */
export function beginLcore(lcore: usize): void {
  Lcores.begin(lcore);
}

// A burst at a time.

export function pollLcore(lcore: usize): u32 {
  return Lcores.poll(lcore);
}
export function drainLcore(lcore: usize, turns: u32): u32 {
  return Lcores.drain(lcore, turns);
}
/** So many turns of a thread's own lcore, which `begins` or goes on; false when it is told to stop. */
export function runLcore(lcore: usize, turns: u32, begins: bool): bool {
  return Lcores.run(lcore, turns, begins);
}
/** Turns until the card has `wanted` descriptors to send or `patience` turns moved nothing. Returns what it has. */
export function drainTo(lcore: usize, nic: usize, wanted: u32, patience: u32): u32 {
  return Lcores.drainTo(lcore, nic, wanted, patience);
}
/** Rings for a poller (0: for nobody), as whoever has work for it does. */
export function ringFor(poller: usize): void {
  Doorbell.ring(poller);
}
/** After a lookup threw or trapped: drops what the lcore had in hand, counted. False where there was nothing. */
export function abandonBursts(lcore: usize): bool {
  return Lcores.abandon(lcore);
}
/** Calls the lookup at this place of the table with no frames: traps where it isn't one. */
export function tryLookup(at: u32): void {
  External.call(at, 0, 0, 0, 0, 0, 0, 0);
}
export function pollPort(sw: usize, port: usize): u32 {
  return Switching.pollPort(sw, port);
}
export function pollGuest(guest: usize): u32 {
  return Guests.poll(guest);
}
export function generate(gen: usize, nic: usize, n: u32): u32 {
  return Gen.send(gen, nic, n);
}
/** Takes and checks the first `n` descriptors that the NIC is to send, whole frames. Returns the frames. */
export function check(gen: usize, nic: usize, n: u32): u32 {
  return Gen.drain(gen, nic, n);
}
/** `n` frames from the wire: descriptors (addr, len) at `list`. Returns how many the NIC took. */
export function receive(nic: usize, list: usize, n: u32): u32 {
  let taken: u32 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const p = list + i * 16;
    if (Wire.receive(nic, load<u32>(p), load<u16>(p, 4))) taken++;
  }
  Wire.flush(nic);
  return taken;
}
/** Descriptors that the NIC is to send, whole frames, from `TxQueue.head` of `Nic.wire` on. */
export function toTransmit(nic: usize): u32 {
  return Wire.toTransmit(nic);
}
export function transmitted(nic: usize, n: u32): void {
  Card.transmitted(nic, n);
}
/** Buffers from its pool for each free descriptor of a receive queue. */
export function refillRxQueue(queue: usize, lcore: u32): void {
  Pmd.refill(queue, lcore, load<u32>(queue, RxQueue.mask) + 1);
}
/** Buffers that the card has sent go back to their owners. */
export function cleanTxQueue(queue: usize, lcore: u32): void {
  Pmd.txCleanAll(queue, lcore);
}
export function flushNic(nic: usize): void {
  Wire.flush(nic);
}
export function enqueue(ring: usize, from: usize, n: u32): u32 {
  const some = Rings.enqueueBurst(ring, from, n);
  Doorbell.ringIfArmed(ring + Ring.armed, ring + Ring.bell);
  return some;
}
export function dequeue(ring: usize, to: usize, n: u32): u32 {
  return Rings.dequeueBurst(ring, to, n);
}
export function takeBuffers(pool: usize, lcore: u32, to: usize, n: u32): u32 {
  return Mempool.take(pool, lcore, to, n);
}
export function giveBuffers(pool: usize, lcore: u32, from: usize, n: u32): void {
  Mempool.give(pool, lcore, from, n);
}
export function poolAvailable(pool: usize): u32 {
  return Mempool.available(pool);
}
export function poolOutstanding(pool: usize): u32 {
  return Mempool.outstanding(pool);
}

// IOVTee

export function refillMapping(mapping: usize, lcore: u32): void {
  Mappings.refill(mapping, lcore);
}
export function reclaimMapping(mapping: usize, lcore: u32): void {
  Mappings.reclaim(mapping, lcore);
}
export function forgetMapping(mapping: usize): void {
  Mappings.forget(mapping);
}

// netmap

/** Moves what was handed over to the transmit ring of one end of a pipe to the receive ring of the other. Returns the slots. */
export function syncPipe(transmit: usize, receive: usize): u32 {
  return Pipes.txsync(transmit, receive);
}
export function reclaimBridge(bridge: usize): void {
  Bridges.reclaim(bridge);
}

// Flow tables. What was cached must be invalidated before rules change, while no lcore touches the table.

/** A rule (layout: `FlowRule`), written but for its hash and its links. */
export function insertFlowRule(table: usize, rule: usize): void {
  Classifier.insert(table, rule);
}
/** Returns whether its slot in the index is lost until all rules are inserted into an empty index. */
export function removeFlowRule(table: usize, rule: usize): bool {
  return Classifier.remove(table, rule);
}
/** Rules have what their cached flows have counted; none of these is used any more. */
export function invalidateFlows(table: usize): void {
  Megaflows.invalidate(table);
}
/** Rules have what their cached flows have counted. */
export function countFlows(table: usize): void {
  Megaflows.flushAll(table);
}
/** The key (FlowMatch.WITH_OFFSETS bytes) of the first `have` of a frame's `len` bytes. */
export function extractKey(frame: usize, have: u32, len: u32, inPort: u32, key: usize): void {
  Key.extract(frame, have, len, inPort, key);
}

// vDPDK

/** Runs the call in the control page of device `dev`; returns its status, 0 or a negative error number. */
export function callVdpdk(dev: usize): i32 {
  return VdpdkDevices.call(dev);
}
/** Gives the card what the guest has posted to receive into, of a receive queue that has one of the card's. */
export function refillVdpdk(queue: usize): void {
  VdpdkRx.fill(queue);
}
/** The guest is reset: no byte of its memory is written any more. */
export function resetVdpdk(dev: usize): void {
  VdpdkDevices.reset(dev);
}

/** Frame `k` of those that the card makes of the one at its queued descriptor `i`: to `Nic.assembly`. Returns its bytes, or 0. */
export function assemble(nic: usize, i: u32, k: u32): u32 {
  return Card.assemble(nic, i, k);
}
