/** Scaling on the page: throughput of all guests together, and of each, against their number. */
import type { ScaleReport, ScaleRun } from "../scale.ts";
import { figure } from "./figure.ts";
import { count, fixed, mpps, place, unique } from "./format.ts";
import { type Column, html, type Markup } from "./markup.ts";
import { type Axis, around, type Looks, linePlot, type Point } from "./plots.ts";

const mean = (run: ScaleRun) => run.mpps / run.guests;

const COLUMNS: Column<ScaleRun>[] = [
  { head: "attachment", cell: (run) => run.attach, text: true },
  { head: "guests", cell: (run) => count(run.guests) },
  { head: "all guests, Mpps", cell: (run) => mpps(run.mpps) },
  { head: "a guest, Mpps, mean", cell: (run) => fixed(mean(run), 3) },
  { head: "least", cell: (run) => fixed(Math.min(...run.perGuest), 3) },
  { head: "most", cell: (run) => fixed(Math.max(...run.perGuest), 3) },
  { head: "Jain's fairness index", cell: (run) => fixed(run.jain, 4) },
  { head: "cores busy", cell: (run) => fixed(run.cpu, 2) },
];

export function scaling(report: ScaleReport | undefined, looks: Looks): Markup | undefined {
  if (report === undefined || report.runs.length === 0) return undefined;
  const { runs } = report;
  const guests = unique(runs.map((run) => run.guests)).sort((a, b) => a - b);
  const x: Axis = {
    label: "guests",
    type: "log",
    domain: around(guests),
    ticks: guests,
    format: count,
  };
  const all = runs.map(
    (run): Point => ({
      series: run.attach,
      x: run.guests,
      y: run.mpps,
      tip: `${run.attach}, ${guestCount(run)}: ${mpps(run.mpps)} Mpps together`,
    }),
  );
  const each = runs.map(
    (run): Point => ({
      series: run.attach,
      x: run.guests,
      y: mean(run),
      min: Math.min(...run.perGuest),
      max: Math.max(...run.perGuest),
      tip: `${run.attach}, ${guestCount(run)}: ${fixed(mean(run), 3)} Mpps each`,
    }),
  );
  const total: Axis = {
    label: "Mpps",
    type: "linear",
    domain: [0, Math.max(...all.map((point) => point.y)) * 1.05],
    format: String,
  };
  const single: Axis = {
    label: "Mpps",
    type: "log",
    domain: around(runs.flatMap((run) => run.perGuest)),
    format: String,
  };
  const panel = (id: string, title: string, points: Point[], y: Axis) => {
    const description = `Lines: ${points.map((point) => point.tip).join("; ")}.`;
    return { title, plot: linePlot({ id, title, description }, looks, points, x, y) };
  };
  return html`<section><h2>Scaling</h2>
${figure({
  title: "Throughput against the number of guests",
  how: [
    "Guests side by side on one switch, each with traffic of its own, as much as goes through. For a guest, the mark is the mean and the line goes from the guest that got least to the one that got most; its axes are logarithmic.",
    place(report.runtime, report.cores, report.lcores),
  ],
  panels: [
    panel("scale-all", "All guests together", all, total),
    panel("scale-each", "Each guest", each, single),
  ],
  columns: COLUMNS,
  rows: runs,
})}</section>
`;
}

const guestCount = ({ guests }: ScaleRun) => (guests === 1 ? "1 guest" : `${count(guests)} guests`);
