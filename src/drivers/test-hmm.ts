/**
 * The test driver: what Linux's lib/test_hmm.c owes its users, with real device memory behind it.
 *
 * One `TestHmm` a device (struct dmirror_device); `open` makes a mirror of an address space (struct dmirror, an open file of
 * /dev/hmm_dmirrorN). Not modelled yet: coherent memory, exclusive access, huge pages, forced allocation failure.
 */
import { PAGE_SIZE, pageAlignDown, pageAlignUp, TASK_SIZE } from '../abi/address.js';
import type { LaunchReport, LaunchRequest } from '../abi/control.js';
import { DEVICE_PTE_WRITE, devicePteMemory, type MemoryId } from '../abi/device-pte.js';
import type { Errno, Result } from '../abi/errno.js';
import { HMM_PFN_ERROR, HMM_PFN_VALID, HMM_PFN_WRITE } from '../abi/hmm-pfn.js';
import { type HmmPfn, NULL_PAGE, type VirtAddr } from '../base/brand.js';
import { PfnlessError } from '../base/errors.js';
import { DevicePageTables } from '../device/page-table.js';
import { hmmRangeFault } from '../mm/hmm.js';
import type { Kernel } from '../mm/kernel.js';
import type { MmStruct } from '../mm/mm-struct.js';
import { mmuIntervalReadBegin } from '../mm/mmu-notifier.js';
import { isDevicePrivatePage } from '../mm/page.js';
import { VM_READ, type VmArea, vmaLookup } from '../mm/vma.js';
import { type Sleeps, waitForPromise } from '../sync/task.js';
import type { DeviceLink } from '../transport/device-link.js';
import { CopyBatch } from './copy-batch.js';
import { DeviceMemory } from './device-memory.js';
import { type CopyTicket, DeviceQueue } from './device-queue.js';
import { Dmirror } from './dmirror.js';
import type { DeviceDriver, DriverInspection, DriverMirror, DriverStats, MigrateOutcome } from './driver.js';
import { faultRange } from './fault-range.js';
import { FaultService, type ServedMirror } from './fault-service.js';
import {
  awaitCopies,
  beginToDevice,
  beginToSystem,
  endToDevice,
  endToSystem,
  evict,
  MIGRATE_BATCH_PAGES,
  type MigrationContext,
  migrateToRam,
  type Round,
} from './migration.js';

/** HMM_DMIRROR_PROT_*: what a snapshot says of a page. Linux: lib/test_hmm_uapi.h. */
export const DMIRROR_PROT = Object.freeze({
  NONE: 0x00,
  READ: 0x01,
  WRITE: 0x02,
  PMD: 0x04,
  PUD: 0x08,
  ZERO: 0x10,
  DEV_PRIVATE_LOCAL: 0x20,
  DEV_PRIVATE_REMOTE: 0x30,
  DEV_COHERENT_LOCAL: 0x40,
  DEV_COHERENT_REMOTE: 0x50,
  ERROR: 0xff,
});

export interface TestHmmOptions {
  readonly kernel: Kernel;
  readonly link: DeviceLink;
  readonly name: string;
  /** Bytes of device memory, and bytes by which its pagemaps grow. */
  readonly memory: number;
  readonly chunk: number;
  readonly numaNode: number;
  readonly memoryId: MemoryId;
}

export function createTestHmm(options: TestHmmOptions): DeviceDriver {
  return new TestHmm(options);
}

class TestHmm implements DeviceDriver {
  readonly name: string;
  readonly kernel: Kernel;
  readonly link: DeviceLink;
  readonly memory: DeviceMemory;
  readonly queue: DeviceQueue;
  readonly tables: DevicePageTables;
  readonly memoryId: MemoryId;
  /** Identity in notifications and pagemaps. */
  readonly owner: object = {};
  readonly migration: MigrationContext;
  readonly mirrors = new Map<number, ServedMirror>();
  readonly #faultService: FaultService;
  #nextContext = 1;
  #evicted = 0;

  constructor(options: TestHmmOptions) {
    const { kernel, link, memoryId } = options;
    this.name = options.name;
    this.kernel = kernel;
    this.link = link;
    this.memoryId = memoryId;
    this.queue = new DeviceQueue(link);
    this.tables = new DevicePageTables(link.memories.pageTables);
    this.memory = new DeviceMemory({
      kernel,
      name: options.name,
      owner: this.owner,
      ops: { migrateToRam: (fault) => migrateToRam(this.migration, fault) },
      bytes: options.memory,
      chunkBytes: options.chunk,
      numaNode: options.numaNode,
    });
    this.migration = {
      kernel,
      memory: this.memory,
      memoryId,
      queue: this.queue,
      owner: this.owner,
      mirrorOf: (vma) => this.mirrorOf(vma.mm),
      countEvicted: (pages) => {
        this.#evicted += pages;
      },
    };
    this.#faultService = new FaultService(this.migration, link, this.mirrors);
  }

  probe(): Result {
    return this.memory.grow();
  }

  serveFaults(): Sleeps<never> {
    return this.#faultService.serve();
  }

  /** @throws PfnlessError ERR_PFNLESS_ARGUMENT when the process has this device open; ERR_PFNLESS_ERRNO without table memory */
  *open(mm: MmStruct, { onFault }: { readonly onFault: 'migrate' | 'mirror' }): Sleeps<DriverMirror> {
    if (this.mirrorOf(mm) !== undefined) {
      throw new PfnlessError(
        'ERR_PFNLESS_ARGUMENT',
        `Process ${mm.pid} has ${this.name} open already; close that mirror first.`,
      );
    }
    const root = this.tables.createContext();
    if (root === undefined) {
      throw new PfnlessError('ERR_PFNLESS_ERRNO', `${this.name} has no memory left for page tables.`, {
        errno: 'ENOMEM',
      });
    }
    const context = this.#nextContext++;
    const { tables, queue, owner, memoryId: ownMemory } = this;
    const dmirror = new Dmirror({ mm, context, root, tables, queue, owner, ownMemory });
    this.mirrors.set(context, { dmirror, onFault });
    try {
      yield* waitForPromise(`${this.name} to take a new context`, this.link.control.bindContext(context, root));
    } catch (reason) {
      yield* this.#forget(dmirror);
      throw reason;
    }
    return new TestHmmMirror(this, dmirror);
  }

  /**
   * Last close of a mirror: as Linux's test driver does, everything on the device goes home, of every process.
   *
   * The device drops the context before the notifier goes: a device that nobody tells of invalidations must not walk.
   */
  *release(dmirror: Dmirror): Sleeps<void> {
    yield* dmirror.quiesce();
    if (this.link.lost === null) {
      yield* this.evictAll();
      const unbound = this.link.control.unbindContext(dmirror.context);
      // It may die meanwhile: then it walks nothing either.
      yield* waitForPromise(
        `${this.name} to drop a context`,
        unbound.catch(() => {}),
      );
    }
    yield* this.#forget(dmirror);
  }

  /** Precondition: the device does not walk the mirror's tables, and serves no fault with them. */
  *#forget(dmirror: Dmirror): Sleeps<void> {
    yield* dmirror.unregister();
    this.mirrors.delete(dmirror.context);
    this.tables.destroyContext(dmirror.root);
  }

  /** Evict every page once: pages that somebody holds stay, and others may come back behind us. Returns how many moved. */
  *evictAll(): Sleeps<number> {
    let moved = 0;
    for (const { first, pages } of this.memory.usedBlocks()) moved += yield* evict(this.migration, first, pages);
    return moved;
  }

  *remove(): Sleeps<void> {
    this.memory.close();
    while ((yield* this.evictAll()) > 0);
    yield* this.memory.remove();
  }

  stats(): DriverStats {
    return {
      deviceFaults: this.#faultService.faults,
      faultBatches: this.#faultService.batches,
      evicted: this.#evicted,
      usedPages: this.memory.usedPages,
      freePages: this.memory.totalPages - this.memory.usedPages,
    };
  }

  inspect(): DriverInspection {
    return {
      contexts: Array.from(this.mirrors.values(), ({ dmirror: { mm, root } }) => ({ mm, root })),
      frameOf: (page) => (this.memory.owns(page) ? this.memory.frameOf(page) : null),
    };
  }

  mirrorOf(mm: MmStruct): Dmirror | undefined {
    for (const { dmirror } of this.mirrors.values()) if (dmirror.mm === mm) return dmirror;
    return undefined;
  }
}

/** The two halves of a round, one way or the other. */
interface Direction {
  begin(vma: VmArea, start: number, end: number, batch: CopyBatch): Sleeps<Round>;
  /** Returns the pages that moved. */
  end(round: Round): Sleeps<number>;
}

class TestHmmMirror implements DriverMirror {
  readonly context: number;
  readonly #device: TestHmm;
  readonly #dmirror: Dmirror;

  constructor(device: TestHmm, dmirror: Dmirror) {
    this.context = dmirror.context;
    this.#device = device;
    this.#dmirror = dmirror;
  }

  /** ENOENT: some page of the range is not mapped by the device afterwards; others may well have moved. */
  *migrateToDevice(start: VirtAddr, end: VirtAddr): Sleeps<MigrateOutcome> {
    const dmirror = this.#dmirror;
    const { migration } = this.#device;
    const { starved: _, ...outcome } = yield* this.#migrate(start, end, {
      begin: (vma, from, to, batch) => beginToDevice(migration, vma, from, to, batch),
      end: (round) => endToDevice(migration, dmirror, round),
    });
    if (outcome.errno !== 0) return outcome;
    for (let addr: number = start; addr < end; addr += PAGE_SIZE) {
      if (dmirror.read(addr) === 0) return { ...outcome, errno: 'ENOENT' };
    }
    return outcome;
  }

  /** Pages that are not on this device are passed over. ENOMEM: RAM ran out. */
  *migrateToSystem(start: VirtAddr, end: VirtAddr): Sleeps<MigrateOutcome> {
    const { migration } = this.#device;
    const { starved, ...outcome } = yield* this.#migrate(start, end, {
      begin: (vma, from, to, batch) => beginToSystem(migration, vma, from, to, NULL_PAGE, batch),
      end: (round) => endToSystem(migration, round),
    });
    return outcome.errno === 0 && starved ? { ...outcome, errno: 'ENOMEM' } : outcome;
  }

  /**
   * `dmirror_migrate_to_*()`: in rounds, VMA by VMA; EINVAL at the first hole or unreadable VMA, what came before is done.
   * While the device copies one round, the next is collected.
   */
  *#migrate(
    start: VirtAddr,
    end: VirtAddr,
    direction: Direction,
  ): Sleeps<MigrateOutcome & { readonly starved: boolean }> {
    const requested = Math.max(0, (end - start) / PAGE_SIZE);
    const { migration } = this.#device;
    const { mm } = this.#dmirror;
    let errno: Result = end > start ? 0 : 'EINVAL';
    let collected = 0;
    let migrated = 0;
    let starved = false;
    let flying: { readonly round: Round; readonly ticket: CopyTicket } | null = null;
    yield* mm.mmapLock.downRead();
    try {
      for (let addr: number = start; addr < end || flying !== null; ) {
        const landing: typeof flying = flying;
        flying = null;
        const vma = addr < end ? vmaLookup(mm, addr) : undefined;
        if (vma !== undefined && (vma.flags & VM_READ) !== 0) {
          const stop = Math.min(end, vma.end, addr + MIGRATE_BATCH_PAGES * PAGE_SIZE);
          const batch = new CopyBatch();
          const round = yield* direction.begin(vma, addr, stop, batch);
          flying = { round, ticket: yield* migration.queue.send(batch) };
          collected += round.collected;
          starved ||= round.starved;
          addr = stop;
        } else if (addr < end) {
          errno = 'EINVAL';
          addr = end;
        }
        if (landing === null) continue;
        yield* awaitCopies(migration, landing.ticket, [landing.round.args.dst], NULL_PAGE);
        migrated += yield* direction.end(landing.round);
      }
    } finally {
      mm.mmapLock.upRead();
    }
    return { errno, requested, collected, migrated, starved };
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
      if (word === 0 || (write && (word & DEVICE_PTE_WRITE) === 0)) {
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

  *#fault(start: number, end: number, write: boolean): Sleeps<Result> {
    const { mmapLock } = this.#dmirror.mm;
    yield* mmapLock.downRead();
    try {
      return yield* faultRange(this.#device.migration, this.#dmirror, start, end, write);
    } finally {
      mmapLock.upRead();
    }
  }

  *snapshot(start: VirtAddr, end: VirtAddr): Sleeps<Uint8Array | Errno> {
    if (start < 0 || end > TASK_SIZE || end <= start) return 'EINVAL';
    const { kernel, owner } = this.#device;
    const { notifier, mm } = this.#dmirror;
    const hmmPfns = new BigUint64Array((end - start) / PAGE_SIZE);
    yield* mm.mmapLock.downRead();
    try {
      for (;;) {
        const notifierSeq = yield* mmuIntervalReadBegin(notifier);
        hmmPfns.fill(0n);
        const outcome = yield* hmmRangeFault(kernel, {
          notifier,
          notifierSeq,
          start,
          end,
          hmmPfns,
          defaultFlags: 0n,
          pfnFlagsMask: 0n,
          devPrivateOwner: owner,
        });
        if (outcome === 'EBUSY') continue;
        if (outcome !== 0) return outcome;
        return Uint8Array.from(hmmPfns, (pfn) => this.#snapshotCode(pfn as HmmPfn));
      }
    } finally {
      mm.mmapLock.upRead();
    }
  }

  /** `dmirror_mkentry()`. */
  #snapshotCode(pfn: HmmPfn): number {
    const { kernel } = this.#device;
    if ((pfn & HMM_PFN_ERROR) !== 0n) return DMIRROR_PROT.ERROR;
    if ((pfn & HMM_PFN_VALID) === 0n) return DMIRROR_PROT.NONE;
    const access = (pfn & HMM_PFN_WRITE) !== 0n ? DMIRROR_PROT.WRITE : DMIRROR_PROT.READ;
    const page = kernel.addressing.hmmPfnToPage(pfn);
    if (isDevicePrivatePage(kernel.memmap.words, page)) return access | DMIRROR_PROT.DEV_PRIVATE_LOCAL;
    return page === kernel.zeroPage ? access | DMIRROR_PROT.ZERO : access;
  }

  *launch(request: Omit<LaunchRequest, 'context'>): Sleeps<LaunchReport> {
    const { link } = this.#device;
    const running = link.control.launch({ ...request, context: this.context });
    return yield* waitForPromise(`${request.program} on ${link.name}`, running);
  }

  close(): Sleeps<void> {
    return this.#device.release(this.#dmirror);
  }
}
