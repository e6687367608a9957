/**
 * The same in C, in turn with ours: the ring, and PVP over both attachments. Our build for one thread is held against
 * C with plain index stores, our shared build against C with sequentially consistent ones.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Table from "cli-table3";
import type { Attach } from "../src/host.ts";
import { median } from "../src/median.ts";
import { gain, PACKETS, Rig, ROUNDS, ratio, spread } from "./rig.ts";

const BURST = 32;
const ATTACHMENTS: Attach[] = ["vhost", "iovtee"];
const BUILDS = [
  { name: "one thread", shared: false, flags: ["-DPLAIN"] },
  { name: "shared", shared: true, flags: [] },
];

/**
 * @param burst one burst through our ring, shared build
 * @returns what to print
 */
export async function native(burst: () => void): Promise<string> {
  if (spawnSync("gcc", ["--version"]).error) return "native: skipped, there is no gcc";
  if (process.platform !== "linux" || process.arch !== "x64")
    return "native: skipped, the C is for Linux on x86-64";
  const folder = mkdtempSync(join(tmpdir(), "iovtee-bench-"));
  try {
    return `${nativeRing(burst, folder)}\n${await nativePvp(folder)}`;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

export function compile(folder: string, source: string, name: string, flags: string[] = []): string {
  const program = join(folder, name);
  const warnings = ["-Wall", "-Wextra", "-Werror"];
  execFileSync("gcc", ["-O3", "-march=native", "-std=gnu11", ...warnings, ...flags, "-o", program, source]);
  return program;
}

function nativeRing(burst: () => void, folder: string): string {
  const program = compile(folder, "bench/native/ring.c", "ring");
  const ours: number[] = [];
  const c: number[] = [];
  for (let round = 0; round < 7; round++) {
    const start = performance.now();
    const count = 1_000_000;
    for (let i = 0; i < count; i++) burst();
    ours.push(((performance.now() - start) * 1e6) / (count * BURST));
    c.push(Number(execFileSync(program, { encoding: "utf8" })));
  }
  const times = ratio(ours, c).toFixed(2);
  return `ring, shared build: ${median(ours).toFixed(2)} ns, in C ${median(c).toFixed(2)} ns a packet: ${times} times C`;
}

interface Series {
  rig: Rig;
  ours: number[];
  c: number[];
}

async function nativePvp(folder: string): Promise<string> {
  const out = new Table({
    head: [
      "PVP, in C and ours",
      "attach",
      "frame",
      "ours ns/pkt (min-max)",
      "C ns/pkt (min-max)",
      "ours : C",
      "gain, ours",
      "gain, C",
    ],
    colAligns: ["left", "left", "right", "right", "right", "right", "right", "right"],
    style: { head: [], border: [], compact: true },
  });
  for (const { name, shared, flags } of BUILDS) {
    const program = compile(folder, "bench/native/pvp.c", shared ? "pvp-shared" : "pvp", flags);
    for (const size of [64, 1514]) {
      const series: Series[] = [];
      for (const attach of ATTACHMENTS) {
        const rig = await Rig.create({ attach, size, shared });
        series.push({ rig, ours: rig.ns, c: [] });
      }
      for (const { rig } of series) rig.warmUp();
      for (let round = 0; round < ROUNDS; round++) {
        for (const { rig, c } of series) {
          rig.round(PACKETS);
          c.push(inC(program, rig.options.attach, size));
        }
      }
      const vhost = series[0] as Series;
      for (const one of series) {
        one.rig.check();
        const base = one === vhost;
        out.push([
          name,
          one.rig.options.attach,
          String(size),
          spread(one.ours),
          spread(one.c),
          ratio(one.ours, one.c).toFixed(2),
          base ? "" : gain(vhost.ours, one.ours),
          base ? "" : gain(vhost.c, one.c),
        ]);
      }
    }
  }
  return out.toString();
}

/** One round in C, warmed up; throws when a frame was lost or changed. */
function inC(program: string, attach: Attach, size: number): number {
  const line = execFileSync(program, [attach, String(size), "1", String(PACKETS)], { encoding: "utf8" });
  return (JSON.parse(line) as { ns: number }).ns;
}
