/**
 * Migration of a range of virtual addresses by a driver: the conversation. Linux: mm/migrate_device.c.
 *
 *   1. The driver fills `MigrateVma` and calls `migrateVmaSetup`: **collect** walks the page table, locks each page that can
 *      move and puts a migration entry in its place; **unmap** makes sure that nobody else maps or holds it. `src[i]` then has
 *      MIGRATE_PFN_MIGRATE for every page (or hole) which the driver may move.
 *   2. The driver allocates a locked page for each that it wants to move, writes its word into `dst[i]`, and **copies**.
 *   3. `migrateVmaPages`: the new page takes over the old one's identity. MIGRATE_PFN_MIGRATE is cleared in `src[i]` where
 *      that failed. The driver updates its device page table here, while the pages are still locked.
 *   4. `migrateVmaFinalize`: mappings come back, of the new page or (where the migration failed) of the old.
 *
 * mmap_lock is held for reading from 1 to 4.
 */
import { isPageAligned, PAGE_SIZE } from '../../abi/address.js';
import type { Result } from '../../abi/errno.js';
import { NULL_PAGE } from '../../base/brand.js';
import { assert } from '../../base/errors.js';
import type { Sleeps } from '../../sync/task.js';
import type { Kernel } from '../kernel.js';
import { isDevicePrivatePage } from '../page.js';
import { vmaMayMigrate } from '../vma.js';
import type { MigrateVma } from './args.js';
import { migrateVmaCollect } from './collect.js';
import { migrateDeviceFinalize } from './finalize.js';
import { migrateDevicePages } from './pages.js';
import { migrateDeviceUnmap } from './unmap.js';

/** `migrate_vma_setup()`. EINVAL on a range that no driver may ask for; 0 otherwise, even if nothing was collected. */
export function* migrateVmaSetup(kernel: Kernel, args: MigrateVma): Sleeps<Result> {
  const { vma, start, end, faultPage } = args;
  assert(vma.mm.mmapLock.locked, 'migrate_vma_setup without mmap_lock');
  if (!isPageAligned(start) || !isPageAligned(end) || start >= end) return 'EINVAL';
  if (!vmaMayMigrate(vma)) return 'EINVAL';
  if (start < vma.start || end > vma.end) return 'EINVAL';
  const npages = (end - start) / PAGE_SIZE;
  if (args.src.length < npages || args.dst.length < npages) return 'EINVAL';
  if (faultPage !== NULL_PAGE && !isDevicePrivatePage(kernel.memmap.words, faultPage)) return 'EINVAL';
  args.src.fill(0, 0, npages);
  args.dst.fill(0, 0, npages);
  args.npages = 0;
  args.notifyingIndex = 0;
  args.cpages = 0;
  yield* migrateVmaCollect(kernel, args);
  if (args.cpages > 0) {
    args.cpages = yield* migrateDeviceUnmap(kernel, args.src, args.npages, faultPage, args);
  }
  return 0;
}

/** `migrate_vma_pages()`. */
export function migrateVmaPages(kernel: Kernel, args: MigrateVma): Sleeps<void> {
  return migrateDevicePages(kernel, args.src, args.dst, args.npages, args);
}

/** `migrate_vma_finalize()`. */
export function migrateVmaFinalize(kernel: Kernel, args: MigrateVma): void {
  migrateDeviceFinalize(kernel, args.src, args.dst, args.npages, args.faultPage);
}
