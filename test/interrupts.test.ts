/** Attached by "kernel" or "vmdq", and a card that is polled, interrupts, or changes between the two: seed documents 000 and 002. */
import { afterEach, describe, expect, test } from "vitest";
import { Driver, Guest as GuestLayout, Lcore, RxQueue } from "../assembly/layout.ts";
import { FrameGenerator } from "../src/index.ts";
import type { GuestOptions } from "../src/roles/guest.ts";
import type { NicOptions } from "../src/roles/nic.ts";
import {
  BROADCAST,
  CLEAN,
  frame,
  misplaced,
  misplacedInPool,
  numberOf,
  type Rig,
  rig,
  WIRE,
} from "./harness/host.ts";

const running: Rig[] = [];

afterEach(() => {
  for (const { host } of running.splice(0)) host.stop();
});

/** Bursts of `burst` frames of 64 B through the host, each checked; on lcores it waits until all are back. */
function drive(r: Rig, bursts: number, burst: number) {
  const { host, nic, core } = r;
  const to = r.guests.map((guest) => guest.mac);
  const generator = new FrameGenerator(core, { size: 64, to, from: WIRE, flows: 8 });
  for (let i = 0; i < bursts; i++) {
    core.exports.generate(generator.address, nic.address, burst);
    if (host.lcores.length === 0) host.drain();
    else
      for (const end = performance.now() + 5000; performance.now() < end; ) {
        host.poll();
        if (core.exports.toTransmit(nic.address) === burst) break;
      }
    core.exports.check(generator.address, nic.address, core.exports.toTransmit(nic.address));
  }
  return generator.check();
}

/** Interrupts of the card, notifications to the guests, kicks of theirs, polls of the card's queues. */
function signals(r: Rig) {
  const { nics, ports, guests } = r.host.stats();
  return {
    interrupts: nics[0]!.interrupts,
    notifications: ports.reduce((n, port) => n + port.notifications, 0),
    kicks: guests.reduce((n, guest) => n + guest.kicks, 0),
    polls: nics[0]!.polls,
  };
}

const copies = (r: Rig) => r.host.stats().ports.map((port) => port.copies);

function expectAllInPlace(r: Rig): void {
  for (const guest of r.guests) expect(misplaced(r, guest)).toEqual([]);
  expect(misplacedInPool(r)).toEqual([]);
}

/** With `lcores` switch and guests have a worker each. */
async function made(options: GuestOptions, nic: NicOptions = {}, guests = 1, lcores = false): Promise<Rig> {
  const r = await rig(options, guests, { shared: lcores }, 64, nic);
  if (lcores) {
    running.push(r);
    await r.host.launch([r.sw, r.guests]);
  }
  return r;
}

describe.each([
  ["one thread", false],
  ["lcores", true],
])("over kernel, on %s", (_name, lcores) => {
  test("a packet is two interrupts, of the host and of the guest, and one kick; one copy each way", async () => {
    const r = await made({ attach: "kernel" }, {}, 1, lcores);
    expect(drive(r, 100, 56)).toMatchObject({ sent: 5600, received: 5600, ...CLEAN });
    const { interrupts, notifications, kicks } = signals(r);
    expect({ interrupts, notifications, kicks }).toEqual({
      interrupts: 5600,
      notifications: 5600,
      kicks: 5600,
    });
    expect(copies(r)).toEqual([5600, 5600]);
  });

  test("with a budget of 64 an interrupt is for all that there is", async () => {
    const r = await made({ attach: "kernel", napi: 64 }, {}, 1, lcores);
    expect(drive(r, 100, 56)).toMatchObject({ received: 5600, ...CLEAN });
    const { interrupts, notifications, kicks } = signals(r);
    expect(interrupts).toBe(100);
    expect(notifications).toBe(100);
    expect(kicks).toBeLessThanOrEqual(100);
    expect(copies(r)).toEqual([5600, 5600]);
  });

  test.each([
    ["split, event index", { eventIdx: true }],
    ["packed", { packed: true }],
    ["packed, event index", { packed: true, eventIdx: true }],
    ["chains", { bufferSize: 64 }],
  ])("nothing is lost over a queue that is %s", async (_what, options) => {
    const r = await made({ attach: "kernel", ...options }, {}, 2, lcores);
    expect(drive(r, 100, 48)).toMatchObject({ received: 4800, ...CLEAN });
    expect(copies(r)).toEqual([4800, 2400, 2400]);
  });

  test("guests are stopped and started under load", async () => {
    const r = await made({ attach: "kernel" }, {}, 2, lcores);
    for (let i = 0; i < 30; i++) {
      const [first] = r.guests;
      r.sw.stop(first!);
      r.sw.start(first!);
      expect(drive(r, 3, 48)).toMatchObject({ received: 144, ...CLEAN });
    }
    if (!lcores) expectAllInPlace(r);
  });
});

describe("over kernel", () => {
  test("lcores sleep until an interrupt, and each frame wakes them", async () => {
    const r = await made({ attach: "kernel" }, {}, 1, true);
    const lcoresAsleep = () => r.host.lcores.every(({ address }) => r.core.u32(address + Lcore.asleep) === 1);
    const turns = () =>
      r.host.lcores.reduce((n, { address }) => n + r.core.counter(address + Lcore.turns), 0);
    for (let i = 0; i < 50; i++) {
      for (const end = performance.now() + 2000; !lcoresAsleep() && performance.now() < end; )
        await new Promise((resume) => setTimeout(resume, 1));
      expect(lcoresAsleep()).toBe(true);
      expect(drive(r, 1, 1)).toMatchObject({ received: 1, ...CLEAN });
    }
    // Each frame is a few rings; nobody polls in between.
    expect(turns()).toBeLessThan(50 * 20);
  });

  test("all buffers are where they belong", async () => {
    const r = await made({ attach: "kernel" }, {}, 3);
    drive(r, 20, 60);
    expectAllInPlace(r);
  });

  test("a guest on another attachment shares the card, and loses nothing", async () => {
    const r = await made({ attach: "kernel" }, {}, 1);
    const other = r.host.guest({ attach: "iovtee", ring: 128 });
    const third = r.host.guest({ attach: "vhost", ring: 128 });
    r.sw.connect(other);
    r.sw.connect(third);
    r.guests.push(other, third);
    expect(drive(r, 50, 48)).toMatchObject({ received: 2400, ...CLEAN });
    expect(signals(r)).toMatchObject({ interrupts: 1600, notifications: 800 });
  });

  test("a guest that makes more available than it has harms nobody else", async () => {
    const r = await made({ attach: "kernel" }, {}, 2);
    const [bad, good] = r.guests;
    drive(r, 2, 48);
    const avail = r.core.u32(bad!.address + GuestLayout.tx) + Driver.avail;
    r.core.setU32(avail, r.core.u32(avail) + 1000);
    const before = r.host.stats().guests[1]!.received;
    drive(r, 20, 48);
    const { ports, guests } = r.host.stats();
    expect(ports[1]?.drops["refused.availJump"]).toBeGreaterThan(0);
    expect(guests[1]!.received - before).toBe(480);
    expect(misplaced(r, good!)).toEqual([]);
    expect(misplacedInPool(r)).toEqual([]);
  });

  test("options that can't be are refused", async () => {
    await expect(rig({ attach: "kernel", napi: 0 })).rejects.toThrow("napi: 0, expected 1 to 256");
    await expect(rig({ attach: "vhost", napi: 1 })).rejects.toThrow(
      'napi: of a guest that is attached by "vhost", expected "kernel"',
    );
    const r = await made({ attach: "kernel" });
    const other = r.host.guest({ attach: "kernel", napi: 64 });
    expect(() => r.sw.connect(other)).toThrow(
      'napi: 64 of guest1, expected 1 as of the other guests of nic0 that are attached by "kernel"',
    );
    expect(r.sw.indexOf(other)).toBe(-1);
  });
});

describe.each<[string, "together" | "apart" | undefined]>([
  ["one thread", undefined],
  ["an lcore of switch and guests", "together"],
  ["an lcore of the guests' own", "apart"],
])("over vmdq, on %s", (_name, lcores) => {
  const vmdq = async (options: GuestOptions = {}, guests = 1) => {
    const r = await rig({ attach: "vmdq", ...options }, guests, { shared: lcores !== undefined });
    if (!lcores) return r;
    running.push(r);
    await r.host.launch(lcores === "apart" ? [r.sw, r.guests] : [[r.sw, ...r.guests]]);
    return r;
  };

  test("a burst is one interrupt, of the guest's core; one copy each way", async () => {
    const r = await vmdq();
    expect(drive(r, 100, 56)).toMatchObject({ sent: 5600, received: 5600, ...CLEAN });
    const { interrupts, notifications } = signals(r);
    expect(interrupts).toBe(200); // of 32 frames and of 24
    if (lcores === "apart") expect(notifications).toBeGreaterThan(0);
    else expect(notifications).toBe(0);
    expect(copies(r)).toEqual([5600, 5600]);
  });

  test("each guest's frames are in its own queue, and all arrive", async () => {
    const r = await vmdq({}, 3);
    expect(drive(r, 100, 48)).toMatchObject({ received: 4800, ...CLEAN });
    const queues = [1, 2, 3].map((i) => r.core.counter(r.nic.rxQueue(i) + RxQueue.packets));
    expect(queues).toEqual([1600, 1600, 1600]);
    expect(r.core.counter(r.nic.rxQueue(0) + RxQueue.packets)).toBe(0);
  });

  test.each([
    ["event index", { eventIdx: true }],
    ["packed, event index", { packed: true, eventIdx: true }],
    ["chains", { bufferSize: 64 }],
  ])("nothing is lost over queues with %s", async (_what, options) => {
    const r = await vmdq(options, 2);
    expect(drive(r, 50, 48)).toMatchObject({ received: 2400, ...CLEAN });
  });

  test("what comes another way reaches the guest as well: a broadcast", async () => {
    const r = await vmdq({ run: "sink" }, 3);
    for (let i = 1; i <= 20; i++) {
      r.nic.receive([frame(BROADCAST, i)]);
      const got = () => r.host.stats().guests.map((guest) => guest.received);
      for (const end = performance.now() + 2000; performance.now() < end; ) {
        r.host.poll();
        if (got().every((n) => n === i)) break;
      }
      expect(got()).toEqual([i, i, i]);
    }
  });

  test("guests are stopped and started under load", async () => {
    const r = await vmdq({}, 2);
    for (let i = 0; i < 20; i++) {
      r.sw.stop(r.guest);
      r.sw.start(r.guest);
      expect(drive(r, 3, 48)).toMatchObject({ received: 144, ...CLEAN });
    }
    if (!lcores) expectAllInPlace(r);
  });

  test("a guest that makes more available than it has harms nobody else", async () => {
    const r = await vmdq({}, 2);
    drive(r, 2, 48);
    r.host.paused(() => {
      const avail = r.core.u32(r.guest.address + GuestLayout.tx) + Driver.avail;
      r.core.setU32(avail, r.core.u32(avail) + 1000);
    });
    const good = r.guests[1]!;
    for (let i = 0; i < 200; i++) {
      r.nic.receive([frame(r.guest.mac, i), frame(good.mac, i)]);
      for (const end = performance.now() + 2000; performance.now() < end; ) {
        r.host.poll();
        if (r.nic.transmit((frames) => expect(frames.map(numberOf)).toContain(i)) > 0) break;
      }
    }
    const { ports, guests } = r.host.stats();
    expect(ports[1]?.drops["refused.availJump"]).toBeGreaterThan(0);
    expect(guests[1]!.received).toBe(48 + 200);
  });
});

test("a card without a queue left: vmdq is refused, or the guest is connected and its frames are copied as over vhost", async () => {
  await expect(rig({ attach: "vmdq" }, 2, {}, 64, { queues: 2 })).rejects.toThrow(
    'nic0: 2 receive queues already, expected "queues" to be larger',
  );
  const r = await rig({ attach: "vmdq" }, 1, {}, 64, { queues: 2 });
  const late = r.host.guest({ attach: "vmdq", ring: 128 });
  expect(() => r.sw.connect(late)).toThrow('nic0: 2 receive queues already, expected "queues" to be larger');
  r.guests.push(late);
  expect(drive(r, 20, 48)).toMatchObject({ received: 960, ...CLEAN });
  expect(copies(r)).toEqual([960, 480, 480]);
});

describe.each(["vhost", "iovtee"] as const)("a card that guests over %s share", (attach) => {
  describe.each([
    ["one thread", false],
    ["lcores", true],
  ])("on %s", (_name, lcores) => {
    test("interrupts once for a burst, or for as many frames as its budget", async () => {
      for (const budget of [1, 8, 32]) {
        const r = await made({ attach }, { mode: "interrupt", budget }, 1, lcores);
        expect(drive(r, 50, 48)).toMatchObject({ received: 2400, ...CLEAN });
        expect(signals(r).interrupts).toBe(50 * Math.ceil(48 / budget));
        if (lcores) for (const { host } of running.splice(0)) host.stop();
      }
    });

    test("is polled under load, and interrupts after 300 empty polls", async () => {
      const r = await made({ attach }, { mode: "adaptive" }, 1, lcores);
      const polls = () => signals(r).polls;
      expect(drive(r, 200, 48)).toMatchObject({ received: 9600, ...CLEAN });
      const interrupts = signals(r).interrupts;
      if (!lcores) expect(interrupts).toBe(0);
      // Left alone it is armed, and polled no more.
      const idle = async () => {
        for (let i = 0; i < 400; i++) r.host.poll();
        if (lcores) await new Promise((resume) => setTimeout(resume, 50));
      };
      await idle();
      const before = polls();
      await idle();
      expect(polls()).toBe(before);
      expect(drive(r, 1, 48)).toMatchObject({ received: 48, ...CLEAN });
      expect(signals(r).interrupts).toBe(interrupts + 1);
      expect(polls()).toBeGreaterThan(before);
    });
  });

  test("doesn't interrupt where it is polled", async () => {
    const r = await made({ attach }, { mode: "poll" });
    drive(r, 20, 48);
    expect(signals(r)).toMatchObject({ interrupts: 0, notifications: 0 });
    expectAllInPlace(r);
  });
});

test("a mapped card that interrupts gets the guest's buffers when the guest posts them", async () => {
  const r = await rig({ attach: "iovtee", onEmpty: "wait", ring: 16 }, 1, {}, 64, { mode: "interrupt" });
  for (let i = 0; i < 100; i++) expect(drive(r, 1, 12)).toMatchObject({ received: 12, ...CLEAN });
  expectAllInPlace(r);
});

test("a mode that there isn't is refused", async () => {
  await expect(rig({}, 1, {}, 64, { mode: "napi" as "poll" })).rejects.toThrow(
    'mode: "napi", expected "poll", "interrupt" or "adaptive"',
  );
  await expect(rig({}, 1, {}, 64, { budget: 257 })).rejects.toThrow("budget: 257, expected 1 to 256");
});

test("the guest's burst is its budget", async () => {
  const r = await made({ attach: "kernel", napi: 7 });
  expect(r.core.u32(r.guest.address + GuestLayout.burst)).toBe(7);
});
