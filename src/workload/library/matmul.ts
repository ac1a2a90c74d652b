/**
 * Matrix product. Each device makes a band of rows of the result. It reads a band of `a`, and a copy of `b` of its own, as
 * programs for several GPUs do: sharing one copy would be a fight over its pages (that is what migrate-storm is for).
 */
import { MATMUL_GROUP, MATMUL_TILE, matmulLanes } from '../../device/programs/matmul-tiled.js';
import { allocate, BYTES_PER_ELEMENT, compare, upload } from '../arrays.js';
import { smallIntegers } from '../inputs.js';
import { shareOut, together } from '../sharing.js';
import type { Workload, WorkloadEnv, WorkloadVerdict } from '../workload.js';

export const matmulWorkload: Workload = {
  name: 'matmul',
  summary: 'multiplies matrices by tiles in work-group memory',
  defaultSize: 128,
  sizes: { min: 1, max: 512, meaning: 'rows and columns' },
  footprint: ({ size, deviceMemory }) => (2 + deviceMemory.length) * size * size * BYTES_PER_ELEMENT.f32,
  run,
};

/** The product of two n x n matrices, row after row. */
export function matmulReference(a: Float32Array, b: Float32Array, n: number): Float32Array {
  const out = new Float32Array(n * n);
  for (let row = 0; row < n; row++) {
    for (let col = 0; col < n; col++) {
      let sum = 0;
      for (let k = 0; k < n; k++) sum += a[row * n + k]! * b[k * n + col]!;
      out[row * n + col] = sum;
    }
  }
  return out;
}

async function run(env: WorkloadEnv): Promise<WorkloadVerdict> {
  const n = env.size;
  const left = smallIntegers(env.random, new Float32Array(n * n));
  const right = smallIntegers(env.random, new Float32Array(n * n));
  const a = await upload(env, 'f32', left);
  const out = await allocate(env, 'f32', n * n);

  const copies = [];
  for (const share of shareOut(env, n, MATMUL_TILE)) copies.push({ ...share, b: await upload(env, 'f32', right) });

  await together(
    copies.map(({ mirror, first, count: rows, b }) => {
      const args = { a: a.at(first * n), b: b.at(0), out: out.at(first * n), rows, n };
      return mirror.launch('matmul-tiled', { lanes: matmulLanes(rows, n), groupSize: MATMUL_GROUP, args });
    }),
  );

  const comparison = compare('out', matmulReference(left, right, n), await out.readHome());
  return { ...comparison, expectFaults: 1, expectMigrations: 1 };
}
