/** Runs the built command line as a user would, in a process of its own. */
import { execFile, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url));

export interface Finished {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** @param flags Node's own */
export function pfnless(words: readonly string[], cwd?: string, flags: readonly string[] = []): Promise<Finished> {
  return new Promise((resolve) => {
    execFile(process.execPath, [...flags, MAIN, ...words], { cwd, maxBuffer: 2 ** 26 }, (error, stdout, stderr) => {
      resolve({ code: error ? Number(error.code) : 0, stdout, stderr });
    });
  });
}

/** The same, still running; its stderr is dropped. */
export const start = (words: readonly string[]) =>
  spawn(process.execPath, [MAIN, ...words], { stdio: ['ignore', 'pipe', 'ignore'] });

/** The one JSON object of a `--json` run. */
export const jsonOf = ({ stdout }: Finished) => JSON.parse(stdout);
