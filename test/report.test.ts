/** The page that `iovtee bench --html` writes, and how passes become one report. */
import { DOMParser, type Document, type Element } from "@xmldom/xmldom";
import { expect, test } from "vitest";
import type { PvpReport } from "../src/pvp.ts";
import { type BenchReport, merge } from "../src/report/bench.ts";
import { page } from "../src/report/html.ts";
import { disturbed } from "../src/report/table.ts";
import { REPORT, run, runtime } from "./bench-report.ts";

/** Strictly: an entity without a name, an open element, a twofold attribute throw. */
function parse(text: string): Document {
  const onError = (level: string, message: string) => {
    throw new Error(`${level}: ${message}`);
  };
  return new DOMParser({ onError }).parseFromString(text, "application/xhtml+xml");
}
const all = (of: Document | Element, name: string) => [...of.getElementsByTagName(name)];
const texts = (of: Document | Element, name: string) => all(of, name).map((element) => element.textContent);
const headings = (bench: BenchReport) => texts(parse(page(bench)), "h3");

const FIGURES = [
  "Throughput by frame size and attachment",
  "Runtimes side by side",
  "Latency against offered load, 64 B",
  "Latency against offered load, 1514 B",
  "Latency by percentile",
  "Throughput against the number of guests",
];

test("the page is well-formed, runs no script and refers to nothing outside itself", () => {
  const text = page(REPORT);
  const document = parse(text);
  for (const name of ["script", "link", "iframe", "img"]) expect(all(document, name)).toEqual([]);
  const namespaces = /xmlns(:xlink)?="http:\/\/www\.w3\.org\/[\w/]+"/g;
  expect(text.replace(namespaces, "")).not.toMatch(/https?:|@import|\b(src|href|action)=|url\((?!#)/);
  expect(text).not.toMatch(/NaN|Infinity|undefined|⚠/);
});

test("every reference inside the page leads to one element", () => {
  const text = page(REPORT);
  const ids = [...text.matchAll(/ id="([^"]+)"/g)].map((match) => match[1] as string);
  expect(new Set(ids).size).toBe(ids.length);
  const named = all(parse(text), "svg").flatMap(
    (svg) => svg.getAttribute("aria-labelledby")?.split(" ") ?? [],
  );
  const patterns = [...text.matchAll(/url\(#([^)]+)\)/g)].map((match) => match[1] as string);
  expect(named).toHaveLength(2 * 17);
  expect(patterns.length).toBeGreaterThan(0);
  for (const id of [...named, ...patterns]) expect(ids).toContain(id);
});

test("each figure has plots with a name, a description and each series, and a table with the same figures", () => {
  const figures = all(parse(page(REPORT)), "figure");
  expect(figures.map((figure) => texts(figure, "h3")[0])).toEqual(FIGURES);
  // 4 runtimes or 3 sizes of 2 attachments; 7 loads; 8 percentiles under 100; 7 numbers of guests.
  expect(figures.map((figure) => tips(figure).length)).toEqual([24, 24, 3 * 14, 3 * 14, 2 * 16, 2 * 14]);
  for (const figure of figures) {
    for (const svg of all(figure, "svg")) {
      expect(svg.getAttribute("role")).toBe("img");
      expect(texts(svg, "title")[0]).not.toBe("");
      expect(texts(svg, "desc")[0]).toMatch(/vhost.*iovtee/s);
      expect(texts(svg, "text")).toEqual(expect.arrayContaining(["vhost", "iovtee"]));
    }
    const cells = [...texts(figure, "td"), ...texts(figure, "th")];
    for (const tip of tips(figure)) {
      const figureOf = /: ([\d.,]*\d) (Mpps|µs)/.exec(tip)?.[1];
      expect(cells, tip).toContain(figureOf);
    }
  }
  expect(texts(figures[0] as Element, "td")).toEqual(expect.arrayContaining(["35.71", "39.64", "+11 %"]));

  /** What marks show when a pointer rests on them. */
  function tips(figure: Element): string[] {
    const titles = all(figure, "title").filter((title) => !title.hasAttribute("id"));
    return titles.map((title) => title.textContent ?? "");
  }
});

test("each figure tells how it was measured, where, and with how many cores", () => {
  for (const figure of all(parse(page(REPORT)), "figcaption"))
    expect(texts(figure, "p").join(" ")).toMatch(
      /node 20\.20\.2.*: [12] of 2 cores used, AMD EPYC 9B14 & co/,
    );
});

test("series are told apart without colour: by pattern, or by dash and mark", () => {
  const [bars, , lines] = all(parse(page(REPORT)), "figure");
  const used = (of: Element | undefined, name: string, attribute: string) =>
    new Set(all(of as Element, name).flatMap((element) => element.getAttribute(attribute) ?? []));
  const fills = [...used(bars, "g", "fill")].filter((fill) => fill.startsWith("url"));
  expect(fills.sort()).toEqual(["url(#pattern-0)", "url(#pattern-1)"]);
  // The other line is whole.
  expect([...used(lines, "g", "stroke-dasharray")]).toEqual(["7 4"]);
  const marked = ["circle", "path"].flatMap((shape) =>
    all(lines as Element, shape).filter((mark) => all(mark, "title").length > 0),
  );
  expect(new Set(marked.map((mark) => mark.getAttribute("d") ?? mark.tagName)).size).toBe(2);
});

test("names are escaped, in text and in attributes", () => {
  const name = `<img src="x" onerror='a()'>&\u0000`;
  const odd = { ...runtime(name, "1", 1), howToInstall: name, error: name };
  const document = parse(page({ command: "bench", runtimes: [odd, { ...odd, available: false }] }));
  expect(all(document, "img")).toEqual([]);
  expect(texts(document, "th")).toContain(name.replace("\u0000", " "));
});

test("a runtime that isn't there is listed with how to install it, one that failed with why", () => {
  const section = all(parse(page(REPORT)), "section").at(-1) as Element;
  const rows = texts(section, "tr");
  expect(rows.find((row) => row?.startsWith("firefox"))).toContain("not found");
  expect(rows.find((row) => row?.startsWith("workerd"))).toContain("failed");
  expect(texts(section, "li")).toEqual([
    "node 22, firefox: not found; apt install firefox-esr <or> a newer one",
    "workerd 1.2026 failed: it stopped",
  ]);
});

test("what wasn't measured has no figure", () => {
  const { latency: _, scale: __, ...throughput } = REPORT;
  expect(headings(throughput)).toEqual(FIGURES.slice(0, 2));
  expect(headings({ ...throughput, runtimes: REPORT.runtimes.slice(0, 1) })).toEqual(FIGURES.slice(0, 1));
  expect(headings({ ...throughput, runtimes: REPORT.runtimes.slice(4) })).toEqual([]);
  expect(headings({ ...REPORT, runtimes: [] })).toEqual(FIGURES.slice(2));
});

test("where no load is carried without loss there is no distribution", () => {
  const latency = REPORT.latency as NonNullable<BenchReport["latency"]>;
  const runs = latency.runs.map((one) => ({ ...one, lost: 1 }));
  expect(headings({ ...REPORT, latency: { ...latency, runs } })).not.toContain("Latency by percentile");
});

test("one load, one number of guests, and a guest that gets nothing are drawn too", () => {
  const { latency, scale } = REPORT as Required<BenchReport>;
  const text = page({
    ...REPORT,
    latency: { ...latency, runs: latency.runs.slice(0, 1) },
    scale: { ...scale, runs: [{ ...(scale.runs[1] as (typeof scale.runs)[0]), perGuest: [20, 0] }] },
  });
  expect(text).not.toMatch(/NaN|Infinity|⚠/);
  const document = parse(text);
  expect(texts(document, "h3")).toHaveLength(5);
  // From the least guest to the most.
  const ranges = all(document, "line").filter((one) =>
    one.getAttribute("stroke")?.startsWith("var(--series"),
  );
  expect(ranges).toHaveLength(1);
});

test("a lost frame and an interruption are told at the top", () => {
  const lossy = { ...run("vhost", 64, 1), lost: 3 };
  const one = runtime("node", "20", 1);
  const report = { ...(one.report as NonNullable<typeof one.report>), runs: [lossy] };
  const document = parse(page({ command: "bench", runtimes: [{ ...one, report }], interrupted: true }));
  const warnings = all(document, "p").filter((p) => p.getAttribute("class") === "warn");
  expect(warnings.map((p) => p.textContent)).toEqual([
    expect.stringContaining("3 were lost"),
    expect.stringContaining("Interrupted"),
  ]);
});

test("a busy machine is told at the top: rounds that differ by more than half", () => {
  const warnings = (most: number) => {
    const one = runtime("node", "20", 1);
    const runs = one.report?.runs.map((of) => ({ ...of, mppsMin: 10, mppsMax: most })) ?? [];
    const report = { ...(one.report as NonNullable<typeof one.report>), runs };
    const document = parse(page({ command: "bench", runtimes: [{ ...one, report }] }));
    return all(document, "p").filter((p) => p.getAttribute("class") === "warn");
  };
  expect(warnings(14)).toEqual([]);
  expect(warnings(42).map((p) => p.textContent)).toEqual([expect.stringContaining("a factor of 4.2")]);
});

test("passes become one report: medians of figures, sums of counts, ratios to Node's pass beside", () => {
  const pass = (name: string, mpps: number, gain: number | null): PvpReport => ({
    runtime: { name, version: "1", memory: "unshared" },
    command: "pvp",
    runs: [
      {
        ...run("vhost", 64, 1),
        packets: 100,
        mpps,
        mppsMin: mpps - 1,
        mppsMax: mpps + 1,
        gainVsVhost: gain,
        lost: 1,
        drops: { full: 1 },
      },
    ],
  });
  // The machine is half as fast in the second pass.
  const node = [pass("node", 40, 0.1), pass("node", 20, 0.3), pass("node", 44, 0.2)];
  const deno = [pass("deno", 20, null), pass("deno", 11, null), pass("deno", 22, null)];
  expect(merge(node, node).runs[0]).toMatchObject({
    packets: 300,
    mpps: 40,
    mppsMin: 19,
    mppsMax: 45,
    nsPerPacket: 25,
    gainVsVhost: 0.2,
    ratioToNode: null,
    copiesPerPacket: 2,
    lost: 3,
    drops: { full: 3 },
  });
  expect(merge(deno, node).runs[0]).toMatchObject({ mpps: 20, ratioToNode: 0.5, gainVsVhost: null });
  expect(merge(deno).runs[0]?.ratioToNode).toBeNull();
});

test("where rounds differ by more than half, text says that the machine is busy, as the page does", () => {
  const between = (slowest: number, fastest: number) => [{ mppsMin: slowest, mppsMax: fastest }];
  expect(disturbed(between(20, 30))).toEqual([]);
  expect(disturbed([])).toEqual([]);
  expect(disturbed(between(Number.NaN, Number.NaN))).toEqual([]);
  expect(disturbed([...between(10, 46), ...between(10, 40), ...between(10, 11)])).toEqual([
    expect.stringContaining("a factor of 4.0 (the median over all runs): the machine is busy"),
  ]);
});

test("where no clock moved there is no rate, and nothing is drawn", () => {
  const still = { ...run("iovtee", 64, 1), mpps: Number.NaN, mppsMin: Number.NaN, mppsMax: Number.NaN };
  const moved = { ...run("iovtee", 64, 1), mpps: 20, mppsMin: 10, mppsMax: 30 };
  const pass = (one: typeof still): PvpReport =>
    // As a runtime's answer comes.
    JSON.parse(JSON.stringify({ runtime: { name: "workerd", version: "1" }, command: "pvp", runs: [one] }));
  const node = [pass(moved), pass(moved)];
  expect(merge([pass(still), pass(moved)], node).runs[0]).toMatchObject({
    ...{ mpps: 20, mppsMin: 10, mppsMax: 30, ratioToNode: 1 },
  });
  const { runs } = merge([pass(still), pass(still)], node);
  expect(runs[0]).toMatchObject({ mpps: Number.NaN, mppsMin: Number.NaN, ratioToNode: null });

  const one = runtime("node", "20", 1);
  const report = { ...(one.report as NonNullable<typeof one.report>), runs: [run("vhost", 64, 1), ...runs] };
  const text = page(JSON.parse(JSON.stringify({ command: "bench", runtimes: [{ ...one, report }] })));
  expect(text).not.toMatch(/NaN|null/);
  expect(texts(parse(text), "td")).toContain("–");
  expect(all(parse(text), "rect")).toHaveLength(1);
});
