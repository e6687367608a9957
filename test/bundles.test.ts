/**
 * The packed package in bundles for browsers, run in Chromium: it is unpacked into an empty folder's node_modules, and
 * each bundler has its usual settings.
 */
import { execFileSync } from "node:child_process";
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { build } from "esbuild";
import { afterAll, beforeAll, expect, test } from "vitest";
import { findRuntimes } from "../src/runtimes/index.ts";

const require = createRequire(new URL("../bench/runtimes/package.json", import.meta.url));
const chromium = (await findRuntimes()).find(({ name }) => name === "chromium");
const runs = process.env.CI === "true" || (chromium?.available && isThere("vite") && isThere("webpack"));
const missing = runs ? "" : ": missing, npm ci --prefix bench/runtimes and apt-get install chromium";

let folder = "";
afterAll(() => {
  if (folder) rmSync(folder, { recursive: true, force: true });
});

function isThere(name: string): boolean {
  try {
    return Boolean(require.resolve(name));
  } catch {
    return false;
  }
}

/** A package of bench/runtimes. */
// biome-ignore lint/suspicious/noExplicitAny: they are there in some places only, and so are their types
async function load(name: string): Promise<any> {
  return import(pathToFileURL(require.resolve(name)).href);
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "iovtee-bundles-"));
  const args = ["pack", "--ignore-scripts", "--json", "--pack-destination", folder];
  const [{ filename }] = JSON.parse(execFileSync("npm", args, { encoding: "utf8" }));
  writeFileSync(join(folder, "package.json"), '{ "private": true, "type": "module" }\n');
  mkdirSync(join(folder, "node_modules"));
  execFileSync("tar", ["-xzf", join(folder, filename), "-C", join(folder, "node_modules")]);
  renameSync(join(folder, "node_modules/package"), join(folder, "node_modules/iovtee"));
  for (const name of readdirSync("test/programs"))
    copyFileSync(join("test/programs", name), join(folder, name));
});

/** Runs both programs from a bundle's folder, in which they have their names. */
async function expectToWork(out: string, programs: readonly string[]) {
  const capture = readFileSync("captures/sample.pcapng").toString("base64");
  for (const program of programs) {
    const outcome = await chromium?.call(join(folder, out, program), { capture });
    expect(outcome?.error).toBeUndefined();
    const clean = { lost: 0, duplicated: 0, reordered: 0, corrupt: 0 };
    const report = (count: number) => ({ runs: [1, 2].map(() => ({ packets: count, ...clean })) });
    if (program === "threads.mjs") expect(outcome?.value).toMatchObject(report(2000));
    else expect(outcome?.value).toMatchObject({ shared: [true, true], generated: report(5000) });
  }
}

const PROGRAMS = ["everything.mjs", "threads.mjs"];

test.skipIf(!runs)(
  `Vite: the core and the worker are found, on one thread and on two${missing}`,
  async () => {
    const { build } = await load("vite");
    await build({
      root: folder,
      base: "./",
      logLevel: "error",
      build: {
        outDir: "vite",
        rollupOptions: {
          input: PROGRAMS.map((name) => join(folder, name)),
          preserveEntrySignatures: "strict",
          output: { entryFileNames: "[name].mjs" },
        },
      },
    });
    await expectToWork("vite", PROGRAMS);
  },
  120_000,
);

test.skipIf(!runs)(
  `webpack: the core and the worker are found, on one thread and on two${missing}`,
  async () => {
    const { default: webpack } = await load("webpack");
    const entry = Object.fromEntries(PROGRAMS.map((name) => [name.replace(".mjs", ""), join(folder, name)]));
    const compiler = webpack({
      context: folder,
      mode: "production",
      target: "web",
      entry,
      experiments: { outputModule: true },
      output: {
        path: join(folder, "webpack"),
        filename: "[name].mjs",
        module: true,
        library: { type: "module" },
      },
    });
    await new Promise<void>((done, fail) => {
      compiler.run((error: Error | null, stats: { hasErrors(): boolean; toString(): string }) => {
        if (error || stats.hasErrors()) fail(error ?? new Error(stats.toString()));
        else compiler.close(() => done());
      });
    });
    await expectToWork("webpack", PROGRAMS);
  },
  120_000,
);

test.skipIf(!runs)(
  `esbuild: the core is found beside the bundle, where the README says to put it${missing}`,
  async () => {
    await build({
      absWorkingDir: folder,
      entryPoints: ["everything.mjs"],
      outdir: "esbuild",
      outExtension: { ".js": ".mjs" },
      bundle: true,
      format: "esm",
    });
    for (const name of ["iovtee.wasm", "iovtee.shared.wasm"]) {
      copyFileSync(
        join(folder, "node_modules/iovtee/dist/src/platform", name),
        join(folder, "esbuild", name),
      );
    }
    await expectToWork("esbuild", ["everything.mjs"]);
  },
  120_000,
);
