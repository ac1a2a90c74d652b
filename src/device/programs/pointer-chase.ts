/** Follow links: each load's address is the result of the one before it, so nothing can be fetched ahead. */
import type { LaneContext } from '../program.js';

export interface PointerChaseArgs {
  /** A word a node: the number of the next node. */
  readonly links: number;
  /** A word a lane: the node where it starts. */
  readonly starts: number;
  readonly hops: number;
  /** A word a lane: where it got to, and the sum of the nodes that it visited (modulo 2^32). */
  readonly ends: number;
  readonly sums: number;
}

export function pointerChase(ctx: LaneContext, args: PointerChaseArgs): void {
  const own = ctx.lane * 4;
  let node = ctx.loadU32(args.starts + own);
  let sum = 0;
  for (let hop = 0; hop < args.hops; hop++) {
    node = ctx.loadU32(args.links + node * 4);
    sum = (sum + node) >>> 0;
  }
  ctx.storeU32(args.ends + own, node);
  ctx.storeU32(args.sums + own, sum);
}
