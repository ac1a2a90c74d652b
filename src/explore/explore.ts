/**
 * Exploration: a program is run under one schedule after the other until something is wrong, all has been tried, or the budget
 * is used up. What was found comes back small, with the line that repeats it.
 */
import { finish } from '../base/in-parts.js';
import {
  argumentError,
  requireBoolean,
  requireFunction,
  requireOneOf,
  requireOptions,
  requireSeed,
  requireWhole,
} from '../base/require.js';
import { requireAddressing } from '../machine/arguments.js';
import type { MachineSpec } from '../machine/spec.js';
import { requireSiteChoice, type SiteChoice } from '../mm/check-sites.js';
import { dfs } from '../sched/explore/dfs.js';
import { pct } from '../sched/explore/pct.js';
import { randomWalk, roundRobin } from '../sched/explore/random.js';
import type { Strategy } from '../sched/explore/strategy.js';
import { clockMs, takeTurn } from '../sched/turn.js';
import { printOutcome } from '../workload/program/print.js';
import type { Program } from '../workload/program/program.js';
import { requireProgram } from '../workload/program/validate.js';
import type { Finding, TraceEntry } from './execution.js';
import { Laboratory, type Run } from './laboratory.js';
import { parseRepro, printRepro, type Repro, reproCommand, requireRepro } from './repro.js';
import { type Shrunk, shrink } from './shrink.js';
import { printStory } from './story.js';

/** Largest values of the options. */
export const EXPLORE_LIMITS = Object.freeze({ executions: 1_000_000_000, depth: 16, preemptions: 64 });

export const STRATEGIES = ['random', 'pct', 'dfs', 'round-robin'] as const;
export type StrategyName = (typeof STRATEGIES)[number];

export interface ExploreOptions {
  readonly strategy: StrategyName;
  /** Most executions. Default 10,000. */
  readonly executions?: number;
  /** Of `random` and `pct`. Default 1. */
  readonly seed?: number;
  /** Of `pct`: ordering constraints that a bug may need. Default 3. */
  readonly depth?: number;
  /** Of `dfs`: most preemptions and injected events. Default: any number. */
  readonly preemptions?: number;
  /** Default `offset`. */
  readonly addressing?: MachineSpec['addressing'];
  /** What the kernel forgets. Default: nothing. */
  readonly sites?: SiteChoice;
  /** Run each schedule twice, and compare. Default false. */
  readonly twice?: boolean;
  /** Make a failure small before it is reported. Default true. */
  readonly shrink?: boolean;
  /** Called now and then with the executions so far; false ends the exploration. */
  readonly onProgress?: (executions: number) => unknown;
}

export interface ExploreFailure extends Finding {
  readonly program: Program;
  /** For `replay`. */
  readonly repro: string;
  /** The command that repeats it. */
  readonly command: string;
  /** What happened, in columns. */
  readonly story: string;
}

/** What it took: turns of tasks and devices, and CPU faults for each access of a CPU (retries for each success). */
export interface Effort {
  readonly steps: number;
  readonly faultsPerAccess: number;
}

export interface ExploreResult {
  readonly strategy: StrategyName;
  readonly executions: number;
  /** Everything within the strategy's bounds has been tried. */
  readonly complete: boolean;
  /** Executions of `dfs` that turned out to be others in another order. */
  readonly redundant: number;
  /** Each combination of results that came out, and how often. */
  readonly outcomes: Readonly<Record<string, number>>;
  /** The most that an execution took. */
  readonly worst: Effort;
  /** The same on average. */
  readonly mean: Effort;
  readonly failure: ExploreFailure | null;
}

/** Executions between two calls of `onProgress`. */
const PROGRESS_EVERY = 256;
/** Of the options that are left out. */
export const EXPLORE_DEFAULTS = Object.freeze({ executions: 10_000, seed: 1, depth: 3 });

export interface ReplayResult {
  /** What was wrong, `null` if nothing. */
  readonly finding: Finding | null;
  /** What each call of the program that has a result came to, by its name. */
  readonly results: Readonly<Record<string, number | string>>;
  /** Who did what in which order, for people. */
  readonly story: string;
}

/**
 * Run a program under many schedules.
 * @throws PfnlessError ERR_PFNLESS_SYNTAX, ERR_PFNLESS_ARGUMENT
 */
export function explore(program: Program, options: ExploreOptions): ExploreResult {
  return finish(exploreInParts(program, options));
}

/** Longest time between two turns of the event loop, in milliseconds. */
const TURN_EVERY_MS = 20;

/**
 * The same with turns of the event loop in between, so that timers, messages and Ctrl-C are seen; `onProgress` is called after each.
 * @throws PfnlessError ERR_PFNLESS_SYNTAX, ERR_PFNLESS_ARGUMENT
 */
export async function exploreAsync(program: Program, options: ExploreOptions): Promise<ExploreResult> {
  let isTurn = false;
  const parts = exploration(program, options, () => isTurn);
  for (let turnMs = clockMs(); ; ) {
    const part = parts.next();
    if (part.done) return part.value;
    isTurn = clockMs() - turnMs >= TURN_EVERY_MS;
    if (!isTurn) continue;
    await takeTurn();
    turnMs = clockMs();
  }
}

/**
 * The same in parts, for callers who have something else to do now and then (a thread that explores sees no signal): yields the number of
 * executions so far after each, and now and then while a failure is made small.
 * @throws PfnlessError ERR_PFNLESS_SYNTAX, ERR_PFNLESS_ARGUMENT
 */
export const exploreInParts = (program: Program, options: ExploreOptions): Generator<number, ExploreResult, void> =>
  exploration(program, options, (executions) => executions % PROGRESS_EVERY === 0);

/** @param reports is it time for `onProgress`? */
function* exploration(
  program: Program,
  options: ExploreOptions,
  reports: (executions: number) => boolean,
): Generator<number, ExploreResult, void> {
  requireProgram(program);
  requireExploreOptions(options);
  const strategy = strategyOf(options);
  const { addressing = 'offset', sites = {} } = options;
  const lab = new Laboratory(addressing, sites);
  const outcomes = new Map<string, number>();
  let executions = 0;
  const worst = { steps: 0, faultsPerAccess: 0 };
  const sum = { steps: 0, faults: 0, accesses: 0 };
  let undetermined: ExploreFailure | null = null;
  let found: Run | null = null;
  for (const run of lab.runs(program, strategy, options.executions ?? EXPLORE_DEFAULTS.executions)) {
    executions++;
    if (run.finding !== null) found = run;
    worst.steps = Math.max(worst.steps, run.steps);
    if (run.accesses > 0) worst.faultsPerAccess = Math.max(worst.faultsPerAccess, run.cpuFaults / run.accesses);
    sum.steps += run.steps;
    sum.faults += run.cpuFaults;
    sum.accesses += run.accesses;
    // By name: in which order tasks came to their results is no difference.
    const outcome = printOutcome(Object.fromEntries(Object.entries(run.results).sort(byName)));
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    if (options.twice) undetermined = difference(lab, run, { addressing, sites, schedule: run.schedule, program });
    if (undetermined !== null) break;
    yield executions;
    if (reports(executions) && options.onProgress?.(executions) === false) break;
  }
  let failure = undetermined;
  if (found !== null) {
    const asFound = { addressing, sites, schedule: found.schedule, program };
    const small =
      options.shrink === false ? { program, run: found } : yield* inStep(executions, shrink(lab, program, found));
    failure = reported(small, asFound);
  }
  return {
    strategy: options.strategy,
    executions,
    complete: strategy.complete && failure === null,
    redundant: strategy.redundant ?? 0,
    outcomes: Object.fromEntries([...outcomes].sort(byName)),
    worst,
    mean: {
      steps: sum.steps / Math.max(1, executions),
      faultsPerAccess: sum.accesses === 0 ? 0 : sum.faults / sum.accesses,
    },
    failure,
  };
}

const OPTIONS = [
  ...['strategy', 'executions', 'seed', 'depth', 'preemptions'],
  ...['addressing', 'sites', 'twice', 'shrink', 'onProgress'],
];

/** Which strategies an option is for; the others would leave it aside. */
export const EXPLORE_USES = {
  seed: ['random', 'pct'],
  depth: ['pct'],
  preemptions: ['dfs'],
} as const satisfies Partial<Record<keyof ExploreOptions, readonly StrategyName[]>>;

/** @throws PfnlessError ERR_PFNLESS_ARGUMENT for what is out of its limits, or would be left aside */
export function requireExploreOptions(options: ExploreOptions): void {
  requireOptions('The options of an exploration', options, OPTIONS);
  const { strategy, executions = EXPLORE_DEFAULTS.executions, preemptions = 0 } = options;
  const { seed = EXPLORE_DEFAULTS.seed, depth = EXPLORE_DEFAULTS.depth } = options;
  const { addressing = 'offset', sites = {}, twice = false, shrink: shrinks = true, onProgress = () => true } = options;
  requireOneOf('The strategy', strategy, STRATEGIES);
  for (const [option, uses] of Object.entries(EXPLORE_USES)) {
    if (options[option as keyof typeof EXPLORE_USES] === undefined || (uses as readonly string[]).includes(strategy))
      continue;
    throw argumentError(`${option} is for the strategy ${uses.join(' and ')}, not for ${strategy}.`);
  }
  requireWhole('The number of executions', executions, 1, EXPLORE_LIMITS.executions);
  requireSeed(seed);
  requireWhole('The depth of pct', depth, 1, EXPLORE_LIMITS.depth);
  requireWhole('The number of preemptions', preemptions, 0, EXPLORE_LIMITS.preemptions);
  requireAddressing(addressing);
  requireSiteChoice(sites, addressing);
  requireBoolean('twice of an exploration', twice);
  requireBoolean('shrink of an exploration', shrinks);
  requireFunction('onProgress of an exploration', onProgress);
}

const byName = ([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number => (a < b ? -1 : 1);

/**
 * Run one schedule.
 * @param repro the line of a failure (`ExploreFailure.repro`), or what `parseRepro` made of it
 * @throws PfnlessError ERR_PFNLESS_SYNTAX when it does not fit the program, ERR_PFNLESS_ARGUMENT
 */
export function replay(repro: Repro | string): ReplayResult {
  const parsed = typeof repro === 'string' ? parseRepro(repro) : repro;
  requireRepro(parsed);
  const { addressing, sites, schedule, program } = parsed;
  const entries: TraceEntry[] = [];
  const run = new Laboratory(addressing, sites).replay(program, schedule, { trace: (entry) => entries.push(entry) });
  return { finding: run.finding, results: run.results, story: printStory(entries) };
}

function strategyOf(options: ExploreOptions): Strategy {
  const { strategy, preemptions, seed = EXPLORE_DEFAULTS.seed, depth = EXPLORE_DEFAULTS.depth } = options;
  switch (strategy) {
    case 'random':
      return randomWalk(seed);
    case 'pct':
      return pct(seed, depth);
    case 'dfs':
      return dfs(preemptions === undefined ? {} : { preemptions });
    case 'round-robin':
      return roundRobin();
  }
}

/** The same schedule again: anything that differs was decided by nobody. */
function difference(lab: Laboratory, run: Run, repro: Repro): ExploreFailure | null {
  if (run.finding !== null) return null;
  const again = lab.replay(repro.program, run.schedule, { lenient: true });
  if (again.fingerprint === run.fingerprint && printOutcome(again.results) === printOutcome(run.results)) return null;
  const message = 'the same schedule went another way: something decides that is no choice';
  return described({ invariant: 'determinism', message }, repro, '');
}

/** The same work; yields `value`. */
function* inStep<T>(value: number, parts: Generator<void, T, void>): Generator<number, T, void> {
  for (;;) {
    const part = parts.next();
    if (part.done) return part.value;
    yield value;
  }
}

function reported({ program, run }: Shrunk, asFound: Repro): ExploreFailure {
  const repro: Repro = { ...asFound, schedule: run.schedule, program };
  return described(run.finding!, repro, replay(repro).story);
}

const described = ({ invariant, message }: Finding, repro: Repro, story: string): ExploreFailure => ({
  invariant,
  message,
  program: repro.program,
  repro: printRepro(repro),
  command: reproCommand(repro),
  story,
});
