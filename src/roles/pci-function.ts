/**
 * Functions of a card that guests own (layout: `PciFunction`, `Iommu`): virtual functions, which the host makes and sets up
 * while the card runs, or with passthrough the whole port. What is configured here the guest can't change.
 */
import {
  FRAME_ROOM,
  FUNCTIONS_MAX,
  PciFunction as FunctionLayout,
  FunctionRing,
  IO_PAGE,
  IoAccess,
  Iommu as IommuLayout,
  Kind,
  Nic as NicLayout,
  Packet,
  TxQueue,
  Veb,
} from "../../assembly/layout.ts";
import type { Core, Placed } from "../core/core.ts";
import { createMacTable, entriesFor } from "../core/mac-table.ts";
import { parseMac } from "../mac.ts";
import { integer } from "../options.ts";

/** Descriptors of frames in a card's packet buffer. */
const WIRE_RING = 4096;
/** Bytes of a bitmap of all 4096 VLANs. */
const VLANS_BYTES = 512;
/** 100 Gbit/s. */
const RATE_MAX = 100_000;

/** What the host sets of a virtual function, when it makes it or later. */
export interface VfOptions {
  /** MAC address that frames are sorted by; default "02:00:00:01:00:xx", numbered. */
  mac?: string;
  /**
   * Port VLAN, 1 to 4094: the card tags what the guest sends and strips what it gets, and the guest knows nothing of it. 0,
   * the default: none.
   */
  vlan?: number;
  /** VLANs, 1 to 4094, or all of them, that the guest tags itself, beside its untagged frames; not with `vlan`. Default: none. */
  vlans?: readonly number[] | "all";
  /** Frames from any other source address than `mac` are dropped; default true. */
  spoofCheck?: boolean;
  /** It may ask for frames that aren't its own: see `PciFunction.promiscuous`. Default false. */
  trust?: boolean;
  /** Mbit/s that it may send, up to 100,000; over that its frames wait in its ring. 0, the default: no limit. */
  rate?: number;
  /** Its link is up; default true. Otherwise it gets nothing, and what it sends waits. */
  link?: boolean;
}

/** The guest's memory that a function's DMA reaches, page by page; page 0 begins at guest address 0. */
export class Iommu {
  /** @internal */
  constructor(
    readonly core: Core,
    readonly name: string,
    readonly address: number,
    /** Bytes of the guest's memory. */
    readonly bytes: number,
    /** The card ends the DMA that is under way. */
    readonly flush: () => void,
  ) {}

  /**
   * From now on DMA reaches `bytes` bytes at guest address `address`, to read, to write ("rw": both). Whole pages of 4096.
   * @throws RangeError for what isn't whole pages, or not in the guest's memory
   */
  map(address: number, bytes: number, access: "r" | "w" | "rw" = "rw"): void {
    const bits = (access === "w" ? 0 : IoAccess.READ) | (access === "r" ? 0 : IoAccess.WRITE);
    this.#set(address, bytes, bits);
  }

  /** From now on DMA reaches none of these pages. @throws RangeError as `map` does */
  unmap(address: number, bytes: number): void {
    this.flush();
    this.#set(address, bytes, 0);
  }

  #set(address: number, bytes: number, bits: number): void {
    if (address % IO_PAGE || bytes % IO_PAGE || !(address >= 0) || !(bytes > 0)) {
      throw new RangeError(
        `${this.name}: ${bytes} bytes at guest address ${address}, expected whole pages of ${IO_PAGE}`,
      );
    }
    if (address + bytes > this.bytes) {
      throw new RangeError(
        `${this.name}: ${bytes} bytes at guest address ${address}, expected a region of the guest's ${this.bytes}`,
      );
    }
    const pages = this.core.u32(this.address + IommuLayout.pages);
    this.core.bytes.fill(bits, pages + address / IO_PAGE, pages + (address + bytes) / IO_PAGE);
  }
}

/** What a guest's driver sets up of a ring. */
interface RingFields {
  /** Guest address of its descriptors, and their number, a power of two. */
  address: number;
  size: number;
}

/** A function of a card: what a guest's driver drives. */
export class PciFunction {
  readonly #core: Core;
  readonly #switch: EmbeddedSwitch;
  readonly #placed: Placed[] = [];
  #iommu: Iommu | undefined;
  #mac = "";
  #vlan = 0;
  #vlans: readonly number[] | "all" = [];
  #trust = false;
  #guest: string | undefined;
  #gone = false;

  /** @internal Use `nic.createVf()`. */
  constructor(
    core: Core,
    embedded: EmbeddedSwitch,
    readonly name: string,
    readonly address: number,
    placed: Placed,
    /** Its number on the card, from 1 on; 0 is the host's. */
    readonly index: number,
  ) {
    this.#core = core;
    this.#switch = embedded;
    this.#placed.push(placed);
  }

  get mac(): string {
    return this.#mac;
  }
  get vlan(): number {
    return this.#vlan;
  }
  get vlans(): readonly number[] | "all" {
    return this.#vlans;
  }
  get spoofCheck(): boolean {
    return this.#flag(FunctionLayout.spoofCheck);
  }
  get trust(): boolean {
    return this.#trust;
  }
  get rate(): number {
    return this.#core.u32(this.address + FunctionLayout.rate);
  }
  get link(): boolean {
    return this.#flag(FunctionLayout.up);
  }
  /** What of the guest's memory its DMA reaches: all of it, from the beginning. Undefined before a guest has it. */
  get iommu(): Iommu | undefined {
    return this.#iommu;
  }
  /** Name of the guest that has it. */
  get guest(): string | undefined {
    return this.#guest;
  }
  /** Whether it was destroyed. */
  get gone(): boolean {
    return this.#gone;
  }

  /**
   * Changes what is named, while frames pass.
   * @throws RangeError for a value out of range, a MAC address that another function has in the same VLAN, and where the card
   *   has no place for one more filter; then nothing has changed
   */
  set(options: VfOptions): void {
    if (this.#gone) throw new RangeError(`${this.name}: destroyed, expected a function that there is`);
    const { mac = this.#mac, vlan = this.#vlan, vlans = this.#vlans, rate = this.rate } = options;
    const station = parseMac(mac);
    if (station & 1n || station === 0n) {
      throw new RangeError(`mac: ${mac}, expected the address of one station`);
    }
    for (const one of [...(vlan === 0 ? [] : [vlan]), ...(vlans === "all" ? [] : vlans)]) {
      if (!Number.isInteger(one) || one < 1 || one > 4094) {
        throw new RangeError(`VLAN ${one} of ${this.name}, expected 1 to 4094`);
      }
    }
    if (vlan !== 0 && vlans.length > 0) {
      throw new RangeError(
        `vlans: ${vlans === "all" ? vlans : vlans.join(", ")} of ${this.name} with the port VLAN ${vlan}, expected either`,
      );
    }
    integer("rate", rate, 0, RATE_MAX);
    this.#switch.filter(this, { mac, vlan, vlans });
    this.#mac = mac;
    this.#vlan = vlan;
    this.#vlans = vlans === "all" ? vlans : [...vlans];
    const core = this.#core;
    core.setU64(this.address + FunctionLayout.mac, station);
    core.setFields(this.address, {
      [FunctionLayout.vlan]: vlan,
      [FunctionLayout.vlans]: this.#bitmap(vlans),
      [FunctionLayout.rate]: rate,
      [FunctionLayout.spoofCheck]: +(options.spoofCheck ?? this.spoofCheck),
      [FunctionLayout.up]: +(options.link ?? this.link),
    });
    this.#trust = options.trust ?? this.#trust;
    if (!this.#trust) {
      this.promiscuous = false;
      this.allMulticast = false;
    }
  }

  /**
   * It gets a copy of each frame of its VLANs that comes from the wire, the host or another function.
   * @throws RangeError for a function that isn't trusted
   */
  set promiscuous(on: boolean) {
    this.#ask(FunctionLayout.promiscuous, "promiscuous", on);
    this.#switch.countPromiscuous();
  }
  get promiscuous(): boolean {
    return this.#flag(FunctionLayout.promiscuous);
  }
  /** It gets frames to groups, not only broadcasts. @throws RangeError for a function that isn't trusted */
  set allMulticast(on: boolean) {
    this.#ask(FunctionLayout.allMulticast, "allMulticast", on);
  }
  get allMulticast(): boolean {
    return this.#flag(FunctionLayout.allMulticast);
  }

  #ask(field: FunctionLayout, what: string, on: boolean): void {
    if (on && !this.#trust) throw new RangeError(`${what}: ${this.name} isn't trusted, expected trust: true`);
    this.#core.setU32(this.address + field, +on);
  }

  #flag(field: FunctionLayout): boolean {
    return this.#core.u32(this.address + field) !== 0;
  }

  /** Address of the bitmap of `vlans`; 0 where there are none. */
  #bitmap(vlans: readonly number[] | "all"): number {
    const core = this.#core;
    let bitmap = core.u32(this.address + FunctionLayout.vlans);
    if (!bitmap) {
      if (vlans.length === 0) return 0;
      const placed = core.place(Kind.BYTES, VLANS_BYTES, this.name);
      this.#placed.push(placed);
      bitmap = placed.address;
    }
    core.bytes.fill(vlans === "all" ? 0xff : 0, bitmap, bitmap + VLANS_BYTES);
    for (const vlan of vlans === "all" ? [] : vlans) {
      const at = bitmap + (vlan >> 3);
      core.bytes[at] = (core.bytes[at] ?? 0) | (1 << (vlan & 7));
    }
    return bitmap;
  }

  /**
   * @internal A guest's: the IOMMU lets its DMA reach all of the guest's region, and nothing else.
   * @throws RangeError for one that another guest has, or that was destroyed
   */
  give(guest: string, region: number, bytes: number): void {
    if (this.#gone) throw new RangeError(`${this.name}: destroyed, expected a function that there is`);
    if (this.#guest !== undefined) {
      throw new RangeError(`${this.name}: is ${this.#guest}'s already, expected one guest for each function`);
    }
    const core = this.#core;
    const iommu = core.place(Kind.BYTES, IommuLayout.SIZE, this.name);
    const pages = core.place(Kind.BYTES, bytes / IO_PAGE, this.name);
    this.#placed.push(iommu, pages);
    core.setFields(iommu.address, {
      [IommuLayout.base]: region,
      [IommuLayout.limit]: bytes,
      [IommuLayout.pages]: pages.address,
    });
    core.setU32(this.address + FunctionLayout.iommu, iommu.address);
    this.#iommu = new Iommu(core, this.name, iommu.address, bytes, () => this.#switch.flush());
    this.#iommu.map(0, bytes);
    this.#guest = guest;
  }

  /** @internal Registers of its rings, which the guest's driver writes. */
  get rx(): number {
    return this.address + FunctionLayout.rx;
  }
  get tx(): number {
    return this.address + FunctionLayout.tx;
  }

  /** @internal Address of the card's TxQueue whose `armed` says that the card's side sleeps. */
  get card(): number {
    return this.#core.u32(this.#switch.nic + NicLayout.tx);
  }

  /**
   * @internal The guest's driver starts it: both rings are empty, and the card uses them from now on.
   * @throws RangeError for rings that its DMA doesn't reach
   */
  start(rx: RingFields, tx: RingFields): void {
    if (this.#gone) throw new RangeError(`${this.name}: destroyed, expected a function that there is`);
    this.stop();
    const core = this.#core;
    const bytes = this.#iommu?.bytes ?? 0;
    for (const ring of [rx, tx]) {
      if (ring.address + ring.size * Packet.SIZE > bytes) {
        throw new RangeError(
          `${this.name}: a ring of ${ring.size} at guest address ${ring.address}, expected it in the guest's ${bytes} bytes`,
        );
      }
    }
    for (const [at, { address, size }] of [
      [this.rx, rx],
      [this.tx, tx],
    ] as const) {
      const bell = core.u32(at + FunctionRing.bell);
      core.bytes.fill(0, at, at + FunctionRing.SIZE);
      core.setFields(at, {
        [FunctionRing.ring]: address,
        [FunctionRing.mask]: size - 1,
        [FunctionRing.running]: 1,
        [FunctionRing.bell]: bell,
      });
    }
  }

  /** @internal The guest's driver resets it: from now on the card touches none of its memory. */
  stop(): void {
    if (this.#gone) return;
    this.#switch.flush();
    for (const ring of [this.rx, this.tx]) this.#core.setU32(ring + FunctionRing.running, 0);
  }

  /** @internal The guest's poller, that its interrupts ring for. */
  set bell(poller: number) {
    for (const ring of [this.rx, this.tx]) this.#core.setU32(ring + FunctionRing.bell, poller);
  }

  /** @internal Use `nic.destroyVf()`. Its memory may be handed out again. */
  destroy(): void {
    this.stop();
    this.#gone = true;
    for (const { id } of this.#placed) this.#core.exports.free(id);
  }
}

/** What frames are sorted by. */
type Filter = Required<Pick<VfOptions, "mac" | "vlan" | "vlans">>;

/** VLANs that a function is in, with 0 for untagged frames. */
const vlansOf = ({ vlan, vlans }: Pick<Filter, "vlan" | "vlans">): readonly number[] =>
  vlan === 0 ? [0, ...new Set(vlans === "all" ? [] : vlans)] : [vlan];

/** A card's embedded switch and its functions. */
export class EmbeddedSwitch {
  readonly #core: Core;
  readonly #address: number;
  readonly #functions = new Map<number, PciFunction>();

  /**
   * From now on the wire is sent from the card's packet buffer.
   * @param nic the card's address
   * @param most functions that it may have
   * @param packetBuffer bytes
   * @throws RangeError where the memory is full
   */
  constructor(
    core: Core,
    readonly nic: number,
    readonly name: string,
    readonly most: number,
    packetBuffer: number,
  ) {
    this.#core = core;
    const parent = core.u32(nic + NicLayout.id);
    const { id, address } = core.place(Kind.VEB, Veb.SIZE, name, parent);
    const wire = core.place(Kind.TX_QUEUE, TxQueue.SIZE, name, id);
    core.setFields(wire.address, {
      [TxQueue.id]: wire.id,
      [TxQueue.ring]: core.place(Kind.BYTES, WIRE_RING * Packet.SIZE, name, wire.id).address,
      [TxQueue.mask]: WIRE_RING - 1,
    });
    core.setFields(address, {
      [Veb.id]: id,
      [Veb.table]: core.place(Kind.BYTES, 4 * (most + 1), name, id).address,
      [Veb.macs]: createMacTable(core, entriesFor(most), name, id),
      [Veb.buffer]: core.place(Kind.BYTES, packetBuffer, name, id).address,
      [Veb.bufferBytes]: packetBuffer,
    });
    this.#address = address;
    // What the host has queued so far is read from there like what it queues from now on.
    core.setFields(nic, { [NicLayout.wire]: wire.address, [NicLayout.veb]: address });
  }

  get functions(): readonly PciFunction[] {
    return [...this.#functions.values()];
  }

  /** Copies that the card made from one function to another, and their bytes. */
  get copies(): { cardCopies: number; cardCopiedBytes: number } {
    const count = (field: Veb) => this.#core.counter(this.#address + field);
    return { cardCopies: count(Veb.copies), cardCopiedBytes: count(Veb.copiedBytes) };
  }

  /** A function with the lowest free number. @throws RangeError where there are as many as there may be */
  add(name: (index: number) => string): PciFunction {
    let index = 1;
    while (this.#functions.has(index)) index++;
    if (index > this.most) {
      throw new RangeError(`${this.name}: ${this.most} virtual functions already, expected at most as many`);
    }
    const core = this.#core;
    const placed = core.place(Kind.PCI_FUNCTION, FunctionLayout.SIZE, name(index), core.u32(this.#address));
    core.setFields(placed.address, {
      [FunctionLayout.id]: placed.id,
      [FunctionLayout.nic]: this.nic,
      [FunctionLayout.index]: index,
    });
    const made = new PciFunction(core, this, name(index), placed.address, placed, index);
    this.#functions.set(index, made);
    core.setU32(core.u32(this.#address + Veb.table) + 4 * index, placed.address);
    core.setU32(this.#address + Veb.count, Math.max(index, core.u32(this.#address + Veb.count)));
    return made;
  }

  /** The function has the whole port. */
  own(owner: PciFunction): void {
    this.#core.setU32(this.#address + Veb.owner, owner.address);
  }

  remove(one: PciFunction): void {
    if (one.mac) for (const vlan of vlansOf(one)) this.#removeMac(one.mac, vlan);
    this.#core.setU32(this.#core.u32(this.#address + Veb.table) + 4 * one.index, 0);
    this.#functions.delete(one.index);
    this.countPromiscuous();
  }

  /** Sorts by `to` what goes to the function, in place of what was before. @throws RangeError as `PciFunction.set` does */
  filter(one: PciFunction, to: Filter): void {
    const station = parseMac(to.mac);
    const after = vlansOf(to);
    for (const other of this.functions) {
      if (other === one || !other.mac || parseMac(other.mac) !== station) continue;
      const shared = vlansOf(other).find((vlan) => after.includes(vlan));
      if (shared === undefined) continue;
      const where = shared ? ` in VLAN ${shared}` : "";
      throw new RangeError(`mac: ${to.mac} is that of ${other.name}${where}, expected one of its own`);
    }
    const before = one.mac ? vlansOf(one) : [];
    for (const vlan of before) this.#removeMac(one.mac, vlan);
    const failed = after.findIndex((vlan) => !this.#setMac(to.mac, vlan, one.index));
    if (failed < 0) return;
    for (const vlan of after.slice(0, failed)) this.#removeMac(to.mac, vlan);
    for (const vlan of before) this.#setMac(one.mac, vlan, one.index);
    throw new RangeError(`${this.name}: no place for the filter of ${to.mac} in VLAN ${after[failed]}`);
  }

  countPromiscuous(): void {
    const n = this.functions.filter((one) => one.promiscuous).length;
    this.#core.setU32(this.#address + Veb.promiscuous, n);
  }

  /** The card ends the burst that is under way. */
  flush(): void {
    this.#core.exports.flushNic(this.nic);
  }

  #setMac(mac: string, vlan: number, index: number): boolean {
    return this.#core.exports.setMac(this.#core.u32(this.#address + Veb.macs), parseMac(mac), vlan, index);
  }
  #removeMac(mac: string, vlan: number): void {
    this.#core.exports.removeMac(this.#core.u32(this.#address + Veb.macs), parseMac(mac), vlan);
  }
}

/** Functions that a card may have at most, and the smallest packet buffer: two of the longest frames. */
export const LIMITS = { functions: FUNCTIONS_MAX, packetBuffer: 4 * FRAME_ROOM } as const;
