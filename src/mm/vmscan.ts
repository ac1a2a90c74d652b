/**
 * Reclaim: pages that were not used lately leave RAM. Linux: mm/vmscan.c shrink_folio_list(), try_to_free_pages(), reclaim_pages().
 *
 * Linux keeps lists of pages by age. Here a hand goes round over all of RAM (a clock): a page that was accessed since the hand
 * came by is passed over, any other goes. Device pages are never on the way:
 * their memory is the driver's to manage. Not modelled: kswapd and watermarks (only who finds no memory reclaims), cgroups,
 * workingset, large folios in swap (they come apart first), shared memory in swap (it stays).
 */
import { PAGE_FLAGS, STRUCT_PAGE, STRUCT_PAGE_WORD_SHIFT } from '../abi/struct-page.js';
import type { Page } from '../base/brand.js';
import {
  folioHead,
  folioLocked,
  folioTrylock,
  folioUnlock,
  getPageUnlessZero,
  pageRefCount,
} from '../sync/page-ref.js';
import { SCHEDULE_POINT, type Sleeps } from '../sync/task.js';
import { removeFromCache, vmFileGet, vmFilePut } from './filemap.js';
import type { Kernel } from './kernel.js';
import {
  isLargeFolio,
  pageClearFlag,
  pageFileId,
  pageFlags,
  pageIndex,
  pageMapcount,
  pageMaybeDmaPinned,
  pageSetFlag,
  pageTestFlag,
} from './page.js';
import { writeAndWaitRange } from './page-writeback.js';
import { putPage } from './put-page.js';
import { splitFolio } from './split-folio.js';
import { addToSwap, deleteFromSwapCache, folioFreeSwap, pageSwapEntry } from './swap-state.js';
import { folioReferenced, pageMlocked, tryToUnmap } from './unmap-page.js';
import { tracksWrites } from './vma.js';

const { PG_buddy, PG_dirty, PG_isolated, PG_locked, PG_lru } = PAGE_FLAGS;
const { PG_referenced, PG_swapbacked, PG_swapcache, PG_writeback } = PAGE_FLAGS;

/** Pages that one who finds no memory frees at a time. */
export const SWAP_CLUSTER_MAX = 32;
/** Rounds of the hand: the first takes the accessed bits away, the second finds what was not accessed since. */
const ROUNDS_MAX = 2;
/** What a look at pages came to. */
export interface ScanResult {
  readonly freed: number;
  /** Some page was in somebody's hands: it may be free later. */
  readonly busy: boolean;
}

/** Let the hand go round until `wanted` pages are free, or it has been everywhere as often as it makes sense. */
export function* scanForPages(kernel: Kernel, wanted: number): Sleeps<ScanResult> {
  const { words } = kernel.memmap;
  let freed = 0;
  let busy = false;
  for (let passed = 0; passed < ROUNDS_MAX * kernel.totalRamPages && freed < wanted; ) {
    const page = handPage(kernel);
    const flags = pageFlags(words, page);
    const step = (flags & PG_buddy) === 0 ? 1 : 1 << words[(page << STRUCT_PAGE_WORD_SHIFT) + STRUCT_PAGE.word.private];
    passed += step;
    kernel.reclaimHand.offset += step;
    busy ||= (flags & (PG_locked | PG_isolated | PG_writeback)) !== 0;
    if ((flags & PG_lru) === 0) continue;
    kernel.stats.pgscan++;
    if (!(yield* reclaimPage(kernel, page, false))) continue;
    kernel.stats.pgsteal++;
    freed++;
    if (kernel.options.preempt()) yield SCHEDULE_POINT;
  }
  return { freed, busy };
}

/** The page under the hand, which goes on to the next range of RAM where it has come to the end of one. */
function handPage({ ramRanges, reclaimHand: hand }: Kernel): Page {
  if (hand.offset >= ramRanges[hand.range]!.pages) {
    hand.offset = 0;
    hand.range = (hand.range + 1) % ramRanges.length;
  }
  return (ramRanges[hand.range]!.first + hand.offset) as Page;
}

/** `try_to_free_pages()`: free up to `wanted` pages. Returns how many; 0 when there is nothing that could go. */
export function* tryToFreePages(kernel: Kernel, wanted: number): Sleeps<number> {
  return canReclaim(kernel) ? (yield* scanForPages(kernel, wanted)).freed : 0;
}

/** Is there anything that may go at all? Without swap and files a look at every page would be in vain. */
export function canReclaim(kernel: Kernel): boolean {
  if (kernel.swap.total > 0 || kernel.stats.pglazyfree > 0) return true;
  for (const file of kernel.files) if (tracksWrites(file) && file.pages.size > 0) return true;
  return false;
}

/**
 * `shrink_folio_list()` of one page: true when it is free now. Whatever speaks against it leaves the page as it was. A large folio
 * comes apart first.
 * @param ignoreReferences whether a page goes that was used lately (MADV_PAGEOUT)
 */
export function* reclaimPage(kernel: Kernel, page: Page, ignoreReferences: boolean): Sleeps<boolean> {
  const { words } = kernel.memmap;
  const head = folioHead(words, page);
  if (isLargeFolio(words, head)) {
    if (!pageTestFlag(words, head, PG_lru) || !mayGo(kernel, head, ignoreReferences)) return false;
    yield* splitForReclaim(kernel, head);
    if (isLargeFolio(words, folioHead(words, page))) return false;
  }
  if (!pageTestFlag(words, page, PG_lru) || !getPageUnlessZero(words, page)) return false;
  pageClearFlag(words, page, PG_lru);
  pageSetFlag(words, page, PG_isolated);
  const gone =
    pageFileId(words, page) === 0
      ? yield* shrinkAnon(kernel, page, ignoreReferences)
      : yield* shrinkCached(kernel, page, ignoreReferences);
  pageClearFlag(words, page, PG_isolated);
  pageSetFlag(words, page, PG_lru);
  putPage(kernel, page);
  return gone;
}

/**
 * `split_folio_to_list()`: a large folio is not swapped out as one. What holds nothing but zeroes gives way to the zero page; who
 * holds the folio keeps it whole.
 */
export function* splitForReclaim(kernel: Kernel, page: Page): Sleeps<void> {
  const { words } = kernel.memmap;
  const head = folioHead(words, page);
  if (!isLargeFolio(words, head) || !getPageUnlessZero(words, head)) return;
  if (folioTrylock(words, head)) {
    yield* splitFolio(kernel, head, head);
    folioUnlock(words, head);
  }
  putPage(kernel, head);
}

/** Anonymous memory: into a swap slot, or nowhere after MADV_FREE. Also pages of the swap cache that nobody maps yet. */
function* shrinkAnon(kernel: Kernel, page: Page, ignoreReferences: boolean): Sleeps<boolean> {
  const { words } = kernel.memmap;
  if (!folioTrylock(words, page)) return false;
  const gone = yield* pageOut(kernel, page, ignoreReferences);
  // A slot that no entry came to need is given back.
  if (!gone && pageTestFlag(words, page, PG_swapcache)) folioFreeSwap(kernel, page);
  folioUnlock(words, page);
  return gone;
}

/** Precondition: the page is locked, held and isolated. */
function* pageOut(kernel: Kernel, page: Page, ignoreReferences: boolean): Sleeps<boolean> {
  const { words } = kernel.memmap;
  if (!mayGo(kernel, page, ignoreReferences)) return false;
  const inSwap = (): boolean => pageTestFlag(words, page, PG_swapcache);
  if (pageTestFlag(words, page, PG_swapbacked) && !inSwap()) {
    if (pageMaybeDmaPinned(words, page) || !addToSwap(kernel, page)) return false;
  }
  yield* tryToUnmap(kernel, page);
  if (pageMapcount(words, page) > 0) return false;
  if (!inSwap()) {
    // Lazily freed, or what it was in swap for has gone meanwhile: ours is the only reference.
    const alone = pageRefCount(words, page) === 1;
    if (alone && !pageTestFlag(words, page, PG_swapbacked)) kernel.stats.pglazyfreed++;
    return alone;
  }
  // __remove_mapping(): whoever holds the page beside the cache and us could still change it.
  if (pageRefCount(words, page) !== 2) return false;
  if (pageTestFlag(words, page, PG_dirty)) {
    kernel.swap.write(pageSwapEntry(words, page), kernel.ram.bytes(kernel.memmap.ramFrame(page)));
    pageClearFlag(words, page, PG_dirty);
    kernel.stats.pswpout++;
  }
  deleteFromSwapCache(kernel, page);
  return true;
}

/** A page of a file: written back if it is dirty, unmapped, dropped. Shared memory stays. */
function* shrinkCached(kernel: Kernel, page: Page, ignoreReferences: boolean): Sleeps<boolean> {
  const { words, floats } = kernel.memmap;
  const file = kernel.files.get(pageFileId(words, page));
  // A locked page is not waited for: who has it may wait for what we hold.
  if (file === undefined || !tracksWrites(file) || folioLocked(words, page) || !mayGo(kernel, page, ignoreReferences))
    return false;
  const index = pageIndex(words, floats, page);
  // The file may be closed while it is written.
  vmFileGet(file);
  yield* writeAndWaitRange(kernel, file, index, index + 1);
  let gone = false;
  if (folioTrylock(words, page)) {
    yield* tryToUnmap(kernel, page);
    const clean = !pageTestFlag(words, page, PG_dirty | PG_writeback);
    gone =
      clean && file.pages.get(index) === page && pageMapcount(words, page) === 0 && pageRefCount(words, page) === 2;
    if (gone) removeFromCache(kernel, file, index);
    folioUnlock(words, page);
  }
  vmFilePut(kernel, file);
  return gone;
}

/** May the page go at all, and was it not used lately (`folio_check_references`)? */
function mayGo(kernel: Kernel, page: Page, ignoreReferences: boolean): boolean {
  const { words } = kernel.memmap;
  if (pageTestFlag(words, page, PG_writeback) || pageMlocked(kernel, page)) return false;
  if (ignoreReferences) return true;
  const referenced = folioReferenced(kernel, page) > 0;
  if (referenced) pageSetFlag(words, page, PG_referenced);
  else pageClearFlag(words, page, PG_referenced);
  return !referenced;
}
