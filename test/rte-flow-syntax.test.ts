/** testpmd's `flow` lines: what is read, and where what can't be is refused, with nothing changed. */
import { describe, expect, test } from "vitest";
import { Host, RteFlowError, type RteFlowRule } from "../src/index.ts";

const nic = (await Host.create()).nic({ rssQueues: 4, flowRules: 4 });
const { flow } = nic;

function listed(rule: string | RteFlowRule): string | undefined {
  const id = flow.create(rule);
  const text = flow.list()[0]?.rule;
  flow.destroy(id);
  return text;
}

describe("is read", () => {
  test.each([
    [
      "ingress pattern eth / end actions queue index 1 / end",
      "ingress pattern eth / end actions queue index 1 / end",
    ],
    ["ingress pattern end actions drop / end", "ingress pattern eth / end actions drop / end"],
    // The mask says what counts of the spec.
    [
      "group 0 priority 3 ingress pattern ipv4 src spec 10.1.2.3 src prefix 8 / end actions count / end",
      "priority 3 ingress pattern eth / ipv4 src spec 10.0.0.0 src prefix 8 / end actions count / end",
    ],
    // rte_flow's default masks: addresses, ports, the VLAN.
    [
      "ingress pattern eth dst spec 02:00:00:00:00:01 / vlan vid spec 5 / ipv6 dst spec 2001:db8::1 / tcp src spec 80 / end actions drop / end",
      "ingress pattern eth dst is 02:00:00:00:00:01 / vlan vid is 5 / ipv6 dst is 2001:db8::1 / tcp src is 80 / end actions drop / end",
    ],
    [
      "ingress pattern eth / void / vlan tci spec 0xe005 tci mask 0xefff / any / udp dst spec 0x35 dst mask 0xff / end actions mark id 0x7fff / void / rss queues 0 3 end / end",
      "ingress pattern eth / vlan pcp is 7 vid is 5 / any / udp dst spec 53 dst mask 0xff / end actions mark id 32767 / rss queues 0 3 end / end",
    ],
    [
      "ingress pattern eth type is 0x88a8 / vlan inner_type is 33024 / vlan dei is 1 / end actions rss / end",
      "ingress pattern eth type is 0x88a8 / vlan inner_type is 0x8100 / vlan dei is 1 / end actions rss / end",
    ],
    [
      "ingress pattern ipv6 flow spec 5 flow mask 0xff tc is 3 hop is 1 proto is 6 / tcp flags spec 2 flags mask 0x12 / end actions passthru / end",
      "ingress pattern eth / ipv6 tc is 3 flow spec 5 flow mask 0xff proto is 6 hop is 1 / tcp flags spec 0x2 flags mask 0x12 / end actions passthru / end",
    ],
    [
      "ingress pattern ipv4 fragment_offset is 0 src spec 1.2.3.4 src mask 255.0.255.0 / end actions drop / end # comment",
      "ingress pattern eth / ipv4 fragment_offset is 0x0 src spec 1.0.3.0 src mask 255.0.255.0 / end actions drop / end",
    ],
  ])("%s", (line, text) => {
    expect(listed(line)).toBe(text);
    expect(listed(`flow create 0 ${line}`)).toBe(text);
  });

  test("an object is the same rule as its text", () => {
    const rule: RteFlowRule = {
      priority: 2,
      pattern: [
        { item: "eth", dst: "02:00:00:00:00:01" },
        { item: "vlan", vid: { spec: 4, mask: 6 } },
        { item: "ipv4", src: "10.0.0.0/8", dst: { spec: "1.2.3.4", prefix: 16 } },
        { item: "udp", dst: 53 },
      ],
      actions: [{ action: "mark", id: 3 }, { action: "rss", queues: [1, 2] }, { action: "count" }],
    };
    expect(listed(rule)).toBe(
      "priority 2 ingress pattern eth dst is 02:00:00:00:00:01 / vlan vid spec 4 vid mask 0x6 / ipv4 src spec 10.0.0.0 src prefix 8 dst spec 1.2.0.0 dst prefix 16 / udp dst is 53 / end actions mark id 3 / count / rss queues 1 2 end / end",
    );
  });
});

describe("is refused at its column, with nothing changed:", () => {
  const rule = (pattern: string, actions = "drop / end") =>
    `flow create 0 ingress pattern ${pattern} actions ${actions}`;
  const P = "flow create 0 ingress pattern ".length;
  const A = "flow create 0 ingress pattern eth / end actions ".length;
  const acts = (actions: string) => rule("eth / end", actions);
  test.each<[string, number, string, string]>([
    ["flow creat 0", 6, "creat", "create, validate, destroy, flush, list or query"],
    ["flow create x ingress", 13, "x", "a port's number from 0 to 4294967295"],
    ["flow create 1 ingress pattern end actions drop / end", 13, "1", "0, the number of nic0"],
    ["flow create 0 egress pattern end actions drop / end", 15, "egress", "nothing else"],
    ["flow create 0 transfer ingress pattern end actions drop / end", 15, "transfer", "nothing else"],
    [
      "flow create 0 group 1 ingress pattern end actions drop / end",
      21,
      "1",
      "group 0, the card has no other",
    ],
    ["flow create 0 priority -1 ingress pattern end", 24, "-1", "a number from 0 to 4294967295"],
    ["flow create 0 pattern eth / end actions drop / end", 15, "pattern", '"ingress" before the pattern'],
    ["flow create 0 ingress", 22, "", '"pattern"'],
    [rule("ipv5 / end"), P + 1, "ipv5", "eth, vlan, ipv4, ipv6, any, void or end"],
    [rule("eth / udp dst is 1 / end"), P + 7, "udp", "vlan, ipv4, ipv6, any, void or end behind eth"],
    [rule("udp / ipv4 / end"), P + 1, "udp", "eth, vlan, ipv4, ipv6, any, void or end"],
    [rule("eth / ipv4 / ipv6 / end"), P + 14, "ipv6", "udp, tcp, void or end behind ipv4"],
    [rule("eth / ipv4 / void / vlan / end"), P + 21, "vlan", "udp, tcp, void or end behind ipv4"],
    [rule("eth / vlan / vlan / vlan / end"), P + 21, "vlan", "ipv4, ipv6, any, void or end behind vlan"],
    [rule("ipv4 / udp / tcp / end"), P + 14, "tcp", "void or end behind udp"],
    [rule("eth / vlan vid is 4096 / end"), P + 19, "4096", "a number from 0 to 4095"],
    [rule("eth / vlan vid spec 1 vid mask 0x1000 / end"), P + 32, "0x1000", "a number from 0 to 4095"],
    [rule("eth / vlan pcp is 8 / end"), P + 19, "8", "a number from 0 to 7"],
    [rule("ipv4 / udp dst is 65536 / end"), P + 19, "65536", "a number from 0 to 65535"],
    [rule("ipv4 / udp dst is 010 / end"), P + 19, "010", "a number from 0 to 65535"],
    [rule("ipv4 src spec 10.0.0.0 src prefix 33 / end"), P + 35, "33", "a length from 0 to 32"],
    [rule("ipv4 src is 10.0.0.256 / end"), P + 13, "10.0.0.256", "an IPv4 address as 10.0.0.1"],
    [rule("ipv4 src is 10.0.0.0/8 / end"), P + 13, "10.0.0.0/8", "an IPv4 address"],
    [rule("ipv6 src is 1.2.3.4 / end"), P + 13, "1.2.3.4", "an IPv6 address as 2001:db8::1"],
    [rule("eth dst is 02:00:00:00:00 / end"), P + 12, "02:00:00:00:00", "a MAC address as 02:00:00:00:00:01"],
    [
      rule("ipv4 / udp src spec 1 src last 9 / end"),
      P + 27,
      "last",
      'is, spec, mask or prefix: the card has no ranges, write a rule for each "spec" under a "prefix" that one is made of',
    ],
    [rule("ipv4 sport is 1 / end"), P + 6, "sport", 'tos, fragment_offset, ttl, proto, src, dst or "/"'],
    [rule("ipv4 src mask 255.0.0.0 / end"), P + 10, "mask", '"src spec" besides'],
    [rule("ipv4 ttl spec 64 / end"), P + 10, "spec", '"ttl mask" or "ttl prefix" besides, or "is"'],
    [
      rule("ipv4 src is 1.1.1.1 dst spec 1.1.1.1 / end"),
      P + 25,
      "spec",
      '"dst mask" or "dst prefix" besides, or "is"',
    ],
    [rule("ipv4 src is 1.1.1.1 src is 1.1.1.1 / end"), P + 25, "is", "it once for src"],
    [rule("eth has_vlan is 0 / vlan / end"), P + 21, "vlan", "an item that fits has_vlan before it"],
    [rule("vlan vid is 1 tci is 2 / end"), P + 15, "tci", "what the fields before it allow"],
    [rule("eth type is 0x86dd / ipv4 / end"), P + 22, "ipv4", "an item that has the EtherType before it"],
    [rule("ipv4 proto is 6 / udp / end"), P + 19, "udp", "an item that has the protocol before it"],
    [rule("eth end"), P + 5, "end", 'dst, src, type, has_vlan or "/"'],
    [rule("eth /", ""), P + 7, "actions", "vlan, ipv4, ipv6, any, void or end behind eth"],
    [acts("end"), A + 1, "end", "queue, rss, mark, drop, count, passthru or void"],
    [acts("void / end"), A + 8, "end", "queue, rss, mark, drop, count, passthru or void"],
    [acts("port_id id 1 / end"), A + 1, "port_id", "queue, rss, mark, drop, count, passthru or void"],
    [acts("queue 2 / end"), A + 7, "2", '"index"'],
    [acts("queue index 4 / end"), A + 13, "4", "a receive queue that the card has"],
    [acts("rss queues 0 1 9 end / end"), A + 5, "queues", "a receive queue that the card has"],
    [acts("rss queues end / end"), A + 12, "end", "a queue's number from 0 to 65535"],
    [acts(`rss queues ${"0 ".repeat(65)}end / end`), A + 140, "0", "64 queues at most"],
    [acts("rss types ipv4 end / end"), A + 5, "types", '"/"'],
    [acts("mark id 32768 / end"), A + 9, "32768", "a number from 0 to 32767"],
    [
      acts("drop / queue index 1 / end"),
      A + 8,
      "queue",
      'one of queue, rss, drop and passthru: "drop" is before it',
    ],
    [acts("count / count / end"), A + 9, "count", '"count" once'],
    [acts("drop / end drop"), A + 12, "drop", "the end of the line"],
    [acts("drop"), A + 5, "", '"/"'],
    ["flow destroy 0", 15, "", '"rule"'],
    ["flow destroy 0 rule x", 21, "x", "a rule's number"],
    ["flow query 0 0 rss", 16, "rss", '"count"'],
    ["flow list 0 group 0", 13, "group", "the end of the line"],
  ])("%s", (line, column, found, expected) => {
    const before = flow.list();
    let error: unknown;
    try {
      flow.run(line);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(RteFlowError);
    const { message, column: at } = error as RteFlowError;
    expect(message).toContain(`column ${column}: ${found ? `"${found}"` : "end of line"}, expected `);
    expect(message).toContain(expected);
    expect(at).toBe(column);
    expect(flow.list()).toEqual(before);
    if (!line.startsWith("flow create ")) return;
    const later = message.replace(`column ${column}`, `column ${column + 2}`);
    expect(() => flow.run(line.replace("create", "validate"))).toThrow(later);
  });
});

describe("the card's table", () => {
  const udp = (port: number) => `ingress pattern ipv4 / udp dst is ${port} / end actions drop / end`;

  test("a full one refuses one more, and takes it when another is gone", () => {
    const ids = [1, 2, 3, 4].map((port) => flow.create(udp(port)));
    expect(() => flow.create(udp(5))).toThrow('expected fewer rules, or "flowRules" to be larger');
    expect(() => flow.validate(udp(5))).toThrow("fewer rules");
    expect(flow.list().map(({ id }) => id)).toEqual(ids);
    flow.destroy(ids[1] as number);
    const id = flow.create(udp(5));
    expect(flow.list().map((one) => one.id)).toEqual([ids[0], ids[2], ids[3], id]);
    flow.flush();
    expect(flow.list()).toEqual([]);
  });

  test("the same pattern and priority twice is refused, another priority isn't", () => {
    const id = flow.create(udp(1));
    expect(() => flow.create(udp(1))).toThrow('column 17: "ipv4", expected another pattern or priority');
    flow.create(`priority 1 ${udp(1)}`);
    flow.destroy(id);
    flow.create(udp(1));
    expect(flow.list()).toHaveLength(2);
    flow.flush();
  });

  test("what isn't there can't be destroyed or asked for, nor do others go with it", () => {
    const id = flow.create(udp(1));
    expect(() => flow.destroy(id + 1)).toThrow(
      new RangeError(`flow: rule ${id + 1}, expected one of nic0's`),
    );
    expect(() => flow.query(id + 1)).toThrow(RangeError);
    expect(() => flow.run(`flow destroy 0 rule ${id} rule 99`)).toThrow(RangeError);
    expect(flow.list().map((one) => one.id)).toEqual([id]);
    expect(flow.run("flow list 0")).toBe(`ID\tPrio\tRule\n${id}\t0\t${flow.list()[0]?.rule}`);
    expect(flow.run(`flow destroy 0 rule ${id}`)).toBe(`Flow rule #${id} destroyed`);
    expect(flow.run("flow flush 0")).toBe("");
  });

  test("validate changes nothing", () => {
    expect(flow.run(`flow validate 0 ${udp(1)}`)).toBe("Flow rule validated");
    flow.validate(udp(1));
    expect(flow.list()).toEqual([]);
  });

  test("128 different masks, and no more", async () => {
    const { flow } = (await Host.create()).nic({ flowRules: 256 });
    const under = (mask: number) =>
      `ingress pattern ipv4 / udp dst spec 0 dst mask ${mask} / end actions drop / end`;
    for (let mask = 1; mask <= 128; mask++) flow.create(under(mask));
    expect(() => flow.create(under(200))).toThrow("128 different masks at most");
    flow.create(under(5).replace("spec 0", "spec 4"));
    flow.destroy(0);
    flow.create(under(200));
  });

  test.each([0, 3, 32768])("flowRules: %d is refused", async (flowRules) => {
    const host = await Host.create();
    expect(() => host.nic({ flowRules })).toThrow(/^flowRules: /);
  });
});
