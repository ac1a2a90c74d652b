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
import type { Page } from '../base/brand.js';
import { load32 } from '../sync/word.js';

const { word } = STRUCT_PAGE;
const SHIFT = STRUCT_PAGE_WORD_SHIFT;
const FLAGS = word.flags;
const ZONE = word.zone;
const MAPPING = word.mapping;
const MAPCOUNT = word.mapcount;
const REFCOUNT = word.refcount;
const PINCOUNT = word.pincount;
const PGMAP = word.pgmap;
/** `index` is a double: half as many of them fit in a slot. */
const INDEX = word.index;

export const pageFlags = (memmap: Int32Array, page: Page): number => memmap[(page << SHIFT) + FLAGS];
export const pageTestFlag = (memmap: Int32Array, page: Page, flag: number): boolean =>
  (memmap[(page << SHIFT) + FLAGS] & flag) !== 0;
export const pageSetFlag = (memmap: Int32Array, page: Page, flag: number): void => {
  memmap[(page << SHIFT) + FLAGS] |= flag;
};
export const pageClearFlag = (memmap: Int32Array, page: Page, flag: number): void => {
  memmap[(page << SHIFT) + FLAGS] &= ~flag;
};

/** `is_device_private_page()`. */
export const isDevicePrivatePage = (memmap: Int32Array, page: Page): boolean =>
  (memmap[(page << SHIFT) + ZONE] & ZONE_BIT_DEVICE_PRIVATE) !== 0;
/** `is_device_coherent_page()`. */
export const isDeviceCoherentPage = (memmap: Int32Array, page: Page): boolean =>
  (memmap[(page << SHIFT) + ZONE] & ZONE_BIT_DEVICE_COHERENT) !== 0;
/** `is_zone_device_page()`. */
export const isZoneDevicePage = (memmap: Int32Array, page: Page): boolean =>
  (memmap[(page << SHIFT) + ZONE] & 0xff) === ZONE_DEVICE;

/** Page table entries that map the page. */
export const pageMapcount = (memmap: Int32Array, page: Page): number => memmap[(page << SHIFT) + MAPCOUNT] + 1;
export const pageMapcountAdd = (memmap: Int32Array, page: Page, delta: number): void => {
  memmap[(page << SHIFT) + MAPCOUNT] += delta;
};

/** What one FOLL_PIN adds to a small folio's refcount, so that a pin can be told from other references. */
export const GUP_PIN_COUNTING_BIAS = 1024;

/** `folio_maybe_dma_pinned()`: false positives only with a thousand references. */
export const pageMaybeDmaPinned = (memmap: Int32Array, page: Page): boolean =>
  load32(memmap, (page << SHIFT) + REFCOUNT) >= GUP_PIN_COUNTING_BIAS;
/** FOLL_PIN references. */
export const pagePincount = (memmap: Int32Array, page: Page): number => memmap[(page << SHIFT) + PINCOUNT];
export const pagePincountAdd = (memmap: Int32Array, page: Page, delta: number): void => {
  memmap[(page << SHIFT) + PINCOUNT] += delta;
};

/** `page_pgmap()`: id of the dev_pagemap. */
export const pagePgmapId = (memmap: Int32Array, page: Page): number => memmap[(page << SHIFT) + PGMAP];

/** Id of the anon_vma of an anonymous page; 0 when the page has none. */
export const pageAnonVmaId = (memmap: Int32Array, page: Page): number => {
  const mapping = memmap[(page << SHIFT) + MAPPING];
  return (mapping & 1) !== 0 ? mapping >>> 1 : 0;
};
/** `PageAnon()`. */
export const pageIsAnon = (memmap: Int32Array, page: Page): boolean => (memmap[(page << SHIFT) + MAPPING] & 1) !== 0;
/** `folio->mapping`: the page belongs to an anon_vma or to a file. */
export const pageHasMapping = (memmap: Int32Array, page: Page): boolean => memmap[(page << SHIFT) + MAPPING] !== 0;
/** Id of the file whose page cache has the page; 0 for none (`folio_mapping`). */
export const pageFileId = (memmap: Int32Array, page: Page): number => {
  const mapping = memmap[(page << SHIFT) + MAPPING];
  return (mapping & 1) !== 0 ? 0 : mapping >>> 1;
};
export const pageIndex = (floats: Float64Array, page: Page): number => floats[(page << (SHIFT - 1)) + INDEX];

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

/** Flags which go over to the new page when a folio migrates (`folio_migrate_flags`). */
const MIGRATED_FLAGS =
  PAGE_FLAGS.PG_referenced |
  PAGE_FLAGS.PG_uptodate |
  PAGE_FLAGS.PG_dirty |
  PAGE_FLAGS.PG_active |
  PAGE_FLAGS.PG_swapbacked |
  PAGE_FLAGS.PG_mlocked;

/** `folio_migrate_mapping` and `folio_migrate_flags` of an anonymous page: the new page takes the old one's place. */
export function pageMigrateIdentity(memmap: Int32Array, floats: Float64Array, from: Page, to: Page): void {
  const source = from << SHIFT;
  const target = to << SHIFT;
  memmap[target + MAPPING] = memmap[source + MAPPING];
  floats[(to << (SHIFT - 1)) + INDEX] = floats[(from << (SHIFT - 1)) + INDEX];
  memmap[target + FLAGS] |= memmap[source + FLAGS] & MIGRATED_FLAGS;
  memmap[source + MAPPING] = 0;
}
