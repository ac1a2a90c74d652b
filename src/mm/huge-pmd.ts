/**
 * Entries of the page middle directory that map a huge page of 2 MiB, or stand for one. Linux: the *_huge_pmd functions of
 * mm/huge_memory.c.
 *
 * They have the form of page table entries: present with PSE, or a softleaf (device private, migration) whose number is that
 * of the folio's first page. The lock is that of the directory. Beside each of anonymous memory a leaf table is deposited
 * (pgtable.ts); what the page cache has comes back by faults, so that a huge entry of it is not split but taken away.
 */
import { HPAGE_PMD_NR, PMD_SIZE } from '../abi/address.js';
import {
  carriedToLeaf,
  halvesNumber,
  halvesPfn,
  highMigrationFlags,
  highType,
  LOW_ACCESSED,
  LOW_DIRTY,
  LOW_HUGE,
  LOW_PRESENT,
  LOW_SOFT_DIRTY,
  LOW_SPECIAL,
  LOW_SWP_SOFT_DIRTY,
  LOW_SWP_UFFD_WP,
  LOW_UFFD_WP,
  LOW_WRITE,
  leafHigh,
  leafLow,
  lowPresent,
  presentHigh,
  presentLow,
} from '../abi/pte-halves.js';
import type { SoftLeafKind } from '../abi/softleaf.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { NULL_PAGE, type Page, type Pfn, type VirtAddr } from '../base/brand.js';
import { assert } from '../base/errors.js';
import { pageRefAdd, pageRefCount } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import { and32, getAndClearPteLow, peek32, setPteHalves } from '../sync/word.js';
import { getHugeZero } from './huge-zero.js';
import type { Kernel } from './kernel.js';
import { restoredFlags, setMigrationEntry } from './migration-entry.js';
import type { MmStruct } from './mm-struct.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import {
  folioEntireMapcountAdd,
  folioMapcount,
  isDevicePrivatePage,
  pageClearFlag,
  pageIsAnon,
  pageMapcountAdd,
  pageMaybeDmaPinned,
  pageSetFlag,
  pageTestFlag,
} from './page.js';
import {
  allocTable,
  depositTable,
  findPmd,
  freeTable,
  lockTable,
  NO_TABLE,
  populate,
  tableOf,
  tableOfPage,
  unlockTable,
  withdrawTable,
} from './pgtable.js';
import { changedPresentLow, changeLeaf } from './pte-protect.js';
import { putPage } from './put-page.js';
import { devicePageMlock, pageTryDupAnonRmapPmd } from './rmap.js';
import { rssAddMigrating } from './rss.js';
import { isDevicePrivate, isMigration, isMigrationRead, isMigrationWrite } from './softleaf.js';
import { flushTlbRange } from './tlbflush.js';
import { userfaultfdWp, type VmArea, vmaPageProt } from './vma.js';

const { PG_anon_exclusive, PG_dirty, PG_swapbacked } = PAGE_FLAGS;
/** What a present huge entry hands on to the small ones that replace it. */
const INHERITED = LOW_WRITE | LOW_ACCESSED | LOW_DIRTY | LOW_SOFT_DIRTY | LOW_UFFD_WP;

export const hugeAlignDown = (addr: number): VirtAddr => (Math.floor(addr / PMD_SIZE) * PMD_SIZE) as VirtAddr;

export const hugeAlignUp = (length: number): number => Math.ceil(length / PMD_SIZE) * PMD_SIZE;

export const isHugeAligned = (addr: number): boolean => addr % PMD_SIZE === 0;

/** Does an entry of the middle directory map a huge page, or stand for one? Otherwise it is none or points to a table. */
const isHuge = (low: number, high: number): boolean =>
  (low | high) !== 0 && (low & (LOW_PRESENT | LOW_HUGE)) !== LOW_PRESENT;

/** Place of the huge entry that covers `addr`, NO_TABLE for none (`pmd_trans_huge_lock`, without the lock). */
export function findHugePmd(kernel: Kernel, mm: MmStruct, addr: number): number {
  const at = findPmd(kernel, mm, addr);
  if (at === NO_TABLE) return NO_TABLE;
  const { halves } = kernel.ram;
  return isHuge(peek32(halves, 2 * at), peek32(halves, 2 * at + 1)) ? at : NO_TABLE;
}

/** `is_huge_zero_pmd()`, of the low half of a present entry. */
export const isHugeZero = (low: number): boolean => (low & LOW_SPECIAL) !== 0;

/** First page of the folio behind a huge entry; NULL_PAGE for the huge zero page. */
export function pageOfPmd(kernel: Kernel, low: number, high: number): Page {
  if (lowPresent(low)) return isHugeZero(low) ? NULL_PAGE : kernel.memmap.pfnToPage(halvesPfn(low, high) as Pfn);
  return kernel.addressing.leafToPage(highType(high), halvesNumber(low, high));
}

/** Does a huge entry map, or stand for, a folio of a page cache? */
function isOfFile(kernel: Kernel, low: number, high: number): boolean {
  const page = pageOfPmd(kernel, low, high);
  return page !== NULL_PAGE && !pageIsAnon(kernel.memmap.words, page);
}

const kindOf = (kernel: Kernel, high: number): SoftLeafKind => kernel.addressing.swapTypes.kindOf[highType(high)]!;

/** `folio_mk_pmd()`: map the folio that begins at `page`, with `flags` beside the VMA's protection. */
export function setHugePresent(kernel: Kernel, vma: VmArea, at: number, page: Page, flags: number): void {
  const pfn = kernel.memmap.pageToPfn(page);
  if (pfn < 0) kernel.warn(`folio_pfn: page ${page} is device private, and has none`);
  setPteHalves(kernel.ram.words, at, presentLow(pfn, vmaPageProt(vma) | LOW_HUGE | flags), presentHigh(pfn));
}

/** A table to deposit beside a new huge entry, counted for `mm`; NULL_PAGE when RAM is out. */
export function allocDeposit(kernel: Kernel, mm: MmStruct): Page {
  const table = allocTable(kernel);
  if (table !== NULL_PAGE) mm.tables++;
  return table;
}

/** Give back a table that was not deposited after all, or that is not needed any more. */
export function freeDeposit(kernel: Kernel, mm: MmStruct, table: Page): void {
  freeTable(kernel, table);
  mm.tables--;
}

/**
 * `__split_huge_pmd()`: where a huge entry covers `addr`, small ones take its place, or nothing does if it is a file's. The folio
 * stays whole.
 */
export function* splitHugePmd(kernel: Kernel, vma: VmArea, addr: number, freeze = false): Sleeps<void> {
  const start = hugeAlignDown(addr);
  const end = (start + PMD_SIZE) as VirtAddr;
  const range: MmuNotifierRange = { mm: vma.mm, start, end, event: 'MMU_NOTIFY_CLEAR', owner: null };
  yield* mmuNotifierInvalidateRangeStart(range);
  const at = findHugePmd(kernel, vma.mm, start);
  if (at !== NO_TABLE) {
    lockTable(kernel, tableOf(at));
    splitHugePmdLocked(kernel, vma, at, start, freeze);
    unlockTable(kernel, tableOf(at));
  }
  mmuNotifierInvalidateRangeEnd(range);
}

/**
 * `split_huge_pmd_locked()`. With `freeze` the small entries are migration entries, which hold no reference; a pinned page
 * stays mapped all the same.
 * Precondition: the directory is locked, a huge entry is at `at`, which `vma` covers whole from `start` on.
 */
export function splitHugePmdLocked(kernel: Kernel, vma: VmArea, at: number, start: VirtAddr, freeze: boolean): void {
  const { memmap, ram } = kernel;
  const high = peek32(ram.halves, 2 * at + 1);
  const seen = peek32(ram.halves, 2 * at);
  if (isOfFile(kernel, seen, high)) {
    const page = zapHugePmd(kernel, vma.mm, at);
    flushTlbRange(kernel, vma.mm, start, (start + PMD_SIZE) as VirtAddr);
    if (page !== 0) putPage(kernel, page);
    return;
  }
  const table = withdrawTable(kernel, tableOf(at));
  const first = tableOfPage(kernel, table);
  // Hardware may set accessed and dirty until the entry is cleared.
  const low = lowPresent(seen) ? getAndClearPteLow(ram.words, at) : seen;
  if (lowPresent(low)) flushTlbRange(kernel, vma.mm, start, (start + PMD_SIZE) as VirtAddr);
  if (lowPresent(low) && isHugeZero(low)) {
    const flags = vmaPageProt(vma) | LOW_SPECIAL | LOW_ACCESSED | (low & LOW_UFFD_WP);
    const { zeroPfn } = kernel;
    for (let i = 0; i < HPAGE_PMD_NR; i++) {
      setPteHalves(ram.words, first + i, presentLow(zeroPfn, flags), presentHigh(zeroPfn));
    }
  } else {
    const page = pageOfPmd(kernel, low, high);
    if (lowPresent(low) && (low & LOW_DIRTY) !== 0) pageSetFlag(memmap.words, page, PG_dirty);
    if (lowPresent(low) || isDevicePrivate(kindOf(kernel, high)))
      splitMapped(kernel, vma, first, page, low, high, freeze);
    else splitMigration(kernel, first, low, high);
  }
  populate(kernel, at, table);
}

/** The small entries of a folio that stays, or of one that is being taken out of the page table. */
function splitMapped(
  kernel: Kernel,
  vma: VmArea,
  first: number,
  head: Page,
  low: number,
  high: number,
  freeze: boolean,
): void {
  const { addressing, memmap, ram, sites } = kernel;
  const { words } = memmap;
  const present = lowPresent(low);
  const write = present ? (low & LOW_WRITE) !== 0 : kindOf(kernel, high) === 'device-private-write';
  const exclusive = pageTestFlag(words, head, PG_anon_exclusive);
  const frozen = freeze && !(exclusive && pageMaybeDmaPinned(words, head));
  if (!frozen) pageRefAdd(words, head, HPAGE_PMD_NR - 1);
  if (frozen && exclusive) pageClearFlag(words, head, PG_anon_exclusive);
  // pte_mkdirty() makes soft-dirty what is dirty.
  const dirtied = (low & LOW_DIRTY) !== 0 ? LOW_SOFT_DIRTY : 0;
  const flags = present ? vmaPageProt(vma) | (low & INHERITED) | dirtied : low & (LOW_SWP_SOFT_DIRTY | LOW_SWP_UFFD_WP);
  const number = sites.splitPmdNumber ? addressing.pageNumber(head) : memmap.pageToPfn(head);
  const type = present ? 0 : addressing.devicePrivateType(write);
  for (let i = 0; i < HPAGE_PMD_NR; i++) {
    const page = (head + i) as Page;
    if (frozen) {
      setMigrationEntry(kernel, first + i, page, low, write, exclusive, sites.splitPmdFreezeFamily);
      continue;
    }
    pageMapcountAdd(words, page, 1);
    if (exclusive) pageSetFlag(words, page, PG_anon_exclusive);
    if (present) setPteHalves(ram.words, first + i, presentLow(number + i, flags), presentHigh(number + i));
    else setPteHalves(ram.words, first + i, leafLow(number + i, flags), leafHigh(type, number + i, 0));
  }
  folioEntireMapcountAdd(words, head, -1);
  if (frozen) putPage(kernel, head);
}

function splitMigration(kernel: Kernel, first: number, low: number, high: number): void {
  const type = highType(high);
  const number = halvesNumber(low, high);
  const flags = low & (LOW_SWP_SOFT_DIRTY | LOW_SWP_UFFD_WP);
  const remembered = highMigrationFlags(high);
  for (let i = 0; i < HPAGE_PMD_NR; i++) {
    setPteHalves(kernel.ram.words, first + i, leafLow(number + i, flags), leafHigh(type, number + i, remembered));
  }
}

/** `zap_huge_pmd()`: clear the entry; returns the page whose reference the caller has to drop, 0 for none. */
export function zapHugePmd(kernel: Kernel, mm: MmStruct, at: number): Page | 0 {
  const { memmap, ram } = kernel;
  const { words } = memmap;
  const high = peek32(ram.halves, 2 * at + 1);
  const low = getAndClearPteLow(ram.words, at);
  if (!isOfFile(kernel, low, high)) freeDeposit(kernel, mm, withdrawTable(kernel, tableOf(at)));
  const page = pageOfPmd(kernel, low, high);
  if (page === NULL_PAGE) return 0;
  const present = lowPresent(low);
  if (!kernel.sites.clearTakesPrivate) assert(present, 'a huge entry is cleared that is not present');
  rssAddMigrating(words, mm, page, -HPAGE_PMD_NR);
  if (!present && isMigration(kernel, kindOf(kernel, high))) return 0;
  if (present && (low & LOW_DIRTY) !== 0 && !pageIsAnon(words, page)) pageSetFlag(words, page, PG_dirty);
  folioEntireMapcountAdd(words, page, -1);
  return page;
}

/**
 * `__discard_anon_folio_pmd_locked()`: a huge page that MADV_FREE has given up is not mapped any more. False where it stays: it has been
 * written to since, and is needed again, or somebody holds it. Preconditions: the directory is locked; the caller holds the folio.
 */
export function discardHugePmd(kernel: Kernel, vma: VmArea, at: number, start: VirtAddr, folio: Page): boolean {
  const { ram } = kernel;
  const { words } = kernel.memmap;
  const high = peek32(ram.halves, 2 * at + 1);
  // Hardware may set dirty until the entry is cleared.
  const low = getAndClearPteLow(ram.words, at);
  flushTlbRange(kernel, vma.mm, start, (start + PMD_SIZE) as VirtAddr);
  if ((low & LOW_DIRTY) !== 0) pageSetFlag(words, folio, PG_dirty);
  const isDirty = pageTestFlag(words, folio, PG_dirty);
  if (isDirty) pageSetFlag(words, folio, PG_swapbacked);
  if (isDirty || pageRefCount(words, folio) !== 1 + folioMapcount(words, folio)) {
    setPteHalves(ram.words, at, low, high);
    return false;
  }
  setPteHalves(ram.words, at, 0, 0);
  freeDeposit(kernel, vma.mm, withdrawTable(kernel, tableOf(at)));
  vma.mm.rssAnon -= HPAGE_PMD_NR;
  folioEntireMapcountAdd(words, folio, -1);
  putPage(kernel, folio);
  return true;
}

/**
 * `copy_huge_pmd()` for fork: `split` when the folio is pinned, so that each of its pages has to be looked at; `nomem`.
 * Precondition: both directories are locked.
 */
export function copyHugePmd(kernel: Kernel, child: VmArea, from: number, to: number): 'copied' | 'split' | 'nomem' {
  const { addressing, memmap, ram } = kernel;
  let low = peek32(ram.halves, 2 * from);
  let high = peek32(ram.halves, 2 * from + 1);
  const table = allocDeposit(kernel, child.mm);
  if (table === NULL_PAGE) return 'nomem';
  const page = pageOfPmd(kernel, low, high);
  if (lowPresent(low)) {
    if (page === NULL_PAGE) {
      getHugeZero(kernel, child.mm);
    } else if (pageTryDupAnonRmapPmd(kernel, page)) {
      pageRefAdd(memmap.words, page, 1);
    } else {
      freeDeposit(kernel, child.mm, table);
      return 'split';
    }
    low = and32(ram.halves, 2 * from, ~LOW_WRITE) & ~(LOW_WRITE | LOW_ACCESSED | LOW_UFFD_WP);
  } else {
    const kind = kindOf(kernel, high);
    const number = halvesNumber(low, high);
    if (isMigration(kernel, kind)) {
      if (!isMigrationRead(kernel, kind)) {
        const { forkPmdMigrationFamily: keeps, retypeKeepsFlags } = kernel.sites;
        const to = keeps ? addressing.migrationType(page, 'read') : addressing.plainMigrationType('read');
        high = leafHigh(to, number, retypeKeepsFlags ? highMigrationFlags(high) : 0);
        setPteHalves(ram.words, from, low, high);
      }
    } else {
      pageRefAdd(memmap.words, page, 1);
      pageTryDupAnonRmapPmd(kernel, page);
      if (kind === 'device-private-write') {
        high = leafHigh(addressing.devicePrivateType(false), number, 0);
        setPteHalves(ram.words, from, low, high);
      }
    }
    low &= ~LOW_SWP_UFFD_WP;
  }
  if (page !== NULL_PAGE) child.mm.rssAnon += HPAGE_PMD_NR;
  depositTable(kernel, tableOf(to), table);
  setPteHalves(ram.words, to, low, high);
  return 'copied';
}

/** `change_huge_pmd()`: the entry gets what the VMA allows by now. Returns whether a translation may be in a TLB. */
export function changeHugePmd(kernel: Kernel, vma: VmArea, at: number): boolean {
  const { halves, words } = kernel.ram;
  const high = peek32(halves, 2 * at + 1);
  const seen = peek32(halves, 2 * at);
  if (!lowPresent(seen)) {
    changeLeaf(kernel, at, seen, high);
    return false;
  }
  setPteHalves(words, at, changedPresentLow(kernel, vma, getAndClearPteLow(words, at), high), high);
  return true;
}

/** `move_huge_pmd()`: false where the target is taken, so that the small entries have to be moved. */
export function moveHugePmd(kernel: Kernel, vma: VmArea, from: number, to: number, addr: VirtAddr): boolean {
  const { halves, words } = kernel.ram;
  if ((peek32(halves, 2 * to) | peek32(halves, 2 * to + 1)) !== 0) return false;
  const high = peek32(halves, 2 * from + 1);
  const low = getAndClearPteLow(words, from);
  if (tableOf(from) !== tableOf(to) && !isOfFile(kernel, low, high)) {
    depositTable(kernel, tableOf(to), withdrawTable(kernel, tableOf(from)));
  }
  const present = lowPresent(low);
  // No userfaultfd follows what moves.
  const lost = userfaultfdWp(vma) ? (present ? LOW_UFFD_WP : LOW_SWP_UFFD_WP) : 0;
  // move_soft_dirty_pmd(), to which a device private entry is neither the one nor the other.
  const absent = isMigration(kernel, kindOf(kernel, high)) ? LOW_SWP_SOFT_DIRTY : 0;
  setPteHalves(words, to, (low & ~lost) | (present ? LOW_SOFT_DIRTY : absent), high);
  if (present) flushTlbRange(kernel, vma.mm, addr, (addr + PMD_SIZE) as VirtAddr);
  return true;
}

/**
 * `set_pmd_migration_entry()`: false for a pinned page, which stays mapped. The mapping is gone afterwards, its reference is
 * the caller's. Precondition: the directory is locked; the entry at `at` maps the folio that begins at `page`.
 */
export function setPmdMigrationEntry(kernel: Kernel, vma: VmArea, addr: VirtAddr, at: number, page: Page): boolean {
  const { memmap, ram } = kernel;
  const { words } = memmap;
  const exclusive = pageTestFlag(words, page, PG_anon_exclusive);
  if (exclusive && pageMaybeDmaPinned(words, page)) return false;
  const high = peek32(ram.halves, 2 * at + 1);
  const low = getAndClearPteLow(ram.words, at);
  const present = lowPresent(low);
  if (present) flushTlbRange(kernel, vma.mm, addr, (addr + PMD_SIZE) as VirtAddr);
  if (exclusive) pageClearFlag(words, page, PG_anon_exclusive);
  if (present && (low & LOW_DIRTY) !== 0) pageSetFlag(words, page, PG_dirty);
  const write = present ? (low & LOW_WRITE) !== 0 : kindOf(kernel, high) === 'device-private-write';
  setMigrationEntry(kernel, at, page, low, write, exclusive, kernel.sites.setPmdMigrationFamily);
  folioEntireMapcountAdd(words, page, -1);
  return true;
}

/** `remove_migration_pmd()`: map the folio `to` where the migration entry at `at` stands. The mapping needs a reference. */
export function removeMigrationPmd(kernel: Kernel, vma: VmArea, at: number, to: Page): void {
  const { addressing, memmap, ram, sites } = kernel;
  const { words } = memmap;
  const low = peek32(ram.halves, 2 * at);
  const high = peek32(ram.halves, 2 * at + 1);
  const kind = kindOf(kernel, high);
  const write = isMigrationWrite(kernel, kind);
  folioEntireMapcountAdd(words, to, 1);
  devicePageMlock(kernel, to, vma);
  if (pageIsAnon(words, to) && !isMigrationRead(kernel, kind)) pageSetFlag(words, to, PG_anon_exclusive);
  if (!sites.restorePmdPrivateFirst) setHugePresent(kernel, vma, at, to, 0);
  if (isDevicePrivatePage(words, to)) {
    const number = sites.removeMigrationPmdNumber ? addressing.pageNumber(to) : memmap.pageToPfn(to);
    const entry = leafLow(number, carriedToLeaf(low));
    setPteHalves(ram.words, at, entry, leafHigh(addressing.devicePrivateType(write), number, 0));
    // In an entry that is not present the writable bit is another one.
    const seemsWritable = !sites.restorePmdCheck && (entry & LOW_WRITE) !== 0;
    assert(!seemsWritable || pageTestFlag(words, to, PG_anon_exclusive), 'a shared huge page is mapped writable');
    return;
  }
  const flags = restoredFlags(words, to, low, high, write);
  // Other than `remove_migration_pte()`, this one leaves the soft-dirty bit that `pmd_mkdirty()` sets.
  setHugePresent(kernel, vma, at, to, flags & LOW_DIRTY ? flags | LOW_SOFT_DIRTY : flags);
}
