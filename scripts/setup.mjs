// Installs and builds what is missing or out of date, and says so; does nothing when all is there.
// `--build` builds in any case.
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { inputsHash, STAMP } from "./inputs.mjs";

if (Number(process.versions.node.split(".")[0]) < 20) {
  console.error(`iovtee needs Node.js 20 or newer; this is ${process.versions.node}.`);
  process.exit(1);
}
process.chdir(fileURLToPath(new URL("..", import.meta.url)));

if (!installed()) {
  console.log("Installing development packages (npm ci) ...");
  npm(["ci", "--no-audit", "--no-fund", "--loglevel=error"]);
}
if (process.argv.includes("--build") || !built()) {
  console.log("Building dist/ ...");
  run(process.execPath, ["scripts/build.mjs"]);
}

/** Each package of the lock file is there in its version; those for other platforms may be missing. */
function installed() {
  if (!existsSync("node_modules/.package-lock.json")) return false;
  const wanted = JSON.parse(readFileSync("package-lock.json", "utf8")).packages;
  const found = JSON.parse(readFileSync("node_modules/.package-lock.json", "utf8")).packages;
  return Object.keys(wanted).every(
    (path) =>
      path === "" ||
      (found[path]
        ? found[path].version === wanted[path].version && existsSync(path)
        : wanted[path].optional === true),
  );
}

function built() {
  return (
    existsSync(STAMP) &&
    existsSync("dist/src/index.js") &&
    existsSync("src/platform/iovtee.wasm") &&
    readFileSync(STAMP, "utf8") === inputsHash()
  );
}

/** @param {string[]} args */
function npm(args) {
  const cli = process.env.npm_execpath;
  if (cli) run(process.execPath, [cli, ...args]);
  else run("npm", args);
}

/**
 * @param {string} command
 * @param {string[]} args
 */
function run(command, args) {
  const done = spawnSync(command, args, {
    stdio: ["ignore", "ignore", "inherit"],
    shell: command === "npm" && process.platform === "win32",
  });
  if (done.error) console.error(`${command}: ${done.error.message}`);
  if (done.status !== 0) process.exit(done.status ?? 1);
}
