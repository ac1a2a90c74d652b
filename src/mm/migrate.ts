/**
 * Migration entries: putting them in the place of a page's mappings, and mappings back in theirs. Linux: mm/migrate.c
 * remove_migration_ptes(), mm/rmap.c try_to_migrate().
 */
import { PAGE_SIZE } from '../abi/address.js';
import {
  HIGH_MIG_DIRTY,
  HIGH_MIG_YOUNG,
  highMigrationFlags,
  highType,
  LOW_ACCESSED,
  LOW_DIRTY,
  LOW_SOFT_DIRTY,
  LOW_SWP_SOFT_DIRTY,
  LOW_SWP_UFFD_WP,
  LOW_UFFD_WP,
  LOW_WRITE,
  leafHigh,
  leafLow,
  lowPresent,
  presentHigh,
  presentLow,
} from '../abi/pte-halves.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import type { Page, VirtAddr } from '../base/brand.js';
import type { Interval } from '../base/interval-tree.js';
import { pageRefAdd } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import { getAndClearPteLow, load32, setPteHalves } from '../sync/word.js';
import type { MigrationAccess } from './addressing/addressing.js';
import type { Kernel } from './kernel.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import {
  isDevicePrivatePage,
  pageClearFlag,
  pageIndex,
  pageIsAnon,
  pageMapcount,
  pageSetFlag,
  pageTestFlag,
} from './page.js';
import { pageVmaMapped } from './page-vma-mapped.js';
import { lockTable, NO_TABLE, pteIndex, unlockTable } from './pgtable.js';
import { putPage } from './put-page.js';
import {
  type AnonVma,
  pageAddAnonRmap,
  pageAddFileRmap,
  pageAnonVma,
  pageFileVmas,
  pageRemoveRmap,
  rmapAddress,
  rmapLeadsTo,
} from './rmap.js';
import { isMigrationRead, isMigrationWrite } from './softleaf.js';
import { flushTlbRange } from './tlbflush.js';
import { type VmArea, vmaLookup, vmaPageProt } from './vma.js';

const { PG_anon_exclusive, PG_dirty } = PAGE_FLAGS;

/**
 * Put a migration entry where `old` (its low half) mapped the page: it remembers whether the page was writable, exclusive,
 * young and dirty (the dirty bit must not be lost: fd35ca3d12cc), and carries soft-dirty and uffd-wp.
 */
export function setMigrationEntry(
  kernel: Kernel,
  at: number,
  page: Page,
  oldLow: number,
  writable: boolean,
  exclusive: boolean,
): void {
  const access: MigrationAccess = writable ? 'write' : exclusive ? 'read-exclusive' : 'read';
  const number = kernel.addressing.pageNumber(page);
  let low = oldLow & (LOW_SWP_SOFT_DIRTY | LOW_SWP_UFFD_WP);
  let flags = 0;
  if (lowPresent(oldLow)) {
    low = (oldLow & LOW_SOFT_DIRTY ? LOW_SWP_SOFT_DIRTY : 0) | (oldLow & LOW_UFFD_WP ? LOW_SWP_UFFD_WP : 0);
    flags = (oldLow & LOW_ACCESSED ? HIGH_MIG_YOUNG : 0) | (oldLow & LOW_DIRTY ? HIGH_MIG_DIRTY : 0);
  }
  const type = kernel.addressing.migrationType(page, access);
  setPteHalves(kernel.ram.words, at, leafLow(number, low), leafHigh(type, number, flags));
}

/**
 * `remove_migration_ptes()`: wherever a migration entry stands for `from`, map `to`. The two are the same page when a
 * migration is called off. Precondition: both are locked.
 */
export function removeMigrationPtes(kernel: Kernel, from: Page, to: Page): void {
  const anonVma = pageAnonVma(kernel, to);
  const index = pageIndex(kernel.memmap.floats, to);
  if (anonVma === undefined) {
    for (const vma of pageFileVmas(kernel, to)) removeMigrationPte(kernel, vma, rmapAddress(vma, index), from, to);
    return;
  }
  let at: Interval<VmArea> | undefined = anonVma.tree.first(index, index + 1);
  for (; at !== undefined; at = anonVma.tree.next(at, index, index + 1)) {
    removeMigrationPte(kernel, at.value, rmapAddress(at.value, index), from, to);
  }
}

function removeMigrationPte(kernel: Kernel, vma: VmArea, addr: VirtAddr, from: Page, to: Page): void {
  const table = pageVmaMapped(kernel, vma, addr, from, 'migration');
  if (table === NO_TABLE) return;
  const { words } = kernel.memmap;
  const at = table + pteIndex(addr);
  lockTable(kernel, table);
  const low = load32(kernel.ram.halves, 2 * at);
  const high = load32(kernel.ram.halves, 2 * at + 1);
  const kind = kernel.addressing.swapTypes.kindOf[highType(high)];
  pageRefAdd(words, to, 1);
  if (pageIsAnon(words, to)) pageAddAnonRmap(kernel, to, !isMigrationRead(kind));
  else pageAddFileRmap(kernel, to);
  restorePte(kernel, vma, at, to, low, high, isMigrationWrite(kind));
  unlockTable(kernel, table);
}

/** Map the page again, as the migration entry (given by its halves) remembers it. */
function restorePte(
  kernel: Kernel,
  vma: VmArea,
  at: number,
  page: Page,
  low: number,
  high: number,
  write: boolean,
): void {
  const { addressing, ram } = kernel;
  const number = addressing.pageNumber(page);
  if (isDevicePrivatePage(kernel.memmap.words, page)) {
    const type = addressing.devicePrivateType(write);
    const carried = low & (LOW_SWP_SOFT_DIRTY | LOW_SWP_UFFD_WP);
    setPteHalves(ram.words, at, leafLow(number, carried), leafHigh(type, number, 0));
    return;
  }
  const remembered = highMigrationFlags(high);
  const flags =
    vmaPageProt(vma) |
    (write ? LOW_WRITE : 0) |
    (remembered & HIGH_MIG_YOUNG ? LOW_ACCESSED : 0) |
    (remembered & HIGH_MIG_DIRTY ? LOW_DIRTY : 0) |
    (low & LOW_SWP_SOFT_DIRTY ? LOW_SOFT_DIRTY : 0) |
    (low & LOW_SWP_UFFD_WP ? LOW_UFFD_WP : 0);
  setPteHalves(ram.words, at, presentLow(number, flags), presentHigh(number));
}

/**
 * `try_to_migrate()`: replace every mapping of the page by a migration entry, telling notifiers first.
 * Precondition: the page is locked and held by the caller. It may still be mapped afterwards if a mapping came back.
 */
export function* tryToMigrate(kernel: Kernel, page: Page): Sleeps<void> {
  const anonVma = pageAnonVma(kernel, page);
  const index = pageIndex(kernel.memmap.floats, page);
  if (anonVma === undefined) {
    for (const vma of pageFileVmas(kernel, page)) {
      yield* tryToMigrateAt(kernel, vma, index, page, null);
      if (pageMapcount(kernel.memmap.words, page) === 0) return;
    }
    return;
  }
  let at: Interval<VmArea> | undefined = anonVma.tree.first(index, index + 1);
  for (; at !== undefined; at = anonVma.tree.next(at, index, index + 1)) {
    const vma = at.value;
    yield* tryToMigrateAt(kernel, vma, index, page, anonVma);
    if (pageMapcount(kernel.memmap.words, page) === 0) return;
  }
}

/** One VMA in which the page may be mapped, as its anon_vma said; `null` for a page of a file. */
function* tryToMigrateAt(
  kernel: Kernel,
  vma: VmArea,
  index: number,
  page: Page,
  anonVma: AnonVma | null,
): Sleeps<void> {
  const start = rmapAddress(vma, index);
  // Notifiers are told before anybody looks whether the page is mapped here: also the process that has taken it out already.
  const range: MmuNotifierRange = {
    mm: vma.mm,
    start,
    end: (start + PAGE_SIZE) as VirtAddr,
    event: 'MMU_NOTIFY_CLEAR',
    owner: null,
  };
  yield* mmuNotifierInvalidateRangeStart(range);
  // Without mmap_lock the VMA may have gone while the notifier slept, and its page tables with it. (In Linux the rmap walk
  // holds the anon_vma's lock, and munmap waits for that before it frees the tables.)
  const stillThere =
    anonVma !== null
      ? rmapLeadsTo(anonVma, index, vma, start)
      : vmaLookup(vma.mm, start) === vma && rmapAddress(vma, index) === start;
  if (stillThere) tryToMigrateOne(kernel, vma, start, page);
  mmuNotifierInvalidateRangeEnd(range);
}

function tryToMigrateOne(kernel: Kernel, vma: VmArea, addr: VirtAddr, page: Page): void {
  // The notifier may have slept: look again.
  const table = pageVmaMapped(kernel, vma, addr, page, 'mapped');
  if (table === NO_TABLE) return;
  lockTable(kernel, table);
  unmapForMigration(kernel, vma, addr, table + pteIndex(addr), page);
  unlockTable(kernel, table);
  putPage(kernel, page);
}

/**
 * Swap one mapping for a migration entry: clear, flush, remember. The caller drops the mapping's reference.
 * Precondition: page table lock held, the entry at `at` maps `page`.
 */
function unmapForMigration(kernel: Kernel, vma: VmArea, addr: VirtAddr, at: number, page: Page): void {
  const { words } = kernel.memmap;
  const high = load32(kernel.ram.halves, 2 * at + 1);
  const low = getAndClearPteLow(kernel.ram.words, at);
  const present = lowPresent(low);
  if (present) flushTlbRange(kernel, vma.mm, addr, (addr + PAGE_SIZE) as VirtAddr);
  const writable = present
    ? (low & LOW_WRITE) !== 0
    : kernel.addressing.swapTypes.kindOf[highType(high)] === 'device-private-write';
  const exclusive = pageTestFlag(words, page, PG_anon_exclusive);
  if (exclusive) pageClearFlag(words, page, PG_anon_exclusive);
  if (present && (low & LOW_DIRTY) !== 0) pageSetFlag(words, page, PG_dirty);
  setMigrationEntry(kernel, at, page, low, writable, exclusive);
  pageRemoveRmap(kernel, page);
}
