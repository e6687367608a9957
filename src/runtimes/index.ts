/**
 * The JavaScript runtimes on this machine, and a way to run a program in each: for the tests and for `iovtee bench`.
 *
 *     for (const found of await findRuntimes())
 *       if (found.available) console.log(found.name, await found.run({ options: { size: [64] } }));
 *       else console.log(`${found.name} is missing: ${found.install}`);
 *
 * They are looked for in the package's own bench/runtimes/node_modules, in node_modules of the current folder, and on
 * the PATH.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import type { PvpOptions, PvpReport } from "../pvp.ts";
import { type Browser, runInBrowser } from "./browser.ts";
import type { Outcome } from "./inside.ts";
import { packageFolder } from "./modules.ts";
import { runInProcess } from "./process.ts";
import { runInWorkerd } from "./workerd.ts";

export type { Outcome, Program } from "./inside.ts";

export type RuntimeName = "node" | "deno" | "bun" | "workerd" | Browser;

/** A runtime that was looked for. */
export interface Found {
  name: RuntimeName;
  /** As it says itself, "22.23.3"; where it is missing what was looked for, "22", or "". */
  version: string;
  /** The program; "" where it is missing. */
  command: string;
  available: boolean;
  /** How to get it, where it is missing. */
  install?: string;
  /**
   * `pvp(options)` in it. In a browser the page may share memory.
   * @throws Error with what the runtime said
   */
  run(program: { options: JsonPvpOptions; timeout?: number; signal?: AbortSignal }): Promise<PvpReport>;
  /**
   * The default export of an ES module, called with `input`; in Node, Deno and Bun in a process of its own. The module
   * imports what the package exports, as "iovtee", and nothing else.
   * @throws Error where the runtime doesn't start or answer; what the program throws is in the outcome
   */
  call(module: string, input: unknown, how?: CallOptions): Promise<Outcome>;
}

/** What of `PvpOptions` can be sent as JSON. A capture is a file for Node, Deno and Bun. */
export type JsonPvpOptions = Omit<PvpOptions, "signal" | "onProgress" | "capture"> & { capture?: string };

export interface CallOptions {
  /** Browsers: whether the page comes with the headers for shared memory; default true. */
  isolated?: boolean;
  /** Milliseconds after which it is ended; default 120,000. */
  timeout?: number;
  /** Ends it too. */
  signal?: AbortSignal;
}

/** Versions of Node that the package is tested in, besides the one that runs this. */
const NODES = ["22", "24", "26"];
/** The programs in bench/runtimes; by the name of the whole package there would be a script in between. */
const DENO = "@deno/linux-x64-glibc/deno";
const BUN = "@oven/bun-linux-x64/bin/bun";
const WORKERD = "@cloudflare/workerd-linux-64/bin/workerd";
const TIMEOUT = 120_000;

/** All that the package is made for, in the order of a report; the missing ones too. */
export function findRuntimes(): Promise<Found[]> {
  const own = process.versions.node.split(".")[0];
  return Promise.all([
    found("node", process.execPath, inProcess(), {}),
    // Node's own packages stand under an alias: node22 is node@22.
    ...NODES.filter((major) => major !== own).map((major) =>
      found("node", inPackages(`node${major}/bin/node`), inProcess(), {
        version: major,
        install: npm(`node${major}@npm:node@${major}`),
      }),
    ),
    found("deno", inPackages(DENO, ".bin/deno") ?? onPath("deno"), inProcess("run", "--allow-all"), {
      install: npm("deno"),
    }),
    found("bun", inPackages(BUN, ".bin/bun") ?? onPath("bun"), inProcess(), { install: npm("bun") }),
    found("chromium", onPath("chromium", "chromium-browser", "google-chrome"), inBrowser("chromium"), {
      install: "apt-get install chromium",
    }),
    found("firefox", onPath("firefox-esr", "firefox"), inBrowser("firefox"), {
      install: "apt-get install firefox-esr",
    }),
    found("workerd", inPackages(WORKERD, ".bin/workerd") ?? onPath("workerd"), inWorkerd, {
      install: npm("workerd"),
    }),
  ]);
}

/** A call as `Found.call`, of the program `command`. */
type Call = (
  command: string,
  module: string,
  input: unknown,
  how: Required<Omit<CallOptions, "signal">> & Pick<CallOptions, "signal">,
) => Promise<Outcome>;

const inProcess =
  (...args: string[]): Call =>
  (command, module, input, { timeout, signal }) =>
    runInProcess([command, ...args], module, input, timeout, signal);
const inBrowser =
  (browser: Browser): Call =>
  (command, module, input, { isolated, timeout, signal }) =>
    runInBrowser(browser, command, module, input, isolated, timeout, signal);
const inWorkerd: Call = (command, module, input, { timeout, signal }) =>
  runInWorkerd(command, module, input, timeout, signal);

/** @param missing what is said of it where it is missing */
async function found(
  name: RuntimeName,
  command: string | undefined,
  called: Call,
  missing: { version?: string; install?: string },
): Promise<Found> {
  const version = command && (await versionOf(command));
  const call: Found["call"] = (module, input, how = {}) => {
    if (!command || !version) throw new Error(`${name} is missing: ${missing.install}`);
    return called(command, module, input, { isolated: true, timeout: TIMEOUT, ...how });
  };
  const run: Found["run"] = async ({ options, timeout = TIMEOUT, signal }) => {
    const program = join(packageFolder(), "dist/src/runtimes/pvp-program.js");
    const { value, error } = await call(program, options, { timeout, ...(signal ? { signal } : {}) });
    if (error !== undefined) throw new Error(`${name} ${version}: ${error}`);
    const report = value as PvpReport;
    if (version) report.runtime.version = version; // pages are told a part of it, Workers nothing
    return report;
  };
  if (!command || !version)
    return { name, command: "", available: false, version: "", ...missing, run, call };
  return { name, command, available: true, version, run, call };
}

/** The first number with dots in what `command --version` says; undefined where it can't be started. */
function versionOf(command: string): Promise<string | undefined> {
  return new Promise((done) => {
    execFile(command, ["--version"], { timeout: 30_000 }, (error, stdout) => {
      done(error ? undefined : /\d+([.-]\w+)+/.exec(stdout)?.[0]);
    });
  });
}

/** The first of `paths` below the package's own bench/runtimes/node_modules, or node_modules of the current folder. */
function inPackages(...paths: string[]): string | undefined {
  const folders = [join(packageFolder(), "bench/runtimes"), process.cwd()];
  return folders
    .flatMap((folder) => paths.map((path) => join(folder, "node_modules", path)))
    .find(existsSync);
}

/** The first of `names` that is on the PATH. */
function onPath(...names: string[]): string | undefined {
  const folders = (process.env.PATH ?? "").split(delimiter);
  return names.flatMap((name) => folders.map((folder) => join(folder, name))).find(existsSync);
}

/** How a package is installed: in this repository all are, in their place. */
function npm(name: string): string {
  const repository = existsSync(join(packageFolder(), "bench/runtimes/package.json"));
  return repository ? "npm ci --prefix bench/runtimes" : `npm install --save-dev ${name}`;
}
