// A capture file as bytes, written: pcap with nanosecond timestamps. The format is
// drawn, and its numbers are cited, in capture.ts.

import {
  ETHERNET,
  MAXIMUM_FRAME,
  NANOSECONDS,
  PCAP_HEADER,
  PCAP_NANOSECONDS,
  PCAP_RECORD,
} from "./capture.ts";

/** Most bytes that append() adds. */
export const MAXIMUM_RECORD = PCAP_RECORD + MAXIMUM_FRAME;

/** Makes a pcap with nanosecond timestamps, little-endian, link type Ethernet. */
export class CaptureEncoder {
  #timestamp = 0n; // the last one, split: a burst shares its timestamp, and BigInt division is slow
  #seconds = 0;
  #nanoseconds = 0;

  /** The 24 bytes that begin the file. */
  header(): Uint8Array {
    const header = new Uint8Array(PCAP_HEADER);
    const view = new DataView(header.buffer);
    view.setUint32(0, PCAP_NANOSECONDS, true);
    view.setUint16(4, 2, true);
    view.setUint16(6, 4, true);
    view.setUint32(16, MAXIMUM_FRAME, true);
    view.setUint32(20, ETHERNET, true);
    return header;
  }

  /** One frame's record, in bytes of its own. Throws as append() does. */
  record(frame: Uint8Array, timestamp: bigint): Uint8Array {
    const record = new Uint8Array(PCAP_RECORD + frame.length);
    this.append(record, 0, frame, timestamp);
    return record;
  }

  /**
   * Writes one frame's record into `buffer` from `at` on and returns where it ends.
   * `timestamp` is in ns since the epoch. Throws a RangeError, before anything is
   * written, if the buffer is too small, the frame longer than MAXIMUM_FRAME, or
   * the timestamp before 1970 or from 2106 on (the format has 32 bits for seconds).
   */
  append(buffer: Uint8Array, at: number, frame: Uint8Array, timestamp: bigint): number {
    const length = frame.length;
    const end = at + PCAP_RECORD + length;
    if (length > MAXIMUM_FRAME)
      throw new RangeError(`frame of ${length} bytes, expected at most ${MAXIMUM_FRAME}`);
    if (end > buffer.length) throw new RangeError(`record ends at ${end}, expected at most ${buffer.length}`);
    if (timestamp !== this.#timestamp) this.#split(timestamp);
    store32(buffer, at, this.#seconds);
    store32(buffer, at + 4, this.#nanoseconds);
    store32(buffer, at + 8, length);
    store32(buffer, at + 12, length);
    buffer.set(frame, at + PCAP_RECORD);
    return end;
  }

  #split(timestamp: bigint): void {
    const seconds = timestamp / NANOSECONDS;
    if (timestamp < 0n || seconds > 0xffff_ffffn) {
      throw new RangeError(`timestamp ${timestamp} ns, expected 0 to 2^32 s after the epoch`);
    }
    this.#timestamp = timestamp;
    this.#seconds = Number(seconds);
    this.#nanoseconds = Number(timestamp - seconds * NANOSECONDS);
  }
}

function store32(buffer: Uint8Array, at: number, value: number): void {
  buffer[at] = value;
  buffer[at + 1] = value >>> 8;
  buffer[at + 2] = value >>> 16;
  buffer[at + 3] = value >>> 24;
}
