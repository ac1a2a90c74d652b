/**
 * References and the lock of a struct page, shared by the kernel and the copy engines. Linux: include/linux/page_ref.h,
 * mm/filemap.c folio_trylock(). A folio has one count and one lock, on its head: any of its pages may be named.
 */
import { PAGE_FLAGS, STRUCT_PAGE, STRUCT_PAGE_WORD_SHIFT } from '../abi/struct-page.js';
import type { Page } from '../base/brand.js';
import { add32, and32, compareExchange32, load32, or32 } from './word.js';

const REFCOUNT = STRUCT_PAGE.word.refcount;
const COMPOUND_HEAD = STRUCT_PAGE.word.compoundHead;
const FLAGS = STRUCT_PAGE.word.flags;
const LOCKED = PAGE_FLAGS.PG_locked;

/** `page_folio()`: the page that speaks for all pages of a folio. */
export const folioHead = (memmap: Int32Array, page: Page): Page => {
  const compound = memmap[(page << STRUCT_PAGE_WORD_SHIFT) + COMPOUND_HEAD]!;
  return compound === 0 ? page : ((compound >>> 1) as Page);
};

const countOf = (memmap: Int32Array, page: Page): number =>
  (folioHead(memmap, page) << STRUCT_PAGE_WORD_SHIFT) + REFCOUNT;
const lockOf = (memmap: Int32Array, page: Page): number => (folioHead(memmap, page) << STRUCT_PAGE_WORD_SHIFT) + FLAGS;

export const pageRefCount = (memmap: Int32Array, page: Page): number => load32(memmap, countOf(memmap, page));

/** Add references to a page that somebody holds. Returns the new count. */
export const pageRefAdd = (memmap: Int32Array, page: Page, delta: number): number =>
  add32(memmap, countOf(memmap, page), delta) + delta;

/** `get_page_unless_zero()`: a page with no holder is free or frozen and must not be revived. */
export function getPageUnlessZero(memmap: Int32Array, page: Page): boolean {
  const at = countOf(memmap, page);
  for (let count = load32(memmap, at); count !== 0; ) {
    const seen = compareExchange32(memmap, at, count, count + 1);
    if (seen === count) return true;
    count = seen;
  }
  return false;
}

export const folioTrylock = (memmap: Int32Array, page: Page): boolean =>
  (or32(memmap, lockOf(memmap, page), LOCKED) & LOCKED) === 0;
export const folioUnlock = (memmap: Int32Array, page: Page): void => {
  and32(memmap, lockOf(memmap, page), ~LOCKED);
};
export const folioLocked = (memmap: Int32Array, page: Page): boolean =>
  (load32(memmap, lockOf(memmap, page)) & LOCKED) !== 0;
