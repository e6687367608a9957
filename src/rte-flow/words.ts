/** A line of testpmd's, word by word, and what is wrong with it. */

/** A line that can't be read, or that the card can't follow: where, and what was expected. */
export class RteFlowError extends RangeError {
  override readonly name = "RteFlowError";
  constructor(
    /** Counts from 1. */
    readonly column: number,
    found: string,
    expected: string,
    /** Line of a file, from 1. */
    readonly line?: number,
  ) {
    const where = `${line === undefined ? "" : `line ${line}, `}column ${column}`;
    super(`flow: ${where}: ${found ? `"${found}"` : "end of line"}, expected ${expected}`);
    this.#found = found;
    this.#expected = expected;
  }
  readonly #found: string;
  readonly #expected: string;

  /** The same in line `line` of a file. */
  at(line: number): RteFlowError {
    return new RteFlowError(this.column, this.#found, this.#expected, line);
  }
}

export interface Word {
  readonly text: string;
  readonly column: number;
}

export class Words {
  readonly #words: Word[];
  readonly #width: number;
  #at = 0;

  constructor(line: string) {
    const text = line.replace(/#.*/, "");
    this.#words = [...text.matchAll(/\S+/g)].map((m) => ({ text: m[0], column: m.index + 1 }));
    this.#width = text.trimEnd().length;
  }

  get isEmpty(): boolean {
    return this.#words.length === 0;
  }
  /** The next word; empty at the end of the line. */
  get next(): Word {
    return this.#words[this.#at] ?? { text: "", column: this.#width + 1 };
  }
  /** The word that was taken last. */
  get last(): Word {
    return this.#words[this.#at - 1] ?? this.next;
  }
  take(): Word {
    const word = this.next;
    this.#at++;
    return word;
  }
  /** Takes the next word if it is this one. */
  skip(text: string): boolean {
    if (this.next.text !== text) return false;
    this.#at++;
    return true;
  }
  /** @throws RteFlowError where the next word is none of these */
  oneOf<Text extends string>(choices: readonly Text[], expected = listed(choices)): Text {
    const { text } = this.next;
    const found = choices.find((choice) => choice === text);
    if (found === undefined) this.fail(expected);
    this.#at++;
    return found;
  }
  /** A decimal or hexadecimal number. @throws RteFlowError */
  number(most: number, what = "a number"): number {
    const { text } = this.next;
    const value = /^(0|[1-9]\d*|0x[0-9a-f]+)$/i.test(text) ? Number(text) : Number.NaN;
    if (!(value <= most)) this.fail(`${what} from 0 to ${most}`);
    this.#at++;
    return value;
  }
  end(): void {
    if (this.next.text) this.fail("the end of the line");
  }
  /** @throws RteFlowError at the next word, or at `word` */
  fail(expected: string, { text, column }: Word = this.next): never {
    throw new RteFlowError(column, text, expected);
  }
}

/** a, b or c; "a". */
export function listed(choices: readonly string[]): string {
  const last = choices[choices.length - 1] ?? "";
  return choices.length > 1 ? `${choices.slice(0, -1).join(", ")} or ${last}` : `"${last}"`;
}
