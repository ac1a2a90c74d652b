/**
 * What one may name, as data, for programs that offer a choice or check one before anything starts: what `pfnless list` shows. The
 * rest of it is beside what it belongs to: `workloads`, `MACHINE_PRESETS`, `CHECK_SITES`, `REVISIONS`.
 */
import { INJECTION_POINTS, type InjectionId } from './base/injection.js';
import { ALL_CHECKERS } from './check/boot.js';
import { builtins } from './device/programs/index.js';
import { STRATEGIES, type StrategyName } from './explore/explore.js';
import { FAILING_INJECTIONS, INJECTIONS, type Injection } from './workload/program/program.js';

/** A compute program that every device has, for `Mirror.launch`. */
export interface ComputeProgramInfo {
  readonly name: string;
  readonly summary: string;
  /** Names of its arguments (`LaunchOptions.args`), all of them needed. */
  readonly args: readonly string[];
}

/** Something hostile, or another order of things, that a small program may name (`Program.inject`). */
export interface InjectionInfo {
  readonly name: Injection;
  readonly summary: string;
  /** May it make a call fail that would not fail otherwise? */
  readonly failing: boolean;
}

/** A way to choose schedules (`ExploreOptions.strategy`). */
export interface StrategyInfo {
  readonly name: StrategyName;
  readonly summary: string;
}

/** Something that must hold: a `Violation` and a `Finding` name it where it does not. */
export interface Invariant {
  readonly name: string;
  /** What must hold. */
  readonly statement: string;
  /** Who looks: `machine`, `Machine.check()` and exploration; `exploration`, which alone knows what a program may come to. */
  readonly checkedBy: 'machine' | 'exploration';
}

/** The built-in compute programs. */
export const COMPUTE_PROGRAMS: readonly ComputeProgramInfo[] = frozen(
  Object.entries(builtins).map(([name, { summary, args }]) => ({ name, summary, args: Object.freeze([...args]) })),
);

/** Those that are no points of fault injection. */
const OTHER_INJECTIONS: Readonly<Record<Exclude<Injection, InjectionId>, string>> = {
  allocation: 'an allocation of RAM fails, whoever makes it',
  'device-order': 'a device serves its rings in another order',
  cpus: 'each task has a CPU, whose translations may be old until a shootdown is answered',
};

const isOther = (name: Injection): name is keyof typeof OTHER_INJECTIONS => Object.hasOwn(OTHER_INJECTIONS, name);

/** What a program may inject. */
export const PROGRAM_INJECTIONS: readonly InjectionInfo[] = frozen(
  INJECTIONS.map((name) => ({
    name,
    summary: isOther(name) ? OTHER_INJECTIONS[name] : INJECTION_POINTS[name].summary,
    failing: FAILING_INJECTIONS.includes(name),
  })),
);

const STRATEGY_SUMMARIES: Readonly<Record<StrategyName, string>> = {
  random: 'whoever is ready may be next, each as likely',
  pct: 'the highest of random priorities is next; at a few random steps who runs falls to the bottom',
  dfs: 'every schedule there is, one after the other, or those with few preemptions',
  'round-robin': 'one schedule: whoever has waited longest is next',
};

/** The strategies of `explore`. */
export const EXPLORE_STRATEGIES: readonly StrategyInfo[] = frozen(
  STRATEGIES.map((name) => ({ name, summary: STRATEGY_SUMMARIES[name] })),
);

/** What exploration finds wrong, beside what checkers look at. */
const OF_EXPLORATION: Readonly<Record<string, string>> = {
  assertion: 'no assertion of the kernel or of a driver fails',
  oops: 'a kernel that has forgotten something does not crash',
  deadlock: 'somebody can always go on until all tasks have ended',
  livelock: 'the tasks come to their end',
  starvation: 'an access takes a bounded number of faults, and who is ready gets a turn',
  'no-spurious-failure': 'a call fails only where it has a reason',
  'every-byte-reads-back': 'bytes to which nobody stored are zero when all tasks have ended',
  'last-writer': 'some order of the calls explains every word that was loaded or is there at the end',
  'nothing-left': 'after the end of all processes the machine is as it was at the start',
  outcome: 'results are among those that the program allows, and none that it forbids',
  determinism: 'the same schedule has the same results (`ExploreOptions.twice`)',
};

/** The invariants. */
export const INVARIANTS: readonly Invariant[] = frozen([
  ...ALL_CHECKERS.map(({ invariant, statement }) => ({ name: invariant, statement, checkedBy: 'machine' as const })),
  ...Object.entries(OF_EXPLORATION).map(([name, statement]) => ({
    name,
    statement,
    checkedBy: 'exploration' as const,
  })),
]);

/** A list that nobody changes, nor what is in it. */
function frozen<T extends object>(entries: readonly T[]): readonly T[] {
  return Object.freeze(entries.map((entry) => Object.freeze(entry)));
}
