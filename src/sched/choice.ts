/**
 * The oracle of an inline run (DESIGN decision 5): every choice is one call of `choose`, and a run is a pure function of
 * the machine's spec, the program and the answers.
 *
 * Answer 0 is always the tame one: whoever has waited longest runs, nobody is preempted, nothing fails, messages arrive in
 * order. So "always 0" is a fair round robin, and the first schedule that a systematic search tries.
 */
import { createRandom } from '../base/random.js';

export interface Chooser {
  /**
   * One of `n` ways to go on.
   * @param point what is chosen, e.g. `run`, `preempt`: strategies may weigh some points differently
   * @param n how many ways there are, at least 1
   * @returns an integer in [0, n)
   */
  choose(point: string, n: number): number;
}

/** The choice of a preemption point: 1 is "somebody else may go first". */
export const PREEMPT_POINT = 'preempt';
/** A random schedule preempts at one preemption point in so many: at half of them, runs would be mostly switches. */
const PREEMPT_ODDS = 8;

export const roundRobin = (): Chooser => ({ choose: () => 0 });

/** Uniform choices out of a seed, but preemptions, which are rarer. */
export function randomChooser(seed: number): Chooser {
  const random = createRandom(seed);
  return {
    choose: (point, n) => (point === PREEMPT_POINT ? Number(random.below(PREEMPT_ODDS) === 0) : random.below(n)),
  };
}
