/** Figures as text for people, the same on plots and in tables. */
import type { PvpReport } from "../pvp.ts";

/** A dash for what isn't a number, `null` of JSON included. */
export const fixed = (n: number, digits: number) =>
  Number.isFinite(n)
    ? n.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits })
    : "–";

export const count = (n: number) => n.toLocaleString("en-US");

export const mpps = (n: number) => fixed(n, 2);

/** A gain of 0.1 as "+10 %"; nothing for `null`. */
export const percent = (fraction: number | null) =>
  fraction === null ? "" : `${fraction < 0 ? "−" : "+"}${fixed(Math.abs(fraction) * 100, 0)} %`;

/** 1.25 as "1.25×"; nothing for `null`. */
export const times = (n: number | null) => (n === null ? "" : `${fixed(n, 2)}×`);

/** Microseconds, to three digits that count. */
export const micros = (n: number) => fixed(n, n >= 100 ? 0 : n >= 10 ? 1 : 2);

/** 2500000 as "2.5 M". */
export function short(n: number): string {
  if (n >= 1e6) return `${Number((n / 1e6).toPrecision(3))} M`;
  return n >= 1e3 ? `${Number((n / 1e3).toPrecision(3))} k` : String(n);
}

export function frameName(frame: number | string): string {
  if (frame === "imix") return "IMIX";
  return typeof frame === "number" ? `${frame} B` : frame;
}

/** "1 of 2 cores used, AMD EPYC" */
export function machine({ cores, cpu }: PvpReport["runtime"], used: number): string {
  const of = cores === undefined ? "" : ` of ${cores}`;
  const plural = (cores ?? used) === 1 ? "core" : "cores";
  return [`${used}${of} ${plural} used`, cpu].filter(Boolean).join(", ");
}

/** "node 20.20.2: 2 of 2 cores used, AMD EPYC; threads: card, guest." */
export function place(runtime: PvpReport["runtime"], cores: number, lcores: string[]): string {
  const threads = `threads: ${lcores.join(", ")}`;
  return `${runtime.name} ${runtime.version}: ${machine(runtime, cores)}; ${threads}.`;
}

export const unique = <Value>(values: Value[]): Value[] => [...new Set(values)];
