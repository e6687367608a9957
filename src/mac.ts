/** MAC addresses: "02:00:00:00:00:01", and the core's form, a u64 with the first byte lowest. */

/** @throws RangeError naming what it read */
export function parseMac(text: string): bigint {
  const parts = text.split(":");
  if (parts.length !== 6 || !parts.every((part) => /^[0-9a-f]{2}$/i.test(part))) {
    throw new RangeError(`MAC address "${text}", expected six hexadecimal bytes as in 02:00:00:00:00:01`);
  }
  return parts.reduceRight((mac, part) => (mac << 8n) | BigInt(Number.parseInt(part, 16)), 0n);
}

export function formatMac(mac: bigint): string {
  const bytes = Array.from({ length: 6 }, (_, i) => Number((mac >> BigInt(8 * i)) & 0xffn));
  return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}

/** A locally administered address, "02:...", numbered. */
export function localMac(kind: number, index: number): string {
  const bytes = [2, 0, 0, kind, index >> 8, index & 0xff];
  return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}
