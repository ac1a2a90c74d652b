/**
 * What each page of an address space looks like from user space, as data. Linux: fs/proc/task_mmu.c pagemap_read(),
 * mm/mincore.c. Looks only: nothing is faulted in or marked as accessed.
 */
import { PAGE_SIZE, pageAlignDown } from '../abi/address.js';
import { PAGEMAP_SWAPPED, PAGEMAP_WORD } from '../abi/pagemap-word.js';
import {
  halvesNumber,
  halvesPfn,
  highType,
  LOW_SOFT_DIRTY,
  LOW_SPECIAL,
  LOW_SWP_SOFT_DIRTY,
  LOW_SWP_UFFD_WP,
  LOW_UFFD_WP,
  lowPresent,
} from '../abi/pte-halves.js';
import type { SoftLeafKind } from '../abi/softleaf.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { swapEntry } from '../abi/swap-entry.js';
import { NULL_PAGE, type Page, type Pfn, type VirtAddr } from '../base/brand.js';
import { assert } from '../base/errors.js';
import { peek32 } from '../sync/word.js';
import { findHugePmd } from './huge-pmd.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import { pageIsAnon, pageMapcount, pageTestFlag } from './page.js';
import { leafTable, NO_TABLE, nextLeaf, nextMappedLeaf, pteIndex } from './pgtable.js';
import { isDevicePrivate } from './softleaf.js';
import { linearPageIndex, type VmFile, vmaLookup, vmaSoftDirtyEnabled } from './vma.js';

/** Bits of a page's short form, as traces of real kernels have it; the swap type of an entry that is not present stands at 8. */
export const PM_PRESENT = 1 << 0;
export const PM_SWAP = 1 << 1;
export const PM_FILE = 1 << 2;
export const PM_MMAP_EXCLUSIVE = 1 << 3;
export const PM_UFFD_WP = 1 << 4;
export const PM_GUARD_REGION = 1 << 5;
export const PM_SWAP_TYPE_SHIFT = 8;

/** The same in the word that /proc/PID/pagemap gives. */
const RAW_BITS: readonly (readonly [number, bigint])[] = [
  [PM_MMAP_EXCLUSIVE, PAGEMAP_WORD.exclusive.mask],
  [PM_UFFD_WP, PAGEMAP_WORD.writeProtected.mask],
  [PM_GUARD_REGION, PAGEMAP_WORD.guardRegion.mask],
  [PM_FILE, PAGEMAP_WORD.file.mask],
  [PM_SWAP, PAGEMAP_WORD.swapped.mask],
  [PM_PRESENT, PAGEMAP_WORD.present.mask],
];
const RAW_SOFT_DIRTY = PAGEMAP_WORD.softDirty.mask;

/**
 * Call `visit` for every entry of [start, end) that is not none, given by its halves: `index` counts pages from `start` on, `pages`
 * is 1, or how many pages of the range a huge entry covers. (An index, since an address would be boxed for each call.)
 */
export function visitEntries(
  kernel: Kernel,
  mm: MmStruct,
  start: number,
  end: number,
  visit: (index: number, low: number, high: number, pages: number, huge: boolean) => void,
): void {
  const { halves } = kernel.ram;
  for (let at = start; at < end; ) {
    const table = leafTable(kernel, mm, at as VirtAddr);
    const stop = Math.min(nextLeaf(at), end);
    if (table === NO_TABLE) {
      const huge = findHugePmd(kernel, mm, at);
      if (huge !== NO_TABLE) {
        const low = peek32(halves, 2 * huge);
        visit((at - start) / PAGE_SIZE, low, peek32(halves, 2 * huge + 1), (stop - at) / PAGE_SIZE, true);
        at = stop;
      } else {
        at = nextMappedLeaf(kernel, mm, at, end);
      }
      continue;
    }
    const first = 2 * (table + pteIndex(at));
    const index = (at - start) / PAGE_SIZE;
    const pages = (stop - at) / PAGE_SIZE;
    for (let i = 0; i < pages; i++) {
      const low = peek32(halves, first + 2 * i);
      const high = peek32(halves, first + 2 * i + 1);
      if ((low | high) !== 0) visit(index + i, low, high, 1, false);
    }
    at = stop;
  }
}

/** `softleaf_has_pfn()`: the entry names a page. */
const kindHasPage = (kind: SoftLeafKind): boolean => kind !== 'none' && kind !== 'swap' && kind !== 'marker';

/** The page behind an entry (`vm_normal_page`, `softleaf_to_page`): NULL_PAGE for the zero page and for entries without one. */
export function pageOfHalves(kernel: Kernel, low: number, high: number): Page {
  if (lowPresent(low)) {
    return (low & LOW_SPECIAL) !== 0 ? NULL_PAGE : kernel.memmap.pfnToPage(halvesPfn(low, high) as Pfn);
  }
  const type = highType(high);
  return kindHasPage(kernel.addressing.swapTypes.kindOf[type])
    ? kernel.addressing.leafToPage(type, halvesNumber(low, high))
    : NULL_PAGE;
}

/** `pte_to_pagemap_entry()` in the short form. */
function pagemapOfHalves(kernel: Kernel, low: number, high: number, huge: boolean): number {
  if ((low | high) === 0) return 0;
  const present = lowPresent(low);
  let flags = PM_PRESENT;
  if (!present) {
    const type = highType(high);
    flags = PM_SWAP | (type << PM_SWAP_TYPE_SHIFT);
    if (kernel.addressing.swapTypes.kindOf[type] === 'marker') flags |= PM_UFFD_WP;
  }
  if ((low & (present ? LOW_UFFD_WP : LOW_SWP_UFFD_WP)) !== 0) flags |= PM_UFFD_WP;
  const page = pageOfHalves(kernel, low, high);
  // The huge zero page, unlike the small one, is looked at as a page that is not anonymous.
  if (page === NULL_PAGE) return huge ? flags | PM_FILE : flags;
  const { words } = kernel.memmap;
  if (!pageIsAnon(words, page)) flags |= PM_FILE;
  // Only of a present page: of the others nobody can tell, and a device private page is no exception.
  return present && pageMapcount(words, page) === 1 ? flags | PM_MMAP_EXCLUSIVE : flags;
}

/** The short form for one page. */
export function pagemapEntry(kernel: Kernel, mm: MmStruct, addr: VirtAddr): number {
  const { low, high, huge } = entryAt(kernel, mm, addr);
  return pagemapOfHalves(kernel, low, high, huge);
}

/** Put the soft-dirty bit (0 or 1) of each page from `start` on into `out`. */
export function softDirtyRange(kernel: Kernel, mm: MmStruct, start: VirtAddr, out: Int32Array): void {
  const end = start + out.length * PAGE_SIZE;
  out.fill(0);
  visitEntries(kernel, mm, start, end, (index, low, _high, pages) => {
    if (isSoftDirty(low)) out.fill(1, index, index + pages);
  });
  for (const { value: vma } of mm.vmas.overlapping(start, end)) {
    if (vmaSoftDirtyEnabled(vma)) continue;
    out.fill(1, Math.max(0, (vma.start - start) / PAGE_SIZE), (Math.min(vma.end, end) - start) / PAGE_SIZE);
  }
}

const isSoftDirty = (low: number): boolean => (low & (lowPresent(low) ? LOW_SOFT_DIRTY : LOW_SWP_SOFT_DIRTY)) !== 0;

/** The 64-bit word of /proc/PID/pagemap, as root sees it: PFN, or swap type and number (a device private offset too). */
export function pagemapWord(kernel: Kernel, mm: MmStruct, addr: VirtAddr): bigint {
  const { low, high, huge } = entryAt(kernel, mm, addr);
  const inHuge = huge ? pteIndex(addr) : 0;
  const vma = vmaLookup(mm, addr);
  // What is new in a new mapping cannot be told from what was written: all of it counts, holes too.
  const allSoftDirty = vma !== undefined && !vmaSoftDirtyEnabled(vma);
  if (huge && !kernel.sites.pagemapTakesPrivate) assert(!isHugePrivate(kernel, low, high), 'no huge migration entry');
  const short = pagemapOfHalves(kernel, low, high, huge);
  if (short === 0) return allSoftDirty ? RAW_SOFT_DIRTY : 0n;
  const present = (short & PM_PRESENT) !== 0;
  const softDirty = allSoftDirty || isSoftDirty(low);
  const frame = present
    ? BigInt(halvesPfn(low, high) + inHuge)
    : BigInt(highType(high)) | (BigInt(halvesNumber(low, high) + inHuge) << PAGEMAP_SWAPPED.number.shift);
  let word = frame | (softDirty ? RAW_SOFT_DIRTY : 0n);
  for (const [bit, raw] of RAW_BITS) if ((short & bit) !== 0) word |= raw;
  return word;
}

const isHugePrivate = (kernel: Kernel, low: number, high: number): boolean =>
  !lowPresent(low) && isDevicePrivate(kernel.addressing.swapTypes.kindOf[highType(high)]);

/**
 * `mincore()` for each page from `start` on: 1 in core, 0 not, -1 where nothing is mapped (ENOMEM). Whatever is not none
 * counts as in core, device pages too, but for what is in swap only; where it is none, a file's page cache decides.
 */
export function mincoreRange(kernel: Kernel, mm: MmStruct, start: VirtAddr, out: Int32Array): void {
  mincoreOfVmas(kernel, mm, start, out);
  visitEntries(kernel, mm, start, start + out.length * PAGE_SIZE, (first, low, high, pages) => {
    const seen = inCore(kernel, low, high);
    if (seen !== AS_NONE) out.fill(seen, first, first + pages);
  });
}

/** What it is where every entry is none. */
function mincoreOfVmas(kernel: Kernel, mm: MmStruct, start: VirtAddr, out: Int32Array): void {
  const end = start + out.length * PAGE_SIZE;
  out.fill(-1);
  for (const { value: vma } of mm.vmas.from(start)) {
    if (vma.start >= end) break;
    const first = Math.max(vma.start, start);
    const stop = Math.min(vma.end, end);
    out.fill(0, (first - start) / PAGE_SIZE, (stop - start) / PAGE_SIZE);
    if (vma.file === null) continue;
    for (let addr = first; addr < stop; addr += PAGE_SIZE) {
      if (isCached(kernel, vma.file, linearPageIndex(vma, addr))) out[(addr - start) / PAGE_SIZE] = 1;
    }
  }
}

/** `mincore_page()`: of what is in swap the swap cache may have the page. */
function isCached(kernel: Kernel, file: VmFile, index: number): boolean {
  const page = file.pages.get(index);
  if (page !== undefined) return pageTestFlag(kernel.memmap.words, page, PAGE_FLAGS.PG_uptodate);
  const entry = file.swapped?.entries.get(index);
  return entry !== undefined && kernel.swap.cachedPage(entry) !== NULL_PAGE;
}

/** Of an entry that says nothing of its page. */
const AS_NONE = -1;

/** Is the page of an entry that is not none in core (0 or 1)? One in the swap cache needs no reading. */
const inCore = (kernel: Kernel, low: number, high: number): number => {
  if (lowPresent(low)) return 1;
  const kind = kernel.addressing.swapTypes.kindOf[highType(high)];
  if (kind === 'marker') return AS_NONE;
  if (kind !== 'swap') return 1;
  return kernel.swap.cachedPage(swapEntry(highType(high), halvesNumber(low, high))) !== NULL_PAGE ? 1 : 0;
};

/** The short form and `mincore()` for each page from `start` on, in one walk: for who looks at everything again and again. */
export function pagemapAndMincore(kernel: Kernel, mm: MmStruct, start: VirtAddr, pm: Int32Array, mc: Int32Array): void {
  pm.fill(0);
  mincoreOfVmas(kernel, mm, start, mc);
  visitEntries(kernel, mm, start, start + pm.length * PAGE_SIZE, (first, low, high, pages, huge) => {
    const short = pagemapOfHalves(kernel, low, high, huge);
    const seen = inCore(kernel, low, high);
    if (huge) {
      // Of a huge page its first says whether somebody else maps it.
      pm.fill(short, first, first + pages);
      mc.fill(seen, first, first + pages);
    } else {
      pm[first] = short;
      if (seen !== AS_NONE) mc[first] = seen;
    }
  });
}

/** `mincore()` of one page. */
export function mincore(kernel: Kernel, mm: MmStruct, addr: VirtAddr): number {
  if (vmaLookup(mm, addr) === undefined) return -1;
  const out = new Int32Array(1);
  mincoreRange(kernel, mm, pageAlignDown(addr) as VirtAddr, out);
  return out[0];
}

/** The entry that decides about an address, by its halves. */
function entryAt(kernel: Kernel, mm: MmStruct, addr: VirtAddr): { low: number; high: number; huge: boolean } {
  const table = leafTable(kernel, mm, addr);
  const huge = table === NO_TABLE;
  const at = huge ? findHugePmd(kernel, mm, addr) : table + pteIndex(addr);
  if (at === NO_TABLE) return { low: 0, high: 0, huge: false };
  return { low: peek32(kernel.ram.halves, 2 * at), high: peek32(kernel.ram.halves, 2 * at + 1), huge };
}
