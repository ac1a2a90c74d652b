/**
 * `hmm_range_fault()`: what the CPU page table says of a range, faulting pages in on request. Linux: mm/hmm.c.
 *
 *   entry of the CPU's page table            without a request        with a request
 *   none, or no table                        0                        fault it in
 *   present                                  VALID [| WRITE]          the same, or fault for WRITE
 *   private page of the asking owner         VALID [| WRITE]          the same: never faulted back
 *   private page of another owner            0                        fault: it comes home
 *   migration entry                          0                        wait, look again
 *   no VMA, or no VM_READ                    ERROR                    EFAULT
 *   anything else                            ERROR                    EFAULT
 */
import { PAGE_SIZE } from '../abi/address.js';
import { VM_FAULT_ERROR } from '../abi/errno.js';
import {
  HMM_PFN_ERROR,
  HMM_PFN_INOUT_FLAGS,
  HMM_PFN_REQ_FAULT,
  HMM_PFN_REQ_WRITE,
  HMM_PFN_VALID,
  HMM_PFN_WRITE,
  hmmPfnOfPfn,
} from '../abi/hmm-pfn.js';
import { pteHardwarePresent, pteNone, ptePfn, ptePresent, pteWrite } from '../abi/pte.js';
import { softleafFromPte } from '../abi/softleaf.js';
import type { Page, Pte, VirtAddr } from '../base/brand.js';
import { assert } from '../base/errors.js';
import { SCHEDULE_POINT, type Sleeps } from '../sync/task.js';
import { readPte } from '../sync/word.js';
import type { Kernel } from './kernel.js';
import { handleMmFault, migrationEntryWait } from './memory.js';
import { type MmuIntervalNotifier, mmuIntervalReadRetry } from './mmu-notifier.js';
import { pagePgmapId } from './page.js';
import { leafTable, NO_TABLE, nextLeaf, pteIndex, type TableIndex } from './pgtable.js';
import { isDevicePrivate, isMigration, leafKind } from './softleaf.js';
import { VM_READ, VM_WRITE, type VmArea, vmaLookup } from './vma.js';

/** `struct hmm_range`. */
export interface HmmRange {
  readonly notifier: MmuIntervalNotifier;
  /** From `mmuIntervalReadBegin`, before the call. */
  readonly notifierSeq: number;
  readonly start: VirtAddr;
  readonly end: VirtAddr;
  /** In: request flags of each page; out: HMM_PFN_* words. One for each page of the range. */
  readonly hmmPfns: BigUint64Array;
  /** Request flags for all pages: HMM_PFN_REQ_FAULT, HMM_PFN_REQ_WRITE. */
  readonly defaultFlags: bigint;
  /** Which of the flags in `hmmPfns` count as requests. */
  readonly pfnFlagsMask: bigint;
  /** Private pages of this owner are reported, not faulted back. */
  readonly devPrivateOwner: object | null;
}

/** EBUSY: an invalidation came in between, begin anew. EFAULT, EPERM: a page cannot be had as requested. */
export type HmmResult = 0 | 'EBUSY' | 'EFAULT' | 'EPERM';

const NEED_FAULT = 1;
const NEED_WRITE_FAULT = 2;

/** Precondition: mmap_lock held for reading; `range` lies inside the notifier's interval. May sleep in faults. */
export function* hmmRangeFault(kernel: Kernel, range: HmmRange): Sleeps<HmmResult> {
  const { mm } = range.notifier;
  assert(mm.mmapLock.locked, 'hmm_range_fault without mmap_lock');
  for (let addr: number = range.start; addr < range.end; ) {
    if (mmuIntervalReadRetry(range.notifier, range.notifierSeq)) return 'EBUSY';
    const vma = vmaLookup(mm, addr);
    const stop = Math.min(vma?.end ?? nextVmaStart(range, addr), range.end);
    if (vma === undefined || (vma.flags & VM_READ) === 0) {
      if (anyNeedsFault(range, addr, stop)) return 'EFAULT';
      fill(range, addr, stop, HMM_PFN_ERROR);
      addr = stop;
      continue;
    }
    const reached = walkVma(kernel, range, vma, addr, stop);
    if (reached.addr < stop) {
      const failed = yield* resolve(kernel, range, vma, reached, Math.min(stop, nextLeaf(reached.addr)));
      if (failed !== 0) return failed;
    }
    addr = reached.addr;
    if (kernel.options.preempt()) yield SCHEDULE_POINT;
  }
  return mmuIntervalReadRetry(range.notifier, range.notifierSeq) ? 'EBUSY' : 0;
}

const nextVmaStart = (range: HmmRange, addr: number): number =>
  range.notifier.mm.vmas.firstEndingAfter(addr)?.start ?? range.end;

/** Where a walk stopped, and what the page there needs: a fault, waiting for a migration, or nothing can help. */
interface Stop {
  readonly addr: number;
  readonly need: number;
  readonly why: 'end' | 'fault' | 'migration' | 'error';
  readonly pte: Pte;
  readonly at: number;
}

/** Report pages from `addr` on, up to the first that cannot be reported as it is. */
function walkVma(kernel: Kernel, range: HmmRange, vma: VmArea, from: number, stop: number): Stop {
  const { words } = kernel.ram;
  let table: TableIndex = NO_TABLE;
  for (let addr = from, i = (from - range.start) / PAGE_SIZE; addr < stop; addr += PAGE_SIZE, i++) {
    const index = pteIndex(addr);
    if (addr === from || index === 0) table = leafTable(kernel, vma.mm, addr as VirtAddr);
    const at = table + index;
    const pte = table === NO_TABLE ? (0n as Pte) : readPte(words, at);
    const cpuFlags = pteCpuFlags(pte);
    const need = needFault(range, i, cpuFlags);
    if (cpuFlags !== 0n && need === 0) {
      setPfn(range, i, hmmPfnOfPfn(ptePfn(pte), cpuFlags));
      continue;
    }
    if (pteNone(pte) || ptePresent(pte)) {
      if (need !== 0) return { addr, need, why: 'fault', pte, at };
      setPfn(range, i, 0n);
      continue;
    }
    const entry = softleafFromPte(pte);
    const kind = leafKind(kernel, entry);
    if (isDevicePrivate(kind)) {
      const page = kernel.addressing.softleafToPage(entry);
      if (ownedBy(kernel, range, page)) {
        const flags = HMM_PFN_VALID | (kind === 'device-private-write' ? HMM_PFN_WRITE : 0n);
        setPfn(range, i, kernel.addressing.hmmPfnFromPage(page, flags));
        continue;
      }
    }
    if (need === 0) {
      setPfn(range, i, 0n);
      continue;
    }
    if (isMigration(kind)) return { addr, need, why: 'migration', pte, at };
    const faultable = isDevicePrivate(kind) || kind === 'device-exclusive' || kind === 'swap';
    return { addr, need, why: faultable ? 'fault' : 'error', pte, at };
  }
  return { addr: stop, need: 0, why: 'end', pte: 0n as Pte, at: -1 };
}

/**
 * Do what the page at the stop needs; 0 says: look again. A fault (`hmm_vma_fault()`) is for *every* page from there to
 * `end`, whatever the others are: a private page of the asking owner that comes later goes home.
 */
function* resolve(kernel: Kernel, range: HmmRange, vma: VmArea, stop: Stop, end: number): Sleeps<HmmResult> {
  if (stop.why === 'error') {
    setPfn(range, (stop.addr - range.start) / PAGE_SIZE, HMM_PFN_ERROR);
    return 'EFAULT';
  }
  if (stop.why === 'migration') {
    const page = kernel.addressing.softleafToPage(softleafFromPte(stop.pte));
    yield* migrationEntryWait(kernel, stop.at, page, stop.pte);
    return 0;
  }
  const write = (stop.need & NEED_WRITE_FAULT) !== 0;
  if (write && (vma.flags & VM_WRITE) === 0) return 'EPERM';
  for (let { addr } = stop; addr < end; addr += PAGE_SIZE) {
    const outcome = yield* handleMmFault(kernel, vma, addr as VirtAddr, write);
    if ((outcome & VM_FAULT_ERROR) !== 0) return 'EFAULT';
  }
  return 0;
}

/** `pte_to_hmm_pfn_flags()`. */
function pteCpuFlags(pte: Pte): bigint {
  if (!pteHardwarePresent(pte)) return 0n;
  return pteWrite(pte) ? HMM_PFN_VALID | HMM_PFN_WRITE : HMM_PFN_VALID;
}

/** `hmm_pte_need_fault()`. */
function needFault(range: HmmRange, i: number, cpuFlags: bigint): number {
  const request = (range.hmmPfns[i] & range.pfnFlagsMask) | range.defaultFlags;
  if ((request & HMM_PFN_REQ_FAULT) === 0n) return 0;
  if ((request & HMM_PFN_REQ_WRITE) !== 0n && (cpuFlags & HMM_PFN_WRITE) === 0n) return NEED_FAULT | NEED_WRITE_FAULT;
  return (cpuFlags & HMM_PFN_VALID) === 0n ? NEED_FAULT : 0;
}

function anyNeedsFault(range: HmmRange, from: number, stop: number): boolean {
  for (let addr = from; addr < stop; addr += PAGE_SIZE) {
    if (needFault(range, (addr - range.start) / PAGE_SIZE, 0n) !== 0) return true;
  }
  return false;
}

function fill(range: HmmRange, from: number, stop: number, value: bigint): void {
  for (let addr = from; addr < stop; addr += PAGE_SIZE) setPfn(range, (addr - range.start) / PAGE_SIZE, value);
}

/** Store a result; the sticky flags of the input stay. */
function setPfn(range: HmmRange, i: number, value: bigint): void {
  range.hmmPfns[i] = (range.hmmPfns[i] & HMM_PFN_INOUT_FLAGS) | value;
}

const ownedBy = (kernel: Kernel, range: HmmRange, page: Page): boolean =>
  kernel.pagemaps.get(pagePgmapId(kernel.memmap.words, page))?.owner === range.devPrivateOwner;
