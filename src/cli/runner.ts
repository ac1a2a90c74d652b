/** Runs workloads one after the other, each on a machine booted for it: what `run` and `showcase` share. */
import { performance } from 'node:perf_hooks';
import { InvariantViolation, PfnlessError } from '../base/errors.js';
import { boot } from '../check/boot.js';
import type { MachineSpec } from '../machine/spec.js';
import { type Column, formatCount, formatMs } from '../report/table.js';
import { runWorkload, type WorkloadResult } from '../workload/run.js';
import type { Workload } from '../workload/workload.js';
import { type ErrorReport, errorReport, isUsageError } from './exit.js';
import { paint } from './output.js';

/** A workload's result, or what stopped it. */
export type WorkloadRow = Omit<WorkloadResult, 'error'> & { readonly error?: ErrorReport; readonly reproduce?: string };

export interface RunPlan {
  readonly spec: MachineSpec;
  /** What `--machine` was given, for the command that reproduces a failure. */
  readonly machine: string;
  readonly size?: number | undefined;
}

/**
 * Boot a machine, run one workload on it, dispose of it. A workload that fails is a row; a machine that does not boot, and
 * wrong use, is thrown.
 */
export async function runOnFreshMachine(plan: RunPlan, workload: Workload): Promise<WorkloadRow> {
  await using machine = await boot(plan.spec);
  const row = await rowOf(plan, workload, () =>
    runWorkload(machine, workload, {
      devices: plan.spec.devices.length,
      size: plan.size,
      seed: plan.spec.seed,
      now: () => performance.now(),
    }),
  );
  return row.ok ? row : { ...row, reproduce: reproduceCommand(plan, workload.name) };
}

async function rowOf(plan: RunPlan, workload: Workload, run: () => Promise<WorkloadResult>): Promise<WorkloadRow> {
  try {
    const { error, ...result } = await run();
    return error === undefined ? result : { ...result, error: { code: 'ERR_PFNLESS_WORKLOAD', message: error } };
  } catch (error) {
    // Wrong use and bugs of pfnless itself go up; what the run found is a row.
    const found = error instanceof InvariantViolation || (error instanceof PfnlessError && !isUsageError(error));
    if (!found) throw error;
    return {
      name: workload.name,
      devices: plan.spec.devices.length,
      size: plan.size ?? workload.defaultSize,
      ok: false,
      verified: false,
      checkedValues: 0,
      faults: { cpu: 0, device: 0 },
      migrated: { toDevice: 0, toRam: 0 },
      evicted: 0,
      wallMs: 0,
      violations: [],
      error: errorReport(error),
    };
  }
}

/** The whole command that does the same again. */
export function reproduceCommand({ spec, machine, size }: RunPlan, workload: string): string {
  const words = [
    'npx pfnless run',
    workload,
    `--machine ${/^[\w./-]+$/.test(machine) ? machine : `'${machine}'`}`,
    `--addressing ${spec.addressing}`,
    `--devices ${spec.devices.length}`,
    `--executor ${spec.executor}`,
    ...(spec.executor === 'inline' ? [`--schedule ${spec.schedule}`] : []),
    `--seed ${spec.seed}`,
    ...(size === undefined ? [] : [`--size ${size}`]),
    ...(spec.checks ? [] : ['--no-checks']),
  ];
  return words.join(' ');
}

/** What a machine is, in the order in which it matters for a repetition. */
export function describeRun(spec: MachineSpec): string {
  const devices = spec.devices.length === 1 ? '1 device' : `${spec.devices.length} devices`;
  return `seed ${spec.seed} · machine ${spec.name} · ${devices} · ${spec.addressing} addressing · executor ${spec.executor}`;
}

export const resultText = (row: WorkloadRow): string => (row.ok ? paint.good('ok') : paint.bad('FAILED'));

/** The columns of a table of results. */
export const RESULT_COLUMNS: readonly Column<WorkloadRow>[] = [
  { title: 'workload', cell: ({ name }) => name },
  { title: 'result', cell: resultText },
  { title: 'CPU faults', align: 'right', cell: ({ faults }) => formatCount(faults.cpu) },
  { title: 'device faults', align: 'right', cell: ({ faults }) => formatCount(faults.device) },
  { title: 'to device', align: 'right', cell: ({ migrated }) => formatCount(migrated.toDevice) },
  { title: 'to RAM', align: 'right', cell: ({ migrated }) => formatCount(migrated.toRam) },
  { title: 'evicted', align: 'right', cell: ({ evicted }) => formatCount(evicted) },
  { title: 'time', align: 'right', cell: ({ wallMs }) => formatMs(wallMs) },
];

/** As many violations as help; `--json` has all of them. */
const VIOLATIONS_SHOWN = 5;

/** What is wrong with a row, and how to see it again. */
export function failureText(row: WorkloadRow): string {
  const more = row.violations.length - VIOLATIONS_SHOWN;
  const reasons = [
    ...(row.error ? [row.error.message] : []),
    ...row.violations.slice(0, VIOLATIONS_SHOWN).map(({ invariant, message }) => `${invariant}: ${message}`),
    ...(more > 0 ? [`and ${more} more violations`] : []),
  ];
  return `${paint.bad(row.name)}: ${reasons.join('\n  ')}\n  again: ${row.reproduce}\n`;
}
