/** Reading and writing what the user names: machine specs (YAML or JSON), recorded layouts (JSON lines, possibly gzipped), results. */
import { closeSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { basename, extname } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { parse as parseYaml } from 'yaml';
import { PfnlessError } from '../base/errors.js';
import { suggestion } from '../base/nearest.js';
import { isPresetName, PRESET_NAMES } from '../machine/presets.js';
import { isMachineName } from '../machine/schema.js';
import { type MachineSpec, parseMachineSpec } from '../machine/spec.js';

const SPEC_EXTENSIONS = ['.yaml', '.yml', '.json'];

const fileError = (message: string, cause?: unknown): PfnlessError =>
  new PfnlessError('ERR_PFNLESS_FILE', message, { cause });

/** The machine that `--machine` names: a preset, or a spec file. @throws PfnlessError ERR_PFNLESS_FILE, ERR_PFNLESS_SPEC */
export function loadMachine(nameOrFile: string): MachineSpec {
  if (isPresetName(nameOrFile)) return parseMachineSpec(nameOrFile);
  if (!SPEC_EXTENSIONS.includes(extname(nameOrFile).toLowerCase())) {
    throw fileError(
      `"${nameOrFile}" is neither a machine preset (${suggestion(nameOrFile, PRESET_NAMES)}) nor a ${SPEC_EXTENSIONS.join(', ')} file`,
    );
  }
  const spec = parseMachineSpec(parseSpecText(readText(nameOrFile), nameOrFile), nameOrFile);
  const name = basename(nameOrFile, extname(nameOrFile));
  return spec.name === 'custom' && isMachineName(name) ? Object.freeze({ ...spec, name }) : spec;
}

function parseSpecText(text: string, file: string): unknown {
  try {
    // A byte order mark is no part of JSON, and editors write it.
    return extname(file).toLowerCase() === '.json'
      ? JSON.parse(text.replace(/^\uFEFF/, ''))
      : parseYaml(text, { logLevel: 'error' });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const several = code === 'MULTIPLE_DOCS' ? 'it has several documents, and a machine is one' : null;
    const reason = several ?? message.split('\n')[0]!.replace(/:$/, '');
    throw fileError(`${file} cannot be read as ${extname(file).slice(1).toUpperCase()}: ${reason}`, error);
  }
}

/** The text of a file or a pipe, unpacked when its name ends in `.gz`. @throws PfnlessError ERR_PFNLESS_FILE */
export function readText(file: string): string {
  try {
    // Of a device there may be no end, and while it is read no signal is seen.
    if (statSync(file).isCharacterDevice()) throw new Error('it is a device, not a file');
    const bytes = readFileSync(file);
    return (file.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString('utf8');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const reason = READ_FAILURES[code ?? ''] ?? message;
    throw fileError(`${file} cannot be read: ${reason}`, error);
  }
}

/** @throws PfnlessError ERR_PFNLESS_FILE */
export const writeText = (file: string, text: string): void => writing(file, () => writeFileSync(file, text));

/** Can it be written? What is in it stays. @throws PfnlessError ERR_PFNLESS_FILE */
export const requireWritable = (file: string): void => writing(file, () => closeSync(openSync(file, 'a')));

function writing(file: string, write: () => void): void {
  try {
    write();
  } catch (error) {
    throw fileError(`${file} cannot be written: ${(error as Error).message}`, error);
  }
}

const READ_FAILURES: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  EISDIR: 'it is a directory',
  EACCES: 'permission denied',
  Z_DATA_ERROR: 'it is not gzip data',
  Z_BUF_ERROR: 'the gzip data ends early',
};

/** The version in pfnless's own package.json. */
export function packageVersion(): string {
  const text = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
