/** vDPDK on lcores: frames through pollers that sleep until they are signalled, calls from another thread, changes, deaths. */
import { afterEach, expect, test } from "vitest";
import { Lcore, Poller, RxQueue, VdpdkControl, VdpdkQueue } from "../assembly/layout.ts";
import { type Guest, Host, LcoreError } from "../src/index.ts";
import { astray, ether, IPV4, numbered, numberOf, WIRE } from "./frames.ts";
import { collect, numbers } from "./harness/host.ts";

const hosts: Host[] = [];
const frame = (to: string, n: number) => numbered(ether(to, WIRE, IPV4, new Uint8Array(50)), n);

async function launched(zeroCopy: boolean, guests = 1) {
  const host = await Host.create({ shared: true, memory: 64 * 2 ** 20 });
  const nic = host.nic({ ring: 64, queues: 8 });
  const vdpdk = { zeroCopyRx: zeroCopy, zeroCopyTx: zeroCopy };
  const made = numbers(guests).map(() => host.guest({ attach: "vdpdk", ring: 64, vdpdk }));
  const vmux = host.vmux({ nic, guests: made });
  const { done } = await host.launch([vmux, ...made]);
  hosts.push(host);
  return { host, nic, guests: made, guest: made[0] as Guest, vmux, done };
}
type Rig = Awaited<ReturnType<typeof launched>>;

afterEach(() => {
  for (const host of hosts.splice(0)) host.stop();
});

const pollers = ({ host: { core } }: Rig, lcore: number) =>
  numbers(core.u32(lcore + Lcore.count) - 1).map((i) => lcore + Lcore.pollers + (i + 1) * Poller.SIZE);

/** Of all pollers, also of those that have a patience of their own. */
function patience(r: Rig, turns: number): void {
  for (const { address } of r.host.lcores) {
    r.host.core.setU32(address + Lcore.patience, turns);
    for (const p of pollers(r, address)) r.host.core.setU32(p + Poller.patience, turns);
  }
}

const sleeps = (r: Rig) => r.host.lcores.map(({ address }) => r.host.core.counter(address + Lcore.sleeps));

/** Host buffers that nobody holds, when all is at rest. */
async function stopped(r: Rig): Promise<void> {
  r.host.stop();
  await r.done;
  for (let i = 0; i < 5; i++) {
    r.host.drain();
    r.nic.transmit();
  }
  expect(astray(r.host)).toBe(0);
}

test.each([true, false])("frames go through, each once, in order; zero-copy %s", async (zeroCopy) => {
  const r = await launched(zeroCopy);
  const back: number[] = [];
  for (let i = 0; i < 2000; i += 16) {
    expect(r.nic.receive(numbers(16).map((k) => frame(r.guest.mac, i + k)))).toBe(16);
    back.push(...collect(r, 16).map(numberOf));
  }
  expect(back).toEqual(numbers(2000));
  await stopped(r);
});

test("a poller of a vDPDK ring sleeps after 100,000 empty polls, others after 10,000", async () => {
  const r = await launched(true);
  const { core } = r.host;
  const [vmux, guest] = r.host.lcores;
  const turns = (lcore: number) =>
    pollers(r, lcore).map((p) => core.u32(p + Poller.patience) || core.u32(lcore + Lcore.patience));
  expect(turns(vmux?.address as number)).toEqual([100_000, 100_000, 100_000]);
  expect(turns(guest?.address as number)).toEqual([10_000]);
});

test.each([true, false])("asleep before each frame, nobody misses one; zero-copy %s", async (zeroCopy) => {
  const r = await launched(zeroCopy, 2);
  patience(r, 1);
  const before = sleeps(r);
  for (let i = 0; i < 300; i++) {
    expect(r.nic.receive([frame(r.guests[i % 2]!.mac, i)])).toBe(1);
    expect(collect(r, 1).map(numberOf)).toEqual([i]);
  }
  for (const [i, n] of sleeps(r).entries()) expect(n - (before[i] as number)).toBeGreaterThan(100);
  expect(r.host.stats().ports.reduce((n, port) => n + port.notifications, 0)).toBeGreaterThan(100);
  await stopped(r);
});

test("a guest that sleeps for want of buffers is rung for when the card has sent some", async () => {
  const r = await launched(true);
  patience(r, 1);
  // More than the guest has buffers for besides those of its receive ring: it waits until the card has sent.
  let sent = 0;
  const back: number[] = [];
  for (let round = 0; round < 20; round++) {
    for (let i = 0; i < 4; i++) sent += r.nic.receive(numbers(48).map((k) => frame(r.guest.mac, k)));
    await new Promise((resume) => setTimeout(resume, 5));
    r.nic.transmit((frames) => back.push(...frames.map(numberOf)));
  }
  const ended = () => back.length + (r.host.stats().guests[0]?.drops.txFull ?? 0);
  for (const end = performance.now() + 5000; ended() < sent && performance.now() < end; )
    if (r.nic.wait(10)) r.nic.transmit((frames) => back.push(...frames.map(numberOf)));
  expect(ended()).toBe(sent);
  await stopped(r);
});

test.each([
  ["the card", false],
  ["the card's own switch", true],
])("buffers come back to a guest that sleeps as soon as %s has sent them", async (_who, functions) => {
  const r = await launched(true);
  if (functions) r.nic.createVf();
  patience(r, 1);
  const { core } = r.host;
  const txQueue = r.guest.vdpdk?.txQueue ?? 0;
  const [next, done] = [VdpdkQueue.next, VdpdkQueue.done].map((field) => () => core.u32(txQueue + field));
  const asleep = () => r.host.lcores.every(({ address }) => core.u32(address + Lcore.asleep) === 1);
  const until = async (so: () => boolean) => {
    for (const end = performance.now() + 5000; !so() && performance.now() < end; )
      await new Promise((resume) => setTimeout(resume, 1));
    expect(so()).toBe(true);
  };
  r.nic.receive(numbers(40).map((i) => frame(r.guest.mac, i)));
  await until(() => next!() === 40 && asleep());
  expect(done!()).toBe(0);
  expect(r.nic.transmit()).toBe(40);
  await until(() => done!() === 40);
  await stopped(r);
});

test("calls are answered by the lcore that serves the device, awake or asleep", async () => {
  const r = await launched(true);
  patience(r, 1);
  const { ethdev } = r.guest;
  for (let i = 0; i < 100; i++) {
    expect(ethdev?.mac).toBe(r.guest.mac);
    if (i % 10 === 0) await new Promise((resume) => setTimeout(resume, 2));
  }
  expect(r.host.core.u32(r.guest.region + VdpdkControl.answered)).toBe(100);
  expect(ethdev?.info().segments).toBe(64);
  await stopped(r);
});

test.each([true, false])("queues stop and start while lcores run; zero-copy %s", async (zeroCopy) => {
  const r = await launched(zeroCopy);
  const { ethdev } = r.guest;
  for (let i = 0; i < 30; i++) {
    r.nic.receive([frame(r.guest.mac, i)]);
    expect(collect(r, 1).map(numberOf)).toEqual([i]);
    while (!ethdev?.stopQueue("tx")) r.nic.transmit();
    expect(ethdev?.stopQueue("rx")).toBe(true);
    ethdev?.startQueue("rx");
    ethdev?.startQueue("tx");
    // The guest posts again what came back to it empty, and the card gets it.
    const own = r.host.core.u32((r.guest.vdpdk?.rxQueue ?? 0) + VdpdkQueue.card);
    const posted = () => r.host.core.u32(own + RxQueue.posted) - r.host.core.u32(own + RxQueue.next);
    for (const end = performance.now() + 5000; own && posted() === 0 && performance.now() < end; ) {
      await new Promise((resume) => setTimeout(resume, 1));
    }
    // Copied, they only have to be there.
    if (!own) await new Promise((resume) => setTimeout(resume, 20));
  }
  await stopped(r);
});

test("a guest stops and starts while lcores run", async () => {
  const r = await launched(true, 2);
  for (let i = 0; i < 20; i++) {
    r.vmux.stop(r.guests[1] as Guest);
    r.nic.receive([frame(r.guest.mac, i), frame(r.guests[1]!.mac, i)]);
    expect(collect(r, 1).map(numberOf)).toEqual([i]);
    r.vmux.start(r.guests[1] as Guest);
    r.nic.receive([frame(r.guests[1]!.mac, i)]);
    expect(collect(r, 1).map(numberOf)).toEqual([i]);
  }
  expect(r.host.stats().nics[0]?.drops).toEqual({ rxStopped: 20 });
  await stopped(r);
});

test.each(["vmux", "guest"] as const)("after the %s's lcore is killed all works again", async (who) => {
  const r = await launched(true, 2);
  for (let round = 0; round < 3; round++) {
    const { done } = round === 0 ? r : await r.host.launch([r.vmux, ...r.guests]);
    r.nic.receive(numbers(40).map((i) => frame(r.guests[i % 2]!.mac, i)));
    await r.host.lcores[who === "vmux" ? 0 : 1]?.kill();
    await expect(done).rejects.toThrow(LcoreError);
    for (let i = 0; i < 5; i++) {
      r.host.drain();
      r.nic.transmit();
    }
  }
  r.nic.receive(numbers(32).map((i) => frame(r.guests[i % 2]!.mac, i)));
  r.host.drain();
  const back: number[] = [];
  r.nic.transmit((frames) => back.push(...frames.map(numberOf)));
  expect(back.sort((a, b) => a - b)).toEqual(numbers(32));
  for (let i = 0; i < 5; i++) {
    r.host.drain();
    r.nic.transmit();
  }
  expect(astray(r.host)).toBe(0);
});
