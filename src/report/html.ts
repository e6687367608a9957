/** The report as one HTML page that needs nothing else: plots, and the same figures as tables. */
import { type BenchReport, type BenchRuntime, isClean } from "./bench.ts";
import { count, frameName, percent, unique } from "./format.ts";
import { latency } from "./latency.ts";
import { html, type Markup, table } from "./markup.ts";
import { Looks } from "./plots.ts";
import { scaling } from "./scaling.ts";
import { PATTERNS, STYLE } from "./style.ts";
import { type Measured, throughput } from "./throughput.ts";

/** The whole page. It is well-formed XML too, and refers to nothing outside itself. */
export function page(bench: BenchReport): string {
  const measured = bench.runtimes.filter(
    (runtime): runtime is Measured => (runtime.report?.runs.length ?? 0) > 0,
  );
  const runs = [
    ...measured.flatMap((runtime) => runtime.report.runs),
    ...(bench.latency?.runs ?? []),
    ...(bench.scale?.runs ?? []),
  ];
  const looks = new Looks(unique(runs.map((run) => run.attach)));
  return `<!DOCTYPE html>\n${html`<html lang="en" xmlns="http://www.w3.org/1999/xhtml">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>iovtee bench</title>
<style>${STYLE}</style>
</head>
<body>
${PATTERNS}
<header>
<h1>Packets from the card to guests and back</h1>
${summary(bench, measured)}
</header>
<main>
${throughput(measured, looks)}${latency(bench.latency, looks)}${scaling(bench.scale, looks)}${runtimes(bench.runtimes)}</main>
</body>
</html>`}\n`;
}

/** What is known before any plot is looked at. */
function summary(bench: BenchReport, measured: Measured[]): Markup {
  const runs = measured.flatMap(({ report }) => report.runs);
  const sum = (field: "packets" | "lost" | "duplicated" | "reordered" | "corrupt") =>
    count(runs.reduce((n, run) => n + run[field], 0));
  const [first] = measured;
  const gains = first?.report.runs.filter((run) => run.gainVsVhost !== null) ?? [];
  return html`<p>What each way of attaching a guest to a virtual switch costs, as measured by <code>iovtee bench</code>${
    bench.date === undefined ? undefined : ` on ${bench.date.slice(0, 10)}`
  }.</p>
${
  runs.length === 0
    ? html`<p class="warn">No throughput was measured.</p>\n`
    : html`<p${runs.every(isClean) ? undefined : html` class="warn"`}>Of ${sum("packets")} frames, each checked on its return, ${sum("lost")} were lost, ${sum("duplicated")} duplicated, ${sum("reordered")} reordered, ${sum("corrupt")} corrupt.</p>\n`
}${
  first && gains.length > 0
    ? html`<p>Gain over vhost in ${first.name} ${first.version}:</p>
<ul>${gains.map((run) => html`<li>${run.attach}, ${frameName(run.frame)}: <strong>${percent(run.gainVsVhost)}</strong></li>`)}</ul>\n`
    : undefined
}${bench.interrupted ? html`<p class="warn">Interrupted: the figures are of what ran before.</p>\n` : undefined}`;
}

/** Each runtime that was looked for; how to get those that aren't there, and why others failed. */
function runtimes(all: BenchRuntime[]): Markup {
  const remarks = all.flatMap(({ name, available, howToInstall, error }) => {
    if (error !== undefined) return html`<li>${name} failed: ${error}</li>`;
    return available || howToInstall === undefined ? [] : html`<li>${name} can be had: ${howToInstall}</li>`;
  });
  return html`<section><h2>Runtimes</h2>
${table<BenchRuntime>(
  "Runtimes that were looked for, and the machine as they tell of it",
  [
    { head: "runtime", cell: (one) => one.name, text: true },
    { head: "version", cell: (one) => one.version, text: true },
    { head: "measured", cell: state, text: true },
    { head: "memory", cell: ({ report }) => report?.runtime.memory ?? "", text: true },
    { head: "cores", cell: ({ report }) => String(report?.runtime.cores ?? "") },
    { head: "processor", cell: ({ report }) => report?.runtime.cpu ?? "", text: true },
  ],
  all,
)}
${remarks.length > 0 ? html`<ul>${remarks}</ul>\n` : undefined}</section>
`;
}

function state({ available, report, error }: BenchRuntime): string {
  if (!available) return "not found";
  if (error !== undefined) return report === undefined ? "failed" : "failed later";
  return report === undefined ? "no" : "yes";
}
