/**
 * Holds: every number in a page table is of the kind that its entry says. Present and device-exclusive entries name pages with a PFN;
 * device private entries, and (under the series) their migration entries, offsets that a pagemap has, and plain migration entries
 * pages of RAM or coherent memory; and what the kernel makes of each number is the page that it names.
 *
 * Does not see: numbers on their way through words of migrations (MIGRATE_PFN_*, HMM_PFN_*), which are gone at rest: what was
 * resolved wrongly there shows in counts, contents or device mappings. Suspended while anything is in flight.
 */
import { PAGE_SIZE } from '../abi/address.js';
import { halvesNumber, lowPresent } from '../abi/pte-halves.js';
import type { SoftLeafKind } from '../abi/softleaf.js';
import { NULL_PAGE, type Page, type Pfn } from '../base/brand.js';
import type { Checker } from '../machine/state.js';
import type { Kernel } from '../mm/kernel.js';
import { isDevicePrivatePage } from '../mm/page.js';
import { type CpuEntry, cpuEntries, NO_PAGE_KINDS, placeText } from './page-tables.js';

/** The page at an offset, as the pagemaps have it: without the tree that the kernel asks. */
function pageAtOffset(kernel: Kernel, offset: number): Page {
  for (const { type, range, pages, nrPages } of kernel.pagemaps) {
    if (type !== 'MEMORY_DEVICE_PRIVATE' || range === null) continue;
    const index = offset - range.start / PAGE_SIZE;
    if (index >= 0 && index < nrPages) return (pages + index) as Page;
  }
  return NULL_PAGE;
}

/** What is wrong with an entry that is not present. */
function wrong(kernel: Kernel, kind: SoftLeafKind, { low, high, page, inHuge }: CpuEntry): string | null {
  const number = halvesNumber(low, high);
  const asPrivate = kind.includes('device-private');
  const isOffset = asPrivate && kernel.seriesApplied;
  const first = isOffset ? pageAtOffset(kernel, number) : kernel.memmap.pfnToPage(number as Pfn);
  const what = `${isOffset ? 'offset' : 'PFN'} 0x${number.toString(16)}`;
  if (first === NULL_PAGE) return `a ${kind} entry has ${what}, which names no page`;
  const named = first + Math.max(0, inHuge);
  if (named !== page) return `a ${kind} entry has ${what}, page ${named}, but the kernel makes page ${page} of it`;
  const isPrivate = isDevicePrivatePage(kernel.memmap.words, page);
  // From before the series, one family of migration entries is for all pages.
  const anyPage = !kernel.seriesApplied && kind.startsWith('migration');
  if (isPrivate === asPrivate || anyPage) return null;
  return `a ${kind} entry has ${what}, which names page ${page}: it is ${isPrivate ? '' : 'not '}device private`;
}

export const numberKinds: Checker = {
  invariant: 'number-kinds',
  statement: 'each number in a page table is of the kind that its entry says: a PFN, or an offset that a pagemap has',
  *look({ kernel }, shared) {
    const { words } = kernel.memmap;
    for (const mm of kernel.mms) {
      for (const entry of cpuEntries(kernel, mm, shared)) {
        const { address, kind, low, page } = entry;
        if (lowPresent(low)) {
          if (page !== NULL_PAGE && isDevicePrivatePage(words, page)) {
            yield `${placeText(mm, address)}: page ${page} is present, but device private`;
          }
          continue;
        }
        if (kind === 'present' || NO_PAGE_KINDS.includes(kind)) continue;
        const problem = wrong(kernel, kind, entry);
        if (problem !== null) yield `${placeText(mm, address)}: ${problem}`;
      }
    }
  },
};
