/**
 * `hmm_range_fault()`: what the CPU page table says of a range, faulting pages in on request. Linux: mm/hmm.c.
 *
 *   entry of the CPU's page table            without a request        with a request
 *   none (or a marker), or no table          0                        fault it in
 *   present                                  VALID [| WRITE]          the same, or fault for WRITE
 *   private page of the asking owner         VALID [| WRITE]          the same: never faulted back
 *   private page of another owner            0                        fault: it comes home
 *   migration entry                          0                        wait, look again
 *   no VMA, or no VM_READ                    ERROR                    EFAULT
 *   anything else                            0                        EFAULT
 *
 * A huge entry is reported page by page, with its order; one that cannot be reported is ERROR where a small one would be 0.
 */
import { HPAGE_PMD_ORDER, PAGE_SIZE } from '../abi/address.js';
import { VM_FAULT_ERROR } from '../abi/errno.js';
import {
  HMM_PFN_ERROR,
  HMM_PFN_REQ_FAULT,
  HMM_PFN_REQ_WRITE,
  HMM_PFN_VALID,
  HMM_PFN_WRITE,
  type HmmPfns,
  hmmPfnFlags,
  hmmPfnOrderFlags,
  setHmmPfn,
  setHmmPfnHalves,
} from '../abi/hmm-pfn.js';
import {
  halvesNumber,
  halvesPfn,
  halvesPfnHigh,
  halvesPfnLow,
  highType,
  LOW_PRESENT,
  LOW_WRITE,
  lowPresent,
} from '../abi/pte-halves.js';
import { softleafFromPte } from '../abi/softleaf.js';
import type { Page, VirtAddr } from '../base/brand.js';
import { assert } from '../base/errors.js';
import { SCHEDULE_POINT, type Sleeps } from '../sync/task.js';
import { peek32, readPte } from '../sync/word.js';
import { findHugePmd, pageOfPmd } from './huge-pmd.js';
import type { Kernel } from './kernel.js';
import { handleMmFault } from './memory.js';
import { migrationEntryWait } from './migration-entry.js';
import { type MmuIntervalNotifier, mmuIntervalReadRetry } from './mmu-notifier.js';
import { pagePgmapId } from './page.js';
import { leafTable, NO_TABLE, nextLeaf, pteIndex } from './pgtable.js';
import { isDevicePrivate, isMigration } from './softleaf.js';
import { VM_READ, VM_WRITE, type VmArea, vmaLookup } from './vma.js';

/** `struct hmm_range`. */
export interface HmmRange {
  readonly notifier: MmuIntervalNotifier;
  /** From `mmuIntervalReadBegin`, before the call. */
  readonly notifierSeq: number;
  readonly start: VirtAddr;
  readonly end: VirtAddr;
  /** In: request flags of each page; out: HMM_PFN_* words. One for each page of the range. */
  readonly hmmPfns: HmmPfns;
  /** Request flags for all pages: HMM_PFN_REQ_FAULT, HMM_PFN_REQ_WRITE. */
  readonly defaultFlags: number;
  /** Which of the flags in `hmmPfns` count as requests. */
  readonly pfnFlagsMask: number;
  /** Private pages of this owner are reported, not faulted back. */
  readonly devPrivateOwner: object | null;
}

/** EBUSY: an invalidation came in between, begin anew. EFAULT, EPERM: a page cannot be had as requested. */
export type HmmResult = 0 | 'EBUSY' | 'EFAULT' | 'EPERM';

const NEED_FAULT = 1;
const NEED_WRITE_FAULT = 2;

/**
 * Precondition: mmap_lock held for reading; `range` lies inside the notifier's interval. May sleep in faults, after the last of which the
 * answer may be old: the caller has to test the sequence again, under the lock of its own page table.
 */
export function* hmmRangeFault(kernel: Kernel, range: HmmRange): Sleeps<HmmResult> {
  const { mm } = range.notifier;
  assert(mm.mmapLock.locked, 'hmm_range_fault without mmap_lock');
  for (let addr: number = range.start; addr < range.end; ) {
    if (mmuIntervalReadRetry(range.notifier, range.notifierSeq)) return 'EBUSY';
    const vma = vmaLookup(mm, addr);
    const stop = Math.min(vma?.end ?? nextVmaStart(range, addr), range.end);
    if (vma === undefined || (vma.flags & VM_READ) === 0) {
      if (mayNeedFault(range) && anyNeedsFault(range, addr, stop)) return 'EFAULT';
      fill(range, addr, stop, HMM_PFN_ERROR);
      addr = stop;
      continue;
    }
    const reached = walkVma(kernel, range, vma, addr, stop);
    if (reached !== null) {
      const failed = yield* resolve(kernel, range, vma, reached, Math.min(stop, nextLeaf(reached.addr)));
      if (failed !== 0) return failed;
    }
    addr = reached?.addr ?? stop;
    if (kernel.options.preempt()) yield SCHEDULE_POINT;
  }
  return 0;
}

/**
 * `hmm_range_fault()` without a request: the words of `hmmPfns` say what is there now. It never sleeps, so nothing can change
 * meanwhile and there is no sequence to test.
 * Precondition: mmap_lock held for reading; no invalidation that concerns the caller is under way; `hmmPfns` requests nothing.
 */
export function hmmRangeSnapshot(kernel: Kernel, range: HmmRange): void {
  const { mm } = range.notifier;
  assert(mm.mmapLock.locked, 'a snapshot without mmap_lock');
  for (let addr: number = range.start; addr < range.end; ) {
    const vma = vmaLookup(mm, addr);
    const stop = Math.min(vma?.end ?? nextVmaStart(range, addr), range.end);
    if (vma === undefined || (vma.flags & VM_READ) === 0) fill(range, addr, stop, HMM_PFN_ERROR);
    else walkVma(kernel, range, vma, addr, stop);
    addr = stop;
  }
}

const nextVmaStart = (range: HmmRange, addr: number): number =>
  range.notifier.mm.vmas.firstEndingAfter(addr)?.start ?? range.end;

/** Where a walk stopped, and what the page there needs: a fault, waiting for a migration, or nothing can help. */
interface Stop {
  readonly addr: number;
  readonly need: number;
  readonly why: 'fault' | 'migration' | 'error';
  /** Index of the entry; means nothing where there is no table. */
  readonly at: number;
}

/** Report pages from `addr` on, up to the first that cannot be reported as it is; `null` if all can. */
function walkVma(kernel: Kernel, range: HmmRange, vma: VmArea, from: number, stop: number): Stop | null {
  for (let addr = from; addr < stop; addr = nextLeaf(addr)) {
    const reached = walkTable(kernel, range, vma, addr, Math.min(stop, nextLeaf(addr)));
    if (reached !== null) return reached;
  }
  return null;
}

/** The same for pages of one leaf table. */
function walkTable(kernel: Kernel, range: HmmRange, vma: VmArea, from: number, stop: number): Stop | null {
  const { halves } = kernel.ram;
  const { hmmPfns } = range;
  const requests = mayNeedFault(range);
  const table = leafTable(kernel, vma.mm, from as VirtAddr);
  const huge = table === NO_TABLE ? findHugePmd(kernel, vma.mm, from) : NO_TABLE;
  if (huge !== NO_TABLE) return walkHuge(kernel, range, from, stop, huge);
  if (table === NO_TABLE && !requests) {
    fill(range, from, stop, 0);
    return null;
  }
  const first = (from - range.start) / PAGE_SIZE;
  const pages = (stop - from) / PAGE_SIZE;
  for (let n = 0, at = table + pteIndex(from); n < pages; n++, at++) {
    const i = first + n;
    const low = table === NO_TABLE ? 0 : peek32(halves, 2 * at);
    const high = table === NO_TABLE ? 0 : peek32(halves, 2 * at + 1);
    const cpuFlags = lowCpuFlags(low);
    const need = requests ? needFault(range, i, cpuFlags) : 0;
    if (need === 0 && cpuFlags !== 0) {
      setHmmPfnHalves(hmmPfns, i, halvesPfnLow(low, high), halvesPfnHigh(high) | cpuFlags);
      continue;
    }
    const isLeaf = (low | high) !== 0 && !lowPresent(low);
    if (isLeaf && reportOwn(kernel, range, i, low, high)) continue;
    if (need === 0) {
      setHmmPfnHalves(hmmPfns, i, 0, 0);
      continue;
    }
    return { addr: from + n * PAGE_SIZE, need, why: isLeaf ? remedy(kernel, high) : 'fault', at };
  }
  return null;
}

/** `hmm_vma_handle_pmd()`, `hmm_vma_handle_absent_pmd()`: pages behind one huge entry. */
function walkHuge(kernel: Kernel, range: HmmRange, from: number, stop: number, at: number): Stop | null {
  const low = peek32(kernel.ram.halves, 2 * at);
  const high = peek32(kernel.ram.halves, 2 * at + 1);
  const present = lowPresent(low);
  const page = pageOfPmd(kernel, low, high);
  if (present || isOwnPrivate(kernel, range, high, page)) {
    const access = present ? lowCpuFlags(low) : privateFlags(kernel, high, page, kernel.sites.hmmPmdKind);
    const need = needOfAny(range, from, stop, access);
    if (present && need !== 0) return { addr: from, need, why: 'fault', at };
    const counts = present || kernel.sites.absentPmdOffset;
    const first = (present ? halvesPfn(low, high) : halvesNumber(low, high)) + (counts ? pteIndex(from) : 0);
    const flags = access === 0 ? 0 : access | hmmPfnOrderFlags(HPAGE_PMD_ORDER);
    const index = (from - range.start) / PAGE_SIZE;
    const pages = (stop - from) / PAGE_SIZE;
    for (let i = 0; i < pages; i++) setHmmPfn(range.hmmPfns, index + i, flags === 0 ? 0 : first + i, flags);
    return null;
  }
  const need = needOfAny(range, from, stop, 0);
  const why = remedy(kernel, high);
  if (need !== 0) return { addr: from, need, why, at };
  fill(range, from, stop, why === 'migration' ? 0 : HMM_PFN_ERROR);
  return null;
}

function needOfAny(range: HmmRange, from: number, stop: number, cpuFlags: number): number {
  let need = 0;
  if (!mayNeedFault(range)) return need;
  for (let addr = from; addr < stop; addr += PAGE_SIZE) {
    need |= needFault(range, (addr - range.start) / PAGE_SIZE, cpuFlags);
  }
  return need;
}

const isOwnPrivate = (kernel: Kernel, range: HmmRange, high: number, page: Page): boolean =>
  isDevicePrivate(kernel.addressing.swapTypes.kindOf[highType(high)]) && ownedBy(kernel, range, page);

/** @param withKind false: without the kind of the number, which is a mistake under the series */
function privateFlags({ addressing }: Kernel, high: number, page: Page, withKind: boolean): number {
  const write = addressing.swapTypes.kindOf[highType(high)] === 'device-private-write';
  return (write ? HMM_PFN_VALID | HMM_PFN_WRITE : HMM_PFN_VALID) | (withKind ? addressing.hmmPfnKind(page) : 0);
}

/** A private page of the asking owner is reported as it is. False: it is none. */
function reportOwn(kernel: Kernel, range: HmmRange, i: number, low: number, high: number): boolean {
  const type = highType(high);
  if (!isDevicePrivate(kernel.addressing.swapTypes.kindOf[type])) return false;
  const number = halvesNumber(low, high);
  const page = kernel.addressing.leafToPage(type, number);
  if (!ownedBy(kernel, range, page)) return false;
  setHmmPfn(range.hmmPfns, i, number, privateFlags(kernel, high, page, kernel.sites.hmmPteKind));
  return true;
}

/** What makes an entry that is not present a page that can be reported. */
function remedy(kernel: Kernel, high: number): Stop['why'] {
  const kind = kernel.addressing.swapTypes.kindOf[highType(high)];
  if (isMigration(kernel, kind)) return 'migration';
  // A marker is none but for who writes: pte_is_uffd_wp_marker().
  const faults = isDevicePrivate(kind) || kind === 'device-exclusive' || kind === 'swap' || kind === 'marker';
  return faults ? 'fault' : 'error';
}

/**
 * Do what the page at the stop needs; 0 says: look again. A fault (`hmm_vma_fault()`) is for *every* page from there to
 * `end`, whatever the others are: a private page of the asking owner that comes later goes home.
 */
function* resolve(kernel: Kernel, range: HmmRange, vma: VmArea, stop: Stop, end: number): Sleeps<HmmResult> {
  if (stop.why === 'error') {
    setHmmPfn(range.hmmPfns, (stop.addr - range.start) / PAGE_SIZE, 0, HMM_PFN_ERROR);
    return 'EFAULT';
  }
  if (stop.why === 'migration') {
    if (!kernel.sites.hmmSleeps) return 0;
    const pte = readPte(kernel.ram.words, stop.at);
    yield* migrationEntryWait(kernel, stop.at, kernel.addressing.softleafToPage(softleafFromPte(pte)), pte);
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
function lowCpuFlags(low: number): number {
  if ((low & LOW_PRESENT) === 0) return 0;
  return (low & LOW_WRITE) !== 0 ? HMM_PFN_VALID | HMM_PFN_WRITE : HMM_PFN_VALID;
}

/** Does the range request anything at all? A snapshot does not. */
const mayNeedFault = ({ defaultFlags, pfnFlagsMask }: HmmRange): boolean =>
  ((defaultFlags | pfnFlagsMask) & HMM_PFN_REQ_FAULT) !== 0;

/** `hmm_pte_need_fault()`. */
function needFault(range: HmmRange, i: number, cpuFlags: number): number {
  const request = (hmmPfnFlags(range.hmmPfns, i) & range.pfnFlagsMask) | range.defaultFlags;
  if ((request & HMM_PFN_REQ_FAULT) === 0) return 0;
  if ((request & HMM_PFN_REQ_WRITE) !== 0 && (cpuFlags & HMM_PFN_WRITE) === 0) return NEED_FAULT | NEED_WRITE_FAULT;
  return (cpuFlags & HMM_PFN_VALID) === 0 ? NEED_FAULT : 0;
}

function anyNeedsFault(range: HmmRange, from: number, stop: number): boolean {
  for (let addr = from; addr < stop; addr += PAGE_SIZE) {
    if (needFault(range, (addr - range.start) / PAGE_SIZE, 0) !== 0) return true;
  }
  return false;
}

function fill(range: HmmRange, from: number, stop: number, flags: number): void {
  const end = (stop - range.start) / PAGE_SIZE;
  for (let i = (from - range.start) / PAGE_SIZE; i < end; i++) setHmmPfnHalves(range.hmmPfns, i, 0, flags);
}

const ownedBy = (kernel: Kernel, range: HmmRange, page: Page): boolean =>
  kernel.pagemaps.get(pagePgmapId(kernel.memmap.words, page))?.owner === range.devPrivateOwner;
