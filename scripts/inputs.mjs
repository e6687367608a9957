// What dist/ is built from, as one hash: setup compares it with the stamp that the last build left.
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";

/** Where the last build left its hash. */
export const STAMP = "build/stamp";

/** Written into src/ by the build itself. */
export const GENERATED = [
  "src/platform/iovtee.wasm",
  "src/platform/iovtee.shared.wasm",
  "src/core/exports.ts",
];

const INPUTS = [
  "assembly",
  "src",
  "captures",
  "examples/lookup",
  "scripts/build.mjs",
  "scripts/bundle.mjs",
  "asconfig.json",
  "package.json",
  "package-lock.json",
  "tsconfig.json",
  "tsconfig.build.json",
];

/** Hash over names and contents of all inputs; run in the package's folder. */
export function inputsHash() {
  const hash = createHash("sha256");
  for (const file of INPUTS.flatMap(filesIn)) {
    if (GENERATED.includes(file)) continue;
    hash.update(`${file}\0`).update(readFileSync(file)).update("\0");
  }
  return hash.digest("hex");
}

/**
 * Files below a path, sorted, with `/` between names.
 * @param {string} path
 * @returns {string[]}
 */
export function filesIn(path) {
  if (!existsSync(path)) return [];
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path)
    .sort()
    .flatMap((name) => filesIn(join(path, name).replaceAll("\\", "/")));
}
