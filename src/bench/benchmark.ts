/**
 * What a benchmark is: some work on a machine, the base that it is measured against, and what it must reach.
 *
 * Everything counts in nanoseconds for one unit (a page, a load, a boot), so a subject and its base may do different numbers of
 * units in a round. A benchmark that finds a wrong result in its memory throws: the time that it took means nothing.
 */
import type { Addressing } from '../machine/types.js';

/** Limits of a ratio (at most) or, without a base, of a rate (at least). */
export interface Goal {
  readonly must: number;
  readonly aim: number;
}

export interface Subject {
  readonly name: string;
  readonly goal: Goal | null;
  /**
   * Instructions that Linux 7.2 retires for a unit, with its own test driver and no debug options: counted with the recorder of
   * the golden traces. Absent: not counted.
   */
  readonly kernelInstructions?: number;
}

/** What everything is measured against: work that the machine must do at least. */
export interface Base {
  readonly name: string;
  start(): BaseRun | Promise<BaseRun>;
}

export interface BaseRun {
  /** One sample: nanoseconds for a unit. */
  sample(): number | Promise<number>;
  dispose?(): Promise<void>;
}

/** A machine that is ready to be measured. */
export interface Rig {
  /** One sample of each subject, in their order: nanoseconds for a unit, or units a second of a benchmark without a base. */
  round(): Promise<readonly number[]>;
  /** @throws InvariantViolation when the work was not done, or done wrongly */
  verify?(): Promise<void>;
  dispose(): Promise<void>;
}

export interface Benchmark {
  readonly name: string;
  /** Of one unit: `ns a page`; without a base, of a rate: `executions/s`. */
  readonly unit: string;
  /** Null: the subjects are rates, and more is better. */
  readonly base: Base | null;
  readonly subjects: readonly Subject[];
  /** False: does the same under each addressing, so it runs under one. */
  readonly addressed: boolean;
  /** Null, when this installation has not what it takes. */
  prepare(addressing: Addressing): Promise<Rig | null>;
}
