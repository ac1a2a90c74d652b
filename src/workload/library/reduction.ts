/** Sum of integers: trees of barriers in work groups, and one shared word that every group of every device adds to. */
import { allocate, BYTES_PER_ELEMENT, compare, upload } from '../arrays.js';
import { randomWords } from '../inputs.js';
import { ITEMS_PER_LANE, lanesFor, shareOut, together } from '../sharing.js';
import type { Workload, WorkloadEnv, WorkloadVerdict } from '../workload.js';

export const reductionWorkload: Workload = {
  name: 'reduction',
  summary: 'sums integers by trees, with an atomic a work group',
  defaultSize: 1 << 19,
  sizes: { min: 1, max: 1 << 26, meaning: 'integers' },
  footprint: ({ size }) => (size + 1) * BYTES_PER_ELEMENT.i32,
  run,
};

/** The sum modulo 2^32, as a signed integer. */
export function reductionReference(values: Int32Array): number {
  let sum = 0;
  for (const value of values) sum = (sum + value) | 0;
  return sum;
}

async function run(env: WorkloadEnv): Promise<WorkloadVerdict> {
  const values = randomWords(env.random, new Int32Array(env.size));
  const source = await upload(env, 'i32', values);
  const out = await allocate(env, 'i32', 1);

  await together(
    shareOut(env, env.size, ITEMS_PER_LANE).map(({ mirror, first, count }) => {
      const args = { source: source.at(first), count, out: out.at(0) };
      return mirror.launch('reduce', { lanes: lanesFor(count), groupSize: 64, args });
    }),
  );

  const comparison = compare('sum', [reductionReference(values)], await out.read());
  return { ...comparison, expectFaults: 1, expectMigrations: 1 };
}
