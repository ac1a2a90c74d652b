/** How an error reads in a report: a code for programs, one sentence for people. */
import { InvariantViolation, PfnlessError } from '../base/errors.js';

/** An error as `--json` reports it. */
export interface ErrorReport {
  readonly code: string;
  readonly message: string;
  readonly errno?: string;
}

export function errorReport(error: unknown): ErrorReport {
  if (error instanceof PfnlessError) {
    const report = { code: error.code, message: sentence(error.message) };
    return error.errno === undefined ? report : { ...report, errno: error.errno };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { code: error instanceof InvariantViolation ? 'ERR_PFNLESS_INVARIANT' : 'ERR_PFNLESS_INTERNAL', message };
}

/** With a full stop, if it has no end yet. */
export const sentence = (message: string): string => (/[.?!]$/.test(message) ? message : `${message}.`);
