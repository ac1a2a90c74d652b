/* Operations on mirrors, and on others who may hold pages: a long-term pin, a pipe. */
#define _GNU_SOURCE
#include "operations.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "test_hmm_abi.h"

static struct {
  int file; /* -1: closed */
  int device;
} slots[SLOTS];

static int gup_test;     /* the debugfs file that holds long-term pins */
static long pinned;      /* pages */
static int pipe_ends[2];
static long spliced; /* pages in the pipe */

void open_devices(void)
{
  for (int slot = 0; slot < SLOTS; slot++)
    slots[slot].file = -1;
  gup_test = open("/sys/kernel/debug/gup_test", O_RDWR);
  expect(gup_test >= 0, "gup_test in debugfs");
  expect(pipe2(pipe_ends, O_NONBLOCK) == 0, "a pipe");
  expect(fcntl(pipe_ends[1], F_SETPIPE_SZ, 1 << 20) >= 0, "a pipe of 1 MiB");
}

/* -1: the slot is closed. */
int device_in(int slot)
{
  return slots[slot].file < 0 ? -1 : slots[slot].device;
}

int file_in(int slot)
{
  return slots[slot].file;
}

bool is_pinned(void)
{
  return pinned > 0;
}

bool is_spliced(void)
{
  return spliced > 0;
}

/* Mirrors. */

void run_open(const struct arguments *a)
{
  slots[a->slot].file = open_device(a->dev);
  slots[a->slot].device = a->dev;
  put_answer(slots[a->slot].file);
}

void run_close(const struct arguments *a)
{
  put_answer(close(slots[a->slot].file));
  slots[a->slot].file = -1;
}

static bool on_mirror(const struct arguments *a, enum dmirror_number number, struct dmirror_command *command)
{
  return put_answer(ioctl(slots[a->slot].file, DMIRROR_IOCTL(number), command));
}

static struct dmirror_command on_range(const struct arguments *a, void *data)
{
  return (struct dmirror_command){.addr = (uintptr_t)address_of(a->pg), .ptr = (uintptr_t)data, .npages = a->n};
}

void run_dev_read(const struct arguments *a)
{
  struct dmirror_command command = on_range(a, buffer);

  if (!on_mirror(a, DMIRROR_READ, &command))
    return;
  put_number("cpages", command.cpages);
  put_number("faults", command.faults);
  put_words(buffer, a->n);
}

void run_dev_write(const struct arguments *a)
{
  struct dmirror_command command = on_range(a, buffer);

  for (long word = 0; word < a->n * PAGE_WORDS; word++)
    buffer[word] = written_word(a, a->pg + word / PAGE_WORDS);
  if (!on_mirror(a, DMIRROR_WRITE, &command))
    return;
  put_number("cpages", command.cpages);
  put_number("faults", command.faults);
}

void run_migrate_to_dev(const struct arguments *a)
{
  struct dmirror_command command = on_range(a, buffer);

  if (!on_mirror(a, DMIRROR_MIGRATE_TO_DEV, &command))
    return;
  put_number("cpages", command.cpages);
  put_words(buffer, a->n);
}

void run_migrate_to_sys(const struct arguments *a)
{
  struct dmirror_command command = on_range(a, buffer);

  if (on_mirror(a, DMIRROR_MIGRATE_TO_SYS, &command))
    put_number("cpages", command.cpages);
}

void run_snapshot(const struct arguments *a)
{
  static unsigned char codes[ARENA_PAGES_MAX];
  struct dmirror_command command = on_range(a, codes);

  if (!on_mirror(a, DMIRROR_SNAPSHOT, &command))
    return;
  put_number("cpages", command.cpages);
  put_name("prot");
  for (long at = 0; at < a->n; at++)
    put("%s%d", at > 0 ? "," : "[", codes[at]);
  put("]");
}

void run_exclusive(const struct arguments *a)
{
  struct dmirror_command command = on_range(a, buffer);

  if (!on_mirror(a, DMIRROR_EXCLUSIVE, &command))
    return;
  put_number("cpages", command.cpages);
  put_words(buffer, a->n);
}

void run_check_exclusive(const struct arguments *a)
{
  struct dmirror_command command = on_range(a, buffer);

  on_mirror(a, DMIRROR_CHECK_EXCLUSIVE, &command);
}

void run_fail_alloc(const struct arguments *a)
{
  struct dmirror_command command = {.addr = ARENA_BASE, .ptr = (uintptr_t)buffer, .npages = DMIRROR_FLAG_FAIL_ALLOC};

  put_number("flags", DMIRROR_FLAG_FAIL_ALLOC);
  on_mirror(a, DMIRROR_FLAGS, &command);
}

/* The command is about the whole device; the driver wants a range all the same. */
void run_release_chunks(const struct arguments *a)
{
  struct dmirror_command command = {.addr = ARENA_BASE, .ptr = (uintptr_t)buffer, .npages = 1};

  on_mirror(a, DMIRROR_RELEASE, &command);
}

/* Who else may hold pages. */

void run_pin(const struct arguments *a)
{
  struct longterm_pin pin = {
    .addr = (uintptr_t)address_of(a->pg),
    .size = a->n * PAGE_SIZE,
    .flags = a->write ? LONGTERM_PIN_WRITE : 0,
  };

  if (put_answer(ioctl(gup_test, LONGTERM_PIN_START, &pin)))
    pinned = a->n;
}

void run_unpin(const struct arguments *a)
{
  uint64_t target = (uintptr_t)buffer;

  (void)a;
  if (put_answer(ioctl(gup_test, LONGTERM_PIN_READ, &target)))
    put_words(buffer, pinned);
  ioctl(gup_test, LONGTERM_PIN_STOP);
  pinned = 0;
}

void run_splice(const struct arguments *a)
{
  struct iovec range = {.iov_base = address_of(a->pg), .iov_len = a->n * PAGE_SIZE};
  long got = vmsplice(pipe_ends[1], &range, 1, 0);

  put_answer(got);
  spliced = got < 0 ? 0 : got / PAGE_SIZE;
  put_number("pages", spliced);
}

void run_splice_drain(const struct arguments *a)
{
  long length = 0, got;

  (void)a;
  while ((got = read(pipe_ends[0], (char *)buffer + length, PAGE_SIZE)) > 0)
    length += got;
  put_errno(0);
  put_words(buffer, length / PAGE_SIZE);
  spliced = 0;
}
