/** The door of a campaign's thread: runs one task after the other for src/campaign/pool.ts. */
import { PfnlessError } from '../src/base/errors.js';
import type { TaskAnswer } from '../src/campaign/pool.js';
import { type CampaignTask, runTask } from '../src/campaign/task.js';
import { errorReport } from '../src/report/error-report.js';

export default async function run(task: CampaignTask): Promise<TaskAnswer> {
  try {
    return { row: await runTask(task) };
  } catch (error) {
    if (error instanceof PfnlessError) return { refused: { ...errorReport(error), code: error.code } };
    throw error;
  }
}
