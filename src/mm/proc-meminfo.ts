/**
 * /proc/meminfo and /proc/vmstat: as data and as text. Linux: fs/proc/meminfo.c, mm/vmstat.c.
 *
 * Linux counts while pages change hands; here a look walks all struct pages in use, so that no path can forget to count. Device
 * private pages are anonymous memory that is mapped, and count as such, as in Linux. Only rows that the model knows are there.
 * `pgmigrate_success` is not one: no migration that a driver asks for counts in it.
 */
import { PAGE_SIZE, pageAlignDown, pageAlignUp } from '../abi/address.js';
import { PAGE_FLAGS, STRUCT_PAGE, STRUCT_PAGE_WORD_SHIFT } from '../abi/struct-page.js';
import type { Page, Pfn } from '../base/brand.js';
import { pageRefCount } from '../sync/page-ref.js';
import type { Kernel } from './kernel.js';
import { pageFileId, pageFlags, pageIsAnon, pageMapcount } from './page.js';

const { PG_buddy, PG_dirty, PG_reserved, PG_swapbacked, PG_table, PG_writeback } = PAGE_FLAGS;
const PAGE_KIB = PAGE_SIZE / 1024;

/** Rows of /proc/meminfo, in kB. */
export interface Meminfo {
  readonly MemTotal: number;
  readonly MemFree: number;
  /** Page caches, shared memory among them. */
  readonly Cached: number;
  readonly Dirty: number;
  readonly Writeback: number;
  /** Anonymous pages that are mapped, device private ones among them. */
  readonly AnonPages: number;
  /** Pages of page caches that are mapped. */
  readonly Mapped: number;
  readonly Shmem: number;
  readonly PageTables: number;
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
  readonly nr_page_table_pages: number;
  /** Faults of CPUs, and those that a device or a pin asked for. */
  readonly pgfault: number;
}

/** Pages of each kind (`global_node_page_state`). */
interface Census {
  anon: number;
  mapped: number;
  file: number;
  shmem: number;
  dirty: number;
  writeback: number;
}

function takeCensus(kernel: Kernel): Census {
  const census: Census = { anon: 0, mapped: 0, file: 0, shmem: 0, dirty: 0, writeback: 0 };
  for (const { start, end, kind } of kernel.options.layout.entries) {
    if (kind !== 'ram') continue;
    const endPfn = pageAlignDown(end + 1) / PAGE_SIZE;
    for (let pfn = Math.max(1, pageAlignUp(start) / PAGE_SIZE); pfn < endPfn; ) {
      const page = kernel.memmap.pfnToPage(pfn as Pfn);
      pfn += countPage(kernel, page, census);
    }
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
  if ((flags & (PG_table | PG_reserved)) !== 0 || pageRefCount(words, page) === 0) return 1;
  const mapped = pageMapcount(words, page) > 0;
  if (pageIsAnon(words, page)) {
    if (mapped) census.anon++;
  } else if (pageFileId(words, page) !== 0) {
    census.file++;
    if (mapped) census.mapped++;
    if ((flags & PG_swapbacked) !== 0) census.shmem++;
    else if ((flags & PG_dirty) !== 0) census.dirty++;
  }
  if ((flags & PG_writeback) !== 0) census.writeback++;
  return 1;
}

const tablePages = (kernel: Kernel): number => [...kernel.mms].reduce((sum, { tables }) => sum + tables, 0);

export function meminfo(kernel: Kernel): Meminfo {
  const { anon, mapped, file, shmem, dirty, writeback } = takeCensus(kernel);
  return {
    MemTotal: kernel.totalRamPages * PAGE_KIB,
    MemFree: kernel.buddy.freePagesCount * PAGE_KIB,
    Cached: file * PAGE_KIB,
    Dirty: dirty * PAGE_KIB,
    Writeback: writeback * PAGE_KIB,
    AnonPages: anon * PAGE_KIB,
    Mapped: mapped * PAGE_KIB,
    Shmem: shmem * PAGE_KIB,
    PageTables: tablePages(kernel) * PAGE_KIB,
  };
}

export function vmstat(kernel: Kernel): Vmstat {
  const { anon, mapped, file, shmem, dirty, writeback } = takeCensus(kernel);
  return {
    nr_free_pages: kernel.buddy.freePagesCount,
    nr_anon_pages: anon,
    nr_mapped: mapped,
    nr_file_pages: file,
    nr_dirty: dirty,
    nr_writeback: writeback,
    nr_shmem: shmem,
    nr_page_table_pages: tablePages(kernel),
    pgfault: kernel.stats.cpuFaults,
  };
}

/** The rows as /proc/meminfo prints them. */
export const meminfoText = (rows: Meminfo): string =>
  Object.entries(rows)
    .map(([name, value]) => `${`${name}:`.padEnd(16)}${String(value).padStart(8)} kB\n`)
    .join('');

export const vmstatText = (rows: Vmstat): string =>
  Object.entries(rows)
    .map(([name, value]) => `${name} ${value}\n`)
    .join('');
