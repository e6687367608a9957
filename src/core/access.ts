/** Typed access to a memory by address. Numbers are little-endian; offsets are those of assembly/layout.ts. */
export class Access {
  readonly bytes: Uint8Array;
  readonly view: DataView;

  /** Views are made once: the memory's size must not change. */
  constructor(readonly memory: WebAssembly.Memory) {
    this.bytes = new Uint8Array(memory.buffer);
    this.view = new DataView(memory.buffer);
  }

  u16(address: number): number {
    return this.view.getUint16(address, true);
  }
  u32(address: number): number {
    return this.view.getUint32(address, true);
  }
  setU16(address: number, value: number): void {
    this.view.setUint16(address, value, true);
  }
  setU32(address: number, value: number): void {
    this.view.setUint32(address, value, true);
  }
  setU64(address: number, value: bigint): void {
    this.view.setBigUint64(address, value, true);
  }
  /** A u64 counter, as a number (exact up to 2^53). */
  counter(address: number): number {
    return this.u32(address) + this.u32(address + 4) * 0x1_0000_0000;
  }

  /** Several u32 fields of the structure at `address`, by their offsets: `{ [Ring.mask]: 255 }`. */
  setFields(address: number, fields: Readonly<Record<number, number>>): void {
    for (const [offset, value] of Object.entries(fields)) this.setU32(address + Number(offset), value);
  }
}

/** `n` rounded up to a multiple of `to`, a power of two. */
export function align(n: number, to: number): number {
  return Math.ceil(n / to) * to;
}
