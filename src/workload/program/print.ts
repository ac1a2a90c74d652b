/** The text form of a program: what parse.ts reads back as the same data. */
import { type ArgumentKind, argumentsOf } from './operations.js';
import { type Call, EMPTY_PROGRAM, INIT, type Outcome, type Program } from './program.js';
import { requireProgram } from './validate.js';

/**
 * One line for each call and property, in a fixed order; only what is not the default.
 * @throws PfnlessError ERR_PFNLESS_SYNTAX when it is no program
 */
export function printProgram(program: Program): string {
  requireProgram(program);
  return `${programLines(program).join('\n')}\n`;
}

/** The same on one line, without comments: for the command that repeats a failure. */
export function printProgramOnOneLine(program: Program): string {
  return programLines({ ...program, question: [] }).join('; ');
}

function programLines(program: Program): string[] {
  const { question, inject, processes, init, tasks, allowed, forbidden } = program;
  return [
    ...question.map((line) => (line === '' ? '#' : `# ${line}`)),
    ...properties(program),
    ...(inject.length > 0 ? [`inject ${inject.join(' ')}`] : []),
    ...processes.map((names) => `process ${names.join(' ')}`),
    ...init.map((call) => `${INIT}: ${printCall(call)}`),
    ...tasks.flatMap(({ name, calls }) =>
      calls.length === 0 ? [`${name}:`] : calls.map((call) => `${name}: ${printCall(call)}`),
    ),
    ...allowed.map((outcome) => `allowed ${printOutcome(outcome)}`),
    ...forbidden.map((outcome) => `forbidden ${printOutcome(outcome)}`),
  ];
}

const properties = (program: Program): string[] => [
  `devices ${program.devices}`,
  `pages ${program.pages}`,
  ...(program.deviceMemory === EMPTY_PROGRAM.deviceMemory ? [] : [`memory ${program.deviceMemory}`]),
  ...(program.hugePages === EMPTY_PROGRAM.hugePages ? [] : [`hugepages ${program.hugePages}`]),
  ...(program.coherent.length === 0 ? [] : [`coherent ${program.coherent.join(' ')}`]),
  ...(program.peers.length === 0 ? [] : [`peers ${program.peers.join(' ')}`]),
  ...(program.swap === 0 ? [] : [`swap ${program.swap}`]),
  ...(program.failNth === 0 ? [] : [`fail_nth ${program.failNth}`]),
];

export const printOutcome = (outcome: Outcome): string =>
  Object.entries(outcome)
    .map(([name, value]) => `${name}=${value}`)
    .join(' ');

export function printCall(call: Call): string {
  const { op, into, failNth } = call;
  return [
    op,
    ...argumentsOf(op).flatMap((kind) => printArgument(call, kind) ?? []),
    ...(into === undefined ? [] : ['->', into]),
    ...(failNth === undefined ? [] : ['fail_nth', `${failNth}`]),
  ].join(' ');
}

function printArgument(call: Call, kind: ArgumentKind): string | undefined {
  switch (kind) {
    case 'where':
      return call.offset ? `${call.page}+${call.offset}` : `${call.page}`;
    case 'range':
      return call.last === call.page ? `${call.page}` : `${call.page}-${call.last}`;
    case 'value':
      return `${call.value}`;
    case 'on':
      return `on ${call.device}`;
    case 'device':
      return `${call.device}`;
    case 'to':
      return `to ${call.to}`;
    case 'protection':
    case 'protection?':
      return call.protection;
    case 'backing?':
      return call.backing;
    case 'advice':
      return call.advice;
    case 'dontunmap?':
      return call.dontunmap && 'dontunmap';
    case 'write?':
      return call.write && 'write';
    case 'feature?':
      return call.feature;
    case 'child':
      return call.child;
  }
}
