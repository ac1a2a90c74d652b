/** What is published: everything that the package's entries, its command and its threads load, and nothing of it twice. */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseProgram } from 'pfnless';
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

test('what package.json points at is in the package', () => {
  const files = packed();
  const { exports, imports, bin } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
  const targets = JSON.stringify({ exports, imports, bin }).match(/(?<=")(\.\/)?(dist|test)\/[^"]+/g)!;
  expect(targets.length).toBeGreaterThan(4);
  for (const target of targets) {
    const pattern = new RegExp(`^${target.replace('./', '').replaceAll('.', '\\.').replace('*', '.+')}$`);
    expect(files.some((file) => pattern.test(file))).toBe(true);
  }
});

test('the litmus library can be read from code, and nothing of the tests comes with it', () => {
  const ofTests = packed().filter((file) => file.startsWith('test/'));
  expect(ofTests.filter((file) => !/^test\/litmus\/(.+\.pfn|README\.md)$/.test(file))).toEqual([]);
  expect(ofTests.length).toBeGreaterThan(50);
  const file = createRequire(import.meta.url).resolve('pfnless/litmus/migrate/against-store.pfn');
  expect(parseProgram(readFileSync(file, 'utf8')).question[0]).toMatch(/\?$/);
});

test('documents that README and the pages in docs link to are in the package', () => {
  const files = packed();
  const pages = ['README.md', ...files.filter((file) => file.startsWith('docs/'))];
  expect(pages).toHaveLength(4);
  for (const page of pages) {
    const links = readFileSync(join(ROOT, page), 'utf8').matchAll(/\]\((?!\w+:|#)([^)#]+)/g);
    expect(files).toEqual(expect.arrayContaining(Array.from(links, ([, link]) => join(dirname(page), link!))));
  }
});
