/** What is measured: a card, guests in rows side by side, a switch that joins them, and who runs what. */
import { FRAME_ROOM, FUNCTIONS_MAX } from "../assembly/layout.ts";
import {
  type Attach,
  type FunctionName,
  type Guest,
  Host,
  type LookupFunction,
  type Nic,
  type NicModeName,
  type Vmux,
  type VSwitch,
} from "./host.ts";
import { localMac } from "./mac.ts";
import { type Places, parseLcores, rolesOf } from "./pvp-lcores.ts";
import { parseRules } from "./rules.ts";

/** Attachments whose guests the card reaches by itself. */
const BYPASS: readonly Attach[] = ["passthrough", "sriov"];

/** The station at the far end of the wire. */
export const WIRE_MAC = localMac(0xff, 1);

/** A switch's lookup; instead of a function what makes one, called for each switch. */
export type LookupSource = "learning" | "flows" | WebAssembly.Module | (() => LookupFunction);
/**
 * The rules of `--lookup flows` where none are given: by destination MAC address, with the same effect as learning.
 * @param guests their MAC addresses, by port from 1 on; port 0 is the card
 */
function flowsByMac(guests: readonly string[]): string[] {
  return [
    ...guests.map((mac, i) => `priority=2,dl_dst=${mac},actions=output:${i + 1}`),
    "priority=1,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,actions=FLOOD",
    "priority=0,actions=output:0",
  ];
}

/** Port of the testbed's switch by name: nic0, then guest0, guest1 and so on. */
export function portNamed(name: string): number | undefined {
  const [, guest] = /^guest(\d{1,4})$/.exec(name) ?? [];
  if (guest === undefined) return name === "nic0" ? 0 : undefined;
  return Number(guest) + 1;
}

/** Bytes of a flow table, and a little more. */
const FLOWS_BYTES = 12 * 1024 * 1024;

/** What may be said of any testbed; `PvpOptions` has it as it is. */
export interface TestbedSetup {
  /**
   * What runs on which thread: "nic", "host" (the switch) and "guest", joined by "+" where they share an lcore; the one
   * with the card is the calling thread. Default: all on the calling thread, in memory that isn't shared.
   */
  lcores?: string[];
  /** How the card's receive queues are served; default "poll", over "kernel" "interrupt". */
  nicMode?: NicModeName;
  /** Over "kernel": packets for each interrupt, 1 to 256; default 1. */
  napi?: number;
  /** Over "vhost": the guest's transmit buffers are given to the card as they are; default false. */
  zeroCopyTx?: boolean;
  /** Text of the firewall's rules. */
  rules?: string;
  /** Lines of testpmd's `flow` commands, which the card is given before there is traffic. */
  flow?: string;
  /** Whether the card follows these rules, or its driver; default true. */
  flowOffload?: boolean;
  /** Receive queues of the card that share what no filter names, by RSS, up to 64; default 1. */
  queues?: number;
  /** Who says where frames go at the switch (docs/lookup.md); instead of a function what makes one, for each switch. */
  lookup?: LookupSource;
  /** Text of the flow table's rules; port 0 is nic0, 1 guest0, and so on. Default: by destination MAC address. */
  flows?: string;
}

export interface TestbedOptions extends TestbedSetup {
  ring: number;
  /** Descriptors in the card's rings, but for those of mapped guests; default `ring`. */
  cardRing?: number;
  burst: number;
  /** Rows side by side. */
  guests: number;
  function: FunctionName;
}

const isBound = (row: readonly Attach[]) => row.length === 1 && row[0] === "vdpdk";

/** Why guests can't be joined to one card so, in rows side by side; nothing where they can. */
export function refusal(
  row: readonly Attach[],
  { guests, flow }: Pick<TestbedOptions, "guests" | "flow">,
): string | undefined {
  const bypass = row.filter((attach) => BYPASS.includes(attach));
  if (bypass.length > 0 && bypass.length < row.length) {
    return `chain: ${row.join(",")}, expected ${BYPASS.join(" and ")} not beside what is connected by the switch`;
  }
  const owners = guests * row.filter((attach) => attach === "passthrough").length;
  if (owners > 1) {
    return `attach: ${owners} guests by passthrough, expected 1, the owner of the card's port, or sriov for more`;
  }
  if (flow && (bypass.length > 0 || isBound(row))) {
    return `flow: rules for the host's queues of the card, expected no attachment by ${row[0]}, which has its own`;
  }
  return undefined;
}

export class Testbed {
  #done: Promise<void> = Promise.resolve();

  private constructor(
    readonly host: Host,
    readonly nic: Nic,
    /** Row by row. */
    readonly guests: readonly Guest[],
    /** The first of each row, which the wire sends to. */
    readonly heads: readonly Guest[],
    /** What joins card and guests; nothing where the card does that. */
    readonly sw: VSwitch | Vmux | undefined,
    /** Nothing where all is on the calling thread. */
    readonly places: Places | undefined,
  ) {}

  /**
   * Nothing runs yet: see `launch`.
   * @param row attachments of the guests of a row, in the order in which frames pass them; the card feeds the first
   * @throws RangeError for guests that can't be joined so, and where the memory is full
   */
  static async create(row: readonly Attach[], o: TestbedOptions): Promise<Testbed> {
    const why = refusal(row, o);
    if (why !== undefined) throw new RangeError(why);
    const chain = row.length;
    const bypass = row.every((attach) => BYPASS.includes(attach));
    // A guest with a vDPDK device, alone in its row, needs no switch: its queues are the card's.
    const bound = isBound(row);
    const count = o.guests * chain;
    const { cardRing = o.ring, queues = 1, flowOffload = true } = o;
    // Of vmdq each guest has a receive queue of the card, full of host buffers.
    const sorted = row.filter((attach) => attach === "vmdq").length * o.guests;
    const buffers = Math.min(65535, 1024 + cardRing * (3 + queues) + sorted * o.ring);
    // Whole pages for each guest; host buffers; the NIC's rings; the tables of each object.
    const guestBytes = Math.ceil((o.ring * 5000 + 64 * 2176) / 65536) * 65536 + o.ring * 300 + 32768;
    // What the card sends of functions, it reads first: all frames of a ring.
    const packetBuffer = bypass ? (o.ring + 64) * FRAME_ROOM : undefined;
    // A pipe's memory has the card's buffers too.
    const pipes = row.filter((attach) => attach === "pipe").length * o.guests;
    const flowsBytes = o.lookup === "flows" ? FLOWS_BYTES : 0;
    const bytes =
      8 * 1024 * 1024 +
      buffers * 2200 +
      count * (guestBytes + o.ring * 64) +
      pipes * (o.ring * 9000 + 262144) +
      (packetBuffer ?? 0) +
      flowsBytes;
    const host = await Host.create({ memory: bytes, buffers, shared: o.lcores !== undefined });
    const nic = host.nic({
      ring: cardRing,
      mappedRing: o.ring,
      ...(packetBuffer ? { packetBuffer, vfs: Math.min(FUNCTIONS_MAX, count) } : {}),
      queues: count + queues,
      rssQueues: queues,
      flowOffload,
      ...(o.nicMode ? { mode: o.nicMode } : {}),
    });
    const rules = o.function === "firewall" ? parseRules(o.rules ?? "") : undefined;
    const guests: Guest[] = [];
    const mac = (i: number) => localMac(0, i + 1);
    for (let g = 0; g < o.guests; g++) {
      for (const [c, attach] of row.entries()) {
        const i = g * chain + c;
        guests.push(
          host.guest({
            attach,
            // A capture has frames of any VLAN.
            ...(attach === "sriov"
              ? { vf: nic.createVf({ mac: mac(i), vlans: "all" }) }
              : bypass
                ? { nic }
                : {}),
            ...(bypass || bound ? { burst: o.burst } : {}),
            run: o.function,
            ring: o.ring,
            mac: mac(i),
            ...(attach === "vhost" && o.zeroCopyTx ? { zeroCopyTx: true } : {}),
            ...(attach === "kernel" && o.napi ? { napi: o.napi } : {}),
            ...(rules ? { rules } : {}),
            ...(chain > 1 ? { nextHop: c + 1 < chain ? mac(i + 1) : WIRE_MAC } : {}),
          }),
        );
      }
    }
    // A guest alone at the end of a pipe is bridged to the card; one in a row has a switch at the pipe's other end.
    const bridged = chain === 1 ? guests.filter(({ attach }) => attach === "pipe") : [];
    const connected = guests.filter((guest) => !bridged.includes(guest));
    const { lookup = "learning" } = o;
    const join = () =>
      host.vswitch({
        connect: [nic, ...connected],
        burst: o.burst,
        ...(lookup === "flows"
          ? { flows: o.flows ?? flowsByMac(guests.map((guest) => guest.mac)) }
          : { lookup: typeof lookup === "function" ? lookup() : lookup }),
      });
    const sw = bypass ? undefined : bound ? host.vmux({ nic, guests }) : join();
    nic.flow.runLines(o.flow ?? "");
    for (const guest of bridged) host.bridge(nic, guest).burst = o.burst;
    const heads = guests.filter((_, i) => i % chain === 0);
    const places = o.lcores && host.shared ? parseLcores(o.lcores) : undefined;
    return new Testbed(host, nic, guests, heads, sw, places);
  }

  /**
   * Lets host and guests handle on this thread what the card has received, and the card what its functions send to each
   * other.
   * @returns milliseconds that host and guests took
   */
  drain(): number {
    let time = 0;
    for (let moved = 1; moved > 0; ) {
      const start = performance.now();
      moved = this.host.drain();
      time += performance.now() - start;
      if (this.sw || this.guests.length === this.heads.length) break;
      this.host.core.exports.toTransmit(this.nic.address);
    }
    return time;
  }

  /** Starts the lcores on workers. @throws LcoreError where one doesn't start */
  async launch(): Promise<void> {
    const { places, host, sw, guests } = this;
    this.#done = (await host.launch(places ? rolesOf(places, sw, guests) : [])).done;
  }

  /** Stops them. @throws LcoreError where one has died */
  async close(): Promise<void> {
    this.host.stop();
    await this.#done;
  }

  /** Frames dropped so far, by reason, wherever that was. */
  drops(): Record<string, number> {
    const { ports, nics, guests, functions } = this.host.stats();
    const drops: Record<string, number> = {};
    for (const part of [...ports, ...nics, ...guests, ...functions]) {
      for (const [reason, n] of Object.entries(part.drops)) drops[reason] = (drops[reason] ?? 0) + n;
    }
    return drops;
  }
}
