/** rte_flow: a card, or its driver, does what a slow model of the rules says; what is wrong is refused where it stands. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  Nic as NicLayout,
  Packet,
  Ring,
  RTE_FLOW_MARK,
  RteFlow,
  RteFlowKey,
  RteFlowTable,
  RxQueue,
  Switch as SwitchLayout,
} from "../assembly/layout.ts";
import {
  Host,
  type NicOptions,
  RteFlowError,
  type RteFlowItem,
  type RteFlowRule,
  type RteFlowValue,
} from "../src/index.ts";
import * as frames from "./frames.ts";
import { WIRE } from "./frames.ts";
import { instantiate } from "./harness/harness.ts";
import { headers, meets } from "./rte-flow-model.ts";

const SEED = 31;
const QUEUES = 5;
const A = "02:00:00:00:00:01";
const B = "02:00:00:00:00:02";

/** A card with five receive queues, of which only rules lead to more than the first. */
async function rig(options: NicOptions = {}) {
  const host = await Host.create();
  const nic = host.nic({ ring: 64, rssQueues: QUEUES, ...options });
  host.core.setU32(nic.address + NicLayout.rssQueues, 1);
  const port = host.port();
  const sw = host.vswitch({ connect: [nic, port] });
  const drops = () => host.stats().nics[0]?.drops ?? {};
  return { host, core: host.core, nic, port, sw, drops };
}
type Rig = Awaited<ReturnType<typeof rig>>;
const hardware = { flowOffload: true };
const software = { flowOffload: false };

const udp4 = (to: string, port: number, { mac = A, tags = [] as number[], protocol = frames.UDP } = {}) =>
  frames.ether(
    mac,
    WIRE,
    frames.IPV4,
    frames.ipv4({ from: "10.0.0.9", to, protocol }, frames.ports(1234, port)),
    tags,
  );

/**
 * Where one frame went, "drop", or the queue that it was taken from and its mark there; and that it arrived, or was
 * counted, and no buffer is lost.
 */
function fate(r: Rig, frame: Uint8Array): "drop" | { queue: number; mark: number } {
  const { core, nic, host } = r;
  const rings = Array.from({ length: core.u32(nic.address + NicLayout.rxQueues) }, (_, i) => nic.rxQueue(i));
  const counts = () =>
    rings.map((q) => {
      const brought = core.u32(q + RxQueue.brought);
      return {
        received: core.counter(q + RxQueue.packets),
        brought: brought && core.u32(brought + Ring.head),
      };
    });
  const dropped = () => r.drops().rxFlowDrop ?? 0;
  const [before, droppedBefore] = [counts(), dropped()];
  nic.receive([frame]);
  host.drain();
  const after = counts();
  const arrived = frames.taken(r.port);
  if (dropped() > droppedBefore) {
    expect(arrived).toEqual([]);
    return "drop";
  }
  expect(arrived).toEqual([frame]);
  const brought = after.findIndex((one, i) => one.brought !== before[i]?.brought);
  const received = after.findIndex((one, i) => one.received !== before[i]?.received);
  return {
    queue: brought < 0 ? received : brought,
    mark: core.u16(r.sw.address + SwitchLayout.packets + Packet.mark),
  };
}
const queueOf = (r: Rig, frame: Uint8Array) => {
  const where = fate(r, frame);
  return where === "drop" ? where : where.queue;
};

describe.each([
  ["the card", hardware],
  ["its driver", software],
])("%s follows", (_, options) => {
  test("eth, vlan, ipv4 under a mask and udp: to a queue, with a mark, counted", async () => {
    const r = await rig(options);
    const line =
      "flow create 0 ingress pattern eth dst is 02:00:00:00:00:01 / vlan vid is 5 / ipv4 src spec 10.0.0.0 src mask 255.0.0.0 / udp dst is 53 / end actions mark id 3 / queue index 2 / count / end";
    expect(r.nic.flow.run(line)).toBe("Flow rule #0 created");
    const hit = udp4("1.2.3.4", 53, { tags: [0xe005] });
    expect(fate(r, hit)).toEqual({ queue: 2, mark: RTE_FLOW_MARK | 3 });
    for (const miss of [
      udp4("1.2.3.4", 54, { tags: [5] }),
      udp4("1.2.3.4", 53, { tags: [6] }),
      udp4("1.2.3.4", 53),
      udp4("1.2.3.4", 53, { tags: [5], mac: B }),
      udp4("1.2.3.4", 53, { tags: [5], protocol: frames.TCP }),
    ])
      expect(fate(r, miss)).toEqual({ queue: 0, mark: 0 });
    expect(r.nic.flow.query(0)).toEqual({ hits: 1, bytes: hit.length });
    expect(r.nic.flow.run("flow query 0 0 count")).toMatch(`hits: 1\n bytes: ${hit.length}`);
  });

  test("rss: by the card's key over the queues that are listed, as its own RSS over a table of them", async () => {
    const [r, own] = [await rig(options), await rig({ rssQueues: 3 })];
    own.core.setU32(own.nic.address + NicLayout.rssQueues, 3);
    r.nic.flow.create("ingress pattern eth / ipv4 / udp / end actions rss queues 3 1 4 end / end");
    for (let i = 0; i < 64; i++) {
      const frame = udp4(`10.0.${i}.1`, 1000 + i);
      expect(queueOf(r, frame)).toBe([3, 1, 4][queueOf(own, frame) as number]);
    }
    expect(queueOf(r, frames.ether(A, WIRE, frames.ARP, Array(46).fill(0)))).toBe(0);
  });

  test("rss without a list: over the card's own queues, and what isn't IP goes to queue 0", async () => {
    const r = await rig(options);
    r.nic.flow.create("ingress pattern eth / end actions rss / end");
    const own = await rig({ rssQueues: QUEUES });
    own.core.setU32(own.nic.address + NicLayout.rssQueues, QUEUES);
    for (let i = 0; i < 20; i++) {
      const frame = udp4(`10.0.${i}.1`, 1000 + i);
      expect(queueOf(r, frame)).toBe(queueOf(own, frame));
    }
    expect(queueOf(r, frames.ether(A, WIRE, frames.ARP, Array(46).fill(0)))).toBe(0);
  });

  test("drop: counted for the rule and for the card; the lowest priority wins, then the first that was made", async () => {
    const r = await rig(options);
    const { flow } = r.nic;
    flow.create("priority 5 ingress pattern eth / ipv4 / end actions queue index 1 / end");
    flow.create("priority 5 ingress pattern eth / end actions queue index 2 / end");
    const drop = flow.create("priority 4 ingress pattern eth / ipv4 / udp dst is 9 / end actions drop / end");
    expect(queueOf(r, udp4("1.1.1.1", 8))).toBe(1);
    expect(queueOf(r, frames.ether(A, WIRE, frames.ARP, Array(46).fill(0)))).toBe(2);
    expect(queueOf(r, udp4("1.1.1.1", 9))).toBe("drop");
    expect(queueOf(r, udp4("1.1.1.1", 9))).toBe("drop");
    expect(flow.query(drop)).toEqual({ hits: 2, bytes: 2 * udp4("1.1.1.1", 9).length });
    expect(r.drops()).toEqual({ rxFlowDrop: 2 });
    flow.destroy(drop);
    expect(queueOf(r, udp4("1.1.1.1", 9))).toBe(1);
  });

  test("a rule that names no queue leaves that to the filters, whose mark stays", async () => {
    const r = await rig(options);
    r.nic.steer(B, 0, 3, 1);
    r.nic.flow.create("ingress pattern eth / end actions mark id 7 / count / end");
    expect(fate(r, udp4("1.1.1.1", 9))).toEqual({ queue: 0, mark: RTE_FLOW_MARK | 7 });
    expect(fate(r, udp4("1.1.1.1", 9, { mac: B }))).toEqual({ queue: 3, mark: 2 });
    expect(r.nic.flow.query(0).hits).toBe(2);
  });

  test("a frame of several buffers is one frame, all of whose bytes count", async () => {
    const r = await rig(options);
    r.nic.flow.create("ingress pattern eth / ipv4 / end actions queue index 4 / end");
    const payload = [...frames.ports(1, 2), ...Array(8000).fill(7)];
    const big = frames.ether(
      A,
      WIRE,
      frames.IPV4,
      frames.ipv4({ from: "10.0.0.1", to: "10.0.0.2", protocol: 17 }, payload),
    );
    expect(queueOf(r, big)).toBe(4);
    expect(r.nic.flow.query(0)).toEqual({ hits: 1, bytes: big.length });
    r.nic.flow.create("priority 1 ingress pattern eth / end actions drop / end");
    r.nic.flow.destroy(0);
    expect(queueOf(r, big)).toBe("drop");
  });

  test("two tags: each vlan item its own, eth type and inner_type what stands before and behind them", async () => {
    const r = await rig(options);
    r.nic.flow.create(
      "ingress pattern eth type is 0x8100 / vlan vid is 1 inner_type is 0x8100 / vlan vid is 2 pcp is 7 inner_type is 0x0800 / ipv4 / end actions queue index 1 / end",
    );
    r.nic.flow.create("ingress pattern eth has_vlan is 0 / any / udp / end actions queue index 2 / end");
    expect(queueOf(r, udp4("1.1.1.1", 1, { tags: [1, 0xe002] }))).toBe(1);
    expect(queueOf(r, udp4("1.1.1.1", 1, { tags: [1, 2] }))).toBe(0);
    expect(queueOf(r, udp4("1.1.1.1", 1, { tags: [2, 0xe001] }))).toBe(0);
    expect(queueOf(r, udp4("1.1.1.1", 1))).toBe(2);
  });
});

test("what its driver can't bring to a queue, since the ring there is full, is counted, and no buffer is lost", async () => {
  const host = await Host.create();
  const nic = host.nic({ ring: 64, rssQueues: 8, ...software });
  const port = host.port();
  host.vswitch({ connect: [nic, port] });
  nic.flow.create("ingress pattern eth / ipv4 / udp / end actions queue index 0 / end");
  const some = Array.from({ length: 512 }, (_, i) => frames.numbered(udp4(`10.${i % 7}.0.1`, i), i));
  const received = nic.receive(some);
  host.drain();
  const arrived = frames.taken(port).map(frames.numberOf);
  const { rxNoBuffer, rxFlowFull } = host.stats().nics[0]?.drops ?? {};
  expect(received + (rxNoBuffer ?? 0)).toBe(512);
  expect(rxFlowFull).toBeGreaterThan(0);
  expect(arrived.length + (rxFlowFull as number)).toBe(received);
  expect(new Set(arrived).size).toBe(arrived.length);
  expect(frames.astray(host)).toBe(0);
});

// Few values of each, so that rules and frames meet.
const pick = <T>(...values: T[]) => fc.constantFrom(...values);
const macs = pick(A, B, "03:00:00:00:00:05");
const ips4 = pick("10.0.0.1", "10.0.1.1", "10.128.0.1", "192.168.0.1");
const ips6 = pick("fd00:0:0:0:0:0:0:1", "fd00:0:0:1:0:0:0:1", "fe80:0:0:0:0:0:0:2");
const numbers = (...values: number[]): fc.Arbitrary<RteFlowValue> =>
  fc.oneof(pick(...values), fc.record({ spec: pick(...values), mask: pick(0, 1, 3, 7) }));
const addresses = (values: fc.Arbitrary<string>, bits: number, masks: string[]): fc.Arbitrary<RteFlowValue> =>
  fc.oneof(
    values,
    fc.record({ spec: values, mask: pick(...masks) }),
    fc.record({ spec: values, prefix: fc.integer({ min: 0, max: bits }) }),
  );
const some = <T extends Record<string, fc.Arbitrary<unknown>>>(item: string, fields: T) =>
  fc.record(fields, { requiredKeys: [] }).map((chosen) => ({ item, ...chosen }) as unknown as RteFlowItem);
const eth = some("eth", {
  dst: addresses(macs, 48, ["ff:00:00:00:00:01", "00:00:00:00:00:03"]),
  src: macs,
  type: pick(0x0800, 0x86dd, 0x8100, 0x88a8, 0x0806),
  has_vlan: pick(0, 1),
});
const vlan = some("vlan", {
  vid: numbers(0, 1, 5),
  pcp: numbers(0, 7),
  dei: pick(0, 1),
  inner_type: pick(0x0800, 0x86dd, 0x8100),
});
const v4 = some("ipv4", {
  src: addresses(ips4, 32, ["255.0.0.0", "0.0.255.1"]),
  dst: addresses(ips4, 32, ["255.0.0.0", "0.0.255.1"]),
  proto: pick(6, 17, 1),
  ttl: numbers(64),
  tos: numbers(0),
  fragment_offset: pick<RteFlowValue>(0, { spec: 0x2000, mask: 0x2000 }, { spec: 0, mask: 0x1fff }),
});
const v6 = some("ipv6", {
  src: addresses(ips6, 128, ["ffff:0:0:0:0:0:0:0"]),
  dst: addresses(ips6, 128, ["0:0:0:ffff:0:0:0:3"]),
  proto: pick(6, 17, 44, 0),
  hop: pick(64),
  tc: pick(0, 3),
  flow: numbers(0, 5),
});
const ports = { src: numbers(1234, 80), dst: numbers(53, 80) };
const l4 = fc.oneof(some("udp", ports), some("tcp", { ...ports, flags: numbers(0, 2) }));
const nothing = fc.constant<RteFlowItem[]>([]);
const list = (of: fc.Arbitrary<RteFlowItem>, max: number) => fc.array(of, { maxLength: max });
const patterns = fc
  .tuple(
    fc.oneof(
      nothing,
      eth.map((item) => [item]),
    ),
    list(vlan, 2),
    fc.oneof(
      nothing,
      fc
        .tuple(fc.oneof(v4, v6, fc.constant<RteFlowItem>({ item: "any" })), list(l4, 1))
        .map(([ip, behind]) => [ip, ...behind]),
    ),
    fc.boolean(),
  )
  .map(([first, tags, ip, blank]) => [
    ...first,
    ...(blank ? [{ item: "void" as const }] : []),
    ...tags,
    ...ip,
  ]);
/** Of three masks, so that several rules have the same one and their priorities interleave. */
const similar: fc.Arbitrary<RteFlowItem[]> = fc.oneof(
  macs.map((dst): RteFlowItem[] => [{ item: "eth", dst }]),
  ips4.map((dst): RteFlowItem[] => [{ item: "ipv4", dst }]),
  pick(53, 80).map((dst): RteFlowItem[] => [{ item: "any" }, { item: "udp", dst }]),
);
const rules: fc.Arbitrary<RteFlowRule> = fc.record({
  priority: fc.integer({ min: 0, max: 3 }),
  pattern: fc.oneof(patterns, similar),
  actions: fc
    .tuple(
      fc.oneof(
        fc.constant([{ action: "drop" as const }]),
        fc.integer({ min: 0, max: QUEUES - 1 }).map((index) => [{ action: "queue" as const, index }]),
      ),
      fc.oneof(
        fc.constant([]),
        fc.integer({ min: 0, max: 0x7fff }).map((id) => [{ action: "mark" as const, id }]),
      ),
    )
    .map(([to, mark]) => [...mark, ...to, { action: "count" as const }]),
});

const ip4 = fc
  .record({
    from: ips4,
    to: ips4,
    protocol: pick(6, 17, 1),
    fragment: pick(0, 0, 0, 0x2000, 0x2001, 0x1fff),
    options: pick([], [1, 1, 1, 1]),
    version: pick(4, 4, 4, 5),
  })
  .map((header) => (payload: number[]) => ({ type: frames.IPV4, bytes: frames.ipv4(header, payload) }));
/** Extension headers in front of UDP or TCP: none, one of options, a first and a later fragment. */
const extensions = pick<(next: number) => [number, number[]]>(
  (next) => [next, []],
  (next) => [60, [next, 0, 1, 4, 0, 0, 0, 0]],
  (next) => [0, [44, 0, 1, 4, 0, 0, 0, 0, next, 0, 0, 1, 0, 0, 0, 1]],
  (next) => [44, [next, 0, 0, 8, 0, 0, 0, 1]],
);
const ip6 = fc
  .record({
    from: ips6,
    to: ips6,
    protocol: pick(6, 17, 58),
    before: extensions,
    first: pick(0x60, 0x60, 0x50),
    label: pick(0, 5),
  })
  .map(({ from, to, protocol, before, first, label }) => (payload: number[]) => {
    const [next, headers] = before(protocol);
    const bytes = frames.ipv6({ from, to, next }, [...headers, ...payload]);
    bytes[0] = first;
    bytes[3] = label;
    return { type: frames.IPV6, bytes };
  });
const other = pick(frames.ARP, 0x88b5, 0x8100).map((type) => (payload: number[]) => ({
  type,
  bytes: payload,
}));
const wire = fc
  .record({
    to: macs,
    from: pick(WIRE, "02:00:00:00:ff:02"),
    tags: fc.array(pick(0, 1, 5, 0xe005, 0x1001), { maxLength: 3 }),
    service: fc.boolean(),
    l3: fc.oneof(ip4, ip6, other),
    ports: fc.tuple(pick(1234, 80), pick(53, 80)),
    flags: pick(0, 2, 0x12),
    keep: fc.oneof(fc.constant(10_000), fc.integer({ min: 14, max: 110 })),
  })
  .map(({ to, from, tags, service, l3, ports: [src, dst], flags, keep }) => {
    const upper = frames.ports(src, dst);
    upper[13] = flags;
    const { type, bytes } = l3([...upper, ...Array(20).fill(0x45)]);
    const frame = frames.ether(to, from, type, bytes, tags);
    if (service && tags.length > 0) frame.set([0x88, 0xa8], 12);
    return frame.subarray(0, keep).slice();
  });

test("a frame's key: whole, what the model sees, and nothing is read behind the frame or written beside the key", async () => {
  const { call, memory } = await instantiate();
  const bytes = new Uint8Array(memory.buffer);
  const KEY = 0x1000;
  const number = (at: number, n: number) =>
    bytes.subarray(KEY + at, KEY + at + n).reduce((all, byte) => all * 256n + BigInt(byte), 0n);
  fc.assert(
    fc.property(wire, fc.nat(120), (frame, cut) => {
      for (const len of new Set([frame.length, Math.max(14, frame.length - cut)])) {
        // Its last byte is memory's last: a read behind it would trap.
        bytes.set(frame.subarray(0, len), bytes.length - len);
        bytes.fill(0xee, KEY - 8, KEY + RteFlowKey.SIZE + 8);
        call.rteFlowKey?.(bytes.length - len, len, KEY);
        const around = [
          ...bytes.subarray(KEY - 8, KEY),
          ...bytes.subarray(KEY + RteFlowKey.SIZE).subarray(0, 8),
        ];
        expect(around.every((byte) => byte === 0xee)).toBe(true);
        const h = headers(frame.subarray(0, len));
        expect(number(RteFlowKey.dst, 6)).toBe(h.eth.dst);
        expect(number(RteFlowKey.type, 2)).toBe(h.type);
        expect(number(RteFlowKey.tags, 1)).toBe([0n, 1n, 3n][h.tags.length]);
        expect(number(RteFlowKey.ip, 1)).toBe(BigInt(h.ip?.version ?? 0));
        expect(number(RteFlowKey.l4, 1)).toBe(BigInt(h.l4?.protocol ?? 0));
        expect(number(RteFlowKey.destinationPort, 2)).toBe(h.l4?.dst ?? 0n);
        expect(number(RteFlowKey.tcpFlags, 2)).toBe((h.l4?.flags ?? 0n) << 8n);
        const bits = h.ip?.version === 6 ? 16 : 4;
        expect(number(RteFlowKey.destination, bits)).toBe(h.ip?.dst ?? 0n);
      }
    }),
    { seed: SEED, numRuns: 2000 },
  );
});

/** Makes those of the rules that aren't refused; gives these, with their ids. */
function made(r: Rig, wanted: readonly RteFlowRule[]) {
  return wanted.flatMap((rule) => {
    try {
      return [{ rule, id: r.nic.flow.create(rule) }];
    } catch (error) {
      // Items that contradict each other, and twins.
      expect(error).toBeInstanceOf(RteFlowError);
      return [];
    }
  });
}

describe("against the model", () => {
  test.each([
    ["the card", hardware],
    ["its driver", software],
  ])(
    "%s: queue, mark, drop and counters of each frame, also when rules are destroyed meanwhile",
    async (_, options) => {
      const r = await rig({ flowRules: 16, ...options });
      let met = 0;
      fc.assert(
        fc.property(
          fc.array(rules, { minLength: 1, maxLength: 14 }),
          fc.array(wire, { minLength: 10, maxLength: 30 }),
          fc.array(fc.nat(13), { maxLength: 6 }),
          (wanted, some, gone) => {
            r.nic.flow.flush();
            let all = made(r, wanted);
            const counts = new Map(all.map(({ id }) => [id, { hits: 0, bytes: 0 }]));
            some.forEach((frame, i) => {
              const victim = i % 4 === 3 ? all[gone[i >> 2] ?? -1] : undefined;
              if (victim) {
                expect(r.nic.flow.query(victim.id)).toEqual(counts.get(victim.id));
                r.nic.flow.destroy(victim.id);
                all = all.filter((one) => one !== victim);
              }
              const hit =
                all[
                  meets(
                    all.map(({ rule }) => rule),
                    frame,
                  )
                ];
              if (!hit) {
                expect(fate(r, frame)).toEqual({ queue: 0, mark: 0 });
                return;
              }
              met++;
              const count = counts.get(hit.id) as { hits: number; bytes: number };
              count.hits++;
              count.bytes += frame.length;
              let expected: ReturnType<typeof fate> = { queue: 0, mark: 0 };
              for (const one of hit.rule.actions) {
                if (one.action === "queue") expected.queue = one.index;
                if (one.action === "mark") expected.mark = RTE_FLOW_MARK | one.id;
              }
              if (hit.rule.actions.some(({ action }) => action === "drop")) expected = "drop";
              expect(fate(r, frame)).toEqual(expected);
            });
            for (const { id } of all) expect(r.nic.flow.query(id)).toEqual(counts.get(id));
            expect(frames.astray(r.host)).toBe(0);
          },
        ),
        { seed: SEED, numRuns: 100 },
      );
      expect(met).toBeGreaterThan(400);
    },
  );

  test("what the card has is listed as text that makes the same rule again", async () => {
    const [r, again] = [await rig({ flowRules: 16 }), await rig({ flowRules: 16 })];
    fc.assert(
      fc.property(rules, (rule) => {
        const [one] = made(r, [rule]);
        if (!one) return;
        const [first] = r.nic.flow.list();
        again.nic.flow.create(first?.rule as string);
        const [second] = again.nic.flow.list();
        expect(second?.rule).toBe(first?.rule);
        const input = ({ core, nic }: Rig) => {
          const at = core.u32(nic.flow.table + RteFlowTable.rules);
          return core.bytes.slice(at, at + RteFlow.INPUT);
        };
        expect(input(again)).toEqual(input(r));
        r.nic.flow.flush();
        again.nic.flow.flush();
      }),
      { seed: SEED, numRuns: 300 },
    );
  });
});
