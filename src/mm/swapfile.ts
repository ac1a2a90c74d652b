/**
 * Swap areas: who uses which slot, and what is in it. Linux: mm/swapfile.c.
 *
 * A slot is in use while entries name it (`swap_map`: those of page tables, and that of the page cache of shared memory) or a page of
 * the swap cache belongs to it. An area is memory that is read and written at once (SWP_SYNCHRONOUS_IO, as zram is), so a page leaves
 * the swap cache as soon as no entry needs it. A folio has slots in a row, and one of 2 MiB a cluster of its own.
 * Not modelled: swapoff, priorities (areas fill in order), zswap; clusters matter to large folios only.
 */
import { HPAGE_PMD_NR, PAGE_SIZE } from '../abi/address.js';
import type { Result } from '../abi/errno.js';
import { NO_SWAP_ENTRY, SWAP_SLOTS_MAX, type SwapEntry, swapArea, swapEntry, swapSlot } from '../abi/swap-entry.js';
import { NULL_PAGE, type Page } from '../base/brand.js';
import { assert, InvariantViolation } from '../base/errors.js';

/** `struct swap_info_struct`. Slot 0 is the header of the area and never used. */
interface SwapArea {
  readonly slots: number;
  readonly bytes: Uint8Array;
  /** `swap_map`: entries that name each slot. */
  readonly map: Uint32Array;
  /** The swap cache: page of each slot, 0 for none. */
  readonly cache: Uint32Array;
  /** What is in the slot since it was taken. */
  readonly written: Uint8Array;
  /** Slots in use of each cluster. The first, which has the header, and a part of one at the end are never free as a whole. */
  readonly clusters: Uint16Array;
  free: number;
  /** Where the search for a free slot goes on. */
  next: number;
}

/** Nothing yet, what somebody wrote, or zeroes, of which the area is not told (the zero mark of the swap table). */
const NOTHING = 0;
const CONTENTS = 1;
const ZEROES = 2;

/** `SWAPFILE_CLUSTER`: as many slots as a huge page has pages. */
const CLUSTER_SLOTS = HPAGE_PMD_NR;

export class SwapSpace {
  readonly #areas: SwapArea[] = [];
  readonly #areasMax: number;

  /** @param areasMax MAX_SWAPFILES: what the special swap types leave, 24 or with the series 21 */
  constructor(areasMax: number) {
    this.#areasMax = areasMax;
  }

  /** `swapon()`: EINVAL for less than two pages or more than an entry can name, EPERM when all types are taken. */
  swapon(size: number): Result {
    const slots = Math.floor(size / PAGE_SIZE);
    if (slots < 2 || slots > SWAP_SLOTS_MAX) return 'EINVAL';
    if (this.#areas.length === this.#areasMax) return 'EPERM';
    this.#areas.push({
      slots,
      bytes: new Uint8Array(new SharedArrayBuffer(slots * PAGE_SIZE)),
      map: new Uint32Array(slots),
      cache: new Uint32Array(slots),
      written: new Uint8Array(slots),
      clusters: new Uint16Array(Math.ceil(slots / CLUSTER_SLOTS)),
      free: slots - 1,
      next: 1,
    });
    return 0;
  }

  /** Slots that can be used. */
  get total(): number {
    return this.#areas.reduce((sum, { slots }) => sum + slots - 1, 0);
  }

  get free(): number {
    return this.#areas.reduce((sum, { free }) => sum + free, 0);
  }

  /** `vm_swap_full()`: more than half of it is in use, so that a slot is worth more than a copy of what is in RAM. */
  get full(): boolean {
    return this.free * 2 < this.total;
  }

  /** Pages in the swap cache. */
  get cached(): number {
    return this.#areas.reduce(
      (sum, { cache }) => sum + cache.reduce((pages, page) => pages + (page > 0 ? 1 : 0), 0),
      0,
    );
  }

  /**
   * `folio_alloc_swap()`: free slots in a row become the folio's, by the swap cache alone. NO_SWAP_ENTRY when there are none.
   * @param pages 1, or as many as a huge page has
   */
  alloc(folio: Page, pages = 1): SwapEntry {
    for (const [type, area] of this.#areas.entries()) {
      const first = pages === 1 ? freeSlot(area) : freeCluster(area);
      if (first === 0) continue;
      for (let i = 0; i < pages; i++) {
        area.cache[first + i] = folio + i;
        area.written[first + i] = NOTHING;
      }
      take(area, first, pages);
      return swapEntry(type, first);
    }
    return NO_SWAP_ENTRY;
  }

  /** `swap_duplicate()`: one more entry names the slot. Precondition: it is in use. */
  duplicate(entry: SwapEntry): void {
    const area = this.#areaOf(entry);
    const slot = swapSlot(entry);
    assert(inUse(area, slot), () => `swap slot ${slot}: shared while it was free`);
    area.map[slot] = area.map[slot]! + 1;
  }

  /** `swap_free()`: one entry less. */
  drop(entry: SwapEntry): void {
    const area = this.#areaOf(entry);
    const slot = swapSlot(entry);
    assert(area.map[slot]! > 0, () => `swap slot ${slot}: dropped by an entry that it does not know`);
    area.map[slot] = area.map[slot]! - 1;
    if (!inUse(area, slot)) take(area, slot, -1);
  }

  /** `swp_swapcount()`: entries that name the slot. */
  count(entry: SwapEntry): number {
    return this.#areaOf(entry).map[swapSlot(entry)]!;
  }

  /** `swap_cache_get_folio()` without a reference: NULL_PAGE for none. */
  cachedPage(entry: SwapEntry): Page {
    return this.#areaOf(entry).cache[swapSlot(entry)]! as Page;
  }

  /** The slot's page in the swap cache from now on; NULL_PAGE takes it out, which may free the slot. */
  setCachedPage(entry: SwapEntry, page: Page): void {
    const area = this.#areaOf(entry);
    const slot = swapSlot(entry);
    area.cache[slot] = page;
    if (page === NULL_PAGE && !inUse(area, slot)) take(area, slot, -1);
  }

  /** `__swap_writepage()`. */
  write(entry: SwapEntry, contents: Uint8Array): void {
    const { area, slot } = this.#written(entry, CONTENTS);
    area.bytes.set(contents, slot * PAGE_SIZE);
  }

  /** `__swap_table_set_zero()`: the slot's page is all zeroes. */
  setZero(entry: SwapEntry): void {
    this.#written(entry, ZEROES);
  }

  /** `__swap_table_test_zero()`. */
  isZero(entry: SwapEntry): boolean {
    return this.#areaOf(entry).written[swapSlot(entry)] === ZEROES;
  }

  /** `swap_read_folio()`. @throws InvariantViolation when nobody has written the slot for whoever reads it */
  read(entry: SwapEntry, contents: Uint8Array): void {
    const area = this.#areaOf(entry);
    const slot = swapSlot(entry);
    if (!inUse(area, slot) || area.written[slot] === NOTHING) {
      throw new InvariantViolation(`swap slot ${slot} of area ${swapArea(entry)}: read, but nothing was written to it`);
    }
    if (area.written[slot] === ZEROES) contents.fill(0);
    else contents.set(area.bytes.subarray(slot * PAGE_SIZE, (slot + 1) * PAGE_SIZE));
  }

  /** Slots in use, for whoever looks: the entries that name each, and its page in the swap cache. */
  *used(): Generator<{ readonly entry: SwapEntry; readonly count: number; readonly page: Page }, void, void> {
    for (const [type, area] of this.#areas.entries()) {
      for (let slot = 1; slot < area.slots; slot++) {
        if (!inUse(area, slot)) continue;
        yield { entry: swapEntry(type, slot), count: area.map[slot]!, page: area.cache[slot]! as Page };
      }
    }
  }

  #written(entry: SwapEntry, what: number): { area: SwapArea; slot: number } {
    const area = this.#areaOf(entry);
    const slot = swapSlot(entry);
    assert(inUse(area, slot), () => `swap slot ${slot}: written while it was free`);
    area.written[slot] = what;
    return { area, slot };
  }

  #areaOf(entry: SwapEntry): SwapArea {
    const area = this.#areas[swapArea(entry)];
    if (area === undefined) throw new InvariantViolation(`swap entry ${entry} names area ${swapArea(entry)}: none`);
    return area;
  }
}

const inUse = (area: SwapArea, slot: number): boolean => area.map[slot] !== 0 || area.cache[slot] !== 0;

/** Slots from `first` on are in use from now on, all in one cluster; a negative number of them: no more. */
function take(area: SwapArea, first: number, slots: number): void {
  area.free -= slots;
  area.clusters[Math.floor(first / CLUSTER_SLOTS)]! += slots;
}

/** A free slot; 0 for none. The search goes round, so that a slot rests before it is used again. */
function freeSlot(area: SwapArea): number {
  if (area.free === 0) return 0;
  for (let slot = area.next; ; slot++) {
    if (slot >= area.slots) slot = 1;
    if (inUse(area, slot)) continue;
    area.next = slot + 1;
    return slot;
  }
}

/** The first slot of a cluster of which none is in use; 0 for none. */
function freeCluster(area: SwapArea): number {
  const whole = Math.floor(area.slots / CLUSTER_SLOTS);
  const cluster = area.clusters.findIndex((used, i) => used === 0 && i > 0 && i < whole);
  return Math.max(0, cluster) * CLUSTER_SLOTS;
}
