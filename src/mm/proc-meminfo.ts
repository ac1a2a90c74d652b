/**
 * /proc/meminfo and /proc/vmstat: as data and as text. Linux: fs/proc/meminfo.c, mm/vmstat.c.
 *
 * Linux counts while pages change hands; here a look walks all struct pages in use, so that no path can forget to count. Device
 * private pages are anonymous memory that is mapped, and count as such, as in Linux. Only rows that the model knows are there.
 * `pgmigrate_success` is not one: no migration that a driver asks for counts in it.
 */
import { HPAGE_PMD_NR, PAGE_KIB } from '../abi/address.js';
import { lowPresent } from '../abi/pte-halves.js';
import { PAGE_FLAGS, STRUCT_PAGE, STRUCT_PAGE_WORD_SHIFT } from '../abi/struct-page.js';
import { NULL_PAGE, type Page } from '../base/brand.js';
import { folioHead, pageRefCount } from '../sync/page-ref.js';
import type { Kernel } from './kernel.js';
import { folioEntireMapcount, isZoneDevicePage, pageFileId, pageFlags, pageIsAnon, pageMapcount } from './page.js';
import { pageOfHalves, visitEntries } from './proc-pagemap.js';
import { VM_LOCKED } from './vma.js';

const { PG_buddy, PG_dirty, PG_head, PG_hugetlb, PG_mlocked, PG_reserved, PG_swapbacked, PG_table, PG_writeback } =
  PAGE_FLAGS;

/** Rows of /proc/meminfo, in kB. */
export interface Meminfo {
  readonly MemTotal: number;
  readonly MemFree: number;
  /** Page caches, shared memory among them. */
  readonly Cached: number;
  /** Pages that have a slot in swap as well. */
  readonly SwapCached: number;
  readonly SwapTotal: number;
  readonly SwapFree: number;
  /** Pages of locked mappings, which reclaim leaves alone, */
  readonly Unevictable: number;
  /** and pages of devices that came from there. */
  readonly Mlocked: number;
  readonly Dirty: number;
  readonly Writeback: number;
  /** Anonymous pages that are mapped, device private ones among them. */
  readonly AnonPages: number;
  /** Pages of page caches that are mapped. */
  readonly Mapped: number;
  readonly Shmem: number;
  readonly PageTables: number;
  /** Pages that have failed. */
  readonly HardwareCorrupted: number;
  /** Of AnonPages, those of folios that huge entries map. */
  readonly AnonHugePages: number;
  /** Of Shmem, those of huge pages, */
  readonly ShmemHugePages: number;
  /** and of these, those that huge entries map. */
  readonly ShmemPmdMapped: number;
}

/** Rows of /proc/vmstat: pages (`nr_`), and events since boot. */
export interface Vmstat {
  readonly nr_free_pages: number;
  readonly nr_anon_pages: number;
  readonly nr_mapped: number;
  readonly nr_file_pages: number;
  readonly nr_dirty: number;
  readonly nr_writeback: number;
  readonly nr_shmem: number;
  readonly nr_swapcached: number;
  readonly nr_unevictable: number;
  readonly nr_mlock: number;
  readonly nr_page_table_pages: number;
  /** Huge pages, not pages of 4 KiB: the rows of /proc/meminfo say which. */
  readonly nr_anon_transparent_hugepages: number;
  readonly nr_shmem_hugepages: number;
  readonly nr_shmem_pmdmapped: number;
  /** Faults of CPUs, and those that a device or a pin asked for. */
  readonly pgfault: number;
  /** Those that read from swap. */
  readonly pgmajfault: number;
  readonly pswpin: number;
  readonly pswpout: number;
  /** Pages that those who found no memory looked at, and that they freed. */
  readonly pgscan_direct: number;
  readonly pgsteal_direct: number;
  readonly pglazyfree: number;
  readonly pglazyfreed: number;
  /** Pages that went to swap and came back as nothing but zeroes: pswpin and pswpout do not have them. */
  readonly swpin_zero: number;
  readonly swpout_zero: number;
}

/** Pages of each kind (`global_node_page_state`). */
interface Census {
  anon: number;
  mapped: number;
  file: number;
  shmem: number;
  dirty: number;
  writeback: number;
  anonHuge: number;
  shmemHuge: number;
  shmemPmdMapped: number;
  /** Of devices. */
  mlocked: number;
}

function takeCensus(kernel: Kernel): Census {
  const census: Census = {
    ...{ anon: 0, mapped: 0, file: 0, shmem: 0, dirty: 0, writeback: 0 },
    ...{ anonHuge: 0, shmemHuge: 0, shmemPmdMapped: 0, mlocked: 0 },
  };
  for (const { first, pages } of kernel.ramRanges) {
    for (let page: number = first; page < first + pages; ) page += countPage(kernel, page as Page, census);
  }
  for (const { pages, nrPages } of kernel.pagemaps) {
    for (let page = pages; page < pages + nrPages; page++) countPage(kernel, page, census);
  }
  return census;
}

/** Count one page; returns the pages until the next that may be in use. */
function countPage({ memmap: { words } }: Kernel, page: Page, census: Census): number {
  const flags = pageFlags(words, page);
  if ((flags & PG_buddy) !== 0) return 1 << words[(page << STRUCT_PAGE_WORD_SHIFT) + STRUCT_PAGE.word.private];
  // The pool's pages are in counts of their own.
  if ((flags & (PG_table | PG_reserved | PG_hugetlb)) !== 0 || pageRefCount(words, page) === 0) return 1;
  const mapped = pageMapcount(words, page) > 0;
  const huge = (flags & PG_head) !== 0;
  const mappedAsOne = huge && folioEntireMapcount(words, folioHead(words, page)) > 0;
  if (pageIsAnon(words, page)) {
    if (mapped) census.anon++;
    if (mappedAsOne) census.anonHuge++;
  } else if (pageFileId(words, page) !== 0) {
    census.file++;
    if (mapped) census.mapped++;
    if ((flags & PG_swapbacked) !== 0) census.shmem++;
    else if ((flags & PG_dirty) !== 0) census.dirty++;
    if (huge) census.shmemHuge++;
    if (mappedAsOne) census.shmemPmdMapped++;
  }
  if ((flags & PG_writeback) !== 0) census.writeback++;
  if ((flags & PG_mlocked) !== 0) census.mlocked++;
  return 1;
}

/** Pages of RAM that locked mappings have, each once: `mlock_pte_range()` passes over devices. */
function countMlocked(kernel: Kernel): number {
  const locked = new Set<Page>();
  for (const mm of kernel.mms) {
    for (const { value: vma } of mm.vmas) {
      if ((vma.flags & VM_LOCKED) === 0) continue;
      visitEntries(kernel, mm, vma.start, vma.end, (_index, low, high, pages) => {
        const page = lowPresent(low) ? pageOfHalves(kernel, low, high) : NULL_PAGE;
        if (page === NULL_PAGE || isZoneDevicePage(kernel.memmap.words, page)) return;
        for (let i = 0; i < pages; i++) locked.add((page + i) as Page);
      });
    }
  }
  return locked.size;
}

const tablePages = (kernel: Kernel): number => [...kernel.mms].reduce((sum, { tables }) => sum + tables, 0);

export function meminfo(kernel: Kernel): Meminfo {
  const unevictable = countMlocked(kernel);
  const census = takeCensus(kernel);
  const { anon, mapped, file, shmem, dirty, writeback, anonHuge, shmemHuge, shmemPmdMapped } = census;
  return {
    MemTotal: kernel.totalRamPages * PAGE_KIB,
    MemFree: kernel.buddy.freePagesCount * PAGE_KIB,
    Cached: file * PAGE_KIB,
    SwapCached: kernel.swap.cached * PAGE_KIB,
    SwapTotal: kernel.swap.total * PAGE_KIB,
    SwapFree: kernel.swap.free * PAGE_KIB,
    Unevictable: unevictable * PAGE_KIB,
    Mlocked: (unevictable + census.mlocked) * PAGE_KIB,
    Dirty: dirty * PAGE_KIB,
    Writeback: writeback * PAGE_KIB,
    AnonPages: anon * PAGE_KIB,
    Mapped: mapped * PAGE_KIB,
    Shmem: shmem * PAGE_KIB,
    PageTables: tablePages(kernel) * PAGE_KIB,
    HardwareCorrupted: (kernel.memoryFailures.poisoned + kernel.memoryFailures.ofDevices) * PAGE_KIB,
    AnonHugePages: anonHuge * PAGE_KIB,
    ShmemHugePages: shmemHuge * PAGE_KIB,
    ShmemPmdMapped: shmemPmdMapped * PAGE_KIB,
  };
}

export function vmstat(kernel: Kernel): Vmstat {
  const unevictable = countMlocked(kernel);
  const { cpuFaults, pgmajfault, pswpin, pswpout, pgscan, pgsteal, pglazyfree, pglazyfreed } = kernel.stats;
  const { swpinZero, swpoutZero } = kernel.stats;
  const census = takeCensus(kernel);
  const { anon, mapped, file, shmem, dirty, writeback, anonHuge, shmemHuge, shmemPmdMapped } = census;
  return {
    nr_free_pages: kernel.buddy.freePagesCount,
    nr_anon_pages: anon,
    nr_mapped: mapped,
    // The swap cache counts as one.
    nr_file_pages: file + kernel.swap.cached,
    nr_dirty: dirty,
    nr_writeback: writeback,
    nr_shmem: shmem,
    nr_swapcached: kernel.swap.cached,
    nr_unevictable: unevictable,
    nr_mlock: unevictable + census.mlocked,
    nr_page_table_pages: tablePages(kernel),
    nr_anon_transparent_hugepages: anonHuge / HPAGE_PMD_NR,
    nr_shmem_hugepages: shmemHuge / HPAGE_PMD_NR,
    nr_shmem_pmdmapped: shmemPmdMapped / HPAGE_PMD_NR,
    pgfault: cpuFaults,
    pgmajfault,
    pswpin,
    pswpout,
    pgscan_direct: pgscan,
    pgsteal_direct: pgsteal,
    pglazyfree,
    pglazyfreed,
    swpin_zero: swpinZero,
    swpout_zero: swpoutZero,
  };
}

/** The rows as /proc/meminfo prints them. */
export const meminfoText = (rows: Meminfo): string =>
  Object.entries(rows)
    .map(([name, value]) => `${`${name}:`.padEnd(16)}${String(value).padStart(name.length < 16 ? 8 : 6)} kB\n`)
    .join('');

export const vmstatText = (rows: Vmstat): string =>
  Object.entries(rows)
    .map(([name, value]) => `${name} ${value}\n`)
    .join('');
