/** The page: controls, status, table. What runs, runs in the worker (datapath.ts). */
import type { Attach, FrameSize } from "iovtee";
import type { Command, Figures, Report, Setup } from "./messages.ts";
import { NAMES } from "./names.ts";
import { Picture } from "./picture.ts";
import { Plot } from "./plot.ts";

const element = <T extends Element = HTMLElement>(id: string) => document.getElementById(id) as Element as T;
const form = element<HTMLFormElement>("controls");
const toggle = element<HTMLButtonElement>("toggle");
const status = element("status");
const error = element("error");
const lanes = element("lanes");
const plot = new Plot(element<SVGSVGElement>("plot"));
const pictures = new Map<Attach, Picture>();

let worker: Worker | undefined;
/** Number of the latest run; reports of others are late. */
let run = 0;
let running: Setup | undefined;
let latest: Figures[] = [];

if (!globalThis.crossOriginIsolated) {
  const note = element("threads-note");
  note.hidden = false;
  note.textContent =
    "Lcores are off, everything runs on one thread: browsers share memory between threads only on a page that is " +
    "cross-origin isolated. Serve it over HTTPS or from localhost, with the headers Cross-Origin-Opener-Policy: " +
    "same-origin and Cross-Origin-Embedder-Policy: require-corp.";
  form.querySelector<HTMLInputElement>('[name="lcores"][value="on"]')!.disabled = true;
}
draw(chosen().attach);

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) stop();
  else start();
});
form.addEventListener("change", () => {
  if (running) start();
  else draw(chosen().attach);
});

function chosen(): Setup {
  const data = new FormData(form);
  const size = data.get("size") as string;
  return {
    attach: (data.get("attach") as string).split(",") as Attach[],
    size: (size === "imix" ? size : Number(size)) as FrameSize,
    lcores: data.get("lcores") === "on",
  };
}

/** In place of what runs, too. */
function start(): void {
  running = chosen();
  run++;
  error.hidden = true;
  toggle.textContent = "Stop";
  status.textContent = "Starting …";
  latest = [];
  plot.clear();
  draw(running.attach);
  noRowIsLive();
  worker ??= startWorker();
  worker.postMessage({ is: "start", run, setup: running } satisfies Command);
}

function stop(): void {
  status.textContent = "Stopping …";
  worker?.postMessage({ is: "stop" } satisfies Command);
}

function startWorker(): Worker {
  const made = new Worker(new URL("./datapath.js", import.meta.url), { type: "module" });
  made.onmessage = ({ data }: MessageEvent<Report>) => told(data);
  made.onerror = (event) => {
    event.preventDefault();
    failed(event.message || "the worker's program couldn't be loaded");
  };
  return made;
}

function told(report: Report): void {
  if (report.run !== run || !running) return;
  if (report.is === "running") {
    const { attach, size, lcores } = running;
    const names = attach.map((one) => NAMES[one]).join(" and ");
    status.textContent = `Running: ${names}, ${nameOf(size)}, ${lcores ? "guest on an lcore of its own" : "one thread"}.`;
  } else if (report.is === "figures") {
    latest = report.figures;
    plot.add(report.figures.map(({ attach, mppsNow }) => ({ attach, mpps: mppsNow })));
    for (const figures of report.figures) row(figures, running);
  } else if (report.is === "watched") pictures.get(report.attach)?.play(report.steps);
  else if (report.is === "stopped") ended(summary());
  else failed(report.why);
}

function summary(): string {
  if (latest.length === 0) return "Stopped.";
  const each = latest.map(({ attach, mpps }) => `${NAMES[attach]} ${digits(mpps)}`);
  return `Stopped: ${each.join(", ")} million packets a second.`;
}

function failed(why: string): void {
  error.textContent = `It failed: ${why}`;
  error.hidden = false;
  worker?.terminate();
  worker = undefined;
  ended("Stopped by an error.");
}

function ended(what: string): void {
  running = undefined;
  toggle.textContent = "Start";
  status.textContent = what;
  noRowIsLive();
}

function noRowIsLive(): void {
  for (const row of document.querySelectorAll("tr.live")) row.classList.remove("live");
}

function draw(attach: readonly Attach[]): void {
  pictures.clear();
  for (const one of attach) pictures.set(one, new Picture(one));
  lanes.replaceChildren(...[...pictures.values()].map((picture) => picture.element));
}

/** The row of an attachment with this frame and these threads, made where there is none. */
function row(figures: Figures, { size, lcores }: Setup): void {
  const { attach, packets, mpps, gain, copies, copiedBytes } = figures;
  const id = `row-${attach}-${size}-${lcores ? "on" : "off"}`;
  let tr = document.getElementById(id);
  if (!tr) {
    document.querySelector("tr.empty")?.remove();
    tr = element("rows").appendChild(document.createElement("tr"));
    tr.id = id;
    tr.innerHTML = `<th scope="row"></th>${"<td></td>".repeat(9)}`;
  }
  tr.className = `live ${attach}`;
  const { lost, duplicated, reordered, corrupt, dropped } = figures;
  const wrong = lost + duplicated + reordered + corrupt + dropped;
  const cells = [
    NAMES[attach],
    nameOf(size),
    lcores ? "on" : "off",
    digits(mpps),
    digits(1000 / mpps),
    gain === null || Number.isNaN(gain) ? "" : `${gain < 0 ? "−" : "+"}${Math.abs(100 * gain).toFixed(0)} %`,
    (copies / packets).toFixed(2),
    (copiedBytes / packets).toFixed(0),
    packets.toLocaleString("en"),
    wrong === 0
      ? "0"
      : Object.entries({ lost, duplicated, reordered, corrupt, dropped })
          .filter(([, n]) => n > 0)
          .map(([what, n]) => `${n} ${what}`)
          .join(", "),
  ];
  cells.forEach((text, i) => {
    tr.children[i]!.textContent = text;
  });
  tr.lastElementChild!.classList.toggle("wrong", wrong > 0);
}

function nameOf(size: FrameSize): string {
  return size === "imix" ? "IMIX" : `${size} B`;
}

/** Three digits; a dash where the clock was too coarse to tell. */
function digits(value: number): string {
  return Number.isFinite(value) ? value.toLocaleString("en", { maximumSignificantDigits: 3 }) : "–";
}
