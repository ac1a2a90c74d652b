/**
 * What a user of the test driver does with one open mirror: migrate, read, write, snapshot, launch. Linux: the ioctls of
 * lib/test_hmm.c, struct dmirror.
 */
import {
  isPageAligned,
  PAGE_SIZE,
  PMD_SIZE,
  PTRS_PER_TABLE,
  pageAlignDown,
  pageAlignUp,
  wraps,
} from '../abi/address.js';
import { type LaunchReport, type LaunchRequest, NO_LANE } from '../abi/control.js';
import { DEVICE_PTE_EXCLUSIVE, DEVICE_PTE_WRITE, devicePteMemory } from '../abi/device-pte.js';
import { ERRNO_NUMBER, type Errno, type Result } from '../abi/errno.js';
import { makeHmmPfns } from '../abi/hmm-pfn.js';
import { NULL_PAGE, type VirtAddr } from '../base/brand.js';
import { injects } from '../base/injection.js';
import { isHugeAligned } from '../mm/huge-pmd.js';
import { VM_READ, type VmArea, vmaLookup, vmaMayMigrate } from '../mm/vma.js';
import { type Sleeps, waitForPromise } from '../sync/task.js';
import type { DeviceLink } from '../transport/device-link.js';
import { CopyBatch } from './copy-batch.js';
import type { CopyTicket } from './device-queue.js';
import type { Dmirror } from './dmirror.js';
import type { AccessOutcome, DriverMirror, MigrateOutcome } from './driver.js';
import { takeExclusive } from './exclusive.js';
import { faultRange } from './fault-range.js';
import {
  beginToDevice,
  beginToSystem,
  endToDevice,
  endToSystem,
  MIGRATE_BATCH_PAGES,
  type Round,
  type TakenRange,
} from './migration.js';
import { awaitCopies, type MigrationContext, type Moved } from './migration-targets.js';
import { snapshotRange } from './snapshot.js';

/** What a mirror needs of its device. */
export interface MirroredDevice {
  readonly migration: MigrationContext;
  readonly link: DeviceLink;
  /** The device knows the mirror's address space when this returns. */
  bind(): Sleeps<void>;
  /** The mirror is closed. */
  release(): Sleeps<void>;
  releaseChunks(): Sleeps<Result>;
}

/** Pages that one call of `hmm_range_fault` is for: those that follow may be had although one of these may not. */
const FAULT_PAGES = 32;
/** 64-bit words of a page. */
const PAGE_WORDS = PAGE_SIZE / 8;

/** The two halves of a round, one way or the other. */
interface Direction {
  begin(vma: VmArea, start: number, end: number, batch: CopyBatch): Sleeps<Round>;
  /** Returns what moved. */
  end(round: Round): Sleeps<Moved>;
  /** When memory runs out, nothing after it is tried. */
  readonly stopsStarved: boolean;
}

/** A round whose pages the device copies. */
interface Flight {
  readonly round: Round;
  readonly ticket: CopyTicket;
  /** What is to be taken out of the mirror when its pages are in there. */
  readonly taken: Pick<TakenRange, 'start' | 'end'>[];
}

/**
 * Our rounds are longer than Linux's. What one of ours, which begins at `from`, took out of the mirror for the sake of a page: only what
 * Linux's rounds before that page's own have put in there.
 */
const beforeItsRound =
  (from: number) =>
  ({ start, end, page }: TakenRange): Pick<TakenRange, 'start' | 'end'> => ({
    start,
    end: Math.min(end, from + Math.floor(page / PTRS_PER_TABLE) * PMD_SIZE),
  });

export class TestHmmMirror implements DriverMirror {
  readonly context: number;
  readonly #device: MirroredDevice;
  readonly #dmirror: Dmirror;
  /** Memories as words, by number, made as they are met. */
  readonly #words: BigUint64Array[] = [];

  constructor(device: MirroredDevice, dmirror: Dmirror) {
    this.context = dmirror.context;
    this.#device = device;
    this.#dmirror = dmirror;
  }

  /** ENOENT: some page of the range is not mapped by the device afterwards; others may well have moved. */
  *migrateToDevice(start: VirtAddr, end: VirtAddr): Sleeps<MigrateOutcome> {
    const dmirror = this.#dmirror;
    const { migration } = this.#device;
    const outcome = yield* this.#migrate(start, end, {
      begin: (vma, from, to, batch) => beginToDevice(migration, dmirror, vma, from, to, batch),
      end: (round) => endToDevice(migration, dmirror, round),
      stopsStarved: false,
    });
    return outcome.errno === 0 && !dmirror.mapsAll(start, end) ? { ...outcome, errno: 'ENOENT' } : outcome;
  }

  /** Pages that are not on this device are passed over. ENOMEM: RAM ran out. */
  *migrateToSystem(start: VirtAddr, end: VirtAddr): Sleeps<MigrateOutcome> {
    const dmirror = this.#dmirror;
    const { migration } = this.#device;
    return yield* this.#migrate(start, end, {
      begin: (vma, from, to, batch) => beginToSystem(migration, dmirror, vma, from, to, NULL_PAGE, batch),
      end: (round) => endToSystem(migration, round),
      stopsStarved: true,
    });
  }

  /**
   * `dmirror_migrate_to_*()`: in rounds, VMA by VMA; EINVAL at the first hole or VMA that is unreadable or a driver's, what came before is done.
   * While the device copies one round, the next is collected.
   *
   * Linux's rounds are of 512 pages, and each ends before the next begins. So whatever a later one has taken out of the mirror was in there
   * by then: it is taken out again once it is.
   */
  *#migrate(start: VirtAddr, end: VirtAddr, direction: Direction): Sleeps<MigrateOutcome> {
    const requested = Math.max(0, (end - start) / PAGE_SIZE);
    const { migration } = this.#device;
    const { mm } = this.#dmirror;
    let errno: Result = isPageRange(start, requested) ? 0 : 'EINVAL';
    if (errno !== 0) return { errno, requested, collected: 0, migrated: 0, folios: 0 };
    let collected = 0;
    let migrated = 0;
    let folios = 0;
    let starved = false;
    let flying: Flight | null = null;
    yield* mm.mmapLock.downRead();
    try {
      for (let addr: number = start; addr < end || flying !== null; ) {
        const landing: Flight | null = flying;
        flying = null;
        const vma = addr < end ? vmaLookup(mm, addr) : undefined;
        if (vma !== undefined && (vma.flags & VM_READ) !== 0 && vmaMayMigrate(vma)) {
          // Several of Linux's make one where nobody can tell: none of them is ended by an allocation that fails, and all begin with a
          // leaf table (of which the rest is passed over where somebody holds a folio).
          const single = !isHugeAligned(addr) || (direction.stopsStarved && this.#dmirror.failAlloc);
          const stop = Math.min(end, vma.end, addr + (single ? PTRS_PER_TABLE : MIGRATE_BATCH_PAGES) * PAGE_SIZE);
          const batch = new CopyBatch();
          const round = yield* direction.begin(vma, addr, stop, batch);
          landing?.taken.push(...round.taken);
          flying = { round, ticket: yield* migration.queue.send(batch), taken: round.taken.map(beforeItsRound(addr)) };
          collected += round.collected;
          starved ||= round.starved;
          addr = direction.stopsStarved && starved ? end : stop;
        } else if (addr < end) {
          errno = 'EINVAL';
          addr = end;
        }
        if (landing === null) continue;
        yield* awaitCopies(migration, landing.ticket, [landing.round.args.dst], NULL_PAGE);
        const { args } = landing.round;
        const moved = yield* direction.end(landing.round);
        for (const taken of landing.taken)
          yield* this.#dmirror.forget(Math.max(taken.start, args.start), Math.min(taken.end, args.end));
        migrated += moved.pages;
        folios += moved.folios;
      }
    } finally {
      mm.mmapLock.upRead();
    }
    if (errno === 0 && starved && direction.stopsStarved) errno = 'ENOMEM';
    return { errno, requested, collected, migrated, folios };
  }

  deviceRead(start: VirtAddr, pages: number): Sleeps<AccessOutcome> {
    return this.#pages(start, pages, null);
  }

  deviceWrite(start: VirtAddr, pages: number, words: ArrayLike<bigint>): Sleeps<AccessOutcome> {
    return this.#pages(start, pages, words);
  }

  /** `dmirror_read()`, `dmirror_write()` in whole pages; `fill` is the word of each page to write, null to read. */
  *#pages(start: VirtAddr, pages: number, fill: ArrayLike<bigint> | null): Sleeps<AccessOutcome> {
    if (!isPageRange(start, pages)) return nothing('EINVAL');
    const words = new BigUint64Array(fill === null ? pages : 0);
    const end = start + pages * PAGE_SIZE;
    for (let cpages = 0, faults = 0, torn = 0; ; faults++) {
      for (; cpages < pages; cpages++) {
        const at = this.#pageWords(start + cpages * PAGE_SIZE, fill !== null);
        if (at === null) break;
        if (fill !== null) at.fill(fill[cpages]);
        else torn += readWord(at, words, cpages);
      }
      if (cpages === pages) return { errno: 0, cpages, faults, words, torn };
      const errno = yield* this.#fault(start + cpages * PAGE_SIZE, end, fill !== null);
      if (errno !== 0) return { errno, cpages, faults, words: words.subarray(0, fill === null ? cpages : 0), torn };
    }
  }

  peek(start: VirtAddr, pages: number): AccessOutcome {
    if (!isPageRange(start, pages)) return nothing('EINVAL');
    const words = new BigUint64Array(pages);
    let torn = 0;
    for (let cpages = 0; cpages < pages; cpages++) {
      const at = this.#pageWords(start + cpages * PAGE_SIZE, false);
      if (at === null) return { errno: 'ENOENT', cpages, faults: 0, words: words.subarray(0, cpages), torn };
      torn += readWord(at, words, cpages);
    }
    return { errno: 0, cpages: pages, faults: 0, words, torn };
  }

  /** The words of a page as the device's page table has it; `null` where it does not allow the access. */
  #pageWords(addr: number, write: boolean): BigUint64Array | null {
    const word = this.#dmirror.read(addr);
    if (!allows(word, write)) return null;
    const memory = devicePteMemory(word);
    const words = (this.#words[memory] ??= new BigUint64Array(this.#device.link.memories.memories[memory]!));
    const at = this.#dmirror.frameOf(addr) * PAGE_WORDS;
    return words.subarray(at, at + PAGE_WORDS);
  }

  /** `dmirror_exclusive()`. */
  *exclusive(start: VirtAddr, pages: number): Sleeps<AccessOutcome> {
    if (!isPageRange(start, pages)) return nothing('EINVAL');
    const dmirror = this.#dmirror;
    const { mm } = dmirror;
    yield* mm.mmapLock.downRead();
    try {
      for (let i = 0; i < pages; i++) {
        const errno = yield* takeExclusive(this.#device.migration, dmirror, (start + i * PAGE_SIZE) as VirtAddr);
        if (errno !== 0) return nothing(errno);
      }
    } finally {
      mm.mmapLock.upRead();
    }
    return this.peek(start, pages);
  }

  checkExclusive(start: VirtAddr, pages: number): Result {
    if (!isPageRange(start, pages)) return 'EINVAL';
    for (let i = 0; i < pages; i++) {
      if ((this.#dmirror.read(start + i * PAGE_SIZE) & DEVICE_PTE_EXCLUSIVE) !== 0) return 'EPERM';
    }
    return 0;
  }

  failAlloc(): void {
    this.#dmirror.failAlloc = true;
  }

  releaseChunks(): Sleeps<Result> {
    return this.#device.releaseChunks();
  }

  read(start: VirtAddr, out: Uint8Array): Sleeps<Result> {
    return this.#access(start, out.length, false, (memory, done) => {
      out.set(memory, done);
    });
  }

  write(start: VirtAddr, bytes: Uint8Array): Sleeps<Result> {
    return this.#access(start, bytes.length, true, (memory, done) => {
      memory.set(bytes.subarray(done, done + memory.length));
    });
  }

  /** `dmirror_read()`, `dmirror_write()`: through the device's page table; at a page that is missing, fault all the rest. */
  *#access(
    start: VirtAddr,
    length: number,
    write: boolean,
    /** Gets some bytes of one page, and how many came before them. */
    move: (memory: Uint8Array, done: number) => void,
  ): Sleeps<Result> {
    const dmirror = this.#dmirror;
    const { memories } = this.#device.link.memories;
    const end = start + length;
    for (let addr: number = start; addr < end; ) {
      const page = pageAlignDown(addr);
      const word = dmirror.read(page);
      if (!allows(word, write)) {
        const errno = yield* this.#fault(page, pageAlignUp(end), write);
        if (errno !== 0) return errno;
        continue;
      }
      const count = Math.min(end, page + PAGE_SIZE) - addr;
      const at = dmirror.frameOf(page) * PAGE_SIZE + (addr - page);
      move(new Uint8Array(memories[devicePteMemory(word)]!, at, count), addr - start);
      addr += count;
    }
    return 0;
  }

  /** `dmirror_fault()`. */
  *#fault(start: number, end: number, write: boolean): Sleeps<Result> {
    const { mmapLock } = this.#dmirror.mm;
    yield* mmapLock.downRead();
    try {
      for (let at = start; at < end; at += FAULT_PAGES * PAGE_SIZE) {
        const stop = Math.min(end, at + FAULT_PAGES * PAGE_SIZE);
        const errno = yield* faultRange(this.#device.migration, this.#dmirror, at, stop, write);
        if (errno !== 0) return errno;
      }
      return 0;
    } finally {
      mmapLock.upRead();
    }
  }

  *snapshot(start: VirtAddr, end: VirtAddr): Sleeps<Uint8Array | Errno> {
    const pages = (end - start) / PAGE_SIZE;
    if (!isPageRange(start, pages)) return 'EINVAL';
    const codes = new Uint8Array(pages);
    const errno = yield* snapshotRange(
      this.#device.migration,
      this.#dmirror.notifier,
      start,
      makeHmmPfns(pages),
      codes,
    );
    return errno === 0 ? codes : errno;
  }

  *launch(request: Omit<LaunchRequest, 'context'>): Sleeps<LaunchReport> {
    const { link } = this.#device;
    if (injects(this.#device.migration.kernel, 'link-error')) return lostLaunch(request);
    yield* this.#device.bind();
    const running = link.control.launch({ ...request, context: this.context });
    return yield* waitForPromise(`${request.program} on ${link.name}`, running);
  }

  close(): Sleeps<void> {
    return this.#device.release();
  }
}

/** The answer to a launch that never reached the device. */
const lostLaunch = ({ program }: Omit<LaunchRequest, 'context'>): LaunchReport => ({
  ...{ lanes: 0, faults: 0, parked: 0, operations: 0 },
  failure: {
    ...{ kind: 'fault', errno: ERRNO_NUMBER.EIO, address: 0, lane: NO_LANE },
    message: `${program} was lost on its way to the device`,
  },
});

/** What the ioctl takes: whole pages, at least one, and some address behind them. */
const isPageRange = (start: number, pages: number): boolean =>
  isPageAligned(start) && pages > 0 && !wraps(start, pages * PAGE_SIZE);

const nothing = (errno: Errno): AccessOutcome => ({
  errno,
  cpages: 0,
  faults: 0,
  words: new BigUint64Array(0),
  torn: 0,
});

/** The first word of a page, into `words`. Returns 1 if the last one is another. */
function readWord(page: BigUint64Array, words: BigUint64Array, i: number): number {
  words[i] = page[0];
  return page[0] === page[PAGE_WORDS - 1] ? 0 : 1;
}

/** Does the entry allow the driver's access? A page that is held exclusively is for atomics: a plain write gives it up. */
const allows = (word: number, write: boolean): boolean =>
  word !== 0 && (!write || (word & (DEVICE_PTE_WRITE | DEVICE_PTE_EXCLUSIVE)) === DEVICE_PTE_WRITE);
