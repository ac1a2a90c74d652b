/**
 * `struct mm_struct`: one address space. Linux: include/linux/mm_types.h, kernel/fork.c mm_init(), mm/mmap.c exit_mmap().
 *
 * Inside of the sleeping locks (sync/lock-order.ts) come notifiers' own waiting, then the folio lock, then a page table lock. Folio locks of
 * several folios are only ever tried, never waited for, while one is held.
 */
import { NULL_PAGE, type Page, type VirtAddr } from '../base/brand.js';
import { RangeTree } from '../base/range-tree.js';
import { RwSemaphore } from '../sync/rwsem.js';
import type { Sleeps } from '../sync/task.js';
import { putHugeZero } from './huge-zero.js';
import type { Kernel } from './kernel.js';
import { unmapRegion } from './mmap.js';
import { NotifierSubscriptions } from './mmu-notifier.js';
import { allocTable, freeTable } from './pgtable.js';
import type { VmArea } from './vma.js';

export class MmStruct {
  readonly pid: number;
  readonly mmapLock: RwSemaphore;
  /** guarded by mmap_lock */
  readonly vmas = new RangeTree<VmArea>();
  readonly notifiers = new NotifierSubscriptions();
  /** Top level table. */
  readonly pgd: Page;
  /** Anonymous pages mapped, device pages included (`MM_ANONPAGES`). */
  rssAnon = 0;
  /** Pages of shared anonymous memory mapped (`MM_SHMEMPAGES`). */
  rssShmem = 0;
  /** Pages of files and of drivers mapped (`MM_FILEPAGES`). */
  rssFile = 0;
  /** Entries that name a swap slot (`MM_SWAPENTS`). */
  swapents = 0;
  /** Pages of the hugetlb pool mapped, in pages of 4 KiB (`hugetlb_usage`); they are in no rss. */
  hugetlbUsage = 0;
  /** Page table pages, the top level included. */
  tables = 0;
  /** Has a reference on the huge zero page (huge-zero.ts). */
  usesHugeZero = false;
  /** There was a userfaultfd of it, or of whom it was forked from: entries may have its bit. */
  usesUserfaultfd = false;
  /** PR_MCE_KILL_EARLY: it wants to hear of memory that fails before it touches it. */
  killEarly = false;
  /** Addresses of which it has heard so (SIGBUS, BUS_MCEERR_AO), the oldest first. */
  readonly memoryErrors: VirtAddr[] = [];
  /** Address space is going away: `mm_users` reached zero. */
  exiting = false;
  /** Leaf table last walked to: its 2 MiB region, and the index of its first entry in RAM's words. */
  cachedRegion = -1;
  cachedTable = -1;

  constructor(pid: number, pgd: Page) {
    this.pid = pid;
    this.pgd = pgd;
    this.mmapLock = new RwSemaphore(`mmap_lock of process ${pid}`, 'mmap_lock');
  }
}

/** A new, empty address space; `undefined` when there is no page for its top level table (ENOMEM). */
export function createMm(kernel: Kernel, pid: number): MmStruct | undefined {
  const pgd = allocTable(kernel);
  if (pgd === NULL_PAGE) return undefined;
  const mm = new MmStruct(pid, pgd);
  mm.tables = 1;
  kernel.mms.add(mm);
  return mm;
}

/** The address space of the process with this number, while it has one. */
export function mmOfPid({ mms }: Kernel, pid: number): MmStruct | undefined {
  for (const mm of mms) if (mm.pid === pid) return mm;
  return undefined;
}

/** `exit_mmap()`: unmap everything and give the page tables back. Idempotent. */
export function* exitMm(kernel: Kernel, mm: MmStruct): Sleeps<void> {
  if (mm.exiting) return;
  mm.exiting = true;
  yield* mm.mmapLock.downWrite();
  for (const { start, end } of [...mm.vmas]) yield* unmapRegion(kernel, mm, start, end);
  mm.mmapLock.upWrite();
  putHugeZero(kernel, mm);
  freeTable(kernel, mm.pgd);
  mm.tables--;
  kernel.mms.delete(mm);
}
