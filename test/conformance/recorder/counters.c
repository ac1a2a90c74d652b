/*
 * What the kernel has counted since the trace began. Rows of /proc/vmstat are of all processes, and the recorder has
 * memory of its own and faults as well. So all its memory is there, and shared with nobody, before anything counts
 * (settle); faults count while an operation is done only; and what is the recorder's is taken from the rows.
 */
#define _GNU_SOURCE
#include "recorder.h"

#include <fcntl.h>
#include <linux/mman.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Newer than the headers of some distributions. */
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define PAGE_KB 4
#define PAGE_BLOCKS 8 /* of 512 bytes, as stat() counts */

#define TEXT_BYTES (4L << 20)

/* What stands in a file of /proc, until the next one is read. */
static char *read_text(const char *path)
{
  static char text[TEXT_BYTES];
  long length = 0, got;
  int file = open(path, O_RDONLY);

  expect(file >= 0, path);
  while ((got = read(file, text + length, TEXT_BYTES - 1 - length)) > 0)
    length += got;
  expect(length < TEXT_BYTES - 1, "a file that fits its buffer");
  close(file);
  text[length] = 0;
  return text;
}

/* The number in the line that begins with a name, and `mark`. */
static long number_of(const char *text, const char *name, char mark)
{
  size_t length = strlen(name);

  for (const char *line = text; line; line = strchr(line, '\n')) {
    line += *line == '\n';
    if (strncmp(line, name, length) == 0 && line[length] == mark)
      return strtol(line + length + 1, NULL, 10);
  }
  expect(false, name);
  return 0;
}

/* Faults, of all processes. */

enum { PGFAULT, PGMAJFAULT, FAULTS };
static const char *const FAULT_NAMES[FAULTS] = {[PGFAULT] = "pgfault", [PGMAJFAULT] = "pgmajfault"};

static long *faults; /* of operations; both processes see them */
static long faults_before[FAULTS];

static void read_faults(long *rows)
{
  const char *text = read_text("/proc/vmstat");

  for (int row = 0; row < FAULTS; row++)
    rows[row] = number_of(text, FAULT_NAMES[row], ' ');
}

void before_operation(void)
{
  read_faults(faults_before);
}

void after_operation(void)
{
  long now[FAULTS];

  read_faults(now);
  for (int row = 0; row < FAULTS; row++)
    faults[row] += now[row] - faults_before[row];
}

/* The recorder's own memory. */

static bool is_in_arena(unsigned long start)
{
  return start >= ARENA_BASE && start < (unsigned long)address_of(program.pages);
}

/*
 * To be called when pages of it may have become shared, or are to be heard of when they are written to. An operation that
 * does so has no faults of its own until then.
 */
void settle(void)
{
  unsigned long start, end;
  char access[5];

  for (char *line = strtok(read_text("/proc/self/maps"), "\n"); line; line = strtok(NULL, "\n"))
    if (sscanf(line, "%lx-%lx %4s", &start, &end, access) == 3 && !is_in_arena(start))
      madvise((void *)start, end - start, access[1] == 'w' ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
  before_operation();
}

/* Sums of smaps, in kB. */
struct sums {
  long pss_dirty, swap_pss; /* of the arena */
  long anonymous;           /* of all else */
  long own;                 /* of that, what is written to, and so is in no other process */
};

static struct sums read_sums(int process)
{
  struct sums sums = {0};
  unsigned long start, end;
  char path[32], access[5] = "", field[32];
  bool in_arena = false;
  long kilobytes;

  snprintf(path, sizeof path, "/proc/%d/smaps", process);
  for (char *line = strtok(read_text(path), "\n"); line; line = strtok(NULL, "\n")) {
    if (sscanf(line, "%lx-%lx %4s", &start, &end, access) == 3)
      in_arena = is_in_arena(start);
    else if (sscanf(line, "%31[^:]: %ld kB", field, &kilobytes) != 2)
      continue;
    else if (in_arena && strcmp(field, "Pss_Dirty") == 0)
      sums.pss_dirty += kilobytes;
    else if (in_arena && strcmp(field, "SwapPss") == 0)
      sums.swap_pss += kilobytes;
    else if (!in_arena && strcmp(field, "Anonymous") == 0) {
      sums.anonymous += kilobytes;
      sums.own += access[1] == 'w' ? kilobytes : 0;
    }
  }
  return sums;
}

/* Rows of all processes. */

enum {
  PSWPIN,
  PSWPOUT,
  SWPIN_ZERO,
  SWPOUT_ZERO,
  PGLAZYFREE,
  PGLAZYFREED,
  ANON_PAGES,
  MAPPED,
  FILE_PAGES,
  SHMEM,
  SWAPCACHED,
  ANON_HUGE,
  SHMEM_HUGE,
  SHMEM_PMD,
  VMSTAT_ROWS
};
static const char *const VMSTAT[VMSTAT_ROWS] = {
  [PSWPIN] = "pswpin",
  [PSWPOUT] = "pswpout",
  [SWPIN_ZERO] = "swpin_zero",
  [SWPOUT_ZERO] = "swpout_zero",
  [PGLAZYFREE] = "pglazyfree",
  [PGLAZYFREED] = "pglazyfreed",
  [ANON_PAGES] = "nr_anon_pages",
  [MAPPED] = "nr_mapped",
  [FILE_PAGES] = "nr_file_pages",
  [SHMEM] = "nr_shmem",
  [SWAPCACHED] = "nr_swapcached",
  [ANON_HUGE] = "nr_anon_transparent_hugepages",
  [SHMEM_HUGE] = "nr_shmem_hugepages",
  [SHMEM_PMD] = "nr_shmem_pmdmapped",
};

static int trace_file; /* its pages are shared memory */

static void read_vmstat(long *rows)
{
  struct stat trace;
  int refresh = open("/proc/sys/vm/stat_refresh", O_WRONLY);

  /* What CPUs have counted for themselves. */
  expect(refresh >= 0 && write(refresh, "1", 1) == 1, "stat_refresh");
  close(refresh);
  const char *text = read_text("/proc/vmstat");
  for (int row = 0; row < VMSTAT_ROWS; row++)
    rows[row] = number_of(text, VMSTAT[row], ' ');
  expect(fstat(trace_file, &trace) == 0, "a trace");
  rows[SHMEM] -= trace.st_blocks / PAGE_BLOCKS;
  rows[FILE_PAGES] -= trace.st_blocks / PAGE_BLOCKS;
  /* What a file system keeps for itself. */
  rows[FILE_PAGES] -= number_of(read_text("/proc/meminfo"), "Buffers", ':') / PAGE_KB;
  rows[ANON_PAGES] -= read_sums(getpid()).own / PAGE_KB;
  if (other_process > 0)
    rows[ANON_PAGES] -= read_sums(other_process).own / PAGE_KB;
}

/* Rows of one process. */

enum { SIZE, LOCKED, RSS_ANON, RSS_FILE, RSS_SHMEM, DATA, TABLES, IN_SWAP, STATUS_ROWS };
static const char *const STATUS[STATUS_ROWS] = {
  [SIZE] = "VmSize",
  [LOCKED] = "VmLck",
  [RSS_ANON] = "RssAnon",
  [RSS_FILE] = "RssFile",
  [RSS_SHMEM] = "RssShmem",
  [DATA] = "VmData",
  [TABLES] = "VmPTE",
  [IN_SWAP] = "VmSwap",
};

static void read_status(long *rows, long own_anonymous)
{
  const char *text = read_text("/proc/self/status");

  for (int row = 0; row < STATUS_ROWS; row++)
    rows[row] = number_of(text, STATUS[row], ':');
  rows[RSS_ANON] -= own_anonymous;
}

/* At the beginning: the child has as much of its own as its parent. */
static long first_vmstat[VMSTAT_ROWS], first_status[STATUS_ROWS];

static void *untouched; /* a page */

/* MADV_COLD first has all pages leave the batches in which they wait for a list, or to leave it. */
static void drain_batches(void)
{
  expect(madvise(untouched, PAGE_SIZE, MADV_COLD) == 0, "MADV_COLD");
}

/* @param trace the file that the trace is written to */
void open_counters(int trace)
{
  int shared = MAP_SHARED | MAP_ANONYMOUS;

  trace_file = trace;
  faults = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, shared, -1, 0);
  untouched = mmap(NULL, PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  expect(faults != MAP_FAILED && untouched != MAP_FAILED, "memory");
  settle();
  drain_batches();
  read_vmstat(first_vmstat);
  read_status(first_status, read_sums(getpid()).anonymous);
}

void put_counters(void)
{
  long vmstat[VMSTAT_ROWS], status[STATUS_ROWS];
  struct sums sums = read_sums(getpid());

  drain_batches();
  read_vmstat(vmstat);
  read_status(status, sums.anonymous);
  for (int row = 0; row < FAULTS; row++)
    put_number(FAULT_NAMES[row], faults[row]);
  for (int row = 0; row < VMSTAT_ROWS; row++)
    put_number(VMSTAT[row], vmstat[row] - first_vmstat[row]);
  for (int row = 0; row < STATUS_ROWS; row++)
    put_number(STATUS[row], status[row] - first_status[row]);
  put_number("Pss_Dirty", sums.pss_dirty);
  put_number("SwapPss", sums.swap_pss);
}
