/** A guest's driver of a card's function for tests, word by word: it can also write what no driver would. */
import { FunctionRing, IO_PAGE, Kind, PAGE, Packet, PacketFlag } from "../../assembly/layout.ts";
import type { Host, PciFunction } from "../../src/index.ts";

const BUFFER = 2048;

/** Guest memory: receive ring, transmit ring on pages of their own; then a buffer for each descriptor of either. */
export class FunctionDriver {
  readonly region: number;
  readonly bytes: number;
  readonly rxRing = 0;
  readonly txRing: number;
  readonly #buffers: number;
  #rxTail = 0;
  #rxNext = 0;
  #txTail = 0;

  constructor(
    readonly host: Host,
    readonly vf: PciFunction,
    readonly size = 64,
  ) {
    const { core } = host;
    this.txRing = Math.ceil((size * Packet.SIZE) / IO_PAGE) * IO_PAGE;
    this.#buffers = 2 * this.txRing;
    this.bytes = Math.ceil((this.#buffers + 2 * size * BUFFER) / PAGE) * PAGE;
    this.region = core.place(Kind.REGION, this.bytes, "guest", 0, PAGE).address;
    vf.give("guest", this.region, this.bytes);
    this.start();
  }

  /** Resets the function and posts all receive buffers. */
  start(): void {
    const { core } = this.host;
    core.bytes.fill(0, this.region, this.region + this.#buffers);
    this.#rxTail = this.#rxNext = this.#txTail = 0;
    this.vf.start({ address: this.rxRing, size: this.size }, { address: this.txRing, size: this.size });
    for (let i = 0; i < this.size; i++) this.post(i, this.#buffers + i * BUFFER, BUFFER);
    this.receiveTail = this.#rxTail = this.size;
  }

  /** Descriptor `slot` of the receive ring, or of the transmit ring. */
  post(slot: number, addr: number, len: number, ring = this.rxRing, flags = 0): void {
    const at = this.region + ring + (slot & (this.size - 1)) * Packet.SIZE;
    const { core } = this.host;
    core.bytes.fill(0, at, at + Packet.SIZE);
    core.setU32(at + Packet.addr, addr);
    core.setU16(at + Packet.len, len);
    core.setU16(at + Packet.flags, flags);
  }

  /** The tail registers. */
  set receiveTail(tail: number) {
    this.host.core.setU32(this.vf.rx + FunctionRing.tail, tail);
  }
  set transmitTail(tail: number) {
    this.host.core.setU32(this.vf.tx + FunctionRing.tail, tail);
  }
  /** Why the card stopped the ring at registers `ring`; 0: it runs. */
  broken(ring: number): number {
    return this.host.core.u32(ring + FunctionRing.broken);
  }

  /** Queues frames, each over `segments` descriptors. */
  send(frames: readonly Uint8Array[], segments = 1): void {
    const { core } = this.host;
    for (const frame of frames) {
      const each = Math.ceil(frame.length / segments);
      for (let i = 0; i < segments; i++) {
        const part = frame.subarray(i * each, (i + 1) * each);
        const addr = this.#buffers + (this.size + (this.#txTail & (this.size - 1))) * BUFFER;
        core.bytes.set(part, this.region + addr);
        const more = i + 1 < segments ? PacketFlag.MORE : 0;
        this.post(this.#txTail++, addr, part.length, this.txRing, more);
      }
    }
    this.transmitTail = this.#txTail;
  }

  /** How many of the queued descriptors the card has sent. */
  get sent(): number {
    let n = 0;
    for (let i = 0; i < Math.min(this.#txTail, this.size); i++) n += +this.#done(this.txRing, i);
    return n;
  }

  /** Received frames, whose buffers are posted again. */
  take(): Uint8Array[] {
    const { core } = this.host;
    const frames: Uint8Array[] = [];
    let parts: number[] = [];
    while (this.#rxNext < this.#rxTail && this.#done(this.rxRing, this.#rxNext)) {
      const slot = this.#rxNext & (this.size - 1);
      const p = this.region + this.rxRing + slot * Packet.SIZE;
      const at = this.region + core.u32(p);
      parts.push(...core.bytes.subarray(at, at + core.u16(p + Packet.len)));
      const more = core.u16(p + Packet.flags) & PacketFlag.MORE;
      this.post(slot, this.#buffers + slot * BUFFER, BUFFER);
      this.#rxNext++;
      if (more) continue;
      frames.push(Uint8Array.from(parts));
      parts = [];
    }
    this.#rxTail = this.#rxNext + this.size;
    this.receiveTail = this.#rxTail;
    return frames;
  }

  #done(ring: number, slot: number): boolean {
    const at = this.region + ring + (slot & (this.size - 1)) * Packet.SIZE;
    return (this.host.core.u16(at + Packet.flags) & PacketFlag.DONE) !== 0;
  }
}
