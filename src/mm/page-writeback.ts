/**
 * Dirty pages of files go back to where they came from: fsync and msync. Linux: mm/page-writeback.c folio_clear_dirty_for_io(),
 * mm/rmap.c folio_mkclean(), mm/filemap.c filemap_write_and_wait_range(), mm/msync.c.
 *
 * A page is clean only while nobody can write it unheard: before it is written back each shared mapping of it becomes read-only
 * again, so that the next store faults and makes it dirty once more. Not modelled: write-back without being asked for, I/O errors.
 */
import { isPageAligned, PAGE_SIZE, pageAlignUp, wraps } from '../abi/address.js';
import type { Result } from '../abi/errno.js';
import { LOW_DIRTY, LOW_WRITE } from '../abi/pte-halves.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import type { Page, VirtAddr } from '../base/brand.js';
import { folioUnlock, pageRefAdd } from '../sync/page-ref.js';
import { type Sleeps, waitUntil } from '../sync/task.js';
import { getAndClearPteLow, peek32, setPteHalves } from '../sync/word.js';
import { folioLock, vmFileGet, vmFilePut } from './filemap.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import { pageClearFlag, pageIndex, pageMapcount, pageMarkDirty, pageSetFlag, pageTestFlag } from './page.js';
import { pageVmaMapped } from './page-vma-mapped.js';
import { lockTable, NO_TABLE, pteIndex, unlockTable } from './pgtable.js';
import { putPage } from './put-page.js';
import { fileRmapLeadsTo, pageFileVmas, rmapAddress } from './rmap.js';
import { flushTlbRange } from './tlbflush.js';
import { linearPageIndex, type PageCacheOps, VM_SHARED, type VmArea, type VmFile } from './vma.js';

const { PG_dirty, PG_reclaim, PG_writeback } = PAGE_FLAGS;

/** `file_check_and_advance_wb_err()`: EIO, once, when something that was written has been lost. */
export function checkWritebackError(file: VmFile): 0 | 'EIO' {
  if (!file.writebackError) return 0;
  file.writebackError = false;
  return 'EIO';
}

/** `filemap_write_and_wait_range()` of the pages with page offsets in [first, end): afterwards what was dirty is written. */
export function* writeAndWaitRange(kernel: Kernel, file: VmFile, first: number, end: number): Sleeps<void> {
  const writePage = file.cache?.writePage;
  if (writePage == null) return;
  const { words } = kernel.memmap;
  const indices = [...file.pages.keys()].filter((index) => index >= first && index < end);
  for (const index of indices.sort((a, b) => a - b)) {
    const page = file.pages.get(index);
    if (page === undefined || !pageTestFlag(words, page, PG_dirty | PG_writeback)) continue;
    pageRefAdd(words, page, 1);
    yield* writeOut(kernel, file, page, index, writePage);
    putPage(kernel, page);
  }
}

/** One page. Precondition: the caller holds it. */
function* writeOut(
  kernel: Kernel,
  file: VmFile,
  page: Page,
  index: number,
  writePage: NonNullable<PageCacheOps['writePage']>,
): Sleeps<void> {
  const { words } = kernel.memmap;
  yield* folioLock(kernel, page);
  // Somebody else's write-back: what was dirty before us must be written when we return.
  yield* waitForWriteback(kernel, page);
  const isOurs = file.pages.get(index) === page;
  if (isOurs && (yield* clearDirtyForIo(kernel, page))) {
    zeroBehindEnd(kernel, file, page, index);
    pageSetFlag(words, page, PG_writeback);
    folioUnlock(words, page);
    yield* writePage(kernel, page, index);
    pageClearFlag(words, page, PG_writeback | PG_reclaim);
  } else {
    folioUnlock(words, page);
  }
}

/** `folio_wait_writeback()`. */
export const waitForWriteback = (kernel: Kernel, page: Page): Sleeps<void> =>
  waitUntil(`write-back of page ${page}`, () => !pageTestFlag(kernel.memmap.words, page, PG_writeback));

/** What a mapping wrote behind the end of the file never becomes the file's. Precondition: the page is locked. */
function zeroBehindEnd(kernel: Kernel, file: VmFile, page: Page, index: number): void {
  const inside = Math.max(0, file.size - index * PAGE_SIZE);
  if (inside < PAGE_SIZE) kernel.ram.bytes(kernel.memmap.ramFrame(page), inside).fill(0);
}

/** `folio_clear_dirty_for_io()`: was it dirty? It is not any more. Precondition: the page is locked. */
function* clearDirtyForIo(kernel: Kernel, page: Page): Sleeps<boolean> {
  const { words } = kernel.memmap;
  if (yield* folioMkclean(kernel, page)) pageMarkDirty(words, page);
  const dirty = pageTestFlag(words, page, PG_dirty);
  pageClearFlag(words, page, PG_dirty);
  return dirty;
}

/**
 * `folio_mkclean()`: every shared mapping of the page becomes clean and read-only; was one of them not?
 * Precondition: the page is locked, so that no mapping of it becomes writable meanwhile.
 */
export function* folioMkclean(kernel: Kernel, page: Page): Sleeps<boolean> {
  const index = pageIndex(kernel.memmap.words, kernel.memmap.floats, page);
  const told = new Set<VmArea>();
  let cleaned = false;
  while (pageMapcount(kernel.memmap.words, page) > 0) {
    // While a notifier slept, mremap may have moved a mapping to where nobody has looked yet. (In Linux it waits for the walk.)
    const vma = pageFileVmas(kernel, page).find(
      (each) => (each.flags & VM_SHARED) !== 0 && (!told.has(each) || mayWrite(kernel, each, index, page)),
    );
    if (vma === undefined) break;
    told.add(vma);
    const start = rmapAddress(vma, index);
    const end = (start + PAGE_SIZE) as VirtAddr;
    const range: MmuNotifierRange = { mm: vma.mm, start, end, event: 'MMU_NOTIFY_PROTECTION_PAGE', owner: null };
    yield* mmuNotifierInvalidateRangeStart(range);
    if (fileRmapLeadsTo(index, vma, start)) cleaned = cleanEntry(kernel, vma, start, page) || cleaned;
    mmuNotifierInvalidateRangeEnd(range);
  }
  return cleaned;
}

/** Is there an entry of the VMA through which the page can be written, or was? */
function mayWrite(kernel: Kernel, vma: VmArea, index: number, page: Page): boolean {
  const addr = rmapAddress(vma, index);
  const table = pageVmaMapped(kernel, vma, addr, page, 'mapped');
  return (
    table !== NO_TABLE && (peek32(kernel.ram.halves, 2 * (table + pteIndex(addr))) & (LOW_WRITE | LOW_DIRTY)) !== 0
  );
}

/** `page_vma_mkclean_one()`. */
function cleanEntry(kernel: Kernel, vma: VmArea, addr: VirtAddr, page: Page): boolean {
  const table = pageVmaMapped(kernel, vma, addr, page, 'mapped');
  if (table === NO_TABLE) return false;
  const { halves, words } = kernel.ram;
  const at = table + pteIndex(addr);
  lockTable(kernel, table);
  const found = (peek32(halves, 2 * at) & (LOW_WRITE | LOW_DIRTY)) !== 0;
  if (found) {
    const high = peek32(halves, 2 * at + 1);
    const low = getAndClearPteLow(words, at);
    flushTlbRange(kernel, vma.mm, addr, (addr + PAGE_SIZE) as VirtAddr);
    setPteHalves(words, at, low & ~(LOW_WRITE | LOW_DIRTY), high);
  }
  unlockTable(kernel, table);
  return found;
}

/**
 * `msync(MS_SYNC)`: what the range's shared mappings of files have written is in the files when it returns.
 * @returns ENOMEM where parts of the range are not mapped (the mapped ones are written all the same), EINVAL; EIO: memory that had
 * something for a file failed before it could be written
 */
export function* doMsync(kernel: Kernel, mm: MmStruct, start: VirtAddr, length: number): Sleeps<Result> {
  const end = start + pageAlignUp(length);
  if (!isPageAligned(start)) return 'EINVAL';
  if (wraps(start, end - start)) return 'ENOMEM';
  let hole = false;
  for (let at: number = start; at < end; ) {
    yield* mm.mmapLock.downRead();
    const vma = mm.exiting ? undefined : mm.vmas.firstEndingAfter(at)?.value;
    if (vma === undefined || vma.start >= end) {
      mm.mmapLock.upRead();
      return 'ENOMEM';
    }
    hole ||= vma.start > at;
    const from = Math.max(at, vma.start);
    const stop = Math.min(end, vma.end);
    const file = (vma.flags & VM_SHARED) !== 0 ? vma.file : null;
    const [first, last] = [linearPageIndex(vma, from), linearPageIndex(vma, stop)];
    // The mapping may go while its file is written; the file itself stays.
    vmFileGet(file);
    mm.mmapLock.upRead();
    if (file !== null) yield* writeAndWaitRange(kernel, file, first, last);
    const lost = file === null ? 0 : checkWritebackError(file);
    vmFilePut(kernel, file);
    if (lost !== 0) return lost;
    at = stop;
  }
  return hole ? 'ENOMEM' : 0;
}
