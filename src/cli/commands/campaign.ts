/** `pfnless campaign`: stress over many seeds on a pool of threads, with a result file that a later call goes on with. */
import { availableParallelism } from 'node:os';
import type { Command } from 'commander';
import { plural } from '../../base/plural.js';
import { SEED_MAX } from '../../base/random.js';
import { argumentError } from '../../base/require.js';
import { openResultFile, type ResultFile } from '../../campaign/result-file.js';
import { isJudged, type SeedRow, type SeedTask, startSeeds } from '../../campaign/seeds.js';
import { wrapFacts } from '../../report/terminal.js';
import { summary } from '../../stress/stress.js';
import { EXIT_FOUND, EXIT_HELD } from '../exit.js';
import { jobsNumber, wholeNumber } from '../machine-options.js';
import { paint, print, printJson, startProgress } from '../output.js';
import { forgetting } from '../runner.js';
import {
  addStressOptions,
  describeStress,
  heldText,
  reproCommand,
  type StressFlags,
  statistics,
  stressMachine,
} from './stress.js';

interface CampaignFlags extends StressFlags {
  readonly seeds: number;
  readonly jobs: number;
  readonly results?: string;
}

const SEEDS_MAX = 1_000_000;
const DEFAULT_SEEDS = 20;

export function addCampaignCommand(program: Command, exit: (code: number) => void): void {
  const command = program
    .command('campaign')
    .description(
      'stress over many seeds, several at a time: --ops is for each, --duration for all (those that run then come to their end)',
    );
  addStressOptions(command)
    .option('--seeds <n>', 'seeds, from --seed on', wholeNumber(1, SEEDS_MAX), DEFAULT_SEEDS)
    .option('--jobs <n>', 'machines at a time', jobsNumber, Math.min(4, availableParallelism()))
    .option('--results <file>', 'JSON lines, one a seed; seeds that are there already are not run again')
    .option('--json', 'print one JSON object')
    .action(async (flags: CampaignFlags) => exit(await campaign(flags)));
}

async function campaign(flags: CampaignFlags): Promise<number> {
  const { inject, ops = null, jobs, duration = Number.POSITIVE_INFINITY, json } = flags;
  const spec = stressMachine(flags);
  const { seed: first, ...machine } = spec;
  const file: ResultFile | null =
    flags.results === undefined ? null : openResultFile(flags.results, { machine, inject, operations: ops });
  const all = Array.from({ length: flags.seeds }, (_, at) => (first + at) % (SEED_MAX + 1));
  const wanted = new Set(all);
  const before = (file?.rows ?? []).filter(({ seed }) => wanted.has(seed));
  const known = new Set(before.map(({ seed }) => seed));
  const tasks = all
    .filter((seed) => !known.has(seed))
    .map((seed): SeedTask => ({ seed, spec, inject, operations: ops }));
  if (!json) {
    const resumed = known.size === 0 ? '' : ` · ${known.size} known already`;
    const seeds = `${plural(flags.seeds, 'seed')}, ${jobs} at a time${resumed}`;
    print(wrapFacts(`${describeStress(spec, inject)} · ${seeds}`));
  }
  const progress = await startProgress('starting');
  const end = performance.now() + duration;
  const rows = await startSeeds(tasks, {
    jobs,
    isOver: () => performance.now() >= end,
    onRow: (row) => file?.append(row),
    onProgress: ({ done, total, found, running }) =>
      progress.update(
        `${done} of ${plural(total, 'seed')} done, ${found} found something: running ${running.join(', ')}`,
      ),
  }).finished.finally(() => progress.stop());
  return report(flags, [...before, ...rows]);
}

function report(flags: CampaignFlags, rows: readonly SeedRow[]): number {
  const spec = stressMachine(flags);
  const results = rows.flatMap((row) => ('result' in row ? [row.result] : []));
  const bad = rows.filter(({ outcome }) => outcome !== 'held');
  const failures = bad.map((row) => {
    const episodes = 'result' in row ? row.result.episodes : null;
    return { ...row, repro: reproCommand(spec, flags, row.seed, episodes) };
  });
  const ok = bad.length === 0;
  const { failedSeed: _, failedEpisodes: __, settled, ...sums } = summary(results);
  const judged = rows.filter(isJudged).length;
  if (rows.length === 0) throw argumentError('Nothing was looked at: the time was up before the first seed.');
  if (flags.json) {
    printJson({
      ...{ schema: 'pfnless/campaign@1', ok, seed: spec.seed, addressing: spec.addressing, executor: spec.executor },
      ...{ ...forgetting(spec), seeds: flags.seeds, judged, settled, ...sums, failures },
    });
    return ok ? EXIT_HELD : EXIT_FOUND;
  }
  const lines = [`${judged} of ${plural(flags.seeds, 'seed')}\n`, ...statistics(summary(results))];
  for (const row of failures) {
    const what =
      'result' in row ? row.result.violations.map(({ invariant, message }) => `${invariant}: ${message}`) : row.message;
    lines.push(`${paint.bad(`seed ${row.seed} ${row.outcome}`)}: ${what}\n`, `again: ${row.repro}\n`);
  }
  if (ok) lines.push(heldText(sums));
  print(lines.join(''));
  return ok ? EXIT_HELD : EXIT_FOUND;
}
