/**
 * Makes the objects of a host: each function allocates what it needs in the directory and returns the object's
 * id, or 0 when the memory is full. Nothing here runs while packets move.
 */
import { Objects } from "./directory";
import { Guests } from "./guest";
import { Mappings } from "./iovtee";
import {
  Feature,
  Generator,
  Guest,
  HEADROOM,
  INDIRECT_ENTRIES,
  Kind,
  Lcore,
  LINE,
  Mapping,
  NetHeader,
  Nic,
  Packet,
  Port,
  PortKind,
  RingKind,
  Rule,
  RxQueue,
  SplitDesc,
  SplitUsed,
  Switch,
  TAKES_NOTHING,
  TxQueue,
  Virtqueue,
} from "./layout";
import { Macs } from "./mactable";
import { Mempool } from "./mempool";
import { Pmd } from "./nic";
import { Desc } from "./packet";
import { Rings } from "./ring";
import { Device } from "./virtqueue/device";
import { Drivers } from "./virtqueue/driver";

export class Setup {
  static bytes(size: u32, parent: u32): u32 {
    return <u32>Objects.addr(Objects.alloc(Kind.BYTES, size, LINE, parent));
  }

  static ring(slots: u32, kind: u32, parent: u32): u32 {
    const id = Objects.alloc(Kind.RING, Rings.bytes(slots), LINE, parent);
    if (id) Rings.init(Objects.addr(id), slots, kind);
    return id;
  }

  /** `count` buffers of `room` bytes behind HEADROOM. */
  static pool(count: u32, room: u32): u32 {
    const id = Objects.alloc(Kind.POOL, Mempool.bytes(), LINE, 0);
    let slots: u32 = 2;
    while (slots < count) slots *= 2;
    const ring = Setup.ring(slots, RingKind.MPMC, id);
    const buffers = Objects.alloc(Kind.BYTES, count * (HEADROOM + room), LINE, id);
    if (!id || !ring || !buffers) return 0;
    Mempool.init(
      Objects.addr(id),
      id,
      count,
      <u32>Objects.addr(buffers),
      HEADROOM,
      room,
      <u32>Objects.addr(ring),
    );
    return id;
  }

  /** A NIC with room for `queues` receive queues; queue 0 is there from the start. */
  static nic(queues: u32, rxSize: u32, txSize: u32, filters: u32, pool: u32): u32 {
    const id = Objects.alloc(Kind.NIC, Nic.SIZE, LINE, 0);
    const table = Setup.bytes(queues * 4, id);
    const tx = Objects.alloc(Kind.TX_QUEUE, TxQueue.SIZE, LINE, id);
    const txRing = Setup.bytes(txSize * Packet.SIZE, tx);
    const macs = Objects.alloc(Kind.MAC_TABLE, Macs.bytes(filters), LINE, id);
    const rss = Setup.bytes(128 + 64, id);
    if (!id || !table || !tx || !txRing || !macs || !rss) return 0;
    const nic = Objects.addr(id);
    const q = Objects.addr(tx);
    store<u32>(q, tx, TxQueue.id);
    store<u32>(q, txRing, TxQueue.ring);
    store<u32>(q, txSize - 1, TxQueue.mask);
    store<u32>(q, <u32>nic, TxQueue.nic);
    Macs.init(Objects.addr(macs), filters);
    store<u32>(nic, id, Nic.id);
    store<u32>(nic, table, Nic.rxTable);
    store<u32>(nic, <u32>q, Nic.tx);
    store<u32>(nic, <u32>Objects.addr(macs), Nic.filters);
    store<u32>(nic, 1, Nic.rssQueues);
    store<u32>(nic, rss, Nic.rssTable);
    store<u32>(nic, rss + 128, Nic.rssKey);
    return Setup.rxQueue(nic, rxSize, pool, 0) ? id : 0;
  }

  /** One more receive queue, filled and enabled; over a mapping it is filled by IOVTee. */
  static rxQueue(nic: usize, size: u32, pool: u32, mapping: u32): u32 {
    const id = Objects.alloc(Kind.RX_QUEUE, RxQueue.SIZE, LINE, load<u32>(nic, Nic.id));
    const ring = Setup.bytes(size * Packet.SIZE, id);
    if (!id || !ring) return 0;
    const q = Objects.addr(id);
    const index = load<u32>(nic, Nic.rxQueues);
    store<u32>(q, id, RxQueue.id);
    store<u32>(q, ring, RxQueue.ring);
    store<u32>(q, size - 1, RxQueue.mask);
    store<u32>(q, <u32>nic, RxQueue.nic);
    store<u32>(q, <u32>Objects.addr(pool), RxQueue.pool);
    store<u32>(q, index, RxQueue.index);
    store<u32>(q, 1, RxQueue.enabled);
    if (mapping) {
      const m = Objects.addr(mapping);
      store<u32>(q, <u32>m, RxQueue.mapping);
      store<u32>(q, NetHeader.SIZE, RxQueue.offset);
      store<u32>(m, <u32>q, Mapping.queue);
      store<u32>(m, 1, Mapping.active);
    } else Pmd.refill(q, 0, size);
    store<u32>(load<u32>(nic, Nic.rxTable) + index * 4, <u32>q);
    store<u32>(nic, index + 1, Nic.rxQueues);
    return id;
  }

  /** A generator of frames; templates, lengths, mix and destinations are written by the caller. */
  static generator(sizes: u32, mixLength: u32, destinations: u32, frameRoom: u32): u32 {
    const id = Objects.alloc(Kind.GENERATOR, Generator.SIZE, LINE, 0);
    const tables = Setup.bytes(sizes * 8, id);
    const templates = Setup.bytes((sizes + 1) * frameRoom, id);
    const mix = Setup.bytes(mixLength, id);
    const to = Setup.bytes(destinations * 12, id);
    const seen = Setup.bytes(Generator.WINDOW, id);
    if (!id || !tables || !templates || !mix || !to || !seen) return 0;
    const gen = Objects.addr(id);
    store<u32>(gen, id, Generator.id);
    store<u32>(gen, sizes, Generator.sizes);
    store<u32>(gen, tables, Generator.templates);
    store<u32>(gen, tables + sizes * 4, Generator.lengths);
    for (let i: u32 = 0; i < sizes; i++) store<u32>(tables + i * 4, templates + i * frameRoom);
    store<u32>(gen, templates + sizes * frameRoom, Generator.scratch);
    store<u32>(gen, mix, Generator.mix);
    store<u32>(gen, mixLength, Generator.mixLength);
    store<u32>(gen, to, Generator.destinations);
    store<u32>(gen, to + destinations * 8, Generator.expected);
    store<u32>(gen, destinations, Generator.destinationCount);
    store<u32>(gen, 1, Generator.flows);
    store<u32>(gen, seen, Generator.seen);
    return id;
  }

  static sw(macs: u32, burst: u32, ageing: u32, pool: u32): u32 {
    const id = Objects.alloc(Kind.SWITCH, Switch.SIZE, LINE, 0);
    const table = Setup.bytes(Switch.PORTS_MAX * 4, id);
    const fdb = Objects.alloc(Kind.MAC_TABLE, Macs.bytes(macs), LINE, id);
    if (!id || !table || !fdb) return 0;
    const sw = Objects.addr(id);
    Macs.init(Objects.addr(fdb), macs);
    store<u32>(sw, id, Switch.id);
    store<u32>(sw, <u32>Objects.addr(fdb), Switch.macs);
    store<u32>(sw, table, Switch.table);
    store<u32>(sw, burst, Switch.burst);
    store<u32>(sw, ageing, Switch.ageing);
    store<u32>(sw, <u32>Objects.addr(pool), Switch.pool);
    memory.fill(sw + Switch.lists, 0xff, Switch.PORTS_MAX * 4);
    return id;
  }

  /** A port at the next number; `to`, `from`: see `Port`. */
  static port(sw: usize, kind: u32, to: u32, from: u32, mapping: u32): u32 {
    const index = load<u32>(sw, Switch.ports);
    if (index == Switch.PORTS_MAX) return 0;
    const id = Objects.alloc(Kind.PORT, Port.SIZE, LINE, load<u32>(sw, Switch.id));
    if (!id) return 0;
    const port = Objects.addr(id);
    const pool = load<u32>(load<u32>(sw, Switch.pool));
    store<u32>(port, id, Port.id);
    store<u32>(port, kind, Port.kind);
    store<u32>(port, index, Port.index);
    store<u32>(port, to, Port.to);
    store<u32>(port, from, Port.from);
    store<u32>(port, mapping, Port.mapping);
    store<u32>(
      port,
      kind != PortKind.VHOST ? pool : mapping ? load<u32>(mapping) : TAKES_NOTHING,
      Port.takes,
    );
    store<u32>(port, 1, Port.learning);
    store<u32>(port, kind == PortKind.NIC ? 1 : 0, Port.trustsMark);
    if (kind == PortKind.NIC) store<u32>(to, index, Nic.port);
    if (mapping) store<u32>(mapping, index, Mapping.port);
    store<u32>(load<u32>(sw, Switch.table) + index * 4, <u32>port);
    store<u32>(sw, index + 1, Switch.ports);
    store<u32>(port, 1, Port.up);
    return id;
  }

  /** The device's side of a virtqueue of the guest in `region`; not ready before its driver has set it up. */
  static virtqueue(region: u32): u32 {
    const id = Objects.alloc(Kind.VIRTQUEUE, Virtqueue.SIZE, LINE, region);
    if (!id) return 0;
    const vq = Objects.addr(id);
    store<u32>(vq, id, Virtqueue.id);
    store<u32>(vq, <u32>Objects.addr(region), Virtqueue.base);
    store<u32>(vq, load<u32>(Objects.entry(region), 8), Virtqueue.limit);
    return id;
  }

  /** A PRing of at least `size` slots over the guest's receive virtqueue. */
  static mapping(virtqueue: usize, size: u32, onEmpty: u32, scrub: u32): u32 {
    let slots: u32 = 1;
    while (slots < size) slots *= 2;
    const id = Objects.alloc(Kind.MAPPING, Mappings.bytes(slots), LINE, 0);
    if (id) Mappings.init(Objects.addr(id), id, <u32>virtqueue, 0, slots, onEmpty, scrub);
    return id;
  }

  /**
   * A guest in `region`: lays out its rings and buffers from guest address 0 on, sets up both of its queues
   * (`rxq`, `txq`: the device's sides) and posts its first buffers. 0 when the region has no room.
   */
  static guest(
    region: u32,
    rxq: usize,
    txq: usize,
    size: u32,
    features: u32,
    polls: u32,
    headroom: u32,
    bufferSize: u32,
  ): u32 {
    const id = Objects.alloc(Kind.GUEST, Guest.SIZE, LINE, region);
    const base = <u32>Objects.addr(region);
    const bytes = load<u32>(Objects.entry(region), 8);
    const indirect = (features & Feature.INDIRECT_DESC) != 0;
    const rx = Objects.alloc(Kind.DRIVER, Drivers.bytes(size, false), LINE, id);
    const tx = Objects.alloc(Kind.DRIVER, Drivers.bytes(size, indirect), LINE, id);
    if (!id || !rx || !tx) return 0;
    const ring = Objects.align(size * SplitDesc.SIZE, LINE);
    const driverArea: u32 = Objects.align(6 + 2 * size, LINE);
    const deviceArea = Objects.align(6 + SplitUsed.ELEMENT * size, LINE);
    const queue: u32 = ring + driverArea + deviceArea;
    const tables: u32 = indirect ? size * INDIRECT_ENTRIES * SplitDesc.SIZE : 0;
    const first: u32 = 2 * queue + tables;
    if (first + bufferSize > bytes) return 0;
    const buffers = min<u32>((bytes - first) / bufferSize, 65535);
    const free = Setup.bytes(buffers * Packet.SIZE, id);
    if (!free) return 0;
    // The receive ring never offers more than the device's size; features that only one side has don't count.
    if (!Device.start(rxq, 0, ring, ring + driverArea, size, features)) return 0;
    if (!Device.start(txq, queue, queue + ring, queue + ring + driverArea, size, features)) return 0;
    Drivers.init(
      Objects.addr(rx),
      base,
      base + ring,
      base + ring + driverArea,
      size,
      features,
      base,
      polls,
      0,
    );
    const t = base + queue;
    const table = indirect ? base + 2 * queue : 0;
    Drivers.init(Objects.addr(tx), t, t + ring, t + ring + driverArea, size, features, base, polls, table);
    const g = Objects.addr(id);
    store<u32>(g, id, Guest.id);
    store<u32>(g, base, Guest.region);
    store<u32>(g, bytes, Guest.regionSize);
    store<u32>(g, <u32>Objects.addr(rx), Guest.rx);
    store<u32>(g, <u32>Objects.addr(tx), Guest.tx);
    store<u32>(g, free, Guest.free);
    store<u32>(g, base + first, Guest.buffers);
    store<u32>(g, bufferSize, Guest.bufferSize);
    store<u32>(g, headroom, Guest.headroom);
    store<u32>(g, 32, Guest.burst);
    const one = g + Guest.scratch;
    for (let i: u32 = buffers; i-- > 0; ) {
      v128.store(one, Desc.make(0, 0, 0, 0, i, 0, 0));
      Guests.give(g, one, 1);
    }
    Guests.poll(g);
    return id;
  }

  /** Room for `n` firewall rules; the caller writes them (`Rule`). Returns their address. */
  static rules(g: usize, n: u32): u32 {
    const addr = Setup.bytes(max<u32>(n, 1) * Rule.SIZE, load<u32>(g, Guest.id));
    store<u32>(g, addr, Guest.table);
    store<u32>(g, n, Guest.tableLength);
    return addr;
  }

  static lcore(): u32 {
    const id = Objects.alloc(Kind.LCORE, Lcore.SIZE, LINE, 0);
    if (id) store<u32>(Objects.addr(id), id, Lcore.id);
    return id;
  }
}
