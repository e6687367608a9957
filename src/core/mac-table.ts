/** Makes MAC tables (layout: `MacTable`). The core's `setMac` and `removeMac` write static entries. */
import { Kind, MacEntry, MacTable } from "../../assembly/layout.ts";
import type { Access } from "./access.ts";
import type { Core } from "./core.ts";

/** Bytes of a table of `entries`, a power of two, 4 at least. */
export function macTableBytes(entries: number): number {
  return MacTable.entries + entries * MacEntry.SIZE;
}

/** An empty table at `address`, where the memory is zero. */
export function initMacTable(access: Access, address: number, entries: number): void {
  access.setU32(address + MacTable.buckets, Math.floor(entries / MacTable.WAYS));
}

/** Entries of a table in which `addresses` static ones find a place: four share a bucket. */
export function entriesFor(addresses: number): number {
  return Math.min(65536, Math.max(4096, 2 ** Math.ceil(Math.log2(addresses * 64))));
}

/**
 * An empty table of `entries`.
 * @returns its address
 * @throws RangeError naming `what` where the memory is full
 */
export function createMacTable(core: Core, entries: number, what: string, parent: number): number {
  const { address } = core.place(Kind.MAC_TABLE, macTableBytes(entries), what, parent);
  initMacTable(core, address, entries);
  return address;
}
