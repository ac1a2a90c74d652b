/**
 * The slots of a host CPU's TLB. Direct mapped: a virtual page number picks the slot. A store needs a translation that was made
 * for a store, when the entry's dirty bit was set; so a clean entry is walked again by the first store.
 */
import { CPU_TLB_BYTES, CPU_TLB_SLOTS } from '../abi/cpu.js';

const EMPTY = -1;

/** One translation: virtual page number, what it is mapped to, and whether for stores. */
export interface Translation {
  readonly vpn: number;
  readonly target: number;
  readonly writable: boolean;
}

export class TlbSlots {
  readonly #vpn: Float64Array;
  readonly #target: Float64Array;
  readonly #writable: Uint8Array;

  /**
   * It holds what the memory holds: a new one has to be flushed.
   * @param memory CPU_TLB_BYTES from byte `at` on; shared, so that checkers may look into another thread's TLB
   */
  constructor(memory: ArrayBuffer | SharedArrayBuffer = new ArrayBuffer(CPU_TLB_BYTES), at = 0) {
    this.#vpn = new Float64Array(memory, at, CPU_TLB_SLOTS);
    this.#target = new Float64Array(memory, at + CPU_TLB_SLOTS * 8, CPU_TLB_SLOTS);
    this.#writable = new Uint8Array(memory, at + CPU_TLB_SLOTS * 16, CPU_TLB_SLOTS);
  }

  /** What a virtual page is mapped to, or -1: a miss, or a store through a read-only translation. */
  lookup(vpn: number, write: boolean): number {
    const slot = vpn & (CPU_TLB_SLOTS - 1);
    return this.#vpn[slot] === vpn && (!write || this.#writable[slot] !== 0) ? this.#target[slot] : -1;
  }

  fill(vpn: number, target: number, writable: boolean): void {
    const slot = vpn & (CPU_TLB_SLOTS - 1);
    this.#vpn[slot] = vpn;
    this.#target[slot] = target;
    this.#writable[slot] = writable ? 1 : 0;
  }

  flushAll(): void {
    this.#vpn.fill(EMPTY);
  }

  /** Forget virtual pages `first` to `end - 1`. */
  flush(first: number, end: number): void {
    if (end - first >= CPU_TLB_SLOTS) {
      this.flushAll();
      return;
    }
    for (let vpn = first; vpn < end; vpn++) {
      const slot = vpn & (CPU_TLB_SLOTS - 1);
      if (this.#vpn[slot] === vpn) this.#vpn[slot] = EMPTY;
    }
  }

  /** What it holds, for checkers. */
  held(): readonly Translation[] {
    const found: Translation[] = [];
    for (let slot = 0; slot < CPU_TLB_SLOTS; slot++) {
      const vpn = this.#vpn[slot];
      if (vpn !== EMPTY) found.push({ vpn, target: this.#target[slot], writable: this.#writable[slot] !== 0 });
    }
    return found;
  }
}
