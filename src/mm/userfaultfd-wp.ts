/**
 * Write protection of single pages, for a userfaultfd. Linux: mm/userfaultfd.c uffd_wp_range(), mm/mprotect.c change_pte_range()
 * with MM_CP_UFFD_WP and MM_CP_UFFD_WP_RESOLVE.
 *
 *   an entry                       is protected                        is resolved
 *   present, of either level       read-only, with the bit             without it; writable where nothing else speaks against it
 *   names a page or a swap slot    with the bit; what said "writable"  without it, and not writable either: the next store
 *                                  says "readable" from now on         finds out
 *   none                           a marker, where such are used       none
 *   marker                         a marker                            none
 *
 * The bit goes along wherever the page goes: into migration, device private and swap entries and back, and to the parts of a huge
 * page. What is mapped no more has none: the end of a mapping, of anonymous memory also MADV_DONTNEED, loses it; of a file it
 * stays behind in a marker. One who loses it too is, as in Linux, a zero page whose place a device page takes.
 */
import { PAGE_SIZE, PMD_SIZE } from '../abi/address.js';
import { LOW_SWP_UFFD_WP, LOW_UFFD_WP, lowPresent } from '../abi/pte-halves.js';
import type { VirtAddr } from '../base/brand.js';
import type { Sleeps } from '../sync/task.js';
import { and32, getAndClearPteLow, or32, peek32, setPteHalves } from '../sync/word.js';
import { reclaimAndRetry } from './alloc.js';
import { findHugePmd, splitHugePmd } from './huge-pmd.js';
import type { Kernel } from './kernel.js';
import { changeProtection } from './mprotect.js';
import {
  allocLeafTable,
  leafTable,
  lockTable,
  NO_TABLE,
  nextLeaf,
  nextMappedLeaf,
  pteIndex,
  tableOf,
  unlockTable,
} from './pgtable.js';
import { isWpMarker, setWpMarker, usesWpMarkers } from './pte-marker.js';
import { changedPresentLow, changeLeaf, changePtes } from './pte-protect.js';
import { flushTlbRange } from './tlbflush.js';
import { type VmArea, vmaIsAnonymous } from './vma.js';

export type WpChange = 'protect' | 'resolve';

/**
 * `uffd_wp_range()` of a part of a VMA. Precondition: mmap_lock held, for reading at least.
 * @returns ENOMEM when there is no RAM for the tables that markers need
 */
export function* uffdWpRange(
  kernel: Kernel,
  vma: VmArea,
  start: number,
  end: number,
  change: WpChange,
): Sleeps<0 | 'ENOMEM'> {
  if (change === 'protect' && usesWpMarkers(vma) && !(yield* populateTables(kernel, vma, start, end))) return 'ENOMEM';
  yield* changeProtection(kernel, vma, start, end, (from, stop) => changeTable(kernel, vma, from, stop, change));
  return 0;
}

/** `pgtable_populate_needed()`, `pgtable_split_needed()`: a leaf table wherever nothing stands, or a huge page of a file. */
function* populateTables(kernel: Kernel, vma: VmArea, start: number, end: number): Sleeps<boolean> {
  const { mm } = vma;
  let attempt = 0;
  for (let at = start; at < end; ) {
    if (!vmaIsAnonymous(vma) && findHugePmd(kernel, mm, at) !== NO_TABLE) yield* splitHugePmd(kernel, vma, at);
    const found = nextMappedLeaf(kernel, mm, at, end) === at || allocLeafTable(kernel, mm, at as VirtAddr) !== NO_TABLE;
    if (found) at = nextLeaf(at);
    else if (!(yield* reclaimAndRetry(kernel, attempt++))) return false;
  }
  return true;
}

/** The entries of [from, stop), which one leaf table serves. A huge entry of which only a part is meant comes apart. */
function* changeTable(kernel: Kernel, vma: VmArea, from: number, stop: number, change: WpChange): Sleeps<void> {
  const { mm } = vma;
  for (;;) {
    const table = leafTable(kernel, mm, from as VirtAddr);
    const huge = table === NO_TABLE ? findHugePmd(kernel, mm, from) : NO_TABLE;
    // With mmap_lock held for reading only, what was there may have been discarded.
    if (table === NO_TABLE && huge === NO_TABLE) return;
    if (huge !== NO_TABLE && stop - from < PMD_SIZE) {
      yield* splitHugePmd(kernel, vma, from);
      continue;
    }
    const first = huge === NO_TABLE ? table + pteIndex(from) : huge;
    const count = huge === NO_TABLE ? (stop - from) / PAGE_SIZE : 1;
    lockTable(kernel, tableOf(first));
    let flush = false;
    for (let at = first; at < first + count; ) {
      if (huge === NO_TABLE && lowPresent(peek32(kernel.ram.halves, 2 * at))) {
        const [set, clear] = change === 'protect' ? [LOW_UFFD_WP, 0] : [0, LOW_UFFD_WP];
        at += changePtes(kernel, vma, at, first + count, set, clear);
        flush = true;
      } else {
        flush = changeEntry(kernel, vma, at++, change) || flush;
      }
    }
    // Before the lock goes: who is told that a page is protected must not be written past.
    if (flush) flushTlbRange(kernel, mm, from as VirtAddr, stop as VirtAddr);
    unlockTable(kernel, tableOf(first));
    return;
  }
}

/** One entry that is huge or not present. Returns whether a translation may be in a TLB. */
function changeEntry(kernel: Kernel, vma: VmArea, at: number, change: WpChange): boolean {
  const { halves, words } = kernel.ram;
  const high = peek32(halves, 2 * at + 1);
  const seen = peek32(halves, 2 * at);
  const protect = change === 'protect';
  if ((seen | high) === 0) {
    if (protect && usesWpMarkers(vma)) setWpMarker(kernel, at);
    return false;
  }
  if (lowPresent(seen)) {
    const low = getAndClearPteLow(words, at);
    const flagged = protect ? low | LOW_UFFD_WP : low & ~LOW_UFFD_WP;
    setPteHalves(words, at, changedPresentLow(kernel, vma, flagged, high), high);
    return true;
  }
  if (isWpMarker(kernel, seen, high)) {
    if (!protect) setPteHalves(words, at, 0, 0);
    return false;
  }
  changeLeaf(kernel, at, seen, high);
  if (protect) or32(halves, 2 * at, LOW_SWP_UFFD_WP);
  else and32(halves, 2 * at, ~LOW_SWP_UFFD_WP);
  return false;
}
