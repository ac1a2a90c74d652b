/** A failure on one line: version, addressing, schedule, and the program itself. `npx pfnless replay` takes it. */
import { PfnlessError } from '../base/errors.js';
import type { MachineSpec } from '../machine/spec.js';
import { parseSchedule, printSchedule, type Schedule } from '../sched/explore/schedule.js';
import { parseProgram } from '../workload/program/parse.js';
import { printProgramOnOneLine } from '../workload/program/print.js';
import type { Program } from '../workload/program/program.js';

export interface Repro {
  readonly addressing: MachineSpec['addressing'];
  readonly schedule: Schedule;
  readonly program: Program;
}

const VERSION = 'v1';
const FORM = /^\s*(\S+)\s+(\S+)\s+(\S+)\s+([\s\S]+)$/;

export const printRepro = ({ addressing, schedule, program }: Repro): string =>
  [VERSION, addressing, printSchedule(schedule), printProgramOnOneLine(program)].join(' ');

/** What a user types to see it again. */
export const reproCommand = (repro: Repro): string => `npx pfnless replay '${printRepro(repro)}'`;

/** @throws PfnlessError ERR_PFNLESS_SYNTAX */
export function parseRepro(text: string): Repro {
  const match = FORM.exec(text);
  const [, version, addressing, schedule, program] = match ?? [];
  if (version !== VERSION || (addressing !== 'legacy' && addressing !== 'offset')) {
    const form = `"${VERSION} offset 4-c.2 pages 1; A: store 0 1"`;
    throw new PfnlessError('ERR_PFNLESS_SYNTAX', `this is no repro: give the line that explore printed, as in ${form}`);
  }
  return { addressing, schedule: parseSchedule(schedule!), program: parseProgram(program!, 'repro') };
}
