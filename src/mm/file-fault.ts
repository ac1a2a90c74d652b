/**
 * CPU faults on mappings of files and of shared memory. Linux: mm/memory.c do_fault(), wp_page_shared(); mm/filemap.c
 * filemap_fault(), filemap_map_pages(), filemap_page_mkwrite().
 *
 *   nothing is mapped, and           private mapping                  shared mapping
 *   a load                           the file's page, read-only       the file's page, writable if nobody tracks writes
 *   a store                          a copy of it, anonymous          the file's page, marked dirty first
 *
 * Both mappings map with a load what the page cache has around. What it has as one page of 2 MiB is mapped as one where that fits;
 * else all of it, by small entries, where it is shared memory. Not modelled: FAULT_FLAG_RETRY_NOWAIT (mmap_lock is held
 * while a page is waited for).
 */
import { HPAGE_PMD_NR, PAGE_SIZE, PTRS_PER_TABLE } from '../abi/address.js';
import { type Errno, VM_FAULT_HWPOISON, VM_FAULT_OOM, VM_FAULT_SIGBUS, type VmFault } from '../abi/errno.js';
import {
  makePte,
  PTE_ACCESSED,
  PTE_MKDIRTY,
  PTE_UFFD_WP,
  PTE_USER_PAGE,
  PTE_WRITE,
  pteNone,
  ptePfn,
  ptePresent,
} from '../abi/pte.js';
import { LOW_ACCESSED, LOW_MKDIRTY, LOW_WRITE } from '../abi/pte-halves.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { NULL_PAGE, type Page, type Pte, type VirtAddr } from '../base/brand.js';
import { folioHead, folioLocked, folioUnlock, pageRefAdd } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import { peek32, readPte, setPte } from '../sync/word.js';
import { allocUserPage, lockFilePage } from './alloc.js';
import { filePages, folioLock, unlockCachedPage } from './filemap.js';
import { hugeFits } from './huge-memory.js';
import { setHugePresent } from './huge-pmd.js';
import type { Kernel } from './kernel.js';
import { folioEntireMapcountAdd, folioNrPages, pageMarkDirty, pageSetFlag, pageTestFlag } from './page.js';
import { allocPmd, leafTable, lockTable, NO_TABLE, pteIndex, tableOf, unlockTable } from './pgtable.js';
import { putPage } from './put-page.js';
import { anonVmaPrepare, pageAddFileRmap, pageAddNewAnonRmap } from './rmap.js';
import { rssAddFile } from './rss.js';
import { isHugeInSwap, splitSwapped } from './shmem-swap.js';
import {
  linearPageIndex,
  tracksWrites,
  userfaultfdWp,
  VM_NOHUGEPAGE,
  VM_SHARED,
  type VmArea,
  type VmFile,
  vmaPageProt,
} from './vma.js';

const { PG_hwpoison, PG_lru, PG_reclaim, PG_uptodate } = PAGE_FLAGS;
/** `fault_around_pages`: a read fault also maps what the page cache has of the 64 KiB around it. */
const FAULT_AROUND_PAGES = 16;

/** Where a fault is (`struct vm_fault`). */
export interface FaultSite {
  readonly vma: VmArea;
  /** Of the page. */
  readonly addr: VirtAddr;
  /** The marker that stands there: a userfaultfd protects the place, and what is mapped now as well. Default: none. */
  readonly marker?: Pte;
}

/** `do_fault()`: a fault where nothing is mapped. Precondition: mmap_lock held for reading, there is a leaf table. */
export function* doFault(kernel: Kernel, site: FaultSite, file: VmFile, write: boolean): Sleeps<VmFault> {
  if (write && (site.vma.flags & VM_SHARED) === 0) return yield* doCowFault(kernel, site, file);
  // Where a userfaultfd watches, each page comes for itself.
  if (!write && !userfaultfdWp(site.vma) && faultAround(kernel, site, file)) return 0;
  const page = yield* filemapFault(kernel, site, file);
  if (typeof page === 'string') return faultOf(page);
  if (pageTestFlag(kernel.memmap.words, page, PG_hwpoison)) {
    unlockCachedPage(kernel, page);
    return VM_FAULT_HWPOISON;
  }
  // do_shared_fault(): dirty before it can be written, so that no write-back takes it for clean (page_mkwrite).
  if (write) pageMarkDirty(kernel.memmap.words, page);
  if (!mapWholeFolio(kernel, site, page, write)) {
    finishFault(kernel, site, (at) => {
      mapFilePage(kernel, site.vma, at, page, write);
      if (site.marker !== undefined) protectEntry(kernel, at);
    });
  }
  unlockCachedPage(kernel, page);
  return 0;
}

/**
 * `finish_fault()` of a large folio: all of it, where its pages lie in one leaf table in which nothing else is mapped. A userfaultfd
 * hears of each page for itself. Precondition: the folio is locked.
 */
function mapWholeFolio(kernel: Kernel, { vma, addr }: FaultSite, page: Page, write: boolean): boolean {
  const { halves } = kernel.ram;
  const folio = folioHead(kernel.memmap.words, page);
  const pages = folioNrPages(kernel.memmap.words, page);
  const table = leafTable(kernel, vma.mm, addr);
  if (pages === 1 || userfaultfdWp(vma) || !hugeFits(vma, addr) || table === NO_TABLE) return false;
  lockTable(kernel, table);
  let isEmpty = true;
  for (let at = table; at < table + pages; at++)
    isEmpty &&= (peek32(halves, 2 * at) | peek32(halves, 2 * at + 1)) === 0;
  for (let i = 0; i < pages && isEmpty; i++) mapFilePage(kernel, vma, table + i, (folio + i) as Page, write);
  unlockTable(kernel, table);
  return isEmpty;
}

/**
 * A fault where not even a table stands, behind the end of the file: it gets none, as `do_fault()` has one ready and installs it with the page.
 * Precondition: mmap_lock held for reading.
 */
export function isBehindEnd(kernel: Kernel, vma: VmArea, addr: VirtAddr, file: VmFile, write: boolean): boolean {
  if (linearPageIndex(vma, addr) < filePages(file)) return false;
  // do_cow_fault() prepares for its copy before it asks for the page.
  if (write && (vma.flags & VM_SHARED) === 0) anonVmaPrepare(kernel, vma);
  return true;
}

/**
 * A fault where not even a table stands: what the page cache has of the 2 MiB as one page (or can have back from swap as one) becomes one
 * entry. Otherwise nothing happens, and small entries have to serve it. Precondition: mmap_lock held for reading.
 */
export function* mapHugeFilePage(
  kernel: Kernel,
  vma: VmArea,
  addr: VirtAddr,
  file: VmFile,
  write: boolean,
): Sleeps<void> {
  const index = linearPageIndex(vma, addr);
  const cached = file.pages.get(index);
  // What is in swap waits for who can map it: small entries map what was in the cache around a fault, not what it brings in.
  const isHuge =
    cached === undefined
      ? isHugeInSwap(file, index) && mayHaveHugeEntry(vma, addr)
      : folioNrPages(kernel.memmap.words, cached) === HPAGE_PMD_NR;
  if (!isHuge) return;
  const page = yield* filemapFault(kernel, { vma, addr }, file);
  if (typeof page === 'string') return;
  setFilePmd(kernel, vma, addr, page, write);
  unlockCachedPage(kernel, page);
}

const mayHaveHugeEntry = (vma: VmArea, addr: VirtAddr): boolean =>
  (vma.flags & VM_NOHUGEPAGE) === 0 && hugeFits(vma, addr);

/**
 * `do_set_pmd()`: one entry for the whole folio of a locked page; false where that cannot be: something is mapped there, the folio is
 * small or a part of it has failed, the mapping does not cover it or may have small pages only. Precondition: mmap_lock held for reading.
 */
export function setFilePmd(kernel: Kernel, vma: VmArea, addr: VirtAddr, page: Page, write: boolean): boolean {
  const { words } = kernel.memmap;
  const folio = folioHead(words, page);
  if (!mayHaveHugeEntry(vma, addr) || folioNrPages(words, folio) !== HPAGE_PMD_NR) return false;
  for (let i = 0; i < HPAGE_PMD_NR; i++) if (pageTestFlag(words, (folio + i) as Page, PG_hwpoison)) return false;
  const at = allocPmd(kernel, vma.mm, addr);
  if (at === NO_TABLE || !pteNone(readPte(kernel.ram.words, at))) return false;
  lockTable(kernel, tableOf(at));
  pageRefAdd(words, folio, 1);
  folioEntireMapcountAdd(words, folio, 1);
  rssAddFile(words, vma.mm, folio, HPAGE_PMD_NR);
  setHugePresent(kernel, vma, at, folio, LOW_ACCESSED | (write ? LOW_WRITE | LOW_MKDIRTY : 0));
  unlockTable(kernel, tableOf(at));
  return true;
}

/** `do_cow_fault()`: a store to a private mapping, of a page that it has not even read. */
function* doCowFault(kernel: Kernel, site: FaultSite, file: VmFile): Sleeps<VmFault> {
  const { memmap, ram } = kernel;
  const { vma, addr } = site;
  const copy = yield* allocUserPage(kernel);
  if (copy === NULL_PAGE) return VM_FAULT_OOM;
  anonVmaPrepare(kernel, vma);
  const page = yield* filemapFault(kernel, site, file);
  if (typeof page === 'string') {
    putPage(kernel, copy);
    return faultOf(page);
  }
  if (pageTestFlag(memmap.words, page, PG_hwpoison)) {
    unlockCachedPage(kernel, page);
    putPage(kernel, copy);
    return VM_FAULT_HWPOISON;
  }
  ram.copyFrame(memmap.ramFrame(page), memmap.ramFrame(copy));
  pageSetFlag(memmap.words, copy, PG_uptodate);
  const mapped = finishFault(kernel, site, (at) => {
    pageAddNewAnonRmap(kernel, copy, vma, addr);
    pageSetFlag(memmap.words, copy, PG_lru);
    vma.mm.rssAnon++;
    const flags = PTE_USER_PAGE | PTE_ACCESSED | PTE_WRITE | PTE_MKDIRTY;
    setPte(ram.words, at, makePte(memmap.pageToPfn(copy), flags));
    if (site.marker !== undefined) protectEntry(kernel, at);
  });
  unlockCachedPage(kernel, page);
  if (!mapped) putPage(kernel, copy);
  return 0;
}

/**
 * `wp_page_shared()`: a store through a read-only entry of a writable shared mapping never copies.
 * @param orig the entry, which maps `page`
 */
export function* wpPageShared(kernel: Kernel, site: FaultSite, page: Page, orig: Pte): Sleeps<VmFault> {
  const { words } = kernel.memmap;
  const tracked = tracksWrites(site.vma.file);
  pageRefAdd(words, page, 1);
  // Against write-back, which would take the page for clean, and truncate.
  if (tracked) yield* folioLock(kernel, page);
  atEntry(kernel, site, (at, pte) => {
    if (!ptePresent(pte) || ptePfn(pte) !== ptePfn(orig)) return false;
    // Protected while we waited for the page: the store is to be heard of.
    if (((pte ^ orig) & PTE_UFFD_WP) !== 0n) return false;
    pageMarkDirty(words, page);
    setPte(kernel.ram.words, at, (pte | PTE_ACCESSED | PTE_WRITE | PTE_MKDIRTY) as Pte);
    return true;
  });
  if (tracked) folioUnlock(words, page);
  putPage(kernel, page);
  return 0;
}

/** `filemap_fault()`, `shmem_fault()`: the page of the file, locked and held. */
function filemapFault(kernel: Kernel, { vma, addr }: FaultSite, file: VmFile): Sleeps<Page | Errno> {
  const index = linearPageIndex(vma, addr);
  if (userfaultfdWp(vma)) splitSwapped(file, index);
  if (mustBeRead(kernel, file, index)) kernel.stats.pgmajfault++;
  return lockFilePage(kernel, file, index, () => filePages(file));
}

/** Does a fault have to wait for the page? Reads and MADV_COLLAPSE wait as well, but are no faults. */
function mustBeRead({ swap }: Kernel, file: VmFile, index: number): boolean {
  const entry = file.swapped?.entries.get(index);
  if (entry !== undefined) return swap.cachedPage(entry) === NULL_PAGE;
  return tracksWrites(file) && !file.pages.has(index) && index < filePages(file);
}

const faultOf = (errno: Errno): VmFault => (errno === 'ENOMEM' ? VM_FAULT_OOM : VM_FAULT_SIGBUS);

/** `finish_fault()`: map something, unless somebody has been faster. */
const finishFault = (kernel: Kernel, site: FaultSite, map: (at: number) => void): boolean =>
  atEntry(kernel, site, (at, pte) => {
    if (pte !== (site.marker ?? 0n)) return false;
    map(at);
    return true;
  });

/** `pte_mkuffd_wp()`: who came for the page takes it read-only, and the store that comes then is heard of. */
function protectEntry({ ram }: Kernel, at: number): void {
  setPte(ram.words, at, ((readPte(ram.words, at) & ~PTE_WRITE) | PTE_UFFD_WP) as Pte);
}

/**
 * Do something about an entry, under its page table's lock. False without its leaf table, which may be given back while a fault
 * sleeps: then there is nothing to do, and the access faults again.
 */
function atEntry(kernel: Kernel, { vma, addr }: FaultSite, change: (at: number, pte: Pte) => boolean): boolean {
  const table = leafTable(kernel, vma.mm, addr);
  if (table === NO_TABLE) return false;
  const at = table + pteIndex(addr);
  lockTable(kernel, table);
  const changed = change(at, readPte(kernel.ram.words, at));
  unlockTable(kernel, table);
  return changed;
}

/** `do_fault_around()`, `filemap_map_pages()`: map what is there already. Returns whether that served the fault itself. */
function faultAround(kernel: Kernel, { vma, addr }: FaultSite, file: VmFile): boolean {
  const table = leafTable(kernel, vma.mm, addr);
  const entry = pteIndex(addr);
  const first = Math.max(entry - (entry % FAULT_AROUND_PAGES), entry - Math.min(entry, (addr - vma.start) / PAGE_SIZE));
  const index = linearPageIndex(vma, addr) - entry;
  const end = Math.min(
    first + FAULT_AROUND_PAGES,
    PTRS_PER_TABLE,
    entry + (vma.end - addr) / PAGE_SIZE,
    // Truncate makes a file shorter first, and takes the pages away later.
    filePages(file) - index,
  );
  let served = false;
  lockTable(kernel, table);
  for (let i = first; i < end; i++) {
    const page = file.pages.get(index + i);
    if (page === undefined || folioLocked(kernel.memmap.words, page)) continue;
    // PG_readahead: without readahead no fault takes that away.
    if (pageTestFlag(kernel.memmap.words, page, PG_hwpoison | PG_reclaim)) continue;
    if (!pteNone(readPte(kernel.ram.words, table + i))) continue;
    mapFilePage(kernel, vma, table + i, page, false);
    served ||= i === entry;
  }
  unlockTable(kernel, table);
  return served;
}

/** `set_pte_range()` of a page that is not anonymous. Precondition: page table lock held, the entry is none. */
export function mapFilePage(kernel: Kernel, vma: VmArea, at: number, page: Page, write: boolean): void {
  const { words } = kernel.memmap;
  pageRefAdd(words, page, 1);
  pageAddFileRmap(kernel, page);
  rssAddFile(words, vma.mm, page, 1);
  const access = BigInt(vmaPageProt(vma)) | PTE_ACCESSED | (write ? PTE_WRITE | PTE_MKDIRTY : 0n);
  setPte(kernel.ram.words, at, makePte(kernel.memmap.pageToPfn(page), access));
}
