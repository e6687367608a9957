/** Main module of a Node, Deno or Bun that runs a program: MODULE INPUT; the outcome is the last line that it prints. */
import { outcomeOf } from "./inside.ts";

const [, , module = "", input = "null"] = process.argv;
console.log(JSON.stringify(await outcomeOf(() => import(module), JSON.parse(input))));
