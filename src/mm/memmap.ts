/**
 * The memmap: every struct page of the machine. Linux: include/asm-generic/memory_model.h, mm/sparse-vmemmap.c.
 *
 * One arena of 64-byte slots in a SharedArrayBuffer; a `Page` is a slot number. RAM's slots come first, so that RAM's frame
 * number is `page - ramPage`. The vmemmap of a section (128 MiB) and the arrays of device private pagemaps are taken from
 * the rest. Memory that nobody touches costs nothing: the arena is virtual until then.
 */
import { PAGES_PER_SECTION, SECTION_SIZE_BITS } from '../abi/address.js';
import { STRUCT_PAGE_BYTES } from '../abi/struct-page.js';
import { type FrameIndex, NULL_PAGE, type Page, type Pfn } from '../base/brand.js';
import { assert } from '../base/errors.js';
import { RangeTree } from '../base/range-tree.js';

/** Arrays start at a multiple of this many slots (32 KiB), as mask-based compound heads want it. */
const SLOT_ALIGN = 512;
/** Struct pages in one page of memory. */
const SLOTS_PER_PAGE = 64;
/** Where no PFN is near: a small integer, so that the difference is one. */
const NO_HIT = -2 * PAGES_PER_SECTION;

/**
 * More than 32 MiB: the least that glibc's malloc always maps for itself. What is smaller it may take from its heap, where it has
 * to be zeroed, and stays when it is free: booting machine after machine took 2 GiB of memory, and twice the time.
 */
const UNTOUCHED_BYTES = 33 * 2 ** 20;

/** Slots below are never pages, so 0 can play NULL. */
const FIRST_SLOT = PAGES_PER_SECTION;

export class Memmap {
  readonly buffer: SharedArrayBuffer;
  /** The slots as 32-bit words: field `f` of `page` is `words[(page << 4) + STRUCT_PAGE.word.f]`. */
  readonly words: Int32Array;
  /** The slots as doubles, for `index`. */
  readonly floats: Float64Array;
  /** First slot of RAM. */
  readonly ramPage = FIRST_SLOT as Page;

  readonly #slots: RangeTree<'vmemmap' | 'array'>;
  readonly #slotCount: number;
  /** End of the slots that were ever handed out. */
  #usedEnd = 0;
  /** First slot of each section's vmemmap, 0 where there is none. */
  readonly #sectionPage: Int32Array;
  /** The section of the last look-up: its first PFN and struct page. */
  #hitPfn = NO_HIT;
  #hitPage = 0;
  /** First PFN of each block of PAGES_PER_SECTION slots that is vmemmap, -1 elsewhere. */
  readonly #blockPfn: Float64Array;

  /**
   * @param slots struct pages that fit (RAM and all device memory, in whole sections)
   * @param physBits address bits of the physical space that PFNs come from
   */
  constructor(slots: number, physBits: number) {
    this.#slotCount = FIRST_SLOT + Math.ceil(slots / PAGES_PER_SECTION) * PAGES_PER_SECTION;
    const bytes = this.#slotCount * STRUCT_PAGE_BYTES;
    this.buffer = new SharedArrayBuffer(Math.max(bytes, UNTOUCHED_BYTES));
    this.words = new Int32Array(this.buffer, 0, bytes / 4);
    this.floats = new Float64Array(this.buffer, 0, bytes / 8);
    this.#slots = new RangeTree();
    this.#sectionPage = new Int32Array(2 ** Math.max(0, physBits - SECTION_SIZE_BITS));
    this.#blockPfn = new Float64Array(this.#slotCount / PAGES_PER_SECTION).fill(-1);
  }

  /**
   * `kvzalloc` of an array of struct pages: zeroed. `NULL_PAGE` when the arena is full.
   * @param aligned false: at a place that is no multiple of SLOT_ALIGN, as kvzalloc may give it
   */
  allocArray(pages: number, aligned = true): Page {
    const pad = aligned ? NULL_PAGE : this.#take(SLOTS_PER_PAGE, SLOT_ALIGN, 'array');
    const align = aligned ? SLOT_ALIGN : SLOTS_PER_PAGE;
    const first = this.#take(Math.ceil(pages / SLOT_ALIGN) * SLOT_ALIGN, align, 'array');
    if (pad !== NULL_PAGE) this.#slots.remove(pad);
    if (first !== NULL_PAGE) this.#zero(first, pages);
    return first;
  }

  freeArray(first: Page): void {
    this.#slots.remove(first);
  }

  /**
   * Populate the vmemmap of [pfn, pfn + pages): whole sections are taken, since the arena is virtual.
   * @returns false when the arena is full (then nothing has changed)
   */
  populateVmemmap(pfn: Pfn, pages: number): boolean {
    const firstSection = Math.floor(pfn / PAGES_PER_SECTION);
    const endSection = Math.ceil((pfn + pages) / PAGES_PER_SECTION);
    const slots = (endSection - firstSection) * PAGES_PER_SECTION;
    const first = this.#take(slots, PAGES_PER_SECTION, 'vmemmap');
    if (first === NULL_PAGE) return false;
    for (let section = firstSection; section < endSection; section++) {
      assert(this.#sectionPage[section] === 0, () => `section ${section} has a vmemmap already`);
      const slot = first + (section - firstSection) * PAGES_PER_SECTION;
      this.#sectionPage[section] = slot;
      this.#blockPfn[slot / PAGES_PER_SECTION] = section * PAGES_PER_SECTION;
    }
    this.#zero(((first as number) + (pfn % PAGES_PER_SECTION)) as Page, pages);
    return true;
  }

  /** Undo `populateVmemmap` of the same range. */
  depopulateVmemmap(pfn: Pfn, pages: number): void {
    const firstSection = Math.floor(pfn / PAGES_PER_SECTION);
    const endSection = Math.ceil((pfn + pages) / PAGES_PER_SECTION);
    this.#slots.remove(this.#sectionPage[firstSection]);
    this.#hitPfn = NO_HIT;
    for (let section = firstSection; section < endSection; section++) {
      this.#blockPfn[this.#sectionPage[section] / PAGES_PER_SECTION] = -1;
      this.#sectionPage[section] = 0;
    }
  }

  /** `pfn_to_page()`, and `NULL_PAGE` where Linux's would be garbage (`!pfn_valid`). */
  pfnToPage(pfn: Pfn): Page {
    // In every hot loop, and almost always for the section that was asked for last.
    const index = pfn - this.#hitPfn;
    return index >= 0 && index < PAGES_PER_SECTION ? ((this.#hitPage + index) as Page) : this.#lookUp(pfn);
  }

  #lookUp(pfn: Pfn): Page {
    const section = Math.floor(pfn / PAGES_PER_SECTION);
    const base = this.#sectionPage[section];
    if (base === 0 || base === undefined) return NULL_PAGE;
    this.#hitPfn = section * PAGES_PER_SECTION;
    this.#hitPage = base;
    return (base + (pfn - this.#hitPfn)) as Page;
  }

  /** `page_to_pfn()`; -1 for a page outside the vmemmap, which has no PFN. */
  pageToPfn(page: Page): Pfn {
    const block = Math.floor(page / PAGES_PER_SECTION);
    const base = this.#blockPfn[block];
    return (base < 0 ? -1 : base + (page - block * PAGES_PER_SECTION)) as Pfn;
  }

  /** Frame of a RAM page in RAM's buffer. (Slots of other pages come after RAM's: theirs lie beyond its last frame.) */
  ramFrame(page: Page): FrameIndex {
    return (page - this.ramPage) as FrameIndex;
  }

  #take(slots: number, align: number, use: 'vmemmap' | 'array'): Page {
    const start = this.#slots.allocateLowest(slots, FIRST_SLOT, this.#slotCount, align, use);
    return (start ?? NULL_PAGE) as Page;
  }

  /** A slot that was never used is zero already: writing that would only make the computer find memory for it. */
  #zero(first: Page, pages: number): void {
    const end = first + pages;
    this.floats.fill(0, first * (STRUCT_PAGE_BYTES / 8), Math.min(end, this.#usedEnd) * (STRUCT_PAGE_BYTES / 8));
    this.#usedEnd = Math.max(end, this.#usedEnd);
  }
}
