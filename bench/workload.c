/*
 * workload DIRECTORY [SECOND] FILES: one run of the workload that the benchmarks compare, on one thread; prints
 * "name value unit" lines. With a second directory every change is made in both, one after the other, and reads come from
 * the first: what a program would pay that replicates by hand.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096
#define BIG (1 << 20)
#define BIG_FILE_MB 128

static const char *roots[2];
static int count;
static char name[2][4096];

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}
static void check(long ok, const char *what) {
  if (ok >= 0) return;
  fprintf(stderr, "%s: %s\n", what, strerror(errno));
  exit(1);
}
static void at(const char *rest, int i) {
  for (int r = 0; r < count; r++)
    if (i < 0) snprintf(name[r], sizeof name[r], "%s/%s", roots[r], rest);
    else snprintf(name[r], sizeof name[r], "%s/%s%d", roots[r], rest, i);
}
/* Dentries and inodes go, so that each lookup reaches the file system; pages stay. */
static void forget_names(void) {
  int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
  if (fd < 0) return;
  if (write(fd, "2", 1) < 0) perror("drop_caches");
  close(fd);
}

int main(int argc, char **argv) {
  if (argc < 3 || argc > 4) return fprintf(stderr, "usage: workload DIRECTORY [SECOND] FILES\n"), 2;
  count = argc - 2;
  roots[0] = argv[1];
  roots[1] = argv[2];
  int files = atoi(argv[argc - 1]);
  static char data[BIG];
  memset(data, 7, sizeof data);
  int fd[2];
  double t;
  struct stat st;

  /* Open for writing only, as cp, dd, tar and a shell have it; then for reading as well, as databases have it. */
  at("big", -1);
  for (int way = 0; way < 2; way++) {
    const char *what = way == 0 ? "sequential-write" : "sequential-write-rw";
    int flags = way == 0 ? O_WRONLY : O_RDWR;
    for (int r = 0; r < count; r++) check(fd[r] = open(name[r], flags | O_CREAT | O_TRUNC, 0644), name[r]);
    t = now();
    for (int i = 0; i < BIG_FILE_MB; i++)
      for (int r = 0; r < count; r++) check(write(fd[r], data, BIG), "write");
    printf("%s %.1f MB/s\n", what, BIG_FILE_MB / (now() - t));
    if (way == 0)
      for (int r = 0; r < count; r++) {
        close(fd[r]);
        unlink(name[r]);
      }
  }

  srand(1);
  t = now();
  for (int i = 0; i < files * 4; i++) {
    off_t offset = (off_t)(rand() % (BIG_FILE_MB * (BIG / BLOCK))) * BLOCK;
    for (int r = 0; r < count; r++) check(pwrite(fd[r], data, BLOCK, offset), "pwrite");
  }
  printf("random-write %.0f /s\n", files * 4 / (now() - t));

  t = now();
  for (int i = 0; i < BIG_FILE_MB; i++) check(pread(fd[0], data, BIG, (off_t)i * BIG), "pread");
  printf("cached-read %.1f MB/s\n", BIG_FILE_MB / (now() - t));
  for (int r = 0; r < count; r++) close(fd[r]);

  at("d", -1);
  for (int r = 0; r < count; r++) check(mkdir(name[r], 0755), name[r]);
  t = now();
  for (int i = 0; i < files; i++) {
    at("d/f", i);
    for (int r = 0; r < count; r++) {
      check(fd[r] = open(name[r], O_WRONLY | O_CREAT | O_EXCL, 0644), name[r]);
      check(write(fd[r], data, BLOCK), "write");
      close(fd[r]);
    }
  }
  printf("create %.0f /s\n", files / (now() - t));

  forget_names();
  t = now();
  for (int i = 0; i < files; i++) {
    at("d/f", i);
    check(stat(name[0], &st), name[0]);
  }
  printf("stat %.0f /s\n", files / (now() - t));

  forget_names();
  t = now();
  for (int i = 0; i < files; i++) {
    at("d/f", i);
    check(fd[0] = open(name[0], O_RDONLY), name[0]);
    check(read(fd[0], data, BLOCK), "read");
    close(fd[0]);
  }
  printf("open-read %.0f /s\n", files / (now() - t));

  t = now();
  for (int i = 0; i < files; i++) {
    at("d/f", i);
    for (int r = 0; r < count; r++) check(unlink(name[r]), name[r]);
  }
  printf("unlink %.0f /s\n", files / (now() - t));

  at("d", -1);
  for (int r = 0; r < count; r++) rmdir(name[r]);
  at("big", -1);
  for (int r = 0; r < count; r++) unlink(name[r]);
  return 0;
}
