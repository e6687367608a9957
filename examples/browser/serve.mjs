// Serves this example: npm run example:browser -- [--port N] [--no-isolation]
// The page and its worker are bundled when it starts; README.md tells how the files lie, and why.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { build } from "esbuild";

const USAGE = "usage: npm run example:browser -- [--port N] [--no-isolation]";
const { port, isolated } = options();
process.chdir(fileURLToPath(new URL("../..", import.meta.url)));

/** With them, and on HTTPS or localhost, a page may share memory between threads. */
const ISOLATION = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};
/** @type {Record<string, string>} */
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".wasm": "application/wasm",
};

const files = await bundled();
files.set("/", readFileSync("examples/browser/index.html"));
files.set("/style.css", readFileSync("examples/browser/style.css"));
// Looked for beside the bundle that loads them.
for (const name of ["iovtee.wasm", "iovtee.shared.wasm"]) {
  files.set(`/app/${name}`, readFileSync(`dist/src/platform/${name}`));
}

const server = createServer(({ method, url = "/" }, response) => {
  const { pathname } = new URL(url, "http://localhost");
  const body = files.get(pathname);
  if (body === undefined || method !== "GET") {
    response.writeHead(body === undefined ? 404 : 405).end();
    return;
  }
  response.writeHead(200, {
    "Content-Type": TYPES[pathname === "/" ? ".html" : extname(pathname)],
    "Cache-Control": "no-store",
    ...(isolated ? ISOLATION : {}),
  });
  response.end(body);
});
server.on("error", (error) => {
  const taken = "code" in error && error.code === "EADDRINUSE";
  console.error(taken ? `port ${port} is taken: choose another with --port` : error.message);
  process.exitCode = 1;
});
server.listen(port, "127.0.0.1", () => {
  const address = /** @type {import("node:net").AddressInfo} */ (server.address());
  console.log(`http://127.0.0.1:${address.port}/${isolated ? "" : "  (without isolation: no lcores)"}`);
});

/** The page and its worker in /app/, the lcores' program in /lcore/, by path. */
async function bundled() {
  const { outputFiles } = await build({
    entryPoints: {
      "app/page": "examples/browser/page.ts",
      "app/datapath": "examples/browser/datapath.ts",
      "lcore/worker": "dist/src/lcore/worker.js",
    },
    outdir: "/",
    bundle: true,
    format: "esm",
    platform: "browser", // and the condition "browser" with it
    target: "es2022",
    charset: "utf8",
    logLevel: "warning",
    write: false,
  });
  return new Map(
    outputFiles.map(({ path, contents }) => [path.replace(/^.*(?=\/(?:app|lcore)\/)/, ""), contents]),
  );
}

function options() {
  try {
    const { values } = parseArgs({
      options: {
        port: { type: "string", default: "8080" },
        "no-isolation": { type: "boolean", default: false },
      },
    });
    const port = Number(values.port);
    if (!/^\d+$/.test(values.port) || port > 65535) {
      throw new RangeError(`--port: ${values.port}, expected 0 to 65535, 0 for any that is free`);
    }
    return { port, isolated: !values["no-isolation"] };
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : error}\n${USAGE}`);
    process.exit(2);
  }
}
