/* System calls as they are called, with any argument: no whole pages, no place in the arena, wrong flags. */
#define _GNU_SOURCE
#include "operations.h"

#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "test_hmm_abi.h"

/* What it is about: `to` and `at` are bytes from the arena's begin, also in front of it. */
struct range {
  unsigned long start, bytes, to, len;
  int flags;
};

static long map(const struct range *r, int protection, int flags, int file)
{
  return syscall(SYS_mmap, r->start, r->bytes, protection, MAP_FIXED | flags, file, 0);
}

static long on_userfaultfd(const struct range *r, unsigned long request)
{
  struct uffdio_range range = {.start = r->start, .len = r->bytes};
  struct uffdio_register registration = {.range = range, .mode = UFFDIO_REGISTER_MODE_WP};
  struct uffdio_writeprotect protection = {.range = range, .mode = r->flags};

  switch (request) {
  case UFFDIO_REGISTER:
    return ioctl(uffd, request, &registration);
  case UFFDIO_WRITEPROTECT:
    return ioctl(uffd, request, &protection);
  default:
    return ioctl(uffd, request, &range);
  }
}

/* `flags` is the slot. */
static long on_device(const struct range *r, enum dmirror_number number)
{
  struct dmirror_command command = {.addr = r->start, .ptr = (uintptr_t)buffer, .npages = r->bytes / PAGE_SIZE};

  return ioctl(file_in(r->flags), DMIRROR_IOCTL(number), &command);
}

static long call(const char *name, const struct range *r)
{
#define IS(other) (strcmp(name, other) == 0)
  if (IS("mmap_private"))
    return map(r, r->flags, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  if (IS("mmap_shared"))
    return map(r, r->flags, MAP_SHARED | MAP_ANONYMOUS, -1);
  /* `flags` is the device, of which there is always a file open. */
  if (IS("mmap_device"))
    return map(r, PROT_READ | PROT_WRITE, MAP_PRIVATE, observers[r->flags]);
  if (IS("munmap"))
    return syscall(SYS_munmap, r->start, r->bytes);
  if (IS("mprotect"))
    return syscall(SYS_mprotect, r->start, r->bytes, r->flags);
  if (IS("mremap"))
    return syscall(SYS_mremap, r->start, r->bytes, r->len, r->flags, r->to);
  if (IS("madvise"))
    return syscall(SYS_madvise, r->start, r->bytes, r->flags);
  if (IS("mlock"))
    return syscall(SYS_mlock2, r->start, r->bytes, r->flags);
  if (IS("munlock"))
    return syscall(SYS_munlock, r->start, r->bytes);
  if (IS("msync"))
    return syscall(SYS_msync, r->start, r->bytes, r->flags);
  if (IS("uffd_register"))
    return on_userfaultfd(r, UFFDIO_REGISTER);
  if (IS("uffd_unregister"))
    return on_userfaultfd(r, UFFDIO_UNREGISTER);
  if (IS("uffd_protect"))
    return on_userfaultfd(r, UFFDIO_WRITEPROTECT);
  if (IS("dev_read"))
    return on_device(r, DMIRROR_READ);
  if (IS("migrate_to_dev"))
    return on_device(r, DMIRROR_MIGRATE_TO_DEV);
  if (IS("migrate_to_sys"))
    return on_device(r, DMIRROR_MIGRATE_TO_SYS);
  if (IS("snapshot"))
    return on_device(r, DMIRROR_SNAPSHOT);
  if (IS("exclusive"))
    return on_device(r, DMIRROR_EXCLUSIVE);
  if (IS("check_exclusive"))
    return on_device(r, DMIRROR_CHECK_EXCLUSIVE);
#undef IS
  expect(false, "a known system call");
  return -1;
}

void run_raw(const struct arguments *a)
{
  struct range range = {
    .start = ARENA_BASE + a->at,
    .bytes = a->bytes,
    .to = a->to == NO_ADDRESS ? 0 : ARENA_BASE + a->to,
    .len = a->len,
    .flags = a->flags,
  };

  put_answer(call(a->call, &range) == -1 ? -1 : 0);
}

/* So many mappings the arena may have, beside all others of the process. */
void run_max_maps(const struct arguments *a)
{
  char limit[32];

  snprintf(limit, sizeof limit, "%ld", mappings_elsewhere() + a->n);
  set(MAX_MAP_COUNT, limit);
  put_errno(0);
}
