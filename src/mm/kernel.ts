/**
 * The kernel model's global state: what in Linux are globals (`iomem_resource`, `mem_map`, `zone`, `init_mm`...). Built once a
 * machine from its physical layout; everything else in mm is functions over it. Lives on one thread (ARCHITECTURE decision 1).
 */
import { PAGE_SIZE, PAGES_PER_SECTION, pageAlignDown, pageAlignUp } from '../abi/address.js';
import { makePte, PTE_SPECIAL } from '../abi/pte.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { NULL_PAGE, type Page, type Pfn, type Pte } from '../base/brand.js';
import { assert } from '../base/errors.js';
import { IdTable } from '../base/id-table.js';
import type { FaultInjector } from '../base/injection.js';
import { RwSemaphore } from '../sync/rwsem.js';
import type { Addressing, AddressingName } from './addressing/addressing.js';
import { legacyAddressing } from './addressing/legacy.js';
import { offsetAddressing } from './addressing/offset.js';
import { type Sites, sitesOf } from './check-sites.js';
import { createHugetlbPool, type HugetlbPool } from './hugetlb-pool.js';
import { Memmap } from './memmap.js';
import { DevicePrivateSpace, PagemapRegistry } from './memremap.js';
import type { MmStruct } from './mm-struct.js';
import { pageSetFlag } from './page.js';
import { PageAllocator } from './page-alloc.js';
import { Ram } from './ram.js';
import { ResourceTree } from './resource.js';
import type { AnonVma } from './rmap.js';
import { SwapSpace } from './swapfile.js';
import { CpuTlb, type RemoteCpu } from './tlbflush.js';
import type { VmFile } from './vma.js';

/** One entry of the physical address map at boot. */
export interface PhysicalMapEntry {
  readonly start: number;
  /** Included. */
  readonly end: number;
  readonly name: string;
  readonly kind: 'ram' | 'reserved' | 'window';
  readonly children?: readonly { readonly start: number; readonly end: number; readonly name: string }[];
}

/** What vm.max_map_count is at first. */
export const MAX_MAP_COUNT = 65530;

export interface KernelOptions {
  readonly layout: {
    /** Bits of a physical address that the CPU has. */
    readonly physBits: number;
    /** 46, or 52 with five-level paging: how far the direct map reaches. */
    readonly maxPhysmemBits: number;
    readonly entries: readonly PhysicalMapEntry[];
  };
  readonly addressing: AddressingName;
  /** What the kernel remembers to do (check-sites.ts). Default: everything. */
  readonly sites?: Sites;
  /** Poison freed frames, verify them when they are used again, check states harder. */
  readonly checked: boolean;
  /** The kernel log: WARN and friends. */
  warn(text: string): void;
  /** /sys/kernel/mm/transparent_hugepage/enabled: which memory gets huge pages when it is touched. */
  readonly hugePages: 'always' | 'madvise' | 'never';
  /** Huge pages that are kept for MAP_HUGETLB (`hugepages=`). Default 0. */
  readonly hugetlbPages?: number;
  /** Mappings that an address space may have (vm.max_map_count). Default 65530. */
  readonly maxMapCount?: number;
  /** Struct pages that devices will need, summed over all chunks. */
  readonly devicePages: number;
  /** Should a task that could be preempted here give way? Asked at every schedule point. */
  preempt(): boolean;
  /** Fault injection by named points (base/injection.ts). Absent: nothing is injected. */
  readonly inject?: FaultInjector;
}

export interface KernelStats {
  /** `pgfault`. */
  cpuFaults: number;
  /** Faults that had to read from swap. */
  pgmajfault: number;
  /** Pages read from swap and written to it, */
  pswpin: number;
  pswpout: number;
  /** and those that were all zeroes, for which nothing is read or written. */
  swpinZero: number;
  swpoutZero: number;
  /** Pages that reclaim looked at, and that it freed. */
  pgscan: number;
  pgsteal: number;
  /** Pages that MADV_FREE gave up, and that reclaim took. */
  pglazyfree: number;
  pglazyfreed: number;
  migratedToDevice: number;
  migratedToRam: number;
  tlbShootdowns: number;
}

export interface Kernel {
  readonly options: KernelOptions;
  readonly inject: FaultInjector | null;
  readonly checked: boolean;
  readonly seriesApplied: boolean;
  readonly sites: Sites;
  readonly ram: Ram;
  readonly memmap: Memmap;
  readonly iomem: ResourceTree;
  readonly privateSpace: DevicePrivateSpace;
  readonly pagemaps: PagemapRegistry;
  readonly buddy: PageAllocator;
  readonly addressing: Addressing;
  readonly cpus: readonly CpuTlb[];
  /** CPUs that run by themselves. */
  readonly remoteCpus: RemoteCpu[];
  readonly mms: Set<MmStruct>;
  readonly anonVmas: IdTable<AnonVma>;
  /** Files that somebody maps or has open, the objects of shared anonymous memory among them. */
  readonly files: IdTable<VmFile>;
  readonly swap: SwapSpace;
  /** RAM as ranges of struct pages, for whoever looks at all of it. */
  readonly ramRanges: readonly { readonly first: Page; readonly pages: number }[];
  /** Where the hand of reclaim stands: in which of the ranges, and how far (vmscan.ts). */
  readonly reclaimHand: { range: number; offset: number };
  readonly stats: KernelStats;
  /** Mappings that an address space may have (vm.max_map_count), give or take one: see vma-merge.ts. */
  maxMapCount: number;
  /** First page of the huge zero page while somebody uses it (huge-zero.ts), and how many address spaces do. */
  readonly hugeZero: { page: Page; users: number };
  readonly hugetlb: HugetlbPool;
  /**
   * Memory that has failed (memory-failure.ts): pages of RAM, failures of devices' memory, pages that are held for ever, and who deals with one
   * (`mf_mutex`).
   */
  readonly memoryFailures: {
    poisoned: number;
    ofDevices: number;
    readonly held: Set<Page>;
    readonly lock: RwSemaphore;
  };
  /** The page of zeroes that untouched anonymous memory reads. */
  readonly zeroPage: Page;
  readonly zeroPfn: Pfn;
  /** Entry that maps it: read-only and special. Add the protection's flags. */
  readonly zeroPte: Pte;
  /** RAM pages that the buddy manages. */
  readonly totalRamPages: number;
  warn(text: string): void;
}

/** Struct pages of a range of frames: each section has its own run of slots. */
function slotRanges(memmap: Memmap, pfn: number, endPfn: number): { first: Page; pages: number }[] {
  const ranges: { first: Page; pages: number }[] = [];
  for (let at = pfn; at < endPfn; ) {
    const stop = Math.min((Math.floor(at / PAGES_PER_SECTION) + 1) * PAGES_PER_SECTION, endPfn);
    ranges.push({ first: memmap.pfnToPage(at as Pfn), pages: stop - at });
    at = stop;
  }
  return ranges;
}

/** @throws InvariantViolation when the layout has no RAM */
export function createKernel(options: KernelOptions): Kernel {
  const { layout, checked } = options;
  const ranges = layout.entries
    .filter((entry) => entry.kind === 'ram')
    .map(({ start, end }) => ({ pfn: pageAlignUp(start) / PAGE_SIZE, endPfn: pageAlignDown(end + 1) / PAGE_SIZE }))
    .filter(({ pfn, endPfn }) => endPfn > pfn);
  assert(ranges.length > 0, 'the physical layout has no RAM');

  const sections = new Set<number>();
  for (const { pfn, endPfn } of ranges) {
    for (let section = Math.floor(pfn / PAGES_PER_SECTION); section * PAGES_PER_SECTION < endPfn; section++) {
      sections.add(section);
    }
  }
  const ramSlots = sections.size * PAGES_PER_SECTION;
  const memmap = new Memmap(ramSlots + options.devicePages, layout.physBits);
  const ram = new Ram(ramSlots);
  for (const section of [...sections].sort((a, b) => a - b)) {
    assert(memmap.populateVmemmap((section * PAGES_PER_SECTION) as Pfn, PAGES_PER_SECTION), 'no vmemmap for RAM');
  }

  const iomem = new ResourceTree(layout);
  for (const entry of layout.entries) {
    // Children first: of two resources with the same range, the one that comes later is the parent (`insert_resource`).
    for (const child of entry.children ?? []) iomem.insert(child);
    iomem.insert(entry);
  }

  const buddy = new PageAllocator(memmap, {
    checked,
    poison: (page) => ram.poisonFrame(memmap.ramFrame(page)),
    verify: (page) => ram.isPoisoned(memmap.ramFrame(page)),
    ...(options.inject && { fail: (point) => options.inject!.fires(point) }),
  });
  let totalRamPages = 0;
  const ramRanges: { first: Page; pages: number }[] = [];
  for (const { pfn, endPfn } of ranges) {
    // PFN 0 is never given out: Linux reserves the first page, and a page table entry of zeroes must mean nothing.
    const first = Math.max(pfn, 1);
    buddy.addRange(first as Pfn, endPfn - first);
    totalRamPages += endPfn - first;
    ramRanges.push(...slotRanges(memmap, first, endPfn));
  }

  const pagemaps = new PagemapRegistry();
  const seriesApplied = options.addressing === 'offset';
  const sites = options.sites ?? sitesOf();
  const warn = options.warn;
  const privateSpace = new DevicePrivateSpace({ memmap, pagemaps, warn, maxPhysmemBits: layout.maxPhysmemBits });
  const zeroPage = buddy.allocPages(0);
  assert(zeroPage !== NULL_PAGE, 'no RAM for the zero page');
  ram.zeroFrame(memmap.ramFrame(zeroPage));
  pageSetFlag(memmap.words, zeroPage, PAGE_FLAGS.PG_reserved);
  const zeroPfn = memmap.pageToPfn(zeroPage);

  const addressing = seriesApplied ? offsetAddressing(memmap, privateSpace, sites) : legacyAddressing(memmap, sites);

  return {
    options,
    inject: options.inject ?? null,
    checked,
    seriesApplied,
    sites,
    ram,
    memmap,
    iomem,
    privateSpace,
    pagemaps,
    buddy,
    addressing,
    cpus: [new CpuTlb(0)],
    remoteCpus: [],
    mms: new Set(),
    anonVmas: new IdTable(),
    files: new IdTable(),
    swap: new SwapSpace(addressing.swapTypes.maxSwapfiles),
    ramRanges,
    reclaimHand: { range: 0, offset: 0 },
    stats: {
      cpuFaults: 0,
      pgmajfault: 0,
      pswpin: 0,
      pswpout: 0,
      swpinZero: 0,
      swpoutZero: 0,
      pgscan: 0,
      pgsteal: 0,
      pglazyfree: 0,
      pglazyfreed: 0,
      migratedToDevice: 0,
      migratedToRam: 0,
      tlbShootdowns: 0,
    },
    maxMapCount: options.maxMapCount ?? MAX_MAP_COUNT,
    hugeZero: { page: NULL_PAGE, users: 0 },
    hugetlb: createHugetlbPool(buddy, memmap, options.hugetlbPages ?? 0, warn),
    memoryFailures: {
      poisoned: 0,
      ofDevices: 0,
      held: new Set(),
      lock: new RwSemaphore('lock of memory failures', 'memory failure'),
    },
    zeroPage,
    zeroPfn,
    zeroPte: makePte(zeroPfn, PTE_SPECIAL),
    totalRamPages,
    warn,
  };
}
