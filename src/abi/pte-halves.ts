/**
 * Page table entries as two 32-bit halves, for the loops that touch every page: the same words as pte.ts and softleaf.ts
 * declare, without a BigInt a field (which makes bulk migration about a third faster). The low half has all flags that
 * hardware sets; the high half changes only when the kernel stores the entry.
 */
import { assert } from '../base/errors.js';
import { PTE } from './pte.js';
import { SWP, SWP_PFN_BITS } from './softleaf.js';

/** Flags of the low half. */
export const LOW_PRESENT = 1 << PTE.present.low;
export const LOW_WRITE = 1 << PTE.write.low;
export const LOW_USER = 1 << PTE.user.low;
export const LOW_ACCESSED = 1 << PTE.accessed.low;
export const LOW_DIRTY = 1 << PTE.dirty.low;
/** In an entry of an upper level: maps a huge page. */
export const LOW_HUGE = 1 << PTE.pageSize.low;
export const LOW_SPECIAL = 1 << PTE.special.low;
export const LOW_UFFD_WP = 1 << PTE.uffdWp.low;
export const LOW_SOFT_DIRTY = 1 << PTE.softDirty.low;
/** What `pte_mkdirty()` sets. */
export const LOW_MKDIRTY = LOW_DIRTY | LOW_SOFT_DIRTY;
export const LOW_SWP_SOFT_DIRTY = 1 << SWP.softDirty.low;
export const LOW_SWP_EXCLUSIVE = 1 << SWP.exclusive.low;
export const LOW_SWP_UFFD_WP = 1 << SWP.uffdWp.low;
/** Present to the kernel, not to hardware (with LOW_PRESENT clear). */
export const LOW_PROTNONE = 1 << PTE.protNone.low;
const PRESENT_OR_PROTNONE = LOW_PRESENT | LOW_PROTNONE;

/** Soft-dirty and uffd-wp of any entry, as one that is not present carries them. */
export const carriedToLeaf = (low: number): number =>
  lowPresent(low)
    ? (low & LOW_SOFT_DIRTY ? LOW_SWP_SOFT_DIRTY : 0) | (low & LOW_UFFD_WP ? LOW_SWP_UFFD_WP : 0)
    : low & (LOW_SWP_SOFT_DIRTY | LOW_SWP_UFFD_WP);
/** The same of an entry that is not present, as a present one has them. */
export const carriedToPresent = (low: number): number =>
  (low & LOW_SWP_SOFT_DIRTY ? LOW_SOFT_DIRTY : 0) | (low & LOW_SWP_UFFD_WP ? LOW_UFFD_WP : 0);

/** PFN bits in the low half, and what one unit of the high half is worth. */
const PFN_SHIFT = PTE.pfn.low;
const PFN_HIGH_UNIT = 2 ** (32 - PFN_SHIFT);
const PFN_HIGH_MASK = 2 ** (PTE.pfn.high - 31) - 1;
/** All flags that the low half of a present entry may have. */
export const LOW_FLAGS = (1 << PFN_SHIFT) - 1;
/** The same for the number in a softleaf: it begins at bit 9. */
const OFFSET_SHIFT = SWP.offset.low;
const OFFSET_HIGH_UNIT = 2 ** (32 - OFFSET_SHIFT);
const OFFSET_HIGH_MASK = 2 ** (SWP.offset.high - 31) - 1;
const NUMBER_HIGH_BITS = SWP_PFN_BITS - (32 - OFFSET_SHIFT);
const NUMBER_HIGH_MASK = 2 ** NUMBER_HIGH_BITS - 1;
const TYPE_SHIFT = SWP.type.low - 32;
assert(
  SWP.offset.low < 32 && SWP.type.low > 32 && NUMBER_HIGH_BITS > 0,
  'the halves do not cut the fields as expected',
);

/** In the high half of a migration entry's offset, above the number: SWP_MIG_YOUNG and SWP_MIG_DIRTY. */
export const HIGH_MIG_YOUNG = 1 << NUMBER_HIGH_BITS;
export const HIGH_MIG_DIRTY = 2 << NUMBER_HIGH_BITS;

/** `pte_present()`. */
export const lowPresent = (low: number): boolean => (low & PRESENT_OR_PROTNONE) !== 0;
export const halvesPfn = (low: number, high: number): number =>
  (low >>> PFN_SHIFT) + (high & PFN_HIGH_MASK) * PFN_HIGH_UNIT;
/** The PFN itself as two halves. */
export const halvesPfnLow = (low: number, high: number): number => (low >>> PFN_SHIFT) | (high << (32 - PFN_SHIFT));
export const halvesPfnHigh = (high: number): number => (high & PFN_HIGH_MASK) >>> PFN_SHIFT;
export const presentLow = (pfn: number, flags: number): number => (pfn << PFN_SHIFT) | flags | 0;
export const presentHigh = (pfn: number): number => Math.floor(pfn / PFN_HIGH_UNIT) & PFN_HIGH_MASK;

/** Swap type of a softleaf. */
export const highType = (high: number): number => high >>> TYPE_SHIFT;
/** PFN or offset of a softleaf, without the migration flags. */
export const halvesNumber = (low: number, high: number): number =>
  (~low >>> OFFSET_SHIFT) + (~high & NUMBER_HIGH_MASK) * OFFSET_HIGH_UNIT;
/** The same with the migration flags above it (`swp_offset`): a mistake wherever a number is wanted. */
export const halvesOffset = (low: number, high: number): number =>
  (~low >>> OFFSET_SHIFT) + (~high & OFFSET_HIGH_MASK) * OFFSET_HIGH_UNIT;
/** HIGH_MIG_YOUNG and HIGH_MIG_DIRTY of a migration entry. */
export const highMigrationFlags = (high: number): number => ~high & (HIGH_MIG_YOUNG | HIGH_MIG_DIRTY);
/** `flags` are LOW_SWP_*. */
export const leafLow = (number: number, flags: number): number => (~number << OFFSET_SHIFT) | flags;
/** `flags` are HIGH_MIG_*. */
export const leafHigh = (type: number, number: number, flags: number): number =>
  (type << TYPE_SHIFT) | (~(Math.floor(number / OFFSET_HIGH_UNIT) | flags) & OFFSET_HIGH_MASK) | 0;
