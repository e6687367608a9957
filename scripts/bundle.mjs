// Bundles one TypeScript program (the command, a benchmark) into one file beside the built library, and what it
// imports only when it is needed into files beside that.
// The library itself stays outside, as dist/src/*.js, so that there is one copy of it.
import { basename, dirname, extname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("..", import.meta.url));

/**
 * @param {{ entry: string, outfile: string, packages: "bundle" | "external", shebang?: boolean }} what
 *   paths relative to the package's folder; `packages`: whether npm packages go into the file
 * @returns {Promise<string[]>} names of the npm packages that went in
 */
export async function bundle({ entry, outfile, packages, shebang }) {
  const out = resolve(root, outfile);
  const result = await build({
    absWorkingDir: root,
    entryPoints: [{ in: entry, out: basename(out, extname(out)) }],
    outdir: dirname(out),
    outExtension: { ".js": extname(out) },
    chunkNames: `${basename(out, extname(out))}-[name]-[hash]`,
    splitting: true,
    bundle: true,
    packages,
    platform: "node",
    target: "node20",
    format: "esm",
    charset: "utf8",
    metafile: true,
    logLevel: "warning",
    loader: { ".pcap": "binary", ".pcapng": "binary" },
    banner: {
      js: [
        ...(shebang ? ["#!/usr/bin/env node"] : []),
        // CommonJS packages inside call require() for Node's own modules.
        'import { createRequire as requireFrom } from "node:module";',
        "const require = requireFrom(import.meta.url);",
      ].join("\n"),
    },
    plugins: [{ name: "built library", setup: (b) => b.onResolve({ filter: /^\.\.?\// }, toDist) }],
  });
  const inputs = Object.keys(result.metafile?.inputs ?? {});
  const names = inputs.map((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1]);
  return [...new Set(names.filter((name) => name !== undefined))].sort();

  /** @param {import("esbuild").OnResolveArgs} args */
  function toDist(args) {
    if (args.kind === "entry-point") return undefined;
    const path = relative(root, resolve(args.resolveDir, args.path)).replaceAll("\\", "/");
    const inLibrary = /^src\/(?!cli\/|report\/)/.test(path) || path === "assembly/layout.ts";
    if (!inLibrary) return undefined;
    const built = relative(dirname(out), join(root, "dist", path.replace(/\.ts$/, ".js")));
    return { path: `./${built.replaceAll("\\", "/")}`, external: true };
  }
}
