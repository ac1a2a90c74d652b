/**
 * Private memory of huge pages from the pool (MAP_HUGETLB). Linux: mm/hugetlb.c, fs/hugetlbfs/inode.c.
 *
 * Whoever maps such memory has pages reserved for all of it, so that its first touches cannot fail. A child has no reservation
 * for its copies, and nobody has one for what DONTNEED has dropped: an empty pool is SIGBUS there. But the owner must not fail
 * for its child's sake: where its copy-on-write finds the pool empty, it takes the page from its children, who may never touch
 * a hole of the mapping again.
 *
 * Its entries stand in the page middle directory as those of other huge pages do, but nothing is deposited beside them: they
 * never come apart. Such pages do not move, are on no list for reclaim, and count in no rss. Not modelled: hugetlbfs and its
 * files, shared mappings, sizes but 2 MiB, memory cgroups, migration between nodes.
 */
import { HPAGE_PMD_NR, PMD_SIZE } from '../abi/address.js';
import { VM_FAULT_OOM, VM_FAULT_SIGBUS, type VmFault } from '../abi/errno.js';
import {
  LOW_ACCESSED,
  LOW_DIRTY,
  LOW_PRESENT,
  LOW_PROTNONE,
  LOW_SOFT_DIRTY,
  LOW_USER,
  LOW_WRITE,
} from '../abi/pte-halves.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { NULL_PAGE, type Page, type VirtAddr } from '../base/brand.js';
import { pageRefAdd } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import { and32, getAndClearPteLow, or32, peek32, setPteHalves } from '../sync/word.js';
import { vmFilePut } from './filemap.js';
import { findHugePmd, hugeAlignDown, isHugeAligned, pageOfPmd, setHugePresent } from './huge-pmd.js';
import { takeHugetlb } from './hugetlb-pool.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import {
  type MmuNotifierRange,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from './mmu-notifier.js';
import { folioEntireMapcountAdd, folioMapcount, pageSetFlag, pageTestFlag } from './page.js';
import { allocPmd, lockTable, NO_TABLE, tableOf, unlockTable } from './pgtable.js';
import { putPage } from './put-page.js';
import { anonVmaPrepare, pageAddNewAnonRmap, pageMoveAnonRmap, pageTryDupAnonRmapPmd, rmapAddress } from './rmap.js';
import { flushTlbRange } from './tlbflush.js';
import { linearPageIndex, VM_HUGETLB, VM_WRITE, type VmArea, type VmFile, vmaLookup, vmaPageProt } from './vma.js';

const { PG_anon_exclusive, PG_uptodate } = PAGE_FLAGS;
const PROTECTION = LOW_PRESENT | LOW_USER | LOW_WRITE | LOW_PROTNONE;

/** What stands behind one mapping: its own nameless file of hugetlbfs, never written to, as all of its users map it privately. */
export class HugetlbFile implements VmFile {
  readonly id: number;
  readonly name = '/anon_hugepage (deleted)';
  readonly device = '00:10';
  readonly pages = new Map<number, Page>();
  readonly size: number;
  users = 1;
  entered = 0;
  readonly cache = null;
  /** Who mapped it: the reservation is its own alone (HPAGE_RESV_OWNER). */
  readonly owner: MmStruct;
  /** Huge pages of it, by number, that are reserved and not touched yet. */
  readonly reserved: Set<number>;
  /** Children from whom the owner has taken pages (HPAGE_RESV_UNMAPPED). */
  readonly robbed = new Set<MmStruct>();

  constructor(id: number, size: number, owner: MmStruct) {
    this.id = id;
    this.size = size;
    this.owner = owner;
    this.reserved = new Set(Array.from({ length: size / PMD_SIZE }, (_, index) => index));
  }
}

export const isHugetlb = (vma: VmArea): boolean => (vma.flags & VM_HUGETLB) !== 0;

const fileOf = (vma: VmArea): HugetlbFile => vma.file as HugetlbFile;

/** Number of a huge page in its file. */
const indexOf = (vma: VmArea, addr: number): number => linearPageIndex(vma, addr) / HPAGE_PMD_NR;

/** Are `size` bytes of the pool promised to nobody? */
export const hugetlbHas = ({ hugetlb }: Kernel, size: number): boolean =>
  hugetlb.free.length - hugetlb.reserved >= size / PMD_SIZE;

/** `hugetlb_file_setup()`, `hugetlb_reserve_pages()`: `size` bytes for a new mapping; ENOMEM when the pool has not so many. */
export function hugetlbFileSetup(kernel: Kernel, owner: MmStruct, size: number): HugetlbFile | 'ENOMEM' {
  const { hugetlb, files } = kernel;
  if (!hugetlbHas(kernel, size)) return 'ENOMEM';
  hugetlb.reserved += size / PMD_SIZE;
  return files.add((id) => new HugetlbFile(id, size, owner));
}

/** `hugetlb_vm_op_split()`: may a VMA's border be here? Not in the middle of a huge page. */
export const hugetlbMaySplit = (mm: MmStruct, addr: number): boolean => {
  const vma = isHugeAligned(addr) ? undefined : vmaLookup(mm, addr);
  return vma === undefined || !isHugetlb(vma);
};

/** `hugetlb_vm_op_close()`: what is reserved for a VMA that goes, and that no other of the process shows, is free for others. */
export function hugetlbVmaClose(kernel: Kernel, vma: VmArea): void {
  const file = fileOf(vma);
  if (vma.mm !== file.owner) return;
  // After mremap two VMAs have the same offsets for a moment.
  const others = [...vma.mm.vmas].map(({ value }) => value).filter((each) => each !== vma && each.file === file);
  const shows = (each: VmArea, index: number): boolean =>
    index >= indexOf(each, each.start) && index < indexOf(each, each.end);
  for (const index of [...file.reserved]) {
    if (!shows(vma, index) || others.some((each) => shows(each, index))) continue;
    file.reserved.delete(index);
    kernel.hugetlb.reserved--;
  }
}

/** `hugetlb_fault()`. Precondition: mmap_lock held for reading; the VMA allows the access. */
export function* hugetlbFault(
  kernel: Kernel,
  vma: VmArea,
  addr: VirtAddr,
  write: boolean,
  unshare: boolean,
): Sleeps<VmFault> {
  const start = hugeAlignDown(addr);
  const at = allocPmd(kernel, vma.mm, start);
  if (at === NO_TABLE) return VM_FAULT_OOM;
  if (findHugePmd(kernel, vma.mm, start) === NO_TABLE && !hugetlbNoPage(kernel, vma, start, at)) return VM_FAULT_SIGBUS;
  const { halves } = kernel.ram;
  if ((write || unshare) && (peek32(halves, 2 * at) & LOW_WRITE) === 0) {
    return yield* hugetlbWp(kernel, vma, start, at, write);
  }
  or32(halves, 2 * at, write ? LOW_ACCESSED | LOW_DIRTY : LOW_ACCESSED);
  return 0;
}

/** `hugetlb_no_page()`: a page of zeroes, read-only at first, also for a store. False when there is none to be had. */
function hugetlbNoPage(kernel: Kernel, vma: VmArea, start: VirtAddr, at: number): boolean {
  const { hugetlb, memmap } = kernel;
  const file = fileOf(vma);
  if (file.robbed.has(vma.mm)) return false;
  const reserved = vma.mm === file.owner && file.reserved.delete(indexOf(vma, start));
  const page = takeHugetlb(hugetlb, memmap.words, reserved);
  if (page === NULL_PAGE) return false;
  for (let i = 0; i < HPAGE_PMD_NR; i++) kernel.ram.zeroFrame(memmap.ramFrame((page + i) as Page));
  mapNew(kernel, vma, start, at, page, LOW_ACCESSED);
  vma.mm.hugetlbUsage += HPAGE_PMD_NR;
  return true;
}

/** `hugetlb_add_new_anon_rmap()` and the entry. Precondition: nothing stands at `at`. */
function mapNew(kernel: Kernel, vma: VmArea, start: VirtAddr, at: number, page: Page, flags: number): void {
  anonVmaPrepare(kernel, vma);
  lockTable(kernel, tableOf(at));
  pageAddNewAnonRmap(kernel, page, vma, start);
  pageSetFlag(kernel.memmap.words, page, PG_uptodate);
  setHugePresent(kernel, vma, at, page, flags);
  unlockTable(kernel, tableOf(at));
}

/** `hugetlb_wp()`: reuse a page that nobody else maps, copy any other. Without `write`, only make it ours. */
function* hugetlbWp(kernel: Kernel, vma: VmArea, start: VirtAddr, at: number, write: boolean): Sleeps<VmFault> {
  const { hugetlb, memmap, ram } = kernel;
  const { words } = memmap;
  const old = pageAt(kernel, at);
  if (folioMapcount(words, old) === 1) {
    if (!pageTestFlag(words, old, PG_anon_exclusive)) {
      pageMoveAnonRmap(kernel, old, vma);
      pageSetFlag(words, old, PG_anon_exclusive);
    }
    if (write) or32(ram.halves, 2 * at, LOW_WRITE | LOW_ACCESSED | LOW_DIRTY);
    return 0;
  }
  const copy = takeHugetlb(hugetlb, words, false);
  if (copy === NULL_PAGE) {
    if (vma.mm !== fileOf(vma).owner) return VM_FAULT_SIGBUS;
    yield* unmapFromOthers(kernel, vma, start, old);
    return 0;
  }
  copyHuge(kernel, copy, old);
  const end = (start + PMD_SIZE) as VirtAddr;
  const range: MmuNotifierRange = { mm: vma.mm, start, end, event: 'MMU_NOTIFY_CLEAR', owner: null };
  pageRefAdd(words, old, 1);
  yield* mmuNotifierInvalidateRangeStart(range);
  const same = findHugePmd(kernel, vma.mm, start) === at && pageAt(kernel, at) === old;
  if (same) {
    getAndClearPteLow(ram.words, at);
    flushTlbRange(kernel, vma.mm, start, end);
    mapNew(kernel, vma, start, at, copy, write ? LOW_WRITE | LOW_ACCESSED | LOW_DIRTY : LOW_ACCESSED);
    folioEntireMapcountAdd(words, old, -1);
    putPage(kernel, old);
  }
  mmuNotifierInvalidateRangeEnd(range);
  putPage(kernel, old);
  if (!same) putPage(kernel, copy);
  return 0;
}

const pageAt = (kernel: Kernel, at: number): Page =>
  pageOfPmd(kernel, peek32(kernel.ram.halves, 2 * at), peek32(kernel.ram.halves, 2 * at + 1));

function copyHuge({ memmap, ram }: Kernel, to: Page, from: Page): void {
  for (let i = 0; i < HPAGE_PMD_NR; i++) {
    ram.copyFrame(memmap.ramFrame((from + i) as Page), memmap.ramFrame((to + i) as Page));
  }
}

/** `unmap_ref_private()`: the owner keeps the page, its children lose it. */
function* unmapFromOthers(kernel: Kernel, owner: VmArea, start: VirtAddr, page: Page): Sleeps<void> {
  const file = fileOf(owner);
  const index = linearPageIndex(owner, start);
  const maps = (vma: VmArea): boolean => {
    const addr = rmapAddress(vma, index);
    if (vma.mm === owner.mm || vma.file !== file || addr < vma.start || addr >= vma.end) return false;
    const at = findHugePmd(kernel, vma.mm, addr);
    return at !== NO_TABLE && pageAt(kernel, at) === page;
  };
  for (;;) {
    const other = [...kernel.mms].flatMap(({ vmas }) => [...vmas].map(({ value }) => value)).find(maps);
    if (other === undefined) return;
    const addr = rmapAddress(other, index);
    const end = (addr + PMD_SIZE) as VirtAddr;
    const range: MmuNotifierRange = { mm: other.mm, start: addr, end, event: 'MMU_NOTIFY_CLEAR', owner: null };
    file.robbed.add(other.mm);
    // Its last mapping may go while we sleep, and the file with it.
    file.users++;
    yield* mmuNotifierInvalidateRangeStart(range);
    if (vmaLookup(other.mm, addr) === other && maps(other)) zapHugetlb(kernel, other, addr, end);
    mmuNotifierInvalidateRangeEnd(range);
    vmFilePut(kernel, file);
  }
}

/** Places of the entries of [start, end), with their addresses. */
function* entries(kernel: Kernel, mm: MmStruct, start: number, end: number): Generator<readonly [VirtAddr, number]> {
  for (let addr = start; addr < end; addr += PMD_SIZE) {
    const at = findHugePmd(kernel, mm, addr);
    if (at !== NO_TABLE) yield [addr as VirtAddr, at];
  }
}

/** `__unmap_hugepage_range()`. Precondition: whole huge pages; notifiers have been told. */
export function zapHugetlb(kernel: Kernel, { mm }: VmArea, start: number, end: number): void {
  const { memmap, ram } = kernel;
  for (const [addr, at] of entries(kernel, mm, start, end)) {
    const page = pageAt(kernel, at);
    lockTable(kernel, tableOf(at));
    setPteHalves(ram.words, at, 0, 0);
    folioEntireMapcountAdd(memmap.words, page, -1);
    mm.hugetlbUsage -= HPAGE_PMD_NR;
    unlockTable(kernel, tableOf(at));
    flushTlbRange(kernel, mm, addr, (addr + PMD_SIZE) as VirtAddr);
    putPage(kernel, page);
  }
}

/** `copy_hugetlb_page_range()`. False when a table, or a copy of a pinned page, cannot be had. */
export function copyHugetlb(kernel: Kernel, child: VmArea, parent: VmArea): boolean {
  const { hugetlb, memmap, ram } = kernel;
  for (const [addr, from] of entries(kernel, parent.mm, parent.start, parent.end)) {
    const to = allocPmd(kernel, child.mm, addr);
    if (to === NO_TABLE) return false;
    const page = pageAt(kernel, from);
    if (pageTryDupAnonRmapPmd(kernel, page)) {
      pageRefAdd(memmap.words, page, 1);
      const low = and32(ram.halves, 2 * from, ~LOW_WRITE) & ~LOW_WRITE;
      setPteHalves(ram.words, to, low, peek32(ram.halves, 2 * from + 1));
    } else {
      const copy = takeHugetlb(hugetlb, memmap.words, false);
      if (copy === NULL_PAGE) return false;
      copyHuge(kernel, copy, page);
      const write = (child.flags & VM_WRITE) !== 0 ? LOW_WRITE : 0;
      mapNew(kernel, child, addr, to, copy, LOW_ACCESSED | LOW_DIRTY | write);
    }
    child.mm.hugetlbUsage += HPAGE_PMD_NR;
  }
  return true;
}

/** `hugetlb_change_protection()`: as the VMA allows by now; the right to write comes back with the next store alone. */
export function changeHugetlb(kernel: Kernel, vma: VmArea, start: number, end: number): void {
  const { halves, words } = kernel.ram;
  for (const [addr, at] of entries(kernel, vma.mm, start, end)) {
    const high = peek32(halves, 2 * at + 1);
    lockTable(kernel, tableOf(at));
    setPteHalves(words, at, (getAndClearPteLow(words, at) & ~PROTECTION) | vmaPageProt(vma), high);
    flushTlbRange(kernel, vma.mm, addr, (addr + PMD_SIZE) as VirtAddr);
    unlockTable(kernel, tableOf(at));
  }
}

/** `move_hugetlb_page_tables()`: returns how far it got, less than `length` when there was no RAM for a table. */
export function moveHugetlb(kernel: Kernel, { mm }: VmArea, from: number, to: number, length: number): number {
  const { halves, words } = kernel.ram;
  for (const [addr, at] of entries(kernel, mm, from, from + length)) {
    const target = allocPmd(kernel, mm, addr - from + to);
    if (target === NO_TABLE) return addr - from;
    const high = peek32(halves, 2 * at + 1);
    lockTable(kernel, tableOf(at));
    setPteHalves(words, target, getAndClearPteLow(words, at) | LOW_SOFT_DIRTY, high);
    setPteHalves(words, at, 0, 0);
    flushTlbRange(kernel, mm, addr, (addr + PMD_SIZE) as VirtAddr);
    unlockTable(kernel, tableOf(at));
  }
  return length;
}
