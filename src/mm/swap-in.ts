/**
 * Pages come back from swap. Linux: mm/memory.c do_swap_page() for entries of real swap, mm/madvise.c swapin_walk_pmd_entry().
 *
 * What went as a huge page comes back page by page: sizes between, which could come as one, are off. But a large folio that has not
 * left the swap cache yet is mapped as a whole again, if all of its entries still stand together. Not modelled: readahead (the area answers
 * at once), KSM copies.
 */
import { PAGE_SIZE } from '../abi/address.js';
import { VM_FAULT_HWPOISON, VM_FAULT_MAJOR, VM_FAULT_OOM, type VmFault } from '../abi/errno.js';
import {
  carriedToPresent,
  halvesNumber,
  highType,
  LOW_ACCESSED,
  LOW_MKDIRTY,
  LOW_SOFT_DIRTY,
  LOW_SWP_EXCLUSIVE,
  LOW_SWP_SOFT_DIRTY,
  LOW_SWP_UFFD_WP,
  LOW_UFFD_WP,
  LOW_WRITE,
  lowPresent,
  presentHigh,
  presentLow,
} from '../abi/pte-halves.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { type SwapEntry, swapEntry, swapEntryOfPte } from '../abi/swap-entry.js';
import { NULL_PAGE, type Page, type Pte } from '../base/brand.js';
import { folioHead, folioUnlock, pageRefAdd } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import { peek32, readPte, setPteHalves } from '../sync/word.js';
import { reclaimAndRetry } from './alloc.js';
import type { FaultSite } from './file-fault.js';
import { folioLock } from './filemap.js';
import { hugeAlignDown } from './huge-pmd.js';
import type { Kernel } from './kernel.js';
import { folioNrPages, pageIsAnon, pageSetAnonMapping, pageTestFlag } from './page.js';
import { leafTable, lockTable, NO_TABLE, pteIndex, unlockTable } from './pgtable.js';
import { visitEntries } from './proc-pagemap.js';
import { putPage } from './put-page.js';
import { anonVmaPrepare, pageAddAnonRmap } from './rmap.js';
import { folioFreeSwap, pageSwapEntry, readIntoSwapCache } from './swap-state.js';
import { linearPageIndex, VM_WRITE, type VmArea, vmaPageProt, vmaSoftDirtyEnabled } from './vma.js';

/** What an entry says beside its slot. */
const SWP_FLAGS = LOW_SWP_EXCLUSIVE | LOW_SWP_SOFT_DIRTY | LOW_SWP_UFFD_WP;

/**
 * A fault met the swap entry `pte`. A page that a store may not write to yet is mapped read-only: `doSwapPage` goes on with it.
 * Precondition: mmap_lock held for reading.
 */
export function* doSwapIn(kernel: Kernel, site: FaultSite, pte: Pte, write: boolean): Sleeps<VmFault> {
  const { words } = kernel.memmap;
  const entry = swapEntryOfPte(pte);
  let outcome: VmFault = 0;
  let page = kernel.swap.cachedPage(entry);
  for (let attempt = 0; page === NULL_PAGE; attempt++) {
    page = readIntoSwapCache(kernel, entry);
    if (page !== NULL_PAGE) {
      kernel.stats.pgmajfault++;
      outcome = VM_FAULT_MAJOR;
      break;
    }
    if (!(yield* reclaimAndRetry(kernel, attempt))) return VM_FAULT_OOM;
    // Meanwhile the entry may have gone, and the slot be somebody else's.
    if (!standsStill(kernel, site, pte)) return 0;
    page = kernel.swap.cachedPage(entry);
  }
  // Whoever read the page has a reference already.
  if (outcome === 0) pageRefAdd(words, page, 1);
  yield* folioLock(kernel, page);
  anonVmaPrepare(kernel, site.vma);
  // While we waited for the lock, the page may have left the cache, and the entry the table.
  const isOurs = standsStill(kernel, site, pte) && pageSwapEntry(words, page) === entry;
  // What failed in the swap cache is kept for this: nobody could know whom to tell.
  const failed = isOurs && pageTestFlag(words, page, PAGE_FLAGS.PG_hwpoison);
  if (isOurs && !failed) {
    const table = leafTable(kernel, site.vma.mm, site.addr);
    lockTable(kernel, table);
    mapSwappedPage(kernel, site, table + pteIndex(site.addr), page, entry, write);
    unlockTable(kernel, table);
  }
  folioUnlock(words, page);
  if (!isOurs || failed) putPage(kernel, page);
  return failed ? VM_FAULT_HWPOISON : outcome;
}

/** Is the entry where it was? While the fault slept its whole table may have gone. */
function standsStill(kernel: Kernel, { vma, addr }: FaultSite, pte: Pte): boolean {
  const table = leafTable(kernel, vma.mm, addr);
  return table !== NO_TABLE && readPte(kernel.ram.words, table + pteIndex(addr)) === pte;
}

/** Pages that take the places of their entries together. */
interface Batch {
  readonly at: number;
  readonly page: Page;
  readonly pages: number;
  readonly addr: number;
}

/** All of a large folio where its entries stand in a row and say the same, otherwise the page alone. */
function batchOf(kernel: Kernel, { vma, addr }: FaultSite, at: number, page: Page): Batch {
  const { halves } = kernel.ram;
  const single: Batch = { at, page, pages: 1, addr };
  const folio = folioHead(kernel.memmap.words, page);
  const pages = folioNrPages(kernel.memmap.words, folio);
  const inFolio = page - folio;
  const start = addr - inFolio * PAGE_SIZE;
  const end = start + pages * PAGE_SIZE;
  if (pages === 1 || start < vma.start || end > vma.end || hugeAlignDown(start) !== hugeAlignDown(end - 1))
    return single;
  const flags = peek32(halves, 2 * at) & SWP_FLAGS;
  const high = peek32(halves, 2 * at + 1);
  const first = halvesNumber(peek32(halves, 2 * at), high) - inFolio;
  for (let i = 0; i < pages; i++) {
    const low = peek32(halves, 2 * (at - inFolio + i));
    const each = peek32(halves, 2 * (at - inFolio + i) + 1);
    if (lowPresent(low) || (low & SWP_FLAGS) !== flags || highType(each) !== highType(high)) return single;
    if (halvesNumber(low, each) !== first + i) return single;
  }
  return { at: at - inFolio, page: folio, pages, addr: start };
}

/** The page takes its entry's place, with the caller's reference. Preconditions: page locked, page table lock held. */
function mapSwappedPage(
  kernel: Kernel,
  site: FaultSite,
  at: number,
  page: Page,
  entry: SwapEntry,
  write: boolean,
): void {
  const { vma } = site;
  const { words } = kernel.memmap;
  const batch = batchOf(kernel, site, at, page);
  const low = peek32(kernel.ram.halves, 2 * at);
  const first = entry - (page - batch.page);
  for (let i = 0; i < batch.pages; i++) kernel.swap.drop((first + i) as SwapEntry);
  vma.mm.rssAnon += batch.pages;
  vma.mm.swapents -= batch.pages;
  // Whoever is the last to come for what others had too finds that out with a store.
  const exclusive = (low & LOW_SWP_EXCLUSIVE) !== 0;
  let flags = vmaPageProt(vma) | LOW_ACCESSED | carriedToPresent(low);
  if (exclusive && mayWrite(vma, flags)) flags |= write ? LOW_WRITE | LOW_MKDIRTY : LOW_WRITE;
  // A large folio has stayed where it was mapped.
  if (!pageIsAnon(words, page)) setFirstMapping(kernel, vma, batch.addr, page, exclusive);
  pageRefAdd(words, page, batch.pages - 1);
  for (let i = 0; i < batch.pages; i++) {
    const each = (batch.page + i) as Page;
    pageAddAnonRmap(kernel, each, exclusive);
    const pfn = kernel.memmap.pageToPfn(each);
    setPteHalves(kernel.ram.words, batch.at + i, presentLow(pfn, flags), presentHigh(pfn));
  }
  // The area is as fast as RAM: to keep a copy in it would save nothing (SWP_SYNCHRONOUS_IO).
  folioFreeSwap(kernel, page);
}

/** Would nobody want to hear of a first store? */
const mayWrite = (vma: VmArea, flags: number): boolean =>
  (vma.flags & VM_WRITE) !== 0 &&
  (flags & LOW_UFFD_WP) === 0 &&
  (!vmaSoftDirtyEnabled(vma) || (flags & LOW_SOFT_DIRTY) !== 0);

/**
 * `__folio_set_anon()` of a page that nobody has mapped yet. One that others may map too belongs to the oldest anon_vma of the family
 * (`anon_vma->root`), from which the reverse map leads to all of them.
 */
function setFirstMapping(kernel: Kernel, vma: VmArea, addr: number, page: Page, exclusive: boolean): void {
  const { words, floats } = kernel.memmap;
  const anonVma = exclusive ? vma.anonVma! : vma.anonChain[0]!.anonVma;
  pageSetAnonMapping(words, floats, page, anonVma.id, linearPageIndex(vma, addr));
}

/** MADV_WILLNEED on anonymous memory: what is in swap comes into the swap cache, and is mapped by the faults to come. */
export function swapInRange(kernel: Kernel, vma: VmArea, start: number, end: number): void {
  visitEntries(kernel, vma.mm, start, end, (_index, low, high) => {
    if (lowPresent(low) || kernel.addressing.swapTypes.kindOf[highType(high)] !== 'swap') return;
    const entry = swapEntry(highType(high), halvesNumber(low, high));
    if (kernel.swap.cachedPage(entry) !== NULL_PAGE) return;
    const page = readIntoSwapCache(kernel, entry);
    if (page !== NULL_PAGE) putPage(kernel, page);
  });
}
