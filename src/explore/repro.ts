/**
 * A failure on one line: version, kernel (addressing, posting of the series, what it forgets), schedule, and the program itself.
 * `npx pfnless replay` takes it.
 */
import { PfnlessError } from '../base/errors.js';
import { argumentError, requireList, requireOptions, requireWhole, shown } from '../base/require.js';
import { requireAddressing } from '../machine/arguments.js';
import type { MachineSpec } from '../machine/spec.js';
import { isAddressing } from '../mm/addressing/addressing.js';
import {
  DEFAULT_REVISION,
  REVISIONS,
  type Revision,
  requireSiteChoice,
  type SiteChoice,
  siteById,
} from '../mm/check-sites.js';
import { parseSchedule, printSchedule, type Schedule } from '../sched/explore/schedule.js';
import { parseProgram } from '../workload/program/parse.js';
import { printProgramOnOneLine } from '../workload/program/print.js';
import type { Program } from '../workload/program/program.js';
import { requireProgram } from '../workload/program/validate.js';

export interface Repro {
  readonly addressing: MachineSpec['addressing'];
  /** Default: the corrected series, which forgets nothing. */
  readonly sites?: SiteChoice;
  readonly schedule: Schedule;
  readonly program: Program;
}

/** Four digits to the base 36. */
const ANSWER_MAX = 36 ** 4 - 1;
const VERSION = 'v1';
const FORM = /^\s*(\S+)\s+(\S+)\s+(\S+)\s+([\s\S]+)$/;

/** @throws PfnlessError ERR_PFNLESS_SYNTAX, ERR_PFNLESS_ARGUMENT when it is none */
export function printRepro(repro: Repro): string {
  requireRepro(repro);
  const { addressing, sites = {}, schedule, program } = repro;
  return [VERSION, kernelText(addressing, sites), printSchedule(schedule), printProgramOnOneLine(program)].join(' ');
}

/** Of data that may have come from anywhere. @throws PfnlessError ERR_PFNLESS_SYNTAX, ERR_PFNLESS_ARGUMENT */
export function requireRepro(repro: Repro): void {
  requireOptions('What is replayed', repro, ['addressing', 'sites', 'schedule', 'program']);
  const { addressing, sites = {}, schedule, program } = repro;
  requireAddressing(addressing);
  requireSiteChoice(sites, addressing);
  requireList('The schedule', schedule);
  for (const answer of schedule) requireWhole('An answer of the schedule', answer, 0, ANSWER_MAX);
  requireProgram(program);
}

/** `offset`, `offset,v1`, `offset,-check-pte-kind,-numa-node` */
const kernelText = (addressing: string, { revision = DEFAULT_REVISION, forget = [] }: SiteChoice): string =>
  [addressing, ...(revision === DEFAULT_REVISION ? [] : [revision]), ...forget.map((id) => `-${id}`)].join();

/** What a user types to see it again. */
export const reproCommand = (repro: Repro): string => `npx pfnless replay '${printRepro(repro)}'`;

/** @throws PfnlessError ERR_PFNLESS_SYNTAX */
export function parseRepro(text: string): Repro {
  if (typeof text !== 'string') throw argumentError(`A repro must be a string, not ${shown(text)}.`);
  const match = FORM.exec(text);
  const [, version, kernel = '', schedule, program] = match ?? [];
  const [addressing, ...words] = kernel.split(',');
  if (version !== VERSION || !isAddressing(addressing)) {
    const form = `"${VERSION} offset tame pages 1; A: store 0 1"`;
    throw new PfnlessError('ERR_PFNLESS_SYNTAX', `this is no repro: give the line that explore printed, as in ${form}`);
  }
  return {
    ...{ addressing, sites: parseSites(words, addressing) },
    ...{ schedule: parseSchedule(schedule!), program: parseProgram(program!, 'repro') },
  };
}

function parseSites(words: readonly string[], addressing: Repro['addressing']): SiteChoice {
  const forget = words.filter((word) => word.startsWith('-')).map((word) => siteById(word.slice(1), addressing).id);
  const named = words.filter((word) => !word.startsWith('-'));
  const [revision = DEFAULT_REVISION] = named;
  if (named.length > 1)
    throw new PfnlessError('ERR_PFNLESS_SYNTAX', `a kernel has one revision, not ${named.join(' and ')}`);
  if (REVISIONS.includes(revision as Revision)) return { revision: revision as Revision, forget };
  const known = REVISIONS.join(', ');
  throw new PfnlessError('ERR_PFNLESS_SYNTAX', `the series has no revision "${revision}": known are ${known}`);
}
