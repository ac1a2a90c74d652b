/** Moving and resizing mappings. Linux: mm/mremap.c. */
import { isPageAligned, MMAP_MIN_ADDR, PAGE_SIZE, PMD_SIZE, pageAlignUp, TASK_SIZE } from '../abi/address.js';
import type { Errno, Result } from '../abi/errno.js';
import type { VirtAddr } from '../base/brand.js';
import type { Sleeps } from '../sync/task.js';
import { reclaimUntilFree } from './alloc.js';
import { vmFileGet } from './filemap.js';
import { hugeAlignUp, isHugeAligned } from './huge-pmd.js';
import { isHugetlb } from './hugetlb.js';
import type { Kernel } from './kernel.js';
import { mmPopulate } from './mlock.js';
import type { MmStruct } from './mm-struct.js';
import { areaKind, getUnmappedArea, mayUnmap, unmapRange, unmapRegion } from './mmap.js';
import { movePageTables } from './move-tables.js';
import { anonVmaClone, anonVmaUnlink } from './rmap.js';
import {
  linearPageIndex,
  VM_DONTEXPAND,
  VM_LOCKED,
  VM_LOCKED_MASK,
  VM_PFNMAP,
  VM_SHARED,
  VM_UFFD_WP,
  VmArea,
  vmaIsAnonymous,
  vmaLookup,
} from './vma.js';
import { mergeVma, setVmaEnd, splitVma } from './vma-merge.js';

/** MREMAP_*. */
export interface MremapFlags {
  /** MREMAP_MAYMOVE. */
  readonly maymove: boolean;
  /** MREMAP_FIXED: where to; what is mapped there goes away. */
  readonly fixedAt?: VirtAddr;
  /** MREMAP_DONTUNMAP: the old range stays mapped, empty. */
  readonly dontunmap?: boolean;
}

/** A request whose lengths are aligned, and the state that belongs to it (`struct vma_remap_struct`). */
interface Remap {
  readonly mm: MmStruct;
  readonly addr: number;
  readonly oldLen: number;
  readonly newLen: number;
  readonly flags: MremapFlags;
}

/** `do_mremap()`: the new address, EINVAL, EFAULT (nothing mapped there, or beyond the end of the VMA), ENOMEM, EPERM. */
export function* doMremap(
  kernel: Kernel,
  mm: MmStruct,
  addr: VirtAddr,
  oldLen: number,
  newLen: number,
  flags: MremapFlags,
): Sleeps<VirtAddr | Errno> {
  const remap: Remap = { mm, addr, oldLen: pageAlignUp(oldLen), newLen: pageAlignUp(newLen), flags };
  const bad = checkParameters(remap);
  if (bad !== 0) return bad;
  yield* mm.mmapLock.downWrite();
  let moved: VirtAddr | Errno;
  try {
    if (mm.exiting) return 'EFAULT';
    // check_map_count_against_split_early(): what goes away at either end may leave one mapping more than there was, and so may the move.
    if (!hasRoom(kernel, mm, (flags.dontunmap ?? false) ? 5 : 4)) return 'ENOMEM';
    const moveOnly = flags.fixedAt !== undefined && remap.oldLen === remap.newLen;
    moved = (yield* moveOnly ? remapMove(kernel, remap) : remapOne(kernel, remap)) as VirtAddr | Errno;
  } finally {
    mm.mmapLock.upWrite();
  }
  if (typeof moved === 'number') yield* populateGrown(kernel, remap, moved);
  return moved;
}

/** What a locked mapping has grown by comes into RAM at once; whether it can is not asked. */
function* populateGrown(kernel: Kernel, { mm, oldLen, newLen }: Remap, at: number): Sleeps<void> {
  if (newLen <= oldLen || ((vmaLookup(mm, at)?.flags ?? 0) & VM_LOCKED) === 0) return;
  yield* mmPopulate(kernel, mm, at + oldLen, at + newLen);
}

/** `align_hugetlb()`: of the hugetlb pool whole pages, from the border of one to the border of one, and nothing grows. */
function alignHugetlb(remap: Remap): Remap | 'EINVAL' {
  const oldLen = hugeAlignUp(remap.oldLen);
  const newLen = hugeAlignUp(remap.newLen);
  const aligned = isHugeAligned(remap.addr) && isHugeAligned(remap.flags.fixedAt ?? 0);
  return aligned && newLen <= oldLen ? { ...remap, oldLen, newLen } : 'EINVAL';
}

/** Is no border of what goes away inside of a page of the hugetlb pool? */
const mayClear = ({ mm, addr, oldLen, newLen, flags: { fixedAt } }: Remap): boolean =>
  (fixedAt === undefined || mayUnmap(mm, fixedAt, fixedAt + newLen)) &&
  (newLen >= oldLen || mayUnmap(mm, addr + newLen, addr + oldLen));

const hasRoom = (kernel: Kernel, mm: MmStruct, more: number): boolean => mm.vmas.size + more <= kernel.maxMapCount;

const impliesNewAddress = ({ flags }: Remap): boolean => flags.fixedAt !== undefined || (flags.dontunmap ?? false);

/** `check_mremap_params()`. */
function checkParameters(remap: Remap): Result {
  const { addr, oldLen, newLen, flags } = remap;
  if (!isPageAligned(addr) || newLen === 0 || newLen > TASK_SIZE) return 'EINVAL';
  if (!impliesNewAddress(remap)) return 0;
  if (!flags.maymove) return 'EINVAL';
  if (flags.dontunmap && oldLen !== newLen) return 'EINVAL';
  const to = flags.fixedAt;
  if (to === undefined) return 0;
  if (to > TASK_SIZE - newLen || !isPageAligned(to)) return 'EINVAL';
  return addr < to + newLen && to < (addr + oldLen) % 2 ** 64 ? 'EINVAL' : 0;
}

/**
 * `remap_move()`: all VMAs of the range, the gaps between them kept; its start has to be mapped. One that a userfaultfd watches moves
 * alone or not at all (`vma_multi_allowed()`); what lies before it has moved then.
 */
function* remapMove(kernel: Kernel, remap: Remap): Sleeps<number | Errno> {
  const { mm, addr, flags } = remap;
  const end = addr + remap.oldLen;
  const to = flags.fixedAt!;
  let moved = false;
  for (let at = addr; at < end; ) {
    const range = mm.vmas.firstEndingAfter(at);
    if (range === undefined || range.start >= end) break;
    const start = Math.max(range.start, at);
    if (!moved && start > addr) return 'EFAULT';
    if (range.value.userfaultfd !== null && (moved || range.end < end)) return 'EFAULT';
    const stop = Math.min(range.end, end);
    const length = stop - start;
    const fixedAt = (to + start - addr) as VirtAddr;
    const part: Remap = { mm, addr: start, oldLen: length, newLen: length, flags: { ...flags, fixedAt } };
    const result = yield* remapOne(kernel, part);
    if (typeof result === 'string') return result;
    moved = true;
    at = stop;
  }
  return moved ? to : 'EFAULT';
}

/** One VMA: `check_prep_vma()`, then in place, shrunk, grown or moved. */
function* remapOne(kernel: Kernel, asked: Remap): Sleeps<number | Errno> {
  const { mm, addr } = asked;
  const vma = vmaLookup(mm, addr);
  if (vma === undefined) return 'EFAULT';
  const remap = isHugetlb(vma) ? alignHugetlb(asked) : asked;
  if (remap === 'EINVAL') return remap;
  const { oldLen, newLen } = remap;
  const moves = impliesNewAddress(remap);
  if (newLen > oldLen || moves) {
    const bad = checkVma(remap, vma);
    if (bad !== 0) return bad;
  }
  if (!mayClear(remap)) return 'EINVAL';
  if (moves) return yield* remapTo(kernel, remap);
  if (newLen < oldLen) {
    const kept = yield* unmapRange(kernel, mm, addr + newLen, oldLen - newLen);
    return kept === 0 ? addr : kept;
  }
  if (newLen === oldLen) return addr;
  return yield* expandVma(kernel, remap, vma);
}

/** What only matters where something new will be mapped. */
function checkVma({ addr, oldLen, newLen, flags }: Remap, vma: VmArea): Result {
  if (oldLen === 0 && (vma.flags & VM_SHARED) === 0) return 'EINVAL';
  if (flags.dontunmap && (vma.flags & (VM_DONTEXPAND | VM_PFNMAP)) !== 0) return 'EINVAL';
  // What is unmapped to shrink may reach beyond the VMA.
  if (Math.min(oldLen, newLen) > vma.end - addr) return 'EFAULT';
  return newLen > oldLen && (vma.flags & (VM_DONTEXPAND | VM_PFNMAP)) !== 0 ? 'EFAULT' : 0;
}

/** `mremap_to()`: MREMAP_FIXED and MREMAP_DONTUNMAP. */
function* remapTo(kernel: Kernel, remap: Remap): Sleeps<number | Errno> {
  const { mm, addr, oldLen, newLen, flags } = remap;
  let to: number | undefined = flags.fixedAt;
  let kept: Result = to === undefined ? 0 : yield* unmapRange(kernel, mm, to, newLen);
  if (kept === 0 && newLen < oldLen) kept = yield* unmapRange(kernel, mm, addr + newLen, oldLen - newLen);
  if (kept !== 0) return kept;
  if (to !== undefined && to < MMAP_MIN_ADDR) return 'EPERM';
  to ??= getUnmappedArea(mm, newLen, areaKind(vmaLookup(mm, addr)!));
  if (to === undefined) return 'ENOMEM';
  return yield* moveVma(kernel, { ...remap, oldLen: Math.min(oldLen, newLen) }, to);
}

/** `expand_vma()`: in place where the VMA ends there and nothing follows; elsewhere if it may move. */
function* expandVma(kernel: Kernel, remap: Remap, vma: VmArea): Sleeps<number | Errno> {
  const { mm, addr, oldLen, newLen, flags } = remap;
  const end = addr + newLen;
  if (addr + oldLen === vma.end && end <= TASK_SIZE && !mm.vmas.overlaps(vma.end, end)) {
    setVmaEnd(vma, end);
    mergeVma(kernel, vma);
    return addr;
  }
  if (!flags.maymove) return 'ENOMEM';
  const to = getUnmappedArea(mm, newLen, areaKind(vma));
  return to === undefined ? 'ENOMEM' : yield* moveVma(kernel, remap, to);
}

/** Tables that moving entries may need: a leaf table every 2 MiB, and what is above. */
const pagesForTables = (length: number): number => Math.min(Math.ceil(length / PMD_SIZE), 512) + 4;

/** `move_vma()`. Precondition: nothing is mapped at [to, to + newLen). */
function* moveVma(kernel: Kernel, remap: Remap, to: number): Sleeps<number | Errno> {
  const { mm, addr, oldLen, newLen, flags } = remap;
  const splitsFirst = (flags.dontunmap ?? false) && (vmaLookup(mm, addr)!.flags & VM_LOCKED) !== 0;
  if (!hasRoom(kernel, mm, splitsFirst ? 3 : 2)) return 'ENOMEM';
  if (splitsFirst) {
    // prep_move_vma(): what stays behind will not be locked, what lies beside it still is.
    yield* splitVma(kernel, mm, addr);
    yield* splitVma(kernel, mm, addr + oldLen);
  }
  yield* reclaimUntilFree(kernel, pagesForTables(oldLen));
  copyVma(kernel, remap, to);
  const end = addr + oldLen;
  if (oldLen > 0) {
    const moved = yield* movePageTables(kernel, vmaLookup(mm, addr)!, addr, to, oldLen);
    if (moved < oldLen) {
      // The tables that it takes to go back are there still, or go back themselves.
      if (moved > 0) yield* movePageTables(kernel, vmaLookup(mm, to)!, to, addr, moved);
      yield* unmapRegion(kernel, mm, to, to + newLen);
      return 'ENOMEM';
    }
    if (flags.dontunmap) dontunmapComplete(kernel, mm, addr, end);
    else yield* unmapRegion(kernel, mm, addr, end);
  }
  return to;
}

/** `copy_vma()`: the VMA at the new place keeps the page offsets, so that the reverse map finds its pages. */
function copyVma(kernel: Kernel, { mm, addr, newLen, flags: { dontunmap } }: Remap, to: number): void {
  const vma = vmaLookup(mm, addr)!;
  // Anonymous memory without a page yet has no offset to keep; this way it can merge with what is around it.
  const untouched = vmaIsAnonymous(vma) && vma.anonVma === null;
  const pgoff = untouched ? to / PAGE_SIZE : linearPageIndex(vma, addr);
  // mremap_userfaultfd_prep(): without EVENT_REMAP no userfaultfd follows what moves.
  const flags = vma.flags & ~VM_UFFD_WP;
  const copy = new VmArea(mm, to as VirtAddr, (to + newLen) as VirtAddr, flags, pgoff, vma.file);
  vmFileGet(copy.file);
  mm.vmas.insert(copy.start, copy.end, copy);
  anonVmaClone(copy, vma);
  // What stays behind and what has moved are two, even where nothing distinguishes them.
  mergeVma(kernel, copy, untouched && dontunmap ? vma : undefined);
}

/** `dontunmap_complete()`: the old VMA is locked no more. If it maps nothing any more the reverse map need not lead there. */
function dontunmapComplete(kernel: Kernel, mm: MmStruct, start: number, end: number): void {
  const vma = vmaLookup(mm, start)!;
  vma.flags &= ~VM_LOCKED_MASK;
  if (vma.start !== start || vma.end !== end) return;
  anonVmaUnlink(kernel, vma);
  // As any anonymous memory without a page: it can merge with what is around it.
  if (vmaIsAnonymous(vma)) vma.pgoff = start / PAGE_SIZE;
}
