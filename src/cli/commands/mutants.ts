/** `pfnless mutants`: every check site forgotten, every bug of the past brought back; each must be caught, and nothing else. */
import { availableParallelism } from 'node:os';
import type { Command } from 'commander';
import { PfnlessError } from '../../base/errors.js';
import { plural } from '../../base/plural.js';
import { CANARY, huntMutants, type MutantRow, type MutantsResult } from '../../campaign/mutants.js';
import { EXPLORE_LIMITS } from '../../explore/explore.js';
import type { MachineSpec } from '../../machine/spec.js';
import { BEYOND_MODEL } from '../../mm/check-sites/beyond.js';
import { siteById } from '../../mm/check-sites.js';
import { type Column, renderTable } from '../../report/terminal.js';
import { EXIT_FOUND, EXIT_HELD } from '../exit.js';
import { addressingOption, jobsNumber, wholeNumber } from '../machine-options.js';
import { paint, print, printJson, startProgress } from '../output.js';
import { libraryTexts } from '../programs.js';

const DEFAULT_BUDGET = 60_000;
const DEFAULT_CONTROL = 200_000;

interface MutantsFlags {
  readonly only?: readonly string[];
  readonly budget: number;
  readonly control: number;
  readonly seed: number;
  readonly jobs: number;
  readonly addressing: MachineSpec['addressing'];
  readonly json?: boolean;
}

export function addMutantsCommand(program: Command, exit: (code: number) => void): void {
  const collect = (id: string, before: readonly string[] = []): readonly string[] => [...before, id];
  program
    .command('mutants')
    .description(
      'forget each check site, bring back each known bug: exploration must catch every one, and nothing else',
    )
    .option('--only <id>', 'one site (see list), repeatable; the canary runs with it', collect)
    .option(
      '--budget <n>',
      'executions for each, at the most',
      wholeNumber(1, EXPLORE_LIMITS.executions),
      DEFAULT_BUDGET,
    )
    .option(
      '--control <n>',
      'executions of the kernel that forgets nothing',
      wholeNumber(0, EXPLORE_LIMITS.executions),
      DEFAULT_CONTROL,
    )
    .option('--seed <n>', 'seed of strategies and generated programs', wholeNumber(0, 1000), 1)
    .option('--jobs <n>', 'hunts at a time, each in a thread', jobsNumber, availableParallelism())
    .addOption(addressingOption().default('offset'))
    .option('--json', 'print one JSON object')
    .action(async (flags: MutantsFlags) => exit(await run(flags)));
}

async function run(flags: MutantsFlags): Promise<number> {
  const { addressing, budget, control, seed, jobs, json, only } = flags;
  // An id with a typing error is told before anything starts.
  for (const id of only ?? []) siteById(id);
  const programs = libraryTexts();
  if (programs.length === 0)
    throw new PfnlessError('ERR_PFNLESS_FILE', 'the litmus library (test/litmus) is not there');
  if (!json) print(`seed ${seed} · ${addressing} addressing · ${programs.length} litmus programs and generated ones\n`);
  const progress = await startProgress('hunting');
  const onProgress = (done: number, total: number, running: readonly string[]): void =>
    progress.update(`${done} of ${total} done: ${[...new Set(running)].join(', ')}`);
  try {
    const result = await huntMutants({
      ...{ addressing, programs, budget, control, seed, jobs, onProgress },
      ...(only === undefined ? {} : { only }),
    });
    progress.stop();
    const summary = summarize(result);
    if (json) printJson({ schema: 'pfnless/mutants@1', seed, addressing, budget, ...summary });
    else print(matrix(result, summary));
    return summary.ok ? EXIT_HELD : EXIT_FOUND;
  } finally {
    progress.stop();
  }
}

type Summary = ReturnType<typeof summarize>;

function summarize({ rows, control }: MutantsResult) {
  // What no run can tell is run all the same: who catches it proves us wrong.
  const expected = rows.filter(({ unreached, killedBy }) => unreached === null || killedBy !== null);
  const survived = expected.filter(({ killedBy }) => killedBy === null).map(({ id }) => id);
  const inV6 = rows.filter(({ id }) => siteById(id).missing?.includes('v6'));
  const canary = rows.find(({ id }) => id === CANARY)?.killedBy ?? null;
  return {
    ok: survived.length === 0 && canary !== null && control.caught === null && control.complete,
    total: expected.length,
    killed: expected.length - survived.length,
    survived,
    canary,
    control,
    /** What v6 as posted still does. */
    v6: {
      confirmed: inV6.filter(({ killedBy }) => killedBy !== null).map(({ id }) => id),
      notReached: [
        ...inV6.flatMap(({ id, title, killedBy, unreached }) =>
          killedBy === null ? [{ id, title, why: unreached ?? 'not caught within the budget' }] : [],
        ),
        ...BEYOND_MODEL.filter((each) => each.inV6).map(({ source, title, why }) => ({
          id: null,
          title: `${title} (${source})`,
          why,
        })),
      ],
    },
    rows: rows.map(({ caught, ...row }) => ({ ...row, ...caught, repro: caught?.command ?? null })),
  };
}

const fate = ({ killedBy, unreached, hung }: MutantRow): string => {
  if (killedBy !== null) return killedBy;
  if (hung) return paint.bad('hung');
  return unreached === null ? paint.bad('survived') : 'not reached';
};

const COLUMNS: readonly Column<MutantRow>[] = [
  { title: 'mutant', cell: ({ id }) => id },
  { title: 'source', cell: ({ source }) => source },
  { title: 'executions', cell: ({ executions }) => `${executions}`, align: 'right' },
  { title: 'caught by', cell: fate },
  { title: 'strategy', cell: ({ caught }) => caught?.strategy ?? '' },
  { title: 'program', cell: ({ caught }) => caught?.program ?? '' },
  { title: 'operations', cell: ({ caught }) => (caught === null ? '' : `${caught.operations}`), align: 'right' },
];

function matrix({ rows, control }: MutantsResult, { killed, total, ok, v6 }: Summary): string {
  const again = rows.flatMap(({ id, caught }) =>
    caught === null ? [] : [`${id}: ${caught.message}\n  ${caught.command}\n`],
  );
  const weak = v6.notReached.map(({ id, title, why }) => `  not reached: ${id ?? title}: ${why}\n`);
  const clean = `control: ${plural(control.executions, 'execution')}, ${control.caught === null ? 'nothing found' : paint.bad(control.caught.message)}\n`;
  return [
    renderTable(COLUMNS, rows),
    `\n${again.join('')}\n`,
    `${killed} of ${plural(total, 'mutant')} caught\n`,
    clean,
    control.caught === null ? '' : `  ${control.caught.command}\n`,
    'what v6 as posted still does:\n',
    ...(v6.confirmed.length > 0 ? [`  confirmed: ${v6.confirmed.join(', ')}\n`] : []),
    ...weak,
    ok ? paint.good('held\n') : paint.bad('not held\n'),
  ].join('');
}
