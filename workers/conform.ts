/** The door of a thread that replays traces for src/cli/replay-files.ts. */
import { PfnlessError } from '../src/base/errors.js';
import { type ReplayShard, replayShard, type ShardAnswer } from '../src/cli/replay-shard.js';
import { errorReport } from '../src/report/error-report.js';

export default async function run({ files, options, progress }: ReplayShard): Promise<ShardAnswer> {
  let current = files[0]!;
  try {
    return await replayShard(files, options, (file) => {
      current = file;
      progress.postMessage(file);
    });
  } catch (error) {
    if (error instanceof PfnlessError) return { refused: errorReport(error), file: current };
    throw error;
  } finally {
    progress.close();
  }
}
