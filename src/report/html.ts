/** The report as one HTML page that needs nothing else: plots, and the same figures as tables. */
import { type BenchReport, type BenchRuntime, isClean, missing, NOISY, spread } from "./bench.ts";
import { count, fixed, frameName, percent, unique } from "./format.ts";
import { latency } from "./latency.ts";
import { html, type Markup, table } from "./markup.ts";
import { Looks } from "./plots.ts";
import { scaling } from "./scaling.ts";
import { PATTERNS, STYLE } from "./style.ts";
import { type Measured, throughput } from "./throughput.ts";

/** The whole page. It is well-formed XML too, and refers to nothing outside itself. */
export function page(bench: BenchReport): string {
  const measured = bench.runtimes.filter((runtime): runtime is Measured =>
    Boolean(runtime.report?.runs.some((run) => Number.isFinite(run.mpps))),
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
${throughput(measured, looks)}${latency(bench.latency, looks)}${scaling(bench.scale, looks)}${runtimes(bench)}</main>
</body>
</html>`}\n`;
}

/** What is known before any plot is looked at. */
function summary(bench: BenchReport, measured: Measured[]): Markup {
  const runs = measured.flatMap(({ report }) => report.runs);
  const sum = (field: "packets" | "lost" | "duplicated" | "reordered" | "corrupt") =>
    count(runs.reduce((n, run) => n + run[field], 0));
  const moved = spread(runs);
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
}${
  moved > NOISY
    ? html`<p class="warn">Between a run's slowest and fastest round lies a factor of ${fixed(moved, 1)} (the median over all runs): the machine was doing something else as well. Measure again when it is quiet.</p>\n`
    : undefined
}${bench.interrupted ? html`<p class="warn">Interrupted: the figures are of what ran before.</p>\n` : undefined}`;
}

/** Each runtime that was looked for; how to get those that aren't there, and why others failed. */
function runtimes(bench: BenchReport): Markup {
  const remarks = [
    ...missing(bench).map(
      ({ names, howToInstall }) =>
        html`<li>${names.join(", ")}: not found; <code>${howToInstall}</code></li>`,
    ),
    ...bench.runtimes.flatMap(({ name, version, error }) =>
      error === undefined ? [] : html`<li>${name} ${version} failed: ${error}</li>`,
    ),
  ];
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
  bench.runtimes,
)}
${remarks.length > 0 ? html`<ul>${remarks}</ul>\n` : undefined}</section>
`;
}

function state({ available, report, error }: BenchRuntime): string {
  if (!available) return "not found";
  if (error !== undefined) return report === undefined ? "failed" : "failed later";
  return report === undefined ? "no" : "yes";
}
