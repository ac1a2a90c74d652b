/**
 * /proc/kpageflags and /proc/kpagecount: what each page frame is, by PFN. Linux: fs/proc/page.c stable_page_flags().
 *
 * Only RAM has an entry (`pfn_to_online_page`). Device private pages have none under either addressing: under `legacy` their PFNs
 * lie behind the last RAM (a device's memory does not raise max_pfn) and are not online, under the series they have no PFN.
 */
import { MAX_PAGE_ORDER, PAGE_SIZE, PAGES_PER_SECTION, PTRS_PER_TABLE } from '../abi/address.js';
import { PAGE_FLAGS, STRUCT_PAGE, STRUCT_PAGE_WORD_SHIFT } from '../abi/struct-page.js';
import { NULL_PAGE, type Page, type Pfn } from '../base/brand.js';
import { folioHead, pageRefCount } from '../sync/page-ref.js';
import type { Kernel } from './kernel.js';
import { isLargeFolio, pageFlags, pageIsAnon, pageMapcount } from './page.js';
import { pageMlocked } from './unmap-page.js';

/** KPF_* bits by name. Linux: include/uapi/linux/kernel-page-flags.h, include/linux/kernel-page-flags.h. */
export const KPF = Object.freeze({
  LOCKED: 0,
  REFERENCED: 2,
  UPTODATE: 3,
  DIRTY: 4,
  LRU: 5,
  ACTIVE: 6,
  WRITEBACK: 8,
  RECLAIM: 9,
  BUDDY: 10,
  MMAP: 11,
  ANON: 12,
  SWAPCACHE: 13,
  SWAPBACKED: 14,
  COMPOUND_HEAD: 15,
  COMPOUND_TAIL: 16,
  UNEVICTABLE: 18,
  HWPOISON: 19,
  NOPAGE: 20,
  THP: 22,
  ZERO_PAGE: 24,
  PGTABLE: 26,
  RESERVED: 32,
  MLOCKED: 33,
  PRIVATE: 35,
});

const bit = (name: keyof typeof KPF): bigint => 1n << BigInt(KPF[name]);

/** Flags that are copied as they are. */
const COPIED: readonly (readonly [flag: number, bit: bigint])[] = [
  [PAGE_FLAGS.PG_locked, bit('LOCKED')],
  [PAGE_FLAGS.PG_referenced, bit('REFERENCED')],
  [PAGE_FLAGS.PG_uptodate, bit('UPTODATE')],
  [PAGE_FLAGS.PG_dirty, bit('DIRTY')],
  [PAGE_FLAGS.PG_lru, bit('LRU')],
  [PAGE_FLAGS.PG_active, bit('ACTIVE')],
  [PAGE_FLAGS.PG_writeback, bit('WRITEBACK')],
  [PAGE_FLAGS.PG_reclaim, bit('RECLAIM')],
  [PAGE_FLAGS.PG_swapbacked, bit('SWAPBACKED')],
  [PAGE_FLAGS.PG_hwpoison, bit('HWPOISON')],
  [PAGE_FLAGS.PG_table, bit('PGTABLE')],
  [PAGE_FLAGS.PG_reserved, bit('RESERVED')],
  [PAGE_FLAGS.PG_private, bit('PRIVATE')],
];
const SWAPCACHE = PAGE_FLAGS.PG_swapbacked | PAGE_FLAGS.PG_swapcache;

/** `stable_page_flags()` of any page; the zero page is known by its identity, so no offset can be taken for its PFN. */
export function stablePageFlags(kernel: Kernel, page: Page): bigint {
  const { words } = kernel.memmap;
  const flags = pageFlags(words, page);
  let word = 0n;
  for (const [flag, kpf] of COPIED) if ((flags & flag) !== 0) word |= kpf;
  if ((flags & SWAPCACHE) === SWAPCACHE) word |= bit('SWAPCACHE');
  if (isFreeBuddyPage(kernel, page)) return word | bit('BUDDY');
  const head = folioHead(words, page);
  if (isLargeFolio(words, head)) word |= bit('THP') | bit(page === head ? 'COMPOUND_HEAD' : 'COMPOUND_TAIL');
  // The huge zero page is reserved here only so that nobody takes it for lost.
  if (head === kernel.hugeZero.page) return (word & ~bit('RESERVED')) | bit('ZERO_PAGE');
  if (page === kernel.zeroPage) word |= bit('ZERO_PAGE');
  // A table's lock and a free block's order share words with what follows: neither is a page that somebody maps.
  if ((flags & PAGE_FLAGS.PG_table) !== 0) return word;
  if (pageMapcount(words, page) > 0) word |= bit('MMAP');
  if (pageMlocked(kernel, head)) word |= bit('MLOCKED') | bit('UNEVICTABLE');
  return pageIsAnon(words, page) ? word | bit('ANON') : word;
}

/** `is_free_buddy_page()`: inside of a free block, which only its first page says. */
export function isFreeBuddyPage(kernel: Kernel, page: Page): boolean {
  const { words } = kernel.memmap;
  if (pageRefCount(words, page) !== 0) return false;
  for (let order = 0; order <= MAX_PAGE_ORDER; order++) {
    const head = (page & -(1 << order)) as Page;
    if ((pageFlags(words, head) & PAGE_FLAGS.PG_buddy) === 0) continue;
    return words[(head << STRUCT_PAGE_WORD_SHIFT) + STRUCT_PAGE.word.private] >= order;
  }
  return false;
}

/** Where a frame number leads (`pfn_to_online_page`): RAM, a hole in a section of RAM, or nothing. */
function onlinePage(kernel: Kernel, pfn: number): Page | 'hole' | 'nothing' {
  const { memmap, ram } = kernel;
  const page = memmap.pfnToPage(pfn as Pfn);
  if (page === NULL_PAGE || page - memmap.ramPage >= ram.words.length / PTRS_PER_TABLE) return 'nothing';
  const at = pfn * PAGE_SIZE;
  const inRam = kernel.options.layout.entries.some(
    ({ kind, start, end }) => kind === 'ram' && at >= start && at + PAGE_SIZE - 1 <= end,
  );
  return inRam && pfn > 0 ? page : 'hole';
}

/** `get_max_dump_pfn()`: the files end here, in whole sections. */
function maxDumpPfn(kernel: Kernel): number {
  const ends = kernel.options.layout.entries.filter(({ kind }) => kind === 'ram').map(({ end }) => end + 1);
  return Math.ceil(Math.max(...ends) / PAGE_SIZE / PAGES_PER_SECTION) * PAGES_PER_SECTION;
}

/** Words of [pfn, pfn + count), fewer at the end of the file. */
function wordsOf(kernel: Kernel, pfn: number, count: number, word: (pfn: number) => bigint): BigUint64Array {
  const length = Math.max(0, Math.min(count, maxDumpPfn(kernel) - pfn));
  return BigUint64Array.from({ length }, (_, at) => word(pfn + at));
}

/** /proc/kpageflags: KPF_* bits. Holes of a section of RAM are reserved, what is no RAM has KPF_NOPAGE. */
export const kpageflags = (kernel: Kernel, pfn: number, count: number): BigUint64Array =>
  wordsOf(kernel, pfn, count, (at) => {
    const page = onlinePage(kernel, at);
    if (typeof page === 'number') return stablePageFlags(kernel, page);
    return page === 'hole' ? bit('RESERVED') : bit('NOPAGE');
  });

/** /proc/kpagecount: how many page table entries map the page. */
export const kpagecount = (kernel: Kernel, pfn: number, count: number): BigUint64Array =>
  wordsOf(kernel, pfn, count, (at) => {
    const page = onlinePage(kernel, at);
    if (typeof page !== 'number') return 0n;
    const { words } = kernel.memmap;
    return pageRefCount(words, page) > 0 ? BigInt(pageMapcount(words, page)) : 0n;
  });
