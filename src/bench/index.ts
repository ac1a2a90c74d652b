/** All benchmarks. Each verifies what it measured and gives its ratio to a base of the same run. */
import { PfnlessError } from '../base/errors.js';
import type { Addressing } from '../machine/types.js';
import { forkAndUnmap, rangeLookUp } from './address-space.js';
import type { Benchmark } from './benchmark.js';
import { cpuFaults, deviceFaultBatches, deviceFaults } from './faults.js';
import { tlbHits, tlbMisses } from './loads.js';
import { type AddressingCost, type BenchResult, type Effort, type Measurement, measure } from './measure.js';
import { bulkMigration, hugeMigration } from './migration.js';
import { executions, traceReplay } from './rates.js';
import { bootAndDispose, structPages } from './start.js';
import { twoDevices } from './two-devices.js';

export type { Comparison, EarlierRun } from './compare.js';
export { compareRuns, parseEarlierRun } from './compare.js';
export type { GrowthResult } from './growth.js';
export { runGrowth } from './growth.js';
export type { AddressingCost, BenchResult, Measurement } from './measure.js';
export { benchmarkPage } from './page.js';

const BENCHMARKS: readonly Benchmark[] = [
  bulkMigration,
  hugeMigration,
  cpuFaults,
  deviceFaults,
  deviceFaultBatches,
  tlbHits,
  tlbMisses,
  forkAndUnmap,
  rangeLookUp,
  structPages,
  bootAndDispose,
  executions,
  traceReplay,
  twoDevices,
];

export interface BenchOptions {
  readonly addressings?: readonly Addressing[];
  /** Only benchmarks whose name, or a subject's, has this in it. */
  readonly filter?: string;
  readonly effort?: Effort;
  onProgress?(name: string): void;
}

export const EFFORT: Effort = { warmUpMs: 2000, samples: 25 };

/**
 * @throws InvariantViolation when a benchmark produced a wrong result
 * @throws PfnlessError ERR_PFNLESS_ARGUMENT when the filter leaves nothing
 */
export async function runBenchmarks(options: BenchOptions = {}): Promise<Measurement> {
  const { addressings = ['offset', 'legacy'], filter = '', effort = EFFORT, onProgress } = options;
  const chosen = BENCHMARKS.filter(({ name, subjects }) =>
    [name, ...subjects.map((subject) => subject.name)].some((text) => text.includes(filter)),
  );
  if (chosen.length === 0) {
    const names = BENCHMARKS.flatMap(({ subjects }) => subjects.map(({ name }) => name));
    throw new PfnlessError(
      'ERR_PFNLESS_ARGUMENT',
      `no benchmark has "${filter}" in its name; there are: ${names.join('; ')}`,
    );
  }
  const results: BenchResult[] = [];
  const costs: AddressingCost[] = [];
  for (const benchmark of chosen) {
    onProgress?.(benchmark.name);
    const measured = await measure(benchmark, addressings, effort);
    results.push(...measured.results);
    costs.push(...measured.costs);
  }
  if (results.length === 0)
    throw new PfnlessError('ERR_PFNLESS_ARGUMENT', 'what is replayed comes with the source, not with the package');
  return { results, costs };
}
