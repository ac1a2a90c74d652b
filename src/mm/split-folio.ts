/**
 * Splitting a large folio into single pages. Linux: mm/huge_memory.c __folio_split(), folio_split_unmapped().
 *
 * Every mapping becomes a migration entry of its page, the folio comes apart, the mappings come back. On the way back a page of
 * RAM that holds nothing but zeroes gives way to the zero page. Mappings of a file's folio come back by faults.
 */
import { PAGE_FLAGS, STRUCT_PAGE, STRUCT_PAGE_WORD_SHIFT } from '../abi/struct-page.js';
import { NULL_PAGE, type Page } from '../base/brand.js';
import { assert } from '../base/errors.js';
import { folioHead, folioUnlock, pageRefAdd, pageRefCount } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import { filePages, removeFromCache } from './filemap.js';
import type { Kernel } from './kernel.js';
import { removeMigrationPtes, tryToMigrate } from './migrate.js';
import {
  clearCompoundPage,
  folioCacheReferences,
  folioMapcount,
  folioNrPages,
  isDevicePrivatePage,
  isZoneDevicePage,
  pageFileId,
  pageIndex,
  pageMapcount,
  pagePgmapId,
  pageSetFlag,
  pageTestFlag,
  putbackLru,
} from './page.js';
import { putPage } from './put-page.js';
import { folioFreeSwap } from './swap-state.js';
import { tryToUnmap } from './unmap-page.js';

const {
  PG_active,
  PG_anon_exclusive,
  PG_dirty,
  PG_hwpoison,
  PG_isolated,
  PG_locked,
  PG_lru,
  PG_mlocked,
  PG_referenced,
} = PAGE_FLAGS;
const { PG_swapbacked, PG_swapcache, PG_uptodate } = PAGE_FLAGS;
const { flags: FLAGS, mapping: MAPPING, index: INDEX, private: PRIVATE, pgmap: PGMAP, order: ORDER } = STRUCT_PAGE.word;
const SHIFT = STRUCT_PAGE_WORD_SHIFT;
/** Flags of the folio that each of its pages has afterwards (`__split_folio_to_order()`). */
const INHERITED =
  PG_locked |
  PG_lru |
  PG_isolated |
  PG_referenced |
  PG_uptodate |
  PG_dirty |
  PG_active |
  PG_mlocked |
  (PG_swapbacked | PG_swapcache);

/**
 * `split_folio()`. Precondition: the page's folio is large, locked and held once by the caller.
 * Afterwards it is `keep`'s folio which the caller has locked and held; the others are only held by those who map them.
 * @returns false when somebody else holds the folio (EAGAIN): nothing has changed then but that mappings may be of small entries
 */
export const splitFolio = (kernel: Kernel, page: Page, keep: Page): Sleeps<boolean> =>
  splitFolioToList(kernel, page, keep, null);

/**
 * `split_folio_to_list()`: the same of a folio that is isolated. `list` gets its other pages that anybody still needs: they are isolated, too,
 * and held by whoever has the list.
 */
export function* splitFolioToList(kernel: Kernel, page: Page, keep: Page, list: Page[] | null): Sleeps<boolean> {
  const { words, floats } = kernel.memmap;
  const head = folioHead(words, page);
  const unmapped = 1 + folioCacheReferences(words, head);
  if (folioMapcount(words, head) !== pageRefCount(words, head) - unmapped) return false;
  if (pageFileId(words, head) === 0) yield* tryToMigrate(kernel, head, true);
  else yield* tryToUnmap(kernel, head, 'lose');
  if (pageRefCount(words, head) !== unmapped) {
    removeMigrationPtes(kernel, head, head);
    return false;
  }
  const pages = splitUnmappedFolio(kernel, head);
  const useZeroPage = !isZoneDevicePage(words, head);
  for (let i = 0; i < pages; i++) {
    const each = (head + i) as Page;
    removeMigrationPtes(kernel, each, each, useZeroPage);
  }
  const file = kernel.files.get(pageFileId(words, head));
  for (let i = 0; i < pages; i++) {
    const each = (head + i) as Page;
    const index = pageIndex(words, floats, each);
    // A huge page may have reached behind the end of its file; a small one has nothing to do there.
    if (file !== undefined && index >= filePages(file)) removeFromCache(kernel, file, index);
    if (each === keep) continue;
    // free_folio_and_swap_cache(): the zero page has taken its place.
    if (pageTestFlag(words, each, PG_swapcache) && pageMapcount(words, each) === 0) folioFreeSwap(kernel, each);
    folioUnlock(words, each);
    if (list !== null && pageRefCount(words, each) > 1) {
      list.push(each);
      continue;
    }
    if (list !== null) putbackLru(words, each);
    putPage(kernel, each);
  }
  return true;
}

/**
 * `folio_split_unmapped()`: the folio, which nobody maps and only the caller and its page cache hold, comes apart. Every page is
 * locked and held once by the caller afterwards. Returns how many there are.
 */
export function splitUnmappedFolio(kernel: Kernel, head: Page): number {
  const { words, floats } = kernel.memmap;
  const cached = folioCacheReferences(words, head);
  assert(
    folioMapcount(words, head) === 0 && pageRefCount(words, head) === 1 + cached,
    'a folio in use cannot be split',
  );
  const pages = folioNrPages(words, head);
  const ofCache = cached / pages;
  const inSwapCache = pageTestFlag(words, head, PG_swapcache);
  clearCompoundPage(words, head);
  if (!kernel.sites.splitClearsHead) {
    words[(head << SHIFT) + ORDER] = Math.log2(pages);
    pageSetFlag(words, head, PAGE_FLAGS.PG_head);
  }
  const folioSplit = isDevicePrivatePage(words, head)
    ? kernel.pagemaps.get(pagePgmapId(words, head))?.ops?.folioSplit
    : undefined;
  const source = head << SHIFT;
  for (let i = 1; i < pages; i++) {
    const tail = (head + i) as Page;
    const target = tail << SHIFT;
    words[target + FLAGS] =
      (words[source + FLAGS] & INHERITED) | (words[target + FLAGS] & (PG_anon_exclusive | PG_hwpoison));
    words[target + MAPPING] = words[source + MAPPING];
    words[target + PRIVATE] = inSwapCache ? words[source + PRIVATE] + i : 0;
    floats[(tail << (SHIFT - 1)) + INDEX] = floats[(head << (SHIFT - 1)) + INDEX] + i;
    pageRefAdd(words, tail, 1 + ofCache);
    if (!kernel.sites.tailPagemap) words[target + PGMAP] = 0;
    folioSplit?.(head, tail);
  }
  pageRefAdd(words, head, ofCache - cached);
  folioSplit?.(head, NULL_PAGE);
  return pages;
}
