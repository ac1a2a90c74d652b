/**
 * What a device may see of a range, as the CPU's page table has it now: `hmm_range_fault` and the retry around it.
 * Linux: dmirror_fault(), dmirror_range_fault(), dmirror_do_update() in lib/test_hmm.c.
 */
import { PAGE_SIZE, TASK_SIZE } from '../abi/address.js';
import type { Errno } from '../abi/errno.js';
import {
  HMM_PFN_REQ_FAULT,
  HMM_PFN_REQ_WRITE,
  HMM_PFN_VALID,
  HMM_PFN_WRITE,
  type HmmPfns,
  hmmPfnFlags,
  makeHmmPfns,
} from '../abi/hmm-pfn.js';
import { MIGRATE_PFN_WRITE } from '../abi/mpfn.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { NULL_PAGE, type Page, type VirtAddr } from '../base/brand.js';
import { injects } from '../base/injection.js';
import { pageFrame, pageMemory } from '../mm/highmem.js';
import { type HmmResult, hmmRangeFault } from '../mm/hmm.js';
import type { Kernel } from '../mm/kernel.js';
import { handleMmFault } from '../mm/memory.js';
import type { MigrateVma } from '../mm/migrate-device/args.js';
import { mmuIntervalReadBegin, mmuIntervalReadRetry } from '../mm/mmu-notifier.js';
import { isDevicePrivatePage, pageIsAnon, pageSetFlag, pageTestFlag } from '../mm/page.js';
import { devicePrivatePageAt } from '../mm/page-vma-mapped.js';
import { vmaLookup } from '../mm/vma.js';
import { folioHead } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import type { Dmirror } from './dmirror.js';
import { type MigrationContext, movedPages } from './migration-targets.js';

const { PG_dirty, PG_swapbacked } = PAGE_FLAGS;
const REQUEST_WRITE = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE;

/**
 * `dmirror_fault()`: make the CPU's page table allow the access, and mirror what it says. Each page is mapped where it is: in our
 * own memory, in RAM, or in the memory of another device that is coherent. EFAULT or EPERM when some page cannot be had; EBUSY when invalidations came in
 * between `attempts` times.
 * Precondition: mmap_lock held for reading.
 */
export function* faultRange(
  ctx: MigrationContext,
  dmirror: Dmirror,
  start: number,
  end: number,
  write: boolean,
  attempts = Number.POSITIVE_INFINITY,
): Sleeps<0 | Errno> {
  if (start < 0 || end > TASK_SIZE) return 'EFAULT';
  const hmmPfns = makeHmmPfns((end - start) / PAGE_SIZE);
  for (let attempt = 0; attempt < attempts; attempt++) {
    const outcome = yield* lookUp(ctx, dmirror, start, hmmPfns, write ? REQUEST_WRITE : HMM_PFN_REQ_FAULT);
    if (outcome === 'EBUSY') continue;
    // Nobody has run since the look-up's last test of the notifier's sequence.
    return outcome === 0 ? mapPfns(ctx, dmirror, start, hmmPfns, write) : outcome;
  }
  return 'EBUSY';
}

/**
 * One attempt at `hmm_range_fault`: what the CPU's page table says of the pages from `start` on, one for each word of
 * `hmmPfns`. EBUSY: an invalidation came in between.
 * Precondition: mmap_lock held for reading.
 */
function* lookUp(
  ctx: MigrationContext,
  { notifier }: Dmirror,
  start: number,
  hmmPfns: HmmPfns,
  defaultFlags: number,
): Sleeps<HmmResult> {
  const notifierSeq = yield* mmuIntervalReadBegin(notifier);
  hmmPfns.fill(0);
  const outcome = yield* hmmRangeFault(ctx.kernel, {
    notifier,
    notifierSeq,
    start: start as VirtAddr,
    end: (start + (hmmPfns.length / 2) * PAGE_SIZE) as VirtAddr,
    hmmPfns,
    defaultFlags,
    pfnFlagsMask: 0,
    devPrivateOwner: ctx.owner,
  });
  if (outcome !== 0) return outcome;
  const { kernel } = ctx;
  if (!kernel.sites.rangeFaultRetry) return 0;
  return mmuIntervalReadRetry(notifier, notifierSeq) || injects(kernel, 'notifier-retry') ? 'EBUSY' : 0;
}

/**
 * A page that the device may write counts as written from now on. It matters where reclaim throws away what is clean: memory that
 * MADV_FREE has given up, and shared memory (which a load maps writable at once). Other anonymous memory is never thrown away, and of files
 * hmm_range_fault() has told the CPU's page table.
 */
export function mayBeWritten(kernel: Kernel, page: Page): void {
  const { words } = kernel.memmap;
  const head = folioHead(words, page);
  if (pageIsAnon(words, head) === pageTestFlag(words, head, PG_swapbacked)) return;
  if (kernel.sites.driverMarksDirty) pageSetFlag(words, head, PG_dirty);
}

/** Invalidations that the look-up of arrived pages may meet: a page that is not mapped then is faulted in when it is wanted. */
const ARRIVED_ATTEMPTS = 8;

/**
 * Map what has migrated to us while an invalidation was under way, which may have been for these very pages: what is still
 * there when it is over, and not mapped yet.
 * Precondition: mmap_lock held for reading; the migration is finalized.
 */
export function* mapArrived(
  ctx: MigrationContext,
  dmirror: Dmirror,
  { start, npages, src, dst }: MigrateVma,
): Sleeps<void> {
  const { kernel, memory, memoryId } = ctx;
  const hmmPfns = makeHmmPfns(npages);
  for (let attempt = 0; attempt < ARRIVED_ATTEMPTS; attempt++) {
    if ((yield* lookUp(ctx, dmirror, start, hmmPfns, 0)) !== 0) continue;
    for (let first = 0; first < npages; first++) {
      const count = movedPages(src, dst, first);
      const mayWrite = (src[first] & MIGRATE_PFN_WRITE) !== 0;
      for (let i = first; i < first + count; i++) {
        const flags = hmmPfnFlags(hmmPfns, i);
        const addr = start + i * PAGE_SIZE;
        if ((flags & HMM_PFN_VALID) === 0 || dmirror.read(addr) !== 0) continue;
        const page = kernel.addressing.hmmPfnToPage(hmmPfns, i);
        if (!memory.owns(page)) continue;
        const writable = mayWrite && (flags & HMM_PFN_WRITE) !== 0;
        if (writable) mayBeWritten(kernel, page);
        dmirror.map(addr, memoryId, memory.frameOf(page), writable);
      }
      if (count > 1) first += count - 1;
    }
    return;
  }
}

/**
 * Pages of devices that are no peers come home to RAM, where they can be migrated from; nothing is mapped. Each is asked for once: one
 * that is taken away again, or cannot be had, is found missing later.
 * Precondition: mmap_lock held for reading.
 */
export function* bringHome(ctx: MigrationContext, dmirror: Dmirror, start: number, end: number): Sleeps<void> {
  const { kernel } = ctx;
  for (let addr = start; addr < end; addr += PAGE_SIZE) {
    const page = devicePrivatePageAt(kernel, dmirror.mm, addr as VirtAddr);
    if (page === NULL_PAGE || ctx.owner.owns(page)) continue;
    const vma = vmaLookup(dmirror.mm, addr);
    if (vma !== undefined) yield* handleMmFault(kernel, vma, addr as VirtAddr, false);
  }
}

/** `dmirror_do_update()`. Atomic: between the sequence test and the last entry nobody else runs. */
function mapPfns(ctx: MigrationContext, dmirror: Dmirror, start: number, hmmPfns: HmmPfns, write: boolean): 0 | Errno {
  const { kernel, owner } = ctx;
  for (let i = 0; i < hmmPfns.length / 2; i++) {
    const flags = hmmPfnFlags(hmmPfns, i);
    const writable = (flags & HMM_PFN_WRITE) !== 0;
    // A page of our own memory that is shared after fork stays read-only on the device: nobody breaks COW there.
    if ((flags & HMM_PFN_VALID) === 0 || (write && !writable)) return 'EFAULT';
    const page = kernel.addressing.hmmPfnToPage(hmmPfns, i);
    // A private page that is reported is ours or a peer's; what has a physical address names its memory itself.
    const place =
      isDevicePrivatePage(kernel.memmap.words, page) && kernel.sites.ownPagesByDevice
        ? owner.placeOf(page)
        : { memory: pageMemory(kernel, page), frame: pageFrame(kernel, page) };
    if (place === null) return 'EFAULT';
    const addr = start + i * PAGE_SIZE;
    if (writable) mayBeWritten(kernel, page);
    // An entry left over from before names the same frame, or was cleared by an invalidation that the sequence test caught. But who
    // forgets where in a huge page a range begins is told of another page each time, and believes the last.
    if (!kernel.sites.absentPmdOffset) dmirror.clear(addr, addr + PAGE_SIZE);
    if (!dmirror.map(addr, place.memory, place.frame, writable)) return 'ENOMEM';
  }
  return 0;
}
