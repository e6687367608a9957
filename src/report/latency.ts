/** Latency on the page: percentiles against the load offered, and the whole distribution at one load. */
import type { LatencyReport, LatencyRun } from "../latency.ts";
import { figure } from "./figure.ts";
import { count, frameName, micros, place, short, unique } from "./format.ts";
import { type Column, html, type Markup } from "./markup.ts";
import { type Axis, around, type Looks, linePlot, type Point } from "./plots.ts";

const PERCENTILES = [
  { field: "p50", name: "p50, the median" },
  { field: "p99", name: "p99" },
  { field: "p999", name: "p99.9" },
] as const;

const ATTACH: Column<LatencyRun> = { head: "attachment", cell: (run) => run.attach, text: true };
const FRAME: Column<LatencyRun> = { head: "frame", cell: (run) => frameName(run.frame), text: true };
const COLUMNS: Column<LatencyRun>[] = [
  ATTACH,
  FRAME,
  { head: "offered, frames/s", cell: (run) => count(Math.round(run.load)) },
  { head: "p50, µs", cell: (run) => micros(run.p50) },
  { head: "p99, µs", cell: (run) => micros(run.p99) },
  { head: "p99.9, µs", cell: (run) => micros(run.p999) },
  { head: "most, µs", cell: (run) => micros(run.max) },
  { head: "mean, µs", cell: (run) => micros(run.mean) },
  { head: "sent", cell: (run) => count(run.sent) },
  { head: "received", cell: (run) => count(run.received) },
  { head: "lost", cell: (run) => count(run.lost) },
];

export function latency(report: LatencyReport | undefined, looks: Looks): Markup | undefined {
  if (report === undefined || report.runs.length === 0) return undefined;
  const where = place(report.runtime, report.lcores.length, report.lcores);
  const bySize = unique(report.runs.map((run) => run.frame)).map((frame) =>
    report.runs.filter((run) => run.frame === frame),
  );
  return html`<section><h2>Latency</h2>
${bySize.map((runs, i) => againstLoad(`latency-${i}`, runs, where, looks))}${byPercentile(bySize, where, looks)}</section>
`;
}

/** Runs of one frame size. */
function againstLoad(id: string, runs: LatencyRun[], where: string, looks: Looks): Markup {
  const frame = frameName((runs[0] as LatencyRun).frame);
  // One scale for the three plots, so that they can be compared.
  const x: Axis = {
    label: "offered, frames/s",
    type: "log",
    domain: around(runs.map((run) => run.load)),
    format: short,
  };
  const y = time(runs.flatMap((run) => PERCENTILES.map(({ field }) => run[field])));
  return figure({
    title: `Latency against offered load, ${frame}`,
    how: [
      "Frames are offered to the card at a fixed rate; a frame's latency is its time from the wire and back to it. Both axes are logarithmic. A hollow mark: frames were lost at that load.",
      where,
    ],
    panels: PERCENTILES.map(({ field, name }) => {
      const points = runs.map(
        (run): Point => ({
          series: run.attach,
          x: run.load,
          y: run[field],
          hollow: run.lost > 0,
          tip: `${run.attach}, ${count(Math.round(run.load))} frames/s, ${name}: ${micros(run[field])} µs`,
        }),
      );
      const what = described(`${id}-${field}`, `Latency against offered load, ${frame}, ${name}`, points);
      return { title: name, plot: linePlot(what, looks, points, x, y) };
    }),
    columns: COLUMNS,
    rows: runs,
  });
}

/** For each frame size, at the highest load that every attachment carried without loss; nothing where there is none. */
function byPercentile(bySize: LatencyRun[][], where: string, looks: Looks): Markup | undefined {
  const chosen = bySize.map(atHighestLoad).filter((runs) => runs.length > 0);
  const rows = chosen.flatMap((runs) =>
    runs.flatMap((run) => run.percentiles.map(([percentile, value]) => ({ run, percentile, value }))),
  );
  // The axis is logarithmic in the share of frames that took longer: none did at percentile 100.
  const drawn = rows.filter(({ percentile }) => percentile < 100);
  if (drawn.length === 0) return undefined;
  const x: Axis = {
    label: "percentile",
    type: "log",
    domain: around(drawn.map(({ percentile }) => rarity(percentile))),
    ticks: [0, 50, 90, 99, 99.9, 99.99, 99.999].map(rarity),
    format: (value) => String(Number((100 - 100 / value).toFixed(3))),
  };
  const y = time(drawn.map(({ value }) => value));
  return figure({
    title: "Latency by percentile",
    how: [
      "At the highest load that every attachment carried without loss. At 99.9 stands the time that 99.9 % of the frames didn't exceed.",
      where,
    ],
    panels: chosen.map((runs, i) => {
      const { frame, load } = runs[0] as LatencyRun;
      const title = `${frameName(frame)}, ${short(load)} frames/s`;
      const points = drawn
        .filter(({ run }) => runs.includes(run))
        .map(
          ({ run, percentile, value }): Point => ({
            series: run.attach,
            x: rarity(percentile),
            y: value,
            tip: `${run.attach}, percentile ${percentile}: ${micros(value)} µs`,
          }),
        );
      const what = described(`percentiles-${i}`, `Latency by percentile, ${title}`, points);
      return { title, plot: linePlot(what, looks, points, x, y) };
    }),
    columns: [
      { head: "attachment", cell: ({ run }) => run.attach, text: true },
      { head: "frame", cell: ({ run }) => frameName(run.frame), text: true },
      { head: "offered, frames/s", cell: ({ run }) => count(Math.round(run.load)) },
      { head: "percentile", cell: ({ percentile }) => String(percentile) },
      { head: "µs", cell: ({ value }) => micros(value) },
    ],
    rows,
  });
}

/** Of one frame size's runs, those at the highest load that every attachment carried without loss. */
function atHighestLoad(runs: LatencyRun[]): LatencyRun[] {
  const attaches = unique(runs.map((run) => run.attach));
  const carried = (load: number) =>
    attaches.every((attach) => runs.some((run) => run.attach === attach && run.load === load && !run.lost));
  const highest = Math.max(...runs.map((run) => run.load).filter(carried));
  return runs.filter((run) => run.load === highest);
}

/** One frame in how many takes longer. */
const rarity = (percentile: number) => 100 / (100 - percentile);

const time = (values: number[]): Axis => ({
  label: "latency, µs",
  type: "log",
  domain: around(values),
  format: count,
});

const described = (id: string, title: string, points: Point[]) => ({
  id,
  title,
  description: `Lines: ${points.map((point) => point.tip).join("; ")}.`,
});
