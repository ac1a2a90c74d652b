/** All benchmarks. Each verifies what it measured and gives its ratio to a base of the same run. */
import { bulkMigration } from './bulk-migration.js';
import { deviceLoads } from './device-loads.js';
import type { BenchResult } from './measure.js';

export type { BenchResult } from './measure.js';

export interface BenchOptions {
  onProgress?(name: string): void;
}

const BENCHMARKS: readonly { readonly name: string; run(): Promise<BenchResult[]> }[] = [
  { name: 'bulk migration (offset)', run: () => bulkMigration('offset') },
  { name: 'bulk migration (legacy)', run: () => bulkMigration('legacy') },
  { name: 'device loads', run: deviceLoads },
];

/** @throws PfnlessError when a benchmark produced a wrong result */
export async function runBenchmarks(options: BenchOptions = {}): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  for (const { name, run } of BENCHMARKS) {
    options.onProgress?.(name);
    results.push(...(await run()));
  }
  return results;
}
