/** How the page looks: by light and by dark, on paper, and at a telephone's width. */
import { Markup } from "./markup.ts";

/** Colours of the series, told apart by their lightness too. */
const LIGHT = [
  "#b0511a",
  "#0b4f9e",
  "#2f7d3b",
  "#7b3fa0",
  "#7a6200",
  "#00707a",
  "#a8326e",
  "#4d4d4d",
  "#5a7300",
];
const DARK = [
  "#f0a36e",
  "#7db8ff",
  "#86d694",
  "#d0a5f2",
  "#e3c75c",
  "#63d2da",
  "#f49cc6",
  "#c0c0c0",
  "#bcdc5e",
];

const variables = (colors: string[]) => colors.map((color, i) => `--series-${i}: ${color};`).join(" ");

export const STYLE = new Markup(`
:root { color-scheme: light dark; --page: #ffffff; --ink: #1b1b1b; --soft: #5a5a5a; --rule: #d5d5d5; --warn: #a11212; ${variables(LIGHT)} }
@media screen and (prefers-color-scheme: dark) {
  :root { --page: #16181c; --ink: #ececec; --soft: #b0b4ba; --rule: #3c4149; --warn: #ff9b9b; ${variables(DARK)} }
}
* { box-sizing: border-box; }
html { background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; -webkit-text-size-adjust: 100%; }
body { max-width: 76rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.35rem; margin: 3rem 0 .5rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1.05rem; margin: 0 0 .25rem; }
h4 { font-size: 1rem; margin: 0 0 .25rem; }
p, ul { max-width: 46rem; margin: .5rem 0; }
figure { margin: 1.5rem 0 2.5rem; }
figcaption p { color: var(--soft); font-size: .9rem; }
.warn { color: var(--warn); font-weight: 600; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); gap: 1.5rem 2rem; margin: 1rem 0; }
.panel { max-width: 31rem; }
.panel svg { display: block; width: 100%; height: auto; overflow: visible; }
summary { cursor: pointer; color: var(--soft); font-size: .9rem; padding: .25rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
th, td { padding: .2rem .7rem .2rem 0; text-align: right; vertical-align: top; font-weight: 400; border-bottom: 1px solid var(--rule); }
thead th { font-weight: 600; vertical-align: bottom; }
tbody th, tbody td { white-space: nowrap; }
.text { text-align: left; }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
.patterns { position: absolute; }
@media print { body { max-width: none; } figure { break-inside: avoid; } }
`);

/** What bars are filled with: `#pattern-N` in the colour `--series-N`, on the page's ground. */
export const PATTERNS = new Markup(
  `<svg class="patterns" width="0" height="0" aria-hidden="true"><defs>${[
    '<path d="M-2,2L2,-2M0,8L8,0M6,10L10,6" stroke-width="2.5"/>',
    '<path d="M0,0H8V8H0Z" class="solid"/>',
    '<path d="M2,1V3M6,5V7" stroke-width="2.5"/>',
    '<path d="M0,0L8,8M8,0L0,8" stroke-width="1.5"/>',
    '<path d="M0,2H8M0,6H8" stroke-width="2"/>',
    '<path d="M2,0V8M6,0V8" stroke-width="2"/>',
    '<path d="M-2,6L2,10M0,0L8,8M6,-2L10,2" stroke-width="2.5"/>',
    '<path d="M0,4H8M4,0V8" stroke-width="1.5"/>',
    '<path d="M4,2A2,2 0 1 1 3.9,2Z" fill="none" stroke-width="1.5"/>',
  ]
    .map((path, i) => {
      const color = `var(--series-${i})`;
      const shape = path.includes("solid") ? path.replace('class="solid"', `fill="${color}"`) : path;
      return `<pattern id="pattern-${i}" width="8" height="8" patternUnits="userSpaceOnUse" stroke="${color}">${shape}</pattern>`;
    })
    .join("")}</defs></svg>`,
);
