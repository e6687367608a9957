import { FlowKey } from "./layout";

/** Toeplitz hash, as cards use it for receive side scaling (Microsoft's RSS specification). */
export class Toeplitz {
  /** Of `n` bytes at `p`, a multiple of 4, under the key at `key`, which is n + 4 bytes long at least. */
  static hash(key: usize, p: usize, n: u32): u32 {
    let hash: u32 = 0;
    for (let i: u32 = 0; i < n; i += 4) {
      const window = bswap<u64>(load<u64>(key + i));
      // Each bit that is set adds the 32 bits of the key that begin where it stands.
      for (let word = bswap<u32>(load<u32>(p + i)); word; word &= word - 1)
        hash ^= <u32>(window >> (1 + ctz<u32>(word)));
    }
    return hash;
  }

  /** Of a flow key as `Parse.flow` writes it: addresses and ports in the specification's order. */
  static flow(key: usize, flow: usize, scratch: usize): u32 {
    let bytes: u32 = 4;
    if (load<u8>(flow, FlowKey.family) == 6) {
      bytes = 16;
      v128.store(scratch, v128.load(flow, FlowKey.source));
      v128.store(scratch, v128.load(flow, FlowKey.destination), 16);
    } else {
      store<u32>(scratch, load<u32>(flow, FlowKey.source));
      store<u32>(scratch, load<u32>(flow, FlowKey.destination), 4);
    }
    store<u32>(scratch + 2 * bytes, load<u32>(flow, FlowKey.sourcePort));
    return Toeplitz.hash(key, scratch, 2 * bytes + 4);
  }
}
