/** docs/json.md is what the commands print: every field that comes out is there, of its type, and what is always there comes out. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { afterAll, describe, expect, test } from 'vitest';
import { runGrowth } from '#src/bench/index';
import { jsonOf, pfnless } from './pfnless.js';

const file = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const unzipped = (path: string): string => gunzipSync(readFileSync(file(path))).toString();

interface Field {
  /** `rows[].id` */
  readonly path: string;
  /** What it may be: `integer or null`, `list of text`, `map of integer`. */
  readonly is: string;
  readonly always: boolean;
}

/** The tables of the page, by the heading above them. */
const PAGE: ReadonlyMap<string, readonly Field[]> = new Map(
  readFileSync(file('docs/json.md'), 'utf8')
    .split(/^## /m)
    .slice(1)
    .map((section) => {
      const rows = section.matchAll(/^\| `([\w.[\]]+)` \| ([^|]+) \| ([^|]+) \|/gm);
      const fields = Array.from(rows, ([, path, is, there]) => ({ path: path!, is: is!, always: there === 'always' }));
      return [section.split('\n')[0]!, fields];
    }),
);
const CANNOT_RUN = 'What cannot be run';

const CHECKS: Readonly<Record<string, (value: unknown) => boolean>> = {
  null: (value) => value === null,
  text: (value) => typeof value === 'string',
  boolean: (value) => typeof value === 'boolean',
  number: (value) => typeof value === 'number',
  integer: Number.isInteger,
  list: Array.isArray,
  object: (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
};

function isOf(is: string, value: unknown): boolean {
  const [, container, kinds = ''] = /^(?:(list|map) of )?(.*)$/.exec(is)!;
  const one = (each: unknown): boolean => kinds.split(' or ').some((kind) => CHECKS[kind]!(each));
  if (container === undefined) return one(value);
  return CHECKS[container === 'list' ? 'list' : 'object']!(value) && Object.values(value as object).every(one);
}

/** Where what was printed and what the page says differ. */
function differences(fields: readonly Field[], value: unknown, path = ''): string[] {
  const own = fields.find((field) => field.path === path);
  if (own && !isOf(own.is, value)) return [`${path} is ${JSON.stringify(value)}, not ${own.is}`];
  const below = (inside: string): boolean => fields.some((field) => field.path.startsWith(inside));
  if (Array.isArray(value) && below(`${path}[]`)) {
    return value.flatMap((each) => differences(fields, each, `${path}[]`));
  }
  const prefix = path === '' ? '' : `${path}.`;
  if (!CHECKS.object!(value) || (path !== '' && !below(prefix))) {
    return own || path.endsWith('[]') ? [] : [`${path} is not on the page`];
  }
  const found = Object.entries(value as object).flatMap(([name, inside]) => {
    const at = `${prefix}${name}`;
    const known = fields.some((field) => field.path === at) || below(`${at}.`) || below(`${at}[]`);
    return known ? differences(fields, inside, at) : [`${at} is not on the page`];
  });
  // A name with a dot or brackets behind it is a parent, which is there if something in it always is.
  const needed = fields
    .filter((field) => field.always && field.path.startsWith(prefix))
    .map((field) => /^\w+/.exec(field.path.slice(prefix.length))?.[0])
    .filter((name) => name !== undefined && !isConditional(fields, `${prefix}${name}`));
  const missing = [...new Set(needed)].filter((name) => !Object.hasOwn(value as object, name!));
  return [...found, ...missing.map((name) => `${prefix}${name} is missing`)];
}

/** Is there a row for it that does not say `always`? */
const isConditional = (fields: readonly Field[], path: string): boolean =>
  fields.some((field) => field.path === path && !field.always);

function expectAsDescribed(section: string, printed: unknown): void {
  expect(differences(PAGE.get(section)!, printed)).toEqual([]);
}

const folder = mkdtempSync(join(tmpdir(), 'pfnless-json-'));
afterAll(() => rmSync(folder, { recursive: true }));
/** A file that was never recorded so: there is something to find. */
function written(name: string, text: string): string {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
}

const TRACE = 'test/conformance/traces/scen-anon_read.jsonl.gz';
const LAYOUTS = 'test/conformance/layouts.jsonl.gz';
const wrongTrace = (): string => written('wrong.jsonl', unzipped(TRACE).replace('"faults":1', '"faults":7'));
const wrongLayout = (): string =>
  written(
    'layout.jsonl',
    unzipped(LAYOUTS).split('\n')[0]!.replace('"start":"0xfff0000000"', '"start":"0xffe0000000"'),
  );
const earlierRun = (): string => {
  const figures = { ratio: 1, ratioMad: 0.1, median: 10, mad: 1 };
  const results = ['legacy', 'offset'].map((addressing) => ({ name: 'memmap initialisation', addressing, ...figures }));
  return written('earlier.json', JSON.stringify({ schema: 'pfnless/bench@1', results }));
};
const forgetful = ['--executor', 'inline', '--site', 'leaf-to-page-private', '--inject', 'copy-late'];

describe('docs/json.md', () => {
  test('has every command that prints JSON', () => {
    const commands = readdirSync(file('src/cli/commands')).flatMap((name) => {
      const text = readFileSync(file(`src/cli/commands/${name}`), 'utf8');
      return [...text.matchAll(/'pfnless\/(\w+)@1'/g)].map((match) => match[1]!);
    });
    expect([...PAGE.keys()].sort()).toEqual([...new Set(commands), CANNOT_RUN].sort());
    for (const fields of PAGE.values()) expect(new Set(fields.map(({ path }) => path)).size).toBe(fields.length);
  });

  test.each([
    ['run', ['run', 'vector-add', '--executor', 'inline']],
    ['run', ['run', 'vector-add', '--executor', 'inline', '--site', 'canary']],
    ['explore', ['explore', 'migrate/against-store', '--executions', '20']],
    ['explore', ['explore', 'migrate/against-store', '--strategy', 'dfs', '--site', 'leaf-to-page-private'], 'failure'],
    ['replay', ['replay', 'v1 offset tame pages 1; A: load 0 -> r; B: mprotect 0 none -> e']],
    ['replay', ['replay', 'v1 offset,-leaf-to-page-private tame devices 1; pages 1; A: todevice 0 on 0'], 'finding'],
    ['stress', ['stress', '--executor', 'inline', '--rounds', '1', '--episodes', '2']],
    ['stress', ['stress', '--rounds', '1', ...forgetful], 'violations'],
    ['campaign', ['campaign', '--executor', 'inline', '--seeds', '1', '--ops', '1000']],
    ['campaign', ['campaign', '--seeds', '1', ...forgetful], 'failures'],
    ['contention', ['contention', '--cpus', '2']],
    ['mutants', ['mutants', '--only', 'leaf-to-page-private', '--budget', '20', '--control', '10']],
    ['list', ['list']],
    ['iomem', ['iomem']],
    ['iomem', ['iomem', '--machine', 'pci-window', '--addressing', 'legacy'], 'failed'],
    ['layouts', ['layouts', wrongLayout()], 'mismatches'],
    ['conform', ['conform', file(TRACE)]],
    ['conform', ['conform', wrongTrace()], 'divergences'],
    ['showcase', ['showcase']],
    ['bench', ['bench', '--filter', 'memmap', '--samples', '3', '--compare', earlierRun()], 'comparisons'],
    [CANNOT_RUN, ['run', 'saxpy', '--machine', 'pci-window', '--addressing', 'legacy']],
    [CANNOT_RUN, ['iomem', '--machine', 'nonsense']],
    [CANNOT_RUN, ['rum']],
  ] as const)('%s: %j', async (section, words, wanted?: string) => {
    const finished = await pfnless([...words, '--json']);
    const printed = jsonOf(finished);
    expectAsDescribed(section, printed);
    expect(printed.ok).toBe(finished.code === 0);
    if (wanted !== undefined) expect(Object.keys(printed[wanted])).not.toEqual([]);
  });

  test('bench --growth, without its minutes', async () => {
    const growth = await runGrowth({ filter: 'mappings', sizeMax: 10, samples: 3, warmUpMs: 1 });
    const described = PAGE.get('bench')!.filter(({ path }) => path.startsWith('growth'));
    expect(differences(described, { growth })).toEqual([]);
  });
});

test('the comparison can fail', () => {
  const fields = [
    { path: 'ok', is: 'boolean', always: true },
    { path: 'seed', is: 'integer or null', always: true },
    { path: 'rows[].id', is: 'text', always: true },
    { path: 'rows[].why', is: 'text', always: false },
    { path: 'seen', is: 'map of integer', always: true },
  ];
  const printed = { ok: true, seed: null, rows: [{ id: 'a' }], seen: { x: 1 } };
  expect(differences(fields, printed)).toEqual([]);
  expect(differences(fields, { ...printed, ok: 1 })).toEqual(['ok is 1, not boolean']);
  expect(differences(fields, { ...printed, rows: [{ why: 'b', more: 1 }] })).toEqual([
    'rows[].more is not on the page',
    'rows[].id is missing',
  ]);
  expect(differences(fields, { ...printed, seen: { x: 'y' } })).toEqual(['seen is {"x":"y"}, not map of integer']);
  const { seed: _, ...without } = printed;
  expect(differences(fields, without)).toEqual(['seed is missing']);
});
