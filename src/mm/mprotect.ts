/** Changing protection. Linux: mm/mprotect.c. */
import { isPageAligned, PMD_SIZE, PUD_SIZE, pageAlignUp, wraps } from '../abi/address.js';
import type { Result } from '../abi/errno.js';
import { lowPresent } from '../abi/pte-halves.js';
import type { VirtAddr } from '../base/brand.js';
import type { Sleeps } from '../sync/task.js';
import { peek32 } from '../sync/word.js';
import { populateVma } from './gup.js';
import { changeHugePmd, findHugePmd, splitHugePmd } from './huge-pmd.js';
import { changeHugetlb, hugetlbMaySplit, isHugetlb } from './hugetlb.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import { PROTECTION_FLAGS, type Protection } from './mmap.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import {
  leafTable,
  lockTable,
  NO_TABLE,
  nextLeaf,
  nextMappedLeaf,
  pteIndex,
  type TableIndex,
  tableOf,
  unlockTable,
} from './pgtable.js';
import { changeLeaf, changePtes } from './pte-protect.js';
import { flushTlbRange } from './tlbflush.js';
import {
  VM_ACCESS_FLAGS,
  VM_ACCOUNT,
  VM_HUGETLB,
  VM_LOCKED,
  VM_SHARED,
  VM_WRITE,
  type VmArea,
  vmaIsAnonymous,
  vmaLookup,
} from './vma.js';
import { modifyVmaFlags } from './vma-merge.js';

/** `do_mprotect_pkey()`: ENOMEM at a hole, with what lies before it changed; EACCES where a mapping does not allow it. */
export function* doMprotect(
  kernel: Kernel,
  mm: MmStruct,
  start: VirtAddr,
  length: number,
  prot: Protection,
): Sleeps<Result> {
  const end = start + pageAlignUp(length);
  if (!isPageAligned(start)) return 'EINVAL';
  if (end === start) return 0;
  if (wraps(start, end - start)) return 'ENOMEM';
  yield* mm.mmapLock.downWrite();
  try {
    for (let at: number = start; at < end; ) {
      const vma = vmaLookup(mm, at);
      if (vma === undefined) return 'ENOMEM';
      const stop = Math.min(vma.end, end);
      const flags = (vma.flags & ~VM_ACCESS_FLAGS) | PROTECTION_FLAGS[prot];
      // VM_MAY* are the VM_* four bits further up.
      if ((flags & ~(flags >> 4) & VM_ACCESS_FLAGS) !== 0) return 'EACCES';
      if (flags !== vma.flags && !(hugetlbMaySplit(mm, at) && hugetlbMaySplit(mm, stop))) return 'EINVAL';
      const failed = yield* mprotectFixup(kernel, vma, at, stop, flags);
      if (failed !== 0) return failed;
      at = stop;
    }
    return 0;
  } finally {
    mm.mmapLock.upWrite();
  }
}

function* mprotectFixup(kernel: Kernel, vma: VmArea, start: number, end: number, asked: number): Sleeps<Result> {
  const old = vma.flags;
  if (asked === old) return 0;
  let flags = asked;
  if ((flags & VM_WRITE) !== 0) {
    if ((old & (VM_ACCOUNT | VM_WRITE | VM_SHARED | VM_HUGETLB)) === 0) flags |= VM_ACCOUNT;
  } else if (vmaIsAnonymous(vma) && vma.anonVma === null) {
    flags &= ~VM_ACCOUNT;
  }
  const changed = yield* modifyVmaFlags(kernel, vma, start, end, flags);
  if (changed === 'ENOMEM') return changed;
  yield* changeProtection(kernel, changed, start, end);
  // What is locked and private is copied now, not when it is stored to; whether it can be is not asked.
  const copies = (old & (VM_WRITE | VM_SHARED | VM_LOCKED)) === VM_LOCKED && (flags & VM_WRITE) !== 0;
  if (copies) yield* populateVma(kernel, changed, start, end, false);
  return 0;
}

/**
 * `change_protection()`: make the entries of [start, end) what the VMA allows by now.
 * @param change what to do with what one leaf table serves
 */
export function* changeProtection(
  kernel: Kernel,
  vma: VmArea,
  start: number,
  end: number,
  change = (from: number, stop: number): Sleeps<void> => changeTable(kernel, vma, from, stop),
): Sleeps<void> {
  const { mm } = vma;
  // Nobody is told before the first upper table (1 GiB) in which something may be mapped: change_pud_range().
  const region = Math.floor(start / PUD_SIZE) * PUD_SIZE;
  const first = nextMappedLeaf(kernel, mm, region, Math.ceil(end / PUD_SIZE) * PUD_SIZE);
  const told = Math.max(start, Math.floor(first / PUD_SIZE) * PUD_SIZE);
  if (told >= end) return;
  const range: MmuNotifierRange = {
    mm,
    start: told as VirtAddr,
    end: end as VirtAddr,
    event: 'MMU_NOTIFY_PROTECTION_VMA',
    owner: null,
  };
  yield* mmuNotifierInvalidateRangeStart(range);
  for (let at = nextMappedLeaf(kernel, mm, start, end); at < end; at = nextMappedLeaf(kernel, mm, nextLeaf(at), end)) {
    yield* change(at, Math.min(nextLeaf(at), end));
  }
  mmuNotifierInvalidateRangeEnd(range);
}

/** `change_pte_range()`: the entries of one leaf table. */
function* changeTable(kernel: Kernel, vma: VmArea, from: number, stop: number): Sleeps<void> {
  let table: TableIndex = leafTable(kernel, vma.mm, from as VirtAddr);
  if (table === NO_TABLE) {
    if (stop - from === PMD_SIZE) {
      if (isHugetlb(vma)) changeHugetlb(kernel, vma, from, stop);
      else changeHuge(kernel, vma, from as VirtAddr);
      return;
    }
    yield* splitHugePmd(kernel, vma, from);
    table = leafTable(kernel, vma.mm, from as VirtAddr);
    // It was a file's: the faults to come find the new protection.
    if (table === NO_TABLE) return;
  }
  const { halves } = kernel.ram;
  let flush = false;
  lockTable(kernel, table);
  const last = table + pteIndex(stop - 1);
  for (let at = table + pteIndex(from); at <= last; ) {
    const high = peek32(halves, 2 * at + 1);
    const seen = peek32(halves, 2 * at);
    if (lowPresent(seen)) {
      at += changePtes(kernel, vma, at, last + 1);
      flush = true;
      continue;
    }
    if ((seen | high) !== 0) changeLeaf(kernel, at, seen, high);
    at++;
  }
  if (flush) flushTlbRange(kernel, vma.mm, from as VirtAddr, stop as VirtAddr);
  unlockTable(kernel, table);
}

function changeHuge(kernel: Kernel, vma: VmArea, addr: VirtAddr): void {
  const at = findHugePmd(kernel, vma.mm, addr);
  lockTable(kernel, tableOf(at));
  if (changeHugePmd(kernel, vma, at)) flushTlbRange(kernel, vma.mm, addr, (addr + PMD_SIZE) as VirtAddr);
  unlockTable(kernel, tableOf(at));
}
