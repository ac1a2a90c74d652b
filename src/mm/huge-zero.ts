/**
 * The huge zero page: 2 MiB of zeroes that untouched huge memory reads. Linux: mm/huge_memory.c mm_get_huge_zero_folio().
 *
 * It exists while some address space has used it. (Linux keeps it until memory is short; here it goes with its last user.)
 */
import { HPAGE_PMD_NR, HPAGE_PMD_ORDER } from '../abi/address.js';
import { LOW_HUGE, LOW_SPECIAL } from '../abi/pte-halves.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { NULL_PAGE, type Page } from '../base/brand.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import { pageClearFlag, pageSetFlag, prepCompoundPage } from './page.js';
import { putPage } from './put-page.js';

/** Flags of an entry of an upper level that maps it, beside the VMA's protection: no struct page is counted. */
export const HUGE_ZERO_FLAGS = LOW_HUGE | LOW_SPECIAL;

/** Its first page, for an address space that keeps using it until `putHugeZero`; NULL_PAGE when RAM is out. */
export function getHugeZero(kernel: Kernel, mm: MmStruct): Page {
  const { hugeZero, buddy, memmap, ram } = kernel;
  if (hugeZero.page === NULL_PAGE) {
    const page = buddy.allocPages(HPAGE_PMD_ORDER);
    if (page === NULL_PAGE) return page;
    prepCompoundPage(memmap.words, page, HPAGE_PMD_ORDER);
    for (let i = 0; i < HPAGE_PMD_NR; i++) {
      ram.zeroFrame(memmap.ramFrame((page + i) as Page));
      pageSetFlag(memmap.words, (page + i) as Page, PAGE_FLAGS.PG_reserved);
    }
    hugeZero.page = page;
  }
  if (!mm.usesHugeZero) hugeZero.users++;
  mm.usesHugeZero = true;
  return hugeZero.page;
}

/** The address space is gone. */
export function putHugeZero(kernel: Kernel, mm: MmStruct): void {
  const { hugeZero, memmap } = kernel;
  if (!mm.usesHugeZero) return;
  mm.usesHugeZero = false;
  if (--hugeZero.users > 0) return;
  const { page } = hugeZero;
  for (let i = 0; i < HPAGE_PMD_NR; i++) pageClearFlag(memmap.words, (page + i) as Page, PAGE_FLAGS.PG_reserved);
  hugeZero.page = NULL_PAGE;
  // Whoever got a reference by GUP keeps it.
  putPage(kernel, page);
}
