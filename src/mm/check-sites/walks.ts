/** Sites of the reverse map: does this entry map the page that is looked for? Numbers of two kinds can be equal. */
import { type Family, POSTINGS } from './site.js';

export const WALK_SITES = {
  checkPteKind: {
    source: 'series #13',
    title: 'check_pte',
    does: 'kinds are compared before numbers',
    forgotten: 'a device private page is "found" where the page of RAM with the same number is mapped, and vice versa',
    addressing: 'offset',
  },
  checkPteExclusive: {
    source: 'series #14',
    title: 'check_pte, device-exclusive entries',
    does: 'an exclusive entry is a mapping, and its number a PFN',
    forgotten: 'pages that a device holds exclusively cannot be unmapped',
    addressing: 'both',
  },
  checkPmdMigration: {
    source: 'series #15',
    title: 'check_pmd of a migration entry',
    does: 'passes "device private or device private migration" as the kind',
    forgotten: 'huge migration entries of private folios are never restored',
    addressing: 'offset',
  },
  pmdWalkNumber: {
    source: 'series #16, 4.3 a',
    title: 'page_vma_mapped_walk, device private PMD: number',
    does: 'the number of the huge entry is compared',
    forgotten: "any huge device private entry passes for the folio's: another process's memory is unmapped",
    addressing: 'both',
    missing: POSTINGS,
  },
  pmdWalkMigration: {
    source: 'series #16, 4.3 b',
    title: 'page_vma_mapped_walk, device private PMD: PVMW_MIGRATION',
    does: 'who looks for migration entries does not get one that maps',
    forgotten: 'a device private entry is taken for a migration entry and overwritten',
    addressing: 'both',
    missing: POSTINGS,
  },
  migrationWalkKind: {
    source: 'series #17',
    title: 'DEFINE_FOLIO_VMA_WALK in remove_migration_pte',
    does: 'number and kind of the walk come from the folio',
    forgotten: 'the offset is looked for as a PFN: the migration entry stays where it is',
    addressing: 'offset',
  },
  walkKeepsKind: {
    source: 'series #12, R1',
    title: 'try_to_migrate_one, assignment of pvmw.flags',
    does: 'TTU_SYNC adds to the flags of the walk',
    forgotten: 'PVMW_DEVICE_PRIVATE is wiped: an offset is looked for as if it were a PFN',
    addressing: 'offset',
  },
  kindsAsBooleans: {
    source: 'R2',
    title: 'check_pte, comparison of the kinds',
    does: 'flag and predicate are compared as booleans',
    forgotten: 'flag bit 2 differs from true: no mapping of a private page is ever found',
    addressing: 'offset',
  },
  subpageByKind: {
    source: 'series #11',
    title: 'try_to_migrate_one, number in the folio',
    does: "the entry's number minus the folio's base of the same kind",
    forgotten: 'a wild index: another page than the mapped one is accounted',
    addressing: 'offset',
  },
} as const satisfies Family;
