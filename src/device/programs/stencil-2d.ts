/** One step of a 5-point stencil over a grid of doubles. The rows above and below a band belong to other devices. */
import type { LaneContext } from '../program.js';
import { chunkOf } from './chunk.js';

export interface StencilArgs {
  /** The whole grids, `width` x `height`, row after row. */
  readonly source: number;
  readonly target: number;
  readonly width: number;
  readonly height: number;
  /** The band to compute. */
  readonly firstRow: number;
  readonly rows: number;
}

/** target = mean of a cell and its four neighbours; cells on the border keep their value. */
export function stencil2d(ctx: LaneContext, args: StencilArgs): void {
  const { source, target, width, height } = args;
  const { start, end } = chunkOf(ctx, args.rows);
  const pitch = width * 8;
  for (let row = args.firstRow + start; row < args.firstRow + end; row++) {
    const edgeRow = row === 0 || row === height - 1;
    for (let col = 0; col < width; col++) {
      const offset = row * pitch + col * 8;
      const at = source + offset;
      let value = ctx.loadF64(at);
      if (!edgeRow && col > 0 && col < width - 1) {
        value += ctx.loadF64(at - pitch) + ctx.loadF64(at + pitch) + ctx.loadF64(at - 8) + ctx.loadF64(at + 8);
        value /= 5;
      }
      ctx.storeF64(target + offset, value);
    }
  }
}
