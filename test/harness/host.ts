/** Hosts for tests that go through the public interface, frames for them, and an accountant of their buffers. */
import {
  DescFlag,
  Driver,
  Feature,
  Guest as GuestLayout,
  HEADROOM,
  LCORES_MAX,
  Mapping,
  Nic as NicLayout,
  PackedDesc,
  Packet,
  PacketFlag,
  Pool,
  PoolCache,
  Ring,
  RxQueue,
  SHADOW_LIST,
  SHADOW_REST,
  SplitAvail,
  SplitUsed,
  TxQueue,
  Virtqueue,
} from "../../assembly/layout.ts";
import {
  type Guest,
  type GuestOptions,
  Host,
  type HostOptions,
  type NicOptions,
  parseMac,
  type VSwitch,
} from "../../src/index.ts";
import { BROADCAST, WIRE } from "../frames.ts";

export { BROADCAST, WIRE };

/** What the checker of `FrameGenerator` says where nothing went wrong. */
export const CLEAN = { lost: 0, duplicated: 0, reordered: 0, corrupt: 0 };

export type Rig = Awaited<ReturnType<typeof rig>>;

/** A card and guests on one switch. */
export async function rig(
  options: GuestOptions,
  guests = 1,
  more: HostOptions = {},
  ring = 64,
  card: NicOptions = {},
) {
  const host = await Host.create({ memory: 128 * 2 ** 20, ...more });
  const nic = host.nic({ ring, queues: guests + 1, ...card });
  const made = Array.from({ length: guests }, () => host.guest({ ring: 128, ...options }));
  const sw = host.vswitch({ connect: [nic, ...made] });
  return { host, core: host.core, nic, guest: made[0]!, guests: made, sw };
}

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A frame whose every byte behind the header follows from `number`, which stands in bytes 14 to 17. */
export function frame(to: string, number = 0, length = 60, from = WIRE): Uint8Array {
  const made = Uint8Array.from({ length }, (_, i) => (number * 31 + i * 7 + (i >> 8)) & 0xff);
  const view = new DataView(made.buffer);
  view.setBigUint64(0, parseMac(to), true);
  view.setBigUint64(6, parseMac(from), true);
  view.setUint16(12, 0x88b5); // 802: for local experiments
  view.setUint32(14, number);
  return made;
}
export function numberOf(made: Uint8Array): number {
  return new DataView(made.buffer, made.byteOffset).getUint32(14);
}

/** `n` whole numbers from `first` on. */
export const numbers = (n: number, first = 0): number[] => Array.from({ length: n }, (_, i) => first + i);

/** Copies of the frames that the card sends, until `n` have come or five seconds are over. */
export function collect(r: Pick<Rig, "nic">, n: number): Uint8Array[] {
  const got: Uint8Array[] = [];
  for (const end = performance.now() + 5000; got.length < n && performance.now() < end; ) {
    if (r.nic.wait(100)) got.push(...sent(r));
  }
  return got;
}

/** What the card sends now, as copies. */
export function sent(r: Pick<Rig, "nic">): Uint8Array[] {
  const got: Uint8Array[] = [];
  r.nic.transmit((frames) => got.push(...frames.map((one) => one.slice())));
  return got;
}

/** One burst from each port of a switch, and nothing else polled. Returns the frames moved. */
export function pollSwitch(sw: VSwitch): number {
  const { pollPort } = sw.host.core.exports;
  return sw.ports.reduce((n, port) => n + pollPort(sw.address, port.address), 0);
}

/** Region of a guest, as bytes. */
export function regionOf(guest: Guest): Uint8Array {
  return guest.host.core.bytes.subarray(guest.region, guest.region + guest.regionSize);
}

/** Buffer ids of a queue, from its memory: what the device hasn't taken yet, and what the driver hasn't seen. */
export function idsOf(guest: Guest, vq: number, driver: number): { available: number[]; used: number[] } {
  const { core } = guest.host;
  const at = (p: number) => core.u32(p);
  const size = at(vq + Virtqueue.size);
  const range = (n: number, id: (i: number) => number) => Array.from({ length: n }, (_, i) => id(i));
  if (!isPacked(guest)) {
    const ring = (i: number) => at(vq + Virtqueue.driver) + SplitAvail.ring + 2 * (i & (size - 1));
    const element = (i: number) => at(vq + Virtqueue.device) + SplitUsed.ring + 8 * (i & (size - 1));
    const [avail, used] = [at(vq + Virtqueue.avail), at(driver + Driver.lastUsed)];
    return {
      available: range((at(driver + Driver.avail) - avail) & 0xffff, (i) => core.u16(ring(avail + i))),
      used: range((at(vq + Virtqueue.used) - used) & 0xffff, (i) => at(element(used + i))),
    };
  }
  const descriptor = (i: number) => at(vq + Virtqueue.desc) + PackedDesc.SIZE * (i % size);
  const between = (to: number, toWrap: number, from: number, fromWrap: number) =>
    at(to) - at(from) + (at(toWrap) === at(fromWrap) ? 0 : size);
  const { avail, availWrap, used, usedWrap } = Virtqueue;
  const posted = between(driver + Driver.avail, driver + Driver.availWrap, vq + avail, vq + availWrap);
  const done = between(vq + used, vq + usedWrap, driver + Driver.lastUsed, driver + Driver.usedWrap);
  const lists: { available: number[]; used: number[] } = { available: [], used: [] };
  for (let i = 0; i < posted; i++) {
    // Of a list only the last descriptor names the buffer (2.8.6).
    const d = descriptor(at(vq + avail) + i);
    if (!(core.u16(d + PackedDesc.flags) & DescFlag.NEXT)) lists.available.push(core.u16(d + PackedDesc.id));
  }
  for (let i = 0; i < done; ) {
    const id = core.u16(descriptor(at(driver + Driver.lastUsed) + i) + PackedDesc.id);
    lists.used.push(id);
    // As many descriptors are skipped as the buffer had.
    let s = at(driver + Driver.shadow) + Packet.SIZE * id;
    for (i++; core.u16(s + Packet.flags) & PacketFlag.MORE; i++)
      s = at(driver + Driver.shadow) + Packet.SIZE * core.u16(s + Packet.mark);
  }
  return lists;
}

export function isPacked(guest: Guest): boolean {
  return (guest.host.core.u32(guest.rxVirtqueue + Virtqueue.features) & Feature.PACKED) !== 0;
}

/** Descriptors of a ring from number `from` to `to`, of a table of `mask + 1`. */
function descriptors(r: Pick<Rig, "core">, ring: number, mask: number, from: number, to: number) {
  const { core } = r;
  return Array.from({ length: (to - from) >>> 0 }, (_, i) => {
    const p = ring + ((from + i) & mask) * Packet.SIZE;
    const u16 = (field: number) => core.u16(p + field);
    return {
      addr: core.u32(p),
      len: u16(Packet.len),
      more: (u16(Packet.flags) & PacketFlag.MORE) !== 0,
      owner: u16(Packet.owner),
      index: u16(Packet.index),
    };
  });
}

/** Buffers that the card holds on a receive queue, finished or not. */
export function inCard(r: Pick<Rig, "core">, q: number) {
  const { core } = r;
  const [from, to] = [core.u32(q + RxQueue.next), core.u32(q + RxQueue.posted)];
  return descriptors(r, core.u32(q + RxQueue.ring), core.u32(q + RxQueue.mask), from, to);
}

/** Buffers that the card has to send, or has sent and nobody has taken back. */
export function inTxQueue(r: Pick<Rig, "core" | "nic">) {
  const tx = r.core.u32(r.nic.address + NicLayout.tx);
  const [ring, mask, clean, next] = [TxQueue.ring, TxQueue.mask, TxQueue.clean, TxQueue.next].map((field) =>
    r.core.u32(tx + field),
  );
  return descriptors(r, ring!, mask!, clean!, next!);
}

/** The PRing, oldest first. */
export function pring(r: Pick<Rig, "core">, m: number) {
  const [head, tail] = [r.core.u32(m + Mapping.head), r.core.u32(m + Mapping.tail)];
  return descriptors(r, m + Mapping.pring, r.core.u32(m + Mapping.mask), head, tail);
}

/**
 * The accountant of virtqueues: finds every buffer of the guest by walking whoever can hold one, and complains about each that is
 * at no place or at two. An empty list is what a test expects.
 */
export function misplaced(r: Pick<Rig, "core" | "nic">, guest: Guest): string[] {
  const { core } = r;
  const g = guest.address;
  const first = core.u32(g + GuestLayout.blank + Packet.addr);
  const size = core.u32(g + GuestLayout.bufferSize);
  const total = core.u32(g + GuestLayout.bufferCount);
  const places: string[][] = Array.from({ length: total }, () => []);
  const wrong: string[] = [];
  const put = (index: number, place: string) =>
    places[index]?.push(place) ?? wrong.push(`no buffer ${index}, ${place}`);

  const free = core.u32(g + GuestLayout.free);
  for (let i = 0; i < core.u32(g + GuestLayout.freeCount); i++)
    put(core.u16(free + i * Packet.SIZE + Packet.index), "free");

  for (const [name, driver] of [
    ["receive", core.u32(g + GuestLayout.rx)],
    ["transmit", core.u32(g + GuestLayout.tx)],
  ] as const) {
    const vq = name === "receive" ? guest.rxVirtqueue : guest.txVirtqueue;
    const ids = new Map<number, string[]>();
    for (const [place, list] of Object.entries(idsOf(guest, vq, driver)))
      for (const id of list) ids.set(id, [...(ids.get(id) ?? []), place]);
    let held = 0;
    if (name === "receive" && guest.mapping) {
      const mine = inCard(r, core.u32(guest.mapping + Mapping.queue)).filter(
        (d) => d.owner === guest.mappingId,
      );
      for (const [place, list] of [
        ["PRing", pring(r, guest.mapping)],
        ["card", mine],
      ] as const) {
        held += list.length;
        for (const { index } of list) ids.set(index, [...(ids.get(index) ?? []), place]);
      }
    }
    if (name === "transmit") {
      // Zero-copy transmit: a buffer for each frame, told by its last segment.
      const mine = inTxQueue(r).filter((d) => d.owner === core.u32(vq + Virtqueue.id) && !d.more);
      held += mine.length;
      if (core.u32(vq + Virtqueue.lent) !== mine.length)
        wrong.push(`${core.u32(vq + Virtqueue.lent)} lent, but the card has ${mine.length}`);
      for (const { index } of mine) ids.set(index, [...(ids.get(index) ?? []), "card"]);
    }
    if (core.u32(vq + Virtqueue.taken) !== held)
      wrong.push(`${name}: ${core.u32(vq + Virtqueue.taken)} taken, but ${held} held`);
    // The driver's own memory says which buffer goes by which id.
    const shadow = core.u32(driver + Driver.shadow);
    for (let id = 0; id < core.u32(driver + Driver.size); id++) {
      const s = shadow + id * Packet.SIZE;
      const addr = core.u32(s);
      const where = ids.get(id) ?? [];
      ids.delete(id);
      if (!addr) {
        if (where.length) wrong.push(`${name} id ${id}: not posted, but ${where}`);
        continue;
      }
      const flags = core.u16(s + Packet.flags);
      const rest = (flags & SHADOW_REST) !== 0;
      if (!rest && where.length !== 1) wrong.push(`${name} id ${id}: ${where.join(" and ") || "nowhere"}`);
      const n = flags === SHADOW_LIST ? core.u16(s + Packet.len) : 1;
      const from = flags === SHADOW_LIST ? addr : s;
      for (let k = 0; k < n; k++) put(core.u16(from + k * Packet.SIZE + Packet.index), name);
      if (name === "receive" && addr !== first + core.u16(s + Packet.index) * size)
        wrong.push(`receive id ${id}: at ${addr}`);
    }
    for (const [id, where] of ids) wrong.push(`${name} id ${id}: unknown, but ${where}`);
  }
  places.forEach((list, index) => {
    if (list.length !== 1) wrong.push(`buffer ${index}: ${list.join(" and ") || "nowhere"}`);
  });
  return wrong;
}

/** The same for the host's pool: each buffer is in the pool, or in one of a card's rings, or in a JavaScript port's. */
export function misplacedInPool(r: Pick<Rig, "core" | "host">): string[] {
  const { core, host } = r;
  const { pool } = host;
  const wrong: string[] = [];
  const first = core.u32(pool + Pool.blank + Packet.addr);
  const stride = core.u32(pool + Pool.stride);
  const places: string[][] = Array.from({ length: host.buffers }, () => []);
  const put = (place: string, list: ReturnType<typeof descriptors>) => {
    for (const { addr, owner, index } of list) {
      if (owner !== host.poolId) continue;
      places[index]?.push(place);
      const free = first + index * stride;
      if (
        place.startsWith("pool") ? addr !== free : addr < free - HEADROOM || addr >= free - HEADROOM + stride
      )
        wrong.push(`${place}: buffer ${index} points to ${addr}`);
    }
  };
  for (let lcore = 0; lcore < LCORES_MAX; lcore++) {
    const cache = pool + Pool.caches + lcore * PoolCache.SIZE;
    const list = descriptors(r, cache + PoolCache.slots, -1, 0, core.u32(cache + PoolCache.length));
    if (list.some(({ owner }) => owner !== host.poolId)) wrong.push("pool cache: another's buffer");
    put("pool cache", list);
  }
  const inRing = (at: number) => {
    const [mask, from, to] = [Ring.mask, Ring.tail, Ring.head].map((f) => core.u32(at + f));
    return descriptors(r, at + Ring.slots, mask!, from!, to!);
  };
  const list = inRing(core.u32(pool + Pool.ring));
  if (list.some(({ owner }) => owner !== host.poolId)) wrong.push("pool ring: another's buffer");
  put("pool ring", list);
  for (const nic of host.nics) {
    for (let i = 0; i < core.u32(nic.address + NicLayout.rxQueues); i++) {
      const queue = nic.rxQueue(i);
      put(`receive queue ${i} of ${nic.name}`, inCard(r, queue));
      const brought = core.u32(queue + RxQueue.brought);
      if (brought) put(`what was brought to receive queue ${i}`, inRing(brought));
    }
    put(`transmit queue of ${nic.name}`, inTxQueue({ core, nic }));
  }
  for (const port of host.ports)
    for (const at of [port.toHost, port.fromHost]) put(`ring of ${port.name}`, inRing(at));
  for (const sw of host.switches)
    if (sw.hasFlows) put(`controller of ${sw.name}`, inRing(sw.flows.controller));
  places.forEach((where, index) => {
    if (where.length !== 1) wrong.push(`host buffer ${index}: ${where.join(" and ") || "nowhere"}`);
  });
  return wrong;
}
