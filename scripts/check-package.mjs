// The packed package works in an empty folder: the command, the import, its types, bundles of it for a browser and for
// workerd, and nothing else comes along.
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "iovtee-package-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));

const { dependencies, optionalDependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
if (Object.keys({ ...dependencies, ...optionalDependencies }).length > 0)
  fail("package.json names dependencies");

run(root, "node", "scripts/setup.mjs");
const [packed] = JSON.parse(
  run(root, "npm", "pack", "--ignore-scripts", "--json", "--pack-destination", folder),
);
writeFileSync(join(folder, "package.json"), '{ "private": true, "type": "module" }\n');
run(folder, "npm", "install", "--no-audit", "--no-fund", "--prefer-offline", join(folder, packed.filename));

const installedIn = join(folder, "node_modules/iovtee");
const installed = readdirSync(join(folder, "node_modules")).filter((name) => !name.startsWith("."));
if (installed.join() !== "iovtee") fail(`installing brought ${installed.join(", ")}`);
if (!/iovtee/i.test(run(folder, "npx", "--no-install", "iovtee", "--help")))
  fail("iovtee --help says nothing");

writeFileSync(
  join(folder, "use.mjs"),
  'import { Host } from "iovtee";\nimport { channel } from "iovtee/channel";\nconsole.log(typeof Host, typeof channel);\n',
);
if (run(folder, "node", "use.mjs").trim() !== "function function")
  fail('import { Host } from "iovtee", or { channel } from "iovtee/channel", gives nothing');

writeFileSync(
  join(folder, "use.mts"),
  'import { Host } from "iovtee";\nimport { type Channel, channel } from "iovtee/channel";\n' +
    "export const host: typeof Host = Host;\nexport const there: Channel = channel();\n",
);
// Without --skipLibCheck and @types/node: the package's own types need nothing but the DOM's.
const tsc = join(root, "node_modules/typescript/bin/tsc");
const options = "--noEmit --strict --target es2022 --lib es2023,es2024.sharedmemory,dom".split(" ");
run(folder, "node", tsc, ...options, "--module", "nodenext", "use.mts");
run(folder, "node", tsc, ...options, "--module", "esnext", "--moduleResolution", "bundler", "use.mts");

// What package.json names is there; "types" comes before what would match as well, "default" last.
const { exports, imports, bin } = JSON.parse(readFileSync(join(installedIn, "package.json"), "utf8"));
for (const [name, to] of Object.entries({ ...exports, ...imports, ...bin })) {
  const conditions = typeof to === "string" ? {} : to;
  for (const path of typeof to === "string" ? [to] : Object.values(to))
    if (!existsSync(join(installedIn, path))) fail(`${name}: no ${path} in the package`);
  const order = Object.keys(conditions);
  if (order.includes("types") && order[0] !== "types") fail(`${name}: "types" isn't the first condition`);
  if (order.length > 0 && order.at(-1) !== "default") fail(`${name}: "default" isn't the last condition`);
}

await bundles("browser", ["browser.js"]);
await bundles("workerd", ["workerd.js", "iovtee.wasm"]);

console.log(
  `${packed.filename}: ${packed.files.length} files, ${packed.size} bytes packed, no dependencies; works`,
);

/**
 * A bundle for a platform without Node's modules, of what use.mjs uses: has exactly `expected` of the platforms' files.
 * @param {string} condition
 * @param {string[]} expected
 */
async function bundles(condition, expected) {
  const { metafile, errors } = await build({
    absWorkingDir: folder,
    entryPoints: ["use.mjs"],
    outdir: `bundle-${condition}`,
    bundle: true,
    format: "esm",
    conditions: [condition],
    loader: { ".wasm": "copy" },
    metafile: true,
    logLevel: "silent",
  }).catch((error) => error);
  if (errors.length > 0)
    fail(
      `a bundle for ${condition}: ${errors.map((/** @type {{ text: string }} */ one) => one.text).join("\n")}`,
    );
  const platform = /^node_modules\/iovtee\/dist\/src\/platform\/(?!platform\.js)/;
  const found = Object.keys(metafile.inputs).filter((path) => platform.test(path));
  const names = found.map((path) => path.replace(platform, "")).sort();
  if (names.join() !== [...expected].sort().join()) fail(`a bundle for ${condition} has ${names.join(", ")}`);
}

/**
 * What a command prints; ends this process when it fails.
 * @param {string} cwd
 * @param {string} command
 * @param {...string} args
 * @returns {string}
 */
function run(cwd, command, ...args) {
  // npm tells the scripts that it runs about their package: here another one is meant.
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^npm_(config_local|package)/.test(name)),
  );
  try {
    return execFileSync(command, args, { cwd, env, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  } catch (error) {
    const { stdout, stderr } = /** @type {{ stdout?: string, stderr?: string }} */ (error);
    fail(`${[command, ...args].join(" ")}\n${stdout ?? ""}${stderr ?? error}`);
  }
}

/**
 * @param {string} what
 * @returns {never}
 */
function fail(what) {
  console.error(what);
  process.exit(1);
}
