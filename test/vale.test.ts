/** netmap's VALE (netmap_vale.c, netmap.h): its rules by name, where a bridge has them too and where they differ. */
import { describe, expect, test } from "vitest";
import { Directory, MacTable, Packet, PacketFlag, Ring, Switch } from "../assembly/layout.ts";
import { type FramePort, Host, type VSwitch, type VSwitchOptions } from "../src/index.ts";
import { frame, taken } from "./frames.ts";

const mac = (n: number) =>
  `02:00:00:00:${[n >> 8, n & 255].map((x) => x.toString(16).padStart(2, "0")).join(":")}`;
const [A, B, C] = [mac(0xa), mac(0xb), mac(0xc)];

class Vale {
  private constructor(
    readonly host: Host,
    readonly ports: FramePort[],
    readonly sw: VSwitch,
  ) {}

  static async of(n: number, options: Partial<VSwitchOptions> = {}): Promise<Vale> {
    const host = await Host.create();
    const ports = Array.from({ length: n }, () => host.port());
    return new Vale(host, ports, host.vswitch({ connect: ports, vale: true, ...options }));
  }

  /** The ports that get it. */
  to(from: number, one: Uint8Array): number[] {
    expect(this.ports[from]!.push([one])).toBe(1);
    return this.#delivered();
  }

  /** A descriptor with these flags and this length, as a port that writes its own has it. */
  raw(from: number, one: Uint8Array, { flags = 0, length = one.length } = {}): number[] {
    const { core } = this.host;
    expect(this.ports[from]!.push([one])).toBe(1);
    const ring = this.ports[from]!.toHost;
    const slot =
      ring + Ring.slots + ((core.u32(ring + Ring.head) - 1) & core.u32(ring + Ring.mask)) * Packet.SIZE;
    core.setU16(slot + Packet.flags, flags);
    core.setU16(slot + Packet.len, length);
    return this.#delivered();
  }

  #delivered(): number[] {
    this.host.drain();
    expect(this.host.stats().pool.outstanding).toBe(
      this.ports.reduce((n, port) => n + count(this.host, port), 0),
    );
    return this.ports.flatMap((port, i) => taken(port).map(() => i));
  }

  drops(port: number): Record<string, number> {
    return this.host.stats().ports[port]!.drops;
  }
}

const count = ({ core }: Host, { fromHost }: FramePort) =>
  core.u32(fromHost + Ring.head) - core.u32(fromHost + Ring.tail);

describe("learning (nm_vale_learning)", () => {
  test("unknown destination: broadcast to all others", async () => {
    const v = await Vale.of(4);
    expect(v.to(2, frame(B, A))).toEqual([0, 1, 3]);
  });

  test("group addresses: broadcast, 01-80-C2-00-00-00 too, which a bridge keeps to the link", async () => {
    for (const to of ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "01:80:c2:00:00:00"]) {
      const v = await Vale.of(3);
      expect(v.to(0, frame(to, A))).toEqual([1, 2]);
    }
  });

  test("known destination: its port only; the last frame's port counts", async () => {
    const v = await Vale.of(3);
    for (const port of [1, 2, 1]) {
      v.to(port, frame(B, A));
      expect(v.to(0, frame(A, B))).toEqual([port]);
    }
  });

  test("multicast sources aren't learned", async () => {
    const v = await Vale.of(3);
    v.to(1, frame(B, "03:00:00:00:00:01"));
    const { core } = v.host;
    expect(core.u32(core.u32(v.sw.address + Switch.macs) + MacTable.used)).toBe(0);
  });

  test("what was learned doesn't age, unless it is asked to", async () => {
    for (const [ageing, ports] of [
      [undefined, [1]],
      [10, [1, 2]],
    ] as const) {
      const v = await Vale.of(3, ageing === undefined ? {} : { ageing });
      v.to(1, frame(B, A));
      v.host.core.setU32(Directory.ADDRESS + Directory.clock, 1_000_000_000);
      v.ports[0]!.push([frame(A, B)]);
      v.host.core.exports.drainLcore(v.host.lcore, 100);
      expect(v.ports.flatMap((port, i) => taken(port).map(() => i))).toEqual(ports);
    }
  });

  test("a guest's address is learned as any other, and nobody is checked for using it", async () => {
    const host = await Host.create();
    const [guest, one, two] = [host.guest({ run: "sink" }), host.port(), host.port()];
    host.vswitch({ connect: [guest, one, two], vale: true });
    one.push([frame(guest.mac, A)]);
    host.drain();
    expect(taken(two)).toHaveLength(1); // a bridge knows where the guest is
    one.push([frame(B, guest.mac)]);
    host.drain();
    expect(host.stats().ports[1]!.drops).toEqual({});
  });
});

describe("the table (NM_BDG_HASH)", () => {
  const entries = (v: Vale) => {
    const { core } = v.host;
    return core.u32(core.u32(v.sw.address + Switch.macs) + MacTable.buckets) * MacTable.WAYS;
  };

  test("has 1024 entries, or as many as are asked for", async () => {
    expect(entries(await Vale.of(2))).toBe(1024);
    expect(entries(await Vale.of(2, { macs: 16 }))).toBe(16);
    expect(entries(await Vale.of(2, { macs: 65536 }))).toBe(65536);
  });

  test("full: a newer address takes an older one's place, and the older one's frames are broadcast", async () => {
    const v = await Vale.of(3, { macs: 4 });
    for (let i = 0; i < 5; i++) {
      v.host.core.setU32(Directory.ADDRESS + Directory.clock, i);
      v.ports[1]!.push([frame(B, mac(100 + i))]);
      v.host.core.exports.drainLcore(v.host.lcore, 100);
      for (const port of v.ports) taken(port);
    }
    v.sw.setLearning(v.ports[0]!, false);
    expect(v.to(0, frame(mac(104), C))).toEqual([1]);
    expect(v.to(0, frame(mac(100), C))).toEqual([1, 2]);
  });
});

describe("ports (NM_BDG_MAXPORTS)", () => {
  test("254 of them, all reached by a broadcast; the 255th is refused", async () => {
    const host = await Host.create({ memory: 64 * 2 ** 20, buffers: 1024 });
    const guests = Array.from({ length: 252 }, () => host.guest({ run: "sink", ring: 4, memory: 65536 }));
    const [from, to] = [host.port(), host.port()];
    const sw = host.vswitch({ connect: [from, to, ...guests], vale: true });
    from.push([frame("ff:ff:ff:ff:ff:ff", A)]);
    host.drain();
    expect(taken(to)).toHaveLength(1);
    expect(host.stats().guests.map(({ received }) => received)).toEqual(Array(252).fill(1));
    expect(() => sw.connect(host.port())).toThrow(
      new RangeError("switch0: 254 ports already, expected at most as many"),
    );
  });
});

describe("drop rules", () => {
  test("under 14 bytes", async () => {
    const v = await Vale.of(2);
    expect(v.raw(0, frame(B, A), { length: 13 })).toEqual([]);
    expect(v.drops(0)).toEqual({ runt: 1 });
    expect(v.to(0, frame(B, A, 14))).toEqual([1]);
  });

  test("destination behind the source's own port", async () => {
    const v = await Vale.of(3);
    v.to(1, frame(C, A));
    expect(v.to(1, frame(A, B))).toEqual([]);
    expect(v.drops(1)).toEqual({ hairpin: 1 });
  });

  test("a full destination drops, counted there, and nobody waits", async () => {
    const v = await Vale.of(3);
    v.to(1, frame(C, A));
    v.to(2, frame(C, B));
    for (let i = 0; i < 2; i++) {
      v.ports[0]!.push(Array.from({ length: 400 }, () => frame(A, C)));
      v.host.drain();
    }
    expect(v.drops(1)).toEqual({ full: 800 - 512 });
    expect(v.to(0, frame(B, C))).toEqual([...Array(512).fill(1), 2]);
  });
});

describe("NO_LEARN (NS_NO_LEARN)", () => {
  test("on a frame: its source isn't learned, its destination is found as ever", async () => {
    const v = await Vale.of(3);
    v.to(2, frame(C, B));
    expect(v.raw(1, frame(B, A), { flags: PacketFlag.NO_LEARN })).toEqual([2]);
    expect(v.to(2, frame(A, B))).toEqual([0, 1]);
    v.to(1, frame(B, A));
    expect(v.to(2, frame(A, B))).toEqual([1]);
  });

  test("the frames before and behind it in the burst are learned; the flag goes no further than the switch", async () => {
    const v = await Vale.of(3);
    const { core } = v.host;
    v.to(0, frame(A, C)); // so that the buffers themselves go there
    const ring = v.ports[1]!.toHost;
    v.ports[1]!.push([frame(C, mac(1)), frame(C, mac(2)), frame(C, mac(3))]);
    core.setU16(ring + Ring.slots + Packet.SIZE + Packet.flags, PacketFlag.NO_LEARN);
    v.host.drain();
    expect(v.host.stats().ports[0]!.copies).toBe(0);
    const out = v.ports[0]!.fromHost + Ring.slots;
    expect([0, 1, 2].map((i) => core.u16(out + i * Packet.SIZE + Packet.flags))).toEqual([0, 0, 0]);
    for (const port of v.ports) taken(port);
    expect([1, 2, 3].map((i) => v.to(0, frame(mac(i), C)))).toEqual([[1], [1, 2], [1]]);
  });

  test("on a port: no frame's source is learned", async () => {
    const v = await Vale.of(3);
    v.sw.setLearning(v.ports[1]!, false);
    v.to(1, frame(C, A));
    expect(v.to(0, frame(A, B))).toEqual([1, 2]);
    v.sw.setLearning(v.ports[1]!, true);
    v.to(1, frame(C, A));
    expect(v.to(0, frame(A, B))).toEqual([1]);
    const stranger = v.host.port();
    expect(() => v.sw.setLearning(stranger, false)).toThrow(/port3: not connected to this switch/);
  });

  test("on a bridge: a guest's own address is checked all the same", async () => {
    const host = await Host.create();
    const [guest, one] = [host.guest({ run: "sink" }), host.port()];
    host.vswitch({ connect: [guest, one] });
    one.push([frame(B, guest.mac)]);
    host.core.setU16(one.toHost + Ring.slots + Packet.flags, PacketFlag.NO_LEARN);
    host.drain();
    expect(host.stats().ports[1]!.drops).toEqual({ spoofed: 1 });
  });
});

test("two passes: the frames of a burst for each of several ports arrive in their order, between broadcasts", async () => {
  const v = await Vale.of(4);
  for (const [port, from] of [A, B, C].entries()) v.to(port + 1, frame(mac(99), from));
  const to = [A, B, "ff:ff:ff:ff:ff:ff", A, C, B, A, "ff:ff:ff:ff:ff:ff", C];
  v.ports[0]!.push(to.map((one, i) => frame(one, mac(50), 60 + i)));
  v.host.drain();
  const lengths = v.ports.map((port) => taken(port).map((one) => one.length - 60));
  expect(lengths).toEqual([[], [0, 2, 3, 6, 7], [1, 2, 5, 7], [2, 4, 7, 8]]);
});

test("two passes: of a burst for several ports what is dropped goes back to the pool, and nothing else does", async () => {
  const v = await Vale.of(3);
  for (const [port, from] of [A, B, C].entries()) v.to(port, frame(mac(99), from));
  const to = [B, A, C, B, A, C];
  v.ports[0]!.push(to.map((one, i) => frame(one, mac(50), 60 + i)));
  v.host.drain();
  expect(v.drops(0)).toEqual({ hairpin: 2 });
  expect(v.host.stats().pool.outstanding).toBe(4);
  const lengths = v.ports.map((port) => taken(port).map((one) => one.length - 60));
  expect(lengths).toEqual([[], [0, 3], [2, 5]]);
  expect(v.host.stats().pool.outstanding).toBe(0);
});
