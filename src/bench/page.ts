/** BENCHMARKS.md: a run of the benchmarks and of growth as a page, with the computer that it is of. */

import type { GrowthResult } from './growth.js';
import type { AddressingCost, BenchResult, Measurement } from './measure.js';

/** Where the figures are from. */
export interface BenchHost {
  readonly processor: string;
  readonly cores: number;
  /** Bytes. */
  readonly memory: number;
  readonly system: string;
  readonly node: string;
  /** `null` outside of a checkout. */
  readonly commit: string | null;
  /** 1-minute load average before the run. */
  readonly load: number;
}

type Row = readonly string[];

const table = (titles: Row, rows: readonly Row[]): string =>
  [titles, titles.map((_, at) => (at === 0 ? '---' : '---:')), ...rows]
    .map((row) => `| ${row.join(' | ')} |`)
    .join('\n');

const figure = (value: number): string =>
  value >= 1e6
    ? `${(value / 1e6).toPrecision(3)} M`
    : value >= 1e4
      ? `${(value / 1e3).toPrecision(3)} k`
      : String(Number(value.toPrecision(3)));

function resultRow({ name, addressing, median, unit, ratio, ratioMad, ratioTo, must, aim, reached }: BenchResult): Row {
  const against = ratio === null ? '' : `${ratio.toFixed(2)} ± ${ratioMad!.toFixed(2)} × ${ratioTo}`;
  const met = { aim: 'aim', must: 'yes', missed: '**no**' };
  return [
    name,
    addressing,
    `${figure(median)} ${unit}`,
    against,
    String(must ?? ''),
    String(aim ?? ''),
    reached === null ? '' : met[reached],
  ];
}

const costRow = ({ name, offsetByLegacy, mad }: AddressingCost): Row => [
  name,
  offsetByLegacy.toFixed(3),
  `± ${mad.toFixed(3)}`,
];

const kernelRow = ({ name, addressing, median, linuxNs }: BenchResult): Row => [
  name,
  addressing,
  figure(median),
  figure(linuxNs!),
  (linuxNs! / median).toFixed(2),
];

function growthSection({ name, unit, points, exponent, limit, held }: GrowthResult): string {
  const base = points[0]!.ns;
  const rows = points.map(({ label, ns, mad }) => [label, figure(ns), `± ${figure(mad)}`, (ns / base).toFixed(2)]);
  const verdict = `Exponent ${exponent.toFixed(3)}, at most ${limit}: ${held ? 'held' : '**not held**'}.`;
  return `### ${name}\n\n${table(['size', unit, 'mad', 'against the smallest'], rows)}\n\n${verdict}`;
}

export function benchmarkPage(
  host: BenchHost,
  { results, costs }: Measurement,
  growth: readonly GrowthResult[],
): string {
  const commit = host.commit === null ? '' : `, commit ${host.commit}`;
  return `# Benchmarks

Written by \`npm run benchmarks\`; do not edit. Medians, with the median absolute deviation behind ±. A ratio is to a base that was
measured in the same run, round by round, so it means the same on every computer; a base is the least that the computer must do.
*must* and *aim* are what the project has set itself for the ratio (or the rate); *met* says how far it is: no, yes (*must*), aim.

${host.processor}, ${host.cores} cores, ${Math.round(host.memory / 2 ** 30)} GiB, ${host.system}, Node ${host.node}${commit}.
Load before the run: ${host.load.toFixed(2)}.

${table(['benchmark', 'addressing', 'median', 'against the base', 'must', 'aim', 'met'], results.map(resultRow))}

## What naming pages by offsets costs

Time under \`offset\` by time under \`legacy\`, round by round.

${table(['benchmark', 'offset / legacy', 'mad'], costs.map(costRow))}

## Beside the real kernel

Linux 7.2 with its own test driver and no debug options, in instructions that were counted, at an assumed three a nanosecond.

${table(['benchmark', 'addressing', 'pfnless, ns', 'Linux, ns', 'times as fast'], results.filter(({ linuxNs }) => linuxNs !== null).map(kernelRow))}

## Growth

${growth.map(growthSection).join('\n\n')}
`;
}
