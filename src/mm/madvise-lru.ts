/**
 * MADV_COLD and MADV_PAGEOUT: memory that will not be used soon. Linux: mm/madvise.c madvise_cold_or_pageout_pte_range().
 *
 * Only what no other process has: to what others have too somebody else may attend. A large folio goes as one if all of it lies in the
 * range; of which the range has only a part comes apart first.
 */
import { PAGE_SIZE, PMD_SIZE } from '../abi/address.js';
import { LOW_ACCESSED, LOW_DIRTY, LOW_SOFT_DIRTY, LOW_WRITE, lowPresent } from '../abi/pte-halves.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { NULL_PAGE, type Page, type VirtAddr } from '../base/brand.js';
import { folioHead, folioTrylock, folioUnlock, pageRefAdd } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import { and32, peek32 } from '../sync/word.js';
import { folioLock } from './filemap.js';
import { folioBatch } from './folio-batch.js';
import { findHugePmd, isHugeZero, pageOfPmd } from './huge-pmd.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import { folioMapcount, folioNrPages, isLargeFolio, isZoneDevicePage, pageClearFlag, pageTestFlag } from './page.js';
import { folioMappings, normalPageAt } from './page-vma-mapped.js';
import { leafTable, NO_TABLE, nextLeaf, nextMappedLeaf, pteIndex, type TableIndex } from './pgtable.js';
import { putPage } from './put-page.js';
import { splitFolio } from './split-folio.js';
import type { VmArea } from './vma.js';
import { isolateFolio, shrinkFolios } from './vmscan.js';

const { PG_lru, PG_referenced } = PAGE_FLAGS;

/** Which of the two, and what is to be reclaimed: isolated and held. */
interface Walk {
  readonly mm: MmStruct;
  readonly advice: 'COLD' | 'PAGEOUT';
  readonly folios: Page[];
}

/** `madvise_cold()`: the pages were not used lately. `madvise_pageout()`: they leave RAM as far as they may, used lately or not. */
export function* coldOrPageOut(
  kernel: Kernel,
  { mm }: VmArea,
  start: number,
  end: number,
  advice: 'COLD' | 'PAGEOUT',
): Sleeps<void> {
  for (let at = nextMappedLeaf(kernel, mm, start, end); at < end; ) {
    const stop = Math.min(nextLeaf(at), end);
    const walk: Walk = { mm, advice, folios: [] };
    const isHuge = leafTable(kernel, mm, at as VirtAddr) === NO_TABLE;
    if (!isHuge || (yield* walkHuge(kernel, walk, at as VirtAddr, stop))) yield* walkSmall(kernel, walk, at, stop);
    yield* shrinkFolios(kernel, walk.folios, 'ignore');
    at = nextMappedLeaf(kernel, mm, stop, end);
  }
}

/** Returns whether the folio came apart, so that its pieces are to be met. */
function* walkHuge(kernel: Kernel, walk: Walk, addr: VirtAddr, stop: number): Sleeps<boolean> {
  const { halves } = kernel.ram;
  const { words } = kernel.memmap;
  const at = findHugePmd(kernel, walk.mm, addr);
  const low = peek32(halves, 2 * at);
  if (!lowPresent(low) || isHugeZero(low)) return false;
  const folio = pageOfPmd(kernel, low, peek32(halves, 2 * at + 1));
  if (isZoneDevicePage(words, folio) || folioMapcount(words, folio) > 1) return false;
  if (stop - addr === PMD_SIZE) {
    meet(kernel, walk, folio, at, 1);
    return false;
  }
  pageRefAdd(words, folio, 1);
  yield* folioLock(kernel, folio);
  const isSplit = !isLargeFolio(words, folio) || (yield* splitFolio(kernel, folio, folio));
  folioUnlock(words, folio);
  putPage(kernel, folio);
  return isSplit;
}

/** The entries of one leaf table; of a folio that comes apart the pieces are met. */
function* walkSmall(kernel: Kernel, walk: Walk, start: number, stop: number): Sleeps<void> {
  const { words } = kernel.memmap;
  const { mm } = walk;
  for (let addr = start; addr < stop; ) {
    const table = leafTable(kernel, mm, addr as VirtAddr);
    if (table === NO_TABLE) return;
    const page = normalPageAt(kernel, mm, addr as VirtAddr);
    if (page === NULL_PAGE || isZoneDevicePage(words, page)) {
      addr += PAGE_SIZE;
      continue;
    }
    const pages = Math.max(1, madviseBatch(kernel, table, addr, stop));
    const folio = folioHead(words, page);
    if (pages < folioNrPages(words, folio)) {
      if (!(yield* splitFolioAt(kernel, mm, addr))) addr += pages * PAGE_SIZE;
      continue;
    }
    if (folioMapcount(words, folio) === pages) meet(kernel, walk, folio, table + pteIndex(addr), pages);
    addr += pages * PAGE_SIZE;
  }
}

/** A folio that `entries` entries from `at` on map, and nobody else. */
function meet(kernel: Kernel, { advice, folios }: Walk, folio: Page, at: number, entries: number): void {
  const { words } = kernel.memmap;
  if (!pageTestFlag(words, folio, PG_lru)) return;
  if (advice === 'COLD') for (let i = 0; i < entries; i++) and32(kernel.ram.halves, 2 * (at + i), ~LOW_ACCESSED);
  pageClearFlag(words, folio, PG_referenced);
  if (advice === 'PAGEOUT' && isolateFolio(kernel, folio)) folios.push(folio);
}

/** `madvise_folio_pte_batch()`: how many entries of a leaf table from `addr` on map one large folio, in a row; 0 for none. */
export function madviseBatch(kernel: Kernel, table: TableIndex, addr: number, stop: number): number {
  const at = table + pteIndex(addr);
  // What a userfaultfd protects is not one with what it does not; who may write, or has, makes no difference.
  const ignored = LOW_ACCESSED | LOW_DIRTY | LOW_SOFT_DIRTY | LOW_WRITE;
  return folioBatch(kernel, at, at + (stop - addr) / PAGE_SIZE, ignored);
}

/** The large folio that a small entry maps comes apart, if no other process has it, and nobody its lock. */
export function* splitFolioAt(kernel: Kernel, mm: MmStruct, addr: number): Sleeps<boolean> {
  const { words } = kernel.memmap;
  const head = folioHead(words, normalPageAt(kernel, mm, addr as VirtAddr));
  if (folioMappings(kernel, head, mm) !== folioMapcount(words, head) || !folioTrylock(words, head)) return false;
  pageRefAdd(words, head, 1);
  const split = yield* splitFolio(kernel, head, head);
  folioUnlock(words, head);
  putPage(kernel, head);
  return split;
}
