/** A copy of an address space. Linux: mm/mmap.c dup_mmap(), mm/memory.c copy_page_range(). */
import { PAGE_SIZE, TASK_SIZE } from '../abi/address.js';
import {
  halvesNumber,
  halvesPfn,
  highMigrationFlags,
  highType,
  LOW_ACCESSED,
  LOW_DIRTY,
  LOW_MKDIRTY,
  LOW_SPECIAL,
  LOW_SWP_EXCLUSIVE,
  LOW_SWP_UFFD_WP,
  LOW_UFFD_WP,
  LOW_WRITE,
  leafHigh,
  leafLow,
  lowPresent,
  presentHigh,
  presentLow,
} from '../abi/pte-halves.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { swapEntry } from '../abi/swap-entry.js';
import { NULL_PAGE, type Page, type Pfn, type VirtAddr } from '../base/brand.js';
import { injects } from '../base/injection.js';
import { pageRefAdd } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import { and32, peek32, readPte, setPteHalves } from '../sync/word.js';
import { reclaimUntilFree } from './alloc.js';
import { vmFileGet } from './filemap.js';
import { copyHighpage } from './highmem.js';
import { copyHugePmd, findHugePmd, splitHugePmd } from './huge-pmd.js';
import { copyHugetlb, isHugetlb } from './hugetlb.js';
import type { Kernel } from './kernel.js';
import { createMm, exitMm, type MmStruct } from './mm-struct.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import { pageIsAnon, pageMapcountAdd, pageSetFlag } from './page.js';
import {
  allocLeafTable,
  allocPmd,
  leafTable,
  lockTable,
  NO_TABLE,
  nextLeaf,
  nextMappedLeaf,
  pteIndex,
  tableOf,
  unlockTable,
} from './pgtable.js';
import { tryRestoreExclusivePte } from './restore-exclusive.js';
import { anonVmaFork, pageAddNewAnonRmap, pageTryDupAnonRmap } from './rmap.js';
import { rssAddFile, rssAddMigrating } from './rss.js';
import { isMigration, isMigrationRead } from './softleaf.js';
import { flushTlbRange } from './tlbflush.js';
import {
  isCowMapping,
  VM_LOCKED_MASK,
  VM_MIXEDMAP,
  VM_PFNMAP,
  VM_SHARED,
  VM_UFFD_WP,
  VM_WRITE,
  VmArea,
  vmaPageProt,
} from './vma.js';

/** What a leaf table may need on its way: three tables, and some copies of pinned pages. */
const PAGES_FOR_TABLE = 8;

/**
 * `dup_mm()`: the child's address space, `undefined` for ENOMEM: RAM is out, or a page that a device holds exclusively is locked by
 * somebody (EBUSY, of which `copy_pmd_range()` makes ENOMEM). Pages are shared, read-only on both sides until somebody writes.
 */
export function* forkMm(kernel: Kernel, parent: MmStruct, pid: number): Sleeps<MmStruct | undefined> {
  yield* reclaimUntilFree(kernel, PAGES_FOR_TABLE);
  const child = createMm(kernel, pid);
  if (child === undefined) return undefined;
  child.usesUserfaultfd = parent.usesUserfaultfd;
  child.killEarly = parent.killEarly;
  yield* parent.mmapLock.downWrite();
  let complete = !parent.exiting;
  try {
    for (const { value: vma } of [...parent.vmas]) {
      if (!complete) break;
      complete = yield* dupVma(kernel, child, vma);
    }
    // Whatever became read-only: no CPU may go on writing through an old translation.
    flushTlbRange(kernel, parent, 0 as VirtAddr, TASK_SIZE as VirtAddr);
  } finally {
    parent.mmapLock.upWrite();
  }
  if (complete) return child;
  yield* exitMm(kernel, child);
  return undefined;
}

function* dupVma(kernel: Kernel, child: MmStruct, parent: VmArea): Sleeps<boolean> {
  // A child locks nothing that it did not ask for, and no userfaultfd follows it (dup_userfaultfd() without EVENT_FORK).
  const flags = parent.flags & ~(VM_LOCKED_MASK | VM_UFFD_WP);
  const vma = new VmArea(child, parent.start, parent.end, flags, parent.pgoff, parent.file);
  vmFileGet(vma.file);
  child.vmas.insert(vma.start, vma.end, vma);
  // Before the entries are copied: a migration that comes in between must find both.
  anonVmaFork(kernel, vma, parent);
  // vma_needs_copy(): what is only a file's or only the zero page comes back by faults; what a driver mapped does not.
  const needsCopy = parent.anonVma !== null || (parent.flags & (VM_PFNMAP | VM_MIXEDMAP)) !== 0;
  if (injects(kernel, 'fork-fails')) return false;
  return !needsCopy || (yield* copyPageRange(kernel, vma, parent));
}

function* copyPageRange(kernel: Kernel, child: VmArea, parent: VmArea): Sleeps<boolean> {
  const { mm, start, end } = parent;
  const range: MmuNotifierRange = { mm, start, end, event: 'MMU_NOTIFY_PROTECTION_PAGE', owner: null };
  const cow = isCowMapping(parent.flags);
  if (cow) yield* mmuNotifierInvalidateRangeStart(range);
  const complete = isHugetlb(parent) ? copyHugetlb(kernel, child, parent) : yield* copyTables(kernel, child, parent);
  if (cow) mmuNotifierInvalidateRangeEnd(range);
  return complete;
}

/** `copy_p4d_range()`. */
function* copyTables(kernel: Kernel, child: VmArea, parent: VmArea): Sleeps<boolean> {
  const { mm, start, end } = parent;
  let complete = true;
  for (let at = nextMappedLeaf(kernel, mm, start, end); at < end && complete; ) {
    const stop = Math.min(nextLeaf(at), end);
    // Under the page table locks it would be too late.
    yield* reclaimUntilFree(kernel, PAGES_FOR_TABLE);
    if (leafTable(kernel, mm, at as VirtAddr) === NO_TABLE) {
      const outcome = copyHuge(kernel, child, mm, at);
      if (outcome === 'split') yield* splitHugePmd(kernel, parent, at);
      complete = outcome !== 'nomem';
      if (outcome === 'copied') at = nextMappedLeaf(kernel, mm, stop, end);
      continue;
    }
    complete = copyTable(kernel, child, parent, at as VirtAddr, stop);
    at = nextMappedLeaf(kernel, mm, stop, end);
  }
  return complete;
}

function copyHuge(kernel: Kernel, child: VmArea, mm: MmStruct, addr: number): ReturnType<typeof copyHugePmd> {
  const from = findHugePmd(kernel, mm, addr);
  const to = allocPmd(kernel, child.mm, addr);
  if (to === NO_TABLE) return 'nomem';
  lockTable(kernel, tableOf(to));
  lockTable(kernel, tableOf(from));
  const outcome = copyHugePmd(kernel, child, from, to);
  unlockTable(kernel, tableOf(from));
  unlockTable(kernel, tableOf(to));
  return outcome;
}

/** `copy_pte_range()`: the entries of one leaf table. False when something cannot be had. */
function copyTable(kernel: Kernel, child: VmArea, parent: VmArea, from: VirtAddr, stop: number): boolean {
  const source = leafTable(kernel, parent.mm, from);
  const target = allocLeafTable(kernel, child.mm, from);
  if (target === NO_TABLE) return false;
  let complete = true;
  lockTable(kernel, target);
  lockTable(kernel, source);
  for (let i = pteIndex(from), addr: number = from; addr < stop && complete; i++, addr += PAGE_SIZE) {
    complete = copyEntry(kernel, child, parent, addr as VirtAddr, source + i, target + i);
  }
  unlockTable(kernel, source);
  unlockTable(kernel, target);
  return complete;
}

function copyEntry(kernel: Kernel, child: VmArea, parent: VmArea, addr: VirtAddr, from: number, to: number): boolean {
  const { halves } = kernel.ram;
  const low = peek32(halves, 2 * from);
  const high = peek32(halves, 2 * from + 1);
  if ((low | high) === 0) return true;
  if (lowPresent(low)) return copyPresent(kernel, child, parent, addr, from, to);
  if (kernel.addressing.swapTypes.kindOf[highType(high)] !== 'device-exclusive') {
    copyLeaf(kernel, child, from, to);
    return true;
  }
  // The parent's CPU gets the page back first; then it is copied as any other.
  if (!tryRestoreExclusivePte(kernel, parent, from, readPte(kernel.ram.words, from))) return false;
  return copyPresent(kernel, child, parent, addr, from, to);
}

/** `copy_present_ptes()`. False when a pinned page cannot be copied. */
function copyPresent(kernel: Kernel, child: VmArea, parent: VmArea, addr: VirtAddr, from: number, to: number): boolean {
  const { memmap, ram } = kernel;
  let low = peek32(ram.halves, 2 * from);
  const high = peek32(ram.halves, 2 * from + 1);
  if ((low & LOW_SPECIAL) === 0) {
    const page = memmap.pfnToPage(halvesPfn(low, high) as Pfn);
    if (!pageIsAnon(memmap.words, page)) {
      pageMapcountAdd(memmap.words, page, 1);
      rssAddFile(memmap.words, child.mm, page, 1);
    } else if (pageTryDupAnonRmap(kernel, page)) {
      child.mm.rssAnon++;
    } else {
      return copyPinned(kernel, child, addr, to, page);
    }
    pageRefAdd(memmap.words, page, 1);
  }
  if (isCowMapping(parent.flags) && (low & LOW_WRITE) !== 0) {
    // Only the one bit: hardware may set others at this moment.
    low = and32(ram.halves, 2 * from, ~LOW_WRITE) & ~LOW_WRITE;
  }
  // A shared page is dirty for the parent's sake alone.
  const clean = (parent.flags & VM_SHARED) !== 0 ? LOW_DIRTY : 0;
  setPteHalves(ram.words, to, low & ~(LOW_ACCESSED | LOW_UFFD_WP | clean), high);
  return true;
}

/** `copy_present_page()`: the child gets a copy at once, the parent's stays its own. */
function copyPinned(kernel: Kernel, child: VmArea, addr: VirtAddr, to: number, old: Page): boolean {
  const { buddy, memmap, ram } = kernel;
  const page = buddy.allocPages(0);
  if (page === NULL_PAGE) return false;
  copyHighpage(kernel, page, old);
  pageAddNewAnonRmap(kernel, page, child, addr);
  pageSetFlag(memmap.words, page, PAGE_FLAGS.PG_uptodate | PAGE_FLAGS.PG_lru);
  child.mm.rssAnon++;
  const number = memmap.pageToPfn(page);
  const flags = vmaPageProt(child) | LOW_ACCESSED | LOW_MKDIRTY | ((child.flags & VM_WRITE) !== 0 ? LOW_WRITE : 0);
  setPteHalves(ram.words, to, presentLow(number, flags), presentHigh(number));
  return true;
}

/** `copy_nonpresent_pte()`: entries that allow writing become read-only on both sides. */
function copyLeaf(kernel: Kernel, child: VmArea, from: number, to: number): void {
  const { addressing, memmap, ram } = kernel;
  const low = peek32(ram.halves, 2 * from);
  let high = peek32(ram.halves, 2 * from + 1);
  const type = highType(high);
  const kind = addressing.swapTypes.kindOf[type];
  const number = halvesNumber(low, high);
  let kept = low;
  if (isMigration(kernel, kind)) {
    // It holds no reference; the page is not exclusive when it comes back.
    const page = addressing.leafToPage(type, number);
    rssAddMigrating(memmap.words, child.mm, page, 1);
    if (!isMigrationRead(kernel, kind)) {
      const { forkMigrationFamily, retypeKeepsFlags } = kernel.sites;
      const to = forkMigrationFamily ? addressing.migrationType(page, 'read') : addressing.plainMigrationType('read');
      high = leafHigh(to, number, retypeKeepsFlags ? highMigrationFlags(high) : 0);
      setPteHalves(ram.words, from, low, high);
    }
  } else if (kind === 'device-private-read' || kind === 'device-private-write') {
    const page = addressing.leafToPage(type, number);
    pageRefAdd(memmap.words, page, 1);
    pageTryDupAnonRmap(kernel, page);
    child.mm.rssAnon++;
    if (kind === 'device-private-write') {
      // Soft-dirty of a downgraded device entry is not kept.
      high = leafHigh(addressing.devicePrivateType(false), number, 0);
      kept = leafLow(number, low & LOW_SWP_UFFD_WP);
      setPteHalves(ram.words, from, kept, high);
    }
  } else if (kind === 'swap') {
    kernel.swap.duplicate(swapEntry(type, number));
    child.mm.swapents++;
    kept = low & ~LOW_SWP_EXCLUSIVE;
    if (kept !== low) setPteHalves(ram.words, from, kept, high);
  } else if (kind === 'marker') {
    return;
  }
  setPteHalves(ram.words, to, kept & ~LOW_SWP_UFFD_WP, high);
}
