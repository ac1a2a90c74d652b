/**
 * What pages move to and how their bytes get there, whichever way a migration of this driver came about: targets in RAM, copies by
 * the device's copy engine, and what becomes of the targets when it fails. Linux: lib/test_hmm.c
 * dmirror_devmem_fault_alloc_and_copy().
 */
import { MEMORY_RAM, type MemoryId } from '../abi/device-pte.js';
import { MIGRATE_PFN_COMPOUND, MIGRATE_PFN_MIGRATE, MIGRATE_PFN_VALID, mpfnPages, mpfnSet } from '../abi/mpfn.js';
import { type Mpfn, NULL_PAGE, type Page } from '../base/brand.js';
import { assert } from '../base/errors.js';
import { allocHugeFolio } from '../mm/huge-memory.js';
import type { Kernel } from '../mm/kernel.js';
import type { MmStruct } from '../mm/mm-struct.js';
import { folioCacheReferences, isFaultFolio } from '../mm/page.js';
import { putPage } from '../mm/put-page.js';
import { folioHead, folioTrylock, folioUnlock, pageRefAdd, pageRefCount } from '../sync/page-ref.js';
import type { RwSemaphore } from '../sync/rwsem.js';
import type { Sleeps } from '../sync/task.js';
import type { CopyBatch } from './copy-batch.js';
import type { DeviceMemory } from './device-memory.js';
import type { CopyTicket, DeviceQueue } from './device-queue.js';
import type { Dmirror } from './dmirror.js';
import { BLOCK_PAGES } from './frame-allocator.js';
import type { PeerGroup } from './peer-group.js';

const MOVABLE_PAGE = MIGRATE_PFN_MIGRATE | MIGRATE_PFN_VALID;

export interface MigrationContext {
  readonly kernel: Kernel;
  readonly memory: DeviceMemory;
  readonly memoryId: MemoryId;
  readonly queue: DeviceQueue;
  /** Identity in notifications and pagemaps: the device alone, or with its peers. */
  readonly owner: PeerGroup;
  /** The device's mirrors of an address space. */
  mirrorsOf(mm: MmStruct): readonly Dmirror[];
  /** The mirror for which a page of the device was handed out, unless it is closed. */
  mirrorOfPage(page: Page): Dmirror | undefined;
  /** Held for reading while pages are evicted, for writing while the device's pagemaps go away. */
  readonly chunks: RwSemaphore;
  /** Pages that eviction has moved. */
  countEvicted(pages: number): void;
}

/** A page that may move, not a hole: it needs a page to move to. */
export const hasPageToMove = (mpfn: number): boolean => (mpfn & MOVABLE_PAGE) === MOVABLE_PAGE;

/** Pages that have moved by the word at `i`: none, one, or those of a large folio. */
export function movedPages(src: Float64Array, dst: Float64Array, i: number): number {
  if ((src[i] & MIGRATE_PFN_MIGRATE) === 0 || dst[i] === 0) return 0;
  return mpfnPages(dst[i]);
}

/** What has moved: in pages, and in folios. */
export interface Moved {
  readonly pages: number;
  readonly folios: number;
}

export function countMigrated(src: Float64Array, dst: Float64Array, npages: number): Moved {
  let pages = 0;
  let folios = 0;
  for (let i = 0; i < npages; i += mpfnPages(src[i])) {
    const moved = movedPages(src, dst, i);
    pages += moved;
    if (moved > 0) folios++;
  }
  return { pages, folios };
}

/** Pages behind the words of `src` that may migrate, huge ones counted whole. */
export function pagesToMove(src: Float64Array): number {
  let pages = 0;
  for (const word of src) if (hasPageToMove(word)) pages += mpfnPages(word);
  return pages;
}

/**
 * RAM pages for everything that may migrate, and the copies. False when RAM ran out on the way. What is on a peer that is lost
 * stays.
 * @param singly the first large folio gets single pages, as if there were no block for it
 */
export function allocSystemPages(
  ctx: MigrationContext,
  src: Float64Array,
  dst: Float64Array,
  npages: number,
  batch: CopyBatch,
  singly = false,
): boolean {
  const { kernel, memory, memoryId, owner } = ctx;
  const { addressing, memmap, buddy } = kernel;
  const canMove = (i: number): boolean =>
    hasPageToMove(src[i]) && (!owner.shared || owner.placeOf(addressing.migratePfnToPage(src[i] as Mpfn)) !== null);
  const copyHome = (source: Page, target: Page, pages: number): void => {
    const peer = owner.shared ? owner.placeOf(source) : null;
    const frame = peer?.frame ?? memory.frameOf(source);
    batch.copy(peer?.memory ?? memoryId, frame, source, MEMORY_RAM, memmap.ramFrame(target), target, pages);
  };
  let wanted = 0;
  let refuse = singly;
  for (let i = 0; i < npages; i += mpfnPages(src[i])) {
    if (!canMove(i)) continue;
    if ((src[i] & MIGRATE_PFN_COMPOUND) === 0) {
      wanted++;
      continue;
    }
    const folio = refuse ? NULL_PAGE : allocHugeFolio(kernel);
    refuse = false;
    if (folio === NULL_PAGE) {
      wanted += BLOCK_PAGES;
    } else {
      assert(folioTrylock(memmap.words, folio), 'fresh folio is locked');
      dst[i] = mpfnSet(addressing.migratePfnFromPage(folio), MIGRATE_PFN_COMPOUND);
      copyHome(addressing.migratePfnToPage(src[i] as Mpfn), folio, BLOCK_PAGES);
    }
  }
  const targets = new Float64Array(wanted);
  const allocated = buddy.allocBulk(wanted, targets);
  for (let i = 0, used = 0; i < npages && used < allocated; i += mpfnPages(src[i])) {
    const mpfn = src[i] as Mpfn;
    if (!canMove(i) || dst[i] !== 0) continue;
    const first = addressing.migratePfnToPage(mpfn);
    const pages = mpfnPages(mpfn);
    for (let j = 0; j < pages && used < allocated; j++) {
      const source = (first + j) as Page;
      const target = targets[used++] as Page;
      assert(folioTrylock(memmap.words, target), 'fresh page is locked');
      dst[i + j] = addressing.migratePfnFromPage(target);
      copyHome(source, target, 1);
    }
  }
  return allocated === wanted;
}

/** Copy, and wait for it. False: it failed; what was allocated has gone back, and the pages stay where they are. */
export function* copyPages(
  ctx: MigrationContext,
  batch: CopyBatch,
  dsts: readonly Float64Array[],
  faultPage: Page,
): Sleeps<boolean> {
  if (!ctx.kernel.sites.canary) batch.runs.length = 0;
  return yield* awaitCopies(ctx, yield* ctx.queue.send(batch), dsts, faultPage);
}

/** The second half of `copyPages`, for a batch that was sent before. */
export function* awaitCopies(
  ctx: MigrationContext,
  ticket: CopyTicket,
  dsts: readonly Float64Array[],
  faultPage: Page,
): Sleeps<boolean> {
  const { kernel, queue } = ctx;
  if (yield* queue.copied(ticket)) return true;
  if (queue.lost) reclaimReferences(kernel, ticket, queue.copiesDone, faultPage);
  for (const dst of dsts) dropTargets(kernel, dst);
  return false;
}

/**
 * A copy engine that dies does not drop the references that it took: one on each page of the run that it was at. The pages of a
 * migration are locked and unmapped, so who holds them is known: the migration, the CPU fault that asked for it, and a page cache,
 * whose page others may have found and wait for.
 * @param done sequence number of the last run that was done
 */
function reclaimReferences(kernel: Kernel, { batch }: CopyTicket, done: number, faultPage: Page): void {
  const { words } = kernel.memmap;
  for (const { sourcePage, targetPage, pages, sequence } of batch.runs) {
    if (sequence === 0 || (sequence | 0) !== ((done + 1) | 0)) continue;
    for (let i = 0; i < pages; i++) {
      const source = (sourcePage + i) as Page;
      const target = (targetPage + i) as Page;
      if (sourcePage !== NULL_PAGE && pageRefCount(words, source) > holders(words, source, faultPage)) {
        pageRefAdd(words, source, -1);
      }
      pageRefAdd(words, target, 1 - pageRefCount(words, target));
    }
  }
}

/** References on a page of a migration, if nobody waits for it. */
function holders(words: Int32Array, page: Page, faultPage: Page): number {
  return (isFaultFolio(words, folioHead(words, page), faultPage) ? 2 : 1) + folioCacheReferences(words, page);
}

function dropTargets(kernel: Kernel, dst: Float64Array): void {
  for (let i = 0; i < dst.length; i++) {
    const page = kernel.addressing.migratePfnToPage(dst[i] as Mpfn);
    dst[i] = 0;
    if (page === NULL_PAGE) continue;
    folioUnlock(kernel.memmap.words, page);
    putPage(kernel, page);
  }
}
