import fc from "fast-check";
import { expect, test } from "vitest";
import { Virtqueue } from "../assembly/layout.ts";
import { Host } from "../src/host.ts";
import { FrameGenerator } from "../src/ports/generator.ts";
import { frame, WIRE } from "./harness/host.ts";
import { canary, expectUnharmed, QUEUES } from "./harness/hostile.ts";

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

/** Every port that isn't the hostile guest's, and the host's own memory, must not notice. */
test.each(QUEUES)(
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
          const { intact } = canary(core);
          host.vswitch({ connect: [nic, good, hostile, other] });
          const to = [good.mac, other.mac];
          const generator = new FrameGenerator(host.core, { size: "imix", to, from: WIRE });
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
          expectUnharmed(host, generator, 32 * rounds.length);
          for (const guest of [good, other]) {
            expect(core.u32(guest.rxVirtqueue + Virtqueue.broken)).toBe(0);
            expect(core.u32(guest.txVirtqueue + Virtqueue.broken)).toBe(0);
          }
          expect(intact()).toBe(true);
        },
      ),
      { seed: 20, numRuns: 40 },
    );
  },
);
