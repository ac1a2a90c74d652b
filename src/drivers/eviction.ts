/**
 * Making room on a device: the pages of a block go home, whoever maps them. Linux: lib/test_hmm.c dmirror_device_evict_chunk(),
 * drivers/gpu/drm/nouveau/nouveau_dmem.c nouveau_dmem_evict_chunk().
 */
import { PAGE_SIZE } from '../abi/address.js';
import { MIGRATE_PFN_DEVICE_PRIVATE, mpfnClear } from '../abi/mpfn.js';
import { NULL_PAGE, type Page } from '../base/brand.js';
import { assert } from '../base/errors.js';
import { injects } from '../base/injection.js';
import { reclaimUntilFree } from '../mm/alloc.js';
import type { Kernel } from '../mm/kernel.js';
import { migrateDeviceRange } from '../mm/migrate-device/device.js';
import { migrateDeviceFinalize } from '../mm/migrate-device/finalize.js';
import { migrateDevicePages } from '../mm/migrate-device/pages.js';
import { folioOrder, isLargeFolio, pageIndex } from '../mm/page.js';
import { putPage } from '../mm/put-page.js';
import { pageAnonVma, rmapAddress } from '../mm/rmap.js';
import { splitFolio } from '../mm/split-folio.js';
import { folioTrylock, folioUnlock, getPageUnlessZero } from '../sync/page-ref.js';
import { type Sleeps, together } from '../sync/task.js';
import { CopyBatch } from './copy-batch.js';
import type { Dmirror } from './dmirror.js';
import { BLOCK_PAGES } from './frame-allocator.js';
import { allocSystemPages, copyPages, countMigrated, type MigrationContext } from './migration-targets.js';

/** Blocks that eviction tries before it gives up: each may be held by somebody else at the moment. */
const EVICT_ATTEMPTS = 8;

/** A device page that others had to leave for. NULL_PAGE when nothing can be evicted either. */
export function* evictForPage(ctx: MigrationContext, mirror: number): Sleeps<Page> {
  for (let attempt = 0; attempt < EVICT_ATTEMPTS; attempt++) {
    yield* reclaimUntilFree(ctx.kernel, 1);
    // Without RAM to go to, pages would be unmapped and mapped again for nothing.
    if (ctx.kernel.buddy.freePagesCount === 0) return NULL_PAGE;
    const block = ctx.memory.oldestBlock();
    if (block === null) return NULL_PAGE;
    const evicted = yield* evict(ctx, block.first, block.pages);
    const freed = ctx.memory.allocPage(mirror);
    if (freed !== NULL_PAGE) return freed;
    if (evicted === 0) ctx.memory.postpone(block.first);
  }
  return NULL_PAGE;
}

/** Bring the pages of a block home, whoever maps them. Returns how many moved: pages that others hold stay. */
export function* evict(ctx: MigrationContext, first: Page, pages: number): Sleeps<number> {
  if (injects(ctx.kernel, 'eviction-fails')) return 0;
  // What has just come for a fault is used first, or two lanes that want more than there is room for evict each other for ever.
  if (ctx.kernel.sites.replaysFirst) yield* ctx.queue.waitReplays();
  yield* ctx.chunks.downRead();
  try {
    // Whoever found the block may have slept since, and its memory may be gone.
    return ctx.memory.owns(first) ? yield* evictBlock(ctx, first, pages) : 0;
  } finally {
    ctx.chunks.upRead();
  }
}

/** Precondition: the chunks stay. */
function* evictBlock(ctx: MigrationContext, first: Page, pages: number): Sleeps<number> {
  const { kernel } = ctx;
  assert(pages <= BLOCK_PAGES, 'eviction of more than a block');
  yield* unmapFromDevice(ctx, first, pages);
  yield* reclaimUntilFree(kernel, pages);
  if (!kernel.buddy.has(folioOrder(kernel.memmap.words, first))) yield* splitForEviction(kernel, first);
  const src = new Float64Array(pages);
  const dst = new Float64Array(pages);
  const start = kernel.addressing.migratePfnFromPage(first);
  const word = kernel.sites.evictKind ? start : mpfnClear(start, MIGRATE_PFN_DEVICE_PRIVATE);
  yield* migrateDeviceRange(kernel, src, word, pages);
  const batch = new CopyBatch();
  allocSystemPages(ctx, src, dst, pages, batch);
  yield* copyPages(ctx, batch, [dst], NULL_PAGE);
  yield* migrateDevicePages(kernel, src, dst, pages, null);
  const { pages: migrated } = countMigrated(src, dst, pages);
  migrateDeviceFinalize(kernel, src, dst, pages, NULL_PAGE);
  ctx.countEvicted(migrated);
  return migrated;
}

/** RAM has no room for a large folio as one: its pages shall go one by one. Who holds it keeps it here. */
function* splitForEviction(kernel: Kernel, folio: Page): Sleeps<void> {
  const { words } = kernel.memmap;
  if (!isLargeFolio(words, folio) || !getPageUnlessZero(words, folio)) return;
  if (folioTrylock(words, folio)) {
    yield* splitFolio(kernel, folio, folio);
    folioUnlock(words, folio);
  }
  putPage(kernel, folio);
}

/**
 * Take a block's pages out of the device page tables in one go. Only to save time: the notifications of the eviction would do
 * it page by page, and still do for what comes back meanwhile.
 */
function* unmapFromDevice(ctx: MigrationContext, first: Page, pages: number): Sleeps<void> {
  const { kernel } = ctx;
  const touched = new Map<Dmirror, { start: number; end: number }>();
  for (let page = first; page < first + pages; page++) {
    const anonVma = pageAnonVma(kernel, page);
    if (anonVma === undefined) continue;
    const index = pageIndex(kernel.memmap.words, kernel.memmap.floats, page);
    for (
      let at = anonVma.tree.first(index, index + 1);
      at !== undefined;
      at = anonVma.tree.next(at, index, index + 1)
    ) {
      const addr = rmapAddress(at.value, index);
      for (const mirror of ctx.mirrorsOf(at.value.mm)) {
        if (mirror.clear(addr, addr + PAGE_SIZE) === 0) continue;
        const span = touched.get(mirror);
        touched.set(mirror, {
          start: Math.min(span?.start ?? addr, addr),
          end: Math.max(span?.end ?? 0, addr + PAGE_SIZE),
        });
      }
    }
  }
  // The device is told at once of what every mirror has lost: who invalidates meanwhile finds nothing there, and waits for what was sent.
  yield* together([...touched].map(([mirror, { start, end }]) => mirror.flush(start, end)));
}

/** 2 MiB of device memory, for which others may have to leave; NULL_PAGE when there is no such block. */
export function* allocDeviceFolio(ctx: MigrationContext, mirror: number): Sleeps<Page> {
  const folio = ctx.memory.allocFolio(mirror);
  if (folio !== NULL_PAGE) return folio;
  const block = ctx.kernel.buddy.freePagesCount === 0 ? null : ctx.memory.oldestBlock();
  if (block === null) return NULL_PAGE;
  yield* evict(ctx, block.first, block.pages);
  return ctx.memory.allocFolio(mirror);
}
