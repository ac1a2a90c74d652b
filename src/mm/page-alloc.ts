/**
 * The buddy allocator of RAM frames, orders 0 to MAX_PAGE_ORDER. Linux: mm/page_alloc.c (rmqueue, expand, __free_one_page).
 *
 * Free lists run through the struct pages (lruNext, lruPrev; `private` is the order; PG_buddy on the block's first page), so
 * the allocator has no memory of its own. A vmemmap is aligned to its section, hence a slot's low bits are its PFN's and
 * the buddy of a block is one bit of its slot number away. Not modelled: zones, migrate types, per-CPU lists, reclaim.
 */
import { MAX_PAGE_ORDER, PAGES_PER_SECTION } from '../abi/address.js';
import { PAGE_FLAGS, STRUCT_PAGE, STRUCT_PAGE_WORD_SHIFT } from '../abi/struct-page.js';
import { NULL_PAGE, type Page, type Pfn } from '../base/brand.js';
import { assert, InvariantViolation } from '../base/errors.js';
import { pageRefCount } from '../sync/page-ref.js';
import type { Memmap } from './memmap.js';

const { PG_buddy, PG_hwpoison, PG_isolated, PG_locked, PG_private, PG_reserved, PG_writeback } = PAGE_FLAGS;
/** A page with one of these is in somebody's hands (PAGE_FLAGS_CHECK_AT_FREE). PG_lru and its like vanish with the page. */
const IN_USE_FLAGS = PG_buddy | PG_isolated | PG_locked | PG_private | PG_reserved | PG_writeback;

const SHIFT = STRUCT_PAGE_WORD_SHIFT;
const FLAGS = STRUCT_PAGE.word.flags;
const COMPOUND_HEAD = STRUCT_PAGE.word.compoundHead;
const LRU_NEXT = STRUCT_PAGE.word.lruNext;
const LRU_PREV = STRUCT_PAGE.word.lruPrev;
const MAPPING = STRUCT_PAGE.word.mapping;
const PRIVATE = STRUCT_PAGE.word.private;
const ORDER = STRUCT_PAGE.word.order;
const MAPCOUNT = STRUCT_PAGE.word.mapcount;
const REFCOUNT = STRUCT_PAGE.word.refcount;
const PINCOUNT = STRUCT_PAGE.word.pincount;
const ENTIRE_MAPCOUNT = STRUCT_PAGE.word.entireMapcount;

/** What a checked run knows of each frame. */
const ALLOCATED = 0;
const FREE_SINCE_BOOT = 1;
const FREE_POISONED = 2;

export interface PageAllocatorOptions {
  /** Look at the state of every page that is freed, poison its frame, verify the poison when it is allocated again. */
  readonly checked: boolean;
  /** Fill the page's frame with a pattern. */
  poison?(page: Page): void;
  /** Does the frame still hold the pattern? */
  verify?(page: Page): boolean;
  /** Fault injection: does this allocation fail, although there may be room? */
  fail?(what: 'alloc-page' | 'alloc-block' | 'alloc-bulk'): boolean;
}

export interface FreeArea {
  readonly order: number;
  readonly freeBlocks: number;
}

export class PageAllocator {
  readonly #words: Int32Array;
  readonly #memmap: Memmap;
  readonly #options: PageAllocatorOptions;
  /** Orders that have free blocks, as bits. */
  #orders = 0;
  /** First block of each order's free list, and the list's length. */
  readonly #first = new Int32Array(MAX_PAGE_ORDER + 1);
  readonly #blocks = new Int32Array(MAX_PAGE_ORDER + 1);
  #freePages = 0;
  /** State of each slot's frame in checked runs. */
  readonly #state: Uint8Array | null;

  constructor(memmap: Memmap, options: PageAllocatorOptions) {
    this.#memmap = memmap;
    this.#words = memmap.words;
    this.#options = options;
    this.#state = options.checked ? new Uint8Array(memmap.words.length >> SHIFT) : null;
  }

  /** Pages that can be allocated. */
  get freePagesCount(): number {
    return this.#freePages;
  }

  /** Is there a block of 2^order pages? */
  has(order: number): boolean {
    return this.#orders >= 1 << order;
  }

  /** Free blocks of each order (/proc/buddyinfo). */
  stats(): FreeArea[] {
    return Array.from(this.#blocks, (freeBlocks, order) => ({ order, freeBlocks }));
  }

  /** Hand RAM to the allocator at boot (`memblock_free_all`). Precondition: the range has a vmemmap and was not added before. */
  addRange(pfn: Pfn, pages: number): void {
    for (let end = pfn + pages; end > pfn; ) {
      const start = Math.max(pfn, Math.floor((end - 1) / PAGES_PER_SECTION) * PAGES_PER_SECTION);
      const page = this.#memmap.pfnToPage(start as Pfn);
      assert(page !== NULL_PAGE, () => `PFN ${start} has no struct page`);
      this.#state?.fill(FREE_SINCE_BOOT, page, page + end - start);
      this.#releaseRun(page, end - start);
      end = start;
    }
  }

  /**
   * `alloc_pages()`: 2^order frames in a row, aligned to their size. The first page has one reference, the others none; the
   * caller makes them a folio or splits them.
   * @returns NULL_PAGE when there is no such block
   */
  allocPages(order: number): Page {
    if (this.#options.fail?.(order === 0 ? 'alloc-page' : 'alloc-block')) return NULL_PAGE;
    const page = this.#take(order);
    if (page !== NULL_PAGE) {
      for (let i = 0; i < 1 << order; i++) this.#prepareNew((page + i) as Page);
      this.#words[(page << SHIFT) + REFCOUNT] = 1;
    }
    return page;
  }

  /**
   * `alloc_pages_bulk()`: up to `count` single pages with a reference each, into `out`. Blocks are taken apart
   * front to back, so that the pages come in runs of ascending frames, as long as there are.
   * @returns how many there were
   */
  allocBulk(count: number, out: Page[] | Float64Array): number {
    if (this.#options.fail?.('alloc-bulk')) return 0;
    let done = 0;
    let order = MAX_PAGE_ORDER;
    while (done < count) {
      const missing = count - done;
      while (order > 0 && 1 << (order - 1) >= missing) order--;
      const page = this.#take(order);
      if (page === NULL_PAGE) {
        if (order-- === 0) break;
        continue;
      }
      const used = Math.min(missing, 1 << order);
      if (used < 1 << order) this.#releaseRun((page + used) as Page, (1 << order) - used);
      for (let i = 0; i < used; i++) {
        const single = (page + i) as Page;
        this.#prepareNew(single);
        this.#words[(single << SHIFT) + REFCOUNT] = 1;
        out[done++] = single;
      }
    }
    return done;
  }

  /** `__free_pages()` behind the last reference. Preconditions: allocated with this order or made one block since; refcount 0. */
  freePages(page: Page, order: number): void {
    const words = this.#words;
    if (this.#state !== null) this.#checkFree(page, order);
    let flags = 0;
    for (let slot = page << SHIFT; slot < (page + (1 << order)) << SHIFT; slot += 1 << SHIFT) {
      flags |= words[slot + FLAGS];
      words[slot + FLAGS] &= PG_hwpoison;
      words[slot + COMPOUND_HEAD] = 0;
      words[slot + MAPPING] = 0;
      words[slot + ORDER] = 0;
    }
    if ((flags & PG_hwpoison) === 0) this.#release(page, order);
    else this.#releaseHealthy(page, order);
  }

  /** `free_has_hwpoisoned()`: what has failed never comes back; the pages around it do. */
  #releaseHealthy(page: Page, order: number): void {
    const end = page + (1 << order);
    for (let first: number = page, at: number = page; at <= end; at++) {
      if (at < end && (this.#words[(at << SHIFT) + FLAGS] & PG_hwpoison) === 0) continue;
      if (at > first) this.#releaseRun(first as Page, at - first);
      first = at + 1;
    }
  }

  /** `take_page_off_buddy()`: a free page has failed; the rest of its block stays free. It has one reference afterwards. */
  takeOff(page: Page): void {
    let order = 0;
    while (!this.#isFreeBlock((page & -(1 << order)) as Page, order)) order++;
    let block = (page & -(1 << order)) as Page;
    this.#unlink(block, order);
    while (order > 0) {
      order--;
      const upper = (block + (1 << order)) as Page;
      this.#link(page < upper ? upper : block, order);
      if (page >= upper) block = upper;
    }
    this.#prepareNew(page);
    this.#words[(page << SHIFT) + FLAGS] = PG_hwpoison;
    this.#words[(page << SHIFT) + REFCOUNT] = 1;
  }

  /** `put_page_back_buddy()`: a page that had failed when it was freed is free after all. */
  putBack(page: Page): void {
    this.#release(page, 0);
  }

  /** A page leaves the allocator: fields as a new owner expects them (`prep_new_page`). */
  #prepareNew(page: Page): void {
    const words = this.#words;
    const slot = page << SHIFT;
    words[slot + FLAGS] = 0;
    words[slot + PRIVATE] = 0;
    words[slot + MAPCOUNT] = -1;
    words[slot + ENTIRE_MAPCOUNT] = -1;
    if (this.#state !== null) this.#checkNew(page);
  }

  /** Remove a block of `order` from the lists, splitting a larger one if need be: the lowest part is taken. */
  #take(order: number): Page {
    const large = this.#orders & -(1 << order);
    if (large === 0) return NULL_PAGE;

    let from = 31 - Math.clz32(large & -large);
    const page = this.#first[from] as Page;
    this.#unlink(page, from);
    while (from > order) {
      from--;
      this.#link((page + (1 << from)) as Page, from);
    }
    return page;
  }

  /** Put a block back, merged with its buddy for as long as that is free too. */
  #release(page: Page, order: number): void {
    let block: number = page;
    let size = order;
    for (; size < MAX_PAGE_ORDER; size++) {
      const buddy = block ^ (1 << size);
      if (!this.#isFreeBlock(buddy as Page, size)) break;
      this.#unlink(buddy as Page, size);
      block &= buddy;
    }
    this.#link(block as Page, size);
  }

  /** Put back a run of any length inside one section, from its end so that the lowest block heads its list. */
  #releaseRun(page: Page, pages: number): void {
    for (let end = page + pages; end > page; ) {
      const alignment = 31 - Math.clz32(end & -end);
      const order = Math.min(MAX_PAGE_ORDER, alignment, 31 - Math.clz32(end - page));
      end -= 1 << order;
      this.#release(end as Page, order);
    }
  }

  #isFreeBlock(page: Page, order: number): boolean {
    const slot = page << SHIFT;
    return (this.#words[slot + FLAGS] & PG_buddy) !== 0 && this.#words[slot + PRIVATE] === order;
  }

  #link(page: Page, order: number): void {
    const words = this.#words;
    const slot = page << SHIFT;
    const next = this.#first[order];
    words[slot + FLAGS] = PG_buddy;
    words[slot + PRIVATE] = order;
    words[slot + LRU_NEXT] = next;
    words[slot + LRU_PREV] = NULL_PAGE;
    if (next !== NULL_PAGE) words[(next << SHIFT) + LRU_PREV] = page;
    this.#first[order] = page;
    this.#orders |= 1 << order;
    this.#blocks[order]++;
    this.#freePages += 1 << order;
  }

  #unlink(page: Page, order: number): void {
    const words = this.#words;
    const slot = page << SHIFT;
    const next = words[slot + LRU_NEXT];
    const prev = words[slot + LRU_PREV];
    if (prev === NULL_PAGE) this.#first[order] = next;
    else words[(prev << SHIFT) + LRU_NEXT] = next;
    if (next !== NULL_PAGE) words[(next << SHIFT) + LRU_PREV] = prev;
    words[slot + FLAGS] = 0;
    words[slot + PRIVATE] = 0;
    if (--this.#blocks[order] === 0) this.#orders &= ~(1 << order);
    this.#freePages -= 1 << order;
  }

  /** `free_page_is_bad()` of every page of the block, then poison. */
  #checkFree(page: Page, order: number): void {
    const words = this.#words;
    const state = this.#state!;
    if ((page & ((1 << order) - 1)) !== 0) this.#bad(page, `freed with order ${order}, to which it is not aligned`);
    for (let i = 0; i < 1 << order; i++) {
      const each = (page + i) as Page;
      const slot = each << SHIFT;
      if (state[each] !== ALLOCATED) this.#bad(each, 'freed twice');
      if (pageRefCount(words, each) !== 0) this.#bad(each, `freed with ${pageRefCount(words, each)} references`);
      if (words[slot + MAPCOUNT] !== -1) this.#bad(each, `freed while mapped (mapcount ${words[slot + MAPCOUNT]})`);
      if (words[slot + ENTIRE_MAPCOUNT] !== -1) this.#bad(each, 'freed while mapped by a page middle directory');
      if (words[slot + PINCOUNT] !== 0) this.#bad(each, `freed with ${words[slot + PINCOUNT]} pins`);
      const flags = words[slot + FLAGS] & IN_USE_FLAGS;
      if (flags !== 0) this.#bad(each, `freed with flags 0x${flags.toString(16)}`);
      state[each] = FREE_POISONED;
      this.#options.poison?.(each);
    }
  }

  /** `check_new_pages()`: nobody has touched the page or its frame while it was free. */
  #checkNew(page: Page): void {
    const state = this.#state!;
    const was = state[page];
    state[page] = ALLOCATED;
    if (was === ALLOCATED) this.#bad(page, 'allocated twice');
    if (pageRefCount(this.#words, page) !== 0) this.#bad(page, 'got a reference while it was free');
    if (was === FREE_POISONED && this.#options.verify?.(page) === false)
      this.#bad(page, 'frame written while it was free');
  }

  #bad(page: Page, what: string): never {
    throw new InvariantViolation(`page ${page} (pfn 0x${this.#memmap.pageToPfn(page).toString(16)}): ${what}`);
  }
}
