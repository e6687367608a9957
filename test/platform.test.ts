/** The platforms' modules: that each gives all of `Platform`, and what the host does where no memory can be shared. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Host } from "../src/host.ts";
import * as browser from "../src/platform/browser.ts";
import * as node from "../src/platform/node.ts";
import { compileOnce, type Platform } from "../src/platform/platform.ts";
import * as workerd from "../src/platform/workerd.ts";

/** Each is a `Platform`: tsc checks that, and the first test that they export nothing else. */
const platforms: Platform[] = [node, browser, workerd];

vi.mock("../src/platform/iovtee.wasm", () => ({ default: "compiled by who bundles" }));
vi.mock("#platform", async (original) => ({
  ...(await original<typeof node>()),
  sharedMemory: () => shared,
}));
let shared: ReturnType<Platform["sharedMemory"]> = { available: true };

const warn = vi.spyOn(console, "warn").mockImplementation(() => {});
beforeEach(() => warn.mockClear());
afterEach(() => {
  shared = { available: true };
});

test("the platforms export the same names", () => {
  for (const one of platforms) expect(Object.keys(one).sort()).toEqual(Object.keys(node).sort());
});

test("workerd has one build, compiled before it runs, and says why there is no other", async () => {
  expect(await workerd.loadCore(false)).toBe("compiled by who bundles");
  await expect(workerd.loadCore(true)).rejects.toThrow(/one thread/);
  expect(workerd.sharedMemory()).toMatchObject({ available: false });
});

test("a browser shares memory on pages with the headers only, and names them", () => {
  expect(browser.sharedMemory().why).toMatch(/Cross-Origin-Opener-Policy.*Cross-Origin-Embedder-Policy/);
  vi.stubGlobal("crossOriginIsolated", true);
  expect(browser.sharedMemory()).toEqual({ available: true });
  vi.unstubAllGlobals();
});

test("this is Node, with files and threads", () => {
  expect(node.runtime()).toMatchObject({ name: "node", version: process.versions.node });
  expect(node.runtime().cores).toBeGreaterThan(0);
  expect(node.sharedMemory()).toEqual({ available: true });
  expect(node.files).toBeDefined();
});

test("without shared memory a host works on one thread, and says why once", async () => {
  shared = { available: false, why: "of this test" };
  const hosts = [await Host.create({ shared: true }), await Host.create({ shared: true })];
  for (const { core } of hosts) expect(core.memory.buffer).toBeInstanceOf(ArrayBuffer);
  expect(warn.mock.calls).toEqual([["iovtee: no shared memory, so all runs on one thread: of this test"]]);
});

test("with shared memory a host has it, and says nothing", async () => {
  const { core } = await Host.create({ shared: true });
  expect(core.memory.buffer).toBeInstanceOf(SharedArrayBuffer);
  expect(warn).not.toHaveBeenCalled();
});

test("each build is compiled once, and once more where it failed", async () => {
  const compiled: boolean[] = [];
  const load = compileOnce(async (of) => {
    if (compiled.push(of) === 1) throw new Error("not there yet");
    return node.loadCore(of);
  });
  await expect(load(true)).rejects.toThrow("not there yet");
  const [one, two] = await Promise.all([load(true), load(true)]);
  expect(one).toBe(two);
  expect(await load(false)).not.toBe(one);
  expect(compiled).toEqual([true, true, false]);
});
