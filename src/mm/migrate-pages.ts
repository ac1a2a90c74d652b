/**
 * A page of RAM moves to another frame, and nobody notices. Linux: mm/migrate.c migrate_pages(), move_to_new_folio(), of one page.
 *
 *   the page is                what goes with its bytes
 *   anonymous                  its anon_vma and page offset
 *   in the swap cache          its slot
 *   of a file                  its place in the page cache: shared memory, and files with contents of their own
 *
 * Who maps it waits for the end of the move at a migration entry, who finds it in a cache for its lock. Not modelled: large folios
 * (whoever asks has them come apart first), private data of a file system, moves by devices' engines.
 */
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { NULL_PAGE, type Page } from '../base/brand.js';
import { injects } from '../base/injection.js';
import { folioTrylock, folioUnlock, pageRefCount } from '../sync/page-ref.js';
import { SCHEDULE_POINT, type Sleeps } from '../sync/task.js';
import { allocUserPage } from './alloc.js';
import { folioLock, migrateInPageCache } from './filemap.js';
import { copyHighpage } from './highmem.js';
import type { Kernel } from './kernel.js';
import { removeMigrationPtes, tryToMigrate } from './migrate.js';
import {
  folioCacheReferences,
  pageFileId,
  pageMapcount,
  pageMigrateIdentity,
  pageSetFlag,
  pageTestFlag,
} from './page.js';
import { waitForWriteback } from './page-writeback.js';
import { putPage } from './put-page.js';
import { migrateInSwapCache, putUnmappedPage } from './swap-state.js';

const { PG_lru, PG_swapcache } = PAGE_FLAGS;

/** How often a page is tried that somebody holds: once in passing (MIGRATE_ASYNC), and once more (MIGRATE_SYNC). */
const PASSES = 2;

/**
 * `migrate_pages()` of one page. Precondition: it is single, isolated, and held once by the caller, who is all that is left with it when
 * it has moved.
 * @returns EBUSY: somebody else holds it; ENOMEM. It is then where it was.
 */
export function* migratePages(kernel: Kernel, page: Page): Sleeps<0 | 'EBUSY' | 'ENOMEM'> {
  for (let pass = 0; pass < PASSES; pass++) {
    const target = yield* allocUserPage(kernel);
    if (target === NULL_PAGE) return 'ENOMEM';
    if (yield* moveTo(kernel, page, target)) return 0;
    if (kernel.options.preempt()) yield SCHEDULE_POINT;
  }
  return 'EBUSY';
}

/** `migrate_folio_unmap()`, `migrate_folio_move()`. The reference on the fresh `target` is gone afterwards. */
function* moveTo(kernel: Kernel, page: Page, target: Page): Sleeps<boolean> {
  const { words } = kernel.memmap;
  folioTrylock(words, target);
  yield* folioLock(kernel, page);
  yield* waitForWriteback(kernel, page);
  if (pageMapcount(words, page) > 0) yield* tryToMigrate(kernel, page);
  const moved = pageMapcount(words, page) === 0 && takePlace(kernel, page, target);
  if (moved) pageSetFlag(words, target, PG_lru);
  removeMigrationPtes(kernel, page, moved ? target : page);
  folioUnlock(words, page);
  folioUnlock(words, target);
  if (moved) putUnmappedPage(kernel, target);
  else putPage(kernel, target);
  return moved;
}

/**
 * `migrate_folio()`: false when somebody holds the page beside us and its cache. It is one step, so nobody can take a reference in between
 * (Linux freezes the count). Precondition: both are locked, nobody maps either.
 */
function takePlace(kernel: Kernel, page: Page, target: Page): boolean {
  const { words, floats } = kernel.memmap;
  if (injects(kernel, 'migration-refused')) return false;
  if (pageRefCount(words, page) !== 1 + folioCacheReferences(words, page)) return false;
  copyHighpage(kernel, target, page);
  pageMigrateIdentity(words, floats, page, target);
  if (pageTestFlag(words, page, PG_swapcache)) migrateInSwapCache(kernel, page, target);
  else if (pageFileId(words, page) !== 0) migrateInPageCache(kernel, page, target);
  return true;
}
