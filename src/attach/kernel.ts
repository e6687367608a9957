/**
 * The kernel's way to a guest, as before DPDK: the card interrupts the host for each packet, the host sorts in software,
 * copies once, and interrupts the guest; the guest sends one packet per transaction, as through a tap.
 *
 *     card -> interrupt -> host buffer -> MAC table -> copy -> guest's receive queue -> interrupt -> guest
 *     card <- host buffer <- copy <- one packet <- kick <- guest's transmit queue
 *
 * Nothing is slowed down on purpose: the same queues as over vhost are served by the event path in place of polling
 * (`Lcores.serve`), a budget of `napi` packets at a time.
 */
import type { Nic } from "../roles/nic.ts";

/** Packets of one transaction of a tap. */
export const TAP_BURST = 1;

/** What is to be known of a guest. */
export interface Interrupted {
  readonly name: string;
  /** Packets for each interrupt; 0 where it isn't attached by "kernel". */
  readonly napi: number;
}

/**
 * The cards' queues for what no filter names interrupt the host from now on.
 * @throws RangeError where a card's guests need different budgets
 */
export function interruptHost(nics: readonly Nic[], guests: readonly Interrupted[]): void {
  for (const { name, napi } of guests) if (napi > 0) for (const nic of nics) nic.interruptDriven(napi, name);
}
