/** What must hold between the parts of a program, whoever wrote it: the parser, the builder, a user's own data. */
import { PfnlessError } from '../../base/errors.js';
import { plural } from '../../base/plural.js';
import { type ArgumentKind, argumentsOf } from './operations.js';
import { type Call, INIT, type Outcome, PROGRAM_LIMITS, type Program, type Task } from './program.js';
import { fieldProblem } from './schema.js';
import { ProgramSyntaxError } from './syntax-error.js';

/** Tasks of each process: the first is the one that `init` prepares; those of children come after it, by fork. */
export interface ProcessPlan {
  /** Names of its tasks. */
  readonly tasks: readonly string[];
  /** Task that forks it; `null`: it is there at the start. */
  readonly forkedBy: string | null;
}

/** The part of a program that a problem is in, as the program holds it; of a property and of a task their names. */
export type Part = Call | Outcome | readonly string[] | `property ${string}` | `task ${string}`;

interface Problem {
  /** The end of a sentence. */
  readonly message: string;
  readonly part?: Part | undefined;
}

/** In the text of a program, both from 1. */
export interface Place {
  readonly line: number;
  readonly column: number;
}

/**
 * @param places of a program that was text
 * @throws PfnlessError ERR_PFNLESS_SYNTAX, with one sentence; ProgramSyntaxError where the place is known
 */
export function requireProgram(program: Program, source = 'program', places?: ReadonlyMap<Part, Place>): Program {
  const problem = problemOf(program);
  if (problem === null) return program;
  const { message, part } = problem;
  const place = part && places?.get(part);
  if (place) throw new ProgramSyntaxError(source, place.line, place.column, message);
  throw new PfnlessError('ERR_PFNLESS_SYNTAX', `${source}: ${message}.`);
}

export const isProgram = (program: Program): boolean => problemOf(program) === null;

/** Which tasks share an address space. */
export function processesOf(program: Program): ProcessPlan[] {
  const own = program.processes.map((tasks) => ({ tasks, forkedBy: null }));
  const children = program.tasks.flatMap(({ name, calls }) =>
    calls.flatMap(({ child }) => (child === undefined ? [] : [{ tasks: [child], forkedBy: name }])),
  );
  const elsewhere = new Set([...own, ...children].flatMap(({ tasks }) => tasks));
  const shared = program.tasks.map(({ name }) => name).filter((name) => !elsewhere.has(name));
  return [{ tasks: shared, forkedBy: null }, ...own, ...children];
}

/** The likeliest mistake of who calls from JavaScript is the text of a program. */
const NO_PROGRAM = 'it is no program: make one with parseProgram(), program() or generateProgram()';

function problemOf(program: Program): Problem | null {
  if (![program?.tasks, program?.init, program?.processes].every(Array.isArray)) return { message: NO_PROGRAM };
  const field = fieldProblem(program);
  if (field !== null) return { message: field };
  const calls = [program.init, ...program.tasks.map((task) => task.calls)].flat();
  return (
    taskProblem(program) ??
    callsProblem(program, calls.length) ??
    propertyProblem(program) ??
    initProblem(program) ??
    resultProblem(program, calls) ??
    processProblem(program)
  );
}

function taskProblem({ tasks }: Program): Problem | null {
  const { tasks: most } = PROGRAM_LIMITS;
  if (tasks.length === 0) return { message: 'it has no task: write a line such as "A: store 0 1"' };
  if (tasks.length > most) {
    return { message: `it has ${tasks.length} tasks, ${most} are allowed`, part: `task ${tasks[most]!.name}` };
  }
  const names = tasks.map(({ name }) => name);
  if (names.includes(INIT)) return { message: `"${INIT}" is no task: its calls come before all others` };
  const twice = repeated(names);
  return twice === undefined ? null : { message: `two tasks have the name "${twice}"` };
}

/** A name that comes again. */
const repeated = <T>(names: readonly T[]): T | undefined => names.find((name, at) => names.indexOf(name) < at);

function callsProblem(program: Program, count: number): Problem | null {
  if (count > PROGRAM_LIMITS.calls) return { message: `it has ${count} calls, ${PROGRAM_LIMITS.calls} are allowed` };
  for (const { name, calls } of [{ name: INIT, calls: program.init }, ...program.tasks]) {
    for (const call of calls) {
      const problem = callProblem(program, call);
      if (problem !== null) return { message: `${name}: ${call.op}: ${problem}`, part: call };
    }
  }
  return null;
}

function propertyProblem({ devices, coherent, peers }: Program): Problem | null {
  for (const [what, named] of [['coherent', coherent] as const, ['peers', peers] as const]) {
    const part = `property ${what}` as const;
    const missing = named.find((device) => device >= devices);
    if (missing !== undefined) return { message: `${what}: ${noDevice(missing, devices)}`, part };
    const twice = repeated(named);
    if (twice !== undefined) return { message: `${what}: device ${twice} is named twice`, part };
  }
  const both = peers.find((device) => coherent.includes(device));
  if (both === undefined) return null;
  return {
    message: `device ${both} is coherent: peers are devices with private memory`,
    part: 'property peers',
  };
}

const noDevice = (device: number, devices: number): string =>
  `there is no device ${device}: the program has ${plural(devices, 'device')}`;

function callProblem({ pages, devices }: Program, call: Call): string | null {
  const kinds = argumentsOf(call.op);
  const length = (call.last ?? call.page ?? 0) - (call.page ?? 0) + 1;
  const highest = Math.max(call.last ?? 0, call.page ?? 0, call.to === undefined ? 0 : call.to + length - 1);
  if (highest >= pages) return `there is no page ${highest}: the arena has ${plural(pages, 'page')}`;
  if (call.device !== undefined && call.device >= devices) return noDevice(call.device, devices);
  if (call.to !== undefined && call.to < call.page! + length && call.page! < call.to + length) {
    return 'the old place and the new one overlap';
  }
  return length < 1 ? `the range ends before it begins: ${call.page}-${call.last}` : argumentProblem(call, kinds);
}

/** Fields of a call that an argument fills. */
const FIELDS: Readonly<Record<ArgumentKind, readonly (keyof Call)[]>> = {
  where: ['page', 'offset'],
  range: ['page', 'last'],
  value: ['value'],
  on: ['device'],
  device: ['device'],
  protection: ['protection'],
  'protection?': ['protection'],
  'backing?': ['backing'],
  advice: ['advice'],
  to: ['to'],
  'dontunmap?': ['dontunmap'],
  'write?': ['write'],
  'feature?': ['feature'],
  child: ['child'],
};
/** Fields that any call may have. */
const ALWAYS: readonly string[] = ['op', 'into', 'failNth'];

function argumentProblem(call: Call, kinds: readonly ArgumentKind[]): string | null {
  const fields = kinds.flatMap((kind) =>
    FIELDS[kind].map((field) => ({ field, optional: /\?$/.test(kind) || field === 'offset' })),
  );
  const missing = fields.find(({ field, optional }) => !optional && call[field] === undefined);
  if (missing !== undefined) return `it needs ${missing.field}`;
  const known = [...ALWAYS, ...fields.map(({ field }) => field)];
  const extra = (Object.keys(call) as (keyof Call)[]).find(
    (field) => !known.includes(field) && call[field] !== undefined,
  );
  return extra === undefined ? null : `it has no ${extra}`;
}

function initProblem({ init }: Program): Problem | null {
  const part = init.find(({ op, into }) => op === 'fork' || op === 'exit' || into !== undefined);
  return part === undefined ? null : { message: `${INIT} can neither fork nor exit, and has no results`, part };
}

function resultProblem({ allowed, forbidden }: Program, calls: readonly Call[]): Problem | null {
  const results = new Set<string>();
  for (const call of calls) {
    if (call.into === undefined) continue;
    if (results.has(call.into)) return { message: `two calls have the result "${call.into}"`, part: call };
    results.add(call.into);
  }
  for (const part of [...allowed, ...forbidden]) {
    const unknown = Object.keys(part).find((name) => !results.has(name));
    if (unknown !== undefined) return { message: `no call has the result "${unknown}"`, part };
  }
  return null;
}

function processProblem(program: Program): Problem | null {
  const names = program.tasks.map(({ name }) => name);
  const plans = processesOf(program);
  const placed = plans.flatMap(({ tasks }) => tasks);
  const unknown = placed.find((name) => !names.includes(name));
  if (unknown !== undefined) return { message: `there is no task "${unknown}"`, part: placeOf(program, unknown) };
  const twice = repeated(placed);
  if (twice !== undefined) return { message: `task "${twice}" is in two processes`, part: placeOf(program, twice) };
  const parents = new Map(plans.flatMap(({ tasks, forkedBy }) => tasks.map((name) => [name, forkedBy] as const)));
  for (const name of names) {
    const seen = new Set<string>();
    for (let at: string | null = name; at !== null; at = parents.get(at) ?? null) {
      if (seen.has(at)) return { message: `task "${name}" forks itself`, part: placeOf(program, name) };
      seen.add(at);
    }
  }
  return program.tasks.map((task) => exitProblem(task, plans)).find((problem) => problem !== null) ?? null;
}

/** What puts a task into a process, the last if there are several: a fork, or a property. */
const placeOf = ({ tasks, processes }: Program, name: string): Part | undefined =>
  tasks.flatMap(({ calls }) => calls).findLast(({ child }) => child === name) ??
  processes.findLast((members) => members.includes(name));

function exitProblem({ name, calls }: Task, plans: readonly ProcessPlan[]): Problem | null {
  const at = calls.findIndex(({ op }) => op === 'exit');
  if (at < 0) return null;
  if (at < calls.length - 1) return { message: `${name}: nothing comes after exit`, part: calls[at + 1] };
  const alone = plans.some(({ tasks }) => tasks.length === 1 && tasks[0] === name);
  return alone ? null : { message: `${name}: exit is for a task that is alone in its process`, part: calls[at] };
}
