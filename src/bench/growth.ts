/**
 * Growth: what a unit of work costs as the machine around it grows. Each axis is walked once from its smallest size
 * to its largest, as two of the largest machines at a time would not fit everywhere; the exponent is the slope of the cost over
 * the size, both logarithmic: 0 is flat, 1 is linear.
 */
import { PfnlessError } from '../base/errors.js';
import type { Addressing } from '../machine/types.js';
import { takeTurn } from '../sched/turn.js';
import { deviceAxis, migratedBytesAxis, pagemapAxis, processAxis, vmaAxis } from './growth-axes.js';
import { median, medianAbsoluteDeviation } from './statistics.js';

/** One direction in which a machine grows. */
export interface Axis {
  readonly name: string;
  /** Of what one unit of the cost is. */
  readonly unit: string;
  /** Sizes, the smallest first, and how people read one. */
  readonly sizes: readonly number[];
  readonly print?: (size: number) => string;
  /** The largest exponent that the axis may have. */
  readonly limit: number;
  /** The cost at each size, as often as the caller likes: nanoseconds for a unit. */
  prepare(size: number, addressing: Addressing): Promise<AxisRig>;
}

export interface AxisRig {
  sample(): Promise<number>;
  dispose(): Promise<void>;
}

export interface GrowthPoint {
  readonly size: number;
  readonly label: string;
  readonly ns: number;
  readonly mad: number;
}

export interface GrowthResult {
  readonly name: string;
  readonly addressing: Addressing;
  readonly unit: string;
  readonly points: readonly GrowthPoint[];
  readonly exponent: number;
  readonly limit: number;
  readonly held: boolean;
}

export interface GrowthOptions {
  readonly addressing?: Addressing;
  readonly filter?: string;
  /** Sizes above this are left out: tests have no time for the largest machines. */
  readonly sizeMax?: number;
  readonly samples?: number;
  /** How long each machine works before it counts: its threads' code is compiled anew. Default: 500 ms. */
  readonly warmUpMs?: number;
  onProgress?(name: string): void;
}

const AXES: readonly Axis[] = [migratedBytesAxis, vmaAxis, pagemapAxis, processAxis, deviceAxis];

/**
 * @throws InvariantViolation when the work was not done, or done wrongly
 * @throws PfnlessError ERR_PFNLESS_ARGUMENT when the filter leaves nothing
 */
export async function runGrowth(options: GrowthOptions = {}): Promise<GrowthResult[]> {
  const { addressing = 'offset', filter = '', sizeMax = Number.POSITIVE_INFINITY, onProgress } = options;
  const { samples = 7, warmUpMs = 500 } = options;
  const results: GrowthResult[] = [];
  const chosen = AXES.filter(({ name }) => name.includes(filter));
  if (chosen.length === 0) {
    const names = AXES.map(({ name }) => name).join('; ');
    throw new PfnlessError(
      'ERR_PFNLESS_ARGUMENT',
      `nothing that grows has "${filter}" in its name; there are: ${names}`,
    );
  }
  for (const axis of chosen) {
    const points: GrowthPoint[] = [];
    // The smallest once more before it counts: the first machine of a kind finds everything cold.
    const sizes = axis.sizes.filter((size) => size <= sizeMax);
    for (const [at, size] of [sizes[0]!, ...sizes].entries()) {
      const label = axis.print?.(size) ?? String(size);
      onProgress?.(`${axis.name}: ${label}`);
      const rig = await axis.prepare(size, addressing);
      const times = await sampleRig(rig, samples, warmUpMs).finally(() => rig.dispose());
      if (at > 0) points.push({ size, label, ns: median(times), mad: medianAbsoluteDeviation(times) });
    }
    const exponent = slope(points);
    const { name, unit, limit } = axis;
    results.push({ name, addressing, unit, points, exponent, limit, held: exponent <= limit });
  }
  return results;
}

async function sampleRig(rig: AxisRig, samples: number, warmUpMs: number): Promise<number[]> {
  const times: number[] = [];
  for (const startMs = performance.now(); times.length < samples; await takeTurn()) {
    const ns = await rig.sample();
    if (performance.now() - startMs >= warmUpMs) times.push(ns);
  }
  return times;
}

/** Least squares over the logarithms. */
function slope(points: readonly GrowthPoint[]): number {
  const logs = points.map(({ size, ns }) => [Math.log(size), Math.log(ns)] as const);
  const mean = (at: 0 | 1): number => logs.reduce((sum, pair) => sum + pair[at], 0) / logs.length;
  const [meanX, meanY] = [mean(0), mean(1)];
  const covariance = logs.reduce((sum, [x, y]) => sum + (x - meanX) * (y - meanY), 0);
  const variance = logs.reduce((sum, [x]) => sum + (x - meanX) ** 2, 0);
  return covariance / variance;
}
