/** Browsers: pages and their workers. */
import {
  compileOnce,
  type Files,
  type Runtime,
  type SharedMemory,
  type Thread,
  type ThreadMessage,
  type ThreadStart,
} from "./platform.ts";

export const loadCore = /* @__PURE__ */ compileOnce(async (shared) => {
  // Bundlers know a file that belongs to the program by this form: both names in full, each in a `new URL` of its own.
  const url = shared
    ? new URL("./iovtee.shared.wasm", import.meta.url)
    : new URL("./iovtee.wasm", import.meta.url);
  const response = await fetch(url);
  if (!response.ok)
    throw new Error(`${url}: ${response.status} ${response.statusText}, expected iovtee's core`);
  // Compiling while it comes needs this type (WebAssembly Web API), which not every server gives.
  if (response.headers.get("content-type") === "application/wasm") {
    return WebAssembly.compileStreaming(response);
  }
  return WebAssembly.compile(await response.arrayBuffer());
});

export function runtime(): Runtime {
  const { userAgent = "", hardwareConcurrency } = navigator;
  const [, brand, version = ""] = /(Firefox|Chrome)\/([\d.]+)/.exec(userAgent) ?? [];
  const name = brand === "Firefox" ? "firefox" : brand === "Chrome" ? "chromium" : "browser";
  return { name, version, ...(hardwareConcurrency ? { cores: hardwareConcurrency } : {}) };
}

export function sharedMemory(): SharedMemory {
  if (globalThis.crossOriginIsolated) return { available: true };
  return {
    available: false,
    why:
      "the page isn't cross-origin isolated: serve it over HTTPS or from localhost with the headers " +
      '"Cross-Origin-Opener-Policy: same-origin" and "Cross-Origin-Embedder-Policy: require-corp"',
  };
}

/** A message to itself: timers wait 4 ms from the fifth in a row on. */
export function pause(): Promise<void> {
  return new Promise((resume) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resume();
    };
    port2.postMessage(undefined);
  });
}

export function startThread(
  start: ThreadStart,
  told: (message: ThreadMessage) => void,
  ended: (why?: string) => void,
): Thread {
  // Bundlers know a worker's program by this form.
  const worker = new Worker(new URL("../lcore/worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }: MessageEvent<ThreadMessage>) => told(data);
  worker.onerror = ({ message }) => ended(message || "its worker's program couldn't be loaded");
  worker.postMessage(start);
  return {
    terminate: async () => worker.terminate(),
  };
}

/** A page's worker is sent what it is started with. */
export function started(): Promise<{ start: ThreadStart; tell: (message: ThreadMessage) => void }> {
  return new Promise((resolve) => {
    self.onmessage = ({ data }: MessageEvent<ThreadStart>) =>
      resolve({ start: data, tell: (message) => self.postMessage(message) });
  });
}

export const files: Files | undefined = undefined;
