/** PVP over one attachment: frames from the card through the switch to a guest, and back through the switch to the card. */
import { type Attach, FrameGenerator, type Guest, Host, type Nic, type VSwitch } from "iovtee";
import type { Figures, Setup, Step } from "./messages.ts";

/** Frames that are under way at once: half of the rings, so that no buffer is ever missing. */
const FRAMES = 128;
/** Empty turns before the clock is looked at, when another thread is at work. */
const PATIENCE = 2000;
/** When a guest on another thread hasn't sent its frames for so long, in milliseconds, something is wrong. */
const STALL_MS = 5000;
/** Rounds over which medians are taken. */
const ROUNDS = 300;

export class Lane {
  /** Million packets a second of the last rounds, oldest first. */
  readonly rounds: number[] = [];
  /** Rejects when the guest's thread dies. */
  readonly done: Promise<void>;
  readonly #lcores: boolean;
  /** Of the round that is under way: frames, and the milliseconds that host and guest took for them. */
  #frames = 0;
  #time = 0;

  private constructor(
    readonly attach: Attach,
    readonly host: Host,
    readonly nic: Nic,
    readonly guest: Guest,
    readonly sw: VSwitch,
    readonly wire: FrameGenerator,
    done: Promise<void> | undefined,
  ) {
    this.#lcores = done !== undefined;
    this.done = done ?? Promise.resolve();
  }

  /** With `lcores` the guest runs on a worker, card and switch on the calling thread. */
  static async create(attach: Attach, { size, lcores }: Setup): Promise<Lane> {
    const host = await Host.create({ memory: 32 * 2 ** 20, shared: lcores });
    const nic = host.nic();
    const guest = host.guest({ attach, run: "macswap" });
    const sw = host.vswitch({ connect: [nic, guest] });
    const wire = new FrameGenerator(host.core, { size, to: [guest.mac], flows: 64 });
    const running = lcores ? await host.launch([guest]) : undefined;
    return new Lane(attach, host, nic, guest, sw, wire, running?.done);
  }

  async close(): Promise<void> {
    this.host.stop();
    await this.done;
  }

  /** Frames for about so many milliseconds. The clock runs while switch and guest are at work: the card is hardware. */
  run(milliseconds: number): void {
    const { exports } = this.host.core;
    const end = performance.now() + milliseconds;
    do {
      this.#receive();
      const start = performance.now();
      if (this.#lcores)
        this.#await(() => exports.drainTo(this.host.lcore, this.nic.address, FRAMES, PATIENCE));
      else this.host.drain();
      this.#time += performance.now() - start;
      this.#frames += FRAMES;
      exports.check(this.wire.address, this.nic.address, exports.toTransmit(this.nic.address));
    } while (performance.now() < end);
  }

  startRound(): void {
    this.#frames = 0;
    this.#time = 0;
  }

  endRound(): void {
    // Clocks of browsers are coarse: by such a one a short round takes no time at all.
    this.rounds.push(this.#time > 0 ? this.#frames / this.#time / 1000 : Number.NaN);
    if (this.rounds.length > ROUNDS) this.rounds.shift();
  }

  /** One ring of frames, turn by turn, with all counters after each: for the eye, not for the clock. */
  watch(): Step[] {
    const { exports } = this.host.core;
    const [card, guest] = this.sw.ports.map((port) => port.address) as [number, number];
    const steps: Step[] = [];
    const look = () => {
      const step = this.#look();
      if (JSON.stringify(step) !== JSON.stringify(steps.at(-1))) steps.push(step);
    };
    look();
    this.#receive();
    look();
    this.#await(() => {
      exports.pollPort(this.sw.address, card);
      look();
      if (!this.#lcores) exports.pollGuest(this.guest.address);
      look();
      exports.pollPort(this.sw.address, guest);
      look();
      return exports.toTransmit(this.nic.address);
    });
    exports.check(this.wire.address, this.nic.address, exports.toTransmit(this.nic.address));
    look();
    return steps;
  }

  /** The wire gives the card frames; before that the host gives it the buffers that the guest has posted meanwhile. */
  #receive(): void {
    this.host.poll();
    this.host.core.exports.generate(this.wire.address, this.nic.address, FRAMES);
  }

  /** Until `work`, which returns what the card has to send, has sent all. */
  #await(work: () => number): void {
    for (let late = Number.POSITIVE_INFINITY; work() < FRAMES; ) {
      late = Math.min(late, performance.now() + STALL_MS);
      if (performance.now() > late) throw new Error(`${this.attach}: no frame came for ${STALL_MS / 1000} s`);
    }
  }

  #look(): Step {
    const { nics, ports, guests, mappings, pool } = this.host.stats();
    const [nic, guest, mapping] = [nics[0]!, guests[0]!, mappings[0]];
    const [card, vport] = [ports[0]!, ports[1]!];
    return {
      onCard: nic.rxPackets - card.rxPackets,
      inGuest: vport.txPackets - guest.received,
      fromGuest: guest.transmitted - vport.rxPackets,
      toSend: card.txPackets - nic.txPackets,
      cardHost: nic.buffers,
      cardGuest: mapping?.buffers ?? 0,
      posted: guest.posted,
      available: pool.available,
      buffers: pool.buffers,
      received: nic.rxPackets,
      processed: guest.received,
      sent: nic.txPackets,
      toGuest: { packets: vport.txPackets, copies: vport.copies, copiedBytes: vport.copiedBytes },
      toCard: { packets: card.txPackets, copies: card.copies, copiedBytes: card.copiedBytes },
      dropped: this.#dropped(),
    };
  }

  #dropped(): number {
    const { ports, nics, guests } = this.host.stats();
    return [...ports, ...nics, ...guests]
      .flatMap(({ drops }) => Object.values(drops))
      .reduce((a, b) => a + b, 0);
  }

  /** @param vhost what the gain is reckoned against */
  figures(vhost: Lane | undefined): Figures {
    const { ports } = this.host.stats();
    const { received, lost, duplicated, reordered, corrupt } = this.wire.check();
    const ratios = this.rounds.map((mpps, i) => mpps / (vhost?.rounds[i] ?? Number.NaN));
    return {
      attach: this.attach,
      packets: received,
      mppsNow: this.rounds.at(-1) ?? Number.NaN,
      mpps: median(this.rounds),
      gain: vhost && vhost !== this ? median(ratios) - 1 : null,
      copies: ports.reduce((n, port) => n + port.copies, 0),
      copiedBytes: ports.reduce((n, port) => n + port.copiedBytes, 0),
      ...{ lost, duplicated, reordered, corrupt },
      dropped: this.#dropped(),
    };
  }
}

/** NaN for none. */
function median(values: readonly number[]): number {
  const sorted = values.filter((value) => !Number.isNaN(value)).sort((a, b) => a - b);
  const half = sorted.length >> 1;
  const [low = Number.NaN, high = Number.NaN] = [sorted[sorted.length % 2 ? half : half - 1], sorted[half]];
  return (low + high) / 2;
}
