/** A port of JavaScript: what the switch sends there, whole frames in their order. */
import { describe, expect, test } from "vitest";
import { FramePort, Host } from "../src/index.ts";
import * as frames from "./frames.ts";

const HERE = "02:00:00:00:0b:01";
const THERE = "02:00:00:00:0a:01";

const plain = (size = 60) => frames.ether(HERE, THERE, 0x88b5, Array(size - 14).fill(1));

/** A card, and a port that gets all that the card receives: a frame of up to five buffers as it is. */
async function rig() {
  const host = await Host.create();
  const nic = host.nic();
  const port = host.port();
  host.vswitch({ connect: [nic, port] });
  let n = 0;
  /** Frames of these sizes, numbered on from the last call. */
  const send = (...sizes: number[]) => {
    const some = sizes.map((size) => frames.numbered(plain(size), n++));
    for (const one of some) {
      expect(nic.receive([one])).toBe(1);
      host.drain();
    }
    return some;
  };
  const take = (max?: number) => {
    const got: Uint8Array[] = [];
    const count = port.take((some) => got.push(...some.map((frame) => frame.slice())), max);
    expect(count).toBe(got.length);
    return got;
  };
  const drops = () => host.stats().ports[1]!.drops;
  return { host, nic, port, send, take, drops };
}

describe("take", () => {
  test.each([1, 2, 3, 4, 5, 7])("%i at most: so many whole frames while there are as many", async (max) => {
    const { host, send, take } = await rig();
    const sent = send(9000, 60, 5000, 2048, 2049, 60, 9022, 60, 60, 4096, 4097);
    for (let at = 0; at < sent.length; at += max) {
      const expected = sent.slice(at, at + max);
      expect(take(max).map((got, i) => Buffer.compare(got, expected[i]!))).toEqual(expected.map(() => 0));
    }
    expect(take(max)).toEqual([]);
    expect(frames.astray(host)).toBe(0);
  });

  test("256 at most unless told otherwise, and none of 0", async () => {
    const { send, take } = await rig();
    const sent = send(...Array(300).fill(60));
    for (const none of [0, -1, 0.5, Number.NaN]) expect(take(none)).toEqual([]);
    expect(take().map(frames.numberOf)).toEqual(sent.slice(0, 256).map(frames.numberOf));
    expect(take().map(frames.numberOf)).toEqual(sent.slice(256).map(frames.numberOf));
  });

  test("more than a ring holds: all that is there", async () => {
    const { send, take } = await rig();
    const sent = send(...Array(FramePort.SLOTS).fill(60));
    expect(take(100_000).map(frames.numberOf)).toEqual(sent.map(frames.numberOf));
  });

  test("a frame may be sent back from the sink", async () => {
    const { host, nic, port, send } = await rig();
    const sent = send(60, 100, 200);
    expect(port.take((some) => port.push(some.map((frame) => frame.slice())))).toBe(3);
    const more = [300, 400, 500].map(plain);
    port.push(more); // into other buffers than those that are on their way
    expect(frames.astray(host)).toBe(6);
    host.drain();
    expect(frames.sent(nic)).toEqual([...sent, ...more]);
    expect(frames.astray(host)).toBe(0);
  });
});

describe("a port that takes nothing", () => {
  test("gets whole frames until the next has no room, and counts the rest", async () => {
    const { host, send, take, drops } = await rig();
    const sent = send(...Array(120).fill(9000)); // five buffers each: 102 of them, and 2 slots are left
    expect(drops()).toEqual({ full: 18 });
    const after = send(60, 60, 60);
    expect(drops()).toEqual({ full: 19 });
    expect(host.stats().ports[1]).toMatchObject({ txPackets: 104, txBytes: 102 * 9000 + 120 });
    const got = take(100_000);
    expect(got.map(frames.numberOf)).toEqual(
      [...sent.slice(0, 102), ...after.slice(0, 2)].map(frames.numberOf),
    );
    expect(got.map((frame) => frame.length)).toEqual([...Array(102).fill(9000), 60, 60]);
    expect(frames.astray(host)).toBe(0);
  });

  test("of a burst gets the frames in front that have room", async () => {
    const { host, nic, send, take, drops } = await rig();
    send(...Array(102).fill(9000), 60);
    const burst = [60, 60, 9000].map((size, i) => frames.numbered(plain(size), 1000 + i));
    nic.receive(burst); // one slot is left
    host.drain();
    expect(drops()).toEqual({ full: 2 });
    expect(take(100_000).slice(103).map(frames.numberOf)).toEqual([1000]);
    expect(take(1)).toEqual([]);
    expect(send(9000).map(frames.numberOf)).toEqual(take(1).map(frames.numberOf));
    expect(frames.astray(host)).toBe(0);
  });

  test("copies: a flooded frame that has no room is freed, all of its buffers", async () => {
    const host = await Host.create();
    const nic = host.nic();
    const [one, two] = [host.port(), host.port()];
    host.vswitch({ connect: [nic, one, two] });
    for (let i = 0; i < 110; i++) {
      nic.receive([frames.numbered(plain(9000), i)]);
      host.drain();
      frames.taken(two);
    }
    nic.receive([frames.numbered(plain(), 110)]);
    host.drain();
    frames.taken(two);
    const all = [...Array.from({ length: 102 }, (_, i) => i), 110];
    expect(frames.taken(one).map(frames.numberOf)).toEqual(all);
    expect(host.stats().ports.map(({ drops }) => drops)).toEqual([{}, { full: 8 }, {}]);
    expect(frames.astray(host)).toBe(0);
  });
});

describe("a callback", () => {
  const counted = async (use: (port: FramePort, other: FramePort) => void) => {
    const host = await Host.create();
    const [port, other] = [host.port(), host.port()];
    host.vswitch({ connect: [port, other] });
    other.push([plain(), plain()]);
    host.drain();
    use(port, other);
    port.take(() => {});
    host.drain();
    other.take(() => {});
    return host.stats().pool.outstanding;
  };
  const mine = () => {
    throw new Error("mine");
  };

  test("that throws in pushWith: nothing is pushed, and no buffer is lost", async () => {
    expect(await counted((port) => expect(() => port.pushWith([60, 60], mine)).toThrow("mine"))).toBe(0);
  });

  test("that throws in take: its frames are gone, and no buffer is lost", async () => {
    expect(await counted((port) => expect(() => port.take(mine)).toThrow("mine"))).toBe(0);
  });

  test("that takes or pushes at the same port again is refused, and no buffer is freed twice", async () => {
    const within = /from within/;
    const used = counted((port) => {
      port.take(() => expect(() => port.take(() => {})).toThrow(within), 1);
      port.pushWith([60], () => expect(() => port.push([plain()])).toThrow(within));
    });
    expect(await used).toBe(0);
  });
});

test("push takes as many as ring and pool have room for", async () => {
  const host = await Host.create();
  const port = host.port();
  host.vswitch({ connect: [port] });
  expect(port.push(Array.from({ length: 600 }, () => plain()))).toBe(FramePort.SLOTS);
});
