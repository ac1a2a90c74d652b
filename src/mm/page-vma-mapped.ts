/**
 * Where is a page mapped in a VMA? Linux: mm/page_vma_mapped.c.
 *
 * Numbers of two kinds share entries, so a match needs the kind first and the number second: the entry's kind of number is
 * resolved to its page, and pages are compared (a page has one identity, whatever its number is called).
 * A walk here looks at one entry of a leaf table; huge entries: migrate.ts.
 */
import {
  halvesNumber,
  halvesOffset,
  halvesPfn,
  highType,
  LOW_SPECIAL,
  LOW_WRITE,
  lowPresent,
} from '../abi/pte-halves.js';
import { NULL_PAGE, type Page, type Pfn, type VirtAddr } from '../base/brand.js';
import { peek32 } from '../sync/word.js';
import { findHugePmd } from './huge-pmd.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import {
  folioEntireMapcount,
  folioMapcount,
  folioNrPages,
  isDeviceCoherentPage,
  isDevicePrivatePage,
  pageIndex,
  pageIsAnon,
} from './page.js';
import { leafTable, NO_TABLE, pteIndex, type TableIndex } from './pgtable.js';
import { pageAnonVma, pageFileVmas, rmapAddress } from './rmap.js';
import { isDevicePrivate, isMigration } from './softleaf.js';
import type { VmArea } from './vma.js';

/** What the walk looks for: entries that map the page, or (`PVMW_MIGRATION`) migration entries that stand for it. */
export type WalkMode = 'mapped' | 'migration';

/** The leaf table in which `vma` maps `page` at `addr`, or NO_TABLE when it does not (`page_vma_mapped_walk`). */
export function pageVmaMapped(kernel: Kernel, vma: VmArea, addr: VirtAddr, page: Page, mode: WalkMode): TableIndex {
  const table = leafTable(kernel, vma.mm, addr);
  if (table === NO_TABLE) return NO_TABLE;
  const { halves } = kernel.ram;
  const at = 2 * (table + pteIndex(addr));
  return checkPte(kernel, peek32(halves, at), peek32(halves, at + 1), page, mode) ? table : NO_TABLE;
}

/** Does one huge entry map the whole large folio of `head` at an address? */
export function hugeEntryMaps(kernel: Kernel, mm: MmStruct, addr: VirtAddr, head: Page): boolean {
  const at = findHugePmd(kernel, mm, addr);
  if (at === NO_TABLE) return false;
  const { halves } = kernel.ram;
  return checkPte(kernel, peek32(halves, 2 * at), peek32(halves, 2 * at + 1), head, 'mapped');
}

/** `check_pte()` of an entry given by its halves. */
function checkPte(kernel: Kernel, low: number, high: number, page: Page, mode: WalkMode): boolean {
  const { addressing, memmap, sites } = kernel;
  if ((low | high) === 0) return false;
  if (!sites.kindsAsBooleans && isDevicePrivatePage(memmap.words, page)) return false;
  if (lowPresent(low)) {
    const pfn = halvesPfn(low, high) as Pfn;
    if (mode !== 'mapped' || (low & LOW_SPECIAL) !== 0) return false;
    return sites.checkPteKind ? memmap.pfnToPage(pfn) === page : pfn === addressing.pageNumber(page);
  }
  const type = highType(high);
  const kind = addressing.swapTypes.kindOf[type];
  const maps = isDevicePrivate(kind) || (kind === 'device-exclusive' && sites.checkPteExclusive);
  if (!(mode === 'migration' ? isMigration(kernel, kind) : maps)) return false;
  const number = sites.numberWithoutFlags ? halvesNumber(low, high) : halvesOffset(low, high);
  return sites.checkPteKind ? addressing.leafToPage(type, number) === page : number === addressing.pageNumber(page);
}

/** Where the entry stands that decides about an address, of whichever level; NO_TABLE for none. */
function entryAt(kernel: Kernel, mm: MmStruct, addr: VirtAddr): number {
  const table = leafTable(kernel, mm, addr);
  return table === NO_TABLE ? findHugePmd(kernel, mm, addr) : table + pteIndex(addr);
}

/** Does the entry of an address, of whichever level, allow stores: of the CPU, or of the device whose private page it names? */
export function entryMayWrite(kernel: Kernel, mm: MmStruct, addr: VirtAddr): boolean {
  const at = entryAt(kernel, mm, addr);
  if (at === NO_TABLE) return false;
  const low = peek32(kernel.ram.halves, 2 * at);
  if (lowPresent(low)) return (low & LOW_WRITE) !== 0;
  return kernel.addressing.swapTypes.kindOf[highType(peek32(kernel.ram.halves, 2 * at + 1))] === 'device-private-write';
}

/**
 * Does the entry of an address, of whichever level, map a page and not allow stores to it: of the CPU, or of the device whose private page
 * it names? Of zeroes there is nothing to be copied first.
 */
export function entryIsReadOnly(kernel: Kernel, mm: MmStruct, addr: VirtAddr): boolean {
  const at = entryAt(kernel, mm, addr);
  if (at === NO_TABLE) return false;
  const low = peek32(kernel.ram.halves, 2 * at);
  if (lowPresent(low)) return (low & (LOW_WRITE | LOW_SPECIAL)) === 0;
  const high = peek32(kernel.ram.halves, 2 * at + 1);
  return (low | high) !== 0 && kernel.addressing.swapTypes.kindOf[highType(high)] === 'device-private-read';
}

/** The page that a present entry maps at an address, of a huge one the first; NULL_PAGE for anything else. */
function presentPageAt(kernel: Kernel, mm: MmStruct, addr: VirtAddr): Page {
  const at = entryAt(kernel, mm, addr);
  if (at === NO_TABLE) return NULL_PAGE;
  const low = peek32(kernel.ram.halves, 2 * at);
  if (!lowPresent(low) || (low & LOW_SPECIAL) !== 0) return NULL_PAGE;
  return kernel.memmap.pfnToPage(halvesPfn(low, peek32(kernel.ram.halves, 2 * at + 1)) as Pfn);
}

/** Is a page of a coherent device mapped at an address? */
export function mapsCoherentPage(kernel: Kernel, mm: MmStruct, addr: VirtAddr): boolean {
  const page = presentPageAt(kernel, mm, addr);
  return page !== NULL_PAGE && isDeviceCoherentPage(kernel.memmap.words, page);
}

/** Does a page of a file, or of shared memory, stand at an address? */
export function mapsFilePage(kernel: Kernel, mm: MmStruct, addr: VirtAddr): boolean {
  const page = presentPageAt(kernel, mm, addr);
  return page !== NULL_PAGE && !pageIsAnon(kernel.memmap.words, page);
}

/** The device private page that stands at an address, NULL_PAGE for anything else. */
export function devicePrivatePageAt(kernel: Kernel, mm: MmStruct, addr: VirtAddr): Page {
  const at = entryAt(kernel, mm, addr);
  if (at === NO_TABLE) return NULL_PAGE;
  const low = peek32(kernel.ram.halves, 2 * at);
  const high = peek32(kernel.ram.halves, 2 * at + 1);
  if ((low | high) === 0 || lowPresent(low)) return NULL_PAGE;
  const type = highType(high);
  if (!isDevicePrivate(kernel.addressing.swapTypes.kindOf[type])) return NULL_PAGE;
  const page = kernel.addressing.leafToPage(type, halvesNumber(low, high));
  return (leafTable(kernel, mm, addr) === NO_TABLE ? page + pteIndex(addr) : page) as Page;
}

/** The page that a present small entry maps at an address (`vm_normal_page`), NULL_PAGE for anything else. */
export const normalPageAt = (kernel: Kernel, mm: MmStruct, addr: VirtAddr): Page =>
  leafTable(kernel, mm, addr) === NO_TABLE ? NULL_PAGE : presentPageAt(kernel, mm, addr);

/** How many small entries of an address space map pages of a large folio. Linux keeps count by MM_ID; here we look. */
export function folioMappings(kernel: Kernel, head: Page, mm: MmStruct): number {
  const { words, floats } = kernel.memmap;
  const index = pageIndex(words, floats, head);
  const pages = folioNrPages(words, head);
  const overlapping = pageAnonVma(kernel, head)?.tree.overlapping(index, index + pages) ?? [];
  const vmas = pageIsAnon(words, head) ? Array.from(overlapping, ({ value }) => value) : pageFileVmas(kernel, head);
  const ours = vmas.filter((vma) => vma.mm === mm);
  // Without another process that could map any of them, the folio's own count is the answer.
  if (ours.length === vmas.length) return folioMapcount(words, head) - folioEntireMapcount(words, head);
  return ours.reduce((count, vma) => count + smallEntries(kernel, head, index, pages, vma), 0);
}

/** In one VMA. `index`: the folio's first page offset. */
function smallEntries(kernel: Kernel, head: Page, index: number, pages: number, vma: VmArea): number {
  let count = 0;
  for (let i = 0; i < pages; i++) {
    const addr = rmapAddress(vma, index + i);
    if (addr < vma.start || addr >= vma.end) continue;
    if (pageVmaMapped(kernel, vma, addr, (head + i) as Page, 'mapped') !== NO_TABLE) count++;
  }
  return count;
}
