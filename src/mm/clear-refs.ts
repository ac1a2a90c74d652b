/**
 * Forgetting which pages were used, to see later which have been used since. Linux: fs/proc/task_mmu.c clear_refs_write().
 *
 * Soft-dirty: every entry becomes read-only and loses its bit, so that the next store faults and sets it again; a mapping that
 * is new since then counts as a whole (VM_SOFTDIRTY). The bit stays with a page wherever it goes: see migration-entry.ts, unmap-page.ts.
 */
import { TASK_SIZE } from '../abi/address.js';
import {
  highType,
  LOW_ACCESSED,
  LOW_SOFT_DIRTY,
  LOW_SPECIAL,
  LOW_SWP_SOFT_DIRTY,
  LOW_WRITE,
  lowPresent,
} from '../abi/pte-halves.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { NULL_PAGE, type VirtAddr } from '../base/brand.js';
import type { Sleeps } from '../sync/task.js';
import { and32, getAndClearPteLow, peek32, setPteHalves } from '../sync/word.js';
import { findHugePmd } from './huge-pmd.js';
import { isHugetlb } from './hugetlb.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import { pageClearFlag, pageMaybeDmaPinned } from './page.js';
import { leafTable, lockTable, NO_TABLE, nextLeaf, nextMappedLeaf, pteIndex, tableOf, unlockTable } from './pgtable.js';
import { pageOfHalves } from './proc-pagemap.js';
import { isMigration } from './softleaf.js';
import { flushTlbRange } from './tlbflush.js';
import { isCowMapping, VM_SOFTDIRTY, type VmArea } from './vma.js';

/** What may be written into clear_refs, 1 to 4 in Linux: accesses of all mappings, of anonymous ones, of those with a file; writes. */
export const CLEAR_REFS = ['all', 'anonymous', 'mapped', 'soft-dirty'] as const;
export type ClearRefs = (typeof CLEAR_REFS)[number];

/** `clear_refs_write()`. Takes mmap_lock. */
export function* clearRefs(kernel: Kernel, mm: MmStruct, what: ClearRefs): Sleeps<void> {
  yield* mm.mmapLock.downWrite();
  try {
    if (mm.exiting) return;
    if (what === 'soft-dirty') yield* clearSoftDirty(kernel, mm);
    else {
      for (const { value: vma } of mm.vmas) {
        if (what === 'anonymous' && vma.file !== null) continue;
        if (what === 'mapped' && vma.file === null) continue;
        visitTables(kernel, vma, clearYoung);
      }
    }
    flushTlbRange(kernel, mm, 0 as VirtAddr, TASK_SIZE as VirtAddr);
  } finally {
    mm.mmapLock.upWrite();
  }
}

function* clearSoftDirty(kernel: Kernel, mm: MmStruct): Sleeps<void> {
  for (const { value: vma } of mm.vmas) vma.flags &= ~VM_SOFTDIRTY;
  const range: MmuNotifierRange = {
    mm,
    start: 0 as VirtAddr,
    end: TASK_SIZE as VirtAddr,
    event: 'MMU_NOTIFY_SOFT_DIRTY',
    owner: null,
  };
  yield* mmuNotifierInvalidateRangeStart(range);
  for (const { value: vma } of mm.vmas) visitTables(kernel, vma, clearSoftDirtyEntry);
  mmuNotifierInvalidateRangeEnd(range);
}

/** What to do with the entry at `at`, of either level. */
type Visit = (kernel: Kernel, vma: VmArea, at: number, huge: boolean) => void;

/** Every entry of a VMA that is not none, each table under its lock. The walk passes over memory of the hugetlb pool. */
function visitTables(kernel: Kernel, vma: VmArea, visit: Visit): void {
  const { mm, start, end } = vma;
  const { halves } = kernel.ram;
  if (isHugetlb(vma)) return;
  for (let from = nextMappedLeaf(kernel, mm, start, end); from < end; ) {
    const stop = Math.min(nextLeaf(from), end);
    const table = leafTable(kernel, mm, from as VirtAddr);
    if (table === NO_TABLE) {
      const at = findHugePmd(kernel, mm, from);
      lockTable(kernel, tableOf(at));
      visit(kernel, vma, at, true);
      unlockTable(kernel, tableOf(at));
      from = nextMappedLeaf(kernel, mm, stop, end);
      continue;
    }
    lockTable(kernel, table);
    const last = table + pteIndex(stop - 1);
    for (let at = table + pteIndex(from); at <= last; at++) {
      if ((peek32(halves, 2 * at) | peek32(halves, 2 * at + 1)) !== 0) visit(kernel, vma, at, false);
    }
    unlockTable(kernel, table);
    from = nextMappedLeaf(kernel, mm, stop, end);
  }
}

/** `clear_soft_dirty()`, `clear_soft_dirty_pmd()`, which of huge entries that are absent knows those of migrations only. */
function clearSoftDirtyEntry(kernel: Kernel, vma: VmArea, at: number, huge: boolean): void {
  const { halves, words } = kernel.ram;
  const high = peek32(halves, 2 * at + 1);
  const seen = peek32(halves, 2 * at);
  if (!lowPresent(seen)) {
    const kind = kernel.addressing.swapTypes.kindOf[highType(high)];
    if (!huge || isMigration(kernel, kind)) and32(halves, 2 * at, ~LOW_SWP_SOFT_DIRTY);
    return;
  }
  if (!huge && isPinned(kernel, vma, seen, high)) return;
  const low = getAndClearPteLow(words, at);
  setPteHalves(words, at, low & ~(LOW_WRITE | LOW_SOFT_DIRTY), high);
}

/** `pte_is_pinned()`: write-protected, it would be copied by the next store, away from who has the pin. */
function isPinned(kernel: Kernel, vma: VmArea, low: number, high: number): boolean {
  if ((low & LOW_WRITE) === 0 || !isCowMapping(vma.flags)) return false;
  const page = pageOfHalves(kernel, low, high);
  return page !== NULL_PAGE && pageMaybeDmaPinned(kernel.memmap.words, page);
}

/** Accessed bit and PG_referenced of a present page. */
function clearYoung(kernel: Kernel, _vma: VmArea, at: number): void {
  const { halves } = kernel.ram;
  const low = peek32(halves, 2 * at);
  if (!lowPresent(low) || (low & LOW_SPECIAL) !== 0) return;
  const page = pageOfHalves(kernel, low, peek32(halves, 2 * at + 1));
  and32(halves, 2 * at, ~LOW_ACCESSED);
  if (page !== NULL_PAGE) pageClearFlag(kernel.memmap.words, page, PAGE_FLAGS.PG_referenced);
}
