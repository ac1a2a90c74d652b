/**
 * Reclaim: pages that were not used lately leave RAM. Linux: mm/vmscan.c shrink_folio_list(), try_to_free_pages(), reclaim_pages().
 *
 *   folio                      where it goes
 *   anonymous                  into swap slots; large ones as a whole where there is a free cluster, otherwise in pieces
 *   anonymous, lazily freed    nowhere, if nobody has written to it since
 *   of shared memory           the same as anonymous ones once it is unmapped, unless it is clean: then it is zeroes, and nowhere
 *   of a file                  written back, and dropped
 *
 * Linux keeps lists of pages by age. Here a hand goes round over all of RAM (a clock): a page that was accessed since the hand
 * came by is passed over, any other goes. Device pages are never on the way:
 * their memory is the driver's to manage. Not modelled: kswapd and watermarks (only who finds no memory reclaims), cgroups,
 * workingset.
 */
import { HPAGE_PMD_NR } from '../abi/address.js';
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
import { filePages, removeFromCache, vmFileGet, vmFilePut } from './filemap.js';
import type { Kernel } from './kernel.js';
import {
  folioMapcount,
  folioNrPages,
  isLargeFolio,
  isolateLru,
  pageClearFlag,
  pageFileId,
  pageFlags,
  pageIndex,
  pageIsAnon,
  pageMapcount,
  pageMaybeDmaPinned,
  pageSetFlag,
  pageTestFlag,
  putbackLru,
} from './page.js';
import { writeAndWaitRange } from './page-writeback.js';
import { putPage } from './put-page.js';
import { shmemWriteout } from './shmem-swap.js';
import { splitFolioToList } from './split-folio.js';
import { addToSwap, deleteFromSwapCache, folioFreeSwap, swapWriteout } from './swap-state.js';
import { folioReferenced, pageMlocked, tryToUnmap } from './unmap-page.js';
import { tracksWrites, type VmFile } from './vma.js';

const { PG_buddy, PG_dirty, PG_hwpoison, PG_isolated, PG_locked, PG_lru } = PAGE_FLAGS;
const { PG_reclaim, PG_referenced, PG_swapbacked, PG_swapcache, PG_writeback } = PAGE_FLAGS;

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
    const folio = folioHead(words, page);
    const step = (flags & PG_buddy) === 0 ? folio + folioNrPages(words, folio) - page : freeBlock(words, page);
    passed += step;
    kernel.reclaimHand.offset += step;
    busy ||= (flags & (PG_locked | PG_isolated | PG_writeback)) !== 0;
    if ((flags & PG_lru) === 0) continue;
    kernel.stats.pgscan += step;
    const gone = yield* scanFolio(kernel, folio);
    if (gone === 0) continue;
    kernel.stats.pgsteal += gone;
    freed += gone;
    if (kernel.options.preempt()) yield SCHEDULE_POINT;
  }
  return { freed, busy };
}

/** Pages of the block that begins here. */
const freeBlock = (words: Int32Array, page: Page): number =>
  1 << words[(page << STRUCT_PAGE_WORD_SHIFT) + STRUCT_PAGE.word.private];

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

/** A folio that the hand came by. Without free slots it is in vain to look at what could only go to swap (`can_reclaim_anon_pages()`). */
function* scanFolio(kernel: Kernel, folio: Page): Sleeps<number> {
  const { words } = kernel.memmap;
  const needsSwap = pageTestFlag(words, folio, PG_swapbacked) && !pageTestFlag(words, folio, PG_swapcache);
  if (needsSwap && kernel.swap.free === 0) return 0;
  return isolateFolio(kernel, folio) ? yield* shrinkFolios(kernel, [folio], 'look') : 0;
}

/** `folio_isolate_lru()`: the folio is ours to reclaim, and held. */
export function isolateFolio({ memmap: { words } }: Kernel, folio: Page): boolean {
  if (!pageTestFlag(words, folio, PG_lru) || !getPageUnlessZero(words, folio)) return false;
  return isolateLru(words, folio);
}

/** Whether a folio goes that was used lately: MADV_PAGEOUT does not ask. */
export type References = 'look' | 'ignore';

/**
 * `shrink_folio_list()` of folios that are isolated: returns the pages that are free now. Whatever speaks against it leaves a folio as it
 * was, perhaps without its mappings, and what is left of it is put back.
 */
export function* shrinkFolios(kernel: Kernel, folios: readonly Page[], references: References): Sleeps<number> {
  const { words } = kernel.memmap;
  let freed = 0;
  // What comes apart adds to the list.
  const list = [...folios];
  for (const folio of list) {
    freed += yield* shrinkFolio(kernel, folio, references, list);
    putbackLru(words, folio);
    putPage(kernel, folio);
  }
  return freed;
}

function* shrinkFolio(kernel: Kernel, folio: Page, references: References, list: Page[]): Sleeps<number> {
  const { words } = kernel.memmap;
  const file = kernel.files.get(pageFileId(words, folio));
  if (file !== undefined && tracksWrites(file)) return yield* shrinkCached(kernel, file, folio, references);
  // A locked page is not waited for: who has it may wait for what we hold.
  if (!folioTrylock(words, folio)) return 0;
  let freed = 0;
  if (mayGo(kernel, folio, references)) {
    freed = yield* file === undefined ? pageOut(kernel, folio, list) : pageOutShmem(kernel, file, folio, list);
  }
  // A slot that no entry came to need is given back.
  if (freed === 0 && pageTestFlag(words, folio, PG_swapcache)) folioFreeSwap(kernel, folio);
  folioUnlock(words, folio);
  return freed;
}

/** Anonymous memory, and pages of the swap cache that nobody maps yet. Precondition: the folio is locked, held and isolated. */
function* pageOut(kernel: Kernel, folio: Page, list: Page[]): Sleeps<number> {
  const { words } = kernel.memmap;
  const inSwap = (): boolean => pageTestFlag(words, folio, PG_swapcache);
  // It has left its file meanwhile, and goes with its last user.
  if (!pageIsAnon(words, folio) && !inSwap()) return 0;
  if (pageTestFlag(words, folio, PG_swapbacked) && !inSwap()) {
    if (pageMaybeDmaPinned(words, folio) || !(yield* getSlots(kernel, folio, list))) return 0;
  }
  yield* tryToUnmap(kernel, folio);
  if (folioMapcount(words, folio) > 0) return 0;
  const pages = folioNrPages(words, folio);
  if (inSwap()) return dropSwapped(kernel, folio);
  // Lazily freed, or what it was in swap for has gone meanwhile: ours is the only reference.
  if (pageRefCount(words, folio) !== 1) return 0;
  if (!pageTestFlag(words, folio, PG_swapbacked)) kernel.stats.pglazyfreed += pages;
  return pages;
}

/** Slots for all of the folio; one that they do not suffice for comes apart, and its pieces have their turns later. */
function* getSlots(kernel: Kernel, folio: Page, list: Page[]): Sleeps<boolean> {
  const { words } = kernel.memmap;
  if (!isLargeFolio(words, folio)) return addToSwap(kernel, folio);
  // Whoever holds it keeps it whole.
  if (pageRefCount(words, folio) !== 1 + folioMapcount(words, folio)) return false;
  // What nobody maps any more is free without being written.
  if (!isPartlyMapped(words, folio) && addToSwap(kernel, folio)) return true;
  return (yield* splitFolioToList(kernel, folio, folio, list)) && addToSwap(kernel, folio);
}

/** `folio_test_partially_mapped()`. */
function isPartlyMapped(words: Int32Array, folio: Page): boolean {
  for (let i = 0; i < HPAGE_PMD_NR; i++) if (pageMapcount(words, (folio + i) as Page) === 0) return true;
  return false;
}

/**
 * `__remove_mapping()`: the pages that are free when the swap cache lets go of them. Whoever holds the folio beside it and us could
 * still change it.
 */
function dropSwapped(kernel: Kernel, folio: Page): number {
  const { words } = kernel.memmap;
  const pages = folioNrPages(words, folio);
  if (pageRefCount(words, folio) !== 1 + pages) return 0;
  if (pageTestFlag(words, folio, PG_dirty)) swapWriteout(kernel, folio);
  deleteFromSwapCache(kernel, folio);
  return pages;
}

/** Shared memory: unmapped first, since its slots have nothing to do with page tables. Precondition: the folio is locked, held and isolated. */
function* pageOutShmem(kernel: Kernel, file: VmFile, folio: Page, list: Page[]): Sleeps<number> {
  const { words, floats } = kernel.memmap;
  yield* tryToUnmap(kernel, folio);
  const pages = folioNrPages(words, folio);
  // The file may have ended meanwhile, and whoever holds the folio beside its cache and us could still change it.
  if (pageFileId(words, folio) !== file.id || folioMapcount(words, folio) > 0) return 0;
  if (pageRefCount(words, folio) !== 1 + pages) return 0;
  if (!pageTestFlag(words, folio, PG_dirty)) {
    removeFromCache(kernel, file, pageIndex(words, floats, folio));
    return pages;
  }
  if (kernel.swap.total === 0) return 0;
  const endsInside = pages > 1 && pageIndex(words, floats, folio) + pages > filePages(file);
  if (endsInside || !shmemWriteout(kernel, file, folio)) {
    if (pages === 1 || !(yield* splitFolioToList(kernel, folio, folio, list))) return 0;
    if (!shmemWriteout(kernel, file, folio)) return 0;
  }
  return dropSwapped(kernel, folio);
}

/**
 * A page of a file: unmapped, and dropped if it is clean. Where memory is wanted it is written back first, as the flusher threads do that
 * Linux wakes then; MADV_PAGEOUT takes what is clean.
 */
function* shrinkCached(kernel: Kernel, file: VmFile, page: Page, references: References): Sleeps<number> {
  const { words, floats } = kernel.memmap;
  if (folioLocked(words, page)) return 0;
  if (pageTestFlag(words, page, PG_writeback) && !pageMlocked(kernel, page)) pageSetFlag(words, page, PG_reclaim);
  if (!mayGo(kernel, page, references)) return 0;
  const index = pageIndex(words, floats, page);
  // The file may be closed while it is written.
  vmFileGet(file);
  if (references === 'look') yield* writeAndWaitRange(kernel, file, index, index + 1);
  let gone = false;
  if (folioTrylock(words, page)) {
    yield* tryToUnmap(kernel, page);
    const unmapped = pageMapcount(words, page) === 0 && !pageMaybeDmaPinned(words, page);
    const clean = !pageTestFlag(words, page, PG_dirty | PG_writeback);
    gone = unmapped && clean && file.pages.get(index) === page && pageRefCount(words, page) === 2;
    if (gone) removeFromCache(kernel, file, index);
    else if (unmapped && !clean) pageSetFlag(words, page, PG_reclaim);
    folioUnlock(words, page);
  }
  vmFilePut(kernel, file);
  return gone ? 1 : 0;
}

/** May the folio go at all, and was it not used lately (`folio_check_references`)? */
function mayGo(kernel: Kernel, folio: Page, references: References): boolean {
  const { words } = kernel.memmap;
  if (pageTestFlag(words, folio, PG_writeback) || pageMlocked(kernel, folio)) return false;
  const pages = folioNrPages(words, folio);
  for (let i = 0; i < pages; i++) if (pageTestFlag(words, (folio + i) as Page, PG_hwpoison)) return false;
  if (references === 'ignore') return true;
  const referenced = folioReferenced(kernel, folio) > 0;
  if (referenced) pageSetFlag(words, folio, PG_referenced);
  else pageClearFlag(words, folio, PG_referenced);
  return !referenced;
}
