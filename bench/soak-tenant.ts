/** A guest of the soak test, whatever it is attached by: how it comes and goes, and what is in it. */
import { PciFunction as FunctionLayout, Guest as GuestLayout, Port, VdpdkQueue } from "../assembly/layout.ts";
import {
  type Guest,
  type GuestOptions,
  NetmapBridge,
  type Nic,
  PciFunction,
  Vmux,
  VSwitch,
} from "../src/index.ts";

export type Pick = <T>(...from: T[]) => T;

export class Tenant {
  running = true;
  mapped: boolean;
  /** Frames that went into it or came out of its function, and that it or its host never saw: it was restarted. */
  gone = 0;
  /** Numbers of the frames that the JavaScript port sends it: the next one, and the next that may come back. */
  next = 0;
  expected = 0;
  /** Queues of its vDPDK device that it has stopped. */
  readonly stopped = new Set<"rx" | "tx">();

  constructor(
    readonly guest: Guest,
    /** The card whose wire its frames come from. */
    readonly nic: Nic,
    /** What stands between it and the card. */
    readonly by: VSwitch | NetmapBridge | Vmux | PciFunction,
  ) {
    this.mapped = guest.attach === "iovtee";
  }

  /** Frames that it was given and hasn't seen, and that it has sent and nobody has taken, when neither side runs. */
  get inside(): number {
    const { core } = this.guest.host;
    const { given, taken } = this.#passed;
    const received = core.counter(this.guest.address + GuestLayout.received);
    const transmitted = core.counter(this.guest.address + GuestLayout.transmitted);
    return given - received + transmitted - taken - this.gone;
  }

  /** Frames that whoever stands between has given it and has taken from it. */
  get #passed(): { given: number; taken: number } {
    const { guest, by } = this;
    const count = (address: number) => guest.host.core.counter(address);
    if (by instanceof PciFunction) {
      const { address } = by;
      return {
        given: count(address + FunctionLayout.rxPackets),
        taken: count(address + FunctionLayout.txPackets),
      };
    }
    if (by instanceof Vmux) {
      const { rxQueue = 0, txQueue = 0 } = guest.vdpdk ?? {};
      return { given: count(rxQueue + VdpdkQueue.packets), taken: count(txQueue + VdpdkQueue.packets) };
    }
    const port = by instanceof VSwitch ? (by.ports[by.indexOf(guest)]?.address ?? 0) : by.port;
    return { given: count(port + Port.txPackets), taken: count(port + Port.rxPackets) };
  }

  /** It goes away; of a function's guest its cable is drawn, for a card's port none can be. */
  stop(): void {
    const { guest, by } = this;
    if (!this.running || guest.attach === "passthrough") return;
    if (by instanceof PciFunction) by.set({ link: false });
    else {
      guest.host.paused(() => {
        this.unmap(); // what the card has received is delivered by that
        this.gone += this.inside;
        if (by instanceof NetmapBridge) by.stop();
        else by.stop(guest);
        this.stopped.clear();
        // Frames for a bridge that is stopped go to the switch, which knows nobody who has its address.
        if (by instanceof NetmapBridge) by.start();
      });
    }
    this.running = by instanceof NetmapBridge;
  }

  start(): void {
    const { guest, by } = this;
    if (this.running) return;
    if (by instanceof PciFunction) by.set({ link: true });
    else if (by instanceof NetmapBridge) by.start();
    else by.start(guest);
    this.running = true;
  }

  /** The driver of a card's function resets it. */
  reset(): void {
    if (!(this.by instanceof PciFunction)) return;
    this.guest.host.paused(() => {
      this.gone += this.inside;
      this.guest.reset();
    });
  }

  map(): void {
    if (this.mapped || !this.running || this.guest.attach !== "iovtee") return;
    (this.by as VSwitch).map(this.nic, this.guest);
    this.mapped = true;
  }

  unmap(): void {
    if (this.by instanceof VSwitch) this.by.unmap(this.guest);
    this.mapped = false;
  }

  /**
   * A queue of its vDPDK device is stopped, or all that are go on.
   * @param turn lets the card send what it has of the queue
   */
  toggleQueue(which: "rx" | "tx", turn: () => void): void {
    const { ethdev } = this.guest;
    if (!ethdev || !this.running) return;
    if (this.stopped.size > 0) {
      this.startQueues();
      return;
    }
    while (!ethdev.stopQueue(which)) turn();
    this.stopped.add(which);
  }

  startQueues(): void {
    for (const which of this.stopped) this.guest.ethdev?.startQueue(which);
    this.stopped.clear();
  }
}

/** Attachments to a switch. */
const SWITCHED = ["vhost", "vhost", "iovtee", "iovtee", "kernel", "vmdq", "netmap", "vdpdk"] as const;

/** Options of a guest at a switch; `napi` as of all guests of its card. */
export function switchedGuest(pick: Pick, napi: number): GuestOptions {
  const attach = pick(...SWITCHED);
  const mergeable = pick(true, true, false);
  const copies = attach !== "netmap" && attach !== "vdpdk";
  const inOrder = attach === "vhost" && pick(true, false, false);
  return {
    attach,
    mergeable,
    ring: pick(64, 128, 256),
    packed: pick(true, false),
    eventIdx: pick(true, false),
    interrupts: pick(true, false, false),
    indirect: pick(true, false),
    inOrder,
    zeroCopyTx: attach === "vhost" && !inOrder && pick(true, false),
    onEmpty: pick<"host" | "wait">("host", "wait"),
    scrub: pick(true, false),
    bufferSize: copies && mergeable ? pick(2176, 2176, 700) : 2176,
    ...(attach === "kernel" ? { napi } : {}),
  };
}

/** Options of a guest that a card's vMux serves, of one at a bridge, of one with a function. */
export function servedGuest(pick: Pick): GuestOptions {
  const vdpdk = { zeroCopyRx: pick(true, false), zeroCopyTx: pick(true, false) };
  return { attach: "vdpdk", ring: pick(64, 256), bufferSize: pick(2176, 700), vdpdk };
}
export function bridgedGuest(pick: Pick): GuestOptions {
  return { attach: "pipe", ring: pick(64, 128), interrupts: pick(true, false, false) };
}
export function ownerOf(attach: "sriov" | "passthrough", nic: Nic, pick: Pick): GuestOptions {
  return { attach, nic, ring: pick(64, 256), bufferSize: pick(2176, 2176, 700) };
}
