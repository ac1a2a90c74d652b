/**
 * Free functions over struct pages: a page is a number, its fields are words of the memmap. Linux: include/linux/mm.h,
 * page-flags.h, rmap.h. Counts that copy engines change too (refcount) and the folio lock are in sync/page-ref.ts; everything
 * here is touched by the kernel's thread alone and is plain access.
 *
 * Not modelled: LRU lists and memory cgroups. PG_lru says that a page would be on a list.
 */
import {
  PAGE_FLAGS,
  STRUCT_PAGE,
  STRUCT_PAGE_WORD_SHIFT,
  ZONE_BIT_DEVICE_COHERENT,
  ZONE_BIT_DEVICE_PRIVATE,
  ZONE_DEVICE,
} from '../abi/struct-page.js';
import { NULL_PAGE, type Page } from '../base/brand.js';
import { InvariantViolation } from '../base/errors.js';
import { folioHead } from '../sync/page-ref.js';

const { word } = STRUCT_PAGE;
const SHIFT = STRUCT_PAGE_WORD_SHIFT;
const FLAGS = word.flags;
const ZONE = word.zone;
const MAPPING = word.mapping;
const MAPCOUNT = word.mapcount;
const REFCOUNT = word.refcount;
const PINCOUNT = word.pincount;
const PGMAP = word.pgmap;
const COMPOUND_HEAD = word.compoundHead;
const ORDER = word.order;
const ENTIRE_MAPCOUNT = word.entireMapcount;
/** In the first tail page of a large folio: the mapcounts of the folio and of all its pages, summed (`_large_mapcount`). */
const LARGE_MAPCOUNT = word.private;
/** `index` is a double: half as many of them fit in a slot. */
const INDEX = word.index;

/** Flags of each page; the others belong to the folio and stand on its head (the PF_ANY and PF_HEAD policies of page-flags.h). */
const PAGE_LEVEL_FLAGS =
  PAGE_FLAGS.PG_anon_exclusive |
  PAGE_FLAGS.PG_hwpoison |
  PAGE_FLAGS.PG_reserved |
  PAGE_FLAGS.PG_buddy |
  PAGE_FLAGS.PG_table;

/** Flags of a page and of its folio. A page that is no tail has both in one word. */
export const pageFlags = (memmap: Int32Array, page: Page): number => {
  const own = memmap[(page << SHIFT) + FLAGS];
  const compound = memmap[(page << SHIFT) + COMPOUND_HEAD];
  if (compound === 0) return own;
  // A tail may have some of when it was single: they say nothing of the folio.
  return (own & PAGE_LEVEL_FLAGS) | (memmap[((compound >>> 1) << SHIFT) + FLAGS] & ~PAGE_LEVEL_FLAGS);
};
export const pageTestFlag = (memmap: Int32Array, page: Page, flag: number): boolean =>
  (pageFlags(memmap, page) & flag) !== 0;
export const pageSetFlag = (memmap: Int32Array, page: Page, flag: number): void => {
  const compound = memmap[(page << SHIFT) + COMPOUND_HEAD];
  if (compound !== 0) memmap[((compound >>> 1) << SHIFT) + FLAGS] |= flag & ~PAGE_LEVEL_FLAGS;
  memmap[(page << SHIFT) + FLAGS] |= compound === 0 ? flag : flag & PAGE_LEVEL_FLAGS;
};
export const pageClearFlag = (memmap: Int32Array, page: Page, flag: number): void => {
  const compound = memmap[(page << SHIFT) + COMPOUND_HEAD];
  if (compound !== 0) memmap[((compound >>> 1) << SHIFT) + FLAGS] &= ~(flag & ~PAGE_LEVEL_FLAGS);
  memmap[(page << SHIFT) + FLAGS] &= compound === 0 ? ~flag : ~(flag & PAGE_LEVEL_FLAGS);
};

/** `folio_mark_dirty()` of a page that somebody has written to: reclaim, which may have come by before, has to come again. */
export function pageMarkDirty(memmap: Int32Array, page: Page): void {
  const flags = (folioHead(memmap, page) << SHIFT) + FLAGS;
  memmap[flags] = (memmap[flags] | PAGE_FLAGS.PG_dirty) & ~PAGE_FLAGS.PG_reclaim;
}

/** `is_device_private_page()`. */
export const isDevicePrivatePage = (memmap: Int32Array, page: Page): boolean =>
  (memmap[(page << SHIFT) + ZONE] & ZONE_BIT_DEVICE_PRIVATE) !== 0;
/** `is_device_coherent_page()`. */
export const isDeviceCoherentPage = (memmap: Int32Array, page: Page): boolean =>
  (memmap[(page << SHIFT) + ZONE] & ZONE_BIT_DEVICE_COHERENT) !== 0;
/** `is_zone_device_page()`. */
export const isZoneDevicePage = (memmap: Int32Array, page: Page): boolean =>
  (memmap[(page << SHIFT) + ZONE] & 0xff) === ZONE_DEVICE;

/** `lruvec_stat_mod_folio()`: what a node counts of its pages. There is nothing to count here, but the node has to be one. */
export function accountToNode(memmap: Int32Array, page: Page): void {
  if (memmap[(page << SHIFT) + ZONE] < 0) {
    throw new InvariantViolation(`page ${page} is accounted to a node that does not exist`);
  }
}

/** `folio_test_large()`. */
export const isLargeFolio = (memmap: Int32Array, head: Page): boolean =>
  (memmap[(head << SHIFT) + FLAGS] & PAGE_FLAGS.PG_head) !== 0;
/** Is `head` the folio of the page whose fault asks for a migration (NULL_PAGE for none)? */
export const isFaultFolio = (memmap: Int32Array, head: Page, faultPage: Page): boolean =>
  faultPage !== NULL_PAGE && folioHead(memmap, faultPage) === head;
/** `folio_order()` of the page's folio. */
export const folioOrder = (memmap: Int32Array, page: Page): number => {
  const head = folioHead(memmap, page);
  return isLargeFolio(memmap, head) ? memmap[(head << SHIFT) + ORDER] : 0;
};
/** `folio_nr_pages()`. */
export const folioNrPages = (memmap: Int32Array, page: Page): number => 1 << folioOrder(memmap, page);

/** `prep_compound_page()`: the pages from `head` on become one folio. Device pages: only the head knows the pagemap any more. */
export function prepCompoundPage(memmap: Int32Array, head: Page, order: number): void {
  const first = head << SHIFT;
  memmap[first + ORDER] = order;
  memmap[first + ENTIRE_MAPCOUNT] = -1;
  for (let page = head + 1; page < head + (1 << order); page++) {
    memmap[(page << SHIFT) + COMPOUND_HEAD] = (head << 1) | 1;
    memmap[(page << SHIFT) + PGMAP] = 0;
  }
  memmap[((head + 1) << SHIFT) + LARGE_MAPCOUNT] = 0;
  memmap[first + FLAGS] |= PAGE_FLAGS.PG_head;
}

/** How tails find their head where it is not written down: they mask their own address (`compound_info_has_mask()`). */
export function maskCompoundHeads(memmap: Int32Array, head: Page, order: number): void {
  for (let page = head + 1; page < head + (1 << order); page++) {
    memmap[(page << SHIFT) + COMPOUND_HEAD] = ((page & -(1 << order)) << 1) | 1;
  }
}

/** The reverse: every page stands for itself again, with the head's pagemap. Nothing else is changed. */
export function clearCompoundPage(memmap: Int32Array, head: Page): void {
  const first = head << SHIFT;
  const pages = 1 << memmap[first + ORDER];
  memmap[first + FLAGS] &= ~PAGE_FLAGS.PG_head;
  memmap[first + ORDER] = 0;
  memmap[((head + 1) << SHIFT) + LARGE_MAPCOUNT] = 0;
  for (let page = head + 1; page < head + pages; page++) {
    memmap[(page << SHIFT) + COMPOUND_HEAD] = 0;
    memmap[(page << SHIFT) + PGMAP] = memmap[first + PGMAP];
  }
}

/** `folio_precise_page_mapcount()`: entries that map the page, those of the level above included that map its whole folio. */
export const pageMapcount = (memmap: Int32Array, page: Page): number => {
  const own = memmap[(page << SHIFT) + MAPCOUNT] + 1;
  const head = folioHead(memmap, page);
  return isLargeFolio(memmap, head) ? own + folioEntireMapcount(memmap, head) : own;
};
/** `folio_entire_mapcount()`: page middle directory entries that map a large folio. */
export const folioEntireMapcount = (memmap: Int32Array, head: Page): number =>
  memmap[(head << SHIFT) + ENTIRE_MAPCOUNT] + 1;
/** `folio_mapcount()`: entries of whichever level that map the folio or some of its pages. */
export const folioMapcount = (memmap: Int32Array, head: Page): number =>
  isLargeFolio(memmap, head) ? memmap[((head + 1) << SHIFT) + LARGE_MAPCOUNT] : memmap[(head << SHIFT) + MAPCOUNT] + 1;
/** One page table entry more or less maps the page. */
export const pageMapcountAdd = (memmap: Int32Array, page: Page, delta: number): void => {
  memmap[(page << SHIFT) + MAPCOUNT] += delta;
  const head = folioHead(memmap, page);
  if (isLargeFolio(memmap, head)) memmap[((head + 1) << SHIFT) + LARGE_MAPCOUNT] += delta;
};
/** One page middle directory entry more or less maps the large folio. */
export const folioEntireMapcountAdd = (memmap: Int32Array, head: Page, delta: number): void => {
  memmap[(head << SHIFT) + ENTIRE_MAPCOUNT] += delta;
  memmap[((head + 1) << SHIFT) + LARGE_MAPCOUNT] += delta;
};

/** What one FOLL_PIN adds to a small folio's refcount, so that a pin can be told from other references. */
export const GUP_PIN_COUNTING_BIAS = 1024;

/** `folio_maybe_dma_pinned()`: a large folio counts its pins; of a small one false positives come with a thousand references. */
export const pageMaybeDmaPinned = (memmap: Int32Array, page: Page): boolean => {
  const head = folioHead(memmap, page);
  return isLargeFolio(memmap, head)
    ? pagePincount(memmap, head) > 0
    : memmap[(head << SHIFT) + REFCOUNT] >= GUP_PIN_COUNTING_BIAS;
};
/** FOLL_PIN references of the page's folio. */
export const pagePincount = (memmap: Int32Array, page: Page): number =>
  memmap[(folioHead(memmap, page) << SHIFT) + PINCOUNT];
export const pagePincountAdd = (memmap: Int32Array, page: Page, delta: number): void => {
  memmap[(folioHead(memmap, page) << SHIFT) + PINCOUNT] += delta;
};
/** What a pin adds to the references of the page's folio. */
export const pinBias = (memmap: Int32Array, page: Page): number =>
  isLargeFolio(memmap, folioHead(memmap, page)) ? 1 : GUP_PIN_COUNTING_BIAS;

/** `page_pgmap()`: id of the dev_pagemap, which the head of a folio knows. */
export const pagePgmapId = (memmap: Int32Array, page: Page): number =>
  memmap[(folioHead(memmap, page) << SHIFT) + PGMAP];

/** `folio->mapping`. */
const pageMapping = (memmap: Int32Array, page: Page): number => memmap[(folioHead(memmap, page) << SHIFT) + MAPPING];
/** Id of the anon_vma of an anonymous page; 0 when the page has none. */
export const pageAnonVmaId = (memmap: Int32Array, page: Page): number => {
  const mapping = pageMapping(memmap, page);
  return (mapping & 1) !== 0 ? mapping >>> 1 : 0;
};
/** `PageAnon()`. */
export const pageIsAnon = (memmap: Int32Array, page: Page): boolean => (pageMapping(memmap, page) & 1) !== 0;
/** `folio->mapping`: the page belongs to an anon_vma or to a file. */
export const pageHasMapping = (memmap: Int32Array, page: Page): boolean => pageMapping(memmap, page) !== 0;
/** Id of the file whose page cache has the page; 0 for none (`folio_mapping`). */
export const pageFileId = (memmap: Int32Array, page: Page): number => {
  const mapping = pageMapping(memmap, page);
  return (mapping & 1) !== 0 ? 0 : mapping >>> 1;
};
/** Page offset of the page in its mapping: the folio's, and how far the page lies in it. */
export const pageIndex = (memmap: Int32Array, floats: Float64Array, page: Page): number => {
  const head = folioHead(memmap, page);
  return floats[(head << (SHIFT - 1)) + INDEX] + (page - head);
};

/** References that the page cache, or the swap cache, has on a folio: one for each of its pages. */
export const folioCacheReferences = (memmap: Int32Array, folio: Page): number =>
  pageFileId(memmap, folio) !== 0 || pageTestFlag(memmap, folio, PAGE_FLAGS.PG_swapcache)
    ? folioNrPages(memmap, folio)
    : 0;

export function pageSetAnonMapping(
  memmap: Int32Array,
  floats: Float64Array,
  page: Page,
  anonVmaId: number,
  index: number,
): void {
  memmap[(page << SHIFT) + MAPPING] = (anonVmaId << 1) | 1;
  floats[(page << (SHIFT - 1)) + INDEX] = index;
}

/** The page is in the page cache of a file, at page offset `index`. */
export function pageSetFileMapping(
  memmap: Int32Array,
  floats: Float64Array,
  page: Page,
  fileId: number,
  index: number,
): void {
  memmap[(page << SHIFT) + MAPPING] = fileId << 1;
  floats[(page << (SHIFT - 1)) + INDEX] = index;
}

export function pageClearMapping(memmap: Int32Array, page: Page): void {
  memmap[(page << SHIFT) + MAPPING] = 0;
}

/** `folio_isolate_lru()` without its reference: nobody else may isolate the folio meanwhile. */
export function isolateLru(memmap: Int32Array, page: Page): boolean {
  if (!pageTestFlag(memmap, page, PAGE_FLAGS.PG_lru)) return false;
  pageClearFlag(memmap, page, PAGE_FLAGS.PG_lru);
  pageSetFlag(memmap, page, PAGE_FLAGS.PG_isolated);
  return true;
}

/** `folio_putback_lru()` without its reference. */
export function putbackLru(memmap: Int32Array, page: Page): void {
  pageClearFlag(memmap, page, PAGE_FLAGS.PG_isolated);
  pageSetFlag(memmap, page, PAGE_FLAGS.PG_lru);
}

/** Flags which go over to the new page when a folio migrates (`folio_migrate_flags`). */
const MIGRATED_FLAGS =
  PAGE_FLAGS.PG_referenced |
  PAGE_FLAGS.PG_uptodate |
  PAGE_FLAGS.PG_dirty |
  PAGE_FLAGS.PG_reclaim |
  PAGE_FLAGS.PG_active |
  PAGE_FLAGS.PG_swapbacked;

/**
 * `folio_migrate_mapping` and `folio_migrate_flags`, but for what a cache knows of the page: the new page takes the old one's place. The old
 * one is told apart until it is free, since migration entries still stand for it.
 */
export function pageMigrateIdentity(memmap: Int32Array, floats: Float64Array, from: Page, to: Page): void {
  const source = from << SHIFT;
  const target = to << SHIFT;
  memmap[target + MAPPING] = memmap[source + MAPPING];
  floats[(to << (SHIFT - 1)) + INDEX] = floats[(from << (SHIFT - 1)) + INDEX];
  memmap[target + FLAGS] |= memmap[source + FLAGS] & MIGRATED_FLAGS;
}
