/** Where PVP's roles run: `["nic+host", "guest"]` is two lcores, the card and the switch on one and the guests on the other. */
import { Driver, Feature, Guest as GuestLayout, Mapping, RxQueue, VdpdkQueue } from "../assembly/layout.ts";
import type { Guest, Host, Nic, Role, Vmux, VSwitch } from "./host.ts";

const ROLES = ["nic", "host", "guest"];
/** Empty turns that a frame may take through lcores on other threads before its drop is looked for. */
const PATIENCE = 2000;
/** When nothing has moved for so long, in milliseconds, what is still on its way counts as lost. */
const STALL_MS = 500;

/** Roles by lcore. The one with the card is the calling thread's; guests are dealt to all lcores named "guest". */
export interface Places {
  /** What runs with the card. */
  readonly here: ReadonlySet<string>;
  /** What runs on workers, a list of roles each. */
  readonly workers: readonly (readonly string[])[];
}

/** @throws RangeError for anything but each role once ("guest" as often as wanted), joined by "+" */
export function parseLcores(lcores: readonly string[]): Places {
  const lists = lcores.map((names) => names.split("+"));
  const all = lists.flat();
  const wrong = all.find((name) => !ROLES.includes(name));
  const missing = ROLES.find((name) => !all.includes(name));
  const twice = ["nic", "host"].find((name) => all.indexOf(name) !== all.lastIndexOf(name));
  if (wrong !== undefined || missing !== undefined || twice !== undefined) {
    const why = wrong !== undefined ? `"${wrong}"` : missing ? `no "${missing}"` : `"${twice}" twice`;
    throw new RangeError(
      `lcores: ${why} in ${lcores.join(",")}, expected nic, host and guest, on one lcore where joined by +`,
    );
  }
  const here = lists.findIndex((names) => names.includes("nic"));
  return { here: new Set(lists[here]), workers: lists.filter((_, i) => i !== here) };
}

/** What each worker runs. */
export function rolesOf(places: Places, sw: VSwitch | Vmux | undefined, guests: readonly Guest[]): Role[][] {
  const takers = [...(places.here.has("guest") ? [-1] : []), ...places.workers.keys()].filter(
    (i) => i < 0 || places.workers[i]?.includes("guest"),
  );
  return places.workers.map((names, i) => [
    ...(sw && names.includes("host") ? [sw] : []),
    ...guests.filter((_, g) => takers[g % takers.length] === i),
  ]);
}

/**
 * Handles the `n` frames that the card has received, until it has as many to send, but for those that were dropped.
 * @param dropped counts drops among them, of whatever reason
 * @returns whether all came
 */
export function settle(host: Host, nic: Nic, n: number, dropped: () => number): boolean {
  const { exports } = host.core;
  if (exports.drainTo(host.lcore, nic.address, n, PATIENCE) >= n) return true;
  let sent = 0;
  for (let end = performance.now() + STALL_MS; performance.now() < end; ) {
    const now = exports.drainTo(host.lcore, nic.address, n - dropped(), PATIENCE);
    if (now >= n) return true;
    if (now + dropped() >= n) return false;
    if (now > sent) end = performance.now() + STALL_MS;
    sent = now;
  }
  return false;
}

/**
 * Waits until the guests have posted all their receive buffers again, so that a burst finds what the one before did.
 * @param heads the guests that the card's frames are for, in turn
 * @returns how many frames have room at the card and in the guests
 */
export function room(host: Host, nic: Nic, guests: readonly Guest[], heads: readonly Guest[]): number {
  const { core } = host;
  const words = new Int32Array(core.memory.buffer);
  const at = (address: number) => Atomics.load(words, address >> 2);
  const posted = (driver: number) =>
    at(driver + Driver.freeCount) === 0 &&
    (core.u32(driver + Driver.features) & Feature.PACKED
      ? at(driver + Driver.pending) === 0
      : at(driver + Driver.published) === at(driver + Driver.avail));
  for (const guest of guests) {
    // Over vDPDK a received buffer's place is filled when it is taken.
    if (guest.vdpdk) continue;
    const driver = core.u32(guest.address + GuestLayout.rx);
    for (let end = performance.now() + STALL_MS; !posted(driver); ) {
      if (host.poll() === 0 && performance.now() > end) break;
    }
  }
  host.poll();
  const onCard = (queue: number) => at(queue + RxQueue.posted) - at(queue + RxQueue.next);
  const queueOf = ({ mapping, vdpdk }: Guest) =>
    mapping ? core.u32(mapping + Mapping.queue) : vdpdk ? core.u32(vdpdk.rxQueue + VdpdkQueue.card) : 0;
  const each = heads.map((guest) => (queueOf(guest) ? onCard(queueOf(guest)) : guest.ring));
  const unmapped = heads.every((guest) => queueOf(guest) || (!guest.device.port && !guest.vdpdk))
    ? Number.POSITIVE_INFINITY
    : onCard(nic.rxQueue(0));
  return Math.max(1, Math.min(unmapped, heads.length * Math.min(...each)));
}
