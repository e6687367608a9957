/**
 * rte_flow with guests: marks by which the switch forwards without reading, rules that may and may not lead into a mapped
 * guest's memory, rules from hostile memory, and rules that change while traffic runs.
 */
import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import {
  Nic as NicLayout,
  Packet,
  RTE_FLOW_MARK,
  RteFlow,
  RteFlowRefusal,
  RteFlowTable,
  RxQueue,
} from "../assembly/layout.ts";
import { type Attach, type Guest, Host, type NicOptions } from "../src/index.ts";
import { astray, macBytes, taken } from "./frames.ts";
import { frame, misplaced, misplacedInPool, numberOf, regionOf, sent, WIRE } from "./harness/host.ts";

const A = "02:00:00:00:00:a1";
const B = "02:00:00:00:00:b1";
const modes: [string, NicOptions][] = [
  ["in the card", {}],
  ["in the driver", { flowOffload: false }],
];

/** A card with three queues of host buffers, guests, and two ports of JavaScript. */
async function rig(options: NicOptions = {}, attach: Attach[] = ["iovtee"], shared = false) {
  const host = await Host.create({ memory: 128 * 2 ** 20, shared });
  const nic = host.nic({ ring: 64, mappedRing: 128, rssQueues: 3, queues: 8, ...options });
  host.core.setU32(nic.address + NicLayout.rssQueues, 1);
  const guests = attach.map((name) => host.guest({ ring: 128, attach: name }));
  const [one, two] = [host.port(), host.port()];
  const sw = host.vswitch({ connect: [nic, ...guests, one, two] });
  const drops = () => host.stats().nics[0]?.drops;
  return { host, core: host.core, nic, guests, guest: guests[0] as Guest, one, two, sw, drops };
}
type Rig = Awaited<ReturnType<typeof rig>>;

const numbered = (n: number, to: string, first = 0) =>
  Array.from({ length: n }, (_, i) => frame(to, first + i));
const numbers = (some: Uint8Array[]) => some.map(numberOf);
const upTo = (n: number, first = 0) => Array.from({ length: n }, (_, i) => first + i);
const hits = (r: Rig) => r.host.stats().mappings.map((mapping) => mapping.hits);

/** The destination of all frames but the first that the card has received in queue 0 becomes `mac`. */
function redirect({ core, nic }: Rig, mac: string): void {
  const q = nic.rxQueue(0);
  for (let i = core.u32(q + RxQueue.next) + 1; i !== core.u32(q + RxQueue.head); i++) {
    const slot = core.u32(q + RxQueue.ring) + (i & core.u32(q + RxQueue.mask)) * Packet.SIZE;
    core.bytes.set(macBytes(mac), core.u32(slot + Packet.addr));
  }
}

describe("a mark", () => {
  /** A is behind port one, B behind port two; eight frames to A, of which all but the first are then made ones to B. */
  async function run(rule: string | undefined, mark: boolean) {
    const r = await rig({}, []);
    r.one.push([frame(WIRE, 0, 60, A)]);
    r.two.push([frame(WIRE, 0, 60, B)]);
    r.host.drain();
    sent(r);
    for (const port of [r.one, r.two]) taken(port);
    if (rule) r.nic.flow.create(rule);
    if (mark) r.sw.forwardMark(3, r.one);
    r.nic.receive(numbered(8, A));
    redirect(r, B);
    r.host.drain();
    const arrived = [taken(r.one).length, taken(r.two).length];
    expect(astray(r.host)).toBe(0);
    return arrived;
  }
  const marked = "ingress pattern eth / end actions mark id 3 / queue index 0 / end";

  test("lets the switch forward without reading the frames: what they say later doesn't matter", async () => {
    expect(await run(undefined, false)).toEqual([1, 7]);
    expect(await run(marked, false)).toEqual([1, 7]);
    expect(await run(undefined, true)).toEqual([1, 7]);
    expect(await run(marked, true)).toEqual([8, 0]);
  });

  test.each(modes)(
    "%s, sends frames to the guest that it is for, whatever their destination, until it isn't",
    async (_, options) => {
      const r = await rig(options, ["vhost", "vhost"]);
      r.nic.flow.create("ingress pattern eth / end actions mark id 5 / queue index 2 / end");
      const received = () => r.host.stats().guests.map((guest) => guest.received);
      const send = () => {
        r.nic.receive(numbered(4, r.guest.mac));
        r.host.drain();
        sent(r);
      };
      send();
      expect(received()).toEqual([4, 0]);
      r.sw.forwardMark(5, r.guests[1]);
      send();
      expect(received()).toEqual([4, 4]);
      r.sw.forwardMark(5);
      send();
      expect(received()).toEqual([8, 4]);
      expect(r.nic.flow.query(0).hits).toBe(12);
    },
  );

  test("is never taken for a filter's, which are port numbers, nor the other way round", async () => {
    const r = await rig({}, ["vhost", "vhost"]);
    const [first, second] = r.guests as [Guest, Guest];
    for (const id of [0, 1, 2, 3, 4]) {
      const rule = r.nic.flow.create(`ingress pattern eth / end actions mark id ${id} / queue index 0 / end`);
      r.nic.receive([frame(first.mac)]);
      r.host.drain();
      r.nic.flow.destroy(rule);
    }
    expect(r.host.stats().guests.map((guest) => guest.received)).toEqual([5, 0]);
    // A filter's mark of port 2, which the switch has another use for as a rule's.
    for (const mark of [2, 3]) r.sw.forwardMark(mark, first);
    r.nic.steer(A, 0, 0, r.sw.indexOf(second));
    r.nic.receive([frame(A)]);
    r.host.drain();
    expect(r.host.stats().guests.map((guest) => guest.received)).toEqual([5, 1]);
  });

  test("of what isn't connected, or no rule can give, is refused", async () => {
    const r = await rig();
    expect(() => r.sw.forwardMark(RTE_FLOW_MARK, r.one)).toThrow("mark: 32768, expected 0 to 32767");
    expect(() => r.sw.forwardMark(1, r.host.port())).toThrow("port2: not connected to this switch");
  });

  test("isn't believed by a VLAN-aware switch", async () => {
    const host = await Host.create();
    const nic = host.nic();
    const [one, two] = [host.port(), host.port()];
    const sw = host.vswitch({ connect: [nic, one, two], vlanAware: true });
    sw.vlan(nic, 7);
    sw.vlan(one, 7);
    sw.vlan(two, 8);
    sw.forwardMark(1, two);
    nic.flow.create("ingress pattern eth / end actions mark id 1 / queue index 0 / end");
    nic.receive([frame(A)]);
    host.drain();
    expect([taken(one).length, taken(two).length]).toEqual([1, 0]);
  });
});

describe("a mapped guest's queue", () => {
  const MAPPED = 3;
  const to = (pattern: string, actions = `queue index ${MAPPED}`) =>
    `ingress pattern ${pattern} / end actions ${actions} / end`;

  test("is refused to rules that would bring other frames there, or another mark", async () => {
    const r = await rig({}, ["iovtee", "iovtee"]);
    const [first, second] = r.guests as [Guest, Guest];
    for (const rule of [
      to("eth"),
      to(`eth dst is ${second.mac}`),
      to(`eth dst is ${A}`),
      to(`eth dst spec ${first.mac} dst mask ff:ff:ff:ff:ff:fe`),
      to("ipv4 / udp dst is 53"),
      to("eth", `rss queues 0 ${MAPPED} end`),
      to(`eth dst is ${first.mac}`, `rss queues ${MAPPED} ${MAPPED + 1} end`),
    ])
      expect(() => r.nic.flow.create(rule)).toThrow(/this is a mapped guest's memory$/);
    expect(() =>
      r.nic.flow.create(to(`eth dst is ${first.mac}`, `mark id 1 / queue index ${MAPPED}`)),
    ).toThrow(/column \d+: "1", expected no mark of a rule's/);
    expect(r.nic.flow.list()).toEqual([]);
  });

  test("takes a rule for the guest's own frames, without a copy, unread, while it is mapped", async () => {
    const r = await rig();
    r.nic.flow.create(to(`eth dst is ${r.guest.mac} type is 0x88b5`));
    const send = (n: number, first: number) => {
      r.nic.receive(numbered(n, r.guest.mac, first));
      r.host.drain();
      expect(numbers(sent(r))).toEqual(upTo(n, first));
    };
    send(20, 0);
    expect(hits(r)).toEqual([20]);
    r.sw.unmap(r.guest);
    send(20, 20);
    expect(hits(r)).toEqual([20]);
    r.sw.map(r.nic, r.guest);
    send(20, 40);
    expect(hits(r)).toEqual([40]);
    expect(r.nic.flow.query(0).hits).toBe(60);
    expect(r.drops()).toEqual({});
  });

  test("a mark without a queue doesn't come between the filter and the guest", async () => {
    const r = await rig();
    r.nic.flow.create(to("eth", "mark id 9"));
    r.nic.receive(numbered(8, r.guest.mac));
    r.host.drain();
    expect(hits(r)).toEqual([8]);
    // Nor where the filter has no mark of its own.
    r.nic.steer(A, 0, MAPPED, -1);
    r.sw.forwardMark(9, r.two);
    r.nic.receive([frame(A)]);
    r.host.drain();
    expect(taken(r.two)).toHaveLength(1); // flooded, as it is nobody's
    expect(taken(r.one)).toHaveLength(1);
  });

  test.each(modes)(
    "what a rule %s drops or takes elsewhere never touches the guest's memory",
    async (_, options) => {
      const r = await rig(options);
      r.nic.flow.create(to(`eth dst is ${r.guest.mac} src is ${WIRE}`, "drop"));
      const before = regionOf(r.guest).slice();
      r.nic.receive(numbered(16, r.guest.mac));
      r.host.drain();
      expect(Buffer.compare(regionOf(r.guest), before)).toBe(0);
      expect(r.drops()).toEqual({ rxFlowDrop: 16 });
      r.nic.flow.flush();
      r.nic.flow.create(to(`eth dst is ${r.guest.mac}`, "mark id 1 / queue index 1"));
      r.sw.forwardMark(1, r.one);
      r.nic.receive(numbered(16, r.guest.mac));
      r.host.drain();
      expect(numbers(taken(r.one))).toEqual(upTo(16));
      expect(Buffer.compare(regionOf(r.guest), before)).toBe(0);
      expect(astray(r.host)).toBe(0);
    },
  );

  test("while its driver follows rules, a mapped guest gets copies; without rules it is mapped again", async () => {
    const r = await rig({ flowOffload: false });
    const send = (first: number) => {
      r.nic.receive(numbered(48, r.guest.mac, first));
      r.host.drain();
      expect(numbers(sent(r))).toEqual(upTo(48, first));
    };
    send(0);
    expect(hits(r)).toEqual([48]);
    const rule = r.nic.flow.create(to(`eth dst is ${B}`, "drop"));
    send(48);
    r.nic.flow.create(to(`eth dst is ${r.guest.mac}`));
    send(96); // its queue takes nothing: by the switch, as without the rule
    expect(hits(r)).toEqual([48]);
    r.nic.flow.flush();
    send(144);
    expect(hits(r)).toEqual([96]);
    expect(rule).toBe(0);
    expect([...misplaced(r as never, r.guest), ...misplacedInPool(r as never)]).toEqual([]);
  });
});

test("rules from hostile memory: whatever stands there is refused, or steers to a queue that the card has", async () => {
  const r = await rig();
  const { core, nic } = r;
  const { table } = nic.flow;
  const at = core.place(1, RteFlow.INPUT, "rule").address;
  let made = 0;
  const refusals = new Set<number>();
  const word = fc.oneof(
    fc.integer({ min: 0, max: 9 }),
    fc.constantFrom(0x7fff, 0x8000, 0xffff_ffff),
    fc.nat(0xffff_ffff),
  );
  const bytes = fc.uint8Array({ minLength: 72, maxLength: 72 });
  const bits = fc.oneof(fc.constant(new Uint8Array(72)), bytes);
  fc.assert(
    fc.property(
      fc.array(
        fc.tuple(
          fc.constantFrom(
            RteFlow.group,
            RteFlow.priority,
            RteFlow.attributes,
            RteFlow.actions,
            RteFlow.markId,
            RteFlow.queue,
            RteFlow.queueCount,
          ),
          word,
        ),
        { maxLength: 4 },
      ),
      fc.constantFrom(1, 2, 4, 8, 9, 16, 32),
      bits,
      bits,
      fc.uint8Array({ minLength: 0, maxLength: 128 }),
      (fields, actions, spec, mask, list) => {
        core.bytes.fill(0, at, at + RteFlow.INPUT);
        core.setFields(at, { [RteFlow.attributes]: 1, [RteFlow.actions]: actions });
        for (const [field, value] of fields) core.setU32(at + field, value);
        core.bytes.set(spec, at + RteFlow.spec);
        core.bytes.set(mask, at + RteFlow.mask);
        core.bytes.set(list, at + RteFlow.queues);
        const id = core.exports.createFlow(table, at);
        if (id < 0) {
          refusals.add(-id);
          return;
        }
        made++;
        nic.receive([frame(A), frame(r.guest.mac), frame(B).subarray(0, 14)]);
        r.host.drain();
        taken(r.one);
        taken(r.two);
        sent(r);
        expect(nic.flow.list()).toHaveLength(1);
        expect(nic.flow.run("flow list 0")).toContain(`${id}\t`);
        expect(core.exports.destroyFlow(table, id)).toBe(true);
        expect(core.exports.destroyFlow(table, id)).toBe(false);
      },
    ),
    { seed: 5, numRuns: 2000 },
  );
  expect(made).toBeGreaterThan(300);
  const { GROUP, ATTRIBUTES, ACTIONS, QUEUE, MAPPED, MARK } = RteFlowRefusal;
  expect([...refusals].sort((a, b) => a - b)).toEqual([GROUP, ATTRIBUTES, ACTIONS, QUEUE, MAPPED, MARK]);
  expect(astray(r.host)).toBe(0);
  expect(core.u32(table + RteFlowTable.count)).toBe(0);
  expect(core.u32(table + RteFlowTable.maskCount)).toBe(0);
});

test.each(modes)("a change %s lets no frame overtake those that came before it", async (_, options) => {
  const r = await rig(options, ["iovtee", "vhost"]);
  for (const { mac } of r.guests) {
    const change = [
      () => r.nic.flow.create(`ingress pattern eth dst is ${mac} / end actions queue index 2 / end`),
      () => r.nic.flow.create(`ingress pattern eth src is ${WIRE} / end actions queue index 1 / end`),
      () => r.nic.flow.destroy(r.nic.flow.list()[0]?.id as number),
      () => r.nic.flow.flush(),
    ];
    // Few, since a mapped guest keeps back one buffer in eight for copies.
    r.nic.receive(numbered(3, mac));
    change.forEach((make, i) => {
      make();
      r.nic.receive(numbered(3, mac, 3 * i + 3));
    });
    r.host.drain();
    expect(numbers(sent(r))).toEqual(upTo(15));
  }
});

describe("while traffic runs", () => {
  const running: Host[] = [];
  afterEach(() => {
    for (const host of running.splice(0)) host.stop();
  });

  test.each<[string, Attach, NicOptions]>([
    ["in the card, vhost", "vhost", {}],
    ["in the card, iovtee", "iovtee", {}],
    ["in the driver, vhost", "vhost", { flowOffload: false }],
    ["in the driver, iovtee", "iovtee", { flowOffload: false }],
  ])(
    "rules come and go %s, on lcores: each frame comes back once, in order, or is counted as dropped",
    async (_, attach, options) => {
      const r = await rig(options, [attach], true);
      running.push(r.host);
      const { done } = await r.host.launch([r.sw, r.guest]);
      const back: number[] = [];
      const collect = (n: number, patience = 5000) => {
        for (const end = performance.now() + patience; back.length < n && performance.now() < end; )
          if (r.nic.wait(50)) r.nic.transmit((some) => back.push(...some.map(numberOf)));
      };
      const lines = [
        `ingress pattern eth dst is ${r.guest.mac} / end actions queue index 1 / end`,
        "priority 1 ingress pattern eth / end actions mark id 4 / rss queues 0 1 2 end / end",
        "priority 2 ingress pattern eth src is 02:00:00:00:ff:01 / end actions queue index 2 / end",
        ...(attach === "iovtee"
          ? [`priority 3 ingress pattern eth dst is ${r.guest.mac} / end actions queue index 3 / end`]
          : []),
      ];
      r.sw.forwardMark(4, r.guest);
      let next = 0;
      const send = (n: number) => {
        r.nic.receive(numbered(n, r.guest.mac, next));
        next += n;
      };
      for (let round = 0; round < 60; round++) {
        send(8);
        const rules = r.nic.flow.list();
        if (round % 7 === 6) r.nic.flow.flush();
        else if (rules[0] && (rules.length === lines.length || round % 3 === 2))
          r.nic.flow.destroy(rules[0].id);
        else
          r.nic.flow.create(lines.find((line) => !rules.some(({ rule }) => line.startsWith(rule))) as string);
        send(8);
        collect(next);
      }
      expect(back).toEqual(upTo(next));
      // Then one that drops.
      r.nic.flow.flush();
      const id = r.nic.flow.create("ingress pattern eth / end actions drop / end");
      send(16);
      for (const end = performance.now() + 2000; r.nic.flow.query(id).hits < 16 && performance.now() < end; )
        await new Promise((resolve) => setTimeout(resolve, 5));
      expect(r.drops()).toEqual({ rxFlowDrop: 16 });
      r.nic.flow.destroy(id);
      send(8);
      collect(back.length + 8);
      expect(back).toEqual([...upTo(next - 24), ...upTo(8, next - 8)]);
      r.host.stop();
      await done;
      r.host.drain();
      expect(astray(r.host)).toBe(0);
    },
  );
});

describe("a pipe that is bridged to the card", () => {
  const rule = "ingress pattern eth / ipv4 / end actions drop / end";
  async function bridged(options: NicOptions) {
    const host = await Host.create();
    const nic = host.nic(options);
    const guest = host.guest({ attach: "pipe" });
    return { host, nic, guest, bridge: () => host.bridge(nic, guest) };
  }

  test("follows the card's rules", async () => {
    const { host, nic, guest, bridge } = await bridged({});
    bridge();
    nic.flow.create(rule);
    const back = (...some: Uint8Array[]) => {
      nic.receive(some);
      host.drain();
      return sent({ nic }).length;
    };
    const ip = frame(guest.mac);
    ip.set([8, 0, 0x45], 12);
    expect(back(frame(guest.mac), ip)).toBe(1);
    expect(host.stats().nics[0]?.drops).toEqual({ rxFlowDrop: 1 });
  });

  test("would not follow those of the card's driver: they are refused, and so is the bridge where there are some", async () => {
    const first = await bridged({ flowOffload: false });
    first.bridge();
    for (const make of [() => first.nic.flow.create(rule), () => first.nic.flow.validate(rule)])
      expect(make).toThrow(/expected a card that follows rules itself \(flowOffload\)/);
    expect(first.nic.flow.list()).toEqual([]);
    const second = await bridged({ flowOffload: false });
    const id = second.nic.flow.create(rule);
    expect(second.bridge).toThrow("the driver of nic0 follows rte_flow rules, expected none");
    second.nic.flow.destroy(id);
    second.bridge();
    second.nic.receive([frame(second.guest.mac)]);
    second.host.drain();
    expect(sent({ nic: second.nic })).toHaveLength(1);
  });
});
