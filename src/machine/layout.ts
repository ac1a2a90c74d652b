/**
 * The physical address map of a machine, as data: what is in the resource tree before any device memory is placed.
 *
 * Without an explicit map a machine looks like a PC with a PCI hole below 4 GiB, entry for entry as Linux prints it on
 * QEMU's `pc` (LAYOUT_FACTS). Addresses are in bytes and ranges include their end, as in `struct resource`.
 * Not modelled: NUMA, memory hot-plug, firmware tables behind the reserved ranges.
 */
import { isPageAligned, PAGE_SIZE, pageAlignDown, pageAlignUp } from '../abi/address.js';
import { formatAddress } from '../base/bytes.js';

export type LayoutKind = 'ram' | 'reserved' | 'window';

export interface LayoutEntry {
  readonly start: number;
  /** Included. */
  readonly end: number;
  /** As /proc/iomem prints it. */
  readonly name: string;
  readonly kind: LayoutKind;
  readonly children: readonly LayoutEntry[];
}

export interface PhysicalLayout {
  /** Width of a physical address: the resource tree ends at 2^physBits - 1. */
  readonly physBits: number;
  /** Width that the direct map covers: 46, or 52 with five-level page tables. */
  readonly maxPhysmemBits: number;
  /** Root level, by address; they do not overlap. */
  readonly entries: readonly LayoutEntry[];
}

/** A range that the spec adds to the map. */
export interface WindowSpec {
  readonly name: string;
  readonly start: number;
  readonly end: number;
  readonly kind: 'reserved' | 'pci';
}

/** The physical side of a machine spec. */
export interface MemorySpec {
  /** Bytes of RAM. */
  readonly ram: number;
  /** Width of a physical address, 36 to 52. */
  readonly physicalBits: number;
  readonly fiveLevelPaging: boolean;
  readonly windows: readonly WindowSpec[];
  /** The whole map, in place of a PC's. `null`: a PC's. */
  readonly map: readonly LayoutEntry[] | null;
}

const MiB = 2 ** 20;
const GiB = 2 ** 30;
const PCI_BUS = 'PCI Bus 0000:00';

/** From this much RAM on, a PC keeps only 3 GiB of it below 4 GiB, to leave room for PCI. */
const SPLIT_FROM = 3.5 * GiB;
const LOW_RAM_MAX = 3 * GiB;
/** ACPI tables at the end of low RAM. */
const ACPI_BYTES = 128 * 1024;
/** A smaller machine has no kernel image in its map: pfnless's kernel does not run from emulated RAM. */
const KERNEL_IMAGE_FROM = 64 * MiB;

const entry = (
  start: number,
  end: number,
  name: string,
  kind: LayoutKind = 'reserved',
  children: readonly LayoutEntry[] = [],
): LayoutEntry => ({ start, end, name, kind, children });

const KERNEL_IMAGE: readonly LayoutEntry[] = [
  entry(0x1000000, 0x171afaf, 'Kernel code'),
  entry(0x1800000, 0x19b2fff, 'Kernel rodata'),
  entry(0x1a00000, 0x1ad807f, 'Kernel data'),
  entry(0x1bd7000, 0x1c1cfff, 'Kernel bss'),
];

/** What a memory spec itself has in its map, the windows after the rest. */
export function mapEntries(memory: MemorySpec): LayoutEntry[] {
  const windows = memory.windows.map((window) =>
    entry(window.start, window.end, window.name, window.kind === 'pci' ? 'window' : 'reserved'),
  );
  return [...(memory.map ?? pcMap(memory.ram)), ...windows];
}

/**
 * The map that a memory spec describes, with what the devices add to it. Preconditions: the spec was checked
 * (`layoutProblem` found nothing), and so were the additions.
 */
export function physicalLayout(memory: MemorySpec, additions: readonly LayoutEntry[]): PhysicalLayout {
  return {
    physBits: memory.physicalBits,
    maxPhysmemBits: memory.fiveLevelPaging ? 52 : 46,
    entries: [...mapEntries(memory), ...additions].sort((a, b) => a.start - b.start),
  };
}

/** Bytes a map has as System RAM (whole pages only). */
export function ramBytes(entries: readonly LayoutEntry[]): number {
  return entries
    .filter(({ kind }) => kind === 'ram')
    .reduce((sum, ram) => sum + Math.max(0, pageAlignDown(ram.end + 1) - pageAlignUp(ram.start)), 0);
}

/** What is wrong with a memory spec's ranges, as a path into the spec and a predicate; `null` when nothing is. */
export function layoutProblem(memory: MemorySpec): { path: (string | number)[]; message: string } | null {
  const limit = 2 ** memory.physicalBits - 1;
  const placed: LayoutEntry[] = [];
  const problemOf = (range: LayoutEntry): string | null => {
    const text = `${range.name} (${formatAddress(range.start)}-${formatAddress(range.end)})`;
    if (range.start > range.end) return `${text} must not end before it starts`;
    if (range.end > limit) return `${text} must end at or below ${formatAddress(limit)}, the last physical address`;
    const other = placed.find(({ start, end }) => start <= range.end && range.start <= end);
    if (other) {
      return `${text} must not overlap ${other.name} (${formatAddress(other.start)}-${formatAddress(other.end)})`;
    }
    let from = range.start;
    for (const child of range.children) {
      if (child.start < from || child.end > range.end || child.end < child.start) {
        return `${text} must hold its children in order and without overlap, which ${child.name} breaks`;
      }
      from = child.end + 1;
    }
    placed.push(range);
    return null;
  };
  for (const [index, range] of (memory.map ?? pcMap(memory.ram)).entries()) {
    const message = problemOf(range);
    if (message) return { path: memory.map ? ['memory', 'map', index] : ['memory', 'ram'], message };
  }
  for (const [index, window] of memory.windows.entries()) {
    const message = problemOf(entry(window.start, window.end, window.name));
    if (message) return { path: ['memory', 'windows', index], message };
  }
  if (!isPageAligned(memory.ram)) {
    return { path: ['memory', 'ram'], message: `must be a multiple of the page size, ${PAGE_SIZE}` };
  }
  return null;
}

/** A PC with `ram` bytes, as QEMU's `pc` machine and Linux lay it out. */
function pcMap(ram: number): readonly LayoutEntry[] {
  const lowEnd = ram >= SPLIT_FROM ? LOW_RAM_MAX : ram;
  const high = ram - lowEnd;
  const kernel = ram >= KERNEL_IMAGE_FROM ? KERNEL_IMAGE : [];
  return [
    entry(0x0, 0xfff, 'Reserved'),
    entry(0x1000, 0x9fbff, 'System RAM', 'ram'),
    entry(0x9fc00, 0x9ffff, 'Reserved'),
    entry(0xa0000, 0xbffff, PCI_BUS, 'window'),
    entry(0xc0000, 0xc05ff, 'Video ROM'),
    entry(0xf0000, 0xfffff, 'Reserved', 'reserved', [entry(0xf0000, 0xfffff, 'System ROM')]),
    entry(0x100000, lowEnd - ACPI_BYTES - 1, 'System RAM', 'ram', kernel),
    entry(lowEnd - ACPI_BYTES, lowEnd - 1, 'Reserved'),
    entry(lowEnd, 0xfebfffff, PCI_BUS, 'window'),
    entry(0xfec00000, 0xfec003ff, 'IOAPIC 0'),
    entry(0xfee00000, 0xfee00fff, 'Local APIC'),
    entry(0xfffc0000, 0xffffffff, 'Reserved'),
    ...(high > 0 ? [entry(0x100000000, 0x100000000 + high - 1, 'System RAM', 'ram')] : []),
  ];
}
