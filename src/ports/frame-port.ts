/** A switch port whose other end is JavaScript: two rings, one each way, with frames in host buffers. */
import { BUFFER_ROOM, FRAME_MIN, Kind, Packet, PacketFlag, Ring } from "../../assembly/layout.ts";
import type { HostMemory } from "../core/host-memory.ts";
import { framesAt } from "../core/packet.ts";
import { createRing } from "../core/ring.ts";

/** A switch port whose other end is JavaScript: an emulator's network card, say. */
export class FramePort {
  /** Addresses of the rings: from here to the switch, and from the switch to here. */
  readonly toHost: number;
  readonly fromHost: number;
  /** Where descriptors stand while frames are pushed, and while they are taken: a sink may push. */
  readonly #list: number;
  #pushing = false;
  #taking = false;
  readonly #taken: number;
  /** Frames that each ring holds. */
  static readonly SLOTS = 512;

  /** @internal Use `host.port()`. */
  constructor(
    readonly host: HostMemory,
    readonly name: string,
  ) {
    const { core } = host;
    this.toHost = createRing(core, FramePort.SLOTS, { what: name }).address;
    this.fromHost = createRing(core, FramePort.SLOTS, { what: name }).address;
    this.#list = core.place(Kind.BYTES, FramePort.SLOTS * Packet.SIZE, name).address;
    this.#taken = core.place(Kind.BYTES, FramePort.SLOTS * Packet.SIZE, name).address;
  }

  /**
   * Frames into the switch: Ethernet from the destination MAC on, without FCS. Each is copied into a host buffer.
   * @returns how many were taken: fewer when the ring or the pool is full (nothing is dropped, try again)
   * @throws RangeError for a frame that is shorter than 14 bytes or longer than a host buffer (2048)
   */
  push(frames: readonly Uint8Array[]): number {
    return this.pushWith(
      frames.map((frame) => frame.length),
      (view, i) => view.set(frames[i] as Uint8Array),
    );
  }

  /**
   * The same without a copy: `write` fills the host buffer of frame `i`, which is `lengths[i]` bytes long. If it throws,
   * no frame is taken.
   */
  pushWith(lengths: readonly number[], write: (view: Uint8Array, i: number) => void): number {
    const { core, pool } = this.host;
    for (const length of lengths) {
      if (!(length >= FRAME_MIN && length <= BUFFER_ROOM)) {
        throw new RangeError(`frame of ${length} bytes, expected ${FRAME_MIN} to ${BUFFER_ROOM}`);
      }
    }
    if (this.#pushing) throw new Error(`${this.name}: push from within the write of another`);
    const wanted = Math.min(lengths.length, FramePort.SLOTS - this.#count(this.toHost));
    let n = 0;
    for (let got = 1; got > 0 && n < wanted; n += got) {
      got = core.exports.takeBuffers(pool, 0, this.#list + n * Packet.SIZE, wanted - n);
    }
    this.#pushing = true;
    try {
      for (let i = 0; i < n; i++) {
        const p = this.#list + i * Packet.SIZE;
        const length = lengths[i] as number;
        const addr = core.u32(p + Packet.addr);
        write(core.bytes.subarray(addr, addr + length), i);
        core.setU16(p + Packet.len, length);
      }
    } catch (error) {
      core.exports.giveBuffers(pool, 0, this.#list, n);
      throw error;
    } finally {
      this.#pushing = false;
    }
    this.host.wake();
    return core.exports.enqueue(this.toHost, this.#list, n);
  }

  /**
   * Frames that the switch sent here, to `sink`: views of the host's memory, valid during the call. A frame of several
   * buffers is one frame, put together in a copy.
   * @param max frames at most, whatever their length; what is left comes with the next call
   * @returns how many
   */
  take(sink: (frames: Uint8Array[]) => void, max = 256): number {
    const { core, pool } = this.host;
    if (this.#taking) throw new Error(`${this.name}: take from within the sink of another`);
    // What is there now ends with a frame. Never more descriptors than frames are wanted: the last one's end is seen.
    const there = this.#count(this.fromHost);
    let n = 0;
    for (let left = Math.floor(max); left > 0 && n < there; ) {
      const to = this.#taken + n * Packet.SIZE;
      const got = core.exports.dequeue(this.fromHost, to, Math.min(left, there - n));
      for (let i = 0; i < got; i++) {
        if (!(core.u16(to + i * Packet.SIZE + Packet.flags) & PacketFlag.MORE)) left--;
      }
      n += got;
    }
    const frames = framesAt(core, n, (i) => this.#taken + i * Packet.SIZE);
    this.#taking = true;
    try {
      if (frames.length > 0) sink(frames);
    } finally {
      this.#taking = false;
      core.exports.giveBuffers(pool, 0, this.#taken, n);
    }
    return frames.length;
  }

  /** Descriptors in a ring. */
  #count(ring: number): number {
    const { core } = this.host;
    return (core.u32(ring + Ring.head) - core.u32(ring + Ring.tail)) >>> 0;
  }
}
