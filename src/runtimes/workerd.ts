/** Programs in workerd: a Worker that runs one for each request. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Readable } from "node:stream";
import type { Outcome } from "./inside.ts";
import { launch, type Running, within } from "./launch.ts";
import { Modules } from "./modules.ts";

const COMPATIBILITY_DATE = "2025-07-01";
const START_TIMEOUT = 30_000;

/**
 * @throws Error where workerd doesn't start, or the Worker doesn't answer in time
 */
export async function runInWorkerd(
  command: string,
  module: string,
  input: unknown,
  timeout: number,
  signal?: AbortSignal,
): Promise<Outcome> {
  const modules = new Modules(module, ["workerd"]);
  const inside = "/package/dist/src/runtimes/inside.js";
  const main = `import { outcomeOf } from "${inside}";
export default {
  async fetch(request) {
    return Response.json(await outcomeOf(() => import("${modules.program}"), await request.json()));
  }
};
`;
  const files = modules.graph(inside, modules.graph(modules.program));
  const worker = await serveWorker(command, new Map([["/main.js", main], ...files]));
  try {
    const answer = fetch(worker.url, { method: "POST", body: JSON.stringify(input) });
    const response = await within(timeout, command, Promise.race([answer, worker.running.ended]), signal);
    if (!response.ok) throw new Error(`workerd: ${response.status}\n${worker.running.errors()}`);
    return (await response.json()) as Outcome;
  } finally {
    await worker.stop();
  }
}

export interface ServedWorker {
  url: string;
  running: Running;
  stop(): Promise<void>;
}

/**
 * A workerd that serves a Worker.
 * @param files its modules by absolute path, the main module first; those that end in .wasm are WebAssembly
 * @throws Error with what workerd printed where it doesn't start
 */
export async function serveWorker(
  command: string,
  files: ReadonlyMap<string, string | Uint8Array>,
): Promise<ServedWorker> {
  const folder = mkdtempSync(join(tmpdir(), "iovtee-workerd-"));
  const names = [...files.keys()].map((path) => path.slice(1));
  for (const [path, content] of files) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), content);
  }
  const list = names.map((name) => {
    const kind = name.endsWith(".wasm") ? "wasm" : "esModule";
    return `    (name = ${JSON.stringify(name)}, ${kind} = embed ${JSON.stringify(name)}),`;
  });
  writeFileSync(
    join(folder, "config.capnp"),
    `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .worker)],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);
const worker :Workerd.Worker = (
  compatibilityDate = "${COMPATIBILITY_DATE}",
  modules = [
${list.join("\n")}
  ],
);
`,
  );
  const running = launch(command, ["serve", "--control-fd=3", "config.capnp"], {
    cwd: folder,
    stdio: ["ignore", "ignore", "pipe", "pipe"],
  });
  const stop = async () => {
    await running.stop();
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const port = portFrom(running.child.stdio[3] as Readable);
    const started = within(START_TIMEOUT, command, Promise.race([port, running.ended]));
    return { url: `http://127.0.0.1:${await started}/`, running, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** The port that workerd tells, in a line of JSON for each event. */
async function portFrom(control: Readable): Promise<number> {
  let text = "";
  for await (const some of control.setEncoding("utf8")) {
    text += some;
    for (const line of text.split("\n").slice(0, -1)) {
      const { event, port } = JSON.parse(line);
      if (event === "listen") return port;
    }
  }
  return new Promise(() => {}); // it has ended, which `ended` tells
}
