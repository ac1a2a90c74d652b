/**
 * Faults on huge pages of 2 MiB. Linux: mm/huge_memory.c do_huge_pmd_*().
 *
 * Each answers VM_FAULT_FALLBACK where small pages have to serve the fault; what a page cache has as one is mapped in file-fault.ts.
 * Not modelled: sizes between, shmem_enabled, khugepaged's scan (what MADV_COLLAPSE does is in khugepaged.ts and collapse-file.ts),
 * the deferred split queue: a folio of which only parts are mapped keeps all its frames until the last of them goes.
 */
import { HPAGE_PMD_NR, HPAGE_PMD_ORDER, PAGE_SIZE, PMD_SIZE } from '../abi/address.js';
import { VM_FAULT_FALLBACK, VM_FAULT_OOM, VM_FAULT_SIGBUS, type VmFault } from '../abi/errno.js';
import { PTE_ACCESSED, PTE_DIRTY, PTE_MKDIRTY } from '../abi/pte.js';
import {
  highType,
  LOW_ACCESSED,
  LOW_MKDIRTY,
  LOW_PRESENT,
  LOW_UFFD_WP,
  LOW_WRITE,
  lowPresent,
} from '../abi/pte-halves.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { NULL_PAGE, type Page, type Pte, type VirtAddr } from '../base/brand.js';
import { folioTrylock, folioUnlock, pageRefAdd, pageRefCount } from '../sync/page-ref.js';
import { SCHEDULE_POINT, type Sleeps } from '../sync/task.js';
import { compareExchangePte, getAndClearPteLow, or32, peek32, readPte } from '../sync/word.js';
import {
  allocDeposit,
  changeHugePmd,
  findHugePmd,
  freeDeposit,
  hugeAlignDown,
  isHugeZero,
  pageOfPmd,
  setHugePresent,
  splitHugePmd,
} from './huge-pmd.js';
import { getHugeZero, HUGE_ZERO_FLAGS } from './huge-zero.js';
import type { Kernel } from './kernel.js';
import { migrationEntryWait } from './migration-entry.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import { pagePgmapId, pageSetFlag, pageTestFlag, prepCompoundPage } from './page.js';
import { allocPmd, depositTable, lockTable, NO_TABLE, tableOf, unlockTable } from './pgtable.js';
import { putPage } from './put-page.js';
import { anonVmaPrepare, pageAddNewAnonRmap, pageMoveAnonRmap } from './rmap.js';
import { isDevicePrivate, isMigration } from './softleaf.js';
import { flushTlbRange } from './tlbflush.js';
import { userfaultOutcome } from './userfaultfd-context.js';
import {
  isCowMapping,
  userfaultfdWp,
  VM_HUGEPAGE,
  VM_NOHUGEPAGE,
  VM_WRITE,
  type VmArea,
  vmaIsAccessible,
  vmaIsAnonymous,
} from './vma.js';

const { PG_anon_exclusive, PG_lru, PG_uptodate } = PAGE_FLAGS;

/** Are 2 MiB of a mapping 2 MiB of its file, which a huge page may hold? Of anonymous memory they always are. */
export const hugeAligned = (vma: VmArea): boolean =>
  vmaIsAnonymous(vma) || (vma.start / PAGE_SIZE - vma.pgoff) % HPAGE_PMD_NR === 0;

/** `thp_vma_suitable_order()`: does the VMA cover the whole 2 MiB around an address, and these 2 MiB of its file? */
export const hugeFits = (vma: VmArea, addr: number): boolean => {
  const start = hugeAlignDown(addr);
  return hugeAligned(vma) && start >= vma.start && start + PMD_SIZE <= vma.end;
};

/** `thp_vma_allowable_order()` of a fault. */
export function hugeAllowed({ options }: Kernel, vma: VmArea, addr: VirtAddr): boolean {
  if (!vmaIsAnonymous(vma) || (vma.flags & VM_NOHUGEPAGE) !== 0 || !hugeFits(vma, addr)) return false;
  return options.hugePages === 'always' || (options.hugePages === 'madvise' && (vma.flags & VM_HUGEPAGE) !== 0);
}

/** A large folio of RAM that nobody maps yet, with one reference and unknown contents; NULL_PAGE when RAM is out. */
export function allocHugeFolio(kernel: Kernel): Page {
  const page = kernel.buddy.allocPages(HPAGE_PMD_ORDER);
  if (page !== NULL_PAGE) prepCompoundPage(kernel.memmap.words, page, HPAGE_PMD_ORDER);
  return page;
}

/** The same, zeroed (`vma_alloc_anon_folio_pmd()`). */
function allocZeroedHugeFolio(kernel: Kernel): Page {
  const page = allocHugeFolio(kernel);
  if (page === NULL_PAGE) return page;
  const frame = kernel.memmap.ramFrame(page);
  for (let i = 0; i < HPAGE_PMD_NR; i++) kernel.ram.zeroFrame((frame + i) as typeof frame);
  return page;
}

/** Serve a fault where no leaf table stands. Precondition: mmap_lock held for reading; the VMA allows the access. */
export function* handleHugeFault(
  kernel: Kernel,
  vma: VmArea,
  addr: VirtAddr,
  write: boolean,
  unshare: boolean,
): Sleeps<VmFault> {
  const at = allocPmd(kernel, vma.mm, addr);
  if (at === NO_TABLE) return VM_FAULT_OOM;
  const { halves, words } = kernel.ram;
  const low = peek32(halves, 2 * at);
  const high = peek32(halves, 2 * at + 1);
  if ((low | high) === 0) {
    return hugeAllowed(kernel, vma, addr) ? doHugePmdAnonymousPage(kernel, vma, addr, at, write) : VM_FAULT_FALLBACK;
  }
  if (findHugePmd(kernel, vma.mm, addr) === NO_TABLE) return VM_FAULT_FALLBACK;
  const entry = readPte(words, at);
  if (!lowPresent(low)) {
    const kind = kernel.addressing.swapTypes.kindOf[highType(high)]!;
    const page = pageOfPmd(kernel, low, high);
    if (isMigration(kernel, kind)) yield* migrationEntryWait(kernel, at, page, entry);
    return isDevicePrivate(kind) ? yield* doHugePmdDevicePrivate(kernel, vma, addr, at, entry, write) : 0;
  }
  if ((low & LOW_PRESENT) === 0 && vmaIsAccessible(vma)) {
    lockTable(kernel, tableOf(at));
    changeHugePmd(kernel, vma, at);
    unlockTable(kernel, tableOf(at));
    return 0;
  }
  const breaksCow = write || (unshare && isCowMapping(vma.flags));
  if (breaksCow && (low & LOW_WRITE) === 0 && !vmaIsAnonymous(vma)) {
    // wp_huge_pmd(): the next fault finds nothing, and says that it stores.
    yield* splitHugePmd(kernel, vma, addr);
    return 0;
  }
  if (write && (low & LOW_UFFD_WP) !== 0 && userfaultfdWp(vma)) {
    if (!vma.userfaultfd!.features.wpAsync) return userfaultOutcome(vma);
    yield* splitHugePmd(kernel, vma, addr);
    return VM_FAULT_FALLBACK;
  }
  if (breaksCow && (low & LOW_WRITE) === 0) return yield* doHugePmdWpPage(kernel, vma, addr, at, entry, write);
  compareExchangePte(words, at, entry, (entry | PTE_ACCESSED | (write ? PTE_MKDIRTY : 0n)) as Pte);
  return 0;
}

/** First touch: a read maps the huge zero page, a write a folio of one's own. */
function doHugePmdAnonymousPage(kernel: Kernel, vma: VmArea, addr: VirtAddr, at: number, write: boolean): VmFault {
  const { mm } = vma;
  anonVmaPrepare(kernel, vma);
  const table = allocDeposit(kernel, mm);
  if (table === NULL_PAGE) return VM_FAULT_OOM;
  const page = write ? allocZeroedHugeFolio(kernel) : getHugeZero(kernel, mm);
  if (page === NULL_PAGE) {
    freeDeposit(kernel, mm, table);
    return VM_FAULT_FALLBACK;
  }
  lockTable(kernel, tableOf(at));
  depositTable(kernel, tableOf(at), table);
  if (write) {
    mapAnonFolio(kernel, vma, addr, at, page);
    mm.rssAnon += HPAGE_PMD_NR;
  } else {
    setHugePresent(kernel, vma, at, page, HUGE_ZERO_FLAGS | LOW_ACCESSED);
  }
  unlockTable(kernel, tableOf(at));
  return 0;
}

/** `map_anon_folio_pmd()`. Precondition: the directory is locked, a table is deposited; the VMA has its anon_vma. */
export function mapAnonFolio(kernel: Kernel, vma: VmArea, addr: VirtAddr, at: number, page: Page): void {
  pageAddNewAnonRmap(kernel, page, vma, hugeAlignDown(addr));
  pageSetFlag(kernel.memmap.words, page, PG_lru | PG_uptodate);
  const write = (vma.flags & VM_WRITE) !== 0 ? LOW_WRITE : 0;
  setHugePresent(kernel, vma, at, page, LOW_ACCESSED | LOW_MKDIRTY | write);
}

/** A store to a read-only huge page of a writable VMA: reuse it if it is ours alone; else its 4 KiB pages are copied one by one. */
function* doHugePmdWpPage(
  kernel: Kernel,
  vma: VmArea,
  addr: VirtAddr,
  at: number,
  orig: Pte,
  write: boolean,
): Sleeps<VmFault> {
  const { halves } = kernel.ram;
  const low = peek32(halves, 2 * at);
  if (isHugeZero(low)) {
    if (yield* replaceHugeZero(kernel, vma, addr, orig)) return 0;
  } else if (canReuseHugeFolio(kernel, vma, pageOfPmd(kernel, low, peek32(halves, 2 * at + 1)))) {
    if (write) or32(halves, 2 * at, LOW_WRITE | LOW_ACCESSED | LOW_MKDIRTY);
    return 0;
  }
  yield* splitHugePmd(kernel, vma, addr);
  return VM_FAULT_FALLBACK;
}

function canReuseHugeFolio(kernel: Kernel, vma: VmArea, page: Page): boolean {
  const { words } = kernel.memmap;
  if (pageTestFlag(words, page, PG_anon_exclusive)) return true;
  if (pageRefCount(words, page) !== 1 || !folioTrylock(words, page)) return false;
  pageMoveAnonRmap(kernel, page, vma);
  pageSetFlag(words, page, PG_anon_exclusive);
  folioUnlock(words, page);
  return true;
}

/** `do_huge_zero_wp_pmd()`: a folio of one's own in the place of the huge zero page. False when RAM has no such block. */
function* replaceHugeZero(kernel: Kernel, vma: VmArea, addr: VirtAddr, orig: Pte): Sleeps<boolean> {
  const { mm } = vma;
  const page = allocZeroedHugeFolio(kernel);
  if (page === NULL_PAGE) return false;
  const start = hugeAlignDown(addr);
  const end = (start + PMD_SIZE) as VirtAddr;
  const range: MmuNotifierRange = { mm, start, end, event: 'MMU_NOTIFY_CLEAR', owner: null };
  yield* mmuNotifierInvalidateRangeStart(range);
  const at = findHugePmd(kernel, mm, addr);
  const same = at !== NO_TABLE && ((readPte(kernel.ram.words, at) ^ orig) & ~(PTE_ACCESSED | PTE_DIRTY)) === 0n;
  if (same) {
    lockTable(kernel, tableOf(at));
    getAndClearPteLow(kernel.ram.words, at);
    flushTlbRange(kernel, mm, start, end);
    anonVmaPrepare(kernel, vma);
    mapAnonFolio(kernel, vma, addr, at, page);
    mm.rssAnon += HPAGE_PMD_NR;
    unlockTable(kernel, tableOf(at));
  }
  mmuNotifierInvalidateRangeEnd(range);
  if (!same) putPage(kernel, page);
  return true;
}

/** `do_huge_pmd_device_private()`: the CPU touched a huge page that is on a device: its driver brings it home. */
function* doHugePmdDevicePrivate(
  kernel: Kernel,
  vma: VmArea,
  addr: VirtAddr,
  at: number,
  orig: Pte,
  write: boolean,
): Sleeps<VmFault> {
  const { words } = kernel.memmap;
  const { halves } = kernel.ram;
  const page = pageOfPmd(kernel, peek32(halves, 2 * at), peek32(halves, 2 * at + 1));
  if (!folioTrylock(words, page)) {
    yield* migrationEntryWait(kernel, at, page, orig);
    return 0;
  }
  pageRefAdd(words, page, 1);
  const migrateToRam = kernel.pagemaps.get(pagePgmapId(words, page))?.ops?.migrateToRam;
  let outcome: VmFault = VM_FAULT_SIGBUS;
  if (migrateToRam !== undefined) {
    outcome = yield* migrateToRam({ mm: vma.mm, vma, address: addr, page, origPte: orig, write, huge: true });
  }
  folioUnlock(words, page);
  putPage(kernel, page);
  // Somebody holds the folio: the access will fault again and again until they let go, so they must get a turn.
  if (outcome === 0 && readPte(kernel.ram.words, at) === orig) yield SCHEDULE_POINT;
  return outcome;
}
