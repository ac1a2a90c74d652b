/**
 * Migration entries: putting them in the place of a page's mappings, and mappings back in theirs. Linux: mm/migrate.c
 * remove_migration_ptes(), mm/rmap.c try_to_migrate().
 */
import { PAGE_SIZE } from '../abi/address.js';
import {
  makePte,
  PTE_ACCESSED,
  PTE_DIRTY,
  PTE_SOFT_DIRTY,
  PTE_UFFD_WP,
  PTE_USER_PAGE,
  PTE_WRITE,
  pteDirty,
  ptePresent,
  pteWrite,
  pteYoung,
} from '../abi/pte.js';
import {
  SWP_MIG_DIRTY,
  SWP_MIG_YOUNG,
  SWP_SOFT_DIRTY,
  SWP_UFFD_WP,
  softleafFlags,
  softleafFromPte,
  softleafToPte,
} from '../abi/softleaf.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import type { Page, Pte, SoftLeaf, VirtAddr } from '../base/brand.js';
import type { Interval } from '../base/interval-tree.js';
import { pageRefAdd } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import { getAndClearPte, readPte, setPte } from '../sync/word.js';
import type { MigrationAccess } from './addressing/addressing.js';
import type { Kernel } from './kernel.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import { isDevicePrivatePage, pageClearFlag, pageIndex, pageMapcount, pageSetFlag, pageTestFlag } from './page.js';
import { pageVmaMapped } from './page-vma-mapped.js';
import { lockTable, NO_TABLE, pteIndex, unlockTable } from './pgtable.js';
import { putPage } from './put-page.js';
import { pageAddAnonRmap, pageAnonVma, pageRemoveRmap, rmapAddress } from './rmap.js';
import { isMigrationRead, isMigrationWrite, leafKind } from './softleaf.js';
import { flushTlbRange } from './tlbflush.js';
import type { VmArea } from './vma.js';

const { PG_anon_exclusive, PG_dirty } = PAGE_FLAGS;

/**
 * The entry that stands for a mapping while its page migrates: remembers whether the page was writable, exclusive, young
 * and dirty (the dirty bit must not be lost: fd35ca3d12cc), and carries soft-dirty and uffd-wp.
 */
export function migrationPte(kernel: Kernel, page: Page, old: Pte, writable: boolean, exclusive: boolean): Pte {
  const access: MigrationAccess = writable ? 'write' : exclusive ? 'read-exclusive' : 'read';
  if (!ptePresent(old)) {
    const entry = softleafToPte(kernel.addressing.migrationEntry(page, access, 0n));
    return (entry | (old & (SWP_SOFT_DIRTY | SWP_UFFD_WP))) as Pte;
  }
  const flags = (pteYoung(old) ? SWP_MIG_YOUNG : 0n) | (pteDirty(old) ? SWP_MIG_DIRTY : 0n);
  let pte: bigint = softleafToPte(kernel.addressing.migrationEntry(page, access, flags));
  if ((old & PTE_SOFT_DIRTY) !== 0n) pte |= SWP_SOFT_DIRTY;
  if ((old & PTE_UFFD_WP) !== 0n) pte |= SWP_UFFD_WP;
  return pte as Pte;
}

/**
 * `remove_migration_ptes()`: wherever a migration entry stands for `from`, map `to`. The two are the same page when a
 * migration is called off. Precondition: both are locked.
 */
export function removeMigrationPtes(kernel: Kernel, from: Page, to: Page): void {
  const anonVma = pageAnonVma(kernel, to);
  if (anonVma === undefined) return;
  const index = pageIndex(kernel.memmap.floats, to);
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
  const old = readPte(kernel.ram.words, at);
  const entry = softleafFromPte(old);
  const kind = leafKind(kernel, entry);
  const write = isMigrationWrite(kind);
  pageRefAdd(words, to, 1);
  pageAddAnonRmap(kernel, to, !isMigrationRead(kind));
  setPte(kernel.ram.words, at, restoredPte(kernel, to, old, entry, write));
  unlockTable(kernel, table);
}

function restoredPte(kernel: Kernel, page: Page, old: Pte, entry: SoftLeaf, write: boolean): Pte {
  if (isDevicePrivatePage(kernel.memmap.words, page)) {
    const leaf = softleafToPte(kernel.addressing.devicePrivateEntry(page, write));
    return (leaf | (old & (SWP_SOFT_DIRTY | SWP_UFFD_WP))) as Pte;
  }
  const flags = softleafFlags(entry);
  let bits = PTE_USER_PAGE | (write ? PTE_WRITE : 0n);
  if ((flags & SWP_MIG_YOUNG) !== 0n) bits |= PTE_ACCESSED;
  if ((flags & SWP_MIG_DIRTY) !== 0n) bits |= PTE_DIRTY;
  if ((old & SWP_SOFT_DIRTY) !== 0n) bits |= PTE_SOFT_DIRTY;
  if ((old & SWP_UFFD_WP) !== 0n) bits |= PTE_UFFD_WP;
  return makePte(kernel.memmap.pageToPfn(page), bits);
}

/**
 * `try_to_migrate()`: replace every mapping of the page by a migration entry, telling notifiers first.
 * Precondition: the page is locked and held by the caller. It may still be mapped afterwards if a mapping came back.
 */
export function* tryToMigrate(kernel: Kernel, page: Page): Sleeps<void> {
  const anonVma = pageAnonVma(kernel, page);
  if (anonVma === undefined) return;
  const index = pageIndex(kernel.memmap.floats, page);
  let at: Interval<VmArea> | undefined = anonVma.tree.first(index, index + 1);
  for (; at !== undefined; at = anonVma.tree.next(at, index, index + 1)) {
    const vma = at.value;
    const start = rmapAddress(vma, index);
    if (pageVmaMapped(kernel, vma, start, page, 'mapped') === NO_TABLE) continue;
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
    if (vma.anonVma === anonVma) tryToMigrateOne(kernel, vma, start, page);
    mmuNotifierInvalidateRangeEnd(range);
    if (pageMapcount(kernel.memmap.words, page) === 0) return;
  }
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
  const old = getAndClearPte(kernel.ram.words, at);
  const present = ptePresent(old);
  if (present) flushTlbRange(kernel, vma.mm, addr, (addr + PAGE_SIZE) as VirtAddr);
  const writable = present ? pteWrite(old) : leafKind(kernel, softleafFromPte(old)) === 'device-private-write';
  const exclusive = pageTestFlag(words, page, PG_anon_exclusive);
  if (exclusive) pageClearFlag(words, page, PG_anon_exclusive);
  if (present && pteDirty(old)) pageSetFlag(words, page, PG_dirty);
  setPte(kernel.ram.words, at, migrationPte(kernel, page, old, writable, exclusive));
  pageRemoveRmap(kernel, page);
}
