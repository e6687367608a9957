/**
 * Main module of a Node, Deno or Bun that runs the program MODULE: its input comes on standard input, the outcome is the
 * last line that it prints.
 */
import { outcomeOf } from "./inside.ts";

const [, , module = ""] = process.argv;
let input = "";
for await (const some of process.stdin.setEncoding("utf8")) input += some;
console.log(JSON.stringify(await outcomeOf(() => import(module), JSON.parse(input))));
