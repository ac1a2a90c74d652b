/* The ioctls of /dev/hmm_dmirror* (lib/test_hmm.c) and of gup_test (mm/gup_test.c), which no package of headers has. */
#ifndef TEST_HMM_ABI_H
#define TEST_HMM_ABI_H

#include <stdint.h>
#include <sys/ioctl.h>

struct dmirror_command {
  uint64_t addr;
  uint64_t ptr; /* data of the command, in the caller's memory */
  uint64_t npages;
  uint64_t cpages;
  uint64_t faults;
};

enum dmirror_number {
  DMIRROR_READ,
  DMIRROR_WRITE,
  DMIRROR_MIGRATE_TO_DEV,
  DMIRROR_MIGRATE_TO_SYS,
  DMIRROR_SNAPSHOT,
  DMIRROR_EXCLUSIVE,
  DMIRROR_CHECK_EXCLUSIVE,
  DMIRROR_RELEASE,
  DMIRROR_FLAGS, /* `npages` has the flags */
};
#define DMIRROR_FLAG_FAIL_ALLOC 1
#define DMIRROR_IOCTL(number) _IOWR('H', number, struct dmirror_command)

struct longterm_pin {
  uint64_t addr;
  uint64_t size;
  uint32_t flags;
};
#define LONGTERM_PIN_WRITE 1
#define LONGTERM_PIN_START _IOW('g', 7, struct longterm_pin)
#define LONGTERM_PIN_STOP _IO('g', 8)
#define LONGTERM_PIN_READ _IOW('g', 9, uint64_t)

#endif
