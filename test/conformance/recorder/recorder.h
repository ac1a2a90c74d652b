/*
 * What the parts of the recorder share: recorder.c (the guest, programs, processes), operations.c (what a line of a
 * program does, with on-memory.c and on-devices.c), views.c (what the kernel's own files show of the arena).
 */
#ifndef RECORDER_H
#define RECORDER_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#define PAGE_SIZE 4096L
#define PAGE_WORDS 512
#define LAST_WORD (PAGE_WORDS - 1)

/* The arena: the only memory that programs work on. Aligned to 2 MiB, far from everything else of the process. */
#define ARENA_BASE 0x100000000000UL
#define ARENA_PAGES_MAX 4096
#define USER_END 0x7ffffffff000UL

/* Devices of a trace. Two mirrors, one of each, belong to the recorder: they only look. */
#define DEVICES 2

/* Slots 0..3 are opened by the parent, 4..7 by the child. */
#define SLOTS 8

/* The first word of page n of a new file is this and n: no write of a trace stores so much. */
#define FILE_FIRST_WORD (1UL << 32)

struct program {
  char name[64];
  long pages;
  char devices[DEVICES + 1]; /* minors of /dev/hmm_dmirror*, one digit each */
  long file_pages;
  long swap_pages;
  char members[256]; /* further members of the header, JSON */
};

/* recorder.c */
extern struct program program;
extern int arena_file; /* of the trace, -1: none */
extern int uffd;       /* of the parent, -1: none */
extern int other_process; /* the child of the parent, the parent of the child; 0: none */
int open_device(int device);
void expect(bool held, const char *what);
void set(const char *path, const char *value);
#define MAX_MAP_COUNT "/proc/sys/vm/max_map_count"

static inline char *address_of(long page)
{
  return (char *)ARENA_BASE + page * PAGE_SIZE;
}

/* operations.c */
void open_operations(void);
bool is_write(const char *name);
bool has_no_object(const char *name);
void run_operation(const char *name, char *line, uint64_t write);

/* views.c: what is to be seen */
extern int observers[DEVICES];
void open_views(void);
void put_state(int process);
void put_smaps(void);
long mappings_elsewhere(void);
void put_kernel_pages(long page, long count);

/* counters.c */
void open_counters(int trace);
void settle(void);
void before_operation(void);
void after_operation(void);
void put_counters(void);

/* views.c: the line that is being written */
#define LINE_BYTES (4L << 20)
extern char *line_text;
extern long line_length;
void put(const char *format, ...) __attribute__((format(printf, 1, 2)));
void put_name(const char *name);
void put_number(const char *name, long value);
void put_text(const char *name, const char *text);
void put_errno(int error);
void put_runs(const char *name, const long *values, long count);
void put_words(const uint64_t *words, long pages);

#endif
