/**
 * Device-exclusive entries become present again. Linux: mm/memory.c restore_exclusive_pte(), remove_device_exclusive_entry().
 * How they come about is in device-exclusive.ts. The entry kept the page's reference and mapping, so only the word changes.
 */
import { PAGE_SIZE } from '../abi/address.js';
import {
  makePte,
  PTE_MKDIRTY,
  PTE_PROTNONE,
  PTE_SOFT_DIRTY,
  PTE_UFFD_WP,
  PTE_USER_PAGE,
  PTE_WRITE,
} from '../abi/pte.js';
import { SWP_SOFT_DIRTY, SWP_UFFD_WP, softleafFromPte } from '../abi/softleaf.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import type { Page, Pte, VirtAddr } from '../base/brand.js';
import { folioLocked, folioTrylock, folioUnlock, getPageUnlessZero } from '../sync/page-ref.js';
import { type Sleeps, waitUntil } from '../sync/task.js';
import { readPte, setPte } from '../sync/word.js';
import type { Kernel } from './kernel.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import { pageTestFlag } from './page.js';
import { leafTable, lockTable, type TableIndex, unlockTable } from './pgtable.js';
import { putPage } from './put-page.js';
import { VM_READ, VM_WRITE, type VmArea } from './vma.js';

const { PG_anon_exclusive, PG_dirty } = PAGE_FLAGS;

/** `restore_exclusive_pte()`: writable if the VMA is, and the page nobody else's. Precondition: page table lock, folio lock. */
function restoreExclusivePte(kernel: Kernel, vma: VmArea, at: number, page: Page, orig: Pte): void {
  const { words } = kernel.memmap;
  let flags = (vma.flags & (VM_READ | VM_WRITE)) === 0 ? PTE_PROTNONE : PTE_USER_PAGE;
  if ((orig & SWP_SOFT_DIRTY) !== 0n) flags |= PTE_SOFT_DIRTY;
  if ((orig & SWP_UFFD_WP) !== 0n) flags |= PTE_UFFD_WP;
  const writable = (vma.flags & VM_WRITE) !== 0 && (flags & PTE_UFFD_WP) === 0n;
  if (writable && pageTestFlag(words, page, PG_anon_exclusive)) {
    flags |= pageTestFlag(words, page, PG_dirty) ? PTE_WRITE | PTE_MKDIRTY : PTE_WRITE;
  }
  setPte(kernel.ram.words, at, makePte(kernel.memmap.pageToPfn(page), flags));
}

/**
 * `try_restore_exclusive_pte()`, for fork: false (EBUSY) if somebody holds the folio lock, a device at work on it perhaps.
 * Precondition: page table lock held; `pte` is the device-exclusive entry at `at`.
 */
export function tryRestoreExclusivePte(kernel: Kernel, vma: VmArea, at: number, pte: Pte): boolean {
  const { words } = kernel.memmap;
  const page = kernel.addressing.softleafToPage(softleafFromPte(pte));
  if (!folioTrylock(words, page)) return false;
  restoreExclusivePte(kernel, vma, at, page, pte);
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
    restoreExclusivePte(kernel, vma, at, page, pte);
    unlockTable(kernel, table);
  }
  folioUnlock(words, page);
  putPage(kernel, page);
  mmuNotifierInvalidateRangeEnd(range);
}
