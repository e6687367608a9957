// Runs a TypeScript program of this repository against the built library: node scripts/run.mjs FILE [ARGS]
import { resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { bundle } from "./bundle.mjs";

const entry = process.argv[2];
if (entry === undefined) {
  console.error("usage: node scripts/run.mjs FILE.ts [ARGS]");
  process.exit(2);
}
const outfile = `build/run/${entry.replace(/\.ts$/, ".mjs")}`;
process.chdir(fileURLToPath(new URL("..", import.meta.url)));
await bundle({ entry, outfile, packages: "external" });
process.argv.splice(1, 2, resolve(outfile));
await import(pathToFileURL(resolve(outfile)).href);
