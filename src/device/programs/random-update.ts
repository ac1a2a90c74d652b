/** GUPS: atomic additions all over a table, at places that a linear congruential generator of the lane's own picks. */
import type { LaneContext } from '../program.js';

export interface RandomUpdateArgs {
  /** `words` words, 2^24 at the most. */
  readonly table: number;
  readonly words: number;
  /** Updates of each lane. */
  readonly updates: number;
  readonly seed: number;
}

/** table[upper 24 bits of the state, modulo `words`] += its lower 8 bits, `updates` times. */
export function randomUpdate(ctx: LaneContext, args: RandomUpdateArgs): void {
  let state = (args.seed + ctx.lane) >>> 0;
  for (let i = 0; i < args.updates; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    ctx.atomicAdd(args.table + ((state >>> 8) % args.words) * 4, state & 0xff);
  }
}
