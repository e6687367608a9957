/** A guest (layout: `Guest`): a region of memory, a network device and a network function. */
import {
  BUFFER_ROOM,
  BURST_MAX,
  FRAME_MIN,
  FUNCTION_BUFFER_MIN,
  GuestFunction,
  Guest as GuestLayout,
  HEADROOM,
  Kind,
  LINE,
  NetHeader,
  PAGE,
  Packet,
  QUEUE_MAX,
  Rule,
  VDPDK_BUFFER_MIN,
} from "../../assembly/layout.ts";
import type { GuestDevice } from "../attach/device.ts";
import type { Attach } from "../attach/names.ts";
import { NativeDevice, nativeBytes } from "../attach/native.ts";
import { NetmapDevice, netmapBytes, pipeBuffers } from "../attach/netmap.ts";
import { VdpdkDevice, type VdpdkOptions, vdpdkBytes } from "../attach/vdpdk.ts";
import { VirtioDevice, type VirtioOptions, virtioBytes } from "../attach/virtio.ts";
import { align } from "../core/access.ts";
import type { HostMemory } from "../core/host-memory.ts";
import { writePacket } from "../core/packet.ts";
import { localMac, parseMac } from "../mac.ts";
import { integer, powerOfTwo } from "../options.ts";
import type { FirewallRule } from "../rules.ts";
import { Ethdev } from "./ethdev.ts";
import type { Nic } from "./nic.ts";
import type { PciFunction } from "./pci-function.ts";

export type { Attach } from "../attach/names.ts";
export type FunctionName = "macswap" | "l2fwd" | "echo" | "firewall" | "sink";

export interface GuestOptions extends VirtioOptions, VdpdkOptions {
  /** Default "iovtee". */
  attach?: Attach;
  run?: FunctionName;
  /** Default "02:00:00:00:xx:xx", numbered. */
  mac?: string;
  /** Descriptors in each queue, a power of two up to 1024; default 256. */
  ring?: number;
  /** Bytes of the guest's memory, whole pages of 64 KiB; default what its rings and buffers take. */
  memory?: number;
  /** Frames that it takes at a time, 1 to 256; default 32. At a switch it is the switch's. */
  burst?: number;
  /** Bytes of one buffer of the guest's, headroom included; default 2176. */
  bufferSize?: number;
  /** "passthrough": the card whose port the guest gets. "sriov": the card that makes a virtual function for its MAC address. */
  nic?: Nic;
  /** "sriov": a virtual function that was made for it, whose MAC address is then the guest's. */
  vf?: PciFunction;
  /** MAC address that every frame is sent on to: the next guest of a chain. */
  nextHop?: string;
  ipv4?: string;
  rules?: FirewallRule[];
}

const FUNCTIONS: Record<FunctionName, GuestFunction> = {
  sink: GuestFunction.SINK,
  macswap: GuestFunction.MACSWAP,
  l2fwd: GuestFunction.L2FWD,
  echo: GuestFunction.ECHO,
  firewall: GuestFunction.FIREWALL,
};

/** A guest: a region of memory, a network device with its driver, and a network function. */
export class Guest {
  readonly address: number;
  readonly attach: Attach;
  readonly mac: string;
  /** Address and bytes of its memory: guest address 0 is `region`. */
  readonly region: number;
  readonly regionSize: number;
  readonly ring: number;
  /** Its network device, as the attachment makes it. */
  readonly device: GuestDevice;

  /** @internal Use `host.guest()`. */
  constructor(
    readonly host: HostMemory,
    readonly name: string,
    index: number,
    options: GuestOptions,
  ) {
    const { core } = host;
    this.attach = options.attach ?? "iovtee";
    this.mac = options.mac ?? options.vf?.mac ?? localMac(0, index + 1);
    this.ring = powerOfTwo("ring", options.ring ?? 256, QUEUE_MAX);
    const native = this.attach === "passthrough" || this.attach === "sriov";
    const onNetmap = this.attach === "netmap" || this.attach === "pipe";
    const onVdpdk = this.attach === "vdpdk";
    const header = native || onNetmap || onVdpdk ? 0 : NetHeader.SIZE;
    const least = native ? FUNCTION_BUFFER_MIN : onVdpdk ? VDPDK_BUFFER_MIN : header + FRAME_MIN;
    const bufferSize = integer("bufferSize", options.bufferSize ?? HEADROOM + BUFFER_ROOM, least, 65535);
    const areas = align(ringBytes(this.attach, this.ring, options), LINE);
    const shared = this.attach === "pipe" ? pipeBuffers(this.ring) : 0;
    const wanted = areas + (2 * this.ring + 64 + shared) * bufferSize;
    this.regionSize = Math.ceil((options.memory ?? wanted) / PAGE) * PAGE;
    const buffers = Math.min(65535, Math.floor((this.regionSize - areas) / bufferSize));
    if (buffers < 1) {
      throw new RangeError(
        `memory: ${this.regionSize} bytes for ${name}, expected ${areas + bufferSize} at least for a ring of ${this.ring}`,
      );
    }
    // Before anything is placed: it says what can't be attached so.
    const pciFunction = native ? functionOf(this.attach, this.mac, options) : undefined;
    const region = core.place(Kind.REGION, this.regionSize, name, 0, PAGE);
    this.region = region.address;
    core.name(region.id, name);
    // A net header ends where the frame begins, on a cache line of its own.
    const before = bufferSize >= HEADROOM + LINE ? HEADROOM - header : 0;
    const first = { address: this.region + areas + before, stride: bufferSize, room: bufferSize - before };
    const memory = {
      core,
      name,
      region,
      regionSize: this.regionSize,
      buffers: { ...first, count: buffers },
    };
    if (pciFunction) this.device = new NativeDevice(memory, this.ring, pciFunction);
    else if (onNetmap) this.device = new NetmapDevice(memory, this.ring, this.attach === "pipe", options);
    else if (onVdpdk) this.device = new VdpdkDevice(memory, this.ring, this.mac, options);
    else this.device = new VirtioDevice(memory, this.ring, this.attach, options);
    const guest = core.place(Kind.GUEST, GuestLayout.SIZE, name, region.id);
    this.address = guest.address;
    core.setFields(this.address, {
      [GuestLayout.id]: guest.id,
      [GuestLayout.region]: this.region,
      [GuestLayout.regionSize]: this.regionSize,
      [GuestLayout.driver]: this.device.kind,
      [GuestLayout.rx]: this.device.rx,
      [GuestLayout.tx]: this.device.tx,
      [GuestLayout.free]: core.place(Kind.BYTES, buffers * Packet.SIZE, name, guest.id).address,
      [GuestLayout.bufferCount]: buffers,
      [GuestLayout.bufferSize]: bufferSize,
      [GuestLayout.burst]: integer("burst", options.burst ?? 32, 1, BURST_MAX),
    });
    writePacket(core, this.address + GuestLayout.blank, { addr: first.address, len: first.room, index: 0 });
    if (this.vdpdk) this.vdpdk.guest = this.address;
    this.start();
    core.setU32(this.address + GuestLayout.run, FUNCTIONS[options.run ?? "macswap"]);
    core.setU64(this.address + GuestLayout.mac, parseMac(this.mac));
    if (options.nextHop) this.nextHop = options.nextHop;
    if (options.ipv4) core.bytes.set(options.ipv4.split(".").map(Number), this.address + GuestLayout.ipv4);
    if (options.rules) this.#setRules(options.rules);
  }

  /** Its virtio-net device, where it has one. */
  get virtio(): VirtioDevice | undefined {
    return this.device instanceof VirtioDevice ? this.device : undefined;
  }
  /** Its netmap port, where it has one. */
  get netmap(): NetmapDevice | undefined {
    return this.device instanceof NetmapDevice ? this.device : undefined;
  }
  /** Its vDPDK device, where it has one. */
  get vdpdk(): VdpdkDevice | undefined {
    return this.device instanceof VdpdkDevice ? this.device : undefined;
  }
  /** The ethdev functions of its vDPDK device; nothing where it has none. */
  get ethdev(): Ethdev | undefined {
    return this.vdpdk && new Ethdev(this.host, this.vdpdk);
  }
  /** Device's sides of its virtqueues; 0 where it has none. */
  get rxVirtqueue(): number {
    return this.virtio?.rxVirtqueue ?? 0;
  }
  get txVirtqueue(): number {
    return this.virtio?.txVirtqueue ?? 0;
  }
  /** Packets that it takes for one interrupt; 0 where it polls. */
  get napi(): number {
    return this.virtio?.napi ?? 0;
  }
  /** Its transmit buffers are given to the card as they are. */
  get zeroCopyTx(): boolean {
    return this.virtio?.zeroCopyTx ?? false;
  }
  /** Its IOVTee mapping's directory id and address; 0 unless attached by "iovtee". */
  get mappingId(): number {
    return this.virtio?.mappingId ?? 0;
  }
  get mapping(): number {
    return this.virtio?.mapping ?? 0;
  }

  /**
   * @internal Use `VSwitch.start()`. The driver starts: all buffers are free, both queues are empty and ready, and
   * the first buffers are posted.
   */
  start(): void {
    const { core } = this.host;
    const at = (field: number) => core.u32(this.address + field);
    const [addr, len] = [at(GuestLayout.blank), core.u16(this.address + GuestLayout.blank + Packet.len)];
    this.device.start();
    let free = 0;
    for (let index = at(GuestLayout.bufferCount) - 1; index >= 0; index--) {
      if (!(this.device.isFree?.(index) ?? true)) continue;
      writePacket(core, at(GuestLayout.free) + free++ * Packet.SIZE, {
        addr: addr + index * at(GuestLayout.bufferSize),
        len,
        index,
      });
    }
    core.setU32(this.address + GuestLayout.freeCount, free);
    core.exports.pollGuest(this.address);
  }

  /**
   * @internal Use `VSwitch.stop()`. The driver resets the device: no byte is written for it any more, and all buffers are
   * the guest's.
   */
  stop(): void {
    this.device.stop();
  }

  /**
   * Its driver resets its device and starts again, with empty queues and all of its buffers: what a guest does whose ring the
   * card has stopped.
   * @throws RangeError for a guest at a switch, which `VSwitch.stop()` and `start()` are for, and for one whose function was
   *   destroyed
   */
  reset(): void {
    if (this.device.port) {
      throw new RangeError(`${this.name}: connected by a switch, expected VSwitch.stop() and start()`);
    }
    this.host.paused(() => {
      this.stop();
      this.start();
    });
  }

  /** MAC address that every frame is sent on to. */
  set nextHop(mac: string) {
    this.host.core.setU64(this.address + GuestLayout.nextHop, parseMac(mac));
  }

  #setRules(rules: FirewallRule[]): void {
    const { core } = this.host;
    const bytes = Math.max(1, rules.length) * Rule.SIZE;
    const table = core.place(Kind.BYTES, bytes, this.name, core.u32(this.address)).address;
    core.setFields(this.address, { [GuestLayout.table]: table, [GuestLayout.tableLength]: rules.length });
    rules.forEach((rule, i) => {
      const at = table + i * Rule.SIZE;
      core.bytes[at + Rule.family] = rule.family;
      core.bytes[at + Rule.protocol] = rule.protocol;
      core.bytes[at + Rule.allow] = rule.allow ? 1 : 0;
      core.setU16(at + Rule.sourcePortLow, rule.sourcePorts[0]);
      core.setU16(at + Rule.sourcePortHigh, rule.sourcePorts[1]);
      core.setU16(at + Rule.destinationPortLow, rule.destinationPorts[0]);
      core.setU16(at + Rule.destinationPortHigh, rule.destinationPorts[1]);
      core.bytes.set(rule.source, at + Rule.source);
      core.bytes.set(rule.sourceMask, at + Rule.sourceMask);
      core.bytes.set(rule.destination, at + Rule.destination);
      core.bytes.set(rule.destinationMask, at + Rule.destinationMask);
    });
  }
}

/**
 * The function of a card that a guest with this MAC address gets.
 * @throws RangeError where there is none, or it is another's
 */
function functionOf(attach: Attach, mac: string, { nic, vf }: GuestOptions): PciFunction {
  if (attach === "passthrough") {
    if (!nic || vf) {
      throw new RangeError(
        `attach: "passthrough" with ${vf ? vf.name : "no card"}, expected nic: the guest's card`,
      );
    }
    return nic.passThrough();
  }
  if (!nic === !vf) {
    throw new RangeError(
      `attach: "sriov" with ${vf ? "nic and vf" : "no card"}, expected nic or vf: a card or its function`,
    );
  }
  if (!vf) return (nic as Nic).createVf({ mac });
  if (vf.guest !== undefined) {
    throw new RangeError(`${vf.name}: is ${vf.guest}'s already, expected one guest for each function`);
  }
  if (parseMac(mac) !== parseMac(vf.mac)) {
    throw new RangeError(`mac: ${mac}, expected ${vf.mac} as ${vf.name} has it`);
  }
  return vf;
}

/** Bytes of guest memory that the rings of an attachment take. */
function ringBytes(attach: Attach, ring: number, options: GuestOptions): number {
  if (attach === "passthrough" || attach === "sriov") return nativeBytes(ring);
  if (attach === "netmap" || attach === "pipe") return netmapBytes(ring);
  return attach === "vdpdk" ? vdpdkBytes(ring) : virtioBytes(ring, options);
}
