/**
 * Phase 1a, **collect**: find the pages of a range, lock them, take them out of the page table. Linux: migrate_vma_collect().
 */
import { HPAGE_PMD_NR, PAGE_SIZE } from '../../abi/address.js';
import {
  MIGRATE_PFN_COMPOUND,
  MIGRATE_PFN_DEVICE_PRIVATE,
  MIGRATE_PFN_MIGRATE,
  MIGRATE_PFN_WRITE,
  migratePfn,
  mpfnClear,
  mpfnSet,
} from '../../abi/mpfn.js';
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
import { injects } from '../../base/injection.js';
import { folioHead, folioTrylock, folioUnlock, pageRefAdd } from '../../sync/page-ref.js';
import { SCHEDULE_POINT, type Sleeps } from '../../sync/task.js';
import { getAndClearPteLow, peek32 } from '../../sync/word.js';
import { findHugePmd, isHugeZero, setPmdMigrationEntry } from '../huge-pmd.js';
import type { Kernel } from '../kernel.js';
import { setMigrationEntry } from '../migration-entry.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from '../mmu-notifier.js';
import {
  isDeviceCoherentPage,
  isLargeFolio,
  isZoneDevicePage,
  pageClearFlag,
  pageHasMapping,
  pageMarkDirty,
  pageMaybeDmaPinned,
  pagePgmapId,
  pageTestFlag,
} from '../page.js';
import {
  leafTable,
  lockTable,
  NO_TABLE,
  nextLeaf,
  nextMappedLeaf,
  pteIndex,
  tableOf,
  unlockTable,
} from '../pgtable.js';
import { putPage } from '../put-page.js';
import { pageRemoveRmap } from '../rmap.js';
import { isDevicePrivate } from '../softleaf.js';
import { splitFolio } from '../split-folio.js';
import { flushTlbRange } from '../tlbflush.js';
import { vmaIsAnonymous } from '../vma.js';
import {
  MIGRATE_VMA_SELECT_COMPOUND,
  MIGRATE_VMA_SELECT_DEVICE_COHERENT,
  MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
  MIGRATE_VMA_SELECT_SYSTEM,
  type MigrateVma,
} from './args.js';

const { PG_anon_exclusive } = PAGE_FLAGS;
/** Word of a hole: nothing to copy, but the driver may put a page there. */
const HOLE = MIGRATE_PFN_MIGRATE as Mpfn;
const NOTHING = 0 as Mpfn;

export function* migrateVmaCollect(kernel: Kernel, args: MigrateVma): Sleeps<void> {
  const { vma, start, end, pgmapOwner } = args;
  const range: MmuNotifierRange = { mm: vma.mm, start, end, event: 'MMU_NOTIFY_MIGRATE', owner: pgmapOwner };
  yield* mmuNotifierInvalidateRangeStart(range);
  for (let at: number = start; at < end; ) {
    const mapped = nextMappedLeaf(kernel, vma.mm, at, end);
    collectHoles(args, at, mapped);
    if (mapped >= end) break;
    const stop = Math.min(nextLeaf(mapped), end);
    const faultFolio = folioOfFault(kernel, args);
    const small = leafTable(kernel, vma.mm, mapped as VirtAddr) !== NO_TABLE;
    if (small || !(yield* collectHuge(kernel, args, mapped as VirtAddr, stop))) {
      yield* collectTable(kernel, args, mapped as VirtAddr, stop, faultFolio);
    }
    at = stop;
    if (kernel.options.preempt()) yield SCHEDULE_POINT;
  }
  mmuNotifierInvalidateRangeEnd(range);
}

/** No page table at all in [start, end). */
function collectHoles(args: MigrateVma, start: number, end: number): void {
  for (let at = start; at < end; ) {
    const stop = Math.min(nextLeaf(at), end);
    collectHole(args, (stop - at) / PAGE_SIZE);
    at = stop;
  }
}

/** Does the caller want 2 MiB as one, and are these `pages` all of them? */
const wantsCompound = ({ flags }: MigrateVma, pages: number): boolean =>
  (flags & MIGRATE_VMA_SELECT_COMPOUND) !== 0 && pages === HPAGE_PMD_NR;

/** Holes of anonymous memory can be populated on the device directly. */
function collectHole(args: MigrateVma, pages: number): void {
  if (!vmaIsAnonymous(args.vma)) {
    args.npages += pages;
  } else if (wantsCompound(args, pages)) {
    args.src[args.npages] = MIGRATE_PFN_MIGRATE | MIGRATE_PFN_COMPOUND;
    args.npages += pages;
    args.cpages++;
  } else {
    args.src.fill(HOLE, args.npages, args.npages + pages);
    args.npages += pages;
    args.cpages += pages;
  }
}

/**
 * `migrate_vma_collect_huge_pmd()`: the folio behind a huge entry, as one if the caller wants all of it; else it is split.
 * False: small entries stand there by now.
 */
function* collectHuge(kernel: Kernel, args: MigrateVma, from: VirtAddr, stop: number): Sleeps<boolean> {
  const { words } = kernel.memmap;
  const { vma } = args;
  const pages = (stop - from) / PAGE_SIZE;
  const at = findHugePmd(kernel, vma.mm, from);
  const low = peek32(kernel.ram.halves, 2 * at);
  const high = peek32(kernel.ram.halves, 2 * at + 1);
  if (lowPresent(low) && isHugeZero(low) && (args.flags & MIGRATE_VMA_SELECT_SYSTEM) !== 0) {
    collectHole(args, pages);
    return true;
  }
  const mpfn = selectPte(kernel, args, low, high);
  const page = kernel.addressing.migratePfnToPage(mpfn);
  if (page === NULL_PAGE || (page !== folioOfFault(kernel, args) && !folioTrylock(words, page))) {
    args.npages += pages;
    return true;
  }
  if (wantsCompound(args, pages)) {
    lockTable(kernel, tableOf(at));
    const taken = setPmdMigrationEntry(kernel, vma, from, at, page);
    unlockTable(kernel, tableOf(at));
    if (!taken && !kernel.sites.collectUnlockOnce) unlockTable(kernel, tableOf(at));
    if (taken) {
      const word = kernel.sites.collectHugeKind ? mpfn : mpfnClear(mpfn, MIGRATE_PFN_DEVICE_PRIVATE);
      args.src[args.npages] = mpfnSet(word, MIGRATE_PFN_COMPOUND);
      args.npages += pages;
      args.cpages++;
      return true;
    }
  }
  if (yield* splitForMigration(kernel, args, page, page)) return false;
  args.npages += pages;
  return true;
}

/** First page of the folio of the fault that asks for this migration, NULL_PAGE for none. */
const folioOfFault = (kernel: Kernel, { faultPage }: MigrateVma): Page =>
  faultPage === NULL_PAGE ? NULL_PAGE : folioHead(kernel.memmap.words, faultPage);

/**
 * `migrate_vma_split_folio()`: split the locked folio of `page`; afterwards nothing of it is locked but the page of the fault.
 * False when somebody else holds it.
 */
function* splitForMigration(kernel: Kernel, args: MigrateVma, page: Page, head: Page): Sleeps<boolean> {
  const { words } = kernel.memmap;
  const { faultPage } = args;
  args.notifyingIndex = args.npages;
  const ofFault = faultPage !== NULL_PAGE && folioHead(words, faultPage) === head;
  // The fault holds its folio; any other is held for the time of the split.
  if (!ofFault) pageRefAdd(words, head, 1);
  const keep = ofFault ? faultPage : page;
  const split = yield* splitFolio(kernel, head, keep);
  if (ofFault) return split;
  folioUnlock(words, keep);
  putPage(kernel, keep);
  return split;
}

/**
 * `migrate_vma_collect_pmd()`: the entries of one leaf table. Large folios among them are split first.
 * @param faultFolio first page of the fault's folio before anything was split
 */
function* collectTable(kernel: Kernel, args: MigrateVma, from: VirtAddr, stop: number, faultFolio: Page): Sleeps<void> {
  for (let at: number = from; at < stop; ) {
    const large = collectEntries(kernel, args, at as VirtAddr, stop, faultFolio);
    if (large === NULL_PAGE) return;
    at = args.start + args.npages * PAGE_SIZE;
    const { words } = kernel.memmap;
    const head = folioHead(words, large);
    const locked = head === folioOfFault(kernel, args) || folioTrylock(words, head);
    if (locked && (yield* splitForMigration(kernel, args, large, head))) continue;
    // Held by somebody: this page stays, and what comes after it is not looked at.
    args.npages += (stop - at) / PAGE_SIZE;
    return;
  }
}

/** Collect under the lock of the table, up to `stop` or to a page of a large folio, which is returned then. */
function collectEntries(kernel: Kernel, args: MigrateVma, from: VirtAddr, stop: number, faultFolio: Page): Page {
  const table = leafTable(kernel, args.vma.mm, from);
  if (table === NO_TABLE) {
    args.npages += (stop - from) / PAGE_SIZE;
    return NULL_PAGE;
  }
  const { memmap, sites } = kernel;
  const { words } = memmap;
  let large: Page = NULL_PAGE;
  const { halves } = kernel.ram;
  let flush = false;
  lockTable(kernel, table);
  for (let addr: number = from, at = table + pteIndex(from); addr < stop; addr += PAGE_SIZE, at++) {
    const low = peek32(halves, 2 * at);
    let mpfn = selectPte(kernel, args, low, peek32(halves, 2 * at + 1));
    if (mpfn !== HOLE && mpfn !== NOTHING) {
      const page = kernel.addressing.migratePfnToPage(mpfn);
      if (isLargeFolio(words, folioHead(words, page))) {
        large = page;
        break;
      }
      if (takePage(kernel, faultFolio, at, low, mpfn)) {
        args.cpages++;
        flush ||= lowPresent(low);
      } else {
        mpfn = NOTHING;
      }
    } else if (mpfn === HOLE) {
      args.cpages++;
    }
    args.src[args.npages++] = sites.collectKind ? mpfn : mpfnClear(mpfn, MIGRATE_PFN_DEVICE_PRIVATE);
  }
  // Before the lock is dropped: whoever finds the migration entry must not race a CPU that still has the old translation.
  if (flush && sites.collectFlush) flushTlbRange(kernel, args.vma.mm, from, stop as VirtAddr);
  unlockTable(kernel, table);
  return large;
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
    const access = (low & LOW_WRITE) !== 0 ? MIGRATE_PFN_MIGRATE | MIGRATE_PFN_WRITE : MIGRATE_PFN_MIGRATE;
    const asPrivate = !kernel.sites.coherentIsPfn && isZoneDevicePage(memmap.words, memmap.pfnToPage(pfn));
    return mpfnSet(migratePfn(pfn), asPrivate ? access | MIGRATE_PFN_DEVICE_PRIVATE : access);
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
function takePage(kernel: Kernel, faultFolio: Page, at: number, seenLow: number, mpfn: Mpfn): boolean {
  const { sites } = kernel;
  const { words } = kernel.memmap;
  const page = kernel.addressing.migratePfnToPage(mpfn);
  if (page === NULL_PAGE || !pageHasMapping(words, page)) return false;
  // The fault that asks for this migration has locked its folio already. Was that split just now, then its page is locked too, but Linux
  // knows only the first page of what it was: any other stays, and the access faults again.
  if (page !== faultFolio && (injects(kernel, 'trylock-lost') || !folioTrylock(words, page))) return false;
  const exclusive = pageTestFlag(words, page, PG_anon_exclusive);
  // Hardware may set accessed and dirty until the entry is cleared, so the exchanged value counts, not the one read before.
  const present = lowPresent(seenLow);
  if (exclusive && present && pageMaybeDmaPinned(words, page)) {
    // folio_try_share_anon_rmap_pte(): a pinned page must not lose that it is exclusive, even for the time of a migration.
    if (page !== faultFolio) folioUnlock(words, page);
    return false;
  }
  const found = present ? getAndClearPteLow(kernel.ram.words, at) : seenLow;
  const low = sites.collectDirty ? found : found & ~LOW_DIRTY;
  if (present && (low & LOW_DIRTY) !== 0) pageMarkDirty(words, page);
  if (exclusive) pageClearFlag(words, page, PG_anon_exclusive);
  setMigrationEntry(kernel, at, page, low, (mpfn & MIGRATE_PFN_WRITE) !== 0, exclusive, sites.collectMigrationFamily);
  pageRemoveRmap(kernel, page);
  return true;
}
