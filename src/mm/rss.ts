/** Which counter of an address space a page belongs to. Linux: include/linux/mm.h mm_counter(), mm_counter_file(). */
import { PAGE_FLAGS } from '../abi/struct-page.js';
import type { Page } from '../base/brand.js';
import type { MmStruct } from './mm-struct.js';
import { pageFileId, pageIsAnon, pageTestFlag } from './page.js';

/** `add_mm_counter()`: `delta` more present entries of `mm` map the page. */
export function rssAdd(memmap: Int32Array, mm: MmStruct, page: Page, delta: number): void {
  if (pageIsAnon(memmap, page)) mm.rssAnon += delta;
  else rssAddFile(memmap, mm, page, delta);
}

/** The same of a migration entry: an anonymous page may have handed its identity over, a page of a file never does. */
export function rssAddMigrating(memmap: Int32Array, mm: MmStruct, page: Page, delta: number): void {
  if (pageFileId(memmap, page) === 0) mm.rssAnon += delta;
  else rssAddFile(memmap, mm, page, delta);
}

/** A page that is not anonymous: of shared memory, of a file, or a driver's. */
export function rssAddFile(memmap: Int32Array, mm: MmStruct, page: Page, delta: number): void {
  if (pageTestFlag(memmap, page, PAGE_FLAGS.PG_swapbacked)) mm.rssShmem += delta;
  else mm.rssFile += delta;
}
