/**
 * The swap cache: pages that belong to a swap slot. Linux: mm/swap_state.c, mm/swapfile.c folio_free_swap(), free_swap_and_cache().
 *
 * A page is in it while it is on its way out or in, and afterwards as long as somebody still has the slot's entry in a page table:
 * whoever faults next gets the same page, so what fork shared stays shared. The cache holds one reference on each page; a large folio
 * is in it as a whole, and leaves it as one.
 */
import { PAGE_FLAGS, STRUCT_PAGE, STRUCT_PAGE_WORD_SHIFT } from '../abi/struct-page.js';
import { NO_SWAP_ENTRY, type SwapEntry } from '../abi/swap-entry.js';
import { NULL_PAGE, type Page } from '../base/brand.js';
import { injects } from '../base/injection.js';
import { folioHead, folioLocked, pageRefAdd } from '../sync/page-ref.js';
import type { Kernel } from './kernel.js';
import { folioMapcount, folioNrPages, pageClearFlag, pageSetFlag, pageTestFlag } from './page.js';
import { putPage } from './put-page.js';

const { PG_dirty, PG_lru, PG_swapbacked, PG_swapcache, PG_uptodate } = PAGE_FLAGS;
const PRIVATE = STRUCT_PAGE.word.private;

/** `page_swap_entry()`: NO_SWAP_ENTRY for a page that is not in the swap cache. */
export function pageSwapEntry(memmap: Int32Array, page: Page): SwapEntry {
  if (!pageTestFlag(memmap, page, PG_swapcache)) return NO_SWAP_ENTRY;
  const head = folioHead(memmap, page);
  return (memmap[(head << STRUCT_PAGE_WORD_SHIFT) + PRIVATE] + (page - head)) as SwapEntry;
}

/** The cache's half of `add_to_swap_cache()`. Precondition: the slots' pages are those of the folio already. */
function enterSwapCache(kernel: Kernel, folio: Page, entry: SwapEntry): void {
  const { words } = kernel.memmap;
  pageSetFlag(words, folio, PG_swapcache);
  words[(folio << STRUCT_PAGE_WORD_SHIFT) + PRIVATE] = entry;
  pageRefAdd(words, folio, folioNrPages(words, folio));
}

/** `folio_alloc_swap()`: slots for a folio that shall go out. False when there are none. Precondition: the folio is locked. */
export function addToSwap(kernel: Kernel, folio: Page): boolean {
  const { words } = kernel.memmap;
  if (injects(kernel, 'swap-full')) return false;
  const pages = folioNrPages(words, folio);
  let entry = kernel.swap.alloc(folio, pages);
  if (entry === NO_SWAP_ENTRY) {
    reclaimSlots(kernel);
    entry = kernel.swap.alloc(folio, pages);
  }
  if (entry === NO_SWAP_ENTRY) return false;
  enterSwapCache(kernel, folio, entry);
  // Its contents are nowhere else, whatever its entries said.
  pageSetFlag(words, folio, PG_dirty);
  return true;
}

/**
 * `swap_writeout()`: what is in the slots is what is in the folio; of one that is all zeroes only that is kept, and the area is spared.
 * Precondition: it is in the cache and locked; nobody maps it.
 */
export function swapWriteout(kernel: Kernel, folio: Page): void {
  const { memmap, ram, swap, stats } = kernel;
  const { words } = memmap;
  const pages = folioNrPages(words, folio);
  const zero = isZeroFilled(kernel, folio, pages);
  for (let page: number = folio; page < folio + pages; page++) {
    const entry = pageSwapEntry(words, page as Page);
    if (zero) swap.setZero(entry);
    else swap.write(entry, ram.bytes(memmap.ramFrame(page as Page)));
  }
  pageClearFlag(words, folio, PG_dirty);
  stats[zero ? 'swpoutZero' : 'pswpout'] += pages;
}

function isZeroFilled({ memmap, ram }: Kernel, folio: Page, pages: number): boolean {
  for (let i = 0; i < pages; i++) if (!ram.isZero(memmap.ramFrame((folio + i) as Page))) return false;
  return true;
}

/** `read_swap_cache_async()` of a slot without a page: one with the contents, held by the caller. NULL_PAGE when RAM is out. */
export function readIntoSwapCache(kernel: Kernel, entry: SwapEntry): Page {
  const page = kernel.buddy.allocPages(0);
  if (page !== NULL_PAGE) fillFromSwap(kernel, page, entry);
  return page;
}

/** `swap_read_folio()` of a new folio, in the slots from `entry` on, of which none has a page. */
export function fillFromSwap(kernel: Kernel, folio: Page, entry: SwapEntry): void {
  const { words } = kernel.memmap;
  const pages = folioNrPages(words, folio);
  const zero = kernel.swap.isZero(entry);
  for (let i = 0; i < pages; i++) {
    const page = (folio + i) as Page;
    kernel.swap.read((entry + i) as SwapEntry, kernel.ram.bytes(kernel.memmap.ramFrame(page)));
    kernel.swap.setCachedPage((entry + i) as SwapEntry, page);
  }
  enterSwapCache(kernel, folio, entry);
  pageSetFlag(words, folio, PG_uptodate | PG_swapbacked | PG_lru);
  kernel.stats[zero ? 'swpinZero' : 'pswpin'] += pages;
}

/** `swap_cache_del_folio()`, with the cache's references. Precondition: the folio is in the cache; the caller holds it. */
export function deleteFromSwapCache(kernel: Kernel, folio: Page): void {
  const pages = folioNrPages(kernel.memmap.words, folio);
  const entry = leaveSwapCache(kernel, folio);
  for (let i = 0; i < pages; i++) kernel.swap.setCachedPage((entry + i) as SwapEntry, NULL_PAGE);
  pageRefAdd(kernel.memmap.words, folio, 1 - pages);
  putPage(kernel, folio);
}

/** The folio's half of it. */
function leaveSwapCache({ memmap: { words } }: Kernel, folio: Page): SwapEntry {
  const entry = pageSwapEntry(words, folio);
  pageClearFlag(words, folio, PG_swapcache);
  words[(folio << STRUCT_PAGE_WORD_SHIFT) + PRIVATE] = 0;
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
 * `folio_free_swap()`: the page's folio needs its slots no more, if no entry does. It is dirty then: its contents are nowhere else.
 * Precondition: it is in the cache; the caller holds it.
 */
export function folioFreeSwap(kernel: Kernel, page: Page): boolean {
  const { words } = kernel.memmap;
  const folio = folioHead(words, page);
  const entry = pageSwapEntry(words, folio);
  const pages = folioNrPages(words, folio);
  // folio_swapped()
  for (let i = 0; i < pages; i++) if (kernel.swap.count((entry + i) as SwapEntry) > 0) return false;
  pageSetFlag(words, folio, PG_dirty);
  deleteFromSwapCache(kernel, folio);
  return true;
}

/**
 * `free_swap_and_cache()`: an entry of the slot has gone; the last one takes the cached folio along, if nobody maps it or swap is short.
 * (In Linux a folio whose lock is taken stays, for reclaim to find. Here whoever has the lock looks whether the page is in the cache still.)
 */
export function freeSwapAndCache(kernel: Kernel, entry: SwapEntry): void {
  kernel.swap.drop(entry);
  if (kernel.swap.count(entry) > 0) return;
  const page = kernel.swap.cachedPage(entry);
  if (page !== NULL_PAGE && (isUnmapped(kernel, page) || kernel.swap.full)) folioFreeSwap(kernel, page);
}

/** `free_folio_and_swap_cache()`: the caller's reference goes, and the slot of a page that nobody maps any more and nobody else needs. */
export function putUnmappedPage(kernel: Kernel, page: Page): void {
  if (pageTestFlag(kernel.memmap.words, page, PG_swapcache) && isUnmapped(kernel, page)) folioFreeSwap(kernel, page);
  putPage(kernel, page);
}

const isUnmapped = ({ memmap: { words } }: Kernel, page: Page): boolean =>
  folioMapcount(words, folioHead(words, page)) === 0;

/** Slots that only mapped pages of the swap cache have are free when somebody needs them (`swap_reclaim_full_clusters()`). */
function reclaimSlots(kernel: Kernel): void {
  for (const { count, page } of kernel.swap.used()) {
    if (count === 0 && page !== NULL_PAGE && !folioLocked(kernel.memmap.words, page)) folioFreeSwap(kernel, page);
  }
}
