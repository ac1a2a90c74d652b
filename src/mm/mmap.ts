/** Mapping and unmapping. Linux: mm/mmap.c, mm/vma.c. */
import { isPageAligned, MMAP_MIN_ADDR, PAGE_SIZE, PMD_SIZE, pageAlignUp, TASK_SIZE } from '../abi/address.js';
import type { Errno, Result } from '../abi/errno.js';
import type { VirtAddr } from '../base/brand.js';
import type { Sleeps } from '../sync/task.js';
import { vmFileGet, vmFilePut } from './filemap.js';
import { hugeAlignUp } from './huge-pmd.js';
import { hugetlbFileSetup, hugetlbHas, hugetlbMaySplit, hugetlbVmaClose, isHugetlb } from './hugetlb.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import { freePgtables } from './pgtable.js';
import { anonVmaUnlink } from './rmap.js';
import { isShmem, shmemZeroSetup } from './shmem.js';
import {
  VM_ACCOUNT,
  VM_DONTEXPAND,
  VM_HUGETLB,
  VM_MAYREAD,
  VM_MAYSHARE,
  VM_MAYWRITE,
  VM_READ,
  VM_SHARED,
  VM_SOFTDIRTY,
  VM_WRITE,
  VmArea,
  type VmFile,
} from './vma.js';
import { mergeVma, splitVma } from './vma-merge.js';
import { zapRange } from './zap.js';

export const PROTECTIONS = ['none', 'r', 'w', 'rw'] as const;
export type Protection = (typeof PROTECTIONS)[number];

export const PROTECTION_FLAGS: Readonly<Record<Protection, number>> = {
  none: 0,
  r: VM_READ,
  w: VM_WRITE,
  rw: VM_READ | VM_WRITE,
};

/** Highest address that mmap chooses by itself (mmap_base, without randomisation). */
const MMAP_BASE = 0x7fff_f7ff_f000;

export interface MmapRequest {
  /** Where; only with `fixed`, otherwise the kernel chooses top-down. */
  readonly addr?: VirtAddr;
  /** Bytes, rounded up to pages. */
  readonly length: number;
  readonly prot: Protection;
  /** MAP_FIXED: what is mapped there goes away. */
  readonly fixed: boolean;
  /** MAP_PRIVATE (the default) or MAP_SHARED: children, and whoever maps the same file, see what is written. */
  readonly kind?: 'private' | 'shared';
  /** What is mapped, from which page on; otherwise anonymous memory. */
  readonly file?: { readonly file: VmFile; readonly pgoff: number };
  /** MAP_HUGETLB: huge pages from the pool, to oneself; the length is rounded up to whole ones. */
  readonly hugetlb?: boolean;
}

/** What a mapping of so many bytes takes: whole pages, of the hugetlb pool huge ones. */
export const wholeLength = (length: number, hugetlb: boolean): number =>
  hugetlb ? hugeAlignUp(length) : pageAlignUp(length);

/**
 * `do_mmap()`: the address, EINVAL, ENOMEM (also: too many mappings, or the hugetlb pool has not so many pages), or EPERM below
 * mmap_min_addr; whatever else the file says.
 */
export function* doMmap(kernel: Kernel, mm: MmStruct, request: MmapRequest): Sleeps<VirtAddr | Errno> {
  const { hugetlb = false } = request;
  const length = wholeLength(request.length, hugetlb);
  if (length === 0) return 'EINVAL';
  if (length > TASK_SIZE) return 'ENOMEM';
  yield* mm.mmapLock.downWrite();
  try {
    if (mm.exiting || mm.vmas.size > kernel.maxMapCount) return 'ENOMEM';
    const shared = request.kind === 'shared';
    let start: number | undefined;
    if (request.fixed) {
      start = request.addr;
      if (start === undefined) return 'EINVAL';
      if (start + length > TASK_SIZE) return 'ENOMEM';
      if (!isPageAligned(start)) return 'EINVAL';
      if (start < MMAP_MIN_ADDR) return 'EPERM';
      if (hugetlb && start % PMD_SIZE !== 0) return 'EINVAL';
      if (!mayUnmap(mm, start, start + length)) return 'EINVAL';
      if (hugetlb && !hugetlbHas(kernel, length)) return 'ENOMEM';
      const kept = yield* unmapRegion(kernel, mm, start, start + length);
      if (kept !== 0) return kept;
    } else {
      start = getUnmappedArea(mm, length, request.file !== undefined ? 'file' : shared ? 'shared' : 'anonymous');
      if (start === undefined) return 'ENOMEM';
    }
    const access = PROTECTION_FLAGS[request.prot];
    // accountable_mapping(): the hugetlb pool has reservations of its own.
    const privateFlags = (access & VM_WRITE) !== 0 && !hugetlb ? VM_ACCOUNT : 0;
    const kind = (shared ? VM_SHARED | VM_MAYSHARE : privateFlags) | (hugetlb ? VM_HUGETLB | VM_DONTEXPAND : 0);
    const flags = access | VM_SOFTDIRTY | VM_MAYREAD | VM_MAYWRITE | kind;
    const mapped = mappedFile(kernel, mm, request, start, length);
    if (mapped === 'ENOMEM') return mapped;
    const { file, pgoff } = mapped;
    const vma = new VmArea(mm, start as VirtAddr, (start + length) as VirtAddr, flags, pgoff, file);
    mm.vmas.insert(vma.start, vma.end, vma);
    const refused = file?.mmap?.(kernel, vma) ?? 0;
    if (refused !== 0) {
      yield* unmapRegion(kernel, mm, vma.start, vma.end);
      return refused;
    }
    mergeVma(kernel, vma);
    return start as VirtAddr;
  } finally {
    mm.mmapLock.upWrite();
  }
}

/** The file behind a new mapping, with one more user, and the page offset at which it begins. */
function mappedFile(
  kernel: Kernel,
  mm: MmStruct,
  { file: mapped, kind, hugetlb }: MmapRequest,
  start: number,
  length: number,
): { readonly file: VmFile | null; readonly pgoff: number } | 'ENOMEM' {
  if (hugetlb) {
    const file = hugetlbFileSetup(kernel, mm, length);
    return file === 'ENOMEM' ? file : { file, pgoff: 0 };
  }
  if (mapped !== undefined) {
    vmFileGet(mapped.file);
    return mapped;
  }
  if (kind === 'shared') return { file: shmemZeroSetup(kernel, length), pgoff: 0 };
  return { file: null, pgoff: start / PAGE_SIZE };
}

type AreaKind = 'anonymous' | 'shared' | 'file';

/** What a mapping is to `getUnmappedArea`. */
export const areaKind = ({ file }: VmArea): AreaKind =>
  file === null ? 'anonymous' : isShmem(file) ? 'shared' : 'file';

/**
 * `get_unmapped_area()`: top-down. A file that can hold a huge page is aligned for one, and since 6.12 anonymous memory if it is nothing
 * but huge pages; shared memory is not, as long as shmem_enabled is "never".
 */
export function getUnmappedArea(mm: MmStruct, length: number, what: AreaKind): number | undefined {
  const aligned = what === 'file' ? length >= PMD_SIZE : what === 'anonymous' && length % PMD_SIZE === 0;
  return mm.vmas.highestGap(length, MMAP_MIN_ADDR, MMAP_BASE, aligned ? PMD_SIZE : PAGE_SIZE);
}

/** Are the borders of [start, end) no places inside of pages of the hugetlb pool? */
export const mayUnmap = (mm: MmStruct, start: number, end: number): boolean =>
  hugetlbMaySplit(mm, start) && hugetlbMaySplit(mm, end);

/** `do_munmap()`: EINVAL on a bad range; unmapping nothing is fine. */
export function* doMunmap(kernel: Kernel, mm: MmStruct, start: VirtAddr, length: number): Sleeps<Result> {
  yield* mm.mmapLock.downWrite();
  try {
    return yield* unmapRange(kernel, mm, start, pageAlignUp(length));
  } finally {
    mm.mmapLock.upWrite();
  }
}

/** `do_vmi_munmap()`. Precondition: mmap_lock held for writing, whole pages. */
export function* unmapRange(kernel: Kernel, mm: MmStruct, start: number, length: number): Sleeps<Result> {
  if (!isPageAligned(start) || length === 0 || start + length > TASK_SIZE) return 'EINVAL';
  if (!mayUnmap(mm, start, start + length)) return 'EINVAL';
  return yield* unmapRegion(kernel, mm, start, start + length);
}

/**
 * Unmap [start, end), splitting the VMAs at its borders; ENOMEM where that made one of many two.
 * Precondition: mmap_lock held for writing.
 */
export function* unmapRegion(kernel: Kernel, mm: MmStruct, start: number, end: number): Sleeps<0 | 'ENOMEM'> {
  const first = mm.vmas.find(start);
  const insideOne = first !== undefined && first.start < start && end < first.end;
  if (insideOne && mm.vmas.size >= kernel.maxMapCount) return 'ENOMEM';
  yield* splitVma(kernel, mm, start);
  yield* splitVma(kernel, mm, end);
  const victims = mm.vmas.overlapping(start, end);
  if (victims.length === 0) return 0;
  // unmap_vmas() tells of all that was asked for at once, holes included.
  const range: MmuNotifierRange = {
    mm,
    start: start as VirtAddr,
    end: end as VirtAddr,
    event: 'MMU_NOTIFY_UNMAP',
    owner: null,
  };
  yield* mmuNotifierInvalidateRangeStart(range);
  for (const { value: vma } of victims) yield* zapRange(kernel, vma, vma.start, vma.end);
  mmuNotifierInvalidateRangeEnd(range);
  for (const { value: vma } of victims) {
    if (isHugetlb(vma)) hugetlbVmaClose(kernel, vma);
    anonVmaUnlink(kernel, vma);
    vmFilePut(kernel, vma.file);
    mm.vmas.remove(vma.start);
  }
  const floor = mm.vmas.previous(start)?.end ?? 0;
  const ceiling = mm.vmas.firstEndingAfter(end)?.start ?? 2 ** 48;
  freePgtables(kernel, mm, floor, ceiling);
  return 0;
}
