/**
 * MIGRATE_PFN_* words: what `migrate_vma` passes between core mm and a driver. Linux: include/linux/migrate.h, with
 * bit 5 as the series adds it. The word has 46 significant bits and is therefore a plain number.
 */
import type { DevicePrivateOffset, Mpfn, Pfn } from '../base/brand.js';
import { HPAGE_PMD_NR } from './address.js';
import { bit, bits, defineBits } from './layout.js';

const MPFN = defineBits('migrate pfn', 64, {
  valid: bit(0, 'MIGRATE_PFN_VALID: the number names a page'),
  migrate: bit(1, 'MIGRATE_PFN_MIGRATE: the page is locked, unmapped and may be copied'),
  write: bit(3, 'MIGRATE_PFN_WRITE: the page was mapped writable'),
  compound: bit(4, 'MIGRATE_PFN_COMPOUND: head of a large folio'),
  devicePrivate: bit(5, 'MIGRATE_PFN_DEVICE_PRIVATE: the number is an offset (the series)'),
  number: bits(6, 51, 'PFN, or offset in the device private address space'),
});

export const MIGRATE_PFN_VALID = 1 << MPFN.valid.low;
export const MIGRATE_PFN_MIGRATE = 1 << MPFN.migrate.low;
export const MIGRATE_PFN_WRITE = 1 << MPFN.write.low;
export const MIGRATE_PFN_COMPOUND = 1 << MPFN.compound.low;
export const MIGRATE_PFN_DEVICE_PRIVATE = 1 << MPFN.devicePrivate.low;
export const MIGRATE_PFN_SHIFT = MPFN.number.low;
const NUMBER_UNIT = 1 << MIGRATE_PFN_SHIFT;
const FLAG_MASK = NUMBER_UNIT - 1;

/** `migrate_pfn(pfn)`. */
export const migratePfn = (pfn: Pfn): Mpfn => (pfn * NUMBER_UNIT + MIGRATE_PFN_VALID) as Mpfn;
/** The same for an offset: carries its kind. */
export const migrateOffset = (offset: DevicePrivateOffset): Mpfn =>
  (offset * NUMBER_UNIT + (MIGRATE_PFN_VALID | MIGRATE_PFN_DEVICE_PRIVATE)) as Mpfn;

/** The number, of whichever kind the flags say. */
export const mpfnNumber = (mpfn: Mpfn): number => Math.floor(mpfn / NUMBER_UNIT);
/** Pages that a word stands for; the words that follow it are 0 for all of them but the first. */
export const mpfnPages = (mpfn: number): number => ((mpfn & MIGRATE_PFN_COMPOUND) === 0 ? 1 : HPAGE_PMD_NR);
/** Set flag bits. `mpfn | flags` would cut the word to 32 bits. */
export const mpfnSet = (mpfn: Mpfn, flags: number): Mpfn => (mpfn + (flags & ~(mpfn & FLAG_MASK))) as Mpfn;
/** Clear flag bits. */
export const mpfnClear = (mpfn: Mpfn, flags: number): Mpfn => (mpfn - (mpfn & FLAG_MASK & flags)) as Mpfn;
