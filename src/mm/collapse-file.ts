/**
 * One huge page for what shared memory has in small ones. Linux: mm/khugepaged.c collapse_file(), retract_page_tables(),
 * try_collapse_pte_mapped_thp().
 *
 * Whatever the page cache has of 2 MiB is locked, unmapped wherever it is mapped, copied into one large folio (zeroes where there was
 * nothing) and replaced by it. Page tables which that has emptied go, in all processes, so that their next fault may map it by one entry;
 * who asked for it has it mapped at once. Not modelled: files that are written back (CONFIG_READ_ONLY_THP_FOR_FS).
 */
import { HPAGE_PMD_NR, PMD_SIZE } from '../abi/address.js';
import type { Errno } from '../abi/errno.js';
import { halvesPfn, lowPresent } from '../abi/pte-halves.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { NULL_PAGE, type Page, type Pfn, type VirtAddr } from '../base/brand.js';
import { folioHead, folioTrylock, folioUnlock, pageRefAdd, pageRefCount } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import { peek32, setPteHalves } from '../sync/word.js';
import { setFilePmd } from './file-fault.js';
import { filePages, lockCachedPage, removeFromCache, unlockCachedPage, vmFileGet, vmFilePut } from './filemap.js';
import { allocHugeFolio, hugeAligned } from './huge-memory.js';
import { findHugePmd, isHugeAligned } from './huge-pmd.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import { folioNrPages, pageClearFlag, pageMapcount, pageSetFileMapping, pageSetFlag, pageTestFlag } from './page.js';
import { freeLeafTable, leafTable, lockTable, NO_TABLE, type TableIndex, unlockTable } from './pgtable.js';
import { putPage } from './put-page.js';
import { fileRmapLeadsTo, fileVmas, pageRemoveRmap, rmapAddress } from './rmap.js';
import { rssAddFile } from './rss.js';
import { isShmem } from './shmem.js';
import { shmemSwapIn } from './shmem-swap.js';
import { flushTlbRange } from './tlbflush.js';
import { tryToUnmap } from './unmap-page.js';
import { linearPageIndex, userfaultfdWp, VM_NOHUGEPAGE, type VmArea, type VmFile, vmaLookup } from './vma.js';

const { PG_dirty, PG_isolated, PG_lru, PG_swapbacked, PG_uptodate } = PAGE_FLAGS;

/**
 * Why 2 MiB could not become one page (`enum scan_result`), as the errno that madvise makes of it. `fail`: one of those for which madvise
 * has no errno of its own, and after which it does not go on (SCAN_FAIL, SCAN_VMA_CHECK, SCAN_TRUNCATED).
 */
export type CollapseFailure = Extract<Errno, 'EINVAL' | 'EAGAIN' | 'EBUSY' | 'ENOMEM'> | 'fail';

/** `shmem_allowable_huge_orders()`: what is asked for by name is allowed, if its pages are aligned as those of a huge page would be. */
export const mayCollapseFile = (vma: VmArea): boolean =>
  vma.file !== null && isShmem(vma.file) && (vma.flags & VM_NOHUGEPAGE) === 0 && hugeAligned(vma);

/**
 * The 2 MiB at `addr`, of a mapping of shared memory. Precondition and end: mmap_lock held for reading; it is dropped meanwhile.
 * @returns EAGAIN where somebody holds a page, ENOMEM, EINVAL where a userfaultfd protects single pages
 */
export function* collapseFile(kernel: Kernel, vma: VmArea, addr: VirtAddr): Sleeps<0 | CollapseFailure> {
  const { mm } = vma;
  const file = vma.file!;
  const first = linearPageIndex(vma, addr);
  let failed: 0 | CollapseFailure;
  vmFileGet(file);
  mm.mmapLock.upRead();
  try {
    failed = yield* collapseCached(kernel, file, first);
  } finally {
    vmFilePut(kernel, file);
    yield* mm.mmapLock.downRead();
  }
  return failed === 0 ? yield* mapCollapsed(kernel, mm, addr) : failed;
}

/** `collapse_scan_file()`: 0 when the page cache has one folio there, by whomever. */
function* collapseCached(kernel: Kernel, file: VmFile, first: number): Sleeps<0 | CollapseFailure> {
  const { words } = kernel.memmap;
  for (let index = first; index < first + HPAGE_PMD_NR; index++) {
    const page = file.pages.get(index);
    if (page === undefined) continue;
    if (folioNrPages(words, page) === HPAGE_PMD_NR) return 0;
    // The cache's reference and those of the mappings.
    const held = pageRefCount(words, page) !== 1 + pageMapcount(words, page);
    if (held || !pageTestFlag(words, page, PG_lru)) return 'EAGAIN';
  }
  const folio = allocHugeFolio(kernel);
  if (folio === NULL_PAGE) return 'ENOMEM';
  folioTrylock(words, folio);
  const taken = new Map<number, Page>();
  let failed = yield* takePages(kernel, file, first, taken);
  // What came into a hole meanwhile would be lost.
  if (failed === 0 && cachedPages(file, first) !== taken.size) failed = 'EAGAIN';
  if (failed === 0) replacePages(kernel, file, first, folio, taken);
  for (const page of taken.values()) {
    pageClearFlag(words, page, PG_isolated);
    if (failed !== 0) pageSetFlag(words, page, PG_lru);
    unlockCachedPage(kernel, page);
  }
  if (failed === 0) yield* retractPageTables(kernel, file, first);
  folioUnlock(words, folio);
  putPage(kernel, folio);
  return failed === 'huge' ? 0 : failed;
}

function cachedPages(file: VmFile, first: number): number {
  let pages = 0;
  for (let index = first; index < first + HPAGE_PMD_NR; index++) {
    if (file.pages.has(index) || file.swapped!.entries.has(index)) pages++;
  }
  return pages;
}

/**
 * Lock and hold what the cache has, which brings it in from swap, and unmap it. `huge`: somebody else has been faster. Those in `taken`
 * are to be given back.
 */
function* takePages(
  kernel: Kernel,
  file: VmFile,
  first: number,
  taken: Map<number, Page>,
): Sleeps<0 | CollapseFailure | 'huge'> {
  const { words } = kernel.memmap;
  for (let index = first; index < first + HPAGE_PMD_NR; index++) {
    const page = yield* takePage(kernel, file, index);
    if (page === NULL_PAGE) continue;
    if (typeof page === 'string') return page;
    if (folioNrPages(words, page) > 1 || !pageTestFlag(words, page, PG_lru)) {
      const huge = folioNrPages(words, page) > 1;
      unlockCachedPage(kernel, page);
      return huge ? 'huge' : 'EAGAIN';
    }
    pageClearFlag(words, page, PG_lru);
    pageSetFlag(words, page, PG_isolated);
    taken.set(index, page);
    yield* tryToUnmap(kernel, page, 'lose');
    // Whoever wants it now has to find it in the cache, and waits for its lock.
    if (pageRefCount(words, page) !== 2) return 'EAGAIN';
  }
  return taken.size === 0 ? 'fail' : 0;
}

/** One page, locked and held; NULL_PAGE where there is none, in swap neither. */
function* takePage(kernel: Kernel, file: VmFile, index: number): Sleeps<Page | CollapseFailure> {
  const { words } = kernel.memmap;
  for (;;) {
    const page = file.pages.get(index);
    if (page !== undefined) {
      if (!folioTrylock(words, page)) return 'EAGAIN';
      pageRefAdd(words, page, 1);
      return page;
    }
    if (!file.swapped!.entries.has(index)) return NULL_PAGE;
    const back = yield* shmemSwapIn(kernel, file, index);
    if (back === 'ENOMEM') return 'fail';
    if (back !== NULL_PAGE) return back;
  }
}

/** The folio takes the place of the pages, and has a reference more than those of the cache. Nobody may sleep meanwhile. */
function replacePages(
  kernel: Kernel,
  file: VmFile,
  first: number,
  folio: Page,
  taken: ReadonlyMap<number, Page>,
): void {
  const { memmap, ram } = kernel;
  for (let i = 0; i < HPAGE_PMD_NR; i++) {
    const page = taken.get(first + i);
    const target = memmap.ramFrame((folio + i) as Page);
    if (page === undefined) ram.zeroFrame(target);
    else ram.copyFrame(memmap.ramFrame(page), target);
    if (page !== undefined) removeFromCache(kernel, file, first + i);
    file.pages.set(first + i, (folio + i) as Page);
  }
  pageSetFileMapping(memmap.words, memmap.floats, folio, file.id, first);
  pageSetFlag(memmap.words, folio, PG_lru | PG_swapbacked | PG_uptodate | PG_dirty);
  pageRefAdd(memmap.words, folio, HPAGE_PMD_NR);
}

/** Wherever a mapping covers the 2 MiB, the leaf table below it goes: it is empty. Precondition: the folio there is locked. */
function* retractPageTables(kernel: Kernel, file: VmFile, first: number): Sleeps<void> {
  const told = new Set<VmArea>();
  for (;;) {
    // While a notifier slept the VMAs may have changed: each is asked once.
    const vma = fileVmas(kernel, file, first, first + 1).find((each) => !told.has(each));
    if (vma === undefined) return;
    told.add(vma);
    const addr = rmapAddress(vma, first);
    if (!isRetractable(kernel, vma, addr)) continue;
    const range = clearOf(vma.mm, addr);
    yield* mmuNotifierInvalidateRangeStart(range);
    if (fileRmapLeadsTo(first, vma, addr) && isRetractable(kernel, vma, addr)) freeLeafTable(kernel, vma.mm, addr);
    mmuNotifierInvalidateRangeEnd(range);
  }
}

/** `file_backed_vma_is_retractable()`, and there is a table, with nothing in it. */
function isRetractable(kernel: Kernel, vma: VmArea, addr: VirtAddr): boolean {
  const { mm } = vma;
  if (!isHugeAligned(addr) || vma.end < addr + PMD_SIZE || mm.exiting) return false;
  if (vma.anonVma !== null || userfaultfdWp(vma)) return false;
  const table = leafTable(kernel, mm, addr);
  return table !== NO_TABLE && mapped(kernel, table, NULL_PAGE) === 0;
}

const clearOf = (mm: MmStruct, start: VirtAddr): MmuNotifierRange => ({
  mm,
  start,
  end: (start + PMD_SIZE) as VirtAddr,
  event: 'MMU_NOTIFY_CLEAR',
  owner: null,
});

/** How many entries of a leaf table map pages of the folio, each in its place; why not when it has any others. */
function mapped(kernel: Kernel, table: TableIndex, folio: Page): number | CollapseFailure {
  const { halves } = kernel.ram;
  let count = 0;
  for (let i = 0; i < HPAGE_PMD_NR; i++) {
    const low = peek32(halves, 2 * (table + i));
    const high = peek32(halves, 2 * (table + i) + 1);
    if ((low | high) === 0) continue;
    if (!lowPresent(low)) return 'EINVAL';
    if (kernel.memmap.pfnToPage(halvesPfn(low, high) as Pfn) !== folio + i) return 'fail';
    count++;
  }
  return count;
}

/** `try_collapse_pte_mapped_thp()`: one entry for the folio that the page cache has. Precondition: mmap_lock held for reading. */
function* mapCollapsed(kernel: Kernel, mm: MmStruct, addr: VirtAddr): Sleeps<0 | CollapseFailure> {
  const vma = vmaLookup(mm, addr);
  if (mm.exiting || vma === undefined || vma.file === null || vma.end < addr + PMD_SIZE) return 'fail';
  const { file } = vma;
  if (findHugePmd(kernel, mm, addr) !== NO_TABLE) return 0;
  if (!mayCollapseFile(vma)) return 'fail';
  const index = linearPageIndex(vma, addr);
  if (userfaultfdWp(vma) || !file.pages.has(index)) return 'EINVAL';
  const page = yield* lockCachedPage(kernel, file, index, () => filePages(file));
  if (typeof page === 'string') return 'EINVAL';
  const isWhole = folioNrPages(kernel.memmap.words, page) === HPAGE_PMD_NR;
  const failed = isWhole ? yield* unmapSmall(kernel, vma, addr, folioHead(kernel.memmap.words, page)) : 'EINVAL';
  const isMapped = failed === 0 && setFilePmd(kernel, vma, addr, page, false);
  unlockCachedPage(kernel, page);
  if (failed !== 0) return failed;
  return isMapped || findHugePmd(kernel, mm, addr) !== NO_TABLE ? 0 : 'fail';
}

/** The small entries that map pages of the folio go, and their table. Precondition: the folio is locked. */
function* unmapSmall(kernel: Kernel, vma: VmArea, addr: VirtAddr, folio: Page): Sleeps<0 | CollapseFailure> {
  const { mm } = vma;
  const { words } = kernel.memmap;
  const before = leafTable(kernel, mm, addr);
  if (before === NO_TABLE) return 0;
  const found = mapped(kernel, before, folio);
  if (typeof found === 'string') return found;
  const range = clearOf(mm, addr);
  yield* mmuNotifierInvalidateRangeStart(range);
  const table = leafTable(kernel, mm, addr);
  const count = table === NO_TABLE ? 0 : mapped(kernel, table, folio);
  if (typeof count === 'number' && table !== NO_TABLE) {
    lockTable(kernel, table);
    for (let i = 0; i < HPAGE_PMD_NR; i++) {
      if (!lowPresent(peek32(kernel.ram.halves, 2 * (table + i)))) continue;
      setPteHalves(kernel.ram.words, table + i, 0, 0);
      pageRemoveRmap(kernel, (folio + i) as Page);
    }
    unlockTable(kernel, table);
    flushTlbRange(kernel, mm, addr, range.end);
    rssAddFile(words, mm, folio, -count);
    pageRefAdd(words, folio, -count);
    freeLeafTable(kernel, mm, addr);
  }
  mmuNotifierInvalidateRangeEnd(range);
  return typeof count === 'string' ? count : 0;
}
