/** vDPDK against a guest that breaks every rule of its rings: its queue ends, with the reason counted; nobody else notices. */
import fc from "fast-check";
import { beforeEach, describe, expect, test } from "vitest";
import { VdpdkCall, VdpdkControl, VdpdkFlag } from "../assembly/layout.ts";
import { type Guest, Host, type Nic } from "../src/index.ts";
import { astray, ether, IPV4, numbered, numberOf, sent, WIRE } from "./frames.ts";
import { numbers } from "./harness/host.ts";
import { RawGuest } from "./harness/vdpdk.ts";

const { AVAIL, ATTACHED, NEXT } = VdpdkFlag;
const frame = (to: string) => ether(to, WIRE, IPV4, new Uint8Array(50));

interface Rig {
  host: Host;
  nic: Nic;
  bad: Guest;
  good: Guest;
  raw: RawGuest;
}

async function rig(zeroCopy: boolean): Promise<Rig> {
  const host = await Host.create({ memory: 64 * 2 ** 20 });
  const nic = host.nic({ ring: 64, queues: 4 });
  const vdpdk = { zeroCopyRx: zeroCopy, zeroCopyTx: zeroCopy };
  const bad = host.guest({ attach: "vdpdk", ring: 64, memory: 2 ** 20, vdpdk });
  const good = host.guest({ attach: "vdpdk", ring: 64, vdpdk });
  host.vmux({ nic, guests: [bad, good] });
  return { host, nic, bad, good, raw: new RawGuest(host, bad, 16) };
}

/** What the bad guest's queues were ended for. */
const reasons = (r: Rig) => {
  const drops = r.host.stats().ports.find(({ name }) => name === r.bad.name)?.drops ?? {};
  return Object.fromEntries(Object.entries(drops).filter(([reason]) => reason.startsWith("refused.")));
};

/** The other guest gets all of its frames, and sends them on; no host buffer is astray. */
function nobodyElseNotices(r: Rig): void {
  for (let i = 0; i < 5; i++) {
    r.nic.transmit();
    r.host.drain();
  }
  const before = r.host.stats().guests[1]?.received ?? 0;
  for (let i = 0; i < 4; i++) {
    expect(r.nic.receive(Array.from({ length: 32 }, () => frame(r.good.mac)))).toBe(32);
    r.host.drain();
    expect(r.nic.transmit()).toBe(32);
  }
  r.host.drain();
  expect(r.host.stats().guests[1]).toMatchObject({ received: before + 128, drops: {} });
  expect(astray(r.host)).toBe(0);
}

describe.each([true, false])("zero-copy %s", (zeroCopy) => {
  let r: Rig;
  beforeEach(async () => {
    r = await rig(zeroCopy);
  });

  const end = 2n ** 20n;
  test.each([
    ["just outside", end - 63n],
    ["far outside", 2n ** 40n],
    ["that wraps round", 2n ** 64n - 1n],
    ["in the other guest's memory", end],
  ])("a frame to send at an address %s", (_, addr) => {
    r.raw.write(r.raw.txRing, 0, { addr, len: 64, flags: AVAIL });
    r.host.drain();
    expect(reasons(r)).toEqual({ "refused.outOfRegion": 1 });
    expect(r.nic.toTransmit()).toEqual([]);
    nobodyElseNotices(r);
  });

  test.each([0, 13])("a frame of %d bytes", (len) => {
    r.raw.write(r.raw.txRing, 0, { addr: 0n, len, flags: AVAIL });
    r.host.drain();
    expect(reasons(r)).toEqual({ "refused.length": 1 });
    nobodyElseNotices(r);
  });

  test("a frame that is too long, in one segment or several", () => {
    r.raw.write(r.raw.txRing, 0, { addr: 0n, len: 9023, flags: AVAIL });
    r.host.drain();
    expect(reasons(r)).toEqual({ "refused.length": 1 });
    r.raw.setUp();
    for (let i = 0; i < 5; i++) {
      r.raw.write(r.raw.txRing, i, { addr: 0n, len: 2000, flags: i < 4 ? AVAIL | NEXT : AVAIL });
    }
    r.host.drain();
    expect(reasons(r)).toEqual({ "refused.length": 2 });
    nobodyElseNotices(r);
  });

  test("a chain without an end", () => {
    for (let i = 0; i < 16; i++) r.raw.write(r.raw.txRing, i, { addr: 0n, len: 64, flags: AVAIL | NEXT });
    r.host.drain();
    expect(reasons(r)).toEqual({ "refused.chain": 1 });
    nobodyElseNotices(r);
  });

  test("a chain of more segments than a frame may have", () => {
    const many = new RawGuest(r.host, r.bad, 128);
    for (let i = 0; i < 100; i++)
      many.write(many.txRing, i, { addr: 0n, len: 14, flags: i < 99 ? AVAIL | NEXT : AVAIL });
    r.host.drain();
    expect(reasons(r)).toEqual({ "refused.chain": 1 });
    nobodyElseNotices(r);
  });

  test("a chain whose end never comes is waited for", () => {
    r.raw.write(r.raw.txRing, 0, { addr: 0n, len: 64, flags: AVAIL | NEXT });
    r.host.drain();
    expect(reasons(r)).toEqual({});
    nobodyElseNotices(r);
  });

  test("a descriptor that says that the card has it, when it hasn't", () => {
    r.raw.write(r.raw.txRing, 0, { addr: 0n, len: 64, flags: AVAIL | ATTACHED });
    r.host.drain();
    expect(reasons(r)).toEqual({ "refused.stale": 1 });
    nobodyElseNotices(r);
  });

  test("an offload that wasn't asked for at set-up", () => {
    r.raw.send(frame(WIRE), { offload: 1 });
    r.host.drain();
    expect(reasons(r)).toEqual({ "refused.offload": 1 });
    nobodyElseNotices(r);
  });

  test.each([
    ["outside", 2n ** 40n, 2048, "outOfRegion"],
    ["in the other guest's memory", end - 1n, 2048, "outOfRegion"],
    ["too short", 0n, 63, "length"],
  ])("a receive buffer that is %s", (_, addr, len, why) => {
    r.raw.write(r.raw.rxRing, 0, { addr, len, flags: AVAIL });
    r.host.drain();
    r.nic.receive([frame(r.bad.mac)]);
    r.host.drain();
    expect(reasons(r)).toEqual({ [`refused.${why}`]: 1 });
    nobodyElseNotices(r);
  });

  test("a queue that was ended is set up again, and works", () => {
    r.raw.write(r.raw.txRing, 0, { addr: 2n ** 40n, len: 64, flags: AVAIL });
    r.raw.write(r.raw.rxRing, 0, { addr: 2n ** 40n, len: 2048, flags: AVAIL });
    r.host.drain();
    r.nic.receive([frame(r.bad.mac)]);
    r.host.drain();
    expect(reasons(r)).toEqual({ "refused.outOfRegion": 2 });
    r.raw.setUp();
    r.raw.post(8);
    r.raw.send(frame(WIRE));
    r.host.drain();
    r.nic.receive([frame(r.bad.mac)]);
    r.host.drain();
    expect(r.nic.transmit()).toBe(1);
    expect(r.raw.receive()?.frame).toEqual(frame(r.bad.mac));
    nobodyElseNotices(r);
  });
});

test("a stale free: what the card has is taken back by the guest", async () => {
  const r = await rig(true);
  r.raw.send(frame(WIRE));
  r.raw.send(frame(WIRE));
  r.host.drain();
  r.raw.write(r.raw.txRing, 1, { addr: 0n, len: 64, flags: 0 });
  r.nic.transmit();
  r.host.drain();
  expect(reasons(r)).toEqual({ "refused.stale": 1 });
  nobodyElseNotices(r);
});

// Descriptors are looked at several at a time: a bad one is found wherever it stands among good ones.
describe.each([0, 1, 2, 3, 4, 5, 6, 7])("behind %d good ones", (n) => {
  const outside = { addr: 2n ** 20n - 63n, len: 64 };
  /** Numbers of the frames that the bad guest gets. */
  const received = ({ raw }: Rig) => {
    const got: number[] = [];
    for (let one = raw.receive(); one; one = raw.receive()) got.push(numberOf(one.frame));
    return got;
  };

  test.each([true, false])("a frame to send that lies outside, zero-copy %s", async (zeroCopy) => {
    const r = await rig(zeroCopy);
    for (let i = 0; i < 10; i++) r.raw.send(numbered(frame(WIRE), i));
    r.raw.write(r.raw.txRing, n, { ...outside, flags: AVAIL });
    r.host.drain();
    expect(reasons(r)).toEqual({ "refused.outOfRegion": 1 });
    expect(sent(r.nic).map(numberOf)).toEqual(numbers(n));
    nobodyElseNotices(r);
  });

  test.each([true, false])("a buffer to receive into that lies outside, zero-copy %s", async (zeroCopy) => {
    const r = await rig(zeroCopy);
    r.raw.post(10);
    r.raw.write(r.raw.rxRing, n, { ...outside, flags: AVAIL });
    r.host.drain();
    r.nic.receive(numbers(10).map((i) => numbered(frame(r.bad.mac), i)));
    r.host.drain();
    expect(reasons(r)).toEqual({ "refused.outOfRegion": 1 });
    // Of a queue of its own that was ended nothing more is received; what was copied before is there.
    expect(received(r)).toEqual(zeroCopy ? [] : numbers(n));
    nobodyElseNotices(r);
  });

  test("a buffer that is taken back while the card has it", async () => {
    const r = await rig(true);
    r.raw.post(10);
    r.host.drain();
    r.raw.write(r.raw.rxRing, n, { addr: 0n, len: 64, flags: AVAIL });
    r.nic.receive(numbers(10).map((i) => numbered(frame(r.bad.mac), i)));
    r.host.drain();
    expect(reasons(r)).toEqual({ "refused.stale": 1 });
    expect(received(r)).toEqual(numbers(n));
    nobodyElseNotices(r);
  });

  test("a frame that is taken back while the card sends it", async () => {
    const r = await rig(true);
    for (let i = 0; i < 10; i++) r.raw.send(frame(WIRE));
    r.host.drain();
    r.raw.write(r.raw.txRing, n, { addr: 0n, len: 64, flags: 0 });
    expect(r.nic.transmit()).toBe(10);
    r.host.drain();
    expect(reasons(r)).toEqual({ "refused.stale": 1 });
    nobodyElseNotices(r);
  });
});

test.each([0, AVAIL, ATTACHED])(
  "a posted buffer whose flags become %d while the card has it",
  async (flags) => {
    const r = await rig(true);
    r.raw.post(8);
    r.host.drain();
    r.raw.write(r.raw.rxRing, 1, { addr: 0n, len: 64, flags });
    r.nic.receive([frame(r.bad.mac), frame(r.bad.mac), frame(r.bad.mac)]);
    r.host.drain();
    expect(reasons(r)).toEqual({ "refused.stale": 1 });
    expect(r.raw.receive()?.frame).toEqual(frame(r.bad.mac));
    nobodyElseNotices(r);
  },
);

test("a copied receive ring that is ended loses what was on its way, counted", async () => {
  const r = await rig(false);
  r.raw.post(2);
  r.raw.write(r.raw.rxRing, 2, { addr: 2n ** 40n, len: 2048, flags: AVAIL });
  r.nic.receive([frame(r.bad.mac), frame(r.bad.mac), frame(r.bad.mac), frame(r.bad.mac)]);
  r.host.drain();
  expect(r.host.stats().ports.find(({ name }) => name === r.bad.name)).toMatchObject({
    drops: { "refused.outOfRegion": 1 },
  });
  const { txPackets, drops } = r.host.stats().ports.find(({ name }) => name === r.bad.name) as never;
  expect(txPackets + (drops as Record<string, number>).down).toBe(4);
  nobodyElseNotices(r);
});

test("whatever stands in the guest's rings and control page, others get all of theirs", async () => {
  for (const zeroCopy of [true, false]) {
    const r = await rig(zeroCopy);
    const { core } = r.host;
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            ring: fc.boolean(),
            slot: fc.integer({ min: 0, max: 15 }),
            addr: fc.oneof(
              fc.integer({ min: 0, max: 2 ** 20 }).map(BigInt),
              fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
            ),
            len: fc.integer({ min: 0, max: 65535 }),
            flags: fc.integer({ min: 0, max: 7 }),
            offload: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 127 })),
            tci: fc.integer({ min: 0, max: 65535 }),
            mss: fc.integer({ min: 0, max: 65535 }),
          }),
          { maxLength: 40 },
        ),
        fc.integer({ min: 0, max: 14 }),
        (writes, call) => {
          for (const { ring, slot, ...d } of writes) r.raw.write(ring ? r.raw.rxRing : r.raw.txRing, slot, d);
          core.setU32(r.bad.region + VdpdkControl.call, call);
          core.setU32(r.bad.region + VdpdkControl.offloads, writes.length % 4 ? 0 : 95);
          core.setU32(r.bad.region + VdpdkControl.queue, 0);
          core.exports.callVdpdk(r.raw.device.device);
          r.nic.receive([frame(r.bad.mac), frame(r.good.mac), frame(r.bad.mac)]);
          r.host.drain();
          r.nic.transmit();
          // A queue that was ended is set up again, so that there is always something to break.
          if (call > 10) r.raw.setUp({ rx: 7, tx: 95 });
        },
      ),
      { numRuns: 1500, seed: 11 },
    );
    expect(r.host.stats().guests[1]).toMatchObject({ received: 1500, transmitted: 1500, drops: {} });
    expect(Object.keys(reasons(r)).length).toBeGreaterThan(2);
    for (const call of [VdpdkCall.RX_STOP, VdpdkCall.TX_STOP]) r.raw.device.call(call);
    nobodyElseNotices(r);
  }
});
