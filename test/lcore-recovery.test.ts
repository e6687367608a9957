/** After an lcore has died while a card, a pipe or a ring holds buffers that were lent: each is found again, exactly once. */
import { afterEach, describe, expect, test } from "vitest";
import { LCORES_MAX, Pool, PoolCache, Ring, Virtqueue } from "../assembly/layout.ts";
import { type Attach, type Guest, type GuestOptions, Host, LcoreError, type Role } from "../src/index.ts";
import { misplaced } from "./harness/accountant.ts";
import { frame, misplacedInPool, numberOf, randomOf, sent } from "./harness/host.ts";

const hosts: Host[] = [];
afterEach(() => {
  for (const host of hosts.splice(0)) host.stop();
});

const numbers = (n: number) => Array.from({ length: n }, (_, i) => i);

/** A card and three guests, on a switch, at bridges, or past it; who runs what else than this thread. */
async function rig(
  attach: Attach,
  options: GuestOptions = {},
  more: { buffers?: number; flowOffload?: boolean } = {},
) {
  const { buffers = 4096, ...card } = more;
  const host = await Host.create({ shared: true, memory: 96 * 2 ** 20, buffers });
  hosts.push(host);
  const alone = attach === "passthrough";
  const nics = numbers(alone ? 3 : 1).map(() => host.nic({ ring: 64, queues: 8, ...card }));
  const bypasses = alone || attach === "sriov";
  const guests = numbers(3).map((i) =>
    host.guest({ attach, ring: 64, ...(bypasses ? { nic: nics[alone ? i : 0]! } : {}), ...options }),
  );
  const bound = attach === "vdpdk";
  const sw = bypasses
    ? undefined
    : bound
      ? host.vmux({ nic: nics[0]!, guests })
      : host.vswitch({ connect: attach === "pipe" ? nics : [...nics, ...guests] });
  if (attach === "pipe") for (const guest of guests) host.bridge(nics[0]!, guest);
  const nicOf = (guest: Guest) => nics[alone ? guests.indexOf(guest) : 0]!;
  return { host, core: host.core, nics, nic: nics[0]!, guests, sw, nicOf };
}
type Rig = Awaited<ReturnType<typeof rig>>;

function wrongIn(r: Rig): string[] {
  return [
    ...misplacedInPool(r),
    ...r.guests.flatMap((guest) =>
      misplaced(r.host, r.nicOf(guest), guest).map((one) => `${guest.name}: ${one}`),
    ),
  ];
}

/** Buffers that lie in lcores' caches, where no other lcore finds them. */
function cached({ core, host }: Rig): number {
  const lengths = [host.pool, ...host.bridges.map(({ pool }) => pool)].flatMap((pool) =>
    numbers(LCORES_MAX).map((i) => core.u32(pool + Pool.caches + i * PoolCache.SIZE + PoolCache.length)),
  );
  return lengths.reduce((sum, n) => sum + n, 0);
}

/** Frames for each guest, by its card. */
function receive(r: Rig, n: number): void {
  for (const guest of r.guests) r.nicOf(guest).receive(numbers(n).map((i) => frame(guest.mac, i)));
}

/** Until nothing moves on this thread, with all that the cards have to send. */
function settle(r: Rig): void {
  for (let moved = 1; moved > 0; ) {
    moved = r.host.drain();
    for (const nic of r.nics) moved += nic.transmit();
  }
}

/** Of each guest: numbers of the frames that come back when it is sent as many as it takes. */
function roundTrip(r: Rig): number[][] {
  const back = r.guests.map((): number[] => []);
  for (let i = 0; i < 200; i += 8) {
    for (const guest of r.guests) r.nicOf(guest).receive(numbers(8).map((k) => frame(guest.mac, i + k)));
    r.host.drain();
    for (const nic of r.nics) {
      for (const one of sent({ nic } as Parameters<typeof sent>[0])) {
        const from = [...one.subarray(6, 12)].map((byte) => byte.toString(16).padStart(2, "0")).join(":");
        back[r.guests.findIndex(({ mac }) => mac === from)]?.push(numberOf(one));
      }
    }
  }
  return back;
}

/** One lcore, of those that run `roles`, dies. @returns its error */
async function killed(r: Rig, roles: readonly (Role | readonly Role[])[], which: number, first: () => void) {
  const { done } = await r.host.launch(roles);
  first();
  await r.host.lcores[which]?.kill();
  const error = await done.catch((one) => one);
  expect(error).toBeInstanceOf(LcoreError);
  return error as LcoreError;
}

const ATTACHMENTS: [Attach, GuestOptions][] = [
  ["vhost", { zeroCopyTx: true }],
  ["vhost", { zeroCopyTx: true, packed: true, eventIdx: true }],
  ["iovtee", {}],
  ["iovtee", { packed: true, onEmpty: "wait" }],
  ["kernel", {}],
  ["vmdq", {}],
  ["netmap", {}],
  ["pipe", {}],
  ["sriov", {}],
  ["passthrough", {}],
  ["vdpdk", {}],
  ["vdpdk", { vdpdk: { zeroCopyRx: false, zeroCopyTx: false } }],
];

describe.each(ATTACHMENTS)("over %s %j", (attach, options) => {
  /** Dies in the middle of what it does, at another place each time, while the card holds what it was given. */
  const bypasses = attach === "passthrough" || attach === "sriov";
  test.each<"guest" | "switch">(bypasses ? ["guest"] : ["guest", "switch"])(
    "the lcore of a %s is killed under load",
    async (who) => {
      const r = await rig(attach, options);
      const random = randomOf(7);
      const victim = who === "switch" ? 0 : r.sw ? 1 : 0;
      for (let round = 0; round < 4; round++) {
        const roles = [...(r.sw ? [r.sw] : []), r.guests[0]!, r.guests.slice(1)];
        const error = await killed(r, roles, victim, () => {
          for (let i = 0; i < 40; i++) {
            receive(r, 16);
            for (const end = performance.now() + random() * 0.3; performance.now() < end; ) {}
            // The cards send now and then, so that at most times they hold frames of the guests.
            if (i % 8 === 0) for (const nic of r.nics) nic.transmit();
          }
        });
        const names = who === "switch" ? ["guest0", "guest1", "guest2"] : ["guest0"];
        expect(error.recovered.guests).toEqual(expect.arrayContaining(names));
        expect(wrongIn(r)).toEqual([]);
        expect(cached(r)).toBe(0);
        settle(r);
        expect(wrongIn(r)).toEqual([]);
        expect(roundTrip(r)).toEqual(r.guests.map(() => numbers(200)));
      }
    },
  );

  test("frames that the card sends while an lcore is dead, which another guest lent it, come back to that one", async () => {
    const r = await rig(attach, options);
    const [victim] = r.guests as [Guest];
    await killed(r, [victim], 0, () => {
      receive(r, 40);
      // The others and the switch are this thread's; what they have given to the card it sends, and nobody takes it back.
      r.host.drain();
      for (const nic of r.nics) nic.transmit();
    });
    expect(wrongIn(r)).toEqual([]);
    settle(r);
    expect(wrongIn(r)).toEqual([]);
    for (const { txVirtqueue } of r.guests)
      if (txVirtqueue) expect(r.core.u32(txVirtqueue + Virtqueue.lent)).toBe(0);
    expect(roundTrip(r)).toEqual(r.guests.map(() => numbers(200)));
  });
});

describe("a pipe's bridge", () => {
  test("whose lcore died with its turn at the pool's ring is set up anew at once", async () => {
    const r = await rig("pipe", { ring: 256 });
    const [bridge] = r.host.bridges as [(typeof r.host.bridges)[number]];
    const { pool } = bridge;
    const { core } = r;
    const start = performance.now();
    await killed(r, [r.sw as Role], 0, () => {
      while (r.host.lcores[0]?.atRest) {}
      // What one leaves that reserves a place and dies; its cache is full, so that who gives one more needs the ring.
      const ring = core.u32(pool + Pool.ring);
      core.setU32(ring + Ring.head, core.u32(ring + Ring.head) + 1);
      for (let lcore = 0; lcore < 2; lcore++)
        core.setU32(pool + Pool.caches + lcore * PoolCache.SIZE + PoolCache.length, PoolCache.CAPACITY);
    });
    expect(performance.now() - start).toBeLessThan(900);
    expect(wrongIn(r)).toEqual([]);
    expect(roundTrip(r)).toEqual(r.guests.map(() => numbers(200)));
  });

  test("that is stopped gets back what the card has still to send of it", async () => {
    const r = await rig("pipe");
    const [bridge] = r.host.bridges as [(typeof r.host.bridges)[number]];
    receive(r, 40);
    r.host.drain();
    bridge.stop(); // the card holds 40 of its buffers
    await killed(r, [r.sw as Role], 0, () => {
      r.nic.transmit(); // and has sent them when nobody is left to take them back
    });
    bridge.start();
    settle(r);
    expect(wrongIn(r)).toEqual([]);
    expect(roundTrip(r)).toEqual(r.guests.map(() => numbers(200)));
  });
});

test("with too few host buffers to save lent frames in, all is set up anew all the same, and what is lost is counted", async () => {
  const r = await rig("vhost", { zeroCopyTx: true }, { buffers: 80 });
  for (let i = 0; i < 2; i++) {
    receive(r, 10);
    r.host.drain();
  }
  const lent = () => r.guests.reduce((n, { txVirtqueue }) => n + r.core.u32(txVirtqueue + Virtqueue.lent), 0);
  const before = lent();
  expect(before).toBeGreaterThan(30);
  const error = await killed(r, [r.sw as Role], 0, () => {});
  expect(error.recovered.guests).toHaveLength(3);
  expect(wrongIn(r)).toEqual([]);
  settle(r);
  expect(wrongIn(r)).toEqual([]);
  // None of it was sent, nor is anything of it left.
  expect(r.host.stats().nics[0]?.drops.txMalformed).toBe(before);
  expect(roundTrip(r)).toEqual(r.guests.map(() => numbers(200)));
});
