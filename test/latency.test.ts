/** Latency against offered load: what is timed, from when on, and what is told of frames that don't come back. */
import { afterEach, expect, test, vi } from "vitest";
import { type Histogram, latency } from "../src/index.ts";

/** Keeps every time, in milliseconds. */
class Times implements Histogram {
  readonly all: number[] = [];
  recordValue(nanoseconds: number): void {
    this.all.push(nanoseconds / 1e6);
  }
  getValueAtPercentile(percentile: number): number {
    const sorted = this.all.toSorted((a, b) => a - b);
    return 1e6 * (sorted[Math.max(0, Math.ceil((percentile / 100) * sorted.length) - 1)] ?? 0);
  }
  get maxValue(): number {
    return this.getValueAtPercentile(100);
  }
  get mean(): number {
    return (1e6 * this.all.reduce((sum, one) => sum + one, 0)) / this.all.length;
  }
}

/**
 * A clock that goes on by a microsecond each time that it is read, and once, at `at`, by `late` milliseconds: as if
 * this thread had stood still. Its time begins when it is reset.
 */
function standStill(at: number, late: number): { reset(): void } {
  let now = 0;
  let armed = false;
  vi.spyOn(performance, "now").mockImplementation(() => {
    now += 0.001;
    if (armed && now >= at) {
      now += late;
      armed = false;
    }
    return now;
  });
  return {
    reset() {
      now = 0;
      armed = true;
    },
  };
}

afterEach(() => void vi.restoreAllMocks());

test("a row for each attachment, size and load, in which every frame comes back and is timed", async () => {
  const made: Times[] = [];
  const histogram = () => {
    const one = new Times();
    made.push(one);
    return one;
  };
  const { runs, ...report } = await latency({
    histogram,
    load: [2000, 50_000],
    size: [64, "imix"],
    packets: 900,
    guests: 3,
  });
  expect(report).toMatchObject({
    command: "latency",
    lcores: ["nic+host+guest"],
    runtime: { memory: "unshared" },
  });
  expect(runs.map(({ frame, load, attach }) => [frame, load, attach])).toEqual(
    [64, "imix"].flatMap((size) =>
      [2000, 50_000].flatMap((load) => ["vhost", "iovtee"].map((a) => [size, load, a])),
    ),
  );
  for (const [i, run] of runs.entries()) {
    expect(run).toMatchObject({
      sent: 900,
      received: 900,
      lost: 0,
      duplicated: 0,
      reordered: 0,
      corrupt: 0,
      drops: {},
    });
    expect(made[i]?.all).toHaveLength(900);
    expect(run.p50).toBeGreaterThan(0);
    expect(run.max).toBeGreaterThanOrEqual(run.p999);
    // 900 frames have no 99.9th percentile of their own.
    expect(run.percentiles.map(([percentile]) => percentile)).toEqual([0, 25, 50, 75, 90, 95, 99, 99.5, 100]);
    expect(run.percentiles.map(([, time]) => time)).toEqual(
      run.percentiles.map(([, time]) => time).toSorted((a, b) => a - b),
    );
    expect(run.cpu).toBeNaN();
  }
});

test("a frame's time counts from when it was due, also where the wire was late with it", async () => {
  const clock = standStill(50, 20);
  const times = new Times();
  const histogram = () => {
    clock.reset();
    return times;
  };
  const { runs } = await latency({ histogram, attach: ["vhost"], load: [10_000], packets: 2000 });
  expect(runs).toMatchObject([{ received: 2000, lost: 0 }]);
  expect(runs[0]?.max).toBeGreaterThan(19_900);
  expect(runs[0]?.max).toBeLessThan(20_100);
  expect(runs[0]?.p50).toBeLessThan(10);
  // 200 frames were due meanwhile, and as many until the wire, at twice its rate, had made up for it.
  const late = times.all.filter((one) => one > 0.1).length;
  expect(late).toBeGreaterThan(200);
  expect(late).toBeLessThan(400);
});

test("what the card has no buffer for is lost, and named", async () => {
  const clock = standStill(50, 20);
  const histogram = () => {
    clock.reset();
    return new Times();
  };
  const { runs } = await latency({
    histogram,
    attach: ["vhost"],
    load: [10_000],
    packets: 1000,
    ring: 16,
    burst: 64,
  });
  const [run] = runs;
  expect(run?.lost).toBeGreaterThan(32);
  expect(run).toMatchObject({
    sent: 1000,
    received: 1000 - (run?.lost ?? 0),
    drops: { rxNoBuffer: run?.lost },
  });
});

test("where no frame comes back there are no times", async () => {
  const { runs } = await latency({
    histogram: () => new Times(),
    attach: ["iovtee"],
    function: "sink",
    load: [10_000],
    packets: 50,
  });
  expect(runs).toMatchObject([
    {
      sent: 50,
      received: 0,
      lost: 0,
      drops: { function: 50 },
      p50: Number.NaN,
      max: Number.NaN,
      mean: Number.NaN,
    },
  ]);
});

test("what a rule of the flow table drops isn't lost", async () => {
  const { runs } = await latency({
    histogram: () => new Times(),
    attach: ["vhost"],
    load: [100_000],
    packets: 1000,
    lookup: "flows",
    flows: "priority=1,udp,tp_src=0/1,actions=drop\npriority=0,actions=NORMAL",
  });
  const [run] = runs;
  expect(run).toMatchObject({ sent: 1000, lost: 0, drops: { flow: expect.any(Number) } });
  expect((run?.received ?? 0) + (run?.drops.flow ?? 0)).toBe(1000);
});

test("with lcores on workers: every frame comes back, and those that find the worker asleep wake it", async () => {
  let cpu = 0;
  const { runs, lcores } = await latency({
    histogram: () => new Times(),
    attach: ["iovtee"],
    lcores: ["nic", "host+guest"],
    load: [20, 5000],
    packets: 8,
    cpuTime: () => cpu++,
  });
  expect(lcores).toEqual(["nic", "host+guest"]);
  expect(runs).toMatchObject([
    { received: 8, lost: 0 },
    { received: 8, lost: 0 },
  ]);
  expect(runs[0]?.sleepsPerPacket).toBeGreaterThanOrEqual(0.5);
  expect(runs[0]?.cpu).toBeGreaterThan(0);
});

test("a clock that stands still, and options out of range, are refused", async () => {
  const histogram = () => new Times();
  await expect(latency({ histogram, load: [0] })).rejects.toThrow("load: 0, expected 1 to 100000000");
  await expect(latency({ histogram, packets: 0.5 })).rejects.toThrow("packets: 0.5, expected 1 to ");
  await expect(latency({ histogram, size: [12] })).rejects.toThrow("size: 12");
  vi.spyOn(performance, "now").mockReturnValue(1);
  await expect(latency({ histogram })).rejects.toThrow("the clock stands still");
});

test("an attachment that can't be run so is left out, with the reason", async () => {
  const { runs, leftOut } = await latency({
    histogram: () => new Times(),
    attach: ["vhost", "passthrough"],
    guests: 2,
    load: [100_000],
    packets: 100,
  });
  expect(runs.map(({ attach }) => attach)).toEqual(["vhost"]);
  expect(leftOut?.map(({ attach }) => attach)).toEqual(["passthrough"]);
});
