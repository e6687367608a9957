// A Worker that filters captures: POST a pcap or pcapng, get a pcap of what the rules allow. README.md tells how to run it.
import { CaptureError, parseRules, RuleError } from "iovtee";
import { firewall } from "./firewall.mjs";

const CHUNK = 64 * 1024;
const RULES = `
deny tcp to 0.0.0.0/0 port 23   # telnet
deny tcp to ::/0 port 23
default allow
`;

export default {
  /** @param {Request} request */
  async fetch(request) {
    if (request.method !== "POST") return refuse(405, "POST a capture");
    try {
      const rules = parseRules(new URL(request.url).searchParams.get("rules") ?? RULES);
      const pieces = firewall(chunksOf(request), rules, (counts) => console.log(JSON.stringify(counts)));
      // Until the first piece is full nothing has been sent, and an error can still be told with a status.
      const { value: first } = await pieces.next();
      return new Response(streamOf(first, pieces), {
        headers: { "Content-Type": "application/vnd.tcpdump.pcap" },
      });
    } catch (error) {
      if (error instanceof CaptureError || error instanceof RuleError) return refuse(400, error.message);
      throw error;
    }
  },
};

/**
 * @param {number} status
 * @param {string} why
 */
function refuse(status, why) {
  return new Response(`${why}\n`, { status });
}

/**
 * The body, in one buffer that is used again: each chunk is valid until the next one is asked for. With a buffer for each
 * the engine collects them too late, and 50 MB of body take 80 MB of memory.
 * @param {Request} request
 */
async function* chunksOf({ body }) {
  const reader = body?.getReader({ mode: "byob" });
  try {
    for (let room = new ArrayBuffer(CHUNK); reader; ) {
      const { value, done } = await reader.read(new Uint8Array(room));
      if (done) return;
      yield value;
      room = value.buffer;
    }
  } finally {
    await reader?.cancel(); // who asked is gone, or the capture is broken: nothing more is read
  }
}

/**
 * Pieces as they are asked for. An error breaks the response off: no end of the body is sent, so that nobody takes what
 * has come for all.
 * @param {Uint8Array} first
 * @param {AsyncGenerator<Uint8Array>} pieces
 */
function streamOf(first, pieces) {
  return new ReadableStream(
    {
      start(controller) {
        controller.enqueue(first);
      },
      async pull(controller) {
        try {
          const { value, done } = await pieces.next();
          if (done) controller.close();
          else controller.enqueue(value);
        } catch (error) {
          console.error(error.message);
          controller.error(error);
        }
      },
      async cancel() {
        await pieces.return();
      },
    },
    { highWaterMark: 0 },
  );
}
