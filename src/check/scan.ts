/**
 * The inner loops of checkers, as plain functions: a machine is mostly empty, and a loop inside of a generator costs ten times as
 * much. So a look at a machine costs what is in it, not how large it is.
 */
import { STRUCT_PAGE, STRUCT_PAGE_WORD_SHIFT } from '../abi/struct-page.js';
import type { Page } from '../base/brand.js';

const FLAGS = STRUCT_PAGE.word.flags;
const COMPOUND_HEAD = STRUCT_PAGE.word.compoundHead;
const MAPPING = STRUCT_PAGE.word.mapping;
const MAPCOUNT = STRUCT_PAGE.word.mapcount;
const REFCOUNT = STRUCT_PAGE.word.refcount;
const PINCOUNT = STRUCT_PAGE.word.pincount;
const ENTIRE_MAPCOUNT = STRUCT_PAGE.word.entireMapcount;

/** The first page from `page` to `end - 1` that has one of these flags; `end` if there is none. */
export function nextFlagged(memmap: Int32Array, page: Page, end: number, flags: number): Page {
  let at: number = page;
  while (at < end && (memmap[(at << STRUCT_PAGE_WORD_SHIFT) + FLAGS]! & flags) === 0) at++;
  return at as Page;
}

/** The first device page from `page` to `end - 1` that somebody holds, maps or has a part of; `end` if there is none. */
export function nextInUse(memmap: Int32Array, page: Page, end: number): Page {
  let at: number = page;
  for (; at < end; at++) {
    const slot = at << STRUCT_PAGE_WORD_SHIFT;
    const held = memmap[slot + REFCOUNT]! | memmap[slot + PINCOUNT]! | memmap[slot + COMPOUND_HEAD]!;
    const mapped = (memmap[slot + MAPCOUNT]! + 1) | (memmap[slot + ENTIRE_MAPCOUNT]! + 1) | memmap[slot + MAPPING]!;
    if ((held | mapped) !== 0) break;
  }
  return at as Page;
}
