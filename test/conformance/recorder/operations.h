/* The operations of a program: their names, their arguments, and what is common to them. */
#ifndef OPERATIONS_H
#define OPERATIONS_H

#include "recorder.h"

/*
 * Name and arguments, in the order of a program's line and of a trace's. `?` may be left out; `=` is not in the
 * program, as the recorder knows it: the device of a slot, the number of a write.
 */
#define OPERATIONS(X) \
  X(open, "slot dev") \
  X(close, "slot =dev") \
  X(mmap, "pg n prot kind ?off") \
  X(munmap, "pg n") \
  X(mprotect, "pg n prot") \
  X(madvise, "pg n advice") \
  X(mremap, "pg n dst") \
  X(mremap_to, "pg n len dst dontunmap") \
  X(mlock, "pg n onfault") \
  X(munlock, "pg n") \
  X(raw, "call at bytes ?flags ?to ?len") \
  X(max_maps, "n") \
  X(clear_refs, "what") \
  X(cpu_write, "pg n =k") \
  X(cpu_read, "pg n") \
  X(dev_read, "slot =dev pg n") \
  X(dev_write, "slot =dev pg n =k") \
  X(migrate_to_dev, "slot =dev pg n") \
  X(migrate_to_sys, "slot =dev pg n") \
  X(snapshot, "slot =dev pg n") \
  X(exclusive, "slot =dev pg n") \
  X(check_exclusive, "slot =dev pg n") \
  X(fail_alloc, "slot =dev") \
  X(release_chunks, "slot =dev") \
  X(pin, "pg n write") \
  X(unpin, "") \
  X(splice, "pg n") \
  X(splice_drain, "") \
  X(uffd_open, "") \
  X(uffd_close, "") \
  X(uffd_register, "pg n") \
  X(uffd_unregister, "pg n") \
  X(uffd_protect, "pg n") \
  X(uffd_resolve, "pg n") \
  X(fread, "pg n") \
  X(fwrite, "pg n =k") \
  X(ftruncate, "n") \
  X(fsync, "") \
  X(kpage, "pg n") \
  X(smaps, "") \
  X(counters, "") \
  X(state, "")

struct arguments {
  long slot, dev, pg, n, len, dst, dontunmap, onfault, write, off;
  long at, bytes, to, flags;
  long k;
  char prot[8], kind[8], advice[16], what[16], call[16];
};
#define NO_OFFSET (-1)
#define NO_ADDRESS (-1)

#define DECLARE(name, takes) void run_##name(const struct arguments *);
OPERATIONS(DECLARE)
#undef DECLARE

/* operations.c */
extern uint64_t *buffer; /* contents of a whole arena */
bool put_answer(long answer);
uint64_t written_word(const struct arguments *, long page);

/* on-memory.c */
void catch_traps(void);

/* on-devices.c */
void open_devices(void);
int device_in(int slot);
int file_in(int slot);
bool is_pinned(void);
bool is_spliced(void);

#endif
