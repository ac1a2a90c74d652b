/**
 * The result file of a campaign: JSON lines, one a seed, behind a first one that says which campaign it is. A line is written when its
 * seed has ended, so whatever stops a campaign costs the seeds that were running; the same command goes on with what is missing.
 */
import { appendFileSync, existsSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { PfnlessError } from '../base/errors.js';
import { isJudged, type SeedRow } from './seeds.js';

const SCHEMA = 'pfnless/stress-results@1';

export interface ResultFile {
  /** Rows of seeds that were judged before. */
  readonly rows: readonly SeedRow[];
  append(row: SeedRow): void;
}

/**
 * Open a file, or begin a new one.
 * @param campaign everything that its rows depend on but their seeds, as data
 * @throws PfnlessError ERR_PFNLESS_FILE when it cannot be read or written, or is of another campaign
 */
export function openResultFile(path: string, campaign: object): ResultFile {
  const head = `${JSON.stringify({ schema: SCHEMA, campaign })}\n`;
  try {
    if (!existsSync(path)) writeFileSync(path, head);
    else if (!statSync(path).isFile()) throw new PfnlessError('ERR_PFNLESS_FILE', `${path} is no file.`);
    const text = readFileSync(path, 'utf8');
    // A line that was cut off in the middle is none.
    const whole = text.slice(0, text.lastIndexOf('\n') + 1);
    if (!whole.startsWith(head)) {
      throw new PfnlessError('ERR_PFNLESS_FILE', `${path} has results of something else: give another name.`);
    }
    if (whole.length < text.length) truncateSync(path, Buffer.byteLength(whole));
    return { rows: rowsOf(path, whole.slice(head.length)), append: (row) => append(path, row) };
  } catch (cause) {
    if (cause instanceof PfnlessError) throw cause;
    throw fileError(path, cause);
  }
}

function rowsOf(path: string, text: string): SeedRow[] {
  const rows = new Map<number, SeedRow>();
  for (const [at, line] of text.split('\n').entries()) {
    if (line === '') continue;
    try {
      const row = JSON.parse(line) as SeedRow;
      // One that crashed may have been tried again.
      if (isJudged(row)) rows.set(row.seed, row);
    } catch (cause) {
      throw new PfnlessError('ERR_PFNLESS_FILE', `${path}: line ${at + 2} is no result.`, { cause });
    }
  }
  return [...rows.values()];
}

function append(path: string, row: SeedRow): void {
  try {
    appendFileSync(path, `${JSON.stringify(row)}\n`);
  } catch (cause) {
    throw fileError(path, cause);
  }
}

function fileError(path: string, cause: unknown): PfnlessError {
  const { code, message } = cause as NodeJS.ErrnoException;
  const reason = code === 'EISDIR' ? 'it is a directory' : message;
  return new PfnlessError('ERR_PFNLESS_FILE', `${path} cannot hold results: ${reason}`, { cause });
}
