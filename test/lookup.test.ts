/** Lookups of the user's own, in JavaScript and in WebAssembly: what they are given, and what becomes of what they say. */
import { readFileSync } from "node:fs";
import binaryen from "binaryen";
import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import { Directory, Packet, PacketFlag } from "../assembly/layout.ts";
import createByMac from "../examples/lookup/by-mac.mjs";
import {
  DROP,
  FLOOD,
  type FramePort,
  Host,
  LcoreError,
  type Lookup,
  type LookupBurst,
  NORMAL,
  type VSwitch,
  type VSwitchOptions,
} from "../src/index.ts";
import { frame, tagged, taken } from "./frames.ts";
import { frame as numberedFrame, numberOf, type Rig, rig } from "./harness/host.ts";

const mac = (n: number) => `02:00:00:00:00:${n.toString(16).padStart(2, "0")}`;
const [A, B] = [mac(0xa), mac(0xb)];

/** Three ports or more on a switch. */
class Bench {
  private constructor(
    readonly host: Host,
    readonly ports: FramePort[],
    readonly sw: VSwitch,
  ) {}

  static async of(lookup: Lookup, options: Partial<VSwitchOptions> = {}, ports = 3): Promise<Bench> {
    const host = await Host.create();
    const all = Array.from({ length: ports }, () => host.port());
    return new Bench(host, all, host.vswitch({ connect: all, lookup, ...options }));
  }

  /** Frames into a port; what arrives at each. */
  from(port: number, ...frames: Uint8Array[]): Uint8Array[][] {
    expect(this.ports[port]!.push(frames)).toBe(frames.length);
    this.host.drain();
    return this.arrived();
  }

  arrived(): Uint8Array[][] {
    const arrived = this.ports.map(taken);
    const { pool } = this.host.stats();
    expect(pool).toMatchObject({ outstanding: 0, available: pool.buffers });
    return arrived;
  }

  drops(port: number): Record<string, number> {
    return this.host.stats().ports[port]!.drops;
  }
}

const counts = (arrived: Uint8Array[][]) => arrived.map((some) => some.length);

/** A module from the body of its lookup. */
function wasm(body: string, { shared = false, more = "" } = {}): WebAssembly.Module {
  const params = ["state", "port", "frames", "packets", "first", "headers", "destinations"];
  return fromText(`
    (import "env" "memory" (memory 1 65536 ${shared ? "shared" : ""})) ${more}
    (func (export "lookup") ${params.map((name) => `(param $${name} i32)`).join(" ")} ${body})`);
}

function fromText(text: string): WebAssembly.Module {
  const parsed = binaryen.parseText(`(module ${text})`);
  parsed.setFeatures(binaryen.Features.All);
  try {
    return new WebAssembly.Module(parsed.emitBinary() as Uint8Array<ArrayBuffer>);
  } finally {
    parsed.dispose();
  }
}

/** Every frame to the port whose number is in the first byte of its state, which counts bursts in the next four. */
const toPortOfState = (shared = false) =>
  wasm(
    `(local $i i32)
    (if (i32.eqz (local.get $frames)) (then (return)))
    (i32.store offset=4 (local.get $state) (i32.add (i32.const 1) (i32.load offset=4 (local.get $state))))
    (loop $next
      (i32.store16 (i32.add (local.get $destinations) (i32.shl (local.get $i) (i32.const 1)))
        (i32.load8_u (local.get $state)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (local.get $frames))))`,
    { shared, more: '(global (export "stateBytes") i32 (i32.const 8))' },
  );

/** Traps on the first burst. */
const trap = (shared = false) => wasm("(if (local.get $frames) (then (unreachable)))", { shared });

const byMac = (shared = false) =>
  new WebAssembly.Module(readFileSync(`dist/lookup/by-mac${shared ? ".shared" : ""}.wasm`));

describe("a lookup in JavaScript", () => {
  test("is called once for a burst, with the frames' port, headers, lengths and bytes", async () => {
    const seen: unknown[] = [];
    const b = await Bench.of((burst) => {
      seen.push({
        length: burst.length,
        port: burst.port,
        to: Array.from({ length: burst.length }, (_, i) => [...burst.headers.subarray(16 * i, 16 * i + 6)]),
        words: burst.words[4 * (burst.length - 1)],
        bytes: Array.from({ length: burst.length }, (_, i) => burst.frameLength(i)),
        last: burst.frame(burst.length - 1).slice(),
        mark: burst.mark(0),
      });
      burst.destinations.fill(2, 0, burst.length);
    });
    const frames = [frame(A, B, 14), frame(B, A, 60), frame(A, B, 1514)];
    expect(b.from(1, ...frames)).toEqual([[], [], frames]);
    expect(seen).toEqual([
      {
        length: 3,
        port: 1,
        to: [A, B, A].map((to) => to.split(":").map((part) => Number.parseInt(part, 16))),
        words: 0x00000002,
        bytes: [14, 60, 1514],
        last: frames[2],
        mark: 0,
      },
    ]);
  });

  test("a short frame's header is 0 behind its end; a frame number outside the burst is refused", async () => {
    const headers: number[][] = [];
    let error: unknown;
    const b = await Bench.of((burst) => {
      headers.push([...burst.headers.subarray(14, 16)]);
      burst.destinations[0] = 2;
      try {
        burst.frame(1);
      } catch (thrown) {
        error = thrown;
      }
    });
    b.from(0, frame(A, B, 60));
    b.from(0, frame(A, B, 14));
    expect(headers).toEqual([
      [0x33, 0x33],
      [0, 0],
    ]);
    expect(error).toEqual(new RangeError("frame 1, expected 0 to 0"));
  });

  test("a port's number, FLOOD and DROP; what isn't written is dropped; each drop is counted", async () => {
    const says = [2, FLOOD, DROP, undefined, 1];
    const b = await Bench.of(({ length, destinations }) => {
      for (let i = 0; i < length; i++) if (says[i] !== undefined) destinations[i] = says[i] as number;
    });
    const frames = Array.from({ length: 5 }, (_, i) => frame(A, B, 60 + i));
    expect(b.from(0, ...frames)).toEqual([[], [frames[1], frames[4]], [frames[0], frames[1]]]);
    expect(b.drops(0)).toEqual({ lookup: 2 });
  });

  test("a frame never goes back to where it came from", async () => {
    const b = await Bench.of(({ length, destinations }) => destinations.fill(1, 0, length));
    expect(counts(b.from(1, frame(A, B), frame(B, A)))).toEqual([0, 0, 0]);
    expect(b.drops(1)).toEqual({ hairpin: 2 });
  });

  test("NORMAL is what the learning bridge would do, which learns from those frames only", async () => {
    let says = NORMAL;
    const b = await Bench.of(({ length, destinations }) => destinations.fill(says, 0, length));
    expect(counts(b.from(0, frame(B, A)))).toEqual([0, 1, 1]);
    says = FLOOD;
    b.from(1, frame(A, B));
    says = NORMAL;
    expect(counts(b.from(2, frame(A, mac(0xc))))).toEqual([1, 0, 0]);
    expect(counts(b.from(2, frame(B, mac(0xc))))).toEqual([1, 1, 0]);
  });

  test("NO_LEARN holds for NORMAL as well", async () => {
    const b = await Bench.of(({ length, destinations }) => destinations.fill(NORMAL, 0, length));
    sendUnlearned(b.host, b.ports[1]!, frame(A, B));
    b.host.drain();
    b.arrived();
    expect(counts(b.from(0, frame(B, A)))).toEqual([0, 1, 1]);
  });

  test("gets frames of several buffers whole", async () => {
    const lengths: number[] = [];
    const host = await Host.create();
    const nic = host.nic();
    const out = host.port();
    const big = numberedFrame(A, 7, 9000);
    let whole: Uint8Array | undefined;
    host.vswitch({
      connect: [nic, out],
      lookup: (burst) => {
        for (let i = 0; i < burst.length; i++) lengths.push(burst.frameLength(i));
        whole = burst.frame(1).slice();
        burst.destinations.fill(1, 0, burst.length);
      },
    });
    nic.receive([numberedFrame(A, 1), big, numberedFrame(A, 2)]);
    host.drain();
    expect(lengths).toEqual([60, 9000, 60]);
    expect(whole).toEqual(big);
    expect(taken(out)).toEqual([numberedFrame(A, 1), big, numberedFrame(A, 2)]);
  });

  test("what it reads of a frame is what arrives, whatever the sender does to it meanwhile", async () => {
    const host = await Host.create();
    const [guest, out] = [host.guest({ run: "macswap" }), host.port()];
    let seen: Uint8Array | undefined;
    const sw = host.vswitch({
      connect: [guest, out],
      lookup: (burst) => {
        if (burst.port === 1) burst.destinations.fill(0, 0, burst.length);
        else {
          seen = burst.headers.slice(0, 16);
          burst.frame(0).fill(0xee, 0, 16); // the guest's own memory
          burst.destinations[0] = 1;
        }
      },
    });
    expect(sw.indexOf(out)).toBe(1);
    out.push([frame(guest.mac, A)]);
    host.drain();
    expect(taken(out)[0]!.subarray(0, 16)).toEqual(seen);
  });
});

/** A frame with NO_LEARN into a port's ring. */
function sendUnlearned(host: Host, port: FramePort, one: Uint8Array): void {
  const { core } = host;
  expect(port.push([one])).toBe(1);
  const ring = port.toHost;
  core.setU16(
    ring + 192 + ((core.u32(ring + 64) - 1) & core.u32(ring)) * Packet.SIZE + Packet.flags,
    PacketFlag.NO_LEARN,
  );
}

describe("a lookup in WebAssembly", () => {
  test("is called without JavaScript, with its state, which the host can write", async () => {
    const b = await Bench.of(toPortOfState());
    b.sw.lookupState[0] = 1;
    expect(counts(b.from(0, frame(A, B), frame(B, A)))).toEqual([0, 2, 0]);
    b.sw.lookupState[0] = 2;
    expect(counts(b.from(0, frame(A, B)))).toEqual([0, 0, 1]);
    expect(new DataView(b.sw.lookupState.slice().buffer).getUint32(4, true)).toBe(2);
  });

  test("each switch has a state of its own", async () => {
    const module = toPortOfState();
    const host = await Host.create();
    const ports = Array.from({ length: 6 }, () => host.port());
    const [one, two] = [ports.slice(0, 3), ports.slice(3)].map((connect) =>
      host.vswitch({ connect, lookup: module }),
    );
    [one!.lookupState[0], two!.lookupState[0]] = [1, 2];
    ports[0]!.push([frame(A, B)]);
    ports[3]!.push([frame(A, B)]);
    host.drain();
    expect(ports.map((port) => taken(port).length)).toEqual([0, 1, 0, 0, 0, 1]);
  });

  test("a module that isn't a lookup for this memory is refused, and nothing has changed", async () => {
    const b = await Bench.of("learning");
    const noMemory = '(import "env" "memory" (memory 1 65536))';
    const refused: [WebAssembly.Module, RegExp][] = [
      [
        wasm("", { more: '(import "env" "log" (func))' }),
        /imports "env.log", expected to import "env.memory" only/,
      ],
      [
        fromText(`${noMemory} (func (export "classify"))`),
        /exports "classify", expected .* export the function "lookup"/,
      ],
      [fromText(noMemory), /exports nothing/],
      [
        fromText(`${noMemory} (func (export "lookup") (param i32))`),
        /called for no frames: .* expected seven i32/,
      ],
      [wasm("(unreachable)"), /called for no frames/],
      [byMac(true), /the host's memory isn't shared/],
    ];
    for (const [module, why] of refused) {
      expect(() => {
        b.sw.lookup = module;
      }).toThrow(why);
      expect(b.sw.lookup).toBe("learning");
    }
    expect(counts(b.from(0, frame(B, A)))).toEqual([0, 1, 1]);
    b.sw.lookup = toPortOfState();
    b.sw.lookupState[0] = 2;
    expect(counts(b.from(0, frame(B, A)))).toEqual([0, 0, 1]);
  });

  test("anything else than a lookup is refused", async () => {
    const host = await Host.create();
    const port = host.port();
    expect(() => host.vswitch({ connect: [port], lookup: "fastest" as Lookup })).toThrow(
      /lookup: fastest, expected "learning", "flows", a function or a WebAssembly.Module/,
    );
    host.vswitch({ connect: [port] }); // it isn't connected to one that wasn't made
  });
});

describe("what a lookup says isn't trusted", () => {
  const out = [3, 255, 2048, 0xfffb, 0xfffd];

  test.each(out)("port %i, which doesn't exist, is dropped and counted", async (to) => {
    const b = await Bench.of(({ length, destinations }) => {
      destinations.fill(1, 0, length);
      destinations[1] = to;
    });
    expect(counts(b.from(0, frame(A, B), frame(B, A), frame(A, B)))).toEqual([0, 2, 0]);
    expect(b.drops(0)).toEqual({ noPort: 1 });
  });

  test("writes behind the burst and past the array change nothing", async () => {
    const b = await Bench.of((burst) => {
      burst.destinations[0] = 1;
      for (let i = 1; i < 5000; i++) burst.destinations[i] = 2;
      (burst as { length: number }).length = 5000;
    });
    expect(counts(b.from(0, frame(A, B)))).toEqual([0, 1, 0]);
    expect(counts(b.from(2, frame(A, B)))).toEqual([0, 1, 0]);
    expect(b.drops(0)).toEqual({});
  });

  test("one that throws: the burst is dropped and counted, poll() throws it, and the next burst goes on", async () => {
    let bad = true;
    const b = await Bench.of(({ length, destinations }) => {
      if (bad) throw new TypeError("no such table");
      destinations.fill(1, 0, length);
    });
    b.ports[0]!.push(Array.from({ length: 40 }, () => frame(A, B)));
    expect(() => b.host.poll()).toThrow(new TypeError("no such table"));
    expect(b.drops(0)).toEqual({ lookupFailed: 32 });
    bad = false;
    b.host.drain();
    expect(counts(b.arrived())).toEqual([0, 8, 0]);
    expect(b.host.stats().ports[0]).toMatchObject({ rxPackets: 40, rxBytes: 40 * 60 });
  });

  test("run() rejects with what it throws", async () => {
    const b = await Bench.of(() => {
      throw new TypeError("no such table");
    });
    const running = b.host.run();
    b.ports[0]!.push([frame(A, B)]);
    await expect(running).rejects.toThrow(new TypeError("no such table"));
    expect(b.drops(0)).toEqual({ lookupFailed: 1 });
    b.arrived();
  });

  test("one that traps: the same", async () => {
    const b = await Bench.of(trap());
    b.ports[0]!.push([frame(A, B), frame(B, A)]);
    expect(() => b.host.poll()).toThrow(WebAssembly.RuntimeError);
    expect(b.drops(0)).toEqual({ lookupFailed: 2 });
    b.arrived();
    b.sw.lookup = "learning";
    expect(counts(b.from(0, frame(A, B)))).toEqual([0, 1, 1]);
  });

  test("a guest whose burst it threw over gets its buffers back", async () => {
    let bad = true;
    const host = await Host.create();
    const [guest, port] = [host.guest({ run: "macswap", ring: 16 }), host.port()];
    host.vswitch({
      connect: [guest, port],
      lookup: (burst) => {
        if (bad && burst.port === 0) throw new Error("guest");
        burst.destinations.fill(1 - burst.port, 0, burst.length);
      },
    });
    for (let i = 0; i < 10; i++) {
      port.push(Array.from({ length: 16 }, () => frame(guest.mac, A)));
      expect(() => host.drain()).toThrow("guest");
    }
    bad = false;
    port.push(Array.from({ length: 16 }, () => frame(guest.mac, A)));
    host.drain();
    expect(taken(port)).toHaveLength(16);
    expect(host.stats()).toMatchObject({
      ports: [{ drops: { lookupFailed: 160 } }, { drops: {} }],
      guests: [{ posted: 16 }],
      pool: { outstanding: 0 },
    });
  });

  test("it may not change or poll the host while it runs; it may push frames", async () => {
    const tries: ((b: Bench) => void)[] = [
      (b) => b.host.poll(),
      (b) => b.host.drain(),
      (b) => {
        b.sw.lookup = "learning";
      },
      (b) => b.sw.connect(b.host.port()),
    ];
    for (const attempt of tries) {
      let b: Bench | undefined;
      b = await Bench.of(() => attempt(b!));
      b.ports[0]!.push([frame(A, B)]);
      expect(() => b.host.drain()).toThrow("called from within a lookup");
      b.arrived();
    }
    let b: Bench | undefined;
    b = await Bench.of(({ length, port, destinations }) => {
      destinations.fill(1, 0, length);
      if (port === 0) b!.ports[2]!.push([frame(B, A)]);
    });
    b.ports[0]!.push([frame(A, B)]);
    b.host.drain();
    expect(counts(b.arrived())).toEqual([0, 2, 0]);
  });
});

describe("a VLAN-aware switch under another lookup", () => {
  test("frames of VLANs that a port isn't in don't come in and don't go out; tags are put on and taken off", async () => {
    const b = await Bench.of(({ length, destinations }) => destinations.fill(FLOOD, 0, length), {
      vlanAware: true,
    });
    b.sw.vlan(b.ports[0]!, 5);
    b.sw.vlan(b.ports[1]!, 0, [5]);
    b.sw.vlan(b.ports[2]!, 6);
    const one = frame(A, B, 60);
    expect(b.from(0, one)).toEqual([[], [tagged(one, 5)], []]);
    expect(b.from(1, tagged(one, 5))).toEqual([[one], [], []]);
    expect(counts(b.from(1, tagged(one, 6), one))).toEqual([0, 0, 0]);
    expect(b.drops(1)).toEqual({ vlan: 2 });
  });
});

test("changed while traffic runs: each burst goes by the one that is set then", async () => {
  const b = await Bench.of("learning");
  b.from(1, frame(A, B));
  const to = (port: number) => (burst: LookupBurst) => void burst.destinations.fill(port, 0, burst.length);
  const module = toPortOfState();
  for (let round = 0; round < 20; round++) {
    b.sw.lookup = to(2);
    expect(counts(b.from(0, frame(B, A)))).toEqual([0, 0, 1]);
    b.sw.lookup = module;
    b.sw.lookupState[0] = 2;
    expect(counts(b.from(0, frame(B, A)))).toEqual([0, 0, 1]);
    b.sw.lookup = "learning";
    expect(counts(b.from(0, frame(B, A)))).toEqual([0, 1, 0]);
  }
});

test("a guest over IOVTee gets its frames without a copy from the host under another lookup too", async () => {
  const host = await Host.create();
  const nic = host.nic({ ring: 64 });
  const guest = host.guest({ attach: "iovtee", run: "macswap" });
  host.vswitch({
    connect: [nic, guest],
    lookup: ({ length, port, destinations }) => destinations.fill(1 - port, 0, length),
  });
  nic.receive(Array.from({ length: 20 }, (_, i) => numberedFrame(guest.mac, i)));
  host.drain();
  const numbers: number[] = [];
  nic.transmit((frames) => numbers.push(...frames.map(numberOf)));
  expect(numbers).toEqual(Array.from({ length: 20 }, (_, i) => i));
  expect(host.stats()).toMatchObject({ ports: [{ copies: 20 }, { copies: 0 }], mappings: [{ hits: 20 }] });
});

/** The learning bridge again, from 802.1D, 7.8: a Map, and seconds as the host counts them. */
function learningInJavaScript(ageing: number, now: () => number): (burst: LookupBurst) => void {
  const seen = new Map<number, { port: number; at: number }>();
  const address = (bytes: Uint8Array, at: number) =>
    bytes.subarray(at, at + 6).reduce((n, byte) => n * 256 + byte, 0);
  return ({ length, port, headers, destinations }) => {
    for (let i = 0; i < length; i++) {
      const [to, from] = [address(headers, 16 * i), address(headers, 16 * i + 6)];
      if (!(headers[16 * i + 6]! & 1)) seen.set(from, { port, at: now() });
      const known = seen.get(to);
      if (headers[16 * i]! & 1) destinations[i] = to >= 0x0180c2000000 && to <= 0x0180c200000f ? DROP : FLOOD;
      else destinations[i] = known && now() - known.at <= ageing ? known.port : FLOOD;
    }
  };
}

test("learning written again in JavaScript: the same frames arrive at the same ports, whatever the traffic", async () => {
  const macs = [
    "01:80:c2:00:00:03",
    "ff:ff:ff:ff:ff:ff",
    "01:00:5e:00:00:01",
    ...Array.from({ length: 6 }, (_, i) => mac(i)),
  ];
  const anyMac = fc.constantFrom(...macs);
  const step = fc.record({
    port: fc.nat(3),
    seconds: fc.nat(6),
    frames: fc.array(fc.record({ to: anyMac, from: anyMac, size: fc.integer({ min: 14, max: 200 }) }), {
      minLength: 1,
      maxLength: 80,
    }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12 }), async (steps) => {
      let seconds = 0;
      const made = [
        await Bench.of("learning", { ageing: 10 }, 4),
        await Bench.of(
          learningInJavaScript(10, () => seconds),
          {},
          4,
        ),
      ];
      for (const { port, seconds: more, frames } of steps) {
        seconds += more;
        const arrived = made.map((b) => {
          b.host.core.setU32(Directory.ADDRESS + Directory.clock, seconds);
          b.ports[port]!.push(frames.map(({ to, from, size }) => frame(to, from, size)));
          b.host.core.exports.drainLcore(b.host.lcore, 1000);
          return b.arrived();
        });
        expect(arrived[1]).toEqual(arrived[0]);
      }
    }),
    { seed: 7, numRuns: 25 },
  );
});

describe.each([
  ["JavaScript", () => createByMac()],
  ["WebAssembly", () => byMac()],
] as const)("examples/lookup/by-mac in %s", (_, make) => {
  test("sends frames to where their destination was seen last, and leaves the rest to the bridge", async () => {
    const b = await Bench.of(make());
    expect(counts(b.from(0, frame(B, A)))).toEqual([0, 1, 1]);
    expect(counts(b.from(1, frame(A, B)))).toEqual([1, 0, 0]);
    expect(counts(b.from(0, frame(B, A)))).toEqual([0, 1, 0]);
    b.from(2, frame(A, B));
    expect(counts(b.from(0, frame(B, A)))).toEqual([0, 0, 1]);
    expect(counts(b.from(0, frame("ff:ff:ff:ff:ff:ff", A)))).toEqual([0, 1, 1]);
  });
});

describe("on lcores", () => {
  const running: Host[] = [];
  afterEach(() => {
    for (const host of running.splice(0)) host.stop();
  });

  async function launched(lookup: Lookup): Promise<Rig & { done: Promise<void> }> {
    const r = await rig({ attach: "vhost" }, 1, { shared: true });
    r.sw.lookup = lookup;
    const { done } = await r.host.launch([r.sw, r.guest]);
    running.push(r.host);
    return { ...r, done };
  }

  /** Frames there and back, a few at a time; the numbers that came back. */
  function roundTrips(r: Rig, n: number): number[] {
    const back: number[] = [];
    for (let i = 0; i < n; i += 16) {
      r.nic.receive(Array.from({ length: 16 }, (_, k) => numberedFrame(r.guest.mac, i + k)));
      for (const end = performance.now() + 2000; back.length < i + 16 && performance.now() < end; ) {
        if (r.nic.wait(100)) r.nic.transmit((frames) => back.push(...frames.map(numberOf)));
      }
    }
    return back;
  }

  test("a module runs where the switch runs, also after it was changed, and its state goes with it", async () => {
    const module = byMac(true);
    const r = await launched(module);
    const numbers = Array.from({ length: 320 }, (_, i) => i);
    expect(roundTrips(r, 320)).toEqual(numbers);
    const known = () => r.sw.lookupState.slice().filter((byte) => byte > 0).length;
    expect(known()).toBeGreaterThan(6);
    r.sw.lookup = "learning";
    expect(roundTrips(r, 320)).toEqual(numbers);
    r.sw.lookup = module;
    expect(known()).toBe(0);
    expect(roundTrips(r, 320)).toEqual(numbers);
    const before = known();
    r.host.stop();
    await r.done;
    r.nic.receive([numberedFrame(r.guest.mac, 7)]);
    r.host.drain();
    r.nic.transmit((frames) => expect(frames.map(numberOf)).toEqual([7]));
    expect(known()).toBe(before);
  });

  test("modules that come while it runs are loaded before they are called, whatever the order", async () => {
    const r = await launched("learning");
    const numbers = Array.from({ length: 160 }, (_, i) => i);
    for (const module of [byMac(true), toPortOfState(true), byMac(true)]) {
      r.sw.lookup = toPortOfState(true);
      r.sw.lookup = module;
      if (r.sw.lookupState.length === 8) r.sw.lookup = "learning";
      expect(roundTrips(r, 160)).toEqual(numbers);
    }
    expect(r.core.lookupModules).toHaveLength(6);
    r.host.stop();
    await r.done;
    const { done } = await r.host.launch([r.sw, r.guest]);
    r.sw.lookup = byMac(true);
    expect(roundTrips(r, 160)).toEqual(numbers);
    r.host.stop();
    await done;
  });

  test("a function is refused for a switch on a worker, before anything starts and while it runs", async () => {
    const r = await rig({ attach: "vhost" }, 1, { shared: true });
    r.sw.lookup = () => {};
    await expect(r.host.launch([r.sw])).rejects.toThrow(
      new RangeError(
        "lookup: switch0 has a function, and was to run on a worker, where a function can't go; " +
          'expected "learning" or a WebAssembly.Module, or the switch on the calling thread',
      ),
    );
    expect(r.host.lcores).toEqual([]);
    const { done } = await r.host.launch([r.guest]);
    r.host.stop();
    await done;
    const l = await launched("learning");
    expect(() => {
      l.sw.lookup = () => {};
    }).toThrow(/lookup: a function for switch0, where a function can't go/);
    expect(roundTrips(l, 16)).toHaveLength(16);
  });

  test("a trap stops the lcores with its reason; no buffer and no guest is lost", async () => {
    const r = await launched(trap(true));
    r.nic.receive(Array.from({ length: 16 }, (_, i) => numberedFrame(r.guest.mac, i)));
    const error = await r.done.catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(LcoreError);
    expect(error).toMatchObject({ message: expect.stringMatching(/^lcore1 \(switch0\): .*unreachable/) });
    expect((error as LcoreError).recovered).toEqual({ buffers: 0, guests: [] });
    expect(r.host.stats().ports[0]).toMatchObject({ rxPackets: 16, drops: { lookupFailed: 16 } });
    const { pool } = r.host.stats();
    expect(pool.available + pool.outstanding).toBe(pool.buffers);
    r.sw.lookup = "learning";
    const { done } = await r.host.launch([r.sw, r.guest]);
    expect(roundTrips(r, 32)).toHaveLength(32);
    r.host.stop();
    await done;
  });

  test("one for memory that isn't shared is refused with both kinds named", async () => {
    const r = await rig({ attach: "vhost" }, 1, { shared: true });
    expect(() => {
      r.sw.lookup = byMac(false);
    }).toThrow(/the host's memory is shared/);
  });
});
