/** Sampling: warm-up, then bases and subjects in turn, so that a machine whose speed drifts disturbs both alike. */

/** One benchmark's outcome. `value` is the median in `unit`; `mad` the median absolute deviation. */
export interface BenchResult {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /** The base measured in the same run, and `median / median of the base` in time: how many times as long. */
  readonly ratioTo: string | null;
  readonly ratio: number | null;
  readonly median: number;
  readonly mad: number;
  readonly samples: number;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export function medianAbsoluteDeviation(values: readonly number[]): number {
  const centre = median(values);
  return median(values.map((value) => Math.abs(value - centre)));
}

/** Milliseconds that `work` takes. */
export async function timeMs(work: () => unknown): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}
