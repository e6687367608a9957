/** Plots as SVG text. Series differ by pattern, dash and mark as well as by colour, and are named where they stand. */
import {
  axisX,
  axisY,
  barX,
  dot,
  gridX,
  gridY,
  initializer,
  line,
  type Markish,
  type PlotOptions,
  plot,
  ruleX,
  ruleY,
  text,
} from "@observablehq/plot";
import { DOMImplementation } from "@xmldom/xmldom";
import { Markup } from "./markup.ts";

const WIDTH = 360;
const LINES_HEIGHT = 270;
const BAND = 24;
const LABEL = 14;
/** Widths of text are guessed: the mean of a character, of system-ui at 12 px. */
const CHARACTER = 6.6;

/** What the style sheet has of each kind: colour `--series-N` and pattern `#pattern-N`. */
export const LOOKS = [
  { symbol: "square", dash: "7 4" },
  { symbol: "circle", dash: "none" },
  { symbol: "triangle", dash: "2 3" },
  { symbol: "diamond", dash: "10 3 2 3" },
  { symbol: "star", dash: "14 4" },
  { symbol: "cross", dash: "4 2" },
  { symbol: "wye", dash: "10 3 2 3 2 3" },
  { symbol: "hexagon", dash: "1 4" },
  { symbol: "asterisk", dash: "6 2 1 2" },
] as const;

/** What a series looks like, the same in all plots of a page. */
export class Looks {
  constructor(readonly series: string[]) {}
  number(series: string): number {
    return Math.max(0, this.series.indexOf(series)) % LOOKS.length;
  }
  color(series: string): string {
    return `var(--series-${this.number(series)})`;
  }
  pattern(series: string): string {
    return `url(#pattern-${this.number(series)})`;
  }
}

/** What every plot has: its name and what it says, for those who can't see it. */
interface Described {
  id: string;
  title: string;
  description: string;
}

export interface Bar {
  group: string;
  series: string;
  value: number;
  min: number;
  max: number;
  /** Stands beside the bar. */
  label: string;
  /** Shown when the pointer rests on the bar. */
  tip: string;
}

/** Horizontal bars under the names of their groups, each with its range. `most` is the axis' end. */
export function barPlot(what: Described, looks: Looks, axis: string, bars: Bar[], most: number): Markup {
  const band = (bar: Bar) => `${bar.group}\n${bar.series}`;
  const groups = [...new Set(bars.map((bar) => bar.group))];
  const bands = groups.flatMap((group) => [group, ...bars.filter((bar) => bar.group === group).map(band)]);
  const names = bars.map((bar) => bar.series);
  return draw(what, {
    height: bands.length * BAND + 40,
    marginTop: 0,
    marginBottom: 40,
    marginLeft: widest(names) + 12,
    marginRight: widest(bars.map((bar) => bar.label)) + 8,
    x: { domain: [0, most], label: axis },
    y: { domain: bands, padding: 0.2 },
    marks: [
      gridX({ ticks: 4 }),
      axisX({ ticks: 4, labelAnchor: "center", labelArrow: "none" }),
      axisY(bars.map(band), {
        tickSize: 0,
        label: null,
        tickFormat: (key: string) => key.slice(key.indexOf("\n") + 1),
      }),
      text(groups, {
        x: 0,
        y: (group: string) => group,
        text: (group: string) => group,
        textAnchor: "start",
        fontWeight: 600,
        dx: 4,
        dy: 3,
      }),
      ...looks.series.map((series) =>
        barX(
          bars.filter((bar) => bar.series === series),
          {
            x: "value",
            y: band,
            fill: looks.pattern(series),
            stroke: looks.color(series),
            title: "tip",
          },
        ),
      ),
      // The range stands out from the bar that it ends in.
      ...[
        { stroke: "var(--page)", strokeWidth: 4 },
        { stroke: "var(--ink)", strokeWidth: 1.5 },
      ].map((style) => ruleY(bars, { x1: "min", x2: "max", y: band, ...style })),
      text(bars, {
        x: (bar: Bar) => Math.max(bar.value, bar.max),
        y: band,
        text: "label",
        textAnchor: "start",
        dx: 6,
      }),
      ruleX([0]),
    ],
  });
}

export interface Point {
  series: string;
  x: number;
  y: number;
  /** Ends of a range around `y`. */
  min?: number;
  max?: number;
  /** Drawn hollow: not like the others. */
  hollow?: boolean;
  tip: string;
}

export interface Axis {
  label: string;
  /** Logarithmic between the ends, or from 0 to the upper end. */
  type: "log" | "linear";
  domain: [number, number];
  ticks?: number[];
  format: (value: number) => string;
}

/** Ends of a logarithmic axis that holds all values, with some room on both sides. */
export function around(values: number[]): [number, number] {
  const positive = values.filter((value) => value > 0);
  return [Math.min(...positive) / 1.2, Math.max(...positive) * 1.2];
}

/** One line for each series, marked at its points, with its name at the right end. */
export function linePlot(what: Described, looks: Looks, points: Point[], x: Axis, y: Axis): Markup {
  const of = (series: string) => points.filter((point) => point.series === series).sort((a, b) => a.x - b.x);
  const present = looks.series.filter((series) => of(series).length > 0);
  const ends = present.map((series) => of(series).at(-1) as Point);
  // A logarithmic axis has no 0: what is below its end is drawn from there.
  const lowest = ({ min = 0 }: Point) => Math.max(min, y.domain[0]);
  const ranges = points.filter((point) => point.min !== undefined);
  const bare = ({ label, type, domain }: Axis) => ({ label, type, domain });
  const ticks = ({ ticks, type, domain: [low, high] }: Axis) =>
    ticks?.filter((tick) => tick >= low && tick <= high) ?? (type === "log" ? logTicks(low, high) : 5);
  return draw(what, {
    height: LINES_HEIGHT,
    marginTop: 28,
    marginBottom: 40,
    marginLeft: 48,
    marginRight: widest(present) + 16,
    x: bare(x),
    y: bare(y),
    marks: [
      gridX({ ticks: ticks(x) }),
      gridY({ ticks: ticks(y) }),
      // As text: a logarithmic scale would leave out what it thinks too close.
      axisX({ ticks: ticks(x), text: x.format, labelAnchor: "center", labelArrow: "none" }),
      axisY({ ticks: ticks(y), text: y.format, labelArrow: "none" }),
      ruleX(ranges, { x: "x", y1: lowest, y2: "max", stroke: (point: Point) => looks.color(point.series) }),
      ...present.flatMap((series): Markish[] => {
        const look = LOOKS[looks.number(series)] as (typeof LOOKS)[number];
        const stroke = looks.color(series);
        const fill = (point: Point) => (point.hollow ? "var(--page)" : stroke);
        return [
          line(of(series), { x: "x", y: "y", stroke, strokeWidth: 2, strokeDasharray: look.dash }),
          dot(of(series), { x: "x", y: "y", symbol: look.symbol, r: 4, stroke, fill, title: "tip" }),
        ];
      }),
      text(
        ends,
        initializer(
          { x: "x", y: "y", text: "series", textAnchor: "start", dx: 9, fontWeight: 600 },
          (data, facets, _channels, { y: scale }) => ({
            data,
            facets,
            channels: { y: { value: apart(ends.map((end) => scale?.(end.y))) } },
          }),
        ),
      ),
    ],
  });
}

/** Heights of labels, moved up and down until none covers another. */
function apart(heights: number[]): number[] {
  const y = [...heights];
  const order = y.map((_, i) => i).sort((a, b) => (y[a] as number) - (y[b] as number));
  for (let round = 0; round < 50; round++) {
    for (let i = 1; i < order.length; i++) {
      const [above, below] = [order[i - 1] as number, order[i] as number];
      const overlap = LABEL - ((y[below] as number) - (y[above] as number));
      if (overlap <= 0) continue;
      y[above] = (y[above] as number) - overlap / 2;
      y[below] = (y[below] as number) + overlap / 2;
    }
  }
  return y;
}

/** Powers of ten, and as many between them as there is room for. */
function logTicks(low: number, high: number): number[] {
  const decades = Math.log10(high / low);
  const steps = decades > 2.5 ? [1] : decades > 0.8 ? [1, 2, 5] : [1, 2, 3, 4, 5, 6, 7, 8, 9];
  const ticks: number[] = [];
  for (let exponent = Math.floor(Math.log10(low)); 10 ** exponent <= high; exponent++)
    for (const step of steps) ticks.push(Number(`${step}e${exponent}`));
  return ticks.filter((tick) => tick >= low && tick <= high);
}

const widest = (texts: string[]) => Math.ceil(Math.max(0, ...texts.map((one) => one.length)) * CHARACTER);

/** Draws into a document of its own, and puts name and description in front. */
function draw({ id, title, description }: Described, options: PlotOptions): Markup {
  const document = new DOMImplementation().createDocument("http://www.w3.org/1999/xhtml", "html");
  const svg = plot({
    ...options,
    document: document as unknown as Document,
    width: WIDTH,
    style: "font: 12px system-ui, sans-serif",
  });
  for (const style of Array.from(svg.getElementsByTagName("style"))) svg.removeChild(style);
  // Names of marks are the library's; who listens is told the description.
  for (const part of Array.from(svg.getElementsByTagName("g"))) part.removeAttribute("aria-label");
  const first = svg.firstChild;
  for (const [name, content] of [
    ["title", title],
    ["desc", description],
  ] as const) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name) as unknown as Element;
    element.setAttribute("id", `${id}-${name}`);
    element.textContent = content;
    svg.insertBefore(element, first);
  }
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-labelledby", `${id}-title ${id}-desc`);
  return new Markup(svg.toString());
}
