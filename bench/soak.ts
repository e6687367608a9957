/**
 * A long run under changing load: npm run soak -- --seconds 600 --seed 1
 *
 * The card's wire and a JavaScript port are on this thread, a switch and guests of all kinds on workers (or some of them
 * here). While checked frames go round, things happen at random: guests are mapped, unmapped, stopped, started and
 * connected, lcores paused, stopped, started elsewhere and killed, everybody sleeps and is woken by a burst, and a guest
 * writes garbage over its queues. After each epoch every frame must have come back, in order and unchanged, or be named by
 * a counter; every buffer must be in one place; and nobody may sleep over work that there is.
 *
 * A life is one host: its seed says what it consists of and what happens in it, though not when threads take turns.
 * Exit status 1 where something is wrong, with that seed.
 */
import { parseArgs } from "node:util";
import { Worker } from "node:worker_threads";
import { Guest as GuestLayout, Lcore, Poller, Port } from "../assembly/layout.ts";
import {
  type FramePort,
  type Guest,
  type GuestOptions,
  Host,
  LcoreError,
  type Role,
  type VSwitch,
} from "../src/index.ts";
import { FrameGenerator } from "../src/ports/generator.ts";
import { frame, misplaced, misplacedInPool, numberOf, type Rig, randomOf } from "../test/harness/host.ts";
import { scribble } from "../test/harness/scribble.ts";

/** How long anything may take, on a machine that has other things to do. */
const PATIENCE_MS = 20_000;
const LIFE_MS = 15_000;
const REPORT_MS = 5_000;
const PORT_MAC = "02:00:00:00:ee:01";
const [VLAN, HOSTILE_VLAN] = [10, 20];

const { values } = parseArgs({
  options: { seconds: { type: "string", default: "600" }, seed: { type: "string", default: "1" } },
});
const seconds = Number(values.seconds);
const firstSeed = Number(values.seed);
if (!(seconds > 0) || !Number.isInteger(firstSeed)) {
  console.error("usage: npm run soak -- [--seconds 600] [--seed 1]");
  process.exit(2);
}

/** What has been done so far, for the reports. */
const done = {
  lives: 0,
  epochs: 0,
  frames: 0,
  drops: 0,
  twice: 0,
  sleeps: 0,
  actions: new Map<string, number>(),
};

/** Something that mustn't be. */
class Violation extends Error {}

function must(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Violation(what);
}

/** @throws Violation where it takes longer than anything may */
async function within<T>(promise: Promise<T>, what: string): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Violation(`${what}: not within ${PATIENCE_MS} ms`)), PATIENCE_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

const sleep = (milliseconds: number) => new Promise((resume) => setTimeout(resume, milliseconds));

/** A guest, and what is known of it. */
interface Tenant {
  readonly guest: Guest;
  readonly port: VSwitch["ports"][number];
  running: boolean;
  mapped: boolean;
  /** Frames that went into it or came out of its function, and that it or the switch never saw: it was restarted. */
  gone: number;
  /** Numbers of the frames that the JavaScript port sends it: the next one, and the next that may come back. */
  next: number;
  expected: number;
}

/** One host and all that happens to it. */
class Life {
  readonly tenants: Tenant[] = [];
  /** Frames that nobody counted, but an `LcoreError` named. */
  private named = 0;
  private pushed = 0;
  private taken = 0;
  private done = Promise.resolve();
  private scribbler: { stop(): Promise<void> } | undefined;

  private constructor(
    readonly random: () => number,
    readonly host: Host,
    readonly rig: Rig,
    readonly port: FramePort,
    readonly generator: FrameGenerator,
    readonly vlanAware: boolean,
    /** A guest whose memory another thread writes garbage into. */
    readonly hostile: Guest | undefined,
  ) {}

  static async create(seed: number): Promise<Life> {
    const random = randomOf(seed);
    const pick = <T>(...from: T[]) => from[Math.floor(random() * from.length)] as T;
    const vlanAware = pick(true, false, false);
    const host = await Host.create({ shared: true, memory: 256 * 2 ** 20, buffers: pick(2048, 4096) });
    const nic = host.nic({ ring: pick(64, 256), queues: 8 });
    const guests = Array.from({ length: pick(2, 3, 4) }, () => host.guest(guestOptions(pick)));
    const hostile = vlanAware ? host.guest({ ...guestOptions(pick), run: "macswap" }) : undefined;
    const port = host.port();
    const sw = host.vswitch({
      connect: [nic, ...guests, ...(hostile ? [hostile] : []), port],
      vlanAware,
      burst: pick(4, 32, 64),
    });
    if (vlanAware) for (const one of [nic, port, ...guests]) sw.vlan(one, VLAN);
    if (hostile) sw.vlan(hostile, HOSTILE_VLAN);
    const generator = new FrameGenerator(host.core, {
      size: pick<64 | 1518 | "imix">(64, 1518, "imix"),
      to: guests.map((guest) => guest.mac),
      flows: 16,
      seed,
    });
    const rig = { host, core: host.core, nic, guest: guests[0]!, guests, sw };
    const life = new Life(random, host, rig, port, generator, vlanAware, hostile);
    for (const guest of guests) life.adopt(guest);
    return life;
  }

  private pick<T>(...from: T[]): T {
    return from[Math.floor(this.random() * from.length)] as T;
  }
  private below(n: number): number {
    return Math.floor(this.random() * n);
  }

  private adopt(guest: Guest): void {
    const { sw } = this.rig;
    const port = sw.ports[sw.indexOf(guest)]!;
    const mapped = guest.attach === "iovtee";
    this.tenants.push({ guest, port, running: true, mapped, gone: 0, next: 0, expected: 0 });
  }

  // Where roles run.

  /** Starts lcores with the roles dealt out at random; what is in no list is this thread's. */
  async launch(): Promise<void> {
    const lists: Role[][] = Array.from({ length: this.below(4) }, () => []);
    for (const role of [this.rig.sw, ...this.host.guests]) lists[this.below(lists.length + 1)]?.push(role);
    const launched = await within(this.host.launch(lists.filter((list) => list.length > 0)), "launch");
    this.done = launched.done;
    this.done.catch(() => {});
    for (const { address } of this.host.lcores)
      this.rig.core.setU32(address + Lcore.patience, this.pick(1, 10, 10_000));
  }

  async stop(): Promise<void> {
    this.countSleeps();
    this.host.stop();
    await within(this.done, "stop");
  }

  private countSleeps(): void {
    for (const { address } of this.host.lcores) done.sleeps += this.rig.core.counter(address + Lcore.sleeps);
  }

  // Frames.

  /** Frames that went in, and that came back. */
  private get traffic(): { sent: number; back: number } {
    const { sent, received } = this.generator.check();
    return { sent: sent + this.pushed, back: received + this.taken };
  }

  /** Frames that counters name. What the hostile guest's port counts is its own affair. */
  private get drops(): number {
    const { ports, nics, guests } = this.host.stats();
    const hostile = this.hostile?.name;
    const counted = [...ports, ...nics, ...guests].filter((one) => !("name" in one) || one.name !== hostile);
    return counted.reduce((n, { drops }) => n + Object.values(drops).reduce((a, b) => a + b, 0), 0);
  }

  /** Frames that are on their way, or were lost in silence. */
  private get missing(): number {
    const { sent, back } = this.traffic;
    const gone = this.tenants.reduce((n, tenant) => n + tenant.gone, 0);
    return sent - back - this.drops - gone - this.named;
  }

  /** Frames that a guest was given and hasn't seen, and that it has sent and the switch hasn't taken, when neither runs. */
  private inside({ guest, port, gone }: Tenant): number {
    const count = (address: number) => this.rig.core.counter(address);
    const given = count(port.address + Port.txPackets) - count(guest.address + GuestLayout.received);
    const sent = count(guest.address + GuestLayout.transmitted) - count(port.address + Port.rxPackets);
    return given + sent - gone;
  }

  /** Up to `n` frames from the wire and from the port. */
  private send(n: number): void {
    const { core, nic } = this.rig;
    core.exports.generate(this.generator.address, nic.address, this.below(n + 1));
    const tenant = this.pick(...this.tenants);
    const frames = Array.from({ length: this.below(4) }, (_, i) =>
      frame(tenant.guest.mac, tenant.next + i, 60 + this.below(400), PORT_MAC),
    );
    const pushed = this.port.push(frames);
    tenant.next += pushed;
    this.pushed += pushed;
  }

  /** One turn of all that this thread does. @returns whether anything moved */
  private turn(): boolean {
    const { core, nic } = this.rig;
    let moved = this.host.poll() > 0;
    const sent = core.exports.toTransmit(nic.address);
    if (core.exports.check(this.generator.address, nic.address, sent) > 0) moved = true;
    if (this.port.take((frames) => this.checkTaken(frames)) > 0) moved = true;
    return moved;
  }

  private checkTaken(frames: Uint8Array[]): void {
    for (const one of frames) {
      const number = numberOf(one);
      const from = this.tenants.find(
        ({ guest }) =>
          guest.mac === [...one.subarray(6, 12)].map((byte) => byte.toString(16).padStart(2, "0")).join(":"),
      );
      must(from !== undefined, `a frame at the port from nobody: ${one.subarray(0, 18)}`);
      must(
        number >= from.expected,
        `${from.guest.name}: frame ${number} at the port, expected ${from.expected} or later`,
      );
      must(number < from.next, `${from.guest.name}: frame ${number} at the port, sent were ${from.next}`);
      const intact = frame(PORT_MAC, number, one.length, from.guest.mac).every(
        (byte, i) => i < 12 || byte === one[i],
      );
      must(intact, `${from.guest.name}: frame ${number} at the port is corrupt`);
      from.expected = number + 1;
      this.taken++;
    }
  }

  // What happens.

  /** Load with things happening in it, then rest, and the account of it. */
  async epoch(): Promise<void> {
    const load = this.pick(4, 32, 128);
    // So many frames on their way at most: few enough that none need be dropped, or too many.
    const most = this.pick(32, 256, 100_000);
    for (let steps = 20 + this.below(60); steps > 0; steps--) {
      for (let bursts = this.below(30); bursts > 0; bursts--) {
        if (this.missing < most) this.send(load);
        this.turn();
        if (this.below(8) === 0) this.rig.nic.wait(1);
      }
      await this.act();
      beat();
      if (this.below(4) === 0) await sleep(this.below(3));
    }
    await this.rest();
    this.account();
    if (this.vlanAware && this.below(3) === 0) await this.leaveVlan();
    if (this.below(2) === 0) await sleep(this.below(300));
    done.epochs++;
  }

  private async act(): Promise<void> {
    const tenant = this.pick(...this.tenants);
    const actions: [string, number, () => void | Promise<void>][] = [
      ["map", 6, () => this.map(tenant)],
      ["unmap", 6, () => this.unmap(tenant)],
      ["stop a guest", 3, () => this.stopGuest(tenant)],
      ["start a guest", 6, () => this.startGuest(tenant)],
      ["connect", 1, () => this.connect()],
      ["pause", 4, () => this.audit()],
      ["relaunch", 2, () => this.relaunch()],
      ["kill", 1, () => this.kill()],
      ["restart the hostile guest", 3, () => this.provoke()],
      ["rest", 2, () => this.rest()],
    ];
    // Each as often as its weight says.
    const lots = actions.flatMap((action) => Array.from({ length: action[1] }, () => action));
    const [name, , act] = this.pick(...lots);
    done.actions.set(name, (done.actions.get(name) ?? 0) + 1);
    await act();
  }

  private map(tenant: Tenant): void {
    if (tenant.mapped || !tenant.running || tenant.guest.attach !== "iovtee") return;
    this.rig.sw.map(this.rig.nic, tenant.guest);
    tenant.mapped = true;
  }

  private unmap(tenant: Tenant): void {
    this.rig.sw.unmap(tenant.guest);
    tenant.mapped = false;
  }

  private stopGuest(tenant: Tenant): void {
    if (!tenant.running) return;
    this.host.paused(() => {
      this.unmap(tenant); // what the card has received is delivered by that
      tenant.gone += this.inside(tenant);
      this.rig.sw.stop(tenant.guest);
    });
    tenant.running = false;
  }

  private startGuest(tenant: Tenant): void {
    if (tenant.running) return;
    this.rig.sw.start(tenant.guest);
    tenant.running = true;
    if (this.below(2) === 0) this.map(tenant);
  }

  private connect(): void {
    const { sw, guests } = this.rig;
    if (guests.length > 5) return;
    const guest = this.host.guest({ ...guestOptions((...from) => this.pick(...from)), attach: "vhost" });
    sw.connect(guest);
    if (this.vlanAware) sw.vlan(guest, VLAN);
    guests.push(guest);
    this.adopt(guest);
  }

  private async relaunch(): Promise<void> {
    await this.stop();
    await this.launch();
  }

  /** One lcore dies wherever it is; what it had in hand is lost, and its error says so. */
  private async kill(): Promise<void> {
    const victim = this.pick(...this.host.lcores);
    if (!victim) return;
    this.countSleeps();
    for (let i = this.below(20); i >= 0; i--) this.send(64);
    await victim.kill();
    const error = await within(
      this.done.then(
        () => undefined,
        (one) => one,
      ),
      `the end after ${victim.name} was killed`,
    );
    must(
      error instanceof LcoreError && error.lcore === victim.name,
      `${victim.name} was killed, but ${error}`,
    );
    const most = this.missing;
    await this.launch();
    await this.rest();
    const lost = this.missing;
    must(lost >= 0 && lost <= most, `${lost} frames lost by ${victim.name}'s death, expected 0 to ${most}`);
    // Of those that were in a guest which was restarted, its counters don't tell either.
    for (const tenant of this.tenants.filter(({ guest }) => error.recovered.guests.includes(guest.name))) {
      const gone = this.inside(tenant);
      tenant.gone += gone;
      this.named -= gone;
    }
    this.named += lost;
  }

  /** The hostile guest's queues are set up anew, and more garbage comes. */
  private async provoke(): Promise<void> {
    if (!this.hostile) return;
    await this.scribbler?.stop();
    this.rig.sw.stop(this.hostile);
    this.rig.sw.start(this.hostile);
    this.scribbler = scribble(this.hostile, this.below(2 ** 31));
  }

  /** A card in no VLAN: whatever comes from its wire is dropped, and counted. */
  private async leaveVlan(): Promise<void> {
    const { sw, nic } = this.rig;
    sw.vlan(nic, 0);
    for (let i = 0; i < 10; i++) this.send(32);
    await this.rest();
    this.account();
    sw.vlan(nic, VLAN);
  }

  /** Until nothing moves, and all lcores sleep. */
  async rest(): Promise<void> {
    const { core } = this.rig;
    for (let quiet = 0, end = performance.now() + PATIENCE_MS; quiet < 3; ) {
      must(performance.now() < end, `no rest within ${PATIENCE_MS} ms`);
      const moved = this.turn();
      // One that was rung for sleeps on until it has its turn.
      const asleep = this.host.lcores.every(
        ({ address }) =>
          core.u32(address + Lcore.asleep) === 1 &&
          core.u32(address + Lcore.doorbell) === core.u32(address + Lcore.seen),
      );
      quiet = moved || !asleep ? 0 : quiet + 1;
      if (!moved) await sleep(1);
      beat();
    }
  }

  // What must be.

  /** At rest: all frames are accounted for, before anybody is woken by a pause. */
  private account(): void {
    const { duplicated, reordered, corrupt } = this.generator.check();
    // What a kill is said to have lost is what was on its way then: some of it can be counted as a drop as well.
    const twice = Math.min(0, this.missing);
    this.named += twice;
    done.twice -= twice;
    const wrong = { duplicated, reordered, corrupt, "lost in silence": this.missing };
    for (const [what, n] of Object.entries(wrong)) must(n === 0, `${n} frames ${what}`);
    for (const tenant of this.tenants.filter(({ running }) => running)) {
      must(this.inside(tenant) === 0, `${this.inside(tenant)} frames left in ${tenant.guest.name}`);
    }
    this.audit();
  }

  /** At any time: each buffer is in one place, of the host's and of the guests'. */
  audit(): void {
    const { duplicated, reordered, corrupt } = this.generator.check();
    must(
      duplicated + reordered + corrupt === 0,
      `${duplicated} duplicated, ${reordered} reordered, ${corrupt} corrupt`,
    );
    this.host.paused(() => {
      const { available, outstanding, buffers } = this.host.stats().pool;
      must(available + outstanding === buffers, `pool: ${available} + ${outstanding} of ${buffers}`);
      const wrong = [
        misplacedInPool(this.rig),
        ...this.tenants
          .filter(({ running }) => running)
          .map(({ guest }) => misplaced(this.rig, guest).map((one) => `${guest.name}: ${one}`)),
      ].flat();
      must(wrong.length === 0, `misplaced: ${wrong.slice(0, 10).join("; ")}`);
      for (const { name, drops } of this.host.stats().ports) {
        const refused = Object.keys(drops).filter((why) => why.startsWith("refused"));
        must(name === this.hostile?.name || refused.length === 0, `${name}: ${refused}`);
      }
    });
  }

  /** On one thread again: all that was on its way comes, and nothing is left. */
  async end(): Promise<void> {
    await this.scribbler?.stop();
    this.scribbler = undefined;
    await this.stop();
    await this.rest();
    this.account();
    done.lives++;
    done.frames += this.traffic.back;
    done.drops += this.drops;
  }

  /** The state of all lcores, for who has to find out. */
  dump(): string {
    const { core } = this.rig;
    const lines = this.host.lcores.map(({ name, address }) => {
      const at = (field: Lcore) => core.u32(address + field);
      const line = `${name}: doorbell ${at(Lcore.doorbell)}, seen ${at(Lcore.seen)}, asleep ${at(Lcore.asleep)}, command ${at(Lcore.command)}, parked ${at(Lcore.parked)}, active ${at(Lcore.active)} of ${at(Lcore.count)}, turns ${at(Lcore.turns)}`;
      const idle = Array.from(
        { length: at(Lcore.count) },
        (_, i) => core.u32(address + Lcore.pollers + i * Poller.SIZE + Poller.idle) | 0,
      );
      return `  ${line}; empty turns ${idle}`;
    });
    const kinds = this.host.guests.map(({ name, attach }) => `${name} ${attach}`);
    return [
      ...lines,
      `  ${kinds.join(", ")}; missing ${this.missing}`,
      `  ${JSON.stringify(this.host.stats())}`,
    ].join("\n");
  }
}

function guestOptions(pick: <T>(...from: T[]) => T): GuestOptions {
  const attach = pick<"vhost" | "iovtee">("vhost", "iovtee");
  const mergeable = pick(true, true, false);
  return {
    attach,
    mergeable,
    ring: pick(64, 128, 256),
    packed: pick(true, false),
    eventIdx: pick(true, false),
    interrupts: pick(true, false, false),
    indirect: pick(true, false),
    inOrder: attach === "vhost" && pick(true, false, false),
    onEmpty: pick<"host" | "wait">("host", "wait"),
    scrub: pick(true, false),
    bufferSize: mergeable ? pick(2176, 2176, 700) : 2176,
  };
}

/** Another thread ends the process where this one hangs. */
const heart = new Int32Array(new SharedArrayBuffer(4));
const watchdog = new Worker(
  `const { workerData: heart } = require("node:worker_threads");
   const { writeSync } = require("node:fs");
   for (let beats = -1; beats !== Atomics.load(heart, 0); Atomics.wait(heart, 0, beats, ${2 * PATIENCE_MS}))
     beats = Atomics.load(heart, 0);
   writeSync(2, "soak: the main thread hangs; repeat with the seed above\\n");
   process.kill(process.pid, "SIGKILL");`,
  { eval: true, workerData: heart },
);
watchdog.unref();
function beat(): void {
  Atomics.add(heart, 0, 1);
}

const start = performance.now();
let reported = start;

function report(seed: number): void {
  if (performance.now() - reported < REPORT_MS) return;
  reported = performance.now();
  const passed = Math.round((reported - start) / 1000);
  console.log(
    `${passed} s: seed ${seed}, ${done.lives} lives, ${done.epochs} epochs, ${done.actions.get("kill") ?? 0} kills`,
  );
}

for (let seed = firstSeed; performance.now() - start < seconds * 1000; seed++) {
  const life = await Life.create(seed);
  try {
    await life.launch();
    const end = Math.min(performance.now() + LIFE_MS, start + seconds * 1000);
    while (performance.now() < end) {
      await life.epoch();
      report(seed);
    }
    await life.end();
  } catch (error) {
    console.error(`soak: ${error instanceof Violation ? error.message : (error as Error).stack}`);
    console.error(life.dump());
    console.error(`repeat with: npm run soak -- --seed ${seed} --seconds ${Math.ceil((2 * LIFE_MS) / 1000)}`);
    process.exit(1);
  }
}
const actions = [...done.actions].map(([name, n]) => `${name} ${n}`).join(", ");
console.log(
  `soak: ${done.lives} lives, ${done.epochs} epochs, ${done.frames} frames came back, ${done.drops} were dropped and counted, ` +
    `none was lost, ${done.twice} were named twice; lcores slept ${done.sleeps} times; ${actions}`,
);
process.exit(0);
