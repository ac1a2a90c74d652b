/** A program's text that cannot be read, or whose parts do not fit together: where, and what is wrong. */
import { PfnlessError } from '../../base/errors.js';

export class ProgramSyntaxError extends PfnlessError {
  override readonly name = 'ProgramSyntaxError';
  /** From 1. */
  readonly line: number;
  /** From 1, in characters. */
  readonly column: number;

  constructor(source: string, line: number, column: number, message: string) {
    super('ERR_PFNLESS_SYNTAX', `${source}:${line}:${column}: ${message}.`);
    this.line = line;
    this.column = column;
  }
}
