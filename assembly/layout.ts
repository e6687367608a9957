/**
 * Every structure that lives in the host's memory: the one place where an offset is written down.
 * Imported by assembly/ (AssemblyScript) and by src/ (TypeScript) alike.
 *
 * One WebAssembly.Memory is the physical memory of a host. Its size never changes.
 *
 *     0          64 KiB                                                          end
 *     | reserved | directory | pools, rings, queues, tables ... | guest 0 | guest 1 |
 *
 * Address 0 is never a valid object, so 0 means "none" wherever an address is stored.
 * All numbers are little-endian. "u64 counter" fields are only added to by their one writer.
 */

/** Size of a WebAssembly page, and the alignment of a guest's region. */
export const PAGE = 65536;

/** Cache line: fields written by different sides stand on different lines. */
export const LINE = 64;

/**
 * The directory: what lies where, so that any instance in any thread attaches by address alone.
 *
 *     DIRECTORY  magic | version | top | end | count | lock |          64 bytes
 *     + 64       entry 0 | entry 1 | ...                               32 bytes each
 *
 * `top` is the first byte never handed out. Entry 0 is not used, so that index 0 means "none".
 * An entry's index is the object's **id**: the `owner` in a packet's descriptor.
 */
export enum Directory {
  ADDRESS = 65536,
  MAGIC = 0x54564f49, // "IOVT"
  VERSION = 1,
  ENTRIES = 16384,
  magic = 0,
  version = 4,
  top = 8,
  end = 12,
  count = 16,
  lock = 20,
  /** Seconds since the host began, written by whoever drives the lcores; ageing is counted in it. */
  clock = 24,
  /** The same in microseconds, running free: rates are counted in it. */
  micros = 28,
  entries = 64,
}

/** One entry of the directory. A freed entry keeps its place and size, and is handed out again. */
export enum Entry {
  kind = 0,
  addr = 4,
  size = 8,
  parent = 12,
  name = 16,
  NAME_BYTES = 16,
  SIZE = 32,
}

/** What an object is. */
export enum Kind {
  FREE = 0,
  BYTES = 1,
  RING = 2,
  POOL = 3,
  NIC = 4,
  RX_QUEUE = 5,
  TX_QUEUE = 6,
  GENERATOR = 7,
  REGION = 8,
  GUEST = 9,
  VIRTQUEUE = 10,
  DRIVER = 11,
  MAPPING = 12,
  SWITCH = 13,
  PORT = 14,
  MAC_TABLE = 15,
  LCORE = 16,
  PCI_FUNCTION = 24,
  VEB = 25,
  VDPDK = 27,
  VDPDK_DEVICE = 28,
  VDPDK_RX = 29,
  VDPDK_TX = 30,
  FLOW_TABLE = 26,
  RTE_FLOW_TABLE = 32,
  NETMAP_RING = 40,
  BRIDGE = 41,
}

/**
 * A packet's descriptor, 16 bytes, travelling by value: one v128 load and one store.
 *
 *     0        4      6        8       10      12     14     16
 *     | addr   | len  | flags  | owner | index | room | mark |
 *       u32      u16    u16      u16     u16     u16    u16
 *
 * addr   offset in memory of the segment's first byte
 * len    bytes in this segment; while a buffer is posted for receive, the room in it
 * owner  directory id of who gets the buffer back: a pool, a mapping, a virtqueue
 * index  its number there (pool: the buffer; virtqueue and mapping: the buffer id of the ring)
 * room   bytes of the whole buffer: `len` as it is when the buffer is empty
 * mark   what the NIC's filter said: 1 + the switch port that it goes to, 0 for nothing; or what an rte_flow rule's
 *        `mark` said, with RTE_FLOW_MARK set: no port has such a number, so neither is taken for the other.
 *        In a virtqueue's buffer: the ring descriptors that it takes (packed rings step by them).
 */
export enum Packet {
  addr = 0,
  len = 4,
  flags = 6,
  owner = 8,
  index = 10,
  room = 12,
  mark = 14,
  SIZE = 16,
}

export enum PacketFlag {
  /** The next descriptor continues this frame. */
  MORE = 1,
  /** NIC descriptor rings: the card has finished with this descriptor ("DD"). */
  DONE = 2,
  /** Received: continues the frame of the descriptor before. */
  REST = 4,
  /** On its way into a switch: the sender's address isn't learned from this frame (netmap's NS_NO_LEARN). */
  NO_LEARN = 32,
  /**
   * In a frame's first transmit descriptor: what the card is to do before it sends it. `room` is then the bytes of payload
   * in each segment of TCP, `mark` the VLAN tag.
   */
  TX_IPV4_CHECKSUM = 8,
  TX_L4_CHECKSUM = 16,
  TX_TSO = 64,
  TX_VLAN = 8192,
  TX_OFFLOADS = 8280,
  /** In a frame's first received descriptor, where its queue asks for that: what the card found. `mark` is the VLAN tag. */
  RX_IPV4_GOOD = 128,
  RX_IPV4_BAD = 256,
  RX_L4_GOOD = 512,
  RX_L4_BAD = 1024,
  RX_VLAN = 2048,
  RX_HASH = 4096,
  /** `room` is what a flow rule's `mark` said. */
  RX_MARK = 16384,
  RX_OFFLOADS = 24448,
}

/** What a card, or the host in its place, does to frames: DPDK's RTE_ETH_RX_OFFLOAD and RTE_ETH_TX_OFFLOAD. */
export enum Offload {
  /** Received: verified; sent: filled in. */
  IPV4_CHECKSUM = 1,
  UDP_CHECKSUM = 2,
  TCP_CHECKSUM = 4,
  /** Sent: cuts TCP's payload into frames. */
  TSO = 8,
  /** Received: the outer tag is taken off; sent: put on. */
  VLAN = 16,
  /** Received: the hash of the frame's flow. */
  RSS = 32,
  /** A frame may stand in several buffers. */
  MULTI_SEGMENT = 64,
  /** Received: what a flow rule's `mark` said (DPDK's RTE_ETH_RX_METADATA_USER_MARK). */
  MARK = 128,
  CHECKSUMS = 7,
  ALL = 255,
}

/** Entries of the indirection table of RSS. */
export const RSS_TABLE_SIZE = 128;

/** Longest frame that is carried, in bytes without FCS: a 9000-byte MTU, its header and two tags. */
export const FRAME_MAX = 9022;
/** Bytes kept for one frame where frames lie side by side: the longest and one more, in whole lines. */
export const FRAME_ROOM = 9088;
/** Shortest: an Ethernet header. */
export const FRAME_MIN = 14;
/** Most frames in one burst. */
export const BURST_MAX = 256;

/**
 * Ring of packet descriptors, single producer and single consumer. Indices run free.
 *
 *     line 0  mask | kind | armed | bell   seldom written
 *     line 1  head | cached tail      written by the producer
 *     line 2  tail | cached head      written by the consumer
 *     line 3  slots ...               16 bytes each, a power of two of them
 *
 * Several producers and consumers (RingKind.MPMC) have two indices a side, as DPDK's rte_ring has:
 * `head` reserves, `headDone` publishes; the same for `tail`.
 */
export enum Ring {
  mask = 0,
  kind = 4,
  /** 1: the consumer sleeps, and wants to be told of new descriptors; and the poller to ring for, or 0. */
  armed = 8,
  bell = 12,
  head = 64,
  tailCache = 68,
  headDone = 68,
  tail = 128,
  headCache = 132,
  tailDone = 132,
  slots = 192,
}

export enum RingKind {
  SPSC = 0,
  MPMC = 1,
}

/**
 * Pool of equal buffers in host memory: a LIFO cache for each lcore over a shared MPMC ring.
 *
 *     header | cache of lcore 0 | cache of lcore 1 | ...        (the buffers and the ring stand elsewhere)
 *
 * A cache holds ready descriptors, the last freed on top.
 */
export enum Pool {
  id = 0,
  count = 4,
  stride = 8,
  room = 20,
  ring = 24,
  /** Packet: buffer 0 as it is when it's free: behind its headroom, `len` the room in it. */
  blank = 32,
  caches = 64,
}

export enum PoolCache {
  length = 0,
  /** u64 counters: buffers taken and given back by this lcore; their sums over lcores give what is out. */
  allocated = 8,
  freed = 16,
  /** u64 counter: packets that found no buffer. */
  failed = 24,
  slots = 64,
  CAPACITY = 512,
  /** How many move between cache and ring at a time. */
  CHUNK = 256,
  SIZE = 8256, // slots + CAPACITY * Packet.SIZE
}

export const LCORES_MAX = 8;
export const HEADROOM = 128;
export const BUFFER_ROOM = 2048;

/**
 * The NIC. Its descriptors are packet descriptors with a DONE flag: the card carries owner and index
 * through as ena, virtio and mlx5 carry their request ids.
 */
export enum Nic {
  id = 0,
  rxQueues = 8,
  /** u32 addresses of receive queues, in memory of its own. */
  rxTable = 12,
  tx = 16,
  /** MAC table of the receive filters: the value is queue | mark << 16. */
  filters = 20,
  /** Queues 0 .. rssQueues-1 share what no filter names, by the RSS hash. */
  rssQueues = 28,
  rssKey = 32,
  /** u8[RSS_TABLE_SIZE] indirection table. */
  rssTable = 36,
  /** TxQueue that the wire is sent from: `tx`, or, of a card with functions that guests own, that of its packet buffer. */
  wire = 56,
  /** Its embedded switch, where guests own functions of it; or 0. */
  veb = 60,
  /** RteFlowTable of the rules that the card follows; or, where it can't, of those that the driver does. 0: none. */
  flows = 40,
  driverFlows = 44,
  /** Scratch for the card's parser: a flow key and its RSS input. */
  scratch = 128,
  /** u64 counters of the link. */
  rxPackets = 64,
  rxBytes = 72,
  rxNoBuffer = 80,
  rxOversize = 88,
  rxRunt = 96,
  rxStopped = 104,
  txPackets = 112,
  txBytes = 120,
  /** Frames that an rte_flow rule dropped; that the driver had to drop, since the ring to their queue was full. */
  rxFlowDrop = 208,
  rxFlowFull = 216,
  /** What the card can do by itself, in bits of `Offload`; and where it puts together what it changes before it's sent. */
  offloads = 48,
  assembly = 52,
  /** u64 counters: frames that it has done something to by itself, received and sent; those that it could not. */
  offloaded = 240,
  txMalformed = 248,
  SIZE = 256,
}

/** How a card's receive queue is served. */
export enum NicMode {
  /** Polled without end; an lcore on a worker that finds nothing for long sleeps. */
  POLL = 0,
  /** By its interrupts only: `RxQueue.budget` frames for each, then it is unmasked again. */
  INTERRUPT = 1,
  /** Polled while frames come; after `ADAPTIVE_PATIENCE` empty polls unmasked and left until the interrupt. */
  ADAPTIVE = 2,
}

/** Empty polls of an adaptive queue before it waits for an interrupt (DPDK's l3fwd-power: SUSPEND_THRESHOLD). */
export const ADAPTIVE_PATIENCE = 300;

/**
 * Receive descriptor ring of the NIC.
 *
 *     line 0  configuration
 *     line 1  card's side: next descriptor to fill
 *     line 2  driver's side: next to take, first not posted
 *     line 3  tail register ("doorbell") and interrupt mask, written by the driver, read by the card
 */
export enum RxQueue {
  id = 0,
  ring = 4,
  mask = 8,
  nic = 12,
  pool = 16,
  /** IOVTee mapping that supplies the buffers, or 0. */
  mapping = 20,
  /** Bytes that the card leaves free in front of a frame in its first buffer (as mvneta's "packet offset"). */
  offset = 24,
  /** Written by the driver: 1 to receive. The card answers in `running` when no DMA is under way. */
  enabled = 28,
  index = 32,
  /** Switch port that its frames come in at. */
  port = 36,
  /** The poller that its interrupt rings for, or 0. */
  bell = 40,
  /** NicMode. */
  mode = 44,
  /** Frames taken at a time, or for one interrupt; 0: the switch's burst for each other port. */
  budget = 48,
  /** Where the driver follows rte_flow rules: Ring of the frames that they bring here from other queues. */
  brought = 52,
  /** The bridge that takes from it instead of a switch, or 0. */
  bridge = 60,
  /** 1: its buffers are a guest's own, of a vDPDK device. */
  guest = 56,
  running = 64,
  head = 68,
  /** First descriptor of the burst being written; published last. */
  first = 72,
  pending = 76,
  packets = 80,
  noBuffer = 88,
  /** What the card knows of the tail register. */
  tailCache = 96,
  /** The card has had no descriptor for a frame since it last raised an interrupt. */
  missed = 100,
  /** What the card does to its frames, in bits of `Offload`. */
  offloads = 112,
  /** 1: the card gives it a copy of each frame to a group of stations. */
  groups = 116,
  /** u64 counter: interrupts that the card raised when a burst arrived. */
  interrupts = 104,
  next = 128,
  posted = 132,
  /** u64 counters: polls, and interrupts that were pending when the driver unmasked them. */
  polls = 136,
  pended = 144,
  /** Frames that the driver's rules have brought to other queues or dropped, since that was asked last. */
  away = 152,
  tail = 192,
  /**
   * Interrupt mask: 0, or 2 * `next` + 1 where the driver wants an interrupt for the descriptor `next` and those behind
   * it. Who raises the interrupt swaps it for 0: so there is one for each time that it was unmasked.
   */
  armed = 196,
  SIZE = 256,
}

/** Transmit descriptor ring; lines as in RxQueue. */
export enum TxQueue {
  id = 0,
  ring = 4,
  mask = 8,
  /** 1: the card's side sleeps, and wants to be told of new descriptors; and the poller to ring for, or 0. */
  armed = 12,
  bell = 16,
  /** The poller that is rung for when something has been sent, or 0. */
  doneBell = 20,
  head = 64,
  next = 128,
  clean = 132,
  tail = 192,
  /** 1: the driver sleeps, and wants an interrupt when something has been sent. */
  doneArmed = 196,
  SIZE = 256,
}

/** Page of an IOMMU, in bytes. */
export const IO_PAGE = 4096;

/** What a device may do with a page. */
export enum IoAccess {
  READ = 1,
  WRITE = 2,
}

/**
 * An IOMMU's table for one function of a card: what of a guest's memory its DMA reaches. I/O virtual addresses are
 * guest addresses, as VFIO maps a guest's memory.
 */
export enum Iommu {
  /** Address and bytes of the guest's region. */
  base = 0,
  limit = 4,
  /** u8 for each page: IoAccess bits. */
  pages = 8,
  /** Guest address of the last access that was refused. */
  faultAddress = 12,
  SIZE = 16,
}

/** Most descriptors of one frame in a function's ring, as i40e has it for what is sent. */
export const FUNCTION_SEGMENTS = 8;
/** Shortest receive buffer that a function takes, in bytes. */
export const FUNCTION_BUFFER_MIN = 64;

/**
 * A descriptor ring of a function, in the guest's memory: packet descriptors as of the card's own rings, but with guest
 * addresses. What stands here is the card's, and out of the guest's reach, but for its registers.
 *
 *     line 0  configuration
 *     line 1  card's side: next descriptor
 *     line 2  registers, written by the guest's driver: tail ("doorbell"), interrupt mask
 */
export enum FunctionRing {
  /** Guest address of the ring. */
  ring = 0,
  mask = 4,
  /** 1: the card uses it. */
  running = 8,
  /** 0, or the Fault that stopped this ring until the driver resets it. */
  broken = 12,
  /** The guest's poller that its interrupt rings for, or 0. */
  bell = 16,
  head = 64,
  /** Received: address of the burst's first descriptor, whose DONE is written last, and its len and flags; 0: none. */
  first = 68,
  firstWord = 72,
  /** Sent: some since the last interrupt. */
  sent = 76,
  tail = 128,
  /** 1: the guest's driver sleeps, and wants an interrupt. */
  armed = 132,
  SIZE = 192,
}

/** Why a ring of a function was stopped: the card's malicious driver detection. */
export enum Fault {
  NONE = 0,
  /** The IOMMU: address plus length leaves the guest's region. */
  ADDRESS = 1,
  /** The IOMMU: a page that isn't mapped, or not for this. */
  UNMAPPED = 2,
  /** A buffer of no length, one too short to receive into, or a frame longer than any. */
  LENGTH = 3,
  /** A frame of more descriptors than the card takes for one. */
  CHAIN = 4,
  /** The tail register is further than the ring is long. */
  TAIL = 5,
}

/** Why a frame for a function, or from it, was dropped. */
export enum FunctionDrop {
  /** The guest has posted too few buffers. */
  NO_BUFFER = 0,
  /** Its ring doesn't run, or its link is down. */
  STOPPED = 1,
  OVERSIZE = 2,
  RUNT = 3,
  /** From another MAC address than the function's. */
  SPOOFED = 4,
  /** Tagged with a VLAN that the function isn't in, or tagged by the guest where the card tags. */
  VLAN = 5,
  /** To the function itself. */
  HAIRPIN = 6,
  /** 01-80-C2-00-00-0x: pause frames and the bridges' own protocols are not for guests to send. */
  LINK_LOCAL = 7,
  COUNT = 8,
}

/**
 * A function of a card that a guest owns: a VF, or with passthrough the whole port.
 *
 *     configuration, written by the host | IOMMU | card's side | counters | segments | receive ring | transmit ring
 */
export enum PciFunction {
  id = 0,
  nic = 4,
  /** Its number on the card. */
  index = 8,
  /** VLAN that the card tags its frames with and strips; 0: none. */
  vlan = 12,
  mac = 16,
  /** Bitmap of 4096 bits of the VLANs that the guest tags itself, or 0: none. */
  vlans = 24,
  /** 1: its link is up. */
  up = 28,
  spoofCheck = 32,
  /** It gets copies of all frames of its VLANs; of all to groups. */
  promiscuous = 36,
  allMulticast = 40,
  /** What it may send, in Mbit/s, which are bits per microsecond; 0: no limit. */
  rate = 44,
  iommu = 48,
  /** Bytes that it may send in this round, and bits by its rate; both are overdrawn by up to one frame (i32, i64). */
  deficit = 64,
  /** `Directory.micros` when bits were granted last. */
  granted = 68,
  tokens = 72,
  /** Descriptors of the frame that was read last. */
  taken = 80,
  /** u64 counters. */
  rxPackets = 128,
  rxBytes = 136,
  txPackets = 144,
  txBytes = 152,
  interrupts = 160,
  /** u64 counters by FunctionDrop, and by Fault. */
  drops = 192,
  faults = 256,
  /** Of the frame that is being written: where in memory its buffers are, and their descriptors (u32 address, len, descriptor). */
  segments = 320,
  rx = 448,
  tx = 640,
  SIZE = 832,
}

/**
 * A card's embedded switch (802.1Qbg "VEB"): joins the functions that guests own, the host's own queues and the wire.
 * What is sent is read once into the packet buffer, and switched and sent from there.
 */
export enum Veb {
  id = 0,
  /** Functions in the table; some may be 0. */
  count = 4,
  /** u32 addresses of the functions. */
  table = 8,
  /** The function that has the whole port (passthrough), or 0. */
  owner = 12,
  /** MAC table: function number by MAC and VLAN. */
  macs = 16,
  /** Whose turn it is to send, 0 the host's queue, and what that may still send in its turn (i32). */
  turn = 20,
  deficit = 24,
  /** Functions that are promiscuous. */
  promiscuous = 28,
  /** Packet buffer: frames that wait for the wire, in the order of `Nic.wire`; its bytes; where the next one goes. */
  buffer = 32,
  bufferBytes = 36,
  bufferNext = 40,
  /** Frames that the card has made so far of the host's next one, where that asks for offloads. */
  made = 44,
  /** u64 counters: copies that the card made from one function to another, and their bytes. */
  copies = 64,
  copiedBytes = 72,
  SIZE = 128,
}

/** Most functions of a card besides the host's. */
export const FUNCTIONS_MAX = 256;

/**
 * The generator and checker on the far end of the wire.
 * Each frame: Ethernet, IPv4, UDP, then sequence number (u32), its complement, the source port's complement.
 * A number and its complement add up to all ones, so the UDP checksum is the same for every frame of a size.
 *
 *     0        14      34     42     46      50       52
 *     | eth    | ipv4  | udp  | seq  | ~seq  | ~port  | pattern ...
 */
export enum Generator {
  id = 0,
  sizes = 4,
  /** u32 addresses of one frame template a size, and their lengths behind. */
  templates = 8,
  lengths = 12,
  /** u8 table that says which size frame n has: mix[n % mixLength]. */
  mix = 16,
  mixLength = 20,
  /** MAC addresses (u64 each) that frames go to in turn. */
  destinations = 24,
  destinationCount = 28,
  flows = 32,
  /** Next sequence number to send. */
  seq = 36,
  /** u32 by sequence number modulo `orders`: the one that is expected next of those that must keep their order. */
  expected = 40,
  /** u8 per sequence number modulo `WINDOW`: 1 once it has come back. */
  seen = 44,
  /** Where a frame of several segments is put together to be checked. */
  scratch = 48,
  orders = 52,
  sent = 64,
  sentBytes = 72,
  received = 80,
  receivedBytes = 88,
  duplicated = 96,
  reordered = 104,
  corrupt = 112,
  SIZE = 128,
  WINDOW = 65536,
}

/** Offsets in a generated frame. */
export enum Generated {
  sourcePort = 34,
  /** A guest's function may change the MAC addresses: checked from here on. */
  etherType = 12,
  seq = 42,
  seqComplement = 46,
  /** Complement of the source port, which tells the flow. */
  portComplement = 50,
  pattern = 52,
  MIN = 60,
}

/**
 * virtio 1.2, 2.7 "Split Virtqueues": descriptor, avail ring, used ring.
 * The guest's own bytes: nothing here is trusted.
 */
export enum SplitDesc {
  addr = 0,
  len = 8,
  flags = 12,
  next = 14,
  SIZE = 16,
}
export enum SplitAvail {
  flags = 0,
  idx = 2,
  ring = 4,
}
export enum SplitUsed {
  flags = 0,
  idx = 2,
  ring = 4,
  ELEMENT = 8,
}
/** virtio 1.2, 2.8 "Packed Virtqueues": descriptor and event suppression structure. */
export enum PackedDesc {
  addr = 0,
  len = 8,
  id = 12,
  flags = 14,
  SIZE = 16,
}
export enum PackedEvent {
  offWrap = 0,
  flags = 2,
  ENABLE = 0,
  DISABLE = 1,
  DESC = 2,
}
export enum DescFlag {
  NEXT = 1,
  WRITE = 2,
  INDIRECT = 4,
  AVAIL = 0x80,
  USED = 0x8000,
}
/** 2.7.10, 2.7.6: the only flag of the avail ring (NO_INTERRUPT) and of the used ring (NO_NOTIFY). */
export const RING_FLAG_NO_EVENT = 1;

/** 5.1.6 virtio-net header, 12 bytes with VIRTIO_F_VERSION_1. */
export enum NetHeader {
  flags = 0,
  gsoType = 1,
  hdrLen = 2,
  gsoSize = 4,
  csumStart = 6,
  csumOffset = 8,
  numBuffers = 10,
  SIZE = 12,
}

/** Feature bits, as one u32 of ours (virtio's own numbers reach 64: `src/roles/guest.ts` has both). */
export enum Feature {
  MRG_RXBUF = 1,
  INDIRECT_DESC = 2,
  EVENT_IDX = 4,
  IN_ORDER = 8,
  PACKED = 16,
}

/** Longest virtqueue, in descriptors. */
export const QUEUE_MAX = 1024;

/**
 * The device's side of a virtqueue: host memory, never seen by the guest.
 * `desc`, `driver`, `device` are the three areas (2.7: descriptor table, avail, used), already translated
 * and checked; `base` and `limit` are the guest's region.
 */
export enum Virtqueue {
  id = 0,
  base = 4,
  limit = 8,
  desc = 12,
  driver = 16,
  device = 20,
  size = 24,
  features = 28,
  /** 0, or the Refusal that stopped this queue until the driver resets it (2.1.2 DEVICE_NEEDS_RESET). */
  broken = 32,
  ready = 36,
  /**
   * What the host makes of this queue's plain buffers: their direction (DescFlag.WRITE or 0), their shortest length and
   * by how many bytes they may be longer, and how many in front are left out (a net header that the device reads).
   */
  direction = 40,
  least = 44,
  range = 48,
  skip = 52,
  /** Poller of the driver's that is rung for when the driver wants a notification, or 0. */
  bell = 56,
  /** Zero-copy transmit: the card's TxQueue that is given this queue's buffers as they are, or 0. */
  lendsTo = 60,
  /** Next available entry (split: free running; packed: position), and how far the driver is known to be. */
  avail = 64,
  availCache = 68,
  availWrap = 72,
  /** Next used entry; for packed rings its wrap counter too. */
  used = 76,
  usedWrap = 80,
  /** Split: `used` as published last. Packed: the first descriptor of the burst, whose flags go last. */
  published = 84,
  pending = 88,
  pendingFlags = 92,
  /** Buffers taken from the driver and not given back yet; of those the ones that the card holds. */
  taken = 96,
  lent = 100,
  /** u64 counters. */
  notifications = 144,
  refused = 152,
  /** u64 counters by Refusal. */
  refusals = 192,
  /** Packet: what a taken buffer's descriptor begins as: owner, mark 1. */
  blank = 272,
  SIZE = 320,
}

/** Why a buffer of the guest's was not used. From LOOP on the queue is broken until it is reset; in order also
 * by a refusal behind buffers that aren't given back. */
export enum Refusal {
  NONE = 0,
  /** Address plus length leaves the guest's region. */
  OUT_OF_REGION = 1,
  /** A device-readable buffer where a device-writable one is needed, or the reverse (2.7.4.2). */
  DIRECTION = 2,
  /** No byte in it, or no room for the net header. */
  TOO_SHORT = 3,
  TOO_LONG = 4,
  /** Indirect table not a multiple of 16, empty, longer than the queue, nested, or joined with NEXT (2.7.5.3). */
  INDIRECT = 5,
  /** The chain does not end within the queue's size (2.7.5.1). */
  LOOP = 6,
  /** `next` or the head of a chain is outside the table. */
  INDEX = 7,
  /** The avail index moved by more than the queue holds. */
  AVAIL_JUMP = 8,
  COUNT = 9,
}

/**
 * The driver's side of a virtqueue: the guest's private memory (a real guest's would be its own kernel's).
 * A native driver, of a card's own ring, keeps its state here too: `desc` is the ring, `device` the card's registers of it
 * (layout: `FunctionRing`), `avail` and `lastUsed` run free, and the shadow is as the ring is.
 *
 *     header | free ids u16[size] | shadow: Packet[size] | shadow of indirect tables: Packet[size][INDIRECT_ENTRIES]
 */
export enum Driver {
  desc = 4,
  driver = 8,
  device = 12,
  size = 16,
  features = 20,
  /** Start of the guest's region, for translating back. */
  base = 24,
  /** DriverMode: whether it asks for notifications. */
  mode = 28,
  /** Next available entry (split: free running; packed: position), and the wrap counter. */
  avail = 32,
  availWrap = 36,
  lastUsed = 40,
  usedWrap = 44,
  freeIds = 48,
  freeCount = 52,
  shadow = 56,
  /** Under VIRTIO_F_IN_ORDER: ids go round; the next one to hand out and the oldest one outstanding. */
  nextId = 60,
  oldest = 64,
  /** Address in the region of the indirect tables, or 0 where none are used; and of their shadow. */
  indirect = 68,
  indirectShadow = 72,
  /** Split: `avail` as published. Packed: position and flags of the burst's first descriptor, and its length. */
  published = 76,
  headFlags = 80,
  pending = 84,
  /** Under VIRTIO_F_IN_ORDER: 1 while a batch is gone through, and the used element that told of it. */
  inBatch = 88,
  /**
   * What the device says it wrote is or-ed with this: 0, or all ones where it only reads, so that a buffer keeps its
   * length (a virtio-net queue has one direction).
   */
  ignored = 92,
  /** u64 counters: notifications sent to the device, used entries that named no outstanding buffer. */
  kicks = 96,
  badUsed = 104,
  batch = 112,
  /** Poller of the device's that is rung for when the device wants a notification, or 0. */
  bell = 120,
  /** Native, transmit: the card's TxQueue whose `armed` says that the card's side sleeps; or 0. */
  card = 124,
  SIZE = 128,
}

export enum DriverMode {
  /** Notified of each used buffer. */
  INTERRUPT = 0,
  /** Asks for no notifications. */
  POLL = 1,
  /** Polls as a rule, but sleeps now. */
  ARMED = 2,
}

/** Shadow entries only: `addr` is a list of `len` segments that stand in an indirect table. */
export const SHADOW_LIST = 8;
/** Shadow entries only: not the first of its chain. */
export const SHADOW_REST = 16;

/** Segments that one indirect table of the guest's driver holds. */
export const INDIRECT_ENTRIES = 8;

/** What a guest's driver drives. */
export enum DriverKind {
  /** virtio-net over split or packed virtqueues. */
  SPLIT = 0,
  PACKED = 1,
  /** A netmap port. */
  NETMAP = 2,
  /** A card's own descriptor rings: a poll-mode driver. */
  NATIVE = 3,
  VDPDK = 4,
}

/**
 * A netmap ring: what its user and the host share (netmap.h, `struct netmap_ring`, with the two control blocks of
 * `nm_csb_atok` and `nm_csb_ktoa`). It lies in the memory of the port that it is of.
 *
 *     line 0  head | cur | needKick      written by the user
 *     line 1  hwcur | hwtail | needKick  written by the host
 *     line 2  slots ...                  16 bytes each, a power of two of them
 *
 * All indices are slot numbers. The user owns the slots [head, hwtail), the host the others; one slot of a ring is always
 * the host's. Each slot has a buffer.
 *
 *         head    cur          hwtail
 *     ----|-------|============|-------------   receive ring: [head, hwtail) are frames, of which the user has looked at
 *         |<------ user ------>|                those before cur; transmit ring: the same are slots to be written
 */
export enum NetmapRing {
  /** First slot that the user keeps: those before are handed over. */
  head = 0,
  /** First slot that it hasn't looked at. */
  cur = 4,
  /** Not 0: the user is about to sleep, and wants to be told of the next change of `hwtail`. */
  needKick = 8,
  /** First slot that the host hasn't taken note of, and first one that it keeps (`tail` of the user's). */
  hwcur = 64,
  hwtail = 68,
  /** Not 0: the host is about to sleep, and wants to be told of the next change of `head`. */
  hostNeedKick = 72,
  slots = 128,
}

/** A slot, in netmap's one flat format (netmap.h, `struct netmap_slot`). */
export enum NetmapSlot {
  /** Number of its buffer in the port's memory. */
  bufIdx = 0,
  len = 4,
  flags = 6,
  /** Of an indirect buffer: its guest address (u64). */
  ptr = 8,
  SIZE = 16,
}

/** Flags of a slot, NS_* in netmap.h. */
export enum SlotFlag {
  /** `bufIdx` was changed. */
  BUF_CHANGED = 1,
  /** The user wants a notification when this has been sent. */
  REPORT = 2,
  /** Received: hand it on to the host's own stack. */
  FORWARD = 4,
  /** Its source is not to be learned. */
  NO_LEARN = 8,
  /** The frame is at `ptr`, not in the buffer. */
  INDIRECT = 16,
  /** The next slot continues this frame. */
  MOREFRAG = 32,
}

/** Buffers 0 and 1 of netmap's memory are never in a slot: the first number that is. */
export const NETMAP_FIRST = 2;
/** Most slots of one frame (netmap.h, NETMAP_MAX_FRAGS). */
export const NETMAP_FRAGMENTS = 64;

/** Why a slot of the user's was not used. */
export enum SlotRefusal {
  /** No such buffer. */
  INDEX = 0,
  /** A buffer that isn't the user's now: it stands in another slot too, or the host has it. */
  OWNER = 1,
  /** Longer than the buffer, or a frame longer than any, or none. */
  LENGTH = 2,
  /** `ptr` leaves the guest's region, or there is none. */
  INDIRECT = 3,
  /** More than NETMAP_FRAGMENTS slots, or more than the ring has. */
  FRAGMENTS = 4,
  COUNT = 5,
}

/**
 * The host's side of a netmap ring (netmap_kern.h, `struct netmap_kring`): host memory, never seen by the user. Buffer i
 * of the port's memory is at `base + (i - NETMAP_FIRST) * stride`, and has room for `room` bytes.
 */
export enum Kring {
  id = 0,
  ring = 4,
  mask = 8,
  /** Whether its user may use it. */
  running = 12,
  base = 16,
  stride = 20,
  room = 24,
  /** How many buffers there are. */
  count = 28,
  /** The guest's region, which indirect buffers must lie in: its address, and its bytes; 0: there are none. */
  region = 32,
  regionSize = 36,
  /** Where the other end of a pipe owns the same memory: u8[count], which number owns each buffer; and whose this ring is. */
  owners = 40,
  owner = 44,
  /** Poller of the user's that is rung for when it wants a notification, or 0. */
  bell = 48,
  /** Receive ring: rings to and from the host's own stack, which gets what is marked FORWARD; or 0. */
  toStack = 52,
  fromStack = 56,
  /** Packet: what a slot's descriptor begins as: its owner, this. */
  blank = 64,
  /** As the host knows them: `head` as it was checked last, and the two that it has published. */
  rhead = 80,
  hwcur = 84,
  hwtail = 88,
  /** 1: the rest of a frame of too many slots is to come, and to be dropped. */
  skipping = 92,
  /** 1: a slot that was taken wants a notification. */
  report = 96,
  /** Transmit ring of a switch's port: first slot that the switch hasn't taken. */
  taken = 100,
  /** u64 counters: syncs that moved something, notifications sent, and how often the user's indices were wrong. */
  syncs = 128,
  notifications = 136,
  reinits = 144,
  /** u64 counters by SlotRefusal. */
  refusals = 152,
  /** u64 counters: frames handed to the host's stack, and those that found no room there. */
  forwarded = 192,
  forwardDrops = 200,
  /** Packets: a frame of several slots, and as many buffers for it. */
  scratch = 256,
  SIZE = 2304, // scratch + 2 * NETMAP_FRAGMENTS * Packet.SIZE
}

/**
 * The guest's driver of a netmap ring: its private memory. Fields that a virtqueue's driver has too stand where they do
 * there (layout: `Driver`).
 *
 *     head    emptied    cur          hwtail
 *     |------------------|============|         [head, cur) have no buffer of use any more: to be posted into
 */
export enum NetmapDriver {
  ring = 4,
  /** u8 by buffer: 1 while the guest has it. */
  held = 8,
  size = 16,
  /** Flags of a slot that count: MOREFRAG of a receive ring, of a transmit ring none. */
  flags = 20,
  /** As in the `Kring`. */
  base = 24,
  mode = 28,
  /** Next slot to post into, and next to take. */
  head = 32,
  cur = 40,
  /** Slots that can be posted into. */
  freeCount = 52,
  stride = 56,
  count = 60,
  room = 64,
  published = 76,
  /** u64 counters: notifications sent to the host, slots that named no buffer that the host can have had. */
  kicks = 96,
  badSlots = 104,
  /** Poller of the host's that is rung for when the host wants a notification, or 0. */
  bell = 120,
  SIZE = 128,
}

/**
 * A bridge between a card and a netmap pipe's end: slots are swapped with the card's descriptors. All buffers are of one
 * memory, the guest's region.
 *
 *     card's receive queue <- swap -> receive ring     transmit ring <- swap -> pool -> card's transmit ring
 */
export enum Bridge {
  id = 0,
  /** The card's receive queue of its own, and the card's transmit queue. */
  queue = 4,
  txQueue = 8,
  /** Kring of the guest's receive ring, and of its transmit ring. */
  rx = 12,
  tx = 16,
  /** Buffers that are nobody's else: the host's. */
  pool = 20,
  /** The lcore that runs it. */
  lcore = 24,
  burst = 28,
  /** Counters, as of a switch's port (layout: `Port`). */
  port = 32,
  /** Of the frame that was received last. */
  bytes = 36,
  /** 1: it has frames to send, and can't before the card has sent some. */
  blocked = 40,
  /** Packets: a burst of buffers. */
  scratch = 64,
  SIZE = 4160, // scratch + BURST_MAX * Packet.SIZE
}

/** Who owns a buffer of a bridge's memory, in `Kring.owners`: the host, or the guest; of a pipe's the ends 1 and 2. */
export const OWNED_BY_HOST = 0;
export const OWNED_BY_GUEST = 1;

/**
 * vDPDK: a network device that is the DPDK interface of the host's card (vMux). In the guest's region, from address 0:
 *
 *     | control page | receive ring | transmit ring | buffers ... |
 *
 * A descriptor of a ring, 32 bytes. AVAIL alone says whose it is: set, the device's; clear, the guest's. There are no
 * head and tail registers. Each side writes a burst's first descriptor last, so that the other, which looks at them in
 * order, sees none of the burst before all of it.
 *
 *     0       8     10      12        16       24    26    28     32
 *     | addr  | len | flags | offload | cookie | tci | mss | hash |
 *       u64     u16   u16     u32       u64      u16   u16   u32
 */
export enum VdpdkDesc {
  /** Guest address of the buffer. */
  addr = 0,
  /** Bytes in it; of one to be received into, its room. */
  len = 8,
  flags = 10,
  /** To send: bits of `Offload` that are asked for. Received: what is known, as PacketFlag.RX_OFFLOADS. */
  offload = 12,
  /** The guest's own; the device leaves it as it is. */
  cookie = 16,
  /** VLAN tag that is put on, or was taken off. */
  tci = 24,
  /** With Offload.TSO: bytes of payload in each frame. Received, with RX_MARK: what a flow rule's `mark` said. */
  mss = 26,
  /** RSS hash of a received frame. */
  hash = 28,
  SIZE = 32,
}

export enum VdpdkFlag {
  AVAIL = 1,
  /** Written by the device: the card has the buffer. */
  ATTACHED = 2,
  /** The next descriptor continues this frame. */
  NEXT = 4,
}

/** Most descriptors of one sent frame. */
export const VDPDK_SEGMENTS = 64;
/** Shortest buffer that the device receives into. */
export const VDPDK_BUFFER_MIN = 64;

/**
 * The control page: arguments of a call, then one access that the device traps runs it. Where the device is on another
 * thread that is a kick: `request` moves on, and `answered` follows when `status` and the results are there.
 *
 *     line 0  call | status | request | answered
 *     line 1  arguments      line 2, 3  results
 *     line 4  what the guest wants an interrupt for     line 5  what the device wants a signal for
 *     line 6  a flow rule
 */
export enum VdpdkControl {
  call = 0,
  /** 0 or a negative VdpdkStatus. */
  status = 4,
  request = 8,
  answered = 12,
  /** u32 queue number; u64 guest address of the ring; u32 its descriptors; u32 bits of `Offload`. */
  queue = 64,
  ring = 72,
  size = 80,
  offloads = 84,
  /** FLOW_DESTROY, FLOW_QUERY: u32 number of the rule. */
  rule = 88,
  results = 128,
  /** u32 each, written by the guest: 1 while it sleeps. */
  rxWantsInterrupt = 256,
  txWantsInterrupt = 260,
  /** u32 each, written by the device: 1 while its poller sleeps. */
  rxWantsSignal = 320,
  txWantsSignal = 324,
  /** FLOW_CREATE, FLOW_VALIDATE: the rule, `RteFlow` up to INPUT. Its queues are the guest's own. */
  flow = 384,
  SIZE = 4096,
}

export enum VdpdkCall {
  INFO = 1,
  MAC = 2,
  RX_SETUP = 3,
  RX_START = 4,
  RX_STOP = 5,
  TX_SETUP = 6,
  TX_START = 7,
  TX_STOP = 8,
  FLOW_CREATE = 9,
  FLOW_DESTROY = 10,
  STATS = 11,
  FLOW_VALIDATE = 12,
  FLOW_FLUSH = 13,
  FLOW_QUERY = 14,
}

/** Status of a call, as ethdev's: Linux's error numbers. */
export enum VdpdkStatus {
  OK = 0,
  /** A flow rule for frames that aren't the guest's. */
  NOT_PERMITTED = -1,
  /** The guest has no such flow rule. */
  NO_ENTRY = -2,
  /** Not yet: the card still holds buffers of the queue. The call is made again. */
  AGAIN = -11,
  /** An address outside the guest's memory. */
  FAULT = -14,
  /** Not in the state that the queue is in. */
  BUSY = -16,
  /** There is a flow rule with this pattern and priority. */
  EXISTS = -17,
  INVALID = -22,
  /** No place for another flow rule. */
  NO_SPACE = -28,
  UNKNOWN_CALL = -38,
  NOT_SUPPORTED = -95,
}

/** Results of INFO, from `VdpdkControl.results` on. */
export enum VdpdkInfo {
  mtu = 0,
  rxQueues = 4,
  txQueues = 8,
  /** Most and fewest descriptors of a ring. */
  ringMax = 12,
  ringMin = 16,
  /** Offloads that can be asked for, and those of them that the card does by itself. */
  rxOffloads = 20,
  txOffloads = 24,
  rxNative = 28,
  txNative = 32,
  rssTable = 36,
  segments = 40,
  /** Flow rules that the guest may have at a time; 0: none. */
  flows = 44,
  /** 1: the card follows them; 0: the host does, on copies. */
  flowsNative = 48,
}

/** Results of the flow calls, from `VdpdkControl.results` on. */
export enum VdpdkFlowResult {
  /** u32: number of the rule that was made. */
  id = 0,
  /** u32: RteFlowRefusal. */
  refusal = 4,
  /** FLOW_QUERY: u64 each. */
  hits = 8,
  bytes = 16,
}

/** Results of STATS, u64 each. */
export enum VdpdkStats {
  rxPackets = 0,
  rxBytes = 8,
  rxMissed = 16,
  txPackets = 24,
  txBytes = 32,
  emulated = 40,
}

/** Why a queue was stopped for good, until the guest sets it up anew. */
export enum VdpdkRefusal {
  NONE = 0,
  /** A buffer that leaves the guest's region. */
  OUT_OF_REGION = 1,
  /** One of no byte, too small to receive into, or a frame that is too short or too long. */
  LENGTH = 2,
  /** A frame of more descriptors than VDPDK_SEGMENTS or than the ring has. */
  CHAIN = 3,
  /** A descriptor that the device had was changed by the guest. */
  STALE = 4,
  /** An offload that wasn't asked for at set-up, or that doesn't fit the frame. */
  OFFLOAD = 5,
  COUNT = 6,
}

export enum VdpdkState {
  EMPTY = 0,
  /** It has a ring. */
  STOPPED = 1,
  RUNNING = 2,
  /** It takes nothing more, and waits for the card. */
  STOPPING = 3,
}

/** The device's side of a ring: host memory. Kind VDPDK_RX or VDPDK_TX. */
export enum VdpdkQueue {
  id = 0,
  device = 4,
  /** The guest's region. */
  base = 8,
  limit = 12,
  ring = 16,
  mask = 20,
  state = 24,
  /** 0, or the VdpdkRefusal that stopped it. */
  broken = 28,
  /** The card's queue: RxQueue of its own, or 0 where frames are copied to it; TxQueue. */
  card = 32,
  zeroCopy = 36,
  /** Offloads that the guest has asked for, and those of them that the host does in the card's place. */
  offloads = 40,
  emulates = 44,
  /** The guest's poller, and addresses of its word that says that it wants to be rung for, and of ours. */
  bell = 48,
  wantsInterrupt = 52,
  wantsSignal = 56,
  /** Next descriptor to take from the guest; the oldest that it hasn't got back. */
  next = 64,
  done = 68,
  /** Sent by the card and not given back yet; below 0: of before the guest set the queue up anew. */
  freed = 72,
  /** Descriptors among those not given back that the card hasn't got, since their frames were copied. */
  copied = 76,
  /** u64 counters. */
  packets = 80,
  bytes = 88,
  copies = 96,
  copiedBytes = 104,
  /** Frames that the host changed or checked in the card's place, and their bytes. */
  emulated = 112,
  emulatedBytes = 120,
  notifications = 128,
  /** Frames dropped: the guest has posted too few buffers, or the card has no room; no host buffer; the queue isn't running. */
  droppedFull = 136,
  droppedNoBuffer = 144,
  droppedDown = 152,
  /** u64 counters by VdpdkRefusal. */
  refusals = 160,
  /** u8 for each descriptor of a transmit ring: 1 for those that `copied` counts. */
  marks = 256,
  SIZE = 1280, // marks + QUEUE_MAX
}

/** A vDPDK device: one guest's. */
export enum VdpdkDevice {
  id = 0,
  base = 4,
  limit = 8,
  /** Address of the control page. */
  control = 12,
  rx = 16,
  tx = 20,
  /** The card, or 0 while it has none. */
  nic = 24,
  /** `request` as it was answered last. */
  served = 28,
  mac = 32,
  /** u64 counters: calls, and those that failed. */
  calls = 40,
  failed = 48,
  /** What serves it. */
  vmux = 56,
  /** Flow rules that it may have at a time. */
  flows = 60,
  SIZE = 64,
}

/** What serves the vDPDK devices of a card: vMux. */
export enum Vdpdk {
  id = 0,
  nic = 4,
  /** The card's queue whose frames are for several guests, and are copied. */
  shared = 8,
  pool = 12,
  lcore = 16,
  devices = 20,
  /** u32 addresses of the devices. A filter's mark is 1 + a device's place here. */
  table = 24,
  /** u64 counters: frames from the shared queue, and those that no guest wants. */
  packets = 32,
  unwanted = 40,
  /**
   * Scratch: a burst's descriptors, the first 16 bytes of each frame, buffers for it, a frame that is put together or a
   * guest's flow rule.
   */
  burst = 64,
  headers = 24640, // burst + BURST_DESCRIPTORS * Packet.SIZE
  spare = 28736, // headers + BURST_MAX * 16
  frame = 53312, // spare + BURST_DESCRIPTORS * Packet.SIZE
  DEVICES_MAX = 512,
  SIZE = 62464, // frame + FRAME_ROOM and a line for a VLAN tag
}

/** The guest's driver of a vDPDK ring: its private memory. */
export enum VdpdkDriver {
  guest = 0,
  ring = 4,
  mask = 8,
  /** Next descriptor to post, the oldest that is posted. */
  next = 12,
  done = 16,
  /** Address of the first descriptor that is posted and not shown yet; 0: none. */
  first = 20,
  /** Packet descriptors of the buffers that are posted, one for each descriptor of the ring. */
  shadow = 24,
  /** Offloads that are asked for of each sent frame, or known of received ones. */
  offloads = 28,
  /** Addresses of the words in the control page: the device wants a signal; the guest wants an interrupt. */
  wantsSignal = 32,
  wantsInterrupt = 36,
  /** Poller of the device's. */
  bell = 40,
  /** u64 counters: signals sent; received frames with a wrong checksum. */
  kicks = 48,
  badChecksums = 56,
  SIZE = 128,
}

/**
 * A guest: a region, its network driver and a network function.
 *
 * In the region, from guest address 0, with virtio-net:
 *
 *     | receive ring areas | transmit ring areas | indirect tables | buffers ... |
 *
 * with a netmap port:
 *
 *     | receive ring | transmit ring | buffers ... |
 */
export enum Guest {
  id = 0,
  region = 4,
  regionSize = 8,
  run = 12,
  rx = 16,
  tx = 20,
  /** LIFO of free buffers (Packet each), and its length. */
  free = 24,
  freeCount = 28,
  bufferSize = 36,
  /** DriverKind: what `rx` and `tx` are. */
  driver = 40,
  burst = 44,
  /** Table of the function's own (firewall rules), its length. */
  table = 48,
  tableLength = 52,
  /** How many buffers there are. */
  bufferCount = 56,
  mac = 64,
  /** MAC address that every sent frame goes to, or 0: the next guest of a chain. */
  nextHop = 72,
  ipv4 = 80,
  /** Packet: buffer 0 as it is when it's free: empty, with room for the net header in front of the frame. */
  blank = 112,
  /** u64 counters. */
  received = 128,
  transmitted = 136,
  droppedByFunction = 144,
  droppedTxFull = 152,
  droppedMalformed = 160,
  /** Flow key of the frame that the firewall looks at. */
  flow = 192,
  scratch = 256,
  SIZE = 24832, // scratch + BURST_DESCRIPTORS * Packet.SIZE
}

export enum GuestFunction {
  SINK = 0,
  MACSWAP = 1,
  L2FWD = 2,
  ECHO = 3,
  FIREWALL = 4,
}

/**
 * The flow that a frame belongs to. Addresses are u8[16], as in the frame; IPv4's stand in the first 4 bytes. Ports
 * are in network order, 0 where there are none, or in a later fragment.
 */
export enum FlowKey {
  source = 0,
  destination = 16,
  /** u16 */
  sourcePort = 32,
  /** u16 */
  destinationPort = 34,
  /** u8: IP protocol. */
  protocol = 36,
  /** u8: 4, 6, or 0 where it isn't IP. */
  family = 37,
  /** u8: 0 when the frame couldn't be read up to its ports: what stands here isn't all, or not what it seems. */
  whole = 38,
  SIZE = 40,
}

/** A firewall rule: first match wins. Fields are compared under their masks; ports are ranges. */
export enum Rule {
  /** 4 or 6; 0 for either. */
  family = 0,
  /** IP protocol, or 0 for any. */
  protocol = 1,
  allow = 2,
  sourcePortLow = 4,
  sourcePortHigh = 6,
  destinationPortLow = 8,
  destinationPortHigh = 10,
  /** u64 counter. */
  hits = 16,
  source = 32,
  sourceMask = 48,
  destination = 64,
  destinationMask = 80,
  SIZE = 96,
}

/**
 * IOVTee: one NIC receive queue mapped to one virtqueue.
 *
 *     avail ring --fill--> PRing --refill--> NIC descriptor --DMA--> in flight --hit--> used ring
 *                            ^----------------- miss (wiped) ----------'
 *
 * `PRing` (paper, "PRing") is a ring of packet descriptors of the guest's empty buffers: those that were missed, those
 * that are kept back, and all of a packed ring's. Else a split ring's go from the avail ring straight to the NIC.
 */
export enum Mapping {
  id = 0,
  virtqueue = 4,
  queue = 8,
  onEmpty = 12,
  scrub = 16,
  mask = 20,
  head = 24,
  tail = 28,
  /** 1: the guest's next buffer is one that the card can't be given. */
  blocked = 32,
  hits = 64,
  misses = 72,
  scrubbedBytes = 80,
  hostBuffers = 88,
  unmappable = 96,
  /** The guest's MAC address. */
  mac = 104,
  pring = 128,
}

export enum OnEmpty {
  HOST = 0,
  WAIT = 1,
}

/**
 * A port of the switch.
 */
export enum Port {
  id = 0,
  kind = 4,
  index = 8,
  /** NIC, or the virtqueue that the host fills (the guest's receive queue), or the ring towards the peer. */
  to = 12,
  /** Virtqueue that the host empties (the guest's transmit queue), or the ring from the peer. */
  from = 16,
  mapping = 20,
  /** Owner whose buffers are taken as they are; others are copied. TAKES_NOTHING where there is none. */
  takes = 24,
  learning = 32,
  up = 36,
  /** 1: marks of frames from here are the NIC filter's and are believed. */
  trustsMark = 56,
  /** Source that was learned last and the second it was: not looked up again. */
  lastKey = 40,
  lastSecond = 48,
  /** VLAN of untagged frames, 1..4094 (802.1Q "PVID"); 0: none are taken. */
  pvid = 52,
  /** Bitmap of 4096 bits: the VLANs that this port is in. */
  vlans = 60,
  rxPackets = 64,
  rxBytes = 72,
  txPackets = 80,
  txBytes = 88,
  /** Copies made by the host for this port, and their bytes. */
  copies = 96,
  copiedBytes = 104,
  /** Frames taken from it at a time, where it isn't the switch's burst, or 0. */
  burst = 120,
  /** u64 counters by Drop. */
  drops = 128,
  SIZE = 256,
}

export enum PortKind {
  NIC = 1,
  VHOST = 2,
  RING = 3,
  /** A netmap port: `to` and `from` are host's sides of its rings (layout: `Kring`). */
  NETMAP = 4,
  VDPDK = 8,
}

/** Why a frame was dropped at a port. */
export enum Drop {
  /** Destination had no room: NIC transmit ring, ring, or the guest posted no buffer. */
  FULL = 0,
  NO_BUFFER = 1,
  /** The guest's buffers are too small for the frame and can't be merged. */
  TOO_LARGE = 2,
  RUNT = 3,
  /** It would leave by the port that it came in by. */
  HAIRPIN = 4,
  VLAN = 5,
  /** 01-80-C2-00-00-0x is never forwarded by a bridge (802.1D, 7.12.6). */
  LINK_LOCAL = 6,
  /** The port's queue is broken or not ready. */
  DOWN = 7,
  /** A static address seen at another port. */
  SPOOFED = 8,
  /** A lookup of the user's own said so. */
  LOOKUP = 9,
  /** It named a port that the switch doesn't have. */
  NO_PORT = 10,
  /** It threw or trapped over this burst. */
  LOOKUP_FAILED = 11,
  /** A rule of the flow table says so, or none matches. */
  FLOW = 12,
  /** For the controller, which hasn't taken what came before. */
  CONTROLLER = 13,
  /** It was for all other ports, and none of them was up and in its VLAN. */
  NO_EGRESS_PORT = 14,
}

/**
 * The switch, with the scratch memory of one burst.
 */
export enum Switch {
  id = 0,
  macs = 8,
  ports = 12,
  /** u32 addresses of the ports. */
  table = 16,
  lcore = 20,
  burst = 24,
  ageing = 28,
  vlanAware = 32,
  pool = 36,
  /** What classifying a burst found: the destination of all its frames, or Destination.MIXED. */
  common = 40,
  /** 0, or all its frames are of one segment and of one owner, and none is longer than this. */
  alike = 44,
  /** Lookup: who says where frames go. */
  lookup = 48,
  /** Port whose burst is with a lookup of the user's own; 0 when there is none. */
  pending = 52,
  /** u16 by the number of an rte_flow rule's mark: 1 + the port that such a frame goes to, unread; 0 for none. Or 0. */
  marks = 56,
  /** The flow table of Lookup.FLOWS. */
  flows = 60,
  /** Scratch: the burst, its headers (first 16 bytes of each frame), and where each frame begins and goes. */
  packets = 64,
  headers = 24640, // packets + (QUEUE_MAX + 2 * BURST_MAX) * 16
  first = 28736, // headers + BURST_MAX * 16
  destination = 29252, // first + (BURST_MAX + 2) * 2
  vid = 29764, // destination + BURST_MAX * 2
  next = 30276, // vid + BURST_MAX * 2
  out = 30848, // 64-byte aligned behind next
  outHeaders = 55424, // out + (QUEUE_MAX + 2 * BURST_MAX) * 16
  touched = 59520, // outHeaders + BURST_MAX * 16
  spare = 60032, // touched + BURST_MAX * 2: buffers for a copy
  lists = 109184, // spare + 2 * 24576: u16 head and tail of each port's list
  /** Lookup.EXTERNAL: its place in the core's table, 0 for JavaScript; its state's address, or 0. */
  external = 117376, // lists + PORTS_MAX * 4
  externalState = 117380,
  /** Descriptors of the burst that is `pending`. */
  pendingLength = 117384,
  /** 1: netmap's rules where they differ from 802.1D's. */
  vale = 117388,
  /** The burst's owner where that is a virtqueue that lends its buffers to a card (`Virtqueue.lendsTo`), or 0. */
  lender = 117392,
  /** 1 + the port of the card that stations may be behind of whom no frame was read (IOVTee, R4); 0: there is none. */
  uplink = 117396,
  PORTS_MAX = 2048,
  /** VALE's limit (netmap: NM_BDG_MAXPORTS). */
  VALE_PORTS_MAX = 254,
  SIZE = 117440,
}

/** Who says where a burst's frames go. */
export enum Lookup {
  /** The learning bridge. */
  LEARNING = 0,
  /** The flow table. */
  FLOWS = 1,
  /** A function of the user's own, in WebAssembly or JavaScript, once for each burst. */
  EXTERNAL = 2,
}

/** Descriptors that one burst can have. */
export const BURST_DESCRIPTORS = 1536;

/** Where a frame goes, when not to one port. */
export enum Destination {
  /** More than one output, or outputs of a changed frame: a flow's actions are gone through, frame by frame. */
  ACTIONS = 0xfffb,
  /** A lookup's only: as the learning bridge says, which learns the frame's source. */
  NORMAL = 0xfffc,
  /** Of a burst: not one destination. */
  MIXED = 0xfffd,
  FLOOD = 0xfffe,
  DROP = 0xffff,
}

/**
 * MAC table: 4-way buckets of one cache line, multiplicative hash. Used by the learning bridge and by
 * the NIC's filters.
 *
 *     | key u64: MAC (48 bits) | VLAN << 48 | valid << 60 | value u32 | stamp u32 |   16 bytes
 */
export enum MacTable {
  buckets = 4,
  used = 8,
  entries = 64,
  WAYS = 4,
}
export enum MacEntry {
  key = 0,
  value = 8,
  stamp = 12,
  SIZE = 16,
  /** `stamp` of an entry that never ages or moves. */
  STATIC = 0xffffffff,
}

/**
 * An lcore: pollers run to completion, in one thread.
 *
 *     line 0  configuration, the poller list's length
 *     line 1  doorbell | asleep | command | parked     where the lcore and other threads meet
 *     line 2  counters, what this lcore knows of the doorbell
 *     then    signals: a bit for each poller that was rung for
 *     then    active: u16 numbers of the pollers that are polled; the others are armed
 *     then    pollers
 *
 * Poller 0 is the thread itself: to ring for it only wakes the lcore.
 */
export enum Lcore {
  id = 0,
  /** Its number: which cache of each pool is its own. */
  index = 4,
  /** Pollers, number 0 included. */
  count = 8,
  /** How many of them are polled. */
  active = 12,
  /** Empty turns after which a poller is armed and left out; `PATIENT`: never. */
  patience = 16,
  /** How often it looks at `command` after a turn that moved nothing, before the next: others need the lines it polls. */
  pause = 20,
  /** Lookups in WebAssembly that it may meet, written by whoever controls the lcore, and those that its thread has. */
  lookups = 24,
  lookupsLoaded = 28,
  /** Counts the rings; what a sleeping lcore waits on. */
  doorbell = 64,
  /** 1: it sleeps or is about to, and wants to be woken. */
  asleep = 68,
  /** LcoreCommand; written by whoever controls the lcore. */
  command = 72,
  /** LcoreParked; written by the lcore. */
  parked = 76,
  /** `doorbell` when signals were looked at last. */
  seen = 128,
  /** u64 counters: turns, those that moved nothing, and how often it slept. */
  turns = 136,
  idleTurns = 144,
  sleeps = 152,
  signals = 192,
  actives = 704, // signals + POLLERS_MAX / 8
  pollers = 8896, // actives + 2 * POLLERS_MAX
  POLLERS_MAX = 4096,
  SIZE = 139968, // pollers + POLLERS_MAX * Poller.SIZE
}

/** Patience of an lcore that polls for ever. */
export const PATIENT = 0xffff_ffff;

export enum LcoreCommand {
  RUN = 0,
  PAUSE = 1,
  STOP = 2,
}

/** Whether an lcore touches anything. */
export enum LcoreParked {
  NO = 0,
  /** It hasn't begun, pauses, or has stopped: it touches nothing before it is told to run. */
  YES = 1,
  /** It has failed in the middle of something. */
  FAILED = 2,
}

/** One of an lcore's pollers: a port of a switch, or a guest. */
export enum Poller {
  /** What it polls: a guest, a port other than a card's, or a card's receive queue. */
  addr = 0,
  /** Switch that the port or queue is of; 0 for a guest. */
  owner = 4,
  /** The lcore that it is of. */
  lcore = 8,
  /** Turns in a row that moved nothing. */
  idle = 12,
  /** Kind of what it polls. */
  kind = 16,
  /** Empty turns after which it is armed and left out, where it isn't the lcore's patience, or 0. */
  patience = 20,
  /** 1: it isn't polled at all, but run for each interrupt (`Lcores.serve`). */
  interrupt = 24,
  /** VMDq: the guest's poller on this lcore, which is run behind this queue's, or 0. */
  guest = 28,
  SIZE = 32,
}

/** `Port.takes` of a port that takes no buffer as it is. */
export const TAKES_NOTHING = 0xffff;

/**
 * What rte_flow rules look at in a frame, and the same bytes as a mask. All as in the frame, in network order; what it
 * hasn't got is 0. A header that is cut off, or says of itself what can't be, isn't there, nor is what stands behind it.
 *
 *     0     6     12     14    16      18     20     22     23   24   25      26    27    28      30      32
 *     | dst | src | tpid | tci | tpid2 | tci2 | type | tags | ip | l4 | proto | tos | ttl | sport | dport |
 *     | source                        | destination                   | flow label | fragment | tcpFlags |
 *     32                              48                              64           68         70         71
 */
export enum RteFlowKey {
  dst = 0,
  src = 6,
  /** Of the first tag, and of the one behind it. */
  tpid = 12,
  tci = 14,
  tpid2 = 16,
  tci2 = 18,
  /** EtherType behind the tags, of which two are looked through. */
  type = 20,
  /** u8: bit 0 with one tag or more, bit 1 with two or more. */
  tags = 22,
  /** u8: 4 or 6. */
  ip = 23,
  /** u8: 6 or 17 where the frame holds a TCP or UDP header. */
  l4 = 24,
  /** u8: IPv4's protocol, IPv6's (first) next header. */
  proto = 25,
  /** u8: IPv4's type of service, IPv6's traffic class. */
  tos = 26,
  /** u8: IPv4's time to live, IPv6's hop limit. */
  ttl = 27,
  sourcePort = 28,
  destinationPort = 30,
  /** u8[16]; an IPv4 address stands in the first 4 bytes. */
  source = 32,
  destination = 48,
  /** u32: 20 bits of IPv6. */
  label = 64,
  /** u16: IPv4's flags and fragment offset. */
  fragment = 68,
  tcpFlags = 70,
  SIZE = 72,
  WORDS = 9,
}

/** How much of a frame rte_flow's parser looks at, in bytes: a header that goes on behind isn't there. */
export const RTE_FLOW_HEAD = 512;

/** In `Packet.mark`: the rest is the number that a rule's `mark` gave. */
export const RTE_FLOW_MARK = 0x8000;

/** A guest's priority 0 is this one of the card's: its rules come behind the host's. */
export const RTE_FLOW_GUESTS = 0x8000_0000;

/** Queues in the list of one `rss` action. */
export const RTE_FLOW_QUEUES = 64;

/**
 * An rte_flow rule. Up to INPUT it is written by whoever wants it (`createFlow`), behind that by the table.
 *
 *     | group | priority | attributes | actions | mark | queue | queueCount | - |     u32 each
 *     | spec: RteFlowKey | mask: RteFlowKey | queues: u16[RTE_FLOW_QUEUES] |
 *     | id | next | under | used | maker | hits | bytes | rank |
 */
export enum RteFlow {
  /** Must be 0. */
  group = 0,
  /** 0 comes first. */
  priority = 4,
  /** Bits of RteFlowAttribute. */
  attributes = 8,
  /** Bits of RteFlowAction. */
  actions = 12,
  /** MARK: 0 to RTE_FLOW_MARK - 1. */
  markId = 16,
  /** QUEUE: receive queue of the card. */
  queue = 20,
  /** RSS: queues in the list; 0: the card's own table of queues. */
  queueCount = 24,
  spec = 32,
  mask = 104,
  queues = 176,
  INPUT = 304,
  id = 304,
  /** u16: next rule of the same bucket; of a free one the next free one; 0 for none. Rules count from 1. */
  next = 308,
  /** u16: number of its RteFlowMask. */
  under = 310,
  used = 312,
  /** Directory id of the vDPDK device that made it; 0: the host. */
  maker = 316,
  /** u64 counters. */
  hits = 320,
  bytes = 328,
  /** u64: priority << 32 | id: the lowest wins. */
  rank = 336,
  SIZE = 384,
}

export enum RteFlowAttribute {
  INGRESS = 1,
  EGRESS = 2,
  TRANSFER = 4,
}

export enum RteFlowAction {
  QUEUE = 1,
  RSS = 2,
  DROP = 4,
  MARK = 8,
  COUNT = 16,
  /** The filters and RSS decide, as without the rule; so they do for a rule with none of the first three. */
  PASSTHRU = 32,
}

/** Where a rule sends a frame, when not to a queue. */
export enum RteFlowFate {
  /** Where the card's filters and RSS say. */
  FILTERS = 0xfffe,
  DROP = 0xffff,
}

/** Why a rule was refused. `createFlow` returns it below 0. */
export enum RteFlowRefusal {
  NONE = 0,
  /** Another group than 0. */
  GROUP = 1,
  /** Other attributes than ingress. */
  ATTRIBUTES = 2,
  /** None, one that isn't known, or two that say where the frame goes. */
  ACTIONS = 3,
  /** The card has no such queue. */
  QUEUE = 4,
  /** A mapped guest's queue, but not just for frames to the guest's MAC address. */
  MAPPED = 5,
  /** No such mark, or one for a mapped guest's queue: there it is the filter's. */
  MARK = 6,
  /** There is one with the same pattern and priority. */
  EXISTS = 7,
  /** No place for another rule. */
  FULL = 8,
  /** No place for another mask. */
  MASKS = 9,
  /** No rule has this number. */
  UNKNOWN = 10,
  /** A guest's rule that names another MAC address than its own. */
  FOREIGN = 11,
  /** A guest's rule has a priority from 0 to RTE_FLOW_GUESTS - 1. */
  PRIORITY = 12,
  /** The driver is to follow it, which sees no frame of a queue that is bridged. */
  BRIDGED = 13,
  COUNT = 14,
}

/** A mask of rules (tuple space): those under it are found by one hash. */
export enum RteFlowMask {
  mask = 0,
  /** u8 offsets of the key's 8-byte words that it has bits in, and their number. */
  words = 72,
  wordCount = 81,
  /** Rules under it. */
  rules = 84,
  /** u64: none of them has a lower rank. */
  best = 88,
  SIZE = 96,
}

/**
 * The rte_flow rules of a card.
 *
 *     line 0   configuration, written under `lock`
 *     line 1   version | lock
 *     line 2   scratch of who follows the rules
 *     then     masks in use, by their best rule | masks | buckets | rules
 *
 * It may be changed while it is used: `version` is odd meanwhile, and whoever looked up something looks again when it
 * has moved.
 */
export enum RteFlowTable {
  id = 0,
  nic = 4,
  /** Rules that there is room for. */
  capacity = 8,
  /** Rules and masks in it. */
  count = 12,
  maskCount = 16,
  nextId = 20,
  /** First of the free rules. */
  free = 24,
  /** u16[bucketMask + 1]: first rule by hash. */
  buckets = 28,
  bucketMask = 32,
  rules = 36,
  version = 64,
  lock = 68,
  key = 128,
  /** FlowKey and RSS input. */
  rss = 208,
  /** u8 numbers of masks. */
  order = 320,
  masks = 448, // order + MASKS_MAX
  MASKS_MAX = 128,
  SIZE = 12736, // masks + MASKS_MAX * RteFlowMask.SIZE
}

/**
 * What a flow is told by: the fields of a frame that rules look at, and the same bytes as a mask. Numbers are in network
 * order, but for the port. What a frame hasn't got is 0.
 *
 *     0       6       12        14     16      18    19    20      21     22          24      26      28
 *     | dlDst | dlSrc | dlType | tci | inPort | tos | ttl | proto | frag | tcpFlags | tpSrc | tpDst | inner | - |
 *     32                                               48
 *     | ipv6Src, or nwSrc | nwDst of IPv4 and ARP      | ipv6Dst, or arpSha | arpTha |
 */
export enum FlowMatch {
  dlDst = 0,
  dlSrc = 6,
  /** EtherType behind VLAN tags; 0x05ff for a frame with a length in its place (802.3). */
  dlType = 12,
  /** u16: the outer tag's priority and VLAN, with bit 0x1000 set; 0 without a tag. */
  vlanTci = 14,
  /** u16: the switch's port. */
  inPort = 16,
  nwTos = 18,
  nwTtl = 19,
  /** IP protocol, or ARP operation where it is below 256. */
  nwProto = 20,
  /** Bits of FlowFragment. */
  nwFrag = 21,
  /** u16: the 12 bits of TCP's flags. */
  tcpFlags = 22,
  /** Ports of TCP, UDP and SCTP; ICMP's type and code. None in later fragments and without the whole header. */
  tpSrc = 24,
  tpDst = 26,
  /** u16: as `vlanTci`, of a second tag. */
  vlanInner = 28,
  nwSrc = 32,
  nwDst = 36,
  ipv6Src = 32,
  ipv6Dst = 48,
  arpSha = 48,
  arpTha = 54,
  SIZE = 64,
  /** Behind the key: u16 offsets in the frame of the IP or ARP header and of the one behind IP; 0 where there is none. */
  l3 = 64,
  l4 = 66,
  WITH_OFFSETS = 80,
}

export enum FlowFragment {
  ANY = 1,
  LATER = 2,
}

/** How much of a frame is looked at for its key, in bytes. */
export const FLOW_HEAD = 256;

/** Up to so many bytes a guest's frame is copied side by side with others. */
export const FLOW_COPY = 64;

/** Table lookups that a frame may take, and actions. */
export const FLOW_LOOKUPS = 16;
export const FLOW_ACTIONS = 32;

/** A rule of the flow table. Of rules with equal masks and keys the one with the highest priority comes first. */
export enum FlowRule {
  /** FlowMatch, under the mask. */
  key = 0,
  priority = 64,
  /** Counts the rules that were added: of equal priorities the first one wins. */
  order = 68,
  /** Address of its FlowMask. */
  mask = 72,
  next = 76,
  /** Address of its actions, and how many. */
  actions = 80,
  actionCount = 84,
  hash = 88,
  packets = 96,
  bytes = 104,
  SIZE = 128,
}

/** A mask: of rules of one table (tuple space), or of megaflows. */
export enum FlowMask {
  mask = 0,
  /** Makes equal keys under other masks hash differently. */
  seed = 64,
  /** No rule under it has more. */
  priority = 68,
  hits = 72,
  /** Number of the table that its rules are in. */
  table = 76,
  /** Bits by number of the FlowSieves that a key must get through to be under it. */
  sieves = 80,
  SIZE = 128,
}

/**
 * Which values the rules of some masks have in one word of their keys: a bit of `bits` for each value's hash. A key whose
 * value nobody has needn't be looked for under these masks.
 */
export enum FlowSieve {
  /** Where in FlowMatch the word is, and its bits that count. */
  at = 0,
  mask = 4,
  bits = 8,
  SIZE = 16,
  /** Sieves of a table; bits of one. */
  COUNT = 16,
  BITS = 65536,
}

/**
 * A cached flow ("megaflow"): all frames that agree in the bits of its mask, which are those that were consulted to
 * find its actions, through all tables. Of one that only the cache finds: in all bits that any rule looks at.
 */
export enum Megaflow {
  key = 0,
  /** Address of the mask: of a FlowMask, or, where only the cache finds it, `FlowTable.union`. */
  mask = 64,
  /** Is current while it is the table's. */
  generation = 68,
  /** What `FlowTable.next` was when it was made. */
  serial = 72,
  /** Port, or Destination; and for Destination.DROP the reason (Drop). */
  to = 76,
  why = 80,
  ruleCount = 88,
  actionCount = 92,
  /** u64 counters that its rules don't have yet. */
  packets = 96,
  bytes = 104,
  /** u32 addresses of the rules that were hit, and of their actions in order. */
  rules = 112,
  actions = 176, // rules + FLOW_LOOKUPS * 4
  SIZE = 320, // actions + FLOW_ACTIONS * 4, a whole number of lines
}

/** One action of a rule. */
export enum FlowAction {
  kind = 0,
  /** OUTPUT: port. CONTROLLER: most bytes. RESUBMIT: port to say that it came in at, or FLOW_SAME. */
  port = 4,
  /** RESUBMIT: table. CONTROLLER: the reason that is told; PUSH_VLAN: TPID. SET: FlowField. */
  argument = 8,
  /** CONTROLLER: the rule's table. SET: where in FlowMatch the field is, and its bytes. */
  at = 12,
  bytes = 14,
  /** SET: up to 16 bytes, in network order. */
  value = 16,
  mask = 32,
  SIZE = 48,
}

/** `FlowAction.port` of a resubmit that keeps the port. */
export const FLOW_SAME = 0xffff;

export enum FlowActionKind {
  OUTPUT = 1,
  /** Back to where it came from. */
  IN_PORT = 2,
  FLOOD = 3,
  NORMAL = 4,
  CONTROLLER = 5,
  RESUBMIT = 6,
  SET = 7,
  PUSH_VLAN = 8,
  STRIP_VLAN = 9,
}

/** What SET sets, by what a frame must have for it. */
export enum FlowField {
  ETHERNET = 0,
  /** The outer tag. */
  VLAN = 1,
  /** The same; a frame without a tag gets one. */
  VLAN_OR_PUSH = 2,
  /** IPv4 or IPv6: type of service (traffic class), time to live (hop limit). */
  IP = 3,
  IPV4 = 4,
  IPV6 = 5,
  /** Ports of TCP or UDP. */
  PORTS = 6,
  ICMP = 7,
  ICMPV6 = 8,
  ARP = 9,
}

/**
 * The flow table of a switch: rules, found by masks; in front of them megaflows, found by masks, and in front of those
 * a cache by the hash of the frame's key.
 */
export enum FlowTable {
  id = 0,
  /** Moved on by each change of the rules: no megaflow of another one is used. */
  generation = 4,
  /** 1: some rule looks at more than MAC addresses, EtherType and port; 2: and some at TCP's flags. */
  deep = 8,
  rules = 12,
  /** Hash of rules: buckets of four u32 slots, each upper half of the hash and number of the rule + 1; a full one goes on in the next. */
  index = 16,
  indexMask = 20,
  /** FlowMasks of rules by table: u32 addresses; u16 begin and end of each of 256 tables' part of them. */
  masks = 24,
  tables = 28,
  /** u32 hash and u32 address of a megaflow, by the hash of any key. */
  cache = 32,
  cacheMask = 36,
  megaflows = 40,
  megaflowMask = 44,
  /** Buckets as in `index`; a full one gives the place of another away. */
  buckets = 48,
  bucketMask = 52,
  /** Megaflows are used round by round: the next to be made, and the first of this generation. Run free. */
  next = 56,
  first = 60,
  /** FlowMasks of megaflows, u32 addresses of them by use, and how many. */
  megaflowMasks = 64,
  maskOrder = 68,
  maskCount = 72,
  MASKS_MAX = 64,
  /** Ring of frames for the controller. */
  controller = 76,
  /** FlowExact entries by the hash of what they hold, whose bits count; how often one had to give its place since there are so many. */
  exact = 120,
  exactMask = 124,
  exactLost = 2640, // factors + 64
  /** FlowSieves, and one more than the number of the last one. */
  sieves = 2644,
  sieveCount = 2648,
  /** Scratch: what is read ahead, in 8 bytes each, of each of AHEAD frames up to AHEAD_EACH; and a u32. */
  ahead = 2652,
  AHEAD = 32,
  AHEAD_EACH = 6,
  /** A place for each frame of a burst, where it is changed; a guest can't change it there. */
  places = 80,
  /** FLOW_COPY bytes for each frame of a burst: short frames of guests, where these can't change them. */
  copies = 92,
  /** Share of the looks for a megaflow that found one, of 65536, the last ones counting most; and looks not taken since the last. */
  worth = 84,
  spared = 88,
  /** u64 counters: frames whose flow wasn't in the cache, but cached, and not even that; flows that ask for too much. */
  megaflowHits = 96,
  misses = 104,
  tooDeep = 112,
  /** FlowMatch: bits that any rule looks at. */
  union = 128,
  /** Scratch: the key of a frame, of one that is changed, the mask that was consulted. */
  key = 192,
  edited = 272,
  consulted = 352,
  /** Packet: the frame that is changed now. */
  work = 416,
  /** u32 by frame of the burst: the megaflow whose actions it takes, and its length. */
  flows = 448,
  lengths = 1472, // flows + 4 * BURST_MAX
  /** Of a plain frame's bytes 0 to 15, 16 to 31, and 32 to 47 of UDP and of TCP: the bits that count; see `FlowExact`. */
  plain = 2496, // lengths + 4 * BURST_MAX
  /** What `FlowExact` has in place of bytes 16 to 31 where they don't count: of the burst that is looked up now. */
  stamp = 2560, // plain + 64
  /** u32 factors of a key's words in hashes. */
  factors = 2576, // stamp + 16
  SIZE = 2656,
}

/**
 * The flow of frames that agree in the bytes that count, as they stand in the frame: no key is made. For plain frames
 * only: without tags; where a rule looks beyond the first 16 bytes, TCP or UDP over IPv4 without options and fragments.
 * In place of IP's total length stands the port, in place of its identification and checksum the generation.
 *
 *     | bytes 0 .. 15 | port u16 | generation u16 | 20 .. 23 | generation u16 | 26 .. 31 | 32 .. 47 |
 *     | flow u32 | serial u32 | to u32 | least u32 |
 */
export enum FlowExact {
  key = 0,
  flow = 48,
  /** The flow's: it isn't another one by now that has its place. */
  serial = 52,
  to = 56,
  /** Of IP's total length, for the headers to be whole. */
  least = 60,
  SIZE = 64,
  /**
   * Pairs of entries for the same hash, the most and at first: few flows are to have few pages. The second ones lie behind all
   * first ones.
   */
  COUNT = 2048,
  FEWEST = 512,
  SECOND = 131072, // COUNT * SIZE
}

/** A place in `FlowTable.places`: room in front for two tags, then the longest frame. */
export enum FlowPlace {
  HEADROOM = 64,
  SIZE = 9152, // HEADROOM + FRAME_ROOM
}

/**
 * In a packet descriptor for the controller: `flags` is table << 8 | reason, `room` the frame's whole length, `mark` the
 * port where it came in.
 */
export enum PacketInReason {
  NO_MATCH = 0,
  ACTION = 1,
}
