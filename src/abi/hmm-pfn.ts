/**
 * HMM_PFN_* words: what `hmm_range_fault` returns. Linux: include/linux/hmm.h; bit 57 and the order's place are the series'.
 * The flags fill the top of the word, so this is a bigint.
 */
import type { DevicePrivateOffset, HmmPfn, Pfn } from '../base/brand.js';
import { bit, bits, defineBits } from './layout.js';

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

export const HMM_PFN_VALID = HMM.valid.mask;
export const HMM_PFN_WRITE = HMM.write.mask;
export const HMM_PFN_ERROR = HMM.error.mask;
export const HMM_PFN_DMA_MAPPED = HMM.dmaMapped.mask;
export const HMM_PFN_P2PDMA = HMM.p2pdma.mask;
export const HMM_PFN_P2PDMA_BUS = HMM.p2pdmaBus.mask;
export const HMM_PFN_DEVICE_PRIVATE = HMM.devicePrivate.mask;
export const HMM_PFN_ORDER_SHIFT = HMM.order.low;
/** Input: fault the page in. */
export const HMM_PFN_REQ_FAULT = HMM_PFN_VALID;
/** Input: fault the page in for writing. */
export const HMM_PFN_REQ_WRITE = HMM_PFN_WRITE;
/** Flags which survive from input to output. */
export const HMM_PFN_INOUT_FLAGS = HMM_PFN_DMA_MAPPED | HMM_PFN_P2PDMA | HMM_PFN_P2PDMA_BUS;

const NUMBER_MASK = HMM.number.mask;

export const hmmPfnOfPfn = (pfn: Pfn, flags: bigint): HmmPfn => (BigInt(pfn) | flags) as HmmPfn;
export const hmmPfnOfOffset = (offset: DevicePrivateOffset, flags: bigint): HmmPfn =>
  (BigInt(offset) | flags | HMM_PFN_DEVICE_PRIVATE) as HmmPfn;
export const hmmPfnNumber = (pfn: HmmPfn): number => Number(pfn & NUMBER_MASK);
export const hmmPfnMapOrder = (pfn: HmmPfn): number => Number((pfn >> HMM.order.shift) & HMM.order.valueMask);
