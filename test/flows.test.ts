/** The flow table: rules of Open vSwitch (ovs-fields(7), ovs-actions(7)) against a model, and what goes around them. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FlowMatch, FlowTable } from "../assembly/layout.ts";
import {
  type FramePort,
  Host,
  LcoreError,
  RuleError,
  type VSwitch,
  type VSwitchOptions,
} from "../src/index.ts";
import {
  type Condition,
  changed,
  type Fields,
  forward,
  type ModelAction,
  type ModelRule,
  read,
  ruleText,
  seal,
} from "./flow-model.ts";
import {
  ARP,
  astray,
  ether,
  ICMP,
  ICMPV6,
  IPV4,
  IPV6,
  ipv4,
  ipv6,
  macBytes,
  TCP,
  taken,
  UDP,
} from "./frames.ts";

const MACS = ["02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c", "01:00:5e:00:00:01"];
const IPS = ["10.0.0.1", "10.0.0.2", "10.1.0.1", "192.168.0.1"];
const IP6S = ["2001:db8:0:0:0:0:0:1", "2001:db8:0:0:0:0:0:2", "fe80:0:0:0:0:0:0:1"];
const PORTS = [53, 80, 81, 4000];
const PORT_COUNT = 4;

const pick = <T>(...from: T[]) => fc.constantFrom(...from);

/** What is behind IP: TCP, UDP, ICMP, or anything. */
const transport = fc.record({
  protocol: pick(TCP, UDP, ICMP, ICMPV6, 132, 89),
  from: pick(...PORTS),
  to: pick(...PORTS),
  flags: pick(0x02, 0x12, 0x10, 0x11),
  bytes: fc.integer({ min: 0, max: 40 }),
});

function segment({
  protocol,
  from,
  to,
  flags,
  bytes,
}: {
  protocol: number;
  from: number;
  to: number;
  flags: number;
  bytes: number;
}): number[] {
  const rest = Array.from({ length: bytes }, (_, i) => (i * 37) & 255);
  const pair = [from >> 8, from & 255, to >> 8, to & 255];
  if (protocol === TCP) return [...pair, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 1, 0, 0, 0, 0, 0, ...rest];
  if (protocol === UDP) return [...pair, 0, 8 + bytes, 0, 0, ...rest];
  if (protocol === ICMP || protocol === ICMPV6) return [from & 15, to & 3, 0, 0, 1, 2, 3, 4, ...rest];
  return [...pair, 0, 0, 0, 0, 0, 0, 0, 0, ...rest];
}

const options = pick<number[]>([], [], [], [1, 1, 1, 0]);
const ip4Frame = fc
  .record({
    transport,
    from: pick(...IPS),
    to: pick(...IPS),
    fragment: pick(0, 0, 0, 0x4000, 0x2000, 0x2010, 5),
    options,
  })
  .map(({ transport, from, to, fragment, options }) => ({
    type: IPV4,
    payload: ipv4({ from, to, protocol: transport.protocol, fragment, options }, segment(transport)),
  }));

/** Extension headers in front: none, hop-by-hop, a fragment's. */
const extension = pick<{ next: number; bytes: (next: number) => number[] }[]>(
  [],
  [],
  [{ next: 0, bytes: (next) => [next, 0, 1, 4, 0, 0, 0, 0] }],
  [{ next: 44, bytes: (next) => [next, 0, 0, 1, 0, 0, 0, 9] }],
  [{ next: 44, bytes: (next) => [next, 0, 1, 1, 0, 0, 0, 9] }],
  [
    { next: 60, bytes: (next) => [next, 1, ...Array<number>(14).fill(0)] },
    { next: 51, bytes: (next) => [next, 1, ...Array<number>(10).fill(0)] },
  ],
  Array.from({ length: 9 }, () => ({ next: 60, bytes: (next: number) => [next, 0, 0, 0, 0, 0, 0, 0] })),
);
const ip6Frame = fc
  .record({ transport, from: pick(...IP6S), to: pick(...IP6S), extension })
  .map(({ transport, from, to, extension }) => {
    let payload = segment(transport);
    let next = transport.protocol;
    for (const header of [...extension].reverse()) {
      payload = [...header.bytes(next), ...payload];
      next = header.next;
    }
    return { type: IPV6, payload: ipv6({ from, to, next }, payload) };
  });

const arpFrame = fc
  .record({ op: pick(1, 2, 300), spa: pick(...IPS), tpa: pick(...IPS), sha: pick(...MACS) })
  .map(({ op, spa, tpa, sha }) => ({
    type: ARP,
    payload: [
      0,
      1,
      8,
      0,
      6,
      4,
      op >> 8,
      op & 255,
      ...macBytes(sha),
      ...spa.split(".").map(Number),
      0,
      0,
      0,
      0,
      0,
      0,
      ...tpa.split(".").map(Number),
    ],
  }));
const otherFrame = fc.record({ type: pick(0x88b5, 0x0026), payload: fc.constant(Array<number>(46).fill(1)) });

/** Whole frames and such as are cut off, or have a byte that isn't what it was. */
const frame = fc
  .record({
    body: fc.oneof(
      { weight: 4, arbitrary: ip4Frame },
      { weight: 2, arbitrary: ip6Frame },
      arpFrame,
      otherFrame,
    ),
    to: pick(...MACS),
    from: pick(...MACS.slice(0, 3)),
    tags: pick<number[]>([], [], [], [5], [0x6005], [6, 7], [5, 6, 7]),
    qinq: fc.boolean(),
    cut: fc.oneof(
      { weight: 6, arbitrary: fc.constant(9999) },
      { weight: 1, arbitrary: fc.integer({ min: 14, max: 90 }) },
    ),
    broken: fc.oneof(
      { weight: 6, arbitrary: fc.constant([-1, 0]) },
      { weight: 1, arbitrary: fc.tuple(fc.integer({ min: 12, max: 80 }), fc.integer({ min: 0, max: 255 })) },
    ),
    pad: pick(0, 0, 6, 300),
  })
  .map(({ body, to, from, tags, qinq, cut, broken, pad }) => {
    const made = seal(ether(to, from, body.type, [...body.payload, ...Array<number>(pad).fill(0)], tags));
    if (qinq && tags.length) made.set([0x88, 0xa8], 12);
    const [at = -1, byte = 0] = broken;
    if (at >= 0 && at < made.length) made[at] = byte;
    return made.slice(0, cut);
  });

const v6 = (fields: Fields) => fields.dl_type === IPV6;
const num = (text: string) => Number.parseInt(text, 16);
const ip4 = (text: string) => text.split(".").reduce((n, byte) => n * 256 + Number(byte), 0);

/** A set of conditions that go together. */
const conditions: fc.Arbitrary<Condition[]> = fc
  .tuple(
    fc.subarray([0, 1, 2, 3, 4] as const, { maxLength: 3 }),
    pick(...MACS),
    pick(...MACS),
    fc.integer({ min: 0, max: PORT_COUNT - 1 }),
    pick("any", "tcp", "udp", "ip", "ipv6", "tcp6", "icmp", "arp", "sctp", "dl_type"),
    pick(...IPS),
    pick(8, 16, 24, 32),
    pick(...PORTS),
    fc.subarray([0, 1, 2, 3, 4] as const, { maxLength: 2 }),
  )
  .map(([l2, dst, src, port, proto, ip, length, tp, l3]) => {
    const list: Condition[] = [];
    const mac = (text: string) => text.replaceAll(":", "");
    if (l2.includes(0)) list.push({ text: `dl_dst=${dst}`, holds: (f) => f.dl_dst === mac(dst) });
    if (l2.includes(1)) list.push({ text: `eth_src=${src}`, holds: (f) => f.dl_src === mac(src) });
    if (l2.includes(2)) list.push({ text: `in_port=${port}`, holds: (f) => f.in_port === port });
    if (l2.includes(3) && port < 2)
      list.push({ text: "dl_vlan=5", holds: (f) => ((f.tci as number) & 0x1fff) === 0x1005 });
    if (l2.includes(3) && port === 2) list.push({ text: "dl_vlan=0xffff", holds: (f) => f.tci === 0 });
    if (l2.includes(3) && port === 3)
      list.push({ text: "dl_vlan_pcp=3", holds: (f) => ((f.tci as number) & 0xf000) === 0x7000 });
    if (l2.includes(4))
      list.push({
        text: "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00",
        holds: (f) => (num((f.dl_dst as string).slice(0, 2)) & 1) === 1,
      });
    if (proto === "any")
      return list.filter(
        (_, i, all) =>
          !(all.length > 1 && /dl_dst/.test(all[i]?.text ?? "") && l2.includes(0) && l2.includes(4)),
      );
    if (proto === "dl_type")
      return [
        ...list.filter(({ text }) => !text.includes("/")),
        { text: "dl_type=0x88b5", holds: (f) => f.dl_type === 0x88b5 },
      ];
    const kept = l2.includes(0) ? list.filter(({ text }) => !text.includes("/")) : list;
    const protocols: Record<string, number> = { tcp: TCP, udp: UDP, tcp6: TCP, icmp: ICMP, sctp: 132 };
    const type = proto === "arp" ? ARP : proto === "ipv6" || proto === "tcp6" ? IPV6 : IPV4;
    kept.push({
      text: proto,
      holds: (f) => f.dl_type === type && (protocols[proto] === undefined || f.nw_proto === protocols[proto]),
    });
    const under = (value: string | number | undefined) =>
      value !== undefined &&
      Math.floor(num(value as string) / 2 ** (32 - length)) === Math.floor(ip4(ip) / 2 ** (32 - length));
    if (l3.includes(0) && type !== IPV6)
      kept.push({ text: `nw_dst=${ip}/${length}`, holds: (f) => under(f.nw_dst ?? "0") });
    if (l3.includes(1) && type !== IPV6)
      kept.push({
        text: `nw_src=${ip}/255.255.255.255`,
        holds: (f) => num((f.nw_src as string) ?? "0") === ip4(ip),
      });
    if (l3.includes(2) && type === IPV6)
      kept.push({
        text: "ipv6_dst=2001:db8::/32",
        holds: (f) => ((f.ipv6_dst as string) ?? "").startsWith("20010db8"),
      });
    const hasPorts = ["tcp", "udp", "tcp6", "sctp"].includes(proto);
    if (l3.includes(3) && hasPorts) kept.push({ text: `tp_dst=${tp}`, holds: (f) => (f.tp_dst ?? 0) === tp });
    if (l3.includes(4) && hasPorts)
      kept.push({ text: "tp_src=0x50/0xfffe", holds: (f) => ((f.tp_src as number) ?? 0) >> 1 === 0x28 });
    if (l3.includes(2) && proto === "tcp")
      kept.push({ text: "tcp_flags=+syn-ack", holds: (f) => ((f.tcp_flags as number) & 0x12) === 2 });
    if (l3.includes(2) && proto === "ip") kept.push({ text: "ip_frag=later", holds: (f) => f.nw_frag === 3 });
    if (l3.includes(3) && !l3.includes(2) && proto === "ip")
      kept.push({ text: "nw_frag=no", holds: (f) => (f.nw_frag ?? 0) === 0 });
    if (l3.includes(2) && proto === "arp") kept.push({ text: "arp_op=1", holds: (f) => f.nw_proto === 1 });
    if (l3.includes(4) && proto === "icmp")
      kept.push({ text: "icmp_type=0", holds: (f) => (f.tp_src ?? 0) === 0 });
    return kept;
  });

/** Actions that need nothing of the rule. */
const action: fc.Arbitrary<ModelAction> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc
      .integer({ min: 0, max: PORT_COUNT })
      .map((port) => ({ kind: "output" as const, port, text: `output:${port}` })),
  },
  fc.constant<ModelAction>({ kind: "flood", text: "FLOOD" }),
  fc.constant<ModelAction>({ kind: "stripVlan", text: "strip_vlan" }),
  pick<ModelAction>(
    { kind: "pushVlan", type: 0x8100, text: "push_vlan:0x8100" },
    { kind: "pushVlan", type: 0x88a8, text: "push_vlan:0x88a8" },
  ),
  pick<ModelAction>(
    { kind: "vlan", vid: 5, text: "mod_vlan_vid:5" },
    { kind: "vlan", vid: 300, text: "mod_vlan_vid:300" },
  ),
  pick(...MACS).map((mac) => ({
    kind: "set" as const,
    field: "dl_dst" as const,
    bytes: macBytes(mac),
    text: `mod_dl_dst:${mac}`,
  })),
  pick(...MACS).map((mac) => ({
    kind: "set" as const,
    field: "dl_src" as const,
    bytes: macBytes(mac),
    text: `set_field:${mac}->eth_src`,
  })),
  {
    weight: 2,
    arbitrary: fc
      .record({ table: fc.integer({ min: 0, max: 2 }), port: pick(undefined, undefined, 1) })
      .map(({ table, port }) => ({
        kind: "resubmit" as const,
        table,
        ...(port === undefined ? {} : { port }),
        text: `resubmit(${port ?? ""},${table})`,
      })),
  },
);

const bytes16 = (n: number) => [n >> 8, n & 255];
/** Actions on what the rule matches. */
function deeper(list: Condition[], which: number, ip: string, tp: number): ModelAction[] {
  const has = (...names: string[]) => list.some(({ text }) => names.includes(text));
  const actions: ModelAction[] = [];
  if (has("tcp", "udp", "ip", "icmp", "sctp") && which & 1)
    actions.push({
      kind: "set",
      field: "nw_dst",
      bytes: ip.split(".").map(Number),
      text: `mod_nw_dst:${ip}`,
    });
  if (has("tcp", "udp", "ip") && which & 2)
    actions.push({
      kind: "set",
      field: "nw_src",
      bytes: ip.split(".").map(Number),
      text: `set_field:${ip}->ip_src`,
    });
  if (has("tcp", "udp", "tcp6") && which & 4)
    actions.push({ kind: "set", field: "tp_dst", bytes: bytes16(tp), text: `mod_tp_dst:${tp}` });
  if (has("ip", "udp", "ipv6", "tcp6") && which & 8)
    actions.push({ kind: "set", field: "nw_ttl", bytes: [7], text: "mod_nw_ttl:7" });
  if (has("ip", "tcp", "ipv6") && which & 16)
    actions.push({ kind: "set", field: "nw_tos", bytes: [0x68], text: "mod_nw_tos:104" });
  if (has("ipv6", "tcp6") && which & 1)
    actions.push({
      kind: "set",
      field: "ipv6_dst",
      bytes: [0xfe, 0x80, ...Array<number>(13).fill(0), 9],
      text: "set_field:fe80::9->ipv6_dst",
    });
  return actions;
}

const rule: fc.Arbitrary<ModelRule> = fc
  .record({
    table: pick(0, 0, 0, 1, 2),
    priority: pick(0, 1, 2, 100, 65535),
    conditions,
    which: fc.oneof({ weight: 2, arbitrary: fc.constant(0) }, fc.integer({ min: 0, max: 31 })),
    ip: pick(...IPS),
    tp: pick(...PORTS),
    actions: fc.array(action, { maxLength: 4 }),
  })
  .map(({ table, priority, conditions, which, ip, tp, actions }) => ({
    table,
    priority,
    conditions,
    actions: [...deeper(conditions, which, ip, tp), ...actions],
    packets: 0,
    bytes: 0,
  }));

/** A table can't hold two rules that are the same. */
const distinct = (rules: ModelRule[]): ModelRule[] => {
  const name = ({ table, priority, conditions }: ModelRule) =>
    `${table},${priority},${conditions.map(({ text }) => text).sort()}`;
  return [...new Map(rules.map((one) => [name(one), one])).values()];
};

/** What is behind a third tag isn't looked at, not even when the first has been taken off. */
const hasTwoTagsAtMost = (one: Uint8Array) =>
  !(read(one, 0).fields.inner && read(one, 0).fields.dl_type === 0x8100);

interface Bench {
  host: Host;
  ports: FramePort[];
  sw: VSwitch;
}

async function bench(
  flows: string | string[],
  options: Partial<VSwitchOptions> = {},
  count = PORT_COUNT,
): Promise<Bench> {
  const host = await Host.create({ memory: 32 * 1024 * 1024, buffers: 1024 });
  const ports = Array.from({ length: count }, () => host.port());
  return { host, ports, sw: host.vswitch({ rules: 1024, ...options, connect: ports, flows }) };
}

const asHex = (frames: Uint8Array[][]): string[][] =>
  frames.map((some) => some.map((one) => Buffer.from(one).toString("hex")));
const counts = (sw: VSwitch) => sw.flows.dump().map(({ packets, bytes }) => [packets, bytes]);

describe("the core against the model", () => {
  test("a frame's key is what its headers say", async () => {
    const { host } = await bench("actions=drop");
    const { core } = host;
    const scratch = core.place(1, 4096, "test").address;
    fc.assert(
      fc.property(frame, (bytes) => {
        core.bytes.fill(0xee, scratch, scratch + 4096);
        core.bytes.set(bytes, scratch + 128);
        core.exports.extractKey(scratch + 128, Math.min(256, bytes.length), bytes.length, 3, scratch);
        const { fields, l3 = 0, l4 = 0 } = read(bytes, 3);
        const key = core.bytes.slice(scratch, scratch + FlowMatch.SIZE);
        const hex = (from: number, n: number) => Buffer.from(key.subarray(from, from + n)).toString("hex");
        const u16 = (from: number) => (key[from] as number) * 256 + (key[from + 1] as number);
        const arp = fields.dl_type === ARP;
        expect({
          dl_dst: hex(0, 6),
          dl_src: hex(6, 6),
          dl_type: u16(12),
          tci: u16(14),
          in_port: key[16],
          nw_tos: key[18],
          nw_ttl: key[19],
          nw_proto: key[20],
          nw_frag: key[21],
          tcp_flags: u16(22),
          tp_src: u16(24),
          tp_dst: u16(26),
          inner: u16(28),
          source: v6(fields) ? hex(32, 16) : hex(32, 8),
          target: hex(48, arp ? 12 : 16),
          l3: core.u16(scratch + FlowMatch.l3),
          l4: core.u16(scratch + FlowMatch.l4),
        }).toEqual({
          dl_dst: fields.dl_dst,
          dl_src: fields.dl_src,
          dl_type: fields.dl_type,
          tci: fields.tci,
          in_port: 3,
          nw_tos: fields.nw_tos ?? 0,
          nw_ttl: fields.nw_ttl ?? 0,
          nw_proto: fields.nw_proto ?? 0,
          nw_frag: fields.nw_frag ?? 0,
          tcp_flags: fields.tcp_flags ?? 0,
          tp_src: fields.tp_src ?? 0,
          tp_dst: fields.tp_dst ?? 0,
          inner: fields.inner,
          source: v6(fields)
            ? (fields.ipv6_src ?? "0".repeat(32))
            : `${fields.nw_src ?? "00000000"}${fields.nw_dst ?? "00000000"}`,
          target: arp
            ? `${fields.arp_sha ?? "0".repeat(12)}${fields.arp_tha ?? "0".repeat(12)}`
            : ((fields.ipv6_dst as string) ?? "0".repeat(32)),
          l3,
          l4,
        });
      }),
      { seed: 1, numRuns: 3000 },
    );
  });

  test.each([
    ["what arrives where, changed how, and what was counted", 600, false],
    ["the same while each frame counts as a new flow", 300, true],
  ] as const)("any rules on any frames: %s", async (_name, numRuns, cold) => {
    const { host, ports, sw } = await bench("actions=drop");
    fc.assert(
      fc.property(
        fc.array(rule, { maxLength: 24 }).map(distinct),
        fc.array(fc.tuple(frame.filter(hasTwoTagsAtMost), fc.integer({ min: 0, max: PORT_COUNT - 1 })), {
          minLength: 1,
          maxLength: 24,
        }),
        (rules, frames) => {
          for (const one of rules) Object.assign(one, { packets: 0, bytes: 0 });
          sw.flows.delete();
          sw.flows.add(rules.map(ruleText));
          // Twice: by the rules, then out of the caches, one by one and as bursts.
          for (const burst of [1, 100]) {
            for (let inPort = 0; inPort < PORT_COUNT; inPort++) {
              const mine = frames.filter(([, from]) => from === inPort).map(([one]) => one);
              const wanted = Array.from({ length: PORT_COUNT }, (): Uint8Array[] => []);
              const arrived = Array.from({ length: PORT_COUNT }, (): Uint8Array[] => []);
              for (const one of mine)
                forward(rules, one, inPort, PORT_COUNT).forEach((some, i) => void wanted[i]?.push(...some));
              for (let i = 0; i < mine.length; i += burst) {
                if (cold) host.core.setU32(sw.flows.address + FlowTable.worth, 0);
                (ports[inPort] as FramePort).push(mine.slice(i, i + burst));
                host.drain();
                ports.forEach((port, p) => void arrived[p]?.push(...taken(port)));
              }
              expect(asHex(arrived)).toEqual(asHex(wanted));
            }
          }
          const sorted = [...rules].sort((a, b) => a.table - b.table || b.priority - a.priority);
          expect(counts(sw)).toEqual(sorted.map(({ packets, bytes }) => [packets, bytes]));
          expect(astray(host)).toBe(0);
        },
      ),
      { seed: 2, numRuns },
    );
  });
});

describe("on a switch that takes notice of VLANs", () => {
  const [ACCESS, TRUNK] = [0, 3];
  /** Ports in VLAN 5 and 300, one with 5 untagged and 6 tagged, and a trunk. */
  const vlans = (sw: VSwitch, ports: FramePort[]) => {
    const [five, other, both, trunk] = ports as [FramePort, FramePort, FramePort, FramePort];
    sw.vlan(five, 5);
    sw.vlan(other, 300);
    sw.vlan(both, 5, [6]);
    sw.vlan(trunk, 0, [5, 6, 300]);
  };
  async function aware(flows: string | string[] | undefined): Promise<Bench> {
    const host = await Host.create({ memory: 32 * 1024 * 1024, buffers: 1024 });
    const ports = Array.from({ length: PORT_COUNT }, () => host.port());
    const sw = host.vswitch({
      connect: ports,
      vlanAware: true,
      ...(flows === undefined ? {} : { flows, rules: 1024 }),
    });
    vlans(sw, ports);
    return { host, ports, sw };
  }
  /** What arrives where when these come in at a port, one after the other. */
  const arrivals = ({ host, ports }: Bench, from: number, frames: Uint8Array[]) =>
    frames.map((one) => {
      ports[from]?.push([one]);
      host.drain();
      return asHex(ports.map(taken));
    });
  const drops = ({ host }: Bench) => host.stats().ports.map((port) => port.drops);
  /** Such as aren't runts there: one that ends in its tag is. */
  const whole = frame.filter(
    (one) => hasTwoTagsAtMost(one) && (one.length >= 18 || !((one[12] as number) & 0x80)),
  );

  test("rules that name ports and tags are followed as on any switch, whatever VLAN is whose", async () => {
    const b = await aware("actions=drop");
    fc.assert(
      fc.property(
        fc.array(rule, { maxLength: 24 }).map(distinct),
        fc.array(fc.tuple(whole, fc.integer({ min: 0, max: PORT_COUNT - 1 })), {
          minLength: 1,
          maxLength: 24,
        }),
        (rules, frames) => {
          for (const one of rules) Object.assign(one, { packets: 0, bytes: 0 });
          b.sw.flows.delete();
          b.sw.flows.add(rules.map(ruleText));
          for (const [one, from] of [...frames, ...frames]) {
            const wanted = asHex(forward(rules, one, from, PORT_COUNT));
            expect(arrivals(b, from, [one])).toEqual([wanted]);
          }
          const sorted = [...rules].sort((a, b) => a.table - b.table || b.priority - a.priority);
          expect(counts(b.sw)).toEqual(sorted.map(({ packets, bytes }) => [packets, bytes]));
          expect(astray(b.host)).toBe(0);
        },
      ),
      { seed: 8, numRuns: 200 },
    );
  });

  const retag: ModelAction[][] = [
    [],
    [{ kind: "stripVlan", text: "strip_vlan" }],
    [{ kind: "vlan", vid: 300, text: "mod_vlan_vid:300" }],
    [{ kind: "vlan", vid: 6, text: "mod_vlan_vid:6" }],
    [
      { kind: "pushVlan", type: 0x8100, text: "push_vlan:0x8100" },
      { kind: "vlan", vid: 5, text: "set_field:4101->vlan_vid" },
    ],
    [{ kind: "pushVlan", type: 0x88a8, text: "push_vlan:0x88a8" }],
  ];
  test.each(
    retag.map((actions) => [actions.map(({ text }) => text).join(",") || "as it is", actions] as const),
  )(
    "NORMAL, %s: to where the VLAN-aware bridge sends that frame, tagged as each port wants it",
    async (_name, actions) => {
      const b = await aware([
        "table=0,actions=resubmit(,1)",
        `table=1,actions=${[...actions.map(({ text }) => text), "NORMAL"]}`,
      ]);
      const bridge = await aware(undefined);
      fc.assert(
        fc.property(
          fc.array(fc.tuple(whole, fc.integer({ min: 0, max: PORT_COUNT - 1 })), { maxLength: 20 }),
          (frames) => {
            for (const [one, from] of frames) {
              // A third tag isn't put on.
              if (actions.some(({ kind }) => kind === "pushVlan") && read(one, 0).fields.inner) continue;
              const made = actions.reduce(changed, one);
              expect(arrivals(b, from, [one])).toEqual(arrivals(bridge, from, [made]));
            }
            expect(drops(b)).toEqual(drops(bridge));
            expect(astray(b.host)).toBe(0);
          },
        ),
        { seed: 9, numRuns: 100 },
      );
    },
  );

  test("a rule by VLAN and one by NORMAL side by side: tag taken off for one port, kept for the trunk", async () => {
    const plain = ether(MACS[1] as string, MACS[0] as string, 0x88b5, Array(46).fill(7));
    const five = ether(MACS[1] as string, MACS[0] as string, 0x88b5, Array(46).fill(7), [5]);
    const b = await aware([
      "priority=2,dl_vlan=5,actions=strip_vlan,output:1,NORMAL",
      "priority=2,dl_vlan=6,actions=drop",
      "priority=1,actions=NORMAL",
    ]);
    // Taken off on the trunk, which has no VLAN of its own: the bridge drops it there.
    expect(arrivals(b, TRUNK, [five])).toEqual([asHex([[], [plain], [], []])]);
    expect(drops(b)[TRUNK]).toEqual({ vlan: 1 });
    expect(arrivals(b, ACCESS, [five, plain])).toEqual([
      asHex([[], [plain], [plain], [five]]),
      asHex([[], [], [plain], [five]]),
    ]);
    expect(b.sw.flows.dump().map(({ packets }) => packets)).toEqual([2, 0, 1]);
    const six = ether(MACS[1] as string, MACS[0] as string, 0x88b5, Array(46).fill(7), [6]);
    expect(arrivals(b, TRUNK, [six])).toEqual([asHex([[], [], [], []])]);
    expect(drops(b)[TRUNK]).toEqual({ vlan: 1, flow: 1 });
  });
});

describe("frames that a guest can still change", () => {
  test("from a guest's buffers, of any length, in one or in several: as from a port, and what the guest gets back is whole", async () => {
    for (const attach of ["vhost", "iovtee"] as const) {
      const host = await Host.create({ memory: 64 * 1024 * 1024, buffers: 1024 });
      const nic = host.nic({ queues: 2 });
      const guest = host.guest({ attach, run: "macswap", mac: MACS[1] as string });
      const out = [host.port(), host.port()];
      // From the card to the guest, which sends everything back with its addresses swapped.
      const sw = host.vswitch({
        connect: [nic, guest, ...out],
        rules: 64,
        flows: "in_port=0,actions=output:1",
      });
      fc.assert(
        fc.property(
          fc.array(rule, { maxLength: 12 }).map(distinct),
          fc.array(frame.filter(hasTwoTagsAtMost), { minLength: 1, maxLength: 12 }),
          (rules, frames) => {
            for (const one of rules) Object.assign(one, { packets: 0, bytes: 0 });
            // Port numbers of the model are 0 and 1 for the ports 2 and 3 here; the guest is 3 there.
            const renumber = (text: string) =>
              text.replace(/output:(\d)/g, (_, n) => `output:${Number(n) < 2 ? Number(n) + 2 : 9}`);
            const mine = rules.filter(({ conditions, actions }) => {
              const text = [...conditions, ...actions].map((one) => one.text).join();
              return !/in_port|resubmit\(1|FLOOD/.test(text);
            });
            sw.flows.delete("in_port=1");
            sw.flows.add(
              mine
                .map((one) => renumber(ruleText(one)).replace("priority", "in_port=1,priority"))
                .filter((text) => text.startsWith("table=0")),
            );
            const sent = frames.map((one) => {
              const made = one.slice();
              made.set(macBytes(MACS[1] as string), 0);
              return made;
            });
            const swapped = sent.map((one) => {
              const made = one.slice();
              made.copyWithin(0, 6, 12);
              made.set(one.subarray(0, 6), 6);
              return made;
            });
            const only = mine.filter(({ table }) => table === 0);
            const wanted: Uint8Array[][] = [[], []];
            for (const one of swapped)
              forward(only, one, 3, 2).forEach((some, i) => void wanted[i]?.push(...some));
            for (let round = 0; round < 2; round++) {
              expect(nic.receive(sent)).toBe(sent.length);
              host.drain();
              expect(asHex(out.map(taken))).toEqual(asHex(wanted));
              nic.transmit(() => {});
            }
            expect(astray(host)).toBe(0);
            const { guests, pool } = host.stats();
            expect(guests[0]?.drops).toEqual({});
            expect(pool.available + pool.outstanding).toBe(pool.buffers);
          },
        ),
        { seed: 3, numRuns: 150 },
      );
    }
  });
});

test("over IOVTee, what the card has put into the guest's buffers: handed over, or copied elsewhere, as the rules say", async () => {
  const WIRE = MACS[0] as string;
  const GUEST = MACS[1] as string;
  const swapped = (one: Uint8Array) =>
    Uint8Array.from([...one.subarray(6, 12), ...one.subarray(0, 6), ...one.subarray(12)]);
  const host = await Host.create({ memory: 64 * 1024 * 1024, buffers: 1024 });
  const nic = host.nic({ queues: 2, ring: 64 });
  const guest = host.guest({ attach: "iovtee", run: "macswap", mac: GUEST, ring: 64 });
  const out = [host.port(), host.port()];
  const sw = host.vswitch({ connect: [nic, guest, ...out], rules: 64, flows: "actions=drop" });
  let handed = 0;
  fc.assert(
    fc.property(
      fc.array(rule, { maxLength: 8 }).map(distinct),
      fc.array(frame.filter(hasTwoTagsAtMost), { minLength: 1, maxLength: 6 }),
      fc.boolean(),
      (rules, some, toGuest) => {
        for (const one of rules) Object.assign(one, { packets: 0, bytes: 0 });
        const mine = rules.filter(
          ({ table, conditions, actions }) =>
            table === 0 &&
            !/in_port|resubmit|FLOOD/.test([...conditions, ...actions].map(({ text }) => text).join()),
        );
        // Most go to the guest.
        if (toGuest)
          mine.push({
            ...{ table: 0, priority: 1, conditions: [], packets: 0, bytes: 0 },
            actions: [{ kind: "output", port: 1, text: "output:1" }],
          });
        const only = distinct(mine);
        sw.flows.delete();
        sw.flows.add([
          ...only.map((one) => ruleText(one).replace("priority", "in_port=0,priority")),
          "in_port=1,actions=output:0",
        ]);
        const frames = some.map((one) =>
          Uint8Array.from([...macBytes(GUEST), ...macBytes(WIRE), ...one.subarray(12)]),
        );
        const burst = [...frames, ...frames, ...frames];
        const wanted = burst.map((one) => forward(only, one, 0, 4));
        const all = (port: number) => wanted.flatMap((one) => one[port] as Uint8Array[]);
        for (let round = 0; round < 3; round++) {
          const before = host.stats().mappings[0]?.hits ?? 0;
          expect(nic.receive(burst)).toBe(burst.length);
          host.drain();
          const sent: Uint8Array[] = [];
          nic.transmit((ones) => sent.push(...ones.map((one) => one.slice())));
          expect(asHex([sent, ...out.map(taken)])).toEqual(asHex([all(1).map(swapped), all(2), all(3)]));
          handed += (host.stats().mappings[0]?.hits ?? 0) - before;
        }
        const sorted = [...only].sort((a, b) => b.priority - a.priority);
        const counted = sw.flows.dump().filter(({ text }) => !text.includes("in_port=1"));
        // The model has gone through the burst once.
        expect(counted.map(({ packets }) => packets).sort()).toEqual(
          sorted.map(({ packets }) => 3 * packets).sort(),
        );
        expect(astray(host)).toBe(0);
      },
    ),
    { seed: 10, numRuns: 200 },
  );
  expect(handed).toBeGreaterThan(1000);
});

test.each(["udp,actions=output:0", "dl_src=02:00:00:00:00:0b,actions=output:0"])(
  "a guest that lends its buffers to the card, %s: what the switch looked at in a copy is sent whole, burst by burst",
  async (to) => {
    const host = await Host.create({ memory: 32 * 1024 * 1024, buffers: 1024 });
    const nic = host.nic({ ring: 256 });
    const guest = host.guest({ attach: "vhost", run: "macswap", mac: MACS[1] as string, zeroCopyTx: true });
    host.vswitch({
      connect: [nic, guest],
      rules: 64,
      flows: ["in_port=0,actions=output:1", `in_port=1,${to}`],
    });
    const made = (dst: string, src: string, i: number, tags: number[]) => {
      const body = segment({ protocol: UDP, from: i, to: 80, flags: 0, bytes: 10 });
      return ether(
        dst,
        src,
        IPV4,
        ipv4({ from: "10.0.0.1", to: "10.0.0.2", protocol: UDP, fragment: 0, options: [] }, body),
        tags,
      );
    };
    const [WIRE, GUEST] = [MACS[0] as string, MACS[1] as string];
    const all = Array.from({ length: 100 }, (_, i) => i);
    for (const tags of [[], [5]]) {
      for (let round = 0; round < 3; round++) {
        expect(nic.receive(all.map((i) => made(GUEST, WIRE, i, tags)))).toBe(100);
        host.drain();
        const sent: Uint8Array[] = [];
        nic.transmit((some) => sent.push(...some.map((one) => one.slice())));
        expect(asHex([sent])).toEqual(asHex([all.map((i) => made(WIRE, GUEST, i, tags))]));
      }
    }
    expect(astray(host)).toBe(0);
  },
);

describe("rules that change while frames come", () => {
  const A = MACS[0] as string;
  const B = MACS[1] as string;
  const one = ether(B, A, 0x88b5, Array(46).fill(1));

  test("take effect with the next frame; what was counted stays with the rules that counted it", async () => {
    const { host, ports, sw } = await bench("priority=1,actions=output:1");
    const send = () => {
      ports[0]?.push([one]);
      host.drain();
      return ports.map((port) => taken(port).length);
    };
    expect([send(), send()]).toEqual([
      [0, 1, 0, 0],
      [0, 1, 0, 0],
    ]);
    sw.flows.add(`priority=2,dl_dst=${B},actions=output:2`);
    expect([send(), send(), send()]).toEqual(Array(3).fill([0, 0, 1, 0]));
    sw.flows.add(`priority=3,dl_src=${A},actions=output:3`);
    expect(send()).toEqual([0, 0, 0, 1]);
    expect(sw.flows.delete(`dl_src=${A}`)).toBe(1);
    expect(send()).toEqual([0, 0, 1, 0]);
    expect(counts(sw)).toEqual([
      [4, 240],
      [2, 120],
    ]);
    expect(sw.flows.delete()).toBe(2);
    expect(send()).toEqual([0, 0, 0, 0]);
    expect(host.stats().ports[0]?.drops).toEqual({ flow: 1 });
  });

  test("replaced by one with the same match and priority: counted anew; narrower ones go with a wider selection", async () => {
    const { host, ports, sw } = await bench([
      "priority=5,tcp,actions=drop",
      "cookie=7,table=3,udp,tp_dst=53,actions=drop",
    ]);
    sw.flows.add("priority=5,tcp,actions=output:1");
    expect(sw.flows.dump().map(({ text }) => text)).toEqual([
      "cookie=0x0, table=0, n_packets=0, n_bytes=0, priority=5,tcp actions=output:1",
      "cookie=0x7, table=3, n_packets=0, n_bytes=0, priority=32768,udp,tp_dst=53 actions=drop",
    ]);
    expect(sw.flows.delete("tcp,tp_dst=80")).toBe(0);
    expect(sw.flows.delete("ip", { strict: true })).toBe(0);
    expect(sw.flows.delete("cookie=7/0xf")).toBe(1);
    expect(sw.flows.delete("ip")).toBe(1);
    expect(host.stats().pool.outstanding).toBe(0);
    expect(ports).toHaveLength(PORT_COUNT);
  });

  test("on lcores: rules come and go, the controller hears, nothing is lost", async () => {
    const host = await Host.create({ memory: 64 * 1024 * 1024, buffers: 2048, shared: true });
    const ports = [host.port(), host.port(), host.port()];
    let heard = 0;
    const sw = host.vswitch({
      connect: ports,
      flows: "priority=1,actions=output:1",
      onPacketIn: () => heard++,
    });
    const { done } = await host.launch([sw]);
    let sent = 0;
    let got = 0;
    const take = () => {
      for (const port of ports) got += port.take(() => {});
      host.poll();
    };
    for (let i = 0; i < 60; i++) {
      sent += ports[0]?.push(Array(8).fill(one)) ?? 0;
      take();
      if (i % 3 === 0) sw.flows.add(i % 2 ? "priority=9,actions=output:2" : "priority=9,actions=controller");
      else if (i % 3 === 2) sw.flows.delete() && sw.flows.add("priority=1,actions=output:1");
      await new Promise((later) => setTimeout(later, 1));
    }
    sw.flows.add("priority=9,actions=controller");
    sent += ports[0]?.push(Array(8).fill(one)) ?? 0;
    const dropped = () =>
      host.stats().ports.reduce((n, { drops }) => n + Object.values(drops).reduce((a, b) => a + b, 0), 0);
    for (const end = performance.now() + 5000; got + heard + dropped() < sent && performance.now() < end; ) {
      take();
      await new Promise((later) => setTimeout(later, 1));
    }
    host.stop();
    await done;
    expect(got + heard + dropped()).toBe(sent);
    expect(heard).toBeGreaterThan(0);
    expect(astray(host)).toBe(0);
  }, 20_000);
});

describe("an lcore that is killed in a switch with flows", () => {
  const at = (n: number) => `02:00:00:00:00:${n.toString(16).padStart(2, "0")}`;
  const udp = (from: number, to: number) =>
    seal(
      ether(
        at(2),
        at(1),
        IPV4,
        ipv4(
          { from: "10.0.0.1", to: `10.0.${to}.2`, protocol: UDP, fragment: 0, options: [] },
          segment({ protocol: UDP, from, to: 80, flags: 0, bytes: 20 }),
        ),
      ),
    );
  /** Masks of equal priority, which change places by use, in two tables; and each kind of end. */
  const RULES = [
    "priority=9,udp,tp_src=1,actions=output:1",
    "priority=9,ip,nw_dst=10.0.1.0/24,actions=mod_nw_ttl:9,output:2",
    "priority=9,udp,nw_dst=10.0.2.0/24,tp_dst=80,actions=resubmit(,1)",
    "priority=9,udp,nw_src=10.0.0.1,tp_src=7,actions=controller,output:1",
    "priority=8,dl_dst=02:00:00:00:00:02,nw_tos=4,ip,actions=drop",
    "priority=1,actions=NORMAL",
    "table=1,priority=9,udp,tp_src=3,actions=output:2",
    "table=1,priority=9,ip,nw_dst=10.0.2.2,actions=output:1,output:2",
  ];
  const frames = Array.from({ length: 40 }, (_, i) => udp(i % 8, (i * 7) % 5));

  async function launched() {
    const host = await Host.create({ memory: 64 * 1024 * 1024, buffers: 2048, shared: true });
    const ports = [host.port(), host.port(), host.port()];
    const sw = host.vswitch({ connect: ports, rules: 64, flows: RULES, onPacketIn: () => {} });
    return { host, ports, sw, done: (await host.launch([sw])).done };
  }
  const lists = ({ host, sw }: { host: Host; sw: VSwitch }) => {
    const { core } = host;
    const list = core.u32(sw.flows.address + FlowTable.masks);
    return Array.from({ length: RULES.length }, (_, i) => core.u32(list + 4 * i));
  };
  /** What each rule counts of all frames, sent one by one, twice; and what comes out. */
  const outcome = ({ host, ports, sw }: { host: Host; ports: FramePort[]; sw: VSwitch }) => {
    const before = counts(sw);
    const arrived: string[][][] = [];
    for (const one of [...frames, ...frames]) {
      expect(ports[0]?.push([one])).toBe(1);
      host.drain();
      host.poll();
      arrived.push(asHex(ports.map(taken)));
    }
    const counted = counts(sw).map((now, i) => now.map((n, k) => n - (before[i]?.[k] as number)));
    return { arrived, counted };
  };

  test("LcoreError, all buffers found, rules, masks and counts as they were, and it runs again", async () => {
    const fresh = await Host.create({ memory: 32 * 1024 * 1024, buffers: 512 });
    const its = [fresh.port(), fresh.port(), fresh.port()];
    const flows = { connect: its, rules: 64, flows: RULES, onPacketIn: () => {} };
    const wanted = outcome({ host: fresh, ports: its, sw: fresh.vswitch(flows) });
    const r = await launched();
    const masks = lists(r).sort();
    for (let round = 0; round < 6; round++) {
      const sentBefore = counts(r.sw).map(([packets]) => packets as number);
      let pushed = 0;
      for (const end = performance.now() + 20 + round; performance.now() < end; ) {
        pushed += r.ports[0]?.push(frames) ?? 0;
        for (const port of r.ports) port.take(() => {});
      }
      await r.host.lcores[0]?.kill();
      const error = await r.done.catch((one) => one);
      expect(error).toBeInstanceOf(LcoreError);
      expect(error.message).toContain("lcore1 (switch0): killed");
      // What was on its way is delivered, on this thread.
      r.host.drain();
      r.host.poll();
      for (const port of r.ports) taken(port);
      expect(astray(r.host)).toBe(0);
      expect(r.host.stats().pool.outstanding).toBe(0);
      expect(lists(r).sort()).toEqual(masks);
      // Nothing is counted that wasn't sent.
      const counted = counts(r.sw).map(([packets], i) => (packets as number) - (sentBefore[i] as number));
      expect(pushed).toBeGreaterThan(0);
      for (const n of counted) expect(n).toBeLessThanOrEqual(pushed);
      expect(outcome(r)).toEqual(wanted);
      r.done = (await r.host.launch([r.sw])).done;
    }
    r.host.stop();
    await r.done;
  }, 30_000);

  test("between the two stores that let masks change places: none is lost", async () => {
    const r = await launched();
    const before = lists(r);
    const { core } = r.host;
    const list = core.u32(r.sw.flows.address + FlowTable.masks);
    const lcore = r.host.lcores[0];
    core.setU32(list + 4, before[0] as number); // both are the first one
    await lcore?.kill();
    await expect(r.done).rejects.toBeInstanceOf(LcoreError);
    expect(new Set(lists(r))).toEqual(new Set(before));
    expect(outcome(r).counted.map(([packets]) => (packets as number) > 0)).toEqual([
      true,
      true,
      true,
      true,
      false,
      true,
      true,
      true,
    ]);
  });
});

test("many rules that come and go are found as long as they are there", async () => {
  const { host, ports, sw } = await bench("actions=drop", { rules: 256 });
  const random = fc.sample(fc.integer({ min: 0, max: 0xffff }), { seed: 6, numRuns: 6000 });
  const there = new Map<number, true>();
  sw.flows.delete();
  random.forEach((n, i) => {
    const match = `dl_src=02:00:00:00:${(n >> 8).toString(16).padStart(2, "0")}:${(n & 255).toString(16).padStart(2, "0")}`;
    sw.flows.add(`${match},actions=output:1`);
    there.set(n, true);
    if (there.size > 200) {
      const [gone = 0] = there.keys();
      there.delete(gone);
      sw.flows.delete(
        `dl_src=02:00:00:00:${(gone >> 8).toString(16).padStart(2, "0")}:${(gone & 255).toString(16).padStart(2, "0")}`,
      );
    }
    if (i % 500 !== 499) return;
    const froms = [...there.keys(), ...random.slice(0, 50)];
    const frames = froms.map((m) =>
      ether(
        MACS[0] as string,
        `02:00:00:00:${(m >> 8).toString(16)}:${(m & 255).toString(16)}`,
        0x88b5,
        Array(46).fill(0),
      ),
    );
    ports[0]?.push(frames);
    host.drain();
    expect(taken(ports[1] as FramePort)).toHaveLength(froms.filter((m) => there.has(m)).length);
  });
}, 20_000);

test("of more flows than are cached each frame is counted at the rule that it hit", async () => {
  const { host, ports, sw } = await bench([
    ...Array.from({ length: 16 }, (_, i) => `priority=2,udp,tp_src=${i}/15,actions=output:1`),
    "priority=3,udp,nw_src=1.2.3.4,actions=drop", // so sources are consulted
  ]);
  const wanted = Array<number>(16).fill(0);
  const send = (flow: number) => {
    // Those 4096 apart have one place, and hit different rules.
    const which = (flow + (flow >> 12)) & 15;
    const datagram = segment({ protocol: UDP, from: which, to: 80, flags: 0, bytes: 20 });
    const from = `10.0.${flow >> 8}.${flow & 255}`;
    const packet = ipv4({ from, to: "10.0.0.2", protocol: UDP, fragment: 0, options: [] }, datagram);
    const frames = Array(3).fill(ether(MACS[1] as string, MACS[0] as string, IPV4, packet));
    ports[0]?.push(frames);
    host.drain();
    wanted[which] = (wanted[which] as number) + 3;
    expect(taken(ports[1] as FramePort)).toEqual(frames);
  };
  // The first ones have given their places to others when they come again; they were well known.
  for (let flow = 0; flow < 16; flow++) for (let i = 0; i < 3; i++) send(flow);
  for (let flow = 16; flow < 4300; flow++) send(flow);
  for (let flow = 0; flow < 16; flow++) send(flow);
  expect(counts(sw).map(([packets]) => packets)).toEqual([0, ...wanted]);
}, 20_000);

test("rules by TCP's flags: other segments of a connection go elsewhere, and what stands there in UDP is payload", async () => {
  const { host, ports, sw } = await bench([
    "priority=3,tcp,tcp_flags=+syn-ack,actions=output:1",
    "priority=2,tcp,actions=output:2",
    "priority=1,udp,actions=output:3",
  ]);
  const made = (protocol: number, flags: number, fill: number) => {
    const body = segment({ protocol, from: 1000, to: 80, flags, bytes: 20 });
    if (protocol === UDP) body.fill(fill, 8);
    return seal(
      ether(
        MACS[1] as string,
        MACS[0] as string,
        IPV4,
        ipv4({ from: IPS[0] as string, to: IPS[1] as string, protocol, fragment: 0, options: [] }, body),
      ),
    );
  };
  const burst = [0x02, 0x10, 0x12, 0x02, 0x10].flatMap((flags, i) => [made(TCP, flags, 0), made(UDP, 0, i)]);
  for (let round = 1; round <= 3; round++) {
    ports[0]?.push(burst);
    host.drain();
    expect(ports.map((port) => taken(port).length)).toEqual([0, 2, 3, 5]);
  }
  expect(counts(sw).map(([packets]) => packets)).toEqual([6, 9, 15]);
});

test("megaflows are not looked for while each frame is a new flow, and again when frames share them", async () => {
  const { host, ports, sw } = await bench([
    "priority=3,udp,tp_src=4000,tp_dst=80,actions=output:2",
    "priority=2,udp,actions=output:1",
    "priority=1,ip,nw_src=10.9.9.9,actions=drop",
  ]);
  const { core } = host;
  const count = (at: number) => core.counter(sw.flows.address + at);
  /** Frames that are each a new flow to the cache. */
  const send = (n: number, of: (i: number) => { source: string; from: number; to: number }) => {
    for (let i = 0; i < n; i++) {
      const { source, from, to } = of(i);
      const datagram = segment({ protocol: UDP, from, to, flags: 0, bytes: 20 });
      const packet = ipv4(
        { from: source, to: "10.0.0.2", protocol: UDP, fragment: 0, options: [] },
        datagram,
      );
      ports[0]?.push([ether(MACS[1] as string, MACS[0] as string, IPV4, packet)]);
      host.drain();
    }
    return ports.map((port) => taken(port).length);
  };
  // What is consulted are the ports.
  expect(send(200, (i) => ({ source: "10.0.0.1", from: 5000 + i, to: 90 }))).toEqual([0, 200, 0, 0]);
  expect(count(FlowTable.misses)).toBe(200);
  expect(core.u32(sw.flows.address + FlowTable.worth)).toBeLessThan(65536 / 8);
  // All of one megaflow.
  expect(send(200, (i) => ({ source: `10.0.1.${i}`, from: 4000, to: 80 }))).toEqual([0, 0, 200, 0]);
  expect(count(FlowTable.megaflowHits)).toBeGreaterThan(100);
  expect(core.u32(sw.flows.address + FlowTable.worth)).toBeGreaterThan(65536 / 2);
  expect(send(100, (i) => ({ source: "10.0.2.1", from: 4000, to: 80 + (i & 1) }))).toEqual([0, 50, 50, 0]);
});

describe("resubmit", () => {
  test("in a circle ends, drops the frame, and is counted", async () => {
    const { host, ports, sw } = await bench([
      "table=0,actions=output:1,resubmit(,1)",
      "table=1,actions=resubmit(,0)",
    ]);
    ports[0]?.push([ether(MACS[1] as string, MACS[0] as string, 0x88b5, Array(46).fill(0))]);
    host.drain();
    expect(ports.map((port) => taken(port).length)).toEqual([0, 0, 0, 0]);
    expect(host.stats().ports[0]?.drops).toEqual({ flow: 1 });
    expect(host.core.counter(sw.flows.address + FlowTable.tooDeep)).toBe(1);
    const { tooDeep, actions, text } = sw.flows.trace("in_port=0");
    expect({ tooDeep, actions }).toEqual({ tooDeep: true, actions: [] });
    expect(text).toMatch(/^flow: .*\n( {2}table=[01].*\n){17}actions: drop \(too many/);
  });

  test("in sixteen branches stays bounded", async () => {
    const twice = (table: number) => `table=${table},actions=resubmit(,${table + 1}),resubmit(,${table + 1})`;
    const { host, ports } = await bench(Array.from({ length: 15 }, (_, i) => twice(i)));
    ports[0]?.push([ether(MACS[1] as string, MACS[0] as string, 0x88b5, Array(46).fill(0))]);
    host.drain();
    expect(host.stats().ports[0]?.drops).toEqual({ flow: 1 });
  });
});

describe("the controller", () => {
  const one = ether(
    MACS[1] as string,
    MACS[0] as string,
    0x88b5,
    Array.from({ length: 100 }, (_, i) => i),
  );

  test("gets frames with where they come from, cut where the rule says so", async () => {
    const seen: unknown[] = [];
    const { host, ports } = await bench(
      [
        "table=0,in_port=2,actions=controller:20,resubmit(,4)",
        "table=4,actions=mod_dl_dst:02:00:00:00:00:ff,controller(reason=no_match),output:1",
      ],
      { onPacketIn: (bytes, info) => void seen.push([bytes.slice(), info]) },
    );
    ports[2]?.push([one]);
    host.poll();
    const changed = one.slice();
    changed.set(macBytes("02:00:00:00:00:ff"), 0);
    expect(seen).toEqual([
      [one.slice(0, 20), { inPort: 2, reason: "action", table: 0, length: 114 }],
      [changed, { inPort: 2, reason: "noMatch", table: 4, length: 114 }],
    ]);
    expect(asHex([taken(ports[1] as FramePort)])).toEqual(asHex([[changed]]));
    expect(astray(host)).toBe(0);
  });

  test("that doesn't come holds up nobody: the ring fills, the rest is dropped and counted, buffers come back", async () => {
    const { host, ports, sw } = await bench("actions=controller,output:1");
    for (let i = 0; i < 10; i++) {
      ports[0]?.push(Array(40).fill(one));
      host.drain();
      expect(taken(ports[1] as FramePort)).toHaveLength(40);
    }
    expect(host.stats().ports[0]?.drops).toEqual({ controller: 144 });
    let n = 0;
    sw.flows.onPacketIn = () => n++;
    host.poll();
    expect(n).toBe(256);
    expect(astray(host)).toBe(0);
  });

  test("may add rules from within, and its error reaches whoever polls, with no buffer lost", async () => {
    const { host, ports, sw } = await bench("priority=0,actions=controller");
    sw.flows.onPacketIn = (bytes, { inPort }) => {
      sw.flows.add(`priority=1,in_port=${inPort},actions=output:1`);
      if (bytes.length > 100) throw new Error("too long for me");
    };
    ports[0]?.push([one]);
    expect(() => host.poll()).toThrow("too long for me");
    ports[0]?.push([one]);
    host.poll();
    expect(taken(ports[1] as FramePort)).toHaveLength(1);
    expect(astray(host)).toBe(0);
  });
});

test("NORMAL is the learning switch: it learns, floods, and drops what that drops", async () => {
  const flows = await bench("actions=NORMAL");
  const host = await Host.create({ memory: 16 * 1024 * 1024, buffers: 512 });
  const ports = Array.from({ length: PORT_COUNT }, () => host.port());
  host.vswitch({ connect: ports });
  fc.assert(
    fc.property(fc.array(fc.tuple(frame, fc.integer({ min: 0, max: 3 })), { maxLength: 20 }), (frames) => {
      for (const [bytes, from] of frames) {
        const arrived = [flows, { host, ports }].map((one) => {
          one.ports[from]?.push([bytes]);
          one.host.drain();
          return asHex(one.ports.map(taken));
        });
        expect(arrived[0]).toEqual(arrived[1]);
      }
      expect(flows.host.stats().ports.map(({ drops }) => drops)).toEqual(
        host.stats().ports.map(({ drops }) => drops),
      );
    }),
    { seed: 4, numRuns: 100 },
  );
});

test("trace by the rules says what the core does", async () => {
  const { sw } = await bench([
    "table=0,priority=5,udp,nw_dst=10.0.0.0/24,actions=mod_nw_dst:10.1.0.1,resubmit(,1)",
    "table=1,udp,nw_dst=10.1.0.1,actions=output:2",
    "priority=1,actions=FLOOD",
  ]);
  const { text, steps } = sw.flows.trace("udp,nw_dst=10.0.0.7,tp_dst=53", "port1");
  expect(text.split("\n").slice(1)).toEqual([
    "  table=0, priority=5,udp,nw_dst=10.0.0.0/24 actions=mod_nw_dst:10.1.0.1,resubmit(,1)",
    "  table=1, priority=32768,udp,nw_dst=10.1.0.1 actions=output:2",
    "actions: mod_nw_dst:10.1.0.1,output:2",
  ]);
  expect(steps.map(({ table }) => table)).toEqual([0, 1]);
  expect(sw.flows.trace(ether(MACS[1] as string, MACS[0] as string, 0x88b5)).text).toMatch(/actions: FLOOD$/);
  expect(() => sw.flows.trace("udp", "port9")).toThrow(
    "inPort: port9, expected the number or name of a port",
  );
});

describe("a rule that can't be read", () => {
  test.each([
    ["table=0,nonsense=1,actions=drop", 9, "nonsense", "a field"],
    ["tcp,tp_dst=99999,actions=drop", 12, "99999", "a port from 0 to 65535"],
    ["dl_vlan=4096,actions=drop", 9, "4096", "a VLAN from 0 to 4095"],
    ["actions=mod_vlan_vid:4096", 22, "4096", "a VLAN from 0 to 4095"],
    ["vlan_vid=4096,actions=drop", 10, "4096", "a VLAN from 0 to 4095"],
    ["in_port=nobody,actions=drop", 9, "nobody", "a port from 0 to 2047, or the name"],
    ["nw_dst=10.0.0.0/8,actions=drop", 1, "nw_dst=10.0.0.0/8", '"ip or arp" in the rule'],
    ["ip,nw_dst=10.0.0.0/33,actions=drop", 11, "10.0.0.0/33", "an IPv4 address"],
    ["ip,tp_dst=5,actions=drop", 4, "tp_dst=5", '"tcp, udp or sctp'],
    ["priority=65536,actions=drop", 10, "65536", "a priority from 0 to 65535"],
    ["table=255,actions=drop", 7, "255", "a table from 0 to 254"],
    ["tcp,udp,actions=drop", 5, "udp", "dl_type once"],
    ["in_port=1", 10, "", '"actions="'],
    ["actions=output:1,fly", 18, "fly", "an action: normal"],
    ["actions=drop,output:1", 9, "drop", "drop alone"],
    ["actions=push_vlan:0x9100", 19, "0x9100", "0x8100 or 0x88a8"],
    ["actions=set_field:1->dl_type", 22, "dl_type", "a field that can be set: dl_src"],
    ["actions=mod_nw_dst:10.0.0.1", 9, "mod_nw_dst:10.0.0.1", '"ip or arp" in the rule'],
    ["actions=resubmit(1)", 18, "1)", "a port and a table"],
    ["tcp,tcp_flags=+syn-foo,actions=drop", 15, "+syn-foo", "flags of fin"],
    ["arp,arp_op=x,actions=drop", 12, "x", "a number from 0 to 255"],
    ["dl_dst=02:00:00:00:01,actions=drop", 8, "02:00:00:00:01", "a MAC address"],
    ["ipv6,ipv6_dst=::1::,actions=drop", 15, "::1::", "an IPv6 address"],
  ])("%s: column %i", async (text, column, found, expected) => {
    const { sw } = await bench("priority=7,actions=output:1");
    const before = sw.flows.dump();
    const error = (() => {
      try {
        sw.flows.add(["priority=1,actions=drop", text]);
      } catch (caught) {
        return caught;
      }
    })();
    expect(error).toBeInstanceOf(RuleError);
    const { line, column: where, message } = error as RuleError;
    expect([line, where]).toEqual([2, column]);
    expect(message).toContain(
      found ? `"${found}", expected ${expected}` : `end of line, expected ${expected}`,
    );
    expect(sw.flows.dump()).toEqual(before);
  });

  test("more rules than there is room for: nothing changed", async () => {
    const { sw } = await bench("actions=drop", { rules: 8 });
    const eight = Array.from({ length: 8 }, (_, i) => `in_port=${i},actions=drop`);
    expect(() => sw.flows.add(eight)).toThrow("flows: 9 rules, expected at most 8");
    expect(sw.flows.dump()).toHaveLength(1);
    sw.flows.add(eight.slice(1));
    expect(sw.flows.dump()).toHaveLength(8);
  });
});

test("what a dump says can be added again, and says the same", async () => {
  const { sw } = await bench("actions=drop");
  fc.assert(
    fc.property(fc.array(rule, { maxLength: 10 }).map(distinct), (rules) => {
      sw.flows.delete();
      sw.flows.add(rules.map(ruleText));
      const first = sw.flows.dump().map(({ text }) => text);
      sw.flows.delete();
      sw.flows.add(first);
      expect(sw.flows.dump().map(({ text }) => text)).toEqual(first);
    }),
    { seed: 5, numRuns: 300 },
  );
});
