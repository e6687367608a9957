/** The learning bridge (802.1D, 7.7 to 7.9) and its VLANs (802.1Q, 8), by what arrives at which port. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  Directory,
  Guest as GuestLayout,
  MacTable,
  Mapping,
  Packet,
  RxQueue,
  Switch,
} from "../assembly/layout.ts";
import {
  FramePort,
  type Guest,
  Host,
  type HostOptions,
  type Nic,
  parseMac,
  type VSwitchOptions,
} from "../src/index.ts";
import * as frames from "./frames.ts";
import { BROADCAST, frame, numbered, tagged } from "./frames.ts";

const [A, B, C, D] = ["a", "b", "c", "d"].map((x) => `02:00:00:00:0${x}:01`) as [
  string,
  string,
  string,
  string,
];
const MULTICAST = "01:00:5e:00:00:01";

/** Ports on a switch whose clock stands still but where a test moves it. */
class Bridge {
  constructor(
    readonly host: Host,
    readonly ports: FramePort[],
    readonly sw: ReturnType<Host["vswitch"]>,
  ) {}

  /** `connect` takes more than ports; only these are looked at by `from`. */
  static async of(
    n: number,
    options: Partial<VSwitchOptions> = {},
    memory: HostOptions = {},
  ): Promise<Bridge> {
    const host = await Host.create(memory);
    const ports = Array.from({ length: n }, () => host.port());
    return new Bridge(host, ports, host.vswitch({ ...options, connect: ports }));
  }

  set seconds(now: number) {
    this.host.core.setU32(Directory.ADDRESS + Directory.clock, now);
  }

  /** `Host.drain` without its clock. */
  drain(): void {
    this.host.core.exports.drainLcore(this.host.lcore, 1_000_000);
  }

  /** Frames into port `index`; what arrives at each port. */
  from(index: number, ...some: Uint8Array[]): Uint8Array[][] {
    expect(this.ports[index]!.push(some)).toBe(some.length);
    this.drain();
    const arrived = this.ports.map(frames.taken);
    const { pool } = this.host.stats();
    expect(pool.available + pool.outstanding).toBe(pool.buffers);
    return arrived;
  }

  /** The ports at which exactly this frame arrives, and nothing else anywhere. */
  to(index: number, one: Uint8Array): number[] {
    return this.from(index, one).flatMap((some, port) => {
      if (some.length) expect(some).toEqual([one]);
      return some.length ? [port] : [];
    });
  }

  /** Addresses in the table. */
  get known(): number {
    const { core } = this.host;
    return core.u32(core.u32(this.sw.address + Switch.macs) + MacTable.used);
  }

  drops(index: number): Record<string, number> {
    return this.host.stats().ports[index]!.drops;
  }
}

describe("learning", () => {
  test("an unknown destination gets to every port but the source's, a known one to its own only", async () => {
    const b = await Bridge.of(4);
    expect(b.to(0, frame(B, A))).toEqual([1, 2, 3]);
    expect(b.to(1, frame(A, B))).toEqual([0]);
    expect(b.to(0, frame(B, A))).toEqual([1]);
    expect(b.to(2, frame(C, B))).toEqual([0, 1, 3]);
    expect(b.host.stats().pool.outstanding).toBe(0);
  });

  test("a station that moves is found where it sent last, at once", async () => {
    const b = await Bridge.of(3);
    for (const port of [1, 2, 1, 1, 2]) {
      b.from(port, frame(A, B));
      expect(b.to(0, frame(B, A))).toEqual([port]);
    }
    expect(b.known).toBe(2);
  });

  test("an address is forgotten after the ageing time, counted from its last frame", async () => {
    const b = await Bridge.of(3, { ageing: 10 });
    b.seconds = 100;
    b.from(1, frame(A, B));
    b.seconds = 110;
    expect(b.to(0, frame(B, A))).toEqual([1]);
    b.seconds = 111;
    expect(b.to(0, frame(B, A))).toEqual([1, 2]);
    b.from(1, frame(A, B));
    b.seconds = 121;
    expect(b.to(0, frame(B, A))).toEqual([1]);
    b.seconds = 122;
    expect(b.to(0, frame(B, A))).toEqual([1, 2]);
  });

  test("300 seconds unless told otherwise", async () => {
    const b = await Bridge.of(3);
    b.from(1, frame(A, B));
    b.seconds = 300;
    expect(b.to(0, frame(B, A))).toEqual([1]);
    b.seconds = 301;
    expect(b.to(0, frame(B, A))).toEqual([1, 2]);
  });

  test("a group address as a source is not learned, and the frame goes its way", async () => {
    const b = await Bridge.of(3);
    expect(b.to(1, frame(A, MULTICAST))).toEqual([0, 2]);
    expect(b.to(1, frame(A, BROADCAST))).toEqual([0, 2]);
    expect(b.known).toBe(0);
    b.from(1, frame(A, B));
    expect(b.known).toBe(1);
  });

  test("a frame to a station at its own port goes nowhere", async () => {
    const b = await Bridge.of(3);
    b.from(1, frame(A, B));
    expect(b.to(1, frame(B, C))).toEqual([]);
    expect(b.to(1, frame(B, B))).toEqual([]);
    expect(b.drops(1)).toEqual({ hairpin: 2 });
  });

  test("any frames in any bursts go where a model of 802.1D says", async () => {
    const stations = [A, B, C, D];
    const burst = fc.record({
      port: fc.nat(3),
      wait: fc.constantFrom(0, 0, 1, 6, 11),
      frames: fc.array(
        fc.record({
          to: fc.constantFrom(...stations, BROADCAST, MULTICAST),
          from: fc.constantFrom(...stations),
        }),
        {
          minLength: 1,
          maxLength: 40,
        },
      ),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(burst, { minLength: 1, maxLength: 12 }), async (bursts) => {
        const b = await Bridge.of(4, { ageing: 10, burst: 16 }, { memory: 8 << 20, buffers: 512 });
        const table = new Map<string, { port: number; seen: number }>();
        let now = 0;
        let n = 0;
        for (const { port, wait, frames: some } of bursts) {
          now += wait;
          b.seconds = now;
          const expected: number[][] = [[], [], [], []];
          const sent = some.map(({ to, from }) => {
            table.set(from, { port, seen: now });
            const known = table.get(to);
            const where = known && now - known.seen <= 10 ? [known.port] : [0, 1, 2, 3];
            for (const one of where) if (one !== port) expected[one]!.push(n);
            return numbered(frame(to, from), n++);
          });
          expect(b.from(port, ...sent).map((all) => all.map(frames.numberOf))).toEqual(expected);
        }
        expect(b.host.stats().pool.outstanding).toBe(0);
      }),
      { seed: 11, numRuns: 100 },
    );
  });
});

describe("group addresses", () => {
  test.each([BROADCAST, MULTICAST, "33:33:00:00:00:01", "01:80:c2:00:00:10"])(
    "%s gets to every port but the source's",
    async (mac) => {
      const b = await Bridge.of(5);
      expect(b.to(2, frame(mac, A))).toEqual([0, 1, 3, 4]);
      expect(b.to(2, frame(mac, A))).toEqual([0, 1, 3, 4]);
      b.from(3, frame(A, B)); // stations that are known change nothing
      expect(b.to(2, frame(mac, A))).toEqual([0, 1, 3, 4]);
    },
  );

  test.each(["01:80:c2:00:00:00", "01:80:c2:00:00:0e", "01:80:c2:00:00:0f"])(
    "%s stays on its link",
    async (mac) => {
      const b = await Bridge.of(3);
      expect(b.to(0, frame(mac, A))).toEqual([]);
      expect(b.drops(0)).toEqual({ linkLocal: 1 });
    },
  );

  test("what is for one and what is for all arrive in the order in which they were sent", async () => {
    const b = await Bridge.of(3);
    b.from(1, frame(A, B));
    const sent = [B, BROADCAST, B, C, B, B, MULTICAST].map((to, i) => numbered(frame(to, A), i));
    const [own, one, two] = b.from(0, ...sent).map((some) => some.map(frames.numberOf));
    expect(own).toEqual([]);
    expect(one).toEqual([0, 1, 2, 3, 4, 5, 6]);
    expect(two).toEqual([1, 3, 6]);
  });

  test("what is for all where there is no other port is dropped and counted", async () => {
    const b = await Bridge.of(1);
    expect(b.to(0, frame(A, A))).toEqual([]); // its source is known: not for all
    expect(b.from(0, frame(BROADCAST, A), frame(A, B), frame(C, A), frame(MULTICAST, A))).toEqual([[]]);
    expect(b.drops(0)).toEqual({ hairpin: 2, noEgressPort: 3 });
    expect(b.host.stats().pool.outstanding).toBe(0);
    b.sw.connect(b.host.port());
    b.from(0, frame(BROADCAST, A));
    expect(b.drops(0)).toEqual({ hairpin: 2, noEgressPort: 3 });
  });

  test("guests and cards get their copy too", async () => {
    const host = await Host.create();
    const [port, nic] = [host.port(), host.nic()];
    const guests = (["vhost", "iovtee"] as const).map((attach) => host.guest({ attach, run: "sink" }));
    host.vswitch({ connect: [port, nic, ...guests] });
    port.push([frame(BROADCAST, A), frame(MULTICAST, A)]);
    host.drain();
    expect(frames.taken(port)).toEqual([]);
    expect(frames.sent(nic)).toEqual([frame(BROADCAST, A), frame(MULTICAST, A)]);
    expect(host.stats().guests.map(({ received }) => received)).toEqual([2, 2]);
    nic.receive([frame(BROADCAST, B)]);
    host.drain();
    expect(frames.sent(nic)).toEqual([]);
    expect(frames.taken(port)).toEqual([frame(BROADCAST, B)]);
    expect(host.stats().guests.map(({ received }) => received)).toEqual([3, 3]);
  });
});

describe("a full table", () => {
  const station = (i: number) => `02:00:00:00:10:${i.toString(16).padStart(2, "0")}`;

  test("more stations than it holds: every frame still arrives", async () => {
    const b = await Bridge.of(3, { macs: 4 });
    for (let round = 0; round < 3; round++) {
      b.seconds = round;
      for (let i = 0; i < 20; i++) b.from(1, frame(A, station(i)));
      expect(b.known).toBe(4);
      for (let i = 0; i < 20; i++) expect(b.to(0, frame(station(i), A))).toContain(1);
    }
  });

  test("the oldest address makes room for a new one", async () => {
    const b = await Bridge.of(3, { macs: 4 });
    [3, 1, 2, 4].forEach((second, i) => {
      b.seconds = second;
      b.from(1, frame(BROADCAST, station(i)));
    });
    b.seconds = 5;
    b.from(1, frame(BROADCAST, station(4)));
    b.ports[0]!.push([0, 1, 2, 3, 4].map((i) => numbered(frame(station(i), MULTICAST), i)));
    b.drain();
    expect(frames.taken(b.ports[2]!).map(frames.numberOf)).toEqual([1]); // flooded: not known any more
  });

  test("guests' addresses are never pushed out; with no place left all else is flooded", async () => {
    const host = await Host.create();
    const ports = [host.port(), host.port()];
    const guests = Array.from({ length: 4 }, () => host.guest({ attach: "vhost", run: "sink", ring: 16 }));
    const b = new Bridge(host, ports, host.vswitch({ connect: [...ports, ...guests], macs: 4 }));
    b.from(1, frame(BROADCAST, A));
    expect(b.to(0, frame(A, B))).toEqual([1]); // and to the guests
    for (const guest of guests) expect(b.to(0, frame(guest.mac, B))).toEqual([]);
    expect(host.stats().guests.map(({ received }) => received)).toEqual([3, 3, 3, 3]);
    const more = host.guest({ attach: "vhost", ring: 16 });
    expect(() => b.sw.connect(more)).toThrow(/macs: no place for/);
  });

  test.each([0, 1, 2, 3, 12, 131072, -4, 4.5, Number.NaN])("a table of %d is refused", async (macs) => {
    await expect(Bridge.of(2, { macs })).rejects.toThrow(
      new RangeError(`macs: ${macs}, expected a power of two from 4 to 65536`),
    );
  });
});

describe("guests' addresses", () => {
  async function rig() {
    const host = await Host.create();
    const ports = [host.port(), host.port()];
    const guests = [1, 2].map(() => host.guest({ attach: "vhost", run: "l2fwd", ring: 16 })) as [
      Guest,
      Guest,
    ];
    const b = new Bridge(host, ports, host.vswitch({ connect: [...ports, ...guests] }));
    return { b, host, guests, received: () => host.stats().guests.map(({ received }) => received) };
  }

  test("are known from the start and don't age", async () => {
    const { b, guests, received } = await rig();
    expect(b.from(0, frame(guests[0].mac, A)).map((some) => some.length)).toEqual([1, 0]); // the answer
    b.seconds = 1_000_000;
    b.from(0, frame(guests[0].mac, A));
    expect(received()).toEqual([2, 0]);
  });

  test("nobody else can send from them: dropped, counted, and the guest keeps its frames", async () => {
    const { b, guests, received } = await rig();
    expect(b.to(1, frame(A, guests[0].mac))).toEqual([]);
    expect(b.to(1, frame(BROADCAST, guests[0].mac))).toEqual([]);
    expect(b.drops(1)).toEqual({ spoofed: 2 });
    b.from(0, frame(guests[0].mac, A));
    expect(received()).toEqual([1, 0]);
  });

  test("not another guest either", async () => {
    const { b, host, guests, received } = await rig();
    host.core.view.setBigUint64(guests[1].address + GuestLayout.mac, parseMac(guests[0].mac), true);
    expect(b.from(0, frame(guests[1].mac, A))).toEqual([[], []]); // its answer is from the other's address
    expect(b.drops(3)).toEqual({ spoofed: 1 });
    b.from(0, frame(guests[0].mac, A));
    expect(received()).toEqual([1, 1]);
  });
});

describe("frames that the card's filter steers", () => {
  /** A card, a guest whose frames it steers to a queue of its own, one whose it doesn't, and a port. */
  async function rig() {
    const host = await Host.create();
    const [nic, port] = [host.nic(), host.port()];
    const mapped = host.guest({ attach: "iovtee", run: "l2fwd" });
    const other = host.guest({ attach: "vhost", run: "l2fwd" });
    const sw = host.vswitch({ connect: [nic, port, mapped, other] });
    const received = (...some: Uint8Array[]) => {
      expect(nic.receive(some)).toBe(some.length);
      host.drain();
      expect(frames.astray(host)).toBe(0);
      return host.stats().guests.map((guest) => guest.received);
    };
    return { host, nic, port, mapped, other, sw, received };
  }

  test.each([60, 1514, 9000])(
    "teach their source: the answer to %i bytes goes to the card alone",
    async (size) => {
      const { nic, port, mapped, received } = await rig();
      expect(received(frame(mapped.mac, A, size))).toEqual([1, 0]);
      expect(frames.sent(nic)).toEqual([frame(A, mapped.mac, size)]);
      expect(frames.taken(port)).toEqual([]);
    },
  );

  test("of several buffers between others teach theirs too", async () => {
    const { nic, port, mapped, received } = await rig();
    received(
      frame(mapped.mac, A),
      frame(mapped.mac, B, 5000),
      frame(mapped.mac, C),
      frame(mapped.mac, D, 9000),
    );
    expect(frames.sent(nic)).toHaveLength(4);
    frames.taken(port);
    received(frame(mapped.mac, B), frame(mapped.mac, D));
    expect(frames.sent(nic)).toHaveLength(2);
    expect(frames.taken(port)).toEqual([]);
  });
});

describe("spoofed frames that the card's filter steers", () => {
  async function rig() {
    const host = await Host.create();
    const nic = host.nic();
    const mapped = host.guest({ attach: "iovtee", run: "sink" });
    const other = host.guest({ attach: "vhost", run: "sink" });
    const sw = host.vswitch({ connect: [nic, mapped, other] });
    const received = (...some: Uint8Array[]) => {
      expect(nic.receive(some)).toBe(some.length);
      host.drain();
      expect(frames.astray(host)).toBe(0);
      return host.stats().guests.map((guest) => guest.received);
    };
    return { host, nic, mapped, other, sw, received, drops: () => host.stats().ports[0]!.drops };
  }

  test("are dropped one by one where a copy is made: each is read", async () => {
    const { nic, mapped, other, sw, received, drops } = await rig();
    nic.steer(other.mac, 0, 0, sw.indexOf(other));
    const [good, bad] = [frame(other.mac, A), frame(other.mac, mapped.mac)];
    expect(received(good, bad, bad, good, bad)).toEqual([0, 2]);
    expect(drops()).toEqual({ spoofed: 3 });
  });

  test("are dropped if they take several buffers", async () => {
    const { mapped, other, received, drops } = await rig();
    const [good, bad] = [A, other.mac].map((from) => frame(mapped.mac, from, 9000)) as [
      Uint8Array,
      Uint8Array,
    ];
    expect(received(good, bad, good)).toEqual([2, 0]);
    expect(drops()).toEqual({ spoofed: 1 });
    for (let i = 0; i < 100; i++) received(bad);
    expect(received(good)).toEqual([3, 0]); // the guest's buffers came back
    expect(drops()).toEqual({ spoofed: 101 });
  });

  test.each([1, 2, 32])("are dropped of a burst of %i that begins with one", async (burst) => {
    const { mapped, other, received, drops } = await rig();
    const [good, bad] = [A, other.mac].map((from) => frame(mapped.mac, from)) as [Uint8Array, Uint8Array];
    expect(received(...Array(burst).fill(bad))).toEqual([0, 0]);
    expect(drops()).toEqual({ spoofed: burst });
    expect(received(bad, good, bad, good)).toEqual([2, 0]);
    expect(drops()).toEqual({ spoofed: burst + 2 });
  });
});

describe("counters of a port", () => {
  const port = (name: string, more: object) => ({
    name,
    rxPackets: 0,
    rxBytes: 0,
    txPackets: 0,
    txBytes: 0,
    copies: 0,
    copiedBytes: 0,
    notifications: 0,
    drops: {},
    ...more,
  });

  test("packets and bytes in and out; what goes to one port isn't copied, what goes to all is", async () => {
    const b = await Bridge.of(3);
    b.from(0, frame(B, A, 14), frame(BROADCAST, A, 100));
    b.from(1, frame(A, B, 1000), frame(A, B, 15), frame(B, B, 60));
    expect(b.host.stats().ports).toEqual([
      port("port0", { rxPackets: 2, rxBytes: 114, txPackets: 2, txBytes: 1015 }),
      port("port1", {
        rxPackets: 3,
        rxBytes: 1075,
        txPackets: 2,
        txBytes: 114,
        copies: 2,
        copiedBytes: 114,
        drops: { hairpin: 1 },
      }),
      port("port2", { txPackets: 2, txBytes: 114, copies: 2, copiedBytes: 114 }),
    ]);
  });

  test("a full port drops and counts, and the others lose nothing", async () => {
    const b = await Bridge.of(3);
    const { SLOTS } = FramePort;
    for (let n = 0; n < SLOTS + 10; n += 2) {
      b.ports[0]!.push([numbered(frame(BROADCAST, A), n), numbered(frame(BROADCAST, A), n + 1)]);
      b.drain();
      if (n + 2 === SLOTS) expect(frames.taken(b.ports[2]!)).toHaveLength(SLOTS);
    }
    const all = Array.from({ length: SLOTS + 10 }, (_, i) => i);
    expect(frames.taken(b.ports[1]!).map(frames.numberOf)).toEqual(all.slice(0, SLOTS));
    expect(frames.taken(b.ports[2]!).map(frames.numberOf)).toEqual(all.slice(SLOTS));
    expect(b.host.stats().ports.map(({ txPackets, drops }) => [txPackets, drops])).toEqual([
      [0, {}],
      [SLOTS, { full: 10 }],
      [SLOTS + 10, {}],
    ]);
    expect(b.host.stats().pool.outstanding).toBe(0);
  });

  test("without a host buffer for a copy the port that should have got it counts it", async () => {
    const b = await Bridge.of(3, {}, { buffers: 4 });
    expect(
      b
        .from(0, ...[0, 1, 2].map((n) => numbered(frame(BROADCAST, A), n)))
        .map((some) => some.map(frames.numberOf)),
    ).toEqual([
      [],
      [0], // the fourth buffer
      [],
    ]);
    expect([b.drops(0), b.drops(1), b.drops(2)]).toEqual([{}, { noBuffer: 2 }, { noBuffer: 3 }]);
    expect(b.host.stats().pool.outstanding).toBe(0);
  });
});

describe("VLANs", () => {
  const [TRUNK, FIVE, SIX, FIVE2, MIXED, TRUNK2, NONE] = [0, 1, 2, 3, 4, 5, 6];

  /** Two trunks, access ports to 5 and 6, one with 5 untagged and 6 tagged, one that is in no VLAN. */
  async function rig() {
    const b = await Bridge.of(7, { vlanAware: true });
    const set = (port: number, pvid: number, more: number[] = []) => b.sw.vlan(b.ports[port]!, pvid, more);
    set(TRUNK!, 0, [5, 6, 4094]);
    set(FIVE!, 5);
    set(SIX!, 6);
    set(FIVE2!, 5);
    set(MIXED!, 5, [6]);
    set(TRUNK2!, 0, [5, 6]);
    return b;
  }
  /** What arrives where: "-" untagged, else the tag's 16 bits. The frame itself must be `one`. */
  const arrivals = (b: Bridge, port: number, sent: Uint8Array, one: Uint8Array) =>
    b.from(port, sent).map((some) =>
      some.map((got) => {
        if (Buffer.compare(got, one) === 0) return "-";
        const tag = (got[14]! << 8) | got[15]!;
        expect(got).toEqual(tagged(one, tag));
        return tag;
      }),
    );

  test("an untagged frame is in its port's VLAN: tagged to trunks, untagged where the VLAN is a port's own", async () => {
    const b = await rig();
    const one = frame(BROADCAST, A);
    expect(arrivals(b, FIVE!, one, one)).toEqual([[5], [], [], ["-"], ["-"], [5], []]);
    expect(arrivals(b, SIX!, one, one)).toEqual([[6], [], [], [], [6], [6], []]);
    expect(arrivals(b, MIXED!, one, one)).toEqual([[5], ["-"], [], ["-"], [], [5], []]);
  });

  test("a tagged frame is in its tag's VLAN; other trunks get the tag as it is, priority and all", async () => {
    const b = await rig();
    const one = frame(BROADCAST, A);
    expect(arrivals(b, TRUNK!, tagged(one, 0xf005), one)).toEqual([
      [],
      ["-"],
      [],
      ["-"],
      ["-"],
      [0xf005],
      [],
    ]);
    expect(arrivals(b, TRUNK!, tagged(one, 6), one)).toEqual([[], [], ["-"], [], [6], [6], []]);
    expect(arrivals(b, MIXED!, tagged(one, 6), one)).toEqual([[6], [], ["-"], [], [], [6], []]);
    expect(b.drops(TRUNK!)).toEqual({});
    // Nobody else is in the last VLAN.
    expect(arrivals(b, TRUNK!, tagged(one, 4094), one)).toEqual([[], [], [], [], [], [], []]);
    expect(b.drops(TRUNK!)).toEqual({ noEgressPort: 1 });
  });

  test.each([
    ["untagged on a trunk", TRUNK, frame(BROADCAST, A)],
    ["priority-tagged on a trunk", TRUNK, tagged(frame(BROADCAST, A), 0xe000)],
    ["with another VLAN's tag on an access port", FIVE, tagged(frame(BROADCAST, A), 6)],
    ["with a VLAN's tag that the trunk isn't in", TRUNK, tagged(frame(BROADCAST, A), 7)],
    ["on a port that is in no VLAN", NONE, frame(BROADCAST, A)],
  ])("dropped and counted: %s", async (_name, port, sent) => {
    const b = await rig();
    expect(b.from(port!, sent).flat()).toEqual([]);
    expect(b.drops(port!)).toEqual({ vlan: 1 });
    expect(b.host.stats().ports[port!]).toMatchObject({ rxPackets: 1, rxBytes: sent.length });
    expect(b.known).toBe(0); // nor is its source learned
  });

  test("a frame with only a priority is in the port's VLAN, and its tag is taken off for another such port", async () => {
    const b = await rig();
    const one = frame(BROADCAST, A);
    const got = arrivals(b, FIVE!, tagged(one, 0xe000), one);
    expect([got[FIVE2!], got[MIXED!], got[SIX!]]).toEqual([["-"], ["-"], []]);
  });

  test.each([
    [0xe000, 60],
    [0x0000, 60],
    [0x7000, 14],
    [0x2000, 9000],
  ])(
    "to a trunk a tag %i of only a priority gets the VLAN's number, frame of %i (802.1Q, 6.9)",
    async (tag, size) => {
      const host = await Host.create();
      const [access, trunk, other] = [host.nic(), host.nic(), host.nic()];
      const sw = host.vswitch({ connect: [access, trunk, other], vlanAware: true });
      sw.vlan(access, 5);
      for (const one of [trunk, other]) sw.vlan(one, 0, [5, 6]);
      const sends = (one: Uint8Array) => {
        access.receive([one]);
        host.drain();
        return [trunk, other].map(frames.sent);
      };
      const flooded = tagged(frame(B, A, size), tag | 5);
      expect(sends(tagged(frame(B, A, size), tag))).toEqual([[flooded], [flooded]]);
      other.receive([tagged(frame(A, B), 5)]);
      host.drain();
      frames.sent(access);
      expect(sends(tagged(frame(B, A, size), tag))).toEqual([[], [tagged(frame(B, A, size), tag | 5)]]);
      expect(frames.astray(host)).toBe(0);
    },
  );

  test.each([14, 15, 16, 17])("a frame of %i bytes that ends in its tag is a runt", async (size) => {
    const b = await rig();
    const [five, priority] = [5, 0xe000].map((tag) => tagged(frame(BROADCAST, A), tag).subarray(0, size));
    for (const port of [FIVE, TRUNK, MIXED]) {
      expect(b.from(port!, five!, priority!).flat()).toEqual([]);
      expect(b.drops(port!)).toEqual({ runt: 2 });
    }
    expect(b.known).toBe(0);
  });

  test("a known station gets its frame alone, tagged as its port wants it", async () => {
    const b = await rig();
    b.from(FIVE!, frame(BROADCAST, A));
    b.from(TRUNK!, tagged(frame(BROADCAST, B), 5));
    const [there, back] = [frame(B, A), frame(A, B)];
    expect(arrivals(b, FIVE!, there, there)).toEqual([[5], [], [], [], [], [], []]);
    expect(arrivals(b, TRUNK!, tagged(back, 5), back)).toEqual([[], ["-"], [], [], [], [], []]);
    const third = frame(A, C);
    expect(arrivals(b, MIXED!, third, third)).toEqual([[], ["-"], [], [], [], [], []]);
    expect(arrivals(b, TRUNK2!, tagged(there, 0xa005), there)).toEqual([[0xa005], [], [], [], [], [], []]);
    expect(b.host.stats().pool.outstanding).toBe(0);
  });

  test("a VLAN's stations are unknown in another: the same address can be at two places", async () => {
    const b = await rig();
    b.from(FIVE!, frame(BROADCAST, A));
    const one = frame(A, B);
    // In VLAN 6 nobody knows it: flooded there, and never to a port of VLAN 5.
    expect(arrivals(b, TRUNK!, tagged(one, 6), one)).toEqual([[], [], ["-"], [], [6], [6], []]);
    b.from(SIX!, frame(BROADCAST, A));
    expect(arrivals(b, TRUNK!, tagged(one, 6), one)).toEqual([[], [], ["-"], [], [], [], []]);
    expect(arrivals(b, TRUNK!, tagged(one, 5), one)).toEqual([[], ["-"], [], [], [], [], []]);
  });

  test.each([14, 15, 18, 60, 2044])("a tag is put on and taken off a frame of %i bytes", async (size) => {
    const b = await rig();
    const one = frame(BROADCAST, A, size);
    expect(arrivals(b, FIVE!, one, one)[TRUNK!]).toEqual([5]);
    expect(arrivals(b, TRUNK!, tagged(one, 5), one)[FIVE!]).toEqual(["-"]);
  });

  test("an inner tag is only payload", async () => {
    const b = await rig();
    const inner = tagged(frame(BROADCAST, A), 6);
    expect(arrivals(b, TRUNK!, tagged(inner, 5), inner)).toEqual([[], ["-"], [], ["-"], ["-"], [5], []]);
  });

  test("a port that leaves a VLAN gets no more of it", async () => {
    const b = await rig();
    b.from(FIVE!, frame(BROADCAST, B));
    b.sw.vlan(b.ports[FIVE!]!, 6);
    const one = frame(B, A);
    expect(b.from(FIVE2!, one).flat()).toEqual([]); // known there still, and not in the VLAN any more
    expect(b.drops(FIVE!)).toEqual({ vlan: 1 });
    expect(arrivals(b, SIX!, frame(BROADCAST, A), frame(BROADCAST, A))[FIVE!]).toEqual(["-"]);
  });

  test("counters: each port's bytes are those that it got, tag or not", async () => {
    const b = await rig();
    b.from(FIVE!, frame(BROADCAST, A, 100));
    const bytes = b.host.stats().ports.map(({ rxBytes, txBytes }) => [rxBytes, txBytes]);
    expect(bytes).toEqual([
      [0, 104],
      [100, 0],
      [0, 0],
      [0, 100],
      [0, 100],
      [0, 104],
      [0, 0],
    ]);
  });

  test("a VLAN is a number from 1 to 4094, and a port must be connected", async () => {
    const b = await rig();
    expect(() => b.sw.vlan(b.ports[0]!, 4095)).toThrow(/VLAN 4095, expected 1 to 4094/);
    expect(() => b.sw.vlan(b.ports[0]!, 5, [0])).toThrow(/VLAN 0, expected 1 to 4094/);
    expect(() => b.sw.vlan(b.host.port(), 5)).toThrow(/not connected/);
  });

  describe.each(["vhost", "iovtee"] as const)("a guest over %s behind a card that is a trunk", (attach) => {
    async function trunk(pvid: number, more: number[] = []) {
      const host = await Host.create();
      const nic: Nic = host.nic();
      const guest = host.guest({ attach, run: "macswap" });
      const other = host.guest({ attach, run: "sink" });
      const sw = host.vswitch({ connect: [nic, guest, other], vlanAware: true });
      sw.vlan(nic, 0, [5, 6]);
      sw.vlan(guest, pvid, more);
      sw.vlan(other, 6);
      const back = (...some: Uint8Array[]) => {
        nic.receive(some);
        host.drain();
        return frames.sent(nic);
      };
      return { host, guest, back };
    }

    test.each([60, 1514, 9000])("gets %i bytes untagged, and its answer goes out tagged", async (size) => {
      const { guest, back, host } = await trunk(5);
      expect(
        back(tagged(frame(guest.mac, A, size), 5)).map((one) =>
          Buffer.compare(one, tagged(frame(A, guest.mac, size), 5)),
        ),
      ).toEqual([0]);
      expect(host.stats().guests).toMatchObject([{ received: 1 }, { received: 0 }]);
    });

    test("gets tagged what is tagged for it", async () => {
      const { guest, back } = await trunk(0, [5]);
      expect(back(tagged(frame(guest.mac, A), 0x6005))).toEqual([tagged(frame(A, guest.mac), 0x6005)]);
    });

    test("gets nothing of another VLAN", async () => {
      const { guest, back, host } = await trunk(5);
      expect(back(tagged(frame(guest.mac, A), 6), tagged(frame(BROADCAST, A), 6))).toEqual([]);
      // Flooded in VLAN 6; but what the card wrote to the guest's memory is no longer believed to have been for that VLAN.
      const flooded = attach === "vhost" ? 2 : 1;
      expect(host.stats().guests).toMatchObject([{ received: 0 }, { received: flooded }]);
      expect(host.stats().ports[0]?.drops).toEqual(attach === "vhost" ? {} : { vlan: 1 });
      expect(frames.astray(host)).toBe(0); // also those in which the tags were taken off
    });
  });

  test("a mapped guest that rewrites what the card wrote to its memory gets nothing into another VLAN", async () => {
    const host = await Host.create();
    const nic = host.nic();
    const [hostile, other] = [host.guest({ run: "sink" }), host.guest({ run: "sink" })];
    const sw = host.vswitch({ connect: [nic, hostile, other], vlanAware: true });
    sw.vlan(nic, 0, [5, 6]);
    sw.vlan(hostile, 5);
    sw.vlan(other, 6);
    const { core } = host;
    const queue = core.u32(hostile.mapping + Mapping.queue);
    const descriptor = core.u32(queue + RxQueue.ring) + core.u32(queue + RxQueue.next) * Packet.SIZE;
    nic.receive([tagged(frame(hostile.mac, A), 5)]);
    const written = core.u32(descriptor + Packet.addr);
    expect(written - hostile.region).toBeGreaterThan(0);
    core.bytes.set(tagged(frame(other.mac, A), 6), written);
    host.drain();
    expect(host.stats().guests).toMatchObject([{ received: 0 }, { received: 0 }]);
    expect(host.stats().ports[0]?.drops).toEqual({ vlan: 1 });
    // Nor has the switch learned from it where that station is in the other VLAN.
    expect(core.u32(core.u32(sw.address + Switch.macs) + MacTable.used)).toBe(4); // two guests, in VLAN 0 and their own
  });

  test("nothing can be connected twice: two switches would take from one queue", async () => {
    const host = await Host.create();
    const [nic, port, guest] = [host.nic(), host.port(), host.guest()];
    expect(() => host.vswitch({ connect: [port, nic, nic] })).toThrow(
      "nic0: connected to switch0 already, expected to one switch, once",
    );
    const sw = host.vswitch({ connect: [nic, guest] }); // the one that couldn't be made has none of them
    for (const one of [nic, guest]) expect(() => host.vswitch({ connect: [port, one] })).toThrow("already");
    sw.connect(port);
    expect(() => sw.connect(port)).toThrow("port0: connected to switch0 already");
  });

  test("two guests can't have one address", async () => {
    const host = await Host.create();
    const twins = [host.guest({ mac: "02:00:00:00:00:0a" }), host.guest({ mac: "02:00:00:00:00:0A" })];
    expect(() => host.vswitch({ connect: twins })).toThrow(
      "mac: 02:00:00:00:00:0A of guest1 is that of guest0, expected one of its own",
    );
  });

  test("a guest's address is known in its VLAN from the start, and nobody else can send from it", async () => {
    const host = await Host.create();
    const ports = [host.port(), host.port()];
    const guest = host.guest({ attach: "vhost", run: "sink" });
    const b = new Bridge(host, ports, host.vswitch({ connect: [...ports, guest], vlanAware: true }));
    for (const one of [...ports, guest]) b.sw.vlan(one, 5);
    expect(b.to(1, frame(BROADCAST, guest.mac))).toEqual([]);
    expect(b.drops(1)).toEqual({ spoofed: 1 });
    expect(b.to(0, frame(guest.mac, A))).toEqual([]);
    expect(host.stats().guests).toMatchObject([{ received: 1 }]);
  });

  describe("a guest's address", () => {
    /** Ports A and B and a guest; A and B are trunks of VLANs 5 to 8. */
    async function guarded(options: Partial<VSwitchOptions> = {}) {
      const host = await Host.create();
      const ports = [host.port(), host.port()];
      const guest = host.guest({ attach: "vhost", run: "sink" });
      const b = new Bridge(
        host,
        ports,
        host.vswitch({ ...options, connect: [...ports, guest], vlanAware: true }),
      );
      for (const port of ports) b.sw.vlan(port, 0, [5, 6, 7, 8]);
      /** In which VLANs nobody else can send from it. */
      const guardedIn = () =>
        [5, 6, 7, 8].filter((vlan) => {
          const before = b.drops(1).spoofed ?? 0;
          b.from(1, tagged(frame(BROADCAST, guest.mac), vlan));
          return (b.drops(1).spoofed ?? 0) > before;
        });
      /** In which VLANs the guest alone gets what is sent to it. */
      const knownIn = () =>
        [5, 6, 7, 8].filter((vlan) => {
          const before = host.stats().guests[0]!.received;
          const others = b.from(0, tagged(frame(guest.mac, A), vlan)).flat();
          return host.stats().guests[0]!.received > before && others.length === 0;
        });
      return { b, host, guest, guardedIn, knownIn };
    }

    test("is its own in every VLAN that it is in, tagged or not", async () => {
      const { b, guest, guardedIn, knownIn } = await guarded();
      b.sw.vlan(guest, 5, [7, 8]);
      expect([knownIn(), guardedIn(), knownIn()]).toEqual([
        [5, 7, 8],
        [5, 7, 8],
        [5, 7, 8],
      ]);
    });

    test("without a VLAN of its own too", async () => {
      const { b, guest, guardedIn, knownIn } = await guarded();
      b.sw.vlan(guest, 0, [6]);
      expect([guardedIn(), knownIn()]).toEqual([[6], [6]]);
    });

    test("is free again in a VLAN that it has left", async () => {
      const { b, guest, guardedIn } = await guarded();
      const { known } = b;
      b.sw.vlan(guest, 5, [7, 7, 5]);
      expect(b.known).toBe(known + 2);
      b.sw.vlan(guest, 7, [8]);
      expect(b.known).toBe(known + 2);
      expect(guardedIn()).toEqual([7, 8]);
      // In 5 and 6 the other port has it now.
      expect(b.to(0, tagged(frame(guest.mac, A), 5))).toEqual([1]);
      b.sw.vlan(guest, 0);
      expect(guardedIn()).toEqual([]);
    });

    test("is taken at once from a port that sent from it in the same second", async () => {
      const { b, guest, guardedIn, knownIn } = await guarded();
      b.sw.vlan(guest, 5);
      const theirs = tagged(frame(BROADCAST, guest.mac), 7);
      expect(b.to(1, theirs)).toEqual([0]);
      b.sw.vlan(guest, 5, [7]);
      expect(b.to(1, theirs)).toEqual([]);
      expect(b.drops(1)).toEqual({ spoofed: 1 });
      expect([guardedIn(), knownIn()]).toEqual([
        [5, 7],
        [5, 7],
      ]);
    });

    test("for which the table has no place is refused, and nothing has changed", async () => {
      const { b, guest, guardedIn, knownIn } = await guarded({ macs: 4 });
      b.sw.vlan(guest, 5, [6]); // one entry is there from the start
      expect(() => b.sw.vlan(guest, 6, [7, 8, 4094, 5])).toThrow(
        new RangeError(`macs: no place for ${guest.mac} of guest0 in VLAN 8, expected a larger table`),
      );
      expect([guardedIn(), knownIn()]).toEqual([
        [5, 6],
        [5, 6],
      ]);
      b.sw.vlan(guest, 6, [7, 8]); // in the place of 5
      expect(guardedIn()).toEqual([6, 7, 8]);
      expect(() => b.sw.vlan(guest, 5, [4094, 1, 2])).toThrow(/in VLAN 2, expected a larger table/);
      expect([guardedIn(), knownIn()]).toEqual([
        [6, 7, 8],
        [6, 7, 8],
      ]);
    });
  });

  test("a switch that takes no notice of VLANs passes tags as they are, and learns for all of them", async () => {
    const b = await Bridge.of(3);
    expect(b.to(0, tagged(frame(B, A), 5))).toEqual([1, 2]);
    expect(b.to(1, tagged(frame(A, B), 0xe006))).toEqual([0]);
    expect(b.to(1, frame(A, B))).toEqual([0]);
  });
});
