/**
 * What the flow table costs: PVP with it in place of learning, by rules on MAC addresses and by rules on each of 64
 * flows' addresses and ports; frames of which each is a new flow, under many rules; and how fast rules are added.
 */
import Table from "cli-table3";
import { FlowTable, Packet } from "../assembly/layout.ts";
import { type Attach, Host } from "../src/host.ts";
import { localMac } from "../src/mac.ts";
import { lowerQuartile } from "./percentile.ts";
import { Rig } from "./rig.ts";

const SIZE = 64;
/** Cycles of one ring each, of which the 25th percentile counts: others use the machine too. */
const ROUNDS = 1500;
const PER_ROUND = 224;

const WIRE = localMac(0xff, 1);
const GUEST = localMac(0, 1);

/** What `--lookup flows` has without rules of its own, for one guest. */
const BY_MAC = [
  `priority=2,dl_dst=${GUEST},actions=output:1`,
  `priority=2,dl_dst=${WIRE},actions=output:0`,
  "priority=1,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,actions=FLOOD",
];

/** The generator's 64 flows, each by its addresses, protocol and ports, and the way back. */
function byFlow(frames: Uint8Array[]): string[] {
  const rules = new Set<string>();
  for (const frame of frames) {
    const ip = (at: number) => frame.subarray(at, at + 4).join(".");
    const port = (at: number) => (frame[at] as number) * 256 + (frame[at + 1] as number);
    const match = `udp,nw_src=${ip(26)},nw_dst=${ip(30)},tp_src=${port(34)},tp_dst=${port(36)}`;
    rules.add(`in_port=0,${match},actions=output:1`);
    rules.add(`in_port=1,${match},actions=output:0`);
  }
  return [...rules];
}

/** PVP at 64 B; learning and tables take turns. */
async function pvp(attach: Attach): Promise<string[][]> {
  const flows = byFlow(await generated());
  const variants = [
    { name: "learning" },
    { name: "flows by MAC address", flows: BY_MAC },
    { name: `flows by 5-tuple, ${flows.length} rules`, flows },
  ];
  const rigs: Rig[] = [];
  for (const { flows } of variants)
    rigs.push(await Rig.create({ attach, size: SIZE, mac: GUEST, ...(flows ? { flows } : {}) }));
  for (const rig of rigs) for (let i = 0; i < 8000; i++) rig.round(PER_ROUND);
  for (const rig of rigs) rig.ns.length = 0;
  for (let round = 0; round < ROUNDS; round++) for (const rig of rigs) rig.round(PER_ROUND);
  const base = lowerQuartile((rigs[0] as Rig).ns);
  return rigs.map((rig, i) => {
    const ns = lowerQuartile(rig.ns);
    const copies = rig.check().toFixed(2);
    return [
      `PVP ${attach}, ${variants[i]?.name}`,
      ns.toFixed(1),
      copies,
      `${(ns / base).toFixed(2)} times learning`,
    ];
  });
}

/** One frame of each of the generator's flows. */
async function generated(): Promise<Uint8Array[]> {
  const rig = await Rig.create({ attach: "vhost", size: SIZE, mac: GUEST });
  const frames: Uint8Array[] = [];
  const { exports } = rig.host.core;
  exports.generate(rig.generator.address, rig.nic.address, 128);
  rig.host.drain();
  rig.nic.transmit((some) => frames.push(...some.map((frame) => frame.slice())));
  return frames;
}

const RULES = 10_000;
const FRAMES = 65_536;
const RING = 256;

/** Repeatable numbers below `n` (xorshift32). */
function numbers(seed: number): (n: number) => number {
  let x = seed;
  return (n) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % n;
  };
}

interface Mask {
  source: number;
  destination: number;
  sourcePort: boolean;
  destinationPort: boolean;
}

/** Twenty masks: prefixes of both addresses, with and without ports. */
const MASKS: Mask[] = [8, 12, 16, 20, 24].flatMap((source) =>
  [16, 24].flatMap((destination) =>
    [false, true].map((port) => ({
      source,
      destination,
      sourcePort: port && source === 8,
      destinationPort: port,
    })),
  ),
);

const dotted = (n: number): string => [n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255].join(".");
const prefix = (n: number, bits: number): number => (n & (-1 << (32 - bits))) >>> 0;

interface Chosen {
  mask: Mask;
  from: number;
  to: number;
  fromPort: number;
  toPort: number;
}

function chooseRules(random: (n: number) => number): Chosen[] {
  return Array.from({ length: RULES }, (_, i) => {
    const mask = MASKS[i % MASKS.length] as Mask;
    const ip = (bits: number) => prefix(random(0xffffffff), bits);
    return {
      mask,
      from: ip(mask.source),
      to: ip(mask.destination),
      fromPort: random(65536),
      toPort: random(65536),
    };
  });
}

function ruleText({ mask, from, to, fromPort, toPort }: Chosen, priority: number): string {
  const ports = `${mask.sourcePort ? `,tp_src=${fromPort}` : ""}${mask.destinationPort ? `,tp_dst=${toPort}` : ""}`;
  return `priority=${priority},udp,nw_src=${dotted(from)}/${mask.source},nw_dst=${dotted(to)}/${mask.destination}${ports},actions=output:1`;
}

/** A frame that the rule matches, of a flow of its own. */
function writeFrame(frame: DataView, rule: Chosen, random: (n: number) => number): void {
  const low = (bits: number) => random(2 ** (32 - bits));
  for (let at = 0; at < 60; at += 4) frame.setUint32(at, 0);
  frame.setUint32(0, 0x02000000);
  frame.setUint32(6, 0x02000001);
  frame.setUint16(12, 0x0800);
  frame.setUint16(14, 0x4500);
  frame.setUint16(16, 46);
  frame.setUint16(22, 0x4011);
  frame.setUint32(26, rule.from + low(rule.mask.source));
  frame.setUint32(30, rule.to + low(rule.mask.destination));
  frame.setUint16(34, rule.mask.sourcePort ? rule.fromPort : random(65536));
  frame.setUint16(36, rule.mask.destinationPort ? rule.toPort : random(65536));
  frame.setUint16(38, 26);
}

/** 10,000 rules over 20 masks from card to card: each frame is a new flow, so no cache helps. */
async function cold(
  priorities: (i: number, random: (n: number) => number) => number,
  name: string,
): Promise<string[]> {
  const random = numbers(7);
  const host = await Host.create({ buffers: 2048 });
  const [from, to] = [host.nic({ ring: RING }), host.nic({ ring: RING })];
  const chosen = chooseRules(random);
  const flows = chosen.map((rule, i) => ruleText(rule, priorities(i, random)));
  const sw = host.vswitch({ connect: [from, to], flows });
  const { core } = host;
  const frames = core.place(1, FRAMES * 64, "frames").address;
  const list = core.place(1, RING * Packet.SIZE, "frames").address;
  for (let i = 0; i < FRAMES; i++)
    writeFrame(
      new DataView(core.memory.buffer, frames + i * 64, 64),
      chosen[random(RULES)] as Chosen,
      random,
    );
  const ns: number[] = [];
  let at = 0;
  for (let round = 0; round < 3000; round++) {
    for (let i = 0; i < PER_ROUND; i++, at = (at + 1) % FRAMES) {
      core.setU32(list + i * Packet.SIZE, frames + at * 64);
      core.setU16(list + i * Packet.SIZE + Packet.len, 60);
    }
    core.exports.receive(from.address, list, PER_ROUND);
    const start = performance.now();
    host.drain();
    const time = performance.now() - start;
    const sent = core.exports.toTransmit(to.address);
    if (sent !== PER_ROUND) throw new Error(`${name}: ${sent} of ${PER_ROUND} frames came through`);
    core.exports.transmitted(to.address, sent);
    if (round >= 300) ns.push((time * 1e6) / PER_ROUND);
  }
  const missed = core.counter(sw.flows.address + FlowTable.misses) / (3000 * PER_ROUND);
  const best = lowerQuartile(ns);
  return [
    name,
    best.toFixed(1),
    `${(1000 / best).toFixed(1)} Mpps`,
    `${(100 * missed).toFixed(1)} % by the rules`,
  ];
}

/** Rules a second, as text, in one call and one by one; the best of some rounds. */
async function insertion(): Promise<string[][]> {
  const random = numbers(9);
  const chosen = chooseRules(random);
  const flows = chosen.map((rule) => ruleText(rule, random(65536)));
  const host = await Host.create();
  const sw = host.vswitch({ connect: [host.port(), host.port()], flows: [] });
  // By the processor's time: a call takes long enough for others to come in between.
  const cpu = () => process.cpuUsage().user / 1000;
  const time = (add: () => void) => {
    const start = cpu();
    add();
    const took = cpu() - start;
    sw.flows.delete();
    return flows.length / took;
  };
  const rates = (add: () => void) => Math.max(...Array.from({ length: 15 }, () => time(add)));
  const all = rates(() => sw.flows.add(flows));
  const single = rates(() => {
    for (const rule of flows) sw.flows.add(rule);
  });
  return [
    ["rules added at once", (1e6 / all).toFixed(0), `${all.toFixed(0)} k rules/s`, ""],
    ["rules added one by one", (1e6 / single).toFixed(0), `${single.toFixed(0)} k rules/s`, ""],
  ];
}

const out = new Table({
  head: ["flow table", "ns", "copies/pkt, or rate", ""],
  colAligns: ["left", "right", "right", "left"],
  style: { head: [], border: [], compact: true },
});
for (const attach of ["vhost", "iovtee"] as const) out.push(...(await pvp(attach)));
out.push(
  await cold(
    (_, random) => 1 + random(65535),
    "each frame a new flow, 10,000 rules, 20 masks, any priorities",
  ),
);
out.push(await cold((i) => 1 + (i % MASKS.length), "the same, a priority for each mask"));
out.push(...(await insertion()));
console.log(out.toString());
