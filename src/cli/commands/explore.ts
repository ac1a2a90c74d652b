/** `pfnless explore` and `pfnless replay`: every interleaving of a small program, and one of them again. */
import { type Command, Option } from 'commander';
import { PfnlessError } from '../../base/errors.js';
import { formatCount, plural } from '../../base/plural.js';
import { SEED_MAX } from '../../base/random.js';
import {
  type Effort,
  EXPLORE_DEFAULTS,
  EXPLORE_LIMITS,
  EXPLORE_USES,
  type ExploreFailure,
  type ExploreOptions,
  type ExploreResult,
  exploreAsync,
  replay,
  requireExploreOptions,
  STRATEGIES,
  type StrategyName,
} from '../../explore/explore.js';
import { parseRepro } from '../../explore/repro.js';
import { forgettingText } from '../../machine/forgetting.js';
import type { Addressing } from '../../machine/types.js';
import { wrapFacts, wrapText } from '../../report/terminal.js';
import { generateProgram } from '../../workload/program/generate.js';
import { printProgram } from '../../workload/program/print.js';
import { INJECTIONS, type Injection, type Program } from '../../workload/program/program.js';
import { EXIT_FOUND, EXIT_HELD } from '../exit.js';
import { addInjectOption } from '../inject-option.js';
import { addressingOption, wholeNumber } from '../machine-options.js';
import { paint, print, printJson, startProgress } from '../output.js';
import { loadProgram } from '../programs.js';
import { forgetting } from '../runner.js';
import { addSiteOptions, type SiteFlags, sitesFromFlags } from '../site-options.js';

interface ExploreFlags extends SiteFlags {
  readonly strategy: StrategyName;
  readonly executions: number;
  readonly seed?: number;
  readonly depth?: number;
  readonly preemptions?: number;
  readonly addressing: Addressing;
  readonly generate?: number;
  readonly inject: readonly Injection[];
  readonly twice?: boolean;
  /** False with `--no-shrink`. */
  readonly shrink: boolean;
  readonly json?: boolean;
}

export function addExploreCommand(program: Command, exit: (code: number) => void): void {
  const command = addSiteOptions(program.command('explore'));
  addInjectOption(command, 'hostile events, beside those that the program names', INJECTIONS)
    .description('run a small program under many schedules, all invariants on, until something is wrong')
    .argument('[program]', 'name of a litmus program (see list), or a file')
    .addOption(new Option('--strategy <name>', 'how schedules are chosen').choices(STRATEGIES).default('random'))
    .option(
      '--executions <n>',
      'executions, at the most',
      wholeNumber(1, EXPLORE_LIMITS.executions),
      EXPLORE_DEFAULTS.executions,
    )
    .option('--seed <n>', `seed of random and pct (default: ${EXPLORE_DEFAULTS.seed})`, wholeNumber(0, SEED_MAX))
    .option(
      '--depth <n>',
      `pct: ordering constraints that a bug may need (default: ${EXPLORE_DEFAULTS.depth})`,
      wholeNumber(1, EXPLORE_LIMITS.depth),
    )
    .option(
      '--preemptions <n>',
      'dfs: preemptions and injected events, at the most',
      wholeNumber(0, EXPLORE_LIMITS.preemptions),
    )
    .option('--generate <seed>', 'explore a generated program instead of a named one', wholeNumber(0, SEED_MAX))
    .option('--twice', 'run every schedule twice, and compare')
    .option('--no-shrink', 'report a failure as it was found')
    .addOption(addressingOption().default('offset'))
    .option('--json', 'print one JSON object')
    .action(async (name: string | undefined, flags: ExploreFlags) => {
      exit(await run(name, flags));
    });
}

export function addReplayCommand(program: Command, exit: (code: number) => void): void {
  addSiteOptions(program.command('replay'))
    .description('run the execution again that explore found')
    .argument('<repro>', 'the line that explore printed, in quotes')
    .option('--json', 'print one JSON object')
    .action((text: string, flags: SiteFlags & { readonly json?: boolean }) => {
      const repro = parseRepro(text);
      // The same schedule under another kernel: does it go wrong there, too?
      const sites = { ...repro.sites, ...sitesFromFlags(flags) };
      const { finding, results, story } = replay({ ...repro, sites });
      const reproduced = finding !== null;
      if (flags.json) {
        const { addressing, program: replayed } = repro;
        printJson({
          ...{ schema: 'pfnless/replay@1', ok: !reproduced, reproduced, addressing, sites: forgetting(sites) },
          ...{ program: printProgram(replayed), finding, results, story },
        });
      } else print(`${story}${finding ? `${paint.bad(finding.invariant)}: ${finding.message}` : paint.good('held')}\n`);
      exit(reproduced ? EXIT_FOUND : EXIT_HELD);
    });
}

async function run(name: string | undefined, flags: ExploreFlags): Promise<number> {
  const program = chooseProgram(name, flags);
  const { strategy, executions, depth, preemptions, addressing, twice = false, shrink, json } = flags;
  const isSeeded = (EXPLORE_USES.seed as readonly string[]).includes(strategy);
  const seed = flags.seed ?? (isSeeded ? EXPLORE_DEFAULTS.seed : null);
  const options: ExploreOptions = {
    ...{ strategy, executions, addressing, twice, shrink },
    sites: sitesFromFlags(flags),
    ...(seed === null ? {} : { seed }),
    ...(depth === undefined ? {} : { depth }),
    ...(preemptions === undefined ? {} : { preemptions }),
  };
  requireExploreOptions(options);
  const { sites = {} } = options;
  if (!json) {
    const kernel = `${addressing} addressing${forgettingText(sites)}`;
    print(wrapFacts(`${seed === null ? '' : `seed ${seed} · `}strategy ${strategy} · ${kernel}`));
  }
  const progress = await startProgress('exploring');
  const started = performance.now();
  const onProgress = (done: number): void => progress.update(plural(done, 'execution'));
  const result = await exploreAsync(program, { ...options, onProgress }).finally(() => progress.stop());
  const executionsPerSecond = Math.round(result.executions / ((performance.now() - started) / 1000));
  if (json) {
    const { failure, ...rest } = result;
    printJson({
      ...{ schema: 'pfnless/explore@1', ok: failure === null, seed, addressing, ...forgetting(sites) },
      ...{ program: printProgram(program), ...rest, executionsPerSecond },
      failure: failure && { ...failure, program: printProgram(failure.program) },
    });
  } else print(resultText(result, executionsPerSecond, flags));
  return result.failure === null ? EXIT_HELD : EXIT_FOUND;
}

function chooseProgram(name: string | undefined, { generate, inject }: ExploreFlags): Program {
  if ((name === undefined) === (generate === undefined)) {
    throw new PfnlessError('ERR_PFNLESS_ARGUMENT', 'name a program or give --generate, one of them');
  }
  const chosen = name === undefined ? generateProgram(generate!) : loadProgram(name);
  return { ...chosen, inject: [...new Set([...chosen.inject, ...inject])] };
}

const effort = ({ steps, faultsPerAccess }: Effort): string =>
  `${steps.toFixed(1)} steps and ${faultsPerAccess.toFixed(2)} CPU faults for each access`;

function resultText(result: ExploreResult, executionsPerSecond: number, { preemptions }: ExploreFlags): string {
  const { executions, complete, redundant, outcomes, worst, mean, failure } = result;
  const bound = preemptions === undefined ? '' : ` with at most ${plural(preemptions, 'preemption')}`;
  const space = complete ? `, all there are${bound}` : '';
  const left = redundant > 0 ? ` (${formatCount(redundant)} only reordered others)` : '';
  const seen = Object.entries(outcomes).map(
    ([outcome, count]) => `  ${plural(count, 'time')} ${outcome || 'no results'}\n`,
  );
  return [
    wrapText(`${plural(executions, 'execution')}${space}${left}, ${formatCount(executionsPerSecond)} a second`),
    ...seen,
    wrapText(`${effort(mean)} on average, ${effort(worst)} at the worst`),
    `${failure === null ? paint.good('held') : failureText(failure)}\n`,
  ].join('');
}

const failureText = ({ invariant, message, program, story, command }: ExploreFailure): string =>
  `\n${paint.bad(invariant)}: ${message}\n\n${printProgram(program)}\n${story}\nagain: ${command}`;
