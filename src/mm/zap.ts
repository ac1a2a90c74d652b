/** Taking mappings away. Linux: the zap path of mm/memory.c. */
import { PAGE_SIZE } from '../abi/address.js';
import { pteDirty, pteNone, ptePfn, ptePresent, pteSpecial } from '../abi/pte.js';
import { softleafFromPte } from '../abi/softleaf.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import type { Page, VirtAddr } from '../base/brand.js';
import { getAndClearPte, readPte } from '../sync/word.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import { pageFileId, pageIsAnon, pageSetFlag } from './page.js';
import { leafTable, lockTable, nextLeaf, nextMappedLeaf, pteIndex, unlockTable } from './pgtable.js';
import { putPage } from './put-page.js';
import { pageRemoveRmap } from './rmap.js';
import { leafKind } from './softleaf.js';
import { flushTlbRange } from './tlbflush.js';

/** `zap_pte_range()`: every entry of [start, end) becomes none; pages are freed only after the TLBs have forgotten them. */
export function zapRange(kernel: Kernel, mm: MmStruct, start: number, end: number): void {
  const gathered: Page[] = [];
  for (let at = nextMappedLeaf(kernel, mm, start, end); at < end; ) {
    const stop = Math.min(nextLeaf(at), end);
    const table = leafTable(kernel, mm, at as VirtAddr);
    lockTable(kernel, table);
    for (let entry = table + pteIndex(at), addr = at; addr < stop; entry++, addr += PAGE_SIZE) {
      const page = zapPte(kernel, mm, entry);
      if (page !== 0) gathered.push(page);
    }
    unlockTable(kernel, table);
    flushTlbRange(kernel, mm, at as VirtAddr, stop as VirtAddr);
    for (const page of gathered) putPage(kernel, page);
    gathered.length = 0;
    at = nextMappedLeaf(kernel, mm, stop, end);
  }
}

/** Clear one entry; returns the page whose reference the caller has to drop, 0 for none. */
function zapPte(kernel: Kernel, mm: MmStruct, at: number): Page | 0 {
  const { words } = kernel.ram;
  if (pteNone(readPte(words, at))) return 0;
  const pte = getAndClearPte(words, at);
  if (ptePresent(pte)) {
    if (pteSpecial(pte)) return 0;
    const page = kernel.memmap.pfnToPage(ptePfn(pte));
    if (pteDirty(pte)) pageSetFlag(kernel.memmap.words, page, PAGE_FLAGS.PG_dirty);
    pageRemoveRmap(kernel, page);
    if (pageIsAnon(kernel.memmap.words, page)) mm.rssAnon--;
    else mm.rssShmem--;
    return page;
  }
  const entry = softleafFromPte(pte);
  switch (leafKind(kernel, entry)) {
    case 'device-private-read':
    case 'device-private-write':
    case 'device-exclusive': {
      const page = kernel.addressing.softleafToPage(entry);
      pageRemoveRmap(kernel, page);
      mm.rssAnon--;
      return page;
    }
    case 'marker':
    case 'hwpoison':
      return 0;
    default:
      // A migration entry holds no reference: the migration finds it gone and leaves the page unmapped.
      // (The page may have handed its identity over already: only a page of a file still says what it is.)
      if (pageFileId(kernel.memmap.words, kernel.addressing.softleafToPage(entry)) === 0) mm.rssAnon--;
      else mm.rssShmem--;
      return 0;
  }
}
