/* The PVP loop in C: NIC -> learning switch -> guest (split virtqueues, macswap) -> switch -> NIC, on one thread, with
 * the core's data structures and the checks of its usual path: see assembly/{nic,switch,learning,vhost,iovtee,guest}.ts
 * and assembly/virtqueue/split-*.ts. What PVP never meets isn't here: packed rings, event indices, order, VLANs.
 * Chains, frames of several segments and unknown destinations are looked for as there, but then counted and dropped
 * instead of handled: any of them fails the run.
 *
 *     pvp [vhost|iovtee|all] [64|1514|all] [rounds] [packets a round]
 *
 * As in src/pvp.ts the card fills its ring, then the clock starts, host and guest handle the ring, the clock stops,
 * and the card sends and checks each frame. One line of JSON for each attachment and size. Exit status 1 when a frame
 * was lost, duplicated, reordered or changed, or its MAC addresses weren't swapped.
 * The first round of each isn't counted. Default: all, all, 7 rounds of 1,000,000.
 *
 * Index stores are sequentially consistent, as in the shared build; with -DPLAIN as in the build for one thread. */
#define _GNU_SOURCE
#include <immintrin.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef __m128i v128;
typedef u64 __attribute__((aligned(4))) u64_at4;
typedef u64 __attribute__((may_alias, aligned(1))) u64_any;
typedef u32 __attribute__((may_alias, aligned(1))) u32_any;
typedef u16 __attribute__((may_alias, aligned(1))) u16_any;

#ifdef PLAIN
#define STORE_ORDER memory_order_relaxed
#else
#define STORE_ORDER memory_order_seq_cst
#endif
#define PUBLISH(p, value) atomic_store_explicit(p, value, STORE_ORDER)
#define ACQUIRE(p) atomic_load_explicit(p, memory_order_acquire)
/* A field that the other side can change at any time is read once. */
#define ONCE(field) (*(volatile __typeof__(field) *)&(field))
#define COLD __attribute__((noinline, cold))
#define unlikely(x) __builtin_expect(!!(x), 0)

enum {
  RING = 256,
  TX_RING = 2 * RING,
  BURST = 32,
  TX_FREE = 32,
  HEADROOM = 128,
  ROOM = 2048,
  STRIDE = HEADROOM + ROOM,
  BUFFERS = 1024 + 4 * RING,
  NET_HEADER = 12,
  FRAME_MIN = 14,
  FRAME_MAX = 9022,
  SMALLEST = NET_HEADER + 60,
  RESERVE = 8,
  PAGE = 65536,
  REGION = (RING * (64 + 2 * STRIDE) + 64 * STRIDE + PAGE - 1) / PAGE * PAGE,
};
enum { MORE = 1, DONE = 2 };
enum { DESC_WRITE = 2, NO_EVENT = 1 };
enum { OWNER_POOL = 1, OWNER_TX = 2, OWNER_MAPPING = 3, TAKES_NOTHING = 0xffff };
enum { MIXED = 0xfffd, DROP = 0xffff };
enum { NIC_PORT = 0, GUEST_PORT = 1, PORTS = 2 };

/* A packet's descriptor. All memory lies below 4 GiB, so an address is 32 bits and a pointer at once. */
typedef union {
  v128 v;
  struct {
    u32 addr;
    union {
      struct {
        u16 len, flags;
      };
      u32 word;
      _Atomic u32 shared_word;
    };
    u16 owner, index, port, mark;
  };
} pkt;

static inline u8 *at(u32 addr) { return (u8 *)(uintptr_t)addr; }
static inline v128 desc(u32 addr, u32 len, u32 owner, u32 index, u32 port, u32 mark) {
  return _mm_set_epi64x((long long)((u64)owner | (u64)index << 16 | (u64)port << 32 | (u64)mark << 48),
                        (long long)((u64)addr | (u64)len << 32));
}
static inline u32 d_addr(v128 d) { return (u32)_mm_cvtsi128_si32(d); }
static inline u64 d_low(v128 d) { return (u64)_mm_cvtsi128_si64(d); }
static inline u32 d_len(v128 d) { return (u32)_mm_extract_epi16(d, 2); }
static inline u32 d_word(v128 d) { return (u32)_mm_extract_epi32(d, 1); }
static inline u32 d_owner(v128 d) { return (u32)_mm_extract_epi16(d, 4); }
static inline u32 d_index(v128 d) { return (u32)_mm_extract_epi16(d, 5); }
static inline u32 d_mark(v128 d) { return (u32)_mm_extract_epi16(d, 7); }

static inline void copy_descs(pkt *to, const pkt *from, u32 n) {
  for (u32 i = 0; i < n; i++) _mm_store_si128(&to[i].v, _mm_load_si128(&from[i].v));
}
static inline u32 min32(u32 a, u32 b) { return a < b ? a : b; }

/* ---- what went wrong: any of these fails the run */

static u64 faults;
static COLD void fault(u64 n) { faults += n; }

/* Seconds since the start, for ageing. */
static u32 now;

/* ---- pool of host buffers: a LIFO of ready descriptors */

struct pool {
  u32 base, length;
  u64 allocated, freed;
  pkt free[BUFFERS];
};

static inline u32 pool_take(struct pool *p, pkt *to, u32 n) {
  if (unlikely(n > p->length)) n = p->length;
  p->length -= n;
  p->allocated += n;
  copy_descs(to, &p->free[p->length], n);
  return n;
}

static inline void pool_give(struct pool *p, const pkt *from, u32 n) {
  u32 base = p->base + HEADROOM;
  v128 blank = desc(0, ROOM, OWNER_POOL, 0, 0, 0);
  pkt *to = &p->free[p->length];
  for (u32 i = 0; i < n; i++) {
    u32 index = from[i].index;
    to[i].v = _mm_insert_epi16(_mm_insert_epi32(blank, (int)(base + index * STRIDE), 0), (int)index, 5);
  }
  p->length += n;
  p->freed += n;
}

/* ---- MAC table: 4-way buckets of one cache line */

struct mac_entry {
  u64 key;
  u32 value, stamp;
};
enum { MAC_BUCKETS = 1024, WAYS = 4 };
#define STATIC_STAMP 0xffffffffu
struct macs {
  _Alignas(64) struct mac_entry e[MAC_BUCKETS][WAYS];
};

static inline u64 mac_key(u64 mac) { return mac | 1ull << 60; }

static inline struct mac_entry *mac_bucket(struct macs *m, u64 key) {
  return m->e[((key ^ key >> 32) * 0x9e3779b97f4a7c15ull >> 40) & (MAC_BUCKETS - 1)];
}

static inline struct mac_entry *mac_find(struct macs *m, u64 key) {
  struct mac_entry *b = mac_bucket(m, key);
  for (u32 i = 0; i < WAYS; i++)
    if (b[i].key == key) return &b[i];
  return 0;
}

static COLD void mac_insert(struct macs *m, u64 key, u32 value, u32 stamp) {
  struct mac_entry *b = mac_bucket(m, key), *place = 0;
  u32 oldest = STATIC_STAMP;
  for (u32 i = 0; i < WAYS; i++) {
    if (!b[i].key) {
      place = &b[i];
      break;
    }
    if (b[i].stamp < oldest) {
      oldest = b[i].stamp;
      place = &b[i];
    }
  }
  if (place) *place = (struct mac_entry){key, value, stamp};
}

/* ---- virtqueue, device side. The guest's bytes are hostile: read once, checked, then used. */

struct vring_desc {
  u64 addr, rest; /* rest: len u32, flags u16, next u16 */
};
struct vring_avail {
  _Atomic u16 flags, idx;
  u16 ring[RING];
};
struct vring_used {
  _Atomic u16 flags, idx;
  u64_at4 ring[RING]; /* id u32, len u32 */
};

struct vq {
  u32 base, limit;
  struct vring_desc *desc;
  struct vring_avail *avail_ring;
  struct vring_used *used_ring;
  u32 size, broken, ready;
  _Alignas(64) u32 avail, avail_cache, used, published, taken;
  _Alignas(64) u64 notifications, refused;
};

static COLD void vq_refuse(struct vq *q) {
  q->refused++;
  q->broken = 1;
  fault(1);
}

static inline u32 vq_available(struct vq *q, u32 want) {
  u32 known = (u16)(q->avail_cache - q->avail);
  if (known >= want) return known;
  u32 idx = ACQUIRE(&q->avail_ring->idx), n = (u16)(idx - q->avail);
  if (unlikely(n + q->taken > q->size)) {
    vq_refuse(q);
    return 0;
  }
  q->avail_cache = idx;
  return n;
}

/* Up to `max` buffers, one plain descriptor each, checked and translated; stops before the first that isn't. */
static inline u32 vq_take(struct vq *q, pkt *to, u32 max, bool writable, u32 owner, u32 skip, u32 port) {
  u32 n = min32(vq_available(q, max), max), i = 0;
  const u16 *ring = q->avail_ring->ring;
  const struct vring_desc *table = q->desc;
  u32 mask = q->size - 1, base = q->base + skip, next = q->avail;
  u32 wanted = writable ? DESC_WRITE : 0, least = skip ? skip + FRAME_MIN : 1;
  u32 range = (skip ? skip + FRAME_MAX : 0xffff) - least;
  u64 limit = q->limit;
  v128 blank = desc(0, 0, owner, 0, port, 1);
  for (; i < n; i++) {
    u32 head = ONCE(ring[(next + i) & mask]);
    const struct vring_desc *p = &table[head & mask];
    u64 addr = ONCE(p->addr), rest = ONCE(p->rest);
    u32 len = (u32)rest;
    if (unlikely(head > mask || (u16)(rest >> 32) != wanted || len - least > range || addr > limit - len)) break;
    v128 d = _mm_insert_epi32(blank, (int)(base + (u32)addr), 0);
    to[i].v = _mm_insert_epi16(_mm_insert_epi16(d, (int)(len - skip), 2), (int)head, 5);
  }
  q->avail = next + i;
  q->taken += i;
  return i;
}

static inline void vq_untake(struct vq *q, u32 n) {
  q->avail -= n;
  q->taken -= n;
}

/* `header`: bytes in front of the frame that `len` doesn't count. */
static inline void vq_complete(struct vq *q, const pkt *from, u32 n, bool written, u32 header) {
  u64_at4 *ring = q->used_ring->ring;
  u32 mask = q->size - 1, used = q->used;
  for (u32 i = 0; i < n; i++) {
    u64 len = (written ? from[i].len : 0) + header;
    ring[(used + i) & mask] = from[i].index | len << 32;
  }
  q->used = used + n;
  q->taken -= n;
}

static inline void vq_publish(struct vq *q) {
  if (q->used == q->published) return;
  PUBLISH(&q->used_ring->idx, (u16)q->used);
  q->published = q->used;
  if (!(ACQUIRE(&q->avail_ring->flags) & NO_EVENT)) q->notifications++;
}

/* ---- NIC: descriptor rings with DONE bits. `card_` is the hardware, `pmd_` the driver. */

struct rxq {
  pkt *ring;
  u32 mask, offset, enabled;
  struct pool *pool;
  struct mapping *mapping;
  _Alignas(64) u32 head, tail_cache, first;
  bool pending;
  _Alignas(64) u32 next, posted;
  _Alignas(64) _Atomic u32 tail;
};

struct txq {
  pkt *ring;
  u32 mask;
  _Alignas(64) u32 head;
  _Alignas(64) u32 next, clean;
  _Alignas(64) _Atomic u32 tail;
};

struct nic {
  struct rxq rx[2];
  u32 rx_queues;
  struct txq tx;
};

/* Whole frames only. */
static inline u32 pmd_rx(struct rxq *q, pkt *to, u32 max) {
  pkt *ring = q->ring;
  u32 mask = q->mask, next = q->next, n = 0, whole = 0;
  max = min32(q->posted - next, max);
  while (n < max) {
    pkt *p = &ring[(next + n) & mask];
    u32 flags = ACQUIRE(&p->shared_word) >> 16;
    if (!(flags & DONE)) break;
    u32 more = flags & MORE;
    to[n++].v = _mm_insert_epi16(p->v, (int)more, 3);
    if (!more) whole = n;
  }
  q->next = next + whole;
  return whole;
}

static inline u32 pmd_posted(const struct rxq *q) { return q->posted - q->next; }

static inline void pmd_announce(struct rxq *q, u32 posted) {
  q->posted = posted;
  PUBLISH(&q->tail, posted);
}

static inline void pmd_post(struct rxq *q, const pkt *from, u32 n) {
  u32 slot = q->posted & q->mask, straight = min32(n, q->mask + 1 - slot);
  copy_descs(&q->ring[slot], from, straight);
  copy_descs(q->ring, from + straight, n - straight);
  pmd_announce(q, q->posted + n);
}

static inline u32 pmd_refill(struct rxq *q, u32 target) {
  u32 have = pmd_posted(q), posted = q->posted;
  if (have >= target) return 0;
  for (u32 left = target - have; left;) {
    u32 slot = posted & q->mask, want = min32(left, q->mask + 1 - slot);
    u32 got = pool_take(q->pool, &q->ring[slot], want);
    posted += got;
    left -= got;
    if (got < want) break;
  }
  u32 added = posted - q->posted;
  if (added) pmd_announce(q, posted);
  return added;
}

static inline bool pmd_is_done(pkt *p) { return ACQUIRE(&p->shared_word) >> 16 & DONE; }

static inline void pmd_tx_clean(struct txq *q, struct pool *pool) {
  u32 clean = q->clean;
  while (q->next - clean >= TX_FREE) {
    pkt *first = &q->ring[clean & q->mask], *last = &q->ring[(clean + TX_FREE - 1) & q->mask];
    if (!pmd_is_done(last) || !pmd_is_done(first)) break;
    for (u32 n = TX_FREE; n;) {
      pkt *p = &q->ring[clean & q->mask];
      u32 straight = min32(n, q->mask + 1 - (clean & q->mask)), run = 1;
      while (run < straight && p[run].owner == p->owner) run++;
      if (p->owner == OWNER_POOL) pool_give(pool, p, run);
      else fault(run);
      clean += run;
      n -= run;
    }
  }
  q->clean = clean;
}

static inline u32 pmd_tx_room(struct txq *q, struct pool *pool) {
  pmd_tx_clean(q, pool);
  return q->mask + 1 - (q->next - q->clean);
}

static inline void pmd_tx_announce(struct txq *q, u32 n) {
  q->next += n;
  PUBLISH(&q->tail, q->next);
}

/* ---- IOVTee: a receive queue of the NIC's mapped to a virtqueue */

struct mapping {
  struct vq *vq;
  struct rxq *queue;
  u32 mask, head, tail;
  u64 hits, misses, host_buffers;
  pkt pring[RING];
  /* Each buffer as it was posted, by id: the card overwrites its descriptor. */
  pkt posted[RING];
};

/* Avail ring to PRing. */
static inline void mapping_fill(struct mapping *m) {
  struct vq *q = m->vq;
  if (!q->ready || q->broken) return;
  u32 mask = m->mask, tail = m->tail, room = mask + 1 - (tail - m->head);
  while (room) {
    u32 run = min32(room, mask + 1 - (tail & mask));
    pkt *to = &m->pring[tail & mask];
    u32 n = vq_take(q, to, run, true, OWNER_MAPPING, 0, 0), good = 0;
    for (; good < n; good++) {
      v128 d = to[good].v;
      if (unlikely(d_len(d) < SMALLEST || d_index(d) > mask)) break;
      m->posted[d_index(d)].v = d;
    }
    tail += good;
    room -= good;
    if (unlikely(good < n)) {
      vq_untake(q, n - good);
      fault(1);
      break;
    }
    if (n < run) break;
  }
  m->tail = tail;
}

/* PRing to the card; host buffers if it is empty and the card nearly so. */
static inline void mapping_refill(struct mapping *m) {
  struct rxq *q = m->queue;
  u32 slots = q->mask + 1, head = m->head, mask = m->mask, held = m->tail - head, kept = (mask + 1) / RESERVE;
  u32 n = held > kept ? min32(held - kept, slots - pmd_posted(q)) : 0;
  while (n) {
    u32 run = min32(n, mask + 1 - (head & mask));
    pmd_post(q, &m->pring[head & mask], run);
    head += run;
    n -= run;
  }
  m->head = head;
  if (unlikely(pmd_posted(q) < slots / 4)) m->host_buffers += pmd_refill(q, slots / 4);
}

/* Miss: what the card wrote is wiped, the buffer is empty again. */
static COLD void mapping_give_back(struct mapping *m, const pkt *from, u32 n) {
  for (u32 i = 0; i < n; i++) {
    m->misses++;
    memset(at(from[i].addr), 0, from[i].len);
    m->pring[m->tail++ & m->mask].v = m->posted[from[i].index & m->mask].v;
  }
}

/* ---- switch */

struct port {
  enum { PORT_NIC, PORT_VHOST } kind;
  u32 index, takes, learning, up, trusts_mark;
  struct nic *nic;
  struct vq *to, *from;
  struct mapping *mapping;
  u64 last_key;
  u32 last_second;
  _Alignas(64) u64 rx_packets, rx_bytes, tx_packets, tx_bytes, copies, copied_bytes, drops;
};

struct sw {
  struct pool *pool;
  u32 ports, ageing, common;
  bool alike;
  struct port *port[PORTS];
  struct macs macs;
  pkt packets[BURST], out[BURST], spare[BURST];
  v128 headers[BURST], out_headers[BURST];
  u16 destination[BURST];
};

static inline u64 source_key(v128 h) {
  return mac_key((u64)_mm_cvtsi128_si64(_mm_srli_si128(h, 6)) & 0xffffffffffffull);
}
static inline u64 destination_mac(v128 h) { return (u64)_mm_cvtsi128_si64(h) & 0xffffffffffffull; }

static __attribute__((noinline)) bool learn_new(struct sw *sw, struct port *port, u64 key) {
  if (key & 1) return true;
  struct mac_entry *e = mac_find(&sw->macs, key);
  if (e) {
    bool moved = e->value != port->index;
    if (e->stamp == STATIC_STAMP) {
      if (moved) return false;
    } else {
      if (!port->learning) return true;
      if (moved) {
        sw->port[e->value]->last_key = 0;
        e->value = port->index;
      }
      e->stamp = now;
    }
  } else {
    if (!port->learning) return true;
    mac_insert(&sw->macs, key, port->index, now);
  }
  port->last_key = key;
  port->last_second = now;
  return true;
}

/* A source that was learned last in this second isn't looked up again. */
static inline bool learn(struct sw *sw, struct port *port, u64 key) {
  if (key == port->last_key && now == port->last_second) return true;
  return learn_new(sw, port, key);
}

static COLD u32 dropped(struct port *port) {
  port->drops++;
  fault(1);
  return DROP;
}

/* Learns the source, looks up the destination. */
static inline u32 lookup(struct sw *sw, struct port *port, v128 h) {
  if (!learn(sw, port, source_key(h))) return dropped(port);
  u64 mac = destination_mac(h);
  if (mac & 1) return dropped(port);
  struct mac_entry *e = mac_find(&sw->macs, mac_key(mac));
  if (!e || (e->stamp != STATIC_STAMP && now - e->stamp > sw->ageing)) return dropped(port);
  return e->value == port->index ? dropped(port) : e->value;
}

/* Not one whole segment with a header of 16 bytes, or longer than any frame. */
static inline bool is_unusual(v128 d) { return d_word(d) - 16 > FRAME_MAX - 16; }

/* All are whole frames that the card's filter sent to one port which takes their buffers: nobody reads them. */
static inline bool classify_mapped(struct sw *sw, struct port *port, u32 n) {
  v128 first = sw->packets[0].v, differ = _mm_setzero_si128();
  u32 mark = d_mark(first), words = 0, bytes = 0;
  if (mark > sw->ports || sw->port[mark - 1]->takes != d_owner(first) || is_unusual(first)) return false;
  for (u32 i = 0; i < n; i++) {
    v128 d = sw->packets[i].v;
    u32 word = d_word(d);
    bytes += word & 0xffff;
    words |= word;
    differ = _mm_or_si128(differ, _mm_xor_si128(d, first));
  }
  if (words >> 16 || d_owner(differ) || d_mark(differ)) return false;
  learn(sw, port, source_key(_mm_loadu_si128((v128 *)at(d_addr(first)))));
  port->rx_bytes += bytes;
  sw->alike = true;
  sw->common = mark - 1;
  return true;
}

/* First pass: where each frame of the burst goes. */
static inline void classify(struct sw *sw, struct port *port, u32 n) {
  if (port->trusts_mark && sw->packets[0].mark && classify_mapped(sw, port, n)) return;
  const v128 macs = _mm_set_epi32(0, -1, -1, -1);
  v128 first = sw->packets[0].v, differ = _mm_setzero_si128(), before = _mm_setzero_si128();
  u32 common = MIXED, bytes = 0, to = DROP, mark_before = 0;
  for (u32 i = 0; i < n; i++) {
    v128 d = sw->packets[i].v;
    differ = _mm_or_si128(differ, _mm_xor_si128(d, first));
    if (unlikely(is_unusual(d))) {
      sw->destination[i] = (u16)(to = dropped(port));
      common = MIXED;
      continue;
    }
    v128 h = _mm_loadu_si128((v128 *)at(d_addr(d)));
    u32 mark = d_mark(d);
    /* Frames between the same two stations go the same way. */
    if (to == DROP || mark != mark_before || !_mm_testz_si128(_mm_xor_si128(h, before), macs)) {
      bool known = port->trusts_mark && mark && mark <= sw->ports;
      if (known) learn(sw, port, source_key(h));
      to = known ? mark - 1 : lookup(sw, port, h);
      common = i == 0 || to == common ? to : MIXED;
      before = h;
      mark_before = mark;
    }
    sw->headers[i] = h;
    sw->destination[i] = (u16)to;
    bytes += d_len(d);
  }
  port->rx_bytes += bytes;
  sw->common = common;
  sw->alike = d_owner(differ) == 0;
}

/* A frame whose first 16 bytes are `header`, those that the switch decided by; 32 bytes at least. */
static inline void copy_frame(u8 *to, const u8 *from, u32 len, v128 header) {
  if (len > 256) memcpy(to + 16, from + 16, len - 16);
  else {
    u32 last = len - 16;
    for (u32 i = 16; i < last; i += 16)
      _mm_storeu_si128((v128 *)(to + i), _mm_loadu_si128((const v128 *)(from + i)));
    _mm_storeu_si128((v128 *)(to + last), _mm_loadu_si128((const v128 *)(from + last)));
  }
  _mm_storeu_si128((v128 *)to, header);
}

static inline u32 copy_frames(pkt *to, u32 skip, const pkt *from, u32 n, const v128 *headers) {
  u32 bytes = 0;
  for (u32 i = 0; i < n; i++) {
    u32 len = from[i].len;
    if (unlikely(len < 32)) {
      fault(1);
      len = 32;
    }
    copy_frame(at(to[i].addr) + skip, at(from[i].addr), len, headers[i]);
    to[i].len = (u16)(len + skip);
    bytes += len;
  }
  return bytes;
}

/* To the guest: frames in its own mapped buffers are handed over, others copied. All from one owner. */
static inline void vhost_tx(struct port *port, const pkt *from, u32 n, const v128 *headers, pkt *spare) {
  struct vq *q = port->to;
  if (unlikely(!q->ready || q->broken)) {
    port->drops += n;
    fault(n);
    return;
  }
  u32 bytes = 0;
  if (from->owner == port->takes) {
    for (u32 i = 0; i < n; i++) {
      u64 low = d_low(from[i].v);
      u8 *header = at((u32)low) - NET_HEADER;
      bytes += (u16)(low >> 32);
      if (*(u64_any *)header) *(u64_any *)header = 0;
      if (*(u32_any *)(header + 8) != 1 << 16) *(u32_any *)(header + 8) = 1 << 16;
    }
    vq_complete(q, from, n, true, NET_HEADER);
    port->mapping->hits += n;
  } else {
    u32 got = vq_take(q, spare, n, true, 0, 0, 0), fit = 0;
    for (; fit < got; fit++) {
      u64 low = d_low(spare[fit].v);
      if (unlikely((u32)from[fit].len + NET_HEADER > (u16)(low >> 32))) break;
      u8 *header = at((u32)low);
      *(u64_any *)header = 0;
      *(u32_any *)(header + 8) = 1 << 16;
    }
    bytes = copy_frames(spare, NET_HEADER, from, fit, headers);
    vq_complete(q, spare, fit, true, 0);
    if (unlikely(fit < n)) {
      vq_untake(q, got - fit);
      port->drops += n - fit;
      fault(n - fit);
    }
    n = fit;
    port->copies += n;
    port->copied_bytes += bytes;
  }
  port->tx_packets += n;
  port->tx_bytes += bytes;
  vq_publish(q);
}

/* To the NIC: host buffers are handed over, others copied into host buffers. All from one owner. */
static inline void nic_tx(struct sw *sw, struct port *port, const pkt *from, u32 n, const v128 *headers) {
  struct txq *q = &port->nic->tx;
  u32 room = pmd_tx_room(q, sw->pool), bytes = 0, sent = 0;
  bool own = from->owner == port->takes;
  while (sent < n && room) {
    pkt *to = &q->ring[q->next & q->mask];
    u32 run = min32(min32(n - sent, room), q->mask + 1 - (q->next & q->mask));
    if (own) {
      copy_descs(to, from + sent, run);
      for (u32 i = 0; i < run; i++) bytes += from[sent + i].len;
    } else {
      u32 fit = 0;
      while (fit < run && from[sent + fit].word <= ROOM) fit++;
      u32 got = pool_take(sw->pool, to, fit), some = copy_frames(to, 0, from + sent, got, headers + sent);
      port->copies += got;
      port->copied_bytes += some;
      bytes += some;
      if (unlikely(got < run)) {
        if (got) pmd_tx_announce(q, got);
        sent += got;
        break;
      }
    }
    pmd_tx_announce(q, run);
    sent += run;
    room -= run;
  }
  port->tx_packets += sent;
  port->tx_bytes += bytes;
  if (unlikely(sent < n)) {
    port->drops += n - sent;
    fault(n - sent);
  }
}

static inline void deliver(struct sw *sw, u32 to, const pkt *from, u32 n, const v128 *headers) {
  struct port *out = sw->port[to];
  if (out->kind == PORT_VHOST) vhost_tx(out, from, n, headers, sw->spare);
  else nic_tx(sw, out, from, n, headers);
}

static inline void give_back(struct sw *sw, u32 owner, const pkt *p, u32 n) {
  if (owner == OWNER_POOL) pool_give(sw->pool, p, n);
  else if (owner == OWNER_MAPPING) mapping_give_back(sw->port[GUEST_PORT]->mapping, p, n);
  else if (owner == OWNER_TX) {
    struct vq *q = sw->port[GUEST_PORT]->from;
    if (!q->ready || q->broken) return;
    vq_complete(q, p, n, false, 0);
    vq_publish(q);
  }
}

/* Second pass for a burst of several destinations or owners: runs of equal ones, port by port. */
static COLD void forward(struct sw *sw, u32 n) {
  for (u32 to = 0; to < sw->ports; to++) {
    u32 some = 0;
    for (u32 i = 0; i <= n; i++) {
      bool mine = i < n && sw->destination[i] == to;
      if (some && (i == n || (mine && sw->packets[i].owner != sw->out[0].owner))) {
        deliver(sw, to, sw->out, some, sw->out_headers);
        some = 0;
      }
      if (!mine) continue;
      sw->out[some].v = sw->packets[i].v;
      sw->out_headers[some++] = sw->headers[i];
    }
  }
  for (u32 i = 0; i < n; i++) {
    u32 to = sw->destination[i], owner = sw->packets[i].owner;
    if (to == DROP || owner != sw->port[to]->takes) give_back(sw, owner, &sw->packets[i], 1);
  }
}

static inline void process(struct sw *sw, struct port *port, u32 n) {
  sw->alike = false;
  classify(sw, port, n);
  port->rx_packets += n;
  if (unlikely(sw->common >= MIXED || !sw->alike)) {
    forward(sw, n);
    return;
  }
  deliver(sw, sw->common, sw->packets, n, sw->headers);
  u32 owner = sw->packets[0].owner;
  if (owner != sw->port[sw->common]->takes) give_back(sw, owner, sw->packets, n);
}

static inline u32 switch_poll(struct sw *sw) {
  u32 moved = 0;
  for (u32 i = 0; i < sw->ports; i++) {
    struct port *port = sw->port[i];
    if (!port->up) continue;
    if (port->kind == PORT_NIC) {
      for (u32 k = 0; k < port->nic->rx_queues; k++) {
        struct rxq *q = &port->nic->rx[k];
        u32 n = pmd_rx(q, sw->packets, BURST);
        if (n) process(sw, port, n);
        moved += n;
        if (q->mapping) {
          mapping_fill(q->mapping);
          if (q->enabled) mapping_refill(q->mapping);
        } else if (n && q->enabled) pmd_refill(q, q->mask + 1);
      }
    } else {
      struct vq *q = port->from;
      if (!q->ready || q->broken) continue;
      u32 n = vq_take(q, sw->packets, BURST, false, OWNER_TX, NET_HEADER, port->index);
      if (n < BURST && unlikely(vq_available(q, 1))) vq_refuse(q);
      if (n) process(sw, port, n);
      moved += n;
    }
  }
  return moved;
}

/* ---- guest: its driver's sides of the queues, its buffers, its function */

struct driver {
  struct vring_desc *desc;
  struct vring_avail *avail_ring;
  struct vring_used *used_ring;
  u32 size, base, writable;
  u32 avail, published, last_used, free_count;
  u64 kicks, bad_used;
  u16 free_ids[RING];
  _Alignas(64) pkt shadow[RING];
};

struct guest {
  struct driver rx, tx;
  u32 buffers, count, free_count;
  u64 received, transmitted;
  pkt *free;
  pkt list[RING];
};

static inline u32 driver_post(struct driver *d, const pkt *from, u32 n, bool writable) {
  d->writable = writable;
  struct vring_desc *table = d->desc;
  u16 *ring = d->avail_ring->ring, *free_ids = d->free_ids;
  pkt *shadow = d->shadow;
  u32 mask = d->size - 1, base = d->base, free = d->free_count, avail = d->avail;
  u64 direction = (u64)(writable ? DESC_WRITE : 0) << 32;
  if (n > free) n = free;
  for (u32 i = 0; i < n; i++) {
    v128 p = from[i].v;
    u64 low = d_low(p);
    u32 head = free_ids[--free];
    table[head] = (struct vring_desc){(u32)low - base, low >> 32 | direction};
    shadow[head].v = p;
    ring[avail++ & mask] = (u16)head;
  }
  d->free_count = free;
  d->avail = avail;
  return n;
}

static inline void driver_publish(struct driver *d) {
  if (d->avail == d->published) return;
  PUBLISH(&d->avail_ring->idx, (u16)d->avail);
  d->published = d->avail;
  if (!(ACQUIRE(&d->used_ring->flags) & NO_EVENT)) d->kicks++;
}

static inline u32 driver_used(struct driver *d, pkt *to, u32 max) {
  const u64_at4 *ring = d->used_ring->ring;
  u16 *free_ids = d->free_ids;
  pkt *shadow = d->shadow;
  u32 mask = d->size - 1, last = d->last_used, free = d->free_count, n = 0;
  u32 left = (u16)(ACQUIRE(&d->used_ring->idx) - last);
  bool writable = d->writable;
  for (; left && n < max; left--, last++) {
    u64 element = ONCE(ring[last & mask]);
    pkt *s = &shadow[element & mask];
    v128 p = s->v;
    u64 low = d_low(p);
    if (unlikely((u32)element > mask || low >> 48 || !(u32)low)) {
      d->bad_used++;
      fault(1);
      continue;
    }
    u64 room = low >> 32, len = element >> 32;
    to[n++].v = _mm_insert_epi16(p, (int)(writable && len < room ? len : room), 2);
    s->addr = 0;
    free_ids[free++] = (u16)element;
  }
  d->free_count = free;
  d->last_used = last;
  return n;
}

/* Empty again, with room for the net header in front of where the frame begins. */
static inline void guest_give(struct guest *g, const pkt *from, u32 n) {
  u32 base = g->buffers + HEADROOM - NET_HEADER;
  v128 blank = desc(0, STRIDE - HEADROOM + NET_HEADER, 0, 0, 0, 0);
  pkt *to = g->free + g->free_count;
  for (u32 i = 0; i < n; i++) {
    u32 index = from[i].index;
    to[i].v = _mm_insert_epi16(_mm_insert_epi32(blank, (int)(base + index * STRIDE), 0), (int)index, 5);
  }
  g->free_count += n;
}

static inline u32 guest_poll(struct guest *g) {
  const v128 swap = _mm_setr_epi8(6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5, 12, 13, 14, 15);
  const u32 shortest = NET_HEADER + FRAME_MIN, range = STRIDE - shortest;
  guest_give(g, g->list, driver_used(&g->tx, g->list, RING));
  u32 n = driver_used(&g->rx, g->list, BURST);
  if (n) {
    for (u32 i = 0; i < n; i++) {
      u64 low = d_low(g->list[i].v);
      u8 *addr = at((u32)low);
      if (unlikely(*(u16_any *)(addr + 10) > 1 || (u32)(low >> 32) - shortest > range)) fault(1);
      v128 *frame = (v128 *)(addr + NET_HEADER);
      _mm_storeu_si128(frame, _mm_shuffle_epi8(_mm_loadu_si128(frame), swap));
      *(u64_any *)addr = 0;
      *(u32_any *)(addr + 8) = 0;
    }
    g->received += n;
    u32 posted = driver_post(&g->tx, g->list, n, false);
    if (unlikely(posted < n)) {
      guest_give(g, g->list + posted, n - posted);
      fault(n - posted);
    }
    g->transmitted += posted;
    driver_publish(&g->tx);
  }
  u32 want = min32(g->free_count, g->rx.free_count);
  if (want) {
    g->free_count -= driver_post(&g->rx, g->free + (g->free_count - want), want, true);
    driver_publish(&g->rx);
  }
  return n;
}

/* ---- the card's own work and the wire's: not timed */

static bool card_receive(struct rxq *q, const u8 *frame, u32 len, u32 mark) {
  if (q->head == q->tail_cache && q->head == (q->tail_cache = ACQUIRE(&q->tail))) return false;
  pkt *p = &q->ring[q->head & q->mask];
  u32 to = p->addr + q->offset, flags = 0;
  if (p->len < len + q->offset) return false;
  memcpy(at(to), frame, len);
  if (q->pending) flags = DONE;
  else {
    q->pending = true;
    q->first = q->head & q->mask;
  }
  v128 d = desc(to, len, p->owner, p->index, NIC_PORT, mark);
  p->v = _mm_insert_epi16(d, (int)flags, 3);
  q->head++;
  return true;
}

/* The burst's first descriptor is finished last. */
static void card_flush(struct rxq *q) {
  if (!q->pending) return;
  pkt *p = &q->ring[q->first];
  PUBLISH(&p->shared_word, p->word | DONE << 16);
  q->pending = false;
}

static const u8 GUEST_MAC[6] = {2, 0, 0, 0, 0, 1}, WIRE_MAC[6] = {2, 0, 0, 0, 0xff, 1};
enum { SEQ = 42, FLOWS = 64 };

struct wire {
  u32 seq, expected, len;
  u64 sent, received, wrong;
  u8 frame[ROOM], back[ROOM];
};

static void number(u8 *frame, u32 seq) {
  u16 source = (u16)(1024 + seq % FLOWS);
  *(u16_any *)(frame + 34) = __builtin_bswap16(source);
  *(u32_any *)(frame + SEQ) = __builtin_bswap32(seq);
  *(u32_any *)(frame + SEQ + 4) = __builtin_bswap32(~seq);
  *(u16_any *)(frame + SEQ + 8) = __builtin_bswap16((u16)~source);
}

static void wire_send(struct wire *w, struct rxq *q, u32 mark, u32 n) {
  for (u32 i = 0; i < n; i++) {
    number(w->frame, w->seq++);
    if (card_receive(q, w->frame, w->len, mark)) w->sent++;
    else w->wrong++;
  }
  card_flush(q);
}

static void wire_check(struct wire *w, struct txq *q) {
  u32 n = ACQUIRE(&q->tail) - q->head;
  for (u32 i = 0; i < n; i++) {
    const pkt *p = &q->ring[(q->head + i) & q->mask];
    number(w->back, w->expected++);
    if (p->word != w->len || memcmp(at(p->addr), w->back, w->len)) w->wrong++;
    w->received++;
  }
  for (u32 i = n; i-- > 0;) {
    pkt *p = &q->ring[(q->head + i) & q->mask];
    PUBLISH(&p->shared_word, p->word | DONE << 16);
  }
  q->head += n;
}

/* ---- set-up */

static u8 *arena, *arena_end;

static void *take(size_t bytes, size_t alignment) {
  u8 *p = (u8 *)(((uintptr_t)arena + alignment - 1) & ~(alignment - 1));
  arena = p + bytes;
  if (arena > arena_end) {
    fputs("pvp: arena too small\n", stderr);
    exit(1);
  }
  return p;
}

struct rig {
  bool mapped;
  struct nic *nic;
  struct sw *sw;
  struct guest *guest;
  struct wire *wire;
  double *ns;
  u64 packets, copies, copied;
};

static void *queue_areas(u8 **next, struct vq *q, struct driver *d, u32 base) {
  struct vring_desc *table = (void *)*next;
  struct vring_avail *avail = (void *)(*next + RING * sizeof *table);
  struct vring_used *used = (void *)((u8 *)avail + ((sizeof *avail + 63) & ~63ul));
  *next = (u8 *)used + ((sizeof *used + 63) & ~63ul);
  *q = (struct vq){.base = base, .limit = REGION, .desc = table, .avail_ring = avail, .used_ring = used};
  q->size = d->size = RING;
  q->ready = 1;
  d->desc = table;
  d->avail_ring = avail;
  d->used_ring = used;
  d->base = base;
  d->free_count = RING;
  for (u32 i = 0; i < RING; i++) d->free_ids[i] = (u16)(RING - 1 - i);
  avail->flags = NO_EVENT;
  used->flags = NO_EVENT;
  return q;
}

static struct rig setup(bool mapped, u32 size) {
  struct pool *pool = take(sizeof *pool, 64);
  u32 buffers = (u32)(uintptr_t)take(BUFFERS * STRIDE, 64);
  pool->base = buffers;
  for (u32 i = 0; i < BUFFERS; i++) {
    pkt p = {.v = desc(0, 0, OWNER_POOL, BUFFERS - 1 - i, 0, 0)};
    pool_give(pool, &p, 1);
  }
  struct nic *nic = take(sizeof *nic, 64);
  nic->tx.ring = take(TX_RING * sizeof(pkt), 64);
  nic->tx.mask = TX_RING - 1;
  nic->rx_queues = mapped ? 2 : 1;
  for (u32 i = 0; i < nic->rx_queues; i++) {
    nic->rx[i].ring = take(RING * sizeof(pkt), 64);
    nic->rx[i].mask = RING - 1;
    nic->rx[i].enabled = 1;
    nic->rx[i].pool = pool;
  }
  pmd_refill(&nic->rx[0], RING);

  u8 *region = take(REGION, PAGE), *next = region;
  u32 base = (u32)(uintptr_t)region;
  struct guest *g = take(sizeof *g, 64);
  struct vq *rxq = take(sizeof *rxq, 64), *txq = take(sizeof *txq, 64);
  queue_areas(&next, rxq, &g->rx, base);
  queue_areas(&next, txq, &g->tx, base);
  g->buffers = (u32)(uintptr_t)next;
  g->count = (u32)(region + REGION - next) / STRIDE;
  g->free = take(g->count * sizeof(pkt), 64);
  for (u32 i = g->count; i-- > 0;) {
    pkt p = {.v = desc(0, 0, 0, i, 0, 0)};
    guest_give(g, &p, 1);
  }
  guest_poll(g);

  struct sw *sw = take(sizeof *sw, 64);
  sw->pool = pool;
  sw->ports = PORTS;
  sw->ageing = 300;
  for (u32 i = 0; i < PORTS; i++) {
    struct port *p = sw->port[i] = take(sizeof *p, 64);
    p->index = i;
    p->learning = p->up = 1;
  }
  struct port *to_nic = sw->port[NIC_PORT], *to_guest = sw->port[GUEST_PORT];
  to_nic->kind = PORT_NIC;
  to_nic->nic = nic;
  to_nic->takes = OWNER_POOL;
  to_nic->trusts_mark = 1;
  to_guest->kind = PORT_VHOST;
  to_guest->to = rxq;
  to_guest->from = txq;
  to_guest->takes = mapped ? OWNER_MAPPING : TAKES_NOTHING;
  u64 mac = 0;
  memcpy(&mac, GUEST_MAC, 6);
  mac_insert(&sw->macs, mac_key(mac), GUEST_PORT, STATIC_STAMP);
  if (mapped) {
    struct mapping *m = take(sizeof *m, 64);
    m->vq = rxq;
    m->queue = &nic->rx[1];
    m->mask = RING - 1;
    nic->rx[1].mapping = m;
    nic->rx[1].offset = NET_HEADER;
    to_guest->mapping = m;
    mapping_fill(m);
    mapping_refill(m);
  }

  struct wire *w = take(sizeof *w, 64);
  w->len = size == 1514 ? 1514 : size - 4;
  memcpy(w->frame, GUEST_MAC, 6);
  memcpy(w->frame + 6, WIRE_MAC, 6);
  w->frame[12] = 8;
  for (u32 i = 14; i < w->len; i++) w->frame[i] = (u8)i;
  memcpy(w->back, w->frame, w->len);
  memcpy(w->back, WIRE_MAC, 6);
  memcpy(w->back + 6, GUEST_MAC, 6);
  return (struct rig){.mapped = mapped, .nic = nic, .sw = sw, .guest = g, .wire = w};
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Host and guest in turn until a turn moves nothing. */
static __attribute__((noinline)) u64 drain(struct sw *sw, struct guest *g, double start) {
  now = (u32)(seconds() - start);
  u64 moved = 0;
  for (u32 some = 1; some; moved += some) {
    some = switch_poll(sw);
    some += guest_poll(g);
  }
  return moved;
}

/* Returns nanoseconds per packet. */
static double round_of(struct rig *r, u64 packets, double start) {
  double time = 0;
  for (u64 left = packets; left;) {
    u32 n = left < RING - RING / RESERVE ? (u32)left : RING - RING / RESERVE;
    wire_send(r->wire, &r->nic->rx[r->mapped], r->mapped ? GUEST_PORT + 1 : 0, n);
    double t = seconds();
    drain(r->sw, r->guest, start);
    time += seconds() - t;
    wire_check(r->wire, &r->nic->tx);
    left -= n;
  }
  return time * 1e9 / (double)packets;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "all", *size = argc > 2 ? argv[2] : "all";
  int rounds = argc > 3 ? atoi(argv[3]) : 7;
  u64 packets = argc > 4 ? strtoull(argv[4], 0, 10) : 1000000;
  static const char *const modes[] = {"vhost", "iovtee"};
  static const u32 sizes[] = {64, 1514};
  enum { RIGS = 4, ARENA = 64 << 20 };
  arena = mmap(0, ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
  if (arena == MAP_FAILED || rounds < 1 || !packets) {
    fputs("pvp: no memory below 4 GiB, or bad arguments\n", stderr);
    return 2;
  }
  arena_end = arena + ARENA;
  double start = seconds();
  struct rig rigs[RIGS] = {0};
  for (int i = 0; i < RIGS; i++) {
    u32 bytes = sizes[i / 2];
    if (strcmp(mode, "all") && strcmp(mode, modes[i % 2])) continue;
    if (strcmp(size, "all") && (u32)atoi(size) != bytes) continue;
    rigs[i] = setup(i % 2, bytes);
    rigs[i].ns = take((size_t)rounds * sizeof(double), 64);
  }
  for (int k = -1; k < rounds; k++)
    for (int i = 0; i < RIGS; i++) {
      struct rig *r = &rigs[i];
      if (!r->ns) continue;
      double ns = round_of(r, packets, start);
      if (k >= 0) r->ns[k] = ns;
    }
  int status = faults != 0;
  for (int i = 0; i < RIGS; i++) {
    struct rig *r = &rigs[i];
    if (!r->ns) continue;
    struct wire *w = r->wire;
    u64 copies = 0, bytes = 0, drops = 0, lost = w->seq - w->received;
    for (u32 p = 0; p < PORTS; p++) {
      copies += r->sw->port[p]->copies;
      bytes += r->sw->port[p]->copied_bytes;
      drops += r->sw->port[p]->drops;
    }
    qsort(r->ns, (size_t)rounds, sizeof(double), by_value);
    double n = (double)w->received;
    printf("{\"mode\":\"%s\",\"size\":%u,\"ns\":%.3f,\"min\":%.3f,\"max\":%.3f,\"copies\":%.3f,\"bytes\":%.1f,"
           "\"packets\":%.0f,\"lost\":%llu,\"wrong\":%llu,\"drops\":%llu}\n",
           modes[i % 2], sizes[i / 2], r->ns[rounds / 2], r->ns[0], r->ns[rounds - 1], (double)copies / n,
           (double)bytes / n, n, (unsigned long long)lost, (unsigned long long)w->wrong, (unsigned long long)drops);
    if (lost || w->wrong || drops) status = 1;
    if (r->mapped && r->sw->port[GUEST_PORT]->mapping->hits != w->received) status = 1;
  }
  return status;
}
