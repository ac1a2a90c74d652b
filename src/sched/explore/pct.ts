/**
 * Probabilistic concurrency testing: each thread has a random priority, the highest that can run does, and at d - 1 random steps
 * the one that runs falls to the bottom. A bug that needs d ordering constraints among n threads and k steps is found with a probability of
 * at least 1 / (n * k^(d-1)) in each execution (Burckhardt and others, ASPLOS 2010).
 *
 * A thread that gives way of its own accord falls to the bottom too: it waits for others in a loop, and would starve them.
 */
import { createRandom } from '../../base/random.js';
import { inject } from './random.js';
import type { RunChoice, Strategy } from './strategy.js';

/** Steps of an execution before any has been seen. */
const FIRST_GUESS = 32;

/** @param depth d, at least 1 */
export function pct(seed: number, depth: number): Strategy {
  const random = createRandom(seed);
  /** Longest execution so far, in choices of who runs. */
  let longest = FIRST_GUESS;
  let step = 0;
  /** Higher runs first. */
  const priorities = new Map<number, number>();
  const changes = new Set<number>();
  let lowest = 0;

  const priorityOf = (thread: number): number => {
    const known = priorities.get(thread);
    if (known !== undefined) return known;
    // Above all that have fallen.
    const priority = 1 + random.unit();
    priorities.set(thread, priority);
    return priority;
  };
  const highest = ({ threads }: RunChoice): number => {
    let best = 0;
    for (let at = 1; at < threads.length; at++) {
      if (priorityOf(threads[at]!) > priorityOf(threads[best]!)) best = at;
    }
    return best;
  };
  const fall = (thread: number): void => {
    priorities.set(thread, --lowest);
  };

  return {
    name: 'pct',
    begin() {
      step = 0;
      lowest = 0;
      priorities.clear();
      changes.clear();
      for (let change = 1; change < depth; change++) changes.add(random.below(longest));
      return true;
    },
    choose(_point, n, run) {
      if (run === undefined) return inject(random, n);
      for (const thread of run.threads) priorityOf(thread);
      if (changes.has(step)) fall(run.threads[highest(run)]!);
      step++;
      return highest(run);
    },
    yielded: fall,
    end() {
      longest = Math.max(longest, step);
    },
    complete: false,
  };
}
