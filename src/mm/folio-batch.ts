/** Entries that map one large folio, in a row. Linux: mm/internal.h folio_pte_batch_flags(). */
import { halvesPfn, LOW_FLAGS, LOW_SPECIAL, lowPresent } from '../abi/pte-halves.js';
import type { Pfn } from '../base/brand.js';
import { folioHead } from '../sync/page-ref.js';
import { peek32 } from '../sync/word.js';
import type { Kernel } from './kernel.js';
import { folioNrPages, isLargeFolio } from './page.js';

/**
 * How many entries from the one at `at` on, before `end`, map the next pages of the same large folio; 0 if that one maps none.
 * Precondition: page table lock held, both in one table.
 * @param ignored flags in which they may differ
 */
export function folioBatch(kernel: Kernel, at: number, end: number, ignored: number): number {
  const { halves } = kernel.ram;
  const { words } = kernel.memmap;
  const low = peek32(halves, 2 * at);
  if (!lowPresent(low) || (low & LOW_SPECIAL) !== 0) return 0;
  const pfn = halvesPfn(low, peek32(halves, 2 * at + 1));
  const page = kernel.memmap.pfnToPage(pfn as Pfn);
  const head = folioHead(words, page);
  if (!isLargeFolio(words, head)) return 0;
  const most = Math.min(end - at, head + folioNrPages(words, head) - page);
  const compared = LOW_FLAGS & ~ignored;
  let count = 1;
  for (; count < most; count++) {
    const next = peek32(halves, 2 * (at + count));
    if (((next ^ low) & compared) !== 0) break;
    if (halvesPfn(next, peek32(halves, 2 * (at + count) + 1)) !== pfn + count) break;
  }
  return count;
}
