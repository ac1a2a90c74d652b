/** What a driver and core mm pass to each other in a migration of virtual addresses. Linux: include/linux/migrate.h. */
import type { Page, VirtAddr } from '../../base/brand.js';
import type { VmArea } from '../vma.js';

/** Which pages to collect (`MIGRATE_VMA_SELECT_*`). */
export const MIGRATE_VMA_SELECT_SYSTEM = 1 << 0;
export const MIGRATE_VMA_SELECT_DEVICE_PRIVATE = 1 << 1;
export const MIGRATE_VMA_SELECT_DEVICE_COHERENT = 1 << 2;

/** 2 MiB may move as one folio; without it huge pages are split. */
export const MIGRATE_VMA_SELECT_COMPOUND = 1 << 3;

/** `struct migrate_vma`. */
export interface MigrateVma {
  readonly vma: VmArea;
  readonly start: VirtAddr;
  readonly end: VirtAddr;
  /** MIGRATE_PFN_* words of the pages found, one for each page of the range. */
  readonly src: Float64Array;
  /** MIGRATE_PFN_* words of the pages that replace them. */
  readonly dst: Float64Array;
  /** Pages looked at. */
  npages: number;
  /** Of the page whose folio is being split or unmapped elsewhere, while notifiers are told of that. Linux has no need of it. */
  notifyingIndex: number;
  /** Pages (and holes) that may migrate. */
  cpages: number;
  readonly flags: number;
  /** Only device pages of this owner are collected; also the owner of the notification. */
  readonly pgmapOwner: object | null;
  /** The page of the CPU fault that asks for the migration: locked and held by the fault. NULL_PAGE otherwise. */
  readonly faultPage: Page;
}
