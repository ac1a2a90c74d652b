/**
 * A failure on one line: version, kernel (addressing, posting of the series, what it forgets), schedule, and the program itself.
 * `npx pfnless replay` takes it.
 */
import { PfnlessError } from '../base/errors.js';
import type { MachineSpec } from '../machine/spec.js';
import { DEFAULT_REVISION, REVISIONS, type Revision, type SiteChoice, siteById } from '../mm/check-sites.js';
import { parseSchedule, printSchedule, type Schedule } from '../sched/explore/schedule.js';
import { parseProgram } from '../workload/program/parse.js';
import { printProgramOnOneLine } from '../workload/program/print.js';
import type { Program } from '../workload/program/program.js';

export interface Repro {
  readonly addressing: MachineSpec['addressing'];
  /** Default: the corrected series, which forgets nothing. */
  readonly sites?: SiteChoice;
  readonly schedule: Schedule;
  readonly program: Program;
}

const VERSION = 'v1';
const FORM = /^\s*(\S+)\s+(\S+)\s+(\S+)\s+([\s\S]+)$/;

export const printRepro = ({ addressing, sites, schedule, program }: Repro): string =>
  [VERSION, kernelText(addressing, sites ?? {}), printSchedule(schedule), printProgramOnOneLine(program)].join(' ');

/** `offset`, `offset,v1`, `offset,-check-pte-kind,-numa-node` */
const kernelText = (addressing: string, { revision = DEFAULT_REVISION, forget = [] }: SiteChoice): string =>
  [addressing, ...(revision === DEFAULT_REVISION ? [] : [revision]), ...forget.map((id) => `-${id}`)].join();

/** What a user types to see it again. */
export const reproCommand = (repro: Repro): string => `npx pfnless replay '${printRepro(repro)}'`;

/** @throws PfnlessError ERR_PFNLESS_SYNTAX */
export function parseRepro(text: string): Repro {
  const match = FORM.exec(text);
  const [, version, kernel = '', schedule, program] = match ?? [];
  const [addressing, ...words] = kernel.split(',');
  if (version !== VERSION || (addressing !== 'legacy' && addressing !== 'offset')) {
    const form = `"${VERSION} offset 4-c.2 pages 1; A: store 0 1"`;
    throw new PfnlessError('ERR_PFNLESS_SYNTAX', `this is no repro: give the line that explore printed, as in ${form}`);
  }
  return {
    ...{ addressing, sites: parseSites(words) },
    ...{ schedule: parseSchedule(schedule!), program: parseProgram(program!, 'repro') },
  };
}

function parseSites(words: readonly string[]): SiteChoice {
  const forget = words.filter((word) => word.startsWith('-')).map((word) => siteById(word.slice(1)).id);
  const revision = words.find((word) => !word.startsWith('-')) ?? DEFAULT_REVISION;
  if (REVISIONS.includes(revision as Revision)) return { revision: revision as Revision, forget };
  const known = REVISIONS.join(', ');
  throw new PfnlessError('ERR_PFNLESS_SYNTAX', `the series has no revision "${revision}": known are ${known}`);
}
