/** The programs that `explore` knows by name: the litmus library, which comes with the package as text files. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { PfnlessError } from '../base/errors.js';
import { nearestName } from '../base/nearest.js';
import { parseProgram } from '../workload/program/parse.js';
import type { Program } from '../workload/program/program.js';
import { readText } from './files.js';

const LIBRARY = fileURLToPath(new URL('../../../test/litmus', import.meta.url));
const EXTENSION = '.pfn';

export interface NamedProgram {
  /** Protocol and scenario: `migrate/against-fault`. */
  readonly name: string;
  /** The question that it asks. */
  readonly summary: string;
}

export function namedPrograms(): NamedProgram[] {
  return names().map((name) => {
    return { name, summary: questionOf(readFileSync(fileOf(name), 'utf8')) };
  });
}

/** Of the comment that a program opens with: up to its question mark, or else its first sentence. */
function questionOf(text: string): string {
  const comment = /^(?:#.*\n)*/
    .exec(text)![0]
    .replace(/^#[ \t]*/gm, '')
    .trim()
    .replace(/\s+/g, ' ');
  return /^[^?]*\?/.exec(comment)?.[0] ?? /^.*?\.(?= |$)/.exec(comment)?.[0] ?? comment;
}

/** The whole library, as text: programs go to threads so. */
export const libraryTexts = (): { readonly name: string; readonly text: string }[] =>
  names().map((name) => ({ name, text: readText(fileOf(name)) }));

/** The program that a word names: a file, or one of the library. @throws PfnlessError ERR_PFNLESS_FILE, ERR_PFNLESS_SYNTAX */
export function loadProgram(nameOrFile: string): Program {
  const known = names();
  if (known.includes(nameOrFile)) return parseProgram(readText(fileOf(nameOrFile)), nameOrFile);
  if (existsSync(nameOrFile)) return parseProgram(readText(nameOrFile), nameOrFile);
  const nearest = nearestName(nameOrFile, known);
  const hint = nearest === undefined ? '`npx pfnless list` shows them all' : `did you mean "${nearest}"?`;
  throw new PfnlessError(
    'ERR_PFNLESS_FILE',
    `"${nameOrFile}" is neither a file nor a program of the library (${hint})`,
  );
}

const fileOf = (name: string): string => `${LIBRARY}/${name}${EXTENSION}`;

function names(): string[] {
  if (!existsSync(LIBRARY)) return [];
  return readdirSync(LIBRARY, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith(EXTENSION))
    .map((file) => file.slice(0, -EXTENSION.length).replaceAll('\\', '/'))
    .sort();
}
