/** Makes lcores (layout: `Lcore`). The core's `pollLcore`, `drainLcore` and `runLcore` run their pollers. */
import { Kind, Lcore, PATIENT, Poller } from "../../assembly/layout.ts";
import type { Core } from "./core.ts";

/** Empty turns after which a worker's poller is left out until it is rung for: about a quarter of a millisecond. */
const PATIENCE = 10_000;
/** As many for what serves vDPDK devices, as vMux has it. */
const VDPDK_PATIENCE = 100_000;
const VDPDK: readonly Kind[] = [Kind.VDPDK, Kind.VDPDK_RX, Kind.VDPDK_TX];
/** Looks at the lcore's own line between two empty turns; about 30 ns. */
const PAUSE = 32;

/**
 * What an lcore polls: a port of the switch `owner`, a receive queue of a card at such a port, a bridge, a guest, or the
 * rings of its vDPDK device.
 */
export interface Polled {
  readonly kind:
    | Kind.PORT
    | Kind.RX_QUEUE
    | Kind.GUEST
    | Kind.BRIDGE
    | Kind.VDPDK
    | Kind.VDPDK_RX
    | Kind.VDPDK_TX;
  readonly address: number;
  /** 0 for a guest and a bridge. */
  readonly owner: number;
  /** It is run for each interrupt, and not polled. */
  readonly interrupt?: boolean;
  /** Empty turns after which it waits to be rung for, where it isn't the lcore's own patience. */
  readonly patience?: number;
  /** Address of the guest's poller on the same lcore that is run behind this one. */
  guest?: number;
}

/**
 * An lcore without pollers.
 * @param index its number, which says which cache of each pool is its own
 * @returns its address
 * @throws RangeError where the memory is full
 */
export function createLcore(core: Core, index: number): number {
  const { id, address } = core.place(Kind.LCORE, Lcore.SIZE, `lcore ${index}`);
  core.setFields(address, {
    [Lcore.id]: id,
    [Lcore.index]: index,
    [Lcore.count]: 1, // poller 0 is the thread itself
    [Lcore.patience]: index === 0 ? PATIENT : PATIENCE, // the calling thread doesn't sleep
    [Lcore.pause]: PAUSE,
    [Lcore.pollers + Poller.lcore]: address,
  });
  return address;
}

/** Address of an lcore's poller. Number 0 is the thread itself: to ring for it wakes the lcore. */
export function pollerAt(lcore: number, number: number): number {
  return lcore + Lcore.pollers + number * Poller.SIZE;
}

/** From now on the lcore, which isn't running, polls these, in this order: `Lcore.POLLERS_MAX - 1` at most. */
export function setPollers(core: Core, lcore: number, polled: readonly Polled[]): void {
  const sleeps = core.u32(lcore + Lcore.patience) !== PATIENT;
  polled.forEach(({ kind, address, owner, interrupt = false, patience = 0, guest = 0 }, i) => {
    core.setFields(pollerAt(lcore, i + 1), {
      [Poller.kind]: kind,
      [Poller.addr]: address,
      [Poller.owner]: owner,
      [Poller.lcore]: lcore,
      [Poller.idle]: 0,
      [Poller.patience]: sleeps && VDPDK.includes(kind) ? VDPDK_PATIENCE : patience,
      [Poller.interrupt]: interrupt ? 1 : 0,
      [Poller.guest]: guest,
    });
  });
  core.setU32(lcore + Lcore.count, polled.length + 1);
}
