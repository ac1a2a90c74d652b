/** What an error that ended a run says of its machine: one answer for all who run machines. */
import { InvariantViolation, isUsageError, PfnlessError } from '../base/errors.js';

/**
 * `broken`: the kernel broke a rule of its own. `stuck`: nobody can go on. `refused`: a call came to nothing. `oops`: a kernel that
 * forgets something fell over what it forgot. `misuse`: the user's doing, no machine had a part in it. `bug`: a bug of pfnless.
 */
export type Trouble = 'broken' | 'stuck' | 'refused' | 'oops' | 'misuse' | 'bug';

/** @param forgetful the kernel has forgotten something, so nothing that it stumbles over is a bug of pfnless */
export function troubleOf(error: unknown, forgetful: boolean): Trouble {
  if (error instanceof InvariantViolation) return 'broken';
  if (!(error instanceof PfnlessError)) return forgetful && error instanceof Error ? 'oops' : 'bug';
  if (isUsageError(error)) return 'misuse';
  return error.code === 'ERR_PFNLESS_DEADLOCK' ? 'stuck' : 'refused';
}

/** Lines of a stack that are told. */
const STACK_LINES = 5;

/** An error that nobody of pfnless made, in a line: where it comes from is all there is to go by. */
export function messageWithStack(error: unknown): string {
  const { message, stack = '' } = error instanceof Error ? error : new Error(String(error));
  const lines = stack.split('\n').slice(1, 1 + STACK_LINES);
  return [message, ...lines.map((line) => line.trim())].join(' ');
}
