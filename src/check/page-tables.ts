/**
 * Walks of the CPU's and the devices' page tables for checkers: from the words in memory alone, with no help from mm or the
 * drivers, so that a mistake of theirs cannot hide itself. At rest only.
 */
import { PAGE_SHIFT, PAGE_SIZE, PGD_SHIFT, PMD_SHIFT, PTRS_PER_TABLE, PUD_SHIFT } from '../abi/address.js';
import { DEVICE_PTE_VALID } from '../abi/device-pte.js';
import { halvesNumber, halvesPfn, highType, LOW_SPECIAL, LOW_WRITE, lowPresent } from '../abi/pte-halves.js';
import type { SoftLeafKind } from '../abi/softleaf.js';
import { NULL_PAGE, type Page, type Pfn, type VirtAddr } from '../base/brand.js';
import { formatAddress } from '../base/bytes.js';
import type { Kernel } from '../mm/kernel.js';
import type { MmStruct } from '../mm/mm-struct.js';

const SHIFTS = [PGD_SHIFT, PUD_SHIFT, PMD_SHIFT, PAGE_SHIFT] as const;
const LEAF = SHIFTS.length - 1;

/** One entry of a leaf table that is not none. */
export interface CpuEntry {
  readonly mm: MmStruct;
  readonly address: VirtAddr;
  /** Present, and the CPU may write through it. */
  readonly writable: boolean;
  /** What a non-present entry means; `present` for the others. */
  readonly kind: SoftLeafKind | 'present';
  /** The page that it maps or names; NULL_PAGE for the zero page and for entries that name none. */
  readonly page: Page;
}

/** Page that a device or migration entry names, kinds without a page apart. */
const NO_PAGE_KINDS: readonly SoftLeafKind[] = ['none', 'swap', 'hwpoison', 'marker'];

function describe(kernel: Kernel, mm: MmStruct, address: VirtAddr, low: number, high: number): CpuEntry {
  if (lowPresent(low)) {
    const page = low & LOW_SPECIAL ? NULL_PAGE : kernel.memmap.pfnToPage(halvesPfn(low, high) as Pfn);
    return { mm, address, writable: (low & LOW_WRITE) !== 0, kind: 'present', page };
  }
  const type = highType(high);
  const kind = kernel.addressing.swapTypes.kindOf[type]!;
  const page = NO_PAGE_KINDS.includes(kind) ? NULL_PAGE : kernel.addressing.leafToPage(type, halvesNumber(low, high));
  return { mm, address, writable: false, kind, page };
}

/** Every entry of an address space that is not none, by address. */
export function* cpuEntries(kernel: Kernel, mm: MmStruct): Generator<CpuEntry, void, void> {
  const { halves } = kernel.ram;
  for (const { table, base } of cpuTables(kernel, mm)) {
    if (base === null) continue;
    for (let index = 0; index < PTRS_PER_TABLE; index++) {
      const low = halves[2 * (table + index)]!;
      const high = halves[2 * (table + index) + 1]!;
      if ((low | high) !== 0) yield describe(kernel, mm, (base + index * PAGE_SIZE) as VirtAddr, low, high);
    }
  }
}

/** The entry of one address: the page as `CpuEntry` has it, and the flags of its low half; `null` for none. */
export function cpuEntryAt(kernel: Kernel, mm: MmStruct, address: VirtAddr): { page: Page; low: number } | null {
  const { halves } = kernel.ram;
  let table = kernel.memmap.ramFrame(mm.pgd) * PTRS_PER_TABLE;
  for (const shift of SHIFTS) {
    const at = 2 * (table + (Math.floor(address / 2 ** shift) % PTRS_PER_TABLE));
    const low = halves[at]!;
    const high = halves[at + 1]!;
    if ((low | high) === 0) return null;
    if (shift === PAGE_SHIFT) return { page: describe(kernel, mm, address, low, high).page, low };
    table = kernel.memmap.ramFrame(kernel.memmap.pfnToPage(halvesPfn(low, high) as Pfn)) * PTRS_PER_TABLE;
  }
  return null;
}

/** Every table of an address space: index of its first word; `base` is the first address of a leaf table, `null` above. */
export function* cpuTables(
  kernel: Kernel,
  mm: MmStruct,
): Generator<{ table: number; base: number | null }, void, void> {
  const tableOf = (page: Page): number => kernel.memmap.ramFrame(page) * PTRS_PER_TABLE;
  yield* below(tableOf(mm.pgd), 0, 0);

  function* below(
    table: number,
    level: number,
    base: number,
  ): Generator<{ table: number; base: number | null }, void, void> {
    yield { table, base: level === LEAF ? base : null };
    if (level === LEAF) return;
    for (let index = 0; index < PTRS_PER_TABLE; index++) {
      const low = kernel.ram.halves[2 * (table + index)]!;
      const high = kernel.ram.halves[2 * (table + index) + 1]!;
      if ((low | high) === 0) continue;
      const child = tableOf(kernel.memmap.pfnToPage(halvesPfn(low, high) as Pfn));
      yield* below(child, level + 1, base + index * 2 ** SHIFTS[level]!);
    }
  }
}

/** One valid entry of a device's leaf tables. */
export interface DeviceEntry {
  readonly address: VirtAddr;
  readonly word: number;
  readonly frame: number;
}

/** Every valid leaf entry below the table at word `root`, by address. */
export function* deviceEntries(words: Int32Array, root: number): Generator<DeviceEntry, void, void> {
  yield* below(root, 0, 0);

  function* below(table: number, level: number, base: number): Generator<DeviceEntry, void, void> {
    for (let index = 0; index < PTRS_PER_TABLE; index++) {
      const word = words[table + index * 2]!;
      if ((word & DEVICE_PTE_VALID) === 0) continue;
      const next = words[table + index * 2 + 1]! >>> 0;
      const address = base + index * 2 ** SHIFTS[level]!;
      if (level === LEAF) yield { address: address as VirtAddr, word, frame: next };
      else yield* below(next, level + 1, address);
    }
  }
}

/** How a message names a place. */
export const placeText = (mm: MmStruct, address: number): string => `process ${mm.pid}, 0x${formatAddress(address)}`;
