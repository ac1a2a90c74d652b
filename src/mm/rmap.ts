/**
 * Reverse map: from a page to the places that map it. Linux: mm/rmap.c, mm/interval_tree.c.
 *
 * An anon_vma holds, by page offset, the VMAs in which its pages may be mapped; a page knows its anon_vma and its offset. After
 * fork a VMA is in several: pages keep the anon_vma they were born with, so the child's VMA joins the parent's and has one of
 * its own for what it will add. Not modelled: reuse of an ancestor's anon_vma that has emptied, the lock of the root, KSM.
 */
import { PAGE_SIZE } from '../abi/address.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import type { Page, VirtAddr } from '../base/brand.js';
import { IntervalTree } from '../base/interval-tree.js';
import { folioHead } from '../sync/page-ref.js';
import type { Kernel } from './kernel.js';
import {
  folioEntireMapcountAdd,
  folioNrPages,
  isDevicePrivatePage,
  isLargeFolio,
  isZoneDevicePage,
  pageAnonVmaId,
  pageClearFlag,
  pageFileId,
  pageIndex,
  pageMapcountAdd,
  pageMaybeDmaPinned,
  pageSetAnonMapping,
  pageSetFlag,
  pageTestFlag,
} from './page.js';
import {
  linearPageIndex,
  VM_ACCESS_FLAGS,
  VM_LOCKED,
  VM_SOFTDIRTY,
  type VmArea,
  type VmFile,
  vmaLookup,
} from './vma.js';

export class AnonVma {
  readonly id: number;
  readonly tree = new IntervalTree<VmArea>();
  /** VMAs in the tree. */
  users = 0;

  constructor(id: number) {
    this.id = id;
  }
}

/** `anon_vma_prepare()`. A neighbour's anon_vma is shared where that lets the two merge later. */
export function anonVmaPrepare(kernel: Kernel, vma: VmArea): AnonVma {
  if (vma.anonVma !== null) return vma.anonVma;
  const anonVma = findMergeableAnonVma(vma) ?? newAnonVma(kernel);
  link(vma, anonVma);
  vma.anonVma = anonVma;
  return anonVma;
}

const newAnonVma = (kernel: Kernel): AnonVma => kernel.anonVmas.add((id) => new AnonVma(id));

/** `find_mergeable_anon_vma()`. */
function findMergeableAnonVma(vma: VmArea): AnonVma | null {
  const { vmas } = vma.mm;
  const next = vmas.find(vma.end);
  if (next !== undefined && reusable(next, vma, next)) return next.anonVma;
  const prev = vmas.previous(vma.start)?.value;
  return prev !== undefined && reusable(prev, prev, vma) ? prev.anonVma : null;
}

/** `reusable_anon_vma()`: of `old`, one of two neighbours that differ in nothing but what mprotect changes. */
const reusable = (old: VmArea, lower: VmArea, upper: VmArea): boolean =>
  old.anonChain.length === 1 &&
  lower.end === upper.start &&
  lower.file === upper.file &&
  ((lower.flags ^ upper.flags) & ~(VM_ACCESS_FLAGS | VM_SOFTDIRTY)) === 0 &&
  upper.pgoff === linearPageIndex(lower, upper.start);

/** Put a VMA into the tree of an anon_vma, at its page offsets. */
function link(vma: VmArea, anonVma: AnonVma): void {
  const handle = anonVma.tree.insert(vma.pgoff, linearPageIndex(vma, vma.end), vma);
  vma.anonChain.push({ anonVma, handle });
  anonVma.users++;
}

/** `anon_vma_clone()`: `vma` may map whatever `source` may map. Precondition: `vma` is in no anon_vma yet. */
export function anonVmaClone(vma: VmArea, source: VmArea): void {
  for (const { anonVma } of source.anonChain) link(vma, anonVma);
  vma.anonVma = source.anonVma;
}

/** `anon_vma_fork()`: the child maps the parent's pages, but its new pages are found in it alone. */
export function anonVmaFork(kernel: Kernel, child: VmArea, parent: VmArea): void {
  if (parent.anonVma === null) return;
  anonVmaClone(child, parent);
  child.anonVma = newAnonVma(kernel);
  link(child, child.anonVma);
}

/** The range or the page offset of the VMA has changed (`anon_vma_interval_tree_{pre,post}_update_vma()`). */
export function anonVmaUpdate(vma: VmArea): void {
  for (const each of vma.anonChain) {
    each.anonVma.tree.remove(each.handle);
    each.handle = each.anonVma.tree.insert(vma.pgoff, linearPageIndex(vma, vma.end), vma);
  }
}

/** `unlink_anon_vmas()`. An id is free again when the last VMA has gone. */
export function anonVmaUnlink(kernel: Kernel, vma: VmArea): void {
  for (const { anonVma, handle } of vma.anonChain.splice(0)) {
    anonVma.tree.remove(handle);
    if (--anonVma.users === 0) kernel.anonVmas.remove(anonVma.id);
  }
  vma.anonVma = null;
}

/** Does the VMA still map offset `index` of the anon_vma at `addr`? To be asked after sleeping without mmap_lock. */
export const rmapLeadsTo = (anonVma: AnonVma, index: number, vma: VmArea, addr: VirtAddr): boolean =>
  addr >= vma.start &&
  addr < vma.end &&
  rmapAddress(vma, index) === addr &&
  vma.anonChain.some((each) => each.anonVma === anonVma);

/** `folio_add_new_anon_rmap()`: the first mapping of a fresh folio, whole, which only this process can have. */
export function pageAddNewAnonRmap(kernel: Kernel, page: Page, vma: VmArea, addr: VirtAddr): void {
  const { words, floats } = kernel.memmap;
  pageSetAnonMapping(words, floats, page, vma.anonVma!.id, linearPageIndex(vma, addr));
  pageSetFlag(words, page, PAGE_FLAGS.PG_swapbacked | PAGE_FLAGS.PG_anon_exclusive);
  if (isLargeFolio(words, page)) folioEntireMapcountAdd(words, page, 1);
  else pageMapcountAdd(words, page, 1);
}

/** `folio_add_anon_rmap_pte()`: one more mapping of a page that has its anon_vma. */
export function pageAddAnonRmap(kernel: Kernel, page: Page, exclusive: boolean): void {
  const { words } = kernel.memmap;
  if (exclusive) pageSetFlag(words, page, PAGE_FLAGS.PG_anon_exclusive);
  pageMapcountAdd(words, page, 1);
}

/**
 * `mlock_vma_folio()` of a page that is mapped for a device again, all of its folio at once: it counts as locked until it is free, since
 * `munlock()` passes over devices. Of RAM whoever asks looks for a locked mapping.
 */
export function devicePageMlock(kernel: Kernel, page: Page, vma: VmArea): void {
  const { words } = kernel.memmap;
  if ((vma.flags & VM_LOCKED) !== 0 && isZoneDevicePage(words, page)) pageSetFlag(words, page, PAGE_FLAGS.PG_mlocked);
}

/** `folio_add_file_rmap_pte()`. */
export function pageAddFileRmap(kernel: Kernel, page: Page): void {
  pageMapcountAdd(kernel.memmap.words, page, 1);
}

/** `folio_move_anon_rmap()`: the page is the VMA's alone now. */
export function pageMoveAnonRmap(kernel: Kernel, page: Page, vma: VmArea): void {
  const { words, floats } = kernel.memmap;
  const head = folioHead(words, page);
  pageSetAnonMapping(words, floats, head, vma.anonVma!.id, pageIndex(words, floats, head));
}

/**
 * `folio_try_dup_anon_rmap_pte()`: one more process maps the page, so it is nobody's exclusively any more. False for a page
 * that may be pinned: whoever pinned it must go on seeing what its owner writes, so it has to be copied.
 */
export function pageTryDupAnonRmap(kernel: Kernel, page: Page): boolean {
  const { words } = kernel.memmap;
  if (!tryShare(words, page)) return false;
  pageMapcountAdd(words, page, 1);
  return true;
}

/** `folio_try_dup_anon_rmap_pmd()`: the same of a large folio that a huge entry maps. */
export function pageTryDupAnonRmapPmd(kernel: Kernel, page: Page): boolean {
  const { words } = kernel.memmap;
  if (!tryShare(words, page)) return false;
  folioEntireMapcountAdd(words, page, 1);
  return true;
}

function tryShare(words: Int32Array, page: Page): boolean {
  if (!pageTestFlag(words, page, PAGE_FLAGS.PG_anon_exclusive)) return true;
  if (!isDevicePrivatePage(words, page) && pageMaybeDmaPinned(words, page)) return false;
  pageClearFlag(words, page, PAGE_FLAGS.PG_anon_exclusive);
  return true;
}

/** `folio_remove_rmap_pte()`. */
export function pageRemoveRmap(kernel: Kernel, page: Page): void {
  pageMapcountAdd(kernel.memmap.words, page, -1);
}

/**
 * The anon_vma of a page; walk `tree.first/next(index, index + 1)` with `pageIndex` and `rmapAddress` to every place where
 * the page may be mapped (`rmap_walk_anon`), and look at the page table there.
 * Precondition: the page is locked, so its mapping cannot go away.
 */
export const pageAnonVma = (kernel: Kernel, page: Page): AnonVma | undefined =>
  kernel.anonVmas.get(pageAnonVmaId(kernel.memmap.words, page));

/**
 * VMAs that map page offsets of [first, end) of a file (`vma_interval_tree_foreach`). Linux has a tree of them in the file; here
 * every VMA is looked at, since only migration, write-back and truncate ask.
 */
export function fileVmas(kernel: Kernel, file: VmFile, first: number, end: number): VmArea[] {
  const maps = (vma: VmArea): boolean => vma.file === file && end > vma.pgoff && first < linearPageIndex(vma, vma.end);
  // In the order of the file's tree: by page offset, then by age (a parent before its child). Who comes last may not be asked.
  const found = [...kernel.mms].flatMap(({ vmas }) => [...vmas].map(({ value }) => value).filter(maps));
  return found.sort((a, b) => a.pgoff - b.pgoff || a.fileEntry - b.fileEntry);
}

/** VMAs in which a folio of a file, or a part of it, may be mapped (`rmap_walk_file`); empty for others. */
export function pageFileVmas(kernel: Kernel, page: Page): VmArea[] {
  const { words, floats } = kernel.memmap;
  const file = kernel.files.get(pageFileId(words, page));
  const index = pageIndex(words, floats, folioHead(words, page));
  return file === undefined ? [] : fileVmas(kernel, file, index, index + folioNrPages(words, page));
}

/** Of a folio whose first page has the offset `index`: the first page that the VMA may map, and the one after the last. */
export const firstMapped = (vma: VmArea, index: number): number => Math.max(0, vma.pgoff - index);
export const endMapped = (vma: VmArea, index: number, pages: number): number =>
  Math.min(pages, linearPageIndex(vma, vma.end) - index);

/** Does the VMA still map offset `index` of its file at `addr`? To be asked after sleeping without mmap_lock. */
export const fileRmapLeadsTo = (index: number, vma: VmArea, addr: VirtAddr): boolean =>
  vmaLookup(vma.mm, addr) === vma && rmapAddress(vma, index) === addr;

/** Address at which a VMA maps the page with offset `index`. */
export const rmapAddress = (vma: VmArea, index: number): VirtAddr =>
  (vma.start + (index - vma.pgoff) * PAGE_SIZE) as VirtAddr;
