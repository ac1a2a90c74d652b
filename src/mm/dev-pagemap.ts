/** `struct dev_pagemap` and its ops. Linux: include/linux/memremap.h (nr_pages and pages as the series adds them). */
import type { MemoryId } from '../abi/device-pte.js';
import type { VmFault } from '../abi/errno.js';
import type { Page, PhysAddr, Pte, VirtAddr } from '../base/brand.js';
import type { PercpuRef } from '../sync/percpu-ref.js';
import type { Sleeps } from '../sync/task.js';
import type { MmStruct } from './mm-struct.js';
import type { VmArea } from './vma.js';

export type MemoryType = 'MEMORY_DEVICE_PRIVATE' | 'MEMORY_DEVICE_COHERENT';

/** A CPU fault on a device private page (`struct vm_fault`). The page is locked and held by the caller. */
export interface VmFaultContext {
  readonly mm: MmStruct;
  readonly vma: VmArea;
  /** Page-aligned. */
  readonly address: VirtAddr;
  readonly page: Page;
  /** The entry as it was found. */
  readonly origPte: Pte;
  readonly write: boolean;
  /** A huge entry stands for the whole folio (Linux: `vmf->pte` is NULL); otherwise `page` alone is wanted. */
  readonly huge: boolean;
}

export interface DevPagemapOps {
  /** The last reference of a folio of `pages` pages is gone: take them back, as single pages. Atomic context. */
  folioFree?(page: Page, pages: number): void;
  /** The CPU touched the page: bring it to system memory. Called with mmap_lock held for reading. */
  migrateToRam?(fault: VmFaultContext): Sleeps<VmFault>;
  /** A large folio is split: `tail` becomes a folio of its own; NULL_PAGE says that the head is done. Atomic context. */
  folioSplit?(head: Page, tail: Page): void;
}

export interface ByteRange {
  readonly start: PhysAddr | number;
  /** Included. */
  readonly end: PhysAddr | number;
}

/** What answers at the physical addresses of a coherent pagemap. */
export interface CoherentMemory {
  /** The number by which devices know the memory. */
  readonly id: MemoryId;
  /** Its bytes: the first page of the range is the first page here. */
  readonly bytes: SharedArrayBuffer;
}

export interface DevPagemap {
  readonly type: MemoryType;
  /** Identity of the owner: compared with `===` only. */
  readonly owner: object | null;
  readonly ops: DevPagemapOps | null;
  /** Input of `memremapDevicePrivatePagemap`. */
  readonly nrPages: number;
  /** Input of `memremapPages`: the physical range. Output of `memremapDevicePrivatePagemap`: the range of offsets, in bytes. */
  range: ByteRange | null;
  /** MEMORY_DEVICE_COHERENT only: in Linux the address that `memremap_pages()` returns leads there. */
  readonly memory?: CoherentMemory;
  /** First struct page. */
  pages: Page;
  /** Number in struct pages; 0 while not mapped. */
  id: number;
  /** One reference for the pagemap's own life and one a page in use. */
  ref: PercpuRef | null;
}
