/** `pfnless conform`: replay golden traces of a real kernel, compare every result and every state. */

import { basename } from 'node:path';
import { type Command, Option } from 'commander';
import { formatCount, plural } from '../../base/plural.js';
import type { Divergence, TraceReport } from '../../conformance/replay-trace.js';
import type { Addressing, ExecutorKind } from '../../machine/types.js';
import { formatMs, renderTable, wrapText } from '../../report/terminal.js';
import { EXIT_FOUND, EXIT_HELD } from '../exit.js';
import { addressingOption, jobsNumber } from '../machine-options.js';
import { paint, print, printJson, startProgress } from '../output.js';
import { replayFiles, threadsFor } from '../replay-files.js';

interface ConformFlags {
  readonly json?: boolean;
  readonly all?: boolean;
  readonly addressing: Addressing;
  readonly executor: ExecutorKind;
  readonly jobs?: number;
}

/** Divergences that the table shows; `--json` has all. */
const SHOWN_MAX = 10;

export function addConformCommand(program: Command, exit: (code: number) => void): void {
  program
    .command('conform')
    .description('replay golden traces of a real kernel and compare every result and state')
    .argument('<trace...>', 'recorded traces, JSON lines, possibly gzipped (.gz)')
    .addOption(addressingOption().default('offset'))
    .addOption(new Option('--executor <kind>', 'how devices run').choices(['threads', 'inline']).default('inline'))
    .option('--jobs <n>', 'threads, each with a machine of its own (default: as many as pay)', jobsNumber)
    .option('--all', 'go on after the first divergence of a trace')
    .option('--json', 'print one JSON object')
    .action(async (files: string[], flags: ConformFlags) => exit(await conform(files, flags)));
}

async function conform(files: readonly string[], flags: ConformFlags): Promise<number> {
  const { addressing, executor, jobs = threadsFor(files), json = false, all = false } = flags;
  const progress = await startProgress('reading traces');
  let begun = 0;
  const onFile = (file: string): void => progress.update(`${begun++} of ${files.length} traces: ${basename(file)}`);
  const { reports, violations, wallMs } = await replayFiles(files, { addressing, executor, all }, jobs, onFile).finally(
    () => progress.stop(),
  );
  const divergences = reports.flatMap((report) => report.divergences);
  const operations = reports.reduce((sum, report) => sum + report.operations, 0);
  const operationsPerSecond = Math.round((operations / Math.max(wallMs, 1)) * 1000);
  const ok = divergences.length + violations.length === 0;
  if (json) {
    const traces = reports.length;
    const head = { schema: 'pfnless/conform@1', ok, addressing, executor, traces, operations };
    printJson({ ...head, divergences, violations, wallMs, operationsPerSecond });
  } else {
    const done = `${plural(reports.length, 'trace')}, ${plural(operations, 'operation')} in ${formatMs(wallMs)}`;
    const speed = `(${formatCount(operationsPerSecond)} a second)`;
    print(wrapText(`${done} ${speed}, ${addressing} addressing, executor ${executor}`));
    printDivergences(divergences, reports);
    for (const { invariant, message } of violations) print(`${paint.bad(invariant)}: ${message}\n`);
  }
  return ok ? EXIT_HELD : EXIT_FOUND;
}

function printDivergences(divergences: readonly Divergence[], reports: readonly TraceReport[]): void {
  const held = reports.filter((report) => report.divergences.length === 0).length;
  if (divergences.length === 0) {
    if (held > 0) print(`${paint.good('no divergence')}: ${plural(held, 'trace')} replayed to the end\n`);
    return;
  }
  print(
    `${paint.bad(plural(divergences.length, 'divergence'))}: ${held} of ${plural(reports.length, 'trace')} replayed to the end\n\n`,
  );
  print(renderTable(CAUSE_COLUMNS, causesOf(reports)));
  for (const { trace, line, op, field, expected, actual, alsoDiffers, page, explanation } of divergences.slice(
    0,
    SHOWN_MAX,
  )) {
    print(`\n${trace}:${line} ${op}, ${paint.bad(field)}: expected ${expected}, got ${actual}\n`);
    for (const text of alsoDiffers.slice(0, 5)) print(`  also ${text}\n`);
    if (alsoDiffers.length > 5) print(`  and ${plural(alsoDiffers.length - 5, 'more field')}\n`);
    for (const text of page) print(`  ${text}\n`);
    if (explanation !== null) print(`  nearest explanation: ${explanation}\n`);
  }
  if (divergences.length > SHOWN_MAX)
    print(`\nand ${plural(divergences.length - SHOWN_MAX, 'more divergence')}: --json has all\n`);
}

/** What diverges first in how many traces. */
interface Cause {
  readonly what: string;
  readonly traces: number;
  readonly first: string;
}

const CAUSE_COLUMNS = [
  { title: 'first divergence of a trace', cell: ({ what }: Cause) => what },
  { title: 'traces', align: 'right' as const, cell: ({ traces }: Cause) => formatCount(traces) },
  { title: 'e.g.', cell: ({ first }: Cause) => first },
];

function causesOf(reports: readonly TraceReport[]): Cause[] {
  const causes = new Map<string, { what: string; traces: number; first: string }>();
  for (const { divergences } of reports) {
    const first = divergences[0];
    if (first === undefined) continue;
    const detail = first.field === 'error' ? `: ${first.actual.slice(0, 50)}` : '';
    const what = `${first.op} ${first.field.replace(/\[\d+\]/, '')}${detail}`;
    const cause = causes.get(what);
    if (cause) cause.traces++;
    else causes.set(what, { what, traces: 1, first: `${basename(first.trace)}:${first.line}` });
  }
  return [...causes.values()].sort((a, b) => b.traces - a.traces);
}
