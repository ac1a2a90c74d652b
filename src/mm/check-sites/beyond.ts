/** Bugs of the series' lists that this model cannot express, each with the reason. */

export interface BeyondModel {
  readonly source: string;
  readonly title: string;
  readonly why: string;
  /** v6 as posted still does it. */
  readonly inV6?: true;
}

export const BEYOND_MODEL: readonly BeyondModel[] = Object.freeze([
  {
    source: 'series #8',
    title: 'copy_hugetlb_page_range, hugetlb_change_protection',
    why: 'hugetlb never holds private pages: nothing breaks in Linux, either',
  },
  {
    source: 'series #18',
    title: 'lru_gen_look_around',
    why: 'the multi-generational LRU is not modelled; a private entry is never young, so the place is not reached in Linux, either',
  },
  {
    source: 'series #24, 4.1 (RFC -> v1)',
    title: 'HMM_PFN_ORDER_SHIFT',
    why: 'no driver here reads the order of an hmm_pfn',
  },
  {
    source: 'series #26',
    title: 'set_ps_flags, stable_page_flags',
    why: '/proc/kpageflags goes by PFN, and under the series no PFN leads to a private page',
  },
  { source: 'series #27', title: '__dump_folio', why: 'pages are not dumped, and there is no CMA' },
  {
    source: 'series #28, R5',
    title: '__init_zone_device_page, migratetype of the pageblock',
    why: 'pageblocks have no migratetype',
  },
  {
    source: 'series #30',
    title: 'memremap_pages of private memory',
    why: 'a refusal, which a unit test has (test/unit/memremap.test.ts): no driver here asks for it',
  },
  {
    source: 'series #31',
    title: 'folio_pfn, VM_WARN',
    why: 'a diagnosis, not a behaviour: remove-migration-pmd has it',
  },
  {
    source: 'series #32',
    title: 'do_swap_page, smaps, mincore and others',
    why: 'no test of their own: they rest on #1 and #3',
  },
  {
    source: 'series #33',
    title: 'number of swap files',
    why: 'a limit, which a spec with more areas runs into (SWAP_AREAS_MAX)',
  },
  { source: 'series #34', title: 'migrate_hmm_range_setup', why: 'neither in Linux 7.2 nor in 7.3-rc7' },
  {
    source: 'series 4.1 (v1 -> v2)',
    title: 'range is not the last member of dev_pagemap; stub of a configuration misspelt',
    why: 'bugs of C source that a compiler finds',
  },
  {
    source: 'series 4.1 (v2 -> v3)',
    title: 'amdkfd tells private from coherent by its link, not by pgmap.type',
    why: 'amdkfd is not modelled; test_hmm has one type for a device',
  },
  {
    source: 'series 4.1 (v5 -> v6), R6',
    title: 'amdkfd: `ret` is not initialised where a coherent device succeeds',
    why: 'a variable without a value is not to be had in TypeScript',
  },
  {
    source: 'series 4.1 (v5 -> v6)',
    title: 'nr_pages by a division that truncates',
    why: 'the memory of a device is a whole number of pages',
  },
  {
    source: 'R7',
    title: 'a number that is shifted by one loses bit 63',
    why: 'numbers here have 52 bits, as on x86-64; no architecture keeps a flag above them',
  },
  {
    source: 'series 4.2 #1',
    title: "page_mapped_in_vma compares the head's number with a tail's address",
    why: 'only memory failure handling calls it, and a device private page does not come so far',
    inV6: true,
  },
  {
    source: 'series 4.2 #4',
    title: 'the range is in the tree before its pages and its reference are initialised',
    why: 'nothing yields in between, and no entry holds a number of the range yet: nobody looks it up',
    inV6: true,
  },
  {
    source: 'series 4.2 #5',
    title: 'no cond_resched while pages are initialised',
    why: 'takes long, and nothing else: time is not modelled',
    inV6: true,
  },
  {
    source: 'series 4.2 #7',
    title: 'a lookup takes no reference',
    why: 'what is looked up is mapped or held, and keeps the pagemap: no run ever found a number without its pagemap',
    inV6: true,
  },
  {
    source: 'series 4.2 #8',
    title: 'hmm_pfn_to_phys, page_to_pfn unguarded',
    why: 'no driver here computes a physical address from an hmm_pfn',
    inV6: true,
  },
  {
    source: 'series 4.2 #9',
    title: 'nr_pages of 0 is not refused by itself',
    why: 'the tree answers EINVAL all the same (test/unit/memremap.test.ts)',
    inV6: true,
  },
  {
    source: 'series 4.3 c',
    title: 'page_vma_mapped_walk does not look again under the lock of a device private PMD',
    why: 'the walk and the change behind it are one step here: a split cannot come in between',
    inV6: true,
  },
  {
    source: 'H4 (a3589e1d5fe3)',
    title: 'no cache flush before an entry is cleared',
    why: 'x86-64 has coherent caches, and nothing else is modelled',
  },
] satisfies readonly BeyondModel[]);
