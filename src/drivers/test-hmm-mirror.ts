/**
 * What a user of the test driver does with one open mirror: migrate, read, write, snapshot, launch. Linux: the ioctls of
 * lib/test_hmm.c, struct dmirror.
 */
import { PAGE_SIZE, pageAlignDown, pageAlignUp, TASK_SIZE } from '../abi/address.js';
import type { LaunchReport, LaunchRequest } from '../abi/control.js';
import { DEVICE_PTE_WRITE, devicePteMemory } from '../abi/device-pte.js';
import { DMIRROR_PROT } from '../abi/dmirror.js';
import type { Errno, Result } from '../abi/errno.js';
import { HMM_PFN_ERROR, HMM_PFN_VALID, HMM_PFN_WRITE } from '../abi/hmm-pfn.js';
import { type HmmPfn, NULL_PAGE, type VirtAddr } from '../base/brand.js';
import { hmmRangeFault } from '../mm/hmm.js';
import { mmuIntervalReadBegin } from '../mm/mmu-notifier.js';
import { isDevicePrivatePage } from '../mm/page.js';
import { VM_READ, type VmArea, vmaLookup } from '../mm/vma.js';
import { type Sleeps, waitForPromise } from '../sync/task.js';
import type { DeviceLink } from '../transport/device-link.js';
import { CopyBatch } from './copy-batch.js';
import type { CopyTicket } from './device-queue.js';
import type { Dmirror } from './dmirror.js';
import type { DriverMirror, MigrateOutcome } from './driver.js';
import { faultRange } from './fault-range.js';
import {
  awaitCopies,
  beginToDevice,
  beginToSystem,
  endToDevice,
  endToSystem,
  MIGRATE_BATCH_PAGES,
  type MigrationContext,
  type Round,
} from './migration.js';

/** What a mirror needs of its device. */
export interface MirroredDevice {
  readonly migration: MigrationContext;
  readonly link: DeviceLink;
  /** The mirror is closed. */
  release(): Sleeps<void>;
}

/** The two halves of a round, one way or the other. */
interface Direction {
  begin(vma: VmArea, start: number, end: number, batch: CopyBatch): Sleeps<Round>;
  /** Returns the pages that moved. */
  end(round: Round): Sleeps<number>;
}

export class TestHmmMirror implements DriverMirror {
  readonly context: number;
  readonly #device: MirroredDevice;
  readonly #dmirror: Dmirror;

  constructor(device: MirroredDevice, dmirror: Dmirror) {
    this.context = dmirror.context;
    this.#device = device;
    this.#dmirror = dmirror;
  }

  /** ENOENT: some page of the range is not mapped by the device afterwards; others may well have moved. */
  *migrateToDevice(start: VirtAddr, end: VirtAddr): Sleeps<MigrateOutcome> {
    const dmirror = this.#dmirror;
    const { migration } = this.#device;
    const { starved: _, ...outcome } = yield* this.#migrate(start, end, {
      begin: (vma, from, to, batch) => beginToDevice(migration, dmirror, vma, from, to, batch),
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
    const dmirror = this.#dmirror;
    const { migration } = this.#device;
    const { starved, ...outcome } = yield* this.#migrate(start, end, {
      begin: (vma, from, to, batch) => beginToSystem(migration, dmirror, vma, from, to, NULL_PAGE, batch),
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
    const { kernel, owner } = this.#device.migration;
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
    const { kernel } = this.#device.migration;
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
    return this.#device.release();
  }
}
