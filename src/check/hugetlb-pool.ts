/**
 * Holds: each page of the hugetlb pool is free there, or somebody holds it; what is promised is what mappings have not touched
 * yet, and there are free pages for all of it.
 *
 * Does not see: who has the pages that are in use (page-accounting does). Never suspended.
 */
import { PAGE_FLAGS } from '../abi/struct-page.js';
import type { Checker } from '../machine/state.js';
import { HugetlbFile } from '../mm/hugetlb.js';
import { isLargeFolio, pageTestFlag } from '../mm/page.js';
import { pageRefCount } from '../sync/page-ref.js';
import { ramPages } from './ram.js';

export const hugetlbPool: Checker = {
  invariant: 'hugetlb-pool',
  statement: 'pages of the hugetlb pool are free or held, and what is promised is there',
  always: true,
  look({ kernel }) {
    const problems: string[] = [];
    const { hugetlb, memmap, files } = kernel;
    let held = 0;
    if (hugetlb.total > 0) {
      for (const page of ramPages(kernel)) {
        // The first page of a folio stands for it.
        if (!isLargeFolio(memmap.words, page) || !pageTestFlag(memmap.words, page, PAGE_FLAGS.PG_hugetlb)) continue;
        if (pageRefCount(memmap.words, page) > 0) held++;
        else if (!hugetlb.free.includes(page))
          problems.push(`RAM page ${page}: a huge page of the pool that nobody has`);
      }
    }
    if (held + hugetlb.free.length !== hugetlb.total) {
      problems.push(`the pool has ${hugetlb.total} pages, but ${hugetlb.free.length} are free and ${held} are held`);
    }
    let promised = 0;
    for (const file of files) if (file instanceof HugetlbFile) promised += file.reserved.size;
    if (promised !== hugetlb.reserved)
      problems.push(`${hugetlb.reserved} pages are reserved, but mappings wait for ${promised}`);
    if (hugetlb.reserved > hugetlb.free.length) {
      problems.push(`${hugetlb.reserved} pages are reserved, but ${hugetlb.free.length} are free`);
    }
    return problems;
  },
};
