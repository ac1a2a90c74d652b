/**
 * Where is a page mapped in a VMA? Linux: mm/page_vma_mapped.c.
 *
 * Numbers of two kinds share entries, so a match needs the kind first and the number second: the entry's kind of number is
 * resolved to its page, and pages are compared (a page has one identity, whatever its number is called).
 * Large folios come with huge pages; a walk here looks at one entry.
 */
import { pteNone, ptePfn, ptePresent, pteSpecial } from '../abi/pte.js';
import { softleafFromPte } from '../abi/softleaf.js';
import type { Page, Pte, VirtAddr } from '../base/brand.js';
import { readPte } from '../sync/word.js';
import type { Kernel } from './kernel.js';
import { leafTable, NO_TABLE, pteIndex, type TableIndex } from './pgtable.js';
import { isDevicePrivate, isMigration, leafKind } from './softleaf.js';
import type { VmArea } from './vma.js';

/** What the walk looks for: entries that map the page, or (`PVMW_MIGRATION`) migration entries that stand for it. */
export type WalkMode = 'mapped' | 'migration';

/** The leaf table in which `vma` maps `page` at `addr`, or NO_TABLE when it does not (`page_vma_mapped_walk`). */
export function pageVmaMapped(kernel: Kernel, vma: VmArea, addr: VirtAddr, page: Page, mode: WalkMode): TableIndex {
  const table = leafTable(kernel, vma.mm, addr);
  if (table === NO_TABLE) return NO_TABLE;
  const pte = readPte(kernel.ram.words, table + pteIndex(addr));
  return checkPte(kernel, pte, page, mode) ? table : NO_TABLE;
}

/** `check_pte()`. */
function checkPte(kernel: Kernel, pte: Pte, page: Page, mode: WalkMode): boolean {
  if (pteNone(pte)) return false;
  if (ptePresent(pte)) {
    return mode === 'mapped' && !pteSpecial(pte) && kernel.memmap.pfnToPage(ptePfn(pte)) === page;
  }
  const entry = softleafFromPte(pte);
  const kind = leafKind(kernel, entry);
  const wanted = mode === 'migration' ? isMigration(kind) : isDevicePrivate(kind) || kind === 'device-exclusive';
  return wanted && kernel.addressing.softleafToPage(entry) === page;
}
