// biome-ignore-all lint/style/useImportType: AssemblyScript has no type imports
/**
 * The core's inner functions for Vitest: strings and typed arrays go both ways (as-bind).
 * A build of its own, with AssemblyScript's runtime and its own memory. Statics and heap begin at 16 MiB,
 * so everything below is free for the core's own structures.
 */
import { Checksum } from "../../assembly/checksum";
import { Copy } from "../../assembly/copy";
import { Toeplitz } from "../../assembly/hash";
import { Macs } from "../../assembly/mactable";
import { Mempool } from "../../assembly/mempool";
import { Parse } from "../../assembly/parse";
import { Rings } from "../../assembly/ring";
import { RteFlows } from "../../assembly/rteflow";
import { Device } from "../../assembly/virtqueue/device";
import { PackedDevice } from "../../assembly/virtqueue/packed-device";
import { PackedDriver } from "../../assembly/virtqueue/packed-driver";
import { SplitDevice } from "../../assembly/virtqueue/split-device";
import { SplitDriver } from "../../assembly/virtqueue/split-driver";

/** Sum of all bytes, modulo 2^32. */
export function sum(bytes: Uint8Array): u32 {
  let total: u32 = 0;
  for (let i = 0; i < bytes.length; i++) total += bytes[i];
  return total;
}

/** The number in words that a test can read: "17 = 0x11". */
export function describe(n: u32): string {
  return n.toString() + " = 0x" + n.toString(16);
}

/** What was passed, backwards. */
export function reversed(bytes: Uint8Array): Uint8Array {
  const out = new Uint8Array(bytes.length);
  for (let i = 0; i < bytes.length; i++) out[i] = bytes[bytes.length - 1 - i];
  return out;
}

/** Length of a string in UTF-16 code units. */
export function lengthOf(text: string): i32 {
  return text.length;
}

/** Addresses of the core are plain numbers, as they are in the shipped builds. */
export function peek(address: usize): u32 {
  return load<u32>(address);
}

// Virtqueues: the device's side and the driver's, in either format.

export function deviceStart(vq: usize, desc: u64, driver: u64, device: u64, size: u32, features: u32): bool {
  return Device.start(vq, desc, driver, device, size, features);
}
export function take(packed: bool, vq: usize, to: usize, max: u32): u32 {
  if (packed) return changetype<PackedDevice>(0).take(vq, to, max);
  return changetype<SplitDevice>(0).take(vq, to, max);
}
export function takeChain(packed: bool, vq: usize, to: usize, writable: bool): i32 {
  if (packed) return changetype<PackedDevice>(0).takeChain(vq, to, writable);
  return changetype<SplitDevice>(0).takeChain(vq, to, writable);
}
export function untake(packed: bool, vq: usize, from: usize, n: u32): void {
  if (packed) changetype<PackedDevice>(0).untake(vq, from, n);
  else changetype<SplitDevice>(0).untake(vq, from, n);
}
export function complete(packed: bool, vq: usize, from: usize, n: u32, written: bool): void {
  if (packed) changetype<PackedDevice>(0).complete(vq, from, n, written);
  else changetype<SplitDevice>(0).complete(vq, from, n, written);
}
export function devicePublish(packed: bool, vq: usize): bool {
  return packed ? changetype<PackedDevice>(0).publish(vq) : changetype<SplitDevice>(0).publish(vq);
}

export function post(packed: bool, drv: usize, from: usize, n: u32, writable: bool): u32 {
  if (packed) return changetype<PackedDriver>(0).post(drv, from, n, writable);
  return changetype<SplitDriver>(0).post(drv, from, n, writable);
}
export function driverPublish(packed: bool, drv: usize): bool {
  return packed ? changetype<PackedDriver>(0).publish(drv) : changetype<SplitDriver>(0).publish(drv);
}
export function used(packed: bool, drv: usize, to: usize, max: u32): u32 {
  if (packed) return changetype<PackedDriver>(0).used(drv, to, max);
  return changetype<SplitDriver>(0).used(drv, to, max);
}

// Rings and pools.

export function ringCount(ring: usize): u32 {
  return Rings.count(ring);
}
export function enqueue(ring: usize, from: usize, n: u32, bulk: bool): u32 {
  return bulk ? Rings.enqueueBulk(ring, from, n) : Rings.enqueueBurst(ring, from, n);
}
export function dequeue(ring: usize, to: usize, n: u32, bulk: bool): u32 {
  return bulk ? Rings.dequeueBulk(ring, to, n) : Rings.dequeueBurst(ring, to, n);
}

export function poolTake(pool: usize, lcore: u32, to: usize, n: u32): u32 {
  return Mempool.take(pool, lcore, to, n);
}
export function poolGive(pool: usize, lcore: u32, from: usize, n: u32): void {
  Mempool.give(pool, lcore, from, n);
}
export function poolOutstanding(pool: usize): u32 {
  return Mempool.outstanding(pool);
}
export function poolAvailable(pool: usize): u32 {
  return Mempool.available(pool);
}

// The MAC table; keys are made of the MAC's 48 bits and the VLAN.

export function macsBucket(table: usize, mac: u64, vlan: u32): usize {
  return Macs.bucket(table, Macs.key(mac, vlan));
}
export function macsFind(table: usize, mac: u64, vlan: u32): usize {
  return Macs.find(table, Macs.key(mac, vlan));
}
export function macsInsert(table: usize, mac: u64, vlan: u32, value: u32, stamp: u32): usize {
  return Macs.insert(table, Macs.key(mac, vlan), value, stamp);
}
export function macsSet(table: usize, mac: u64, vlan: u32, value: u32): bool {
  return Macs.set(table, Macs.key(mac, vlan), value);
}
export function macsRemove(table: usize, mac: u64, vlan: u32): void {
  Macs.remove(table, Macs.key(mac, vlan));
}

// What is in a frame.

export function etherType(frame: usize, len: u32): u32 {
  return Parse.etherType(frame, len);
}
export function mac(p: usize): u64 {
  return Parse.mac(p);
}
export function flow(frame: usize, len: u32, key: usize): bool {
  return Parse.flow(frame, len, key);
}
export function rteFlowKey(frame: usize, len: u32, key: usize): void {
  RteFlows.key(frame, len, key);
}
export function checksum(p: usize, n: u32): u32 {
  return Checksum.of(p, n);
}
export function checksumAdd(sum: u64, p: usize, n: u32): u64 {
  return Checksum.add(sum, p, n);
}
export function checksumFinish(sum: u64): u32 {
  return Checksum.finish(sum);
}
export function checksumPseudo(from: usize, to: usize, bytes: u32, protocol: u32, length: u32): u64 {
  return Checksum.pseudo(from, to, bytes, protocol, length);
}
export function checksumPut(p: usize, value: u32): void {
  Checksum.put(p, value);
}
export function toeplitz(key: usize, p: usize, n: u32): u32 {
  return Toeplitz.hash(key, p, n);
}
export function toeplitzFlow(key: usize, flow: usize, scratch: usize): u32 {
  return Toeplitz.flow(key, flow, scratch);
}

// Copying. `header`: address of the 16 bytes that a frame is to begin with.

export function copyBytes(to: usize, from: usize, n: u32): void {
  Copy.bytes(to, from, n);
}
export function copyFrame(to: usize, from: usize, n: u32, header: usize): void {
  Copy.frame(to, from, n, v128.load(header));
}
export function copyFrames(to: usize, skip: u32, from: usize, n: u32, headers: usize): u32 {
  return Copy.frames(to, skip, from, n, headers);
}
export function copyHeader(p: usize, segments: u32, to: usize): void {
  v128.store(to, Copy.header(p, segments));
}
export function scatter(to: usize, skip: u32, from: usize, bytes: u32, header: usize): u32 {
  return Copy.scatter(to, skip, from, bytes, v128.load(header));
}
