/** Advice on ranges of an address space. Linux: mm/madvise.c. */
import { HPAGE_PMD_NR, isPageAligned, PAGE_SIZE, PMD_SIZE, pageAlignUp, wraps } from '../abi/address.js';
import type { Result } from '../abi/errno.js';
import {
  halvesNumber,
  halvesPfn,
  highType,
  LOW_ACCESSED,
  LOW_DIRTY,
  LOW_SPECIAL,
  lowPresent,
} from '../abi/pte-halves.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { swapEntry } from '../abi/swap-entry.js';
import type { Pfn, VirtAddr } from '../base/brand.js';
import { folioHead, folioTrylock, folioUnlock, pageRefAdd } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import { and32, peek32, setPteHalves } from '../sync/word.js';
import { lockFilePage } from './alloc.js';
import { filePages, unlockCachedPage } from './filemap.js';
import { findHugePmd, hugeAlignDown, isHugeAligned, isHugeZero, pageOfPmd } from './huge-pmd.js';
import { hugetlbMaySplit, isHugetlb } from './hugetlb.js';
import type { Kernel } from './kernel.js';
import { madviseCollapse } from './khugepaged.js';
import { coldOrPageOut, madviseBatch, splitFolioAt } from './madvise-lru.js';
import type { MmStruct } from './mm-struct.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import { folioMapcount, folioNrPages, isZoneDevicePage, pageClearFlag, pageTestFlag } from './page.js';
import { normalPageAt } from './page-vma-mapped.js';
import { leafTable, lockTable, NO_TABLE, nextLeaf, nextMappedLeaf, pteIndex, tableOf, unlockTable } from './pgtable.js';
import { putPage } from './put-page.js';
import { shmemSwapInRange } from './shmem-swap.js';
import { madviseInjectError } from './soft-offline.js';
import { splitFolio } from './split-folio.js';
import { swapInRange } from './swap-in.js';
import { folioFreeSwap, freeSwapAndCache } from './swap-state.js';
import { flushTlbRange } from './tlbflush.js';
import {
  linearPageIndex,
  tracksWrites,
  VM_HUGEPAGE,
  VM_HUGETLB,
  VM_LOCKED,
  VM_NOHUGEPAGE,
  VM_PFNMAP,
  type VmArea,
  type VmFile,
  vmaIsAnonymous,
} from './vma.js';
import { modifyVmaFlags } from './vma-merge.js';
import { zapRange } from './zap.js';

/** MADV_*. */
export const ADVICES = [
  'DONTNEED',
  'FREE',
  'WILLNEED',
  'COLD',
  'PAGEOUT',
  'HUGEPAGE',
  'NOHUGEPAGE',
  'COLLAPSE',
  'HWPOISON',
  'SOFT_OFFLINE',
] as const;
export type Advice = (typeof ADVICES)[number];
/** Advice that concerns mappings; the rest is for tests of memory that fails. */
type MemoryAdvice = Exclude<Advice, 'HWPOISON' | 'SOFT_OFFLINE'>;

const { PG_dirty, PG_referenced, PG_swapbacked, PG_swapcache } = PAGE_FLAGS;

/**
 * `do_madvise()`: EINVAL; ENOMEM where parts of the range are not mapped (the mapped ones are done all the same); EAGAIN for want of a
 * mapping more.
 */
export function* doMadvise(
  kernel: Kernel,
  mm: MmStruct,
  start: VirtAddr,
  length: number,
  advice: Advice,
): Sleeps<Result> {
  const end = start + pageAlignUp(length);
  if (!isPageAligned(start) || wraps(start, end - start)) return 'EINVAL';
  if (end === start) return 0;
  if (advice === 'HWPOISON' || advice === 'SOFT_OFFLINE')
    return yield* madviseInjectError(kernel, mm, start, end, advice);
  // What changes VMAs needs the lock for writing; what changes entries only must keep the VMAs from changing.
  const writes = advice === 'HUGEPAGE' || advice === 'NOHUGEPAGE';
  yield* writes ? mm.mmapLock.downWrite() : mm.mmapLock.downRead();
  try {
    return mm.exiting ? 'ENOMEM' : yield* walkVmas(kernel, mm, start, end, advice);
  } finally {
    if (writes) mm.mmapLock.upWrite();
    else mm.mmapLock.upRead();
  }
}

/** `madvise_walk_vmas()`. */
function* walkVmas(kernel: Kernel, mm: MmStruct, start: number, end: number, advice: MemoryAdvice): Sleeps<Result> {
  let hole = false;
  for (let at = start; at < end; ) {
    const vma = mm.vmas.firstEndingAfter(at)?.value;
    if (vma === undefined || vma.start > at) hole = true;
    if (vma === undefined || vma.start >= end) break;
    const from = Math.max(vma.start, at);
    const stop = Math.min(vma.end, end);
    const failed = yield* adviseVma(kernel, vma, from, stop, advice);
    if (failed !== 0) return failed;
    at = stop;
  }
  return hole ? 'ENOMEM' : 0;
}

/** `force_page_cache_readahead()`: what the page cache has not yet of a file. */
function* readAhead(kernel: Kernel, vma: VmArea, file: VmFile, start: number, end: number): Sleeps<void> {
  const stop = Math.min(linearPageIndex(vma, end), filePages(file));
  for (let index = linearPageIndex(vma, start); index < stop; index++) {
    if (file.pages.has(index)) continue;
    const page = yield* lockFilePage(kernel, file, index, () => filePages(file));
    if (typeof page === 'string') return;
    unlockCachedPage(kernel, page);
  }
}

/** `madvise_vma_behavior()`. */
function* adviseVma(kernel: Kernel, vma: VmArea, start: number, end: number, advice: MemoryAdvice): Sleeps<Result> {
  switch (advice) {
    case 'DONTNEED':
      if (!isHugetlb(vma) && !canMadvLru(vma)) return 'EINVAL';
      return yield* dontNeed(kernel, vma, start, end);
    case 'FREE':
      if (!vmaIsAnonymous(vma) || !canMadvLru(vma)) return 'EINVAL';
      yield* cleared(vma, start, end, freeRange(kernel, vma, start, end));
      return 0;
    case 'WILLNEED':
      if (vmaIsAnonymous(vma)) swapInRange(kernel, vma, start, end);
      else if (vma.file!.swapped !== undefined) shmemSwapInRange(kernel, vma, vma.file!, start, end);
      else if (tracksWrites(vma.file)) yield* readAhead(kernel, vma, vma.file!, start, end);
      return 0;
    case 'COLD':
    case 'PAGEOUT':
      if (!canMadvLru(vma)) return 'EINVAL';
      yield* coldOrPageOut(kernel, vma, start, end, advice);
      return 0;
    case 'HUGEPAGE':
      return yield* adviseHuge(kernel, vma, start, end, VM_HUGEPAGE, VM_NOHUGEPAGE);
    case 'NOHUGEPAGE':
      return yield* adviseHuge(kernel, vma, start, end, VM_NOHUGEPAGE, VM_HUGEPAGE);
    case 'COLLAPSE':
      return yield* madviseCollapse(kernel, vma, start, end);
  }
}

/** `madvise_dontneed_single_vma()`; of the hugetlb pool only whole pages, from the border of one on. */
function* dontNeed(kernel: Kernel, vma: VmArea, start: number, end: number): Sleeps<Result> {
  let stop = end;
  if (isHugetlb(vma)) {
    if (!isHugeAligned(start)) return 'EINVAL';
    stop = hugeAlignDown(end);
  }
  if (stop > start) yield* cleared(vma, start, stop, zapRange(kernel, vma, start, stop, 'discard'));
  return 0;
}

/** Do something between the two halves of a notification. */
function* cleared(vma: VmArea, start: number, end: number, body: Sleeps<void>): Sleeps<void> {
  const range: MmuNotifierRange = {
    mm: vma.mm,
    start: start as VirtAddr,
    end: end as VirtAddr,
    event: 'MMU_NOTIFY_CLEAR',
    owner: null,
  };
  yield* mmuNotifierInvalidateRangeStart(range);
  yield* body;
  mmuNotifierInvalidateRangeEnd(range);
}

/** `hugepage_madvise()`, `madvise_update_vma()`. */
function* adviseHuge(
  kernel: Kernel,
  vma: VmArea,
  start: number,
  end: number,
  set: number,
  clear: number,
): Sleeps<Result> {
  const flags = (vma.flags & ~clear) | set;
  if (flags !== vma.flags && !(hugetlbMaySplit(vma.mm, start) && hugetlbMaySplit(vma.mm, end))) return 'EINVAL';
  if (flags === vma.flags) return 0;
  return (yield* modifyVmaFlags(kernel, vma, start, end, flags)) === 'ENOMEM' ? 'EAGAIN' : 0;
}

/** `madvise_free_pte_range()`: what nobody writes to until memory is short may then be dropped. Device entries stay. */
function* freeRange(kernel: Kernel, vma: VmArea, start: number, end: number): Sleeps<void> {
  const { mm } = vma;
  for (let at = nextMappedLeaf(kernel, mm, start, end); at < end; ) {
    const stop = Math.min(nextLeaf(at), end);
    if (leafTable(kernel, mm, at as VirtAddr) === NO_TABLE) yield* freeHuge(kernel, mm, at as VirtAddr, stop);
    // What is met there comes apart, and then it is gone on with; what was passed over before stays as it is.
    for (let addr = at; (addr = freeEntries(kernel, mm, addr, stop)) < stop; ) {
      const batch = madviseBatch(kernel, leafTable(kernel, mm, addr as VirtAddr), addr, stop);
      if (!(yield* splitFolioAt(kernel, mm, addr))) addr += batch * PAGE_SIZE;
    }
    at = nextMappedLeaf(kernel, mm, stop, end);
  }
}

/** `madvise_free_huge_pmd()`: the folio as a whole, or split where only a part of it is meant. */
function* freeHuge(kernel: Kernel, mm: MmStruct, addr: VirtAddr, stop: number): Sleeps<void> {
  const { halves } = kernel.ram;
  const { words } = kernel.memmap;
  const at = findHugePmd(kernel, mm, addr);
  const low = peek32(halves, 2 * at);
  if (!lowPresent(low) || isHugeZero(low)) return;
  const page = pageOfPmd(kernel, low, peek32(halves, 2 * at + 1));
  // folio_mark_lazyfree(): others may have its slots.
  if (pageTestFlag(words, page, PG_swapcache)) return;
  if (folioMapcount(words, page) !== 1 || !folioTrylock(words, page)) return;
  if (stop - addr < PMD_SIZE) {
    pageRefAdd(words, page, 1);
    yield* splitFolio(kernel, page, page);
    folioUnlock(words, page);
    putPage(kernel, page);
    return;
  }
  pageClearFlag(words, page, PG_dirty);
  kernel.stats.pglazyfree += HPAGE_PMD_NR;
  folioUnlock(words, page);
  lockTable(kernel, tableOf(at));
  and32(halves, 2 * at, ~(LOW_ACCESSED | LOW_DIRTY));
  flushTlbRange(kernel, mm, addr, stop as VirtAddr);
  unlockTable(kernel, tableOf(at));
  // folio_mark_lazyfree(): a coherent device's page is on no list.
  if (!isZoneDevicePage(words, page)) pageClearFlag(words, page, PG_referenced | PG_swapbacked);
}

/** The entries of one leaf table up to a large folio of which they map only a part. @returns where that is met, or `stop` */
function freeEntries(kernel: Kernel, mm: MmStruct, start: number, stop: number): number {
  const table = leafTable(kernel, mm, start as VirtAddr);
  if (table === NO_TABLE) return stop;
  let addr = start;
  lockTable(kernel, table);
  while (addr < stop) {
    const batch = madviseBatch(kernel, table, addr, stop);
    const isPart = batch > 0 && batch < HPAGE_PMD_NR;
    // A coherent device's folio stays as it is.
    if (isPart && !isZoneDevicePage(kernel.memmap.words, normalPageAt(kernel, mm, addr as VirtAddr))) break;
    for (const end = addr + Math.max(1, batch) * PAGE_SIZE; addr < end; addr += PAGE_SIZE) {
      freePte(kernel, mm, table + pteIndex(addr));
    }
  }
  // Before the lock goes: a store through an old, dirty translation would not be seen.
  flushTlbRange(kernel, mm, start as VirtAddr, addr as VirtAddr);
  unlockTable(kernel, table);
  return addr;
}

function freePte(kernel: Kernel, mm: MmStruct, at: number): void {
  const { halves } = kernel.ram;
  const { words } = kernel.memmap;
  const low = peek32(halves, 2 * at);
  const high = peek32(halves, 2 * at + 1);
  if (!lowPresent(low)) {
    freeLeaf(kernel, mm, at, low, high);
    return;
  }
  if ((low & LOW_SPECIAL) !== 0) return;
  const page = kernel.memmap.pfnToPage(halvesPfn(low, high) as Pfn);
  if (isZoneDevicePage(words, page)) return;
  if (pageTestFlag(words, page, PG_dirty | PG_swapcache)) {
    // Dirty for all who map it: only its single user may say that the contents do not matter.
    if (!folioTrylock(words, page)) return;
    const single = folioMapcount(words, folioHead(words, page)) === folioNrPages(words, page);
    const alone = single && (!pageTestFlag(words, page, PG_swapcache) || folioFreeSwap(kernel, page));
    if (alone) pageClearFlag(words, page, PG_dirty);
    folioUnlock(words, page);
    if (!alone) return;
  }
  and32(halves, 2 * at, ~(LOW_ACCESSED | LOW_DIRTY));
  // folio_mark_lazyfree()
  if (pageTestFlag(words, page, PG_swapbacked)) kernel.stats.pglazyfree++;
  pageClearFlag(words, page, PG_referenced | PG_swapbacked);
}

/** A swap entry is given up at once, and what had failed is none; other entries that are not present stay. */
function freeLeaf(kernel: Kernel, mm: MmStruct, at: number, low: number, high: number): void {
  if ((low | high) === 0) return;
  const kind = kernel.addressing.swapTypes.kindOf[highType(high)];
  if (kind !== 'swap' && kind !== 'hwpoison') return;
  setPteHalves(kernel.ram.words, at, 0, 0);
  if (kind === 'hwpoison') return;
  mm.swapents--;
  freeSwapAndCache(kernel, swapEntry(highType(high), halvesNumber(low, high)));
}

/** `can_madv_lru_vma()`, `madvise_dontneed_free_valid_vma()`: what is locked stays. */
const canMadvLru = (vma: VmArea): boolean => (vma.flags & (VM_PFNMAP | VM_LOCKED | VM_HUGETLB)) === 0;
