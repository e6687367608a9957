/** Toeplitz: Microsoft's vectors ("Verifying the RSS Hash Calculation"). */
import { beforeAll, expect, it } from "vitest";
import { type Functions, instantiate } from "./harness/harness.ts";

const KEY = 0x1000;
const INPUT = 0x2000;
const FLOW = 0x3000;
const SCRATCH = 0x4000;
const key = Buffer.from(
  "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa",
  "hex",
);

let call: Functions;
let bytes: Uint8Array;
beforeAll(async () => {
  const harness = await instantiate();
  call = harness.call;
  bytes = new Uint8Array(harness.memory.buffer);
  bytes.set(key, KEY);
});

/** Destination address and port, source address and port, hash of the addresses, hash with the ports. */
const VECTORS = [
  ["161.142.100.80", 1766, "66.9.149.187", 2794, 0x323e8fc2, 0x51ccc178],
  ["65.69.140.83", 4739, "199.92.111.2", 14230, 0xd718262a, 0xc626b0ea],
  ["12.22.207.184", 38024, "24.19.198.95", 12898, 0xd2d0a5de, 0x5c2b394a],
  ["209.142.163.6", 2217, "38.27.205.30", 48228, 0x82989176, 0xafc7327f],
  ["202.188.127.2", 1303, "153.39.163.191", 44251, 0x5d1809c5, 0x10e828a2],
  ["3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x2cc18cd5, 0x40207d3d],
  ["ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0x0f0c461c, 0xdde51bbf],
  ["fe80::200:f8ff:fe21:67cf", 38024, "3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, 0x4b61e985, 0x02d1feef],
] as const;

function address(text: string): number[] {
  if (!text.includes(":")) return text.split(".").map(Number);
  const [left = [], right = []] = text.split("::").map((half) => half.split(":"));
  const groups = [...left, ...Array(text.includes("::") ? 8 - left.length - right.length : 0).fill("0")];
  if (text.includes("::")) groups.push(...right);
  return groups.flatMap((g) => [Number.parseInt(g, 16) >> 8, Number.parseInt(g, 16) & 255]);
}
const be16 = (n: number) => [n >> 8, n & 255];

it.each(VECTORS)(
  "hashes what goes to %s port %i from %s port %i",
  (to, toPort, from, fromPort, plain, withPorts) => {
    const addresses = [...address(from), ...address(to)];
    bytes.set([...addresses, ...be16(fromPort), ...be16(toPort)], INPUT);
    expect(call.toeplitz!(KEY, INPUT, addresses.length) >>> 0).toBe(plain);
    expect(call.toeplitz!(KEY, INPUT, addresses.length + 4) >>> 0).toBe(withPorts);

    bytes.fill(0, FLOW, FLOW + 40);
    bytes.set(address(from), FLOW);
    bytes.set(address(to), FLOW + 16);
    bytes.set([...be16(fromPort), ...be16(toPort), 6, to.includes(":") ? 6 : 4], FLOW + 32);
    expect(call.toeplitzFlow!(KEY, FLOW, SCRATCH) >>> 0).toBe(withPorts);
  },
);

it("is 0 for no bytes and for zeros, and linear: the hash of a ^ b is the hash of a ^ that of b", () => {
  const hash = (list: number[]) => {
    bytes.set(list, INPUT);
    return call.toeplitz!(KEY, INPUT, list.length) >>> 0;
  };
  expect([hash([]), hash(Array(36).fill(0))]).toEqual([0, 0]);
  const a = Array.from({ length: 36 }, (_, i) => (i * 37) & 255);
  const b = Array.from({ length: 36 }, (_, i) => (i * 91 + 5) & 255);
  expect(hash(a.map((x, i) => x ^ b[i]!))).toBe((hash(a) ^ hash(b)) >>> 0);
});
