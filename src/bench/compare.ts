/** Comparing two runs of the benchmarks: what has become slower by more than both of them wavered. */

import * as z from 'zod';
import { PfnlessError } from '../base/errors.js';
import { ADDRESSINGS } from '../mm/addressing/addressing.js';
import type { BenchResult } from './measure.js';

/** What an earlier run must have said: the output of `bench --json`, or the part of it that counts. */
const earlierRun = z.object({
  schema: z.literal('pfnless/bench@1'),
  results: z.array(
    z.object({
      name: z.string(),
      addressing: z.enum(ADDRESSINGS),
      ratio: z.number().nullable(),
      ratioMad: z.number().nullable(),
      median: z.number(),
      mad: z.number(),
    }),
  ),
});

export type EarlierRun = z.infer<typeof earlierRun>;
type Outcome = EarlierRun['results'][number];

export interface Comparison {
  readonly name: string;
  readonly addressing: string;
  /** How many times the time it took before: above 1 is slower. */
  readonly change: number;
  /** What the two runs wavered by together, in the same unit. */
  readonly noise: number;
  readonly regressed: boolean;
}

/** Median absolute deviations in a standard deviation. */
const MADS_A_SIGMA = 1.4826;
const SIGMAS = 3;
/** Less than this is never a regression: code is laid out anew by each change. */
const TOLERANCE = 0.03;

/** @throws PfnlessError ERR_PFNLESS_FILE for text that is not of `bench --json` */
export function parseEarlierRun(text: string, file: string): EarlierRun {
  try {
    return earlierRun.parse(JSON.parse(text));
  } catch (cause) {
    throw new PfnlessError('ERR_PFNLESS_FILE', `${file} is not what \`pfnless bench --json\` prints`, { cause });
  }
}

/** Results that are in both runs. Ratios are compared, as the computer may be another; rates only where there is no ratio. */
export function compareRuns(before: EarlierRun, after: readonly BenchResult[]): Comparison[] {
  return after.flatMap((now) => {
    const then = before.results.find(({ name, addressing }) => name === now.name && addressing === now.addressing);
    return then === undefined ? [] : [compareResults(then, now)];
  });
}

function compareResults(
  then: Outcome,
  now: Outcome & { readonly name: string; readonly addressing: string },
): Comparison {
  const isRatio = then.ratio !== null && now.ratio !== null;
  const change = isRatio ? now.ratio! / then.ratio! : then.median / now.median;
  const relative = ({ ratio, ratioMad, median, mad }: Outcome): number => (isRatio ? ratioMad! / ratio! : mad / median);
  const noise = Math.hypot(relative(then), relative(now)) * MADS_A_SIGMA * SIGMAS;
  const { name, addressing } = now;
  return { name, addressing, change, noise, regressed: change - 1 > Math.max(noise, TOLERANCE) };
}
