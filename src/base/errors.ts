/**
 * The three kinds of failure (ARCHITECTURE decision 10): kernel outcomes are values; a broken invariant throws
 * `InvariantViolation`; wrong use or bad input throws `PfnlessError` with a code and a sentence that says what to do.
 */

export type ErrorCode =
  | 'ERR_PFNLESS_ARGUMENT'
  | 'ERR_PFNLESS_SPEC'
  | 'ERR_PFNLESS_SYNTAX'
  | 'ERR_PFNLESS_FILE'
  | 'ERR_PFNLESS_BOOT'
  | 'ERR_PFNLESS_DEVICE_LOST'
  | 'ERR_PFNLESS_PROGRAM'
  | 'ERR_PFNLESS_FAULT'
  | 'ERR_PFNLESS_ERRNO'
  | 'ERR_PFNLESS_DEADLOCK'
  | 'ERR_PFNLESS_DISPOSED'
  | 'ERR_PFNLESS_UNSUPPORTED';

/** Characters of a message: what a user wrote may be in it, and of any length. */
const MESSAGE_MAX = 4000;

/** An error that a user of pfnless can act on. */
export class PfnlessError extends Error {
  override readonly name: string = 'PfnlessError';
  readonly code: ErrorCode;
  /** Linux errno name where the kernel model answered with one, e.g. `ENOMEM`. */
  readonly errno: string | undefined;

  constructor(code: ErrorCode, message: string, options: { cause?: unknown; errno?: string } = {}) {
    super(shortened(message, MESSAGE_MAX), options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.errno = options.errno;
  }
}

/** The emulated kernel broke one of its own rules. Caught only by who reports findings. */
export class InvariantViolation extends Error {
  override readonly name = 'InvariantViolation';
}

/** Assert what must hold. `message` is a string for cold paths; give a function where building the text costs. */
export function assert(condition: boolean, message: string | (() => string)): asserts condition {
  if (!condition) throw new InvariantViolation(typeof message === 'string' ? message : message());
}

/** Somebody else's text in a message of ours: no more than so many characters of it. */
export const shortened = (text: string, most: number): string =>
  text.length > most ? `${text.slice(0, most)}...` : text;
