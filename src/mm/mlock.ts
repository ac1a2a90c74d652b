/**
 * Memory that stays in RAM: mlock, mlock2(MLOCK_ONFAULT), munlock. Linux: mm/mlock.c, mm/gup.c __mm_populate().
 *
 * A locked page is one that a locked mapping has (VM_LOCKED): reclaim asks the reverse map, where Linux keeps PG_mlocked up to date.
 * A migration to a device asks nobody: what is locked may go there, as in Linux, and counts there as well (PG_mlocked, until it is
 * free). Not modelled: mlockall, MAP_LOCKED, RLIMIT_MEMLOCK; that Linux forgets to count such a page down after munlock.
 */
import { PAGE_SIZE, pageAlignDown, pageAlignUp, wraps } from '../abi/address.js';
import type { Result } from '../abi/errno.js';
import type { VirtAddr } from '../base/brand.js';
import type { Sleeps } from '../sync/task.js';
import { populateVma } from './gup.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import {
  VM_IO,
  VM_LOCKED,
  VM_LOCKED_MASK,
  VM_LOCKONFAULT,
  VM_PFNMAP,
  VM_SPECIAL,
  type VmArea,
  vmaLookup,
} from './vma.js';
import { modifyVmaFlags } from './vma-merge.js';

/**
 * `do_mlock()`: the mappings stay in RAM; what is not there (in swap, on a device, never touched) comes now, or with `onFault`
 * when it is touched. ENOMEM: there is a hole (what is before it is locked), or a page that may not be accessed, or there are too many mappings; EAGAIN: no RAM.
 */
export function* doMlock(
  kernel: Kernel,
  mm: MmStruct,
  start: VirtAddr,
  length: number,
  onFault: boolean,
): Sleeps<Result> {
  const { first, end } = pagesOf(start, length);
  const failed = yield* applyFlags(kernel, mm, first, end, VM_LOCKED | (onFault ? VM_LOCKONFAULT : 0));
  return failed === 0 ? yield* mmPopulate(kernel, mm, first, end) : failed;
}

/** `do_munlock()`: ENOMEM where there is a hole. */
export function* doMunlock(kernel: Kernel, mm: MmStruct, start: VirtAddr, length: number): Sleeps<Result> {
  const { first, end } = pagesOf(start, length);
  return yield* applyFlags(kernel, mm, first, end, 0);
}

/** Whole pages, also where a range begins in the middle of one. */
function pagesOf(start: number, length: number): { first: number; end: number } {
  const first = pageAlignDown(start);
  const whole = pageAlignDown(length);
  // The length alone may wrap, too: no page is left of it.
  return { first, end: first + ((whole + pageAlignUp(start - first + (length - whole))) % 2 ** 64) };
}

/** `apply_vma_lock_flags()`. Takes mmap_lock. */
function* applyFlags(kernel: Kernel, mm: MmStruct, first: number, end: number, flags: number): Sleeps<Result> {
  if (end === first) return 0;
  if (wraps(first, end - first)) return 'EINVAL';
  yield* mm.mmapLock.downWrite();
  try {
    for (let at = first; at < end; ) {
      const vma = mm.exiting ? undefined : vmaLookup(mm, at);
      if (vma === undefined) return 'ENOMEM';
      const stop = Math.min(vma.end, end);
      const failed = yield* mlockFixup(kernel, vma, at, stop, flags);
      if (failed !== 0) return failed;
      at = stop;
    }
    return 0;
  } finally {
    mm.mmapLock.upWrite();
  }
}

/** `mlock_fixup()`: mappings of drivers are never locked. */
function* mlockFixup(kernel: Kernel, vma: VmArea, start: number, end: number, asked: number): Sleeps<Result> {
  const flags = (vma.flags & ~VM_LOCKED_MASK) | asked;
  if (flags === vma.flags || (vma.flags & VM_SPECIAL) !== 0) return 0;
  return (yield* modifyVmaFlags(kernel, vma, start, end, flags)) === 'ENOMEM' ? 'ENOMEM' : 0;
}

/**
 * `__mm_populate()`: touch every page of the range, also where mappings are that are never locked. Takes mmap_lock, anew for each. A page
 * that cannot be had is tried once more if others of its mapping were had before: `populate_vma_page_range()` has told of these only.
 */
export function* mmPopulate(kernel: Kernel, mm: MmStruct, start: number, end: number): Sleeps<Result> {
  /** End of the mapping of which some pages were had just now. */
  let hadUpTo = start;
  for (let at = start; at < end; at += PAGE_SIZE) {
    yield* mm.mmapLock.downRead();
    try {
      const vma = mm.exiting ? undefined : vmaLookup(mm, at);
      if (vma === undefined) return 'ENOMEM';
      if ((vma.flags & (VM_IO | VM_PFNMAP)) !== 0) continue;
      const errno = yield* populateVma(kernel, vma, at, at + PAGE_SIZE, true);
      if (errno === 0) {
        hadUpTo = vma.end;
      } else if (at < hadUpTo) {
        hadUpTo = at;
        at -= PAGE_SIZE;
      } else {
        // As POSIX has it (`__mlock_posix_error_return()`).
        return errno === 'ENOMEM' ? 'EAGAIN' : 'ENOMEM';
      }
    } finally {
      mm.mmapLock.upRead();
    }
  }
  return 0;
}
