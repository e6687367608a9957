/** Lcores on workers: frames through them, sleeping and waking, changes while they run, stopping, dying. */
import { spawn } from "node:child_process";
import { afterEach, describe, expect, test, vi } from "vitest";
import {
  Bridge,
  Directory,
  Driver,
  Guest,
  Kind,
  Lcore,
  LcoreParked,
  Mapping,
  Nic,
  Packet,
  PacketFlag,
  Poller,
  RxQueue,
  TxQueue,
} from "../assembly/layout.ts";
import { Host, LcoreError } from "../src/index.ts";
import { collect, frame, idsOf, misplacedInPool, numberOf, numbers, type Rig, rig } from "./harness/host.ts";
import { canary, expectNoBufferLost, QUEUES } from "./harness/hostile.ts";
import { scribble } from "./harness/scribble.ts";

const running: Rig[] = [];

/** A card and guests on one switch in shared memory, each role on a worker of its own. */
async function launched(attach: "vhost" | "iovtee", guests = 1): Promise<Rig & { done: Promise<void> }> {
  const r = await rig({ attach }, guests, { shared: true });
  const { done } = await r.host.launch([r.sw, ...r.guests]);
  running.push(r);
  return { ...r, done };
}

afterEach(() => {
  for (const { host } of running.splice(0)) host.stop();
});

/** Lets the card send until nothing has come for a while. */
function drain(r: Rig): void {
  while (r.nic.wait(50)) r.nic.transmit();
}

/**
 * Sends `n` frames, numbered from `first` on, to the guests in turn, a few at a time; returns the numbers that came back,
 * sorted by guest: those of one guest have an order, those of several on lcores of their own have none.
 */
function roundTrips(r: Rig, n: number, first = 0): number[] {
  const back: number[] = [];
  for (let i = 0; i < n; i += 16) {
    const some = Array.from({ length: Math.min(16, n - i) }, (_, k) =>
      frame(r.guests[(i + k) % r.guests.length]!.mac, first + i + k),
    );
    expect(r.nic.receive(some)).toBe(some.length);
    back.push(...collect(r, some.length).map(numberOf));
  }
  const guestOf = (number: number) => (number - first) % r.guests.length;
  const byGuest = r.guests.map((_, g) => back.filter((number) => guestOf(number) === g));
  return numbers(n).flatMap((i) => byGuest[i % r.guests.length]?.shift() ?? []);
}

function patience(r: Rig, turns: number): void {
  for (const { address } of r.host.lcores) r.core.setU32(address + Lcore.patience, turns);
}

function sleeps(r: Rig): number[] {
  return r.host.lcores.map(({ address }) => r.core.counter(address + Lcore.sleeps));
}

/** Until it is so, for five seconds. */
async function until(so: () => boolean): Promise<void> {
  for (const end = performance.now() + 5000; !so(); ) {
    if (performance.now() > end) expect.fail(`not so within five seconds: ${so}`);
    await new Promise((resume) => setTimeout(resume, 1));
  }
}

/** Until all lcores sleep. */
async function asleep(r: Rig): Promise<void> {
  await until(() => r.host.lcores.every(({ address }) => r.core.u32(address + Lcore.asleep) === 1));
}

describe.each(["vhost", "iovtee"] as const)("over %s", (attach) => {
  test("frames go through a switch and a guest on workers, each once, in order", async () => {
    const r = await launched(attach);
    expect(roundTrips(r, 2000)).toEqual(numbers(2000));
    r.host.stop();
    await r.done;
    expectNoBufferLost(r.host);
  });

  test("asleep before each frame, nobody misses one", async () => {
    const r = await launched(attach, 2);
    patience(r, 1);
    const before = sleeps(r);
    for (let i = 0; i < 300; i++) {
      expect(r.nic.receive([frame(r.guests[i % 2]!.mac, i)])).toBe(1);
      expect(collect(r, 1).map(numberOf)).toEqual([i]);
    }
    for (const [i, n] of sleeps(r).entries()) expect(n - (before[i] as number)).toBeGreaterThan(100);
  });
});

test("on one lcore together, on two, and with the switch on the calling thread", async () => {
  for (const place of ["together", "guest", "switch"]) {
    const r = await rig({ attach: "iovtee" }, 1, { shared: true });
    running.push(r);
    const { done } = await r.host.launch(
      place === "together" ? [[r.sw, r.guest]] : place === "guest" ? [r.guest] : [r.sw],
    );
    const got: number[] = [];
    for (let i = 0; i < 200; i++) {
      r.nic.receive([frame(r.guest.mac, i)]);
      for (const end = performance.now() + 5000; got.length <= i && performance.now() < end; ) {
        r.host.poll();
        r.nic.transmit((frames) => got.push(...frames.map(numberOf)));
      }
    }
    expect(got, place).toEqual(numbers(200));
    r.host.stop();
    await done;
  }
});

test("frames between JavaScript ports cross a switch on a worker that sleeps", async () => {
  const host = await Host.create({ shared: true });
  const [a, b] = [host.port(), host.port()];
  const sw = host.vswitch({ connect: [a, b] });
  const { done } = await host.launch([sw]);
  host.core.setU32((host.lcores[0]?.address ?? 0) + Lcore.patience, 1);
  const got: number[] = [];
  for (let i = 0; i < 500; i++) {
    expect(a.push([frame("02:00:00:00:00:bb", i)])).toBe(1);
    for (const end = performance.now() + 5000; got.length <= i && performance.now() < end; )
      b.take((frames) => got.push(...frames.map(numberOf)));
  }
  expect(got).toEqual(numbers(500));
  host.stop();
  await done;
});

test("an idle host takes less than 1 % of a CPU", async () => {
  const r = await launched("iovtee", 2);
  expect(roundTrips(r, 64)).toHaveLength(64);
  await new Promise((resume) => setTimeout(resume, 500));
  const before = process.cpuUsage();
  const start = performance.now();
  await new Promise((resume) => setTimeout(resume, 2000));
  const { user, system } = process.cpuUsage(before);
  expect((user + system) / 1000 / (performance.now() - start)).toBeLessThan(0.01);
  // It hasn't fallen into a sleep for good.
  expect(roundTrips(r, 64, 64)).toEqual(numbers(64, 64));
});

test("mapped, unmapped, stopped, started and connected while frames are under way", async () => {
  const r = await launched("iovtee", 2);
  const [one, two] = r.guests;
  for (let i = 0; i < 200; i++) {
    r.nic.receive(numbers(8).map((k) => frame(k % 2 ? one!.mac : two!.mac, k)));
    if (i % 2) r.sw.unmap(one!);
    else if (i > 0) r.sw.map(r.nic, one!);
    if (i % 10 === 5) r.sw.stop(two!);
    if (i % 10 === 7) r.sw.start(two!);
    if (i === 100) r.sw.connect(r.host.port());
    r.nic.transmit();
  }
  drain(r);
  expect(roundTrips(r, 200)).toEqual(numbers(200));
  r.host.stop();
  await r.done;
  expectNoBufferLost(r.host);
});

test("a card that is short of a guest's buffers is told of new ones, though some are kept from it", async () => {
  // The card's ring is longer than the guest's: it could always use more.
  const r = await rig({ attach: "iovtee", eventIdx: true, onEmpty: "wait" }, 1, { shared: true }, 256);
  running.push(r);
  await r.host.launch([r.sw]);
  patience(r, 1);
  const queue = r.core.u32(r.guest.mapping + Mapping.queue);
  const onCard = () => r.core.u32(queue + RxQueue.posted) - r.core.u32(queue + RxQueue.next);
  const used = () => idsOf(r.guest, r.guest.rxVirtqueue, r.core.u32(r.guest.address + Guest.rx)).used.length;
  const full = onCard();
  r.nic.receive(numbers(64).map((i) => frame(r.guest.mac, i)));
  await until(() => used() === 64);
  await asleep(r);
  expect(onCard()).toBeLessThan(full);
  r.host.drain(); // the guest, which is on this thread, posts them again
  await until(() => onCard() === full);
});

test("a guest's frames wake the poller of its own receive queue, and no other guest's", async () => {
  const r = await launched("iovtee", 3);
  const { address } = r.host.lcores[0]!;
  const queues = r.guests.map((guest) => r.core.u32(guest.mapping + Mapping.queue));
  const kinds = queues.map((queue) => {
    const bell = r.core.u32(queue + RxQueue.bell);
    return [r.core.u32(bell + Poller.kind), r.core.u32(bell + Poller.addr), r.core.u32(bell + Poller.lcore)];
  });
  expect(kinds).toEqual(queues.map((queue) => [Kind.RX_QUEUE, queue, address]));
  expect(new Set(queues.map((queue) => r.core.u32(queue + RxQueue.bell))).size).toBe(3);
  patience(r, 10);
  await until(() => queues.every((queue) => r.core.u32(queue + RxQueue.armed) === 1));
  patience(r, 1_000_000_000); // what polls now goes on
  expect(r.nic.receive([frame(r.guests[1]!.mac, 7)])).toBe(1);
  expect(collect(r, 1).map(numberOf)).toEqual([7]);
  expect(queues.map((queue) => r.core.u32(queue + RxQueue.armed))).toEqual([1, 0, 1]);
});

test("a bridge that can't send before the card has goes on as soon as it has, also if that is its only work", async () => {
  const host = await Host.create({ shared: true, memory: 64 * 2 ** 20 });
  const nic = host.nic({ ring: 64 });
  const guest = host.guest({ attach: "pipe", ring: 128 });
  const sw = host.vswitch({ connect: [nic] });
  const bridge = host.bridge(nic, guest);
  const r = { host, core: host.core, nic, guest, guests: [guest], sw };
  running.push(r);
  const { done } = await host.launch([sw, guest]);
  for (const { address } of host.lcores) host.core.setU32(address + Lcore.patience, 1);
  const received = () => host.stats().guests[0]!.received;
  for (let sent = 0; sent < 200; sent += 20) {
    nic.receive(numbers(20).map((i) => frame(guest.mac, sent + i)));
    // Frames that find no slot wait in the card's ring.
    await until(() => received() >= Math.min(sent, 100));
  }
  await until(() => host.core.u32(bridge.address + Bridge.blocked) === 1);
  const drops = () => Object.values(host.stats().nics[0]!.drops).reduce((a, b) => a + b, 0);
  const full = () => host.stats().guests[0]!.drops.txFull ?? 0;
  const back: number[] = [];
  await until(() => {
    nic.transmit((some) => back.push(...some.map(numberOf)));
    return back.length + drops() + full() === 200;
  });
  expect(back).toEqual([...new Set(back)].sort((a, b) => a - b));
  await until(() => host.lcores.every(({ address }) => host.core.u32(address + Lcore.asleep) === 1));
  host.stop();
  await done;
});

test.each(QUEUES)(
  "a guest on %s over %s whose queues another thread overwrites all the time harms only itself",
  async (_ring, attach, packed) => {
    const host = await Host.create({ shared: true, memory: 128 * 2 ** 20 });
    const { core } = host;
    const nic = host.nic({ ring: 64, queues: 3 });
    const options = { attach, packed, ring: 128, indirect: true, eventIdx: true };
    const [good, hostile] = [host.guest(options), host.guest(options)];
    const { intact } = canary(core, 2 ** 20);
    const sw = host.vswitch({ connect: [nic, good, hostile], vlanAware: true });
    sw.vlan(good, 10);
    sw.vlan(hostile, 20);
    sw.vlan(nic, 10, [20]);
    const r = { host, core, nic, guest: good, guests: [good], sw };
    running.push(r);
    const { done } = await host.launch([sw, [good, hostile]]);
    const got: number[] = [];
    for (let seed = 0; seed < 10; seed++) {
      const garbage = scribble(hostile, seed);
      // A tenth of a second, and so many frames where there was little time for them.
      for (const end = performance.now() + 100; performance.now() < end || got.length < 12 * (seed + 1); ) {
        const tagged = frame(hostile.mac, 0, 64);
        tagged.set([0x81, 0, 0, 20], 12);
        nic.receive([tagged, frame(good.mac, got.length), tagged]);
        // What comes in the other VLAN is the hostile guest's.
        const before = got.length;
        for (const until = performance.now() + 5000; got.length === before; ) {
          if (performance.now() > until)
            expect.fail(`frame ${before} is lost: ${JSON.stringify(host.stats())}`);
          if (!nic.wait(100)) continue;
          nic.transmit((some) => got.push(...some.filter((one) => one[12] !== 0x81).map(numberOf)));
        }
      }
      await garbage.stop();
      host.paused(() => expect(misplacedInPool(r)).toEqual([]));
      sw.stop(hostile);
      sw.start(hostile);
    }
    expect(got).toEqual(numbers(got.length));
    expect(got.length).toBeGreaterThan(100);
    expect(intact()).toBe(true);
    host.stop();
    await done;
    expectNoBufferLost(host);
  },
);

describe("a host that is changed, or told to stop,", () => {
  test("before its lcores run", async () => {
    const r = await rig({ attach: "iovtee" }, 1, { shared: true });
    running.push(r);
    const launch = r.host.launch([r.sw, r.guest]);
    r.sw.unmap(r.guest);
    r.sw.map(r.nic, r.guest);
    const { done } = await launch;
    expect(roundTrips(r, 100)).toEqual(numbers(100));
    r.host.stop();
    await done;
    const run = r.host.run({ lcores: [r.sw, r.guest] });
    r.host.stop();
    await run;
    expect(r.host.lcores).toEqual([]);
    expectNoBufferLost(r.host);
  });

  test("after a run without lcores, has those that it is launched with at once", async () => {
    const r = await rig({ attach: "iovtee" }, 1, { shared: true });
    running.push(r);
    const run = r.host.run();
    r.host.stop();
    const { done } = await r.host.launch([r.sw, r.guest]);
    await run;
    expect(r.host.lcores).toHaveLength(2);
    expect(roundTrips(r, 100)).toEqual(numbers(100));
    r.host.stop();
    await done;
    expectNoBufferLost(r.host);
  });

  test("before they have stopped, stops all the same, and does what it is told", async () => {
    const r = await launched("iovtee");
    for (let i = 0; i < 20; i++) {
      r.nic.receive(numbers(8).map((k) => frame(r.guest.mac, k)));
      if (i % 2) r.host.paused(() => r.host.stop());
      else r.host.stop();
      await expect(r.host.launch([r.sw])).rejects.toThrow("lcores haven't stopped yet");
      r.sw.unmap(r.guest);
      await r.done;
      r.sw.map(r.nic, r.guest);
      r.done = (await r.host.launch([r.sw, r.guest])).done;
    }
    drain(r);
    expect(roundTrips(r, 100)).toEqual(numbers(100));
  });

  test("by a thread that doesn't hear of its end at once: nothing is lost", async () => {
    const r = await launched("iovtee");
    r.host.stop();
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
    await r.done;
  });
});

describe("the end", () => {
  test("an lcore that hangs is named, by who would pause it and by the end, which comes all the same", async () => {
    const r = await launched("vhost", 2);
    r.host.paused(() => {
      // A chain of buffers in the driver's own memory that has no end.
      const driver = r.core.u32(r.guest.address + Guest.rx);
      const shadow = r.core.u32(driver + Driver.shadow);
      for (let id = 0; id < r.guest.ring; id++) {
        r.core.setU16(shadow + Packet.SIZE * id + Packet.flags, PacketFlag.MORE);
        r.core.setU16(shadow + Packet.SIZE * id + Packet.mark, id);
      }
    });
    r.nic.receive([frame(r.guest.mac)]);
    let changed = false;
    const change = () => r.host.paused(() => (changed = true));
    await until(() => {
      try {
        change();
        return false;
      } catch (error) {
        expect(error).toMatchObject({
          name: "LcoreError",
          message: "lcore2 (guest0): doesn't answer within 1000 ms",
        });
        return true;
      }
    });
    changed = false;
    expect(change).toThrow(LcoreError);
    expect(changed).toBe(false);
    // The others work on.
    const guest = r.guests[1]!;
    r.nic.receive([frame(guest.mac, 1)]);
    expect(collect(r, 1).map(numberOf)).toEqual([1]);
    const start = performance.now();
    r.host.stop();
    const error = await r.done.catch((one) => one);
    expect(performance.now() - start).toBeLessThan(500);
    expect(error.message).toBe("lcore2 (guest0): didn't stop within 250 ms");
    expect(error.recovered.guests).toEqual(["guest0"]);
    r.done = (await r.host.launch([r.sw, ...r.guests])).done;
    expect(roundTrips(r, 200)).toEqual(numbers(200));
  });

  test("a change is refused at once where an lcore has failed, though nobody has heard of it yet", async () => {
    const r = await launched("vhost");
    const { address } = r.host.lcores[1]!;
    r.host.paused(() => {});
    r.core.setU32(address + Lcore.pollers + Poller.SIZE + Poller.addr, 0xffff_fff0);
    r.nic.receive([frame(r.guest.mac)]);
    const words = new Int32Array(r.core.memory.buffer);
    while (Atomics.load(words, (address + Lcore.parked) >> 2) !== LcoreParked.FAILED) {}
    const start = performance.now();
    expect(() => r.host.paused(() => {})).toThrow("lcore2 (guest0): has failed");
    expect(performance.now() - start).toBeLessThan(500);
    await expect(r.done).rejects.toThrow("memory access out of bounds");
  });

  test("who waits for the card and may not leaves nothing behind", async () => {
    const r = await launched("vhost");
    vi.spyOn(Atomics, "wait").mockImplementation(() => {
      throw new TypeError("Atomics.wait cannot be called in this context");
    });
    expect(() => r.nic.wait()).toThrow(TypeError);
    vi.restoreAllMocks();
    expect(r.core.u32(r.host.lcore + Lcore.asleep)).toBe(0);
    expect(r.core.u32(r.core.u32(r.nic.address + Nic.tx) + TxQueue.armed)).toBe(0);
  });

  test.each([
    ["a program that exits does so at once, its lcores with it", "process.exit(7)", 7],
    ["a program that forgets to stop them runs on", "setTimeout(() => process.exit(8), 1000).unref()", 8],
  ])("%s", async (_what, end, code) => {
    const program = `
      import { Host } from "./dist/src/index.js";
      const host = await Host.create({ shared: true });
      const guest = host.guest();
      const sw = host.vswitch({ connect: [host.nic(), guest] });
      await host.launch([sw, guest]);
      ${end};
    `;
    const child = spawn(process.execPath, ["--input-type=module", "-e", program], { stdio: "inherit" });
    expect(await new Promise((resolve) => child.on("exit", resolve))).toBe(code);
  });

  test("stop ends all lcores within 100 ms, busy or asleep, and the host runs again on one thread", async () => {
    const r = await launched("iovtee", 2);
    roundTrips(r, 64);
    for (const busy of [false, true]) {
      if (busy) r.nic.receive(numbers(32).map((i) => frame(r.guest.mac, i)));
      const start = performance.now();
      r.host.stop();
      await r.done;
      expect(performance.now() - start).toBeLessThan(100);
      expect(r.host.lcores).toEqual([]);
      r.host.drain();
      r.nic.transmit();
      expectNoBufferLost(r.host);
      if (!busy) r.done = (await r.host.launch([r.sw, r.guests])).done;
    }
    r.nic.receive([frame(r.guest.mac, 7)]);
    r.host.drain();
    expect(collect(r, 1).map(numberOf)).toEqual([7]);
  });

  test.each([0, 1])(
    "lcore %i is killed under load: the others stop, nothing is lost for good",
    async (which) => {
      const r = await launched("iovtee", 2);
      for (let round = 0; round < 5; round++) {
        const started = performance.now();
        for (let i = 0; i < 50; i++) {
          r.nic.receive(numbers(16).map((k) => frame(r.guests[k % 2]!.mac, k)));
          r.nic.transmit();
        }
        const victim = r.host.lcores[which];
        await victim?.kill();
        const error = await r.done.catch((one) => one);
        expect(error).toBeInstanceOf(LcoreError);
        expect(error.lcore).toBe(which === 0 ? "lcore1 (switch0)" : "lcore2 (guest0)");
        expect(error.message).toContain(`${error.lcore}: killed`);
        expect(error.recovered.guests).toEqual(which === 0 ? ["guest0", "guest1"] : ["guest0"]);
        expect(performance.now() - started).toBeLessThan(2000);
        expectNoBufferLost(r.host);
        r.done = (await r.host.launch([r.sw, ...r.guests])).done;
        drain(r);
        expect(roundTrips(r, 200)).toEqual(numbers(200));
      }
    },
  );

  test("an lcore that traps: its name and its error reach the caller of run()", async () => {
    const r = await rig({ attach: "vhost" }, 2, { shared: true });
    const run = r.host.run({ lcores: [r.sw, r.guests] });
    await new Promise((resume) => setTimeout(resume, 300));
    const guests = r.host.lcores[1]?.address ?? 0;
    r.host.paused(() => {});
    r.core.setU32(guests + Lcore.pollers + Poller.SIZE + Poller.addr, 0xffff_fff0);
    r.nic.receive([frame(r.guests[0]!.mac), frame(r.guests[1]!.mac)]);
    const error = await run.catch((one) => one);
    expect(error).toBeInstanceOf(LcoreError);
    expect(error.message).toMatch(/^lcore2 \(guest0, guest1\): .*memory access out of bounds/);
    expectNoBufferLost(r.host);
  });
});

test("an lcore that doesn't come to run fails the launch; the host is as it was, and can be launched again", async () => {
  const r = await rig({ attach: "iovtee" }, 1, { shared: true });
  running.push(r);
  const magic = Directory.ADDRESS + Directory.magic;
  r.core.setU32(magic, 0);
  const error = await r.host.launch([r.sw, r.guest]).catch((one) => one);
  expect(error).toBeInstanceOf(LcoreError);
  expect(error.message).toMatch(/^lcore[12] \(\w+\): memory: no directory/);
  expect(error.recovered.guests).toEqual([]);
  r.core.setU32(magic, Directory.MAGIC);
  await r.host.launch([r.sw, r.guest]);
  expect(roundTrips(r, 100)).toEqual(numbers(100));
});

describe("what can't be", () => {
  test("is refused before anything starts", async () => {
    const single = await Host.create();
    const sw = single.vswitch({ connect: [single.nic()] });
    await expect(single.launch([sw])).rejects.toThrow(
      "lcores: the host's memory isn't shared, expected Host.create({ shared: true })",
    );
    const r = await rig({}, 1, { shared: true });
    await expect(r.host.launch([[r.sw, r.guest], r.guest])).rejects.toThrow("lcores: guest0 on two of them");
    await expect(r.host.launch(Array.from({ length: 8 }, () => []))).rejects.toThrow(
      "lcores: 8, expected 7 at most",
    );
    const { done } = await r.host.launch([]);
    await expect(r.host.launch([r.sw])).rejects.toThrow("runs already");
    r.host.stop();
    await done;
  });
});
