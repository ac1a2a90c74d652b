/**
 * Struct pages for device memory, and the device private address space. Linux: mm/memremap.c, mm/mm_init.c
 * __init_zone_device_page().
 *
 * `memremapPages` gives a physical range a vmemmap: legacy private memory and coherent memory. `memremapDevicePrivatePagemap`
 * is the series' (patch 13): an array of struct pages, and a range of offsets that no physical address knows of.
 * Not modelled: altmap, linear map and KASAN shadow, PG_reserved on device pages, other memory types, devm_*.
 */
import { PAGE_SIZE, PAGES_PER_SECTION, PAGES_PER_SUBSECTION, PMD_SIZE, pfnOfPhys } from '../abi/address.js';
import type { Result } from '../abi/errno.js';
import {
  PAGE_FLAGS,
  STRUCT_PAGE,
  STRUCT_PAGE_WORD_SHIFT,
  ZONE_BIT_DEVICE_COHERENT,
  ZONE_BIT_DEVICE_PRIVATE,
  ZONE_DEVICE,
} from '../abi/struct-page.js';
import { type DevicePrivateOffset, NULL_PAGE, type Page, type Pfn, type PhysAddr } from '../base/brand.js';
import { assert, InvariantViolation } from '../base/errors.js';
import { IdTable } from '../base/id-table.js';
import type { FaultInjector } from '../base/injection.js';
import { RangeTree } from '../base/range-tree.js';
import { folioTrylock } from '../sync/page-ref.js';
import { PercpuRef } from '../sync/percpu-ref.js';
import type { Sleeps } from '../sync/task.js';
import type { Sites } from './check-sites.js';
import type { DevPagemap, MemoryType } from './dev-pagemap.js';
import type { Memmap } from './memmap.js';
import { isDevicePrivatePage, isZoneDevicePage, maskCompoundHeads, prepCompoundPage } from './page.js';
import { formatResources } from './resource.js';

const SHIFT = STRUCT_PAGE_WORD_SHIFT;
const FLAGS = STRUCT_PAGE.word.flags;
const ZONE = STRUCT_PAGE.word.zone;
const COMPOUND_HEAD = STRUCT_PAGE.word.compoundHead;
const PGMAP = STRUCT_PAGE.word.pgmap;
const MAPCOUNT = STRUCT_PAGE.word.mapcount;
const REFCOUNT = STRUCT_PAGE.word.refcount;
const ENTIRE_MAPCOUNT = STRUCT_PAGE.word.entireMapcount;

/** No node given: the node of the calling CPU is taken (`numa_mem_id()`), of which there is one. */
export const NUMA_NO_NODE = -1;
const NUMA_MEM_ID = 0;
/** Place of the node in the struct page's zone word. */
const NODE_SHIFT = 8;

/** What these functions need of the kernel. */
export interface MemremapDeps {
  readonly memmap: Memmap;
  readonly privateSpace: DevicePrivateSpace;
  readonly pagemaps: PagemapRegistry;
  /** Is "Remove device private pages from physical address space" applied? */
  readonly seriesApplied: boolean;
  readonly sites: Pick<Sites, 'numaNode' | 'folioFreeValidated' | 'eraseBeforeFree' | 'alignedStart' | 'alignedMemmap'>;
  /** The kernel log. */
  warn(text: string): void;
  readonly inject?: FaultInjector | null;
}

/** Pagemaps by the number that stands in their struct pages. */
export class PagemapRegistry {
  readonly #table = new IdTable<DevPagemap>();

  get(id: number): DevPagemap | undefined {
    return this.#table.get(id);
  }

  /** Gives `pgmap` its id. */
  add(pgmap: DevPagemap): void {
    assert(pgmap.id === 0, () => `pagemap ${pgmap.id} is mapped already`);
    this.#table.add((id) => {
      pgmap.id = id;
      return pgmap;
    });
  }

  remove(pgmap: DevPagemap): void {
    this.#table.remove(pgmap.id);
    pgmap.id = 0;
  }

  [Symbol.iterator](): Generator<DevPagemap, void, void> {
    return this.#table[Symbol.iterator]();
  }
}

/**
 * The device private address space: one number line of bytes for all pagemaps (`device_private_pgmap_tree`). Ranges are as
 * long as their pagemaps and nothing aligns them. Offset 0 is a page like any other.
 */
export class DevicePrivateSpace {
  readonly #pgmaps = new RangeTree<DevPagemap>();
  readonly #words: Int32Array;
  readonly #registry: PagemapRegistry;
  readonly #limit: number;
  readonly #warn: (text: string) => void;
  #warned = false;
  /** The pagemap of the last lookup: its first offset, its pages, its first struct page. */
  #hitOffset = 0;
  #hitPages = 0;
  #hitPage = 0;

  constructor(options: Pick<MemremapDeps, 'memmap' | 'pagemaps' | 'warn'> & { readonly maxPhysmemBits: number }) {
    this.#words = options.memmap.words;
    this.#registry = options.pagemaps;
    this.#warn = options.warn;
    this.#limit = 2 ** options.maxPhysmemBits;
  }

  /**
   * `mtree_alloc_range()`: the lowest gap that is long enough. `pgmap.range` is the output.
   * @param align bytes that `start` is a multiple of
   * @returns EINVAL for a size of 0 or beyond the space, EBUSY when no gap is long enough
   */
  allocate(pgmap: DevPagemap, size: number, align = 1): Result {
    // The posted code passes 1 << MAX_PHYSMEM_BITS as the last usable byte, one too many. Nothing can come of it.
    const end = this.#limit + 1;
    if (size === 0 || size > end) return 'EINVAL';
    const start = this.#pgmaps.allocateLowest(size, 0, end, align, pgmap);
    if (start === undefined) return 'EBUSY';
    pgmap.range = { start, end: start + size - 1 };
    return 0;
  }

  /** `mtree_erase()`: the numbers may be handed out again at once. */
  free(pgmap: DevPagemap): void {
    this.#pgmaps.remove(pgmap.range!.start);
    pgmap.range = null;
    this.#hitPages = 0;
  }

  /** `device_private_offset_to_page()`: NULL_PAGE, and a warning the first time, where no pagemap is. */
  offsetToPage(offset: DevicePrivateOffset): Page {
    const index = offset - this.#hitOffset;
    if (index >= 0 && index < this.#hitPages) return (this.#hitPage + index) as Page;

    const found = this.#pgmaps.find(offset * PAGE_SIZE);
    if (found === undefined) {
      if (!this.#warned) this.#warn(`device_private_offset_to_page: no pagemap at offset 0x${offset.toString(16)}`);
      this.#warned = true;
      return NULL_PAGE;
    }
    this.#hitOffset = found.range!.start / PAGE_SIZE;
    this.#hitPages = found.nrPages;
    this.#hitPage = found.pages;
    return (this.#hitPage + (offset - this.#hitOffset)) as Page;
  }

  /** `device_private_page_to_offset()`: warns of a page of another kind, and computes all the same. */
  pageToOffset(page: Page): DevicePrivateOffset {
    const words = this.#words;
    if (!isDevicePrivatePage(words, page)) {
      this.#warn(`device_private_page_to_offset: page ${page} is not device private`);
    }
    const compound = words[(page << SHIFT) + COMPOUND_HEAD];
    const head = compound === 0 ? page : compound >>> 1;
    const pgmap = this.#registry.get(words[(head << SHIFT) + PGMAP]);
    if (pgmap === undefined || pgmap.range === null) {
      throw new InvariantViolation(`page ${page} has no pagemap to compute an offset from`);
    }
    return (pgmap.range.start / PAGE_SIZE + (page - pgmap.pages)) as DevicePrivateOffset;
  }

  /** The map of the space in the format of /proc/iomem. `label` may name the device of a pagemap. */
  print(label?: (pgmap: DevPagemap) => string | undefined): string {
    const entries = Array.from(this.#pgmaps, ({ start, end, value }) => {
      const device = label?.(value);
      return {
        start,
        end: end - 1,
        name: device === undefined ? 'device private' : `device private (${device})`,
        depth: 0,
      };
    });
    return formatResources(entries, this.#limit - 1);
  }
}

/**
 * `memremap_pages()`: struct pages for the physical range `pgmap.range`. Precondition: the range is claimed in the resource
 * tree. The pages start free (refcount 0) and belong to the driver.
 * @returns EINVAL (with a warning) for what a driver got wrong, ENXIO over RAM, ENOMEM over another pagemap or without memory
 */
export function memremapPages(deps: MemremapDeps, pgmap: DevPagemap, nid = NUMA_NO_NODE): Result {
  const { memmap } = deps;
  if (pgmap.range === null) return refuse(deps, 'nr_range must be specified');
  const mistake = pgmap.type === 'MEMORY_DEVICE_PRIVATE' ? privateMistake(deps, pgmap) : coherentMistake(pgmap);
  if (mistake !== null) return refuse(deps, mistake);

  const { pfn, pages } = physicalRange(pgmap);
  if (pfn % PAGES_PER_SUBSECTION !== 0 || pages % PAGES_PER_SUBSECTION !== 0) {
    return refuse(deps, `Misaligned add_pages start: 0x${pfn.toString(16)} end: 0x${(pfn + pages - 1).toString(16)}`);
  }
  if (pgmap.type === 'MEMORY_DEVICE_COHERENT') {
    assert(
      (pgmap.memory?.bytes.byteLength ?? 0) >= pages * PAGE_SIZE,
      'coherent memory that is shorter than its range',
    );
  }
  const conflict = sectionConflict(deps, pfn, pages);
  if (conflict !== 0) return conflict;

  if (deps.inject?.fires('pagemap-setup') || !memmap.populateVmemmap(pfn, pages)) return 'ENOMEM';
  pgmap.pages = memmap.pfnToPage(pfn);
  activate(deps, pgmap, pages, nid);
  return 0;
}

/** `memunmap_pages()`: sleeps until every page has come back to the driver. */
export function* memunmapPages(deps: MemremapDeps, pgmap: DevPagemap): Sleeps<void> {
  if (deps.seriesApplied && pgmap.type === 'MEMORY_DEVICE_PRIVATE') {
    deps.warn('memunmap_pages: MEMORY_DEVICE_PRIVATE is unmapped by memunmap_device_private_pagemap');
  }
  yield* drain(pgmap);
  const { pfn, pages } = physicalRange(pgmap);
  deps.memmap.depopulateVmemmap(pfn, pages);
  deactivate(deps, pgmap);
}

/**
 * `memremap_device_private_pagemap()` of the series: struct pages for `pgmap.nrPages` pages and a range of offsets to name them by.
 * What the posted code does otherwise: `folioFreeValidated` and its neighbours in check-sites/lifetime.ts.
 * @returns EINVAL (with a warning) for what a driver got wrong, and for no pages; ENOMEM; EBUSY when the space is full
 */
export function memremapDevicePrivatePagemap(deps: MemremapDeps, pgmap: DevPagemap, nid = NUMA_NO_NODE): Result {
  assert(deps.seriesApplied, 'memremap_device_private_pagemap() exists only with the series');
  if (pgmap.type !== 'MEMORY_DEVICE_PRIVATE') return refuse(deps, 'Not device private memory');
  if (pgmap.ops?.migrateToRam === undefined) return refuse(deps, 'Missing migrate_to_ram method');
  if (pgmap.owner === null) return refuse(deps, 'Missing owner');
  if (deps.sites.folioFreeValidated && pgmap.ops.folioFree === undefined)
    return refuse(deps, 'Missing folio_free method');

  if (deps.inject?.fires('pagemap-setup')) return 'ENOMEM';
  // kvzalloc(0) does not fail in Linux either: it is the tree that answers EINVAL to a range of no bytes.
  const pages = pgmap.nrPages === 0 ? NULL_PAGE : deps.memmap.allocArray(pgmap.nrPages, deps.sites.alignedMemmap);
  if (pages === NULL_PAGE && pgmap.nrPages > 0) return 'ENOMEM';
  const align = deps.sites.alignedStart ? PMD_SIZE : PAGE_SIZE;
  const error = deps.privateSpace.allocate(pgmap, pgmap.nrPages * PAGE_SIZE, align);
  if (error !== 0) {
    if (pages !== NULL_PAGE) deps.memmap.freeArray(pages);
    return error;
  }
  pgmap.pages = pages;
  activate(deps, pgmap, pgmap.nrPages, nid);
  return 0;
}

/** `memunmap_device_private_pagemap()`: sleeps until every page has come back to the driver. */
export function* memunmapDevicePrivatePagemap(deps: MemremapDeps, pgmap: DevPagemap): Sleeps<void> {
  yield* drain(pgmap);
  // As posted the array goes first: between the two a lookup from another CPU would find freed struct pages.
  if (!deps.sites.eraseBeforeFree) deps.memmap.freeArray(pgmap.pages);
  deps.privateSpace.free(pgmap);
  if (deps.sites.eraseBeforeFree) deps.memmap.freeArray(pgmap.pages);
  deactivate(deps, pgmap);
}

function refuse(deps: MemremapDeps, warning: string): 'EINVAL' {
  deps.warn(`WARNING: ${warning}`);
  return 'EINVAL';
}

function privateMistake({ seriesApplied }: MemremapDeps, { ops, owner }: DevPagemap): string | null {
  if (seriesApplied) return 'MEMORY_DEVICE_PRIVATE is mapped by memremap_device_private_pagemap';
  if (ops?.migrateToRam === undefined) return 'Missing migrate_to_ram method';
  if (ops.folioFree === undefined) return 'Missing folio_free method';
  return owner === null ? 'Missing owner' : null;
}

function coherentMistake({ ops, owner }: DevPagemap): string | null {
  if (ops?.folioFree === undefined) return 'Missing folio_free method';
  return owner === null ? 'Missing owner' : null;
}

function physicalRange({ range }: DevPagemap): { pfn: Pfn; pages: number } {
  const { start, end } = range!;
  return { pfn: pfnOfPhys(start as PhysAddr), pages: Math.floor((end - start + 1) / PAGE_SIZE) };
}

/** May the range get a vmemmap? Its sections must have none (`get_dev_pagemap`, `region_intersects`). */
function sectionConflict({ memmap, warn }: MemremapDeps, pfn: Pfn, pages: number): Result {
  for (let at = pfn - (pfn % PAGES_PER_SECTION); at < pfn + pages; at += PAGES_PER_SECTION) {
    const page = memmap.pfnToPage(Math.max(at, pfn) as Pfn);
    if (page === NULL_PAGE) continue;
    if (!isZoneDevicePage(memmap.words, page)) {
      warn(`WARNING: memremap_pages attempted on RAM at pfn 0x${at.toString(16)}`);
      return 'ENXIO';
    }
    warn('WARNING: Conflicting mapping in same section');
    return 'ENOMEM';
  }
  return 0;
}

/** The struct pages are there: give them and the pagemap their identity. */
function activate(deps: MemremapDeps, pgmap: DevPagemap, pages: number, nid: number): void {
  deps.pagemaps.add(pgmap);
  pgmap.ref = new PercpuRef(`dev_pagemap ${pgmap.id}`);
  const node = nid < 0 && deps.sites.numaNode ? NUMA_MEM_ID : nid;
  initZoneDevicePages(
    deps.memmap.words,
    pgmap.pages,
    pages,
    zoneBit(pgmap.type) | (node << NODE_SHIFT) | ZONE_DEVICE,
    pgmap.id,
  );
}

function deactivate(deps: MemremapDeps, pgmap: DevPagemap): void {
  deps.pagemaps.remove(pgmap);
  pgmap.ref = null;
  pgmap.pages = NULL_PAGE;
}

/** Nobody gets a page any more; wait for those who have one. */
function* drain({ ref }: DevPagemap): Sleeps<void> {
  assert(ref !== null, 'a pagemap that is not mapped cannot be unmapped');
  ref.kill();
  yield* ref.waitReleased();
}

const zoneBit = (type: MemoryType): number =>
  type === 'MEMORY_DEVICE_PRIVATE' ? ZONE_BIT_DEVICE_PRIVATE : ZONE_BIT_DEVICE_COHERENT;

/**
 * What `zone_device_page_init()` clears for a new user, as the order of a large folio stands in the same byte of a tail. All else survives
 * from earlier users: with PG_swapbacked, memory that MADV_FREE gave up comes back as memory that is not given up; PG_hwpoison stays.
 */
const CLEARED_AT_INIT =
  PAGE_FLAGS.PG_locked |
  PAGE_FLAGS.PG_writeback |
  PAGE_FLAGS.PG_referenced |
  PAGE_FLAGS.PG_uptodate |
  PAGE_FLAGS.PG_dirty |
  PAGE_FLAGS.PG_lru |
  PAGE_FLAGS.PG_head;

/** `zone_device_page_init()`: free pages of a device become a folio, locked and with one reference. */
export function zoneDevicePageInit(
  { memmap, sites }: MemremapDeps,
  pgmap: DevPagemap,
  page: Page,
  order: number,
): void {
  const { words } = memmap;
  const pages = 1 << order;
  pgmap.ref!.get(pages);
  for (let each = page as number; each < page + pages; each++) words[(each << SHIFT) + FLAGS] &= ~CLEARED_AT_INIT;
  words[(page << SHIFT) + REFCOUNT] = 1;
  if (order > 0) prepCompoundPage(words, page, order);
  if (order > 0 && !sites.alignedMemmap) maskCompoundHeads(words, page, order);
  folioTrylock(words, page);
}

/** Free pages of a device are as if nobody had ever used them. */
export function forgetEarlierUsers({ memmap: { words } }: MemremapDeps, first: Page, pages: number): void {
  for (let each = first as number; each < first + pages; each++) words[(each << SHIFT) + FLAGS] = 0;
}

/**
 * `__init_zone_device_page()` of a whole range of zeroed struct pages: the first is written, the others are copies. They are
 * free, hence have no references.
 */
function initZoneDevicePages(words: Int32Array, first: Page, pages: number, zone: number, pgmapId: number): void {
  const start = first << SHIFT;
  const end = (first + pages) << SHIFT;
  words[start + ZONE] = zone;
  words[start + PGMAP] = pgmapId;
  words[start + MAPCOUNT] = -1;
  words[start + ENTIRE_MAPCOUNT] = -1;
  for (let done = start + (1 << SHIFT); done < end; ) {
    const length = Math.min(done - start, end - done);
    words.copyWithin(done, start, start + length);
    done += length;
  }
}
