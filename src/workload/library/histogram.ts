/** Histogram of bytes: all devices add to the same bins, whose page goes from device to device while they do. */
import { HISTOGRAM_BINS } from '../../device/programs/histogram.js';
import { allocate, BYTES_PER_ELEMENT, compare, upload } from '../arrays.js';
import { randomBytes } from '../inputs.js';
import { lanesFor, shareOut, together } from '../sharing.js';
import type { Workload, WorkloadEnv, WorkloadVerdict } from '../workload.js';

/** A page of bytes a lane. */
const BYTES_PER_LANE = 4096;

export const histogramWorkload: Workload = {
  name: 'histogram',
  summary: 'counts bytes into bins that all devices share, with atomics',
  defaultSize: 1 << 20,
  sizes: { min: 1, max: 1 << 28, meaning: 'bytes' },
  footprint: ({ size }) => size + HISTOGRAM_BINS * BYTES_PER_ELEMENT.u32,
  run,
};

export function histogramReference(bytes: Uint8Array): Uint32Array {
  const bins = new Uint32Array(256);
  for (const byte of bytes) bins[byte]!++;
  return bins;
}

async function run(env: WorkloadEnv): Promise<WorkloadVerdict> {
  const bytes = randomBytes(env.random, new Uint8Array(env.size));
  const source = await upload(env, 'u8', bytes);
  const bins = await allocate(env, 'u32', HISTOGRAM_BINS);

  await together(
    shareOut(env, env.size, BYTES_PER_LANE).map(({ mirror, first, count }) => {
      const args = { source: source.at(first), count, bins: bins.at(0) };
      return mirror.launch('histogram', { lanes: lanesFor(count, BYTES_PER_LANE), args });
    }),
  );

  const comparison = compare('bins', histogramReference(bytes), await bins.read());
  return { ...comparison, expectFaults: 1, expectMigrations: 1 };
}
