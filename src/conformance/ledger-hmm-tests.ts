/** The names of tools/testing/selftests/mm/hmm-tests.c, and where each has been written afresh. */

const ANON = 'test/selftests/anon.test.ts';
const EXCLUSIVE = 'test/selftests/exclusive.test.ts';
const FILE = 'test/selftests/file.test.ts';
const FORK = 'test/selftests/fork.test.ts';
const HUGE = 'test/selftests/huge.test.ts';
const HUGETLB = 'test/selftests/hugetlb.test.ts';
const MIGRATE = 'test/selftests/migrate.test.ts';
const RACES = 'test/selftests/races.test.ts';
const TWO = 'test/selftests/two-devices.test.ts';

const ALL = 'all of it';
const BOTH = `all of it; the half with huge pages in \`${HUGE}\``;

/** Name, how much of it is here or what it waits for, and its file (`null`: it is not here). */
export const HMM_TESTS: readonly (readonly [name: string, what: string, test: string | null])[] = [
  ['open_close', ALL, ANON],
  ['anon_read', ALL, ANON],
  ['anon_read_prot', ALL, ANON],
  ['anon_write', ALL, ANON],
  ['anon_write_prot', ALL, ANON],
  ['anon_write_child', BOTH, FORK],
  ['anon_write_child_shared', ALL, FORK],
  ['anon_write_huge', ALL, HUGE],
  ['anon_write_hugetlbfs', ALL, HUGETLB],
  ['file_read', ALL, FILE],
  ['file_write', ALL, FILE],
  ['migrate', ALL, MIGRATE],
  ['migrate_file_private', ALL, FILE],
  ['migrate_fault', ALL, MIGRATE],
  ['migrate_release', ALL, MIGRATE],
  ['migrate_shared', ALL, MIGRATE],
  ['migrate_mixed', ALL, TWO],
  ['migrate_multiple', ALL, MIGRATE],
  ['anon_read_multiple', ALL, ANON],
  ['anon_teardown', ALL, RACES],
  ['mixedmap', ALL, FILE],
  ['snapshot', ALL, TWO],
  ['compound', 'all of it, with 2 MiB; there is no PUD level', HUGETLB],
  ['double_map', ALL, TWO],
  ['exclusive', ALL, EXCLUSIVE],
  ['exclusive_mprotect', ALL, EXCLUSIVE],
  ['exclusive_cow', ALL, FORK],
  ['hmm_gup_test', 'all of it, but for a fast path of its own', MIGRATE],
  ['hmm_cow_in_device', ALL, FORK],
  ['migrate_anon_huge_empty', ALL, HUGE],
  ['migrate_anon_huge_zero', ALL, HUGE],
  ['migrate_anon_huge_free', ALL, HUGE],
  ['migrate_anon_huge_fault', ALL, HUGE],
  ['migrate_partial_unmap_fault', BOTH, MIGRATE],
  ['migrate_remap_fault', BOTH, MIGRATE],
  ['migrate_anon_huge_err', ALL, HUGE],
  ['migrate_anon_huge_zero_err', ALL, HUGE],
  ['benchmark_thp_migration', 'sizes up to 4 MiB; counts what was done instead of taking the time', HUGE],
];
