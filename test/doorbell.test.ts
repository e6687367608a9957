/**
 * Nobody sleeps while there is work: all interleavings of the hand-shakes by which threads sleep, wake each other, pause
 * and stop. Each is written down here as a model, step by step as it stands in the code; the last test holds the two
 * together. Each is then broken in the ways that suggest themselves, and every one of those must be found.
 */
import { describe, expect, test } from "vitest";
import { END, type Explored, explore, missingStep, type Program, type Step } from "./harness/interleave.ts";

/** `Poller.idle` of one that is armed and isn't polled, and empty turns until then. */
const ARMED = 9;
const PATIENCE = 1;

enum Command {
  RUN,
  PAUSE,
  STOP,
}

const ZERO = {
  // The lcore's line (layout: `Lcore`), and whether it is in a wait on its doorbell or its command.
  doorbell: 0,
  signals: 0,
  asleep: 0,
  command: Command.RUN as number,
  parked: 1,
  waitsForBell: 0,
  waitsForCommand: 0,
  // What was published to pollers 1 and 2 and not taken, and whether they ask for a ring.
  work1: 0,
  work2: 0,
  armed1: 0,
  armed2: 0,
  // One or two virtqueues: their published index, how far the other side has taken, and the event index.
  idx1: 0,
  idx2: 0,
  taken1: 0,
  taken2: 0,
  event1: 0xffff,
  event2: 0xffff,
  /** What the device has read of `idx1`. */
  known: 0,
  // The lcore's own: what it knows of the doorbell, the signals that it took, its pollers' empty turns, what the last
  // poll moved, and its cursors before it armed.
  seen: 0,
  bits: 0,
  idle1: 0,
  idle2: 0,
  moved: 0,
  cursors: 0,
  // The others': how often they have published, whether something is being changed, whether it was told to stop, what
  // the card has sent.
  times1: 0,
  times2: 0,
  changing: 0,
  stopping: 0,
  sent: 0,
};
type State = typeof ZERO;
type Steps = Program<State>;

/** What a poller polls, as steps that end in `next`; `poll` leaves in `State.moved` what it moved. */
interface Source {
  poll(name: string, next: string): Steps;
  arm(name: string, on: boolean, next: string): Steps;
  cursors(state: State): number;
}

/** Work behind a flag: a ring of descriptors, a card, a virtqueue without event indices. */
const flagged = (i: 1 | 2): Source => ({
  poll: (name, next) => ({
    [name]: (s) => {
      s.moved = s[`work${i}`];
      s[`work${i}`] = 0;
      return next;
    },
  }),
  arm: (name, on, next) => ({
    [name]: (s) => {
      s[`armed${i}`] = +on;
      return next;
    },
  }),
  cursors: () => 0,
});

/** assembly/lcore.ts, `park` and `rest`. */
const REST: Steps = {
  "rest wait": (s) => {
    s.waitsForCommand = +(s.command === Command.PAUSE);
    return "rest waits";
  },
  "rest waits": (s) => (s.waitsForCommand ? "rest waits" : "take back"),
  "take back": (s) => {
    s.parked = 0;
    return "rest command";
  },
  "rest command": (s) =>
    s.command === Command.RUN ? "activate 1" : s.command === Command.STOP ? "left" : "park",
  park: (s) => {
    s.parked = 1;
    return "rest wait";
  },
};

/** Poller `i`, as assembly/lcore.ts has it in `activate`, `answer` and `turn`. */
function poller(i: 1 | 2, source: Source, last: boolean): Steps {
  const idle = `idle${i}` as const;
  const then = (what: string, after: string) => (last ? after : `${what} 2`);
  return {
    [`activate ${i}`]: (s) => {
      s[idle] = 0;
      return `activate ${i} off`;
    },
    ...source.arm(`activate ${i} off`, false, then("activate", "listen")),
    [`(answer ${i})`]: (s) => {
      if (!(s.bits & i) || s[idle] !== ARMED) return last ? "command" : "(answer 2)";
      s[idle] = 0;
      return `answer ${i} off`;
    },
    ...source.arm(`answer ${i} off`, false, last ? "command" : "(answer 2)"),
    [`(turn ${i})`]: (s) => (s[idle] === ARMED ? `(turn ${i} ends)` : `poll ${i}`),
    ...source.poll(`poll ${i}`, `(polled ${i})`),
    [`(polled ${i})`]: (s) => {
      s[idle] = s.moved ? 0 : s[idle] + 1;
      s.cursors = source.cursors(s);
      return s[idle] < PATIENCE ? `(turn ${i} ends)` : `arm ${i}`;
    },
    ...source.arm(`arm ${i}`, true, `look ${i}`),
    ...source.poll(`look ${i}`, `(looked ${i})`),
    [`(looked ${i})`]: (s) => {
      const further = s.moved || s.cursors !== source.cursors(s);
      s[idle] = further ? 0 : ARMED;
      return further ? `disarm ${i}` : `(turn ${i} ends)`;
    },
    ...source.arm(`disarm ${i}`, false, `(turn ${i} ends)`),
    [`(turn ${i} ends)`]: (s) => {
      s.moved = 0;
      s.cursors = 0;
      return last ? "listen" : "(turn 2)";
    },
    ...source.arm(`leave ${i}`, false, then("leave", "left")),
  };
}

/** assembly/lcore.ts, `run`, with one or two pollers; `change`: steps that are otherwise. */
function lcore(sources: readonly Source[], change: Steps = {}): Steps {
  const asleep = (s: State) => sources.every((_, i) => s[i ? "idle2" : "idle1"] === ARMED);
  return {
    ...REST,
    listen: (s) => (s.doorbell !== s.seen ? "note" : "command"),
    note: (s) => {
      s.seen = s.doorbell;
      return "signals";
    },
    signals: (s) => (s.signals ? "take signals" : "command"),
    "take signals": (s) => {
      s.bits = s.signals;
      s.signals = 0;
      return "(answer 1)";
    },
    command: (s) => (s.command === Command.RUN ? "(turn)" : s.command === Command.STOP ? "leave 1" : "park"),
    "(turn)": (s) => {
      s.bits = 0;
      return asleep(s) ? "rung?" : "(turn 1)";
    },
    "rung?": (s) => (s.doorbell !== s.seen ? "listen" : "sleep"),
    sleep: (s) => {
      s.asleep = 1;
      return "wait";
    },
    wait: (s) => {
      s.waitsForBell = +(s.doorbell === s.seen);
      return "waits";
    },
    waits: (s) => (s.waitsForBell ? "waits" : "awake"),
    awake: (s) => {
      s.asleep = 0;
      return "listen";
    },
    ...poller(1, sources[0]!, !sources[1]),
    ...(sources[1] ? poller(2, sources[1], true) : {}),
    left: (s) => {
      s.parked = 1;
      return END;
    },
    ...change,
  };
}

/** assembly/doorbell.ts, `ring`. */
const ring = (i: 1 | 2): Steps => ({
  signal: (s) => {
    s.signals |= i;
    return "bell";
  },
  bell: (s) => {
    s.doorbell++;
    return "asleep?";
  },
  "asleep?": (s) => (s.asleep ? "notify" : "publish"),
  notify: (s) => {
    s.waitsForBell = 0;
    return "publish";
  },
});

/** Publishes work for poller `i`, `times` times: assembly/doorbell.ts, `ringIfArmed`. */
const kicker = (i: 1 | 2, times: number, change: Steps = {}): Steps => ({
  publish: (s) => {
    if (s[`times${i}`] === times) return END;
    s[`times${i}`]++;
    s[`work${i}`]++;
    return "armed?";
  },
  "armed?": (s) => (s[`armed${i}`] ? "signal" : "publish"),
  ...ring(i),
  ...change,
});

/**
 * src/lcore/lcore.ts, `pause` (P), `parked` and a change (C), `resume` (R), `stop` (S), in the order of `script`.
 * `change`: steps that are otherwise.
 */
function controller(script: string, change: Steps = {}): Steps {
  const steps: Record<string, Step<State>> = {};
  [...script].forEach((what, k) => {
    const then = k + 1 < script.length ? `${script[k + 1]}${k + 1}` : END;
    const own = { ...(what === "C" ? paused(then) : commands(what, then)) };
    for (const name of Object.keys(own)) {
      const step = change[name] ?? (own[name] as Step<State>);
      steps[`${name}${k}`] = (s) => {
        const next = step(s);
        return next in own ? `${next}${k}` : next === "then" ? then : next;
      };
    }
  });
  return steps;
}

const paused = (then: string): Steps => ({
  C: (s) => (s.parked ? "change" : "C"),
  change: (s) => {
    s.changing = 1;
    return "changed";
  },
  changed: (s) => {
    s.changing = 0;
    return then;
  },
});

const commands = (what: string, then: string): Steps => ({
  [what]: (s) => {
    s.command = what === "P" ? Command.PAUSE : what === "R" ? Command.RUN : Command.STOP;
    if (what === "S") s.stopping = 1;
    return "wake";
  },
  wake: (s) => {
    s.waitsForCommand = 0;
    return "bell";
  },
  bell: (s) => {
    s.doorbell++;
    return "notify";
  },
  notify: (s) => {
    s.waitsForBell = 0;
    return then;
  },
});

/** Steps at which the lcore reads or writes what is changed while it is paused. */
const TOUCHES = /^(activate|answer|poll|arm|look|disarm|leave) /;

/** What is wrong in a state of an lcore and of those who ring for it; `left`: what there is for it to do. */
function wrongOf(left: (s: State) => number) {
  return (s: State, at: Readonly<Record<string, string>>, stuck: boolean): string | undefined => {
    if (s.changing && TOUCHES.test(at.lcore ?? "")) return "it works on what is being changed";
    if (!stuck) return undefined;
    if (at.controller !== undefined && at.controller !== END) return "the controller waits for ever";
    if (s.stopping && at.lcore !== END) return "it doesn't stop";
    if (!s.stopping && left(s) > 0) return "it sleeps while there is work";
    return undefined;
  };
}
const wrong = wrongOf((s) => s.work1 + s.work2);

/** Nothing is wrong, in at least so many states: they can't be few. */
function holds(explored: Explored, states: number): void {
  expect([explored.wrong, ...explored.way]).toEqual([undefined]);
  expect(explored.states).toBeGreaterThan(states);
}

const set =
  (some: Partial<State>, next: string): Step<State> =>
  (s) => {
    Object.assign(s, some);
    return next;
  };

describe("an lcore that is rung for", () => {
  const sources = [flagged(1), flagged(2)];

  test("wakes for all work, whoever rings for whichever of its pollers", () => {
    const threads = { lcore: lcore(sources), a: kicker(1, 2), b: kicker(2, 1) };
    holds(explore({ state: ZERO, threads, wrong }), 10_000);
  });

  test.each<[string, Steps]>([
    ["it doesn't look once more when it has armed", { "look 1": () => "(looked 1)" }],
    [
      "it looks once more before it arms",
      {
        "(polled 1)": (s) => (s.moved ? "(turn 1 ends)" : "look 1"),
        "(looked 1)": (s) => (s.moved ? "(turn 1 ends)" : "arm 1"),
        "arm 1": set({ armed1: 1, idle1: ARMED }, "(turn 1 ends)"),
      },
    ],
    [
      "it notes the doorbell after it has taken the signals",
      {
        listen: (s) => (s.doorbell !== s.seen ? "signals" : "command"),
        signals: (s) => (s.signals ? "take signals" : "note"),
        "take signals": (s) => {
          s.bits = s.signals;
          s.signals = 0;
          return "note";
        },
        note: (s) => {
          s.seen = s.doorbell;
          return "(answer 1)";
        },
      },
    ],
    [
      "it reads the signals and clears them in two steps",
      {
        "take signals": (s) => {
          s.bits = s.signals;
          return "clear signals";
        },
        "clear signals": set({ signals: 0 }, "(answer 1)"),
      },
    ],
    [
      "it says that it sleeps when it has looked at the doorbell",
      {
        sleep: (s) => (s.doorbell === s.seen ? "wait" : "listen"),
        wait: set({ asleep: 1, waitsForBell: 1 }, "waits"),
      },
    ],
    ["it doesn't say that it sleeps", { sleep: () => "wait" }],
    ["it waits even if the doorbell has moved", { wait: set({ waitsForBell: 1 }, "waits") }],
  ])("found: %s", (_what, change) => {
    const threads = { lcore: lcore(sources, change), a: kicker(1, 2), b: kicker(2, 1) };
    expect(explore({ state: ZERO, threads, wrong }).wrong).toBe("it sleeps while there is work");
  });

  test.each<[string, Steps]>([
    [
      "looks whether it is armed before he publishes",
      {
        publish: (s) => (s.times1 === 2 ? END : s.armed1 ? "publish and ring" : "publish only"),
        "publish only": (s) => {
          s.times1++;
          s.work1++;
          return "publish";
        },
        "publish and ring": (s) => {
          s.times1++;
          s.work1++;
          return "signal";
        },
      },
    ],
    [
      "looks whether it sleeps before he moves the doorbell",
      {
        signal: (s) => {
          s.signals |= 1;
          return s.asleep ? "bell" : "bell only";
        },
        "bell only": (s) => {
          s.doorbell++;
          return "publish";
        },
        bell: (s) => {
          s.doorbell++;
          return "notify";
        },
      },
    ],
    [
      "sets the signal after he has moved the doorbell",
      {
        signal: (s) => {
          s.doorbell++;
          return "bell";
        },
        bell: (s) => {
          s.signals |= 1;
          return "asleep?";
        },
      },
    ],
    ["doesn't move the doorbell", { bell: () => "asleep?" }],
    ["doesn't notify", { notify: () => "publish" }],
  ])("found: who rings %s", (_what, change) => {
    const threads = { lcore: lcore([flagged(1)]), a: kicker(1, 2, change) };
    expect(explore({ state: ZERO, threads, wrong }).wrong).toBe("it sleeps while there is work");
  });
});

describe("an lcore that is paused and stopped", () => {
  const commanded = (script: string, change: { lcore?: Steps; controller?: Steps } = {}) =>
    explore({
      state: ZERO,
      threads: {
        lcore: lcore([flagged(1)], change.lcore),
        controller: controller(script, change.controller),
        a: kicker(1, 1),
      },
      wrong,
    });

  test.each([
    ["once, then it works on", "PCR"],
    ["twice in a row, then it works on", "PCRPCR"],
    ["twice in a row, then stopped", "PCRPCRS"],
    ["when it has been told to stop: by then it touches nothing", "SC"],
    ["in the end of a pause", "PCS"],
  ])("%s, also before it has begun, and whoever rings meanwhile", (_what, script) => {
    holds(commanded(script), 200);
  });

  test.each<[string, string, string, { lcore?: Steps; controller?: Steps }]>([
    [
      "the lcore looks at the command before it notes the doorbell",
      "PCR",
      "the controller waits for ever",
      {
        lcore: {
          "activate 1 off": set({ armed1: 0 }, "command"),
          command: (s) =>
            s.command === Command.RUN ? "listen" : s.command === Command.STOP ? "leave 1" : "park",
          listen: (s) => (s.doorbell !== s.seen ? "note" : "(turn)"),
          signals: (s) => (s.signals ? "take signals" : "(turn)"),
          "(answer 1)": (s) => {
            if (!s.bits || s.idle1 !== ARMED) return "(turn)";
            s.idle1 = 0;
            return "answer 1 off";
          },
          "answer 1 off": set({ armed1: 0 }, "(turn)"),
          awake: set({ asleep: 0 }, "command"),
          "(turn 1 ends)": set({ moved: 0 }, "command"),
        },
      },
    ],
    [
      "the lcore takes `parked` back after it has looked at the command",
      "PCRPCR",
      "it works on what is being changed",
      {
        lcore: {
          "rest waits": (s) => (s.waitsForCommand ? "rest waits" : "rest command"),
          "rest command": (s) =>
            s.command === Command.RUN ? "take back" : s.command === Command.STOP ? "left" : "park",
          "take back": set({ parked: 0 }, "activate 1"),
        },
      },
    ],
    [
      "the lcore doesn't take `parked` back",
      "PCRPCR",
      "it works on what is being changed",
      { lcore: { "take back": () => "rest command" } },
    ],
    [
      "the lcore begins before it looks at the command",
      "PCR",
      "it works on what is being changed",
      { lcore: { "take back": set({ parked: 0 }, "activate 1") } },
    ],
    [
      "the lcore, stopped at rest, still disarms its pollers",
      "SC",
      "it works on what is being changed",
      {
        lcore: {
          "rest command": (s) =>
            s.command === Command.RUN ? "activate 1" : s.command === Command.STOP ? "leave 1" : "park",
        },
      },
    ],
    [
      "a command doesn't move the doorbell",
      "PCR",
      "the controller waits for ever",
      { controller: { bell: () => "notify" } },
    ],
    [
      "a command moves the doorbell first",
      "S",
      "it doesn't stop",
      {
        controller: {
          S: (s) => {
            s.doorbell++;
            return "bell";
          },
          bell: (s) => {
            s.command = Command.STOP;
            s.stopping = 1;
            return "wake";
          },
          wake: (s) => {
            s.waitsForCommand = 0;
            return "notify";
          },
        },
      },
    ],
    [
      "a command doesn't notify who waits on it",
      "PCR",
      "it sleeps while there is work",
      { controller: { wake: () => "bell" } },
    ],
    [
      "a command doesn't notify who waits on the doorbell",
      "PCR",
      "the controller waits for ever",
      { controller: { notify: () => "then" } },
    ],
    ["who has told it to stop pauses and resumes it", "SPCR", "it doesn't stop", {}],
  ])("found: %s", (_what, script, expected, change) => {
    expect(commanded(script, change).wrong).toBe(expected);
  });
});

/** 2.7.10.1: does a move of an index from `old` to `now` pass `event`? */
const passes = (event: number, now: number, old: number) =>
  ((now - event - 1) & 0xffff) < ((now - old) & 0xffff);

/**
 * assembly/virtqueue: buffers published in bursts to a poller that asks for a ring by event index, or (`State.armed1`) as
 * `PackedEvent` says.
 */
const publisher = (queue: 1 | 2, bursts: readonly number[], change: Steps = {}): Steps => {
  const last = (s: State) => bursts[s[`times${queue}`] - 1] as number;
  return {
    publish: (s) => {
      const burst = bursts[s[`times${queue}`]];
      if (burst === undefined) return END;
      s[`times${queue}`]++;
      s[`idx${queue}`] += burst;
      return "event?";
    },
    "event?": (s) => {
      const now = s[`idx${queue}`];
      return passes(s[`event${queue}`], now, now - last(s)) ? "signal" : "publish";
    },
    ...ring(1),
    ...change,
  };
};

/**
 * The device's side of a split queue with event indices: buffers whose bit in `bad` is set are refused, so that taking them
 * moves no frame; `kept` are left in the ring, and what is taken is no frame (IOVTee: the card's).
 */
const device = (bad: number, kept = 0): Source => ({
  poll: (name, next) => ({
    [name]: (s) => {
      s.known = s.idx1;
      s.moved = 0;
      for (; s.taken1 < s.idx1 - kept; s.taken1++) if (!kept && !((bad >> s.taken1) & 1)) s.moved++;
      return next;
    },
  }),
  arm: (name, on, next) => ({
    [name]: (s) => {
      s.event1 = (on ? s.known : s.taken1 - 1) & 0xffff;
      return next;
    },
  }),
  cursors: (s) => (s.taken1 << 8) | s.known,
});

/**
 * The driver's two sides of split queues with event indices: received buffers (1), which are frames, and sent ones (2), which
 * aren't. With `interrupts` it asks for a ring at all times.
 */
const driver = (interrupts: boolean): Source => {
  /** `State.armed1` is `Driver.mode`. */
  const event = (s: State, queue: 1 | 2) => {
    s[`event${queue}`] = (s[`taken${queue}`] - +!(interrupts || s.armed1)) & 0xffff;
  };
  return {
    poll: (name, next) => ({
      [name]: (s) => {
        const some = s.idx2 - s.taken2;
        s.taken2 = s.idx2;
        return some ? `${name} sent event` : `${name} received`;
      },
      [`${name} sent event`]: (s) => {
        event(s, 2);
        return `${name} received`;
      },
      [`${name} received`]: (s) => {
        s.moved = s.idx1 - s.taken1;
        s.taken1 = s.idx1;
        return s.moved ? `${name} received event` : next;
      },
      [`${name} received event`]: (s) => {
        event(s, 1);
        return next;
      },
    }),
    arm: (name, on, next) => ({
      [name]: (s) => {
        if (interrupts) return next;
        s.armed1 = +on;
        event(s, 1);
        return `${name} sent`;
      },
      [`${name} sent`]: (s) => {
        event(s, 2);
        return next;
      },
    }),
    cursors: (s) => (s.taken1 << 8) | s.taken2,
  };
};

enum Suppression {
  DISABLE,
  ENABLE,
  DESC,
}

/** The driver's side of a packed queue with event indices; `State.known` is `Driver.mode`. */
const packedDriver = (interrupts: boolean): Source => ({
  poll: (name, next) => ({
    [name]: (s) => {
      s.moved = s.idx1 - s.taken1;
      s.taken1 = s.idx1;
      return interrupts || s.known ? `${name} event` : next;
    },
    [`${name} event`]: (s) => {
      s.armed1 = Suppression.DESC;
      s.event1 = s.taken1;
      return next;
    },
  }),
  arm: (name, on, next) => ({
    [name]: (s) => {
      if (interrupts) return next;
      s.known = +on;
      s.armed1 = on ? Suppression.ENABLE : Suppression.DISABLE;
      return next;
    },
  }),
  cursors: (s) => s.taken1,
});

const suppressed: Steps = {
  "event?": (s) => {
    const passed = s.armed1 === Suppression.DESC && passes(s.event1, s.idx1, s.idx1 - 1);
    return passed || s.armed1 === Suppression.ENABLE ? "signal" : "publish";
  },
};

describe("an lcore that is rung for by event index", () => {
  const untaken = (s: State) => s.idx1 - s.taken1 + s.idx2 - s.taken2;
  const from = (source: Source, threads: Record<string, Steps>, left = untaken, state = ZERO) =>
    explore({ state, threads: { lcore: lcore([source]), ...threads }, wrong: wrongOf(left) });
  /** A driver that is interrupted asks for the first used buffer from the beginning. */
  const interrupted = { ...ZERO, event1: 0, event2: 0 };

  test("takes all buffers of a virtqueue, whichever of them it has to refuse", () => {
    for (const bursts of [
      [1, 1, 1],
      [1, 2, 1],
      [2, 2],
    ])
      for (let bad = 0; bad < 16; bad++) holds(from(device(bad), { a: publisher(1, bursts) }), 100);
  });

  test("gives the card all of a guest's buffers but for those that are kept", () => {
    for (const bursts of [
      [1, 1, 1, 1],
      [1, 2, 1],
      [3, 1],
    ])
      holds(
        from(device(0, 1), { a: publisher(1, bursts) }, (s) => untaken(s) - 1),
        100,
      );
  });

  test.each([false, true])("sees all used buffers, received and sent (interrupts: %s)", (interrupts) => {
    const threads = { a: publisher(1, [1, 1]), b: publisher(2, [1, 2]) };
    holds(from(driver(interrupts), threads, untaken, interrupts ? interrupted : ZERO), 1000);
  });

  test.each([false, true])("sees all used buffers of a packed queue (interrupts: %s)", (interrupts) => {
    const state = { ...ZERO, armed1: interrupts ? Suppression.DESC : Suppression.DISABLE, event1: 0 };
    const threads = { lcore: lcore([packedDriver(interrupts)]), a: publisher(1, [1, 1, 1], suppressed) };
    holds(explore({ state, threads, wrong: wrongOf(untaken) }), 100);
  });

  const blind = (source: Source): Source => ({ ...source, cursors: () => 0 });
  const early: Steps = {
    publish: (s) => {
      if (s.times1 === 3) return END;
      s.times1++;
      return passes(s.event1, s.idx1 + 1, s.idx1) ? "publish and ring" : "publish only";
    },
    "publish and ring": (s) => {
      s.idx1++;
      return "signal";
    },
    "publish only": (s) => {
      s.idx1++;
      return "publish";
    },
  };
  test.each<[string, () => Explored]>([
    [
      "a look that refuses a buffer counts as one that found nothing",
      () => from(blind(device(0b010)), { a: publisher(1, [1, 1, 1]) }),
    ],
    [
      "a look that only sees sent buffers counts as one that found nothing",
      () => from(blind(driver(false)), { a: publisher(2, [1, 1, 1]) }),
    ],
    [
      "the same with interrupts",
      () => from(blind(driver(true)), { a: publisher(2, [1, 1, 1]) }, untaken, interrupted),
    ],
    [
      "it asks for the first buffer that it hasn't taken, where some are kept",
      () => {
        const source = device(0, 1);
        const arm: Source["arm"] = (name, on, next) => ({
          [name]: (s) => {
            s.event1 = (s.taken1 - +!on) & 0xffff;
            return next;
          },
        });
        return from({ ...source, arm }, { a: publisher(1, [1, 1, 1]) }, (s) => untaken(s) - 1);
      },
    ],
    [
      "who publishes looks at the event index first",
      () => from(device(0), { a: publisher(1, [1, 1, 1], early) }),
    ],
  ])("found: %s", (_what, explored) => {
    expect(explored().wrong).toBe("it sleeps while there is work");
  });
});

describe("an lcore that runs a poller for each interrupt", () => {
  const FRAMES = 3;
  /** assembly/nic.ts, `mask`. */
  const mask = (next: number) => next * 2 + 1;

  /** assembly/lcore.ts, `serve` and `ask`, of which `ask` says what it asks for and where it looks. */
  const served = (ask: (name: string, next: string) => Steps, change: Steps = {}): Steps =>
    lcore([flagged(1)], {
      "activate 1": () => "begins ask",
      ...ask("begins", "listen"),
      "(answer 1)": (s) => (s.bits & 1 ? "serve" : "command"),
      serve: (s) => {
        // One frame for each interrupt.
        if (s.taken1 < s.idx1) s.taken1++;
        else s.times2++;
        return "served ask";
      },
      ...ask("served", "command"),
      "(turn)": (s) => {
        s.bits = 0;
        return "rung?";
      },
      "leave 1": () => "left",
      ...change,
    });

  /** The doorbell that it rings itself: awake, as it is. */
  const itself = (name: string, next: string): Steps => ({
    [`${name} signal`]: (s) => {
      s.signals |= 1;
      return `${name} bell`;
    },
    [`${name} bell`]: (s) => {
      s.doorbell++;
      return next;
    },
  });

  /** assembly/nic.ts, `unmask`; `State.sent` counts interrupts, `times2` those that found no frame. */
  const unmask = (name: string, next: string): Steps => ({
    [`${name} ask`]: (s) => {
      s.armed1 = mask(s.taken1);
      return `${name} look`;
    },
    [`${name} look`]: (s) => (s.idx1 > s.taken1 ? `${name} swap` : next),
    [`${name} swap`]: (s) => {
      if (s.armed1 !== mask(s.taken1)) return next;
      s.armed1 = 0;
      s.sent++;
      return `${name} signal`;
    },
    ...itself(name, next),
  });

  /** assembly/nic.ts, `flushQueue` and `interrupt`; `State.known` is the mask that the card has read. */
  const card = (bursts: readonly number[], change: Steps = {}): Steps => ({
    publish: (s) => {
      const burst = bursts[s.times1];
      if (burst === undefined) return END;
      s.times1++;
      s.idx1 += burst;
      return "mask?";
    },
    "mask?": (s) => {
      s.known = s.armed1;
      return s.known && s.known !== mask(s.idx1) ? "swap" : "publish";
    },
    swap: (s) => {
      if (s.armed1 !== s.known) return "publish";
      s.armed1 = 0;
      s.sent++;
      return "signal";
    },
    ...ring(1),
    ...change,
  });

  const untaken = (s: State) => s.idx1 - s.taken1;
  const found = (s: State, at: Readonly<Record<string, string>>, stuck: boolean) => {
    if (s.times2) return "an interrupt without a frame";
    const wrong = wrongOf(untaken)(s, at, stuck);
    if (wrong !== undefined) return wrong;
    return stuck && s.sent !== s.taken1 ? `${s.sent} interrupts for ${s.taken1} frames` : undefined;
  };
  const interrupted = (bursts: readonly number[], change: { lcore?: Steps; card?: Steps } = {}) =>
    explore({
      state: ZERO,
      threads: { lcore: served(unmask, change.lcore), a: card(bursts, change.card) },
      wrong: found,
    });

  test.each([[[1, 1, 1]], [[2, 1]], [[FRAMES]]])(
    "gets one interrupt for each of the frames of bursts %j, and sleeps over none",
    (bursts) => {
      holds(interrupted(bursts), 100);
    },
  );

  test.each<[string, string, { lcore?: Steps; card?: Steps }]>([
    [
      "the driver doesn't look at what has come already",
      "it sleeps while there is work",
      { lcore: { "begins look": () => "listen", "served look": () => "command" } },
    ],
    [
      "the driver looks before it unmasks",
      "it sleeps while there is work",
      {
        lcore: {
          serve: (s) => {
            s.taken1 += +(s.taken1 < s.idx1);
            return "served look";
          },
          "served look": (s) => (s.idx1 > s.taken1 ? "served signal" : "served ask"),
          "served ask": (s) => {
            s.armed1 = mask(s.taken1);
            return "command";
          },
          "served signal": (s) => {
            s.signals |= 1;
            s.sent++;
            return "served bell";
          },
        },
      },
    ],
    [
      "the card doesn't look whether its frames were taken by then",
      "an interrupt without a frame",
      {
        card: {
          "mask?": (s) => {
            s.known = s.armed1;
            return s.known ? "swap" : "publish";
          },
        },
      },
    ],
    [
      "the card masks without a look whether it was done",
      "an interrupt without a frame",
      {
        card: {
          swap: (s) => {
            s.armed1 = 0;
            s.sent++;
            return "signal";
          },
        },
      },
    ],
    ["the card doesn't ring", "it sleeps while there is work", { card: { bell: () => "asleep?" } }],
  ])("found: %s", (_what, expected, change) => {
    expect(interrupted([1, 1, 1], change).wrong).toBe(expected);
  });

  /** assembly/lcore.ts, `ask`, of a virtqueue whose other side always rings. */
  const look = (name: string, next: string): Steps => ({
    [`${name} ask`]: (s) => (s.idx1 > s.taken1 ? `${name} signal` : next),
    ...itself(name, next),
  });
  const rung: Steps = { "armed?": () => "signal" };
  const always = (change: Steps = {}) => {
    const publish: Step<State> = (s) => {
      if (s.times1 === FRAMES) return END;
      s.times1++;
      s.idx1++;
      return "armed?";
    };
    const threads = { lcore: served(look, change), a: kicker(1, FRAMES, { publish, ...rung }) };
    return explore({ state: ZERO, threads, wrong: wrongOf(untaken) });
  };

  test("takes all that a queue is rung for, one for each run", () => {
    holds(always(), 100);
  });

  /** The same of a driver that asks by event index (VMDq's guest), which it moves first. */
  const byEvent = (name: string, next: string): Steps => ({
    [`${name} ask`]: (s) => {
      s.event1 = s.taken1;
      return `${name} look`;
    },
    [`${name} look`]: (s) => (s.idx1 > s.taken1 ? `${name} signal` : next),
    ...itself(name, next),
  });
  const lookFirst = (name: string, next: string): Steps => ({
    [`${name} ask`]: (s) => (s.idx1 > s.taken1 ? `${name} signal` : `${name} event`),
    [`${name} event`]: (s) => {
      s.event1 = s.taken1;
      return next;
    },
    ...itself(name, next),
  });
  const asking = (ask: typeof byEvent) =>
    explore({
      state: ZERO,
      threads: { lcore: served(ask), a: publisher(1, [1, 2, 1]) },
      wrong: wrongOf(untaken),
    });

  test("takes all that a queue is rung for by event index", () => {
    holds(asking(byEvent), 100);
  });

  test("found: it asks by event index when it has looked", () => {
    expect(asking(lookFirst).wrong).toBe("it sleeps while there is work");
  });

  test("found: it doesn't look when it has taken one", () => {
    expect(always({ "served ask": () => "command" }).wrong).toBe("it sleeps while there is work");
  });
});

describe("a thread that waits for a card to have something to send", () => {
  const FRAMES = 3;
  /** src/roles/nic.ts, `wait` and `transmit`, until all is sent. */
  const waiter = (change: Steps = {}): Steps => ({
    note: (s) => {
      s.seen = s.doorbell;
      return "arm";
    },
    arm: set({ armed1: 1 }, "sleep"),
    sleep: set({ asleep: 1 }, "look"),
    look: (s) => (s.work1 ? "awake" : "wait"),
    wait: (s) => {
      s.waitsForBell = +(s.doorbell === s.seen);
      return "waits";
    },
    waits: (s) => (s.waitsForBell ? "waits" : "moved?"),
    "moved?": (s) => (s.doorbell === s.seen ? "look" : "awake"),
    awake: set({ asleep: 0 }, "disarm"),
    disarm: set({ armed1: 0 }, "transmit"),
    transmit: (s) => {
      s.sent += s.work1;
      s.work1 = 0;
      return s.sent === FRAMES ? END : "note";
    },
    ...change,
  });
  const waits = (change: Steps = {}) =>
    explore({
      state: ZERO,
      threads: { waiter: waiter(change), a: kicker(1, FRAMES) },
      wrong: (_, at, stuck) => (stuck && at.waiter !== END ? "it waits for ever" : undefined),
    });

  test("sees all of it", () => {
    holds(waits(), 100);
  });

  test.each<[string, Steps]>([
    [
      "it looks before it asks",
      {
        note: (s) => (s.work1 ? "transmit" : "note 2"),
        "note 2": (s) => {
          s.seen = s.doorbell;
          return "arm";
        },
        look: () => "wait",
      },
    ],
    ["it doesn't ask", { arm: () => "sleep" }],
    ["it asks without saying that it sleeps", { sleep: () => "look" }],
    [
      "it notes the doorbell after it has looked",
      {
        note: () => "arm",
        look: (s) => (s.work1 ? "awake" : "note late"),
        "note late": (s) => {
          s.seen = s.doorbell;
          return "wait";
        },
      },
    ],
    ["it waits even if the doorbell has moved", { wait: set({ waitsForBell: 1 }, "waits") }],
  ])("found: %s", (_what, change) => {
    expect(waits(change).wrong).toBe("it waits for ever");
  });
});

test.each<[string, string, string]>([
  [
    "assembly/doorbell.ts",
    "static ring(",
    "Sync.or(lcore + Lcore.signals … Sync.add(lcore + Lcore.doorbell, 1) … Lcore.asleep) … notify(",
  ],
  ["assembly/doorbell.ts", "static ringIfArmed(", "load<u32>(armed) … Doorbell.ring("],
  [
    "assembly/lcore.ts",
    "static run(",
    "Lcores.rest( … Lcores.park( … Lcores.listen( … Lcores.park( … Lcores.sleep( … Lcores.turn(",
  ],
  [
    "assembly/lcore.ts",
    "static listen(",
    "Lcore.doorbell … Lcores.answer( … Lcore.command … Lcores.park( … Lcores.rest( … Lcores.activateAll(",
  ],
  ["assembly/lcore.ts", "static park(", "LcoreParked.YES … notify("],
  [
    "assembly/lcore.ts",
    "static rest(",
    "wait<i32>(lcore + Lcore.command, LcoreCommand.PAUSE … LcoreParked.NO … Lcore.command … return false … Lcores.park( … Lcores.activateAll(",
  ],
  ["assembly/lcore.ts", "static activate(", "0, Poller.idle … Lcores.ask(p) … Lcores.arm(p, false)"],
  ["assembly/lcore.ts", "static serve(", "Lcores.pollOne(p) … Lcores.ask(p)"],
  [
    "assembly/lcore.ts",
    "static ask(",
    "Card.unmask(addr) … Drivers.arm(rx, true) … Drivers.isPending( … Doorbell.ring(p) … Device.arm(vq, true) … Device.isPending(vq) … Doorbell.ring(p)",
  ],
  [
    "assembly/nic.ts",
    "static flushQueue(",
    "Sync.store<u32>(p + Packet.len … Sync.load<u32>(q + RxQueue.armed) … armed != Card.mask( … Card.interrupt(",
  ],
  ["assembly/nic.ts", "static interrupt(", "Sync.cas(q + RxQueue.armed, armed, 0) != armed … Doorbell.ring("],
  [
    "assembly/nic.ts",
    "static unmask(",
    "Sync.store<u32>(q + RxQueue.armed … Pmd.received(q) … Card.interrupt(",
  ],
  [
    "assembly/lcore.ts",
    "static answer(",
    "Lcore.doorbell), Lcore.seen … Lcore.signals … load<u32>(at) … Sync.exchange(at, 0) … Lcores.serve(p) … == ARMED … Lcores.activate(",
  ],
  [
    "assembly/lcore.ts",
    "static turn(",
    "pollOne( … idle < patience … Lcores.cursors( … Lcores.arm(p, true) … pollOne( … Lcores.cursors( … Lcores.arm(p, false) … ARMED, Poller.idle",
  ],
  [
    "assembly/lcore.ts",
    "static sleep(",
    "Lcore.doorbell) != load … return … Lcore.asleep, 1 … wait<i32>(lcore + Lcore.doorbell, load<u32>(lcore, Lcore.seen) … Lcore.asleep, 0",
  ],
  [
    "assembly/virtqueue/split-device.ts",
    "publish(vq: usize): bool",
    "SplitUsed.idx, <u16>used … const event = Sync.load … passes(",
  ],
  [
    "assembly/virtqueue/split-driver.ts",
    "publish(drv: usize): bool",
    "SplitAvail.idx, <u16>avail … const event = Sync.load … passes(",
  ],
  [
    "assembly/virtqueue/packed-device.ts",
    "publish(vq: usize): bool",
    "first + PackedDesc.flags … const suppression = Sync.load",
  ],
  [
    "assembly/virtqueue/packed-driver.ts",
    "publish(drv: usize): bool",
    "first + PackedDesc.flags … const suppression = Sync.load",
  ],
  ["assembly/virtqueue/split-driver.ts", "  used(drv", "SplitUsed.idx … usedAnyOrder( … Sync.store<u16>"],
  ["assembly/virtqueue/packed-driver.ts", "  used(drv", "usedSingles( … PackedDesc.flags … Sync.store<u32>"],
  ["assembly/native-driver.ts", "publish(drv: usize): bool", "FunctionRing.tail, avail … ringIfArmed("],
  [
    "assembly/pcifunction.ts",
    "static flush(",
    "FunctionRing.firstWord)); … interrupt(f, rx) … FunctionRing.sent)) return … interrupt(f, tx)",
  ],
  ["assembly/pcifunction.ts", "static interrupt(", "FunctionRing.armed … Doorbell.ring("],
  [
    "src/lcore/lcore.ts",
    "#command(command",
    "store(words, at(Lcore.command) … notify(words, at(Lcore.command) … add(words, at(Lcore.doorbell) … notify(words, at(Lcore.doorbell)",
  ],
  [
    "src/roles/nic.ts",
    "  wait(",
    "load(words, at(lcore + Lcore.doorbell) … armed, 1 … asleep), 1 … toTransmit( … Atomics.wait( … === seen … asleep), 0 … armed, 0",
  ],
])("the model of %s, %s has the code's steps in the code's order", (file, begin, steps) => {
  expect(missingStep(file, begin, steps)).toBeUndefined();
});
