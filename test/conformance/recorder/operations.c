/* A line of a program: its arguments are read and written down, then its operation does what it does. */
#define _GNU_SOURCE
#include "operations.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static const struct operation {
  const char *name, *takes;
  void (*run)(const struct arguments *);
} TABLE[] = {
#define ENTRY(name, takes) {#name, takes, run_##name},
  OPERATIONS(ENTRY)
#undef ENTRY
};

uint64_t *buffer;

void open_operations(void)
{
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE;

  catch_traps();
  open_devices();
  buffer = mmap(NULL, program.pages * PAGE_SIZE, PROT_READ | PROT_WRITE, flags, -1, 0);
  expect(buffer != MAP_FAILED, "memory for the contents of the arena");
}

/* What the kernel answered: -1 is an error. Returns whether it is none. */
bool put_answer(long answer)
{
  put_errno(answer == -1 ? errno : 0);
  return answer != -1;
}

uint64_t written_word(const struct arguments *a, long page)
{
  return a->k * 4096 + page;
}

static const struct operation *operation_of(const char *name)
{
  for (size_t at = 0; at < sizeof TABLE / sizeof *TABLE; at++)
    if (strcmp(name, TABLE[at].name) == 0)
      return &TABLE[at];
  fprintf(stderr, "%s is no operation\n", name);
  expect(false, "an operation");
  return NULL;
}

bool is_write(const char *name)
{
  return strstr(operation_of(name)->takes, "=k") != NULL;
}

/*
 * There is one pin and one pipe at a time. A program cannot know whether its pin failed: its unpin is then left out of
 * the trace, as a second pin is.
 */
bool has_no_object(const char *name)
{
  return (strcmp(name, "pin") == 0 && is_pinned()) || (strcmp(name, "unpin") == 0 && !is_pinned()) ||
         (strcmp(name, "splice") == 0 && is_spliced()) || (strcmp(name, "splice_drain") == 0 && !is_spliced());
}

struct field {
  const char *name;
  size_t at, size; /* of the text; 0: a number */
};

static const struct field *field_of(const char *name)
{
#define NUMBER(name) {#name, offsetof(struct arguments, name), 0}
#define TEXT(name) {#name, offsetof(struct arguments, name), sizeof((struct arguments *)NULL)->name}
  static const struct field FIELDS[] = {
    NUMBER(slot), NUMBER(dev), NUMBER(pg), NUMBER(n), NUMBER(len), NUMBER(dst), NUMBER(off),
    NUMBER(dontunmap), NUMBER(onfault), NUMBER(write), NUMBER(k),
    NUMBER(at), NUMBER(bytes), NUMBER(to), NUMBER(flags),
    TEXT(prot), TEXT(kind), TEXT(advice), TEXT(what), TEXT(call),
  };
#undef NUMBER
#undef TEXT

  for (size_t at = 0; at < sizeof FIELDS / sizeof *FIELDS; at++)
    if (strcmp(name, FIELDS[at].name) == 0)
      return &FIELDS[at];
  expect(false, "a field of that name");
  return NULL;
}

static void set_field(struct arguments *a, const struct field *field, const char *word)
{
  char *place = (char *)a + field->at;

  if (field->size > 0)
    snprintf(place, field->size, "%s", word);
  else
    *(long *)place = strtol(word, NULL, 10);
}

static void put_field(const struct arguments *a, const struct field *field)
{
  const char *place = (const char *)a + field->at;

  if (field->size > 0)
    put_text(field->name, place);
  else
    put_number(field->name, *(const long *)place);
}

/* @param line the rest of the program's line, which is taken apart */
static struct arguments take_arguments(const struct operation *operation, char *line, uint64_t write)
{
  struct arguments a = {.k = write, .off = NO_OFFSET, .to = NO_ADDRESS};
  char wanted[64], *in_wanted, *in_line;
  char *word = strtok_r(line, " ", &in_line);

  snprintf(wanted, sizeof wanted, "%s", operation->takes);
  for (char *name = strtok_r(wanted, " ", &in_wanted); name; name = strtok_r(NULL, " ", &in_wanted)) {
    bool is_known = *name == '=', is_optional = *name == '?';
    const struct field *field = field_of(name + (is_known || is_optional));

    if (is_optional && !word)
      continue;
    if (is_known && field->at == offsetof(struct arguments, dev))
      a.dev = device_in(a.slot);
    if (!is_known) {
      expect(word, "an argument more");
      set_field(&a, field, word);
      word = strtok_r(NULL, " ", &in_line);
    }
    expect(a.slot >= 0 && a.slot < SLOTS, "a slot from 0 to 7");
    put_field(&a, field);
  }
  expect(!word, "no further argument");
  expect(a.pg >= 0 && a.n >= 0 && a.pg + a.n <= program.pages, "a range in the arena");
  return a;
}

void run_operation(const char *name, char *line, uint64_t write)
{
  const struct operation *operation = operation_of(name);
  struct arguments arguments = take_arguments(operation, line, write);

  before_operation();
  operation->run(&arguments);
  after_operation();
}

void run_smaps(const struct arguments *a)
{
  (void)a;
  put_smaps();
}

void run_counters(const struct arguments *a)
{
  (void)a;
  put_counters();
}

void run_kpage(const struct arguments *a)
{
  put_kernel_pages(a->pg, a->n);
}

/* Only its state. */
void run_state(const struct arguments *a)
{
  (void)a;
}
