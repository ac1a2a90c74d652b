/** Advice on ranges of an address space. Linux: mm/madvise.c. */
import { isPageAligned, PAGE_SIZE, pageAlignUp, TASK_SIZE } from '../abi/address.js';
import type { Result } from '../abi/errno.js';
import { halvesPfn, LOW_ACCESSED, LOW_DIRTY, LOW_SPECIAL, lowPresent } from '../abi/pte-halves.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import type { Pfn, VirtAddr } from '../base/brand.js';
import { folioTrylock, folioUnlock } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import { and32, load32 } from '../sync/word.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import { isZoneDevicePage, pageClearFlag, pageMapcount, pageTestFlag } from './page.js';
import { leafTable, lockTable, nextLeaf, nextMappedLeaf, pteIndex, unlockTable } from './pgtable.js';
import { flushTlbRange } from './tlbflush.js';
import { VM_HUGEPAGE, VM_NOHUGEPAGE, VM_PFNMAP, type VmArea, vmaIsAnonymous } from './vma.js';
import { modifyVmaFlags } from './vma-merge.js';
import { zapRange } from './zap.js';

/** MADV_*. COLLAPSE is refused (EINVAL) until there are huge pages. */
export type Advice = 'DONTNEED' | 'FREE' | 'HUGEPAGE' | 'NOHUGEPAGE' | 'COLLAPSE';

const { PG_dirty, PG_referenced, PG_swapbacked } = PAGE_FLAGS;

/** `do_madvise()`: EINVAL, or ENOMEM where parts of the range are not mapped (the mapped ones are done all the same). */
export function* doMadvise(
  kernel: Kernel,
  mm: MmStruct,
  start: VirtAddr,
  length: number,
  advice: Advice,
): Sleeps<Result> {
  const end = start + pageAlignUp(length);
  if (!isPageAligned(start) || end < start) return 'EINVAL';
  if (end === start) return 0;
  if (start < 0 || end > TASK_SIZE) return 'ENOMEM';
  // What changes VMAs needs the lock for writing; what changes entries only must keep the VMAs from changing.
  const writes = advice === 'HUGEPAGE' || advice === 'NOHUGEPAGE';
  yield* writes ? mm.mmapLock.downWrite() : mm.mmapLock.downRead();
  try {
    return mm.exiting ? 'ENOMEM' : yield* walkVmas(kernel, mm, start, end, advice);
  } finally {
    if (writes) mm.mmapLock.upWrite();
    else mm.mmapLock.upRead();
  }
}

/** `madvise_walk_vmas()`. */
function* walkVmas(kernel: Kernel, mm: MmStruct, start: number, end: number, advice: Advice): Sleeps<Result> {
  let hole = false;
  for (let at = start; at < end; ) {
    const vma = mm.vmas.firstEndingAfter(at)?.value;
    if (vma === undefined || vma.start > at) hole = true;
    if (vma === undefined || vma.start >= end) break;
    const from = Math.max(vma.start, at);
    const stop = Math.min(vma.end, end);
    const failed = yield* adviseVma(kernel, vma, from, stop, advice);
    if (failed !== 0) return failed;
    at = stop;
  }
  return hole ? 'ENOMEM' : 0;
}

/** `madvise_vma_behavior()`. */
function* adviseVma(kernel: Kernel, vma: VmArea, start: number, end: number, advice: Advice): Sleeps<Result> {
  switch (advice) {
    case 'DONTNEED':
      if ((vma.flags & VM_PFNMAP) !== 0) return 'EINVAL';
      yield* cleared(vma, start, end, () => zapRange(kernel, vma.mm, start, end));
      return 0;
    case 'FREE':
      if (!vmaIsAnonymous(vma)) return 'EINVAL';
      yield* cleared(vma, start, end, () => freeRange(kernel, vma.mm, start, end));
      return 0;
    case 'HUGEPAGE':
      return adviseHuge(kernel, vma, start, end, VM_HUGEPAGE, VM_NOHUGEPAGE);
    case 'NOHUGEPAGE':
      return adviseHuge(kernel, vma, start, end, VM_NOHUGEPAGE, VM_HUGEPAGE);
    case 'COLLAPSE':
      return 'EINVAL';
  }
}

/** Do something between the two halves of a notification. */
function* cleared(vma: VmArea, start: number, end: number, body: () => void): Sleeps<void> {
  const range: MmuNotifierRange = {
    mm: vma.mm,
    start: start as VirtAddr,
    end: end as VirtAddr,
    event: 'MMU_NOTIFY_CLEAR',
    owner: null,
  };
  yield* mmuNotifierInvalidateRangeStart(range);
  body();
  mmuNotifierInvalidateRangeEnd(range);
}

/** `hugepage_madvise()`, `madvise_update_vma()`. */
function adviseHuge(kernel: Kernel, vma: VmArea, start: number, end: number, set: number, clear: number): Result {
  const flags = (vma.flags & ~clear) | set;
  if (flags !== vma.flags) modifyVmaFlags(kernel, vma, start, end, flags);
  return 0;
}

/** `madvise_free_pte_range()`: what nobody writes to until memory is short may then be dropped. Device entries stay. */
function freeRange(kernel: Kernel, mm: MmStruct, start: number, end: number): void {
  for (let at = nextMappedLeaf(kernel, mm, start, end); at < end; ) {
    const stop = Math.min(nextLeaf(at), end);
    const table = leafTable(kernel, mm, at as VirtAddr);
    lockTable(kernel, table);
    for (let entry = table + pteIndex(at), addr = at; addr < stop; entry++, addr += PAGE_SIZE) freePte(kernel, entry);
    // Before the lock goes: a store through an old, dirty translation would not be seen.
    flushTlbRange(kernel, mm, at as VirtAddr, stop as VirtAddr);
    unlockTable(kernel, table);
    at = nextMappedLeaf(kernel, mm, stop, end);
  }
}

function freePte(kernel: Kernel, at: number): void {
  const { halves } = kernel.ram;
  const { words } = kernel.memmap;
  const low = load32(halves, 2 * at);
  if (!lowPresent(low) || (low & LOW_SPECIAL) !== 0) return;
  const page = kernel.memmap.pfnToPage(halvesPfn(low, load32(halves, 2 * at + 1)) as Pfn);
  if (isZoneDevicePage(words, page)) return;
  if (pageTestFlag(words, page, PG_dirty)) {
    // Dirty for all who map it: only its single user may say that the contents do not matter.
    if (!folioTrylock(words, page)) return;
    const alone = pageMapcount(words, page) === 1;
    if (alone) pageClearFlag(words, page, PG_dirty);
    folioUnlock(words, page);
    if (!alone) return;
  }
  and32(halves, 2 * at, ~(LOW_ACCESSED | LOW_DIRTY));
  // folio_mark_lazyfree()
  pageClearFlag(words, page, PG_referenced | PG_swapbacked);
}
