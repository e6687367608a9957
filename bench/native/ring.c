/* The core's SPSC ring in C: 16-byte descriptors, sequentially consistent index stores, burst of 32.
 * Prints nanoseconds per descriptor, enqueue and dequeue together. See assembly/ring.ts. */
#include <emmintrin.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SLOTS = 1024, BURST = 32, ROUNDS = 4000000 };

struct ring {
  _Alignas(64) uint32_t mask;
  _Alignas(64) _Atomic uint32_t head;
  uint32_t tail_cache;
  _Alignas(64) _Atomic uint32_t tail;
  uint32_t head_cache;
  _Alignas(64) __m128i slots[SLOTS];
};

static uint32_t enqueue(struct ring *r, const __m128i *from, uint32_t n) {
  uint32_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
  if (r->mask + 1 - (head - r->tail_cache) < n) {
    r->tail_cache = atomic_load(&r->tail);
    if (r->mask + 1 - (head - r->tail_cache) < n) return 0;
  }
  for (uint32_t i = 0; i < n; i++) _mm_storeu_si128(&r->slots[(head + i) & r->mask], from[i]);
  atomic_store(&r->head, head + n);
  return n;
}

static uint32_t dequeue(struct ring *r, __m128i *to, uint32_t n) {
  uint32_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
  if (r->head_cache - tail < n) {
    r->head_cache = atomic_load(&r->head);
    if (r->head_cache - tail < n) return 0;
  }
  for (uint32_t i = 0; i < n; i++) to[i] = _mm_loadu_si128(&r->slots[(tail + i) & r->mask]);
  atomic_store(&r->tail, tail + n);
  return n;
}

int main(void) {
  struct ring *r = aligned_alloc(64, sizeof *r);
  static __m128i from[BURST], to[BURST];
  r->mask = SLOTS - 1;
  r->head = r->tail = r->tail_cache = r->head_cache = 0;
  struct timespec a, b;
  clock_gettime(CLOCK_MONOTONIC, &a);
  for (int i = 0; i < ROUNDS; i++) {
    __asm__ volatile("" ::"r"(from), "r"(to) : "memory");
    enqueue(r, from, BURST);
    dequeue(r, to, BURST);
  }
  clock_gettime(CLOCK_MONOTONIC, &b);
  printf("%.4f\n", ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / ((double)ROUNDS * BURST));
  free(r);
  return 0;
}
