/** Exit codes (README, commands), and how an error becomes one sentence. */
import { CommanderError } from 'commander';
import { isUsageError, PfnlessError } from '../base/errors.js';
import { type ErrorReport, errorReport, sentence } from '../report/error-report.js';

/** Everything held. */
export const EXIT_HELD = 0;
/** Something was found: a violation, a divergence, a failed verification. */
export const EXIT_FOUND = 1;
/** Wrong use or bad input. */
export const EXIT_USAGE = 2;
/** Interrupted by Ctrl-C (128 + SIGINT), or told to end by SIGTERM. */
export const EXIT_INTERRUPTED = 130;

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

/** Commander's message as one sentence: it ends some of its own with a full stop, and puts suggestions on a new line. */
const commanderText = (message: string): string =>
  message
    .replace(/^error: /, '')
    .replace(/\s*\n\s*/g, ' ')
    .replace(/\. ([A-Z])/g, (_, first: string) => `: ${first.toLowerCase()}`);
