/** A failure as small as it gets: the program with the fewest calls, then the schedule with the fewest context switches. */
import { HPAGE_PMD_NR } from '../abi/address.js';
import { dfs } from '../sched/explore/dfs.js';
import { randomWalk } from '../sched/explore/random.js';
import { type Schedule, trimmed } from '../sched/explore/schedule.js';
import { minimizeInParts } from '../workload/program/minimize.js';
import type { Program } from '../workload/program/program.js';
import type { Finding } from './execution.js';
import type { Laboratory, Run } from './laboratory.js';

/** Executions that a smaller program gets to fail, systematic ones and random ones. */
const TRIES = 60;
/** Executions for the fewest preemptions, for each number of them. */
const FEWEST_TRIES = 1000;
const PREEMPTIONS_MAX = 3;
const HUGE_SHARE = 10;

export interface Shrunk {
  readonly program: Program;
  readonly run: Run;
}

/** In parts. @param budget programs to try, at the most */
export function* shrink(lab: Laboratory, program: Program, found: Run, budget = 300): Generator<void, Shrunk, void> {
  const { invariant } = found.finding!;
  let best: Shrunk = { program, run: found };
  const smallest = yield* minimizeInParts(
    program,
    (candidate) => {
      const run = fails(lab, candidate, invariant, best.run.schedule);
      if (run === null) return false;
      best = { program: candidate, run };
      return true;
    },
    budget,
  );
  // In the tame order, where nobody is preempted, most mistakes show already.
  const tame = lab.replay(smallest, [], { lenient: true });
  if (isSame(tame, invariant)) return { program: smallest, run: tame };
  const fewest = yield* withFewestSwitches(lab, smallest, invariant);
  return { program: smallest, run: fewest ?? (yield* withFewerMoves(lab, smallest, best.run, invariant)) };
}

/** A failing execution of a program: first as it failed before, then by search. */
function fails(lab: Laboratory, program: Program, invariant: string, hint: Schedule): Run | null {
  const again = lab.replay(program, hint, { lenient: true });
  if (isSame(again, invariant)) return again;
  const systematic = lab.search(program, dfs({ preemptions: 1 }), share(program, TRIES));
  if (isSame(systematic, invariant)) return systematic;
  const random = lab.search(program, randomWalk(1), share(program, TRIES));
  return isSame(random, invariant) ? random : null;
}

const share = ({ pages }: Program, executions: number): number =>
  pages < HPAGE_PMD_NR ? executions : executions / HUGE_SHARE;

function* withFewestSwitches(lab: Laboratory, program: Program, invariant: string): Generator<void, Run | null, void> {
  for (let preemptions = 0; preemptions <= PREEMPTIONS_MAX; preemptions++) {
    yield;
    const strategy = dfs({ preemptions });
    const run = lab.search(program, strategy, share(program, FEWEST_TRIES));
    if (isSame(run, invariant)) return yield* withFewerMoves(lab, program, run, invariant);
    if (!strategy.complete) return null;
  }
  return null;
}

/** Answers that are not needed become tame, from the last to the first. */
function* withFewerMoves(lab: Laboratory, program: Program, found: Run, invariant: string): Generator<void, Run, void> {
  let best = found;
  for (let at = best.schedule.length - 1; at >= 0; at--) {
    if ((best.schedule[at] ?? 0) === 0) continue;
    yield;
    const run = lab.replay(program, trimmed(best.schedule.with(at, 0)), { lenient: true });
    if (isSame(run, invariant)) best = run;
  }
  return best;
}

const isSame = (run: Run | null, invariant: string): run is Run & { readonly finding: Finding } =>
  run?.finding?.invariant === invariant;
