/**
 * The swap cache: pages that belong to a swap slot. Linux: mm/swap_state.c, mm/swapfile.c folio_free_swap(), free_swap_and_cache().
 *
 * A page is in it while it is on its way out or in, and afterwards as long as somebody still has the slot's entry in a page table:
 * whoever faults next gets the same page, so what fork shared stays shared. When the last such entry is dropped and not faulted on, the
 * page stays as long as it is mapped: what is in the slot spares it from being written again. The cache holds one reference.
 */
import { PAGE_FLAGS, STRUCT_PAGE, STRUCT_PAGE_WORD_SHIFT } from '../abi/struct-page.js';
import { NO_SWAP_ENTRY, type SwapEntry } from '../abi/swap-entry.js';
import { NULL_PAGE, type Page } from '../base/brand.js';
import { injects } from '../base/injection.js';
import { pageRefAdd } from '../sync/page-ref.js';
import type { Kernel } from './kernel.js';
import { folioMapcount, pageClearFlag, pageSetFlag, pageTestFlag } from './page.js';
import { putPage } from './put-page.js';

const { PG_dirty, PG_lru, PG_swapbacked, PG_swapcache, PG_uptodate } = PAGE_FLAGS;
const PRIVATE = STRUCT_PAGE.word.private;

/** `folio->swap`: NO_SWAP_ENTRY for a page that is not in the swap cache. */
export function pageSwapEntry(memmap: Int32Array, page: Page): SwapEntry {
  if (!pageTestFlag(memmap, page, PG_swapcache)) return NO_SWAP_ENTRY;
  return memmap[(page << STRUCT_PAGE_WORD_SHIFT) + PRIVATE] as SwapEntry;
}

/** The cache's half of `add_to_swap_cache()`. Precondition: the slot's page is this one already. */
function enterSwapCache(kernel: Kernel, page: Page, entry: SwapEntry): void {
  const { words } = kernel.memmap;
  pageSetFlag(words, page, PG_swapcache);
  words[(page << STRUCT_PAGE_WORD_SHIFT) + PRIVATE] = entry;
  pageRefAdd(words, page, 1);
}

/** `folio_alloc_swap()`: a slot for a page that shall go out. False when there is none. Precondition: the page is locked. */
export function addToSwap(kernel: Kernel, page: Page): boolean {
  const entry = injects(kernel, 'swap-full') ? NO_SWAP_ENTRY : kernel.swap.alloc(page);
  if (entry === NO_SWAP_ENTRY) return false;
  enterSwapCache(kernel, page, entry);
  // Its contents are nowhere else, whatever its entries said.
  pageSetFlag(kernel.memmap.words, page, PG_dirty);
  return true;
}

/** `read_swap_cache_async()` of a slot without a page: one with the contents, held by the caller. NULL_PAGE when RAM is out. */
export function readIntoSwapCache(kernel: Kernel, entry: SwapEntry): Page {
  const page = kernel.buddy.allocPages(0);
  if (page === NULL_PAGE) return page;
  kernel.swap.read(entry, kernel.ram.bytes(kernel.memmap.ramFrame(page)));
  kernel.swap.setCachedPage(entry, page);
  enterSwapCache(kernel, page, entry);
  pageSetFlag(kernel.memmap.words, page, PG_uptodate | PG_swapbacked | PG_lru);
  kernel.stats.pswpin++;
  return page;
}

/** `swap_cache_del_folio()`, with the cache's reference. Precondition: the page is in the cache; the caller holds it. */
export function deleteFromSwapCache(kernel: Kernel, page: Page): void {
  kernel.swap.setCachedPage(leaveSwapCache(kernel, page), NULL_PAGE);
  putPage(kernel, page);
}

/** The page's half of it. */
function leaveSwapCache({ memmap: { words } }: Kernel, page: Page): SwapEntry {
  const entry = pageSwapEntry(words, page);
  pageClearFlag(words, page, PG_swapcache);
  words[(page << STRUCT_PAGE_WORD_SHIFT) + PRIVATE] = 0;
  return entry;
}

/** `__folio_migrate_mapping()` of a page in the cache: another has its place from now on. Precondition: both are locked and held. */
export function migrateInSwapCache(kernel: Kernel, from: Page, to: Page): void {
  const entry = leaveSwapCache(kernel, from);
  kernel.swap.setCachedPage(entry, to);
  enterSwapCache(kernel, to, entry);
  putPage(kernel, from);
}

/**
 * `folio_free_swap()`: the page needs its slot no more, if no entry does. It is dirty then: its contents are nowhere else.
 * Precondition: the page is in the cache; the caller holds it.
 */
export function folioFreeSwap(kernel: Kernel, page: Page): boolean {
  const { words } = kernel.memmap;
  if (kernel.swap.count(pageSwapEntry(words, page)) > 0) return false;
  pageSetFlag(words, page, PG_dirty);
  deleteFromSwapCache(kernel, page);
  return true;
}

/**
 * `free_swap_and_cache()`: a page table entry of the slot has gone; the last one takes the cached page along, unless somebody maps it
 * and swap is not short. (In Linux a page whose lock is taken stays, for reclaim to find. Here whoever has the lock looks whether the
 * page is in the cache still.)
 */
export function freeSwapAndCache(kernel: Kernel, entry: SwapEntry): void {
  const { swap, memmap } = kernel;
  swap.drop(entry);
  const page = swap.cachedPage(entry);
  if (page === NULL_PAGE || (folioMapcount(memmap.words, page) > 0 && !swap.full)) return;
  folioFreeSwap(kernel, page);
}

/** `free_swap_cache()`: a mapping of the page has gone; with the last one the page leaves the swap cache, if no entry has the slot. */
export function freeSwapCache(kernel: Kernel, page: Page): void {
  const { words } = kernel.memmap;
  if (pageTestFlag(words, page, PG_swapcache) && folioMapcount(words, page) === 0) folioFreeSwap(kernel, page);
}
