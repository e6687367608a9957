/**
 * The accountant of all attachments: finds every buffer of a guest by walking whoever can hold one, and complains about each
 * that is at no place or at two. When nobody runs; an empty list is what a test expects.
 */
import {
  Driver,
  DriverKind,
  Guest as GuestLayout,
  Kring,
  LCORES_MAX,
  NETMAP_FIRST,
  NetmapDriver,
  NetmapRing,
  NetmapSlot,
  Nic as NicLayout,
  OWNED_BY_GUEST,
  Packet,
  Pool,
  PoolCache,
  Ring,
  RxQueue,
  TxQueue,
  VdpdkDriver,
} from "../../assembly/layout.ts";
import type { Guest, Host, NetmapBridge, Nic } from "../../src/index.ts";
import { misplaced as misplacedInVirtqueues } from "./host.ts";

/** @param nic the card that the guest is behind */
export function misplaced(host: Host, nic: Nic, guest: Guest): string[] {
  if (guest.virtio) return misplacedInVirtqueues({ core: host.core, nic }, guest);
  const { core } = host;
  const at = (field: number) => core.u32(guest.address + field);
  const places: string[][] = Array.from({ length: at(GuestLayout.bufferCount) }, () => []);
  const wrong: string[] = [];
  const put = (place: string, list: readonly number[]) => {
    for (const index of list) places[index]?.push(place) ?? wrong.push(`no buffer ${index}, ${place}`);
  };
  put("guest", indices(host, at(GuestLayout.free), -1, 0, at(GuestLayout.freeCount)));
  const kind = at(GuestLayout.driver);
  for (const [name, driver] of [
    ["receive ring", guest.device.rx],
    ["transmit ring", guest.device.tx],
  ] as const) {
    if (kind === DriverKind.NETMAP) put(name, inNetmapRing(host, driver));
    else if (kind === DriverKind.NATIVE) put(name, inNativeRing(host, driver));
    else put(name, inVdpdkRing(host, driver));
  }
  const bridge = host.bridges.find((one) => one.guest === guest);
  if (bridge) {
    wrong.push(...wronglyOwned(host, guest, places));
    for (const [place, list] of inBridge(host, bridge)) put(place, list);
  }
  places.forEach((list, index) => {
    if (list.length !== 1) wrong.push(`buffer ${index}: ${list.join(" and ") || "nowhere"}`);
  });
  return wrong;
}

/** Numbers of the buffers in a list of packet descriptors, of those of `owner` alone where one is named. */
export function indices(
  host: Host,
  list: number,
  mask: number,
  from: number,
  to: number,
  owner?: number,
): number[] {
  const { core } = host;
  const got: number[] = [];
  for (let i = from; i !== to; i = (i + 1) >>> 0) {
    const p = list + ((i & mask) >>> 0) * Packet.SIZE;
    if (owner === undefined || core.u16(p + Packet.owner) === owner) got.push(core.u16(p + Packet.index));
  }
  return got;
}

/** Those in slots: all but the ones that the driver has taken the buffer out of. */
function inNetmapRing({ core }: Host, driver: number): number[] {
  const [ring, size, cur, free] = [
    NetmapDriver.ring,
    NetmapDriver.size,
    NetmapDriver.cur,
    NetmapDriver.freeCount,
  ].map((field) => core.u32(driver + field)) as [number, number, number, number];
  return Array.from(
    { length: size - free },
    (_, i) => core.u32(ring + NetmapRing.slots + ((cur + i) % size) * NetmapSlot.SIZE) - NETMAP_FIRST,
  );
}

/** By the driver's own note of the descriptors that the card has. */
function inNativeRing(host: Host, driver: number): number[] {
  const [shadow, size, used, avail] = [Driver.shadow, Driver.size, Driver.lastUsed, Driver.avail].map(
    (field) => host.core.u32(driver + field),
  ) as [number, number, number, number];
  return indices(host, shadow, size - 1, used, avail);
}

/** By the driver's own descriptors of what the guest has posted and not taken back. */
function inVdpdkRing({ core }: Host, driver: number): number[] {
  const [shadow, mask, done, next] = [
    VdpdkDriver.shadow,
    VdpdkDriver.mask,
    VdpdkDriver.done,
    VdpdkDriver.next,
  ].map((field) => core.u32(driver + field)) as [number, number, number, number];
  return Array.from({ length: (next - done) >>> 0 }, (_, i) =>
    core.u16(shadow + ((done + i) & mask) * Packet.SIZE + Packet.index),
  );
}

/** Of a pipe's memory it is noted whose a buffer is: the guest's are those that were found at `places`, and no others. */
function wronglyOwned({ core }: Host, guest: Guest, places: readonly string[][]): string[] {
  const owners = core.u32((guest.netmap?.rxKring ?? 0) + Kring.owners);
  return places.flatMap((list, index) => {
    const owner = core.bytes[owners + index];
    return (owner === OWNED_BY_GUEST) === list.length > 0
      ? []
      : [`buffer ${index}: noted as ${owner}'s, but ${list.join(" and ") || "with nobody of the guest's"}`];
  });
}

/** Those that are the host's, in the pool or in the card. */
function inBridge(host: Host, { nic, pool, poolId, queue }: NetmapBridge): [string, number[]][] {
  const { core } = host;
  const caches = Array.from({ length: LCORES_MAX }, (_, lcore) => {
    const cache = pool + Pool.caches + lcore * PoolCache.SIZE;
    return indices(host, cache + PoolCache.slots, -1, 0, core.u32(cache + PoolCache.length));
  });
  const ring = core.u32(pool + Pool.ring);
  const tx = core.u32(nic.address + NicLayout.tx);
  const at = (address: number) => core.u32(address);
  return [
    ["pool cache", caches.flat()],
    [
      "pool",
      indices(host, ring + Ring.slots, at(ring + Ring.mask), at(ring + Ring.tail), at(ring + Ring.head)),
    ],
    [
      "receive queue",
      indices(
        host,
        at(queue + RxQueue.ring),
        at(queue + RxQueue.mask),
        at(queue + RxQueue.next),
        at(queue + RxQueue.posted),
        poolId,
      ),
    ],
    [
      "transmit queue",
      indices(
        host,
        at(tx + TxQueue.ring),
        at(tx + TxQueue.mask),
        at(tx + TxQueue.clean),
        at(tx + TxQueue.next),
        poolId,
      ),
    ],
  ];
}
