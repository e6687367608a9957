/** The Internet checksum (RFC 1071). */
export class Checksum {
  /** One's complement sum of `n` bytes, added to `sum`; not folded, not inverted. Big-endian words. */
  static add(sum: u64, p: usize, n: u32): u64 {
    let i: u32 = 0;
    for (; i + 4 <= n; i += 4) sum += bswap<u32>(load<u32>(p + i));
    if (i + 2 <= n) {
      sum += <u64>(<u32>bswap<u16>(load<u16>(p + i)));
      i += 2;
    }
    if (i < n) sum += (<u64>load<u8>(p + i)) << 8;
    return sum;
  }

  /** Folds to 16 bits and inverts: what stands in the header. */
  static finish(sum: u64): u32 {
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return <u32>sum ^ 0xffff;
  }

  static of(p: usize, n: u32): u32 {
    return Checksum.finish(Checksum.add(0, p, n));
  }

  /** Sum of the pseudo-header of TCP and UDP over IPv4 (RFC 768) or IPv6 (RFC 8200, 8.1). */
  static pseudo(source: usize, destination: usize, addressBytes: u32, protocol: u32, length: u32): u64 {
    return Checksum.add(
      Checksum.add(<u64>protocol + length, source, addressBytes),
      destination,
      addressBytes,
    );
  }

  /** Writes a checksum in network order. */
  @inline static put(p: usize, value: u32): void {
    store<u16>(p, bswap<u16>(<u16>value));
  }
}
