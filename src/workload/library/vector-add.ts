/** Vector addition: the smallest workload that moves pages both ways. */
import { allocate, BYTES_PER_ELEMENT, compare, upload } from '../arrays.js';
import { smallIntegers } from '../inputs.js';
import { ITEMS_PER_LANE, lanesFor, shareOut, together } from '../sharing.js';
import type { Workload, WorkloadEnv, WorkloadVerdict } from '../workload.js';

export const vectorAddWorkload: Workload = {
  name: 'vector-add',
  summary: 'adds two vectors of floats',
  defaultSize: 1 << 19,
  sizes: { min: 1, max: 1 << 26, meaning: 'elements of each vector' },
  footprint: ({ size }) => 3 * size * BYTES_PER_ELEMENT.f32,
  run,
};

export function vectorAddReference(a: Float32Array, b: Float32Array): Float32Array {
  return a.map((value, i) => value + b[i]!);
}

async function run(env: WorkloadEnv): Promise<WorkloadVerdict> {
  const left = smallIntegers(env.random, new Float32Array(env.size));
  const right = smallIntegers(env.random, new Float32Array(env.size));
  const a = await upload(env, 'f32', left);
  const b = await upload(env, 'f32', right);
  const out = await allocate(env, 'f32', env.size);

  await together(
    shareOut(env, env.size, ITEMS_PER_LANE).map(({ mirror, first, count }) => {
      const args = { a: a.at(first), b: b.at(first), out: out.at(first), count };
      return mirror.launch('vector-add', { lanes: lanesFor(count), args });
    }),
  );

  const comparison = compare('out', vectorAddReference(left, right), await out.readHome());
  return { ...comparison, expectFaults: 1, expectMigrations: 1 };
}
