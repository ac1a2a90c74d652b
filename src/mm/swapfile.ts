/**
 * Swap areas: who uses which slot, and what is in it. Linux: mm/swapfile.c.
 *
 * A slot is in use while page table entries name it (`swap_map`) or a page of the swap cache belongs to it. An area is memory that
 * is read and written at once (SWP_SYNCHRONOUS_IO, as zram is), so a page leaves the swap cache as soon as no entry needs it.
 * Not modelled: swapoff, priorities (areas fill in order), clusters, zswap, large folios, shared memory in swap.
 */
import { PAGE_SIZE } from '../abi/address.js';
import type { Result } from '../abi/errno.js';
import { NO_SWAP_ENTRY, SWAP_SLOTS_MAX, type SwapEntry, swapArea, swapEntry, swapSlot } from '../abi/swap-entry.js';
import { NULL_PAGE, type Page } from '../base/brand.js';
import { assert, InvariantViolation } from '../base/errors.js';

/** `struct swap_info_struct`. Slot 0 is the header of the area and never used. */
interface SwapArea {
  readonly slots: number;
  readonly bytes: Uint8Array;
  /** `swap_map`: page table entries that name each slot. */
  readonly map: Uint32Array;
  /** The swap cache: page of each slot, 0 for none. */
  readonly cache: Uint32Array;
  /** Has the slot been written since it was taken? */
  readonly written: Uint8Array;
  free: number;
  /** Where the search for a free slot goes on. */
  next: number;
}

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

  /** `vm_swap_full()`: more than half of it is in use. */
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

  /** `folio_alloc_swap()`: a free slot becomes the page's, by the swap cache alone. NO_SWAP_ENTRY when all are in use. */
  alloc(page: Page): SwapEntry {
    for (const [type, area] of this.#areas.entries()) {
      if (area.free === 0) continue;
      const slot = nextFree(area);
      area.free--;
      area.next = slot + 1;
      area.cache[slot] = page;
      area.written[slot] = 0;
      return swapEntry(type, slot);
    }
    return NO_SWAP_ENTRY;
  }

  /** `swap_duplicate()`: one more page table entry names the slot. Precondition: it is in use. */
  duplicate(entry: SwapEntry): void {
    const area = this.#areaOf(entry);
    const slot = swapSlot(entry);
    assert(inUse(area, slot), () => `swap slot ${slot}: shared while it was free`);
    area.map[slot] = area.map[slot]! + 1;
  }

  /** `swap_free()`: one page table entry less. */
  drop(entry: SwapEntry): void {
    const area = this.#areaOf(entry);
    const slot = swapSlot(entry);
    assert(area.map[slot]! > 0, () => `swap slot ${slot}: dropped by an entry that it does not know`);
    area.map[slot] = area.map[slot]! - 1;
    if (!inUse(area, slot)) area.free++;
  }

  /** `swp_swapcount()`: page table entries that name the slot. */
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
    if (page === NULL_PAGE && !inUse(area, slot)) area.free++;
  }

  /** `swap_writepage()`. */
  write(entry: SwapEntry, contents: Uint8Array): void {
    const area = this.#areaOf(entry);
    const slot = swapSlot(entry);
    assert(inUse(area, slot), () => `swap slot ${slot}: written while it was free`);
    area.bytes.set(contents, slot * PAGE_SIZE);
    area.written[slot] = 1;
  }

  /** `swap_read_folio()`. @throws InvariantViolation when nobody has written the slot for whoever reads it */
  read(entry: SwapEntry, contents: Uint8Array): void {
    const area = this.#areaOf(entry);
    const slot = swapSlot(entry);
    if (!inUse(area, slot) || area.written[slot] === 0) {
      throw new InvariantViolation(`swap slot ${slot} of area ${swapArea(entry)}: read, but nothing was written to it`);
    }
    contents.set(area.bytes.subarray(slot * PAGE_SIZE, (slot + 1) * PAGE_SIZE));
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

  #areaOf(entry: SwapEntry): SwapArea {
    const area = this.#areas[swapArea(entry)];
    if (area === undefined) throw new InvariantViolation(`swap entry ${entry} names area ${swapArea(entry)}: none`);
    return area;
  }
}

const inUse = (area: SwapArea, slot: number): boolean => area.map[slot] !== 0 || area.cache[slot] !== 0;

/** Precondition: there is one. The search goes round, so that a slot rests before it is used again. */
function nextFree(area: SwapArea): number {
  for (let slot = area.next; ; slot++) {
    if (slot >= area.slots) slot = 1;
    if (!inUse(area, slot)) return slot;
  }
}
