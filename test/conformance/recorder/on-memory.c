/* Operations on mappings, on memory as the CPU sees it, on the trace's file, and on a userfaultfd. */
#define _GNU_SOURCE
#include "operations.h"

#include <fcntl.h>
#include <linux/mman.h>
#include <linux/userfaultfd.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Newer than the headers of some distributions. */
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE 101
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

/* Traps. */

/* Set while a trap is a result, to where it is told. */
static volatile bool may_trap;
static sigjmp_buf trapped;

/* Set while the kernel may tell its caller of a page that it gave up: madvise() has its own answer. */
static volatile bool may_be_told;

static void on_trap(int signal_number)
{
  if (may_be_told)
    return;
  if (may_trap)
    siglongjmp(trapped, signal_number);
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}

void catch_traps(void)
{
  /* The handler is left by a jump: the signal must not stay blocked. */
  struct sigaction action = {.sa_handler = on_trap, .sa_flags = SA_NODEFER};

  sigaction(SIGSEGV, &action, NULL);
  sigaction(SIGBUS, &action, NULL);
}

/* Mappings. */

/* No name has an R or a W that does not mean it. */
static int protection_of(const char *name)
{
  return (strchr(name, 'R') ? PROT_READ : 0) | (strchr(name, 'W') ? PROT_WRITE : 0);
}

void run_mmap(const struct arguments *a)
{
  bool of_file = a->off != NO_OFFSET;
  int kind = strcmp(a->kind, "shared") == 0 ? MAP_SHARED : MAP_PRIVATE;
  int flags = MAP_FIXED | kind | (of_file ? 0 : MAP_ANONYMOUS);
  int file = of_file ? arena_file : -1;
  long offset = of_file ? a->off * PAGE_SIZE : 0;
  void *start = mmap(address_of(a->pg), a->n * PAGE_SIZE, protection_of(a->prot), flags, file, offset);

  put_answer((long)start);
}

void run_munmap(const struct arguments *a)
{
  put_answer(munmap(address_of(a->pg), a->n * PAGE_SIZE));
}

void run_mprotect(const struct arguments *a)
{
  put_answer(mprotect(address_of(a->pg), a->n * PAGE_SIZE, protection_of(a->prot)));
}

static int advice_of(const char *name)
{
  static const struct {
    const char *name;
    int advice;
  } ADVICES[] = {
    {"DONTNEED", MADV_DONTNEED},
    {"FREE", MADV_FREE},
    {"WILLNEED", MADV_WILLNEED},
    {"COLD", MADV_COLD},
    {"PAGEOUT", MADV_PAGEOUT},
    {"HUGEPAGE", MADV_HUGEPAGE},
    {"NOHUGEPAGE", MADV_NOHUGEPAGE},
    {"COLLAPSE", MADV_COLLAPSE},
    {"HWPOISON", MADV_HWPOISON},
    {"SOFT_OFFLINE", MADV_SOFT_OFFLINE},
  };

  for (size_t at = 0; at < sizeof ADVICES / sizeof *ADVICES; at++)
    if (strcmp(name, ADVICES[at].name) == 0)
      return ADVICES[at].advice;
  expect(false, "a known advice");
  return -1;
}

void run_madvise(const struct arguments *a)
{
  int advice = advice_of(a->advice);

  may_be_told = advice == MADV_HWPOISON;
  put_answer(madvise(address_of(a->pg), a->n * PAGE_SIZE, advice));
  may_be_told = false;
}

void run_mremap(const struct arguments *a)
{
  long size = a->n * PAGE_SIZE;

  put_answer((long)mremap(address_of(a->pg), size, size, MREMAP_MAYMOVE | MREMAP_FIXED, address_of(a->dst)));
}

/* To another length, in place or (dst >= 0) elsewhere. */
void run_mremap_to(const struct arguments *a)
{
  int flags = MREMAP_MAYMOVE | MREMAP_FIXED | (a->dontunmap ? MREMAP_DONTUNMAP : 0);
  void *old = address_of(a->pg);

  if (a->dst < 0)
    put_answer((long)mremap(old, a->n * PAGE_SIZE, a->len * PAGE_SIZE, 0));
  else
    put_answer((long)mremap(old, a->n * PAGE_SIZE, a->len * PAGE_SIZE, flags, address_of(a->dst)));
}

void run_mlock(const struct arguments *a)
{
  put_answer(mlock2(address_of(a->pg), a->n * PAGE_SIZE, a->onfault ? MLOCK_ONFAULT : 0));
}

void run_munlock(const struct arguments *a)
{
  put_answer(munlock(address_of(a->pg), a->n * PAGE_SIZE));
}

void run_clear_refs(const struct arguments *a)
{
  static const char *const NAMES[] = {"all", "anonymous", "mapped", "soft-dirty"};
  char number = '1';

  for (; strcmp(a->what, NAMES[number - '1']) != 0; number++)
    expect(number < '4', "a known kind of clear_refs");
  int file = open("/proc/self/clear_refs", O_WRONLY);
  expect(file >= 0, "/proc/self/clear_refs");
  put_answer(write(file, &number, 1));
  close(file);
  settle();
}

/* The CPU: two words a page, each access may trap. */

static const char *outcome_of(int signal_number)
{
  return signal_number == 0 ? "ok" : signal_number == SIGSEGV ? "SIGSEGV" : "SIGBUS";
}

static void put_outcomes(const int *signals, long pages)
{
  put_name("res");
  put("[");
  for (long at = 0, next; at < pages; at = next) {
    for (next = at + 1; next < pages && signals[next] == signals[at];)
      next++;
    put("%s[\"%s\",%ld]", at > 0 ? "," : "", outcome_of(signals[at]), next - at);
  }
  put("]");
}

typedef void page_access(const struct arguments *a, volatile uint64_t *words, long at);

/* Does `access` to each page; a page that traps is passed over. */
static void each_page(const struct arguments *a, page_access *access, int *signals)
{
  for (volatile long at = 0; at < a->n; at++) {
    may_trap = true;
    signals[at] = sigsetjmp(trapped, 1);
    if (signals[at] == 0)
      access(a, (volatile uint64_t *)address_of(a->pg + at), at);
    may_trap = false;
  }
}

static int signals[ARENA_PAGES_MAX];

static void write_page(const struct arguments *a, volatile uint64_t *words, long at)
{
  words[0] = written_word(a, a->pg + at);
  words[LAST_WORD] = written_word(a, a->pg + at);
}

void run_cpu_write(const struct arguments *a)
{
  each_page(a, write_page, signals);
  put_outcomes(signals, a->n);
}

static struct {
  uint64_t first, last;
} seen[ARENA_PAGES_MAX];

static void read_page(const struct arguments *a, volatile uint64_t *words, long at)
{
  (void)a;
  seen[at].first = words[0];
  seen[at].last = words[LAST_WORD];
}

void run_cpu_read(const struct arguments *a)
{
  long torn = 0;

  each_page(a, read_page, signals);
  put_outcomes(signals, a->n);
  put_name("words");
  put("[");
  for (long at = 0; at < a->n; at++) {
    if (at > 0)
      put(",");
    if (signals[at] != 0) {
      put("null");
      continue;
    }
    put("%lu", seen[at].first);
    torn += seen[at].first != seen[at].last;
  }
  put("]");
  if (torn > 0)
    put_number("torn", torn);
}

/* userfaultfd, for write protection without messages. */

void run_uffd_open(const struct arguments *a)
{
  struct uffdio_api api = {
    .api = UFFD_API,
    .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_PAGEFAULT_FLAG_WP,
  };

  (void)a;
  uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
  put_answer(uffd < 0 ? -1 : ioctl(uffd, UFFDIO_API, &api));
}

void run_uffd_close(const struct arguments *a)
{
  (void)a;
  put_answer(close(uffd));
  uffd = -1;
}

static struct uffdio_range watched_range(const struct arguments *a)
{
  return (struct uffdio_range){.start = (uintptr_t)address_of(a->pg), .len = a->n * PAGE_SIZE};
}

void run_uffd_register(const struct arguments *a)
{
  struct uffdio_register registration = {.range = watched_range(a), .mode = UFFDIO_REGISTER_MODE_WP};

  put_answer(ioctl(uffd, UFFDIO_REGISTER, &registration));
}

void run_uffd_unregister(const struct arguments *a)
{
  struct uffdio_range range = watched_range(a);

  put_answer(ioctl(uffd, UFFDIO_UNREGISTER, &range));
}

void run_uffd_protect(const struct arguments *a)
{
  struct uffdio_writeprotect protection = {.range = watched_range(a), .mode = UFFDIO_WRITEPROTECT_MODE_WP};

  put_answer(ioctl(uffd, UFFDIO_WRITEPROTECT, &protection));
}

void run_uffd_resolve(const struct arguments *a)
{
  struct uffdio_writeprotect protection = {.range = watched_range(a), .mode = 0};

  put_answer(ioctl(uffd, UFFDIO_WRITEPROTECT, &protection));
}

/* The file. `pg` is a page of it here, not of the arena. */

void run_fread(const struct arguments *a)
{
  long got = pread(arena_file, buffer, a->n * PAGE_SIZE, a->pg * PAGE_SIZE);

  if (put_answer(got))
    put_words(buffer, got / PAGE_SIZE);
}

void run_fwrite(const struct arguments *a)
{
  memset(buffer, 0, a->n * PAGE_SIZE);
  for (long at = 0; at < a->n; at++) {
    buffer[at * PAGE_WORDS] = written_word(a, a->pg + at);
    buffer[at * PAGE_WORDS + LAST_WORD] = written_word(a, a->pg + at);
  }
  put_answer(pwrite(arena_file, buffer, a->n * PAGE_SIZE, a->pg * PAGE_SIZE));
}

void run_ftruncate(const struct arguments *a)
{
  put_answer(ftruncate(arena_file, a->n * PAGE_SIZE));
}

void run_fsync(const struct arguments *a)
{
  (void)a;
  put_answer(fsync(arena_file));
}
