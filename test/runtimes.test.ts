/**
 * The package as it is published, in each runtime that is there; CI has all of them. Missing ones are skipped, and their
 * test's name says how to get them.
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { readCapture } from "../src/ports/capture-file.ts";
import { type CallOptions, type Found, findRuntimes } from "../src/runtimes/index.ts";

const CI = process.env.CI === "true";
const SAMPLE = "captures/sample.pcapng";
const capture = readFileSync(SAMPLE).toString("base64");
const frames = [...readCapture(SAMPLE)].length;
const program = (name: string) => fileURLToPath(new URL(`programs/${name}.mjs`, import.meta.url));
const found = await findRuntimes();

/** A test for each runtime of `these`. */
function inEach(these: readonly Found[], what: string, body: (one: Found) => Promise<void>) {
  for (const one of these) {
    const runs = one.available || CI;
    const missing = one.available ? "" : `: missing, get it by: ${one.install}`;
    test.skipIf(!runs)(`${one.name} ${one.version} ${what}${missing}`, () => body(one), 120_000);
  }
}

/** What test/programs/everything.mjs gives, checked in all that is the same everywhere. */
async function everything(one: Found, how: CallOptions = {}) {
  const { value, error, warnings } = await one.call(program("everything"), { capture }, how);
  expect(error).toBeUndefined();
  const got = value as Record<string, unknown>;
  const clean = { lost: 0, duplicated: 0, reordered: 0, corrupt: 0, drops: {} };
  const name = one.name;
  expect(got.generated).toMatchObject({
    runtime: { name, memory: "unshared" },
    runs: [
      { attach: "vhost", packets: 5000, copiesPerPacket: 2, bytesCopiedPerPacket: 120, ...clean },
      { attach: "iovtee", packets: 5000, copiesPerPacket: 1, bytesCopiedPerPacket: 60, ...clean },
    ],
  });
  expect(got.captured).toMatchObject({
    runs: [
      { attach: "vhost", frame: "capture", packets: frames, ...clean },
      { attach: "iovtee", frame: "capture", packets: frames, ...clean },
    ],
  });
  return { ...got, warnings };
}

const FILES = ["node", "deno", "bun"];
const BROWSERS = ["chromium", "firefox"];
const without = {
  browser:
    /^iovtee: no shared memory, so all runs on one thread: the page isn't cross-origin isolated: .*Cross-Origin-Opener-Policy/,
  workerd: /^iovtee: no shared memory, so all runs on one thread: a Worker has one thread/,
};

test("all runtimes are looked for", () => {
  const names = found.map(({ name, version }) => (name === "node" ? `node ${version.split(".")[0]}` : name));
  expect(new Set(names)).toEqual(
    new Set([
      ...[`node ${process.versions.node.split(".")[0]}`, "node 22", "node 24", "node 26"],
      ...["deno", "bun", "chromium", "firefox", "workerd"],
    ]),
  );
});

describe("the main job on one thread, checked", () => {
  inEach(
    found.filter(({ name }) => FILES.includes(name)),
    "with files and shared memory",
    async (one) => {
      const got = await everything(one);
      expect(got).toMatchObject({ shared: [true, true], warnings: [], channel: "gives true" });
      expect(got).toMatchObject({ file: expect.stringMatching(/^no-such\.pcap: no such file/) });
    },
  );
  inEach(
    found.filter(({ name }) => BROWSERS.includes(name)),
    "on a page with the headers for shared memory",
    async (one) => {
      const got = await everything(one);
      expect(got).toMatchObject({ shared: [true, true], warnings: [], channel: "gives true" });
      expect(got).toMatchObject({ file: expect.stringContaining(`a file, which ${one.name} has none of`) });
    },
  );
  inEach(
    found.filter(({ name }) => BROWSERS.includes(name)),
    "on a page without: says so once, and works",
    async (one) => {
      const got = await everything(one, { isolated: false });
      expect(got.warnings).toEqual([expect.stringMatching(without.browser)]);
      expect(got).toMatchObject({
        shared: [false, false],
        channel: expect.stringMatching(/^channel: no shared memory here: the page isn't cross-origin/),
      });
    },
  );
  inEach(
    found.filter(({ name }) => name === "workerd"),
    "without files and threads: says so once, and works",
    async (one) => {
      const got = await everything(one);
      expect(got.warnings).toEqual([expect.stringMatching(without.workerd)]);
      expect(got).toMatchObject({
        shared: [false, false],
        file: expect.stringContaining("a file, which workerd has none of"),
      });
    },
  );
});

describe("the main job on two threads", () => {
  inEach(
    found.filter(({ name }) => name !== "workerd"),
    "loses nothing",
    async (one) => {
      const { value, error } = await one.call(program("threads"), null);
      expect(error).toBeUndefined();
      const run = { packets: 2000, lost: 0, duplicated: 0, reordered: 0, corrupt: 0 };
      expect(value).toMatchObject({ runtime: { memory: "shared" }, runs: [run, run] });
    },
  );
});

describe("lookups of the user's own", () => {
  const wasm = (name: string) => readFileSync(`dist/lookup/${name}.wasm`).toString("base64");
  const here = {
    ...{ inJavaScript: [0, 0, 1], inWebAssembly: [0, 1, 0], thrown: "no such table", learning: [0, 0, 1] },
    ...{ drops: { lookupFailed: 1 }, out: 0 },
  };
  inEach(
    found.filter(({ name }) => name !== "workerd"),
    "in JavaScript and WebAssembly, and on a worker that runs already",
    async (one) => {
      const modules = { single: wasm("by-mac"), shared: wasm("by-mac.shared") };
      const { value, error } = await one.call(program("lookups"), modules);
      expect(error).toBeUndefined();
      expect(value).toEqual({ ...here, running: { back: [1, 1, 1, 1], learned: true } });
    },
  );
  inEach(
    found.filter(({ name }) => name === "workerd"),
    "in JavaScript, and in WebAssembly as a module that it imports",
    async (one) => {
      const { value, error } = await one.call(program("lookups-workerd"), null);
      expect(error).toBeUndefined();
      expect(value).toEqual(here);
    },
  );
});

describe("a thread that is killed", () => {
  inEach(
    found.filter(({ name }) => name !== "workerd"),
    "touches nothing any more when that is told, and its guests start again",
    async (one) => {
      const { value, error } = await one.call(program("killed"), null);
      expect(error).toBeUndefined();
      const { at, after, ...rest } = value as { at: number; after: number };
      expect(after).toBe(at);
      expect(rest).toMatchObject({
        message: "lcore1 (switch0, guest0, guest1): killed",
        recovered: { guests: ["guest0", "guest1"] },
      });
    },
  );
});

describe("a program", () => {
  inEach(found, "that throws is an outcome with its message", async (one) => {
    const { value, error } = await one.call(program("throws"), "what it was given");
    expect(value).toBeUndefined();
    expect(error).toContain("what it was given");
  });
});
