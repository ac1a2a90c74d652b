/**
 * A CPU's TLB and its shootdown. Linux: arch/x86/mm/tlb.c flush_tlb_range().
 *
 * The TLB belongs to one mm at a time, as without PCID: switching mm empties it. Nothing here looks at the page tables, so a
 * forgotten flush lets a CPU go on through a stale translation, exactly as it would.
 */
import { PAGE_SIZE, TASK_SIZE } from '../abi/address.js';
import type { Page, VirtAddr } from '../base/brand.js';
import { TlbSlots } from '../cpu/tlb.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';

/** The CPU of the kernel's own thread. Its translations name struct pages. */
export class CpuTlb {
  readonly cpu: number;
  #mm: MmStruct | null = null;
  readonly #slots = new TlbSlots();

  constructor(cpu: number) {
    this.cpu = cpu;
    this.#slots.flushAll();
  }

  /** `switch_mm()`. */
  switchTo(mm: MmStruct): void {
    if (this.#mm === mm) return;
    this.#mm = mm;
    this.#slots.flushAll();
  }

  /** Does this CPU hold translations of `mm`? (`mm_cpumask`) */
  holds(mm: MmStruct): boolean {
    return this.#mm === mm;
  }

  /** What a virtual page is mapped to, or -1: a miss, or a store through a read-only translation. */
  lookup(vpn: number, write: boolean): number {
    return this.#slots.lookup(vpn, write);
  }

  fill(vpn: number, page: Page, writable: boolean): void {
    this.#slots.fill(vpn, page, writable);
  }

  /** The translations it holds: address of the virtual page, what it is mapped to, whether for writing. For checkers. */
  *translations(): Generator<CpuTranslation, void, void> {
    if (this.#mm === null) return;
    for (const { vpn, target, writable } of this.#slots.held()) {
      yield { mm: this.#mm, address: (vpn * PAGE_SIZE) as VirtAddr, page: target as Page, writable };
    }
  }

  flushRange(start: VirtAddr, end: VirtAddr): void {
    this.#slots.flush(start / PAGE_SIZE, end / PAGE_SIZE);
  }
}

/** A translation that a CPU holds. */
export interface CpuTranslation {
  readonly mm: MmStruct;
  /** Of the virtual page. */
  readonly address: VirtAddr;
  readonly page: Page;
  readonly writable: boolean;
}

/** A CPU that runs by itself, as the kernel sees it: what inter-processor interrupts do. */
export interface RemoteCpu {
  readonly cpu: number;
  /** May it hold translations of `mm`, or be walking its tables? */
  holds(mm: MmStruct): boolean;
  /** Ask it to forget [start, end). */
  requestFlush(start: VirtAddr, end: VirtAddr): void;
  /** Until it has, or will before it uses a translation again. Blocks: shootdowns happen under page table locks. */
  awaitFlush(): void;
  /** For checkers, at rest. */
  translations(): Iterable<CpuTranslation>;
}

/** Make every CPU forget its translations of [start, end). Atomic: when it returns no CPU can use them. */
export function flushTlbRange(kernel: Kernel, mm: MmStruct, start: VirtAddr, end: VirtAddr): void {
  for (const tlb of kernel.cpus) {
    if (!tlb.holds(mm)) continue;
    kernel.stats.tlbShootdowns++;
    tlb.flushRange(start, end);
  }
  if (kernel.remoteCpus.length > 0) flushRemote(kernel, mm, start, end);
}

function flushRemote(kernel: Kernel, mm: MmStruct, start: VirtAddr, end: VirtAddr): void {
  const told = kernel.remoteCpus.filter((cpu) => cpu.holds(mm));
  kernel.stats.tlbShootdowns += told.length;
  for (const cpu of told) cpu.requestFlush(start, end);
  for (const cpu of told) cpu.awaitFlush();
}

/**
 * `tlb_remove_table_sync_one()`: a page table that was unhooked may be freed when this returns, as nobody walks it any more. The
 * kernel's own CPU is not walking now.
 */
export function flushTlbTables(kernel: Kernel, mm: MmStruct): void {
  if (kernel.remoteCpus.length > 0) flushRemote(kernel, mm, 0 as VirtAddr, TASK_SIZE as VirtAddr);
}
