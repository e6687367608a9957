/** Which lcore polls what, and for which poller whoever has work for it rings. */
import {
  Driver,
  Guest as GuestLayout,
  Kind,
  Lcore,
  Mapping,
  Nic as NicLayout,
  Ring,
  RxQueue,
  Switch as SwitchLayout,
  TxQueue,
  VdpdkDriver,
  VdpdkQueue,
  Virtqueue,
  Vdpdk as VmuxLayout,
} from "../../assembly/layout.ts";
import type { VdpdkDevice } from "../attach/vdpdk.ts";
import type { Core } from "../core/core.ts";
import { type Polled, pollerAt, setPollers } from "../core/lcore.ts";
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
  { core, nics, switches, guests, vmuxes }: Placeable,
  lcores: readonly number[],
  placed: ReadonlyMap<Role, number>,
): void {
  const polled: Polled[][] = lcores.map(() => []);
  /** @returns the poller's address, for whoever rings for it: so there must be one */
  const poll = (lcore: number, kind: Polled["kind"], address: number, owner = 0): number => {
    const list = polled[lcore] as Polled[];
    if (list.length === Lcore.POLLERS_MAX - 1) {
      throw new RangeError(
        `lcore${lcore}: more than ${list.length} ports, guests and receive queues, expected other lcores for some`,
      );
    }
    return pollerAt(lcores[lcore] as number, list.push({ kind, address, owner }));
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
      const poller = poll(lcore, Kind.RX_QUEUE, queue, sw.address);
      core.setU32(queue + RxQueue.bell, poller);
      return poller;
    };
    // A turn takes frames from the cards to the guests and on to the switch again: from what isn't one guest's first,
    // then guest by guest, so that a frame is in the cache until the guest has done with it.
    for (const { address, of } of sw.ports) {
      if (!(of instanceof Nic)) continue;
      for (let i = 0; i < core.u32(of.address + NicLayout.rxQueues); i++) {
        core.setU32(of.rxQueue(i) + RxQueue.port, address);
        if (!core.u32(of.rxQueue(i) + RxQueue.mapping)) pollQueue(of.rxQueue(i));
      }
    }
    for (const { address, of } of sw.ports) {
      if (of instanceof Nic) continue;
      const mapped = of instanceof Guest && of.mapping ? core.u32(of.mapping + Mapping.queue) : 0;
      const queue = mapped ? pollQueue(mapped) : 0;
      // One that is stopped doesn't run: what is left in its queues is nobody's.
      const guest = sw.isRunning(of) ? poll(placed.get(of) ?? 0, Kind.GUEST, of.address) : 0;
      const port = poll(lcore, Kind.PORT, address, sw.address);
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
      core.setU32(of.rxVirtqueue + Virtqueue.bell, guest);
      core.setU32(of.txVirtqueue + Virtqueue.bell, guest);
      core.setU32(core.u32(of.address + GuestLayout.tx) + Driver.bell, port);
      // A mapped queue that is short of the guest's buffers waits for them.
      core.setU32(core.u32(of.address + GuestLayout.rx) + Driver.bell, queue);
    }
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
}
