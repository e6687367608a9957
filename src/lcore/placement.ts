/** Which lcore polls what, and for which poller whoever has work for it rings. */
import {
  ADAPTIVE_PATIENCE,
  Bridge,
  Kind,
  Lcore,
  Mapping,
  Nic as NicLayout,
  NicMode,
  Ring,
  RxQueue,
  Switch as SwitchLayout,
  TxQueue,
  VdpdkDriver,
  VdpdkQueue,
  Vdpdk as VmuxLayout,
} from "../../assembly/layout.ts";
import type { VdpdkDevice } from "../attach/vdpdk.ts";
import type { Core } from "../core/core.ts";
import { type Polled, pollerAt, setPollers } from "../core/lcore.ts";
import { NetmapPort } from "../ports/netmap-port.ts";
import type { NetmapBridge } from "../roles/bridge.ts";
import { Guest } from "../roles/guest.ts";
import { Nic } from "../roles/nic.ts";
import type { Vmux } from "../roles/vmux.ts";
import type { VSwitch } from "../roles/vswitch.ts";

/** What an lcore can run: a switch with its ports, what serves vDPDK devices, or a guest. */
export type Role = VSwitch | Vmux | Guest;

/** What there is to place. */
export interface Placeable {
  readonly core: Core;
  readonly nics: readonly Nic[];
  readonly switches: readonly VSwitch[];
  readonly guests: readonly Guest[];
  readonly bridges: readonly NetmapBridge[];
  readonly vmuxes: readonly Vmux[];
}

/**
 * Gives each lcore its pollers, when none of them runs.
 * @param lcores their addresses; number 0 is the calling thread's, and the one that is woken when a card has frames to
 *   send
 * @param placed number of the lcore that runs a switch or a guest; 0 for those that aren't in it
 * @throws RangeError where one gets more than it can poll
 */
export function place(
  { core, nics, switches, guests, bridges, vmuxes }: Placeable,
  lcores: readonly number[],
  placed: ReadonlyMap<Role, number>,
): void {
  const polled: Polled[][] = lcores.map(() => []);
  /** @returns the poller's address, for whoever rings for it: so there must be one */
  const poll = (
    lcore: number,
    kind: Polled["kind"],
    address: number,
    owner = 0,
    how: Pick<Polled, "interrupt" | "patience"> = {},
  ): number => {
    const list = polled[lcore] as Polled[];
    if (list.length === Lcore.POLLERS_MAX - 1) {
      throw new RangeError(
        `lcore${lcore}: more than ${list.length} ports, guests and receive queues, expected other lcores for some`,
      );
    }
    return pollerAt(lcores[lcore] as number, list.push({ kind, address, owner, ...how }));
  };
  for (const nic of nics) {
    core.setU32(core.u32(nic.address + NicLayout.tx) + TxQueue.bell, pollerAt(lcores[0] as number, 0));
  }
  for (const guest of guests) {
    if (guest.device.running) {
      guest.device.ringFor?.(poll(placed.get(guest) ?? 0, Kind.GUEST, guest.address));
    }
  }
  for (const sw of switches) {
    const lcore = placed.get(sw) ?? 0;
    core.setU32(sw.address + SwitchLayout.lcore, lcore);
    const pollQueue = (queue: number): number => {
      const poller = poll(lcore, Kind.RX_QUEUE, queue, sw.address, served(core.u32(queue + RxQueue.mode)));
      core.setU32(queue + RxQueue.bell, poller);
      return poller;
    };
    // A turn takes frames from the cards to the guests and on to the switch again: from what isn't one guest's first,
    // then guest by guest, so that a frame is in the cache until the guest has done with it.
    const sorted = new Set(sw.sorted.values());
    for (const { address, of } of sw.ports) {
      if (!(of instanceof Nic)) continue;
      for (let i = 0; i < core.u32(of.address + NicLayout.rxQueues); i++) {
        core.setU32(of.rxQueue(i) + RxQueue.port, address);
        const queue = of.rxQueue(i);
        if (core.u32(queue + RxQueue.mapping) || core.u32(queue + RxQueue.bridge)) continue;
        if (!sorted.has(queue)) pollQueue(queue);
      }
    }
    for (const { address, of } of sw.ports) {
      if (of instanceof Nic) continue;
      const mapped = of instanceof Guest && of.mapping ? core.u32(of.mapping + Mapping.queue) : 0;
      const queue = mapped ? pollQueue(mapped) : 0;
      const own = of instanceof Guest ? sw.sorted.get(of) : undefined;
      if (own) pollQueue(own);
      const handler = own ? (polled[lcore] as Polled[]).at(-1) : undefined;
      const how = { interrupt: of instanceof Guest && (of.attach === "kernel" || own !== undefined) };
      // One that is stopped doesn't run: what is left in its queues is nobody's.
      const guest = sw.isRunning(of) ? poll(placed.get(of) ?? 0, Kind.GUEST, of.address, 0, how) : 0;
      if (handler?.interrupt && guest && (placed.get(of as Guest) ?? 0) === lcore) handler.guest = guest;
      const port = poll(lcore, Kind.PORT, address, sw.address, how);
      if (of instanceof NetmapPort) {
        of.bell = port;
        if (of.stack) core.setU32(of.stack.toHost + Ring.bell, port);
        continue;
      }
      if (!(of instanceof Guest)) {
        core.setU32(of.toHost + Ring.bell, port);
        continue;
      }
      if (of.vdpdk) {
        const { rx, tx, rxQueue, txQueue } = of.vdpdk;
        for (const driver of [rx, tx]) core.setU32(driver + VdpdkDriver.bell, port);
        for (const queue of [rxQueue, txQueue]) core.setU32(queue + VdpdkQueue.bell, guest);
        continue;
      }
      // A mapped queue that is short of the guest's buffers waits for them.
      of.device.setBells?.(guest, queue, port);
    }
  }
  for (const bridge of bridges) {
    // It sends on the card, as the card's switch does: both are on one lcore.
    const sw = switches.find((one) => one.indexOf(bridge.nic) >= 0);
    const lcore = (sw && placed.get(sw)) ?? 0;
    core.setU32(bridge.address + Bridge.lcore, lcore);
    if (!bridge.running) continue;
    const poller = poll(lcore, Kind.BRIDGE, bridge.address);
    core.setU32(bridge.queue + RxQueue.bell, poller);
    const guest = poll(placed.get(bridge.guest) ?? 0, Kind.GUEST, bridge.guest.address);
    bridge.guest.device.setBells?.(guest, poller, poller);
  }
  for (const vmux of vmuxes) {
    const lcore = placed.get(vmux) ?? 0;
    core.setU32(vmux.address + VmuxLayout.lcore, lcore);
    const shared = poll(lcore, Kind.VDPDK, vmux.address);
    core.setU32(core.u32(vmux.nic.address + NicLayout.tx) + TxQueue.doneBell, shared);
    core.setU32(core.u32(vmux.address + VmuxLayout.shared) + RxQueue.bell, shared);
    for (const guest of vmux.guests) {
      // One that is stopped isn't served: no byte of its memory is written.
      if (!vmux.isRunning(guest)) continue;
      const { rx, tx, rxQueue, txQueue } = guest.vdpdk as VdpdkDevice;
      const own = core.u32(rxQueue + VdpdkQueue.card);
      const receiver = own ? poll(lcore, Kind.VDPDK_RX, rxQueue, vmux.address) : 0;
      if (own) core.setU32(own + RxQueue.bell, receiver);
      // Before the guest, which may need the buffers that have been sent.
      const sender = poll(lcore, Kind.VDPDK_TX, txQueue, vmux.address);
      const application = poll(placed.get(guest) ?? 0, Kind.GUEST, guest.address);
      core.setU32(rx + VdpdkDriver.bell, receiver);
      core.setU32(tx + VdpdkDriver.bell, sender);
      for (const queue of [rxQueue, txQueue]) core.setU32(queue + VdpdkQueue.bell, application);
    }
  }
  lcores.forEach((lcore, i) => {
    setPollers(core, lcore, polled[i] as Polled[]);
  });
  // The workers begin when they go on.
  core.exports.beginLcore(lcores[0] as number);
}

/** How an lcore serves a card's receive queue of this mode. */
function served(mode: NicMode): Pick<Polled, "interrupt" | "patience"> {
  if (mode === NicMode.INTERRUPT) return { interrupt: true };
  return mode === NicMode.ADAPTIVE ? { patience: ADAPTIVE_PATIENCE } : {};
}
