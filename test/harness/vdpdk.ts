/** A guest that JavaScript plays: it makes ethdev calls and writes descriptors by itself, well or badly. */
import { VdpdkCall, VdpdkDesc, VdpdkFlag } from "../../assembly/layout.ts";
import type { VdpdkDevice } from "../../src/attach/vdpdk.ts";
import type { Guest, Host } from "../../src/index.ts";

export interface Raw {
  addr: bigint;
  len: number;
  flags: number;
  offload: number;
  cookie: bigint;
  tci: number;
  mss: number;
  hash: number;
}

/** Bytes of each buffer, and how many there are. */
const BUFFER = 2048;
const BUFFERS = 96;

/**
 * Takes a guest's device over: its queues get rings of `size` descriptors in the upper half of its memory, where nobody but
 * JavaScript posts.
 */
export class RawGuest {
  readonly device: VdpdkDevice;
  readonly rxRing: number;
  readonly txRing: number;
  readonly buffers: number;
  rxNext = 0;
  rxDone = 0;
  txNext = 0;
  txDone = 0;

  constructor(
    readonly host: Host,
    readonly guest: Guest,
    readonly size: number,
    offloads: { rx?: number; tx?: number } = {},
  ) {
    this.device = guest.vdpdk as VdpdkDevice;
    const half = guest.regionSize / 2;
    this.rxRing = half;
    this.txRing = half + size * VdpdkDesc.SIZE;
    this.buffers = half + 2 * size * VdpdkDesc.SIZE;
    if (this.buffers + BUFFERS * BUFFER > guest.regionSize)
      throw new RangeError("memory: too small for a raw guest");
    this.setUp(offloads);
  }

  setUp({ rx = 0, tx = 0 }: { rx?: number; tx?: number } = {}): void {
    guestStop(this.guest);
    const { region } = this.guest;
    this.host.core.bytes.fill(0, region + this.rxRing, region + this.buffers);
    this.device.run(VdpdkCall.RX_SETUP, { ring: BigInt(this.rxRing), size: this.size, offloads: rx });
    this.device.run(VdpdkCall.TX_SETUP, { ring: BigInt(this.txRing), size: this.size, offloads: tx });
    this.device.run(VdpdkCall.RX_START);
    this.device.run(VdpdkCall.TX_START);
    this.rxNext = this.rxDone = this.txNext = this.txDone = 0;
  }

  /** Guest address of buffer `i`. */
  buffer(i: number): number {
    return this.buffers + (i % BUFFERS) * BUFFER;
  }

  at(ring: number, i: number): number {
    return this.guest.region + ring + (i % this.size) * VdpdkDesc.SIZE;
  }

  write(ring: number, i: number, d: Partial<Raw>): void {
    const { view } = this.host.core;
    const p = this.at(ring, i);
    view.setBigUint64(p + VdpdkDesc.addr, d.addr ?? 0n, true);
    view.setUint32(p + VdpdkDesc.offload, d.offload ?? 0, true);
    view.setBigUint64(p + VdpdkDesc.cookie, d.cookie ?? 0n, true);
    view.setUint16(p + VdpdkDesc.tci, d.tci ?? 0, true);
    view.setUint16(p + VdpdkDesc.mss, d.mss ?? 0, true);
    view.setUint16(p + VdpdkDesc.len, d.len ?? 0, true);
    view.setUint16(p + VdpdkDesc.flags, d.flags ?? 0, true);
  }

  read(ring: number, i: number): Raw {
    const { view } = this.host.core;
    const p = this.at(ring, i);
    return {
      addr: view.getBigUint64(p + VdpdkDesc.addr, true),
      len: view.getUint16(p + VdpdkDesc.len, true),
      flags: view.getUint16(p + VdpdkDesc.flags, true),
      offload: view.getUint32(p + VdpdkDesc.offload, true),
      cookie: view.getBigUint64(p + VdpdkDesc.cookie, true),
      tci: view.getUint16(p + VdpdkDesc.tci, true),
      mss: view.getUint16(p + VdpdkDesc.mss, true),
      hash: view.getUint32(p + VdpdkDesc.hash, true),
    };
  }

  /** Bytes of guest memory. */
  bytes(addr: number, len: number): Uint8Array {
    const { region } = this.guest;
    return this.host.core.bytes.subarray(region + addr, region + addr + len);
  }

  /** Posts `n` receive buffers. */
  post(n: number, len = BUFFER): void {
    for (; n > 0; n--, this.rxNext++) {
      const addr = BigInt(this.buffer(this.rxNext % this.size));
      this.write(this.rxRing, this.rxNext, {
        addr,
        len,
        flags: VdpdkFlag.AVAIL,
        cookie: BigInt(this.rxNext),
      });
    }
  }

  /** The next received frame, its segments joined, and its first descriptor; nothing where there is none. */
  receive(): { frame: Uint8Array; first: Raw } | undefined {
    const parts: Uint8Array[] = [];
    let first: Raw | undefined;
    for (let i = this.rxDone; i !== this.rxNext; i++) {
      const d = this.read(this.rxRing, i);
      if (d.flags & VdpdkFlag.AVAIL) return undefined;
      first ??= d;
      parts.push(this.bytes(Number(d.addr), d.len).slice());
      if (d.flags & VdpdkFlag.NEXT) continue;
      this.rxDone = i + 1;
      return { frame: Uint8Array.from(parts.flatMap((part) => [...part])), first };
    }
    return undefined;
  }

  /** Sends a frame, in segments of `most` bytes. */
  send(frame: Uint8Array, d: Partial<Raw> = {}, most = BUFFER): void {
    for (let at = 0; at < frame.length; at += most, this.txNext++) {
      const part = frame.subarray(at, at + most);
      const buffer = this.buffer(this.size + (this.txNext % (BUFFERS - this.size)));
      this.bytes(buffer, part.length).set(part);
      this.write(this.txRing, this.txNext, {
        ...d,
        addr: BigInt(buffer),
        len: part.length,
        cookie: BigInt(this.txNext),
        flags: VdpdkFlag.AVAIL | (at + most < frame.length ? VdpdkFlag.NEXT : 0),
      });
    }
  }

  /** Descriptors of sent frames that are the guest's again, in order. */
  sent(): number {
    let n = 0;
    while (this.txDone !== this.txNext && !(this.read(this.txRing, this.txDone).flags & VdpdkFlag.AVAIL)) {
      this.txDone++;
      n++;
    }
    return n;
  }
}

/** Both queues stopped, whatever they were. */
function guestStop(guest: Guest): void {
  for (const which of ["rx", "tx"] as const) {
    try {
      guest.ethdev?.stopQueue(which);
    } catch {
      // It was stopped.
    }
  }
}
