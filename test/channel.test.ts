/** The channel between threads: every message, whole, in order, once; and nobody sleeps past one. */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Channel, type ChannelHandle, channel } from "../src/channel.ts";

const bytes = (length: number, seed = length) => Uint8Array.from({ length }, (_, i) => seed * 31 + i);

/** A thread with `here`, its channel to us, and `there`, ours to it. */
function thread(code: string, workerData: Record<string, unknown>): Worker {
  const library = new URL("../dist/src/channel.js", import.meta.url).href;
  const source = `
    import { workerData } from "node:worker_threads";
    const { Channel } = await import(${JSON.stringify(library)});
    ${code}`;
  return new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`), { workerData });
}
/** Its end; what it throws is thrown here. */
async function ended(worker: Worker): Promise<void> {
  const failed = once(worker, "error").then(([error]) => {
    throw error;
  });
  await Promise.race([failed, once(worker, "exit")]);
}

describe("in one thread", () => {
  test("what is sent is received: every length, over the ring's end", () => {
    const there = channel({ bytes: 1024 });
    for (let length = 0; length <= there.longest; length++) {
      expect(there.send(bytes(length))).toBe(true);
      expect(there.receive()).toEqual(bytes(length));
    }
    expect(there.receive()).toBeUndefined();
    expect(there.longest).toBe(504);
  });

  test("as a queue, for any sends and receives", () => {
    const step = fc.oneof(
      fc.record({ send: fc.array(fc.nat({ max: 120 }), { minLength: 1, maxLength: 8 }) }),
      fc.record({ receive: fc.integer({ min: 1, max: 6 }) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.constantFrom("one", "many"), (steps, producers) => {
        const there = channel({ bytes: 512, producers });
        const model: number[] = [];
        let n = 0;
        for (const one of steps) {
          if ("send" in one) {
            const messages = one.send.map((length) => bytes(length, n++));
            const sent = there.sendMany(messages);
            model.push(
              ...messages.slice(0, sent).map((message) => message.length * 1000 + (message[0] ?? 0)),
            );
          } else {
            const got: number[] = [];
            const count = there.receiveMany((some) => {
              got.push(...some.map((message) => message.length * 1000 + (message[0] ?? 0)));
            }, one.receive);
            expect(got).toEqual(model.splice(0, count));
            expect(count).toBe(Math.min(one.receive, count + model.length));
          }
        }
        const { sent, received } = there.stats();
        expect(sent - received).toBe(model.length);
      }),
      { seed: 20, numRuns: 300 },
    );
  });

  test("indices run over 2^32", () => {
    const there = channel({ bytes: 256 });
    const words = new Int32Array(there.handle.buffer);
    words[32] = words[64] = -512; // head and tail, a few records before the wrap
    const here = Channel.from(there.handle);
    for (let i = 0; i < 200; i++) {
      expect(here.sendMany([bytes(20, i), bytes(3, i)])).toBe(2);
      expect([here.receive(), here.receive()]).toEqual([bytes(20, i), bytes(3, i)]);
    }
    expect(words[32]).toBeGreaterThan(0);
  });

  test("two ends for one receiver: each goes on where the other one stopped", () => {
    const one = channel();
    const other = Channel.from(one.handle);
    one.sendMany([bytes(1), bytes(2), bytes(3), bytes(4)]);
    expect([one.receive(), other.receive()]).toEqual([bytes(1), bytes(2)]);
    one.send(bytes(5));
    expect([other.receive(), other.receive(), other.receive()]).toEqual([bytes(3), bytes(4), bytes(5)]);
    expect([one.receive(), one.receiveMany(() => {})]).toEqual([undefined, 0]);
  });

  test("full: nothing is overwritten, and it is counted", () => {
    const there = channel({ bytes: 256 });
    const sent = there.sendMany(Array.from({ length: 20 }, (_, i) => bytes(24, i)));
    expect(sent).toBe(8);
    expect(there.send(bytes(1))).toBe(false);
    expect(there.stats()).toEqual({ sent: 8, sentBytes: 192, received: 0, receivedBytes: 0, full: 2 });
    for (let i = 0; i < 8; i++) expect(there.receive()).toEqual(bytes(24, i));
  });

  test("closed: nothing more is sent, what was sent is received", () => {
    const there = channel();
    there.send(bytes(5));
    there.close();
    expect([there.closed, there.send(bytes(1)), there.sendWait(bytes(1)), there.wait()]).toEqual([
      true,
      false,
      false,
      true,
    ]);
    expect([there.receive(), there.receive(), there.wait()]).toEqual([bytes(5), undefined, false]);
  });

  test("a sink that throws has had its messages; one within another is refused", () => {
    const there = channel();
    there.sendMany([bytes(1), bytes(2)]);
    expect(() =>
      there.receiveMany(() => {
        throw new Error("mine");
      }, 1),
    ).toThrow("mine");
    there.receiveMany(() => expect(() => there.receive()).toThrow(/from within/));
    expect(there.stats().received).toBe(2);
  });

  test.each([0, 255, 1000, 2 ** 31, 1.5])("bytes: %d is refused", (size) => {
    expect(() => channel({ bytes: size })).toThrow(
      `bytes: ${size}, expected a power of two from 256 to 1073741824`,
    );
  });

  test("what is too long, and what is no channel, is refused", () => {
    const there = channel({ bytes: 256 });
    expect(() => there.send(bytes(121))).toThrow("message of 121 bytes, expected 120 at most");
    for (const handle of [
      undefined,
      {},
      { buffer: new ArrayBuffer(1024) },
      { buffer: new SharedArrayBuffer(1024) },
    ]) {
      expect(() => Channel.from(handle as ChannelHandle)).toThrow(/not one of a channel/);
    }
  });

  test("one that is too long ends a burst: those before it are sent, and wake who waits; it isn't counted as full", async () => {
    const there = channel({ bytes: 256 });
    const waiting = Channel.from(there.handle).waitAsync(10_000);
    const begin = performance.now();
    expect(() => there.sendMany([bytes(3), bytes(121), bytes(4)])).toThrow(/121 bytes/);
    expect(await waiting).toBe(true);
    expect(performance.now() - begin).toBeLessThan(5_000);
    expect([there.receive(), there.receive()]).toEqual([bytes(3), undefined]);
    expect(there.stats()).toMatchObject({ sent: 1, full: 0 });
  });

  test("a sender that was ended while it sent: the others are told, and hang no longer than a second", () => {
    const there = channel({ bytes: 1024, producers: "many" });
    const LOCK = 96;
    Atomics.store(new Int32Array(there.handle.buffer), LOCK, 1);
    expect(() => there.send(bytes(24))).toThrow("a sender was ended while it sent");
  });

  test("waits end by their time", async () => {
    const there = channel({ bytes: 256 });
    expect([there.wait(5), await there.waitAsync(5)]).toEqual([false, false]);
    there.sendMany(Array.from({ length: 8 }, () => bytes(24)));
    expect(there.sendWait(bytes(24), 5)).toBe(false);
  });
});

/** Does `what` right before the next `Atomics.store`: where the other side may be faster. */
function beforeNextStore(what: () => void): void {
  const { store } = Atomics;
  Atomics.store = ((...args: Parameters<typeof store>) => {
    Atomics.store = store;
    what();
    return store(...args);
  }) as typeof store;
}

describe("who sleeps says so and looks once more: the other side was faster, saw nobody asleep and wakes nobody", () => {
  test.each(["wait", "waitAsync"] as const)("%s", async (how) => {
    const there = channel();
    beforeNextStore(() => there.send(bytes(1)));
    const begin = performance.now();
    expect(await there[how](5_000)).toBe(true);
    expect(performance.now() - begin).toBeLessThan(2_500);
  });

  test("sendWait", () => {
    const there = channel({ bytes: 256 });
    there.sendMany(Array.from({ length: 8 }, () => bytes(24)));
    beforeNextStore(() => there.receiveMany(() => {}, 1));
    const begin = performance.now();
    expect(there.sendWait(bytes(24), 5_000)).toBe(true);
    expect(performance.now() - begin).toBeLessThan(2_500);
  });
});

describe("between threads", () => {
  const COUNT = 60_000;
  const SEND = `
    const { handle, first, step, count, longest } = workerData;
    const there = Channel.from(handle);
    for (let i = 0; i < count; i++) {
      const message = new Uint8Array(8 + (i * 7919) % longest).fill(i);
      new DataView(message.buffer).setUint32(0, first + i * step);
      new DataView(message.buffer).setUint32(4, message.length);
      if (!there.sendWait(message)) throw new Error("closed");
    }`;

  test.each([
    ["one producer", 1],
    ["three producers", 3],
  ])("every message of %s arrives whole, once, in its order, whoever sleeps", async (_, producers) => {
    const here = channel({ bytes: 4096, producers: producers === 1 ? "one" : "many" });
    const workers = Array.from({ length: producers }, (_, first) =>
      thread(SEND, { handle: here.handle, first, step: producers, count: COUNT, longest: 300 }),
    );
    const ends = workers.map(ended);
    const next = Array.from({ length: producers }, (_, first) => first);
    for (let got = 0; got < producers * COUNT; ) {
      if (!here.wait(20_000)) throw new Error(`slept past a message: ${JSON.stringify(here.stats())}`);
      got += here.receiveMany((messages) => {
        for (const message of messages) {
          const view = new DataView(message.buffer, message.byteOffset);
          const number = view.getUint32(0);
          const from = number % producers;
          const i = (number - from) / producers;
          if (number !== next[from] || view.getUint32(4) !== message.length)
            throw new Error(`${number}, not ${next[from]}`);
          if (message.length > 8 && message[message.length - 1] !== (i & 255))
            throw new Error(`${number} is torn`);
          next[from] = number + producers;
        }
      });
    }
    await Promise.all(ends);
    expect(here.stats()).toMatchObject({ sent: producers * COUNT, received: producers * COUNT });
    expect(here.receive()).toBeUndefined();
  });

  test("question and answer, each asleep when the other sends", async () => {
    const [question, answer] = [channel({ bytes: 256 }), channel({ bytes: 256 })];
    const worker = thread(
      `const [question, answer] = workerData.handles.map((handle) => Channel.from(handle));
       while (question.wait()) answer.sendWait(question.receive());`,
      { handles: [question.handle, answer.handle] },
    );
    const end = ended(worker);
    for (let i = 0; i < 20_000; i++) {
      question.send(bytes(9, i));
      if (!(i % 2 ? answer.wait(20_000) : await answer.waitAsync(20_000)))
        throw new Error(`no answer to ${i}`);
      if (answer.receive()?.[0] !== bytes(9, i)[0]) throw new Error(`a wrong answer to ${i}`);
    }
    question.close();
    await end;
    expect(answer.stats().received).toBe(20_000);
  });

  test("close wakes who waits for a message, and who waits for room", async () => {
    const [empty, full] = [channel({ bytes: 256 }), channel({ bytes: 256 })];
    full.sendMany(Array.from({ length: 8 }, () => bytes(24)));
    const ends = [
      ended(
        thread("if (Channel.from(workerData.handle).wait()) throw new Error('a message')", {
          handle: empty.handle,
        }),
      ),
      ended(
        thread("if (Channel.from(workerData.handle).sendWait(new Uint8Array(24))) throw new Error('room')", {
          handle: full.handle,
        }),
      ),
    ];
    const waiting = empty.waitAsync();
    await new Promise((done) => setTimeout(done, 100));
    empty.close();
    full.close();
    await Promise.all(ends);
    expect(await waiting).toBe(false);
  });
});
