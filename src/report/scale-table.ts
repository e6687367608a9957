/** Throughput against the number of guests as a table for people. */
import Table from "cli-table3";
import type { ScaleReport } from "../scale.ts";

const fixed = (n: number, digits: number) => (Number.isFinite(n) ? n.toFixed(digits) : "-");

export function scaleTable({ runs }: ScaleReport): string {
  const out = new Table({
    head: ["attach", "guests", "busy", "Mpps", "ns/pkt", "Mpps each (min-max)", "Jain", "cores busy"],
    colAligns: ["left", ...Array.from({ length: 7 }, () => "right" as const)],
    style: { head: [], border: [], compact: true },
  });
  for (const { attach, guests, busy, mpps, perGuest, jain, cpu } of runs) {
    out.push([
      attach,
      String(guests),
      String(busy),
      fixed(mpps, 2),
      fixed(1000 / mpps, 1),
      `${fixed(mpps / busy, 2)} (${fixed(Math.min(...perGuest), 2)}-${fixed(Math.max(...perGuest), 2)})`,
      fixed(jain, 4),
      fixed(cpu, 2),
    ]);
  }
  return out.toString();
}
