/** One task of a campaign: a machine is booted, runs one workload, and is disposed of. Its result is data. */
import { InvariantViolation, PfnlessError } from '../base/errors.js';
import { boot } from '../check/boot.js';
import { machineWords } from '../machine/command-line.js';
import type { MachineSpec } from '../machine/spec.js';
import { type ErrorReport, errorReport, isUsageError } from '../report/error-report.js';
import { clockMs } from '../sched/turn.js';
import { workloads } from '../workload/library/index.js';
import { runWorkload, type WorkloadResult } from '../workload/run.js';

/** What to run, as data: it goes to other threads. */
export interface CampaignTask {
  /** Name of a workload of the library. */
  readonly workload: string;
  readonly spec: MachineSpec;
  /** What `--machine` was given, for the command that reproduces a failure. */
  readonly machine: string;
  /** Default: the workload's own. */
  readonly size?: number | undefined;
}

/** A workload's result, or what stopped it. */
export type WorkloadRow = Omit<WorkloadResult, 'error'> & { readonly error?: ErrorReport; readonly reproduce?: string };

/** A workload that fails is a row; a machine that does not boot, wrong use, and bugs of pfnless itself are thrown. */
export async function runTask(task: CampaignTask): Promise<WorkloadRow> {
  await using machine = await boot(task.spec);
  const workload = workloads.find(({ name }) => name === task.workload);
  if (!workload) throw new PfnlessError('ERR_PFNLESS_ARGUMENT', `there is no workload "${task.workload}"`);
  try {
    const { error, ...result } = await runWorkload(machine, workload, {
      devices: task.spec.devices.length,
      size: task.size,
      seed: task.spec.seed,
      now: clockMs,
    });
    if (result.ok) return result;
    const reported = error === undefined ? {} : { error: { code: 'ERR_PFNLESS_WORKLOAD', message: error } };
    return { ...result, ...reported, reproduce: reproduceCommand(task) };
  } catch (error) {
    const found = error instanceof InvariantViolation || (error instanceof PfnlessError && !isUsageError(error));
    if (!found) throw error;
    return failedRow(task, errorReport(error));
  }
}

/** The row of a task that came to no result. */
export function failedRow(task: CampaignTask, error: ErrorReport): WorkloadRow {
  return {
    name: task.workload,
    devices: task.spec.devices.length,
    size: task.size ?? workloads.find(({ name }) => name === task.workload)?.defaultSize ?? 0,
    ok: false,
    verified: false,
    checkedValues: 0,
    faults: { cpu: 0, device: 0 },
    migrated: { toDevice: 0, toRam: 0 },
    evicted: 0,
    wallMs: 0,
    violations: [],
    error,
    reproduce: reproduceCommand(task),
  };
}

/** The whole command that does the same again. */
function reproduceCommand({ spec, machine, size, workload }: CampaignTask): string {
  const words = [
    'npx pfnless run',
    workload,
    ...machineWords(spec, machine),
    ...(size === undefined ? [] : [`--size ${size}`]),
  ];
  return words.join(' ');
}
