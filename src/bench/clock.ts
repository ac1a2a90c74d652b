/** The clock of the benchmarks. */

/** Nanoseconds that `work` takes for one of its `units`. */
export function nsPer(units: number, work: () => void): number {
  const start = performance.now();
  work();
  return ((performance.now() - start) * 1e6) / units;
}

/** The same for work that others do meanwhile. */
export async function nsPerAsync(units: number, work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return ((performance.now() - start) * 1e6) / units;
}
