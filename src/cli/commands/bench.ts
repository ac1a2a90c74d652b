/** `pfnless bench`: every benchmark, each with its ratio to a base that was measured in the same run. */
import type { Command } from 'commander';
import { type BenchResult, runBenchmarks } from '../../bench/index.js';
import { type Column, formatValue, renderTable } from '../../report/table.js';
import { EXIT_HELD } from '../exit.js';
import { print, printJson, startProgress } from '../output.js';

const COLUMNS: readonly Column<BenchResult>[] = [
  { title: 'benchmark', cell: ({ name }) => name },
  { title: 'median', align: 'right', cell: ({ median }) => formatValue(median) },
  { title: '± mad', align: 'right', cell: ({ mad }) => formatValue(mad) },
  { title: 'unit', cell: ({ unit }) => unit },
  { title: 'ratio', align: 'right', cell: ({ ratio }) => (ratio === null ? '' : ratio.toFixed(2)) },
  { title: 'to', cell: ({ ratioTo }) => ratioTo ?? '' },
];

export function addBenchCommand(program: Command, exit: (code: number) => void): void {
  program
    .command('bench')
    .description('measure, each value with its ratio to a base measured in the same run')
    .option('--json', 'print one JSON object')
    .action(async (flags: { readonly json?: boolean }) => {
      await bench(flags.json === true);
      exit(EXIT_HELD);
    });
}

async function bench(json: boolean): Promise<void> {
  const progress = await startProgress('measuring');
  try {
    const results = await runBenchmarks({ onProgress: (name) => progress.update(name) });
    progress.stop();
    if (json) printJson({ schema: 'pfnless/bench@1', ok: true, results });
    else print(renderTable(COLUMNS, results));
  } finally {
    progress.stop();
  }
}
