/** Taking mappings away. Linux: the zap path of mm/memory.c. */
import { PAGE_SIZE, PMD_SIZE } from '../abi/address.js';
import { halvesNumber, halvesPfn, highType, LOW_DIRTY, LOW_SPECIAL, lowPresent } from '../abi/pte-halves.js';
import { swapEntry } from '../abi/swap-entry.js';
import type { Page, Pfn, VirtAddr } from '../base/brand.js';
import type { Sleeps } from '../sync/task.js';
import { getAndClearPteLow, peek32 } from '../sync/word.js';
import { findHugePmd, splitHugePmd, zapHugePmd } from './huge-pmd.js';
import { isHugetlb, zapHugetlb } from './hugetlb.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import { pageIsAnon, pageMarkDirty } from './page.js';
import {
  freeLeafTable,
  leafTable,
  lockTable,
  NO_TABLE,
  nextLeaf,
  nextMappedLeaf,
  pteIndex,
  tableOf,
  unlockTable,
} from './pgtable.js';
import { installWpMarker, keepsWpMarkers } from './pte-marker.js';
import { pageRemoveRmap } from './rmap.js';
import { rssAdd, rssAddMigrating } from './rss.js';
import { freeSwapAndCache, putUnmappedPage } from './swap-state.js';
import { flushTlbRange } from './tlbflush.js';
import type { VmArea } from './vma.js';

/**
 * `zap_page_range()` of a part of a VMA: every entry of [start, end) becomes none; pages are freed only after the TLBs have
 * forgotten them. Of what was discarded a leaf table that is emptied whole is given back too (CONFIG_PT_RECLAIM), so that a huge
 * page may stand there again. Only the end of a mapping takes markers of files along (ZAP_FLAG_DROP_MARKER).
 */
export function* zapRange(
  kernel: Kernel,
  vma: VmArea,
  start: number,
  end: number,
  why: 'unmap' | 'truncate' | 'discard' = 'unmap',
): Sleeps<void> {
  const { mm } = vma;
  const keepMarkers = why !== 'unmap' && keepsWpMarkers(vma);
  if (isHugetlb(vma)) {
    zapHugetlb(kernel, vma, start, end);
    return;
  }
  const gathered: Page[] = [];
  for (let at = nextMappedLeaf(kernel, mm, start, end); at < end; ) {
    const stop = Math.min(nextLeaf(at), end);
    let table = leafTable(kernel, mm, at as VirtAddr);
    if (table === NO_TABLE) {
      if (stop - at === PMD_SIZE) {
        zapHuge(kernel, mm, at as VirtAddr);
        at = nextMappedLeaf(kernel, mm, stop, end);
        continue;
      }
      yield* splitHugePmd(kernel, vma, at);
      table = leafTable(kernel, mm, at as VirtAddr);
      // With mmap_lock held for reading only, somebody else may have zapped it meanwhile, or even mapped another there: look again.
      if (table === NO_TABLE) {
        at = nextMappedLeaf(kernel, mm, at, end);
        continue;
      }
    }
    lockTable(kernel, table);
    let kept = false;
    for (let entry = table + pteIndex(at), addr = at; addr < stop; entry++, addr += PAGE_SIZE) {
      const low = keepMarkers ? peek32(kernel.ram.halves, 2 * entry) : 0;
      const high = keepMarkers ? peek32(kernel.ram.halves, 2 * entry + 1) : 0;
      const page = zapPte(kernel, mm, entry);
      if (keepMarkers) kept = installWpMarker(kernel, entry, low, high) || kept;
      if (page !== 0) gathered.push(page);
    }
    unlockTable(kernel, table);
    flushTlbRange(kernel, mm, at as VirtAddr, stop as VirtAddr);
    for (const page of gathered) putUnmappedPage(kernel, page);
    gathered.length = 0;
    if (why === 'discard' && !kept && stop - at === PMD_SIZE) freeLeafTable(kernel, mm, at as VirtAddr);
    at = nextMappedLeaf(kernel, mm, stop, end);
  }
}

function zapHuge(kernel: Kernel, mm: MmStruct, addr: VirtAddr): void {
  const at = findHugePmd(kernel, mm, addr);
  lockTable(kernel, tableOf(at));
  const page = zapHugePmd(kernel, mm, at);
  unlockTable(kernel, tableOf(at));
  flushTlbRange(kernel, mm, addr, (addr + PMD_SIZE) as VirtAddr);
  if (page !== 0) putUnmappedPage(kernel, page);
}

/** Clear one entry; returns the page whose reference the caller has to drop, 0 for none. */
function zapPte(kernel: Kernel, mm: MmStruct, at: number): Page | 0 {
  const { halves, words } = kernel.ram;
  const high = peek32(halves, 2 * at + 1);
  if ((peek32(halves, 2 * at) | high) === 0) return 0;
  const low = getAndClearPteLow(words, at);
  if (lowPresent(low)) {
    if ((low & LOW_SPECIAL) !== 0) return 0;
    const page = kernel.memmap.pfnToPage(halvesPfn(low, high) as Pfn);
    // Of anonymous memory nobody asks any more.
    const isAnon = pageIsAnon(kernel.memmap.words, page);
    if ((low & LOW_DIRTY) !== 0 && !isAnon) pageMarkDirty(kernel.memmap.words, page);
    pageRemoveRmap(kernel, page);
    rssAdd(kernel.memmap.words, mm, page, -1);
    return page;
  }
  const type = highType(high);
  const number = halvesNumber(low, high);
  switch (kernel.addressing.swapTypes.kindOf[type]) {
    case 'device-private-read':
    case 'device-private-write':
    case 'device-exclusive': {
      const page = kernel.addressing.leafToPage(type, number);
      pageRemoveRmap(kernel, page);
      mm.rssAnon--;
      return page;
    }
    case 'swap':
      mm.swapents--;
      freeSwapAndCache(kernel, swapEntry(type, number));
      return 0;
    case 'marker':
    case 'hwpoison':
      return 0;
    default:
      // A migration entry holds no reference: the migration finds it gone and leaves the page unmapped.
      rssAddMigrating(kernel.memmap.words, mm, kernel.addressing.leafToPage(type, number), -1);
      return 0;
  }
}
