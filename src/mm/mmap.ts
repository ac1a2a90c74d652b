/**
 * Mapping and unmapping. Linux: mm/mmap.c, mm/vma.c, and the zap path of mm/memory.c.
 *
 * Not modelled yet: merging of neighbouring VMAs, file and shared mappings (VmArea has the place for them).
 */
import { isPageAligned, MMAP_MIN_ADDR, PAGE_SIZE, PMD_SIZE, pageAlignUp, TASK_SIZE } from '../abi/address.js';
import type { Errno, Result } from '../abi/errno.js';
import { pteDirty, pteNone, ptePfn, ptePresent, pteSpecial } from '../abi/pte.js';
import { softleafFromPte } from '../abi/softleaf.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import type { Page, VirtAddr } from '../base/brand.js';
import type { Sleeps } from '../sync/task.js';
import { getAndClearPte, readPte } from '../sync/word.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import { pageSetFlag } from './page.js';
import { freePgtables, leafTable, lockTable, nextLeaf, nextMappedLeaf, pteIndex, unlockTable } from './pgtable.js';
import { putPage } from './put-page.js';
import { anonVmaLink, anonVmaUnlink, pageRemoveRmap } from './rmap.js';
import { leafKind } from './softleaf.js';
import { flushTlbRange } from './tlbflush.js';
import { VM_MAYREAD, VM_MAYWRITE, VM_READ, VM_WRITE, VmArea } from './vma.js';

export type Protection = 'none' | 'r' | 'w' | 'rw';

const PROTECTION_FLAGS: Readonly<Record<Protection, number>> = {
  none: 0,
  r: VM_READ,
  w: VM_WRITE,
  rw: VM_READ | VM_WRITE,
};

/** Highest address that mmap chooses by itself (mmap_base, without randomisation). */
const MMAP_BASE = 0x7fff_f7ff_f000;

export interface MmapRequest {
  /** Where; only with `fixed`, otherwise the kernel chooses top-down. */
  readonly addr?: VirtAddr;
  /** Bytes, rounded up to pages. */
  readonly length: number;
  readonly prot: Protection;
  /** MAP_FIXED: what is mapped there goes away. */
  readonly fixed: boolean;
}

/** `do_mmap()` of anonymous private memory: the address, EINVAL, ENOMEM, or EPERM below mmap_min_addr. */
export function* doMmap(kernel: Kernel, mm: MmStruct, request: MmapRequest): Sleeps<VirtAddr | Errno> {
  const length = pageAlignUp(request.length);
  if (length === 0) return 'EINVAL';
  if (length > TASK_SIZE) return 'ENOMEM';
  yield* mm.mmapLock.downWrite();
  try {
    if (mm.exiting) return 'ENOMEM';
    let start: number | undefined;
    if (request.fixed) {
      start = request.addr;
      if (start === undefined || !isPageAligned(start) || start < 0) return 'EINVAL';
      if (start + length > TASK_SIZE) return 'ENOMEM';
      if (start < MMAP_MIN_ADDR) return 'EPERM';
      yield* unmapRegion(kernel, mm, start, start + length);
    } else {
      // Anonymous memory that can hold a huge page is aligned for one, as Linux does since 6.7.
      const align = length >= PMD_SIZE ? PMD_SIZE : PAGE_SIZE;
      start = mm.vmas.highestGap(length, MMAP_MIN_ADDR, MMAP_BASE, align);
      if (start === undefined) return 'ENOMEM';
    }
    const flags = PROTECTION_FLAGS[request.prot] | VM_MAYREAD | VM_MAYWRITE;
    const vma = new VmArea(mm, start as VirtAddr, (start + length) as VirtAddr, flags, start / PAGE_SIZE);
    mm.vmas.insert(vma.start, vma.end, vma);
    return vma.start;
  } finally {
    mm.mmapLock.upWrite();
  }
}

/** `do_munmap()`: EINVAL on a bad range; unmapping nothing is fine. */
export function* doMunmap(kernel: Kernel, mm: MmStruct, start: VirtAddr, length: number): Sleeps<Result> {
  const bytes = pageAlignUp(length);
  if (!isPageAligned(start) || bytes === 0 || start < 0 || start + bytes > TASK_SIZE) return 'EINVAL';
  yield* mm.mmapLock.downWrite();
  try {
    yield* unmapRegion(kernel, mm, start, start + bytes);
    return 0;
  } finally {
    mm.mmapLock.upWrite();
  }
}

/** Unmap [start, end), splitting the VMAs at its borders. Precondition: mmap_lock held for writing. */
export function* unmapRegion(kernel: Kernel, mm: MmStruct, start: number, end: number): Sleeps<void> {
  splitVma(mm, start);
  splitVma(mm, end);
  const victims = [...mm.vmas.from(start)].filter((range) => range.start < end).map((range) => range.value);
  for (const vma of victims) {
    const range: MmuNotifierRange = {
      mm,
      start: vma.start,
      end: vma.end,
      event: 'MMU_NOTIFY_UNMAP',
      owner: null,
    };
    yield* mmuNotifierInvalidateRangeStart(range);
    zapRange(kernel, vma);
    mmuNotifierInvalidateRangeEnd(range);
    anonVmaUnlink(kernel, vma);
    mm.vmas.remove(vma.start);
  }
  if (victims.length === 0) return;
  const floor = mm.vmas.previous(start)?.end ?? 0;
  const ceiling = mm.vmas.firstEndingAfter(end)?.start ?? 2 ** 48;
  freePgtables(kernel, mm, floor, ceiling);
}

/** `split_vma()`: make `addr` a border. */
function splitVma(mm: MmStruct, addr: number): void {
  const vma = mm.vmas.find(addr)?.value;
  if (vma === undefined || vma.start === addr) return;
  const upper = new VmArea(
    mm,
    addr as VirtAddr,
    vma.end,
    vma.flags,
    vma.pgoff + (addr - vma.start) / PAGE_SIZE,
    vma.file,
  );
  const { anonVma, anonHandle } = vma;
  mm.vmas.remove(vma.start);
  vma.end = addr as VirtAddr;
  mm.vmas.insert(vma.start, vma.end, vma);
  mm.vmas.insert(upper.start, upper.end, upper);
  if (anonVma === null || anonHandle === null) return;
  anonVma.tree.remove(anonHandle);
  anonVma.users--;
  anonVmaLink(vma, anonVma);
  anonVmaLink(upper, anonVma);
}

/** `zap_pte_range()` over a VMA: every entry becomes none; pages are freed only after the TLBs have forgotten them. */
function zapRange(kernel: Kernel, vma: VmArea): void {
  const { mm } = vma;
  const gathered: Page[] = [];
  for (let at = nextMappedLeaf(kernel, mm, vma.start, vma.end); at < vma.end; ) {
    const stop = Math.min(nextLeaf(at), vma.end);
    const table = leafTable(kernel, mm, at as VirtAddr);
    lockTable(kernel, table);
    for (let entry = table + pteIndex(at), addr = at; addr < stop; entry++, addr += PAGE_SIZE) {
      const page = zapPte(kernel, mm, entry);
      if (page !== 0) gathered.push(page);
    }
    unlockTable(kernel, table);
    flushTlbRange(kernel, mm, at as VirtAddr, stop as VirtAddr);
    for (const page of gathered) putPage(kernel, page);
    gathered.length = 0;
    at = nextMappedLeaf(kernel, mm, stop, vma.end);
  }
}

/** Clear one entry; returns the page whose reference the caller has to drop, 0 for none. */
function zapPte(kernel: Kernel, mm: MmStruct, at: number): Page | 0 {
  const { words } = kernel.ram;
  if (pteNone(readPte(words, at))) return 0;
  const pte = getAndClearPte(words, at);
  if (ptePresent(pte)) {
    if (pteSpecial(pte)) return 0;
    const page = kernel.memmap.pfnToPage(ptePfn(pte));
    if (pteDirty(pte)) pageSetFlag(kernel.memmap.words, page, PAGE_FLAGS.PG_dirty);
    pageRemoveRmap(kernel, page);
    mm.rssAnon--;
    return page;
  }
  const entry = softleafFromPte(pte);
  switch (leafKind(kernel, entry)) {
    case 'device-private-read':
    case 'device-private-write':
    case 'device-exclusive': {
      const page = kernel.addressing.softleafToPage(entry);
      pageRemoveRmap(kernel, page);
      mm.rssAnon--;
      return page;
    }
    case 'marker':
    case 'hwpoison':
      return 0;
    default:
      // A migration entry holds no reference: the migration finds it gone and leaves the page unmapped.
      mm.rssAnon--;
      return 0;
  }
}
