/**
 * The smallest program that still fails: fewest calls first, then fewest tasks, devices and pages. Greedy, until no single
 * simplification keeps the failure (1-minimal), as delta debugging does.
 */
import { finish } from '../../base/in-parts.js';
import { requireBoolean, requireFunction, requireWhole } from '../../base/require.js';
import type { Call, Program, Task } from './program.js';
import { isProgram, requireProgram } from './validate.js';

/**
 * @param fails does this program still fail, in the same way? Asked many times.
 * @param budget how often it may be asked, at the most
 * @throws PfnlessError ERR_PFNLESS_SYNTAX when it is no program, ERR_PFNLESS_ARGUMENT
 */
export function minimizeProgram(program: Program, fails: (candidate: Program) => boolean, budget = 2000): Program {
  return finish(minimizeInParts(program, fails, budget));
}

/** The same; yields before each candidate. */
export function* minimizeInParts(
  program: Program,
  fails: (candidate: Program) => boolean,
  budget: number,
): Generator<void, Program, void> {
  requireProgram(program);
  requireFunction('What says whether a program still fails', fails);
  requireWhole('The budget', budget, 0, Number.MAX_SAFE_INTEGER);
  let smallest = program;
  let asked = 0;
  for (let improved = true; improved && asked < budget; ) {
    improved = false;
    for (const candidate of simplifications(smallest)) {
      if (!isProgram(candidate)) continue;
      if (++asked > budget) return smallest;
      yield;
      const failing = fails(candidate);
      requireBoolean('Whether a program still fails', failing);
      if (!failing) continue;
      smallest = candidate;
      improved = true;
      break;
    }
  }
  return smallest;
}

/** Programs that are simpler by one step, the boldest steps first. */
export function* simplifications(program: Program): Generator<Program, void, void> {
  const { tasks, init } = program;
  for (const task of tasks) yield withoutTask(program, task);
  for (const task of tasks) {
    for (let at = task.calls.length - 1; at >= 0; at--) {
      yield withTask(program, { ...task, calls: task.calls.toSpliced(at, 1) });
    }
  }
  for (let at = init.length - 1; at >= 0; at--) yield tidied({ ...program, init: init.toSpliced(at, 1) });
  for (const inject of program.inject) yield { ...program, inject: program.inject.filter((each) => each !== inject) };
  if (program.failNth > 0) yield { ...program, failNth: 0 };
  if (program.swap > 0) yield { ...program, swap: 0 };
  if (program.coherent.length > 0) yield { ...program, coherent: [] };
  if (program.peers.length > 0) yield { ...program, peers: [] };
  if (program.hugePages !== 'never') yield { ...program, hugePages: 'never' };
  if (program.processes.length > 0) yield { ...program, processes: program.processes.slice(0, -1) };
  yield* simplerCalls(program);
  yield* closerTogether(program);
}

function* simplerCalls(program: Program): Generator<Program, void, void> {
  for (const task of program.tasks) {
    for (const [at, call] of task.calls.entries()) {
      for (const simpler of simplerCall(call))
        yield withTask(program, { ...task, calls: task.calls.with(at, simpler) });
    }
  }
  for (const [at, call] of program.init.entries()) {
    for (const simpler of simplerCall(call)) yield { ...program, init: program.init.with(at, simpler) };
  }
}

function* simplerCall(call: Call): Generator<Call, void, void> {
  const { failNth, write, dontunmap, offset, backing, ...rest } = call;
  if (failNth !== undefined) yield without(call, 'failNth');
  if (write) yield without(call, 'write');
  if (dontunmap) yield without(call, 'dontunmap');
  if (offset !== undefined) yield without(call, 'offset');
  if (backing !== undefined) yield without(call, 'backing');
  if (rest.last !== undefined && rest.last > rest.page!) {
    yield { ...call, last: call.page! };
    yield { ...call, page: call.last! };
  }
}

/** Page q instead of p everywhere, device likewise; then an arena and a machine that are no larger than needed. */
function* closerTogether(program: Program): Generator<Program, void, void> {
  const calls = [...program.init, ...program.tasks.flatMap((task) => task.calls)];
  const pages = 1 + Math.max(0, ...calls.map((call) => highestPage(call)));
  const devices = 1 + Math.max(-1, ...calls.map(({ device }) => device ?? -1));
  if (pages < program.pages) yield { ...program, pages };
  if (devices < program.devices) {
    const left = (named: readonly number[]): number[] => named.filter((device) => device < devices);
    yield { ...program, devices, coherent: left(program.coherent), peers: left(program.peers) };
  }
  for (let from = devices - 1; from > 0; from--) {
    yield mapCalls(program, (call) => (call.device === from ? { ...call, device: from - 1 } : call));
  }
  for (let from = Math.min(pages, 16) - 1; from > 0; from--) {
    const down = (at: number): number => (at >= from ? at - 1 : at);
    yield mapCalls(program, (call) => ({
      ...call,
      ...(call.page === undefined ? {} : { page: down(call.page) }),
      ...(call.last === undefined ? {} : { last: Math.max(down(call.last), down(call.page!)) }),
      ...(call.to === undefined ? {} : { to: down(call.to) }),
    }));
  }
}

function highestPage(call: Call): number {
  const last = call.last ?? call.page ?? 0;
  return call.to === undefined ? last : Math.max(last, call.to + last - call.page!);
}

function mapCalls(program: Program, change: (call: Call) => Call): Program {
  return {
    ...program,
    init: program.init.map(change),
    tasks: program.tasks.map((task) => ({ ...task, calls: task.calls.map(change) })),
  };
}

const without = (call: Call, field: keyof Call): Call => {
  const { [field]: _, ...rest } = call;
  return rest as Call;
};

function withTask(program: Program, task: Task): Program {
  return tidied({ ...program, tasks: program.tasks.map((each) => (each.name === task.name ? task : each)) });
}

function withoutTask(program: Program, { name }: Task): Program {
  const tasks = program.tasks
    .filter((task) => task.name !== name)
    .map((task) => ({ ...task, calls: task.calls.filter(({ child }) => child !== name) }));
  const processes = program.processes.map((names) => names.filter((each) => each !== name));
  return tidied({ ...program, tasks, processes: processes.filter((names) => names.length > 0) });
}

/** Outcomes lose what no call has as a result any more. (A task whose fork is gone runs beside its parent.) */
function tidied(program: Program): Program {
  const results = new Set(program.tasks.flatMap(({ calls }) => calls.flatMap(({ into }) => into ?? [])));
  const kept = (outcomes: Program['allowed']): Program['allowed'] =>
    outcomes.filter((outcome) => Object.keys(outcome).every((name) => results.has(name)));
  return { ...program, allowed: kept(program.allowed), forbidden: kept(program.forbidden) };
}
