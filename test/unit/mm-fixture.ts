/**
 * A small kernel for tests of mm: RAM of 128 MiB, both addressings, tasks that are stepped by hand, and a driver without a
 * device, whose memory is a map. Every test that uses `withKernel` also checks that nothing is left behind.
 */
import { describe, expect } from 'vitest';
import { PAGE_SIZE } from '#src/abi/address';
import { VM_FAULT_OOM } from '#src/abi/errno';
import { MIGRATE_PFN_MIGRATE } from '#src/abi/mpfn';
import { pteNone, ptePresent } from '#src/abi/pte';
import { type SoftLeafKind, softleafFromPte } from '#src/abi/softleaf';
import { STRUCT_PAGE } from '#src/abi/struct-page';
import { type Mpfn, NULL_PAGE, type Page, type Pte, type VirtAddr } from '#src/base/brand';
import { reclaimUntilFree } from '#src/mm/alloc';
import type { DevPagemap } from '#src/mm/dev-pagemap';
import { createKernel, type Kernel } from '#src/mm/kernel';
import {
  memremapDevicePrivatePagemap,
  memremapPages,
  memunmapDevicePrivatePagemap,
  memunmapPages,
  zoneDevicePageInit,
} from '#src/mm/memremap';
import {
  MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
  MIGRATE_VMA_SELECT_SYSTEM,
  type MigrateVma,
} from '#src/mm/migrate-device/args';
import { migrateDevicePfns } from '#src/mm/migrate-device/device';
import { migrateDeviceFinalize } from '#src/mm/migrate-device/finalize';
import { migrateDevicePages } from '#src/mm/migrate-device/pages';
import { migrateVmaFinalize, migrateVmaPages, migrateVmaSetup } from '#src/mm/migrate-device/vma';
import { createMm, exitMm, type MmStruct } from '#src/mm/mm-struct';
import { doMmap, type Protection } from '#src/mm/mmap';
import { leafTable, NO_TABLE, pteIndex } from '#src/mm/pgtable';
import { putPage } from '#src/mm/put-page';
import type { Resource } from '#src/mm/resource';
import { leafKind } from '#src/mm/softleaf';
import { copyFromUser, copyToUser, type UserAccess } from '#src/mm/uaccess';
import { vmaLookup } from '#src/mm/vma';
import { folioLocked, folioTrylock, folioUnlock, pageRefCount } from '#src/sync/page-ref';
import { SCHEDULE_POINT, type Sleeps } from '#src/sync/task';
import { readPte, setPte } from '#src/sync/word';

export const PAGE = PAGE_SIZE;
export type AddressingName = 'legacy' | 'offset';
export const ADDRESSINGS: readonly AddressingName[] = ['legacy', 'offset'];

/** The same tests under each addressing. */
export const describeEach = (name: string, body: (addressing: AddressingName) => void): void => {
  describe.each(ADDRESSINGS)(`${name} (%s)`, (addressing) => body(addressing));
};

/** Run tasks in turn until all have ended. @throws when nobody can go on, or when they do not come to an end */
export const runAll = (...tasks: Sleeps<unknown>[]): unknown[] => runChosen((ready) => ready, ...tasks);

/** The same with a choice: `pick` says which of the tasks that are ready have a turn next, and in which order. */
export function runChosen(pick: (ready: number[]) => number[], ...tasks: Sleeps<unknown>[]): unknown[] {
  const results: unknown[] = tasks.map(() => undefined);
  const waiting = new Map(tasks.map((task, i) => [i, { task, wait: SCHEDULE_POINT }]));
  for (let turn = 0; waiting.size > 0; turn++) {
    if (turn > 100_000) throw new Error('the tasks do not come to an end');
    let progress = false;
    for (const i of pick([...waiting.keys()].filter((each) => waiting.get(each)!.wait.ready()))) {
      const entry = waiting.get(i)!;
      if (!entry.wait.ready()) continue;
      progress = true;
      const step = entry.task.next();
      if (step.done) {
        results[i] = step.value;
        waiting.delete(i);
      } else entry.wait = step.value;
    }
    if (!progress) throw new Error(`deadlock: ${[...waiting.values()].map(({ wait }) => wait.what).join('; ')}`);
  }
  return results;
}

/** Run one task to its end. */
export const run = <T>(task: Sleeps<T>): T => runAll(task)[0] as T;

/** Step a task until it waits for something that is not there. Returns what, or `undefined` when it has ended. */
export function runUntilBlocked(task: Sleeps<unknown>): string | undefined {
  for (let turn = 0; turn < 10_000; turn++) {
    const step = task.next();
    if (step.done) return undefined;
    if (!step.value.ready()) return step.value.what;
  }
  throw new Error('the task does not come to an end');
}

/** Whether the kernel gives way at a preemption point, always or as `choose` says. */
export interface Preemption {
  on: boolean;
  choose?: () => boolean;
}

export function smallKernel(
  addressing: AddressingName,
  options: { ramMiB?: number; preemption?: Preemption; log?: string[] } = {},
): Kernel {
  const { ramMiB = 8, preemption, log = [] } = options;
  return createKernel({
    layout: {
      physBits: 36,
      maxPhysmemBits: 46,
      entries: [{ start: 0, end: ramMiB * 2 ** 20 - 1, name: 'System RAM', kind: 'ram' }],
    },
    addressing,
    checked: true,
    warn: (text) => void log.push(text),
    devicePages: 4 * 32768,
    hugePages: 'never',
    preempt: () => (preemption?.on ?? false) && (preemption?.choose?.() ?? true),
  });
}

/** One kernel, its processes, and what was free before. */
export class Bench {
  readonly kernel: Kernel;
  readonly log: string[] = [];
  readonly preemption: Preemption = { on: false };
  readonly #freeAtStart: number;
  readonly #drivers: FakeDriver[] = [];
  #pid = 0;

  constructor(addressing: AddressingName, ramMiB?: number) {
    this.kernel = smallKernel(addressing, {
      log: this.log,
      preemption: this.preemption,
      ...(ramMiB === undefined ? {} : { ramMiB }),
    });
    this.#freeAtStart = this.kernel.buddy.freePagesCount;
  }

  mm(): MmStruct {
    return createMm(this.kernel, ++this.#pid)!;
  }

  mmap(mm: MmStruct, pages: number, prot: Protection = 'rw', addr?: number): VirtAddr {
    const request = { length: pages * PAGE, prot, fixed: addr !== undefined };
    const start = run(doMmap(this.kernel, mm, addr === undefined ? request : { ...request, addr: addr as VirtAddr }));
    if (typeof start === 'string') throw new Error(`mmap: ${start}`);
    return start;
  }

  driver(pages = 512): FakeDriver {
    const driver = new FakeDriver(this.kernel, pages);
    this.#drivers.push(driver);
    return driver;
  }

  store(mm: MmStruct, addr: number, ...bytes: number[]): UserAccess {
    return run(copyToUser(this.kernel, mm, addr as VirtAddr, Uint8Array.from(bytes)));
  }

  load(mm: MmStruct, addr: number): number {
    const out = new Uint8Array(1);
    const access = run(copyFromUser(this.kernel, mm, addr as VirtAddr, out));
    if (access.fault !== 0) throw new Error(`load: fault ${access.fault}`);
    return out[0]!;
  }

  /** The entry of the page table, 0 where there is none. */
  pte(mm: MmStruct, addr: number): Pte {
    const table = leafTable(this.kernel, mm, addr as VirtAddr);
    return table === NO_TABLE ? (0n as Pte) : readPte(this.kernel.ram.words, table + pteIndex(addr));
  }

  /** What the entry means. */
  kind(mm: MmStruct, addr: number): SoftLeafKind | 'present' | 'none' {
    const pte = this.pte(mm, addr);
    if (pteNone(pte)) return 'none';
    return ptePresent(pte) ? 'present' : leafKind(this.kernel, softleafFromPte(pte));
  }

  /** The page that a present or device private entry names. */
  page(mm: MmStruct, addr: number): Page {
    const pte = this.pte(mm, addr);
    if (ptePresent(pte)) return this.kernel.memmap.pfnToPage(Number((pte >> 12n) & 0xff_ffff_ffffn) as never);
    return this.kernel.addressing.softleafToPage(softleafFromPte(pte));
  }

  field(page: Page, name: keyof typeof STRUCT_PAGE.word): number {
    return this.kernel.memmap.words[page * 16 + STRUCT_PAGE.word[name]]!;
  }

  get free(): number {
    return this.kernel.buddy.freePagesCount;
  }

  /** Everything exits; then nothing may be left. */
  finish(): void {
    for (const mm of [...this.kernel.mms]) {
      expect(mm.mmapLock.locked).toBe(false);
      expect(mm.notifiers.activeRanges).toBe(0);
      run(exitMm(this.kernel, mm));
      const { rssAnon, rssShmem, rssFile, tables } = mm;
      expect({ rssAnon, rssShmem, rssFile, tables }).toEqual({ rssAnon: 0, rssShmem: 0, rssFile: 0, tables: 0 });
    }
    for (const driver of this.#drivers) {
      expect(driver.used).toBe(0);
      run(driver.remove());
    }
    expect(this.free).toBe(this.#freeAtStart);
    expect([...this.kernel.anonVmas]).toEqual([]);
    expect([...this.kernel.files]).toEqual([]);
    expect([...this.kernel.swap.used()]).toEqual([]);
    expect(this.log).toEqual([]);
  }
}

/** Build, use, and check that nothing is left. */
export function withKernel(addressing: AddressingName, body: (bench: Bench) => void, ramMiB?: number): void {
  const bench = new Bench(addressing, ramMiB);
  body(bench);
  bench.finish();
}

/**
 * A driver of device private memory without a device: the contents of its pages are byte arrays. The kernel's side of it is a
 * real dev_pagemap; its copies are made in between the phases of a migration, at once or (`pause`) in the middle of a sleep.
 */
export class FakeDriver {
  readonly owner = {};
  readonly pgmap: DevPagemap;
  readonly contents = new Map<Page, Uint8Array>();
  readonly freePages: Page[] = [];
  used = 0;
  /** Allocations that succeed before they fail; for ever by default. */
  allocationsLeft = Number.POSITIVE_INFINITY;
  /** Do the copies fail? */
  copyFails = false;
  /** Copies wait for this. */
  gate: { open: boolean } = { open: true };
  readonly #kernel: Kernel;
  readonly #resource: Resource | null = null;

  constructor(kernel: Kernel, pages: number) {
    this.#kernel = kernel;
    if (!kernel.seriesApplied) {
      const found = kernel.iomem.requestFreeMemRegion(pages * PAGE, 'fake');
      if (typeof found === 'string') throw new Error(found);
      this.#resource = found;
    }
    this.pgmap = {
      type: 'MEMORY_DEVICE_PRIVATE',
      owner: this.owner,
      ops: {
        folioFree: (page) => {
          this.used--;
          this.contents.delete(page);
          this.freePages.push(page);
        },
        migrateToRam: (fault) => this.migrateToRam(fault.mm, fault.address, fault.page),
      },
      nrPages: pages,
      range: this.#resource && { start: this.#resource.start, end: this.#resource.start + pages * PAGE - 1 },
      pages: NULL_PAGE,
      id: 0,
      ref: null,
    };
    this.remap();
    for (let i = 0; i < pages; i++) this.freePages.push((this.pgmap.pages + i) as Page);
  }

  /** Map the pagemap, at first or again after `remove`. */
  remap(): void {
    const kernel = this.#kernel;
    const result = this.#resource
      ? memremapPages(kernel, this.pgmap)
      : memremapDevicePrivatePagemap(kernel, this.pgmap);
    if (result !== 0) throw new Error(result);
  }

  /** A locked page with one reference, as a driver hands to `dst`. */
  alloc(): Page {
    if (this.allocationsLeft-- <= 0 || this.freePages.length === 0) return NULL_PAGE;
    const page = this.freePages.shift()!;
    zoneDevicePageInit(this.#kernel, this.pgmap, page, 0);
    this.contents.set(page, new Uint8Array(PAGE));
    this.used++;
    return page;
  }

  /** The range to the device, as far as the VMA at its start goes. Returns how many pages moved. */
  *toDevice(mm: MmStruct, start: number, pages: number): Sleeps<number> {
    yield* mm.mmapLock.downRead();
    try {
      const args = this.args(mm, start, pagesOfVma(mm, start, pages), MIGRATE_VMA_SELECT_SYSTEM);
      if (args.src.length === 0) return 0;
      const result = yield* migrateVmaSetup(this.#kernel, args);
      if (result !== 0) throw new Error(result);
      const copies: [Page, Page][] = [];
      for (let i = 0; i < args.npages; i++) {
        if ((args.src[i]! & MIGRATE_PFN_MIGRATE) === 0) continue;
        const target = this.alloc();
        if (target === NULL_PAGE) continue;
        args.dst[i] = this.#kernel.addressing.migratePfnFromPage(target);
        copies.push([this.#kernel.addressing.migratePfnToPage(args.src[i] as Mpfn), target]);
      }
      yield* this.#copy(args.dst, () => {
        for (const [from, to] of copies) if (from !== NULL_PAGE) this.contents.get(to)!.set(this.#ramOf(from));
      });
      yield* migrateVmaPages(this.#kernel, args);
      const moved = countMoved(args.src, args.dst);
      migrateVmaFinalize(this.#kernel, args);
      return moved;
    } finally {
      mm.mmapLock.upRead();
    }
  }

  /** Back to RAM by virtual addresses, with mmap_lock taken here. */
  *toSystem(mm: MmStruct, start: number, pages: number): Sleeps<number> {
    yield* mm.mmapLock.downRead();
    try {
      const count = pagesOfVma(mm, start, pages);
      return count === 0 ? 0 : (yield* this.#home(mm, start, count, NULL_PAGE)).moved;
    } finally {
      mm.mmapLock.upRead();
    }
  }

  *migrateToRam(mm: MmStruct, address: VirtAddr, page: Page): Sleeps<number> {
    const { outOfMemory } = yield* this.#home(mm, address, 1, page);
    return outOfMemory ? VM_FAULT_OOM : 0;
  }

  /** Eviction by page, without mmap_lock. */
  *evict(pages: readonly Page[]): Sleeps<number> {
    const kernel = this.#kernel;
    const src = Float64Array.from(pages, (page) => kernel.addressing.migratePfnFromPage(page));
    const dst = new Float64Array(pages.length);
    yield* migrateDevicePfns(kernel, src, pages.length);
    yield* reclaimUntilFree(kernel, pages.length);
    const { copies } = this.#allocRam(src, dst, pages.length);
    yield* this.#copy(dst, copies);
    yield* migrateDevicePages(kernel, src, dst, pages.length, null);
    const moved = countMoved(src, dst);
    migrateDeviceFinalize(kernel, src, dst, pages.length, NULL_PAGE);
    return moved;
  }

  remove(): Sleeps<void> {
    return this.#resource
      ? memunmapPages(this.#kernel, this.pgmap)
      : memunmapDevicePrivatePagemap(this.#kernel, this.pgmap);
  }

  args(mm: MmStruct, start: number, pages: number, flags: number, faultPage = NULL_PAGE): MigrateVma {
    return {
      vma: vmaLookup(mm, start)!,
      start: start as VirtAddr,
      end: (start + pages * PAGE) as VirtAddr,
      src: new Float64Array(pages),
      dst: new Float64Array(pages),
      npages: 0,
      notifyingIndex: 0,
      cpages: 0,
      flags,
      pgmapOwner: this.owner,
      faultPage,
    };
  }

  *#home(mm: MmStruct, start: number, pages: number, faultPage: Page): Sleeps<{ moved: number; outOfMemory: boolean }> {
    const args = this.args(mm, start, pages, MIGRATE_VMA_SELECT_DEVICE_PRIVATE, faultPage);
    const result = yield* migrateVmaSetup(this.#kernel, args);
    if (result !== 0) throw new Error(result);
    yield* reclaimUntilFree(this.#kernel, args.npages);
    const { copies, outOfMemory } = this.#allocRam(args.src, args.dst, args.npages);
    yield* this.#copy(args.dst, copies);
    yield* migrateVmaPages(this.#kernel, args);
    const moved = countMoved(args.src, args.dst);
    migrateVmaFinalize(this.#kernel, args);
    return { moved, outOfMemory };
  }

  #allocRam(src: Float64Array, dst: Float64Array, npages: number): { copies: () => void; outOfMemory: boolean } {
    const { addressing, buddy, memmap } = this.#kernel;
    const pairs: [Page, Page][] = [];
    let outOfMemory = false;
    for (let i = 0; i < npages; i++) {
      const source = addressing.migratePfnToPage(src[i] as Mpfn);
      if ((src[i]! & MIGRATE_PFN_MIGRATE) === 0 || source === NULL_PAGE) continue;
      const target = buddy.allocPages(0);
      if (target === NULL_PAGE) {
        outOfMemory = true;
        break;
      }
      folioTrylock(memmap.words, target);
      dst[i] = addressing.migratePfnFromPage(target);
      pairs.push([source, target]);
    }
    const copies = (): void => {
      for (const [from, to] of pairs) this.#ramOf(to).set(this.contents.get(from)!);
    };
    return { copies, outOfMemory };
  }

  *#copy(dst: Float64Array, copies: () => void): Sleeps<void> {
    const { gate } = this;
    while (!gate.open) yield { what: 'the copy', ready: () => gate.open };
    if (!this.copyFails) return copies();
    for (let i = 0; i < dst.length; i++) {
      const page = this.#kernel.addressing.migratePfnToPage(dst[i] as Mpfn);
      dst[i] = 0;
      if (page === NULL_PAGE) continue;
      folioUnlock(this.#kernel.memmap.words, page);
      putPage(this.#kernel, page);
    }
  }

  /** The bytes of a page, wherever it is. */
  bytesOf(page: Page): Uint8Array {
    return this.contents.get(page) ?? this.#ramOf(page);
  }

  #ramOf(page: Page): Uint8Array {
    return this.#kernel.ram.bytes(this.#kernel.memmap.ramFrame(page));
  }
}

/** Pages from `start` on that lie in one VMA. */
function pagesOfVma(mm: MmStruct, start: number, pages: number): number {
  const vma = vmaLookup(mm, start);
  return vma === undefined ? 0 : Math.min(pages, (vma.end - start) / PAGE);
}

function countMoved(src: Float64Array, dst: Float64Array): number {
  return src.reduce((moved, mpfn, i) => moved + ((mpfn & MIGRATE_PFN_MIGRATE) !== 0 && dst[i] !== 0 ? 1 : 0), 0);
}

export const isLocked = (kernel: Kernel, page: Page): boolean => folioLocked(kernel.memmap.words, page);
export const refCount = (kernel: Kernel, page: Page): number => pageRefCount(kernel.memmap.words, page);

/** The state that a page of a process must have at rest. */
export function expectAtRest(bench: Bench, mm: MmStruct, addr: number): void {
  const page = bench.page(mm, addr);
  expect({ references: refCount(bench.kernel, page), mapcount: bench.field(page, 'mapcount') + 1 }).toEqual({
    references: 1,
    mapcount: 1,
  });
  expect(isLocked(bench.kernel, page)).toBe(false);
}

/** Change an entry behind everybody's back. */
export function changePte({ kernel }: Bench, mm: MmStruct, addr: number, change: (pte: bigint) => bigint): void {
  const at = leafTable(kernel, mm, addr as VirtAddr) + pteIndex(addr);
  setPte(kernel.ram.words, at, change(kernel.ram.words[at]!) as Pte);
}
