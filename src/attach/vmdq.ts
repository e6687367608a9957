/**
 * VMDq: a receive queue of the card for each guest, to which its filter sorts by MAC address. Its interrupt is handled on the
 * guest's own core: the host's part copies the queue's frames to the guest's memory, then the guest runs, without an interrupt
 * of its own.
 *
 *     card: MAC -> guest's queue -> interrupt -> host buffers -> copy -> guest's receive queue, and the guest runs
 *
 * That core is the one that runs the guest's switch. Where the guest has another lcore the queue's interrupt is the
 * switch's, and the guest is notified.
 */
import { RxQueue } from "../../assembly/layout.ts";
import type { Nic } from "../roles/nic.ts";

/** What is to be known of a guest. */
export interface Sorted {
  readonly mac: string;
}

/**
 * Gives the guest at switch port `port` a receive queue of `nic`, of host buffers, `burst` frames for each interrupt.
 * @param deliver hands on all frames that the card has received
 * @returns the queue's address
 * @throws RangeError where the card has no queue or no filter left, or the memory is full
 */
export function sortTo(nic: Nic, guest: Sorted, port: number, burst: number, deliver: () => void): number {
  const { core } = nic.host;
  const queue = nic.addSortedQueue(burst);
  deliver(); // what came another way until now must not be overtaken
  nic.steer(guest.mac, 0, core.u32(queue + RxQueue.index), port);
  return queue;
}
