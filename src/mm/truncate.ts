/**
 * A file becomes shorter or longer. Linux: mm/truncate.c truncate_setsize(), pagecache_isize_extended(), mm/memory.c
 * unmap_mapping_range().
 *
 * Shorter: first its size, then no mapping shows what is behind the end any more (private copies go as well, on devices too), then
 * the pages leave the cache. A fault that comes in between finds the new size under the page's lock.
 */
import { PAGE_SIZE } from '../abi/address.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { NULL_PAGE, type Page, type VirtAddr } from '../base/brand.js';
import { pageRefAdd } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import { filePages, folioLock, removeFromCache, unlockCachedPage } from './filemap.js';
import type { Kernel } from './kernel.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import { pageClearFlag, pageMapcount, pageMarkDirty } from './page.js';
import { folioMkclean, waitForWriteback } from './page-writeback.js';
import { pageOfHalves, visitEntries } from './proc-pagemap.js';
import { fileVmas, rmapAddress } from './rmap.js';
import type { VmArea, VmFile } from './vma.js';
import { zapRange } from './zap.js';

const { PG_dirty } = PAGE_FLAGS;

/** `truncate_setsize()`. Precondition: nobody else changes the file's size. */
export function* truncateSetsize(kernel: Kernel, file: VmFile, size: number): Sleeps<void> {
  const old = file.size;
  file.size = size;
  if (size > old) yield* pagecacheIsizeExtended(kernel, file, old, size);
  const end = filePages(file);
  yield* unmapMappingRange(kernel, file, end, Number.POSITIVE_INFINITY);
  for (const index of [...file.pages.keys()]) if (index >= end) yield* truncatePage(kernel, file, index);
  // Who began a private copy before the size changed may have mapped it since.
  yield* unmapMappingRange(kernel, file, end, Number.POSITIVE_INFINITY);
  if (size < old) yield* zeroRest(kernel, file, size);
}

/** `truncate_inode_partial_folio()`: the page in which the file ends now keeps nothing behind the end. */
const zeroRest = (kernel: Kernel, file: VmFile, size: number): Sleeps<void> =>
  // biome-ignore lint/correctness/useYield: a body that has no reason to wait
  withCachedPage(kernel, file, Math.floor(size / PAGE_SIZE), function* (page) {
    kernel.ram.bytes(kernel.memmap.ramFrame(page), size % PAGE_SIZE).fill(0);
  });

/**
 * `pagecache_isize_extended()`: what a mapping wrote behind the old end `from` must not become part of the file, which now
 * reaches to `to` and was not written between the two.
 */
export function* pagecacheIsizeExtended(kernel: Kernel, file: VmFile, from: number, to: number): Sleeps<void> {
  const end = Math.min(to, Math.ceil(from / PAGE_SIZE) * PAGE_SIZE);
  if (from >= end) return;
  yield* withCachedPage(kernel, file, Math.floor(from / PAGE_SIZE), function* (page) {
    const { words } = kernel.memmap;
    // The next store has to be heard of: more of the page is worth writing back now.
    if (yield* folioMkclean(kernel, page)) pageMarkDirty(words, page);
    kernel.ram.bytes(kernel.memmap.ramFrame(page), from % PAGE_SIZE, end - from).fill(0);
  });
}

/** Do something with a page that is in the cache, under its lock and with no write-back of it under way. */
function* withCachedPage(
  kernel: Kernel,
  file: VmFile,
  index: number,
  body: (page: Page) => Sleeps<void>,
): Sleeps<void> {
  const page = file.pages.get(index);
  if (page === undefined) return;
  pageRefAdd(kernel.memmap.words, page, 1);
  yield* folioLock(kernel, page);
  yield* waitForWriteback(kernel, page);
  if (file.pages.get(index) === page) yield* body(page);
  unlockCachedPage(kernel, page);
}

/** `truncate_inode_folio()`: one page leaves the cache. */
const truncatePage = (kernel: Kernel, file: VmFile, index: number): Sleeps<void> =>
  withCachedPage(kernel, file, index, function* (page) {
    const { words } = kernel.memmap;
    // Mapped again by who had locked it before us.
    if (pageMapcount(words, page) > 0) yield* unmapMappingRange(kernel, file, index, index + 1);
    pageClearFlag(words, page, PG_dirty);
    removeFromCache(kernel, file, index);
  });

/** `unmap_mapping_range()`: nobody maps the page offsets [first, end) of the file any more, nor private copies of them. */
function* unmapMappingRange(kernel: Kernel, file: VmFile, first: number, end: number): Sleeps<void> {
  const told = new Set<VmArea>();
  for (;;) {
    // While a notifier slept, fork and mremap may have taken entries to where nobody has looked yet. (In Linux they wait.)
    const vma = fileVmas(kernel, file, first, end).find((each) => !told.has(each) || mapsAny(kernel, each, first, end));
    if (vma === undefined) return;
    told.add(vma);
    const [start, stop] = addressesOf(vma, first, end);
    const range: MmuNotifierRange = { mm: vma.mm, start, end: stop, event: 'MMU_NOTIFY_CLEAR', owner: null };
    yield* mmuNotifierInvalidateRangeStart(range);
    // Without mmap_lock the VMA may have gone meanwhile, or its borders moved.
    if (fileVmas(kernel, file, first, end).includes(vma)) {
      const [from, to] = addressesOf(vma, first, end);
      yield* zapRange(kernel, vma, Math.max(start, from), Math.min(stop, to), 'truncate');
    }
    mmuNotifierInvalidateRangeEnd(range);
  }
}

/** Where a VMA maps the page offsets [first, end), as far as it does. */
function addressesOf(vma: VmArea, first: number, end: number): readonly [VirtAddr, VirtAddr] {
  const start = Math.max(vma.start, rmapAddress(vma, first));
  const stop = Math.min(vma.end, rmapAddress(vma, end));
  return [start as VirtAddr, stop as VirtAddr];
}

function mapsAny(kernel: Kernel, vma: VmArea, first: number, end: number): boolean {
  const [start, stop] = addressesOf(vma, first, end);
  let found = false;
  visitEntries(kernel, vma.mm, start, stop, (_index, low, high) => {
    found ||= pageOfHalves(kernel, low, high) !== NULL_PAGE;
  });
  return found;
}
