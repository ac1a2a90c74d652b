/**
 * Taking a page out of use before it fails: what it holds moves elsewhere, and nobody notices. Linux: mm/memory-failure.c
 * soft_offline_page(), madvise_inject_error().
 *
 * What is in a page cache, clean, and used by nobody is dropped; all else moves. Not modelled: pages of the hugetlb pool (EBUSY), the sysctl.
 */
import { PAGE_SIZE } from '../abi/address.js';
import type { Result } from '../abi/errno.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { NULL_PAGE, type Page, type Pfn, type VirtAddr } from '../base/brand.js';
import { folioHead, folioUnlock, pageRefCount } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import { folioLock, removeFromCache } from './filemap.js';
import { getUserPages } from './gup.js';
import type { Kernel } from './kernel.js';
import { getHwpoisonPage, memoryFailure, pfnToOnlinePage, splitHuge } from './memory-failure.js';
import { migratePages } from './migrate-pages.js';
import type { MmStruct } from './mm-struct.js';
import {
  folioNrPages,
  isolateLru,
  pageClearFlag,
  pageFileId,
  pageIndex,
  pageSetFlag,
  pageTestFlag,
  putbackLru,
} from './page.js';
import { waitForWriteback } from './page-writeback.js';
import { putPage } from './put-page.js';
import { putUnmappedPage } from './swap-state.js';

const { PG_dirty, PG_hugetlb, PG_hwpoison, PG_isolated, PG_lru, PG_swapcache } = PAGE_FLAGS;

/**
 * `soft_offline_page()` of a frame, by its number.
 * @param counted the caller has a reference on the page, which is gone afterwards
 * @returns 0 (also for one that has failed already); EBUSY: somebody holds it; ENOMEM: there is nowhere to move it; EIO: a device's, or nobody knows whose; ENXIO: nothing
 */
export function* softOfflinePage(kernel: Kernel, pfn: number, counted = false): Sleeps<Result> {
  const { words } = kernel.memmap;
  const { lock } = kernel.memoryFailures;
  yield* lock.downWrite();
  try {
    const page = pfnToOnlinePage(kernel, pfn);
    const isDone = page !== NULL_PAGE && pageTestFlag(words, page, PG_hwpoison);
    if (page === NULL_PAGE || isDone || pageTestFlag(words, page, PG_hugetlb)) {
      const named = kernel.memmap.pfnToPage(pfn as Pfn);
      if (counted) putPage(kernel, named);
      if (page !== NULL_PAGE) return isDone ? 0 : 'EBUSY';
      return named === NULL_PAGE ? 'ENXIO' : 'EIO';
    }
    // HWPoisonHandlable(): the zero page, for one, is not on a list of pages.
    const handlable = counted && pageTestFlag(words, folioHead(words, page), PG_lru);
    if (counted && !handlable) putPage(kernel, page);
    const got = handlable ? 'held' : yield* getHwpoisonPage(kernel, page);
    if (got === 'busy') return 'EIO';
    if (got === 'held') return yield* offlineInUse(kernel, page);
    kernel.buddy.takeOff(page);
    return retire(kernel, page);
  } finally {
    lock.upWrite();
  }
}

/** `page_handle_poison()`: the page, which is ours alone, is never used again. */
function retire(kernel: Kernel, page: Page): 0 {
  pageSetFlag(kernel.memmap.words, page, PG_hwpoison);
  kernel.memoryFailures.poisoned++;
  kernel.memoryFailures.held.add(page);
  return 0;
}

/** `soft_offline_in_use_page()`. Precondition: the page is held, by a reference that is gone afterwards. */
function* offlineInUse(kernel: Kernel, page: Page): Sleeps<Result> {
  const { words } = kernel.memmap;
  if (yield* splitHuge(kernel, page)) {
    yield* folioLock(kernel, page);
    yield* waitForWriteback(kernel, page);
    const evicted = evict(kernel, page);
    folioUnlock(words, page);
    if (evicted) return retire(kernel, page);
    if (isolateLru(words, page)) return yield* moveAway(kernel, page);
  }
  putPage(kernel, page);
  return 'EBUSY';
}

/** Precondition: the page is isolated and held, by a reference that is gone afterwards. */
function* moveAway(kernel: Kernel, page: Page): Sleeps<Result> {
  const { words } = kernel.memmap;
  const failed = yield* migratePages(kernel, page);
  if (failed === 0) {
    pageClearFlag(words, page, PG_isolated);
    return retire(kernel, page);
  }
  putbackLru(words, page);
  // While it was locked its slot may have become free, and its last user gone.
  putUnmappedPage(kernel, page);
  return failed;
}

/** `mapping_evict_folio()`: a clean page of a page cache that nobody uses; of shared memory such a page is zeroes. */
function evict(kernel: Kernel, page: Page): boolean {
  const { words, floats } = kernel.memmap;
  const file = kernel.files.get(pageFileId(words, page));
  if (file === undefined || !pageTestFlag(words, page, PG_lru) || pageTestFlag(words, page, PG_dirty | PG_swapcache))
    return false;
  // The cache's reference and ours.
  if (pageRefCount(words, page) !== 2) return false;
  removeFromCache(kernel, file, pageIndex(words, floats, page));
  return true;
}

/**
 * MADV_HWPOISON and MADV_SOFT_OFFLINE: the pages of a range, each as it is found at the moment (of a huge page one). Takes mmap_lock
 * for each.
 * @returns EFAULT, ENOMEM: the page cannot be had; and what `memoryFailure` and `softOfflinePage` return
 */
export function* madviseInjectError(
  kernel: Kernel,
  mm: MmStruct,
  start: number,
  end: number,
  advice: 'HWPOISON' | 'SOFT_OFFLINE',
): Sleeps<Result> {
  const { memmap } = kernel;
  for (let at = start; at < end; ) {
    const { pages, errno } = yield* getUserPages(kernel, mm, at as VirtAddr, 1);
    if (errno !== 0) return errno;
    const page = pages[0]!;
    const size = folioNrPages(memmap.words, page) * PAGE_SIZE;
    const pfn = memmap.pageToPfn(page);
    const inject = advice === 'HWPOISON' ? memoryFailure : softOfflinePage;
    const failed = yield* inject(kernel, pfn, true);
    if (failed !== 0) return failed;
    at += size;
  }
  return 0;
}
