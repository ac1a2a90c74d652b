/**
 * References and the lock of a struct page. Linux: include/linux/page_ref.h, mm/filemap.c folio_trylock(). A folio has one
 * count and one lock, on its head: any of its pages may be named. Copy engines change counts, on threads of their own; locks are
 * taken and dropped on the kernel's thread alone, which changes the other flags beside them.
 */
import { PAGE_FLAGS, STRUCT_PAGE, STRUCT_PAGE_WORD_SHIFT } from '../abi/struct-page.js';
import type { Page } from '../base/brand.js';
import { add32, compareExchange32, load32 } from './word.js';

const REFCOUNT = STRUCT_PAGE.word.refcount;
const COMPOUND_HEAD = STRUCT_PAGE.word.compoundHead;
const FLAGS = STRUCT_PAGE.word.flags;
const ORDER = STRUCT_PAGE.word.order;
const LOCKED = PAGE_FLAGS.PG_locked;

/** `page_folio()`: the page that speaks for all pages of a folio. */
export const folioHead = (memmap: Int32Array, page: Page): Page => {
  const compound = memmap[(page << STRUCT_PAGE_WORD_SHIFT) + COMPOUND_HEAD]!;
  return compound === 0 ? page : ((compound >>> 1) as Page);
};

const countOf = (memmap: Int32Array, page: Page): number =>
  (folioHead(memmap, page) << STRUCT_PAGE_WORD_SHIFT) + REFCOUNT;
const lockOf = (memmap: Int32Array, page: Page): number => (folioHead(memmap, page) << STRUCT_PAGE_WORD_SHIFT) + FLAGS;

/** As it is at the moment: copy engines come and go. */
export const pageRefCount = (memmap: Int32Array, page: Page): number => memmap[countOf(memmap, page)]!;

/** Add references to a page that somebody holds. Returns the new count. */
export const pageRefAdd = (memmap: Int32Array, page: Page, delta: number): number =>
  add32(memmap, countOf(memmap, page), delta) + delta;

/**
 * Add `delta` references to each of `pages` neighbours that somebody holds: to a folio once, for all of its pages.
 * @returns the lowest count that a folio had besides
 */
export function pageRefAddRun(memmap: Int32Array, first: Page, pages: number, delta: 1 | -1): number {
  let lowest = Number.POSITIVE_INFINITY;
  for (let page = first as number, end = page + pages; page < end; ) {
    const head = folioHead(memmap, page as Page);
    const slot = head << STRUCT_PAGE_WORD_SHIFT;
    const folioEnd = head + ((memmap[slot + FLAGS]! & PAGE_FLAGS.PG_head) === 0 ? 1 : 1 << memmap[slot + ORDER]!);
    const stop = Math.min(end, folioEnd);
    const before = add32(memmap, slot + REFCOUNT, delta * (stop - page));
    lowest = Math.min(lowest, delta > 0 ? before : before - (stop - page));
    page = stop;
  }
  return lowest;
}

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

export const folioTrylock = (memmap: Int32Array, page: Page): boolean => {
  const at = lockOf(memmap, page);
  const flags = memmap[at]!;
  memmap[at] = flags | LOCKED;
  return (flags & LOCKED) === 0;
};
export const folioUnlock = (memmap: Int32Array, page: Page): void => {
  memmap[lockOf(memmap, page)]! &= ~LOCKED;
};
export const folioLocked = (memmap: Int32Array, page: Page): boolean => (memmap[lockOf(memmap, page)]! & LOCKED) !== 0;
