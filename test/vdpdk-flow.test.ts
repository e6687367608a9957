/**
 * rte_flow over vDPDK: a guest's rules by forwarded calls, followed by the card or by its driver, confined to the guest's own
 * frames, queue and number, whatever it writes.
 */
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  Offload,
  PacketFlag,
  RTE_FLOW_GUESTS,
  RteFlow,
  RteFlowAction,
  RteFlowKey,
  RteFlowRefusal,
  RteFlowTable,
  RxQueue,
  VdpdkCall,
  VdpdkControl,
  VdpdkDevice,
  VdpdkFlowResult,
  VdpdkQueue,
  VdpdkStatus,
} from "../assembly/layout.ts";
import { type Guest, Host, LcoreError, type NicOptions } from "../src/index.ts";
import { parseMac } from "../src/mac.ts";
import { astray, ether, IPV4, ipv4, numbered, numberOf, ports, sent, UDP, WIRE } from "./frames.ts";
import { collect } from "./harness/host.ts";
import { RawGuest } from "./harness/vdpdk.ts";

/** A UDP frame that carries its number. */
function udp(to: string, port: number, n = 0): Uint8Array {
  const header = { from: "10.0.0.1", to: "10.0.0.2", protocol: UDP };
  return numbered(ether(to, WIRE, IPV4, ipv4(header, [...ports(1000, port), 0, 40, 0, 0, ...Array(32)])), n);
}

async function rig(card: NicOptions = {}, zeroCopyRx = true, flows?: number, guests = 2) {
  const host = await Host.create({ memory: 64 * 2 ** 20 });
  const nic = host.nic({ ring: 64, queues: guests + 2, ...card });
  const vdpdk = { zeroCopyRx, ...(flows === undefined ? {} : { flows }) };
  const made = Array.from({ length: guests }, () =>
    host.guest({ attach: "vdpdk", ring: 64, memory: 2 ** 20, vdpdk }),
  );
  const vmux = host.vmux({ nic, guests: made });
  const [one, two] = made as [Guest, Guest];
  return { host, core: host.core, nic, vmux, one, two };
}
type Rig = Awaited<ReturnType<typeof rig>>;

/** Numbers of the frames that come back, of those that are sent to the guests. */
function back(r: Rig, ...frames: Uint8Array[]): number[] {
  r.nic.receive(frames);
  r.host.drain();
  const got = sent(r.nic).map(numberOf);
  r.host.drain();
  return got.sort((a, b) => a - b);
}

const ethdev = (guest: Guest) => guest.ethdev as NonNullable<Guest["ethdev"]>;
const create = (guest: Guest, pattern: string, actions: string) =>
  ethdev(guest).flowCreate(`ingress pattern ${pattern} / end actions ${actions} / end`);
const udpTo = (port: number) => `eth / ipv4 / udp dst is ${port}`;

/** Where rules are followed, and whether what guests receive is copied. */
const WHERE: [string, NicOptions, boolean][] = [
  ["by the card, into the guest's buffers", {}, true],
  ["by the card, of copied frames", {}, false],
  ["by the driver", { flowOffload: false }, true],
];

describe.each(WHERE)("%s", (where, card, zeroCopy) => {
  let r: Rig;
  beforeEach(async () => {
    r = await rig(card, zeroCopy);
  });
  afterEach(() => {
    for (let i = 0; i < 3; i++) {
      r.host.drain();
      r.nic.transmit();
    }
    expect(astray(r.host)).toBe(0);
  });

  test("discovery says so", () => {
    expect(ethdev(r.one).info().flows).toEqual({ most: 32, native: where !== "by the driver" });
  });

  test("drop, and count of what was dropped", () => {
    const id = create(r.one, udpTo(7), "drop / count");
    expect(back(r, udp(r.one.mac, 7, 1), udp(r.one.mac, 8, 2), udp(r.two.mac, 7, 3))).toEqual([2, 3]);
    expect(ethdev(r.one).flowQuery(id)).toEqual({ hits: 1, bytes: udp(r.one.mac, 7).length });
    expect(r.host.stats().nics[0]?.drops).toEqual({ rxFlowDrop: 1 });
    ethdev(r.one).flowDestroy(id);
    expect(back(r, udp(r.one.mac, 7, 4))).toEqual([4]);
  });

  test.each(["queue index 0", "rss", "rss queues 0 0 end", "passthru", "count"])(
    "%s leaves frames where they go",
    (actions) => {
      const id = create(r.one, udpTo(7), actions);
      expect(back(r, udp(r.one.mac, 7, 1), udp(r.one.mac, 8, 2), udp(r.two.mac, 7, 3))).toEqual([1, 2, 3]);
      expect(ethdev(r.one).flowQuery(id).hits).toBe(1);
    },
  );

  test("the first rule decides: by priority, then by age", () => {
    ethdev(r.one).flowCreate(`priority 5 ingress pattern ${udpTo(7)} / end actions drop / end`);
    expect(back(r, udp(r.one.mac, 7, 1))).toEqual([]);
    ethdev(r.one).flowCreate(`priority 4 ingress pattern eth / ipv4 / end actions count / end`);
    expect(back(r, udp(r.one.mac, 7, 2))).toEqual([2]);
  });

  test("a mark comes with the frame, to a guest that has asked for it", () => {
    const raw = new RawGuest(r.host, r.one, 16, { rx: Offload.MARK });
    create(r.one, udpTo(7), "mark id 77");
    create(r.one, udpTo(8), "queue index 0 / mark id 0");
    raw.post(8);
    expect(back(r, udp(r.two.mac, 7, 9))).toEqual([9]);
    r.nic.receive([7, 8, 9].map((port) => udp(r.one.mac, port, port)));
    r.host.drain();
    const got = [raw.receive(), raw.receive(), raw.receive()];
    expect(got.map((one) => numberOf(one?.frame as Uint8Array))).toEqual([7, 8, 9]);
    expect(got.map((one) => [(one?.first.offload ?? 0) & PacketFlag.RX_MARK, one?.first.mss])).toMatchObject([
      [PacketFlag.RX_MARK, 77],
      [PacketFlag.RX_MARK, 0],
      [0, expect.any(Number)],
    ]);
  });

  test("a mark that the queue isn't set up for is refused", () => {
    expect(() => create(r.one, udpTo(7), "mark id 1")).toThrow('column 65: "1", expected a mark below 32768');
  });

  test("whatever its pattern says, a rule is for the guest's own frames", () => {
    create(r.one, "any", "drop");
    create(r.one, "eth dst spec 02:00:00:00:00:00 dst mask ff:ff:00:00:00:00 / ipv4", "drop");
    expect(back(r, udp(r.one.mac, 7, 1), udp(r.two.mac, 7, 2))).toEqual([2]);
    expect(back(r, udp("ff:ff:ff:ff:ff:ff", 7, 3))).toEqual([3, 3]);
  });

  test("the host's rules come first", () => {
    ethdev(r.one).flowCreate(`priority 0 ingress pattern ${udpTo(7)} / end actions queue index 0 / end`);
    const id = r.nic.flow.create(`priority 9 ingress pattern ${udpTo(7)} / end actions drop / end`);
    expect(back(r, udp(r.one.mac, 7, 1), udp(r.one.mac, 8, 2))).toEqual([2]);
    expect(r.nic.flow.list().map(({ priority, guest }) => [priority, guest])).toEqual([
      [RTE_FLOW_GUESTS, r.one.name],
      [9, undefined],
    ]);
    r.nic.flow.destroy(id);
    expect(back(r, udp(r.one.mac, 7, 3))).toEqual([3]);
  });

  test("a guest that stops has no rules when it starts again; others keep theirs", () => {
    create(r.one, udpTo(7), "drop");
    create(r.two, udpTo(7), "drop");
    r.vmux.stop(r.one);
    expect(r.nic.flow.list().map(({ guest }) => guest)).toEqual([r.two.name]);
    r.vmux.start(r.one);
    expect(back(r, udp(r.one.mac, 7, 1), udp(r.two.mac, 7, 2))).toEqual([1]);
  });
});

describe("refusals", () => {
  test.each([
    [`eth dst is 02:00:00:00:00:02`, "drop", "a pattern without eth dst", VdpdkStatus.NOT_PERMITTED],
    [`eth dst spec 04:: dst mask 06::`, "drop", "a MAC address", undefined],
    ["eth", "queue index 1", "0, the device's only queue", VdpdkStatus.INVALID],
    ["eth", "rss queues 0 1 end", "0, the device's only queue", VdpdkStatus.INVALID],
  ])("%s, %s", async (pattern, actions, expected, status) => {
    const r = await rig();
    expect(r.two.mac).toBe("02:00:00:00:00:02");
    expect(() => create(r.one, pattern, actions)).toThrow(expected);
    if (status) expect(r.core.view.getInt32(r.one.region + VdpdkControl.status, true)).toBe(status);
    expect(r.nic.flow.list()).toEqual([]);
  });

  test("a priority that is the host's, a twin, a port that there isn't", async () => {
    const r = await rig();
    const { flowCreate } = { flowCreate: (rule: string) => ethdev(r.one).flowCreate(rule) };
    const rest = "ingress pattern eth / end actions drop / end";
    expect(() => flowCreate(`priority 2147483648 ${rest}`)).toThrow("a priority from 0 to 2147483647");
    expect(flowCreate(`flow create 0 priority 2147483647 ${rest}`)).toBeGreaterThanOrEqual(0);
    expect(() => flowCreate(`priority 2147483647 ${rest}`)).toThrow("there is a rule with these");
    expect(() => flowCreate(`flow create 1 ${rest}`)).toThrow("column 13");
    expect(r.nic.flow.list()).toHaveLength(1);
  });

  test("validate says the same, and changes nothing", async () => {
    const r = await rig();
    ethdev(r.one).flowValidate("ingress pattern eth / end actions drop / end");
    expect(() => ethdev(r.one).flowValidate("ingress pattern eth / end actions queue index 1 / end")).toThrow(
      "0, the device's only queue",
    );
    expect(r.nic.flow.list()).toEqual([]);
    expect(back(r, udp(r.one.mac, 7, 1))).toEqual([1]);
  });

  test("rules of others can't be destroyed, asked for or flushed", async () => {
    const r = await rig();
    const others = [
      create(r.two, udpTo(7), "drop"),
      r.nic.flow.create(`ingress pattern ${udpTo(8)} / end actions drop / end`),
    ];
    create(r.one, udpTo(9), "drop");
    for (const id of [...others, 99]) {
      expect(() => ethdev(r.one).flowDestroy(id)).toThrow("FLOW_DESTROY: NO_ENTRY");
      expect(() => ethdev(r.one).flowQuery(id)).toThrow("FLOW_QUERY: NO_ENTRY");
    }
    ethdev(r.one).flowFlush();
    expect(r.nic.flow.list().map(({ id }) => id)).toEqual(others);
  });

  test("more rules than the guest may have", async () => {
    const r = await rig({}, true, 3);
    for (const port of [1, 2, 3]) create(r.one, udpTo(port), "drop");
    expect(() => create(r.one, udpTo(4), "drop")).toThrow("fewer rules than the device has room for");
    expect(r.core.view.getInt32(r.one.region + VdpdkControl.status, true)).toBe(VdpdkStatus.NO_SPACE);
    create(r.two, udpTo(4), "drop");
    ethdev(r.one).flowFlush();
    create(r.one, udpTo(4), "drop");
  });

  test("a guest that may have none, and one at a switch", async () => {
    const r = await rig({}, true, 0);
    expect(ethdev(r.one).info()).toMatchObject({ flows: { most: 0, native: false } });
    expect(ethdev(r.one).info().rxOffloads).not.toContain("mark");
    expect(() => create(r.one, "eth", "drop")).toThrow("guest0: FLOW_CREATE: NOT_SUPPORTED");
    const host = await Host.create({ memory: 64 * 2 ** 20 });
    const guest = host.guest({ attach: "vdpdk", ring: 64 });
    host.vswitch({ connect: [host.nic(), guest] });
    expect(() => ethdev(guest).flowFlush()).toThrow("guest0: FLOW_FLUSH: NOT_SUPPORTED");
  });

  test("more rules for all guests than the card has masks", async () => {
    const host = await Host.create({ memory: 64 * 2 ** 20 });
    const guests = [100, 29].map((flows) => host.guest({ attach: "vdpdk", ring: 64, vdpdk: { flows } }));
    const nic = host.nic();
    expect(() => host.vmux({ nic, guests })).toThrow(
      "flows: 129 for all guests of nic0, expected 128 at most",
    );
    expect(() => host.guest({ attach: "vdpdk", vdpdk: { flows: 129 } })).toThrow("flows: 129, expected");
  });

  test("no guest takes another's place: each under a mask of its own, all have as many as they may", async () => {
    const r = await rig({}, true, 64);
    const prefix = (guest: Guest, n: number) =>
      create(
        guest,
        `eth / ipv4 src spec 10.0.0.0 src prefix ${n % 32} / udp src spec 0 src mask ${1 << (n / 32)}`,
        "drop",
      );
    for (let n = 0; n < 64; n++) prefix(r.one, n);
    expect(() => prefix(r.one, 64)).toThrow("fewer rules than");
    for (let n = 64; n < 128; n++) prefix(r.two, n);
    expect(r.core.u32(r.nic.flow.table + RteFlowTable.maskCount)).toBe(128);
  });
});

/** All that stands in the card's table for a guest is for its own MAC address and its own queue, behind the host's rules. */
function confined(r: Rig, guest: Guest, offloads: number): void {
  const { core } = r;
  const device = guest.vdpdk as NonNullable<Guest["vdpdk"]>;
  const maker = core.u32(device.device + VdpdkDevice.id);
  const { table, capacity } = r.nic.flow;
  const own = core.u32(core.u32(device.rxQueue + VdpdkQueue.card) + RxQueue.index);
  let rules = 0;
  for (let i = 0; i < capacity; i++) {
    const rule = core.u32(table + RteFlowTable.rules) + i * RteFlow.SIZE;
    if (!core.u32(rule + RteFlow.used) || core.u32(rule + RteFlow.maker) !== maker) continue;
    rules++;
    const mac = (at: number) => core.view.getBigUint64(rule + at + RteFlowKey.dst, true) & 0xffff_ffff_ffffn;
    expect(mac(RteFlow.spec)).toBe(parseMac(guest.mac));
    expect(mac(RteFlow.mask)).toBe(0xffff_ffff_ffffn);
    expect(core.u32(rule + RteFlow.priority)).toBeGreaterThanOrEqual(RTE_FLOW_GUESTS);
    const actions = core.u32(rule + RteFlow.actions);
    const { QUEUE, DROP, MARK, COUNT } = RteFlowAction;
    expect([QUEUE, DROP]).toContain(actions & ~(MARK | COUNT));
    if (actions & QUEUE) expect(core.u32(rule + RteFlow.queue)).toBe(own);
    if (actions & MARK) expect(offloads & Offload.MARK).toBeTruthy();
  }
  expect(rules).toBeLessThanOrEqual(core.u32(device.device + VdpdkDevice.flows));
}

test.each([0, Offload.MARK])(
  "whatever a guest writes as a rule, others and the host keep theirs, offloads %d",
  async (offloads) => {
    const r = await rig({}, true, 40);
    const { core } = r;
    new RawGuest(r.host, r.one, 16, { rx: offloads });
    const device = r.one.vdpdk as NonNullable<Guest["vdpdk"]>;
    create(r.two, udpTo(7), "drop");
    r.nic.flow.create(`ingress pattern ${udpTo(8)} / end actions drop / end`);
    const statuses = new Set<number>();
    const refusals = new Set<number>();
    const some = (n: number) =>
      fc.oneof(fc.integer({ min: 0, max: n }), fc.integer({ min: 0, max: 2 ** 32 - 1 }));
    const rule = fc.record({
      header: fc.tuple(
        ...[0, 3, 0, 0, 5, 1, 2].map((n, at) =>
          at === 2
            ? fc.oneof({ weight: 9, arbitrary: fc.constant(1) }, some(n))
            : at === 3
              ? some(63)
              : some(n),
        ),
      ),
      dst: fc.constantFrom(0n, parseMac(r.one.mac), parseMac(r.two.mac), 0xffff_ffff_ffffn),
      dstMask: fc.constantFrom(0n, 0xffn, 0xffff_ffff_ffffn, 0xffff_ffff_ffff_ffffn),
      rest: fc.uint8Array({ minLength: RteFlowKey.SIZE - 8, maxLength: RteFlowKey.SIZE - 8 }),
      masked: fc.integer({ min: 0, max: RteFlowKey.SIZE - 8 }),
      call: fc.constantFrom(
        VdpdkCall.FLOW_CREATE,
        VdpdkCall.FLOW_CREATE,
        VdpdkCall.FLOW_CREATE,
        VdpdkCall.FLOW_VALIDATE,
        VdpdkCall.FLOW_DESTROY,
        VdpdkCall.FLOW_QUERY,
        VdpdkCall.FLOW_FLUSH,
      ),
      id: some(60),
    });
    fc.assert(
      fc.property(fc.array(rule, { minLength: 1, maxLength: 8 }), (rules) => {
        for (const { header, dst, dstMask, rest, masked, call, id } of rules) {
          const at = r.one.region + VdpdkControl.flow;
          header.forEach((word, i) => {
            core.setU32(at + 4 * i, word);
          });
          core.setU64(at + RteFlow.spec, dst);
          core.setU64(at + RteFlow.mask, dstMask);
          core.bytes.set(rest, at + RteFlow.spec + 8);
          core.bytes.fill(0, at + RteFlow.mask + 8, at + RteFlow.mask + RteFlowKey.SIZE);
          core.bytes.fill(255, at + RteFlow.mask + 8, at + RteFlow.mask + 8 + (masked % 5));
          core.bytes.set(rest, at + RteFlow.queues);
          core.setU32(r.one.region + VdpdkControl.rule, id);
          core.setU32(r.one.region + VdpdkControl.call, call);
          const status = core.exports.callVdpdk(device.device);
          expect(VdpdkStatus[status]).toBeDefined();
          statuses.add(status);
          refusals.add(core.u32(r.one.region + VdpdkControl.results + VdpdkFlowResult.refusal));
        }
        confined(r, r.one, offloads);
        const frames = [
          udp(r.two.mac, 7, 1),
          udp(r.two.mac, 8, 2),
          udp(r.two.mac, 9, 3),
          udp(r.one.mac, 8, 4),
        ];
        expect(back(r, ...frames, udp(r.one.mac, 9, 5))).toEqual([3]);
      }),
      { numRuns: 400, seed: 5 },
    );
    for (const status of [
      VdpdkStatus.OK,
      VdpdkStatus.NOT_PERMITTED,
      VdpdkStatus.INVALID,
      VdpdkStatus.NO_ENTRY,
    ])
      expect([...statuses]).toContain(status);
    for (const refusal of [RteFlowRefusal.FOREIGN, RteFlowRefusal.ACTIONS, RteFlowRefusal.ATTRIBUTES])
      expect([...refusals]).toContain(refusal);
    expect(r.nic.flow.list().filter(({ guest }) => guest !== r.one.name)).toHaveLength(2);
    expect(r.host.stats().guests[1]?.drops).toEqual({});
  },
);

describe("on lcores", () => {
  const hosts: Host[] = [];
  afterEach(() => {
    for (const host of hosts.splice(0)) host.stop();
  });

  async function launched() {
    const host = await Host.create({ shared: true, memory: 64 * 2 ** 20 });
    hosts.push(host);
    const nic = host.nic({ ring: 64, queues: 4 });
    const guests = [0, 1].map(() => host.guest({ attach: "vdpdk", ring: 64 })) as [Guest, Guest];
    const vmux = host.vmux({ nic, guests });
    const { done } = await host.launch([vmux, ...guests]);
    return { host, core: host.core, nic, vmux, guests, done };
  }

  test("rules come and go while frames move", async () => {
    const r = await launched();
    const [one] = r.guests;
    for (let i = 0; i < 50; i++) {
      const id = create(one, udpTo(7), "drop");
      r.nic.receive([udp(one.mac, 7, 1000 + i), udp(one.mac, 8, i)]);
      expect(collect(r, 1).map(numberOf)).toEqual([i]);
      expect(ethdev(one).flowQuery(id).hits).toBe(1);
      ethdev(one).flowDestroy(id);
      r.nic.receive([udp(one.mac, 7, i)]);
      expect(collect(r, 1).map(numberOf)).toEqual([i]);
    }
    r.host.stop();
    await r.done;
  });

  test.each([
    ["before the rule is in it", false],
    ["when it is in half", true],
  ])("after an lcore has died that was changing the table, %s, all works again", async (_, half) => {
    const r = await launched();
    const [one, two] = r.guests;
    const { table } = r.nic.flow;
    r.nic.flow.create(`ingress pattern ${udpTo(8)} / end actions drop / end`);
    create(one, udpTo(7), "drop");
    create(two, udpTo(7), "drop");
    // As an lcore leaves it that is killed now.
    r.core.setU32(table + RteFlowTable.lock, 1);
    r.core.setU32(table + RteFlowTable.version, r.core.u32(table + RteFlowTable.version) + 1);
    if (half) {
      const buckets = r.core.u32(table + RteFlowTable.buckets);
      r.core.bytes.fill(0, buckets, buckets + 2 * (r.core.u32(table + RteFlowTable.bucketMask) + 1));
      r.core.setU32(table + RteFlowTable.free, 1);
      r.core.setU32(table + RteFlowTable.maskCount, 0);
    }
    await r.host.lcores[0]?.kill();
    await expect(r.done).rejects.toThrow(LcoreError);
    // The guests were reset: the host's rule alone is left, and works.
    expect(r.nic.flow.list().map(({ guest }) => guest)).toEqual([undefined]);
    create(one, udpTo(9), "drop");
    r.nic.receive([8, 9, 10].map((port) => udp(one.mac, port, port)));
    r.nic.receive([7, 8, 9].map((port) => udp(two.mac, port, port)));
    r.host.drain();
    expect(
      sent(r.nic)
        .map(numberOf)
        .sort((a, b) => a - b),
    ).toEqual([7, 9, 10]);
    for (let i = 0; i < 5; i++) {
      r.host.drain();
      r.nic.transmit();
    }
    expect(astray(r.host)).toBe(0);
  });
});
