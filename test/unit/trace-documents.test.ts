/** docs/traces.md and the recorder know every operation of the format, and the page every fact that an explanation names. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
const between = (text: string, start: string, end: string): string => text.split(start)[1]!.split(end)[0]!;
const all = (text: string, pattern: RegExp): string[] => Array.from(text.matchAll(pattern), ([, name]) => name!).sort();

const page = read('docs/traces.md');
const format = between(read('src/conformance/trace.ts'), 'const OPERATIONS_1 = {', 'const OPERATIONS = {');
const operations = all(format, /^ {2}(\w+): \{/gm);

test('the page has every operation', () => {
  const rows = all(between(page, '### Operation', '### State'), /^\| (`.*?) \|/gm);
  expect(rows.flatMap((names) => all(names, /`(\w+)`/g)).sort()).toEqual(operations);
});

test('the recorder does every operation', () => {
  // These two make and end the child, which its table is not about.
  const table = all(read('test/conformance/recorder/operations.h'), /^ *X\((\w+),/gm);
  expect([...table, 'exit', 'fork'].sort()).toEqual(operations);
});

test('the page has every fact that an explanation names', () => {
  const named = all(read('src/conformance/explain.ts'), /\bfact: (\d+)/g);
  expect(named.length).toBeGreaterThan(20);
  expect(all(page, /^(\d+)\. /gm)).toEqual(expect.arrayContaining(named));
});
