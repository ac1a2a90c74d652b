/** `pfnless showcase` (`npm start`): what pfnless is about, in a few seconds. */
import type { Command } from 'commander';
import { runTask, type WorkloadRow } from '../../campaign/task.js';
import { BootError } from '../../machine/errors.js';
import type { PresetName } from '../../machine/presets.js';
import { type MachineSpec, parseMachineSpec } from '../../machine/spec.js';
import { type ErrorReport, errorReport } from '../../report/error-report.js';
import { type Column, renderTable, wrapFacts, wrapText } from '../../report/terminal.js';
import { EXIT_FOUND, EXIT_HELD } from '../exit.js';
import { paint, print, printJson, startProgress } from '../output.js';
import { describeRun, failureText, RESULT_COLUMNS } from '../runner.js';

const SHOWN: readonly string[] = ['vector-add', 'histogram', 'stencil'];
const STAGES: readonly { readonly machine: PresetName; readonly addressing: MachineSpec['addressing'] }[] = [
  { machine: 'laptop', addressing: 'legacy' },
  { machine: 'laptop', addressing: 'offset' },
  { machine: 'pci-window', addressing: 'legacy' },
  { machine: 'pci-window', addressing: 'offset' },
];

/** One machine under one addressing. */
interface Stage {
  readonly machine: string;
  readonly addressing: MachineSpec['addressing'];
  /** Why the machine does not boot. */
  readonly failure: ErrorReport | null;
  readonly workloads: readonly WorkloadRow[];
  /** Is this what the showcase is there to show? */
  readonly ok: boolean;
}

export function addShowcaseCommand(program: Command, exit: (code: number) => void): void {
  program
    .command('showcase')
    .description('three workloads under both addressings, and a machine where only one of them works (npm start)')
    .option('--json', 'print one JSON object')
    .action(async (flags: { readonly json?: boolean }) => exit(await showcase(flags.json === true)));
}

async function showcase(json: boolean): Promise<number> {
  const stages: Stage[] = [];
  for (const { machine, addressing } of STAGES) {
    const spec = parseMachineSpec({ preset: machine, addressing });
    if (!json) print(`${wrapFacts(describeRun(spec))}\n`);
    const stage = await runStage(spec);
    stages.push(stage);
    if (!json) print(stageText(stage));
  }
  const ok = stages.every((stage) => stage.ok);
  if (json) printJson({ schema: 'pfnless/showcase@1', ok, seed: parseMachineSpec().seed, stages });
  else print(`${renderTable(SUMMARY_COLUMNS, stages)}\n${wrapText(conclusion(ok))}`);
  return ok ? EXIT_HELD : EXIT_FOUND;
}

async function runStage(spec: MachineSpec): Promise<Stage> {
  const { name: machine, addressing } = spec;
  const rows: WorkloadRow[] = [];
  const progress = await startProgress('booting');
  try {
    for (const workload of SHOWN) {
      progress.update(workload);
      rows.push(await runTask({ workload, spec, machine }));
    }
  } catch (error) {
    if (!(error instanceof BootError)) throw error;
    const failure = errorReport(error);
    return { machine, addressing, failure, workloads: [], ok: mustFail(spec) && failure.errno === 'ERANGE' };
  } finally {
    progress.stop();
  }
  return { machine, addressing, failure: null, workloads: rows, ok: !mustFail(spec) && rows.every((row) => row.ok) };
}

/** The one stage that is there to fail: no physical address space is left for device memory. */
const mustFail = ({ name, addressing }: MachineSpec): boolean => name === 'pci-window' && addressing === 'legacy';

function stageText({ failure, workloads: rows, ok }: Stage): string {
  if (failure) {
    return `${ok ? 'Does not boot, as on Linux:' : paint.bad('Does not boot:')}\n${wrapText(failure.message, '  ')}\n`;
  }
  const failures = rows.filter((row) => !row.ok).map(failureText);
  return `${renderTable(RESULT_COLUMNS, rows)}${failures.join('')}\n`;
}

const SUMMARY_COLUMNS: readonly Column<Stage>[] = [
  { title: 'machine', cell: ({ machine }) => machine },
  { title: 'addressing', cell: ({ addressing }) => addressing },
  { title: 'boots', cell: ({ failure }) => (failure ? `no (${failure.errno ?? failure.code})` : 'yes') },
  {
    title: 'workloads ok',
    align: 'right',
    cell: ({ workloads: rows }) => (rows.length ? `${rows.filter(({ ok }) => ok).length} of ${rows.length}` : '-'),
  },
  { title: 'as expected', cell: ({ ok }) => (ok ? paint.good('yes') : paint.bad('NO')) },
];

const conclusion = (ok: boolean): string =>
  ok
    ? 'Device pages named by offset need no physical address space: they work where legacy finds none.'
    : 'Something did not go as expected: see above.';
