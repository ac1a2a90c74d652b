/**
 * One trace's processes, open slots and pins on a machine, and what each operation of a trace is here: a system call, as the
 * kernel's task that it is. The public API is above that and has tests of its own (test/selftests); its promises would cost
 * more than the operations.
 *
 * The answer of an operation has the fields that the recorder wrote, and arguments too where the session knows better (the
 * device of a slot, the number of a write): an answer that contradicts the record is a divergence.
 */
import { PAGE_SIZE } from '../abi/address.js';
import type { Result } from '../abi/errno.js';
import { PAGEMAP_WORD } from '../abi/pagemap-word.js';
import type { Page, VirtAddr } from '../base/brand.js';
import { PfnlessError } from '../base/errors.js';
import type { AccessOutcome, DriverMirror } from '../drivers/driver.js';
import { OpenMirror } from '../machine/open-mirror.js';
import type { MachineState } from '../machine/state.js';
import { clearRefs } from '../mm/clear-refs.js';
import { forkMm } from '../mm/fork.js';
import { getPagesInTurns, pinUserPages, putUserPages, unpinUserPages } from '../mm/gup.js';
import { MAX_MAP_COUNT } from '../mm/kernel.js';
import { doMadvise } from '../mm/madvise.js';
import { doMlock, doMunlock } from '../mm/mlock.js';
import { createMm, exitMm, type MmStruct } from '../mm/mm-struct.js';
import { doMmap, doMunmap } from '../mm/mmap.js';
import { doMprotect } from '../mm/mprotect.js';
import { doMremap } from '../mm/mremap.js';
import { KPF, kpagecount, kpageflags } from '../mm/proc-page.js';
import { pagemapWord } from '../mm/proc-pagemap.js';
import { smapsRange } from '../mm/proc-smaps.js';
import {
  createUserfaultfd,
  releaseUserfaultfd,
  userfaultfdProtect,
  userfaultfdRegister,
  userfaultfdResolve,
  userfaultfdUnregister,
} from '../mm/userfaultfd.js';
import type { Userfaultfd } from '../mm/userfaultfd-context.js';
import type { Sleeps } from '../sync/task.js';
import { type Fields, runsOf } from './compare.js';
import type { TraceHeader, TraceOperation } from './trace.js';
import { TraceCounters } from './trace-counters.js';
import { cpuRead, cpuWrite, withTorn, wordsOf, writtenWord } from './trace-cpu.js';
import { TraceFile } from './trace-file.js';
import { rawCall } from './trace-raw.js';

type Operation<Name extends TraceOperation['op']> = Extract<TraceOperation, { op: Name }>;
type MirrorOperation = Exclude<Extract<TraceOperation, { slot: number }>, { op: 'open' | 'close' }>;

/** Slots 0..3 are opened by the parent, 4..7 by the child. */
const SLOTS = 8;
const SLOTS_OF_ONE = 4;

/** What does not depend on which batch a page waits in for its list. */
const KPAGE_FLAGS = [
  KPF.UPTODATE,
  KPF.DIRTY,
  KPF.MMAP,
  KPF.ANON,
  KPF.SWAPCACHE,
  KPF.COMPOUND_HEAD,
  KPF.COMPOUND_TAIL,
  KPF.HWPOISON,
  KPF.THP,
  KPF.ZERO_PAGE,
].reduce((mask, at) => mask | (1n << BigInt(at)), 0n);

const WATCHED = {
  uffd_register: userfaultfdRegister,
  uffd_unregister: userfaultfdUnregister,
  uffd_protect: userfaultfdProtect,
  uffd_resolve: userfaultfdResolve,
};

/** Their faults are in no row. */
const MAKES_PROCESS: ReadonlySet<string> = new Set(['fork', 'exit']);

const PROTECTION = { NONE: 'none', R: 'r', W: 'w', RW: 'rw' } as const;

interface Slot {
  readonly device: number;
  readonly open: OpenMirror;
}

/** A process of the trace. Slots are its file descriptors: a fork copies them. */
export interface Party {
  readonly mm: MmStruct;
  readonly slots: (Slot | undefined)[];
}

/** Pages that somebody holds: pinned for long, or in a pipe. */
interface Hold {
  readonly party: Party;
  readonly pages: readonly Page[];
}

export class TraceSession {
  readonly parent: Party;
  child: Party | null = null;
  readonly #state: MachineState;
  readonly #base: number;
  readonly #pages: number;
  #pinned: Hold | null = null;
  #spliced: Hold | null = null;
  #userfaultfd: Userfaultfd | null = null;
  readonly #extended: boolean;
  readonly #filePages: number;
  #file: TraceFile | null = null;
  #counters: TraceCounters | null = null;
  /** Writes so far: each stores its own number. */
  #writes = 0;

  /** @throws PfnlessError ERR_PFNLESS_ERRNO without memory for a process */
  constructor(state: MachineState, header: TraceHeader) {
    this.#state = state;
    this.#base = header.arena_base;
    this.#pages = header.arena_pages;
    this.#extended = header.trace === 'hmmrec-2';
    this.#filePages = header.file_pages ?? 0;
    state.kernel.maxMapCount = MAX_MAP_COUNT;
    const mm = createMm(state.kernel, 1);
    if (mm === undefined) {
      throw new PfnlessError('ERR_PFNLESS_ERRNO', 'There is no memory for a process.', { errno: 'ENOMEM' });
    }
    this.parent = { mm, slots: new Array(SLOTS) };
  }

  /** What there is before the first operation. */
  *begin(): Sleeps<void> {
    if (this.#filePages > 0) this.#file = yield* TraceFile.make(this.#state.kernel, this.#filePages);
    if (this.#extended) this.#counters = new TraceCounters(this.#state.kernel);
  }

  /** Every process exits, every mirror is closed. */
  *end(): Sleeps<void> {
    if (this.child !== null) yield* this.#leave(this.child);
    yield* this.#leave(this.parent);
    this.#file?.close();
  }

  addressOf(page: number): VirtAddr {
    return (this.#base + page * PAGE_SIZE) as VirtAddr;
  }

  /** Do one operation. Kernel answers are fields; anything else is thrown. */
  *execute(operation: TraceOperation): Sleeps<Fields> {
    const isWrite = 'k' in operation;
    if (isWrite) this.#writes++;
    const ended = MAKES_PROCESS.has(operation.op) ? undefined : this.#counters?.operation();
    const answer = yield* this.#execute(operation);
    ended?.();
    if (isWrite) answer.k = this.#writes;
    return answer;
  }

  *#execute(operation: TraceOperation): Sleeps<Fields> {
    const party = operation.proc === 0 ? this.parent : this.child;
    if (party === null) return { proc: 'no such process' };
    const { kernel } = this.#state;
    const { mm } = party;
    switch (operation.op) {
      case 'open':
        return yield* this.#open(party, operation);
      case 'close':
        return yield* this.#close(party, operation.slot);
      case 'mmap': {
        const { pg, n, prot, kind, off } = operation;
        const what = off === undefined ? {} : { file: this.#openFile().mapped(off) };
        const where = { addr: this.addressOf(pg), length: n * PAGE_SIZE, fixed: true, ...what };
        const start = yield* doMmap(kernel, mm, { ...where, prot: PROTECTION[prot], kind });
        return errnoOf(typeof start === 'string' ? start : 0);
      }
      case 'munmap': {
        const { pg, n } = operation;
        return errnoOf(yield* doMunmap(kernel, mm, this.addressOf(pg), n * PAGE_SIZE));
      }
      case 'mprotect': {
        const { pg, n, prot } = operation;
        return errnoOf(yield* doMprotect(kernel, mm, this.addressOf(pg), n * PAGE_SIZE, PROTECTION[prot]));
      }
      case 'mremap': {
        const { pg, n, dst } = operation;
        const flags = { maymove: true, fixedAt: this.addressOf(dst) };
        const start = yield* doMremap(kernel, mm, this.addressOf(pg), n * PAGE_SIZE, n * PAGE_SIZE, flags);
        return errnoOf(typeof start === 'string' ? start : 0);
      }
      case 'madvise': {
        const { pg, n, advice } = operation;
        return errnoOf(yield* doMadvise(kernel, mm, this.addressOf(pg), n * PAGE_SIZE, advice));
      }
      case 'fork':
        return yield* this.#fork(party);
      case 'exit':
        return yield* this.#exit(party);
      case 'cpu_write':
        return yield* cpuWrite(kernel, mm, operation, this.addressOf(operation.pg), this.#writes);
      case 'cpu_read':
        return yield* cpuRead(kernel, mm, operation, this.addressOf(operation.pg));
      case 'smaps': {
        const { ref: _, lazy: __, lck, ...sums } = smapsRange(kernel, mm, this.addressOf(0), this.#pages);
        return this.#extended ? { ...sums, lck } : sums;
      }
      case 'mremap_to': {
        const { pg, n, len, dst, dontunmap } = operation;
        const fixed = dst < 0 ? {} : { fixedAt: this.addressOf(dst), dontunmap: dontunmap === 1 };
        const flags = { maymove: dst >= 0, ...fixed };
        const start = yield* doMremap(kernel, mm, this.addressOf(pg), n * PAGE_SIZE, len * PAGE_SIZE, flags);
        return errnoOf(typeof start === 'string' ? start : 0);
      }
      case 'mlock': {
        const { pg, n, onfault } = operation;
        return errnoOf(yield* doMlock(kernel, mm, this.addressOf(pg), n * PAGE_SIZE, onfault === 1));
      }
      case 'munlock': {
        const { pg, n } = operation;
        return errnoOf(yield* doMunlock(kernel, mm, this.addressOf(pg), n * PAGE_SIZE));
      }
      case 'raw': {
        const userfaultfd = party === this.parent ? this.#userfaultfd : null;
        const { devices } = this.#state;
        const mirror = (slot: number) => party.slots[slot]?.open.mirror;
        const caller = { mm, userfaultfd, mirror, deviceFile: (device: number) => devices[device]?.driver.file };
        return errnoOf(yield* rawCall(kernel, caller, this.#base, operation));
      }
      case 'max_maps':
        kernel.maxMapCount = operation.n + this.#mappingsElsewhere(mm);
        return errnoOf(0);
      case 'clear_refs':
        yield* clearRefs(kernel, mm, operation.what);
        return errnoOf(0);
      case 'uffd_open':
        if (this.#userfaultfd !== null) return { errno: 'one userfaultfd at a time' };
        this.#userfaultfd = createUserfaultfd(mm, { wpAsync: true });
        return errnoOf(0);
      case 'uffd_close':
        return errnoOf(yield* this.#closeUserfaultfd());
      case 'uffd_register':
      case 'uffd_unregister':
      case 'uffd_protect':
      case 'uffd_resolve': {
        const { pg, n } = operation;
        if (this.#userfaultfd === null) return errnoOf('EBADF');
        return errnoOf(yield* WATCHED[operation.op](kernel, this.#userfaultfd, this.addressOf(pg), n * PAGE_SIZE));
      }
      case 'fread':
        return yield* this.#openFile().read(operation.pg, operation.n);
      case 'fwrite':
        return yield* this.#openFile().write(operation.pg, operation.n, writtenWord(this.#writes, 0));
      case 'ftruncate':
        return yield* this.#openFile().truncate(operation.n);
      case 'fsync':
        return yield* this.#openFile().sync();
      case 'counters':
        return this.#counters!.rows(mm);
      case 'kpage':
        return this.#kpage(mm, operation);
      case 'pin':
        return yield* this.#pin(party, operation);
      case 'unpin': {
        const hold = this.#pinned;
        this.#pinned = null;
        return this.#letGo(hold, unpinUserPages);
      }
      case 'splice':
        return yield* this.#splice(party, operation);
      case 'splice_drain': {
        const hold = this.#spliced;
        this.#spliced = null;
        return this.#letGo(hold, putUserPages);
      }
      case 'state':
        return {};
      default: {
        const slot = party.slots[operation.slot];
        return slot === undefined ? { errno: 'EBADF', dev: -1 } : yield* this.#onMirror(slot, operation);
      }
    }
  }

  /** The child's slots are its copies of the parent's. */
  *#fork({ mm, slots }: Party): Sleeps<Fields> {
    if (this.child !== null) return { errno: 'one child at a time' };
    const copy = yield* forkMm(this.#state.kernel, mm, 2);
    if (copy === undefined) return { errno: 'ENOMEM' };
    const inherited = slots.map((slot) => slot && { device: slot.device, open: slot.open.get() });
    this.child = { mm: copy, slots: inherited };
    return { errno: '0' };
  }

  *#exit(party: Party): Sleeps<Fields> {
    if (party === this.parent) return { proc: 'the parent lives to the end' };
    yield* this.#leave(party);
    this.child = null;
    return { status: 0 };
  }

  /**
   * As `do_exit()` has it: first the address space goes, so that nobody else hears of pages that only this process had; then what it has open
   * is closed, and what it holds let go of.
   */
  *#leave(party: Party): Sleeps<void> {
    const { kernel } = this.#state;
    yield* exitMm(kernel, party.mm);
    if (this.#pinned?.party === party) unpinUserPages(kernel, this.#pinned.pages);
    if (this.#pinned?.party === party) this.#pinned = null;
    if (this.#spliced?.party === party) putUserPages(kernel, this.#spliced.pages);
    if (this.#spliced?.party === party) this.#spliced = null;
    if (party === this.parent) yield* this.#closeUserfaultfd();
    for (const slot of party.slots) if (slot !== undefined) yield* slot.open.put();
  }

  /** A process opens only slots of its own, and each only while it is closed. */
  *#open(party: Party, { slot, dev }: Operation<'open'>): Sleeps<Fields> {
    if (slot < SLOTS_OF_ONE !== (party === this.parent)) return { slot: 'a slot of the other process' };
    if (party.slots[slot] !== undefined) return { slot: 'a slot that is open' };
    const mirror = yield* this.#state.devices[dev]!.driver.open(party.mm, { onFault: 'mirror' });
    party.slots[slot] = { device: dev, open: new OpenMirror(mirror) };
    return { errno: '0' };
  }

  *#close({ slots }: Party, at: number): Sleeps<Fields> {
    const slot = slots[at];
    if (slot === undefined) return { errno: 'EBADF', dev: -1 };
    slots[at] = undefined;
    yield* slot.open.put();
    return { errno: '0', dev: slot.device };
  }

  *#onMirror({ device: dev, open: { mirror } }: Slot, operation: MirrorOperation): Sleeps<Fields> {
    switch (operation.op) {
      case 'fail_alloc':
        mirror.failAlloc();
        return { dev, errno: '0', flags: 1 };
      case 'release_chunks':
        return { dev, ...errnoOf(yield* mirror.releaseChunks()) };
      default: {
        const start = this.addressOf(operation.pg);
        const end = (start + operation.n * PAGE_SIZE) as VirtAddr;
        const answer = yield* onRange(mirror, operation, start, end, this.#writes);
        answer.dev = dev;
        return answer;
      }
    }
  }

  *#pin(party: Party, { pg, n, write }: Operation<'pin'>): Sleeps<Fields> {
    if (this.#pinned !== null) return { errno: 'one pin at a time' };
    const flags = { write: write === 1, longterm: true };
    const pages = yield* pinUserPages(this.#state.kernel, party.mm, this.addressOf(pg), n, flags);
    if (typeof pages === 'string') return { errno: pages };
    this.#pinned = { party, pages };
    return { errno: '0' };
  }

  /** vmsplice into a pipe. */
  *#splice(party: Party, { pg, n }: Operation<'splice'>): Sleeps<Fields> {
    if (this.#spliced !== null) return { errno: 'one pipe at a time' };
    const pages = yield* getPagesInTurns(this.#state.kernel, party.mm, this.addressOf(pg), n, false);
    if (typeof pages === 'string') return { errno: pages, pages: 0 };
    this.#spliced = { party, pages };
    return { errno: '0', pages: pages.length };
  }

  /** What the holder of the pages sees, and the end of its hold. */
  #letGo(hold: Hold | null, release: typeof putUserPages): Fields {
    if (hold === null) return { errno: 'EINVAL' };
    const { kernel } = this.#state;
    const held = wordsOf(kernel, hold.pages);
    release(kernel, hold.pages);
    return { errno: '0', ...held };
  }

  #openFile(): TraceFile {
    if (this.#file === null)
      throw new PfnlessError('ERR_PFNLESS_FILE', 'The trace has no file: its header has no file_pages.');
    return this.#file;
  }

  *#closeUserfaultfd(): Sleeps<Result> {
    const open = this.#userfaultfd;
    if (open === null) return 'EBADF';
    this.#userfaultfd = null;
    yield* releaseUserfaultfd(this.#state.kernel, open);
    return 0;
  }

  /** What was moved out of the arena. */
  #mappingsElsewhere({ vmas }: MmStruct): number {
    const end = this.addressOf(this.#pages);
    return [...vmas].filter(({ start }) => start < this.#base || start >= end).length;
  }

  /** What /proc/kpageflags and /proc/kpagecount have of the pages that are present in RAM, -1 for the others. */
  #kpage(mm: MmStruct, { pg, n }: Operation<'kpage'>): Fields {
    const { kernel } = this.#state;
    const flags: number[] = [];
    const maps: number[] = [];
    for (let page = pg; page < pg + n; page++) {
      const entry = pagemapWord(kernel, mm, this.addressOf(page));
      const present = (entry & PAGEMAP_WORD.present.mask) !== 0n;
      const pfn = Number(entry & PAGEMAP_WORD.frame.mask);
      const word = present ? kpageflags(kernel, pfn, 1)[0] : undefined;
      flags.push(word === undefined ? -1 : Number(word & KPAGE_FLAGS));
      maps.push(word === undefined ? -1 : Number(kpagecount(kernel, pfn, 1)[0]!));
    }
    return { flags: runsOf(flags), maps: runsOf(maps) };
  }
}

/** What a mirror does with some pages. `k`: number of the write, if it is one. */
function* onRange(
  mirror: DriverMirror,
  operation: Extract<MirrorOperation, { pg: number }>,
  start: VirtAddr,
  end: VirtAddr,
  k: number,
): Sleeps<Fields> {
  const { n } = operation;
  switch (operation.op) {
    case 'migrate_to_dev': {
      const { errno } = yield* mirror.migrateToDevice(start, end);
      return errno === 0 ? withWords(mirror.peek(start, n)) : { errno };
    }
    case 'migrate_to_sys': {
      const { errno, folios } = yield* mirror.migrateToSystem(start, end);
      return errno === 0 ? { errno: '0', cpages: folios } : { errno };
    }
    case 'dev_read': {
      const access = yield* mirror.deviceRead(start, n);
      if (access.errno !== 0) return { errno: access.errno };
      const fields = withWords(access);
      fields.faults = access.faults;
      return fields;
    }
    case 'dev_write': {
      const { pg } = operation;
      const values = Array.from({ length: n }, (_, at) => BigInt(writtenWord(k, pg + at)));
      const { errno, cpages, faults } = yield* mirror.deviceWrite(start, n, values);
      return errno === 0 ? { errno: '0', cpages, faults } : { errno };
    }
    case 'exclusive': {
      const access = yield* mirror.exclusive(start, n);
      return access.errno === 0 ? withWords(access) : { errno: access.errno };
    }
    case 'check_exclusive':
      return errnoOf(mirror.checkExclusive(start, n));
    case 'snapshot': {
      const prot = yield* mirror.snapshot(start, end);
      return typeof prot === 'string' ? { errno: prot } : { errno: '0', cpages: n, prot: [...prot] };
    }
  }
}

const errnoOf = (result: Result): Fields => ({ errno: result === 0 ? '0' : result });

/** A successful access that read. */
function withWords({ cpages, words, torn }: AccessOutcome): Fields {
  return withTorn({ errno: '0', cpages, words: Array.from(words, Number) }, torn);
}
