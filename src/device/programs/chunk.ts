/** How a launch's items are dealt to its lanes: contiguous chunks, so that a lane stays on few pages. */
import type { LaneContext } from '../program.js';

/** Items `start` up to, not including, `end`. */
export interface Chunk {
  readonly start: number;
  readonly end: number;
}

/** This lane's chunk of `count` items. Empty for the last lanes when there are more lanes than items. */
export function chunkOf(ctx: LaneContext, count: number): Chunk {
  const size = Math.ceil(count / ctx.lanes);
  const start = Math.min(ctx.lane * size, count);
  return { start, end: Math.min(start + size, count) };
}
