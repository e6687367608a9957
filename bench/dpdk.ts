/**
 * DPDK's testpmd beside ours: PVP with one testpmd as host (net_null as the card, net_vhost) and one as guest
 * (net_virtio_user, swapping MAC addresses), on a CPU each, in turn with our PVP; by how near the CPUs are.
 *
 *     npm run bench:dpdk [-- --copy --no-huge --burst=32]
 *
 * net_null writes no frame, as our card's writes aren't timed either; with --copy it copies each frame in and out. It
 * offers frames without end, and testpmd drops those that the guest's ring has no room for: what comes back counts.
 * Huge pages are reserved for the time being where that is allowed; with --no-huge there are none.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import Table from "cli-table3";
import { pvp } from "../src/index.ts";
import { median } from "../src/median.ts";
import { spread } from "./rig.ts";
import { type Distance, distance, TwoCpus, unfit } from "./two-cpus.ts";

const ROUNDS = 9;
/** Frames taken at a time, by testpmd and by ours; 32, testpmd's own, without --burst=N. */
const BURST = Number(process.argv.find((arg) => arg.startsWith("--burst="))?.slice(8) ?? 32);
/** Milliseconds of a testpmd's round that are measured, and before them. */
const MEASURED = 1000;
const WARM = 300;
/** Of 64 bytes on the wire the last 4, the FCS, aren't in memory; 1514 is counted without, as in the paper. */
const SIZES = [
  { frame: 64, bytes: 60 },
  { frame: 1514, bytes: 1514 },
];
const FORMATS = [
  { name: "DPDK, split ring", packed: false },
  { name: "DPDK, packed ring", packed: true },
];
const ATTACHMENTS = ["vhost", "iovtee"] as const;
/** Threads that our PVP runs on: one, and as DPDK one for the card and the switch and one for the guest. */
const THREADS = [
  { cores: 1, lcores: undefined },
  { cores: 2, lcores: ["nic+host", "guest"] },
];
/** MiB of memory for a testpmd; without huge pages its pools want more room. */
const MEMORY = { huge: 64, small: 256 };
const HUGE_PAGE = 2;
const NR_HUGEPAGES = "/proc/sys/vm/nr_hugepages";
/** A testpmd that is silent for so long has failed: milliseconds. */
const PATIENCE = 20_000;
/** Who had less of its CPU than this shared it with another program. */
const UNDISTURBED = 0.9;

interface Setting {
  two: TwoCpus;
  /** For sockets, and for what DPDK leaves beside its memory. */
  folder: string;
  huge: boolean;
  /** net_null copies. */
  copy: boolean;
}

const running = new Set<Testpmd>();

/** A testpmd that takes commands from us. */
class Testpmd {
  readonly #child: ChildProcess;
  /** What it printed since the last command. */
  #output = "";
  #ended = false;

  /** @param name tells its memory from others'; `devices` are what it drives, `options` are testpmd's own */
  constructor(setting: Setting, name: string, cpu: number, devices: string[], options: string[]) {
    const { folder, huge } = setting;
    const memory = huge
      ? ["--in-memory", "--single-file-segments", "-m", `${MEMORY.huge}`]
      : ["--no-huge", "--no-shconf", "-m", `${MEMORY.small}`];
    // Its first lcore reads our commands and sleeps, the second one forwards.
    const eal = ["-v", "--no-pci", "--no-telemetry", "--file-prefix", name, "--lcores", `0@${cpu},1@${cpu}`];
    const args = [
      ...eal,
      ...memory,
      ...devices.flatMap((device) => ["--vdev", device]),
      "--",
      "-i",
      ...options,
    ];
    // Line by line: into a pipe it would print by the block.
    this.#child = spawn(
      "stdbuf",
      ["-oL", "dpdk-testpmd", ...args, `--burst=${BURST}`, "--total-num-mbufs=16384"],
      {
        env: { ...process.env, RUNTIME_DIRECTORY: folder },
      },
    );
    running.add(this);
    for (const stream of [this.#child.stdout, this.#child.stderr])
      stream?.on("data", (text) => (this.#output += text));
    for (const event of ["error", "exit"]) this.#child.on(event, () => this.#end());
  }

  /** Gives a command, and waits until it prints `answer`. */
  async tell(command: string, answer: RegExp): Promise<RegExpExecArray> {
    this.#output = "";
    this.#child.stdin?.write(`${command}\n`);
    return this.until(answer);
  }

  /** @throws Error with what it printed, where it ended or is silent instead */
  async until(answer: RegExp): Promise<RegExpExecArray> {
    for (const end = performance.now() + PATIENCE; ; await sleep(5)) {
      const found = answer.exec(this.#output);
      if (found) return found;
      if (this.#ended || performance.now() > end) {
        throw new Error(`testpmd: expected ${answer}, but it printed\n${this.#output.slice(-2000)}`);
      }
    }
  }

  /** Seconds that it has run. */
  cpuSeconds(): number {
    const stat = readFileSync(`/proc/${this.#child.pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" "); // from the third one on
    return (Number(fields[11]) + Number(fields[12])) / 100;
  }

  async quit(): Promise<void> {
    if (this.#ended) return;
    const ended = once(this.#child, "exit");
    this.#child.stdin?.write("quit\n");
    await ended;
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  #end(): void {
    this.#ended = true;
    running.delete(this);
  }
}

/** A host and its guest; they sleep between rounds. */
class Pair {
  private constructor(
    readonly host: Testpmd,
    readonly guest: Testpmd,
    readonly bytes: number,
    readonly version: string,
  ) {}

  static async create(setting: Setting, packed: boolean, bytes: number): Promise<Pair> {
    const name = `${bytes}-${packed ? "packed" : "split"}`;
    const socket = join(setting.folder, name);
    const [hostCpu, guestCpu] = setting.two.cpus;
    const card = `net_null0,size=${bytes},copy=${setting.copy ? 1 : 0}`;
    const vhost = `net_vhost0,iface=${socket},queues=1`;
    const virtio = `net_virtio_user0,path=${socket},queues=1,queue_size=256,packed_vq=${packed ? 1 : 0},mrg_rxbuf=0,in_order=0`;

    const host = new Testpmd(setting, `${name}-host`, hostCpu, [card, vhost], ["--forward-mode=io"]);
    const [, version = ""] = await host.until(/RTE Version: '(.*)'[\s\S]*testpmd> /);
    const swapping = ["--forward-mode=macswap", "--port-topology=loop"];
    const guest = new Testpmd(setting, `${name}-guest`, guestCpu, [virtio], swapping);
    await guest.until(/testpmd> /);
    await host.until(/virtio is now ready for processing/);
    return new Pair(host, guest, bytes, version);
  }

  /** Millions of frames a second that came back; and the share of its CPU that the one had who had less. */
  async round(): Promise<{ mpps: number; share: number }> {
    const { host, guest } = this;
    const both = [host, guest];
    for (const one of [guest, host]) await one.tell("start", /packets\/burst/);
    await sleep(WARM);
    const throughput = () => host.tell("show port stats 0", /Tx-pps:\s+(\d+)/); // since the last time
    await throughput();
    const begin = performance.now();
    const before = both.map((one) => one.cpuSeconds());
    await sleep(MEASURED);
    const pps = Number((await throughput())[1]);
    const seconds = (performance.now() - begin) / 1000;
    const used = both.map((one, i) => one.cpuSeconds() - (before[i] as number));
    const share = Math.min(...used) / seconds;
    for (const one of [host, guest]) await one.tell("stop", /Done\./);

    const [, frames, bytes] = await guest.tell(
      "show port stats 0",
      /RX-packets: (\d+)[\s\S]*RX-bytes: +(\d+)/,
    );
    if ((pps === 0 && share >= UNDISTURBED) || Number(bytes) !== Number(frames) * this.bytes) {
      throw new Error(
        `testpmd: ${pps} frames/s came back, and of ${this.bytes} bytes each ${frames} had ${bytes} in all`,
      );
    }
    return { mpps: pps / 1e6, share };
  }
}

/** Milliseconds that this thread could have run, but another one had its CPU. */
const waited = () => Number(readFileSync("/proc/self/schedstat", "utf8").split(" ")[1]) / 1e6;

/**
 * Our PVP at one frame size, the attachments in turn: millions of frames a second; and the share of its CPU that the
 * thread with the card had.
 */
async function ours(frame: number, lcores: string[] | undefined): Promise<{ mpps: number[]; share: number }> {
  const begin = performance.now();
  const before = waited();
  const { runs } = await pvp({ attach: [...ATTACHMENTS], size: [frame], lcores, repeat: 3, burst: BURST });
  const wrong = runs.find((run) => run.lost || run.duplicated || run.reordered || run.corrupt);
  if (wrong) throw new Error(`${wrong.attach} ${frame}: frames were lost, duplicated, reordered or corrupt`);
  const share = 1 - (waited() - before) / (performance.now() - begin);
  return { mpps: runs.map((run) => run.mpps), share };
}

const distanceOf = (latencies: number[], share: number): Distance =>
  share < UNDISTURBED ? "busy" : distance(latencies);

/** One line at one size, round by round. */
interface Series {
  name: string;
  cores: number;
  frame: number;
  rounds: { mpps: number; apart: Distance }[];
}

async function measure(setting: Setting): Promise<{ version: string; series: Series[] }> {
  const { two } = setting;
  const series: Series[] = [];
  const steps: (() => Promise<void>)[] = [];
  let version = "";
  for (const { frame, bytes } of SIZES) {
    for (const { name, packed } of FORMATS) {
      const pair = await Pair.create(setting, packed, bytes);
      const one: Series = { name, cores: 2, frame, rounds: [] };
      version = pair.version;
      series.push(one);
      steps.push(async () => {
        const before = two.latency();
        const { mpps, share } = await pair.round();
        one.rounds.push({ mpps, apart: distanceOf([before, two.latency()], share) });
      });
    }
    for (const { cores, lcores } of THREADS) {
      const each = ATTACHMENTS.map((name): Series => ({ name, cores, frame, rounds: [] }));
      series.push(...each);
      steps.push(async () => {
        const before = two.latency();
        const { mpps, share } = await ours(frame, lcores);
        const apart = distanceOf([before, two.latency()], share);
        for (const [i, one] of each.entries()) one.rounds.push({ mpps: mpps[i] as number, apart });
      });
    }
  }
  for (let round = 0; round < ROUNDS; round++) for (const step of steps) await step();
  for (const one of [...running]) await one.quit();
  return { version, series };
}

/** A row for each distance that a line's rounds had; beside DPDK's split ring in rounds of the same distance. */
function table(series: Series[]): string {
  const out = new Table({
    head: ["PVP", "cores", "frame", "CPUs", "rounds", "Mpps (min-max)", ": DPDK, split"],
    colAligns: ["left", "right", "right", "left", "right", "right", "right"],
    style: { head: [], border: [], compact: true },
  });
  for (const { name, cores, frame, rounds } of series) {
    const split = series.find((one) => one.name === FORMATS[0]?.name && one.frame === frame)?.rounds ?? [];
    for (const apart of new Set(rounds.map((round) => round.apart))) {
      const some = rounds.filter((round) => round.apart === apart);
      const ratios = rounds
        .map((round, i) => ({ round, base: split[i] }))
        .filter(({ round, base }) => round.apart === apart && base?.apart === apart)
        .map(({ round, base }) => round.mpps / (base?.mpps as number));
      const mpps = spread(some.map((round) => round.mpps));
      const times = ratios.length > 0 && apart !== "busy" ? median(ratios).toFixed(2) : "";
      out.push([name, cores, frame, apart, some.length, mpps, times]);
    }
  }
  return out.toString();
}

/** Reserves huge pages for `mib` MiB until this process ends; tells whether there are so many. */
function reserveHugepages(mib: number): boolean {
  const free = () => Number(/^HugePages_Free:\s*(\d+)/m.exec(readFileSync("/proc/meminfo", "utf8"))?.[1]);
  const needed = mib / HUGE_PAGE;
  if (free() >= needed) return true;
  try {
    const before = readFileSync(NR_HUGEPAGES, "utf8");
    writeFileSync(NR_HUGEPAGES, `${Number(before) + needed}`);
    process.on("exit", () => writeFileSync(NR_HUGEPAGES, before));
  } catch {
    return false; // not root, or a kernel without
  }
  return free() >= needed;
}

async function main(): Promise<string> {
  const missing = spawnSync("dpdk-testpmd", ["--help"]).error;
  const why = unfit() ?? (missing && "there is no dpdk-testpmd: apt-get install dpdk (Debian, Ubuntu)");
  if (why !== undefined) return `DPDK: skipped, ${why}`;
  const folder = mkdtempSync(join(tmpdir(), "iovtee-dpdk-"));
  const huge =
    !process.argv.includes("--no-huge") && reserveHugepages(2 * FORMATS.length * SIZES.length * MEMORY.huge);
  // Whatever ends this process ends them.
  process.on("exit", () => {
    for (const one of running) one.kill();
    rmSync(folder, { recursive: true, force: true });
  });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(130));
  const copy = process.argv.includes("--copy");
  const two = new TwoCpus(folder);
  const { version, series } = await measure({ two, folder, huge, copy });
  return (
    `${version} on CPUs ${two.cpus.join(" and ")}, ${huge ? "huge pages" : "no huge pages"}, ` +
    `net_null ${copy ? "copies" : "doesn't copy"} frames\n${table(series)}`
  );
}

console.log(await main());
