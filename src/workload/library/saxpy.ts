/** saxpy: y = alpha * x + y, in place, so that every page of y moves as data and not as zeroes. */
import { BYTES_PER_ELEMENT, compare, upload } from '../arrays.js';
import { smallIntegers } from '../inputs.js';
import { ITEMS_PER_LANE, lanesFor, shareOut, together } from '../sharing.js';
import type { Workload, WorkloadEnv, WorkloadVerdict } from '../workload.js';

export const saxpyWorkload: Workload = {
  name: 'saxpy',
  summary: 'adds a multiple of one vector to another, in place',
  defaultSize: 1 << 19,
  sizes: { min: 1, max: 1 << 26, meaning: 'elements of each vector' },
  footprint: ({ size }) => 2 * size * BYTES_PER_ELEMENT.f32,
  run,
};

export function saxpyReference(alpha: number, x: Float32Array, y: Float32Array): Float32Array {
  return y.map((value, i) => alpha * x[i]! + value);
}

async function run(env: WorkloadEnv): Promise<WorkloadVerdict> {
  const alpha = 1 + env.random.below(7);
  const addend = smallIntegers(env.random, new Float32Array(env.size));
  const start = smallIntegers(env.random, new Float32Array(env.size));
  const x = await upload(env, 'f32', addend);
  const y = await upload(env, 'f32', start);

  await together(
    shareOut(env, env.size, ITEMS_PER_LANE).map(({ mirror, first, count }) => {
      const args = { x: x.at(first), y: y.at(first), alpha, count };
      return mirror.launch('saxpy', { lanes: lanesFor(count), args });
    }),
  );

  const comparison = compare('y', saxpyReference(alpha, addend, start), await y.readHome());
  return { ...comparison, expectFaults: 1, expectMigrations: 1 };
}
