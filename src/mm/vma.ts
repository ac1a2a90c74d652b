/** `struct vm_area_struct`. Linux: include/linux/mm_types.h, mm.h (VM_* flags). */
import { PAGE_SIZE } from '../abi/address.js';
import type { VirtAddr } from '../base/brand.js';
import type { Interval } from '../base/interval-tree.js';
import type { MmStruct } from './mm-struct.js';
import type { AnonVma } from './rmap.js';

export const VM_READ = 0x1;
export const VM_WRITE = 0x2;
export const VM_EXEC = 0x4;
export const VM_SHARED = 0x8;
export const VM_MAYREAD = 0x10;
export const VM_MAYWRITE = 0x20;
/** Mappings that migrate_vma never touches: pfn maps, I/O, mixed maps. */
export const VM_PFNMAP = 0x400;
export const VM_IO = 0x4000;
export const VM_DONTEXPAND = 0x40000;
export const VM_MIXEDMAP = 0x10000000;
export const VM_SPECIAL = VM_IO | VM_DONTEXPAND | VM_PFNMAP | VM_MIXEDMAP;

/** What backs a mapping that is not anonymous. Shared and file mappings plug in here. */
export interface VmFile {
  readonly name: string;
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
  /** Made at the first fault. */
  anonVma: AnonVma | null = null;
  /** Place in the anon_vma's tree. */
  anonHandle: Interval<VmArea> | null = null;
  readonly file: VmFile | null;

  constructor(mm: MmStruct, start: VirtAddr, end: VirtAddr, flags: number, pgoff: number, file: VmFile | null = null) {
    this.mm = mm;
    this.start = start;
    this.end = end;
    this.flags = flags;
    this.pgoff = pgoff;
    this.file = file;
  }
}

/** `vma_is_anonymous()`. */
export const vmaIsAnonymous = (vma: VmArea): boolean => vma.file === null;
/** `linear_page_index()`. */
export const linearPageIndex = (vma: VmArea, addr: number): number => vma.pgoff + (addr - vma.start) / PAGE_SIZE;
/** `find_vma()` that must contain the address (`vma_lookup`). */
export const vmaLookup = (mm: MmStruct, addr: number): VmArea | undefined => mm.vmas.find(addr)?.value;
