/**
 * A guest that owns a function of the card, and writes anything to its rings, its buffers' addresses and its registers: its
 * rings stop, with the reason counted. Nobody else notices, and no byte outside its memory is read or written.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FunctionRing, IO_PAGE, Packet } from "../assembly/layout.ts";
import { Host } from "../src/index.ts";
import { FrameGenerator } from "../src/ports/generator.ts";
import { FunctionDriver } from "./harness/function-driver.ts";
import { frame, randomOf, WIRE } from "./harness/host.ts";
import { canary, expectUnharmed } from "./harness/hostile.ts";
import { scribble } from "./harness/scribble.ts";

const HOSTILE = "02:00:00:00:66:66";

/** A card with two good guests at functions, one at the host's switch, and a function for a hostile one. */
async function rig(shared = false) {
  const host = await Host.create({ memory: 64 * 2 ** 20, shared });
  const { core } = host;
  const nic = host.nic({ ring: 512 });
  const beside = host.guest({ attach: "vhost", ring: 128 });
  const sw = host.vswitch({ connect: [nic, beside] });
  const good = [0, 1].map(() => host.guest({ attach: "sriov", nic, ring: 128 }));
  const vf = nic.createVf({ mac: HOSTILE, spoofCheck: false });
  const to = [...good, beside].map(({ mac }) => mac);
  const generator = new FrameGenerator(core, { size: "imix", to, from: WIRE });
  const cycle = (n: number) => {
    core.exports.generate(generator.address, nic.address, n);
    host.drain(1000);
    core.exports.check(generator.address, nic.address, core.exports.toTransmit(nic.address));
  };
  /** The others got and sent all frames, and hold all buffers. */
  const unharmed = (sent: number) => {
    expectUnharmed(host, generator, sent);
    for (const one of host.stats().functions) if (one.name !== vf.name) expect(one.faults).toEqual({});
  };
  return { host, core, nic, sw, good, vf, generator, cycle, unharmed };
}

const u16 = fc.nat({ max: 0xffff });
const u32 = fc.nat({ max: 0xffff_ffff });
/** Any number, one near the region's end, or one that may be right. */
const address = fc.oneof(u32, fc.integer({ min: 300_000, max: 340_000 }), fc.nat({ max: 270_000 }));
const length = fc.oneof(u16, fc.nat({ max: 2100 }));
const descriptor = fc.record({
  ring: fc.boolean(),
  slot: fc.nat({ max: 63 }),
  addr: address,
  len: length,
  flags: fc.oneof(fc.nat({ max: 7 }), u16),
  rest: fc.tuple(u32, u32),
});
/** A tail register moves a little, as a rule. */
const tail = fc.oneof({ weight: 8, arbitrary: fc.nat({ max: 70 }) }, { weight: 1, arbitrary: u32 });

test("every field of a descriptor and every register may be anything", async () => {
  const seen = new Set<string>();
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.record({ descriptors: fc.array(descriptor, { maxLength: 24 }), rx: tail, tx: tail, armed: u32 }),
        {
          minLength: 1,
          maxLength: 12,
        },
      ),
      async (rounds) => {
        const r = await rig();
        const { core, vf } = r;
        const driver = new FunctionDriver(r.host, vf);
        const { intact } = canary(r.core);
        let rxTail = 64;
        let txTail = 0;
        for (const { descriptors, rx, tx, armed } of rounds) {
          for (const { ring, slot, addr, len, flags, rest } of descriptors) {
            const at = driver.region + (ring ? driver.rxRing : driver.txRing) + slot * Packet.SIZE;
            core.setU32(at + Packet.addr, addr);
            core.setU16(at + Packet.len, len);
            core.setU16(at + Packet.flags, flags);
            core.setFields(at, { [Packet.owner]: rest[0], [Packet.room]: rest[1] });
          }
          rxTail = (rxTail + rx) >>> 0;
          txTail = (txTail + tx) >>> 0;
          driver.receiveTail = rxTail;
          driver.transmitTail = txTail;
          core.setU32(vf.rx + FunctionRing.armed, armed);
          core.setU32(vf.tx + FunctionRing.armed, armed);
          r.nic.receive(Array.from({ length: 8 }, (_, i) => frame(HOSTILE, i, 60 + 400 * i)));
          r.cycle(32);
          for (const ring of [vf.rx, vf.tx]) {
            if (!driver.broken(ring)) continue;
            const head = core.u32(ring + FunctionRing.head);
            r.nic.receive([frame(HOSTILE)]);
            r.nic.toTransmit();
            expect(core.u32(ring + FunctionRing.head)).toBe(head); // a stopped ring stays so
          }
          r.cycle(32);
          // Each is said once why.
          const { faults } = r.host.stats().functions.find(({ name }) => name === vf.name)!;
          for (const why of Object.keys(faults)) seen.add(why);
          if (driver.broken(vf.rx) || driver.broken(vf.tx)) {
            driver.start();
            rxTail = 64;
            txTail = 0;
          }
        }
        r.unharmed(64 * rounds.length);
        expect(intact()).toBe(true);
      },
    ),
    { seed: 4, numRuns: 30 },
  );
  expect([...seen]).toEqual(expect.arrayContaining(["address", "length", "tail"]));
});

test("a guest whose own memory is overwritten, rings and buffers, goes on with what it finds there", async () => {
  const write = fc.record({
    at: fc.oneof(fc.nat({ max: 4095 }), fc.nat({ max: 600_000 })),
    bytes: fc.uint8Array({ minLength: 1, maxLength: 64 }),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(write, { maxLength: 12 }), { minLength: 1, maxLength: 12 }),
      async (rounds) => {
        const r = await rig();
        const hostile = r.host.guest({ attach: "sriov", vf: r.vf, ring: 128 });
        const { intact } = canary(r.core);
        for (const writes of rounds) {
          r.nic.receive(Array.from({ length: 24 }, (_, i) => frame(HOSTILE, i)));
          r.host.drain(1000);
          for (const { at, bytes } of writes) {
            r.core.bytes.set(bytes, hostile.region + (at % (hostile.regionSize - 64)));
          }
          r.cycle(32);
        }
        r.unharmed(32 * rounds.length);
        expect(intact()).toBe(true);
      },
    ),
    { seed: 5, numRuns: 30 },
  );
});

describe("while another thread overwrites its rings", () => {
  test.each([1, 2, 3])("and lcores run: seed %i", async (seed) => {
    const r = await rig(true);
    const hostile = r.host.guest({ attach: "sriov", vf: r.vf, ring: 128 });
    const { intact } = canary(r.core);
    const { done } = await r.host.launch([[...r.good, hostile]]);
    const garbage = scribble(hostile, seed);
    const random = randomOf(seed);
    const { exports } = r.core;
    let sent = 0;
    for (const end = performance.now() + 700; performance.now() < end; ) {
      r.nic.receive(
        Array.from({ length: 16 }, (_, i) => frame(HOSTILE, i, 60 + Math.floor(random() * 1400))),
      );
      if (random() < 0.01) r.core.setU32(r.vf.rx + FunctionRing.tail, Math.floor(random() * 2 ** 32));
      if (random() < 0.01) r.core.setU32(r.vf.tx + FunctionRing.tail, Math.floor(random() * 2 ** 32));
      if (random() < 0.05) r.vf.iommu?.unmap(IO_PAGE * Math.floor(random() * 8), IO_PAGE);
      if (random() < 0.2) {
        r.vf.iommu?.map(0, hostile.regionSize);
        hostile.reset();
      }
      exports.generate(r.generator.address, r.nic.address, 30);
      sent += 30;
      for (
        const late = performance.now() + 2000;
        r.generator.check().lost > 0 && performance.now() < late;
      ) {
        r.host.poll();
        exports.check(r.generator.address, r.nic.address, exports.toTransmit(r.nic.address));
      }
    }
    await garbage.stop();
    r.unharmed(sent);
    const { faults } = r.host.stats().functions.find(({ name }) => name === r.vf.name)!;
    expect(Object.keys(faults).length).toBeGreaterThan(0);
    r.host.stop();
    await done;
    expect(intact()).toBe(true);
  });
});
