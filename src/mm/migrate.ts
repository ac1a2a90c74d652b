/**
 * Migration entries: putting them in the place of a page's mappings, and mappings back in theirs. Linux: mm/migrate.c
 * remove_migration_ptes(), mm/rmap.c try_to_migrate().
 */
import { PAGE_SIZE } from '../abi/address.js';
import {
  carriedToLeaf,
  carriedToPresent,
  highType,
  LOW_ACCESSED,
  LOW_DIRTY,
  LOW_SPECIAL,
  LOW_WRITE,
  leafHigh,
  leafLow,
  lowPresent,
  presentHigh,
  presentLow,
} from '../abi/pte-halves.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import type { Page, Pfn, VirtAddr } from '../base/brand.js';
import type { Interval } from '../base/interval-tree.js';
import { pageRefAdd } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import { getAndClearPteLow, peek32, setPteHalves } from '../sync/word.js';
import {
  findHugePmd,
  isHugeAligned,
  pageOfPmd,
  removeMigrationPmd,
  setPmdMigrationEntry,
  splitHugePmdLocked,
} from './huge-pmd.js';
import type { Kernel } from './kernel.js';
import { restoredFlags, setMigrationEntry } from './migration-entry.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import {
  folioMapcount,
  folioNrPages,
  isDevicePrivatePage,
  isLargeFolio,
  pageClearFlag,
  pageIndex,
  pageIsAnon,
  pageMarkDirty,
  pageTestFlag,
} from './page.js';
import { pageVmaMapped, type WalkMode } from './page-vma-mapped.js';
import { lockTable, NO_TABLE, pteIndex, tableOf, unlockTable } from './pgtable.js';
import { putPage } from './put-page.js';
import {
  type AnonVma,
  devicePageMlock,
  endMapped,
  fileRmapLeadsTo,
  firstMapped,
  pageAddAnonRmap,
  pageAddFileRmap,
  pageAnonVma,
  pageFileVmas,
  pageRemoveRmap,
  rmapAddress,
  rmapLeadsTo,
} from './rmap.js';
import { isDevicePrivate, isMigration, isMigrationRead, isMigrationWrite, isOfPrivate } from './softleaf.js';
import { flushTlbRange } from './tlbflush.js';
import { VM_LOCKED, type VmArea, vmaPageProt } from './vma.js';

const { PG_anon_exclusive, PG_hwpoison } = PAGE_FLAGS;

/**
 * `remove_migration_ptes()`: wherever a migration entry stands for `from` (or for one of its pages, if it is a large folio), map
 * `to`. The two are the same when a migration is called off. Precondition: both are locked.
 * @param useZeroPage where the page holds nothing but zeroes, map the zero page instead (RMP_USE_SHARED_ZEROPAGE)
 */
export function removeMigrationPtes(kernel: Kernel, from: Page, to: Page, useZeroPage = false): void {
  pageRefAdd(kernel.memmap.words, to, restoreMappings(kernel, from, to, useZeroPage));
}

/**
 * The same, but for the references: returns how many mappings there are now, each of which has to have one. Whoever holds some that it
 * needs no more hands them over (as `migrate_device_finalize()` could), which is cheaper than new ones.
 */
export function restoreMappings(kernel: Kernel, from: Page, to: Page, useZeroPage = false): number {
  const { words, floats } = kernel.memmap;
  let mapped = 0;
  const anonVma = pageAnonVma(kernel, to);
  const index = pageIndex(words, floats, to);
  const pages = folioNrPages(words, to);
  if (anonVma === undefined) {
    for (const vma of pageFileVmas(kernel, to)) mapped += restoreIn(kernel, vma, index, pages, from, to, false);
    return mapped;
  }
  let at: Interval<VmArea> | undefined = anonVma.tree.first(index, index + pages);
  for (; at !== undefined; at = anonVma.tree.next(at, index, index + pages)) {
    mapped += restoreIn(kernel, at.value, index, pages, from, to, useZeroPage);
  }
  return mapped;
}

/** In one VMA. `index`: the folio's first page offset. */
function restoreIn(
  kernel: Kernel,
  vma: VmArea,
  index: number,
  pages: number,
  from: Page,
  to: Page,
  useZeroPage: boolean,
): number {
  if (pages === 1) return removeMigrationPte(kernel, vma, rmapAddress(vma, index), from, to, useZeroPage);
  if (restoreHuge(kernel, vma, index, from, to)) return 1;
  let mapped = 0;
  for (let i = firstMapped(vma, index); i < endMapped(vma, index, pages); i++) {
    mapped += removeMigrationPte(kernel, vma, rmapAddress(vma, index + i), (from + i) as Page, (to + i) as Page, false);
  }
  return mapped;
}

/** Is the folio behind a huge entry of the VMA? Then map it so again. */
function restoreHuge(kernel: Kernel, vma: VmArea, index: number, from: Page, to: Page): boolean {
  const at = hugePmdOf(kernel, vma, index, from, 'migration');
  if (at === NO_TABLE) return false;
  lockTable(kernel, tableOf(at));
  removeMigrationPmd(kernel, vma, at, to);
  unlockTable(kernel, tableOf(at));
  return true;
}

/** Returns how many mappings came back: one or none. */
function removeMigrationPte(
  kernel: Kernel,
  vma: VmArea,
  addr: VirtAddr,
  from: Page,
  to: Page,
  useZeroPage: boolean,
): 0 | 1 {
  const { addressing, memmap, sites } = kernel;
  const sought = sites.migrationWalkKind ? from : memmap.pfnToPage(addressing.pageNumber(from) as Pfn);
  const table = pageVmaMapped(kernel, vma, addr, sought, 'migration');
  if (table === NO_TABLE) return 0;
  const { words } = memmap;
  const at = table + pteIndex(addr);
  lockTable(kernel, table);
  const low = peek32(kernel.ram.halves, 2 * at);
  const high = peek32(kernel.ram.halves, 2 * at + 1);
  const isZero = useZeroPage && mayBeZeroPage(kernel, vma, to);
  if (isZero) {
    mapZeroPage(kernel, vma, at, low);
  } else {
    const kind = addressing.swapTypes.kindOf[highType(high)];
    if (pageIsAnon(words, to)) pageAddAnonRmap(kernel, to, !isMigrationRead(kernel, kind));
    else pageAddFileRmap(kernel, to);
    if (!isLargeFolio(words, to)) devicePageMlock(kernel, to, vma);
    restorePte(kernel, vma, at, to, low, high, isMigrationWrite(kernel, kind));
  }
  unlockTable(kernel, table);
  return isZero ? 0 : 1;
}

/** `try_to_map_unused_to_zeropage()`: what has failed may look like zeroes only, and what is locked is to stay. */
const mayBeZeroPage = ({ memmap, ram }: Kernel, { flags }: VmArea, page: Page): boolean =>
  !pageTestFlag(memmap.words, page, PG_hwpoison) && (flags & VM_LOCKED) === 0 && ram.isZero(memmap.ramFrame(page));

function mapZeroPage(kernel: Kernel, vma: VmArea, at: number, low: number): void {
  const flags = vmaPageProt(vma) | LOW_SPECIAL | LOW_ACCESSED | carriedToPresent(low);
  setPteHalves(kernel.ram.words, at, presentLow(kernel.zeroPfn, flags), presentHigh(kernel.zeroPfn));
  vma.mm.rssAnon--;
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
  const { addressing, ram, sites } = kernel;
  const number = sites.removeMigrationPteNumber ? addressing.pageNumber(page) : kernel.memmap.pageToPfn(page);
  if (isDevicePrivatePage(kernel.memmap.words, page)) {
    const type = addressing.devicePrivateType(write);
    setPteHalves(ram.words, at, leafLow(number, carriedToLeaf(low)), leafHigh(type, number, 0));
    return;
  }
  const flags = vmaPageProt(vma) | restoredFlags(kernel.memmap.words, page, low, high, write);
  setPteHalves(ram.words, at, presentLow(number, flags), presentHigh(number));
}

/**
 * `try_to_migrate()`: replace every mapping of the folio by migration entries, telling notifiers first.
 * Precondition: the folio is locked and held by the caller. It may still be mapped afterwards if a mapping came back.
 * @param splitHuge huge entries become small ones (TTU_SPLIT_HUGE_PMD)
 */
export function* tryToMigrate(kernel: Kernel, folio: Page, splitHuge = false): Sleeps<void> {
  const { words, floats } = kernel.memmap;
  const anonVma = pageAnonVma(kernel, folio);
  const index = pageIndex(words, floats, folio);
  if (anonVma === undefined) {
    for (const vma of pageFileVmas(kernel, folio)) {
      yield* tryToMigrateAt(kernel, vma, index, folio, null, splitHuge);
      if (folioMapcount(words, folio) === 0) return;
    }
    return;
  }
  const pages = folioNrPages(words, folio);
  let at: Interval<VmArea> | undefined = anonVma.tree.first(index, index + pages);
  for (; at !== undefined; at = anonVma.tree.next(at, index, index + pages)) {
    yield* tryToMigrateAt(kernel, at.value, index, folio, anonVma, splitHuge);
    if (folioMapcount(words, folio) === 0) return;
  }
}

/** One VMA in which the folio may be mapped, as its anon_vma said; `null` for a page of a file. */
function* tryToMigrateAt(
  kernel: Kernel,
  vma: VmArea,
  index: number,
  folio: Page,
  anonVma: AnonVma | null,
  splitHuge: boolean,
): Sleeps<void> {
  const first = firstMapped(vma, index);
  const end = endMapped(vma, index, folioNrPages(kernel.memmap.words, folio));
  const start = rmapAddress(vma, index + first);
  // Notifiers are told before anybody looks whether the page is mapped here: also the process that has taken it out already.
  const range: MmuNotifierRange = {
    mm: vma.mm,
    start,
    end: rmapAddress(vma, index + end),
    event: 'MMU_NOTIFY_CLEAR',
    owner: null,
  };
  yield* mmuNotifierInvalidateRangeStart(range);
  // Without mmap_lock the VMA may have gone while the notifier slept, and its page tables with it. (In Linux the rmap walk
  // holds the anon_vma's lock, and munmap waits for that before it frees the tables.)
  const stillThere =
    anonVma !== null ? rmapLeadsTo(anonVma, index + first, vma, start) : fileRmapLeadsTo(index + first, vma, start);
  if (stillThere && !unmapHuge(kernel, vma, index, folio, splitHuge)) {
    const stop = Math.min(end, endMapped(vma, index, end));
    for (let i = first; i < stop; i++) {
      tryToMigrateOne(kernel, vma, rmapAddress(vma, index + i), (folio + i) as Page);
    }
  }
  mmuNotifierInvalidateRangeEnd(range);
}

/** Where the VMA maps a large folio by a huge entry: take that away. False: there is none, or small ones are left. */
function unmapHuge(kernel: Kernel, vma: VmArea, index: number, folio: Page, splitHuge: boolean): boolean {
  if (!isLargeFolio(kernel.memmap.words, folio)) return false;
  const at = hugePmdOf(kernel, vma, index, folio, 'mapped');
  if (at === NO_TABLE) return false;
  const addr = rmapAddress(vma, index);
  lockTable(kernel, tableOf(at));
  if (splitHuge) splitHugePmdLocked(kernel, vma, at, addr, true);
  const unmapped = !splitHuge && setPmdMigrationEntry(kernel, vma, addr, at, folio);
  unlockTable(kernel, tableOf(at));
  if (unmapped) putPage(kernel, folio);
  return !splitHuge;
}

/**
 * Wherever a huge migration entry stands for the folio, in whichever process, small ones take its place. Linux's
 * migrate_vma_split_unmapped_folio() does so in the VMA of the migration only: of a folio that fork has shared, the other processes'
 * huge entries would name the first of its single pages for ever. Precondition: the folio is locked, nothing else maps it.
 */
export function splitMigrationPmds(kernel: Kernel, folio: Page): void {
  const index = pageIndex(kernel.memmap.words, kernel.memmap.floats, folio);
  const tree = pageAnonVma(kernel, folio)?.tree;
  for (const { value: vma } of tree?.overlapping(index, index + folioNrPages(kernel.memmap.words, folio)) ?? []) {
    const at = hugePmdOf(kernel, vma, index, folio, 'migration');
    if (at === NO_TABLE) continue;
    lockTable(kernel, tableOf(at));
    splitHugePmdLocked(kernel, vma, at, rmapAddress(vma, index), true);
    unlockTable(kernel, tableOf(at));
  }
}

/** Place of the huge entry by which the VMA maps the folio (or had mapped it), NO_TABLE for none. */
function hugePmdOf(kernel: Kernel, vma: VmArea, index: number, folio: Page, mode: WalkMode): number {
  const addr = rmapAddress(vma, index);
  if (addr < vma.start || !isHugeAligned(addr)) return NO_TABLE;
  const at = findHugePmd(kernel, vma.mm, addr);
  if (at === NO_TABLE) return NO_TABLE;
  const low = peek32(kernel.ram.halves, 2 * at);
  const high = peek32(kernel.ram.halves, 2 * at + 1);
  const kind = lowPresent(low) ? null : kernel.addressing.swapTypes.kindOf[highType(high)];
  if (kind !== null && isDevicePrivate(kind)) {
    const { pmdWalkMigration, pmdWalkNumber } = kernel.sites;
    if (!(mode === 'migration' ? pmdWalkMigration : pmdWalkNumber)) return at;
  }
  const migrating =
    kind !== null && isMigration(kernel, kind) && (kernel.sites.checkPmdMigration || !isOfPrivate(kind));
  return migrating === (mode === 'migration') && pageOfPmd(kernel, low, high) === folio ? at : NO_TABLE;
}

function tryToMigrateOne(kernel: Kernel, vma: VmArea, addr: VirtAddr, page: Page): void {
  const { addressing, memmap, sites } = kernel;
  const number = addressing.pageNumber(page);
  // The notifier may have slept: look again.
  const sought = sites.walkKeepsKind ? page : memmap.pfnToPage(number as Pfn);
  const table = pageVmaMapped(kernel, vma, addr, sought, 'mapped');
  if (table === NO_TABLE) return;
  const subpage = sites.subpageByKind ? page : ((page + number - memmap.pageToPfn(page)) as Page);
  lockTable(kernel, table);
  unmapForMigration(kernel, vma, addr, table + pteIndex(addr), subpage);
  unlockTable(kernel, table);
  putPage(kernel, page);
}

/**
 * Swap one mapping for a migration entry: clear, flush, remember. The caller drops the mapping's reference.
 * Precondition: page table lock held, the entry at `at` maps `page`.
 */
function unmapForMigration(kernel: Kernel, vma: VmArea, addr: VirtAddr, at: number, page: Page): void {
  const { words } = kernel.memmap;
  const high = peek32(kernel.ram.halves, 2 * at + 1);
  const low = getAndClearPteLow(kernel.ram.words, at);
  const present = lowPresent(low);
  if (present) flushTlbRange(kernel, vma.mm, addr, (addr + PAGE_SIZE) as VirtAddr);
  const writable = present
    ? (low & LOW_WRITE) !== 0
    : kernel.addressing.swapTypes.kindOf[highType(high)] === 'device-private-write';
  const exclusive = pageTestFlag(words, page, PG_anon_exclusive);
  if (exclusive) pageClearFlag(words, page, PG_anon_exclusive);
  if (present && (low & LOW_DIRTY) !== 0) pageMarkDirty(words, page);
  setMigrationEntry(kernel, at, page, low, writable, exclusive, kernel.sites.tryToMigrateFamily);
  pageRemoveRmap(kernel, page);
}
