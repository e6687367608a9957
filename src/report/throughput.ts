/** Throughput on the page: attachments by frame size in each runtime, and the runtimes side by side. */
import type { BenchRun, BenchRuntime } from "./bench.ts";
import { figure } from "./figure.ts";
import { count, fixed, frameName, machine, mpps, percent, times, unique } from "./format.ts";
import { type Column, html, type Markup } from "./markup.ts";
import { type Bar, barPlot, type Looks } from "./plots.ts";

/** A runtime that was measured. */
export type Measured = BenchRuntime & Required<Pick<BenchRuntime, "report">>;

interface Row {
  runtime: Measured;
  run: BenchRun;
}

const AXIS = "million packets a second";
const HOW = [
  "The card fills its receive ring; then the clock runs while host and guest handle the ring, on one thread; then the card sends, and each frame is checked. A bar is the median of the measured rounds, the line across its end goes from the slowest round to the fastest.",
  "64 B and IMIX are sizes on the wire, with the 4-byte FCS, which isn't in memory; 1514 B is without, as in the paper on IOVTee.",
];

const RUNTIME: Column<Row> = { head: "runtime", cell: ({ runtime }) => name(runtime), text: true };
const ATTACH: Column<Row> = { head: "attachment", cell: ({ run }) => run.attach, text: true };
const FRAME: Column<Row> = { head: "frame", cell: ({ run }) => frameName(run.frame), text: true };
const MPPS: Column<Row>[] = [
  { head: "Mpps, median", cell: ({ run }) => mpps(run.mpps) },
  { head: "slowest", cell: ({ run }) => mpps(run.mppsMin) },
  { head: "fastest", cell: ({ run }) => mpps(run.mppsMax) },
  { head: "ns a packet", cell: ({ run }) => fixed(run.nsPerPacket, 1) },
];
const GAIN: Column<Row> = { head: "gain over vhost", cell: ({ run }) => percent(run.gainVsVhost) };
const DETAILS: Column<Row>[] = [
  { head: "Gbit/s", cell: ({ run }) => fixed(run.gbps, 1) },
  { head: "copies a packet", cell: ({ run }) => fixed(run.copiesPerPacket, 2) },
  { head: "bytes copied a packet", cell: ({ run }) => fixed(run.bytesCopiedPerPacket, 0) },
  { head: "notifications a packet", cell: ({ run }) => fixed(run.notificationsPerPacket, 3) },
  { head: "packets", cell: ({ run }) => count(run.packets) },
  { head: "lost", cell: ({ run }) => count(run.lost) },
  {
    head: "duplicated, reordered or corrupt",
    cell: ({ run }) => count(run.duplicated + run.reordered + run.corrupt),
  },
];

const name = (runtime: Measured) => `${runtime.name} ${runtime.version}`;

export function throughput(measured: Measured[], looks: Looks): Markup | undefined {
  if (measured.length === 0) return undefined;
  const rows = measured.flatMap((runtime) => runtime.report.runs.map((run): Row => ({ runtime, run })));
  // One scale for all plots, so that they can be compared.
  const drawn = rows.filter(({ run }) => Number.isFinite(run.mpps));
  const most = Math.max(...drawn.map(({ run }) => run.mppsMax));
  const plotOf = (id: string, title: string, bars: Bar[]) => {
    const words = bars.map((bar) => `${bar.group}, ${bar.series}: ${bar.label}`);
    const description = `Bars, in million packets a second: ${words.join("; ")}.`;
    return {
      title,
      plot: barPlot({ id, title: `${title}: throughput`, description }, looks, AXIS, bars, most),
    };
  };
  const places = machines(measured);
  const sizes = unique(rows.map(({ run }) => run.frame));
  const node = measured.find((runtime) => runtime.name === "node");

  const attachments = figure({
    title: "Throughput by frame size and attachment",
    how: [...HOW, "The percentage is the gain over vhost: the median of the rounds' ratios.", ...places],
    panels: measured.map((runtime, i) => {
      const ofRuntime = drawn.filter((row) => row.runtime === runtime);
      const bars = ofRuntime.map(({ run }) => bar(run, frameName(run.frame), percent(run.gainVsVhost)));
      return plotOf(`attachments-${i}`, name(runtime), bars);
    }),
    columns: [RUNTIME, ATTACH, FRAME, ...MPPS, GAIN, ...DETAILS],
    rows,
  });
  if (measured.length === 1) return html`<section><h2>Throughput</h2>\n${attachments}</section>\n`;
  const runtimes = figure({
    title: "Runtimes side by side",
    how: [
      "The runtimes were measured in turn, pass by pass.",
      ...(node ? [`1.25× is 1.25 times the rate in ${name(node)}: the median of the passes' ratios.`] : []),
      ...places,
    ],
    panels: sizes.map((frame, i) => {
      const ofSize = drawn.filter(({ run }) => run.frame === frame);
      const bars = ofSize.map(({ runtime, run }) => bar(run, name(runtime), times(run.ratioToNode)));
      return plotOf(`runtimes-${i}`, frameName(frame), bars);
    }),
    columns: [
      FRAME,
      RUNTIME,
      ATTACH,
      ...MPPS,
      { head: "times Node's", cell: ({ run }) => times(run.ratioToNode) },
      GAIN,
    ],
    rows: sizes.flatMap((frame) => rows.filter(({ run }) => run.frame === frame)),
  });
  return html`<section><h2>Throughput</h2>\n${attachments}${runtimes}</section>\n`;
}

/** Which runtimes were measured on what machine; one thread each. */
function machines(measured: Measured[]): string[] {
  const of = ({ report }: Measured) => machine(report.runtime, 1);
  return unique(measured.map(of)).map((one) => {
    const names = measured.filter((runtime) => of(runtime) === one).map(name);
    return `${names.join(", ")}: ${one}.`;
  });
}

function bar(run: BenchRun, group: string, compared: string): Bar {
  const range = `${mpps(run.mppsMin)} to ${mpps(run.mppsMax)}`;
  return {
    group,
    series: run.attach,
    value: run.mpps,
    min: run.mppsMin,
    max: run.mppsMax,
    label: compared === "" ? mpps(run.mpps) : `${mpps(run.mpps)}, ${compared}`,
    tip: `${group}, ${run.attach}: ${mpps(run.mpps)} Mpps, ${range}`,
  };
}
