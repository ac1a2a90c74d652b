/** `struct vm_area_struct`. Linux: include/linux/mm_types.h, mm.h (VM_* flags). */
import { PAGE_SIZE } from '../abi/address.js';
import type { Result } from '../abi/errno.js';
import { LOW_PRESENT, LOW_PROTNONE, LOW_USER, LOW_WRITE } from '../abi/pte-halves.js';
import type { SwapEntry } from '../abi/swap-entry.js';
import type { Page, VirtAddr } from '../base/brand.js';
import type { Interval } from '../base/interval-tree.js';
import type { Sleeps } from '../sync/task.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import type { AnonVma } from './rmap.js';
import type { Userfaultfd } from './userfaultfd-context.js';

export const VM_READ = 0x1;
export const VM_WRITE = 0x2;
export const VM_EXEC = 0x4;
/** What the CPU may do. */
export const VM_ACCESS_FLAGS = VM_READ | VM_WRITE | VM_EXEC;
export const VM_SHARED = 0x8;
export const VM_MAYREAD = 0x10;
export const VM_MAYWRITE = 0x20;
export const VM_MAYSHARE = 0x80;
/** A userfaultfd watches for writes to what it protects (userfaultfd.ts). */
export const VM_UFFD_WP = 0x1000;
/** mlock: reclaim leaves the pages alone. VM_LOCKONFAULT: they come when they are touched. */
export const VM_LOCKED = 0x2000;
export const VM_LOCKONFAULT = 0x80000;
export const VM_LOCKED_MASK = VM_LOCKED | VM_LOCKONFAULT;
/** Mappings that migrate_vma never touches: pfn maps, I/O, mixed maps. */
export const VM_PFNMAP = 0x400;
export const VM_IO = 0x4000;
export const VM_DONTEXPAND = 0x40000;
/** Huge pages from the pool (hugetlb.ts). */
export const VM_HUGETLB = 0x400000;
/** Counts against the commit limit: private and writable at some time. Only VMAs that agree on it merge. */
export const VM_ACCOUNT = 0x100000;
/** Everything in it counts as soft-dirty: it is new since the last clear_refs. Of two that merge, one suffices. */
export const VM_SOFTDIRTY = 0x8000000;
export const VM_MIXEDMAP = 0x10000000;
/** MADV_HUGEPAGE, MADV_NOHUGEPAGE. */
export const VM_HUGEPAGE = 0x20000000;
export const VM_NOHUGEPAGE = 0x40000000;
export const VM_SPECIAL = VM_IO | VM_DONTEXPAND | VM_PFNMAP | VM_MIXEDMAP;

/** How the page cache of a file is filled and emptied (`struct address_space_operations`). */
export interface PageCacheOps {
  /** `read_folio()`: fill a page that is in the page cache already, but locked, so that nobody looks at it yet. */
  readPage(kernel: Kernel, page: Page, index: number): Sleeps<void>;
  /**
   * Write one page back. `null`: the page cache is all there is (shared anonymous memory), so nobody has to hear of a first
   * write. Otherwise a shared mapping is read-only until its first write, which faults (`page_mkwrite`).
   */
  readonly writePage: ((kernel: Kernel, page: Page, index: number) => Sleeps<void>) | null;
  /** Bring in what is in swap: the page, locked and held; NULL_PAGE when it is to be looked for again. */
  swapIn?(kernel: Kernel, file: VmFile, index: number): Sleeps<Page | 'ENOMEM'>;
}

/** What of shared memory is in swap: its page cache has the entry instead of the page, which counts in `swap_map`. */
export interface SwappedPages {
  /** By page offset. */
  readonly entries: Map<number, SwapEntry>;
  /** First page offsets of huge pages that went as one: their slots lie in a row. */
  readonly huge: Set<number>;
}

/** What backs a mapping that is not anonymous (`struct file` with its inode and address_space). See filemap.ts. */
export interface VmFile {
  /** Also its inode number. */
  readonly id: number;
  readonly name: string;
  /** The device of its file system, as /proc/PID/maps prints it. */
  readonly device: string;
  /** Page cache: pages by their page offset; the cache holds each once. */
  readonly pages: Map<number, Page>;
  /** Only of shared memory. */
  readonly swapped?: SwappedPages;
  /** Length in bytes (`i_size`); a touch of a page behind it is SIGBUS. */
  size: number;
  /** VMAs that map it and files that are open: `vmFileGet`, `vmFilePut`. */
  users: number;
  /** VMAs that were entered among those that map it, and again when their borders moved. */
  entered: number;
  /** Bytes that were written have been lost, and nobody has been told yet (AS_EIO). */
  writebackError?: boolean;
  /** `null`: no page cache. What its mappings show was put there by `mmap`. */
  readonly cache: PageCacheOps | null;
  /** `f_op->mmap`: for a file that fills a new mapping itself. Precondition: mmap_lock held for writing. */
  mmap?(kernel: Kernel, vma: VmArea): Result;
}

/** `struct anon_vma_chain`: a VMA's place in one anon_vma. */
export interface AnonVmaLink {
  readonly anonVma: AnonVma;
  handle: Interval<VmArea>;
}

export class VmArea {
  readonly mm: MmStruct;
  /** Guarded by mmap_lock held for writing, like all fields. */
  start: VirtAddr;
  /** Not included. */
  end: VirtAddr;
  flags: number;
  /** Page offset of `start` in the mapping; for anonymous memory the page number of the address it was first mapped at. */
  pgoff: number;
  /** Where new pages go. Made at the first fault. */
  anonVma: AnonVma | null = null;
  /** All anon_vmas whose pages may be mapped here: its own, and after fork those of the ancestors. */
  readonly anonChain: AnonVmaLink[] = [];
  /** When it was entered among the VMAs of its file: of several with the same page offset, the reverse map visits older ones first. */
  fileEntry: number;
  readonly file: VmFile | null;
  /** Who has registered it, with VM_UFFD_WP (`vm_userfaultfd_ctx`). */
  userfaultfd: Userfaultfd | null = null;

  constructor(mm: MmStruct, start: VirtAddr, end: VirtAddr, flags: number, pgoff: number, file: VmFile | null = null) {
    this.mm = mm;
    this.start = start;
    this.end = end;
    this.flags = flags;
    this.pgoff = pgoff;
    this.file = file;
    this.fileEntry = file === null ? 0 : ++file.entered;
  }
}

/** `is_cow_mapping()`: private, and may become writable. */
export const isCowMapping = (flags: number): boolean => (flags & (VM_SHARED | VM_MAYWRITE)) === VM_MAYWRITE;
/** `migrate_vma_setup()` refuses mappings that drivers made, and those of the hugetlb pool. */
export const vmaMayMigrate = (vma: VmArea): boolean => (vma.flags & (VM_SPECIAL | VM_HUGETLB)) === 0;
/** `vma_is_accessible()`: anything but PROT_NONE. */
export const vmaIsAccessible = (vma: VmArea): boolean => (vma.flags & VM_ACCESS_FLAGS) !== 0;
/**
 * Of `vm_page_prot` the bits that say what hardware may do. The write bit only for shared memory without write-back: a private
 * page becomes writable when it is known to be ours alone, one of a file when it is known to be dirty (`vma_wants_writenotify`).
 */
export function vmaPageProt(vma: VmArea): number {
  if (!vmaIsAccessible(vma)) return LOW_PROTNONE;
  const shared = (vma.flags & VM_SHARED) !== 0 && (vma.flags & VM_WRITE) !== 0;
  return LOW_PRESENT | LOW_USER | (shared && !wantsWritenotify(vma) ? LOW_WRITE : 0);
}
/** `vm_ops_needs_writenotify()`: must the first write to each page of a mapping be heard of? */
export const tracksWrites = (file: VmFile | null): boolean => file?.cache?.writePage != null;
/** `vma_soft_dirty_enabled()`: has the mapping been there when clear_refs began to watch for writes? */
export const vmaSoftDirtyEnabled = (vma: VmArea): boolean => (vma.flags & VM_SOFTDIRTY) === 0;
/** `userfaultfd_wp()`. */
export const userfaultfdWp = (vma: VmArea): boolean => (vma.flags & VM_UFFD_WP) !== 0;
/** `vma_wants_writenotify()` of a shared writable mapping. */
const wantsWritenotify = (vma: VmArea): boolean =>
  tracksWrites(vma.file) || vmaSoftDirtyEnabled(vma) || userfaultfdWp(vma);
/** `vma_is_anonymous()`. */
export const vmaIsAnonymous = (vma: VmArea): boolean => vma.file === null;
/** `linear_page_index()`. */
export const linearPageIndex = (vma: VmArea, addr: number): number => vma.pgoff + (addr - vma.start) / PAGE_SIZE;
/** `find_vma()` that must contain the address (`vma_lookup`). */
export const vmaLookup = (mm: MmStruct, addr: number): VmArea | undefined => mm.vmas.find(addr);
