/** Phase 3, **pages**: the new page takes the old one's identity. Linux: migrate_vma_pages(), migrate_device_pages(). */
import { PAGE_SIZE } from '../../abi/address.js';
import { MIGRATE_PFN_MIGRATE, mpfnClear } from '../../abi/mpfn.js';
import {
  LOW_ACCESSED,
  LOW_DIRTY,
  LOW_SPECIAL,
  LOW_WRITE,
  leafHigh,
  leafLow,
  lowPresent,
  presentHigh,
  presentLow,
} from '../../abi/pte-halves.js';
import { PAGE_FLAGS } from '../../abi/struct-page.js';
import { type Mpfn, NULL_PAGE, type Page, type VirtAddr } from '../../base/brand.js';
import { pageRefAdd, pageRefCount } from '../../sync/page-ref.js';
import type { Sleeps } from '../../sync/task.js';
import { load32, setPteHalves } from '../../sync/word.js';
import type { Kernel } from '../kernel.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from '../mmu-notifier.js';
import {
  isDeviceCoherentPage,
  isDevicePrivatePage,
  isZoneDevicePage,
  pageAnonVmaId,
  pageMigrateIdentity,
  pageSetFlag,
} from '../page.js';
import { allocLeafTable, lockTable, NO_TABLE, pteIndex, unlockTable } from '../pgtable.js';
import { anonVmaPrepare, pageAddNewAnonRmap } from '../rmap.js';
import { flushTlbRange } from '../tlbflush.js';
import { VM_WRITE, vmaIsAnonymous, vmaPageProt } from '../vma.js';
import type { MigrateVma } from './args.js';

const { PG_uptodate } = PAGE_FLAGS;

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
  for (let i = 0; i < npages; i++) {
    const from = src[i] as Mpfn;
    const to = kernel.addressing.migratePfnToPage(dst[i] as Mpfn);
    if (to === NULL_PAGE) {
      src[i] = mpfnClear(from, MIGRATE_PFN_MIGRATE);
      continue;
    }
    const page = kernel.addressing.migratePfnToPage(from);
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
      src[i] = insertPage(kernel, migrate, address, to) ? MIGRATE_PFN_MIGRATE : 0;
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
  if (pageAnonVmaId(words, from) === 0) return false;
  if (pageRefCount(words, from) !== (from === faultPage ? 2 : 1)) return false;
  pageMigrateIdentity(words, floats, from, to);
  if (isZoneDevicePage(words, to)) kernel.stats.migratedToDevice++;
  else kernel.stats.migratedToRam++;
  return true;
}

/** `migrate_vma_insert_page()`: a device page for a hole or for the zero page. False when the place was taken meanwhile. */
function insertPage(kernel: Kernel, migrate: MigrateVma, addr: VirtAddr, page: Page): boolean {
  const { vma } = migrate;
  const { words } = kernel.memmap;
  const isPrivate = isDevicePrivatePage(words, page);
  if (!isPrivate && !isDeviceCoherentPage(words, page)) return false;
  if (!vmaIsAnonymous(vma)) return false;
  const table = allocLeafTable(kernel, vma.mm, addr);
  if (table === NO_TABLE) return false;
  anonVmaPrepare(kernel, vma);
  pageSetFlag(words, page, PG_uptodate);
  const writable = (vma.flags & VM_WRITE) !== 0;

  const at = table + pteIndex(addr);
  const { halves, words: entries } = kernel.ram;
  lockTable(kernel, table);
  const low = load32(halves, 2 * at);
  const zero = lowPresent(low) && (low & LOW_SPECIAL) !== 0;
  const free = zero || (low | load32(halves, 2 * at + 1)) === 0;
  if (free) {
    vma.mm.rssAnon++;
    pageAddNewAnonRmap(kernel, page, vma, addr);
    pageRefAdd(words, page, 1);
    if (zero) {
      setPteHalves(entries, at, 0, 0);
      flushTlbRange(kernel, vma.mm, addr, (addr + PAGE_SIZE) as VirtAddr);
    }
    const number = kernel.addressing.pageNumber(page);
    if (isPrivate) {
      const type = kernel.addressing.devicePrivateType(writable);
      setPteHalves(entries, at, leafLow(number, 0), leafHigh(type, number, 0));
    } else {
      const flags = vmaPageProt(vma) | LOW_ACCESSED | (writable ? LOW_WRITE | LOW_DIRTY : 0);
      setPteHalves(entries, at, presentLow(number, flags), presentHigh(number));
    }
    kernel.stats.migratedToDevice++;
  }
  unlockTable(kernel, table);
  return free;
}
