/**
 * HMM_PFN_* words: what `hmm_range_fault` returns. Linux: include/linux/hmm.h; bit 57 and the order's place are the series'.
 *
 * A range's words are seen as 32-bit halves, low half first (decision 15): a snapshot reads and writes one for every page.
 * All flags, and the order, stand in the upper half.
 */
import { type BitFieldLayout, bit, bits, defineBits } from './layout.js';

export const HMM = defineBits('hmm pfn', 64, {
  number: bits(0, 51, 'PFN, or offset in the device private address space'),
  order: bits(52, 56, 'order of the CPU mapping that covers the page'),
  devicePrivate: bit(57, 'HMM_PFN_DEVICE_PRIVATE: the number is an offset (the series)'),
  p2pdmaBus: bit(58, 'HMM_PFN_P2PDMA_BUS'),
  p2pdma: bit(59, 'HMM_PFN_P2PDMA'),
  dmaMapped: bit(60, 'HMM_PFN_DMA_MAPPED'),
  error: bit(61, 'HMM_PFN_ERROR: access to this address cannot be granted'),
  write: bit(62, 'HMM_PFN_WRITE'),
  valid: bit(63, 'HMM_PFN_VALID'),
});

const upperMask = ({ mask }: BitFieldLayout): number => Number(mask >> 32n) | 0;

export const HMM_PFN_VALID = upperMask(HMM.valid);
export const HMM_PFN_WRITE = upperMask(HMM.write);
export const HMM_PFN_ERROR = upperMask(HMM.error);
export const HMM_PFN_DMA_MAPPED = upperMask(HMM.dmaMapped);
export const HMM_PFN_P2PDMA = upperMask(HMM.p2pdma);
export const HMM_PFN_P2PDMA_BUS = upperMask(HMM.p2pdmaBus);
export const HMM_PFN_DEVICE_PRIVATE = upperMask(HMM.devicePrivate);
/** Input: fault the page in. */
export const HMM_PFN_REQ_FAULT = HMM_PFN_VALID;
/** Input: fault the page in for writing. */
export const HMM_PFN_REQ_WRITE = HMM_PFN_WRITE;
/** Flags which survive from input to output. */
export const HMM_PFN_INOUT_FLAGS = HMM_PFN_DMA_MAPPED | HMM_PFN_P2PDMA | HMM_PFN_P2PDMA_BUS;

const ORDER_SHIFT = HMM.order.low - 32;
const ORDER_MASK = Number(HMM.order.valueMask);
const HALF = 2 ** 32;
const NUMBER_UPPER_MASK = upperMask(HMM.number);

/** The words of a range: the halves of page i at 2i (lower) and 2i + 1 (upper). */
export type HmmPfns = Int32Array;
export const makeHmmPfns = (pages: number): HmmPfns => new Int32Array(2 * pages);

/** HMM_PFN_* flags of page `i`, with whatever else the upper half holds. */
export const hmmPfnFlags = (pfns: HmmPfns, i: number): number => pfns[2 * i + 1];
/** The number of page `i`, of whichever kind the flags say. */
export const hmmPfnNumber = (pfns: HmmPfns, i: number): number =>
  (pfns[2 * i] >>> 0) + (pfns[2 * i + 1] & NUMBER_UPPER_MASK) * HALF;
/** `hmm_pfn_to_map_order()`. */
export const hmmPfnMapOrder = (pfns: HmmPfns, i: number): number => (pfns[2 * i + 1] >>> ORDER_SHIFT) & ORDER_MASK;

/** Report page `i`: the number's lower half, and its upper half with the flags. The input's sticky flags stay. */
export function setHmmPfnHalves(pfns: HmmPfns, i: number, lower: number, upper: number): void {
  pfns[2 * i] = lower;
  pfns[2 * i + 1] = (pfns[2 * i + 1] & HMM_PFN_INOUT_FLAGS) | upper;
}
/** The same of a number that is not in halves yet. */
export const setHmmPfn = (pfns: HmmPfns, i: number, number: number, flags: number): void =>
  setHmmPfnHalves(pfns, i, number, number < HALF ? flags : Math.floor(number / HALF) | flags);
/** The flags that say of which order a mapping is (`hmm_pfn_flags_order()`). */
export const hmmPfnOrderFlags = (order: number): number => order << ORDER_SHIFT;
