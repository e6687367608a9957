/** HTML as text, well-formed as XML too. */

/** Text that is markup already. */
export class Markup {
  constructor(readonly text: string) {}
  toString(): string {
    return this.text;
  }
}

type Part = string | number | Markup | undefined | Part[];

/** A template whose values are escaped, unless they are markup; lists are joined, `undefined` is nothing. */
export function html(strings: TemplateStringsArray, ...parts: Part[]): Markup {
  return new Markup(strings.reduce((text, string, i) => text + render(parts[i - 1]) + string));
}

function render(part: Part): string {
  if (part === undefined) return "";
  if (Array.isArray(part)) return part.map(render).join("");
  return part instanceof Markup ? part.text : escaped(String(part));
}

const ENTITIES: Record<string, string> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** Without what no XML document may hold: control characters. */
function escaped(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are meant
  const clean = text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, " ");
  return clean.replace(/[&<>"']/g, (character) => ENTITIES[character] as string);
}

/** A column: what stands at its head, and a row's cell; `text` for what isn't a number. */
export interface Column<Row> {
  head: string;
  cell: (row: Row) => string;
  text?: boolean;
}

/** A table that can be scrolled sideways where the page is narrow. Its first column names the rows. */
export function table<Row>(caption: string, columns: Column<Row>[], rows: Row[]): Markup {
  const kind = (column: Column<Row>) => (column.text ? html` class="text"` : undefined);
  const [name, ...others] = columns as [Column<Row>, ...Column<Row>[]];
  return html`<div class="scroll" role="region" aria-label="${caption}" tabindex="0"><table>
<caption>${caption}</caption>
<thead><tr>${columns.map((column) => html`<th scope="col"${kind(column)}>${column.head}</th>`)}</tr></thead>
<tbody>${rows.map(
    (row) => html`
<tr><th scope="row"${kind(name)}>${name.cell(row)}</th>${others.map(
      (column) => html`<td${kind(column)}>${column.cell(row)}</td>`,
    )}</tr>`,
  )}
</tbody></table></div>`;
}
