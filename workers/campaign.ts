/** The door of a campaign's thread: runs one task after the other for src/campaign/pool.ts, or one seed for src/campaign/seeds.ts. */
import { PfnlessError } from '../src/base/errors.js';
import type { TaskAnswer } from '../src/campaign/pool.js';
import type { SeedTask } from '../src/campaign/seeds.js';
import { type CampaignTask, runTask } from '../src/campaign/task.js';
import { overrideMachineSpec } from '../src/machine/spec.js';
import { errorReport } from '../src/report/error-report.js';
import { type RoundResult, runRound } from '../src/stress/round.js';

export default async function run(task: CampaignTask): Promise<TaskAnswer> {
  try {
    return { row: await runTask(task) };
  } catch (error) {
    if (error instanceof PfnlessError) return { refused: { ...errorReport(error), code: error.code } };
    throw error;
  }
}

/** A round of stress. */
export const stressRound = ({ seed, spec, inject, operations }: SeedTask): Promise<RoundResult> =>
  runRound({
    spec: overrideMachineSpec(spec, { seed }),
    inject,
    isOver: (done) => operations !== null && done >= operations,
  });
