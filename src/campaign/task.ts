/** One task of a campaign: a machine is booted, runs one workload, and is disposed of. Its result is data. */
import { isUsageError, PfnlessError } from '../base/errors.js';
import { ALL_CHECKERS } from '../check/boot.js';
import { type BootedMachine, bootWithState } from '../machine/boot.js';
import { machineWords } from '../machine/command-line.js';
import { isForgetful } from '../machine/forgetting.js';
import type { MachineSpec } from '../machine/spec.js';
import type { MachineState } from '../machine/state.js';
import { messageWithStack, troubleOf } from '../machine/trouble.js';
import { type ErrorReport, errorReport } from '../report/error-report.js';
import { waitsText } from '../sched/tasks.js';
import { clockMs, lateAfter } from '../sched/turn.js';
import { workloads } from '../workload/library/index.js';
import { runWorkload, type WorkloadResult } from '../workload/run.js';
import type { Workload } from '../workload/workload.js';

/** What to run, as data: it goes to other threads. */
export interface CampaignTask {
  /** Name of a workload of the library. */
  readonly workload: string;
  readonly spec: MachineSpec;
  /** What `--machine` was given, for the command that reproduces a failure. */
  readonly machine: string;
  /** Default: the workload's own. */
  readonly size?: number | undefined;
  /** After so many milliseconds it is stuck. Default: never, and FORGETFUL_MAX_MS for a kernel that forgets something. */
  readonly timeoutMs?: number | undefined;
}

/** A workload's result, or what stopped it. */
export type WorkloadRow = Omit<WorkloadResult, 'error'> & { readonly error?: ErrorReport; readonly reproduce?: string };

/** Longest time of a run whose kernel forgets something, in milliseconds: many times what one takes that comes to its end. */
export const FORGETFUL_MAX_MS = 30_000;

/**
 * Whatever becomes of a machine that has booted is in the row; how it ends is, too, when all was well before.
 * @throws PfnlessError when it does not boot, or cannot run this
 */
export async function runTask(task: CampaignTask): Promise<WorkloadRow> {
  const workload = workloads.find(({ name }) => name === task.workload);
  if (!workload) throw new PfnlessError('ERR_PFNLESS_ARGUMENT', `there is no workload "${task.workload}"`);
  let booted: BootedMachine;
  try {
    booted = await bootWithState(task.spec, ALL_CHECKERS);
  } catch (error) {
    // A machine that cannot be is an answer. One over which its own kernel falls is a failure.
    if (error instanceof PfnlessError) throw error;
    return failedRow(task, reportOf(error, task));
  }
  const { machine, state } = booted;
  const row = await rowOf(booted, workload, task).catch(async (misuse) => {
    // What is told is why it was refused, however the machine ends.
    await machine.dispose().catch(() => {});
    throw misuse;
  });
  // What has gone wrong once need not be waited for.
  if (!row.ok && isForgetful(task.spec))
    state.executor.stop(new PfnlessError('ERR_PFNLESS_DISPOSED', 'the run is over'));
  try {
    await machine.dispose();
  } catch (error) {
    if (row.ok) return { ...row, ok: false, error: reportOf(error, task), reproduce: reproduceCommand(task) };
  }
  return row;
}

/** @throws PfnlessError for wrong use */
async function rowOf({ machine, state }: BootedMachine, workload: Workload, task: CampaignTask): Promise<WorkloadRow> {
  const { spec, size } = task;
  const { timeoutMs = isForgetful(spec) ? FORGETFUL_MAX_MS : null } = task;
  const run = runWorkload(machine, workload, { devices: spec.devices.length, size, seed: spec.seed, now: clockMs });
  try {
    if (timeoutMs !== null && (await lateAfter(timeoutMs, run))) {
      const stuck = stuckError(state, timeoutMs);
      state.executor.stop(stuck);
      return failedRow(task, errorReport(stuck));
    }
    const { error, ...result } = await run;
    if (result.ok) return result;
    const reported = error === undefined ? {} : { error: { code: 'ERR_PFNLESS_WORKLOAD', message: error } };
    return { ...result, ...reported, reproduce: reproduceCommand(task) };
  } catch (error) {
    if (error instanceof PfnlessError && isUsageError(error)) throw error;
    return failedRow(task, reportOf(error, task));
  }
}

function stuckError({ executor }: MachineState, timeoutMs: number): PfnlessError {
  const waits = waitsText(executor.waits());
  const message = `stuck: no end after ${timeoutMs / 1000} s: ${waits || 'nobody waits for the kernel'}`;
  return new PfnlessError('ERR_PFNLESS_DEADLOCK', message);
}

/** What stopped a run. Where it is a bug of pfnless the stack is what helps. */
function reportOf(error: unknown, { spec }: CampaignTask): ErrorReport {
  const trouble = troubleOf(error, isForgetful(spec));
  if (trouble === 'bug') return { ...errorReport(error), message: messageWithStack(error) };
  if (trouble !== 'oops') return errorReport(error);
  return {
    code: 'ERR_PFNLESS_OOPS',
    message: `the kernel fell over what it has forgotten: ${(error as Error).message}`,
  };
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
function reproduceCommand({ spec, machine, size, workload, timeoutMs }: CampaignTask): string {
  const words = [
    'npx pfnless run',
    workload,
    ...machineWords(spec, machine),
    ...(size === undefined ? [] : [`--size ${size}`]),
    ...(timeoutMs === undefined ? [] : [`--timeout ${timeoutMs}ms`]),
  ];
  return words.join(' ');
}
