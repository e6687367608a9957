/** Programs in a browser without a window: a page from a server of our own, which posts the outcome back. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import type { Outcome } from "./inside.ts";
import { launch, within } from "./launch.ts";
import { Modules } from "./modules.ts";

export type Browser = "chromium" | "firefox";

const TYPES: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".wasm": "application/wasm",
};
/** With them a page may share memory between threads (HTML, cross-origin isolation). */
const ISOLATION = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};
const CHROMIUM = [
  ...["--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"],
  ...["--disable-background-networking", "--disable-component-update"],
];
const FIREFOX = [
  'user_pref("browser.aboutwelcome.enabled", false);',
  'user_pref("browser.shell.checkDefaultBrowser", false);',
  'user_pref("datareporting.policy.dataSubmissionEnabled", false);',
  'user_pref("network.captive-portal-service.enabled", false);',
  'user_pref("network.connectivity-service.enabled", false);',
].join("\n");

/**
 * @param isolated whether the page comes with the headers for shared memory
 * @throws Error where the browser doesn't start, or the page doesn't answer in time
 */
export async function runInBrowser(
  browser: Browser,
  command: string,
  module: string,
  input: unknown,
  isolated: boolean,
  timeout: number,
  signal?: AbortSignal,
): Promise<Outcome> {
  const site = await serve(new Modules(module, ["browser"]), input, isolated);
  const profile = mkdtempSync(join(tmpdir(), "iovtee-browser-"));
  if (browser === "firefox") writeFileSync(join(profile, "user.js"), FIREFOX);
  const args =
    browser === "firefox"
      ? ["--headless", "--no-remote", "--profile", profile]
      : [...CHROMIUM, ...(process.getuid?.() === 0 ? ["--no-sandbox"] : []), `--user-data-dir=${profile}`];
  const running = launch(command, [...args, site.url]);
  try {
    return await within(timeout, command, Promise.race([site.outcome, running.ended]), signal);
  } finally {
    await running.stop();
    site.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  }
}

interface Site {
  url: string;
  /** What the page posts. */
  outcome: Promise<Outcome>;
  close(): void;
}

async function serve(modules: Modules, input: unknown, isolated: boolean): Promise<Site> {
  const page = `<!doctype html><script type="module">
import { outcomeOf } from "/package/dist/src/runtimes/inside.js";
const outcome = await outcomeOf(() => import("${modules.program}"), ${JSON.stringify(input)});
await fetch("/outcome", { method: "POST", body: JSON.stringify(outcome) });
</script>`;
  let server: Server | undefined;
  const outcome = new Promise<Outcome>((done, fail) => {
    server = createServer(async (request, response) => {
      const { pathname } = new URL(request.url ?? "", "http://localhost");
      if (request.method === "POST") {
        response.end();
        bodyOf(request).then((body) => done(JSON.parse(body)), fail);
        return;
      }
      const body = pathname === "/" ? page : modules.read(pathname);
      const type = TYPES[pathname === "/" ? ".html" : extname(pathname)] ?? "application/octet-stream";
      response.writeHead(body === undefined ? 404 : 200, {
        "Content-Type": type,
        ...(isolated ? ISOLATION : {}),
      });
      response.end(body);
    });
  });
  const listening = server as unknown as Server;
  await new Promise<void>((done) => listening.listen(0, "127.0.0.1", done));
  const { port } = listening.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/`,
    outcome,
    close() {
      listening.close();
      listening.closeAllConnections();
    },
  };
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  let body = "";
  for await (const some of request.setEncoding("utf8")) body += some;
  return body;
}
