/** Exit codes (DESIGN section 4), and how an error becomes one sentence. */
import { CommanderError } from 'commander';
import { type ErrorCode, InvariantViolation, PfnlessError } from '../base/errors.js';

/** Everything held. */
export const EXIT_HELD = 0;
/** Something was found: a violation, a divergence, a failed verification. */
export const EXIT_FOUND = 1;
/** Wrong use or bad input. */
export const EXIT_USAGE = 2;
/** Interrupted by Ctrl-C (128 + SIGINT), or told to end by SIGTERM. */
export const EXIT_INTERRUPTED = 130;

/** Errors that the user of the command line made, not the machine. */
const USAGE_CODES: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'ERR_PFNLESS_ARGUMENT',
  'ERR_PFNLESS_SPEC',
  'ERR_PFNLESS_FILE',
  'ERR_PFNLESS_UNSUPPORTED',
]);

export const isUsageError = (error: PfnlessError): boolean => USAGE_CODES.has(error.code);

/** An error as `--json` reports it. */
export interface ErrorReport {
  readonly code: string;
  readonly message: string;
  readonly errno?: string;
}

/** What to tell of an error: its report, the exit code, and the text for stderr. */
export interface Outcome {
  readonly report: ErrorReport;
  readonly exitCode: number;
  readonly text: string;
}

export function outcomeOf(error: unknown): Outcome {
  if (error instanceof CommanderError) {
    const message = sentence(commanderText(error.message));
    return { report: { code: 'ERR_PFNLESS_ARGUMENT', message }, exitCode: EXIT_USAGE, text: message };
  }
  if (error instanceof PfnlessError) {
    const exitCode = isUsageError(error) ? EXIT_USAGE : EXIT_FOUND;
    return { report: errorReport(error), exitCode, text: sentence(error.message) };
  }
  // A bug in pfnless: here the stack is what helps.
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { report: errorReport(error), exitCode: EXIT_FOUND, text };
}

export function errorReport(error: unknown): ErrorReport {
  if (error instanceof PfnlessError) {
    const report = { code: error.code, message: sentence(error.message) };
    return error.errno === undefined ? report : { ...report, errno: error.errno };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { code: error instanceof InvariantViolation ? 'ERR_PFNLESS_INVARIANT' : 'ERR_PFNLESS_INTERNAL', message };
}

/** Commander's message as one sentence: it ends some of its own with a full stop, and puts suggestions on a new line. */
const commanderText = (message: string): string =>
  message
    .replace(/^error: /, '')
    .replace(/\s*\n\s*/g, ' ')
    .replace(/\. ([A-Z])/g, (_, first: string) => `: ${first.toLowerCase()}`);

const sentence = (message: string): string => (/[.?!)]$/.test(message) ? message : `${message}.`);
