/**
 * The pool of huge pages that are kept for MAP_HUGETLB. Linux: mm/hugetlb.c (hstate, alloc_hugetlb_folio, free_huge_folio).
 *
 * Taken from RAM at boot, as `hugepages=` on the kernel's command line has it; nobody else gets them. A page of it is a large
 * folio for ever: it is never split, and its last reference brings it back here. Not modelled: surplus pages, other sizes.
 */
import { HPAGE_PMD_ORDER } from '../abi/address.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { NULL_PAGE, type Page } from '../base/brand.js';
import { pageRefAdd } from '../sync/page-ref.js';
import type { Memmap } from './memmap.js';
import { pageSetFlag, prepCompoundPage } from './page.js';
import type { PageAllocator } from './page-alloc.js';

export interface HugetlbPool {
  /** HugePages_Total. */
  readonly total: number;
  /** HugePages_Free: their first pages, without a reference. */
  readonly free: Page[];
  /** HugePages_Rsvd: of the free ones, those that mappings were promised and have not touched yet. */
  reserved: number;
}

export function createHugetlbPool(
  buddy: PageAllocator,
  { words }: Memmap,
  pages: number,
  warn: (text: string) => void,
): HugetlbPool {
  const free: Page[] = [];
  while (free.length < pages) {
    const page = buddy.allocPages(HPAGE_PMD_ORDER);
    if (page === NULL_PAGE) {
      warn(`HugeTLB: allocating ${pages} of page size 2.00 MiB failed. Only allocated ${free.length} hugepages.`);
      break;
    }
    prepCompoundPage(words, page, HPAGE_PMD_ORDER);
    pageSetFlag(words, page, PAGE_FLAGS.PG_hugetlb);
    pageRefAdd(words, page, -1);
    free.push(page);
  }
  return { total: free.length, free, reserved: 0 };
}

/**
 * `dequeue_hugetlb_folio_vma()`: a page with one reference and unknown contents; NULL_PAGE when all that are free are promised
 * to others. With `reserved` it was promised to the caller.
 */
export function takeHugetlb(pool: HugetlbPool, words: Int32Array, reserved: boolean): Page {
  if (reserved) pool.reserved--;
  else if (pool.free.length <= pool.reserved) return NULL_PAGE;
  const page = pool.free.pop()!;
  pageRefAdd(words, page, 1);
  return page;
}

/** `free_huge_folio()`: nobody has it any more. */
export function giveHugetlb(pool: HugetlbPool, page: Page): void {
  pool.free.push(page);
}
