/**
 * /proc/PID/maps and smaps: as data and as text. Linux: fs/proc/task_mmu.c show_map_vma(), smaps_account(), show_smap().
 *
 * Device private pages count as if they were present; a device-exclusive entry (and a migration entry) is "maybe shared": its
 * page counts in full, and as shared, since counts mean little for an entry that is not present.
 */
import { HPAGE_PMD_NR, PAGE_KIB, PAGE_SIZE, PMD_SIZE } from '../abi/address.js';
import { halvesNumber, highType, LOW_ACCESSED, LOW_DIRTY, lowPresent } from '../abi/pte-halves.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { swapEntry } from '../abi/swap-entry.js';
import { NULL_PAGE, type Page, type VirtAddr } from '../base/brand.js';
import { pageRefCount } from '../sync/page-ref.js';
import { hugeAllowed } from './huge-memory.js';
import { isHugetlb } from './hugetlb.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import { folioEntireMapcount, folioMapcount, pageFlags, pageIsAnon, pageMapcount } from './page.js';
import { pageOfHalves, visitEntries } from './proc-pagemap.js';
import { shmemSwapUsage } from './shmem-swap.js';
import { isDevicePrivate } from './softleaf.js';
import {
  linearPageIndex,
  VM_ACCOUNT,
  VM_DONTEXPAND,
  VM_EXEC,
  VM_HUGEPAGE,
  VM_HUGETLB,
  VM_IO,
  VM_LOCKED,
  VM_LOCKONFAULT,
  VM_MAYREAD,
  VM_MAYSHARE,
  VM_MAYWRITE,
  VM_MIXEDMAP,
  VM_NOHUGEPAGE,
  VM_PFNMAP,
  VM_READ,
  VM_SHARED,
  VM_SOFTDIRTY,
  VM_UFFD_WP,
  VM_WRITE,
  type VmArea,
} from './vma.js';

const { PG_dirty, PG_referenced, PG_swapbacked } = PAGE_FLAGS;
/** PSS is summed in 1/4096 of a byte, as Linux does, so that the truncation at the end is the same. */
const PSS_UNIT = 2 ** 12;

/** A VMA of a range: page in the range, pages, permissions as maps prints them. */
export type VmaView = readonly [page: number, pages: number, permissions: string];

/** Sums in kB: Rss, Pss, Anonymous, AnonHugePages, Swap, Shared_Clean, ..., ShmemPmdMapped, Referenced, LazyFree, Locked. */
export interface SmapsSums {
  rss: number;
  pss: number;
  anon: number;
  ahp: number;
  swap: number;
  shc: number;
  shd: number;
  prc: number;
  prd: number;
  shmem_pmd: number;
  ref: number;
  lazy: number;
  lck: number;
}

/** Sums over some VMAs, and what only the text has. */
interface MemSizeStats extends SmapsSums {
  pssDirty: number;
  /** Of the VMA that is being looked at, in 1/4096 of a byte. */
  pssUnits: number;
  pssDirtyUnits: number;
  /** In 1/4096 of a byte. */
  swapPss: number;
  sharedHugetlb: number;
  privateHugetlb: number;
}

const zeroStats = (): MemSizeStats => ({
  rss: 0,
  pss: 0,
  anon: 0,
  ahp: 0,
  swap: 0,
  shc: 0,
  shd: 0,
  prc: 0,
  prd: 0,
  shmem_pmd: 0,
  ref: 0,
  lazy: 0,
  lck: 0,
  pssDirty: 0,
  pssUnits: 0,
  pssDirtyUnits: 0,
  swapPss: 0,
  sharedHugetlb: 0,
  privateHugetlb: 0,
});

/** Sums over `pages` pages from `start` on, each VMA rounded by itself as its paragraph of smaps is, and the VMAs. */
export function smapsRange(
  kernel: Kernel,
  mm: MmStruct,
  start: VirtAddr,
  pages: number,
): SmapsSums & { readonly vmas: readonly VmaView[] } {
  const sums = zeroStats();
  const vmas: VmaView[] = [];
  const end = start + pages * PAGE_SIZE;
  for (const { value: vma } of mm.vmas.from(start)) {
    if (vma.start >= end) break;
    const first = Math.max(vma.start, start);
    const stop = Math.min(vma.end, end);
    vmas.push([(first - start) / PAGE_SIZE, (stop - first) / PAGE_SIZE, permissions(vma)]);
    gather(kernel, vma, first, stop, sums);
  }
  const { rss, pss, anon, ahp, swap, shc, shd, prc, prd, shmem_pmd, ref, lazy, lck } = sums;
  return { rss, pss, anon, ahp, swap, shc, shd, prc, prd, shmem_pmd, ref, lazy, lck, vmas };
}

/** `smap_gather_stats()`: add one VMA's pages, or some of them. */
function gather(kernel: Kernel, vma: VmArea, start: number, end: number, sums: MemSizeStats): void {
  const { words } = kernel.memmap;
  if (isHugetlb(vma)) {
    gatherHugetlb(kernel, vma, start, end, sums);
    return;
  }
  if (vma.file !== null) {
    // Page tables say nothing of it; SwapPss has it neither.
    sums.swap += shmemSwapUsage(vma.file, linearPageIndex(vma, start), linearPageIndex(vma, end)) * PAGE_KIB;
  }
  const { kindOf } = kernel.addressing.swapTypes;
  visitEntries(kernel, vma.mm, start, end, (_index, low, high, _pages, huge) => {
    const present = lowPresent(low);
    const kind = present ? 'none' : kindOf[highType(high)];
    if (kind === 'swap') {
      const sharers = kernel.swap.count(swapEntry(highType(high), halvesNumber(low, high)));
      sums.swap += PAGE_KIB;
      sums.swapPss += sharers < 2 ? PAGE_SIZE * PSS_UNIT : Math.floor((PAGE_SIZE * PSS_UNIT) / sharers);
    }
    const page = pageOfHalves(kernel, low, high);
    if (page === NULL_PAGE) return;
    const young = present && (low & LOW_ACCESSED) !== 0;
    // Of an absent huge entry pmd_dirty() reads a bit of the number, which is set for every number that there is.
    const dirty = present ? (low & LOW_DIRTY) !== 0 : huge;
    const counted = present || (isDevicePrivate(kind) && !huge);
    if (huge) sums[pageIsAnon(words, page) ? 'ahp' : 'shmem_pmd'] += HPAGE_PMD_NR * PAGE_KIB;
    const pages = huge ? HPAGE_PMD_NR : 1;
    // All pages of a folio that only huge entries map count alike.
    const alike = huge && folioMapcount(words, page) === folioEntireMapcount(words, page) ? pages : 1;
    for (let i = 0; i < pages; i += alike) account(words, (page + i) as Page, alike, counted, young, dirty, sums);
  });
  const pss = Math.floor(sums.pssUnits / PSS_UNIT / 1024);
  sums.pss += pss;
  if ((vma.flags & VM_LOCKED) !== 0) sums.lck += pss;
  sums.pssDirty += Math.floor(sums.pssDirtyUnits / PSS_UNIT / 1024);
  sums.pssUnits = 0;
  sums.pssDirtyUnits = 0;
}

/** `smaps_hugetlb_range()`: what is in no rss has sums of its own. */
function gatherHugetlb(kernel: Kernel, vma: VmArea, start: number, end: number, sums: MemSizeStats): void {
  visitEntries(kernel, vma.mm, start, end, (_index, low, high, pages) => {
    const shared = folioMapcount(kernel.memmap.words, pageOfHalves(kernel, low, high)) > 1;
    sums[shared ? 'sharedHugetlb' : 'privateHugetlb'] += pages * PAGE_KIB;
  });
}

/** `smaps_account()` of pages of one folio that count alike. */
function account(
  words: Int32Array,
  page: Page,
  pages: number,
  present: boolean,
  young: boolean,
  pteDirty: boolean,
  sums: MemSizeStats,
): void {
  const kib = pages * PAGE_KIB;
  const flags = pageFlags(words, page);
  const dirty = pteDirty || (flags & PG_dirty) !== 0;
  if (pageIsAnon(words, page)) {
    sums.anon += kib;
    if ((flags & PG_swapbacked) === 0 && !dirty) sums.lazy += kib;
  }
  sums.rss += kib;
  if (young || (flags & PG_referenced) !== 0) sums.ref += kib;
  let mapcount = 1;
  if (present && pageRefCount(words, page) !== 1) mapcount = pageMapcount(words, page);
  const share = pages * (mapcount < 2 ? PAGE_SIZE * PSS_UNIT : Math.floor((PAGE_SIZE * PSS_UNIT) / mapcount));
  sums.pssUnits += share;
  if (dirty) sums.pssDirtyUnits += share;
  if (present && mapcount < 2) {
    if (dirty) sums.prd += kib;
    else sums.prc += kib;
  } else if (dirty) sums.shd += kib;
  else sums.shc += kib;
}

/** `rw-p`. */
function permissions(vma: VmArea): string {
  const { flags } = vma;
  const letter = (flag: number, name: string): string => ((flags & flag) !== 0 ? name : '-');
  const shared = (flags & VM_MAYSHARE) !== 0 ? 's' : 'p';
  return letter(VM_READ, 'r') + letter(VM_WRITE, 'w') + letter(VM_EXEC, 'x') + shared;
}

/** Column at which maps prints a file's name. */
const NAME_COLUMN = 73;

function mapLine(vma: VmArea): string {
  const hex = (value: number): string => value.toString(16).padStart(8, '0');
  const { file } = vma;
  const offset = file === null ? 0 : vma.pgoff * PAGE_SIZE;
  const where = file === null ? '00:00 0' : `${file.device} ${file.id}`;
  const line = `${hex(vma.start)}-${hex(vma.end)} ${permissions(vma)} ${hex(offset)} ${where} `;
  return file === null ? line : line.padEnd(NAME_COLUMN) + file.name;
}

/** /proc/PID/maps. */
export const mapsText = (mm: MmStruct): string => [...mm.vmas].map(({ value }) => `${mapLine(value)}\n`).join('');

/** By bit number, as Linux prints them. */
const VM_FLAG_NAMES: readonly (readonly [number, string])[] = [
  [VM_READ, 'rd'],
  [VM_WRITE, 'wr'],
  [VM_EXEC, 'ex'],
  [VM_SHARED, 'sh'],
  [VM_MAYREAD, 'mr'],
  [VM_MAYWRITE, 'mw'],
  [VM_MAYSHARE, 'ms'],
  [VM_PFNMAP, 'pf'],
  [VM_UFFD_WP, 'uw'],
  [VM_LOCKED, 'lo'],
  [VM_IO, 'io'],
  [VM_DONTEXPAND, 'de'],
  [VM_LOCKONFAULT, 'lf'],
  [VM_ACCOUNT, 'ac'],
  [VM_HUGETLB, 'ht'],
  [VM_SOFTDIRTY, 'sd'],
  [VM_MIXEDMAP, 'mm'],
  [VM_HUGEPAGE, 'hg'],
  [VM_NOHUGEPAGE, 'nh'],
];

/** /proc/PID/smaps. VmFlags has the flags that are modelled. */
export function smapsText(kernel: Kernel, mm: MmStruct): string {
  return [...mm.vmas].map(({ value }) => smapsParagraph(kernel, value)).join('');
}

/** `thp_vma_allowable_orders(.., TVA_SMAPS, ..)`, which asks of the last 2 MiB only: if they do not fit, none do. */
const mayHaveHugePages = (kernel: Kernel, vma: VmArea): boolean =>
  hugeAllowed(kernel, vma, (vma.end - PMD_SIZE) as VirtAddr);

function smapsParagraph(kernel: Kernel, vma: VmArea): string {
  const sums = zeroStats();
  gather(kernel, vma, vma.start, vma.end, sums);
  const pageKib = isHugetlb(vma) ? HPAGE_PMD_NR * PAGE_KIB : PAGE_KIB;
  const rows: readonly (readonly [string, number])[] = [
    ['Size', (vma.end - vma.start) / 1024],
    ['KernelPageSize', pageKib],
    ['MMUPageSize', pageKib],
    ['Rss', sums.rss],
    ['Pss', sums.pss],
    ['Pss_Dirty', sums.pssDirty],
    ['Shared_Clean', sums.shc],
    ['Shared_Dirty', sums.shd],
    ['Private_Clean', sums.prc],
    ['Private_Dirty', sums.prd],
    ['Referenced', sums.ref],
    ['Anonymous', sums.anon],
    ['KSM', 0],
    ['LazyFree', sums.lazy],
    ['AnonHugePages', sums.ahp],
    ['ShmemPmdMapped', sums.shmem_pmd],
    ['FilePmdMapped', 0],
    ['Shared_Hugetlb', sums.sharedHugetlb],
    ['Private_Hugetlb', sums.privateHugetlb],
    ['Swap', sums.swap],
    ['SwapPss', Math.floor(sums.swapPss / PSS_UNIT / 1024)],
    ['Locked', sums.lck],
  ];
  const names = VM_FLAG_NAMES.filter(([flag]) => (vma.flags & flag) !== 0).map(([, name]) => `${name} `);
  return [
    mapLine(vma),
    ...rows.map(([name, value]) => `${`${name}:`.padEnd(16)}${String(value).padStart(8)} kB`),
    `THPeligible:    ${(mayHaveHugePages(kernel, vma) ? '1' : '0').padStart(8)}`,
    `VmFlags: ${names.join('')}`,
    '',
  ].join('\n');
}
