/** MAC addresses: "02:00:00:00:00:01", their bytes, and the core's form, a u64 with the first byte lowest. */

/** The six bytes; undefined for anything else. */
export function macBytes(text: string): Uint8Array | undefined {
  const parts = text.split(":");
  if (parts.length !== 6 || !parts.every((part) => /^[0-9a-f]{2}$/i.test(part))) return undefined;
  return Uint8Array.from(parts, (part) => Number.parseInt(part, 16));
}

export function macText(bytes: ArrayLike<number>): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}

/** @throws RangeError naming what it read */
export function parseMac(text: string): bigint {
  const bytes = macBytes(text);
  if (!bytes) {
    throw new RangeError(`MAC address "${text}", expected six hexadecimal bytes as in 02:00:00:00:00:01`);
  }
  return bytes.reduceRight((mac, byte) => (mac << 8n) | BigInt(byte), 0n);
}

export function formatMac(mac: bigint): string {
  return macText(Array.from({ length: 6 }, (_, i) => Number((mac >> BigInt(8 * i)) & 0xffn)));
}

/** A locally administered address, "02:...", numbered. */
export function localMac(kind: number, index: number): string {
  return macText([2, 0, 0, kind, index >> 8, index & 0xff]);
}
