/**
 * `struct page`: 64 bytes a page, in a SharedArrayBuffer. Linux: include/linux/mm_types.h, page-flags.h.
 *
 * All struct pages of a machine stand in one arena, the part of kernel memory that they would occupy: a `Page` (the
 * emulated pointer) is the number of a slot in it, so that one typed array serves every page. The vmemmap of RAM and of
 * legacy device memory, and the arrays that `memremap_device_private_pagemap` allocates, are ranges of slots.
 */
import { defineRecord, field } from './layout.js';

export const STRUCT_PAGE_BYTES = 64;
/** log2 of the 32-bit words in a slot: `page << STRUCT_PAGE_WORD_SHIFT` is the slot's first word. */
export const STRUCT_PAGE_WORD_SHIFT = 4;

export const STRUCT_PAGE = defineRecord('struct page', STRUCT_PAGE_BYTES, {
  flags: field(0, 'u32', 'PG_* bits'),
  zone: field(4, 'u32', 'zone (low 8 bits) and NUMA node (next 8)'),
  compoundHead: field(8, 'u32', 'tail page: (slot of the head << 1) | 1; otherwise 0'),
  pgmap: field(12, 'u32', 'ZONE_DEVICE: id of the dev_pagemap, kept on the head page'),
  zoneDeviceData: field(16, 'i32', 'ZONE_DEVICE: word of the driver that owns the page'),
  lruNext: field(20, 'u32', 'free page: next page of its free list; page table: next deposited table'),
  lruPrev: field(24, 'u32', 'free page: previous page of its free list'),
  mapping: field(
    28,
    'u32',
    '(id of the anon_vma << 1) | 1 for anonymous pages; id of the file << 1 in a page cache; 0 for none',
  ),
  index: field(32, 'f64', 'page offset of the page inside its mapping'),
  private: field(
    40,
    'u32',
    'free page: buddy order; page table: its lock; first tail of a large folio: all its mapcounts; swap cache: entry',
  ),
  order: field(44, 'u32', 'compound order, kept on the head page'),
  mapcount: field(48, 'i32', 'page table entries that map this page, minus one'),
  refcount: field(52, 'i32', 'references: 0 free or frozen, negative never'),
  pincount: field(
    56,
    'i32',
    'FOLL_PIN references, kept on the head page (of small folios too, beside GUP_PIN_COUNTING_BIAS in refcount)',
  ),
  entireMapcount: field(60, 'i32', 'large folio: page middle directory entries that map it, minus one'),
});

/**
 * Values of `refcount`: 0 = free (in the buddy, or a device page on its driver's free list) or frozen by a migration;
 * n > 0 = n holders: one for each page table entry that maps it, one for the isolated or migrating path, pins and the
 * copy engine's own references while it copies.
 */
export const PAGE_FLAGS = Object.freeze({
  /** Folio lock. */
  PG_locked: 1 << 0,
  PG_writeback: 1 << 1,
  PG_referenced: 1 << 2,
  PG_uptodate: 1 << 3,
  PG_dirty: 1 << 4,
  PG_lru: 1 << 5,
  /** Dirty page of a file that reclaim has come by: it goes as soon as it is written back. To who maps around a fault, PG_readahead. */
  PG_reclaim: 1 << 6,
  PG_active: 1 << 7,
  PG_head: 1 << 8,
  PG_reserved: 1 << 9,
  PG_private: 1 << 10,
  PG_swapbacked: 1 << 11,
  PG_swapcache: 1 << 12,
  PG_mlocked: 1 << 13,
  PG_hwpoison: 1 << 14,
  /** Anonymous page that only one process maps (PG_anon_exclusive). */
  PG_anon_exclusive: 1 << 15,
  /** Free page in the buddy allocator (PageBuddy is a page type in Linux). */
  PG_buddy: 1 << 16,
  /** Page table page (PageTable is a page type in Linux). */
  PG_table: 1 << 17,
  /** Isolated from the LRU by a migration. */
  PG_isolated: 1 << 18,
  /** Folio of the hugetlb pool, in use or free (a page type in Linux). */
  PG_hugetlb: 1 << 19,
});

/** Zone of a page, in the low 8 bits of `zone`; 0 is that of RAM (ZONE_NORMAL). */
export const ZONE_DEVICE = 1;
/** Set in `zone` beside ZONE_DEVICE, so that the test for a private page needs no look at the pagemap. */
export const ZONE_BIT_DEVICE_PRIVATE = 1 << 30;
export const ZONE_BIT_DEVICE_COHERENT = 1 << 29;
