/** A figure of the page: plots side by side, how they came about, and the table of the same figures. */
import { type Column, html, type Markup, table } from "./markup.ts";

/** A table with more rows than these is folded. */
const ROWS_SHOWN = 12;

export interface Figure<Row> {
  title: string;
  /** How it was measured and how it is read, where, and with how many cores. */
  how: string[];
  panels: { title: string; plot: Markup }[];
  columns: Column<Row>[];
  rows: Row[];
}

export function figure<Row>({ title, how, panels, columns, rows }: Figure<Row>): Markup {
  return html`<figure>
<figcaption><h3>${title}</h3>
${how.map((one) => html`<p>${one}</p>\n`)}</figcaption>
<div class="panels">
${panels.map((panel) => html`<div class="panel"><h4>${panel.title}</h4>\n${panel.plot}</div>\n`)}</div>
<details${rows.length > ROWS_SHOWN ? undefined : html` open="open"`}><summary>The same figures as a table</summary>
${table(title, columns, rows)}
</details>
</figure>
`;
}
