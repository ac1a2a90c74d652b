/** One pass over vectors of 32-bit floats: vector-add and saxpy. */
import type { LaneContext } from '../program.js';
import { chunkOf } from './chunk.js';

export interface VectorAddArgs {
  readonly a: number;
  readonly b: number;
  readonly out: number;
  /** Elements. */
  readonly count: number;
}

/** out[i] = a[i] + b[i] */
export function vectorAdd(ctx: LaneContext, args: VectorAddArgs): void {
  const { start, end } = chunkOf(ctx, args.count);
  for (let i = start; i < end; i++) {
    const at = i * 4;
    ctx.storeF32(args.out + at, ctx.loadF32(args.a + at) + ctx.loadF32(args.b + at));
  }
}

export interface SaxpyArgs {
  readonly x: number;
  readonly y: number;
  readonly alpha: number;
  /** Elements. */
  readonly count: number;
}

/** y[i] = alpha * x[i] + y[i], rounded once to 32 bits. */
export function saxpy(ctx: LaneContext, args: SaxpyArgs): void {
  const { start, end } = chunkOf(ctx, args.count);
  for (let i = start; i < end; i++) {
    const at = i * 4;
    ctx.storeF32(args.y + at, args.alpha * ctx.loadF32(args.x + at) + ctx.loadF32(args.y + at));
  }
}
