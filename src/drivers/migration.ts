/**
 * Moving pages between RAM and one device's memory: what a driver does between the phases of `migrate_vma` (allocate, copy,
 * map). Linux: lib/test_hmm.c dmirror_migrate_alloc_and_copy(), dmirror_devmem_fault().
 */
import { PAGE_SIZE, PMD_SIZE } from '../abi/address.js';
import { DEVICE_PTE_WRITE, devicePteMemory, MEMORY_RAM } from '../abi/device-pte.js';
import { VM_FAULT_OOM, VM_FAULT_SIGBUS, type VmFault } from '../abi/errno.js';
import { MIGRATE_PFN_COMPOUND, MIGRATE_PFN_MIGRATE, MIGRATE_PFN_WRITE, mpfnPages, mpfnSet } from '../abi/mpfn.js';
import { pteNone, ptePfn, ptePresent, pteWrite } from '../abi/pte.js';
import { softleafFromPte } from '../abi/softleaf.js';
import { type Mpfn, NULL_PAGE, type Page, type Pte, type VirtAddr } from '../base/brand.js';
import { assert } from '../base/errors.js';
import { reclaimUntilFree } from '../mm/alloc.js';
import type { VmFaultContext } from '../mm/dev-pagemap.js';
import { pageFrame, pageMemory } from '../mm/highmem.js';
import { findHugePmd, hugeAlignDown, isHugeAligned } from '../mm/huge-pmd.js';
import type { Kernel } from '../mm/kernel.js';
import {
  MIGRATE_VMA_SELECT_COMPOUND,
  MIGRATE_VMA_SELECT_DEVICE_COHERENT,
  MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
  MIGRATE_VMA_SELECT_SYSTEM,
  type MigrateVma,
} from '../mm/migrate-device/args.js';
import { migrateVmaFinalize, migrateVmaPages, migrateVmaSetup } from '../mm/migrate-device/vma.js';
import { isZoneDevicePage } from '../mm/page.js';
import { entryMayWrite, hugeEntryMaps, pageVmaMapped } from '../mm/page-vma-mapped.js';
import { leafTable, NO_TABLE, pteIndex } from '../mm/pgtable.js';
import { putPage } from '../mm/put-page.js';
import { isDevicePrivate, isMigration, leafKind } from '../mm/softleaf.js';
import { userfaultfdWp, type VmArea } from '../mm/vma.js';
import { folioHead, folioUnlock } from '../sync/page-ref.js';
import type { Sleeps } from '../sync/task.js';
import { readPte } from '../sync/word.js';
import { CopyBatch } from './copy-batch.js';
import type { DeviceMemory } from './device-memory.js';
import type { Dmirror } from './dmirror.js';
import { allocDeviceFolio, evictForPage } from './eviction.js';
import { mapArrived, mayBeWritten } from './fault-range.js';
import { BLOCK_PAGES } from './frame-allocator.js';
import {
  allocSystemPages,
  copyPages,
  countMigrated,
  hasPageToMove,
  type MigrationContext,
  type Moved,
  movedPages,
  pagesToMove,
} from './migration-targets.js';

/** Pages that one round of `migrate_vma` moves, at the most: bounds the time for which pages stay locked. */
export const MIGRATE_BATCH_PAGES = 2048;

/** Whatever is in a device's memory that we reach. */
const SELECT_PEERS = MIGRATE_VMA_SELECT_DEVICE_PRIVATE | MIGRATE_VMA_SELECT_DEVICE_COHERENT;

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
    notifyingIndex: 0,
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
  /** What else was taken out of the mirror while they were collected: folios came apart, and pages were unmapped elsewhere. */
  readonly taken: readonly TakenRange[];
}

/** [start, end) of the address space, in bytes; `page` is the page of the round for which it happened. */
export interface TakenRange {
  readonly start: number;
  readonly end: number;
  readonly page: number;
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
  const { kernel, memory } = ctx;
  const { addressing } = kernel;
  const { owner } = ctx;
  const select = owner.shared ? MIGRATE_VMA_SELECT_SYSTEM | SELECT_PEERS : MIGRATE_VMA_SELECT_SYSTEM;
  const args = migrateArgs(vma, start, end, select | selectCompound(start), owner, NULL_PAGE);
  const taken: TakenRange[] = [];
  const setup = yield* mirror.hearing(
    (from, to) => taken.push({ start: from, end: to, page: args.notifyingIndex }),
    migrateVmaSetup(kernel, args),
  );
  assert(setup === 0, () => `migrate_vma_setup: ${setup}`);
  const collected = candidates(args);
  for (let i = 0, left = args.cpages; i < args.npages && left > 0; i++) {
    const mpfn = args.src[i] as Mpfn;
    if ((mpfn & MIGRATE_PFN_MIGRATE) === 0) continue;
    left--;
    const source = addressing.migratePfnToPage(mpfn);
    // With peers our own pages are collected too.
    if (owner.shared && !canCome(ctx, source)) continue;
    const fails = mirror.takeFailAlloc();
    if ((mpfn & MIGRATE_PFN_COMPOUND) !== 0) {
      const folio = fails ? NULL_PAGE : yield* allocDeviceFolio(ctx, mirror.context);
      if (folio !== NULL_PAGE) {
        args.dst[i] = mpfnSet(addressing.migratePfnFromPage(folio), MIGRATE_PFN_COMPOUND);
        copyToDevice(ctx, batch, source, folio, BLOCK_PAGES);
      } else if (!(yield* allocSingly(ctx, mirror.context, args, i, source, batch))) {
        return { args, collected, starved: true, taken };
      }
      i += BLOCK_PAGES - 1;
      continue;
    }
    if (fails) continue;
    let target = memory.allocPage(mirror.context);
    if (target === NULL_PAGE) target = yield* evictForPage(ctx, mirror.context);
    if (target === NULL_PAGE) return { args, collected, starved: true, taken };
    args.dst[i] = addressing.migratePfnFromPage(target);
    copyToDevice(ctx, batch, source, target, 1);
  }
  return { args, collected, starved: false, taken };
}

/** Is the page somewhere else, and in a memory that answers? A hole is. */
const canCome = ({ kernel, owner, memory }: MigrationContext, source: Page): boolean =>
  source === NULL_PAGE ||
  !isZoneDevicePage(kernel.memmap.words, source) ||
  (!memory.owns(source) && owner.placeOf(source) !== null);

/** Pages and holes that may move. */
function candidates({ src, npages, cpages }: MigrateVma): number {
  let pages = cpages;
  for (let i = 0; i < npages; i += mpfnPages(src[i])) pages += mpfnPages(src[i]) - 1;
  return pages;
}

/** 2 MiB move as one only in a round that begins on their border; a driver asks for no more than that. */
const selectCompound = (start: number): number => (isHugeAligned(start) ? MIGRATE_VMA_SELECT_COMPOUND : 0);

function copyToDevice(
  { kernel, memory, memoryId, owner }: MigrationContext,
  batch: CopyBatch,
  source: Page,
  target: Page,
  pages: number,
): void {
  const frame = memory.frameOf(target);
  if (source === NULL_PAGE) {
    batch.zero(memoryId, frame, target, pages);
    return;
  }
  const peer = owner.shared ? owner.placeOf(source) : null;
  const sourceFrame = peer === null ? kernel.memmap.ramFrame(source) : peer.frame;
  batch.copy(peer?.memory ?? MEMORY_RAM, sourceFrame, source, memoryId, frame, target, pages);
}

/** Single pages for the 2 MiB that were collected as one. False when device memory ran out: then they stay where they are. */
function* allocSingly(
  ctx: MigrationContext,
  mirror: number,
  { dst }: MigrateVma,
  at: number,
  source: Page,
  batch: CopyBatch,
): Sleeps<boolean> {
  const { addressing } = ctx.kernel;
  const targets: Page[] = [];
  while (targets.length < BLOCK_PAGES) {
    let target = ctx.memory.allocPage(mirror);
    if (target === NULL_PAGE) target = yield* evictForPage(ctx, mirror);
    if (target === NULL_PAGE) break;
    targets.push(target);
  }
  if (targets.length < BLOCK_PAGES) {
    for (const target of targets) {
      folioUnlock(ctx.kernel.memmap.words, target);
      putPage(ctx.kernel, target);
    }
    return false;
  }
  for (const [i, target] of targets.entries()) {
    dst[at + i] = addressing.migratePfnFromPage(target);
    copyToDevice(ctx, batch, (source === NULL_PAGE ? source : source + i) as Page, target, 1);
  }
  return true;
}

/**
 * The rest of it: pages, finalize, the device's page table. What has not moved stays where it is.
 *
 * Linux's test driver maps before it finalizes. But a range can be zapped (MADV_DONTNEED) while its pages are on the way: then
 * the page is nobody's when it arrives. Nobody runs between finalize and the last entry, so the page table may as well say
 * which pages there are; and if somebody has announced to take pages away, and is not done, we look again when he is.
 */
export function* endToDevice(ctx: MigrationContext, mirror: Dmirror, { args }: Round): Sleeps<Moved> {
  const { kernel } = ctx;
  yield* migrateVmaPages(kernel, args);
  const moved = countMigrated(args.src, args.dst, args.npages);
  migrateVmaFinalize(kernel, args);
  if (mirror.invalidating) {
    settleEntries(ctx, args);
    yield* mapArrived(ctx, mirror, args);
    return moved;
  }
  mapMoved(ctx, mirror, args);
  settleEntries(ctx, args);
  return moved;
}

/** Of the pages that have moved, those that are mapped at this moment come into the device's page table. */
function mapMoved({ kernel, memoryId, memory }: MigrationContext, mirror: Dmirror, args: MigrateVma): void {
  const { vma, start, npages, src, dst } = args;
  const runs = new RunMapper(mirror, start, memoryId);
  for (let i = 0; i < npages; i++) {
    const count = movedPages(src, dst, i);
    if (count === 0) continue;
    const page = kernel.addressing.migratePfnToPage(dst[i] as Mpfn);
    const frame = memory.frameOf(page);
    // MIGRATE_PFN_WRITE of holes and of the zero page is not set: the device's entry starts read-only there, as in Linux.
    const wasWritable = (src[i] & MIGRATE_PFN_WRITE) !== 0;
    const whole = count > 1 && hugeEntryMaps(kernel, vma.mm, (start + i * PAGE_SIZE) as VirtAddr, page);
    const step = whole ? count : 1;
    for (let j = 0; j < count; j += step) {
      const addr = (start + (i + j) * PAGE_SIZE) as VirtAddr;
      if (!whole && pageVmaMapped(kernel, vma, addr, (page + j) as Page, 'mapped') === NO_TABLE) continue;
      const write = wasWritable && mayStillWrite(kernel, vma, addr);
      if (write) mayBeWritten(kernel, (page + j) as Page);
      runs.add(i + j, frame + j, step, write);
    }
    i += count - 1;
  }
  runs.flush();
}

/** Maps neighbours that landed on neighbouring frames with the same rights as one run. */
class RunMapper {
  readonly #mirror: Dmirror;
  readonly #start: number;
  readonly #memory: number;
  #first = 0;
  #pages = 0;
  #frame = 0;
  #write = false;

  constructor(mirror: Dmirror, start: number, memory: number) {
    this.#mirror = mirror;
    this.#start = start;
    this.#memory = memory;
  }

  /** So many pages, the first of which is the `at`th from the start. */
  add(at: number, frame: number, pages: number, write: boolean): void {
    const goesOn = this.#first + this.#pages === at && this.#frame + this.#pages === frame && this.#write === write;
    if (!goesOn) {
      this.flush();
      this.#first = at;
      this.#frame = frame;
      this.#write = write;
    }
    this.#pages += pages;
  }

  flush(): void {
    const address = this.#start + this.#first * PAGE_SIZE;
    if (this.#pages > 0) this.#mirror.mapRun(address, this.#pages, this.#memory, this.#frame, this.#write);
    this.#pages = 0;
  }
}

/**
 * mmap_lock, which is held for reading, keeps everybody from taking rights away from what moves, but for one: a userfaultfd. Linux's
 * drivers believe in MIGRATE_PFN_WRITE as it was at first, and map a page for writing that was protected on its way.
 */
const mayStillWrite = (kernel: Kernel, vma: VmArea, addr: number): boolean =>
  !userfaultfdWp(vma) || entryMayWrite(kernel, vma.mm, addr as VirtAddr);

/** Forget the parked entries of what has moved home, by runs: `settleEntries` would find them too, but one by one. */
function dropMoved(ctx: MigrationContext, { vma, start, npages, src, dst }: MigrateVma): void {
  const mirrors = ctx.owner.mirrorsOf(vma.mm);
  for (let first = 0, i = 0; i <= npages; ) {
    const moved = i < npages ? movedPages(src, dst, i) : 0;
    if (moved > 0) {
      i += moved;
      continue;
    }
    for (const mirror of i > first ? mirrors : []) {
      // What is valid has come since: the page was zapped while it moved, and another one is mapped there now.
      mirror.dropParked(start + first * PAGE_SIZE, start + i * PAGE_SIZE);
    }
    first = ++i;
  }
}

/**
 * The entries that a migration parked in the mirrors of its device, and of the peers: valid again where the page has stayed, gone where it has moved.
 * Precondition: finalized, and nobody has run since.
 */
function settleEntries({ kernel, owner }: MigrationContext, { vma, start, end }: MigrateVma): void {
  const { words } = kernel.ram;
  const names = (page: Page, word: number, frame: number): boolean =>
    devicePteMemory(word) === pageMemory(kernel, page) && pageFrame(kernel, page) === frame;
  const still = (addr: number, word: number, frame: number): boolean | undefined => {
    const table = leafTable(kernel, vma.mm, addr as VirtAddr);
    const at = table === NO_TABLE ? findHugePmd(kernel, vma.mm, addr) : table + pteIndex(addr);
    const pte = at === NO_TABLE ? (0n as Pte) : readPte(words, at);
    if (pteNone(pte)) return false;
    const inHuge = table === NO_TABLE ? pteIndex(addr) : 0;
    const write = (word & DEVICE_PTE_WRITE) !== 0;
    if (ptePresent(pte)) {
      const page = (kernel.memmap.pfnToPage(ptePfn(pte)) + inHuge) as Page;
      return names(page, word, frame) && (!write || pteWrite(pte));
    }
    const entry = softleafFromPte(pte);
    const kind = leafKind(kernel, entry);
    if (isMigration(kernel, kind)) return undefined;
    const page = (kernel.addressing.softleafToPage(entry) + inHuge) as Page;
    if (kind === 'device-exclusive') return names(page, word, frame);
    const place = isDevicePrivate(kind) ? owner.placeOf(page) : null;
    if (place === null || place.memory !== devicePteMemory(word) || place.frame !== frame) return false;
    return !write || kind === 'device-private-write';
  };
  for (const mirror of owner.mirrorsOf(vma.mm)) mirror.settle(start, end, still);
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
  const mirrors = [...ctx.owner.mirrorsOf(vma.mm)];
  const flags = selectDevice(ctx.memory) | selectCompound(start);
  const args = migrateArgs(vma, start, end, flags, ctx.owner, faultPage);
  for (const mirror of mirrors) mirror.migrationsHome++;
  const setup = yield* migrateVmaSetup(ctx.kernel, args);
  for (const mirror of mirrors) mirror.migrationsHome--;
  assert(setup === 0, () => `migrate_vma_setup: ${setup}`);
  // The test driver gives up at the first page that it cannot allocate; for 2 MiB it then takes single pages. Holes are
  // collected too, but need none.
  const first = args.src.find(hasPageToMove);
  const fails = first !== undefined && (failing?.takeFailAlloc() ?? false);
  const compound = fails && (first & MIGRATE_PFN_COMPOUND) !== 0;
  if (!fails) yield* reclaimUntilFree(ctx.kernel, pagesToMove(args.src));
  const starved = (fails && !compound) || !allocSystemPages(ctx, args.src, args.dst, args.npages, batch, compound);
  // What is parked may be taken out at any time: nothing is to be done about it afterwards.
  return { args, collected: candidates(args), starved, taken: [] };
}

/** The rest of it. */
export function* endToSystem(ctx: MigrationContext, { args }: Round): Sleeps<Moved> {
  yield* migrateVmaPages(ctx.kernel, args);
  const moved = countMigrated(args.src, args.dst, args.npages);
  migrateVmaFinalize(ctx.kernel, args);
  dropMoved(ctx, args);
  settleEntries(ctx, args);
  return moved;
}

/** `migrate_to_ram`: bring a page home for the CPU fault that met it, or the huge page that a huge entry stands for. */
export function* migrateToRam(ctx: MigrationContext, fault: VmFaultContext): Sleeps<VmFault> {
  const { vma, address, page, huge } = fault;
  // A page that has just come for a device's fault stays until the lanes that wanted it have run (xe's minimum residency).
  if (ctx.kernel.sites.replaysFirst) yield* ctx.queue.waitReplays();
  if (ctx.queue.lost) return VM_FAULT_SIGBUS;
  const batch = new CopyBatch();
  const start = huge ? hugeAlignDown(address) : address;
  const end = start + (huge ? PMD_SIZE : PAGE_SIZE);
  // A large folio has one creator, which its first page knows.
  const creator = ctx.mirrorOfPage(folioHead(ctx.kernel.memmap.words, page));
  const round = yield* beginToSystem(ctx, creator, vma, start, end, page, batch);
  const copied = yield* copyPages(ctx, batch, [round.args.dst], page);
  const { pages } = yield* endToSystem(ctx, round);
  // The test driver asks only who made the page, and forgets what it has at this address: also where that is another process, which may
  // have something else there by now. One that was closed while the page was copied has no tables any more.
  const isElsewhere =
    creator !== undefined && creator.mm !== vma.mm && ctx.owner.mirrorsOf(creator.mm).includes(creator);
  if (pages > 0 && isElsewhere) yield* creator.forget(start, end);
  if (!copied) return VM_FAULT_SIGBUS;
  return round.starved ? VM_FAULT_OOM : 0;
}
