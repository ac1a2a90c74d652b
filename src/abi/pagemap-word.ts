/**
 * The 64-bit word that /proc/PID/pagemap gives of a page, as root reads it, and what it says. Linux:
 * Documentation/admin-guide/mm/pagemap.rst, fs/proc/task_mmu.c pte_to_pagemap_entry(). Who fills it: src/mm/proc-pagemap.ts.
 */
import { argumentError, requireOneOf, shown } from '../base/require.js';
import { bit, bits, defineBits } from './layout.js';
import { LEGACY_SWAP_TYPES, SERIES_SWAP_TYPES, type SoftLeafKind } from './softleaf.js';

/** Bits of any word. */
export const PAGEMAP_WORD = defineBits('pagemap', 64, {
  frame: bits(0, 54, 'what is behind the page: in one of the two forms below, 0 where nothing is'),
  softDirty: bit(55, 'written since `clearRefs("soft-dirty")`, or in a mapping that is new since then'),
  exclusive: bit(56, 'present, and mapped here only'),
  writeProtected: bit(57, 'protected by a userfaultfd'),
  guardRegion: bit(58, 'no access at all (MADV_GUARD_INSTALL, which is not emulated)'),
  file: bit(61, 'of a file, or shared memory'),
  swapped: bit(62, 'not present: the frame is a type and a number'),
  present: bit(63, 'present: the frame is a PFN'),
});

/** The frame of a page that is not present. */
export const PAGEMAP_SWAPPED = defineBits('pagemap (swapped)', 64, {
  type: bits(0, 4, 'what the number means: `SwapTypes`, which differ between the addressings'),
  number: bits(5, 54, 'slot of a swap area, PFN, or offset'),
});

const SWAP_TYPES = { legacy: LEGACY_SWAP_TYPES, offset: SERIES_SWAP_TYPES } as const;

/** What is behind a page: `none` nothing, `present` a page that the CPU reaches, otherwise what the entry that is not present means. */
export type PagemapKind = 'present' | SoftLeafKind;

/** What a word of `Process.pagemap` says. */
export interface PagemapEntry {
  /** The CPU's page table maps the page (bit 63). */
  readonly present: boolean;
  /** There is an entry, but the CPU cannot use it (bit 62): swapped out, on a device, on its way. */
  readonly swapped: boolean;
  readonly kind: PagemapKind;
  /**
   * The swap type of an entry that is not present (bits 0 to 4), otherwise `null`. Of `swap` it is the swap area. The others are counted
   * from 31 downwards: `device-private-write` and `device-private-read` are 28 and 29 under `legacy`, 25 and 26 under `offset`,
   * since the series needs three more kinds.
   */
  readonly type: number | null;
  /**
   * `null` for `none`; otherwise a PFN (bits 0 to 54 if present, 5 to 54 if not), with these exceptions: of `swap` it is the slot
   * in the swap area, of `marker` its flags (1: protected by a userfaultfd), and of `device-private-*` and
   * `migration-device-private-*` under `offset` addressing an offset in the device private address space, which may be the same
   * number as that of a page frame.
   */
  readonly number: number | null;
  /** Written since `clearRefs('soft-dirty')`, or in a mapping that is new since then (bit 55). */
  readonly softDirty: boolean;
  /** Present, and mapped here only (bit 56): never said of what is not present. */
  readonly exclusive: boolean;
  /** Protected by a userfaultfd: a store to it is heard of (bit 57). */
  readonly writeProtected: boolean;
  /** Of a file, or shared memory (bit 61). */
  readonly file: boolean;
}

/**
 * What a word of `Process.pagemap` says, bit by bit:
 *
 * | bits | means |
 * |---|---|
 * | 0-54 | PFN, if present |
 * | 0-4, 5-54 | swap type and number, if swapped: see `PagemapEntry` |
 * | 55 | soft-dirty |
 * | 56 | exclusively mapped |
 * | 57 | write-protected by a userfaultfd |
 * | 61 | of a file, or shared memory |
 * | 62 | swapped |
 * | 63 | present |
 *
 * @param addressing of the machine (`machine.spec.addressing`): types and numbers mean different things
 * @throws PfnlessError ERR_PFNLESS_ARGUMENT
 */
export function decodePagemap(word: bigint, addressing: keyof typeof SWAP_TYPES): PagemapEntry {
  if (typeof word !== 'bigint' || BigInt.asUintN(64, word) !== word) {
    throw argumentError(`A word of a pagemap must be a bigint of 64 bits, not ${shown(word)}.`);
  }
  requireOneOf('The addressing', addressing, Object.keys(SWAP_TYPES));
  const says = ({ mask }: { readonly mask: bigint }): boolean => (word & mask) !== 0n;
  return {
    present: says(PAGEMAP_WORD.present),
    swapped: says(PAGEMAP_WORD.swapped),
    ...frameOf(word, addressing),
    softDirty: says(PAGEMAP_WORD.softDirty),
    exclusive: says(PAGEMAP_WORD.exclusive),
    writeProtected: says(PAGEMAP_WORD.writeProtected),
    file: says(PAGEMAP_WORD.file),
  };
}

function frameOf(word: bigint, addressing: keyof typeof SWAP_TYPES): Pick<PagemapEntry, 'kind' | 'type' | 'number'> {
  if ((word & PAGEMAP_WORD.present.mask) !== 0n) {
    return { kind: 'present', type: null, number: Number(word & PAGEMAP_WORD.frame.mask) };
  }
  if ((word & PAGEMAP_WORD.swapped.mask) === 0n) return { kind: 'none', type: null, number: null };
  const type = Number(word & PAGEMAP_SWAPPED.type.mask);
  const number = Number((word & PAGEMAP_SWAPPED.number.mask) >> PAGEMAP_SWAPPED.number.shift);
  return { kind: SWAP_TYPES[addressing].kindOf[type]!, type, number };
}
