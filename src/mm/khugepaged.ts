/**
 * Making huge pages of small ones. Linux: mm/khugepaged.c madvise_collapse(), collapse_huge_page().
 *
 * Only MADV_COLLAPSE asks for it: there is no scanning thread. Device private and exclusive entries of the range come home first.
 * Shared memory: collapse-file.ts.
 */
import { HPAGE_PMD_NR, PAGE_SIZE, PMD_SIZE } from '../abi/address.js';
import { type Result, VM_FAULT_ERROR } from '../abi/errno.js';
import { pteNone, ptePresent } from '../abi/pte.js';
import { halvesPfn, LOW_SPECIAL, lowPresent } from '../abi/pte-halves.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { NULL_PAGE, type Page, type Pfn, type VirtAddr } from '../base/brand.js';
import { folioHead, folioLocked, pageRefCount } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import { peek32, readPte, setPteHalves } from '../sync/word.js';
import { type CollapseFailure, collapseFile, mayCollapseFile } from './collapse-file.js';
import { allocHugeFolio, mapAnonFolio } from './huge-memory.js';
import { findHugePmd } from './huge-pmd.js';
import type { Kernel } from './kernel.js';
import { doSwapPage } from './memory.js';
import type { MmStruct } from './mm-struct.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import { folioCacheReferences, folioMapcount, isZoneDevicePage, pageTestFlag } from './page.js';
import {
  depositTable,
  findPmd,
  leafTable,
  lockTable,
  NO_TABLE,
  pageOfTable,
  type TableIndex,
  tableOf,
  unlockTable,
} from './pgtable.js';
import { entryHasWp } from './pte-marker.js';
import { putPage } from './put-page.js';
import { pageRemoveRmap } from './rmap.js';
import { putUnmappedPage } from './swap-state.js';
import { flushTlbRange } from './tlbflush.js';
import { userfaultfdWp, VM_NOHUGEPAGE, type VmArea, vmaIsAnonymous, vmaLookup } from './vma.js';

/** EINVAL: what no further try mends here, though the rest of the range may do. */
const SKIPS: readonly CollapseFailure[] = ['EINVAL', 'EAGAIN'];

/**
 * `madvise_collapse()` of a part of a VMA: every whole 2 MiB of it becomes a huge page. Precondition: mmap_lock held for
 * reading; it is dropped and taken for writing meanwhile, hence `vma` may be gone afterwards.
 * @returns EINVAL where nothing is mapped or may not be huge, EAGAIN where somebody holds a page, EBUSY where a userfaultfd watches what is
 * not there (since 7.2; EINVAL before), ENOMEM
 */
export function* madviseCollapse(kernel: Kernel, vma: VmArea, start: number, end: number): Sleeps<Result> {
  const { mm } = vma;
  const first = Math.ceil(start / PMD_SIZE) * PMD_SIZE;
  const last = Math.floor(end / PMD_SIZE) * PMD_SIZE;
  const fits = Math.ceil(vma.start / PMD_SIZE) * PMD_SIZE + PMD_SIZE <= vma.end;
  if (!fits || !(mayCollapse(vma) || mayCollapseFile(vma))) return 'EINVAL';
  let failed: Result = 0;
  for (let addr = first; addr < last; addr += PMD_SIZE) {
    const outcome = yield* collapse(kernel, mm, addr as VirtAddr);
    if (outcome === 0) continue;
    failed = outcome === 'fail' ? 'EINVAL' : outcome;
    if (!SKIPS.includes(outcome)) break;
  }
  return failed;
}

/** Anonymous memory that was touched and that nobody wants small. */
const mayCollapse = (vma: VmArea): boolean =>
  vmaIsAnonymous(vma) && vma.anonVma !== null && (vma.flags & VM_NOHUGEPAGE) === 0;

function* collapse(kernel: Kernel, mm: MmStruct, addr: VirtAddr): Sleeps<0 | CollapseFailure> {
  // Since the range before this one, for which mmap_lock was dropped, the mapping may have gone.
  const vma = vmaLookup(mm, addr);
  if (vma !== undefined && !vmaIsAnonymous(vma)) {
    return mayCollapseFile(vma) ? yield* collapseFile(kernel, vma, addr) : 'fail';
  }
  if (findHugePmd(kernel, mm, addr) !== NO_TABLE) return isMapped(kernel, mm, addr) ? 0 : 'EINVAL';
  const table = leafTable(kernel, mm, addr);
  if (table === NO_TABLE || vma === undefined) return 'EINVAL';
  const scanned = scan(kernel, vma, table, true);
  if (scanned !== 0) return scanned;
  const folio = allocHugeFolio(kernel);
  if (folio === NULL_PAGE) return 'ENOMEM';
  const outcome = yield* replace(kernel, mm, addr, folio);
  if (outcome !== 0) putPage(kernel, folio);
  return outcome;
}

/** A huge page of RAM (or one that is about to be one), not one on a device. */
function isMapped(kernel: Kernel, mm: MmStruct, addr: VirtAddr): boolean {
  const at = findHugePmd(kernel, mm, addr);
  return lowPresent(peek32(kernel.ram.halves, 2 * at));
}

/** `hpage_collapse_scan_pmd()`, `__collapse_huge_page_isolate()`: may every page of the table be replaced by a copy? */
function scan(kernel: Kernel, vma: VmArea, table: TableIndex, absentAllowed: boolean): 0 | CollapseFailure {
  const { halves } = kernel.ram;
  const { words } = kernel.memmap;
  for (let at = table; at < table + HPAGE_PMD_NR; at++) {
    const low = peek32(halves, 2 * at);
    const high = peek32(halves, 2 * at + 1);
    if (entryHasWp(kernel, low, high)) return 'EINVAL';
    if ((low | high) === 0 || (lowPresent(low) && (low & LOW_SPECIAL) !== 0)) {
      // A userfaultfd may want to hear of what is not there yet.
      if (userfaultfdWp(vma)) return 'EBUSY';
      continue;
    }
    if (!lowPresent(low)) {
      if (!absentAllowed) return 'EINVAL';
      continue;
    }
    const page = kernel.memmap.pfnToPage(halvesPfn(low, high) as Pfn);
    if (isZoneDevicePage(words, page)) return 'EINVAL';
    if (!pageTestFlag(words, page, PAGE_FLAGS.PG_lru) || folioLocked(words, page)) return 'EAGAIN';
    const folio = folioHead(words, page);
    if (pageRefCount(words, page) !== folioMapcount(words, folio) + folioCacheReferences(words, folio)) return 'EAGAIN';
  }
  return 0;
}

/** `collapse_huge_page()`. Precondition and end: mmap_lock held for reading. */
function* replace(kernel: Kernel, mm: MmStruct, addr: VirtAddr, folio: Page): Sleeps<0 | CollapseFailure> {
  const end = (addr + PMD_SIZE) as VirtAddr;
  if (!(yield* bringBack(kernel, mm, addr))) return 'fail';
  mm.mmapLock.upRead();
  yield* mm.mmapLock.downWrite();
  try {
    // The lock was dropped: look again.
    const vma = vmaLookup(mm, addr);
    if (mm.exiting || vma === undefined || vma.end < end || !mayCollapse(vma)) return 'EINVAL';
    const range: MmuNotifierRange = { mm, start: addr, end, event: 'MMU_NOTIFY_CLEAR', owner: null };
    yield* mmuNotifierInvalidateRangeStart(range);
    const table = leafTable(kernel, mm, addr);
    const scanned = table === NO_TABLE ? 'EINVAL' : scan(kernel, vma, table, false);
    if (scanned === 0) exchange(kernel, vma, addr, table, folio);
    mmuNotifierInvalidateRangeEnd(range);
    return scanned;
  } finally {
    mm.mmapLock.upWrite();
    yield* mm.mmapLock.downRead();
  }
}

/** `__collapse_huge_page_swapin()`: bring in what is not present, whatever the protection. False when something cannot be had. */
function* bringBack(kernel: Kernel, mm: MmStruct, addr: VirtAddr): Sleeps<boolean> {
  for (let i = 0; i < HPAGE_PMD_NR; i++) {
    const table = leafTable(kernel, mm, addr);
    const vma = vmaLookup(mm, addr);
    if (table === NO_TABLE || vma === undefined) return false;
    const pte = readPte(kernel.ram.words, table + i);
    if (pteNone(pte) || ptePresent(pte)) continue;
    const outcome = yield* doSwapPage(kernel, vma, (addr + i * PAGE_SIZE) as VirtAddr, table, pte, false);
    if ((outcome & VM_FAULT_ERROR) !== 0) return false;
  }
  return true;
}

/** Copy every page into the folio and map that instead. The leaf table is deposited beside it. */
function exchange(kernel: Kernel, vma: VmArea, addr: VirtAddr, table: TableIndex, folio: Page): void {
  const { memmap, ram } = kernel;
  const { mm } = vma;
  const at = findPmd(kernel, mm, addr);
  const gathered: Page[] = [];
  lockTable(kernel, tableOf(at));
  mm.cachedRegion = -1;
  setPteHalves(ram.words, at, 0, 0);
  // Nobody may write to the old pages once they are being copied.
  flushTlbRange(kernel, mm, addr, (addr + PMD_SIZE) as VirtAddr);
  for (let i = 0; i < HPAGE_PMD_NR; i++) {
    const low = peek32(ram.halves, 2 * (table + i));
    const high = peek32(ram.halves, 2 * (table + i) + 1);
    setPteHalves(ram.words, table + i, 0, 0);
    const target = memmap.ramFrame((folio + i) as Page);
    if (!lowPresent(low) || (low & LOW_SPECIAL) !== 0) {
      ram.zeroFrame(target);
      mm.rssAnon++;
      continue;
    }
    const page = memmap.pfnToPage(halvesPfn(low, high) as Pfn);
    ram.copyFrame(memmap.ramFrame(page), target);
    pageRemoveRmap(kernel, page);
    gathered.push(page);
  }
  depositTable(kernel, tableOf(at), pageOfTable(kernel, table));
  mapAnonFolio(kernel, vma, addr, at, folio);
  unlockTable(kernel, tableOf(at));
  for (const page of gathered) putUnmappedPage(kernel, page);
}
