/**
 * Shared anonymous memory: an object with a page cache, mapped by VMAs of any number of processes. Linux: mm/shmem.c
 * shmem_zero_setup(), shmem_fault(), and the file half of mm/memory.c do_fault().
 *
 * The object holds one reference on each of its pages, every mapping another. Its pages never swap out and it never grows.
 * Not modelled: huge pages of it, memory policy, shmem_enabled, tmpfs.
 */
import { PAGE_SIZE, PTRS_PER_TABLE } from '../abi/address.js';
import { VM_FAULT_OOM, VM_FAULT_SIGBUS, type VmFault } from '../abi/errno.js';
import { makePte, PTE_ACCESSED, PTE_DIRTY, PTE_USER_PAGE, PTE_WRITE, pteNone } from '../abi/pte.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { NULL_PAGE, type Page, type VirtAddr } from '../base/brand.js';
import { folioLocked, pageRefAdd } from '../sync/page-ref.js';
import { readPte, setPte } from '../sync/word.js';
import type { Kernel } from './kernel.js';
import { pageClearMapping, pageSetFileMapping, pageSetFlag } from './page.js';
import { lockTable, pteIndex, type TableIndex, unlockTable } from './pgtable.js';
import { putPage } from './put-page.js';
import { pageAddFileRmap } from './rmap.js';
import { linearPageIndex, VM_WRITE, type VmArea, type VmFile } from './vma.js';

const { PG_dirty, PG_lru, PG_swapbacked, PG_uptodate } = PAGE_FLAGS;
/** `fault_around_pages`: a read fault also maps what the page cache has of the 64 KiB around it. */
const FAULT_AROUND_PAGES = 16;

/** `shmem_zero_setup()`: an object of `size` pages of zeroes, with one user. */
export const shmemZeroSetup = (kernel: Kernel, size: number): VmFile =>
  kernel.files.add((id) => ({ id, name: '/dev/zero (deleted)', pages: new Map(), size, users: 1, entered: 0 }));

/** One more VMA maps the file (`get_file`): for whoever splits, copies or forks a VMA. */
export function vmFileGet(file: VmFile | null): void {
  if (file !== null) file.users++;
}

/** A VMA of the file has gone (`fput`); the last one takes the contents along. Precondition: its pages are unmapped there. */
export function vmFilePut(kernel: Kernel, file: VmFile | null): void {
  if (file === null || --file.users > 0) return;
  for (const page of file.pages.values()) {
    // Somebody may still have a pin: the page then lives on without a home (`shmem_truncate_range`).
    pageClearMapping(kernel.memmap.words, page);
    putPage(kernel, page);
  }
  file.pages.clear();
  kernel.files.remove(file.id);
}

/** `shmem_get_folio()`: the page at page offset `index`, made on first demand; NULL_PAGE when RAM is out. */
function shmemGetPage(kernel: Kernel, file: VmFile, index: number): Page {
  const found = file.pages.get(index);
  if (found !== undefined) return found;
  const page = kernel.buddy.allocPages(0);
  if (page === NULL_PAGE) return page;
  const { words, floats } = kernel.memmap;
  kernel.ram.zeroFrame(kernel.memmap.ramFrame(page));
  pageSetFlag(words, page, PG_uptodate | PG_swapbacked | PG_lru);
  pageSetFileMapping(words, floats, page, file.id, index);
  file.pages.set(index, page);
  return page;
}

/**
 * A fault where nothing is mapped: `do_read_fault()` or `do_shared_fault()`. Nothing has to be told of writes to this memory,
 * so a read of a writable mapping maps the page writable at once, and clean.
 */
export function shmemFault(
  kernel: Kernel,
  vma: VmArea,
  file: VmFile,
  addr: VirtAddr,
  table: TableIndex,
  write: boolean,
): VmFault {
  const index = linearPageIndex(vma, addr);
  if (!write && faultAround(kernel, vma, file, addr, table)) return 0;
  if (index >= file.size) return VM_FAULT_SIGBUS;
  const page = shmemGetPage(kernel, file, index);
  if (page === NULL_PAGE) return VM_FAULT_OOM;
  lockTable(kernel, table);
  mapFilePage(kernel, vma, table + pteIndex(addr), page, write);
  unlockTable(kernel, table);
  // fault_dirty_shared_page(): known dirty by the page too, whoever else maps it.
  if (write) pageSetFlag(kernel.memmap.words, page, PG_dirty);
  return 0;
}

/** `wp_page_shared()`: a store through a read-only entry of a writable shared mapping never copies. */
export function wpPageShared(kernel: Kernel, at: number, table: TableIndex, page: Page): VmFault {
  lockTable(kernel, table);
  const pte = readPte(kernel.ram.words, at);
  setPte(kernel.ram.words, at, (pte | PTE_ACCESSED | PTE_WRITE | PTE_DIRTY) as typeof pte);
  unlockTable(kernel, table);
  pageSetFlag(kernel.memmap.words, page, PG_dirty);
  return 0;
}

/** `do_fault_around()`, `filemap_map_pages()`: map what is there already. Returns whether that served the fault itself. */
function faultAround(kernel: Kernel, vma: VmArea, file: VmFile, addr: VirtAddr, table: TableIndex): boolean {
  const entry = pteIndex(addr);
  const first = Math.max(entry - (entry % FAULT_AROUND_PAGES), entry - Math.min(entry, (addr - vma.start) / PAGE_SIZE));
  const end = Math.min(first + FAULT_AROUND_PAGES, PTRS_PER_TABLE, entry + (vma.end - addr) / PAGE_SIZE);
  const index = linearPageIndex(vma, addr) - entry;
  let served = false;
  lockTable(kernel, table);
  for (let i = first; i < end; i++) {
    const page = file.pages.get(index + i);
    if (page === undefined || folioLocked(kernel.memmap.words, page)) continue;
    if (!pteNone(readPte(kernel.ram.words, table + i))) continue;
    mapFilePage(kernel, vma, table + i, page, false);
    served ||= i === entry;
  }
  unlockTable(kernel, table);
  return served;
}

/** `set_pte_range()`. Precondition: page table lock held, the entry is none. */
function mapFilePage(kernel: Kernel, vma: VmArea, at: number, page: Page, write: boolean): void {
  const { words } = kernel.memmap;
  pageRefAdd(words, page, 1);
  pageAddFileRmap(kernel, page);
  vma.mm.rssShmem++;
  const access = ((vma.flags & VM_WRITE) !== 0 ? PTE_WRITE : 0n) | (write ? PTE_DIRTY : 0n);
  setPte(kernel.ram.words, at, makePte(kernel.memmap.pageToPfn(page), PTE_USER_PAGE | PTE_ACCESSED | access));
}
