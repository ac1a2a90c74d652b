/**
 * Holds: the mapcount of every page is the number of page table entries that map it, its refcount is that, its pins (each
 * GUP_PIN_COUNTING_BIAS), its page cache's, the plain references of users and that of a failed page, and
 * each address space's counters (rss, tables) are what its page tables hold. A device page counts like a page of RAM, and
 * its pagemap has one reference for each that is in use.
 *
 * Does not see: who holds a reference, only how many there should be; contents. Suspended while anything is in flight: a
 * migration and the copy engine hold references of their own.
 */
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { NULL_PAGE, type Page } from '../base/brand.js';
import type { Checker, SharedFindings } from '../machine/state.js';
import type { Kernel } from '../mm/kernel.js';
import {
  folioCacheReferences,
  folioMapcount,
  pageIsAnon,
  pageMapcount,
  pagePincount,
  pageTestFlag,
  pinBias,
} from '../mm/page.js';
import { folioHead, pageRefCount } from '../sync/page-ref.js';
import { type CpuEntry, countTables, cpuEntries } from './page-tables.js';
import { ramPages, ramUse } from './ram.js';
import { nextInUse } from './scan.js';

/** Entries that map each page, and references that those of each folio hold, over all address spaces. */
class Mappings {
  readonly #words: Int32Array;
  readonly #ofPage = new Map<Page, number>();
  readonly #ofFolio = new Map<Page, number>();
  /** Plain references that users hold, by folio. */
  readonly #held = new Map<Page, number>();

  constructor(words: Int32Array) {
    this.#words = words;
  }

  add({ page, inHuge }: CpuEntry): void {
    this.#ofPage.set(page, this.ofPage(page) + 1);
    // A huge entry holds one reference, however many pages it maps.
    if (inHuge > 0) return;
    const head = folioHead(this.#words, page);
    this.#ofFolio.set(head, this.ofFolio(head) + 1);
  }

  ofPage(page: Page): number {
    return this.#ofPage.get(page) ?? 0;
  }

  hold(page: Page, references: number): void {
    const head = folioHead(this.#words, page);
    this.#held.set(head, this.heldOn(head) + references);
  }

  heldOn(head: Page): number {
    return this.#held.get(head) ?? 0;
  }

  ofFolio(head: Page): number {
    return this.#ofFolio.get(head) ?? 0;
  }

  /** Pages of a range that are in use by their own account, and those that are mapped, whatever they say. */
  inRange(first: Page, end: number): ReadonlySet<Page> {
    const pages = new Set<Page>();
    for (const page of this.#ofPage.keys()) if (page >= first && page < end) pages.add(page);
    for (let page = nextInUse(this.#words, first, end); page < end; ) {
      pages.add(page);
      page = nextInUse(this.#words, (page + 1) as Page, end);
    }
    return pages;
  }
}

type Counter = 'rssAnon' | 'rssShmem' | 'rssFile' | 'hugetlbUsage';

/** Counter that a page at rest belongs to: what is not anonymous and not of shared memory is a file's, or a driver's. */
function counterOf({ memmap: { words } }: Kernel, page: Page): Counter {
  if (pageTestFlag(words, page, PAGE_FLAGS.PG_hugetlb)) return 'hugetlbUsage';
  if (pageIsAnon(words, page)) return 'rssAnon';
  return pageTestFlag(words, page, PAGE_FLAGS.PG_swapbacked) ? 'rssShmem' : 'rssFile';
}

/** Count what the page tables map; says what is wrong with an address space's own counters. */
function* census(kernel: Kernel, mappings: Mappings, shared?: SharedFindings): Generator<string, void, void> {
  for (const mm of kernel.mms) {
    const resident: Record<Counter, number> = { rssAnon: 0, rssShmem: 0, rssFile: 0, hugetlbUsage: 0 };
    for (const entry of cpuEntries(kernel, mm, shared)) {
      if (entry.page === NULL_PAGE) continue;
      resident[counterOf(kernel, entry.page)]++;
      // A migration entry counts as resident but maps nothing.
      if (!entry.kind.startsWith('migration')) mappings.add(entry);
    }
    for (const [counter, pages] of Object.entries(resident)) {
      const counted = mm[counter as Counter];
      if (pages !== counted) yield `process ${mm.pid}: ${counter} counts ${counted} pages, there are ${pages}`;
    }
    const tables = countTables(kernel, mm);
    if (tables !== mm.tables) yield `process ${mm.pid}: ${mm.tables} page tables are counted, there are ${tables}`;
  }
}

/** Compare one page's counts with what was found. */
function* compare(kernel: Kernel, page: Page, mappings: Mappings, name: string): Generator<string, void, void> {
  const { words } = kernel.memmap;
  const mapped = mappings.ofPage(page);
  const mapcount = pageMapcount(words, page);
  if (mapcount !== mapped) yield `${name}: mapcount ${mapcount}, but ${mapped} page table entries map it`;
  if (folioHead(words, page) !== page) return;
  const references = pageRefCount(words, page);
  const entries = mappings.ofFolio(page);
  const ofFolio = folioMapcount(words, page);
  if (ofFolio !== entries) yield `${name}: its folio counts ${ofFolio} mappings, but ${entries} entries map it`;
  const pins = pagePincount(words, page);
  const cached = folioCacheReferences(words, page);
  const held = mappings.heldOn(page);
  const failed = kernel.memoryFailures.held.has(page) ? 1 : 0;
  if (references !== entries + cached + held + failed + pins * pinBias(words, page)) {
    const holders = `${entries} page table entries, ${cached} page caches, ${held} users, ${failed} failures and ${pins} pins`;
    yield `${name}: refcount ${references}, but ${holders} hold it`;
  }
}

export const pageAccounting: Checker = {
  invariant: 'page-accounting',
  statement: 'refcounts, mapcounts and rss counters are what page tables, page caches and pins hold',
  *look({ kernel, heldPages }, shared) {
    const mappings = new Mappings(kernel.memmap.words);
    for (const [page, references] of heldPages) mappings.hold(page, references);
    yield* census(kernel, mappings, shared);
    for (const page of ramPages(kernel)) {
      if (ramUse(kernel, page) === 'used') yield* compare(kernel, page, mappings, `RAM page ${page}`);
    }
    for (const pgmap of kernel.pagemaps) {
      let inUse = 0;
      for (const page of mappings.inRange(pgmap.pages, pgmap.pages + pgmap.nrPages)) {
        yield* compare(kernel, page, mappings, `page ${page - pgmap.pages} of pagemap ${pgmap.id}`);
        if (pageRefCount(kernel.memmap.words, page) > 0) inUse++;
      }
      const references = pgmap.ref?.count ?? 0;
      if (references !== inUse + 1) {
        yield `pagemap ${pgmap.id}: ${references} references, but ${inUse} pages are in use beside its own`;
      }
    }
  },
};
