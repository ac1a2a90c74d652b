/**
 * Holds: a swap slot is in use for as many entries as name it, of page tables and of the page caches of shared memory (which have
 * either a page or an entry); the swap cache and its pages agree; each address space counts its swap entries; an entry that says
 * "exclusive" is the only one of its slot; free slots and used ones are all slots.
 *
 * Does not see: contents (a slot that is read before it was written throws at once). Never suspended.
 */
import { HPAGE_PMD_NR } from '../abi/address.js';
import { halvesNumber, highType, LOW_SWP_EXCLUSIVE } from '../abi/pte-halves.js';
import { type SwapEntry, swapEntry } from '../abi/swap-entry.js';
import { NULL_PAGE } from '../base/brand.js';
import type { Checker, SharedFindings } from '../machine/state.js';
import type { Kernel } from '../mm/kernel.js';
import { pageSwapEntry } from '../mm/swap-state.js';
import { cpuEntries, placeText } from './page-tables.js';

/** Entries that name each slot; says what is wrong with an address space's own counter. */
function census(kernel: Kernel, entries: Map<SwapEntry, number>, problems: string[], shared?: SharedFindings): void {
  for (const mm of kernel.mms) {
    let found = 0;
    for (const { address, kind, low, high } of cpuEntries(kernel, mm, shared)) {
      if (kind !== 'swap') continue;
      found++;
      const entry = swapEntry(highType(high), halvesNumber(low, high));
      entries.set(entry, (entries.get(entry) ?? 0) + 1);
      if ((low & LOW_SWP_EXCLUSIVE) !== 0 && kernel.swap.count(entry) !== 1) {
        problems.push(
          `${placeText(mm, address)}: a swap entry says that it is exclusive, its slot has ${kernel.swap.count(entry)}`,
        );
      }
    }
    if (found !== mm.swapents)
      problems.push(`process ${mm.pid}: ${mm.swapents} swap entries are counted, there are ${found}`);
  }
}

/** The same of what shared memory has in swap. */
function censusOfFiles(kernel: Kernel, entries: Map<SwapEntry, number>, problems: string[]): void {
  for (const file of kernel.files) {
    for (const [index, entry] of file.swapped?.entries ?? []) {
      entries.set(entry, (entries.get(entry) ?? 0) + 1);
      const name = `file ${file.id}, page offset ${index}`;
      if (file.pages.has(index)) problems.push(`${name}: in swap, and in the cache as well`);
    }
    for (const first of file.swapped?.huge ?? []) {
      const entry = file.swapped!.entries.get(first);
      for (let i = 0; i < HPAGE_PMD_NR; i++) {
        const each = file.swapped!.entries.get(first + i);
        if (entry !== undefined && each === entry + i) continue;
        problems.push(`file ${file.id}, page offset ${first}: a huge page in swap, but its slot ${i} is ${each}`);
        break;
      }
    }
  }
}

export const swap: Checker = {
  invariant: 'swap',
  statement:
    'swap slots are in use for the entries that name them and for pages of the swap cache, and for nothing else',
  always: true,
  look({ kernel }, shared) {
    const problems: string[] = [];
    const { words } = kernel.memmap;
    const entries = new Map<SwapEntry, number>();
    census(kernel, entries, problems, shared);
    censusOfFiles(kernel, entries, problems);
    let used = 0;
    for (const { entry, count, page } of kernel.swap.used()) {
      used++;
      const named = entries.get(entry) ?? 0;
      entries.delete(entry);
      if (named !== count) problems.push(`swap entry ${entry}: ${count} entries are counted, ${named} name it`);
      if (page !== NULL_PAGE && pageSwapEntry(words, page) !== entry) {
        problems.push(
          `swap entry ${entry}: page ${page} in its cache says that it belongs to ${pageSwapEntry(words, page)}`,
        );
      }
    }
    for (const entry of entries.keys())
      problems.push(`swap entry ${entry} is in a page table or a page cache, but its slot is free`);
    if (used + kernel.swap.free !== kernel.swap.total) {
      problems.push(`${used} swap slots are in use and ${kernel.swap.free} counted as free, of ${kernel.swap.total}`);
    }
    return problems;
  },
};
