/** What tests of hostile guests have in common: the kinds of queues, memory that nobody may write, what others must not notice. */
import { expect } from "vitest";
import { Kind } from "../../assembly/layout.ts";
import type { Core, FrameGenerator, Host } from "../../src/index.ts";

/** Virtqueues of either format, by either way: the format, the attachment, `packed`. */
export const QUEUES = [
  ["split", "vhost", false],
  ["split", "iovtee", false],
  ["packed", "vhost", true],
  ["packed", "iovtee", true],
] as const;

const FILL = 0x5a;

/** Memory that nobody may write, behind what was placed last. */
export function canary(core: Core, bytes = 4 * 2 ** 20) {
  const at = core.place(Kind.BYTES, bytes, "canary").address;
  core.bytes.fill(FILL, at, at + bytes);
  return { at, intact: () => core.bytes.subarray(at, at + bytes).every((byte) => byte === FILL) };
}

/** Of the others' frames all `sent` came back, each once and in order, and no host buffer is missing. */
export function expectUnharmed(host: Host, generator: FrameGenerator, sent: number): void {
  // What a hostile guest sends is counted as corrupt: it carries no number of ours.
  expect(generator.check()).toMatchObject({ sent, lost: 0, duplicated: 0, reordered: 0 });
  expectNoBufferLost(host);
}

/** Each buffer of the host's pool is in it or out, none is both or neither. */
export function expectNoBufferLost(host: Host): void {
  const { available, outstanding, buffers } = host.stats().pool;
  expect(available + outstanding).toBe(buffers);
}
