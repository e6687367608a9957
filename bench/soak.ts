/**
 * A long run under changing load: npm run soak -- --seconds 600 --seed 1
 *
 * The cards' wires and a JavaScript port are on this thread, a switch, a vMux and guests of all kinds on workers (or some of
 * them here): on the switch, at bridges and functions of its card, with a card of their own, or served by the vMux of a third.
 * While checked frames go round, things happen at random: guests are mapped, unmapped, stopped, started, reset and connected,
 * virtual functions taken away and made, queues of vDPDK devices stopped and started, rules of card and switch made and
 * deleted, lcores paused, stopped, started elsewhere and killed, everybody sleeps and is woken by a burst, and a guest writes
 * garbage over its queues. After each epoch every frame must have come back, in order and unchanged, or be named by a
 * counter; every buffer must be in one place; and nobody may sleep over work that there is.
 *
 * A life is one host: its seed says what it consists of and what happens in it, though not when threads take turns.
 * Exit status 1 where something is wrong, with that seed.
 */
import { parseArgs } from "node:util";
import { Worker } from "node:worker_threads";
import { Lcore, Poller } from "../assembly/layout.ts";
import {
  type FramePort,
  type Guest,
  Host,
  LcoreError,
  NetmapBridge,
  type Nic,
  type NicModeName,
  PciFunction,
  type Role,
  type Vmux,
  type VSwitch,
} from "../src/index.ts";
import { FrameGenerator } from "../src/ports/generator.ts";
import { misplaced } from "../test/harness/accountant.ts";
import { frame, misplacedInPool, numberOf, randomOf } from "../test/harness/host.ts";
import { scribble } from "../test/harness/scribble.ts";
import { bridgedGuest, ownerOf, type Pick, servedGuest, switchedGuest, Tenant } from "./soak-tenant.ts";

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

/** UDP flows of each wire: source ports from 1024 on. */
const FLOWS = 16;
/** Most guests that come while a host lives, and most rules of a kind at a time. */
const [LATE_MOST, RULES_MOST] = [6, 20];

/** What a life consists of. */
interface Parts {
  readonly sw: VSwitch;
  readonly vmux: Vmux | undefined;
  readonly wires: readonly { readonly nic: Nic; readonly generator: FrameGenerator }[];
  readonly tenants: Tenant[];
  readonly port: FramePort;
  readonly vlanAware: boolean;
  readonly hasFlows: boolean;
  /** NAPI budget of guests by "kernel". */
  readonly napi: number;
  /** A guest whose memory another thread writes garbage into. */
  readonly hostile: Guest | undefined;
}

/** Everything that a life consists of, at random. */
function assemble(host: Host, seed: number, pick: Pick): Parts {
  const vlanAware = pick(true, false, false);
  const hasFlows = !vlanAware && pick(true, false);
  const napi = pick(1, 1, 32);
  const mode = pick<NicModeName | undefined>(undefined, "poll", "interrupt", "adaptive");
  const rssQueues = pick(1, 1, 3);
  const nic = host.nic({
    ring: pick(64, 256),
    queues: 24,
    rssQueues,
    flowOffload: pick(true, true, false),
    ...(mode ? { mode } : {}),
  });
  const some = (most: number) => Array.from({ length: pick(...Array(most + 1).keys()) });
  const switched = [0, 0, ...some(2)].map(() => host.guest(switchedGuest(pick, napi)));
  const hostile = vlanAware ? host.guest({ ...switchedGuest(pick, napi), run: "macswap" }) : undefined;
  const port = host.port();
  const sw = host.vswitch({
    connect: [nic, ...switched, ...(hostile ? [hostile] : []), port],
    vlanAware,
    burst: pick(4, 32, 64),
    ...(hasFlows ? { flows: ["priority=0,actions=NORMAL"] } : {}),
  });
  if (vlanAware) for (const one of [nic, port, ...switched]) sw.vlan(one, VLAN);
  if (hostile) sw.vlan(hostile, HOSTILE_VLAN);
  const tenants = switched.map((guest) => new Tenant(guest, nic, sw));
  for (const _ of some(2)) {
    const guest = host.guest(bridgedGuest(pick));
    tenants.push(new Tenant(guest, nic, host.bridge(nic, guest)));
  }
  const owner = (attach: "sriov" | "passthrough", of: Nic) => {
    const guest = host.guest(ownerOf(attach, of, pick));
    tenants.push(new Tenant(guest, of, of.functions.at(-1) as PciFunction));
  };
  for (const _ of some(2)) owner("sriov", nic);
  const nics = [nic];
  if (pick(true, false)) {
    nics.push(host.nic({ ring: 64 }));
    owner("passthrough", nics.at(-1) as Nic);
  }
  let vmux: Vmux | undefined;
  if (pick(true, false)) {
    const third = host.nic({ ring: pick(64, 256), queues: 8 });
    nics.push(third);
    const guests = [0, ...some(1)].map(() => host.guest(servedGuest(pick)));
    vmux = host.vmux({ nic: third, guests });
    for (const guest of guests) tenants.push(new Tenant(guest, third, vmux));
    for (const _ of some(1)) owner("sriov", third);
  }
  const wires = nics.map((one) => ({
    nic: one,
    generator: new FrameGenerator(host.core, {
      size: pick<64 | 1518 | "imix">(64, 1518, "imix"),
      to: tenants.filter((tenant) => tenant.nic === one).map(({ guest }) => guest.mac),
      flows: FLOWS,
      // Rules and RSS take flows to several queues.
      order: "flow",
      seed,
    }),
  }));
  return { sw, vmux, wires, tenants, port, vlanAware, hasFlows, napi, hostile };
}

/** One host and all that happens to it. */
class Life {
  readonly tenants: Tenant[];
  readonly sw: VSwitch;
  /** Frames that nobody counted, but an `LcoreError` named; drops of functions that there were. */
  private named = 0;
  private bygone = 0;
  private pushed = 0;
  private taken = 0;
  private done = Promise.resolve();
  private scribbler: { stop(): Promise<void> } | undefined;
  private late = 0;
  /** Ids of the card's rules; matches of the switch's; the priority of the next one. */
  private readonly cardRules: number[] = [];
  private readonly switchRules: string[] = [];
  private priority = 1;

  private constructor(
    readonly random: () => number,
    readonly host: Host,
    readonly parts: Parts,
  ) {
    this.tenants = parts.tenants;
    this.sw = parts.sw;
  }

  static async create(seed: number): Promise<Life> {
    const random = randomOf(seed);
    const pick: Pick = (...from) => from[Math.floor(random() * from.length)] as (typeof from)[number];
    const host = await Host.create({ shared: true, memory: 512 * 2 ** 20, buffers: pick(4096, 8192) });
    return new Life(random, host, assemble(host, seed, pick));
  }

  private readonly pick: Pick = (...from) => from[this.below(from.length)] as (typeof from)[number];
  private below(n: number): number {
    return Math.floor(this.random() * n);
  }

  // Where roles run.

  /** Starts lcores with the roles dealt out at random; what is in no list is this thread's. */
  async launch(): Promise<void> {
    const lists: Role[][] = Array.from({ length: this.below(4) }, () => []);
    const { sw, vmux } = this.parts;
    for (const role of [sw, ...(vmux ? [vmux] : []), ...this.host.guests])
      lists[this.below(lists.length + 1)]?.push(role);
    const launched = await within(this.host.launch(lists.filter((list) => list.length > 0)), "launch");
    this.done = launched.done;
    this.done.catch(() => {});
    for (const { address } of this.host.lcores)
      this.host.core.setU32(address + Lcore.patience, this.pick(1, 10, 10_000));
  }

  async stop(): Promise<void> {
    this.countSleeps();
    this.host.stop();
    await within(this.done, "stop");
  }

  private countSleeps(): void {
    for (const { address } of this.host.lcores) done.sleeps += this.host.core.counter(address + Lcore.sleeps);
  }

  // Frames.

  /** Frames that went in, and that came back. */
  private get traffic(): { sent: number; back: number } {
    const checks = this.parts.wires.map(({ generator }) => generator.check());
    const sum = (of: "sent" | "received") => checks.reduce((n, check) => n + check[of], 0);
    return { sent: sum("sent") + this.pushed, back: sum("received") + this.taken };
  }

  /** Frames that counters name. What the hostile guest's port counts is its own affair. */
  private get drops(): number {
    const { ports, nics, guests, functions } = this.host.stats();
    const hostile = this.parts.hostile?.name;
    const counted = [...ports, ...nics, ...guests, ...functions].filter(
      (one) => !("name" in one) || one.name !== hostile,
    );
    return counted.reduce((n, { drops }) => n + dropsOf(drops), this.bygone);
  }

  /** Frames that are on their way, or were lost in silence. */
  private get missing(): number {
    const { sent, back } = this.traffic;
    const gone = this.tenants.reduce((n, tenant) => n + tenant.gone, 0);
    return sent - back - this.drops - gone - this.named;
  }

  /** Up to `n` frames from each wire, and a few from the port. */
  private send(n: number): void {
    for (const { nic, generator } of this.parts.wires)
      this.host.core.exports.generate(generator.address, nic.address, this.below(n + 1));
    const tenant = this.pick(...this.switched);
    const frames = Array.from({ length: this.below(4) }, (_, i) =>
      frame(tenant.guest.mac, tenant.next + i, 60 + this.below(400), PORT_MAC),
    );
    const pushed = this.parts.port.push(frames);
    tenant.next += pushed;
    this.pushed += pushed;
  }

  /** Those that the switch's JavaScript port reaches. */
  private get switched(): Tenant[] {
    return this.tenants.filter(({ by }) => by === this.sw);
  }

  /** One turn of all that this thread does. @returns whether anything moved */
  private readonly turn = (): boolean => {
    const { exports } = this.host.core;
    let moved = this.host.poll() > 0;
    for (const { nic, generator } of this.parts.wires) {
      const sent = exports.toTransmit(nic.address);
      if (exports.check(generator.address, nic.address, sent) > 0) moved = true;
    }
    if (this.parts.port.take((frames) => this.checkTaken(frames)) > 0) moved = true;
    return moved;
  };

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
        if (this.below(8) === 0) this.pick(...this.parts.wires).nic.wait(1);
      }
      await this.act();
      beat();
      if (this.below(4) === 0) await sleep(this.below(3));
    }
    await this.rest();
    this.account();
    if (this.parts.vlanAware && this.below(3) === 0) await this.leaveVlan();
    if (this.below(2) === 0) await sleep(this.below(300));
    done.epochs++;
  }

  private async act(): Promise<void> {
    const tenant = this.pick(...this.tenants);
    const actions: [string, number, () => void | Promise<void>][] = [
      ["map", 6, () => tenant.map()],
      ["unmap", 6, () => tenant.unmap()],
      ["stop a guest", 3, () => tenant.stop()],
      ["start a guest", 6, () => this.startGuest(tenant)],
      ["reset a function", 2, () => tenant.reset()],
      ["replace a function", 1, () => this.replaceFunction()],
      ["stop or start a queue", 4, () => tenant.toggleQueue(this.pick("rx", "tx"), this.turn)],
      ["a rule of the card", 3, () => this.changeCardRules()],
      ["a rule of the switch", 3, () => this.changeSwitchRules()],
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

  private startGuest(tenant: Tenant): void {
    if (tenant.running) return;
    tenant.start();
    if (this.below(2) === 0) tenant.map();
  }

  /** A virtual function is taken away with all that is in it, and another guest gets one with its address. */
  private replaceFunction(): void {
    const tenant = this.pick(...this.tenants.filter(({ guest }) => guest.attach === "sriov"));
    if (!tenant || this.late === LATE_MOST) return;
    this.late++;
    const { nic, guest } = tenant;
    const vf = tenant.by as PciFunction;
    this.host.paused(() => {
      // What is in it is gone, and so are its counters.
      const counted = this.host.stats().functions.find(({ name }) => name === vf.name);
      this.bygone += tenant.inside + tenant.gone + dropsOf(counted?.drops ?? {});
      nic.destroyVf(vf);
      const next = this.host.guest({ ...ownerOf("sriov", nic, this.pick), mac: guest.mac });
      this.tenants[this.tenants.indexOf(tenant)] = new Tenant(next, nic, nic.functions.at(-1) as PciFunction);
    });
  }

  private changeCardRules(): void {
    const { flow } = (this.parts.wires[0] as Parts["wires"][number]).nic;
    // Of a bridged pipe's frames a card's driver sees none, so rules for it are refused.
    if (!flow.offload && this.tenants.some(({ by }) => by instanceof NetmapBridge)) return;
    if (this.cardRules.length === RULES_MOST || (this.cardRules.length > 0 && this.below(2) === 0)) {
      flow.destroy(this.cardRules.splice(this.below(this.cardRules.length), 1)[0] as number);
      return;
    }
    const { guest } = this.pick(...this.switched);
    const pattern = this.pick(
      `eth dst is ${guest.mac} / ipv4 / udp src is ${1024 + this.below(FLOWS)} / end`,
      `eth dst is ${guest.mac} / end`,
      "eth / ipv4 dst spec 198.19.0.0 dst prefix 16 / end",
    );
    // A mapped guest's frames stay in its queue.
    const queued = pattern.includes(guest.mac) && guest.attach !== "iovtee" ? ["queue index 0", "rss"] : [];
    const actions = this.pick(
      "count",
      "mark id 7 / count",
      "passthru",
      ...queued,
      ...(this.below(4) ? [] : ["drop"]),
    );
    const priority = this.priority++;
    this.cardRules.push(
      flow.create(`priority ${priority} ingress pattern ${pattern} actions ${actions} / end`),
    );
  }

  private changeSwitchRules(): void {
    if (!this.parts.hasFlows) return;
    const { flows } = this.sw;
    if (this.switchRules.length === RULES_MOST || (this.switchRules.length > 0 && this.below(2) === 0)) {
      flows.delete(this.switchRules.splice(this.below(this.switchRules.length), 1)[0] as string);
      return;
    }
    const { guest } = this.pick(...this.switched);
    const match = `udp,tp_src=${1024 + this.below(FLOWS)},dl_dst=${guest.mac}`;
    const actions = this.pick(
      "NORMAL",
      `output:${this.sw.indexOf(guest)}`,
      ...(this.below(4) ? [] : ["drop"]),
    );
    flows.add(`priority=${this.priority++},${match},actions=${actions}`);
    this.switchRules.push(match);
  }

  private connect(): void {
    const { sw } = this;
    if (this.late === LATE_MOST) return;
    this.late++;
    const guest = this.host.guest(switchedGuest(this.pick, this.parts.napi));
    sw.connect(guest);
    if (this.parts.vlanAware) sw.vlan(guest, VLAN);
    this.tenants.push(new Tenant(guest, (this.parts.wires[0] as Parts["wires"][number]).nic, sw));
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
    // Those that were restarted have all their queues again.
    for (const tenant of this.tenants.filter(({ guest }) => error.recovered.guests.includes(guest.name)))
      tenant.stopped.clear();
    const most = this.missing;
    await this.launch();
    await this.rest();
    const lost = this.missing;
    must(lost >= 0 && lost <= most, `${lost} frames lost by ${victim.name}'s death, expected 0 to ${most}`);
    // Of those that were in a guest which was restarted, its counters don't tell either.
    for (const tenant of this.tenants.filter(({ guest }) => error.recovered.guests.includes(guest.name))) {
      const gone = tenant.inside;
      tenant.gone += gone;
      this.named -= gone;
    }
    this.named += lost;
  }

  /** The hostile guest's queues are set up anew, and more garbage comes. */
  private async provoke(): Promise<void> {
    const { hostile } = this.parts;
    if (!hostile) return;
    await this.scribbler?.stop();
    this.sw.stop(hostile);
    this.sw.start(hostile);
    this.scribbler = scribble(hostile, this.below(2 ** 31));
  }

  /** A card in no VLAN: whatever comes from its wire is dropped, and counted. */
  private async leaveVlan(): Promise<void> {
    const { sw } = this;
    const { nic } = this.parts.wires[0] as Parts["wires"][number];
    sw.vlan(nic, 0);
    for (let i = 0; i < 10; i++) this.send(32);
    await this.rest();
    this.account();
    sw.vlan(nic, VLAN);
  }

  /** Until nothing moves, and all lcores sleep. Guests' queues go on, and their cables are in: what waits for that comes. */
  async rest(): Promise<void> {
    const { core } = this.host;
    for (const tenant of this.tenants) {
      tenant.startQueues();
      if (tenant.by instanceof PciFunction) tenant.start();
    }
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

  private get wrong(): { duplicated: number; reordered: number; corrupt: number } {
    const checks = this.parts.wires.map(({ generator }) => generator.check());
    const sum = (of: "duplicated" | "reordered" | "corrupt") => checks.reduce((n, check) => n + check[of], 0);
    return { duplicated: sum("duplicated"), reordered: sum("reordered"), corrupt: sum("corrupt") };
  }

  /** At rest: all frames are accounted for, before anybody is woken by a pause. */
  private account(): void {
    const { duplicated, reordered, corrupt } = this.wrong;
    // What a kill is said to have lost is what was on its way then: some of it can be counted as a drop as well.
    const twice = Math.min(0, this.missing);
    this.named += twice;
    done.twice -= twice;
    const wrong = { duplicated, reordered, corrupt, "lost in silence": this.missing };
    for (const [what, n] of Object.entries(wrong)) must(n === 0, `${n} frames ${what}`);
    for (const tenant of this.tenants.filter(({ running }) => running)) {
      must(tenant.inside === 0, `${tenant.inside} frames left in ${tenant.guest.name}`);
    }
    this.audit();
  }

  /** At any time: each buffer is in one place, of the host's and of the guests'. */
  audit(): void {
    const { duplicated, reordered, corrupt } = this.wrong;
    must(
      duplicated + reordered + corrupt === 0,
      `${duplicated} duplicated, ${reordered} reordered, ${corrupt} corrupt`,
    );
    this.host.paused(() => {
      const { available, outstanding, buffers } = this.host.stats().pool;
      must(available + outstanding === buffers, `pool: ${available} + ${outstanding} of ${buffers}`);
      const wrong = [
        misplacedInPool({ core: this.host.core, host: this.host }),
        ...this.tenants
          .filter(({ running }) => running)
          .map(({ guest, nic }) => misplaced(this.host, nic, guest).map((one) => `${guest.name}: ${one}`)),
      ].flat();
      must(wrong.length === 0, `misplaced: ${wrong.slice(0, 10).join("; ")}`);
      for (const { name, drops } of this.host.stats().ports) {
        const refused = Object.keys(drops).filter((why) => why.startsWith("refused"));
        must(name === this.parts.hostile?.name || refused.length === 0, `${name}: ${refused}`);
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
    const { core } = this.host;
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

function dropsOf(drops: Record<string, number>): number {
  return Object.values(drops).reduce((a, b) => a + b, 0);
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
