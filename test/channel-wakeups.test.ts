/**
 * Nobody sleeps over a channel that has a message or room for him: all interleavings of its senders, its receiver and of
 * who closes it, and of those in which a step is wrong, which must be found (see doorbell.test.ts).
 */
import { describe, expect, test } from "vitest";
import { END, explore, missingStep, type Program } from "./harness/interleave.ts";

const EMPTY = {
  // src/channel.ts: the header's fields, and who is in a wait.
  head: 0,
  tail: 0,
  closed: 0,
  receiverSleeps: 0,
  receiverWoken: 0,
  sendersSleep: 0,
  sendersWoken: 0,
  receiverWaits: 0,
  aWaits: 0,
  bWaits: 0,
  // What each has noted of the other's count, and how many messages each sender has left.
  receiverSeen: 0,
  aSeen: 0,
  bSeen: 0,
  aLeft: 0,
  bLeft: 0,
};
type Channel = typeof EMPTY;

describe("a channel", () => {
  const wakeReceiver = (next: string): Program<Channel> => ({
    "receiver sleeps?": (s) => (s.receiverSleeps ? "receiver awake" : next),
    "receiver awake": (s) => {
      s.receiverSleeps = 0;
      return "receiver woken";
    },
    "receiver woken": (s) => {
      s.receiverWoken++;
      return "receiver notify";
    },
    "receiver notify": (s) => {
      s.receiverWaits = 0;
      return next;
    },
  });
  /** `sendWait`, over and over; `put` stands for a send under the lock. */
  const sender = (who: "a" | "b", room: number, change: Program<Channel> = {}): Program<Channel> => {
    const put = (full: string) => (s: Channel) => {
      if (!s[`${who}Left`] || s.closed) return END;
      if (s.head - s.tail === room) return full;
      s.head++;
      s[`${who}Left`]--;
      return "receiver sleeps?";
    };
    return {
      put: put("note"),
      ...wakeReceiver("put"),
      note: (s) => {
        s[`${who}Seen`] = s.sendersWoken;
        return "sleep";
      },
      sleep: (s) => {
        s.sendersSleep = 1;
        return "put again";
      },
      "put again": put("closed?"),
      "closed?": (s) => (s.closed ? "put" : "wait"),
      wait: (s) => {
        s[`${who}Waits`] = +(s.sendersWoken === s[`${who}Seen`]);
        return "waits";
      },
      waits: (s) => (s[`${who}Waits`] ? "waits" : "put"),
      ...change,
    };
  };
  /** `wait` and `receiveMany`, until it is closed and empty or has got all messages. */
  const receiver = (change: Program<Channel> = {}): Program<Channel> => ({
    empty: (s) => (!s.aLeft && !s.bLeft && s.head === s.tail ? END : s.head === s.tail ? "closed?" : "take"),
    "closed?": (s) => (s.closed ? "still empty" : "note"),
    "still empty": (s) => (s.head === s.tail ? END : "take"),
    note: (s) => {
      s.receiverSeen = s.receiverWoken;
      return "sleep";
    },
    sleep: (s) => {
      s.receiverSleeps = 1;
      return "empty again";
    },
    "empty again": (s) => (s.head === s.tail ? "closed again" : "empty"),
    "closed again": (s) => (s.closed ? "empty" : "wait"),
    wait: (s) => {
      s.receiverWaits = +(s.receiverWoken === s.receiverSeen);
      return "waits";
    },
    waits: (s) => (s.receiverWaits ? "waits" : "empty"),
    take: (s) => {
      s.tail = s.head;
      return "senders sleep?";
    },
    "senders sleep?": (s) => (s.sendersSleep ? "senders awake" : "empty"),
    "senders awake": (s) => {
      s.sendersSleep = 0;
      return "senders woken";
    },
    "senders woken": (s) => {
      s.sendersWoken++;
      return "senders notify";
    },
    "senders notify": (s) => {
      s.aWaits = 0;
      s.bWaits = 0;
      return "empty";
    },
    ...change,
  });
  const closer: Program<Channel> = {
    close: (s) => {
      s.closed = 1;
      return "receiver woken";
    },
    "receiver woken": (s) => {
      s.receiverWoken++;
      return "receiver notify";
    },
    "receiver notify": (s) => {
      s.receiverWaits = 0;
      return "senders woken";
    },
    "senders woken": (s) => {
      s.sendersWoken++;
      return "senders notify";
    },
    "senders notify": (s) => {
      s.aWaits = 0;
      s.bWaits = 0;
      return END;
    },
  };
  /** Two senders of so many messages each over a ring of `room`, and the receiver. */
  const explored = (
    [a, b]: [number, number],
    room: number,
    more: Record<string, Program<Channel>> = {},
    change: { receiver?: Program<Channel>; sender?: Program<Channel> } = {},
  ) =>
    explore({
      state: { ...EMPTY, aLeft: a, bLeft: b },
      threads: {
        receiver: receiver(change.receiver),
        a: sender("a", room, change.sender),
        b: sender("b", room, change.sender),
        ...more,
      },
      wrong: (_, at, stuck) =>
        stuck
          ? Object.keys(at)
              .find((name) => at[name] !== END)
              ?.concat(" waits for ever")
          : undefined,
    });

  test("wakes its receiver for every message, and its senders when there is room again", () => {
    for (const { wrong, way, states } of [explored([2, 1], 3), explored([1, 1], 1), explored([3, 0], 1)]) {
      expect([wrong, ...way]).toEqual([undefined]);
      expect(states).toBeGreaterThan(500);
    }
  });

  test("wakes all when it is closed", () => {
    const { wrong, way, states } = explored([1, 1], 1, { closer });
    expect([wrong, ...way]).toEqual([undefined]);
    expect(states).toBeGreaterThan(1000);
  });

  test.each<[string, string, Program<Channel>, Program<Channel>]>([
    ["the receiver doesn't look once more", "receiver", { "empty again": () => "closed again" }, {}],
    [
      "the receiver notes the count after it has looked",
      "receiver",
      {
        note: () => "sleep",
        "empty again": (s) => (s.head === s.tail ? "note late" : "empty"),
        "note late": (s) => {
          s.receiverSeen = s.receiverWoken;
          return "wait";
        },
      },
      {},
    ],
    [
      "a sender says that the receiver is awake when it has woken it",
      "receiver",
      {},
      {
        "receiver sleeps?": (s) => (s.receiverSleeps ? "receiver woken" : "put"),
        "receiver notify": (s) => {
          s.receiverWaits = 0;
          return "receiver awake";
        },
        "receiver awake": (s) => {
          s.receiverSleeps = 0;
          return "put";
        },
      },
    ],
    ["a sender doesn't count", "receiver", {}, { "receiver woken": () => "receiver notify" }],
    ["a sender doesn't try once more", "senders", {}, { "put again": () => "closed?" }],
  ])("found: %s", (_what, who, receiver, sender) => {
    const change = { receiver, sender };
    expect(explored([2, 1], who === "senders" ? 1 : 3, {}, change).wrong).toMatch(/waits for ever/);
  });
});

test.each<[string, string, string]>([
  ["src/channel.ts", "  send(", "#publish(next … #wake(RECEIVER_SLEEPS, RECEIVER_WOKEN)"],
  ["src/channel.ts", "  sendMany(", "#publish(head … #wake(RECEIVER_SLEEPS, RECEIVER_WOKEN)"],
  [
    "src/channel.ts",
    "  sendWait(",
    "this.send( … SENDERS_WOKEN … SENDERS_SLEEP, 1 … this.send( … this.closed … Atomics.wait(",
  ],
  ["src/channel.ts", "  #publish(", "HEAD, head"],
  ["src/channel.ts", "  #taken(", "TAIL, tail … #wake(SENDERS_SLEEP, SENDERS_WOKEN)"],
  [
    "src/channel.ts",
    "  wait(",
    "#empty() … this.closed … #empty() … #announceSleep( … #empty() … this.closed … Atomics.wait(",
  ],
  ["src/channel.ts", "  #announceSleep(", "RECEIVER_WOKEN … RECEIVER_SLEEPS, 1"],
  [
    "src/channel.ts",
    "  #wake(",
    "load(this.#words, sleeps) … sleeps, 0 … add(this.#words, woken … notify(this.#words, woken",
  ],
  ["src/channel.ts", "  close(", "CLOSED, 1 … add(this.#words, woken … notify(this.#words, woken"],
])("the model of %s, %s has the code's steps in the code's order", (file, begin, steps) => {
  expect(missingStep(file, begin, steps)).toBeUndefined();
});
