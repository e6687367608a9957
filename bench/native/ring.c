/* The core's SPSC ring in C (ring.h) on one thread: a burst of 32 in and out.
 * Prints nanoseconds per descriptor, enqueue and dequeue together. */
#include "ring.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 4000000 };

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
