import { FlowKey } from "./layout";

/** Toeplitz hash, as cards use it for receive side scaling (Microsoft's RSS specification). */
export class Toeplitz {
  /** Of `n` bytes at `p` under the key at `key`, which is n + 4 bytes long at least. */
  static hash(key: usize, p: usize, n: u32): u32 {
    let window = <u32>bswap<u32>(load<u32>(key));
    let hash: u32 = 0;
    for (let i: u32 = 0; i < n; i++) {
      const byte = <u32>load<u8>(p + i);
      const next = <u32>load<u8>(key + i + 4);
      for (let bit = 7; bit >= 0; bit--) {
        if ((byte >> bit) & 1) hash ^= window;
        window = (window << 1) | ((next >> bit) & 1);
      }
    }
    return hash;
  }

  /** Of a flow key as `Parse.flow` writes it: addresses and ports in the specification's order. */
  static flow(key: usize, flow: usize, scratch: usize): u32 {
    const bytes: u32 = load<u8>(flow, FlowKey.family) == 6 ? 16 : 4;
    memory.copy(scratch, flow, bytes);
    memory.copy(scratch + bytes, flow + FlowKey.destination, bytes);
    store<u32>(scratch + 2 * bytes, load<u32>(flow, FlowKey.sourcePort));
    return Toeplitz.hash(key, scratch, 2 * bytes + 4);
  }
}
