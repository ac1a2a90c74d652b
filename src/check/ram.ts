/** RAM for checkers: every struct page of it, and what each is used for, from the struct pages alone. */
import { PAGE_SIZE, pageAlignDown, pageAlignUp } from '../abi/address.js';
import { PAGE_FLAGS, STRUCT_PAGE, STRUCT_PAGE_WORD_SHIFT } from '../abi/struct-page.js';
import type { Page, Pfn } from '../base/brand.js';
import type { Kernel } from '../mm/kernel.js';
import { pageFlags } from '../mm/page.js';
import { pageRefCount } from '../sync/page-ref.js';

const { PG_buddy, PG_hugetlb, PG_hwpoison, PG_reserved, PG_table } = PAGE_FLAGS;
const ORDER_OF_FREE = STRUCT_PAGE.word.private;

/**
 * `free`: head of a free block; `failed`: it was given back after it had failed, and is kept; `lost`: nobody holds it and it is
 * not free either.
 */
export type RamUse = 'free' | 'table' | 'reserved' | 'used' | 'failed' | 'lost';

export function ramUse(kernel: Kernel, page: Page): RamUse {
  const flags = pageFlags(kernel.memmap.words, page);
  if (flags & PG_buddy) return 'free';
  if (flags & PG_table) return 'table';
  if (flags & PG_reserved) return 'reserved';
  if (pageRefCount(kernel.memmap.words, page) > 0) return 'used';
  if (flags & PG_hwpoison) return 'failed';
  // Free, but for nobody but its pool.
  return flags & PG_hugetlb ? 'reserved' : 'lost';
}

/** Pages of the free block that `page` heads. */
export const freeBlockPages = (kernel: Kernel, page: Page): number =>
  1 << kernel.memmap.words[(page << STRUCT_PAGE_WORD_SHIFT) + ORDER_OF_FREE]!;

/** Every page that the kernel gave to the page allocator at boot; of a free block only its first. */
export function ramPages(kernel: Kernel): readonly Page[] {
  const found: Page[] = [];
  for (const { start, end, kind } of kernel.options.layout.entries) {
    if (kind !== 'ram') continue;
    const endPfn = pageAlignDown(end + 1) / PAGE_SIZE;
    for (let pfn = Math.max(1, pageAlignUp(start) / PAGE_SIZE); pfn < endPfn; ) {
      const page = kernel.memmap.pfnToPage(pfn as Pfn);
      found.push(page);
      pfn += ramUse(kernel, page) === 'free' ? freeBlockPages(kernel, page) : 1;
    }
  }
  return found;
}

/** Every page of RAM that says that it has failed. */
export function* failedPages(kernel: Kernel): Generator<Page, void, void> {
  if (kernel.memoryFailures.poisoned === 0) return;
  for (const page of ramPages(kernel)) if (pageFlags(kernel.memmap.words, page) & PG_hwpoison) yield page;
}
