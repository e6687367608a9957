/**
 * vDPDK's hand-shake: AVAIL alone says whose a descriptor is, a burst's first descriptor is written last, and a poller that
 * finds nothing asks for a signal, looks once more, and sleeps. All interleavings of a guest that sends frames of two
 * descriptors with the device's poller; then each side with a step wrong, which must be found; then the code beside it.
 */
import { expect, test } from "vitest";
import { END, explore, missingStep, type Program } from "./harness/interleave.ts";

/** Bursts that the guest sends. */
const BURSTS = 3;

const ZERO = {
  // AVAIL of two descriptors, and the word in the control page.
  avail0: 0,
  avail1: 0,
  wantsSignal: 0,
  // The lcore of the device's poller: what it waits on, and what it knows of it.
  doorbell: 0,
  asleep: 0,
  waits: 0,
  seen: 0,
  armed: 0,
  // What came of it: bursts posted and taken; one side has seen a part of a burst.
  posted: 0,
  taken: 0,
  torn: 0,
};
type State = typeof ZERO;

interface Broken {
  /** The guest writes the first descriptor first. */
  firstFirst?: boolean;
  /** It looks whether a signal is wanted before it shows the burst. */
  looksEarly?: boolean;
  /** It wakes nobody. */
  silent?: boolean;
  /** The device gives the first descriptor back first. */
  givesFirst?: boolean;
  /** It doesn't look once more when it has armed. */
  looksOnce?: boolean;
  /** It sleeps without a look at the doorbell. */
  blind?: boolean;
}

function guest({ firstFirst, looksEarly, silent }: Broken): Program<State> {
  const show = looksEarly ? "ring?" : "next";
  return {
    next: (s) => (s.posted === BURSTS ? END : "is mine?"),
    // In the ring's order, as VdpdkPmd.received and sent look.
    "is mine?": (s) => (s.avail0 ? "is mine?" : "is the rest?"),
    "is the rest?": (s) => {
      if (s.avail1) s.torn = 1;
      return looksEarly ? "wanted?" : "write";
    },
    write: (s) => {
      if (firstFirst) s.avail0 = 1;
      else s.avail1 = 1;
      return "write last";
    },
    "write last": (s) => {
      s.avail0 = s.avail1 = 1;
      s.posted++;
      return looksEarly ? show : "wanted?";
    },
    "wanted?": (s) => {
      const wanted = s.wantsSignal && !silent;
      if (looksEarly) return wanted ? "write" : "write unheard";
      return wanted ? "ring" : "next";
    },
    "write unheard": (s) => {
      s.avail1 = 1;
      return "write last unheard";
    },
    "write last unheard": (s) => {
      s.avail0 = 1;
      s.posted++;
      return "next";
    },
    "ring?": () => "ring",
    ring: (s) => {
      s.doorbell++;
      return "asleep?";
    },
    "asleep?": (s) => {
      if (s.asleep) s.waits = 0;
      return "next";
    },
  };
}

function device({ givesFirst, looksOnce, blind }: Broken): Program<State> {
  return {
    look: (s) => (s.avail0 ? "look further" : s.armed ? "sleep" : "arm"),
    "look further": (s) => {
      if (!s.avail1) s.torn = 1;
      return "give back";
    },
    "give back": (s) => {
      s.taken++;
      if (givesFirst) s.avail0 = 0;
      else s.avail1 = 0;
      return "give back last";
    },
    "give back last": (s) => {
      s.avail0 = s.avail1 = 0;
      return s.armed ? "disarm" : "look";
    },
    arm: (s) => {
      s.wantsSignal = 1;
      s.armed = 1;
      return looksOnce ? "sleep" : "look";
    },
    disarm: (s) => {
      s.wantsSignal = 0;
      s.armed = 0;
      return "look";
    },
    sleep: (s) => {
      s.asleep = 1;
      return "wait";
    },
    wait: (s) => {
      if (!blind && s.doorbell !== s.seen) return "awake";
      s.waits = 1;
      return "waits";
    },
    waits: (s) => (s.waits ? "waits" : "awake"),
    awake: (s) => {
      s.asleep = 0;
      return "listen";
    },
    listen: (s) => {
      s.seen = s.doorbell;
      return "disarm";
    },
  };
}

const run = (broken: Broken = {}) =>
  explore<State>({
    state: ZERO,
    threads: { guest: guest(broken), device: device(broken) },
    wrong: (s, _, stuck) => {
      if (s.torn) return "a part of a burst was seen";
      return stuck && (s.posted < BURSTS || s.taken < BURSTS) ? "all wait" : undefined;
    },
  });

test("no burst is seen in part, and nobody sleeps while there is one", () => {
  const { wrong, way, states } = run();
  expect(wrong, way.join("\n")).toBeUndefined();
  expect(states).toBeGreaterThan(100);
});

test.each([
  [{ firstFirst: true }, "a part of a burst was seen"],
  [{ givesFirst: true }, "a part of a burst was seen"],
  [{ looksEarly: true }, "all wait"],
  [{ silent: true }, "all wait"],
  [{ looksOnce: true }, "all wait"],
  [{ blind: true }, "all wait"],
] as [Broken, string][])("%o is found", (broken, wrong) => {
  expect(run(broken).wrong).toBe(wrong);
});

test.each([
  [
    "assembly/vdpdk/driver.ts",
    "static publish(drv: usize): bool {",
    "Sync.store<u32>(first + VdpdkDesc.len … Sync.load<u32>(load<u32>(drv, VdpdkDriver.wantsSignal)) … Doorbell.ring(",
  ],
  [
    "assembly/vdpdk/queue.ts",
    "static giveBack(",
    "store<u16>(d, 0, VdpdkDesc.flags + 96) … store<u16>(d, 0, VdpdkDesc.flags) … Sync.store<u32>(first + VdpdkDesc.len",
  ],
  [
    "assembly/vdpdk/rx.ts",
    "static handOver(",
    "store<u64>(d, <u64>b, VdpdkDesc.SIZE + VdpdkDesc.len) … store<u64>(d, <u64>(word & 0xffff), VdpdkDesc.len) … Sync.store<u32>(first + VdpdkDesc.len",
  ],
  ["assembly/vdpdk/tx.ts", "static complete(", "VdpdkQueues.giveBack(q, done, n)) VdpdkQueues.tell(q)"],
  [
    "assembly/vdpdk/queue.ts",
    "static tell(",
    "Sync.load<u32>(load<u32>(q, VdpdkQueue.wantsInterrupt)) … Doorbell.ring(",
  ],
])("as %s has it: %s", (file, begin, steps) => {
  expect(missingStep(file, begin, steps)).toBeUndefined();
});
