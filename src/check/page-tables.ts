/**
 * Walks of the CPU's and the devices' page tables for checkers: from the words in memory alone, with no help from mm or the
 * drivers, so that a mistake of theirs cannot hide itself. At rest only.
 */
import { PAGE_SIZE, PGDIR_SIZE, PMD_SIZE, PTRS_PER_TABLE, PUD_SIZE, TASK_SIZE } from '../abi/address.js';
import { DEVICE_PTE_VALID } from '../abi/device-pte.js';
import {
  halvesNumber,
  halvesPfn,
  highType,
  LOW_HUGE,
  LOW_PRESENT,
  LOW_SPECIAL,
  LOW_WRITE,
  lowPresent,
} from '../abi/pte-halves.js';
import type { SoftLeafKind } from '../abi/softleaf.js';
import { STRUCT_PAGE, STRUCT_PAGE_WORD_SHIFT } from '../abi/struct-page.js';
import { NULL_PAGE, type Page, type Pfn, type VirtAddr } from '../base/brand.js';
import { formatAddress } from '../base/bytes.js';
import { nextWord } from '../base/next-word.js';
import type { SharedFindings } from '../machine/state.js';
import type { Kernel } from '../mm/kernel.js';
import type { MmStruct } from '../mm/mm-struct.js';

const SPANS = [PGDIR_SIZE, PUD_SIZE, PMD_SIZE, PAGE_SIZE] as const;
const LEAF = SPANS.length - 1;

/** What the page tables say of one page, where it is not none: an entry of a leaf table, or one page of a huge entry. */
export interface CpuEntry {
  readonly mm: MmStruct;
  readonly address: VirtAddr;
  /** Present, and the CPU may write through it. */
  readonly writable: boolean;
  /** What a non-present entry means; `present` for the others. */
  readonly kind: SoftLeafKind | 'present';
  /** The page that it maps or names; NULL_PAGE for the zero pages and for entries that name none. */
  readonly page: Page;
  /** The same, but with the zero pages. */
  readonly content: Page;
  /** How many pages into a huge entry's folio this one is; -1: the entry is a small one. */
  readonly inHuge: number;
  /** The entry itself, by its halves. */
  readonly low: number;
  readonly high: number;
}

/** Kinds of entries that name no page. */
export const NO_PAGE_KINDS: readonly SoftLeafKind[] = ['none', 'swap', 'hwpoison', 'marker'];

function describe(
  kernel: Kernel,
  mm: MmStruct,
  address: VirtAddr,
  low: number,
  high: number,
  inHuge: number,
): CpuEntry {
  const offset = Math.max(0, inHuge);
  if (lowPresent(low)) {
    const content = (kernel.memmap.pfnToPage(halvesPfn(low, high) as Pfn) + offset) as Page;
    const page = low & LOW_SPECIAL ? NULL_PAGE : content;
    return { mm, address, writable: (low & LOW_WRITE) !== 0, kind: 'present', page, content, inHuge, low, high };
  }
  const type = highType(high);
  const kind = kernel.addressing.swapTypes.kindOf[type]!;
  const named = NO_PAGE_KINDS.includes(kind) ? NULL_PAGE : kernel.addressing.leafToPage(type, halvesNumber(low, high));
  const page = (named === NULL_PAGE ? named : named + offset) as Page;
  return { mm, address, writable: false, kind, page, content: page, inHuge, low, high };
}

/** Does an entry of an upper table point to a table? Otherwise it is a huge one. */
const pointsToTable = (low: number): boolean => (low & (LOW_PRESENT | LOW_HUGE)) === LOW_PRESENT;

const tableBelow = (kernel: Kernel, low: number, high: number): number =>
  kernel.memmap.ramFrame(kernel.memmap.pfnToPage(halvesPfn(low, high) as Pfn)) * PTRS_PER_TABLE;

/**
 * Every entry of an address space that is not none, by address. The walk is made once for all who share it. Between two steps it goes
 * where mappings are: empty tables are all that it would find elsewhere, mostly, and what it would not is found at rest.
 */
export function cpuEntries(kernel: Kernel, mm: MmStruct, shared?: SharedFindings): readonly CpuEntry[] {
  const known = shared?.get(mm) as readonly CpuEntry[] | undefined;
  if (known !== undefined) return known;
  const found: CpuEntry[] = [];
  const root = kernel.memmap.ramFrame(mm.pgd) * PTRS_PER_TABLE;
  if (shared?.betweenSteps) {
    for (const { start, end } of mm.vmas) addEntries(kernel, mm, root, 0, 0, start, end, found);
  } else {
    addEntries(kernel, mm, root, 0, 0, 0, TASK_SIZE, found);
  }
  shared?.set(mm, found);
  return found;
}

/** Of a table whose entries span `span` bytes each: the first entry for what begins so many bytes into it. */
const firstIndex = (bytes: number, span: number): number => Math.max(0, Math.floor(bytes / span));
/** The entry after the last one for what ends so many bytes into it. */
const endIndex = (bytes: number, span: number): number => Math.min(PTRS_PER_TABLE, Math.ceil(bytes / span));

/** Those of addresses in [start, stop). `base` is the first address of the table. */
function addEntries(
  kernel: Kernel,
  mm: MmStruct,
  table: number,
  level: number,
  base: number,
  start: number,
  stop: number,
  found: CpuEntry[],
): void {
  const { floats, halves } = kernel.ram;
  const span = SPANS[level]!;
  const first = table + firstIndex(start - base, span);
  const end = table + endIndex(stop - base, span);
  for (let at = nextWord(floats, first, end); at < end; at = nextWord(floats, at + 1, end)) {
    const low = halves[2 * at]!;
    const high = halves[2 * at + 1]!;
    const address = base + (at - table) * span;
    if (level === LEAF) {
      found.push(describe(kernel, mm, address as VirtAddr, low, high, -1));
    } else if (pointsToTable(low)) {
      addEntries(kernel, mm, tableBelow(kernel, low, high), level + 1, address, start, stop, found);
    } else {
      for (let i = 0; i < PTRS_PER_TABLE; i++) {
        const each = address + i * PAGE_SIZE;
        if (each >= start && each < stop) found.push(describe(kernel, mm, each as VirtAddr, low, high, i));
      }
    }
  }
}

/** What stands at one address; `null` for none. */
export function cpuEntryAt(kernel: Kernel, mm: MmStruct, address: VirtAddr): CpuEntry | null {
  const { halves } = kernel.ram;
  let table = kernel.memmap.ramFrame(mm.pgd) * PTRS_PER_TABLE;
  for (const span of SPANS) {
    const at = 2 * (table + (Math.floor(address / span) % PTRS_PER_TABLE));
    const low = halves[at]!;
    const high = halves[at + 1]!;
    if ((low | high) === 0) return null;
    if (span === PAGE_SIZE) return describe(kernel, mm, address, low, high, -1);
    if (!pointsToTable(low)) {
      const inHuge = Math.floor(address / PAGE_SIZE) % PTRS_PER_TABLE;
      return describe(kernel, mm, address, low, high, inHuge);
    }
    table = tableBelow(kernel, low, high);
  }
  return null;
}

/** How many tables an address space has. Those that are deposited beside huge pages count too. */
export const countTables = (kernel: Kernel, mm: MmStruct): number =>
  tablesBelow(kernel, kernel.memmap.ramFrame(mm.pgd) * PTRS_PER_TABLE, 0);

/** A table, what is deposited beside it, and everything below. */
function tablesBelow(kernel: Kernel, table: number, level: number): number {
  if (level === LEAF) return 1;
  let tables = 1;
  for (let page = depositedAt(kernel, table); page !== NULL_PAGE; ) {
    tables++;
    page = depositedAt(kernel, kernel.memmap.ramFrame(page) * PTRS_PER_TABLE);
  }
  const { floats, halves } = kernel.ram;
  const end = table + PTRS_PER_TABLE;
  for (let at = nextWord(floats, table, end); at < end; at = nextWord(floats, at + 1, end)) {
    const low = halves[2 * at]!;
    if (pointsToTable(low)) tables += tablesBelow(kernel, tableBelow(kernel, low, halves[2 * at + 1]!), level + 1);
  }
  return tables;
}

function depositedAt({ memmap }: Kernel, table: number): Page {
  const page = memmap.ramPage + table / PTRS_PER_TABLE;
  return memmap.words[(page << STRUCT_PAGE_WORD_SHIFT) + STRUCT_PAGE.word.lruNext] as Page;
}

/** The memory of a device's page tables: its words, and the same as doubles, an entry each. */
export interface DeviceTables {
  readonly words: Int32Array;
  readonly floats: Float64Array;
}

/** One valid entry of a device's leaf tables. */
export interface DeviceEntry {
  readonly address: VirtAddr;
  readonly word: number;
  readonly frame: number;
}

/** Every valid leaf entry of addresses in [start, stop), below the table at word `root`, by address. */
export function deviceEntries(
  tables: DeviceTables,
  root: number,
  start = 0,
  stop: number = TASK_SIZE,
): readonly DeviceEntry[] {
  const found: DeviceEntry[] = [];
  addDeviceEntries(tables, root, 0, 0, start, stop, found);
  return found;
}

function addDeviceEntries(
  tables: DeviceTables,
  table: number,
  level: number,
  base: number,
  start: number,
  stop: number,
  found: DeviceEntry[],
): void {
  const { words, floats } = tables;
  const span = SPANS[level]!;
  const zero = table / 2;
  const first = zero + firstIndex(start - base, span);
  const end = zero + endIndex(stop - base, span);
  for (let at = nextWord(floats, first, end); at < end; at = nextWord(floats, at + 1, end)) {
    const word = words[2 * at]!;
    if ((word & DEVICE_PTE_VALID) === 0) continue;
    const next = words[2 * at + 1]! >>> 0;
    const address = base + (at - zero) * span;
    if (level === LEAF) found.push({ address: address as VirtAddr, word, frame: next });
    else addDeviceEntries(tables, next, level + 1, address, start, stop, found);
  }
}

/** How a message names a place. */
export const placeText = (mm: MmStruct, address: number): string => `process ${mm.pid}, 0x${formatAddress(address)}`;
