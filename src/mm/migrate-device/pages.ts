/** Phase 3, **pages**: the new page takes the old one's identity. Linux: migrate_vma_pages(), migrate_device_pages(). */
import { HPAGE_PMD_NR, PAGE_SIZE, PMD_SIZE } from '../../abi/address.js';
import {
  MIGRATE_PFN_COMPOUND,
  MIGRATE_PFN_MIGRATE,
  MIGRATE_PFN_WRITE,
  migratePfn,
  mpfnClear,
  mpfnNumber,
  mpfnPages,
  mpfnSet,
} from '../../abi/mpfn.js';
import {
  LOW_ACCESSED,
  LOW_MKDIRTY,
  LOW_SPECIAL,
  LOW_WRITE,
  leafHigh,
  leafLow,
  lowPresent,
  presentHigh,
  presentLow,
} from '../../abi/pte-halves.js';
import { PAGE_FLAGS } from '../../abi/struct-page.js';
import { type Mpfn, NULL_PAGE, type Page, type Pfn, type VirtAddr } from '../../base/brand.js';
import { assert } from '../../base/errors.js';
import { injects } from '../../base/injection.js';
import { pageRefAdd, pageRefCount } from '../../sync/page-ref.js';
import type { Sleeps } from '../../sync/task.js';
import { peek32, setPteHalves } from '../../sync/word.js';
import { hugeFits } from '../huge-memory.js';
import { allocDeposit, findHugePmd, isHugeZero, setHugePresent, splitHugePmd } from '../huge-pmd.js';
import type { Kernel } from '../kernel.js';
import { splitMigrationPmds } from '../migrate.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from '../mmu-notifier.js';
import {
  accountToNode,
  folioNrPages,
  isDeviceCoherentPage,
  isDevicePrivatePage,
  isFaultFolio,
  isZoneDevicePage,
  pageAnonVmaId,
  pageMigrateIdentity,
  pageSetFlag,
  pageTestFlag,
} from '../page.js';
import {
  allocLeafTable,
  allocPmd,
  depositTable,
  leafTable,
  lockTable,
  NO_TABLE,
  pteIndex,
  tableOf,
  unlockTable,
} from '../pgtable.js';
import { anonVmaPrepare, pageAddNewAnonRmap } from '../rmap.js';
import { splitUnmappedFolio } from '../split-folio.js';
import { folioFreeSwap, migrateInSwapCache } from '../swap-state.js';
import { flushTlbRange } from '../tlbflush.js';
import { VM_WRITE, vmaIsAnonymous, vmaPageProt } from '../vma.js';
import type { MigrateVma } from './args.js';

const { PG_swapcache, PG_uptodate } = PAGE_FLAGS;

/**
 * @param migrate the range that the pages belong to; `null` for a migration by physical pages, which has no holes to fill
 */
export function* migrateDevicePages(
  kernel: Kernel,
  src: Float64Array,
  dst: Float64Array,
  npages: number,
  migrate: MigrateVma | null,
): Sleeps<void> {
  let notified: MmuNotifierRange | null = null;
  for (let i = 0; i < npages; i += mpfnPages(src[i])) {
    let from = src[i] as Mpfn;
    const to = kernel.addressing.migratePfnToPage(dst[i] as Mpfn);
    const asOne = (dst[i] & MIGRATE_PFN_COMPOUND) !== 0;
    const page = kernel.addressing.migratePfnToPage(from);
    if ((from & MIGRATE_PFN_COMPOUND) !== 0 && !asOne && to !== NULL_PAGE) {
      // 2 MiB were collected as one, but the driver has single pages for them.
      if (page !== NULL_PAGE && !(yield* splitUnmapped(kernel, src, i, page, migrate))) continue;
      if (page === NULL_PAGE) src.fill(MIGRATE_PFN_MIGRATE, i, i + HPAGE_PMD_NR);
      from = src[i] as Mpfn;
    }
    if (to === NULL_PAGE) {
      src[i] = mpfnClear(from, MIGRATE_PFN_MIGRATE);
      continue;
    }
    if (page === NULL_PAGE) {
      if ((from & MIGRATE_PFN_MIGRATE) === 0 || migrate === null) continue;
      if (notified === null) {
        // The mapping of a hole or of the zero page changes only now: tell notifiers once, for the rest of the range.
        const { vma, end, pgmapOwner } = migrate;
        const start = (migrate.start + i * PAGE_SIZE) as VirtAddr;
        notified = { mm: vma.mm, start, end, event: 'MMU_NOTIFY_MIGRATE', owner: pgmapOwner };
        yield* mmuNotifierInvalidateRangeStart(notified);
      }
      const address = (migrate.start + i * PAGE_SIZE) as VirtAddr;
      const inserted = asOne
        ? insertHugePage(kernel, migrate, address, to)
        : yield* insertPage(kernel, migrate, address, to);
      src[i] = inserted ? MIGRATE_PFN_MIGRATE : 0;
      continue;
    }
    if (asOne && (from & MIGRATE_PFN_COMPOUND) === 0) {
      src[i] = mpfnClear(from, MIGRATE_PFN_MIGRATE);
      continue;
    }
    const faultPage = migrate === null ? NULL_PAGE : migrate.faultPage;
    if (!migratePage(kernel, page, to, faultPage)) src[i] = mpfnClear(from, MIGRATE_PFN_MIGRATE);
  }
  if (notified !== null) mmuNotifierInvalidateRangeEnd(notified);
}

/** `migrate_folio()` without the copy: EAGAIN (false) if somebody took a reference since the unmap. */
function migratePage(kernel: Kernel, from: Page, to: Page, faultPage: Page): boolean {
  const { words, floats } = kernel.memmap;
  // Only anonymous memory moves; a page of a file was collected, and goes back to where it was.
  if (pageAnonVmaId(words, from) === 0 || injects(kernel, 'migration-refused')) return false;
  const inSwapCache = (): boolean => pageTestFlag(words, from, PG_swapcache);
  // A page in the swap cache goes to no device as long as somebody's entry needs the slot; to RAM it goes with the slot.
  if (inSwapCache() && isZoneDevicePage(words, to) && !folioFreeSwap(kernel, from)) return false;
  const expected = (isFaultFolio(words, from, faultPage) ? 2 : 1) + (inSwapCache() ? 1 : 0);
  if (pageRefCount(words, from) !== expected) return false;
  if (!kernel.sites.pageExtOfPrivate) assert(kernel.memmap.pageToPfn(to) >= 0, () => `page ${to} has no page_ext`);
  accountToNode(words, to);
  pageMigrateIdentity(words, floats, from, to);
  if (inSwapCache()) migrateInSwapCache(kernel, from, to);
  const pages = folioNrPages(words, to);
  if (isZoneDevicePage(words, to)) kernel.stats.migratedToDevice += pages;
  else kernel.stats.migratedToRam += pages;
  return true;
}

/**
 * `migrate_vma_split_unmapped_folio()`: the folio comes apart while nothing but migration entries stand for it; `src` gets a word for
 * each of its pages. Without a range (eviction) that cannot be: the folio stays.
 */
function* splitUnmapped(
  kernel: Kernel,
  src: Float64Array,
  at: number,
  folio: Page,
  migrate: MigrateVma | null,
): Sleeps<boolean> {
  const { words } = kernel.memmap;
  if (migrate !== null) yield* splitHugePmd(kernel, migrate.vma, migrate.start + at * PAGE_SIZE);
  // The fault that asks for the migration holds the folio too: then it stays, and the next fault finds small entries.
  if (migrate === null || pageRefCount(words, folio) !== 1) {
    src[at] = mpfnClear(src[at] as Mpfn, MIGRATE_PFN_MIGRATE | MIGRATE_PFN_COMPOUND);
    return false;
  }
  splitMigrationPmds(kernel, folio);
  const pages = splitUnmappedFolio(kernel, folio);
  const flags = src[at] & (MIGRATE_PFN_MIGRATE | MIGRATE_PFN_WRITE);
  for (let i = 0; i < pages; i++) {
    const word = kernel.addressing.migratePfnFromPage((folio + i) as Page);
    src[at + i] = mpfnSet(kernel.sites.splitKeepsKind ? word : migratePfn(mpfnNumber(word) as Pfn), flags);
  }
  return true;
}

/** `migrate_vma_insert_page()`: a device page for a hole or for the zero page. False when the place was taken meanwhile. */
function* insertPage(kernel: Kernel, migrate: MigrateVma, addr: VirtAddr, page: Page): Sleeps<boolean> {
  const { vma } = migrate;
  const { words } = kernel.memmap;
  const isPrivate = isDevicePrivatePage(words, page);
  if (!isPrivate && !isDeviceCoherentPage(words, page)) return false;
  if (!vmaIsAnonymous(vma)) return false;
  const huge = leafTable(kernel, vma.mm, addr) === NO_TABLE ? findHugePmd(kernel, vma.mm, addr) : NO_TABLE;
  if (huge !== NO_TABLE) {
    const low = peek32(kernel.ram.halves, 2 * huge);
    if (!lowPresent(low) || !isHugeZero(low)) return false;
    yield* splitHugePmd(kernel, vma, addr);
  }
  const table = allocLeafTable(kernel, vma.mm, addr);
  if (table === NO_TABLE) return false;
  anonVmaPrepare(kernel, vma);
  pageSetFlag(words, page, PG_uptodate);
  const writable = (vma.flags & VM_WRITE) !== 0;

  const at = table + pteIndex(addr);
  const { halves, words: entries } = kernel.ram;
  lockTable(kernel, table);
  const low = peek32(halves, 2 * at);
  const zero = lowPresent(low) && (low & LOW_SPECIAL) !== 0;
  const free = zero || (low | peek32(halves, 2 * at + 1)) === 0;
  if (free) {
    vma.mm.rssAnon++;
    accountToNode(words, page);
    pageAddNewAnonRmap(kernel, page, vma, addr);
    pageRefAdd(words, page, 1);
    if (zero) {
      setPteHalves(entries, at, 0, 0);
      flushTlbRange(kernel, vma.mm, addr, (addr + PAGE_SIZE) as VirtAddr);
    }
    const number = kernel.sites.insertPageNumber ? kernel.addressing.pageNumber(page) : kernel.memmap.pageToPfn(page);
    if (isPrivate) {
      const type = kernel.addressing.devicePrivateType(writable);
      setPteHalves(entries, at, leafLow(number, 0), leafHigh(type, number, 0));
    } else {
      const flags = vmaPageProt(vma) | LOW_ACCESSED | (writable ? LOW_WRITE | LOW_MKDIRTY : 0);
      setPteHalves(entries, at, presentLow(number, flags), presentHigh(number));
    }
    kernel.stats.migratedToDevice++;
  }
  unlockTable(kernel, table);
  return free;
}

/** `migrate_vma_insert_huge_pmd_page()`: a huge device page for 2 MiB of nothing, or for the huge zero page. */
function insertHugePage(kernel: Kernel, migrate: MigrateVma, addr: VirtAddr, folio: Page): boolean {
  const { vma } = migrate;
  const { mm } = vma;
  const { memmap, ram, addressing, sites } = kernel;
  const { words } = memmap;
  const isPrivate = isDevicePrivatePage(words, folio);
  if ((!isPrivate && !isDeviceCoherentPage(words, folio)) || !vmaIsAnonymous(vma) || !hugeFits(vma, addr)) return false;
  const at = allocPmd(kernel, mm, addr);
  if (at === NO_TABLE) return false;
  const low = peek32(ram.halves, 2 * at);
  const zero = lowPresent(low) && isHugeZero(low) && findHugePmd(kernel, mm, addr) !== NO_TABLE;
  if (!zero && (low | peek32(ram.halves, 2 * at + 1)) !== 0) {
    if (!sites.insertHugeFreeTable) allocDeposit(kernel, mm);
    if (!sites.insertHugeUnlock) lockTable(kernel, tableOf(at));
    return false;
  }
  const table = zero ? NULL_PAGE : allocDeposit(kernel, mm);
  if (!zero && table === NULL_PAGE) return false;
  anonVmaPrepare(kernel, vma);
  pageSetFlag(words, folio, PG_uptodate);
  const writable = (vma.flags & VM_WRITE) !== 0;

  lockTable(kernel, tableOf(at));
  mm.rssAnon += HPAGE_PMD_NR;
  accountToNode(words, folio);
  pageAddNewAnonRmap(kernel, folio, vma, addr);
  pageRefAdd(words, folio, 1);
  if (zero) {
    setPteHalves(ram.words, at, 0, 0);
    flushTlbRange(kernel, mm, addr, (addr + PMD_SIZE) as VirtAddr);
  } else {
    depositTable(kernel, tableOf(at), table);
  }
  if (isPrivate) {
    const number = sites.insertHugePageNumber ? addressing.pageNumber(folio) : memmap.pageToPfn(folio);
    setPteHalves(ram.words, at, leafLow(number, 0), leafHigh(addressing.devicePrivateType(writable), number, 0));
  } else {
    setHugePresent(kernel, vma, at, folio, writable ? LOW_WRITE | LOW_MKDIRTY : 0);
  }
  kernel.stats.migratedToDevice += HPAGE_PMD_NR;
  unlockTable(kernel, tableOf(at));
  return true;
}
