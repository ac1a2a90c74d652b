/** How machines and results read on a terminal: what `run` and `showcase` share. */

import { formatCount, plural } from '../base/plural.js';
import type { WorkloadRow } from '../campaign/task.js';
import { forgettingText } from '../machine/forgetting.js';
import type { MachineSpec } from '../machine/spec.js';
import { DEFAULT_REVISION, type SiteChoice } from '../mm/check-sites.js';
import { type Column, formatMs } from '../report/terminal.js';
import { paint } from './output.js';

/** What a kernel forgets, as `--json` says it. */
export const forgetting = ({ revision = DEFAULT_REVISION, forget = [] }: SiteChoice) => ({ revision, forget });

/** What a machine is, in the order in which it matters for a repetition. */
export function describeRun(spec: MachineSpec): string {
  const devices = plural(spec.devices.length, 'device');
  const machine = `machine ${spec.name} · ${devices} · ${spec.addressing} addressing · executor ${spec.executor}`;
  return `seed ${spec.seed} · ${machine}${forgettingText(spec)}`;
}

export const resultText = (row: WorkloadRow): string => (row.ok ? paint.good('ok') : paint.bad('FAILED'));

/** The columns of a table of results. */
export const RESULT_COLUMNS: readonly Column<WorkloadRow>[] = [
  { title: 'workload', cell: ({ name }) => name },
  { title: 'result', cell: resultText },
  { title: 'CPU\nfaults', align: 'right', cell: ({ faults }) => formatCount(faults.cpu) },
  { title: 'device\nfaults', align: 'right', cell: ({ faults }) => formatCount(faults.device) },
  { title: 'pages to\ndevices', align: 'right', cell: ({ migrated }) => formatCount(migrated.toDevice) },
  { title: 'to\nRAM', align: 'right', cell: ({ migrated }) => formatCount(migrated.toRam) },
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
    ...(more > 0 ? [`and ${plural(more, 'more violation')}`] : []),
  ];
  return `${paint.bad(row.name)}: ${reasons.join('\n  ')}\n  again: ${row.reproduce}\n`;
}
