/* The core's SPSC ring in C (ring.h) between two threads, each on a CPU of its own: the loops of bench/wasm/ring.ts.
 *
 *     xring probe CPU CPU                one-way latency of a cache line between two CPUs, in nanoseconds
 *     xring run CPU CPU WARM COUNT       nanoseconds per descriptor over COUNT, after WARM others; and how many of both
 *                                        threads' nanoseconds went by while another program had their CPU
 *     xring pin TID CPU                  puts another process's thread on a CPU
 *
 * Exit status 1 when a descriptor came with another number than expected. */
#define _GNU_SOURCE
#include "ring.h"
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e9 + t.tv_nsec;
}

/* Thread 0 is the caller's. */
static void pin(pid_t thread, int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(thread, sizeof set, &set)) {
    perror("sched_setaffinity");
    exit(2);
  }
}

/* Nanoseconds that this thread could have run, but another one had its CPU. */
static double waited(void) {
  double ran, waiting = 0;
  FILE *file = fopen("/proc/thread-self/schedstat", "r");
  if (!file) return 0;
  if (fscanf(file, "%lf %lf", &ran, &waiting) != 2) waiting = 0;
  fclose(file);
  return waiting;
}

static int cpus[2];

/* ---- ping-pong of one cache line */

enum { PINGS = 200, TRIES = 6 };
static _Alignas(128) _Atomic uint32_t ping;
static _Alignas(128) _Atomic uint32_t pong;

static void *answer(void *unused) {
  pin(0, cpus[1]);
  for (uint32_t i = 0; i <= PINGS * TRIES; i++) {
    while (atomic_load(&ping) != i) {}
    atomic_store(&pong, i);
  }
  return unused;
}

static double probe(void) {
  pthread_t other;
  double best = 1e12;
  atomic_store(&pong, UINT32_MAX);
  pthread_create(&other, 0, answer, 0);
  pin(0, cpus[0]);
  while (atomic_load(&pong) != 0) {} /* it is up, and has answered 0 */
  for (uint32_t try = 0, i = 1; try < TRIES; try++) {
    double start = now();
    for (uint32_t end = i + PINGS; i != end; i++) {
      atomic_store(&ping, i);
      while (atomic_load(&pong) != i) {}
    }
    double one_way = (now() - start) / (2 * PINGS);
    if (one_way < best) best = one_way;
  }
  pthread_join(other, 0);
  return best;
}

/* ---- the ring */

static struct ring ring = {.mask = SLOTS - 1};
static uint32_t end;

static double producer_waited;

static void *produce(void *unused) {
  static _Alignas(64) __m128i list[BURST];
  pin(0, cpus[1]);
  double before = waited();
  for (uint32_t first = 0; first != end;) {
    uint32_t n = end - first < BURST ? end - first : BURST;
    for (uint32_t i = 0; i < n; i++) list[i] = _mm_cvtsi32_si128((int)(first + i));
    for (uint32_t sent = 0; sent < n;) sent += enqueue(&ring, list + sent, n - sent);
    first += n;
  }
  producer_waited = waited() - before;
  return unused;
}

static uint32_t consume(uint32_t first, uint32_t last) {
  static _Alignas(64) __m128i list[BURST];
  uint32_t wrong = 0;
  while (first != last) {
    uint32_t n = dequeue(&ring, list, last - first < BURST ? last - first : BURST);
    for (uint32_t i = 0; i < n; i++) wrong += (uint32_t)_mm_cvtsi128_si32(list[i]) != first + i;
    first += n;
  }
  return wrong;
}

static int run(uint32_t warm, uint32_t count) {
  pthread_t producer;
  end = warm + count;
  pin(0, cpus[0]);
  pthread_create(&producer, 0, produce, 0);
  uint32_t wrong = consume(0, warm);
  double before = waited(), start = now();
  wrong += consume(warm, end);
  double ns = (now() - start) / count;
  double consumer_waited = waited() - before;
  pthread_join(producer, 0);
  printf("%.4f %.0f\n", ns, consumer_waited + producer_waited);
  return wrong != 0;
}

int main(int argc, char **argv) {
  uint32_t arg[4] = {0};
  for (int i = 0; i < 4 && i + 2 < argc; i++) arg[i] = strtoul(argv[i + 2], 0, 10);
  if (argc == 4 && !strcmp(argv[1], "pin")) {
    pin((pid_t)arg[0], (int)arg[1]);
    return 0;
  }
  cpus[0] = (int)arg[0];
  cpus[1] = (int)arg[1];
  if (argc == 4 && !strcmp(argv[1], "probe")) {
    printf("%.1f\n", probe());
    return 0;
  }
  if (argc == 6 && !strcmp(argv[1], "run")) return run(arg[2], arg[3]);
  fputs("usage: xring probe CPU CPU | run CPU CPU WARM COUNT | pin TID CPU\n", stderr);
  return 2;
}
