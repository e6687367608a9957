/** A bridge between a card and a guest at the end of a netmap pipe (layout: `Bridge`): no byte is copied. */
import {
  Bridge,
  BURST_MAX,
  Kind,
  Nic as NicLayout,
  Pool,
  PortKind,
  Port as PortLayout,
  RxQueue,
} from "../../assembly/layout.ts";
import { type PipeEnd, pipeBuffers } from "../attach/netmap.ts";
import type { HostMemory } from "../core/host-memory.ts";
import { emptyCaches, refillPool } from "../core/pool.ts";
import { connected } from "./connected.ts";
import type { Guest } from "./guest.ts";
import type { Nic } from "./nic.ts";

/** Frames that are moved at a time, each way. */
const BURST = 32;

/** Swaps buffers between a card's rings and the slots of a guest's. */
export class NetmapBridge {
  readonly address: number;
  /** Address of the card's receive queue that is the guest's. */
  readonly queue: number;
  /** Address of its counters (layout: `Port`). */
  readonly port: number;
  readonly #pipe: PipeEnd;
  #running = true;

  /** @internal Use `host.bridge()`. */
  constructor(
    readonly host: HostMemory,
    readonly name: string,
    readonly nic: Nic,
    readonly guest: Guest,
  ) {
    const { core } = host;
    const device = guest.netmap;
    const pipe = device?.pipe;
    if (!device || !pipe) {
      throw new RangeError(`${guest.name}: attached by ${guest.attach}, expected "pipe" for a bridge`);
    }
    const other = connected.get(guest);
    if (other)
      throw new RangeError(`${guest.name}: connected to ${other.name} already, expected to one bridge, once`);
    if (nic.flow.isDriven) {
      throw new RangeError(
        `${name}: the driver of ${nic.name} follows rte_flow rules, expected none, or a card that follows them itself`,
      );
    }
    this.#pipe = pipe;
    const { id, address } = core.place(Kind.BRIDGE, Bridge.SIZE, name);
    core.name(id, name);
    this.address = address;
    this.port = core.place(Kind.PORT, PortLayout.SIZE, `counters of ${name}`, id).address;
    core.setU32(this.port + PortLayout.kind, PortKind.NETMAP);
    // Half of the host's buffers, at most, wait to be received into: the others are for what is sent.
    this.queue = nic.addBridgedQueue(address, pipe.pool, pipeBuffers(guest.ring) / 2);
    core.setFields(address, {
      [Bridge.id]: id,
      [Bridge.queue]: this.queue,
      [Bridge.txQueue]: core.u32(nic.address + NicLayout.tx),
      [Bridge.rx]: device.rxKring,
      [Bridge.tx]: device.txKring,
      [Bridge.pool]: pipe.pool,
      [Bridge.port]: this.port,
      [Bridge.burst]: BURST,
    });
    this.#steer();
    connected.set(guest, this);
  }

  get running(): boolean {
    return this.#running;
  }

  /** Frames moved at a time, each way, 1 to 256. */
  set burst(frames: number) {
    if (!Number.isInteger(frames) || frames < 1 || frames > BURST_MAX) {
      throw new RangeError(`burst: ${frames}, expected a whole number from 1 to ${BURST_MAX}`);
    }
    this.host.core.setU32(this.address + Bridge.burst, frames);
  }

  /** Its receive queue runs, and gets the frames for the guest. */
  #steer(): void {
    const { core } = this.host;
    core.setU32(this.queue + RxQueue.enabled, 1);
    core.exports.refillRxQueue(this.queue, 0);
    try {
      this.nic.steer(this.guest.mac, 0, core.u32(this.queue + RxQueue.index), -1);
    } catch (error) {
      this.#reclaim();
      throw error;
    }
  }

  /** The card gives back what it has to receive into; when it returns it writes nothing to the guest's memory any more. */
  #reclaim(): void {
    const { core } = this.host;
    core.setU32(this.queue + RxQueue.enabled, 0);
    core.exports.flushNic(this.nic.address);
    core.exports.reclaimBridge(this.address);
  }

  /**
   * The guest's driver resets its port, or the guest goes away: when this returns nothing is written to its memory any
   * more, and it isn't run. Frames that are in its rings are gone; those for it go to the card's first queue.
   */
  stop(): void {
    if (!this.#running) return;
    this.host.paused(() => {
      this.nic.unsteer(this.guest.mac);
      this.#reclaim();
      this.guest.stop();
      this.#running = false;
    });
  }

  /** A stopped guest's driver starts again, with empty rings and the buffers that it had. */
  start(): void {
    if (this.#running) return;
    this.host.paused(() => {
      emptyCaches(this.host.core, this.#pipe.pool);
      this.guest.start();
      this.#steer();
      this.#running = true;
    });
  }

  /**
   * @internal An lcore has died that moved its slots: stops it. `reset` tells whose its buffers are then; the pool, which may
   * be half written, has none until that.
   */
  abandon(): void {
    const { core } = this.host;
    const all = Array.from({ length: core.u32(this.pool + Pool.count) }, (_, i) => i);
    refillPool(core, this.pool, new Set(all));
    this.stop();
  }

  /**
   * @internal Whose a buffer is, is set up anew.
   * @param inCard numbers of the buffers that the card has still to send
   */
  reset(inCard: ReadonlySet<number>): void {
    this.guest.netmap?.resetOwners(inCard);
  }

  /** Directory id of the pool that the host's buffers of the guest's memory are of, and its address. */
  get poolId(): number {
    return this.#pipe.poolId;
  }
  get pool(): number {
    return this.#pipe.pool;
  }
}
