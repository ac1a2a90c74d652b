/** `pfnless run`: workloads from the library, each verified. */
import type { Command } from 'commander';
import { PfnlessError } from '../../base/errors.js';
import { suggestion } from '../../base/nearest.js';
import { type CampaignTask, FORGETFUL_MAX_MS, runTask, type WorkloadRow } from '../../campaign/task.js';
import { renderTable, wrapFacts } from '../../report/terminal.js';
import { workloads } from '../../workload/library/index.js';
import { WORKLOAD_DEVICES_MAX } from '../../workload/run.js';
import { EXIT_FOUND, EXIT_HELD } from '../exit.js';
import {
  addMachineOptions,
  jobsNumber,
  type MachineFlags,
  machineFromFlags,
  timeOf,
  wholeNumber,
} from '../machine-options.js';
import { print, printJson, startProgress } from '../output.js';
import { describeRun, failureText, forgetting, RESULT_COLUMNS } from '../runner.js';

interface RunFlags extends MachineFlags {
  readonly all?: boolean;
  readonly size?: number;
  readonly jobs: number;
  readonly timeout?: number;
  readonly json?: boolean;
}

export function addRunCommand(program: Command, exit: (code: number) => void): void {
  addMachineOptions(program.command('run').description('run workloads and verify each result'))
    .argument('[workload...]', 'names from `pfnless list`')
    .option('--all', 'every workload of the library')
    .option('--size <n>', "problem size, in the workload's own units", wholeNumber(1, 2 ** 40))
    .option('--jobs <n>', 'workloads at a time, each on a machine and a thread of its own', jobsNumber, 1)
    .option(
      '--timeout <time>',
      `a workload that has no end by then is stuck (default: ${FORGETFUL_MAX_MS / 1000}s with --site or --revision)`,
      timeOf('--timeout'),
    )
    .option('--json', 'print one JSON object')
    .action(async (names: string[], flags: RunFlags) => exit(await run(names, flags)));
}

async function run(names: readonly string[], flags: RunFlags): Promise<number> {
  const chosen = chooseWorkloads(names, flags.all === true);
  const spec = machineFromFlags(flags);
  if (spec.devices.length < 1 || spec.devices.length > WORKLOAD_DEVICES_MAX) {
    const message = `a workload runs on 1 to ${WORKLOAD_DEVICES_MAX} devices, and this machine has ${spec.devices.length}`;
    throw new PfnlessError('ERR_PFNLESS_ARGUMENT', message);
  }
  if (!flags.json) print(`${wrapFacts(describeRun(spec))}\n`);

  const tasks = chosen.map((workload) => ({
    workload,
    spec,
    machine: flags.machine,
    size: flags.size,
    timeoutMs: flags.timeout,
  }));
  const rows = await (flags.jobs === 1 ? runHere(tasks) : runInThreads(tasks, flags.jobs));
  const ok = rows.every((row) => row.ok);
  if (flags.json) {
    printJson({
      schema: 'pfnless/run@1',
      ok,
      seed: spec.seed,
      addressing: spec.addressing,
      executor: spec.executor,
      devices: spec.devices.length,
      machine: spec.name,
      ...forgetting(spec),
      workloads: rows,
    });
  } else {
    print(renderTable(RESULT_COLUMNS, rows));
    for (const row of rows.filter((failed) => !failed.ok)) print(`\n${failureText(row)}`);
  }
  return ok ? EXIT_HELD : EXIT_FOUND;
}

/** One after the other, on this thread. */
async function runHere(tasks: readonly CampaignTask[]): Promise<WorkloadRow[]> {
  const rows: WorkloadRow[] = [];
  const progress = await startProgress('booting');
  try {
    for (const [index, task] of tasks.entries()) {
      progress.update(`${task.workload} (${index + 1} of ${tasks.length})`);
      rows.push(await runTask(task));
    }
  } finally {
    progress.stop();
  }
  return rows;
}

async function runInThreads(tasks: readonly CampaignTask[], jobs: number): Promise<WorkloadRow[]> {
  const { runCampaign } = await import('../../campaign/pool.js');
  const progress = await startProgress('booting');
  try {
    return await runCampaign(tasks, {
      jobs,
      onProgress: ({ done, total, running }) => progress.update(`${done} of ${total} done: ${running.join(', ')}`),
    });
  } finally {
    progress.stop();
  }
}

/** Names of workloads. */
function chooseWorkloads(names: readonly string[], all: boolean): readonly string[] {
  const known = workloads.map(({ name }) => name);
  if (all && names.length > 0) {
    throw new PfnlessError('ERR_PFNLESS_ARGUMENT', 'name workloads or give --all, not both');
  }
  if (all) return known;
  if (names.length === 0) {
    throw new PfnlessError('ERR_PFNLESS_ARGUMENT', `name a workload or give --all: known are ${known.join(', ')}`);
  }
  return names.map((name) => {
    if (known.includes(name)) return name;
    throw new PfnlessError('ERR_PFNLESS_ARGUMENT', `there is no workload "${name}" (${suggestion(name, known)})`);
  });
}
