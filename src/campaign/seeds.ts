/**
 * Stress over many seeds: rounds (src/stress/round.ts) on the threads of a piscina pool, one machine each. A task that is aborted, or
 * that crashes its thread, costs its own row; piscina puts a new thread in its place, and all others go on.
 */
import type { Piscina } from 'piscina';
import type { InjectionId } from '../base/injection.js';
import type { MachineSpec } from '../machine/spec.js';
import { errorReport } from '../report/error-report.js';
import type { RoundResult } from '../stress/round.js';
import { runInPool } from './threads.js';

/** One round, as data: it goes to other threads. */
export interface SeedTask {
  readonly seed: number;
  /** The machine, but for its seed. */
  readonly spec: MachineSpec;
  readonly inject: readonly InjectionId[];
  /** End after so many loads and stores; `null`: the whole round. */
  readonly operations: number | null;
}

/** What came of a seed. */
export type SeedRow =
  | { readonly seed: number; readonly outcome: 'held' | 'found'; readonly result: RoundResult }
  | { readonly seed: number; readonly outcome: 'crashed' | 'aborted'; readonly message: string };

/** Has the seed been judged? Otherwise it is worth another try. */
export const isJudged = ({ outcome }: SeedRow): boolean => outcome === 'held' || outcome === 'found';

export interface SeedProgress {
  readonly done: number;
  readonly total: number;
  /** Seeds that found something. */
  readonly found: number;
  /** Seeds that are running. */
  readonly running: readonly number[];
}

export interface SeedOptions {
  /** Tasks at a time. */
  readonly jobs: number;
  /** Asked before a task is begun: enough? */
  readonly isOver?: () => boolean;
  readonly onProgress?: (progress: SeedProgress) => void;
  /** Called with each row as soon as it is there. */
  readonly onRow?: (row: SeedRow) => void;
  /** The module that runs a task in a thread. */
  readonly door?: URL;
}

export interface SeedCampaign {
  /** Rows of the seeds that were begun, in the order of the tasks. Never rejects for what a task does. */
  readonly finished: Promise<readonly SeedRow[]>;
  /** End one seed, now, with its thread and its machine. @returns false when it does not run */
  abort(seed: number): boolean;
}

const DOOR = new URL('../../workers/campaign.js', import.meta.url);
/** Longest time of a round, in milliseconds: each of its episodes has an end of its own. */
const ROUND_MAX_MS = 1_800_000;

export function startSeeds(tasks: readonly SeedTask[], options: SeedOptions): SeedCampaign {
  const { jobs, isOver = () => false, onProgress = () => {}, onRow = () => {}, door = DOOR } = options;
  const controllers = new Map<number, AbortController>();
  let found = 0;
  const finished = runInPool(tasks, {
    ...{ door, jobs, isOver },
    run: async (pool, task) => {
      const row = await runSeed(pool, task, controllers);
      if (row.outcome === 'found') found++;
      onRow(row);
      return row;
    },
    onProgress: (done, running) =>
      onProgress({ done, total: tasks.length, found, running: Array.from(running, ({ seed }) => seed) }),
  });
  return {
    finished,
    abort(seed) {
      const controller = controllers.get(seed);
      controller?.abort();
      return controller !== undefined;
    },
  };
}

/** @param controllers gets the seed's own while it runs */
async function runSeed(pool: Piscina, task: SeedTask, controllers: Map<number, AbortController>): Promise<SeedRow> {
  const { seed } = task;
  const controller = new AbortController();
  const { signal } = controller;
  controllers.set(seed, controller);
  const late = setTimeout(() => controller.abort(), ROUND_MAX_MS);
  try {
    const result = (await pool.run(task, { name: 'stressRound', signal })) as RoundResult;
    return { seed, outcome: result.violations.length === 0 ? 'held' : 'found', result };
  } catch (error) {
    if (signal.aborted) return { seed, outcome: 'aborted', message: 'it was told to end, or took too long' };
    return { seed, outcome: 'crashed', message: errorReport(error).message };
  } finally {
    clearTimeout(late);
    controllers.delete(seed);
  }
}
