import { beforeAll, describe, expect, it } from "vitest";
import { FREE, type Harness, instantiate, instantiateWithLoader } from "./harness/harness.ts";

describe("the harness, bound by as-bind", () => {
  let harness: Harness;
  beforeAll(async () => {
    harness = await instantiate();
  });

  it("passes typed arrays in", () => {
    expect(harness.call.sum!(Uint8Array.of(1, 2, 3, 255))).toBe(261);
    expect(harness.call.sum!(new Uint8Array(0))).toBe(0);
  });

  it("passes part of a larger buffer", () => {
    expect(harness.call.sum!(Uint8Array.of(9, 1, 2, 9).subarray(1, 3))).toBe(3);
  });

  it("gives typed arrays back", () => {
    expect(harness.call.reversed!(Uint8Array.of(1, 2, 3))).toEqual(Uint8Array.of(3, 2, 1));
  });

  it("passes strings in and gives them back", () => {
    expect(harness.call.lengthOf!("größer 🦊")).toBe(9);
    expect(harness.call.describe!(17)).toBe("17 = 0x11");
  });

  it("stays right over many calls, with the collector at work", () => {
    const bytes = new Uint8Array(50_000).fill(1);
    for (let i = 0; i < 500; i++) {
      bytes[0] = i;
      expect(harness.call.reversed!(bytes)[49_999]).toBe(i & 255);
    }
    expect(harness.memory.buffer.byteLength).toBeLessThan(64 << 20);
  });

  it("leaves the memory below 16 MiB to the test", () => {
    expect(new Uint8Array(harness.memory.buffer, 0, FREE).every((byte) => byte === 0)).toBe(true);
    new Uint32Array(harness.memory.buffer)[4] = 0x1234;
    expect(harness.call.peek!(16)).toBe(0x1234);
  });
});

describe("the harness, bound by @assemblyscript/loader", () => {
  it("passes strings and typed arrays as pointers", async () => {
    const core = await instantiateWithLoader();
    const text = core.__newString("loader");
    expect(core.lengthOf!(text)).toBe(6);
    expect(core.__getString(core.describe!(255))).toBe("255 = 0xff");
  });
});
