/*
 * Records golden traces of the kernel it runs on, in the format hmmrec-2 (docs/traces.md). It is /init of a guest:
 * programs come from the first virtio disk, traces go to the second, then the guest ends (record.sh).
 *
 * Each program runs in a process of its own, its parent P; `fork` makes its child C. P reads the program and writes the
 * trace; C is told line by line through a pipe, and answers in shared memory. Operations follow each other: while one
 * process works, the others wait.
 */
#define _GNU_SOURCE
#include "recorder.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAMS_DISK "/dev/vda"
#define TRACES_DISK "/dev/vdb"
#define SWAP_DISK "/dev/ram0"
#define FILE_DISK "/dev/ram1"
#define FILE_SYSTEM "/fs.img" /* in the initrd: what FILE_DISK begins with */
#define TRACES_FOLDER "/traces"
#define TRACE_FILE TRACES_FOLDER "/trace"

/* A program that takes longer is stuck; one that then cannot be killed, too, has a kernel that is. */
#define STUCK_MS 20000
#define UNKILLABLE_MS 25000
#define POLL_MS 2

struct program program;
int arena_file = -1;
int uffd = -1;
int other_process = 0;

/* What must be so, or there is no trace. */
void expect(bool held, const char *what)
{
  if (held)
    return;
  fprintf(stderr, "%s: expected %s (last error: %m)\n", program.name, what);
  _exit(EXIT_FAILURE);
}

static void write_all(int file, const void *bytes, long length)
{
  for (long written, at = 0; at < length; at += written) {
    written = write(file, (const char *)bytes + at, length - at);
    expect(written > 0, "a write that succeeds");
  }
}

int open_device(int device)
{
  char path[32];

  snprintf(path, sizeof path, "/dev/hmm_dmirror%c", program.devices[device]);
  return open(path, O_RDWR);
}

/* The child: told what to do through one pipe, it says through the other that it is done. */
static struct {
  pid_t pid; /* 0: there is none */
  int commands, done;
} child;
static struct answer {
  long length;
  char text[LINE_BYTES];
} *answer;

#define ASK_FOR_STATE "?"

/* Returns false at an empty line, and at the end. */
static bool read_command(int commands, char *line, long size)
{
  long length = 0;

  while (length < size - 1 && read(commands, line + length, 1) == 1 && line[length] != '\n')
    length++;
  line[length] = 0;
  return length > 0;
}

static void run_child(int commands, int done)
{
  char line[512], name[32];
  unsigned long write_number;
  int at;

  /* Else the parent's close would not be the last. */
  if (uffd >= 0)
    close(uffd);
  other_process = getppid();
  open_views();
  line_text = answer->text;
  settle();
  write_all(done, observers, sizeof observers);
  while (read_command(commands, line, sizeof line)) {
    line_length = 0;
    if (strcmp(line, ASK_FOR_STATE) == 0) {
      put_state(1);
    } else {
      expect(sscanf(line, "%31s %lu %n", name, &write_number, &at) == 2, "a command");
      run_operation(name, line + at, write_number);
    }
    answer->length = line_length;
    write_all(done, "", 1);
  }
  _exit(EXIT_SUCCESS);
}

/* The last reference to an observer must not go when the child does: that would be a release of its device. */
static void keep_observers_of_child(void)
{
  int files[DEVICES];
  int process = syscall(SYS_pidfd_open, child.pid, 0);

  expect(read(child.done, files, sizeof files) == sizeof files, "the child's observers");
  for (int device = 0; device < DEVICES; device++)
    expect(syscall(SYS_pidfd_getfd, process, files[device], 0) >= 0, "an observer of the child");
  close(process);
}

static void fork_child(void)
{
  int commands[2], done[2];

  expect(pipe(commands) == 0 && pipe(done) == 0, "two pipes");
  pid_t pid = fork();
  if (pid == 0) {
    close(commands[1]);
    close(done[0]);
    run_child(commands[0], done[1]);
  }
  expect(pid > 0, "a child");
  put_errno(0);
  other_process = pid;
  close(commands[0]);
  close(done[1]);
  child.pid = pid;
  child.commands = commands[1];
  child.done = done[0];
  settle();
  keep_observers_of_child();
}

/* Returns its wait status. */
static int end_child(void)
{
  int status;

  write_all(child.commands, "\n", 1);
  expect(waitpid(child.pid, &status, 0) == child.pid, "the end of the child");
  close(child.commands);
  close(child.done);
  child.pid = 0;
  other_process = 0;
  return status;
}

static void ask_child(const char *command)
{
  char is_done;

  write_all(child.commands, command, strlen(command));
  write_all(child.commands, "\n", 1);
  expect(read(child.done, &is_done, 1) == 1, "an answer of the child");
  expect(line_length + answer->length < LINE_BYTES, "a line that fits its buffer");
  memcpy(line_text + line_length, answer->text, answer->length);
  line_length += answer->length;
}

/* The trace's file, as it is at first: on disk, and in the page cache. */
static void make_file(void)
{
  static uint64_t page[PAGE_WORDS];

  arena_file = open("/mnt/file", O_RDWR | O_CREAT | O_TRUNC, 0600);
  expect(arena_file >= 0, "a file");
  for (long at = 0; at < program.file_pages; at++) {
    page[0] = page[LAST_WORD] = FILE_FIRST_WORD + at;
    write_all(arena_file, page, sizeof page);
  }
  expect(fsync(arena_file) == 0, "a file that is written back");
}

static void put_device(int device)
{
  char minor = program.devices[device];

  put("%s\"hmm_dmirror%c:%s\"", device > 0 ? "," : "", minor, minor < '2' ? "private" : "coherent");
}

static void put_header(void)
{
  struct utsname names;

  uname(&names);
  put("{\"trace\":\"hmmrec-2\"");
  put_text("kernel", names.release);
  put_text("kernel_version", names.version);
  put_text("machine", names.machine);
  /* Nothing here can see it: README.md asks for it. */
  put_text("driver", "test_hmm+backing-fix2");
  put_name("devices");
  put("[");
  for (int device = 0; device < DEVICES; device++)
    put_device(device);
  put("]");
  put_number("page_size", PAGE_SIZE);
  put_number("pmd_size", 2 << 20);
  put_text("thp_enabled", "always [madvise] never");
  put_number("swap_pages", program.swap_pages);
  put_number("file_pages", program.file_pages);
  put_number("arena_pages", program.pages);
  put(",\"arena_base\":\"0x%lx\",%s}", ARENA_BASE, program.members);
}

static void end_line(int trace)
{
  put("\n");
  write_all(trace, line_text, line_length);
  line_length = 0;
}

static void run_line(int process, const char *name, char *rest, uint64_t write_number)
{
  char command[512];

  if (strcmp(name, "fork") == 0) {
    fork_child();
  } else if (strcmp(name, "exit") == 0) {
    put_number("status", end_child());
  } else if (process == 0) {
    run_operation(name, rest, write_number);
  } else {
    snprintf(command, sizeof command, "%s %lu %s", name, write_number, rest);
    ask_child(command);
  }
}

static bool makes_process(const char *name)
{
  return strcmp(name, "fork") == 0 || strcmp(name, "exit") == 0;
}

/* The process of one program. */
static void run_program(char *lines, int trace)
{
  uint64_t writes = 0;
  int operations = 0, process, at;
  char name[32], *in_lines;

  line_text = malloc(LINE_BYTES);
  answer = mmap(NULL, sizeof *answer, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  expect(line_text && answer != MAP_FAILED, "memory");
  open_operations();
  open_views();
  if (program.file_pages > 0)
    make_file();
  put_header();
  end_line(trace);
  open_counters(trace);
  for (char *line = strtok_r(lines, "\n", &in_lines); line; line = strtok_r(NULL, "\n", &in_lines)) {
    errno = 0; /* for what is said if there is no trace */
    expect(sscanf(line, "%31s %d %n", name, &process, &at) == 2, "an operation and its process");
    if (has_no_object(name))
      continue;
    if (!makes_process(name) && is_write(name))
      writes++;
    put("{\"i\":%d,\"proc\":%d,\"op\":\"%s\"", operations++, process, name);
    run_line(process, name, line + at, writes);
    put_state(0);
    if (child.pid > 0)
      ask_child(ASK_FOR_STATE);
    put("}");
    end_line(trace);
  }
  put("{\"end\":true,\"ops\":%d}", operations);
  end_line(trace);
  if (child.pid > 0)
    end_child();
  _exit(EXIT_SUCCESS);
}

/* A swap area as mkswap makes it, of so many pages and its header's. */
static void make_swap(void)
{
  static struct {
    char boot[1024];
    uint32_t version, last_page;
    char gap[PAGE_SIZE - 1024 - 8 - 10];
    char magic[10];
  } header = {.version = 1, .magic = "SWAPSPACE2"};
  int disk = open(SWAP_DISK, O_RDWR);

  header.last_page = program.swap_pages - 1;
  expect(disk >= 0, SWAP_DISK);
  write_all(disk, &header, sizeof header);
  expect(fsync(disk) == 0, "a swap area that is written");
  close(disk);
  expect(swapon(SWAP_DISK, 0) == 0, "a swap area");
}

static void end_guest(int traces)
{
  write_all(traces, "=END\n", 5);
  fsync(traces);
  reboot(RB_POWER_OFF);
}

/* Returns its wait status. Ends the guest if nothing ends the process. */
static int wait_for_program(pid_t pid, int traces)
{
  int status;

  for (int waited = 0; waitpid(pid, &status, WNOHANG) == 0; waited += POLL_MS) {
    usleep(POLL_MS * 1000);
    if (waited == STUCK_MS) {
      fprintf(stderr, "%s is stuck\n", program.name);
      kill(-pid, SIGKILL);
    }
    if (waited >= UNKILLABLE_MS)
      end_guest(traces);
  }
  return status;
}

void set(const char *path, const char *value)
{
  int file = open(path, O_WRONLY);

  expect(file >= 0, path);
  write_all(file, value, strlen(value));
  close(file);
}

static void record_program(char *lines, int traces)
{
  char head[128];
  struct stat of_trace;
  int trace = open(TRACE_FILE, O_RDWR | O_CREAT | O_TRUNC, 0600);

  expect(trace >= 0, TRACE_FILE);
  if (program.swap_pages > 0)
    make_swap();
  set(MAX_MAP_COUNT, "65530");
  pid_t pid = fork();
  if (pid == 0) {
    setpgid(0, 0); /* for who kills it with its child */
    run_program(lines, trace);
  }
  int status = wait_for_program(pid, traces);
  expect(fstat(trace, &of_trace) == 0, "a trace");
  write_all(traces, head, snprintf(head, sizeof head, "=%s %d %ld\n", program.name, status, (long)of_trace.st_size));
  char *text = mmap(NULL, of_trace.st_size + 1, PROT_READ, MAP_SHARED, trace, 0);
  expect(text != MAP_FAILED, "a trace that can be read");
  write_all(traces, text, of_trace.st_size);
  fsync(traces);
  munmap(text, of_trace.st_size + 1);
  close(trace);
  if (program.swap_pages > 0)
    expect(swapoff(SWAP_DISK) == 0, "a swap area that can be taken away");
}

static void copy(const char *source, const char *target)
{
  static char bytes[1 << 16];
  int from = open(source, O_RDONLY), to = open(target, O_WRONLY);
  long length;

  expect(from >= 0 && to >= 0, source);
  while ((length = read(from, bytes, sizeof bytes)) > 0)
    write_all(to, bytes, length);
  fsync(to);
  close(from);
  close(to);
}

static void mount_at(const char *folder, const char *source, const char *type)
{
  mkdir(folder, 0755);
  expect(mount(source, folder, type, 0, NULL) == 0 || errno == EBUSY, folder);
}

/* As little as possible may depend on time: nobody but the programs touches memory, and they have one CPU. */
static void prepare_guest(void)
{
  cpu_set_t first_cpu;

  mount_at("/proc", "proc", "proc");
  mount_at("/sys", "sysfs", "sysfs");
  mount_at("/dev", "devtmpfs", "devtmpfs");
  mount_at("/sys/kernel/debug", "debugfs", "debugfs");
  int console = open("/dev/console", O_RDWR);
  for (int standard = 0; standard <= 2; standard++)
    dup2(console, standard);
  set("/proc/sys/kernel/printk", "4 4 1 7");
  set("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
  set("/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs", "4000000000");
  /* No read-ahead, neither of swap nor of files; written back is what is told to be. */
  set("/proc/sys/vm/page-cluster", "0");
  set("/proc/sys/vm/dirty_writeback_centisecs", "0");
  mount_at(TRACES_FOLDER, "tmpfs", "tmpfs");
  copy(FILE_SYSTEM, FILE_DISK);
  mount_at("/mnt", FILE_DISK, "ext2");
  set("/sys/block/ram1/queue/read_ahead_kb", "0");
  CPU_ZERO(&first_cpu);
  CPU_SET(0, &first_cpu);
  expect(sched_setaffinity(0, sizeof first_cpu, &first_cpu) == 0, "one CPU");
}

static char *read_programs(void)
{
  const long size = 32 << 20;
  char *text = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  long length = 0, got;
  int disk = open(PROGRAMS_DISK, O_RDONLY);

  expect(disk >= 0 && text != MAP_FAILED, PROGRAMS_DISK);
  while ((got = read(disk, text + length, size - 1 - length)) > 0)
    length += got;
  /* What is not used does not become memory of each program (settle). */
  long used = (length / PAGE_SIZE + 1) * PAGE_SIZE;
  munmap(text + used, size - used);
  expect(strstr(text, "\n=END"), "=END after the programs, within 32 MiB");
  return text;
}

int main(void)
{
  prepare_guest();
  int traces = open(TRACES_DISK, O_WRONLY);
  expect(traces >= 0, TRACES_DISK);
  /* "=NAME PAGES DEVICES FILE_PAGES SWAP_PAGES MEMBERS", then a line an operation. */
  for (char *head = read_programs(), *lines, *next; strncmp(head, "=END", 4) != 0; head = next + 1) {
    lines = strchr(head, '\n') + 1;
    next = strstr(lines - 1, "\n=");
    *next = 0;
    lines[-1] = 0;
    int fields = sscanf(head, "=%63s %ld %2s %ld %ld %255[^\n]", program.name, &program.pages, program.devices,
            &program.file_pages, &program.swap_pages, program.members);
    expect(fields == 6, "a head of a program");
    expect(program.pages > 0 && program.pages <= ARENA_PAGES_MAX, "an arena of at most 4096 pages");
    record_program(lines, traces);
  }
  end_guest(traces);
}
