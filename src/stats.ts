/** What a host has counted, read from the memory: counters of ports, NICs, guests, mappings and the pool. */
import {
  Driver,
  Drop,
  Fault,
  FunctionDrop,
  PciFunction as FunctionLayout,
  Guest as GuestLayout,
  Kring,
  Mapping,
  Nic as NicLayout,
  Port as PortLayout,
  Refusal,
  RxQueue,
  SlotRefusal,
  VdpdkQueue,
  VdpdkRefusal,
  Virtqueue,
  Vdpdk as VmuxLayout,
} from "../assembly/layout.ts";
import type { VdpdkDevice } from "./attach/vdpdk.ts";
import type { Core } from "./core/core.ts";
import type { HostMemory } from "./core/host-memory.ts";
import { NetmapPort } from "./ports/netmap-port.ts";
import type { NetmapBridge } from "./roles/bridge.ts";
import { Guest } from "./roles/guest.ts";
import type { Nic } from "./roles/nic.ts";
import type { PciFunction } from "./roles/pci-function.ts";
import type { Vmux } from "./roles/vmux.ts";
import type { VSwitch } from "./roles/vswitch.ts";

/** Counters of one port, since the host began. `drops` has only the reasons that occurred. */
export interface PortStats {
  name: string;
  rxPackets: number;
  rxBytes: number;
  txPackets: number;
  txBytes: number;
  /** Copies of frames that the host made to deliver to this port, and their bytes. */
  copies: number;
  copiedBytes: number;
  /** Notifications (interrupts) sent to the guest. */
  notifications: number;
  drops: Record<string, number>;
  /** netmap: how often the user's ring indices broke the rules, and were set back. */
  reinits?: number;
  /** Over vDPDK: frames that the host checked or changed because the card can't, and their bytes. */
  emulated?: number;
  emulatedBytes?: number;
}

/** Counters of a card's function, as the card has them: `rx` is what the guest got. */
export interface FunctionStats {
  name: string;
  /** The guest that has it. */
  guest: string | undefined;
  rxPackets: number;
  rxBytes: number;
  txPackets: number;
  txBytes: number;
  /** Interrupts that the card sent to the guest. */
  notifications: number;
  drops: Record<string, number>;
  /** Rings that the card has stopped, by reason: what the guest put there, or named for DMA, doesn't hold. */
  faults: Record<string, number>;
}

export interface HostStats {
  /** Ports of switches, and bridges. */
  ports: PortStats[];
  nics: {
    rxPackets: number;
    rxBytes: number;
    txPackets: number;
    txBytes: number;
    /** Buffers that the card can receive into now, in its own queues; those in a guest's are in `mappings`. */
    buffers: number;
    /** Of a card with functions: copies that it made from one of them to another, inside itself, and their bytes. */
    cardCopies?: number;
    cardCopiedBytes?: number;
    /** Interrupts that it raised, and polls of its receive queues: each interrupt's handler polls once. */
    interrupts: number;
    polls: number;
    /** Frames whose checksums, tags or segments the card has seen to by itself. */
    offloaded: number;
    drops: Record<string, number>;
  }[];
  /** Functions of cards that guests own: virtual functions, and whole ports. */
  functions: FunctionStats[];
  guests: {
    name: string;
    received: number;
    transmitted: number;
    /** Receive buffers that the guest has posted and hasn't got back. */
    posted: number;
    /** Notifications ("kicks") that the guest sent to the host. */
    kicks: number;
    drops: Record<string, number>;
  }[];
  mappings: {
    guest: string;
    /** Buffers that the card can receive into now, in the guest's queue. */
    buffers: number;
    hits: number;
    misses: number;
    hostBuffers: number;
    unmappable: number;
    scrubbedBytes: number;
  }[];
  /** `buffers` = `available` + `outstanding`; while lcores run each is read at a moment of its own. */
  pool: { buffers: number; available: number; outstanding: number };
}

/** What is counted of a host. */
export interface Counted extends HostMemory {
  readonly buffers: number;
  readonly nics: readonly Nic[];
  readonly guests: readonly Guest[];
  readonly switches: readonly VSwitch[];
  readonly bridges: readonly NetmapBridge[];
  readonly vmuxes: readonly Vmux[];
}

const DROPS: [keyof typeof Drop, string][] = [
  ["FULL", "full"],
  ["NO_BUFFER", "noBuffer"],
  ["TOO_LARGE", "tooLarge"],
  ["RUNT", "runt"],
  ["HAIRPIN", "hairpin"],
  ["VLAN", "vlan"],
  ["LINK_LOCAL", "linkLocal"],
  ["DOWN", "down"],
  ["SPOOFED", "spoofed"],
  ["LOOKUP", "lookup"],
  ["NO_PORT", "noPort"],
  ["LOOKUP_FAILED", "lookupFailed"],
  ["FLOW", "flow"],
  ["CONTROLLER", "controller"],
  ["NO_EGRESS_PORT", "noEgressPort"],
];
const REFUSALS: [keyof typeof Refusal, string][] = [
  ["OUT_OF_REGION", "outOfRegion"],
  ["DIRECTION", "direction"],
  ["TOO_SHORT", "tooShort"],
  ["TOO_LONG", "tooLong"],
  ["INDIRECT", "indirect"],
  ["LOOP", "loop"],
  ["INDEX", "index"],
  ["AVAIL_JUMP", "availJump"],
];

const FUNCTION_DROPS: [FunctionDrop, string][] = [
  [FunctionDrop.NO_BUFFER, "noBuffer"],
  [FunctionDrop.STOPPED, "down"],
  [FunctionDrop.OVERSIZE, "tooLarge"],
  [FunctionDrop.RUNT, "runt"],
  [FunctionDrop.SPOOFED, "spoofed"],
  [FunctionDrop.VLAN, "vlan"],
  [FunctionDrop.HAIRPIN, "hairpin"],
  [FunctionDrop.LINK_LOCAL, "linkLocal"],
];
const FAULTS: [Fault, string][] = [
  [Fault.ADDRESS, "address"],
  [Fault.UNMAPPED, "unmapped"],
  [Fault.LENGTH, "length"],
  [Fault.CHAIN, "chain"],
  [Fault.TAIL, "tail"],
];
const SLOT_REFUSALS: [keyof typeof SlotRefusal, string][] = [
  ["INDEX", "bufIdx"],
  ["OWNER", "owner"],
  ["LENGTH", "length"],
  ["INDIRECT", "indirectPtr"],
  ["FRAGMENTS", "fragments"],
];
const VDPDK_REFUSALS: [keyof typeof VdpdkRefusal, string][] = [
  ["OUT_OF_REGION", "outOfRegion"],
  ["LENGTH", "length"],
  ["CHAIN", "chain"],
  ["STALE", "stale"],
  ["OFFLOAD", "offload"],
];

/** All counters as they are now. */
export function readStats(host: Counted): HostStats {
  const { core, pool } = host;
  return {
    ports: [
      ...host.switches.flatMap((sw) => sw.ports.map((port) => portStats(core, port))),
      ...host.bridges.map(({ port, guest }) =>
        portStats(core, { name: guest.name, address: port, of: guest }),
      ),
      ...host.vmuxes.flatMap((vmux) => vmuxStats(core, vmux)),
    ],
    nics: host.nics.map((nic) => nicStats(core, nic)),
    functions: host.nics.flatMap(({ functions }) => functions.map((one) => functionStats(core, one))),
    guests: host.guests.map((guest) => guestStats(core, guest)),
    mappings: host.guests.filter((guest) => guest.mapping).map((guest) => mappingStats(core, guest)),
    pool: {
      buffers: host.buffers,
      available: core.exports.poolAvailable(pool),
      outstanding: core.exports.poolOutstanding(pool),
    },
  };
}

function portStats(core: Core, { name, address, of }: VSwitch["ports"][number]): PortStats {
  const count = (field: PortLayout) => core.counter(address + field);
  const queues = of instanceof Guest && of.virtio ? [of.rxVirtqueue, of.txVirtqueue] : [];
  const vdpdk = of instanceof Guest && of.vdpdk ? vdpdkStats(core, name, of.vdpdk) : undefined;
  const ofQueues = (offset: number) => queues.reduce((n, vq) => n + core.counter(vq + offset), 0);
  const krings = (of instanceof Guest ? of.netmap?.krings : of instanceof NetmapPort ? of.krings : []) ?? [];
  const ofKrings = (offset: number) => krings.reduce((n, kring) => n + core.counter(kring + offset), 0);
  const dropped = DROPS.map(([key, label]): [string, number] => [
    label,
    count(PortLayout.drops + 8 * Drop[key]),
  ]);
  const refused = REFUSALS.map(([key, label]): [string, number] => [
    `refused.${label}`,
    ofQueues(Virtqueue.refusals + 8 * Refusal[key]),
  ]);
  return {
    name,
    rxPackets: count(PortLayout.rxPackets),
    rxBytes: count(PortLayout.rxBytes),
    txPackets: count(PortLayout.txPackets),
    txBytes: count(PortLayout.txBytes),
    copies: count(PortLayout.copies),
    copiedBytes: count(PortLayout.copiedBytes),
    notifications:
      ofQueues(Virtqueue.notifications) + ofKrings(Kring.notifications) + (vdpdk?.notifications ?? 0),
    drops: counted([
      ...dropped,
      ...refused,
      ...SLOT_REFUSALS.map(([key, label]): [string, number] => [
        `refused.${label}`,
        ofKrings(Kring.refusals + 8 * SlotRefusal[key]),
      ]),
      ...refusals(vdpdk),
    ]),
    ...(krings.length > 0 ? { reinits: ofKrings(Kring.reinits) } : {}),
  };
}

/** A port for the queue that the guests share, and one for each guest: `rx` is what the guest sends, `tx` what it gets. */
function vmuxStats(core: Core, { name, address, guests }: Vmux): PortStats[] {
  const shared = {
    name,
    rxPackets: core.counter(address + VmuxLayout.packets),
    rxBytes: 0,
    txPackets: 0,
    txBytes: 0,
    copies: 0,
    copiedBytes: 0,
    notifications: 0,
    drops: counted([["unwanted", core.counter(address + VmuxLayout.unwanted)]]),
  };
  return [shared, ...guests.map((guest) => vdpdkStats(core, guest.name, guest.vdpdk as VdpdkDevice))];
}

/** Of a vDPDK device at a switch, whose drops the port counts: why its queues were ended. */
function refusals(vdpdk: PortStats | undefined): [string, number][] {
  return Object.entries(vdpdk?.drops ?? {}).filter(([reason]) => reason.startsWith("refused."));
}

function vdpdkStats(core: Core, name: string, { rxQueue, txQueue }: VdpdkDevice): PortStats {
  const rx = (field: VdpdkQueue) => core.counter(rxQueue + field);
  const tx = (field: VdpdkQueue) => core.counter(txQueue + field);
  const both = (field: VdpdkQueue) => rx(field) + tx(field);
  return {
    name,
    rxPackets: tx(VdpdkQueue.packets),
    rxBytes: tx(VdpdkQueue.bytes),
    txPackets: rx(VdpdkQueue.packets),
    txBytes: rx(VdpdkQueue.bytes),
    copies: both(VdpdkQueue.copies),
    copiedBytes: both(VdpdkQueue.copiedBytes),
    notifications: both(VdpdkQueue.notifications),
    emulated: both(VdpdkQueue.emulated),
    emulatedBytes: both(VdpdkQueue.emulatedBytes),
    drops: counted([
      ["full", both(VdpdkQueue.droppedFull)],
      ["noBuffer", both(VdpdkQueue.droppedNoBuffer)],
      ["down", both(VdpdkQueue.droppedDown)],
      ...VDPDK_REFUSALS.map(([key, label]): [string, number] => [
        `refused.${label}`,
        both(VdpdkQueue.refusals + 8 * VdpdkRefusal[key]),
      ]),
    ]),
  };
}

function nicStats(core: Core, nic: Nic): HostStats["nics"][number] {
  const count = (field: NicLayout) => core.counter(nic.address + field);
  const queues = Array.from({ length: core.u32(nic.address + NicLayout.rxQueues) }, (_, i) => nic.rxQueue(i));
  const ofQueues = (field: RxQueue) => queues.reduce((n, queue) => n + core.counter(queue + field), 0);
  const own = queues.filter(
    (queue) => core.u32(queue + RxQueue.mapping) + core.u32(queue + RxQueue.guest) === 0,
  );
  return {
    rxPackets: count(NicLayout.rxPackets),
    rxBytes: count(NicLayout.rxBytes),
    txPackets: count(NicLayout.txPackets),
    txBytes: count(NicLayout.txBytes),
    buffers: own.reduce((n, queue) => n + buffersIn(core, queue), 0),
    ...nic.cardCopies,
    interrupts: ofQueues(RxQueue.interrupts) + ofQueues(RxQueue.pended),
    polls: ofQueues(RxQueue.polls),
    offloaded: count(NicLayout.offloaded),
    drops: counted([
      ["rxNoBuffer", count(NicLayout.rxNoBuffer)],
      ["rxOversize", count(NicLayout.rxOversize)],
      ["rxRunt", count(NicLayout.rxRunt)],
      ["rxStopped", count(NicLayout.rxStopped)],
      ["rxFlowDrop", count(NicLayout.rxFlowDrop)],
      ["rxFlowFull", count(NicLayout.rxFlowFull)],
      ["txMalformed", count(NicLayout.txMalformed)],
    ]),
  };
}

function functionStats(core: Core, { address, name, guest }: PciFunction): FunctionStats {
  const count = (field: FunctionLayout) => core.counter(address + field);
  const table = (at: FunctionLayout, labels: [number, string][]) =>
    counted(labels.map(([i, label]): [string, number] => [label, count(at + 8 * i)]));
  return {
    name,
    guest,
    rxPackets: count(FunctionLayout.rxPackets),
    rxBytes: count(FunctionLayout.rxBytes),
    txPackets: count(FunctionLayout.txPackets),
    txBytes: count(FunctionLayout.txBytes),
    notifications: count(FunctionLayout.interrupts),
    drops: table(FunctionLayout.drops, FUNCTION_DROPS),
    faults: table(FunctionLayout.faults, FAULTS),
  };
}

function guestStats(core: Core, { name, address, device }: Guest): HostStats["guests"][number] {
  const count = (field: GuestLayout) => core.counter(address + field);
  const [rx, tx] = [core.u32(address + GuestLayout.rx), core.u32(address + GuestLayout.tx)];
  return {
    name,
    received: count(GuestLayout.received),
    transmitted: count(GuestLayout.transmitted),
    posted: device.posted?.() ?? core.u32(rx + Driver.size) - core.u32(rx + Driver.freeCount),
    kicks: core.counter(rx + Driver.kicks) + core.counter(tx + Driver.kicks),
    drops: counted([
      ["function", count(GuestLayout.droppedByFunction)],
      ["txFull", count(GuestLayout.droppedTxFull)],
      ["malformed", count(GuestLayout.droppedMalformed)],
    ]),
  };
}

function mappingStats(core: Core, { name, mapping }: Guest): HostStats["mappings"][number] {
  const count = (field: Mapping) => core.counter(mapping + field);
  const queue = core.u32(mapping + Mapping.queue);
  return {
    guest: name,
    buffers: queue ? buffersIn(core, queue) : 0,
    hits: count(Mapping.hits),
    misses: count(Mapping.misses),
    hostBuffers: count(Mapping.hostBuffers),
    unmappable: count(Mapping.unmappable),
    scrubbedBytes: count(Mapping.scrubbedBytes),
  };
}

/** Descriptors of a receive queue that the card can fill: from its head to the driver's tail. */
function buffersIn(core: Core, queue: number): number {
  const head = core.u32(queue + RxQueue.head); // before the tail, which may move on meanwhile
  return (core.u32(queue + RxQueue.tail) - head) >>> 0;
}

/** The entries whose counter isn't 0. */
function counted(entries: [string, number][]): Record<string, number> {
  return Object.fromEntries(entries.filter(([, n]) => n > 0));
}
