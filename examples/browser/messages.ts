/** What the page and its datapath worker tell each other. */
import type { Attach, FrameSize } from "iovtee";

/** What is run, as the page's controls say. */
export interface Setup {
  attach: Attach[];
  size: FrameSize;
  /** Whether the guest has a thread of its own. */
  lcores: boolean;
}

/** To the worker: run this, in place of what runs; or run nothing. */
export type Command = { is: "start"; run: number; setup: Setup } | { is: "stop" };

/** From the worker, with the number of the run that it is about. After `stopped` and `failed` nothing runs. */
export type Report = { run: number } & (
  | { is: "running" }
  | { is: "figures"; figures: Figures[] }
  | { is: "watched"; attach: Attach; steps: Step[] }
  | { is: "stopped" }
  | { is: "failed"; why: string }
);

/** One attachment's figures since it was started. */
export interface Figures {
  attach: Attach;
  packets: number;
  /** Million packets a second in the last round, and the median over the last rounds. */
  mppsNow: number;
  mpps: number;
  /** Median of the rounds' ratios to vhost's, less 1; null for vhost, and where vhost doesn't run. */
  gain: number | null;
  copies: number;
  copiedBytes: number;
  lost: number;
  duplicated: number;
  reordered: number;
  corrupt: number;
  dropped: number;
}

/** Where frames and buffers are at one moment, and what has happened so far; all from `host.stats()`. */
export interface Step {
  /** Frames that wait: received by the card, delivered to the guest, sent by the guest, given to the card to send. */
  onCard: number;
  inGuest: number;
  fromGuest: number;
  toSend: number;
  /** Buffers that the card can receive into: the host's, and the guest's. */
  cardHost: number;
  cardGuest: number;
  /** Receive buffers that the guest has posted, those on the card and those with frames included. */
  posted: number;
  /** Free buffers of the host's pool, and all of them. */
  available: number;
  buffers: number;
  /** So far: frames that came from the wire, through the guest, and back to the wire. */
  received: number;
  processed: number;
  sent: number;
  /** So far: frames, and the copies that delivered them, by where they went. */
  toGuest: Delivered;
  toCard: Delivered;
  dropped: number;
}

export interface Delivered {
  packets: number;
  copies: number;
  copiedBytes: number;
}
