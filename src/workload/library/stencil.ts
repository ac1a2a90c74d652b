/**
 * Stencil with halo exchange. The grid is cut into bands, and each device keeps its band in its own memory:
 *
 *   device 0  | rows 0 .. k-1     |
 *             |  row k-1          |  <- read by device 1: its page is pulled over,
 *   device 1  |  row k            |     and pulled back when device 0 needs it again
 *             | rows k+1 ..       |
 *
 * Two grids swap their roles after each iteration; all devices finish one before any starts the next.
 */
import { allocate, BYTES_PER_ELEMENT, compare, upload } from '../arrays.js';
import { smallIntegers } from '../inputs.js';
import { lanesFor, shareOut, together } from '../sharing.js';
import type { Workload, WorkloadEnv, WorkloadVerdict } from '../workload.js';

const ITERATIONS = 8;

export const stencilWorkload: Workload = {
  name: 'stencil',
  summary: `${ITERATIONS} steps of a 2-D stencil, halo rows go between devices`,
  defaultSize: 256,
  sizes: { min: 1, max: 4096, meaning: 'rows and columns of the grid' },
  footprint: ({ size }) => 2 * size * size * BYTES_PER_ELEMENT.f64,
  run,
};

/** One step on an n x n grid. The sum is made in the order in which the devices make it, so the result is exact. */
export function stencilReference(grid: Float64Array<ArrayBuffer>, n: number): Float64Array<ArrayBuffer> {
  const next = grid.slice();
  for (let row = 1; row < n - 1; row++) {
    for (let col = 1; col < n - 1; col++) {
      const i = row * n + col;
      next[i] = (grid[i]! + (grid[i - n]! + grid[i + n]! + grid[i - 1]! + grid[i + 1]!)) / 5;
    }
  }
  return next;
}

async function run(env: WorkloadEnv): Promise<WorkloadVerdict> {
  const n = env.size;
  const start = smallIntegers(env.random, new Float64Array(n * n));
  let source = await upload(env, 'f64', start);
  let target = await allocate(env, 'f64', n * n);

  const bands = shareOut(env, n);
  let expected = start;
  for (let iteration = 0; iteration < ITERATIONS; iteration++) {
    await together(
      bands.map(({ mirror, first, count }) => {
        const args = { source: source.at(0), target: target.at(0), width: n, height: n, firstRow: first, rows: count };
        return mirror.launch('stencil-2d', { lanes: lanesFor(count * n), args });
      }),
    );
    [source, target] = [target, source];
    expected = stencilReference(expected, n);
  }

  return { ...compare('grid', expected, await source.readHome()), expectFaults: 1, expectMigrations: 1 };
}
