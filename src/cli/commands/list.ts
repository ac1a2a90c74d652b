/** `pfnless list`: what there is to run, and what to run it on. */
import type { Command } from 'commander';
import { INJECTION_IDS, INJECTION_POINTS } from '../../base/injection.js';
import { ALL_CHECKERS } from '../../check/boot.js';
import { builtins } from '../../device/programs/index.js';
import { MACHINE_PRESETS } from '../../machine/presets.js';
import { CHECK_SITES } from '../../mm/check-sites.js';
import { type Column, renderTable } from '../../report/terminal.js';
import { workloads } from '../../workload/library/index.js';
import { EXIT_HELD } from '../exit.js';
import { print, printJson } from '../output.js';
import { namedPrograms } from '../programs.js';

interface Item {
  readonly name: string;
  readonly summary: string;
}

const DRIVERS: readonly Item[] = [
  { name: 'test-hmm', summary: "Linux's test_hmm: a mirror a process, memory by chunks, eviction" },
];

const ADDRESSINGS: readonly Item[] = [
  { name: 'legacy', summary: 'device private pages have PFNs in the physical address space' },
  { name: 'offset', summary: 'device private pages have offsets in a space of their own (default)' },
];

const INJECTIONS: readonly Item[] = INJECTION_IDS.map((name) => ({ name, summary: INJECTION_POINTS[name].summary }));

const items = (named: Readonly<Record<string, { readonly summary: string }>>): Item[] =>
  Object.entries(named).map(([name, { summary }]) => ({ name, summary }));

export function addListCommand(program: Command, exit: (code: number) => void): void {
  program
    .command('list')
    .description(
      'list workloads, programs, machines, drivers, addressings, check sites, invariants and what stress injects',
    )
    .option('--json', 'print one JSON object')
    .action((flags: { readonly json?: boolean }) => {
      list(flags.json === true);
      exit(EXIT_HELD);
    });
}

function list(json: boolean): void {
  const lists = {
    workloads: workloads.map(({ name, summary }) => ({ name, summary })),
    programs: items(builtins),
    litmus: namedPrograms(),
    machines: items(MACHINE_PRESETS),
    drivers: DRIVERS,
    addressings: ADDRESSINGS,
    injections: INJECTIONS,
    sites: CHECK_SITES.map(({ id, title, does }) => ({ name: id, summary: `${title}: ${does}` })),
    invariants: ALL_CHECKERS.map(({ invariant, statement }) => ({ name: invariant, summary: statement })),
  };
  if (json) {
    printJson({ schema: 'pfnless/list@1', ok: true, ...lists });
    return;
  }
  const sections = Object.entries(lists).map(([title, rows]) => {
    const columns: readonly Column<Item>[] = [
      { title, cell: ({ name }) => name },
      { title: '', cell: ({ summary }) => summary },
    ];
    return renderTable(columns, rows);
  });
  print(sections.join('\n'));
}
