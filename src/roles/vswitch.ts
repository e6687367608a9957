/** The switch (layout: `Switch`, `Port`): over NICs, guests and ports of JavaScript, a learning bridge or as a lookup says. */
import {
  BURST_MAX,
  Guest as GuestLayout,
  Kind,
  Lookup as LookupKind,
  MacTable,
  PortKind,
  Port as PortLayout,
  RTE_FLOW_MARK,
  Switch as SwitchLayout,
} from "../../assembly/layout.ts";
import { map, unmap } from "../attach/iovtee.ts";
import { interruptHost } from "../attach/kernel.ts";
import { sortTo } from "../attach/vmdq.ts";
import { lend, takeBackLent } from "../attach/zero-copy.ts";
import type { HostMemory } from "../core/host-memory.ts";
import { LookupBurst, type LookupFunction } from "../core/lookup.ts";
import { createMacTable, entriesFor } from "../core/mac-table.ts";
import { Flows, type PacketIn } from "../flows/flows.ts";
import { parseMac } from "../mac.ts";
import { integer, powerOfTwo } from "../options.ts";
import type { FramePort } from "../ports/frame-port.ts";
import { NetmapPort } from "../ports/netmap-port.ts";
import { connected } from "./connected.ts";
import { Guest } from "./guest.ts";
import { Nic } from "./nic.ts";

/**
 * Who says where frames go: the learning bridge, the flow table, or, called once for each burst, a function, or a WebAssembly module on the
 * host's memory (docs/lookup.md).
 */
export type Lookup = "learning" | "flows" | LookupFunction | WebAssembly.Module;
/** What can be at a port of a switch. */
export type Connectable = Nic | Guest | FramePort | NetmapPort;

export interface VSwitchOptions {
  connect: Connectable[];
  /** Frames taken from a port at a time, 1 to 256; default 32. */
  burst?: number;
  /** Entries of the MAC table, a power of two from 4 to 65536; default 4096, more for more than 64 ports; VALE's 1024. */
  macs?: number;
  /** Seconds after which a learned address is forgotten; default 300 (802.1D), over VALE never. */
  ageing?: number;
  /** Default "learning", with `flows` "flows". */
  lookup?: Lookup;
  /**
   * netmap's VALE where its rules differ from a bridge's: 254 ports at most, addresses are forgotten only when their place is
   * needed, a guest's too has to be learned and may be used by others, and 01-80-C2-00-00-0x goes to all.
   */
  vale?: boolean;
  /** Take notice of 802.1Q tags; ports are then set up with `VSwitch.vlan`. */
  vlanAware?: boolean;
  /**
   * Rules in ovs-ofctl's syntax, one a line or an element: frames go where they say, by a flow table. Ports are called by
   * their number or by the name of what is connected. Without: a learning bridge.
   */
  flows?: string | readonly string[];
  /** Rules that the flow table can hold; default 16384, at most 65534. */
  rules?: number;
  /** Called for each frame that a rule sends to the controller, after `Host.poll`, `drain`, or while `run` goes on. */
  onPacketIn?: PacketIn;
}

const KINDS: ReadonlyMap<unknown, LookupKind> = new Map([
  ["learning", LookupKind.LEARNING],
  ["flows", LookupKind.FLOWS],
]);

const ON_WORKER =
  'where a function can\'t go; expected "learning" or a WebAssembly.Module, or the switch on the calling thread';

/** Bytes of a bitmap of all 4096 VLANs. */
const VLANS_BYTES = 512;

/** Ageing time of what never ages: longer than any clock of ours runs. */
const NEVER = 0xffffffff;

/** The switch: a learning bridge, or what its lookup makes of it. */
export class VSwitch {
  readonly address: number;
  /** What is connected, by port number, with the port's address. */
  readonly ports: { name: string; address: number; of: Connectable }[] = [];
  /** @internal Guests that are attached by "vmdq", and the addresses of their queues. */
  readonly sorted = new Map<Guest, number>();
  /** Guests that are mapped, and to which card's queue. */
  readonly #mapped = new Map<Guest, Nic>();
  /** Guests that are to be mapped when their card's driver has no rte_flow rules to follow any more. */
  readonly #unmapped = new Map<Guest, Nic>();
  /** Guests that are stopped, and what they were mapped to. */
  readonly #stopped = new Map<Guest, Nic | undefined>();
  readonly #vale: boolean;
  #lookup: Lookup = "learning";
  /** Directory id and place of the state that the lookup has, if it has one. */
  #state: { id: number; bytes: Uint8Array } | undefined;
  readonly #flows: Flows | undefined;

  /** @internal Use `host.vswitch()`. */
  constructor(
    readonly host: HostMemory,
    readonly name: string,
    options: VSwitchOptions,
  ) {
    const { core } = host;
    const burst = integer("burst", options.burst ?? 32, 1, BURST_MAX);
    this.#vale = options.vale ?? false;
    const entries = this.#vale ? 1024 : entriesFor(options.connect.length);
    const macs = powerOfTwo("macs", options.macs ?? entries, 65536, MacTable.WAYS);
    const { id, address } = core.place(Kind.SWITCH, SwitchLayout.SIZE, "switch");
    this.address = address;
    core.setFields(address, {
      [SwitchLayout.id]: id,
      [SwitchLayout.macs]: createMacTable(core, macs, "switch", id),
      [SwitchLayout.table]: core.place(Kind.BYTES, 4 * SwitchLayout.PORTS_MAX, "switch", id).address,
      [SwitchLayout.burst]: burst,
      [SwitchLayout.ageing]: options.ageing ?? (this.#vale ? NEVER : 300),
      [SwitchLayout.vale]: this.#vale ? 1 : 0,
      [SwitchLayout.pool]: host.pool,
    });
    core.bytes.fill(
      0xff,
      address + SwitchLayout.lists,
      address + SwitchLayout.lists + 4 * SwitchLayout.PORTS_MAX,
    );
    if (options.vlanAware) core.setU32(this.address + SwitchLayout.vlanAware, 1);
    try {
      for (const one of options.connect) this.#add(one);
      for (const one of options.connect) this.#mapTo(one);
      this.#flows = this.#withFlows(options);
      this.#setLookup(options.lookup ?? (this.#flows ? "flows" : "learning"));
    } catch (error) {
      for (const guest of this.#mapped.keys()) this.unmap(guest);
      for (const { of } of this.ports) {
        connected.delete(of);
        if (of instanceof Nic) of.connect(undefined);
        if (of instanceof NetmapPort && of.stack) connected.delete(of.stack);
      }
      throw error;
    }
  }

  /** A flow table, where rules are given. */
  #withFlows({ flows: rules, rules: capacity, onPacketIn }: VSwitchOptions): Flows | undefined {
    if (rules === undefined) return undefined;
    const { core } = this.host;
    const flows = new Flows(this.host, (name) => this.#portNamed(name), capacity);
    flows.onPacketIn = onPacketIn;
    flows.add(rules);
    this.host.afterPoll(() => flows.deliver());
    core.setU32(this.address + SwitchLayout.flows, flows.address);
    return flows;
  }

  /** Number of the port of what has this name. */
  #portNamed(name: string): number | undefined {
    const index = this.ports.findIndex((port) => port.name === name);
    return index < 0 ? undefined : index;
  }

  /**
   * The flow table.
   * @throws RangeError for a switch without one
   */
  get flows(): Flows {
    if (!this.#flows) throw new RangeError(`${this.name}: no flow table, expected host.vswitch({ flows })`);
    return this.#flows;
  }

  /** Whether the switch has a flow table. */
  get hasFlows(): boolean {
    return this.#flows !== undefined;
  }

  /**
   * Connects one more, at the next port number. A guest's MAC address is known from then on; one that is attached by
   * "iovtee" is mapped to the first NIC that is connected, before it or after.
   * @throws RangeError for what is connected already, here or elsewhere, for a guest with the MAC address of another, and
   *   where the memory or the MAC table is full; also where the card has no queue or filter left: then the guest is
   *   connected, and its frames are copied
   */
  connect(of: Connectable): void {
    this.host.paused(() => {
      this.#add(of);
      this.#mapTo(of);
      this.#setUplink();
      this.#flows?.invalidate();
    });
  }

  /** Who says where frames go. May be changed at any time but from within a lookup: the next burst is the new one's. */
  get lookup(): Lookup {
    return this.#lookup;
  }

  /**
   * @throws RangeError for a module that isn't a lookup, and for a function while the switch runs on a worker; then nothing
   *   has changed
   */
  set lookup(lookup: Lookup) {
    this.host.paused(() => this.#setLookup(lookup));
  }

  /** The memory that a lookup in WebAssembly was given as its state: of `stateBytes`, zeros when the lookup is set. */
  get lookupState(): Uint8Array {
    return this.#state?.bytes ?? new Uint8Array();
  }

  #setLookup(lookup: Lookup): void {
    const { core } = this.host;
    let place = 0;
    let state: { id: number; bytes: Uint8Array } | undefined;
    if (lookup instanceof WebAssembly.Module) {
      const added = this.host.addLookup(lookup);
      place = added.place;
      if (added.stateBytes > 0) {
        const { id, address } = core.place(
          Kind.BYTES,
          added.stateBytes,
          `lookup of ${this.name}`,
          core.u32(this.address + SwitchLayout.id),
        );
        state = { id, bytes: core.bytes.subarray(address, address + added.stateBytes) };
      }
    } else if (typeof lookup === "function") {
      if (this.#isAway()) throw new RangeError(`lookup: a function for ${this.name}, ${ON_WORKER}`);
      const burst = new LookupBurst(core, this.address);
      core.lookups.set(this.address, (port, frames) => {
        burst.port = port;
        burst.length = frames;
        lookup(burst);
      });
    } else if (lookup === "flows") {
      if (!this.#flows) throw new RangeError(`${this.name}: no flow table, expected host.vswitch({ flows })`);
    } else if (lookup !== "learning") {
      throw new RangeError(
        `lookup: ${lookup}, expected "learning", "flows", a function or a WebAssembly.Module`,
      );
    }
    if (this.#state) core.exports.free(this.#state.id);
    this.#state = state;
    this.#lookup = lookup;
    core.setFields(this.address, {
      [SwitchLayout.external]: place,
      [SwitchLayout.externalState]: state?.bytes.byteOffset ?? 0,
      [SwitchLayout.lookup]: KINDS.get(lookup) ?? LookupKind.EXTERNAL,
    });
  }

  /** It runs on a worker. */
  #isAway(): boolean {
    return this.host.core.u32(this.address + SwitchLayout.lcore) !== 0;
  }

  /** @internal @throws RangeError for what a worker can't have */
  checkAway(): void {
    if (typeof this.#lookup === "function") {
      throw new RangeError(`lookup: ${this.name} has a function, and was to run on a worker, ${ON_WORKER}`);
    }
  }

  /**
   * Whether the senders of frames that come in by a port are learned; by default they are. A guest's own address is known in
   * any case.
   * @throws RangeError for what isn't connected
   */
  setLearning(of: Nic | Guest | FramePort, on: boolean): void {
    const port = this.ports[this.indexOf(of)];
    if (!port) throw new RangeError(`${of.name}: not connected to this switch`);
    this.host.paused(() => {
      const { core } = this.host;
      core.setU32(port.address + PortLayout.learning, on ? 1 : 0);
      core.setU64(port.address + PortLayout.lastKey, 0n);
    });
  }

  /** A port at the next number. */
  #add(of: Connectable): void {
    const { core, poolId } = this.host;
    const index = this.ports.length;
    if (index === (this.#vale ? SwitchLayout.VALE_PORTS_MAX : SwitchLayout.PORTS_MAX)) {
      throw new RangeError(`${this.name}: ${index} ports already, expected at most as many`);
    }
    const stack = of instanceof NetmapPort ? of.stack : undefined;
    const other = connected.get(of) ?? (stack && connected.get(stack));
    if (other) {
      throw new RangeError(`${of.name}: connected to ${other.name} already, expected to one switch, once`);
    }
    if (of instanceof NetmapPort && of.peer) {
      throw new RangeError(`${of.name}: one end of a pipe, expected a port of its own for a switch`);
    }
    if (of instanceof Guest) {
      if (!of.device.port) {
        throw new RangeError(
          `${of.name}: attached by ${of.attach}, which bypasses a switch, expected no connection to one`,
        );
      }
      const twin = this.ports.find(
        (port) => port.of instanceof Guest && parseMac(port.of.mac) === parseMac(of.mac),
      );
      if (twin)
        throw new RangeError(`mac: ${of.mac} of ${of.name} is that of ${twin.name}, expected one of its own`);
    }
    const all = [...this.ports.map((port) => port.of), of];
    interruptHost(
      all.filter((one) => one instanceof Nic),
      all.filter((one) => one instanceof Guest),
    );
    if (of instanceof Nic) of.connect(this.name);
    const parent = core.u32(this.address + SwitchLayout.id);
    const { id, address } = core.place(Kind.PORT, PortLayout.SIZE, `port of ${of.name}`, parent);
    core.name(id, of.name);
    core.setFields(address, {
      [PortLayout.id]: id,
      [PortLayout.index]: index,
      [PortLayout.takes]: poolId,
      [PortLayout.learning]: 1,
      ...endsOf(of),
    });
    core.setU32(core.u32(this.address + SwitchLayout.table) + 4 * index, address);
    core.setU32(this.address + SwitchLayout.ports, index + 1);
    core.setU32(address + PortLayout.up, 1);
    this.ports.push({ name: of.name, address, of });
    connected.set(of, this);
    if (of instanceof Nic) {
      of.flow.settle = () => this.#deliver(of);
      of.flow.driven = (on) => this.#remap(of, on);
    }
    if (stack) connected.set(stack, this);
    if (!(of instanceof Guest)) return;
    core.setU32(of.address + GuestLayout.burst, of.napi || core.u32(this.address + SwitchLayout.burst));
    if (this.#vale) return;
    if (!this.#setMac(of, 0, index)) {
      throw new RangeError(`macs: no place for ${of.mac} of ${of.name}, expected a larger table`);
    }
  }

  get #vlanAware(): boolean {
    return this.host.core.u32(this.address + SwitchLayout.vlanAware) !== 0;
  }

  /** Maps a guest to the first NIC, or to the first NIC all guests, unless they are; or lends it their transmit buffers. */
  #mapTo(of: Connectable): void {
    const [nic, ...others] = this.ports.map((port) => port.of).filter((one) => one instanceof Nic) as Nic[];
    if (!nic || (of instanceof Nic && others.length > 0)) return;
    for (const guest of of instanceof Nic ? this.ports.map((port) => port.of) : [of]) {
      if (!(guest instanceof Guest)) continue;
      if (guest.mapping && !this.#mapped.has(guest)) this.map(nic, guest);
      if (guest.attach === "vmdq" && !this.sorted.has(guest)) {
        const burst = this.host.core.u32(this.address + SwitchLayout.burst);
        const deliver = () => this.#deliver(nic);
        this.sorted.set(guest, sortTo(nic, guest, this.indexOf(guest), burst, deliver));
      }
      if (guest.zeroCopyTx && !this.#vlanAware) lend(nic, guest);
    }
  }

  /** Number of the port that `of` is connected to; -1 where it isn't. */
  indexOf(of: Connectable): number {
    return this.ports.findIndex((port) => port.of === of);
  }

  /**
   * Maps a receive queue of `nic` to the guest's receive virtqueue (IOVTee, R1): a queue of its own, to which the
   * card's filter steers the guest's MAC address. While the card's driver follows rte_flow rules that waits until it
   * has none.
   * @throws RangeError for a guest that isn't attached by "iovtee", that is stopped or mapped already, or where
   *   the memory or the card's filters are full
   */
  map(nic: Nic, guest: Guest): void {
    if (this.#stopped.has(guest))
      throw new RangeError(`${guest.name}: stopped, expected one that was started`);
    if (nic.flow.isDriven) {
      this.#unmapped.set(guest, nic);
      return;
    }
    this.host.paused(() => map(nic, guest, this.indexOf(guest), () => this.#deliver(nic)));
    this.#mapped.set(guest, nic);
    this.#setUplink();
  }

  /**
   * Undoes `map` (R7): when it returns, the card writes nothing more into the guest's memory. Frames that were
   * received are delivered; the guest's buffers are used by the copying path from then on.
   */
  unmap(guest: Guest): void {
    this.#unmapped.delete(guest);
    const nic = this.#mapped.get(guest);
    if (!nic) return;
    this.host.paused(() => unmap(nic, guest, () => this.#deliver(nic)));
    this.#mapped.delete(guest);
    this.#setUplink();
  }

  /** Of a mapped guest's frames the switch reads few, so it doesn't learn of all stations behind the only card. */
  #setUplink(): void {
    const cards = this.ports.filter(({ of }) => of instanceof Nic);
    const [card] = cards;
    const known = this.#vale || this.#mapped.size === 0 || cards.length > 1 || !card;
    this.host.core.setU32(this.address + SwitchLayout.uplink, known ? 0 : 1 + this.ports.indexOf(card));
  }

  /**
   * Frames that a card's rte_flow rule marked `mark` go to `to`, without a look at their destination, or, without `to`,
   * by their addresses again. A VLAN-aware switch looks at each frame all the same.
   * @throws RangeError for a mark that no rule can give, and for what isn't connected
   */
  forwardMark(mark: number, to?: Nic | Guest | FramePort): void {
    const { core } = this.host;
    integer("mark", mark, 0, RTE_FLOW_MARK - 1);
    const index = to ? this.indexOf(to) : -1;
    if (to && index < 0) throw new RangeError(`${to.name}: not connected to this switch`);
    this.host.paused(() => {
      let marks = core.u32(this.address + SwitchLayout.marks);
      if (!marks) {
        marks = core.place(Kind.BYTES, 2 * RTE_FLOW_MARK, "marks").address;
        core.setU32(this.address + SwitchLayout.marks, marks);
      }
      core.setU16(marks + 2 * mark, index + 1);
    });
  }

  /** The driver of `nic` begins or ends to follow rte_flow rules: guests get copies meanwhile. */
  #remap(nic: Nic, driven: boolean): void {
    for (const [guest, of] of [...(driven ? this.#mapped : this.#unmapped)]) {
      if (of !== nic) continue;
      this.unmap(guest);
      if (driven) this.#unmapped.set(guest, nic);
      else this.map(nic, guest);
    }
  }

  /** Hands on all frames that `nic` has received. */
  #deliver(nic: Nic): void {
    const port = this.ports[this.indexOf(nic)];
    if (port) while (this.host.core.exports.pollPort(this.address, port.address) > 0) {}
  }

  /**
   * The guest's driver resets its device (virtio 1.2, 2.4.1), or the guest goes away: its mapping is undone, and
   * when this returns no byte of its memory is written any more, and it isn't run. Frames that are in its queues are gone;
   * those for it from now on are dropped, counted as `down`.
   * @throws RangeError where a card has yet to send more of its buffers than there are host buffers to save them in; then
   *   it runs on
   */
  stop(guest: Guest): void {
    if (this.#stopped.has(guest)) return;
    const nic = this.#mapped.get(guest) ?? this.#unmapped.get(guest);
    this.host.paused(() => {
      for (const card of this.#lentTo(guest)) takeBackLent(card, guest);
      this.unmap(guest);
      guest.stop();
      this.#stopped.set(guest, nic);
    });
  }

  /**
   * @internal After an lcore has died: `stop` and `start`. What of its buffers the card has yet to send, and no host buffer is
   * left for, the card drops, counted as `txMalformed`.
   */
  restart(guest: Guest): void {
    for (const card of this.#lentTo(guest)) takeBackLent(card, guest, { drop: true });
    this.stop(guest);
    this.start(guest);
  }

  /** Cards that the guest's transmit buffers are lent to. */
  #lentTo(guest: Guest): Nic[] {
    return guest.zeroCopyTx ? this.ports.map(({ of }) => of).filter((of) => of instanceof Nic) : [];
  }

  /** Whether `of` is a guest that isn't stopped. */
  isRunning(of: Connectable): of is Guest {
    return of instanceof Guest && !this.#stopped.has(of);
  }

  /** A stopped guest's driver starts again: with empty queues and all of its buffers, mapped if it was before. */
  start(guest: Guest): void {
    if (!this.#stopped.has(guest)) return;
    const nic = this.#stopped.get(guest);
    this.host.paused(() => {
      guest.start();
      this.#stopped.delete(guest);
      if (nic) this.map(nic, guest);
    });
  }

  /**
   * VLANs of a port: `pvid` for untagged frames (0: none are taken), and what else it is in. Only on a VLAN-aware
   * switch. A guest's MAC address is known in all of them from then on, and no other port can send from it there.
   * @throws RangeError for what isn't connected, for a VLAN outside 1 to 4094, and where the MAC table has no place for
   *   a guest's address; then nothing has changed
   */
  vlan(of: Connectable, pvid: number, tagged: number[] = []): void {
    const index = this.indexOf(of);
    if (index < 0) throw new RangeError(`${of.name}: not connected to this switch`);
    const vlans = [...new Set([...(pvid ? [pvid] : []), ...tagged])];
    for (const vlan of vlans) {
      if (!Number.isInteger(vlan) || vlan < 1 || vlan > 4094)
        throw new RangeError(`VLAN ${vlan}, expected 1 to 4094`);
    }
    this.host.paused(() => this.#setVlans(of, index, pvid, vlans));
  }

  #setVlans(of: Connectable, index: number, pvid: number, vlans: number[]): void {
    const { core } = this.host;
    const port = this.ports[index] as (typeof this.ports)[number];
    let bitmap = core.u32(port.address + PortLayout.vlans);
    if (!bitmap) {
      bitmap = core.place(Kind.BYTES, VLANS_BYTES, "VLAN bitmap").address;
      core.setU32(port.address + PortLayout.vlans, bitmap);
    }
    if (of instanceof Guest && !this.#vale) this.#moveMac(of, index, this.#vlansIn(bitmap), vlans);
    core.bytes.fill(0, bitmap, bitmap + VLANS_BYTES);
    for (const vlan of vlans) {
      const at = bitmap + (vlan >> 3);
      core.bytes[at] = (core.bytes[at] ?? 0) | (1 << (vlan & 7));
    }
    core.setU32(port.address + PortLayout.pvid, pvid);
  }

  /** VLANs in a port's bitmap. */
  #vlansIn(bitmap: number): number[] {
    const { bytes } = this.host.core;
    const all = Array.from({ length: 8 * VLANS_BYTES }, (_, vlan) => vlan);
    return all.filter((vlan) => (bytes[bitmap + (vlan >> 3)] as number) & (1 << (vlan & 7)));
  }

  /**
   * The static entries of the guest at port `index`, from some VLANs to others.
   * @throws RangeError where the table has no place for one; then it is as it was
   */
  #moveMac(guest: Guest, index: number, from: number[], to: number[]): void {
    const left = from.filter((vlan) => !to.includes(vlan));
    const entered = to.filter((vlan) => !from.includes(vlan));
    for (const vlan of left) this.#removeMac(guest, vlan);
    const failed = entered.findIndex((vlan) => !this.#setMac(guest, vlan, index));
    if (failed < 0) return;
    for (const vlan of entered.slice(0, failed)) this.#removeMac(guest, vlan);
    for (const vlan of left) this.#setMac(guest, vlan, index);
    throw new RangeError(
      `macs: no place for ${guest.mac} of ${guest.name} in VLAN ${entered[failed]}, expected a larger table`,
    );
  }

  /** A static entry for the guest at port `index`; false where the table has no place for it. */
  #setMac(guest: Guest, vlan: number, index: number): boolean {
    const { core } = this.host;
    // Whoever has sent from this address within the second is looked up again.
    for (const { address } of this.ports) core.setU64(address + PortLayout.lastKey, 0n);
    return core.exports.setMac(core.u32(this.address + SwitchLayout.macs), parseMac(guest.mac), vlan, index);
  }

  #removeMac(guest: Guest, vlan: number): void {
    const { core } = this.host;
    core.exports.removeMac(core.u32(this.address + SwitchLayout.macs), parseMac(guest.mac), vlan);
  }
}

/** What a port moves frames to and from, and which buffers it takes as they are. */
function endsOf(of: Connectable): Record<number, number> {
  if (of instanceof Nic) {
    return { [PortLayout.kind]: PortKind.NIC, [PortLayout.to]: of.address, [PortLayout.trustsMark]: 1 };
  }
  if (of instanceof Guest) return { ...of.device.port };
  if (of instanceof NetmapPort) return of.port;
  return { [PortLayout.kind]: PortKind.RING, [PortLayout.to]: of.fromHost, [PortLayout.from]: of.toHost };
}
