/**
 * How a machine names device private pages: the one interface behind which the designs differ. Core mm holds a `Page` and
 * asks these functions for the number which stands in an entry or a word, and back. Linux: softleaf_to_page,
 * migrate_pfn_{from,to}_page, hmm_pfn_to_page, make_*_entry_from_page of the series.
 */
import type { HmmPfns } from '../../abi/hmm-pfn.js';
import type { SwapTypes } from '../../abi/softleaf.js';
import type { DevicePrivateOffset, Mpfn, Page, Pfn, SoftLeaf } from '../../base/brand.js';

/** What a migration entry allows once the page is there again. */
export type MigrationAccess = 'read' | 'read-exclusive' | 'write';

/** The designs that there are. */
export const ADDRESSINGS = ['legacy', 'offset'] as const;
export type AddressingName = (typeof ADDRESSINGS)[number];

export const isAddressing = (name: string | undefined): name is AddressingName =>
  (ADDRESSINGS as readonly (string | undefined)[]).includes(name);

export interface Addressing {
  readonly name: AddressingName;
  readonly swapTypes: SwapTypes;
  /** The number that names the page in entries and words: a PFN, or an offset for a device private page under the series. */
  pageNumber(page: Page): Pfn | DevicePrivateOffset;
  /** Swap type of `make_{readable,writable}_device_private_entry_from_page`; the entry's number is `pageNumber`. */
  devicePrivateType(write: boolean): number;
  /** Swap type of `make_*_migration_entry_from_page`: the family depends on the page. */
  migrationType(page: Page, access: MigrationAccess): number;
  /** The same of a page that has a PFN. For device private pages that is a mistake, which check-sites.ts knows many of. */
  plainMigrationType(access: MigrationAccess): number;
  /** The page that a softleaf of `type` with `number` names. Precondition: entries of the type carry a number. */
  leafToPage(type: number, number: number): Page;
  /** `softleaf_to_page`: precondition: the entry carries a number. */
  softleafToPage(entry: SoftLeaf): Page;
  /** `migrate_pfn_from_page`. */
  migratePfnFromPage(page: Page): Mpfn;
  /** `migrate_pfn_to_page`: NULL_PAGE without MIGRATE_PFN_VALID. */
  migratePfnToPage(mpfn: Mpfn): Page;
  /** HMM_PFN_DEVICE_PRIVATE of a page whose number is an offset, 0 of the others (`hmm_pfn_from_page`, beside `pageNumber`). */
  hmmPfnKind(page: Page): number;
  /** `hmm_pfn_to_page` of word `i`. Precondition: HMM_PFN_VALID is set there. */
  hmmPfnToPage(pfns: HmmPfns, i: number): Page;
}
