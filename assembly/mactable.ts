/**
 * MAC table (layout: `MacTable`): 4-way buckets of one cache line, found by a multiplicative hash.
 * Bounded work whatever the addresses are: who floods it with sources can only push out entries of the
 * same bucket, and never a static one. An entry that is too old stays until its place is needed: it is the first to go.
 */
import { MacEntry, MacTable } from "./layout";

export class Macs {
  /** MAC as read from a frame (first byte lowest), and VLAN. */
  @inline static key(mac: u64, vlan: u32): u64 {
    return mac | ((<u64>vlan) << 48) | (1 << 60);
  }

  @inline static bucket(table: usize, key: u64): usize {
    const buckets = load<u32>(table, MacTable.buckets);
    const h = <u32>(((key ^ (key >> 32)) * 0x9e3779b97f4a7c15) >> 40);
    return table + MacTable.entries + (h & (buckets - 1)) * (MacTable.WAYS * MacEntry.SIZE);
  }

  /**
   * The entry with this key, or 0. As a rule it is the first of its bucket; else all keys are compared at once, since which
   * one it is can't be predicted.
   */
  @inline static find(table: usize, key: u64): usize {
    const b = Macs.bucket(table, key);
    if (load<u64>(b, MacEntry.key) == key) return b;
    const wanted = i64x2.splat(key);
    const front = v128.shuffle<u64>(v128.load(b), v128.load(b, MacEntry.SIZE), 0, 2);
    const back = v128.shuffle<u64>(v128.load(b, 2 * MacEntry.SIZE), v128.load(b, 3 * MacEntry.SIZE), 0, 2);
    const equal = i64x2.bitmask(i64x2.eq(front, wanted)) | (i64x2.bitmask(i64x2.eq(back, wanted)) << 2);
    return equal ? b + ctz<u32>(equal) * MacEntry.SIZE : 0;
  }

  /**
   * Inserts a key that isn't there: in a free place, else in that of the oldest entry that isn't static.
   * Returns the entry, or 0 when all four are static.
   */
  static insert(table: usize, key: u64, value: u32, stamp: u32): usize {
    const b = Macs.bucket(table, key);
    let place: usize = 0;
    let oldest: u32 = MacEntry.STATIC;
    for (let i: u32 = 0; i < <u32>MacTable.WAYS; i++) {
      const e = b + i * MacEntry.SIZE;
      if (!load<u64>(e, MacEntry.key)) {
        place = e;
        store<u32>(table, load<u32>(table, MacTable.used) + 1, MacTable.used);
        break;
      }
      const age = load<u32>(e, MacEntry.stamp);
      if (age < oldest) {
        oldest = age;
        place = e;
      }
    }
    if (place) {
      store<u64>(place, key, MacEntry.key);
      store<u32>(place, value, MacEntry.value);
      store<u32>(place, stamp, MacEntry.stamp);
    }
    return place;
  }

  /** Inserts or changes a static entry. False when the bucket holds four other static ones. */
  static set(table: usize, key: u64, value: u32): bool {
    const e = Macs.find(table, key);
    if (!e) return Macs.insert(table, key, value, MacEntry.STATIC) != 0;
    store<u32>(e, value, MacEntry.value);
    store<u32>(e, MacEntry.STATIC, MacEntry.stamp);
    return true;
  }

  static remove(table: usize, key: u64): void {
    const e = Macs.find(table, key);
    if (!e) return;
    store<u64>(e, 0, MacEntry.key);
    store<u32>(table, load<u32>(table, MacTable.used) - 1, MacTable.used);
  }
}
