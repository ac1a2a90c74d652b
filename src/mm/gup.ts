/**
 * References on the pages behind user addresses. Linux: mm/gup.c.
 *
 * Two kinds: FOLL_GET (`getUserPages`), a plain reference, and FOLL_PIN (`pinUserPages`), for those who access the contents,
 * which counts GUP_PIN_COUNTING_BIAS at once so that others can tell: a pinned page does not migrate, and fork copies it at
 * once. A read pin must see what the process writes later, so it first breaks the sharing of a copy-on-write page (and of the
 * zero page, if it is for long).
 *
 * A page of a coherent device is had like any other; but a long-term pin would take from the driver the power to evict it, so
 * the page first moves to RAM.
 *
 * Not modelled: FOLL_FORCE of writes, FOLL_NOWAIT, other memory that long-term pins may not have (ZONE_MOVABLE, CMA).
 */
import { HPAGE_PMD_NR, PAGE_SIZE, pageAlignDown } from '../abi/address.js';
import {
  type Errno,
  VM_FAULT_ERROR,
  VM_FAULT_HWPOISON,
  VM_FAULT_OOM,
  VM_FAULT_RETRY,
  type VmFault,
} from '../abi/errno.js';
import { pteDirty, pteHardwarePresent, ptePfn, ptePresent, pteSpecial, pteWrite } from '../abi/pte.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { NULL_PAGE, type Page, type VirtAddr } from '../base/brand.js';
import { assert } from '../base/errors.js';
import { pageRefAdd } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import { readPte } from '../sync/word.js';
import { findHugePmd, splitHugePmd } from './huge-pmd.js';
import { isHugetlb } from './hugetlb.js';
import type { Kernel } from './kernel.js';
import { handleMmFault } from './memory.js';
import { migrateDeviceCoherentPage } from './migrate-device/device.js';
import type { MmStruct } from './mm-struct.js';
import { isDeviceCoherentPage, pageIsAnon, pagePincountAdd, pageSetFlag, pageTestFlag, pinBias } from './page.js';
import { allocLeafTable, leafTable, NO_TABLE, pteIndex } from './pgtable.js';
import { putPage } from './put-page.js';
import {
  isCowMapping,
  tracksWrites,
  VM_IO,
  VM_LOCKONFAULT,
  VM_MAYREAD,
  VM_PFNMAP,
  VM_READ,
  VM_SHARED,
  VM_WRITE,
  type VmArea,
  vmaIsAccessible,
  vmaLookup,
} from './vma.js';

const { PG_anon_exclusive, PG_dirty } = PAGE_FLAGS;

/** FOLL_* flags. */
export interface GupFlags {
  /** FOLL_WRITE: the pages will be written, so copy-on-write is broken now. */
  readonly write: boolean;
  /** FOLL_PIN; otherwise FOLL_GET. */
  readonly pin: boolean;
  /** FOLL_LONGTERM: for longer than a system call. */
  readonly longterm: boolean;
  /** FOLL_TOUCH: a page that is got for writing counts as dirty. */
  readonly touch: boolean;
  /** FOLL_FORCE: what may not be read at the moment is read all the same. */
  readonly force?: boolean;
  /** FOLL_SPLIT_PMD: a huge entry becomes small ones first. */
  readonly splitHuge?: boolean;
  /** FOLL_UNLOCKABLE: mmap_lock may be dropped in between, to wait for a userfaultfd. Otherwise what it protects is EFAULT. */
  readonly unlockable?: boolean;
  /** Entries that are there are taken as they are, without a look at their VMA. */
  readonly fast?: boolean;
  /** FOLL_HWPOISON: memory that has failed is EHWPOISON, not EFAULT. */
  readonly hwpoison?: boolean;
}

/** What was had: pages from the start on, and why not more. */
export interface GupResult {
  readonly pages: Page[];
  readonly errno: 0 | Errno;
}

/**
 * `pin_user_pages()`, all or nothing: the pages, EFAULT or ENOMEM; with `longterm` also EBUSY, when a page on a coherent device
 * is held there by somebody else. What one call does not have the next one asks for, as mm/gup_test.c does, so that an allocation which
 * fails once in the middle does no harm. Takes mmap_lock. Give back with `unpinUserPages`.
 */
export function* pinUserPages(
  kernel: Kernel,
  mm: MmStruct,
  start: VirtAddr,
  pages: number,
  flags: { readonly write: boolean; readonly longterm: boolean },
): Sleeps<readonly Page[] | Errno> {
  const { words } = kernel.memmap;
  const wanted: GupFlags = { write: flags.write, pin: true, longterm: flags.longterm, touch: false, unlockable: true };
  const held: Page[] = [];
  while (held.length < pages) {
    const from = (start + held.length * PAGE_SIZE) as VirtAddr;
    const got = yield* withMmapLock(kernel, mm, from, pages - held.length, wanted);
    let failed: Errno | 0 = got.pages.length === 0 ? got.errno : 0;
    if (flags.longterm && got.pages.some((page) => isDeviceCoherentPage(words, page))) {
      failed = yield* moveUnpinnable(kernel, got.pages);
    } else {
      held.push(...got.pages);
    }
    if (failed === 0) continue;
    unpinUserPages(kernel, held);
    return failed;
  }
  return held;
}

/**
 * `migrate_longterm_unpinnable_folios()`: none of the pages stays pinned, and those on coherent devices go to RAM. The others
 * may have moved by the time they are pinned again.
 */
function* moveUnpinnable(kernel: Kernel, pages: readonly Page[]): Sleeps<0 | 'EBUSY'> {
  const { words } = kernel.memmap;
  for (const [at, page] of pages.entries()) {
    if (!isDeviceCoherentPage(words, page)) {
      unpinUserPages(kernel, [page]);
      continue;
    }
    // Nobody moves a pinned page: the pin becomes an ordinary reference.
    pageRefAdd(words, page, 1);
    unpinUserPages(kernel, [page]);
    if ((yield* migrateDeviceCoherentPage(kernel, page)) !== 0) {
      unpinUserPages(kernel, pages.slice(at + 1));
      return 'EBUSY';
    }
  }
  return 0;
}

/** `get_user_pages_fast()`, as vmsplice has it: as many pages as can be had. Takes mmap_lock. Give back with `putUserPages`. */
export function getUserPages(
  kernel: Kernel,
  mm: MmStruct,
  start: VirtAddr,
  pages: number,
  write = false,
): Sleeps<GupResult> {
  const flags = { write, pin: false, longterm: false, touch: true, unlockable: true, fast: true };
  return withMmapLock(kernel, mm, start, pages, flags);
}

/** `unpin_user_pages()`. */
export function unpinUserPages(kernel: Kernel, pages: readonly Page[]): void {
  const { words } = kernel.memmap;
  for (const page of pages) {
    if (isZeroPage(kernel, page)) continue;
    pagePincountAdd(words, page, -1);
    pageRefAdd(words, page, 1 - pinBias(words, page));
    putPage(kernel, page);
  }
}

/** `put_page()` of each. */
export function putUserPages(kernel: Kernel, pages: readonly Page[]): void {
  for (const page of pages) putPage(kernel, page);
}

function* withMmapLock(
  kernel: Kernel,
  mm: MmStruct,
  start: VirtAddr,
  pages: number,
  flags: GupFlags,
): Sleeps<GupResult> {
  yield* mm.mmapLock.downRead();
  try {
    return yield* getUserPagesLocked(kernel, mm, start, pages, flags);
  } finally {
    mm.mmapLock.upRead();
  }
}

/** `__get_user_pages()`. Precondition: mmap_lock held for reading; so it is afterwards, though it may have been dropped (`unlockable`). */
export function* getUserPagesLocked(
  kernel: Kernel,
  mm: MmStruct,
  start: VirtAddr,
  count: number,
  flags: GupFlags,
): Sleeps<GupResult> {
  assert(mm.mmapLock.locked, 'get_user_pages without mmap_lock');
  const pages: Page[] = [];
  const first = pageAlignDown(start);
  while (pages.length < count) {
    const addr = first + pages.length * PAGE_SIZE;
    const vma = mm.exiting ? undefined : vmaLookup(mm, addr);
    if (vma === undefined) return { pages, errno: 'EFAULT' };
    if (!vmaAllows(vma, flags)) {
      const page = flags.fast ? fastPage(kernel, vma, addr as VirtAddr, flags) : NULL_PAGE;
      if (page === NULL_PAGE) return { pages, errno: 'EFAULT' };
      pages.push(page);
      continue;
    }
    for (;;) {
      const found = followPage(kernel, vma, addr as VirtAddr, flags);
      if (typeof found === 'number') {
        pages.push(found);
        break;
      }
      if (found === 'split') {
        yield* splitHugePmd(kernel, vma, addr);
        // What stands for a file's is nothing at first: a table, so that no huge entry comes back.
        if (allocLeafTable(kernel, mm, addr as VirtAddr) === NO_TABLE) return { pages, errno: 'ENOMEM' };
        continue;
      }
      const outcome = yield* handleMmFault(kernel, vma, addr as VirtAddr, flags.write, found === 'unshare');
      if ((outcome & VM_FAULT_RETRY) !== 0 && flags.unlockable) {
        const userfault = vma.userfaultfd!.raise(addr as VirtAddr, flags.write);
        mm.mmapLock.upRead();
        yield* userfault;
        yield* mm.mmapLock.downRead();
        // Meanwhile anything may be mapped there: begin with the page anew.
        break;
      }
      if ((outcome & VM_FAULT_ERROR) !== 0) return { pages, errno: faultErrno(outcome, flags) };
    }
  }
  return { pages, errno: 0 };
}

/**
 * `populate_vma_page_range()`: touch pages of one mapping, with a store where that makes them the process's own; whatever may be
 * accessed somehow will do. Precondition: mmap_lock is held, for reading where it is `unlockable`: then the mapping may be another
 * afterwards.
 */
export function* populateVma(
  kernel: Kernel,
  vma: VmArea,
  start: number,
  end: number,
  unlockable: boolean,
): Sleeps<0 | Errno> {
  if ((vma.flags & VM_LOCKONFAULT) !== 0) return 0;
  const write = (vma.flags & (VM_WRITE | VM_SHARED)) === VM_WRITE;
  const flags = { write, pin: false, longterm: false, touch: true, force: vmaIsAccessible(vma), unlockable };
  for (let at = start; at < end; at += PAGE_SIZE) {
    const { pages, errno } = yield* getUserPagesLocked(kernel, vma.mm, at as VirtAddr, 1, flags);
    putUserPages(kernel, pages);
    if (errno !== 0) return errno;
  }
  return 0;
}

/** `vm_fault_to_errno()`. */
function faultErrno(outcome: VmFault, { hwpoison }: GupFlags): Errno {
  if ((outcome & VM_FAULT_OOM) !== 0) return 'ENOMEM';
  return (outcome & VM_FAULT_HWPOISON) !== 0 && hwpoison ? 'EHWPOISON' : 'EFAULT';
}

/** `check_vma_flags()`. */
const vmaAllows = (vma: VmArea, flags: GupFlags): boolean =>
  (vma.flags & (VM_IO | VM_PFNMAP)) === 0 &&
  (vma.flags & (flags.write ? VM_WRITE : flags.force ? VM_MAYREAD : VM_READ)) !== 0 &&
  (!flags.write || writableFileMappingAllowed(vma, flags));

/**
 * `writable_file_mapping_allowed()`: who pins a page of a file for long, and writes to it, does so unheard while write-back
 * takes it for clean.
 */
const writableFileMappingAllowed = (vma: VmArea, { pin, longterm }: GupFlags): boolean =>
  !(pin && longterm) || (vma.flags & VM_SHARED) === 0 || !tracksWrites(vma.file);

/** `follow_page_pte()`: the page with its reference, or which kind of fault is needed first. */
function followPage(
  kernel: Kernel,
  vma: VmArea,
  addr: VirtAddr,
  flags: GupFlags,
): Page | 'fault' | 'unshare' | 'split' {
  const table = leafTable(kernel, vma.mm, addr);
  const at = table === NO_TABLE ? findHugePmd(kernel, vma.mm, addr) : table + pteIndex(addr);
  if (at === NO_TABLE) return 'fault';
  const pte = readPte(kernel.ram.words, at);
  if (!ptePresent(pte)) return 'fault';
  if (table === NO_TABLE && flags.splitHuge && !isHugetlb(vma)) return 'split';
  if (flags.write && !pteWrite(pte)) return 'fault';
  // Of a huge page its first says whether it is shared.
  const first = pteSpecial(pte) && table !== NO_TABLE ? kernel.zeroPage : kernel.memmap.pfnToPage(ptePfn(pte));
  if (!pteWrite(pte) && mustUnshare(kernel, vma, first, flags)) return 'unshare';
  const page = (table === NO_TABLE ? first + pteIndex(addr) : first) as Page;
  grab(kernel, page, flags.pin);
  const { words } = kernel.memmap;
  if (flags.touch && flags.write && !pteDirty(pte)) pageSetFlag(words, page, PG_dirty);
  return page;
}

/** `gup_fast()`: what the entry allows, whatever the VMA does; NULL_PAGE where it does not. */
function fastPage(kernel: Kernel, vma: VmArea, addr: VirtAddr, flags: GupFlags): Page {
  const table = leafTable(kernel, vma.mm, addr);
  const at = table === NO_TABLE ? findHugePmd(kernel, vma.mm, addr) : table + pteIndex(addr);
  if (at === NO_TABLE) return NULL_PAGE;
  const pte = readPte(kernel.ram.words, at);
  if (!pteHardwarePresent(pte) || pteSpecial(pte)) return NULL_PAGE;
  const found = followPage(kernel, vma, addr, flags);
  return typeof found === 'number' ? found : NULL_PAGE;
}

/** `gup_must_unshare()`: would a read pin of this page miss later writes of the process? */
function mustUnshare(kernel: Kernel, vma: VmArea, page: Page, flags: GupFlags): boolean {
  if (flags.write || !flags.pin) return false;
  const { words } = kernel.memmap;
  if (!pageIsAnon(words, page)) return flags.longterm && isCowMapping(vma.flags);
  return !pageTestFlag(words, page, PG_anon_exclusive);
}

/** `is_zero_page()`, or a page of the huge one. */
function isZeroPage({ zeroPage, hugeZero }: Kernel, page: Page): boolean {
  return (
    page === zeroPage || (hugeZero.page !== NULL_PAGE && page >= hugeZero.page && page < hugeZero.page + HPAGE_PMD_NR)
  );
}

/** `try_grab_folio()`. The zero pages are never pinned. */
function grab(kernel: Kernel, page: Page, pin: boolean): void {
  const { words } = kernel.memmap;
  if (!pin) {
    pageRefAdd(words, page, 1);
  } else if (!isZeroPage(kernel, page)) {
    pageRefAdd(words, page, pinBias(words, page));
    pagePincountAdd(words, page, 1);
  }
}

/** As vmsplice takes pages: call after call for what is missing, until one gets nothing. */
export function* getPagesInTurns(
  kernel: Kernel,
  mm: MmStruct,
  start: VirtAddr,
  count: number,
  write: boolean,
): Sleeps<readonly Page[] | Errno> {
  const pages: Page[] = [];
  for (;;) {
    const from = (start + pages.length * PAGE_SIZE) as VirtAddr;
    const got = yield* getUserPages(kernel, mm, from, count - pages.length, write);
    pages.push(...got.pages);
    if (pages.length === count) return pages;
    if (got.pages.length === 0) return pages.length === 0 && got.errno !== 0 ? got.errno : pages;
  }
}
