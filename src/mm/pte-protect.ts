/** What a change of protection does to one entry, of either level. Linux: mm/mprotect.c change_pte_range(), can_change_pte_writable(). */
import {
  halvesNumber,
  halvesPfn,
  highMigrationFlags,
  highType,
  LOW_ACCESSED,
  LOW_DIRTY,
  LOW_PRESENT,
  LOW_PROTNONE,
  LOW_SOFT_DIRTY,
  LOW_SPECIAL,
  LOW_SWP_SOFT_DIRTY,
  LOW_SWP_UFFD_WP,
  LOW_UFFD_WP,
  LOW_USER,
  LOW_WRITE,
  leafHigh,
} from '../abi/pte-halves.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import type { Pfn } from '../base/brand.js';
import { getAndClearPteLow, peek32, setPteHalves } from '../sync/word.js';
import { folioBatch } from './folio-batch.js';
import type { Kernel } from './kernel.js';
import { pageIsAnon, pageTestFlag } from './page.js';
import { isDevicePrivate, isMigrationWrite } from './softleaf.js';
import { tracksWrites, VM_SHARED, VM_WRITE, type VmArea, vmaPageProt, vmaSoftDirtyEnabled } from './vma.js';

const PROT_BITS = LOW_PRESENT | LOW_USER | LOW_WRITE | LOW_PROTNONE;

/**
 * `change_present_ptes()`: the present entry at `at` and those after it, before `end`, that are changed with it: they map the next pages of
 * the same large folio and differ in no more than accessed and dirty bits. All of them get what any of them has of these; and if any
 * but the first is dirty, all count as soft-dirty. Precondition: page table lock held.
 * @param set flags to set beside what the VMA allows
 * @param clear flags to take away
 * @returns how many entries were changed
 */
export function changePtes(kernel: Kernel, vma: VmArea, at: number, end: number, set = 0, clear = 0): number {
  const { halves, words } = kernel.ram;
  // mprotect_folio_pte_batch()
  const count = Math.max(1, folioBatch(kernel, at, end, LOW_ACCESSED | LOW_DIRTY));
  let gathered = 0;
  for (let each = at; count > 1 && each < at + count; each++) {
    const low = peek32(halves, 2 * each);
    gathered |= low & (LOW_ACCESSED | LOW_DIRTY);
    if (each > at && (low & LOW_DIRTY) !== 0) gathered |= LOW_SOFT_DIRTY;
  }
  for (let each = at; each < at + count; each++) {
    const high = peek32(halves, 2 * each + 1);
    // Hardware may set accessed and dirty until the entry is cleared.
    const low = ((getAndClearPteLow(words, each) | gathered) & ~clear) | set;
    setPteHalves(words, each, changedPresentLow(kernel, vma, low, high), high);
  }
  return count;
}

/** Low half of a present entry (given by its halves) as the VMA allows it by now. */
export function changedPresentLow(kernel: Kernel, vma: VmArea, old: number, high: number): number {
  const low = (old & ~PROT_BITS) | vmaPageProt(vma);
  if ((low & LOW_WRITE) !== 0 || !wantsWriteUpgrade(vma)) return low;
  return canChangePteWritable(kernel, vma, low, high) ? low | LOW_WRITE : low;
}

/**
 * `vma_wants_manual_pte_write_upgrade()`: of shared memory whose writes only soft-dirty bits or a userfaultfd follow Linux takes the
 * protection, which lacks the right to write for their sake, for one that a driver has chosen; what is dirty there faults once more.
 */
const wantsWriteUpgrade = (vma: VmArea): boolean => (vma.flags & VM_SHARED) === 0 || tracksWrites(vma.file);

/** A non-present entry, of either level, loses its right to write, for good: mprotect never gives it one. */
export function changeLeaf(kernel: Kernel, at: number, low: number, high: number): void {
  const { addressing, ram } = kernel;
  const type = highType(high);
  const kind = addressing.swapTypes.kindOf[type];
  const number = halvesNumber(low, high);
  if (isMigrationWrite(kernel, kind)) {
    const page = addressing.leafToPage(type, number);
    const access = pageIsAnon(kernel.memmap.words, page) ? 'read-exclusive' : 'read';
    const { mprotectMigrationFamily, retypeKeepsFlags } = kernel.sites;
    const to = mprotectMigrationFamily ? addressing.migrationType(page, access) : addressing.plainMigrationType(access);
    setPteHalves(ram.words, at, low, leafHigh(to, number, retypeKeepsFlags ? highMigrationFlags(high) : 0));
  } else if (isDevicePrivate(kind)) {
    // Soft-dirty of a downgraded device entry is not kept.
    const kept = kind === 'device-private-write' ? low & ~LOW_SWP_SOFT_DIRTY : low;
    setPteHalves(
      ram.words,
      at,
      kept | (low & LOW_SWP_UFFD_WP),
      leafHigh(addressing.devicePrivateType(false), number, 0),
    );
  }
}

/**
 * `can_change_pte_writable()`: may an entry (given by its halves) be writable without a fault first? An anonymous page if it is
 * exclusive; a shared one if it is known to be dirty.
 */
export function canChangePteWritable(kernel: Kernel, vma: VmArea, low: number, high: number): boolean {
  if ((vma.flags & VM_WRITE) === 0 || (low & (LOW_PROTNONE | LOW_UFFD_WP)) !== 0) return false;
  // pte_needs_soft_dirty_wp(): somebody watches for the first write.
  if (vmaSoftDirtyEnabled(vma) && (low & LOW_SOFT_DIRTY) === 0) return false;
  if ((vma.flags & VM_SHARED) !== 0) return (low & LOW_DIRTY) !== 0;
  if ((low & LOW_SPECIAL) !== 0) return false;
  const page = kernel.memmap.pfnToPage(halvesPfn(low, high) as Pfn);
  return pageIsAnon(kernel.memmap.words, page) && pageTestFlag(kernel.memmap.words, page, PAGE_FLAGS.PG_anon_exclusive);
}
