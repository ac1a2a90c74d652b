/**
 * The device's memory management unit: TLB first, then the page table. It never waits: an access that the page table does not
 * allow now is a miss, and what becomes of it (a replayable fault) is the caller's business.
 */
import { PAGE_SIZE } from '../abi/address.js';
import { DEVICE_PTE_ATOMIC, DEVICE_PTE_VALID, DEVICE_PTE_WRITE, devicePteMemory } from '../abi/device-pte.js';
import type { Access } from '../abi/packet.js';
import { assert } from '../base/errors.js';
import { load32 } from '../sync/word.js';
import { type ReachableMemory, windowOffset } from './memory.js';
import { walk } from './page-table.js';
import { CONTEXTS_MAX, type Tlb } from './tlb.js';

/** Flags that an entry needs, by ACCESS_*. */
const NEEDED = [
  DEVICE_PTE_VALID,
  DEVICE_PTE_VALID | DEVICE_PTE_WRITE,
  DEVICE_PTE_VALID | DEVICE_PTE_WRITE | DEVICE_PTE_ATOMIC,
] as const;

export class Mmu {
  readonly tlb: Tlb;
  /** Accesses whose page had no entry in the TLB. */
  misses = 0;
  /** Walks of the page table: misses, and hits with too few permissions. */
  walks = 0;
  /** Walks that found a translation. */
  served = 0;

  readonly #memory: ReachableMemory;
  readonly #words: Int32Array;
  readonly #roots = new Map<number, number>();

  constructor(tlb: Tlb, memory: ReachableMemory, pageTables: SharedArrayBuffer) {
    this.tlb = tlb;
    this.#memory = memory;
    this.#words = new Int32Array(pageTables);
  }

  /** @throws InvariantViolation when the context is bound already, or out of range */
  bind(context: number, root: number): void {
    assert(context >= 0 && context < CONTEXTS_MAX, `context ${context} is not in 0..${CONTEXTS_MAX - 1}`);
    assert(!this.#roots.has(context), `context ${context} is bound already`);
    this.#roots.set(context, root);
  }

  unbind(context: number): void {
    this.#roots.delete(context);
    this.tlb.invalidateRange(context, 0, Number.MAX_SAFE_INTEGER);
  }

  isBound(context: number): boolean {
    return this.#roots.has(context);
  }

  /**
   * Translate a page of a bound context for an access.
   * @returns the TLB's entry for it, or -1 when the page table does not allow the access now
   */
  translate(context: number, vpn: number, access: Access): number {
    const needed = NEEDED[access];
    const entry = this.tlb.lookup(context, vpn);
    if (entry >= 0 && (this.tlb.words[entry]! & needed) === needed) return entry;
    if (entry < 0) this.misses++;
    return this.#walk(context, vpn, needed);
  }

  #walk(context: number, vpn: number, needed: number): number {
    this.walks++;
    const at = walk(this.#words, this.#roots.get(context)!, vpn * PAGE_SIZE);
    if (at === 0) return -1;
    const word = load32(this.#words, at);
    if ((word & needed) !== needed) return -1;
    const frame = load32(this.#words, at + 1) >>> 0;
    const memory = devicePteMemory(word);
    const window = this.#memory.window(memory, frame);
    assert(
      window !== undefined,
      () => `page ${vpn} of context ${context} maps frame ${frame} of memory ${memory}: no link`,
    );
    this.served++;
    return this.tlb.insert(context, vpn, word, window, windowOffset(frame));
  }
}
