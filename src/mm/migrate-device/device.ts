/**
 * Migration by physical page: eviction. Linux: migrate_device_range(), migrate_device_pfns() (with the series they take
 * mpfns, so that the kind of number comes along), migrate_device_coherent_folio().
 *
 * The driver names its pages; those that are in use and whose lock is free are unmapped wherever they are mapped, without
 * mmap_lock. Then it goes on as after `migrateVmaSetup`: allocate, copy, `migrateDevicePages`, `migrateDeviceFinalize`.
 */
import { MIGRATE_PFN_COMPOUND, MIGRATE_PFN_MIGRATE, MIGRATE_PFN_SHIFT, migratePfn, mpfnSet } from '../../abi/mpfn.js';
import { type Mpfn, NULL_PAGE, type Page } from '../../base/brand.js';
import { folioLocked, folioTrylock, getPageUnlessZero } from '../../sync/page-ref.js';
import { type Sleeps, waitUntil } from '../../sync/task.js';
import { allocUserPage } from '../alloc.js';
import { copyHighpage } from '../highmem.js';
import type { Kernel } from '../kernel.js';
import { folioNrPages } from '../page.js';
import { putPage } from '../put-page.js';
import { migrateDeviceFinalize } from './finalize.js';
import { migrateDevicePages } from './pages.js';
import { migrateDeviceUnmap } from './unmap.js';

/** `migrate_device_range()`: `src` becomes the words of `npages` pages from `start` on. Returns how many may migrate. */
export function migrateDeviceRange(kernel: Kernel, src: Float64Array, start: Mpfn, npages: number): Sleeps<number> {
  const step = kernel.sites.rangeStep ? 2 ** MIGRATE_PFN_SHIFT : 1;
  for (let i = 0; i < npages; i++) src[i] = start + i * step;
  return migrateDevicePfns(kernel, src, npages);
}

/**
 * `migrate_device_pfns()`: the same for pages that need not be neighbours; `src` holds their words. Of a large folio all pages are
 * there, and its first one's word is what is left.
 */
export function* migrateDevicePfns(kernel: Kernel, src: Float64Array, npages: number): Sleeps<number> {
  const { words } = kernel.memmap;
  for (let i = 0; i < npages; ) {
    const page = kernel.addressing.migratePfnToPage(src[i] as Mpfn);
    // Before the lock: a large folio that is free is one no more.
    const pages = page === NULL_PAGE ? 1 : folioNrPages(words, page);
    const mpfn = migrateDevicePfnLock(kernel, src[i] as Mpfn);
    src.fill(0, i, i + pages);
    src[i] = pages > 1 ? mpfnSet(mpfn, MIGRATE_PFN_COMPOUND) : mpfn;
    i += pages;
  }
  return yield* migrateDeviceUnmap(kernel, src, npages, NULL_PAGE);
}

/**
 * `migrate_device_coherent_folio()`: bring one page of a coherent device to RAM, without its driver: the CPU copies. For who
 * wants to pin it for long. Precondition: the caller has one reference on it, which is gone afterwards.
 * @returns EBUSY when somebody else holds the page, or there is no RAM for it; and for a page of a large folio, which Linux does
 * not expect here either: it warns, and leaves the folio where it is
 */
export function* migrateDeviceCoherentPage(kernel: Kernel, page: Page): Sleeps<0 | 'EBUSY'> {
  const { words } = kernel.memmap;
  if (folioNrPages(words, page) > 1) {
    putPage(kernel, page);
    return 'EBUSY';
  }
  while (!folioTrylock(words, page)) {
    yield* waitUntil(`lock of the coherent page ${page}`, () => !folioLocked(words, page));
  }
  return (yield* migratePageToRam(kernel, page)) ? 0 : 'EBUSY';
}

/**
 * One page that has a PFN moves to another of RAM; the CPU copies. Precondition: locked, and held once by us. The lock is gone afterwards, and
 * so is the reference. False: somebody else holds it, or there is no RAM; then it is mapped as before.
 */
function* migratePageToRam(kernel: Kernel, page: Page): Sleeps<boolean> {
  const { words } = kernel.memmap;
  const src = Float64Array.of(mpfnSet(migratePfn(kernel.memmap.pageToPfn(page)), MIGRATE_PFN_MIGRATE));
  const dst = new Float64Array(1);
  yield* migrateDeviceUnmap(kernel, src, 1, NULL_PAGE);
  if (src[0] === 0) return false;
  const target = yield* allocUserPage(kernel);
  if (target !== NULL_PAGE) {
    folioTrylock(words, target);
    dst[0] = migratePfn(kernel.memmap.pageToPfn(target));
  }
  yield* migrateDevicePages(kernel, src, dst, 1, null);
  const moved = (src[0] & MIGRATE_PFN_MIGRATE) !== 0;
  if (moved) copyHighpage(kernel, target, page);
  migrateDeviceFinalize(kernel, src, dst, 1, NULL_PAGE);
  return moved;
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
