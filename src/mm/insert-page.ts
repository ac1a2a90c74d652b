/** Pages that a driver maps by itself when its file is mapped. Linux: mm/memory.c vm_insert_page(). */
import type { Result } from '../abi/errno.js';
import { pteNone } from '../abi/pte.js';
import type { Page, VirtAddr } from '../base/brand.js';
import { readPte } from '../sync/word.js';
import { mapFilePage } from './file-fault.js';
import type { Kernel } from './kernel.js';
import { allocLeafTable, lockTable, NO_TABLE, pteIndex, unlockTable } from './pgtable.js';
import { VM_MIXEDMAP, type VmArea } from './vma.js';

/**
 * Map a page that belongs to no file and to nobody's anonymous memory; the mapping takes a reference of its own. The VMA becomes
 * one with VM_MIXEDMAP: it merges with no other, nothing of it migrates, and fork copies its entries.
 * Precondition: mmap_lock held for writing.
 * @returns EBUSY when something is mapped there, ENOMEM
 */
export function vmInsertPage(kernel: Kernel, vma: VmArea, addr: VirtAddr, page: Page): Result {
  vma.flags |= VM_MIXEDMAP;
  const table = allocLeafTable(kernel, vma.mm, addr);
  if (table === NO_TABLE) return 'ENOMEM';
  const at = table + pteIndex(addr);
  lockTable(kernel, table);
  const vacant = pteNone(readPte(kernel.ram.words, at));
  if (vacant) mapFilePage(kernel, vma, at, page, false);
  unlockTable(kernel, table);
  return vacant ? 0 : 'EBUSY';
}
