/** Sizes and limits of addresses. Linux: include/asm/page_types.h, pgtable_64_types.h, sparsemem.h (x86-64). */
import type { Pfn, PhysAddr } from '../base/brand.js';

export const PAGE_SHIFT = 12;
export const PAGE_SIZE = 4096;
export const PAGE_KIB = PAGE_SIZE / 1024;
/** 64-bit words in a page, and entries in a page table. */
export const PTRS_PER_TABLE = 512;
export const PMD_SHIFT = 21;
export const PMD_SIZE = 1 << PMD_SHIFT;
export const PUD_SIZE = 2 ** 30;
export const PGDIR_SIZE = 2 ** 39;
/** A 2 MiB folio: 512 pages. */
export const HPAGE_PMD_ORDER = PMD_SHIFT - PAGE_SHIFT;
export const HPAGE_PMD_NR = 1 << HPAGE_PMD_ORDER;
/** Largest buddy order that pfnless hands out (orders 0..9). */
export const MAX_PAGE_ORDER = 9;

/** Memory sections (SPARSEMEM): 128 MiB. */
export const SECTION_SIZE_BITS = 27;
export const SECTION_SIZE = 2 ** SECTION_SIZE_BITS;
export const PAGES_PER_SECTION = SECTION_SIZE / PAGE_SIZE;
/** Granularity at which struct pages come and go: 2 MiB. */
export const PAGES_PER_SUBSECTION = 512;

/** User addresses: 47 bits, the first page is never mapped (mmap_min_addr is 64 KiB). */
export const TASK_SIZE = 2 ** 47 - PAGE_SIZE;
export const MMAP_MIN_ADDR = 0x10000;
/** Page numbers of user addresses are below this: 35 bits. */
export const USER_PAGES = 2 ** 35;

/** Does a range reach the end of all addresses? What goes on from there begins again at 0. */
export const wraps = (start: number, length: number): boolean => start + length >= 2 ** 64;

export const pageAlignUp = (bytes: number): number => Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE;
export const pageAlignDown = (bytes: number): number => Math.floor(bytes / PAGE_SIZE) * PAGE_SIZE;
export const isPageAligned = (bytes: number): boolean => bytes % PAGE_SIZE === 0;
export const pfnOfPhys = (phys: PhysAddr): Pfn => Math.floor(phys / PAGE_SIZE) as Pfn;
