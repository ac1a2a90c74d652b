/** `struct vm_area_struct`. Linux: include/linux/mm_types.h, mm.h (VM_* flags). */
import { PAGE_SIZE } from '../abi/address.js';
import { LOW_PRESENT, LOW_PROTNONE, LOW_USER, LOW_WRITE } from '../abi/pte-halves.js';
import type { Page, VirtAddr } from '../base/brand.js';
import type { Interval } from '../base/interval-tree.js';
import type { MmStruct } from './mm-struct.js';
import type { AnonVma } from './rmap.js';

export const VM_READ = 0x1;
export const VM_WRITE = 0x2;
export const VM_EXEC = 0x4;
/** What the CPU may do. */
export const VM_ACCESS_FLAGS = VM_READ | VM_WRITE | VM_EXEC;
export const VM_SHARED = 0x8;
export const VM_MAYREAD = 0x10;
export const VM_MAYWRITE = 0x20;
export const VM_MAYSHARE = 0x80;
/** Mappings that migrate_vma never touches: pfn maps, I/O, mixed maps. */
export const VM_PFNMAP = 0x400;
export const VM_IO = 0x4000;
export const VM_DONTEXPAND = 0x40000;
/** Counts against the commit limit: private and writable at some time. Only VMAs that agree on it merge. */
export const VM_ACCOUNT = 0x100000;
export const VM_MIXEDMAP = 0x10000000;
/** MADV_HUGEPAGE, MADV_NOHUGEPAGE. */
export const VM_HUGEPAGE = 0x20000000;
export const VM_NOHUGEPAGE = 0x40000000;
export const VM_SPECIAL = VM_IO | VM_DONTEXPAND | VM_PFNMAP | VM_MIXEDMAP;

/** What backs a mapping that is not anonymous: a file with its page cache (`struct file`, `struct address_space`). See shmem.ts. */
export interface VmFile {
  readonly id: number;
  readonly name: string;
  /** Page cache: pages by their page offset; the cache holds each once. */
  readonly pages: Map<number, Page>;
  /** Length in pages; a touch behind it is SIGBUS. */
  readonly size: number;
  /** VMAs that map it: `vmFileGet`, `vmFilePut`. */
  users: number;
  /** VMAs that were entered among those that map it, and again when their borders moved. */
  entered: number;
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
/** `vma_is_accessible()`: anything but PROT_NONE. */
export const vmaIsAccessible = (vma: VmArea): boolean => (vma.flags & VM_ACCESS_FLAGS) !== 0;
/**
 * Of `vm_page_prot` the bits that say what hardware may do. The write bit only for shared memory: a private page becomes
 * writable when it is known to be ours alone.
 */
export function vmaPageProt(vma: VmArea): number {
  if (!vmaIsAccessible(vma)) return LOW_PROTNONE;
  const shared = (vma.flags & VM_SHARED) !== 0 && (vma.flags & VM_WRITE) !== 0;
  return LOW_PRESENT | LOW_USER | (shared ? LOW_WRITE : 0);
}
/** `vma_is_anonymous()`. */
export const vmaIsAnonymous = (vma: VmArea): boolean => vma.file === null;
/** `linear_page_index()`. */
export const linearPageIndex = (vma: VmArea, addr: number): number => vma.pgoff + (addr - vma.start) / PAGE_SIZE;
/** `find_vma()` that must contain the address (`vma_lookup`). */
export const vmaLookup = (mm: MmStruct, addr: number): VmArea | undefined => mm.vmas.find(addr)?.value;
