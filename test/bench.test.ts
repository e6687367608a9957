/** How `iovtee bench` drives the runtimes; these answer at once. */
import { expect, test } from "vitest";
import { bench, isSound, type Runtime } from "../src/cli/bench.ts";
import { run } from "./bench-report.ts";

/** A runtime that reports one run, at the rate that `mpps` gives for each pass. */
function fake(name: string, mpps: (pass: number) => number, calls: string[] = []): Runtime {
  let pass = 0;
  return {
    name,
    version: "1",
    available: true,
    install: `get ${name}`,
    run: async ({ options }) => {
      calls.push(`${name} ${options.size} ${options.repeat}`);
      const one = { ...run("vhost", 64, 1), mpps: mpps(pass++) };
      return { runtime: { name, version: "1", memory: "shared" }, command: "pvp", runs: [one] };
    },
  };
}
const options = { repeat: 3, size: [64], signal: new AbortController().signal, onProgress: () => {} };

test("the runtimes take turns, to and fro, a few rounds each", async () => {
  const calls: string[] = [];
  const progress: string[] = [];
  await bench([fake("node", () => 1, calls), fake("deno", () => 1, calls)], {
    ...options,
    onProgress: (done, total, what) => progress.push(`${done}/${total} ${what}`),
  });
  expect(calls.map((call) => call.split(" ")[0])).toEqual(["node", "deno", "deno", "node", "node", "deno"]);
  expect(new Set(calls.map((call) => call.slice(5)))).toEqual(new Set(["64 3"]));
  expect(progress.slice(0, 2)).toEqual(["0/6 node 1", "1/6 deno 1"]);
});

test("a rate is compared with Node's in the same pass", async () => {
  // The machine is at half its speed in the second pass.
  const speed = (full: number) => (pass: number) => (pass === 1 ? full / 2 : full);
  const { runtimes } = await bench([fake("node", speed(40)), fake("deno", speed(30))], options);
  expect(runtimes.map(({ report }) => report?.runs[0]?.ratioToNode)).toEqual([null, 0.75]);
  expect(runtimes[1]?.report?.runs[0]).toMatchObject({ mpps: 30 });
});

test("a runtime that fails is left out from there on, and keeps what it measured", async () => {
  const calls: string[] = [];
  const failing = fake(
    "deno",
    (pass) => {
      if (pass === 1) throw new Error("it stopped");
      return 20;
    },
    calls,
  );
  const report = await bench([fake("node", () => 40), failing], options);
  expect(calls).toHaveLength(2);
  expect(report.runtimes[1]).toMatchObject({ error: "it stopped", report: { runs: [{ ratioToNode: 0.5 }] } });
  expect(isSound(report)).toBe(false);
  expect(isSound({ ...report, runtimes: report.runtimes.slice(0, 1) })).toBe(true);
});

test("a runtime that isn't there is reported with how to install it, and not run", async () => {
  const calls: string[] = [];
  const missing = { ...fake("bun", () => 1, calls), version: "", available: false };
  const report = await bench([fake("node", () => 40), missing], options);
  expect(calls).toEqual([]);
  expect(report.runtimes[1]).toEqual({
    name: "bun",
    version: "",
    available: false,
    howToInstall: "get bun",
  });
  expect(report.runtimes[0]).not.toHaveProperty("howToInstall");
  expect(isSound(report)).toBe(true);
});

test("an abort ends it with what was measured; what it breaks off isn't a failure", async () => {
  const abort = new AbortController();
  const slow = fake("deno", () => {
    abort.abort();
    throw new Error("killed");
  });
  const report = await bench([fake("node", () => 40), slow], { ...options, signal: abort.signal });
  expect(report.interrupted).toBe(true);
  expect(report.runtimes.map(({ report, error }) => [report?.runs.length, error])).toEqual([
    [1, undefined],
    [undefined, undefined],
  ]);
});
