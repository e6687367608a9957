// Capture files: what the decoder reads, where it says a broken file breaks, and
// that others read what the writer writes. Byte layouts are built here by hand
// from draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.

import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CaptureDecoder, type CapturedFrame, CaptureError, MAXIMUM_FRAME } from "../src/ports/capture.ts";
import { CaptureEncoder } from "../src/ports/capture-encoder.ts";
import { CaptureWriter, readCapture } from "../src/ports/capture-file.ts";

fc.configureGlobal({ seed: 0x10f7ee });

const SAMPLE = fileURLToPath(new URL("../captures/sample.pcapng", import.meta.url));

// --- building files ---------------------------------------------------------

interface Order {
  name: string;
  little: boolean;
}
const ORDERS: Order[] = [
  { name: "little-endian", little: true },
  { name: "big-endian", little: false },
];

/** Fields of 2 (`[value, 2]`), 4 (a number) or 8 bytes (a bigint), and bytes. */
type Field = number | bigint | [number, 2] | Uint8Array;

function pack(little: boolean, ...fields: Field[]): Uint8Array {
  return concat(
    fields.map((field) => {
      if (field instanceof Uint8Array) return field;
      const view = new DataView(
        new ArrayBuffer(Array.isArray(field) ? 2 : typeof field === "bigint" ? 8 : 4),
      );
      if (Array.isArray(field)) view.setUint16(0, field[0], little);
      else if (typeof field === "bigint") view.setBigInt64(0, field, little);
      else view.setUint32(0, field, little);
      return new Uint8Array(view.buffer);
    }),
  );
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

function padded(bytes: Uint8Array): Uint8Array {
  return concat([bytes, new Uint8Array(-bytes.length & 3)]);
}

function pcapHeader(
  little: boolean,
  { magic = 0xa1b2c3d4, version = 4, snap = 65535, link = 1 } = {},
): Uint8Array {
  return pack(little, magic, [2, 2], [version, 2], 0, 0, snap, link);
}

function pcapRecord(
  little: boolean,
  data: Uint8Array,
  { seconds = 1, fraction = 2, original = data.length } = {},
) {
  return pack(little, seconds, fraction, data.length, original, data);
}

function block(little: boolean, type: number, ...fields: Field[]): Uint8Array {
  const body = pack(little, ...fields);
  return pack(little, type, body.length + 12, body, body.length + 12);
}

function section(little: boolean, major = 1, minor = 0): Uint8Array {
  return block(little, 0x0a0d0d0a, 0x1a2b3c4d, [major, 2], [minor, 2], -1n);
}

function option(little: boolean, code: number, value: Uint8Array): Uint8Array {
  return pack(little, [code, 2], [value.length, 2], padded(value));
}

function idb(little: boolean, { link = 1, snap = 0, options = [] as Uint8Array[] } = {}): Uint8Array {
  return block(little, 1, [link, 2], [0, 2], snap, ...options);
}

function epb(
  little: boolean,
  data: Uint8Array,
  { id = 0, units = 0n, original = data.length, options = [] as Uint8Array[] } = {},
) {
  const [high, low] = [Number(units >> 32n), Number(units & 0xffff_ffffn)];
  return block(little, 6, id, high, low, data.length, original, padded(data), ...options);
}

function packetBlock(little: boolean, data: Uint8Array, id: number, units: bigint): Uint8Array {
  const [high, low] = [Number(units >> 32n), Number(units & 0xffff_ffffn)];
  return block(little, 2, [id, 2], [0xffff, 2], high, low, data.length, data.length, padded(data));
}

function frameOf(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => index * 7);
}

// --- reading them -----------------------------------------------------------

interface Outcome {
  frames: CapturedFrame[]; // with data of their own
  error: CaptureError | undefined;
}

/** Feeds `file` in pieces that end at `cuts`, drained after each; gives the frames and the error that ended it. */
function decode(file: Uint8Array, cuts: readonly number[] = []): Outcome {
  const decoder = new CaptureDecoder("x.pcap");
  const frames: CapturedFrame[] = [];
  try {
    let start = 0;
    for (const end of [...cuts, file.length]) {
      const chunk = file.slice(start, end);
      decoder.push(chunk);
      chunk.fill(0xee); // the decoder has its own copy
      for (let frame = decoder.next(); frame; frame = decoder.next())
        frames.push({ ...frame, data: frame.data.slice() });
      start = end;
    }
    decoder.end();
  } catch (error) {
    if (!(error instanceof CaptureError)) throw error;
    return { frames, error };
  }
  return { frames, error: undefined };
}

/** All of a frame as text, which compares faster. */
function digest({ data, timestamp, originalLength }: CapturedFrame): string {
  return `${timestamp} ${originalLength} ${Buffer.from(data).toString("latin1")}`;
}

function everyByte(file: Uint8Array): number[] {
  return Array.from(file, (_, index) => index);
}

/** Frames of every kind of file: the property tests' material. */
function fileOfAll(little: boolean): { pcap: Uint8Array; pcapng: Uint8Array; frames: number[] } {
  const lengths = [60, 61, 0, 1514, 14, 342, 63];
  const pcap = concat([pcapHeader(little), ...lengths.map((length) => pcapRecord(little, frameOf(length)))]);
  const blocks = lengths.map((length, index) => {
    if (index % 3 === 0) return epb(little, frameOf(length), { options: [option(little, 1, frameOf(5))] });
    if (index % 3 === 1) return packetBlock(little, frameOf(length), 0, 5n);
    return block(little, 3, length, padded(frameOf(length)));
  });
  const next = [section(!little), idb(!little), block(!little, 5, frameOf(40))];
  const pcapng = concat([section(little), block(little, 5, frameOf(40)), idb(little), ...blocks, ...next]);
  return { pcap, pcapng, frames: lengths };
}

describe.each(ORDERS)("pcap, $name", ({ little }) => {
  it("reads microseconds (magic a1b2c3d4) as nanoseconds", () => {
    const record = pcapRecord(little, frameOf(60), { seconds: 0xffff_ffff, fraction: 999_999 });
    const { frames, error } = decode(concat([pcapHeader(little), record]));
    expect(error).toBeUndefined();
    expect(frames).toEqual([
      { data: frameOf(60), timestamp: 4_294_967_295_999_999_000n, originalLength: 60 },
    ]);
  });

  it("reads nanoseconds (magic a1b23c4d)", () => {
    const record = pcapRecord(little, frameOf(60), { seconds: 3, fraction: 123_456_789 });
    const { frames } = decode(concat([pcapHeader(little, { magic: 0xa1b23c4d }), record]));
    expect(frames[0]?.timestamp).toBe(3_123_456_789n);
  });

  it.each([0, 68, 65535, 262144, 0xffff_ffff])("takes a snap length of %i for no limit to trust", (snap) => {
    const records = [
      pcapRecord(little, frameOf(96), { original: 1514 }),
      pcapRecord(little, frameOf(9), { original: 5 }),
    ];
    const { frames } = decode(concat([pcapHeader(little, { snap }), ...records]));
    expect(frames.map((frame) => [frame.data.length, frame.originalLength])).toEqual([
      [96, 1514],
      [9, 9],
    ]);
  });

  it("reads Ethernet with the FCS length given beside the link type (File Header, 'FCS len' and 'P')", () => {
    const { frames, error } = decode(
      concat([pcapHeader(little, { link: 0x2400_0001 }), pcapRecord(little, frameOf(64))]),
    );
    expect([frames.length, error]).toEqual([1, undefined]);
  });

  it("reads a file without a record", () => {
    expect(decode(pcapHeader(little))).toEqual({ frames: [], error: undefined });
  });

  it("reads the largest record, and refuses one byte more where its length stands", () => {
    const largest = concat([pcapHeader(little), pcapRecord(little, frameOf(MAXIMUM_FRAME))]);
    expect(Buffer.compare(decode(largest).frames[0]?.data ?? frameOf(0), frameOf(MAXIMUM_FRAME))).toBe(0);
    const { error } = decode(
      concat([pcapHeader(little), pack(little, 0, 0, MAXIMUM_FRAME + 1, MAXIMUM_FRAME + 1)]),
    );
    expect(error?.message).toBe("x.pcap: at byte 32: a record of 262145 bytes, expected at most 262144");
  });
});

describe.each(ORDERS)("pcapng, $name", ({ little }) => {
  const nanoseconds = option(little, 9, Uint8Array.of(9));

  it.each([
    ["none: microseconds", [], 1_000_001n, 1_000_001_000n],
    ["10^-9", [9], 1_000_001n, 1_000_001n],
    ["10^-3", [3], 7n, 7_000_000n],
    ["10^0", [0], 7n, 7_000_000_000n],
    ["10^-12", [12], 7_999n, 7n],
    ["10^-127", [127], 2n ** 64n - 1n, 0n],
    ["2^-10", [0x8a], 1536n, 1_500_000_000n],
    ["2^-32", [0xa0], (5n << 32n) | 0x8000_0000n, 5_500_000_000n],
    ["2^0", [0x80], 2n ** 64n - 1n, (2n ** 64n - 1n) * 1_000_000_000n],
  ])("if_tsresol %s", (_, resolution, units, expected) => {
    const options = resolution.map((value) => option(little, 9, Uint8Array.of(value)));
    const { frames } = decode(
      concat([section(little), idb(little, { options }), epb(little, frameOf(60), { units })]),
    );
    expect(frames[0]?.timestamp).toBe(expected);
  });

  it.each([1234n, -2n])("if_tsoffset %i s is added", (seconds) => {
    const options = [
      nanoseconds,
      option(little, 14, pack(little, seconds)),
      option(little, 0, new Uint8Array(0)),
    ];
    const { frames } = decode(
      concat([section(little), idb(little, { options }), epb(little, frameOf(60), { units: 5n })]),
    );
    expect(frames[0]?.timestamp).toBe(seconds * 1_000_000_000n + 5n);
  });

  it("nothing behind opt_endofopt is read as an option", () => {
    const options = [option(little, 0, new Uint8Array(0)), option(little, 9, Uint8Array.of(0))];
    const { frames } = decode(
      concat([section(little), idb(little, { options }), epb(little, frameOf(60), { units: 5n })]),
    );
    expect(frames[0]?.timestamp).toBe(5_000n);
  });

  it("Enhanced, Simple and the obsolete Packet Block give frames; other blocks are passed over", () => {
    const file = concat([
      section(little),
      block(little, 0x8000_0001, frameOf(8)), // local use
      idb(little, { snap: 20 }),
      idb(little, { options: [nanoseconds] }),
      block(little, 4, frameOf(12)), // name resolution
      epb(little, frameOf(61), {
        id: 1,
        units: 9n,
        original: 1514,
        options: [option(little, 1, frameOf(3))],
      }),
      block(little, 3, 100, frameOf(20)), // cut to interface 0's snap length
      packetBlock(little, frameOf(62), 1, 2n ** 40n),
      block(little, 5, frameOf(12)), // statistics
    ]);
    const { frames, error } = decode(file);
    expect(error).toBeUndefined();
    expect(frames).toEqual([
      { data: frameOf(61), timestamp: 9n, originalLength: 1514 },
      { data: frameOf(20), timestamp: 0n, originalLength: 100 },
      { data: frameOf(62), timestamp: 2n ** 40n, originalLength: 62 },
    ]);
  });

  it("a new section, in either byte order, has its own interfaces", () => {
    const file = concat([
      ...[section(little), idb(little), epb(little, frameOf(60), { units: 1n })],
      ...[section(!little, 1, 2), idb(!little, { options: [option(!little, 9, Uint8Array.of(9))] })],
      ...[epb(!little, frameOf(61), { units: 1n }), section(little)],
    ]);
    const { frames, error } = decode(concat([file, epb(little, frameOf(62))]));
    expect(frames.map((frame) => [frame.data.length, frame.timestamp])).toEqual([
      [60, 1_000n],
      [61, 1n],
    ]);
    expect(error).toMatchObject({ offset: file.length, found: "a frame on interface 0" });
  });

  it("an interface that isn't Ethernet is an error at its first frame, not before", () => {
    const usb = idb(little, {
      link: 189,
      options: [option(little, 2, new TextEncoder().encode("usb\u001b[2J\n"))],
    });
    const before = concat([section(little), idb(little), usb, epb(little, frameOf(60))]);
    expect(decode(before)).toMatchObject({ frames: [{}], error: undefined });
    const { frames, error } = decode(concat([before, epb(little, frameOf(60), { id: 1 })]));
    expect(frames.length).toBe(1);
    expect(error?.message).toBe(
      `x.pcap: at byte ${before.length}: a frame on interface 1 (usb?[2J?) of link type 189, expected link type 1 (Ethernet)`,
    );
  });
});

describe("a broken capture is refused in one line with file, offset and what was expected", () => {
  const pcap = concat([pcapHeader(true), pcapRecord(true, frameOf(60))]); // 24 + 76 bytes
  const pcapng = concat([section(true), idb(true), epb(true, frameOf(60))]); // 28 + 20 + 92 bytes
  const magics = "expected 0xa1b2c3d4 or 0xa1b23c4d in either byte order (pcap) or 0x0a0d0d0a (pcapng)";

  it.each<[string, Uint8Array, number, string]>([
    ["an empty file", new Uint8Array(0), 0, "at byte 0: empty file, expected a pcap or pcapng capture"],
    [
      "three bytes",
      pcap.subarray(0, 3),
      0,
      "at byte 0: the file ends after 3 of the 4 bytes of a magic number, expected 1 more",
    ],
    ["a wrong magic", pack(false, 0x7f454c46), 0, `at byte 0: magic number 0x7f454c46, ${magics}`],
    [
      "a truncated pcap header",
      pcap.subarray(0, 23),
      0,
      "at byte 0: the file ends after 23 of the 24 bytes of a pcap header, expected 1 more",
    ],
    [
      "another pcap version",
      pcapHeader(true, { version: 3 }),
      0,
      "at byte 4: pcap version 2.3, expected 2.4",
    ],
    [
      "another link type",
      pcapHeader(true, { link: 101 }),
      0,
      "at byte 20: link type 101, expected 1 (Ethernet)",
    ],
    [
      "a reserved link type bit",
      pcapHeader(false, { link: 0x0800_0001 }),
      0,
      "at byte 20: link type 134217729, expected 1 (Ethernet)",
    ],
    [
      "a record header cut off",
      pcap.subarray(0, 24 + 15),
      0,
      "at byte 24: the file ends after 15 of the 16 bytes of a record header, expected 1 more",
    ],
    [
      "a record longer than the file",
      concat([pcap, pcap.subarray(24, 99)]),
      1,
      "at byte 100: the file ends after 75 of the 76 bytes of a record, expected 1 more",
    ],
    [
      "a record of 4 GiB",
      concat([pcap, pack(true, 0, 0, 0xffff_ffff, 60)]),
      1,
      "at byte 108: a record of 4294967295 bytes, expected at most 262144",
    ],
    [
      "a section header cut off",
      pcapng.subarray(0, 11),
      0,
      "at byte 0: the file ends after 11 of the 12 bytes of a section header, expected 1 more",
    ],
    [
      "a section cut off",
      pcapng.subarray(0, 27),
      0,
      "at byte 0: the file ends after 27 of the 28 bytes of a block, expected 1 more",
    ],
    [
      "a wrong byte-order magic",
      pack(false, 0x0a0d0d0a, 28, 0x1a2b3c4e),
      0,
      "at byte 8: byte-order magic 0x1a2b3c4e, expected 0x1a2b3c4d in either order",
    ],
    ["another pcapng version", section(true, 2, 0), 0, "at byte 12: pcapng version 2.0, expected 1.0 or 1.2"],
    [
      "a block header cut off",
      concat([pcapng, Uint8Array.of(6, 0, 0)]),
      1,
      "at byte 140: the file ends after 3 of the 8 bytes of a block header, expected 5 more",
    ],
    [
      "a block cut off",
      concat([pcapng, pcapng.subarray(48, 130)]),
      1,
      "at byte 140: the file ends after 82 of the 92 bytes of a block, expected 10 more",
    ],
    [
      "a block of 4 GiB",
      concat([pcapng, pack(true, 6, 0xffff_fffc)]),
      1,
      "at byte 144: a block (type 0x00000006) of 4294967292 bytes, expected at most 16777216",
    ],
    [
      "a block length not a multiple of 4",
      concat([pcapng, pack(true, 6, 93)]),
      1,
      "at byte 144: a block (type 0x00000006) of 93 bytes, expected a multiple of 4",
    ],
    [
      "a block too short for its kind",
      concat([pcapng, pack(true, 6, 28)]),
      1,
      "at byte 144: a block (type 0x00000006) of 28 bytes, expected at least 32",
    ],
    [
      "a block of no bytes",
      concat([pcapng, pack(true, 99, 0)]),
      1,
      "at byte 144: a block (type 0x00000063) of 0 bytes, expected at least 12",
    ],
    [
      "a trailing length that differs",
      concat([pcapng, pack(true, 99, 16, 0, 20)]),
      1,
      "at byte 152: trailing block length 20, expected 16 as at its start",
    ],
    [
      "an undefined interface",
      concat([pcapng, epb(true, frameOf(60), { id: 0xffff_ffff })]),
      1,
      "at byte 140: a frame on interface 4294967295, expected an interface described before it in its section",
    ],
    [
      "a Simple Packet Block without an interface",
      concat([section(true), block(true, 3, 4, 0)]),
      0,
      "at byte 28: a frame on interface 0, expected an interface described before it in its section",
    ],
    [
      "a frame longer than its block",
      concat([pcapng, block(true, 6, 0, 0, 0, 9, 9, 0, 0)]),
      1,
      "at byte 160: a frame of 9 bytes, expected at most 8",
    ],
    [
      "a simple frame longer than its block",
      concat([pcapng, block(true, 3, 0xffff_ffff, 0)]),
      1,
      "at byte 148: a frame of 4294967295 bytes, expected at most 4",
    ],
    [
      "a frame above the limit in a pcapng",
      concat([pcapng, epb(true, frameOf(MAXIMUM_FRAME + 1))]),
      1,
      "at byte 160: a frame of 262145 bytes, expected at most 262144",
    ],
    [
      "an option longer than its block",
      concat([section(true), idb(true, { options: [pack(true, [2, 2], [5, 2], 0)] })]),
      0,
      "at byte 46: an option of 5 bytes, expected at most 4",
    ],
    [
      "an if_tsresol of two bytes",
      concat([section(true), idb(true, { options: [option(true, 9, frameOf(2))] })]),
      0,
      "at byte 46: option 9 of 2 bytes, expected 1",
    ],
    [
      "an if_tsoffset of four bytes",
      concat([section(true), idb(true, { options: [option(true, 14, frameOf(4))] })]),
      0,
      "at byte 46: option 14 of 4 bytes, expected 8",
    ],
  ])("%s", (_, file, framesBefore, message) => {
    for (const cuts of [[], file.length < 1000 ? everyByte(file) : []]) {
      const { frames, error } = decode(file, cuts);
      expect(error?.message).toBe(`x.pcap: ${message}`);
      expect(error?.file).toBe("x.pcap");
      expect(error?.offset).toBe(Number(/at byte (\d+)/.exec(message)?.[1]));
      expect(message.endsWith(`, expected ${error?.expected}`)).toBe(true);
      expect(frames.length).toBe(framesBefore);
    }
  });

  it("more interfaces than a section may have", () => {
    const interfaces = Array.from({ length: 65_537 }, () => idb(true));
    const { error } = decode(concat([section(true), ...interfaces]));
    expect(error).toMatchObject({ offset: 28 + 65_536 * 20, expected: "at most 65536" });
  });

  it("asked again, the decoder gives the same answer", () => {
    const decoder = new CaptureDecoder("x.pcap");
    decoder.push(concat([pcap, pack(true, 0, 0, 0xffff_ffff, 60)]));
    expect(decoder.next()?.data.length).toBe(60);
    for (let turn = 0; turn < 3; turn++) expect(() => decoder.next()).toThrow("at byte 108");
    expect(() => decoder.end()).toThrow("at byte 108");
  });

  it("a file name with control codes stays on one line", () => {
    expect(new CaptureError("a\nb\u001b", 0, "empty file", "a capture").message).toBe(
      "a?b?: at byte 0: empty file, expected a capture",
    );
  });

  it("end() while next() has frames left is the caller's error", () => {
    const decoder = new CaptureDecoder("x.pcap");
    decoder.push(pcap);
    expect(() => decoder.end()).toThrow(/before next\(\)/);
  });
});

describe("any file, in pieces of any size", () => {
  const files = ORDERS.flatMap(({ little }) => {
    const { pcap, pcapng, frames } = fileOfAll(little);
    return [pcap, pcapng].map((file) => ({ file, frames }));
  });

  it("gives the same frames byte by byte as whole", () => {
    for (const { file, frames } of files) {
      const whole = decode(file);
      expect(whole.frames.map((frame) => frame.data)).toEqual(frames.map(frameOf));
      expect(whole.error).toBeUndefined();
      expect(decode(file, everyByte(file))).toEqual(whole);
    }
  });

  it("gives the same frames for every chunking", () => {
    const cuts = fc.array(fc.nat(4000), { maxLength: 20 });
    fc.assert(
      fc.property(fc.constantFrom(...files), cuts, ({ file }, at) => {
        const sorted = at.map((cut) => Math.min(cut, file.length)).sort((a, b) => a - b);
        expect(decode(file, sorted)).toEqual(decode(file));
      }),
      { numRuns: 300 },
    );
  });

  it("cut off anywhere, gives every whole frame before the cut, and an error that lies before it", () => {
    for (const { file } of files) {
      const whole = decode(file).frames.map(digest);
      let frames = 0;
      for (let cut = 0; cut <= file.length; cut++) {
        const part = decode(file.subarray(0, cut));
        expect(part.frames.map(digest)).toEqual(whole.slice(0, part.frames.length));
        expect(part.frames.length).toBeGreaterThanOrEqual(frames);
        frames = part.frames.length;
        if (part.error) expect(part.error.offset).toBeLessThanOrEqual(cut);
      }
      expect(frames).toBe(whole.length);
    }
  });

  it("with bytes overwritten, gives frames or a CaptureError inside the file, never anything else", () => {
    const change = fc.record({
      at: fc.nat(3000),
      value: fc.constantFrom(0, 1, 4, 0x7f, 0x80, 0xfc, 0xff),
      length: fc.constantFrom(1, 2, 4),
    });
    fc.assert(
      fc.property(
        fc.constantFrom(...files),
        fc.array(change, { minLength: 1, maxLength: 6 }),
        ({ file }, changes) => {
          const broken = file.slice();
          for (const { at, value, length } of changes)
            broken.fill(value, at % file.length, (at % file.length) + length);
          const { frames, error } = decode(broken);
          for (const frame of frames) expect(frame.originalLength).toBeGreaterThanOrEqual(frame.data.length);
          if (error) expect(error.offset).toBeLessThan(file.length);
          if (error) expect(error.message).not.toMatch(/\p{Cc}/u);
          expect(decode(broken, everyByte(broken)).frames.map(digest)).toEqual(frames.map(digest));
        },
      ),
      { numRuns: 300 },
    );
  });

  it("holds no more than the unfinished piece: 64 MiB pass through a decoder that keeps under 4 MiB", () => {
    const decoder = new CaptureDecoder("x.pcap");
    const records = concat(Array.from({ length: 200 }, () => pcapRecord(true, frameOf(1514))));
    decoder.push(pcapHeader(true));
    let frames = 0;
    let largest = 0;
    for (let turn = 0; turn < 220; turn++) {
      decoder.push(records);
      for (let frame = decoder.next(); frame; frame = decoder.next()) {
        largest = Math.max(largest, frame.data.buffer.byteLength);
        frames++;
      }
    }
    decoder.end();
    expect(frames).toBe(220 * 200);
    expect(largest).toBeLessThan(4 * 1024 * 1024);
  });
});

describe("CaptureEncoder", () => {
  const frame = fc.uint8Array({ maxLength: 1600 });
  const time = fc.bigInt({ min: 0n, max: (1n << 32n) * 1_000_000_000n - 1n });

  it("what it encodes, the decoder gives back", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(frame, time), { maxLength: 20 }), (records) => {
        const encoder = new CaptureEncoder();
        const file = concat([
          encoder.header(),
          ...records.map(([data, timestamp]) => encoder.record(data, timestamp)),
        ]);
        const expected = records.map(([data, timestamp]) => ({
          data,
          timestamp,
          originalLength: data.length,
        }));
        expect(decode(file)).toEqual({ frames: expected, error: undefined });
      }),
    );
  });

  it("begins with the little-endian nanosecond magic, version 2.4, snap length 262144, Ethernet", () => {
    expect(new CaptureEncoder().header()).toEqual(pcapHeader(true, { magic: 0xa1b23c4d, snap: 262144 }));
  });

  it("append() writes what record() gives, after what stands there, and says where it ends", () => {
    const encoder = new CaptureEncoder();
    const buffer = new Uint8Array(200);
    const first = encoder.append(buffer, 0, frameOf(60), 7n);
    const second = encoder.append(buffer, first, frameOf(61), 7n);
    expect([first, second]).toEqual([76, 153]);
    expect(buffer.subarray(0, second)).toEqual(
      concat([encoder.record(frameOf(60), 7n), encoder.record(frameOf(61), 7n)]),
    );
  });

  it("refuses what the format can't hold, and writes nothing", () => {
    const encoder = new CaptureEncoder();
    const buffer = new Uint8Array(75);
    expect(() => encoder.append(buffer, 0, frameOf(60), 0n)).toThrow(
      "record ends at 76, expected at most 75",
    );
    expect(() => encoder.append(buffer, 0, frameOf(4), -1n)).toThrow(RangeError);
    expect(() => encoder.append(buffer, 0, frameOf(4), (1n << 32n) * 1_000_000_000n)).toThrow(RangeError);
    expect(() => encoder.record(frameOf(MAXIMUM_FRAME + 1), 0n)).toThrow(RangeError);
    expect(buffer.every((byte) => byte === 0)).toBe(true);
  });
});

describe("capture files on disk", () => {
  let folder = "";
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "iovtee-capture-"));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  function read(path: string): CapturedFrame[] {
    return Array.from(readCapture(path), (frame) => ({ ...frame, data: frame.data.slice() }));
  }

  it("what CaptureWriter writes, readCapture reads, over many of its buffers", () => {
    const path = join(folder, "many.pcap");
    const writer = new CaptureWriter(path);
    const sizes = Array.from({ length: 3000 }, (_, index) =>
      index % 500 === 0 ? MAXIMUM_FRAME : 60 + (index % 1455),
    );
    for (let at = 0; at < sizes.length; at += 32)
      writer.write(sizes.slice(at, at + 32).map(frameOf), BigInt(at));
    writer.close();
    writer.close();
    let index = 0;
    for (const { data, timestamp } of readCapture(path)) {
      expect(timestamp).toBe(BigInt(index - (index % 32)));
      if (Buffer.compare(data, frameOf(sizes[index] ?? 0)) !== 0) expect.fail(`frame ${index} differs`);
      index++;
    }
    expect(index).toBe(sizes.length);
  });

  it("the file is valid at every moment: empty, half way without close(), and after it", () => {
    const path = join(folder, "interrupted.pcap");
    const writer = new CaptureWriter(path);
    expect(read(path)).toEqual([]);
    for (let burst = 0; burst < 20; burst++) {
      writer.write(
        Array.from({ length: 32 }, () => frameOf(1514)),
        0n,
      );
      read(path); // would throw at half a record
    }
    expect(read(path).length).toBeGreaterThan(0);
    writer.close();
    expect(read(path).length).toBe(640);
    expect(() => writer.write([frameOf(60)], 0n)).toThrow(`${path}: write() after close()`);
  });

  it("a refused frame leaves the ones before it", () => {
    const path = join(folder, "refused.pcap");
    const writer = new CaptureWriter(path);
    expect(() => writer.write([frameOf(60), frameOf(MAXIMUM_FRAME + 1)], 0n)).toThrow(RangeError);
    writer.close();
    expect(read(path).length).toBe(1);
  });

  it("a missing file, a directory and a place that can't be written are named", () => {
    const missing = join(folder, "missing.pcap");
    const expected = "a pcap or pcapng capture that can be read";
    expect(() => read(missing)).toThrow(`${missing}: no such file or directory, expected ${expected}`);
    mkdirSync(join(folder, "directory"));
    expect(() => read(join(folder, "directory"))).toThrow(`is a directory, expected ${expected}`);
    expect(() => new CaptureWriter(folder)).toThrow(
      `${folder}: is a directory, expected a file that can be written`,
    );
    expect(() => new CaptureWriter(join(folder, "none", "x.pcap"))).toThrow(CaptureError);
  });

  it.skipIf(process.platform !== "linux")("a full disk is named, and the writer is closed", () => {
    expect(() => new CaptureWriter("/dev/full")).toThrow(
      "/dev/full: no space left on the device, expected a file that can be written",
    );
  });

  it("a file broken in the middle gives the frames before, then the error with the path", () => {
    const path = join(folder, "broken.pcap");
    const good = concat([pcapHeader(false), pcapRecord(false, frameOf(60)), pcapRecord(false, frameOf(61))]);
    writeFileSync(path, good.subarray(0, good.length - 1));
    const lengths: number[] = [];
    expect(() => {
      for (const frame of readCapture(path)) lengths.push(frame.data.length);
    }).toThrow(`${path}: at byte 100: the file ends after 76 of the 77 bytes of a record, expected 1 more`);
    expect(lengths).toEqual([60]);
  });

  it.skipIf(process.platform !== "linux")("a reader that stops early closes its file", () => {
    const path = join(folder, "early.pcap");
    writeFileSync(path, fileOfAll(true).pcap);
    const open = () => readdirSync("/proc/self/fd").length;
    const before = open();
    for (const frame of readCapture(path)) {
      expect(frame.data.length).toBe(60);
      expect(open()).toBe(before + 1);
      break;
    }
    expect(open()).toBe(before);
  });
});

describe("the sample capture", () => {
  const frames = decode(new Uint8Array(readFileSync(SAMPLE))).frames;
  const etherType = (data: Uint8Array, at = 12) => ((data[at] ?? 0) << 8) | (data[at + 1] ?? 0);

  it("is at most 200,000 bytes, its frames 60 to 1514", () => {
    expect(readFileSync(SAMPLE).length).toBeLessThanOrEqual(200_000);
    const lengths = frames.map((frame) => frame.data.length);
    expect([Math.min(...lengths), Math.max(...lengths)]).toEqual([60, 1514]);
    expect(frames.every((frame) => frame.originalLength === frame.data.length)).toBe(true);
  });

  it("holds ARP, IPv4, IPv6, VLAN tags, TCP, UDP, ICMP, ICMPv6, broadcast and multicast", () => {
    const types = new Set(frames.map(({ data }) => etherType(data)));
    expect([...types].sort()).toEqual([0x0800, 0x0806, 0x8100, 0x86dd].sort());
    const protocols = (type: number, at: number) =>
      new Set(frames.filter(({ data }) => etherType(data) === type).map(({ data }) => data[at]));
    expect([...protocols(0x0800, 23)]).toEqual(expect.arrayContaining([1, 6, 17]));
    expect([...protocols(0x86dd, 20)]).toEqual(expect.arrayContaining([6, 17, 58]));
    expect(frames.some(({ data }) => data.subarray(0, 6).every((byte) => byte === 0xff))).toBe(true);
    expect(frames.some(({ data }) => data[0] === 0x33)).toBe(true);
    expect(frames.some(({ data }) => data[0] === 0x01)).toBe(true);
  });
});

const hasTshark = spawnSync("tshark", ["--version"]).status === 0;

describe.skipIf(!hasTshark)("tshark (skipped where it isn't installed)", () => {
  let folder = "";
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "iovtee-tshark-"));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  /** What tshark sees: each frame's bytes in hexadecimal and its time. */
  function dissect(path: string): { bytes: string; time: string; length: number }[] {
    const { stdout, status } = spawnSync("tshark", ["-n", "-r", path, "-T", "json", "-x", "-j", "frame"], {
      maxBuffer: 1 << 28,
    });
    expect(status).toBe(0);
    // biome-ignore lint/suspicious/noExplicitAny: another program's JSON
    return (JSON.parse(stdout.toString()) as any[]).map(({ _source: { layers } }) => ({
      bytes: layers.frame_raw[0],
      time: layers.frame["frame.time_epoch"],
      length: Number(layers.frame["frame.len"]),
    }));
  }

  function seen({ data, timestamp, originalLength }: CapturedFrame) {
    const fraction = String(timestamp % 1_000_000_000n).padStart(9, "0");
    return {
      bytes: Buffer.from(data).toString("hex"),
      time: `${timestamp / 1_000_000_000n}.${fraction}`,
      length: originalLength,
    };
  }

  it("reads what CaptureWriter writes: the same frames, bytes and times", () => {
    const path = join(folder, "written.pcap");
    const writer = new CaptureWriter(path);
    const expected: ReturnType<typeof seen>[] = [];
    let timestamp = 1_700_000_000_123_456_789n;
    for (const { data } of readCapture(SAMPLE)) {
      writer.write([data], timestamp);
      expected.push(seen({ data, timestamp, originalLength: data.length }));
      timestamp += 1_000_001n;
    }
    writer.close();
    expect(dissect(path)).toEqual(expected);
  });

  it("reads the sample capture as readCapture does", () => {
    expect(dissect(SAMPLE)).toEqual(Array.from(readCapture(SAMPLE), seen));
  });
});
