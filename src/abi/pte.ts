/**
 * Present page table entries: x86-64's layout. Linux: arch/x86/include/asm/pgtable_types.h.
 * What a non-present entry means is in softleaf.ts.
 */
import type { Pfn, Pte } from '../base/brand.js';
import { bit, bits, defineBits } from './layout.js';

export const PTE = defineBits('pte (present)', 64, {
  present: bit(0, '_PAGE_PRESENT'),
  write: bit(1, '_PAGE_RW'),
  user: bit(2, '_PAGE_USER'),
  writeThrough: bit(3, '_PAGE_PWT'),
  cacheDisable: bit(4, '_PAGE_PCD'),
  accessed: bit(5, '_PAGE_ACCESSED: set by hardware on any access'),
  dirty: bit(6, '_PAGE_DIRTY: set by hardware on a write'),
  pageSize: bit(7, '_PAGE_PSE: this entry of an upper level maps a huge page'),
  protNone: bit(8, '_PAGE_PROTNONE: present to the kernel, not to hardware (when bit 0 is clear)'),
  special: bit(9, '_PAGE_SPECIAL: no struct page refcounting (the zero page)'),
  uffdWp: bit(10, '_PAGE_UFFD_WP'),
  softDirty: bit(11, '_PAGE_SOFT_DIRTY'),
  pfn: bits(12, 51, 'page frame number'),
  noExec: bit(63, '_PAGE_NX'),
});

export const PTE_PRESENT = PTE.present.mask;
export const PTE_WRITE = PTE.write.mask;
export const PTE_USER = PTE.user.mask;
export const PTE_ACCESSED = PTE.accessed.mask;
export const PTE_DIRTY = PTE.dirty.mask;
export const PTE_HUGE = PTE.pageSize.mask;
export const PTE_PROTNONE = PTE.protNone.mask;
export const PTE_SPECIAL = PTE.special.mask;
export const PTE_UFFD_WP = PTE.uffdWp.mask;
export const PTE_SOFT_DIRTY = PTE.softDirty.mask;
/** What `pte_mkdirty()` sets: an entry that the kernel makes dirty is soft-dirty; what hardware does nobody hears of. */
export const PTE_MKDIRTY = PTE_DIRTY | PTE_SOFT_DIRTY;
/** A page of the user's: present, and reachable from user mode. */
export const PTE_USER_PAGE = PTE_PRESENT | PTE_USER;
/** Flags of an entry that points to the next level of the tree. */
export const TABLE_FLAGS = PTE_PRESENT | PTE_WRITE | PTE_USER | PTE_ACCESSED | PTE_DIRTY;

const PFN_SHIFT = PTE.pfn.shift;
const PFN_MASK = PTE.pfn.valueMask;
const PRESENT_OR_PROTNONE = PTE_PRESENT | PTE_PROTNONE;

export const makePte = (pfn: Pfn, flags: bigint): Pte => ((BigInt(pfn) << PFN_SHIFT) | flags) as Pte;
export const ptePfn = (pte: Pte): Pfn => Number((pte >> PFN_SHIFT) & PFN_MASK) as Pfn;
/** `pte_present()`: mapped, though perhaps without any access right (PROT_NONE). */
export const ptePresent = (pte: Pte): boolean => (pte & PRESENT_OR_PROTNONE) !== 0n;
/** What the hardware walker accepts. */
export const pteHardwarePresent = (pte: Pte): boolean => (pte & PTE_PRESENT) !== 0n;
export const pteNone = (pte: Pte): boolean => pte === 0n;
export const pteWrite = (pte: Pte): boolean => (pte & PTE_WRITE) !== 0n;
export const pteDirty = (pte: Pte): boolean => (pte & PTE_DIRTY) !== 0n;
export const pteSpecial = (pte: Pte): boolean => (pte & PTE_SPECIAL) !== 0n;
