/**
 * Four-level page tables in RAM frames, as hardware walks them. Linux: arch/x86/include/asm/pgtable.h, mm/memory.c __pte_alloc().
 *
 * A table is named by the index of its first entry in `kernel.ram.words`; -1 stands for none. The leaf table that was used
 * last is remembered in the mm, since almost every walk stays in its 2 MiB.
 *
 * The split page table lock is a word of the table's struct page (`private`). It is a spinlock: nothing may sleep under it, so
 * on the kernel's single thread finding it taken is a bug, not contention.
 */
import { PAGE_SIZE, PGDIR_SIZE, PMD_SIZE, PTRS_PER_TABLE, PUD_SIZE } from '../abi/address.js';
import { makePte, TABLE_FLAGS } from '../abi/pte.js';
import { halvesPfn, LOW_HUGE, LOW_PRESENT } from '../abi/pte-halves.js';
import { PAGE_FLAGS, STRUCT_PAGE, STRUCT_PAGE_WORD_SHIFT } from '../abi/struct-page.js';
import { NULL_PAGE, type Page, type Pfn, type Pte, type VirtAddr } from '../base/brand.js';
import { assert } from '../base/errors.js';
import { injects } from '../base/injection.js';
import { nextWord } from '../base/next-word.js';
import { pageRefAdd } from '../sync/page-ref.js';
import { peek32, readPte, setPte } from '../sync/word.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import { pageClearFlag, pageSetFlag } from './page.js';
import { flushTlbTables } from './tlbflush.js';

/** Index of a table's first entry in RAM's words, or -1. */
export type TableIndex = number;
export const NO_TABLE: TableIndex = -1;

/** What an entry of each level above the leaf spans, in bytes, top down. */
const UPPER_SPANS = [PGDIR_SIZE, PUD_SIZE, PMD_SIZE] as const;
const MIDDLE_SPANS = [PGDIR_SIZE, PUD_SIZE] as const;
const LOCK_WORD = STRUCT_PAGE.word.private;
/** Of a middle directory: the first of the tables that are kept for its huge pages; of such a table: the next. */
const DEPOSIT_WORD = STRUCT_PAGE.word.lruNext;

/** Index of `addr` in the table whose entries span `span` bytes. */
const indexAt = (addr: number, span: number): number => Math.floor(addr / span) & (PTRS_PER_TABLE - 1);
/** Index of `addr` in its leaf table. */
export const pteIndex = (addr: number): number => Math.floor(addr / PAGE_SIZE) & (PTRS_PER_TABLE - 1);

export const tableOfPage = (kernel: Kernel, page: Page): TableIndex => kernel.memmap.ramFrame(page) * PTRS_PER_TABLE;
export const pageOfTable = (kernel: Kernel, table: TableIndex): Page =>
  (kernel.memmap.ramPage + table / PTRS_PER_TABLE) as Page;

/** A zeroed page table page; NULL_PAGE when RAM is out. */
export function allocTable(kernel: Kernel): Page {
  if (injects(kernel, 'alloc-table')) return NULL_PAGE;
  const page = kernel.buddy.allocPages(0);
  if (page === NULL_PAGE) return page;
  kernel.ram.zeroFrame(kernel.memmap.ramFrame(page));
  pageSetFlag(kernel.memmap.words, page, PAGE_FLAGS.PG_table);
  kernel.memmap.words[(page << STRUCT_PAGE_WORD_SHIFT) + LOCK_WORD] = 0;
  kernel.memmap.words[(page << STRUCT_PAGE_WORD_SHIFT) + DEPOSIT_WORD] = NULL_PAGE;
  return page;
}

export function freeTable(kernel: Kernel, page: Page): void {
  pageClearFlag(kernel.memmap.words, page, PAGE_FLAGS.PG_table);
  pageRefAdd(kernel.memmap.words, page, -1);
  kernel.buddy.freePages(page, 0);
}

/** The table that the upper entry at `at` points to. Precondition: it is one of a table. */
function tableBelow({ ram, memmap }: Kernel, at: number): TableIndex {
  const pfn = halvesPfn(peek32(ram.halves, 2 * at), peek32(ram.halves, 2 * at + 1)) as Pfn;
  return memmap.ramFrame(memmap.pfnToPage(pfn)) * PTRS_PER_TABLE;
}

/** Does an upper entry (or its low half) point to a table? Otherwise it is none, maps a huge page, or stands for one. */
const pointsToTable = (kernel: Kernel, at: number): boolean =>
  (peek32(kernel.ram.halves, 2 * at) & (LOW_PRESENT | LOW_HUGE)) === LOW_PRESENT;

/** Is an upper entry none? Nobody but us writes upper tables. */
const isNone = ({ ram }: Kernel, at: number): boolean => (ram.halves[2 * at] | ram.halves[2 * at + 1]) === 0;

/** The leaf table of `addr`, or NO_TABLE: nothing was ever mapped there, or a huge page (`pte_offset_map`). */
export function leafTable(kernel: Kernel, mm: MmStruct, addr: VirtAddr): TableIndex {
  const region = Math.floor(addr / PMD_SIZE);
  if (mm.cachedRegion === region) return mm.cachedTable;
  let table = tableOfPage(kernel, mm.pgd);
  for (const span of UPPER_SPANS) {
    const at = table + indexAt(addr, span);
    if (!pointsToTable(kernel, at)) return NO_TABLE;
    table = tableBelow(kernel, at);
  }
  mm.cachedRegion = region;
  mm.cachedTable = table;
  return table;
}

/**
 * The same, making the tables that are missing (`pte_alloc`); NO_TABLE when RAM is out.
 * Precondition: no huge page stands there.
 */
export function allocLeafTable(kernel: Kernel, mm: MmStruct, addr: VirtAddr): TableIndex {
  const found = leafTable(kernel, mm, addr);
  if (found !== NO_TABLE) return found;
  const pmd = allocPmd(kernel, mm, addr);
  return pmd === NO_TABLE ? NO_TABLE : allocBelow(kernel, mm, pmd);
}

/** The table below an upper entry, made if there is none. */
function allocBelow(kernel: Kernel, mm: MmStruct, at: number): TableIndex {
  if (pointsToTable(kernel, at)) return tableBelow(kernel, at);
  assert(isNone(kernel, at), 'a page table is wanted where a huge page is mapped');
  const page = allocTable(kernel);
  if (page === NULL_PAGE) return NO_TABLE;
  mm.tables++;
  populate(kernel, at, page);
  return tableOfPage(kernel, page);
}

/** `pmd_populate()`: the upper entry points to the table. */
export function populate(kernel: Kernel, at: number, table: Page): void {
  setPte(kernel.ram.words, at, makePte(kernel.memmap.pageToPfn(table), TABLE_FLAGS));
}

/** Place of the page middle directory entry of `addr`, or NO_TABLE where an upper table is missing (`mm_find_pmd`). */
export function findPmd(kernel: Kernel, mm: MmStruct, addr: number): number {
  let table = tableOfPage(kernel, mm.pgd);
  for (const span of MIDDLE_SPANS) {
    const at = table + indexAt(addr, span);
    if (!pointsToTable(kernel, at)) return NO_TABLE;
    table = tableBelow(kernel, at);
  }
  return table + indexAt(addr, PMD_SIZE);
}

/** The same, making the upper tables that are missing (`pmd_alloc`); NO_TABLE when RAM is out. */
export function allocPmd(kernel: Kernel, mm: MmStruct, addr: number): number {
  let table = tableOfPage(kernel, mm.pgd);
  for (const span of MIDDLE_SPANS) {
    table = allocBelow(kernel, mm, table + indexAt(addr, span));
    if (table === NO_TABLE) return NO_TABLE;
  }
  return table + indexAt(addr, PMD_SIZE);
}

/** The table in which an entry stands. */
export const tableOf = (at: number): TableIndex => at - (at % PTRS_PER_TABLE);

/** First address after `addr` that a different leaf table serves. */
export const nextLeaf = (addr: number): number => (Math.floor(addr / PMD_SIZE) + 1) * PMD_SIZE;

/** First address at or after `addr`, below `end`, with a leaf table or a huge page; `end` if there is none. Skips holes by the level. */
export function nextMappedLeaf(kernel: Kernel, mm: MmStruct, addr: number, end: number): number {
  let at = addr;
  outer: while (at < end) {
    let table = tableOfPage(kernel, mm.pgd);
    for (const span of UPPER_SPANS) {
      const entry = table + indexAt(at, span);
      if (isNone(kernel, entry)) {
        at = (Math.floor(at / span) + 1) * span;
        continue outer;
      }
      if (span !== PMD_SIZE) table = tableBelow(kernel, entry);
    }
    return at;
  }
  return end;
}

/**
 * `pgtable_trans_huge_deposit()`: beside every huge page a leaf table is kept, so that splitting it never needs memory.
 * `middle` is the table of the huge page's entry.
 */
export function depositTable(kernel: Kernel, middle: TableIndex, table: Page): void {
  const { words } = kernel.memmap;
  const at = (pageOfTable(kernel, middle) << STRUCT_PAGE_WORD_SHIFT) + DEPOSIT_WORD;
  words[(table << STRUCT_PAGE_WORD_SHIFT) + DEPOSIT_WORD] = words[at];
  words[at] = table;
}

/** `pgtable_trans_huge_withdraw()`: one of the tables, empty. */
export function withdrawTable(kernel: Kernel, middle: TableIndex): Page {
  const { words } = kernel.memmap;
  const at = (pageOfTable(kernel, middle) << STRUCT_PAGE_WORD_SHIFT) + DEPOSIT_WORD;
  const table = words[at] as Page;
  assert(table !== NULL_PAGE, 'a huge page without a deposited page table');
  words[at] = words[(table << STRUCT_PAGE_WORD_SHIFT) + DEPOSIT_WORD];
  return table;
}

/** Take the page table lock of a leaf table (`pte_lockptr`). */
export function lockTable(kernel: Kernel, table: TableIndex): void {
  assert(table !== NO_TABLE, 'lock of a page table that is not there');
  const at = (pageOfTable(kernel, table) << STRUCT_PAGE_WORD_SHIFT) + LOCK_WORD;
  assert(kernel.memmap.words[at] === 0, 'page table lock taken twice: somebody slept under it or forgot to drop it');
  kernel.memmap.words[at] = 1;
}

export function unlockTable(kernel: Kernel, table: TableIndex): void {
  const at = (pageOfTable(kernel, table) << STRUCT_PAGE_WORD_SHIFT) + LOCK_WORD;
  assert(kernel.memmap.words[at] === 1, 'page table lock dropped that nobody holds');
  kernel.memmap.words[at] = 0;
}

/**
 * `move_normal_pmd()` without the flush: the leaf table goes from one middle entry to another, with all that is in it; false where there
 * is a table already. Precondition: both directories are locked.
 */
export function moveLeafTable(kernel: Kernel, mm: MmStruct, from: number, to: number): boolean {
  if (!isNone(kernel, to)) return false;
  const entry = readPte(kernel.ram.words, from);
  setPte(kernel.ram.words, from, 0n as Pte);
  setPte(kernel.ram.words, to, entry);
  mm.cachedRegion = -1;
  return true;
}

/** Give back the leaf table of `addr`, which has to be empty. */
export function freeLeafTable(kernel: Kernel, mm: MmStruct, addr: VirtAddr): void {
  const at = findPmd(kernel, mm, addr);
  const table = tableBelow(kernel, at);
  setPte(kernel.ram.words, at, 0n as Pte);
  mm.cachedRegion = -1;
  flushTlbTables(kernel, mm);
  freeTable(kernel, pageOfTable(kernel, table));
  mm.tables--;
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
  const span = UPPER_SPANS[level];
  const { floats } = kernel.ram;
  const first = table + Math.max(0, Math.floor((floor - base) / span));
  const end = table + Math.min(PTRS_PER_TABLE, Math.ceil((ceiling - base) / span));
  for (let at = nextWord(floats, first, end); at < end; at = nextWord(floats, at + 1, end)) {
    const start = base + (at - table) * span;
    assert(pointsToTable(kernel, at), 'page tables are freed under a huge page');
    const child = tableBelow(kernel, at);
    if (level + 1 < UPPER_SPANS.length) freeLevel(kernel, mm, child, level + 1, start, floor, ceiling);
    if (start < floor || start + span > ceiling) continue;
    setPte(kernel.ram.words, at, 0n as Pte);
    flushTlbTables(kernel, mm);
    freeTable(kernel, pageOfTable(kernel, child));
    mm.tables--;
  }
}
