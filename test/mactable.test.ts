/** The MAC table, against a Map with buckets of four. */
import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { MacEntry, MacTable } from "../assembly/layout.ts";
import { Access } from "../src/core/access.ts";
import { initMacTable, macTableBytes } from "../src/core/mac-table.ts";
import { type Functions, instantiate } from "./harness/harness.ts";

const SEED = 20;
const TABLE = 0x10000;

let call: Functions;
let memory: WebAssembly.Memory;
let view: DataView;
beforeAll(async () => {
  ({ call, memory } = await instantiate());
  view = new DataView(memory.buffer);
});

function create(entries: number): void {
  new Uint8Array(memory.buffer, 0, 0x100000).fill(0);
  initMacTable(new Access(memory), TABLE, entries);
}
const find = (mac: bigint, vlan = 0) => read(call.macsFind!(TABLE, mac, vlan));
function read(entry: number): { value: number; stamp: number } | undefined {
  if (!entry) return undefined;
  return {
    value: view.getUint32(entry + MacEntry.value, true),
    stamp: view.getUint32(entry + MacEntry.stamp, true),
  };
}
const used = () => view.getUint32(TABLE + MacTable.used, true);
/** `n` addresses that fall into one bucket. */
function colliding(n: number): bigint[] {
  const list: bigint[] = [];
  const bucket = call.macsBucket!(TABLE, 1n, 0);
  for (let mac = 1n; list.length < n; mac++) if (call.macsBucket!(TABLE, mac, 0) === bucket) list.push(mac);
  return list;
}

describe("MAC table", () => {
  it("keeps an address apart by VLAN, and finds the address of all zeros", () => {
    create(64);
    call.macsInsert!(TABLE, 0n, 0, 5, 1);
    call.macsInsert!(TABLE, 0xffffffffffffn, 4095, 6, 2);
    call.macsInsert!(TABLE, 0xffffffffffffn, 0, 7, 3);
    expect([find(0n), find(0n, 1)]).toEqual([{ value: 5, stamp: 1 }, undefined]);
    expect([find(0xffffffffffffn, 4095)?.value, find(0xffffffffffffn)?.value]).toEqual([6, 7]);
  });

  it("holds four addresses of one bucket; the fifth takes the place of the oldest", () => {
    create(64);
    const [a, b, c, d, e] = colliding(5) as [bigint, bigint, bigint, bigint, bigint];
    for (const [mac, stamp] of [
      [a, 30],
      [b, 10],
      [c, 20],
      [d, 40],
    ] as const)
      call.macsInsert!(TABLE, mac, 0, 1, stamp);
    expect(used()).toBe(4);
    call.macsInsert!(TABLE, e, 0, 2, 50);
    expect([a, b, c, d, e].map((mac) => find(mac)?.stamp)).toEqual([30, undefined, 20, 40, 50]);
    expect(used()).toBe(4);
  });

  it("never puts out a static entry, and says so when a bucket is full of them", () => {
    create(64);
    const macs = colliding(6);
    for (const mac of macs.slice(0, 3)) expect(Boolean(call.macsSet!(TABLE, mac, 0, 9))).toBe(true);
    for (let i = 0; i < 50; i++) call.macsInsert!(TABLE, macs[3 + (i % 2)]!, 0, 1, 0xfffffffe);
    expect(macs.slice(0, 3).map((mac) => find(mac))).toEqual(
      Array(3).fill({ value: 9, stamp: MacEntry.STATIC >>> 0 }),
    );
    expect(Boolean(call.macsSet!(TABLE, macs[5]!, 0, 9))).toBe(true);
    expect(Boolean(call.macsSet!(TABLE, macs[4]!, 0, 9))).toBe(false);
    expect(call.macsInsert!(TABLE, macs[4]!, 0, 1, 5)).toBe(0);
    expect(find(macs[4]!)).toBeUndefined();
  });

  it("makes a learned entry static, and removes what is asked", () => {
    create(4);
    call.macsInsert!(TABLE, 5n, 3, 1, 10);
    call.macsSet!(TABLE, 5n, 3, 2);
    expect([find(5n, 3), used()]).toEqual([{ value: 2, stamp: 0xffffffff }, 1]);
    call.macsRemove!(TABLE, 6n, 3);
    expect(used()).toBe(1);
    call.macsRemove!(TABLE, 5n, 3);
    expect([find(5n, 3), used()]).toEqual([undefined, 0]);
  });

  it("writes nothing outside its bytes", () => {
    create(16);
    const bytes = new Uint8Array(memory.buffer);
    const end = TABLE + macTableBytes(16);
    for (let mac = 1n; mac < 3000n; mac++) call.macsInsert!(TABLE, mac * 0x10001n, 1, 1, Number(mac));
    expect(used()).toBe(16);
    expect(bytes.subarray(end, end + 4096).every((b) => b === 0)).toBe(true);
    expect(bytes.subarray(TABLE - 4096, TABLE).every((b) => b === 0)).toBe(true);
  });

  it("is a Map whose buckets forget the oldest of four", () => {
    const step = fc.record({
      what: fc.constantFrom("learn", "learn", "learn", "set", "remove"),
      mac: fc.bigInt({ min: 0n, max: 40n }),
      vlan: fc.integer({ min: 0, max: 2 }),
      value: fc.integer({ min: 1, max: 6 }),
    });
    interface Item {
      key: string;
      value: number;
      stamp: number;
    }
    fc.assert(
      fc.property(
        fc.constantFrom(4, 8, 64),
        fc.array(step, { maxLength: 200, size: "max" }),
        (entries, steps) => {
          create(entries);
          const model = new Map<number, Item[]>();
          const put = (bucket: Item[], item: Item) => {
            if (bucket.length === 4) {
              const learned = bucket.filter((i) => i.stamp !== 0xffffffff);
              if (!learned.length) return false;
              const oldest = learned.reduce((a, b) => (b.stamp < a.stamp ? b : a));
              bucket.splice(bucket.indexOf(oldest), 1);
            }
            bucket.push(item);
            return true;
          };
          for (const [now, { what, mac, vlan, value }] of steps.entries()) {
            const at: number = call.macsBucket!(TABLE, mac, vlan);
            const bucket = model.get(at) ?? [];
            model.set(at, bucket);
            const key = `${mac} ${vlan}`;
            const old = bucket.find((i) => i.key === key);
            expect(find(mac, vlan)).toEqual(old && { value: old.value, stamp: old.stamp });
            if (what === "learn" && !old)
              expect(call.macsInsert!(TABLE, mac, vlan, value, now) !== 0).toBe(
                put(bucket, { key, value, stamp: now }),
              );
            else if (what === "set") {
              const done = Boolean(call.macsSet!(TABLE, mac, vlan, value));
              if (old) Object.assign(old, { value, stamp: 0xffffffff });
              expect(done).toBe(old ? true : put(bucket, { key, value, stamp: 0xffffffff }));
            } else if (what === "remove") {
              call.macsRemove!(TABLE, mac, vlan);
              if (old) bucket.splice(bucket.indexOf(old), 1);
            }
            expect(used()).toBe([...model.values()].reduce((sum, b) => sum + b.length, 0));
          }
        },
      ),
      { seed: SEED, numRuns: 100 },
    );
  });
});
