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
): Promise<Outcome> {
  const main = join(packageFolder(), "dist/src/runtimes/process-main.js");
  const all = [...args, main, pathToFileURL(module).href, JSON.stringify(input)];
  return new Promise((done, fail) => {
    execFile(
      command,
      all,
      { timeout, killSignal: "SIGKILL", maxBuffer: 2 ** 28 },
      (error, stdout, stderr) => {
        const line = stdout.trimEnd().split("\n").at(-1) ?? "";
        if (error || !line.startsWith("{")) {
          fail(
            new Error(`${command}: ${error?.killed ? `no answer in ${timeout / 1000} s` : error}\n${stderr}`),
          );
        } else done(JSON.parse(line));
      },
    );
  });
}
