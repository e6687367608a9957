import fc from "fast-check";
import { expect, test } from "vitest";
import { Virtqueue } from "../assembly/layout.ts";
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
      fc.asyncProperty(fc.array(scribble, { minLength: 1, maxLength: 12 }), async (rounds) => {
        const host = await Host.create({ memory: 32 * 2 ** 20 });
        const nic = host.nic({ ring: 512, queues: 4 });
        const options = { attach, packed, ring: 128, indirect: true, eventIdx: true };
        const [good, hostile, other] = [host.guest(options), host.guest(options), host.guest(options)];
        host.vswitch({ connect: [nic, good, hostile, other] });
        const to = [good.mac, other.mac];
        const generator = new FrameGenerator(host.core, { size: "imix", to, from: "02:00:00:00:ff:01" });
        const { core } = host;
        for (const writes of rounds) {
          for (const { at, bytes } of writes) {
            const from = hostile.region + (at % (hostile.regionSize - 64));
            core.bytes.set(bytes, from);
          }
          core.exports.generate(generator.address, nic.address, 32);
          host.drain(1000);
          core.exports.check(generator.address, nic.address);
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
        const { pool } = host.stats();
        expect(pool.available + pool.outstanding).toBe(pool.buffers);
      }),
      { seed: 20, numRuns: 60 },
    );
  },
);
