/**
 * Hunting one mutant: a kernel that has forgotten something runs the litmus library and generated programs, a little of each first and
 * more of each from round to round, until some rule is broken or the budget is used up. What is reported has been seen twice: on a
 * machine of its own, too, since a kernel that forgets may spoil the machine that is used again.
 *
 * A pure function of its task, which is plain data: hunts run in threads.
 */
import { HPAGE_PMD_NR } from '../abi/address.js';
import { finish } from '../base/in-parts.js';
import type { MachineSpec } from '../machine/spec.js';
import type { SiteChoice } from '../mm/check-sites.js';
import { dfs } from '../sched/explore/dfs.js';
import { pct } from '../sched/explore/pct.js';
import { randomWalk } from '../sched/explore/random.js';
import type { Strategy } from '../sched/explore/strategy.js';
import { type GenerateOptions, generateProgram } from '../workload/program/generate.js';
import { parseProgram } from '../workload/program/parse.js';
import { countCalls, type Program } from '../workload/program/program.js';
import { Laboratory, type Run } from './laboratory.js';
import { type Repro, reproCommand } from './repro.js';
import { shrink } from './shrink.js';

export interface NamedText {
  readonly name: string;
  readonly text: string;
}

export interface HuntTask {
  readonly addressing: MachineSpec['addressing'];
  readonly sites: SiteChoice;
  readonly programs: readonly NamedText[];
  /** Most executions. */
  readonly budget: number;
  /** Of strategies and of generated programs. */
  readonly seed: number;
}

/** How a mutant was caught. */
export interface Catch {
  readonly invariant: string;
  readonly message: string;
  /** Program by which, and how its schedules were chosen. */
  readonly program: string;
  readonly strategy: string;
  /** Operations of the smallest program that does it too. */
  readonly operations: number;
  /** The command that shows it again. */
  readonly command: string;
}

export interface HuntResult {
  readonly executions: number;
  readonly caught: Catch | null;
  /** Failures that a fresh machine did not have: traces of a kernel that had spoilt its machine before. */
  readonly unconfirmed: number;
}

/** One way to look at a program. */
interface Look {
  readonly name: string;
  readonly executions: number;
  /** Programs from seeds beside the library's. */
  readonly generated: number;
  /** How large those are. */
  readonly sizes?: GenerateOptions;
  readonly strategy: (seed: number) => Strategy;
}

const FIRST_LOOKS: readonly Look[] = [
  { name: 'dfs, 1 preemption', executions: 12, generated: 24, strategy: () => dfs({ preemptions: 1 }) },
  { name: 'random', executions: 32, generated: 60, strategy: (seed) => randomWalk(seed) },
  { name: 'dfs, 2 preemptions', executions: 100, generated: 0, strategy: () => dfs({ preemptions: 2 }) },
  { name: 'pct, depth 3', executions: 100, generated: 200, strategy: (seed) => pct(seed, 3) },
  // What takes four parties and five turns, as stores that are lost between two invalidations do.
  {
    name: 'pct, depth 5',
    executions: 100,
    generated: 200,
    sizes: { tasks: 4, calls: 5 },
    strategy: (seed) => pct(seed, 5),
  },
];
/** The last looks are repeated, each time with so many times more executions. */
const MORE = 3;
/** An execution on 2 MiB takes as long as many of others. */
const HUGE_SHARE = 6;
/** Programs that are tried to make one smaller. */
const SHRINK_BUDGET = 160;

export function hunt(task: HuntTask): HuntResult {
  const programs = task.programs.map(({ name, text }) => ({ name, program: parseProgram(text, name) }));
  let lab = new Laboratory(task.addressing, task.sites);
  let executions = 0;
  let unconfirmed = 0;
  let generated = task.seed * 1_000_000;
  for (let round = 0; ; round++) {
    const look = lookOf(round);
    const own = Array.from({ length: look.generated }, () => ++generated);
    const drawn = own.map((seed) => ({
      name: `generated from seed ${seed}`,
      program: generateProgram(seed, look.sizes),
    }));
    for (const { name, program } of [...programs, ...drawn]) {
      const wanted = program.pages >= HPAGE_PMD_NR ? Math.ceil(look.executions / HUGE_SHARE) : look.executions;
      const most = Math.min(wanted, task.budget - executions);
      if (most <= 0) return { executions, caught: null, unconfirmed };
      const found = lab.search(program, look.strategy(task.seed + round), most, () => executions++);
      if (found === null) continue;
      // What else the program expects of its results would only make the report longer, and wrong once it is smaller.
      const asked = found.finding!.invariant === 'outcome' ? program : { ...program, allowed: [], forbidden: [] };
      const caught = confirmed(task, asked, found);
      if (caught !== null)
        return { executions, caught: { ...caught, program: name, strategy: look.name }, unconfirmed };
      unconfirmed++;
      lab = new Laboratory(task.addressing, task.sites);
    }
  }
}

function lookOf(round: number): Look {
  const look = FIRST_LOOKS[round];
  if (look !== undefined) return look;
  const beyond = round - FIRST_LOOKS.length;
  const again = FIRST_LOOKS[1 + (beyond % (FIRST_LOOKS.length - 1))]!;
  const factor = MORE ** (1 + Math.floor(beyond / (FIRST_LOOKS.length - 1)));
  return { ...again, executions: again.executions * factor };
}

/** The failure made small, if a fresh machine has it. */
function confirmed(task: HuntTask, program: Program, found: Run): Omit<Catch, 'program' | 'strategy'> | null {
  const asFound = reproOf(task, program, found);
  if (!isAgain(asFound, found)) return null;
  const small = finish(shrink(new Laboratory(task.addressing, task.sites), program, found, SHRINK_BUDGET));
  const shrunk = reproOf(task, small.program, small.run);
  const repro = isAgain(shrunk, found) ? shrunk : asFound;
  const { invariant, message } = replayed(repro).finding!;
  const operations = countCalls(repro.program) + repro.program.init.length;
  return { invariant, message, operations, command: reproCommand(repro) };
}

const reproOf = ({ addressing, sites }: HuntTask, program: Program, { schedule }: Run): Repro => ({
  ...{ addressing, sites, schedule, program },
});

const replayed = ({ addressing, sites, program, schedule }: Repro): Run =>
  new Laboratory(addressing, sites ?? {}).replay(program, schedule, { lenient: true });

const isAgain = (repro: Repro, { finding }: Run): boolean => replayed(repro).finding?.invariant === finding!.invariant;
