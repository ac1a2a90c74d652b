/** Runs programs, one execution at a time, each on a machine that fits and that is used again as long as nothing is found. */
import { isForgetful } from '../machine/forgetting.js';
import type { MachineSpec } from '../machine/spec.js';
import type { SiteChoice } from '../mm/check-sites.js';
import { Recorder, replaySchedule } from '../sched/explore/replay.js';
import { type Schedule, trimmed } from '../sched/explore/schedule.js';
import type { Strategy } from '../sched/explore/strategy.js';
import type { Program } from '../workload/program/program.js';
import { Execution, type ExecutionResult, type Finding, findingOf, type TraceEntry } from './execution.js';
import { Plan } from './plan.js';
import { World, type WorldSpec, worldKey, worldSpecOf } from './world.js';

/** An execution, and what it takes to have it again. */
export interface Run extends ExecutionResult {
  readonly schedule: Schedule;
  /** Preemptions. */
  readonly switches: number;
  /** Two executions that met the same choices and did the same have the same. */
  readonly fingerprint: number;
}

/** The machine that a program needs. */
interface Needed {
  readonly spec: WorldSpec;
  readonly key: string;
}

export class Laboratory {
  readonly #addressing: MachineSpec['addressing'];
  readonly #sites: SiteChoice;
  readonly #worlds = new Map<string, World>();
  readonly #needed = new WeakMap<Program, Needed>();

  constructor(addressing: MachineSpec['addressing'], sites: SiteChoice = {}) {
    this.#addressing = addressing;
    this.#sites = sites;
  }

  /** The next execution of a strategy that has begun it. */
  run(plan: Plan, recorder: Recorder, trace: ((entry: TraceEntry) => void) | null = null): Run {
    const { spec, key } = this.#neededBy(plan.program);
    const world = this.#worlds.get(key) ?? boot(spec);
    if (!(world instanceof World)) return { ...NOTHING, finding: world };
    // Whatever goes wrong, a world in which it did is never used again.
    this.#worlds.delete(key);
    const result = new Execution(world, plan, trace).run(recorder);
    if (result.finding === null) this.#worlds.set(key, world);
    const { finding, results, steps, cpuFaults, accesses } = result;
    const { switches, fingerprint } = recorder;
    // Spelled out: a spread copies by name, for every execution.
    return { finding, results, steps, cpuFaults, accesses, schedule: trimmed(recorder.answers), switches, fingerprint };
  }

  #neededBy(program: Program): Needed {
    let needed = this.#needed.get(program);
    if (needed === undefined) {
      const spec = worldSpecOf(program, this.#addressing, this.#sites);
      needed = { spec, key: worldKey(spec) };
      this.#needed.set(program, needed);
    }
    return needed;
  }

  /** @throws PfnlessError ERR_PFNLESS_SYNTAX when the schedule does not fit, unless `lenient` */
  replay(
    program: Program,
    schedule: Schedule,
    options: { readonly lenient?: boolean; readonly trace?: (entry: TraceEntry) => void } = {},
  ): Run {
    const recorder = new Recorder(replaySchedule(schedule, { lenient: options.lenient === true }));
    recorder.begin();
    return this.run(new Plan(program), recorder, options.trace ?? null);
  }

  /** Executions of a strategy, as many as are asked for, until something is found or there is nothing left. */
  *runs(program: Program, strategy: Strategy, executions: number): Generator<Run, void, void> {
    const plan = new Plan(program);
    const recorder = new Recorder(strategy);
    for (let count = 0; count < executions && recorder.begin(); count++) {
      const run = this.run(plan, recorder);
      yield run;
      if (run.finding !== null) return;
    }
  }

  /** The first of them in which something is found. @param visit is called with each */
  search(program: Program, strategy: Strategy, executions: number, visit: (run: Run) => void = () => {}): Run | null {
    for (const run of this.runs(program, strategy, executions)) {
      visit(run);
      if (run.finding !== null) return run;
    }
    return null;
  }
}

/** Of a machine that did not boot. */
const NOTHING: Omit<Run, 'finding'> = {
  ...{ results: {}, steps: 0, cpuFaults: 0, accesses: 0 },
  ...{ schedule: [], switches: 0, fingerprint: 0 },
};

/** A machine, or why there is none: a kernel that has forgotten something may not come as far. */
function boot(spec: WorldSpec): World | Finding {
  try {
    return new World(spec);
  } catch (error) {
    return findingOf(error, isForgetful(spec.sites));
  }
}
