// A file imports only from floors below its own, or on the same floor from its own directory and the folders
// in it, and never in a circle. A file that stands on no floor is an error: give it one here.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { filesIn } from "./inputs.mjs";

/**
 * Floors by path: a name ending in "/" is a directory, the longest name that fits counts.
 * @type {Record<string, number>}
 */
const FLOORS = {
  "assembly/index.ts": 5,
  "assembly/lcore.ts": 4,
  "assembly/vhost.ts": 3,
  "assembly/iovtee.ts": 3,
  "assembly/switch.ts": 3,
  "assembly/external.ts": 3,
  "assembly/learning.ts": 2,
  "assembly/mactable.ts": 2,
  "assembly/vdpdk/": 3,
  "assembly/vdpdk/driver.ts": 2,
  "assembly/virtqueue/": 2,
  "assembly/netmap/": 2,
  "assembly/netmap/bridge.ts": 3,
  "assembly/flow/": 3,
  "assembly/nic.ts": 2,
  "assembly/pcifunction.ts": 2,
  "assembly/veb.ts": 2,
  "assembly/wire.ts": 2,
  "assembly/native-driver.ts": 2,
  "assembly/rteflow.ts": 2,
  "assembly/generator.ts": 2,
  "assembly/guest.ts": 2,
  "assembly/functions.ts": 2,
  "assembly/ring.ts": 1,
  "assembly/mempool.ts": 1,
  "assembly/packet.ts": 1,
  "assembly/parse.ts": 1,
  "assembly/offload.ts": 1,
  "assembly/checksum.ts": 1,
  "assembly/hash.ts": 1,
  "assembly/iommu.ts": 1,
  "assembly/rss.ts": 1,
  "assembly/copy.ts": 1,
  "assembly/count.ts": 1,
  "assembly/doorbell.ts": 1,
  "assembly/directory.ts": 1,
  "assembly/env.ts": 0,
  "assembly/sync.ts": 0,
  "assembly/layout.ts": 0,

  "src/cli/": 12,
  "src/report/": 11,
  "src/runtimes/": 11,
  "src/index.ts": 11,
  "src/latency.ts": 10,
  "src/explain.ts": 10,
  "src/scale.ts": 10,
  "src/pvp.ts": 10,
  "src/testbed.ts": 9,
  "src/pvp-lcores.ts": 9,
  "src/host.ts": 8,
  "src/stats.ts": 7,
  "src/lcore/": 6,
  "src/roles/vswitch.ts": 5,
  "src/roles/vmux.ts": 5,
  "src/roles/ethdev.ts": 5,
  "src/roles/connected.ts": 4,
  "src/roles/guest.ts": 5,
  "src/roles/bridge.ts": 5,
  "src/attach/": 4,
  "src/attach/names.ts": 1,
  "src/roles/nic.ts": 3,
  "src/roles/pci-function.ts": 3,
  "src/ports/": 3,
  "src/roles/rte-flow.ts": 3,
  "src/rte-flow/": 2,
  "src/flows/": 3,
  "src/core/": 2,
  "src/channel.ts": 2,
  "src/ip.ts": 1,
  "src/mac.ts": 1,
  "src/median.ts": 1,
  "src/offloads.ts": 1,
  "src/options.ts": 1,
  "src/platform/": 1,
  "src/rules.ts": 1,
};

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
const files = ["assembly", "src"].flatMap(filesIn).filter((file) => /(?<!\.d)\.ts$/.test(file));
/** @type {Map<string, string[]>} */
const imports = new Map(files.map((file) => [file, importsOf(file)]));
/** @type {string[]} */
const faults = [];

for (const [file, targets] of imports) {
  const floor = floorOf(file);
  if (floor === undefined) faults.push(`${file} stands on no floor`);
  for (const target of targets) {
    const below = floorOf(target);
    if (below === undefined || floor === undefined || below < floor) continue;
    if (below === floor && `${dirname(target)}/`.startsWith(`${dirname(file)}/`)) continue;
    faults.push(`${file} (floor ${floor}) imports ${target} (floor ${below})`);
  }
  if (file.startsWith("src/"))
    for (const target of targets)
      if (target.startsWith("assembly/") && target !== "assembly/layout.ts")
        faults.push(`${file} imports ${target}: of assembly/ only layout.ts is TypeScript too`);
}
for (const file of files) {
  const circle = circleFrom(file, [file]);
  if (circle) {
    faults.push(`circle: ${circle.join(" -> ")}`);
    break;
  }
}

for (const fault of faults) console.error(fault);
if (faults.length > 0) process.exitCode = 1;
else console.log(`${files.length} files import from below only`);

/**
 * Files of this repository that a file imports or re-exports; of a name in package.json's `imports`, all that it can be.
 * @param {string} file
 */
function importsOf(file) {
  const text = readFileSync(file, "utf8").replace(/\/\*[\s\S]*?\*\//g, "");
  const found = text.matchAll(
    /^\s*(?:import|export|\})[^"';]*?\bfrom\s*"([.#][^"]+)"|\bimport\(?\s*"([.#][^"]+)"/gm,
  );
  return [...found].flatMap(([, named, bare]) => {
    const name = /** @type {string} */ (named ?? bare);
    if (name.startsWith("#")) return conditional(name);
    const path = join(dirname(file), name).replaceAll("\\", "/");
    if (path.endsWith(".ts") || /\.\w+$/.test(path)) return path.replace(/\.js$/, ".ts");
    return files.includes(`${path}/index.ts`) ? `${path}/index.ts` : `${path}.ts`;
  });
}

/**
 * @param {string} name
 * @returns {string[]}
 */
function conditional(name) {
  const { imports } = JSON.parse(readFileSync("package.json", "utf8"));
  const targets = /** @type {string[]} */ (Object.values(imports[name] ?? {}));
  return [...new Set(targets)].map((path) => path.replace(/^\.\/dist\/(.*)\.js$/, "$1.ts"));
}

/** @param {string} file */
function floorOf(file) {
  const fits = Object.keys(FLOORS).filter((name) =>
    name.endsWith("/") ? file.startsWith(name) : file === name,
  );
  const longest = fits.sort((a, b) => b.length - a.length)[0];
  return longest === undefined ? undefined : FLOORS[longest];
}

/**
 * @param {string} start
 * @param {string[]} path
 * @returns {string[] | undefined}
 */
function circleFrom(start, path) {
  for (const next of imports.get(/** @type {string} */ (path.at(-1))) ?? []) {
    if (next === start) return [...path, start];
    if (path.includes(next)) continue;
    const found = circleFrom(start, [...path, next]);
    if (found) return found;
  }
  return undefined;
}
