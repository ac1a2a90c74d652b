/**
 * The matrix of mutants: each check site forgotten, hunted in a thread of a pool; and beside them the kernel that forgets nothing, on
 * which the same hunt must find nothing.
 */
import type { Piscina } from 'piscina';
import type { Catch, HuntResult, HuntTask, NamedText } from '../explore/hunt.js';
import type { MachineSpec } from '../machine/spec.js';
import { CHECK_SITES, type NamedSite, siteById } from '../mm/check-sites.js';
import { runInPool } from './threads.js';

/** The site without which no memory survives: a hunt that misses it is broken. */
export const CANARY = 'canary';

export interface MutantsOptions {
  readonly addressing: MachineSpec['addressing'];
  /** The library that is run beside generated programs. */
  readonly programs: readonly NamedText[];
  /** Sites by id; default: all that mean anything under the addressing. The canary comes with them. */
  readonly only?: readonly string[];
  /** Most executions for each mutant. */
  readonly budget: number;
  /** Executions of the kernel that forgets nothing. */
  readonly control: number;
  readonly seed: number;
  /** Hunts at a time. */
  readonly jobs: number;
  readonly onProgress?: (done: number, total: number, running: readonly string[]) => void;
}

export interface MutantRow {
  readonly id: string;
  readonly source: string;
  readonly title: string;
  /** Why nobody expects it to be caught. */
  readonly unreached: string | null;
  readonly executions: number;
  readonly killedBy: string | null;
  readonly caught: Catch | null;
  /** The hunt came to no end: its thread was stopped. */
  readonly hung: boolean;
}

export interface MutantsResult {
  readonly rows: readonly MutantRow[];
  /** `complete`: all of the executions that were asked for have been made. */
  readonly control: { readonly executions: number; readonly complete: boolean; readonly caught: Catch | null };
}

const DOOR = new URL('../../workers/hunt.js', import.meta.url);
/** Executions of one hunt of the control: they are shared out. */
const CONTROL_SHARE = 10_000;
/** For a mutant that no run can tell: as many as nearly all the others take. */
const UNREACHED_BUDGET = 5000;
/** Time for a hunt: a hundred times what it takes. */
const timeoutMs = (budget: number): number => 600_000 + budget * 100;

/** @throws PfnlessError ERR_PFNLESS_ARGUMENT for an id that no site has */
export async function huntMutants(options: MutantsOptions): Promise<MutantsResult> {
  const { addressing, programs, budget, control, seed, jobs, only } = options;
  const meant = ({ addressing: needs }: NamedSite): boolean => needs === 'both' || addressing === 'offset';
  const wanted =
    only === undefined
      ? CHECK_SITES.filter(meant)
      : [...new Set([CANARY, ...only])].map((id) => siteById(id, addressing));
  const shares = Array.from({ length: Math.ceil(control / CONTROL_SHARE) }, (_, at) => at);
  const task = (sites: HuntTask['sites'], most: number, own: number): HuntTask => ({
    ...{ addressing, sites, programs, budget: most, seed: own },
  });
  const controls = shares.map((at) => ({
    name: 'control',
    task: task({}, Math.min(CONTROL_SHARE, control - at * CONTROL_SHARE), seed + at),
  }));
  const mutants = wanted.map(({ id, unreached }) => {
    const most = unreached === undefined ? budget : Math.min(budget, UNREACHED_BUDGET);
    return { name: id, task: task({ forget: [id] }, most, seed) };
  });
  const hunts = [...mutants, ...controls];
  const results = await runInPool(hunts, {
    ...{ door: DOOR, jobs },
    run: (pool, hunt) => runOne(pool, hunt.task),
    onProgress: (done, running) =>
      options.onProgress?.(
        done,
        hunts.length,
        Array.from(running, ({ name }) => name),
      ),
  });
  const rows = wanted.map((site, at) => rowOf(site, results[at]!));
  const ofControl = results.slice(wanted.length);
  const executions = ofControl.reduce((sum, result) => sum + (result?.executions ?? 0), 0);
  return {
    rows,
    control: {
      executions,
      complete: executions === control,
      caught: ofControl.find((result) => result?.caught != null)?.caught ?? null,
    },
  };
}

function rowOf({ id, source, title, unreached }: NamedSite, result: HuntResult | null): MutantRow {
  const caught = result?.caught ?? null;
  return {
    ...{ id, source, title, caught },
    unreached: unreached ?? null,
    executions: result?.executions ?? 0,
    killedBy: caught?.invariant ?? null,
    hung: result === null,
  };
}

/** `null`: a hunt on a kernel that forgets may run into an endless loop that has no schedule point: then its thread is ended. */
async function runOne(pool: Piscina, task: HuntTask): Promise<HuntResult | null> {
  const signal = AbortSignal.timeout(timeoutMs(task.budget));
  try {
    return (await pool.run(task, { signal })) as HuntResult;
  } catch (error) {
    if (signal.aborted) return null;
    throw error;
  }
}
