/** Phase 4, **finalize**: mappings come back and locks are dropped. Linux: migrate_vma_finalize(), migrate_device_finalize(). */
import { MIGRATE_PFN_MIGRATE, mpfnPages } from '../../abi/mpfn.js';
import { PAGE_FLAGS } from '../../abi/struct-page.js';
import { type Mpfn, NULL_PAGE, type Page } from '../../base/brand.js';
import { folioUnlock, pageRefAdd } from '../../sync/page-ref.js';
import type { Kernel } from '../kernel.js';
import { restoreMappings } from '../migrate.js';
import { isFaultFolio, isZoneDevicePage, pageClearFlag, pageSetFlag } from '../page.js';
import { putPage } from '../put-page.js';
import { putUnmappedPage } from '../swap-state.js';

const { PG_lru, PG_isolated } = PAGE_FLAGS;

export function migrateDeviceFinalize(
  kernel: Kernel,
  src: Float64Array,
  dst: Float64Array,
  npages: number,
  faultPage: Page,
): void {
  const { words } = kernel.memmap;
  for (let i = 0; i < npages; i += mpfnPages(src[i])) {
    const from = src[i] as Mpfn;
    const page = kernel.addressing.migratePfnToPage(from);
    const target = kernel.addressing.migratePfnToPage(dst[i] as Mpfn);
    if (page === NULL_PAGE) {
      // A hole: whoever filled it holds a reference of its own.
      if (target !== NULL_PAGE) release(kernel, target);
      continue;
    }
    const migrated = (from & MIGRATE_PFN_MIGRATE) !== 0 && target !== NULL_PAGE;
    if (!migrated && target !== NULL_PAGE) release(kernel, target);
    const survivor = migrated ? target : page;
    if (!isZoneDevicePage(words, survivor)) {
      pageClearFlag(words, survivor, PG_isolated);
      pageSetFlag(words, survivor, PG_lru);
    }
    const mapped = restoreMappings(kernel, page, survivor);
    if (migrated) pageClearFlag(words, page, PG_isolated);
    if (!isFaultFolio(words, page, faultPage)) folioUnlock(words, page);
    if (survivor !== page) {
      folioUnlock(words, survivor);
      putPage(kernel, page);
    }
    // The migration's reference becomes that of a mapping, if there is one.
    if (mapped > 1) pageRefAdd(words, survivor, mapped - 1);
    else if (mapped === 0) putUnmappedPage(kernel, survivor);
  }
}

/** Unlock and drop the migration's reference. */
function release(kernel: Kernel, page: Page): void {
  folioUnlock(kernel.memmap.words, page);
  putPage(kernel, page);
}
