/**
 * virtio 1.2, 5.1.6 "Device Operation" of the network device: what it says that a device or a driver MUST do, and
 * that applies to ours, each by its section. The device meets drivers written from the text (test/harness).
 */
import { describe, expect, test } from "vitest";
import { DescFlag, Driver, Guest as GuestLayout, NetHeader, Packet, Virtqueue } from "../assembly/layout.ts";
import { type Guest, type GuestOptions, Host } from "../src/index.ts";
import { BROADCAST, frame, idsOf, misplaced, pollSwitch, regionOf, rig, sent, WIRE } from "./harness/host.ts";
import { PackedDriverModel } from "./harness/packed.ts";
import { AVAIL, DESC, type Segment, USED } from "./harness/queue.ts";
import { SplitDriverModel } from "./harness/split.ts";

const FORMATS: [string, GuestOptions][] = [
  ["split", {}],
  ["packed", { packed: true }],
];
const SIZE = 64;
/** Guest addresses: the two queues, indirect tables, and buffers with a guard of 0xa5 around each. */
const TRANSMIT = 0x8000;
const TABLES = 0x10000;
const BUFFERS = 0x20000;
const GUARD = 64;

/** A net header with only `num_buffers` in it. */
function header(buffers: number): Uint8Array {
  const made = new Uint8Array(NetHeader.SIZE);
  new DataView(made.buffer).setUint16(NetHeader.numBuffers, buffers, true);
  return made;
}
/** All fields as no driver of ours would set them: every flag, a GSO type, offsets beyond the frame. */
const NOISE = Uint8Array.from([0xff, 0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);

/** One queue with a driver that isn't ours. */
class Queue {
  readonly split?: SplitDriverModel;
  readonly packed?: PackedDriverModel;
  #next = 0;
  constructor(
    readonly region: DataView,
    at: number,
    isPacked: boolean,
    public writable: boolean,
  ) {
    const rings = new DataView(region.buffer, region.byteOffset + at);
    if (isPacked) this.packed = new PackedDriverModel(rings, SIZE);
    else this.split = new SplitDriverModel(rings, SIZE);
  }
  /** Makes one buffer of these segments available, in a chain or in an indirect table; returns its id. */
  offer(segments: Segment[], indirect = false): number {
    const ids = segments.map((_, k) => (this.#next + k) % SIZE);
    const id = ids[0]!;
    const table = TABLES + 1024 * id;
    this.#next += indirect ? 1 : segments.length;
    if (this.packed) {
      if (indirect) {
        // Tables are written by guest address, rings by the queue's own.
        this.#table(this.packed, table, segments);
        this.packed.describe({ addr: table, len: 16 * segments.length }, id, DescFlag.INDIRECT);
        this.packed.held.set(id, 1);
      } else this.packed.offer(segments, id, this.writable);
    } else if (this.split) {
      if (indirect) {
        this.#table(this.split, table, segments);
        this.split.describe(id, { addr: table, len: 16 * segments.length }, DescFlag.INDIRECT);
      } else this.split.chain(ids, segments, this.writable);
      this.split.offer(id);
      this.split.publish();
    }
    return id;
  }
  #table(model: SplitDriverModel | PackedDriverModel, at: number, segments: Segment[]): void {
    model.table(at - (model.region.byteOffset - this.region.byteOffset), segments, this.writable);
  }
  used(): { id: number; len: number }[] {
    return this.split?.used() ?? this.packed!.used().map(({ id, len }) => ({ id, len }));
  }
}

/** A card, and a guest whose driver is ours; over IOVTee with `attach`. */
class Net {
  readonly host: Host;
  readonly nic;
  readonly guest: Guest;
  readonly sw;
  readonly rx: Queue;
  readonly tx: Queue;
  #top = BUFFERS;

  private constructor(host: Host, options: GuestOptions) {
    this.host = host;
    this.nic = host.nic({ ring: 64 });
    // The card waits for the guest's buffers: none of the host's are in between.
    this.guest = host.guest({ attach: "vhost", ring: SIZE, memory: 2 ** 20, onEmpty: "wait", ...options });
    const { core } = host;
    const { exports } = core;
    regionOf(this.guest).fill(0).fill(0xa5, BUFFERS);
    const region = new DataView(core.bytes.buffer, this.guest.region, this.guest.regionSize);
    for (const [vq, at] of [
      [this.guest.rxVirtqueue, 0],
      [this.guest.txVirtqueue, TRANSMIT],
    ] as const) {
      const areas = [DESC, AVAIL, USED].map((area) => BigInt(at + area)) as [bigint, bigint, bigint];
      exports.stopVirtqueue(vq);
      exports.startVirtqueue(vq, ...areas, SIZE, core.u32(vq + Virtqueue.features));
    }
    this.rx = new Queue(region, 0, options.packed ?? false, true);
    this.tx = new Queue(region, TRANSMIT, options.packed ?? false, false);
    this.sw = host.vswitch({ connect: [this.nic, this.guest] });
  }
  static async create(options: GuestOptions): Promise<Net> {
    return new Net(await Host.create(), options);
  }

  /** Places for segments of these lengths in the guest's memory, each between guards. */
  place(lengths: number[]): Segment[] {
    return lengths.map((len) => {
      const addr = this.#top + GUARD;
      this.#top = addr + len;
      return { addr, len };
    });
  }
  /** The bytes of these segments, in order, up to `length`. */
  read(segments: Segment[], length = Number.POSITIVE_INFINITY): Uint8Array {
    const region = regionOf(this.guest);
    const whole = segments.flatMap(({ addr, len }) => [...region.subarray(addr, addr + len)]);
    return Uint8Array.from(whole.slice(0, length));
  }
  write(segments: Segment[], bytes: Uint8Array): void {
    let at = 0;
    for (const { addr, len } of segments) {
      regionOf(this.guest).set(bytes.subarray(at, at + len), addr);
      at += len;
    }
  }
  /** Every byte between and behind the segments is as it was. */
  guarded(segments: Segment[]): boolean {
    const region = regionOf(this.guest).slice(BUFFERS);
    for (const { addr, len } of segments) region.fill(0xa5, addr - BUFFERS, addr - BUFFERS + len);
    return region.every((byte) => byte === 0xa5);
  }
  poll(): void {
    pollSwitch(this.sw);
  }
  /** Offers a receive buffer of segments of these lengths. */
  buffer(lengths: number[], indirect = false): { id: number; segments: Segment[] } {
    const segments = this.place(lengths);
    return { id: this.rx.offer(segments, indirect), segments };
  }
  /** Frames from the wire, once the device has seen all buffers. */
  receive(...frames: Uint8Array[]): void {
    this.poll();
    this.nic.receive(frames);
    this.poll();
  }
  /** Sends `bytes`, net header included, from segments of these lengths; returns what leaves. */
  send(bytes: Uint8Array, lengths: number[], indirect = false): Uint8Array[] {
    const segments = this.place(lengths);
    this.write(segments, bytes);
    this.tx.offer(segments, indirect);
    this.poll();
    return sent(this);
  }
  drops(): Record<string, number> {
    return this.host.stats().ports[1]!.drops;
  }
}

function join(...parts: Uint8Array[]): Uint8Array {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}
/** `n` bytes over a first list of lengths and a last segment with the rest. */
function layouts(n: number): [string, number[]][] {
  const lists = [
    [],
    [12],
    [11],
    [13],
    [1],
    [10],
    [11, 1],
    [5, 7, 3],
    [12, 14],
    [12, 20, 1],
    Array(20).fill(1),
  ];
  return lists.map((list) => [list.join("+") || "0", [...list, n - list.reduce((a, b) => a + b, 0)]]);
}

describe.each(FORMATS)("receive, %s", (_name, format) => {
  /** Over IOVTee one buffer in eight stays behind for other ports' frames: that many more are offered. */
  const ATTACHMENTS: [string, GuestOptions][] = [
    ["vhost", { ...format, attach: "vhost" }],
    ["iovtee", { ...format, attach: "iovtee" }],
  ];
  const spare = (net: Net) => Array.from({ length: SIZE / 8 }, () => net.buffer([100]));

  test.each(ATTACHMENTS)(
    "5.1.6.4.1: without VIRTIO_NET_F_MRG_RXBUF num_buffers is 1 and all else 0, %s",
    async (_attach, options) => {
      const net = await Net.create({ ...options, mergeable: false });
      const { id, segments } = net.buffer([1526]);
      spare(net);
      const one = frame(net.guest.mac, 1, 1514);
      net.receive(one);
      expect(net.rx.used()).toEqual([{ id, len: 12 + 1514 }]);
      expect(net.read(segments)).toEqual(join(header(1), one));
    },
  );

  test.each(ATTACHMENTS)(
    "5.1.6.4.1: num_buffers is 1 for each frame that fits one buffer, %s",
    async (_attach, options) => {
      const net = await Net.create(options);
      const buffers = Array.from({ length: 6 }, () => net.buffer([300]));
      spare(net);
      const frames = [60, 61, 288, 100, 14, 99].map((length, i) =>
        frame(net.guest.mac, i, Math.max(length, 18)),
      );
      net.receive(...frames);
      expect(net.rx.used()).toEqual(buffers.map(({ id }, i) => ({ id, len: 12 + frames[i]!.length })));
      buffers.forEach(({ segments }, i) => {
        expect(net.read(segments, 12 + frames[i]!.length)).toEqual(join(header(1), frames[i]!));
        // What is behind the frame isn't the device's to write.
        expect(
          net
            .read(segments)
            .subarray(12 + frames[i]!.length)
            .every((byte) => byte === 0xa5),
        ).toBe(true);
      });
      expect(net.guarded(buffers.flatMap(({ segments }) => segments))).toBe(true);
    },
  );

  test.each(ATTACHMENTS)(
    "5.1.6.4.1: a frame over several buffers uses all but the last completely, in order, %s",
    async (_attach, options) => {
      const net = await Net.create(options);
      const lengths = [72, 300, 100, 500, 90, 1000];
      const buffers = lengths.map((length) => net.buffer([length]));
      spare(net);
      const big = frame(net.guest.mac, 1, 72 + 300 + 100 + 500 - 12 + 40); // 40 bytes in the fifth
      const small = frame(net.guest.mac, 2, 60);
      net.receive(big, small);
      expect(net.rx.used()).toEqual(
        [72, 300, 100, 500, 40, 72].map((len, i) => ({ id: buffers[i]!.id, len })),
      );
      const first = buffers.slice(0, 5).flatMap(({ segments }) => segments);
      expect(net.read(first, 12 + big.length)).toEqual(join(header(5), big));
      expect(net.read(buffers[5]!.segments, 72)).toEqual(join(header(1), small));
      expect(net.guarded(buffers.flatMap(({ segments }) => segments))).toBe(true);
    },
  );

  test.each(ATTACHMENTS)(
    "5.1.6.4.1: a frame that fills its buffers to the last byte takes no further one, %s",
    async (_attach, options) => {
      const net = await Net.create(options);
      const buffers = [200, 200, 200].map((length) => net.buffer([length]));
      spare(net);
      net.receive(frame(net.guest.mac, 1, 400 - 12));
      expect(net.rx.used()).toEqual(buffers.slice(0, 2).map(({ id }) => ({ id, len: 200 })));
      expect(net.read(buffers[0]!.segments, 12)).toEqual(header(2));
    },
  );

  test.each(ATTACHMENTS)(
    "5.1.6.4.1: of a frame of 9000 bytes the driver sees all buffers or none, %s",
    async (_attach, options) => {
      const net = await Net.create(options);
      const buffers = Array.from({ length: 40 }, () => net.buffer([500]));
      spare(net);
      const one = frame(net.guest.mac, 1, 9000);
      net.receive(one, one);
      const used = net.rx.used();
      expect(used.length).toBe(38); // 19 buffers each
      for (const start of [0, 19]) {
        const some = buffers.slice(start, start + 19).flatMap(({ segments }) => segments);
        expect(net.read(some, 9012)).toEqual(join(header(19), one));
      }
    },
  );

  test.each(ATTACHMENTS)(
    "5.1.6.3.2: without VIRTIO_NET_F_MRG_RXBUF one buffer is used or none, %s",
    async (_attach, options) => {
      const net = await Net.create({ ...options, mergeable: false });
      const buffers = [100, 100, 100].map((length) => net.buffer([length]));
      spare(net);
      const fits = frame(net.guest.mac, 1, 88);
      net.receive(frame(net.guest.mac, 2, 89), fits);
      const used = net.rx.used();
      expect(used.map(({ len }) => len)).toEqual([100]);
      const { segments } = buffers.find(({ id }) => id === used[0]!.id)!;
      expect(net.read(segments)).toEqual(join(header(1), fits));
      expect(net.drops()).toEqual({ tooLarge: 1 });
    },
  );

  test.each(layouts(12 + 300))(
    "5.1.6.4, 2.7.4.1: header and frame go over any layout of descriptors: %s",
    async (_layout, lengths) => {
      for (const indirect of [false, true]) {
        for (const mergeable of [false, true]) {
          const net = await Net.create({ ...format, mergeable, indirect: true });
          const { id, segments } = net.buffer(lengths, indirect);
          const one = frame(net.guest.mac, 1, 300);
          net.receive(one);
          expect(net.rx.used()).toEqual([{ id, len: 312 }]);
          expect(net.read(segments)).toEqual(join(header(1), one));
          expect(net.guarded(segments)).toBe(true);
        }
      }
    },
  );

  test("5.1.6.4.1: buffers of several descriptors are merged as those of one are", async () => {
    const net = await Net.create({ ...format, indirect: true });
    const buffers = [net.buffer([4, 8, 20]), net.buffer([100, 1, 50], true), net.buffer([400, 400])];
    const one = frame(net.guest.mac, 1, 400);
    net.receive(one);
    expect(net.rx.used()).toEqual([32, 151, 412 - 32 - 151].map((len, i) => ({ id: buffers[i]!.id, len })));
    const segments = buffers.flatMap((buffer) => buffer.segments);
    expect(net.read(segments, 412)).toEqual(join(header(3), one));
    expect(net.guarded(segments)).toBe(true);
  });

  test("5.1.6.4.1: a frame for which there are too few buffers is dropped, and uses none", async () => {
    const net = await Net.create(format);
    const buffers = [net.buffer([100]), net.buffer([100])];
    net.receive(frame(net.guest.mac, 1, 189));
    expect([net.rx.used(), net.drops()]).toEqual([[], { full: 1 }]);
    const one = frame(net.guest.mac, 2, 188);
    net.receive(one);
    expect(net.rx.used()).toEqual(buffers.map(({ id }) => ({ id, len: 100 })));
    expect(net.read(buffers.flatMap(({ segments }) => segments))).toEqual(join(header(2), one));
  });

  test("5.1.6.4.1: flags and gso_type of a frame that another guest sent are not passed on", async () => {
    const net = await Net.create(format);
    const { segments } = net.buffer([400]);
    const second = net.host.guest({ attach: "vhost", run: "macswap", ring: 16, mac: "02:00:00:00:00:77" });
    net.sw.connect(second);
    const one = frame("02:00:00:00:00:77", 3, 200, net.guest.mac);
    const from = net.place([212]);
    net.write(from, join(NOISE, one));
    net.tx.offer(from);
    net.poll();
    // As the second guest finds it.
    const driver = net.host.core.u32(second.address + GuestLayout.rx);
    const [id] = idsOf(second, second.rxVirtqueue, driver).used;
    const addr = net.host.core.u32(net.host.core.u32(driver + Driver.shadow) + Packet.SIZE * id!);
    expect(net.host.core.bytes.slice(addr, addr + 212)).toEqual(join(header(1), one));
    // And back, to ours.
    net.host.core.exports.pollGuest(second.address);
    net.poll();
    expect(net.read(segments, 12)).toEqual(header(1));
    expect(net.rx.used().map(({ len }) => len)).toEqual([212]);
  });
});

describe.each(FORMATS)("transmit, %s", (_name, format) => {
  test.each(layouts(12 + 300))(
    "5.1.6.2, 2.7.4.1: header and frame are taken from any layout of descriptors: %s",
    async (_layout, lengths) => {
      for (const indirect of [false, true]) {
        const net = await Net.create({ ...format, indirect: true });
        const one = frame(WIRE, 1, 300, net.guest.mac);
        expect(net.send(join(header(0), one), lengths, indirect)).toEqual([one]);
        expect(net.tx.used()).toEqual([{ id: 0, len: 0 }]); // nothing was written to it
      }
    },
  );

  test("5.1.6.2.2: the device ignores flags, gso_type, hdr_len, csum_start and num_buffers, none of which it offered", async () => {
    const net = await Net.create({ ...format, indirect: true });
    const one = frame(WIRE, 1, 1514, net.guest.mac);
    expect(net.send(join(NOISE, one), [1526])).toEqual([one]);
    expect(net.send(join(NOISE, one), [12, 1514])).toEqual([one]);
    expect(net.send(join(NOISE, one), [3, 9, 1000, 514], true)).toEqual([one]);
    expect(net.drops()).toEqual({});
  });

  test.each([60, 1514, 2048, 2049, 9022])(
    "5.1.6.2: a frame of %i bytes is sent as it is, however it is cut",
    async (length) => {
      const net = await Net.create(format);
      const one = frame(WIRE, 1, length, net.guest.mac);
      const cut = [12 + 30, Math.floor((length - 30) / 2)];
      for (const lengths of [[12 + length], [12, length], [...cut, 12 + length - cut[0]! - cut[1]!]])
        expect(net.send(join(header(0), one), lengths)).toEqual([one]);
    },
  );

  test.each<[string, number[], string]>([
    ["less than the net header", [11], "tooShort"],
    ["the net header alone", [12], "tooShort"],
    ["the net header and less than an Ethernet header", [12, 13], "tooShort"],
    ["more than the longest frame", [12 + 9023], "tooLong"],
    ["more than the longest frame, in two parts", [12, 9023], "tooLong"],
  ])("5.1.6.2: a buffer with %s is given back unsent, and the queue goes on", async (_what, lengths, why) => {
    const net = await Net.create(format);
    const noise = new Uint8Array(lengths.reduce((a, b) => a + b, 0)).fill(0x11);
    expect(net.send(noise, lengths)).toEqual([]);
    expect(net.tx.used().map(({ len }) => len)).toEqual([0]);
    expect(net.drops()[`refused.${why}`]).toBe(1);
    const one = frame(WIRE, 1, 60, net.guest.mac);
    expect(net.send(join(header(0), one), [72])).toEqual([one]);
  });

  test("5.1.6.2: many frames leave in the order in which they were queued, and all buffers come back in it", async () => {
    const net = await Net.create(format);
    const frames = Array.from({ length: 40 }, (_, i) => frame(WIRE, i, 60 + 20 * i, net.guest.mac));
    const ids = frames.map((one, i) => {
      // Some in one descriptor, some in two.
      const segments = net.place(i % 3 ? [12 + one.length] : [12, one.length]);
      net.write(segments, join(header(0), one));
      return net.tx.offer(segments);
    });
    for (let i = 0; i < 3; i++) net.poll();
    expect(sent(net)).toEqual(frames);
    expect(net.tx.used()).toEqual(ids.map((id) => ({ id, len: 0 })));
  });

  test("5.1.6.2: a buffer that the device would have to write is refused", async () => {
    const net = await Net.create(format);
    net.tx.writable = true;
    expect(net.send(join(header(0), frame(WIRE, 1, 60, net.guest.mac)), [72])).toEqual([]);
    expect(net.drops()).toEqual({ "refused.direction": 1 });
  });
});

describe.each(FORMATS)("our driver, %s", (_name, format) => {
  /** Net headers of what the guest has queued for sending, and whether the device may write to any of it. */
  function queued(guest: Guest): { headers: Uint8Array[]; writable: boolean } {
    const { core } = guest.host;
    const driver = core.u32(guest.address + GuestLayout.tx);
    const vq = guest.txVirtqueue;
    const { available } = idsOf(guest, vq, driver);
    const headers = available.map((id) => {
      const addr = core.u32(core.u32(driver + Driver.shadow) + Packet.SIZE * id);
      return core.bytes.slice(addr, addr + NetHeader.SIZE);
    });
    const flags = (i: number) => core.u16(core.u32(vq + Virtqueue.desc) + 16 * i + (format.packed ? 14 : 12));
    const written = Array.from({ length: guest.ring }, (_, i) => flags(i) & DescFlag.WRITE);
    return { headers, writable: written.some((flag) => flag !== 0) };
  }

  test.each<[string, GuestOptions, number]>([
    ["macswap", { run: "macswap" }, 60],
    ["macswap, to a next hop", { run: "macswap", nextHop: WIRE }, 60],
    ["l2fwd", { run: "l2fwd" }, 60],
    ["macswap of a frame over several buffers", { run: "macswap", bufferSize: 512 }, 1514],
  ])("5.1.6.2.1: all of the header is 0, num_buffers included: %s", async (_what, options, length) => {
    for (const attach of ["vhost", "iovtee"] as const) {
      const r = await rig({ ...format, ...options, attach });
      r.nic.receive(Array.from({ length: 5 }, (_, i) => frame(r.guest.mac, i, length)));
      pollSwitch(r.sw);
      r.core.exports.pollGuest(r.guest.address);
      const { headers, writable } = queued(r.guest);
      expect(headers).toEqual(Array(5).fill(header(0)));
      expect(writable).toBe(false);
    }
  });

  test.each([
    [true, NetHeader.SIZE],
    [false, 1526],
  ])(
    "5.1.6.3.1: with VIRTIO_NET_F_MRG_RXBUF %s each receive buffer has at least %i bytes, for the device to write",
    async (mergeable, least) => {
      for (const bufferSize of mergeable ? [64, 512, 2176] : [2176]) {
        const host = await Host.create();
        const guest = host.guest({ ...format, attach: "vhost", mergeable, bufferSize, ring: 32 });
        const desc = guest.region;
        for (let i = 0; i < 32; i++) {
          expect(host.core.u32(desc + 16 * i + 8)).toBeGreaterThanOrEqual(least);
          expect(host.core.u16(desc + 16 * i + (format.packed ? 14 : 12)) & 7).toBe(DescFlag.WRITE);
        }
      }
    },
  );

  /** A frame that has arrived, with its net header changed before the guest looks. */
  async function altered(alter: (at: number, view: DataView) => void) {
    const r = await rig({ ...format, attach: "vhost" });
    const { core, guest } = r;
    const one = frame(guest.mac, 1, 300);
    r.nic.receive([one, frame(guest.mac, 2), frame(guest.mac, 3)]);
    pollSwitch(r.sw);
    const driver = core.u32(guest.address + GuestLayout.rx);
    const [id] = idsOf(guest, guest.rxVirtqueue, driver).used;
    alter(core.u32(core.u32(driver + Driver.shadow) + Packet.SIZE * id!), core.view);
    core.exports.pollGuest(guest.address);
    const { headers } = queued(guest);
    r.host.drain();
    return { r, one, headers, back: sent(r) };
  }

  test("5.1.6.4.2: the driver ignores flags that it doesn't know, and fields that no flag makes valid", async () => {
    const { one, headers, back } = await altered((at, view) => {
      view.setUint8(at + NetHeader.flags, 0xf8);
      for (const field of [NetHeader.hdrLen, NetHeader.gsoSize, NetHeader.csumStart, NetHeader.csumOffset])
        view.setUint16(at + field, 0xffff, true);
    });
    expect(back[0]!.subarray(12)).toEqual(one.subarray(12));
    expect([back.length, headers]).toEqual([3, Array(3).fill(header(0))]);
  });

  test.each([0, 2, 3, 4, 1000, 0xffff])(
    "5.1.6.4.2: a num_buffers of %i for a frame in one buffer costs no buffer",
    async (buffers) => {
      const { r, back } = await altered((at, view) =>
        view.setUint16(at + NetHeader.numBuffers, buffers, true),
      );
      expect(misplaced(r, r.guest)).toEqual([]);
      // What it says is of this burst's buffers; the next burst isn't harmed.
      expect(back.length).toBeLessThanOrEqual(3);
      r.nic.receive([frame(r.guest.mac, 4), frame(BROADCAST, 5)]);
      r.host.drain();
      expect(sent(r).length).toBe(2);
    },
  );

  test.each([500, 1514, 9000])(
    "5.1.6.4.2: a frame of %i bytes over num_buffers buffers is one frame to the guest",
    async (length) => {
      const r = await rig({ ...format, attach: "vhost", bufferSize: 512 });
      const one = frame(r.guest.mac, 1, length);
      r.nic.receive([one]);
      r.host.drain();
      expect(r.host.stats().guests[0]).toMatchObject({ received: 1, drops: {} });
      expect(sent(r).map((back) => back.subarray(12))).toEqual([one.subarray(12)]);
    },
  );
});
