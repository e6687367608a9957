/* What waking a sleeping thread costs on this machine: one thread writes a word and wakes the other by futex, which
 * answers by a word; the first spins in between, as the wire of `iovtee pvp --latency` does.
 *
 *     wake TIMES PER_SECOND
 *
 * Prints the median of the times from the wake to the answer, in microseconds. */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static atomic_int asked, answered;
static int times;

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void *answer(void *unused) {
  for (int seen = 0; seen < times; seen++) {
    while (atomic_load(&asked) == seen) syscall(SYS_futex, &asked, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    atomic_store(&answered, seen + 1);
  }
  return unused;
}

static int ascending(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return x < y ? -1 : x > y;
}

int main(int count, char **args) {
  if (count != 3 || (times = atoi(args[1])) < 1 || atoi(args[2]) < 1) return 2;
  int64_t pause = 1000000000LL / atoi(args[2]), *took = calloc((size_t)times, sizeof *took);
  pthread_t thread;
  if (!took || pthread_create(&thread, NULL, answer, NULL)) return 1;
  for (int i = 0; i < times; i++) {
    int64_t due = now() + pause;
    while (now() < due) continue;
    atomic_store(&asked, i + 1);
    syscall(SYS_futex, &asked, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    while (atomic_load(&answered) != i + 1) continue;
    took[i] = now() - due;
  }
  pthread_join(thread, NULL);
  qsort(took, (size_t)times, sizeof *took, ascending);
  printf("%.2f\n", (double)took[times / 2] / 1e3);
  free(took);
  return 0;
}
