/** What an attachment gives a guest: its network device. One file each in this folder. */
import type { DriverKind } from "../../assembly/layout.ts";
import type { Core, Placed } from "../core/core.ts";
import type { Buffers } from "../core/pool.ts";

/** A guest's memory, in which its rings lie from the beginning on, and its buffers behind them. */
export interface GuestMemory {
  readonly core: Core;
  /** The guest's, for errors. */
  readonly name: string;
  readonly region: Placed;
  readonly regionSize: number;
  /** Where frames lie in its buffers. */
  readonly buffers: Buffers;
}

/** A guest's network device: rings, the guest's drivers of them, and the host's side. */
export interface GuestDevice {
  readonly kind: DriverKind;
  /** Addresses of the guest's drivers of its receive and its transmit queue. */
  readonly rx: number;
  readonly tx: number;
  /** Fields of the switch port (layout: `Port`) that it is connected by; nothing where it bypasses the switch. */
  readonly port?: Readonly<Record<number, number>>;
  /** Of a device that bypasses the switch: it is started. */
  readonly running?: boolean;
  /** Of a device that bypasses the switch: the guest's poller, which is rung for when there is work for it. */
  ringFor?(poller: number): void;
  /** Where not all buffers are the guest's when it has started: whether number `index` is. */
  isFree?(index: number): boolean;
  /**
   * Of a device at a switch or a bridge: pollers that are rung for (0: nobody): the guest, when the host has something for it; the host's, when the guest has
   * posted buffers to receive into, and when it has something to send.
   */
  setBells?(guest: number, rx: number, tx: number): void;
  /** Where its driver doesn't count that itself: buffers that the guest has posted to receive into. */
  posted?(): number;
  /** Both queues are set up, empty and ready; all buffers are the guest's. */
  start(): void;
  /** From here on no byte of the guest's memory is written any more. */
  stop(): void;
}
