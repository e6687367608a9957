/** A report as `iovtee bench` writes it, with made-up figures. */
import type { LatencyRun, ScaleRun } from "../src/index.ts";
import type { BenchReport, BenchRun, BenchRuntime } from "../src/report/bench.ts";

const machine = { cpu: "AMD EPYC 9B14 & co", cores: 2 };

export function run(attach: "vhost" | "iovtee", frame: number | "imix", speed: number): BenchRun {
  const [ns, copied] = frame === 64 ? [28, 60] : frame === 1514 ? [92, 1514] : [43, 358];
  const copies = attach === "vhost" ? 2 : 1;
  const gain = frame === 64 ? 0.11 : frame === 1514 ? 0.67 : 0.31;
  const mpps = ((1000 / ns) * (attach === "vhost" ? 1 : 1 + gain)) / speed;
  return {
    attach,
    frame,
    packets: 1_400_000,
    mpps,
    mppsMin: mpps * 0.93,
    mppsMax: mpps * 1.04,
    nsPerPacket: 1000 / mpps,
    gbps: mpps * copied * 0.008,
    copiesPerPacket: copies,
    bytesCopiedPerPacket: copied * copies,
    notificationsPerPacket: 0.0625,
    interruptsPerPacket: 0,
    pollsPerPacket: 0.036,
    gainVsVhost: attach === "vhost" ? null : gain,
    lost: 0,
    duplicated: 0,
    reordered: 0,
    corrupt: 0,
    drops: {},
    ratioToNode: speed === 1 ? null : 1 / speed,
  };
}

export function runtime(name: string, version: string, speed: number): BenchRuntime {
  const runs = ([64, 1514, "imix"] as const).flatMap((frame) => [
    run("vhost", frame, speed),
    run("iovtee", frame, speed),
  ]);
  return {
    name,
    version,
    available: true,
    report: { runtime: { name, version, memory: "unshared", ...machine }, command: "pvp", runs },
  };
}

function latencyRun(attach: "vhost" | "iovtee", frame: number, load: number): LatencyRun {
  const capacity = attach === "vhost" ? 6e6 : 9e6;
  const base = (attach === "vhost" ? 0.9 : 0.6) + frame / 1500;
  const queue = 1 / Math.max(0.02, 1 - load / capacity);
  const p50 = base * queue;
  const sent = Math.round(load / 4);
  const lost = load > capacity ? Math.round(sent * (1 - capacity / load)) : 0;
  const at = (percentile: number) => p50 * (1 + 0.6 * Math.log10(100 / (100 - percentile)) ** 2);
  return {
    attach,
    frame,
    load,
    sent,
    received: sent - lost,
    lost,
    duplicated: 0,
    reordered: 0,
    corrupt: 0,
    drops: lost > 0 ? { rxNoBuffer: lost } : {},
    p50,
    p99: at(99),
    p999: at(99.9),
    max: at(99.9999),
    mean: p50 * 1.1,
    percentiles: [
      ...[0, 25, 50, 75, 90, 99, 99.9, 99.99].map((p): [number, number] => [p, at(p)]),
      [100, at(99.9999)],
    ],
    sleepsPerPacket: 0,
    cpu: 1.98,
  };
}

function scaleRun(attach: "vhost" | "iovtee", guests: number): ScaleRun {
  const mpps = (attach === "vhost" ? 30 : 38) / (1 + guests / 200);
  const perGuest = Array.from({ length: guests }, (_, i) => (mpps / guests) * (1 + 0.1 * Math.cos(i * 3)));
  const checks = { packets: 1_000_000, lost: 0, duplicated: 0, reordered: 0, corrupt: 0, drops: {} };
  return { attach, guests, busy: guests, mpps, perGuest, jain: 0.995, cpu: 1.97, ...checks };
}

const each = <Value>(values: Value[]) =>
  (["vhost", "iovtee"] as const).flatMap((attach) => values.map((value) => ({ attach, value })));

export const REPORT: BenchReport = {
  command: "bench",
  date: "2026-11-21T10:00:00.000Z",
  runtimes: [
    runtime("node", "20.20.2", 1),
    runtime("deno", "2.9.0", 1.04),
    runtime("bun", "1.4.1", 1.3),
    runtime("chromium", "156.0.1", 1.1),
    {
      name: "node",
      version: "22",
      available: false,
      howToInstall: "apt install firefox-esr <or> a newer one",
    },
    {
      name: "firefox",
      version: "",
      available: false,
      howToInstall: "apt install firefox-esr <or> a newer one",
    },
    { name: "workerd", version: "1.2026", available: true, error: "it stopped" },
  ],
  latency: {
    runtime: { name: "node", version: "20.20.2", memory: "shared", ...machine },
    command: "latency",
    lcores: ["card", "switch and guest"],
    runs: [64, 1514].flatMap((frame) =>
      each([1e4, 1e5, 5e5, 1e6, 2e6, 5e6, 8e6]).map(({ attach, value }) => latencyRun(attach, frame, value)),
    ),
  },
  scale: {
    runtime: { name: "node", version: "20.20.2", memory: "shared", ...machine },
    command: "scale",
    lcores: ["card and switch", "guests"],
    cores: 2,
    runs: each([1, 2, 4, 8, 16, 32, 64]).map(({ attach, value }) => scaleRun(attach, value)),
  },
};
