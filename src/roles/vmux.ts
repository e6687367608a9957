/** What serves the vDPDK devices of guests from a card, without a switch (layout: `Vdpdk`): vMux. */
import {
  VdpdkDevice as DeviceLayout,
  Kind,
  Nic as NicLayout,
  RteFlowTable,
  RxQueue,
  VdpdkQueue,
  Vdpdk as VmuxLayout,
} from "../../assembly/layout.ts";
import type { VdpdkDevice } from "../attach/vdpdk.ts";
import { takeBack } from "../attach/zero-copy.ts";
import type { HostMemory } from "../core/host-memory.ts";
import { parseMac } from "../mac.ts";
import { connected } from "./connected.ts";
import type { Guest } from "./guest.ts";
import type { Nic } from "./nic.ts";

export interface VmuxOptions {
  /** Where it doesn't follow flow rules itself (`flowOffload: false`) all that guests receive is copied. */
  nic: Nic;
  /** Attached by "vdpdk". */
  guests: readonly Guest[];
}

/** Serves guests' vDPDK devices from a card. Each guest's queues are bound to the card's. */
export class Vmux {
  readonly address: number;
  readonly nic: Nic;
  readonly guests: readonly Guest[];
  readonly #stopped = new Set<Guest>();

  /** @internal Use `host.vmux()`. */
  constructor(
    readonly host: HostMemory,
    readonly name: string,
    { nic, guests }: VmuxOptions,
  ) {
    const { core } = host;
    this.nic = nic;
    this.guests = [...guests];
    for (const one of [nic, ...guests]) {
      const other = connected.get(one);
      if (other) throw new RangeError(`${one.name}: connected to ${other.name} already, expected to none`);
    }
    if (guests.length > VmuxLayout.DEVICES_MAX) {
      throw new RangeError(`guests: ${guests.length}, expected ${VmuxLayout.DEVICES_MAX} at most`);
    }
    guests.forEach((guest, i) => {
      if (!guest.vdpdk) throw new RangeError(`${guest.name}: attached by ${guest.attach}, expected "vdpdk"`);
      const twin = guests
        .slice(0, i)
        .find((one) => one === guest || parseMac(one.mac) === parseMac(guest.mac));
      if (!twin) return;
      throw new RangeError(
        `mac: ${guest.mac} of ${guest.name} is that of ${twin.name}, expected one of its own`,
      );
    });
    const flows = flowShares(nic, guests);
    nic.connect(name);
    const { id, address } = core.place(Kind.VDPDK, VmuxLayout.SIZE, name);
    this.address = address;
    core.setFields(address, {
      [VmuxLayout.id]: id,
      [VmuxLayout.nic]: nic.address,
      [VmuxLayout.shared]: nic.rxQueue(0),
      [VmuxLayout.pool]: host.pool,
      [VmuxLayout.table]: core.place(Kind.BYTES, 4 * VmuxLayout.DEVICES_MAX, name, id).address,
    });
    // Guests make rules in the core, which doesn't allocate.
    if (flows.some((most) => most > 0)) nic.flow.table;
    this.guests.forEach((guest, i) => {
      this.#bind(guest, i, flows[i] as number);
    });
    for (const one of [nic, ...guests]) connected.set(one, this);
  }

  /** The guest's queues to queues of the card, and its MAC address to its own one or to the shared one. */
  #bind(guest: Guest, index: number, flows: number): void {
    const { core } = this.host;
    const { nic } = this;
    const device = guest.vdpdk as VdpdkDevice;
    guest.stop();
    // What the driver has to look at first can't be in the guest's memory already.
    const own = device.zeroCopyRx && nic.flow.offload ? nic.addGuestQueue(guest.ring) : 0;
    core.setFields(device.rxQueue, { [VdpdkQueue.card]: own, [VdpdkQueue.zeroCopy]: own ? 1 : 0 });
    core.setFields(device.txQueue, {
      [VdpdkQueue.card]: core.u32(nic.address + NicLayout.tx),
      [VdpdkQueue.zeroCopy]: device.zeroCopyTx ? 1 : 0,
    });
    core.setFields(device.device, {
      [DeviceLayout.nic]: nic.address,
      [DeviceLayout.vmux]: this.address,
      [DeviceLayout.flows]: flows,
    });
    nic.flow.makers.set(core.u32(device.device + DeviceLayout.id), guest.name);
    core.setU32(core.u32(this.address + VmuxLayout.table) + 4 * index, device.device);
    core.setU32(this.address + VmuxLayout.devices, index + 1);
    this.#start(guest);
    nic.steer(guest.mac, 0, own ? core.u32(own + RxQueue.index) : 0, index);
  }

  #start(guest: Guest): void {
    guest.start();
    this.host.core.exports.refillVdpdk((guest.vdpdk as VdpdkDevice).rxQueue);
  }

  /** Whether the guest is one of these and isn't stopped. */
  isRunning(guest: Guest): boolean {
    return this.guests.includes(guest) && !this.#stopped.has(guest);
  }

  /**
   * The guest is reset, or goes away: when this returns no byte of its memory is read or written any more, and it isn't run.
   * Frames in its queues are gone. Those that the card has yet to send are saved in host buffers; where there are too few the
   * card drops them, counted as `txMalformed`.
   */
  stop(guest: Guest): void {
    if (!this.isRunning(guest)) return;
    this.host.paused(() => {
      const { core } = this.host;
      const { txQueue } = guest.vdpdk as VdpdkDevice;
      takeBack(this.nic, core.u32(txQueue + VdpdkQueue.id), guest.name, true);
      guest.stop();
      // Nothing of it is left in the card's ring.
      core.setU32(txQueue + VdpdkQueue.freed, 0);
      this.#stopped.add(guest);
    });
  }

  /** A stopped guest starts again, with empty queues and all of its buffers. */
  start(guest: Guest): void {
    if (!this.#stopped.has(guest)) return;
    this.host.paused(() => {
      this.#stopped.delete(guest);
      this.#start(guest);
    });
  }
}

/**
 * Flow rules that each guest may have. All of them fit, under a mask each: so no guest can take another's place.
 * @throws RangeError where those that were asked for don't
 */
function flowShares(nic: Nic, guests: readonly Guest[]): number[] {
  const most = Math.min(RteFlowTable.MASKS_MAX, nic.flow.capacity);
  const share = Math.floor(most / 2 / guests.length);
  const shares = guests.map((guest) => guest.vdpdk?.flows ?? share);
  const all = shares.reduce((a, b) => a + b, 0);
  if (all > most)
    throw new RangeError(`flows: ${all} for all guests of ${nic.name}, expected ${most} at most`);
  return shares;
}
