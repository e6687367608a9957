/**
 * The page of examples/browser, in Chromium and in Firefox. Where a browser or puppeteer-core is missing its tests are
 * skipped, and their name says how to get it; CI has all.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createRequire } from "node:module";
import { fileURLToPath, pathToFileURL } from "node:url";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { findRuntimes } from "../src/runtimes/index.ts";

/** Of puppeteer-core what is used here. */
interface Page {
  goto(url: string): Promise<unknown>;
  click(selector: string): Promise<void>;
  waitForFunction(body: string, options: { timeout: number }): Promise<unknown>;
  evaluate<T>(body: string | (() => T)): Promise<T>;
  evaluateOnNewDocument(body: string): Promise<unknown>;
  setViewport(size: { width: number; height: number }): Promise<void>;
  emulateMediaFeatures(features: { name: string; value: string }[]): Promise<void>;
  keyboard: { press(key: string): Promise<void> };
  on(event: "console", heard: (message: { type(): string; text(): string }) => void): void;
  on(event: "pageerror", heard: (error: Error) => void): void;
  close(): Promise<void>;
}
interface Browser {
  newPage(): Promise<Page>;
  close(): Promise<void>;
}
interface Puppeteer {
  launch(options: object): Promise<Browser>;
}

const CI = process.env.CI === "true";
/** Other tests may have the cores meanwhile. */
const TIMEOUT = 60_000;
const SERVE = fileURLToPath(new URL("../examples/browser/serve.mjs", import.meta.url));
const LAUNCH = {
  chromium: {
    args: ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"].concat(
      process.getuid?.() === 0 ? ["--no-sandbox"] : [],
    ),
  },
  // Dark throughout: in Firefox puppeteer can't choose.
  firefox: {
    browser: "firefox",
    extraPrefsFirefox: { "layout.css.prefers-color-scheme.content-override": 0 },
  },
};

const puppeteer = await findPuppeteer();
const browsers = (await findRuntimes()).filter(({ name }) => name in LAUNCH);

async function findPuppeteer(): Promise<Puppeteer | undefined> {
  try {
    const { resolve } = createRequire(new URL("../bench/runtimes/package.json", import.meta.url));
    return (await import(pathToFileURL(resolve("puppeteer-core")).href)).default;
  } catch {
    return undefined;
  }
}

/** Starts the example's server. @returns where it says that the page is */
function serve(...options: string[]): Promise<{ url: string; server: ChildProcess }> {
  const server = spawn(process.execPath, [SERVE, "--port", "0", ...options], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  return new Promise((done, fail) => {
    server.stdout.once("data", (line) => done({ url: /http:\S+/.exec(String(line))?.[0] ?? "", server }));
    server.once("exit", (status) => fail(new Error(`the example's server ended with status ${status}`)));
  });
}

for (const { name, command, available, install } of browsers) {
  const missing = [available ? "" : install, puppeteer ? "" : "npm ci --prefix bench/runtimes"].filter(
    Boolean,
  );
  const title = missing.length > 0 ? `${name}: missing, get it by: ${missing.join("; ")}` : name;

  describe.skipIf(missing.length > 0 && !CI)(title, () => {
    let browser: Browser;
    let site: Awaited<ReturnType<typeof serve>>;
    let page: Page;
    let errors: string[];

    beforeAll(async () => {
      if (!puppeteer || !available) throw new Error(title);
      site = await serve();
      const options = { executablePath: command, ...LAUNCH[name as keyof typeof LAUNCH] };
      browser = await puppeteer.launch(options);
    }, TIMEOUT);
    afterAll(async () => {
      await browser?.close();
      site?.server.kill();
    });
    beforeEach(async () => {
      page = await browser.newPage();
      errors = [];
      page.on("console", (message) => {
        if (message.type() === "error") errors.push(message.text());
      });
      page.on("pageerror", ({ message }) => errors.push(message));
      await page.setViewport({ width: 1200, height: 900 });
    });
    afterEach(() => page.close());

    /** Fails before the test's time is up, and says what it waited for. */
    const until = (condition: string) =>
      page.waitForFunction(condition, { timeout: TIMEOUT / 2 }).catch(async ({ message }) => {
        throw new Error(`${message}: ${condition}; the page says "${await textOf("#status")}" ${errors}`);
      });
    const textOf = (selector: string) =>
      page.evaluate<string>(`document.querySelector(${JSON.stringify(selector)}).textContent`);
    const choose = (group: string, value: string) => page.click(`[name="${group}"][value="${value}"]`);
    /** Until the row has a rate, and frames that were checked. */
    const measured = (row: string) =>
      until(`!/^(–|)$/.test(document.querySelector("#${row} td:nth-child(4)")?.textContent ?? "")`);
    /** A row's cells, by what stands in the table's head. */
    const row = (id: string) =>
      page.evaluate<Record<string, string>>(`Object.fromEntries(
        [...document.querySelectorAll("thead th")].map((head, i) =>
          [head.textContent, document.getElementById("${id}").children[i].textContent]))`);
    const stop = async () => {
      await page.click("#toggle");
      await until(`document.getElementById("status").textContent.startsWith("Stopped")`);
    };

    test(
      "both attachments run, and show what they copy, and that nothing is lost",
      async () => {
        await page.goto(site.url);
        await page.click("#toggle");
        await measured("row-vhost-64-off");
        await measured("row-iovtee-64-off");
        // What the picture was told of a burst has been played to its end.
        await until(`document.querySelector(".iovtee [data-total=toSend]").textContent !== "0 so far"`);
        expect(await textOf("#status")).toBe("Running: vhost and IOVTee, 64 B, one thread.");
        await stop();
        const whole = { frame: "64 B", lcores: "off", "lost or wrong": "0" };
        expect(await row("row-vhost-64-off")).toMatchObject({
          ...{ ...whole, "host copies/packet": "2.00", "bytes copied/packet": "120", gain: "" },
        });
        const iovtee = await row("row-iovtee-64-off");
        expect(iovtee).toMatchObject({ ...whole, "host copies/packet": "1.00", "bytes copied/packet": "60" });
        expect(iovtee.gain).toMatch(/^[+−]\d+ %$/);
        expect(Number(iovtee["frames checked"]?.replaceAll(",", ""))).toBeGreaterThan(1000);
        const arrows = async (lane: string, arrow: string) =>
          (await textOf(`.${lane} [data-arrow="${arrow}"]`)).trim();
        expect(await arrows("vhost", "toGuest")).toBe("1 copy, 60 B");
        expect(await arrows("vhost", "toCard")).toBe("1 copy, 60 B");
        expect(await arrows("iovtee", "toGuest")).toBe("0 copies, 0 B");
        expect(await arrows("iovtee", "toCard")).toBe("1 copy, 60 B");
        expect(await page.evaluate(`document.getElementById("plot").getAttribute("aria-label")`)).toMatch(
          /^Million packets a second, now: vhost [\d.]+, IOVTee [\d.]+\.$/,
        );
        expect(errors).toEqual([]);
      },
      TIMEOUT,
    );

    test(
      "attachment, frames and lcores are changed while it runs; the guest has a thread of its own then",
      async () => {
        await page.goto(site.url);
        await page.click("#toggle");
        await until(`document.getElementById("status").textContent.startsWith("Running")`);
        await choose("attach", "iovtee");
        await choose("size", "1514");
        await choose("lcores", "on");
        await measured("row-iovtee-1514-on");
        expect(await textOf("#status")).toBe("Running: IOVTee, 1514 B, guest on an lcore of its own.");
        expect(await page.evaluate(() => document.querySelectorAll(".lane").length)).toBe(1);
        await choose("attach", "vhost");
        await measured("row-vhost-1514-on");
        await stop();
        const whole = { frame: "1514 B", lcores: "on", "lost or wrong": "0" };
        expect(await row("row-iovtee-1514-on")).toMatchObject({ ...whole, "bytes copied/packet": "1514" });
        expect(await row("row-vhost-1514-on")).toMatchObject({ ...whole, "bytes copied/packet": "3028" });
        expect(await textOf("#error")).toBe("");
        expect(errors).toEqual([]);
      },
      TIMEOUT,
    );

    test(
      "all of it can be done from the keyboard, and the focus is seen",
      async () => {
        await page.goto(site.url);
        const focused = () =>
          page.evaluate(() => {
            const one = document.activeElement as HTMLInputElement;
            // A radio button's ring is round its label.
            const seen = one.type === "radio" ? (one.nextElementSibling as Element) : one;
            const { outlineStyle, outlineWidth } = getComputedStyle(seen);
            return {
              is: one.id || one.name || one.className,
              outline: outlineStyle === "solid" ? outlineWidth : outlineStyle,
            };
          });
        const order: unknown[] = [];
        for (let i = 0; i < 5; i++) {
          await page.keyboard.press("Tab");
          order.push(await focused());
          if (i === 1) await page.keyboard.press("ArrowRight");
          if (i === 3) await page.keyboard.press("Enter");
        }
        expect(order).toEqual(
          ["attach", "size", "lcores", "toggle", "scroll"].map((is) => ({ is, outline: "3px" })),
        );
        await measured("row-iovtee-512-off");
        expect(await textOf("#status")).toBe("Running: vhost and IOVTee, 512 B, one thread.");
        await page.evaluate(() => document.getElementById("toggle")?.focus());
        await page.keyboard.press(" ");
        await until(`document.getElementById("status").textContent.startsWith("Stopped: vhost")`);
        expect(errors).toEqual([]);
      },
      TIMEOUT,
    );

    test(
      "nothing sticks out at 360 pixels, and text can be read",
      async () => {
        await page.setViewport({ width: 360, height: 740 });
        await page.goto(site.url);
        await page.click("#toggle");
        await measured("row-iovtee-64-off");
        await stop();
        expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(360);
        for (const scheme of name === "chromium" ? ["light", "dark"] : ["dark"]) {
          if (name === "chromium") {
            await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
          }
          const dark = await page.evaluate(() => matchMedia("(prefers-color-scheme: dark)").matches);
          expect(dark).toBe(scheme === "dark");
          const contrasts = await page.evaluate(contrastOfTexts);
          expect(contrasts.length).toBeGreaterThan(50);
          // WCAG 2.2, 1.4.3.
          expect(contrasts.filter(({ contrast }) => contrast < 4.5)).toEqual([]);
        }
      },
      TIMEOUT,
    );

    test(
      "without the headers for shared memory it says so, and runs on one thread",
      async () => {
        const plain = await serve("--no-isolation");
        try {
          await page.goto(plain.url);
          expect(await textOf("#threads-note")).toMatch(
            /^Lcores are off, .*cross-origin isolated.*Cross-Origin-Embedder-Policy/,
          );
          expect(await page.evaluate<boolean>(`document.querySelector('[value="on"]').disabled`)).toBe(true);
          await page.click("#toggle");
          await measured("row-vhost-64-off");
          await stop();
          expect(await row("row-vhost-64-off")).toMatchObject({ lcores: "off", "lost or wrong": "0" });
          expect(errors).toEqual([]);
        } finally {
          plain.server.kill();
        }
      },
      TIMEOUT,
    );

    test(
      "what fails is shown, and it can be started again",
      async () => {
        // The first worker's program isn't there.
        await page.evaluateOnNewDocument(`
          const Real = Worker;
          window.Worker = class extends Real {
            constructor() {
              super("/not-there.js", { type: "module" });
              window.Worker = Real;
            }
          };`);
        await page.goto(site.url);
        await page.click("#toggle");
        await until(`!document.getElementById("error").hidden`);
        expect(await textOf("#error")).toBe("It failed: the worker's program couldn't be loaded");
        expect(await textOf("#status")).toBe("Stopped by an error.");
        await page.click("#toggle");
        await measured("row-vhost-64-off");
        expect(await page.evaluate<boolean>(`document.getElementById("error").hidden`)).toBe(true);
      },
      TIMEOUT,
    );
  });
}

/** Of each element with text of its own the contrast between it and what is behind it (WCAG 2.2, "contrast ratio"). */
function contrastOfTexts(): { text: string; contrast: number }[] {
  const rgb = (color: string) => (color.match(/[\d.]+/g) ?? []).map(Number);
  const luminance = (color: string) => {
    const [r, g, b] = rgb(color).map((c) => (c <= 10.31 ? c / 3294.6 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * (r ?? 0) + 0.7152 * (g ?? 0) + 0.0722 * (b ?? 0);
  };
  const behind = (element: Element): string => {
    const color = getComputedStyle(element).backgroundColor;
    const clear = rgb(color)[3] === 0;
    return clear && element.parentElement ? behind(element.parentElement) : color;
  };
  const found: { text: string; contrast: number }[] = [];
  for (const element of document.body.querySelectorAll("*")) {
    const text = [...element.childNodes]
      .filter((node) => node.nodeType === 3)
      .map((node) => (node.textContent ?? "").trim());
    if (text.join("") === "" || element.getClientRects().length === 0) continue;
    const { color, fill } = getComputedStyle(element);
    const [one, other] = [
      luminance(element instanceof SVGElement ? fill : color),
      luminance(behind(element)),
    ];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    found.push({ text: text.join(" "), contrast: Math.round(10 * contrast) / 10 });
  }
  return found;
}

test("the server says what is wrong with its options, exit status 2", () => {
  const { status, stderr } = spawnSync(process.execPath, [SERVE, "--port", "x"], { encoding: "utf8" });
  expect([status, stderr]).toEqual([
    2,
    "--port: x, expected 0 to 65535, 0 for any that is free\n" +
      "usage: npm run example:browser -- [--port N] [--no-isolation]\n",
  ]);
});

test("the server says when its port is taken, exit status 1", async () => {
  const { url, server } = await serve();
  try {
    const { port } = new URL(url);
    const { status, stderr } = spawnSync(process.execPath, [SERVE, "--port", port], { encoding: "utf8" });
    expect([status, stderr]).toEqual([1, `port ${port} is taken: choose another with --port\n`]);
  } finally {
    server.kill();
  }
});

test("the server gives nothing but the example's files", async () => {
  const { url, server } = await serve();
  try {
    const { status, headers } = await fetch(new URL("app/datapath.js", url));
    expect([status, headers.get("content-type")]).toEqual([200, "text/javascript; charset=utf-8"]);
    expect(headers.get("cross-origin-embedder-policy")).toBe("require-corp");
    expect((await fetch(new URL("package.json", url))).status).toBe(404);
    expect((await fetch(url, { method: "POST" })).status).toBe(405);
  } finally {
    server.kill();
  }
});
