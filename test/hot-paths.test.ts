/**
 * On hot paths V8 knows where the fields of an object are. It does not where objects of one place are of ever new kinds, as those that an
 * object was spread into: then each access is looked up by name, in the runtime, which costs more than what the path does.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';

const PFNLESS = fileURLToPath(new URL('../dist/src/cli/main.js', import.meta.url));
const TRACES = fileURLToPath(new URL('conformance/traces/', import.meta.url));

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'pfnless-hot-paths-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** What a program prints, and by place in the source how often V8 looked a field up of which it had given up to know where it is. */
function run(name: string, ...args: string[]): { readonly printed: string; readonly lookups: Map<string, number> } {
  const log = join(folder, `${name}.log`);
  const flags = ['--log-ic', `--logfile=${log}`, '--no-logfile-per-isolate'];
  const printed = execFileSync(process.execPath, [...flags, ...args], { encoding: 'utf8', maxBuffer: 2 ** 26 });
  const lookups = new Map<string, number>();
  for (const line of readFileSync(log, 'latin1').split('\n')) {
    const [, kind, row, column, field] = /^(\w+IC),0x\w+,\d+,(\d+),(\d+),N,N,\w+,(.*?),/.exec(line) ?? [];
    if (kind === undefined) continue;
    const place = `${kind} of ${field} at ${row}:${column}`;
    lookups.set(place, (lookups.get(place) ?? 0) + 1);
  }
  return { printed, lookups };
}

/** What happens while a program starts, and one operation in fifty. */
const mostOf = (operations: number): number => 200 + operations / 50;

const over = (lookups: Map<string, number>, most: number): string[] =>
  [...lookups].filter(([, times]) => times > most).map(([place, times]) => `${times} ${place}`);

test('objects of ever new kinds are seen', () => {
  const script = `
    const kinds = (at) => Object.defineProperty({ ['only' + at]: at }, 'field', { value: at, enumerable: true });
    let sum = 0;
    for (let at = 0; at < 5000; at++) sum += kinds(at).field;
    console.log(sum)`;
  const { printed, lookups } = run('control', '--eval', script);
  expect(printed).toBe(`${(5000 * 4999) / 2}\n`);
  expect(over(lookups, mostOf(5000))).toEqual([expect.stringMatching(/LoadIC of field/)]);
});

test('a replay knows where its fields are', () => {
  const files = readdirSync(TRACES).filter((file) => /^(scen|seed)-/.test(file));
  const { printed, lookups } = run('replay', PFNLESS, 'conform', '--json', ...files.map((file) => join(TRACES, file)));
  const { operations } = JSON.parse(printed);
  expect(operations).toBeGreaterThan(2000);
  expect(over(lookups, mostOf(operations))).toEqual([]);
});

test('an exploration knows where its fields are', () => {
  const { printed, lookups } = run(
    'explore',
    PFNLESS,
    'explore',
    '--json',
    '--executions',
    '2000',
    'fork/against-migrate',
  );
  const { executions } = JSON.parse(printed);
  expect(executions).toBeGreaterThan(500);
  expect(over(lookups, mostOf(executions))).toEqual([]);
});
