/**
 * Migration by physical page: eviction. Linux: migrate_device_range(), migrate_device_pfns() (with the series they take
 * mpfns, so that the kind of number comes along).
 *
 * The driver names its pages; those that are in use and whose lock is free are unmapped wherever they are mapped, without
 * mmap_lock. Then it goes on as after `migrateVmaSetup`: allocate, copy, `migrateDevicePages`, `migrateDeviceFinalize`.
 */
import { MIGRATE_PFN_MIGRATE, MIGRATE_PFN_SHIFT, mpfnSet } from '../../abi/mpfn.js';
import { type Mpfn, NULL_PAGE } from '../../base/brand.js';
import { folioTrylock, getPageUnlessZero } from '../../sync/page-ref.js';
import type { Sleeps } from '../../sync/task.js';
import type { Kernel } from '../kernel.js';
import { putPage } from '../put-page.js';
import { migrateDeviceUnmap } from './unmap.js';

/** `migrate_device_range()`: `src` becomes the words of `npages` pages from `start` on. Returns how many may migrate. */
export function* migrateDeviceRange(kernel: Kernel, src: Float64Array, start: Mpfn, npages: number): Sleeps<number> {
  for (let i = 0; i < npages; i++) {
    src[i] = migrateDevicePfnLock(kernel, (start + i * 2 ** MIGRATE_PFN_SHIFT) as Mpfn);
  }
  return yield* migrateDeviceUnmap(kernel, src, npages, NULL_PAGE);
}

/** `migrate_device_pfns()`: the same for pages that are not neighbours; `src` holds their words. */
export function* migrateDevicePfns(kernel: Kernel, src: Float64Array, npages: number): Sleeps<number> {
  for (let i = 0; i < npages; i++) src[i] = migrateDevicePfnLock(kernel, src[i] as Mpfn);
  return yield* migrateDeviceUnmap(kernel, src, npages, NULL_PAGE);
}

/** Hold and lock one page: 0 for a page that is free or locked by somebody else. */
function migrateDevicePfnLock(kernel: Kernel, mpfn: Mpfn): Mpfn {
  const { words } = kernel.memmap;
  const page = kernel.addressing.migratePfnToPage(mpfn);
  if (page === NULL_PAGE || !getPageUnlessZero(words, page)) return 0 as Mpfn;
  if (!folioTrylock(words, page)) {
    putPage(kernel, page);
    return 0 as Mpfn;
  }
  return mpfnSet(mpfn, MIGRATE_PFN_MIGRATE);
}
