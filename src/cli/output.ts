/** The only file that writes to stdout and stderr. Results go to stdout, everything about their making to stderr. */

import { colours } from '../report/terminal.js';
import { EXIT_USAGE } from './exit.js';

const wantsColour = (stream: NodeJS.WriteStream): boolean =>
  stream.isTTY === true && !process.env.NO_COLOR && process.env.TERM !== 'dumb';

/** Colours for stdout, none where it is not a terminal or NO_COLOR is set. */
export const paint = colours(wantsColour(process.stdout));

/** Letters of a line, where it is a person who reads: what a program reads is not broken. */
export const lineWidth =
  process.stdout.isTTY && process.stdout.columns > 0 ? process.stdout.columns : Number.POSITIVE_INFINITY;

/** Text of a result, newline included. */
export function print(text: string): void {
  process.stdout.write(text);
}

/** The one JSON object of a `--json` run. */
export function printJson(result: object): void {
  print(`${JSON.stringify(result, null, 2)}\n`);
}

/** One line about what went wrong. */
export function complain(text: string): void {
  process.stderr.write(`pfnless: ${text}\n`);
}

export interface Progress {
  update(text: string): void;
  /** Clear the line. */
  stop(): void;
}

/**
 * A live line on stderr, in colour where colours are wanted; silent where stderr is not a terminal, or one of no width, on which ora
 * clears lines for ever.
 */
export async function startProgress(text: string): Promise<Progress> {
  if (!process.stderr.isTTY || !(process.stderr.columns > 0)) return { update: () => {}, stop: () => {} };
  const { default: ora } = await import('ora');
  const spinner = ora({ text, stream: process.stderr, discardStdin: false, ...spinnerColour() }).start();
  return {
    update: (next) => {
      spinner.text = next;
    },
    stop: () => {
      spinner.stop();
    },
  };
}

/** Ora asks the terminal what it can, and does not look at NO_COLOR. */
const spinnerColour = (): { readonly color?: false } => (wantsColour(process.stderr) ? {} : { color: false });

/** Let a reader that closes the pipe (`pfnless list | head -1`) end the program quietly, and a full disk with a sentence. */
export function tolerateClosedPipe(): void {
  // Whoever does not read why still sees the exit code.
  process.stderr.on('error', () => {});
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(process.exitCode ?? 0);
    complain(`The output cannot be written: ${error.message}.`);
    process.exit(EXIT_USAGE);
  });
}
