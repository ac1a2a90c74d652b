/** `pfnless list`: what there is to run, and what to run it on. */
import { Argument, type Command } from 'commander';
import { INJECTION_IDS, INJECTION_POINTS } from '../../base/injection.js';
import { COMPUTE_PROGRAMS, EXPLORE_STRATEGIES, INVARIANTS } from '../../catalogue.js';
import { DRIVERS } from '../../drivers/driver.js';
import { MACHINE_PRESETS } from '../../machine/presets.js';
import { parseMachineSpec } from '../../machine/spec.js';
import { ADDRESSINGS, type AddressingName } from '../../mm/addressing/addressing.js';
import { CHECK_SITES } from '../../mm/check-sites.js';
import { type Item, renderItems } from '../../report/terminal.js';
import { workloads } from '../../workload/library/index.js';
import { EXIT_HELD } from '../exit.js';
import { lineWidth, print, printJson } from '../output.js';
import { namedPrograms } from '../programs.js';

const NAMED_BY: Readonly<Record<AddressingName, string>> = {
  legacy: 'PFNs in the physical address space',
  offset: 'offsets in a space of their own',
};
const addressings = (): Item[] => {
  const usual = parseMachineSpec().addressing;
  return ADDRESSINGS.map((name) => ({
    name,
    summary: `device private pages have ${NAMED_BY[name]}${name === usual ? ' (default)' : ''}`,
  }));
};

const INJECTIONS: readonly Item[] = INJECTION_IDS.map((name) => ({ name, summary: INJECTION_POINTS[name].summary }));

const items = (named: Readonly<Record<string, { readonly summary: string }>>): Item[] =>
  Object.entries(named).map(([name, { summary }]) => ({ name, summary }));

/** What `list` knows, by the word that stands for it: what takes time to find is looked up when it is wanted. */
const LISTS: Readonly<Record<string, () => readonly Item[]>> = {
  workloads: () => workloads.map(({ name, summary }) => ({ name, summary })),
  programs: () =>
    COMPUTE_PROGRAMS.map(({ name, summary, args }) => ({ name, summary: `${summary} (${args.join(', ')})` })),
  litmus: namedPrograms,
  machines: () => items(MACHINE_PRESETS),
  drivers: () => items(DRIVERS),
  addressings,
  injections: () => INJECTIONS,
  sites: () => CHECK_SITES.map(({ id, title, does }) => ({ name: id, summary: `${title}: ${does}` })),
  strategies: () => EXPLORE_STRATEGIES,
  invariants: () => INVARIANTS.map(({ name, statement }) => ({ name, summary: statement })),
};
const KINDS = Object.keys(LISTS);

export function addListCommand(program: Command, exit: (code: number) => void): void {
  program
    .command('list')
    .description('list what there is to run, what to run it on, what can be forgotten or injected, and what is checked')
    .addArgument(new Argument('[kind...]', 'only these').choices(KINDS).default([], 'all of them'))
    .option('--json', 'print one JSON object')
    .action((kinds: readonly string[], flags: { readonly json?: boolean }) => {
      list(kinds.length === 0 ? KINDS : kinds, flags.json === true);
      exit(EXIT_HELD);
    });
}

function list(kinds: readonly string[], json: boolean): void {
  const lists = Object.fromEntries(kinds.map((kind) => [kind, LISTS[kind]!()]));
  if (json) {
    printJson({ schema: 'pfnless/list@1', ok: true, ...lists });
    return;
  }
  print(
    Object.entries(lists)
      .map(([kind, entries]) => renderItems(kind, entries, lineWidth))
      .join('\n'),
  );
}
