// Capture files as bytes: reads pcap and pcapng (capture-encoder.ts writes). Knows
// nothing of files, so that it runs in any runtime; capture-file.ts is its Node side.
//
// Sources: draft-ietf-opsawg-pcap ("pcap" below) and draft-ietf-opsawg-pcapng
// ("pcapng"), cited by section name; limits from libpcap.
//
//   pcap    | header 24 | record | record | …       record = | 16 | data |
//   pcapng  | section   | interface | packet | …    block  = | type 4 | length 4 | body | length 4 |
//
// A file is hostile until shown otherwise: no field sizes an allocation, and
// whatever stands before a break is handed out before the break is reported.

const PCAP_MICROSECONDS = 0xa1b2c3d4; // pcap, File Header, "Magic Number"
export const PCAP_NANOSECONDS = 0xa1b23c4d; // likewise
export const PCAP_HEADER = 24; // pcap, File Header
export const PCAP_RECORD = 16; // pcap, Packet Record
const PCAP_LINK_BITS = 0x0bff_ffff; // pcap, File Header: all but "FCS len" and "P"; the reserved bits must be 0
export const ETHERNET = 1; // draft-ietf-opsawg-pcaplinktype, LINKTYPE_ETHERNET

const SECTION = 0x0a0d0d0a; // pcapng, Section Header Block; the same in both byte orders
const BYTE_ORDER = 0x1a2b3c4d; // pcapng, Section Header Block, "Byte-Order Magic"
const INTERFACE = 1; // pcapng, Interface Description Block
const PACKET = 2; // pcapng, appendix Packet Block (obsolete)
const SIMPLE = 3; // pcapng, Simple Packet Block
const ENHANCED = 6; // pcapng, Enhanced Packet Block
const END_OF_OPTIONS = 0; // pcapng, Options, opt_endofopt
const IF_NAME = 2; // pcapng, Interface Description Block Options
const IF_TSRESOL = 9; // likewise
const IF_TSOFFSET = 14; // likewise

/** Bytes of a block without its variable part; a block that is passed over has 12 (pcapng, General Block Structure). */
const BLOCK_MINIMUM = new Map([
  [SECTION, 28],
  [INTERFACE, 20],
  [PACKET, 32],
  [SIMPLE, 16],
  [ENHANCED, 32],
]);

/** Most bytes of one frame: tcpdump's MAXIMUM_SNAPLEN (netdissect.h). */
export const MAXIMUM_FRAME = 262_144;
const MAXIMUM_BLOCK = 16 * 1024 * 1024; // libpcap, sf-pcapng.c, INITIAL_MAX_BLOCKSIZE
const MAXIMUM_INTERFACES = 65_536; // a section; what the obsolete Packet Block can address

export const NANOSECONDS = 1_000_000_000n;

/** A capture that cannot be read or written; `message` is one line that says all of it. */
export class CaptureError extends Error {
  override readonly name = "CaptureError";
  /** The file, as its user named it. */
  readonly file: string;
  /** Byte offset in the file; undefined where the file as a whole is meant (missing, a directory). */
  readonly offset: number | undefined;
  /** What stands there. */
  readonly found: string;
  /** What would be right. */
  readonly expected: string;

  constructor(file: string, offset: number | undefined, found: string, expected: string) {
    const place = offset === undefined ? "" : ` at byte ${offset}:`;
    super(`${file}:${place} ${found}, expected ${expected}`.replace(/\p{Cc}/gu, "?"));
    this.file = file;
    this.offset = offset;
    this.found = found;
    this.expected = expected;
  }
}

export interface CapturedFrame {
  /** The captured bytes from the destination MAC on: a view, valid until the decoder's next push(). */
  data: Uint8Array;
  /** Nanoseconds since 1970-01-01 00:00:00 UTC; 0 where the file has none (Simple Packet Block). */
  timestamp: bigint;
  /** Bytes that the frame had on the wire, ≥ data.length. */
  originalLength: number;
}

interface Interface {
  label: string; // as errors name it
  linkType: number;
  snapLength: number; // 0: no limit
  multiplier: bigint; // ns = units × multiplier ÷ divisor + offset
  divisor: bigint;
  offset: bigint;
}

/**
 * Takes a capture in pieces of any size and gives its Ethernet frames in order.
 *
 *     decoder.push(chunk);
 *     for (let frame = decoder.next(); frame; frame = decoder.next()) …
 *     …                      // push and next until the file has ended
 *     decoder.end();
 *
 * Holds what it was pushed and has not yet handed out, so drain it before each
 * push: then that is one chunk and one unfinished record or block (≤ 16 MiB).
 * An Ethernet checksum that the file says it holds stays at the frame's end.
 */
export class CaptureDecoder {
  readonly #file: string;
  #bytes = new Uint8Array(0);
  #view = new DataView(this.#bytes.buffer);
  #start = 0; // #bytes[#start, #end) wait to be read
  #end = 0;
  #base = 0; // file offset of #bytes[0]
  #format: "pcap" | "pcapng" | undefined;
  #little = true;
  #fraction = 1; // pcap: ns in a unit of a record's second field
  #interfaces: Interface[] = [];
  #missing = { what: "a magic number", size: 4 }; // what next() last lacked

  /** `name` is the file's name for error messages. */
  constructor(name: string) {
    this.#file = name;
  }

  /** Adds bytes, copied: `chunk` may be reused at once. Ends the life of every frame handed out. */
  push(chunk: Uint8Array): void {
    if (this.#end + chunk.length > this.#bytes.length) {
      const held = this.#bytes.subarray(this.#start, this.#end);
      const size = held.length + chunk.length;
      // Half of it free after each move, so that feeding byte by byte stays linear.
      if (size > this.#bytes.length / 2) this.#bytes = new Uint8Array(2 * size);
      this.#bytes.set(held);
      this.#view = new DataView(this.#bytes.buffer);
      this.#base += this.#start;
      this.#start = 0;
      this.#end = held.length;
    }
    this.#bytes.set(chunk, this.#end);
    this.#end += chunk.length;
  }

  /** The next frame, or undefined where more bytes are needed. Throws a CaptureError at a break, and again if asked again. */
  next(): CapturedFrame | undefined {
    if (this.#format === undefined && !this.#readFormat()) return undefined;
    return this.#format === "pcap" ? this.#readRecord() : this.#readBlocks();
  }

  /** Call once the file has ended and next() gave undefined. Throws a CaptureError if it stopped inside something. */
  end(): void {
    if (this.next() !== undefined)
      throw new Error("CaptureDecoder.end() before next() has given every frame");
    const held = this.#end - this.#start;
    if (held > 0) {
      const { what, size } = this.#missing;
      this.#fail(0, `the file ends after ${held} of the ${size} bytes of ${what}`, `${size - held} more`);
    }
    if (this.#format === undefined) this.#fail(0, "empty file", "a pcap or pcapng capture");
  }

  #has(what: string, size: number): boolean {
    if (this.#end - this.#start >= size) return true;
    this.#missing = { what, size };
    return false;
  }

  /** `at` counts from #start, as everywhere below. */
  #fail(at: number, found: string, expected: string): never {
    throw new CaptureError(this.#file, this.#base + this.#start + at, found, expected);
  }

  #u16(at: number): number {
    return this.#view.getUint16(this.#start + at, this.#little);
  }

  #u32(at: number): number {
    return this.#view.getUint32(this.#start + at, this.#little);
  }

  #readFormat(): boolean {
    if (!this.#has("a magic number", 4)) return false;
    this.#little = false;
    if (this.#u32(0) === SECTION) {
      this.#format = "pcapng";
      return true;
    }
    const magic = this.#u32(0);
    this.#little = magic !== PCAP_MICROSECONDS && magic !== PCAP_NANOSECONDS;
    const known = this.#u32(0);
    if (known !== PCAP_MICROSECONDS && known !== PCAP_NANOSECONDS) {
      const expected = `${hex(PCAP_MICROSECONDS)} or ${hex(PCAP_NANOSECONDS)} in either byte order (pcap) or ${hex(SECTION)} (pcapng)`;
      this.#fail(0, `magic number ${hex(magic)}`, expected);
    }
    if (!this.#has("a pcap header", PCAP_HEADER)) return false;
    const version = `${this.#u16(4)}.${this.#u16(6)}`;
    if (version !== "2.4") this.#fail(4, `pcap version ${version}`, "2.4");
    const link = (this.#u32(20) & PCAP_LINK_BITS) >>> 0;
    if (link !== ETHERNET) this.#fail(20, `link type ${link}`, "1 (Ethernet)");
    this.#fraction = known === PCAP_NANOSECONDS ? 1 : 1000;
    this.#format = "pcap";
    this.#start += PCAP_HEADER;
    return true;
  }

  #readRecord(): CapturedFrame | undefined {
    if (!this.#has("a record header", PCAP_RECORD)) return undefined;
    const length = this.#u32(8);
    if (length > MAXIMUM_FRAME) this.#fail(8, `a record of ${length} bytes`, `at most ${MAXIMUM_FRAME}`);
    if (!this.#has("a record", PCAP_RECORD + length)) return undefined;
    const timestamp = BigInt(this.#u32(0)) * NANOSECONDS + BigInt(this.#u32(4) * this.#fraction);
    const frame = this.#frame(PCAP_RECORD, length, this.#u32(12), timestamp);
    this.#start += PCAP_RECORD + length;
    return frame;
  }

  #frame(at: number, length: number, originalLength: number, timestamp: bigint): CapturedFrame {
    const data = this.#bytes.subarray(this.#start + at, this.#start + at + length);
    // A wire length below the captured one may be raised (pcap, Packet Record; pcapng, Enhanced Packet Block).
    return { data, timestamp, originalLength: Math.max(originalLength, length) };
  }

  #readBlocks(): CapturedFrame | undefined {
    for (;;) {
      if (!this.#has("a block header", 8)) return undefined;
      const type = this.#u32(0);
      if (type === SECTION) {
        if (!this.#has("a section header", 12)) return undefined;
        this.#little = this.#view.getUint8(this.#start + 8) === (BYTE_ORDER & 0xff);
        const order = this.#u32(8);
        if (order !== BYTE_ORDER)
          this.#fail(8, `byte-order magic ${hex(order)}`, `${hex(BYTE_ORDER)} in either order`);
      }
      const length = this.#u32(4);
      const minimum = BLOCK_MINIMUM.get(type) ?? 12;
      const found = `a block (type ${hex(type)}) of ${length} bytes`;
      if (length < minimum) this.#fail(4, found, `at least ${minimum}`);
      if (length > MAXIMUM_BLOCK) this.#fail(4, found, `at most ${MAXIMUM_BLOCK}`);
      if (length % 4 !== 0) this.#fail(4, found, "a multiple of 4");
      if (!this.#has("a block", length)) return undefined;
      const trailer = this.#u32(length - 4);
      if (trailer !== length)
        this.#fail(length - 4, `trailing block length ${trailer}`, `${length} as at its start`);

      let frame: CapturedFrame | undefined;
      if (type === SECTION) this.#readSection();
      else if (type === INTERFACE) this.#readInterface(length - 4);
      else if (type === ENHANCED || type === PACKET) frame = this.#readPacket(type, length);
      else if (type === SIMPLE) frame = this.#readSimple(length);
      this.#start += length;
      if (frame !== undefined) return frame;
    }
  }

  #readSection(): void {
    const version = `${this.#u16(12)}.${this.#u16(14)}`;
    // 1.2 is to be read as 1.0 (pcapng, Section Header Block).
    if (version !== "1.0" && version !== "1.2") this.#fail(12, `pcapng version ${version}`, "1.0 or 1.2");
    this.#interfaces = []; // an interface is valid in its own section only
  }

  #readInterface(end: number): void {
    const id = this.#interfaces.length;
    if (id === MAXIMUM_INTERFACES)
      this.#fail(0, `interface ${id} of a section`, `at most ${MAXIMUM_INTERFACES}`);
    let label = `interface ${id}`;
    let resolution = 6; // microseconds, unless told otherwise
    let offset = 0n;
    // The end of the block ends the options as well (pcapng, Options).
    for (let at = 16; at + 4 <= end; ) {
      const code = this.#u16(at);
      const length = this.#u16(at + 2);
      if (code === END_OF_OPTIONS) break;
      if (at + 4 + length > end)
        this.#fail(at + 2, `an option of ${length} bytes`, `at most ${end - at - 4}`);
      const fixed = code === IF_TSRESOL ? 1 : code === IF_TSOFFSET ? 8 : length;
      if (length !== fixed) this.#fail(at + 2, `option ${code} of ${length} bytes`, `${fixed}`);
      const value = this.#start + at + 4;
      if (code === IF_TSRESOL) resolution = this.#view.getUint8(value);
      if (code === IF_TSOFFSET) offset = this.#view.getBigInt64(value, this.#little) * NANOSECONDS;
      if (code === IF_NAME)
        label += ` (${printable(this.#bytes.subarray(value, value + Math.min(length, 32)))})`;
      at += 4 + length + (-length & 3);
    }
    // Top bit: a negative power of 2, else of 10 (pcapng, if_tsresol).
    const perSecond = (resolution & 0x80 ? 2n : 10n) ** BigInt(resolution & 0x7f);
    const exact = NANOSECONDS % perSecond === 0n;
    this.#interfaces.push({
      label,
      linkType: this.#u16(8),
      snapLength: this.#u32(12),
      multiplier: exact ? NANOSECONDS / perSecond : NANOSECONDS,
      divisor: exact ? 1n : perSecond,
      offset,
    });
  }

  #interface(id: number): Interface {
    const found = this.#interfaces[id];
    if (found === undefined)
      this.#fail(0, `a frame on interface ${id}`, "an interface described before it in its section");
    if (found.linkType !== ETHERNET) {
      this.#fail(0, `a frame on ${found.label} of link type ${found.linkType}`, "link type 1 (Ethernet)");
    }
    return found;
  }

  #readPacket(type: number, blockLength: number): CapturedFrame {
    const { multiplier, divisor, offset } = this.#interface(type === PACKET ? this.#u16(8) : this.#u32(8));
    const length = this.#u32(20);
    const room = Math.min(blockLength - 32, MAXIMUM_FRAME);
    if (length > room) this.#fail(20, `a frame of ${length} bytes`, `at most ${room}`);
    const units = ((BigInt(this.#u32(12)) << 32n) | BigInt(this.#u32(16))) * multiplier;
    return this.#frame(28, length, this.#u32(24), (divisor === 1n ? units : units / divisor) + offset);
  }

  #readSimple(blockLength: number): CapturedFrame {
    const { snapLength } = this.#interface(0); // pcapng, Simple Packet Block: always the first interface
    const originalLength = this.#u32(8);
    const length = snapLength === 0 ? originalLength : Math.min(snapLength, originalLength);
    const room = Math.min(blockLength - 16, MAXIMUM_FRAME);
    if (length > room) this.#fail(8, `a frame of ${length} bytes`, `at most ${room}`);
    return this.#frame(12, length, originalLength, 0n);
  }
}

/**
 * The frames of a capture that comes in pieces; `name` is for error messages. Each frame's `data` is valid until the next
 * one is asked for. Throws a CaptureError at a break, after every frame before it.
 */
export function* framesOf(
  name: string,
  pieces: Iterable<Uint8Array>,
): Generator<CapturedFrame, void, undefined> {
  const decoder = new CaptureDecoder(name);
  for (const piece of pieces) {
    decoder.push(piece);
    for (let frame = decoder.next(); frame !== undefined; frame = decoder.next()) yield frame;
  }
  decoder.end();
}

function hex(value: number): string {
  return `0x${value.toString(16).padStart(8, "0")}`;
}

/** ASCII only: a name from a file must not reach a terminal's control codes. */
function printable(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) {
    if (byte === 0) break;
    text += byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : "?";
  }
  return text;
}
