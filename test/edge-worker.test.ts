/** examples/edge-worker in workerd: bundled as Wrangler does it, asked over HTTP. */
import { readFileSync } from "node:fs";
import { type IncomingMessage, request } from "node:http";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CaptureError, framesOf } from "../src/ports/capture.ts";
import { CaptureEncoder } from "../src/ports/capture-encoder.ts";
import { findRuntimes } from "../src/runtimes/index.ts";
import { type ServedWorker, serveWorker } from "../src/runtimes/workerd.ts";

const sample = readFileSync("captures/sample.pcapng");
const workerd = (await findRuntimes()).find(({ name }) => name === "workerd");
const runs = workerd?.available || process.env.CI === "true";
const missing = workerd?.available ? "" : `: workerd is missing, get it by: ${workerd?.install}`;

let worker: ServedWorker;
beforeAll(async () => {
  if (!runs) return;
  if (!workerd?.available) throw new Error(`the Worker${missing}`);
  const { outputFiles } = await build({
    absWorkingDir: fileURLToPath(new URL("..", import.meta.url)),
    entryPoints: ["examples/edge-worker/worker.mjs"],
    outdir: "/",
    assetNames: "[name]",
    bundle: true,
    write: false,
    format: "esm",
    conditions: ["workerd", "worker", "browser"],
    loader: { ".wasm": "copy" },
  });
  const files = outputFiles.map(({ path, contents }): [string, Uint8Array] => [path, contents]);
  const main = files.filter(([path]) => path.endsWith(".js"));
  worker = await serveWorker(workerd.command, new Map([...main, ...files]));
});
afterAll(async () => {
  await worker?.stop();
});

/** What the Worker answers; `broken` where the answer has no end. */
interface Answer {
  status: number | undefined;
  body: Buffer;
  broken: boolean;
}

function post(pieces: Iterable<Uint8Array>, rules?: string): Promise<Answer> {
  return new Promise((done, fail) => {
    const query = rules === undefined ? "" : `?rules=${encodeURIComponent(rules)}`;
    const asked = request(worker.url + query, { method: "POST" }, (response: IncomingMessage) => {
      const body: Buffer[] = [];
      const end = (broken: boolean) =>
        done({ status: response.statusCode, body: Buffer.concat(body), broken });
      response.on("data", (some) => body.push(some));
      response.on("end", () => end(false));
      response.on("error", () => end(true));
    });
    asked.on("error", fail);
    (async () => {
      for (const piece of pieces)
        if (!asked.write(piece)) await new Promise((drained) => asked.once("drain", drained));
      asked.end();
    })();
  });
}

/** Frames of a capture up to its end, or to where it breaks, in hexadecimal. */
function framesIn(bytes: Uint8Array): string[] {
  const frames: string[] = [];
  try {
    for (const { data, timestamp } of framesOf("answer", [bytes]))
      frames.push(`${timestamp} ${Buffer.from(data).toString("hex")}`);
  } catch (error) {
    if (!(error instanceof CaptureError)) throw error;
  }
  return frames;
}

/** A pcap of frames of 1000 bytes, IPv4, TCP and UDP in turn, `bytes` long or a little more, a piece at a time. */
function* generated(bytes: number): Generator<Uint8Array> {
  const encoder = new CaptureEncoder();
  yield encoder.header();
  let number = 0;
  for (let left = bytes; left > 0; ) {
    const records: Uint8Array[] = [];
    for (let i = 0; i < 64; i++, number++) {
      const frame = new Uint8Array(1000);
      frame.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 986 >> 8, 986 & 255], 0);
      frame.set([64, number % 2 ? 17 : 6], 22);
      frame.set([10, 0, 0, 1, 10, 0, 0, 2, 0, 80, 0, 80], 26);
      if (number % 2 === 0) frame[46] = 5 << 4; // TCP's header is 5 words
      if (number % 2) new DataView(frame.buffer).setUint16(38, 966); // UDP's length
      new DataView(frame.buffer).setUint32(500, number);
      records.push(encoder.record(frame, BigInt(number) * 1000n));
    }
    const piece = Buffer.concat(records);
    left -= piece.length;
    yield piece;
  }
}

describe(`the Worker${missing}`, () => {
  const inWorkerd = test.skipIf(!runs);

  inWorkerd("gives the frames that the rules allow, as they were captured, in order", async () => {
    const all = framesIn(sample);
    const { status, body, broken } = await post([sample], "default allow");
    expect({ status, broken }).toEqual({ status: 200, broken: false });
    expect(all.length).toBeGreaterThan(400);
    expect(framesIn(body)).toEqual(all);
  });

  inWorkerd("drops the others", async () => {
    const tcp = await post([sample], "allow tcp");
    const rest = await post([sample], "deny tcp\ndefault allow");
    const isTcp = (one: string) => /^\d+ .{24}0800.{18}06/.test(one);
    const plain = framesIn(sample).filter(isTcp);
    expect(plain.length).toBeGreaterThan(100);
    expect(framesIn(tcp.body).filter(isTcp)).toEqual(plain);
    expect(framesIn(rest.body).filter(isTcp)).toEqual([]);
    expect([...framesIn(tcp.body), ...framesIn(rest.body)].sort()).toEqual(framesIn(sample).sort());
  });

  inWorkerd("has rules of its own", async () => {
    const { status, body } = await post([sample]);
    expect(status).toBe(200);
    expect(framesIn(body).length).toBeGreaterThan(400);
  });

  inWorkerd("refuses what it can't do with a status and the reason", async () => {
    const text = async (pieces: Uint8Array[], rules?: string) => {
      const { status, body } = await post(pieces, rules);
      return `${status} ${body}`;
    };
    expect(await text([sample], "allow everything")).toMatch(/^400 rules: line 1, column 7: "everything"/);
    expect(await text([Buffer.from("no capture")])).toMatch(/^400 capture: at byte 0: magic number/);
    expect(await text([])).toMatch(/^400 capture: at byte 0: empty file/);
    const got = await fetch(worker.url);
    expect(`${got.status} ${await got.text()}`).toBe("405 POST a capture\n");
  });

  inWorkerd("a capture that breaks off before anything was sent is refused with the place", async () => {
    const { status, body } = await post([sample.subarray(0, 20_001)], "default allow");
    expect(`${status} ${body}`).toMatch(/^400 capture: at byte \d+: the file ends after/);
  });

  inWorkerd(
    "one that breaks off later: what was allowed before comes, cut off, and the answer has no end",
    async () => {
      const cut = sample.subarray(0, sample.length - 1001);
      const { status, body, broken } = await post([cut], "default allow");
      expect({ status, broken }).toEqual({ status: 200, broken: true });
      expect(framesIn(body)).toEqual(framesIn(cut));
      // Who doesn't see that finds a capture that is cut off.
      expect(() => [...framesOf("answer", [body])]).toThrow(
        /ends after [89] of the 16 bytes of a record header/,
      );
    },
  );

  test.skipIf(!runs || process.platform !== "linux")(
    "100 MB go through, and the process grows by less than half of them",
    async () => {
      const bytes = 100e6;
      await post(generated(5e6), "allow tcp"); // what the engine needs for itself
      const pid = worker.running.child.pid;
      const peak = () => {
        const status = readFileSync(`/proc/${pid}/status`, "utf8");
        return 1024 * Number(/VmHWM:\s*(\d+) kB/.exec(status)?.[1]);
      };
      const before = peak();
      const { status, body, broken } = await post(generated(bytes), "allow tcp");
      expect({ status, broken }).toEqual({ status: 200, broken: false });
      expect(body.length).toBeGreaterThan(0.49 * bytes);
      const numbers = [...framesOf("answer", [body])].map(({ data }) =>
        new DataView(data.buffer, data.byteOffset).getUint32(500),
      );
      expect(numbers.every((number, i) => number === 2 * i)).toBe(true);
      expect(peak() - before).toBeLessThan(bytes / 2);
    },
    60_000,
  );
});
