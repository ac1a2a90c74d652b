/**
 * Reverse map of anonymous memory: from a page to the places that map it. Linux: mm/rmap.c, mm/interval_tree.c.
 *
 * An anon_vma holds, by page offset, the VMAs in which its pages may be mapped; a page knows its anon_vma and its offset.
 * Not modelled: the anon_vma hierarchy of fork (comes with fork), KSM.
 */
import { PAGE_SIZE } from '../abi/address.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import type { Page, VirtAddr } from '../base/brand.js';
import { IntervalTree } from '../base/interval-tree.js';
import type { Kernel } from './kernel.js';
import { pageAnonVmaId, pageMapcount, pageMapcountAdd, pageSetAnonMapping, pageSetFlag } from './page.js';
import { linearPageIndex, type VmArea } from './vma.js';

export class AnonVma {
  readonly id: number;
  readonly tree = new IntervalTree<VmArea>();
  /** VMAs in the tree. */
  users = 0;

  constructor(id: number) {
    this.id = id;
  }
}

/** `anon_vma_prepare()`. */
export function anonVmaPrepare(kernel: Kernel, vma: VmArea): AnonVma {
  if (vma.anonVma !== null) return vma.anonVma;
  const anonVma = kernel.anonVmas.add((id) => new AnonVma(id));
  anonVmaLink(vma, anonVma);
  return anonVma;
}

/** Put a VMA into the tree of an anon_vma, at its page offsets. */
export function anonVmaLink(vma: VmArea, anonVma: AnonVma): void {
  vma.anonVma = anonVma;
  vma.anonHandle = anonVma.tree.insert(vma.pgoff, linearPageIndex(vma, vma.end), vma);
  anonVma.users++;
}

/** `unlink_anon_vmas()`. The id is free again when the last VMA has gone. */
export function anonVmaUnlink(kernel: Kernel, vma: VmArea): void {
  const { anonVma, anonHandle } = vma;
  if (anonVma === null || anonHandle === null) return;
  anonVma.tree.remove(anonHandle);
  vma.anonVma = null;
  vma.anonHandle = null;
  if (--anonVma.users === 0) kernel.anonVmas.remove(anonVma.id);
}

/** `folio_add_new_anon_rmap()`: the first mapping of a fresh page, which only this process can have. */
export function pageAddNewAnonRmap(kernel: Kernel, page: Page, vma: VmArea, addr: VirtAddr): void {
  const { words, floats } = kernel.memmap;
  pageSetAnonMapping(words, floats, page, vma.anonVma!.id, linearPageIndex(vma, addr));
  pageSetFlag(words, page, PAGE_FLAGS.PG_swapbacked | PAGE_FLAGS.PG_anon_exclusive);
  pageMapcountAdd(words, page, 1);
}

/** `folio_add_anon_rmap_pte()`: one more mapping of a page that has its anon_vma. */
export function pageAddAnonRmap(kernel: Kernel, page: Page, exclusive: boolean): void {
  const { words } = kernel.memmap;
  if (exclusive) pageSetFlag(words, page, PAGE_FLAGS.PG_anon_exclusive);
  pageMapcountAdd(words, page, 1);
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

/** Address at which a VMA maps the page with offset `index`. */
export const rmapAddress = (vma: VmArea, index: number): VirtAddr =>
  (vma.start + (index - vma.pgoff) * PAGE_SIZE) as VirtAddr;

/** `folio_mapped()`. */
export const pageMapped = (kernel: Kernel, page: Page): boolean => pageMapcount(kernel.memmap.words, page) > 0;
