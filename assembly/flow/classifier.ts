/**
 * Tuple space search (Srinivasan, Suri and Varghese, 1999): rules with equal masks are found by one look in a hash
 * table. Each mask is looked under in turn, those with the highest priorities first, and among these the one that has
 * hit most. Where a rule has been found and no later mask has one of its priority, the search ends. Masks under which no
 * rule has the key's addresses or ports, of which each is looked at once, are left out (layout: `FlowSieve`).
 */
import { FlowMask, FlowRule, FlowSieve, FlowTable } from "../layout";

/**
 * Hashes of masked keys, in four parts: each lane is multiplied by a number of its own, of `FlowTable.factors`: engines make
 * a vector of constants anew wherever it is used.
 */
export class Hash {
  @inline static of(t: usize, a: v128, b: v128, c: v128, d: v128, seed: u32): u32 {
    return Hash.mix(i32x4.add(Hash.three(t, a, b, c), Hash.last(t, d)), seed);
  }

  /** What the first three parts add to a hash; of those that are 0 nothing. */
  @inline static three(t: usize, a: v128, b: v128, c: v128): v128 {
    return i32x4.add(
      i32x4.add(
        i32x4.mul(a, v128.load(t, FlowTable.factors)),
        i32x4.mul(b, v128.load(t, FlowTable.factors + 16)),
      ),
      i32x4.mul(c, v128.load(t, FlowTable.factors + 32)),
    );
  }

  @inline static last(t: usize, d: v128): v128 {
    return i32x4.mul(d, v128.load(t, FlowTable.factors + 48));
  }

  @inline static mix(sum: v128, seed: u32): u32 {
    const x =
      (<u64>i64x2.extract_lane(sum, 0) ^ seed) * 0x9e3779b97f4a7c15 +
      <u64>i64x2.extract_lane(sum, 1) * 0xc2b2ae3d27d4eb4f;
    return <u32>(((x ^ (x >> 32)) * 0xd6e8feb86659fd93) >> 32);
  }

  /** Of the key at `key` under the mask at `mask`. */
  static under(t: usize, key: usize, mask: usize, seed: u32): u32 {
    return Hash.of(
      t,
      v128.and(v128.load(key), v128.load(mask)),
      v128.and(v128.load(key, 16), v128.load(mask, 16)),
      v128.and(v128.load(key, 32), v128.load(mask, 32)),
      v128.and(v128.load(key, 48), v128.load(mask, 48)),
      seed,
    );
  }

  /** Whether the key at `key` is, under the mask at `mask`, the one at `wanted`, which is masked. */
  @inline static matches(key: usize, mask: usize, wanted: usize): bool {
    const a = v128.xor(v128.and(v128.load(key), v128.load(mask)), v128.load(wanted));
    const b = v128.xor(v128.and(v128.load(key, 16), v128.load(mask, 16)), v128.load(wanted, 16));
    const c = v128.xor(v128.and(v128.load(key, 32), v128.load(mask, 32)), v128.load(wanted, 32));
    const d = v128.xor(v128.and(v128.load(key, 48), v128.load(mask, 48)), v128.load(wanted, 48));
    return !v128.any_true(v128.or(v128.or(a, b), v128.or(c, d)));
  }
}

/** Of a slot: the upper half of the hash; the rest is a number + 1. */
const TAG: u32 = 0xffff_0000;

/** Number in a slot whose rule is gone while its bucket was full: others went on to the next bucket. */
const REMOVED: u32 = 0xffff;

/** From so many masks on it pays to go through the sieves first. */
const SIEVED: u32 = 5;

export class Classifier {
  /**
   * The rule of `table` that the key at `key` hits, or 0. Adds the masks that were consulted to `FlowTable.consulted`.
   */
  static lookup(t: usize, key: usize, table: u32): usize {
    const k0 = v128.load(key);
    const k1 = v128.load(key, 16);
    const k2 = v128.load(key, 32);
    const k3 = v128.load(key, 48);
    let c0 = v128.load(t, FlowTable.consulted);
    let c1 = v128.load(t, FlowTable.consulted + 16);
    let c2 = v128.load(t, FlowTable.consulted + 32);
    let c3 = v128.load(t, FlowTable.consulted + 48);
    const index: usize = load<u32>(t, FlowTable.index);
    const indexMask = load<u32>(t, FlowTable.indexMask);
    const rules: usize = load<u32>(t, FlowTable.rules);
    const tags = i32x4.splat(TAG);
    // Few rules look at the last part: IPv6 destinations, and addresses in ARP.
    const whole = v128.any_true(v128.load(t, FlowTable.union + 48));
    const range = load<u32>(load<u32>(t, FlowTable.tables) + table * 4);
    const list: usize = load<u32>(t, FlowTable.masks);
    let best: usize = 0;
    let priority: i32 = -1;
    let order: u32 = 0;
    let where: usize = 0;
    const absent = (range >> 16) - (range & 0xffff) < SIEVED ? 0 : Classifier.sift(t, key);
    const end = list + (range >> 16) * 4;
    for (let at = list + (range & 0xffff) * 4; at != end; at += 4) {
      const mask: usize = load<u32>(at);
      if (<i32>load<u32>(mask, FlowMask.priority) < priority) break;
      const m0 = v128.load(mask);
      const m1 = v128.load(mask, 16);
      const m2 = v128.load(mask, 32);
      c0 = v128.or(c0, m0);
      c1 = v128.or(c1, m1);
      c2 = v128.or(c2, m2);
      let m3 = i64x2.splat(0);
      if (whole) {
        m3 = v128.load(mask, 48);
        c3 = v128.or(c3, m3);
      }
      if (load<u32>(mask, FlowMask.sieves) & absent) continue;
      let sum = Hash.three(t, v128.and(k0, m0), v128.and(k1, m1), v128.and(k2, m2));
      if (whole) sum = i32x4.add(sum, Hash.last(t, v128.and(k3, m3)));
      const h = Hash.mix(sum, load<u32>(mask, FlowMask.seed));
      // Four slots at a time, so that hardly any look finds more than other tags; a full bucket goes on in the next.
      const tag = i32x4.splat(h & TAG);
      for (let i = h & indexMask; ; i = (i + 1) & indexMask) {
        const slots = v128.load(index + i * 16);
        let bits = <u32>i32x4.bitmask(i32x4.eq(v128.and(slots, tags), tag));
        // Of a bucket that ever went on in the next one no slot is free any more: the last one tells.
        const last = i32x4.extract_lane(slots, 3);
        if (!(bits | <u32>last)) break;
        let rule: usize = 0;
        for (; bits; bits &= bits - 1) {
          const number = load<u32>(index + i * 16 + ctz(bits) * 4) & ~TAG;
          if (!number || number == REMOVED) continue;
          const one = rules + (number - 1) * FlowRule.SIZE;
          if (<usize>load<u32>(one, FlowRule.mask) == mask && Hash.matches(key, mask, one)) rule = one;
        }
        if (rule) {
          const its = <i32>load<u32>(rule, FlowRule.priority);
          if (its > priority || (its == priority && load<u32>(rule, FlowRule.order) < order)) {
            best = rule;
            priority = its;
            order = load<u32>(rule, FlowRule.order);
            where = at;
          }
          break;
        }
        if (!last) break;
      }
    }
    v128.store(t, c0, FlowTable.consulted);
    v128.store(t, c1, FlowTable.consulted + 16);
    v128.store(t, c2, FlowTable.consulted + 32);
    v128.store(t, c3, FlowTable.consulted + 48);
    if (best) Classifier.used(where, list + (range & 0xffff) * 4);
    return best;
  }

  /**
   * Appends to the list at `to` where `lookup` will look for the key at `key` in table 0: a bucket's address and the tag that is
   * looked for there. Returns the list's end; at most `FlowTable.AHEAD_EACH` are added.
   */
  static foresee(t: usize, key: usize, to: usize): usize {
    const k0 = v128.load(key);
    const k1 = v128.load(key, 16);
    const k2 = v128.load(key, 32);
    const k3 = v128.load(key, 48);
    const index: usize = load<u32>(t, FlowTable.index);
    const indexMask = load<u32>(t, FlowTable.indexMask);
    const absent = Classifier.sift(t, key);
    const range = load<u32>(load<u32>(t, FlowTable.tables));
    const list: usize = load<u32>(t, FlowTable.masks);
    const full = to + FlowTable.AHEAD_EACH * 8;
    const end = list + (range >> 16) * 4;
    for (let at = list + (range & 0xffff) * 4; at != end && to != full; at += 4) {
      const mask: usize = load<u32>(at);
      if (load<u32>(mask, FlowMask.sieves) & absent) continue;
      const h = Hash.of(
        t,
        v128.and(k0, v128.load(mask)),
        v128.and(k1, v128.load(mask, 16)),
        v128.and(k2, v128.load(mask, 32)),
        v128.and(k3, v128.load(mask, 48)),
        load<u32>(mask, FlowMask.seed),
      );
      store<u32>(to, <u32>index + (h & indexMask) * 16);
      store<u32>(to, h & TAG, 4);
      to += 8;
    }
    return to;
  }

  /**
   * Reads what the buckets of the list from `at` to `end` have, and the first rule with the tag in each, side by side: no
   * look depends on what another finds. The list is overwritten.
   */
  static readAhead(t: usize, at: usize, end: usize): void {
    const rules: usize = load<u32>(t, FlowTable.rules);
    let to = at;
    let found = at;
    for (; at != end; at += 8) {
      const slots: usize = load<u32>(at);
      const tag = i32x4.splat(load<u32>(at, 4));
      const same = i32x4.eq(v128.and(v128.load(slots), i32x4.splat(TAG)), tag);
      const bits = <u32>i32x4.bitmask(same);
      const number = load<u32>(slots + ctz(bits | 8) * 4) & ~TAG;
      store<u32>(found, <u32>rules + (number - 1) * FlowRule.SIZE);
      found += u32(bits != 0) & u32(number - 1 < REMOVED - 1) ? 4 : 0;
    }
    let sum: u32 = 0;
    for (; to != found; to += 4) {
      const rule: usize = load<u32>(to);
      sum ^= load<u32>(rule) ^ load<u32>(rule, FlowRule.priority);
    }
    // So that nobody finds that the loads are for nothing.
    store<u32>(end, sum);
  }

  /** Bits by number of the sieves that hold the key at `key` back. */
  static sift(t: usize, key: usize): u32 {
    let sieve: usize = load<u32>(t, FlowTable.sieves);
    const count = load<u32>(t, FlowTable.sieveCount);
    let absent: u32 = 0;
    for (let i: u32 = 0; i < count; i++, sieve += FlowSieve.SIZE) {
      const bit = Classifier.bit(load<u32>(key + load<u32>(sieve)) & load<u32>(sieve, FlowSieve.mask));
      absent |= (~(<u32>load<u8>(load<u32>(sieve, FlowSieve.bits) + (bit >> 3)) >> (bit & 7)) & 1) << i;
    }
    return absent;
  }

  /** The bit of a sieve for a value. */
  @inline static bit(value: u32): u32 {
    return ((value ^ (value >> 15)) * 0x9e3779b1) >> 16;
  }

  /** The sieves of its mask let the rule's key through. */
  static admit(t: usize, rule: usize): void {
    for (let all = load<u32>(load<u32>(rule, FlowRule.mask), FlowMask.sieves); all; all &= all - 1) {
      const sieve = load<u32>(t, FlowTable.sieves) + ctz(all) * FlowSieve.SIZE;
      const bit = Classifier.bit(load<u32>(rule + load<u32>(sieve)));
      const byte = load<u32>(sieve, FlowSieve.bits) + (bit >> 3);
      store<u8>(byte, load<u8>(byte) | <u8>(u32(1) << (bit & 7)));
    }
  }

  /** The mask at `at` of a list has hit: before one of the same priority that has hit less. */
  static used(at: usize, first: usize): void {
    const mask: usize = load<u32>(at);
    const hits = load<u32>(mask, FlowMask.hits) + 1;
    store<u32>(mask, hits, FlowMask.hits);
    if (at == first) return;
    const before: usize = load<u32>(at - 4);
    if (load<u32>(before, FlowMask.priority) != load<u32>(mask, FlowMask.priority)) return;
    if (load<u32>(before, FlowMask.hits) >= hits) return;
    store<u32>(at, <u32>before);
    store<u32>(at - 4, <u32>mask);
  }

  /** Slot of the rules with this rule's mask and key, or a free one where they may stand. */
  static slot(t: usize, rule: usize): usize {
    const index: usize = load<u32>(t, FlowTable.index);
    const indexMask = load<u32>(t, FlowTable.indexMask);
    const rules: usize = load<u32>(t, FlowTable.rules);
    const mask: usize = load<u32>(rule, FlowRule.mask);
    const h = load<u32>(rule, FlowRule.hash);
    let free: usize = 0;
    let full: bool = true;
    for (let i = h & indexMask; full; i = (i + 1) & indexMask) {
      full = i32x4.all_true(v128.load(index + i * 16));
      for (let slot = index + i * 16; slot != index + i * 16 + 16; slot += 4) {
        const value = load<u32>(slot);
        const number = value & ~TAG;
        if (!value || number == REMOVED) {
          if (!free) free = slot;
        } else if (!((value ^ h) & TAG)) {
          const other = rules + (number - 1) * FlowRule.SIZE;
          if (<usize>load<u32>(other, FlowRule.mask) == mask && Hash.matches(rule, mask, other)) return slot;
        }
      }
    }
    return free;
  }

  @inline static number(t: usize, rule: usize): u32 {
    return <u32>(rule - load<u32>(t, FlowTable.rules)) / FlowRule.SIZE + 1;
  }

  /** A rule that is written but for its hash; there is a free slot. */
  static insert(t: usize, rule: usize): void {
    const mask: usize = load<u32>(rule, FlowRule.mask);
    const priority = load<u32>(rule, FlowRule.priority);
    store<u32>(rule, Hash.under(t, rule, mask, load<u32>(mask, FlowMask.seed)), FlowRule.hash);
    store<u32>(mask, max(load<u32>(mask, FlowMask.priority), priority), FlowMask.priority);
    Classifier.admit(t, rule);
    const slot = Classifier.slot(t, rule);
    const tag = load<u32>(rule, FlowRule.hash) & TAG;
    const taken = load<u32>(slot);
    let link = slot;
    let next: usize = 0;
    if (taken && (taken & ~TAG) != REMOVED) {
      next = load<u32>(t, FlowTable.rules) + ((taken & ~TAG) - 1) * FlowRule.SIZE;
      for (; next && load<u32>(next, FlowRule.priority) >= priority; next = load<u32>(next, FlowRule.next))
        link = next;
    }
    store<u32>(rule, <u32>next, FlowRule.next);
    if (link == slot) store<u32>(slot, tag | Classifier.number(t, rule));
    else store<u32>(link, <u32>rule, FlowRule.next);
  }

  /** Returns whether a slot stays behind that can't be freed: when there are many, all rules are to be inserted anew. */
  static remove(t: usize, rule: usize): bool {
    const slot = Classifier.slot(t, rule);
    const rules: usize = load<u32>(t, FlowTable.rules);
    const next: usize = load<u32>(rule, FlowRule.next);
    const first = rules + ((load<u32>(slot) & ~TAG) - 1) * FlowRule.SIZE;
    if (first != rule) {
      let before = first;
      while (<usize>load<u32>(before, FlowRule.next) != rule) before = load<u32>(before, FlowRule.next);
      store<u32>(before, <u32>next, FlowRule.next);
    } else if (next) store<u32>(slot, (load<u32>(slot) & TAG) | Classifier.number(t, next));
    else {
      const index: usize = load<u32>(t, FlowTable.index);
      const bucket = index + ((slot - index) & ~15);
      const full = i32x4.all_true(v128.load(bucket));
      store<u32>(slot, full ? REMOVED : 0);
      return full;
    }
    return false;
  }
}
