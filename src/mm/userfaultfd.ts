/**
 * Userfaultfd in the mode of write protection: registering memory, protecting it, waking who waits. Linux: fs/userfaultfd.c
 * userfaultfd_register(), userfaultfd_unregister(), userfaultfd_writeprotect(), userfaultfd_release().
 *
 * Not modelled: the modes MISSING and MINOR, and what fills pages for them (UFFDIO_COPY, ZEROPAGE, CONTINUE, MOVE, POISON), events
 * but faults (EVENT_FORK and its like; so fork and mremap leave it behind), memory of the hugetlb pool.
 */
import { isPageAligned, TASK_SIZE } from '../abi/address.js';
import type { Result } from '../abi/errno.js';
import type { VirtAddr } from '../base/brand.js';
import type { Sleeps } from '../sync/task.js';
import { isHugetlb } from './hugetlb.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import { Userfaultfd, type UserfaultfdFeatures } from './userfaultfd-context.js';
import { uffdWpRange } from './userfaultfd-wp.js';
import { tracksWrites, userfaultfdWp, VM_MAYWRITE, VM_SPECIAL, VM_UFFD_WP, type VmArea } from './vma.js';
import { modifyVmaFlags } from './vma-merge.js';

/** `userfaultfd()` and UFFDIO_API. Give it back with `releaseUserfaultfd`. */
export function createUserfaultfd(mm: MmStruct, features: UserfaultfdFeatures): Userfaultfd {
  mm.usesUserfaultfd = true;
  return new Userfaultfd(mm, features);
}

/** `validate_range()`. */
const isRange = (start: number, length: number): boolean =>
  isPageAligned(start) && isPageAligned(length) && length > 0 && start < TASK_SIZE && length <= TASK_SIZE - start;

/**
 * `vma_can_userfault()`: anonymous and shared memory; anything, where nobody has to be told of faults.
 * @param wp is write protection what it is, or is to be, registered for?
 */
function canUserfault(vma: VmArea, { features }: Userfaultfd, wp: boolean): boolean {
  if (isHugetlb(vma) || (vma.flags & VM_SPECIAL) !== 0) return false;
  if ((features.wpAsync && wp) || vma.file === null) return true;
  // vma_is_shmem(): a page cache that is not written back.
  return vma.file.cache !== null && !tracksWrites(vma.file);
}

/** VMAs of [start, end), in order. */
const vmasIn = ({ vmas }: MmStruct, start: number, end: number): VmArea[] =>
  vmas.overlapping(start, end).map(({ value }) => value);

/**
 * UFFDIO_REGISTER with UFFDIO_REGISTER_MODE_WP: mappings of the range, between which there may be holes. Takes mmap_lock.
 * @returns EINVAL (a bad range, nothing mapped, memory that cannot be watched), EPERM (never writable), EBUSY (somebody else's), ENOMEM
 */
export function* userfaultfdRegister(
  kernel: Kernel,
  ctx: Userfaultfd,
  start: VirtAddr,
  length: number,
): Sleeps<Result> {
  if (!isRange(start, length)) return 'EINVAL';
  const { mm } = ctx;
  const end = start + length;
  yield* mm.mmapLock.downWrite();
  try {
    if (mm.exiting || ctx.released) return 'ENOMEM';
    const found = vmasIn(mm, start, end);
    if (found.length === 0) return 'EINVAL';
    for (const vma of found) {
      if (!canUserfault(vma, ctx, true)) return 'EINVAL';
      if ((vma.flags & VM_MAYWRITE) === 0) return 'EPERM';
      if (vma.userfaultfd !== null && vma.userfaultfd !== ctx) return 'EBUSY';
    }
    return yield* forEachVma(mm, start, end, function* (vma, from, stop) {
      if (vma.userfaultfd === ctx) return 0;
      const changed = yield* modifyVmaFlags(kernel, vma, from, stop, vma.flags | VM_UFFD_WP, ctx);
      return changed === 'ENOMEM' ? changed : 0;
    });
  } finally {
    mm.mmapLock.upWrite();
  }
}

/**
 * UFFDIO_UNREGISTER: nothing of the range is protected any more. Who waits for a fault there goes on waiting: only those of the
 * mode MISSING are woken. Takes mmap_lock.
 * @returns EINVAL (as above, or registered elsewhere), ENOMEM
 */
export function* userfaultfdUnregister(
  kernel: Kernel,
  ctx: Userfaultfd,
  start: VirtAddr,
  length: number,
): Sleeps<Result> {
  if (!isRange(start, length)) return 'EINVAL';
  const { mm } = ctx;
  yield* mm.mmapLock.downWrite();
  try {
    if (mm.exiting) return 'ENOMEM';
    const found = vmasIn(mm, start, start + length);
    const wrong = (vma: VmArea): boolean =>
      !canUserfault(vma, ctx, userfaultfdWp(vma)) || (vma.userfaultfd !== null && vma.userfaultfd !== ctx);
    if (found.length === 0 || found.some(wrong)) return 'EINVAL';
    return yield* clearVmas(kernel, ctx, start, start + length);
  } finally {
    mm.mmapLock.upWrite();
  }
}

/** `userfaultfd_clear_vma()` of every part of [start, end) that is registered. Precondition: mmap_lock held for writing. */
const clearVmas = (kernel: Kernel, ctx: Userfaultfd, start: number, end: number): Sleeps<Result> =>
  forEachVma(ctx.mm, start, end, function* (vma, from, stop) {
    if (vma.userfaultfd !== ctx) return 0;
    yield* uffdWpRange(kernel, vma, from, stop, 'resolve');
    const changed = yield* modifyVmaFlags(kernel, vma, from, stop, vma.flags & ~VM_UFFD_WP, null);
    return changed === 'ENOMEM' ? changed : 0;
  });

/** VMAs one after the other, as far as each is in the range, until one fails; their borders may move meanwhile. */
function* forEachVma(
  mm: MmStruct,
  start: number,
  end: number,
  body: (vma: VmArea, from: number, stop: number) => Sleeps<Result>,
): Sleeps<Result> {
  for (let at = start; at < end; ) {
    const vma = mm.vmas.firstEndingAfter(at)?.value;
    if (vma === undefined || vma.start >= end) break;
    const from = Math.max(vma.start, at);
    const stop = Math.min(vma.end, end);
    const failed = yield* body(vma, from, stop);
    if (failed !== 0) return failed;
    at = stop;
  }
  return 0;
}

/** UFFDIO_WRITEPROTECT_MODE_WP: the first store to each page of the range is heard of. */
export const userfaultfdProtect = (kernel: Kernel, ctx: Userfaultfd, start: VirtAddr, length: number): Sleeps<Result> =>
  writeProtect(kernel, ctx, start, length, 'protect');

/**
 * UFFDIO_WRITEPROTECT without the mode: stores to the range go unheard, and those that wait for it are made again.
 * @param wake false: UFFDIO_WRITEPROTECT_MODE_DONTWAKE
 */
export function* userfaultfdResolve(
  kernel: Kernel,
  ctx: Userfaultfd,
  start: VirtAddr,
  length: number,
  { wake = true }: { readonly wake?: boolean } = {},
): Sleeps<Result> {
  const failed = yield* writeProtect(kernel, ctx, start, length, 'resolve');
  if (failed === 0 && wake) ctx.wake(start, start + length);
  return failed;
}

/** `mwriteprotect_range()`: ENOENT where memory is not registered, with what lies before it changed; EINVAL, ENOMEM, ESRCH. */
function* writeProtect(
  kernel: Kernel,
  { mm }: Userfaultfd,
  start: VirtAddr,
  length: number,
  change: 'protect' | 'resolve',
): Sleeps<Result> {
  if (!isRange(start, length)) return 'EINVAL';
  const end = start + length;
  yield* mm.mmapLock.downRead();
  try {
    if (mm.exiting) return 'ESRCH';
    let outcome: Result = 'ENOENT';
    for (const vma of vmasIn(mm, start, end)) {
      if (!userfaultfdWp(vma)) return 'ENOENT';
      outcome = yield* uffdWpRange(kernel, vma, Math.max(vma.start, start), Math.min(vma.end, end), change);
      if (outcome !== 0) return outcome;
    }
    return outcome;
  } finally {
    mm.mmapLock.upRead();
  }
}

/** UFFDIO_WAKE: faults on the range are made again, whatever has become of them. */
// biome-ignore lint/correctness/useYield: one of the calls, and the only one that never sleeps
export function* userfaultfdWake(ctx: Userfaultfd, start: VirtAddr, length: number): Sleeps<Result> {
  if (!isRange(start, length)) return 'EINVAL';
  ctx.wake(start, start + length);
  return 0;
}

/** The last reference to the file goes (`userfaultfd_release()`): nothing is protected by it any more, and nobody waits. */
export function* releaseUserfaultfd(kernel: Kernel, ctx: Userfaultfd): Sleeps<void> {
  if (ctx.released) return;
  const { mm } = ctx;
  // From now on no fault waits for it.
  ctx.released = true;
  yield* mm.mmapLock.downWrite();
  if (!mm.exiting) yield* clearVmas(kernel, ctx, 0, TASK_SIZE);
  mm.mmapLock.upWrite();
  ctx.wake(0, TASK_SIZE);
}
