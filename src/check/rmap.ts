/**
 * Holds: from every page that is mapped, the reverse map (of its anon_vma or of its file) leads to each entry which maps it; every entry lies in a
 * VMA, and is writable only where the VMA is.
 *
 * Does not see: VMAs in an anon_vma that map nothing (allowed). Never suspended, but whether entries are writable is looked at only
 * where nobody is changing the mappings.
 */
import { NULL_PAGE } from '../base/brand.js';
import type { Checker } from '../machine/state.js';
import type { Kernel } from '../mm/kernel.js';
import { pageFileId, pageHasMapping, pageIndex } from '../mm/page.js';
import { pageAnonVma, pageFileVmas, rmapAddress } from '../mm/rmap.js';
import { VM_MIXEDMAP, VM_WRITE } from '../mm/vma.js';
import { type CpuEntry, cpuEntries, placeText } from './page-tables.js';

/** Does the reverse map of the page lead to the entry? */
function found(kernel: Kernel, { mm, address, page }: CpuEntry): boolean {
  const { words, floats } = kernel.memmap;
  const index = pageIndex(words, floats, page);
  if (pageFileId(words, page) !== 0) {
    return pageFileVmas(kernel, page).some((vma) => vma.mm === mm && rmapAddress(vma, index) === address);
  }
  const tree = pageAnonVma(kernel, page)?.tree;
  for (let at = tree?.first(index, index + 1); at !== undefined; at = tree!.next(at, index, index + 1)) {
    const { value: vma } = at;
    if (vma.mm === mm && rmapAddress(vma, index) === address) return true;
  }
  return false;
}

export const rmap: Checker = {
  invariant: 'rmap',
  statement: 'the reverse map leads from each page to every entry that maps it',
  always: true,
  look({ kernel }, shared) {
    const problems: string[] = [];
    const { words } = kernel.memmap;
    for (const mm of kernel.mms) {
      for (const entry of cpuEntries(kernel, mm, shared)) {
        const { address, kind, page } = entry;
        const vma = mm.vmas.find(address);
        if (vma === undefined) problems.push(`${placeText(mm, address)}: an entry (${kind}) outside of all mappings`);
        const writable = entry.writable || kind === 'device-private-write';
        // Who changes a mapping changes its entries after it, and nobody else may look meanwhile.
        const isChanging = mm.mmapLock.heldForWrite;
        if (vma !== undefined && writable && (vma.flags & VM_WRITE) === 0 && !isChanging) {
          problems.push(`${placeText(mm, address)}: a writable entry (${kind}) in a mapping that is not`);
        }
        // Pages that a driver mapped belong to nobody's memory and to no file: nothing ever looks for their mappings.
        const isDrivers = vma !== undefined && (vma.flags & VM_MIXEDMAP) !== 0 && !pageHasMapping(words, page);
        if (page !== NULL_PAGE && !isDrivers && !found(kernel, entry)) {
          problems.push(
            `${placeText(mm, address)}: page ${page} (${kind}) is mapped here, but its reverse map does not lead here`,
          );
        }
      }
    }
    return problems;
  },
};
