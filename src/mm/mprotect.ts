/** Changing protection. Linux: mm/mprotect.c. */
import { isPageAligned, PAGE_SIZE, PUD_SHIFT, pageAlignUp, TASK_SIZE } from '../abi/address.js';
import type { Result } from '../abi/errno.js';
import {
  halvesNumber,
  halvesPfn,
  highMigrationFlags,
  highType,
  LOW_DIRTY,
  LOW_PRESENT,
  LOW_PROTNONE,
  LOW_SPECIAL,
  LOW_SWP_SOFT_DIRTY,
  LOW_SWP_UFFD_WP,
  LOW_UFFD_WP,
  LOW_USER,
  LOW_WRITE,
  leafHigh,
  lowPresent,
} from '../abi/pte-halves.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import type { Pfn, VirtAddr } from '../base/brand.js';
import type { Sleeps } from '../sync/task.js';
import { getAndClearPteLow, load32, setPteHalves } from '../sync/word.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import { PROTECTION_FLAGS, type Protection } from './mmap.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import { pageIsAnon, pageTestFlag } from './page.js';
import { leafTable, lockTable, nextLeaf, nextMappedLeaf, pteIndex, type TableIndex, unlockTable } from './pgtable.js';
import { isDevicePrivate, isMigrationWrite } from './softleaf.js';
import { flushTlbRange } from './tlbflush.js';
import {
  VM_ACCESS_FLAGS,
  VM_ACCOUNT,
  VM_SHARED,
  VM_WRITE,
  type VmArea,
  vmaIsAnonymous,
  vmaLookup,
  vmaPageProt,
} from './vma.js';
import { modifyVmaFlags } from './vma-merge.js';

const PROT_BITS = LOW_PRESENT | LOW_USER | LOW_WRITE | LOW_PROTNONE;
const PUD_SIZE = 2 ** PUD_SHIFT;

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
  if (start < 0 || end < start || end > TASK_SIZE) return 'ENOMEM';
  yield* mm.mmapLock.downWrite();
  try {
    for (let at: number = start; at < end; ) {
      const vma = vmaLookup(mm, at);
      if (vma === undefined) return 'ENOMEM';
      const stop = Math.min(vma.end, end);
      const flags = (vma.flags & ~VM_ACCESS_FLAGS) | PROTECTION_FLAGS[prot];
      // VM_MAY* are the VM_* four bits further up.
      if ((flags & ~(flags >> 4) & VM_ACCESS_FLAGS) !== 0) return 'EACCES';
      yield* mprotectFixup(kernel, vma, at, stop, flags);
      at = stop;
    }
    return 0;
  } finally {
    mm.mmapLock.upWrite();
  }
}

function* mprotectFixup(kernel: Kernel, vma: VmArea, start: number, end: number, asked: number): Sleeps<void> {
  const old = vma.flags;
  if (asked === old) return;
  let flags = asked;
  if ((flags & VM_WRITE) !== 0) {
    if ((old & (VM_ACCOUNT | VM_WRITE | VM_SHARED)) === 0) flags |= VM_ACCOUNT;
  } else if (vmaIsAnonymous(vma) && vma.anonVma === null) {
    flags &= ~VM_ACCOUNT;
  }
  yield* changeProtection(kernel, modifyVmaFlags(kernel, vma, start, end, flags), start, end);
}

/** `change_protection()`: make the entries of [start, end) what the VMA allows by now. */
function* changeProtection(kernel: Kernel, vma: VmArea, start: number, end: number): Sleeps<void> {
  const { mm } = vma;
  const mapped = nextMappedLeaf(kernel, mm, start, end);
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
  for (let at = mapped; at < end; at = nextMappedLeaf(kernel, mm, nextLeaf(at), end)) {
    changeTable(kernel, vma, at, Math.min(nextLeaf(at), end));
  }
  mmuNotifierInvalidateRangeEnd(range);
}

/** `change_pte_range()`: the entries of one leaf table. */
function changeTable(kernel: Kernel, vma: VmArea, from: number, stop: number): void {
  const table: TableIndex = leafTable(kernel, vma.mm, from as VirtAddr);
  const { halves } = kernel.ram;
  let flush = false;
  lockTable(kernel, table);
  for (let at = table + pteIndex(from), addr = from; addr < stop; at++, addr += PAGE_SIZE) {
    const high = load32(halves, 2 * at + 1);
    const seen = load32(halves, 2 * at);
    if ((seen | high) === 0) continue;
    if (!lowPresent(seen)) {
      changeLeaf(kernel, at, seen, high);
      continue;
    }
    changePte(kernel, vma, at);
    flush = true;
  }
  if (flush) flushTlbRange(kernel, vma.mm, from as VirtAddr, stop as VirtAddr);
  unlockTable(kernel, table);
}

/** `pte_modify()`: the present entry at `at` gets what the VMA allows. Precondition: page table lock held. */
export function changePte(kernel: Kernel, vma: VmArea, at: number): void {
  const { halves, words } = kernel.ram;
  const high = load32(halves, 2 * at + 1);
  // Hardware may set accessed and dirty until the entry is cleared.
  let low = (getAndClearPteLow(words, at) & ~PROT_BITS) | vmaPageProt(vma);
  if ((low & LOW_WRITE) === 0 && canChangePteWritable(kernel, vma, low, high)) low |= LOW_WRITE;
  setPteHalves(words, at, low, high);
}

/** A non-present entry loses its right to write, for good: mprotect never gives it one. */
function changeLeaf(kernel: Kernel, at: number, low: number, high: number): void {
  const { addressing, ram } = kernel;
  const type = highType(high);
  const kind = addressing.swapTypes.kindOf[type];
  const number = halvesNumber(low, high);
  if (isMigrationWrite(kind)) {
    const page = addressing.leafToPage(type, number);
    const to = addressing.migrationType(page, pageIsAnon(kernel.memmap.words, page) ? 'read-exclusive' : 'read');
    setPteHalves(ram.words, at, low, leafHigh(to, number, highMigrationFlags(high)));
  } else if (isDevicePrivate(kind)) {
    // Soft-dirty of a downgraded device entry is not kept.
    const kept = kind === 'device-private-write' ? low & ~LOW_SWP_SOFT_DIRTY : low;
    setPteHalves(
      ram.words,
      at,
      kept | (low & LOW_SWP_UFFD_WP),
      leafHigh(addressing.devicePrivateType(false), number, 0),
    );
  }
}

/**
 * `can_change_pte_writable()`: may an entry (given by its halves) be writable without a fault first? An anonymous page if it is
 * exclusive; a shared one if it is known to be dirty.
 */
export function canChangePteWritable(kernel: Kernel, vma: VmArea, low: number, high: number): boolean {
  if ((vma.flags & VM_WRITE) === 0 || (low & (LOW_PROTNONE | LOW_UFFD_WP)) !== 0) return false;
  if ((vma.flags & VM_SHARED) !== 0) return (low & LOW_DIRTY) !== 0;
  if ((low & LOW_SPECIAL) !== 0) return false;
  const page = kernel.memmap.pfnToPage(halvesPfn(low, high) as Pfn);
  return pageIsAnon(kernel.memmap.words, page) && pageTestFlag(kernel.memmap.words, page, PAGE_FLAGS.PG_anon_exclusive);
}
