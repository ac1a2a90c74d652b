/** Migration entries, of either level: writing one, and waiting until it has gone. Linux: mm/rmap.c try_to_migrate_one(), mm/migrate.c. */

import {
  carriedToLeaf,
  carriedToPresent,
  HIGH_MIG_DIRTY,
  HIGH_MIG_YOUNG,
  highMigrationFlags,
  LOW_ACCESSED,
  LOW_DIRTY,
  LOW_WRITE,
  leafHigh,
  leafLow,
  lowPresent,
} from '../abi/pte-halves.js';
import { softleafFromPte } from '../abi/softleaf.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import type { Page, Pte } from '../base/brand.js';
import { folioLocked } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import { readPte, setPteHalves } from '../sync/word.js';
import type { MigrationAccess } from './addressing/addressing.js';
import type { Kernel } from './kernel.js';
import { pageTestFlag } from './page.js';
import { isMigration, leafKind } from './softleaf.js';

/**
 * Put a migration entry where `old` (its low half) mapped the page: it remembers whether the page was writable, exclusive,
 * young and dirty (the dirty bit must not be lost: fd35ca3d12cc), and carries soft-dirty and uffd-wp.
 * @param familyByPage false: the plain family, which is wrong for a device private page under the series
 */
export function setMigrationEntry(
  kernel: Kernel,
  at: number,
  page: Page,
  oldLow: number,
  writable: boolean,
  exclusive: boolean,
  familyByPage: boolean,
): void {
  const access: MigrationAccess = writable ? 'write' : exclusive ? 'read-exclusive' : 'read';
  const number = kernel.addressing.pageNumber(page);
  const remembered = (oldLow & LOW_ACCESSED ? HIGH_MIG_YOUNG : 0) | (oldLow & LOW_DIRTY ? HIGH_MIG_DIRTY : 0);
  // An entry that is not present has other bits in these places.
  const flags = lowPresent(oldLow) ? remembered : 0;
  const { addressing } = kernel;
  const type = familyByPage ? addressing.migrationType(page, access) : addressing.plainMigrationType(access);
  setPteHalves(kernel.ram.words, at, leafLow(number, carriedToLeaf(oldLow)), leafHigh(type, number, flags));
}

/**
 * Flags of the present entry that comes where a migration entry (its halves) stood for `page`: what `setMigrationEntry` remembered, dirty
 * only if the page is.
 */
export function restoredFlags(words: Int32Array, page: Page, low: number, high: number, write: boolean): number {
  const remembered = highMigrationFlags(high);
  const dirty = (remembered & HIGH_MIG_DIRTY) !== 0 && pageTestFlag(words, page, PAGE_FLAGS.PG_dirty);
  return (
    (write ? LOW_WRITE : 0) |
    (remembered & HIGH_MIG_YOUNG ? LOW_ACCESSED : 0) |
    (dirty ? LOW_DIRTY : 0) |
    carriedToPresent(low)
  );
}

/**
 * `migration_entry_wait()`: until the page is unlocked or the entry has changed. Entries are restored before their page is unlocked, so
 * one of an unlocked page is left for ever: Linux faults on it again and again, here it is waited for.
 */
export function* migrationEntryWait(kernel: Kernel, at: number, page: Page, pte: Pte): Sleeps<void> {
  const { words } = kernel.memmap;
  const changed = (): boolean => readPte(kernel.ram.words, at) !== pte;
  if (!folioLocked(words, page) && isMigration(kernel, leafKind(kernel, softleafFromPte(pte)))) {
    const what = `migration entry of page ${page}, which nobody migrates`;
    while (!changed()) yield { what, ready: changed };
    return;
  }
  const ready = (): boolean => !folioLocked(words, page) || changed();
  while (!ready()) yield { what: `end of the migration of page ${page}`, ready };
}
