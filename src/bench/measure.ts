/**
 * Measuring: warm-up, then in each round the base and every machine in turn, so that a computer whose speed drifts disturbs all
 * alike. A ratio is the median of the ratios of the rounds, not the ratio of two medians.
 */
import type { Addressing } from '../machine/types.js';
import { takeTurn } from '../sched/turn.js';
import type { BaseRun, Benchmark, Rig, Subject } from './benchmark.js';
import { median, medianAbsoluteDeviation } from './statistics.js';

/** One subject's outcome under one addressing. `value` is the median in `unit`; `mad` the median absolute deviation. */
export interface BenchResult {
  readonly name: string;
  readonly addressing: Addressing;
  readonly value: number;
  readonly unit: string;
  /** The base, and how many times as long the subject takes. Null: the value itself has the goal, and more is better. */
  readonly ratioTo: string | null;
  readonly ratio: number | null;
  readonly ratioMad: number | null;
  readonly median: number;
  readonly mad: number;
  readonly samples: number;
  /** What it must reach, and whether it did. */
  readonly must: number | null;
  readonly aim: number | null;
  readonly reached: 'aim' | 'must' | 'missed' | null;
  /** What Linux would need on a computer that retires three instructions a nanosecond; in ns. */
  readonly linuxNs: number | null;
}

/** The same subject under both addressings, round by round. */
export interface AddressingCost {
  readonly name: string;
  /** Time under `offset` by time under `legacy`. */
  readonly offsetByLegacy: number;
  readonly mad: number;
  readonly samples: number;
}

export interface Measurement {
  readonly results: readonly BenchResult[];
  readonly costs: readonly AddressingCost[];
}

export interface Effort {
  /** Rounds do not count for so many milliseconds: what is measured is compiled, and its memory found, before the first that does. */
  readonly warmUpMs: number;
  /** Rounds that count. */
  readonly samples: number;
}

const INSTRUCTIONS_A_NS = 3;

/** @throws InvariantViolation when the work was not done, or done wrongly */
export async function measure(
  benchmark: Benchmark,
  addressings: readonly Addressing[],
  { warmUpMs, samples }: Effort,
): Promise<Measurement> {
  const base = (await benchmark.base?.start()) ?? null;
  const rigs: { addressing: Addressing; rig: Rig; rounds: (readonly number[])[] }[] = [];
  try {
    for (const addressing of benchmark.addressed ? addressings : addressings.slice(0, 1)) {
      const rig = await benchmark.prepare(addressing);
      if (rig !== null) rigs.push({ addressing, rig, rounds: [] });
    }
    const bases: number[] = [];
    const startMs = performance.now();
    for (let round = 0, counted = 0; counted < samples; round++) {
      // Some rounds never leave this thread: Ctrl-C is to be seen all the same.
      await takeTurn();
      const counts = performance.now() - startMs >= warmUpMs;
      if (counts) counted++;
      const baseNs = base === null ? 1 : await base.sample();
      if (counts) bases.push(baseNs);
      // Each goes first in its turn.
      const order = round % 2 === 0 ? rigs : [...rigs].reverse();
      for (const { rig, rounds } of order) {
        const times = await rig.round();
        if (counts) rounds.push(times);
      }
    }
    for (const { rig } of rigs) await rig.verify?.();
    const results = rigs.flatMap(({ addressing, rounds }) =>
      benchmark.subjects.map((subject, at) => resultOf(benchmark, subject, addressing, column(rounds, at), bases)),
    );
    const [legacy, offset] = (['legacy', 'offset'] as const).map((name) =>
      rigs.find((each) => each.addressing === name),
    );
    const costs =
      legacy && offset
        ? benchmark.subjects.map(({ name }, at) =>
            costOf(benchmark, name, column(legacy.rounds, at), column(offset.rounds, at)),
          )
        : [];
    return { results, costs };
  } finally {
    await disposeAll(base, rigs);
  }
}

async function disposeAll(base: BaseRun | null, rigs: readonly { readonly rig: Rig }[]): Promise<void> {
  await base?.dispose?.();
  for (const { rig } of rigs) await rig.dispose();
}

const column = (rounds: readonly (readonly number[])[], at: number): number[] => rounds.map((times) => times[at]!);

function resultOf(
  { base, unit }: Benchmark,
  { name, goal, kernelInstructions }: Subject,
  addressing: Addressing,
  values: readonly number[],
  bases: readonly number[],
): BenchResult {
  const ratios = base === null ? null : values.map((value, i) => value / bases[i]!);
  const ratio = ratios && median(ratios);
  const value = median(values);
  return {
    ...{ name, addressing, value, unit, ratioTo: base?.name ?? null, ratio },
    ratioMad: ratios && medianAbsoluteDeviation(ratios),
    ...{ median: value, mad: medianAbsoluteDeviation(values), samples: values.length },
    ...{ must: goal?.must ?? null, aim: goal?.aim ?? null },
    reached: goal && (ratio === null ? reached(-value, -goal.must, -goal.aim) : reached(ratio, goal.must, goal.aim)),
    linuxNs: kernelInstructions === undefined ? null : kernelInstructions / INSTRUCTIONS_A_NS,
  };
}

/** Less is better. */
const reached = (value: number, must: number, aim: number): 'aim' | 'must' | 'missed' =>
  value <= aim ? 'aim' : value <= must ? 'must' : 'missed';

function costOf(
  { base }: Benchmark,
  name: string,
  legacy: readonly number[],
  offset: readonly number[],
): AddressingCost {
  const isRate = base === null;
  const ratios = offset.map((value, i) => (isRate ? legacy[i]! / value : value / legacy[i]!));
  return { name, offsetByLegacy: median(ratios), mad: medianAbsoluteDeviation(ratios), samples: ratios.length };
}
