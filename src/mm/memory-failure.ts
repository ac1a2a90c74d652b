/**
 * Memory that fails: a page of RAM that holds wrong bytes goes out of use, and whoever needs what it held hears of it. Linux:
 * mm/memory-failure.c.
 *
 *   the page is                        becomes                                        whoever maps it
 *   free                               taken out of the allocator                     -
 *   anonymous                          nobody's                                       hwpoison entries: SIGBUS with the next touch
 *   in the swap cache, dirty           stays there                                    swap entries: SIGBUS with the next touch
 *   in the swap cache, clean           dropped                                        swap entries: read again
 *   of a file, clean                   dropped from the page cache                    none: read again
 *   of a file, dirty                   the same, and the file's next fsync is EIO     hwpoison entries
 *   shared memory                      stays in the page cache, for SIGBUS            hwpoison entries
 *   a part of a huge page              single first
 *   anything else                      flagged, and stays as it is: EBUSY
 *
 * The frame keeps the reference by which it was taken, for ever. Failures are simulated (MF_SW_SIMULATED): the bytes are not wrong, and
 * `unpoisonMemory` takes a failure back. Not modelled: pages of the hugetlb pool (EBUSY), drivers' own handlers
 * (`pgmap->ops->memory_failure`), machine checks of a CPU that reads wrong bytes by itself, the sysctls.
 */
import type { Result } from '../abi/errno.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { NULL_PAGE, type Page, type Pfn, type VirtAddr } from '../base/brand.js';
import { folioHead, folioUnlock, getPageUnlessZero, pageRefCount } from '../sync/page-ref.js';
import { SCHEDULE_POINT, type Sleeps } from '../sync/task.js';
import { folioLock, removeFromCache } from './filemap.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import {
  isLargeFolio,
  isZoneDevicePage,
  pageClearFlag,
  pageFileId,
  pageHasMapping,
  pageIndex,
  pageIsAnon,
  pageMapcount,
  pageMarkDirty,
  pagePgmapId,
  pageSetFlag,
  pageTestFlag,
} from './page.js';
import { folioMkclean, waitForWriteback } from './page-writeback.js';
import { isFreeBuddyPage } from './proc-page.js';
import { putPage } from './put-page.js';
import { rmapAddress } from './rmap.js';
import { splitFolio } from './split-folio.js';
import { deleteFromSwapCache } from './swap-state.js';
import { rmapEntries, tryToUnmap } from './unmap-page.js';
import { tracksWrites } from './vma.js';

const { PG_dirty, PG_hugetlb, PG_hwpoison, PG_lru, PG_reserved, PG_swapcache, PG_table } = PAGE_FLAGS;
const { PG_uptodate, PG_writeback } = PAGE_FLAGS;
/** How often a page that is in nobody's hands at the moment, or in the wrong ones, is looked at (`get_any_page()`). */
const GET_PASSES = 4;
/** Rounds of unmapping: while a notifier sleeps, mappings move. */
const UNMAP_ROUNDS = 3;

/** A struct page that has RAM behind it (`pfn_to_online_page`); NULL_PAGE for any other frame number. */
export function pfnToOnlinePage({ memmap, ramRanges }: Kernel, pfn: number): Page {
  const page = memmap.pfnToPage(pfn as Pfn);
  return ramRanges.some(({ first, pages }) => page >= first && page < first + pages) ? page : NULL_PAGE;
}

/**
 * `memory_failure()` of a frame, by its number. Takes the lock of failures, and whatever it takes to unmap a page.
 * @param counted the caller has a reference on the page, which the failure takes over (MF_COUNT_INCREASED)
 * @returns 0: dealt with; EBUSY: flagged, but still in use, or of a device, or nothing has a struct page there; EHWPOISON: it has failed
 * before, or is a part of a huge page that does not come apart; ENXIO: nobody knows what is there
 */
export function* memoryFailure(kernel: Kernel, pfn: number, counted = false): Sleeps<Result> {
  const { lock } = kernel.memoryFailures;
  yield* lock.downWrite();
  try {
    const page = pfnToOnlinePage(kernel, pfn);
    return page !== NULL_PAGE ? yield* failPage(kernel, page, counted) : failElsewhere(kernel, pfn, counted);
  } finally {
    lock.upWrite();
  }
}

/** The frame is none of RAM. */
function failElsewhere(kernel: Kernel, pfn: number, counted: boolean): 'EBUSY' | 'ENXIO' {
  const { words } = kernel.memmap;
  const page = kernel.memmap.pfnToPage(pfn as Pfn);
  if (counted) putPage(kernel, page);
  // memory_failure_pfn(): no driver has said whose it is.
  if (page === NULL_PAGE) return 'EBUSY';
  const pgmap = kernel.pagemaps.get(pagePgmapId(words, page));
  if (!isZoneDevicePage(words, page) || pgmap === undefined || pgmap.ref!.dying) return 'ENXIO';
  // memory_failure_dev_pagemap(): no driver has a handler. The generic one is for files that are on the device (dax_lock_folio()); all else
  // stays as it is, with its mappings, and does not even say that it has failed. But it is counted.
  kernel.memoryFailures.ofDevices++;
  return 'EBUSY';
}

function* failPage(kernel: Kernel, page: Page, counted: boolean): Sleeps<Result> {
  const { words } = kernel.memmap;
  const already = pageTestFlag(words, page, PG_hwpoison);
  if (already || pageTestFlag(words, page, PG_hugetlb)) {
    if (counted) putPage(kernel, page);
    return already ? 'EHWPOISON' : 'EBUSY';
  }
  pageSetFlag(words, page, PG_hwpoison);
  kernel.memoryFailures.poisoned++;
  if (!counted) {
    const got = yield* getHwpoisonPage(kernel, page);
    if (got === 'free') return takeOffBuddy(kernel, page);
    if (got === 'busy') return 'EBUSY';
  }
  if (!(yield* splitHuge(kernel, page))) {
    // kill_procs_now(): only who wants to hear of it early.
    signalEarly(kernel, page);
    putPage(kernel, page);
    return 'EHWPOISON';
  }
  kernel.memoryFailures.held.add(page);
  return yield* failSinglePage(kernel, page);
}

/** `get_hwpoison_page()`: a reference on a page that can be dealt with; or it is free, or neither. */
export function* getHwpoisonPage(kernel: Kernel, page: Page): Sleeps<'held' | 'free' | 'busy'> {
  const { words } = kernel.memmap;
  for (let pass = 0; pass < GET_PASSES; pass++) {
    if (isFreeBuddyPage(kernel, page)) return 'free';
    const head = folioHead(words, page);
    if (pageTestFlag(words, head, PG_lru) && getPageUnlessZero(words, head)) return 'held';
    if (kernel.options.preempt()) yield SCHEDULE_POINT;
  }
  return 'busy';
}

/** `take_page_off_buddy()`: the rest of its block stays. */
function takeOffBuddy(kernel: Kernel, page: Page): 0 {
  kernel.buddy.takeOff(page);
  kernel.memoryFailures.held.add(page);
  return 0;
}

/** `try_to_split_thp_page()`: afterwards the page is single, and the reference its own. False: somebody holds its folio. */
export function* splitHuge(kernel: Kernel, page: Page): Sleeps<boolean> {
  const { words } = kernel.memmap;
  if (!isLargeFolio(words, folioHead(words, page))) return true;
  yield* folioLock(kernel, folioHead(words, page));
  const split = !isLargeFolio(words, folioHead(words, page)) || (yield* splitFolio(kernel, page, page));
  folioUnlock(words, page);
  return split;
}

/** The page is single and held. */
function* failSinglePage(kernel: Kernel, page: Page): Sleeps<Result> {
  const { words } = kernel.memmap;
  yield* folioLock(kernel, page);
  const inHands = !pageTestFlag(words, page, PG_lru | PG_writeback);
  if (!inHands) {
    yield* waitForWriteback(kernel, page);
    const gone = (): boolean =>
      pageTestFlag(words, page, PG_lru) && !pageTestFlag(words, page, PG_swapcache) && !pageHasMapping(words, page);
    // Still mapped by who does not let go, or torn down by somebody else.
    if (!(yield* hwpoisonUserMappings(kernel, page)) || gone()) {
      folioUnlock(words, page);
      return 'EBUSY';
    }
  }
  const recovered = pageAction(kernel, page);
  folioUnlock(words, page);
  return recovered ? 0 : 'EBUSY';
}

/** `hwpoison_user_mappings()`: nobody maps the page any more. Precondition: it is locked. */
function* hwpoisonUserMappings(kernel: Kernel, page: Page): Sleeps<boolean> {
  const { words } = kernel.memmap;
  if (pageTestFlag(words, page, PG_reserved | PG_table) || !pageTestFlag(words, page, PG_lru)) return true;
  if (pageMapcount(words, page) === 0) return true;
  const victims = earlyVictims(kernel, page);
  // What is in swap comes from there again, or is found wrong in the swap cache.
  let leaveEntries = !pageTestFlag(words, page, PG_swapcache);
  const file = kernel.files.get(pageFileId(words, page));
  if (file !== undefined && tracksWrites(file) && !pageTestFlag(words, page, PG_dirty)) {
    // A clean page can be read again, as if nothing had happened.
    if (yield* folioMkclean(kernel, page)) pageMarkDirty(words, page);
    else leaveEntries = false;
  }
  for (let round = 0; round < UNMAP_ROUNDS && pageMapcount(words, page) > 0; round++) {
    yield* tryToUnmap(kernel, page, leaveEntries ? 'poison' : 'lose');
  }
  const unmapped = pageMapcount(words, page) === 0;
  if (pageTestFlag(words, page, PG_dirty) || !unmapped) for (const { mm, address } of victims) signal(mm, address);
  return unmapped;
}

/** `collect_procs()`: who maps the page and wants to hear at once (PR_MCE_KILL_EARLY); the others hear when they touch it. */
function earlyVictims(kernel: Kernel, page: Page): { readonly mm: MmStruct; readonly address: VirtAddr }[] {
  const { words, floats } = kernel.memmap;
  const index = pageIndex(words, floats, page);
  return [...rmapEntries(kernel, page)]
    .filter(({ vma }) => vma.mm.killEarly)
    .map(({ vma }) => ({ mm: vma.mm, address: rmapAddress(vma, index) }));
}

function signalEarly(kernel: Kernel, page: Page): void {
  const { words, floats } = kernel.memmap;
  const index = pageIndex(words, floats, page);
  for (const { vma } of rmapEntries(kernel, folioHead(words, page))) {
    const address = rmapAddress(vma, index);
    if (vma.mm.killEarly && address >= vma.start && address < vma.end) signal(vma.mm, address);
  }
}

/** SIGBUS with BUS_MCEERR_AO: action is optional, since nobody has touched the page yet. One is enough for an address. */
function signal(mm: MmStruct, address: VirtAddr): void {
  if (!mm.memoryErrors.includes(address)) mm.memoryErrors.push(address);
}

/** `identify_page_state()`, `page_action()`: false when somebody still needs the page. Preconditions: locked; nobody maps it. */
function pageAction(kernel: Kernel, page: Page): boolean {
  const { words } = kernel.memmap;
  if (pageTestFlag(words, page, PG_reserved | PG_table) || !pageTestFlag(words, page, PG_lru)) return false;
  // delete_from_lru_cache()
  pageClearFlag(words, page, PG_lru);
  if (pageTestFlag(words, page, PG_swapcache)) return swapCacheAction(kernel, page);
  return pageIsAnon(words, page) || pageCacheAction(kernel, page);
}

/** `me_swapcache_dirty()`, `me_swapcache_clean()`. */
function swapCacheAction(kernel: Kernel, page: Page): boolean {
  const { words } = kernel.memmap;
  const dirty = pageTestFlag(words, page, PG_dirty);
  if (dirty) pageClearFlag(words, page, PG_dirty | PG_uptodate);
  else deleteFromSwapCache(kernel, page);
  // Ours, and of what is dirty the swap cache's, until the last swap entry has gone.
  return pageRefCount(words, page) === (dirty ? 2 : 1);
}

/** `me_pagecache_dirty()`, `me_pagecache_clean()`. */
function pageCacheAction(kernel: Kernel, page: Page): boolean {
  const { words, floats } = kernel.memmap;
  const file = kernel.files.get(pageFileId(words, page));
  if (file === undefined) return false;
  // mapping_set_error(): who wrote it hears with the next fsync.
  if (pageTestFlag(words, page, PG_dirty)) file.writebackError = true;
  // Shared memory has its bytes nowhere else: it must not come up as zeroes.
  if (!tracksWrites(file)) return pageRefCount(words, page) === 2;
  pageClearFlag(words, page, PG_dirty);
  removeFromCache(kernel, file, pageIndex(words, floats, page));
  return pageRefCount(words, page) === 1;
}

/**
 * `unpoison_memory()`: the frame is used again. EBUSY: somebody still has it. What was never poisoned is left as it is (0).
 */
export function unpoisonMemory(kernel: Kernel, page: Page): 0 | 'EBUSY' {
  const { words } = kernel.memmap;
  if (!pageTestFlag(words, page, PG_hwpoison)) return 0;
  const { held } = kernel.memoryFailures;
  const isHeld = held.has(page);
  const inUse = pageRefCount(words, page) > (isHeld ? 1 : 0);
  if (inUse && isHeld && !pageTestFlag(words, page, PG_reserved | PG_table)) return 'EBUSY';
  pageClearFlag(words, page, PG_hwpoison);
  kernel.memoryFailures.poisoned--;
  if (held.delete(page)) putPage(kernel, page);
  else if (!inUse) kernel.buddy.putBack(page);
  return 0;
}
