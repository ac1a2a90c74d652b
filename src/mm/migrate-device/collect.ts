/**
 * Phase 1a, **collect**: find the pages of a range, lock them, take them out of the page table. Linux: migrate_vma_collect().
 * Huge pages (migrate_vma_collect_huge_pmd) come with the 2 MiB folios.
 */
import { PAGE_SIZE } from '../../abi/address.js';
import { MIGRATE_PFN_MIGRATE, MIGRATE_PFN_WRITE, migratePfn, mpfnSet } from '../../abi/mpfn.js';
import {
  halvesNumber,
  halvesPfn,
  highType,
  LOW_DIRTY,
  LOW_SPECIAL,
  LOW_WRITE,
  lowPresent,
} from '../../abi/pte-halves.js';
import { PAGE_FLAGS } from '../../abi/struct-page.js';
import { type Mpfn, NULL_PAGE, type Page, type Pfn, type VirtAddr } from '../../base/brand.js';
import { folioTrylock, folioUnlock } from '../../sync/page-ref.js';
import { SCHEDULE_POINT, type Sleeps } from '../../sync/task.js';
import { getAndClearPteLow, load32 } from '../../sync/word.js';
import type { Kernel } from '../kernel.js';
import { setMigrationEntry } from '../migrate.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from '../mmu-notifier.js';
import {
  isDeviceCoherentPage,
  isZoneDevicePage,
  pageClearFlag,
  pageHasMapping,
  pageMaybeDmaPinned,
  pagePgmapId,
  pageSetFlag,
  pageTestFlag,
} from '../page.js';
import { leafTable, lockTable, NO_TABLE, nextLeaf, nextMappedLeaf, pteIndex, unlockTable } from '../pgtable.js';
import { pageRemoveRmap } from '../rmap.js';
import { isDevicePrivate } from '../softleaf.js';
import { flushTlbRange } from '../tlbflush.js';
import { vmaIsAnonymous } from '../vma.js';
import {
  MIGRATE_VMA_SELECT_DEVICE_COHERENT,
  MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
  MIGRATE_VMA_SELECT_SYSTEM,
  type MigrateVma,
} from './args.js';

const { PG_anon_exclusive, PG_dirty } = PAGE_FLAGS;
/** Word of a hole: nothing to copy, but the driver may put a page there. */
const HOLE = MIGRATE_PFN_MIGRATE as Mpfn;
const NOTHING = 0 as Mpfn;

export function* migrateVmaCollect(kernel: Kernel, args: MigrateVma): Sleeps<void> {
  const { vma, start, end, pgmapOwner } = args;
  const range: MmuNotifierRange = { mm: vma.mm, start, end, event: 'MMU_NOTIFY_MIGRATE', owner: pgmapOwner };
  yield* mmuNotifierInvalidateRangeStart(range);
  for (let at: number = start; at < end; ) {
    const mapped = nextMappedLeaf(kernel, vma.mm, at, end);
    collectHole(args, (mapped - at) / PAGE_SIZE);
    if (mapped >= end) break;
    const stop = Math.min(nextLeaf(mapped), end);
    collectTable(kernel, args, mapped as VirtAddr, stop);
    at = stop;
    if (kernel.options.preempt()) yield SCHEDULE_POINT;
  }
  mmuNotifierInvalidateRangeEnd(range);
}

/** No page table at all: holes of anonymous memory can be populated on the device directly. */
function collectHole(args: MigrateVma, pages: number): void {
  if (!vmaIsAnonymous(args.vma)) {
    args.npages += pages;
    return;
  }
  args.src.fill(HOLE, args.npages, args.npages + pages);
  args.npages += pages;
  args.cpages += pages;
}

/** `migrate_vma_collect_pmd()`: the entries of one leaf table, under its lock. */
function collectTable(kernel: Kernel, args: MigrateVma, from: VirtAddr, stop: number): void {
  const table = leafTable(kernel, args.vma.mm, from);
  if (table === NO_TABLE) return;
  const { halves } = kernel.ram;
  let flush = false;
  lockTable(kernel, table);
  for (let addr: number = from, at = table + pteIndex(from); addr < stop; addr += PAGE_SIZE, at++) {
    const low = load32(halves, 2 * at);
    let mpfn = selectPte(kernel, args, low, load32(halves, 2 * at + 1));
    if (mpfn !== HOLE && mpfn !== NOTHING) {
      if (takePage(kernel, args, at, low, mpfn)) {
        args.cpages++;
        flush ||= lowPresent(low);
      } else {
        mpfn = NOTHING;
      }
    } else if (mpfn === HOLE) {
      args.cpages++;
    }
    args.src[args.npages++] = mpfn;
  }
  // Before the lock is dropped: whoever finds the migration entry must not race a CPU that still has the old translation.
  if (flush) flushTlbRange(kernel, args.vma.mm, from, stop as VirtAddr);
  unlockTable(kernel, table);
}

/** Word of what an entry (given by its halves) maps if the caller selected it, HOLE, or NOTHING. */
function selectPte(kernel: Kernel, args: MigrateVma, low: number, high: number): Mpfn {
  const { flags, pgmapOwner, vma } = args;
  const { addressing, memmap } = kernel;
  if ((low | high) === 0) return vmaIsAnonymous(vma) ? HOLE : NOTHING;
  if (lowPresent(low)) {
    if ((low & LOW_SPECIAL) !== 0) return (flags & MIGRATE_VMA_SELECT_SYSTEM) !== 0 ? HOLE : NOTHING;
    const pfn = halvesPfn(low, high) as Pfn;
    if (!selectsPresent(kernel, memmap.pfnToPage(pfn), flags, pgmapOwner)) return NOTHING;
    return mpfnSet(migratePfn(pfn), MIGRATE_PFN_MIGRATE | ((low & LOW_WRITE) !== 0 ? MIGRATE_PFN_WRITE : 0));
  }
  if ((flags & MIGRATE_VMA_SELECT_DEVICE_PRIVATE) === 0) return NOTHING;
  const type = highType(high);
  const kind = addressing.swapTypes.kindOf[type];
  if (!isDevicePrivate(kind)) return NOTHING;
  const page = addressing.leafToPage(type, halvesNumber(low, high));
  if (kernel.pagemaps.get(pagePgmapId(memmap.words, page))?.owner !== pgmapOwner) return NOTHING;
  const write = kind === 'device-private-write' ? MIGRATE_PFN_WRITE : 0;
  return mpfnSet(addressing.migratePfnFromPage(page), MIGRATE_PFN_MIGRATE | write);
}

function selectsPresent(kernel: Kernel, page: Page, flags: number, owner: object | null): boolean {
  const { words } = kernel.memmap;
  if (!isZoneDevicePage(words, page)) return (flags & MIGRATE_VMA_SELECT_SYSTEM) !== 0;
  return (
    isDeviceCoherentPage(words, page) &&
    (flags & MIGRATE_VMA_SELECT_DEVICE_COHERENT) !== 0 &&
    kernel.pagemaps.get(pagePgmapId(words, page))?.owner === owner
  );
}

/**
 * Lock the page and put a migration entry where it was mapped. Linux takes a reference before it tries the lock and drops
 * the mapping's reference afterwards; the two cancel out, so the mapping's reference simply becomes the migration's.
 */
function takePage(kernel: Kernel, args: MigrateVma, at: number, seenLow: number, mpfn: Mpfn): boolean {
  const { words } = kernel.memmap;
  const page = kernel.addressing.migratePfnToPage(mpfn);
  if (page === NULL_PAGE || !pageHasMapping(words, page)) return false;
  // The fault that asks for this migration has locked its page already.
  if (page !== args.faultPage && !folioTrylock(words, page)) return false;
  const exclusive = pageTestFlag(words, page, PG_anon_exclusive);
  // Hardware may set accessed and dirty until the entry is cleared, so the exchanged value counts, not the one read before.
  const present = lowPresent(seenLow);
  if (exclusive && present && pageMaybeDmaPinned(words, page)) {
    // folio_try_share_anon_rmap_pte(): a pinned page must not lose that it is exclusive, even for the time of a migration.
    if (page !== args.faultPage) folioUnlock(words, page);
    return false;
  }
  const low = present ? getAndClearPteLow(kernel.ram.words, at) : seenLow;
  if (present && (low & LOW_DIRTY) !== 0) pageSetFlag(words, page, PG_dirty);
  if (exclusive) pageClearFlag(words, page, PG_anon_exclusive);
  setMigrationEntry(kernel, at, page, low, (mpfn & MIGRATE_PFN_WRITE) !== 0, exclusive);
  pageRemoveRmap(kernel, page);
  return true;
}
