/** What the loops over a burst promise at their edges: a ring's end, a burst's end, frames of several buffers. */
import { beforeAll, describe, expect, test } from "vitest";
import {
  Nic as NicLayout,
  Packet,
  PacketFlag,
  Refusal,
  RxQueue,
  TxQueue,
  Virtqueue,
} from "../assembly/layout.ts";
import { Host } from "../src/index.ts";
import { type Harness, instantiate } from "./harness/harness.ts";
import { frame, inCard, numberOf, pollSwitch, pring, rig } from "./harness/host.ts";
import { BUFFERS, Queue } from "./harness/queue.ts";

const A = "02:00:00:00:00:0a";
const B = "02:00:00:00:00:0b";

/** Two cards on a switch, which has learned that B is behind the second. */
async function cards(burst = 32) {
  const host = await Host.create();
  const nics = [host.nic({ ring: 32 }), host.nic({ ring: 64 })] as const;
  const sw = host.vswitch({ connect: [...nics], burst });
  nics[1].receive([frame(A, 0, 60, B)]);
  host.drain();
  nics[0].transmit();
  const poll = () => host.core.exports.pollPort(sw.address, sw.ports[0]!.address);
  return { host, nics, sw, core: host.core, poll };
}

describe("a card's receive queue", () => {
  test("a turn takes no more than a burst, of single frames and of long ones", async () => {
    const { nics, poll } = await cards(4);
    nics[0].receive([60, 60, 60, 5000, 5000, 60, 60, 60, 60, 60].map((n, i) => frame(B, i, n)));
    expect([poll(), poll(), poll(), poll()]).toEqual([4, 4, 2, 0]);
  });

  test("what stands behind the ring is no descriptor", async () => {
    const { host, nics, core, poll } = await cards();
    const behind = core.u32(nics[0].rxQueue(0) + RxQueue.ring) + 32 * Packet.SIZE;
    for (let i = 0; i < 30; i++) {
      nics[0].receive([frame(B, i)]);
      host.drain();
      nics[1].transmit();
    }
    const was = core.bytes.slice(behind, behind + Packet.SIZE);
    nics[0].receive([0, 1, 2, 3].map((i) => frame(B, 100 + i)));
    core.setU16(behind + Packet.flags, PacketFlag.DONE); // bytes of another object
    poll();
    core.bytes.set(was, behind);
    expect(nics[1].toTransmit().map(numberOf)).toEqual([100, 101, 102, 103]);
  });

  test("a received descriptor stands in a transmit ring without the card's DONE", async () => {
    const { host, nics, core } = await cards();
    const at = (field: TxQueue) => core.u32(core.u32(nics[1].address + NicLayout.tx) + field);
    for (let i = 0; i < 12; i++) {
      nics[0].receive([60, 5000, 60].map((length) => frame(B, i, length)));
      host.drain();
      expect(at(TxQueue.next)).not.toBe(at(TxQueue.head));
      for (let k = at(TxQueue.head); k !== at(TxQueue.next); k++) {
        const slot = at(TxQueue.ring) + (k & at(TxQueue.mask)) * Packet.SIZE;
        expect(core.u16(slot + Packet.flags) & PacketFlag.DONE).toBe(0);
      }
      nics[1].transmit();
    }
  });
});

describe("the guest's driver", () => {
  let harness: Harness;
  beforeAll(async () => {
    harness = await instantiate();
  });

  test("a used chain that there is no room for waits, behind single buffers too", () => {
    const queue = new Queue(harness);
    queue.start(16);
    queue.attach(16);
    const segment = (i: number) => ({ addr: BUFFERS + 512 * i, len: 100 });
    expect(queue.post([[segment(0)], [segment(1), segment(2), segment(3)]])).toBe(4);
    queue.driverPublish();
    const [single] = queue.take(1);
    const chain = queue.takeChain();
    queue.complete([single!, (chain as (typeof single)[])[0]!]);
    queue.devicePublish();
    expect(queue.used(3)).toHaveLength(1);
    expect(queue.used(3)).toHaveLength(3);
  });
});

describe("classifying", () => {
  test("a long frame in front of a short one doesn't run over a host buffer", async () => {
    const host = await Host.create();
    const nic = host.nic({ ring: 64 });
    const guest = host.guest({ attach: "vhost", ring: 16, bufferSize: 9300, memory: 2 ** 20 });
    host.vswitch({ connect: [nic, guest] });
    const sent = [5000, 60].map((length, i) => frame(guest.mac, i, length));
    nic.receive(sent);
    host.drain();
    const back: Uint8Array[] = [];
    nic.transmit((frames) => back.push(...frames.map((one) => one.slice(12))));
    expect(back).toEqual(sent.map((one) => one.slice(12)));
  });

  test("a mark that names no port isn't believed", async () => {
    const { host, nics } = await cards();
    nics[0].steer(B, 0, 0, 9);
    nics[0].receive([frame(B, 1), frame(B, 2)]);
    host.drain();
    expect(nics[1].toTransmit().map(numberOf)).toEqual([1, 2]);
  });

  test("bytes of frames that nobody read are counted where they came in", async () => {
    const r = await rig({});
    r.nic.receive(Array.from({ length: 20 }, (_, i) => frame(r.guest.mac, i, 100)));
    pollSwitch(r.sw);
    expect(r.host.stats().ports[0]).toMatchObject({ rxPackets: 20, rxBytes: 2000 });
  });
});

describe("IOVTee's reserve", () => {
  test("of what the guest has posted one in eight, the newest, isn't given to the card", async () => {
    const host = await Host.create();
    const nic = host.nic({ ring: 128 });
    const guest = host.guest({ ring: 64, onEmpty: "wait", run: "sink" });
    const sw = host.vswitch({ connect: [nic, guest] });
    const r = { host, core: host.core, nic, guest, guests: [guest], sw };
    const first = inCard(r, nic.rxQueue(1)).map(({ index }) => index);
    const avail = Array.from({ length: 64 }, (_, i) => host.core.u16(guest.region + 64 * 16 + 4 + 2 * i));
    expect(first).toEqual(avail.slice(0, 56));
  });

  test("a missed buffer goes to the card before those that the guest posted after it", async () => {
    const r = await rig({}, 2);
    const astray = "02:00:00:00:00:99";
    r.nic.steer(astray, 0, 1, r.sw.indexOf(r.guests[1]!));
    r.nic.receive(Array.from({ length: 4 }, (_, i) => frame(astray, i)));
    r.core.exports.pollPort(r.sw.address, r.sw.ports[0]!.address);
    expect(pring(r, r.guest.mapping)).toHaveLength(4);
    r.core.exports.refillMapping(r.guest.mapping, 0);
    expect(pring(r, r.guest.mapping)).toEqual([]);
  });

  test("of a broken queue the card gets nothing more", async () => {
    const host = await Host.create();
    const nic = host.nic({ ring: 32 });
    const guest = host.guest({ ring: 64, onEmpty: "wait", run: "sink" });
    const sw = host.vswitch({ connect: [nic, guest] });
    const r = { host, core: host.core, nic, guest, guests: [guest], sw };
    nic.receive(Array.from({ length: 3 }, (_, i) => frame(guest.mac, i)));
    host.core.exports.pollPort(sw.address, sw.ports[0]!.address); // too few to refill
    host.core.setU32(guest.rxVirtqueue + Virtqueue.broken, Refusal.LOOP);
    expect(inCard(r, nic.rxQueue(1))).toHaveLength(29);
    host.core.exports.refillMapping(guest.mapping, 0);
    expect(inCard(r, nic.rxQueue(1))).toHaveLength(29);
  });
});
