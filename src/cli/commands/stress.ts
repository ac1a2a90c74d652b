/** `pfnless stress`: random programs on real threads (or inline), hostile on request, until the time is up or something is found. */
import type { Command } from 'commander';
import { INJECTION_IDS, INJECTION_POINTS, type InjectionId } from '../../base/injection.js';
import { formatCount, plural } from '../../base/plural.js';
import { argumentError } from '../../base/require.js';
import { machineWords } from '../../machine/command-line.js';
import { forgettingText } from '../../machine/forgetting.js';
import { MAX_CPUS } from '../../machine/schema.js';
import { type MachineSpec, overrideMachineSpec } from '../../machine/spec.js';
import { wrapFacts, wrapText } from '../../report/terminal.js';
import { runStress, type StressLimits, type StressResult } from '../../stress/stress.js';
import { EXIT_FOUND, EXIT_HELD } from '../exit.js';
import { addInjectOption } from '../inject-option.js';
import { addMachineOptions, type MachineFlags, machineFromFlags, timeOf, wholeNumber } from '../machine-options.js';
import { paint, print, printJson, startProgress } from '../output.js';
import { forgetting } from '../runner.js';

export interface StressFlags extends MachineFlags {
  readonly duration?: number;
  readonly ops?: number;
  readonly rounds?: number;
  readonly episodes?: number;
  readonly cpus?: number;
  readonly inject: readonly InjectionId[];
  readonly json?: boolean;
}

const STRESS_MACHINE = 'stress';
const DEFAULT_DURATION_MS = 60_000;
const COUNT_MAX = 2 ** 40;

export function addStressCommand(program: Command, exit: (code: number) => void): void {
  addStressOptions(
    program.command('stress').description('random programs on real threads; every load is checked'),
    ' (default: 60s, without --ops and --rounds)',
  )
    .option('--rounds <n>', 'machines, one after the other', wholeNumber(1, COUNT_MAX))
    .option('--episodes <n>', 'episodes on each machine, at the most', wholeNumber(1, COUNT_MAX))
    .option('--json', 'print one JSON object')
    .action(async (flags: StressFlags) => exit(await stress(flags)));
}

/**
 * The flags of a machine, and what is done to it; all but --json, which comes last.
 * @param defaultText what the help of --duration says of its default
 */
export function addStressOptions(command: Command, defaultText = ''): Command {
  addMachineOptions(command)
    .option('--cpus <n>', 'host CPUs beside the kernel, each a thread', wholeNumber(0, MAX_CPUS))
    .option('--duration <time>', `end after a time like 60s, 5m or 1h${defaultText}`, timeOf('--duration'))
    .option(
      '--ops <n>',
      'end after the episode in which so many loads and stores are reached',
      wholeNumber(1, COUNT_MAX),
    );
  addInjectOption(command, 'what fails', INJECTION_IDS);
  const machine = command.options.find(({ long }) => long === '--machine')!;
  machine.default(STRESS_MACHINE);
  return command.setOptionValueWithSource('machine', STRESS_MACHINE, 'default');
}

/** The machine that the flags of `stress` describe: all of its boot options come through here. */
export function stressMachine(flags: StressFlags): MachineSpec {
  const spec = machineFromFlags(flags);
  return flags.cpus === undefined ? spec : overrideMachineSpec(spec, { cpus: flags.cpus });
}

function limitsOf({ duration, ops, rounds, episodes }: StressFlags): StressLimits {
  const isBounded = duration !== undefined || ops !== undefined || rounds !== undefined;
  return { durationMs: isBounded ? duration : DEFAULT_DURATION_MS, operations: ops, rounds, episodes };
}

async function stress(flags: StressFlags): Promise<number> {
  const spec = stressMachine(flags);
  if (!flags.json) print(wrapFacts(describeStress(spec, flags.inject)));
  const progress = await startProgress('booting');
  const result = await runStress({
    spec,
    limits: limitsOf(flags),
    inject: flags.inject,
    now: () => performance.now(),
    onProgress: ({ rounds, operations }) =>
      progress.update(`round ${rounds + 1}, ${formatCount(operations)} operations`),
  }).finally(() => progress.stop());
  const ok = result.violations.length === 0;
  const { failedSeed, failedEpisodes } = result;
  const repro = failedSeed === null ? null : reproCommand(spec, flags, failedSeed, failedEpisodes);
  if (ok && result.episodes === 0)
    throw argumentError('Nothing was looked at: the time was up before the first episode.');
  if (flags.json) {
    printJson({
      ...{ schema: 'pfnless/stress@1', ok, seed: spec.seed, addressing: spec.addressing, executor: spec.executor },
      ...{ devices: spec.devices.length, cpus: spec.cpus, ...forgetting(spec), inject: flags.inject, ...result, repro },
    });
  } else {
    print(resultText(result, repro));
  }
  return ok ? EXIT_HELD : EXIT_FOUND;
}

/** What is run, in a line; the seed comes first. */
export function describeStress(spec: MachineSpec, inject: readonly InjectionId[]): string {
  const { seed, executor, addressing, devices, cpus } = spec;
  const injected = inject.length === INJECTION_IDS.length ? 'all' : inject.join(', ') || 'none';
  const machine = `${addressing} addressing · ${plural(devices.length, 'device')} · ${plural(cpus, 'CPU')}`;
  return `seed ${seed} · ${executor} · ${machine} · inject ${injected}${forgettingText(spec)}`;
}

/** The command that runs one round again. With threads it takes other turns each time, and may need some tries. */
export function reproCommand(spec: MachineSpec, flags: StressFlags, seed: number, episodes: number | null): string {
  const { machine, inject } = flags;
  const words = [
    `npx pfnless stress --rounds 1${episodes === null ? '' : ` --episodes ${episodes}`}`,
    ...machineWords({ ...spec, seed }, machine === STRESS_MACHINE ? null : machine),
    `--cpus ${spec.cpus}`,
    `--inject ${inject.length === INJECTION_IDS.length ? 'all' : inject.join(',') || 'none'}`,
  ];
  return words.join(' ');
}

function resultText(result: StressResult, repro: string | null): string {
  const lines = [...statistics(result)];
  for (const { invariant, message } of result.violations) lines.push(`${paint.bad(invariant)}: ${message}\n`);
  lines.push(repro === null ? heldText(result) : `again: ${repro}\n`);
  return lines.join('');
}

/** What is said when nothing was found; and that this says little, where the devices had nothing to do. */
export const heldText = ({ framesLeaked, traffic }: Pick<StressResult, 'framesLeaked' | 'traffic'>): string =>
  `${paint.good(`held: settled, ${plural(framesLeaked, 'frame')} leaked`)}${traffic.migrated === 0 ? ', but nothing was migrated' : ''}\n`;

/** What was done, and what was injected, in lines. */
export function statistics(result: StressResult): readonly string[] {
  const { rounds, episodes, operations, calls, lost, traffic, injected } = result;
  const loss = `${plural(lost, 'word')} lost with a device, and reported so`;
  const done = `${plural(rounds, 'round')}, ${plural(episodes, 'episode')}, ${plural(operations, 'load')} and stores`;
  const moved = `${plural(traffic.deviceFaults, 'device fault')}, ${plural(traffic.migrated, 'page')} migrated`;
  const fired = Object.entries(injected).map(([id, times]) => {
    const count = `${formatCount(times).padStart(8)} ${times === 1 ? 'time ' : 'times'}`;
    return `  ${count} ${INJECTION_POINTS[id as InjectionId].summary} (${id})\n`;
  });
  return [
    wrapText(`${done}, ${plural(calls, 'call')} beside them`),
    wrapText(
      `${plural(traffic.cpuFaults, 'CPU fault')}, ${moved}, ${plural(traffic.shootdowns, 'shootdown')} met a CPU at work`,
    ),
    ...(lost === 0 ? [] : [wrapText(loss)]),
    ...fired,
  ];
}
