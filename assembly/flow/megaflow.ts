/**
 * Cached flows (layout: `Megaflow`): what a walk through the tables has found, for all frames that agree in what was
 * consulted. Found by masks, the most used first; a full table gives the place of the oldest flow. A change of the
 * rules moves the table's generation on, and no flow of an older one is used any more.
 */
import { Count } from "../count";
import { FlowExact, FlowMask, FlowMatch, FlowRule, FlowTable, Megaflow } from "../layout";
import { Classifier, Hash } from "./classifier";

const TAG: u32 = 0xffff_0000;

/** `FlowTable.worth` where all looks find one, and below which they cost more than they save. */
const ALL: i32 = 65536;
const TOO_FEW: i32 = ALL / 8;
/** Where they do, one frame in so many is looked for all the same, and its flow is to be found: to see when that changes. */
const SAMPLE: u32 = 16;

export class Megaflows {
  @inline static at(t: usize, n: u32): usize {
    return load<u32>(t, FlowTable.megaflows) + (n & load<u32>(t, FlowTable.megaflowMask)) * Megaflow.SIZE;
  }

  /** Whether enough of the last looks have found a flow. */
  @inline static areShared(t: usize): bool {
    return <i32>load<u32>(t, FlowTable.worth) >= TOO_FEW;
  }

  /** Whether to look for the next frame's flow, and let others find it. Where each frame is a new flow no look finds any. */
  static isWorthwhile(t: usize): bool {
    const spared = load<u32>(t, FlowTable.spared) + 1;
    const look = Megaflows.areShared(t) || spared == SAMPLE;
    store<u32>(t, look ? 0 : spared, FlowTable.spared);
    return look;
  }

  /** A look has found a flow, or none. */
  static learn(t: usize, found: bool): void {
    const worth = <i32>load<u32>(t, FlowTable.worth);
    store<u32>(t, worth + (((found ? ALL : 0) - worth) >> 6), FlowTable.worth);
  }

  /** The flow of the key at `key`, or 0. */
  static lookup(t: usize, key: usize): usize {
    const k0 = v128.load(key);
    const k1 = v128.load(key, 16);
    const k2 = v128.load(key, 32);
    const k3 = v128.load(key, 48);
    const buckets: usize = load<u32>(t, FlowTable.buckets);
    const bucketMask = load<u32>(t, FlowTable.bucketMask);
    const flows: usize = load<u32>(t, FlowTable.megaflows);
    const generation = load<u32>(t, FlowTable.generation);
    const tags = i32x4.splat(TAG);
    const first: usize = load<u32>(t, FlowTable.maskOrder);
    const end = first + load<u32>(t, FlowTable.maskCount) * 4;
    for (let at = first; at != end; at += 4) {
      const mask: usize = load<u32>(at);
      const h = Hash.of(
        t,
        v128.and(k0, v128.load(mask)),
        v128.and(k1, v128.load(mask, 16)),
        v128.and(k2, v128.load(mask, 32)),
        v128.and(k3, v128.load(mask, 48)),
        load<u32>(mask, FlowMask.seed),
      );
      const bucket = buckets + (h & bucketMask) * 16;
      const same = i32x4.eq(v128.and(v128.load(bucket), tags), i32x4.splat(h & TAG));
      for (let bits = <u32>i32x4.bitmask(same); bits; bits &= bits - 1) {
        const slot = load<u32>(bucket + ctz(bits) * 4) & ~TAG;
        if (!slot) continue;
        const flow = flows + (slot - 1) * Megaflow.SIZE;
        if (load<u32>(flow, Megaflow.generation) != generation) continue;
        if (<usize>load<u32>(flow, Megaflow.mask) != mask || !Hash.matches(key, mask, flow)) continue;
        Classifier.used(at, first);
        return flow;
      }
    }
    return 0;
  }

  /** A place for one more, not found by anything yet; whoever had it has given its counts to its rules. */
  static make(t: usize): usize {
    const next = load<u32>(t, FlowTable.next);
    const flow = Megaflows.at(t, next);
    if (next - load<u32>(t, FlowTable.first) > load<u32>(t, FlowTable.megaflowMask)) {
      Megaflows.flush(flow);
      store<u32>(t, load<u32>(t, FlowTable.first) + 1, FlowTable.first);
    }
    store<u32>(t, next + 1, FlowTable.next);
    store<u64>(flow, 0, Megaflow.packets);
    store<u64>(flow, 0, Megaflow.bytes);
    store<u64>(flow, 0, Megaflow.ruleCount); // and no actions
    store<u32>(flow, load<u32>(t, FlowTable.generation), Megaflow.generation);
    store<u32>(flow, next, Megaflow.serial);
    return flow;
  }

  /** The flow that `make` gave last is of all frames that agree with the key at `key` in the mask at `mask`. */
  static write(flow: usize, key: usize, mask: usize): void {
    store<u32>(flow, <u32>mask, Megaflow.mask);
    for (let i: usize = 0; i < <usize>FlowMatch.SIZE; i += 16)
      v128.store(flow + i, v128.and(v128.load(key + i), v128.load(mask + i)));
  }

  /** The flow that `make` gave last can be found, by all frames that agree with the key at `key` in `FlowTable.consulted`. */
  static publish(t: usize, flow: usize, key: usize): void {
    const under = Megaflows.mask(t);
    Megaflows.write(flow, key, under);
    const h = Hash.under(t, key, under, load<u32>(under, FlowMask.seed));
    const bucket = load<u32>(t, FlowTable.buckets) + (h & load<u32>(t, FlowTable.bucketMask)) * 16;
    const number = <u32>(flow - load<u32>(t, FlowTable.megaflows)) / Megaflow.SIZE + 1;
    let way = (h >> 14) & 3;
    for (let i: u32 = 0; i < 4; i++) {
      const slot = load<u32>(bucket + i * 4) & ~TAG;
      if (slot && Megaflows.isCurrent(t, Megaflows.at(t, slot - 1))) continue;
      way = i;
      break;
    }
    store<u32>(bucket + way * 4, (h & TAG) | number);
  }

  @inline static isCurrent(t: usize, flow: usize): bool {
    return load<u32>(flow, Megaflow.generation) == load<u32>(t, FlowTable.generation);
  }

  /** The FlowMask of what was consulted; where there are too many, of all that rules look at. */
  static mask(t: usize): usize {
    const order: usize = load<u32>(t, FlowTable.maskOrder);
    const count = load<u32>(t, FlowTable.maskCount);
    const wanted = t + FlowTable.consulted;
    for (let i: u32 = 0; i < count; i++) {
      const mask: usize = load<u32>(order + i * 4);
      if (!Megaflows.same(mask, wanted)) continue;
      Classifier.used(order + i * 4, order);
      return mask;
    }
    if (count + 1 >= <u32>FlowTable.MASKS_MAX) {
      // The last place is for this one.
      if (!Megaflows.same(t + FlowTable.union, wanted)) {
        memory.copy(wanted, t + FlowTable.union, FlowMatch.SIZE);
        return Megaflows.mask(t);
      }
    }
    const mask = load<u32>(t, FlowTable.megaflowMasks) + count * FlowMask.SIZE;
    memory.copy(mask, wanted, FlowMatch.SIZE);
    store<u32>(mask, 0, FlowMask.hits);
    store<u32>(order + count * 4, mask);
    store<u32>(t, count + 1, FlowTable.maskCount);
    return mask;
  }

  @inline static same(a: usize, b: usize): bool {
    return !v128.any_true(
      v128.or(
        v128.or(v128.xor(v128.load(a), v128.load(b)), v128.xor(v128.load(a, 16), v128.load(b, 16))),
        v128.or(v128.xor(v128.load(a, 32), v128.load(b, 32)), v128.xor(v128.load(a, 48), v128.load(b, 48))),
      ),
    );
  }

  /** Gives what was counted to the flow's rules. */
  static flush(flow: usize): void {
    const packets = load<u64>(flow, Megaflow.packets);
    if (!packets) return;
    Megaflows.charge(flow, packets, load<u64>(flow, Megaflow.bytes));
    store<u64>(flow, 0, Megaflow.packets);
    store<u64>(flow, 0, Megaflow.bytes);
  }

  /** The flow's rules count so much. */
  static charge(flow: usize, packets: u64, bytes: u64): void {
    const count = load<u32>(flow, Megaflow.ruleCount);
    for (let i: u32 = 0; i < count; i++) {
      const rule: usize = load<u32>(flow + i * 4, Megaflow.rules);
      Count.add(rule + FlowRule.packets, packets);
      Count.add(rule + FlowRule.bytes, bytes);
    }
  }

  /** All rules have what their flows have counted. */
  static flushAll(t: usize): void {
    const next = load<u32>(t, FlowTable.next);
    for (let n = load<u32>(t, FlowTable.first); n != next; n++) Megaflows.flush(Megaflows.at(t, n));
  }

  /** The rules, or the ports, change: nothing that was cached is used any more. */
  static invalidate(t: usize): void {
    Megaflows.flushAll(t);
    store<u32>(t, load<u32>(t, FlowTable.next), FlowTable.first);
    store<u32>(t, load<u32>(t, FlowTable.generation) + 1, FlowTable.generation);
    store<u32>(t, 0, FlowTable.maskCount);
    store<u32>(t, ALL, FlowTable.worth);
    store<u32>(t, (FlowExact.FEWEST - 1) * FlowExact.SIZE, FlowTable.exactMask);
  }
}
