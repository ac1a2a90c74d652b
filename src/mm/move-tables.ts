/** Moving page table entries to other addresses. Linux: mm/mremap.c move_page_tables(). */
import { PAGE_SIZE, PMD_SIZE } from '../abi/address.js';
import {
  highType,
  LOW_SOFT_DIRTY,
  LOW_SWP_SOFT_DIRTY,
  LOW_SWP_UFFD_WP,
  LOW_UFFD_WP,
  lowPresent,
} from '../abi/pte-halves.js';
import type { VirtAddr } from '../base/brand.js';
import type { Sleeps } from '../sync/task.js';
import { getAndClearPteLow, peek32, setPteHalves } from '../sync/word.js';
import { findHugePmd, isHugeAligned, moveHugePmd, splitHugePmd } from './huge-pmd.js';
import { isHugetlb, moveHugetlb } from './hugetlb.js';
import type { Kernel } from './kernel.js';
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
import { flushTlbRange } from './tlbflush.js';
import { userfaultfdWp, type VmArea } from './vma.js';

/**
 * Every entry of [from, from + length) goes to the same place in [to, to + length), whatever it means: pages are not touched, and
 * their reverse map leads to the new place because the VMA there keeps the page offsets. Only the protection of a userfaultfd
 * stays behind. Returns how far it got, less than
 * `length` when there was no RAM for a table.
 */
export function* movePageTables(kernel: Kernel, vma: VmArea, from: number, to: number, length: number): Sleeps<number> {
  const { mm } = vma;
  const end = from + length;
  const loseWp = userfaultfdWp(vma);
  if (isHugetlb(vma)) return moveHugetlb(kernel, vma, from, to, length);
  for (let at = nextMappedLeaf(kernel, mm, from, end); at < end; at = nextMappedLeaf(kernel, mm, at, end)) {
    const target = at - from + to;
    if (leafTable(kernel, mm, at as VirtAddr) === NO_TABLE) {
      const outcome =
        end - at >= PMD_SIZE && isHugeAligned(at) && isHugeAligned(target)
          ? moveHuge(kernel, vma, at, target)
          : 'split';
      if (outcome === 'nomem') return at - from;
      if (outcome === 'moved') at += PMD_SIZE;
      else yield* splitHugePmd(kernel, vma, at);
      continue;
    }
    const pages = (Math.min(nextLeaf(at), at + nextLeaf(target) - target, end) - at) / PAGE_SIZE;
    const source = leafTable(kernel, mm, at as VirtAddr);
    const destination = allocLeafTable(kernel, mm, target as VirtAddr);
    if (destination === NO_TABLE) return at - from;
    lockTable(kernel, source);
    if (destination !== source) lockTable(kernel, destination);
    const flush = moveEntries(kernel, source + pteIndex(at), destination + pteIndex(target), pages, loseWp);
    const stop = at + pages * PAGE_SIZE;
    // Under the lock: nobody may find the page at its new place while a CPU still writes through the old one.
    if (flush) flushTlbRange(kernel, mm, at as VirtAddr, stop as VirtAddr);
    if (destination !== source) unlockTable(kernel, destination);
    unlockTable(kernel, source);
    at = stop;
  }
  return length;
}

function moveHuge(kernel: Kernel, vma: VmArea, from: number, to: number): 'moved' | 'split' | 'nomem' {
  const { mm } = vma;
  const source = findHugePmd(kernel, mm, from);
  const target = allocPmd(kernel, mm, to);
  if (target === NO_TABLE) return 'nomem';
  const apart = tableOf(source) !== tableOf(target);
  lockTable(kernel, tableOf(source));
  if (apart) lockTable(kernel, tableOf(target));
  const moved = moveHugePmd(kernel, vma, source, target, from as VirtAddr);
  if (apart) unlockTable(kernel, tableOf(target));
  unlockTable(kernel, tableOf(source));
  return moved ? 'moved' : 'split';
}

/** `move_ptes()`. Returns whether a translation may be in a TLB. */
function moveEntries(kernel: Kernel, from: number, to: number, pages: number, loseWp: boolean): boolean {
  const { halves, words } = kernel.ram;
  let flush = false;
  for (let i = 0; i < pages; i++) {
    const high = peek32(halves, 2 * (from + i) + 1);
    if ((peek32(halves, 2 * (from + i)) | high) === 0) continue;
    let low = getAndClearPteLow(words, from + i);
    const present = lowPresent(low);
    flush ||= present;
    if (loseWp) {
      if (!present && kernel.addressing.swapTypes.kindOf[highType(high)] === 'marker') continue;
      low &= ~(present ? LOW_UFFD_WP : LOW_SWP_UFFD_WP);
    }
    setPteHalves(words, to + i, low | (present ? LOW_SOFT_DIRTY : LOW_SWP_SOFT_DIRTY), high);
  }
  return flush;
}
