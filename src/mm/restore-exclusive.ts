/**
 * Device-exclusive entries become present again. Linux: mm/memory.c restore_exclusive_pte(), remove_device_exclusive_entry().
 * How they come about is in device-exclusive.ts. The entry kept the page's reference and mapping, so only the word changes.
 */
import { PAGE_SIZE } from '../abi/address.js';
import { carriedToPresent, LOW_MKDIRTY, LOW_WRITE, presentHigh, presentLow } from '../abi/pte-halves.js';
import { softleafFromPte } from '../abi/softleaf.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import type { Page, Pte, VirtAddr } from '../base/brand.js';
import { folioLocked, folioTrylock, folioUnlock, getPageUnlessZero } from '../sync/page-ref.js';
import { type Sleeps, waitUntil } from '../sync/task.js';
import { peek32, readPte, setPteHalves } from '../sync/word.js';
import type { Kernel } from './kernel.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import { pageTestFlag } from './page.js';
import { leafTable, lockTable, type TableIndex, unlockTable } from './pgtable.js';
import { canChangePteWritable } from './pte-protect.js';
import { putPage } from './put-page.js';
import { type VmArea, vmaPageProt } from './vma.js';

const { PG_dirty } = PAGE_FLAGS;

/**
 * `restore_exclusive_pte()`: writable if the VMA is, and a store need not be heard of; dirty only then, or a store that somebody watches for
 * would have happened already. Precondition: page table lock, folio lock.
 */
function restoreExclusivePte(kernel: Kernel, vma: VmArea, at: number, page: Page): void {
  const { memmap, ram } = kernel;
  const pfn = memmap.pageToPfn(page);
  const high = presentHigh(pfn);
  let low = presentLow(pfn, vmaPageProt(vma) | carriedToPresent(peek32(ram.halves, 2 * at)));
  if (canChangePteWritable(kernel, vma, low, high)) {
    low |= pageTestFlag(memmap.words, page, PG_dirty) ? LOW_WRITE | LOW_MKDIRTY : LOW_WRITE;
  }
  setPteHalves(ram.words, at, low, high);
}

/**
 * `try_restore_exclusive_pte()`, for fork: false (EBUSY) if somebody holds the folio lock, a device at work on it perhaps.
 * Precondition: page table lock held; `pte` is the device-exclusive entry at `at`.
 */
export function tryRestoreExclusivePte(kernel: Kernel, vma: VmArea, at: number, pte: Pte): boolean {
  const { words } = kernel.memmap;
  const page = kernel.addressing.softleafToPage(softleafFromPte(pte));
  if (!folioTrylock(words, page)) return false;
  restoreExclusivePte(kernel, vma, at, page);
  folioUnlock(words, page);
  return true;
}

/** `remove_device_exclusive_entry()`: the CPU touched the page; the device loses it. */
export function* removeDeviceExclusiveEntry(
  kernel: Kernel,
  vma: VmArea,
  addr: VirtAddr,
  table: TableIndex,
  at: number,
  pte: Pte,
): Sleeps<void> {
  const { words } = kernel.memmap;
  const page = kernel.addressing.softleafToPage(softleafFromPte(pte));
  // The page table lock is not held: the entry may go, and the page with it, while we wait.
  if (!getPageUnlessZero(words, page)) return;
  while (!folioTrylock(words, page)) {
    yield* waitUntil(`lock of the exclusive page ${page}`, () => !folioLocked(words, page));
  }
  const end = (addr + PAGE_SIZE) as VirtAddr;
  const range: MmuNotifierRange = { mm: vma.mm, start: addr, end, event: 'MMU_NOTIFY_CLEAR', owner: null };
  yield* mmuNotifierInvalidateRangeStart(range);
  // While somebody slept MADV_DONTNEED may have given the table back.
  if (leafTable(kernel, vma.mm, addr) === table && readPte(kernel.ram.words, at) === pte) {
    lockTable(kernel, table);
    restoreExclusivePte(kernel, vma, at, page);
    unlockTable(kernel, table);
  }
  folioUnlock(words, page);
  putPage(kernel, page);
  mmuNotifierInvalidateRangeEnd(range);
}
