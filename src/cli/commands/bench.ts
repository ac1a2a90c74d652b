/** `pfnless bench`: every benchmark, each with its ratio to a base that was measured in the same run. */
import { type Command, Option } from 'commander';
import { type AddressingCost, type BenchResult, runBenchmarks } from '../../bench/index.js';
import type { Addressing } from '../../machine/types.js';
import { type Column, formatValue, renderTable } from '../../report/table.js';
import { EXIT_FOUND, EXIT_HELD } from '../exit.js';
import { wholeNumber } from '../machine-options.js';
import { paint, print, printJson, startProgress } from '../output.js';

interface BenchFlags {
  readonly addressing: Addressing | 'both';
  readonly filter?: string;
  readonly samples: number;
  readonly json?: boolean;
}

const SAMPLES_MIN = 3;
const SAMPLES_MAX = 10_000;

const REACHED = { aim: paint.good('aim'), must: 'yes', missed: paint.bad('no') };

const COLUMNS: readonly Column<BenchResult>[] = [
  { title: 'benchmark', cell: ({ name }) => name },
  { title: '', cell: ({ addressing }) => addressing },
  { title: 'median', align: 'right', cell: ({ median }) => formatValue(median) },
  { title: '± mad', align: 'right', cell: ({ mad }) => formatValue(mad) },
  { title: 'unit', cell: ({ unit }) => unit },
  { title: 'ratio', align: 'right', cell: ({ ratio }) => (ratio === null ? '' : ratio.toFixed(2)) },
  { title: 'must', align: 'right', cell: ({ must }) => (must === null ? '' : String(must)) },
  { title: 'met', cell: ({ reached }) => (reached === null ? '' : REACHED[reached]) },
];

const COST_COLUMNS: readonly Column<AddressingCost>[] = [
  { title: 'offset against legacy', cell: ({ name }) => name },
  { title: 'time', align: 'right', cell: ({ offsetByLegacy }) => offsetByLegacy.toFixed(3) },
  { title: '± mad', align: 'right', cell: ({ mad }) => mad.toFixed(3) },
];

export function addBenchCommand(program: Command, exit: (code: number) => void): void {
  program
    .command('bench')
    .description('measure, each value with its ratio to a base measured in the same run')
    .addOption(
      new Option('--addressing <mode>', 'how device private pages are named')
        .choices(['legacy', 'offset', 'both'])
        .default('both'),
    )
    .option('--filter <text>', 'only benchmarks with this in their name')
    .option('--samples <n>', 'of each benchmark', wholeNumber(SAMPLES_MIN, SAMPLES_MAX), 15)
    .option('--json', 'print one JSON object')
    .action(async (flags: BenchFlags) => exit(await bench(flags)));
}

async function bench({ addressing, filter, samples, json }: BenchFlags): Promise<number> {
  const progress = await startProgress('measuring');
  const { results, costs } = await runBenchmarks({
    addressings: addressing === 'both' ? ['offset', 'legacy'] : [addressing],
    ...(filter === undefined ? {} : { filter }),
    effort: { warmUp: 4, samples },
    onProgress: (name) => progress.update(name),
  }).finally(() => progress.stop());
  const ok = results.every(({ reached }) => reached !== 'missed');
  if (json) printJson({ schema: 'pfnless/bench@1', ok, results, costs });
  else {
    print(renderTable(COLUMNS, results));
    if (costs.length > 0) print(`\n${renderTable(COST_COLUMNS, costs)}`);
  }
  return ok ? EXIT_HELD : EXIT_FOUND;
}
