/**
 * Moving pages between RAM and one device's memory: what a driver does between the phases of `migrate_vma` (allocate, copy,
 * map), and eviction. Linux: lib/test_hmm.c dmirror_migrate_alloc_and_copy(), dmirror_devmem_fault(),
 * dmirror_device_evict_chunk().
 */
import { PAGE_SIZE } from '../abi/address.js';
import { DEVICE_PTE_WRITE, devicePteMemory, MEMORY_RAM, type MemoryId } from '../abi/device-pte.js';
import { VM_FAULT_OOM, VM_FAULT_SIGBUS, type VmFault } from '../abi/errno.js';
import { MIGRATE_PFN_MIGRATE, MIGRATE_PFN_VALID, MIGRATE_PFN_WRITE } from '../abi/mpfn.js';
import { pteNone, ptePfn, ptePresent, pteWrite } from '../abi/pte.js';
import { softleafFromPte } from '../abi/softleaf.js';
import { type Mpfn, NULL_PAGE, type Page, type Pte, type VirtAddr } from '../base/brand.js';
import { assert } from '../base/errors.js';
import type { VmFaultContext } from '../mm/dev-pagemap.js';
import { pageFrame, pageMemory } from '../mm/highmem.js';
import type { Kernel } from '../mm/kernel.js';
import {
  MIGRATE_VMA_SELECT_DEVICE_COHERENT,
  MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
  MIGRATE_VMA_SELECT_SYSTEM,
  type MigrateVma,
} from '../mm/migrate-device/args.js';
import { migrateDeviceRange } from '../mm/migrate-device/device.js';
import { migrateDeviceFinalize } from '../mm/migrate-device/finalize.js';
import { migrateDevicePages } from '../mm/migrate-device/pages.js';
import { migrateVmaFinalize, migrateVmaPages, migrateVmaSetup } from '../mm/migrate-device/vma.js';
import type { MmStruct } from '../mm/mm-struct.js';
import { pageIndex } from '../mm/page.js';
import { leafTable, NO_TABLE, pteIndex } from '../mm/pgtable.js';
import { putPage } from '../mm/put-page.js';
import { pageAnonVma, rmapAddress } from '../mm/rmap.js';
import { isDevicePrivate, isMigration, leafKind } from '../mm/softleaf.js';
import type { VmArea } from '../mm/vma.js';
import { folioTrylock, folioUnlock, pageRefAdd, pageRefCount } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import { readPte } from '../sync/word.js';
import { CopyBatch } from './copy-batch.js';
import { BLOCK_PAGES, type DeviceMemory } from './device-memory.js';
import type { CopyTicket, DeviceQueue } from './device-queue.js';
import type { Dmirror } from './dmirror.js';

/** Pages that one round of `migrate_vma` moves, at the most: bounds the time for which pages stay locked. */
export const MIGRATE_BATCH_PAGES = 2048;
/** Blocks that eviction tries before it gives up: each may be held by somebody else at the moment. */
const EVICT_ATTEMPTS = 8;

const MOVABLE_PAGE = MIGRATE_PFN_MIGRATE | MIGRATE_PFN_VALID;

export interface MigrationContext {
  readonly kernel: Kernel;
  readonly memory: DeviceMemory;
  readonly memoryId: MemoryId;
  readonly queue: DeviceQueue;
  readonly owner: object;
  /** The device's mirrors of an address space. */
  mirrorsOf(mm: MmStruct): readonly Dmirror[];
  /** The mirror for which a page of the device was handed out, unless it is closed. */
  mirrorOfPage(page: Page): Dmirror | undefined;
  /** Pages that eviction has moved. */
  countEvicted(pages: number): void;
}

/** `migrate_vma` arguments for [start, end), with arrays of their own. */
function migrateArgs(
  vma: VmArea,
  start: number,
  end: number,
  flags: number,
  owner: object,
  faultPage: Page,
): MigrateVma {
  const pages = (end - start) / PAGE_SIZE;
  return {
    vma,
    start: start as VirtAddr,
    end: end as VirtAddr,
    src: new Float64Array(pages),
    dst: new Float64Array(pages),
    npages: 0,
    cpages: 0,
    flags,
    pgmapOwner: owner,
    faultPage,
  };
}

/**
 * A round of `migrate_vma` between unmap and pages: targets are allocated, copies stand in a batch. Several rounds can be
 * begun before the first is ended, so that copies overlap with the work of the kernel.
 */
export interface Round {
  readonly args: MigrateVma;
  /** Pages and holes that could move. */
  readonly collected: number;
  /** Memory ran out: some of them have no target. */
  readonly starved: boolean;
}

/**
 * RAM → device for a part of one VMA, up to the copy.
 * Precondition: mmap_lock held for reading until the round has ended; at most MIGRATE_BATCH_PAGES pages.
 */
export function* beginToDevice(
  ctx: MigrationContext,
  mirror: Dmirror,
  vma: VmArea,
  start: number,
  end: number,
  batch: CopyBatch,
): Sleeps<Round> {
  const { kernel, memoryId, memory } = ctx;
  const { addressing, memmap } = kernel;
  const args = migrateArgs(vma, start, end, MIGRATE_VMA_SELECT_SYSTEM, ctx.owner, NULL_PAGE);
  const setup = yield* migrateVmaSetup(kernel, args);
  assert(setup === 0, () => `migrate_vma_setup: ${setup}`);
  const collected = args.cpages;
  for (let i = 0, left = collected; i < args.npages && left > 0; i++) {
    const mpfn = args.src[i] as Mpfn;
    if ((mpfn & MIGRATE_PFN_MIGRATE) === 0) continue;
    left--;
    if (mirror.takeFailAlloc()) continue;
    let target = memory.allocPage(mirror.context);
    if (target === NULL_PAGE) target = yield* evictForPage(ctx, mirror.context);
    if (target === NULL_PAGE) return { args, collected, starved: true };
    args.dst[i] = addressing.migratePfnFromPage(target);
    const source = addressing.migratePfnToPage(mpfn);
    const frame = memory.frameOf(target);
    if (source === NULL_PAGE) batch.zero(memoryId, frame, target);
    else batch.copy(MEMORY_RAM, memmap.ramFrame(source), source, memoryId, frame, target);
  }
  return { args, collected, starved: false };
}

/** The rest of it: pages, the device's page table, finalize. Returns the pages that moved; the others stay where they are. */
export function* endToDevice(ctx: MigrationContext, mirror: Dmirror, { args }: Round): Sleeps<number> {
  const { kernel, memoryId, memory } = ctx;
  yield* migrateVmaPages(kernel, args);
  let migrated = 0;
  // Neighbours that landed on neighbouring frames with the same rights are mapped as one run.
  let first = 0;
  let pages = 0;
  let firstFrame = 0;
  let write = false;
  const mapRun = (): void => {
    if (pages > 0) mirror.mapRun(args.start + first * PAGE_SIZE, pages, memoryId, firstFrame, write);
    migrated += pages;
    pages = 0;
  };
  for (let i = 0; i < args.npages; i++) {
    const mpfn = args.src[i] as Mpfn;
    if ((mpfn & MIGRATE_PFN_MIGRATE) === 0 || args.dst[i] === 0) continue;
    const frame = memory.frameOf(kernel.addressing.migratePfnToPage(args.dst[i] as Mpfn));
    // MIGRATE_PFN_WRITE of holes and of the zero page is not set: the device's entry starts read-only there, as in Linux.
    const writable = (mpfn & MIGRATE_PFN_WRITE) !== 0;
    if (pages === 0 || first + pages !== i || firstFrame + pages !== frame || write !== writable) {
      mapRun();
      first = i;
      firstFrame = frame;
      write = writable;
    }
    pages++;
  }
  mapRun();
  migrateVmaFinalize(kernel, args);
  settleEntries(ctx, args);
  return migrated;
}

/** Forget the parked entries of what has moved home, by runs: `settleEntries` would find them too, but one by one. */
function dropMoved(ctx: MigrationContext, { vma, start, npages, src, dst }: MigrateVma): void {
  const mirrors = ctx.mirrorsOf(vma.mm);
  for (let first = 0, i = 0; i <= npages; i++) {
    if (i < npages && (src[i] & MIGRATE_PFN_MIGRATE) !== 0 && dst[i] !== 0) continue;
    for (const mirror of i > first ? mirrors : []) {
      const valid = mirror.clear(start + first * PAGE_SIZE, start + i * PAGE_SIZE);
      assert(valid === 0, 'the device could use a page while it moved');
    }
    first = i + 1;
  }
}

/**
 * The device's entries that a migration of its own parked: valid again where the page has stayed, gone where it has moved.
 * Precondition: finalized, and nobody has run since.
 */
function settleEntries(
  { kernel, memory, memoryId, mirrorsOf }: MigrationContext,
  { vma, start, end }: MigrateVma,
): void {
  const { words } = kernel.ram;
  const names = (page: Page, word: number, frame: number): boolean =>
    devicePteMemory(word) === pageMemory(kernel, page) && pageFrame(kernel, page) === frame;
  const still = (addr: number, word: number, frame: number): boolean | undefined => {
    const table = leafTable(kernel, vma.mm, addr as VirtAddr);
    const pte = table === NO_TABLE ? (0n as Pte) : readPte(words, table + pteIndex(addr));
    if (pteNone(pte)) return false;
    const write = (word & DEVICE_PTE_WRITE) !== 0;
    if (ptePresent(pte)) {
      return names(kernel.memmap.pfnToPage(ptePfn(pte)), word, frame) && (!write || pteWrite(pte));
    }
    const entry = softleafFromPte(pte);
    const kind = leafKind(kernel, entry);
    if (isMigration(kind)) return undefined;
    const page = kernel.addressing.softleafToPage(entry);
    if (kind === 'device-exclusive') return names(page, word, frame);
    if (!isDevicePrivate(kind) || devicePteMemory(word) !== memoryId || !memory.owns(page)) return false;
    return memory.frameOf(page) === frame && (!write || kind === 'device-private-write');
  };
  for (const mirror of mirrorsOf(vma.mm)) mirror.settle(start, end, still);
}

/** `dmirror_select_device()`: the pages of our own memory, whichever kind they are. */
const selectDevice = ({ type }: DeviceMemory): number =>
  type === 'MEMORY_DEVICE_PRIVATE' ? MIGRATE_VMA_SELECT_DEVICE_PRIVATE : MIGRATE_VMA_SELECT_DEVICE_COHERENT;

/**
 * Device → RAM for a part of one VMA, bulk or (with `faultPage`) for a CPU fault, up to the copy. Same preconditions.
 * @param failing whose request for a failing allocation counts here
 */
export function* beginToSystem(
  ctx: MigrationContext,
  failing: Dmirror | undefined,
  vma: VmArea,
  start: number,
  end: number,
  faultPage: Page,
  batch: CopyBatch,
): Sleeps<Round> {
  const mirrors = [...ctx.mirrorsOf(vma.mm)];
  const args = migrateArgs(vma, start, end, selectDevice(ctx.memory), ctx.owner, faultPage);
  for (const mirror of mirrors) mirror.migrationsHome++;
  const setup = yield* migrateVmaSetup(ctx.kernel, args);
  for (const mirror of mirrors) mirror.migrationsHome--;
  assert(setup === 0, () => `migrate_vma_setup: ${setup}`);
  // The test driver gives up at the first page that it cannot allocate. Holes are collected too, but need none.
  const failed = failing?.failAlloc === true && args.src.some(hasPageToMove) && failing.takeFailAlloc();
  const starved = failed || !allocSystemPages(ctx, args.src, args.dst, args.npages, batch);
  return { args, collected: args.cpages, starved };
}

/** A page that may move, not a hole: it needs a page to move to. */
const hasPageToMove = (mpfn: number): boolean => (mpfn & MOVABLE_PAGE) === MOVABLE_PAGE;

/** The rest of it. Returns the pages that moved. */
export function* endToSystem(ctx: MigrationContext, { args }: Round): Sleeps<number> {
  yield* migrateVmaPages(ctx.kernel, args);
  const migrated = countMigrated(args.src, args.dst, args.npages);
  migrateVmaFinalize(ctx.kernel, args);
  dropMoved(ctx, args);
  settleEntries(ctx, args);
  return migrated;
}

/** `migrate_to_ram`: bring one page home for the CPU fault that met it. */
export function* migrateToRam(ctx: MigrationContext, fault: VmFaultContext): Sleeps<VmFault> {
  const { vma, address, page } = fault;
  // A page that has just come for a device's fault stays until the lanes that wanted it have run (xe's minimum residency).
  yield* ctx.queue.waitReplays();
  if (ctx.queue.lost) return VM_FAULT_SIGBUS;
  const batch = new CopyBatch();
  const round = yield* beginToSystem(ctx, ctx.mirrorOfPage(page), vma, address, address + PAGE_SIZE, page, batch);
  const copied = yield* copyPages(ctx, batch, [round.args.dst], page);
  yield* endToSystem(ctx, round);
  if (!copied) return VM_FAULT_SIGBUS;
  return round.starved ? VM_FAULT_OOM : 0;
}

/** A device page that others had to leave for. NULL_PAGE when nothing can be evicted either. */
function* evictForPage(ctx: MigrationContext, mirror: number): Sleeps<Page> {
  for (let attempt = 0; attempt < EVICT_ATTEMPTS; attempt++) {
    // Without RAM to go to, pages would be unmapped and mapped again for nothing.
    if (ctx.kernel.buddy.freePagesCount === 0) return NULL_PAGE;
    const block = ctx.memory.oldestBlock();
    if (block === null) return NULL_PAGE;
    const evicted = yield* evict(ctx, block.first, block.pages);
    const freed = ctx.memory.allocPage(mirror);
    if (freed !== NULL_PAGE) return freed;
    if (evicted === 0) ctx.memory.postpone(block.first);
  }
  return NULL_PAGE;
}

/** Bring the pages of a block home, whoever maps them. Returns how many moved: pages that others hold stay. */
export function* evict(ctx: MigrationContext, first: Page, pages: number): Sleeps<number> {
  const { kernel } = ctx;
  assert(pages <= BLOCK_PAGES, 'eviction of more than a block');
  yield* unmapFromDevice(ctx, first, pages);
  const src = new Float64Array(pages);
  const dst = new Float64Array(pages);
  yield* migrateDeviceRange(kernel, src, kernel.addressing.migratePfnFromPage(first), pages);
  const batch = new CopyBatch();
  allocSystemPages(ctx, src, dst, pages, batch);
  yield* copyPages(ctx, batch, [dst], NULL_PAGE);
  yield* migrateDevicePages(kernel, src, dst, pages, null);
  const migrated = countMigrated(src, dst, pages);
  migrateDeviceFinalize(kernel, src, dst, pages, NULL_PAGE);
  ctx.countEvicted(migrated);
  return migrated;
}

/**
 * Take a block's pages out of the device page tables in one go. Only to save time: the notifications of the eviction would do
 * it page by page, and still do for what comes back meanwhile.
 */
function* unmapFromDevice(ctx: MigrationContext, first: Page, pages: number): Sleeps<void> {
  const { kernel } = ctx;
  const touched = new Map<Dmirror, { start: number; end: number }>();
  for (let page = first; page < first + pages; page++) {
    const anonVma = pageAnonVma(kernel, page);
    if (anonVma === undefined) continue;
    const index = pageIndex(kernel.memmap.floats, page);
    for (
      let at = anonVma.tree.first(index, index + 1);
      at !== undefined;
      at = anonVma.tree.next(at, index, index + 1)
    ) {
      const addr = rmapAddress(at.value, index);
      for (const mirror of ctx.mirrorsOf(at.value.mm)) {
        if (mirror.clear(addr, addr + PAGE_SIZE) === 0) continue;
        const span = touched.get(mirror);
        touched.set(mirror, {
          start: Math.min(span?.start ?? addr, addr),
          end: Math.max(span?.end ?? 0, addr + PAGE_SIZE),
        });
      }
    }
  }
  for (const [mirror, { start, end }] of touched) yield* mirror.flush(start, end);
}

/** RAM pages for everything that may migrate, and the copies. False when RAM ran out on the way. */
function allocSystemPages(
  ctx: MigrationContext,
  src: Float64Array,
  dst: Float64Array,
  npages: number,
  batch: CopyBatch,
): boolean {
  const { kernel, memory, memoryId } = ctx;
  const { addressing, memmap, buddy } = kernel;
  let wanted = 0;
  for (let i = 0; i < npages; i++) if (hasPageToMove(src[i])) wanted++;
  const targets = new Float64Array(wanted);
  const allocated = buddy.allocBulk(wanted, targets);
  for (let i = 0, used = 0; i < npages && used < allocated; i++) {
    const mpfn = src[i] as Mpfn;
    if (!hasPageToMove(mpfn)) continue;
    const source = addressing.migratePfnToPage(mpfn);
    const target = targets[used++] as Page;
    assert(folioTrylock(memmap.words, target), 'fresh page is locked');
    dst[i] = addressing.migratePfnFromPage(target);
    batch.copy(memoryId, memory.frameOf(source), source, MEMORY_RAM, memmap.ramFrame(target), target);
  }
  return allocated === wanted;
}

/** Copy, and wait for it. False: it failed; what was allocated has gone back, and the pages stay where they are. */
export function* copyPages(
  ctx: MigrationContext,
  batch: CopyBatch,
  dsts: readonly Float64Array[],
  faultPage: Page,
): Sleeps<boolean> {
  return yield* awaitCopies(ctx, yield* ctx.queue.send(batch), dsts, faultPage);
}

/** The second half of `copyPages`, for a batch that was sent before. */
export function* awaitCopies(
  ctx: MigrationContext,
  ticket: CopyTicket,
  dsts: readonly Float64Array[],
  faultPage: Page,
): Sleeps<boolean> {
  const { kernel, queue } = ctx;
  if (yield* queue.copied(ticket)) return true;
  if (queue.lost) reclaimReferences(kernel, ticket.batch, faultPage);
  for (const dst of dsts) dropTargets(kernel, dst);
  return false;
}

/**
 * A copy engine that dies does not drop the references that it took. The pages of a migration are locked and unmapped, so who
 * else may hold them is known: the migration, and the CPU fault that asked for it.
 */
function reclaimReferences(kernel: Kernel, batch: CopyBatch, faultPage: Page): void {
  const { words } = kernel.memmap;
  const resetTo = (page: Page, count: number): number => pageRefAdd(words, page, count - pageRefCount(words, page));
  for (const { sourcePage, targetPage, pages } of batch.runs) {
    for (let i = 0; i < pages; i++) {
      const source = (sourcePage + i) as Page;
      if (sourcePage !== NULL_PAGE) resetTo(source, source === faultPage ? 2 : 1);
      resetTo((targetPage + i) as Page, 1);
    }
  }
}

function dropTargets(kernel: Kernel, dst: Float64Array): void {
  for (let i = 0; i < dst.length; i++) {
    const page = kernel.addressing.migratePfnToPage(dst[i] as Mpfn);
    dst[i] = 0;
    if (page === NULL_PAGE) continue;
    folioUnlock(kernel.memmap.words, page);
    putPage(kernel, page);
  }
}

function countMigrated(src: Float64Array, dst: Float64Array, npages: number): number {
  let migrated = 0;
  for (let i = 0; i < npages; i++) if ((src[i] & MIGRATE_PFN_MIGRATE) !== 0 && dst[i] !== 0) migrated++;
  return migrated;
}
