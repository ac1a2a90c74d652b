/*
 * What the kernel shows of the arena of the calling process, and how it is written down. Looking changes nothing: the
 * snapshots go through mirrors that never hold a page.
 */
#define _GNU_SOURCE
#include "recorder.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "test_hmm_abi.h"

char *line_text;
long line_length;

void put(const char *format, ...)
{
  va_list arguments;

  va_start(arguments, format);
  line_length += vsnprintf(line_text + line_length, LINE_BYTES - line_length, format, arguments);
  va_end(arguments);
  expect(line_length < LINE_BYTES, "a line that fits its buffer");
}

/* A member's name, with a comma unless it is the first of its object. */
void put_name(const char *name)
{
  bool is_first = line_length > 0 && line_text[line_length - 1] == '{';

  put("%s\"%s\":", is_first ? "" : ",", name);
}

void put_number(const char *name, long value)
{
  put_name(name);
  put("%ld", value);
}

void put_text(const char *name, const char *text)
{
  put_name(name);
  put("\"%s\"", text);
}

void put_errno(int error)
{
  put_text("errno", error == 0 ? "0" : strerrorname_np(error));
}

/* "name":[[value,count],...] */
void put_runs(const char *name, const long *values, long count)
{
  put_name(name);
  put("[");
  for (long at = 0, next; at < count; at = next) {
    for (next = at + 1; next < count && values[next] == values[at];)
      next++;
    put("%s[%ld,%ld]", at > 0 ? "," : "", values[at], next - at);
  }
  put("]");
}

/* The first word of each page, and how many pages have another last word. */
void put_words(const uint64_t *words, long pages)
{
  long torn = 0;

  put_name("words");
  put("[");
  for (long page = 0; page < pages; page++) {
    const uint64_t *of_page = words + page * PAGE_WORDS;

    put("%s%lu", page > 0 ? "," : "", of_page[0]);
    torn += of_page[0] != of_page[LAST_WORD];
  }
  put("]");
  if (torn > 0)
    put_number("torn", torn);
}

int observers[DEVICES];
static int pagemap;

/* The views of a process are its own: the child opens them again. */
void open_views(void)
{
  for (int device = 0; device < DEVICES; device++) {
    observers[device] = open_device(device);
    expect(observers[device] >= 0, "a mirror to look through");
  }
  pagemap = open("/proc/self/pagemap", O_RDONLY);
  expect(pagemap >= 0, "/proc/self/pagemap");
}

#define PAGEMAP_SOFT_DIRTY 55
#define PAGEMAP_EXCLUSIVE 56
#define PAGEMAP_UFFD_WP 57
#define PAGEMAP_GUARD 58
#define PAGEMAP_FILE 61
#define PAGEMAP_SWAP 62
#define PAGEMAP_PRESENT 63
#define PAGEMAP_FRAME_MASK ((1UL << 55) - 1)
#define PAGEMAP_SWAP_TYPE_MASK 31

static bool is_set(uint64_t word, int at)
{
  return word >> at & 1;
}

/* A word without what differs from one machine to the next: no PFN, no swap offset. */
static long short_word(uint64_t word)
{
  long bits = is_set(word, PAGEMAP_PRESENT) | is_set(word, PAGEMAP_SWAP) << 1 | is_set(word, PAGEMAP_FILE) << 2 |
        is_set(word, PAGEMAP_EXCLUSIVE) << 3 | is_set(word, PAGEMAP_UFFD_WP) << 4 | is_set(word, PAGEMAP_GUARD) << 5;

  return is_set(word, PAGEMAP_SWAP) ? bits | (long)(word & PAGEMAP_SWAP_TYPE_MASK) << 8 : bits;
}

/* Reads as many words as there are; those that cannot be read are 0. Returns their number. */
static long read_pagemap(uint64_t *words, long page, long count)
{
  memset(words, 0, count * sizeof *words);
  long got = pread(pagemap, words, count * sizeof *words, (ARENA_BASE / PAGE_SIZE + page) * sizeof *words);
  return got < 0 ? 0 : got / (long)sizeof *words;
}

/* Bits of /proc/kpageflags that do not depend on which batch a page waits in for its list. */
enum {
  KPF_UPTODATE = 3,
  KPF_DIRTY = 4,
  KPF_MMAP = 11,
  KPF_ANON = 12,
  KPF_SWAPCACHE = 13,
  KPF_COMPOUND_HEAD = 15,
  KPF_COMPOUND_TAIL = 16,
  KPF_HUGE = 17,
  KPF_HWPOISON = 19,
  KPF_THP = 22,
  KPF_ZERO_PAGE = 24,
};
#define KPF_MASK \
  (1L << KPF_UPTODATE | 1L << KPF_DIRTY | 1L << KPF_MMAP | 1L << KPF_ANON | 1L << KPF_SWAPCACHE | \
   1L << KPF_COMPOUND_HEAD | 1L << KPF_COMPOUND_TAIL | 1L << KPF_HUGE | 1L << KPF_HWPOISON | 1L << KPF_THP | \
   1L << KPF_ZERO_PAGE)

/* What one of the files with a word a frame has of the pages that are present, -1 for the others. */
static void put_frame_words(const char *name, int file, long mask, const uint64_t *entries, long count)
{
  static long values[ARENA_PAGES_MAX];

  for (long at = 0; at < count; at++) {
    uint64_t word, frame = entries[at] & PAGEMAP_FRAME_MASK;
    bool is_there = is_set(entries[at], PAGEMAP_PRESENT) &&
        pread(file, &word, sizeof word, frame * sizeof word) == sizeof word;

    values[at] = is_there ? (long)word & mask : -1;
  }
  put_runs(name, values, count);
}

void put_kernel_pages(long page, long count)
{
  static uint64_t entries[ARENA_PAGES_MAX];
  int flags = open("/proc/kpageflags", O_RDONLY), maps = open("/proc/kpagecount", O_RDONLY);

  expect(flags >= 0 && maps >= 0, "/proc/kpageflags and /proc/kpagecount");
  read_pagemap(entries, page, count);
  put_frame_words("flags", flags, KPF_MASK, entries, count);
  put_frame_words("maps", maps, ~0L, entries, count);
  close(flags);
  close(maps);
}

static void put_pagemap(void)
{
  static uint64_t words[ARENA_PAGES_MAX];
  static long values[ARENA_PAGES_MAX];
  long readable = read_pagemap(words, 0, program.pages);

  for (long page = 0; page < program.pages; page++)
    values[page] = page < readable ? short_word(words[page]) : -1;
  put_runs("pm", values, program.pages);
  for (long page = 0; page < program.pages; page++)
    values[page] = is_set(words[page], PAGEMAP_SOFT_DIRTY);
  put_runs("sd", values, program.pages);
}

/* Page by page: over a hole, mincore() answers for none of a range. */
static void put_mincore(void)
{
  static long values[ARENA_PAGES_MAX];

  for (long page = 0; page < program.pages; page++) {
    unsigned char in_core;

    values[page] = mincore(address_of(page), PAGE_SIZE, &in_core) ? -1 : in_core & 1;
  }
  put_runs("mc", values, program.pages);
}

static void put_snapshot(int device)
{
  static unsigned char codes[ARENA_PAGES_MAX];
  static long values[ARENA_PAGES_MAX];
  struct dmirror_command command = {.addr = ARENA_BASE, .ptr = (uintptr_t)codes, .npages = program.pages};
  char name[] = {'s', '0' + device, 0};

  if (ioctl(observers[device], DMIRROR_IOCTL(DMIRROR_SNAPSHOT), &command)) {
    put_text(name, strerrorname_np(errno));
    return;
  }
  for (long page = 0; page < program.pages; page++)
    values[page] = codes[page];
  put_runs(name, values, program.pages);
}

/* Sums of smaps over the arena's VMAs, in kB. */
enum { RSS, PSS, ANON, AHP, SWAP, SHC, SHD, PRC, PRD, SHMEM_PMD, LCK, SUMS };
static const struct {
  const char *field, *name;
} SMAPS[SUMS] = {
  [RSS] = {"Rss", "rss"},
  [PSS] = {"Pss", "pss"},
  [ANON] = {"Anonymous", "anon"},
  [AHP] = {"AnonHugePages", "ahp"},
  [SWAP] = {"Swap", "swap"},
  [SHC] = {"Shared_Clean", "shc"},
  [SHD] = {"Shared_Dirty", "shd"},
  [PRC] = {"Private_Clean", "prc"},
  [PRD] = {"Private_Dirty", "prd"},
  [SHMEM_PMD] = {"ShmemPmdMapped", "shmem_pmd"},
  [LCK] = {"Locked", "lck"},
};

struct smaps {
  long sums[SUMS];
  char vmas[1 << 16]; /* [page,pages,"rw-p"],... */
};

static char *read_smaps_text(void)
{
  static char text[1 << 22];
  long length = 0, got;
  int file = open("/proc/self/smaps", O_RDONLY);

  expect(file >= 0, "/proc/self/smaps");
  while ((got = read(file, text + length, sizeof text - 1 - length)) > 0)
    length += got;
  expect(length < (long)sizeof text - 1, "smaps that fits its buffer");
  close(file);
  text[length] = 0;
  return text;
}

static void add_field(struct smaps *smaps, const char *line)
{
  char field[32];
  long kilobytes;

  if (sscanf(line, "%31[^:]: %ld kB", field, &kilobytes) != 2)
    return;
  for (int sum = 0; sum < SUMS; sum++)
    if (strcmp(field, SMAPS[sum].field) == 0)
      smaps->sums[sum] += kilobytes;
}

static const struct smaps *read_smaps(void)
{
  static struct smaps smaps;
  unsigned long start, end;
  char access[5], *vma = smaps.vmas;
  bool in_arena = false;

  memset(&smaps, 0, sizeof smaps);
  /* Cut into lines: sscanf() measures all that follows. */
  for (char *line = strtok(read_smaps_text(), "\n"); line; line = strtok(NULL, "\n")) {
    if (sscanf(line, "%lx-%lx %4s", &start, &end, access) != 3) {
      if (in_arena)
        add_field(&smaps, line);
      continue;
    }
    in_arena = start >= ARENA_BASE && end <= (unsigned long)address_of(program.pages);
    if (!in_arena)
      continue;
    expect(vma - smaps.vmas < (long)sizeof smaps.vmas - 64, "VMAs that fit their buffer");
    vma += sprintf(vma, "%s[%ld,%ld,\"%s\"]", vma == smaps.vmas ? "" : ",", (long)(start - ARENA_BASE) / PAGE_SIZE,
             (long)(end - start) / PAGE_SIZE, access);
  }
  return &smaps;
}

/* Of this process, in front of the arena and behind it. */
long mappings_elsewhere(void)
{
  unsigned long start, end;
  long count = 0;

  for (char *line = strtok(read_smaps_text(), "\n"); line; line = strtok(NULL, "\n"))
    if (sscanf(line, "%lx-%lx %*4s", &start, &end) == 2 && start < USER_END)
      count += start < ARENA_BASE || start >= (unsigned long)address_of(program.pages);
  return count;
}

void put_smaps(void)
{
  const struct smaps *smaps = read_smaps();

  for (int sum = 0; sum < SUMS; sum++)
    put_number(SMAPS[sum].name, smaps->sums[sum]);
  put_name("vmas");
  put("[%s]", smaps->vmas);
}

void put_state(int process)
{
  static const int OF_STATE[] = {RSS, ANON, SWAP, AHP, PRD, PRC, SHD, SHC};

  put_name(process == 0 ? "st0" : "st1");
  put("{");
  put_pagemap();
  put_mincore();
  for (int device = 0; device < DEVICES; device++)
    put_snapshot(device);
  const struct smaps *smaps = read_smaps();
  for (unsigned long at = 0; at < sizeof OF_STATE / sizeof *OF_STATE; at++)
    put_number(SMAPS[OF_STATE[at]].name, smaps->sums[OF_STATE[at]]);
  put("}");
}
