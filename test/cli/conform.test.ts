/** `pfnless conform`, as a user runs it: on one thread or on several, what comes out is the same. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { jsonOf, pfnless } from './pfnless.js';

const TRACES = fileURLToPath(new URL('../conformance/traces/', import.meta.url));
const FILES = readdirSync(TRACES)
  .filter((name) => name.startsWith('scen-'))
  .map((name) => join(TRACES, name));
let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'pfnless-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** A trace of the folder, with a result that no kernel ever gave, or with a line that is none. */
function spoiled(name: string, from: string, to: string): string {
  const text = gunzipSync(readFileSync(join(TRACES, 'scen-migrate_basic.jsonl.gz'))).toString();
  const path = join(folder, name);
  writeFileSync(path, text.replace(from, to));
  return path;
}

describe('conform', () => {
  test('on several threads finds what one finds', { timeout: 60_000 }, async () => {
    const files = [...FILES.slice(0, 12), spoiled('wrong.jsonl', '"cpages":16', '"cpages":15'), ...FILES.slice(12, 24)];
    const run = async (jobs: string) => jsonOf(await pfnless(['conform', ...files, '--jobs', jobs, '--json']));
    const [one, three] = [await run('1'), await run('3')];
    expect(one.divergences).toHaveLength(1);
    expect(one.divergences[0]).toMatchObject({ trace: files[12], field: 'cpages' });
    for (const result of [one, three]) {
      delete result.wallMs;
      delete result.operationsPerSecond;
    }
    expect(three).toEqual(one);
  });

  test('of several files that are no traces it names the first', { timeout: 60_000 }, async () => {
    const files = [
      ...FILES.slice(0, 15),
      spoiled('first.jsonl', '"op":"migrate_to_dev"', '"op":"teleport"'),
      spoiled('second.jsonl', '"errno":"0"', '"errno":7'),
      ...FILES.slice(15, 30),
    ];
    for (const jobs of ['1', '4']) {
      const { code, stdout, stderr } = await pfnless(['conform', ...files, '--jobs', jobs]);
      expect(code).toBe(2);
      expect(stdout).toBe('');
      expect(stderr).toMatch(/first\.jsonl:\d+: /);
    }
  });
});
