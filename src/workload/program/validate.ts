/** What must hold between the parts of a program, whoever wrote it: the parser, the builder, a user's own data. */
import { PfnlessError } from '../../base/errors.js';
import { type ArgumentKind, argumentsOf } from './operations.js';
import { type Call, INIT, PROGRAM_LIMITS, type Program, type Task } from './program.js';
import { fieldProblem } from './schema.js';

/** Tasks of each process: the first is the one that `init` prepares; those of children come after it, by fork. */
export interface ProcessPlan {
  /** Names of its tasks. */
  readonly tasks: readonly string[];
  /** Task that forks it; `null`: it is there at the start. */
  readonly forkedBy: string | null;
}

/** @throws PfnlessError ERR_PFNLESS_SYNTAX, with one sentence */
export function requireProgram(program: Program, source = 'program'): Program {
  const problem = problemOf(program);
  if (problem !== null) throw new PfnlessError('ERR_PFNLESS_SYNTAX', `${source}: ${problem}.`);
  return program;
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

function problemOf(program: Program): string | null {
  if (![program?.tasks, program?.init, program?.processes].every(Array.isArray)) return NO_PROGRAM;
  const field = fieldProblem(program);
  if (field !== null) return field;
  const { tasks } = program;
  const names = tasks.map(({ name }) => name);
  if (tasks.length === 0) return 'it has no task: write a line such as "A: store 0 1"';
  if (tasks.length > PROGRAM_LIMITS.tasks) return `it has ${tasks.length} tasks, ${PROGRAM_LIMITS.tasks} are allowed`;
  if (new Set(names).size < names.length || names.includes(INIT)) return 'two tasks have the same name';
  const calls = [...program.init, ...tasks.flatMap((task) => task.calls)];
  if (calls.length > PROGRAM_LIMITS.calls) return `it has ${calls.length} calls, ${PROGRAM_LIMITS.calls} are allowed`;
  for (const call of calls) {
    const problem = callProblem(program, call);
    if (problem !== null) return `${call.op}: ${problem}`;
  }
  return (
    propertyProblem(program) ?? initProblem(program) ?? resultProblem(program, calls) ?? processProblem(program, names)
  );
}

function propertyProblem({ devices, coherent, peers }: Program): string | null {
  for (const [what, named] of [['coherent', coherent] as const, ['peers', peers] as const]) {
    const missing = named.find((device) => device >= devices);
    if (missing !== undefined) return `${what}: there is no device ${missing}`;
    if (new Set(named).size < named.length) return `${what}: a device is named twice`;
  }
  const both = peers.find((device) => coherent.includes(device));
  return both === undefined ? null : `device ${both} is coherent: peers are devices with private memory`;
}

function callProblem({ pages, devices }: Program, call: Call): string | null {
  const kinds = argumentsOf(call.op);
  const length = (call.last ?? call.page ?? 0) - (call.page ?? 0) + 1;
  const highest = Math.max(call.last ?? 0, call.page ?? 0, call.to === undefined ? 0 : call.to + length - 1);
  if (highest >= pages) return `there is no page ${highest}: the arena has ${pages}`;
  if (call.device !== undefined && call.device >= devices) return `there is no device ${call.device}`;
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

const initProblem = ({ init }: Program): string | null =>
  init.some(({ op, into }) => op === 'fork' || op === 'exit' || into !== undefined)
    ? 'init can neither fork nor exit, and has no results'
    : null;

function resultProblem({ allowed, forbidden }: Program, calls: readonly Call[]): string | null {
  const results = calls.flatMap(({ into }) => into ?? []);
  if (new Set(results).size < results.length) return 'two calls have the same result';
  for (const name of [...allowed, ...forbidden].flatMap((outcome) => Object.keys(outcome))) {
    if (!results.includes(name)) return `no call has the result "${name}"`;
  }
  return null;
}

function processProblem(program: Program, names: readonly string[]): string | null {
  const plans = processesOf(program);
  const placed = plans.flatMap(({ tasks }) => tasks);
  const unknown = placed.find((name) => !names.includes(name));
  if (unknown !== undefined) return `there is no task "${unknown}"`;
  if (new Set(placed).size < placed.length) return 'a task is in two processes';
  const parents = new Map(plans.flatMap(({ tasks, forkedBy }) => tasks.map((name) => [name, forkedBy] as const)));
  for (const name of names) {
    const seen = new Set<string>();
    for (let at: string | null = name; at !== null; at = parents.get(at) ?? null) {
      if (seen.has(at)) return `task "${name}" forks itself`;
      seen.add(at);
    }
  }
  return program.tasks.map((task) => exitProblem(task, plans)).find((problem) => problem !== null) ?? null;
}

function exitProblem({ name, calls }: Task, plans: readonly ProcessPlan[]): string | null {
  const at = calls.findIndex(({ op }) => op === 'exit');
  if (at < 0) return null;
  if (at < calls.length - 1) return `${name}: nothing comes after exit`;
  const alone = plans.some(({ tasks }) => tasks.length === 1 && tasks[0] === name);
  return alone ? null : `${name}: exit is for a task that is alone in its process`;
}
