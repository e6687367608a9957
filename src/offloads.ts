/** Names of what a card does to frames beside moving them (layout: `Offload`). */
import { Offload } from "../assembly/layout.ts";

export type OffloadName =
  | "ipv4Checksum"
  | "udpChecksum"
  | "tcpChecksum"
  | "tso"
  | "vlan"
  | "rss"
  | "multiSegment"
  | "mark";

export const OFFLOADS: Readonly<Record<OffloadName, Offload>> = {
  ipv4Checksum: Offload.IPV4_CHECKSUM,
  udpChecksum: Offload.UDP_CHECKSUM,
  tcpChecksum: Offload.TCP_CHECKSUM,
  tso: Offload.TSO,
  vlan: Offload.VLAN,
  rss: Offload.RSS,
  multiSegment: Offload.MULTI_SEGMENT,
  mark: Offload.MARK,
};

/** @throws RangeError for a name that there isn't */
export function offloadBits(names: readonly OffloadName[]): number {
  return names.reduce((bits, name) => {
    const bit = OFFLOADS[name];
    if (!bit)
      throw new RangeError(`offloads: "${name}", expected some of ${Object.keys(OFFLOADS).join(", ")}`);
    return bits | bit;
  }, 0);
}

export function offloadNames(bits: number): OffloadName[] {
  return (Object.keys(OFFLOADS) as OffloadName[]).filter((name) => bits & OFFLOADS[name]);
}
