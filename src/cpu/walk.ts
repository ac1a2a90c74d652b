/** What the page table walker of a CPU does to the entry that maps a page. Linux leaves this to hardware: Intel SDM 3A, 4.8. */
import { LOW_ACCESSED, LOW_DIRTY, LOW_PRESENT, LOW_WRITE } from '../abi/pte-halves.js';
import { compareExchange32, load32 } from '../sync/word.js';

/**
 * Set accessed, and dirty for a store, by compare-exchange: the kernel may change the entry at any moment. All flags that matter are
 * in the low half; the high one has only the PFN.
 * @param at index of the entry in 64-bit words
 * @returns the low half, or 0 when the entry does not allow the access
 */
export function markEntry(halves: Int32Array, at: number, write: boolean): number {
  const mark = write ? LOW_ACCESSED | LOW_DIRTY : LOW_ACCESSED;
  for (;;) {
    const low = load32(halves, 2 * at);
    if ((low & LOW_PRESENT) === 0 || (write && (low & LOW_WRITE) === 0)) return 0;
    if ((low & mark) === mark || compareExchange32(halves, 2 * at, low, low | mark) === low) return low;
  }
}
