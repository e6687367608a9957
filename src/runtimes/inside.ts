/** What runs inside a runtime: one program, and its outcome as JSON. */

/** A program: a module's default export. It gets and gives what JSON holds. */
export type Program = (input: never) => unknown;

/** What became of a program. */
export interface Outcome {
  /** What it returned. */
  value?: unknown;
  /** What it threw, with the stack. */
  error?: string;
  /** What it said by `console.warn`. */
  warnings: string[];
}

/** Loads a program and runs it. */
export async function outcomeOf(load: () => Promise<{ default: Program }>, input: unknown): Promise<Outcome> {
  const warnings: string[] = [];
  console.warn = (...words: unknown[]) => void warnings.push(words.join(" "));
  try {
    const { default: program } = await load();
    return { value: await program(input as never), warnings };
  } catch (error) {
    const { message, stack = "" } = error as Error;
    // Firefox's stack doesn't begin with the message.
    return { error: stack.includes(message) ? stack : `${error}\n${stack}`, warnings };
  }
}
