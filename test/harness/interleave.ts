/**
 * All interleavings of small programs: every state that they reach by taking turns at atomic steps, in memory that all of
 * them see change in one order (sequential consistency, which the atomics of WebAssembly and JavaScript have).
 *
 * A program is a table of steps. A step reads and writes the state, and gives the name of the one that follows. All that it
 * does happens at once: what is two accesses of shared memory in the code is two steps here. A step that changes nothing
 * and names itself waits. One whose name begins with "(" touches nothing that others see: it is taken together with the
 * one before, since nobody can tell when it happens, and there are fewer states.
 */

import { readFileSync } from "node:fs";

/** One atomic step; gives the name of the next one of its program. */
export type Step<S> = (state: S) => string;

/** Steps by name; the first is where it begins. */
export type Program<S> = Readonly<Record<string, Step<S>>>;

/** What a program's last step names. */
export const END = "end";

export interface Model<S> {
  /** The state in the beginning. */
  state: S;
  threads: Readonly<Record<string, Program<S>>>;
  /**
   * What is wrong in a state, or nothing.
   * @param at the step that each thread takes next
   * @param stuck no thread can change anything any more: all have ended or wait
   */
  wrong(state: S, at: Readonly<Record<string, string>>, stuck: boolean): string | undefined;
}

export interface Explored {
  /** How many states there are. */
  states: number;
  /** What is wrong in one of them, and a shortest way there: the steps in order, with their threads. */
  wrong?: string;
  way: string[];
}

/** A state is a flat object of numbers from 0 to 65535. */
type Flat<S> = { [K in keyof S]: number };

/**
 * Goes through all states, the nearest to the beginning first, up to the first that is wrong.
 * @throws Error for a step that names one that there isn't
 */
export function explore<S extends Flat<S>>(model: Model<S>): Explored {
  const names = Object.keys(model.threads);
  const programs = Object.values(model.threads);
  const begin = programs.map((program) => Object.keys(program)[0] ?? END);
  const numbers = programs.map(
    (program) => new Map([...Object.keys(program), END].map((name, i) => [name, i])),
  );
  const keyOf = (state: S, at: readonly string[]): string =>
    String.fromCharCode(
      ...(Object.values(state) as number[]),
      ...at.map((name, t) => {
        const number = numbers[t]!.get(name);
        if (number === undefined) throw new Error(`${names[t]}: no step "${name}"`);
        return number;
      }),
    );
  const reached = [{ state: model.state, at: begin, key: keyOf(model.state, begin), from: -1, by: "" }];
  const seen = new Set([reached[0]!.key]);
  for (let i = 0; i < reached.length; i++) {
    const { state, at, key } = reached[i]!;
    let stuck = true;
    programs.forEach((program, t) => {
      const name = at[t]!;
      if (name === END) return;
      const next = { ...state };
      let then = program[name]!(next);
      while (then.startsWith("(")) then = program[then]!(next);
      const allThen = at.with(t, then);
      const keyThen = keyOf(next, allThen);
      if (keyThen !== key) stuck = false;
      if (seen.has(keyThen)) return;
      seen.add(keyThen);
      reached.push({ state: next, at: allThen, key: keyThen, from: i, by: `${names[t]}: ${name}` });
    });
    const wrong = model.wrong(state, Object.fromEntries(names.map((name, t) => [name, at[t]!])), stuck);
    if (wrong === undefined) continue;
    const way: string[] = [];
    for (let k = i; k > 0; k = reached[k]!.from) way.unshift(reached[k]!.by);
    return { states: reached.length, wrong, way };
  }
  return { states: reached.length, way: [] };
}

/**
 * Holds a model to the code: the first of `steps`, which are pieces of text with " … " between them, that doesn't stand
 * behind those before it in the function of `file` that begins with `begin`; or nothing.
 */
export function missingStep(file: string, begin: string, steps: string): string | undefined {
  const text = readFileSync(new URL(`../../${file}`, import.meta.url), "utf8");
  const at = text.indexOf(begin);
  if (at < 0) return begin;
  let body = text.slice(at + begin.length, text.indexOf("\n  }\n", at));
  return steps.split(" … ").find((step) => {
    const found = body.indexOf(step);
    body = body.slice(found + step.length);
    return found < 0;
  });
}
