/**
 * The device's translation lookaside buffer: set-associative, four ways, round-robin replacement (so that a run is a function
 * of its accesses). A tag is the whole virtual page number together with the context, so a hit is never a guess.
 *
 * It may keep more than the page table says only until the invalidation for it is obeyed. Fewer permissions than the page
 * table is no fault: the MMU walks again. Not modelled: large pages, global entries.
 */
import { PAGE_SIZE, USER_PAGES } from '../abi/address.js';
import { assert } from '../base/errors.js';
import { type MemoryWindow, NO_WINDOW } from './memory.js';

const WAYS = 4;
/** Contexts that a tag can name: context and page number share the 53 bits of a number. */
export const CONTEXTS_MAX = 2 ** 16;
/** No context and page number make this tag. */
const EMPTY = -1;

export class Tlb {
  /** Flags and memory id of each entry, as in the device PTE's first word. */
  readonly words: Int32Array;
  /** Where the page of each entry is: the window of its memory, and its byte offset in there. */
  readonly windows: MemoryWindow[];
  readonly bases: Int32Array;
  // Plain properties: the lookup is the engine's second hottest path.
  private readonly tags: Float64Array;
  private readonly victims: Uint8Array;
  private readonly setMask: number;

  /** @param sets a power of two */
  constructor(sets: number) {
    assert(sets > 0 && (sets & (sets - 1)) === 0, `tlb: ${sets} sets is no power of two`);
    this.words = new Int32Array(sets * WAYS);
    this.windows = new Array<MemoryWindow>(sets * WAYS).fill(NO_WINDOW);
    this.bases = new Int32Array(sets * WAYS);
    this.tags = new Float64Array(sets * WAYS).fill(EMPTY);
    this.victims = new Uint8Array(sets);
    this.setMask = sets - 1;
  }

  /** The entry of a page, or -1. */
  lookup(context: number, vpn: number): number {
    const tags = this.tags;
    const tag = context * USER_PAGES + vpn;
    const at = ((vpn + context) & this.setMask) * WAYS;
    if (tags[at] === tag) return at;
    if (tags[at + 1] === tag) return at + 1;
    if (tags[at + 2] === tag) return at + 2;
    if (tags[at + 3] === tag) return at + 3;
    return -1;
  }

  /** Put a translation in, over the page's old one if there is one. @returns its entry */
  insert(context: number, vpn: number, word: number, window: MemoryWindow, base: number): number {
    let entry = this.lookup(context, vpn);
    if (entry < 0) {
      const set = (vpn + context) & this.setMask;
      const way = this.victims[set]!;
      this.victims[set] = (way + 1) % WAYS;
      entry = set * WAYS + way;
      this.tags[entry] = context * USER_PAGES + vpn;
    }
    this.words[entry] = word;
    this.windows[entry] = window;
    this.bases[entry] = base;
    return entry;
  }

  /** Forget the pages of [start, end) of a context. */
  invalidateRange(context: number, start: number, end: number): void {
    const tags = this.tags;
    const first = Math.floor(start / PAGE_SIZE);
    const last = Math.ceil(end / PAGE_SIZE);
    if (last - first <= tags.length / WAYS) {
      for (let vpn = first; vpn < last; vpn++) {
        const entry = this.lookup(context, vpn);
        if (entry >= 0) tags[entry] = EMPTY;
      }
      return;
    }
    const low = context * USER_PAGES + first;
    const high = context * USER_PAGES + Math.min(last, USER_PAGES);
    for (let entry = 0; entry < tags.length; entry++) {
      const tag = tags[entry]!;
      if (tag >= low && tag < high) tags[entry] = EMPTY;
    }
  }

  invalidateAll(): void {
    this.tags.fill(EMPTY);
  }

  /** As it was made: empty, and the first way of each set is replaced next. */
  reset(): void {
    this.invalidateAll();
    this.victims.fill(0);
  }
}
