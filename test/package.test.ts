/** What is published: everything that the package's entries, its command and its threads load, and nothing of it twice. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const ENTRIES = ['dist/src/index.js', 'dist/src/fast-check.js', 'dist/src/cli/main.js'];

const packed = (): readonly string[] => {
  const words = ['pack', '--dry-run', '--json', '--ignore-scripts'];
  const text = execFileSync('npm', words, { cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  const [{ files }] = JSON.parse(text) as [{ files: readonly { readonly path: string }[] }];
  return files.map(({ path }) => path);
};

/** Modules that a module names: imports, and URLs of threads and programs beside it. */
function namedBy(file: string): string[] {
  const text = readFileSync(join(ROOT, file), 'utf8');
  const names = text.matchAll(/(?:from|import)\s*\(?\s*"(\.[^"]+)"|new URL\("(\.[^"]+\.js)", import\.meta\.url\)/g);
  return [...names].map((match) => normalize(join(dirname(file), (match[1] ?? match[2])!)));
}

function reachable(entries: readonly string[]): Set<string> {
  const reached = new Set<string>();
  const visit = (file: string): void => {
    if (reached.has(file)) return;
    reached.add(file);
    if (existsSync(join(ROOT, file))) for (const named of namedBy(file)) visit(named);
  };
  for (const entry of entries) visit(entry);
  return reached;
}

test('every module that is loaded is in the package, and no other', () => {
  const files = packed();
  const modules = files.filter((path) => path.startsWith('dist/') && path.endsWith('.js')).sort();
  const loaded = [...reachable(ENTRIES)].sort();
  expect(loaded).toContain('dist/workers/device.js');
  expect(loaded).toContain('dist/src/chunks/core.js');
  expect(modules).toEqual(loaded);
  for (const type of ['dist/src/index.d.ts', 'dist/src/fast-check.d.ts']) expect(files).toContain(type);
});
