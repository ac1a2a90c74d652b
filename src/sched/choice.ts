/**
 * The oracle of an inline run (ARCHITECTURE decision 5): every choice is one call of `choose`, and a run is a pure function of
 * the machine's spec, the program and the answers.
 *
 * Answer 0 is always the tame one: whoever has waited longest runs, nobody is preempted, nothing fails, messages arrive in
 * order. So "always 0" is a fair round robin, and the first schedule that a systematic search tries.
 */
import { createRandom } from '../base/random.js';

export interface Chooser {
  /**
   * One of `n` ways to go on.
   * @param point what is chosen, e.g. `run`, `preempt task`: strategies may weigh some points differently
   * @param n how many ways there are, at least 1
   * @returns an integer in [0, n)
   */
  choose(point: string, n: number): number;
}

/** Where somebody else may go first, if the answer is 1: inside a kernel task, between two operations of a device's lane. */
export type PreemptPoint = 'preempt task' | 'preempt lane';
/**
 * A random schedule preempts at one such point in so many: with even odds, runs would be mostly switches. A lane has many
 * more points than a task, and what it did before the switch is replayed after it.
 */
const PREEMPT_ODDS: Readonly<Record<PreemptPoint, number>> = Object.freeze({ 'preempt task': 8, 'preempt lane': 512 });
const isPreemptPoint = (point: string): point is PreemptPoint => Object.hasOwn(PREEMPT_ODDS, point);

export const roundRobin = (): Chooser => ({ choose: () => 0 });

/** Uniform choices out of a seed, but preemptions, which are rarer. */
export function randomChooser(seed: number): Chooser {
  const random = createRandom(seed);
  return {
    choose: (point, n) => (isPreemptPoint(point) ? Number(random.below(PREEMPT_ODDS[point]) === 0) : random.below(n)),
  };
}
