/**
 * Holds: as many pages say that they have failed as were counted; none of them is free; those that are held for ever are among
 * them; and what a hwpoison entry names has failed.
 *
 * Does not see: bytes (a failure is simulated). Machines on which nothing has failed are not looked at. Suspended while anything is in
 * flight.
 */
import { halvesNumber } from '../abi/pte-halves.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import type { Pfn } from '../base/brand.js';
import type { Checker } from '../machine/state.js';
import { pageTestFlag } from '../mm/page.js';
import { cpuEntries, placeText } from './page-tables.js';
import { failedPages, ramUse } from './ram.js';

const { PG_hwpoison } = PAGE_FLAGS;

export const hwpoison: Checker = {
  invariant: 'hwpoison',
  statement: 'memory that has failed is counted, and nobody gets it any more',
  *look({ kernel }) {
    const { poisoned, held } = kernel.memoryFailures;
    if (poisoned === 0 && held.size === 0) return;
    const { memmap } = kernel;
    let found = 0;
    for (const page of failedPages(kernel)) {
      found++;
      if (ramUse(kernel, page) === 'free') yield `RAM page ${page} has failed, but is free`;
    }
    if (found !== poisoned) yield `${poisoned} pages are counted as failed, ${found} say so`;
    for (const page of held) {
      if (!pageTestFlag(memmap.words, page, PG_hwpoison)) yield `RAM page ${page} is held for ever, but has not failed`;
    }
    for (const mm of kernel.mms) {
      for (const { address, kind, low, high } of cpuEntries(kernel, mm)) {
        if (kind !== 'hwpoison') continue;
        const page = memmap.pfnToPage(halvesNumber(low, high) as Pfn);
        if (pageTestFlag(memmap.words, page, PG_hwpoison)) continue;
        yield `${placeText(mm, address)}: a hwpoison entry of page ${page}, which has not failed`;
      }
    }
  },
};
