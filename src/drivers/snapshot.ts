/**
 * What a device would see of an address space, page by page, without a fault: the snapshot of the test driver.
 * Linux: dmirror_snapshot(), dmirror_range_snapshot(), dmirror_mkentry() in lib/test_hmm.c.
 */
import { HPAGE_PMD_ORDER, PAGE_SIZE, TASK_SIZE } from '../abi/address.js';
import { DMIRROR_PROT } from '../abi/dmirror.js';
import type { Errno } from '../abi/errno.js';
import {
  HMM_PFN_ERROR,
  HMM_PFN_VALID,
  HMM_PFN_WRITE,
  type HmmPfns,
  hmmPfnFlags,
  hmmPfnMapOrder,
  makeHmmPfns,
} from '../abi/hmm-pfn.js';
import type { VirtAddr } from '../base/brand.js';
import { hmmRangeSnapshot } from '../mm/hmm.js';
import type { Kernel } from '../mm/kernel.js';
import type { MmStruct } from '../mm/mm-struct.js';
import {
  type MmuIntervalNotifier,
  type MmuIntervalNotifierOps,
  mmuIntervalInvalidating,
  mmuIntervalNotifierInsert,
  mmuIntervalNotifierRemove,
  mmuIntervalReadBegin,
  mmuIntervalSetSeq,
} from '../mm/mmu-notifier.js';
import { isDeviceCoherentPage, isDevicePrivatePage } from '../mm/page.js';
import type { Sleeps } from '../sync/task.js';
import type { DeviceMemory } from './device-memory.js';
import type { DriverObserver } from './driver.js';
import type { MigrationContext } from './migration-targets.js';

/**
 * HMM_DMIRROR_PROT_* of each page from `start` on, into `out`; behind the user's addresses as where nothing is mapped. EINVAL: no
 * page. `hmmPfns` is room for as many words; it is used in one go, so that snapshots may share it.
 */
export function* snapshotRange(
  { kernel, memory, owner }: MigrationContext,
  notifier: MmuIntervalNotifier,
  start: VirtAddr,
  hmmPfns: HmmPfns,
  out: Uint8Array,
): Sleeps<0 | Errno> {
  const end = (start + out.length * PAGE_SIZE) as VirtAddr;
  if (out.length === 0) return 'EINVAL';
  const { mmapLock } = notifier.mm;
  if (!mmapLock.downReadTrylock()) yield* mmapLock.downRead();
  try {
    if (mmuIntervalInvalidating(notifier)) yield* mmuIntervalReadBegin(notifier);
    hmmPfns.fill(0);
    hmmRangeSnapshot(kernel, {
      notifier,
      notifierSeq: notifier.invalidateSeq,
      start,
      end,
      hmmPfns,
      defaultFlags: 0,
      pfnFlagsMask: 0,
      devPrivateOwner: owner,
    });
    for (let i = 0; i < out.length; ) {
      const stop = Math.min(i + likePages(hmmPfns, i, start), out.length);
      const code = snapshotCode(kernel, memory, hmmPfns, i);
      if (stop === i + 1) out[i] = code;
      else out.fill(code, i, stop);
      i = stop;
    }
    return 0;
  } finally {
    mmapLock.upRead();
  }
}

/** How many words from `i` on say the same: the pages of one huge entry, or neighbours that are not mapped. */
function likePages(hmmPfns: HmmPfns, i: number, start: VirtAddr): number {
  const flags = hmmPfnFlags(hmmPfns, i);
  if ((flags & HMM_PFN_VALID) === 0) {
    let next = i + 1;
    while (2 * next < hmmPfns.length && hmmPfnFlags(hmmPfns, next) === flags) next++;
    return next - i;
  }
  const pages = 1 << hmmPfnMapOrder(hmmPfns, i);
  return pages - ((start / PAGE_SIZE + i) & (pages - 1));
}

/** `dmirror_mkentry()`. */
function snapshotCode(kernel: Kernel, memory: DeviceMemory, hmmPfns: HmmPfns, i: number): number {
  const flags = hmmPfnFlags(hmmPfns, i);
  if ((flags & HMM_PFN_ERROR) !== 0) return DMIRROR_PROT.ERROR;
  if ((flags & HMM_PFN_VALID) === 0) return DMIRROR_PROT.NONE;
  const huge = hmmPfnMapOrder(hmmPfns, i) === HPAGE_PMD_ORDER ? DMIRROR_PROT.PMD : 0;
  const access = huge | ((flags & HMM_PFN_WRITE) !== 0 ? DMIRROR_PROT.WRITE : DMIRROR_PROT.READ);
  const page = kernel.addressing.hmmPfnToPage(hmmPfns, i);
  if (isDevicePrivatePage(kernel.memmap.words, page)) {
    return access | (memory.owns(page) ? DMIRROR_PROT.DEV_PRIVATE_LOCAL : DMIRROR_PROT.DEV_PRIVATE_REMOTE);
  }
  if (isDeviceCoherentPage(kernel.memmap.words, page)) {
    return access | (memory.owns(page) ? DMIRROR_PROT.DEV_COHERENT_LOCAL : DMIRROR_PROT.DEV_COHERENT_REMOTE);
  }
  return page === kernel.zeroPage ? access | DMIRROR_PROT.ZERO : access;
}

/** One for all: V8 takes generators of several closures for objects of as many kinds, wherever they are called. */
const OBSERVES: MmuIntervalNotifierOps = {
  // biome-ignore lint/correctness/useYield: there is nothing that it would have to wait for
  *invalidate(notifier, _range, curSeq) {
    mmuIntervalSetSeq(notifier, curSeq);
  },
};

/**
 * A mirror that only ever takes snapshots: it maps nothing, so the device need not know of it, and its end evicts nothing.
 */
export class SnapshotObserver implements DriverObserver {
  readonly notifier: MmuIntervalNotifier;
  readonly #ctx: MigrationContext;
  /** Room for the words of a snapshot of as many pages as the last one had. */
  #hmmPfns: HmmPfns = makeHmmPfns(0);

  constructor(ctx: MigrationContext, mm: MmStruct) {
    this.#ctx = ctx;
    this.notifier = mmuIntervalNotifierInsert(mm, 0, TASK_SIZE, OBSERVES);
  }

  snapshot(start: VirtAddr, out: Uint8Array): Sleeps<0 | Errno> {
    if (this.#hmmPfns.length !== 2 * out.length) this.#hmmPfns = makeHmmPfns(out.length);
    return snapshotRange(this.#ctx, this.notifier, start, this.#hmmPfns, out);
  }

  close(): Sleeps<void> {
    return mmuIntervalNotifierRemove(this.notifier);
  }
}
