/**
 * Shared memory in swap. Linux: mm/shmem.c shmem_writeout(), shmem_swapin_folio(), shmem_swap_usage().
 *
 * The swap entry stands in the page cache where the page was. Page tables know nothing of it: an entry there is none, and a fault
 * finds the page through the file, whichever process sent it away. A huge page goes as one where swap has a free cluster, and comes back
 * as one unless a part of it is in the swap cache or a userfaultfd wants to hear of each page. Not modelled: sizes between.
 */
import { HPAGE_PMD_NR } from '../abi/address.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import type { SwapEntry } from '../abi/swap-entry.js';
import { NULL_PAGE, type Page } from '../base/brand.js';
import { folioHead, folioUnlock, pageRefAdd } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import { folioLock, removeFromCache } from './filemap.js';
import { allocHugeFolio } from './huge-memory.js';
import type { Kernel } from './kernel.js';
import { folioNrPages, pageIndex, pageSetFileMapping, pageSetFlag } from './page.js';
import { putPage } from './put-page.js';
import {
  addToSwap,
  deleteFromSwapCache,
  fillFromSwap,
  pageSwapEntry,
  readIntoSwapCache,
  swapWriteout,
} from './swap-state.js';
import { linearPageIndex, type VmArea, type VmFile } from './vma.js';

/** Page offset of the huge page, if there is one, to which a page belongs. */
const hugeStart = (index: number): number => Math.floor(index / HPAGE_PMD_NR) * HPAGE_PMD_NR;

/**
 * `shmem_writeout()`: false when swap has no room for it. Afterwards the folio is in the swap cache alone, and clean.
 * Preconditions: it is in the file's page cache, locked and held, and nobody maps it.
 */
export function shmemWriteout(kernel: Kernel, file: VmFile, folio: Page): boolean {
  const { words, floats } = kernel.memmap;
  if (!addToSwap(kernel, folio)) return false;
  const { entries, huge } = file.swapped!;
  const first = pageIndex(words, floats, folio);
  const entry = pageSwapEntry(words, folio);
  const pages = folioNrPages(words, folio);
  for (let i = 0; i < pages; i++) {
    kernel.swap.duplicate((entry + i) as SwapEntry);
    entries.set(first + i, (entry + i) as SwapEntry);
  }
  if (pages > 1) huge.add(first);
  removeFromCache(kernel, file, first);
  swapWriteout(kernel, folio);
  return true;
}

/**
 * `shmem_swapin_folio()`: what was in swap at page offset `index` is in the page cache again; the page, locked and held. NULL_PAGE: somebody else
 * has been faster, or has taken it away. Precondition: the file has something in swap there.
 */
export function* shmemSwapIn(kernel: Kernel, file: VmFile, index: number): Sleeps<Page | 'ENOMEM'> {
  const { words } = kernel.memmap;
  const { entries } = file.swapped!;
  const entry = entries.get(index)!;
  const cached = kernel.swap.cachedPage(entry);
  if (cached !== NULL_PAGE) pageRefAdd(words, cached, 1);
  const page = cached === NULL_PAGE ? readShmem(kernel, file, index, entry) : cached;
  if (page === NULL_PAGE) return 'ENOMEM';
  const folio = folioHead(words, page);
  if (folioNrPages(words, folio) === 1) splitSwapped(file, index);
  yield* folioLock(kernel, folio);
  // While we waited for the lock the page may have left the cache, and the entry the file.
  if (pageSwapEntry(words, page) !== entry || entries.get(index) !== entry) {
    folioUnlock(words, folio);
    putPage(kernel, folio);
    return NULL_PAGE;
  }
  returnToCache(kernel, file, folio, index - (page - folio));
  return page;
}

/** `shmem_swap_alloc_folio()`: the page of `index`, in a huge page where it went as one; NULL_PAGE when RAM is out. */
function readShmem(kernel: Kernel, file: VmFile, index: number, entry: SwapEntry): Page {
  const first = hugeStart(index);
  const firstEntry = (entry - (index - first)) as SwapEntry;
  if (!file.swapped!.huge.has(first) || isPartlyCached(kernel, firstEntry)) return readIntoSwapCache(kernel, entry);
  const folio = allocHugeFolio(kernel);
  if (folio === NULL_PAGE) return readIntoSwapCache(kernel, entry);
  fillFromSwap(kernel, folio, firstEntry);
  return (folio + (index - first)) as Page;
}

function isPartlyCached(kernel: Kernel, first: SwapEntry): boolean {
  for (let i = 0; i < HPAGE_PMD_NR; i++) {
    if (kernel.swap.cachedPage((first + i) as SwapEntry) !== NULL_PAGE) return true;
  }
  return false;
}

/** Would the page at this page offset come back from swap as a part of a huge one? */
export const isHugeInSwap = (file: VmFile, index: number): boolean => file.swapped?.huge.has(hugeStart(index)) ?? false;

/** `shmem_split_large_entry()`: what went as one at this page offset comes back page by page. */
export const splitSwapped = (file: VmFile, index: number): void => void file.swapped?.huge.delete(hugeStart(index));

/** The folio has the place of its swap entries from `first` on. Precondition: it is in the swap cache, locked and held. */
function returnToCache(kernel: Kernel, file: VmFile, folio: Page, first: number): void {
  const { words, floats } = kernel.memmap;
  const { entries, huge } = file.swapped!;
  const pages = folioNrPages(words, folio);
  for (let i = 0; i < pages; i++) {
    kernel.swap.drop(entries.get(first + i)!);
    entries.delete(first + i);
    file.pages.set(first + i, (folio + i) as Page);
  }
  huge.delete(first);
  pageSetFileMapping(words, floats, folio, file.id, first);
  pageRefAdd(words, folio, pages);
  deleteFromSwapCache(kernel, folio);
  // Its slots are gone: its contents are nowhere else.
  pageSetFlag(words, folio, PAGE_FLAGS.PG_dirty);
}

/** `shmem_swap_usage()` of [start, end): pages of the object in swap. Of a huge page that went as one all count, wherever its border lies. */
export function shmemSwapUsage({ swapped }: VmFile, first: number, end: number): number {
  let pages = 0;
  if (swapped === undefined || swapped.entries.size === 0) return pages;
  for (let index = first; index < end; ) {
    const start = hugeStart(index);
    const isHuge = swapped.huge.has(start);
    if (isHuge) pages += HPAGE_PMD_NR;
    else if (swapped.entries.has(index)) pages++;
    index = isHuge ? start + HPAGE_PMD_NR : index + 1;
  }
  return pages;
}

/**
 * `shmem_swapin_range()`, for MADV_WILLNEED: what is in swap comes into the swap cache, and into the page cache with the faults to come.
 * Of a huge page that went as one it is the first page.
 */
export function shmemSwapInRange(kernel: Kernel, vma: VmArea, file: VmFile, start: number, end: number): void {
  const { entries, huge } = file.swapped!;
  const stop = linearPageIndex(vma, end);
  for (let index = linearPageIndex(vma, start); index < stop; ) {
    const first = hugeStart(index);
    const isHuge = huge.has(first);
    const entry = entries.get(isHuge ? first : index);
    index = isHuge ? first + HPAGE_PMD_NR : index + 1;
    if (entry === undefined || kernel.swap.cachedPage(entry) !== NULL_PAGE) continue;
    const page = readIntoSwapCache(kernel, entry);
    if (page !== NULL_PAGE) putPage(kernel, page);
  }
}
