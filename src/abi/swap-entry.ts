/**
 * `swp_entry_t` of real swap: a swap area and a slot in it, packed into the 32 bits that a struct page has for it (`private`).
 * In a page table entry the same two are the swap type and the number: see pte-halves.ts.
 */

import type { Pte } from '../base/brand.js';
import { softleafFromPte, softleafNumber, swpType } from './softleaf.js';

/** An area and a slot; 0 names nothing, since slot 0 of every area is its header. */
export type SwapEntry = number & { readonly __brand: 'SwapEntry' };

const SLOT_BITS = 27;
/** Slots that an area can have: 512 GiB. */
export const SWAP_SLOTS_MAX = 2 ** SLOT_BITS;
export const NO_SWAP_ENTRY = 0 as SwapEntry;

export const swapEntry = (area: number, slot: number): SwapEntry => ((area << SLOT_BITS) | slot) as SwapEntry;
export const swapArea = (entry: SwapEntry): number => entry >>> SLOT_BITS;
export const swapSlot = (entry: SwapEntry): number => entry & (SWAP_SLOTS_MAX - 1);

/** The slot that a page table entry names. Precondition: a swap entry. */
export function swapEntryOfPte(pte: Pte): SwapEntry {
  const entry = softleafFromPte(pte);
  return swapEntry(swpType(entry), softleafNumber(entry));
}
