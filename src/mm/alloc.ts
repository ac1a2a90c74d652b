/**
 * Allocation in paths that may sleep: who finds no memory reclaims some first. Linux: mm/page_alloc.c __alloc_pages_slowpath().
 *
 * It is done where the page is needed, not by a fault as a whole: what the path holds at that moment reclaim cannot take, so a
 * store to a shared page in swap cannot chase its own source out again for ever.
 */
import type { Errno } from '../abi/errno.js';
import { NULL_PAGE, type Page } from '../base/brand.js';
import { injects } from '../base/injection.js';
import { SCHEDULE_POINT, type Sleeps } from '../sync/task.js';
import { lockCachedPage } from './filemap.js';
import type { Kernel } from './kernel.js';
import type { VmFile } from './vma.js';
import { canReclaim, SWAP_CLUSTER_MAX, scanForPages, tryToFreePages } from './vmscan.js';

/** How often one who finds no memory tries, though nothing could be freed, as long as others are at work on it. */
const MAX_RECLAIM_RETRIES = 16;

/**
 * Is it worth another try? An allocation that failed though there is memory was made to fail: nothing helps.
 * @param attempt how often the caller has asked already
 */
export function* reclaimAndRetry(kernel: Kernel, attempt: number): Sleeps<boolean> {
  if (attempt >= MAX_RECLAIM_RETRIES || kernel.buddy.freePagesCount > 0 || !canReclaim(kernel)) return false;
  const { freed, busy } = yield* scanForPages(kernel, SWAP_CLUSTER_MAX);
  if (freed > 0) return true;
  if (busy) yield SCHEDULE_POINT;
  return busy;
}

/** Reclaim until `pages` are free, or nothing more can be had: for paths that cannot when they allocate. */
export function* reclaimUntilFree(kernel: Kernel, pages: number): Sleeps<void> {
  for (;;) {
    const missing = pages - kernel.buddy.freePagesCount;
    if (missing <= 0 || !canReclaim(kernel)) return;
    const { freed } = yield* scanForPages(kernel, Math.max(missing, SWAP_CLUSTER_MAX));
    if (freed === 0) return;
  }
}

/** `alloc_page(GFP_HIGHUSER_MOVABLE)`: one page with a reference; NULL_PAGE when there is none to be had. */
export function* allocUserPage(kernel: Kernel): Sleeps<Page> {
  if (injects(kernel, 'memory-pressure')) yield* tryToFreePages(kernel, SWAP_CLUSTER_MAX);
  for (let attempt = 0; ; attempt++) {
    const page = kernel.buddy.allocPages(0);
    if (page !== NULL_PAGE || !(yield* reclaimAndRetry(kernel, attempt))) return page;
  }
}

/** `lockCachedPage()`: ENOMEM only when there is no RAM to be had. */
export function* lockFilePage(kernel: Kernel, file: VmFile, index: number, pages: () => number): Sleeps<Page | Errno> {
  for (let attempt = 0; ; attempt++) {
    const page = yield* lockCachedPage(kernel, file, index, pages);
    if (page !== 'ENOMEM' || !(yield* reclaimAndRetry(kernel, attempt))) return page;
  }
}
