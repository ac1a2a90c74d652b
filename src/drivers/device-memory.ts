/**
 * A device's memory as its driver manages it: chunks of struct pages that are added as memory is needed, free frames, and an
 * order of eviction by blocks of 2 MiB, least recently filled first.
 *
 * Counterpart: the chunks of lib/test_hmm.c and nouveau_dmem.c; blocks and their order as in NVIDIA's UVM.
 */
import { HPAGE_PMD_ORDER, PAGE_SIZE } from '../abi/address.js';
import type { Result } from '../abi/errno.js';
import { NULL_PAGE, type Page, type PhysAddr } from '../base/brand.js';
import { assert } from '../base/errors.js';
import { injects } from '../base/injection.js';
import type { CoherentMemory, DevPagemap, DevPagemapOps, MemoryType } from '../mm/dev-pagemap.js';
import type { Kernel } from '../mm/kernel.js';
import {
  forgetEarlierUsers,
  memremapDevicePrivatePagemap,
  memremapPages,
  memunmapDevicePrivatePagemap,
  memunmapPages,
  zoneDevicePageInit,
} from '../mm/memremap.js';
import { pagePgmapId } from '../mm/page.js';
import type { Resource } from '../mm/resource.js';
import type { Sleeps } from '../sync/task.js';
import { BLOCK_PAGES, FrameAllocator } from './frame-allocator.js';

/** The allocator has none. */
const NO_FRAME = -1;

interface Chunk {
  readonly pgmap: DevPagemap;
  /** The physical region: under legacy addressing, and of a coherent device. */
  readonly resource: Resource | null;
  /** First frame of the chunk in the device's memory. */
  readonly firstFrame: number;
  readonly pages: number;
}

/** The memory of a coherent device: where in the physical map it stands, and what answers there. */
export interface CoherentWindow extends CoherentMemory {
  readonly address: PhysAddr;
}

export interface DeviceMemoryOptions {
  readonly kernel: Kernel;
  /** Name of the physical region in /proc/iomem. */
  readonly name: string;
  readonly owner: object;
  readonly ops: Omit<DevPagemapOps, 'folioFree'>;
  /** Bytes in all, and bytes by which the pagemaps grow. */
  readonly bytes: number;
  readonly chunkBytes: number;
  readonly numaNode: number;
  /** `null`: the memory is private. Otherwise it is one chunk, as the window shows it. */
  readonly coherent: CoherentWindow | null;
}

export class DeviceMemory {
  readonly #options: DeviceMemoryOptions;
  readonly #chunks: Chunk[] = [];
  /** Chunk of a pagemap's id. */
  readonly #byPgmap: Chunk[] = [];
  readonly #frames: FrameAllocator;
  /** By frame: number of the mirror that the page was handed out for (`zone_device_data`). */
  readonly #mirrors: Uint16Array;
  /** By block: pages in use, and when a page of it was last handed out, 0 for never. */
  readonly #blockUsed: Int32Array;
  readonly #blockStamp: Float64Array;
  #clock = 0;
  #used = 0;
  #framesInChunks = 0;
  /** No more pages are handed out. */
  #closed = false;
  /** The same, while the chunks go. */
  #releasing = false;

  constructor(options: DeviceMemoryOptions) {
    this.#options = options;
    this.#frames = new FrameAllocator(this.totalPages);
    this.#mirrors = new Uint16Array(this.totalPages);
    const blocks = Math.ceil(this.totalPages / BLOCK_PAGES);
    this.#blockUsed = new Int32Array(blocks);
    this.#blockStamp = new Float64Array(blocks);
  }

  get type(): MemoryType {
    return this.#options.coherent === null ? 'MEMORY_DEVICE_PRIVATE' : 'MEMORY_DEVICE_COHERENT';
  }

  get totalPages(): number {
    return this.#options.bytes / PAGE_SIZE;
  }

  get usedPages(): number {
    return this.#used;
  }

  /** Frame of a page of this device in its memory. */
  frameOf(page: Page): number {
    const chunk = this.#byPgmap[pagePgmapId(this.#options.kernel.memmap.words, page)];
    return chunk.firstFrame + (page - chunk.pgmap.pages);
  }

  /** Number of the mirror for which a page was handed out. */
  mirrorOf(page: Page): number {
    return this.#mirrors[this.frameOf(page)];
  }

  /** Does a struct page belong to this device? */
  owns(page: Page): boolean {
    const chunk = this.#byPgmap[pagePgmapId(this.#options.kernel.memmap.words, page)];
    return chunk !== undefined && page >= chunk.pgmap.pages && page < chunk.pgmap.pages + chunk.pages;
  }

  /**
   * A free page, locked and with one reference (`zone_device_page_init`), growing by a chunk if need be; NULL_PAGE when the
   * device's memory (or the address space for it) is used up.
   * @param mirror number of the mirror that it is for
   */
  allocPage(mirror: number): Page {
    if (injects(this.#options.kernel, 'device-page')) return NULL_PAGE;
    let frame = this.#shut ? NO_FRAME : this.#frames.take();
    if (frame === NO_FRAME && !this.#shut && this.grow() === 0) frame = this.#frames.take();
    return frame === NO_FRAME ? NULL_PAGE : this.#handOut(frame, 1, mirror);
  }

  /** The same of 2 MiB: the first page of a large folio. */
  allocFolio(mirror: number): Page {
    if (injects(this.#options.kernel, 'device-block')) return NULL_PAGE;
    let frame = this.#shut ? NO_FRAME : this.#frames.takeBlock();
    if (frame === NO_FRAME && !this.#shut && this.grow() === 0) frame = this.#frames.takeBlock();
    return frame === NO_FRAME ? NULL_PAGE : this.#handOut(frame, BLOCK_PAGES, mirror);
  }

  /** A page of a large folio becomes a folio of its own, for the same mirror. */
  folioSplit(head: Page, tail: Page): void {
    if (tail !== NULL_PAGE) this.#mirrors[this.frameOf(tail)] = this.mirrorOf(head);
  }

  #handOut(frame: number, pages: number, mirror: number): Page {
    const { kernel } = this.#options;
    const chunk = this.#chunkOf(frame);
    const page = (chunk.pgmap.pages + (frame - chunk.firstFrame)) as Page;
    zoneDevicePageInit(kernel, chunk.pgmap, page, pages > 1 ? HPAGE_PMD_ORDER : 0);
    this.#mirrors[frame] = mirror;
    const block = Math.floor(frame / BLOCK_PAGES);
    this.#blockUsed[block] += pages;
    this.#blockStamp[block] = ++this.#clock;
    this.#used += kernel.sites.countPagesOfFolio ? pages : 1;
    return page;
  }

  /** All chunks are as long as the first, but for the last, which may be shorter. */
  #chunkOf(frame: number): Chunk {
    return this.#chunks[Math.floor(frame / this.#chunks[0].pages)];
  }

  /** Add a chunk: 0, ENOMEM (no struct pages, or all of the device's memory is in chunks), ERANGE (no address space). */
  grow(): Result {
    const { kernel, name, chunkBytes, bytes, numaNode, coherent } = this.#options;
    const size = Math.min(chunkBytes, bytes - this.#framesInChunks * PAGE_SIZE);
    if (size <= 0) return 'ENOMEM';
    let resource: Resource | null = null;
    if (coherent !== null || !kernel.seriesApplied) {
      const found =
        coherent === null
          ? kernel.iomem.requestFreeMemRegion(size, name)
          : kernel.iomem.requestMemRegion({ start: coherent.address, end: coherent.address + size - 1, name });
      if (typeof found === 'string') return found;
      resource = found;
    }
    const pgmap = this.#pagemap(size, resource);
    const result =
      resource === null
        ? memremapDevicePrivatePagemap(kernel, pgmap, numaNode)
        : memremapPages(kernel, pgmap, numaNode);
    if (result !== 0) {
      if (resource !== null) kernel.iomem.releaseMemRegion(resource);
      return result;
    }
    const chunk: Chunk = { pgmap, resource, firstFrame: this.#framesInChunks, pages: size / PAGE_SIZE };
    this.#chunks.push(chunk);
    this.#byPgmap[pgmap.id] = chunk;
    this.#framesInChunks += chunk.pages;
    this.#frames.add(chunk.firstFrame, chunk.pages);
    return 0;
  }

  /**
   * As after the first `grow`, so that frames are handed out in the same order again, as new. Precondition: no page is in use, and there is
   * one chunk at the most.
   * @param frames hand out so many, at the most
   */
  reset(frames: number): void {
    if (this.#chunks.length === 0) this.grow();
    const [chunk] = this.#chunks;
    assert(
      this.#used === 0 && this.#chunks.length === 1 && chunk !== undefined,
      () => `memory of ${this.#options.name} is reset while it is in use`,
    );
    const pages = Math.min(frames, chunk.pages);
    this.#frames.clear();
    this.#frames.add(chunk.firstFrame, pages);
    for (const [block, stamp] of this.#blockStamp.entries()) {
      if (stamp === 0) continue;
      const used = this.#block(block);
      forgetEarlierUsers(this.#options.kernel, used.first, used.pages);
    }
    this.#blockStamp.fill(0);
    this.#clock = 0;
  }

  /** First page and number of pages of the block to evict next; `null` when no page is in use. */
  oldestBlock(): { readonly first: Page; readonly pages: number } | null {
    let oldest = -1;
    for (let block = 0; block < this.#blockUsed.length; block++) {
      if (this.#blockUsed[block] > 0 && (oldest < 0 || this.#blockStamp[block] < this.#blockStamp[oldest]))
        oldest = block;
    }
    return oldest < 0 ? null : this.#block(oldest);
  }

  /** Try this block last: somebody holds its pages. It may be gone meanwhile, with its chunk. */
  postpone(first: Page): void {
    if (this.owns(first)) this.#blockStamp[Math.floor(this.frameOf(first) / BLOCK_PAGES)] = ++this.#clock;
  }

  /** Every block with pages in use. */
  *usedBlocks(): Generator<{ readonly first: Page; readonly pages: number }, void, void> {
    for (let block = 0; block < this.#blockUsed.length; block++) {
      if (this.#blockUsed[block] > 0 || !this.#options.kernel.sites.evictNothing) yield this.#block(block);
    }
  }

  get #shut(): boolean {
    return this.#closed || this.#releasing;
  }

  /** Hand out no more pages. */
  close(): void {
    this.#closed = true;
  }

  reopen(): void {
    this.#closed = false;
  }

  /** Give back all pagemaps; the next page that is wanted begins anew. Waits for the last page of each. */
  *releaseChunks(): Sleeps<void> {
    const { kernel } = this.#options;
    // Nobody may take a page of what is going away.
    this.#releasing = true;
    for (const { pgmap, resource } of this.#chunks) {
      if (resource === null && kernel.sites.unmapByKind) {
        const region = kernel.sites.releaseOwnRegion ? null : regionOf(pgmap, this.#options.name);
        yield* memunmapDevicePrivatePagemap(kernel, pgmap);
        if (region !== null) kernel.iomem.releaseMemRegion(region);
      } else {
        yield* memunmapPages(kernel, pgmap);
        if (resource !== null) kernel.iomem.releaseMemRegion(resource);
      }
    }
    this.#chunks.length = 0;
    this.#byPgmap.length = 0;
    this.#frames.clear();
    this.#framesInChunks = 0;
    this.#releasing = false;
  }

  #block(block: number): { readonly first: Page; readonly pages: number } {
    const frame = block * BLOCK_PAGES;
    const chunk = this.#chunkOf(frame);
    const first = (chunk.pgmap.pages + (frame - chunk.firstFrame)) as Page;
    return { first, pages: Math.min(BLOCK_PAGES, chunk.firstFrame + chunk.pages - frame) };
  }

  #pagemap(size: number, resource: Resource | null): DevPagemap {
    const { owner, ops, coherent } = this.#options;
    const range = resource === null ? null : { start: resource.start, end: resource.start + size - 1 };
    return {
      type: this.type,
      ...(coherent === null ? {} : { memory: coherent }),
      owner,
      ops: { ...ops, folioFree: (page, pages) => this.#folioFree(page, pages) },
      nrPages: size / PAGE_SIZE,
      range,
      pages: NULL_PAGE,
      id: 0,
      ref: null,
    };
  }

  #folioFree(page: Page, pages: number): void {
    const frame = this.frameOf(page);
    this.#blockUsed[Math.floor(frame / BLOCK_PAGES)] -= pages;
    this.#used -= pages;
    this.#frames.give(frame, pages);
  }
}

/** A region that a driver from before the series would think that it has reserved. */
function regionOf({ range }: DevPagemap, name: string): Resource {
  const { start, end } = range!;
  return { start: start as PhysAddr, end: end as PhysAddr, name, busy: true };
}
