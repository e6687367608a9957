/** IP addresses: text, and their bytes in network order. */

/** The four bytes of "10.0.0.1"; undefined for anything else. */
export function ipv4Bytes(text: string): Uint8Array | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (!match) return undefined;
  const bytes = new Uint8Array(4);
  for (let i = 0; i < 4; i++) {
    const byte = Number(match[i + 1]);
    if (byte > 255) return undefined;
    bytes[i] = byte;
  }
  return bytes;
}

/** The sixteen bytes of "2001:db8::1"; undefined for anything else. */
export function ipv6Bytes(text: string): Uint8Array | undefined {
  const halves = text.split("::");
  if (halves.length > 2) return undefined;
  const [head = [], tail = []] = halves.map((half) => (half ? half.split(":") : []));
  const zeros = halves.length === 2 ? 8 - head.length - tail.length : 0;
  if (zeros < 0 || (halves.length === 2 && zeros < 1)) return undefined;
  const groups = [...head, ...Array<string>(zeros).fill("0"), ...tail];
  if (groups.length !== 8 || !groups.every((group) => /^[\da-f]{1,4}$/i.test(group))) return undefined;
  return Uint8Array.from(
    groups.flatMap((group) => [Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 255]),
  );
}

/** A mask of `size` bytes whose first `length` bits are set. */
export function prefixMask(length: number, size: number): Uint8Array {
  const mask = new Uint8Array(size);
  for (let i = 0; 8 * i < length; i++) mask[i] = 0xff00 >> Math.min(8, length - 8 * i);
  return mask;
}

export function ipv4Text(bytes: Uint8Array): string {
  return bytes.join(".");
}

/** RFC 5952: the longest run of zero groups is left out. */
export function ipv6Text(bytes: Uint8Array): string {
  const groups = Array.from(
    { length: 8 },
    (_, i) => ((bytes[2 * i] as number) << 8) | (bytes[2 * i + 1] as number),
  );
  let from = 0;
  let run = 0;
  for (let i = 0; i < 8; i++) {
    let n = 0;
    while (i + n < 8 && groups[i + n] === 0) n++;
    if (n > run) [from, run] = [i, n];
  }
  const text = (some: number[]) => some.map((group) => group.toString(16)).join(":");
  return run < 2 ? text(groups) : `${text(groups.slice(0, from))}::${text(groups.slice(from + run))}`;
}
