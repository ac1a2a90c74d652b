/**
 * What decides an execution: every choice of the stepper (stepper.ts), and of whoever injects hostile but legal events, is one
 * call of `choose`. Answer 0 is the tame one.
 */
import type { Chooser } from '../choice.js';

/** Who could go on at a choice of who runs: candidates by number, in the order of the answers. */
export interface RunChoice {
  readonly threads: readonly number[];
  /** The first candidate is the one that runs now, and could go on: every other answer preempts it. */
  readonly stays: boolean;
}

export interface Strategy extends Chooser {
  readonly name: string;
  /** A new execution begins. False: there is nothing left to try. */
  begin(): boolean;
  choose(point: string, n: number, run?: RunChoice): number;
  /** A thread gave way of its own accord: it waits for something that others have to do. */
  yielded?(thread: number): void;
  /**
   * A thread has done one step: from the choice (or the lack of one) that let it run to the next place where another may.
   * @param footprint a set of bits, one for each thing that the step may have touched; steps without a common bit commute
   */
  stepped?(thread: number, footprint: number): void;
  /** The execution is over. */
  end?(): void;
  /** Everything that the strategy covers has been tried. Random strategies never say so. */
  readonly complete: boolean;
  /** Executions that ended in nothing but what was tried in another order, of strategies that can tell. */
  readonly redundant?: number;
}

/** Of environment's choices, random strategies take another answer than the tame one once in so many. */
export const INJECT_ODDS = 16;
