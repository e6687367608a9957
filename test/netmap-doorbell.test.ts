/**
 * A netmap port's two control blocks: all interleavings of a user and a host that hand slots to each other and sleep when
 * they find none. Each asks for a kick only when it is about to sleep, and looks once more after it has asked. Broken in the
 * ways that suggest themselves one of them sleeps for ever, which must be found. How an lcore sleeps and is woken is gone
 * through in test/doorbell.test.ts; here it is one bell.
 */
import { describe, expect, test } from "vitest";
import { END, type Explored, explore, missingStep, type Program } from "./harness/interleave.ts";

/** Batches that the user sends, one when the one before has come back. */
const ROUNDS = 3;

const ZERO = {
  // The user's block: what it has handed over, and whether it wants a kick; then the host's.
  head: 0,
  needKick: 0,
  hwtail: 0,
  hostNeedKick: 0,
  // Bells, what their owners know of them, and whether they wait on them.
  bell: 0,
  known: 0,
  waits: 0,
  hostBell: 0,
  hostKnown: 0,
  hostWaits: 0,
  // What each has taken note of, and what it has seen when it looked too soon.
  seen: 0,
  taken: 0,
  wanted: 0,
  hostWanted: 0,
};
type State = typeof ZERO;
type Steps = Program<State>;

/** Names of one side's fields. */
interface Side {
  readonly needKick: "needKick" | "hostNeedKick";
  readonly bell: "bell" | "hostBell";
  readonly known: "known" | "hostKnown";
  readonly waits: "waits" | "hostWaits";
}
const USER: Side = { needKick: "needKick", bell: "bell", known: "known", waits: "waits" };
const HOST: Side = { needKick: "hostNeedKick", bell: "hostBell", known: "hostKnown", waits: "hostWaits" };

/** assembly/lcore.ts, `turn` and `sleep`, of a side whose poll found nothing: `found` looks. */
const sleep = (me: Side, found: (state: State) => boolean): Steps => ({
  arm: (s) => {
    s[me.needKick] = 1;
    return "look";
  },
  look: (s) => (found(s) ? "disarm" : "wait"),
  wait: (s) => {
    s[me.waits] = +(s[me.bell] === s[me.known]);
    return "waits";
  },
  waits: (s) => (s[me.waits] ? "waits" : "awake"),
  awake: (s) => {
    s[me.known] = s[me.bell];
    return "disarm";
  },
  disarm: (s) => {
    s[me.needKick] = 0;
    return "poll";
  },
});

/** assembly/doorbell.ts, `ring`. */
const ring = (other: Side): Steps => ({
  ring: (s) => {
    s[other.bell]++;
    s[other.waits] = 0;
    return "poll";
  },
});

/** assembly/netmap/driver.ts: `publish`, then `used` until the batch is back. */
const user = (change: Steps = {}): Steps => ({
  publish: (s) => {
    s.head++;
    return "kick?";
  },
  "kick?": (s) => (s.hostNeedKick ? "ring" : "poll"),
  ...ring(HOST),
  poll: (s) => {
    if (s.hwtail === s.seen) return "arm";
    s.seen = s.hwtail;
    return s.seen === ROUNDS ? END : "publish";
  },
  ...sleep(USER, (s) => s.hwtail !== s.seen),
  ...change,
});

/** assembly/netmap/kring.ts: `prologue`, then `publish` of what was taken. */
const host = (change: Steps = {}): Steps => ({
  poll: (s) => {
    if (s.head === s.taken) return "arm";
    s.taken = s.head;
    return "publish";
  },
  publish: (s) => {
    s.hwtail = s.taken;
    return "kick?";
  },
  "kick?": (s) => (s.needKick ? "ring" : "poll"),
  ...ring(USER),
  ...sleep(HOST, (s) => s.head !== s.taken),
  ...change,
});

function run(u: Steps = {}, h: Steps = {}): Explored {
  return explore<State>({
    state: ZERO,
    threads: { user: user(u), host: host(h) },
    wrong: (_, at, stuck) => (stuck && at.user !== END ? "both sleep, and there is work" : undefined),
  });
}

test("nobody sleeps while the other has handed something over", () => {
  const { states, wrong } = run();
  expect(wrong).toBeUndefined();
  expect(states).toBeGreaterThan(100);
});

/** One step wrong, on either side. */
const BROKEN: Record<string, (me: Side) => Steps> = {
  "it doesn't look again after it has asked": (me) => ({
    arm: (s) => {
      s[me.needKick] = 1;
      return "wait";
    },
  }),
  "it looks before it asks": (me) => ({
    arm: (s) => ((me === USER ? s.hwtail !== s.seen : s.head !== s.taken) ? "poll" : "ask"),
    ask: (s) => {
      s[me.needKick] = 1;
      return "wait";
    },
  }),
  "it never asks": () => ({ arm: () => "look" }),
  "it looks whether the other wants a kick before it publishes": (me) =>
    me === USER
      ? {
          publish: (s) => {
            s.wanted = s.hostNeedKick;
            return "hand over";
          },
          "hand over": (s) => {
            s.head++;
            return s.wanted ? "ring" : "poll";
          },
        }
      : {
          publish: (s) => {
            s.hostWanted = s.needKick;
            return "hand over";
          },
          "hand over": (s) => {
            s.hwtail = s.taken;
            return s.hostWanted ? "ring" : "poll";
          },
        },
  "it never kicks": () => ({ "kick?": () => "poll" }),
  "it takes back what it asked for before it sleeps": (me) => ({
    look: (s) => ((me === USER ? s.hwtail !== s.seen : s.head !== s.taken) ? "disarm" : "take back"),
    "take back": (s) => {
      s[me.needKick] = 0;
      return "wait";
    },
  }),
  "it sleeps though its bell has moved": (me) => ({
    wait: (s) => {
      s[me.waits] = 1;
      return "waits";
    },
  }),
};

describe.each(["user", "host"] as const)("what goes wrong with the %s is found:", (side) => {
  test.each(Object.keys(BROKEN))("%s", (what) => {
    const change = (BROKEN[what] as (me: Side) => Steps)(side === "user" ? USER : HOST);
    const { wrong, way } = side === "user" ? run(change) : run({}, change);
    expect(wrong).toBe("both sleep, and there is work");
    expect(way.length).toBeGreaterThan(3);
  });
});

test.each([
  [
    "assembly/netmap/driver.ts",
    "publish(drv: usize): bool {",
    "Sync.store<u32>(ring + NetmapRing.head, head) … Sync.load<u32>(ring + NetmapRing.hostNeedKick) … Doorbell.ring(",
  ],
  [
    "assembly/netmap/kring.ts",
    "static publish(",
    "Sync.store<u32>(ring + NetmapRing.hwtail … Sync.load<u32>(ring + NetmapRing.needKick) … Krings.notify(k)",
  ],
  ["assembly/netmap/kring.ts", "static notify(", "Doorbell.ring(load<u32>(k, Kring.bell))"],
  ["assembly/netmap/kring.ts", "static arm(", "Sync.store<u32>( … NetmapRing.hostNeedKick, u32(on))"],
  ["assembly/netmap/driver.ts", "static arm(", "Sync.store<u32>( … NetmapRing.needKick, u32(on))"],
  [
    "assembly/lcore.ts",
    "static turn(",
    "Lcores.pollOne(p) … Lcores.arm(p, true) … Lcores.pollOne(p) … Lcores.arm(p, false)",
  ],
])("the code of %s, %s, has these steps in this order", (file, begin, steps) => {
  expect(missingStep(file, begin, steps)).toBeUndefined();
});
