/* The switch alone in C, as bench/vale.ts runs ours: a sender's ring, lookup and learning of a burst, a list for each
 * destination, one copy of each frame to a buffer of the pool, the receivers' rings, the buffers back.
 *
 *     vale LENGTH BURST pair|port|ports
 *
 * Prints nanoseconds per frame, the 25th percentile of its samples. Exit status 1 when a frame didn't come, or changed.
 * Of the core's structures the descriptors, rings, pool and MAC table: see assembly/{switch,learning,mactable,ring}.ts.
 */
#define _GNU_SOURCE
#include "ring.h"
#include <immintrin.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef u64 __attribute__((may_alias, aligned(1))) u64_any;

enum { PORTS = 8, STATIONS = 32, FRAMES = 256, STRIDE = 2176, BUFFERS = 1024, CYCLES = 20, SAMPLES = 40, WARM = 200 };
enum { WAYS = 4, ENTRIES = 1024, BURST_MAX = 256, NONE = 0xffff, FLOOD = 0xfffe, DROP = 0xffff };

/* A packet's descriptor; addresses are offsets in `memory`, as in the core. */
typedef union {
  __m128i v;
  struct {
    u32 addr;
    u16 len, flags, owner, index, room, mark;
  };
} pkt;

struct entry {
  u64 key;
  u32 port, stamp;
};

struct port {
  struct ring *in, *out;
  u64 last_key, rx_packets, rx_bytes, tx_packets, tx_bytes, copies;
  u32 last_second;
};

static u8 *memory;
static struct entry table[ENTRIES];
static struct port ports[PORTS];
static pkt pool[BUFFERS];
static u32 pool_length;
static volatile u32 now;

static inline u64 key_of(u64 mac) { return (mac & 0xffffffffffff) | 1ull << 60; }

static inline struct entry *bucket(u64 key) {
  u64 h = (key ^ key >> 32) * 0x9e3779b97f4a7c15 >> 40;
  return &table[(h & (ENTRIES / WAYS - 1)) * WAYS];
}

static inline struct entry *find(u64 key) {
  struct entry *b = bucket(key);
  for (int i = 0; i < WAYS; i++)
    if (b[i].key == key) return &b[i];
  return NULL;
}

static __attribute__((noinline)) void learn_new(struct port *port, u64 key) {
  if (key & 1) return;
  struct entry *e = find(key);
  for (struct entry *b = bucket(key), *end = b + WAYS; !e && b != end; b++)
    if (!b->key) e = b;
  if (!e) e = bucket(key);
  *e = (struct entry){key, (u32)(port - ports), now};
  port->last_key = key;
  port->last_second = now;
}

static inline u32 lookup(struct port *port, __m128i h) {
  u64 low = (u64)_mm_cvtsi128_si64(h), high = (u64)_mm_extract_epi64(h, 1);
  u64 source = key_of(low >> 48 | high << 16);
  if (source != port->last_key || now != port->last_second) learn_new(port, source);
  if (low & 1) return FLOOD;
  struct entry *e = find(key_of(low));
  if (!e) return FLOOD;
  return e->port == (u32)(port - ports) ? DROP : e->port;
}

static inline void copy_frame(u8 *to, const u8 *from, u32 n, __m128i header) {
  if (n <= 64 && n >= 32) {
    __m128i middle = _mm_loadu_si128((void *)(from + 16));
    _mm_storeu_si128((void *)(to + n - 32), _mm_loadu_si128((void *)(from + n - 32)));
    _mm_storeu_si128((void *)(to + n - 16), _mm_loadu_si128((void *)(from + n - 16)));
    _mm_storeu_si128((void *)(to + 16), middle);
  } else memcpy(to + 16, from + 16, n - 16);
  _mm_storeu_si128((void *)to, header);
}

/* One burst of the port: classified as a whole, then delivered, one destination at a time. */
static u32 poll_port(struct port *port, u32 burst) {
  static pkt packets[BURST_MAX], spare[BURST_MAX];
  static __m128i headers[BURST_MAX];
  static u16 destination[BURST_MAX], next[BURST_MAX];
  u32 n = dequeue(port->in, &packets[0].v, burst);
  if (!n) return 0;
  for (u32 f = 0; f < n; f++) {
    headers[f] = _mm_loadu_si128((void *)(memory + packets[f].addr));
    destination[f] = (u16)lookup(port, headers[f]);
    port->rx_bytes += packets[f].len;
  }
  port->rx_packets += n;
  u16 first[PORTS], last[PORTS];
  memset(first, 0xff, sizeof first);
  for (u32 f = 0; f < n; f++) {
    u32 to = destination[f];
    if (to >= PORTS) continue;
    next[f] = NONE;
    if (first[to] == NONE) first[to] = (u16)f;
    else next[last[to]] = (u16)f;
    last[to] = (u16)f;
  }
  for (u32 to = 0; to < PORTS; to++) {
    u32 some = 0, bytes = 0;
    for (u32 f = first[to]; f != NONE && pool_length; f = next[f]) {
      pkt d = pool[--pool_length];
      copy_frame(memory + d.addr, memory + packets[f].addr, packets[f].len, headers[f]);
      d.len = packets[f].len;
      bytes += d.len;
      _mm_store_si128(&spare[some++].v, d.v);
    }
    if (!some) continue;
    u32 sent = enqueue(ports[to].out, &spare[0].v, some);
    ports[to].copies += some;
    ports[to].tx_packets += sent;
    ports[to].tx_bytes += bytes;
  }
  return n;
}

static void cycle(const pkt *frames, u32 burst) {
  static pkt taken[FRAMES];
  enqueue(ports[0].in, &frames[0].v, FRAMES);
  for (u32 moved = 1; moved;) {
    moved = 0;
    for (u32 p = 0; p < PORTS; p++) moved += poll_port(&ports[p], burst);
  }
  u32 n = 0;
  for (u32 p = 1; p < PORTS; p++) n += dequeue(ports[p].out, &taken[n].v, FRAMES - n);
  for (u32 i = 0; i < n; i++) {
    pkt d = taken[i];
    d.len = d.room;
    _mm_store_si128(&pool[pool_length++].v, d.v);
  }
}

static void write_frame(u8 *to, u32 length, u32 station, u32 port, u32 source) {
  memset(to, 0x5a, length);
  memcpy(to, (u8[]){2, 0, 0, 0, (u8)port, (u8)station, 2, 0, 0, 0, 0, (u8)source, 0x88, 0xb5}, 14);
}

static u32 random_state = 1;
static u32 any(u32 n) {
  random_state = random_state * 1664525 + 1013904223;
  return (random_state >> 16) % n;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int count, char **args) {
  if (count != 4) return 2;
  u32 length = (u32)atoi(args[1]), burst = (u32)atoi(args[2]);
  bool pair = !strcmp(args[3], "pair"), all = !strcmp(args[3], "ports");
  size_t bytes = (size_t)(FRAMES + BUFFERS) * STRIDE;
  memory = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  memset(memory, 0, bytes);
  for (u32 i = 0; i < BUFFERS; i++)
    pool[pool_length++] = (pkt){.addr = (FRAMES + i) * STRIDE + 128, .len = 2048, .index = (u16)i, .room = 2048};
  for (u32 p = 0; p < PORTS; p++) {
    struct ring **both[] = {&ports[p].in, &ports[p].out};
    for (int i = 0; i < 2; i++) {
      *both[i] = aligned_alloc(64, sizeof(struct ring));
      memset(*both[i], 0, sizeof(struct ring));
      (*both[i])->mask = SLOTS - 1;
    }
    for (u32 s = 0; s < STATIONS; s++) learn_new(&ports[p], key_of(2 | (u64)p << 32 | (u64)s << 40));
  }
  static pkt frames[FRAMES];
  for (u32 i = 0; i < FRAMES; i++) {
    frames[i] = (pkt){.addr = i * STRIDE + 128, .len = (u16)length, .room = (u16)length};
    u32 port = all ? 1 + any(PORTS - 1) : 1, station = pair ? 0 : any(STATIONS), source = pair ? 0 : any(STATIONS);
    write_frame(memory + frames[i].addr, length, station, port, source);
  }
  for (int i = 0; i < WARM; i++) cycle(frames, burst);
  double samples[SAMPLES];
  for (int s = 0; s < SAMPLES; s++) {
    double start = seconds();
    for (int c = 0; c < CYCLES; c++) cycle(frames, burst);
    samples[s] = (seconds() - start) * 1e9 / (CYCLES * FRAMES);
  }
  u64 moved = 0;
  for (u32 p = 0; p < PORTS; p++) moved += ports[p].tx_packets;
  if (moved != (u64)FRAMES * (WARM + SAMPLES * CYCLES) || pool_length != BUFFERS) {
    fprintf(stderr, "vale: %lu frames came, %u buffers free\n", (unsigned long)moved, pool_length);
    return 1;
  }
  qsort(samples, SAMPLES, sizeof *samples, ascending);
  printf("%.3f\n", samples[SAMPLES / 4]);
  return 0;
}
