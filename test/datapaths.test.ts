/** The table of all datapaths, held by what doesn't depend on the machine: frames checked, copies, notifications. */
import { describe, expect, test } from "vitest";
import { sharedMemory } from "#platform";
import { ATTACHMENTS, type Attach } from "../src/attach/names.ts";
import { pvp } from "../src/index.ts";
import { scale } from "../src/scale.ts";

/** Copies by the host for a packet there and back, and its notifications: exactly, or at most one for a burst. */
const EXPECTED: Record<Attach, { copies: number; notifications: number | "a burst" }> = {
  vhost: { copies: 2, notifications: 0 },
  iovtee: { copies: 1, notifications: 0 },
  kernel: { copies: 2, notifications: 2 },
  vmdq: { copies: 2, notifications: "a burst" },
  netmap: { copies: 2, notifications: 0 },
  pipe: { copies: 0, notifications: 0 },
  passthrough: { copies: 0, notifications: 0 },
  sriov: { copies: 0, notifications: 0 },
  vdpdk: { copies: 0, notifications: 0 },
};
const BURST = 32;
const WHOLE = { lost: 0, duplicated: 0, reordered: 0, corrupt: 0, drops: {} };

describe.each(ATTACHMENTS)("%s", (attach) => {
  test.each([64, 1514] as const)("%i B on one thread: copies and notifications", async (size) => {
    const { runs } = await pvp({ attach: [attach], size: [size], burst: BURST, packets: 6400, repeat: 1 });
    const { copies, notifications } = EXPECTED[attach];
    expect(runs).toMatchObject([{ attach, packets: 6400, ...WHOLE }]);
    expect(runs[0]?.copiesPerPacket).toBe(copies);
    expect(runs[0]?.bytesCopiedPerPacket).toBe(copies * (size === 64 ? 60 : size));
    if (notifications !== "a burst") expect(runs[0]?.notificationsPerPacket).toBe(notifications);
    else {
      expect(runs[0]?.notificationsPerPacket).toBeGreaterThan(0);
      expect(runs[0]?.notificationsPerPacket).toBeLessThanOrEqual(1 / BURST);
    }
  });

  test.skipIf(!sharedMemory().available)(
    "on two lcores: every frame comes back, no oftener copied",
    async () => {
      const lcores = ["nic+host", "guest"];
      const { runs } = await pvp({ attach: [attach], size: [64], packets: 2000, repeat: 1, lcores });
      expect(runs).toMatchObject([{ attach, packets: 2000, ...WHOLE }]);
      const { copies } = EXPECTED[attach];
      expect(runs[0]?.copiesPerPacket).toBeGreaterThanOrEqual(copies);
      // A mapped queue that is short of the guest's buffers gets the host's: those frames are copied (R3).
      expect(runs[0]?.copiesPerPacket).toBeLessThanOrEqual(attach === "iovtee" ? 2 : copies);
    },
  );
});

test("many guests side by side, over each attachment that allows them: all get the same", async () => {
  const { runs } = await scale({ attach: [...ATTACHMENTS], guests: [1, 32], ring: 128, repeat: 1 });
  // A card's port is one guest's.
  expect(runs.map(({ attach, guests }) => `${attach} ${guests}`)).toEqual(
    ATTACHMENTS.flatMap((attach) => [`${attach} 1`, ...(attach === "passthrough" ? [] : [`${attach} 32`])]),
  );
  for (const run of runs) {
    expect(run, run.attach).toMatchObject({ lost: 0, duplicated: 0, reordered: 0, corrupt: 0 });
    expect(run.jain, run.attach).toBeGreaterThan(0.95);
    expect(run.mpps, run.attach).toBeGreaterThan(0);
  }
});

test("vhost with zero-copy transmit: one copy, on the way in", async () => {
  const { runs } = await pvp({ attach: ["vhost"], size: [64], packets: 6400, repeat: 1, zeroCopyTx: true });
  expect(runs).toMatchObject([{ ...WHOLE, copiesPerPacket: 1 }]);
});

test("attachments that can't be run as asked are left out, with the reason, unless none can", async () => {
  const few = { size: [64], packets: 640, repeat: 1 };
  const { runs, leftOut } = await pvp({ ...few, attach: [...ATTACHMENTS], guests: 4 });
  expect(runs.map(({ attach }) => attach)).toEqual(ATTACHMENTS.filter((attach) => attach !== "passthrough"));
  for (const run of runs) expect(run, run.attach).toMatchObject({ lost: 0, corrupt: 0, drops: {} });
  const owner =
    "attach: 4 guests by passthrough, expected 1, the owner of the card's port, or sriov for more";
  expect(leftOut).toEqual([{ attach: "passthrough", why: owner }]);
  await expect(pvp({ ...few, attach: ["passthrough"], guests: 4 })).rejects.toThrow(new RangeError(owner));
  const rows = await pvp({ ...few, attach: [...ATTACHMENTS], chain: 2 });
  expect(rows.runs).toHaveLength(ATTACHMENTS.length - 2);
  expect(rows.leftOut?.map(({ attach }) => attach)).toEqual(["passthrough", "sriov"]);
});

test("a chain of attachments: each hop copies as its own", async () => {
  const { runs } = await pvp({ chain: ["iovtee", "netmap", "vhost"], size: [64], packets: 6400, repeat: 1 });
  // Into the first nothing is copied; then once for each hop through the switch.
  expect(runs).toMatchObject([{ attach: "iovtee,netmap,vhost", ...WHOLE, copiesPerPacket: 3 }]);
});
