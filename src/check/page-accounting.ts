/**
 * Holds: the mapcount of every page is the number of page table entries that map it, its refcount is that, its pins (each GUP_PIN_COUNTING_BIAS) and its page cache's, and
 * each address space's counters (rss, tables) are what its page tables hold. A device page counts like a page of RAM, and
 * its pagemap has one reference for each that is in use.
 *
 * Does not see: who holds a reference, only how many there should be; contents. Suspended while anything is in flight: a
 * migration and the copy engine hold references of their own.
 */
import { STRUCT_PAGE, STRUCT_PAGE_WORD_SHIFT } from '../abi/struct-page.js';
import { NULL_PAGE, type Page } from '../base/brand.js';
import type { Checker } from '../machine/state.js';
import type { Kernel } from '../mm/kernel.js';
import { GUP_PIN_COUNTING_BIAS, pageFileId, pageMapcount } from '../mm/page.js';
import { pageRefCount } from '../sync/page-ref.js';
import { load32 } from '../sync/word.js';
import { cpuEntries, cpuTables } from './page-tables.js';
import { ramPages, ramUse } from './ram.js';

const PINCOUNT = STRUCT_PAGE.word.pincount;

/** Entries that map each page, over all address spaces; says what is wrong with an address space's own counters. */
function* census(kernel: Kernel, mappings: Map<Page, number>): Generator<string, void, void> {
  for (const mm of kernel.mms) {
    let rss = 0;
    for (const { kind, page } of cpuEntries(kernel, mm)) {
      if (page === NULL_PAGE) continue;
      rss++;
      // A migration entry counts as resident but maps nothing.
      if (!kind.startsWith('migration')) mappings.set(page, (mappings.get(page) ?? 0) + 1);
    }
    const counted = mm.rssAnon + mm.rssShmem;
    if (rss !== counted) yield `process ${mm.pid}: ${counted} pages are counted as resident, there are ${rss}`;
    const tables = [...cpuTables(kernel, mm)].length;
    if (tables !== mm.tables) yield `process ${mm.pid}: ${mm.tables} page tables are counted, there are ${tables}`;
  }
}

/** Compare one page's counts with what was found. */
function* compare(kernel: Kernel, page: Page, mapped: number, name: string): Generator<string, void, void> {
  const { words } = kernel.memmap;
  const mapcount = pageMapcount(words, page);
  const references = pageRefCount(words, page);
  const pins = load32(words, (page << STRUCT_PAGE_WORD_SHIFT) + PINCOUNT);
  if (mapcount !== mapped) yield `${name}: mapcount ${mapcount}, but ${mapped} page table entries map it`;
  const cached = pageFileId(words, page) === 0 ? 0 : 1;
  if (references !== mapped + cached + pins * GUP_PIN_COUNTING_BIAS) {
    const holders = `${mapped} page table entries, ${cached} page caches and ${pins} pins`;
    yield `${name}: refcount ${references}, but ${holders} hold it`;
  }
}

export const pageAccounting: Checker = {
  invariant: 'page-accounting',
  statement: 'refcounts, mapcounts and rss counters are what page tables, page caches and pins hold',
  *look({ kernel }) {
    const mappings = new Map<Page, number>();
    yield* census(kernel, mappings);
    for (const page of ramPages(kernel)) {
      if (ramUse(kernel, page) === 'used') yield* compare(kernel, page, mappings.get(page) ?? 0, `RAM page ${page}`);
    }
    for (const pgmap of kernel.pagemaps) {
      let inUse = 0;
      for (let page = pgmap.pages; page < pgmap.pages + pgmap.nrPages; page++) {
        yield* compare(kernel, page, mappings.get(page) ?? 0, `page ${page - pgmap.pages} of pagemap ${pgmap.id}`);
        if (pageRefCount(kernel.memmap.words, page) > 0) inUse++;
      }
      const references = pgmap.ref?.count ?? 0;
      if (references !== inUse + 1) {
        yield `pagemap ${pgmap.id}: ${references} references, but ${inUse} pages are in use beside its own`;
      }
    }
  },
};
