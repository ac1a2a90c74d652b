/**
 * Exclusive access of a device to a page of RAM, for atomics. Linux: mm/rmap.c make_device_exclusive().
 *
 * The page stays where it is; its page table entry becomes a device-exclusive one, which names it by PFN under every
 * addressing, and keeps the mapping's reference and count. The CPU's next access takes it back (restore-exclusive.ts).
 */
import { PAGE_SIZE, pageAlignDown } from '../abi/address.js';
import type { Errno } from '../abi/errno.js';
import { PTE_SOFT_DIRTY, pteDirty, ptePfn, ptePresent, pteSpecial, pteWrite } from '../abi/pte.js';
import { makeNumberEntry, SWP_SOFT_DIRTY, softleafToPte } from '../abi/softleaf.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import type { Page, Pte, VirtAddr } from '../base/brand.js';
import { folioLocked, folioTrylock, folioUnlock } from '../sync/page-ref.js';
import { type Sleeps, waitUntil } from '../sync/task.js';
import { getAndClearPte, readPte, setPte } from '../sync/word.js';
import { getUserPagesLocked } from './gup.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import { pageIsAnon, pageSetFlag, pageTestFlag } from './page.js';
import { leafTable, lockTable, NO_TABLE, pteIndex, unlockTable } from './pgtable.js';
import { putPage } from './put-page.js';
import { flushTlbRange } from './tlbflush.js';

const WRITE_ACCESS = { write: true, pin: false, longterm: false, touch: true, splitHuge: true } as const;

/**
 * Take one page away from the CPU. On success the page is locked and held: until the caller unlocks it (`folioUnlock`, then
 * `putPage`) no CPU can have it back, so device mappings are made in between.
 *
 * Precondition: mmap_lock held for reading. `owner` goes into the notification, so that its own mirror may ignore it.
 * @returns EFAULT (no VMA, or not writable), ENOMEM, EOPNOTSUPP for memory that is not anonymous, and for pages of the hugetlb pool
 */
export function* makeDeviceExclusive(
  kernel: Kernel,
  mm: MmStruct,
  addr: VirtAddr,
  owner: object | null,
): Sleeps<Page | Errno> {
  const { words } = kernel.memmap;
  const start = pageAlignDown(addr) as VirtAddr;
  const end = (start + PAGE_SIZE) as VirtAddr;
  for (;;) {
    const got = yield* getUserPagesLocked(kernel, mm, start, 1, WRITE_ACCESS);
    if (got.errno !== 0) return got.errno;
    const page = got.pages[0];
    if (!pageIsAnon(words, page) || pageTestFlag(words, page, PAGE_FLAGS.PG_hugetlb)) {
      putPage(kernel, page);
      return 'EOPNOTSUPP';
    }
    while (!folioTrylock(words, page)) {
      yield* waitUntil(`lock of page ${page}, to make it exclusive`, () => !folioLocked(words, page));
    }
    const range: MmuNotifierRange = { mm, start, end, event: 'MMU_NOTIFY_EXCLUSIVE', owner };
    yield* mmuNotifierInvalidateRangeStart(range);
    const done = replaceEntry(kernel, mm, start, page);
    mmuNotifierInvalidateRangeEnd(range);
    if (done) return page;
    // It has changed hands meanwhile: begin anew.
    folioUnlock(words, page);
    putPage(kernel, page);
  }
}

/** Does the entry still map the page for writing? Then it becomes the device's. */
function replaceEntry(kernel: Kernel, mm: MmStruct, addr: VirtAddr, page: Page): boolean {
  const table = leafTable(kernel, mm, addr);
  if (table === NO_TABLE) return false;
  const { words } = kernel.ram;
  const at = table + pteIndex(addr);
  lockTable(kernel, table);
  const seen = readPte(words, at);
  const ours =
    ptePresent(seen) && !pteSpecial(seen) && pteWrite(seen) && kernel.memmap.pfnToPage(ptePfn(seen)) === page;
  if (ours) {
    // Clear and flush first, for the last word of the hardware on whether it was dirty.
    const pte = getAndClearPte(words, at);
    flushTlbRange(kernel, mm, addr, (addr + PAGE_SIZE) as VirtAddr);
    if (pteDirty(pte)) pageSetFlag(kernel.memmap.words, page, PAGE_FLAGS.PG_dirty);
    const type = kernel.addressing.swapTypes.typeOf['device-exclusive']!;
    const entry = softleafToPte(makeNumberEntry(type, kernel.memmap.pageToPfn(page), 0n));
    setPte(words, at, (entry | ((pte & PTE_SOFT_DIRTY) !== 0n ? SWP_SOFT_DIRTY : 0n)) as Pte);
  }
  unlockTable(kernel, table);
  return ours;
}
