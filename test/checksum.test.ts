/** The Internet checksum, against RFC 1071's definition. */
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { type Functions, instantiate } from "./harness/harness.ts";

const SEED = 20;
const AT = 0x1000;

let call: Functions;
let bytes: Uint8Array;
beforeAll(async () => {
  const harness = await instantiate();
  call = harness.call;
  bytes = new Uint8Array(harness.memory.buffer, 0, 0x40000);
});

/** RFC 1071, 1: 16-bit words, one's complement, an odd byte padded with zero. */
function reference(list: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < list.length; i += 2) {
    sum += (list[i]! << 8) | (list[i + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return sum ^ 0xffff;
}
function of(list: ArrayLike<number>, at = AT): number {
  bytes.fill(0xff, at - 64, at + list.length + 64);
  bytes.set(list, at);
  return call.checksum!(at, list.length);
}

describe("checksum", () => {
  it("is RFC 1071's example: 00 01 f2 03 f4 f5 f6 f7 adds up to ddf2", () => {
    expect(of([0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])).toBe(0xddf2 ^ 0xffff);
  });

  it("is that of a known IPv4 header", () => {
    expect(of(Buffer.from("45000073000040004011" + "0000" + "c0a80001c0a800c7", "hex"))).toBe(0xb861);
  });

  it("is right at every length from 0 to 300 and at 1514 and 65535, aligned or not, and reads nothing behind it", () => {
    for (const n of [...Array(301).keys(), 1514, 65535])
      for (const off of [0, 1, 3]) {
        const list = Uint8Array.from({ length: n }, (_, i) => i * 73 + n);
        if (of(list, AT + off) !== reference(list)) expect.fail(`${n} bytes at ${off}`);
      }
  });

  it("carries over and over: all ones, however many, are 0", () => {
    for (const n of [2, 4, 6, 100, 65534]) expect(of(new Uint8Array(n).fill(255))).toBe(0);
    expect(call.checksumFinish!(0xffff_ffff_ffff_ffffn)).toBe(0);
    expect(call.checksumFinish!(0x1_0000_0000_0001n)).toBe(2 ^ 0xffff);
    expect(call.checksumFinish!(0n)).toBe(0xffff);
  });

  it("may be added up in parts of even length", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), fc.nat(200), (list, half) => {
        const cut = Math.min(2 * half, list.length & ~1);
        bytes.set(list, AT);
        const sum = call.checksumAdd!(call.checksumAdd!(0n, AT, cut), AT + cut, list.length - cut);
        expect(call.checksumFinish!(BigInt.asUintN(64, sum))).toBe(reference(list));
      }),
      { seed: SEED },
    );
  });

  it("of a pseudo-header is over addresses, protocol and length (RFC 768; RFC 8200, 8.1)", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(4, 16),
        fc.uint8Array({ minLength: 32, maxLength: 32 }),
        fc.constantFrom(6, 17, 58),
        fc.nat(65535),
        (n, list, protocol, length) => {
          bytes.set(list, AT);
          const words = [...list.subarray(0, n), ...list.subarray(16, 16 + n)];
          const sum = call.checksumPseudo!(AT, AT + 16, n, protocol, length);
          const want = reference([...words, 0, protocol, length >> 8, length & 255]);
          expect(call.checksumFinish!(BigInt.asUintN(64, sum))).toBe(want);
        },
      ),
      { seed: SEED },
    );
  });

  it("stands in network order, and makes its header add up to 0", () => {
    call.checksumPut!(AT, 0x1234);
    expect([...bytes.subarray(AT, AT + 2)]).toEqual([0x12, 0x34]);
    const header = Buffer.from("45000073000040004011" + "0000" + "c0a80001c0a800c7", "hex");
    const value = of(header);
    call.checksumPut!(AT + 10, value);
    expect(call.checksum!(AT, 20)).toBe(0);
  });
});
