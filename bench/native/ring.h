/* The core's SPSC ring in C: 16-byte descriptors, free-running indices on lines of their own, each beside a copy of the
 * other side's, sequentially consistent stores. See assembly/ring.ts. */
#include <emmintrin.h>
#include <stdatomic.h>
#include <stdint.h>

enum { SLOTS = 1024, BURST = 32 };

struct ring {
  _Alignas(64) uint32_t mask;
  _Alignas(64) _Atomic uint32_t head;
  uint32_t tail_cache;
  _Alignas(64) _Atomic uint32_t tail;
  uint32_t head_cache;
  _Alignas(64) __m128i slots[SLOTS];
};

static inline void copy(__m128i *to, const __m128i *from, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) _mm_storeu_si128(&to[i], _mm_loadu_si128(&from[i]));
}

/* Up to n descriptors into the ring; returns how many. */
static inline uint32_t enqueue(struct ring *r, const __m128i *from, uint32_t n) {
  uint32_t mask = r->mask, head = atomic_load_explicit(&r->head, memory_order_relaxed);
  uint32_t room = mask + 1 - (head - r->tail_cache);
  if (room < n) {
    r->tail_cache = atomic_load(&r->tail);
    room = mask + 1 - (head - r->tail_cache);
    if (room == 0) return 0;
    if (room < n) n = room;
  }
  uint32_t at = head & mask, straight = n < mask + 1 - at ? n : mask + 1 - at;
  copy(&r->slots[at], from, straight);
  copy(r->slots, from + straight, n - straight);
  atomic_store(&r->head, head + n);
  return n;
}

/* Up to n descriptors out of the ring; returns how many. */
static inline uint32_t dequeue(struct ring *r, __m128i *to, uint32_t n) {
  uint32_t mask = r->mask, tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
  uint32_t have = r->head_cache - tail;
  if (have < n) {
    r->head_cache = atomic_load(&r->head);
    have = r->head_cache - tail;
    if (have == 0) return 0;
    if (have < n) n = have;
  }
  uint32_t at = tail & mask, straight = n < mask + 1 - at ? n : mask + 1 - at;
  copy(to, &r->slots[at], straight);
  copy(to + straight, r->slots, n - straight);
  atomic_store(&r->tail, tail + n);
  return n;
}
