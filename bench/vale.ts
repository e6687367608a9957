/**
 * The switch alone, as VALE's paper measures it: a sender's ring, the switch, the receivers' rings, one copy from the
 * sender's memory to the receivers'; with the built-in lookup, one in JavaScript and one in WebAssembly, in turn with the
 * same loop in C.
 *
 * A sample is a few cycles: the sender puts 256 frames in its ring, the switch moves them burst by burst, the receivers take
 * them and give their buffers back. Of many samples the quarter that was disturbed least counts: the 25th percentile.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import Table from "cli-table3";
import { Kind, Packet, Port, TAKES_NOTHING } from "../assembly/layout.ts";
import createByMac from "../examples/lookup/by-mac.mjs";
import { writePacket } from "../src/core/packet.ts";
import { type FramePort, Host, type Lookup } from "../src/host.ts";
import { median } from "../src/median.ts";
import { compile } from "./native.ts";
import { lowerQuartile } from "./percentile.ts";

const PORTS = 8;
/** Stations behind each port. */
const STATIONS = 32;
/** Frames of a cycle, which lie in the sender's memory and are sent again and again. */
const FRAMES = 256;
const STRIDE = 2176;
const CYCLES = 20;
const SAMPLES = 40;
const ROUNDS = 11;

/** From one station to one other; or between many, in no order: those behind one other port, or behind all others. */
const TRAFFIC = ["pair", "port", "ports"] as const;
type Traffic = (typeof TRAFFIC)[number];

const byMac = new WebAssembly.Module(readFileSync("dist/lookup/by-mac.wasm"));
const LOOKUPS: Record<string, () => Lookup> = {
  learning: () => "learning",
  wasm: () => byMac,
  js: () => createByMac(),
};

interface Case {
  /** Bytes in memory; 60 is 64 on the wire. */
  length: number;
  burst: number;
  traffic: Traffic;
}

class ValeRig {
  /** Nanoseconds per frame of each round. */
  readonly ns: number[] = [];
  #sent = 0;
  readonly #from: FramePort;

  private constructor(
    readonly host: Host,
    readonly ports: readonly FramePort[],
    /** Descriptors of the sender's frames, and room for those of the receivers. */
    readonly frames: number,
    readonly taken: number,
  ) {
    this.#from = ports[0] as FramePort;
  }

  static async create({ length, burst, traffic }: Case, lookup: Lookup): Promise<ValeRig> {
    const host = await Host.create({ buffers: 1024 });
    const { core } = host;
    const ports = Array.from({ length: PORTS }, () => host.port());
    const sw = host.vswitch({ connect: ports, vale: true, burst, lookup });
    // Receivers take no buffer of anybody else's: what is for them is copied.
    for (const { address } of sw.ports) core.setU32(address + Port.takes, TAKES_NOTHING);
    const memory = core.place(Kind.BYTES, FRAMES * STRIDE, "sender").address;
    const list = () => core.place(Kind.BYTES, FRAMES * Packet.SIZE, "list").address;
    const rig = new ValeRig(host, ports, list(), list());
    // Each station is heard of once.
    for (const [p, port] of ports.entries()) {
      for (let station = 0; station < STATIONS; station++) {
        const hello = frame(length, 0, 0, station, p);
        hello.fill(0xff, 0, 6);
        port.push([hello]);
        host.drain();
        for (const other of ports) other.take(() => {});
      }
    }
    let random = 1;
    const any = (n: number) => {
      random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
      return (random >>> 16) % n;
    };
    for (let i = 0; i < FRAMES; i++) {
      const addr = memory + i * STRIDE + 128;
      const port = traffic === "ports" ? 1 + any(PORTS - 1) : 1;
      const [station, source] = traffic === "pair" ? [0, 0] : [any(STATIONS), any(STATIONS)];
      core.bytes.set(frame(length, station as number, port, source as number, 0), addr);
      // Nobody's: the sender keeps it.
      writePacket(core, rig.frames + i * Packet.SIZE, { addr, len: length, owner: 0, index: 0 });
    }
    return rig;
  }

  /** Once through sender, switch and receivers. */
  cycle(): void {
    const { core, pool, lcore } = this.host;
    const { exports } = core;
    exports.enqueue(this.#from.toHost, this.frames, FRAMES);
    exports.drainLcore(lcore, 1000);
    let n = 0;
    for (let i = 1; i < PORTS; i++) {
      n += exports.dequeue((this.ports[i] as FramePort).fromHost, this.taken + n * Packet.SIZE, FRAMES - n);
    }
    exports.giveBuffers(pool, 0, this.taken, n);
    this.#sent += FRAMES;
  }

  round(): void {
    const samples: number[] = [];
    for (let s = 0; s < SAMPLES; s++) {
      const start = performance.now();
      for (let c = 0; c < CYCLES; c++) this.cycle();
      samples.push(((performance.now() - start) * 1e6) / (CYCLES * FRAMES));
    }
    this.ns.push(lowerQuartile(samples));
  }

  warmUp(): void {
    for (const end = performance.now() + 200; performance.now() < end; ) this.cycle();
  }

  /** @throws Error when a frame was dropped, or not copied exactly once */
  check(): void {
    const { ports, pool } = this.host.stats();
    const learned = PORTS * STATIONS * (PORTS - 1);
    const moved = ports.reduce((n, port) => n + port.txPackets, 0) - learned;
    const copies = ports.reduce((n, port) => n + port.copies, 0) - learned;
    const drops = ports.flatMap((port) => Object.keys(port.drops));
    if (moved !== this.#sent || copies !== this.#sent || drops.length > 0 || pool.outstanding > 0) {
      throw new Error(
        `of ${this.#sent} frames ${moved} came, ${copies} copied, ${pool.outstanding} buffers out, dropped: ${drops}`,
      );
    }
  }
}

/** From `source` behind port `from` to `station` behind port `port`. */
function frame(length: number, station: number, port: number, source: number, from: number): Uint8Array {
  const made = new Uint8Array(length).fill(0x5a);
  made.set([2, 0, 0, 0, port, station, 2, 0, 0, 0, from, source, 0x88, 0xb5]);
  return made;
}

/** The same in C; nothing where there is no gcc. */
function native(folder: string): ((which: Case) => number) | undefined {
  if (spawnSync("gcc", ["--version"]).error || process.arch !== "x64") return undefined;
  const program = compile(folder, "bench/native/vale.c", "vale", ["-DPLAIN"]);
  return ({ length, burst, traffic }) =>
    Number(execFileSync(program, [String(length), String(burst), traffic], { encoding: "utf8" }));
}

async function main(sizes: number[]): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), "iovtee-vale-"));
  try {
    const inC = native(folder);
    const out = new Table({
      head: ["bytes", "traffic", "burst", "lookup", "ns/frame", "Mpps", "times built in", "times C"],
      colAligns: ["right", "left", "right", "left", "right", "right", "right", "right"],
      style: { head: [], border: [], compact: true },
    });
    for (const length of sizes) {
      for (const traffic of TRAFFIC) {
        for (const burst of [32, 256]) {
          const which = { length, burst, traffic };
          const rigs: [string, ValeRig][] = [];
          for (const [name, make] of Object.entries(LOOKUPS))
            rigs.push([name, await ValeRig.create(which, make())]);
          for (const [, rig] of rigs) rig.warmUp();
          const c: number[] = [];
          for (let round = 0; round < ROUNDS; round++) {
            for (const [, rig] of rigs) rig.round();
            if (inC) c.push(inC(which));
          }
          const times = (ns: number[], base: number[]) =>
            median(ns.map((n, i) => n / (base[i] as number))).toFixed(2);
          const built = rigs[0]?.[1].ns as number[];
          const row = (name: string, ns: number[]) =>
            out.push([
              ...[
                String(length),
                traffic,
                String(burst),
                name,
                median(ns).toFixed(1),
                (1000 / median(ns)).toFixed(1),
              ],
              ...[ns === built ? "" : times(ns, built), inC && ns !== c ? times(ns, c) : ""],
            ]);
          for (const [name, rig] of rigs) {
            rig.check();
            row(name, rig.ns);
          }
          if (inC) row("in C", c);
        }
      }
    }
    return out.toString();
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const { values } = parseArgs({ options: { size: { type: "string", default: "60,1500,1514" } } });
console.log(await main(values.size.split(",").map(Number)));
