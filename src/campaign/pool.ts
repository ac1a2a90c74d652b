/**
 * A campaign: many tasks, several at a time, each in a thread of a piscina pool (ARCHITECTURE decision 7). A task owns its machine, and
 * that machine may own threads for its devices. Rows come back in the order of the tasks, whoever was done first.
 *
 * A task that crashes its thread (or ends it) costs its own row, which says so; piscina puts a new thread in its place.
 * What a run without threads would throw (a machine that does not boot, wrong use) is thrown here, too: the one of the
 * first such task, once those that run have ended; nothing is started after it.
 */
import type { Piscina } from 'piscina';
import { type ErrorCode, PfnlessError } from '../base/errors.js';
import { type ErrorReport, errorReport } from '../report/error-report.js';
import { type CampaignTask, failedRow, type WorkloadRow } from './task.js';
import { runInPool } from './threads.js';

/** What a thread answers: errors lose their class and their code on the way from thread to thread, so they go as data. */
export type TaskAnswer =
  | { readonly row: WorkloadRow }
  | { readonly refused: ErrorReport & { readonly code: ErrorCode } };

export interface CampaignOptions {
  /** Tasks at a time. */
  readonly jobs: number;
  /** Called as tasks start and end. */
  readonly onProgress?: (progress: CampaignProgress) => void;
  /** The module that runs a task in a thread. */
  readonly door?: URL;
}

export interface CampaignProgress {
  readonly done: number;
  readonly total: number;
  /** Workloads that are running. */
  readonly running: readonly string[];
}

const DOOR = new URL('../../workers/campaign.js', import.meta.url);

/** @throws PfnlessError what the first task that was refused was refused for */
export async function runCampaign(tasks: readonly CampaignTask[], options: CampaignOptions): Promise<WorkloadRow[]> {
  const { jobs, onProgress = () => {}, door = DOOR } = options;
  let isRefused = false;
  const answers = await runInPool(tasks, {
    ...{ door, jobs },
    run: async (pool, task) => {
      const answer = await runInThread(pool, task);
      if ('refused' in answer) isRefused = true;
      return answer;
    },
    isOver: () => isRefused,
    onProgress: (done, running) =>
      onProgress({ done, total: tasks.length, running: Array.from(running, ({ workload }) => workload) }),
  });
  return answers.map((answer) => {
    if ('row' in answer) return answer.row;
    const { code, message, errno } = answer.refused;
    throw new PfnlessError(code, message, errno === undefined ? {} : { errno });
  });
}

/** What a task comes to, it answers itself (task.ts): an error that comes out is the thread's end. */
async function runInThread(pool: Piscina, task: CampaignTask): Promise<TaskAnswer> {
  try {
    return (await pool.run(task)) as TaskAnswer;
  } catch (error) {
    const { code, message } = errorReport(error);
    return { row: failedRow(task, { code, message: `The thread of this run crashed: ${message}` }) };
  }
}
