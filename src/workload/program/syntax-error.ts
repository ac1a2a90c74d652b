/** A program's text that cannot be read: where, and what is wrong. */
import { PfnlessError } from '../../base/errors.js';

export class ProgramSyntaxError extends PfnlessError {
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
