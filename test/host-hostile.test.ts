import fc from "fast-check";
import { expect, test } from "vitest";
import { Kind, Virtqueue } from "../assembly/layout.ts";
import { Host } from "../src/host.ts";
import { FrameGenerator } from "../src/ports/generator.ts";

const scribble = fc.array(
  fc.record({
    // Most of it where the rings are, in the first 32 KiB; the rest anywhere.
    at: fc.oneof(fc.nat({ max: 32767 }), fc.nat({ max: 600_000 })),
    bytes: fc.uint8Array({ minLength: 1, maxLength: 64 }),
  }),
  { maxLength: 12 },
);
/** Addresses for valid descriptors of the receive ring: inside the region, and up to 3 MiB behind its end. */
const redirect = fc.array(fc.tuple(fc.nat({ max: 127 }), fc.nat({ max: 2 ** 22 - 1 })), { maxLength: 64 });
const CANARY = 4 * 2 ** 20;

/** Every port that isn't the hostile guest's, and the host's own memory, must not notice. */
test.each([
  ["split", "vhost", false],
  ["split", "iovtee", false],
  ["packed", "vhost", true],
  ["packed", "iovtee", true],
] as const)(
  "a guest on %s over %s that writes anything anywhere harms only itself",
  async (_ring, attach, packed) => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(redirect, scribble), { minLength: 1, maxLength: 12 }),
        async (rounds) => {
          const host = await Host.create({ memory: 32 * 2 ** 20 });
          const nic = host.nic({ ring: 512, queues: 4 });
          const options = { attach, packed, ring: 128, indirect: true, eventIdx: true };
          const [good, other] = [host.guest(options), host.guest(options)];
          const hostile = host.guest(options);
          // Behind the hostile guest's region comes memory that nobody may write.
          const { core } = host;
          const canary = core.made(core.exports.alloc(Kind.BYTES, CANARY, 64, 0), "canary");
          core.bytes.fill(0x5a, canary, canary + CANARY);
          host.vswitch({ connect: [nic, good, hostile, other] });
          const to = [good.mac, other.mac];
          const generator = new FrameGenerator(host.core, { size: "imix", to, from: "02:00:00:00:ff:01" });
          for (const [redirects, writes] of rounds) {
            for (const [slot, address] of redirects) core.setU32(hostile.region + slot * 16, address);
            nic.receive(Array.from({ length: 24 }, () => frame(hostile.mac)));
            host.drain(1000);
            for (const { at, bytes } of writes) {
              const from = hostile.region + (at % (hostile.regionSize - 64));
              core.bytes.set(bytes, from);
            }
            core.exports.generate(generator.address, nic.address, 32);
            host.drain(1000);
            core.exports.check(generator.address, nic.address, core.exports.toTransmit(nic.address));
          }
          // What the hostile guest sends is counted as corrupt: it carries no number of ours.
          expect(generator.check()).toMatchObject({
            sent: 32 * rounds.length,
            lost: 0,
            duplicated: 0,
            reordered: 0,
          });
          for (const guest of [good, other]) {
            expect(core.u32(guest.rxVirtqueue + Virtqueue.broken)).toBe(0);
            expect(core.u32(guest.txVirtqueue + Virtqueue.broken)).toBe(0);
          }
          expect(core.bytes.subarray(canary, canary + CANARY).every((byte) => byte === 0x5a)).toBe(true);
          const { pool } = host.stats();
          expect(pool.available + pool.outstanding).toBe(pool.buffers);
        },
      ),
      { seed: 20, numRuns: 40 },
    );
  },
);

/** A frame of 60 bytes to `mac`. */
function frame(mac: string): Uint8Array {
  const made = new Uint8Array(60).fill(1);
  made.set(mac.split(":").map((part) => Number.parseInt(part, 16)));
  made.set([2, 0, 0, 0, 0xff, 1, 8, 0], 6);
  return made;
}
