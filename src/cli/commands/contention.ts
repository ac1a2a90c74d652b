/** `pfnless contention`: many CPUs fault one device page, under the rule before 1afaeb8293c9 and under the fixed one. */
import type { Command } from 'commander';
import { plural } from '../../base/plural.js';
import { MAX_CPUS } from '../../machine/schema.js';
import type { Addressing } from '../../machine/types.js';
import { type Column, renderTable } from '../../report/terminal.js';
import { type ContentionResult, measureContention } from '../../stress/contention.js';
import { EXIT_HELD } from '../exit.js';
import { addressingOption, wholeNumber } from '../machine-options.js';
import { print, printJson, startProgress } from '../output.js';

interface ContentionFlags {
  readonly cpus: number;
  readonly addressing: Addressing;
  readonly json?: boolean;
}

interface Row {
  readonly cpus: number;
  readonly old: ContentionResult;
  readonly fixed: ContentionResult;
}

const DEFAULT_CPUS = 16;

export function addContentionCommand(program: Command, exit: (code: number) => void): void {
  program
    .command('contention')
    .description('many CPUs fault one device page: faults for each success, under the old rule and the fixed one')
    .option('--cpus <n>', 'CPUs at the most', wholeNumber(1, MAX_CPUS), DEFAULT_CPUS)
    .addOption(addressingOption().default('offset'))
    .option('--json', 'print one JSON object')
    .action(async (flags: ContentionFlags) => exit(await contention(flags)));
}

async function contention({ cpus: cpusMax, addressing, json }: ContentionFlags): Promise<number> {
  const progress = await startProgress('measuring');
  const rows: Row[] = [];
  try {
    for (let cpus = 1; ; cpus = Math.min(2 * cpus, cpusMax)) {
      progress.update(plural(cpus, 'CPU'));
      const measure = (rule: ContentionResult['rule']) => measureContention({ rule, cpus, addressing });
      rows.push({ cpus, old: await measure('reference'), fixed: await measure('trylock') });
      if (cpus === cpusMax) break;
    }
  } finally {
    progress.stop();
  }
  if (json) printJson({ schema: 'pfnless/contention@1', ok: true, addressing, rows });
  else print(`${addressing} addressing · faults for each page that came home\n\n${renderTable(COLUMNS, rows)}`);
  return EXIT_HELD;
}

const text = ({ livelock, faultsPerSuccess, successes, faults }: ContentionResult): string =>
  livelock ? `livelock: ${plural(successes, 'page')} in ${plural(faults, 'fault')}` : faultsPerSuccess.toFixed(1);

const COLUMNS: readonly Column<Row>[] = [
  { title: 'CPUs', cell: ({ cpus }) => String(cpus) },
  { title: 'reference, then wait (before 1afaeb8293c9)', cell: ({ old }) => text(old) },
  { title: 'trylock (fixed)', cell: ({ fixed }) => text(fixed) },
];
