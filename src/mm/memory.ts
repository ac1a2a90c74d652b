/**
 * CPU faults. Linux: mm/memory.c handle_mm_fault(), do_anonymous_page(), do_wp_page(), do_swap_page().
 *
 * A fault returns VM_FAULT_* bits; 0 means "try the access again", which may well fault once more; with VM_FAULT_RETRY a userfaultfd
 * wants to hear of it (userfaultfd-context.ts). Shared mappings and files: file-fault.ts. Swap: swap-in.ts. Not modelled yet: per-VMA
 * locks (mmap_lock is held for reading throughout).
 */
import { PAGE_SIZE, pageAlignDown } from '../abi/address.js';
import {
  VM_FAULT_ERROR,
  VM_FAULT_FALLBACK,
  VM_FAULT_HWPOISON,
  VM_FAULT_OOM,
  VM_FAULT_SIGBUS,
  VM_FAULT_SIGSEGV,
  type VmFault,
} from '../abi/errno.js';
import {
  makePte,
  PTE_ACCESSED,
  PTE_DIRTY,
  PTE_MKDIRTY,
  PTE_SOFT_DIRTY,
  PTE_UFFD_WP,
  PTE_USER_PAGE,
  PTE_WRITE,
  pteHardwarePresent,
  pteNone,
  ptePfn,
  ptePresent,
  pteSpecial,
  pteWrite,
} from '../abi/pte.js';
import { LOW_UFFD_WP } from '../abi/pte-halves.js';
import { softleafFromPte } from '../abi/softleaf.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { NULL_PAGE, type Page, type Pte, type VirtAddr } from '../base/brand.js';
import { injects } from '../base/injection.js';
import { folioHead, folioLocked, folioTrylock, folioUnlock, pageRefAdd, pageRefCount } from '../sync/page-ref.js';
import { SCHEDULE_POINT, type Sleeps, waitUntil } from '../sync/task.js';
import { and32, compareExchangePte, getAndClearPte, readPte, setPte } from '../sync/word.js';
import { allocUserPage, reclaimAndRetry } from './alloc.js';
import { doFault, isBehindEnd, mapHugeFilePage, wpPageShared } from './file-fault.js';
import { copyHighpage } from './highmem.js';
import { handleHugeFault } from './huge-memory.js';
import { findHugePmd } from './huge-pmd.js';
import { hugetlbFault, isHugetlb } from './hugetlb.js';
import type { Kernel } from './kernel.js';
import { migrationEntryWait } from './migration-entry.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import { folioMapcount, isLargeFolio, pageIsAnon, pagePgmapId, pageSetFlag, pageTestFlag } from './page.js';
import { folioMappings } from './page-vma-mapped.js';
import { allocLeafTable, leafTable, lockTable, NO_TABLE, pteIndex, type TableIndex, unlockTable } from './pgtable.js';
import { changePtes } from './pte-protect.js';
import { putPage } from './put-page.js';
import { removeDeviceExclusiveEntry } from './restore-exclusive.js';
import { anonVmaPrepare, pageAddNewAnonRmap, pageMoveAnonRmap, pageRemoveRmap } from './rmap.js';
import { rssAddFile } from './rss.js';
import { isDevicePrivate, isMigration, leafKind } from './softleaf.js';
import { doSwapIn } from './swap-in.js';
import { folioFreeSwap, putUnmappedPage } from './swap-state.js';
import { flushTlbRange } from './tlbflush.js';
import { userfaultOutcome } from './userfaultfd-context.js';
import { isCowMapping, userfaultfdWp, VM_READ, VM_SHARED, VM_WRITE, type VmArea, vmaIsAccessible } from './vma.js';

const { PG_anon_exclusive, PG_lru, PG_swapcache, PG_uptodate } = PAGE_FLAGS;
const USER_READ = PTE_USER_PAGE | PTE_ACCESSED;
const USER_WRITE = USER_READ | PTE_WRITE | PTE_MKDIRTY;

/**
 * Serve a fault at `addr`. Precondition: mmap_lock held for reading; `addr` lies in `vma`.
 * The VMA's protection is checked first, so a page that may not be touched does not move. `unshare` (FAULT_FLAG_UNSHARE) is
 * for a read pin: the page becomes this process's own, but stays read-only.
 */
export function* handleMmFault(
  kernel: Kernel,
  vma: VmArea,
  addr: VirtAddr,
  write: boolean,
  unshare = false,
): Sleeps<VmFault> {
  if (write ? (vma.flags & VM_WRITE) === 0 : (vma.flags & (VM_READ | VM_WRITE)) === 0) return VM_FAULT_SIGSEGV;
  kernel.stats.cpuFaults++;
  const page = pageAlignDown(addr) as VirtAddr;
  if (kernel.options.preempt()) yield SCHEDULE_POINT;
  if (isHugetlb(vma)) return yield* hugetlbFault(kernel, vma, page, write, unshare);
  let table = leafTable(kernel, vma.mm, page);
  if (table === NO_TABLE) {
    const outcome = yield* handleHugeFault(kernel, vma, page, write, unshare);
    if ((outcome & VM_FAULT_OOM) !== 0 && (yield* reclaimAndRetry(kernel, 0))) return 0;
    if (outcome !== VM_FAULT_FALLBACK) return outcome;
    if (vma.file !== null && isBehindEnd(kernel, vma, page, vma.file, write)) return VM_FAULT_SIGBUS;
    if (vma.file !== null) yield* mapHugeFilePage(kernel, vma, page, vma.file, write);
    if (findHugePmd(kernel, vma.mm, page) !== NO_TABLE) return 0;
    table = allocLeafTable(kernel, vma.mm, page);
    // Reclaim sleeps, and what stands here may be another afterwards: the access faults again.
    if (table === NO_TABLE) return (yield* reclaimAndRetry(kernel, 0)) ? 0 : VM_FAULT_OOM;
  }
  const at = table + pteIndex(page);
  const pte = readPte(kernel.ram.words, at);
  if (pteNone(pte)) return yield* doPteMissing(kernel, vma, page, table, write, pte);
  if (!ptePresent(pte)) return yield* doSwapPage(kernel, vma, page, table, pte, write);
  if (!pteHardwarePresent(pte) && vmaIsAccessible(vma)) return doNumaPage(kernel, vma, table, at);
  const breaksCow = write || (unshare && isCowMapping(vma.flags));
  if (breaksCow && !pteWrite(pte)) return yield* doWpPage(kernel, vma, page, table, pte, write);
  // A fault without an access, for a device or a pin: nobody but us says that the page was touched.
  compareExchangePte(kernel.ram.words, at, pte, (pte | PTE_ACCESSED | (write ? PTE_MKDIRTY : 0n)) as Pte);
  return 0;
}

/** `do_pte_missing()`: nothing is mapped. `orig` is none, or the marker of a place that a userfaultfd protects. */
function doPteMissing(
  kernel: Kernel,
  vma: VmArea,
  addr: VirtAddr,
  table: TableIndex,
  write: boolean,
  orig: Pte,
): Sleeps<VmFault> {
  if (vma.file === null) return doAnonymousPage(kernel, vma, addr, table, write, orig);
  return doFault(kernel, pteNone(orig) ? { vma, addr } : { vma, addr, marker: orig }, vma.file, write);
}

/** `do_numa_page()`: an entry without access rights in a VMA that has some gets what the VMA allows. */
function doNumaPage(kernel: Kernel, vma: VmArea, table: TableIndex, at: number): VmFault {
  lockTable(kernel, table);
  changePtes(kernel, vma, at, at + 1);
  unlockTable(kernel, table);
  return 0;
}

/** A zeroed page that nobody maps yet, with one reference; NULL_PAGE when RAM is out. */
export function allocZeroedPage(kernel: Kernel): Page {
  const page = kernel.buddy.allocPages(0);
  if (page !== NULL_PAGE) clearPage(kernel, page);
  return page;
}

function clearPage(kernel: Kernel, page: Page): void {
  kernel.ram.zeroFrame(kernel.memmap.ramFrame(page));
  pageSetFlag(kernel.memmap.words, page, PG_uptodate);
}

/** First touch: a read maps the zero page, a write a page of one's own. */
function* doAnonymousPage(
  kernel: Kernel,
  vma: VmArea,
  addr: VirtAddr,
  table: TableIndex,
  write: boolean,
  orig: Pte,
): Sleeps<VmFault> {
  const at = table + pteIndex(addr);
  const marked = !pteNone(orig);
  if (!write) {
    lockTable(kernel, table);
    setPte(kernel.ram.words, at, (kernel.zeroPte | USER_READ | (marked ? PTE_UFFD_WP : 0n)) as Pte);
    unlockTable(kernel, table);
    return 0;
  }
  const page = yield* allocUserPage(kernel);
  if (page === NULL_PAGE) return VM_FAULT_OOM;
  clearPage(kernel, page);
  anonVmaPrepare(kernel, vma);
  // Reclaim may have slept, and somebody else have been faster, or have given the table back.
  if (leafTable(kernel, vma.mm, addr) !== table || readPte(kernel.ram.words, at) !== orig) {
    putPage(kernel, page);
    return 0;
  }
  lockTable(kernel, table);
  // What a marker stood for is read-only at first: the store is heard of when it comes again.
  const flags = marked ? (USER_WRITE & ~PTE_WRITE) | PTE_UFFD_WP : USER_WRITE;
  mapNewAnonPage(kernel, vma, addr, at, page, flags);
  vma.mm.rssAnon++;
  unlockTable(kernel, table);
  return 0;
}

/** Install a fresh page. Precondition: page table lock held; the VMA has its anon_vma. */
function mapNewAnonPage(kernel: Kernel, vma: VmArea, addr: VirtAddr, at: number, page: Page, flags: bigint): void {
  pageAddNewAnonRmap(kernel, page, vma, addr);
  pageSetFlag(kernel.memmap.words, page, PG_lru);
  setPte(kernel.ram.words, at, makePte(kernel.memmap.pageToPfn(page), flags));
}

/** A store to a read-only entry of a writable VMA: reuse the page if it is ours alone, copy it otherwise. Without `write`, unshare. */
function* doWpPage(
  kernel: Kernel,
  vma: VmArea,
  addr: VirtAddr,
  table: TableIndex,
  seen: Pte,
  write: boolean,
): Sleeps<VmFault> {
  const { words } = kernel.memmap;
  const at = table + pteIndex(addr);
  let orig = seen;
  if (write && (seen & PTE_UFFD_WP) !== 0n && userfaultfdWp(vma)) {
    if (!vma.userfaultfd!.features.wpAsync) return userfaultOutcome(vma);
    orig = clearWp(kernel, table, at);
  }
  const old = pteSpecial(orig) ? NULL_PAGE : kernel.memmap.pfnToPage(ptePfn(orig));
  if (old !== NULL_PAGE && (vma.flags & VM_SHARED) !== 0) {
    return yield* wpPageShared(kernel, { vma, addr }, old, orig);
  }
  if (old !== NULL_PAGE && canReuseAnonPage(kernel, vma, old)) {
    if (!write) return 0;
    lockTable(kernel, table);
    setPte(kernel.ram.words, at, (readPte(kernel.ram.words, at) | USER_WRITE) as Pte);
    unlockTable(kernel, table);
    return 0;
  }
  if (old !== NULL_PAGE) pageRefAdd(words, old, 1);
  // Who only wants a page of its own has not written to it, and is not to be unheard when it does.
  const flags = write ? USER_WRITE : USER_READ | (orig & (PTE_SOFT_DIRTY | PTE_UFFD_WP));
  const outcome = yield* wpPageCopy(kernel, vma, addr, at, table, orig, old, flags);
  if (old !== NULL_PAGE) putPage(kernel, old);
  return outcome;
}

/** WP_ASYNC: the store itself takes the protection away. No CPU can tell the difference, so nothing is flushed. */
function clearWp(kernel: Kernel, table: TableIndex, at: number): Pte {
  const { halves, words } = kernel.ram;
  lockTable(kernel, table);
  and32(halves, 2 * at, ~LOW_UFFD_WP);
  unlockTable(kernel, table);
  return readPte(words, at);
}

/** `wp_can_reuse_anon_folio()`: the last sharer takes the page over. Any other reference (a pin, a migration) forbids that. */
function canReuseAnonPage(kernel: Kernel, vma: VmArea, page: Page): boolean {
  const { words } = kernel.memmap;
  if (!pageIsAnon(words, page)) return false;
  if (pageTestFlag(words, page, PG_anon_exclusive)) return true;
  const head = folioHead(words, page);
  const large = isLargeFolio(words, head);
  // A large folio of which one page is left is let go of.
  if (large && folioMapcount(words, head) <= 1) return false;
  // A large folio may have many mappings, as long as all are of this process.
  const ours = large ? folioMappings(kernel, head, vma.mm) : 1;
  if (pageRefCount(words, page) > ours + (pageTestFlag(words, page, PG_swapcache) ? 1 : 0)) return false;
  if (!folioTrylock(words, page)) return false;
  // The swap cache may let go of it: then nobody else can come to have the page.
  if (pageTestFlag(words, page, PG_swapcache)) folioFreeSwap(kernel, page);
  const alone = pageRefCount(words, page) === ours;
  if (alone) {
    // Its other pages may be in a VMA that is not in this one's anon_vma: it stays with the one where all of them are found.
    if (!large) pageMoveAnonRmap(kernel, page, vma);
    pageSetFlag(words, page, PG_anon_exclusive);
  }
  folioUnlock(words, page);
  return alone;
}

/** `wp_page_copy()`: `old` is NULL_PAGE for the zero page. The copy is in RAM, also of a page on a coherent device. */
function* wpPageCopy(
  kernel: Kernel,
  vma: VmArea,
  addr: VirtAddr,
  at: number,
  table: TableIndex,
  orig: Pte,
  old: Page,
  flags: bigint,
): Sleeps<VmFault> {
  const { mm } = vma;
  const page = yield* allocUserPage(kernel);
  if (page === NULL_PAGE) return VM_FAULT_OOM;
  if (old === NULL_PAGE) kernel.ram.zeroFrame(kernel.memmap.ramFrame(page));
  else copyHighpage(kernel, page, old);
  pageSetFlag(kernel.memmap.words, page, PG_uptodate);
  anonVmaPrepare(kernel, vma);

  const end = (addr + PAGE_SIZE) as VirtAddr;
  const range: MmuNotifierRange = { mm, start: addr, end, event: 'MMU_NOTIFY_CLEAR', owner: null };
  yield* mmuNotifierInvalidateRangeStart(range);
  // While the notifier slept MADV_DONTNEED may have given the table back.
  const same = leafTable(kernel, mm, addr) === table && samePte(readPte(kernel.ram.words, at), orig);
  if (same) {
    lockTable(kernel, table);
    // Clear and flush before the new entry stands: no CPU may see old and new page at the same time.
    getAndClearPte(kernel.ram.words, at);
    flushTlbRange(kernel, mm, addr, end);
    mapNewAnonPage(kernel, vma, addr, at, page, flags);
    if (old === NULL_PAGE || !pageIsAnon(kernel.memmap.words, old)) mm.rssAnon++;
    if (old !== NULL_PAGE) {
      if (!pageIsAnon(kernel.memmap.words, old)) rssAddFile(kernel.memmap.words, mm, old, -1);
      pageRemoveRmap(kernel, old);
    }
    unlockTable(kernel, table);
  }
  mmuNotifierInvalidateRangeEnd(range);
  if (same && old !== NULL_PAGE) putUnmappedPage(kernel, old);
  if (!same) putPage(kernel, page);
  return 0;
}

/** Equal but for the bits that hardware sets by itself. */
const samePte = (a: Pte, b: Pte): boolean => ((a ^ b) & ~(PTE_ACCESSED | PTE_DIRTY)) === 0n;

/** A non-present entry with a meaning (`do_swap_page()`). */
export function* doSwapPage(
  kernel: Kernel,
  vma: VmArea,
  addr: VirtAddr,
  table: TableIndex,
  pte: Pte,
  write: boolean,
): Sleeps<VmFault> {
  const entry = softleafFromPte(pte);
  const kind = leafKind(kernel, entry);
  if (isMigration(kernel, kind)) {
    yield* migrationEntryWait(kernel, table + pteIndex(addr), kernel.addressing.softleafToPage(entry), pte);
    return 0;
  }
  if (isDevicePrivate(kind)) {
    return yield* faultDevicePrivate(kernel, vma, addr, table, pte, write);
  }
  if (kind === 'device-exclusive') {
    yield* removeDeviceExclusiveEntry(kernel, vma, addr, table, table + pteIndex(addr), pte);
    return 0;
  }
  if (kind === 'marker') return yield* doMarker(kernel, vma, addr, table, pte, write);
  if (kind === 'swap') {
    const outcome = yield* doSwapIn(kernel, { vma, addr }, pte, write);
    return write && (outcome & VM_FAULT_ERROR) === 0 ? outcome | (yield* storeToSwapped(kernel, vma, addr)) : outcome;
  }
  return kind === 'hwpoison' ? VM_FAULT_HWPOISON : VM_FAULT_SIGBUS;
}

/** A store brought its page back from swap, and may not write to it yet: the same fault sees to that. */
function* storeToSwapped(kernel: Kernel, vma: VmArea, addr: VirtAddr): Sleeps<VmFault> {
  const table = leafTable(kernel, vma.mm, addr);
  const pte = table === NO_TABLE ? (0n as Pte) : readPte(kernel.ram.words, table + pteIndex(addr));
  return ptePresent(pte) && !pteWrite(pte) ? yield* doWpPage(kernel, vma, addr, table, pte, true) : 0;
}

/** `pte_marker_handle_uffd_wp()`: a fault where nothing is mapped; what was left behind of a userfaultfd that has gone is none. */
function* doMarker(
  kernel: Kernel,
  vma: VmArea,
  addr: VirtAddr,
  table: TableIndex,
  pte: Pte,
  write: boolean,
): Sleeps<VmFault> {
  if (userfaultfdWp(vma)) return yield* doPteMissing(kernel, vma, addr, table, write, pte);
  lockTable(kernel, table);
  setPte(kernel.ram.words, table + pteIndex(addr), 0n as Pte);
  unlockTable(kernel, table);
  return 0;
}

/** The CPU touched a device private page: its driver brings it home. */
function* faultDevicePrivate(
  kernel: Kernel,
  vma: VmArea,
  addr: VirtAddr,
  table: TableIndex,
  pte: Pte,
  write: boolean,
): Sleeps<VmFault> {
  const { words } = kernel.memmap;
  const at = table + pteIndex(addr);
  lockTable(kernel, table);
  if (readPte(kernel.ram.words, at) !== pte) {
    unlockTable(kernel, table);
    return 0;
  }
  // Under the page table lock the entry keeps the page alive, so the reference can be taken; the lock is only tried, because
  // many CPUs that each hold a reference and wait would keep the page from ever being migrated (1afaeb8293c9).
  const page = kernel.addressing.softleafToPage(softleafFromPte(pte));
  if (!kernel.sites.faultUnderLock) {
    unlockTable(kernel, table);
    if (kernel.options.preempt()) yield SCHEDULE_POINT;
    lockTable(kernel, table);
  }
  if (!kernel.sites.faultTrylock) {
    pageRefAdd(words, page, 1);
    unlockTable(kernel, table);
    if (kernel.options.preempt()) yield SCHEDULE_POINT;
    while (!folioTrylock(words, page)) {
      yield* waitUntil(`lock of the device page ${page}, with a reference`, () => !folioLocked(words, page));
    }
  } else if (injects(kernel, 'trylock-lost') || !folioTrylock(words, page)) {
    unlockTable(kernel, table);
    yield* migrationEntryWait(kernel, at, page, pte);
    return 0;
  } else {
    pageRefAdd(words, page, 1);
    unlockTable(kernel, table);
  }
  const migrateToRam = kernel.pagemaps.get(pagePgmapId(words, page))?.ops?.migrateToRam;
  let outcome: VmFault = VM_FAULT_SIGBUS;
  if (migrateToRam !== undefined) {
    outcome = yield* migrateToRam({ mm: vma.mm, vma, address: addr, page, origPte: pte, write, huge: false });
  }
  folioUnlock(words, page);
  putPage(kernel, page);
  // Somebody holds the page: the access will fault again and again until they let go, so they must get a turn.
  if (outcome === 0 && readPte(kernel.ram.words, at) === pte && kernel.sites.faultTrylock) yield SCHEDULE_POINT;
  return outcome;
}
