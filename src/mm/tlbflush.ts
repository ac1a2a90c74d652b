/**
 * A CPU's TLB and its shootdown. Linux: arch/x86/mm/tlb.c flush_tlb_range().
 *
 * Direct mapped: a virtual page number picks the slot. The TLB belongs to one mm at a time, as without PCID: switching mm
 * empties it. Nothing here looks at the page tables, so a forgotten flush lets a CPU go on through a stale translation,
 * exactly as it would.
 */
import { PAGE_SIZE } from '../abi/address.js';
import type { Page, VirtAddr } from '../base/brand.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';

const SLOTS = 256;
const EMPTY = -1;

export class CpuTlb {
  readonly cpu: number;
  #mm: MmStruct | null = null;
  readonly #vpn = new Float64Array(SLOTS).fill(EMPTY);
  readonly #page = new Float64Array(SLOTS);
  readonly #writable = new Uint8Array(SLOTS);

  constructor(cpu: number) {
    this.cpu = cpu;
  }

  /** `switch_mm()`. */
  switchTo(mm: MmStruct): void {
    if (this.#mm === mm) return;
    this.#mm = mm;
    this.#vpn.fill(EMPTY);
  }

  /** Does this CPU hold translations of `mm`? (`mm_cpumask`) */
  holds(mm: MmStruct): boolean {
    return this.#mm === mm;
  }

  /** What a virtual page is mapped to, or -1: a miss, or a store through a read-only translation. */
  lookup(vpn: number, write: boolean): number {
    const slot = vpn & (SLOTS - 1);
    return this.#vpn[slot] === vpn && (!write || this.#writable[slot] !== 0) ? this.#page[slot] : -1;
  }

  fill(vpn: number, page: Page, writable: boolean): void {
    const slot = vpn & (SLOTS - 1);
    this.#vpn[slot] = vpn;
    this.#page[slot] = page;
    this.#writable[slot] = writable ? 1 : 0;
  }

  /** The translations it holds: address of the virtual page, what it is mapped to, whether for writing. For checkers. */
  *translations(): Generator<{ mm: MmStruct; address: VirtAddr; page: Page; writable: boolean }, void, void> {
    for (let slot = 0; slot < SLOTS && this.#mm !== null; slot++) {
      const vpn = this.#vpn[slot];
      if (vpn === EMPTY) continue;
      const address = (vpn * PAGE_SIZE) as VirtAddr;
      yield { mm: this.#mm, address, page: this.#page[slot] as Page, writable: this.#writable[slot] !== 0 };
    }
  }

  flushRange(start: VirtAddr, end: VirtAddr): void {
    const first = start / PAGE_SIZE;
    const last = end / PAGE_SIZE;
    if (last - first >= SLOTS) {
      this.#vpn.fill(EMPTY);
      return;
    }
    for (let vpn = first; vpn < last; vpn++) {
      const slot = vpn & (SLOTS - 1);
      if (this.#vpn[slot] === vpn) this.#vpn[slot] = EMPTY;
    }
  }
}

/** Make every CPU forget its translations of [start, end). Atomic: when it returns no CPU can use them. */
export function flushTlbRange(kernel: Kernel, mm: MmStruct, start: VirtAddr, end: VirtAddr): void {
  for (const tlb of kernel.cpus) {
    if (!tlb.holds(mm)) continue;
    kernel.stats.tlbShootdowns++;
    tlb.flushRange(start, end);
  }
}
