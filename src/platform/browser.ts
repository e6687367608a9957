/** Browsers: pages and their workers. */
import {
  compileOnce,
  type Files,
  Inbox,
  type Runtime,
  type SharedMemory,
  type Started,
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

/** How long a thread that was ended may take to be gone, in milliseconds: Chromium lets a program run for 2 s more. */
const GONE_MS = 5000;

/** What a worker is sent first: what it is started with, and the name of the lock that it holds as long as it lives. */
interface First {
  start: ThreadStart;
  life: string;
}

export function startThread(
  start: ThreadStart,
  told: (message: ThreadMessage) => void,
  ended: (why?: string) => void,
): Thread {
  // Bundlers know a worker's program by this form.
  const worker = new Worker(new URL("../lcore/worker.js", import.meta.url), { type: "module" });
  const life = `iovtee ${crypto.randomUUID()}`;
  worker.onmessage = ({ data }: MessageEvent<ThreadMessage>) => told(data);
  worker.onerror = (event) => {
    event.preventDefault(); // told where it can be dealt with, and no error of the page's
    ended(event.message || "its worker's program couldn't be loaded");
  };
  worker.postMessage({ start, life } satisfies First);
  return {
    post: (lookup) => worker.postMessage(lookup),
    terminate: async () => {
      worker.terminate(); // doesn't wait: only when its lock is free is it gone
      await navigator.locks.request(life, { signal: AbortSignal.timeout(GONE_MS) }, () => {}).catch(() => {});
    },
  };
}

/** A page's worker is sent what it is started with, then lookups. */
export function started(): Promise<Started> {
  const lookups = new Inbox<WebAssembly.Module>();
  return new Promise((resolve) => {
    self.onmessage = ({ data: { start, life } }: MessageEvent<First>) => {
      self.onmessage = ({ data }: MessageEvent<WebAssembly.Module>) => lookups.put(data);
      void navigator.locks.request(life, () => {
        resolve({
          start,
          tell: (message) => self.postMessage(message),
          nextLookup: () => lookups.next(),
        });
        return new Promise(() => {}); // for good
      });
    };
  });
}

export const files: Files | undefined = undefined;
