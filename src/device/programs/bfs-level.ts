/**
 * One level of a breadth-first search. The graph is in compressed rows: the neighbours of vertex v are
 * edges[offsets[v]] .. edges[offsets[v + 1] - 1]. The frontier is every vertex whose distance is `level`.
 */
import type { LaneContext } from '../program.js';
import { chunkOf } from './chunk.js';

/** Distance of a vertex that has not been reached. */
export const BFS_UNREACHED = 0x7fff_ffff;

export interface BfsLevelArgs {
  readonly offsets: number;
  readonly edges: number;
  /** A word a vertex. */
  readonly distance: number;
  /** The vertices whose edges this launch follows. */
  readonly first: number;
  readonly count: number;
  readonly level: number;
  /** The word that the number of newly reached vertices is added to. */
  readonly found: number;
}

/** Reach the neighbours of the frontier: whoever exchanges a neighbour's distance first has found it. */
export function bfsLevel(ctx: LaneContext, args: BfsLevelArgs): void {
  const { start, end } = chunkOf(ctx, args.count);
  let found = 0;
  for (let vertex = args.first + start; vertex < args.first + end; vertex++) {
    if (ctx.loadI32(args.distance + vertex * 4) !== args.level) continue;
    const last = ctx.loadU32(args.offsets + vertex * 4 + 4);
    for (let edge = ctx.loadU32(args.offsets + vertex * 4); edge < last; edge++) {
      const neighbour = args.distance + ctx.loadU32(args.edges + edge * 4) * 4;
      if (ctx.atomicCompareExchange(neighbour, BFS_UNREACHED, args.level + 1) === BFS_UNREACHED) found++;
    }
  }
  if (found > 0) ctx.atomicAdd(args.found, found);
}
