/** The operations that a call may name, and the arguments of each in the order in which they are written. */

/**
 * Kinds of arguments: `where` P or P+BYTES, `range` P or P-Q, `value` a 32-bit word, `on` the device, `device` the same without
 * the word "on", `to` the page to move to, `backing` what is mapped, `child` a task; with a question mark it may be left out.
 */
export type ArgumentKind =
  | 'where'
  | 'range'
  | 'value'
  | 'on'
  | 'device'
  | 'protection'
  | 'protection?'
  | 'backing?'
  | 'advice'
  | 'to'
  | 'dontunmap?'
  | 'write?'
  | 'feature?'
  | 'child';

interface Operation {
  readonly args: readonly ArgumentKind[];
  readonly summary: string;
}

export const OPERATIONS = {
  load: { args: ['where'], summary: 'the CPU loads a word' },
  store: { args: ['where', 'value'], summary: 'the CPU stores a word' },
  read: { args: ['where', 'on'], summary: "the driver reads a word through the device's page table" },
  write: { args: ['where', 'value', 'on'], summary: 'the driver writes a word' },
  touch: { args: ['where', 'on'], summary: 'a lane of the device loads a word' },
  fill: { args: ['where', 'value', 'on'], summary: 'a lane stores a word' },
  add: { args: ['where', 'value', 'on'], summary: 'a lane adds to a word, atomically' },
  todevice: { args: ['range', 'on'], summary: 'migrate to the device' },
  tosystem: { args: ['range', 'on'], summary: 'migrate from the device to RAM' },
  exclusive: { args: ['range', 'on'], summary: 'take pages of RAM away from the CPU, for atomics of the device' },
  open: { args: ['device'], summary: 'open a mirror of the process; one on each device is open at first' },
  close: { args: ['device'], summary: 'close the mirror: everything on the device goes home' },
  release: { args: ['device'], summary: 'the driver gives up all memory of the device' },
  fail_alloc: { args: ['device'], summary: 'the next allocation of a page for the mirror fails' },
  mmap: {
    args: ['range', 'protection?', 'backing?'],
    summary: 'map fresh memory there, or shared memory, or the file',
  },
  munmap: { args: ['range'], summary: 'unmap' },
  mprotect: { args: ['range', 'protection'], summary: 'change the protection' },
  mremap: { args: ['range', 'to', 'dontunmap?'], summary: 'move the mapping to another page' },
  madvise: {
    args: ['range', 'advice'],
    summary: 'dontneed, free, willneed, cold, pageout, collapse, hugepage, nohugepage, hwpoison, soft_offline',
  },
  mlock: { args: ['range'], summary: 'bring pages into RAM, and keep them there' },
  munlock: { args: ['range'], summary: 'let them go again' },
  clear_refs: { args: [], summary: 'forget which pages of the process have been written (soft-dirty)' },
  soft_dirty: { args: ['where'], summary: 'has the page been written since? 1 or 0' },
  pin: { args: ['range', 'write?'], summary: 'pin pages for long (FOLL_PIN, FOLL_LONGTERM)' },
  unpin: { args: [], summary: 'let go what the task has pinned' },
  get: { args: ['range', 'write?'], summary: 'take plain references (FOLL_GET), until the task ends at the latest' },
  put: { args: [], summary: 'drop the references that the task has taken' },
  uffd_register: {
    args: ['range', 'feature?'],
    summary: "register with the process's userfaultfd, opened by the first: unpopulated, async, sigbus",
  },
  uffd_unregister: { args: ['range'], summary: 'nothing of the range is protected any more' },
  uffd_protect: { args: ['range'], summary: 'stores sleep until the range is resolved' },
  uffd_resolve: { args: ['range'], summary: 'stores are allowed, and those that sleep go on' },
  uffd_close: { args: [], summary: "close the process's userfaultfd" },
  fork: { args: ['child'], summary: 'fork; the named task runs in the child from then on' },
  exit: { args: [], summary: "the end of the task's process, in which it is alone" },
} as const satisfies Readonly<Record<string, Operation>>;

export type OpName = keyof typeof OPERATIONS;

export const OP_NAMES = Object.keys(OPERATIONS) as readonly OpName[];

export const isOpName = (text: string): text is OpName => Object.hasOwn(OPERATIONS, text);

export const argumentsOf = (op: OpName): readonly ArgumentKind[] => OPERATIONS[op].args;
