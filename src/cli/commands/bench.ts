/** `pfnless bench`: every benchmark, each with its ratio to a base that was measured in the same run. */
import { type Command, Option } from 'commander';
import { PfnlessError } from '../../base/errors.js';
import {
  type AddressingCost,
  type BenchResult,
  benchmarkPage,
  type Comparison,
  compareRuns,
  EFFORT,
  type GrowthResult,
  type Measurement,
  parseEarlierRun,
  runBenchmarks,
  runGrowth,
} from '../../bench/index.js';
import type { Addressing } from '../../machine/types.js';
import { ADDRESSINGS } from '../../mm/addressing/addressing.js';
import { type Column, formatValue, renderTable } from '../../report/terminal.js';
import { benchHost } from '../bench-host.js';
import { EXIT_FOUND, EXIT_HELD } from '../exit.js';
import { readText, requireWritable, writeText } from '../files.js';
import { wholeNumber } from '../machine-options.js';
import { paint, print, printJson, startProgress } from '../output.js';

interface BenchFlags {
  readonly addressing: Addressing | 'both';
  readonly filter?: string;
  readonly samples?: number;
  readonly growth?: boolean;
  readonly compare?: string;
  readonly page?: string;
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

const COMPARISON_COLUMNS: readonly Column<Comparison>[] = [
  { title: 'against the earlier run', cell: ({ name }) => name },
  { title: '', cell: ({ addressing }) => addressing },
  { title: 'time', align: 'right', cell: ({ change }) => change.toFixed(3) },
  { title: '± noise', align: 'right', cell: ({ noise }) => noise.toFixed(3) },
  { title: '', cell: ({ regressed }) => (regressed ? paint.bad('slower') : '') },
];

export function addBenchCommand(program: Command, exit: (code: number) => void): void {
  program
    .command('bench')
    .description('measure, each value with its ratio to a base measured in the same run')
    .addOption(
      new Option('--addressing <mode>', 'how device private pages are named')
        .choices([...ADDRESSINGS, 'both'])
        .default('both'),
    )
    .option('--filter <text>', 'only what has this in its name')
    .option('--samples <n>', `of each benchmark (default: ${EFFORT.samples})`, wholeNumber(SAMPLES_MIN, SAMPLES_MAX))
    .option('--growth', 'instead: how costs grow with memory, mappings, pagemaps, processes, devices')
    .option('--compare <file>', 'fail if something is slower than in this output of --json')
    .option('--page <file>', 'measure all of it and write the page that BENCHMARKS.md is')
    .option('--json', 'print one JSON object')
    .action(async (flags: BenchFlags) => exit(await bench(flags)));
}

/** @throws PfnlessError ERR_PFNLESS_ARGUMENT for what would be taken and left aside */
function requireSense({ growth, compare, samples, page, filter, addressing }: BenchFlags): void {
  const nonsense = [
    [growth && compare !== undefined, '--growth has nothing to compare: exponents have limits of their own'],
    [growth && samples !== undefined, '--growth takes as many samples as its exponents need: --samples is not for it'],
    [
      page !== undefined && (growth || filter !== undefined),
      '--page measures everything: neither --growth nor --filter',
    ],
    [page !== undefined && addressing !== 'both', '--page compares both addressings: --addressing is not for it'],
  ] as const;
  const found = nonsense.find(([is]) => is);
  if (found) throw new PfnlessError('ERR_PFNLESS_ARGUMENT', found[1]);
}

async function bench(flags: BenchFlags): Promise<number> {
  requireSense(flags);
  const { growth, page, compare } = flags;
  // Before minutes of measuring, not after.
  const earlier = compare === undefined ? null : parseEarlierRun(readText(compare), compare);
  if (page !== undefined) requireWritable(page);
  const host = benchHost();
  const measured = growth ? { results: [], costs: [] } : await benchmarks(flags);
  const grown = growth || page !== undefined ? await growths(flags) : [];
  const comparisons = earlier === null ? null : compareRuns(earlier, measured.results);
  if (page !== undefined) writeText(page, benchmarkPage(host, measured, grown));
  const ok =
    measured.results.every(({ reached }) => reached !== 'missed') &&
    grown.every(({ held }) => held) &&
    !comparisons?.some(({ regressed }) => regressed);
  if (flags.json) {
    const more = { ...(grown.length > 0 && { growth: grown }), ...(comparisons && { comparisons }) };
    printJson({ schema: 'pfnless/bench@1', ok, host, ...measured, ...more });
  } else print(tables(measured, grown, comparisons));
  return ok ? EXIT_HELD : EXIT_FOUND;
}

async function benchmarks({ addressing, filter, samples }: BenchFlags): Promise<Measurement> {
  const progress = await startProgress('measuring');
  return runBenchmarks({
    addressings: addressing === 'both' ? ['offset', 'legacy'] : [addressing],
    ...(filter === undefined ? {} : { filter }),
    effort: { ...EFFORT, ...(samples === undefined ? {} : { samples }) },
    onProgress: (name) => progress.update(name),
  }).finally(() => progress.stop());
}

async function growths({ addressing, filter }: BenchFlags): Promise<GrowthResult[]> {
  const progress = await startProgress('growing');
  return runGrowth({
    addressing: addressing === 'both' ? 'offset' : addressing,
    ...(filter === undefined ? {} : { filter }),
    onProgress: (name) => progress.update(name),
  }).finally(() => progress.stop());
}

function tables(
  { results, costs }: Measurement,
  growth: readonly GrowthResult[],
  comparisons: readonly Comparison[] | null,
): string {
  return [
    ...(results.length > 0 ? [renderTable(COLUMNS, results)] : []),
    ...(costs.length > 0 ? [renderTable(COST_COLUMNS, costs)] : []),
    ...growth.map(growthTable),
    ...(comparisons ? [renderTable(COMPARISON_COLUMNS, comparisons)] : []),
  ].join('\n');
}

function growthTable({ name, unit, points, exponent, limit, held }: GrowthResult): string {
  const first = points[0]!.ns;
  const columns: Column<GrowthResult['points'][number]>[] = [
    { title: name, align: 'right', cell: ({ label }) => label },
    { title: unit, align: 'right', cell: ({ ns }) => formatValue(ns) },
    { title: '± mad', align: 'right', cell: ({ mad }) => formatValue(mad) },
    { title: 'times', align: 'right', cell: ({ ns }) => (ns / first).toFixed(2) },
  ];
  const verdict = held ? paint.good('held') : paint.bad('not held');
  return `${renderTable(columns, points)}exponent ${exponent.toFixed(3)}, at most ${limit}: ${verdict}\n`;
}
