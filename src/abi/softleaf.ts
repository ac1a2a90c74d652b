/**
 * Non-present page table entries with a meaning. Linux: include/linux/leafops.h, swapops.h, arch/x86/include/asm/pgtable_64.h.
 *
 * The word has x86-64's swap layout: type in bits 59..63, the *inverted* 50-bit offset in bits 9..58 (inverted against
 * speculation through stale entries), and a few flags below bit 9. Types are numbered from the top of the 32 that five
 * bits give, so which number stands for which kind depends on whether the machine runs the series: `SwapTypes`.
 */
import type { DevicePrivateOffset, Pfn, Pte, SoftLeaf } from '../base/brand.js';
import { bit, bits, defineBits } from './layout.js';

export const SWP = defineBits('pte (softleaf)', 64, {
  present: bit(0, 'always clear'),
  softDirty: bit(1, '_PAGE_SWP_SOFT_DIRTY'),
  uffdWp: bit(2, '_PAGE_SWP_UFFD_WP'),
  exclusive: bit(3, '_PAGE_SWP_EXCLUSIVE: the swapped out anonymous page was exclusive'),
  protNone: bit(8, 'always clear'),
  offset: bits(9, 58, 'inverted offset'),
  type: bits(59, 63, 'swap type'),
});

export const SWP_SOFT_DIRTY = SWP.softDirty.mask;
export const SWP_UFFD_WP = SWP.uffdWp.mask;
export const SWP_EXCLUSIVE = SWP.exclusive.mask;

/** Bits of the offset that hold a PFN or device private offset (MAX_PHYSMEM_BITS - PAGE_SHIFT). */
export const SWP_PFN_BITS = 40;
/** Flags which only migration entries use, in the offset above the number. */
export const SWP_MIG_YOUNG = 1n << BigInt(SWP_PFN_BITS);
export const SWP_MIG_DIRTY = 1n << BigInt(SWP_PFN_BITS + 1);

/** Offset of a marker: nothing is mapped here, but a userfaultfd protects the place from writes (PTE_MARKER_UFFD_WP). */
export const PTE_MARKER_UFFD_WP = 1;

/** What a non-present entry means. */
export type SoftLeafKind =
  | 'none'
  | 'swap'
  | 'hwpoison'
  | 'migration-read'
  | 'migration-read-exclusive'
  | 'migration-write'
  | 'device-private-write'
  | 'device-private-read'
  | 'device-exclusive'
  | 'migration-device-private-read'
  | 'migration-device-private-read-exclusive'
  | 'migration-device-private-write'
  | 'marker';

export interface SwapTypes {
  readonly typeOf: Readonly<Partial<Record<SoftLeafKind, bigint>>>;
  /** Kind of each of the 32 types. */
  readonly kindOf: readonly SoftLeafKind[];
  readonly maxSwapfiles: number;
}

const LEGACY_SPECIAL: readonly SoftLeafKind[] = [
  'hwpoison',
  'migration-read',
  'migration-read-exclusive',
  'migration-write',
  'device-private-write',
  'device-private-read',
  'device-exclusive',
  'marker',
];
const SERIES_SPECIAL: readonly SoftLeafKind[] = [
  ...LEGACY_SPECIAL.slice(0, -1),
  'migration-device-private-read',
  'migration-device-private-read-exclusive',
  'migration-device-private-write',
  'marker',
];

function numberTypes(special: readonly SoftLeafKind[]): SwapTypes {
  const first = 32 - special.length;
  const kindOf: SoftLeafKind[] = Array.from({ length: first }, () => 'swap' as const);
  const typeOf: Partial<Record<SoftLeafKind, bigint>> = { swap: 0n };
  for (const kind of special) {
    typeOf[kind] = BigInt(kindOf.length);
    kindOf.push(kind);
  }
  return Object.freeze({ typeOf: Object.freeze(typeOf), kindOf: Object.freeze(kindOf), maxSwapfiles: first });
}

/** Types without the series: device private 28, 29, device exclusive 30. */
export const LEGACY_SWAP_TYPES = numberTypes(LEGACY_SPECIAL);
/** Types with the series: device private 25, 26, device exclusive 27, device private migration 28..30. */
export const SERIES_SWAP_TYPES = numberTypes(SERIES_SPECIAL);

const TYPE_SHIFT = SWP.type.shift;
const OFFSET_SHIFT = SWP.offset.shift;
const OFFSET_MASK = SWP.offset.valueMask;
const NUMBER_MASK = SWP_MIG_YOUNG - 1n;

/** Build an entry from a type and an offset of 50 bits (`__swp_entry`). */
export const swpEntry = (type: bigint, offset: bigint): SoftLeaf =>
  ((type << TYPE_SHIFT) | ((offset ^ OFFSET_MASK) << OFFSET_SHIFT)) as SoftLeaf;
export const swpType = (entry: SoftLeaf): number => Number(entry >> TYPE_SHIFT);
export const swpOffset = (entry: SoftLeaf): bigint => ((entry >> OFFSET_SHIFT) & OFFSET_MASK) ^ OFFSET_MASK;

/** Pack a PFN or an offset, and SWP_MIG_* flags, into an entry of `type`. */
export const makeNumberEntry = (type: bigint, number: Pfn | DevicePrivateOffset, flags: bigint): SoftLeaf =>
  swpEntry(type, BigInt(number) | flags);
/** `softleaf_to_pfn`: the number without the young and dirty flags, of the kind that the entry's type says. */
export const softleafNumber = (entry: SoftLeaf): number => Number(swpOffset(entry) & NUMBER_MASK);

/** `softleaf_from_pte`: precondition: the entry is neither none nor present. Flags below bit 9 stay in the PTE. */
export const softleafFromPte = (pte: Pte): SoftLeaf => (pte & ~0x1ffn) as SoftLeaf;
/** `softleaf_to_pte`. */
export const softleafToPte = (entry: SoftLeaf): Pte => entry as bigint as Pte;
