/** Histogram of bytes: each lane counts its chunk in registers and adds what it found to the shared bins atomically. */
import type { LaneContext } from '../program.js';
import { chunkOf } from './chunk.js';

export const HISTOGRAM_BINS = 256;

export interface HistogramArgs {
  readonly source: number;
  /** Bytes. */
  readonly count: number;
  /** `HISTOGRAM_BINS` words. */
  readonly bins: number;
}

/** bins[v] += how often v occurs in source. */
export function histogram(ctx: LaneContext, args: HistogramArgs): void {
  const { start, end } = chunkOf(ctx, args.count);
  const counts = new Uint32Array(HISTOGRAM_BINS);
  for (let i = start; i < end; i++) counts[ctx.loadU8(args.source + i)]!++;
  for (let bin = 0; bin < HISTOGRAM_BINS; bin++) {
    if (counts[bin]! > 0) ctx.atomicAdd(args.bins + bin * 4, counts[bin]!);
  }
}
