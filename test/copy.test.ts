/** Copies: every byte arrives, and none is written outside. */
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { type Functions, instantiate } from "./harness/harness.ts";

const SEED = 20;
const HEADER = 0x1000;
const LIST_FROM = 0x2000;
const LIST_TO = 0x3000;
const FROM = 0x10000;
const TO = 0x40000;
const LENGTHS = [...Array(301).keys(), 511, 512, 513, 1514, 9022];

let call: Functions;
let bytes: Uint8Array;
let view: DataView;
beforeAll(async () => {
  const harness = await instantiate();
  call = harness.call;
  bytes = new Uint8Array(harness.memory.buffer, 0, 0x80000);
  view = new DataView(harness.memory.buffer);
  for (let i = 0; i < 0x20000; i++) bytes[FROM + i] = i * 31 + (i >> 8) + 1;
  for (let i = 0; i < 16; i++) bytes[HEADER + i] = 0xc0 + i;
});

function list(at: number, segments: { addr: number; len: number }[]): void {
  for (const [i, { addr, len }] of segments.entries()) {
    view.setUint32(at + 16 * i, addr, true);
    view.setUint16(at + 16 * i + 4, len, true);
  }
}
/** Segments one behind the other, `gap` bytes apart. */
function laidOut(at: number, lengths: number[], gap: number): { addr: number; len: number }[] {
  return lengths.map((len, i) => {
    const before = lengths.slice(0, i).reduce((sum, n) => sum + n + gap, 0);
    return { addr: at + before, len };
  });
}
/** What a frame of these bytes is delivered as: it begins with the bytes that were checked. */
function delivered(frame: Uint8Array): Uint8Array {
  const out = frame.slice();
  out.set(bytes.subarray(HEADER, HEADER + Math.min(16, out.length)));
  return out;
}
function expectBytes(at: number, want: Uint8Array, what: string): void {
  const got = bytes.subarray(at - 64, at + want.length + 64);
  const fenced = new Uint8Array(want.length + 128).fill(0xee);
  fenced.set(want, 64);
  if (Buffer.compare(got, fenced)) expect.fail(what);
}

describe("copy", () => {
  it("bytes: every length, every alignment, nothing outside", () => {
    for (const n of LENGTHS)
      for (const off of [0, 1, 7]) {
        bytes.fill(0xee, TO - 64, TO + n + 128);
        call.copyBytes!(TO + off, FROM + 3 * off, n);
        expectBytes(TO + off, bytes.slice(FROM + 3 * off, FROM + 3 * off + n), `${n} bytes at ${off}`);
      }
  });

  it("frame: begins with the header that was checked, whatever stands in the source by now", () => {
    for (const n of LENGTHS)
      for (const off of [0, 1, 7]) {
        bytes.fill(0xee, TO - 64, TO + n + 128);
        call.copyFrame!(TO + off, FROM + off, n, HEADER);
        expectBytes(TO + off, delivered(bytes.slice(FROM + off, FROM + off + n)), `${n} bytes at ${off}`);
      }
  });

  it("reads nothing outside: the source may end where memory ends", () => {
    const end = view.byteLength;
    for (const n of LENGTHS) {
      call.copyBytes!(TO, end - n, n);
      call.copyFrame!(TO, end - n, n, HEADER);
    }
  });

  it("frames: a burst of any lengths, each behind `skip` bytes and with the header that was checked", () => {
    const short = [...Array(100).keys()].filter((n) => n >= 14);
    fc.assert(
      fc.property(
        fc
          .array(fc.constantFrom(...short, 255, 256, 257, 1514, 9022), { minLength: 1, maxLength: 32 })
          .filter((lengths) => lengths.reduce((a, b) => a + b, 0) < 0x18000),
        fc.constantFrom(0, 12),
        (lengths, skip) => {
          const from = laidOut(FROM, lengths, 3);
          const to = laidOut(
            TO,
            lengths.map((n) => n + skip),
            70,
          );
          const end = TO + lengths.reduce((sum, n) => sum + n + skip + 70, 0);
          bytes.fill(0xee, TO - 64, end + 64);
          list(LIST_FROM, from);
          list(
            LIST_TO,
            to.map(({ addr }) => ({ addr, len: 2048 })),
          );
          const headers = HEADER + 0x100;
          for (let i = 0; i < lengths.length * 16; i++) bytes[headers + i] = i * 7 + 5;
          const sum = lengths.reduce((a, b) => a + b, 0);
          expect(call.copyFrames!(LIST_TO, skip, LIST_FROM, lengths.length, headers)).toBe(sum);
          const want = bytes.slice(TO - 64, end + 64).fill(0xee);
          for (const [i, { addr, len }] of from.entries()) {
            const frame = bytes.slice(addr, addr + len);
            frame.set(bytes.subarray(headers + 16 * i, headers + 16 * i + Math.min(16, len)));
            want.set(frame, to[i]!.addr + skip - TO + 64);
            expect(view.getUint16(LIST_TO + 16 * i + 4, true)).toBe(len + skip);
          }
          expect(Buffer.compare(bytes.subarray(TO - 64, end + 64), want)).toBe(0);
        },
      ),
      { seed: SEED, numRuns: 200 },
    );
  });

  it("header: the first 16 bytes of a frame over any segments, zeros where it has none", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 20 }), { minLength: 1, maxLength: 18 }), (lengths) => {
        const segments = lengths.map((len, i) => ({ addr: FROM + 100 * i, len }));
        list(LIST_FROM, segments);
        call.copyHeader!(LIST_FROM, segments.length, TO);
        const frame = segments.flatMap((s) => [...bytes.subarray(s.addr, s.addr + s.len)]);
        expect([...bytes.subarray(TO, TO + 16)]).toEqual(Array.from({ length: 16 }, (_, i) => frame[i] ?? 0));
      }),
      { seed: SEED, numRuns: 300 },
    );
  });

  /** Scatters a frame over `from` segments into `to` buffers, and compares all memory around the buffers. */
  function scatter(from: number[], to: number[], skip: number): void {
    const source = laidOut(FROM, from, 5);
    const buffers = laidOut(TO + 64, to, 32);
    const end = buffers.at(-1)!.addr + buffers.at(-1)!.len + 64;
    bytes.fill(0xee, TO, end);
    const want = bytes.slice(TO, end);
    const total = from.reduce((sum, n) => sum + n, 0);
    const frame = delivered(
      Uint8Array.from(source.flatMap((s) => [...bytes.subarray(s.addr, s.addr + s.len)])),
    );
    let done = 0;
    let used = 0;
    for (const [i, b] of buffers.entries()) {
      const start = i ? 0 : skip;
      const n = Math.min(b.len - start, total - done);
      if (n > 0 || i === 0) used = i + 1;
      want.set(frame.subarray(done, done + n), b.addr + start - TO);
      done += n;
    }
    list(LIST_FROM, source);
    list(LIST_TO, buffers);
    expect(call.scatter!(LIST_TO, skip, LIST_FROM, total, HEADER)).toBe(used);
    if (Buffer.compare(bytes.subarray(TO, end), want)) expect.fail(`${from} into ${to}, from ${skip} on`);
  }

  it("scatter: every length from 0 to 300 and 1514, in one piece and in several", () => {
    for (const n of [...Array(301).keys(), 1514]) {
      scatter([n], [n + 12], 12);
      scatter([n], [Math.ceil(n / 3) + 12, Math.ceil(n / 3), n], 12);
      scatter([n >> 1, n - (n >> 1)], [n + 12], 12);
      scatter([Math.min(n, 5), 0, n - Math.min(n, 5)], [12, 3, n, 9], 12);
    }
  });

  it("scatter: any segments into any buffers that have the room", () => {
    const lengths = fc.array(fc.oneof(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 0, max: 600 })), {
      minLength: 1,
      maxLength: 10,
    });
    fc.assert(
      fc.property(lengths, lengths, fc.nat(12), (from, to, skip) => {
        const total = from.reduce((sum, n) => sum + n, 0);
        to[0]! += skip;
        scatter(from, [...to, Math.max(1, total)], skip);
      }),
      { seed: SEED, numRuns: 500 },
    );
  });
});
