/** Throughput over the last seconds, as lines. */
import type { Attach } from "iovtee";
import { NAMES } from "./names.ts";

const SECONDS = 30;
const MARGIN = { top: 30, right: 8, bottom: 22, left: 38 };

interface Point {
  /** Seconds. */
  at: number;
  mpps: number;
}

export class Plot {
  readonly #lines = new Map<Attach, Point[]>();

  constructor(readonly svg: SVGSVGElement) {
    new ResizeObserver(() => this.#draw()).observe(svg);
  }

  clear(): void {
    this.#lines.clear();
    this.#draw();
  }

  /** One more point for each attachment; those that the clock was too coarse for are left out. */
  add(points: readonly { attach: Attach; mpps: number }[]): void {
    const at = performance.now() / 1000;
    for (const { attach, mpps } of points) {
      const line = this.#lines.get(attach) ?? [];
      this.#lines.set(attach, line);
      if (!Number.isNaN(mpps)) line.push({ at, mpps });
      while (line.length > 0 && line[0]!.at < at - SECONDS) line.shift();
    }
    this.#draw();
  }

  #draw(): void {
    const { width, height } = this.svg.getBoundingClientRect();
    const points = [...this.#lines.values()].flat();
    const now = Math.max(0, ...points.map(({ at }) => at));
    const most = Math.max(1, ...points.map(({ mpps }) => mpps));
    const step = tick(most);
    const top = step * Math.ceil(most / step);
    const [right, bottom] = [width - MARGIN.right, height - MARGIN.bottom];
    const x = (at: number) => right - ((now - at) / SECONDS) * (right - MARGIN.left);
    const y = (mpps: number) => bottom - (mpps / top) * (bottom - MARGIN.top);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren();
    for (let mpps = 0; mpps <= top; mpps += step) {
      this.#put("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y(mpps), y2: y(mpps) });
      this.#put("text", { x: MARGIN.left - 6, y: y(mpps) + 4, "text-anchor": "end" }, String(mpps));
    }
    for (const ago of width < 500 ? [30, 15, 0] : [30, 20, 10, 0]) {
      const anchor = ago === 0 ? "end" : ago === SECONDS ? "start" : "middle";
      this.#put(
        "text",
        { x: x(now - ago), y: height - 5, "text-anchor": anchor },
        ago ? `${ago} s ago` : "now",
      );
    }
    for (const [attach, line] of this.#lines) {
      const d = line.map(({ at, mpps }, i) => `${i ? "L" : "M"}${x(at).toFixed(1)} ${y(mpps).toFixed(1)}`);
      this.#put("path", { class: attach, d: d.join("") });
    }
    [...this.#lines].forEach(([attach, line], i) => {
      const last = line.at(-1);
      const [left, top] = [MARGIN.left + 150 * i, 12];
      this.#put("path", { class: attach, d: `M${left} ${top}h26` });
      const text = `${NAMES[attach]} ${last ? last.mpps.toFixed(1) : ""}`;
      this.#put("text", { class: `name ${attach}`, x: left + 32, y: top + 4 }, text);
    });
    const latest = [...this.#lines].map(
      ([attach, line]) => `${NAMES[attach]} ${line.at(-1)?.mpps.toFixed(1)}`,
    );
    this.svg.setAttribute(
      "aria-label",
      latest.length > 0 ? `Million packets a second, now: ${latest.join(", ")}.` : "Nothing measured yet.",
    );
  }

  #put(name: string, attributes: Record<string, string | number>, text?: string): void {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
    if (text !== undefined) element.textContent = text;
    this.svg.append(element);
  }
}

/** Distance of grid lines: 1, 2 or 5 times a power of ten, four to eight of them. */
function tick(most: number): number {
  const power = 10 ** Math.floor(Math.log10(most));
  const digit = most / power;
  return power * (digit < 2 ? 0.5 : digit < 4 ? 1 : 2);
}
