/**
 * Four-level page tables in RAM frames, as hardware walks them. Linux: arch/x86/include/asm/pgtable.h, mm/memory.c __pte_alloc().
 *
 * A table is named by the index of its first entry in `kernel.ram.words`; -1 stands for none. The leaf table that was used
 * last is remembered in the mm, since almost every walk stays in its 2 MiB.
 *
 * The split page table lock is a word of the table's struct page (`private`). It is a spinlock: nothing may sleep under it, so
 * on the kernel's single thread finding it taken is a bug, not contention.
 */
import { PAGE_SIZE, PGD_SHIFT, PMD_SHIFT, PMD_SIZE, PTRS_PER_TABLE, PUD_SHIFT } from '../abi/address.js';
import { makePte, pteNone, ptePfn, TABLE_FLAGS } from '../abi/pte.js';
import { PAGE_FLAGS, STRUCT_PAGE, STRUCT_PAGE_WORD_SHIFT } from '../abi/struct-page.js';
import { NULL_PAGE, type Page, type Pte, type VirtAddr } from '../base/brand.js';
import { assert } from '../base/errors.js';
import { pageRefAdd } from '../sync/page-ref.js';
import { readPte, setPte } from '../sync/word.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import { pageClearFlag, pageSetFlag } from './page.js';

/** Index of a table's first entry in RAM's words, or -1. */
export type TableIndex = number;
export const NO_TABLE: TableIndex = -1;

/** Shifts of the levels above the leaf, top down. */
const UPPER_SHIFTS = [PGD_SHIFT, PUD_SHIFT, PMD_SHIFT] as const;
const LOCK_WORD = STRUCT_PAGE.word.private;

/** Index of `addr` in the table whose entries span `2 ** shift` bytes. */
const indexAt = (addr: number, shift: number): number => Math.floor(addr / 2 ** shift) & (PTRS_PER_TABLE - 1);
/** Index of `addr` in its leaf table. */
export const pteIndex = (addr: number): number => Math.floor(addr / PAGE_SIZE) & (PTRS_PER_TABLE - 1);

export const tableOfPage = (kernel: Kernel, page: Page): TableIndex => kernel.memmap.ramFrame(page) * PTRS_PER_TABLE;
const pageOfTable = (kernel: Kernel, table: TableIndex): Page =>
  (kernel.memmap.ramPage + table / PTRS_PER_TABLE) as Page;

/** A zeroed page table page; NULL_PAGE when RAM is out. */
export function allocTable(kernel: Kernel): Page {
  const page = kernel.buddy.allocPages(0);
  if (page === NULL_PAGE) return page;
  kernel.ram.zeroFrame(kernel.memmap.ramFrame(page));
  pageSetFlag(kernel.memmap.words, page, PAGE_FLAGS.PG_table);
  kernel.memmap.words[(page << STRUCT_PAGE_WORD_SHIFT) + LOCK_WORD] = 0;
  return page;
}

export function freeTable(kernel: Kernel, page: Page): void {
  pageClearFlag(kernel.memmap.words, page, PAGE_FLAGS.PG_table);
  pageRefAdd(kernel.memmap.words, page, -1);
  kernel.buddy.freePages(page, 0);
}

/** The table that an upper entry points to. Precondition: the entry is not none. */
const tableOfEntry = (kernel: Kernel, entry: Pte): TableIndex =>
  tableOfPage(kernel, kernel.memmap.pfnToPage(ptePfn(entry)));

/** The leaf table of `addr`, or NO_TABLE where nothing was ever mapped (`pte_offset_map`). */
export function leafTable(kernel: Kernel, mm: MmStruct, addr: VirtAddr): TableIndex {
  const region = Math.floor(addr / PMD_SIZE);
  if (mm.cachedRegion === region) return mm.cachedTable;
  let table = tableOfPage(kernel, mm.pgd);
  for (const shift of UPPER_SHIFTS) {
    const entry = readPte(kernel.ram.words, table + indexAt(addr, shift));
    if (pteNone(entry)) return NO_TABLE;
    table = tableOfEntry(kernel, entry);
  }
  mm.cachedRegion = region;
  mm.cachedTable = table;
  return table;
}

/** The same, making the tables that are missing (`pte_alloc`); NO_TABLE when RAM is out. */
export function allocLeafTable(kernel: Kernel, mm: MmStruct, addr: VirtAddr): TableIndex {
  const found = leafTable(kernel, mm, addr);
  if (found !== NO_TABLE) return found;
  let table = tableOfPage(kernel, mm.pgd);
  for (const shift of UPPER_SHIFTS) {
    const at = table + indexAt(addr, shift);
    const entry = readPte(kernel.ram.words, at);
    if (pteNone(entry)) {
      const page = allocTable(kernel);
      if (page === NULL_PAGE) return NO_TABLE;
      mm.tables++;
      setPte(kernel.ram.words, at, makePte(kernel.memmap.pageToPfn(page), TABLE_FLAGS));
      table = tableOfPage(kernel, page);
    } else {
      table = tableOfEntry(kernel, entry);
    }
  }
  return table;
}

/** First address after `addr` that a different leaf table serves. */
export const nextLeaf = (addr: number): number => (Math.floor(addr / PMD_SIZE) + 1) * PMD_SIZE;

/** First address at or after `addr`, below `end`, whose leaf table exists; `end` if there is none. Skips holes by the level. */
export function nextMappedLeaf(kernel: Kernel, mm: MmStruct, addr: number, end: number): number {
  const words = kernel.ram.words;
  let at = addr;
  outer: while (at < end) {
    let table = tableOfPage(kernel, mm.pgd);
    for (const shift of UPPER_SHIFTS) {
      const entry = readPte(words, table + indexAt(at, shift));
      if (pteNone(entry)) {
        at = (Math.floor(at / 2 ** shift) + 1) * 2 ** shift;
        continue outer;
      }
      table = tableOfEntry(kernel, entry);
    }
    return at;
  }
  return end;
}

/** Take the page table lock of a leaf table (`pte_lockptr`). */
export function lockTable(kernel: Kernel, table: TableIndex): void {
  const at = (pageOfTable(kernel, table) << STRUCT_PAGE_WORD_SHIFT) + LOCK_WORD;
  assert(kernel.memmap.words[at] === 0, 'page table lock taken twice: somebody slept under it or forgot to drop it');
  kernel.memmap.words[at] = 1;
}

export function unlockTable(kernel: Kernel, table: TableIndex): void {
  kernel.memmap.words[(pageOfTable(kernel, table) << STRUCT_PAGE_WORD_SHIFT) + LOCK_WORD] = 0;
}

/**
 * `free_pgtables()`: give back the tables below [floor, ceiling), in which nothing is mapped any more.
 * Precondition: mmap_lock held for writing; all entries in the range are none.
 */
export function freePgtables(kernel: Kernel, mm: MmStruct, floor: number, ceiling: number): void {
  mm.cachedRegion = -1;
  freeLevel(kernel, mm, tableOfPage(kernel, mm.pgd), 0, 0, floor, ceiling);
}

function freeLevel(
  kernel: Kernel,
  mm: MmStruct,
  table: TableIndex,
  level: number,
  base: number,
  floor: number,
  ceiling: number,
): void {
  const span = 2 ** UPPER_SHIFTS[level];
  const first = Math.max(0, Math.floor((floor - base) / span));
  const last = Math.min(PTRS_PER_TABLE - 1, Math.floor((ceiling - 1 - base) / span));
  for (let index = first; index <= last; index++) {
    const entry = readPte(kernel.ram.words, table + index);
    if (pteNone(entry)) continue;
    const start = base + index * span;
    const child = tableOfEntry(kernel, entry);
    if (level + 1 < UPPER_SHIFTS.length) freeLevel(kernel, mm, child, level + 1, start, floor, ceiling);
    if (start < floor || start + span > ceiling) continue;
    setPte(kernel.ram.words, table + index, 0n as Pte);
    freeTable(kernel, pageOfTable(kernel, child));
    mm.tables--;
  }
}
