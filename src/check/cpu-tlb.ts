/**
 * Holds: what a CPU's TLB holds is what the page tables say. The entry of the address is present, maps the same page (in RAM or
 * on a coherent device), and is writable and dirty where the TLB lets the CPU store; so whatever took something away from an
 * entry also flushed.
 *
 * Does not see: translations that were used and dropped since. Suspended only where CPUs are threads, while anything is in flight: a
 * shootdown happens under the page table's lock, so that between two steps of the kernel every one has been answered.
 */
import { LOW_DIRTY, LOW_PRESENT, LOW_WRITE } from '../abi/pte-halves.js';
import type { Checker } from '../machine/state.js';
import { cpuEntryAt, placeText } from './page-tables.js';

/** Hardware sets the dirty bit before it stores, and never again while the TLB holds the translation. */
const STORE = LOW_WRITE | LOW_DIRTY;

export const cpuTlb: Checker = {
  invariant: 'cpu-tlb',
  statement: "each translation in a CPU's TLB is what the page table says",
  always: true,
  look({ kernel }) {
    const problems: string[] = [];
    for (const tlb of [...kernel.cpus, ...kernel.remoteCpus]) {
      for (const { mm, address, page, writable } of tlb.translations()) {
        const entry = kernel.mms.has(mm) ? cpuEntryAt(kernel, mm, address) : null;
        const mapped = entry?.content;
        // Made where it is wanted: nearly every translation is right.
        const place = (): string => `CPU ${tlb.cpu}, ${placeText(mm, address)}`;
        if (entry === null || (entry.low & LOW_PRESENT) === 0) {
          problems.push(`${place()}: page ${page} is in the TLB, but nothing is mapped`);
        } else if (mapped !== page) {
          problems.push(`${place()}: page ${page} is in the TLB, but page ${mapped} is mapped`);
        } else if (writable && (entry.low & STORE) !== STORE) {
          problems.push(`${place()}: the TLB lets the CPU store, but the page table says read-only or clean`);
        }
      }
    }
    return problems;
  },
};
