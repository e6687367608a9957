/**
 * rte_flow (DPDK, "Generic flow API"): rules by which a card, or its driver where the card can't, says which queue a frame
 * goes to, what mark it gets, or that it is dropped (layout: `RteFlowTable`, `RteFlow`, `RteFlowKey`).
 *
 *     frame -> key -> | mask by mask, those with the first rules first: hash -> rule | -> queue, mark or drop
 *
 * Tuple space search: rules with the same mask cost one look, however many they are. Of the rules that match, the one
 * with the lowest priority wins, and of equal ones the first that was made.
 */
import { Count } from "./count";
import {
  MacEntry,
  Mapping,
  Nic,
  RTE_FLOW_HEAD,
  RTE_FLOW_MARK,
  RTE_FLOW_QUEUES,
  RteFlow,
  RteFlowAction,
  RteFlowAttribute,
  RteFlowFate,
  RteFlowKey,
  RteFlowMask,
  RteFlowRefusal,
  RteFlowTable,
  RxQueue,
} from "./layout";
import { Macs } from "./mactable";
import { Parse } from "./parse";
import { Rss } from "./rss";
import { Sync } from "./sync";

const TCP: u32 = 6;
const UDP: u32 = 17;
const MAC_BITS: u64 = 0xffff_ffff_ffff;
const FATES: u32 = RteFlowAction.QUEUE | RteFlowAction.RSS | RteFlowAction.DROP | RteFlowAction.PASSTHRU;
const ACTIONS: u32 = FATES | RteFlowAction.MARK | RteFlowAction.COUNT;

/** Looks at another's change, of about a nanosecond each. */
const PATIENCE: u32 = 1_000_000_000;

export class RteFlows {
  // The way of a frame.

  /**
   * What the rules say of a frame whose first `len` bytes are at `frame`, and counts all `bytes` of it for the rule that
   * matches: queue | mark << 16, or RteFlowFate; with FILTERS there may be a mark too.
   */
  static decide(t: usize, frame: usize, len: u32, bytes: u32): u32 {
    RteFlows.key(frame, len, t + RteFlowTable.key);
    let version: u32;
    let rule: usize;
    let verdict: u32;
    do {
      version = RteFlows.settled(t);
      rule = RteFlows.find(t);
      verdict = rule ? RteFlows.verdict(t, rule, frame, len) : <u32>RteFlowFate.FILTERS;
    } while (Sync.load<u32>(t + RteFlowTable.version) != version);
    if (rule) {
      Count.add(rule + RteFlow.hits, 1);
      Count.add(rule + RteFlow.bytes, bytes);
    }
    return verdict;
  }

  /** The table's version between two changes. Of one whose thread has died there is no end: who waits for a second traps. */
  @inline static settled(t: usize): u32 {
    let version = Sync.load<u32>(t + RteFlowTable.version);
    for (let looks: u32 = 0; version & 1; version = Sync.load<u32>(t + RteFlowTable.version))
      if (looks++ == PATIENCE) unreachable();
    return version;
  }

  /**
   * The key of a frame (layout: `RteFlowKey`), of which 14 bytes at least are there. It is written in the words in which it
   * is read: a load over several stores would wait for them.
   */
  static key(frame: usize, len: u32, key: usize): void {
    len = min(len, <u32>RTE_FLOW_HEAD);
    let at: u32 = 12;
    let type = <u32>load<u16>(frame, 12);
    let tag: u64 = 0;
    let tags: u64 = 0; // with the second one's bytes in front
    if (RteFlows.isTag(type) && len >= at + 6) {
      tag = load<u32>(frame + at);
      at += 4;
      type = load<u16>(frame + at);
      tags = 1 << 48;
      if (RteFlows.isTag(type) && len >= at + 6) {
        tags = <u64>load<u32>(frame + at) | (3 << 48);
        at += 4;
        type = load<u16>(frame + at);
      }
    }
    store<u64>(key, load<u64>(frame), RteFlowKey.dst);
    store<u64>(key, <u64>load<u32>(frame, 8) | (tag << 32), 8);
    const ip = frame + at + 2;
    const left = len - at - 2;
    let version: u64 = 0;
    // `l4` to the destination port; flow label, fragment and TCP's flags.
    let upper: u64 = 0;
    let more: u64 = 0;
    let source = i64x2.splat(0);
    let destination = i64x2.splat(0);
    if (type == 0x0008 && left >= 20) {
      const first = <u32>load<u8>(ip);
      const header = (first & 15) * 4;
      if (first >> 4 == 4 && header >= 20 && header <= left) {
        version = 4;
        const protocol = <u32>load<u8>(ip, 9);
        upper = (protocol << 8) | ((<u32>load<u8>(ip, 1)) << 16) | ((<u32>load<u8>(ip, 8)) << 24);
        const fragment = <u64>load<u16>(ip, 6);
        more = fragment << 32;
        source = i32x4.replace_lane(source, 0, load<u32>(ip, 12));
        destination = i32x4.replace_lane(destination, 0, load<u32>(ip, 16));
        // 13 bits of offset: only the first fragment has what is behind.
        const l4 = ip + header;
        if (!(fragment & 0xff1f) && RteFlows.isWhole(protocol, left - header)) {
          upper |= protocol | ((<u64>load<u32>(l4)) << 32);
          if (protocol == TCP) more |= (<u64>load<u8>(l4, 13)) << 48;
        }
      }
    } else if (type == 0xdd86 && left >= 40 && load<u8>(ip) >> 4 == 6) {
      version = 6;
      const first = Parse.be32(ip);
      upper = ((<u32>load<u8>(ip, 6)) << 8) | (((first >> 20) & 0xff) << 16) | ((<u32>load<u8>(ip, 7)) << 24);
      more = bswap<u32>(first & 0xf_ffff);
      source = v128.load(ip, 8);
      destination = v128.load(ip, 24);
      const end = Parse.upper(ip, left);
      const protocol = end & 0xff;
      const l4 = ip + (end >> 16);
      if (!(end & (Parse.CUT | Parse.LATER)) && RteFlows.isWhole(protocol, left - (end >> 16))) {
        upper |= protocol | ((<u64>load<u32>(l4)) << 32);
        if (protocol == TCP) more |= (<u64>load<u8>(l4, 13)) << 48;
      }
    }
    store<u64>(key, tags | ((<u64>type) << 32) | (version << 56), RteFlowKey.tpid2);
    store<u64>(key, upper, RteFlowKey.l4);
    store<u64>(key, i64x2.extract_lane(source, 0), RteFlowKey.source);
    store<u64>(key, i64x2.extract_lane(source, 1), RteFlowKey.source + 8);
    store<u64>(key, i64x2.extract_lane(destination, 0), RteFlowKey.destination);
    store<u64>(key, i64x2.extract_lane(destination, 1), RteFlowKey.destination + 8);
    store<u64>(key, more, RteFlowKey.label);
  }

  /** 0x8100 or 0x88a8, as it stands in memory. */
  @inline static isTag(type: u32): bool {
    return type == 0x0081 || type == 0xa888;
  }

  /** Whether `left` bytes hold a whole header of TCP or UDP. */
  @inline static isWhole(protocol: u32, left: u32): bool {
    return (protocol == UDP && left >= 8) || (protocol == TCP && left >= 20);
  }

  /** The rule that the key in the table's scratch meets, or 0. */
  static find(t: usize): usize {
    const key = t + RteFlowTable.key;
    const buckets: usize = load<u32>(t, RteFlowTable.buckets);
    let best: usize = 0;
    let rank: u64 = u64.MAX_VALUE;
    let at = t + RteFlowTable.order;
    for (const end = at + load<u32>(t, RteFlowTable.maskCount); at != end; at++) {
      const number = <u32>load<u8>(at);
      const m = RteFlows.maskAt(t, number);
      if (load<u64>(m, RteFlowMask.best) > rank) break;
      let hash = RteFlows.seed(number);
      const words = m + RteFlowMask.words;
      const last = words + load<u8>(m, RteFlowMask.wordCount);
      for (let w = words; w != last; w++) {
        const word = <usize>load<u8>(w);
        hash = RteFlows.mix(hash, load<u64>(key + word) & load<u64>(m + word));
      }
      let index = <u32>load<u16>(buckets + RteFlows.bucket(t, hash) * 2);
      while (index) {
        const rule = RteFlows.ruleAt(t, index);
        if (load<u64>(rule, RteFlow.rank) > rank) break;
        if (load<u16>(rule, RteFlow.under) == <u16>number) {
          let differ: u64 = 0;
          for (let w = words; w != last; w++) {
            const word = <usize>load<u8>(w);
            differ |= (load<u64>(key + word) & load<u64>(m + word)) ^ load<u64>(rule + word, RteFlow.spec);
          }
          if (!differ) {
            best = rule;
            rank = load<u64>(rule, RteFlow.rank);
            break;
          }
        }
        index = load<u16>(rule, RteFlow.next);
      }
    }
    return best;
  }

  /** Where a rule sends a frame. */
  static verdict(t: usize, rule: usize, frame: usize, len: u32): u32 {
    const actions = load<u32>(rule, RteFlow.actions);
    if (actions & RteFlowAction.DROP) return RteFlowFate.DROP;
    const mark: u32 =
      actions & RteFlowAction.MARK ? (RTE_FLOW_MARK | load<u32>(rule, RteFlow.markId)) << 16 : 0;
    const nic: usize = load<u32>(t, RteFlowTable.nic);
    let queue: u32;
    if (actions & RteFlowAction.QUEUE) queue = load<u32>(rule, RteFlow.queue);
    else if (actions & RteFlowAction.RSS) {
      const hashed = Rss.entry(nic, frame, len, t + RteFlowTable.rss);
      const entry: u32 = hashed < 0 ? 0 : hashed;
      const n = load<u32>(rule, RteFlow.queueCount);
      queue = n
        ? load<u16>(rule + (entry % n) * 2, RteFlow.queues)
        : hashed < 0
          ? 0
          : load<u8>(load<u32>(nic, Nic.rssTable) + entry);
    } else return RteFlowFate.FILTERS | mark;
    if (!RteFlows.mappingOf(nic, queue)) return queue | mark;
    // Such a rule is for one MAC address. Where no filter steers that to the guest, its mapping has been undone.
    const mac = load<u64>(rule, RteFlow.spec) & MAC_BITS;
    const filter = Macs.find(load<u32>(nic, Nic.filters), Macs.key(mac, 0));
    if (!filter || (load<u32>(filter, MacEntry.value) & 0xffff) != queue) return RteFlowFate.FILTERS;
    return load<u32>(filter, MacEntry.value);
  }

  /** The IOVTee mapping whose buffers a receive queue has, or 0. */
  @inline static mappingOf(nic: usize, queue: u32): usize {
    return load<u32>(load<u32>(load<u32>(nic, Nic.rxTable) + queue * 4), RxQueue.mapping);
  }

  @inline static seed(number: u32): u64 {
    return (<u64>number + 1) * 0xc2b2_ae3d_27d4_eb4f;
  }
  @inline static mix(hash: u64, word: u64): u64 {
    hash = (hash ^ word) * 0x9e37_79b9_7f4a_7c15;
    return hash ^ (hash >> 32);
  }
  @inline static bucket(t: usize, hash: u64): u32 {
    return <u32>hash & load<u32>(t, RteFlowTable.bucketMask);
  }
  @inline static maskAt(t: usize, number: u32): usize {
    return t + RteFlowTable.masks + number * RteFlowMask.SIZE;
  }
  /** Rules count from 1. */
  @inline static ruleAt(t: usize, index: u32): usize {
    return <usize>load<u32>(t, RteFlowTable.rules) + (index - 1) * RteFlow.SIZE;
  }

  // Changes: by any thread, one after the other.

  /**
   * Makes a rule of what stands at `from` (`RteFlow` up to INPUT), for `maker`: a guest's device, or 0 for the host. Who
   * takes rules from a guest checks first that they name its own queues and its own MAC address. With `only` it is but
   * checked. Returns the rule's id, 0 if it was but checked, or a RteFlowRefusal below 0: then nothing has changed.
   */
  static create(t: usize, from: usize, only: bool, maker: u32): i32 {
    RteFlows.lock(t);
    const made = RteFlows.make(t, from, only, maker);
    Sync.store<u32>(t + RteFlowTable.lock, 0);
    return made;
  }

  /** False where no rule has this id, or, unless that is the host, another one than `maker` made it. */
  static destroy(t: usize, id: u32, maker: u32): bool {
    RteFlows.lock(t);
    const index = RteFlows.indexOf(t, id, maker);
    if (index) {
      RteFlows.change(t);
      RteFlows.unlink(t, index);
      RteFlows.change(t);
    }
    Sync.store<u32>(t + RteFlowTable.lock, 0);
    return index != 0;
  }

  /** Takes all rules out; also what sets a table up. */
  static flush(t: usize): void {
    RteFlows.lock(t);
    RteFlows.change(t);
    const capacity = load<u32>(t, RteFlowTable.capacity);
    for (let index: u32 = 1; index <= capacity; index++) {
      store<u32>(RteFlows.ruleAt(t, index), 0, RteFlow.used);
    }
    RteFlows.index(t);
    RteFlows.change(t);
    Sync.store<u32>(t + RteFlowTable.lock, 0);
  }

  /** Takes out the rules that `maker` made, one by one, so that frames wait for none of it. */
  static flushOf(t: usize, maker: u32): void {
    RteFlows.lock(t);
    const capacity = load<u32>(t, RteFlowTable.capacity);
    for (let index: u32 = 1; index <= capacity; index++) {
      const rule = RteFlows.ruleAt(t, index);
      if (!load<u32>(rule, RteFlow.used) || load<u32>(rule, RteFlow.maker) != maker) continue;
      RteFlows.change(t);
      RteFlows.unlink(t, index);
      RteFlows.change(t);
    }
    Sync.store<u32>(t + RteFlowTable.lock, 0);
  }

  /** Whoever was changing the table has died, at any of its stores, and nobody else uses it: each rule is in it or not. */
  static repair(t: usize): void {
    RteFlows.index(t);
    store<u32>(t, (load<u32>(t, RteFlowTable.version) + 1) & ~1, RteFlowTable.version);
    store<u32>(t, 0, RteFlowTable.lock);
  }

  /** Masks, buckets and free rules anew, from what rules say of themselves. */
  static index(t: usize): void {
    memory.fill(load<u32>(t, RteFlowTable.buckets), 0, (load<u32>(t, RteFlowTable.bucketMask) + 1) * 2);
    memory.fill(t + RteFlowTable.masks, 0, RteFlowTable.MASKS_MAX * RteFlowMask.SIZE);
    store<u32>(t, 0, RteFlowTable.count);
    store<u32>(t, 0, RteFlowTable.maskCount);
    store<u32>(t, 0, RteFlowTable.free);
    const capacity = load<u32>(t, RteFlowTable.capacity);
    for (let index = capacity; index; index--) {
      const rule = RteFlows.ruleAt(t, index);
      if (load<u32>(rule, RteFlow.used)) continue;
      store<u16>(rule, <u16>load<u32>(t, RteFlowTable.free), RteFlow.next);
      store<u32>(t, index, RteFlowTable.free);
    }
    for (let index: u32 = 1; index <= capacity; index++) {
      const rule = RteFlows.ruleAt(t, index);
      if (!load<u32>(rule, RteFlow.used)) continue;
      store<u16>(rule, <u16>RteFlows.maskOf(t, rule), RteFlow.under);
      // As if it were the first of the free ones.
      store<u16>(rule, <u16>load<u32>(t, RteFlowTable.free), RteFlow.next);
      RteFlows.link(t, index);
    }
  }

  /** Rules that `maker` made. */
  static madeBy(t: usize, maker: u32): u32 {
    const capacity = load<u32>(t, RteFlowTable.capacity);
    let n: u32 = 0;
    for (let index: u32 = 1; index <= capacity; index++) {
      const rule = RteFlows.ruleAt(t, index);
      if (load<u32>(rule, RteFlow.used) && load<u32>(rule, RteFlow.maker) == maker) n++;
    }
    return n;
  }

  /** What rule `id` of `maker` has matched, to `to`: hits and bytes. False where there is none. */
  static query(t: usize, id: u32, maker: u32, to: usize): bool {
    RteFlows.lock(t);
    const index = RteFlows.indexOf(t, id, maker);
    if (index) v128.store(to, v128.load(RteFlows.ruleAt(t, index) + RteFlow.hits));
    Sync.store<u32>(t + RteFlowTable.lock, 0);
    return index != 0;
  }

  static lock(t: usize): void {
    for (let looks: u32 = 0; Sync.cas(t + RteFlowTable.lock, 0, 1); looks++)
      if (looks == PATIENCE) unreachable();
  }

  /** A change begins or ends. */
  static change(t: usize): void {
    Sync.store<u32>(t + RteFlowTable.version, load<u32>(t, RteFlowTable.version) + 1);
  }

  static indexOf(t: usize, id: u32, maker: u32): u32 {
    const capacity = load<u32>(t, RteFlowTable.capacity);
    for (let index: u32 = 1; index <= capacity; index++) {
      const rule = RteFlows.ruleAt(t, index);
      if (!load<u32>(rule, RteFlow.used) || load<u32>(rule, RteFlow.id) != id) continue;
      return !maker || load<u32>(rule, RteFlow.maker) == maker ? index : 0;
    }
    return 0;
  }

  static make(t: usize, from: usize, only: bool, maker: u32): i32 {
    const index = load<u32>(t, RteFlowTable.free);
    if (!index) return -RteFlowRefusal.FULL;
    const rule = RteFlows.ruleAt(t, index);
    memory.copy(rule, from, RteFlow.INPUT);
    const refusal = RteFlows.refusalOf(load<u32>(t, RteFlowTable.nic), rule);
    if (refusal) return -refusal;
    for (let w: u32 = 0; w < <u32>RteFlowKey.SIZE; w += 8) {
      const mask = load<u64>(rule + w, RteFlow.mask);
      store<u64>(rule + w, load<u64>(rule + w, RteFlow.spec) & mask, RteFlow.spec);
    }
    const number = RteFlows.maskOf(t, rule);
    if (number == <u32>RteFlowTable.MASKS_MAX) return -RteFlowRefusal.MASKS;
    store<u16>(rule, <u16>number, RteFlow.under);
    if (RteFlows.hasTwin(t, rule)) return -RteFlowRefusal.EXISTS;
    if (only) return 0;
    const id = load<u32>(t, RteFlowTable.nextId);
    store<u32>(t, id + 1, RteFlowTable.nextId);
    store<u32>(rule, id, RteFlow.id);
    store<u32>(rule, maker, RteFlow.maker);
    store<u64>(rule, 0, RteFlow.hits);
    store<u64>(rule, 0, RteFlow.bytes);
    store<u64>(rule, ((<u64>load<u32>(rule, RteFlow.priority)) << 32) | id, RteFlow.rank);
    RteFlows.change(t);
    RteFlows.link(t, index);
    RteFlows.change(t);
    return id;
  }

  static hasBridge(nic: usize): bool {
    const queues = load<u32>(nic, Nic.rxQueues);
    for (let i: u32 = 0; i < queues; i++) {
      if (load<u32>(load<u32>(load<u32>(nic, Nic.rxTable) + i * 4), RxQueue.bridge)) return true;
    }
    return false;
  }

  static refusalOf(nic: usize, rule: usize): i32 {
    if (load<u32>(nic, Nic.driverFlows) && RteFlows.hasBridge(nic)) return RteFlowRefusal.BRIDGED;
    if (load<u32>(rule, RteFlow.group)) return RteFlowRefusal.GROUP;
    if (load<u32>(rule, RteFlow.attributes) != <u32>RteFlowAttribute.INGRESS)
      return RteFlowRefusal.ATTRIBUTES;
    const actions = load<u32>(rule, RteFlow.actions);
    if (!actions || actions & ~ACTIONS || popcnt<u32>(actions & FATES) > 1) return RteFlowRefusal.ACTIONS;
    const marks = (actions & RteFlowAction.MARK) != 0;
    if (marks && load<u32>(rule, RteFlow.markId) >= <u32>RTE_FLOW_MARK) return RteFlowRefusal.MARK;
    if (actions & RteFlowAction.QUEUE)
      return RteFlows.queueRefusal(nic, rule, load<u32>(rule, RteFlow.queue), marks);
    if (!(actions & RteFlowAction.RSS)) return RteFlowRefusal.NONE;
    const n = load<u32>(rule, RteFlow.queueCount);
    if (n > <u32>RTE_FLOW_QUEUES) return RteFlowRefusal.QUEUE;
    for (let i: u32 = 0; i < n; i++) {
      const refusal = RteFlows.queueRefusal(nic, rule, load<u16>(rule + i * 2, RteFlow.queues), marks);
      if (refusal) return refusal;
    }
    return RteFlowRefusal.NONE;
  }

  static queueRefusal(nic: usize, rule: usize, queue: u32, marks: bool): i32 {
    if (queue >= load<u32>(nic, Nic.rxQueues)) return RteFlowRefusal.QUEUE;
    const mapping = RteFlows.mappingOf(nic, queue);
    if (!mapping) return RteFlowRefusal.NONE;
    // Into a mapped guest's memory the card writes nothing but what is for the guest.
    const isGuests =
      (load<u64>(rule, RteFlow.mask) & MAC_BITS) == MAC_BITS &&
      (load<u64>(rule, RteFlow.spec) & MAC_BITS) == load<u64>(mapping, Mapping.mac);
    if (!isGuests) return RteFlowRefusal.MAPPED;
    return marks ? RteFlowRefusal.MARK : RteFlowRefusal.NONE;
  }

  /** Number of the mask that a rule has, else of a free one, which is written; MASKS_MAX where there is none. */
  static maskOf(t: usize, rule: usize): u32 {
    let free: u32 = RteFlowTable.MASKS_MAX;
    for (let number: u32 = 0; number < <u32>RteFlowTable.MASKS_MAX; number++) {
      const m = RteFlows.maskAt(t, number);
      if (!load<u32>(m, RteFlowMask.rules)) free = min(free, number);
      else if (memory.compare(m, rule + RteFlow.mask, RteFlowKey.SIZE) == 0) return number;
    }
    if (free == <u32>RteFlowTable.MASKS_MAX) return free;
    const m = RteFlows.maskAt(t, free);
    memory.copy(m, rule + RteFlow.mask, RteFlowKey.SIZE);
    let n: u32 = 0;
    for (let w: u32 = 0; w < <u32>RteFlowKey.SIZE; w += 8)
      if (load<u64>(m + w)) store<u8>(m + n++, <u8>w, RteFlowMask.words);
    store<u8>(m, <u8>n, RteFlowMask.wordCount);
    store<u64>(m, u64.MAX_VALUE, RteFlowMask.best);
    return free;
  }

  /** Address of a rule's bucket. */
  static bucketOf(t: usize, rule: usize): usize {
    const number = <u32>load<u16>(rule, RteFlow.under);
    const m = RteFlows.maskAt(t, number);
    let hash = RteFlows.seed(number);
    for (let w: u32 = 0; w < <u32>RteFlowKey.SIZE; w += 8)
      if (load<u64>(m + w)) hash = RteFlows.mix(hash, load<u64>(rule + w, RteFlow.spec));
    return <usize>load<u32>(t, RteFlowTable.buckets) + RteFlows.bucket(t, hash) * 2;
  }

  static hasTwin(t: usize, rule: usize): bool {
    for (let index = <u32>load<u16>(RteFlows.bucketOf(t, rule)); index; ) {
      const other = RteFlows.ruleAt(t, index);
      const same =
        load<u16>(other, RteFlow.under) == load<u16>(rule, RteFlow.under) &&
        load<u32>(other, RteFlow.priority) == load<u32>(rule, RteFlow.priority) &&
        memory.compare(other + RteFlow.spec, rule + RteFlow.spec, RteFlowKey.SIZE) == 0;
      if (same) return true;
      index = load<u16>(other, RteFlow.next);
    }
    return false;
  }

  static link(t: usize, index: u32): void {
    const rule = RteFlows.ruleAt(t, index);
    const rank = load<u64>(rule, RteFlow.rank);
    store<u32>(t, load<u16>(rule, RteFlow.next), RteFlowTable.free);
    store<u32>(t, load<u32>(t, RteFlowTable.count) + 1, RteFlowTable.count);
    store<u32>(rule, 1, RteFlow.used);
    // By rank, so that the first match is the best.
    let link = RteFlows.bucketOf(t, rule);
    for (let next = <u32>load<u16>(link); next; next = load<u16>(link)) {
      if (load<u64>(RteFlows.ruleAt(t, next), RteFlow.rank) > rank) break;
      link = RteFlows.ruleAt(t, next) + RteFlow.next;
    }
    store<u16>(rule, load<u16>(link), RteFlow.next);
    store<u16>(link, <u16>index);
    const number = <u32>load<u16>(rule, RteFlow.under);
    const m = RteFlows.maskAt(t, number);
    store<u32>(m, load<u32>(m, RteFlowMask.rules) + 1, RteFlowMask.rules);
    if (rank < load<u64>(m, RteFlowMask.best)) RteFlows.rank(t, number, rank);
  }

  static unlink(t: usize, index: u32): void {
    const rule = RteFlows.ruleAt(t, index);
    let link = RteFlows.bucketOf(t, rule);
    while (load<u16>(link) != <u16>index) link = RteFlows.ruleAt(t, load<u16>(link)) + RteFlow.next;
    store<u16>(link, load<u16>(rule, RteFlow.next));
    store<u32>(rule, 0, RteFlow.used);
    store<u16>(rule, <u16>load<u32>(t, RteFlowTable.free), RteFlow.next);
    store<u32>(t, index, RteFlowTable.free);
    store<u32>(t, load<u32>(t, RteFlowTable.count) - 1, RteFlowTable.count);
    const number = <u32>load<u16>(rule, RteFlow.under);
    const m = RteFlows.maskAt(t, number);
    const left = load<u32>(m, RteFlowMask.rules) - 1;
    store<u32>(m, left, RteFlowMask.rules);
    // With others left it keeps its place: too far in front it costs a look, no more.
    if (!left) RteFlows.rank(t, number, u64.MAX_VALUE);
  }

  /** Puts a mask in its place among the others, whose first rule has this rank now; takes out one that has no rule. */
  static rank(t: usize, number: u32, best: u64): void {
    const order = t + RteFlowTable.order;
    const m = RteFlows.maskAt(t, number);
    let n = load<u32>(t, RteFlowTable.maskCount);
    let kept: u32 = 0;
    for (let i: u32 = 0; i < n; i++) {
      const other = load<u8>(order + i);
      if (<u32>other != number) store<u8>(order + kept++, other);
    }
    n = kept;
    store<u64>(m, best, RteFlowMask.best);
    if (load<u32>(m, RteFlowMask.rules)) {
      let at = n++;
      for (; at; at--) {
        const before = load<u8>(order + at - 1);
        if (load<u64>(RteFlows.maskAt(t, before), RteFlowMask.best) < best) break;
        store<u8>(order + at, before);
      }
      store<u8>(order + at, <u8>number);
    }
    store<u32>(t, n, RteFlowTable.maskCount);
  }
}
