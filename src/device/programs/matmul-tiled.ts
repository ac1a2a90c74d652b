/**
 * Matrix product through work-group memory. A work group makes one square tile of the result; tile after tile of `a` and
 * `b` goes through the group's memory, with a barrier when it is full and another when it is no longer needed.
 *
 *            b: [k][col]
 *            |  tile  |        each lane loads RUN cells of either tile, and keeps the sums of RUN neighbouring cells
 *   a: [row][k]   out: [row][col]                                                               of one row of the result
 */
import type { LaneContext } from '../program.js';

/** Rows and columns of a tile. Two tiles of doubles fill half of the work-group memory. */
export const MATMUL_TILE = 32;
/** Lanes of a work group. */
export const MATMUL_GROUP = 64;

const TILE_CELLS = MATMUL_TILE * MATMUL_TILE;
/** Cells of a row that one lane is in charge of. */
const RUN = TILE_CELLS / MATMUL_GROUP;

export interface MatmulArgs {
  /** `rows` x `n` of 32-bit floats. */
  readonly a: number;
  /** `n` x `n`. */
  readonly b: number;
  /** `rows` x `n`. */
  readonly out: number;
  readonly rows: number;
  readonly n: number;
}

/** Lanes that a product of `rows` x `n` takes, with groups of `MATMUL_GROUP`. */
export const matmulLanes = (rows: number, n: number): number =>
  Math.ceil(rows / MATMUL_TILE) * Math.ceil(n / MATMUL_TILE) * MATMUL_GROUP;

/** out = a * b */
export function matmulTiled(ctx: LaneContext, args: MatmulArgs): void {
  if (ctx.groupSize !== MATMUL_GROUP) throw new Error(`matmul-tiled needs work groups of ${MATMUL_GROUP} lanes`);
  const { rows, n } = args;
  const tilesAcross = Math.ceil(n / MATMUL_TILE);
  const firstRow = Math.floor(ctx.group / tilesAcross) * MATMUL_TILE;
  const firstCol = (ctx.group % tilesAcross) * MATMUL_TILE;
  const cell = ctx.localLane * RUN;
  const tileRow = Math.floor(cell / MATMUL_TILE);
  const tileCol = cell % MATMUL_TILE;

  const sums = new Float64Array(RUN);
  for (let k = 0; k < n; k += MATMUL_TILE) {
    loadRun(ctx, { base: args.a, rows, cols: n, row: firstRow + tileRow, col: k + tileCol, local: cell });
    loadRun(ctx, {
      base: args.b,
      rows: n,
      cols: n,
      row: k + tileRow,
      col: firstCol + tileCol,
      local: TILE_CELLS + cell,
    });
    ctx.barrier();
    for (let j = 0; j < MATMUL_TILE; j++) {
      const left = ctx.loadLocal(tileRow * MATMUL_TILE + j);
      const right = TILE_CELLS + j * MATMUL_TILE + tileCol;
      for (let i = 0; i < RUN; i++) sums[i]! += left * ctx.loadLocal(right + i);
    }
    ctx.barrier();
  }

  const row = firstRow + tileRow;
  if (row >= rows) return;
  for (let i = 0; i < RUN && firstCol + tileCol + i < n; i++) {
    ctx.storeF32(args.out + (row * n + firstCol + tileCol + i) * 4, sums[i]!);
  }
}

/** Where `RUN` cells of a matrix start, and the index in work-group memory where they go. */
interface Run {
  readonly base: number;
  readonly rows: number;
  readonly cols: number;
  readonly row: number;
  readonly col: number;
  readonly local: number;
}

/** Bring a run into work-group memory; cells outside of the matrix count as zero. */
function loadRun(ctx: LaneContext, run: Run): void {
  for (let i = 0; i < RUN; i++) {
    const inside = run.row < run.rows && run.col + i < run.cols;
    ctx.storeLocal(run.local + i, inside ? ctx.loadF32(run.base + (run.row * run.cols + run.col + i) * 4) : 0);
  }
}
