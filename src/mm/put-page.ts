/** The end of a page's life. Linux: mm/swap.c folio_put(), mm/memremap.c free_zone_device_folio(). */
import { PAGE_FLAGS } from '../abi/struct-page.js';
import type { Page } from '../base/brand.js';
import { InvariantViolation } from '../base/errors.js';
import { folioHead, pageRefAdd } from '../sync/page-ref.js';
import { giveHugetlb } from './hugetlb-pool.js';
import type { Kernel } from './kernel.js';
import {
  clearCompoundPage,
  folioMapcount,
  folioNrPages,
  folioOrder,
  isZoneDevicePage,
  pageClearFlag,
  pageClearMapping,
  pagePgmapId,
  pageTestFlag,
} from './page.js';

/** Drop a reference; the last one frees the page to where it came from. */
export function putPage(kernel: Kernel, page: Page): void {
  const { words } = kernel.memmap;
  const count = pageRefAdd(words, page, -1);
  if (count <= 0) freeFolio(kernel, folioHead(words, page), count);
}

function freeFolio(kernel: Kernel, page: Page, count: number): void {
  const { words } = kernel.memmap;
  // Spelled out: a message in a closure would be made for every page that is freed.
  if (count < 0) throw new InvariantViolation(`page ${page}: reference dropped that nobody held (count ${count})`);
  if (folioMapcount(words, page) !== 0) throw new InvariantViolation(`page ${page}: freed while mapped`);
  pageClearMapping(words, page);
  if (isZoneDevicePage(words, page)) {
    freeZoneDevicePage(kernel, page);
    return;
  }
  pageClearFlag(words, page, PAGE_FLAGS.PG_lru | PAGE_FLAGS.PG_anon_exclusive | PAGE_FLAGS.PG_swapbacked);
  if (pageTestFlag(words, page, PAGE_FLAGS.PG_hugetlb)) {
    giveHugetlb(kernel.hugetlb, page);
    return;
  }
  const order = folioOrder(words, page);
  if (order > 0) clearCompoundPage(words, page);
  kernel.buddy.freePages(page, order);
}

/** The page goes back to its driver, and with it the reference that it held on its pagemap. */
function freeZoneDevicePage(kernel: Kernel, page: Page): void {
  const { words } = kernel.memmap;
  const pgmap = kernel.pagemaps.get(pagePgmapId(words, page));
  const folioFree = pgmap?.ops?.folioFree;
  if (pgmap === undefined || folioFree === undefined) {
    // As in Linux: the page is lost and the pagemap's reference with it, so unmapping the pagemap waits for ever.
    kernel.warn(`free_zone_device_folio: page ${page} has no folio_free`);
    return;
  }
  if (pageTestFlag(words, page, PAGE_FLAGS.PG_locked))
    throw new InvariantViolation(`device page ${page}: freed while locked`);
  const pages = folioNrPages(words, page);
  if (pages > 1) clearCompoundPage(words, page);
  // Other flags stay until the next user comes, and some of them beyond (zoneDevicePageInit).
  for (let i = 0; i < pages; i++) pageClearFlag(words, (page + i) as Page, PAGE_FLAGS.PG_anon_exclusive);
  folioFree(page, pages);
  pgmap.ref!.put(pages);
}
