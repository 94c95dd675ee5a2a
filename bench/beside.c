/*
 * What waits beside something slow; each prints "name value unit" lines.
 *
 *   beside make DIRECTORY FILES MB       the files that the others use: FILES of 4 KiB below d, and one of MB mebibytes
 *   beside files DIRECTORY FILES N       N processes open and read all of them, each file once
 *   beside blocks DIRECTORY MB N         N processes read the large file in 4 KiB blocks, in random order
 *   beside stat DIRECTORY FILES [fsync]  stat of each file, names forgotten first; "fsync": beside a process that writes
 *                                        and calls fsync all the time
 *   beside mix DIRECTORY SECONDS         writes, creations, removals and lookups in turn, and how long each takes
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096

static const char *root;
static char data[1 << 20];

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}
static long check(long result, const char *what) {
  if (result >= 0) return result;
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  exit(1);
}
static const char *at(const char *rest, int i) {
  static char name[4096];
  if (i < 0) snprintf(name, sizeof name, "%s/%s", root, rest);
  else snprintf(name, sizeof name, "%s/%s%d", root, rest, i);
  return name;
}
static void drop(const char *what) {
  int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
  check(write(fd, what, 1), "drop_caches");
  close(fd);
}
/* A permutation of 0..n-1 without memory: n and the step have no common divisor. */
static int shuffled(int i, int n) {
  int step = 7919;
  while (n % step == 0) step += 2;
  return (int)((long)i * step % n);
}
static int ascending(const void *a, const void *b) {
  double d = *(const double *)a - *(const double *)b;
  return d < 0 ? -1 : d > 0;
}
static void times(const char *what, double *t, int n) {
  qsort(t, n, sizeof *t, ascending);
  printf("%s-median %.1f us\n", what, t[n / 2] * 1e6);
  printf("%s-p99 %.1f us\n", what, t[(int)(n * 0.99)] * 1e6);
  printf("%s-longest %.1f us\n", what, t[n - 1] * 1e6);
}
/* Runs `work` in n processes that start together; answers how long the last one took. */
static double together(int n, void (*work)(int k, int n)) {
  int gate[2];
  check(pipe(gate), "pipe");
  for (int k = 0; k < n; k++)
    if (check(fork(), "fork") == 0) {
      char c;
      close(gate[1]);
      check(read(gate[0], &c, 1), "read");
      work(k, n);
      exit(0);
    }
  double t = now();
  close(gate[1]);
  int status, failed = 0;
  while (wait(&status) > 0) failed |= status;
  if (failed) exit(1);
  return now() - t;
}

static int count;
static void read_files(int k, int n) {
  for (int i = k; i < count; i += n) {
    int fd = check(open(at("d/f", shuffled(i, count)), O_RDONLY), "open");
    check(read(fd, data, BLOCK), "read");
    close(fd);
  }
}
static void read_blocks(int k, int n) {
  int fd = check(open(at("large", -1), O_RDONLY), "open");
  posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
  for (int i = k; i < count; i += n) check(pread(fd, data, BLOCK, (off_t)shuffled(i, count) * BLOCK), "pread");
  close(fd);
}

static void make(int files, int megabytes) {
  check(mkdir(at("d", -1), 0755), "mkdir");
  memset(data, 5, sizeof data);
  for (int i = 0; i < files; i++) {
    int fd = check(open(at("d/f", i), O_WRONLY | O_CREAT, 0644), "create");
    check(write(fd, data, BLOCK), "write");
    close(fd);
  }
  int fd = check(open(at("large", -1), O_WRONLY | O_CREAT, 0644), "create");
  for (int i = 0; i < megabytes; i++) check(write(fd, data, sizeof data), "write");
  close(fd);
  sync();
}

static void stats(int files, int beside) {
  pid_t child = 0;
  if (beside && (child = check(fork(), "fork")) == 0) {
    int fd = check(open(at("synced", -1), O_RDWR | O_CREAT, 0644), "create");
    for (int i = 0;; i = (i + 1) % 256) {
      check(pwrite(fd, data, BLOCK, (off_t)i * BLOCK), "pwrite");
      check(fsync(fd), "fsync");
    }
  }
  if (beside) usleep(200000);
  double *t = malloc(files * sizeof *t);
  struct stat st;
  drop("2");
  for (int i = 0; i < files; i++) {
    const char *name = at("d/f", i);
    double began = now();
    check(stat(name, &st), name);
    t[i] = now() - began;
  }
  if (child) kill(child, SIGKILL), wait(NULL);
  times("stat", t, files);
}

static void mix(double seconds) {
  enum { most = 4000000 };
  double *t = malloc(most * sizeof *t);
  int n = 0;
  struct stat st;
  int fd = check(open(at("mixed", -1), O_RDWR | O_CREAT, 0644), "create");
  check(ftruncate(fd, 64 << 20), "ftruncate");
  srand(3);
  double end = now() + seconds;
  for (int i = 0; n + 4 < most && now() < end; i++) {
    double began = now();
    check(pwrite(fd, data, BLOCK, (off_t)(rand() % 16384) * BLOCK), "pwrite");
    double a = now();
    stat(at("absent", i), &st);
    double b = now();
    int small = check(open(at("small", -1), O_WRONLY | O_CREAT | O_EXCL, 0644), "create");
    check(write(small, data, 100), "write");
    close(small);
    double c = now();
    check(unlink(at("small", -1)), "unlink");
    double d = now();
    t[n++] = a - began, t[n++] = b - a, t[n++] = c - b, t[n++] = d - c;
    usleep(500); /* not as fast as it goes: what matters is how long each takes */
  }
  close(fd);
  times("mix", t, n);
}

int main(int argc, char **argv) {
  if (argc < 4) return fprintf(stderr, "usage: see the head of beside.c\n"), 2;
  root = argv[2];
  count = atoi(argv[3]);
  int last = argc > 4 ? atoi(argv[4]) : 0;
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (strcmp(argv[1], "make") == 0) make(count, last);
  else if (strcmp(argv[1], "stat") == 0) stats(count, argc > 4);
  else if (strcmp(argv[1], "mix") == 0) mix(count);
  else {
    int blocks = strcmp(argv[1], "blocks") == 0;
    if (blocks) count = count * (1 << 20) / BLOCK;
    drop("3");
    printf("%s %.0f /s\n", argv[1], count / together(last, blocks ? read_blocks : read_files));
  }
  return 0;
}
