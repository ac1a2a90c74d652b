/**
 * The page cache of a file, and the file's users. Linux: mm/filemap.c, fs/file_table.c.
 *
 * A file holds one reference on each page of its cache, every mapping another. A page is added locked and stays so until it has
 * been read in; who finds a page locked waits, and then looks whether it is the file's still, since truncate may have come first.
 * Large folios come about by MADV_COLLAPSE of shared memory alone (collapse-file.ts). Not modelled: readahead, I/O errors.
 */
import { PAGE_SIZE } from '../abi/address.js';
import type { Errno } from '../abi/errno.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { NULL_PAGE, type Page } from '../base/brand.js';
import { folioHead, folioLocked, folioTrylock, folioUnlock, pageRefAdd } from '../sync/page-ref.js';
import { type Sleeps, waitUntil } from '../sync/task.js';
import type { Kernel } from './kernel.js';
import {
  folioNrPages,
  pageClearFlag,
  pageClearMapping,
  pageFileId,
  pageIndex,
  pageSetFileMapping,
  pageSetFlag,
} from './page.js';
import { putPage } from './put-page.js';
import { freeSwapAndCache } from './swap-state.js';
import { tracksWrites, type VmFile } from './vma.js';

const { PG_dirty, PG_lru, PG_swapbacked, PG_uptodate } = PAGE_FLAGS;

/** One more VMA maps the file (`get_file`): for whoever splits, copies or forks a VMA. */
export function vmFileGet(file: VmFile | null): void {
  if (file !== null) file.users++;
}

/** A user of the file has gone (`fput`); the last one takes the contents along. Precondition: its pages are unmapped there. */
export function vmFilePut(kernel: Kernel, file: VmFile | null): void {
  if (file === null || --file.users > 0) return;
  for (const index of file.pages.keys()) removeFromCache(kernel, file, index);
  for (const entry of file.swapped?.entries.values() ?? []) freeSwapAndCache(kernel, entry);
  file.swapped?.entries.clear();
  kernel.files.remove(file.id);
}

/** Pages that a file has, the last perhaps in part. A touch of any other is SIGBUS. */
export const filePages = (file: VmFile): number => Math.ceil(file.size / PAGE_SIZE);

/** `folio_lock()`. */
export function* folioLock(kernel: Kernel, page: Page): Sleeps<void> {
  const { words } = kernel.memmap;
  while (!folioTrylock(words, page)) {
    yield* waitUntil(`lock of page ${page} of a file`, () => !folioLocked(words, page));
  }
}

/**
 * `filemap_get_folio()` and `read_folio()`: the page at page offset `index`, locked and with a reference, read in if it was not
 * in the cache. `pages` says how far one may ask at this moment.
 * @returns EFAULT behind that, ENOMEM
 */
export function* lockCachedPage(
  kernel: Kernel,
  file: VmFile,
  index: number,
  pages: () => number,
): Sleeps<Page | Errno> {
  const { cache } = file;
  for (;;) {
    if (cache === null || index >= pages()) return 'EFAULT';
    let page = file.pages.get(index);
    if (page === undefined && file.swapped?.entries.has(index)) {
      const back = yield* cache.swapIn!(kernel, file, index);
      if (back === 'ENOMEM') return back;
      if (back === NULL_PAGE) continue;
      page = back;
    } else if (page === undefined) {
      page = addToCache(kernel, file, index);
      if (page === NULL_PAGE) return 'ENOMEM';
      yield* cache.readPage(kernel, page, index);
      pageSetFlag(kernel.memmap.words, page, PG_uptodate);
    } else {
      pageRefAdd(kernel.memmap.words, page, 1);
      yield* folioLock(kernel, page);
    }
    if (file.pages.get(index) === page && index < pages()) return page;
    unlockCachedPage(kernel, page);
  }
}

/** Undo `lockCachedPage`. */
export function unlockCachedPage(kernel: Kernel, page: Page): void {
  folioUnlock(kernel.memmap.words, page);
  putPage(kernel, page);
}

/** `filemap_add_folio()`: a fresh page, locked, with the cache's reference and the caller's; NULL_PAGE when RAM is out. */
function addToCache(kernel: Kernel, file: VmFile, index: number): Page {
  const page = kernel.buddy.allocPages(0);
  if (page === NULL_PAGE) return page;
  const { words, floats } = kernel.memmap;
  folioTrylock(words, page);
  // What cannot be written back could only be swapped out.
  pageSetFlag(words, page, tracksWrites(file) ? PG_lru : PG_lru | PG_swapbacked);
  pageSetFileMapping(words, floats, page, file.id, index);
  file.pages.set(index, page);
  pageRefAdd(words, page, 1);
  return page;
}

/** `filemap_remove_folio()`, of the one that has the page: somebody may still have a pin, then it lives on without a home. */
export function removeFromCache(kernel: Kernel, file: VmFile, index: number): void {
  const { words, floats } = kernel.memmap;
  const folio = folioHead(words, file.pages.get(index)!);
  const first = pageIndex(words, floats, folio);
  const pages = folioNrPages(words, folio);
  for (let i = 0; i < pages; i++) file.pages.delete(first + i);
  pageClearMapping(words, folio);
  pageRefAdd(words, folio, 1 - pages);
  putPage(kernel, folio);
}

/** `__folio_migrate_mapping()` of a page in the cache: another has its place from now on. Precondition: both are locked and held. */
export function migrateInPageCache(kernel: Kernel, from: Page, to: Page): void {
  const { words, floats } = kernel.memmap;
  kernel.files.get(pageFileId(words, from))!.pages.set(pageIndex(words, floats, from), to);
  pageRefAdd(words, to, 1);
  pageClearFlag(words, from, PG_dirty);
  pageClearMapping(words, from);
  putPage(kernel, from);
}
