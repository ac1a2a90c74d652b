/** Two plain strategies: always the tame answer, and a uniform random walk. */
import { createRandom, type Random } from '../../base/random.js';
import { INJECT_ODDS, type Strategy } from './strategy.js';

/** Whoever has waited longest runs; one execution is all there is. */
export function roundRobin(): Strategy {
  let executions = 0;
  return {
    name: 'round-robin',
    begin: () => executions++ === 0,
    choose: () => 0,
    get complete() {
      return executions > 0;
    },
  };
}

/** Each candidate is as likely as the others, at every choice. */
export function randomWalk(seed: number): Strategy {
  const random = createRandom(seed);
  return {
    name: 'random',
    begin: () => true,
    choose: (_point, n, run) => (run === undefined ? inject(random, n) : random.below(n)),
    complete: false,
  };
}

/** Now and then something else than the tame answer, where it is not a choice of who runs. */
export const inject = (random: Random, n: number): number =>
  n > 1 && random.below(INJECT_ODDS) === 0 ? 1 + random.below(n - 1) : 0;
