/** Sum of 32-bit integers: a chunk a lane, a tree of barriers a work group, one atomic a group. */
import type { LaneContext } from '../program.js';
import { chunkOf } from './chunk.js';

export interface ReduceArgs {
  readonly source: number;
  /** Words. */
  readonly count: number;
  /** The word that the sum is added to. */
  readonly out: number;
}

/** *out += the sum of source, modulo 2^32. */
export function reduce(ctx: LaneContext, args: ReduceArgs): void {
  const { start, end } = chunkOf(ctx, args.count);
  let sum = 0;
  for (let i = start; i < end; i++) sum = (sum + ctx.loadI32(args.source + i * 4)) | 0;

  const lane = ctx.localLane;
  ctx.storeLocal(lane, sum);
  ctx.barrier();
  // The upper half is folded onto the lower one until one value is left; the last group may be short.
  let width = Math.min(ctx.groupSize, ctx.lanes - ctx.group * ctx.groupSize);
  while (width > 1) {
    const half = Math.ceil(width / 2);
    if (lane + half < width) ctx.storeLocal(lane, (ctx.loadLocal(lane) + ctx.loadLocal(lane + half)) | 0);
    ctx.barrier();
    width = half;
  }
  if (lane === 0) ctx.atomicAdd(args.out, ctx.loadLocal(0));
}
