/**
 * Phase 1b, **unmap**: make sure that nobody maps or holds the collected pages. Linux: migrate_device_unmap().
 * A page with a reference too many (pinned, under I/O) goes back to where it was.
 */
import { MIGRATE_PFN_MIGRATE, mpfnClear, mpfnPages } from '../../abi/mpfn.js';
import { PAGE_FLAGS } from '../../abi/struct-page.js';
import { type Mpfn, NULL_PAGE, type Page } from '../../base/brand.js';
import { folioUnlock, pageRefCount } from '../../sync/page-ref.js';
import { SCHEDULE_POINT, type Sleeps } from '../../sync/task.js';
import type { Kernel } from '../kernel.js';
import { removeMigrationPtes, tryToMigrate } from '../migrate.js';
import {
  folioMapcount,
  isFaultFolio,
  isolateLru,
  isZoneDevicePage,
  pageFileId,
  pageTestFlag,
  putbackLru,
} from '../page.js';
import { putPage } from '../put-page.js';
import type { MigrateVma } from './args.js';

const { PG_swapcache } = PAGE_FLAGS;

/** Returns how many pages (and holes) may migrate. Precondition: the pages in `src` are locked and held once by it. */
export function* migrateDeviceUnmap(
  kernel: Kernel,
  src: Float64Array,
  npages: number,
  faultPage: Page,
  args: MigrateVma | null = null,
): Sleeps<number> {
  const { words } = kernel.memmap;
  let ready = 0;
  let restore = 0;
  for (let i = 0; i < npages; i += mpfnPages(src[i])) {
    const mpfn = src[i] as Mpfn;
    const page = kernel.addressing.migratePfnToPage(mpfn);
    if (page === NULL_PAGE) {
      if ((mpfn & MIGRATE_PFN_MIGRATE) !== 0) ready++;
      continue;
    }
    const zoneDevice = isZoneDevicePage(words, page);
    let movable = zoneDevice || isolateLru(words, page);
    if (movable) {
      if (folioMapcount(words, page) > 0) {
        if (kernel.options.preempt()) yield SCHEDULE_POINT;
        if (args !== null) args.notifyingIndex = i;
        yield* tryToMigrate(kernel, page);
      }
      if (folioMapcount(words, page) > 0 || !checkPage(words, page, faultPage)) {
        if (!zoneDevice) putbackLru(words, page);
        movable = false;
      }
    }
    if (movable) {
      ready++;
    } else {
      src[i] = mpfnClear(mpfn, MIGRATE_PFN_MIGRATE);
      restore++;
    }
  }
  for (let i = 0; i < npages && restore > 0; i++) {
    const mpfn = src[i] as Mpfn;
    if ((mpfn & MIGRATE_PFN_MIGRATE) !== 0) continue;
    const page = kernel.addressing.migratePfnToPage(mpfn);
    if (page === NULL_PAGE) continue;
    removeMigrationPtes(kernel, page, page);
    src[i] = 0;
    if (!isFaultFolio(words, page, faultPage)) folioUnlock(words, page);
    putPage(kernel, page);
    restore--;
  }
  return ready;
}

/** `migrate_vma_check_page()`: is the migration the only holder (beside the fault that asks for it)? */
function checkPage(words: Int32Array, page: Page, faultPage: Page): boolean {
  const expected = isFaultFolio(words, page, faultPage) ? 2 : 1;
  const extra = pageRefCount(words, page) - expected - folioMapcount(words, page);
  // A page cache has a reference of its own, and so has the swap cache.
  return extra <= 0 || (extra === 1 && (pageFileId(words, page) !== 0 || pageTestFlag(words, page, PG_swapcache)));
}
