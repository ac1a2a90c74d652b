/**
 * Taking a page out of every page table that maps it, for good: reclaim. Linux: mm/rmap.c try_to_unmap(),
 * folio_referenced().
 *
 *   page                       an entry that mapped it becomes (a huge one 512 of them, but none of a file, or lazily freed)
 *   anonymous, in swap         a swap entry: exclusive if the page was; soft-dirty and uffd-wp as they were
 *   anonymous, lazily freed    none
 *   of a file                  none, or a marker that keeps its uffd-wp
 *   of memory that has failed  a hwpoison entry, whoever has locked or pinned it (see memory-failure.ts)
 */
import { PAGE_SIZE, PMD_SIZE } from '../abi/address.js';
import {
  carriedToLeaf,
  LOW_ACCESSED,
  LOW_DIRTY,
  LOW_SWP_EXCLUSIVE,
  leafHigh,
  leafLow,
  lowPresent,
} from '../abi/pte-halves.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { NO_SWAP_ENTRY, swapArea, swapSlot } from '../abi/swap-entry.js';
import type { Page, VirtAddr } from '../base/brand.js';
import { folioHead, pageRefCount } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import { and32, getAndClearPteLow, peek32, setPteHalves } from '../sync/word.js';
import { discardHugePmd, findHugePmd, splitHugePmdLocked } from './huge-pmd.js';
import type { Kernel } from './kernel.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import {
  folioMapcount,
  folioNrPages,
  pageClearFlag,
  pageIndex,
  pageIsAnon,
  pageMarkDirty,
  pageMaybeDmaPinned,
  pageSetFlag,
  pageTestFlag,
} from './page.js';
import { hugeEntryMaps, pageVmaMapped } from './page-vma-mapped.js';
import { lockTable, NO_TABLE, pteIndex, tableOf, unlockTable } from './pgtable.js';
import { installWpMarker, keepsWpMarkers } from './pte-marker.js';
import { putPage } from './put-page.js';
import {
  endMapped,
  fileRmapLeadsTo,
  firstMapped,
  pageAnonVma,
  pageFileVmas,
  pageRemoveRmap,
  rmapAddress,
  rmapLeadsTo,
} from './rmap.js';
import { rssAdd } from './rss.js';
import { pageSwapEntry } from './swap-state.js';
import { flushTlbRange } from './tlbflush.js';
import { VM_LOCKED, type VmArea } from './vma.js';

const { PG_anon_exclusive, PG_dirty, PG_swapbacked } = PAGE_FLAGS;

/** VMAs in which the folio, or a part of it, may be mapped at this moment (`rmap_walk`). */
function* rmapVmas(kernel: Kernel, folio: Page): Generator<VmArea, void, void> {
  const { words, floats } = kernel.memmap;
  if (!pageIsAnon(words, folio)) {
    yield* pageFileVmas(kernel, folio);
    return;
  }
  const index = pageIndex(words, floats, folio);
  const ranges = pageAnonVma(kernel, folio)?.tree.overlapping(index, index + folioNrPages(words, folio));
  for (const { value } of ranges ?? []) yield value;
}

/** Entries of whichever level that map the folio or one of its pages, and their VMAs. Nobody may sleep meanwhile. */
export function* rmapEntries(kernel: Kernel, folio: Page): Generator<{ vma: VmArea; at: number }, void, void> {
  const { words, floats } = kernel.memmap;
  const index = pageIndex(words, floats, folio);
  const pages = folioNrPages(words, folio);
  for (const vma of rmapVmas(kernel, folio)) {
    const start = rmapAddress(vma, index);
    if (pages > 1 && start >= vma.start && hugeEntryMaps(kernel, vma.mm, start, folio)) {
      yield { vma, at: findHugePmd(kernel, vma.mm, start) };
      continue;
    }
    for (let i = 0; i < pages; i++) {
      const addr = rmapAddress(vma, index + i);
      if (addr < vma.start || addr >= vma.end) continue;
      const table = pageVmaMapped(kernel, vma, addr, (folio + i) as Page, 'mapped');
      if (table !== NO_TABLE) yield { vma, at: table + pteIndex(addr) };
    }
  }
}

/** `folio_referenced()`: entries through which the folio was accessed since the last look; they are not young any more. */
export function folioReferenced(kernel: Kernel, folio: Page): number {
  const { halves } = kernel.ram;
  let referenced = 0;
  for (const { at } of rmapEntries(kernel, folio)) {
    const low = peek32(halves, 2 * at);
    if (!lowPresent(low) || (low & LOW_ACCESSED) === 0) continue;
    // No flush, as on x86: a translation in a TLB may hide accesses for a while.
    and32(halves, 2 * at, ~LOW_ACCESSED);
    referenced++;
  }
  return referenced;
}

/** Does a locked mapping have the folio (`folio_evictable`)? */
export function pageMlocked(kernel: Kernel, folio: Page): boolean {
  for (const { vma } of rmapEntries(kernel, folio)) if ((vma.flags & VM_LOCKED) !== 0) return true;
  return false;
}

/**
 * What for: `poison` leaves hwpoison entries (TTU_HWPOISON), `lose` what reclaim would leave. Neither asks whether the page is locked
 * in memory (TTU_IGNORE_MLOCK).
 */
export type UnmapMode = 'reclaim' | 'poison' | 'lose';

/**
 * `try_to_unmap()`: until nothing maps the page, or a mapping of it may not go. Notifiers are told of each VMA first.
 * Preconditions: it is locked and held by the caller; anonymous memory that is not lazily freed has its swap slots.
 */
export function* tryToUnmap(kernel: Kernel, folio: Page, mode: UnmapMode = 'reclaim'): Sleeps<void> {
  const { words, floats } = kernel.memmap;
  const index = pageIndex(words, floats, folio);
  const pages = folioNrPages(words, folio);
  const told = new Set<VmArea>();
  while (folioMapcount(words, folio) > 0) {
    // While a notifier slept the VMAs may have changed; each is asked once, as mremap in the middle leaves the page to the next try.
    const vma = [...rmapVmas(kernel, folio)].find((each) => !told.has(each));
    if (vma === undefined) return;
    told.add(vma);
    const anonVma = pageAnonVma(kernel, folio);
    const first = firstMapped(vma, index);
    const start = rmapAddress(vma, index + first);
    const end = rmapAddress(vma, index + endMapped(vma, index, pages));
    const range: MmuNotifierRange = { mm: vma.mm, start, end, event: 'MMU_NOTIFY_CLEAR', owner: null };
    yield* mmuNotifierInvalidateRangeStart(range);
    const isThere =
      anonVma === undefined
        ? fileRmapLeadsTo(index + first, vma, start)
        : rmapLeadsTo(anonVma, index + first, vma, start);
    const goesOn = !isThere || tryToUnmapFrom(kernel, vma, start, end, (folio + first) as Page, mode);
    mmuNotifierInvalidateRangeEnd(range);
    if (!goesOn) return;
  }
}

/** `try_to_unmap_one()` of the pages from `page` on, which [start, end) of a VMA may map. */
function tryToUnmapFrom(
  kernel: Kernel,
  vma: VmArea,
  start: VirtAddr,
  end: VirtAddr,
  page: Page,
  mode: UnmapMode,
): boolean {
  if (end - start === PMD_SIZE && hugeEntryMaps(kernel, vma.mm, start, page)) {
    if (mode === 'reclaim' && (vma.flags & VM_LOCKED) !== 0) return false;
    const { words } = kernel.memmap;
    const isLazy = pageIsAnon(words, page) && !pageTestFlag(words, page, PG_swapbacked);
    const at = findHugePmd(kernel, vma.mm, start);
    lockTable(kernel, tableOf(at));
    const isDiscarded = isLazy && discardHugePmd(kernel, vma, at, start, page);
    if (!isLazy) splitHugePmdLocked(kernel, vma, at, start, false);
    unlockTable(kernel, tableOf(at));
    if (isLazy) return isDiscarded;
    if (!pageIsAnon(words, page)) return true;
  }
  const stop = Math.min(end, vma.end);
  for (let addr: number = start, each: number = page; addr < stop; addr += PAGE_SIZE, each++) {
    if (!tryToUnmapOne(kernel, vma, addr as VirtAddr, each as Page, mode)) return false;
  }
  return true;
}

/** `try_to_unmap_one()`: false ends the walk, since the page cannot go. */
function tryToUnmapOne(kernel: Kernel, vma: VmArea, addr: VirtAddr, page: Page, mode: UnmapMode): boolean {
  const table = pageVmaMapped(kernel, vma, addr, page, 'mapped');
  if (table === NO_TABLE) return true;
  // Locked while the page was on its way out.
  if (mode === 'reclaim' && (vma.flags & VM_LOCKED) !== 0) return false;
  lockTable(kernel, table);
  const unmapped = unmapEntry(kernel, vma, addr, table + pteIndex(addr), page, mode);
  unlockTable(kernel, table);
  if (unmapped) putPage(kernel, page);
  return unmapped;
}

/** Precondition: page table lock held, the entry at `at` maps `page`. Returns false with the entry as it was. */
function unmapEntry(kernel: Kernel, vma: VmArea, addr: VirtAddr, at: number, page: Page, mode: UnmapMode): boolean {
  const { words } = kernel.memmap;
  const high = peek32(kernel.ram.halves, 2 * at + 1);
  const low = getAndClearPteLow(kernel.ram.words, at);
  if (lowPresent(low)) flushTlbRange(kernel, vma.mm, addr, (addr + PAGE_SIZE) as VirtAddr);
  if (lowPresent(low) && (low & LOW_DIRTY) !== 0) pageMarkDirty(words, page);
  const instead = mode === 'poison' ? poisoned(kernel, page) : replacement(kernel, page, low);
  if (instead === null) {
    setPteHalves(kernel.ram.words, at, low, high);
    return false;
  }
  if (instead.kind === 'swap') {
    kernel.swap.duplicate(pageSwapEntry(words, page));
    vma.mm.swapents++;
  }
  rssAdd(words, vma.mm, page, -1);
  pageClearFlag(words, page, PG_anon_exclusive);
  pageRemoveRmap(kernel, page);
  if (instead.kind !== 'none') setPteHalves(kernel.ram.words, at, instead.low, instead.high);
  else if (keepsWpMarkers(vma)) installWpMarker(kernel, at, low, high);
  return true;
}

type Replacement = { readonly kind: 'none' | 'swap' | 'hwpoison'; readonly low: number; readonly high: number };
const NOTHING: Replacement = { kind: 'none', low: 0, high: 0 };

/** `make_hwpoison_entry()`. */
function poisoned({ addressing, memmap }: Kernel, page: Page): Replacement {
  const pfn = memmap.pageToPfn(page);
  const type = Number(addressing.swapTypes.typeOf.hwpoison);
  return { kind: 'hwpoison', low: leafLow(pfn, 0), high: leafHigh(type, pfn, 0) };
}

/** What an entry (given by its halves) becomes; `null` when it must stay. */
function replacement(kernel: Kernel, page: Page, low: number): Replacement | null {
  const { words } = kernel.memmap;
  if (!pageIsAnon(words, page)) return NOTHING;
  if (!pageTestFlag(words, page, PG_swapbacked)) return lazyFree(words, page);
  const entry = pageSwapEntry(words, page);
  // The last entry that named the slot went away in the middle, and the slot with it.
  if (entry === NO_SWAP_ENTRY) return null;
  const exclusive = pageTestFlag(words, page, PG_anon_exclusive);
  // folio_try_share_anon_rmap_pte(): whoever pinned the page must go on seeing what its owner writes.
  if (exclusive && pageMaybeDmaPinned(words, page)) return null;
  const slot = swapSlot(entry);
  const flags = (exclusive ? LOW_SWP_EXCLUSIVE : 0) | carriedToLeaf(low);
  return { kind: 'swap', low: leafLow(slot, flags), high: leafHigh(swapArea(entry), slot, 0) };
}

/** A page after MADV_FREE may be dropped as long as nobody has written to it or holds it. */
function lazyFree(words: Int32Array, page: Page): Replacement | null {
  if (pageTestFlag(words, page, PG_dirty)) {
    pageSetFlag(words, page, PG_swapbacked);
    return null;
  }
  return pageRefCount(words, page) === 1 + folioMapcount(words, folioHead(words, page)) ? NOTHING : null;
}
