/** Programs in Node, Deno and Bun: a process of their own. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Outcome } from "./inside.ts";
import { packageFolder } from "./modules.ts";

/**
 * @param command the runtime, with the arguments that stand before the file
 * @throws Error where it doesn't end in time, or prints no outcome
 */
export function runInProcess(
  [command = "", ...args]: string[],
  module: string,
  input: unknown,
  timeout: number,
  signal?: AbortSignal,
): Promise<Outcome> {
  const main = join(packageFolder(), "dist/src/runtimes/process-main.js");
  const all = [...args, main, pathToFileURL(module).href];
  const options = { timeout, signal, killSignal: "SIGKILL", maxBuffer: 2 ** 28 } as const;
  return new Promise((done, fail) => {
    const child = execFile(command, all, options, (error, stdout, stderr) => {
      const line = stdout.trimEnd().split("\n").at(-1) ?? "";
      if (!error && line.startsWith("{")) done(JSON.parse(line));
      else
        fail(
          new Error(`${command}: ${error?.killed ? `no answer in ${timeout / 1000} s` : error}\n${stderr}`),
        );
    });
    child.stdin?.on("error", () => {}); // it ended before it read all, which is told above
    child.stdin?.end(JSON.stringify(input));
  });
}
