/**
 * Moving page table entries to other addresses. Linux: mm/mremap.c move_page_tables(). What a whole leaf table has goes with the table;
 * not modelled: whole middle directories (move_normal_pud()), whose huge entries go one by one here.
 */
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
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import {
  allocLeafTable,
  allocPmd,
  findPmd,
  leafTable,
  lockTable,
  moveLeafTable,
  NO_TABLE,
  nextLeaf,
  nextMappedLeaf,
  pteIndex,
  tableOf,
  unlockTable,
} from './pgtable.js';
import { flushTlbRange } from './tlbflush.js';
import { userfaultfdWp, type VmArea, vmaLookup } from './vma.js';

/**
 * `move_page_tables()`: every entry of [from, from + length) goes to the same place in [to, to + length), whatever it means: pages are
 * not touched, and their reverse map leads to the new place because the VMA there keeps the page offsets. Only the protection of a
 * userfaultfd stays behind. Returns how far it got, less than `length` when there was no RAM for a table.
 * Precondition: `vma` is the one at `from`, another is at `to` already.
 */
export function* movePageTables(kernel: Kernel, vma: VmArea, from: number, to: number, length: number): Sleeps<number> {
  const { mm } = vma;
  const below = isHugetlb(vma) ? 0 : belowBorder(vma, vmaLookup(mm, to)!, from, to, length);
  const range: MmuNotifierRange = {
    mm,
    start: (from - below) as VirtAddr,
    end: (from + length) as VirtAddr,
    event: 'MMU_NOTIFY_UNMAP',
    owner: null,
  };
  yield* mmuNotifierInvalidateRangeStart(range);
  const moved = isHugetlb(vma)
    ? moveHugetlb(kernel, vma, from, to, length)
    : yield* moveTables(kernel, vma, from - below, to - below, length + below);
  mmuNotifierInvalidateRangeEnd(range);
  return Math.max(0, moved - below);
}

/**
 * `try_realign_addr()`: how far below `from` the first table begins, if all of it may go because nothing else is in it on either side;
 * otherwise 0.
 */
function belowBorder(source: VmArea, target: VmArea, from: number, to: number, length: number): number {
  const below = from % PMD_SIZE;
  if (to % PMD_SIZE !== below || length < PMD_SIZE - below) return 0;
  const begins = (vma: VmArea, at: number): boolean => vma.start === at && !vma.mm.vmas.overlaps(at - below, at);
  return begins(source, from) && begins(target, to) ? below : 0;
}

function* moveTables(kernel: Kernel, vma: VmArea, from: number, to: number, length: number): Sleeps<number> {
  const { mm } = vma;
  const end = from + length;
  const loseWp = userfaultfdWp(vma);
  for (let at = nextMappedLeaf(kernel, mm, from, end); at < end; at = nextMappedLeaf(kernel, mm, at, end)) {
    const target = at - from + to;
    if (end - at >= PMD_SIZE && isHugeAligned(at) && isHugeAligned(target)) {
      const outcome = moveMiddle(kernel, vma, at, target);
      if (outcome === 'nomem') return at - from;
      if (outcome === 'moved') {
        at += PMD_SIZE;
        continue;
      }
    }
    const source = leafTable(kernel, mm, at as VirtAddr);
    if (source === NO_TABLE) {
      yield* splitHugePmd(kernel, vma, at);
      continue;
    }
    const pages = (Math.min(nextLeaf(at), at + nextLeaf(target) - target, end) - at) / PAGE_SIZE;
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

/** One entry of the middle directory, of a leaf table or of a huge page; `small` where its small entries have to go one by one. */
function moveMiddle(kernel: Kernel, vma: VmArea, from: number, to: number): 'moved' | 'small' | 'nomem' {
  const { mm } = vma;
  const source = findPmd(kernel, mm, from);
  const target = allocPmd(kernel, mm, to);
  if (target === NO_TABLE) return 'nomem';
  const huge = findHugePmd(kernel, mm, from) !== NO_TABLE;
  // What a userfaultfd protects is in the entries of a table, and stays behind.
  if (!huge && userfaultfdWp(vma)) return 'small';
  const apart = tableOf(source) !== tableOf(target);
  lockTable(kernel, tableOf(source));
  if (apart) lockTable(kernel, tableOf(target));
  const moved = huge
    ? moveHugePmd(kernel, vma, source, target, from as VirtAddr)
    : moveLeafTable(kernel, mm, source, target);
  if (moved && !huge) flushTlbRange(kernel, mm, from as VirtAddr, (from + PMD_SIZE) as VirtAddr);
  if (apart) unlockTable(kernel, tableOf(target));
  unlockTable(kernel, tableOf(source));
  return moved ? 'moved' : 'small';
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
