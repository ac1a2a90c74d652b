/** Every numbered example runs as a user would run it, and prints what it promises. */
import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const EXAMPLES = fileURLToPath(new URL('../examples/', import.meta.url));
const examples = readdirSync(EXAMPLES).filter((name) => /^\d\d-.*\.js$/.test(name));

const expectedFile = (example: string): string => join(EXAMPLES, 'expected', `${basename(example, '.js')}.txt`);

test('there are examples, and no expected output without one', () => {
  expect(examples.length).toBeGreaterThanOrEqual(4);
  expect(readdirSync(join(EXAMPLES, 'expected')).length).toBe(
    examples.filter((name) => existsSync(expectedFile(name))).length,
  );
});

test.each(examples)('%s prints what it promises', async (example) => {
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [join(EXAMPLES, example)]);
  expect(stdout).toBe(readFileSync(expectedFile(example), 'utf8'));
  expect(stderr).toBe('');
});
